// SPDX-License-Identifier: Apache-2.0
// memory.hpp - owning C++20 handles over segments, shared blocks and blocks that are given away. Header only.
//
// As in channels.hpp: owners are move-only, a failure throws ch::error.
#pragma once
#include <channels/channels.hpp>
#include <cerrno>
#include <exception>
#include <functional>
#include <type_traits>
#include <vector>

namespace ch {

// Named shared memory that knows who uses it (ch_segment in C). Destroying the object detaches; destroy() ends the segment.
class segment {
public:
	struct options {
		std::size_t len = 0;    // 0: 16 MiB
		unsigned max_peers = 0; // 0: 1024
		std::string name{};     // empty: made up
		unsigned flags = 0;     // CH_ANONYMOUS, CH_HUGE_PAGES, CH_LOCKED, CH_GROUP, CH_NO_PREFAULT
		unsigned group = 0;
	};

	static segment create(const options &o)
	{
		ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
		ch_segment *s = nullptr;

		attr.len = o.len;
		attr.max_peers = o.max_peers;
		attr.name = o.name.empty() ? nullptr : o.name.c_str();
		attr.flags = o.flags;
		attr.group = o.group;
		check(ch_segment_create(&attr, &s));
		return segment(s);
	}
	static segment attach(const descriptor &d, unsigned flags = 0)
	{
		ch_segment *s = nullptr;

		check(ch_segment_attach_with(&d, nullptr, flags, &s));
		return segment(s);
	}
	static segment attach(const std::string &name, unsigned flags = 0)
	{
		ch_segment *s = nullptr;

		check(ch_segment_attach_with(nullptr, name.c_str(), flags, &s));
		return segment(s);
	}
	// The file descriptor stays the caller's.
	static segment attach_fd(int fd, unsigned flags = 0)
	{
		ch_segment *s = nullptr;

		check(ch_segment_attach_fd(fd, flags, &s));
		return segment(s);
	}
	void destroy() noexcept { ch_segment_destroy(s_.release()); }

	descriptor descr() const { return detail::descr_of<ch_segment, ch_segment_get_descr>(s_.get()); }
	std::string name() const { return ch_segment_name(s_.get()); }
	std::span<std::byte> bytes() const noexcept
	{
		return {static_cast<std::byte *>(ch_segment_addr(s_.get())), ch_segment_len(s_.get())};
	}
	// A descriptor of the caller's own, to be closed.
	int fd() const { return static_cast<int>(check(ch_segment_get_fd(s_.get()))); }
	ch_segment_info info() const
	{
		ch_segment_info i;

		check(ch_segment_get_info(s_.get(), &i));
		return i;
	}
	ch_segment *get() const noexcept { return s_.get(); }

	// All named segments that the caller may read.
	static std::vector<ch_segment_info> list()
	{
		std::vector<ch_segment_info> all;

		check(ch_segment_list(
			[](const ch_segment_info *info, void *arg) noexcept {
				static_cast<std::vector<ch_segment_info> *>(arg)->push_back(*info);
				return 0;
			},
			&all));
		return all;
	}
	// Removes what dead jobs left; how many there were.
	static int reclaim() { return static_cast<int>(check(ch_segment_reclaim(nullptr))); }

private:
	explicit segment(ch_segment *s) noexcept : s_(s) {}
	detail::handle<ch_segment, ch_segment_detach> s_;
};

// A block, or a part of one, that several processes may read (ch_view in C). The last one to let go frees the block.
class view {
public:
	// addr is a block of the pool and the caller's own; from now on it is nobody's to write.
	static view create(const memory_pool &pool, void *addr, std::size_t len)
	{
		ch_view *v = nullptr;

		check(ch_view_create(pool.get(), addr, len, &v));
		return view(v);
	}
	static view attach(const descriptor &d)
	{
		ch_view *v = nullptr;

		check(ch_view_attach(&d, &v));
		return view(v);
	}
	view part(std::size_t off, std::size_t len) const
	{
		ch_view *v = nullptr;

		check(ch_view_clone(v_.get(), off, len, &v));
		return view(v);
	}
	view clone() const { return part(0, ch_view_len(v_.get())); }
	std::span<const std::byte> bytes() const noexcept
	{
		return {static_cast<const std::byte *>(ch_view_addr(v_.get())), ch_view_len(v_.get())};
	}
	int count() const { return static_cast<int>(check(ch_view_count(v_.get()))); }
	descriptor descr() const { return detail::descr_of<ch_view, ch_view_get_descr>(v_.get()); }
	ch_view *get() const noexcept { return v_.get(); }

private:
	explicit view(ch_view *v) noexcept : v_(v) {}
	detail::handle<ch_view, ch_view_detach> v_;
};

// Whoever accepts the descriptor first owns the block.
inline descriptor offer(const memory_pool &pool, void *addr)
{
	descriptor d{};

	check(ch_block_offer(pool.get(), addr, &d));
	return d;
}

// The block, or NULL if another was quicker, or its owner withdrew it or died.
inline void *accept(const memory_pool &pool, const descriptor &d)
{
	void *addr = nullptr;
	const int rc = ch_block_accept(pool.get(), &d, &addr);

	if (rc != -ESTALE)
		check(rc);
	return addr;
}

// Calls fn(const ch_block_info &) for each block in use that bears this type; 0: for each.
template <class Fn> int for_each_block(const memory_pool &pool, std::uint32_t type, Fn &&fn)
{
	struct call {
		std::remove_reference_t<Fn> *fn;
		std::exception_ptr failure;
	} c{&fn, nullptr};
	const int rc = ch_pool_each_block(
		pool.get(), type,
		[](const ch_block_info *info, void *arg) noexcept {
			call *to = static_cast<call *>(arg);
			try {
				std::invoke(*to->fn, *info);
				return 0;
			} catch (...) {
				to->failure = std::current_exception();
				return 1;
			}
		},
		&c);

	if (c.failure)
		std::rethrow_exception(c.failure);
	return static_cast<int>(check(rc));
}

} // namespace ch

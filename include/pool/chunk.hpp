// SPDX-License-Identifier: Apache-2.0
// chunk.hpp - many items in one task: what travels, and how the results come out of it again.
//
// If items and results are flat (ch::archive::is_flat) both travel as arrays that are copied once; otherwise through the
// archive. An item that fails does not fail the chunk.
#pragma once
#include <memory>
#include <pool/future.hpp>
#include <vector>

namespace ch::detail {

// Room for a task's bytes in shared memory, from the moment there is a place for it until it is sent.
class CH_API draft {
public:
	// Waits for a place.
	draft(core &c, std::uint64_t name, std::size_t len, const task_options *o = nullptr);
	~draft(); // gives the place back, unless committed
	draft(const draft &) = delete;
	draft &operator=(const draft &) = delete;
	std::span<std::byte> room() const noexcept { return {data_, len_}; }
	task_ref commit() noexcept;

private:
	core &core_;
	task *task_ = nullptr;
	std::size_t len_;
	std::byte *data_ = nullptr;
};

// While it lives, short tasks that this thread commits to c are sent in groups, which costs less; before the thread waits
// for anything of c, and at the end. Only where none of them is waited for elsewhere before the others are written.
class CH_API convoy {
public:
	explicit convoy(core &c) noexcept;
	~convoy();
	convoy(const convoy &) = delete;
	convoy &operator=(const convoy &) = delete;

private:
	friend class core;
	static constexpr std::uint32_t most = 32;

	core &core_;
	convoy *const outer_;
	std::uint32_t nr_ = 0;
	struct {
		std::uint32_t slot, serial;
	} tickets_[most];
};

CH_API std::uint64_t now_ns() noexcept;
CH_API unsigned worker_count(core &c) noexcept;

// std::monostate where F returns nothing.
template <class F, class A>
using item_result = std::conditional_t<std::is_void_v<std::invoke_result_t<F &, A>>, std::monostate,
				       archive::carrier_t<std::invoke_result_t<F &, A>>>;

template <class R>
inline constexpr bool is_flat_result = archive::is_flat<R> || std::is_same_v<R, std::monostate>;
template <class R> inline constexpr std::size_t flat_size = archive::is_flat<R> ? sizeof(R) : 0;
template <class F, class A> inline constexpr bool goes_flat = archive::is_flat<A> && is_flat_result<item_result<F, A>>;

// ---- what is sent

// Items as an array, and nothing else: as many as there are bytes for.
template <class T> struct flat_items {
	std::span<const T> items;

	template <class A> void save(A &ar) const { ar.put(items.data(), items.size_bytes()); }
};

struct flat_head {
	std::uint64_t elapsed_ns, nr_errors; // then the results, then that many flat_error
};
struct flat_error {
	std::uint64_t index = 0;
	error_record error;

	template <class A> void serialize(A &ar) { ar(index, error); }
};

// A chunk of other results: one result or one error for each item.
template <class R> struct chunk_result {
	std::uint64_t elapsed_ns = 0;
	std::vector<std::variant<R, error_record>> items;

	template <class A> void serialize(A &ar) { ar(elapsed_ns, items); }
};

// ---- in the worker

template <class F, class A> void run_item(F &f, A &item, std::variant<item_result<F, A>, error_record> &out)
{
	try {
		if constexpr (std::is_void_v<std::invoke_result_t<F &, A>>)
			std::invoke(f, std::move(item));
		else
			out.template emplace<0>(as_carried(std::invoke(f, std::move(item))));
	} catch (const abi::__forced_unwind &) { // the thread is being ended: not ours to stop
		throw;
	} catch (...) {
		out.template emplace<1>(current_error());
	}
}

template <class F, class A> void call_chunk(std::span<const std::byte> in, result_sink &out)
{
	archive::reader ar(in);
	unshipped<F> f(ar);
	std::vector<A> items;
	chunk_result<item_result<F, A>> r;

	ar(items);
	r.items.resize(items.size());
	const std::uint64_t begin = now_ns();
	for (std::size_t i = 0; i < items.size(); i++) {
		A item(std::move(items[i]));

		run_item(f.get(), item, r.items[i]);
	}
	r.elapsed_ns = now_ns() - begin;
	out.put(r);
}

// The items from `from` on, up to the first that throws; the index behind the last that was done.
template <class F, class A> std::size_t run_flat(F &f, const std::byte *in, std::byte *out, std::size_t from, std::size_t n)
{
	using R = item_result<F, A>;
	alignas(A) std::byte room[sizeof(A)];

	for (std::size_t i = from; i < n; i++) {
		std::memcpy(room, in + i * sizeof(A), sizeof(A)); // trivially copyable: its bytes are the object
		A &item = *std::launder(reinterpret_cast<A *>(room));
		if constexpr (flat_size<R> == 0) {
			std::invoke(f, std::move(item));
		} else {
			const R r(std::invoke(f, std::move(item)));

			std::memcpy(out + i * sizeof(R), std::addressof(r), sizeof(R));
		}
	}
	return n;
}

// With errors behind the results: what is in out already is moved to a longer place.
CH_API void add_errors(result_sink &out, std::span<const std::byte> results, const std::vector<flat_error> &errors);
[[noreturn]] CH_API void refuse_items();

template <class F, class A> void call_flat(std::span<const std::byte> in, result_sink &out)
{
	using R = item_result<F, A>;
	archive::reader ar(in);
	unshipped<F> f(ar);
	const std::span<const std::byte> items = ar.rest();
	const std::size_t n = items.size() / sizeof(A);
	std::vector<flat_error> errors;

	if (items.size() % sizeof(A))
		refuse_items();
	const std::span<std::byte> room = out.space(sizeof(flat_head) + n * flat_size<R>);
	std::byte *results = room.data() + sizeof(flat_head);
	const std::uint64_t begin = now_ns();
	for (std::size_t i = 0; i < n;) {
		// How far it came is in here, whatever it threw.
		struct counted {
			F &f;
			std::size_t &nr;
			decltype(auto) operator()(A &&a)
			{
				nr++;
				return std::invoke(f, std::move(a));
			}
		};
		std::size_t nr = i;
		counted c{f.get(), nr};

		try {
			i = run_flat<counted, A>(c, items.data(), results, i, n);
		} catch (const abi::__forced_unwind &) {
			throw;
		} catch (...) {
			errors.push_back({nr - 1, current_error()});
			if constexpr (flat_size<R> != 0)
				std::memset(results + (nr - 1) * sizeof(R), 0, sizeof(R));
			i = nr;
		}
	}
	const flat_head h{now_ns() - begin, errors.size()};
	std::memcpy(room.data(), &h, sizeof(h));
	if (!errors.empty())
		add_errors(out, room, errors);
}

// The name of the function that runs a chunk, looked up once.
template <class F, class A> std::uint64_t chunk_name()
{
	if constexpr (goes_flat<F, A>) {
		static const std::uint64_t name = name_of(code_address(&call_flat<F, A>));

		return name;
	} else {
		static const std::uint64_t name = name_of(code_address(&call_chunk<F, A>));

		return name;
	}
}

// ---- in the owner

template <class F, class A>
task_ref send_chunk(core &c, const F &f, const std::vector<A> &items, const task_options &o)
{
	const shipped<F> fn(f);

	if constexpr (goes_flat<F, A>) {
		const flat_items<A> flat{items};
		draft d(c, chunk_name<F, A>(), archive::size(fn, flat), &o);

		archive::write(d.room(), fn, flat);
		return d.commit();
	} else {
		draft d(c, chunk_name<F, A>(), archive::size(fn, items), &o);

		archive::write(d.room(), fn, items);
		return d.commit();
	}
}

// The results of one chunk, or of many items that failed together.
template <class R, bool IsFlat> class landing {
	static_assert(!archive::borrows<R>, "what a map gives is copied: map to vectors");

public:
	// A chunk of n items. How long they took.
	std::uint64_t take(task_ref t, std::size_t n)
	{
		failure_ = nullptr;
		if constexpr (IsFlat) {
			t_ = std::move(t);
			size_ = n;
			return read_flat();
		} else {
			chunk_result<R> r = archive::read<chunk_result<R>>(t->bytes());

			items_ = std::move(r.items);
			size_ = items_.size();
			return r.elapsed_ns;
		}
	}
	void take_failure(std::exception_ptr e, std::size_t n)
	{
		failure_ = std::move(e);
		size_ = n;
	}
	std::size_t size() const noexcept { return size_; }
	void clear() noexcept { size_ = 0; }
	R &at(std::size_t i)
	{
		if (failure_) [[unlikely]]
			std::rethrow_exception(failure_);
		if constexpr (IsFlat) {
			for (const flat_error &e : errors_)
				if (e.index == i)
					rethrow(e.error);
			if constexpr (flat_size<R> != 0)
				std::memcpy(now_, results_ + i * sizeof(R), sizeof(R));
			return *std::launder(reinterpret_cast<R *>(now_));
		} else {
			if (const auto *e = std::get_if<1>(&items_[i]))
				rethrow(*e);
			return std::get<0>(items_[i]);
		}
	}

private:
	std::uint64_t read_flat()
	{
		flat_head h{};

		errors_.clear();
		if (t_->len < sizeof(h) + size_ * flat_size<R>)
			refuse_items();
		std::memcpy(&h, t_->data, sizeof(h));
		results_ = t_->data + sizeof(h);
		if (h.nr_errors)
			errors_ = archive::read<flat_tail>(t_->bytes().subspan(sizeof(h) + size_ * flat_size<R>)).errors;
		return h.elapsed_ns;
	}
	struct flat_tail {
		std::vector<flat_error> errors;
		template <class A> void serialize(A &ar) { ar(errors); }
	};

	task_ref t_; // holds the bytes of results_
	const std::byte *results_ = nullptr;
	std::vector<flat_error> errors_;
	std::vector<std::variant<R, error_record>> items_;
	std::exception_ptr failure_;
	std::size_t size_ = 0;
	alignas(R) std::byte now_[sizeof(R)] = {};
};

} // namespace ch::detail

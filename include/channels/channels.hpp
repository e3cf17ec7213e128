// SPDX-License-Identifier: Apache-2.0
// channels.hpp - owning C++20 handles over the C API. Header only.
//
// Owners are move-only. A failure throws ch::error, whose what() is ch_errmsg(3); forms that would have to wait
// return std::optional or bool instead. Times are std::chrono; a negative duration (ch::forever) waits for ever.
#pragma once
#include <algorithm>
#include <channels/channels.h>
#include <cerrno>
#include <chrono>
#include <concepts>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <pthread.h>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace ch {

using std::chrono::nanoseconds;
inline constexpr nanoseconds forever{CH_FOREVER};

// A failed call of libchannels; code().value() is the positive errno value.
class error : public std::system_error {
public:
	error(int errnum, const char *what) : std::system_error(errnum, std::generic_category(), what) {}
};

[[noreturn]] inline void raise(long rc)
{
	const char *why = rc == -EAGAIN || rc == -ETIMEDOUT ? "" : ch_errmsg();

	throw error(static_cast<int>(-rc), why);
}

// Passes a count through, throws what is negative.
inline long check(long rc)
{
	if (rc < 0)
		raise(rc);
	return rc;
}

// True for done, false for "would have had to wait", throws the rest.
inline bool check_wait(long rc)
{
	if (rc == -EAGAIN || rc == -ETIMEDOUT)
		return false;
	check(rc);
	return true;
}

// 64 flat bytes that name a segment, pool or channel anywhere; trivially copyable.
struct descriptor : ch_descr {
	static descriptor from_text(const std::string &text)
	{
		descriptor d{};

		check(ch_descr_from_text(text.c_str(), &d));
		return d;
	}
	std::string text() const
	{
		char buf[CH_DESCR_TEXT_CAP];

		return std::string(buf, static_cast<std::size_t>(check(ch_descr_to_text(this, buf, sizeof(buf)))));
	}
};

namespace detail {
template <auto Fn> struct closer {
	template <class T> void operator()(T *p) const noexcept { Fn(p); }
};
template <class T, auto Fn> using handle = std::unique_ptr<T, closer<Fn>>;
template <class T, auto Get> descriptor descr_of(const T *p)
{
	descriptor d{};

	check(Get(p, &d));
	return d;
}
// A handle that a descriptor stands for, in any process.
template <class T>
concept has_descriptor = std::default_initializable<T> && requires(const T &t, const descriptor &d) {
	{ t.descr() } -> std::same_as<descriptor>;
	{ T::attach(d) } -> std::same_as<T>;
};
} // namespace detail

// A pool of memory blocks (ch_pool in C). Destroying the object detaches; destroy() ends the pool.
class memory_pool {
public:
	struct options {
		std::size_t len = 0;           // bytes; 0: 16 MiB
		std::size_t max_len = 0;       // what it may grow to; 0: it does not grow
		unsigned max_peers = 0;        // 0: 1024
		unsigned flags = 0;            // CH_ANONYMOUS and others of ch_segment_attr
		ch_segment *segment = nullptr; // where to put it instead; then all others are 0
	};

	static memory_pool create(const options &o)
	{
		ch_pool_attr attr = CH_POOL_ATTR_INIT;
		ch_pool *p = nullptr;

		attr.len = o.len;
		attr.max_len = o.max_len;
		attr.max_peers = o.max_peers;
		attr.flags = o.flags;
		attr.segment = o.segment;
		check(ch_pool_create(&attr, &p));
		return memory_pool(p);
	}
	static memory_pool create(std::size_t len, unsigned max_peers = 0) { return create({len, 0, max_peers, 0, nullptr}); }
	static memory_pool attach(const descriptor &d, unsigned flags = 0)
	{
		ch_pool *p = nullptr;

		check(ch_pool_attach_with(&d, flags, &p));
		return memory_pool(p);
	}
	void destroy() noexcept { ch_pool_destroy(p_.release()); }
	descriptor descr() const { return detail::descr_of<ch_pool, ch_pool_get_descr>(p_.get()); }
	void *alloc(std::size_t len, nanoseconds timeout = forever)
	{
		void *addr = nullptr;

		check(ch_pool_alloc(p_.get(), len, timeout.count(), &addr));
		return addr;
	}
	// The block bears a type, by which for_each_block() finds it (memory.hpp).
	void *alloc_typed(std::size_t len, std::uint32_t type, nanoseconds timeout = forever)
	{
		void *addr = nullptr;

		check(ch_pool_alloc_typed(p_.get(), len, type, timeout.count(), &addr));
		return addr;
	}
	void free(void *addr) { check(ch_pool_free(p_.get(), addr)); }
	int sweep() { return static_cast<int>(check(ch_pool_sweep(p_.get()))); }
	ch_pool_stats stats() const
	{
		ch_pool_stats s;

		check(ch_pool_get_stats(p_.get(), &s));
		return s;
	}
	ch_pool *get() const noexcept { return p_.get(); }

private:
	explicit memory_pool(ch_pool *p) noexcept : p_(p) {}
	detail::handle<ch_pool, ch_pool_detach> p_;
};

namespace detail {
// What this process has attached by a descriptor: opening it again and again, for each message, costs a look here. A T has a
// constructor from a descriptor, descr(), and is_over().
template <class T> class recent {
public:
	static std::shared_ptr<T> open(const descriptor &d)
	{
		recent &r = mine();
		const std::lock_guard<std::mutex> l(r.m_);
		const auto it = std::find_if(r.all_.begin(), r.all_.end(), [&](const auto &t) {
			return std::memcmp(&t->descr(), &d, sizeof(ch_descr)) == 0;
		});

		if (it != r.all_.end()) {
			std::rotate(it, it + 1, r.all_.end());
			return r.all_.back();
		}
		std::erase_if(r.all_, [](const auto &t) { return t->is_over(); }); // their memory is wanted elsewhere
		if (r.all_.size() == most)
			r.all_.erase(r.all_.begin());
		r.all_.push_back(std::make_shared<T>(d));
		return r.all_.back();
	}

private:
	static constexpr std::size_t most = 16;

	// A forked process begins anew: another thread may have been in here at that moment, and what there is is its parent's.
	static recent &mine()
	{
		static recent r;
		static const int known = pthread_atfork(nullptr, nullptr, [] { new (&r) recent; });

		(void)known;
		return r;
	}

	std::mutex m_;
	std::vector<std::shared_ptr<T>> all_; // the most recently used last
};

// This process stays attached to the memory that it was last sent handles of: attaching to one that is there already takes
// a microsecond, and mapping its memory anew milliseconds.
class kept_memory {
public:
	explicit kept_memory(const descriptor &d) : p_(memory_pool::attach(d)), d_(d) {}
	const descriptor &descr() const noexcept { return d_; }
	bool is_over() const noexcept { return ch_pool_sweep(p_.get()) == -ESTALE; } // destroyed

private:
	memory_pool p_;
	descriptor d_;
};
template <has_descriptor T> T sent(const descriptor &d)
{
	const memory_pool p = memory_pool::attach(d); // of which d names something

	recent<kept_memory>::open(p.descr());
	return T::attach(d);
}
} // namespace detail

// Handles travel through an archive (archive.hpp) as their descriptors: into messages, tasks and queues. Whoever reads one is
// attached. What they name must be there then: it is not kept by what was written.
template <class A, detail::has_descriptor T> void save(A &ar, const T &t)
{
	ar(static_cast<const ch_descr &>(t.descr()));
}
template <class A, detail::has_descriptor T> void load(A &ar, T &t)
{
	descriptor d{};

	ar(static_cast<ch_descr &>(d));
	t = detail::sent<T>(d);
}

// A handle's name: trivially copyable, so a lambda that is sent elsewhere may capture it, and open() it there.
template <detail::has_descriptor T> class object_ref {
public:
	explicit object_ref(const T &t) : d_(t.descr()) {}
	T open() const { return detail::sent<T>(d_); }

private:
	descriptor d_;
};

// A message being written or read in place: aborted or released when it goes out of scope.
class message {
public:
	message() = default;
	message(message &&o) noexcept { swap(o); }
	message &operator=(message &&o) noexcept
	{
		message tmp(std::move(o));

		swap(tmp);
		return *this;
	}
	~message() { reset(); }

	std::byte *data() const noexcept { return static_cast<std::byte *>(m_.data); }
	std::size_t size() const noexcept { return m_.len; }
	std::span<std::byte> bytes() const noexcept { return {data(), size()}; }
	std::string_view view() const noexcept { return {reinterpret_cast<const char *>(data()), size()}; }
	explicit operator bool() const noexcept { return m_.data != nullptr; }
	// What goes with the bytes: to be set before a commit, and as it was sent after a take. CH_MESSAGE_... flags.
	std::uint32_t flags() const noexcept { return m_.flags; }
	bool is_redelivered() const noexcept { return m_.flags & CH_MESSAGE_REDELIVERED; }
	std::optional<std::uint64_t> tag() const noexcept
	{
		return m_.flags & CH_MESSAGE_TAGGED ? std::optional<std::uint64_t>(m_.tag) : std::nullopt;
	}
	ch_peer sender() const noexcept { return m_.sender; }
	void set_tag(std::uint64_t tag) noexcept
	{
		m_.tag = tag;
		m_.flags |= CH_MESSAGE_TAGGED;
	}
	void set_urgent() noexcept { m_.flags |= CH_MESSAGE_URGENT; }
	// Send fewer bytes than were claimed.
	void shrink(std::size_t len) noexcept { m_.len = len < m_.len ? len : m_.len; }
	void reset() noexcept
	{
		if (ch_)
			ch_channel_release(ch_, &m_);
		ch_ = nullptr;
	}

private:
	friend class channel;
	void swap(message &o) noexcept
	{
		const bool in = m_.data == m_.small_, oin = o.m_.data == o.m_.small_;

		std::swap(ch_, o.ch_);
		std::swap(m_, o.m_);
		if (in)
			o.m_.data = o.m_.small_;
		if (oin)
			m_.data = m_.small_;
	}
	ch_channel *ch_ = nullptr;
	ch_message m_ = CH_MESSAGE_INIT;
};

// A channel (ch_channel in C). Destroying the object detaches; destroy() ends the channel.
class channel {
public:
	struct options {
		unsigned capacity = 0;   // messages; 0: 1024
		unsigned inline_max = 0; // bytes; 0: 48
		unsigned spin_ns = 0;    // of this handle; 0: as wait says
		unsigned flags = 0;      // CH_CHANNEL_...
		unsigned urgent_capacity = 0; // messages; 0: no urgent lane
		unsigned wait = 0;            // CH_WAIT_...
	};
	// What goes with a message that is sent by copying.
	struct send_options {
		std::optional<std::uint64_t> tag = std::nullopt;
		bool is_urgent = false;
		std::uint32_t completion = CH_QUEUED;
	};
	enum class sent { no, unconfirmed, yes }; // unconfirmed: it was sent, but its receipt did not come in time

	channel() = default; // none
	static channel create(const memory_pool &pool, const options &o) { return create(pool.get(), o); }
	static channel create(const memory_pool &pool) { return create(pool.get(), options{}); }
	static channel create() { return create(nullptr, options{}); }
	static channel create(ch_pool *pool, const options &o)
	{
		ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
		ch_channel *c = nullptr;

		attr.capacity = o.capacity;
		attr.inline_max = o.inline_max;
		attr.spin_ns = o.spin_ns;
		attr.flags = o.flags;
		attr.urgent_capacity = o.urgent_capacity;
		attr.wait = o.wait;
		check(ch_channel_create(pool, &attr, &c));
		return channel(c);
	}
	static channel attach(const descriptor &d)
	{
		ch_channel *c = nullptr;

		check(ch_channel_attach(&d, &c));
		return channel(c);
	}

	void destroy() noexcept { ch_channel_destroy(c_.release()); }
	void close() { check(ch_channel_close(c_.get())); }
	descriptor descr() const { return detail::descr_of<ch_channel, ch_channel_get_descr>(c_.get()); }
	std::size_t count() const { return static_cast<std::size_t>(check(ch_channel_count(c_.get()))); }
	std::size_t capacity() const noexcept { return ch_channel_get_capacity(c_.get()); }
	void set_spin(unsigned spin_ns) { check(ch_channel_set_spin(c_.get(), spin_ns)); }
	// Roles of a CH_CHANNEL_SPSC channel: CH_ROLE_SENDER, CH_ROLE_RECEIVER.
	void bind(unsigned roles) { check(ch_channel_bind(c_.get(), roles)); }
	void unbind(unsigned roles) { check(ch_channel_unbind(c_.get(), roles)); }
	explicit operator bool() const noexcept { return c_ != nullptr; }
	ch_channel *get() const noexcept { return c_.get(); }

	void send(std::span<const std::byte> b) { check(ch_channel_send(c_.get(), b.data(), b.size(), CH_FOREVER)); }
	// False if it could not be sent within the timeout.
	bool send_for(std::span<const std::byte> b, nanoseconds timeout)
	{
		return check_wait(ch_channel_send(c_.get(), b.data(), b.size(), timeout.count()));
	}
	bool try_send(std::span<const std::byte> b) { return send_for(b, nanoseconds(CH_TRY)); }
	// Copies the oldest message into b; its length.
	std::size_t recv(std::span<std::byte> b)
	{
		return static_cast<std::size_t>(check(ch_channel_recv(c_.get(), b.data(), b.size(), CH_FOREVER)));
	}
	std::optional<std::size_t> recv_for(std::span<std::byte> b, nanoseconds timeout)
	{
		return counted(ch_channel_recv(c_.get(), b.data(), b.size(), timeout.count()));
	}
	std::optional<std::size_t> try_recv(std::span<std::byte> b) { return recv_for(b, nanoseconds(CH_TRY)); }

	sent send_for(std::span<const std::byte> b, const send_options &o, nanoseconds timeout)
	{
		ch_send_attr attr = CH_SEND_ATTR_INIT;

		attr.flags = (o.tag ? CH_MESSAGE_TAGGED : 0) | (o.is_urgent ? CH_MESSAGE_URGENT : 0);
		attr.tag = o.tag.value_or(0);
		attr.completion = o.completion;
		const int rc = ch_channel_send_attr(c_.get(), b.data(), b.size(), &attr, timeout.count());
		return rc == -EINPROGRESS ? sent::unconfirmed : check_wait(rc) ? sent::yes : sent::no;
	}
	void send(std::span<const std::byte> b, const send_options &o)
	{
		if (send_for(b, o, forever) == sent::unconfirmed)
			raise(-EINPROGRESS);
	}
	std::size_t recv(std::span<std::byte> b, ch_recv_info &info)
	{
		return static_cast<std::size_t>(check(ch_channel_recv_info(c_.get(), b.data(), b.size(), CH_FOREVER, &info)));
	}
	std::optional<std::size_t> recv_for(std::span<std::byte> b, ch_recv_info &info, nanoseconds timeout)
	{
		return counted(ch_channel_recv_info(c_.get(), b.data(), b.size(), timeout.count(), &info));
	}
	// Copies the message that would be received next, and leaves it there.
	std::optional<std::size_t> peek_for(std::span<std::byte> b, nanoseconds timeout, ch_recv_info *info = nullptr)
	{
		return counted(ch_channel_peek(c_.get(), b.data(), b.size(), timeout.count(), info));
	}
	std::optional<std::size_t> try_peek(std::span<std::byte> b, ch_recv_info *info = nullptr)
	{
		return peek_for(b, nanoseconds(CH_TRY), info);
	}
	// Throws the messages away that are there now; how many they were.
	std::size_t drain() { return static_cast<std::size_t>(check(ch_channel_drain(c_.get()))); }

	// Sends the first so many of the items; none if there was no room within the timeout.
	std::size_t send_batch(std::span<const ch_send_item> items, nanoseconds timeout = forever)
	{
		return counted(ch_channel_send_batch(c_.get(), items.data(), items.size(), timeout.count())).value_or(0);
	}
	// Fills the first so many of the items; none if there was nothing within the timeout.
	std::size_t recv_batch(std::span<ch_recv_item> items, nanoseconds timeout = forever)
	{
		return counted(ch_channel_recv_batch(c_.get(), items.data(), items.size(), timeout.count())).value_or(0);
	}

	message claim(std::size_t len, nanoseconds timeout = forever)
	{
		message m;

		check(ch_channel_claim(c_.get(), len, timeout.count(), &m.m_));
		m.ch_ = c_.get();
		return m;
	}
	void commit(message &m)
	{
		check(ch_channel_commit(c_.get(), &m.m_, CH_FOREVER));
		m.ch_ = nullptr;
	}
	// False if the channel stayed full; the message is then still the caller's.
	bool commit_for(message &m, nanoseconds timeout)
	{
		if (!check_wait(ch_channel_commit(c_.get(), &m.m_, timeout.count())))
			return false;
		m.ch_ = nullptr;
		return true;
	}
	message take()
	{
		message m;

		check(ch_channel_take(c_.get(), CH_FOREVER, &m.m_));
		m.ch_ = c_.get();
		return m;
	}
	std::optional<message> take_for(nanoseconds timeout)
	{
		std::optional<message> m(std::in_place);

		if (!check_wait(ch_channel_take(c_.get(), timeout.count(), &m->m_)))
			return std::nullopt;
		m->ch_ = c_.get();
		return m;
	}
	std::optional<message> try_take() { return take_for(nanoseconds(CH_TRY)); }
	// Gives a message taken from an acknowledged channel back, to be delivered again.
	void requeue(message &m)
	{
		check(ch_channel_requeue(c_.get(), &m.m_));
		m.ch_ = nullptr;
	}

private:
	static std::optional<std::size_t> counted(ssize_t n)
	{
		return check_wait(n) ? std::optional<std::size_t>(static_cast<std::size_t>(n)) : std::nullopt;
	}
	explicit channel(ch_channel *c) noexcept : c_(c) {}
	detail::handle<ch_channel, ch_channel_detach> c_;
};

} // namespace ch

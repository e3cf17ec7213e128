// SPDX-License-Identifier: Apache-2.0
// queue.hpp - typed queues between any processes of this node. See libpool(7).
//
//	ch::queue<job> q({.capacity = 100});
//	p.submit([](ch::queue<job> in) { for (const job &j : in) work(j); }, q);   // until it is closed
//	q.put(job{...});
//	std::optional<job> j = q.get_for(1s);
//
// Values travel through the archive; flat ones, strings and sequences of flat ones (std::vector, std::span) as their bare
// bytes, which take() shows where they lie. A queue is sent as 64 bytes: as an argument, a result, in another queue; a
// lambda captures q.ref(). It ends with the last object of the process that made it, unless that is a forked copy.
#pragma once
#include <channels/archive.hpp>
#include <channels/channels.hpp>
#include <cstring>
#include <iterator>
#include <memory>
#include <new>
#include <optional>
#include <vector>

namespace ch {

struct queue_options {
	std::size_t capacity = 1024;    // values, of each level; 0: no limit, more memory is made as it fills
	std::size_t memory = 16 << 20;  // bytes of shared memory; without limit, of each piece
	unsigned levels = 1;            // with a limit: priorities 0...levels - 1, at most 8; get() takes the highest there is
	bool acknowledged = false;      // what a process took and did not finish when it died goes to another
	bool joinable = false;          // counts, for task_done() and join()
	unsigned inline_max = 0;        // bytes of a value that travel in the ring; 0: suits the type, 112 at least
	unsigned spin_ns = 0;           // as in ch_channel_attr
};

namespace detail {

class queue_core;

// A message that was taken, and what it belongs to.
class CH_API taken {
public:
	taken() = default;
	taken(taken &&o) noexcept;
	taken &operator=(taken &&o) noexcept;
	~taken(); // of an acknowledged queue: back to it, if neither done() nor again()
	std::span<const std::byte> bytes() const noexcept;
	bool is_redelivered() const noexcept;
	void done() noexcept;
	void again(); // for somebody else
	explicit operator bool() const noexcept { return in_ != nullptr; }

private:
	friend class queue_core;
	struct inside;
	std::unique_ptr<inside> in_;
};

using fill_fn = void (*)(const void *value, std::span<std::byte> room);

CH_API std::shared_ptr<queue_core> make_queue(const queue_options &o);
CH_API std::shared_ptr<queue_core> open_queue(const descriptor &d);
CH_API const descriptor &descr_of(const queue_core &q) noexcept;
// False: timeout. Throws ch::error EPIPE (closed), EINVAL (level), EMSGSIZE, ESTALE.
CH_API bool put(queue_core &q, unsigned level, std::size_t len, fill_fn fill, const void *value, std::int64_t timeout_ns);
// Empty: timeout. Throws ch::error EPIPE (closed and empty), ESTALE.
CH_API taken take(queue_core &q, std::int64_t timeout_ns);
CH_API void close_queue(queue_core &q);
CH_API std::size_t count(queue_core &q);
CH_API std::size_t capacity_of(const queue_core &q) noexcept;
CH_API void task_done(queue_core &q);
CH_API bool join(queue_core &q, std::int64_t timeout_ns);

// What travels as its bare bytes, and as what its elements are seen.
template <class T> inline constexpr bool is_bare_run = false;
template <class E, class A> inline constexpr bool is_bare_run<std::vector<E, A>> = archive::is_flat<E>;
template <class C, class Tr, class A> inline constexpr bool is_bare_run<std::basic_string<C, Tr, A>> = true;
template <class E> inline constexpr bool is_bare_run<std::span<const E>> = archive::is_flat<E>;

template <class T> std::size_t queued_size(const T &v)
{
	if constexpr (is_bare_run<T>)
		return v.size() * sizeof(typename T::value_type);
	else
		return archive::size(v);
}

template <class T> void write_queued(const void *value, std::span<std::byte> room)
{
	const T &v = *static_cast<const T *>(value);

	if constexpr (is_bare_run<T>) {
		archive::copy_bytes(room.data(), v.data(), room.size());
	} else {
		archive::write(room, v);
	}
}

[[noreturn]] inline void refuse_queued()
{
	throw archive_error("queue: a value is not of this queue's type");
}

template <class T> T read_queued(std::span<const std::byte> in)
{
	if constexpr (is_bare_run<T>) {
		using E = typename T::value_type;
		T v;

		if (in.size() % sizeof(E))
			refuse_queued();
		archive::assign_bytes(v, in);
		return v;
	} else {
		return archive::read<T>(in);
	}
}

} // namespace detail

template <class T> class queue;

// A queue's name: trivially copyable, so a lambda may capture it. (*r).put(v), r->put(v), or ch::queue<T> q = r.open().
template <class T> class queue_ref {
public:
	queue<T> open() const { return queue<T>(detail::open_queue(d_)); }
	queue<T> operator*() const { return open(); }
	struct arrow;
	arrow operator->() const { return arrow{open()}; }

private:
	friend class queue<T>;
	descriptor d_;
};

// A value where it lies. Of an acknowledged queue it is delivered when done() is called; if this process ends before, or
// the object is destroyed, another gets it.
template <class T> class delivery {
public:
	explicit delivery(detail::taken t) noexcept : t_(std::move(t)) {}
	// The value itself, of flat types; a span of the elements, of strings and sequences of flat ones; a copy of others.
	decltype(auto) operator*() const { return view(); }
	T value() const { return detail::read_queued<T>(t_.bytes()); }
	void done() noexcept { t_.done(); }
	void again() { t_.again(); } // gives it back: acknowledged queues only
	bool is_redelivered() const noexcept { return t_.is_redelivered(); }

private:
	decltype(auto) view() const
	{
		const std::span<const std::byte> b = t_.bytes();

		if constexpr (detail::is_bare_run<T>) {
			using E = typename T::value_type;

			return std::span<const E>(reinterpret_cast<const E *>(b.data()), b.size() / sizeof(E));
		} else if constexpr (archive::is_flat<T> && alignof(T) <= 8) {
			if (b.size() != sizeof(T))
				detail::refuse_queued();
			return *std::launder(reinterpret_cast<const T *>(b.data()));
		} else {
			return value();
		}
	}

	detail::taken t_;
};

// Copies are the same queue. Any number of threads and processes.
template <class T> class queue {
	static_assert(std::is_same_v<T, archive::carrier_t<T>> && !archive::borrows<T>,
		      "a queue of views: name the owning type instead");

public:
	using value_type = T;

	queue() = default; // none
	explicit queue(queue_options o) : q_(detail::make_queue(fitting(o))) {}

	// Waits while it is full. Throws ch::error EPIPE when it is closed.
	void put(const T &v, unsigned level = 0) { put_for(v, nanoseconds(CH_FOREVER), level); }
	bool try_put(const T &v, unsigned level = 0) { return put_for(v, nanoseconds(CH_TRY), level); }
	bool put_for(const T &v, nanoseconds timeout, unsigned level = 0) // false: timeout
	{
		return detail::put(core(), level, detail::queued_size(v), detail::write_queued<T>, &v, timeout.count());
	}
	// Elements that lie elsewhere, without making a T of them first.
	template <class E> void put_span(std::span<const E> v, unsigned level = 0)
	{
		static_assert(detail::is_bare_run<T> && std::is_same_v<E, typename T::value_type>);
		detail::put(core(), level, v.size_bytes(), detail::write_queued<std::span<const E>>, &v, CH_FOREVER);
	}
	// fill(std::span<E>) writes n elements where they are sent from.
	template <class F> void put_in_place(std::size_t n, F fill, unsigned level = 0)
	{
		using E = typename T::value_type;
		static_assert(detail::is_bare_run<T>);
		const auto write = [](const void *f, std::span<std::byte> room) {
			(*static_cast<const F *>(f))(
				std::span<E>(reinterpret_cast<E *>(room.data()), room.size() / sizeof(E)));
		};

		detail::put(core(), level, n * sizeof(E), write, &fill, CH_FOREVER);
	}

	// Waits while it is empty. Throws ch::error EPIPE when it is closed and empty.
	T get() { return *get_for(nanoseconds(CH_FOREVER)); }
	std::optional<T> try_get() { return get_for(nanoseconds(CH_TRY)); }
	std::optional<T> get_for(nanoseconds timeout)
	{
		detail::taken t = detail::take(core(), timeout.count());

		if (!t)
			return std::nullopt;
		std::optional<T> v(detail::read_queued<T>(t.bytes()));
		t.done();
		return v;
	}
	// Nothing: closed and empty. So a loop over the queue ends with it.
	std::optional<T> next()
	{
		try {
			return get();
		} catch (const error &e) {
			if (e.code().value() != EPIPE)
				throw;
			return std::nullopt;
		}
	}
	// To be read where it lies; without a copy.
	delivery<T> take() { return delivery<T>(detail::take(core(), CH_FOREVER)); }
	std::optional<delivery<T>> take_for(nanoseconds timeout)
	{
		detail::taken t = detail::take(core(), timeout.count());

		return t ? std::optional<delivery<T>>(std::in_place, std::move(t)) : std::nullopt;
	}

	// While others work, all three are estimates.
	std::size_t size() const { return detail::count(core()); }
	bool empty() const { return size() == 0; }
	bool full() const { return capacity() && size() >= capacity(); }
	std::size_t capacity() const { return detail::capacity_of(core()); } // 0: no limit

	// No more values; those that are there can be got.
	void close() { detail::close_queue(core()); }
	// One value that was got is dealt with. (A delivery of a joinable queue says so by done().)
	void task_done() { detail::task_done(core()); }
	// Waits until every value that was put is dealt with.
	void join() { detail::join(core(), CH_FOREVER); }
	bool join_for(nanoseconds timeout) { return detail::join(core(), timeout.count()); }

	explicit operator bool() const noexcept { return q_ != nullptr; }
	queue_ref<T> ref() const
	{
		queue_ref<T> r;

		r.d_ = detail::descr_of(core());
		return r;
	}
	template <class A> void save(A &ar) const { ar(static_cast<const ch_descr &>(detail::descr_of(core()))); }
	template <class A> void load(A &ar)
	{
		descriptor d{};

		ar(static_cast<ch_descr &>(d));
		q_ = detail::open_queue(d);
	}

	class iterator {
	public:
		using value_type = T;
		using difference_type = std::ptrdiff_t;

		iterator() = default;
		explicit iterator(queue *q) : q_(q), v_(q->next()) {}
		const T &operator*() const noexcept { return *v_; }
		iterator &operator++()
		{
			v_ = q_->next();
			return *this;
		}
		void operator++(int) { ++*this; }
		friend bool operator==(const iterator &i, std::default_sentinel_t) { return !i.v_; }

	private:
		queue *q_ = nullptr;
		std::optional<T> v_;
	};
	iterator begin() { return iterator(this); } // gets the first
	std::default_sentinel_t end() const noexcept { return {}; }

private:
	friend class queue_ref<T>;
	explicit queue(std::shared_ptr<detail::queue_core> q) noexcept : q_(std::move(q)) {}
	static queue_options fitting(queue_options o)
	{
		if constexpr (archive::is_flat<T>)
			o.inline_max = o.inline_max ? o.inline_max : sizeof(T) <= 4032 ? sizeof(T) : 112;
		o.inline_max = o.inline_max ? o.inline_max : 112;
		return o;
	}
	detail::queue_core &core() const
	{
		if (!q_)
			throw error(EINVAL, "queue: there is none (default constructed or moved from)");
		return *q_;
	}

	std::shared_ptr<detail::queue_core> q_;
};

template <class T> struct queue_ref<T>::arrow {
	queue<T> q;
	queue<T> *operator->() noexcept { return &q; }
};

} // namespace ch

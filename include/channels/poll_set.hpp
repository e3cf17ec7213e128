// SPDX-License-Identifier: Apache-2.0
// poll_set.hpp - waiting for many channels, streams, ports, semaphores and events in C++20, by threads or by coroutines.
// Header only; see ch_pollset(3).
#pragma once
#include <array>
#include <channels/channels.hpp>
#include <coroutine>
#include <cstdint>

namespace ch {

namespace poll {
inline constexpr std::uint32_t in = CH_POLL_IN, out = CH_POLL_OUT, empty = CH_POLL_EMPTY, full = CH_POLL_FULL,
			       closed = CH_POLL_CLOSED, destroyed = CH_POLL_DESTROYED,
			       out_urgent = CH_POLL_OUT_URGENT, edge = CH_POLL_EDGE, oneshot = CH_POLL_ONESHOT;
} // namespace poll

using poll_event = ch_poll_event; // user_data, events

namespace detail {
inline ch_pollable *pollable_of(ch_channel *p) { return ch_channel_get_pollable(p); }
inline ch_pollable *pollable_of(ch_event *p) { return ch_event_get_pollable(p); }
inline ch_pollable *pollable_of(ch_semaphore *p) { return ch_semaphore_get_pollable(p); }
inline ch_pollable *pollable_of(ch_stream *p) { return ch_stream_get_pollable(p); }
inline ch_pollable *pollable_of(ch_stream_port *p) { return ch_stream_port_get_pollable(p); }
} // namespace detail

// What can be a member of a poll set: channel, event, semaphore, stream, stream_port. Nothing is taken by a wait.
template <class T>
concept pollable = requires(const T &t) { detail::pollable_of(t.get()); };

// A poll set (ch_pollset in C). Destroying the object ends the set.
class poll_set {
public:
	struct options {
		unsigned max_members = 0; // 0: 4096
		unsigned spin_ns = 0;     // 0: adapts
	};

	poll_set() : poll_set(options{}) {}
	explicit poll_set(const options &o)
	{
		ch_pollset_attr attr = CH_POLLSET_ATTR_INIT;
		ch_pollset *s = nullptr;

		attr.max_members = o.max_members;
		attr.spin_ns = o.spin_ns;
		check(ch_pollset_create(&attr, &s));
		s_.reset(s);
	}

	// It may be detached or moved while it is a member; a stream leaves the set when it is closed.
	template <pollable T> void add(const T &t, std::uint32_t events, std::uint64_t user_data = 0)
	{
		check(ch_pollset_add_any(s_.get(), detail::pollable_of(t.get()), events, user_data));
	}
	template <pollable T> void modify(const T &t, std::uint32_t events, std::uint64_t user_data = 0)
	{
		check(ch_pollset_modify_any(s_.get(), detail::pollable_of(t.get()), events, user_data));
	}
	template <pollable T> void remove(const T &t)
	{
		check(ch_pollset_remove_any(s_.get(), detail::pollable_of(t.get())));
	}

	// The events, in room; none if there were none within the timeout.
	std::span<poll_event> wait_for(std::span<poll_event> room, nanoseconds timeout)
	{
		const auto cap = room.size() > UINT32_MAX ? UINT32_MAX : static_cast<std::uint32_t>(room.size());
		const int n = ch_pollset_wait(s_.get(), room.data(), cap, timeout.count());

		return check_wait(n) ? room.first(static_cast<std::size_t>(n)) : room.first(0);
	}
	std::span<poll_event> wait(std::span<poll_event> room) { return wait_for(room, forever); }
	std::span<poll_event> try_wait(std::span<poll_event> room) { return wait_for(room, nanoseconds(CH_TRY)); }

	// Readable while there may be events: for poll, epoll and io_uring. Not to be read.
	int fd() { return static_cast<int>(check(ch_pollset_fd(s_.get()))); }
	ch_pollset *get() const noexcept { return s_.get(); }

private:
	detail::handle<ch_pollset, ch_pollset_destroy> s_;
};

// Lets coroutines of one thread wait for channels and whatever else is pollable:
//
//     co_await loop.ready(orders, ch::poll::in);    // its value: the events
//
// Each can be waited for by one coroutine of a loop at a time, and must not be destroyed by this process meanwhile.
class poll_loop {
public:
	class awaiter {
	public:
		awaiter(poll_loop &loop, ch_pollable *p, std::uint32_t events) : loop_(&loop), p_(p), events_(events) {}
		bool await_ready() const noexcept { return false; }
		void await_suspend(std::coroutine_handle<> h)
		{
			h_ = h;
			check(ch_pollset_add_any(loop_->set_.get(), p_, events_ | poll::oneshot,
						 reinterpret_cast<std::uintptr_t>(this)));
			loop_->nr_waiting_++;
		}
		std::uint32_t await_resume() const noexcept { return events_; }

	private:
		friend class poll_loop;
		poll_loop *loop_;
		ch_pollable *p_;
		std::uint32_t events_; // wanted, then those that came
		std::coroutine_handle<> h_;
	};

	template <pollable T> awaiter ready(const T &t, std::uint32_t events)
	{
		return {*this, detail::pollable_of(t.get()), events};
	}

	// Resumes whoever has an event, once, or until the timeout. False: nobody waits any more.
	bool run_once(nanoseconds timeout = forever)
	{
		std::array<poll_event, 16> room;

		if (nr_waiting_ == 0)
			return false;
		for (const poll_event &e : set_.wait_for(room, timeout)) {
			auto *a = reinterpret_cast<awaiter *>(static_cast<std::uintptr_t>(e.user_data));
			a->events_ = e.events;
			nr_waiting_--;
			check(ch_pollset_remove_any(set_.get(), a->p_));
			a->h_.resume(); // the awaiter may be gone from here on
		}
		return true;
	}
	void run()
	{
		while (run_once())
			;
	}
	int fd() { return set_.fd(); }

private:
	poll_set set_;
	std::size_t nr_waiting_ = 0;
};

} // namespace ch

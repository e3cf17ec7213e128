// SPDX-License-Identifier: Apache-2.0
// event.h - an event count: waiting without lost wake-ups, and without a counter that a crash can leak.
//
// One 64-bit word. Low half: a sequence number, which is the futex. High half: ARMED (somebody registered since
// the last wake-up that found nobody), SLEEPY, and a stamp that every registration changes.
//
//   waiter:    register; look again; sleep while the sequence is what it was at the registration
//   notifier:  make it true; if ARMED: bump the sequence, wake; disarm only if nobody slept and nobody registered since
//
// A dead waiter leaves ARMED behind, which costs the next notifier one system call. A notifier that dies between
// its change and its wake-up is dealt with by whoever sweeps it: it wakes everybody.
//
// The order of "make it true" before "look at ARMED" would cost a full fence per message. It is paid by the
// sleeper instead: a waiter that finds the event quiet (neither ARMED nor SLEEPY) makes every running process of
// the machine pass a barrier (membarrier(2)) between its registration and its second look. While SLEEPY is set the
// notifiers pay, by one read-modify-write of the event word, and waiters don't. SLEEPY is set by a waiter after its
// barrier, if the word is still what its registration made it, and taken away by a notifier that met nobody
// for a while. Argument, with N a notifier that stores S and loads V, and W a waiter:
//  [E1] pairs with [E2]. Quiet: W's registration, W's barrier, W's look at S. If N's load of V came before the
//       barrier reached N's processor, then so did its store S before, and W's look sees it. If it came
//       after, it sees W's registration and wakes.
//  [E3] pairs with [E4]. Not quiet: N's and W's read-modify-writes of V are ordered. If N's is first, W's acquires
//       from it what N did before and its look sees S. If W's is first, N sees ARMED and wakes.
// SLEEPY without a barrier since the last quiet moment cannot be: whoever sets it compares the whole word, and a
// word that is ARMED with its stamp has not been quiet since it registered.
#pragma once
#include "clock.h"
#include "layout.h"
#include <climits>

namespace ch::core {

inline constexpr u64 EVENT_ARMED = u64{1} << 32;
inline constexpr u64 EVENT_SLEEPY = u64{1} << 33;
inline constexpr u64 EVENT_POLLED = u64{1} << 34; // a poll set wants to hear of it (watch.h)
inline constexpr u64 EVENT_STAMP = u64{1} << 35;
inline constexpr u64 EVENT_LOUD = EVENT_ARMED | EVENT_SLEEPY | EVENT_POLLED;
inline constexpr int EVERYBODY = INT_MAX;

struct registration {
	u64 seen;
	bool is_sure; // false: there is no membarrier(2) here, so sleep a short time first
};

// Once per process, before the first wait or notification: registers for membarrier(2).
void event_process_init() noexcept;

registration event_register(event &e) noexcept;
// Sleeps until a wake-up after the registration, or the absolute time until_ns. Spurious returns happen.
void event_wait(event &e, registration &r, i64 until_ns) noexcept;
// Sleeps on several at once.
inline constexpr u32 MAX_EVENTS = 64;
void event_wait_any(event *const *events, registration *regs, u32 nr, i64 until_ns) noexcept;
bool event_can_wait_any() noexcept; // false: the kernel is older than 5.16, or forbids it
// The registration of a poll set, which sleeps elsewhere: POLLED in the place of ARMED. The barrier is the caller's, one
// for many events: between event_poll and its second look, if one of them was not sure.
registration event_poll(event &e) noexcept;
void event_barrier() noexcept; // or a short sleep, where there is no membarrier(2)
inline void event_sure(event &e, u64 seen) noexcept // after the barrier
{
	e.v.compare_exchange_strong(seen, seen | EVENT_SLEEPY, relaxed, relaxed); // orders nothing: the barrier did
}
// Wakes count waiters, whatever the word says of them (sweepers, close, destroy: EVERYBODY).
void event_wake(event &e, int count) noexcept;
void event_notify_slow(event &e, int count) noexcept;

extern bool event_always_fence; // this process is not registered for membarrier(2)

inline bool event_is_quiet(const event &e) noexcept
{
	// [E2] pairs with [E1]: relaxed, because the waiter's barrier orders it.
	return !(e.v.load(relaxed) & EVENT_LOUD) && !event_always_fence;
}

// After the change that waiters wait for.
inline void event_notify(event &e, int count) noexcept
{
	std::atomic_signal_fence(seq_cst); // the compiler keeps the order too
	if (!event_is_quiet(e)) [[unlikely]]
		event_notify_slow(e, count);
}

} // namespace ch::core

// SPDX-License-Identifier: Apache-2.0
// event.cpp - the slow halves of event.h: futex and membarrier system calls.
#include "config.h"
#include "event.h"
#include "crash.h"
#include <cerrno>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace ch::core {

bool event_always_fence = true;
thread_local u32 event_calm; // of this thread's last notifications, how many in a row met no sleeper; tests/explore sets it
static constexpr i64 UNSURE_NS = 1000000; // far longer than any processor keeps a store to itself
static constexpr u32 CALM = 1024;         // notifications without a sleeper until an event is quiet again

// The half of the word that the kernel compares.
static void *futex_of(event &e) noexcept
{
	static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the sequence is the low half");
	return &e.v;
}

void event_process_init() noexcept
{
	event_always_fence = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) != 0;
}

static registration enter(event &e, u64 flag) noexcept
{
	u64 old = e.v.load(relaxed), mine;

	do // [E4] pairs with [E3]: acquires what a notifier did before its own change of this word
		mine = (old + EVENT_STAMP) | flag;
	while (!e.v.compare_exchange_weak(old, mine, acq_rel, relaxed));
	CH_CRASH_POINT(event_registered);
	return {mine, (old & EVENT_SLEEPY) != 0};
}

registration event_poll(event &e) noexcept
{
	return enter(e, EVENT_POLLED);
}

void event_barrier() noexcept
{
	timespec t{0, UNSURE_NS};

	// [E1] pairs with [E2]: as in event_register.
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) != 0)
		while (nanosleep(&t, &t) < 0 && errno == EINTR) // every store of before is visible by then
			;
}

registration event_register(event &e) noexcept
{
	const auto [mine, is_sure] = enter(e, EVENT_ARMED);

	if (is_sure)
		return {mine, true};
	// [E1] pairs with [E2]: from here on every notifier's load sees the registration.
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) != 0)
		return {mine, false};
	event_sure(e, mine);
	return {mine, true};
}

void event_wait(event &e, registration &r, i64 until_ns) noexcept
{
	const i64 soon = r.is_sure ? NEVER : now_ns() + UNSURE_NS;
	const i64 until = until_ns < soon ? until_ns : soon;
	const timespec t{static_cast<time_t>(until / 1000000000), static_cast<long>(until % 1000000000)};
	u64 mine = r.seen;

	syscall(SYS_futex, futex_of(e), FUTEX_WAIT_BITSET, static_cast<u32>(r.seen), until == NEVER ? nullptr : &t,
		nullptr, FUTEX_BITSET_MATCH_ANY);
	CH_CRASH_POINT(event_slept);
	if (!r.is_sure && now_ns() >= soon) // every store of that time is visible by now
		r.is_sure = e.v.compare_exchange_strong(mine, mine | EVENT_SLEEPY, relaxed, relaxed);
}

// As in <linux/futex.h> since 5.16.
struct waitv {
	u64 val, addr;
	u32 flags, reserved;
};
static constexpr long SYS_WAITV = 449;
static constexpr u32 WAITV_32 = 2;

bool event_can_wait_any() noexcept
{
	return syscall(SYS_WAITV, nullptr, 0, 0, nullptr, CLOCK_MONOTONIC) < 0 && errno == EINVAL;
}

void event_wait_any(event *const *events, registration *regs, u32 nr, i64 until_ns) noexcept
{
	waitv v[MAX_EVENTS];
	const i64 soon = now_ns() + UNSURE_NS;
	i64 until = until_ns;

	for (u32 i = 0; i < nr; i++) {
		v[i] = {static_cast<u32>(regs[i].seen), reinterpret_cast<u64>(futex_of(*events[i])), WAITV_32, 0};
		if (!regs[i].is_sure && until > soon)
			until = soon;
	}
	const timespec t{static_cast<time_t>(until / 1000000000), static_cast<long>(until % 1000000000)};
	syscall(SYS_WAITV, v, nr, 0, until == NEVER ? nullptr : &t, CLOCK_MONOTONIC);
	CH_CRASH_POINT(event_slept);
	for (u32 i = 0; i < nr; i++)
		if (!regs[i].is_sure && now_ns() >= soon) // every store of that time is visible by now
			event_sure(*events[i], regs[i].seen);
}

void event_wake(event &e, int count) noexcept
{
	u64 old = e.v.load(relaxed), bumped;

	do {
		if (!(old & EVENT_ARMED) && count == 1)
			return;
		bumped = (old & ~u64{UINT32_MAX}) | static_cast<u32>(old + 1);
	} while (!e.v.compare_exchange_weak(old, bumped, acq_rel, relaxed));
	CH_CRASH_POINT(event_bumped);
	if (syscall(SYS_futex, futex_of(e), FUTEX_WAKE, count, nullptr, nullptr, 0) == 0)
		e.v.compare_exchange_strong(bumped, bumped & ~EVENT_ARMED, relaxed, relaxed); // nobody slept, nobody came
	CH_CRASH_POINT(event_woken);
}

void event_notify_slow(event &e, int count) noexcept
{
	// [E3] pairs with [E4]: releases the notifier's change to whoever registers later.
	u64 w = e.v.fetch_add(0, acq_rel);

	if (w & EVENT_ARMED) {
		event_calm = 0;
		event_wake(e, count);
	} else if ((w & EVENT_SLEEPY) && ++event_calm > CALM) {
		event_calm = 0;
		e.v.compare_exchange_strong(w, w & ~EVENT_SLEEPY, relaxed, relaxed);
	}
}

} // namespace ch::core

// SPDX-License-Identifier: Apache-2.0
// wait.h - how blocking calls on objects wait: spin as long as it pays, then sleep.
//
// Spinning adapts: a wait that ended while it spun, or was short, raises what the handle allows itself, one that was
// long lowers it. But two that both sleep wait for each other's wake-up, which alone may take longer than anybody spins
// (100 us and more on a virtual machine), so their long waits prove nothing. Therefore a wait after every so many sleeps
// is a probe: it spins for as long as a wake-up takes, and if that pays the next ones spin too. And nobody spins for less
// than a partner that does not sleep needs to answer. A spinner yields its processor now and then, so that on an
// oversubscribed machine whoever it waits for can run.
#pragma once
#include "event.h"
#include "keeper.h"
#include "object.h"
#include "peer.h"
#include "sweep.h"
#include <sched.h>

namespace ch::core {

inline constexpr i64 SPIN_MIN_NS = 4000; // less than going to sleep and waking up cost the processor
inline constexpr i64 SPIN_MAX_NS = 50000;
inline constexpr i64 PROBE_NS = 200000;
inline constexpr u32 PROBE_EACH = 32; // sleeps: at 1,000 of them in a second, 0.6 % of the processor if they are in vain
inline constexpr i64 YIELD_NS = 2000;         // spin this long before the processor is offered to others
inline constexpr i64 BUSY_SLICE_NS = 2000000; // first look at an owner whose unfinished claim blocks us
inline constexpr i64 UNWATCHED_SLICE_NS = 100000000;

u32 nr_cpus() noexcept;

inline bool is_probe(const ch_object *o) noexcept
{
	const u32 n = o->nr_slept.load(relaxed); // a guess

	return n > 0 && n % PROBE_EACH == 0;
}

inline i64 spin_budget(const ch_object *o) noexcept
{
	const u32 cfg = o->spin_ns.load(relaxed); // a setting

	if (cfg == CH_SPIN_NEVER || (cfg == 0 && nr_cpus() == 1))
		return 0;
	if (cfg)
		return cfg == CH_SPIN_ALWAYS ? NEVER : cfg;
	return is_probe(o) ? PROBE_NS : o->budget_ns.load(relaxed); // a guess
}

// After a wait. Threads that share the handle may lose each other's updates, which does no harm.
inline void adapt(ch_object *o, i64 waited_ns, bool has_slept) noexcept
{
	const i64 b = o->budget_ns.load(relaxed), to = !has_slept || waited_ns <= SPIN_MAX_NS ? 2 * b : b / 2;
	i64 in = to < SPIN_MIN_NS ? SPIN_MIN_NS : to > SPIN_MAX_NS ? SPIN_MAX_NS : to;

	if (has_slept) {
		o->nr_slept.store(o->nr_slept.load(relaxed) + 1, relaxed);
	} else if (is_probe(o)) {
		o->nr_slept.store(0, relaxed);
		in = SPIN_MAX_NS;
	}
	if (in != b)
		o->budget_ns.store(in, relaxed);
}

// The pause between two looks.
struct spinner {
	i64 now, yield_at;
	u32 n = 0;

	explicit spinner(i64 start) noexcept : now(start), yield_at(start + YIELD_NS) {}
	void pause() noexcept
	{
		cpu_relax();
		if (++n % 32)
			return;
		now = now_ns();
		if (now >= yield_at) {
			sched_yield();
			yield_at = now + YIELD_NS;
		}
	}
};

// Sleeps after a look that found nothing. blocker: whose unfinished claim is in the way, NOBODY if none.
// Returns false if the call's time is over.
bool wait_sleep(ch_object *o, event &e, registration &r, u32 blocker, i64 until_ns, i64 &slice_ns) noexcept;

// Calls attempt() until it returns something else than -EAGAIN or the time is over. The first try is the caller's.
// Spinning looks at no more than is_ready(): whether an attempt may find something else now.
template <class Attempt, class Ready, class Blocker>
[[gnu::noinline]] int wait_until(ch_object *o, event &e, i64 timeout_ns, Attempt attempt, Ready is_ready,
				 Blocker blocker) noexcept
{
	const i64 start = now_ns();
	int rc;

	const i64 until_ns = timeout_ns < 0 || timeout_ns > NEVER - start ? NEVER : start + timeout_ns;
	i64 budget = spin_budget(o);
	spinner spin(start);

	budget = budget > until_ns - start ? until_ns - start : budget;
	for (; budget > 0; spin.pause()) {
		if (is_ready()) {
			rc = attempt();
			if (rc != -EAGAIN) {
				adapt(o, 0, false);
				return rc;
			}
		}
		if (spin.now - start >= budget) // asked after a look: a pause may have taken all the time
			break;
	}
	for (i64 slice = BUSY_SLICE_NS;;) {
		registration r = event_register(e);
		rc = attempt();
		if (rc != -EAGAIN)
			break;
		if (!wait_sleep(o, e, r, blocker(), until_ns, slice)) {
			rc = attempt(); // a wake-up may have come with the end of the time
			rc = rc == -EAGAIN ? -ETIMEDOUT : rc;
			break;
		}
	}
	adapt(o, now_ns() - start, true);
	return rc;
}

} // namespace ch::core

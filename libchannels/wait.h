// SPDX-License-Identifier: Apache-2.0
// wait.h - how blocking calls on objects wait: spin as long as it pays, then sleep.
//
// Spinning adapts: a wait that was short raises what the handle allows itself, one that was long lowers it. A spinner
// yields its processor now and then, so that on an oversubscribed machine whoever it waits for can run.
#pragma once
#include "event.h"
#include "keeper.h"
#include "object.h"
#include "peer.h"
#include "sweep.h"
#include <sched.h>

namespace ch::core {

inline constexpr i64 SPIN_MIN_NS = 1000;
inline constexpr i64 SPIN_MAX_NS = 50000;
inline constexpr i64 YIELD_NS = 2000;         // spin this long before the processor is offered to others
inline constexpr i64 BUSY_SLICE_NS = 2000000; // first look at an owner whose unfinished claim blocks us
inline constexpr i64 UNWATCHED_SLICE_NS = 100000000;

u32 nr_cpus() noexcept;

inline i64 spin_budget(const ch_object *o) noexcept
{
	const u32 cfg = o->spin_ns.load(relaxed); // a setting

	if (cfg == CH_SPIN_NEVER || (cfg == 0 && nr_cpus() == 1))
		return 0;
	return cfg == CH_SPIN_ALWAYS ? NEVER : cfg ? cfg : o->budget_ns.load(relaxed); // a guess
}

inline void adapt(ch_object *o, i64 waited_ns) noexcept
{
	const i64 b = o->budget_ns.load(relaxed), // a guess, lost updates do no harm
		to = waited_ns <= SPIN_MAX_NS ? 2 * b : b / 2;

	o->budget_ns.store(to < SPIN_MIN_NS ? SPIN_MIN_NS : to > SPIN_MAX_NS ? SPIN_MAX_NS : to, relaxed);
}

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
	i64 budget = spin_budget(o), now = start, yield_at = start + YIELD_NS;

	budget = budget > until_ns - start ? until_ns - start : budget;
	for (u32 n = 1; now - start < budget; n++) {
		if (is_ready()) {
			rc = attempt();
			if (rc != -EAGAIN)
				return rc;
		}
		cpu_relax();
		if (n % 32)
			continue;
		now = now_ns();
		if (now >= yield_at) {
			sched_yield();
			yield_at = now + YIELD_NS;
		}
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
	adapt(o, now_ns() - start);
	return rc;
}

} // namespace ch::core

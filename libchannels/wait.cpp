// SPDX-License-Identifier: Apache-2.0
// wait.cpp - the sleeping half of wait.h.
#include "config.h"
#include "wait.h"
#include <sys/sysinfo.h>

namespace ch::core {

// Of the machine, not of this process: one that is pinned to a processor waits for others that run elsewhere.
u32 nr_cpus() noexcept
{
	static std::atomic<u32> cached;
	u32 n = cached.load(relaxed); // nobody looks: the value is the same whoever computes it

	if (n == 0) {
		n = static_cast<u32>(get_nprocs());
		cached.store(n, relaxed);
	}
	return n;
}

bool wait_sleep(ch_object *o, event &e, registration &r, u32 blocker, i64 until_ns, i64 &slice_ns) noexcept
{
	ch_segment *seg = o->pool->seg;
	const i64 now = now_ns();
	i64 wake_at = until_ns;

	if (now >= until_ns)
		return false;
	// An empty or full ring holds no claim: nothing can die that we wait for, or its keeper's neighbour tells us.
	// A claim in the way may be a dead one's: look at that one, again and again but ever more seldom.
	if (blocker != NOBODY && now + slice_ns < wake_at)
		wake_at = now + slice_ns;
	if (!deaths_are_told(seg) && now + UNWATCHED_SLICE_NS < wake_at)
		wake_at = now + UNWATCHED_SLICE_NS;
	event_wait(e, r, wake_at);
	if (now_ns() < wake_at)
		return true;
	if (blocker != NOBODY) {
		const u64 id = peer_of(seg, blocker);
		if (id != 0 && !peer_is_alive(id))
			sweep_peer(seg, blocker);
		slice_ns *= slice_ns < NEVER / 4 ? 2 : 1;
	}
	if (!deaths_are_told(seg))
		sweep_dead(seg);
	return true;
}

} // namespace ch::core

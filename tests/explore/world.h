/* SPDX-License-Identifier: Apache-2.0 */
/*
 * world.h - what the real sources need around them: a segment with a pool in the arena, and for each thread of a scenario
 * a process of its own that is attached to it. Segments, the registry, peers and keepers are stood in for (world.cpp);
 * objects, channels, pool, runs, rings, events and sweeps are the real ones.
 */
#pragma once
#include "memory.h"
#include "channel.h"
#include "sync.h"
#include "sweep.h"

namespace ch::explore {

using namespace ch::core;

struct process {
	ch_segment seg;
	ch_channel ch, other;
	ch_semaphore units;
};

struct shape {
	int nr_processes;
	u32 capacity = 2;
	u32 nr_pages = 3;
	u32 inline_max = 1040;   // such that nothing but the channel is in its page
	bool allocates = false;  // blocks, in the runs
	bool has_other = false;  // a second channel
	u32 channel_flags = 0;
	bool has_units = false;  // a semaphore, of none at the beginning
};

// Made at the first call and copied back at the next ones of the same shape.
void make_world(const shape &s);
process &process_of(int i);
inline process &self() { return process_of(me()); }
void sweep_when_dead(); // the life of a sweeper: until no mortal thread is left

// After a run: no claim, message or block is left over; every block but the channels is free. Requires it.
void require_empty_ring(const ring &r);
void require_free_pool(u64 nr_objects);

} // namespace ch::explore

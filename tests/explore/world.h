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
	u32 urgent_capacity = 0;
	u32 first_pages = 0; // of nr_pages, at the beginning; the pool grows when these are full. 0: all
};

// Made at the first call and copied back at the next ones of the same shape.
void make_world(const shape &s);
process &process_of(int i);
inline process &self() { return process_of(me()); }
void sweep_when_dead(); // the life of a sweeper: until no mortal thread is left
u8 *plain_bytes();      // 64, zero at the beginning, which nothing but what a scenario does keeps from races
void act_as(int process); // before a run: who makes and attaches

// An object of another kind that process 0 makes at each run, and a handle for each process.
template <class T> class for_all {
	T *in[MAX_THREADS] = {};

public:
	template <class Attr>
	void make(int nr_processes, const Attr &attr, int (*create)(ch_pool *, const Attr *, T **),
		  int (*get_descr)(const T *, ch_descr *), int (*attach)(const ch_descr *, T **))
	{
		ch_descr d;
		int rc = 0;

		for (T *&o : in) {
			delete o; // of the last run, whose memory is not any more
			o = nullptr;
		}
		act_as(0);
		rc = create(&process_of(0).seg.pool, &attr, &in[0]);
		rc = rc < 0 ? rc : get_descr(in[0], &d);
		for (int i = 1; i < nr_processes && rc == 0; i++) {
			act_as(i);
			rc = attach(&d, &in[i]);
		}
		act_as(0);
		require(rc == 0, "no object");
	}
	T *mine() const { return in[me()]; }
	T *of(int process) const { return in[process]; }
};

// After a run: no claim, message or block is left over; every block but the channels is free. Requires it.
void require_empty_ring(const ring &r);
void require_free_pool(u64 nr_objects);

} // namespace ch::explore

// SPDX-License-Identifier: Apache-2.0
// crash.h - crash points: places between two shared steps where a test may kill the process.
//
// Compiled in by configure --enable-crash-points only. A point is named for the step that was just done, or is
// about to be done, and each stands between two writes to shared memory.
#pragma once
#include "config.h"

namespace ch::core {

#define CH_CRASH_POINTS_LIST(X)                                                                                      \
	X(send_found) X(send_claimed) X(send_hinted) X(send_block_marked) X(send_copied) X(send_committed)           \
	X(send_notified)                                                                                             \
	X(recv_found) X(recv_claimed) X(recv_hinted) X(recv_copied) X(recv_block_taken) X(recv_delivered)            \
	X(recv_notified) X(recv_tomb_skipping) X(recover_found) X(recover_claimed)                                   \
	X(recov_announced) X(requeue_marked) X(requeue_offered) X(batch_claimed) X(batch_taken)                      \
	X(spsc_filled) X(spsc_committed) X(spsc_read) X(spsc_delivered) X(spsc_sealing)                              \
	X(role_taken) X(role_offered) X(role_ended)                                                                  \
	X(event_registered) X(event_bumped) X(event_woken) X(event_slept)                                            \
	X(block_allocated) X(block_freeing) X(block_freed) X(block_typed) X(block_offered) X(block_accepted)         \
	X(share_made) X(share_freed) X(pool_reserving) X(pool_reserved) X(pool_grown)                                \
	X(segment_written) X(segment_destroyed) X(reclaim_asked) X(reclaim_answered)                                 \
	X(run_begun) X(run_tail_claimed) X(run_words_set) X(run_published) X(run_dissolving) X(run_undoing)          \
	X(peer_slot_taken) X(peer_claimed) X(peer_announced) X(peer_leaving) X(sweep_slot_unmarked)               \
	X(object_made) X(object_hazard) X(object_attached) X(object_dying) X(object_detached)                   \
	X(object_finishing)                                                                                         \
	X(watch_claimed) X(watch_armed) X(watch_disarmed) X(watch_marked) X(mark_leaf) X(mark_top)                  \
	X(pollset_added) X(pollset_removing)                                                                        \
	X(stream_claimed) X(stream_announced) X(stream_accepted) X(stream_end_taken) X(stream_block_marked)          \
	X(stream_filled) X(stream_committed) X(stream_chunk_taken) X(stream_delivered) X(stream_ended) X(stream_left) \
	X(stream_draining) X(stream_drained) X(stream_freed)                                                         \
	X(sync_swept) X(mutex_locked) X(mutex_unlocked)                                                              \
	X(rwlock_slot_found) X(rwlock_slot_claimed) X(rwlock_slot_freed) X(rwlock_told) X(rwlock_told_done)          \
	X(rwlock_wanted) X(rwlock_held) X(rwlock_let_go)                                                             \
	X(semaphore_entered) X(semaphore_noted) X(semaphore_changed) X(event_was_set)                                \
	X(condition_registered) X(condition_woken) X(barrier_arrived) X(barrier_broken) X(barrier_released)          \
	X(sweep_elected) X(sweep_tombed) X(sweep_block_given_back) X(sweep_recov_marked)                             \
	X(sweep_recov_offered) X(sweep_rings_done) X(sweep_block_done) X(sweep_woken) X(sweep_slot_freed)

enum crash_point : int {
#define X(name) CP_##name,
	CH_CRASH_POINTS_LIST(X)
#undef X
	CH_NR_CRASH_POINTS
};

#ifdef CH_CRASH_POINTS
extern void (*ch_crash_hook)(int id);
#define CH_CRASH_POINT(name)                                        \
	do {                                                        \
		if (::ch::core::ch_crash_hook)                      \
			::ch::core::ch_crash_hook(::ch::core::CP_##name); \
	} while (0)
#else
#define CH_CRASH_POINT(name) ((void)0)
#endif

} // namespace ch::core

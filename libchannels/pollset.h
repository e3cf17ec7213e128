// SPDX-License-Identifier: Apache-2.0
// pollset.h - this process's side of a poll set.
//
// The set's shared part is an object in each pool that has members (watch.h): an event to sleep on, and a mark for each
// member that is worth a look. Everything else is here, under the set's lock: which members there are, and the queue of
// those that somebody must look at. A member that a look found to be ready is reported, and goes to the end of the
// queue if it is level-triggered; one that was not is armed, looked at once more, and left alone until it is told of.
//
// So a member is always in one of four places, and who waits next, or sleeps, meets it in each:
//   armed      whoever makes its event true marks it
//   marked     in shared memory; whoever waits next takes the marks
//   queued     whoever waits next looks; it arms what is not ready, at the latest before it sleeps
//   fired      a ONESHOT member that waits for its owner
// A thread that sleeps has found the queue empty, or every member in it reported by itself. A level-triggered member that
// is reported while others sleep is armed as well, also for what its next receive or send leaves: the baton goes to
// one of them if there is more to do, and to nobody if the reporter does it all.
#pragma once
#include "watch.h"
#include <channels/pollset.h>

namespace ch::core {

inline constexpr u32 POLL_EVENTS = CH_POLL_IN | CH_POLL_OUT | CH_POLL_EMPTY | CH_POLL_FULL | CH_POLL_OUT_URGENT;

struct set_part : ch_object {
	watch_marks m;
};

struct poll_member {
	ch_object *o; // the set's own attachment; NULL: this number is free
	u64 user_data;
	u32 events;
	u32 part;
	u32 entry; // among its watchers
	u32 next;  // free number + 1
	bool is_queued;
	bool has_fired;
};

} // namespace ch::core

struct ch_pollset {
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	ch::core::u32 forks = 0, max = 0, spin_ns = 0;
	ch::core::u32 nr_used = 0, free = 0; // numbers given out so far; the free one to give out next + 1
	ch::core::poll_member *members = nullptr;
	ch::core::u32 *queue = nullptr, head = 0; // a ring of max numbers
	ch::core::u32 nr_asleep = 0;
	std::atomic<ch::core::u32> nr_queued = 0, nr_parts = 0, inside = 0;
	std::atomic<bool> is_ending = false;
	ch::core::set_part *parts[ch::core::MAX_EVENTS] = {};
	ch::core::event begin{}; // where a set sleeps that never had a member
	// The descriptor, and the thread that keeps it (pollfd.cpp).
	int fd = -1;
	pthread_t keeper{};
	std::atomic<ch::core::u32> is_readable = 0; // the keeper sleeps on this word while the descriptor is readable
	std::atomic<bool> has_begun = false;
};

namespace ch::core {

struct set_lock {
	explicit set_lock(ch_pollset *s) noexcept : s_(s) { pthread_mutex_lock(&s->lock); }
	~set_lock() noexcept { pthread_mutex_unlock(&s_->lock); }
	set_lock(const set_lock &) = delete;
	set_lock &operator=(const set_lock &) = delete;

private:
	ch_pollset *s_;
};

// Puts a member in the queue, if it is not there. All under the set's lock where not said otherwise.
void pollset_queue(ch_pollset *s, u32 member) noexcept;
// Marks in shared memory go to the queue. Whether there is anything in it.
bool pollset_take(ch_pollset *s) noexcept;
// Wakes one who sleeps, or everybody. With or without the lock.
void pollset_nudge(ch_pollset *s, int count) noexcept;

// What a thread sleeps on: the events of all parts.
struct sleeper {
	event *events[MAX_EVENTS];
	registration regs[MAX_EVENTS];
	u32 nr, nr_parts;
};
// Takes the lock: counts among those asleep, then registers. And when it does not sleep after all, or has slept:
void pollset_lie_down(ch_pollset *s, sleeper &z) noexcept; // takes the lock
bool pollset_sleep(ch_pollset *s, sleeper &z, i64 until_ns) noexcept; // without the lock; false: the time is over
// Whether what z sleeps on is still all there is.
inline bool pollset_is_whole(const ch_pollset *s, const sleeper &z) noexcept
{
	return s->nr_parts.load(relaxed) == z.nr_parts; // under the lock
}

void pollset_fd_drained(ch_pollset *s) noexcept; // a look found nothing: not readable until the next event
void pollset_fd_end(ch_pollset *s) noexcept;     // without the lock; everybody was told that the set ends

} // namespace ch::core

// SPDX-License-Identifier: Apache-2.0
// pollwait.cpp - waiting in a poll set: take the marks, look, arm what is not ready, look again, sleep.
#include "config.h"
#include "pollset.h"
#include "wait.h"
#include <cerrno>

namespace ch::core {

// Members that are being armed together, so that one barrier does for all.
struct arming {
	static constexpr u32 MOST = 32;
	u32 members[MOST], nr = 0;
	struct {
		event *e;
		u64 seen;
	} unsure[MOST * MAX_POLLED];
	u32 nr_unsure = 0;
};

static void arm(ch_pollset *s, u32 i, u32 more, arming &a) noexcept
{
	const poll_member &m = s->members[i];
	const u32 want = m.events & POLL_EVENTS;
	polled p[MAX_POLLED];

	watch_arm(m.o->poll->watchers(m.o), m.entry, s->parts[m.part]->me.load(relaxed), want | more); // ours
	const u32 n = m.o->poll->events(m.o, p);
	for (u32 k = 0; k < n; k++) {
		if (!(want & p[k].mask) && (want || k > 0)) // who wants to hear of the end only has to be in one order with it
			continue;
		const registration r = event_poll(*p[k].e);
		if (!r.is_sure)
			a.unsure[a.nr_unsure++] = {p[k].e, r.seen};
	}
	a.members[a.nr++] = i;
}

// From here on whoever makes it true sees the arms, or was early enough for the next look.
static void settle(arming &a) noexcept
{
	if (a.nr_unsure > 0)
		event_barrier();
	for (u32 k = 0; k < a.nr_unsure; k++)
		event_sure(*a.unsure[k].e, a.unsure[k].seen);
	a.nr_unsure = 0;
}

static u32 look(const poll_member &m) noexcept
{
	return m.o->poll->look(m.o, m.events & POLL_EVENTS);
}

static void report(ch_pollset *s, u32 i, u32 is, ch_poll_event *out) noexcept
{
	poll_member &m = s->members[i];
	arming a;

	*out = {m.user_data, is & ~POLL_FOR_ALL, 0};
	m.has_fired = m.events & CH_POLL_ONESHOT;
	if (m.events & (CH_POLL_EDGE | CH_POLL_ONESHOT))
		return;
	pollset_queue(s, i);
	if (s->nr_asleep == 0)
		return;
	arm(s, i, WATCH_MORE, a);
	settle(a);
	if (is & (CH_POLL_CLOSED | POLL_FOR_ALL))
		pollset_nudge(s, 1); // one after the other
}

// While nobody sleeps and no descriptor tells, the members that were busy last stay in the queue though they are not ready:
// to look at them now and then is cheaper than to be told, above all for those who would have to tell.
static constexpr u32 WARM = 4;

// Looks at what is in the queue, at most left members, and arms what is not ready. Edges are armed before the look.
static u32 first_look(ch_pollset *s, u32 &left, ch_poll_event *out, u32 cap, arming &a) noexcept
{
	const bool may_keep = s->fd < 0 && s->nr_asleep == 0;
	u32 found = 0;

	while (left > 0 && found < cap && a.nr < arming::MOST) {
		const u32 i = s->queue[s->head];
		poll_member &m = s->members[i];
		s->head = (s->head + 1) % s->max;
		s->nr_queued.fetch_sub(1, relaxed); // under the lock
		m.is_queued = false;
		left--;
		if (!m.o || m.has_fired)
			continue;
		const u32 is = m.events & CH_POLL_EDGE ? 0 : look(m);
		if (is)
			report(s, i, is, &out[found++]);
		else if (may_keep && left < WARM && !(m.events & CH_POLL_EDGE))
			pollset_queue(s, i);
		else
			arm(s, i, 0, a);
	}
	return found;
}

static u32 second_look(ch_pollset *s, ch_poll_event *out, u32 cap, const arming &a) noexcept
{
	u32 found = 0;

	for (u32 k = 0; k < a.nr; k++) {
		const u32 i = a.members[k], is = look(s->members[i]);
		if (is && found < cap)
			report(s, i, is, &out[found++]);
		else if (is)
			pollset_queue(s, i);
	}
	return found;
}

bool pollset_take(ch_pollset *s) noexcept
{
	for (u32 k = 0; k < s->nr_parts.load(relaxed); k++) // under the lock
		marks_take(s->parts[k]->m, [s](u32 i) { pollset_queue(s, i); });
	return s->nr_queued.load(relaxed) > 0;
}

// Under the lock. Returns how many events there are, -EAGAIN or -ECANCELED.
static int collect(ch_pollset *s, ch_poll_event *out, u32 cap) noexcept
{
	u32 found = 0;

	if (s->is_ending.load(seq_cst)) // of "it ends" and "I sleep" one sees the other: pollset_nudge follows
		return -ECANCELED;
	pollset_take(s);
	u32 left = s->nr_queued.load(relaxed); // under the lock; what is reported now is not looked at again
	while (left > 0 && found < cap) {
		arming a;
		found += first_look(s, left, out + found, cap - found, a);
		settle(a);
		found += second_look(s, out + found, cap - found, a);
	}
	if (left > 0 && s->nr_asleep > 0)
		pollset_nudge(s, 1); // pass the baton: what is left may be for everybody
	if (found == 0)
		pollset_fd_drained(s);
	return found > 0 ? static_cast<int>(found) : -EAGAIN;
}

// ---- sleeping

void pollset_lie_down(ch_pollset *s, sleeper &z) noexcept
{
	{
		set_lock lock(s);
		s->nr_asleep++;
		z.nr_parts = s->nr_parts.load(relaxed); // under the lock
	}
	z.nr = z.nr_parts > 0 ? z.nr_parts : 1;
	for (u32 i = 0; i < z.nr; i++) {
		z.events[i] = z.nr_parts > 0 ? &s->parts[i]->m.h->ready : &s->begin;
		z.regs[i] = event_register(*z.events[i]);
	}
}

bool pollset_sleep(ch_pollset *s, sleeper &z, i64 until_ns) noexcept
{
	const i64 now = now_ns();
	i64 wake_at = until_ns;
	bool is_told = true;

	if (now >= until_ns)
		return false;
	for (u32 i = 0; i < z.nr_parts; i++)
		is_told &= deaths_are_told(s->parts[i]->pool->seg);
	if (!is_told && wake_at > now + UNWATCHED_SLICE_NS)
		wake_at = now + UNWATCHED_SLICE_NS;
	if (z.nr == 1)
		event_wait(*z.events[0], z.regs[0], wake_at);
	else
		event_wait_any(z.events, z.regs, z.nr, wake_at);
	for (u32 i = 0; i < z.nr_parts && !is_told; i++)
		sweep_dead(s->parts[i]->pool->seg);
	return true;
}

static int sleep_until(ch_pollset *s, ch_poll_event *out, u32 cap, i64 until_ns) noexcept
{
	sleeper z;
	bool is_over = false;

	for (;;) {
		pollset_lie_down(s, z);
		bool is_whole;
		int rc;
		{
			set_lock lock(s);
			rc = collect(s, out, cap);
			is_whole = pollset_is_whole(s, z);
			s->nr_asleep -= rc != -EAGAIN || is_over || !is_whole;
		}
		if (rc != -EAGAIN || is_over)
			return rc == -EAGAIN ? -ETIMEDOUT : rc;
		if (!is_whole)
			continue;
		is_over = !pollset_sleep(s, z, until_ns);
		set_lock lock(s);
		s->nr_asleep--;
		rc = is_over ? -EAGAIN : collect(s, out, cap);
		if (rc != -EAGAIN)
			return rc;
	}
}

// Looks as long as it pays: at whether there is a mark, and at what is kept warm.
static int spin(ch_pollset *s, ch_poll_event *out, u32 cap, i64 start, i64 until_ns) noexcept
{
	const u32 nr = s->nr_parts.load(acquire); // [Y6] pairs with [Y7]
	const i64 budget = nr == 0 ? 0 : spin_budget(s->parts[0]), stop = budget > until_ns - start ? until_ns : start + budget;

	if (budget == 0)
		return -EAGAIN;
	for (spinner spin(start);; spin.pause()) {
		bool is_any = s->nr_queued.load(relaxed) > 0 || s->is_ending.load(relaxed); // hints
		for (u32 i = 0; i < nr; i++)
			is_any |= s->parts[i]->m.h->top.load(relaxed) != 0; // hint
		if (is_any && pthread_mutex_trylock(&s->lock) == 0) {
			const int rc = collect(s, out, cap);
			pthread_mutex_unlock(&s->lock);
			if (rc != -EAGAIN)
				return rc;
		}
		if (spin.now >= stop)
			return -EAGAIN;
	}
}

static int wait(ch_pollset *s, ch_poll_event *out, u32 cap, i64 timeout_ns) noexcept
{
	int rc;

	{
		set_lock lock(s);
		rc = collect(s, out, cap);
	}
	if (rc != -EAGAIN || timeout_ns == CH_TRY)
		return rc;
	const i64 start = now_ns(), until_ns = timeout_ns < 0 || timeout_ns > NEVER - start ? NEVER : start + timeout_ns;
	rc = spin(s, out, cap, start, until_ns);
	const bool has_slept = rc == -EAGAIN;
	if (has_slept)
		rc = sleep_until(s, out, cap, until_ns);
	if (rc > 0)
		adapt(s->parts[0], now_ns() - start, has_slept);
	return rc;
}

} // namespace ch::core

using namespace ch::core;

int ch_pollset_wait(struct ch_pollset *s, struct ch_poll_event *out_events, uint32_t cap, int64_t timeout_ns)
{
	if (!s || !out_events || cap == 0)
		return fail(-EINVAL, "poll set: NULL, or no room for events");
	if (s->forks != registry_forks())
		return fail(-EPERM, "poll set: it is the parent's; a forked child makes its own");
	s->inside.fetch_add(1, acquire);
	const int rc = wait(s, out_events, cap, timeout_ns);
	s->inside.fetch_sub(1, release); // [Y8] pairs with [Y8]: the last thing that we do here
	return rc;
}

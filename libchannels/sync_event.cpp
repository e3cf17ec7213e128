// SPDX-License-Identifier: Apache-2.0
// sync_event.cpp - event, manual-reset and auto-reset.
//
//   word      SET, and above it how often it was pulsed
//   event 0   it is set, or was pulsed
//
// Nobody holds an event, so a death leaves nothing in it but entries of watchers. A waiter of an auto-reset event that
// dies after it took the set is as one that had returned.
#include "config.h"
#include "sync.h"

namespace ch::core {

static constexpr u64 SET = 1, PULSE = 2;

static void sweep(ch_segment *, const block_place &b, u32 dead) noexcept
{
	watch_sweep(watch_table_of(b), dead);
}

const object_kind event_kind = sync_kind(CH_DESCR_EVENT, "event", sweep, nullptr);

static bool is_auto(const ch_event *e) noexcept { return e->v.flags & CH_EVENT_AUTO_RESET; }

// before: the word as it was when the call began.
static int attempt(ch_event *e, u64 before) noexcept
{
	u64 w = e->v.h->word.load(acquire); // [T4] pairs with [T3]

	if (sync_is_destroyed(e))
		return -ESTALE;
	if (w / PULSE != before / PULSE)
		return 0;
	if (!(w & SET))
		return -EAGAIN;
	if (!is_auto(e) || e->v.h->word.compare_exchange_strong(w, w & ~SET, acquire, relaxed)) // [T4] pairs with [T3]
		return 0;
	return w / PULSE != before / PULSE ? 0 : -EAGAIN; // another took it
}

// ---- as a member of poll sets

static u32 poll_events(const ch_object *o, polled out[MAX_POLLED]) noexcept
{
	out[0] = {&static_cast<const ch_event *>(o)->v.h->events[0], CH_POLL_IN};
	return 1;
}

static u32 poll_look(ch_object *o, u32 mask) noexcept
{
	const ch_event *e = static_cast<const ch_event *>(o);

	if (sync_is_destroyed(e))
		return CH_POLL_CLOSED | CH_POLL_DESTROYED;
	const bool is_set = e->v.h->word.load(acquire) & SET; // [T4] pairs with [T3]
	return !is_set || !(mask & CH_POLL_IN) ? 0 : is_auto(e) ? CH_POLL_IN : CH_POLL_IN | POLL_FOR_ALL;
}

const poll_ops event_ops = {
	.watchers = sync_watchers,
	.events = poll_events,
	.look = poll_look,
	.join = object_join_set<ch_event>,
	.leave = object_leave_set<ch_event>,
	.is_handle = false,
};

} // namespace ch::core

using namespace ch::core;

int ch_event_create(struct ch_pool *pool, const struct ch_event_attr *attr, struct ch_event **out_event)
{
	ch_event_attr a;
	int rc = sync_attr(attr, a, CH_EVENT_AUTO_RESET | CH_EVENT_IS_SET, "event");

	rc = rc < 0 ? rc : watch_attr(a.max_watchers, "event");
	if (rc < 0)
		return rc;
	const u64 word = a.flags & CH_EVENT_IS_SET ? SET : 0;
	return sync_create(pool, event_kind, {a.flags, 0, a.spin_ns, word, 0, a.max_watchers}, no_table, out_event);
}

SYNC_LIFE(event)

int ch_event_set(struct ch_event *event)
{
	const int rc = sync_usable(event, event_kind);

	if (rc < 0)
		return rc;
	event->v.h->word.fetch_or(SET, acq_rel); // [T3] pairs with [T4]
	CH_CRASH_POINT(event_was_set);
	event_notify(event->v.h->events[0], is_auto(event) ? 1 : EVERYBODY);
	if (is_polled(event->v.h->events[0]))
		watch_tell(event, CH_POLL_IN, 0);
	return 0;
}

struct ch_pollable *ch_event_get_pollable(struct ch_event *event)
{
	return pollable_of(event);
}

int ch_event_clear(struct ch_event *event)
{
	const int rc = sync_usable(event, event_kind);

	if (rc < 0)
		return rc;
	event->v.h->word.fetch_and(~SET, acq_rel); // [T3] pairs with [T4]
	return 0;
}

int ch_event_pulse(struct ch_event *event)
{
	const int rc = sync_usable(event, event_kind);

	if (rc < 0)
		return rc;
	event->v.h->word.fetch_add(PULSE, acq_rel); // [T3] pairs with [T4]
	CH_CRASH_POINT(event_was_set);
	event_notify(event->v.h->events[0], EVERYBODY);
	return 0;
}

int ch_event_is_set(struct ch_event *event)
{
	const int rc = sync_usable(event, event_kind);

	return rc < 0 ? rc : static_cast<int>(event->v.h->word.load(acquire) & SET); // [T4] pairs with [T3]
}

int ch_event_wait(struct ch_event *event, int64_t timeout_ns)
{
	const int me = sync_me(event, event_kind);

	if (me < 0)
		return me;
	const u64 before = event->v.h->word.load(relaxed); // which pulse came last
	int rc = attempt(event, before);
	if (rc == -EAGAIN && timeout_ns != CH_TRY)
		rc = wait_until(
			event, event->v.h->events[0], timeout_ns, [=] { return attempt(event, before); },
			[=] { return event->v.h->word.load(relaxed) != (before & ~SET) || sync_is_destroyed(event); }, // hints
			[] { return NOBODY; });
	return rc == 0 ? 0 : sync_refuse(event, rc);
}

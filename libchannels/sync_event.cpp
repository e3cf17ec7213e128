// SPDX-License-Identifier: Apache-2.0
// sync_event.cpp - event, manual-reset and auto-reset.
//
//   word      SET, and above it how often it was pulsed
//   event 0   it is set, or was pulsed
//
// Nobody holds an event, so a death leaves nothing in it. A waiter of an auto-reset event that dies after it took the
// set is as one that had returned.
#include "config.h"
#include "sync.h"

namespace ch::core {

static constexpr u64 SET = 1, PULSE = 2;

const object_kind event_kind = sync_kind(CH_DESCR_EVENT, "event", nullptr);

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

static int usable(ch_event *e) noexcept
{
	const int me = sync_me(e, event_kind);

	return me < 0 ? me : sync_is_destroyed(e) ? sync_refuse(e, -ESTALE) : 0;
}

} // namespace ch::core

using namespace ch::core;

int ch_event_create(struct ch_pool *pool, const struct ch_event_attr *attr, struct ch_event **out_event)
{
	ch_event_attr a;
	const int rc = sync_attr(attr, a, CH_EVENT_AUTO_RESET | CH_EVENT_IS_SET, "event");

	return rc < 0 ? rc :
			sync_create(pool, event_kind, {a.flags, 0, a.spin_ns, a.flags & CH_EVENT_IS_SET ? SET : 0, 0}, no_table,
				    out_event);
}

SYNC_LIFE(event)

int ch_event_set(struct ch_event *event)
{
	const int rc = usable(event);

	if (rc < 0)
		return rc;
	event->v.h->word.fetch_or(SET, acq_rel); // [T3] pairs with [T4]
	CH_CRASH_POINT(event_was_set);
	event_notify(event->v.h->events[0], is_auto(event) ? 1 : EVERYBODY);
	return 0;
}

int ch_event_clear(struct ch_event *event)
{
	const int rc = usable(event);

	if (rc == 0)
		event->v.h->word.fetch_and(~SET, acq_rel); // [T3] pairs with [T4]
	return rc;
}

int ch_event_pulse(struct ch_event *event)
{
	const int rc = usable(event);

	if (rc < 0)
		return rc;
	event->v.h->word.fetch_add(PULSE, acq_rel); // [T3] pairs with [T4]
	CH_CRASH_POINT(event_was_set);
	event_notify(event->v.h->events[0], EVERYBODY);
	return 0;
}

int ch_event_is_set(struct ch_event *event)
{
	const int rc = usable(event);

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

// SPDX-License-Identifier: Apache-2.0
// sync_condition.cpp - condition.
//
//   event 0   the whole of it: a waiter registers while it holds the mutex, a signal changes the sequence
//
// A waiter has been signalled when the sequence is not what it was at its registration. So a signal whose receiver
// times out at that moment is that receiver's success, and one whose receiver dies is made up for: the sweeper changes
// the sequence and wakes everybody. What is more than one wake-up then is a spurious one, which conditions may have.
// A newcomer that the kernel wakes between the two halves of a signal, in another's stead, sleeps on: it has looked at
// what it waits for after the signaller's change. tests/model/sync.pml is the model of it.
#include "config.h"
#include "sync.h"
#include "sync_mutex.h"

namespace ch::core {

const object_kind condition_kind = sync_kind(CH_DESCR_CONDITION, "condition", nullptr);

static bool is_signalled(const event &e, const registration &r) noexcept
{
	// acquire: as [E4] in event.h, what the signaller did before is there.
	return static_cast<u32>(e.v.load(acquire)) != static_cast<u32>(r.seen);
}

static int sleep_until_signalled(ch_condition *c, registration &r, i64 until_ns) noexcept
{
	event &e = c->v.h->events[0];

	for (i64 slice = BUSY_SLICE_NS; !is_signalled(e, r);) {
		if (sync_is_destroyed(c))
			return -ESTALE;
		if (!wait_sleep(c, e, r, NOBODY, until_ns, slice))
			return is_signalled(e, r) ? 0 : -ETIMEDOUT;
	}
	return sync_is_destroyed(c) ? -ESTALE : 0;
}

static int wait_unlocked(ch_condition *c, ch_mutex *m, u64 mine, i64 until_ns) noexcept
{
	registration r = event_register(c->v.h->events[0]);
	const u64 depth = m->v.h->extra[0].load(relaxed); // ours

	CH_CRASH_POINT(condition_registered);
	mutex_unlock(m);
	const int rc = sleep_until_signalled(c, r, until_ns);
	CH_CRASH_POINT(condition_woken);
	int locked = mutex_attempt(m, mine);
	if (locked == -EAGAIN)
		locked = mutex_wait(m, mine, CH_FOREVER);
	if (locked == 0 || locked == -EOWNERDEAD)
		m->v.h->extra[0].store(depth, relaxed); // ours again
	return locked < 0 ? sync_refuse(m, locked) : sync_refuse(c, rc);
}

static int notify(ch_condition *c, int count) noexcept
{
	const int me = sync_me(c, condition_kind);

	if (me < 0 || sync_is_destroyed(c))
		return me < 0 ? me : sync_refuse(c, -ESTALE);
	event_notify(c->v.h->events[0], count);
	return 0;
}

} // namespace ch::core

using namespace ch::core;

int ch_condition_create(struct ch_pool *pool, const struct ch_condition_attr *attr, struct ch_condition **out_condition)
{
	ch_condition_attr a;
	const int rc = sync_attr(attr, a, 0, "condition");

	return rc < 0 ? rc : sync_create(pool, condition_kind, {a.flags, 0, a.spin_ns, 0, 0}, no_table, out_condition);
}

SYNC_LIFE(condition)

int ch_condition_signal(struct ch_condition *condition)
{
	return notify(condition, 1);
}

int ch_condition_broadcast(struct ch_condition *condition)
{
	return notify(condition, EVERYBODY);
}

int ch_condition_wait(struct ch_condition *condition, struct ch_mutex *mutex, int64_t timeout_ns)
{
	int me = sync_me(condition, condition_kind);

	me = me < 0 ? me : sync_me(mutex, mutex_kind);
	if (me < 0)
		return me;
	const u64 mine = holder_word(static_cast<u32>(me), thread_self());
	if (mutex->v.h->word.load(relaxed) != mine) // ours, or not
		return sync_refuse(mutex, -EPERM);
	if (sync_is_destroyed(condition))
		return sync_refuse(condition, -ESTALE);
	return timeout_ns == CH_TRY ? -EAGAIN : wait_unlocked(condition, mutex, mine, deadline_of(timeout_ns));
}

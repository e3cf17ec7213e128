// SPDX-License-Identifier: Apache-2.0
// sync_semaphore.cpp - counting and bounded semaphore, with and without undo.
//
//   word      value:24, holder:40. Without undo there is never a holder, and an operation is one compare-and-swap.
//             With undo whoever changes something is the holder meanwhile, for some stores and no call
//   table     with undo: how many units each peer holds, by owner index; written by the holder of the word, and by the
//             sweeper of a dead one
//   extra[0]  with undo: how many units there are, held or not; by the holder of the word
//   extra[1]  not 0: somebody waits for more than one unit, so that a release wakes all
//   extra[2]  with undo: the value in the word may be wrong: count anew
//   event 0   there may be units; 1 the value may be 0
//
// With undo, what peers hold and how many units there are is the truth, and the value follows: there are so many less
// those held. A sweeper writes 0 to what the dead one held, asks for a count, and frees the word if the dead one is its
// holder: it waits for nobody, and may do it twice. Whoever comes next counts.
#include "config.h"
#include "sync.h"

namespace ch::core {

static constexpr u32 VALUE_SHIFT = OWNER_BITS + TID_BITS;
static constexpr int TRIES = 1 << 16;    // damaged words must not keep us for ever
static constexpr int PATIENCE_US = 200;  // for who changes something

static bool has_undo(const sync_view &v) noexcept { return v.flags & CH_SEMAPHORE_UNDO; }

static void sweep(ch_segment *seg, const block_place &b, u32 dead) noexcept
{
	sync_view v;

	watch_sweep(watch_table_of(b), dead);
	if (!sync_map(v, b.addr, b.len, seg->max_peers) || !has_undo(v) || dead >= v.nr)
		return;
	v.table[dead].store(0, relaxed); // its owner is gone; published by the word or the request
	CH_CRASH_POINT(sync_swept);
	v.h->extra[2].store(1, release); // [Q1] pairs with [Q2]
	u64 w = v.h->word.load(relaxed); // the dead one's does not change any more
	if (holder_owner(w) == dead)
		v.h->word.compare_exchange_strong(w, w & ~HOLDER_MASK, release, relaxed); // [Q3] pairs with [Q4]
}

const object_kind semaphore_kind = sync_kind(CH_DESCR_SEMAPHORE, "semaphore", sweep);

// A change by delta units of what is free. 0 or -EAGAIN (too few), -EOVERFLOW.
[[gnu::always_inline]] static inline int check_change(const sync_view &v, u64 value, i64 delta) noexcept
{
	const i64 after = static_cast<i64>(value) + delta;

	return after < 0 ? -EAGAIN : delta > 0 && after > static_cast<i64>(v.limit) ? -EOVERFLOW : 0;
}

[[gnu::always_inline]] static inline void tell(ch_semaphore *s, u64 value, i64 delta) noexcept
{
	const sync_view &v = s->v;
	event &e = v.h->events[0];

	std::atomic_signal_fence(seq_cst); // the compiler keeps the order: see event_notify
	if (delta > 0 && !event_is_quiet(e)) [[unlikely]] {
		e.v.fetch_add(0, acq_rel); // as [E3] in event.h: who is registered has said before what it wants
		event_notify_slow(e, v.h->extra[1].load(relaxed) ? EVERYBODY : static_cast<int>(delta)); // for each unit one
	}
	if (value == 0)
		event_notify(v.h->events[1], EVERYBODY);
	if (is_polled(e) || is_polled(v.h->events[1])) [[unlikely]]
		watch_tell(s, (delta > 0 ? CH_POLL_IN : 0) | (value == 0 ? CH_POLL_EMPTY : 0), CH_POLL_IN);
}

[[gnu::always_inline]] static inline int change_plain(ch_semaphore *s, i64 delta) noexcept
{
	const sync_view &v = s->v;
	u64 w = v.h->word.load(relaxed); // the CAS looks again

	for (int i = 0; i < TRIES; i++) {
		const u64 value = w >> VALUE_SHIFT;
		const int rc = check_change(v, value, delta);
		if (rc < 0)
			return rc;
		const u64 to = (value + static_cast<u64>(delta)) << VALUE_SHIFT;
		// [Q3] pairs with [Q4]: an acquire sees what was done before the releases.
		if (v.h->word.compare_exchange_weak(w, to, acq_rel, relaxed)) {
			CH_CRASH_POINT(semaphore_changed);
			tell(s, to >> VALUE_SHIFT, delta);
			return 0;
		}
	}
	return -EPROTO;
}

// ---- with undo

// Makes us the holder of the word. Returns the value in it, or -EAGAIN if somebody else is for too long.
static i64 enter(const sync_view &v, u64 mine) noexcept
{
	u64 w = v.h->word.load(relaxed); // the CAS looks again

	for (int us = 0; us < PATIENCE_US; us++) {
		for (int i = 0; i < 100; i++) {
			// [Q4] pairs with [Q3]
			if (!(w & HOLDER_MASK) && v.h->word.compare_exchange_weak(w, w | mine, acquire, relaxed)) {
				CH_CRASH_POINT(semaphore_entered);
				return static_cast<i64>(w >> VALUE_SHIFT);
			}
			cpu_relax();
			w = v.h->word.load(relaxed); // as above
		}
		sched_yield();
	}
	return -EAGAIN;
}

static void leave_with(const sync_view &v, u64 value) noexcept
{
	v.h->word.store(value << VALUE_SHIFT, release); // [Q3] pairs with [Q4]
	CH_CRASH_POINT(semaphore_changed);
}

// By the holder of the word: the value, after deaths.
static u64 count_anew(const sync_view &v, u64 value) noexcept
{
	// [Q2] pairs with [Q1]. Taken back before the count: who asks again meanwhile is heard by the next.
	if (v.h->extra[2].load(relaxed) == 0 || v.h->extra[2].exchange(0, acq_rel) == 0)
		return value;
	u64 held = 0, all = v.h->extra[0].load(relaxed); // ours
	for (u32 i = 0; i < v.nr; i++)
		held += v.table[i].load(relaxed) & UINT32_MAX; // ours, or a dead one's
	return all < held ? 0 : all - held > v.limit ? v.limit : all - held;
}

[[gnu::noinline]] static int change_undo(ch_semaphore *s, u64 mine, i64 delta) noexcept
{
	const sync_view &v = s->v;
	const u32 me = holder_owner(mine);
	const u64 w = v.h->word.load(relaxed); // the entry looks again

	if (me >= v.nr)
		return -EPROTO;
	if (delta < 0 && !(w & HOLDER_MASK) && static_cast<i64>(w >> VALUE_SHIFT) + delta < 0 && !v.h->extra[2].load(relaxed))
		return -EAGAIN;
	const i64 found = enter(v, mine);
	if (found < 0)
		return holder_owner(w) && holder_is_nobody(s, v.h->word, w) ? -EPROTO : -EAGAIN;
	const u64 value = count_anew(v, static_cast<u64>(found));
	const int rc = check_change(v, value, delta);
	if (rc < 0) {
		leave_with(v, value);
		return rc;
	}
	const u64 held = v.table[me].load(relaxed), n = static_cast<u64>(delta < 0 ? -delta : delta); // ours
	if (delta < 0) {
		v.table[me].store(held + n, relaxed); // the units are ours now, whatever the word says
	} else {
		const u64 own = held < n ? held : n; // the rest are new
		v.h->extra[0].store(v.h->extra[0].load(relaxed) + n - own, relaxed);
		CH_CRASH_POINT(semaphore_noted);
		v.table[me].store(held - own, relaxed);
	}
	CH_CRASH_POINT(semaphore_noted);
	leave_with(v, value + static_cast<u64>(delta));
	tell(s, value + static_cast<u64>(delta), delta);
	return 0;
}

// ---- both

[[gnu::always_inline]] static inline int change(ch_semaphore *s, u64 mine, i64 delta) noexcept
{
	if (sync_is_destroyed(s))
		return -ESTALE;
	return has_undo(s->v) ? change_undo(s, mine, delta) : change_plain(s, delta);
}

// The value as it will be counted; without looking at what changes meanwhile.
static u64 value_of(const sync_view &v) noexcept
{
	const u64 value = v.h->word.load(acquire) >> VALUE_SHIFT; // [Q4] pairs with [Q3]

	if (!has_undo(v) || v.h->extra[2].load(acquire) == 0) // [Q2] pairs with [Q1]
		return value;
	u64 held = 0, all = v.h->extra[0].load(relaxed); // a picture of a moment
	for (u32 i = 0; i < v.nr; i++)
		held += v.table[i].load(relaxed) & UINT32_MAX;
	return all < held ? 0 : all - held;
}

// ---- as a member of poll sets

static u32 poll_events(const ch_object *o, polled out[MAX_POLLED]) noexcept
{
	sync_header *h = static_cast<const ch_semaphore *>(o)->v.h;

	out[0] = {&h->events[0], CH_POLL_IN};
	out[1] = {&h->events[1], CH_POLL_EMPTY};
	return 2;
}

static u32 poll_look(ch_object *o, u32 mask) noexcept
{
	const ch_semaphore *s = static_cast<const ch_semaphore *>(o);

	if (sync_is_destroyed(s))
		return CH_POLL_CLOSED | CH_POLL_DESTROYED;
	return mask & (value_of(s->v) > 0 ? CH_POLL_IN : CH_POLL_EMPTY);
}

const poll_ops semaphore_ops = {
	.watchers = sync_watchers,
	.events = poll_events,
	.look = poll_look,
	.join = object_join_set<ch_semaphore>,
	.leave = object_leave_set<ch_semaphore>,
	.is_handle = false,
};

// ----

[[gnu::always_inline]] static inline int my_word(ch_semaphore *s, u64 &mine) noexcept
{
	const int me = sync_me(s, semaphore_kind);

	mine = me < 0 ? 0 : holder_word(static_cast<u32>(me), thread_self());
	return me < 0 ? me : 0;
}

[[gnu::always_inline]] static inline int check_count(u32 n) noexcept
{
	return n >= 1 && n <= CH_SEMAPHORE_MAX ? 0 : fail(-EINVAL, "semaphore: %u units are not 1...%u", n, CH_SEMAPHORE_MAX);
}

[[gnu::noinline]] static int wait_for_units(ch_semaphore *s, u64 mine, u32 n, i64 timeout_ns) noexcept
{
	if (n > 1)
		s->v.h->extra[1].store(1, relaxed); // published by the registration
	return wait_until(
		s, s->v.h->events[0], timeout_ns, [=] { return change(s, mine, -i64{n}); },
		[=] { return value_of(s->v) >= n || sync_is_destroyed(s); },
		[=] { return holder_owner(s->v.h->word.load(relaxed)); }); // a guess whom to look at
}

} // namespace ch::core

using namespace ch::core;

int ch_semaphore_create(struct ch_pool *pool, const struct ch_semaphore_attr *attr, struct ch_semaphore **out_semaphore)
{
	ch_semaphore_attr a;
	int rc = sync_attr(attr, a, CH_SEMAPHORE_UNDO, "semaphore");

	rc = rc < 0 ? rc : watch_attr(a.max_watchers, "semaphore");
	if (rc < 0)
		return rc;
	a.limit = a.limit ? a.limit : CH_SEMAPHORE_MAX;
	if (a.limit > CH_SEMAPHORE_MAX || a.value > a.limit)
		return fail(-EINVAL, "semaphore: value %u and limit %u: at most %u", a.value, a.limit, CH_SEMAPHORE_MAX);
	const bool is_undo = a.flags & CH_SEMAPHORE_UNDO;
	return sync_create(
		pool, semaphore_kind, {a.flags, a.limit, a.spin_ns, u64{a.value} << VALUE_SHIFT, a.value, a.max_watchers},
		[=](u32 max_peers) { return is_undo ? max_peers + 1 : 0; }, out_semaphore);
}

SYNC_LIFE(semaphore)

int ch_semaphore_acquire(struct ch_semaphore *semaphore, uint32_t n, int64_t timeout_ns)
{
	u64 mine;
	int rc = my_word(semaphore, mine);

	rc = rc < 0 ? rc : check_count(n);
	if (rc < 0)
		return rc;
	if (n > semaphore->v.limit)
		return sync_refuse(semaphore, -EOVERFLOW);
	rc = change(semaphore, mine, -i64{n});
	if (rc == -EAGAIN && timeout_ns != CH_TRY)
		rc = wait_for_units(semaphore, mine, n, timeout_ns);
	return rc == 0 ? 0 : sync_refuse(semaphore, rc);
}

int ch_semaphore_release(struct ch_semaphore *semaphore, uint32_t n)
{
	u64 mine;
	int rc = my_word(semaphore, mine);

	rc = rc < 0 ? rc : check_count(n);
	if (rc < 0)
		return rc;
	rc = change(semaphore, mine, n);
	if (rc == -EAGAIN) // somebody else is at it, and perhaps stopped there or dead
		rc = wait_until(
			semaphore, semaphore->v.h->events[0], CH_FOREVER, [=] { return change(semaphore, mine, n); },
			[] { return true; },
			[=] { return holder_owner(semaphore->v.h->word.load(relaxed)); }); // a guess whom to look at
	return rc == 0 ? 0 : sync_refuse(semaphore, rc);
}

int ch_semaphore_wait_zero(struct ch_semaphore *semaphore, int64_t timeout_ns)
{
	const int me = sync_me(semaphore, semaphore_kind);

	if (me < 0)
		return me;
	auto attempt = [=] {
		return sync_is_destroyed(semaphore) ? -ESTALE : value_of(semaphore->v) == 0 ? 0 : -EAGAIN;
	};
	int rc = attempt();
	if (rc == -EAGAIN && timeout_ns != CH_TRY)
		rc = wait_until(
			semaphore, semaphore->v.h->events[1], timeout_ns, attempt, [=] { return attempt() != -EAGAIN; },
			[] { return NOBODY; });
	return sync_refuse(semaphore, rc);
}

struct ch_pollable *ch_semaphore_get_pollable(struct ch_semaphore *semaphore)
{
	return pollable_of(semaphore);
}

int ch_semaphore_get_value(struct ch_semaphore *semaphore)
{
	const int me = sync_me(semaphore, semaphore_kind);

	if (me < 0)
		return me;
	return sync_is_destroyed(semaphore) ? sync_refuse(semaphore, -ESTALE) : static_cast<int>(value_of(semaphore->v));
}

// SPDX-License-Identifier: Apache-2.0
// sync_rwlock.cpp - read/write lock.
//
//   word      the writer. 0: none; holder:40 wants it; holder:40 | HOLDS has it. DIED beside it, or alone: a writer
//             died, and nobody was told yet. holder:40 | READS: a reader was told, and has not let go yet
//   table     readers: a word for each thread that reads: how often:24, holder:40; 0: free
//   extra[0]  one more than the highest slot that was ever used
//   event 0   readers: the writer has gone; 1 writers: so has the writer; 2 the writer, and readers that found no
//             slot: a reader has gone
//
// A reader names itself in a slot and then looks at the word; a writer names itself in the word and then looks at the
// slots. Of the two one sees the other (seq_cst: all four are in one order), and then the reader gives way. So writers
// are preferred: none waits for readers that came after it.
//
// Whoever was told of a death keeps that in the word until it lets go: if it dies too, the next is told.
#include "config.h"
#include "sync.h"

namespace ch::core {

static constexpr u32 DEFAULT_READERS = 256;
static constexpr u32 MAX_READERS = 65536;
static constexpr u64 ONCE = u64{1} << (OWNER_BITS + TID_BITS);
static constexpr int NO_SLOT = -ENOSPC; // so many read already; no caller sees it

static shared<u64> &readers_top(const sync_view &v) noexcept { return v.h->extra[0]; }

// Slots are used line by line of memory, so that neighbours in this order share none: 0, 8, 16, ... 1, 9, 17, ...
static inline u32 nr_slots(const sync_view &v) noexcept { return v.nr & ~u32{7}; }
static inline u32 slot_after(u32 i, u32 nr) noexcept { return i + 8 < nr ? i + 8 : (i & 7) == 7 ? 0 : (i & 7) + 1; }
static inline u32 place_of_slot(u32 i, u32 nr) noexcept { return i / 8 + (i & 7) * (nr / 8); } // in this order

static bool has_writer(u64 w) noexcept { return holder_owner(w) != NOBODY && !(w & HOLDER_READS); }

// What the word becomes when its holder ends without letting go.
static u64 after_death(u64 w) noexcept
{
	return w & (HOLDER_HOLDS | HOLDER_READS | HOLDER_DIED) ? HOLDER_DIED : 0;
}

static void wake_all(const sync_view &v) noexcept
{
	for (event &e : v.h->events)
		event_wake(e, EVERYBODY);
}

static void sweep(ch_segment *seg, const block_place &b, u32 dead) noexcept
{
	sync_view v;

	if (!sync_map(v, b.addr, b.len, seg->max_peers))
		return;
	u64 w = v.h->word.load(relaxed); // the dead one's: it does not change any more
	if (holder_owner(w) == dead)
		v.h->word.compare_exchange_strong(w, after_death(w), release, relaxed); // [O1] pairs with [O2]
	CH_CRASH_POINT(sync_swept);
	for (u32 i = 0; i < v.nr; i++) {
		w = v.table[i].load(relaxed); // as above
		if (holder_owner(w) == dead)
			v.table[i].compare_exchange_strong(w, 0, release, relaxed); // [O3] pairs with [O4]
	}
}

const object_kind rwlock_kind = sync_kind(CH_DESCR_RWLOCK, "rwlock", sweep);

// ---- readers

static shared<u64> *find_own_slot(const sync_view &v, u64 mine) noexcept
{
	const u32 nr = nr_slots(v);

	for (u32 k = 0, i = own_notes.slot < nr ? own_notes.slot : 0; k < nr; k++, i = slot_after(i, nr))
		if ((v.table[i].load(relaxed) & HOLDER_MASK) == mine) // ours, or not
			return &v.table[i];
	return nullptr;
}

// The slot of this thread, if it reads already.
static inline shared<u64> *own_slot(const sync_view &v, u64 mine) noexcept
{
	return own_notes.nr_shared == 0 ? nullptr : find_own_slot(v, mine);
}

static inline shared<u64> *claim_slot(const sync_view &v, u64 mine) noexcept
{
	const u32 nr = nr_slots(v);

	for (u32 k = 0, i = own_notes.slot < nr ? own_notes.slot : 0; k < nr; k++, i = slot_after(i, nr)) {
		shared<u64> &s = v.table[i];
		u64 free = 0, top = readers_top(v).load(relaxed); // it only grows
		if (s.load(relaxed) != 0) // the CAS looks again
			continue;
		const u64 need = place_of_slot(i, nr) + 1;
		// seq_cst: a writer that sees the slot's claim late sees the top late too, and then we see the writer.
		while (top < need && !readers_top(v).compare_exchange_weak(top, need, seq_cst, relaxed))
			;
		CH_CRASH_POINT(rwlock_slot_found);
		// seq_cst: before the look at the word, see above. [O4] pairs with [O3]: it acquires too.
		if (s.compare_exchange_strong(free, mine + ONCE, seq_cst, relaxed)) {
			own_notes.slot = i;
			return &s;
		}
	}
	return nullptr;
}

[[gnu::always_inline]] static inline void free_slot(const sync_view &v, shared<u64> &s) noexcept
{
	s.store(0, release); // [O3] pairs with [O4]
	CH_CRASH_POINT(rwlock_slot_freed);
	event_notify(v.h->events[2], EVERYBODY); // the writer, mostly
}

static int read_again(shared<u64> &s) noexcept
{
	const u64 n = s.load(relaxed); // ours

	if (n >> (OWNER_BITS + TID_BITS) == (u64{1} << 24) - 1)
		return -EOVERFLOW;
	s.store(n + ONCE, relaxed); // ours
	return 0;
}

static int read_attempt(ch_rwlock *r, u64 mine) noexcept
{
	const sync_view &v = r->v;
	u64 w = v.h->word.load(relaxed); // looked at again below

	if (sync_is_destroyed(r))
		return -ESTALE;
	if (shared<u64> *s = own_slot(v, mine))
		return read_again(*s);
	if (has_writer(w))
		return (w & HOLDER_MASK) == mine ? -EDEADLK : holder_is_nobody(r, v.h->word, w) ? -EPROTO : -EAGAIN;
	shared<u64> *s = claim_slot(v, mine);
	if (!s)
		return NO_SLOT;
	CH_CRASH_POINT(rwlock_slot_claimed);
	w = v.h->word.load(seq_cst); // seq_cst: after the claim, see above. [O2] pairs with [O1]: it acquires too.
	if (has_writer(w)) {
		free_slot(v, *s);
		return -EAGAIN;
	}
	own_notes.nr_shared++;
	if (w == HOLDER_DIED && v.h->word.compare_exchange_strong(w, mine | HOLDER_READS, acquire, relaxed)) { // [O2]
		CH_CRASH_POINT(rwlock_told);
		return -EOWNERDEAD;
	}
	if (has_writer(w)) { // it came between, and will be told
		own_notes.nr_shared--;
		free_slot(v, *s);
		return -EAGAIN;
	}
	return 0;
}

[[gnu::always_inline]] static inline int unlock_read(ch_rwlock *r, shared<u64> &s, u64 mine) noexcept
{
	const sync_view &v = r->v;
	const u64 n = s.load(relaxed); // ours

	if (n - ONCE >= ONCE) {
		s.store(n - ONCE, relaxed);
		return 0;
	}
	if (v.h->word.load(relaxed) == (mine | HOLDER_READS)) { // nobody else writes this
		v.h->word.store(0, release); // [O1] pairs with [O2]
		CH_CRASH_POINT(rwlock_told_done);
		event_notify(v.h->events[1], 1);
	}
	own_notes.nr_shared--;
	free_slot(v, s);
	return 0;
}

// ---- writers

[[gnu::always_inline]] static inline int want(ch_rwlock *r, u64 mine) noexcept
{
	shared<u64> &word = r->v.h->word;
	u64 w = word.load(relaxed); // the CAS looks again

	if (sync_is_destroyed(r))
		return -ESTALE;
	if (holder_owner(w) != NOBODY)
		return (w & HOLDER_MASK) == mine	? -EDEADLK :
		       holder_is_nobody(r, word, w) ? -EPROTO :
						      -EAGAIN;
	// seq_cst: before the look at the slots, see above. [O2] pairs with [O1]: it acquires too.
	if (!word.compare_exchange_strong(w, mine | (w & HOLDER_DIED), seq_cst, relaxed))
		return -EAGAIN;
	CH_CRASH_POINT(rwlock_wanted);
	return 0;
}

// A reader's slot that is in the writer's way, or NULL.
[[gnu::always_inline]] static inline shared<u64> *reader_in_the_way(const sync_view &v) noexcept
{
	const u64 top = readers_top(v).load(seq_cst); // seq_cst here and below: after the word, see above
	const u32 nr = nr_slots(v);

	for (u32 k = 0, i = 0; k < nr && k < top; k++, i = slot_after(i, nr))
		// [O4] pairs with [O3]: what the last reader did was before.
		if (v.table[i].load(seq_cst) != 0)
			return &v.table[i];
	return nullptr;
}

[[gnu::always_inline]] static inline int drain_attempt(ch_rwlock *r, u64 mine) noexcept
{
	shared<u64> &word = r->v.h->word;

	if (sync_is_destroyed(r))
		return -ESTALE;
	if (reader_in_the_way(r->v))
		return -EAGAIN;
	const u64 w = word.load(relaxed); // ours
	word.store(mine | HOLDER_HOLDS, relaxed); // only a sweeper reads the difference
	CH_CRASH_POINT(rwlock_held);
	return w & HOLDER_DIED ? -EOWNERDEAD : 0;
}

[[gnu::always_inline]] static inline void give_up_word(const sync_view &v, u64 to) noexcept
{
	v.h->word.store(to, release); // [O1] pairs with [O2]
	CH_CRASH_POINT(rwlock_let_go);
	event_notify(v.h->events[0], EVERYBODY);
	event_notify(v.h->events[1], 1);
}

static int wait_for_word(ch_rwlock *r, u64 mine, i64 timeout_ns) noexcept
{
	shared<u64> &word = r->v.h->word;
	holder_watch watch;

	return wait_until(
		r, r->v.h->events[1], timeout_ns, [=] { return want(r, mine); },
		[=, &word] { return holder_owner(word.load(relaxed)) == NOBODY || sync_is_destroyed(r); }, // hints
		[=, &word, &watch] {
			u64 w = word.load(relaxed); // a guess whom to look at
			if (holder_owner(w) && watch.is_gone(r, w) &&
			    word.compare_exchange_strong(w, after_death(w), release, relaxed)) // [O1] pairs with [O2]
				wake_all(r->v);
			return holder_owner(w);
		});
}

static int wait_for_readers(ch_rwlock *r, u64 mine, i64 timeout_ns) noexcept
{
	holder_watch watch;

	return wait_until(
		r, r->v.h->events[2], timeout_ns, [=] { return drain_attempt(r, mine); },
		[=] { return !reader_in_the_way(r->v) || sync_is_destroyed(r); },
		[=, &watch] {
			shared<u64> *s = reader_in_the_way(r->v);
			u64 w = s ? s->load(relaxed) : 0; // a guess whom to look at
			if (w && watch.is_gone(r, w) && s->compare_exchange_strong(w, 0, release, relaxed)) // [O3]
				wake_all(r->v);
			return holder_owner(w);
		});
}

static int wait_for_slot(ch_rwlock *r, u64 mine, i64 timeout_ns) noexcept
{
	return wait_until(
		r, r->v.h->events[2], timeout_ns,
		[=] {
			const int rc = read_attempt(r, mine);
			return rc == NO_SLOT ? -EAGAIN : rc == -EAGAIN ? NO_SLOT : rc;
		},
		[] { return true; }, [] { return NOBODY; });
}

static int wait_for_writer(ch_rwlock *r, u64 mine, i64 timeout_ns) noexcept
{
	shared<u64> &word = r->v.h->word;
	holder_watch watch;

	return wait_until(
		r, r->v.h->events[0], timeout_ns, [=] { return read_attempt(r, mine); },
		[=, &word] { return !has_writer(word.load(relaxed)) || sync_is_destroyed(r); }, // hints
		[=, &word, &watch] {
			u64 w = word.load(relaxed); // a guess whom to look at
			if (has_writer(w) && watch.is_gone(r, w) &&
			    word.compare_exchange_strong(w, after_death(w), release, relaxed)) // [O1] pairs with [O2]
				wake_all(r->v);
			return holder_owner(w);
		});
}

static int lock_read(ch_rwlock *r, u64 mine, i64 timeout_ns) noexcept
{
	int rc = read_attempt(r, mine);

	if (timeout_ns == CH_TRY)
		return rc == NO_SLOT ? -EAGAIN : rc;
	for (i64 until_ns = 0; rc == -EAGAIN || rc == NO_SLOT;) {
		const bool is_full = rc == NO_SLOT;
		until_ns = until_ns ? until_ns : deadline_of(timeout_ns);
		rc = is_full ? wait_for_slot(r, mine, left_until(until_ns)) : wait_for_writer(r, mine, left_until(until_ns));
		rc = is_full && rc == NO_SLOT ? -EAGAIN : rc; // then it was a writer
	}
	return rc;
}

static int lock_write(ch_rwlock *r, u64 mine, i64 timeout_ns) noexcept
{
	i64 until_ns = 0;
	int rc = own_slot(r->v, mine) ? -EDEADLK : want(r, mine);

	if (rc == -EAGAIN && timeout_ns != CH_TRY) {
		until_ns = deadline_of(timeout_ns);
		rc = wait_for_word(r, mine, timeout_ns);
	}
	if (rc < 0)
		return rc;
	rc = drain_attempt(r, mine);
	if (rc == -EAGAIN && timeout_ns != CH_TRY)
		rc = wait_for_readers(r, mine, until_ns ? left_until(until_ns) : timeout_ns);
	if (rc < 0 && rc != -EOWNERDEAD) // the news, if there was any, stays for the next
		give_up_word(r->v, r->v.h->word.load(relaxed) & HOLDER_DIED); // ours
	return rc;
}

[[gnu::always_inline]] static inline int my_word(ch_rwlock *r, u64 &mine) noexcept
{
	const int me = sync_me(r, rwlock_kind);

	mine = me < 0 ? 0 : holder_word(static_cast<u32>(me), thread_self());
	return me < 0 ? me : 0;
}

} // namespace ch::core

using namespace ch::core;

int ch_rwlock_create(struct ch_pool *pool, const struct ch_rwlock_attr *attr, struct ch_rwlock **out_rwlock)
{
	ch_rwlock_attr a;
	int rc = sync_attr(attr, a, 0, "rwlock");

	if (rc == 0 && a.max_readers > MAX_READERS)
		rc = fail(-EINVAL, "rwlock: max_readers %u is over %u", a.max_readers, MAX_READERS);
	if (rc < 0)
		return rc;
	const u32 nr = static_cast<u32>(round_up(a.max_readers ? a.max_readers : DEFAULT_READERS, 8));
	return sync_create(pool, rwlock_kind, {a.flags, 0, a.spin_ns, 0, 0}, [=](u32) { return nr; }, out_rwlock);
}

SYNC_LIFE(rwlock)

int ch_rwlock_lock_shared(struct ch_rwlock *rwlock, int64_t timeout_ns)
{
	u64 mine;
	int rc = my_word(rwlock, mine);

	if (rc < 0)
		return rc;
	rc = lock_read(rwlock, mine, timeout_ns);
	return rc == 0 ? 0 : sync_refuse(rwlock, rc);
}

int ch_rwlock_lock(struct ch_rwlock *rwlock, int64_t timeout_ns)
{
	u64 mine;
	int rc = my_word(rwlock, mine);

	if (rc < 0)
		return rc;
	rc = lock_write(rwlock, mine, timeout_ns);
	return rc == 0 ? 0 : sync_refuse(rwlock, rc);
}

int ch_rwlock_unlock(struct ch_rwlock *rwlock)
{
	u64 mine;
	const int rc = my_word(rwlock, mine);

	if (rc < 0)
		return rc;
	if (rwlock->v.h->word.load(relaxed) == (mine | HOLDER_HOLDS)) { // ours, or not
		give_up_word(rwlock->v, 0);
		return 0;
	}
	shared<u64> *s = own_slot(rwlock->v, mine);
	return s ? unlock_read(rwlock, *s, mine) : sync_refuse(rwlock, -EPERM);
}

int ch_rwlock_downgrade(struct ch_rwlock *rwlock)
{
	u64 mine;
	const int rc = my_word(rwlock, mine);

	if (rc < 0)
		return rc;
	if (rwlock->v.h->word.load(relaxed) != (mine | HOLDER_HOLDS)) // ours, or not
		return sync_refuse(rwlock, -EPERM);
	if (!claim_slot(rwlock->v, mine)) // others who look in hold one for a moment
		return -EAGAIN;
	CH_CRASH_POINT(rwlock_slot_claimed);
	own_notes.nr_shared++;
	give_up_word(rwlock->v, 0);
	return 0;
}

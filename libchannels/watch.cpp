// SPDX-License-Identifier: Apache-2.0
// watch.cpp - claims and arms of watchers, and telling them. See watch.h.
#include "config.h"
#include "watch.h"
#include "crash.h"
#include "sweep.h"
#include <cerrno>
#include <sched.h>

namespace ch::core {

static constexpr u64 ARMS = u64{WATCH_ARMS} << OWNER_BITS;
static constexpr u32 GEN_SHIFT = 42;
static constexpr u32 MAX_TABLE = 3 * MAX_WATCHES; // a port's own, and two for each stream (stream.h)

int watch_attr(u32 &n, const char *what) noexcept
{
	n = n ? n : DEFAULT_WATCHES;
	return n > MAX_WATCHES ? fail(-EINVAL, "%s: max_watchers %u is over %u", what, n, MAX_WATCHES) : 0;
}

watch_table watch_table_of(const block_place &b) noexcept
{
	// Once: a hostile peer may change it. Too many are none; too few bytes before the table are no harm.
	const u32 nr = *const_cast<const volatile u32 *>(&reinterpret_cast<object_header *>(b.addr)->nr_watches);
	watch_table t;

	if (nr > MAX_TABLE || watch_bytes(nr) + sizeof(object_header) > b.len)
		return t;
	t.words = reinterpret_cast<shared<u64> *>(b.addr + b.len - watch_bytes(nr));
	t.refs = reinterpret_cast<watch_ref *>(t.words + nr);
	t.nr = nr;
	return t;
}

// ---- the owner's side

int watch_claim(const watch_table &t, u32 me, const ch_object *set, u32 member) noexcept
{
	for (u32 i = 0; i < t.nr; i++) {
		u64 w = t.words[i].load(relaxed); // the CAS tells whether it still is so
		const u64 mine = ((w >> GEN_SHIFT) + 1) << GEN_SHIFT | u64{member} << 26 | me;
		if (watch_owner(w) != NOBODY || !t.words[i].compare_exchange_strong(w, mine, acq_rel, relaxed)) // [Y3]
			continue;
		CH_CRASH_POINT(watch_claimed);
		// [Y3] pairs with [Y4]: whoever sees the arms, which come later, sees whose they are. Who tells everybody
		// may see the last tenant's instead: marks_set and the owner live with it, for we look when we have armed.
		t.refs[i].index.store(set->block.index, relaxed);
		t.refs[i].tag.store(set->tag, release);
		return static_cast<int>(i);
	}
	return -ENOSPC;
}

int watch_find(const watch_table &t, u32 from, u32 me, const ch_object *set) noexcept
{
	for (u32 i = from; i < t.nr; i++)
		if (watch_owner(t.words[i].load(relaxed)) == me && // ours: nobody else changes that, nor what it refers to
		    t.refs[i].index.load(relaxed) == set->block.index && t.refs[i].tag.load(relaxed) == set->tag)
			return static_cast<int>(i);
	return -ENOENT;
}

void watch_free(const watch_table &t, u32 i, u32 me) noexcept
{
	u64 w = i < t.nr ? t.words[i].load(relaxed) : NOBODY; // ours; only its arms change under us

	while (watch_owner(w) == me && // [Y3]
	       !t.words[i].compare_exchange_weak(w, w >> GEN_SHIFT << GEN_SHIFT, acq_rel, relaxed))
		;
}

void watch_arm(const watch_table &t, u32 i, u32 me, u32 mask) noexcept
{
	u64 w = i < t.nr ? t.words[i].load(relaxed) : NOBODY; // ours; only its arms change under us

	while (watch_owner(w) == me && // [Y3] pairs with [Y4]
	       !t.words[i].compare_exchange_weak(w, w | u64{mask} << OWNER_BITS, acq_rel, relaxed))
		;
	CH_CRASH_POINT(watch_armed);
}

void watch_sweep(const watch_table &t, u32 dead) noexcept
{
	for (u32 i = 0; i < t.nr; i++)
		watch_free(t, i, dead);
}

// ---- hazards

// One of our own, for as long as we look at one set's memory; a lock among our threads only, of a few instructions.
static u32 borrow(ch_segment *seg) noexcept
{
	for (u32 n = 0;; n++) {
		const u32 i = 1 + n % (NR_HAZARDS - 1), bit = 1u << i;
		if (!(seg->telling.load(relaxed) & bit) && !(seg->telling.fetch_or(bit, acquire) & bit)) // [Y5] pairs with [Y5]
			return i;
		if (n % 64 == 63)
			sched_yield(); // whoever has them may want our processor
	}
}

static void mark(ch_segment *seg, u32 as, u64 index, u64 tag, u32 member) noexcept
{
	const bool is_own = as == seg->me.load(relaxed); // we are in a call on it, or sweep under the lock
	block_place b;
	watch_marks m;

	if (!block_find(seg->pool.map, index, b))
		return; // a set that is gone
	const u32 i = is_own ? borrow(seg) : 1;
	shared<u64> &hazard = seg->peers[as].hazard[i];
	// A set that is being destroyed, with its pool, wants to hear that its members are too.
	if (hazard_set(hazard, b, tag, true) && marks_open(m, b.addr, b.len, seg->max_peers))
		marks_set(m, member);
	CH_CRASH_POINT(watch_marked);
	hazard_clear(seg, as, hazard, b);
	if (is_own)
		seg->telling.fetch_and(~(1u << i), release); // [Y5] pairs with [Y5]: one at a time
}

// ---- telling

// Whether it is armed for what is true now.
static bool is_meant(ch_object *o, const poll_ops &ops, u64 w, u32 mask, u32 more) noexcept
{
	const u32 arms = watch_arms(w);

	if (watch_owner(w) == NOBODY)
		return false;
	return (arms & mask) || ((arms & WATCH_MORE) && (arms & more) && (ops.look(o, arms & more) & more));
}

static void tell(ch_object *o, const poll_ops &ops, const watch_table &t, u32 i, u32 mask, u32 more) noexcept
{
	u64 w = t.words[i].load(acquire); // [Y4] pairs with [Y3]

	while (is_meant(o, ops, w, mask, more)) {
		// Before the CAS, which proves that they were this claim's.
		const u64 index = t.refs[i].index.load(relaxed), tag = t.refs[i].tag.load(relaxed);
		if (!t.words[i].compare_exchange_weak(w, w & ~ARMS, acq_rel, acquire)) // [Y4]
			continue;
		CH_CRASH_POINT(watch_disarmed);
		mark(o->pool->seg, o->me.load(relaxed), index, tag, watch_member(w)); // set: we are in a call
		return;
	}
}

// POLLED goes when nobody is armed for it: if somebody arms meanwhile the stamp is another, and the word stays.
static void calm(const polled &p, u64 seen, u32 arms) noexcept
{
	if ((seen & EVENT_POLLED) && !(arms & p.mask))
		p.e->v.compare_exchange_strong(seen, seen & ~EVENT_POLLED, relaxed, relaxed); // orders nothing
}

void watch_tell(ch_object *o, const poll_ops &ops, u32 mask, u32 more) noexcept
{
	const watch_table t = ops.watchers(o);
	polled p[MAX_POLLED];
	u64 seen[MAX_POLLED];
	const u32 n = ops.events(o, p);
	u32 arms = 0;

	for (u32 k = 0; k < n; k++)
		seen[k] = p[k].e->v.load(acquire); // [E3] pairs with [E4]: the arms of all whose POLLED it is
	for (u32 i = 0; i < t.nr; i++) {
		tell(o, ops, t, i, mask, more);
		arms |= watch_arms(t.words[i].load(relaxed)); // whoever arms later has another stamp
	}
	for (u32 k = 0; k < n; k++)
		calm(p[k], seen[k], arms);
}

void watch_tell_all(ch_segment *seg, u32 as, const watch_table &t) noexcept
{
	for (u32 i = 0; i < t.nr; i++) {
		const u64 w = t.words[i].load(acquire); // [Y4] pairs with [Y3]
		if (watch_owner(w) != NOBODY)
			mark(seg, as, t.refs[i].index.load(relaxed), t.refs[i].tag.load(acquire), watch_member(w)); // [Y4]
	}
}

// ---- marks

static u32 leaves_of(u32 nr_members) noexcept
{
	return (nr_members + 63) / 64;
}

u64 marks_bytes(u32 nr_members, u32 max_peers) noexcept
{
	const u64 nr = leaves_of(nr_members), nr_mid = nr > 64 ? (nr + 63) / 64 : 0;

	return sizeof(poll_set_header) + object_bits_bytes(max_peers) + (nr + nr_mid) * 8;
}

bool marks_open(watch_marks &m, u8 *at, u64 len, u32 max_peers) noexcept
{
	poll_set_header *h = reinterpret_cast<poll_set_header *>(at);

	if (len < sizeof(*h) || h->object.kind != POLL_SET_KIND)
		return false;
	const u32 nr = *const_cast<const volatile u32 *>(&h->nr_members); // once: a hostile peer may change it
	if (nr == 0 || nr > MAX_MEMBERS || marks_bytes(nr, max_peers) > len)
		return false;
	m.h = h;
	m.leaf = reinterpret_cast<shared<u64> *>(at + sizeof(*h) + object_bits_bytes(max_peers));
	m.nr_leaf = leaves_of(nr);
	m.mid = m.nr_leaf > 64 ? m.leaf + m.nr_leaf : nullptr;
	return true;
}

void marks_set(const watch_marks &m, u32 member) noexcept
{
	const u32 i = member / 64;

	if (i >= m.nr_leaf)
		return;
	// [Y1] pairs with [Y2] in watch.h. Each step is done even where its bit is there already: who set it may have died
	// on its way up, or a waiter may just be on its way down.
	m.leaf[i].fetch_or(u64{1} << (member % 64), acq_rel);
	CH_CRASH_POINT(mark_leaf);
	if (m.mid)
		m.mid[i / 64].fetch_or(u64{1} << (i % 64), acq_rel); // [Y1]
	m.h->top.fetch_or(u64{1} << (m.mid ? i / 64 : i), acq_rel); // [Y1]
	CH_CRASH_POINT(mark_top);
	event_notify(m.h->ready, 1);
}

static bool is_sound(u8 *at, u64 len, u32 max_peers) noexcept
{
	watch_marks m;

	return marks_open(m, at, len, max_peers);
}

static bool open(ch_object *) noexcept
{
	return true; // only its creator has a handle
}

static void wake(ch_segment *, u32, const block_place &b) noexcept
{
	event_wake(reinterpret_cast<poll_set_header *>(b.addr)->ready, EVERYBODY);
}

const object_kind poll_set_kind = {
	.id = POLL_SET_KIND,
	.name = "poll set",
	.header_len = sizeof(poll_set_header),
	.is_sound = is_sound,
	.open = open,
	.end = wake,
	.wake = wake,
	.sweep = nullptr,
	.leave = nullptr,
	.drain = nullptr,
};

} // namespace ch::core

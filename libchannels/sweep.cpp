// SPDX-License-Identifier: Apache-2.0
// sweep.cpp - what is done when a process has died.
//
// One process is elected per dead one: it puts its own name into the slot's sweeper word, and if it dies too another
// takes over. Every step may be done twice. The order, and why:
//   1. runs that were being formed or dissolved   so that blocks can be found
//   2. objects; rings: tombstones, redelivery, INCHAN   before blocks: a sent block is kept if its message is committed
//   3. blocks                                     all that is still the dead one's
//   4. wake everybody                             it may have died between a commit and its wake-up
//   5. its bit among the attached                 last, for the bit keeps the object's memory from being freed
//   6. its slot                                   only now may the index have a new tenant: before, the new tenant's
//                                                 claims would look like the dead one's
#include "config.h"
#include "sweep.h"
#include "crash.h"
#include "event.h"
#include "object.h"
#include "peer.h"

namespace ch::core {

static constexpr i64 PATIENCE_NS = 1000000000; // longer than a busy machine keeps a process waiting for its turn

static bool is_bit_set(const object_kind &k, const block_place &b, u32 i) noexcept
{
	return object_bits(k, b.addr)[i / 64].load(acquire) >> (i % 64) & 1; // [K2] pairs with [K1] in object.cpp
}

// ---- objects that nobody is attached to

bool hazard_set(shared<u64> &hazard, const block_place &b, u64 tag, bool is_dying_ok) noexcept
{
	// seq_cst here and in object_finish: of "I look at it" and "I free it" one must see the other.
	hazard.store(b.index + 1, seq_cst);
	CH_CRASH_POINT(object_hazard);
	const u64 w = b.word->load(seq_cst);
	const block_state st = block_state_of(w);

	return (st == B_OBJECT || (is_dying_ok && st == B_DYING)) && (tag == 0 || block_tag(w) == tag);
}

void hazard_clear(ch_segment *seg, u32 as, shared<u64> &hazard, const block_place &b) noexcept
{
	hazard.store(0, seq_cst);
	object_finish(seg, as, b);
}

static bool is_attached(ch_segment *seg, const object_kind &k, const block_place &b) noexcept
{
	for (u32 i = 0; i <= seg->max_peers / 64; i++)
		if (object_bits(k, b.addr)[i].load(seq_cst) != 0) // [K2] pairs with [K1] in object.cpp, as there
			return true;
	return false;
}

static bool is_in_use(ch_segment *seg, const object_kind &k, const block_place &b) noexcept
{
	bool is_looked_at = false;

	for_each_peer(seg, [&](u32 i) {
		for (const shared<u64> &hazard : seg->peers[i].hazard)
			is_looked_at |= hazard.load(seq_cst) == b.index + 1; // seq_cst: see hazard_set
	});
	return is_looked_at || is_attached(seg, k, b);
}

void object_end_if_left(ch_segment *seg, const object_kind &k, const block_place &b) noexcept
{
	u64 w = b.word->load(acquire); // [B2] pairs with [B1]

	if (!k.ends_with_last || block_state_of(w) != B_OBJECT || is_attached(seg, k, b))
		return;
	// seq_cst: see sweep.h. Whoever attaches just now has set its hazard, and keeps what it then holds.
	b.word->compare_exchange_strong(w, block_word(block_tag(w), B_DYING, NOBODY), seq_cst, relaxed);
}

void object_finish(ch_segment *seg, u32 as, const block_place &b) noexcept
{
	u64 w = b.word->load(seq_cst);
	const u64 final = block_word(block_tag(w), B_FINAL, as);

	if (block_state_of(w) != B_DYING)
		return;
	const object_kind *k = object_kind_of(seg, b);
	if ((k && is_in_use(seg, *k, b)) || !b.word->compare_exchange_strong(w, final, acq_rel, relaxed))
		return; // the CAS: [B1] [B2]
	CH_CRASH_POINT(object_finishing);
	if (k && k->drain)
		k->drain(seg, b, as);
	w = final;
	b.word->compare_exchange_strong(w, block_word(block_tag(w), B_FREE, NOBODY), release, relaxed); // [B1] pairs with [B2]
	event_notify(seg->pool.hdr->freed, EVERYBODY);
}

// ---- one dead peer

static void sweep_object(ch_segment *seg, const block_place &b, u32 dead) noexcept
{
	const object_kind *k = object_kind_of(seg, b);

	if (k && k->sweep && is_bit_set(*k, b, dead))
		k->sweep(seg, b, dead);
}

// Ends what was to end with the dead one, completes what it may have died in, wakes everybody, takes its bit away.
static void wake_object(ch_segment *seg, const block_place &b, u32 dead) noexcept
{
	const object_kind *k = object_kind_of(seg, b);
	u64 w = b.word->load(acquire); // [B2] pairs with [B1]

	if (!k)
		return;
	if (!is_bit_set(*k, b, dead))
		object_end_if_left(seg, *k, b); // it may have died between taking its bit away and this
	const bool is_creator = reinterpret_cast<const object_header *>(b.addr)->creator == dead;
	if (!is_creator && !is_bit_set(*k, b, dead))
		return;
	if (is_creator && block_state_of(w) == B_OBJECT) // seq_cst: see sweep.h
		b.word->compare_exchange_strong(w, block_word(block_tag(w), B_DYING, NOBODY), seq_cst, relaxed);
	if (block_state_of(b.word->load(acquire)) == B_DYING) // [B2]
		k->end(seg, dead, b);
	else
		k->wake(seg, dead, b);
	CH_CRASH_POINT(sweep_woken);
	object_bits(*k, b.addr)[dead / 64].fetch_and(~(u64{1} << (dead % 64)), seq_cst); // [K1] pairs with [K2]
	object_end_if_left(seg, *k, b);
}

template <class Fn> static void for_each_object(ch_segment *seg, u32 as, Fn fn) noexcept
{
	shared<u64> &hazard = seg->peers[as].hazard[0];

	for_each_block(seg->pool.map, [&](const block_place &b, u64 w) {
		if (block_state_of(w) != B_OBJECT && block_state_of(w) != B_DYING)
			return;
		if (hazard_set(hazard, b, block_tag(w), true))
			fn(b);
		hazard_clear(seg, as, hazard, b);
	});
}

static void sweep_block(ch_segment *seg, const block_place &b, u64 w, u32 dead) noexcept
{
	if (block_owner(w) != dead || block_state_of(w) == B_NONE)
		return;
	const block_state to = block_state_of(w) == B_FINAL ? B_DYING : B_FREE;
	b.word->compare_exchange_strong(w, block_word(block_tag(w), to, NOBODY), acq_rel, relaxed); // [B1] [B2]
	CH_CRASH_POINT(sweep_block_done);
	if (to == B_DYING)
		object_finish(seg, dead, b);
}

void sweep_wake_all(ch_segment *seg, u32 me) noexcept
{
	if (pool_use(seg) < 0)
		return;
	for_each_object(seg, me, [&](const block_place &b) {
		const object_kind *k = object_kind_of(seg, b);
		if (k)
			k->wake(seg, me, b);
	});
	event_wake(seg->pool.hdr->freed, EVERYBODY);
}

// The slot's hazards and name are ours to use, for we may have none yet: its process is gone, or we are it and none of our
// calls looks at an object now.
static void sweep_pool(ch_segment *seg, u32 dead) noexcept
{
	if (pool_use(seg) < 0)
		return;
	for (shared<u64> &h : seg->peers[dead].hazard)
		h.store(0, seq_cst); // what it kept from being freed is met again below
	run_sweep(seg->pool.map, dead);
	for_each_object(seg, dead, [&](const block_place &b) { sweep_object(seg, b, dead); });
	CH_CRASH_POINT(sweep_rings_done);
	for_each_block(seg->pool.map, [&](const block_place &b, u64 w) { sweep_block(seg, b, w, dead); });
	for_each_object(seg, dead, [&](const block_place &b) { wake_object(seg, b, dead); });
	event_wake(seg->pool.hdr->freed, EVERYBODY);
}

static bool elect(peer_slot &slot, u64 id) noexcept
{
	u64 s = slot.sweeper.load(acquire); // [W2] pairs with [W1]

	if (s != 0 && s != peer_self() && peer_is_alive(s))
		return false;
	if (!slot.sweeper.compare_exchange_strong(s, peer_self(), acq_rel, relaxed)) // [W1] pairs with [W2]
		return false;
	if (slot.id.load(acquire) == id) // [P2] pairs with [P1] in segment.cpp
		return true;
	slot.sweeper.store(0, release); // [W1] somebody finished it meanwhile
	return false;
}

static void finish_sweep(ch_segment *seg, u32 i, u64 id) noexcept
{
	peer_slot &slot = seg->peers[i];

	seg->used[i / 64].fetch_and(~(u64{1} << (i % 64)), acq_rel); // nothing rests on it: see used_bytes
	CH_CRASH_POINT(sweep_slot_unmarked);
	slot.id.compare_exchange_strong(id, 0, acq_rel, relaxed); // [P1] pairs with [P2]
	CH_CRASH_POINT(sweep_slot_freed);
	slot.sweeper.store(0, release); // [W1] pairs with [W2]
}

bool sweep_peer(ch_segment *seg, u32 i) noexcept
{
	if (i == NOBODY || i > seg->max_peers) // read in shared memory
		return false;
	registry_lock lock;
	peer_slot &slot = seg->peers[i];
	u64 id;

	for (;;) { // again if the election was over a tenant that is gone, and its successor is dead too
		id = slot.id.load(acquire); // [P2] pairs with [P1] in segment.cpp
		if (id == 0 || id == peer_self() || peer_is_alive(id))
			return false;
		if (elect(slot, id))
			break;
		if (slot.id.load(acquire) == id) // [P2] another, living process is at it
			return false;
	}
	CH_CRASH_POINT(sweep_elected);
	seg->used[i / 64].fetch_or(u64{1} << (i % 64), seq_cst); // it may have died without: before we use its hazards
	sweep_pool(seg, i);
	// Sweeps that it died in: of all slots, for it may have taken the mark of one away already; and before its own slot
	// goes, so that whoever takes this sweep over comes by them too.
	for (u32 k = 1; k <= seg->max_peers; k++)
		if (seg->peers[k].sweeper.load(acquire) == id) // [W2] pairs with [W1]
			sweep_peer(seg, k);
	finish_sweep(seg, i, id);
	return true;
}

int sweep_dead(ch_segment *seg) noexcept
{
	registry_lock lock;
	int n = 0;

	for_each_peer(seg, [&](u32 i) {
		n += seg->peers[i].id.load(relaxed) != 0 && sweep_peer(seg, i); // looked at again there
	});
	return n;
}

// By another process, which lives, of one that is dead.
static bool sweep_is_under_way(const ch_segment *seg) noexcept
{
	bool is_one = false;

	for_each_peer(seg, [&](u32 i) { // without its bit in used, or its name, it is done
		const u64 by = seg->peers[i].sweeper.load(acquire), id = peer_of(seg, i); // [W2] pairs with [W1]

		is_one |= by != 0 && by != peer_self() && id != 0 && peer_is_alive(by) && !peer_is_alive(id);
	});
	return is_one;
}

int sweep_all(ch_segment *seg) noexcept
{
	const i64 late = now_ns() + PATIENCE_NS;
	int n = sweep_dead(seg);

	for (const timespec nap{0, 20000}; sweep_is_under_way(seg); n += sweep_dead(seg)) {
		if (now_ns() > late)
			return fail(-ETIMEDOUT, "segment %s: the process that sweeps a dead peer does not end; is it stopped?",
				    seg->name);
		nanosleep(&nap, nullptr);
	}
	return n;
}

void sweep_self(ch_segment *seg) noexcept
{
	const u32 me = seg->me.load(relaxed); // under the lock

	sweep_pool(seg, me);
	finish_sweep(seg, me, peer_self());
}

} // namespace ch::core

// SPDX-License-Identifier: Apache-2.0
// sweep.cpp - what is done when a process has died.
//
// One process is elected per dead one: it puts its own name into the slot's sweeper word, and if it dies too another
// takes over. Every step may be done twice. The order, and why:
//   1. runs that were being formed or dissolved   so that blocks can be found
//   2. rings: tombstones, redelivery, INCHAN      before blocks: a sent block is kept if its message is committed
//   3. blocks                                     all that is still the dead one's
//   4. wake everybody                             it may have died between a commit and its wake-up
//   5. its bit among the attached                 last, for the bit keeps the channel's memory from being freed
//   6. its slot                                   only now may the index have a new tenant: before, the new tenant's
//                                                 claims would look like the dead one's
#include "config.h"
#include "sweep.h"
#include "channel.h"
#include "crash.h"
#include "event.h"
#include "peer.h"
#include "ring.h"

namespace ch::core {

static bool is_bit_set(const ring &r, u32 i) noexcept
{
	return ring_bits(r)[i / 64].load(acquire) >> (i % 64) & 1; // [K2] pairs with [K1] in channel.cpp
}

// ---- channels that nobody is attached to

bool hazard_set(shared<u64> &hazard, const block_place &b, u64 tag, bool is_dying_ok) noexcept
{
	// seq_cst here and in channel_finish: of "I look at it" and "I free it" one must see the other.
	hazard.store(b.index + 1, seq_cst);
	CH_CRASH_POINT(channel_hazard);
	const u64 w = b.word->load(seq_cst);
	const block_state st = block_state_of(w);

	return (st == B_CHANNEL || (is_dying_ok && st == B_DYING)) && (tag == 0 || block_tag(w) == tag);
}

void hazard_clear(ch_segment *seg, shared<u64> &hazard, const block_place &b) noexcept
{
	hazard.store(0, seq_cst);
	channel_finish(seg, b);
}

static bool is_in_use(ch_segment *seg, const ring &r, u64 index) noexcept
{
	for (u32 i = 1; i <= seg->max_peers; i++)
		if (seg->peers[i].hazard.load(seq_cst) == index + 1)
			return true;
	for (u32 k = 0; k <= seg->max_peers / 64; k++)
		if (ring_bits(r)[k].load(acquire) != 0) // [K2] pairs with [K1] in channel.cpp
			return true;
	return false;
}

void channel_finish(ch_segment *seg, const block_place &b) noexcept
{
	const u32 me = seg->me.load(relaxed); // under the lock
	u64 w = b.word->load(seq_cst);
	const u64 final = block_word(block_tag(w), B_FINAL, me);
	ring r;

	if (block_state_of(w) != B_DYING || me == NOBODY)
		return;
	const bool is_sound = ring_open(r, b.addr, b.len, seg->max_peers);
	if ((is_sound && is_in_use(seg, r, b.index)) || !b.word->compare_exchange_strong(w, final, acq_rel, relaxed))
		return; // the CAS: [B1] [B2]
	CH_CRASH_POINT(channel_finishing);
	if (is_sound)
		ring_drain(r, seg->pool.map, me);
	w = final;
	b.word->compare_exchange_strong(w, block_word(block_tag(w), B_FREE, NOBODY), release, relaxed); // [B1] pairs with [B2]
	event_notify(seg->pool.hdr->freed, EVERYBODY);
}

// ---- one dead peer

static void sweep_channel(ch_segment *seg, const block_place &b, u32 dead) noexcept
{
	ring r;

	if (!ring_open(r, b.addr, b.len, seg->max_peers) || !is_bit_set(r, dead))
		return;
	ring_sweep(r, seg->pool.map, dead);
}

// Ends what was to end with the dead one, completes what it may have died in, wakes everybody, takes its bit away.
static void wake_channel(ch_segment *seg, const block_place &b, u32 dead) noexcept
{
	u64 w = b.word->load(acquire); // [B2] pairs with [B1]
	ring r;

	if (!ring_open(r, b.addr, b.len, seg->max_peers) || (!is_bit_set(r, dead) && r.h->creator != dead))
		return;
	if (r.h->creator == dead && block_state_of(w) == B_CHANNEL) // seq_cst: see sweep.h
		b.word->compare_exchange_strong(w, block_word(block_tag(w), B_DYING, NOBODY), seq_cst, relaxed);
	if (block_state_of(b.word->load(acquire)) == B_DYING) // [B2]
		r.h->state.fetch_or(CHANNEL_DESTROYED, release);
	event_wake(r.h->not_empty, EVERYBODY);
	event_wake(r.h->not_full, EVERYBODY);
	CH_CRASH_POINT(sweep_woken);
	ring_bits(r)[dead / 64].fetch_and(~(u64{1} << (dead % 64)), acq_rel); // [K1] pairs with [K2]
}

template <class Fn> static void for_each_channel(ch_segment *seg, shared<u64> &hazard, Fn fn) noexcept
{
	for_each_block(seg->pool.map, [&](const block_place &b, u64 w) {
		if (block_state_of(w) != B_CHANNEL && block_state_of(w) != B_DYING)
			return;
		if (hazard_set(hazard, b, block_tag(w), true))
			fn(b);
		hazard_clear(seg, hazard, b);
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
		channel_finish(seg, b);
}

// The slot's hazard is ours to use: its process is gone.
static void sweep_pool(ch_segment *seg, u32 dead) noexcept
{
	shared<u64> &hazard = seg->peers[dead].hazard;

	if (pool_use(seg) < 0)
		return;
	run_sweep(seg->pool.map, dead);
	for_each_channel(seg, hazard, [&](const block_place &b) { sweep_channel(seg, b, dead); });
	CH_CRASH_POINT(sweep_rings_done);
	for_each_block(seg->pool.map, [&](const block_place &b, u64 w) { sweep_block(seg, b, w, dead); });
	for_each_channel(seg, hazard, [&](const block_place &b) { wake_channel(seg, b, dead); });
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

static void finish_sweep(peer_slot &slot, u64 id) noexcept
{
	slot.hazard.store(0, seq_cst);
	slot.id.compare_exchange_strong(id, 0, acq_rel, relaxed); // [P1] pairs with [P2]
	CH_CRASH_POINT(sweep_slot_freed);
	slot.sweeper.store(0, release); // [W1] pairs with [W2]
}

bool sweep_peer(ch_segment *seg, u32 i) noexcept
{
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
	sweep_pool(seg, i);
	finish_sweep(slot, id);
	for (u32 k = 1; k <= seg->max_peers; k++) // sweeps that it died in
		if (seg->peers[k].sweeper.load(acquire) == id) // [W2] pairs with [W1]
			sweep_peer(seg, k);
	return true;
}

int sweep_dead(ch_segment *seg) noexcept
{
	registry_lock lock;
	int n = 0;

	for (u32 i = 1; i <= seg->max_peers; i++)
		n += seg->peers[i].id.load(relaxed) != 0 && sweep_peer(seg, i); // looked at again there
	return n;
}

void sweep_self(ch_segment *seg) noexcept
{
	const u32 me = seg->me.load(relaxed); // under the lock

	sweep_pool(seg, me);
	finish_sweep(seg->peers[me], peer_self());
}

} // namespace ch::core

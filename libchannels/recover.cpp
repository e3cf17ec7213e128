// SPDX-License-Identifier: Apache-2.0
// recover.cpp - what dead and leaving processes have left in a ring, and who gets it.
#include "config.h"
#include "spsc.h"

namespace ch::core {

// ---- messages that readers left

static bool find_left(const lane &r, u64 &out_ticket) noexcept
{
	bool is_found = false;

	for (u64 i = 0; i <= r.mask; i++) {
		const u64 w = r.at(i).w.load(acquire), t = word_ticket(w); // [A1] pairs with [R1] in ring.h
		if (slot_state_of(w) != S_RECOV ||
		    r.q[i].load(acquire) != ((t + r.lap) | NOBODY)) // [C2] pairs with [C1]
			continue;
		if (!is_found || static_cast<i64>(t - out_ticket) < 0)
			out_ticket = t;
		is_found = true;
	}
	return is_found;
}

bool ring_find_recovered(ring &r, lane *&out_lane, u64 &out_ticket) noexcept
{
	u64 mark = r.h->state.load(acquire); // [V2] pairs with [V1]: who sees the mark sees what was offered before it

	out_lane = &r.urgent;
	if (r.urgent.slots && find_left(r.urgent, out_ticket))
		return true;
	out_lane = &r;
	if (!r.is_spsc && find_left(r, out_ticket))
		return true;
	if (mark & CHANNEL_RECOV) // unless it was set anew: layout.h
		r.h->state.compare_exchange_strong(mark, mark & ~u64{CHANNEL_RECOV}, acq_rel, relaxed);
	return false;
}

static bool has_unreleased(const lane &r) noexcept
{
	for (u64 i = 0; i <= r.mask; i++) {
		const u64 w = r.at(i).w.load(acquire), x = r.q[i].load(acquire); // [A1] with [R1], [C2] pairs with [C1]
		if ((slot_state_of(w) == S_FULL || slot_state_of(w) == S_RECOV) &&
		    word_ticket(x) == word_ticket(w) + r.lap)
			return true;
	}
	return false;
}

bool ring_has_unreleased(const ring &r) noexcept
{
	return !r.is_spsc && (has_unreleased(r) || (r.urgent.slots && has_unreleased(r.urgent)));
}

bool ring_claim_recovered(const lane &r, u64 ticket, u32 me) noexcept
{
	u64 x = (ticket + r.lap) | NOBODY;

	CH_CRASH_POINT(recover_found);
	if (!r.q[r.index(ticket)].compare_exchange_strong(x, (ticket + r.lap) | me, acq_rel, relaxed)) // [C1]
		return false;
	CH_CRASH_POINT(recover_claimed);
	return true;
}

static void announce(const lane &r) noexcept
{
	u64 old = r.h->state.load(relaxed); // the CAS tells whether it still is so

	while (!r.h->state.compare_exchange_weak(old, (old | CHANNEL_RECOV) + CHANNEL_RECOV_ONCE, acq_rel, relaxed))
		; // [V1] pairs with [V2]
	CH_CRASH_POINT(recov_announced);
}

// If we die in it, our sweeper goes on from where we were.
void ring_requeue(const lane &r, u64 ticket) noexcept
{
	r.of(ticket).w.store(ticket | S_RECOV, release); // [R1] pairs with [A1]: the message is as it was
	CH_CRASH_POINT(requeue_marked);
	r.q[r.index(ticket)].store((ticket + r.lap) | NOBODY, release); // [C1] pairs with [C2]: it may be claimed again
	CH_CRASH_POINT(requeue_offered);
	announce(r);
	ring_requeued(r);
}

// ---- blocks of messages

// Of a slot that cannot change under us.
static bool read_ref(const lane &r, u64 i, block_ref &out) noexcept
{
	const slot &s = r.at(i);

	if (!(s.what.load(relaxed) & IN_BLOCK)) // published by the slot word
		return false;
	std::memcpy(&out, s.data, sizeof(out));
	return true;
}

// Whether the slot with this word holds a message that has not been delivered.
static bool is_message(const lane &r, u64 w) noexcept
{
	if (!r.is_spsc)
		return slot_state_of(w) == S_FULL || slot_state_of(w) == S_RECOV;
	const u64 t = word_ticket(w), head = word_ticket(r.ends->head.load(acquire)); // [D2] pairs with [D1] in spsc.h
	return slot_state_of(w) == S_FULL && t - head < r.lap && !spsc_is_past_end(r, t);
}

static bool is_void(const lane &r, u64 w) noexcept
{
	return r.is_spsc && slot_state_of(w) == S_FULL && spsc_is_past_end(r, word_ticket(w));
}

// Gives the block of a message back to it, if it is in state as owner's.
static void give_to_message(const lane &r, const run_map &m, u64 i, block_state as, u32 owner) noexcept
{
	block_ref ref;
	block_place b;

	if (!read_ref(r, i, ref) || !block_find(m, ref.index, b))
		return;
	u64 old = block_word(ref.tag, as, owner);
	if (b.word->compare_exchange_strong(old, block_word(ref.tag, B_INCHAN, NOBODY), acq_rel, relaxed)) // [B1] [B2]
		CH_CRASH_POINT(sweep_block_given_back);
}

bool block_look(const run_map &m, const block_ref &ref, block_place &out) noexcept
{
	if (!block_find(m, ref.index, out))
		return false;
	const u64 w = out.word->load(acquire); // [B2] pairs with [B1] in run.cpp
	return block_tag(w) == ref.tag && (block_state_of(w) == B_SENDING || block_state_of(w) == B_INCHAN);
}

bool block_take(const run_map &m, const block_ref &ref, u32 me, block_place &out) noexcept
{
	if (!block_find(m, ref.index, out))
		return false;
	u64 w = out.word->load(acquire); // [B2] pairs with [B1]
	do                               // its sender, or INCHAN when the sender's sweeper is at it in this moment
		if (block_tag(w) != ref.tag || (block_state_of(w) != B_SENDING && block_state_of(w) != B_INCHAN))
			return false;
	while (!out.word->compare_exchange_weak(w, block_word(ref.tag, B_OWNED, me), acq_rel, acquire)); // [B1] [B2]
	return true;
}

// ---- the dead

// A producer died after its claim: its ticket becomes a tombstone, unless it had committed. Any helper may do
// this, for EMPTY(t) never comes back.
static void bury(const lane &r, u64 i, u64 x) noexcept
{
	const u64 t = word_ticket(x) - r.lap;
	u64 w = t | S_EMPTY;

	if (r.at(i).w.compare_exchange_strong(w, t | S_TOMB, acq_rel, relaxed))
		CH_CRASH_POINT(sweep_tombed);
}

// A consumer died after its claim, or goes with messages that it did not acknowledge. In this order: block, slot state,
// claim; the mark comes at the end of the sweep. Only the one elected sweeper of this peer does this, or the peer
// itself: (t+N, dead) may be claimed by the next tenant of the index.
static void redeliver(const lane &r, const run_map &m, u64 i, u64 x) noexcept
{
	const u64 t = word_ticket(x) - r.lap;
	slot &s = r.at(i);
	u64 w = s.w.load(acquire); // [A1] pairs with [R1] in ring.h

	if (word_ticket(w) != t)
		return; // it had delivered
	if (slot_state_of(w) == S_TOMB) {
		s.w.compare_exchange_strong(w, word_ticket(x) | S_EMPTY, acq_rel, relaxed);
		return;
	}
	if (slot_state_of(w) != S_FULL && slot_state_of(w) != S_RECOV)
		return;
	give_to_message(r, m, i, B_OWNED, claim_owner(x)); // it may be the reader's by now
	if (slot_state_of(w) == S_FULL && !s.w.compare_exchange_strong(w, t | S_RECOV, acq_rel, relaxed))
		return;
	CH_CRASH_POINT(sweep_recov_marked);
	r.q[i].compare_exchange_strong(x, word_ticket(x) | NOBODY, acq_rel, relaxed); // [C1] pairs with [C2] in ring.h
	CH_CRASH_POINT(sweep_recov_offered);
}

// Blocks that a peer sent and nobody has received yet lose their owner but stay in their messages.
static void keep_sent_blocks(const lane &r, const run_map &m, u32 sender) noexcept
{
	for (u64 i = 0; i <= r.mask; i++)
		if (is_message(r, r.at(i).w.load(acquire))) // [A1] pairs with [R1] in ring.h
			give_to_message(r, m, i, B_SENDING, sender);
}

static void give_claims_back(const lane &r, const run_map &m, u32 peer) noexcept
{
	u64 t;

	for (u64 i = 0; i <= r.mask; i++) {
		const u64 q = r.q[i].load(acquire); // [C2] pairs with [C1] in ring.h
		if (claim_owner(q) == peer)
			redeliver(r, m, i, q);
	}
	// Also what another sweeper, or the dead one itself, offered and could not announce any more.
	if (find_left(r, t))
		announce(r);
}

static void sweep_lane(const lane &r, const run_map &m, u32 dead) noexcept
{
	for (u64 i = 0; i <= r.mask; i++) {
		const u64 p = r.p[i].load(acquire); // [C2] pairs with [C1] in ring.h
		if (claim_owner(p) == dead)
			bury(r, i, p);
	}
	give_claims_back(r, m, dead);
	keep_sent_blocks(r, m, dead);
}

// ---- the roles of a channel with one sender and one receiver

void ring_leave_role(const ring &r, shared<u64> &role, u64 why, u32 peer) noexcept
{
	u64 x = role.load(acquire); // [T2] pairs with [T1]

	if ((x & ~ROLE_OFFERED) != peer)
		return;
	if (r.flags & CH_CHANNEL_HANGS_UP)
		r.h->state.fetch_or(why, acq_rel); // [V1] pairs with [V2]: who sees it sees all that was sent before
	CH_CRASH_POINT(role_ended);
	role.compare_exchange_strong(x, 0, acq_rel, relaxed); // [T1] pairs with [T2]
}

static void sweep_spsc(const ring &r, const run_map &m, u32 dead) noexcept
{
	if ((r.h->receiver.load(acquire) & ~ROLE_OFFERED) == dead) // [T2] pairs with [T1]
		for (u64 i = 0; i <= r.mask; i++)
			if (is_message(r, r.at(i).w.load(acquire))) // [A1] pairs with [R1] in spsc.h
				give_to_message(r, m, i, B_OWNED,
						dead); // it had taken it over, and not delivered the message
	keep_sent_blocks(r, m, dead);
	ring_leave_role(r, r.h->sender, CHANNEL_SENDER_DIED, dead);
	ring_leave_role(r, r.h->receiver, CHANNEL_RECEIVER_DIED, dead);
}

// ---- all of it

void ring_sweep(const ring &r, const run_map &m, u32 dead) noexcept
{
	if (r.is_spsc) {
		sweep_spsc(r, m, dead);
		return;
	}
	sweep_lane(r, m, dead);
	if (r.urgent.slots)
		sweep_lane(r.urgent, m, dead);
}

static void leave_lane(const lane &r, const run_map &m, u32 me) noexcept
{
	if (!r.is_spsc)
		give_claims_back(r, m, me);
	keep_sent_blocks(r, m, me);
}

void ring_leave(const ring &r, const run_map &m, u32 me) noexcept
{
	leave_lane(r, m, me);
	if (r.urgent.slots)
		leave_lane(r.urgent, m, me);
	ring_leave_role(r, r.h->sender, CHANNEL_SENDER_LEFT, me);
	ring_leave_role(r, r.h->receiver, CHANNEL_RECEIVER_LEFT, me);
}

static void drain_lane(const lane &r, run_map &m, u32 me) noexcept
{
	block_ref ref;
	block_place b;

	for (u64 i = 0; i <= r.mask; i++) {
		const u64 w = r.at(i).w.load(acquire); // [A1] pairs with [R1]
		// Past the end of an SPSC channel too: a sweep may have kept the block of what became void in the same moment.
		if ((is_message(r, w) || is_void(r, w)) && read_ref(r, i, ref) && block_take(m, ref, me, b))
			block_free(m, b, me);
	}
}

void ring_drain(const ring &r, run_map &m, u32 me) noexcept
{
	drain_lane(r, m, me);
	if (r.urgent.slots)
		drain_lane(r.urgent, m, me);
}

} // namespace ch::core

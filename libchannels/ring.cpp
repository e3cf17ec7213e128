// SPDX-License-Identifier: Apache-2.0
// ring.cpp - the ring off the message path: geometry, closing, and what the dead leave behind.
#include "config.h"
#include "ring.h"

namespace ch::core {

// ---- geometry

static constexpr u64 round_up(u64 n, u64 to) { return (n + to - 1) / to * to; }

static u64 bits_bytes(u32 max_peers) noexcept
{
	return round_up((u64{max_peers} + 1 + 63) / 64 * 8, LINE);
}

static u64 claims_bytes(u32 lg_slots) noexcept
{
	return round_up((u64{1} << lg_slots) * 8, LINE);
}

u64 ring_bytes(u32 lg_slots, u32 stride, u32 max_peers) noexcept
{
	return sizeof(channel_header) + bits_bytes(max_peers) + 2 * claims_bytes(lg_slots) + (u64{stride} << lg_slots);
}

void ring_format(u8 *at, u32 lg_slots, u32 stride, u32 max_peers) noexcept
{
	channel_header *h = reinterpret_cast<channel_header *>(at);

	std::memset(at, 0, ring_bytes(lg_slots, stride, max_peers)); // EMPTY(0), no claims, no waiters
	h->magic = CHANNEL_MAGIC;
	h->lg_slots = lg_slots;
	h->stride = stride;
	h->max_peers = max_peers;
	h->bits_off = sizeof(channel_header);
	h->p_off = h->bits_off + bits_bytes(max_peers);
	h->q_off = h->p_off + claims_bytes(lg_slots);
	h->slots_off = h->q_off + claims_bytes(lg_slots);
	h->len = ring_bytes(lg_slots, stride, max_peers);
}

bool ring_open(ring &r, u8 *at, u64 block_len, u32 max_peers) noexcept
{
	channel_header *h = reinterpret_cast<channel_header *>(at);
	const u32 lg = h->lg_slots, stride = h->stride; // read once

	if (block_len < sizeof(*h) || h->magic != CHANNEL_MAGIC || lg < 1 || lg > 20 || stride < sizeof(slot) ||
	    stride > PAGE || stride % LINE != 0 || h->max_peers != max_peers ||
	    ring_bytes(lg, stride, max_peers) > block_len)
		return false;
	r.h = h;
	r.p = reinterpret_cast<shared<u64> *>(at + sizeof(*h) + bits_bytes(max_peers));
	r.q = r.p + claims_bytes(lg) / 8;
	r.slots = reinterpret_cast<u8 *>(r.q) + claims_bytes(lg);
	r.mask = (u64{1} << lg) - 1;
	r.lg = lg;
	r.stride = stride;
	r.inline_max = stride - SLOT_HEAD;
	return true;
}

// ---- looking

// The first ticket that no claim in words has taken, from a hint on.
static u64 first_untaken(const ring &r, const shared<u64> *words, const shared<u64> &hint) noexcept
{
	u64 t = hint.load(acquire); // [H2] pairs with [H1]

	for (u64 k = 0; k <= r.mask + 1; k++) {
		const u64 n = claim_count(words[t & r.mask].load(relaxed)); // a picture of a moment
		if (n <= r.cycle(t))
			break;
		t = ((n - 1) << r.lg) + (t & r.mask) + 1;
	}
	return t;
}

u64 ring_count(const ring &r) noexcept
{
	const u64 head = first_untaken(r, r.q, r.h->head), tail = first_untaken(r, r.p, r.h->tail);
	const bool is_sealed = tail > 0 && claim_owner(r.p[(tail - 1) & r.mask].load(relaxed)) == CLOSER;
	const u64 end = tail - is_sealed, n = end > head ? end - head : 0;

	return n > r.mask + 1 ? r.mask + 1 : n;
}

u32 ring_blocker_of_send(const ring &r) noexcept
{
	const u64 t = r.send_at.load(relaxed), i = t & r.mask, c = r.cycle(t); // a guess whom to look at
	const u64 x = r.q[i].load(relaxed);

	return c > 0 && slot_cycle(r.at(i).w.load(relaxed)) + 1 == c && claim_count(x) == c ? claim_owner(x) : NOBODY;
}

u32 ring_blocker_of_recv(const ring &r) noexcept
{
	const u64 t = r.recv_at.load(relaxed), i = t & r.mask, c = r.cycle(t); // a guess whom to look at
	const u64 w = r.at(i).w.load(relaxed), x = r.p[i].load(relaxed), y = r.q[i].load(relaxed);

	if (w == slot_word(c, S_EMPTY) && claim_count(x) == c + 1 && claim_owner(x) != CLOSER)
		return claim_owner(x);
	return c > 0 && slot_cycle(w) + 1 == c && claim_count(y) == c ? claim_owner(y) : NOBODY;
}

// ---- receiving where there is no message

// Seals the end of a closing channel by claiming the next send for nobody, so that no late message slips in.
static int seal(const ring &r, u64 t) noexcept
{
	const u64 i = t & r.mask, c = r.cycle(t);
	u64 x = r.p[i].load(acquire); // [C2] pairs with [C1] in ring.h

	if (claim_count(x) == c && r.p[i].compare_exchange_strong(x, claim_word(c + 1, CLOSER), acq_rel, acquire)) // [C1]
		return -EPIPE;
	return claim_count(x) == c + 1 && claim_owner(x) == CLOSER ? -EPIPE : -EAGAIN; // it is still being written
}

static int skip_tombstone(const ring &r, u32 me, u64 &t, u64 claim) noexcept
{
	const u64 i = t & r.mask, c = r.cycle(t);

	if (r.q[i].compare_exchange_strong(claim, claim_word(c + 1, me), acq_rel, relaxed)) { // [C1] pairs with [C2]
		CH_CRASH_POINT(recv_tomb_skipping);
		r.at(i).w.store(slot_word(c + 1, S_EMPTY), release); // [R2] pairs with [A2] in ring.h
		event_notify(r.h->not_full, 1);
		t++;
	}
	return RING_AGAIN;
}

int ring_no_message(ring &r, u32 me, u64 &t, u64 claim, u64 w) noexcept
{
	const u64 i = t & r.mask, c = r.cycle(t);

	if (claim_count(claim) == c && w == slot_word(c, S_TOMB))
		return skip_tombstone(r, me, t, claim);
	if (claim_count(claim) == c && (w == slot_word(c, S_EMPTY) || slot_cycle(w) + 1 == c)) {
		r.recv_at.store(t, relaxed); // private hint
		if (w == slot_word(c, S_EMPTY) && (r.h->flags.load(relaxed) & CHANNEL_CLOSING)) // close() woke us for it
			return seal(r, t);
		return -EAGAIN; // empty, or its previous reader is not done
	}
	if (r.q[i].load(acquire) != claim) // [C2] pairs with [C1] in ring.h
		return RING_AGAIN;
	r.recv_at.store((claim_count(claim) << r.lg) + i, relaxed); // private hint
	return -EPROTO;
}

// ---- recovery

bool ring_find_recovered(const ring &r, u64 &out_ticket) noexcept
{
	u32 mark = r.h->recov.load(acquire); // [V2] pairs with [V1]
	u64 best = ~u64{0};
	bool is_any = false;

	for (u64 i = 0; i <= r.mask; i++) {
		const u64 w = r.at(i).w.load(acquire); // [A1] pairs with [R1] in ring.h
		if (slot_state_of(w) != S_RECOV)
			continue;
		is_any = true;
		const u64 t = slot_cycle(w) << r.lg | i;
		if (r.q[i].load(acquire) == claim_word(slot_cycle(w) + 1, NOBODY) && t < best) // [C2] pairs with [C1]
			best = t;
	}
	if (!is_any) // unless a new one has changed the mark
		r.h->recov.compare_exchange_strong(mark, 0, acq_rel, relaxed);
	out_ticket = best;
	return best != ~u64{0};
}

bool ring_claim_recovered(const ring &r, u64 ticket, u32 me) noexcept
{
	u64 x = claim_word(r.cycle(ticket) + 1, NOBODY);

	CH_CRASH_POINT(recover_found);
	if (!r.q[ticket & r.mask].compare_exchange_strong(x, claim_word(r.cycle(ticket) + 1, me), acq_rel, relaxed)) // [C1]
		return false;
	CH_CRASH_POINT(recover_claimed);
	return true;
}

static bool read_ref(const ring &r, u64 i, block_ref &out) noexcept
{
	const slot &s = r.at(i);

	if (s.kind != KIND_BLOCK)
		return false;
	std::memcpy(&out, s.data, sizeof(out));
	return true;
}

// A producer died after its claim: its ticket becomes a tombstone, unless it had committed. Any helper may do
// this, for EMPTY(c) never comes back.
static void bury(const ring &r, u64 i, u64 x) noexcept
{
	u64 w = slot_word(claim_count(x) - 1, S_EMPTY);

	if (r.at(i).w.compare_exchange_strong(w, slot_word(claim_count(x) - 1, S_TOMB), acq_rel, relaxed))
		CH_CRASH_POINT(sweep_tombed);
}

// The block of a message whose reader died may be the reader's by now: give it back to the message.
static void give_back_block(const ring &r, const run_map &m, u64 i, u32 dead) noexcept
{
	block_ref ref;
	block_place b;

	if (!read_ref(r, i, ref) || !block_find(m, ref.index, b))
		return;
	u64 old = block_word(ref.tag, B_OWNED, dead);
	b.word->compare_exchange_strong(old, block_word(ref.tag, B_INCHAN, NOBODY), acq_rel, relaxed); // [B1] [B2]
	CH_CRASH_POINT(sweep_block_given_back);
}

// A consumer died after its claim. In this order: block, slot state, mark, claim. Only then can it be taken again.
// Only the one elected sweeper of this peer does this: (c+1, dead) may be claimed by the next tenant of the index.
static void redeliver(const ring &r, const run_map &m, u64 i, u64 x) noexcept
{
	const u64 c = claim_count(x) - 1;
	slot &s = r.at(i);
	u64 w = s.w.load(acquire); // [A1] pairs with [R1] in ring.h

	if (slot_cycle(w) != c)
		return; // it had delivered
	if (slot_state_of(w) == S_TOMB) {
		s.w.compare_exchange_strong(w, slot_word(c + 1, S_EMPTY), acq_rel, relaxed);
		return;
	}
	if (slot_state_of(w) != S_FULL && slot_state_of(w) != S_RECOV)
		return;
	give_back_block(r, m, i, claim_owner(x));
	if (slot_state_of(w) == S_FULL && !s.w.compare_exchange_strong(w, slot_word(c, S_RECOV), acq_rel, relaxed))
		return;
	CH_CRASH_POINT(sweep_recov_marked);
	r.h->recov.fetch_add(1, acq_rel); // [V1] pairs with [V2]: who sees the mark sees the RECOV
	CH_CRASH_POINT(sweep_recov_announced);
	r.q[i].compare_exchange_strong(x, claim_word(c + 1, NOBODY), acq_rel, relaxed); // [C1] pairs with [C2] in ring.h
	CH_CRASH_POINT(sweep_recov_offered);
}

// Blocks that a peer sent and nobody has received yet lose their owner but stay in their messages.
static void keep_sent_block(const ring &r, const run_map &m, u64 i, u32 sender) noexcept
{
	const u64 w = r.at(i).w.load(acquire); // [A1] pairs with [R1] in ring.h
	block_ref ref;
	block_place b;

	if ((slot_state_of(w) != S_FULL && slot_state_of(w) != S_RECOV) || !read_ref(r, i, ref) ||
	    !block_find(m, ref.index, b))
		return;
	u64 old = block_word(ref.tag, B_SENDING, sender);
	b.word->compare_exchange_strong(old, block_word(ref.tag, B_INCHAN, NOBODY), acq_rel, relaxed); // [B1] [B2]
}

void ring_sweep(const ring &r, const run_map &m, u32 dead) noexcept
{
	for (u64 i = 0; i <= r.mask; i++) {
		const u64 p = r.p[i].load(acquire), q = r.q[i].load(acquire); // [C2] pairs with [C1] in ring.h
		if (claim_owner(p) == dead && claim_count(p) > 0)
			bury(r, i, p);
		if (claim_owner(q) == dead && claim_count(q) > 0)
			redeliver(r, m, i, q);
	}
	ring_leave(r, m, dead);
}

void ring_leave(const ring &r, const run_map &m, u32 me) noexcept
{
	for (u64 i = 0; i <= r.mask; i++)
		keep_sent_block(r, m, i, me);
}

void ring_drain(const ring &r, run_map &m, u32 me) noexcept
{
	block_ref ref;
	block_place b;

	for (u64 i = 0; i <= r.mask; i++) {
		const slot_state st = slot_state_of(r.at(i).w.load(acquire)); // [A1] pairs with [R1] in ring.h
		if ((st == S_FULL || st == S_RECOV) && read_ref(r, i, ref) && block_take(m, ref, me, b))
			block_free(m, b, me);
	}
}

bool block_take(const run_map &m, const block_ref &ref, u32 me, block_place &out) noexcept
{
	if (!block_find(m, ref.index, out))
		return false;
	u64 w = out.word->load(acquire); // [B2] pairs with [B1]
	do // its sender, or INCHAN when the sender's sweeper is at it in this moment
		if (block_tag(w) != ref.tag || (block_state_of(w) != B_SENDING && block_state_of(w) != B_INCHAN))
			return false;
	while (!out.word->compare_exchange_weak(w, block_word(ref.tag, B_OWNED, me), acq_rel, acquire)); // [B1] [B2]
	return true;
}

} // namespace ch::core

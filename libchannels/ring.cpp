// SPDX-License-Identifier: Apache-2.0
// ring.cpp - the ring off the message path: geometry, closing, and what the dead leave behind.
#include "config.h"
#include "ring.h"
#include "watch.h"
#include <channels/pollset.h>

namespace ch::core {

// ---- geometry

static u64 claims_bytes(u32 lg_slots) noexcept
{
	return round_up((u64{1} << lg_slots) * 8, LINE);
}

u64 ring_bytes(u32 lg_slots, u64 stride, u32 max_peers) noexcept
{
	return sizeof(channel_header) + object_bits_bytes(max_peers) + 2 * claims_bytes(lg_slots) + (stride << lg_slots);
}

static void map(ring &r, u8 *at, u32 lg, u32 stride, u32 max_peers) noexcept
{
	r.h = reinterpret_cast<channel_header *>(at);
	r.p = reinterpret_cast<shared<u64> *>(at + sizeof(*r.h) + object_bits_bytes(max_peers));
	r.q = r.p + claims_bytes(lg) / 8;
	r.slots = reinterpret_cast<u8 *>(r.q) + claims_bytes(lg);
	r.mask = (u64{1} << lg) - 1;
	r.lap = TICKET << lg;
	r.stride = stride;
	r.lg = lg;
	r.inline_max = stride - SLOT_HEAD;
}

void ring_format(ring &r, u8 *at, u32 lg_slots, u32 stride, u32 max_peers) noexcept
{
	map(r, at, lg_slots, stride, max_peers);
	r.h->lg_slots = lg_slots;
	r.h->stride = stride;
	// Nobody has met them quiet yet, so the first sleeper needs no barrier.
	r.h->not_empty.v.store(EVENT_SLEEPY, relaxed);
	r.h->not_full.v.store(EVENT_SLEEPY, relaxed);
	for (u64 i = 0; i <= r.mask; i++) { // nobody sees it yet
		r.at(i).w.store(i * TICKET | S_EMPTY, relaxed);
		r.p[i].store(i * TICKET | NOBODY, relaxed);
		r.q[i].store(i * TICKET | NOBODY, relaxed);
	}
}

bool ring_open(ring &r, u8 *at, u64 block_len, u32 max_peers) noexcept
{
	channel_header *h = reinterpret_cast<channel_header *>(at);

	if (block_len < sizeof(*h))
		return false;
	// Each is read once: a hostile peer may change it between a check and its use.
	const u32 lg = __atomic_load_n(&h->lg_slots, __ATOMIC_RELAXED);
	const u32 stride = __atomic_load_n(&h->stride, __ATOMIC_RELAXED);
	if (lg < 1 || lg > 20 || stride < sizeof(slot) || stride > PAGE || stride % LINE != 0 ||
	    ring_bytes(lg, stride, max_peers) > block_len)
		return false;
	map(r, at, lg, stride, max_peers);
	return true;
}

// ---- looking

// The first ticket that no claim in words has taken, from a hint on.
static u64 first_untaken(const ring &r, const shared<u64> *words, const shared<u64> &hint) noexcept
{
	u64 t = word_ticket(hint.load(acquire)); // [H2] pairs with [H1] in ring.h

	for (u64 k = 0; k <= r.mask + 1; k++) {
		const u64 next = word_ticket(words[r.index(t)].load(relaxed)); // a picture of a moment
		if (static_cast<i64>(next - t) <= 0)
			break;
		t = next - r.lap + TICKET;
	}
	return t;
}

u64 ring_count(const ring &r) noexcept
{
	const u64 head = first_untaken(r, r.q, r.h->head), tail = first_untaken(r, r.p, r.h->tail);
	const bool is_sealed = claim_owner(r.p[r.index(tail - TICKET)].load(relaxed)) == CLOSER;
	const i64 n = static_cast<i64>(tail - head) / static_cast<i64>(TICKET) - is_sealed, max = static_cast<i64>(r.mask) + 1;

	return static_cast<u64>(n < 0 ? 0 : n > max ? max : n);
}

static u64 skip(const ring &r, u64 x, const shared<u64> &hint) noexcept;

bool ring_has_message(const ring &r) noexcept
{
	u64 t = r.recv_at.load(relaxed), left; // private hint

	if (r.h->state.load(relaxed) >= CHANNEL_RECOV && ring_find_recovered(r, left)) // who changes it wakes us
		return true;
	for (u64 guard = ring_guard(r); guard > 0; guard--) {
		const u64 x = r.q[r.index(t)].load(acquire), w = r.of(t).w.load(acquire); // [C2], [A1] as for a receive
		if (static_cast<i64>(ahead(x, t)) >= static_cast<i64>(TICKET))
			t = skip(r, x, r.h->head);
		else if (w == (t | S_TOMB)) // a receive skips it, and looks behind
			t += TICKET;
		else if (w == (t | S_FULL) || r.q[r.index(t)].load(acquire) == x) // [C2]
			return w == (t | S_FULL);
	}
	return false;
}

bool ring_has_room(const ring &r) noexcept
{
	u64 t = r.send_at.load(relaxed); // private hint

	for (u64 guard = ring_guard(r); guard > 0; guard--) {
		const u64 x = r.p[r.index(t)].load(acquire), w = r.of(t).w.load(acquire); // [C2], [A2] as for a send
		if (static_cast<i64>(ahead(x, t)) >= static_cast<i64>(TICKET)) {
			if (claim_owner(x) == CLOSER)
				return false;
			t = skip(r, x, r.h->tail);
		} else if (w == (t | S_EMPTY) || r.p[r.index(t)].load(acquire) == x) { // [C2]
			return w == (t | S_EMPTY);
		}
	}
	return false;
}

// The slot of t still belongs to the ticket one lap before: whose claim is it?
static u32 reader_before(const ring &r, u64 t) noexcept
{
	const u64 w = r.of(t).w.load(relaxed), x = r.q[r.index(t)].load(relaxed); // a guess whom to look at

	return word_ticket(w) == t - r.lap && word_ticket(x) == t ? claim_owner(x) : NOBODY;
}

u32 ring_blocker_of_send(const ring &r) noexcept
{
	return reader_before(r, r.send_at.load(relaxed)); // private hint
}

u32 ring_blocker_of_recv(const ring &r) noexcept
{
	const u64 t = r.recv_at.load(relaxed); // private hint, and below a guess whom to look at
	const u64 x = r.p[r.index(t)].load(relaxed);

	if (ring_is_at(r, t, S_EMPTY) && word_ticket(x) == t + r.lap)
		return claim_owner(x) == CLOSER ? NOBODY : claim_owner(x);
	return reader_before(r, t);
}

// ---- where a ticket cannot be claimed

// The ticket after a taken one. Claim word x of its slot says that the ticket before x's is taken.
static u64 skip(const ring &r, u64 x, const shared<u64> &hint) noexcept
{
	const u64 next = word_ticket(x) - r.lap + TICKET;
	const u64 h = word_ticket(hint.load(acquire)); // [H2] pairs with [H1]: who sees the hint sees the claims

	return h - next <= r.lap ? h : next; // a hint that is behind, or out of its mind, is far ahead
}

// The claim words tell another story than our hint: begin where they say.
static int damaged(std::atomic<u64> &hint, u64 x) noexcept
{
	hint.store(word_ticket(x), relaxed); // private hint
	return -EPROTO;
}

int ring_no_room(ring &r, u64 &t, u64 claim, u64 w) noexcept
{
	const i64 d = static_cast<i64>(ahead(claim, t));

	if (d >= static_cast<i64>(TICKET)) {
		if (claim_owner(claim) == CLOSER)
			return -EPIPE;
		t = skip(r, claim, r.h->tail);
		return RING_AGAIN;
	}
	if (d >= 0 && word_ticket(w) == t - r.lap) {
		r.send_at.store(t, relaxed); // private hint
		return -EAGAIN;
	}
	if (r.p[r.index(t)].load(acquire) != claim) // [C2] pairs with [C1] in ring.h
		return RING_AGAIN;
	return damaged(r.send_at, claim);
}

// Seals the end of a closing channel by claiming the next send for nobody, so that no late message slips in.
static int seal(const ring &r, u64 t) noexcept
{
	const u64 i = r.index(t);
	u64 x = r.p[i].load(acquire); // [C2] pairs with [C1] in ring.h

	if (word_ticket(x) == t && r.p[i].compare_exchange_strong(x, (t + r.lap) | CLOSER, acq_rel, acquire)) // [C1]
		return -EPIPE;
	return word_ticket(x) == t + r.lap && claim_owner(x) == CLOSER ? -EPIPE : -EAGAIN; // it is still being written
}

// Poll sets look at the channel again when they are told, so what they are told may be too much, but never too little:
// FULL by the send after which there is no room, EMPTY by the receive after which there is no message. Whoever commits
// or delivers the neighbour's ticket later looks as well.
static bool is_polled(const ring &r) noexcept
{
	// After a notification, which is a look that found the event quiet or a read-modify-write: see watch.h.
	return r.o && ((r.h->not_empty.v.load(relaxed) | r.h->not_full.v.load(relaxed)) & EVENT_POLLED);
}

static int skip_tombstone(const ring &r, u32 me, u64 &t, u64 claim) noexcept
{
	const u64 i = r.index(t);

	if (r.q[i].compare_exchange_strong(claim, (t + r.lap) | me, acq_rel, relaxed)) { // [C1] pairs with [C2]
		CH_CRASH_POINT(recv_tomb_skipping);
		r.at(i).w.store((t + r.lap) | S_EMPTY, release); // [R2] pairs with [A2] in ring.h
		event_notify(r.h->not_full, 1);
		if (is_polled(r))
			watch_tell(r.o, CH_POLL_OUT | CH_POLL_EMPTY, 0);
		t += TICKET;
	}
	return RING_AGAIN;
}

int ring_no_message(ring &r, u32 me, u64 &t, u64 claim, u64 w) noexcept
{
	const i64 d = static_cast<i64>(ahead(claim, t));

	if (d >= static_cast<i64>(TICKET)) {
		t = skip(r, claim, r.h->head);
		return RING_AGAIN;
	}
	if (d >= 0 && w == (t | S_TOMB))
		return skip_tombstone(r, me, t, claim);
	if (d >= 0 && (w == (t | S_EMPTY) || word_ticket(w) == t - r.lap)) {
		r.recv_at.store(t, relaxed); // private hint
		if (w == (t | S_EMPTY) && (r.h->state.load(relaxed) & CHANNEL_CLOSING)) // close() woke us for it
			return seal(r, t);
		return -EAGAIN; // empty, or its previous reader is not done
	}
	if (r.q[r.index(t)].load(acquire) != claim) // [C2] pairs with [C1] in ring.h
		return RING_AGAIN;
	return damaged(r.recv_at, claim);
}

// ---- waking

i64 ring_sent(const ring &r, u64 t) noexcept
{
	event_notify(r.h->not_empty, 1);
	CH_CRASH_POINT(send_notified);
	const bool is_room = ring_is_at(r, t + TICKET, S_EMPTY);
	if (is_room && !event_is_quiet(r.h->not_full))
		event_wake(r.h->not_full, 1); // pass the baton: the room is more than one message's
	if (is_polled(r))
		watch_tell(r.o, is_room ? CH_POLL_IN : CH_POLL_IN | CH_POLL_FULL, is_room ? CH_POLL_OUT : 0);
	return 0;
}

i64 ring_delivered(const ring &r, u64 t, i64 result) noexcept
{
	event_notify(r.h->not_full, 1);
	CH_CRASH_POINT(recv_notified);
	const bool is_more = ring_is_at(r, t + TICKET, S_FULL);
	if (is_polled(r))
		watch_tell(r.o, is_more ? CH_POLL_OUT : CH_POLL_OUT | CH_POLL_EMPTY, is_more ? CH_POLL_IN : 0);
	if (event_is_quiet(r.h->not_empty))
		return result;
	if (r.h->state.load(relaxed) & CHANNEL_CLOSING) // set before close() woke everybody
		event_wake(r.h->not_empty, EVERYBODY);
	else if (is_more)
		event_wake(r.h->not_empty, 1); // pass the baton
	return result;
}

// ---- recovery

bool ring_find_recovered(const ring &r, u64 &out_ticket) noexcept
{
	u64 mark = r.h->state.load(acquire), best = 0; // [V2] pairs with [V1]
	bool is_any = false, is_found = false;

	for (u64 i = 0; i <= r.mask; i++) {
		const u64 w = r.at(i).w.load(acquire), t = word_ticket(w); // [A1] pairs with [R1] in ring.h
		if (slot_state_of(w) != S_RECOV)
			continue;
		is_any = true;
		if (r.q[i].load(acquire) != ((t + r.lap) | NOBODY)) // [C2] pairs with [C1]
			continue;
		if (!is_found || static_cast<i64>(t - best) < 0)
			best = t;
		is_found = true;
	}
	if (!is_any && mark >= CHANNEL_RECOV) // unless a new one has changed the mark
		r.h->state.compare_exchange_strong(mark, mark & CHANNEL_FLAGS, acq_rel, relaxed);
	out_ticket = best;
	return is_found;
}

bool ring_claim_recovered(const ring &r, u64 ticket, u32 me) noexcept
{
	u64 x = (ticket + r.lap) | NOBODY;

	CH_CRASH_POINT(recover_found);
	if (!r.q[r.index(ticket)].compare_exchange_strong(x, (ticket + r.lap) | me, acq_rel, relaxed)) // [C1]
		return false;
	CH_CRASH_POINT(recover_claimed);
	return true;
}

// Of a slot that cannot change under us.
static bool read_ref(const ring &r, u64 i, block_ref &out) noexcept
{
	const slot &s = r.at(i);

	if (!(s.what.load(relaxed) & IN_BLOCK)) // published by the slot word
		return false;
	std::memcpy(&out, s.data, sizeof(out));
	return true;
}

// A producer died after its claim: its ticket becomes a tombstone, unless it had committed. Any helper may do
// this, for EMPTY(t) never comes back.
static void bury(const ring &r, u64 i, u64 x) noexcept
{
	const u64 t = word_ticket(x) - r.lap;
	u64 w = t | S_EMPTY;

	if (r.at(i).w.compare_exchange_strong(w, t | S_TOMB, acq_rel, relaxed))
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
// Only the one elected sweeper of this peer does this: (t+N, dead) may be claimed by the next tenant of the index.
static void redeliver(const ring &r, const run_map &m, u64 i, u64 x) noexcept
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
	give_back_block(r, m, i, claim_owner(x));
	if (slot_state_of(w) == S_FULL && !s.w.compare_exchange_strong(w, t | S_RECOV, acq_rel, relaxed))
		return;
	CH_CRASH_POINT(sweep_recov_marked);
	r.h->state.fetch_add(CHANNEL_RECOV, acq_rel); // [V1] pairs with [V2]: who sees the mark sees the RECOV
	CH_CRASH_POINT(sweep_recov_announced);
	r.q[i].compare_exchange_strong(x, word_ticket(x) | NOBODY, acq_rel, relaxed); // [C1] pairs with [C2] in ring.h
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
		if (claim_owner(p) == dead)
			bury(r, i, p);
		if (claim_owner(q) == dead)
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

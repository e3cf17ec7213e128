// SPDX-License-Identifier: Apache-2.0
// batch.h - many messages in one pass through the ring.
//
// Tickets that follow each other are claimed first, by one CAS each on neighbouring words; then their slots are written
// and committed one after the other, or read and delivered; then there is one look for sleepers. A process may die with
// any number of claims: each is dealt with by itself.
#pragma once
#include "ring.h"

namespace ch::core {

inline constexpr u32 BATCH_MAX = 32; // messages between the first claim and the last commit

// After the last commit or delivery of n tickets: publishes hints as often as ring_publish_at does.
inline void ring_note_claims(std::atomic<u64> &at, shared<u64> &hint, u64 first, int n) noexcept
{
	const u64 next = first + static_cast<u64>(n) * TICKET;

	at.store(next, relaxed); // private hint
	if ((next ^ first) & ~(HINT_MASK | (TICKET - 1)))
		hint.store(next, release); // [H1] pairs with [H2] in ring.cpp
}

// Claims tickets for up to n messages to be sent, from *out_first on. How many, or what ring_no_room says.
inline int ring_claim_sends(lane &r, u32 me, u32 n, u64 *out_first) noexcept
{
	const lane_slots at = r;
	shared<u64> *const p = r.p;
	u64 first = r.send_at.load(relaxed); // private hint

	for (u64 guard = ring_guard(r); guard > 0; guard--) {
		u64 t = first, x, w;
		for (u32 k = 0;; k++, t += TICKET) {
			const u64 i = at.index(t);
			x = p[i].load(acquire);       // [C2] pairs with [C1] in ring.h
			w = at.at(i).w.load(acquire); // [A2] pairs with [R2] in ring.h
			const bool is_ours =
				k < n && ahead(x, t) < TICKET && w == (t | S_EMPTY) &&
				p[i].compare_exchange_strong(x, (t + at.lap) | me, acq_rel, relaxed); // [C1] pairs with [C2]
			if (!is_ours && k > 0) {
				*out_first = first;
				return static_cast<int>(k);
			}
			if (!is_ours)
				break;
			CH_CRASH_POINT(send_claimed);
		}
		const int rc = ring_no_room(r, first, x, w);
		if (rc != RING_AGAIN)
			return rc;
	}
	return -EAGAIN; // interrupted too often
}

// Sends up to n messages: fill(slot, ticket, k) writes the k-th. Returns how many, at most BATCH_MAX; or -EAGAIN (full),
// -EPIPE (sealed), -EPROTO (damaged).
template <class Fill> inline int ring_publish_many(lane &r, u32 me, u32 n, Fill fill) noexcept
{
	const lane_slots at = r;
	u64 first = 0;
	const int k = ring_claim_sends(r, me, n < BATCH_MAX ? n : BATCH_MAX, &first);
	u64 t = first;

	if (k <= 0)
		return k;
	CH_CRASH_POINT(batch_claimed);
	for (int j = 0; j < k; j++, t += TICKET) {
		slot &s = at.of(t);
		fill(s, t, static_cast<u64>(j));
		CH_CRASH_POINT(send_copied);
		s.w.store(t | S_FULL, release); // [R1] pairs with [A1]: as in ring_publish_at
		CH_CRASH_POINT(send_committed);
	}
	ring_note_claims(r.send_at, r.ends->tail, first, k);
	return ring_is_quiet(r) ? k : static_cast<int>(ring_sent(r, t - TICKET, k, k));
}

// Claims up to n messages to be received, from *out_first on, if look(slot, ticket, k) says take or damaged of the k-th. How
// many; 0 if look says leave of the first; or what ring_no_message says.
template <class Look> inline int ring_claim_receives(lane &r, u32 me, u32 n, u64 *out_first, Look look) noexcept
{
	const lane_slots at = r;
	shared<u64> *const q = r.q;
	u64 first = r.recv_at.load(relaxed); // private hint

	for (u64 guard = ring_guard(r); guard > 0; guard--) {
		u64 t = first, x, w;
		for (u32 k = 0;; k++, t += TICKET) {
			const u64 i = at.index(t);
			x = q[i].load(acquire); // [C2] pairs with [C1] in ring.h
			slot &s = at.at(i);
			w = s.w.load(acquire); // [A1] pairs with [R1] in ring.h
			bool is_left = false, is_ours = false;
			if (k < n && ahead(x, t) < TICKET && w == (t | S_FULL)) {
				is_left = look(s, t, k) == verdict::leave;
				CH_CRASH_POINT(recv_found);
				is_ours = !is_left && q[i].compare_exchange_strong(x, (t + at.lap) | me, acq_rel,
										   relaxed); // [C1] pairs with [C2]
			}
			if (!is_ours && k > 0) {
				*out_first = first;
				return static_cast<int>(k);
			}
			if (is_left && q[i].load(acquire) == x && s.w.load(acquire) == w) { // [C2], [A1]: it was this message
				r.recv_at.store(t, relaxed);                                // private hint
				return 0;
			}
			if (!is_ours)
				break;
			CH_CRASH_POINT(recv_claimed);
		}
		if (ahead(x, first) < TICKET && w == (first | S_FULL)) // it was another message that was looked at
			continue;
		const int rc = ring_no_message(r, me, first, x, w);
		if (rc != RING_AGAIN)
			return rc;
	}
	return -EAGAIN; // interrupted too often
}

// Receives up to n messages; use(slot, ticket, k) reads the k-th. Returns as ring_claim_receives, at most BATCH_MAX.
template <class Look, class Use> inline int ring_consume_many(lane &r, u32 me, u32 n, Look look, Use use) noexcept
{
	const lane_slots at = r;
	u64 first = 0;
	const int k = ring_claim_receives(r, me, n < BATCH_MAX ? n : BATCH_MAX, &first, look);
	u64 t = first;

	if (k <= 0)
		return k;
	CH_CRASH_POINT(batch_taken);
	for (int j = 0; j < k; j++, t += TICKET) {
		slot &s = at.of(t);
		use(s, t, static_cast<u64>(j));
		s.w.store((t + at.lap) | S_EMPTY, release); // [R2] pairs with [A2]: as in ring_deliver
		CH_CRASH_POINT(recv_delivered);
	}
	ring_note_claims(r.recv_at, r.ends->head, first, k);
	return ring_is_quiet(r) ? k : static_cast<int>(ring_delivered(r, t - TICKET, k, k));
}

} // namespace ch::core

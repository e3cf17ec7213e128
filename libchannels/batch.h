// SPDX-License-Identifier: Apache-2.0
// batch.h - many messages in one pass through the ring.
//
// All tickets are claimed first, by one CAS each on neighbouring words, while the lines of their slots are on their way;
// then the slots are written and committed one after the other, or read and delivered; then there is one look for
// sleepers. A process may die with any number of claims: each is dealt with by itself.
#pragma once
#include "ring.h"

namespace ch::core {

inline constexpr u32 BATCH_MAX = 32; // messages between the first claim and the last commit

// Claims tickets for up to n messages to be sent. How many, or what ring_no_room says.
int ring_claim_sends(lane &r, u32 me, u32 n, u64 *tickets) noexcept;
// After the last commit or delivery, so that others may fetch these slots: publishes hints as often as ring_publish_at does.
void ring_note_claims(std::atomic<u64> &at, shared<u64> &hint, const u64 *tickets, int n) noexcept;

// Sends up to n messages: fill(slot, ticket, k) writes the k-th. Returns how many, at most BATCH_MAX; or -EAGAIN (full),
// -EPIPE (sealed), -EPROTO (damaged).
template <class Fill> inline int ring_publish_many(lane &r, u32 me, u32 n, Fill fill) noexcept
{
	u64 tickets[BATCH_MAX];
	const int k = ring_claim_sends(r, me, n < BATCH_MAX ? n : BATCH_MAX, tickets);

	if (k <= 0)
		return k;
	CH_CRASH_POINT(batch_claimed);
	for (int j = 0; j < k; j++) {
		slot &s = r.of(tickets[j]);
		fill(s, tickets[j], static_cast<u64>(j));
		CH_CRASH_POINT(send_copied);
		s.w.store(tickets[j] | S_FULL, release); // [R1] pairs with [A1]: as in ring_publish_at
		CH_CRASH_POINT(send_committed);
	}
	ring_note_claims(r.send_at, r.ends->tail, tickets, k);
	return ring_is_quiet(r) ? k : static_cast<int>(ring_sent(r, tickets[k - 1], k, k));
}

// Claims up to n messages to be received, if look(slot, ticket, k) says take or damaged of the k-th. How many; 0 if look
// says leave of the first; or what ring_no_message says.
template <class Look> inline int ring_claim_receives(lane &r, u32 me, u32 n, u64 *tickets, Look look) noexcept
{
	u64 t = r.recv_at.load(relaxed); // private hint
	u32 k = 0;

	// Fetches the lines, all at the same time, of messages that are certainly there; the others' senders need theirs.
	const u64 sure = (r.ends->tail.load(relaxed) - t) / TICKET; // a hint
	for (u32 j = 0; sure <= r.mask + 1 && j < n && j < sure; j++)
		__builtin_prefetch(&r.of(t + j * TICKET), 1);
	for (u64 guard = ring_guard(r); k < n && guard > 0; guard--) {
		const u64 i = r.index(t);
		u64 x = r.q[i].load(acquire); // [C2] pairs with [C1]
		slot &s = r.at(i);
		const u64 w = s.w.load(acquire); // [A1] pairs with [R1]
		if (ahead(x, t) < TICKET && w == (t | S_FULL)) {
			const verdict v = look(s, t, k);
			CH_CRASH_POINT(recv_found);
			if (v == verdict::leave) {
				r.recv_at.store(t, relaxed); // private hint
				// What was seen was this message, or nobody minds one look more.
				if (k > 0 || (r.q[i].load(acquire) == x && s.w.load(acquire) == w)) // [C2], [A1]
					return static_cast<int>(k);
				continue;
			}
			if (r.q[i].compare_exchange_strong(x, (t + r.lap) | me, acq_rel, relaxed)) { // [C1] pairs with [C2]
				CH_CRASH_POINT(recv_claimed);
				tickets[k++] = t;
				t += TICKET;
				continue;
			}
		}
		const int rc = ring_no_message(r, me, t, x, w);
		if (rc != RING_AGAIN && k == 0)
			return rc;
		if (rc != RING_AGAIN)
			break;
	}
	return k > 0 ? static_cast<int>(k) : -EAGAIN; // interrupted too often
}

// Receives up to n messages; use(slot, ticket, k) reads the k-th. Returns as
// ring_claim_receives, at most BATCH_MAX.
template <class Look, class Use> inline int ring_consume_many(lane &r, u32 me, u32 n, Look look, Use use) noexcept
{
	u64 tickets[BATCH_MAX];
	const int k = ring_claim_receives(r, me, n < BATCH_MAX ? n : BATCH_MAX, tickets, look);

	if (k <= 0)
		return k;
	CH_CRASH_POINT(batch_taken);
	for (int j = 0; j < k; j++) {
		slot &s = r.of(tickets[j]);
		use(s, tickets[j], static_cast<u64>(j));
		s.w.store((tickets[j] + r.lap) | S_EMPTY, release); // [R2] pairs with [A2]: as in ring_deliver
		CH_CRASH_POINT(recv_delivered);
	}
	ring_note_claims(r.recv_at, r.ends->head, tickets, k);
	return ring_is_quiet(r) ? k : static_cast<int>(ring_delivered(r, tickets[k - 1], k, k));
}

} // namespace ch::core

// SPDX-License-Identifier: Apache-2.0
// spsc.h - the ring of a channel with one sender and one receiver: no claims, no locked instruction.
//
// Tickets, slots and their words as in ring.h, but nothing is claimed: who may send and who may receive is decided once,
// by the role words of the channel (channel.h), and so
//   s.w     -> FULL(t)    a store by the sender: the commit; only while t - head < N
//   head    -> t + 1      a store by the receiver: the delivery of t
// A slot is never emptied: a message is there if its slot is FULL(t) and head is not past t. A sender that dies leaves
// nothing, for what it had not committed its successor overwrites; a receiver that dies leaves the message as it was, save
// that its block may be the dead one's and is given back (recover.cpp).
//
// head is written by the receiver only and read by the sender once per lap or when the ring looks full; so a message
// costs one line, which goes from the sender to the receiver.
//
// The end after a close is decided by one CAS of the word tail, 0 -> 1 + the first ticket that is not part of the channel
// any more: by the receiver where it finds no message, or by the sender that committed and then saw the close. The
// receiver makes the sender pass a barrier between seeing the close and looking for the last time. If the sender's look
// at the state came before that barrier, its commit did too and the receiver sees it; if after, it saw the close.
#pragma once
#include "ring.h"

namespace ch::core {

inline constexpr u64 SPSC_SEALED = 1;

// After the commit of n messages, the last of them ticket t, where it is not quiet or the channel is closing. Returns how
// many of them are part of the channel.
int spsc_sent(const lane &r, u64 t, int n) noexcept;
// There is no message at t and the channel is closing: -EPIPE, or RING_AGAIN to look once more.
int spsc_seal(const lane &r, u64 t) noexcept;
// Where the channel ends: t is not before that.
inline bool spsc_is_past_end(const lane &r, u64 t) noexcept
{
	const u64 end = r.ends->tail.load(acquire); // [Z2] pairs with [Z1] in ring.cpp

	return (end & SPSC_SEALED) && static_cast<i64>(t - word_ticket(end)) >= 0;
}

// For who takes a role over: begins where the one before stopped.
void spsc_begin_sending(lane &r) noexcept;
void spsc_begin_receiving(lane &r) noexcept;

inline bool spsc_is_loud(const lane &r) noexcept
{
	return !ring_is_quiet(r) || (r.h->state.load(relaxed) & CHANNEL_CLOSING); // the argument is above
}

// How many of n messages there is room for.
[[gnu::always_inline]] inline u64 spsc_room(lane &r, u64 t, u64 n) noexcept
{
	u64 used = t - r.head_seen.load(relaxed); // the sender's own

	if (used + n * TICKET > r.lap) {
		const u64 head = r.ends->head.load(acquire); // [D2] pairs with [D1]: the reader is done with the slots before
		r.head_seen.store(head, relaxed);
		used = t - head;
	}
	const u64 room = used > r.lap ? 0 : (r.lap - used) / TICKET; // more than the ring holds: damaged, so full
	return room < n ? room : n;
}

/*
 * spsc_push - send n messages, or as many as there is room for: fill(slot, ticket, k) writes the k-th.
 *
 * Returns how many, 0 if there is no room, -EPIPE if the channel was closed before. By who has the role.
 */
template <class Fill> [[gnu::always_inline]] inline i64 spsc_push(lane &r, u64 n, Fill fill) noexcept
{
	const u64 first = r.send_at.load(relaxed); // the sender's own
	u64 t = first;

	n = spsc_room(r, t, n);
	if (n == 0) [[unlikely]]
		return 0;
	for (u64 k = 0; k < n; k++, t += TICKET) {
		slot &s = r.of(t);
		fill(s, t, k);
		CH_CRASH_POINT(spsc_filled);
		// [R1] pairs with [A1]: the message is whole before its slot says so. This is the commit.
		s.w.store(t | S_FULL, release);
		CH_CRASH_POINT(spsc_committed);
	}
	r.send_at.store(t, relaxed);
	return spsc_is_loud(r) ? spsc_sent(r, t - TICKET, static_cast<int>(n)) : static_cast<i64>(n);
}

/*
 * spsc_pop - receive up to n messages: look(slot, ticket, k) says what to do with the k-th, use(slot, ticket, k) reads it.
 *
 * Returns how many; less than n where there are no more, or look says leave, or use fails; the last error of use is in
 * *rc, which is not changed otherwise. By who has the role.
 */
template <class Look, class Use>
[[gnu::always_inline]] inline u64 spsc_pop(lane &r, u64 n, i64 *rc, Look look, Use use) noexcept
{
	u64 t = r.recv_at.load(relaxed), k = 0; // the receiver's own

	for (; k < n; k++, t += TICKET) {
		slot &s = r.of(t);
		// [A1] pairs with [R1]: a FULL slot's message is whole.
		if (s.w.load(acquire) != (t | S_FULL))
			break;
		const verdict v = look(s, t, k);
		if (v == verdict::leave) [[unlikely]]
			break;
		const i64 result = v == verdict::damaged ? -EPROTO : use(s, t, k);
		if (result < 0) [[unlikely]] { // dropped
			*rc = result;
			n = k + 1;
		}
	}
	if (k == 0)
		return 0;
	CH_CRASH_POINT(spsc_read);
	r.recv_at.store(t, relaxed); // the receiver's own
	// [D1] pairs with [D2]: we are done reading before the slots are free. This is the delivery, of all at once.
	r.ends->head.store(t, release);
	CH_CRASH_POINT(spsc_delivered);
	if (!ring_is_quiet(r)) [[unlikely]]
		ring_delivered(r, t - TICKET, 0, static_cast<int>(k));
	return k;
}

} // namespace ch::core

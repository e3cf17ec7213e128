// SPDX-License-Identifier: Apache-2.0
// ring.h - the crash-tolerant ring: any number of producers and consumers, any of which may die at any instruction.
//
// Ticket t belongs to slot i = t mod N; the slot's next ticket is t + N. Three words per slot, the claims apart from
// the payload's line so that a claim does not disturb a peer that polls the slot (words: layout.h):
//   p[i]   a producer claims ticket t by CAS (t, *) -> (t+N, me), only while the slot is EMPTY(t)
//   q[i]   a consumer claims ticket t by CAS (t, *) -> (t+N, me), only while the slot is FULL(t) or TOMB(t)
//   s.w    EMPTY(t) -> FULL(t) -> EMPTY(t+N)    the commit and the delivery
//          EMPTY(t) -> TOMB(t) -> EMPTY(t+N)    the claimer died before its commit: anybody helps
//          FULL(t) -> RECOV(t) -> EMPTY(t+N)    the reader died, or gives the message back: its sweeper, or itself;
//                                               q = (t+N, nobody) then means "take it again"
// There is no instruction at which a claim without an owner exists. tail and head are hints: stale or lost values
// cost time, never truth. RECOV messages are announced by the mark in the state word, which is never lost (layout.h).
//
// Commit and delivery are plain stores. They were compare-and-swaps as long as a process could be declared dead
// and still run; but here (peer.h) dead means that no thread of it will ever run again, so the claim's owner is
// the only one who writes the slot until it is proved dead, and whoever helps then races with other helpers only.
//
// Between claim and commit, and between claim and delivery, there is no user code and no system call; but a consumer of
// a channel whose messages are acknowledged keeps its claim for as long as it likes.
//
// A channel is one such ring, its main lane, and perhaps a second one for urgent messages. A channel with one sender
// and one receiver has slots too, but another protocol: spsc.h.
#pragma once
#include "crash.h"
#include "event.h"
#include "layout.h"
#include "cache.h"
#include <cerrno>
#include <channels/channel.h>
#include <cstring>

struct ch_object;

namespace ch::core {

// Where a lane's slots are. A loop over many has a copy: the compiler must read lane itself anew after each store.
struct lane_slots {
	u8 *slots = nullptr; // NULL: there is no such lane
	u64 mask = 0;        // N - 1
	u64 lap = 0;         // N tickets
	u64 stride = 0;      // bytes from slot to slot

	u64 index(u64 ticket) const noexcept { return ticket / TICKET & mask; }
	slot &at(u64 i) const noexcept { return *reinterpret_cast<slot *>(slots + i * stride); }
	slot &of(u64 ticket) const noexcept { return at(index(ticket)); }
};

struct lane : lane_slots {
	channel_header *h = nullptr;
	ch_object *o = nullptr; // the handle that sends and receives here; NULL: nobody can watch it
	lane_ends *ends = nullptr;
	event *not_full = nullptr;
	shared<u64> *p = nullptr, *q = nullptr;
	u32 inline_max = 0;
	bool is_spsc = false;
	alignas(LINE) std::atomic<u64> send_at = 0; // this process's hints: the first ticket worth a look
	std::atomic<u64> recv_at = 0;
	std::atomic<u64> head_seen = 0; // of an SPSC channel's sender: head when it looked last
};

struct ring : lane {
	lane urgent;
	u32 flags = 0; // CH_CHANNEL_...
};

inline constexpr u32 ALL_CHANNEL_FLAGS =
	CH_CHANNEL_ENDS_WITH_CREATOR | CH_CHANNEL_SPSC | CH_CHANNEL_HANGS_UP | CH_CHANNEL_ACKNOWLEDGED;
inline constexpr u32 MAX_SLOTS = 1u << 20;
inline constexpr u32 MAX_STRIDE = 65536;

struct ring_shape {
	u32 nr_slots;  // a power of two
	u32 stride;    // bytes from slot to slot
	u32 nr_urgent; // a power of two, or 0
	u32 flags;     // CH_CHANNEL_...
};

// How far word w is ahead of a ticket: under TICKET if it is that ticket's, negative as i64 if it is an earlier one's.
inline u64 ahead(u64 w, u64 ticket) noexcept { return w - ticket; }

// Hints are published at every eighth ticket, which keeps their lines out of most messages.
inline constexpr u64 HINT_MASK = 7 * TICKET;

u64 ring_bytes(const ring_shape &shape, u32 max_peers) noexcept;
// Makes an empty ring of the ring_bytes(...) zero bytes at at, and its view r.
void ring_format(ring &r, u8 *at, const ring_shape &shape, u32 max_peers) noexcept;
// Checks the geometry of a channel that has block_len bytes and copies it. False: it is damaged.
bool ring_open(ring &r, u8 *at, u64 block_len, u32 max_peers) noexcept;

u64 ring_count(const lane &r) noexcept;
// What poll sets ask: whether a receive would find a message now, and a send room. Exact after a registration.
bool ring_has_message(ring &r) noexcept;
bool ring_has_room(const lane &r) noexcept;
u64 ring_oldest(const lane &r) noexcept; // the first ticket that is not claimed for receiving, nor a tombstone
u64 ring_end(const lane &r) noexcept;    // the first ticket that is not claimed for sending; SPSC: that was not sent
bool ring_is_sealed(const lane &r, u64 ticket) noexcept; // the channel ends before this ticket
u32 ring_receiver_of(const lane &r, u64 ticket) noexcept; // who has claimed it and not delivered, or NOBODY
// Whose unfinished claim keeps the next send or receive from going on; NOBODY if no claim does.
u32 ring_blocker_of_send(const lane &r) noexcept;
u32 ring_blocker_of_recv(const lane &r) noexcept;
void ring_wake_all(const channel_header *h) noexcept;

// ---- recovery (recover.cpp)

// Gives back what a dead peer had claimed. By its elected sweeper only. Its blocks that lie in committed messages
// are marked INCHAN.
void ring_sweep(const ring &r, const run_map &m, u32 dead) noexcept;
// Before a peer that lives gives up its bit: messages that it has not acknowledged are given back, and its blocks in
// committed messages are marked INCHAN, for no sweep of it will look here any more.
void ring_leave(const ring &r, const run_map &m, u32 me) noexcept;
// A role that peer has, or had last, is nobody's any more; why says so to the other side if the channel hangs up.
void ring_leave_role(const ring &r, shared<u64> &role, u64 why, u32 peer) noexcept;
// Frees the blocks of all messages. By who has the channel as FINAL.
void ring_drain(const ring &r, run_map &m, u32 me) noexcept;

// Takes a block over that a message brought. False: the block is not what the message says.
bool block_take(const run_map &m, const block_ref &ref, u32 me, block_place &out) noexcept;
// The block that a message brought, still the message's. False: the block is not what the message says.
bool block_look(const run_map &m, const block_ref &ref, block_place &out) noexcept;

// The oldest message that a reader left, the urgent lane first; claiming it. True if there is one, if it is ours now.
bool ring_find_recovered(ring &r, lane *&out_lane, u64 &out_ticket) noexcept;
bool ring_claim_recovered(const lane &r, u64 ticket, u32 me) noexcept;
// Whether a reader has a message that it has not finished with.
bool ring_has_unreleased(const ring &r) noexcept;
// Gives a message back whose claim is ours.
void ring_requeue(const lane &r, u64 ticket) noexcept;

// ---- the message path

// What to do at a ticket that cannot be claimed as it stands. They return RING_AGAIN to look at ticket t, which may have
// moved, once more.
inline constexpr int RING_AGAIN = INT_MIN;
int ring_no_room(lane &r, u64 &t, u64 claim, u64 w) noexcept;             // else -EAGAIN, -EPIPE, -EPROTO
int ring_no_message(lane &r, u32 me, u64 &t, u64 claim, u64 w) noexcept;  // else -EAGAIN, -EPIPE, -EPROTO

inline bool ring_is_at(const lane &r, u64 ticket, slot_state s) noexcept
{
	return r.of(ticket).w.load(relaxed) == (ticket | s); // whom to wake: a hint
}

// For spinners: whether the next send or receive may fare better than when our hint was set.
inline bool ring_may_publish(const lane &r) noexcept
{
	const u64 t = r.send_at.load(relaxed); // private hint

	if (needs_a_look(r.h->state.load(relaxed))) // hints, here and below
		return true;
	return r.is_spsc ? t - r.ends->head.load(relaxed) < r.lap : word_ticket(r.of(t).w.load(relaxed)) != t - r.lap;
}

inline bool ring_may_consume(const lane &r) noexcept
{
	const u64 t = r.recv_at.load(relaxed); // private hint

	if (needs_a_look(r.h->state.load(relaxed))) // hints, here and below
		return true;
	return r.is_spsc ? ring_is_at(r, t, S_FULL) : !ring_is_at(r, t, S_EMPTY);
}

// Whether a message that was sent as this ticket has been delivered.
inline bool ring_is_delivered(const lane &r, u64 ticket) noexcept
{
	// [R2] pairs with [A2], [D1] with [D2]: the receiver is done with it.
	return r.is_spsc ? static_cast<i64>(r.ends->head.load(acquire) - ticket) > 0 :
			   word_ticket(r.of(ticket).w.load(acquire)) != ticket;
}

inline u64 ring_guard(const lane &r) noexcept { return 4 * r.mask + 68; } // damaged words must not keep us for ever

// Whether nobody may sleep on either side: a look at one line that both sides have in their caches.
inline bool ring_is_quiet(const lane &r) noexcept
{
	const channel_header *h = r.h;

	std::atomic_signal_fence(seq_cst); // the compiler keeps the order too
	// [E2] pairs with [E1] in event.h: relaxed, because the waiter's barrier orders it.
	return !((h->not_empty.v.load(relaxed) | h->not_full.v.load(relaxed) | h->urgent_not_full.v.load(relaxed) |
		  h->received.v.load(relaxed)) & EVENT_LOUD) && !event_always_fence;
}

// After the commit or delivery of n messages, the last of them ticket t, where it is not quiet: wakes who waits for them,
// and passes the baton to who waits for the next. They return result, to be the last thing that a message path does.
i64 ring_sent(const lane &r, u64 t, i64 result, int n = 1) noexcept;
i64 ring_delivered(const lane &r, u64 t, i64 result, int n = 1) noexcept;
void ring_requeued(const lane &r) noexcept; // after a message was given back

/*
 * ring_publish_at - try to send one message as ticket t: fill(slot, t) writes it between claim and commit.
 *
 * Returns 0; where the ticket cannot be claimed, what otherwise(claim word, slot word) returns.
 */
template <class Fill, class Otherwise>
[[gnu::always_inline]] inline i64 ring_publish_at(lane &r, u32 me, u64 t, Fill fill, Otherwise otherwise) noexcept
{
	const u64 i = r.index(t);
	u64 x = r.p[i].load(acquire); // [C2] pairs with [C1]
	slot &s = r.at(i);
	// [A2] pairs with [R2]: the last reader is done with the slot before it is EMPTY.
	const u64 w = s.w.load(acquire);

	if (ahead(x, t) >= TICKET || w != (t | S_EMPTY)) [[unlikely]]
		return otherwise(x, w);
	CH_CRASH_POINT(send_found);
	// [C1] pairs with [C2]: a claim carries along what its owner saw, the EMPTY of this ticket above all.
	if (!r.p[i].compare_exchange_strong(x, (t + r.lap) | me, acq_rel, relaxed)) [[unlikely]]
		return otherwise(x, w);
	CH_CRASH_POINT(send_claimed);
	r.send_at.store(t + TICKET, relaxed); // private hint
	if ((t & HINT_MASK) == HINT_MASK)
		r.ends->tail.store(t + TICKET, release); // [H1] pairs with [H2]
	CH_CRASH_POINT(send_hinted);
	fill(s, t);
	CH_CRASH_POINT(send_copied);
	// [R1] pairs with [A1]: the message is whole before its slot says so. This is the commit.
	s.w.store(t | S_FULL, release);
	CH_CRASH_POINT(send_committed);
	return ring_is_quiet(r) ? 0 : ring_sent(r, t, 0);
}

// The same from our hint on, until it is sent. Returns 0, -EAGAIN (full), -EPIPE (sealed), -EPROTO (damaged).
template <class Fill>
[[gnu::always_inline]] inline int ring_publish(lane &r, u32 me, Fill fill) noexcept
{
	u64 t = r.send_at.load(relaxed); // private hint

	for (u64 guard = ring_guard(r); guard > 0; guard--) {
		const i64 rc = ring_publish_at(r, me, t, fill, [&](u64 x, u64 w) { return i64{ring_no_room(r, t, x, w)}; });
		if (rc != RING_AGAIN)
			return static_cast<int>(rc);
	}
	return -EAGAIN;
}

// What look(slot, ticket) says of a message before it is claimed. keep: use it, but do not deliver it.
enum class verdict { take, keep, leave, damaged };

// The second half of a receive: the claim is ours.
template <class Use>
[[gnu::always_inline]] inline i64 ring_deliver(const lane &r, slot &s, u64 t, verdict v, Use use) noexcept
{
	const i64 result = v == verdict::damaged ? -EPROTO : use(s, t);

	if (v == verdict::keep && result >= 0)
		return result;
	// [R2] pairs with [A2]: we are done reading before the slot is free. This is the delivery.
	s.w.store((t + r.lap) | S_EMPTY, release);
	CH_CRASH_POINT(recv_delivered);
	return ring_is_quiet(r) ? result : ring_delivered(r, t, result);
}

/*
 * ring_consume_at - try to receive ticket t: look(slot, t) says what to do with it, use(slot, t) reads it.
 *
 * Returns what use returns, or -EPROTO (damaged; the message is dropped). Where look says leave, what left() returns;
 * where the ticket cannot be claimed, what otherwise(claim word, slot word) returns.
 */
template <class Look, class Use, class Left, class Otherwise>
[[gnu::always_inline]] inline i64 ring_consume_at(lane &r, u32 me, u64 t, Look look, Use use, Left left,
						  Otherwise otherwise) noexcept
{
	const u64 i = r.index(t);
	u64 x = r.q[i].load(acquire); // [C2] pairs with [C1]
	slot &s = r.at(i);
	// [A1] pairs with [R1]: a FULL slot's message is whole.
	const u64 w = s.w.load(acquire);

	if (ahead(x, t) >= TICKET || w != (t | S_FULL))
		return otherwise(x, w);
	const verdict v = look(s, t);
	CH_CRASH_POINT(recv_found);
	if (v == verdict::leave) [[unlikely]] {
		r.recv_at.store(t, relaxed); // private hint
		if (r.q[i].load(acquire) == x && s.w.load(acquire) == w) // [C2], [A1]: what was seen was this message
			return left();
		return otherwise(x, w);
	}
	// [C1] pairs with [C2]. That it succeeds proves that the slot was FULL(t) when look saw it.
	if (!r.q[i].compare_exchange_strong(x, (t + r.lap) | me, acq_rel, relaxed)) [[unlikely]]
		return otherwise(x, w);
	CH_CRASH_POINT(recv_claimed);
	r.recv_at.store(t + TICKET, relaxed); // private hint
	if ((t & HINT_MASK) == HINT_MASK)
		r.ends->head.store(t + TICKET, release); // [H1] pairs with [H2]
	CH_CRASH_POINT(recv_hinted);
	return ring_deliver(r, s, t, v, use);
}

// The same for the oldest message: refused if look says leave, -EAGAIN (empty), -EPIPE (sealed).
template <class Look, class Use>
[[gnu::always_inline]] inline i64 ring_consume(lane &r, u32 me, int refused, Look look, Use use) noexcept
{
	u64 t = r.recv_at.load(relaxed); // private hint

	for (u64 guard = ring_guard(r); guard > 0; guard--) {
		const i64 rc = ring_consume_at(
			r, me, t, look, use, [refused] { return i64{refused}; },
			[&](u64 x, u64 w) { return i64{ring_no_message(r, me, t, x, w)}; });
		if (rc != RING_AGAIN)
			return rc;
	}
	return -EAGAIN;
}

// The same for messages that readers left; to be called first when the state word has the mark. -EAGAIN: none.
template <class Look, class Use>
[[gnu::noinline]] i64 ring_consume_recovered(ring &r, u32 me, int refused, Look look, Use use) noexcept
{
	lane *l;
	u64 t;

	while (ring_find_recovered(r, l, t)) {
		slot &s = l->of(t);
		const verdict v = look(s, t);
		if (v == verdict::leave)
			return refused;
		if (ring_claim_recovered(*l, t, me))
			return ring_deliver(*l, s, t, v, use);
	}
	return -EAGAIN;
}

} // namespace ch::core

// SPDX-License-Identifier: Apache-2.0
// ring.cpp - the ring off the message path: geometry, looking, full and empty, closing, waking.
#include "config.h"
#include "spsc.h"
#include "watch.h"
#include <channels/pollset.h>
#include <ctime>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace ch::core {

// ---- geometry

static u64 claims_bytes(u64 nr_slots, u32 flags) noexcept
{
	return flags & CH_CHANNEL_SPSC ? 0 : round_up(nr_slots * 8, LINE);
}

static u64 lane_bytes(u64 nr_slots, const ring_shape &shape) noexcept
{
	return 2 * claims_bytes(nr_slots, shape.flags) + nr_slots * shape.stride;
}

u64 ring_bytes(const ring_shape &shape, u32 max_peers) noexcept
{
	const u64 urgent = shape.nr_urgent ? sizeof(lane_ends) + lane_bytes(shape.nr_urgent, shape) : 0;

	return sizeof(channel_header) + object_bits_bytes(max_peers) + lane_bytes(shape.nr_slots, shape) + urgent;
}

static void map_lane(lane &l, channel_header *h, u8 *at, u64 nr_slots, const ring_shape &shape) noexcept
{
	l.h = h;
	l.p = reinterpret_cast<shared<u64> *>(at);
	l.q = l.p + claims_bytes(nr_slots, shape.flags) / 8;
	l.slots = at + 2 * claims_bytes(nr_slots, shape.flags);
	l.mask = nr_slots - 1;
	l.lap = TICKET * nr_slots;
	l.stride = shape.stride;
	l.inline_max = shape.stride - SLOT_HEAD;
	l.is_spsc = shape.flags & CH_CHANNEL_SPSC;
}

static void map(ring &r, u8 *at, const ring_shape &shape, u32 max_peers) noexcept
{
	channel_header *h = reinterpret_cast<channel_header *>(at);
	u8 *lanes = at + sizeof(*h) + object_bits_bytes(max_peers);

	map_lane(r, h, lanes, shape.nr_slots, shape);
	r.ends = &h->ends;
	r.not_full = &h->not_full;
	r.flags = shape.flags;
	if (!shape.nr_urgent)
		return;
	lanes += lane_bytes(shape.nr_slots, shape);
	map_lane(r.urgent, h, lanes + sizeof(lane_ends), shape.nr_urgent, shape);
	r.urgent.ends = reinterpret_cast<lane_ends *>(lanes);
	r.urgent.not_full = &h->urgent_not_full;
}

static void format_lane(lane &l) noexcept
{
	// Nobody has met it quiet yet, so the first sleeper needs no barrier.
	l.not_full->v.store(EVENT_SLEEPY, relaxed);
	for (u64 i = 0; i <= l.mask; i++) { // nobody sees it yet
		l.at(i).w.store(i * TICKET | S_EMPTY, relaxed);
		if (l.is_spsc)
			continue;
		l.p[i].store(i * TICKET | NOBODY, relaxed);
		l.q[i].store(i * TICKET | NOBODY, relaxed);
	}
}

void ring_format(ring &r, u8 *at, const ring_shape &shape, u32 max_peers) noexcept
{
	map(r, at, shape, max_peers);
	r.h->lg_slots = static_cast<u32>(__builtin_ctz(shape.nr_slots));
	r.h->stride = shape.stride;
	r.h->nr_urgent = shape.nr_urgent;
	r.h->flags = shape.flags;
	r.h->not_empty.v.store(EVENT_SLEEPY, relaxed); // as in format_lane
	format_lane(r);
	if (r.urgent.slots)
		format_lane(r.urgent);
}

static u32 read_once(const u32 &v) noexcept
{
	return __atomic_load_n(&v, __ATOMIC_RELAXED); // a hostile peer may change it between a check and its use
}

static bool are_flags_sound(const ring_shape &shape) noexcept
{
	const bool is_spsc = shape.flags & CH_CHANNEL_SPSC;

	return !(shape.flags & ~ALL_CHANNEL_FLAGS) &&
	       !(is_spsc && (shape.nr_urgent || (shape.flags & CH_CHANNEL_ACKNOWLEDGED))) &&
	       (is_spsc || !(shape.flags & CH_CHANNEL_HANGS_UP));
}

bool ring_open(ring &r, u8 *at, u64 block_len, u32 max_peers) noexcept
{
	const channel_header *h = reinterpret_cast<channel_header *>(at);

	if (block_len < sizeof(*h))
		return false;
	const u32 lg = read_once(h->lg_slots);
	const ring_shape shape{lg > 20 ? 0 : 1u << lg, read_once(h->stride), read_once(h->nr_urgent),
			       read_once(h->flags)};
	if (!shape.nr_slots || shape.nr_urgent > MAX_SLOTS || (shape.nr_urgent & (shape.nr_urgent - 1)) ||
	    !are_flags_sound(shape) || shape.stride < sizeof(slot) || shape.stride > MAX_STRIDE ||
	    shape.stride % LINE != 0 || ring_bytes(shape, max_peers) > block_len)
		return false;
	map(r, at, shape, max_peers);
	return true;
}

// ---- looking

// The first ticket that no claim in words has taken, from a hint on.
static u64 first_untaken(const lane &r, const shared<u64> *words, const shared<u64> &hint) noexcept
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

// The messages of an SPSC channel lie one behind the other, from head on.
static u64 spsc_count(const lane &r) noexcept
{
	const u64 head = word_ticket(r.ends->head.load(acquire)); // [D2] pairs with [D1] in spsc.h
	u64 lo = 0, hi = r.mask + 1;

	while (lo < hi) { // of the first lo there is one each, and at most hi
		const u64 n = (lo + hi + 1) / 2, t = head + (n - 1) * TICKET;
		if (ring_is_at(r, t, S_FULL) && !spsc_is_past_end(r, t))
			lo = n;
		else
			hi = n - 1;
	}
	return lo;
}

u64 ring_count(const lane &r) noexcept
{
	if (r.is_spsc)
		return spsc_count(r);
	const u64 head = ring_oldest(r), tail = first_untaken(r, r.p, r.ends->tail);
	const bool is_sealed = claim_owner(r.p[r.index(tail - TICKET)].load(relaxed)) == CLOSER;
	const i64 n = static_cast<i64>(tail - head) / static_cast<i64>(TICKET) - is_sealed,
		  max = static_cast<i64>(r.mask) + 1;

	return static_cast<u64>(n < 0 ? 0 : n > max ? max : n);
}

u64 ring_oldest(const lane &r) noexcept
{
	if (r.is_spsc)
		return word_ticket(r.ends->head.load(acquire)); // [D2] pairs with [D1] in spsc.h
	u64 t = first_untaken(r, r.q, r.ends->head);

	for (u64 k = 0; k <= r.mask && ring_is_at(r, t, S_TOMB); k++)
		t += TICKET;
	return t;
}

u64 ring_end(const lane &r) noexcept
{
	return r.is_spsc ? ring_oldest(r) + spsc_count(r) * TICKET : first_untaken(r, r.p, r.ends->tail);
}

bool ring_is_sealed(const lane &r, u64 ticket) noexcept
{
	if (r.is_spsc)
		return spsc_is_past_end(r, ticket);
	const u64 x = r.p[r.index(ticket)].load(acquire); // [C2] pairs with [C1] in ring.h
	return word_ticket(x) == ticket + r.lap && claim_owner(x) == CLOSER;
}

u32 ring_receiver_of(const lane &r, u64 ticket) noexcept
{
	if (r.is_spsc)
		return NOBODY;
	const u64 x = r.q[r.index(ticket)].load(relaxed); // a guess whom to look at
	return word_ticket(x) == ticket + r.lap ? claim_owner(x) : NOBODY;
}

static u64 skip(const lane &r, u64 x, const shared<u64> &hint) noexcept;

static bool has_message(const lane &r) noexcept
{
	u64 t = r.recv_at.load(relaxed); // private hint

	if (r.is_spsc) {
		t = ring_oldest(r);
		return r.of(t).w.load(acquire) == (t | S_FULL) &&
		       !spsc_is_past_end(r, t); // [A1] pairs with [R1] in spsc.h
	}
	for (u64 guard = ring_guard(r); guard > 0; guard--) {
		const u64 x = r.q[r.index(t)].load(acquire), w = r.of(t).w.load(acquire); // [C2], [A1] as for a receive
		if (static_cast<i64>(ahead(x, t)) >= static_cast<i64>(TICKET))
			t = skip(r, x, r.ends->head);
		else if (w == (t | S_TOMB)) // a receive skips it, and looks behind
			t += TICKET;
		else if (w == (t | S_FULL) || r.q[r.index(t)].load(acquire) == x) // [C2]
			return w == (t | S_FULL);
	}
	return false;
}

bool ring_has_message(ring &r) noexcept
{
	lane *l;
	u64 left;

	return ((r.h->state.load(relaxed) & CHANNEL_RECOV) &&
		ring_find_recovered(r, l, left)) || // who changes it wakes us
	       has_message(r) ||
	       (r.urgent.slots && has_message(r.urgent));
}

bool ring_has_room(const lane &r) noexcept
{
	u64 t = r.send_at.load(relaxed); // private hint

	if (r.is_spsc) { // the last ticket of the lap that begins at head
		t = ring_oldest(r) + r.lap - TICKET;
		return r.of(t).w.load(acquire) != (t | S_FULL); // [A1] pairs with [R1] in spsc.h
	}
	for (u64 guard = ring_guard(r); guard > 0; guard--) {
		const u64 x = r.p[r.index(t)].load(acquire), w = r.of(t).w.load(acquire); // [C2], [A2] as for a send
		if (static_cast<i64>(ahead(x, t)) >= static_cast<i64>(TICKET)) {
			if (claim_owner(x) == CLOSER)
				return false;
			t = skip(r, x, r.ends->tail);
		} else if (w == (t | S_EMPTY) || r.p[r.index(t)].load(acquire) == x) { // [C2]
			return w == (t | S_EMPTY);
		}
	}
	return false;
}

// The slot of t still belongs to the ticket one lap before: whose claim is it?
static u32 reader_before(const lane &r, u64 t) noexcept
{
	const u64 w = r.of(t).w.load(relaxed), x = r.q[r.index(t)].load(relaxed); // a guess whom to look at

	return word_ticket(w) == t - r.lap && word_ticket(x) == t ? claim_owner(x) : NOBODY;
}

u32 ring_blocker_of_send(const lane &r) noexcept
{
	return r.is_spsc ? NOBODY : reader_before(r, r.send_at.load(relaxed)); // private hint
}

u32 ring_blocker_of_recv(const lane &r) noexcept
{
	if (r.is_spsc)
		return NOBODY;
	const u64 t = r.recv_at.load(relaxed); // private hint, and below a guess whom to look at
	const u64 x = r.p[r.index(t)].load(relaxed);

	if (ring_is_at(r, t, S_EMPTY) && word_ticket(x) == t + r.lap)
		return claim_owner(x) == CLOSER ? NOBODY : claim_owner(x);
	return reader_before(r, t);
}

// ---- where a ticket cannot be claimed

// The ticket after a taken one. Claim word x of its slot says that the ticket before x's is taken.
static u64 skip(const lane &r, u64 x, const shared<u64> &hint) noexcept
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

int ring_no_room(lane &r, u64 &t, u64 claim, u64 w) noexcept
{
	const i64 d = static_cast<i64>(ahead(claim, t));

	if (d >= static_cast<i64>(TICKET)) {
		if (claim_owner(claim) == CLOSER)
			return -EPIPE;
		t = skip(r, claim, r.ends->tail);
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
static int seal(const lane &r, u64 t) noexcept
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
static bool is_polled(const lane &r) noexcept
{
	// After a notification, which is a look that found the event quiet or a read-modify-write: see watch.h.
	return r.o && ((r.h->not_empty.v.load(relaxed) | r.h->not_full.v.load(relaxed)) & EVENT_POLLED);
}

// There is room for n messages more. Who polls the channel looks at both lanes, and is told by the main one's event.
static void notify_room(const lane &r, int n) noexcept
{
	// Without a look whether it is quiet, for the sake of who waits until a closed channel is drained: either our
	// change of this word comes before close()'s, which then makes our delivery known, or we see afterwards that it is
	// closing. [E3]
	event_notify_slow(*r.not_full, n);
	if (r.not_full != &r.h->not_full)
		event_notify_slow(r.h->not_full, 1);
}

static u32 out_of(const lane &r) noexcept
{
	return r.not_full == &r.h->urgent_not_full ? CH_POLL_OUT_URGENT : CH_POLL_OUT;
}

static int skip_tombstone(const lane &r, u32 me, u64 &t, u64 claim) noexcept
{
	const u64 i = r.index(t);

	if (r.q[i].compare_exchange_strong(claim, (t + r.lap) | me, acq_rel, relaxed)) { // [C1] pairs with [C2]
		CH_CRASH_POINT(recv_tomb_skipping);
		r.at(i).w.store((t + r.lap) | S_EMPTY, release); // [R2] pairs with [A2] in ring.h
		notify_room(r, 1);
		if (is_polled(r))
			watch_tell(r.o, out_of(r) | CH_POLL_EMPTY, 0);
		t += TICKET;
	}
	return RING_AGAIN;
}

int ring_no_message(lane &r, u32 me, u64 &t, u64 claim, u64 w) noexcept
{
	const i64 d = static_cast<i64>(ahead(claim, t));

	if (d >= static_cast<i64>(TICKET)) {
		t = skip(r, claim, r.ends->head);
		return RING_AGAIN;
	}
	if (d >= 0 && w == (t | S_TOMB))
		return skip_tombstone(r, me, t, claim);
	if (d >= 0 && (w == (t | S_EMPTY) || word_ticket(w) == t - r.lap)) {
		r.recv_at.store(t, relaxed);                                            // private hint
		if (w == (t | S_EMPTY) && (r.h->state.load(relaxed) & CHANNEL_CLOSING)) // close() woke us for it
			return seal(r, t);
		return -EAGAIN; // empty, or its previous reader is not done
	}
	if (r.q[r.index(t)].load(acquire) != claim) // [C2] pairs with [C1] in ring.h
		return RING_AGAIN;
	return damaged(r.recv_at, claim);
}

// ---- one sender, one receiver: closing, and taking a role over

// Makes every running thread pass a barrier, or waits far longer than any processor keeps a store to itself.
static void make_all_pass_a_barrier() noexcept
{
	const timespec long_enough{0, 1000000};

	if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) != 0)
		nanosleep(&long_enough, nullptr);
}

int spsc_seal(const lane &r, u64 t) noexcept
{
	u64 end = r.ends->tail.load(acquire); // [Z2] pairs with [Z1]

	if (end == 0) {
		make_all_pass_a_barrier();                   // the argument is in spsc.h
		if (r.of(t).w.load(acquire) == (t | S_FULL)) // [A1] pairs with [R1] in spsc.h
			return RING_AGAIN;
		CH_CRASH_POINT(spsc_sealing);
		if (r.ends->tail.compare_exchange_strong(end, t | SPSC_SEALED, acq_rel,
							 acquire)) // [Z1] pairs with [Z2]
			return -EPIPE;
	}
	return spsc_is_past_end(r, t) ? -EPIPE : RING_AGAIN;
}

int spsc_sent(const lane &r, u64 t, int n) noexcept
{
	if (!ring_is_quiet(r))
		ring_sent(r, t, 0, n);
	if (!(r.h->state.load(acquire) & CHANNEL_CLOSING)) // a flag; that it is seen when it must be: spsc.h
		return n;
	u64 end = 0;
	if (r.ends->tail.compare_exchange_strong(end, (t + TICKET) | SPSC_SEALED, acq_rel,
						 acquire)) // [Z1] pairs with [Z2]
		return n;
	// Nobody will ever look at what lies past the end again, but who frees the channel's blocks.
	for (u64 k = 0; k < static_cast<u64>(n) && spsc_is_past_end(r, t - k * TICKET); k++)
		r.of(t - k * TICKET).w.store((t - k * TICKET) | S_EMPTY, relaxed);
	const i64 too_many = static_cast<i64>(t + TICKET - word_ticket(end)) / static_cast<i64>(TICKET);
	return too_many <= 0 ? n : too_many < n ? n - static_cast<int>(too_many) : -EPIPE;
}

void spsc_begin_sending(lane &r) noexcept
{
	const u64 head = word_ticket(r.ends->head.load(acquire)); // [D2] pairs with [D1] in spsc.h
	u64 next = head;

	// The last ticket sent is in its slot, as FULL, unless none ever was.
	for (u64 i = 0; i <= r.mask; i++) {
		const u64 w = r.at(i).w.load(acquire), t = word_ticket(w); // [A1] pairs with [R1]
		if (slot_state_of(w) == S_FULL && static_cast<i64>(t + TICKET - next) > 0)
			next = t + TICKET;
	}
	r.head_seen.store(head, relaxed); // the sender's own, both
	r.send_at.store(next, relaxed);
}

void spsc_begin_receiving(lane &r) noexcept
{
	r.recv_at.store(word_ticket(r.ends->head.load(acquire)), relaxed); // [D2] pairs with [D1] in spsc.h
}

// ---- waking

void ring_wake_all(const channel_header *h) noexcept
{
	channel_header *c = const_cast<channel_header *>(h); // what a view of a channel may write

	event_wake(c->not_full, EVERYBODY); // first: ring_delivered rests on it
	event_wake(c->urgent_not_full, EVERYBODY);
	event_wake(c->not_empty, EVERYBODY);
	event_wake(c->received, EVERYBODY);
}

i64 ring_sent(const lane &r, u64 t, i64 result, int n) noexcept
{
	event_notify(r.h->not_empty, n);
	CH_CRASH_POINT(send_notified);
	const bool is_room = r.is_spsc ? ring_has_room(r) : ring_is_at(r, t + TICKET, S_EMPTY);
	if (is_room && !event_is_quiet(*r.not_full))
		event_wake(*r.not_full, 1); // pass the baton: the room is more than one message's
	if (is_polled(r))
		watch_tell(r.o, is_room ? CH_POLL_IN : CH_POLL_IN | CH_POLL_FULL, out_of(r));
	return result;
}

i64 ring_delivered(const lane &r, u64 t, i64 result, int n) noexcept
{
	notify_room(r, n);
	CH_CRASH_POINT(recv_notified);
	const bool is_more = ring_is_at(r, t + TICKET, S_FULL);
	if (is_polled(r))
		watch_tell(r.o, is_more ? out_of(r) : out_of(r) | CH_POLL_EMPTY, CH_POLL_IN);
	event_notify(r.h->received, EVERYBODY); // each waits for a ticket of its own
	if (event_is_quiet(r.h->not_empty))
		return result;
	if (r.h->state.load(relaxed) & CHANNEL_CLOSING) // set before close() woke everybody
		event_wake(r.h->not_empty, EVERYBODY);
	else if (is_more)
		event_wake(r.h->not_empty, 1); // pass the baton
	return result;
}

void ring_requeued(const lane &r) noexcept
{
	event_notify(r.h->not_empty, 1);
	if (is_polled(r))
		watch_tell(r.o, CH_POLL_IN, 0);
}

} // namespace ch::core

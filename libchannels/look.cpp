// SPDX-License-Identifier: Apache-2.0
// look.cpp - looking at a channel's messages without receiving them, and receiving them without looking.
//
// A message is peeked at without a claim: it may be received, and its slot and its block be written anew, while it is
// copied. So the bytes are only believed if, after the copy, nobody had claimed the message: until then nobody
// may change them.
#include "config.h"
#include "message.h"
#include <cerrno>

namespace ch::core {

// memcpy from bytes that others may be writing: what comes of it is thrown away then. ThreadSanitizer need not know.
[[gnu::noinline]] __attribute__((no_sanitize("thread"))) static void copy_racing(void *to, const u8 *from,
										 u64 len) noexcept
{
	using word = u64 __attribute__((may_alias));
	u8 *t = static_cast<u8 *>(to);
	u64 k = 0;

	for (; k + 8 <= len; k += 8) { // messages begin at multiples of eight
		const u64 v = *reinterpret_cast<const volatile word *>(from + k);
		__builtin_memcpy(t + k, &v, 8);
	}
	for (; k < len; k++)
		t[k] = *static_cast<const volatile u8 *>(from + k);
}

static constexpr int CHANGED = INT_MIN;

// Copies what slot s holds now. 0, -ENOBUFS, -EPROTO or CHANGED; each may be because it changed.
static int copy_message(const ch_channel *ch, const lane &l, const slot &s, u64 t, incoming &in) noexcept
{
	block_ref ref{};
	block_place b;
	const u8 *d = s.data;

	if (look_at(l, s, t, in) == verdict::damaged)
		return -EPROTO;
	if (in.refused)
		return in.refused;
	if (in.is_block) {
		copy_racing(&ref, d, sizeof(ref));
		d += sizeof(ref);
	}
	if (in.flags & CH_MESSAGE_TAGGED) {
		copy_racing(&in.tag, d, sizeof(in.tag));
		d += sizeof(in.tag);
	}
	if (in.is_block) {
		if (!block_look(ch->pool->map, ref, b) || in.len > b.len)
			return l.is_spsc ? CHANGED : -EPROTO; // the receiver takes the block over before it delivers
		d = b.addr;
	}
	copy_racing(in.buf, d, in.len);
	return 0;
}

// Looks at ticket t, while word is as it was: the word whose change begins a receive.
static int peek_ticket(const ch_channel *ch, const lane &l, u64 t, shared<u64> &word, u64 is, incoming &in) noexcept
{
	in.refused = 0;
	const int rc = copy_message(ch, l, l.of(t), t, in);

	// A read-modify-write, so that it is not before the copy. [C2], [D2]: who changed it may have changed the bytes
	return word.fetch_add(0, acq_rel) == is ? rc : CHANGED;
}

static int peek_spsc(const ch_channel *ch, const lane &l, incoming &in) noexcept
{
	const u64 head = l.ends->head.load(acquire), t = word_ticket(head); // [D2] pairs with [D1] in spsc.h

	if (l.of(t).w.load(acquire) != (t | S_FULL) || spsc_is_past_end(l, t))        // [A1] pairs with [R1] in spsc.h
		return l.h->state.load(relaxed) & CHANNEL_CLOSING ? -EPIPE : -EAGAIN; // set before close() woke us
	return peek_ticket(ch, l, t, l.ends->head, head, in);
}

static int peek_lane(const ch_channel *ch, const lane &l, incoming &in) noexcept
{
	const u64 t = ring_oldest(l);
	shared<u64> &claim = l.q[l.index(t)];
	const u64 x = claim.load(acquire),
		  w = l.of(t).w.load(acquire); // [C2] with [C1], [A1] pairs with [R1] in ring.h

	if (word_ticket(x) == t && w == (t | S_FULL))
		return peek_ticket(ch, l, t, claim, x, in);
	if (word_ticket(x) != t)
		return CHANGED;
	return ring_is_sealed(l, t) ? -EPIPE : -EAGAIN;
}

static int peek_left(ch_channel *ch, incoming &in) noexcept
{
	lane *l;
	u64 t;

	if (!ring_find_recovered(ch->r, l, t))
		return -EAGAIN;
	const int rc = peek_ticket(ch, *l, t, l->q[l->index(t)], (t + l->lap) | NOBODY, in);
	in.flags |= CH_MESSAGE_REDELIVERED;
	return rc;
}

static int peek_once(ch_channel *ch, incoming &in) noexcept
{
	const u64 state = ch->r.h->state.load(acquire); // [V2] pairs with [V1]
	int rc = -EAGAIN, urgent = -EPIPE;

	if (state & CHANNEL_DESTROYED)
		return -ESTALE;
	if (state & CHANNEL_RECOV)
		rc = peek_left(ch, in);
	if (rc == -EAGAIN && ch->r.urgent.slots)
		rc = urgent = peek_lane(ch, ch->r.urgent, in);
	if (rc == -EAGAIN || rc == -EPIPE)
		rc = ch->r.is_spsc ? peek_spsc(ch, ch->r, in) : peek_lane(ch, ch->r, in);
	if (rc == -EPIPE && urgent == -EAGAIN)
		rc = -EAGAIN;
	if (rc == -EAGAIN && (state & (CHANNEL_SENDER_LEFT | CHANNEL_SENDER_DIED)))
		return state & CHANNEL_SENDER_LEFT ? -EPIPE : -EOWNERDEAD;
	return rc;
}

// Again if it changed; who loses so often waits for the next.
static int peek(ch_channel *ch, incoming &in) noexcept
{
	for (int n = 0; n < 1000; n++) {
		const int rc = peek_once(ch, in);
		if (rc != CHANGED)
			return rc;
	}
	return -EAGAIN;
}

static int drop(ch_channel *ch, const incoming &in, int rc) noexcept
{
	if (rc == 0 && in.is_block)
		pool_free(ch->pool, in.block);
	return rc;
}

// Receives and drops the messages of a lane that came before now. How many, or what went wrong with the first.
static ssize_t drain_lane(ch_channel *ch, lane &l, u32 me) noexcept
{
	const bool is_closing = ch->r.h->state.load(relaxed) & CHANNEL_CLOSING; // a flag
	const u64 end = ring_end(l);
	ssize_t n = 0;

	for (;; n++) {
		incoming in;
		in.end = &end;
		const int rc = drop(ch, in, receive_from(ch, l, me, is_closing, in));
		if (rc != 0)
			return n > 0 || rc == LEFT || rc == -EAGAIN || rc == -EPIPE ? n : rc;
	}
}

static ssize_t drain_left(ch_channel *ch, u32 me) noexcept
{
	ssize_t n = 0;

	for (; ch->r.h->state.load(acquire) & CHANNEL_RECOV; n++) { // [V2] pairs with [V1] in recover.cpp
		incoming in;
		if (drop(ch, in, receive_left(ch, me, in)) != 0)
			break;
	}
	return n;
}

} // namespace ch::core

using namespace ch::core;

ssize_t ch_channel_peek(struct ch_channel *ch, void *buf, size_t cap, int64_t timeout_ns, struct ch_recv_info *out_info)
{
	static char nothing; // a buffer of no bytes is a buffer
	incoming in;

	if (!ch || (!buf && cap > 0))
		return fail(-EINVAL, "channel: NULL");
	const int me = channel_me(ch);
	if (me < 0)
		return me;
	in.buf = buf ? buf : &nothing;
	in.cap = cap;
	auto attempt = [&] { return peek(ch, in); };
	int rc = attempt();
	if (rc == -EAGAIN && timeout_ns != CH_TRY) {
		rc = wait_for_message(ch, timeout_ns, attempt);
		if (rc == 0)
			leave_message(ch, 0); // the wake-up was somebody else's too
	}
	if (rc == -ENOBUFS)
		return leave_message(ch, rc);
	if (rc < 0)
		return refuse(ch, rc);
	fill_info(out_info, in);
	return static_cast<ssize_t>(in.len);
}

ssize_t ch_channel_drain(struct ch_channel *ch)
{
	if (!ch)
		return fail(-EINVAL, "channel: NULL");
	const int me = channel_me(ch);
	const int rc = me < 0                                             ? me
		       : ch->r.h->state.load(relaxed) & CHANNEL_DESTROYED ? -ESTALE
									  : role_check(ch, RECEIVER); // a flag
	if (rc < 0)
		return refuse(ch, rc);
	ssize_t n = drain_left(ch, static_cast<u32>(me));
	for (lane *l : {&ch->r.urgent, static_cast<lane *>(&ch->r)}) {
		const ssize_t k = l->slots ? drain_lane(ch, *l, static_cast<u32>(me)) : 0;
		if (k < 0)
			return n > 0 ? n : refuse(ch, static_cast<int>(k));
		n += k;
	}
	return n;
}

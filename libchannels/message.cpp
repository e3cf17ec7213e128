// SPDX-License-Identifier: Apache-2.0
// message.cpp - send and receive by copying: the message path.
#include "config.h"
#include "message.h"
#include <cerrno>
#include <cstring>

namespace ch::core {

// memcpy by pieces that it does not give to rep movsb, which is 25 times slower on Zen 3 where the target lies a little
// beyond the source within a page: a block begins with its page, a large buffer of malloc 16 bytes later.
static constexpr u64 VERY_LONG = 8 << 20;

void copy_long(void *to, const void *from, u64 len) noexcept
{
	u8 *t = static_cast<u8 *>(to);
	const u8 *f = static_cast<const u8 *>(from);

	if (len >= VERY_LONG) { // past the caches memcpy knows better
		std::memcpy(to, from, len);
		return;
	}
	for (; len > 2048; len -= 2048, t += 2048, f += 2048)
		std::memcpy(t, f, 2048);
	std::memcpy(t, f, len);
}

int refuse(const ch_channel *ch, int rc) noexcept
{
	const char *pool = ch->pool->seg->name;

	switch (rc) {
	case -ESTALE:
		return object_stale(ch);
	case -EPIPE:
		return fail(rc, "channel in pool %s is closed, or the other side has gone", pool);
	case -EOWNERDEAD:
		return fail(rc, "channel in pool %s: the other side died", pool);
	case -EPROTO:
		return fail(rc, "channel in pool %s: shared memory is damaged", pool);
	case -EINPROGRESS:
		return fail(rc, "channel in pool %s: the message was sent, its receipt did not come", pool);
	default:
		return rc;
	}
}

// ---- send

void fill_slot(slot &s, const outgoing &out, u32 me) noexcept
{
	u8 *d = s.data;
	u64 what = out.len;

	if (out.is_block) {
		const block_ref ref{out.block.index, block_tag(out.block.word->load(relaxed))}; // ours
		// If we die before the commit, the slot becomes a tombstone and SENDING says that the block is free.
		out.block.word->store(block_word(ref.tag, B_SENDING, me), release); // [B1] pairs with [B2]
		CH_CRASH_POINT(send_block_marked);
		std::memcpy(d, &ref, sizeof(ref));
		d += sizeof(ref);
		what |= IN_BLOCK;
	}
	if (out.flags & CH_MESSAGE_TAGGED) {
		std::memcpy(d, &out.tag, sizeof(out.tag));
		d += sizeof(out.tag);
		what |= WITH_TAG;
	}
	s.what.store(what, relaxed); // published by the slot word
	if (!out.is_block)
		copy(d, out.buf, out.len);
}

static int publish_once(ch_channel *ch, lane &l, u32 me, const outgoing &out, u64 *ticket) noexcept
{
	const u64 state = ch->r.h->state.load(relaxed); // flags

	if (state & STOP_SEND) [[unlikely]]
		return stopped(state);
	auto fill = [&](slot &s, u64 t, u64 = 0) INLINE_LAMBDA {
		*ticket = t;
		fill_slot(s, out, me);
	};
	if (!l.is_spsc)
		return ring_publish(l, me, fill);
	const i64 n = spsc_push(l, 1, fill);
	if (n < 0 && out.is_block) // past the end: nobody will take the block
		out.block.word->store(block_word(block_tag(out.block.word->load(relaxed)), B_OWNED, me),
				      release); // [B1]
	return n > 0 ? 0 : n < 0 ? static_cast<int>(n) : -EAGAIN;
}

// One try, and where it finds no room and may wait, the rest.
int publish(ch_channel *ch, lane &l, const outgoing &out, i64 timeout_ns, u64 *out_ticket) noexcept
{
	const int me = channel_me(ch);
	int rc = me < 0 ? me : role_check(ch, SENDER);

	if (rc < 0)
		return rc;
	auto attempt = [&] { return publish_once(ch, l, static_cast<u32>(me), out, out_ticket); };
	rc = attempt();
	if (rc == -EAGAIN && timeout_ns != CH_TRY)
		rc = wait_until(
			ch, *l.not_full, timeout_ns, attempt, [&l] { return ring_may_publish(l); },
			[&l] { return ring_blocker_of_send(l); });
	return rc == 0 || rc == -EAGAIN ? rc : refuse(ch, rc);
}

int may_send(ch_channel *ch) noexcept
{
	const int me = channel_me(ch);
	const u64 state = me < 0 ? 0 : ch->r.h->state.load(relaxed); // flags

	return me < 0 ? me : state & STOP_SEND ? refuse(ch, stopped(state)) : 0;
}

int check_flags(const ch_channel *ch, u32 flags) noexcept
{
	if (flags & ~(CH_MESSAGE_TAGGED | CH_MESSAGE_URGENT))
		return fail(-EINVAL, "channel: unknown message flags %#x", flags);
	if ((flags & CH_MESSAGE_URGENT) && !ch->r.urgent.slots)
		return fail(-EINVAL, "channel: it has no lane for urgent messages");
	return 0;
}

static int send_large(ch_channel *ch, lane &l, outgoing &out, i64 timeout_ns, i64 until_ns, u64 *ticket) noexcept
{
	int rc = may_send(ch);

	if (rc == 0 && timeout_ns == CH_TRY && ring_count(l) > l.mask)
		return -EAGAIN; // before the copy
	if (rc == 0)
		rc = pool_alloc(ch->pool, out.len, timeout_ns == CH_TRY, until_ns, out.block);
	if (rc < 0)
		return rc;
	out.is_block = true;
	copy_long(out.block.addr, out.buf, out.len);
	rc = timed(publish(ch, l, out, rest_of(timeout_ns, until_ns), ticket), timeout_ns);
	if (rc < 0)
		pool_free(ch->pool, out.block);
	return rc;
}

// It was sent: anything but a receipt means that there is none yet.
static int wait_receipt(ch_channel *ch, lane &l, u64 ticket, i64 timeout_ns) noexcept
{
	auto attempt = [&] {
		return ring_is_delivered(l, ticket) ? 0
		       : ch->r.h->state.load(relaxed) & // flags
				       (CHANNEL_DESTROYED | CHANNEL_RECEIVER_LEFT | CHANNEL_RECEIVER_DIED)
			       ? -EINPROGRESS
			       : -EAGAIN;
	};
	int rc = attempt();

	if (rc == -EAGAIN && timeout_ns != CH_TRY)
		rc = wait_until(
			ch, ch->r.h->received, timeout_ns, attempt, [&] { return ring_is_delivered(l, ticket); },
			[&l, ticket] { return ring_receiver_of(l, ticket); });
	return rc == 0 ? 0 : refuse(ch, -EINPROGRESS);
}

int send_whole(ch_channel *ch, outgoing &out, u32 completion, i64 timeout_ns) noexcept
{
	lane &l = lane_of(ch, out.flags);
	const bool is_inline = !out.is_block && out.len + out.head() <= l.inline_max;
	const bool is_timed = timeout_ns > 0 && (completion == CH_RECEIVED || !is_inline);
	const i64 until_ns = is_timed ? deadline_of(timeout_ns) : NEVER;
	u64 ticket = 0;
	int rc;

	rc = channel_me(ch); // which also knows who we are
	if (rc < 0)
		return rc;
	out.tag.sender = ch->self;
	if (out.is_block || is_inline) {
		if (is_inline)
			touch(out.buf, out.len);
		rc = publish(ch, l, out, timeout_ns, &ticket);
	} else {
		rc = send_large(ch, l, out, timeout_ns, until_ns, &ticket);
	}
	return rc < 0 || completion != CH_RECEIVED ? rc : wait_receipt(ch, l, ticket, rest_of(timeout_ns, until_ns));
}

// ---- receive

verdict look_at(const lane &l, const slot &s, u64 ticket, incoming &in) noexcept
{
	const u64 what = s.what.load(relaxed); // the claim tells whether it was this message's
	const u64 head = what & WITH_TAG ? sizeof(message_tag) : 0;

	in.len = what & LEN_MASK;
	in.is_block = what & IN_BLOCK;
	in.flags = (what & WITH_TAG ? CH_MESSAGE_TAGGED : 0) |
		   (l.not_full == &l.h->urgent_not_full ? CH_MESSAGE_URGENT : 0);
	in.from = &l;
	in.ticket = ticket;
	if (!in.is_block && in.len + head > l.inline_max) [[unlikely]]
		return verdict::damaged;
	if (in.end && static_cast<i64>(ticket - *in.end) >= 0) [[unlikely]] {
		in.refused = -EAGAIN;
		return verdict::leave;
	}
	if (in.is_kept)
		return verdict::keep;
	if (!in.is_block && in.msg && in.len > SMALL && !in.scratch) [[unlikely]] {
		in.refused = -ENOSPC;
		return verdict::leave;
	}
	if (!in.msg && in.buf && in.len > in.cap) [[unlikely]] {
		in.refused = -ENOBUFS;
		return verdict::leave;
	}
	return verdict::take;
}

static int use_block(const ch_channel *ch, u32 me, const slot &s, incoming &in) noexcept
{
	block_ref ref;

	std::memcpy(&ref, s.data, sizeof(ref));
	if (in.is_kept) {
		in.at = nullptr;
		if (!block_look(ch->pool->map, ref, in.block) || in.len > in.block.len)
			return -EPROTO;
		in.at = in.block.addr;
		return 0;
	}
	if (!block_take(ch->pool->map, ref, me, in.block))
		return -EPROTO;
	CH_CRASH_POINT(recv_block_taken);
	if (in.len > in.block.len) { // the block is ours now; who sent it lied
		block_free(ch->pool->map, in.block, me);
		return -EPROTO;
	}
	if (!in.msg && in.buf)
		copy_long(in.buf, in.block.addr, in.len);
	return 0;
}

// What is copied now is delivered to somebody else if we die before the delivery.
int use_it(const ch_channel *ch, u32 me, const slot &s, incoming &in) noexcept
{
	const u8 *d = s.data + (in.is_block ? sizeof(block_ref) : 0);

	if (slot_state_of(s.w.load(relaxed)) == S_RECOV) // ours
		in.flags |= CH_MESSAGE_REDELIVERED;
	if (in.flags & CH_MESSAGE_TAGGED) {
		std::memcpy(&in.tag, d, sizeof(in.tag));
		d += sizeof(in.tag);
	}
	if (in.is_block)
		return use_block(ch, me, s, in);
	in.at = d;
	if (in.is_kept)
		return 0;
	if (in.msg || in.buf)
		copy(!in.msg ? in.buf : in.len > SMALL ? in.scratch->addr : in.msg->small_, d, in.len);
	CH_CRASH_POINT(recv_copied);
	return 0;
}

int receive_from(ch_channel *ch, lane &l, u32 me, bool is_closing, incoming &in) noexcept
{
	auto look = [&](const slot &s, u64 t, u64 = 0) {
		return is_closing && l.is_spsc && spsc_is_past_end(l, t) ? verdict::leave : look_at(l, s, t, in);
	};
	auto use = [&](const slot &s, u64, u64 = 0) { return use_it(ch, me, s, in); };

	if (!l.is_spsc)
		return static_cast<int>(ring_consume(l, me, LEFT, look, use));
	in.refused = 0;
	for (u64 guard = ring_guard(l); guard > 0; guard--) {
		i64 rc = 0;
		if (spsc_pop(l, 1, &rc, look, use))
			return static_cast<int>(rc);
		if (in.refused)
			return LEFT;
		rc = is_closing ? spsc_seal(l, l.recv_at.load(relaxed)) : -EAGAIN; // the receiver's own
		if (rc != RING_AGAIN)
			return static_cast<int>(rc);
	}
	return -EAGAIN;
}

int receive_left(ch_channel *ch, u32 me, incoming &in) noexcept
{
	lane *l;
	u64 t;

	while (ring_find_recovered(ch->r, l, t)) {
		slot &s = l->of(t);
		const verdict v = look_at(*l, s, t, in);
		if (v == verdict::leave)
			return LEFT;
		if (ring_claim_recovered(*l, t, me))
			return static_cast<int>(ring_deliver(*l, s, t, v, [&](const slot &at, u64) {
				return i64{use_it(ch, me, at, in)};
			}));
	}
	return -EAGAIN;
}

int receive_once(ch_channel *ch, u32 me, incoming &in) noexcept
{
	const u64 state =
		ch->r.h->state.load(acquire); // [V2] pairs with [V1]: all that was sent before the sender went
	int urgent = -EPIPE;

	if (state & CHANNEL_DESTROYED) [[unlikely]]
		return -ESTALE; // who changes the state word wakes us afterwards
	if (state & CHANNEL_RECOV) [[unlikely]] {
		const int rc = receive_left(ch, me, in);
		if (rc != -EAGAIN)
			return rc;
	}
	if (ch->r.urgent.slots) {
		urgent = receive_from(ch, ch->r.urgent, me, state & CHANNEL_CLOSING, in);
		if (urgent != -EAGAIN && urgent != -EPIPE)
			return urgent;
	}
	int rc = receive_from(ch, ch->r, me, state & CHANNEL_CLOSING, in);
	if (rc == -EPIPE &&
	    (urgent == -EAGAIN || ((ch->r.flags & CH_CHANNEL_ACKNOWLEDGED) && ring_has_unreleased(ch->r))))
		rc = -EAGAIN; // closed, but an urgent message is still being written, or a message may be delivered
			      // again
	if (rc == -EAGAIN && (state & (CHANNEL_SENDER_LEFT | CHANNEL_SENDER_DIED))) [[unlikely]]
		return state & CHANNEL_SENDER_LEFT ? -EPIPE : -EOWNERDEAD;
	return rc;
}

int receive(ch_channel *ch, i64 timeout_ns, incoming &in) noexcept
{
	const int me = channel_me(ch);
	int rc = me < 0 ? me : role_check(ch, RECEIVER);

	if (rc < 0) [[unlikely]]
		return rc;
	auto attempt = [&] { return receive_once(ch, static_cast<u32>(me), in); };
	rc = attempt();
	return rc != -EAGAIN || timeout_ns == CH_TRY ? rc : wait_for_message(ch, timeout_ns, attempt);
}

int leave_message(ch_channel *ch, int rc) noexcept
{
	event_wake(ch->r.h->not_empty, 1);
	return rc == -ENOBUFS ? fail(rc, "channel: the message is longer than the buffer") : rc;
}

void fill_info(ch_recv_info *info, const incoming &in) noexcept
{
	const bool is_tagged = in.flags & CH_MESSAGE_TAGGED;

	if (info)
		*info = {in.flags, 0, is_tagged ? in.tag.tag : 0, {is_tagged ? in.tag.sender : 0}};
}

} // namespace ch::core

using namespace ch::core;

// All that is not the common case.
[[gnu::noinline]] static int send_any(ch_channel *ch, const void *buf, u64 len, i64 timeout_ns) noexcept
{
	outgoing out;

	if (!ch || (!buf && len > 0))
		return fail(-EINVAL, "channel: NULL");
	out.buf = buf;
	out.len = len;
	return send_whole(ch, out, CH_QUEUED, timeout_ns);
}

[[gnu::noinline]] static int send_spsc(ch_channel *ch, const void *buf, u64 len, i64 timeout_ns) noexcept
{
	if (!role_is_mine(ch, SENDER) || may_not_send(ch)) [[unlikely]]
		return send_any(ch, buf, len, timeout_ns);
	const i64 n = spsc_push(ch->r, 1, [buf, len](slot &s, u64, u64) INLINE_LAMBDA {
		s.what.store(len, relaxed); // published by the slot word
		copy_short(s.data, buf, len);
	});
	return n > 0 ? 0 : n < 0 ? refuse(ch, static_cast<int>(n)) : send_any(ch, buf, len, timeout_ns);
}

[[gnu::noinline]] static ssize_t recv_any(ch_channel *ch, void *buf, u64 cap, i64 timeout_ns,
					  ch_recv_info *info) noexcept
{
	static char nothing; // a buffer of no bytes is a buffer
	incoming in;

	if (!ch || (!buf && cap > 0))
		return fail(-EINVAL, "channel: NULL");
	in.buf = buf ? buf : &nothing;
	in.cap = cap;
	const int rc = receive(ch, timeout_ns, in);
	if (rc == 0) {
		if (in.is_block)
			pool_free(ch->pool, in.block);
		fill_info(info, in);
		return static_cast<ssize_t>(in.len);
	}
	return rc == LEFT ? leave_message(ch, in.refused) : refuse(ch, rc);
}

// A message that is on its way already is met without a pause, or hardly any, and goes the short way still.
static bool comes_soon(const ch_channel *ch, i64 timeout_ns) noexcept
{
	constexpr int looks = 64, pauses = 16; // a microsecond at most: less than SPIN_MIN_NS

	if (timeout_ns == CH_TRY || spin_budget(ch) == 0)
		return false;
	for (int n = 0; n < looks + pauses; n++) {
		if (ring_may_consume(ch->r))
			return true;
		if (n >= looks)
			cpu_relax();
	}
	return false;
}

[[gnu::noinline]] static ssize_t recv_spsc(ch_channel *ch, void *buf, u64 cap, i64 timeout_ns) noexcept
{
	const u64 max = cap < ch->quick_spsc ? cap : ch->quick_spsc;
	u64 len = 0;
	i64 rc = 0;

	if (!role_is_mine(ch, RECEIVER) || needs_a_look(ch->r.h->state.load(relaxed))) [[unlikely]] // as in receive_once()
		return recv_any(ch, buf, cap, timeout_ns, nullptr);
	auto look = [&len, max](const slot &s, u64, u64) INLINE_LAMBDA {
		len = s.what.load(relaxed); // the sender is done with it
		return len <= max ? verdict::take : verdict::leave;
	};
	auto use = [&len, buf](const slot &s, u64, u64) INLINE_LAMBDA {
		copy_short(buf, s.data, len);
		return i64{0};
	};
	if (spsc_pop(ch->r, 1, &rc, look, use) || (comes_soon(ch, timeout_ns) && spsc_pop(ch->r, 1, &rc, look, use)))
		return static_cast<ssize_t>(len);
	return recv_any(ch, buf, cap, timeout_ns, nullptr);
}

// The common case of both calls runs straight through: a short message, at the ticket we expect, nobody asleep.
int ch_channel_send(struct ch_channel *ch, const void *buf, size_t len, int64_t timeout_ns)
{
	if (!ch || !buf || len - 1 >= ch->quick_send || may_not_send(ch)) [[unlikely]]
		return ch && buf && len - 1 < ch->quick_spsc ? send_spsc(ch, buf, len, timeout_ns)
							     : send_any(ch, buf, len, timeout_ns);
	const u32 me = ch->me.load(relaxed); // as in channel_me()
	if (me == NOBODY) [[unlikely]]
		return send_any(ch, buf, len, timeout_ns);
	return static_cast<int>(ring_publish_at(
		ch->r, me, ch->r.send_at.load(relaxed), // private hint
		[buf, len](slot &s, u64) INLINE_LAMBDA {
			s.what.store(len, relaxed); // published by the slot word
			copy_short(s.data, buf, len);
		},
		[=](u64, u64) INLINE_LAMBDA { return static_cast<i64>(send_any(ch, buf, len, timeout_ns)); }));
}

// slowly() where it is not the common case, and where there is no message.
template <class Slowly>
[[gnu::always_inline]] static inline ssize_t recv_short(ch_channel *ch, void *buf, u64 cap, Slowly slowly) noexcept
{
	const u32 me = ch->me.load(relaxed); // as in channel_me()
	if (me == NOBODY) [[unlikely]]
		return slowly();
	const u64 max = cap < ch->quick_recv ? cap : ch->quick_recv;
	u64 len = 0;
	return ring_consume_at(
		ch->r, me, ch->r.recv_at.load(relaxed), // private hint
		[&len, max](const slot &s, u64) INLINE_LAMBDA {
			len = s.what.load(relaxed); // the claim tells whether it was this message's
			return len <= max ? verdict::take : verdict::leave;
		},
		[&len, buf](const slot &s, u64) INLINE_LAMBDA {
			copy_short(buf, s.data, len);
			CH_CRASH_POINT(recv_copied);
			return static_cast<i64>(len);
		},
		slowly, slowly);
}

[[gnu::noinline]] static ssize_t recv_soon(ch_channel *ch, void *buf, u64 cap, i64 timeout_ns) noexcept
{
	auto slowly = [=](auto...) INLINE_LAMBDA { return i64{recv_any(ch, buf, cap, timeout_ns, nullptr)}; };

	return comes_soon(ch, timeout_ns) ? recv_short(ch, buf, cap, slowly) : slowly();
}

ssize_t ch_channel_recv(struct ch_channel *ch, void *buf, size_t cap, int64_t timeout_ns)
{
	if (!ch || !buf || !ch->quick_recv || needs_a_look(ch->r.h->state.load(relaxed))) [[unlikely]] // as in receive_once()
		return ch && buf && ch->quick_spsc ? recv_spsc(ch, buf, cap, timeout_ns)
						   : recv_any(ch, buf, cap, timeout_ns, nullptr);
	auto slowly = [=](auto...) INLINE_LAMBDA { return i64{recv_soon(ch, buf, cap, timeout_ns)}; };
	return recv_short(ch, buf, cap, slowly);
}

int ch_channel_send_attr(struct ch_channel *ch, const void *buf, size_t len, const struct ch_send_attr *attr,
			 int64_t timeout_ns)
{
	ch_send_attr a;
	outgoing out;
	int rc = read_attr(attr, &a, sizeof(a));

	if (rc == 0 && (!ch || (!buf && len > 0) || a.reserved || a.completion > CH_RECEIVED))
		rc = fail(-EINVAL, "channel: NULL, or unknown attributes");
	rc = rc < 0 ? rc : check_flags(ch, a.flags);
	if (rc < 0)
		return rc;
	out.buf = buf;
	out.len = len;
	out.flags = a.flags;
	out.tag.tag = a.tag;
	return send_whole(ch, out, a.completion, timeout_ns);
}

ssize_t ch_channel_recv_info(struct ch_channel *ch, void *buf, size_t cap, int64_t timeout_ns,
			     struct ch_recv_info *out_info)
{
	return recv_any(ch, buf, cap, timeout_ns, out_info);
}

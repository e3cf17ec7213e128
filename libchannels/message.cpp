// SPDX-License-Identifier: Apache-2.0
// message.cpp - send, receive, and both in place: the message path.
#include "config.h"
#include "channel.h"
#include "error.h"
#include "wait.h"
#include <cerrno>
#include <cstring>

namespace ch::core {

#define INLINE_LAMBDA __attribute__((always_inline)) // both compilers take it here

static constexpr u64 SMALL = sizeof(ch_message::small_);

// memcpy of a few bytes, without the call: by words that may overlap.
[[gnu::always_inline]] static inline void copy_short(void *to, const void *from, u64 len) noexcept
{
	u8 *d = static_cast<u8 *>(to);
	const u8 *s = static_cast<const u8 *>(from);

	if (len >= 8) {
		for (u64 k = 0; k + 8 < len; k += 8)
			std::memcpy(d + k, s + k, 8);
		std::memcpy(d + len - 8, s + len - 8, 8);
	} else if (len >= 4) {
		std::memcpy(d, s, 4);
		std::memcpy(d + len - 4, s + len - 4, 4);
	} else {
		for (u64 k = 0; k < len; k++)
			d[k] = s[k];
	}
}

// memcpy by pieces that it does not give to rep movsb, which is 25 times slower on Zen 3 where the target lies a little
// beyond the source within a page: a block begins with its page, a large buffer of malloc 16 bytes later.
static constexpr u64 VERY_LONG = 8 << 20;

static void copy_long(void *to, const void *from, u64 len) noexcept
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

static constexpr u64 SHORT = 64;

[[gnu::always_inline]] static inline void copy(void *to, const void *from, u64 len) noexcept
{
	if (len <= SHORT)
		copy_short(to, from, len);
	else
		std::memcpy(to, from, len);
}

static int refuse(ch_channel *ch, int rc) noexcept
{
	if (rc == -ESTALE)
		return fail(rc, "channel in pool %s was destroyed", ch->pool->seg->name);
	if (rc == -EPIPE)
		return fail(rc, "channel in pool %s is closed", ch->pool->seg->name);
	if (rc == -EPROTO)
		return fail(rc, "channel in pool %s: shared memory is damaged", ch->pool->seg->name);
	return rc;
}

// What keeps a call from going on whatever the ring holds; who sets a flag wakes everybody afterwards.
[[gnu::always_inline]] static inline int stopped(const ch_channel *ch, u64 stop_flags) noexcept
{
	const u64 state = ch->r.h->state.load(relaxed);

	if (state & stop_flags) [[unlikely]]
		return state & CHANNEL_DESTROYED ? -ESTALE : -EPIPE;
	return 0;
}

static constexpr u64 STOP_SEND = CHANNEL_CLOSING | CHANNEL_DESTROYED;

// ---- send

// One try, and where it finds no room and may wait, the rest.
template <class Fill>
[[gnu::always_inline]] static inline int publish(ch_channel *ch, i64 timeout_ns, Fill fill) noexcept
{
	const int me = channel_me(ch);

	if (me < 0) [[unlikely]]
		return me;
	auto attempt = [=]() INLINE_LAMBDA {
		const int stop = stopped(ch, STOP_SEND);
		return stop ? stop : ring_publish(ch->r, static_cast<u32>(me), fill);
	};
	int rc = attempt();
	if (rc == -EAGAIN && timeout_ns != CH_TRY)
		rc = wait_until(
			ch, ch->r.h->not_full, timeout_ns, attempt, [ch] { return ring_may_publish(ch->r); },
			[ch] { return ring_blocker_of_send(ch->r); });
	return rc == 0 || rc == -EAGAIN ? rc : refuse(ch, rc);
}

static void fill_inline(slot &s, const void *buf, u64 len) noexcept
{
	s.what.store(len, relaxed); // published by the slot word
	copy(s.data, buf, len);
}

static int send_inline(ch_channel *ch, const void *buf, u64 len, i64 timeout_ns) noexcept
{
	// A page of the caller's that is not there yet is fetched now and not between claim and commit.
	if (len > 0) {
		(void)*static_cast<const volatile u8 *>(buf);
		(void)static_cast<const volatile u8 *>(buf)[len - 1];
	}
	return publish(ch, timeout_ns, [buf, len](slot &s) { fill_inline(s, buf, len); });
}

static int send_block(ch_channel *ch, const block_place &b, u64 len, i64 timeout_ns) noexcept
{
	return publish(ch, timeout_ns, [ch, b, len](slot &s) noexcept {
		const u64 w = b.word->load(relaxed); // ours
		const block_ref ref{b.index, block_tag(w)};
		// If we die before the commit, the slot becomes a tombstone and SENDING says that the block is free.
		b.word->store(block_word(ref.tag, B_SENDING, ch->me.load(relaxed)), release); // [B1] pairs with [B2]
		CH_CRASH_POINT(send_block_marked);
		s.what.store(len | IN_BLOCK, relaxed); // published by the slot word
		std::memcpy(s.data, &ref, sizeof(ref));
	});
}

static i64 rest_of(i64 timeout_ns, i64 until_ns) noexcept
{
	if (timeout_ns <= 0)
		return timeout_ns;
	const i64 now = now_ns();
	return until_ns == NEVER ? CH_FOREVER : until_ns > now ? until_ns - now : CH_TRY;
}

// -EAGAIN at the end of a rest that had become CH_TRY is the end of the call's time.
static int timed(int rc, i64 timeout_ns) noexcept
{
	return rc == -EAGAIN && timeout_ns != CH_TRY ? -ETIMEDOUT : rc;
}

// Before memory is taken: whether there is any use.
static int may_send(ch_channel *ch) noexcept
{
	const int me = channel_me(ch), stop = me < 0 ? me : stopped(ch, STOP_SEND);

	return me < 0 || stop == 0 ? stop : refuse(ch, stop);
}

static int send_large(ch_channel *ch, const void *buf, u64 len, i64 timeout_ns) noexcept
{
	const i64 until_ns = timeout_ns == CH_TRY ? 0 : deadline_of(timeout_ns);
	block_place b;
	int rc = may_send(ch);

	if (rc == 0 && timeout_ns == CH_TRY && ring_count(ch->r) > ch->r.mask)
		return -EAGAIN; // before the copy
	if (rc == 0)
		rc = pool_alloc(ch->pool, len, timeout_ns == CH_TRY, until_ns, b);
	if (rc < 0)
		return rc;
	copy_long(b.addr, buf, len);
	rc = timed(send_block(ch, b, len, rest_of(timeout_ns, until_ns)), timeout_ns);
	if (rc < 0)
		pool_free(ch->pool, b);
	return rc;
}

// ---- receive

// Reads what a slot says of its message, once, and whether the caller can have it.
[[gnu::always_inline]] static inline verdict look_at(const ch_channel *ch, const slot &s, incoming &in) noexcept
{
	const u64 what = s.what.load(relaxed); // the claim tells whether it was this message's

	in.len = what & ~IN_BLOCK;
	in.is_block = what & IN_BLOCK;
	if (!in.is_block && in.len > ch->r.inline_max) [[unlikely]]
		return verdict::damaged;
	if (!in.is_block && in.msg && in.len > SMALL && !in.scratch) [[unlikely]] {
		in.refused = -ENOSPC;
		return verdict::leave;
	}
	if (!in.msg && in.len > in.cap) [[unlikely]] {
		in.refused = -ENOBUFS;
		return verdict::leave;
	}
	return verdict::take;
}

// Between claim and delivery: what is copied now is delivered to somebody else if we die before the delivery.
[[gnu::always_inline]] static inline int use_it(const ch_channel *ch, u32 me, const slot &s, incoming &in) noexcept
{
	block_ref ref;

	if (!in.is_block) {
		copy(in.msg && in.len > SMALL ? in.scratch->addr : in.msg ? in.msg->small_ : in.buf, s.data, in.len);
		CH_CRASH_POINT(recv_copied);
		return 0;
	}
	std::memcpy(&ref, s.data, sizeof(ref));
	if (!block_take(ch->pool->map, ref, me, in.block))
		return -EPROTO;
	CH_CRASH_POINT(recv_block_taken);
	if (in.len > in.block.len) { // the block is ours now; who sent it lied
		block_free(ch->pool->map, in.block, me);
		return -EPROTO;
	}
	if (!in.msg)
		copy_long(in.buf, in.block.addr, in.len);
	return 0;
}

static constexpr int LEFT = 1;

// Returns 0, LEFT if the message was left (in.refused says why), or a negative errno value.
[[gnu::always_inline]] static inline int receive(ch_channel *ch, i64 timeout_ns, incoming &in) noexcept
{
	const int me = channel_me(ch);

	if (me < 0) [[unlikely]]
		return me;
	auto look = [ch, &in](const slot &s) INLINE_LAMBDA { return look_at(ch, s, in); };
	auto use = [ch, me, &in](const slot &s) INLINE_LAMBDA { return use_it(ch, static_cast<u32>(me), s, in); };
	auto attempt = [ch, me, look, use]() INLINE_LAMBDA {
		// Who changes the state word wakes us afterwards.
		const u64 state = ch->r.h->state.load(relaxed);
		if (state & CHANNEL_DESTROYED) [[unlikely]]
			return -ESTALE;
		if (state >= CHANNEL_RECOV) [[unlikely]] {
			const i64 rc = ring_consume_recovered(ch->r, static_cast<u32>(me), LEFT, look, use);
			if (rc != -EAGAIN)
				return static_cast<int>(rc);
		}
		return static_cast<int>(ring_consume(ch->r, static_cast<u32>(me), LEFT, look, use));
	};
	const int rc = attempt();
	if (rc != -EAGAIN || timeout_ns == CH_TRY) [[likely]]
		return rc;
	return wait_until(
		ch, ch->r.h->not_empty, timeout_ns, attempt, [ch] { return ring_may_consume(ch->r); },
		[ch] { return ring_blocker_of_recv(ch->r); });
}

// A message too long for struct ch_message that travelled in the ring is copied to a block.
static int take_with_scratch(ch_channel *ch, incoming &in, block_place &scratch) noexcept
{
	int rc = pool_alloc(ch->pool, ch->r.inline_max, true, 0, scratch);

	if (rc < 0)
		return rc;
	in.scratch = &scratch;
	rc = receive(ch, CH_TRY, in); // we were woken for it; if another took it, the caller waits again
	if (rc != 0 || in.is_block || in.len <= SMALL)
		pool_free(ch->pool, scratch);
	in.scratch = rc == 0 ? in.scratch : nullptr;
	return rc;
}

// A receiver that leaves a message passes its wake-up on.
static int leave_message(ch_channel *ch, int rc) noexcept
{
	event_wake(ch->r.h->not_empty, 1);
	return rc == -ENOBUFS ? fail(rc, "channel: the message is longer than the buffer") : rc;
}

static void fill_message(ch_message *msg, const incoming &in) noexcept
{
	const block_place *b = in.is_block ? &in.block : in.len > SMALL ? in.scratch : nullptr;

	msg->data = b ? static_cast<void *>(b->addr) : msg->small_;
	msg->len = in.len;
	msg->priv[0] = b ? b->index + 1 : 0;
	msg->priv[1] = 0;
}

// The block of a message of this pool that this process owns.
static bool own_block(ch_channel *ch, const ch_message *msg, block_place &b) noexcept
{
	const int me = channel_me(ch);
	const u64 index = msg->priv[0] - 1;

	if (me < 0 || !block_find(ch->pool->map, index, b) || b.addr != msg->data)
		return false;
	const u64 w = b.word->load(relaxed); // ours, or refused
	return block_state_of(w) == B_OWNED && block_owner(w) == static_cast<u32>(me);
}

static void clear(ch_message *msg) noexcept
{
	msg->data = nullptr;
	msg->len = 0;
	msg->priv[0] = 0;
}

} // namespace ch::core

using namespace ch::core;

// All that is not the common case.
[[gnu::noinline]] static int send_any(ch_channel *ch, const void *buf, u64 len, i64 timeout_ns) noexcept
{
	if (!ch || (!buf && len > 0))
		return fail(-EINVAL, "channel: NULL");
	return len <= ch->r.inline_max ? send_inline(ch, buf, len, timeout_ns) : send_large(ch, buf, len, timeout_ns);
}

[[gnu::noinline]] static ssize_t recv_any(ch_channel *ch, void *buf, u64 cap, i64 timeout_ns) noexcept
{
	incoming in;

	if (!ch || (!buf && cap > 0))
		return fail(-EINVAL, "channel: NULL");
	in.buf = buf;
	in.cap = cap;
	in.msg = nullptr;
	const int rc = receive(ch, timeout_ns, in);
	if (rc == 0) {
		if (in.is_block)
			pool_free(ch->pool, in.block);
		return static_cast<ssize_t>(in.len);
	}
	return rc == LEFT ? leave_message(ch, in.refused) : refuse(ch, rc);
}

// The common case of both calls runs straight through: a short message, at the ticket we expect, nobody asleep.
int ch_channel_send(struct ch_channel *ch, const void *buf, size_t len, int64_t timeout_ns)
{
	if (!ch || !buf || len - 1 >= SHORT || len > ch->r.inline_max || stopped(ch, STOP_SEND)) [[unlikely]]
		return send_any(ch, buf, len, timeout_ns);
	const u32 me = ch->me.load(relaxed); // as in channel_me()
	if (me == NOBODY) [[unlikely]]
		return send_any(ch, buf, len, timeout_ns);
	return static_cast<int>(ring_publish_at(
		ch->r, me, ch->r.send_at.load(relaxed), // private hint
		[buf, len](slot &s) INLINE_LAMBDA {
			s.what.store(len, relaxed); // published by the slot word
			copy_short(s.data, buf, len);
		},
		[=](u64, u64) INLINE_LAMBDA { return static_cast<i64>(send_any(ch, buf, len, timeout_ns)); }));
}

ssize_t ch_channel_recv(struct ch_channel *ch, void *buf, size_t cap, int64_t timeout_ns)
{
	if (!ch || !buf || ch->r.h->state.load(relaxed) != 0) [[unlikely]] // as in receive()
		return recv_any(ch, buf, cap, timeout_ns);
	const u32 me = ch->me.load(relaxed); // as in channel_me()
	if (me == NOBODY) [[unlikely]]
		return recv_any(ch, buf, cap, timeout_ns);
	const u64 room = cap < ch->r.inline_max ? cap : ch->r.inline_max, max = room < SHORT ? room : SHORT;
	u64 len = 0;
	auto slowly = [=](auto...) INLINE_LAMBDA { return static_cast<i64>(recv_any(ch, buf, cap, timeout_ns)); };
	return ring_consume_at(
		ch->r, me, ch->r.recv_at.load(relaxed), // private hint
		[&len, max](const slot &s) INLINE_LAMBDA {
			len = s.what.load(relaxed); // the claim tells whether it was this message's
			return len <= max ? verdict::take : verdict::leave;
		},
		[&len, buf](const slot &s) INLINE_LAMBDA {
			copy_short(buf, s.data, len);
			CH_CRASH_POINT(recv_copied);
			return static_cast<i64>(len);
		},
		slowly, slowly);
}

int ch_channel_take(struct ch_channel *ch, int64_t timeout_ns, struct ch_message *out_msg)
{
	incoming in;
	block_place scratch;

	if (!ch || !out_msg) [[unlikely]]
		return fail(-EINVAL, "channel: NULL");
	const i64 until_ns = timeout_ns <= 0 ? 0 : deadline_of(timeout_ns);
	in.msg = out_msg;
	in.scratch = nullptr;
	for (;;) {
		int rc = receive(ch, rest_of(timeout_ns, until_ns), in);
		if (rc > 0)
			rc = take_with_scratch(ch, in, scratch);
		if (rc == 0) {
			fill_message(out_msg, in);
			return 0;
		}
		if (rc == -ENOSPC)
			return leave_message(ch, rc);
		if (rc != -EAGAIN || timeout_ns == CH_TRY)
			return refuse(ch, rc);
		if (timeout_ns > 0 && now_ns() >= until_ns)
			return -ETIMEDOUT;
	}
}

int ch_channel_claim(struct ch_channel *ch, size_t len, int64_t timeout_ns, struct ch_message *out_msg)
{
	block_place b;

	if (!ch || !out_msg)
		return fail(-EINVAL, "channel: NULL");
	int rc = may_send(ch);
	if (rc < 0)
		return rc;
	out_msg->priv[1] = 0;
	if (len <= SMALL && len <= ch->r.inline_max) {
		out_msg->data = out_msg->small_;
		out_msg->priv[0] = 0;
	} else {
		rc = pool_alloc(ch->pool, len, timeout_ns == CH_TRY, timeout_ns == CH_TRY ? 0 : deadline_of(timeout_ns), b);
		if (rc < 0)
			return rc;
		out_msg->data = b.addr;
		out_msg->priv[0] = b.index + 1;
	}
	out_msg->len = len;
	return 0;
}

int ch_channel_commit(struct ch_channel *ch, struct ch_message *msg, int64_t timeout_ns)
{
	block_place b;
	int rc;

	if (!ch || !msg || !msg->data)
		return fail(-EINVAL, "channel: no message to commit");
	if (msg->priv[0] == 0) {
		if (msg->len > SMALL)
			return fail(-EMSGSIZE, "channel: the message grew to %zu bytes", msg->len);
		rc = ch_channel_send(ch, msg->data, msg->len, timeout_ns);
	} else {
		if (!own_block(ch, msg, b))
			return fail(-EINVAL, "channel: the message is not this process's, or of another pool");
		if (msg->len > b.len)
			return fail(-EMSGSIZE, "channel: the message grew from %llu to %zu bytes",
				    static_cast<unsigned long long>(b.len), msg->len);
		rc = send_block(ch, b, msg->len, timeout_ns);
	}
	if (rc == 0)
		clear(msg);
	return rc;
}

void ch_channel_release(struct ch_channel *ch, struct ch_message *msg)
{
	block_place b;

	if (!ch || !msg || !msg->data)
		return;
	if (msg->priv[0] != 0 && own_block(ch, msg, b))
		pool_free(ch->pool, b);
	clear(msg);
}

void ch_channel_abort(struct ch_channel *ch, struct ch_message *msg)
{
	ch_channel_release(ch, msg);
}

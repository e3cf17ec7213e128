// SPDX-License-Identifier: Apache-2.0
// batch.cpp - many messages in one call.
//
// Messages that travel in the ring go by batch.h in groups of BATCH_MAX; one that needs a block goes alone, in its
// turn.
#include "config.h"
#include "batch.h"
#include "message.h"
#include <cerrno>

namespace ch::core {

// ---- send

// How many of the first items can go together.
static u32 group_of(const ch_channel *ch, const ch_send_item *items, size_t nr) noexcept
{
	const u32 most = nr < BATCH_MAX ? static_cast<u32>(nr) : BATCH_MAX;
	u32 n = 0;

	for (; n < most && items[n].len <= ch->r.inline_max && (items[n].buf || items[n].len == 0); n++)
		touch(items[n].buf, items[n].len);
	return n;
}

// The first items, as many as there is room for now.
static int send_group(ch_channel *ch, u32 me, const ch_send_item *items, u32 n) noexcept
{
	const u64 state = ch->r.h->state.load(relaxed); // flags
	auto fill = [items](slot &s, u64, u64 k) INLINE_LAMBDA {
		s.what.store(items[k].len, relaxed); // published by the slot word
		copy(s.data, items[k].buf, items[k].len);
	};

	if (state & STOP_SEND) [[unlikely]]
		return stopped(state);
	if (!ch->r.is_spsc)
		return ring_publish_many(ch->r, me, n, fill);
	const i64 sent = spsc_push(ch->r, n, fill);
	return sent == 0 ? -EAGAIN : static_cast<int>(sent);
}

static int send_alone(ch_channel *ch, const ch_send_item &item, i64 timeout_ns) noexcept
{
	outgoing out;

	if (!item.buf && item.len > 0)
		return fail(-EINVAL, "channel: an item of the batch is NULL");
	out.buf = item.buf;
	out.len = item.len;
	const int rc = send_whole(ch, out, CH_QUEUED, timeout_ns);
	return rc < 0 ? rc : 1;
}

static ssize_t send_batch(ch_channel *ch, u32 me, const ch_send_item *items, size_t nr, i64 timeout_ns) noexcept
{
	const i64 until_ns = timeout_ns > 0 ? deadline_of(timeout_ns) : NEVER;
	size_t done = 0;

	while (done < nr) {
		const u32 n = group_of(ch, items + done, nr - done);
		int rc = n > 0 ? send_group(ch, me, items + done, n) : -EAGAIN;
		if (rc == -EAGAIN && (n == 0 || timeout_ns != CH_TRY)) // a block, or wait for room
			rc = timed(send_alone(ch, items[done], rest_of(timeout_ns, until_ns)), timeout_ns);
		if (rc < 0)
			return done > 0 ? static_cast<ssize_t>(done) : rc == -EAGAIN ? rc : refuse(ch, rc);
		done += static_cast<size_t>(rc);
	}
	return static_cast<ssize_t>(done);
}

// ---- receive

static char nothing; // a buffer of no bytes is a buffer

// Some of the messages that are to be received together, and what has to be done with them afterwards.
struct group {
	ch_channel *ch;
	u32 me;
	ch_recv_item *items;
	int refused = 0; // why the one after the last was left
	u32 nr_good = 0; // damaged ones are dropped
	u32 nr_blocks = 0;
	block_place blocks[BATCH_MAX]; // freed when their messages have been delivered

	group(ch_channel *channel, u32 owner, ch_recv_item *first) noexcept : ch(channel), me(owner), items(first) {}
};

[[gnu::noinline]] static verdict look_closely(group &g, const lane &l, const slot &s, u64 t, u64 k) noexcept
{
	incoming in;

	in.buf = &nothing; // a copy, wherever to
	in.cap = g.items[k].cap;
	const verdict v = look_at(l, s, t, in);
	g.refused = in.refused;
	if (!g.items[k].buf && g.items[k].cap > 0) {
		g.refused = -EINVAL;
		return verdict::leave;
	}
	return v;
}

[[gnu::noinline]] static void use_closely(group &g, const lane &l, const slot &s, u64 t) noexcept
{
	ch_recv_item &item = g.items[g.nr_good];
	incoming in;

	in.buf = item.buf ? item.buf : &nothing;
	in.cap = item.cap;
	// It is ours now, and looked at again: what was promised to fit must fit where it goes.
	if (look_at(l, s, t, in) != verdict::take || use_it(g.ch, g.me, s, in) < 0)
		return;
	item.len = in.len;
	g.nr_good++;
	if (in.is_block)
		g.blocks[g.nr_blocks++] = in.block;
}

// Whether the message is only bytes, and fits.
[[gnu::always_inline]] static inline bool is_plain(const lane &l, const ch_recv_item &item, u64 what) noexcept
{
	return item.buf && what <= item.cap && what <= l.inline_max;
}

static constexpr int LEFT_ALL = INT_MAX; // the first does not fit

static int receive_group(ch_channel *ch, u32 me, lane &l, ch_recv_item *items, u32 n, int *refused) noexcept
{
	group g(ch, me, items);
	auto look = [&](const slot &s, u64 t, u64 k) INLINE_LAMBDA {
		const u64 what = s.what.load(relaxed); // the claim tells whether it was this message's
		return is_plain(l, g.items[k], what) ? verdict::take : look_closely(g, l, s, t, k);
	};
	auto use = [&](const slot &s, u64 t, u64) INLINE_LAMBDA {
		const u64 what = s.what.load(relaxed); // ours
		ch_recv_item &item = g.items[g.nr_good];
		if (is_plain(l, item, what)) [[likely]] {
			copy(item.buf, s.data, what);
			item.len = what;
			g.nr_good++;
		} else {
			use_closely(g, l, s, t);
		}
		return i64{0};
	};
	i64 none = 0;

	const int rc = l.is_spsc ? static_cast<int>(spsc_pop(l, n < BATCH_MAX ? n : BATCH_MAX, &none, look, use))
				 : ring_consume_many(l, me, n, look, use);
	for (u32 k = 0; k < g.nr_blocks; k++)
		pool_free(ch->pool, g.blocks[k]);
	*refused = rc == 0 ? g.refused : 0;
	return rc <= 0 ? rc : g.nr_good > 0 ? static_cast<int>(g.nr_good) : -EPROTO;
}

// What is there of a lane, from items[done] on. Returns how many there are then, or what kept it from the first.
static int receive_lane(ch_channel *ch, u32 me, lane &l, ch_recv_item *items, size_t nr, size_t done,
			int *refused) noexcept
{
	int rc = -EAGAIN;

	while (done < nr) {
		const u32 n = nr - done < BATCH_MAX ? static_cast<u32>(nr - done) : BATCH_MAX;
		rc = receive_group(ch, me, l, items + done, n, refused);
		if (rc <= 0)
			break;
		done += static_cast<size_t>(rc);
	}
	return done > 0 ? static_cast<int>(done) : *refused ? LEFT_ALL : rc == 0 ? -EAGAIN : rc;
}

// One by one, while something is the matter with the channel.
static int receive_singly(ch_channel *ch, u32 me, ch_recv_item *items, size_t nr, int *refused) noexcept
{
	size_t done = 0;
	int rc = 0;

	for (; done < nr; done++) {
		incoming in;
		in.buf = items[done].buf ? items[done].buf : &nothing;
		in.cap = items[done].buf ? items[done].cap : 0;
		rc = receive_once(ch, me, in);
		if (rc == 0 && in.is_block)
			pool_free(ch->pool, in.block);
		if (rc != 0) {
			*refused = in.refused;
			break;
		}
		items[done].len = in.len;
	}
	return done > 0 ? static_cast<int>(done) : rc == LEFT ? LEFT_ALL : rc;
}

static int receive_batch_once(ch_channel *ch, u32 me, ch_recv_item *items, size_t nr, int *refused) noexcept
{
	int done = 0;

	if (needs_a_look(ch->r.h->state.load(relaxed))) [[unlikely]] // as in receive_once()
		return receive_singly(ch, me, items, nr, refused);
	if (ch->r.urgent.slots) {
		done = receive_lane(ch, me, ch->r.urgent, items, nr, 0, refused);
		if (done < 0 && done != -EAGAIN)
			return done;
	}
	return receive_lane(ch, me, ch->r, items, nr, done < 0 ? 0 : static_cast<size_t>(done), refused);
}

} // namespace ch::core

using namespace ch::core;

ssize_t ch_channel_send_batch(struct ch_channel *ch, const struct ch_send_item *items, size_t nr, int64_t timeout_ns)
{
	if (!ch || (!items && nr > 0) || nr > INT32_MAX)
		return fail(-EINVAL, "channel: NULL, or too many items");
	const int me = channel_me(ch), rc = me < 0 ? me : role_check(ch, SENDER);
	return rc < 0 ? refuse(ch, rc) : send_batch(ch, static_cast<u32>(me), items, nr, timeout_ns);
}

ssize_t ch_channel_recv_batch(struct ch_channel *ch, struct ch_recv_item *items, size_t nr, int64_t timeout_ns)
{
	int refused = 0;

	if (!ch || (!items && nr > 0) || nr > INT32_MAX)
		return fail(-EINVAL, "channel: NULL, or too many items");
	const int me = channel_me(ch);
	int rc = me < 0 ? me : role_check(ch, RECEIVER);
	if (rc < 0 || nr == 0)
		return rc < 0 ? refuse(ch, rc) : 0;
	auto attempt = [&] { return receive_batch_once(ch, static_cast<u32>(me), items, nr, &refused); };
	rc = attempt();
	if (rc == -EAGAIN && timeout_ns != CH_TRY)
		rc = wait_for_message(ch, timeout_ns, attempt);
	return rc == LEFT_ALL ? leave_message(ch, refused) : refuse(ch, rc);
}

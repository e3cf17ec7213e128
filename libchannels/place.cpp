// SPDX-License-Identifier: Apache-2.0
// place.cpp - send and receive in place: claim, commit, take, release.
//
// What a struct ch_message holds privately: priv[0] is 1 + the index of the block that the message lies in and that is
// this process's, or 0; priv[1] is 0, or of a message that is to be acknowledged its ticket, KEPT, and KEPT_URGENT if
// it came by the urgent lane. Such a message stays in its slot, claimed by this process, and so does its block.
#include "config.h"
#include "message.h"
#include <cerrno>
#include <cstring>

namespace ch::core {

static constexpr u64 KEPT = 1, KEPT_URGENT = 2;

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

static void fill_message(ch_message *msg, const incoming &in) noexcept
{
	const block_place *b = in.is_block ? &in.block : in.len > SMALL ? in.scratch : nullptr;
	ch_recv_info info;

	fill_info(&info, in);
	msg->flags = info.flags;
	msg->tag = info.tag;
	msg->sender = info.sender;
	msg->len = in.len;
	if (in.is_kept) {
		msg->data = const_cast<u8 *>(in.at);
		msg->priv[0] = 0;
		msg->priv[1] = in.ticket | KEPT | (in.flags & CH_MESSAGE_URGENT ? KEPT_URGENT : 0);
		return;
	}
	msg->data = b ? static_cast<void *>(b->addr) : msg->small_;
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
	msg->flags = 0;
	msg->priv[0] = 0;
	msg->priv[1] = 0;
}

// The lane of a message that this process keeps in it, or NULL: it is none, or no longer.
static lane *lane_of_kept(ch_channel *ch, const ch_message *msg) noexcept
{
	lane &l = msg->priv[1] & KEPT_URGENT ? ch->r.urgent : ch->r;
	const u64 t = word_ticket(msg->priv[1]);
	const int me = channel_me(ch);

	if (!(msg->priv[1] & KEPT) || me < 0 || !l.slots || l.is_spsc)
		return nullptr;
	const u64 w = l.of(t).w.load(relaxed), q = l.q[l.index(t)].load(relaxed); // ours, or refused
	const bool is_ours = word_ticket(w) == t && q == ((t + l.lap) | static_cast<u32>(me)) &&
			     (slot_state_of(w) == S_FULL || slot_state_of(w) == S_RECOV);
	return is_ours ? &l : nullptr;
}

// The block is made ours first and freed last: if we die in between, our sweeper finds the slot empty and frees the
// block, or finds it full and gives the block back to the message.
static void acknowledge(ch_channel *ch, const lane &l, u64 t) noexcept
{
	slot &s = l.of(t);
	block_ref ref;
	block_place b;
	bool is_block = s.what.load(relaxed) & IN_BLOCK; // ours

	if (is_block) {
		std::memcpy(&ref, s.data, sizeof(ref));
		is_block = block_take(ch->pool->map, ref, ch->me.load(relaxed), b); // set by this process
		CH_CRASH_POINT(recv_block_taken);
	}
	ring_deliver(l, s, t, verdict::take, [](const slot &, u64) { return i64{0}; });
	if (is_block)
		pool_free(ch->pool, b);
}

} // namespace ch::core

using namespace ch::core;

int ch_channel_take(struct ch_channel *ch, int64_t timeout_ns, struct ch_message *out_msg)
{
	incoming in;
	block_place scratch;

	if (!ch || !out_msg) [[unlikely]]
		return fail(-EINVAL, "channel: NULL");
	const i64 until_ns = timeout_ns <= 0 ? 0 : deadline_of(timeout_ns);
	in.msg = out_msg;
	in.is_kept = ch->r.flags & CH_CHANNEL_ACKNOWLEDGED;
	for (;;) {
		int rc = receive(ch, timeout_ns <= 0 ? timeout_ns : rest_of(timeout_ns, until_ns), in);
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
	if (len <= SMALL && len <= ch->r.inline_max) {
		out_msg->data = out_msg->small_;
		out_msg->priv[0] = 0;
	} else {
		rc = pool_alloc(ch->pool, len, timeout_ns == CH_TRY, timeout_ns == CH_TRY ? 0 : deadline_of(timeout_ns),
				b);
		if (rc < 0)
			return rc;
		out_msg->data = b.addr;
		out_msg->priv[0] = b.index + 1;
	}
	out_msg->len = len;
	out_msg->tag = 0;
	out_msg->sender = {0};
	out_msg->flags = 0;
	out_msg->priv[1] = 0;
	return 0;
}

int ch_channel_commit(struct ch_channel *ch, struct ch_message *msg, int64_t timeout_ns)
{
	outgoing out;

	if (!ch || !msg || !msg->data)
		return fail(-EINVAL, "channel: no message to commit");
	if (msg->priv[1] & KEPT)
		return fail(-EINVAL, "channel: the message is not acknowledged yet");
	out.flags = msg->flags & ~CH_MESSAGE_REDELIVERED;
	if (!ch->r.urgent.slots) // it may come from another channel that has such a lane
		out.flags &= ~CH_MESSAGE_URGENT;
	out.tag.tag = msg->tag;
	out.buf = msg->data;
	out.len = msg->len;
	out.is_block = msg->priv[0] != 0;
	int rc = check_flags(ch, out.flags);
	if (rc < 0)
		return rc;
	if (out.is_block && !own_block(ch, msg, out.block))
		return fail(-EINVAL, "channel: the message is not this process's, or of another pool");
	const u64 room = out.is_block ? out.block.len : SMALL;
	if (msg->len > room)
		return fail(-EMSGSIZE, "channel: the message grew from %llu to %zu bytes",
			    static_cast<unsigned long long>(room), msg->len);
	rc = send_whole(ch, out, CH_QUEUED, timeout_ns);
	if (rc == 0)
		clear(msg);
	return rc;
}

void ch_channel_release(struct ch_channel *ch, struct ch_message *msg)
{
	block_place b;

	if (!ch || !msg || !msg->data)
		return;
	if (msg->priv[1] & KEPT) {
		if (const lane *l = lane_of_kept(ch, msg))
			acknowledge(ch, *l, word_ticket(msg->priv[1]));
	} else if (msg->priv[0] != 0 && own_block(ch, msg, b)) {
		pool_free(ch->pool, b);
	}
	clear(msg);
}

void ch_channel_abort(struct ch_channel *ch, struct ch_message *msg)
{
	ch_channel_release(ch, msg);
}

int ch_channel_requeue(struct ch_channel *ch, struct ch_message *msg)
{
	if (!ch || !msg || !msg->data)
		return fail(-EINVAL, "channel: no message to give back");
	const lane *l = lane_of_kept(ch, msg);
	if (!l)
		return fail(-EINVAL, "channel: the message is not to be acknowledged by this process");
	ring_requeue(*l, word_ticket(msg->priv[1]));
	clear(msg);
	return 0;
}

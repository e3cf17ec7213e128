/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ways.cpp - how children of the kill test send and receive in each kind of channel.
 *
 * plain         send and recv, claim and commit, take and release
 * spsc          the same and batches; who does not get the role tries again
 * acknowledged  a message counts when it is released, and until then is given back now and then
 * mixed         urgent messages (those of every third incarnation, so that each has one lane and one order), tags,
 *               receipts, batches, and peeks
 */
#include "crew.h"

namespace torture {

static int send_in_place(struct ch_channel *ch, message_id id, uint32_t flags, int64_t patience)
{
	struct ch_message msg = CH_MESSAGE_INIT;
	const size_t len = length_of(id);

	in_call = "claim";
	int err = ch_channel_claim(ch, len + rnd(&rs) % 2 * 100, PATIENCE, &msg);

	if (err < 0)
		return err;
	if (rnd(&rs) % 8 == 0) {
		ch_channel_abort(ch, &msg);
		if ((err = ch_channel_claim(ch, len, PATIENCE, &msg)) < 0)
			return err;
	}
	write_message(msg.data, id);
	msg.len = len;
	msg.flags = flags;
	msg.tag = id.seq;
	in_call = "commit";
	err = ch_channel_commit(ch, &msg, patience);
	if (err < 0)
		ch_channel_abort(ch, &msg);
	return err;
}

static int send_copy(struct ch_channel *ch, message_id id, uint32_t flags, int64_t patience)
{
	struct ch_send_attr attr = CH_SEND_ATTR_INIT;

	write_message(self->buf.bytes, id);
	if (flags == 0) {
		in_call = "send";
		return ch_channel_send(ch, self->buf.bytes, length_of(id), patience);
	}
	in_call = "send_attr";
	attr.flags = flags;
	attr.tag = id.seq;
	if (patience != CH_TRY && rnd(&rs) % 8 == 0) { /* a receipt, if it comes soon */
		attr.completion = CH_RECEIVED;
		patience = 1 * MS;
	}
	const int err = ch_channel_send_attr(ch, self->buf.bytes, length_of(id), &attr, patience);
	if (err == -EINPROGRESS)
		return 0;
	return err == -ETIMEDOUT && attr.completion ? send_copy(ch, id, flags, CH_TRY) : err;
}

/* Waits in the call, or tries and waits in a poll set. */
static int send_one(struct ch_channel *ch, message_id id, uint32_t flags, poller &by_set)
{
	const bool polls = static_cast<bool>(by_set);

	for (;;) {
		const int64_t patience = polls ? CH_TRY : PATIENCE;
		int err = rnd(&rs) % 2 ? send_in_place(ch, id, flags, patience) : send_copy(ch, id, flags, patience);

		if (err == -EBUSY)
			return err;
		if ((polls && err == -ENOSPC) || (!polls && (err == -EAGAIN || err == -ENOSPC))) { /* a full pool is no event */
			short_nap();
			continue;
		}
		if (!polls || err != -EAGAIN)
			return err;
		in_call = "wait for room in a poll set";
		if ((err = by_set.wait(PATIENCE)) < 0)
			return err;
	}
}

static int send_many(struct ch_channel *ch, message_id id, uint32_t nr)
{
	static unsigned char bytes[MAX_BATCH][LONGEST];
	struct ch_send_item items[MAX_BATCH];

	for (uint32_t i = 0; i < nr; i++) {
		const message_id one = { id.who, id.seq + i };
		write_message(bytes[i], one);
		items[i] = { bytes[i], length_of(one) };
	}
	in_call = "send_batch";
	return static_cast<int>(ch_channel_send_batch(ch, items, nr, PATIENCE));
}

int send_some(struct ch_channel *ch, message_id id, uint32_t nr, poller &by_set)
{
	const kind what = the.ev->what;
	const bool many = what == kind::spsc || (what == kind::mixed && !is_urgent(id.who));
	uint32_t flags = what == kind::mixed || what == kind::acknowledged ? (rnd(&rs) % 2 ? CH_MESSAGE_TAGGED : 0) : 0;

	if (is_urgent(id.who))
		flags |= CH_MESSAGE_URGENT;
	nr = nr < MAX_BATCH ? nr : MAX_BATCH;
	int err = many && rnd(&rs) % 3 == 0 ? send_many(ch, id, 1 + static_cast<uint32_t>(rnd(&rs) % nr)) :
					      send_one(ch, id, flags, by_set);
	if (err == -EBUSY && what == kind::spsc) {
		short_nap();
		return 0;
	}
	return err == 0 ? 1 : err;
}

/* ---- receiving */

static int receive_in_place(struct ch_channel *ch, int64_t timeout)
{
	struct ch_message msg = CH_MESSAGE_INIT;

	in_call = "take";
	begin_receiving(IN_TAKE);
	if (int err = ch_channel_take(ch, timeout, &msg); err < 0)
		return err;
	message_id id = { UINT32_MAX, UINT32_MAX };
	if (msg.len >= sizeof(id))
		memcpy(&id, msg.data, sizeof(id));
	account(id, msg.data, msg.len, msg.flags);
	ch_channel_release(ch, &msg);
	return 0;
}

/* It is done with when it is released; if we die before, it must come to somebody else. */
static int receive_and_acknowledge(struct ch_channel *ch, int64_t timeout)
{
	static unsigned char bytes[LONGEST];
	struct ch_message msg = CH_MESSAGE_INIT;
	message_id id = { UINT32_MAX, UINT32_MAX };

	in_call = "take";
	begin_receiving(IN_KEEP);
	if (int err = ch_channel_take(ch, timeout, &msg); err < 0)
		return err;
	const uint32_t flags = msg.flags;
	const size_t len = msg.len < sizeof(bytes) ? msg.len : sizeof(bytes);
	memcpy(bytes, msg.data, len);
	if (rnd(&rs) % 16 == 0)
		return ch_channel_requeue(ch, &msg);
	if (rnd(&rs) % 8 == 0)
		short_nap();
	if (len >= sizeof(id))
		memcpy(&id, bytes, sizeof(id));
	self->buf.id = id;
	self->found = true;
	self->stage = IN_RECV; /* from here on as any message that is named */
	in_call = "release";
	ch_channel_release(ch, &msg);
	account(id, bytes, len, flags);
	return 0;
}

static int receive_copy(struct ch_channel *ch, int64_t timeout)
{
	struct ch_recv_info info = {};

	in_call = "recv";
	begin_receiving(IN_RECV);
	const ssize_t n = the.ev->what == kind::plain ?
				  ch_channel_recv(ch, self->buf.bytes, sizeof(self->buf.bytes), timeout) :
				  ch_channel_recv_info(ch, self->buf.bytes, sizeof(self->buf.bytes), timeout, &info);
	if (n < 0)
		return static_cast<int>(n);
	account(self->buf.id, self->buf.bytes, static_cast<size_t>(n), info.flags);
	return 0;
}

static int receive_many(struct ch_channel *ch, int64_t timeout)
{
	static unsigned char bytes[MAX_BATCH][LONGEST];
	struct ch_recv_item items[MAX_BATCH];

	for (uint32_t i = 0; i < MAX_BATCH; i++)
		items[i] = { bytes[i], LONGEST, 0 };
	in_call = "recv_batch";
	begin_receiving(IN_BATCH);
	const ssize_t n = ch_channel_recv_batch(ch, items, MAX_BATCH, timeout);
	if (n < 0)
		return static_cast<int>(n);
	for (ssize_t i = 0; i < n; i++) {
		message_id id;
		memcpy(&id, bytes[i], sizeof(id));
		/* Which of them came again, and which are urgent, is not told. */
		account(id, bytes[i], items[i].len, CH_MESSAGE_REDELIVERED, i + 1 < n ? IN_BATCH : IDLE);
	}
	return 0;
}

static void peek(struct ch_channel *ch)
{
	static unsigned char bytes[LONGEST];
	message_id id;

	in_call = "peek";
	const ssize_t n = ch_channel_peek(ch, bytes, sizeof(bytes), CH_TRY, nullptr);
	if (n < 0)
		return;
	memcpy(&id, bytes, sizeof(id));
	if (!the.book->is_id(id) || !is_whole(bytes, static_cast<size_t>(n), id))
		the.ev->corrupt++;
}

int receive_some(struct ch_channel *ch, int64_t timeout)
{
	const kind what = the.ev->what;

	if (what != kind::plain && rnd(&rs) % 8 == 0)
		peek(ch);
	if (what == kind::acknowledged)
		return rnd(&rs) % 4 ? receive_and_acknowledge(ch, timeout) : receive_copy(ch, timeout);
	if (what != kind::plain && rnd(&rs) % 3 == 0)
		return receive_many(ch, timeout);
	return rnd(&rs) % 3 ? receive_copy(ch, timeout) : receive_in_place(ch, timeout);
}

} // namespace torture

/* SPDX-License-Identifier: Apache-2.0 */
/* channel.h: tags, senders, the urgent lane, receipts, peek, drain, and how handles wait. */
#include "../support/support.h"
#include <criterion/criterion.h>

TestSuite(attr, .timeout = WATCHDOG_S);

static struct ch_pool *pool;
static struct ch_pool_stats bare;
static struct board *board;
static unsigned char bytes[20000], got[20000];

static struct ch_channel *create(uint32_t capacity, uint32_t urgent, uint32_t flags, uint32_t wait)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_channel *ch = NULL;

	attr.capacity = capacity;
	attr.urgent_capacity = urgent;
	attr.flags = flags;
	attr.wait = wait;
	cr_assert_eq(ch_channel_create(pool, &attr, &ch), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_get_descr(ch, &board->descr), 0);
	return ch;
}

static void setup(void)
{
	board = board_new();
	pool = pool_of(4 << 20);
	cr_assert_eq(ch_pool_get_stats(pool, &bare), 0);
}

static void teardown(void)
{
	ch_pool_destroy(pool);
}

static int send_with(struct ch_channel *ch, size_t len, uint32_t flags, uint64_t tag)
{
	struct ch_send_attr attr = CH_SEND_ATTR_INIT;

	attr.flags = flags;
	attr.tag = tag;
	fill(bytes, len, 1, tag);
	return ch_channel_send_attr(ch, bytes, len, &attr, CH_TRY);
}

Test(attr, tag_and_sender_go_with_messages_of_all_lengths, .init = setup, .fini = teardown)
{
	const size_t lens[] = {0, 1, 8, 31, 32, 33, 47, 48, 49, 64, 500, 20000};

	for (int kind = 0; kind < 2; kind++) {
		struct ch_channel *ch = create(4, 0, kind ? CH_CHANNEL_SPSC : 0, 0);
		struct ch_recv_info info;

		for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++) {
			const uint64_t tag = UINT64_MAX - i;

			cr_assert_eq(send_with(ch, lens[i], CH_MESSAGE_TAGGED, tag), 0);
			cr_assert_eq(ch_channel_recv_info(ch, got, sizeof(got), CH_TRY, &info), (ssize_t)lens[i]);
			cr_assert(is_filled(got, lens[i], 1, tag));
			cr_assert_eq(info.flags, CH_MESSAGE_TAGGED);
			cr_assert_eq(info.tag, tag);
			cr_assert_eq(info.sender.id, ch_peer_self().id);
			cr_assert_eq(send_with(ch, lens[i], CH_MESSAGE_TAGGED, tag), 0);
			cr_assert_eq(ch_channel_recv(ch, got, sizeof(got), CH_TRY), (ssize_t)lens[i],
				     "who does not ask is not told");
			cr_assert(is_filled(got, lens[i], 1, tag));
			cr_assert_eq(send_with(ch, lens[i], 0, tag), 0);
			cr_assert_eq(ch_channel_recv_info(ch, got, sizeof(got), CH_TRY, &info), (ssize_t)lens[i]);
			cr_assert_eq(info.flags, 0);
			cr_assert_eq(info.tag, 0);
			cr_assert_eq(info.sender.id, 0);
		}
		ch_channel_destroy(ch);
	}
	cr_assert(pool_is_as_before(pool, &bare));
}

static int send_tagged(void *arg)
{
	struct ch_channel *ch = (struct ch_channel *)arg;

	board->value[0] = (int64_t)ch_peer_self().id;
	EXPECT(send_with(ch, 8, CH_MESSAGE_TAGGED, 7) == 0);
	return 0;
}

Test(attr, the_sender_is_named_also_after_a_fork, .init = setup, .fini = teardown)
{
	struct ch_channel *ch = create(4, 0, 0, 0);
	struct ch_recv_info info;

	cr_assert_eq(send_with(ch, 8, CH_MESSAGE_TAGGED, 6), 0);
	cr_assert_eq(child_end(child_start(send_tagged, ch)), 0);
	cr_assert_eq(ch_channel_recv_info(ch, got, sizeof(got), CH_TRY, &info), 8);
	cr_assert_eq(info.sender.id, ch_peer_self().id);
	cr_assert_eq(ch_channel_recv_info(ch, got, sizeof(got), CH_TRY, &info), 8);
	cr_assert_eq(info.sender.id, (uint64_t)board->value[0]);
	cr_assert_eq(info.tag, 7);
}

Test(attr, in_place_too, .init = setup, .fini = teardown)
{
	struct ch_channel *ch = create(4, 4, 0, 0), *other = create(4, 0, 0, 0);
	struct ch_message msg = CH_MESSAGE_INIT;

	for (size_t len = 0; len < 3000; len = len * 3 + 7) {
		cr_assert_eq(ch_channel_claim(ch, len, CH_TRY, &msg), 0);
		cr_assert_eq(msg.flags, 0);
		fill(msg.data, len, 2, len);
		msg.flags = CH_MESSAGE_TAGGED | CH_MESSAGE_URGENT;
		msg.tag = len;
		cr_assert_eq(ch_channel_commit(ch, &msg, CH_TRY), 0);
		cr_assert_eq(ch_channel_take(ch, CH_TRY, &msg), 0);
		cr_assert_eq(msg.flags, CH_MESSAGE_TAGGED | CH_MESSAGE_URGENT);
		cr_assert_eq(msg.tag, len);
		cr_assert_eq(msg.sender.id, ch_peer_self().id);
		cr_assert(is_filled(msg.data, len, 2, len));
		cr_assert_eq(ch_channel_commit(other, &msg, CH_TRY), 0, "on to a channel without such a lane");
		cr_assert_eq(ch_channel_take(other, CH_TRY, &msg), 0);
		cr_assert_eq(msg.flags, CH_MESSAGE_TAGGED);
		cr_assert_eq(msg.tag, len);
		cr_assert(is_filled(msg.data, len, 2, len));
		ch_channel_release(other, &msg);
	}
	cr_assert_eq(ch_channel_claim(ch, 8, CH_TRY, &msg), 0);
	msg.flags = 64;
	cr_assert_eq(ch_channel_commit(ch, &msg, CH_TRY), -EINVAL);
	ch_channel_abort(ch, &msg);
	ch_channel_destroy(ch);
	ch_channel_destroy(other);
	cr_assert(pool_is_as_before(pool, &bare));
}

Test(attr, urgent_messages_overtake, .init = setup, .fini = teardown)
{
	struct ch_channel *ch = create(2, 2, 0, 0);
	struct ch_recv_info info;

	for (uint64_t i = 0; i < 2; i++)
		cr_assert_eq(send_with(ch, 40, 0, i), 0);
	for (uint64_t i = 0; i < 2; i++)
		cr_assert_eq(send_with(ch, i ? 3000 : 8, CH_MESSAGE_URGENT, 10 + i), 0);
	cr_assert_eq(send_with(ch, 8, 0, 0), -EAGAIN, "each lane has its own room");
	cr_assert_eq(send_with(ch, 8, CH_MESSAGE_URGENT, 0), -EAGAIN);
	cr_assert_eq(ch_channel_count(ch), 4);
	for (uint64_t i = 0; i < 4; i++) {
		const uint64_t nr = i < 2 ? 10 + i : i - 2;
		const ssize_t len = ch_channel_recv_info(ch, got, sizeof(got), CH_TRY, &info);

		cr_assert_eq(len, i == 0 ? 8 : i == 1 ? 3000 : 40);
		cr_assert(is_filled(got, (size_t)len, 1, nr));
		cr_assert_eq(info.flags, i < 2 ? CH_MESSAGE_URGENT : 0);
	}
	cr_assert_eq(ch_channel_recv(ch, got, sizeof(got), CH_TRY), -EAGAIN);
	ch_channel_destroy(ch);
	cr_assert(pool_is_as_before(pool, &bare));
}

static int recv_urgent(void *arg)
{
	struct ch_recv_info info;

	EXPECT(ch_channel_recv_info((struct ch_channel *)arg, got, sizeof(got), CH_FOREVER, &info) == 8);
	EXPECT(info.flags == CH_MESSAGE_URGENT);
	return 0;
}

Test(attr, an_urgent_message_wakes_and_room_for_it_too, .init = setup, .fini = teardown)
{
	struct ch_channel *ch = create(2, 1, 0, CH_WAIT_SLEEP);
	struct ch_send_attr attr = CH_SEND_ATTR_INIT;
	pid_t child = child_start(recv_urgent, ch);

	await_asleep(child);
	cr_assert_eq(send_with(ch, 8, CH_MESSAGE_URGENT, 1), 0);
	cr_assert_eq(child_end(child), 0);
	cr_assert_eq(send_with(ch, 8, CH_MESSAGE_URGENT, 1), 0);
	child = child_start(recv_urgent, ch);
	attr.flags = CH_MESSAGE_URGENT;
	cr_assert_eq(ch_channel_send_attr(ch, bytes, 8, &attr, CH_FOREVER), 0);
	cr_assert_eq(child_end(child), 0);
}

Test(attr, closing_ends_both_lanes, .init = setup, .fini = teardown)
{
	struct ch_channel *ch = create(2, 2, 0, 0);

	cr_assert_eq(send_with(ch, 8, 0, 1), 0);
	cr_assert_eq(send_with(ch, 8, CH_MESSAGE_URGENT, 2), 0);
	cr_assert_eq(ch_channel_close(ch), 0);
	cr_assert_eq(send_with(ch, 8, CH_MESSAGE_URGENT, 2), -EPIPE);
	cr_assert_eq(ch_channel_recv(ch, got, sizeof(got), CH_FOREVER), 8);
	cr_assert_eq(ch_channel_recv(ch, got, sizeof(got), CH_FOREVER), 8);
	cr_assert_eq(ch_channel_recv(ch, got, sizeof(got), CH_FOREVER), -EPIPE);
}

Test(attr, what_is_unknown_is_refused, .init = setup, .fini = teardown)
{
	struct ch_channel *ch = create(2, 0, 0, 0);
	struct ch_send_attr attr = CH_SEND_ATTR_INIT;

	cr_assert_eq(send_with(ch, 8, CH_MESSAGE_URGENT, 1), -EINVAL, "there is no such lane");
	cr_assert_eq(send_with(ch, 8, CH_MESSAGE_REDELIVERED, 1), -EINVAL, "not for the sender to say");
	cr_assert_eq(send_with(ch, 8, 128, 1), -EINVAL);
	attr.completion = 3;
	cr_assert_eq(ch_channel_send_attr(ch, bytes, 8, &attr, CH_TRY), -EINVAL);
	attr.completion = 0;
	attr.reserved = 1;
	cr_assert_eq(ch_channel_send_attr(ch, bytes, 8, &attr, CH_TRY), -EINVAL);
	cr_assert_eq(ch_channel_send_attr(NULL, bytes, 8, NULL, CH_TRY), -EINVAL);
	cr_assert_eq(ch_channel_count(ch), 0);
	cr_assert_eq(ch_channel_send_attr(ch, bytes, 8, NULL, CH_TRY), 0, "none is fine");
}

/* ---- receipts */

static int recv_when_asleep(void *arg)
{
	await_asleep(getppid());
	board->value[0] = 1;
	EXPECT(ch_channel_recv((struct ch_channel *)arg, got, sizeof(got), CH_FOREVER) >= 0);
	return 0;
}

static void waits_for_its_receipt(uint32_t flags, size_t len)
{
	struct ch_channel *ch = create(4, 0, flags, CH_WAIT_SLEEP);
	struct ch_send_attr attr = CH_SEND_ATTR_INIT;
	pid_t child;

	board->value[0] = 0;
	attr.completion = CH_RECEIVED;
	child = child_start(recv_when_asleep, ch);
	cr_assert_eq(ch_channel_send_attr(ch, bytes, len, &attr, CH_FOREVER), 0);
	cr_assert_eq(board->value[0], 1);
	cr_assert_eq(child_end(child), 0);
	ch_channel_destroy(ch);
}

Test(attr, a_sender_waits_for_its_receipt, .init = setup, .fini = teardown)
{
	waits_for_its_receipt(0, 8);
	waits_for_its_receipt(0, 5000);
	waits_for_its_receipt(CH_CHANNEL_SPSC, 8);
	waits_for_its_receipt(CH_CHANNEL_SPSC, 5000);
	cr_assert(pool_is_as_before(pool, &bare));
}

Test(attr, no_receipt_in_time_is_told_from_not_sent, .init = setup, .fini = teardown)
{
	for (int kind = 0; kind < 2; kind++) {
		struct ch_channel *ch = create(1, 0, kind ? CH_CHANNEL_SPSC : 0, 0);
		struct ch_send_attr attr = CH_SEND_ATTR_INIT;

		attr.completion = CH_DEPOSITED;
		cr_assert_eq(ch_channel_send_attr(ch, bytes, 8, &attr, CH_TRY), 0, "it lies in the ring");
		cr_assert_eq(ch_channel_recv(ch, got, sizeof(got), CH_TRY), 8);
		attr.completion = CH_RECEIVED;
		cr_assert_eq(ch_channel_send_attr(ch, bytes, 8, &attr, 2 * MS), -EINPROGRESS);
		cr_assert_eq(ch_channel_count(ch), 1, "sent");
		cr_assert_eq(ch_channel_send_attr(ch, bytes, 8, &attr, 2 * MS), -ETIMEDOUT);
		cr_assert_eq(ch_channel_send_attr(ch, bytes, 8, &attr, CH_TRY), -EAGAIN);
		cr_assert_eq(ch_channel_count(ch), 1, "not sent");
		ch_channel_destroy(ch);
	}
}

static int destroy_when_asleep(void *arg)
{
	await_asleep(getppid());
	ch_channel_destroy((struct ch_channel *)arg);
	return 0;
}

Test(attr, the_end_of_the_channel_ends_the_wait_for_a_receipt, .init = setup, .fini = teardown)
{
	struct ch_channel *ch = create(4, 0, 0, CH_WAIT_SLEEP);
	struct ch_send_attr attr = CH_SEND_ATTR_INIT;
	pid_t child = child_start(destroy_when_asleep, ch);

	attr.completion = CH_RECEIVED;
	cr_assert_eq(ch_channel_send_attr(ch, bytes, 8, &attr, CH_FOREVER), -EINPROGRESS);
	cr_assert_eq(child_end(child), 0);
	cr_assert_eq(ch_channel_send_attr(ch, bytes, 8, &attr, CH_FOREVER), -ESTALE);
}

/* ---- peek and drain */

Test(attr, peek_leaves_the_message, .init = setup, .fini = teardown)
{
	const size_t lens[] = {0, 5, 8, 48, 49, 1000, 20000};

	for (int kind = 0; kind < 3; kind++) {
		struct ch_channel *ch = create(4, kind == 2 ? 2 : 0, kind == 1 ? CH_CHANNEL_SPSC : 0, 0);
		struct ch_recv_info info;

		cr_assert_eq(ch_channel_peek(ch, got, sizeof(got), CH_TRY, NULL), -EAGAIN);
		cr_assert_eq(ch_channel_peek(ch, got, sizeof(got), 2 * MS, NULL), -ETIMEDOUT);
		for (uint64_t i = 0; i < 7; i++) {
			cr_assert_eq(send_with(ch, lens[i], CH_MESSAGE_TAGGED, i), 0);
			if (kind == 2)
				cr_assert_eq(send_with(ch, lens[i], CH_MESSAGE_TAGGED | CH_MESSAGE_URGENT, i + 100), 0);
			for (int k = 0; k < 2; k++) {
				cr_assert_eq(ch_channel_peek(ch, got, sizeof(got), CH_TRY, &info), (ssize_t)lens[i]);
				cr_assert_eq(info.tag, kind == 2 ? i + 100 : i);
				cr_assert(is_filled(got, lens[i], 1, info.tag));
			}
			if (lens[i])
				cr_assert_eq(ch_channel_peek(ch, got, lens[i] - 1, CH_TRY, &info), -ENOBUFS);
			cr_assert_eq(ch_channel_count(ch), kind == 2 ? 2 : 1);
			cr_assert_eq(ch_channel_drain(ch), kind == 2 ? 2 : 1);
		}
		cr_assert_eq(ch_channel_peek(NULL, got, 1, CH_TRY, NULL), -EINVAL);
		cr_assert_eq(ch_channel_close(ch), 0);
		cr_assert_eq(ch_channel_recv(ch, got, 1, CH_TRY), -EPIPE);
		cr_assert_eq(ch_channel_peek(ch, got, 1, CH_FOREVER, NULL), -EPIPE);
		ch_channel_destroy(ch);
	}
	cr_assert(pool_is_as_before(pool, &bare));
}

static int peek_once(void *arg)
{
	EXPECT(ch_channel_peek((struct ch_channel *)arg, got, sizeof(got), CH_FOREVER, NULL) == 8);
	return 0;
}

static int recv_once(void *arg)
{
	EXPECT(ch_channel_recv((struct ch_channel *)arg, got, sizeof(got), CH_FOREVER) == 8);
	return 0;
}

Test(attr, a_peeker_does_not_swallow_the_wake_up, .init = setup, .fini = teardown)
{
	struct ch_channel *ch = create(4, 0, 0, CH_WAIT_SLEEP);
	pid_t peekers[2], receiver;

	peekers[0] = child_start(peek_once, ch);
	await_asleep(peekers[0]);
	peekers[1] = child_start(peek_once, ch);
	await_asleep(peekers[1]);
	receiver = child_start(recv_once, ch);
	await_asleep(receiver);
	cr_assert_eq(send_with(ch, 8, 0, 1), 0);
	cr_assert_eq(child_end(receiver), 0);
	cr_assert_eq(send_with(ch, 8, 0, 1), 0, "if the first came to the receiver before the peekers looked");
	cr_assert_eq(child_end(peekers[0]), 0);
	cr_assert_eq(child_end(peekers[1]), 0);
}

static int churn(void *arg)
{
	struct ch_channel *ch = (struct ch_channel *)arg;

	for (uint64_t i = 0; !posted(board, 0); i++) {
		const size_t len = 8 + i % 100;

		memcpy(bytes, &i, 8);
		fill(bytes + 8, len - 8, 1, i);
		EXPECT(ch_channel_send(ch, bytes, len, CH_FOREVER) == 0);
		EXPECT(ch_channel_recv(ch, bytes, sizeof(bytes), CH_FOREVER) > 0);
	}
	return 0;
}

Test(attr, what_is_peeked_is_whole_while_others_receive, .init = setup, .fini = teardown)
{
	struct ch_channel *ch = create(2, 0, 0, 0);
	pid_t child = child_start(churn, ch);

	for (int n = 0; n < 3000;) {
		const ssize_t len = ch_channel_peek(ch, got, sizeof(got), CH_TRY, NULL);
		uint64_t i;

		if (len == -EAGAIN)
			continue;
		cr_assert_geq(len, 8);
		memcpy(&i, got, 8);
		cr_assert_eq((size_t)len, 8 + i % 100);
		cr_assert(is_filled(got + 8, (size_t)len - 8, 1, i));
		n++;
	}
	post(board, 0);
	cr_assert_eq(child_end(child), 0);
}

Test(attr, drain_throws_away_what_is_there, .init = setup, .fini = teardown)
{
	for (int kind = 0; kind < 2; kind++) {
		struct ch_channel *ch = create(8, 0, kind ? CH_CHANNEL_SPSC : 0, 0);

		cr_assert_eq(ch_channel_drain(ch), 0);
		for (uint64_t i = 0; i < 8; i++)
			cr_assert_eq(send_with(ch, i * 100, 0, i), 0);
		cr_assert_eq(ch_channel_drain(ch), 8);
		cr_assert_eq(ch_channel_recv(ch, got, sizeof(got), CH_TRY), -EAGAIN);
		cr_assert_eq(send_with(ch, 8, 0, 1), 0);
		cr_assert_eq(ch_channel_close(ch), 0);
		cr_assert_eq(ch_channel_drain(ch), 1);
		cr_assert_eq(ch_channel_drain(ch), 0);
		cr_assert_eq(ch_channel_drain(NULL), -EINVAL);
		ch_channel_destroy(ch);
		cr_assert(pool_is_as_before(pool, &bare));
	}
}

/* ---- how handles wait */

/* Voluntary context switches: who sleeps makes one, who spins none. */
static long nr_sleeps(void)
{
	FILE *f = fopen("/proc/thread-self/status", "re");
	char line[200];
	long n = -1;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "voluntary_ctxt_switches: %ld", &n) == 1)
			break;
	if (f)
		fclose(f);
	return n;
}

static int wait_as_told(void *arg)
{
	struct ch_channel *ch = NULL;
	long before, sleeps;

	(void)arg;
	EXPECT(ch_channel_attach(&board->descr, &ch) == 0);
	if (board->value[0])
		EXPECT(ch_channel_set_spin(ch, (uint32_t)board->value[0]) == 0);
	before = nr_sleeps();
	EXPECT(ch_channel_recv(ch, got, sizeof(got), 5 * MS) == -ETIMEDOUT);
	sleeps = nr_sleeps() - before;
	ch_channel_detach(ch);
	return sleeps > 0;
}

Test(attr, attachers_wait_as_the_channel_says_unless_told_otherwise, .init = setup, .fini = teardown)
{
	struct ch_channel *spins = create(4, 0, 0, CH_WAIT_SPIN), *sleeps;

	cr_assert_eq(child_end(child_start(wait_as_told, NULL)), 0, "it spins");
	board->value[0] = CH_SPIN_NEVER;
	cr_assert_eq(child_end(child_start(wait_as_told, NULL)), 1, "it sleeps");
	sleeps = create(4, 0, 0, CH_WAIT_SLEEP);
	board->value[0] = 0;
	cr_assert_eq(child_end(child_start(wait_as_told, NULL)), 1, "it sleeps");
	ch_channel_destroy(spins);
	ch_channel_destroy(sleeps);
}

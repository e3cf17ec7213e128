/* SPDX-License-Identifier: Apache-2.0 */
/* channel.h: acknowledged channels: a taken message is done with at its release, or comes again. */
#include "../support/support.h"
#include <criterion/criterion.h>

TestSuite(ack, .timeout = WATCHDOG_S);

static struct ch_pool *pool;
static struct ch_channel *ch;
static struct ch_pool_stats before;
static struct board *board;

static void setup(void)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;

	board = board_new();
	pool = pool_of(4 << 20);
	attr.capacity = 4;
	attr.urgent_capacity = 2;
	attr.flags = CH_CHANNEL_ACKNOWLEDGED;
	cr_assert_eq(ch_channel_create(pool, &attr, &ch), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_get_descr(ch, &board->descr), 0);
	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
}

static void teardown(void)
{
	ch_pool_destroy(pool);
}

static void send_numbered(uint64_t nr, size_t len, uint32_t flags)
{
	static unsigned char bytes[5000];
	struct ch_send_attr attr = CH_SEND_ATTR_INIT;

	fill(bytes, len, 3, nr);
	attr.flags = flags | CH_MESSAGE_TAGGED;
	attr.tag = nr;
	cr_assert_eq(ch_channel_send_attr(ch, bytes, len, &attr, CH_TRY), 0, "%s", ch_errmsg());
}

static void take_numbered(struct ch_message *msg, uint64_t nr, size_t len, uint32_t flags)
{
	cr_assert_eq(ch_channel_take(ch, CH_TRY, msg), 0);
	cr_assert_eq(msg->flags, flags | CH_MESSAGE_TAGGED, "%u", msg->flags);
	cr_assert_eq(msg->tag, nr);
	cr_assert_eq(msg->sender.id, ch_peer_self().id);
	cr_assert_eq(msg->len, len);
	cr_assert(is_filled(msg->data, len, 3, nr));
}

Test(ack, unreleased_messages_keep_their_places, .init = setup, .fini = teardown)
{
	struct ch_message msgs[4];

	for (int i = 0; i < 4; i++)
		send_numbered((uint64_t)i, i % 2 ? 3000 : 20, 0);
	for (int i = 0; i < 4; i++)
		take_numbered(&msgs[i], (uint64_t)i, i % 2 ? 3000 : 20, 0);
	cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), -EAGAIN, "none is released");
	cr_assert_eq(ch_channel_count(ch), 0, "but all are taken");
	ch_channel_release(ch, &msgs[2]);
	cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), -EAGAIN, "the next in turn is not");
	ch_channel_release(ch, &msgs[0]);
	cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), 0);
	cr_assert_null(msgs[0].data);
	ch_channel_release(ch, &msgs[0]);
	ch_channel_release(ch, &msgs[1]);
	ch_channel_release(ch, &msgs[3]);
	cr_assert_eq(ch_channel_drain(ch), 1);
	cr_assert(pool_is_as_before(pool, &before));
}

Test(ack, recv_releases_at_once, .init = setup, .fini = teardown)
{
	char buf[5000];

	for (int i = 0; i < 40; i++) {
		send_numbered((uint64_t)i, (size_t)i * 100, 0);
		cr_assert_eq(ch_channel_recv(ch, buf, sizeof(buf), CH_TRY), i * 100);
	}
	cr_assert(pool_is_as_before(pool, &before));
}

Test(ack, given_back_it_comes_again_and_says_so, .init = setup, .fini = teardown)
{
	struct ch_message a = CH_MESSAGE_INIT, b = CH_MESSAGE_INIT;
	struct ch_recv_info info;
	char buf[5000];

	send_numbered(1, 3000, 0);
	send_numbered(2, 20, 0);
	take_numbered(&a, 1, 3000, 0);
	take_numbered(&b, 2, 20, 0);
	cr_assert_eq(ch_channel_requeue(ch, &b), 0);
	cr_assert_null(b.data);
	cr_assert_eq(ch_channel_requeue(ch, &a), 0);
	take_numbered(&a, 1, 3000, CH_MESSAGE_REDELIVERED);
	cr_assert_eq(ch_channel_requeue(ch, &a), 0, "as often as one likes");
	cr_assert_eq(ch_channel_peek(ch, buf, sizeof(buf), CH_TRY, &info), 3000);
	cr_assert_eq(info.flags, CH_MESSAGE_TAGGED | CH_MESSAGE_REDELIVERED);
	take_numbered(&a, 1, 3000, CH_MESSAGE_REDELIVERED);
	cr_assert_eq(ch_channel_recv_info(ch, buf, sizeof(buf), CH_TRY, &info), 20);
	cr_assert_eq(info.flags, CH_MESSAGE_TAGGED | CH_MESSAGE_REDELIVERED);
	cr_assert_eq(info.tag, 2);
	ch_channel_release(ch, &a);
	cr_assert_eq(ch_channel_recv(ch, buf, sizeof(buf), CH_TRY), -EAGAIN);
	cr_assert(pool_is_as_before(pool, &before));
}

Test(ack, urgent_ones_too, .init = setup, .fini = teardown)
{
	struct ch_message msg = CH_MESSAGE_INIT;

	send_numbered(1, 20, 0);
	send_numbered(2, 2000, CH_MESSAGE_URGENT);
	take_numbered(&msg, 2, 2000, CH_MESSAGE_URGENT);
	cr_assert_eq(ch_channel_requeue(ch, &msg), 0);
	take_numbered(&msg, 2, 2000, CH_MESSAGE_URGENT | CH_MESSAGE_REDELIVERED);
	ch_channel_release(ch, &msg);
	take_numbered(&msg, 1, 20, 0);
	ch_channel_release(ch, &msg);
	cr_assert(pool_is_as_before(pool, &before));
}

Test(ack, nothing_else_can_be_given_back, .init = setup, .fini = teardown)
{
	struct ch_message msg = CH_MESSAGE_INIT, copy;
	struct ch_channel *plain = NULL;

	cr_assert_eq(ch_channel_requeue(ch, &msg), -EINVAL, "an empty one");
	cr_assert_eq(ch_channel_requeue(NULL, &msg), -EINVAL);
	send_numbered(1, 200, 0);
	take_numbered(&msg, 1, 200, 0);
	cr_assert_eq(ch_channel_commit(ch, &msg, CH_TRY), -EINVAL, "it is still the channel's");
	memcpy(&copy, &msg, sizeof(msg));
	ch_channel_release(ch, &msg);
	cr_assert_eq(ch_channel_requeue(ch, &copy), -EINVAL, "released already");
	send_numbered(2, 8, 0);
	ch_channel_release(ch, &copy);
	cr_assert_eq(ch_channel_count(ch), 1, "a second release releases nothing");
	cr_assert_eq(ch_channel_create(pool, NULL, &plain), 0);
	cr_assert_eq(ch_channel_send(plain, "x", 1, CH_TRY), 0);
	cr_assert_eq(ch_channel_take(plain, CH_TRY, &msg), 0);
	cr_assert_eq(ch_channel_requeue(plain, &msg), -EINVAL, "not acknowledged");
}

/* ---- death and detach */

static int take_and_go(void *arg)
{
	struct ch_message msgs[2];
	struct ch_channel *mine = NULL;
	struct ch_pool *same = NULL;

	ch_channel_detach(ch); /* the inherited handle */
	EXPECT(ch_channel_attach(&board->descr, &mine) == 0);
	EXPECT(ch_pool_attach(&board->descr, &same) == 0);
	for (int i = 0; i < 2; i++)
		EXPECT(ch_channel_take(mine, CH_FOREVER, &msgs[i]) == 0);
	if (arg) {
		ch_channel_detach(mine); /* and stays in the pool */
		post(board, 0);
		await_post(board, 1);
		return 0;
	}
	post(board, 0);
	return wait_to_be_killed();
}

static void comes_again(void *how)
{
	struct ch_message msg = CH_MESSAGE_INIT;
	pid_t child;

	send_numbered(1, 3000, 0);
	send_numbered(2, 20, 0);
	send_numbered(3, 20, 0);
	child = child_start(take_and_go, how);
	await_post(board, 0);
	if (!how) {
		take_numbered(&msg, 3, 20, 0);
		ch_channel_release(ch, &msg);
		child_kill(child);
	}
	for (uint64_t nr = 1; nr <= 2; nr++) {
		cr_assert_eq(ch_channel_take(ch, CH_FOREVER, &msg), 0);
		cr_assert_eq(msg.flags, CH_MESSAGE_TAGGED | CH_MESSAGE_REDELIVERED);
		cr_assert_eq(msg.tag, nr);
		cr_assert(is_filled(msg.data, msg.len, 3, nr));
		ch_channel_release(ch, &msg);
	}
	if (how) {
		take_numbered(&msg, 3, 20, 0);
		ch_channel_release(ch, &msg);
		post(board, 1);
		cr_assert_eq(child_end(child), 0);
	}
	cr_assert_eq(ch_channel_take(ch, CH_TRY, &msg), -EAGAIN);
	cr_assert(pool_is_as_before(pool, &before));
}

Test(ack, what_a_dead_receiver_did_not_release_comes_again, .init = setup, .fini = teardown)
{
	comes_again(NULL);
}

Test(ack, what_a_receiver_did_not_release_before_its_detach_comes_again, .init = setup, .fini = teardown)
{
	comes_again(board);
}

static int wait_for_the_end(void *arg)
{
	struct ch_message msg = CH_MESSAGE_INIT;

	(void)arg;
	EXPECT(ch_channel_take(ch, CH_FOREVER, &msg) == 0);
	EXPECT(msg.flags & CH_MESSAGE_REDELIVERED);
	ch_channel_release(ch, &msg);
	post(board, 0);
	EXPECT(ch_channel_take(ch, CH_FOREVER, &msg) == -EPIPE);
	return 0;
}

Test(ack, a_closed_channel_is_over_when_all_is_released, .init = setup, .fini = teardown)
{
	struct ch_message a = CH_MESSAGE_INIT, b = CH_MESSAGE_INIT;
	pid_t child;

	send_numbered(1, 20, 0);
	send_numbered(2, 20, 0);
	take_numbered(&a, 1, 20, 0);
	take_numbered(&b, 2, 20, 0);
	cr_assert_eq(ch_channel_close(ch), 0);
	cr_assert_eq(ch_channel_take(ch, CH_TRY, &b), -EAGAIN, "not over: one may come again");
	child = child_start(wait_for_the_end, NULL);
	await_asleep(child);
	cr_assert_eq(ch_channel_requeue(ch, &b), 0);
	await_post(board, 0);
	await_asleep(child);
	ch_channel_release(ch, &a);
	cr_assert_eq(child_end(child), 0);
	cr_assert_eq(ch_channel_take(ch, CH_FOREVER, &b), -EPIPE);
}

/* ---- receipts */

static int release_later(void *arg)
{
	struct ch_message msg = CH_MESSAGE_INIT;

	(void)arg;
	EXPECT(ch_channel_take(ch, CH_FOREVER, &msg) == 0);
	post(board, 0);
	await_asleep(getppid());
	board->value[0] = 1;
	ch_channel_release(ch, &msg);
	return 0;
}

Test(ack, a_receipt_is_the_release, .init = setup, .fini = teardown)
{
	struct ch_send_attr attr = CH_SEND_ATTR_INIT;
	struct ch_message msg = CH_MESSAGE_INIT;
	pid_t child;

	attr.completion = CH_RECEIVED;
	cr_assert_eq(ch_channel_send_attr(ch, "x", 1, &attr, CH_TRY), -EINPROGRESS, "sent, not received");
	cr_assert_eq(ch_channel_take(ch, CH_TRY, &msg), 0);
	ch_channel_release(ch, &msg);
	child = child_start(release_later, NULL);
	cr_assert_eq(ch_channel_send_attr(ch, "y", 1, &attr, CH_FOREVER), 0);
	cr_assert_eq(board->value[0], 1, "after the release");
	cr_assert_eq(child_end(child), 0);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* channel.h: one sender and one receiver: order, roles, who may have them, and what is left when one of them goes. */
#include "../support/support.h"
#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(spsc, .timeout = WATCHDOG_S);

static struct ch_pool *pool;
static struct ch_pool_stats bare;
static struct board *board;

static struct ch_channel *create(uint32_t capacity, uint32_t more_flags)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_channel *ch = NULL;

	attr.capacity = capacity;
	attr.flags = CH_CHANNEL_SPSC | more_flags;
	cr_assert_eq(ch_channel_create(pool, &attr, &ch), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_get_descr(ch, &board->descr), 0);
	return ch;
}

static struct ch_channel *attach(void)
{
	struct ch_channel *ch = NULL;

	EXPECT(ch_channel_attach(&board->descr, &ch) == 0);
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

static size_t length_of(uint64_t i)
{
	return i % 3 == 0 ? i % 49 : i % 3 == 1 ? 40 : i % 2000;
}

Test(spsc, messages_of_all_lengths_arrive_in_order, .init = setup, .fini = teardown)
{
	const uint32_t capacities[] = {1, 2, 4, 64};
	static char out[2000], in[2000];

	for (size_t c = 0; c < 4; c++) {
		struct ch_channel *ch = create(capacities[c], 0);

		cr_assert_eq(ch_channel_get_capacity(ch), capacities[c]);
		for (uint64_t sent = 0, got = 0; got < 1000;) {
			fill(out, length_of(sent), 1, sent);
			while (ch_channel_send(ch, out, length_of(sent), CH_TRY) == 0) {
				sent++;
				fill(out, length_of(sent), 1, sent);
			}
			cr_assert_eq(sent - got, capacities[c], "it is full");
			cr_assert_eq(ch_channel_count(ch), (ssize_t)capacities[c]);
			for (uint32_t k = 0; k < 1 + capacities[c] / 2; k++, got++) {
				cr_assert_eq(ch_channel_recv(ch, in, sizeof(in), CH_TRY), (ssize_t)length_of(got), "%s",
					     ch_errmsg());
				cr_assert(is_filled(in, length_of(got), 1, got));
			}
		}
		ch_channel_destroy(ch);
	}
	cr_assert(pool_is_as_before(pool, &bare));
}

Test(spsc, in_place_both_ways, .init = setup, .fini = teardown)
{
	struct ch_channel *ch = create(4, 0);
	struct ch_message msg = CH_MESSAGE_INIT;

	for (size_t len = 1; len < 9000; len = len * 2 + 1) {
		cr_assert_eq(ch_channel_claim(ch, len, CH_TRY, &msg), 0);
		fill(msg.data, len, 2, len);
		cr_assert_eq(ch_channel_commit(ch, &msg, CH_TRY), 0);
		cr_assert_eq(ch_channel_take(ch, CH_TRY, &msg), 0);
		cr_assert_eq(msg.len, len);
		cr_assert(is_filled(msg.data, len, 2, len));
		ch_channel_release(ch, &msg);
	}
	ch_channel_destroy(ch);
	cr_assert(pool_is_as_before(pool, &bare));
}

/* ---- roles */

static int try_both(void *arg)
{
	struct ch_channel *ch = attach();
	char buf[8];

	(void)arg;
	EXPECT(ch_channel_send(ch, "x", 1, CH_FOREVER) == -EBUSY);
	EXPECT(ch_channel_recv(ch, buf, 8, CH_FOREVER) == -EBUSY);
	EXPECT(ch_channel_bind(ch, CH_ROLE_SENDER | CH_ROLE_RECEIVER) == -EBUSY);
	ch_channel_detach(ch);
	return 0;
}

Test(spsc, another_process_is_told_that_the_roles_are_taken, .init = setup, .fini = teardown)
{
	struct ch_channel *ch = create(4, 0);
	char buf[8];

	cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), 0);
	cr_assert_eq(ch_channel_recv(ch, buf, 8, CH_TRY), 1);
	cr_assert_eq(child_end(child_start(try_both, NULL)), 0);
}

static int use_inherited(void *arg)
{
	struct ch_channel *ch = (struct ch_channel *)arg;
	char buf[8];

	EXPECT(ch_channel_send(ch, "x", 1, CH_TRY) == -EBUSY);
	EXPECT(ch_channel_recv(ch, buf, 8, CH_TRY) == -EBUSY);
	return 0;
}

Test(spsc, a_forked_child_has_not_its_parents_roles, .init = setup, .fini = teardown)
{
	struct ch_channel *ch = create(4, 0);
	char buf[8];

	cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), 0);
	cr_assert_eq(ch_channel_recv(ch, buf, 8, CH_TRY), 1);
	cr_assert_eq(child_end(child_start(use_inherited, ch)), 0);
	cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), 0, "the parent still has them");
}

static int thread_rc[2];

static void *send_in_thread(void *arg)
{
	struct ch_channel *ch = (struct ch_channel *)arg;

	thread_rc[0] = ch_channel_send(ch, "y", 1, CH_TRY);
	thread_rc[1] = ch_channel_unbind(ch, CH_ROLE_SENDER);
	return NULL;
}

static void in_thread(struct ch_channel *ch)
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, send_in_thread, ch), 0);
	pthread_join(thread, NULL);
}

Test(spsc, another_thread_and_another_handle_are_told_until_the_role_is_given_up, .init = setup, .fini = teardown)
{
	struct ch_channel *ch = create(4, 0), *other = attach();
	char buf[8];

	cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), 0);
	cr_assert_eq(ch_channel_send(other, "x", 1, CH_TRY), -EBUSY, "another handle");
	cr_assert_eq(ch_channel_unbind(other, CH_ROLE_SENDER), -EBUSY, "which cannot give it up");
	cr_assert_eq(ch_channel_unbind(ch, CH_ROLE_SENDER), 0);
	in_thread(ch);
	cr_assert_eq(thread_rc[0], 0);
	cr_assert_eq(thread_rc[1], 0, "and gives it up again");
	cr_assert_eq(ch_channel_send(other, "z", 1, CH_TRY), 0);
	in_thread(ch);
	cr_assert_eq(thread_rc[0], -EBUSY);
	cr_assert_eq(thread_rc[1], -EBUSY);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(ch_channel_recv(ch, buf, 8, CH_TRY), 1);
		cr_assert_eq(buf[0], 'x' + i, "in order, whoever sent");
	}
	ch_channel_detach(other);
	cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), 0, "its handle went, and the role with it");
}

Test(spsc, bind_takes_all_or_none_and_only_here, .init = setup, .fini = teardown)
{
	struct ch_channel *ch = create(4, 0), *other = attach(), *plain = NULL;

	cr_assert_eq(ch_channel_bind(ch, CH_ROLE_RECEIVER), 0);
	cr_assert_eq(ch_channel_bind(ch, CH_ROLE_RECEIVER), 0, "again");
	cr_assert_eq(ch_channel_bind(other, CH_ROLE_SENDER | CH_ROLE_RECEIVER), -EBUSY);
	cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), 0, "the other did not keep the sender's");
	cr_assert_eq(ch_channel_bind(ch, 0), -EINVAL);
	cr_assert_eq(ch_channel_bind(ch, 4), -EINVAL);
	cr_assert_eq(ch_channel_unbind(ch, 4), -EINVAL);
	cr_assert_eq(ch_channel_bind(NULL, 1), -EINVAL);
	cr_assert_eq(ch_channel_create(pool, NULL, &plain), 0);
	cr_assert_eq(ch_channel_bind(plain, CH_ROLE_SENDER), -EINVAL, "a channel without roles");
}

Test(spsc, no_urgent_lane_no_acknowledgements, .init = setup, .fini = teardown)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_channel *ch = NULL;

	attr.flags = CH_CHANNEL_SPSC | CH_CHANNEL_ACKNOWLEDGED;
	cr_assert_eq(ch_channel_create(pool, &attr, &ch), -EINVAL);
	attr.flags = CH_CHANNEL_SPSC;
	attr.urgent_capacity = 4;
	cr_assert_eq(ch_channel_create(pool, &attr, &ch), -EINVAL);
	attr.flags = CH_CHANNEL_HANGS_UP;
	attr.urgent_capacity = 0;
	cr_assert_eq(ch_channel_create(pool, &attr, &ch), -EINVAL, "only with one sender and one receiver");
}

/* ---- death */

static int send_three(void *arg)
{
	struct ch_channel *ch = attach();
	static char large[5000];

	(void)arg;
	for (int i = 0; i < 3; i++) {
		large[0] = (char)('a' + i);
		EXPECT(ch_channel_send(ch, large, i == 1 ? 5000 : 8, CH_TRY) == 0);
	}
	post(board, 0);
	return wait_to_be_killed();
}

Test(spsc, a_dead_senders_messages_stay_and_its_role_is_free, .init = setup, .fini = teardown)
{
	struct ch_channel *ch = create(8, 0);
	static char buf[5000];
	pid_t child = child_start(send_three, NULL);

	await_post(board, 0);
	child_kill(child);
	buf[0] = 'd';
	cr_assert_eq(ch_channel_send(ch, buf, 8, CH_TRY), 0, "%s", ch_errmsg());
	for (int i = 0; i < 4; i++) {
		cr_assert_eq(ch_channel_recv(ch, buf, 5000, CH_TRY), i == 1 ? 5000 : 8);
		cr_assert_eq(buf[0], 'a' + i);
	}
	ch_channel_destroy(ch);
	cr_assert(pool_is_as_before(pool, &bare));
}

static int take_one(void *arg)
{
	struct ch_channel *ch = attach();
	struct ch_message msg = CH_MESSAGE_INIT;

	(void)arg;
	EXPECT(ch_channel_take(ch, CH_FOREVER, &msg) == 0);
	post(board, 0);
	return wait_to_be_killed();
}

Test(spsc, a_dead_receivers_role_is_free_and_the_rest_is_there, .init = setup, .fini = teardown)
{
	struct ch_channel *ch = create(8, 0);
	static char buf[5000];
	pid_t child;

	for (int i = 0; i < 3; i++) {
		buf[0] = (char)('a' + i);
		cr_assert_eq(ch_channel_send(ch, buf, 5000, CH_TRY), 0);
	}
	child = child_start(take_one, NULL);
	await_post(board, 0);
	child_kill(child);
	for (int i = 1; i < 3; i++) {
		cr_assert_eq(ch_channel_recv(ch, buf, 5000, CH_TRY), 5000, "%s", ch_errmsg());
		cr_assert_eq(buf[0], 'a' + i);
	}
	cr_assert_eq(ch_channel_recv(ch, buf, 5000, CH_TRY), -EAGAIN);
	ch_channel_destroy(ch);
	cr_assert(pool_is_as_before(pool, &bare), "the taken one is gone with its receiver, memory and all");
}

/* ---- the end */

Test(spsc, closed_channel_is_drained_and_then_over, .init = setup, .fini = teardown)
{
	struct ch_channel *ch = create(4, 0);
	char buf[8];

	cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), 0);
	cr_assert_eq(ch_channel_close(ch), 0);
	cr_assert_eq(ch_channel_send(ch, "x", 1, CH_FOREVER), -EPIPE);
	cr_assert_eq(ch_channel_recv(ch, buf, 8, CH_FOREVER), 1);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(ch_channel_recv(ch, buf, 8, CH_FOREVER), -EPIPE);
	cr_assert_eq(ch_channel_count(ch), 0);
}

static int stream_until_closed(void *arg)
{
	struct ch_channel *ch = attach();
	uint64_t nr = 0;
	int rc;

	(void)arg;
	while ((rc = ch_channel_send(ch, &nr, sizeof(nr), CH_FOREVER)) == 0)
		nr++;
	EXPECT(rc == -EPIPE);
	board->value[0] = (int64_t)nr;
	return 0;
}

Test(spsc, every_message_sent_before_a_close_is_received, .init = setup, .fini = teardown)
{
	uint64_t seed = test_seed(), got;

	for (int round = 0; round < 30; round++) {
		struct ch_channel *ch = create(8, 0);
		pid_t child = child_start(stream_until_closed, NULL);
		uint64_t enough = rnd(&seed) % 3000;
		ssize_t n;

		for (uint64_t i = 0;; i++) {
			if (i == enough)
				cr_assert_eq(ch_channel_close(ch), 0);
			n = ch_channel_recv(ch, &got, sizeof(got), CH_FOREVER);
			if (n < 0)
				break;
			cr_assert_eq(got, i);
			board->value[1] = (int64_t)i + 1;
		}
		cr_assert_eq(n, -EPIPE);
		cr_assert_eq(child_end(child), 0);
		cr_assert_eq(board->value[0], board->value[1], "as many as were sent");
		board->value[1] = 0;
		ch_channel_destroy(ch);
	}
}

static int hang_up(void *arg)
{
	struct ch_channel *ch = attach();
	const int role = *(int *)arg;
	char buf[8];

	if (role == CH_ROLE_SENDER)
		EXPECT(ch_channel_send(ch, "x", 1, CH_TRY) == 0);
	else
		EXPECT(ch_channel_recv(ch, buf, 8, CH_TRY) == -EAGAIN);
	post(board, 0);
	if (board->value[2])
		return wait_to_be_killed();
	AWAIT(posted(board, 1));
	ch_channel_detach(ch);
	return 0;
}

/* The parent sleeps in a call when the other one goes. */
static void *end_child_when_asleep(void *arg)
{
	pid_t child = *(pid_t *)arg;

	await_asleep(getpid());
	if (board->value[2])
		kill(child, SIGKILL);
	post(board, 1);
	return NULL;
}

static void hangs_up(int role, int dies, int expected)
{
	struct ch_channel *ch;
	pthread_t thread;
	pid_t child;
	char buf[8];
	int rc = 0;

	setup();
	ch = create(4, CH_CHANNEL_HANGS_UP);
	board->value[2] = dies;
	child = child_start(hang_up, &role);
	await_post(board, 0);
	cr_assert_eq(pthread_create(&thread, NULL, end_child_when_asleep, &child), 0);
	if (role == CH_ROLE_SENDER) {
		cr_assert_eq(ch_channel_recv(ch, buf, 8, CH_FOREVER), 1, "what it sent comes first");
		rc = (int)ch_channel_recv(ch, buf, 8, CH_FOREVER);
		cr_assert_eq(ch_channel_recv(ch, buf, 8, CH_TRY), expected, "again");
		cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), expected, "and nobody takes its place");
	} else {
		while ((rc = ch_channel_send(ch, "x", 1, CH_FOREVER)) == 0)
			;
		cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), expected);
		cr_assert_eq(ch_channel_recv(ch, buf, 8, CH_TRY), expected);
	}
	cr_assert_eq(rc, expected, "%d", rc);
	pthread_join(thread, NULL);
	child_end(child);
	ch_channel_destroy(ch);
	cr_assert(pool_is_as_before(pool, &bare));
	teardown();
}

Test(spsc, receiver_is_told_that_the_sender_left)
{
	hangs_up(CH_ROLE_SENDER, 0, -EPIPE);
}

Test(spsc, receiver_is_told_that_the_sender_died)
{
	hangs_up(CH_ROLE_SENDER, 1, -EOWNERDEAD);
}

Test(spsc, sender_is_told_that_the_receiver_left)
{
	hangs_up(CH_ROLE_RECEIVER, 0, -EPIPE);
}

Test(spsc, sender_is_told_that_the_receiver_died)
{
	hangs_up(CH_ROLE_RECEIVER, 1, -EOWNERDEAD);
}

static int bind_offer_and_die(void *arg)
{
	struct ch_channel *ch = attach();

	(void)arg;
	EXPECT(ch_channel_bind(ch, CH_ROLE_SENDER) == 0);
	EXPECT(ch_channel_unbind(ch, CH_ROLE_SENDER) == 0);
	post(board, 0);
	return wait_to_be_killed();
}

Test(spsc, who_had_the_role_last_counts_where_it_was_given_up, .init = setup, .fini = teardown)
{
	struct ch_channel *ch = create(4, CH_CHANNEL_HANGS_UP);
	char buf[8];
	pid_t child = child_start(bind_offer_and_die, NULL);

	await_post(board, 0);
	cr_assert_eq(ch_channel_recv(ch, buf, 8, CH_TRY), -EAGAIN);
	child_kill(child);
	cr_assert_eq(ch_channel_recv(ch, buf, 8, CH_FOREVER), -EOWNERDEAD);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* channel.h: close, detach, destroy, and descriptors of what is no more. */
#include "../support/support.h"
#include <criterion/criterion.h>

TestSuite(end, .timeout = WATCHDOG_S);

static struct ch_pool *pool;
static struct ch_channel *ch;
static struct ch_pool_stats before; /* with the channel, empty */
static struct ch_pool_stats bare;   /* without it */

static struct ch_channel *create(void)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_channel *out = NULL;

	attr.capacity = 4;
	cr_assert_eq(ch_channel_create(pool, &attr, &out), 0, "%s", ch_errmsg());
	return out;
}

static void setup(void)
{
	pool = pool_of(2 << 20);
	cr_assert_eq(ch_pool_get_stats(pool, &bare), 0);
	ch = create();
	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
}

static void teardown(void)
{
	ch_pool_destroy(pool);
}

static void send_lengths(void)
{
	static const char buf[5000];

	cr_assert_eq(ch_channel_send(ch, buf, 8, CH_TRY), 0);
	cr_assert_eq(ch_channel_send(ch, buf, 5000, CH_TRY), 0);
	cr_assert_eq(ch_channel_send(ch, buf, 0, CH_TRY), 0);
}

static void assert_closed_for_senders(void)
{
	struct ch_message msg = CH_MESSAGE_INIT;
	char buf[1000] = { 0 };

	cr_assert_eq(ch_channel_send(ch, buf, 1, CH_TRY), -EPIPE);
	cr_assert_eq(ch_channel_send(ch, buf, 1000, CH_FOREVER), -EPIPE);
	cr_assert_eq(ch_channel_claim(ch, 1, CH_TRY, &msg), -EPIPE);
	cr_assert_eq(ch_channel_claim(ch, 1000, CH_FOREVER, &msg), -EPIPE);
	cr_assert_null(msg.data);
}

Test(end, closed_channel_is_drained_and_then_over, .init = setup, .fini = teardown)
{
	char buf[5000];
	struct ch_message msg = CH_MESSAGE_INIT;

	send_lengths();
	cr_assert_eq(ch_channel_close(ch), 0);
	assert_closed_for_senders();
	cr_assert_eq(ch_channel_close(ch), 0, "twice is the same as once");
	cr_assert_eq(ch_channel_count(ch), 3);
	cr_assert_eq(ch_channel_recv(ch, buf, 5000, CH_TRY), 8);
	cr_assert_eq(ch_channel_take(ch, CH_FOREVER, &msg), 0);
	cr_assert_eq(msg.len, 5000);
	ch_channel_release(ch, &msg);
	cr_assert_eq(ch_channel_recv(ch, buf, 5000, CH_FOREVER), 0);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(ch_channel_recv(ch, buf, 5000, CH_TRY), -EPIPE);
		cr_assert_eq(ch_channel_recv(ch, buf, 5000, CH_FOREVER), -EPIPE);
		cr_assert_eq(ch_channel_take(ch, CH_FOREVER, &msg), -EPIPE);
	}
	assert_closed_for_senders();
	cr_assert_eq(ch_channel_count(ch), 0);
	cr_assert(pool_is_as_before(pool, &before));
}

Test(end, a_full_channel_can_be_closed, .init = setup, .fini = teardown)
{
	char c;

	for (int i = 0; i < 4; i++)
		cr_assert_eq(ch_channel_send(ch, &"abcd"[i], 1, CH_TRY), 0);
	cr_assert_eq(ch_channel_close(ch), 0);
	assert_closed_for_senders();
	for (int i = 0; i < 4; i++)
		cr_assert(ch_channel_recv(ch, &c, 1, CH_FOREVER) == 1 && c == "abcd"[i]);
	cr_assert_eq(ch_channel_recv(ch, &c, 1, CH_FOREVER), -EPIPE);
}

Test(end, what_was_claimed_before_the_close_can_only_be_aborted, .init = setup, .fini = teardown)
{
	struct ch_message small = CH_MESSAGE_INIT, large = CH_MESSAGE_INIT;

	cr_assert_eq(ch_channel_claim(ch, 8, CH_TRY, &small), 0);
	cr_assert_eq(ch_channel_claim(ch, 8000, CH_TRY, &large), 0);
	cr_assert_eq(ch_channel_close(ch), 0);
	cr_assert_eq(ch_channel_commit(ch, &small, CH_TRY), -EPIPE);
	cr_assert_eq(ch_channel_commit(ch, &large, CH_FOREVER), -EPIPE);
	cr_assert(small.data && large.data);
	ch_channel_abort(ch, &small);
	ch_channel_abort(ch, &large);
	cr_assert(pool_is_as_before(pool, &before));
}

enum job { RECV, TAKE, SEND, COMMIT, NR_JOBS };

/* Child: sleeps in one of the calls, and says what it returned. The channel is full or empty accordingly. */
static int sleeps(void *arg)
{
	struct board *b = arg;
	struct ch_message msg = CH_MESSAGE_INIT;
	struct ch_channel *own = ch;
	char buf[100] = { 0 };

	if (b->value[2]) /* a handle of its own, instead of the one it has from its parent */
		EXPECT(ch_channel_attach(&b->descr, &own) == 0);
	if (b->value[1] == COMMIT)
		EXPECT(ch_channel_claim(own, 100, CH_TRY, &msg) == 0);
	post(b, 0);
	switch (b->value[1]) {
	case RECV: b->value[0] = ch_channel_recv(own, buf, 100, CH_FOREVER); break;
	case TAKE: b->value[0] = ch_channel_take(own, CH_FOREVER, &msg); break;
	case SEND: b->value[0] = ch_channel_send(own, buf, 100, CH_FOREVER); break;
	case COMMIT: b->value[0] = ch_channel_commit(own, &msg, CH_FOREVER); break;
	}
	if (b->value[1] == COMMIT) {
		EXPECT(msg.data != NULL); /* still the caller's */
		ch_channel_abort(own, &msg);
	}
	ch_channel_detach(own);
	return 0;
}

static pid_t start_sleeper(struct board *b, enum job job, int attaches)
{
	pid_t pid;

	if (job == SEND || job == COMMIT)
		while (ch_channel_send(ch, "x", 1, CH_TRY) == 0)
			;
	b->value[1] = job;
	b->value[2] = attaches;
	cr_assert_eq(ch_channel_get_descr(ch, &b->descr), 0);
	pid = child_start(sleeps, b);
	await_post(b, 0);
	await_asleep(pid);
	return pid;
}

Test(end, close_wakes_every_sleeper, .init = setup, .fini = teardown)
{
	for (int i = 0; i < NR_JOBS * 2; i++) {
		struct board *b = board_new();
		pid_t pid = start_sleeper(b, (enum job)(i / 2), i % 2);

		cr_assert_eq(ch_channel_close(ch), 0);
		cr_assert_eq(child_end(pid), 0, "job %d", i / 2);
		cr_assert_eq(b->value[0], -EPIPE, "job %d", i / 2);
		ch_channel_destroy(ch);
		ch = create();
	}
	cr_assert(pool_is_as_before(pool, &before));
}

Test(end, destroy_wakes_every_sleeper_with_stale, .init = setup, .fini = teardown)
{
	for (int i = 0; i < NR_JOBS * 2; i++) {
		struct board *b = board_new();
		pid_t pid = start_sleeper(b, (enum job)(i / 2), i % 2);

		ch_channel_destroy(ch);
		cr_assert_eq(child_end(pid), 0, "job %d", i / 2);
		cr_assert_eq(b->value[0], -ESTALE, "job %d", i / 2);
		ch = create();
	}
	cr_assert(pool_is_as_before(pool, &before));
}

Test(end, messages_in_a_destroyed_channel_are_freed, .init = setup, .fini = teardown)
{
	send_lengths();
	ch_channel_destroy(ch);
	cr_assert(pool_is_as_before(pool, &bare));
	ch = create();
	send_lengths();
	cr_assert_eq(ch_channel_close(ch), 0);
	ch_channel_destroy(ch);
	cr_assert(pool_is_as_before(pool, &bare));
}

Test(end, messages_stay_after_a_detach, .init = setup, .fini = teardown)
{
	struct ch_descr d;
	char buf[5000];

	send_lengths();
	ch_channel_get_descr(ch, &d);
	ch_channel_detach(ch);
	cr_assert_eq(ch_channel_attach(&d, &ch), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_count(ch), 3);
	cr_assert_eq(ch_channel_recv(ch, buf, 5000, CH_TRY), 8);
	cr_assert_eq(ch_channel_recv(ch, buf, 5000, CH_TRY), 5000);
	cr_assert_eq(ch_channel_recv(ch, buf, 5000, CH_TRY), 0);
}

static int holds_on(void *arg)
{
	struct board *b = arg;
	struct ch_message mine = CH_MESSAGE_INIT, msg = CH_MESSAGE_INIT, taken = CH_MESSAGE_INIT;
	struct ch_channel *own = NULL, *again = NULL;
	char buf[8];

	EXPECT(ch_channel_attach(&b->descr, &own) == 0);
	EXPECT(ch_channel_claim(own, 3000, CH_TRY, &mine) == 0);
	EXPECT(ch_channel_take(own, CH_TRY, &taken) == 0);
	post(b, 0);
	await_post(b, 1);
	EXPECT(ch_channel_send(own, buf, 8, CH_TRY) == -ESTALE);
	EXPECT(ch_channel_send(own, buf, 8, CH_FOREVER) == -ESTALE);
	EXPECT(ch_channel_recv(own, buf, 8, CH_TRY) == -ESTALE);
	EXPECT(ch_channel_recv(own, buf, 8, CH_FOREVER) == -ESTALE);
	EXPECT(ch_channel_claim(own, 8, CH_TRY, &msg) == -ESTALE);
	EXPECT(ch_channel_claim(own, 8000, CH_FOREVER, &msg) == -ESTALE);
	EXPECT(ch_channel_take(own, CH_TRY, &msg) == -ESTALE);
	EXPECT(ch_channel_take(own, CH_FOREVER, &msg) == -ESTALE);
	EXPECT(ch_channel_commit(own, &mine, CH_FOREVER) == -ESTALE);
	EXPECT(ch_channel_close(own) == -ESTALE);
	EXPECT(ch_channel_count(own) == -ESTALE);
	EXPECT(is_filled(taken.data, taken.len, 1, 1)); /* what it had taken is still its own */
	ch_channel_release(own, &taken);
	ch_channel_abort(own, &mine);
	EXPECT(ch_channel_attach(&b->descr, &again) == -ESTALE);
	EXPECT(again == NULL);
	if (b->value[0])
		ch_channel_detach(own);
	else
		ch_channel_destroy(own); /* the second to do so */
	return 0;
}

/* With another channel made at once, that very likely lies in the same place. */
Test(end, destroyed_is_stale_for_those_who_hold_on, .init = setup, .fini = teardown)
{
	unsigned char buf[2000];

	fill(buf, sizeof(buf), 1, 1);
	for (int i = 0; i < 4; i++) {
		struct board *b = board_new();
		pid_t pid;

		cr_assert_eq(ch_channel_send(ch, buf, i < 2 ? 20 : 2000, CH_TRY), 0);
		b->value[0] = i % 2;
		ch_channel_get_descr(ch, &b->descr);
		pid = child_start(holds_on, b);
		AWAIT(posted(b, 0) || has_ended(pid));
		ch_channel_destroy(ch);
		ch = create();
		cr_assert_eq(ch_channel_send(ch, "new", 3, CH_TRY), 0);
		post(b, 1);
		cr_assert_eq(child_end(pid), 0);
		cr_assert_eq(ch_channel_count(ch), 1, "the new one is undisturbed");
		cr_assert_eq(ch_channel_recv(ch, buf, sizeof(buf), CH_TRY), 3);
		fill(buf, sizeof(buf), 1, 1);
	}
	cr_assert(pool_is_as_before(pool, &before));
}

Test(end, old_descriptors_stay_stale_however_many_are_made_anew, .init = setup, .fini = teardown)
{
	struct ch_descr old[50];
	struct ch_channel *out = NULL;

	for (int i = 0; i < 50; i++) {
		ch_channel_get_descr(ch, &old[i]);
		ch_channel_destroy(ch);
		ch = create();
		for (int k = 0; k <= i; k++)
			cr_assert_eq(ch_channel_attach(&old[k], &out), -ESTALE);
	}
	cr_assert_null(out);
	cr_assert(pool_is_as_before(pool, &before));
}

Test(end, other_handles_of_the_destroyer_are_stale_too, .init = setup, .fini = teardown)
{
	struct ch_channel *second = NULL;
	struct ch_descr d;
	char c;

	ch_channel_get_descr(ch, &d);
	cr_assert_eq(ch_channel_attach(&d, &second), 0);
	ch_channel_destroy(ch);
	cr_assert_eq(ch_channel_send(second, "x", 1, CH_TRY), -ESTALE);
	cr_assert_eq(ch_channel_recv(second, &c, 1, CH_FOREVER), -ESTALE);
	ch_channel_detach(second);
}

static int uses_after_pool_is_gone(void *arg)
{
	struct board *b = arg;
	struct ch_channel *own = NULL, *again = NULL;
	char c;

	EXPECT(ch_channel_attach(&b->descr, &own) == 0);
	post(b, 0);
	b->value[0] = ch_channel_recv(own, &c, 1, CH_FOREVER);
	EXPECT(ch_channel_attach(&b->descr, &again) == -ESTALE);
	ch_channel_detach(own);
	return 0;
}

Test(end, destroying_the_pool_wakes_its_channels, .init = setup)
{
	struct board *b = board_new();
	pid_t pid;

	ch_channel_get_descr(ch, &b->descr);
	pid = child_start(uses_after_pool_is_gone, b);
	await_post(b, 0);
	await_asleep(pid);
	ch_pool_destroy(pool);
	cr_assert_eq(child_end(pid), 0);
	cr_assert_eq(b->value[0], -ESTALE);
}

/* Makes a channel that ends with it, and leaves as value[0] says: killed, exit, detach of the pool. */
static int makes_a_channel_of_its_own(void *arg)
{
	struct board *b = arg;
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_channel *own = NULL;
	struct ch_pool *mine = NULL;
	char bytes[2000] = { 0 };

	await_post(b, 3);
	EXPECT(ch_pool_attach(&b->descr, &mine) == 0);
	attr.capacity = 4;
	attr.flags = CH_CHANNEL_ENDS_WITH_CREATOR;
	EXPECT(ch_channel_create(mine, &attr, &own) == 0);
	EXPECT(ch_channel_send(own, bytes, sizeof(bytes), CH_TRY) == 0);
	EXPECT(ch_channel_get_descr(own, (struct ch_descr *)b->text) == 0);
	post(b, 0);
	await_post(b, 1);
	if (b->value[0] == 0)
		return wait_to_be_killed();
	if (b->value[0] == 1)
		return 0;
	ch_channel_detach(own);
	ch_pool_detach(mine);
	post(b, 2);
	return wait_to_be_killed();
}

static int waits_at_it(void *arg)
{
	struct board *b = arg;
	struct ch_channel *own = NULL;
	char bytes[2000];

	EXPECT(ch_channel_attach((struct ch_descr *)b->text, &own) == 0);
	EXPECT(ch_channel_recv(own, bytes, sizeof(bytes), CH_FOREVER) == 2000);
	post(b, 4);
	EXPECT(ch_channel_recv(own, bytes, sizeof(bytes), CH_FOREVER) == -ESTALE);
	ch_channel_detach(own);
	return 0;
}

Test(end, a_channel_may_end_with_its_creator, .init = setup, .fini = teardown)
{
	for (int how = 0; how < 3; how++) {
		struct board *b = board_new();
		struct ch_channel *late = NULL;
		pid_t creator, waiter;

		cr_assert_eq(ch_pool_get_descr(pool, &b->descr), 0);
		b->value[0] = how;
		creator = child_start(makes_a_channel_of_its_own, b);
		post(b, 3);
		await_post(b, 0);
		waiter = child_start(waits_at_it, b);
		await_post(b, 4);
		await_asleep(waiter);
		post(b, 1);
		if (how == 2)
			await_post(b, 2);
		cr_assert_eq(how == 1 ? child_end(creator) : -child_kill(creator), how == 1 ? 0 : SIGKILL);
		cr_assert_eq(child_end(waiter), 0, "way %d", how);
		while (ch_pool_sweep(pool) > 0)
			;
		cr_assert_eq(ch_channel_attach((struct ch_descr *)b->text, &late), -ESTALE);
		cr_assert(pool_is_as_before(pool, &before));
	}
}

Test(end, unknown_flags_are_invalid, .init = setup, .fini = teardown)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_channel *out = NULL;

	attr.flags = 16;
	cr_assert_eq(ch_channel_create(pool, &attr, &out), -EINVAL);
	attr.flags = 0;
	attr.wait = 3;
	cr_assert_eq(ch_channel_create(pool, &attr, &out), -EINVAL);
	cr_assert_null(out);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* fork() with handles in use: each side is a peer of its own, and neither disturbs the other. */
#include "../support/support.h"
#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(fork, .timeout = WATCHDOG_S);

static struct ch_pool *pool;
static struct ch_channel *ch;
static struct ch_pool_stats before;

static void setup(void)
{
	pool = pool_of(1 << 20);
	cr_assert_eq(ch_channel_create(pool, NULL, &ch), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
}

static void teardown(void)
{
	cr_assert(pool_is_as_before(pool, &before));
	ch_pool_destroy(pool);
}

static int uses_and_detaches(void *arg)
{
	struct board *b = arg;
	char buf[500];

	EXPECT(ch_channel_recv(ch, buf, sizeof(buf), CH_FOREVER) == 500);
	EXPECT(is_filled(buf, 500, 1, 1));
	fill(buf, 500, 2, 2);
	EXPECT(ch_channel_send(ch, buf, 500, CH_FOREVER) == 0);
	post(b, 0);
	await_post(b, 1);
	ch_channel_detach(ch);
	ch_pool_detach(pool);
	return 0;
}

Test(fork, child_uses_and_gives_back_the_handles_of_its_parent, .init = setup, .fini = teardown)
{
	struct board *b = board_new();
	struct ch_pool_stats st;
	char buf[500];
	pid_t pid;

	fill(buf, 500, 1, 1);
	cr_assert_eq(ch_channel_send(ch, buf, 500, CH_TRY), 0);
	pid = child_start(uses_and_detaches, b);
	await_post(b, 0);
	cr_assert_eq(ch_pool_get_stats(pool, &st), 0);
	cr_assert_eq(st.nr_peers, 2, "the child is a peer of its own");
	cr_assert_eq(ch_channel_recv(ch, buf, 500, CH_FOREVER), 500);
	cr_assert(is_filled(buf, 500, 2, 2));
	post(b, 1);
	cr_assert_eq(child_end(pid), 0);
	cr_assert_eq(ch_pool_get_stats(pool, &st), 0);
	cr_assert_eq(st.nr_peers, 1);
	cr_assert_eq(ch_channel_send(ch, buf, 500, CH_TRY), 0, "the parent's handles are as they were");
	cr_assert_eq(ch_channel_recv(ch, buf, 500, CH_TRY), 500);
}

static int does_nothing(void *arg)
{
	(void)arg;
	return 0;
}

static int has_a_child_of_its_own(void *arg)
{
	EXPECT(ch_channel_send(ch, "child", 5, CH_FOREVER) == 0);
	await_post(arg, 2); /* it has been received, and is not the grandchild's */
	EXPECT(child_end(child_start(uses_and_detaches, arg)) == 0);
	EXPECT(ch_channel_send(ch, "child", 5, CH_FOREVER) == 0);
	return 0;
}

Test(fork, grandchildren_too, .init = setup, .fini = teardown)
{
	struct board *b = board_new();
	char buf[500];
	pid_t pid;

	post(b, 1);
	pid = child_start(has_a_child_of_its_own, b);
	cr_assert_eq(ch_channel_recv(ch, buf, 500, CH_FOREVER), 5);
	fill(buf, 500, 1, 1);
	cr_assert_eq(ch_channel_send(ch, buf, 500, CH_FOREVER), 0);
	post(b, 2);
	cr_assert_eq(child_end(pid), 0);
	cr_assert_eq(ch_channel_recv(ch, buf, 500, CH_FOREVER), 500);
	cr_assert_eq(ch_channel_recv(ch, buf, 500, CH_FOREVER), 5);
}

Test(fork, a_child_that_never_touches_them_is_no_peer, .init = setup, .fini = teardown)
{
	struct ch_pool_stats st;

	cr_assert_eq(child_end(child_start(does_nothing, NULL)), 0);
	cr_assert_eq(ch_pool_sweep(pool), 0);
	cr_assert_eq(ch_pool_get_stats(pool, &st), 0);
	cr_assert_eq(st.nr_peers, 1);
}

static struct ch_message held, claimed;
static void *block;

static int dies_with_copies_of_what_the_parent_holds(void *arg)
{
	struct board *b = arg;

	EXPECT(ch_channel_send(ch, "x", 1, CH_FOREVER) == 0); /* becomes a peer */
	EXPECT(ch_pool_free(pool, block) == -EPERM);
	post(b, 0);
	return wait_to_be_killed();
}

Test(fork, what_the_parent_holds_stays_the_parents_when_the_child_dies, .init = setup, .fini = teardown)
{
	struct board *b = board_new();
	char buf[3000];
	pid_t pid;

	fill(buf, sizeof(buf), 1, 1);
	cr_assert_eq(ch_channel_send(ch, buf, sizeof(buf), CH_TRY), 0);
	cr_assert_eq(ch_channel_take(ch, CH_TRY, &held), 0);
	cr_assert_eq(ch_channel_claim(ch, 3000, CH_TRY, &claimed), 0);
	fill(claimed.data, 3000, 2, 2);
	cr_assert_eq(ch_pool_alloc(pool, 3000, CH_TRY, &block), 0);
	fill(block, 3000, 3, 3);
	pid = child_start(dies_with_copies_of_what_the_parent_holds, b);
	await_post(b, 0);
	child_kill(pid);
	while (ch_pool_sweep(pool) > 0)
		;
	cr_assert(is_filled(held.data, 3000, 1, 1));
	ch_channel_release(ch, &held);
	cr_assert_eq(ch_channel_commit(ch, &claimed, CH_TRY), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_recv(ch, buf, sizeof(buf), CH_TRY), 1);
	cr_assert_eq(ch_channel_recv(ch, buf, sizeof(buf), CH_TRY), 3000);
	cr_assert(is_filled(buf, 3000, 2, 2));
	cr_assert(is_filled(block, 3000, 3, 3));
	cr_assert_eq(ch_pool_free(pool, block), 0);
}

static int waits_for_its_parent(void *arg)
{
	struct board *b = arg;

	EXPECT(ch_channel_send(ch, "x", 1, CH_FOREVER) == 0);
	post(b, 0);
	await_post(b, 1); /* the parent is gone */
	while (ch_pool_sweep(pool) > 0)
		;
	b->value[0] = pool_is_as_before(pool, &before);
	post(b, 2);
	return 0;
}

static int forks_and_dies(void *arg)
{
	struct board *b = arg;
	pid_t pid;
	void *p;

	EXPECT(ch_pool_alloc(pool, 3000, CH_TRY, &p) == 0);
	pid = fork();
	if (pid == 0) {
		alarm(WATCHDOG_S);
		_exit(waits_for_its_parent(arg));
	}
	await_post(b, 0);
	return 0;
}

Test(fork, the_child_outlives_its_parent, .init = setup, .fini = teardown)
{
	struct board *b = board_new();
	char c;

	cr_assert_eq(child_end(child_start(forks_and_dies, b)), 0);
	cr_assert_eq(ch_channel_recv(ch, &c, 1, CH_FOREVER), 1);
	post(b, 1);
	await_post(b, 2);
	cr_assert_eq(b->value[0], 1, "what the dead parent held came back");
}

static int keep_going = 1;

static void *chatters(void *arg)
{
	char buf[200];

	while (__atomic_load_n(&keep_going, __ATOMIC_SEQ_CST)) {
		if (ch_channel_send(arg, "hello", 5, CH_FOREVER) < 0 || ch_channel_recv(arg, buf, 200, CH_FOREVER) != 5)
			return NULL;
		if (ch_channel_send(arg, buf, 200, CH_FOREVER) < 0 || ch_channel_recv(arg, buf, 200, CH_FOREVER) != 200)
			return NULL;
	}
	return arg;
}

static int speaks_to_itself(void *arg)
{
	struct ch_channel *own = NULL;
	char buf[200] = { 0 };

	(void)arg;
	EXPECT(ch_channel_create(pool, NULL, &own) == 0);
	for (int i = 0; i < 20; i++) {
		EXPECT(ch_channel_send(own, buf, 200, CH_FOREVER) == 0);
		EXPECT(ch_channel_recv(own, buf, 200, CH_FOREVER) == 200);
	}
	ch_channel_destroy(own);
	return 0;
}

/* No lock of the library is left taken in the child, whatever the parent's threads were doing. */
Test(fork, threads_of_the_parent_may_be_anywhere, .init = setup, .fini = teardown, .disabled = NOT_UNDER_ASAN)
{
	struct ch_channel *other[3];
	pthread_t t[3];
	void *ok;

	for (int i = 0; i < 3; i++) {
		cr_assert_eq(ch_channel_create(pool, NULL, &other[i]), 0, "%s", ch_errmsg());
		cr_assert_eq(pthread_create(&t[i], NULL, chatters, other[i]), 0);
	}
	for (int i = 0; i < 100; i++)
		cr_assert_eq(child_end(child_start(speaks_to_itself, NULL)), 0);
	__atomic_store_n(&keep_going, 0, __ATOMIC_SEQ_CST);
	for (int i = 0; i < 3; i++) {
		pthread_join(t[i], &ok);
		cr_assert_not_null(ok);
		ch_channel_destroy(other[i]);
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/* pool.h with several processes: whose a block is, waiting for memory, what a killed process held, destroy. */
#include "../support/support.h"
#include <criterion/criterion.h>

TestSuite(pool_peers, .timeout = WATCHDOG_S);

static struct ch_pool *attach(const struct ch_descr *d)
{
	struct ch_pool *pool = NULL;

	EXPECT(ch_pool_attach(d, &pool) == 0);
	return pool;
}

/* The child is forked before the pool is made, and so has to attach by the descriptor on the board. */
static struct ch_pool *pool_on_board(struct board *b, uint64_t len)
{
	struct ch_pool *pool = pool_of(len);

	cr_assert_not_null(pool);
	cr_assert_eq(ch_pool_get_descr(pool, &b->descr), 0);
	post(b, 0);
	return pool;
}

static void fill_up(struct ch_pool *pool, size_t len)
{
	void *p;

	while (ch_pool_alloc(pool, len, CH_TRY, &p) == 0)
		;
}

static int child_holds_everything(void *arg)
{
	struct board *b = arg;

	await_post(b, 0);
	fill_up(attach(&b->descr), 1000);
	post(b, 1);
	return wait_to_be_killed();
}

Test(pool_peers, sweep_returns_what_a_killed_process_held)
{
	struct board *b = board_new();
	pid_t pid = child_start(child_holds_everything, b);
	struct ch_pool *pool = pool_on_board(b, 1 << 20);
	struct ch_pool_stats before, st;
	void *p;

	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
	await_post(b, 1);
	cr_assert_eq(ch_pool_alloc(pool, 1000, CH_TRY, &p), -ENOSPC);
	cr_assert_eq(ch_pool_get_stats(pool, &st), 0);
	cr_assert_eq(st.nr_peers, 2);
	child_kill(pid);
	ch_pool_sweep(pool); /* 1, unless the library has seen to it already */
	cr_assert_eq(ch_pool_sweep(pool), 0);
	cr_assert(pool_is_as_before(pool, &before));
	cr_assert_eq(ch_pool_get_stats(pool, &st), 0);
	cr_assert_eq(st.nr_peers, 1);
	cr_assert_eq(ch_pool_alloc(pool, (size_t)before.largest, CH_TRY, &p), 0);
	ch_pool_destroy(pool);
}

Test(pool_peers, waiting_for_memory_looks_for_the_dead)
{
	struct board *b = board_new();
	pid_t pid = child_start(child_holds_everything, b);
	struct ch_pool *pool = pool_on_board(b, 1 << 20);
	void *p;

	await_post(b, 1);
	child_kill(pid);
	cr_assert_eq(ch_pool_alloc(pool, 1000, CH_FOREVER, &p), 0, "%s", ch_errmsg());
	ch_pool_destroy(pool);
}

static int child_waits_for_memory(void *arg)
{
	struct board *b = arg;
	struct ch_pool *pool;
	void *p;

	await_post(b, 0);
	pool = attach(&b->descr);
	EXPECT(ch_pool_alloc(pool, 300000, CH_TRY, &p) == -ENOSPC);
	post(b, 1);
	b->value[0] = ch_pool_alloc(pool, 300000, CH_FOREVER, &p);
	if (b->value[0] == 0)
		memset(p, 1, 300000);
	ch_pool_detach(pool);
	return 0;
}

Test(pool_peers, free_wakes_another_process_that_waits)
{
	struct board *b = board_new();
	pid_t pid = child_start(child_waits_for_memory, b);
	struct ch_pool *pool = pool_of(1 << 20);
	void *p[3];

	for (int i = 0; i < 3; i++)
		cr_assert_eq(ch_pool_alloc(pool, 300000, CH_TRY, &p[i]), 0);
	fill_up(pool, 64);
	ch_pool_get_descr(pool, &b->descr);
	post(b, 0);
	await_post(b, 1);
	await_asleep(pid);
	cr_assert_eq(ch_pool_free(pool, p[1]), 0);
	cr_assert_eq(child_end(pid), 0);
	cr_assert_eq(b->value[0], 0);
	ch_pool_destroy(pool);
}

/* A waiter for a large block must not sleep on when the room comes in small pieces. */
Test(pool_peers, many_small_frees_make_room_for_a_large_waiter)
{
	struct board *b = board_new();
	pid_t pid = child_start(child_waits_for_memory, b);
	struct ch_pool *pool = pool_of(1 << 20);
	void **p = calloc(1 << 15, sizeof(*p));
	size_t n = 0;

	while (ch_pool_alloc(pool, 512, CH_TRY, &p[n]) == 0)
		n++;
	ch_pool_get_descr(pool, &b->descr);
	post(b, 0);
	await_post(b, 1);
	await_asleep(pid);
	for (size_t i = 0; i < n; i++)
		cr_assert_eq(ch_pool_free(pool, p[i]), 0);
	cr_assert_eq(child_end(pid), 0);
	cr_assert_eq(b->value[0], 0);
	free(p);
	ch_pool_destroy(pool);
}

Test(pool_peers, destroy_wakes_a_waiter_with_stale)
{
	struct board *b = board_new();
	pid_t pid = child_start(child_waits_for_memory, b);
	struct ch_pool *pool = pool_of(1 << 20);

	fill_up(pool, 64);
	ch_pool_get_descr(pool, &b->descr);
	post(b, 0);
	await_post(b, 1);
	await_asleep(pid);
	ch_pool_destroy(pool);
	cr_assert_eq(child_end(pid), 0);
	cr_assert_eq(b->value[0], -ESTALE, "%lld", (long long)b->value[0]);
}

static int child_sees_it_destroyed(void *arg)
{
	struct board *b = arg;
	struct ch_pool_stats st;
	struct ch_channel *ch = NULL, *other = NULL;
	struct ch_pool *pool, *again;
	struct ch_message msg = CH_MESSAGE_INIT;
	void *mine, *p;
	char c;

	await_post(b, 0);
	pool = attach(&b->descr);
	EXPECT(ch_channel_create(pool, NULL, &ch) == 0);
	EXPECT(ch_pool_alloc(pool, 1000, CH_TRY, &mine) == 0);
	post(b, 1);
	await_post(b, 2);
	EXPECT(ch_pool_alloc(pool, 64, CH_TRY, &p) == -ESTALE);
	EXPECT(ch_pool_alloc(pool, 64, CH_FOREVER, &p) == -ESTALE);
	EXPECT(ch_pool_get_stats(pool, &st) == -ESTALE);
	EXPECT(ch_pool_sweep(pool) == -ESTALE);
	EXPECT(ch_channel_create(pool, NULL, &other) == -ESTALE);
	EXPECT(ch_channel_send(ch, "x", 1, CH_TRY) == -ESTALE);
	EXPECT(ch_channel_recv(ch, &c, 1, CH_FOREVER) == -ESTALE);
	EXPECT(ch_channel_claim(ch, 1, CH_TRY, &msg) == -ESTALE);
	EXPECT(ch_channel_take(ch, CH_TRY, &msg) == -ESTALE);
	EXPECT(ch_channel_close(ch) == -ESTALE);
	EXPECT(ch_channel_count(ch) == -ESTALE);
	memset(mine, 1, 1000); /* the memory is there until the last one leaves */
	ch_channel_destroy(ch);
	ch_pool_detach(pool);
	EXPECT(ch_pool_attach(&b->descr, &again) == -ESTALE);
	return 0;
}

Test(pool_peers, destroyed_is_stale_for_every_call_of_others)
{
	struct board *b = board_new();
	pid_t pid = child_start(child_sees_it_destroyed, b);
	struct ch_pool *pool = pool_on_board(b, 1 << 20);

	AWAIT(posted(b, 1) || has_ended(pid));
	ch_pool_destroy(pool);
	post(b, 2);
	cr_assert_eq(child_end(pid), 0);
}

static int child_leaves_in_good_order(void *arg)
{
	struct board *b = arg;
	struct ch_pool *pool;
	struct ch_channel *ch = NULL;
	struct ch_message msg = CH_MESSAGE_INIT;
	void *p;

	await_post(b, 0);
	pool = attach(&b->descr);
	EXPECT(ch_pool_alloc(pool, 5000, CH_TRY, &p) == 0);
	EXPECT(ch_pool_alloc(pool, 64, CH_TRY, &p) == 0);
	EXPECT(ch_channel_attach((struct ch_descr *)b->text, &ch) == 0);
	EXPECT(ch_channel_claim(ch, 9000, CH_TRY, &msg) == 0);
	ch_channel_detach(ch);
	ch_pool_detach(pool);
	post(b, 1);
	return wait_to_be_killed();
}

Test(pool_peers, detach_frees_what_the_process_held)
{
	struct board *b = board_new();
	pid_t pid = child_start(child_leaves_in_good_order, b);
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_channel *ch = NULL;
	struct ch_pool_stats before, st;

	cr_assert_eq(ch_channel_create(pool, NULL, &ch), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_get_descr(ch, (struct ch_descr *)b->text), 0);
	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
	ch_pool_get_descr(pool, &b->descr);
	post(b, 0);
	AWAIT(posted(b, 1) || has_ended(pid));
	cr_assert_eq(ch_pool_get_stats(pool, &st), 0);
	cr_assert_eq(st.nr_peers, 1);
	cr_assert_eq(st.used, before.used);
	cr_assert_eq(child_kill(pid), -SIGKILL);
	cr_assert(pool_is_as_before(pool, &before));
	ch_pool_destroy(pool);
}

static int child_frees_what_is_not_its_own(void *arg)
{
	struct board *b = arg;
	struct ch_pool *pool = (struct ch_pool *)b->value[0]; /* the parent's handle stays valid after a fork */
	void *theirs = (void *)b->value[1], *mine = NULL;

	EXPECT(ch_pool_free(pool, theirs) == -EPERM);
	EXPECT(ch_pool_alloc(pool, 100, CH_TRY, &mine) == 0);
	EXPECT(mine != theirs);
	b->value[2] = (int64_t)mine;
	post(b, 1);
	await_post(b, 2);
	EXPECT(ch_pool_free(pool, mine) == 0);
	EXPECT(ch_pool_free(pool, theirs) == -EPERM);
	return 0;
}

Test(pool_peers, block_of_another_process_is_not_permitted)
{
	struct board *b = board_new();
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_pool_stats before;
	void *p;
	pid_t pid;

	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
	cr_assert_eq(ch_pool_alloc(pool, 1000, CH_TRY, &p), 0);
	b->value[0] = (int64_t)pool;
	b->value[1] = (int64_t)p;
	pid = child_start(child_frees_what_is_not_its_own, b);
	AWAIT(posted(b, 1) || has_ended(pid));
	cr_assert_eq(ch_pool_free(pool, (void *)b->value[2]), -EPERM, "the child is a peer of its own");
	post(b, 2);
	cr_assert_eq(child_end(pid), 0);
	cr_assert_eq(ch_pool_free(pool, p), 0, "memory that the parent holds stayed the parent's");
	cr_assert(pool_is_as_before(pool, &before));
	ch_pool_destroy(pool);
}

static int child_attaches_wrong_things(void *arg)
{
	struct board *b = arg;
	struct ch_pool *pool = NULL;
	struct ch_channel *ch = NULL;

	await_post(b, 0);
	EXPECT(ch_pool_attach(&b->descr, &pool) < 0); /* a segment without a pool */
	EXPECT(ch_channel_attach(&b->descr, &ch) < 0);
	EXPECT(pool == NULL && ch == NULL);
	return 0;
}

Test(pool_peers, a_segment_without_pool_is_no_pool)
{
	struct board *b = board_new();
	pid_t pid = child_start(child_attaches_wrong_things, b);
	struct ch_segment *seg = NULL;

	cr_assert_eq(ch_segment_create(NULL, &seg), 0, "%s", ch_errmsg());
	ch_segment_get_descr(seg, &b->descr);
	post(b, 0);
	cr_assert_eq(child_end(pid), 0);
	ch_segment_destroy(seg);
}

static int child_attaches_by_channel(void *arg)
{
	struct board *b = arg;
	struct ch_pool_stats st;
	struct ch_pool *pool;

	await_post(b, 0);
	pool = attach(&b->descr);
	EXPECT(ch_pool_get_stats(pool, &st) == 0);
	EXPECT(st.nr_channels == 1 && st.nr_peers == 2);
	ch_pool_detach(pool);
	return 0;
}

Test(pool_peers, descriptor_of_a_channel_leads_to_its_pool)
{
	struct board *b = board_new();
	pid_t pid = child_start(child_attaches_by_channel, b);
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_channel *ch = NULL;

	cr_assert_eq(ch_channel_create(pool, NULL, &ch), 0, "%s", ch_errmsg());
	ch_channel_get_descr(ch, &b->descr);
	post(b, 0);
	cr_assert_eq(child_end(pid), 0);
	ch_pool_destroy(pool);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Pools that grow when they are full: one process, others that see it, deaths in between, and the end of memory. */
#include "../support/support.h"
#include <criterion/criterion.h>

static struct ch_pool *growing(uint64_t len, uint64_t max_len)
{
	struct ch_pool_attr attr = CH_POOL_ATTR_INIT;
	struct ch_pool *pool = NULL;

	attr.len = len;
	attr.max_len = max_len;
	attr.max_peers = 64;
	cr_assert_eq(ch_pool_create(&attr, &pool), 0, "%s", ch_errmsg());
	return pool;
}

static struct ch_pool_stats stats_of(struct ch_pool *pool)
{
	struct ch_pool_stats st;

	cr_assert_eq(ch_pool_get_stats(pool, &st), 0);
	return st;
}

/* Bytes of memory that the segment of a pool has. */
static uint64_t memory_of(struct ch_pool *pool)
{
	struct ch_segment_info info;
	struct ch_segment *seg = NULL;
	struct ch_descr d;

	ch_pool_get_descr(pool, &d);
	cr_assert_eq(ch_segment_attach(&d, &seg), 0);
	cr_assert_eq(ch_segment_get_info(seg, &info), 0, "%s", ch_errmsg());
	ch_segment_detach(seg);
	return info.backed_len;
}

Test(pool_grow, grows_when_full_and_not_before)
{
	struct ch_pool *pool = growing(1 << 20, 64 << 20);
	const uint64_t begin = stats_of(pool).len;
	uint64_t sum = 0, nr = 0;
	void *p;

	cr_assert_leq(begin, 1 << 20);
	cr_assert_geq(stats_of(pool).max_len, 56 << 20);
	cr_assert_leq(memory_of(pool), 2 << 20, "address space costs no memory");
	for (size_t len; sum + 40000 < begin / 2; sum += len) {
		len = 100 + sum % 30000;
		cr_assert_eq(ch_pool_alloc(pool, len, CH_TRY, &p), 0);
	}
	cr_assert_eq(stats_of(pool).len, begin);
	for (int err; (err = ch_pool_alloc(pool, 10000, CH_TRY, &p)) != -ENOSPC; nr++) {
		cr_assert_eq(err, 0, "%s", ch_errmsg());
		memset(p, (int)nr, 10000);
	}
	cr_assert_eq(stats_of(pool).len, stats_of(pool).max_len);
	cr_assert_geq(stats_of(pool).used, stats_of(pool).max_len / 8 * 7);
	ch_pool_destroy(pool);
}

Test(pool_grow, a_block_larger_than_the_pool_is_now_fits)
{
	struct ch_pool *pool = growing(128 << 10, 32 << 20);
	void *p;

	cr_assert_eq(ch_pool_alloc(pool, 20 << 20, CH_TRY, &p), 0, "%s", ch_errmsg());
	memset(p, 1, 20 << 20);
	cr_assert_eq(ch_pool_block_len(pool, p), 20 << 20);
	cr_assert_eq(ch_pool_alloc(pool, 40 << 20, CH_TRY, &p), -EMSGSIZE);
	ch_pool_destroy(pool);
}

static int fills_and_tells(void *arg)
{
	struct board *b = arg;
	struct ch_pool *pool = NULL;
	struct ch_channel *ch = NULL;
	struct ch_message m = CH_MESSAGE_INIT;

	await_post(b, 0);
	EXPECT(ch_channel_attach(&b->descr, &ch) == 0);
	pool = ch_channel_get_pool(ch);
	for (uint64_t i = 0; i < 40; i++) { /* more than the pool had when the others attached */
		EXPECT(ch_channel_claim(ch, 100000, CH_FOREVER, &m) == 0);
		fill(m.data, 100000, 1, i);
		EXPECT(ch_channel_commit(ch, &m, CH_FOREVER) == 0);
	}
	EXPECT(pool != NULL);
	ch_channel_detach(ch);
	return 0;
}

Test(pool_grow, who_was_attached_before_reads_what_lies_in_new_memory)
{
	struct board *b = board_new();
	pid_t pid = child_start(fills_and_tells, b);
	struct ch_pool *pool = growing(512 << 10, 16 << 20);
	struct ch_message m = CH_MESSAGE_INIT;
	struct ch_channel *ch = NULL;
	const uint64_t begin = stats_of(pool).len;

	cr_assert_eq(ch_channel_create(pool, NULL, &ch), 0);
	ch_channel_get_descr(ch, &b->descr);
	post(b, 0);
	cr_assert_eq(child_end(pid), 0);
	for (uint64_t i = 0; i < 40; i++) {
		cr_assert_eq(ch_channel_take(ch, CH_FOREVER, &m), 0, "%s", ch_errmsg());
		cr_assert(is_filled(m.data, 100000, 1, i));
		ch_channel_release(ch, &m);
	}
	cr_assert_gt(stats_of(pool).len, begin);
	ch_channel_destroy(ch);
	ch_pool_destroy(pool);
}

static int grows_until_killed(void *arg)
{
	struct board *b = arg;
	struct ch_pool *pool = NULL;
	void *p[64];

	EXPECT(ch_pool_attach(&b->descr, &pool) == 0);
	post(b, 1);
	for (;;) {
		int n = 0;

		while (n < 64 && ch_pool_alloc(pool, 60000, CH_TRY, &p[n]) == 0)
			memset(p[n++], 2, 60000);
		while (n > 0)
			EXPECT(ch_pool_free(pool, p[--n]) == 0);
	}
	return 0;
}

Test(pool_grow, processes_killed_while_it_grows_leave_it_whole)
{
	struct board *b = board_new();
	uint64_t rs = test_seed();

	for (int round = 0; round < 10; round++) {
		struct ch_pool *pool = growing(128 << 10, 8 << 20);
		struct ch_pool_stats st;
		pid_t pid[3];
		void *p;

		ch_pool_get_descr(pool, &b->descr);
		memset(b->step, 0, sizeof(b->step));
		for (int i = 0; i < 3; i++)
			pid[i] = child_start(grows_until_killed, b);
		await_post(b, 1);
		for (uint64_t i = rnd(&rs) % 8; i > 0; i--)
			short_nap();
		for (int i = 0; i < 3; i++)
			child_kill(pid[i]);
		while (ch_pool_sweep(pool) > 0)
			;
		st = stats_of(pool);
		cr_assert_eq(st.nr_used, 0);
		while (ch_pool_alloc(pool, 60000, CH_TRY, &p) == 0)
			memset(p, 3, 60000);
		cr_assert_eq(stats_of(pool).len, st.max_len);
		ch_pool_destroy(pool);
	}
}

Test(pool_grow, a_nameless_pool_grows_too)
{
	struct ch_pool_attr attr = CH_POOL_ATTR_INIT;
	struct ch_pool *pool = NULL;
	void *p;
	int n = 0;

	attr.len = 256 << 10;
	attr.max_len = 4 << 20;
	attr.flags = CH_ANONYMOUS;
	cr_assert_eq(ch_pool_create(&attr, &pool), 0, "%s", ch_errmsg());
	for (; ch_pool_alloc(pool, 50000, CH_TRY, &p) == 0; n++)
		memset(p, 1, 50000);
	cr_assert_geq(n, 60);
	ch_pool_destroy(pool);
	attr.max_len = 128 << 10;
	cr_assert_eq(ch_pool_create(&attr, &pool), -EINVAL, "less than len");
}

/* As much as /dev/shm has is promised to others meanwhile: full is what it is then, and not a signal. */
Test(pool_grow, when_there_is_no_more_memory_it_is_full)
{
	struct ch_pool *pool = growing(1 << 20, (uint64_t)1 << 45);
	void *p;

	cr_assert_eq(ch_pool_alloc(pool, (size_t)1 << 44, CH_TRY, &p), -ENOSPC);
	cr_assert_eq(ch_pool_alloc(pool, (size_t)1 << 44, MS, &p), -ETIMEDOUT);
	cr_assert_eq(ch_pool_alloc(pool, 1000, CH_TRY, &p), 0);
	ch_pool_destroy(pool);
}

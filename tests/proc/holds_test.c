/* SPDX-License-Identifier: Apache-2.0 */
/* What the dead hold: until ch_segment_holds says no it is as they left it, and after ch_pool_sweep it is nobody's. */
#include "../support/support.h"
#include <criterion/criterion.h>

TestSuite(holds, .timeout = WATCHDOG_S);

#define LEN 20000
#define WRITERS 2

static struct board *b;
static struct ch_pool *pool;
static struct ch_segment *seg;

static void setup(void)
{
	struct ch_descr d;

	b = board_new();
	pool = pool_of(2 << 20);
	cr_assert_not_null(pool);
	cr_assert_eq(ch_pool_get_descr(pool, &d), 0);
	cr_assert_eq(ch_segment_attach(&d, &seg), 0, "%s", ch_errmsg());
}

static void teardown(void)
{
	ch_segment_detach(seg);
	ch_pool_destroy(pool);
}

static struct ch_peer told(void)
{
	return (struct ch_peer){ (uint64_t)b->value[0] };
}

/* A block of its own, filled; and many more, so that it takes a while to give them all back. */
static int owns_a_block(void *arg)
{
	void *addr, *more;

	AWAIT(ch_pool_alloc(pool, LEN, CH_TRY, &addr) == 0);
	fill(addr, LEN, 7, LEN);
	for (int i = 0; i < 4000 && !arg; i++)
		AWAIT(ch_pool_alloc(pool, 100, CH_TRY, &more) == 0);
	b->value[0] = (int64_t)ch_peer_self().id;
	b->value[1] = (char *)addr - (char *)ch_segment_addr(seg);
	post(b, 0);
	if (!arg)
		return wait_to_be_killed();
	await_post(b, 1);
	EXPECT(ch_segment_holds(seg, ch_peer_self(), 0) > 0);
	ch_pool_free(pool, addr);
	ch_segment_detach(seg);
	ch_pool_detach(pool);
	post(b, 2);
	return wait_to_be_killed();
}

Test(holds, a_process_that_lives, .init = setup, .fini = teardown)
{
	const pid_t pid = child_start(owns_a_block, NULL);
	int place;

	await_post(b, 0);
	place = ch_segment_holds(seg, told(), 0);
	cr_assert_gt(place, 0);
	for (int hint = -1; hint < 5000; hint++)
		cr_assert_eq(ch_segment_holds(seg, told(), hint), place, "whatever the hint");
	cr_assert_eq(ch_segment_holds(seg, (struct ch_peer){ 0 }, place), 0);
	cr_assert_eq(ch_segment_holds(seg, (struct ch_peer){ told().id + 1 }, place), 0);
	cr_assert_eq(ch_segment_holds(NULL, told(), place), -EINVAL);
	cr_assert_eq(child_kill(pid), -SIGKILL);
	AWAIT(ch_segment_holds(seg, told(), place) == 0);
}

Test(holds, not_one_that_has_detached, .init = setup, .fini = teardown)
{
	const pid_t pid = child_start(owns_a_block, b);

	await_post(b, 0);
	cr_assert_gt(ch_segment_holds(seg, told(), 0), 0);
	post(b, 1);
	await_post(b, 2);
	cr_assert_eq(ch_segment_holds(seg, told(), 0), 0, "though it lives");
	cr_assert_eq(child_kill(pid), -SIGKILL);
}

/* Takes all the memory there is, and writes on it. */
static int writes_on_all(void *arg)
{
	void *addr[100];

	(void)arg;
	for (post(b, 3);;) {
		int n = 0;

		for (; n < 100 && ch_pool_alloc(pool, LEN, CH_TRY, &addr[n]) == 0; n++)
			memset(addr[n], 0xee, LEN);
		while (n > 0)
			ch_pool_free(pool, addr[--n]);
	}
	return 0;
}

/* Somebody reads the block, again and again; the last time it counts, it is as it was. */
Test(holds, until_it_does_not_its_bytes_are_its_own, .init = setup, .fini = teardown)
{
	static char copy[LEN];
	pid_t writers[WRITERS];
	long counted = 0;

	for (int i = 0; i < WRITERS; i++)
		writers[i] = child_start(writes_on_all, NULL);
	AWAIT(posted(b, 3) == WRITERS);
	for (int round = 0; round < 100; round++) {
		const pid_t pid = child_start(owns_a_block, NULL);
		const char *at;
		int place;

		AWAIT(posted(b, 0) == round + 1);
		at = (const char *)ch_segment_addr(seg) + b->value[1];
		place = ch_segment_holds(seg, told(), 0);
		cr_assert_gt(place, 0);
		kill(pid, SIGKILL);
		for (;;) {
			memcpy(copy, at, LEN);
			if (!ch_segment_holds(seg, told(), place))
				break;
			cr_assert(is_filled(copy, LEN, 7, LEN), "round %d: it is not its any more", round);
			counted++;
		}
		cr_assert_eq(child_end(pid), -SIGKILL);
	}
	fprintf(stderr, "%ld copies counted\n", counted);
	for (int i = 0; i < WRITERS; i++)
		cr_assert_eq(child_kill(writers[i]), -SIGKILL);
}

/* Whoever learnt of a death finds no trace of it after a sweep, though its neighbour was at it first. */
Test(holds, nothing_after_a_sweep_whoever_began_it, .init = setup, .fini = teardown)
{
	struct ch_pool_stats before, after;
	pid_t others[WRITERS];
	long by_others = 0;

	for (int i = 0; i < WRITERS; i++)
		others[i] = child_start(owns_a_block, b); /* attached: it watches a neighbour */
	AWAIT(posted(b, 0) == WRITERS);
	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
	for (int round = 0; round < 50; round++) {
		const pid_t pid = child_start(owns_a_block, NULL);

		AWAIT(posted(b, 0) == WRITERS + round + 1);
		cr_assert_eq(child_kill(pid), -SIGKILL);
		const int n = ch_pool_sweep(pool);
		cr_assert_geq(n, 0, "%s", ch_errmsg());
		by_others += n == 0;
		cr_assert_eq(ch_pool_get_stats(pool, &after), 0);
		cr_assert_eq(after.nr_used, before.nr_used, "round %d", round);
		cr_assert_eq(after.nr_peers, before.nr_peers, "round %d", round);
	}
	fprintf(stderr, "others swept %ld of 50\n", by_others);
	for (int i = 0; i < WRITERS; i++)
		cr_assert_eq(child_kill(others[i]), -SIGKILL);
}

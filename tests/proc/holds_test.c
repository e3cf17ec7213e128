/* SPDX-License-Identifier: Apache-2.0 */
/* ch_segment_holds: until it says no, what a process held is as the process left it, also when that is dead. */
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

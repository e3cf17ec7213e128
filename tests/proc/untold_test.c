/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The neighbour cannot be told of a newcomer, which has no socket or another network than the others: its death is
 * noticed all the same, by who sleeps already when it comes and by who does so later.
 */
#define _GNU_SOURCE
#include "../support/support.h"
#include <criterion/criterion.h>
#include <sched.h>
#include <sys/resource.h>

TestSuite(untold, .timeout = WATCHDOG_S);

#define LARGE ((size_t)3 << 20)

static struct board *b;
static struct ch_pool *pool;
static struct ch_semaphore *sem;

static void setup(void)
{
	struct ch_semaphore_attr attr = CH_SEMAPHORE_ATTR_INIT;

	attr.flags = CH_SEMAPHORE_UNDO;
	attr.value = 2;
	b = board_new();
	pool = pool_of(4 << 20);
	cr_assert_not_null(pool);
	cr_assert_eq(ch_semaphore_create(pool, &attr, &sem), 0);
}

static void teardown(void)
{
	ch_semaphore_detach(sem);
	ch_pool_destroy(pool);
}

/* Its name is known before; then no descriptor is left. */
static bool lacks_a_socket(void)
{
	struct rlimit few;

	EXPECT(ch_peer_is_alive(ch_peer_self()) && getrlimit(RLIMIT_NOFILE, &few) == 0);
	few.rlim_cur = few.rlim_cur < 64 ? few.rlim_cur : 64;
	EXPECT(setrlimit(RLIMIT_NOFILE, &few) == 0);
	while (dup(STDERR_FILENO) >= 0)
		;
	return true;
}

static bool has_another_network(void)
{
	return unshare(CLONE_NEWNET) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
}

static bool (*const newcomers[])(void) = { lacks_a_socket, has_another_network };
#define FOR_BOTH for (size_t which = 0; which < 2; which++)

static int newcomer(void *arg)
{
	void *p;

	if (!newcomers[*(size_t *)arg]()) {
		post(b, 0);
		fprintf(stderr, "skipped: no network namespace of its own is allowed here\n");
		return 0;
	}
	if (b->value[0])
		EXPECT(ch_block_accept(pool, &b->descr, &p) == 0);
	else
		EXPECT(ch_semaphore_acquire(sem, 2, CH_FOREVER) == 0);
	post(b, 1);
	post(b, 0);
	return wait_to_be_killed();
}

/* 0 if there can be no such one. */
static pid_t newcomer_start(size_t *which)
{
	pid_t pid;

	b->step[0] = b->step[1] = 0;
	pid = child_start(newcomer, which);
	await_post(b, 0);
	if (posted(b, 1))
		return pid;
	cr_assert_eq(child_end(pid), 0);
	return 0;
}

static int wants_much(void *arg)
{
	void *p;

	(void)arg;
	EXPECT(ch_pool_alloc(pool, LARGE, CH_FOREVER, &p) == 0);
	return 0;
}

static int wants_units(void *arg)
{
	(void)arg;
	EXPECT(ch_semaphore_acquire(sem, 1, CH_FOREVER) == 0);
	return 0;
}

static int watches_units(void *arg)
{
	struct ch_pollset *set;
	struct ch_poll_event ev;

	(void)arg;
	EXPECT(ch_pollset_create(NULL, &set) == 0);
	EXPECT(ch_pollset_add_any(set, ch_semaphore_get_pollable(sem), CH_POLL_IN, 0) == 0);
	EXPECT(ch_pollset_wait(set, &ev, 1, CH_FOREVER) == 1);
	ch_pollset_destroy(set);
	return 0;
}

Test(untold, who_sleeps_when_it_comes_gets_what_it_held, .init = setup, .fini = teardown)
{
	FOR_BOTH {
		pid_t sleeper, pid;
		void *p;

		cr_assert_eq(ch_pool_alloc(pool, LARGE, CH_FOREVER, &p), 0);
		cr_assert_eq(ch_block_offer(pool, p, &b->descr), 0);
		sleeper = child_start(wants_much, NULL);
		await_asleep(sleeper);
		b->value[0] = 1;
		pid = newcomer_start(&which); /* has the block now: nobody has told the sleeper of anything */
		if (pid)
			child_kill(pid);
		else
			cr_assert_eq(ch_block_withdraw(pool, p) | ch_pool_free(pool, p), 0);
		cr_assert_eq(child_end(sleeper), 0);
	}
}

Test(untold, who_sleeps_after_it_came_gets_what_it_held, .init = setup, .fini = teardown)
{
	int (*const sleepers[])(void *) = { wants_units, watches_units };

	FOR_BOTH for (size_t k = 0; k < 2; k++) {
		pid_t sleeper, pid = newcomer_start(&which);

		if (!pid)
			continue;
		sleeper = child_start(sleepers[k], NULL);
		await_asleep(sleeper);
		child_kill(pid);
		cr_assert_eq(child_end(sleeper), 0);
	}
}

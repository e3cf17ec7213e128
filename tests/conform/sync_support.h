/* SPDX-License-Identifier: Apache-2.0 */
/* sync_support.h - what the tests of the synchronisation objects share: a pool and a board for each test, threads. */
#ifndef TESTS_SYNC_SUPPORT_H
#define TESTS_SYNC_SUPPORT_H
#include "../support/support.h"
#include <criterion/criterion.h>
#include <pthread.h>

static struct ch_pool *pool;
static struct board *b;
static struct ch_pool_stats empty;

SUPPORT void setup(void)
{
	pool = pool_of(1 << 20);
	b = board_new();
	cr_assert_eq(ch_pool_get_stats(pool, &empty), 0);
}

SUPPORT void teardown(void)
{
	ch_pool_destroy(pool);
}

SUPPORT pthread_t thread_start(void *(*fn)(void *), void *arg)
{
	pthread_t t;

	cr_assert_eq(pthread_create(&t, NULL, fn, arg), 0);
	return t;
}

/* Runs fn in a child of its own that ends well. */
SUPPORT void in_child(int (*fn)(void *), void *arg)
{
	cr_assert_eq(child_end(child_start(fn, arg)), 0);
}

/* Lets children that were started play on. */
SUPPORT void go(int which)
{
	post(b, which);
}

/* Processor time of another process, in clock ticks: to see that it sleeps. */
SUPPORT unsigned long cpu_ticks(pid_t pid)
{
	char path[64], text[1024];
	unsigned long user = 0, sys = 0;
	const char *p;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (f && fgets(text, sizeof(text), f) && (p = strrchr(text, ')')) != NULL)
		sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &sys);
	if (f)
		fclose(f);
	return user + sys;
}

#endif

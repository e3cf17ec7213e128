/* SPDX-License-Identifier: Apache-2.0 */
/* sync.h: condition. */
#include "sync_support.h"

TestSuite(condition, .timeout = WATCHDOG_S);

static struct ch_mutex *m;
static struct ch_condition *c;

static void setup_condition(void)
{
	setup();
	cr_assert_eq(ch_mutex_create(pool, NULL, &m), 0);
	cr_assert_eq(ch_condition_create(pool, NULL, &c), 0, "%s", ch_errmsg());
}

Test(condition, arguments_are_checked, .init = setup_condition, .fini = teardown)
{
	struct ch_condition *out = NULL;
	struct ch_descr d;

	cr_assert_eq(ch_condition_wait(c, m, CH_FOREVER), -EPERM, "the mutex is not held");
	cr_assert_eq(ch_condition_wait(NULL, m, CH_TRY), -EINVAL);
	cr_assert_eq(ch_condition_wait(c, NULL, CH_TRY), -EINVAL);
	cr_assert_eq(ch_condition_signal(NULL), -EINVAL);
	cr_assert_eq(ch_condition_broadcast(NULL), -EINVAL);
	cr_assert_eq(ch_condition_get_descr(c, &d), 0);
	cr_assert_eq(ch_descr_kind(&d), CH_DESCR_CONDITION);
	cr_assert_eq(ch_condition_attach(&d, &out), 0);
	cr_assert_eq(ch_condition_signal(out), 0, "nobody waits: nothing happens");
	ch_condition_detach(out);
}

Test(condition, without_a_signal_the_wait_times_out_with_the_mutex_locked, .init = setup_condition, .fini = teardown)
{
	int64_t t = now_ns();

	cr_assert_eq(ch_mutex_lock(m, CH_TRY), 0);
	cr_assert_eq(ch_condition_wait(c, m, CH_TRY), -EAGAIN);
	cr_assert_eq(ch_condition_wait(c, m, 20 * MS), -ETIMEDOUT);
	cr_assert_geq(now_ns() - t, 20 * MS);
	cr_assert_eq(ch_mutex_unlock(m), 0);
}

/* Child: takes one of value[0], which others put there. */
static int takes_one(void *arg)
{
	(void)arg;
	EXPECT(ch_mutex_lock(m, CH_FOREVER) == 0);
	post(b, 0);
	while (b->value[0] == 0) {
		int rc = ch_condition_wait(c, m, CH_FOREVER);

		EXPECT(rc == 0 || rc == -EOWNERDEAD); /* some are killed with the mutex */
	}
	b->value[0]--;
	post(b, 1);
	EXPECT(ch_mutex_unlock(m) == 0);
	return 0;
}

static void start_takers(pid_t pid[], int n)
{
	b->step[0] = b->step[1] = 0;
	for (int i = 0; i < n; i++)
		pid[i] = child_start(takes_one, NULL);
	AWAIT(posted(b, 0) == n);
	for (int i = 0; i < n; i++)
		await_asleep(pid[i]);
	cr_assert_eq(ch_mutex_lock(m, CH_FOREVER), 0); /* who is asleep in the mutex is let through */
	cr_assert_eq(ch_mutex_unlock(m), 0);
	for (int i = 0; i < n; i++)
		await_asleep(pid[i]);
}

static void put(int n)
{
	cr_assert_eq(ch_mutex_lock(m, CH_FOREVER), 0);
	b->value[0] += n;
	cr_assert_eq(ch_mutex_unlock(m), 0);
}

Test(condition, a_signal_wakes_one_and_a_broadcast_all, .init = setup_condition, .fini = teardown)
{
	pid_t pid[6];

	start_takers(pid, 6);
	for (int i = 1; i <= 2; i++) {
		put(1);
		cr_assert_eq(ch_condition_signal(c), 0);
		AWAIT(posted(b, 1) == i);
	}
	put(4);
	cr_assert_eq(ch_condition_broadcast(c), 0);
	for (int i = 0; i < 6; i++)
		cr_assert_eq(child_end(pid[i]), 0);
}

static void lock_after_a_death(void)
{
	int rc = ch_mutex_lock(m, CH_FOREVER);

	cr_assert(rc == 0 || rc == -EOWNERDEAD);
}

Test(condition, a_killed_waiter_takes_no_signal_with_it, .init = setup_condition, .fini = teardown)
{
	for (int i = 0; i < 20; i++) {
		pid_t pid[2];

		start_takers(pid, 2);
		put(1);
		if (i % 2) {
			child_kill(pid[0]);
			cr_assert_eq(ch_condition_signal(c), 0);
		} else { /* it may have been woken, or not */
			cr_assert_eq(ch_condition_signal(c), 0);
			child_kill(pid[0]);
		}
		lock_after_a_death();
		if (b->value[0] == 0 && !has_ended(pid[1])) /* the killed one had taken it */
			b->value[0]++;
		ch_mutex_unlock(m);
		cr_assert_eq(ch_condition_signal(c), 0);
		cr_assert_eq(child_end(pid[1]), 0);
		b->value[0] = 0;
	}
}

static int dies_with_the_mutex(void *arg)
{
	(void)arg;
	EXPECT(ch_mutex_lock(m, CH_FOREVER) == 0);
	EXPECT(ch_condition_signal(c) == 0);
	post(b, 2);
	return wait_to_be_killed();
}

static int waits_and_is_told(void *arg)
{
	(void)arg;
	EXPECT(ch_mutex_lock(m, CH_FOREVER) == 0);
	post(b, 0);
	EXPECT(ch_condition_wait(c, m, CH_FOREVER) == -EOWNERDEAD);
	EXPECT(ch_mutex_unlock(m) == 0);
	return 0;
}

Test(condition, the_death_of_the_mutex_holder_is_passed_on, .init = setup_condition, .fini = teardown)
{
	pid_t waiter = child_start(waits_and_is_told, NULL), holder;

	await_post(b, 0);
	cr_assert_eq(ch_mutex_lock(m, CH_FOREVER), 0);
	cr_assert_eq(ch_mutex_unlock(m), 0);
	await_asleep(waiter);
	holder = child_start(dies_with_the_mutex, NULL);
	await_post(b, 2);
	child_kill(holder);
	cr_assert_eq(child_end(waiter), 0);
	cr_assert_eq(ch_mutex_lock(m, CH_TRY), 0);
}

static void *takes_the_mutex(void *arg)
{
	cr_assert_eq(ch_mutex_lock(arg, CH_FOREVER), 0);
	cr_assert_eq(ch_condition_broadcast(c), 0);
	cr_assert_eq(ch_mutex_unlock(arg), 0);
	return NULL;
}

Test(condition, a_recursive_mutex_is_unlocked_all_the_way, .init = setup_condition, .fini = teardown)
{
	struct ch_mutex_attr attr = CH_MUTEX_ATTR_INIT;
	struct ch_mutex *r = NULL;
	pthread_t t;

	attr.flags = CH_MUTEX_RECURSIVE;
	cr_assert_eq(ch_mutex_create(pool, &attr, &r), 0);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(ch_mutex_lock(r, CH_TRY), 0);
	t = thread_start(takes_the_mutex, r);
	cr_assert_eq(ch_condition_wait(c, r, CH_FOREVER), 0);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(ch_mutex_unlock(r), 0);
	cr_assert_eq(ch_mutex_unlock(r), -EPERM);
	pthread_join(t, NULL);
}

/* A bounded queue of numbers: value[0] how many, value[1] put in all, value[2] taken in all. */
static int works(void *arg)
{
	for (int i = 0; i < 3000; i++) {
		EXPECT(ch_mutex_lock(m, CH_FOREVER) == 0);
		while (arg ? b->value[0] == 0 : b->value[0] == 3)
			EXPECT(ch_condition_wait(c, m, CH_FOREVER) == 0);
		b->value[0] += arg ? -1 : 1;
		b->value[arg ? 2 : 1]++;
		EXPECT(ch_mutex_unlock(m) == 0);
		EXPECT((i % 2 ? ch_condition_broadcast(c) : (ch_condition_signal(c), ch_condition_broadcast(c))) == 0);
	}
	return 0;
}

Test(condition, producers_and_consumers_never_miss_each_other, .init = setup_condition, .fini = teardown)
{
	pid_t pid[4];

	for (int i = 0; i < 4; i++)
		pid[i] = child_start(works, i % 2 ? b : NULL);
	for (int i = 0; i < 4; i++)
		cr_assert_eq(child_end(pid[i]), 0);
	cr_assert_eq(b->value[1], 6000);
	cr_assert_eq(b->value[2], 6000);
}

static int until_destroyed(void *arg)
{
	(void)arg;
	EXPECT(ch_mutex_lock(m, CH_FOREVER) == 0);
	post(b, 0);
	EXPECT(ch_condition_wait(c, m, CH_FOREVER) == -ESTALE);
	EXPECT(ch_mutex_unlock(m) == 0);
	EXPECT(ch_condition_signal(c) == -ESTALE);
	return 0;
}

Test(condition, destroyed_it_is_stale_for_waiters_which_hold_the_mutex, .init = setup_condition, .fini = teardown)
{
	pid_t pid = child_start(until_destroyed, NULL);

	await_post(b, 0);
	cr_assert_eq(ch_mutex_lock(m, CH_FOREVER), 0);
	cr_assert_eq(ch_mutex_unlock(m), 0);
	ch_condition_destroy(c);
	cr_assert_eq(child_end(pid), 0);
	ch_mutex_destroy(m);
	cr_assert(pool_is_as_before(pool, &empty));
}

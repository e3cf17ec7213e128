/* SPDX-License-Identifier: Apache-2.0 */
/* sync.h: mutex and recursive mutex. */
#include "sync_support.h"

TestSuite(mutex, .timeout = WATCHDOG_S);

static struct ch_mutex *m;

static void setup_mutex(void)
{
	setup();
	cr_assert_eq(ch_mutex_create(pool, NULL, &m), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_mutex_get_descr(m, &b->descr), 0);
}

static struct ch_mutex *recursive(void)
{
	struct ch_mutex_attr attr = CH_MUTEX_ATTR_INIT;
	struct ch_mutex *r = NULL;

	attr.flags = CH_MUTEX_RECURSIVE;
	cr_assert_eq(ch_mutex_create(pool, &attr, &r), 0, "%s", ch_errmsg());
	return r;
}

Test(mutex, is_locked_and_unlocked, .init = setup_mutex, .fini = teardown)
{
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(ch_mutex_lock(m, i == 0 ? CH_TRY : i == 1 ? CH_FOREVER : MS), 0);
		cr_assert_eq(ch_mutex_unlock(m), 0);
	}
}

Test(mutex, arguments_are_checked, .init = setup_mutex, .fini = teardown)
{
	struct ch_mutex_attr attr = CH_MUTEX_ATTR_INIT;
	struct ch_event *e = NULL;
	struct ch_mutex *other = NULL;
	struct ch_descr d;
	struct { struct ch_mutex_attr known; uint32_t unknown; } newer = { CH_MUTEX_ATTR_INIT, 1 };

	cr_assert_eq(ch_mutex_create(pool, NULL, NULL), -EINVAL);
	attr.flags = 0x80000000;
	cr_assert_eq(ch_mutex_create(pool, &attr, &other), -EINVAL);
	newer.known.size = sizeof(newer);
	cr_assert_eq(ch_mutex_create(pool, &newer.known, &other), -E2BIG);
	cr_assert_null(other);
	cr_assert_eq(ch_mutex_lock(NULL, CH_TRY), -EINVAL);
	cr_assert_eq(ch_mutex_unlock(NULL), -EINVAL);
	cr_assert_eq(ch_mutex_get_descr(m, NULL), -EINVAL);
	cr_assert_eq(ch_mutex_attach(NULL, &other), -EINVAL);
	cr_assert_eq(ch_event_create(pool, NULL, &e), 0);
	cr_assert_eq(ch_event_get_descr(e, &d), 0);
	cr_assert_eq(ch_mutex_attach(&d, &other), -EINVAL, "a descriptor of another kind");
	cr_assert_eq(ch_descr_kind(&b->descr), CH_DESCR_MUTEX);
	ch_mutex_detach(NULL);
	ch_mutex_destroy(NULL);
}

Test(mutex, relocking_and_unlocking_what_is_not_held_is_refused, .init = setup_mutex, .fini = teardown)
{
	cr_assert_eq(ch_mutex_unlock(m), -EPERM);
	cr_assert_eq(ch_mutex_lock(m, CH_TRY), 0);
	cr_assert_eq(ch_mutex_lock(m, CH_TRY), -EDEADLK);
	cr_assert_eq(ch_mutex_lock(m, CH_FOREVER), -EDEADLK);
	cr_assert_eq(ch_mutex_unlock(m), 0);
	cr_assert_eq(ch_mutex_unlock(m), -EPERM);
}

Test(mutex, recursive_one_is_unlocked_as_often_as_it_was_locked, .init = setup_mutex, .fini = teardown)
{
	struct ch_mutex *r = recursive();

	for (int i = 0; i < 5; i++)
		cr_assert_eq(ch_mutex_lock(r, CH_FOREVER), 0);
	for (int i = 0; i < 5; i++)
		cr_assert_eq(ch_mutex_unlock(r), 0);
	cr_assert_eq(ch_mutex_unlock(r), -EPERM);
	cr_assert_eq(ch_mutex_lock(r, CH_TRY), 0);
}

static void *other_thread(void *arg)
{
	int64_t t = now_ns();

	(void)arg;
	cr_assert_eq(ch_mutex_lock(m, CH_TRY), -EAGAIN);
	cr_assert_eq(ch_mutex_lock(m, 20 * MS), -ETIMEDOUT);
	cr_assert_geq(now_ns() - t, 20 * MS);
	cr_assert_eq(ch_mutex_unlock(m), -EPERM);
	return NULL;
}

Test(mutex, another_thread_waits_and_may_not_unlock, .init = setup_mutex, .fini = teardown)
{
	cr_assert_eq(ch_mutex_lock(m, CH_TRY), 0);
	pthread_join(thread_start(other_thread, NULL), NULL);
	cr_assert_eq(ch_mutex_unlock(m), 0);
}

static int other_process(void *arg)
{
	struct ch_mutex *own = m;

	if (arg) /* a handle of its own, instead of the one from its parent */
		EXPECT(ch_mutex_attach(&b->descr, &own) == 0);
	EXPECT(ch_mutex_lock(own, CH_TRY) == -EAGAIN);
	EXPECT(ch_mutex_lock(own, 10 * MS) == -ETIMEDOUT);
	EXPECT(ch_mutex_unlock(own) == -EPERM);
	post(b, 0);
	EXPECT(ch_mutex_lock(own, CH_FOREVER) == 0);
	EXPECT(ch_mutex_unlock(own) == 0);
	ch_mutex_detach(own);
	return 0;
}

Test(mutex, another_process_waits_and_a_forked_child_does_not_hold_what_its_parent_holds, .init = setup_mutex, .fini = teardown)
{
	for (int i = 0; i < 2; i++) {
		pid_t pid;

		b->step[0] = 0;
		cr_assert_eq(ch_mutex_lock(m, CH_TRY), 0);
		pid = child_start(other_process, i ? b : NULL);
		await_post(b, 0);
		await_asleep(pid);
		cr_assert_eq(ch_mutex_unlock(m), 0);
		cr_assert_eq(child_end(pid), 0);
	}
}

static int adds(void *arg)
{
	(void)arg;
	for (int i = 0; i < 20000; i++) {
		EXPECT(ch_mutex_lock(m, CH_FOREVER) == 0);
		b->value[0]++; /* plain: the mutex orders it */
		b->value[1]++;
		EXPECT(b->value[0] == b->value[1]);
		EXPECT(ch_mutex_unlock(m) == 0);
	}
	return 0;
}

Test(mutex, guards_plain_memory_between_processes, .init = setup_mutex, .fini = teardown)
{
	pid_t pid[4];

	for (int i = 0; i < 4; i++)
		pid[i] = child_start(adds, NULL);
	for (int i = 0; i < 4; i++)
		cr_assert_eq(child_end(pid[i]), 0);
	cr_assert_eq(b->value[0], 80000);
}

static int locks_and_dies(void *arg)
{
	struct ch_mutex *which = arg ? arg : m;

	EXPECT(ch_mutex_lock(which, CH_FOREVER) >= -EOWNERDEAD);
	EXPECT(ch_mutex_unlock(which) == 0);
	EXPECT(ch_mutex_lock(which, CH_FOREVER) == 0);
	post(b, 1);
	return wait_to_be_killed();
}

Test(mutex, the_death_of_the_holder_is_told_once, .init = setup_mutex, .fini = teardown)
{
	for (int i = 0; i < 3; i++) {
		pid_t pid;

		b->step[1] = 0;
		pid = child_start(locks_and_dies, NULL);
		await_post(b, 1);
		cr_assert_eq(ch_mutex_lock(m, CH_TRY), -EAGAIN);
		child_kill(pid);
		cr_assert_eq(ch_mutex_lock(m, CH_FOREVER), -EOWNERDEAD, "%s", ch_errmsg());
		cr_assert_eq(ch_mutex_lock(m, CH_FOREVER), -EDEADLK, "it is held");
		cr_assert_eq(ch_mutex_unlock(m), 0);
		cr_assert_eq(ch_mutex_lock(m, CH_TRY), 0, "once");
		cr_assert_eq(ch_mutex_unlock(m), 0);
	}
}

Test(mutex, a_dead_holder_had_locked_a_recursive_one_often, .init = setup_mutex, .fini = teardown)
{
	struct ch_mutex *r = recursive();
	pid_t pid = child_start(locks_and_dies, r);

	await_post(b, 1);
	child_kill(pid);
	cr_assert_eq(ch_mutex_lock(r, CH_FOREVER), -EOWNERDEAD);
	cr_assert_eq(ch_mutex_unlock(r), 0, "its depth is not the dead one's");
	cr_assert_eq(ch_mutex_unlock(r), -EPERM);
}

static int waits_for_the_dead(void *arg)
{
	int rc;

	(void)arg;
	post(b, 2);
	rc = ch_mutex_lock(m, CH_FOREVER);
	EXPECT(rc == 0 || rc == -EOWNERDEAD);
	if (rc == -EOWNERDEAD)
		post(b, 3);
	EXPECT(ch_mutex_unlock(m) == 0);
	return 0;
}

Test(mutex, of_many_that_sleep_one_is_told_of_the_death, .init = setup_mutex, .fini = teardown)
{
	pid_t holder = child_start(locks_and_dies, NULL), pid[6];

	await_post(b, 1);
	for (int i = 0; i < 6; i++)
		pid[i] = child_start(waits_for_the_dead, NULL);
	AWAIT(posted(b, 2) == 6);
	for (int i = 0; i < 6; i++)
		await_asleep(pid[i]);
	child_kill(holder);
	for (int i = 0; i < 6; i++)
		cr_assert_eq(child_end(pid[i]), 0);
	cr_assert_eq(posted(b, 3), 1);
}

static int sleeps_for_it(void *arg)
{
	(void)arg;
	post(b, 2);
	EXPECT(ch_mutex_lock(m, CH_FOREVER) == 0);
	return 0; /* and ends with it */
}

Test(mutex, a_killed_sleeper_takes_no_wake_up_with_it, .init = setup_mutex, .fini = teardown)
{
	for (int i = 0; i < 10; i++) {
		pid_t first, second;

		b->step[2] = 0;
		cr_assert_eq(ch_mutex_lock(m, CH_FOREVER), i ? -EOWNERDEAD : 0);
		first = child_start(sleeps_for_it, NULL);
		AWAIT(posted(b, 2) == 1);
		await_asleep(first);
		second = child_start(sleeps_for_it, NULL);
		AWAIT(posted(b, 2) == 2);
		await_asleep(second);
		child_kill(first);
		cr_assert_eq(ch_mutex_unlock(m), 0);
		cr_assert_eq(child_end(second), 0);
	}
}

static void *locks_and_ends(void *arg)
{
	(void)arg;
	cr_assert_eq(ch_mutex_lock(m, CH_FOREVER), 0);
	return NULL;
}

Test(mutex, the_end_of_a_thread_that_holds_it_is_told_too, .init = setup_mutex, .fini = teardown)
{
	pthread_join(thread_start(locks_and_ends, NULL), NULL);
	cr_assert_eq(ch_mutex_lock(m, CH_FOREVER), -EOWNERDEAD);
	cr_assert_eq(ch_mutex_unlock(m), 0);
	cr_assert_eq(ch_mutex_lock(m, CH_TRY), 0);
}

static int exits_in_good_order(void *arg)
{
	EXPECT(ch_mutex_lock(m, CH_FOREVER) == 0);
	if (arg)
		ch_mutex_detach(m);
	return 0;
}

Test(mutex, whoever_leaves_holding_it_is_as_good_as_dead, .init = setup_mutex, .fini = teardown)
{
	for (int i = 0; i < 2; i++) {
		in_child(exits_in_good_order, i ? b : NULL);
		cr_assert_eq(ch_mutex_lock(m, CH_FOREVER), -EOWNERDEAD);
		cr_assert_eq(ch_mutex_unlock(m), 0);
	}
}

static int until_destroyed(void *arg)
{
	(void)arg;
	post(b, 0);
	EXPECT(ch_mutex_lock(m, CH_FOREVER) == -ESTALE);
	EXPECT(ch_mutex_lock(m, CH_TRY) == -ESTALE);
	return 0;
}

Test(mutex, destroyed_it_is_stale_for_sleepers_and_for_late_comers, .init = setup_mutex, .fini = teardown)
{
	struct ch_mutex *late = NULL;
	pid_t pid;

	cr_assert_eq(ch_mutex_lock(m, CH_TRY), 0);
	pid = child_start(until_destroyed, NULL);
	await_post(b, 0);
	await_asleep(pid);
	ch_mutex_destroy(m);
	cr_assert_eq(child_end(pid), 0);
	cr_assert_eq(ch_mutex_attach(&b->descr, &late), -ESTALE);
	cr_assert(pool_is_as_before(pool, &empty));
}

static int makes_one_that_ends_with_it(void *arg)
{
	struct ch_mutex_attr attr = CH_MUTEX_ATTR_INIT;
	struct ch_mutex *own = NULL;

	(void)arg;
	attr.flags = CH_SYNC_ENDS_WITH_CREATOR;
	EXPECT(ch_mutex_create(pool, &attr, &own) == 0);
	EXPECT(ch_mutex_get_descr(own, &b->descr) == 0);
	post(b, 0);
	return wait_to_be_killed();
}

Test(mutex, may_end_with_its_creator, .init = setup_mutex, .fini = teardown)
{
	pid_t pid = child_start(makes_one_that_ends_with_it, NULL);
	struct ch_mutex *own = NULL;

	await_post(b, 0);
	cr_assert_eq(ch_mutex_attach(&b->descr, &own), 0);
	cr_assert_eq(ch_mutex_lock(own, CH_TRY), 0);
	cr_assert_eq(ch_mutex_unlock(own), 0);
	child_kill(pid);
	while (ch_pool_sweep(pool) > 0)
		;
	AWAIT(ch_mutex_lock(own, CH_TRY) == -ESTALE || (ch_mutex_unlock(own), 0));
	ch_mutex_detach(own);
	ch_mutex_destroy(m);
	cr_assert(pool_is_as_before(pool, &empty));
}

Test(mutex, a_sleeper_uses_no_processor, .init = setup_mutex, .fini = teardown)
{
	unsigned long before;
	pid_t pid;

	cr_assert_eq(ch_mutex_lock(m, CH_TRY), 0);
	pid = child_start(sleeps_for_it, NULL);
	AWAIT(posted(b, 2) == 1);
	await_asleep(pid);
	before = cpu_ticks(pid);
	for (int i = 0; i < 4000; i++) /* about 0.4 s */
		short_nap();
	cr_assert_leq(cpu_ticks(pid) - before, 2);
	child_kill(pid);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* sync.h: semaphore. */
#include "sync_support.h"

TestSuite(semaphore, .timeout = WATCHDOG_S);

static struct ch_semaphore *s;

static struct ch_semaphore *create(uint32_t value, uint32_t limit, uint32_t flags)
{
	struct ch_semaphore_attr attr = CH_SEMAPHORE_ATTR_INIT;
	struct ch_semaphore *out = NULL;

	attr.value = value;
	attr.limit = limit;
	attr.flags = flags;
	cr_assert_eq(ch_semaphore_create(pool, &attr, &out), 0, "%s", ch_errmsg());
	return out;
}

/* Every test of behaviour that both have runs over both. */
#define FOR_BOTH for (uint32_t undo = 0; undo <= CH_SEMAPHORE_UNDO; undo += CH_SEMAPHORE_UNDO)

Test(semaphore, counts_up_and_down, .init = setup, .fini = teardown)
{
	FOR_BOTH {
		s = create(3, 5, undo);
		cr_assert_eq(ch_semaphore_get_value(s), 3);
		cr_assert_eq(ch_semaphore_acquire(s, 1, CH_TRY), 0);
		cr_assert_eq(ch_semaphore_acquire(s, 2, CH_FOREVER), 0);
		cr_assert_eq(ch_semaphore_get_value(s), 0);
		cr_assert_eq(ch_semaphore_acquire(s, 1, CH_TRY), -EAGAIN);
		cr_assert_eq(ch_semaphore_acquire(s, 1, 5 * MS), -ETIMEDOUT);
		cr_assert_eq(ch_semaphore_release(s, 4), 0);
		cr_assert_eq(ch_semaphore_acquire(s, 5, CH_TRY), -EAGAIN, "all or none");
		cr_assert_eq(ch_semaphore_get_value(s), 4);
		cr_assert_eq(ch_semaphore_release(s, 2), -EOVERFLOW);
		cr_assert_eq(ch_semaphore_get_value(s), 4, "nothing was released");
		cr_assert_eq(ch_semaphore_release(s, 1), 0);
		cr_assert_eq(ch_semaphore_acquire(s, 6, CH_FOREVER), -EOVERFLOW);
	}
}

Test(semaphore, arguments_are_checked, .init = setup, .fini = teardown)
{
	struct ch_semaphore_attr attr = CH_SEMAPHORE_ATTR_INIT;
	struct ch_semaphore *out = NULL;
	struct ch_descr d;

	attr.limit = CH_SEMAPHORE_MAX + 1;
	cr_assert_eq(ch_semaphore_create(pool, &attr, &out), -EINVAL);
	attr.limit = 3;
	attr.value = 4;
	cr_assert_eq(ch_semaphore_create(pool, &attr, &out), -EINVAL);
	attr.value = 3;
	attr.flags = 4;
	cr_assert_eq(ch_semaphore_create(pool, &attr, &out), -EINVAL);
	s = create(0, 0, 0);
	cr_assert_eq(ch_semaphore_get_descr(s, &d), 0);
	cr_assert_eq(ch_descr_kind(&d), CH_DESCR_SEMAPHORE);
	cr_assert_eq(ch_semaphore_acquire(s, 0, CH_TRY), -EINVAL);
	cr_assert_eq(ch_semaphore_release(s, 0), -EINVAL);
	cr_assert_eq(ch_semaphore_release(s, CH_SEMAPHORE_MAX), 0);
	cr_assert_eq(ch_semaphore_release(s, 1), -EOVERFLOW);
	cr_assert_eq(ch_semaphore_acquire(NULL, 1, CH_TRY), -EINVAL);
	cr_assert_eq(ch_semaphore_release(NULL, 1), -EINVAL);
	cr_assert_eq(ch_semaphore_wait_zero(NULL, CH_TRY), -EINVAL);
	cr_assert_eq(ch_semaphore_get_value(NULL), -EINVAL);
}

static int acquires(void *arg)
{
	uint32_t n = (uint32_t)(uintptr_t)arg;

	post(b, 0);
	EXPECT(ch_semaphore_acquire(s, n, CH_FOREVER) == 0);
	post(b, 1);
	await_post(b, 2);
	return 0;
}

static pid_t sleeper(uintptr_t n)
{
	int before = posted(b, 0);
	pid_t pid = child_start(acquires, (void *)n);

	AWAIT(posted(b, 0) == before + 1);
	await_asleep(pid);
	return pid;
}

Test(semaphore, a_release_wakes_as_many_as_it_has_units_for, .init = setup, .fini = teardown)
{
	pid_t pid[4];

	s = create(0, 0, 0);
	for (int i = 0; i < 4; i++)
		pid[i] = sleeper(1);
	cr_assert_eq(ch_semaphore_release(s, 3), 0);
	AWAIT(posted(b, 1) == 3);
	cr_assert_eq(ch_semaphore_get_value(s), 0);
	cr_assert_eq(ch_semaphore_release(s, 1), 0);
	go(2);
	for (int i = 0; i < 4; i++)
		cr_assert_eq(child_end(pid[i]), 0);
}

Test(semaphore, a_waiter_for_several_does_not_swallow_the_wake_up_of_one_for_less, .init = setup, .fini = teardown)
{
	FOR_BOTH {
		pid_t big, small;

		b->step[0] = b->step[1] = b->step[2] = 0;
		s = create(0, 0, undo);
		big = sleeper(3);
		small = sleeper(1);
		cr_assert_eq(ch_semaphore_release(s, 1), 0);
		AWAIT(posted(b, 1) == 1);
		cr_assert_eq(ch_semaphore_release(s, 3), 0);
		AWAIT(posted(b, 1) == 2);
		go(2);
		cr_assert_eq(child_end(big), 0);
		cr_assert_eq(child_end(small), 0);
	}
}

Test(semaphore, a_killed_sleeper_takes_no_unit_with_it, .init = setup, .fini = teardown)
{
	FOR_BOTH {
		pid_t first, second;

		b->step[1] = b->step[2] = 0;
		s = create(0, 0, undo);
		first = sleeper(1);
		second = sleeper(1);
		child_kill(first);
		cr_assert_eq(ch_semaphore_release(s, 1), 0);
		go(2);
		cr_assert_eq(child_end(second), 0);
	}
}

static int takes_and_dies(void *arg)
{
	(void)arg;
	EXPECT(ch_semaphore_acquire(s, 2, CH_FOREVER) == 0);
	EXPECT(ch_semaphore_acquire(s, 2, CH_FOREVER) == 0);
	EXPECT(ch_semaphore_release(s, 1) == 0);
	post(b, 3);
	return wait_to_be_killed();
}

Test(semaphore, with_undo_the_dead_give_back_what_they_hold, .init = setup, .fini = teardown)
{
	s = create(5, 5, CH_SEMAPHORE_UNDO);
	for (int i = 0; i < 4; i++) {
		pid_t pid;

		b->step[3] = 0;
		pid = child_start(takes_and_dies, NULL);
		await_post(b, 3);
		cr_assert_eq(ch_semaphore_get_value(s), 2);
		child_kill(pid);
		cr_assert_eq(ch_semaphore_acquire(s, 5, CH_FOREVER), 0);
		cr_assert_eq(ch_semaphore_release(s, 5), 0);
		cr_assert_eq(ch_semaphore_get_value(s), 5);
	}
}

Test(semaphore, without_undo_what_the_dead_took_stays_taken, .init = setup, .fini = teardown)
{
	pid_t pid;

	s = create(5, 5, 0);
	pid = child_start(takes_and_dies, NULL);
	await_post(b, 3);
	child_kill(pid);
	while (ch_pool_sweep(pool) > 0)
		;
	cr_assert_eq(ch_semaphore_get_value(s), 2);
	cr_assert_eq(ch_semaphore_release(s, 3), 0, "anybody may release");
}

static int releases_what_it_does_not_hold(void *arg)
{
	(void)arg;
	EXPECT(ch_semaphore_release(s, 3) == 0);
	EXPECT(ch_semaphore_acquire(s, 1, CH_TRY) == 0);
	EXPECT(ch_semaphore_release(s, 2) == 0); /* one of its own, and a new one */
	return 0;
}

Test(semaphore, with_undo_units_that_were_made_stay_when_their_maker_ends, .init = setup, .fini = teardown)
{
	s = create(0, 0, CH_SEMAPHORE_UNDO);
	in_child(releases_what_it_does_not_hold, NULL);
	while (ch_pool_sweep(pool) > 0)
		;
	cr_assert_eq(ch_semaphore_get_value(s), 4);
	cr_assert_eq(ch_semaphore_acquire(s, 4, CH_TRY), 0);
}

static int waits_for_zero(void *arg)
{
	(void)arg;
	post(b, 0);
	EXPECT(ch_semaphore_wait_zero(s, CH_FOREVER) == 0);
	return 0;
}

Test(semaphore, zero_can_be_waited_for, .init = setup, .fini = teardown)
{
	FOR_BOTH {
		pid_t pid;

		b->step[0] = 0;
		s = create(2, 0, undo);
		cr_assert_eq(ch_semaphore_wait_zero(s, CH_TRY), -EAGAIN);
		cr_assert_eq(ch_semaphore_wait_zero(s, 5 * MS), -ETIMEDOUT);
		pid = child_start(waits_for_zero, NULL);
		await_post(b, 0);
		await_asleep(pid);
		cr_assert_eq(ch_semaphore_acquire(s, 1, CH_TRY), 0);
		cr_assert_eq(ch_semaphore_acquire(s, 1, CH_TRY), 0);
		cr_assert_eq(child_end(pid), 0);
		cr_assert_eq(ch_semaphore_wait_zero(s, CH_TRY), 0);
	}
}

static int passes_through(void *arg)
{
	uint64_t rs = (uint64_t)(uintptr_t)arg;

	for (int i = 0; i < 5000; i++) {
		uint32_t n = 1 + (uint32_t)(rnd(&rs) % 3);

		EXPECT(ch_semaphore_acquire(s, n, CH_FOREVER) == 0);
		EXPECT(__atomic_add_fetch(&b->value[0], n, __ATOMIC_SEQ_CST) <= 4);
		__atomic_sub_fetch(&b->value[0], n, __ATOMIC_SEQ_CST);
		EXPECT(ch_semaphore_release(s, n) == 0);
	}
	return 0;
}

Test(semaphore, never_lets_more_through_than_there_are_units, .init = setup, .fini = teardown)
{
	FOR_BOTH {
		pid_t pid[4];

		s = create(4, 4, undo);
		for (uintptr_t i = 0; i < 4; i++)
			pid[i] = child_start(passes_through, (void *)(i + 5));
		for (int i = 0; i < 4; i++)
			cr_assert_eq(child_end(pid[i]), 0);
		cr_assert_eq(ch_semaphore_get_value(s), 4);
	}
}

static int until_destroyed(void *arg)
{
	post(b, 0);
	EXPECT((arg ? ch_semaphore_acquire(s, 2, CH_FOREVER) : ch_semaphore_wait_zero(s, CH_FOREVER)) == -ESTALE);
	EXPECT(ch_semaphore_release(s, 1) == -ESTALE);
	EXPECT(ch_semaphore_get_value(s) == -ESTALE);
	return 0;
}

Test(semaphore, destroyed_it_is_stale_for_sleepers, .init = setup, .fini = teardown)
{
	pid_t one, other;

	s = create(1, 0, CH_SEMAPHORE_UNDO);
	one = child_start(until_destroyed, NULL);
	other = child_start(until_destroyed, s);
	AWAIT(posted(b, 0) == 2);
	await_asleep(one);
	await_asleep(other);
	ch_semaphore_destroy(s);
	cr_assert_eq(child_end(one), 0);
	cr_assert_eq(child_end(other), 0);
	cr_assert(pool_is_as_before(pool, &empty));
}

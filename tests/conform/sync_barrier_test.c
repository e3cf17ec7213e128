/* SPDX-License-Identifier: Apache-2.0 */
/* sync.h: barrier. */
#include "sync_support.h"

TestSuite(barrier, .timeout = WATCHDOG_S);

static struct ch_barrier *bar;

static struct ch_barrier *create(uint32_t parties, uint32_t flags)
{
	struct ch_barrier_attr attr = CH_BARRIER_ATTR_INIT;
	struct ch_barrier *out = NULL;

	attr.parties = parties;
	attr.flags = flags;
	cr_assert_eq(ch_barrier_create(pool, &attr, &out), 0, "%s", ch_errmsg());
	return out;
}

Test(barrier, of_one_party_is_no_obstacle, .init = setup, .fini = teardown)
{
	bar = create(1, 0);
	for (int i = 0; i < 5; i++)
		cr_assert_eq(ch_barrier_wait(bar, NULL, NULL, i % 2 ? CH_TRY : CH_FOREVER), 0);
	cr_assert_eq(ch_barrier_get_parties(bar), 1);
}

Test(barrier, arguments_are_checked, .init = setup, .fini = teardown)
{
	struct ch_barrier_attr attr = CH_BARRIER_ATTR_INIT;
	struct ch_barrier *out = NULL;
	struct ch_descr d;

	cr_assert_eq(ch_barrier_create(pool, NULL, &out), -EINVAL, "parties has no default");
	attr.parties = 65537;
	cr_assert_eq(ch_barrier_create(pool, &attr, &out), -EINVAL);
	attr.parties = 2;
	attr.flags = 4;
	cr_assert_eq(ch_barrier_create(pool, &attr, &out), -EINVAL);
	cr_assert_eq(ch_barrier_wait(NULL, NULL, NULL, CH_TRY), -EINVAL);
	cr_assert_eq(ch_barrier_abort(NULL), -EINVAL);
	cr_assert_eq(ch_barrier_reset(NULL), -EINVAL);
	cr_assert_eq(ch_barrier_is_broken(NULL), -EINVAL);
	cr_assert_eq(ch_barrier_count(NULL), -EINVAL);
	cr_assert_eq(ch_barrier_get_parties(NULL), 0);
	bar = create(2, 0);
	cr_assert_eq(ch_barrier_get_descr(bar, &d), 0);
	cr_assert_eq(ch_descr_kind(&d), CH_DESCR_BARRIER);
	cr_assert_eq(ch_barrier_wait(bar, NULL, NULL, CH_TRY), -EAGAIN);
	cr_assert_eq(ch_barrier_count(bar), 0, "it did not arrive");
	cr_assert_eq(ch_barrier_is_broken(bar), 0);
}

static int counts_itself(void *arg)
{
	__atomic_add_fetch(&((struct board *)arg)->value[9], 1, __ATOMIC_SEQ_CST);
	return 0;
}

#define ROUNDS 500

static int goes_round(void *arg)
{
	(void)arg;
	for (int i = 0; i < ROUNDS; i++) {
		int n;

		EXPECT(b->value[9] == i || b->value[9] == i + 1); /* the action of the round before has run */
		n = ch_barrier_wait(bar, counts_itself, b, CH_FOREVER);
		EXPECT(n >= 0 && n < 4);
		EXPECT(__atomic_load_n(&b->value[9], __ATOMIC_SEQ_CST) >= i + 1);
		__atomic_add_fetch(&b->value[n], 1, __ATOMIC_SEQ_CST);
	}
	return 0;
}

Test(barrier, each_number_is_given_once_a_round_and_the_action_runs_once, .init = setup, .fini = teardown)
{
	pid_t pid[4];

	bar = create(4, 0);
	for (int i = 0; i < 4; i++)
		pid[i] = child_start(goes_round, NULL);
	for (int i = 0; i < 4; i++)
		cr_assert_eq(child_end(pid[i]), 0);
	for (int i = 0; i < 4; i++)
		cr_assert_eq(b->value[i], ROUNDS);
	cr_assert_eq(b->value[9], ROUNDS);
}

/* Child: waits once, and leaves what came of it in value[its number]. */
static int waits(void *arg)
{
	intptr_t i = (intptr_t)arg;

	post(b, 0);
	b->value[i] = ch_barrier_wait(bar, NULL, NULL, CH_FOREVER);
	return 0;
}

static void start_waiters(pid_t pid[], int n)
{
	b->step[0] = 0;
	for (intptr_t i = 0; i < n; i++) {
		pid[i] = child_start(waits, (void *)i);
		AWAIT(posted(b, 0) == i + 1);
		AWAIT(ch_barrier_count(bar) == i + 1);
		await_asleep(pid[i]);
	}
}

static void expect_all(const pid_t pid[], int n, int64_t what)
{
	for (int i = 0; i < n; i++) {
		cr_assert_eq(child_end(pid[i]), 0);
		cr_assert_eq(b->value[i], what, "%lld", (long long)b->value[i]);
	}
}

Test(barrier, the_death_of_a_party_in_wait_breaks_it_for_the_others, .init = setup, .fini = teardown)
{
	pid_t pid[4];

	bar = create(5, 0);
	start_waiters(pid, 4);
	child_kill(pid[3]);
	expect_all(pid, 3, -EOWNERDEAD);
	cr_assert_eq(ch_barrier_is_broken(bar), 1);
	cr_assert_eq(ch_barrier_wait(bar, NULL, NULL, CH_FOREVER), -EOWNERDEAD);
	cr_assert_eq(ch_barrier_reset(bar), 0);
	cr_assert_eq(ch_barrier_is_broken(bar), 0);
	start_waiters(pid, 4);
	cr_assert_eq(ch_barrier_wait(bar, NULL, NULL, CH_TRY), 4, "as new; the last to arrive need not wait");
	for (int i = 0; i < 4; i++) {
		cr_assert_eq(child_end(pid[i]), 0);
		cr_assert_eq(b->value[i], i);
	}
}

static int has_a_handle(void *arg)
{
	(void)arg;
	EXPECT(ch_barrier_count(bar) >= 0); /* the first use makes it a peer */
	post(b, 1);
	return wait_to_be_killed();
}

Test(barrier, the_death_of_a_member_breaks_it_though_it_was_not_in_wait, .init = setup, .fini = teardown)
{
	for (uint32_t flags = 0; flags <= CH_BARRIER_MEMBERS; flags += CH_BARRIER_MEMBERS) {
		pid_t pid[2], member;

		b->step[1] = 0;
		bar = create(3, flags);
		member = child_start(has_a_handle, NULL);
		await_post(b, 1);
		start_waiters(pid, 2);
		child_kill(member);
		if (flags == 0) {
			while (ch_pool_sweep(pool) > 0)
				;
			cr_assert_eq(ch_barrier_is_broken(bar), 0);
			cr_assert_eq(ch_barrier_abort(bar), 0);
		}
		expect_all(pid, 2, flags ? -EOWNERDEAD : -ECANCELED);
	}
}

Test(barrier, can_be_aborted_and_reset, .init = setup, .fini = teardown)
{
	pid_t pid[3];

	bar = create(4, 0);
	start_waiters(pid, 3);
	cr_assert_eq(ch_barrier_abort(bar), 0);
	expect_all(pid, 3, -ECANCELED);
	cr_assert_eq(ch_barrier_wait(bar, NULL, NULL, CH_FOREVER), -ECANCELED);
	cr_assert_eq(ch_barrier_reset(bar), 0);
	start_waiters(pid, 3);
	cr_assert_eq(ch_barrier_reset(bar), 0);
	expect_all(pid, 3, -ECANCELED);
	cr_assert_eq(ch_barrier_is_broken(bar), 0, "a reset leaves it whole");
}

Test(barrier, a_timeout_breaks_it, .init = setup, .fini = teardown)
{
	pid_t pid[2];

	bar = create(4, 0);
	start_waiters(pid, 2);
	cr_assert_eq(ch_barrier_wait(bar, NULL, NULL, 10 * MS), -ETIMEDOUT);
	expect_all(pid, 2, -ECANCELED);
	cr_assert_eq(ch_barrier_is_broken(bar), 1);
}

static int fails(void *arg)
{
	(void)arg;
	return -EXDEV;
}

Test(barrier, a_failed_action_breaks_it, .init = setup, .fini = teardown)
{
	pid_t pid[2];

	bar = create(3, 0);
	start_waiters(pid, 2);
	cr_assert_eq(ch_barrier_wait(bar, fails, NULL, CH_FOREVER), -EXDEV);
	expect_all(pid, 2, -ECANCELED);
}

static int dies_in_action(void *arg)
{
	post((struct board *)arg, 1);
	return wait_to_be_killed();
}

static int is_last(void *arg)
{
	(void)arg;
	return ch_barrier_wait(bar, dies_in_action, b, CH_FOREVER);
}

Test(barrier, the_death_of_who_runs_the_action_breaks_it, .init = setup, .fini = teardown)
{
	pid_t pid[2], last;

	bar = create(3, 0);
	start_waiters(pid, 2);
	last = child_start(is_last, NULL);
	await_post(b, 1);
	cr_assert_eq(ch_barrier_wait(bar, NULL, NULL, CH_TRY), -EAGAIN, "a fourth belongs to the next round");
	child_kill(last);
	expect_all(pid, 2, -EOWNERDEAD);
}

static void *thread_waits(void *arg)
{
	*(int *)arg = ch_barrier_wait(bar, NULL, NULL, CH_FOREVER);
	return NULL;
}

Test(barrier, more_threads_than_parties_go_in_turns, .init = setup, .fini = teardown)
{
	pthread_t t[12];
	int got[12], seen[3] = { 0 };

	bar = create(3, 0);
	for (int i = 0; i < 12; i++)
		t[i] = thread_start(thread_waits, &got[i]);
	for (int i = 0; i < 12; i++) {
		pthread_join(t[i], NULL);
		cr_assert(got[i] >= 0 && got[i] < 3, "%d", got[i]);
		seen[got[i]]++;
	}
	for (int i = 0; i < 3; i++)
		cr_assert_eq(seen[i], 4);
}

Test(barrier, destroyed_it_is_stale_for_waiters, .init = setup, .fini = teardown)
{
	pid_t pid[2];

	bar = create(3, 0);
	start_waiters(pid, 2);
	ch_barrier_destroy(bar);
	expect_all(pid, 2, -ESTALE);
	cr_assert(pool_is_as_before(pool, &empty));
}

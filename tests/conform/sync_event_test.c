/* SPDX-License-Identifier: Apache-2.0 */
/* sync.h: event. */
#include "sync_support.h"

TestSuite(event, .timeout = WATCHDOG_S);

static struct ch_event *e;

static struct ch_event *create(uint32_t flags)
{
	struct ch_event_attr attr = CH_EVENT_ATTR_INIT;
	struct ch_event *out = NULL;

	attr.flags = flags;
	cr_assert_eq(ch_event_create(pool, &attr, &out), 0, "%s", ch_errmsg());
	return out;
}

Test(event, stays_set_until_it_is_cleared, .init = setup, .fini = teardown)
{
	e = create(0);
	cr_assert_eq(ch_event_is_set(e), 0);
	cr_assert_eq(ch_event_wait(e, CH_TRY), -EAGAIN);
	cr_assert_eq(ch_event_wait(e, 5 * MS), -ETIMEDOUT);
	cr_assert_eq(ch_event_set(e), 0);
	cr_assert_eq(ch_event_set(e), 0);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(ch_event_wait(e, i ? CH_FOREVER : CH_TRY), 0);
	cr_assert_eq(ch_event_is_set(e), 1);
	cr_assert_eq(ch_event_clear(e), 0);
	cr_assert_eq(ch_event_wait(e, CH_TRY), -EAGAIN);
}

Test(event, auto_reset_lets_one_go_for_each_set, .init = setup, .fini = teardown)
{
	e = create(CH_EVENT_AUTO_RESET | CH_EVENT_IS_SET);
	cr_assert_eq(ch_event_wait(e, CH_FOREVER), 0);
	cr_assert_eq(ch_event_wait(e, CH_TRY), -EAGAIN);
	cr_assert_eq(ch_event_set(e), 0);
	cr_assert_eq(ch_event_set(e), 0);
	cr_assert_eq(ch_event_wait(e, CH_TRY), 0);
	cr_assert_eq(ch_event_wait(e, CH_TRY), -EAGAIN);
}

Test(event, arguments_are_checked, .init = setup, .fini = teardown)
{
	struct ch_event_attr attr = CH_EVENT_ATTR_INIT;
	struct ch_event *out = NULL;
	struct ch_descr d;

	attr.flags = 8;
	cr_assert_eq(ch_event_create(pool, &attr, &out), -EINVAL);
	cr_assert_eq(ch_event_set(NULL), -EINVAL);
	cr_assert_eq(ch_event_clear(NULL), -EINVAL);
	cr_assert_eq(ch_event_pulse(NULL), -EINVAL);
	cr_assert_eq(ch_event_is_set(NULL), -EINVAL);
	cr_assert_eq(ch_event_wait(NULL, CH_TRY), -EINVAL);
	e = create(0);
	cr_assert_eq(ch_event_get_descr(e, &d), 0);
	cr_assert_eq(ch_descr_kind(&d), CH_DESCR_EVENT);
	cr_assert_eq(ch_event_attach(&d, &out), 0);
	cr_assert_eq(ch_event_set(out), 0);
	cr_assert_eq(ch_event_is_set(e), 1);
	ch_event_detach(out);
}

static int waits(void *arg)
{
	(void)arg;
	post(b, 0);
	EXPECT(ch_event_wait(e, CH_FOREVER) == 0);
	post(b, 1);
	await_post(b, 2);
	return 0;
}

static void start_sleepers(pid_t pid[], int n)
{
	b->step[0] = b->step[1] = b->step[2] = 0;
	for (int i = 0; i < n; i++)
		pid[i] = child_start(waits, NULL);
	AWAIT(posted(b, 0) == n);
	for (int i = 0; i < n; i++)
		await_asleep(pid[i]);
}

static void end_sleepers(const pid_t pid[], int n)
{
	go(2);
	for (int i = 0; i < n; i++)
		cr_assert_eq(child_end(pid[i]), 0);
}

Test(event, set_wakes_all_who_sleep, .init = setup, .fini = teardown)
{
	pid_t pid[4];

	e = create(0);
	start_sleepers(pid, 4);
	cr_assert_eq(ch_event_set(e), 0);
	AWAIT(posted(b, 1) == 4);
	end_sleepers(pid, 4);
}

Test(event, set_wakes_one_of_an_auto_reset_event, .init = setup, .fini = teardown)
{
	pid_t pid[4];

	e = create(CH_EVENT_AUTO_RESET);
	start_sleepers(pid, 4);
	for (int i = 1; i <= 4; i++) {
		cr_assert_eq(ch_event_set(e), 0);
		AWAIT(posted(b, 1) == i);
		cr_assert_eq(ch_event_is_set(e), 0);
	}
	end_sleepers(pid, 4);
}

Test(event, pulse_lets_all_go_who_wait_and_nobody_later, .init = setup, .fini = teardown)
{
	for (uint32_t flags = 0; flags <= CH_EVENT_AUTO_RESET; flags += CH_EVENT_AUTO_RESET) {
		pid_t pid[4];

		e = create(flags);
		start_sleepers(pid, 4);
		cr_assert_eq(ch_event_pulse(e), 0);
		AWAIT(posted(b, 1) == 4);
		cr_assert_eq(ch_event_wait(e, CH_TRY), -EAGAIN);
		end_sleepers(pid, 4);
	}
}

Test(event, a_killed_sleeper_takes_no_set_with_it, .init = setup, .fini = teardown)
{
	e = create(CH_EVENT_AUTO_RESET);
	for (int i = 0; i < 10; i++) {
		pid_t pid[2];

		start_sleepers(pid, 2);
		child_kill(pid[0]);
		cr_assert_eq(ch_event_set(e), 0);
		end_sleepers(pid + 1, 1);
	}
}

static int until_destroyed(void *arg)
{
	(void)arg;
	post(b, 0);
	EXPECT(ch_event_wait(e, CH_FOREVER) == -ESTALE);
	EXPECT(ch_event_set(e) == -ESTALE);
	return 0;
}

Test(event, destroyed_it_is_stale_for_sleepers, .init = setup, .fini = teardown)
{
	pid_t pid;

	e = create(0);
	pid = child_start(until_destroyed, NULL);
	await_post(b, 0);
	await_asleep(pid);
	ch_event_destroy(e);
	cr_assert_eq(child_end(pid), 0);
	cr_assert(pool_is_as_before(pool, &empty));
}

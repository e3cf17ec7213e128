/* SPDX-License-Identifier: Apache-2.0 */
/* channel.h: timeouts, sleeping and being woken, with every way to wait (spin_ns). */
#include "../support/support.h"
#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(wait, .timeout = WATCHDOG_S);

static const uint32_t spins[] = { 0, CH_SPIN_NEVER, 100000, CH_SPIN_ALWAYS };
#define NR_SPINS (sizeof(spins) / sizeof(*spins))

static struct ch_pool *pool;
static struct ch_channel *ch, *back;

static struct ch_channel *create(uint32_t capacity)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_channel *out = NULL;

	attr.capacity = capacity;
	cr_assert_eq(ch_channel_create(pool, &attr, &out), 0, "%s", ch_errmsg());
	return out;
}

static void setup(void)
{
	pool = pool_of(2 << 20);
	ch = create(2);
	back = create(2);
}

static void teardown(void)
{
	ch_pool_destroy(pool);
}

Test(wait, empty_waits_at_least_what_was_asked, .init = setup, .fini = teardown)
{
	const int64_t asked[] = { 1, 1000, MS, 30 * MS };
	struct ch_message msg = CH_MESSAGE_INIT;
	char c;

	for (size_t s = 0; s < NR_SPINS; s++) {
		cr_assert_eq(ch_channel_set_spin(ch, spins[s]), 0);
		cr_assert_eq(ch_channel_recv(ch, &c, 1, CH_TRY), -EAGAIN);
		cr_assert_eq(ch_channel_take(ch, CH_TRY, &msg), -EAGAIN);
		for (size_t i = 0; i < 4; i++) {
			int64_t t = now_ns();

			cr_assert_eq(ch_channel_recv(ch, &c, 1, asked[i]), -ETIMEDOUT);
			cr_assert_geq(now_ns() - t, asked[i]);
			t = now_ns();
			cr_assert_eq(ch_channel_take(ch, asked[i], &msg), -ETIMEDOUT);
			cr_assert_geq(now_ns() - t, asked[i]);
		}
	}
	cr_assert_null(msg.data);
}

Test(wait, full_waits_at_least_what_was_asked, .init = setup, .fini = teardown)
{
	for (int i = 0; i < 2; i++)
		cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), 0);
	for (size_t s = 0; s < NR_SPINS; s++) {
		int64_t t;

		cr_assert_eq(ch_channel_set_spin(ch, spins[s]), 0);
		cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), -EAGAIN);
		t = now_ns();
		cr_assert_eq(ch_channel_send(ch, "x", 1, 20 * MS), -ETIMEDOUT);
		cr_assert_geq(now_ns() - t, 20 * MS);
	}
	cr_assert_eq(ch_channel_count(ch), 2, "on failure nothing was sent");
}

Test(wait, any_negative_timeout_is_forever_and_the_longest_finite_one_works, .init = setup, .fini = teardown)
{
	const int64_t timeout[] = { -1, -2, INT64_MIN, INT64_MAX, INT64_MAX - 1 };
	char c;

	for (size_t i = 0; i < 5; i++) {
		cr_assert_eq(ch_channel_send(ch, "y", 1, timeout[i]), 0);
		cr_assert_eq(ch_channel_recv(ch, &c, 1, timeout[i]), 1);
	}
}

/* Child: receives one message, which it must wait for, and says what came. */
static int sleeps_for_a_message(void *arg)
{
	struct board *b = arg;
	int64_t v = 0;
	int64_t timeout = b->value[1];

	post(b, 0);
	b->value[0] = ch_channel_recv(ch, &v, sizeof(v), timeout);
	EXPECT(b->value[0] == 8 && v == 4711);
	return 0;
}

static int takes_a_message(void *arg)
{
	struct board *b = arg;
	struct ch_message msg = CH_MESSAGE_INIT;

	post(b, 0);
	EXPECT(ch_channel_take(ch, CH_FOREVER, &msg) == 0);
	EXPECT(msg.len == 8 && *(int64_t *)msg.data == 4711);
	ch_channel_release(ch, &msg);
	return 0;
}

Test(wait, a_message_wakes_a_sleeping_receiver, .init = setup, .fini = teardown)
{
	int64_t v = 4711;

	for (int i = 0; i < 6; i++) {
		struct board *b = board_new();
		pid_t pid;

		b->value[1] = i % 2 ? CH_FOREVER : INT64_MAX;
		ch_channel_set_spin(ch, i < 3 ? 0 : CH_SPIN_NEVER);
		pid = child_start(i < 4 ? sleeps_for_a_message : takes_a_message, b);
		await_post(b, 0);
		await_asleep(pid);
		cr_assert_eq(ch_channel_send(ch, &v, sizeof(v), CH_TRY), 0);
		cr_assert_eq(child_end(pid), 0);
	}
}

static int sleeps_for_room(void *arg)
{
	struct board *b = arg;
	int64_t v = 3;

	post(b, 0);
	EXPECT(ch_channel_send(ch, &v, sizeof(v), CH_FOREVER) == 0);
	return 0;
}

static int commits_when_there_is_room(void *arg)
{
	struct board *b = arg;
	struct ch_message msg = CH_MESSAGE_INIT;

	EXPECT(ch_channel_claim(ch, 8, CH_TRY, &msg) == 0);
	memcpy(msg.data, &(int64_t){ 3 }, 8);
	post(b, 0);
	EXPECT(ch_channel_commit(ch, &msg, CH_FOREVER) == 0);
	return 0;
}

Test(wait, room_wakes_a_sleeping_sender, .init = setup, .fini = teardown)
{
	for (int i = 0; i < 2; i++) {
		struct board *b = board_new();
		pid_t pid;

		for (int64_t v = 1; v <= 2; v++)
			cr_assert_eq(ch_channel_send(ch, &v, sizeof(v), CH_TRY), 0);
		pid = child_start(i ? commits_when_there_is_room : sleeps_for_room, b);
		await_post(b, 0);
		await_asleep(pid);
		for (int64_t v, k = 1; k <= 3; k++)
			cr_assert(ch_channel_recv(ch, &v, sizeof(v), CH_FOREVER) == 8 && v == k);
		cr_assert_eq(child_end(pid), 0);
	}
}

static int echo(void *arg)
{
	struct board *b = arg;
	int64_t v;

	ch_channel_set_spin(ch, (uint32_t)b->value[0]);
	ch_channel_set_spin(back, (uint32_t)b->value[0]);
	for (int64_t i = 0; i < b->value[1]; i++) {
		EXPECT(ch_channel_recv(ch, &v, 8, CH_FOREVER) == 8 && v == i);
		EXPECT(ch_channel_send(back, &v, 8, CH_FOREVER) == 0);
	}
	return 0;
}

/* One message at a time: each wake-up must come, there is no later traffic to heal a lost one. */
Test(wait, no_wake_up_is_lost_in_ping_pong, .init = setup, .fini = teardown)
{
	for (size_t s = 0; s < NR_SPINS; s++) {
		struct board *b = board_new();
		pid_t pid;
		int64_t v;

		b->value[0] = spins[s];
		b->value[1] = spins[s] == CH_SPIN_ALWAYS ? 500 : 5000;
		ch_channel_set_spin(ch, spins[s]);
		ch_channel_set_spin(back, spins[s]);
		pid = child_start(echo, b);
		for (int64_t i = 0; i < b->value[1]; i++) {
			cr_assert_eq(ch_channel_send(ch, &i, 8, CH_FOREVER), 0);
			cr_assert(ch_channel_recv(back, &v, 8, CH_FOREVER) == 8 && v == i);
		}
		cr_assert_eq(child_end(pid), 0);
	}
}

static int receives_some(void *arg)
{
	struct board *b = arg;
	int64_t v;

	post(b, 0);
	while (ch_channel_recv(ch, &v, 8, CH_FOREVER) == 8)
		post(b, 1);
	return 0;
}

Test(wait, as_many_messages_as_sleepers_wake_them_all, .init = setup, .fini = teardown)
{
	struct board *b = board_new();
	pid_t pid[8];
	int64_t v = 1;

	ch_channel_set_spin(ch, CH_SPIN_NEVER);
	for (int i = 0; i < 8; i++)
		pid[i] = child_start(receives_some, b);
	AWAIT(posted(b, 0) == 8);
	for (int round = 1; round <= 50; round++) {
		for (int i = 0; i < 8; i++)
			await_asleep(pid[i]);
		for (int i = 0; i < 8; i++)
			cr_assert_eq(ch_channel_send(ch, &v, 8, CH_FOREVER), 0);
		AWAIT(posted(b, 1) == 8 * round);
	}
	cr_assert_eq(ch_channel_close(ch), 0);
	for (int i = 0; i < 8; i++)
		cr_assert_eq(child_end(pid[i]), 0);
}

/* A killed sleeper leaves nothing behind that eats the wake-up of another. */
Test(wait, a_killed_sleeper_takes_no_wake_up_with_it, .init = setup, .fini = teardown)
{
	for (int round = 0; round < 20; round++) {
		struct board *b = board_new();
		pid_t first, second;
		int64_t v = 4711;

		b->value[1] = CH_FOREVER;
		first = child_start(sleeps_for_a_message, b);
		await_post(b, 0);
		await_asleep(first);
		second = child_start(sleeps_for_a_message, b);
		AWAIT(posted(b, 0) == 2);
		await_asleep(second);
		child_kill(first);
		cr_assert_eq(ch_channel_send(ch, &v, 8, CH_TRY), 0);
		cr_assert_eq(child_end(second), 0);
	}
}

static volatile sig_atomic_t nr_signals;

static void count_signal(int sig)
{
	(void)sig;
	nr_signals++;
}

static int interrupted_receiver(void *arg)
{
	struct sigaction act = { .sa_handler = count_signal }; /* without SA_RESTART */
	struct board *b = arg;
	int64_t v, t = now_ns();

	sigaction(SIGUSR1, &act, NULL);
	post(b, 0);
	EXPECT(ch_channel_recv(ch, &v, 8, 200 * MS) == -ETIMEDOUT);
	EXPECT(now_ns() - t >= 200 * MS);
	EXPECT(nr_signals > 0);
	return 0;
}

Test(wait, a_signal_neither_ends_nor_stretches_the_wait, .init = setup, .fini = teardown)
{
	struct board *b = board_new();
	pid_t pid = child_start(interrupted_receiver, b);
	siginfo_t info = { 0 };

	await_post(b, 0);
	await_asleep(pid);
	do {
		kill(pid, SIGUSR1);
		short_nap();
		cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT), 0);
	} while (info.si_pid == 0);
	cr_assert_eq(child_end(pid), 0);
}

static void *thread_receives(void *arg)
{
	int64_t v;

	*(ssize_t *)arg = ch_channel_recv(ch, &v, 8, CH_FOREVER);
	return arg;
}

Test(wait, threads_share_a_handle, .init = setup, .fini = teardown)
{
	pthread_t t[4];
	ssize_t got[4];
	int64_t v = 1;

	for (int i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, thread_receives, &got[i]), 0);
	for (int i = 0; i < 4; i++)
		cr_assert_eq(ch_channel_send(ch, &v, 8, CH_FOREVER), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
		cr_assert_eq(got[i], 8);
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Poll sets between processes: senders elsewhere, deaths on both sides, forks, and sets that use no processor. */
#include "../support/support.h"
#include <criterion/criterion.h>
#include <sys/resource.h>

TestSuite(pollproc, .timeout = WATCHDOG_S);

enum { N = 40, MESSAGES = 300, SENDERS = 4 };

static struct ch_pool *pool;
static struct ch_channel *all[N];
static struct ch_pollset *set;
static struct board *board;
static struct ch_stream_port *door;

static void setup(void)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;

	pool = pool_of(8 << 20);
	board = board_new();
	attr.capacity = 16;
	for (int i = 0; i < N; i++)
		cr_assert_eq(ch_channel_create(pool, &attr, &all[i]), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_pollset_create(NULL, &set), 0);
}

static void teardown(void)
{
	ch_pollset_destroy(set);
	ch_pool_destroy(pool);
}

static void add_all(struct ch_pollset *to, uint32_t events)
{
	for (int i = 0; i < N; i++)
		cr_assert_eq(ch_pollset_add(to, all[i], events, (uint64_t)i), 0, "%s", ch_errmsg());
}

static int send_all_over(void *arg)
{
	uint64_t state = (uint64_t)(intptr_t)arg;

	for (int k = 0; k < MESSAGES; k++)
		EXPECT(ch_channel_send(all[rnd(&state) % N], &k, sizeof(k), CH_FOREVER) == 0);
	return 0;
}

/* Receives what there is until total messages have come. */
static void receive(struct ch_pollset *from, int total)
{
	struct ch_poll_event ev[8];
	int k;

	for (int got = 0; got < total;) {
		const int n = ch_pollset_wait(from, ev, 8, CH_FOREVER);

		cr_assert_gt(n, 0, "%d %s", n, ch_errmsg());
		for (int i = 0; i < n; i++)
			while (ch_channel_recv(all[ev[i].user_data], &k, sizeof(k), CH_TRY) == sizeof(k))
				got++;
	}
}

Test(pollproc, messages_from_other_processes_are_all_heard_of, .init = setup, .fini = teardown)
{
	pid_t pids[SENDERS];
	uint64_t seed = test_seed();

	for (uint32_t flags = 0; flags <= CH_POLL_EDGE; flags += CH_POLL_EDGE) {
		struct ch_pollset *with = NULL;

		cr_assert_eq(ch_pollset_create(NULL, &with), 0);
		add_all(with, CH_POLL_IN | flags);
		for (int i = 0; i < SENDERS; i++)
			pids[i] = child_start(send_all_over, (void *)(intptr_t)(rnd(&seed) | 1));
		receive(with, SENDERS * MESSAGES);
		for (int i = 0; i < SENDERS; i++)
			cr_assert_eq(child_end(pids[i]), 0);
		ch_pollset_destroy(with);
	}
}

static int send_until_killed(void *arg)
{
	uint64_t state = (uint64_t)(intptr_t)arg;

	for (;;) {
		struct ch_channel *ch = all[rnd(&state) % N];

		if (ch_channel_send(ch, &state, 4, MS) == -ETIMEDOUT)
			post(board, 0);
	}
	return 0;
}

/* Whoever is killed wherever: after it, what it has sent is heard of. Edges, so that nothing is looked at twice. */
Test(pollproc, a_killed_sender_leaves_no_message_unheard, .init = setup, .fini = teardown)
{
	uint64_t seed = test_seed();
	struct ch_poll_event ev[8];
	int k, n;

	add_all(set, CH_POLL_IN | CH_POLL_EDGE);
	for (int round = 0; round < 60; round++) {
		const pid_t pid = child_start(send_until_killed, (void *)(intptr_t)(rnd(&seed) | 1));
		const int64_t until = now_ns() + (int64_t)(rnd(&seed) % (2 * MS));

		while (now_ns() < until && (n = ch_pollset_wait(set, ev, 8, MS / 10)) != -EINVAL)
			for (int i = 0; i < n; i++)
				while (ch_channel_recv(all[ev[i].user_data], &k, sizeof(k), CH_TRY) == sizeof(k))
					;
		child_kill(pid);
		while (ch_pool_sweep(pool) > 0)
			;
		while ((n = ch_pollset_wait(set, ev, 8, CH_TRY)) > 0)
			for (int i = 0; i < n; i++)
				while (ch_channel_recv(all[ev[i].user_data], &k, sizeof(k), CH_TRY) == sizeof(k))
					;
		for (int i = 0; i < N; i++)
			cr_assert_eq(ch_channel_count(all[i]), 0, "round %d: channel %d", round, i);
	}
}

static int poll_until_killed(void *arg)
{
	struct ch_pollset *mine;
	struct ch_poll_event ev[4];
	int k;

	(void)arg;
	EXPECT(ch_pollset_create(NULL, &mine) == 0);
	for (int i = 0; i < N; i++)
		EXPECT(ch_pollset_add(mine, all[i], CH_POLL_IN, (uint64_t)i) == 0);
	post(board, 0);
	for (;;) {
		const int n = ch_pollset_wait(mine, ev, 4, CH_FOREVER);

		for (int i = 0; i < n; i++)
			if (ch_channel_recv(all[ev[i].user_data], &k, sizeof(k), CH_TRY) == sizeof(k))
				post(board, 1);
	}
	return 0;
}

Test(pollproc, a_killed_owner_leaves_nothing, .init = setup, .fini = teardown)
{
	uint64_t seed = test_seed();
	struct ch_pool_stats before;
	int k = 0;

	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
	for (int round = 0; round < 40; round++) { /* a channel has 8 watchers: more rounds than that */
		const pid_t pid = child_start(poll_until_killed, NULL);
		const int64_t until = now_ns() + (int64_t)(rnd(&seed) % (2 * MS));

		if (round % 2)
			await_post(board, 0);
		while (now_ns() < until)
			cr_assert_neq(ch_channel_send(all[rnd(&seed) % N], &k, sizeof(k), CH_TRY), -EINVAL);
		child_kill(pid);
		while (ch_pool_sweep(pool) > 0)
			;
	}
	for (int i = 0; i < N; i++)
		while (ch_channel_recv(all[i], &k, sizeof(k), CH_TRY) >= 0)
			;
	cr_assert(pool_is_as_before(pool, &before));
	add_all(set, CH_POLL_IN);
}

Test(pollproc, a_member_whose_creator_dies_is_reported, .init = setup, .fini = teardown)
{
	/* Its end comes through the keeper of this process: nobody calls sweep. */
	pid_t pid = fork();
	struct ch_channel *ch = NULL;
	struct ch_poll_event ev;

	if (pid == 0) {
		struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;

		alarm(WATCHDOG_S);
		attr.flags = CH_CHANNEL_ENDS_WITH_CREATOR;
		EXPECT(ch_channel_create(pool, &attr, &ch) == 0);
		EXPECT(ch_channel_get_descr(ch, &board->descr) == 0);
		post(board, 0);
		wait_to_be_killed();
	}
	await_post(board, 0);
	cr_assert_eq(ch_channel_attach(&board->descr, &ch), 0);
	cr_assert_eq(ch_pollset_add(set, ch, CH_POLL_IN, 9), 0);
	kill(pid, SIGKILL);
	cr_assert_eq(ch_pollset_wait(set, &ev, 1, CH_FOREVER), 1);
	cr_assert_eq(ev.user_data, 9);
	cr_assert_eq(ev.events, CH_POLL_CLOSED | CH_POLL_DESTROYED);
	child_end(pid);
	cr_assert_eq(ch_pollset_remove(set, ch), 0);
	ch_channel_detach(ch);
}

/* Of what a process held or had a part in when it was killed, the set of another hears in its sleep. */
static int holds_everything(void *arg)
{
	struct ch_stream *w, *own;

	EXPECT(ch_semaphore_acquire(arg, 1, CH_TRY) == 0);
	EXPECT(ch_stream_port_attach(&board->descr, &door) == 0);
	EXPECT(ch_stream_open(door, 0, CH_TRY, &w) == 0 && ch_stream_open(door, 0, CH_TRY, &own) == 0);
	EXPECT(ch_stream_write(w, "x", 1, 0, CH_TRY) == 1 && ch_stream_flush(w, CH_TRY) == 0);
	post(board, 0);
	return wait_to_be_killed();
}

Test(pollproc, what_a_dead_process_held_is_reported, .init = setup, .fini = teardown)
{
	struct ch_semaphore_attr of_units = CH_SEMAPHORE_ATTR_INIT;
	struct ch_stream_attr of_door = CH_STREAM_ATTR_INIT;
	struct ch_semaphore *unit;
	struct ch_stream *r;
	struct ch_poll_event ev[3];
	uint32_t seen[3] = { 0 };
	pid_t pid;

	of_units.value = 1;
	of_units.flags = CH_SEMAPHORE_UNDO;
	of_door.nr_streams = 2;
	cr_assert_eq(ch_semaphore_create(pool, &of_units, &unit), 0);
	cr_assert_eq(ch_stream_port_create(pool, &of_door, &door), 0);
	cr_assert_eq(ch_stream_port_get_descr(door, &board->descr), 0);
	pid = child_start(holds_everything, unit);
	await_post(board, 0);
	cr_assert_eq(ch_stream_accept(door, CH_TRY, &r), 0);
	cr_assert_eq(ch_pollset_add_any(set, ch_semaphore_get_pollable(unit), CH_POLL_IN | CH_POLL_ONESHOT, 0), 0);
	cr_assert_eq(ch_pollset_add_any(set, ch_stream_port_get_pollable(door), CH_POLL_OUT | CH_POLL_ONESHOT, 1), 0);
	cr_assert_eq(ch_pollset_add_any(set, ch_stream_get_pollable(r), CH_POLL_ONESHOT, 2), 0);
	cr_assert_eq(ch_pollset_wait(set, ev, 3, CH_TRY), -EAGAIN);
	kill(pid, SIGKILL);
	for (int got = 0, n; got < 3; got += n) { /* nobody calls sweep */
		n = ch_pollset_wait(set, ev, 3, CH_FOREVER);
		cr_assert_gt(n, 0);
		for (int i = 0; i < n; i++)
			seen[ev[i].user_data] |= ev[i].events;
	}
	cr_assert(seen[0] == CH_POLL_IN && seen[1] == CH_POLL_OUT && seen[2] == CH_POLL_CLOSED);
	child_end(pid);
	ch_stream_close(r);
}

static int polls_everything(void *arg)
{
	struct ch_pollset *mine;
	struct ch_poll_event ev;
	struct ch_stream *s;

	EXPECT(ch_pollset_create(NULL, &mine) == 0);
	EXPECT(ch_pollset_add_any(mine, ch_semaphore_get_pollable(arg), CH_POLL_IN, 0) == 0);
	EXPECT(ch_pollset_add_any(mine, ch_stream_port_get_pollable(door), 0, 0) == 0);
	EXPECT(ch_stream_open(door, 0, CH_TRY, &s) == 0);
	EXPECT(ch_pollset_add_any(mine, ch_stream_get_pollable(s), 0, 0) == 0);
	post(board, 0);
	EXPECT(ch_pollset_wait(mine, &ev, 1, CH_FOREVER) == -EINVAL); /* never */
	return 0;
}

Test(pollproc, the_watchers_of_a_killed_process_are_free_again, .init = setup, .fini = teardown)
{
	struct ch_semaphore *unit;
	struct ch_pool_stats before;

	cr_assert_eq(ch_semaphore_create(pool, NULL, &unit), 0);
	cr_assert_eq(ch_stream_port_create(pool, NULL, &door), 0);
	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
	for (int round = 0; round < 20; round++) { /* each has 8 watchers */
		const pid_t pid = child_start(polls_everything, unit);

		await_post(board, 0);
		board->step[0] = 0;
		child_kill(pid);
		while (ch_pool_sweep(pool) > 0)
			;
		cr_assert(pool_is_as_before(pool, &before));
	}
}

static int use_the_parents(void *arg)
{
	struct ch_pollset *mine;
	struct ch_poll_event ev;

	(void)arg;
	EXPECT(ch_pollset_wait(set, &ev, 1, CH_TRY) == -EPERM);
	EXPECT(ch_pollset_add(set, all[1], CH_POLL_IN, 0) == -EPERM);
	EXPECT(ch_pollset_modify(set, all[0], CH_POLL_IN, 0) == -EPERM);
	EXPECT(ch_pollset_remove(set, all[0]) == -EPERM);
	EXPECT(ch_pollset_fd(set) == -EPERM);
	ch_pollset_destroy(set);
	EXPECT(ch_pollset_create(NULL, &mine) == 0);
	EXPECT(ch_pollset_add(mine, all[0], CH_POLL_IN, 5) == 0);
	EXPECT(ch_pollset_wait(mine, &ev, 1, CH_TRY) == -EAGAIN);
	ch_pollset_destroy(mine);
	EXPECT(ch_channel_send(all[0], "x", 1, CH_TRY) == 0);
	return 0;
}

Test(pollproc, a_forked_child_makes_its_own, .init = setup, .fini = teardown)
{
	struct ch_poll_event ev;

	cr_assert_eq(ch_pollset_add(set, all[0], CH_POLL_IN, 7), 0);
	cr_assert_geq(ch_pollset_fd(set), 0);
	cr_assert_eq(ch_pollset_wait(set, &ev, 1, CH_TRY), -EAGAIN);
	const pid_t pid = child_start(use_the_parents, NULL);
	cr_assert_eq(ch_pollset_wait(set, &ev, 1, CH_FOREVER), 1);
	cr_assert_eq(ev.user_data, 7);
	cr_assert_eq(child_end(pid), 0);
}

static int64_t cpu_ns(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return ((int64_t)u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000 +
	       ((int64_t)u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000;
}

static int poll_quietly(void *arg)
{
	struct ch_pollset *mine;
	struct ch_poll_event ev;

	(void)arg;
	EXPECT(ch_pollset_create(NULL, &mine) == 0);
	for (int i = 0; i < N; i++)
		EXPECT(ch_pollset_add(mine, all[i], CH_POLL_IN, (uint64_t)i) == 0);
	EXPECT(ch_pollset_fd(mine) >= 0);
	post(board, 0);
	const int64_t before = cpu_ns();
	EXPECT(ch_pollset_wait(mine, &ev, 1, CH_FOREVER) == 1);
	board->value[0] = cpu_ns() - before;
	ch_pollset_destroy(mine);
	return 0;
}

Test(pollproc, a_set_that_waits_uses_no_processor, .init = setup, .fini = teardown)
{
	const struct timespec while_ = { 1, 0 };
	const pid_t pid = child_start(poll_quietly, NULL);

	await_post(board, 0);
	await_asleep(pid);
	nanosleep(&while_, NULL); /* the time that is measured, not a synchronisation */
	cr_assert_eq(ch_channel_send(all[3], "x", 1, CH_TRY), 0);
	cr_assert_eq(child_end(pid), 0);
	cr_assert_lt(board->value[0], 20 * MS, "%lld ns of a second", (long long)board->value[0]);
}

static int one_member_and_out(void *arg)
{
	struct ch_pollset *mine;
	struct ch_poll_event ev;

	(void)arg;
	EXPECT(ch_pollset_create(NULL, &mine) == 0);
	EXPECT(ch_pollset_add(mine, all[0], CH_POLL_IN, 1) == 0);
	EXPECT(ch_pollset_wait(mine, &ev, 1, CH_FOREVER) == 1);
	post(board, 0);
	return 0; /* without destroying it */
}

Test(pollproc, every_set_that_watches_a_channel_hears_of_it, .init = setup, .fini = teardown)
{
	pid_t pids[SENDERS];
	char c;

	for (int round = 0; round < 5; round++) {
		board->step[0] = 0;
		for (int i = 0; i < SENDERS; i++)
			pids[i] = child_start(one_member_and_out, NULL);
		for (int i = 0; i < SENDERS; i++)
			await_asleep(pids[i]);
		cr_assert_eq(ch_channel_send(all[0], "x", 1, CH_TRY), 0);
		for (int i = 0; i < SENDERS; i++)
			cr_assert_eq(child_end(pids[i]), 0);
		cr_assert_eq(posted(board, 0), SENDERS);
		cr_assert_eq(ch_channel_recv(all[0], &c, 1, CH_TRY), 1);
	}
}

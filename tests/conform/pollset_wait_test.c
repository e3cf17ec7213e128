/* SPDX-License-Identifier: Apache-2.0 */
/* pollset.h: waiting, by many threads, by descriptor, while members come and go. */
#include "../support/support.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>

TestSuite(pollwait, .timeout = WATCHDOG_S);

static const uint32_t spins[] = { 0, CH_SPIN_NEVER, CH_SPIN_ALWAYS };

static struct ch_pool *pool;
static struct ch_pollset *set;
static struct ch_channel *ch;
static int nr_woken, nr_began, last_rc;

static struct ch_channel *create(void)
{
	struct ch_channel *out = NULL;

	cr_assert_eq(ch_channel_create(pool, NULL, &out), 0, "%s", ch_errmsg());
	return out;
}

static struct ch_pollset *set_with(uint32_t spin_ns)
{
	struct ch_pollset_attr attr = CH_POLLSET_ATTR_INIT;
	struct ch_pollset *out = NULL;

	attr.spin_ns = spin_ns;
	cr_assert_eq(ch_pollset_create(&attr, &out), 0, "%s", ch_errmsg());
	return out;
}

static void setup(void)
{
	pool = pool_of(4 << 20);
	set = set_with(CH_SPIN_NEVER);
	ch = create();
	nr_woken = nr_began = last_rc = 0;
}

static void teardown(void)
{
	ch_pollset_destroy(set);
	ch_pool_destroy(pool);
}

static int load(const int *word)
{
	return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static void count(int *word)
{
	__atomic_add_fetch(word, 1, __ATOMIC_SEQ_CST);
}

/* How many threads of this process sleep in futex(2) or futex_waitv(2). */
static int nr_asleep(void)
{
	DIR *tasks = opendir("/proc/self/task");
	char path[300], text[64];
	int n = 0;

	for (struct dirent *e; tasks && (e = readdir(tasks)) != NULL;) {
		long call = -1;
		ssize_t len;
		int fd;

		snprintf(path, sizeof(path), "/proc/self/task/%s/syscall", e->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		len = read(fd, text, sizeof(text) - 1);
		close(fd);
		text[len > 0 ? len : 0] = '\0';
		n += sscanf(text, "%ld", &call) == 1 && (call == SYS_futex || call == 449);
	}
	if (tasks)
		closedir(tasks);
	return n;
}

/* Threads that have begun are soon asleep; where /proc does not tell, a while must do. It only sharpens the test. */
static void await_sleepers(int n)
{
	AWAIT(load(&nr_began) >= n);
	for (int k = 0; k < 200 && nr_asleep() < n; k++)
		short_nap();
}

static void *wait_one(void *timeout)
{
	struct ch_poll_event ev[4];

	count(&nr_began);
	const int rc = ch_pollset_wait(set, ev, 4, *(int64_t *)timeout);
	__atomic_store_n(&last_rc, rc, __ATOMIC_SEQ_CST);
	count(&nr_woken);
	return NULL;
}

static int64_t forever = CH_FOREVER;

Test(pollwait, nothing_waits_at_least_what_was_asked, .init = setup, .fini = teardown)
{
	const int64_t asked[] = { 1, MS, 20 * MS };
	struct ch_poll_event ev;

	for (size_t k = 0; k < 3; k++) {
		struct ch_pollset *with = set_with(spins[k]);

		for (int round = 0; round < 2; round++) { /* without a member, and with one */
			cr_assert_eq(ch_pollset_wait(with, &ev, 1, CH_TRY), -EAGAIN);
			for (size_t i = 0; i < 3; i++) {
				const int64_t t = now_ns();

				cr_assert_eq(ch_pollset_wait(with, &ev, 1, asked[i]), -ETIMEDOUT);
				cr_assert_geq(now_ns() - t, asked[i]);
			}
			if (round == 0)
				cr_assert_eq(ch_pollset_add(with, ch, CH_POLL_IN | CH_POLL_FULL, 0), 0);
		}
		ch_pollset_destroy(with);
	}
}

static void *echo(void *arg)
{
	struct ch_channel **two = arg;
	char c;

	while (ch_channel_recv(two[0], &c, 1, CH_FOREVER) == 1)
		ch_channel_send(two[1], &c, 1, CH_FOREVER);
	return NULL;
}

Test(pollwait, ping_pong_however_one_waits, .init = setup, .fini = teardown)
{
	for (size_t k = 0; k < 3; k++) {
		for (uint32_t flags = 0; flags <= CH_POLL_EDGE; flags += CH_POLL_EDGE) {
			struct ch_channel *two[2] = { create(), create() };
			struct ch_pollset *with = set_with(spins[k]);
			struct ch_poll_event ev;
			pthread_t thread;
			char c;

			cr_assert_eq(ch_pollset_add(with, two[1], CH_POLL_IN | flags, 5), 0);
			pthread_create(&thread, NULL, echo, two);
			for (int i = 0; i < 2000; i++) {
				cr_assert_eq(ch_channel_send(two[0], "a", 1, CH_FOREVER), 0);
				do
					cr_assert_eq(ch_pollset_wait(with, &ev, 1, CH_FOREVER), 1);
				while (ch_channel_recv(two[1], &c, 1, CH_TRY) == -EAGAIN);
			}
			ch_channel_close(two[0]);
			pthread_join(thread, NULL);
			ch_pollset_destroy(with);
		}
	}
}

Test(pollwait, each_event_wakes_one_of_many_threads, .init = setup, .fini = teardown)
{
	enum { N = 8 };
	pthread_t threads[N];

	cr_assert_eq(ch_pollset_add(set, ch, CH_POLL_IN | CH_POLL_EDGE, 0), 0);
	for (int i = 0; i < N; i++)
		pthread_create(&threads[i], NULL, wait_one, &forever);
	await_sleepers(N);
	for (int i = 1; i <= N; i++) {
		cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), 0);
		AWAIT(load(&nr_woken) >= i);
		for (int k = 0; k < 10; k++)
			short_nap(); /* time to do wrong */
		cr_assert_eq(load(&nr_woken), i);
	}
	for (int i = 0; i < N; i++)
		pthread_join(threads[i], NULL);
}

static void *take_one(void *arg)
{
	struct ch_poll_event ev;
	char c;

	(void)arg;
	count(&nr_began);
	do
		EXPECT(ch_pollset_wait(set, &ev, 1, CH_FOREVER) == 1);
	while (ch_channel_recv(ch, &c, 1, CH_TRY) == -EAGAIN);
	count(&nr_woken);
	return NULL;
}

/* Level-triggered: who is told of the first message does not keep the others from hearing of the rest. */
Test(pollwait, the_baton_is_passed_as_long_as_there_are_messages, .init = setup, .fini = teardown)
{
	enum { N = 8 };
	pthread_t threads[N];

	cr_assert_eq(ch_pollset_add(set, ch, CH_POLL_IN, 0), 0);
	for (int round = 0; round < 50; round++) {
		nr_woken = nr_began = 0;
		for (int i = 0; i < N; i++)
			pthread_create(&threads[i], NULL, take_one, NULL);
		if (round % 2)
			await_sleepers(N);
		for (int i = 0; i < N; i++)
			cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), 0);
		for (int i = 0; i < N; i++)
			pthread_join(threads[i], NULL);
		cr_assert_eq(load(&nr_woken), N);
	}
}

/* Who is told goes on to other work: when one of two messages is taken, the other one is another thread's. */
Test(pollwait, what_is_left_after_a_receive_wakes_the_next, .init = setup, .fini = teardown)
{
	static const struct ch_channel_attr kinds[] = {
		{ .size = sizeof(struct ch_channel_attr), .capacity = 8 },
		{ .size = sizeof(struct ch_channel_attr), .capacity = 8, .flags = CH_CHANNEL_SPSC },
		{ .size = sizeof(struct ch_channel_attr), .capacity = 8, .urgent_capacity = 4 },
	};
	const struct ch_send_item two[2] = { { .buf = "x", .len = 1 }, { .buf = "y", .len = 1 } };
	struct ch_send_attr urgent = CH_SEND_ATTR_INIT;
	pthread_t threads[2];
	char c;

	urgent.flags = CH_MESSAGE_URGENT;
	for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++) {
		for (int round = 0; round < 10; round++) {
			cr_assert_eq(ch_channel_create(pool, &kinds[k], &ch), 0, "%s", ch_errmsg());
			cr_assert_eq(ch_pollset_add(set, ch, CH_POLL_IN, 0), 0);
			nr_began = nr_woken = 0;
			for (int i = 0; i < 2; i++)
				pthread_create(&threads[i], NULL, wait_one, &forever);
			await_sleepers(2);
			if (k == 2) {
				cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), 0);
				cr_assert_eq(ch_channel_send_attr(ch, "y", 1, &urgent, CH_TRY), 0, "%s", ch_errmsg());
			} else {
				cr_assert_eq(ch_channel_send_batch(ch, two, 2, CH_TRY), 2);
			}
			AWAIT(load(&nr_woken) >= 1);
			cr_assert_eq(ch_channel_recv(ch, &c, 1, CH_TRY), 1);
			for (int i = 0; i < 2; i++)
				pthread_join(threads[i], NULL);
			cr_assert_eq(ch_pollset_remove(set, ch), 0);
			ch_channel_destroy(ch);
		}
	}
}

Test(pollwait, urgent_messages_and_room_for_them_wake, .init = setup, .fini = teardown)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_send_attr urgent = CH_SEND_ATTR_INIT;
	pthread_t thread;
	char c;

	attr.urgent_capacity = 1;
	urgent.flags = CH_MESSAGE_URGENT;
	cr_assert_eq(ch_channel_create(pool, &attr, &ch), 0, "%s", ch_errmsg());
	for (int round = 0; round < 20; round++) {
		const uint32_t what = round % 2 ? CH_POLL_OUT_URGENT : CH_POLL_IN;

		cr_assert_eq(ch_pollset_add(set, ch, what | (round % 4 > 1 ? CH_POLL_EDGE : 0), 0), 0, "%s", ch_errmsg());
		nr_began = nr_woken = 0;
		pthread_create(&thread, NULL, wait_one, &forever);
		await_sleepers(1);
		if (what == CH_POLL_IN)
			cr_assert_eq(ch_channel_send_attr(ch, "x", 1, &urgent, CH_TRY), 0, "%s", ch_errmsg());
		else
			cr_assert_eq(ch_channel_recv(ch, &c, 1, CH_TRY), 1);
		pthread_join(thread, NULL);
		cr_assert_eq(load(&last_rc), 1);
		cr_assert_eq(ch_pollset_remove(set, ch), 0);
	}
}

Test(pollwait, members_may_be_added_and_modified_while_threads_wait, .init = setup, .fini = teardown)
{
	struct ch_channel *full = create();
	pthread_t thread;

	for (int round = 0; round < 3; round++) {
		nr_began = nr_woken = 0;
		pthread_create(&thread, NULL, wait_one, &forever);
		await_sleepers(1);
		if (round == 0) /* the set had no member, and no memory to sleep on */
			cr_assert_eq(ch_pollset_add(set, ch, CH_POLL_OUT | CH_POLL_ONESHOT, 0), 0);
		else if (round == 1)
			cr_assert_eq(ch_pollset_modify(set, ch, CH_POLL_EMPTY | CH_POLL_ONESHOT, 0), 0);
		else
			cr_assert_eq(ch_pollset_add(set, full, CH_POLL_OUT, 0), 0);
		pthread_join(thread, NULL);
		cr_assert_eq(load(&last_rc), 1);
	}
}

Test(pollwait, a_thread_that_waits_hears_of_a_pool_that_joins, .init = setup, .fini = teardown)
{
	struct ch_pool *other = pool_of(1 << 20);
	struct ch_channel *far = NULL;
	pthread_t thread;

	cr_assert_eq(ch_channel_create(other, NULL, &far), 0);
	cr_assert_eq(ch_pollset_add(set, ch, CH_POLL_IN, 0), 0);
	for (int round = 0; round < 3; round++) {
		nr_began = nr_woken = 0;
		pthread_create(&thread, NULL, wait_one, &forever);
		await_sleepers(1);
		if (round == 0)
			cr_assert_eq(ch_pollset_add(set, far, CH_POLL_IN | CH_POLL_EDGE, 0), 0);
		cr_assert_eq(ch_channel_send(round == 2 ? ch : far, "x", 1, CH_TRY), 0);
		pthread_join(thread, NULL);
		cr_assert_eq(load(&last_rc), 1);
	}
	ch_pollset_destroy(set);
	set = NULL;
	ch_pool_destroy(other);
}

Test(pollwait, destroy_wakes_everybody, .init = setup, .fini = teardown)
{
	enum { N = 4 };
	pthread_t threads[N];

	for (int with_member = 0; with_member < 2; with_member++) {
		nr_began = 0;
		if (with_member)
			cr_assert_eq(ch_pollset_add(set, ch, CH_POLL_IN, 0), 0);
		cr_assert_geq(ch_pollset_fd(set), 0);
		for (int i = 0; i < N; i++)
			pthread_create(&threads[i], NULL, wait_one, &forever);
		await_sleepers(N);
		ch_pollset_destroy(set);
		for (int i = 0; i < N; i++)
			pthread_join(threads[i], NULL);
		cr_assert_eq(load(&last_rc), -ECANCELED);
		set = set_with(0);
	}
}

Test(pollwait, a_close_is_heard_by_all_that_wait, .init = setup, .fini = teardown)
{
	enum { N = 8 };
	pthread_t threads[N];

	cr_assert_eq(ch_pollset_add(set, ch, 0, 0), 0);
	for (int i = 0; i < N; i++)
		pthread_create(&threads[i], NULL, wait_one, &forever);
	await_sleepers(N);
	cr_assert_eq(ch_channel_close(ch), 0);
	for (int i = 0; i < N; i++)
		pthread_join(threads[i], NULL);
	cr_assert_eq(load(&nr_woken), N);
}

Test(pollwait, close_and_destroy_of_a_member_wake, .init = setup, .fini = teardown)
{
	struct ch_descr descr;
	struct ch_channel *other;
	struct ch_poll_event ev;
	pthread_t thread;

	cr_assert_eq(ch_channel_get_descr(ch, &descr), 0);
	cr_assert_eq(ch_channel_attach(&descr, &other), 0);
	cr_assert_eq(ch_pollset_add(set, ch, CH_POLL_EDGE, 0), 0);
	for (int round = 0; round < 2; round++) {
		nr_began = 0;
		pthread_create(&thread, NULL, wait_one, &forever);
		await_sleepers(1);
		if (round == 0)
			cr_assert_eq(ch_channel_close(other), 0);
		else
			ch_channel_destroy(other);
		pthread_join(thread, NULL);
		cr_assert_eq(load(&last_rc), 1);
	}
	cr_assert_eq(ch_pollset_wait(set, &ev, 1, CH_TRY), -EAGAIN);
	cr_assert_eq(ch_pollset_remove(set, ch), 0);
}

static int is_readable(int fd, int timeout_ms)
{
	struct pollfd p = { fd, POLLIN, 0 };

	return poll(&p, 1, timeout_ms) == 1 && (p.revents & POLLIN);
}

static int until_nothing(void)
{
	struct ch_poll_event ev[4];
	int n, total = 0;

	while ((n = ch_pollset_wait(set, ev, 4, CH_TRY)) > 0) {
		total += n;
		for (char c; ch_channel_recv(ch, &c, 1, CH_TRY) == 1;)
			;
	}
	cr_assert_eq(n, -EAGAIN);
	return total;
}

Test(pollwait, the_descriptor_is_readable_while_there_may_be_events, .init = setup, .fini = teardown)
{
	struct ch_poll_event ev;
	const int fd = ch_pollset_fd(set);

	cr_assert_geq(fd, 0);
	cr_assert_eq(ch_pollset_fd(set), fd);
	cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	cr_assert_not(is_readable(fd, 0));
	cr_assert_eq(ch_pollset_add(set, ch, CH_POLL_IN, 0), 0);
	until_nothing();
	for (int round = 0; round < 100; round++) {
		cr_assert_not(is_readable(fd, 0));
		cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), 0);
		cr_assert(is_readable(fd, -1));
		cr_assert_eq(ch_pollset_wait(set, &ev, 1, CH_TRY), 1);
		cr_assert(is_readable(fd, -1)); /* the message is still there */
		cr_assert_eq(until_nothing(), 1);
	}
}

Test(pollwait, edge_triggered_epoll_works, .init = setup, .fini = teardown)
{
	const int ep = epoll_create1(EPOLL_CLOEXEC), fd = ch_pollset_fd(set);
	struct epoll_event want = { .events = EPOLLIN | EPOLLET, .data = { .u64 = 0 } }, got;

	cr_assert_eq(ch_pollset_add(set, ch, CH_POLL_IN, 0), 0);
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &want), 0);
	for (int round = 0; round < 100; round++) {
		until_nothing();
		cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), 0);
		do
			cr_assert_eq(epoll_wait(ep, &got, 1, -1), 1);
		while (until_nothing() == 0);
	}
	close(ep);
}

Test(pollwait, threads_and_the_descriptor_together, .init = setup, .fini = teardown)
{
	pthread_t thread;

	cr_assert_geq(ch_pollset_fd(set), 0);
	cr_assert_eq(ch_pollset_add(set, ch, CH_POLL_IN | CH_POLL_EDGE, 0), 0);
	for (int round = 0; round < 100; round++) {
		nr_began = nr_woken = 0;
		pthread_create(&thread, NULL, wait_one, &forever);
		AWAIT(load(&nr_began) == 1);
		cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), 0);
		pthread_join(thread, NULL);
		cr_assert_eq(load(&last_rc), 1);
	}
}

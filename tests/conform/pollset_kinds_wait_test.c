/* SPDX-License-Identifier: Apache-2.0 */
/* pollset.h: threads that sleep in a set for units, conversations, chunks and room. */
#include "pollset_kinds.h"

TestSuite(pollsleep, .timeout = WATCHDOG_S, .init = setup, .fini = teardown);

enum { THREADS = 4, ROUNDS = 300 };

static struct ch_semaphore *units;

/* Units are taken by who is told of them, until the event comes. */
static void *take_units(void *arg)
{
	struct ch_poll_event ev;
	intptr_t taken = 0;
	int n;

	(void)arg;
	while ((n = ch_pollset_wait(set, &ev, 1, CH_FOREVER)) == 1)
		if (ev.user_data == 2)
			return (void *)taken;
		else if (ch_semaphore_acquire(units, 1, CH_TRY) == 0)
			taken++;
	return (void *)(intptr_t)-1;
}

Test(pollsleep, units_are_all_taken_by_threads_that_sleep_in_a_set)
{
	struct ch_event *over = event_of(0);
	pthread_t threads[THREADS];
	uint64_t seed = test_seed();
	intptr_t released = 0, taken = 0;
	void *one;

	make_set();
	units = semaphore_of(0, 0);
	add(ch_semaphore_get_pollable(units), CH_POLL_IN);
	cr_assert_eq(ch_pollset_add_any(set, ch_event_get_pollable(over), CH_POLL_IN, 2), 0);
	for (int i = 0; i < THREADS; i++)
		threads[i] = thread_start(take_units, NULL);
	for (int round = 0; round < ROUNDS; round++) {
		const uint32_t n = 1 + (uint32_t)(rnd(&seed) % 6);
		cr_assert_eq(ch_semaphore_release(units, n), 0);
		released += n;
		if (round % 4 == 0) /* all gone: what a release or an acquire leaves is told of */
			cr_assert_eq(ch_semaphore_wait_zero(units, CH_FOREVER), 0);
	}
	cr_assert_eq(ch_semaphore_wait_zero(units, CH_FOREVER), 0);
	cr_assert_eq(ch_event_set(over), 0);
	for (int i = 0; i < THREADS; i++) { /* a set event is for all */
		cr_assert_eq(pthread_join(threads[i], &one), 0);
		cr_assert_geq((intptr_t)one, 0);
		taken += (intptr_t)one;
	}
	cr_assert_eq(taken, released);
	ch_pollset_destroy(set);
}

static struct ch_stream_port *door;
static struct ch_stream *writer, *source;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

enum thing { UNIT, CONVERSATION, CHUNK, FREE_STREAM };
static struct ch_stream *held[THREADS];
static int nr_held;

static int take(enum thing what)
{
	struct ch_stream *s = NULL;
	ssize_t rc;

	if (what == UNIT)
		return ch_semaphore_acquire(units, 1, CH_TRY);
	if (what == FREE_STREAM) {
		rc = ch_stream_open(door, 0, CH_TRY, &s);
		if (rc == 0)
			held[nr_held++] = s;
		return (int)rc;
	}
	rc = what == CHUNK ? read_some(source, 5) : ch_stream_accept(door, CH_TRY, &s);
	ch_stream_close(s);
	return rc < 0 ? (int)rc : 0;
}

/* Comes back with one, and does not care for what it leaves. */
static void *take_one(void *arg)
{
	struct ch_poll_event ev;
	int rc = -EAGAIN;

	while (rc == -EAGAIN) {
		if (ch_pollset_wait(set, &ev, 1, CH_FOREVER) != 1)
			return NULL;
		pthread_mutex_lock(&turn); /* one thread at a time reads from a stream */
		rc = take(*(enum thing *)arg);
		pthread_mutex_unlock(&turn);
	}
	return rc == 0 ? arg : NULL;
}

static void bring(enum thing what)
{
	struct ch_stream *s = NULL;

	for (int i = 0; i < THREADS && what == CONVERSATION; i++) {
		cr_assert_eq(ch_stream_open(door, CH_STREAM_BUFFERED, CH_FOREVER, &s), 0);
		cr_assert_eq(ch_stream_end(s, CH_FOREVER), 0);
		ch_stream_close(s);
	}
	if (what == UNIT)
		cr_assert_eq(ch_semaphore_release(units, THREADS), 0);
	for (int i = 0; i < THREADS && what == FREE_STREAM; i++) {
		pthread_mutex_lock(&turn);
		s = nr_held > 0 ? held[--nr_held] : NULL;
		pthread_mutex_unlock(&turn);
		ch_stream_close(s);
	}
	if (what == CHUNK) { /* one, of as many pieces as there are threads */
		cr_assert_eq(ch_stream_write(writer, "piecepiecepiecepiece", 5 * THREADS, 0, CH_FOREVER), 5 * THREADS);
		cr_assert_eq(ch_stream_flush(writer, CH_FOREVER), 0);
	}
}

/* As many threads sleep as there will be things to take. */
static void all_are_taken(struct ch_pollable *from, uint32_t events, enum thing what)
{
	pthread_t threads[THREADS];
	void *out;

	make_set();
	add(from, events);
	for (int round = 0; round < 40; round++) {
		for (int i = 0; i < THREADS; i++)
			threads[i] = thread_start(take_one, &what);
		for (int k = 0; k < round % 4; k++)
			short_nap(); /* they are on their way, or asleep: both must do */
		bring(what);
		for (int i = 0; i < THREADS; i++) {
			cr_assert_eq(pthread_join(threads[i], &out), 0);
			cr_assert_not_null(out, "%s", ch_errmsg());
		}
	}
	ch_pollset_destroy(set);
}

Test(pollsleep, what_one_leaves_is_for_the_next_that_sleeps)
{
	units = semaphore_of(0, 0);
	door = port_of(2 * THREADS);
	writer = open_at(door);
	source = accept_at(door);
	all_are_taken(ch_semaphore_get_pollable(units), CH_POLL_IN, UNIT);
	all_are_taken(ch_stream_port_get_pollable(door), CH_POLL_IN, CONVERSATION);
	all_are_taken(ch_stream_get_pollable(source), CH_POLL_IN, CHUNK);
	ch_stream_port_destroy(door);
	door = port_of(THREADS);
	for (nr_held = 0; nr_held < THREADS; nr_held++)
		held[nr_held] = open_at(door);
	all_are_taken(ch_stream_port_get_pollable(door), CH_POLL_OUT, FREE_STREAM);
}

static void *read_all(void *arg)
{
	char buf[7];
	ssize_t n;

	while ((n = ch_stream_read(arg, buf, sizeof(buf), CH_FOREVER, NULL)) > 0)
		;
	return n == 0 ? arg : NULL;
}

Test(pollsleep, a_writer_sleeps_until_there_is_room)
{
	for (uint32_t how = 0; how <= CH_POLL_EDGE; how += CH_POLL_EDGE) {
		struct ch_poll_event ev;
		pthread_t reader;
		void *out;
		int k = 0;

		make_set();
		door = port_of(1);
		writer = open_at(door);
		add(ch_stream_get_pollable(writer), CH_POLL_OUT | how);
		reader = thread_start(read_all, accept_at(door));
		while (k < 10 * ROUNDS) {
			cr_assert_eq(ch_pollset_wait(set, &ev, 1, CH_FOREVER), 1);
			while (k < 10 * ROUNDS && ch_stream_write(writer, &k, sizeof(k), (uint64_t)k, CH_TRY) == sizeof(k))
				k++;
		}
		cr_assert_eq(ch_stream_end(writer, CH_FOREVER), 0);
		cr_assert_eq(pthread_join(reader, &out), 0);
		cr_assert_not_null(out, "%s", ch_errmsg());
		ch_stream_close(writer);
		ch_stream_close(out);
		ch_pollset_destroy(set);
	}
}

/* One thread accepts, and serves all conversations that are open, by a set. */
static void *serve_all(void *arg)
{
	struct ch_stream *open[8] = { NULL };
	struct ch_poll_event ev[4];
	intptr_t ended = 0;
	char buf[64];

	while (ended < (intptr_t)arg) {
		const int n = ch_pollset_wait(set, ev, 4, CH_FOREVER);
		for (int i = 0; i < n; i++) {
			const uint64_t k = ev[i].user_data;
			ssize_t got = 1;
			for (uint64_t at = 0; k == 99 && at < 8; at++)
				if (!open[at] && ch_stream_accept(door, CH_TRY, &open[at]) == 0 &&
				    ch_pollset_add_any(set, ch_stream_get_pollable(open[at]), CH_POLL_IN | CH_POLL_EDGE,
						       at) < 0)
					return NULL;
			while (k != 99 && got > 0)
				got = ch_stream_read(open[k], buf, sizeof(buf), CH_TRY, NULL);
			if (k == 99 || got == -EAGAIN)
				continue;
			ended += got == 0;
			ch_stream_close(open[k]);
			open[k] = NULL;
		}
	}
	return (void *)ended;
}

static void *converse(void *arg)
{
	uint64_t seed = (uint64_t)(uintptr_t)arg;

	for (int k = 0; k < ROUNDS / 3; k++) {
		struct ch_stream *s = NULL;
		const int n = (int)(rnd(&seed) % 5);
		if (ch_stream_open(door, 0, CH_FOREVER, &s) < 0)
			return NULL;
		for (int i = 0; i < n; i++)
			if (ch_stream_write(s, "words", 5, (uint64_t)i, CH_FOREVER) != 5)
				return NULL;
		if (ch_stream_end(s, CH_FOREVER) < 0)
			return NULL;
		ch_stream_close(s);
	}
	return arg;
}

Test(pollsleep, one_thread_serves_many_conversations_by_edges)
{
	uint64_t seed = test_seed();
	pthread_t server, writers[THREADS];
	void *out;

	make_set();
	door = port_of(8);
	cr_assert_eq(ch_pollset_add_any(set, ch_stream_port_get_pollable(door), CH_POLL_IN, 99), 0);
	server = thread_start(serve_all, (void *)(intptr_t)(THREADS * (ROUNDS / 3)));
	for (int i = 0; i < THREADS; i++)
		writers[i] = thread_start(converse, (void *)(uintptr_t)(rnd(&seed) | 1));
	for (int i = 0; i < THREADS; i++) {
		cr_assert_eq(pthread_join(writers[i], &out), 0);
		cr_assert_not_null(out, "%s", ch_errmsg());
	}
	cr_assert_eq(pthread_join(server, &out), 0);
	cr_assert_eq((intptr_t)out, THREADS * (ROUNDS / 3));
	ch_pollset_destroy(set);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Streams between processes: whoever sleeps in a call is woken by whatever ends its wait, a death above all. */
#include "../support/support.h"
#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(stream_proc, .timeout = WATCHDOG_S);

enum call { READ, TAKE, POLL_READ, WRITE, COMMIT, DRAIN, POLL_WRITE, OPEN, END_BUFFERED, ACCEPT };
enum act { FEED, END, CANCEL, CLOSE, DIE, DESTROY };
enum { ASLEEP_SOON, SET_UP, GO, RC };

static struct ch_pool *pool;
static struct ch_stream_port *port;
static struct ch_pool_stats before;
static struct board *b;
static enum call call;
static enum act act;

static void setup_spin(uint32_t spin_ns)
{
	struct ch_stream_attr attr = CH_STREAM_ATTR_INIT;

	b = board_new();
	pool = pool_of(4 << 20);
	attr.nr_streams = 2;
	attr.capacity = 2;
	attr.chunk_len = 256;
	attr.spin_ns = spin_ns;
	cr_assert_eq(ch_stream_port_create(pool, &attr, &port), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
}

static void setup(void)
{
	setup_spin(0);
}

static void teardown(void)
{
	ch_pool_destroy(pool);
	munmap(b, sizeof(*b));
}

static void assert_all_free(void)
{
	struct ch_stream_port_stats st;

	cr_assert(pool_is_as_before(pool, &before));
	cr_assert_eq(ch_stream_port_get_stats(port, &st), 0);
	cr_assert_eq(st.nr_free, 2);
}

static int reads(void) { return call <= POLL_READ; }
static int writes(void) { return call > POLL_READ && call <= POLL_WRITE; }

/* The other end of what the sleeper waits for. */
static int partner(void *arg)
{
	struct ch_stream *s[2] = { NULL, NULL };
	char buf[64];

	(void)arg;
	if (reads()) {
		EXPECT(ch_stream_open(port, 0, CH_FOREVER, &s[0]) == 0);
	} else if (writes()) {
		EXPECT(ch_stream_accept(port, CH_FOREVER, &s[0]) == 0);
	} else if (call != ACCEPT) {
		for (int i = 0; i < 2; i++)
			EXPECT(ch_stream_open(port, 0, CH_FOREVER, &s[i]) == 0);
	}
	post(b, SET_UP);
	await_post(b, GO);
	switch (act) {
	case FEED:
		if (reads())
			EXPECT(ch_stream_write(s[0], "x", 1, 0, CH_TRY) == 1 && ch_stream_flush(s[0], CH_TRY) == 0);
		else if (writes()) /* all that is there; who waited for it may be gone already */
			EXPECT(ch_stream_read(s[0], buf, sizeof(buf), CH_FOREVER, NULL) > 0);
		else
			EXPECT(ch_stream_open(port, 0, CH_FOREVER, &s[0]) == 0);
		break;
	case END: EXPECT(ch_stream_end(s[0], CH_TRY) == 0); break;
	case CANCEL: EXPECT(ch_stream_cancel(s[0]) == 0); break;
	case CLOSE: ch_stream_close(s[0]); break;
	case DESTROY: ch_stream_port_destroy(port); break;
	case DIE: break;
	}
	return wait_to_be_killed();
}

static struct ch_stream *full_stream(void)
{
	struct ch_stream *s = NULL;

	EXPECT(ch_stream_open(port, 0, CH_FOREVER, &s) == 0);
	for (int i = 0; i < 2; i++)
		EXPECT(ch_stream_write(s, "abc", 3, (uint64_t)i, CH_TRY) == 3 && ch_stream_flush(s, CH_TRY) == 0);
	return s;
}

static ssize_t sleep_in_writer(void)
{
	struct ch_message msg = CH_MESSAGE_INIT;
	struct ch_stream *s = full_stream();

	if (call == WRITE)
		EXPECT(ch_stream_write(s, "d", 1, 5, CH_TRY) == 1);
	else if (call == COMMIT)
		EXPECT(ch_stream_claim(s, 1000, CH_TRY, &msg) == 0);
	await_post(b, SET_UP);
	post(b, ASLEEP_SOON);
	return call == WRITE  ? ch_stream_write(s, "efg", 3, 6, CH_FOREVER) :
	       call == COMMIT ? ch_stream_commit(s, &msg, 0, CH_FOREVER) :
	       call == DRAIN  ? ch_stream_drain(s, CH_FOREVER) :
				ch_stream_poll(s, CH_FOREVER);
}

static ssize_t sleep_in_other(void)
{
	struct ch_message msg = CH_MESSAGE_INIT;
	struct ch_stream *s = NULL;
	char buf[10];

	if (reads())
		EXPECT(ch_stream_accept(port, CH_FOREVER, &s) == 0);
	else if (call == END_BUFFERED)
		EXPECT(ch_stream_open(port, CH_STREAM_BUFFERED, CH_TRY, &s) == 0);
	await_post(b, SET_UP);
	post(b, ASLEEP_SOON);
	switch (call) {
	case READ: return ch_stream_read(s, buf, 10, CH_FOREVER, NULL);
	case TAKE: return ch_stream_take(s, CH_FOREVER, &msg, NULL);
	case POLL_READ: return ch_stream_poll(s, CH_FOREVER);
	case OPEN: return ch_stream_open(port, 0, CH_FOREVER, &s);
	case END_BUFFERED: return ch_stream_end(s, CH_FOREVER);
	default: return ch_stream_accept(port, CH_FOREVER, &s);
	}
}

static int sleeper(void *arg)
{
	(void)arg;
	b->value[RC] = writes() ? sleep_in_writer() : sleep_in_other();
	return 0;
}

static void wakes(enum call c, enum act a, ssize_t expected)
{
	memset(b, 0, sizeof(*b));
	call = c;
	act = a;
	pid_t p = child_start(partner, NULL), s = child_start(sleeper, NULL);

	await_post(b, ASLEEP_SOON);
	await_asleep(s);
	post(b, GO);
	if (a == DIE)
		cr_assert_eq(child_kill(p), -SIGKILL);
	cr_assert_eq(child_end(s), 0);
	cr_assert_eq(b->value[RC], expected, "call %d, act %d: %ld instead of %ld", c, a, (long)b->value[RC],
		     (long)expected);
	if (a != DIE)
		child_kill(p);
	if (a != DESTROY) {
		/* A complete conversation stays until somebody takes it. */
		struct ch_stream *left = NULL;
		if (c == END_BUFFERED && expected == 0) {
			cr_assert_geq(ch_pool_sweep(pool), 0); /* the partner's are not to be accepted instead */
			cr_assert_eq(ch_stream_accept(port, CH_FOREVER, &left), 0);
			ch_stream_close(left);
		}
		assert_all_free();
	}
}

Test(stream_proc, a_sleeping_reader_is_woken, .init = setup, .fini = teardown)
{
	static const struct {
		enum act act;
		int read, take;
	} cases[] = { { FEED, 1, 1 }, { END, 0, 0 }, { CANCEL, -ECANCELED, -ECANCELED },
		      { CLOSE, -ECANCELED, -ECANCELED }, { DIE, -EOWNERDEAD, -EOWNERDEAD } };

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		wakes(READ, cases[i].act, cases[i].read);
		wakes(TAKE, cases[i].act, cases[i].take);
		wakes(POLL_READ, cases[i].act, 0);
	}
}

Test(stream_proc, a_sleeping_writer_is_woken, .init = setup, .fini = teardown)
{
	static const struct {
		enum act act;
		int rc;
	} cases[] = { { CANCEL, -EPIPE }, { CLOSE, -EPIPE }, { DIE, -EOWNERDEAD } };

	wakes(WRITE, FEED, 3);
	wakes(COMMIT, FEED, 0);
	wakes(DRAIN, FEED, 0);
	wakes(POLL_WRITE, FEED, 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		wakes(WRITE, cases[i].act, cases[i].rc);
		wakes(COMMIT, cases[i].act, cases[i].rc);
		wakes(DRAIN, cases[i].act, cases[i].rc);
		wakes(POLL_WRITE, cases[i].act, 0);
	}
}

Test(stream_proc, who_waits_for_a_stream_or_a_conversation_is_woken, .init = setup, .fini = teardown)
{
	wakes(OPEN, CLOSE, 0);
	wakes(OPEN, DIE, 0);
	wakes(END_BUFFERED, CLOSE, 0);
	wakes(END_BUFFERED, DIE, 0);
	wakes(ACCEPT, FEED, 0);
}

Test(stream_proc, destroying_the_port_wakes_everybody)
{
	for (int c = READ; c <= ACCEPT; c++) {
		setup();
		wakes(c, DESTROY, c == POLL_READ || c == POLL_WRITE ? 0 : -ESTALE);
		teardown();
	}
}

/* ---- deaths */

static int writes_and_waits(void *arg)
{
	struct ch_stream *s = NULL;
	struct ch_message msg = CH_MESSAGE_INIT;
	void *block = NULL;

	(void)arg;
	EXPECT(ch_stream_open(port, 0, CH_FOREVER, &s) == 0);
	EXPECT(ch_stream_claim(s, 1000, CH_TRY, &msg) == 0);
	fill(msg.data, 1000, 9, 0);
	EXPECT(ch_stream_commit(s, &msg, 0, CH_TRY) == 0);
	EXPECT(ch_stream_write(s, "committed", 9, 1, CH_TRY) == 9 && ch_stream_flush(s, CH_TRY) == 0);
	EXPECT(ch_stream_write(s, "gathered", 8, 2, CH_TRY) == 8);
	EXPECT(ch_stream_claim(s, 3000, CH_TRY, &msg) == 0);
	EXPECT(ch_pool_alloc(pool, 5000, CH_TRY, &block) == 0);
	post(b, SET_UP);
	return wait_to_be_killed();
}

Test(stream_proc, a_dead_writers_committed_chunks_come_and_then_an_error, .init = setup, .fini = teardown)
{
	struct ch_stream *r = NULL;
	char buf[2000];
	pid_t w = child_start(writes_and_waits, NULL);

	cr_assert_eq(ch_stream_accept(port, CH_FOREVER, &r), 0);
	await_post(b, SET_UP);
	child_kill(w);
	cr_assert_eq(ch_stream_read(r, buf, sizeof(buf), CH_FOREVER, NULL), 1009);
	cr_assert(is_filled(buf, 1000, 9, 0) && !memcmp(buf + 1000, "committed", 9));
	for (int i = 0; i < 3; i++)
		cr_assert_eq(ch_stream_read(r, buf, sizeof(buf), CH_FOREVER, NULL), -EOWNERDEAD);
	ch_stream_close(r);
	assert_all_free();
}

Test(stream_proc, an_unfinished_conversation_of_the_dead_never_comes, .init = setup, .fini = teardown)
{
	struct ch_stream *r = NULL;
	pid_t w = child_start(writes_and_waits, NULL);

	await_post(b, SET_UP);
	child_kill(w);
	assert_all_free();
	cr_assert_eq(ch_stream_accept(port, CH_TRY, &r), -EAGAIN);
}

static int ends_and_dies(void *arg)
{
	struct ch_stream *s = NULL;
	char big[1000];

	(void)arg;
	memset(big, 'b', sizeof(big));
	EXPECT(ch_stream_open(port, b->value[0] ? CH_STREAM_BUFFERED : 0, CH_FOREVER, &s) == 0);
	EXPECT(ch_stream_write(s, big, 400, 0, CH_TRY) == 400);
	EXPECT(ch_stream_end(s, CH_TRY) == 0);
	if (b->value[1])
		ch_stream_close(s);
	post(b, SET_UP);
	return b->value[2] ? 0 : wait_to_be_killed(); /* a clean exit without a close is a death too */
}

Test(stream_proc, what_was_ended_outlives_its_writer, .init = setup, .fini = teardown)
{
	for (int mask = 0; mask < 8; mask++) {
		struct ch_stream *r = NULL;
		char buf[2000];

		memset(b, 0, sizeof(*b));
		for (int i = 0; i < 3; i++)
			b->value[i] = mask >> i & 1;
		pid_t w = child_start(ends_and_dies, NULL);
		await_post(b, SET_UP);
		if (b->value[2])
			child_end(w);
		else
			child_kill(w);
		cr_assert_geq(ch_pool_sweep(pool), 0);
		cr_assert_eq(ch_stream_accept(port, CH_TRY, &r), 0);
		cr_assert_eq(ch_stream_read(r, buf, sizeof(buf), CH_TRY, NULL), 400);
		cr_assert_eq(ch_stream_read(r, buf, sizeof(buf), CH_TRY, NULL), 0);
		ch_stream_close(r);
		assert_all_free();
	}
}

static int shows_and_waits(void *arg)
{
	struct ch_stream *s = NULL;
	struct ch_view *view = NULL;
	void *block = NULL;

	(void)arg;
	EXPECT(ch_pool_alloc(pool, 10000, CH_TRY, &block) == 0);
	fill(block, 10000, 1, 2);
	EXPECT(ch_view_create(pool, block, 10000, &view) == 0);
	EXPECT(ch_stream_open(port, 0, CH_FOREVER, &s) == 0);
	for (int i = 0; i < 2; i++)
		EXPECT(ch_stream_send_view(s, view, 0, CH_TRY) == 0);
	post(b, SET_UP);
	return wait_to_be_killed();
}

Test(stream_proc, a_view_in_hand_outlives_its_writer_and_one_on_the_way_does_not, .init = setup, .fini = teardown)
{
	for (int round = 0; round < 2; round++) {
		struct ch_stream *r = NULL;
		struct ch_message first = CH_MESSAGE_INIT, second = CH_MESSAGE_INIT;

		memset(b, 0, sizeof(*b));
		pid_t w = child_start(shows_and_waits, NULL);
		cr_assert_eq(ch_stream_accept(port, CH_FOREVER, &r), 0);
		await_post(b, SET_UP);
		if (round == 0)
			cr_assert_eq(ch_stream_take(r, CH_TRY, &first, NULL), 1);
		child_kill(w);
		cr_assert_geq(ch_pool_sweep(pool), 0);
		if (round == 0) {
			cr_assert(first.len == 10000 && is_filled(first.data, 10000, 1, 2));
			cr_assert_eq(ch_stream_take(r, CH_TRY, &second, NULL), 1, "the first one holds it too");
			ch_stream_release(r, &first);
			cr_assert(is_filled(second.data, 10000, 1, 2));
			ch_stream_release(r, &second);
		}
		cr_assert_eq(ch_stream_take(r, CH_FOREVER, &first, NULL), -EOWNERDEAD);
		cr_assert_eq(ch_stream_read(r, &first, 1, CH_FOREVER, NULL), -EOWNERDEAD);
		ch_stream_close(r);
		assert_all_free();
	}
}

static int accepts_and_waits(void *arg)
{
	struct ch_stream *s = NULL;
	struct ch_message msg = CH_MESSAGE_INIT;
	char c;

	(void)arg;
	EXPECT(ch_stream_accept(port, CH_FOREVER, &s) == 0);
	EXPECT(ch_stream_read(s, &c, 1, CH_FOREVER, NULL) == 1);
	EXPECT(ch_stream_take(s, CH_FOREVER, &msg, NULL) == 1);
	post(b, SET_UP);
	return wait_to_be_killed();
}

Test(stream_proc, a_writer_learns_of_its_readers_death, .init = setup, .fini = teardown)
{
	struct ch_stream *w = NULL;
	char big[1000] = { 0 };
	pid_t r = child_start(accepts_and_waits, NULL);

	cr_assert_eq(ch_stream_open(port, 0, CH_TRY, &w), 0);
	cr_assert_eq(ch_stream_write(w, big, 600, 0, CH_FOREVER), 600);
	await_post(b, SET_UP);
	child_kill(r);
	cr_assert_eq(ch_stream_drain(w, CH_FOREVER), -EOWNERDEAD);
	cr_assert_eq(ch_stream_write(w, big, 1, 0, CH_FOREVER), -EOWNERDEAD);
	cr_assert_eq(ch_stream_end(w, CH_FOREVER), -EOWNERDEAD);
	ch_stream_close(w);
	assert_all_free();
}

/* ---- a stream without a port */

static int joins_and_waits(void *arg)
{
	struct ch_stream *s = NULL;

	(void)arg;
	EXPECT(ch_stream_attach(&b->descr, &s) == 0);
	post(b, SET_UP);
	return wait_to_be_killed();
}

static int makes_and_waits(void *arg)
{
	struct ch_stream *s = NULL;

	(void)arg;
	EXPECT(ch_stream_create(pool, NULL, (uint32_t)b->value[0], &s) == 0);
	if (b->value[0] == CH_STREAM_WRITER)
		EXPECT(ch_stream_write(s, "abc", 3, 0, CH_TRY) == 3 && ch_stream_flush(s, CH_TRY) == 0);
	EXPECT(ch_stream_get_descr(s, &b->descr) == 0);
	post(b, GO);
	return wait_to_be_killed();
}

Test(stream_proc, a_pair_ends_when_its_last_party_has_died, .init = setup, .fini = teardown)
{
	for (int round = 0; round < 6; round++) {
		struct ch_stream *late = NULL;
		pid_t maker, joiner;

		memset(b, 0, sizeof(*b));
		b->value[0] = round % 2 ? CH_STREAM_READER : CH_STREAM_WRITER;
		maker = child_start(makes_and_waits, NULL);
		await_post(b, GO);
		if (round < 2) { /* nobody joins */
			child_kill(maker);
		} else {
			joiner = child_start(joins_and_waits, NULL);
			await_post(b, SET_UP);
			cr_assert_eq(ch_stream_attach(&b->descr, &late), -EPERM);
			child_kill(round < 4 ? maker : joiner);
			cr_assert_geq(ch_pool_sweep(pool), 0);
			child_kill(round < 4 ? joiner : maker);
		}
		cr_assert_geq(ch_pool_sweep(pool), 0);
		cr_assert_eq(ch_stream_attach(&b->descr, &late), -ESTALE);
		assert_all_free();
	}
}

/* ---- fork */

static int uses_what_is_its_parents(void *arg)
{
	struct ch_stream **s = arg, *own = NULL;
	struct ch_message msg = CH_MESSAGE_INIT;
	char c;

	EXPECT(ch_stream_write(s[0], "x", 1, 0, CH_TRY) == -EPERM);
	EXPECT(ch_stream_claim(s[0], 1000, CH_TRY, &msg) == -EPERM);
	EXPECT(ch_stream_end(s[0], CH_TRY) == -EPERM);
	EXPECT(ch_stream_cancel(s[0]) == -EPERM);
	EXPECT(ch_stream_poll(s[0], CH_TRY) == -EPERM);
	EXPECT(ch_stream_count(s[1]) == -EPERM);
	EXPECT(ch_stream_read(s[1], &c, 1, CH_TRY, NULL) == -EPERM);
	EXPECT(ch_stream_take(s[1], CH_TRY, &msg, NULL) == -EPERM);
	EXPECT(ch_stream_open(port, 0, CH_TRY, &own) == 0); /* the port is for everybody */
	ch_stream_close(s[0]);
	ch_stream_close(s[1]);
	EXPECT(ch_stream_write(own, "x", 1, 0, CH_TRY) == 1);
	EXPECT(ch_stream_end(own, CH_TRY) == 0);
	ch_stream_close(own);
	ch_stream_port_detach(port);
	return 0;
}

Test(stream_proc, a_stream_stays_with_the_process_that_opened_it, .init = setup, .fini = teardown)
{
	struct ch_stream *s[2] = { NULL, NULL };
	struct ch_message msg = CH_MESSAGE_INIT;
	char buf[10];

	cr_assert_eq(ch_stream_open(port, 0, CH_TRY, &s[0]), 0);
	cr_assert_eq(ch_stream_accept(port, CH_TRY, &s[1]), 0);
	cr_assert_eq(ch_stream_claim(s[0], 1000, CH_TRY, &msg), 0);
	cr_assert_eq(ch_stream_write(s[0], "abc", 3, 0, CH_TRY), 3);
	cr_assert_eq(child_end(child_start(uses_what_is_its_parents, s)), 0);
	cr_assert_eq(ch_stream_commit(s[0], &msg, 0, CH_TRY), 0);
	cr_assert_eq(ch_stream_end(s[0], CH_TRY), 0);
	cr_assert_eq(ch_stream_read(s[1], buf, 3, CH_TRY, NULL), 3);
	cr_assert(!memcmp(buf, "abc", 3));
	ch_stream_close(s[0]);
	ch_stream_close(s[1]);
	cr_assert_eq(ch_stream_accept(port, CH_TRY, &s[1]), 0, "the child's");
	cr_assert(ch_stream_read(s[1], buf, 10, CH_TRY, NULL) == 1 && *buf == 'x');
	ch_stream_close(s[1]);
	assert_all_free();
}

/* ---- cancelling from another thread */

static void *cancels(void *arg)
{
	await_post(b, ASLEEP_SOON);
	await_asleep(getpid());
	ch_stream_cancel(arg);
	return NULL;
}

static int cancelled_by_its_thread(void *arg)
{
	struct ch_stream *w = NULL, *r = NULL, *all[2];
	struct ch_message msg = CH_MESSAGE_INIT;
	pthread_t t;
	char c;

	(void)arg;
	EXPECT(ch_stream_open(port, 0, CH_TRY, &w) == 0 && ch_stream_accept(port, CH_TRY, &r) == 0);
	EXPECT(pthread_create(&t, NULL, cancels, b->value[0] == READ ? r : w) == 0);
	if (b->value[0] == READ) {
		post(b, ASLEEP_SOON);
		EXPECT(ch_stream_read(r, &c, 1, CH_FOREVER, NULL) == -ECANCELED);
	} else {
		for (int i = 0; i < 2; i++)
			EXPECT(ch_stream_claim(w, 1, CH_TRY, &msg) == 0 && ch_stream_commit(w, &msg, 0, CH_TRY) == 0);
		EXPECT(ch_stream_claim(w, 1, CH_TRY, &msg) == 0);
		post(b, ASLEEP_SOON);
		EXPECT(ch_stream_commit(w, &msg, 0, CH_FOREVER) == -ECANCELED);
	}
	pthread_join(t, NULL);
	ch_stream_close(w);
	ch_stream_close(r);
	for (int i = 0; i < 2; i++)
		EXPECT(ch_stream_open(port, 0, CH_TRY, &all[i]) == 0);
	for (int i = 0; i < 2; i++)
		ch_stream_close(all[i]);
	return 0;
}

Test(stream_proc, a_thread_can_cancel_anothers_wait, .init = setup, .fini = teardown)
{
	for (int i = 0; i < 2; i++) {
		memset(b, 0, sizeof(*b));
		b->value[0] = i ? READ : WRITE;
		cr_assert_eq(child_end(child_start(cancelled_by_its_thread, NULL)), 0);
		assert_all_free();
	}
}

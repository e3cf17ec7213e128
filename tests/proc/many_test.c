/* SPDX-License-Identifier: Apache-2.0 */
/* Several processes at one channel: everything exactly once, in each sender's order; crowds that come and go. */
#include "../support/support.h"
#include <criterion/criterion.h>

TestSuite(many, .timeout = WATCHDOG_S);

#define MAX_SENDERS 8
#define MAX_EACH    20000

struct message {
	uint32_t who, seq;
};

/* In shared memory: how often each message came. */
struct tally {
	struct ch_descr descr;
	int nr_senders, nr_each, attaches; /* attaches: a handle of its own for each child */
	int next_sender, senders_left;
	uint8_t count[MAX_SENDERS][MAX_EACH];
};

static struct tally *t;
static struct ch_pool *pool;
static struct ch_channel *ch;

static size_t length_of(uint32_t who, uint32_t seq)
{
	uint32_t x = (who + 3) * 2654435761u + seq * 40503u;

	return x % 8 ? 8 + x / 8 % 41 : 49 + x / 8 % 5000;
}

static struct ch_channel *own_handle(void)
{
	struct ch_channel *own = NULL;

	if (!t->attaches)
		return ch;
	EXPECT(ch_channel_attach(&t->descr, &own) == 0);
	return own;
}

static int sends(void *arg)
{
	uint32_t who = (uint32_t)__atomic_fetch_add(&t->next_sender, 1, __ATOMIC_SEQ_CST);
	struct ch_channel *own = own_handle();
	unsigned char buf[8192];

	(void)arg;
	for (uint32_t seq = 0; seq < (uint32_t)t->nr_each; seq++) {
		struct message m = { who, seq };
		size_t len = length_of(who, seq);
		struct ch_message msg = CH_MESSAGE_INIT;

		fill(buf, len, who, seq);
		memcpy(buf, &m, sizeof(m));
		if (seq % 3) {
			EXPECT(ch_channel_send(own, buf, len, CH_FOREVER) == 0);
			continue;
		}
		EXPECT(ch_channel_claim(own, len, CH_FOREVER, &msg) == 0);
		memcpy(msg.data, buf, len);
		EXPECT(ch_channel_commit(own, &msg, CH_FOREVER) == 0);
	}
	if (__atomic_sub_fetch(&t->senders_left, 1, __ATOMIC_SEQ_CST) == 0)
		EXPECT(ch_channel_close(own) == 0);
	ch_channel_detach(own);
	return 0;
}

static void account(const unsigned char *data, size_t len, int64_t *last)
{
	struct message m;

	EXPECT(len >= sizeof(m));
	memcpy(&m, data, sizeof(m));
	EXPECT(m.who < (uint32_t)t->nr_senders && m.seq < (uint32_t)t->nr_each);
	EXPECT(len == length_of(m.who, m.seq));
	for (size_t i = sizeof(m); i < len; i++)
		EXPECT(data[i] == pattern(m.who, m.seq, i));
	EXPECT((int64_t)m.seq > last[m.who]);
	last[m.who] = m.seq;
	__atomic_add_fetch(&t->count[m.who][m.seq], 1, __ATOMIC_SEQ_CST);
}

static int receives(void *arg)
{
	struct ch_channel *own = own_handle();
	int64_t last[MAX_SENDERS];
	unsigned char buf[8192];

	(void)arg;
	memset(last, 0xff, sizeof(last));
	for (int i = 0;; i++) {
		struct ch_message msg = CH_MESSAGE_INIT;
		ssize_t n;

		if (i % 2) {
			n = ch_channel_recv(own, buf, sizeof(buf), CH_FOREVER);
			if (n >= 0)
				account(buf, (size_t)n, last);
		} else {
			n = ch_channel_take(own, CH_FOREVER, &msg);
			if (n == 0)
				account(msg.data, msg.len, last);
			ch_channel_release(own, &msg);
		}
		if (n == -EPIPE)
			break;
		EXPECT(n >= 0);
	}
	ch_channel_detach(own);
	return 0;
}

static void exchange(int nr_senders, int nr_receivers, int nr_each, uint32_t capacity, int attaches)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_pool_stats before;
	pid_t pid[16];
	int nr = 0;

	t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(t, MAP_FAILED);
	t->nr_senders = t->senders_left = nr_senders;
	t->nr_each = nr_each;
	t->attaches = attaches;
	pool = pool_of(1 << 20);
	attr.capacity = capacity;
	cr_assert_eq(ch_channel_create(pool, &attr, &ch), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_get_descr(ch, &t->descr), 0);
	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
	for (int i = 0; i < nr_receivers; i++)
		pid[nr++] = child_start(receives, NULL);
	for (int i = 0; i < nr_senders; i++)
		pid[nr++] = child_start(sends, NULL);
	for (int i = 0; i < nr; i++)
		cr_assert_eq(child_end(pid[i]), 0);
	for (int who = 0; who < nr_senders; who++)
		for (int seq = 0; seq < nr_each; seq++)
			cr_assert_eq(t->count[who][seq], 1, "message %d of %d came %d times", seq, who, t->count[who][seq]);
	cr_assert(pool_is_as_before(pool, &before));
	ch_pool_destroy(pool);
	munmap(t, sizeof(*t));
}

Test(many, one_to_one)
{
	exchange(1, 1, 20000, 4, 1);
	exchange(1, 1, 20000, 1024, 0);
}

Test(many, many_to_one)
{
	exchange(4, 1, 5000, 2, 1);
	exchange(8, 1, 2500, 64, 0);
}

Test(many, one_to_many)
{
	exchange(1, 4, 20000, 4, 0);
	exchange(1, 8, 20000, 64, 1);
}

Test(many, many_to_many)
{
	exchange(3, 3, 5000, 2, 0);
	exchange(4, 4, 5000, 8, 1);
	exchange(8, 8, 2500, 64, 1);
}

static int comes_and_goes(void *arg)
{
	struct board *b = arg;

	await_post(b, 0);
	for (int i = 0; i < 10; i++) {
		struct ch_channel *own = NULL;
		char buf[300];

		EXPECT(ch_channel_attach(&b->descr, &own) == 0);
		EXPECT(ch_channel_send(own, buf, sizeof(buf), CH_FOREVER) == 0);
		EXPECT(ch_channel_recv(own, buf, sizeof(buf), CH_FOREVER) == sizeof(buf));
		if (i == 9 && getpid() % 2)
			_exit(0); /* without a detach */
		ch_channel_detach(own);
	}
	return 0;
}

Test(many, a_crowd_attaches_and_leaves_at_the_same_time)
{
	enum { NR = 64 };
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct board *b = board_new();
	struct ch_pool_stats before, st;
	pid_t pid[NR];

	for (int i = 0; i < NR; i++)
		pid[i] = child_start(comes_and_goes, b);
	pool = pool_of(1 << 20);
	attr.capacity = NR; /* nobody waits for room that only he could make */
	cr_assert_eq(ch_channel_create(pool, &attr, &ch), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_get_descr(ch, &b->descr), 0);
	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
	post(b, 0);
	for (int i = 0; i < NR; i++)
		cr_assert_eq(child_end(pid[i]), 0);
	cr_assert(pool_is_as_before(pool, &before));
	cr_assert_eq(ch_pool_get_stats(pool, &st), 0);
	cr_assert_eq(st.nr_peers, 1);
	ch_pool_destroy(pool);
}

static int exits_without_detaching(void *arg)
{
	struct board *b = arg;
	struct ch_message msg = CH_MESSAGE_INIT, claimed = CH_MESSAGE_INIT;
	struct ch_channel *own = NULL;
	void *p;

	EXPECT(ch_channel_attach(&b->descr, &own) == 0);
	EXPECT(ch_pool_alloc(ch_channel_get_pool(own), 10000, CH_TRY, &p) == 0);
	EXPECT(ch_channel_claim(own, 10000, CH_TRY, &claimed) == 0);
	EXPECT(ch_channel_take(own, CH_TRY, &msg) == 0);
	EXPECT(ch_channel_send(own, "last words", 10, CH_TRY) == 0);
	return 0;
}

Test(many, what_a_process_held_that_just_exits_returns)
{
	struct board *b = board_new();
	struct ch_pool_stats before, st;
	char buf[5000] = { 0 };

	pool = pool_of(1 << 20);
	cr_assert_eq(ch_channel_create(pool, NULL, &ch), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_get_descr(ch, &b->descr), 0);
	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
	cr_assert_eq(ch_channel_send(ch, buf, sizeof(buf), CH_TRY), 0);
	cr_assert_eq(child_end(child_start(exits_without_detaching, b)), 0);
	cr_assert_eq(ch_channel_recv(ch, buf, sizeof(buf), CH_FOREVER), 10);
	cr_assert_eq(ch_channel_recv(ch, buf, sizeof(buf), CH_TRY), -EAGAIN);
	cr_assert(pool_is_as_before(pool, &before));
	cr_assert_eq(ch_pool_get_stats(pool, &st), 0);
	cr_assert_eq(st.nr_peers, 1);
	ch_pool_destroy(pool);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* channel.h: messages written and read where they lie: claim, commit, abort, take, release. */
#include "../support/support.h"
#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(place, .timeout = WATCHDOG_S);

static struct ch_pool *pool;
static struct ch_channel *ch, *to; /* of capacity 4 and 2, in one pool */
static struct ch_pool_stats before;

static struct ch_channel *create(struct ch_pool *home, uint32_t capacity, uint32_t inline_max)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_channel *out = NULL;

	attr.capacity = capacity;
	attr.inline_max = inline_max;
	cr_assert_eq(ch_channel_create(home, &attr, &out), 0, "%s", ch_errmsg());
	return out;
}

static void setup(void)
{
	pool = pool_of(8 << 20);
	ch = create(pool, 4, 0);
	to = create(pool, 2, 0);
	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
}

static void teardown(void)
{
	ch_pool_destroy(pool);
}

static const size_t lengths[] = { 0, 1, 8, 48, 49, 64, 65, 4096, 1 << 20 };
#define NR_LENGTHS (sizeof(lengths) / sizeof(*lengths))

static void claim(struct ch_message *msg, size_t len, uint64_t seq)
{
	const struct ch_message fresh = CH_MESSAGE_INIT;

	*msg = fresh;
	cr_assert_eq(ch_channel_claim(ch, len, CH_TRY, msg), 0, "%zu: %s", len, ch_errmsg());
	cr_assert_eq(msg->len, len);
	cr_assert_not_null(msg->data);
	cr_assert_eq((uintptr_t)msg->data % (len > 48 ? 64 : 8), 0, "%zu bytes at %p", len, msg->data);
	fill(msg->data, len, 1, seq);
}

static void take(struct ch_channel *from, struct ch_message *msg, size_t len, uint64_t seq)
{
	const struct ch_message fresh = CH_MESSAGE_INIT;

	*msg = fresh;
	cr_assert_eq(ch_channel_take(from, CH_TRY, msg), 0, "%zu: %s", len, ch_errmsg());
	cr_assert_eq(msg->len, len);
	cr_assert_not_null(msg->data);
	cr_assert_eq((uintptr_t)msg->data % (len > 48 ? 64 : 8), 0, "%zu bytes at %p", len, msg->data);
	cr_assert(is_filled(msg->data, len, 1, seq));
}

Test(place, claimed_is_sent_at_commit_and_taken_back_at_release, .init = setup, .fini = teardown)
{
	struct ch_message out, in;

	for (size_t i = 0; i < NR_LENGTHS; i++) {
		claim(&out, lengths[i], i);
		cr_assert_eq(ch_channel_count(ch), 0, "not before commit");
		cr_assert_eq(ch_channel_commit(ch, &out, CH_TRY), 0, "%s", ch_errmsg());
		cr_assert_null(out.data, "empty after commit");
		cr_assert_eq(ch_channel_count(ch), 1);
		take(ch, &in, lengths[i], i);
		cr_assert_eq(ch_channel_count(ch), 0);
		ch_channel_release(ch, &in);
		cr_assert_null(in.data, "empty after release");
		cr_assert(pool_is_as_before(pool, &before), "%zu bytes", lengths[i]);
	}
}

Test(place, copying_and_in_place_mix, .init = setup, .fini = teardown)
{
	unsigned char *buf = malloc(1 << 20);
	struct ch_message msg;

	for (size_t i = 0; i < NR_LENGTHS; i++) {
		claim(&msg, lengths[i], i);
		cr_assert_eq(ch_channel_commit(ch, &msg, CH_TRY), 0);
		cr_assert_eq(ch_channel_recv(ch, buf, 1 << 20, CH_TRY), (ssize_t)lengths[i]);
		cr_assert(is_filled(buf, lengths[i], 1, i));
		cr_assert_eq(ch_channel_send(ch, buf, lengths[i], CH_TRY), 0);
		take(ch, &msg, lengths[i], i);
		ch_channel_release(ch, &msg);
	}
	free(buf);
	cr_assert(pool_is_as_before(pool, &before));
}

Test(place, a_block_message_is_read_where_it_was_written, .init = setup, .fini = teardown)
{
	struct ch_message out, in;
	void *where;

	claim(&out, 1 << 20, 3);
	where = out.data;
	cr_assert_eq(ch_channel_commit(ch, &out, CH_TRY), 0);
	take(ch, &in, 1 << 20, 3);
	cr_assert_eq(in.data, where, "no copy");
	ch_channel_release(ch, &in);
}

Test(place, abort_gives_the_room_back, .init = setup, .fini = teardown)
{
	struct ch_message msg;

	for (size_t i = 0; i < NR_LENGTHS; i++) {
		claim(&msg, lengths[i], i);
		ch_channel_abort(ch, &msg);
		cr_assert_null(msg.data, "empty after abort");
		ch_channel_abort(ch, &msg);
		ch_channel_release(ch, &msg);
		cr_assert_eq(ch_channel_count(ch), 0);
	}
	ch_channel_abort(ch, NULL);
	ch_channel_release(ch, NULL);
	cr_assert(pool_is_as_before(pool, &before));
}

Test(place, fewer_bytes_may_be_committed, .init = setup, .fini = teardown)
{
	const size_t shrunk[] = { 0, 1, 48, 49, 64, 65, 4000, 5000 };
	struct ch_message out, in;

	for (size_t i = 0; i < sizeof(shrunk) / sizeof(*shrunk); i++) {
		claim(&out, 5000, i);
		out.len = shrunk[i];
		cr_assert_eq(ch_channel_commit(ch, &out, CH_TRY), 0, "%s", ch_errmsg());
		cr_assert_eq(ch_channel_take(ch, CH_TRY, &in), 0, "%s", ch_errmsg());
		cr_assert_eq(in.len, shrunk[i]);
		cr_assert(is_filled(in.data, in.len, 1, i));
		ch_channel_release(ch, &in);
	}
	claim(&out, 40, 1);
	out.len = 7;
	cr_assert_eq(ch_channel_commit(ch, &out, CH_TRY), 0);
	take(ch, &in, 7, 1);
	ch_channel_release(ch, &in);
	cr_assert(pool_is_as_before(pool, &before));
}

Test(place, grown_length_is_refused_and_the_message_kept, .init = setup, .fini = teardown)
{
	const size_t len[] = { 0, 8, 48, 49, 4096, 100000 };
	struct ch_message msg;

	for (size_t i = 0; i < sizeof(len) / sizeof(*len); i++) {
		claim(&msg, len[i], i);
		msg.len = 1 << 22;
		cr_assert_eq(ch_channel_commit(ch, &msg, CH_TRY), -EMSGSIZE, "%zu", len[i]);
		msg.len = SIZE_MAX;
		cr_assert_eq(ch_channel_commit(ch, &msg, CH_TRY), -EMSGSIZE, "%zu", len[i]);
		cr_assert_not_null(msg.data);
		msg.len = len[i];
		cr_assert_eq(ch_channel_commit(ch, &msg, CH_TRY), 0, "%s", ch_errmsg());
		take(ch, &msg, len[i], i);
		ch_channel_release(ch, &msg);
	}
	cr_assert(pool_is_as_before(pool, &before));
}

Test(place, commit_into_a_full_channel_keeps_the_message, .init = setup, .fini = teardown)
{
	struct ch_message msg[5], in;
	int64_t t;

	for (uint64_t i = 0; i < 5; i++) /* one more than the channel holds: claims do not count */
		claim(&msg[i], i % 2 ? 20 : 2000, i);
	for (uint64_t i = 0; i < 4; i++)
		cr_assert_eq(ch_channel_commit(ch, &msg[i], CH_TRY), 0);
	cr_assert_eq(ch_channel_commit(ch, &msg[4], CH_TRY), -EAGAIN);
	t = now_ns();
	cr_assert_eq(ch_channel_commit(ch, &msg[4], 20 * MS), -ETIMEDOUT);
	cr_assert_geq(now_ns() - t, 20 * MS);
	cr_assert(is_filled(msg[4].data, msg[4].len, 1, 4), "still the caller's");
	take(ch, &in, 2000, 0);
	ch_channel_release(ch, &in);
	cr_assert_eq(ch_channel_commit(ch, &msg[4], CH_TRY), 0);
	for (uint64_t i = 1; i < 5; i++) {
		take(ch, &in, i % 2 ? 20 : 2000, i);
		ch_channel_release(ch, &in);
	}
	cr_assert(pool_is_as_before(pool, &before));
}

Test(place, messages_come_in_the_order_of_commits, .init = setup, .fini = teardown)
{
	struct ch_message a, b, in;

	claim(&a, 30, 1);
	claim(&b, 3000, 2);
	cr_assert_eq(ch_channel_commit(ch, &b, CH_TRY), 0);
	cr_assert_eq(ch_channel_commit(ch, &a, CH_TRY), 0);
	take(ch, &in, 3000, 2);
	ch_channel_release(ch, &in);
	take(ch, &in, 30, 1);
	ch_channel_release(ch, &in);
}

Test(place, a_taken_message_moves_on_without_a_copy, .init = setup, .fini = teardown)
{
	struct ch_message msg, in;

	for (size_t i = 0; i < NR_LENGTHS; i++) {
		void *where;

		claim(&msg, lengths[i], i);
		cr_assert_eq(ch_channel_commit(ch, &msg, CH_TRY), 0);
		take(ch, &msg, lengths[i], i);
		where = msg.data;
		cr_assert_eq(ch_channel_commit(to, &msg, CH_TRY), 0, "%s", ch_errmsg());
		cr_assert_null(msg.data);
		take(to, &in, lengths[i], i);
		if (lengths[i] > 64)
			cr_assert_eq(in.data, where, "%zu bytes were copied", lengths[i]);
		cr_assert_eq(ch_channel_commit(ch, &in, CH_TRY), 0, "and back: %s", ch_errmsg());
		take(ch, &in, lengths[i], i);
		ch_channel_release(ch, &in);
	}
	cr_assert(pool_is_as_before(pool, &before));
}

Test(place, a_taken_message_may_be_shortened_and_moved_on, .init = setup, .fini = teardown)
{
	struct ch_message msg, in;

	claim(&msg, 10000, 1);
	cr_assert_eq(ch_channel_commit(ch, &msg, CH_TRY), 0);
	take(ch, &msg, 10000, 1);
	msg.len = 20;
	cr_assert_eq(ch_channel_commit(to, &msg, CH_TRY), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_take(to, CH_TRY, &in), 0);
	cr_assert_eq(in.len, 20);
	cr_assert(is_filled(in.data, 20, 1, 1));
	ch_channel_release(to, &in);
	cr_assert(pool_is_as_before(pool, &before));
}

Test(place, a_message_of_another_pool_is_refused, .init = setup, .fini = teardown)
{
	struct ch_pool *far = pool_of(1 << 20);
	struct ch_channel *there = create(far, 4, 0);
	struct ch_message msg;

	claim(&msg, 1000, 1);
	cr_assert_lt(ch_channel_commit(there, &msg, CH_TRY), 0);
	cr_assert_not_null(msg.data, "on failure the message is still the caller's");
	cr_assert_eq(ch_channel_count(there), 0);
	cr_assert_eq(ch_channel_commit(ch, &msg, CH_TRY), 0, "%s", ch_errmsg());
	ch_pool_destroy(far);
}

Test(place, a_taken_message_outlives_others_and_may_be_written, .init = setup, .fini = teardown)
{
	struct ch_message first, m;

	claim(&m, 45, 0);
	cr_assert_eq(ch_channel_commit(ch, &m, CH_TRY), 0);
	take(ch, &first, 45, 0);
	for (uint64_t i = 1; i < 100; i++) {
		claim(&m, 45, i);
		cr_assert_eq(ch_channel_commit(ch, &m, CH_TRY), 0);
		take(ch, &m, 45, i);
		memset(m.data, 0xff, 45);
		ch_channel_release(ch, &m);
	}
	cr_assert(is_filled(first.data, 45, 1, 0));
	ch_channel_release(ch, &first);
	cr_assert(pool_is_as_before(pool, &before));
}

Test(place, long_inline_messages_are_taken_in_memory_of_their_own)
{
	struct ch_message msg = CH_MESSAGE_INIT, more = CH_MESSAGE_INIT;
	unsigned char buf[1000];
	void *p;

	pool = pool_of(1 << 20);
	ch = create(pool, 4, 1000);
	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
	fill(buf, 1000, 1, 1);
	cr_assert_eq(ch_channel_send(ch, buf, 1000, CH_TRY), 0);
	cr_assert_eq(ch_channel_send(ch, buf, 64, CH_TRY), 0);
	cr_assert_eq(ch_channel_take(ch, CH_TRY, &msg), 0, "%s", ch_errmsg());
	cr_assert(msg.len == 1000 && is_filled(msg.data, 1000, 1, 1));
	ch_channel_release(ch, &msg);
	cr_assert_eq(ch_channel_send(ch, buf, 1000, CH_TRY), 0);
	while (ch_pool_alloc(pool, 64, CH_TRY, &p) == 0)
		;
	cr_assert_eq(ch_channel_take(ch, CH_TRY, &msg), 0, "64 bytes need no memory: %s", ch_errmsg());
	cr_assert(msg.len == 64 && is_filled(msg.data, 64, 1, 1));
	cr_assert_eq(ch_channel_take(ch, CH_TRY, &more), -ENOSPC);
	cr_assert_eq(ch_channel_count(ch), 1, "the message stays");
	cr_assert_eq(ch_channel_recv(ch, buf, 1000, CH_TRY), 1000);
	ch_channel_release(ch, &msg);
	ch_pool_destroy(pool);
}

static void *release_in_a_thread(void *msg)
{
	ch_channel_release(ch, msg);
	return msg;
}

Test(place, any_thread_may_release, .init = setup, .fini = teardown)
{
	struct ch_message msg;
	pthread_t t;

	claim(&msg, 5000, 1);
	cr_assert_eq(ch_channel_commit(ch, &msg, CH_TRY), 0);
	take(ch, &msg, 5000, 1);
	cr_assert_eq(pthread_create(&t, NULL, release_in_a_thread, &msg), 0);
	pthread_join(t, NULL);
	cr_assert_null(msg.data);
	cr_assert(pool_is_as_before(pool, &before));
}

Test(place, null_is_invalid, .init = setup, .fini = teardown)
{
	struct ch_message msg = CH_MESSAGE_INIT;

	cr_assert_eq(ch_channel_claim(NULL, 8, CH_TRY, &msg), -EINVAL);
	cr_assert_eq(ch_channel_claim(ch, 8, CH_TRY, NULL), -EINVAL);
	cr_assert_eq(ch_channel_take(NULL, CH_TRY, &msg), -EINVAL);
	cr_assert_eq(ch_channel_take(ch, CH_TRY, NULL), -EINVAL);
	cr_assert_eq(ch_channel_commit(ch, NULL, CH_TRY), -EINVAL);
	cr_assert_eq(ch_channel_commit(ch, &msg, CH_TRY), -EINVAL, "an empty message cannot be committed");
	claim(&msg, 8, 1);
	cr_assert_eq(ch_channel_commit(NULL, &msg, CH_TRY), -EINVAL);
	ch_channel_abort(ch, &msg);
}

/* The process that holds the memory is killed: it comes back, and what it had committed arrives. */
static int holds_messages(void *arg)
{
	struct board *b = arg;
	struct ch_message msg[3];

	EXPECT(ch_channel_take(ch, CH_TRY, &msg[0]) == 0);
	EXPECT(ch_channel_claim(ch, 100000, CH_TRY, &msg[1]) == 0);
	EXPECT(ch_channel_claim(ch, 30000, CH_TRY, &msg[2]) == 0);
	fill(msg[2].data, 30000, 1, 9);
	EXPECT(ch_channel_commit(ch, &msg[2], CH_TRY) == 0);
	post(b, 0);
	return wait_to_be_killed();
}

Test(place, what_a_killed_holder_had_returns, .init = setup, .fini = teardown)
{
	struct board *b = board_new();
	struct ch_message msg;
	pid_t pid;

	claim(&msg, 50000, 5);
	cr_assert_eq(ch_channel_commit(ch, &msg, CH_TRY), 0);
	pid = child_start(holds_messages, b);
	await_post(b, 0);
	child_kill(pid);
	take(ch, &msg, 30000, 9); /* the one it had taken was delivered: it is gone, by contract */
	ch_channel_release(ch, &msg);
	cr_assert_eq(ch_channel_take(ch, CH_TRY, &msg), -EAGAIN);
	cr_assert(pool_is_as_before(pool, &before));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* channel.h: many messages in one call. */
#include "../support/support.h"
#include <criterion/criterion.h>

TestSuite(batch, .timeout = WATCHDOG_S);

#define MANY 100

static struct ch_pool *pool;
static struct ch_pool_stats bare;
static const uint32_t kinds[] = {0, CH_CHANNEL_SPSC, CH_CHANNEL_ACKNOWLEDGED};

static struct ch_channel *create(uint32_t capacity, uint32_t flags)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_channel *ch = NULL;

	attr.capacity = capacity;
	attr.flags = flags;
	cr_assert_eq(ch_channel_create(pool, &attr, &ch), 0, "%s", ch_errmsg());
	return ch;
}

static void setup(void)
{
	pool = pool_of(8 << 20);
	cr_assert_eq(ch_pool_get_stats(pool, &bare), 0);
}

static void teardown(void)
{
	ch_pool_destroy(pool);
}

static size_t length_of(uint64_t nr)
{
	return nr % 7 == 3 ? 100 + nr % 3000 : nr % 49; /* some need a block */
}

static unsigned char out_bytes[MANY][4000], in_bytes[MANY][4000];
static struct ch_send_item out[MANY];
static struct ch_recv_item in[MANY];

static void write_items(uint64_t first, size_t nr)
{
	for (size_t i = 0; i < nr; i++) {
		out[i].buf = out_bytes[i];
		out[i].len = length_of(first + i);
		fill(out_bytes[i], out[i].len, 5, first + i);
	}
}

static void clear_items(size_t cap)
{
	for (size_t i = 0; i < MANY; i++)
		in[i] = (struct ch_recv_item){in_bytes[i], cap, 0};
}

static void check_items(uint64_t first, ssize_t nr)
{
	for (ssize_t i = 0; i < nr; i++) {
		cr_assert_eq(in[i].len, length_of(first + (uint64_t)i), "message %llu",
			     (unsigned long long)first + (uint64_t)i);
		cr_assert(is_filled(in_bytes[i], in[i].len, 5, first + (uint64_t)i));
	}
}

Test(batch, what_is_sent_in_batches_arrives_in_batches, .init = setup, .fini = teardown)
{
	uint64_t seed = test_seed();

	for (size_t k = 0; k < 3; k++) {
		struct ch_channel *ch = create(64, kinds[k]);
		uint64_t sent = 0, got = 0;

		while (got < 5000) {
			const size_t nr = rnd(&seed) % MANY;
			ssize_t n;

			write_items(sent, nr);
			n = ch_channel_send_batch(ch, out, nr, CH_TRY);
			cr_assert(n == -EAGAIN ? sent - got == 64 : n >= 0 && n <= (ssize_t)nr, "%zd", n);
			sent += n > 0 ? (uint64_t)n : 0;
			cr_assert(n == (ssize_t)nr || sent - got == 64, "all, or it is full");
			clear_items(4000);
			n = ch_channel_recv_batch(ch, in, 1 + rnd(&seed) % MANY, CH_TRY);
			cr_assert(n == -EAGAIN ? sent == got : n > 0, "%zd", n);
			check_items(got, n);
			got += n > 0 ? (uint64_t)n : 0;
		}
		ch_channel_destroy(ch);
	}
	cr_assert(pool_is_as_before(pool, &bare));
}

Test(batch, mixes_with_single_messages, .init = setup, .fini = teardown)
{
	for (size_t k = 0; k < 3; k++) {
		struct ch_channel *ch = create(8, kinds[k]);

		write_items(0, 3);
		cr_assert_eq(ch_channel_send_batch(ch, out, 3, CH_TRY), 3);
		cr_assert_eq(ch_channel_recv(ch, in_bytes[0], 4000, CH_TRY), (ssize_t)length_of(0));
		write_items(3, 1);
		cr_assert_eq(ch_channel_send(ch, out[0].buf, out[0].len, CH_TRY), 0);
		clear_items(4000);
		cr_assert_eq(ch_channel_recv_batch(ch, in, MANY, CH_TRY), 3);
		check_items(1, 3);
		cr_assert_eq(ch_channel_recv_batch(ch, in, MANY, CH_TRY), -EAGAIN);
		ch_channel_destroy(ch);
	}
}

Test(batch, one_that_does_not_fit_ends_it_and_stays, .init = setup, .fini = teardown)
{
	for (size_t k = 0; k < 3; k++) {
		struct ch_channel *ch = create(8, kinds[k]);
		static const char bytes[300];
		const struct ch_send_item items[] = {{bytes, 8}, {bytes, 300}, {bytes, 8}};

		cr_assert_eq(ch_channel_send_batch(ch, items, 3, CH_TRY), 3);
		clear_items(100);
		cr_assert_eq(ch_channel_recv_batch(ch, in, MANY, CH_TRY), 1);
		cr_assert_eq(ch_channel_recv_batch(ch, in, MANY, CH_FOREVER), -ENOBUFS);
		clear_items(300);
		cr_assert_eq(ch_channel_recv_batch(ch, in, MANY, CH_TRY), 2);
		ch_channel_destroy(ch);
	}
}

Test(batch, nothing_closed_and_nonsense, .init = setup, .fini = teardown)
{
	struct ch_channel *ch = create(4, 0);
	struct ch_send_item null_item = {NULL, 1}, empty = {NULL, 0};
	struct ch_recv_item null_room = {NULL, 1, 0};

	cr_assert_eq(ch_channel_send_batch(ch, NULL, 0, CH_TRY), 0);
	cr_assert_eq(ch_channel_recv_batch(ch, NULL, 0, CH_TRY), 0);
	cr_assert_eq(ch_channel_send_batch(ch, NULL, 1, CH_TRY), -EINVAL);
	cr_assert_eq(ch_channel_send_batch(ch, &null_item, 1, CH_TRY), -EINVAL);
	cr_assert_eq(ch_channel_send_batch(NULL, &empty, 1, CH_TRY), -EINVAL);
	cr_assert_eq(ch_channel_recv_batch(NULL, in, 1, CH_TRY), -EINVAL);
	cr_assert_eq(ch_channel_recv_batch(ch, in, 1, 2 * MS), -ETIMEDOUT);
	cr_assert_eq(ch_channel_send_batch(ch, &empty, 1, CH_TRY), 1, "an empty message is a message");
	cr_assert_eq(ch_channel_recv_batch(ch, &null_room, 1, CH_TRY), -EINVAL);
	null_room.cap = 0;
	cr_assert_eq(ch_channel_recv_batch(ch, &null_room, 1, CH_TRY), 1);
	cr_assert_eq(ch_channel_send_batch(ch, &empty, 1, CH_TRY), 1);
	cr_assert_eq(ch_channel_close(ch), 0);
	cr_assert_eq(ch_channel_send_batch(ch, &empty, 1, CH_FOREVER), -EPIPE);
	clear_items(10);
	cr_assert_eq(ch_channel_recv_batch(ch, in, MANY, CH_FOREVER), 1);
	cr_assert_eq(ch_channel_recv_batch(ch, in, MANY, CH_FOREVER), -EPIPE);
}

Test(batch, urgent_messages_come_first, .init = setup, .fini = teardown)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_send_attr urgent = CH_SEND_ATTR_INIT;
	struct ch_channel *ch = NULL;

	attr.urgent_capacity = 4;
	cr_assert_eq(ch_channel_create(pool, &attr, &ch), 0);
	urgent.flags = CH_MESSAGE_URGENT;
	write_items(0, 2);
	cr_assert_eq(ch_channel_send_batch(ch, out, 2, CH_TRY), 2);
	cr_assert_eq(ch_channel_send_attr(ch, "now", 3, &urgent, CH_TRY), 0);
	clear_items(4000);
	cr_assert_eq(ch_channel_recv_batch(ch, in, MANY, CH_TRY), 3);
	cr_assert_eq(in[0].len, 3);
	cr_assert_eq(memcmp(in_bytes[0], "now", 3), 0);
	cr_assert_eq(in[2].len, length_of(1));
}

/* Two senders of batches, two receivers of batches, each message once and in its sender's order. */
static struct board *board;
static struct ch_channel *shared_ch;

static int send_numbers(void *arg)
{
	const uint64_t who = *(uint64_t *)arg;
	uint64_t numbers[40], nr = 0;
	struct ch_send_item items[40];

	while (nr < 20000) {
		const size_t n = 1 + (size_t)(nr * 7 + who) % 40;

		for (size_t i = 0; i < n; i++) {
			numbers[i] = who << 32 | (nr + i);
			items[i] = (struct ch_send_item){&numbers[i], 8};
		}
		EXPECT(ch_channel_send_batch(shared_ch, items, n, CH_FOREVER) == (ssize_t)n);
		nr += n;
	}
	board->value[who] = (int64_t)nr;
	return 0;
}

static int recv_numbers(void *arg)
{
	const uint64_t me = *(uint64_t *)arg;
	uint64_t numbers[33], seen[2] = {0, 0};
	struct ch_recv_item items[33];
	ssize_t n;

	for (size_t i = 0; i < 33; i++)
		items[i] = (struct ch_recv_item){&numbers[i], 8, 0};
	while ((n = ch_channel_recv_batch(shared_ch, items, 33, CH_FOREVER)) > 0)
		for (ssize_t i = 0; i < n; i++) {
			const uint64_t who = numbers[i] >> 32, nr = numbers[i] & UINT32_MAX;

			EXPECT(items[i].len == 8 && who < 2 && nr + 1 > seen[who]);
			seen[who] = nr + 1;
			__atomic_add_fetch(&board->value[4 + who], 1, __ATOMIC_SEQ_CST);
			__atomic_add_fetch(&board->value[6 + who], (int64_t)nr, __ATOMIC_SEQ_CST);
		}
	EXPECT(n == -EPIPE);
	(void)me;
	return 0;
}

Test(batch, many_senders_and_receivers_lose_nothing, .init = setup, .fini = teardown)
{
	uint64_t names[2] = {0, 1};
	pid_t senders[2], receivers[2];

	board = board_new();
	shared_ch = create(64, 0);
	for (int i = 0; i < 2; i++) {
		receivers[i] = child_start(recv_numbers, &names[i]);
		senders[i] = child_start(send_numbers, &names[i]);
	}
	for (int i = 0; i < 2; i++)
		cr_assert_eq(child_end(senders[i]), 0);
	cr_assert_eq(ch_channel_close(shared_ch), 0);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(child_end(receivers[i]), 0);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(board->value[4 + i], board->value[i]);
		cr_assert_eq(board->value[6 + i], board->value[i] * (board->value[i] - 1) / 2);
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel.h: making a channel, and copying messages through it within one process. In place: channel_place_test.c.
 * Waiting: channel_wait_test.c. Closing and destroying: channel_end_test.c.
 */
#include "../support/support.h"
#include <criterion/criterion.h>

TestSuite(channel, .timeout = WATCHDOG_S);

static struct ch_channel *create(struct ch_pool *pool, uint32_t capacity, uint32_t inline_max)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_channel *ch = NULL;

	attr.capacity = capacity;
	attr.inline_max = inline_max;
	cr_assert_eq(ch_channel_create(pool, &attr, &ch), 0, "%s", ch_errmsg());
	return ch;
}

static void send_one(struct ch_channel *ch, uint64_t seq, size_t len)
{
	unsigned char *buf = malloc(len + 1);

	fill(buf, len, 1, seq);
	cr_assert_eq(ch_channel_send(ch, len ? buf : NULL, len, CH_TRY), 0, "%zu bytes: %s", len, ch_errmsg());
	free(buf);
}

/* The room behind the message must stay untouched. */
static void recv_one(struct ch_channel *ch, uint64_t seq, size_t len)
{
	unsigned char *buf = malloc(len + 16);

	memset(buf + len, 0x5a, 16);
	cr_assert_eq(ch_channel_recv(ch, buf, len + 16, CH_TRY), (ssize_t)len, "%s", ch_errmsg());
	cr_assert(is_filled(buf, len, 1, seq), "message %d of %zu bytes", (int)seq, len);
	for (int i = 0; i < 16; i++)
		cr_assert_eq(buf[len + (size_t)i], 0x5a);
	free(buf);
}

Test(channel, defaults_are_1024_messages_of_48_bytes_in_the_ring)
{
	struct ch_channel *ch = NULL;

	cr_assert_eq(ch_channel_create(NULL, NULL, &ch), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_get_capacity(ch), 1024);
	cr_assert_eq(ch_channel_get_inline_max(ch), 48);
	cr_assert_not_null(ch_channel_get_pool(ch));
	cr_assert_eq(ch_channel_count(ch), 0);
	ch_pool_destroy(ch_channel_get_pool(ch));
}

Test(channel, default_pool_is_one_for_all)
{
	struct ch_channel *a = NULL, *b = NULL;
	struct ch_pool_stats st;

	cr_assert_eq(ch_channel_create(NULL, NULL, &a), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_create(NULL, NULL, &b), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_pool_get_stats(ch_channel_get_pool(a), &st), 0);
	cr_assert_eq(st.nr_channels, 2);
	ch_channel_destroy(a);
	ch_pool_destroy(ch_channel_get_pool(b));
}

Test(channel, capacity_is_rounded_up_to_a_power_of_two)
{
	const uint32_t asked[] = { 1, 2, 3, 4, 5, 1000, 1024, 1025 }, got[] = { 1, 2, 4, 4, 8, 1024, 1024, 2048 };
	struct ch_pool *pool = pool_of(4 << 20);

	for (size_t i = 0; i < sizeof(got) / sizeof(*got); i++) {
		struct ch_channel *ch = create(pool, asked[i], 0);

		cr_assert_eq(ch_channel_get_capacity(ch), got[i], "%u", asked[i]);
		for (uint32_t k = 0; k < got[i]; k++)
			send_one(ch, k, 8);
		cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), -EAGAIN, "full");
		cr_assert_eq(ch_channel_count(ch), (ssize_t)got[i]);
		for (uint32_t k = 0; k < got[i]; k++)
			recv_one(ch, k, 8);
		ch_channel_destroy(ch);
	}
	ch_pool_destroy(pool);
}

Test(channel, the_largest_capacity_works)
{
	struct ch_pool *pool = pool_of(256 << 20);
	struct ch_channel *ch = create(pool, 1 << 20, 8);
	uint64_t v;

	cr_assert_eq(ch_channel_get_capacity(ch), 1 << 20);
	for (uint64_t i = 0; i < 1 << 20; i++)
		cr_assert_eq(ch_channel_send(ch, &i, 8, CH_TRY), 0);
	cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), -EAGAIN);
	for (uint64_t i = 0; i < 1 << 20; i++)
		cr_assert(ch_channel_recv(ch, &v, 8, CH_TRY) == 8 && v == i);
	ch_pool_destroy(pool);
}

Test(channel, attr_out_of_range_is_invalid)
{
	const uint32_t bad_capacity[] = { (1 << 20) + 1, UINT32_MAX }, bad_inline[] = { 1, 7, 65521, UINT32_MAX };
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_channel *ch = NULL;

	for (int i = 0; i < 2; i++) {
		attr.capacity = bad_capacity[i];
		cr_assert_eq(ch_channel_create(pool, &attr, &ch), -EINVAL, "%u", bad_capacity[i]);
	}
	attr.capacity = 4;
	for (int i = 0; i < 4; i++) {
		attr.inline_max = bad_inline[i];
		cr_assert_eq(ch_channel_create(pool, &attr, &ch), -EINVAL, "%u", bad_inline[i]);
	}
	attr.inline_max = 65520;
	cr_assert_eq(ch_channel_create(pool, &attr, &ch), 0, "%s", ch_errmsg());
	cr_assert_geq(ch_channel_get_inline_max(ch), 65520);
	ch_pool_destroy(pool);
}

Test(channel, inline_max_is_rounded_up)
{
	struct ch_pool *pool = pool_of(1 << 20);

	for (uint32_t want = 8; want <= 4032; want += want / 8) {
		struct ch_channel *ch = create(pool, 2, want);

		cr_assert_geq(ch_channel_get_inline_max(ch), want);
		cr_assert_lt(ch_channel_get_inline_max(ch), want + 64);
		ch_channel_destroy(ch);
	}
	ch_pool_destroy(pool);
}

Test(channel, attr_of_newer_and_older_callers)
{
	struct {
		struct ch_channel_attr known;
		uint64_t future;
	} attr = { CH_CHANNEL_ATTR_INIT, 1 };
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_channel *ch = NULL;

	attr.known.size = sizeof(attr);
	cr_assert_eq(ch_channel_create(pool, &attr.known, &ch), -E2BIG);
	cr_assert_null(ch);
	attr.future = 0;
	cr_assert_eq(ch_channel_create(pool, &attr.known, &ch), 0, "%s", ch_errmsg());
	ch_channel_destroy(ch);
	attr.known.size = offsetof(struct ch_channel_attr, inline_max);
	attr.known.capacity = 4;
	attr.known.inline_max = 3; /* would be invalid, had the older caller known it */
	cr_assert_eq(ch_channel_create(pool, &attr.known, &ch), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_get_capacity(ch), 4);
	cr_assert_eq(ch_channel_get_inline_max(ch), 48);
	ch_channel_destroy(ch);
	attr.known.size = 0;
	cr_assert_eq(ch_channel_create(pool, &attr.known, &ch), -EINVAL);
	ch_pool_destroy(pool);
}

Test(channel, a_full_pool_has_no_room_and_a_small_one_never)
{
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_channel *ch = NULL;
	struct ch_pool_stats before;
	void *p;

	attr.capacity = 1 << 20;
	cr_assert_eq(ch_channel_create(pool, &attr, &ch), -EMSGSIZE);
	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
	while (ch_pool_alloc(pool, 64, CH_TRY, &p) == 0)
		;
	cr_assert_eq(ch_channel_create(pool, NULL, &ch), -ENOSPC);
	cr_assert_null(ch);
	cr_assert_eq(ch_pool_free(pool, p), 0);
	ch_pool_destroy(pool);
}

Test(channel, every_length_arrives_as_it_was_sent)
{
	const uint32_t inline_max[] = { 8, 48, 112, 1000, 4032 };
	struct ch_pool *pool = pool_of(8 << 20);

	for (size_t k = 0; k < sizeof(inline_max) / sizeof(*inline_max); k++) {
		struct ch_channel *ch = create(pool, 4, inline_max[k]);
		size_t max = ch_channel_get_inline_max(ch);
		const size_t len[] = { 0, 1, 7, 8, 9, 47, 48, 49, 63, 64, 65,
				       max - 1, max, max + 1, 4096, 65536, 1 << 20 };
		struct ch_pool_stats before;

		cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
		for (size_t i = 0; i < sizeof(len) / sizeof(*len); i++) {
			send_one(ch, i, len[i]);
			send_one(ch, i + 1, len[i]);
			recv_one(ch, i, len[i]);
			recv_one(ch, i + 1, len[i]);
		}
		cr_assert(pool_is_as_before(pool, &before));
		ch_channel_destroy(ch);
	}
	ch_pool_destroy(pool);
}

Test(channel, empty_message_is_a_message)
{
	struct ch_channel *ch = NULL;

	cr_assert_eq(ch_channel_create(NULL, NULL, &ch), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_send(ch, NULL, 0, CH_TRY), 0);
	cr_assert_eq(ch_channel_count(ch), 1);
	cr_assert_eq(ch_channel_recv(ch, NULL, 0, CH_TRY), 0);
	cr_assert_eq(ch_channel_recv(ch, NULL, 0, CH_TRY), -EAGAIN);
	ch_pool_destroy(ch_channel_get_pool(ch));
}

Test(channel, order_is_first_in_first_out_over_many_cycles)
{
	struct ch_pool *pool = pool_of(2 << 20);
	struct ch_channel *ch = create(pool, 8, 0);
	struct ch_pool_stats before;
	uint64_t seed = test_seed(), sent = 0, got = 0;

	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
	while (got < 50000) {
		if (rnd(&seed) % 2 && sent - got < 8)
			send_one(ch, sent, sent % 3 ? sent % 48 : sent % 3000), sent++;
		else if (sent > got)
			recv_one(ch, got, got % 3 ? got % 48 : got % 3000), got++;
		cr_assert_eq(ch_channel_count(ch), (ssize_t)(sent - got));
	}
	for (; got < sent; got++)
		recv_one(ch, got, got % 3 ? got % 48 : got % 3000);
	cr_assert(pool_is_as_before(pool, &before));
	ch_pool_destroy(pool);
}

Test(channel, small_buffer_leaves_the_message)
{
	const size_t len[] = { 1, 8, 48, 49, 5000 };
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_channel *ch = create(pool, 4, 0);
	unsigned char buf[8192];

	for (size_t i = 0; i < sizeof(len) / sizeof(*len); i++) {
		send_one(ch, i, len[i]);
		send_one(ch, i + 1, 3);
		memset(buf, 0x5a, sizeof(buf));
		cr_assert_eq(ch_channel_recv(ch, buf, len[i] - 1, CH_TRY), -ENOBUFS);
		cr_assert_eq(ch_channel_recv(ch, buf, len[i] - 1, CH_FOREVER), -ENOBUFS);
		for (size_t k = len[i] - 1; k < sizeof(buf); k++)
			cr_assert_eq(buf[k], 0x5a, "wrote beyond cap");
		cr_assert_eq(ch_channel_count(ch), 2);
		recv_one(ch, i, len[i]);
		recv_one(ch, i + 1, 3);
	}
	ch_pool_destroy(pool);
}

Test(channel, too_long_can_never_fit)
{
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_channel *ch = create(pool, 4, 0);
	struct ch_message msg = CH_MESSAGE_INIT;
	char *big = calloc(1, 2 << 20);

	cr_assert_eq(ch_channel_send(ch, big, 2 << 20, CH_TRY), -EMSGSIZE);
	cr_assert_eq(ch_channel_send(ch, big, 2 << 20, CH_FOREVER), -EMSGSIZE);
	cr_assert_eq(ch_channel_send(ch, big, SIZE_MAX, CH_TRY), -EMSGSIZE);
	cr_assert_eq(ch_channel_claim(ch, 2 << 20, CH_FOREVER, &msg), -EMSGSIZE);
	cr_assert_eq(ch_channel_claim(ch, SIZE_MAX, CH_TRY, &msg), -EMSGSIZE);
	cr_assert_null(msg.data);
	cr_assert_eq(ch_channel_count(ch), 0);
	free(big);
	ch_pool_destroy(pool);
}

Test(channel, full_pool_refuses_a_block_message_but_not_an_inline_one)
{
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_channel *ch = create(pool, 4, 0);
	struct ch_message msg = CH_MESSAGE_INIT;
	char buf[1000] = { 0 };
	int64_t t;
	void *p;

	while (ch_pool_alloc(pool, 64, CH_TRY, &p) == 0)
		;
	cr_assert_eq(ch_channel_send(ch, buf, 1000, CH_TRY), -ENOSPC);
	cr_assert_eq(ch_channel_claim(ch, 1000, CH_TRY, &msg), -ENOSPC);
	t = now_ns();
	cr_assert_eq(ch_channel_send(ch, buf, 1000, 20 * MS), -ETIMEDOUT);
	cr_assert_eq(ch_channel_claim(ch, 1000, 20 * MS, &msg), -ETIMEDOUT);
	cr_assert_geq(now_ns() - t, 40 * MS);
	cr_assert_eq(ch_channel_count(ch), 0);
	send_one(ch, 0, 48);
	recv_one(ch, 0, 48);
	ch_pool_destroy(pool);
}

Test(channel, null_is_invalid)
{
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_channel *ch = create(pool, 4, 0), *out = NULL;
	struct ch_descr d, of_pool;
	char buf[8];

	cr_assert_eq(ch_channel_create(pool, NULL, NULL), -EINVAL);
	cr_assert_eq(ch_channel_get_descr(ch, &d), 0);
	cr_assert_eq(ch_channel_attach(NULL, &out), -EINVAL);
	cr_assert_eq(ch_channel_attach(&d, NULL), -EINVAL);
	cr_assert_eq(ch_pool_get_descr(pool, &of_pool), 0);
	cr_assert_eq(ch_channel_attach(&of_pool, &out), -EINVAL, "names no channel");
	cr_assert_eq(ch_channel_send(NULL, buf, 8, CH_TRY), -EINVAL);
	cr_assert_eq(ch_channel_send(ch, NULL, 8, CH_TRY), -EINVAL);
	cr_assert_eq(ch_channel_recv(NULL, buf, 8, CH_TRY), -EINVAL);
	send_one(ch, 0, 8);
	cr_assert_eq(ch_channel_recv(ch, NULL, 8, CH_TRY), -EINVAL);
	cr_assert_eq(ch_channel_recv(ch, NULL, 0, CH_TRY), -ENOBUFS, "no room is too little room");
	recv_one(ch, 0, 8);
	cr_assert_eq(ch_channel_close(NULL), -EINVAL);
	cr_assert_eq(ch_channel_count(NULL), -EINVAL);
	cr_assert_eq(ch_channel_set_spin(NULL, 0), -EINVAL);
	ch_channel_detach(NULL);
	ch_channel_destroy(NULL);
	ch_pool_destroy(pool);
}

Test(channel, two_handles_are_one_channel)
{
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_channel *a = create(pool, 4, 112), *b = NULL;
	struct ch_descr d;

	ch_channel_get_descr(a, &d);
	cr_assert_eq(ch_channel_attach(&d, &b), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_get_capacity(b), 4);
	cr_assert_eq(ch_channel_get_inline_max(b), ch_channel_get_inline_max(a));
	send_one(a, 0, 100);
	cr_assert_eq(ch_channel_count(b), 1);
	recv_one(b, 0, 100);
	ch_channel_detach(b);
	send_one(a, 1, 1000);
	recv_one(a, 1, 1000);
	ch_pool_destroy(pool);
}

Test(channel, channels_of_one_pool_do_not_mix)
{
	enum { NR = 20 };
	struct ch_pool *pool = pool_of(4 << 20);
	struct ch_channel *ch[NR];

	for (int i = 0; i < NR; i++)
		ch[i] = create(pool, 4, 0);
	for (int i = 0; i < NR; i++)
		send_one(ch[i], (uint64_t)i, i % 2 ? 8 : 800);
	for (int i = NR - 1; i >= 0; i--)
		recv_one(ch[i], (uint64_t)i, i % 2 ? 8 : 800);
	ch_pool_destroy(pool);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* stream.h: streams without a port, destroyed ports, and arguments and descriptors that are no good. */
#include "../support/support.h"
#include <criterion/criterion.h>

TestSuite(stream_end, .timeout = WATCHDOG_S);

static struct ch_pool *pool;
static struct ch_pool_stats bare;

static void setup(void)
{
	pool = pool_of(2 << 20);
	cr_assert_eq(ch_pool_get_stats(pool, &bare), 0);
}

static void teardown(void)
{
	ch_pool_destroy(pool);
}

static struct ch_stream *create(uint32_t end)
{
	struct ch_stream *s = NULL;

	cr_assert_eq(ch_stream_create(pool, NULL, end, &s), 0, "%s", ch_errmsg());
	return s;
}

static int attach_to(const struct ch_stream *s, struct ch_stream **out)
{
	struct ch_descr d;

	cr_assert_eq(ch_stream_get_descr(s, &d), 0);
	return ch_stream_attach(&d, out);
}

Test(stream_end, a_stream_without_a_port_has_two_ends, .init = setup, .fini = teardown)
{
	for (uint32_t end = CH_STREAM_WRITER; end <= CH_STREAM_READER; end++) {
		struct ch_stream *mine = create(end), *other = NULL, *third = NULL;
		char buf[10];

		if (end == CH_STREAM_WRITER) {
			cr_assert_eq(ch_stream_write(mine, "abc", 3, 0, CH_TRY), 3, "nobody reads yet");
			cr_assert_eq(ch_stream_flush(mine, CH_TRY), 0);
		}
		cr_assert_eq(attach_to(mine, &other), 0, "%s", ch_errmsg());
		cr_assert_eq(attach_to(mine, &third), -EPERM);
		struct ch_stream *w = end == CH_STREAM_WRITER ? mine : other, *r = end == CH_STREAM_WRITER ? other : mine;
		if (end == CH_STREAM_READER)
			cr_assert_eq(ch_stream_write(w, "abc", 3, 0, CH_TRY), 3);
		cr_assert_eq(ch_stream_end(w, CH_TRY), 0);
		cr_assert_eq(ch_stream_read(r, buf, 10, CH_TRY, NULL), 3);
		cr_assert_eq(ch_stream_read(r, buf, 10, CH_TRY, NULL), 0);
		cr_assert_eq(ch_stream_write(r, "x", 1, 0, CH_TRY), -EINVAL);
		cr_assert_eq(ch_stream_read(w, buf, 1, CH_TRY, NULL), -EINVAL);
		ch_stream_close(w);
		ch_stream_close(r);
		cr_assert(pool_is_as_before(pool, &bare), "it ended by itself");
	}
}

Test(stream_end, a_stream_that_nobody_joined_ends_with_its_creator, .init = setup, .fini = teardown)
{
	struct ch_stream *s, *other = NULL;
	struct ch_descr d;

	for (uint32_t end = CH_STREAM_WRITER; end <= CH_STREAM_READER; end++) {
		s = create(end);
		if (end == CH_STREAM_WRITER) {
			cr_assert_eq(ch_stream_write(s, bare.len ? "abc" : "", 3, 0, CH_TRY), 3);
			cr_assert_eq(ch_stream_flush(s, CH_TRY), 0);
		}
		cr_assert_eq(ch_stream_get_descr(s, &d), 0);
		ch_stream_close(s);
		cr_assert_eq(ch_stream_attach(&d, &other), -ESTALE);
		cr_assert(pool_is_as_before(pool, &bare));
	}
}

Test(stream_end, a_complete_stream_waits_for_its_reader, .init = setup, .fini = teardown)
{
	static char big[100000], back[100000];
	struct ch_stream *s = create(CH_STREAM_WRITER), *r = NULL;
	struct ch_descr d;

	fill(big, sizeof(big), 3, 3);
	cr_assert_eq(ch_stream_write(s, big, sizeof(big), 0, CH_TRY), sizeof(big));
	cr_assert_eq(ch_stream_end(s, CH_TRY), 0);
	cr_assert_eq(ch_stream_get_descr(s, &d), 0);
	ch_stream_close(s);
	cr_assert_eq(ch_stream_attach(&d, &r), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_stream_read(r, back, sizeof(back), CH_TRY, NULL), sizeof(big));
	cr_assert(!memcmp(big, back, sizeof(big)));
	cr_assert_eq(ch_stream_read(r, back, 1, CH_TRY, NULL), 0);
	ch_stream_close(r);
	cr_assert_eq(ch_stream_attach(&d, &r), -ESTALE);
	cr_assert(pool_is_as_before(pool, &bare));
}

Test(stream_end, a_destroyed_port_is_stale_for_everybody, .init = setup, .fini = teardown)
{
	struct ch_stream_port *port = NULL, *other = NULL;
	struct ch_stream *w = NULL, *r = NULL, *s = NULL;
	struct ch_stream_port_stats st;
	struct ch_message msg = CH_MESSAGE_INIT;
	struct ch_descr d;
	char c;

	cr_assert_eq(ch_stream_port_create(pool, NULL, &port), 0);
	cr_assert_eq(ch_stream_port_get_descr(port, &d), 0);
	cr_assert_eq(ch_stream_port_attach(&d, &other), 0);
	cr_assert_eq(ch_stream_open(port, 0, CH_TRY, &w), 0);
	cr_assert_eq(ch_stream_accept(other, CH_TRY, &r), 0);
	cr_assert_eq(ch_stream_claim(w, 5000, CH_TRY, &msg), 0);
	cr_assert_eq(ch_stream_commit(w, &msg, 0, CH_TRY), 0);
	ch_stream_port_destroy(port);
	cr_assert_eq(ch_stream_write(w, "x", 1, 0, CH_FOREVER), -ESTALE);
	cr_assert_eq(ch_stream_end(w, CH_FOREVER), -ESTALE);
	cr_assert_eq(ch_stream_read(r, &c, 1, CH_FOREVER, NULL), -ESTALE);
	cr_assert_eq(ch_stream_open(other, 0, CH_FOREVER, &s), -ESTALE);
	cr_assert_eq(ch_stream_accept(other, CH_FOREVER, &s), -ESTALE);
	cr_assert_eq(ch_stream_port_get_stats(other, &st), -ESTALE);
	cr_assert_eq(ch_stream_port_attach(&d, &port), -ESTALE);
	ch_stream_port_detach(other);
	ch_stream_close(w);
	ch_stream_close(r);
	cr_assert(pool_is_as_before(pool, &bare), "with the chunk that was on its way");
}

Test(stream_end, a_destroyed_pool_is_stale_too, .init = setup)
{
	struct ch_stream *w = create(CH_STREAM_WRITER), *r = NULL;
	struct ch_pool *again = NULL;
	struct ch_descr d;
	char c;

	cr_assert_eq(ch_pool_get_descr(pool, &d), 0);
	cr_assert_eq(ch_pool_attach(&d, &again), 0);
	cr_assert_eq(attach_to(w, &r), 0);
	ch_pool_destroy(pool);
	cr_assert_eq(ch_stream_write(w, "x", 1, 0, CH_FOREVER), -ESTALE);
	cr_assert_eq(ch_stream_read(r, &c, 1, CH_FOREVER, NULL), -ESTALE);
	ch_stream_close(w);
	ch_stream_close(r);
	ch_pool_detach(again);
}

Test(stream_end, attributes_are_checked, .init = setup, .fini = teardown)
{
	static const struct {
		uint32_t nr, capacity, chunk, flags;
		int rc;
	} bad[] = { { 4097, 0, 0, 0, -EINVAL },    { 0, 65537, 0, 0, -EINVAL }, { 0, 0, 63, 0, -EINVAL },
		    { 0, 0, 1u << 31, 0, -EINVAL }, { 0, 0, 0, 2, -EINVAL },     { 4096, 65536, 0, 0, -EMSGSIZE } };
	struct {
		struct ch_stream_attr attr;
		uint32_t newer;
	} long_attr = { .attr = CH_STREAM_ATTR_INIT, .newer = 1 };
	struct ch_stream_attr attr = CH_STREAM_ATTR_INIT;
	struct ch_stream_port *port = NULL;
	struct ch_stream_port_stats st;
	struct ch_stream *s = NULL;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		attr.nr_streams = bad[i].nr;
		attr.capacity = bad[i].capacity;
		attr.chunk_len = bad[i].chunk;
		attr.flags = bad[i].flags;
		cr_assert_eq(ch_stream_port_create(pool, &attr, &port), bad[i].rc, "%zu", i);
	}
	long_attr.attr.size = sizeof(long_attr);
	cr_assert_eq(ch_stream_port_create(pool, &long_attr.attr, &port), -E2BIG);
	attr = (struct ch_stream_attr)CH_STREAM_ATTR_INIT;
	attr.nr_streams = 2;
	cr_assert_eq(ch_stream_create(pool, &attr, CH_STREAM_READER, &s), -EINVAL, "a port's");
	cr_assert_eq(ch_stream_create(pool, NULL, 2, &s), -EINVAL);
	cr_assert_eq(ch_stream_create(pool, NULL, CH_STREAM_READER, NULL), -EINVAL);
	cr_assert_eq(ch_stream_port_create(pool, NULL, NULL), -EINVAL);
	attr.capacity = 5;
	cr_assert_eq(ch_stream_port_create(pool, &attr, &port), 0);
	cr_assert(ch_stream_port_get_stats(port, &st) == 0 && st.nr_streams == 2 && st.nr_free == 2);
	cr_assert_eq(ch_stream_open(port, 2, CH_TRY, &s), -EINVAL);
	ch_stream_port_destroy(port);
	cr_assert_null(s);
	cr_assert(pool_is_as_before(pool, &bare));
}

Test(stream_end, null_is_an_error_or_nothing, .init = setup, .fini = teardown)
{
	struct ch_stream *s = NULL, *w = create(CH_STREAM_WRITER);
	struct ch_message msg = CH_MESSAGE_INIT;
	struct ch_descr d;
	char c;

	cr_assert_eq(ch_stream_open(NULL, 0, CH_TRY, &s), -EINVAL);
	cr_assert_eq(ch_stream_accept(NULL, CH_TRY, &s), -EINVAL);
	cr_assert_eq(ch_stream_write(NULL, "", 1, 0, CH_TRY), -EINVAL);
	cr_assert_eq(ch_stream_write(w, NULL, 1, 0, CH_TRY), -EINVAL);
	cr_assert_eq(ch_stream_write(w, NULL, 0, 0, CH_TRY), 0);
	cr_assert_eq(ch_stream_flush(NULL, CH_TRY), -EINVAL);
	cr_assert_eq(ch_stream_end(NULL, CH_TRY), -EINVAL);
	cr_assert_eq(ch_stream_drain(NULL, CH_TRY), -EINVAL);
	cr_assert_eq(ch_stream_poll(NULL, CH_TRY), -EINVAL);
	cr_assert_eq(ch_stream_count(NULL), -EINVAL);
	cr_assert_eq(ch_stream_cancel(NULL), -EINVAL);
	cr_assert_eq(ch_stream_read(NULL, &c, 1, CH_TRY, NULL), -EINVAL);
	cr_assert_eq(ch_stream_take(NULL, CH_TRY, &msg, NULL), -EINVAL);
	cr_assert_eq(ch_stream_claim(w, 1, CH_TRY, NULL), -EINVAL);
	cr_assert_eq(ch_stream_commit(w, &msg, 0, CH_TRY), -EINVAL, "an empty message");
	cr_assert_eq(ch_stream_send_block(w, NULL, 1, 0, CH_TRY), -EINVAL);
	cr_assert_eq(ch_stream_get_descr(NULL, &d), -EINVAL);
	cr_assert_eq(ch_stream_get_descr(w, NULL), -EINVAL);
	cr_assert_eq(ch_stream_port_get_descr(NULL, &d), -EINVAL);
	cr_assert_eq(ch_stream_port_get_stats(NULL, NULL), -EINVAL);
	cr_assert_eq(ch_stream_attach(NULL, &s), -EINVAL);
	cr_assert_null(ch_stream_get_pool(NULL));
	cr_assert_eq(ch_stream_get_pool(w), pool);
	ch_stream_release(NULL, &msg);
	ch_stream_abort(w, NULL);
	ch_stream_close(NULL);
	ch_stream_port_detach(NULL);
	ch_stream_port_destroy(NULL);
	ch_stream_close(w);
	cr_assert(pool_is_as_before(pool, &bare));
}

Test(stream_end, descriptors_name_what_they_name, .init = setup, .fini = teardown)
{
	struct ch_stream_port *port = NULL, *p = NULL;
	struct ch_stream *w = create(CH_STREAM_WRITER), *s = NULL, *of_port = NULL;
	struct ch_channel *ch = NULL, *c = NULL;
	struct ch_descr of_w, of_p, of_ch, d;

	cr_assert_eq(ch_stream_port_create(pool, NULL, &port), 0);
	cr_assert_eq(ch_channel_create(pool, NULL, &ch), 0);
	cr_assert_eq(ch_stream_get_descr(w, &of_w), 0);
	cr_assert_eq(ch_stream_port_get_descr(port, &of_p), 0);
	cr_assert_eq(ch_channel_get_descr(ch, &of_ch), 0);
	cr_assert_eq(ch_descr_kind(&of_w), CH_DESCR_STREAM);
	cr_assert_eq(ch_stream_attach(&of_p, &s), -EINVAL);
	cr_assert_eq(ch_stream_port_attach(&of_w, &p), -EINVAL);
	cr_assert_eq(ch_stream_attach(&of_ch, &s), -EINVAL);
	cr_assert_eq(ch_stream_port_attach(&of_ch, &p), -EINVAL);
	cr_assert_eq(ch_channel_attach(&of_p, &c), -EINVAL);
	cr_assert_eq(ch_stream_open(port, 0, CH_TRY, &of_port), 0);
	cr_assert_eq(ch_stream_get_descr(of_port, &d), -EINVAL, "the port's are enough");
	for (int i = 0; i < 64; i++) {
		d = of_p;
		d.bytes[i] ^= 0x10;
		cr_assert_eq(ch_stream_port_attach(&d, &p), -EPROTO, "byte %d", i);
	}
	ch_stream_port_destroy(port);
	cr_assert_eq(ch_stream_port_attach(&of_p, &p), -ESTALE);
	ch_stream_close(of_port);
	ch_stream_close(w);
	ch_channel_destroy(ch);
	cr_assert(pool_is_as_before(pool, &bare));
}

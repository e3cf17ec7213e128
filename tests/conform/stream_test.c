/* SPDX-License-Identifier: Apache-2.0 */
/* stream.h: bytes, chunks, modes and ends of conversations. Both ends in one process; stream_wait_test has the waiting. */
#include "../support/support.h"
#include <criterion/criterion.h>

TestSuite(stream, .timeout = WATCHDOG_S);

#define CHUNK 1024

static struct ch_pool *pool;
static struct ch_stream_port *port;
static struct ch_pool_stats before; /* with the port, all streams free */

static struct ch_stream_port *port_of(uint32_t nr_streams, uint32_t capacity, uint32_t flags)
{
	struct ch_stream_attr attr = CH_STREAM_ATTR_INIT;
	struct ch_stream_port *out = NULL;

	attr.nr_streams = nr_streams;
	attr.capacity = capacity;
	attr.chunk_len = CHUNK;
	attr.flags = flags;
	cr_assert_eq(ch_stream_port_create(pool, &attr, &out), 0, "%s", ch_errmsg());
	return out;
}

static void setup(void)
{
	pool = pool_of(4 << 20);
	port = port_of(3, 8, 0);
	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
}

static void teardown(void)
{
	ch_pool_destroy(pool);
}

static struct ch_stream *open_stream(uint32_t flags)
{
	struct ch_stream *s = NULL;

	cr_assert_eq(ch_stream_open(port, flags, CH_TRY, &s), 0, "%s", ch_errmsg());
	return s;
}

static struct ch_stream *accept_stream(void)
{
	struct ch_stream *s = NULL;

	cr_assert_eq(ch_stream_accept(port, CH_TRY, &s), 0, "%s", ch_errmsg());
	return s;
}

static void assert_all_free(void)
{
	struct ch_stream_port_stats st;

	cr_assert_eq(ch_stream_port_get_stats(port, &st), 0);
	cr_assert_eq(st.nr_free, st.nr_streams);
	cr_assert_eq(st.nr_waiting, 0);
	cr_assert(pool_is_as_before(pool, &before));
}

static void write_all(struct ch_stream *s, const void *buf, size_t len)
{
	cr_assert_eq(ch_stream_write(s, buf, len, 0, CH_TRY), (ssize_t)len, "%s", ch_errmsg());
}

Test(stream, bytes_come_as_they_were_written_across_chunks, .init = setup, .fini = teardown)
{
	unsigned char in[5000], out[5000];
	struct ch_stream *w = open_stream(0), *r = accept_stream();
	size_t got = 0;

	fill(in, sizeof(in), 1, 1);
	for (size_t at = 0, n = 1; at < sizeof(in); at += n, n = n * 3 % 701 + 1)
		write_all(w, in + at, n < sizeof(in) - at ? n : sizeof(in) - at);
	cr_assert_eq(ch_stream_end(w, CH_TRY), 0);
	cr_assert_eq(ch_stream_end(w, CH_TRY), 0, "twice is the same as once");
	for (size_t n = 1; got < sizeof(in); n = n * 5 % 977 + 1) {
		ssize_t k = ch_stream_read(r, out + got, n < sizeof(out) - got ? n : sizeof(out) - got, CH_TRY, NULL);

		cr_assert(k > 0);
		got += (size_t)k;
	}
	cr_assert(is_filled(out, sizeof(out), 1, 1));
	for (int i = 0; i < 3; i++)
		cr_assert_eq(ch_stream_read(r, out, 1, CH_FOREVER, NULL), 0, "the end stays the end");
	ch_stream_close(w);
	ch_stream_close(r);
	assert_all_free();
}

Test(stream, a_read_takes_what_is_there_and_no_more, .init = setup, .fini = teardown)
{
	char buf[100];
	struct ch_stream *w = open_stream(0), *r = accept_stream();

	cr_assert_eq(ch_stream_read(r, buf, 100, CH_TRY, NULL), -EAGAIN);
	write_all(w, "abc", 3);
	cr_assert_eq(ch_stream_read(r, buf, 100, CH_TRY, NULL), -EAGAIN, "it is still gathered");
	cr_assert_eq(ch_stream_flush(w, CH_TRY), 0);
	cr_assert_eq(ch_stream_flush(w, CH_TRY), 0, "nothing is left");
	write_all(w, "defg", 4);
	cr_assert_eq(ch_stream_flush(w, CH_TRY), 0);
	cr_assert_eq(ch_stream_count(r), 2);
	cr_assert_eq(ch_stream_read(r, buf, 2, CH_TRY, NULL), 2);
	cr_assert_eq(ch_stream_read(r, buf + 2, 98, CH_TRY, NULL), 5);
	cr_assert(!memcmp(buf, "abcdefg", 7));
	cr_assert_eq(ch_stream_read(r, buf, 100, CH_TRY, NULL), -EAGAIN);
	cr_assert_eq(ch_stream_read(r, buf, 100, 1 * MS, NULL), -ETIMEDOUT);
	cr_assert_eq(ch_stream_read(r, buf, 0, CH_TRY, NULL), 0);
	ch_stream_close(r);
	ch_stream_close(w);
	assert_all_free();
}

Test(stream, an_arg_goes_with_its_bytes, .init = setup, .fini = teardown)
{
	char buf[100];
	uint64_t arg = 77;
	struct ch_message msg = CH_MESSAGE_INIT;
	struct ch_stream *w = open_stream(0), *r = accept_stream();

	cr_assert_eq(ch_stream_write(w, "ab", 2, 5, CH_TRY), 2);
	cr_assert_eq(ch_stream_write(w, "c", 1, 5, CH_TRY), 1);
	cr_assert_eq(ch_stream_write(w, "de", 2, UINT64_MAX, CH_TRY), 2);
	cr_assert_eq(ch_stream_write(w, "f", 1, 6, CH_TRY), 1);
	cr_assert_eq(ch_stream_claim(w, 0, CH_TRY, &msg), 0);
	cr_assert_eq(ch_stream_commit(w, &msg, 9, CH_TRY), 0, "an empty chunk with an arg");
	cr_assert_eq(ch_stream_end(w, CH_TRY), 0);
	cr_assert_eq(ch_stream_read(r, buf, 100, CH_TRY, &arg), 3);
	cr_assert(arg == 5 && !memcmp(buf, "abc", 3));
	cr_assert_eq(ch_stream_read(r, buf, 1, CH_TRY, &arg), 1);
	cr_assert(arg == UINT64_MAX && *buf == 'd');
	cr_assert_eq(ch_stream_take(r, CH_TRY, &msg, &arg), 1);
	cr_assert(arg == UINT64_MAX && msg.len == 1 && *(char *)msg.data == 'e', "the rest of a chunk");
	ch_stream_release(r, &msg);
	cr_assert_eq(ch_stream_take(r, CH_TRY, &msg, &arg), 1);
	cr_assert(arg == 6 && msg.len == 1);
	ch_stream_release(r, &msg);
	cr_assert_eq(ch_stream_take(r, CH_TRY, &msg, &arg), 1);
	cr_assert(arg == 9 && msg.len == 0);
	ch_stream_release(r, &msg);
	cr_assert_eq(ch_stream_take(r, CH_TRY, &msg, &arg), 0);
	cr_assert_eq(arg, 9, "the end writes nothing");
	ch_stream_close(w);
	ch_stream_close(r);
	assert_all_free();
}

Test(stream, chunks_are_written_and_read_in_place, .init = setup, .fini = teardown)
{
	static const size_t lens[] = { 1, 64, 65, CHUNK, 5 * CHUNK, 0 };
	struct ch_message msg = CH_MESSAGE_INIT, got = CH_MESSAGE_INIT;
	struct ch_stream *w = open_stream(0), *r = accept_stream();

	for (uint64_t i = 0; i < 6; i++) {
		cr_assert_eq(ch_stream_claim(w, lens[i] + 100, CH_TRY, &msg), 0);
		fill(msg.data, lens[i], i, 0);
		msg.len = lens[i];
		const void *at = msg.len > 64 ? msg.data : NULL;
		cr_assert_eq(ch_stream_commit(w, &msg, i, CH_TRY), 0);
		cr_assert_null(msg.data);
		cr_assert_eq(ch_stream_take(r, CH_TRY, &got, NULL), 1);
		cr_assert_eq(got.len, lens[i]);
		cr_assert(is_filled(got.data, got.len, i, 0));
		cr_assert(!at || at == got.data, "it was not copied");
		ch_stream_release(r, &got);
	}
	cr_assert_eq(ch_stream_claim(w, 100, CH_TRY, &msg), 0);
	ch_stream_abort(w, &msg);
	ch_stream_abort(w, &msg);
	cr_assert_eq(ch_stream_claim(w, 10, CH_TRY, &msg), 0);
	msg.len = 65;
	cr_assert_eq(ch_stream_commit(w, &msg, 0, CH_TRY), -EMSGSIZE);
	cr_assert_eq(ch_stream_claim(w, 64 << 20, CH_FOREVER, &msg), -EMSGSIZE);
	ch_stream_close(w);
	ch_stream_close(r);
	assert_all_free();
}

Test(stream, what_is_gathered_goes_before_what_is_committed, .init = setup, .fini = teardown)
{
	char buf[10] = "";
	struct ch_message msg = CH_MESSAGE_INIT;
	struct ch_stream *w = open_stream(0), *r = accept_stream();

	write_all(w, "ab", 2);
	cr_assert_eq(ch_stream_claim(w, 1, CH_TRY, &msg), 0);
	*(char *)msg.data = 'c';
	cr_assert_eq(ch_stream_commit(w, &msg, 0, CH_TRY), 0);
	write_all(w, "d", 1);
	cr_assert_eq(ch_stream_end(w, CH_TRY), 0);
	cr_assert_eq(ch_stream_read(r, buf, 10, CH_TRY, NULL), 4);
	cr_assert_str_eq(buf, "abcd");
	ch_stream_close(w);
	ch_stream_close(r);
	assert_all_free();
}

Test(stream, blocks_and_messages_move_on_without_a_copy, .init = setup, .fini = teardown)
{
	struct ch_message msg = CH_MESSAGE_INIT;
	struct ch_channel *ch = NULL;
	struct ch_stream *w = open_stream(0), *r = accept_stream();
	void *block = NULL;

	cr_assert_eq(ch_channel_create(pool, NULL, &ch), 0);
	cr_assert_eq(ch_pool_alloc(pool, 3000, CH_TRY, &block), 0);
	fill(block, 3000, 4, 4);
	cr_assert_eq(ch_stream_send_block(w, block, 100000, 8, CH_TRY), -EMSGSIZE);
	cr_assert_eq(ch_stream_send_block(w, (char *)block + 64, 10, 8, CH_TRY), -EINVAL);
	cr_assert_eq(ch_stream_send_block(w, block, 3000, 8, CH_TRY), 0);
	cr_assert_eq(ch_stream_send_block(w, block, 3000, 8, CH_TRY), -EPERM, "it is not ours any more");
	cr_assert_eq(ch_stream_take(r, CH_TRY, &msg, NULL), 1); /* stream to channel */
	cr_assert_eq(ch_channel_commit(ch, &msg, CH_TRY), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_take(ch, CH_TRY, &msg), 0); /* channel to stream */
	cr_assert_eq(ch_stream_commit(w, &msg, 0, CH_TRY), 0);
	cr_assert_eq(ch_stream_take(r, CH_TRY, &msg, NULL), 1); /* stream to stream */
	cr_assert_eq(ch_stream_commit(w, &msg, 0, CH_TRY), 0);
	cr_assert_eq(ch_stream_take(r, CH_TRY, &msg, NULL), 1);
	cr_assert(msg.data == block && msg.len == 3000 && is_filled(block, 3000, 4, 4));
	ch_stream_release(r, &msg);
	ch_stream_close(w);
	ch_stream_close(r);
	ch_channel_destroy(ch);
	assert_all_free();
}

static struct ch_view *view_of(size_t len)
{
	struct ch_view *view = NULL;
	void *block = NULL;

	cr_assert_eq(ch_pool_alloc(pool, len, CH_TRY, &block), 0);
	fill(block, len, 7, 7);
	cr_assert_eq(ch_view_create(pool, block, len, &view), 0, "%s", ch_errmsg());
	return view;
}

Test(stream, a_view_is_read_where_it_lies_and_stays_its_writers, .init = setup, .fini = teardown)
{
	struct ch_message msg = CH_MESSAGE_INIT;
	struct ch_view *view = view_of(5000), *part = NULL;
	struct ch_stream *w = open_stream(0), *r = accept_stream();
	char buf[6000];
	uint64_t arg = 0;

	cr_assert_eq(ch_view_clone(view, 1000, 300, &part), 0);
	cr_assert_eq(ch_stream_write(w, "a", 1, 0, CH_TRY), 1);
	cr_assert_eq(ch_stream_send_view(w, view, 3, CH_TRY), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_stream_send_view(w, part, 4, CH_TRY), 0);
	cr_assert_eq(ch_stream_send_view(w, view, 5, CH_TRY), 0);
	cr_assert_eq(ch_stream_end(w, CH_TRY), 0);
	cr_assert_eq(ch_stream_read(r, buf, 1, CH_TRY, NULL), 1);
	cr_assert_eq(ch_stream_take(r, CH_TRY, &msg, &arg), 1);
	cr_assert(msg.data == ch_view_addr(view) && msg.len == 5000 && arg == 3);
	cr_assert_eq(ch_stream_commit(w, &msg, 0, CH_TRY), -EINVAL, "it can't move on");
	ch_stream_release(r, &msg);
	cr_assert_eq(ch_stream_take(r, CH_TRY, &msg, &arg), 1);
	cr_assert(msg.data == ch_view_addr(part) && msg.len == 300 && arg == 4);
	ch_view_detach(part);
	cr_assert_eq(ch_stream_read(r, buf, 6000, CH_TRY, &arg), 5000);
	cr_assert(is_filled(buf, 5000, 7, 7) && arg == 5);
	ch_view_detach(view);
	cr_assert(!memcmp(msg.data, buf + 1000, 300), "the chunk in hand holds it");
	ch_stream_release(r, &msg);
	ch_stream_close(w);
	ch_stream_close(r);
	assert_all_free();
}

Test(stream, a_view_that_nobody_holds_is_told, .init = setup, .fini = teardown)
{
	struct ch_message msg = CH_MESSAGE_INIT;
	struct ch_view *view = view_of(500);
	struct ch_stream *w = open_stream(0), *r = accept_stream();

	cr_assert_eq(ch_stream_send_view(w, view, 3, CH_TRY), 0);
	ch_view_detach(view);
	cr_assert_eq(ch_stream_take(r, CH_TRY, &msg, NULL), -ESTALE);
	cr_assert_eq(ch_stream_take(r, CH_TRY, &msg, NULL), -ESTALE, "and never passed over");
	ch_stream_close(w);
	ch_stream_close(r);
	view = view_of(500);
	w = open_stream(CH_STREAM_BUFFERED);
	cr_assert_eq(ch_stream_send_view(w, view, 3, CH_TRY), 0, "a copy");
	ch_view_detach(view);
	cr_assert_eq(ch_stream_end(w, CH_TRY), 0);
	r = accept_stream();
	cr_assert_eq(ch_stream_take(r, CH_TRY, &msg, NULL), 1);
	cr_assert(msg.len == 500 && is_filled(msg.data, 500, 7, 7));
	ch_stream_release(r, &msg);
	ch_stream_close(w);
	ch_stream_close(r);
	assert_all_free();
}

Test(stream, capacity_limits_what_is_on_the_way, .init = setup, .fini = teardown)
{
	static char big[20 * CHUNK];
	struct ch_stream *w = open_stream(0), *r = accept_stream();
	struct ch_message msg = CH_MESSAGE_INIT;

	/* Eight chunks on the way, and one gathered. */
	cr_assert_eq(ch_stream_write(w, big, sizeof(big), 0, CH_TRY), 9 * CHUNK);
	cr_assert_eq(ch_stream_count(w), 8);
	cr_assert_eq(ch_stream_write(w, big, 1, 0, CH_TRY), -EAGAIN);
	cr_assert_eq(ch_stream_write(w, big, 1, 0, 1 * MS), -ETIMEDOUT);
	cr_assert_eq(ch_stream_flush(w, CH_TRY), -EAGAIN);
	cr_assert_eq(ch_stream_end(w, 1 * MS), -ETIMEDOUT);
	cr_assert_eq(ch_stream_poll(w, CH_TRY), -EAGAIN);
	cr_assert_eq(ch_stream_drain(w, CH_TRY), -EAGAIN);
	cr_assert_eq(ch_stream_claim(w, 1, CH_TRY, &msg), 0, "a claim takes no room in the lane");
	cr_assert_eq(ch_stream_commit(w, &msg, 0, CH_TRY), -EAGAIN);
	cr_assert_not_null(msg.data);
	cr_assert_eq(ch_stream_read(r, big, CHUNK, CH_TRY, NULL), CHUNK);
	cr_assert_eq(ch_stream_poll(w, CH_TRY), 0);
	cr_assert_eq(ch_stream_write(w, big, 1, 0, CH_TRY), 1);
	ch_stream_abort(w, &msg);
	cr_assert_eq(ch_stream_read(r, big, sizeof(big), CH_TRY, NULL), 8 * CHUNK);
	cr_assert_eq(ch_stream_drain(w, CH_TRY), -EAGAIN, "one byte more");
	cr_assert_eq(ch_stream_end(w, CH_TRY), 0);
	cr_assert_eq(ch_stream_read(r, big, sizeof(big), CH_TRY, NULL), 1);
	cr_assert_eq(ch_stream_drain(w, CH_TRY), 0);
	ch_stream_close(w);
	ch_stream_close(r);
	assert_all_free();
}

Test(stream, a_full_pool_is_told, .init = setup, .fini = teardown)
{
	static char big[2 * CHUNK];
	struct ch_stream *w = open_stream(0), *r = accept_stream();
	struct ch_message msg = CH_MESSAGE_INIT;
	void *blocks[5000];
	int n = 0;

	for (size_t len = 1 << 20; len >= 128; len /= 2)
		while (n < 5000 && ch_pool_alloc(pool, len, CH_TRY, &blocks[n]) == 0)
			n++;
	cr_assert_eq(ch_stream_write(w, big, 50, 0, CH_TRY), 50, "a few bytes need no block");
	cr_assert_eq(ch_stream_write(w, big, CHUNK, 0, CH_TRY), -ENOSPC);
	cr_assert_eq(ch_stream_write(w, big, CHUNK, 0, 30 * MS), -ETIMEDOUT);
	cr_assert_eq(ch_stream_claim(w, 100, CH_TRY, &msg), -ENOSPC);
	while (n > 0)
		ch_pool_free(pool, blocks[--n]);
	cr_assert_eq(ch_stream_write(w, big, CHUNK, 0, CH_TRY), CHUNK);
	ch_stream_close(w);
	ch_stream_close(r);
	assert_all_free();
}

Test(stream, a_buffered_conversation_is_seen_when_it_is_complete, .init = setup, .fini = teardown)
{
	static unsigned char in[10 * CHUNK];
	struct ch_message msg = CH_MESSAGE_INIT;
	struct ch_stream *w = open_stream(CH_STREAM_BUFFERED), *r = NULL;
	struct ch_stream_port_stats st;
	uint64_t arg = 0;

	fill(in, sizeof(in), 2, 2);
	for (size_t at = 0; at < sizeof(in); at += 128)
		cr_assert_eq(ch_stream_write(w, in + at, 128, at + 3, CH_TRY), 128);
	cr_assert_eq(ch_stream_flush(w, CH_TRY), 0);
	cr_assert_eq(ch_stream_drain(w, CH_TRY), -EINVAL);
	cr_assert_eq(ch_stream_accept(port, CH_TRY, &r), -EAGAIN);
	cr_assert(ch_stream_port_get_stats(port, &st) == 0 && st.nr_free == 3, "it takes no stream yet");
	cr_assert_eq(ch_stream_end(w, CH_TRY), 0);
	cr_assert_eq(ch_stream_write(w, in, 1, 0, CH_TRY), -EPIPE);
	ch_stream_close(w);
	r = accept_stream();
	cr_assert_eq(ch_stream_take(r, CH_TRY, &msg, &arg), 1);
	cr_assert(msg.len == sizeof(in) && is_filled(msg.data, msg.len, 2, 2) && arg == 3);
	ch_stream_release(r, &msg);
	cr_assert_eq(ch_stream_take(r, CH_TRY, &msg, &arg), 0);
	ch_stream_close(r);
	assert_all_free();
}

Test(stream, a_buffered_port_collects_every_conversation, .init = setup, .fini = teardown)
{
	struct ch_stream_port *plain = port;
	struct ch_message msg = CH_MESSAGE_INIT;
	struct ch_stream *w[5], *r;
	char buf[10];

	port = port_of(3, 2, CH_STREAM_BUFFERED);
	for (int i = 0; i < 5; i++) {
		w[i] = open_stream(0);
		write_all(w[i], &"abcde"[i], 1);
	}
	cr_assert_eq(ch_stream_claim(w[0], 3000, CH_TRY, &msg), 0);
	memset(msg.data, 'A', 3000);
	cr_assert_eq(ch_stream_commit(w[0], &msg, 0, CH_TRY), 0);
	for (int i = 3; i-- > 0;)
		cr_assert_eq(ch_stream_end(w[i], CH_TRY), 0);
	cr_assert_eq(ch_stream_end(w[3], CH_TRY), -EAGAIN, "all streams are in use");
	cr_assert_eq(ch_stream_end(w[3], 1 * MS), -ETIMEDOUT);
	for (int i = 3; i-- > 1; ch_stream_close(r)) {
		r = accept_stream();
		cr_assert_eq(ch_stream_read(r, buf, 10, CH_TRY, NULL), 1, "in the order in which they ended");
		cr_assert_eq(*buf, "abcde"[i]);
		cr_assert_eq(ch_stream_read(r, buf, 10, CH_TRY, NULL), 0);
	}
	cr_assert_eq(ch_stream_end(w[3], CH_TRY), 0);
	r = accept_stream();
	cr_assert_eq(ch_stream_take(r, CH_TRY, &msg, NULL), 1);
	cr_assert(msg.len == 3001 && ((char *)msg.data)[0] == 'a' && ((char *)msg.data)[3000] == 'A');
	ch_stream_release(r, &msg);
	ch_stream_close(r);
	cr_assert_eq(ch_stream_cancel(w[4]), 0);
	cr_assert_eq(ch_stream_end(w[4], CH_FOREVER), -ECANCELED);
	for (int i = 0; i < 5; i++)
		ch_stream_close(w[i]);
	ch_stream_close(accept_stream()); /* without having read it */
	ch_stream_port_destroy(port);
	port = plain;
	assert_all_free();
}

Test(stream, an_empty_buffered_conversation_is_a_conversation, .init = setup, .fini = teardown)
{
	struct ch_stream *w = open_stream(CH_STREAM_BUFFERED), *r;
	char c;

	cr_assert_eq(ch_stream_end(w, CH_TRY), 0);
	ch_stream_close(w);
	r = accept_stream();
	cr_assert_eq(ch_stream_read(r, &c, 1, CH_TRY, NULL), 0);
	ch_stream_close(r);
	assert_all_free();
}

Test(stream, conversations_are_accepted_in_the_order_of_opening, .init = setup, .fini = teardown)
{
	struct ch_stream *w[3], *r, *late = NULL;
	char c;

	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 3; i++) {
			w[i] = open_stream(0);
			write_all(w[i], &"xyz"[i], 1);
			cr_assert_eq(ch_stream_flush(w[i], CH_TRY), 0);
		}
		cr_assert_eq(ch_stream_open(port, 0, CH_TRY, &late), -EAGAIN);
		cr_assert_eq(ch_stream_open(port, 0, 1 * MS, &late), -ETIMEDOUT);
		for (int i = 0; i < 3; i++) {
			r = accept_stream();
			cr_assert(ch_stream_read(r, &c, 1, CH_TRY, NULL) == 1 && c == "xyz"[i]);
			ch_stream_close(w[i]);
			ch_stream_close(r);
			if (i == round % 3) { /* another order of the streams in the next round */
				ch_stream_close(open_stream(0));
			}
		}
		assert_all_free();
	}
}

Test(stream, closing_without_an_end_cancels, .init = setup, .fini = teardown)
{
	char buf[10];
	struct ch_stream *w = open_stream(0), *r = accept_stream();

	write_all(w, "ab", 2);
	cr_assert_eq(ch_stream_flush(w, CH_TRY), 0);
	write_all(w, "c", 1);
	ch_stream_close(w);
	cr_assert_eq(ch_stream_read(r, buf, 10, CH_FOREVER, NULL), 2, "what was committed comes");
	cr_assert_eq(ch_stream_read(r, buf, 10, CH_FOREVER, NULL), -ECANCELED, "and then no end");
	cr_assert_eq(ch_stream_read(r, buf, 10, CH_TRY, NULL), -ECANCELED);
	cr_assert_eq(ch_stream_poll(r, CH_FOREVER), 0);
	ch_stream_close(r);
	assert_all_free();
}

Test(stream, a_writer_can_cancel, .init = setup, .fini = teardown)
{
	char buf[10];
	struct ch_message msg = CH_MESSAGE_INIT;
	struct ch_stream *w = open_stream(0), *r = accept_stream();

	write_all(w, "ab", 2);
	cr_assert_eq(ch_stream_flush(w, CH_TRY), 0);
	cr_assert_eq(ch_stream_cancel(w), 0);
	cr_assert_eq(ch_stream_cancel(w), 0);
	cr_assert_eq(ch_stream_write(w, "c", 1, 0, CH_FOREVER), -ECANCELED);
	cr_assert_eq(ch_stream_claim(w, 100, CH_FOREVER, &msg), -ECANCELED);
	cr_assert_eq(ch_stream_flush(w, CH_FOREVER), -ECANCELED);
	cr_assert_eq(ch_stream_end(w, CH_FOREVER), -ECANCELED);
	cr_assert_eq(ch_stream_read(r, buf, 10, CH_FOREVER, NULL), 2);
	cr_assert_eq(ch_stream_read(r, buf, 10, CH_FOREVER, NULL), -ECANCELED);
	ch_stream_close(r);
	ch_stream_close(w);
	assert_all_free();
}

Test(stream, after_the_end_there_is_nothing_to_cancel, .init = setup, .fini = teardown)
{
	char c;
	struct ch_stream *w = open_stream(0), *r = accept_stream();

	write_all(w, "a", 1);
	cr_assert_eq(ch_stream_end(w, CH_TRY), 0);
	cr_assert_eq(ch_stream_cancel(w), 0);
	cr_assert_eq(ch_stream_write(w, "b", 1, 0, CH_TRY), -EPIPE);
	ch_stream_close(w);
	cr_assert_eq(ch_stream_read(r, &c, 1, CH_TRY, NULL), 1);
	cr_assert_eq(ch_stream_read(r, &c, 1, CH_TRY, NULL), 0);
	ch_stream_close(r);
	assert_all_free();
}

Test(stream, a_reader_can_end_early, .init = setup, .fini = teardown)
{
	static char big[3 * CHUNK];
	struct ch_message msg = CH_MESSAGE_INIT;

	for (int closes = 0; closes < 2; closes++) {
		struct ch_stream *w = open_stream(0), *r = accept_stream();

		write_all(w, big, sizeof(big));
		cr_assert_eq(ch_stream_claim(w, 1000, CH_TRY, &msg), 0);
		if (closes) {
			ch_stream_close(r);
		} else {
			cr_assert_eq(ch_stream_cancel(r), 0);
			cr_assert_eq(ch_stream_read(r, big, 1, CH_FOREVER, NULL), -ECANCELED);
		}
		cr_assert_eq(ch_stream_write(w, big, 1, 0, CH_FOREVER), -EPIPE);
		cr_assert_eq(ch_stream_commit(w, &msg, 0, CH_FOREVER), -EPIPE);
		cr_assert_eq(ch_stream_drain(w, CH_FOREVER), -EPIPE);
		cr_assert_eq(ch_stream_poll(w, CH_FOREVER), 0);
		cr_assert_eq(ch_stream_end(w, CH_FOREVER), -EPIPE);
		ch_stream_abort(w, &msg);
		ch_stream_close(w);
		if (!closes)
			ch_stream_close(r);
		assert_all_free();
	}
}

Test(stream, what_was_not_accepted_is_kept_if_it_is_complete, .init = setup, .fini = teardown)
{
	char c;
	struct ch_stream *w = open_stream(0), *gone = open_stream(0), *r = NULL;
	struct ch_stream_port_stats st;

	write_all(w, "a", 1);
	write_all(gone, "b", 1);
	cr_assert_eq(ch_stream_flush(gone, CH_TRY), 0);
	cr_assert_eq(ch_stream_end(w, CH_TRY), 0);
	ch_stream_close(w);
	ch_stream_close(gone);
	cr_assert(ch_stream_port_get_stats(port, &st) == 0 && st.nr_free == 2 && st.nr_waiting == 1);
	r = accept_stream();
	cr_assert(ch_stream_read(r, &c, 1, CH_TRY, NULL) == 1 && c == 'a');
	cr_assert_eq(ch_stream_read(r, &c, 1, CH_TRY, NULL), 0);
	ch_stream_close(r);
	cr_assert_eq(ch_stream_accept(port, CH_TRY, &r), -EAGAIN);
	assert_all_free();
}

Test(stream, streams_outlive_the_handle_of_their_port, .init = setup, .fini = teardown)
{
	char c;
	struct ch_descr d;
	struct ch_stream *w = open_stream(0), *r = accept_stream();

	cr_assert_eq(ch_stream_port_get_descr(port, &d), 0);
	ch_stream_port_detach(port);
	write_all(w, "a", 1);
	cr_assert_eq(ch_stream_end(w, CH_TRY), 0);
	cr_assert_eq(ch_stream_read(r, &c, 1, CH_TRY, NULL), 1);
	ch_stream_close(w);
	ch_stream_close(r);
	cr_assert_eq(ch_stream_port_attach(&d, &port), 0);
	assert_all_free();
}

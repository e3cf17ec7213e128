/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream_stress.cpp - many threads of one process hold conversations over one small port, copying and in place, trying,
 * waiting a while and waiting forever, cancelling now and then. Every conversation that was ended arrives once and whole;
 * afterwards all streams are free.
 *
 * usage: stream_stress [--messages N] [--seed X] [--threads T]     T writers and T readers, N conversations in all
 */
#include "stress.h"
#include <algorithm>
#include <memory>
#include <sched.h>

namespace {

struct arena {
	struct ch_stream_port *port;
	uint64_t nr_talks;
	std::unique_ptr<std::atomic<uint8_t>[]> heard;
	std::atomic<uint64_t> next{ 0 }, ended{ 0 }, whole{ 0 };
	std::atomic<int> writers_left;
};

size_t length_of(uint64_t talk)
{
	return 8 + talk * 2654435761u % 3000;
}

/* Would-block is tried again, as an application would. */
template <class F> ssize_t insist(uint64_t &rs, F call)
{
	const int64_t timeouts[] = { CH_TRY, 20000, 10 * MS, CH_FOREVER };

	for (;;) {
		const ssize_t rc = call(timeouts[rnd(&rs) % 4]);

		if (rc != -EAGAIN && rc != -ETIMEDOUT && rc != -ENOSPC)
			return rc;
		if (rc != -ETIMEDOUT)
			sched_yield();
	}
}

ssize_t write_in_place(struct ch_stream *s, const unsigned char *from, size_t len, uint64_t &rs)
{
	struct ch_message msg = CH_MESSAGE_INIT;
	ssize_t rc = insist(rs, [&](int64_t t) { return ch_stream_claim(s, len, t, &msg); });

	if (rc < 0)
		return rc;
	memcpy(msg.data, from, len);
	rc = insist(rs, [&](int64_t t) { return ch_stream_commit(s, &msg, 0, t); });
	ch_stream_abort(s, &msg);
	return rc < 0 ? rc : static_cast<ssize_t>(len);
}

void talk_once(arena &a, uint64_t talk, uint64_t &rs)
{
	unsigned char buf[4096];
	struct ch_stream *s = nullptr;
	const size_t len = length_of(talk);
	const uint32_t flags = rnd(&rs) % 4 ? 0 : CH_STREAM_BUFFERED;
	ssize_t rc = 0;

	memcpy(buf, &talk, 8);
	fill(buf + 8, len - 8, talk, 1);
	CHECK(insist(rs, [&](int64_t t) { return ch_stream_open(a.port, flags, t, &s); }) == 0);
	for (size_t at = 0; at < len && rc >= 0; at += static_cast<size_t>(rc)) {
		const size_t n = std::min<size_t>(len - at, 1 + rnd(&rs) % 500);
		rc = rnd(&rs) % 3 ? insist(rs, [&](int64_t t) { return ch_stream_write(s, buf + at, n, 0, t); }) :
				    write_in_place(s, buf + at, n, rs);
		if (rc < 0)
			break;
	}
	if (rc >= 0 && rnd(&rs) % 10 != 0) {
		rc = insist(rs, [&](int64_t t) { return ch_stream_end(s, t); });
		a.ended += rc == 0;
	} else if (rc >= 0 && rnd(&rs) % 2) {
		CHECK(ch_stream_cancel(s) == 0);
	}
	CHECK(rc >= 0 || rc == -EPIPE);
	ch_stream_close(s);
}

void listen_once(arena &a, struct ch_stream *s, uint64_t &rs)
{
	unsigned char buf[4096];
	size_t got = 0;
	ssize_t rc = 1;

	while (rc > 0) {
		struct ch_message msg = CH_MESSAGE_INIT;
		if (rnd(&rs) % 2) {
			const size_t most = 1 + rnd(&rs) % 900;
			rc = insist(rs, [&](int64_t t) { return ch_stream_read(s, buf + got, most, t, nullptr); });
			got += rc > 0 ? static_cast<size_t>(rc) : 0;
		} else if ((rc = insist(rs, [&](int64_t t) { return ch_stream_take(s, t, &msg, nullptr); })) > 0) {
			memcpy(buf + got, msg.data, msg.len);
			got += msg.len;
			ch_stream_release(s, &msg);
		}
	}
	CHECK(rc == 0 || rc == -ECANCELED);
	uint64_t talk = 0;
	memcpy(&talk, buf, 8);
	if (rc == 0) {
		CHECK(talk < a.nr_talks && got == length_of(talk) && is_filled(buf + 8, got - 8, talk, 1));
		CHECK(a.heard[talk]++ == 0);
		a.whole++;
	}
	ch_stream_close(s);
}

void reads(arena &a, uint64_t rs)
{
	struct ch_stream *s = nullptr;

	for (;;) {
		const bool is_last = a.writers_left == 0;
		const int rc = ch_stream_accept(a.port, rnd(&rs) % 2 ? 5 * MS : CH_TRY, &s);
		if (rc == 0)
			listen_once(a, s, rs);
		else if (is_last)
			return;
		CHECK(rc == 0 || rc == -EAGAIN || rc == -ETIMEDOUT);
	}
}

} // namespace

int main(int argc, char **argv)
{
	const stress::options o = stress::parse(argc, argv, 20000);
	struct ch_stream_attr attr = CH_STREAM_ATTR_INIT;
	struct ch_pool *pool = pool_of(4 << 20);
	struct ch_pool_stats before;
	struct ch_stream_port_stats st;
	arena a{};

	attr.nr_streams = 3;
	attr.capacity = 2;
	attr.chunk_len = 256;
	a.nr_talks = o.messages;
	a.heard = std::make_unique<std::atomic<uint8_t>[]>(o.messages);
	a.writers_left = o.threads;
	CHECK(ch_stream_port_create(pool, &attr, &a.port) == 0 && ch_pool_get_stats(pool, &before) == 0);
	stress::together(2 * o.threads, [&](int i) {
		uint64_t rs = o.seed * 64 + static_cast<uint64_t>(i) + 1;

		if (i >= o.threads)
			return reads(a, rs);
		for (uint64_t talk; (talk = a.next++) < a.nr_talks;)
			talk_once(a, talk, rs);
		a.writers_left--;
	});
	CHECK(a.ended == a.whole);
	CHECK(ch_stream_port_get_stats(a.port, &st) == 0 && st.nr_free == 3);
	CHECK(pool_is_as_before(pool, &before));
	ch_stream_port_destroy(a.port);
	ch_pool_destroy(pool);
	return stress::verdict("stream_stress", o);
}

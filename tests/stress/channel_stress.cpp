/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_stress.cpp - many threads of one process send and receive over one small channel, copying and in place,
 * trying, waiting a while and waiting forever. Every message arrives once, whole, and in the order of its sender.
 *
 * usage: channel_stress [--messages N] [--seed X] [--threads T]     T senders and T receivers
 */
#include "stress.h"
#include <memory>
#include <sched.h>

namespace {

struct message {
	uint32_t who, seq;
};

size_t length_of(message m)
{
	const uint32_t x = (m.who + 1) * 2654435761u + m.seq * 40503u;

	return x % 4 == 0 ? 8 + x / 4 % 3000 : 8 + x / 4 % 41;
}

void write_message(void *data, message m)
{
	auto *p = static_cast<unsigned char *>(data);

	memcpy(p, &m, sizeof(m));
	fill(p + sizeof(m), length_of(m) - sizeof(m), m.who, m.seq);
}

struct arena {
	struct ch_pool *pool;
	struct ch_channel *ch;
	uint32_t nr_each;
	std::unique_ptr<std::atomic<uint8_t>[]> counts;
	std::atomic<uint64_t> received{ 0 };
};

/* Would-block is tried again, as an application would. */
template <class F> int insist(uint64_t &rs, F call)
{
	const int64_t timeouts[] = { CH_TRY, 20000, 10 * MS, CH_FOREVER };

	for (;;) {
		const int err = call(timeouts[rnd(&rs) % 4]);

		if (err != -EAGAIN && err != -ETIMEDOUT && err != -ENOSPC)
			return err;
		if (err != -ETIMEDOUT)
			sched_yield();
	}
}

void send_all(arena &a, uint32_t who, uint64_t rs)
{
	unsigned char buf[4096];

	for (uint32_t seq = 0; seq < a.nr_each; seq++) {
		const message m = { who, seq };
		struct ch_message msg = CH_MESSAGE_INIT;

		if (rnd(&rs) % 2) {
			write_message(buf, m);
			CHECK(insist(rs, [&](int64_t t) { return ch_channel_send(a.ch, buf, length_of(m), t); }) == 0);
			continue;
		}
		CHECK(insist(rs, [&](int64_t t) { return ch_channel_claim(a.ch, length_of(m), t, &msg); }) == 0);
		write_message(msg.data, m);
		CHECK(insist(rs, [&](int64_t t) { return ch_channel_commit(a.ch, &msg, t); }) == 0);
	}
}

void account(arena &a, const void *data, size_t len, std::vector<uint32_t> &next)
{
	auto *p = static_cast<const unsigned char *>(data);
	message m;

	CHECK(len >= sizeof(m));
	memcpy(&m, p, sizeof(m));
	if (m.who >= next.size() || m.seq >= a.nr_each) {
		CHECK(!"a message that nobody sent");
		return;
	}
	CHECK(len == length_of(m) && is_filled(p + sizeof(m), len - sizeof(m), m.who, m.seq));
	CHECK(m.seq >= next[m.who]);
	next[m.who] = m.seq + 1;
	a.counts[m.who * a.nr_each + m.seq]++;
	a.received++;
}

void receive_all(arena &a, int nr_senders, uint64_t rs)
{
	std::vector<uint32_t> next(static_cast<size_t>(nr_senders));
	unsigned char buf[4096];

	for (;;) {
		struct ch_message msg = CH_MESSAGE_INIT;
		int n;

		if (rnd(&rs) % 2) {
			n = insist(rs, [&](int64_t t) { return (int)ch_channel_recv(a.ch, buf, sizeof(buf), t); });
			if (n >= 0)
				account(a, buf, static_cast<size_t>(n), next);
		} else {
			n = insist(rs, [&](int64_t t) { return ch_channel_take(a.ch, t, &msg); });
			if (n == 0)
				account(a, msg.data, msg.len, next);
			ch_channel_release(a.ch, &msg);
		}
		if (n == -EPIPE)
			return;
		CHECK(n >= 0);
	}
}

void round_trip(const stress::options &o, uint32_t capacity, uint64_t pool_len)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_pool_stats before;
	arena a;

	a.pool = pool_of(pool_len);
	attr.capacity = capacity;
	CHECK(ch_channel_create(a.pool, &attr, &a.ch) == 0);
	CHECK(ch_pool_get_stats(a.pool, &before) == 0);
	a.nr_each = static_cast<uint32_t>(o.messages / static_cast<uint64_t>(o.threads));
	const size_t nr = static_cast<size_t>(o.threads) * a.nr_each;
	a.counts = std::make_unique<std::atomic<uint8_t>[]>(nr);
	std::atomic<int> senders{ o.threads };
	stress::together(2 * o.threads, [&](int i) {
		const uint64_t rs = o.seed * 31 + static_cast<uint64_t>(i) + 1;

		if (i >= o.threads) {
			receive_all(a, o.threads, rs);
			return;
		}
		send_all(a, static_cast<uint32_t>(i), rs);
		if (--senders == 0)
			CHECK(ch_channel_close(a.ch) == 0);
	});
	CHECK(a.received == nr);
	for (size_t i = 0; i < nr; i++)
		CHECK(a.counts[i] == 1);
	CHECK(pool_is_as_before(a.pool, &before));
	ch_channel_destroy(a.ch);
	ch_pool_destroy(a.pool);
}

} // namespace

int main(int argc, char **argv)
{
	const stress::options o = stress::parse(argc, argv, 20000);

	round_trip(o, 2, 128 << 10); /* a pool that is often full */
	round_trip(o, 8, 1 << 20);
	round_trip(o, 1024, 8 << 20);
	return stress::verdict("channel", o);
}

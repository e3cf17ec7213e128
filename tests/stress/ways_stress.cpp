/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ways_stress.cpp - threads send and receive in all the ways beside the plain one: batches, urgent messages with tags
 * and receipts, peeks, acknowledged messages that are given back, and roles that are handed from thread to thread.
 * Every number arrives once.
 *
 * usage: ways_stress [--messages N] [--seed X] [--threads T]     T senders and T receivers
 */
#include "stress.h"
#include <memory>

namespace {

constexpr uint32_t BATCH = 12;

struct arena {
	struct ch_channel *ch = nullptr;
	uint32_t flags = 0;
	uint64_t nr = 0; /* numbers in all */
	std::atomic<uint64_t> next{0}, received{0};
	std::unique_ptr<std::atomic<uint8_t>[]> counts;
};

/* A number is a message of its own length, so that some lie in blocks. */
size_t length_of(uint64_t number)
{
	return number % 16 == 5 ? 60 + number % 500 : 8 + number % 30;
}

void write_number(void *at, uint64_t number)
{
	memcpy(at, &number, 8);
	fill(static_cast<char *>(at) + 8, length_of(number) - 8, 9, number);
}

bool is_number(const arena &a, const void *at, size_t len, uint64_t *out)
{
	if (len < 8)
		return false;
	memcpy(out, at, 8);
	return *out < a.nr && len == length_of(*out) && is_filled(static_cast<const char *>(at) + 8, len - 8, 9, *out);
}

void account(arena &a, const void *at, size_t len)
{
	uint64_t number = 0;

	if (!is_number(a, at, len, &number)) {
		CHECK(!"a message that nobody sent");
		return;
	}
	a.counts[number]++;
	a.received++;
}

/* The next numbers, n of them; less at the end. */
uint32_t draw(arena &a, uint32_t n, uint64_t *out_first)
{
	const uint64_t first = a.next.fetch_add(n);

	*out_first = first;
	return first >= a.nr ? 0 : first + n > a.nr ? static_cast<uint32_t>(a.nr - first) : n;
}

void send_batch(arena &a, uint64_t first, uint32_t n)
{
	unsigned char bytes[BATCH][600];
	struct ch_send_item items[BATCH];

	for (uint32_t i = 0; i < n; i++) {
		write_number(bytes[i], first + i);
		items[i] = {bytes[i], length_of(first + i)};
	}
	for (uint32_t done = 0; done < n;) {
		const ssize_t k = ch_channel_send_batch(a.ch, items + done, n - done, done % 2 ? CH_TRY : CH_FOREVER);

		if (k == -EAGAIN || k == -ENOSPC || k == -EBUSY) {
			sched_yield();
			continue;
		}
		CHECK(k > 0);
		done += k > 0 ? static_cast<uint32_t>(k) : n;
	}
}

void send_with_attributes(arena &a, uint64_t number, uint64_t &rs)
{
	struct ch_send_attr attr = CH_SEND_ATTR_INIT;
	unsigned char bytes[600];
	int rc;

	attr.flags = CH_MESSAGE_TAGGED | (a.flags & CH_CHANNEL_SPSC || rnd(&rs) % 2 ? 0 : CH_MESSAGE_URGENT);
	attr.tag = number;
	attr.completion = rnd(&rs) % 16 == 0 ? CH_RECEIVED : CH_QUEUED;
	write_number(bytes, number);
	while ((rc = ch_channel_send_attr(a.ch, bytes, length_of(number), &attr, rnd(&rs) % 2 ? 100000 : 10 * MS)) !=
	       0) {
		if (rc == -EINPROGRESS)
			return;
		CHECK(rc == -ETIMEDOUT || rc == -EBUSY);
		sched_yield();
	}
}

void send_all(arena &a, uint64_t rs)
{
	uint64_t first;

	for (;;) {
		const uint32_t n = draw(a, 1 + static_cast<uint32_t>(rnd(&rs) % BATCH), &first);

		if (n == 0)
			return;
		if (rnd(&rs) % 2)
			send_batch(a, first, n);
		else
			for (uint32_t i = 0; i < n; i++)
				send_with_attributes(a, first + i, rs);
		if (a.flags & CH_CHANNEL_SPSC) {
			const int rc = ch_channel_unbind(a.ch, CH_ROLE_SENDER);
			CHECK(rc == 0);
		}
	}
}

int receive_batch(arena &a)
{
	unsigned char bytes[BATCH][600];
	struct ch_recv_item items[BATCH];

	for (uint32_t i = 0; i < BATCH; i++)
		items[i] = {bytes[i], sizeof(bytes[i]), 0};
	const ssize_t n = ch_channel_recv_batch(a.ch, items, BATCH, 1 * MS);
	for (ssize_t i = 0; i < n; i++)
		account(a, bytes[i], items[i].len);
	return static_cast<int>(n);
}

int receive_one(arena &a)
{
	unsigned char bytes[600];
	struct ch_recv_info info;
	uint64_t number = 0;
	const ssize_t n = ch_channel_recv_info(a.ch, bytes, sizeof(bytes), 1 * MS, &info);

	if (n < 0)
		return static_cast<int>(n);
	CHECK(is_number(a, bytes, static_cast<size_t>(n), &number));
	CHECK(!(info.flags & CH_MESSAGE_TAGGED) || (info.tag == number && info.sender.id == ch_peer_self().id));
	account(a, bytes, static_cast<size_t>(n));
	return 0;
}

int receive_in_place(arena &a, uint64_t &rs)
{
	struct ch_message msg = CH_MESSAGE_INIT;
	const int rc = ch_channel_take(a.ch, 1 * MS, &msg);

	if (rc < 0)
		return rc;
	if ((a.flags & CH_CHANNEL_ACKNOWLEDGED) && rnd(&rs) % 4 == 0) {
		CHECK(ch_channel_requeue(a.ch, &msg) == 0);
		return 0;
	}
	account(a, msg.data, msg.len);
	ch_channel_release(a.ch, &msg);
	return 0;
}

void peek(arena &a)
{
	unsigned char bytes[600];
	uint64_t number;
	const ssize_t n = ch_channel_peek(a.ch, bytes, sizeof(bytes), CH_TRY, nullptr);

	CHECK(n == -EAGAIN || n == -EPIPE || (n > 0 && is_number(a, bytes, static_cast<size_t>(n), &number)));
}

void receive_all(arena &a, uint64_t rs)
{
	for (int rc = 0; rc != -EPIPE;) {
		if (rnd(&rs) % 4 == 0)
			peek(a);
		rc = rnd(&rs) % 3 == 0 ? receive_batch(a) : rnd(&rs) % 2 ? receive_one(a) : receive_in_place(a, rs);
		CHECK(rc >= 0 || rc == -ETIMEDOUT || rc == -EPIPE || rc == -EBUSY);
		if (rc == -EBUSY)
			sched_yield();
		else if (a.flags & CH_CHANNEL_SPSC)
			CHECK(ch_channel_unbind(a.ch, CH_ROLE_RECEIVER) == 0);
	}
}

void round_trip(const stress::options &o, uint32_t capacity, uint32_t flags)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_pool *pool = pool_of(4 << 20);
	struct ch_pool_stats before;
	arena a;

	attr.capacity = capacity;
	attr.flags = flags;
	attr.urgent_capacity = flags & CH_CHANNEL_SPSC ? 0 : capacity;
	CHECK(ch_channel_create(pool, &attr, &a.ch) == 0);
	CHECK(ch_pool_get_stats(pool, &before) == 0);
	a.flags = flags;
	a.nr = o.messages;
	a.counts = std::make_unique<std::atomic<uint8_t>[]>(a.nr);
	std::atomic<int> senders{o.threads};
	stress::together(2 * o.threads, [&](int i) {
		const uint64_t rs = o.seed * 31 + static_cast<uint64_t>(i) + 1;

		if (i >= o.threads) {
			receive_all(a, rs);
			return;
		}
		send_all(a, rs);
		if (--senders == 0)
			CHECK(ch_channel_close(a.ch) == 0);
	});
	CHECK(a.received == a.nr);
	for (uint64_t i = 0; i < a.nr; i++)
		CHECK(a.counts[i] == 1);
	CHECK(pool_is_as_before(pool, &before));
	ch_channel_destroy(a.ch);
	ch_pool_destroy(pool);
}

} // namespace

int main(int argc, char **argv)
{
	stress::options o = stress::parse(argc, argv, 6000);

	for (uint32_t flags : {0u, CH_CHANNEL_SPSC, CH_CHANNEL_ACKNOWLEDGED})
		for (uint32_t capacity : {1u, 16u})
			round_trip(o, capacity, flags);
	return stress::verdict("ways", o);
}

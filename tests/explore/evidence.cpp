/* SPDX-License-Identifier: Apache-2.0 */
/* evidence.cpp - sends and receives that are written down. */
#include "evidence.h"
#include <cerrno>

namespace ch::explore {

evidence seen;

static constexpr u64 BLOCK_LEN = PAGE; // one to a page, so that sweeps have few to look at

void forget_evidence()
{
	seen = {};
}

static u64 next_message()
{
	return static_cast<u64>(me()) * 16 + static_cast<u64>(++seen.tried[me()]);
}

static int sent(int rc)
{
	seen.sent[me()] += rc == 0;
	seen.tried[me()] -= rc != 0; // it may be tried again
	return rc;
}

int send_one(ch_channel *ch, i64 timeout_ns)
{
	const u64 m = next_message();

	return sent(ch_channel_send(ch, &m, sizeof(m), timeout_ns));
}

int send_with(ch_channel *ch, const ch_send_attr &a, i64 timeout_ns)
{
	const u64 m = next_message();

	return sent(ch_channel_send_attr(ch, &m, sizeof(m), &a, timeout_ns));
}

int send_block_of(ch_channel *ch, i64 timeout_ns)
{
	ch_message msg = CH_MESSAGE_INIT;
	const u64 m = next_message();
	int rc = ch_channel_claim(ch, BLOCK_LEN, timeout_ns, &msg);

	if (rc == 0) {
		std::memcpy(msg.data, &m, sizeof(m));
		rc = ch_channel_commit(ch, &msg, timeout_ns);
		ch_channel_abort(ch, &msg);
	}
	return sent(rc);
}

void received(u64 m)
{
	require(seen.nr_got[me()] < 2 * MAX_MESSAGES, "far too many messages");
	seen.got[me()][seen.nr_got[me()]++] = m;
	seen.in_hand[me()] = 0;
}

int receive_one(ch_channel *ch, i64 timeout_ns)
{
	const ssize_t n = ch_channel_recv(ch, &seen.in_hand[me()], sizeof(u64), timeout_ns);

	require(n < 0 || n == sizeof(u64), "a message of another length");
	if (n < 0)
		return static_cast<int>(n);
	received(seen.in_hand[me()]);
	return 0;
}

int receive_block_of(ch_channel *ch, i64 timeout_ns)
{
	ch_message msg = CH_MESSAGE_INIT;
	u64 m;

	seen.in_hand[me()] = ~u64{0}; // any: a block is taken over before we see what is in it
	const int rc = ch_channel_take(ch, timeout_ns, &msg);
	if (rc < 0) {
		seen.in_hand[me()] = 0;
		return rc;
	}
	require(msg.len == BLOCK_LEN, "a message of another length");
	std::memcpy(&m, msg.data, sizeof(m));
	if (ch->r.flags & CH_CHANNEL_ACKNOWLEDGED) { // ours when it is released, and not before
		ch_channel_release(ch, &msg);
		received(m);
	} else {
		received(m);
		ch_channel_release(ch, &msg);
	}
	return 0;
}

void some(step what, int n)
{
	for (int i = 0; i < n; i++)
		require(what(&self().ch, CH_FOREVER) == 0, "a call failed");
}

void close_it()
{
	require(ch_channel_close(&self().ch) == 0, "close failed");
}

void batch_out(u32 n)
{
	u64 m[MAX_MESSAGES];
	ch_send_item items[MAX_MESSAGES];

	for (u32 k = 0; k < n; k++) {
		m[k] = static_cast<u64>(me()) * 16 + k + 1;
		items[k] = {&m[k], sizeof(m[k])};
	}
	seen.tried[me()] = static_cast<int>(n);
	for (u32 done = 0; done < n;) {
		const ssize_t k = ch_channel_send_batch(&self().ch, items + done, n - done, CH_FOREVER);
		require(k > 0 && k <= n - done, "a batch failed");
		done += static_cast<u32>(k);
		seen.sent[me()] = static_cast<int>(done);
	}
}

void batch_in(int n)
{
	u64 m[MAX_MESSAGES];
	ch_recv_item items[MAX_MESSAGES];

	for (int k = 0; k < n; k++)
		items[k] = {&m[k], sizeof(m[k]), 0};
	while (n > 0) {
		const ssize_t k = ch_channel_recv_batch(&self().ch, items, static_cast<size_t>(n), CH_FOREVER);
		require(k > 0 && k <= n, "a batch failed");
		for (ssize_t i = 0; i < k; i++)
			seen.got[me()][seen.nr_got[me()]++] = m[i];
		n -= static_cast<int>(k);
	}
}

int got_from(int sender)
{
	int n = 0;

	for (int k = 0; k < seen.nr_got[me()]; k++)
		n += seen.got[me()][k] / 16 == static_cast<u64>(sender);
	return n;
}

static int times_got(u64 m)
{
	int n = 0;

	for (int i = 0; i < MAX_THREADS; i++)
		for (int k = 0; k < seen.nr_got[i]; k++)
			n += seen.got[i][k] == m;
	return n;
}

static bool is_in_dead_hands(u64 m)
{
	for (int i = 0; i < MAX_THREADS; i++)
		if (is_dead(i) && (seen.in_hand[i] == m || seen.in_hand[i] == ~u64{0}))
			return true;
	return false;
}

static void require_order(int who)
{
	int last[MAX_THREADS] = {};

	for (int k = 0; k < seen.nr_got[who]; k++) {
		const u64 from = seen.got[who][k] / 16;
		const int nr = static_cast<int>(seen.got[who][k] % 16);
		require(from < MAX_THREADS && nr > 0 && nr <= seen.tried[from], "a message that nobody sent");
		require(nr > last[from], "out of order");
		last[from] = nr;
	}
}

void require_delivery(bool is_drained)
{
	bool is_any_dead = false;
	int lost = 0;

	for (int i = 0; i < MAX_THREADS; i++)
		is_any_dead |= is_dead(i);
	for (u64 i = 0; i < MAX_THREADS; i++) {
		if (!is_any_dead)
			require_order(static_cast<int>(i)); // what a dead reader left is offered out of order
		for (int nr = 1; nr <= seen.tried[i]; nr++) {
			const u64 m = i * 16 + static_cast<u64>(nr);
			const int n = times_got(m);
			require(n <= 1, "a message twice");
			require(n == 0 || nr <= seen.sent[i] || is_dead(static_cast<int>(i)), "a message that was refused");
			if (n == 1 || nr > seen.sent[i] || !is_drained)
				continue;
			require(is_in_dead_hands(m), "a message was lost");
			lost++;
		}
	}
	require(lost <= 1, "messages were lost");
}

void end_drained()
{
	require_delivery(true);
	if (!process_of(0).ch.r.is_spsc)
		require_empty_ring(process_of(0).ch.r);
	require_free_pool(1);
}

void end_delivered() { require_delivery(false); }

} // namespace ch::explore

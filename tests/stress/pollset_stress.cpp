/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pollset_stress.cpp - senders, and threads that wait in two poll sets over the same channels: one level-triggered and
 * shared by all, one edge-triggered and behind epoll. Meanwhile members are modified, removed and added again, and
 * channels of another pool come and go as members. Every message is received; an event that is missed is a hang.
 *
 * usage: pollset_stress [--messages N] [--seed X] [--threads T]     T senders, T threads in the shared set
 */
#include "stress.h"
#include <memory>
#include <sched.h>
#include <sys/epoll.h>

namespace {

constexpr int nr_channels = 24;

struct arena {
	struct ch_pool *pool, *other;
	struct ch_channel *all[nr_channels];
	struct ch_pollset *level, *edge;
	uint64_t total;
	std::atomic<uint64_t> received{ 0 };
	std::atomic<bool> is_over{ false };
};

void add_all(arena &a, struct ch_pollset *set, uint32_t events)
{
	for (uint64_t i = 0; i < nr_channels; i++)
		CHECK(ch_pollset_add(set, a.all[i], events, i) == 0);
}

/* Who receives the last message closes a channel, which every waiter hears of. */
void got_one(arena &a)
{
	if (++a.received == a.total) {
		a.is_over = true;
		CHECK(ch_channel_close(a.all[0]) == 0);
	}
}

void send_all(arena &a, uint64_t nr, uint64_t rs)
{
	for (uint64_t k = 0; k < nr; k++) {
		const int err = ch_channel_send(a.all[1 + rnd(&rs) % (nr_channels - 1)], &k, sizeof(k), CH_FOREVER);

		CHECK(err == 0);
		if (rnd(&rs) % 16 == 0)
			sched_yield();
	}
}

/* Takes one message for each event, so that much is left to others. */
void wait_level(arena &a, uint64_t rs)
{
	const int64_t timeouts[] = { 20000, 10 * MS, CH_FOREVER, CH_FOREVER };
	struct ch_poll_event ev[4];
	uint64_t k;

	while (!a.is_over) {
		const int n = ch_pollset_wait(a.level, ev, 1 + static_cast<uint32_t>(rnd(&rs) % 4), timeouts[rnd(&rs) % 4]);

		CHECK(n > 0 || n == -ETIMEDOUT);
		for (int i = 0; i < n; i++) {
			CHECK(ev[i].user_data < nr_channels);
			if (ev[i].events & CH_POLL_IN && ch_channel_recv(a.all[ev[i].user_data], &k, sizeof(k), CH_TRY) > 0)
				got_one(a);
		}
	}
}

/* Drains what is told of, for edges come once. */
void wait_by_epoll(arena &a)
{
	const int ep = epoll_create1(EPOLL_CLOEXEC), fd = ch_pollset_fd(a.edge);
	struct epoll_event want = {}, got;
	struct ch_poll_event ev[4];
	uint64_t k;

	want.events = EPOLLIN | EPOLLET;
	CHECK(fd >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, fd, &want) == 0);
	while (!a.is_over) {
		int n;

		CHECK(epoll_wait(ep, &got, 1, -1) == 1 || errno == EINTR);
		while ((n = ch_pollset_wait(a.edge, ev, 4, CH_TRY)) > 0)
			for (int i = 0; i < n; i++)
				while (ch_channel_recv(a.all[ev[i].user_data], &k, sizeof(k), CH_TRY) > 0)
					got_one(a);
		CHECK(n == -EAGAIN);
	}
	close(ep);
}

/* Members go and come back: what is in them then is an event. */
void change_members(arena &a, uint64_t rs)
{
	while (!a.is_over) {
		const uint64_t i = 1 + rnd(&rs) % (nr_channels - 1);
		const bool is_edge = rnd(&rs) % 2;
		struct ch_pollset *set = is_edge ? a.edge : a.level;
		const uint32_t events = is_edge ? CH_POLL_IN | CH_POLL_EDGE : CH_POLL_IN;

		if (rnd(&rs) % 2) {
			CHECK(ch_pollset_remove(set, a.all[i]) == 0);
			CHECK(ch_pollset_add(set, a.all[i], events, i) == 0);
		} else {
			CHECK(ch_pollset_modify(set, a.all[i], events, i) == 0);
		}
		if (rnd(&rs) % 4 == 0) {
			struct ch_channel *guest = nullptr;
			CHECK(ch_channel_create(a.other, nullptr, &guest) == 0);
			CHECK(ch_pollset_add(a.level, guest, CH_POLL_OUT | CH_POLL_EDGE, 0) == 0);
			if (rnd(&rs) % 2)
				sched_yield();
			CHECK(ch_pollset_remove(a.level, guest) == 0);
			ch_channel_destroy(guest);
		}
		short_nap();
	}
}

void run(const stress::options &o)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	arena a;
	const int t = o.threads;

	a.pool = pool_of(4 << 20);
	a.other = pool_of(1 << 20);
	a.total = o.messages / static_cast<uint64_t>(t) * static_cast<uint64_t>(t);
	attr.capacity = 8;
	for (auto &ch : a.all)
		CHECK(ch_channel_create(a.pool, &attr, &ch) == 0);
	CHECK(ch_pollset_create(nullptr, &a.level) == 0 && ch_pollset_create(nullptr, &a.edge) == 0);
	add_all(a, a.level, CH_POLL_IN);
	add_all(a, a.edge, CH_POLL_IN | CH_POLL_EDGE);
	stress::together(2 * t + 2, [&](int who) {
		const uint64_t rs = o.seed + static_cast<uint64_t>(who) * 7919 + 1;
		if (who < t)
			send_all(a, a.total / static_cast<uint64_t>(t), rs);
		else if (who < 2 * t)
			wait_level(a, rs);
		else if (who == 2 * t)
			wait_by_epoll(a);
		else
			change_members(a, rs);
	});
	CHECK(a.received == a.total);
	ch_pollset_destroy(a.level);
	ch_pollset_destroy(a.edge);
	ch_pool_destroy(a.other);
	ch_pool_destroy(a.pool);
}

} // namespace

int main(int argc, char **argv)
{
	const stress::options o = stress::parse(argc, argv, 20000);

	run(o);
	return stress::verdict("pollset", o);
}

// SPDX-License-Identifier: Apache-2.0
// pollset_bench.cpp - what waiting in a poll set costs beside waiting in one channel, with more and more idle members.
#include "bench.h"
#include "loops.h"
#include <channels/channels.h>
#include <stdexcept>

using namespace bench;

namespace {

int sound(int rc, const char *what)
{
	if (rc < 0)
		throw std::runtime_error(std::string(what) + ": " + strerror(-rc) + " (" + ch_errmsg() + ")");
	return rc;
}

// Two channels between two processes, and as many idle ones for each of the two.
class stage {
	struct ch_pool *pool = nullptr;

	struct ch_channel *channel(std::uint32_t capacity, std::uint32_t spin_ns)
	{
		ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
		ch_channel *ch = nullptr;

		attr.capacity = capacity;
		attr.spin_ns = spin_ns;
		attr.max_watchers = 2;
		sound(ch_channel_create(pool, &attr, &ch), "ch_channel_create");
		return ch;
	}

public:
	std::array<struct ch_channel *, 2> busy{};
	std::vector<struct ch_channel *> idle{};

	stage(std::size_t nr_idle, std::uint32_t spin_ns)
	{
		ch_pool_attr attr = CH_POOL_ATTR_INIT;

		attr.len = (std::size_t{4} << 20) + nr_idle * 4096;
		attr.max_peers = 16;
		sound(ch_pool_create(&attr, &pool), "ch_pool_create");
		for (auto &ch : busy)
			ch = channel(4, spin_ns);
		for (std::size_t i = 0; i < nr_idle; i++)
			idle.push_back(channel(2, spin_ns));
	}
	stage(const stage &) = delete;
	stage &operator=(const stage &) = delete;
	~stage() { ch_pool_destroy(pool); } // its channels go with it
};

int whole(ssize_t got, std::size_t len)
{
	return got < 0 ? static_cast<int>(got) : static_cast<std::size_t>(got) == len ? 0 : -EPROTO;
}

struct channel_end {
	struct ch_channel *to, *from;

	int send(const void *buf, std::size_t len) { return ch_channel_send(to, buf, len, CH_FOREVER); }
	int recv(void *buf, std::size_t len) { return whole(ch_channel_recv(from, buf, len, CH_FOREVER), len); }
};

// Waits in a set of which only one member ever has a message.
class polling_end {
	struct ch_channel *to, *from;
	struct ch_pollset *set = nullptr;

public:
	polling_end(const stage &s, int side, std::uint32_t spin_ns, std::uint32_t flags)
	    : to(s.busy[static_cast<std::size_t>(side)]), from(s.busy[static_cast<std::size_t>(1 - side)])
	{
		ch_pollset_attr attr = CH_POLLSET_ATTR_INIT;

		attr.max_members = 8192;
		attr.spin_ns = spin_ns;
		sound(ch_pollset_create(&attr, &set), "ch_pollset_create");
		for (std::size_t i = 0; i < s.idle.size(); i++)
			sound(ch_pollset_add(set, s.idle[i], CH_POLL_IN | flags, i), "ch_pollset_add");
		sound(ch_pollset_add(set, from, CH_POLL_IN | flags, ~0ULL), "ch_pollset_add");
	}
	polling_end(const polling_end &) = delete;
	polling_end &operator=(const polling_end &) = delete;
	~polling_end() { ch_pollset_destroy(set); }

	int send(const void *buf, std::size_t len) { return ch_channel_send(to, buf, len, CH_FOREVER); }
	int recv(void *buf, std::size_t len)
	{
		ch_poll_event ev;

		for (;;) {
			if (int rc = ch_pollset_wait(set, &ev, 1, CH_FOREVER); rc < 0)
				return rc;
			if (ev.user_data != ~0ULL)
				return -EPROTO;
			if (ssize_t n = ch_channel_recv(from, buf, len, CH_TRY); n != -EAGAIN)
				return whole(n, len);
		}
	}
};

sample in_channel(std::uint32_t spin_ns)
{
	return guarded([=] {
		stage s(0, spin_ns);
		return ping_pong(8, [&](int side) {
			return channel_end{s.busy[static_cast<std::size_t>(side)], s.busy[static_cast<std::size_t>(1 - side)]};
		});
	});
}

sample in_set(std::size_t nr_idle, std::uint32_t spin_ns, std::uint32_t flags)
{
	return guarded([=] {
		stage s(nr_idle, spin_ns);
		return ping_pong(8, [&](int side) { return polling_end(s, side, spin_ns, flags); });
	});
}

// Members come, are armed by a wait, and go with their set.
sample life_of_members(std::size_t nr)
{
	return guarded([=] {
		stage s(nr, 0);
		ch_poll_event ev;
		ch_pollset_attr attr = CH_POLLSET_ATTR_INIT;
		std::uint64_t done = 0, ns = 0;

		attr.max_members = static_cast<std::uint32_t>(nr);
		while (ns < conf().run_ns) {
			const std::uint64_t begin = ticks();
			ch_pollset *set;
			sound(ch_pollset_create(&attr, &set), "ch_pollset_create");
			for (ch_channel *ch : s.idle)
				sound(ch_pollset_add(set, ch, CH_POLL_IN, 0), "ch_pollset_add");
			if (ch_pollset_wait(set, &ev, 1, CH_TRY) != -EAGAIN)
				throw std::runtime_error("an event of an idle member");
			ch_pollset_destroy(set);
			ns += static_cast<std::uint64_t>(static_cast<double>(ticks() - begin) / ticks_per_ns());
			done += nr;
		}
		sample r;
		r.value = static_cast<double>(ns) / static_cast<double>(done);
		return r;
	});
}

} // namespace

int main(int argc, char **argv)
{
	for (std::size_t nr : {100, 1000, 10000, 65536})
		add_row({"pollset/members_" + std::to_string(nr), "ns for a member to come and go; baseline: in a set of 100",
			 [=] { return life_of_members(nr); }, [] { return life_of_members(100); }});
	for (std::size_t nr : {1, 10, 100, 1000, 4000})
		add_row({"pollset/wakeup_" + std::to_string(nr) + "/8", "ns one way, blocking; baseline: in the channel itself",
			 [=] { return in_set(nr - 1, CH_SPIN_NEVER, 0); }, [] { return in_channel(CH_SPIN_NEVER); }});
	add_row({"pollset/wakeup_edge_1000/8", "ns one way, blocking, edge-triggered; baseline: in the channel itself",
		 [] { return in_set(999, CH_SPIN_NEVER, CH_POLL_EDGE); }, [] { return in_channel(CH_SPIN_NEVER); }});
	add_row({"pollset/latency_spin_1000/8", "ns one way, busy; baseline: in the channel itself",
		 [] { return in_set(999, CH_SPIN_ALWAYS, 0); }, [] { return in_channel(CH_SPIN_ALWAYS); }});
	return run_rows(argc, argv, {{"libchannels", ch_version()}});
}

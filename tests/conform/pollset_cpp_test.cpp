// SPDX-License-Identifier: Apache-2.0
// poll_set.hpp: the C++ side of poll sets, and coroutines that wait in one.
#include "../support/support.h"
#include <channels/poll_set.hpp>
#include <channels/stream.hpp>
#include <channels/sync.hpp>
#include <criterion/criterion.h>
#include <numeric>
#include <poll.h>
#include <thread>
#include <vector>

TestSuite(poll_set, .timeout = WATCHDOG_S);

using namespace std::chrono_literals;

namespace {

ch::memory_pool make_pool()
{
	return ch::memory_pool::create(4 << 20, 16);
}

std::span<const std::byte> bytes(const int &value)
{
	return std::as_bytes(std::span(&value, 1));
}

int value_of(ch::channel &c)
{
	int value = -1;

	return ch_channel_recv(c.get(), &value, sizeof(value), CH_TRY) > 0 ? value : -1; // nor when it is closed
}

static_assert(ch::pollable<ch::channel> && ch::pollable<ch::stream_port> && ch::pollable<ch::event>);
static_assert(!ch::pollable<ch::mutex> && !ch::pollable<ch::condition> && !ch::pollable<ch::barrier>);

// A coroutine that starts at once and is nobody's.
struct fire {
	struct promise_type {
		fire get_return_object() { return {}; }
		std::suspend_never initial_suspend() noexcept { return {}; }
		std::suspend_never final_suspend() noexcept { return {}; }
		void return_void() {}
		void unhandled_exception() { std::terminate(); }
	};
};

fire sum_up(ch::poll_loop &loop, ch::channel &c, int &sum)
{
	while (!(co_await loop.ready(c, ch::poll::in) & ch::poll::closed))
		for (int v; (v = value_of(c)) >= 0;)
			sum += v;
	for (int v; (v = value_of(c)) >= 0;)
		sum += v;
}

} // namespace

Test(poll_set, events_come_with_user_data)
{
	auto pool = make_pool();
	auto a = ch::channel::create(pool), b = ch::channel::create(pool);
	ch::poll_set set(ch::poll_set::options{.max_members = 2, .spin_ns = 0});
	std::array<ch::poll_event, 4> room;

	set.add(a, ch::poll::in, 1);
	set.add(b, ch::poll::in | ch::poll::edge, 2);
	cr_assert(set.try_wait(room).empty());
	cr_assert(set.wait_for(room, 1ms).empty());
	cr_assert(b.try_send(bytes(5)));
	auto got = set.wait(room);
	cr_assert_eq(got.size(), 1u);
	cr_assert_eq(got[0].user_data, 2u);
	cr_assert_eq(got[0].events, ch::poll::in);
	set.modify(a, ch::poll::out, 3);
	got = set.wait_for(room, 1h);
	cr_assert_eq(got.size(), 1u);
	cr_assert_eq(got[0].user_data, 3u);
	set.remove(a);
	cr_assert(set.try_wait(room).empty());
	auto moved = std::move(set);
	cr_assert_eq(value_of(b), 5);
	cr_assert(b.try_send(bytes(6)));
	cr_assert_eq(moved.wait(room).size(), 1u);
	pool.destroy();
}

Test(poll_set, streams_semaphores_and_events_are_members_too)
{
	auto pool = make_pool();
	auto port = ch::stream_port::create(pool, {.max_watchers = 1});
	auto units = ch::semaphore::create(pool, {.value = 1, .max_watchers = 1});
	auto stop = ch::event::create(pool, {.max_watchers = 1});
	ch::poll_set set;
	std::array<ch::poll_event, 8> room;

	set.add(port, ch::poll::in, 1);
	set.add(units, ch::poll::in, 2);
	set.add(stop, ch::poll::in, 3);
	cr_assert_eq(set.wait(room).size(), 1u);
	cr_assert_eq(room[0].user_data, 2u);
	units.acquire();
	cr_assert(set.try_wait(room).empty());
	auto out = port.open();
	cr_assert_eq(set.wait(room).size(), 1u);
	cr_assert_eq(room[0].user_data, 1u);
	auto in = port.accept();
	set.add(in, ch::poll::in, 4);
	cr_assert(set.try_wait(room).empty());
	out.write(bytes(1));
	out.end();
	stop.set();
	cr_assert_eq(set.wait(room).size(), 2u);
	set.remove(stop);
	cr_assert_eq(set.try_wait(room).size(), 1u);
	cr_assert_eq(room[0].events, ch::poll::in | ch::poll::closed);
	set.modify(in, 0, 5);
	cr_assert_eq(set.wait(room).size(), 1u);
	cr_assert_eq(room[0].events, ch::poll::closed);
	in.close();
	cr_assert(set.try_wait(room).empty());
	pool.destroy();
}

Test(poll_set, failures_are_exceptions)
{
	auto pool = make_pool();
	auto a = ch::channel::create(pool);
	ch::poll_set set;
	int code = 0;

	set.add(a, 0);
	try {
		set.add(a, 0);
	} catch (const ch::error &e) {
		code = e.code().value();
	}
	cr_assert_eq(code, EEXIST);
	pool.destroy();
}

namespace {

fire count_units(ch::poll_loop &loop, ch::semaphore &units, int &n)
{
	while (n < 300) {
		co_await loop.ready(units, ch::poll::in);
		while (units.try_acquire())
			n++;
	}
}

} // namespace

Test(poll_set, coroutines_wait_for_semaphores)
{
	auto pool = make_pool();
	auto mine = ch::semaphore::create(pool, {.value = 0}), theirs = ch::semaphore::attach(mine.descr());
	ch::poll_loop loop;
	int n = 0;

	count_units(loop, mine, n);
	std::thread giver([&] {
		for (int k = 0; k < 100; k++)
			theirs.release(3);
	});
	loop.run();
	giver.join();
	cr_assert_eq(n, 300);
	pool.destroy();
}

Test(poll_set, coroutines_wait_for_channels)
{
	auto pool = make_pool();
	std::vector<ch::channel> all;
	std::vector<int> sums(10);
	ch::poll_loop loop;

	for (int i = 0; i < 10; i++)
		all.push_back(ch::channel::create(pool));
	for (size_t i = 0; i < 10; i++)
		sum_up(loop, all[i], sums[i]);
	cr_assert(loop.run_once(ch::nanoseconds(0)));
	std::thread sender([&] {
		for (int k = 1; k <= 1000; k++)
			all[static_cast<size_t>(k) % 10].send(bytes(k));
		for (auto &c : all)
			c.close();
	});
	loop.run();
	sender.join();
	cr_assert_eq(std::accumulate(sums.begin(), sums.end(), 0), 500500);
	cr_assert_not(loop.run_once());
	pool.destroy();
}

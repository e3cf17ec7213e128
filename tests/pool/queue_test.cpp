// SPDX-License-Identifier: Apache-2.0
// queue_test.cpp - typed queues: within a process, between processes, full, closed, in pieces, by level, acknowledged.
#include "pool_support.hpp"
#include <csignal>
#include <dlfcn.h>
#include <map>
#include <numeric>
#include <set>

TestSuite(pool_queue, .timeout = WATCHDOG_S);

namespace {

std::atomic<bool> dies_before_it_tells{false};
thread_local bool dawdles_before_it_closes = false;

} // namespace

// These stand before the library's. This one the queue calls to tell who sleeps of a value at a higher level.
extern "C" int ch_channel_send_attr(ch_channel *c, const void *buf, std::size_t len, const ch_send_attr *attr,
				    std::int64_t timeout_ns)
{
	static const auto real = reinterpret_cast<decltype(&ch_channel_send_attr)>(dlsym(RTLD_NEXT, "ch_channel_send_attr"));

	if (dies_before_it_tells)
		raise(SIGKILL);
	return real(c, buf, len, attr, timeout_ns);
}

// And this one for the page that it believes to be the last.
extern "C" int ch_channel_close(ch_channel *c)
{
	static const auto real = reinterpret_cast<decltype(&ch_channel_close)>(dlsym(RTLD_NEXT, "ch_channel_close"));

	if (dawdles_before_it_closes)
		std::this_thread::sleep_for(std::chrono::milliseconds(1));
	return real(c);
}

using namespace std::chrono_literals;

Test(pool_queue, values_of_every_kind_come_out_as_they_went_in)
{
	ch::queue<int> ints(ch::queue_options{});
	ch::queue<std::string> strings({.capacity = 8});
	ch::queue<std::vector<double>> vectors({.capacity = 8});
	ch::queue<std::map<std::string, std::vector<int>>> maps({.capacity = 8});

	ints.put(5);
	cr_assert_eq(ints.get(), 5);
	for (const std::size_t n : {0, 1, 111, 112, 113, 1024, 1025, 100000}) {
		strings.put(std::string(n, 's'));
		cr_assert_eq(strings.get(), std::string(n, 's'));
		vectors.put(std::vector<double>(n, 1.5));
		cr_assert_eq(vectors.get(), std::vector<double>(n, 1.5));
	}
	maps.put({{"a", {1, 2}}, {"b", {}}});
	cr_assert_eq(maps.get().at("a").at(1), 2);
}

Test(pool_queue, a_full_queue_and_an_empty_one_make_wait_or_say_so)
{
	ch::queue<int> q({.capacity = 4});

	cr_assert_not(q.try_get());
	cr_assert_not(q.get_for(1ms));
	cr_assert(q.empty());
	for (int i = 0; i < 4; i++)
		cr_assert(q.try_put(i));
	cr_assert_not(q.try_put(4));
	cr_assert_not(q.put_for(4, 1ms));
	cr_assert(q.full());
	cr_assert_eq(q.size(), 4u);
	std::thread late([&] { q.put(4); });
	for (int i = 0; i < 5; i++)
		cr_assert_eq(q.get(), i);
	late.join();
}

Test(pool_queue, a_closed_queue_is_emptied_and_then_ends)
{
	ch::queue<int> q({.capacity = 4});
	int sum = 0;

	q.put(1);
	q.put(2);
	q.close();
	cr_assert_eq(error_of([&] { q.put(3); }), EPIPE);
	for (const int i : q)
		sum += i;
	cr_assert_eq(sum, 3);
	cr_assert_not(q.next());
	cr_assert_eq(error_of([&] { q.get(); }), EPIPE);
}

Test(pool_queue, a_queue_is_an_argument_a_result_a_capture_and_a_value)
{
	ch::pool p(2);
	ch::queue<int> q({.capacity = 64});
	ch::queue<ch::queue<int>> queues({.capacity = 4});

	p.submit([](ch::queue<int> a, int x) { a.put(x); }, q, 1).get();
	p.submit([r = q.ref()](int x) { r->put(x); }, 2).get();
	p.submit([](ch::queue<int> a) { return a; }, q).get().put(3);
	queues.put(q);
	p.submit([](ch::queue<ch::queue<int>> a) { a.get().put(4); }, queues).get();
	for (int i = 1; i <= 4; i++)
		cr_assert_eq(q.get(), i);
	cr_assert(q.empty());
}

// Every number once, whoever put it and whoever got it.
static void many_to_many(ch::queue<long> q, long each)
{
	ch::pool p(4);
	ch::queue<long> sums({.capacity = 8});
	std::vector<ch::future<void>> producers, consumers;

	for (long i = 0; i < 2; i++)
		consumers.push_back(p.submit(
			[](ch::queue<long> in, ch::queue<long> out) {
				long sum = 0;

				for (const long x : in)
					sum += x;
				out.put(sum);
			},
			q, sums));
	for (long i = 0; i < 2; i++)
		producers.push_back(p.submit(
			[](ch::queue<long> out, long from, long n) {
				for (long x = from; x < from + n; x++)
					out.put(x);
			},
			q, i * each, each));
	for (auto &f : producers)
		f.get();
	q.close();
	for (auto &f : consumers)
		f.get();
	cr_assert_eq(sums.get() + sums.get(), 2 * each * (2 * each - 1) / 2);
}

Test(pool_queue, many_producers_and_consumers_lose_and_double_nothing)
{
	many_to_many(ch::queue<long>({.capacity = 16}), 20000);
}

Test(pool_queue, a_queue_without_limit_spills_into_more_memory_and_keeps_its_order)
{
	ch::queue<std::vector<int>> q({.capacity = 0, .memory = 1 << 20});

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 400; i++)
			cr_assert(q.put_for(std::vector<int>(2500, i), 5s)); // 4 MB in pieces of 1
		cr_assert_eq(q.size(), 400u);
		for (int i = 0; i < 400; i++)
			cr_assert_eq(q.get().at(2499), i);
		cr_assert(q.empty());
	}
	q.close();
	cr_assert_not(q.next());
	cr_assert_eq(error_of([&] { q.put({}); }), EPIPE);
}

Test(pool_queue, many_use_a_queue_without_limit_at_a_time)
{
	many_to_many(ch::queue<long>({.capacity = 0, .memory = 1 << 20}), 40000);
}

// The page that is closed may have been drained and ended a moment before.
Test(pool_queue, a_queue_without_limit_is_closed_at_any_moment)
{
	std::uint64_t seed = test_seed();
	ch::pool p(2);

	dawdles_before_it_closes = true;
	for (int round = 0; round < 100; round++) {
		ch::queue<std::vector<int>> q({.capacity = 0, .memory = 1 << 20});
		auto put = p.submit(
			[](ch::queue<std::vector<int>> out) {
				const std::vector<int> large(20000);
				long n = 0;

				while (error_of([&] { out.put(large); }) == 0)
					n++;
				return n;
			},
			q);
		auto got = p.submit(
			[](ch::queue<std::vector<int>> in) {
				long n = 0;

				while (in.next())
					n++;
				return n;
			},
			q);
		std::this_thread::sleep_for(std::chrono::microseconds(rnd(&seed) % 3000));
		q.close();
		cr_assert_eq(put.get(), got.get());
	}
}

Test(pool_queue, the_highest_level_comes_first)
{
	ch::queue<int> q({.capacity = 16, .levels = 3});

	for (int i = 0; i < 9; i++)
		q.put(i, static_cast<unsigned>(i % 3));
	for (const int i : {2, 5, 8, 1, 4, 7, 0, 3, 6})
		cr_assert_eq(q.get(), i);
	cr_assert_not(q.try_get());
	cr_assert_eq(error_of([&] { q.put(1, 3); }), EINVAL);
	std::thread late([&] { q.put(7, 2); });
	cr_assert_eq(q.get(), 7);
	late.join();
	q.put(1, 1);
	q.put(0, 0);
	q.close();
	cr_assert_eq(*q.next(), 1);
	cr_assert_eq(*q.next(), 0);
	cr_assert_not(q.next());
}

Test(pool_queue, a_value_is_found_although_its_sender_died_before_it_told)
{
	ch::queue<int> q({.capacity = 16, .levels = 3});
	std::thread sender([&] {
		usleep(50000); // the other is about to sleep, or does
		const pid_t child = fork();

		if (child == 0) {
			dies_before_it_tells = true;
			q.put(7, 2);
			_exit(0);
		}
		cr_assert_eq(child_end(child), -SIGKILL);
	});
	cr_assert_eq(q.get(), 7);
	sender.join();
	cr_assert_not(q.get_for(1100ms));
}

Test(pool_queue, join_waits_until_all_is_dealt_with)
{
	ch::queue<int> q({.capacity = 64, .joinable = true});
	shared_numbers *s = share_numbers();
	ch::pool p(2);
	std::vector<ch::future<void>> fs;

	cr_assert(q.join_for(0s));
	for (int i = 0; i < 2; i++)
		fs.push_back(p.submit(
			[s](ch::queue<int> in) {
				for (const int x : in) {
					usleep(500);
					s->n[0] += x;
					in.task_done();
				}
			},
			q));
	for (int round = 1; round <= 3; round++) {
		for (int i = 0; i < 50; i++)
			q.put(1);
		q.join();
		cr_assert_eq(s->n[0].load(), 50 * round);
	}
	q.put(1);
	q.join();
	q.close();
	for (auto &f : fs)
		f.get();
	ch::queue<int> plain(ch::queue_options{});
	cr_assert_eq(error_of([&] { plain.join(); }), EINVAL);
}

Test(pool_queue, values_are_seen_where_they_lie)
{
	ch::queue<std::vector<float>> q({.capacity = 4});
	ch::queue<std::pair<int, int>> pairs({.capacity = 4});
	ch::queue<double> numbers_queue({.capacity = 4});
	const std::vector<float> v(100000, 2.5f);

	q.put_span(std::span<const float>(v));
	q.put_in_place(100000, [](std::span<float> room) { std::iota(room.begin(), room.end(), 0.f); });
	{
		auto d = q.take();
		const std::span<const float> in = *d;

		cr_assert_eq(in.size(), 100000u);
		cr_assert_eq(in[99999], 2.5f);
		cr_assert_eq(reinterpret_cast<std::uintptr_t>(in.data()) % 64, 0u);
	}
	cr_assert_eq((*q.take())[77], 77.f);
	numbers_queue.put(0.25);
	auto d = numbers_queue.take();
	cr_assert_eq(*d, 0.25);
	pairs.put({1, 2});
	cr_assert_eq((*pairs.take()).second, 2);
	cr_assert_not(q.take_for(1ms));
}

Test(pool_queue, what_was_taken_and_not_finished_goes_to_another)
{
	ch::queue<int> q({.capacity = 8, .acknowledged = true});

	q.put(1);
	{
		auto d = q.take();
		cr_assert_eq(*d, 1);
		cr_assert_not(d.is_redelivered());
	}
	{
		auto d = q.take(); // dropped before, so here again
		cr_assert(d.is_redelivered());
		d.again();
	}
	auto d = q.take();
	cr_assert_eq(*d, 1);
	d.done();
	cr_assert_not(q.try_get());
}

Test(pool_queue, consumers_that_are_killed_lose_nothing_of_an_acknowledged_queue)
{
	constexpr int nr = 2000;
	std::uint64_t seed = test_seed();
	ch::queue<int> q({.capacity = 256, .acknowledged = true});
	ch::queue<int> out({.capacity = 4 * nr});
	ch::pool p({.workers = 3, .max_attempts = 1000000});
	std::vector<ch::future<void>> fs;
	std::atomic<bool> stop = false;
	std::set<int> seen;

	for (int i = 0; i < 3; i++)
		fs.push_back(p.submit(
			[](ch::queue<int> in, ch::queue<int> o) {
				try {
					for (;;) {
						auto d = in.take();

						o.put(*d);
						d.done();
					}
				} catch (const ch::error &e) {
					if (e.code().value() != EPIPE)
						throw;
				}
			},
			q, out));
	std::thread killer([&] {
		while (!stop) {
			const auto pids = p.workers();

			if (!pids.empty())
				kill(pids[rnd(&seed) % pids.size()], SIGKILL);
			usleep(2000);
		}
	});
	for (int i = 0; i < nr; i++) {
		q.put(i);
		usleep(50);
	}
	while (seen.size() < nr)
		seen.insert(out.get());
	stop = true;
	killer.join();
	q.close();
	for (auto &f : fs)
		f.get();
	cr_assert_eq(*seen.rbegin(), nr - 1);
}

Test(pool_queue, what_is_no_queue_is_refused)
{
	ch::queue<int> none;
	ch::queue<int> q(ch::queue_options{});
	ch::queue<int> open;

	cr_assert_not(none);
	cr_assert_eq(error_of([&] { none.put(1); }), EINVAL);
	cr_assert_eq(error_of([&] { ch::queue<int> bad({.capacity = 0, .levels = 2}); }), EINVAL);
	const auto r = q.ref();
	q = ch::queue<int>();
	cr_assert_neq(error_of([&] { open = r.open(); }), 0);
}

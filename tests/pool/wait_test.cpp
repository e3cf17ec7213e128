// SPDX-License-Identifier: Apache-2.0
// wait_test.cpp - who waits reads for all.
#include "pool_support.hpp"

TestSuite(pool_wait, .timeout = WATCHDOG_S);

using namespace std::chrono_literals;

// A task that lasts until somebody posts.
static auto held_by(shared_numbers *s)
{
	return [s](int result) {
		AWAIT(s->n[0] != 0);
		return result;
	};
}

Test(pool_wait, a_result_that_is_not_there_yet_is_a_timeout_and_comes_later)
{
	shared_numbers *s = share_numbers();
	ch::pool p(1);
	auto f = p.submit(held_by(s), 5);

	cr_assert_not(f.is_ready());
	cr_assert_not(f.wait_for(1ms));
	cr_assert_not(f.wait_for(-1s));
	cr_assert_not(f.wait_until(std::chrono::steady_clock::now()));
	s->n[0] = 1;
	f.wait();
	cr_assert(f.is_ready());
	cr_assert(f.wait_for(0s));
	cr_assert_eq(f.get(), 5);
}

Test(pool_wait, is_ready_becomes_true_without_anybody_waiting)
{
	ch::pool p(1);
	auto f = p.submit([] { return 1; });

	AWAIT(f.is_ready());
	cr_assert_eq(f.get(), 1);
}

Test(pool_wait, a_thread_that_reads_hands_the_results_of_others_on)
{
	constexpr int nr_threads = 8, nr_tasks = 3000;
	ch::pool p(2);
	std::vector<std::thread> threads;
	std::atomic<int> wrong = 0;

	for (int t = 0; t < nr_threads; t++)
		threads.emplace_back([&, t] {
			for (int i = 0; i < nr_tasks; i++)
				wrong += p.submit([](int a, int b) { return a * 10000 + b; }, t, i).get() != t * 10000 + i;
		});
	for (std::thread &t : threads)
		t.join();
	cr_assert_eq(wrong.load(), 0);
}

Test(pool_wait, a_reader_that_leaves_is_succeeded_by_another)
{
	// The first waits with timeouts that end all the time; the second must never be left without a reader.
	shared_numbers *s = share_numbers();
	ch::pool p(2);
	auto slow = p.submit(held_by(s), 1);
	std::atomic<bool> stop = false;
	std::thread impatient([&] {
		while (!stop)
			slow.wait_for(20us);
	});

	for (int i = 0; i < 3000; i++)
		cr_assert_eq(p.submit([](int x) { return x; }, i).get(), i);
	s->n[0] = 1;
	stop = true;
	impatient.join();
	cr_assert_eq(slow.get(), 1);
}

Test(pool_wait, futures_may_be_asked_in_any_order)
{
	ch::pool p(2);
	std::vector<ch::future<int>> fs;

	for (int i = 0; i < 1000; i++)
		fs.push_back(p.submit([](int x) { return x; }, i));
	for (int i = 999; i >= 0; i--)
		cr_assert_eq(fs[static_cast<std::size_t>(i)].get(), i);
}

Test(pool_wait, a_future_that_is_dropped_lets_its_task_run)
{
	shared_numbers *s = share_numbers();
	ch::pool p(1);

	for (int i = 0; i < 100; i++)
		p.submit([s] { s->n[0]++; });
	p.submit([] {}).get();
	cr_assert_eq(s->n[0].load(), 100);
}

Test(pool_wait, more_tasks_than_there_are_places_wait_for_their_turn)
{
	ch::pool p({.workers = 2, .in_flight = 4});
	std::vector<ch::future<int>> fs;

	for (int i = 0; i < 2000; i++)
		fs.push_back(p.submit([](int x) { return x; }, i));
	for (int i = 0; i < 2000; i++)
		cr_assert_eq(fs[static_cast<std::size_t>(i)].get(), i);
}

Test(pool_wait, many_threads_may_submit_while_places_are_short)
{
	ch::pool p({.workers = 2, .in_flight = 2});
	std::vector<std::thread> threads;
	std::atomic<int> sum = 0;

	for (int t = 0; t < 6; t++)
		threads.emplace_back([&] {
			for (int i = 0; i < 500; i++) {
				auto a = p.submit([](int x) { return x; }, 1), b = p.submit([](int x) { return x; }, 1);

				sum += a.get() + b.get();
			}
		});
	for (std::thread &t : threads)
		t.join();
	cr_assert_eq(sum.load(), 6000);
}

Test(pool_wait, results_outlive_the_pool)
{
	std::vector<ch::future<std::string>> fs;
	{
		ch::pool p(2);

		for (std::size_t i = 0; i < 20; i++)
			fs.push_back(p.submit([](std::size_t n) { return std::string(n, 'x'); }, i * 20000));
	}
	for (std::size_t i = 0; i < 20; i++)
		cr_assert_eq(fs[i].get().size(), i * 20000);
}

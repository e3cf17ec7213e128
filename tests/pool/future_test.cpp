// SPDX-License-Identifier: Apache-2.0
// future_test.cpp - taking back, stopping, chaining, callbacks, and waiting for several.
#include "pool_support.hpp"
#include <mutex>

TestSuite(pool_future, .timeout = WATCHDOG_S);

using namespace std::chrono_literals;

static auto until_set(shared_numbers *s, int which)
{
	return [s, which](int result) {
		s->n[15]++;
		while (!s->n[which])
			usleep(200);
		return result;
	};
}

Test(pool_future, cancel_takes_back_exactly_what_has_not_begun)
{
	shared_numbers *s = share_numbers();
	ch::pool p(2);
	std::vector<ch::future<int>> fs;
	int nr_cancelled = 0;

	for (int i = 0; i < 8; i++)
		fs.push_back(p.submit(until_set(s, 0), i));
	AWAIT(s->n[15] == 2);
	for (auto &f : fs)
		nr_cancelled += f.cancel();
	s->n[0] = 1;
	cr_assert_eq(nr_cancelled, 6);
	for (std::size_t i = 0; i < 2; i++)
		cr_assert_eq(fs[i].get(), static_cast<int>(i));
	for (std::size_t i = 2; i < 8; i++)
		cr_assert_eq(error_of([&] { fs[i].get(); }), ECANCELED);
	p.submit([] {}).get();
	cr_assert_eq(s->n[15].load(), 2);
	cr_assert_eq(p.stats().cancelled, 6u);
}

Test(pool_future, a_cancelled_task_that_runs_learns_of_it)
{
	shared_numbers *s = share_numbers();
	ch::pool p(1);
	auto f = p.submit([s] {
		s->n[0] = 1;
		while (!ch::this_task::is_cancelled())
			usleep(200);
		return 7;
	});

	AWAIT(s->n[0] != 0);
	cr_assert_not(f.cancel());
	cr_assert_eq(f.get(), 7);
	cr_assert_not(p.submit([] { return ch::this_task::is_cancelled(); }).get());
	cr_assert_not(f.cancel());
}

Test(pool_future, kill_ends_a_running_task_and_only_that)
{
	shared_numbers *s = share_numbers();
	ch::pool p(2);
	auto runs = p.submit(until_set(s, 0), 1), other = p.submit(until_set(s, 1), 2);

	AWAIT(s->n[15] == 2);
	auto waits = p.submit(until_set(s, 0), 3);
	cr_assert(runs.kill());
	cr_assert(waits.kill());
	cr_assert_eq(error_of([&] { runs.get(); }), ECANCELED);
	cr_assert_eq(error_of([&] { waits.get(); }), ECANCELED);
	s->n[1] = 1;
	cr_assert_eq(other.get(), 2);
	cr_assert_not(other.kill());
	cr_assert_eq(p.submit([](int x) { return x; }, 4).get(), 4);
	cr_assert_eq(p.stats().deaths, 0u);
}

Test(pool_future, tasks_that_are_killed_as_they_end_are_one_or_the_other)
{
	std::uint64_t seed = test_seed();
	ch::pool p(2);

	for (int i = 0; i < 200; i++) {
		auto f = p.submit([](int x) { usleep(static_cast<useconds_t>(x % 100)); return x; }, i);
		usleep(static_cast<useconds_t>(rnd(&seed) % 300));
		const bool is_killed = f.kill();
		try {
			cr_assert_eq(f.get(), i);
			cr_assert_not(is_killed);
		} catch (const ch::error &e) {
			cr_assert(is_killed);
			cr_assert_eq(e.code().value(), ECANCELED);
		}
	}
}

Test(pool_future, exception_shows_what_get_would_throw)
{
	ch::pool p(1);
	auto good = p.submit([] { return 1; });
	auto bad = p.submit([]() -> int { throw std::out_of_range("far"); });

	cr_assert(!good.exception());
	cr_assert_eq(good.get(), 1);
	cr_assert(throws<std::out_of_range>([&] { std::rethrow_exception(bad.exception()); }));
	cr_assert(throws<std::out_of_range>([&] { bad.get(); }));
}

Test(pool_future, then_is_called_with_the_result_in_one_thread_of_the_owner)
{
	ch::pool p(2);
	const std::thread::id here = std::this_thread::get_id();
	const pid_t me = getpid();
	auto f = p.submit([](int x) { return x + 1; }, 1)
			 .then([&](int x) {
				 cr_assert_eq(getpid(), me);
				 cr_assert(std::this_thread::get_id() != here);
				 return std::to_string(x);
			 })
			 .then([](const std::string &t) { return t + "!"; });

	cr_assert_eq(f.get(), "2!");
	auto nothing = p.submit([] {}).then([] {});
	nothing.get();
}

Test(pool_future, then_is_called_for_a_result_that_is_there_already)
{
	ch::pool p(1);
	auto f = p.submit([] { return std::string(100000, 'x'); });

	f.wait();
	cr_assert_eq(f.then([](const std::string &s) { return s.size(); }).get(), 100000u);
	cr_assert_not(f.valid());
}

Test(pool_future, a_failure_goes_down_the_chain_to_whoever_takes_a_future)
{
	ch::pool p(1);
	std::atomic<int> nr_called = 0;
	auto f = p.submit([]() -> int { throw std::invalid_argument("no"); }).then([&](int x) {
		nr_called++;
		return x;
	});

	cr_assert(throws<std::invalid_argument>([&] { f.get(); }));
	cr_assert_eq(nr_called.load(), 0);
	auto mended = p.submit([]() -> int { throw std::invalid_argument("no"); }).then([](ch::future<int> g) {
		try {
			return g.get();
		} catch (const std::invalid_argument &) {
			return -1;
		}
	});
	cr_assert_eq(mended.get(), -1);
	auto own = p.submit([] { return 1; }).then([](int) -> int { throw std::domain_error("mine"); });
	cr_assert(throws<std::domain_error>([&] { own.get(); }));
}

Test(pool_future, a_continuation_may_submit_and_wait_itself)
{
	ch::pool p(1);
	auto f = p.submit([] { return 20; }).then([&p](int x) {
		return p.submit([](int y) { return y + 1; }, x).get() * 2;
	});

	cr_assert_eq(f.get(), 42);
}

Test(pool_future, callbacks_come_without_anybody_waiting_and_one_after_another)
{
	ch::pool p(2);
	std::atomic<int> sum = 0, nr_errors = 0, inside = 0;

	for (int i = 0; i < 500; i++) {
		auto f = p.submit([](int x) { return x % 5 == 0 ? throw std::runtime_error("five") : x; }, i);

		f.on_done(
			[&](int x) {
				cr_assert_eq(inside++, 0);
				sum += x;
				inside--;
			},
			[&](const std::exception_ptr &e) {
				cr_assert(e);
				nr_errors++;
			});
	}
	AWAIT(nr_errors == 100 && sum == 500 * 499 / 2 - 5 * (100 * 99 / 2));
}

Test(pool_future, join_waits_for_callbacks_and_the_destructor_too)
{
	std::atomic<int> nr = 0;
	{
		ch::pool p(2);
		auto count = [&](int) {
			usleep(1000);
			nr++;
		};

		for (int i = 0; i < 20; i++)
			p.submit([](int x) { return x; }, i).on_done(count);
		p.join();
		cr_assert_eq(nr.load(), 20);
		for (int i = 0; i < 20; i++)
			p.submit([](int x) { return x; }, i).on_done(count);
	}
	cr_assert_eq(nr.load(), 40);
}

Test(pool_future, what_a_callback_throws_ends_nothing)
{
	ch::pool p(1);

	for (int i = 0; i < 3; i++)
		p.submit({.name = "fuse"}, [] { return 1; }).on_done([](int) { throw std::runtime_error("(expected)"); });
	cr_assert_eq(p.submit([] { return 2; }).then([](int x) { return x; }).get(), 2);
}

Test(pool_future, a_terminated_pool_calls_the_error_callbacks)
{
	std::atomic<int> nr = 0;
	ch::pool p(1);
	std::vector<ch::future<int>> kept;

	for (int i = 0; i < 5; i++)
		p.submit([]() -> int { pause(); return 1; }).on_done([](int) {}, [&](const std::exception_ptr &) { nr++; });
	kept.push_back(p.submit([] { return 1; }).then([](int x) { return x; }));
	p.terminate();
	cr_assert_eq(nr.load(), 5);
	cr_assert_eq(error_of([&] { kept[0].get(); }), ECANCELED);
}

Test(pool_future, a_callback_that_is_set_after_the_pools_end_is_called_at_once)
{
	ch::future<int> f;
	int got = 0;
	{
		ch::pool p(1);
		f = p.submit([] { return 3; });
	}
	f.on_done([&](int x) { got = x; });
	cr_assert_eq(got, 3);
	cr_assert_eq(f.then([](int x) { return x + 1; }).get(), 4);
}

Test(pool_future, as_completed_gives_them_as_they_end)
{
	shared_numbers *s = share_numbers();
	ch::pool p(3);
	std::vector<ch::future<int>> fs;
	std::vector<int> order;

	for (int i = 0; i < 3; i++)
		fs.push_back(p.submit(until_set(s, i), i));
	s->n[2] = 1;
	for (ch::future<int> &f : ch::as_completed(fs)) {
		order.push_back(f.get());
		s->n[order.size() == 1 ? 0 : 1] = 1;
	}
	cr_assert(order == (std::vector<int>{2, 0, 1}));
}

Test(pool_future, as_completed_of_many_gives_each_once)
{
	ch::pool p(2);
	std::vector<ch::future<int>> fs;
	std::vector<int> seen(5000);

	for (int i = 0; i < 5000; i++)
		fs.push_back(p.submit([](int x) { return x; }, i));
	for (ch::future<int> &f : ch::as_completed(fs))
		seen[static_cast<std::size_t>(f.get())]++;
	cr_assert(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
}

Test(pool_future, as_completed_says_when_its_time_is_over_and_the_rest_comes_later)
{
	shared_numbers *s = share_numbers();
	ch::pool p(2);
	std::vector<ch::future<int>> fs;

	fs.push_back(p.submit(until_set(s, 0), 1));
	fs.push_back(p.submit([] { return 2; }));
	fs[1].wait();
	int nr = 0;
	cr_assert_eq(error_of([&] {
			     for (auto &f : ch::as_completed(fs, 1ms))
				     nr += f.get();
		     }),
		     ETIMEDOUT);
	cr_assert_eq(nr, 2);
	s->n[0] = 1;
	cr_assert_eq(fs[0].get(), 1);
}

Test(pool_future, wait_for_the_first_for_an_exception_and_for_all)
{
	shared_numbers *s = share_numbers();
	ch::pool p(2);
	std::vector<ch::future<int>> fs;

	fs.push_back(p.submit(until_set(s, 0), 1));
	fs.push_back(p.submit([]() -> int { throw std::runtime_error("x"); }));
	cr_assert(ch::wait(fs, ch::when::first));
	cr_assert(fs[1].is_ready());
	cr_assert(ch::wait(fs, ch::when::exception));
	cr_assert_not(fs[0].is_ready());
	cr_assert_not(ch::wait(fs, ch::when::all, 1ms));
	s->n[0] = 1;
	cr_assert(ch::wait(fs));
	cr_assert(fs[0].is_ready());
}

Test(pool_future, futures_of_several_pools_may_be_waited_for_together)
{
	shared_numbers *s = share_numbers();
	ch::pool p(1), q(1);
	std::vector<ch::future<int>> fs;
	std::vector<int> order;

	fs.push_back(p.submit(until_set(s, 0), 1));
	fs.push_back(q.submit([] { return 2; }));
	for (auto &f : ch::as_completed(fs)) {
		order.push_back(f.get());
		s->n[0] = 1;
	}
	cr_assert(order == (std::vector<int>{2, 1}));
}

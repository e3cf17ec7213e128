// SPDX-License-Identifier: Apache-2.0
// option_test.cpp - what pools and tasks can be told: initializers, limits, retries, priorities, sizes.
#include "pool_support.hpp"
#include <csignal>
#include <sched.h>
#include <fstream>
#include <mutex>

TestSuite(pool_option, .timeout = WATCHDOG_S);

using namespace std::chrono_literals;

static std::string prepared;

Test(pool_option, the_initializer_runs_in_each_worker_before_its_tasks_with_what_it_captured)
{
	shared_numbers *s = share_numbers();
	const std::string word(1000, 'w');
	ch::pool p({.workers = 3, .initializer = [s, word] {
			    prepared = word;
			    s->n[0]++;
		    }});

	cr_assert(p.wait_ready());
	cr_assert_eq(s->n[0].load(), 3);
	cr_assert_eq(p.submit([] { return prepared; }).get(), word);
	kill(p.workers()[0], SIGKILL);
	AWAIT(s->n[0] == 4);
	cr_assert(p.wait_ready());
}

Test(pool_option, an_initializer_that_throws_is_reported_and_not_repeated)
{
	shared_numbers *s = share_numbers();
	ch::pool p({.workers = 2, .initializer = [s] {
			    s->n[0]++;
			    throw std::domain_error("no license");
		    }});

	try {
		p.submit([] {}).get();
		cr_assert_fail("it ran");
	} catch (const ch::error &e) {
		cr_assert_eq(e.code().value(), EPIPE);
		cr_assert(std::string(e.what()).find("std::domain_error: no license") != std::string::npos, "%s", e.what());
	}
	cr_assert_eq(error_of([&] { p.wait_ready(); }), EPIPE);
	cr_assert_leq(s->n[0].load(), 4);
}

Test(pool_option, an_initializer_that_kills_its_worker_is_given_up)
{
	ch::pool p({.workers = 1, .initializer = [] { raise(SIGSEGV); }});

	cr_assert_eq(error_of([&] { p.wait_ready(); }), EPIPE);
}

Test(pool_option, a_worker_is_replaced_after_max_tasks_and_no_task_is_lost)
{
	ch::pool p({.workers = 2, .max_tasks = 5});
	std::vector<ch::future<pid_t>> fs;
	std::vector<pid_t> pids;

	for (int i = 0; i < 200; i++)
		fs.push_back(p.submit([] { return getpid(); }));
	for (auto &f : fs)
		pids.push_back(f.get());
	std::sort(pids.begin(), pids.end());
	for (auto i = pids.begin(); i != pids.end();) {
		const auto j = std::upper_bound(i, pids.end(), *i);

		cr_assert_leq(j - i, 5);
		i = j;
	}
	AWAIT(p.stats().recycled >= 39);
	cr_assert_eq(p.stats().deaths, 0u);
}

Test(pool_option, a_task_that_runs_too_long_is_ended_and_its_worker_replaced)
{
	ch::pool p(2);
	auto slow = p.submit({.timeout = 20ms, .name = "slow"}, [] { pause(); });
	auto quick = p.submit({.timeout = 100s}, [] { return 1; });

	try {
		slow.get();
		cr_assert_fail("it ended");
	} catch (const ch::task_timeout &e) {
		cr_assert(std::string(e.what()).find("slow") != std::string::npos, "%s", e.what());
		AWAIT(is_gone(e.pid()));
	}
	cr_assert_eq(quick.get(), 1);
	cr_assert_eq(p.stats().timed_out, 1u);
	cr_assert_eq(p.stats().deaths, 0u);
	cr_assert_eq(p.submit([] { return 2; }).get(), 2);
	AWAIT(p.workers().size() == 2);
}

Test(pool_option, a_pools_timeout_holds_for_each_task_from_its_beginning)
{
	ch::pool p({.workers = 1, .timeout = 300ms});
	std::vector<ch::future<int>> fs;

	// Together longer than one may take.
	for (int i = 0; i < 8; i++)
		fs.push_back(p.submit([](int x) { usleep(50000); return x; }, i));
	auto never = p.submit([] { pause(); });
	for (int i = 0; i < 8; i++)
		cr_assert_eq(fs[static_cast<std::size_t>(i)].get(), i);
	cr_assert(throws<ch::task_timeout>([&] { never.get(); }));
}

Test(pool_option, timeouts_at_the_very_moment_of_the_end_are_one_or_the_other)
{
	ch::pool p(2);
	int nr_over = 0, nr_done = 0;

	for (int i = 0; i < 100; i++) {
		auto f = p.submit({.timeout = 2ms}, [](int x) { usleep(1500 + static_cast<useconds_t>(x) * 10); return x; }, i);
		try {
			cr_assert_eq(f.get(), i);
			nr_done++;
		} catch (const ch::task_timeout &) {
			nr_over++;
		}
	}
	cr_assert_eq(nr_over + nr_done, 100);
	cr_assert_eq(p.stats().timed_out, static_cast<std::uint64_t>(nr_over));
}

Test(pool_option, a_task_that_throws_is_tried_as_often_as_asked)
{
	shared_numbers *s = share_numbers();
	ch::pool p(1);
	const auto f = [s](const std::string &filler) {
		if (s->n[0]++ < 2)
			throw std::runtime_error("not yet" + filler);
		return ch::this_task::attempt();
	};

	cr_assert_eq(p.submit({.retries = 2}, f, "").get(), 3u);
	s->n[0] = 0;
	cr_assert_eq(p.submit({.retries = 5}, f, std::string(100000, 'x')).get(), 3u);
	s->n[0] = 0;
	cr_assert(throws<std::runtime_error>([&] { p.submit({.retries = 1}, f, "").get(); }));
	cr_assert_eq(s->n[0].load(), 2);
	cr_assert_eq(p.stats().retried, 5u);
}

Test(pool_option, a_task_may_have_a_policy_of_its_own_for_deaths)
{
	shared_numbers *s = share_numbers();
	ch::pool p({.workers = 1, .max_attempts = 2});
	const auto dies = [s](int times) {
		if (s->n[0]++ < times)
			raise(SIGKILL);
		return ch::this_task::attempt();
	};

	cr_assert_eq(p.submit({.max_attempts = 5}, dies, 4).get(), 5u);
	s->n[0] = 0;
	try {
		p.submit({.on_death = ch::on_death::fail, .name = "fragile"}, dies, 1).get();
		cr_assert_fail("it ended");
	} catch (const ch::worker_died &e) {
		cr_assert_eq(e.attempts(), 1u);
		cr_assert(std::string(e.what()).find("fragile") != std::string::npos, "%s", e.what());
	}
}

Test(pool_option, a_free_worker_takes_the_highest_priority_first)
{
	shared_numbers *s = share_numbers();
	ch::pool p(1);
	auto gate = p.submit([s] {
		s->n[1] = 1;
		while (!s->n[0])
			usleep(200);
	});
	std::vector<ch::future<long>> low, normal, high;
	const auto ticket = [s] { return s->n[2]++; };

	AWAIT(s->n[1] != 0);
	for (int i = 0; i < 10; i++) {
		low.push_back(p.submit({.priority = ch::priority::low}, ticket));
		normal.push_back(p.submit(ticket));
		high.push_back(p.submit({.priority = ch::priority::high}, ticket));
	}
	s->n[0] = 1;
	for (std::size_t i = 0; i < 10; i++) {
		cr_assert_eq(high[i].get(), static_cast<long>(i));
		cr_assert_eq(normal[i].get(), static_cast<long>(10 + i));
		cr_assert_eq(low[i].get(), static_cast<long>(20 + i));
	}
}

Test(pool_option, idle_workers_notice_every_priority)
{
	ch::pool p({.workers = 2, .spin_ns = CH_SPIN_NEVER});

	for (int i = 0; i < 300; i++) {
		const auto level = static_cast<ch::priority>(i % 3);

		cr_assert_eq(p.submit({.priority = level}, [](int x) { return x; }, i).get(), i);
	}
}

Test(pool_option, tasks_of_every_priority_survive_their_workers)
{
	std::uint64_t seed = test_seed();
	ch::pool p({.workers = 2, .max_attempts = 1000000});

	for (int round = 0; round < 40; round++) {
		std::vector<ch::future<int>> fs;

		for (int i = 0; i < 30; i++)
			fs.push_back(p.submit({.priority = static_cast<ch::priority>(i % 3)}, [](int x) { return x; }, i));
		for (const pid_t pid : p.workers())
			if (rnd(&seed) % 2)
				kill(pid, SIGKILL);
		for (int i = 0; i < 30; i++)
			cr_assert_eq(fs[static_cast<std::size_t>(i)].get(), i);
	}
}

Test(pool_option, a_pool_grows_and_shrinks_while_it_works)
{
	ch::pool p({.workers = 2, .max_workers = 6});
	const auto work = [&] {
		for (const int x : p.map([](int i) { return i; }, numbers(0, 500), {.chunk = 1}))
			cr_assert_geq(x, 0);
	};

	p.resize(6);
	cr_assert(p.wait_ready());
	cr_assert_eq(p.workers().size(), 6u);
	work();
	p.resize(1);
	work();
	AWAIT(p.workers().size() == 1);
	cr_assert_eq(p.size(), 1u);
	work();
	p.resize(3);
	AWAIT(p.workers().size() == 3);
	work();
	cr_assert_eq(p.stats().deaths, 0u);
	cr_assert_eq(error_of([&] { p.resize(7); }), EINVAL);
	cr_assert_eq(error_of([&] { p.resize(0); }), EINVAL);
}

Test(pool_option, a_task_knows_where_it_runs)
{
	ch::pool p(3);
	std::vector<ch::future<unsigned>> fs;

	cr_assert_not(ch::this_task::exists());
	cr_assert(p.submit([] { return ch::this_task::exists(); }).get());
	for (int i = 0; i < 100; i++)
		fs.push_back(p.submit([] { return ch::this_task::worker(); }));
	for (auto &f : fs)
		cr_assert_lt(f.get(), 3u);
	cr_assert_eq(p.submit([] { return ch::this_task::attempt(); }).get(), 1u);
}

Test(pool_option, statistics_tell_busy_workers_and_failures)
{
	shared_numbers *s = share_numbers();
	ch::pool p(2);
	auto f = p.submit([s] {
		while (!s->n[0])
			usleep(200);
	});

	AWAIT(p.stats().busy == 1);
	s->n[0] = 1;
	f.get();
	cr_assert(throws<std::runtime_error>([&] { p.submit([] { throw std::runtime_error("x"); }).get(); }));
	cr_assert_eq(p.stats().failed, 1u);
	cr_assert_eq(p.stats().done, 2u);
	cr_assert_eq(p.stats().busy, 0u);
}

Test(pool_option, apply_is_submit_and_get)
{
	ch::pool p(1);

	cr_assert_eq(p.apply([](int a, int b) { return a * b; }, 6, 7), 42);
	cr_assert(throws<ch::task_timeout>([&] { p.apply(ch::task_options{.timeout = 5ms}, [] { pause(); }); }));
}

static std::vector<unsigned> my_cpus()
{
	std::vector<unsigned> all;
	cpu_set_t set;

	cr_assert_eq(sched_getaffinity(0, sizeof(set), &set), 0);
	for (unsigned n = 0; n < CPU_SETSIZE; n++)
		if (CPU_ISSET(n, &set))
			all.push_back(n);
	return all;
}

Test(pool_option, workers_run_on_the_cpus_that_they_are_given)
{
	const std::vector<unsigned> mine = my_cpus();
	const std::vector<unsigned> some(mine.begin(), mine.begin() + static_cast<long>(std::min<std::size_t>(2, mine.size())));
	ch::pool together({.workers = 3, .placement = ch::placement::cpus(some)});
	ch::pool apart({.placement = ch::placement::cpus(some).one_each()});
	const auto where = [] { return std::pair(ch::this_task::worker(), my_cpus()); };

	cr_assert(together.submit(where).get().second == some);
	cr_assert_eq(apart.size(), some.size());
	for (int i = 0; i < 20; i++) {
		const auto [worker, cpus] = apart.submit(where).get();

		cr_assert_eq(cpus.size(), 1u);
		cr_assert_eq(cpus[0], some[worker]);
	}
	cr_assert(my_cpus() == mine);
}

Test(pool_option, a_placement_that_cannot_be_is_an_error_that_says_why)
{
	cr_assert(ch::placement::list("0-2,8").all() == (std::vector<unsigned>{0, 1, 2, 8}));
	for (const char *bad : {"", "a", "3-1", "1,", "1-", "-1", "1;2", "99999999999", "70000"})
		cr_assert_eq(error_of([&] { ch::placement::list(bad); }), EINVAL, "%s", bad);
	try {
		ch::pool p({.placement = ch::placement::list("65000")});
		cr_assert_fail();
	} catch (const ch::error &e) {
		cr_assert_eq(e.code().value(), EINVAL);
		cr_assert(std::string(e.what()).find("CPU 65000") != std::string::npos, "%s", e.what());
	}
}

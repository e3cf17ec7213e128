// SPDX-License-Identifier: Apache-2.0
// life_test.cpp - pools that begin, end, move and nest.
#include "pool_support.hpp"
#include <fstream>

TestSuite(pool_life, .timeout = WATCHDOG_S);

using namespace std::chrono_literals;

static void expect_gone(const std::vector<pid_t> &pids)
{
	for (const pid_t pid : pids)
		AWAIT(is_gone(pid));
}

Test(pool_life, a_pool_has_a_worker_for_each_cpu_this_process_may_use)
{
	ch::pool p;

	cr_assert_eq(p.size(), ch::usable_cpus());
	cr_assert_eq(p.workers().size(), p.size());
	cr_assert_geq(p.size(), 1u);
}

Test(pool_life, the_destructor_waits_for_what_was_submitted)
{
	shared_numbers *s = share_numbers();
	{
		ch::pool p(2);

		for (int i = 0; i < 1000; i++)
			p.submit([s] { s->n[0]++; });
	}
	cr_assert_eq(s->n[0].load(), 1000);
}

Test(pool_life, a_closed_pool_takes_no_tasks_and_does_the_ones_it_has)
{
	ch::pool p(1);
	auto f = p.submit([] { return 3; });

	p.close();
	p.close();
	cr_assert_eq(error_of([&] { p.submit([] {}); }), EPIPE);
	p.join();
	cr_assert_eq(f.get(), 3);
}

Test(pool_life, terminate_ends_running_and_waiting_tasks)
{
	ch::pool p(1);
	const auto pids = p.workers();
	auto running = p.submit([] { pause(); });
	auto waiting = p.submit([] {});

	p.terminate();
	cr_assert_eq(error_of([&] { running.get(); }), ECANCELED);
	cr_assert_eq(error_of([&] { waiting.get(); }), ECANCELED);
	cr_assert_eq(error_of([&] { p.submit([] {}); }), EPIPE);
	expect_gone(pids);
	p.terminate();
	p.join();
}

Test(pool_life, terminate_with_patience_lets_running_tasks_end)
{
	shared_numbers *s = share_numbers();
	ch::pool p(1);
	auto running = p.submit([s] {
		s->n[0] = 1;
		AWAIT(s->n[1] != 0);
		return 4;
	});

	AWAIT(s->n[0] != 0);
	std::thread later([s] { s->n[1] = 1; });
	p.terminate(100s);
	later.join();
	cr_assert_eq(running.get(), 4);
}

Test(pool_life, a_thread_that_waits_learns_that_the_pool_was_ended)
{
	ch::pool p(1);
	auto f = p.submit([] { pause(); });
	std::atomic<int> code = 0;
	std::thread t([&] { code = error_of([&] { f.get(); }); });

	p.terminate();
	t.join();
	cr_assert_eq(code.load(), ECANCELED);
}

// Takes long to be written.
struct slow_argument {
	template <class A> void save(A &ar) const
	{
		usleep(2000);
		ar(1);
	}
	template <class A> void load(A &ar)
	{
		int i;

		ar(i);
	}
};

Test(pool_life, terminate_while_other_threads_submit_crashes_and_hangs_nobody)
{
	for (int round = 0; round < 10; round++) {
		ch::pool p({.workers = 1, .memory = 8 << 20});
		std::vector<std::thread> threads;
		std::atomic<int> nr_begun = 0, nr_ended = 0;

		for (int t = 0; t < 4; t++)
			threads.emplace_back([&, t] {
				nr_begun++;
				while (error_of([&] {
					       if (t == 0)
						       p.submit([](slow_argument) {}, slow_argument()).get();
					       else
						       p.submit([](std::vector<char>) {}, std::vector<char>(1 << 20)).get();
				       }) == 0)
					;
				nr_ended++;
			});
		AWAIT(nr_begun == 4);
		usleep(static_cast<useconds_t>(round) * 1000);
		p.terminate();
		for (std::thread &t : threads)
			t.join();
		cr_assert_eq(nr_ended.load(), 4);
	}
}

Test(pool_life, an_exception_that_leaves_the_pools_scope_is_not_held_up_by_tasks)
{
	std::vector<pid_t> pids;

	try {
		ch::pool p(2);

		pids = p.workers();
		for (int i = 0; i < 10; i++)
			p.submit([] { pause(); });
		throw std::runtime_error("on");
	} catch (const std::runtime_error &) {
	}
	expect_gone(pids);
}

Test(pool_life, workers_are_gone_when_the_pool_is)
{
	std::vector<pid_t> pids;
	{
		ch::pool p(3);

		pids = p.workers();
		cr_assert_eq(pids.size(), 3u);
	}
	for (const pid_t pid : pids)
		cr_assert(is_gone(pid));
}

Test(pool_life, what_a_worker_printed_is_written_once)
{
	FILE *file = tmpfile();
	const int out = dup(1);

	printf("before "); // in the buffer when the workers are forked
	fflush(stdout);
	dup2(fileno(file), 1);
	printf("owner ");
	{
		ch::pool p(1);

		p.submit([] { printf("worker "); }).get();
	}
	fflush(stdout);
	dup2(out, 1);
	char text[64] = "";
	rewind(file);
	cr_assert_not_null(fgets(text, sizeof(text), file));
	cr_assert_str_eq(text, "owner worker ");
	fclose(file);
}

Test(pool_life, pools_live_side_by_side)
{
	std::vector<ch::pool> pools;

	for (unsigned i = 0; i < 6; i++)
		pools.emplace_back(ch::pool_options{.workers = 2, .memory = 4 << 20});
	for (int round = 0; round < 20; round++)
		for (ch::pool &p : pools)
			cr_assert_eq(p.submit([](int x) { return x; }, round).get(), round);
	pools.erase(pools.begin() + 2);
	for (ch::pool &p : pools)
		cr_assert_eq(p.submit([] { return 1; }).get(), 1);
}

Test(pool_life, a_pool_may_be_moved)
{
	ch::pool p(1);
	auto f = p.submit([] { return 1; });
	ch::pool q = std::move(p);

	cr_assert_eq(f.get(), 1);
	cr_assert_eq(q.submit([] { return 2; }).get(), 2);
	cr_assert_eq(error_of([&] { p.submit([] {}); }), EINVAL);
	p = ch::pool(1);
	cr_assert_eq(p.submit([] { return 3; }).get(), 3);
}

static int leaves(int depth)
{
	if (depth == 0)
		return 1;
	ch::pool p({.workers = 2, .memory = 4 << 20});
	int sum = 0;

	for (const int n : p.map(leaves, std::vector<int>{depth - 1, depth - 1}, {.chunk = 1}))
		sum += n;
	return sum;
}

Test(pool_life, pools_nest_three_levels_deep)
{
	cr_assert_eq(leaves(3), 8);
}

Test(pool_life, another_processs_pool_is_refused)
{
	auto p = std::make_unique<ch::pool>(1);
	const pid_t child = fork();

	if (child == 0) {
		const bool is_refused = error_of([&] { p->submit([] {}); }) == EPERM;

		p.reset(); // does nothing to it
		_exit(is_refused ? 0 : 1);
	}
	cr_assert_eq(child_end(child), 0);
	cr_assert_eq(p->submit([] { return 1; }).get(), 1);
}

Test(pool_life, nothing_has_a_name_in_dev_shm)
{
	ch::pool p(2);
	std::ifstream maps("/proc/self/maps");

	for (std::string l; std::getline(maps, l);)
		cr_assert(l.find("/dev/shm/") == std::string::npos || l.ends_with("(deleted)"), "%s", l.c_str());
}

Test(pool_life, statistics_count)
{
	ch::pool p(2);

	p.submit([] {}).get();
	cr_assert(throws<std::logic_error>([&] { p.submit([] { throw std::logic_error(""); }).get(); }));
	const ch::pool_stats s = p.stats();
	cr_assert_eq(s.submitted, 2u);
	cr_assert_eq(s.done, 2u);
	cr_assert_eq(s.in_flight, 0u);
	cr_assert_eq(s.workers, 2u);
	cr_assert_eq(s.deaths + s.requeued + s.given_up, 0u);
}

Test(pool_life, bad_options_are_errors)
{
	cr_assert_eq(error_of([] { ch::pool p({.workers = 100000}); }), EINVAL);
	cr_assert_neq(error_of([] { ch::pool p({.workers = 1, .memory = 1}); }), 0);
	cr_assert_eq(error_of([] { ch::pool p({.workers = 1, .memory = std::size_t{1} << 44}); }), ENOSPC);
}

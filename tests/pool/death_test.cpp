// SPDX-License-Identifier: Apache-2.0
// death_test.cpp - workers and owners that are killed.
#include "pool_support.hpp"
#include <csignal>
#include <iostream>

TestSuite(pool_death, .timeout = WATCHDOG_S);

// Kills the worker that runs it, the first nr times.
static auto fragile(shared_numbers *s, long nr)
{
	return [s, nr](int result) {
		if (s->n[0]++ < nr)
			raise(SIGKILL);
		return result;
	};
}

Test(pool_death, the_task_of_a_killed_worker_is_begun_anew)
{
	shared_numbers *s = share_numbers();
	ch::pool p(2);

	cr_assert_eq(p.submit(fragile(s, 2), 5).get(), 5);
	cr_assert_eq(s->n[0].load(), 3);
	cr_assert_eq(p.stats().requeued, 2u);
}

Test(pool_death, a_task_with_a_large_argument_is_begun_anew)
{
	shared_numbers *s = share_numbers();
	ch::pool p(1);
	const auto f = [s](const std::vector<int> &v) {
		if (s->n[0]++ < 2)
			raise(SIGKILL);
		return v;
	};

	cr_assert_eq(p.submit(f, std::vector<int>(1 << 20, 9)).get(), std::vector<int>(1 << 20, 9));
}

Test(pool_death, by_policy_it_fails_at_once)
{
	shared_numbers *s = share_numbers();
	ch::pool p({.workers = 1, .on_death = ch::on_death::fail});
	const pid_t pid = p.workers().at(0);

	try {
		p.submit(fragile(s, 1), 5).get();
		cr_assert_fail();
	} catch (const ch::worker_died &e) {
		cr_assert_eq(e.pid(), pid);
		cr_assert_eq(e.signal(), SIGKILL);
		cr_assert_eq(e.exit_code(), -1);
		cr_assert_eq(e.attempts(), 1u);
	}
	cr_assert_eq(p.submit([] { return 1; }).get(), 1);
}

Test(pool_death, a_task_that_kills_every_worker_is_given_up_with_a_clear_error)
{
	ch::pool p({.workers = 2, .max_attempts = 4});

	try {
		p.submit([] { raise(SIGSEGV); }).get();
		cr_assert_fail();
	} catch (const ch::worker_died &e) {
		cr_assert_eq(e.attempts(), 4u);
		cr_assert_eq(e.signal(), SIGSEGV);
		cr_assert(std::string(e.what()).find("signal 11") != std::string::npos, "%s", e.what());
	}
	cr_assert_eq(p.stats().given_up, 1u);
}

Test(pool_death, a_task_that_exits_aborts_or_overflows_its_stack_fails_alone)
{
	ch::pool p({.workers = 2, .on_death = ch::on_death::fail});
	auto good = p.submit([] { return 1; });
	auto exits = p.submit([] { _exit(7); });
	auto aborts = p.submit([] { abort(); });
	auto overflows = p.submit([] {
		struct deep {
			static int down(volatile char *above)
			{
				volatile char here[4096];

				here[0] = above[0];
				return here[0] == 1 ? 0 : down(here) + here[1];
			}
		};
		volatile char top[2] = {};
		deep::down(top);
	});

	try {
		exits.get();
		cr_assert_fail();
	} catch (const ch::worker_died &e) {
		cr_assert_eq(e.exit_code(), 7);
	}
	cr_assert(throws<ch::worker_died>([&] { aborts.get(); }));
	cr_assert(throws<ch::worker_died>([&] { overflows.get(); }));
	cr_assert_eq(good.get(), 1);
	// With what status depends on the atexit handlers that the program has.
	cr_assert(throws<ch::worker_died>([&] { p.submit([] { exit(0); }).get(); }));
}

Test(pool_death, a_task_that_corrupts_its_heap_fails_alone)
{
	ch::pool p({.workers = 2, .on_death = ch::on_death::fail});
	std::vector<ch::future<int>> good;
	auto bad = p.submit([] {
		char *volatile low = static_cast<char *>(malloc(1000)), *volatile high = static_cast<char *>(malloc(1000));

		for (int i = 0; i < 1100; i++) // over what malloc keeps about the next one
			low[i] = 'A';
		free(high);
		free(low);
		abort(); // if nothing was noticed
	});

	for (int i = 0; i < 200; i++)
		good.push_back(p.submit([](int x) { return x + static_cast<int>(std::string(100, 'x').size()); }, i));
	cr_assert(throws<ch::worker_died>([&] { bad.get(); }));
	for (int i = 0; i < 200; i++)
		cr_assert_eq(good[i].get(), i + 100);
	cr_assert_eq(p.stats().deaths, 1u);
}

Test(pool_death, an_idle_worker_that_is_killed_is_replaced)
{
	ch::pool p(2);
	const auto before = p.workers();

	kill(before[0], SIGKILL);
	AWAIT(p.stats().deaths == 1 && p.workers().size() == 2);
	const auto after = p.workers();
	cr_assert(std::find(after.begin(), after.end(), before[0]) == after.end());
	for (int i = 0; i < 100; i++)
		cr_assert_eq(p.submit([](int x) { return x; }, i).get(), i);
}

Test(pool_death, a_death_is_dealt_with_while_nobody_waits)
{
	shared_numbers *s = share_numbers();
	ch::pool p(1);
	auto f = p.submit([s] {
		if (s->n[0]++ == 0)
			raise(SIGKILL);
		s->n[1] = 1;
	});

	AWAIT(s->n[1] != 0);
	f.get();
}

Test(pool_death, all_workers_killed_at_once_are_all_replaced)
{
	ch::pool p(4);
	auto slow = p.map([](int i) { usleep(1000); return i; }, numbers(0, 200), {.chunk = 1});
	auto it = slow.begin();

	for (const pid_t pid : p.workers())
		kill(pid, SIGKILL);
	for (int i = 0; i < 200; i++, ++it)
		cr_assert_eq(*it, i);
}

Test(pool_death, a_stopped_worker_is_not_a_dead_one)
{
	ch::pool p(2);
	const pid_t pid = p.workers().at(0);

	kill(pid, SIGSTOP);
	// The other does the work, unless the stopped one was given a task just before.
	std::vector<ch::future<int>> fs;
	for (int i = 0; i < 10; i++)
		fs.push_back(p.submit([](int x) { return x; }, i));
	kill(pid, SIGCONT);
	for (int i = 0; i < 10; i++)
		cr_assert_eq(fs[static_cast<std::size_t>(i)].get(), i);
	cr_assert_eq(p.stats().deaths, 0u);
}

Test(pool_death, the_owner_killed_takes_the_workers_with_it)
{
	shared_numbers *s = share_numbers();
	const pid_t owner = fork();

	if (owner == 0) {
		alarm(WATCHDOG_S);
		ch::pool p(3);
		ch::pool nested(1);
		auto f = nested.submit([s] {
			ch::pool q(1);

			s->n[3] = q.workers().at(0);
			s->n[4] = 1;
			q.submit([] { pause(); }).get();
		});
		for (std::size_t i = 0; i < 3; i++) {
			s->n[i] = p.workers()[i];
			p.submit([] { pause(); });
		}
		s->n[5] = 1;
		f.get();
		_exit(1);
	}
	AWAIT(s->n[4] != 0 && s->n[5] != 0);
	const auto begin = std::chrono::steady_clock::now();
	cr_assert_eq(child_kill(owner), -SIGKILL);
	for (int i = 0; i < 4; i++)
		AWAIT(is_gone(static_cast<pid_t>(s->n[i])));
	const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
	fprintf(stderr, "the last worker was gone after %.3f s\n", took.count());
	cr_assert_lt(took.count(), 10.0); // milliseconds, on a machine that has any time for it
}

Test(pool_death, the_spawner_killed_is_replaced_and_no_result_is_lost)
{
	shared_numbers *s = share_numbers();
	ch::pool p(2);
	const auto pids = p.workers();

	for (int round = 0; round < 3; round++) {
		const pid_t spawner = p.submit([] { return getppid(); }).get();
		auto running = p.submit([s, round] {
			if (s->n[0] == round) {
				s->n[0]++;
				pause();
			}
			return round;
		});
		std::vector<ch::future<int>> waiting;

		for (int i = 0; i < 100; i++)
			waiting.push_back(p.submit([](int x) { return x; }, i));
		AWAIT(s->n[0] == round + 1);
		kill(spawner, SIGKILL);
		for (int i = 0; i < 100; i++)
			cr_assert_eq(waiting[i].get(), i);
		cr_assert_eq(running.get(), round);
		cr_assert(p.wait_ready());
		cr_assert_neq(p.submit([] { return getppid(); }).get(), spawner);
	}
	for (const pid_t pid : pids)
		AWAIT(is_gone(pid));
	cr_assert_eq(p.workers().size(), 2u);
	p.resize(3);
	cr_assert(p.wait_ready());
}

Test(pool_death, a_task_that_kills_every_spawner_is_given_up_and_others_are_not)
{
	ch::pool p(2);

	try {
		p.submit([] {
			kill(getppid(), SIGKILL);
			pause();
		}).get();
		cr_assert_fail();
	} catch (const ch::worker_died &e) {
		cr_assert_eq(e.attempts(), 3u);
	}
	cr_assert_eq(p.submit([] { return 1; }).get(), 1);
}

Test(pool_death, a_spawner_that_is_killed_prints_nothing_twice)
{
	const int fd = memfd_create("output", MFD_CLOEXEC);
	const pid_t pid = fork();

	if (pid == 0) {
		dup2(fd, STDOUT_FILENO);
		std::ios::sync_with_stdio(false);
		ch::pool p(1);
		const pid_t spawner = p.submit([] { return getppid(); }).get();
		std::cout << "once ";
		fputs("and once ", stdout);
		kill(spawner, SIGKILL); // the next one's creation writes out what stdio has
		AWAIT(p.submit([] { return getppid(); }).get() != spawner);
		p.submit([] { std::cout << "task "; }).get();
		{
			const ch::pool gone = std::move(p);
		}
		std::cout.flush();
		fflush(stdout);
		_exit(0);
	}
	int status;
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	char text[100] = {};
	cr_assert_geq(pread(fd, text, sizeof(text) - 1, 0), 0);
	cr_assert_str_eq(text, "and once task once ");
}

static shared_numbers *forks;
static int depth; // 1: go-between, 2: spawner, 3: worker

static void die_early()
{
	if (++depth == 3 && forks->n[0])
		_exit(9);
}

Test(pool_death, workers_that_die_before_they_begin_are_given_up_at_last)
{
	forks = share_numbers();
	cr_assert_eq(pthread_atfork(nullptr, nullptr, die_early), 0);
	depth = 0;
	ch::pool p(2);

	p.submit([] {}).get();
	forks->n[0] = 1;
	for (const pid_t pid : p.workers())
		kill(pid, SIGKILL);
	cr_assert_eq(error_of([&] { p.submit([] {}).get(); }), EPIPE);
}

// ---- chaos

static int seconds_of_chaos()
{
	const char *s = getenv("CH_TEST_SECONDS");

	return s ? atoi(s) : 5;
}

// Kills some worker every few hundred microseconds, from another thread, as long as it lives.
class killer {
public:
	killer(ch::pool &p, std::uint64_t seed, unsigned every_us)
	    : thread_([this, &p, seed, every_us] { run(p, seed, every_us); })
	{
	}
	~killer()
	{
		stop_ = true;
		thread_.join();
		fprintf(stderr, "%ld kills\n", nr_);
	}

private:
	void run(ch::pool &p, std::uint64_t seed, unsigned every_us)
	{
		while (!stop_) {
			const auto pids = p.workers();

			if (!pids.empty() && kill(pids[rnd(&seed) % pids.size()], SIGKILL) == 0)
				nr_++;
			usleep(static_cast<useconds_t>(rnd(&seed) % every_us));
		}
	}
	std::atomic<bool> stop_ = false;
	long nr_ = 0;
	std::thread thread_;
};

Test(pool_death, workers_killed_at_random_lose_and_double_no_result)
{
	std::uint64_t seed = test_seed();
	ch::pool p({.workers = 3, .max_attempts = 1000000});
	const killer k(p, seed, 3000);
	const std::string filler(20000, 'f');
	const auto end = now_ns() + seconds_of_chaos() * 1000 * MS;

	while (now_ns() < end) {
		std::vector<ch::future<int>> small;
		std::vector<ch::future<std::string>> large;
		const int n = static_cast<int>(rnd(&seed) % 500);

		for (int i = 0; i < n; i++) {
			small.push_back(p.submit([](int x) { return 3 * x; }, i));
			if (i % 16 == 0)
				large.push_back(p.submit([](const std::string &s, int x) { return s + std::to_string(x); },
							 filler, i));
		}
		for (int i = 0; i < n; i++)
			cr_assert_eq(small[static_cast<std::size_t>(i)].get(), 3 * i);
		for (std::size_t i = 0; i < large.size(); i++)
			cr_assert_eq(large[i].get(), filler + std::to_string(i * 16));
	}
}

Test(pool_death, workers_killed_at_random_leave_a_map_whole_and_in_order)
{
	std::uint64_t seed = test_seed();
	ch::pool p({.workers = 3, .max_attempts = 1000000});
	const killer k(p, seed, 3000);
	const auto end = now_ns() + seconds_of_chaos() * 1000 * MS;
	long expected = 0;

	for (const long r : p.map([](long x) { return x * x; }, numbers(0))) {
		cr_assert_eq(r, expected * expected);
		expected++;
		if (now_ns() > end)
			break;
	}
}

Test(pool_death, a_task_runs_once_at_a_time_whatever_dies)
{
	// Each task notes that it runs; a second one of the same number beside it would see the note. A death leaves
	// the note of a dead process, which does not count.
	std::uint64_t seed = test_seed();
	void *m = mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	auto *running = static_cast<std::atomic<pid_t> *>(m);
	shared_numbers *s = share_numbers();
	ch::pool p({.workers = 4, .max_attempts = 1000000});
	const killer k(p, seed, 2000);
	const auto end = now_ns() + seconds_of_chaos() * 1000 * MS;

	while (now_ns() < end) {
		auto map = p.map(
			[running, s](int i) {
				const pid_t other = running[i].exchange(getpid());

				if (other && other != getpid() && !is_gone(other))
					s->n[0]++;
				running[i] = 0;
				return i;
			},
			numbers(0, 1000), {.chunk = 1, .in_flight = 100});

		for (auto it = map.begin(); it != map.end(); ++it)
			(void)*it;
	}
	cr_assert_eq(s->n[0].load(), 0);
}

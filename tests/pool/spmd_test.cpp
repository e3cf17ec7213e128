// SPDX-License-Identifier: Apache-2.0
// spmd_test.cpp - every rank of a job constructs the pool.
#include "pool_support.hpp"
#include <csignal>
#include <sys/wait.h>

TestSuite(pool_spmd, .timeout = WATCHDOG_S);

using namespace std::chrono_literals;

static std::string job()
{
	return "spmd-test-" + std::to_string(getpid());
}

// Ranks 1... of a job as processes; main_rank runs here as rank 0.
class ranks {
public:
	template <class F> ranks(unsigned count, F program)
	{
		const std::string name = job();

		for (unsigned i = 1; i < count; i++) {
			const pid_t pid = fork();

			if (pid == 0) {
				alarm(WATCHDOG_S);
				program(ch::rank{i, count, name});
				_exit(42);
			}
			pids.push_back(pid);
		}
	}
	~ranks()
	{
		for (const pid_t pid : pids)
			kill(pid, SIGKILL);
		for (const pid_t pid : pids)
			waitpid(pid, nullptr, 0);
	}
	// Each went on after the constructor and came to its end.
	void expect_all_returned()
	{
		for (const pid_t pid : pids) {
			int status = 0;

			cr_assert_eq(waitpid(pid, &status, 0), pid);
			cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 42);
		}
		pids.clear();
	}
	std::vector<pid_t> pids;
};

static void serve(const ch::rank &r)
{
	ch::pool p(r, {});

	if (p.is_main() || error_of([&] { p.submit([] {}); }) != EINVAL)
		_exit(1);
}

Test(pool_spmd, one_rank_goes_on_and_the_others_serve_and_return)
{
	ranks others(4, serve);
	{
		ch::pool p(ch::rank{0, 4, job()}, {});

		cr_assert(p.is_main());
		cr_assert(p.wait_ready());
		auto pids = p.workers();
		std::sort(pids.begin(), pids.end());
		std::sort(others.pids.begin(), others.pids.end());
		cr_assert(pids == others.pids);
		int i = 0;
		for (const std::string &s : p.map([](int x) { return std::to_string(x); }, numbers(0, 1000)))
			cr_assert_eq(s, std::to_string(i++));
		cr_assert(throws<std::domain_error>([&] { p.apply([] { throw std::domain_error("x"); }); }));
		cr_assert_eq(p.submit([](std::vector<int> v) { return v; }, std::vector<int>(100000, 3)).get().size(), 100000u);
	}
	others.expect_all_returned();
}

Test(pool_spmd, pools_may_follow_each_other)
{
	const auto program = [](const ch::rank &r) {
		for (int i = 0; i < 3; i++)
			ch::pool p(r, {});
	};
	ranks others(3, program);

	for (int i = 0; i < 3; i++) {
		ch::pool p(ch::rank{0, 3, job()}, {});

		cr_assert_eq(p.apply([](int x) { return 2 * x; }, i), 2 * i);
	}
	others.expect_all_returned();
}

Test(pool_spmd, the_only_rank_has_workers_of_its_own)
{
	ch::pool p(ch::rank{}, {.workers = 2});

	cr_assert(p.is_main());
	cr_assert_neq(p.apply([] { return getpid(); }), getpid());
}

Test(pool_spmd, a_rank_that_is_killed_loses_no_result)
{
	ranks others(4, serve);
	{
		ch::pool p(ch::rank{0, 4, job()}, {});
		std::vector<ch::future<int>> fs;

		cr_assert(p.wait_ready());
		for (int i = 0; i < 300; i++)
			fs.push_back(p.submit([](int x) { usleep(1000); return x; }, i));
		kill(others.pids[1], SIGKILL);
		for (int i = 0; i < 300; i++)
			cr_assert_eq(fs[static_cast<std::size_t>(i)].get(), i);
		AWAIT(p.workers().size() == 2);
	}
	waitpid(others.pids[1], nullptr, 0);
	others.pids.erase(others.pids.begin() + 1);
	others.expect_all_returned();
}

Test(pool_spmd, when_all_other_ranks_are_gone_the_pool_says_so)
{
	ranks others(3, serve);
	ch::pool p(ch::rank{0, 3, job()}, {});

	cr_assert(p.wait_ready());
	auto f = p.submit([] { pause(); });
	for (const pid_t pid : others.pids)
		kill(pid, SIGKILL);
	cr_assert_eq(error_of([&] { f.get(); }), EPIPE);
	cr_assert_eq(error_of([&] { p.submit([] {}); }), EPIPE);
}

Test(pool_spmd, rank_0_killed_lets_the_others_go)
{
	shared_numbers *s = share_numbers();
	ranks all(4, [s](ch::rank r) {
		r.count = 3;
		r.index--; // rank 0 is a child here, too
		r.job += "-0";
		ch::pool p(r, {});
		if (p.is_main()) {
			p.wait_ready();
			auto f = p.submit([s] { s->n[0] = 1; usleep(1000); });
			f.get();
			s->n[1] = 1;
			pause();
		}
	});

	AWAIT(s->n[1] != 0);
	cr_assert_eq(child_kill(all.pids[0]), -SIGKILL);
	all.pids.erase(all.pids.begin());
	all.expect_all_returned();
}

static bool exists(const std::string &segment)
{
	ch_segment *s = nullptr;
	const int rc = ch_segment_attach_name(segment.c_str(), &s);

	ch_segment_detach(s);
	return rc == 0;
}

Test(pool_spmd, what_a_killed_job_left_is_no_hindrance)
{
	const std::string name = job() + "-left";
	const pid_t old = fork();

	if (old == 0) {
		try {
			ch::pool p(ch::rank{0, 2, name}, {}); // nobody comes
		} catch (const ch::error &) {
		}
		_exit(1);
	}
	AWAIT(exists("pool." + std::to_string(getuid()) + "." + name + ".0"));
	usleep(20000); // it is being filled, or is full: both are left behind
	cr_assert_eq(child_kill(old), -SIGKILL);
	int status;
	const pid_t worker = fork();
	if (worker == 0) {
		ch::pool p(ch::rank{1, 2, name}, {});
		_exit(42);
	}
	{
		ch::pool p(ch::rank{0, 2, name}, {});

		cr_assert_eq(p.apply([] { return getpid(); }), worker);
	}
	waitpid(worker, &status, 0);
	cr_assert_eq(WEXITSTATUS(status), 42);
}

Test(pool_spmd, the_rank_comes_from_the_launchers_environment)
{
	for (const char *name : {"CH_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"})
		unsetenv(name);
	cr_assert_eq(ch::launched_rank().count, 1u);
	setenv("SLURM_PROCID", "3", 1);
	setenv("SLURM_NTASKS", "8", 1);
	setenv("SLURM_JOB_ID", "77", 1);
	cr_assert_eq(ch::launched_rank().index, 3u);
	cr_assert_eq(ch::launched_rank().count, 8u);
	setenv("CH_RANK", "1", 1);
	setenv("CH_SIZE", "2", 1);
	setenv("CH_JOB", "mine", 1);
	cr_assert_eq(ch::launched_rank().index, 1u);
	cr_assert_eq(ch::launched_rank().job.substr(0, 4), "mine");
	cr_assert_eq(error_of([] { ch::pool p(ch::rank{2, 2, "x"}, {}); }), EINVAL);
}

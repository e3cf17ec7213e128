// SPDX-License-Identifier: Apache-2.0
// process_test.cpp - single processes and groups of them.
#include "pool_support.hpp"
#include <csignal>
#include <fcntl.h>
#include <fstream>
#include <pool/process.hpp>
#include <sched.h>
#include <sstream>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(process, .timeout = WATCHDOG_S);

using namespace std::chrono_literals;

static std::string all_of(int fd)
{
	std::string s;
	char buf[4096];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		s.append(buf, static_cast<std::size_t>(n));
	return s;
}

static ch::process_options shell(const std::string &script)
{
	return {.program = "sh", .arguments = {"-c", script}};
}

class temporary {
public:
	temporary()
	{
		path = "/tmp/process_test." + std::to_string(getpid());
		cr_assert_eq(mkdir(path.c_str(), 0700), 0);
	}
	~temporary()
	{
		unlink((path + "/out").c_str());
		rmdir(path.c_str());
	}
	std::string path;
};

Test(process, a_program_runs_with_its_arguments_and_tells_how_it_ended)
{
	ch::process p({.program = "sh", .arguments = {"-c", "test \"$1\" = 'a b' && exit 7", "sh", "a b"}});
	const ch::exit_status s = p.wait();

	cr_assert_eq(s.exit_code(), 7);
	cr_assert_eq(s.signal(), 0);
	cr_assert_not(s.is_success());
	cr_assert_not(p.is_running());
	cr_assert_not(p.kill());
}

Test(process, what_cannot_be_started_is_an_error_that_says_what)
{
	cr_assert_eq(error_of([] { ch::process p({.program = "/no/such/program"}); }), ENOENT);
	cr_assert_eq(error_of([] { ch::process p({.program = "/dev/null"}); }), EACCES);
	cr_assert_eq(error_of([] { ch::process p({.program = "true", .directory = "/no/such/place"}); }), ENOENT);
	cr_assert_eq(error_of([] { ch::process p({.program = "true", .in = ch::stdio::file("/no/such/file")}); }), ENOENT);
	cr_assert_eq(error_of([] { ch::process p(ch::process_options{}); }), EINVAL);
	cr_assert_eq(error_of([] { ch::process p({.program = "true", .walltime = 1s, .detached = true}); }), EINVAL);
	try {
		ch::process p({.program = "/no/such/program"});
	} catch (const ch::error &e) {
		cr_assert(std::string(e.what()).find("/no/such/program") != std::string::npos, "%s", e.what());
	}
}

Test(process, standard_streams_go_through_pipes)
{
	ch::process p({.program = "sh", .arguments = {"-c", "tr a-z A-Z; echo wrong >&2"}, .in = ch::stdio::pipe(),
		       .out = ch::stdio::pipe(), .err = ch::stdio::pipe()});

	cr_assert_eq(write(p.in(), "hello", 5), 5);
	p.close_in();
	cr_assert_eq(all_of(p.out()), "HELLO");
	cr_assert_eq(all_of(p.err()), "wrong\n");
	cr_assert(p.wait().is_success());
}

Test(process, standard_streams_go_to_files_and_nowhere)
{
	const temporary dir;
	const std::string out = dir.path + "/out";
	const auto text = [&] {
		std::ostringstream s;
		s << std::ifstream(out).rdbuf();
		return s.str();
	};
	ch::process_options o = shell("cat; echo one");

	o.in = ch::stdio::null();
	o.out = ch::stdio::file(out);
	cr_assert(ch::process(o).wait().is_success());
	cr_assert_eq(text(), "one\n");
	o.out = ch::stdio::append(out);
	cr_assert(ch::process(o).wait().is_success());
	cr_assert_eq(text(), "one\none\n");
	o = {.program = "cat", .in = ch::stdio::file(out), .out = ch::stdio::pipe()};
	ch::process p(o);
	cr_assert_eq(all_of(p.out()), "one\none\n");
}

Test(process, environment_and_directory_are_those_that_were_asked_for)
{
	setenv("PROCESS_TEST", "before", 1);
	ch::process first({.program = "true"}); // the spawner is there
	setenv("PROCESS_TEST", "after", 1);
	ch::process_options o = shell("echo $PROCESS_TEST $MORE $(pwd)");

	o.directory = "/usr";
	o.out = ch::stdio::pipe();
	o.add_environment = {"MORE=more"};
	ch::process p(o);
	cr_assert_eq(all_of(p.out()), "after more /usr\n");
	o.environment = {{"PATH=/usr/bin:/bin"}};
	ch::process q(o);
	cr_assert_eq(all_of(q.out()), "more /usr\n");
}

Test(process, a_function_runs_in_a_process_of_its_own)
{
	shared_numbers *s = share_numbers();
	const std::vector<int> v(3000, 1);
	ch::process p({}, [s](const std::vector<int> &x, const std::string &t) {
		s->n[0] = getpid();
		return static_cast<int>(x.size() / 100 + t.size());
	}, v, "four");

	cr_assert_eq(p.wait().exit_code(), 34);
	cr_assert_eq(s->n[0].load(), p.pid());
	cr_assert_eq(ch::process({}, [] {}).wait().exit_code(), 0);
	ch::process thrower({.err = ch::stdio::pipe()}, [] { throw std::runtime_error("bad luck"); });
	cr_assert(all_of(thrower.err()).find("std::runtime_error: bad luck") != std::string::npos);
	cr_assert_eq(thrower.wait().exit_code(), 1);
}

Test(process, signals_reach_it_and_its_death_is_told)
{
	ch::process p(shell("trap 'exit 9' TERM; while :; do sleep 0.01; done"));
	ch::process q({.program = "sleep", .arguments = {"1000"}});

	cr_assert(p.is_running());
	cr_assert_not(q.wait_for(1ms));
	cr_assert(q.signal(SIGINT));
	cr_assert_eq(q.wait().signal(), SIGINT);
	AWAIT(p.signal(SIGTERM) == false || p.wait_for(20ms));
	cr_assert(p.wait().exit_code() == 9 || p.wait().signal() == SIGTERM);
	ch::process r(shell("trap '' TERM; exec sleep 1000"));
	cr_assert_neq(r.terminate(50ms).signal(), 0);
}

Test(process, a_walltime_that_is_over_kills)
{
	ch::process p({.program = "sleep", .arguments = {"1000"}, .walltime = 20ms});
	ch::process q({.program = "sleep", .arguments = {"0"}, .walltime = 1000s});

	cr_assert(p.wait().is_timed_out);
	cr_assert_eq(p.wait().signal(), SIGKILL);
	cr_assert_not(q.wait().is_timed_out);
	for (int i = 0; i < 50; i++) { // over before it runs
		ch::process r({.program = "sleep", .arguments = {"1000"}, .walltime = std::chrono::microseconds(20 * i)});
		if (i == 0)
			r.kill();
		cr_assert_eq(r.wait().is_timed_out, i > 0);
	}
}

Test(process, the_application_sees_no_sigchld_and_no_child)
{
	static volatile sig_atomic_t nr;
	struct sigaction sa {};

	nr = 0;
	sa.sa_handler = [](int) { nr = nr + 1; };
	sigaction(SIGCHLD, &sa, nullptr);
	ch::process warm({.program = "true"});
	const auto before = nr; // of the go-between that makes the spawner
	for (int i = 0; i < 5; i++)
		cr_assert(ch::process({.program = "true"}).wait().is_success());
	cr_assert_eq(nr, before);
	cr_assert_eq(waitpid(-1, nullptr, WNOHANG), -1);
	cr_assert_eq(errno, ECHILD);
}

Test(process, destroying_it_kills_it_and_its_starters_death_too)
{
	shared_numbers *s = share_numbers();
	pid_t pid;
	{
		ch::process p({.program = "sleep", .arguments = {"1000"}});
		pid = p.pid();
	}
	cr_assert(is_gone(pid));
	const pid_t starter = fork();
	if (starter == 0) {
		ch::process p({.program = "sleep", .arguments = {"1000"}});
		s->n[0] = p.pid();
		pause();
	}
	AWAIT(s->n[0] != 0);
	cr_assert_eq(child_kill(starter), -SIGKILL);
	AWAIT(is_gone(static_cast<pid_t>(s->n[0])));
}

Test(process, a_detached_one_lives_on)
{
	shared_numbers *s = share_numbers();
	const pid_t starter = fork();

	if (starter == 0) {
		ch::process p({.program = "sleep", .arguments = {"1000"}, .detached = true});
		s->n[0] = p.pid();
		pause();
	}
	AWAIT(s->n[0] != 0);
	const auto pid = static_cast<pid_t>(s->n[0]);
	cr_assert_eq(child_kill(starter), -SIGKILL);
	usleep(100000); // time for what must not happen
	cr_assert_eq(kill(pid, 0), 0);
	cr_assert_eq(kill(pid, SIGKILL), 0);
	AWAIT(is_gone(pid));
}

Test(process, a_group_restarts_what_fails_as_often_as_it_may)
{
	shared_numbers *s = share_numbers();
	ch::process_group g({.max_restarts = 4, .backoff = 1ms});

	g.add({}, [s] { return s->n[0]++ < 2 ? 1 : 0; });
	g.add({}, [s] { return s->n[1]++ < 100 ? 1 : 0; });
	g.add({}, [] { return 0; });
	cr_assert(g.join(60s));
	cr_assert_eq(s->n[0].load(), 3);
	cr_assert_eq(s->n[1].load(), 5);
	cr_assert_eq(g.nr_restarts(), 6u);
	cr_assert(g.last_exit(0)->is_success());
	cr_assert_eq(g.last_exit(1)->exit_code(), 1);
	cr_assert_eq(g.size(), 3u);
	cr_assert_eq(g.nr_running(), 0u);
}

Test(process, a_member_that_is_killed_is_replaced_and_all_end_with_the_group)
{
	std::vector<pid_t> pids;
	{
		ch::process_group g({.restart = ch::restart::always, .max_restarts = 1000, .backoff = 1ms});

		for (int i = 0; i < 3; i++)
			g.add({.program = "sleep", .arguments = {"1000"}});
		const pid_t first = g.pid(1);
		kill(first, SIGKILL);
		AWAIT(g.nr_restarts() == 1 && g.pid(1) && g.pid(1) != first);
		for (std::size_t i = 0; i < 3; i++)
			pids.push_back(g.pid(i));
		cr_assert_eq(g.nr_running(), 3u);
		cr_assert_eq(g.last_exit(1)->signal(), SIGKILL);
		g.terminate(1s);
		cr_assert_eq(g.last_exit(0)->signal(), SIGTERM);
	}
	for (const pid_t pid : pids)
		cr_assert(is_gone(pid));
}

Test(process, the_spawner_killed_is_replaced_and_a_group_goes_on)
{
	ch::process waits({.program = "sleep", .arguments = {"1000"}});
	ch::process_group g({.restart = ch::restart::always, .backoff = 1ms});
	ch::process asks({.program = "sh", .arguments = {"-c", "echo $PPID"}, .out = ch::stdio::pipe()});
	char text[32] = {};

	g.add({.program = "sleep", .arguments = {"1000"}});
	const pid_t member = g.pid(0);
	cr_assert_gt(read(asks.out(), text, sizeof(text) - 1), 0);
	cr_assert_eq(kill(static_cast<pid_t>(atoi(text)), SIGKILL), 0);
	cr_assert_eq(waits.wait().signal(), SIGKILL);
	cr_assert(ch::process({.program = "true"}).wait().is_success());
	AWAIT(g.pid(0) != 0 && g.pid(0) != member);
}

// Who waits begins to do so at the moment when that becomes known.
Test(process, who_waits_while_the_spawner_ends_learns_of_it)
{
	std::uint64_t seed = test_seed();

	for (int round = 0; round < 20; round++) {
		std::vector<std::unique_ptr<ch::process>> all;
		std::vector<std::thread> waiting;
		std::atomic<bool> is_killed{false};
		ch::process asks({.program = "sh", .arguments = {"-c", "echo $PPID"}, .out = ch::stdio::pipe()});
		const pid_t spawner = static_cast<pid_t>(atoi(all_of(asks.out()).c_str()));

		for (int i = 0; i < 4; i++)
			all.push_back(std::make_unique<ch::process>(
				ch::process_options{.program = "sleep", .arguments = {"1000"}}));
		for (const auto &p : all)
			waiting.emplace_back([&is_killed, &p, us = rnd(&seed) % 1000] {
				AWAIT(is_killed);
				usleep(static_cast<useconds_t>(us));
				p->wait();
			});
		cr_assert_gt(spawner, 1);
		cr_assert_eq(kill(spawner, SIGKILL), 0);
		is_killed = true;
		for (std::thread &t : waiting)
			t.join();
	}
}

Test(process, what_is_forked_meanwhile_keeps_no_pipe_open)
{
	ch::process cat({.program = "cat", .in = ch::stdio::pipe(), .out = ch::stdio::pipe()});
	ch::pool p(1); // its spawner has been forked from this process as it is now

	cr_assert_eq(write(cat.in(), "abc", 3), 3);
	cat.close_in();
	cr_assert_eq(all_of(cat.out()), "abc");
	cr_assert(cat.wait().is_success());
	cr_assert_eq(p.submit([] { return 1; }).get(), 1);
}

Test(process, it_runs_on_the_cpus_that_it_is_given)
{
	unsigned cpu, node;
	cr_assert_eq(getcpu(&cpu, &node), 0);
	const auto here = ch::placement::cpus({cpu});
	ch::process q({.program = "sh",
		       .arguments = {"-c", "grep Cpus_allowed_list: /proc/self/status | cut -f2"},
		       .out = ch::stdio::pipe(),
		       .placement = here});

	cr_assert_eq(all_of(q.out()), std::to_string(cpu) + "\n");
	ch::process f({.placement = here}, [] {
		cpu_set_t set;

		return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 0;
	});
	cr_assert_eq(f.wait().exit_code(), 1);
	cr_assert_eq(error_of([] { ch::process({.program = "true", .placement = ch::placement::list("65000")}); }), EINVAL);
}

// SPDX-License-Identifier: Apache-2.0
// pool_bench.cpp - tasks of libpool, each case beside the same done by hand: processes that are forked and two bare
// rings; and beside Python's pools, where they are installed. See perf/README.md.
#include "baseline.h"
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <optional>
#include <pool/pool.hpp>
#include <random>
#include <sstream>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace bench;

namespace {

int noop(int x)
{
	return x;
}

constexpr std::size_t window = 1024;
constexpr std::size_t large = 1 << 20;

void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof set, &set);
}

// Where a pool is started as applications do, no process is pinned.
void use_all_cpus()
{
	cpu_set_t set;

	CPU_ZERO(&set);
	for (const int cpu : allowed_cpus())
		CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof set, &set);
}

// The measuring process is pinned; each worker goes to its own cpu of the other half.
ch::pool_options placed(unsigned workers, std::uint32_t spin_ns)
{
	return {.workers = workers, .memory = 64 << 20, .spin_ns = spin_ns, .initializer = [workers] {
			pin(cpu_of(1 + static_cast<int>(ch::this_task::worker()), 1, 1 + static_cast<int>(workers)));
		}};
}

// body gives the value. It runs where the first of two processes would: the baseline's owner is there too.
sample in_process(const std::function<double(member &)> &body)
{
	shared<double> value;
	sample s;

	s.error = run_team(1, 1, [&](member &me) {
		pin(cpu_of(0, 1, 2));
		me.start();
		*value = body(me);
	});
	s.value = *value;
	return s;
}

// step() does some and says how many; the first tenth is not counted. Per second.
template <class F> double per_second(F step)
{
	const deadlines until;
	double nr = 0;

	while (ticks() < until.warm)
		step();
	const std::uint64_t begin = ticks();
	while (ticks() < until.end)
		nr += static_cast<double>(step());
	return nr * ticks_per_ns() * 1e9 / static_cast<double>(ticks() - begin);
}

template <class F> double median_ns(F once)
{
	auto h = std::make_unique<histogram>();
	const deadlines until;
	std::uint64_t begin = ticks();

	while (begin < until.end) {
		once();
		const std::uint64_t now = ticks();
		if (begin > until.warm)
			h->add(now - begin);
		begin = now;
	}
	return h->quantile(0.5) / ticks_per_ns();
}

// ---- by hand: a ring of tasks, a ring of results, and as many workers as there are members beside the first

struct call {
	std::uint32_t fn, nr;
};
using items = std::array<int, 100>;

struct rings {
	vyukov_ring tasks, results;
	explicit rings(std::size_t len) : tasks(2 * window, sizeof(call) + len), results(2 * window, sizeof(call) + len) {}
};

int (*volatile functions[])(int) = {noop};

template <class T> struct parcel {
	call what;
	T args;
};

template <class T> void serve_by_hand(rings &r)
{
	parcel<T> p;

	for (;;) {
		backoff wait;
		while (r.tasks.try_recv(&p, sizeof p) < 0)
			wait.pause();
		if (p.what.nr == UINT32_MAX)
			return;
		for (int &x : p.args)
			x = functions[p.what.fn](x);
		while (r.results.try_send(&p, sizeof p) < 0)
			wait.pause();
	}
}

// drive(give, take) is the owner: each of the two is one try.
template <class T> sample by_hand(int workers, const std::function<double(rings &)> &drive)
{
	rings r(sizeof(T));
	shared<double> value;
	sample s;

	s.error = run_team(1 + workers, 1, [&](member &me) {
		me.start();
		if (me.index)
			return serve_by_hand<T>(r);
		*value = drive(r);
		const parcel<T> end{{0, UINT32_MAX}, {}};
		for (int i = 0; i < workers; i++)
			while (r.tasks.try_send(&end, sizeof end) < 0)
				relax();
	});
	s.value = *value;
	return s;
}

template <class T> sample rate_by_hand(int workers)
{
	return by_hand<T>(workers, [](rings &r) {
		parcel<T> p{};
		std::size_t under_way = 0;
		const double v = per_second([&] {
			std::size_t done = 0;

			while (under_way < window && r.tasks.try_send(&p, sizeof p) == 0)
				under_way++;
			while (r.results.try_recv(&p, sizeof p) == 0)
				done++;
			under_way -= done;
			return done * std::tuple_size_v<T>;
		});
		while (under_way)
			under_way -= r.results.try_recv(&p, sizeof p) == 0;
		return v;
	});
}

sample round_trip_by_hand()
{
	return by_hand<std::array<int, 1>>(1, [](rings &r) {
		parcel<std::array<int, 1>> p{};

		return median_ns([&] {
			while (r.tasks.try_send(&p, sizeof p) < 0)
				relax();
			while (r.results.try_recv(&p, sizeof p) < 0)
				relax();
		});
	});
}

// Copied in, out, in and out again.
sample echo_by_hand()
{
	slot_ring there(4, large), back(4, large);
	shared<double> value;
	sample s;

	s.error = run_team(2, 1, [&](member &me) {
		message m(large);
		backoff wait;

		me.start();
		if (me.index) {
			while (m.stamp() != last_stamp) {
				while (there.try_recv(m.data(), large) < 0)
					wait.pause();
				while (back.try_send(m.data(), large) < 0)
					wait.pause();
			}
			return;
		}
		const auto echo = [&](std::uint64_t stamp) {
			m.set_stamp(stamp);
			while (there.try_send(m.data(), large) < 0)
				wait.pause();
			while (back.try_recv(m.data(), large) < 0)
				wait.pause();
			return m.len();
		};
		*value = per_second([&] { return echo(1); });
		echo(last_stamp);
	});
	s.value = *value;
	return s;
}

// ---- libpool

sample round_trip(std::uint32_t spin_ns)
{
	return in_process([=](member &) {
		ch::pool p(placed(1, spin_ns));
		int i = 0;

		return median_ns([&] { p.submit(noop, i++).get(); });
	});
}

sample submit_rate(unsigned workers, std::uint32_t spin_ns)
{
	return in_process([=](member &me) {
		ch::pool p(placed(workers, spin_ns));
		std::deque<ch::future<int>> under_way;
		int sent = 0, got = 0;
		const auto get_oldest = [&] {
			if (under_way.front().get() != got++)
				me.fail("a result is not its task's");
			under_way.pop_front();
		};

		const double v = per_second([&] {
			for (int i = 0; i < 64; i++) {
				under_way.push_back(p.submit(noop, sent++));
				if (under_way.size() == window)
					get_oldest();
			}
			return 64;
		});
		while (!under_way.empty())
			get_oldest();
		return v;
	});
}

sample map_rate(unsigned workers, std::size_t chunk)
{
	return in_process([=](member &me) {
		ch::pool p(placed(workers, busy()));
		std::vector<int> in(20 * window * chunk);

		std::iota(in.begin(), in.end(), 0);
		return per_second([&] {
			long sum = 0;

			for (const int r : p.map(noop, in, {.chunk = chunk, .in_flight = window}))
				sum += r;
			if (sum != static_cast<long>(in.size()) * (static_cast<long>(in.size()) - 1) / 2)
				me.fail("the results are not those of the items");
			return in.size();
		});
	});
}

sample echo_rate()
{
	return in_process([](member &) {
		ch::pool p(placed(1, busy()));
		const std::vector<char> bytes(large, 'b');

		return per_second([&] {
			return p.submit([](std::vector<char> v) { return v; }, std::span<const char>(bytes)).get().size();
		});
	});
}

// ---- starting many

constexpr unsigned many = 1000;

double seconds_since(std::uint64_t ns)
{
	return static_cast<double>(now_ns() - ns) / 1e9;
}

void fork_one(std::atomic<unsigned> &ready, std::vector<pid_t> &pids)
{
	const pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		ready++;
		pause();
		_exit(0);
	}
	if (pid > 0)
		pids.push_back(pid);
}

sample fork_many()
{
	shared<std::atomic<unsigned>> ready;

	return in_process([&](member &me) {
		std::vector<pid_t> pids;

		use_all_cpus();
		const std::uint64_t begin = now_ns();

		for (unsigned i = 0; i < many; i++)
			fork_one(*ready, pids);
		if (pids.size() < many)
			me.fail("fork", -errno);
		while (ready->load() < many)
			usleep(100);
		const double s = seconds_since(begin);
		for (const pid_t pid : pids)
			kill(pid, SIGKILL);
		for (const pid_t pid : pids)
			waitpid(pid, nullptr, 0);
		return s;
	});
}

ch::pool_options idle_options()
{
	return {.workers = many, .max_workers = many};
}

sample start_many()
{
	return in_process([](member &) {
		use_all_cpus();
		const std::uint64_t begin = now_ns();
		ch::pool p(idle_options());

		p.wait_ready();
		const double s = seconds_since(begin);
		p.terminate();
		return s;
	});
}

double private_bytes(pid_t pid)
{
	std::ifstream in("/proc/" + std::to_string(pid) + "/smaps_rollup");
	double sum = 0;

	for (std::string line; std::getline(in, line);)
		if (line.starts_with("Private_"))
			sum += std::strtod(line.c_str() + line.find(':') + 1, nullptr) * 1024;
	return sum;
}

// Of all its threads.
double cpu_ns(pid_t pid)
{
	double sum = 0;

	for (const auto &task : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
		std::ifstream in(task.path() / "schedstat");
		double ns = 0;

		in >> ns;
		sum += ns;
	}
	return sum;
}

template <class F> sample of_idle_workers(F measure)
{
	return in_process([=](member &) {
		use_all_cpus();
		ch::pool p(idle_options());

		p.wait_ready();
		const double v = measure(p.workers());
		p.terminate();
		return v;
	});
}

sample idle_memory()
{
	return of_idle_workers([](const std::vector<pid_t> &pids) {
		double sum = 0;

		for (const pid_t pid : pids)
			sum += private_bytes(pid);
		return sum / static_cast<double>(pids.size());
	});
}

// Nanoseconds of cpu in 5 seconds, per worker; 1 is added, because a row of 0 counts as not measured.
sample idle_cpu()
{
	return of_idle_workers([](const std::vector<pid_t> &pids) {
		const auto sum = [&] {
			return std::accumulate(pids.begin(), pids.end(), 0.0,
					       [](double a, pid_t pid) { return a + cpu_ns(pid); });
		};
		usleep(300000);
		const double before = sum();
		sleep(5);
		return 1 + (sum() - before) / static_cast<double>(pids.size());
	});
}

// ---- imbalance: tasks that sleep U(0.1, 0.1 k) s, here a tenth of that; four for each worker, one at a time

constexpr unsigned sleepers = 8;

std::vector<double> naps(double k)
{
	std::mt19937_64 random(1);
	std::uniform_real_distribution<double> seconds(0.01, std::max(0.010001, 0.01 * k));
	std::vector<double> v(4 * sleepers);

	for (double &s : v)
		s = seconds(random);
	return v;
}

sample makespan(double k)
{
	return in_process([=](member &) {
		use_all_cpus();
		ch::pool p(sleepers);
		const std::vector<double> v = naps(k);
		const auto nap = [](double s) {
			usleep(static_cast<useconds_t>(s * 1e6));
			return 0;
		};

		p.wait_ready();
		const std::uint64_t begin = now_ns();
		for (const int r : p.map_unordered(nap, v, {.chunk = 1}))
			(void)r;
		return seconds_since(begin);
	});
}

// Each nap, in this order, to whoever is free first.
sample ideal_makespan(double k)
{
	std::vector<double> end(sleepers);
	sample s;

	for (const double nap : naps(k))
		*std::min_element(end.begin(), end.end()) += nap;
	s.value = *std::max_element(end.begin(), end.end());
	return s;
}

// ---- Python

// The first interpreter that has the module: one of the user's own may stand in PATH before the system's. Empty: none.
std::string python_with(const std::string &module)
{
	for (const std::string python : {"python3", "/usr/bin/python3"})
		if (std::system((python + " -c 'import " + module + "' >/dev/null 2>&1").c_str()) == 0)
			return python;
	return {};
}

std::optional<double> ask(const std::string &python, const std::string &args)
{
	const std::string cmd = python + " '" BENCH_DIR "/pool_peers.py' " + args + " 2>/dev/null";
	FILE *f = popen(cmd.c_str(), "re");
	double v = 0;

	if (!f)
		return std::nullopt;
	const bool is_there = fscanf(f, "%lf", &v) == 1;
	pclose(f);
	return is_there ? std::optional(v) : std::nullopt;
}

sample peer(const std::string &python, const std::string &kind, const std::string &name)
{
	return in_process([&](member &me) {
		use_all_cpus();
		const double run_s = static_cast<double>(conf().run_ns) / 1e9;
		const auto v = ask(python, kind + " " + name + " 1 " + std::to_string(run_s));
		if (!v)
			me.fail("perf/pool_peers.py does not run");
		return *v;
	});
}

// ---- rows

void add_rows()
{
	add_row({"pool/round_trip_spin/4", "ns there and back, busy; baseline: two bare rings",
		 [] { return round_trip(busy()); }, round_trip_by_hand});
	add_row({"pool/round_trip/4", "ns there and back, default spin; baseline: two bare rings, busy",
		 [] { return round_trip(0); }, round_trip_by_hand});
	for (const unsigned w : {1u, 2u})
		add_row({"pool/submit_" + std::to_string(w) + "w/4", "tasks/s, a future each, busy; baseline: two bare rings",
			 [=] { return submit_rate(w, busy()); },
			 [=] { return rate_by_hand<std::array<int, 1>>(static_cast<int>(w)); }});
	add_row({"pool/map_chunk1/4", "items/s, one worker, busy; baseline: two bare rings",
		 [] { return map_rate(1, 1); }, [] { return rate_by_hand<std::array<int, 1>>(1); }});
	add_row({"pool/map_chunk100/4", "items/s, one worker, busy; baseline: two bare rings, 100 items a message",
		 [] { return map_rate(1, 100); }, [] { return rate_by_hand<items>(1); }});
	add_row({"pool/echo/1048576", "bytes/s; baseline: copied in, out, in and out of plain slots", echo_rate, echo_by_hand});
	add_row({"pool/start_1000/0", "s until all are ready; baseline: 1,000 bare forks", start_many, fork_many});
	add_row({"pool/idle_memory/0", "private bytes of each of 1,000 idle workers", idle_memory, {}});
	add_row({"pool/idle_cpu/0", "1 + ns of cpu in 5 s of each of 1,000 idle workers", idle_cpu, {}});
	for (const int k : {1, 8})
		add_row({"pool/imbalance_" + std::to_string(k) + "/0",
			 "s for 32 naps of unequal length; baseline: ideal, computed", [=] { return makespan(k); },
			 [=] { return ideal_makespan(k); }});
}

void add_python_rows()
{
	const std::pair<const char *, const char *> peers[] = {
		{"cf", "concurrent.futures"}, {"mp", "multiprocessing"}, {"mpi", "mpi4py.futures"}};

	for (const auto &[kind, module] : peers) {
		const std::string k = kind, m = module, python = python_with(m);
		if (python.empty())
			continue;
		add_row({"pool/submit_" + k + "/4", "tasks/s, one worker, default spin; baseline: " + m,
			 [] { return submit_rate(1, 0); }, [=] { return peer(python, k, "submit"); }});
		add_row({"pool/echo_" + k + "/1048576", "bytes/s, one worker; baseline: " + m, echo_rate,
			 [=] { return peer(python, k, "echo"); }});
	}
}

} // namespace

int main(int argc, char **argv)
{
	add_rows();
	add_python_rows();
	return run_rows(argc, argv, {{"libpool", ch_version()}, {"window", std::to_string(window) + " tasks under way"}});
}

// SPDX-License-Identifier: Apache-2.0
// bench.cpp - clock, histogram and rows of the benchmark programs, and what they say about the machine.
#include "bench.h"
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <fstream>
#include <new>
#include <sys/utsname.h>
#include <benchmark/benchmark.h>

#ifndef BENCH_FLAGS
#define BENCH_FLAGS "unknown"
#endif

namespace bench {

static std::uint64_t from_environment(const char *name, std::uint64_t usual, std::uint64_t most)
{
	const char *text = std::getenv(name);
	std::uint64_t value = text ? std::strtoull(text, nullptr, 10) : 0;

	return value ? std::min(value, most) : usual;
}

const settings &conf()
{
	static const settings once = {from_environment("BENCH_MS", 100, 10'000) * 1'000'000,
				      static_cast<int>(from_environment("BENCH_REPS", 5, 1000))};
	return once;
}

std::uint64_t now_ns()
{
	timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(t.tv_nsec);
}

double ticks_per_ns()
{
	static const double once = [] {
		std::uint64_t ns = now_ns(), start = ticks();

		while (now_ns() - ns < 20'000'000)
			relax();
		std::uint64_t passed = ticks() - start;
		return static_cast<double>(passed) / static_cast<double>(now_ns() - ns);
	}();
	return once;
}

std::uint64_t histogram::count() const
{
	std::uint64_t sum = 0;

	for (std::uint64_t n : counts)
		sum += n;
	return sum;
}

double histogram::quantile(double share) const
{
	std::uint64_t left = static_cast<std::uint64_t>(share * static_cast<double>(count()));

	for (std::size_t i = 0; i < counts.size(); i++) {
		if (left >= counts[i]) {
			left -= counts[i];
			continue;
		}
		if (i < sub)
			return static_cast<double>(i);
		std::size_t exponent = i / sub - 1;
		double low = static_cast<double>((i % sub + sub) << exponent);
		return low + static_cast<double>((std::uint64_t{1} << exponent) - 1) / 2;
	}
	return 0;
}

region::region(std::size_t len) : at(nullptr), nr(len)
{
	at = mmap(nullptr, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (at == MAP_FAILED)
		throw std::bad_alloc();
}

// So few are an accident of scheduling, and no median.
static const std::uint64_t few_round_trips = 200;

sample latency_sample(const histogram &round_trips, const std::string &error)
{
	sample s;
	double one_way = 1 / (2 * ticks_per_ns());

	s.error = error;
	s.is_starved = round_trips.count() < few_round_trips;
	s.p50 = round_trips.quantile(0.5) * one_way;
	s.p99 = round_trips.quantile(0.99) * one_way;
	s.p999 = round_trips.quantile(0.999) * one_way;
	s.value = s.p50;
	return s;
}

// ---- rows

// On a busy machine a process may be kept waiting for most of a measurement: try again, but not for ever.
static sample patiently(const measurement &measure)
{
	sample s = measure();

	for (int i = 0; i < 4 && s.is_starved && s.error.empty(); i++)
		s = measure();
	if (s.error.empty() && s.value <= 0)
		s.error = "no message in the measured time";
	return s;
}

static double median(std::vector<double> v)
{
	if (v.empty())
		return 0;
	std::sort(v.begin(), v.end());
	std::size_t half = v.size() / 2;
	return v.size() % 2 ? v[half] : (v[half - 1] + v[half]) / 2;
}

// What the repetitions of a row gave. The ratio is that of the medians; its least and greatest tell the spread.
struct series {
	std::vector<double> values, p50s, p99s, p999s, baselines, ratios;

	std::string measure(const row &r)
	{
		sample base;

		if (r.baseline)
			base = patiently(r.baseline);
		if (!base.error.empty())
			return r.name + ", baseline: " + base.error;
		sample subject = patiently(r.subject);
		if (!subject.error.empty())
			return r.name + ": " + subject.error;
		values.push_back(subject.value);
		p50s.push_back(subject.p50);
		p99s.push_back(subject.p99);
		p999s.push_back(subject.p999);
		if (!r.baseline)
			return "";
		baselines.push_back(base.value);
		ratios.push_back(subject.value / base.value);
		return "";
	}

	void report(benchmark::State &state, double peer_ratio) const
	{
		state.counters["value"] = median(values);
		if (median(p50s) > 0) {
			state.counters["p50_ns"] = median(p50s);
			state.counters["p99_ns"] = median(p99s);
			state.counters["p999_ns"] = median(p999s);
		}
		if (baselines.empty())
			return;
		state.counters["baseline"] = median(baselines);
		const double ratio = median(values) / median(baselines);
		state.counters["ratio"] = ratio;
		if (peer_ratio > 0) {
			state.counters["peer_ratio"] = peer_ratio;
			state.counters["ahead"] = median(p50s) > 0 ? peer_ratio / ratio : ratio / peer_ratio;
		}
		state.counters["ratio_min"] = *std::min_element(ratios.begin(), ratios.end());
		state.counters["ratio_max"] = *std::max_element(ratios.begin(), ratios.end());
	}
};

static int nr_failed = 0;

static void run_row(benchmark::State &state, const row &r)
{
	series s;

	for (auto _ : state) {
		std::string error;
		for (int i = 0; i < conf().reps && error.empty(); i++)
			error = s.measure(r);
		if (!error.empty()) {
			state.SkipWithError(error.c_str());
			nr_failed++;
			break;
		}
	}
	s.report(state, r.peer_ratio);
	state.SetLabel(r.peer.empty() ? r.note : r.note + "; best peer: " + r.peer);
}

void add_row(row r)
{
	static std::deque<row> rows; // the registered functions refer to them until the program ends

	const row &kept = rows.emplace_back(std::move(r));
	benchmark::RegisterBenchmark(kept.name.c_str(), [&kept](benchmark::State &state) {
		run_row(state, kept);
	})->Unit(benchmark::kMillisecond);
}

// ---- the program

static std::string cpu_model()
{
	std::ifstream info("/proc/cpuinfo");

	for (std::string line; std::getline(info, line);)
		if (line.rfind("model name", 0) == 0 && line.find(": ") != line.npos)
			return line.substr(line.find(": ") + 2);
	return "unknown processor";
}

static std::string join(const std::vector<int> &numbers)
{
	std::string text;

	for (int n : numbers)
		text += (text.empty() ? "" : ",") + std::to_string(n);
	return text;
}

static void describe_machine()
{
	utsname u;

	uname(&u);
	benchmark::AddCustomContext("machine", std::string(u.machine) + ", " + cpu_model());
	benchmark::AddCustomContext("kernel", std::string(u.sysname) + " " + u.release);
#if defined(__clang__)
	benchmark::AddCustomContext("compiler", __VERSION__);
#else
	benchmark::AddCustomContext("compiler", "gcc " __VERSION__);
#endif
	benchmark::AddCustomContext("flags", BENCH_FLAGS);
	benchmark::AddCustomContext("cpus", join(allowed_cpus()));
	benchmark::AddCustomContext("placement", allowed_cpus().size() > 1
							 ? "processes pinned, senders on the first half of cpus, "
							   "receivers on the second"
							 : "all processes on one cpu");
	benchmark::AddCustomContext("measured", std::to_string(conf().reps) + " times " +
							std::to_string(conf().run_ns / 1'000'000) +
							" ms, baseline and subject in turn; medians");
}

// Signals that end the program are taken where it waits for its processes (run_team), so that objects in shared
// memory are destroyed on the way out.
static void block_signals()
{
	sigset_t set;

	sigemptyset(&set);
	for (int s : {SIGCHLD, SIGINT, SIGTERM, SIGHUP})
		sigaddset(&set, s);
	sigprocmask(SIG_BLOCK, &set, nullptr);
}

int run_rows(int argc, char **argv, const std::vector<std::pair<std::string, std::string>> &context)
{
	// A row repeats its measurements itself and knows when it has enough: the library shall call it once. Said here
	// and not per row, because Iterations() would become a part of the row's name.
	char once[] = "--benchmark_min_time=0";
	std::vector<char *> args(argv, argv + argc);
	int count = argc + 1;

	args.push_back(once);
	args.push_back(nullptr);
	block_signals();
	ticks_per_ns();
	describe_machine();
	for (const auto &[key, value] : context)
		benchmark::AddCustomContext(key, value);
	benchmark::Initialize(&count, args.data());
	if (benchmark::ReportUnrecognizedArguments(count, args.data()))
		return 1;
	benchmark::RunSpecifiedBenchmarks();
	benchmark::Shutdown();
	return stop_signal() ? 128 + stop_signal() : nr_failed != 0;
}

} // namespace bench

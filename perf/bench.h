// SPDX-License-Identifier: Apache-2.0
// bench.h - harness of the benchmark programs: clock, histogram, shared memory, processes that are started together,
// pinned and always reaped, and rows with a baseline measured in turn with their subject.
#ifndef PERF_BENCH_H
#define PERF_BENCH_H
#include <array>
#include <atomic>
#include <bit>
#include <channels/channel.h>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <string>
#include <vector>
#include <sched.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace bench {

// ---- settings: environment BENCH_MS (length of one measurement) and BENCH_REPS (measurements per figure)
struct settings {
	std::uint64_t run_ns;
	int reps;
};
const settings &conf();

// ---- time
std::uint64_t now_ns(); // CLOCK_MONOTONIC: the same in every process

// The cheapest clock of this cpu, for intervals within one process: reading it costs part of what it measures.
inline std::uint64_t ticks()
{
#if defined(__x86_64__)
	return __rdtsc();
#elif defined(__aarch64__)
	std::uint64_t now;
	asm volatile("mrs %0, cntvct_el0" : "=r"(now));
	return now;
#else
	return now_ns();
#endif
}
double ticks_per_ns(); // calibrated at first use; main does that before it forks

inline void relax()
{
#if defined(__x86_64__)
	_mm_pause();
#elif defined(__aarch64__)
	asm volatile("isb" ::: "memory");
#endif
}

// What every loop that retries does in between, subject and baseline alike.
class backoff {
	unsigned tries = 0;

public:
	void pause()
	{
		relax();
		if (++tries % 256 == 0)
			sched_yield();
	}
};

// ---- histogram of ticks: 128 buckets to each doubling, so a quantile is right to 0.8 %
class histogram {
	static constexpr unsigned sub_bits = 7, sub = 1U << sub_bits;
	std::array<std::uint64_t, (65 - sub_bits) * sub> counts{};

	static std::size_t index(std::uint64_t value)
	{
		if (value < sub)
			return value;
		unsigned exponent = static_cast<unsigned>(std::bit_width(value)) - 1 - sub_bits;
		return (exponent + 1) * sub + (value >> exponent) - sub;
	}

public:
	void add(std::uint64_t value) { counts[index(value)]++; }
	std::uint64_t count() const;
	double quantile(double share) const; // the middle of its bucket; 0 when empty
};

// ---- memory that forked processes share and that is gone with the last of them
class region {
	void *at;
	std::size_t nr;

public:
	explicit region(std::size_t len); // throws std::bad_alloc
	~region() { munmap(at, nr); }
	region(const region &) = delete;
	region &operator=(const region &) = delete;
	void *data() const { return at; }
};

template <class T> class shared {
	region memory{sizeof(T)};

public:
	shared() { new (memory.data()) T(); }
	T &operator*() const { return *static_cast<T *>(memory.data()); }
	T *operator->() const { return static_cast<T *>(memory.data()); }
};

// ---- processes
/*
 * word      written by                      read by        order
 * nr_ready  each member, once it is set up  every member   acq_rel: what a member set up is there at the start
 * failed    the first member that fails     the parent     after waitpid
 */
struct control {
	std::atomic<int> nr_ready{0};
	std::atomic<int> failed{0};
	char text[240] = {};
};

// What the body of a process gets.
class member {
	control &shared_words;
	int nr;

public:
	const int index;

	member(control &words, int count, int which) : shared_words(words), nr(count), index(which) {}
	void start();                                           // returns when every member has called it
	[[noreturn]] void fail(const char *what, int code = 0); // code: a negative errno, or 0
};

std::vector<int> allowed_cpus();

// Busy-waiting like the baseline, unless there is but one cpu to wait on.
inline std::uint32_t busy() { return allowed_cpus().size() > 1 ? CH_SPIN_ALWAYS : 0; }

// Where process index of nr runs, of which the first nr_left send: senders in the one half of the allowed cpus,
// receivers in the other.
int cpu_of(int index, int nr_left, int nr);

// Fork nr processes, run body in each, wait for all. Returns "" or what went wrong; then all are killed and reaped.
std::string run_team(int nr, int nr_left, const std::function<void(member &)> &body);

// The signal that asked the program to end while a team ran, or 0. Every later run_team fails at once.
int stop_signal();

// ---- rows
struct sample {
	double value = 0;                  // ns for a latency, messages/s or bytes/s for a rate
	double p50 = 0, p99 = 0, p999 = 0; // ns, latencies only
	std::string error{};
	bool is_starved = false; // hardly anything was measured: a process got no processor in its time
};
using measurement = std::function<sample()>;

// A sample, with what the set-up threw as its error.
template <class F> sample guarded(F measure)
{
	try {
		return measure();
	} catch (const std::exception &e) {
		sample s;
		s.error = e.what();
		return s;
	}
}

struct row {
	std::string name; // subject/case/bytes
	std::string note; // unit, and what the baseline is
	measurement subject;
	measurement baseline; // may be empty
	// What the best peer that was measured elsewhere had for a ratio, and its name; see README.md.
	double peer_ratio = 0;
	std::string peer{};
};
void add_row(row r);

// Half a round trip of each in the histogram; value is the median.
sample latency_sample(const histogram &round_trips, const std::string &error);

// The main function of a benchmark program, after its rows were added. Returns the exit status: 1 if a row failed.
int run_rows(int argc, char **argv, const std::vector<std::pair<std::string, std::string>> &context);

} // namespace bench
#endif

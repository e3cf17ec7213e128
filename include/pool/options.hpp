// SPDX-License-Identifier: Apache-2.0
// options.hpp - what can be asked of a pool, a task and a map, and what a pool tells of itself.
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <pool/placement.hpp>
#include <string>
#include <string_view>

namespace ch {

using std::chrono::nanoseconds;

// What happens to the task that a worker held when it died.
enum class on_death {
	requeue, // another worker begins it anew, up to max_attempts in all; then ch::worker_died
	fail,    // ch::worker_died at once
};

// A free worker takes the oldest task of the highest priority there is.
enum class priority : std::uint8_t { normal, high, low };

struct pool_options {
	unsigned workers = 0;     // 0: the CPUs this process may use (affinity and cgroup quota)
	ch::on_death on_death = ch::on_death::requeue;
	unsigned max_attempts = 3;
	std::size_t memory = 32 << 20; // bytes of shared memory. submit() waits while arguments take 5/8 of it
	// To which memory grows for what does not fit. The largest argument is 5/8 of it. 0: 8 * memory, and no more than the
	// machine has
	std::size_t max_memory = 0;
	unsigned in_flight = 0;   // tasks submitted and not done, at most; submit() waits beyond. 0: 4096 or more
	unsigned spin_ns = 0;     // how long to busy-wait before sleeping, as in ch_channel_attr
	std::string name = "pool"; // workers appear under it in ps(1)
	unsigned max_workers = 0; // that resize() may ask for. 0: four times workers, 64 at least
	unsigned max_tasks = 0;   // a worker is replaced after so many; a chunk of map is one. 0: never
	nanoseconds timeout{0};   // of each task that names none; 0: none
	ch::placement placement{}; // of the workers. With one, workers 0 means as many as its CPUs
	// Runs in each worker before its first task, with whatever it captures as it was when the pool was made. If it
	// throws, or kills max_attempts workers in a row, the pool gives up and says so.
	std::function<void()> initializer{};
};

// Of one task: where a field is left as it is, the pool's options hold.
struct task_options {
	ch::priority priority = ch::priority::normal;
	nanoseconds timeout{0};    // from its beginning in a worker, which is killed when it is over: ch::task_timeout
	unsigned max_attempts = 0; // how often it is begun at most if workers die of it
	unsigned retries = 0;      // how often it is begun again if it throws
	std::optional<ch::on_death> on_death{};
	std::string_view name{};   // appears in what went wrong
};

struct map_options {
	std::size_t chunk = 0;     // items in one task; 0: as many as take about a millisecond
	std::size_t in_flight = 0; // chunks sent and not yet fetched, at most; 0: two per worker and one
	task_options task{};       // of each chunk
	const char *progress = nullptr; // a bar under this name on standard error, if that is a terminal
};

struct pool_stats {
	std::uint64_t submitted = 0; // tasks; a chunk of map is one
	std::uint64_t done = 0;      // results that came, errors among them
	std::uint64_t failed = 0;    // of these, errors
	std::uint64_t requeued = 0;  // begun anew after a death
	std::uint64_t retried = 0;   // begun again after an exception
	std::uint64_t given_up = 0;  // ended as ch::worker_died
	std::uint64_t timed_out = 0; // ended as ch::task_timeout
	std::uint64_t cancelled = 0;
	std::uint64_t deaths = 0;    // of workers, except those that the pool asked to go
	std::uint64_t recycled = 0;  // workers that were replaced after max_tasks
	std::uint64_t in_flight = 0;
	unsigned workers = 0;        // that run now
	unsigned busy = 0;           // of them, those that have a task
};

} // namespace ch

// SPDX-License-Identifier: Apache-2.0
// ddict_baseline.h - what the dictionary is measured against: a minimal manager process behind plain spinning rings,
// memcpy, and other people's servers; and the loop that counts for all of them.
#ifndef PERF_DDICT_BASELINE_H
#define PERF_DDICT_BASELINE_H
#include "baseline.h"

namespace bench {

using key_text = std::array<char, 128>;
key_text key_of(std::uint64_t who, std::uint64_t k);

// What a client did in the measured part of its time.
struct counted {
	std::uint64_t done = 0, ns = 0;
};

// f(k) with k = 0, 1, 2... gives how many it did; the first tenth is not counted.
template <class F> counted run_timed(F &&f)
{
	const std::uint64_t start = now_ns(), warm = start + conf().run_ns / 10, end = start + conf().run_ns;
	std::uint64_t now = start, from = 0;
	counted c;

	for (std::size_t k = 0; now < end; now = now_ns()) {
		const std::size_t nr = f(k);

		k += nr;
		if (now >= warm) {
			from = from ? from : now;
			c.done += nr;
		}
	}
	// A call longer than the whole time counts by itself.
	if (!c.done)
		return {f(0), now_ns() - now};
	c.ns = now - from;
	return c;
}

// Processes that each run work(member, ready) after all are ready; the sum of their rates.
sample count_clients(int nr, const std::function<counted(member &, const std::function<void()> &)> &work);

// Operations per second of one client that asks a process with a hash table of fixed size, so many under way (1 to 64):
// half puts, half gets, a key of 128 bytes and a value of len bytes in one plain slot each way. Crash tolerance,
// sleeping, and growth it does not have.
sample minimal_manager(std::size_t len, std::size_t ahead = 1);
// The same, asked one at a time by a client that copies len bytes into nr places in shared memory in turn, or out of them,
// with each request: what a value that does not travel in the ring costs at least where a manager is asked for it.
sample minimal_manager_in(std::size_t len, std::size_t nr);
sample minimal_manager_out(std::size_t len, std::size_t nr);

// A server of somebody else's behind a Unix socket, where it is installed: started for each measurement, in a directory
// of its own. Operations per second of one client, with so many requests in one write.
enum class peer { redis, memcached };
bool is_installed(peer p);
sample ask_peer(peer p, bool is_get, std::size_t len, std::size_t ahead);

// Copies per second of one process between a private buffer and nr places in shared memory in turn.
sample memcpy_in(std::size_t len, std::size_t nr);
sample memcpy_out(std::size_t len, std::size_t nr);

// Rows of persist, restore and flush (ddict_files.cpp).
void add_files_rows();

} // namespace bench
#endif

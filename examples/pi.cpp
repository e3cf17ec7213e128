// SPDX-License-Identifier: Apache-2.0
// pi.cpp - estimates pi with processes that share a dictionary, one checkpoint for each round: everybody puts its own
// sum, reads the others' of the same round, and nobody runs ahead of the others by more than the working set.
//
//	pi [PROCESSES [ROUNDS]]
#include <ddict/ddict.hpp>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>
#include <sys/wait.h>
#include <unistd.h>

namespace {

using table = ch::ddict<std::string, std::uint64_t>;

constexpr std::uint64_t points = 200000; // of each process in each round

// How many of the points lie in the quarter circle. Marsaglia's xorshift.
std::uint64_t hits(std::uint64_t &x)
{
	std::uint64_t in = 0;

	for (std::uint64_t i = 0; i < points; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		const double a = static_cast<double>(x & 0xffffffff) / 4294967296.0;
		const double b = static_cast<double>(x >> 32) / 4294967296.0;

		in += a * a + b * b < 1;
	}
	return in;
}

std::string key_of(int process)
{
	return "hits/" + std::to_string(process);
}

// What all processes have found up to this round; waits for those that are not there yet.
double estimate(const table &d, int processes, int rounds)
{
	std::uint64_t all = 0;

	for (int p = 0; p < processes; p++)
		all += d.get(key_of(p));
	return 4.0 * static_cast<double>(all) /
	       (static_cast<double>(points) * static_cast<double>(processes) * static_cast<double>(rounds));
}

void work(const table &d, int me, int processes, int rounds)
{
	std::uint64_t x = 0x9e3779b97f4a7c15 * static_cast<std::uint64_t>(me + 1), mine = 0;

	for (int round = 1; round <= rounds; round++) {
		mine += hits(x);
		d.put(key_of(me), mine);
		const double pi = estimate(d, processes, round);

		if (me == 0)
			std::printf("round %d: %.5f\n", round, pi);
		d.checkpoint();
	}
}

} // namespace

int main(int argc, char **argv)
{
	const int processes = argc > 1 ? std::atoi(argv[1]) : 4, rounds = argc > 2 ? std::atoi(argv[2]) : 5;

	if (processes < 1 || rounds < 1) {
		std::fprintf(stderr, "usage: pi [PROCESSES [ROUNDS]]\n");
		return 2;
	}
	try {
		const table d({.managers = 1, .working_set = 2, .wait_for_keys = true});
		std::vector<pid_t> children;

		for (int p = 1; p < processes; p++)
			if (children.push_back(fork()); children.back() == 0) {
				work(d, p, processes, rounds);
				_exit(0);
			}
		work(d, 0, processes, rounds);
		for (const pid_t c : children)
			waitpid(c, nullptr, 0);
		d.set_checkpoint(static_cast<std::uint64_t>(rounds - 1));
		return std::abs(estimate(d, processes, rounds) - 3.14159265) < 0.05 ? 0 : 1;
	} catch (const std::exception &e) {
		std::fprintf(stderr, "pi: %s\n", e.what());
		return 1;
	}
}

// SPDX-License-Identifier: Apache-2.0
// loader.cpp - a cache for samples that take long to load: processes that each read all samples, in an order of their own
// and epoch after epoch, share what any of them has loaded, in as much memory as they are given.
//
//	loader [PROCESSES [EPOCHS [MEGABYTES]]]
#include <ddict/ddict.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <sys/wait.h>
#include <unistd.h>

namespace {

using cache = ch::ddict<int, std::string>;
using counters = ch::ddict<std::string, long>; // another view of the same dictionary

constexpr int nr_samples = 64;
constexpr std::size_t sample_len = 64 * 1024;

// What a program would read from files and decode.
std::string load(int sample)
{
	std::string s(sample_len, '\0');
	std::mt19937 random(static_cast<unsigned>(sample));

	for (char &c : s)
		c = static_cast<char>(random());
	return s;
}

long checksum(std::string_view s)
{
	return std::accumulate(s.begin(), s.end(), 0L);
}

long use(const cache &samples, const counters &counts, int sample)
{
	if (const auto there = samples.view(sample)) { // where it lies: no copy
		counts.fetch_add("found", 1);
		return checksum(there->text());
	}
	const std::string s = load(sample);

	counts.fetch_add("loaded", 1);
	samples.put_if_absent(sample, s); // another process may have been faster
	return checksum(s);
}

bool work(const cache &samples, const counters &counts, int me, int epochs)
{
	std::vector<int> order(nr_samples);
	std::vector<long> sums(nr_samples);
	std::mt19937 random(static_cast<unsigned>(me));
	bool is_right = true;

	std::iota(order.begin(), order.end(), 0);
	for (const int s : order)
		sums[static_cast<std::size_t>(s)] = checksum(load(s));
	for (int e = 0; e < epochs; e++) {
		std::shuffle(order.begin(), order.end(), random);
		for (const int s : order)
			is_right &= use(samples, counts, s) == sums[static_cast<std::size_t>(s)];
	}
	return is_right;
}

} // namespace

int main(int argc, char **argv)
{
	const int processes = argc > 1 ? std::atoi(argv[1]) : 3, epochs = argc > 2 ? std::atoi(argv[2]) : 4;
	const int megabytes = argc > 3 ? std::atoi(argv[3]) : 8;

	if (processes < 1 || epochs < 1 || megabytes < 1) {
		std::fprintf(stderr, "usage: loader [PROCESSES [EPOCHS [MEGABYTES]]]\n");
		return 2;
	}
	try {
		const cache samples({.managers = 2,
				     .memory = static_cast<std::size_t>(megabytes) << 20,
				     .when_full = ch::ddict_full::evict});
		const counters counts(samples.core());
		std::vector<pid_t> children;
		int status = 0;

		for (int p = 1; p < processes; p++)
			if (children.push_back(fork()); children.back() == 0)
				_exit(work(samples, counts, p, epochs) ? 0 : 1);
		bool is_right = work(samples, counts, 0, epochs);
		for (const pid_t c : children)
			is_right &= waitpid(c, &status, 0) == c && status == 0;
		std::printf("%d samples, %ld loaded, %ld found, all %s\n", nr_samples, counts.get_or("loaded", 0),
			    counts.get_or("found", 0), is_right ? "right" : "WRONG");
		return is_right ? 0 : 1;
	} catch (const std::exception &e) {
		std::fprintf(stderr, "loader: %s\n", e.what());
		return 1;
	}
}

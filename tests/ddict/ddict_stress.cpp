// SPDX-License-Identifier: Apache-2.0
// ddict_stress.cpp - many threads on one connection; plain main(), so that ThreadSanitizer can look.
//
// ddict_stress [SECONDS].
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ddict/ddict.hpp>
#include <random>
#include <thread>
#include <unistd.h>

using ch::ddict;
using clock_type = std::chrono::steady_clock;

// ThreadSanitizer asks this: a manager is forked from a process that has a thread of libchannels already.
extern "C" const char *__tsan_default_options();
extern "C" __attribute__((visibility("default"), used)) const char *__tsan_default_options()
{
	return "die_after_fork=0";
}

static std::atomic<unsigned> wrong{0};
static std::atomic<bool> is_over{false};

static std::string value_of(unsigned thread, unsigned n, std::size_t len)
{
	return std::string(len, static_cast<char>('a' + (thread * 7 + n) % 26));
}

static void batches(const ddict<std::string, std::string> &d, unsigned thread)
{
	std::vector<std::pair<std::string, std::string>> v;
	std::vector<std::string> keys;

	for (unsigned i = 0; i < 50; i++) {
		keys.push_back("b" + std::to_string(thread) + "/" + std::to_string(i));
		v.emplace_back(keys.back(), value_of(thread, i, i % 10 ? 20 : 2000));
	}
	d.put_many(v);
	const auto got = d.get_many(keys);
	for (unsigned i = 0; i < 50; i++)
		wrong += got[i] != v[i].second;
}

static std::uint64_t work(const ddict<std::string, std::string> &d, unsigned thread, std::uint64_t seed)
{
	const ddict<std::string, std::uint64_t> numbers{d.core()};
	const std::string key = "k" + std::to_string(thread);
	std::mt19937_64 random(seed);
	std::uint64_t added = 0;

	for (unsigned n = 0; !is_over; n++) {
		const std::string value = value_of(thread, n, random() % 4 ? random() % 400 : random() % 20000);

		d.put(key, value);
		wrong += d.get(key) != value;
		numbers.fetch_add("sum", n);
		added += n;
		if (n % 16 == 0)
			batches(d, thread);
		if (n % 64 == 0) {
			ddict<std::string, std::string> copy = d;
			std::size_t met = 0;

			for ([[maybe_unused]] const std::string &k : copy.keys())
				met++;
			wrong += met == 0;
		}
	}
	return added;
}

int main(int argc, char **argv)
{
	const char *given = std::getenv("CH_TEST_SEED");
	const std::uint64_t seed = given ? std::strtoull(given, nullptr, 0) : std::random_device{}();
	ddict<std::string, std::string> d({.managers = 2, .memory = 64 << 20});
	const ddict<std::string, std::uint64_t> numbers{d.core()};
	std::atomic<std::uint64_t> sum{0};
	std::vector<std::jthread> threads;

	std::fprintf(stderr, "CH_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
	alarm(300);
	numbers.put("sum", 0);
	for (unsigned t = 0; t < 6; t++)
		threads.emplace_back([&, t] { sum += work(d, t, seed + t); });
	std::this_thread::sleep_for(std::chrono::seconds(argc > 1 ? std::atoi(argv[1]) : 2));
	is_over = true;
	threads.clear();
	if (wrong || numbers.get("sum") != sum) {
		std::fprintf(stderr, "%u wrong values; sum %llu, should be %llu\n", wrong.load(),
			     static_cast<unsigned long long>(numbers.get("sum")),
			     static_cast<unsigned long long>(sum.load()));
		return 1;
	}
	return 0;
}

// SPDX-License-Identifier: Apache-2.0
// threads_stress.cpp - many threads of one owner: they submit, wait with and without timeouts, chain, take back and drop
// futures and end the pool, with few places and while workers are killed. Plain main, so that ThreadSanitizer can run it.
// CH_TEST_SECONDS=N: about how long; CH_TEST_SEED=N: the same kills again.
#include "../support/support.h"
#include <atomic>
#include <pool/pool.hpp>
#include <string>
#include <thread>
#include <vector>

// Workers are forked from a process that has threads already (the library's own): ThreadSanitizer ends such by default.
extern "C" const char *__tsan_default_options();
extern "C" __attribute__((visibility("default"), used)) const char *__tsan_default_options()
{
	return "die_after_fork=0";
}

// The bytes of arguments and results: a block that one thread wrote comes back to another by way of a worker, and what
// orders that ThreadSanitizer does not see in another process.
extern "C" const char *__tsan_default_suppressions();
extern "C" __attribute__((visibility("default"), used)) const char *__tsan_default_suppressions()
{
	return "race:ch::archive::writer::put\n";
}

static void expect(bool is_so, const char *what)
{
	if (is_so)
		return;
	fprintf(stderr, "%s is not so\n", what);
	_exit(1);
}

static void use(ch::pool &p, int who, int64_t until_ns)
{
	using namespace std::chrono_literals;
	const std::string text(5000, static_cast<char>('a' + who));

	for (int i = 0; i % 16 || now_ns() < until_ns; i++) {
		auto number = p.submit([](int a) { return a; }, who * 1000000 + i);
		auto string = p.submit([](const std::string &a) { return a; }, text);

		if (i % 3 == 0)
			number.wait_for(10us);
		if (i % 7 == 0)
			continue;
		if (i % 11 == 0) {
			auto twice = number.then([](int a) { return 2 * a; });

			string.on_done([](const std::string &) {});
			expect(twice.get() == 2 * (who * 1000000 + i), "what a continuation made of it");
			continue;
		}
		if (i % 13 == 0 && string.cancel())
			continue;
		expect(number.get() == who * 1000000 + i, "the number that came back");
		expect(string.get() == text, "the text that came back");
	}
}

static void kill_some(ch::pool &p, std::uint64_t seed, const std::atomic<bool> &stop)
{
	while (!stop) {
		const auto pids = p.workers();

		if (!pids.empty())
			kill(pids[rnd(&seed) % pids.size()], SIGKILL);
		usleep(static_cast<useconds_t>(rnd(&seed) % 20000));
	}
}

static void be_ended(ch::pool &p)
{
	try {
		for (;;)
			p.submit([] { usleep(100); }).get();
	} catch (const ch::error &) {
	}
}

int main()
{
	const char *given = getenv("CH_TEST_SECONDS");
	const int64_t until = now_ns() + (given ? atoi(given) : 3) * 1000 * MS;
	const std::uint64_t seed = test_seed();
	std::atomic<bool> stop = false;
	std::vector<std::thread> threads;

	alarm(WATCHDOG_S + (given ? static_cast<unsigned>(atoi(given)) : 0));
	ch::pool p({.workers = 2, .max_attempts = 1000000, .in_flight = 8});
	std::thread killer(kill_some, std::ref(p), seed, std::cref(stop));
	for (int t = 0; t < 4; t++)
		threads.emplace_back(use, std::ref(p), t, until);
	for (std::thread &t : threads)
		t.join();
	stop = true;
	killer.join();
	threads.clear();
	for (int t = 0; t < 4; t++)
		threads.emplace_back(be_ended, std::ref(p));
	p.terminate();
	for (std::thread &t : threads)
		t.join();
	fprintf(stderr, "%lu tasks, %lu deaths\n", static_cast<unsigned long>(p.stats().submitted),
		static_cast<unsigned long>(p.stats().deaths));
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* stress.h - what the stress programs share: options, threads, and an end that says PASS or FAIL. */
#ifndef TESTS_STRESS_H
#define TESTS_STRESS_H
#include "../support/support.h"
#include <atomic>
#include <cinttypes>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace stress {

struct options {
	uint64_t messages; /* or rounds: how much work in all */
	uint64_t seed = 0;
	int threads = 4;
};

/* [--messages N] [--seed X] [--threads T]. Without a seed CH_TEST_SEED or the clock gives one. */
inline options parse(int argc, char **argv, uint64_t messages)
{
	options o = { messages };

	for (int i = 1; i + 1 < argc; i += 2) {
		const uint64_t v = strtoull(argv[i + 1], nullptr, 0);

		if (!strcmp(argv[i], "--messages"))
			o.messages = v;
		else if (!strcmp(argv[i], "--seed"))
			o.seed = v;
		else if (!strcmp(argv[i], "--threads"))
			o.threads = static_cast<int>(v);
		else
			exit(2);
	}
	if (!o.seed)
		o.seed = test_seed();
	alarm(600); /* a hang ends by SIGALRM */
	return o;
}

inline std::atomic<int> failures{ 0 };

#define CHECK(cond)                                                                                             \
	do {                                                                                                    \
		if (!(cond)) {                                                                                  \
			fprintf(stderr, "%s:%d: %s is not so (%s)\n", __FILE__, __LINE__, #cond, ch_errmsg()); \
			if (stress::failures++ > 20)                                                            \
				_exit(1);                                                                       \
		}                                                                                               \
	} while (0)

/* Runs fn(0) ... fn(n-1), each in a thread of its own, and waits for all. */
inline void together(int n, const std::function<void(int)> &fn)
{
	std::vector<std::thread> threads;

	for (int i = 0; i < n; i++)
		threads.emplace_back(fn, i);
	for (auto &t : threads)
		t.join();
}

inline int verdict(const char *name, const options &o)
{
	printf("%s: %s, messages=%" PRIu64 " threads=%d seed=%" PRIu64 "\n", failures ? "FAIL" : "PASS", name, o.messages,
	       o.threads, o.seed);
	return failures ? 1 : 0;
}

} // namespace stress
#endif

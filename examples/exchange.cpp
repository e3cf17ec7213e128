// SPDX-License-Identifier: Apache-2.0
// exchange.cpp - processes that fit one model, each to data of its own: every round, all read the parameters, put their
// gradients, and the first one makes the next parameters of them. Rounds are checkpoints: a get waits until its round's
// value was put, so that nobody mixes rounds and no other lock or barrier is needed.
//
//	exchange [PROCESSES [ROUNDS]]
#include <ddict/ddict.hpp>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <sys/wait.h>
#include <unistd.h>

namespace {

using vector = std::array<double, 3>;
using table = ch::ddict<std::string, vector>;

constexpr vector truth = {2, -3, 0.5}; // y = 2 a - 3 b + 0.5
constexpr int points = 200;            // of each process
constexpr double rate = 0.5;

// Of the mean squared error over the points of one process.
vector gradient(const vector &w, int process)
{
	std::mt19937 random(static_cast<unsigned>(process + 1));
	vector g{};

	for (int i = 0; i < points; i++) {
		const vector x = {static_cast<double>(random()) / 4294967296.0,
				  static_cast<double>(random()) / 4294967296.0, 1};
		double error = 0;

		for (std::size_t k = 0; k < x.size(); k++)
			error += (w[k] - truth[k]) * x[k];
		for (std::size_t k = 0; k < x.size(); k++)
			g[k] += 2 * error * x[k] / points;
	}
	return g;
}

std::string key_of(int process)
{
	return "gradient/" + std::to_string(process);
}

// One step against the mean of all gradients of this round.
vector step(const table &d, vector w, int processes)
{
	for (int p = 0; p < processes; p++) {
		const vector g = d.get(key_of(p));

		for (std::size_t k = 0; k < w.size(); k++)
			w[k] -= rate * g[k] / processes;
	}
	return w;
}

vector work(const table &d, int me, int processes, int rounds)
{
	vector w{};

	for (int round = 1; round <= rounds; round++) {
		if (me == 0)
			d.put("parameters", w);
		w = d.get("parameters");
		d.put(key_of(me), gradient(w, me));
		if (me == 0)
			w = step(d, w, processes);
		d.checkpoint();
	}
	return w;
}

} // namespace

int main(int argc, char **argv)
{
	const int processes = argc > 1 ? std::atoi(argv[1]) : 3, rounds = argc > 2 ? std::atoi(argv[2]) : 200;

	if (processes < 1 || rounds < 1) {
		std::fprintf(stderr, "usage: exchange [PROCESSES [ROUNDS]]\n");
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
		const vector w = work(d, 0, processes, rounds);

		for (const pid_t c : children)
			waitpid(c, nullptr, 0);
		std::printf("after %d rounds: y = %.4f a + %.4f b + %.4f\n", rounds, w[0], w[1], w[2]);
		return 0;
	} catch (const std::exception &e) {
		std::fprintf(stderr, "exchange: %s\n", e.what());
		return 1;
	}
}

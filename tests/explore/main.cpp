/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.cpp - explores every scenario, then weakens memory orders and demands that some scenario fails.
 *
 * usage: explore [--full] [--only TEXT] [--preemptions N] [--stale N] [--deaths N] [--seed S] [--runs N] [--trace N]
 *                [--orders [TEXT]]
 *
 * Without options, in some seconds: each scenario within small bounds and with some random runs, and the orders that
 * orders.txt says are noticed. CH_TEST_SEED is the seed of the random runs.
 * --full        the bounds that stand in the scenarios, up to 2 million runs and 200,000 random ones each: an hour
 * --only        scenarios whose name holds TEXT
 * --seed        random runs only, 10,000 or N
 * --trace       how many of the last steps of a failing run are printed (60)
 * --orders      weakens every order, those of sites like ring.h:129 that hold TEXT, or with "new" those of which
 *               orders.txt names no scenario, and prints who notices: some minutes of all processors
 */
#include "orders.h"
#include "scenarios.h"
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

using namespace ch::explore;

namespace {

struct options {
	bool is_full = false;
	const char *only = "", *orders = nullptr;
	int preemptions = -1, stale = -1, deaths = -1, trace = 60;
	u64 seed = 0, runs = 0;
};

bool read_option(const char *name, const char *value, options &o)
{
	if (!strcmp(name, "--only"))
		o.only = value;
	else if (!strcmp(name, "--orders"))
		o.orders = value;
	else if (!strcmp(name, "--preemptions"))
		o.preemptions = atoi(value);
	else if (!strcmp(name, "--stale"))
		o.stale = atoi(value);
	else if (!strcmp(name, "--deaths"))
		o.deaths = atoi(value);
	else if (!strcmp(name, "--trace"))
		o.trace = atoi(value);
	else if (!strcmp(name, "--seed"))
		o.seed = strtoull(value, nullptr, 0);
	else if (!strcmp(name, "--runs"))
		o.runs = strtoull(value, nullptr, 0);
	else
		return false;
	return o.preemptions <= MOST && o.stale <= MOST && o.deaths <= MOST;
}

bool read_options(int argc, char **argv, options &o)
{
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--full"))
			o.is_full = true;
		else if (!strcmp(argv[i], "--orders") && i + 1 == argc)
			o.orders = "";
		else if (i + 1 == argc || !read_option(argv[i], argv[i + 1], o))
			return false;
		else
			i++;
	}
	return true;
}

bounds bounds_of(const scenario &s, const options &o)
{
	bounds b = s.within;

	if (!o.is_full) {
		b.preemptions = std::min(b.preemptions, 1);
		b.stale = s.nr_threads > 2 ? 0 : std::min(b.stale, 1);
	}
	b.preemptions = o.preemptions < 0 ? b.preemptions : o.preemptions;
	b.stale = o.stale < 0 ? b.stale : o.stale;
	b.deaths = o.deaths < 0 ? b.deaths : o.deaths;
	b.runs = o.runs ? o.runs : o.is_full ? 2000000 : 2000;
	return b;
}

void print_end(const std::string &text, int lines)
{
	size_t at = text.size();

	while (at > 0 && lines >= 0)
		lines -= text[--at] == '\n';
	fputs(text.c_str() + at + (at > 0), stdout);
}

bool explore_one(const scenario &s, const bounds &b, int trace)
{
	const auto begin = std::chrono::steady_clock::now();
	const outcome r = explore(s, b, true);
	const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;

	print_end(r.trace, trace);
	printf("%s: %s; ", s.name, r.failed ? r.why : "holds");
	if (b.seed)
		printf("%llu random runs from seed %llu", static_cast<unsigned long long>(r.runs),
		       static_cast<unsigned long long>(b.seed));
	else
		printf("%llu runs, %llu states%s, preemptions %d, stale %d, deaths %d", static_cast<unsigned long long>(r.runs),
		       static_cast<unsigned long long>(r.states), r.is_complete || r.failed ? "" : " and more", b.preemptions,
		       b.stale, b.deaths);
	printf(", %.2f s\n", took.count());
	fflush(stdout);
	return !r.failed;
}

bool explore_all(const std::vector<scenario> &all, const options &o)
{
	const char *given = getenv("CH_TEST_SEED");
	const u64 seed = o.seed ? o.seed : given ? strtoull(given, nullptr, 0) : 1;
	bool holds = true;

	for (const scenario &s : all) {
		bounds b = bounds_of(s, o);
		if (!strstr(s.name, o.only))
			continue;
		if (!o.seed)
			holds &= explore_one(s, b, o.trace);
		b.seed = seed;
		b.runs = o.runs ? o.runs : o.seed ? 10000 : o.is_full ? 200000 : 500;
		holds &= explore_one(s, b, o.trace);
	}
	return holds;
}

} // namespace

int main(int argc, char **argv)
{
	std::vector<scenario> all = channel_scenarios();
	options o;

	for (const auto &more : {kinds_scenarios(), death_scenarios(), ground_scenarios(), sync_scenarios(), stream_scenarios(),
				 ways_scenarios()})
		all.insert(all.end(), more.begin(), more.end());
	if (!read_options(argc, argv, o)) {
		fprintf(stderr, "usage: see the beginning of main.cpp\n");
		return 2;
	}
	if (o.orders)
		return !weaken_each(all, o.orders);
	bool holds = explore_all(all, o);
	if (holds && !o.is_full && !o.seed && !*o.only)
		holds = weaken_listed(all);
	printf("%s\n", holds ? "PASS" : "FAIL");
	return !holds;
}

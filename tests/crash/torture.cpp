/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torture.cpp - the kill test. Producers, consumers, reapers and destroyers of channels work on one pool and are
 * killed with SIGKILL, at random instants and (in builds with --enable-crash-points) at chosen steps, and replaced.
 * At the end nothing may be lost, duplicated, out of order, leaked or hung. See evidence.h for how that is judged.
 *
 * usage: torture [--kills N] [--seconds S] [--seed X] [--mode rand|points|both]
 *                [--kind plain|spsc|acknowledged|mixed|hangs_up] [--producers P] [--consumers C] [--reapers R] [--enders E]
 *                [--capacity N] [--resident 0|1] [--verbose]
 *
 * Without --capacity and --kind the kills are shared out among plain channels of capacity 4, 8 and 64 and one channel of each
 * other kind. --seconds ends the run early.
 */
#include "director.h"
#include <getopt.h>

using namespace torture;

namespace {

struct request {
	plan base;
	struct channel {
		uint32_t capacity;
		kind what;
	};
	std::vector<channel> channels = { { 4, kind::plain }, { 8, kind::plain },	 { 64, kind::plain },
					  { 8, kind::spsc },  { 4, kind::acknowledged }, { 4, kind::mixed },
					  { 4, kind::hangs_up } };
	int resident = -1; /* by turns */
	uint64_t kills = 1000;
	double seconds = 1e9;
};

[[noreturn]] void usage()
{
	fputs("usage: torture [--kills N] [--seconds S] [--seed X] [--mode rand|points|both]\n"
	      "               [--kind plain|spsc|acknowledged|mixed|hangs_up] [--producers P] [--consumers C]\n"
	      "               [--reapers R] [--enders E] [--capacity N] [--resident 0|1] [--verbose]\n",
	      stderr);
	exit(2);
}

void set_mode(plan &p, const char *name)
{
	p.at_random = !strcmp(name, "rand") || !strcmp(name, "both");
	p.at_points = !strcmp(name, "points") || !strcmp(name, "both");
	if (!p.at_random && !p.at_points)
		usage();
	if (p.at_points && nr_crash_points() == 0) {
		fputs("torture: this build has no crash points: configure with --enable-crash-points\n", stderr);
		exit(77);
	}
}

int kind_of(const char *name)
{
	for (int i = 0; i < NR_KINDS; i++)
		if (!strcmp(name, kind_names[i]))
			return i;
	usage();
}

request parse(int argc, char **argv)
{
	static const option options[] = {
		{ "kills", 1, nullptr, 'k' },	  { "seconds", 1, nullptr, 't' }, { "seed", 1, nullptr, 's' },
		{ "mode", 1, nullptr, 'm' },	  { "producers", 1, nullptr, 'p' }, { "consumers", 1, nullptr, 'c' },
		{ "reapers", 1, nullptr, 'r' },	  { "enders", 1, nullptr, 'e' },    { "capacity", 1, nullptr, 'n' },
		{ "resident", 1, nullptr, 'R' },    { "verbose", 0, nullptr, 'v' },
		{ "kind", 1, nullptr, 'K' },	    {},
	};
	request r;
	bool seeded = false;
	uint32_t capacity = 0;
	int what = -1;

	r.base.at_points = nr_crash_points() > 0;
	for (int c; (c = getopt_long(argc, argv, "", options, nullptr)) != -1;)
		switch (c) {
		case 'k': r.kills = strtoull(optarg, nullptr, 0); break;
		case 't': r.seconds = atof(optarg); break;
		case 's': r.base.seed = strtoull(optarg, nullptr, 0), seeded = true; break;
		case 'm': set_mode(r.base, optarg); break;
		case 'p': r.base.crew[0] = atoi(optarg); break;
		case 'c': r.base.crew[1] = atoi(optarg); break;
		case 'r': r.base.crew[2] = atoi(optarg); break;
		case 'e': r.base.crew[3] = atoi(optarg); break;
		case 'n': capacity = static_cast<uint32_t>(atoi(optarg)); break;
		case 'K': what = kind_of(optarg); break;
		case 'R': r.resident = atoi(optarg); break;
		case 'v': r.base.verbose = true; break;
		default: usage();
		}
	if (capacity || what >= 0)
		r.channels = { { capacity ? capacity : 4, static_cast<kind>(what < 0 ? 0 : what) } };
	if (!seeded)
		r.base.seed = test_seed();
	return r;
}

void print(const plan &p, const result &r)
{
	const auto &v = r.verdict;

	printf("torture seed=%llu %s capacity=%u %d+%d+%d+%d resident=%d %.1fs: kills=%llu (at points %llu, in hand %llu) "
	       "messages=%llu received=%llu | lost=%llu duplicated=%llu ghosts=%llu reordered=%llu corrupt=%llu "
	       "errors=%llu timeouts=%llu leaked=%d hung=%d broken=%d | late=%llu ambiguous=%llu unseen=%llu "
	       "unacknowledged=%llu longest call %.1f ms: %s\n",
	       (unsigned long long)p.seed, kind_names[static_cast<int>(p.what)], p.capacity, p.crew[0],
	       p.crew[1], p.crew[2], p.crew[3], p.resident, r.seconds,
	       (unsigned long long)r.kills, (unsigned long long)r.kills_at_points, (unsigned long long)r.in_hand,
	       (unsigned long long)v.committed, (unsigned long long)r.received, (unsigned long long)r.lost,
	       (unsigned long long)v.duplicated, (unsigned long long)v.ghosts, (unsigned long long)r.reordered,
	       (unsigned long long)r.corrupt, (unsigned long long)r.errors, (unsigned long long)r.timeouts, r.leaked,
	       r.hung, r.broken, (unsigned long long)r.late, (unsigned long long)v.ambiguous,
	       (unsigned long long)(v.unseen - r.lost), (unsigned long long)v.unacknowledged, (double)r.longest_ns / 1e6,
	       r.passed() ? "PASS" : "FAIL");
	fflush(stdout);
}

/* Sums up where the kills of all runs were: a step that is never hit is a step that is not tested. */
void print_points(const std::vector<uint64_t> &hits)
{
	printf("kills at points:");
	for (size_t i = 0; i < hits.size(); i++)
		printf(" %s:%llu", crash_point_name(static_cast<int>(i)), (unsigned long long)hits[i]);
	printf("\n");
}

} // namespace

int main(int argc, char **argv)
{
	request req = parse(argc, argv);
	const int64_t begin = now_ns();
	uint64_t left = req.kills, all_kills = 0;
	std::vector<uint64_t> hits(static_cast<size_t>(nr_crash_points()));
	bool ok = true;

	for (size_t i = 0; i < req.channels.size() && ok; i++) {
		plan p = req.base;

		p.capacity = req.channels[i].capacity;
		p.what = req.channels[i].what;
		p.seed += i;
		p.resident = req.resident >= 0 ? req.resident : (p.seed & 1);
		p.kills = left / (req.channels.size() - i);
		p.seconds = (req.seconds - static_cast<double>(now_ns() - begin) / 1e9) /
			    static_cast<double>(req.channels.size() - i);
		const result r = p.what == kind::hangs_up ? run_couples(p) : run(p);
		print(p, r);
		left -= std::min(left, r.kills);
		all_kills += r.kills;
		for (size_t k = 0; k < hits.size(); k++)
			hits[k] += r.hits[k];
		ok = r.passed();
	}
	if (req.base.at_points)
		print_points(hits);
	printf("%s: %llu kills; CH_TEST_SEED=%llu\n", ok ? "PASS" : "FAIL", (unsigned long long)all_kills,
	       (unsigned long long)req.base.seed);
	return ok ? 0 : 1;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * ddict_torture.cpp - the kill test of dictionaries. A crew of clients puts, erases, counts, batches, streams and reads in
 * place; clients, and in further rounds managers too, are killed with SIGKILL, at random instants and (in builds with
 * --enable-crash-points) at chosen steps of libchannels, and replaced.
 *
 * Every key has one writer, which notes beside the dictionary, in memory that outlives it, which value it begins to put
 * and which one was acknowledged. What must hold, whoever dies where: a key has the acknowledged value or the one begun,
 * whole, for whoever reads it; nobody hangs; and when the clients are dead and the keys erased, the pools hold what they
 * held at the start and no value is pinned. With two replicas that stays so when managers are killed. Without them each
 * client is told before it misses a key, the number of lost keys is the right one, and the dictionary can be used on.
 *
 * usage: ddict_torture [--kills CLIENTS] [--managers MANAGERS] [--seed X] [--crew C]
 *        MANAGERS are killed in each round that kills them; default: a twentieth of CLIENTS.
 */
#include "crash.h"
#include "ddict_crew.h"
#include "../support/holdings.hpp"
#include <algorithm>

using namespace dict_torture;

namespace {

bool is_manager; // or what starts them

struct options {
	uint64_t kills = 200, managers = 0, seed = 0;
	int crew = 4;
};

#ifdef CH_CRASH_POINTS
void on_crash_point(int id)
{
	if (self && id == self->point && --self->countdown <= 0)
		kill(getpid(), SIGKILL);
	if (!is_manager || id != ev->manager_point || --ev->manager_countdown > 0)
		return;
	killer none = killer::nobody;

	if (ev->who_kills.compare_exchange_strong(none, killer::itself))
		kill(getpid(), SIGKILL);
}
#endif

void hire(member &m, const round_of &r, uint64_t &seeds)
{
	torture::hire(m, seeds, 100, [&](member &me) { play(me, r); });
}

void replace(member &m, const round_of &r, uint64_t &seeds)
{
	if (const int status = child_end(m.pid); status != -SIGKILL) {
		fprintf(stderr, "a client ended with %d\n", status);
		ev->bad++;
	}
	hire(m, r, seeds);
}

// Kills one of them after a while, or finds one that died of a crash point. True if one was replaced.
bool kill_client(const options &o, const round_of &r, uint64_t &seeds)
{
	member &m = ev->crew[rnd(&seeds) % static_cast<uint64_t>(o.crew)];

	if (!torture::strike(m, seeds, 6))
		return false;
	replace(m, r, seeds);
	return true;
}

struct victim {
	unsigned m;
	ch_peer peer;
};

// One that died: of a crash point, or else of our hand.
victim kill_a_manager(const text_dict &d, uint64_t &seeds)
{
	std::vector<ch_peer> peers;

	for (unsigned m = 0; m < d.managers(); m++) { // all live: a successor serves before it is made known
		ch_peer p{};

		AWAIT(ch_peer_is_alive(p = d.core().manager_peer(m)));
		peers.push_back(p);
	}
	ev->who_kills = killer::nobody;
#ifdef CH_CRASH_POINTS
	ev->manager_countdown = 1 + static_cast<int>(rnd(&seeds) % 100);
	ev->manager_point = static_cast<int>(rnd(&seeds) % ch::core::CH_NR_CRASH_POINTS);
#endif
	for (uint64_t n = rnd(&seeds) % 20; n > 0 && ev->who_kills == killer::nobody; n--)
		short_nap();
	killer none = killer::nobody;
	if (ev->who_kills.compare_exchange_strong(none, killer::director))
		kill(ch_peer_pid(peers[rnd(&seeds) % peers.size()]), SIGKILL);
	ev->manager_point = -1;
	for (unsigned m = 0;; m = (m + 1) % d.managers(), short_nap())
		if (!ch_peer_is_alive(peers[m]))
			return {m, peers[m]};
}

// Until each manager serves, has its own keys, and what it was asked for behind them is with its neighbour too. A key for
// each manager stays.
void await_copies(const text_dict &d)
{
	for (int pass = 0; pass < 2; pass++)
		for (unsigned m = 0; m < d.managers(); m++)
			try {
				d.manager(m).put(LAST_KEY, value_of(1));
			} catch (const ch::error &e) {
				if (e.code().value() != ENOSPC)
					throw;
			}
}

// The successor is killed as well, while it begins: what it was to begin with is still with its neighbours.
void kill_successor(const text_dict &d, victim &v, uint64_t &seeds)
{
	const ch_peer dead = v.peer;

	AWAIT((v.peer = d.core().manager_peer(v.m)).id != dead.id);
	for (uint64_t n = rnd(&seeds) % 10; n > 0; n--)
		short_nap();
	kill(ch_peer_pid(v.peer), SIGKILL);
	AWAIT(!ch_peer_is_alive(v.peer));
}

// All keys are there, however many managers died. What this process is told meanwhile.
std::string await_keys(const options &o, const round_of &r, const text_dict &d, uint64_t &seeds)
{
	const std::size_t nr = static_cast<std::size_t>(o.crew) * NR_KEYS;
	std::string told;

	for (;; short_nap()) {
		for (int i = 0; i < o.crew; i++)
			if (has_ended(ev->crew[i].pid))
				replace(ev->crew[i], r, seeds);
		try {
			if (d.size() == nr || ev->bad)
				return told;
		} catch (const ch::error &e) {
			if (e.code().value() != EOWNERDEAD)
				throw;
			told += e.what();
		}
	}
}

// Without replicas: exactly the keys of the one that died are lost, and that is said.
void kill_and_count(const options &o, const round_of &r, const text_dict &d, uint64_t &seeds)
{
	std::vector<uint64_t> lost, keys;

	await_keys(o, r, d, seeds);
	for (unsigned m = 0; m < d.managers(); m++) {
		lost.push_back(d.stats()[m].lost);
		keys.push_back(d.manager(m).size());
	}
	const unsigned m = kill_a_manager(d, seeds).m;
	const uint64_t all = lost[m] + keys[m];
	const std::string told = await_keys(o, r, d, seeds);
	const std::string whose = "manager " + std::to_string(m) + " of", how_many = " " + std::to_string(all) + " keys";

	if (d.stats()[m].lost != all || told.find(whose) == std::string::npos || told.find(how_many) == std::string::npos) {
		fprintf(stderr, "manager %u: %llu keys lost, not %llu; \"%s\"\n", m,
			(unsigned long long)d.stats()[m].lost, (unsigned long long)all, told.c_str());
		ev->bad++;
	}
}

void direct(const options &o, const round_of &r, const text_dict &d, uint64_t &seeds)
{
	for (uint64_t nr = 0; nr < (r.kills_managers ? o.managers : o.kills) && ev->bad == 0;) {
		alarm(WATCHDOG_S);
		if (!r.kills_managers || rnd(&seeds) % 4 == 0)
			nr += kill_client(o, r, seeds) && !r.kills_managers;
		if (!r.kills_managers)
			continue;
		nr++;
		if (r.loses()) {
			kill_and_count(o, r, d, seeds);
			continue;
		}
		victim v = kill_a_manager(d, seeds);

		for (; rnd(&seeds) % 3 == 0; nr++)
			kill_successor(d, v, seeds);
		await_copies(d);
	}
}

// In a process of its own, which has no threads but the library's, and from which no client is forked.
[[noreturn]] void own(const round_of &r)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	is_manager = true; // whom the creation starts
	{
		const text_dict d(r.how);

		is_manager = false;
		ev->descr = d.descr();
		ev->is_made = true;
		AWAIT(ev->is_over);
	}
	_exit(0);
}

bool is_as_before(const text_dict &d, const ch::dd::holdings &before)
{
	uint64_t pinned = 0;

	d.clear();
	const bool ok = before.are_again(d.descr());
	for (const ch::ddict_stats &s : d.stats())
		pinned += s.pinned;
	if (pinned)
		fprintf(stderr, "%llu values are pinned\n", (unsigned long long)pinned);
	return ok && pinned == 0;
}

bool run_round(const options &o, const round_of &r, uint64_t &seeds)
{
	const int64_t begin = now_ns();
	const pid_t owner = (memset(static_cast<void *>(ev), 0, sizeof(*ev)), ev->manager_point = -1, fork());
	bool ok;

	if (owner == 0)
		own(r);
	AWAIT(ev->is_made);
	{
		const text_dict d = text_dict::attach(ch::descriptor{ev->descr});

		d.clear();
		const ch::dd::holdings before(d.descr());
		for (int i = 0; i < o.crew; i++)
			hire(ev->crew[i], r, seeds);
		direct(o, r, d, seeds);
		for (int i = 0; i < o.crew; i++)
			child_kill(ev->crew[i].pid);
		for (int i = 0; i < o.crew && ev->bad == 0; i++)
			client(ev->crew[i], r);
		ok = ev->bad == 0 && is_as_before(d, before) && !(r.loses() && ev->told == 0);
	}
	ev->is_over = true;
	ok = child_end(owner) == 0 && ok;
	printf("%s: %s, %.1f s\n", ok ? "ok" : "FAILED", r.name, static_cast<double>(now_ns() - begin) / 1e9);
	return ok;
}

options parse(int argc, char **argv)
{
	options o;
	bool is_seeded = false, has_managers = false;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--kills"))
			o.kills = strtoull(argv[i + 1], nullptr, 0);
		else if (!strcmp(argv[i], "--managers"))
			o.managers = strtoull(argv[i + 1], nullptr, 0), has_managers = true;
		else if (!strcmp(argv[i], "--seed"))
			o.seed = strtoull(argv[i + 1], nullptr, 0), is_seeded = true;
		else if (!strcmp(argv[i], "--crew"))
			o.crew = std::clamp(atoi(argv[i + 1]), 1, MAX_CREW);
		else
			exit(2);
	}
	if (!is_seeded)
		o.seed = test_seed();
	if (!has_managers)
		o.managers = o.kills / 20;
	return o;
}

const round_of rounds[] = {
	{"clients", {.managers = 2, .memory = 16 << 20, .max_clients = 16}, false, false},
	{"managers with two replicas", {.managers = 3, .memory = 24 << 20, .max_clients = 16, .replicas = 2}, true, false},
	{"managers without replicas", {.managers = 3, .memory = 24 << 20, .max_clients = 16}, true, false},
	{"managers with two replicas that evict",
	 {.managers = 3, .memory = 600 << 10, .max_clients = 16, .when_full = ch::ddict_full::evict, .replicas = 2},
	 true, true},
};

} // namespace

int main(int argc, char **argv)
{
	const options o = parse(argc, argv);
	uint64_t seeds = o.seed * 2 + 1;
	bool ok = true;

	setvbuf(stdout, nullptr, _IONBF, 0); // children are forked
	ev = static_cast<evidence *>(
		mmap(nullptr, sizeof(*ev), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
#ifdef CH_CRASH_POINTS
	ch::core::ch_crash_hook = on_crash_point;
#endif
	for (const round_of &r : rounds)
		ok = ok && run_round(o, r, seeds);
	printf("%s: %llu clients killed, %llu managers in each round that kills them; CH_TEST_SEED=%llu\n",
	       ok ? "PASS" : "FAIL", (unsigned long long)o.kills, (unsigned long long)o.managers,
	       (unsigned long long)o.seed);
	return ok ? 0 : 1;
}

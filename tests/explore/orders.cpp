/* SPDX-License-Identifier: Apache-2.0 */
/*
 * orders.cpp - which scenario notices when one memory order is weakened.
 *
 * A site is an access in the source together with the word that it accesses. Each is made relaxed; of a compare-and-swap
 * whose failure has an order, that one apart. The list orders.txt says for each kind of site which scenario notices, or, after
 * a "-", why none can. Lines that begin with # are comments; source lines have no numbers there, for they change.
 */
#include "orders.h"
#include "memory.h"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

namespace ch::explore {

namespace {

constexpr u64 SEED = 20261121;

const char *base(const char *path)
{
	const char *slash = std::strrchr(path, '/');

	return slash ? slash + 1 : path;
}

std::string place(const site &s)
{
	char text[64];

	std::snprintf(text, sizeof(text), "%s:%d", base(s.file), s.line);
	return text;
}

bounds random_runs(const scenario &s, u64 runs, u64 seed)
{
	bounds b = s.within;

	b.runs = runs;
	b.seed = seed;
	return b;
}

// Which scenarios come to which sites.
std::vector<u64> who_visits(const std::vector<scenario> &all, u64 runs)
{
	std::vector<u64> visitors(static_cast<size_t>(nr_sites())), times(visitors.size());

	for (size_t k = 0; k < all.size(); k++) {
		explore(all[k], random_runs(all[k], runs, SEED), false);
		for (int i = 0; i < nr_sites(); i++) {
			const auto at = static_cast<size_t>(i);
			visitors[at] |= static_cast<u64>(site_at(i).times != times[at]) << k;
			times[at] = site_at(i).times;
		}
	}
	return visitors;
}

// What orders.txt says of a kind of site.
struct entry {
	std::string kind, who; // who: the name of a scenario, or "- " and a reason
};

std::string kind_of(const site &s, weakening w)
{
	return std::string(base(s.file)) + " " + s.word + " " + verb_name(s.what) +
	       (w == weakening::on_failure ? std::string(" failure ") + order_name(s.on_failure) :
						 std::string(" ") + order_name(s.on_success));
}

std::vector<entry> read_list()
{
	const char *srcdir = std::getenv("srcdir");
	std::ifstream in(std::string(srcdir ? srcdir : ".") + "/tests/explore/orders.txt");
	std::vector<entry> list;

	for (std::string line; std::getline(in, line);) {
		const size_t bar = line.find(" | ");
		if (line[0] != '#' && bar != std::string::npos)
			list.push_back({line.substr(0, bar), line.substr(bar + 3)});
	}
	return list;
}

const entry *find(const std::vector<entry> &list, const std::string &kind)
{
	for (const entry &e : list)
		if (e.kind == kind)
			return &e;
	return nullptr;
}

struct weak {
	int at;
	weakening how;
};

// All that can be weakened in the library, by file and line.
std::vector<weak> all_weak(const char *text)
{
	std::vector<weak> all;

	for (int i = 0; i < nr_sites(); i++) {
		const site &s = site_at(i);
		if (!s.file || !std::strstr(s.file, "libchannels/") || place(s).find(text) == std::string::npos)
			continue;
		if (s.on_success != order::relaxed)
			all.push_back({i, weakening::all});
		if (s.what == verb::cas && s.on_failure != order::relaxed)
			all.push_back({i, weakening::on_failure});
	}
	std::sort(all.begin(), all.end(), [](const weak &a, const weak &b) {
		const int order = std::strcmp(base(site_at(a.at).file), base(site_at(b.at).file));
		return order ? order < 0 : site_at(a.at).line < site_at(b.at).line;
	});
	return all;
}

// The scenario that fails soonest with this weakening, or NULL.
const scenario *who_notices(const std::vector<scenario> &all, u64 visitors, u64 runs, outcome &out)
{
	const scenario *who = nullptr;

	for (u64 some = std::min<u64>(runs, 200), seed = SEED; !who && some <= runs; some *= 8, seed++)
		for (size_t k = 0; k < all.size(); k++) {
			if (!(visitors >> k & 1))
				continue;
			const outcome o = explore(all[k], random_runs(all[k], some, seed), false);
			if (!o.failed || (who && o.runs >= out.runs))
				continue;
			out = o;
			who = &all[k];
		}
	return who;
}

// With this one weakened, does the scenario that the list names fail?
bool still_notices(const std::vector<scenario> &all, const weak &w, const std::string &who)
{
	bool failed = false;

	weaken(w.at, w.how);
	for (const scenario &s : all)
		for (u64 some = 200, seed = SEED; s.name == who && !failed && some <= 12800; some *= 8, seed++)
			failed = explore(s, random_runs(s, some, seed), false).failed;
	weaken(-1, weakening::none);
	return failed;
}

} // namespace

// Every kind of site that the list says is noticed is noticed: at one of its places at least, for one place may rest on
// another.
bool weaken_listed(const std::vector<scenario> &all)
{
	const std::vector<entry> list = read_list();
	std::vector<std::string> missing;
	int nr_noticed = 0, nr_new = 0, nr_open = 0;

	who_visits(all, 100);
	for (const entry &e : list) {
		bool is_there = false, is_noticed = false;
		for (const weak &w : all_weak("")) {
			if (e.who[0] == '-' || is_noticed || kind_of(site_at(w.at), w.how) != e.kind)
				continue;
			is_there = true;
			is_noticed = still_notices(all, w, e.who);
		}
		nr_noticed += is_noticed;
		if (is_there && !is_noticed)
			missing.push_back(e.kind + ": weakened, and \"" + e.who + "\" holds");
	}
	for (const weak &w : all_weak(""))
		nr_new += !find(list, kind_of(site_at(w.at), w.how));
	for (const entry &e : list)
		nr_open += e.who.rfind("- open", 0) == 0;
	printf("orders: %d kinds weakened and noticed, %zu not any more, %d open; %d places are not in orders.txt\n",
	       nr_noticed, missing.size(), nr_open, nr_new);
	for (const std::string &m : missing)
		printf("%s\n", m.c_str());
	return missing.empty();
}

bool weaken_each(const std::vector<scenario> &all, const char *text)
{
	const std::vector<entry> list = read_list();
	const std::vector<u64> visitors = who_visits(all, 1000);
	bool holds = true;

	for (const weak &w : all_weak(text)) {
		const site &s = site_at(w.at);
		const std::string kind = kind_of(s, w.how);
		const entry *said = find(list, kind);
		outcome o;
		weaken(w.at, w.how);
		const scenario *who = who_notices(all, visitors[static_cast<size_t>(w.at)], 12800, o);
		weaken(-1, weakening::none);
		const std::string whom = who ? who->name : said && said->who[0] == '-' ? said->who : "NOBODY";
		printf("%-18s %s | %s%s%s\n", place(s).c_str(), kind.c_str(), whom.c_str(), who ? ": " : "", who ? o.why : "");
		fflush(stdout);
		holds &= whom != "NOBODY";
	}
	return holds;
}

} // namespace ch::explore

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * orders.cpp - which scenario notices when one memory order is weakened.
 *
 * A site is an access in the source together with the word that it accesses. Each is made relaxed; of a compare-and-swap
 * whose failure has an order, that one apart. Sites of the same file, word, access and order are one kind. The list orders.txt
 * says of each kind one of
 *   kind | SCENARIO                 which fails when a place of this kind is weakened
 *   kind | with KIND: SCENARIO      which fails when both kinds are weakened, and holds when only the other is
 *   kind | - REASON                 why none can
 *   file "TEXT" | - REASON          why no scenario comes to this line; file * of all lines that none comes to
 * and every order in the sources is in it. Lines that begin with # are comments; source lines have no numbers there, for
 * they change.
 */
#include "orders.h"
#include "memory.h"
#include <algorithm>
#include <atomic>
#include <bitset>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fstream>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

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

constexpr size_t MAX_SCENARIOS = 256;
using visitors_of = std::vector<std::bitset<MAX_SCENARIOS>>; // by site

// Which scenarios come to which sites.
visitors_of who_visits(const std::vector<scenario> &all, u64 runs)
{
	visitors_of visitors(static_cast<size_t>(nr_sites()));
	std::vector<u64> times(visitors.size());

	if (all.size() > MAX_SCENARIOS)
		std::abort();
	for (size_t k = 0; k < all.size(); k++) {
		explore(all[k], random_runs(all[k], runs, SEED), false);
		for (int i = 0; i < nr_sites(); i++) {
			const auto at = static_cast<size_t>(i);
			visitors[at][k] = site_at(i).times != times[at];
			times[at] = site_at(i).times;
		}
	}
	return visitors;
}

// What orders.txt says of a kind of site.
struct entry {
	std::string kind, who, with; // who: the name of a scenario, or "- " and a reason; with: the other kind, if there is one
};

std::string kind_of(const site &s, weakening w)
{
	return std::string(base(s.file)) + " " + s.word + " " + verb_name(s.what) +
	       (w == weakening::on_failure ? std::string(" failure ") + order_name(s.on_failure) :
						 std::string(" ") + order_name(s.on_success));
}

std::string source(const std::string &path)
{
	const char *srcdir = std::getenv("srcdir");

	return std::string(srcdir ? srcdir : ".") + "/" + path;
}

std::vector<entry> read_list()
{
	std::ifstream in(source("tests/explore/orders.txt"));
	std::vector<entry> list;

	for (std::string line; std::getline(in, line);) {
		const size_t bar = line.find(" | ");
		if (line[0] == '#' || bar == std::string::npos)
			continue;
		entry e{line.substr(0, bar), line.substr(bar + 3), ""};
		const size_t colon = e.who.find(": ");
		if (e.who.rfind("with ", 0) == 0 && colon != std::string::npos) {
			e.with = e.who.substr(5, colon - 5);
			e.who = e.who.substr(colon + 2);
		}
		list.push_back(e);
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

// A failure without the weakening is none of its doing.
bool fails_without(const scenario &s, u64 runs, u64 seed)
{
	const auto weak = weaken_nothing();
	const bool fails = explore(s, random_runs(s, runs, seed), false).failed;

	for (const auto &[site, how] : weak)
		weaken(site, how);
	return fails;
}

// The scenario that fails soonest with this weakening, or NULL.
const scenario *who_notices(const std::vector<scenario> &all, const visitors_of::value_type &visitors, u64 runs, outcome &out)
{
	const scenario *who = nullptr;

	for (u64 some = std::min<u64>(runs, 200), seed = SEED; !who && some <= runs; some *= 8, seed++)
		for (size_t k = 0; k < all.size(); k++) {
			if (!visitors[k])
				continue;
			const outcome o = explore(all[k], random_runs(all[k], some, seed), false);
			if (!o.failed || (who && o.runs >= out.runs) || fails_without(all[k], o.runs, seed))
				continue;
			out = o;
			who = &all[k];
		}
	return who;
}

// With this one weakened, does the scenario that the list names fail?
bool notices(const std::vector<scenario> &all, const std::string &who, u64 most)
{
	for (const scenario &s : all)
		for (u64 some = 200, seed = SEED; s.name == who && some <= most; some *= 8, seed++) {
			const outcome o = explore(s, random_runs(s, some, seed), false);
			if (o.failed)
				return !fails_without(s, o.runs, seed);
		}
	return false;
}

std::vector<weak> weak_of(const std::string &kind)
{
	std::vector<weak> some;

	for (const weak &w : all_weak(""))
		if (kind_of(site_at(w.at), w.how) == kind)
			some.push_back(w);
	return some;
}

constexpr u64 FEW = 200, SOME = 200, MANY = 12800;

// At one of its places at least, for one place may rest on another.
bool is_noticed(const std::vector<scenario> &all, const entry &e)
{
	bool is = false;

	for (const weak &w : weak_of(e.kind)) {
		weaken(w.at, w.how);
		is = is || notices(all, e.who, MANY);
		weaken_nothing();
	}
	return is;
}

// Only together with another.
bool is_noticed_with(const std::vector<scenario> &all, const entry &e, u64 runs)
{
	const std::vector<weak> others = weak_of(e.with);

	for (const weak &w : others)
		weaken(w.at, w.how);
	bool is = !others.empty() && !notices(all, e.who, FEW);
	for (const weak &w : weak_of(e.kind))
		weaken(w.at, w.how);
	is = is && notices(all, e.who, runs);
	weaken_nothing();
	return is;
}

// ---- lines to which no scenario comes

bool says_an_order(std::string line)
{
	line.resize(std::min(line.find("//"), line.size()));
	if (line.find("signal_fence") != std::string::npos || line.find("inline constexpr") != std::string::npos)
		return false;
	for (const char *o : {"acquire", "release", "acq_rel", "seq_cst"})
		for (size_t at = 0; (at = line.find(o, at)) != std::string::npos; at++) {
			const char after = line[at + std::strlen(o)];
			if ((after == ')' || after == ',') && (at == 0 || std::strchr("( \t", line[at - 1])))
				return true;
		}
	return false;
}

bool comes_to(const std::string &file, int line)
{
	for (int i = 0; i < nr_sites(); i++)
		if (site_at(i).file && file == base(site_at(i).file) && std::abs(site_at(i).line - line) <= 3)
			return true;
	return false;
}

bool is_excused(const std::vector<entry> &list, const std::string &file, const std::string &line)
{
	for (const entry &e : list) {
		const size_t from = file.size() + 2;
		if (e.kind == file + " *")
			return true;
		if (e.kind.rfind(file + " \"", 0) == 0 && e.kind.size() > from &&
		    line.find(e.kind.substr(from, e.kind.size() - from - 1)) != std::string::npos)
			return true;
	}
	return false;
}

// Whether an entry that names lines names some that are there.
bool has_lines(const entry &e)
{
	const size_t space = e.kind.find(' ');
	std::ifstream in(source("libchannels/") + e.kind.substr(0, space));
	bool has = e.kind[space + 1] == '*' && in;

	for (std::string line; !has && std::getline(in, line);)
		has = line.find(e.kind.substr(space + 2, e.kind.size() - space - 3)) != std::string::npos;
	return has;
}

// Prints them. How many there are of which orders.txt says nothing.
int lines_left_out(const std::vector<entry> &list)
{
	const std::string dir = source("libchannels");
	DIR *d = opendir(dir.c_str());
	int nr = 0;

	for (dirent *e; d && (e = readdir(d));) {
		const std::string name = e->d_name;
		if (name.find(".cpp") == std::string::npos && name.find(".h") == std::string::npos)
			continue;
		std::ifstream in(dir + "/" + name);
		int n = 1;
		for (std::string line; std::getline(in, line); n++)
			if (says_an_order(line) && !comes_to(name, n) && !is_excused(list, name, line)) {
				printf("no scenario comes to %s:%d: %s\n", name.c_str(), n, line.c_str());
				nr++;
			}
	}
	if (d)
		closedir(d);
	return nr;
}

// ---- all of them, by as many processes as there are processors

// Another kind of the same file without which somebody notices this one, of the same word if there is one: the kind, or "".
std::string partner_of(const std::vector<scenario> &all, const visitors_of::value_type &visitors, const weak &w,
		       const scenario *&who)
{
	const std::string kind = kind_of(site_at(w.at), w.how);
	const size_t file_end = kind.find(' ') + 1, word_end = kind.find(' ', file_end) + 1;
	std::string last;

	for (size_t same : {word_end, file_end})
		for (const weak &other : all_weak("")) {
			const entry e{kind, "", kind_of(site_at(other.at), other.how)};
			if (e.with == kind || e.with == last || e.with.compare(0, same, kind, 0, same) != 0)
				continue;
			last = e.with;
			for (size_t k = 0; k < all.size(); k++) {
				who = &all[k];
				if (visitors[k] && is_noticed_with(all, {e.kind, all[k].name, e.with}, FEW))
					return e.with;
			}
		}
	who = nullptr;
	return "";
}

bool print_who_notices(const std::vector<scenario> &all, const visitors_of &visitors, const std::vector<entry> &list,
		       const weak &w)
{
	const site &s = site_at(w.at);
	const std::string kind = kind_of(s, w.how);
	const entry *said = find(list, kind);
	std::string with;
	outcome o;

	weaken(w.at, w.how);
	const scenario *who = who_notices(all, visitors[static_cast<size_t>(w.at)], SOME, o);
	weaken_nothing();
	if (!who)
		with = partner_of(all, visitors[static_cast<size_t>(w.at)], w, who);
	const std::string whom = who ? who->name : said && said->who[0] == '-' ? said->who : "NOBODY";
	printf("%-18s %s | %s%s%s%s\n", place(s).c_str(), kind.c_str(), with.empty() ? "" : ("with " + with + ": ").c_str(),
	       whom.c_str(), who && with.empty() ? ": " : "", who && with.empty() ? o.why : "");
	fflush(stdout);
	return whom != "NOBODY";
}

// Calls each(k) for all k under nr, in other processes. False if one of them says so or ends otherwise.
template <class Each> bool in_parallel(size_t nr, Each each)
{
	void *page = mmap(nullptr, sizeof(std::atomic<size_t>), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	auto *next = page == MAP_FAILED ? (abort(), nullptr) : new (page) std::atomic<size_t>(0);
	const long n = sysconf(_SC_NPROCESSORS_ONLN);
	bool holds = true;
	int how;

	fflush(stdout);
	for (long i = 0; i < n; i++)
		if (fork() == 0) {
			for (size_t k; (k = next->fetch_add(1)) < nr;)
				holds &= each(k);
			_exit(!holds);
		}
	for (long i = 0; i < n; i++)
		holds &= wait(&how) > 0 && how == 0;
	return holds;
}

} // namespace

bool weaken_listed(const std::vector<scenario> &all)
{
	const std::vector<entry> list = read_list();
	int nr_reasons = 0, nr_lines = 0, nr_new = 0;

	who_visits(all, 100);
	bool holds = in_parallel(list.size(), [&](size_t k) {
		const entry &e = list[k];
		const bool is_line = e.kind.find_first_of("\"*") != std::string::npos;
		const bool is = is_line		? has_lines(e) :
				e.who[0] == '-' ? !weak_of(e.kind).empty() :
				e.with.empty()	? is_noticed(all, e) :
						  is_noticed_with(all, e, MANY);
		if (!is)
			printf("%s: %s\n", e.kind.c_str(),
			       e.who[0] == '-' ? "is not there any more" : ("weakened, and \"" + e.who + "\" holds").c_str());
		fflush(stdout);
		return is;
	});
	for (const entry &e : list)
		nr_reasons += e.who[0] == '-' && e.kind.find_first_of("\"*") == std::string::npos;
	for (const entry &e : list)
		nr_lines += e.kind.find_first_of("\"*") != std::string::npos;
	for (const weak &w : all_weak(""))
		if (!find(list, kind_of(site_at(w.at), w.how)) && ++nr_new)
			printf("%s is not in orders.txt: %s\n", place(site_at(w.at)).c_str(),
			       kind_of(site_at(w.at), w.how).c_str());
	nr_new += lines_left_out(list);
	printf("orders: %zu kinds weakened and noticed, %d not, with a reason; %d notes on lines that no scenario comes to; "
	       "%d places are not in orders.txt\n",
	       list.size() - static_cast<size_t>(nr_reasons + nr_lines), nr_reasons, nr_lines, nr_new);
	return holds && nr_new == 0;
}

bool weaken_each(const std::vector<scenario> &all, const char *text)
{
	const std::vector<entry> list = read_list();
	const visitors_of visitors = who_visits(all, 1000);
	std::vector<weak> some = all_weak(std::strcmp(text, "new") ? text : "");
	if (!std::strcmp(text, "new"))
		std::erase_if(some, [&](const weak &w) {
			const entry *e = find(list, kind_of(site_at(w.at), w.how));
			return e && e->who[0] != '-';
		});
	const bool holds =
		in_parallel(some.size(), [&](size_t k) { return print_who_notices(all, visitors, list, some[k]); });

	return !lines_left_out(list) && holds;
}

} // namespace ch::explore

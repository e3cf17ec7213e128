/* SPDX-License-Identifier: Apache-2.0 */
/* memory.cpp - which store a load may see, what it then knows, and which plain accesses race. */
#include "memory.h"
#include <algorithm>
#include <cstdlib>
#include <utility>
#include <vector>

namespace ch::explore {

alignas(4096) u8 arena[ARENA];

namespace {

// A store: what it leaves to whoever acquires it (nothing, if it did not release).
struct record {
	u64 value;
	int by; // -1: before the run
	u32 at; // of its thread's clock
	clocks hb, vis;
};

struct glimpse { // a thread saw (or made) store nr when its clock was at
	u32 at, nr;
};

struct location {
	u64 run = 0;
	u32 last_sc = 0; // the last seq_cst store
	std::vector<record> stores;
	std::vector<glimpse> seen[MAX_THREADS];
};

struct granule { // eight plain bytes
	u64 run = 0;
	int writer = -1;
	u32 written = 0;
	clocks read{};
};

struct label {
	const char *name;
	u32 nr;
};

constexpr u64 NR_WORDS = ARENA / 4, NR_SITES = 1024;

location locations[NR_WORDS];
granule granules[ARENA / 8];
label labels[NR_WORDS];
thread_clocks threads[MAX_THREADS];
clocks fences; // what the last seq_cst fence made visible
u64 run;
site sites[NR_SITES];
int nr_known;
std::vector<std::pair<int, weakening>> weak_sites;

void join(clocks &to, const clocks &from)
{
	for (int i = 0; i < MAX_THREADS; i++)
		to[static_cast<size_t>(i)] = std::max(to[static_cast<size_t>(i)], from[static_cast<size_t>(i)]);
}

bool acquires(order o) { return o == order::acquire || o == order::acq_rel || o == order::seq_cst; }
bool releases(order o) { return o == order::release || o == order::acq_rel || o == order::seq_cst; }

u64 raw(const void *at, u64 size)
{
	u64 v = 0;

	__builtin_memcpy(&v, at, size);
	return v;
}

void set_raw(void *at, u64 size, u64 value)
{
	__builtin_memcpy(at, &value, size);
}

bool is_in_arena(const void *at)
{
	return static_cast<const u8 *>(at) >= arena && static_cast<const u8 *>(at) < arena + ARENA;
}

location &location_of(const void *at, u64 size)
{
	location &l = locations[word_number(at)];

	if (l.run != run) {
		l.run = run;
		l.last_sc = 0;
		l.stores.assign(1, record{raw(at, size), -1, 0, {}, {}});
		for (auto &s : l.seen)
			s.clear();
	}
	return l;
}

// The oldest store that the running thread may still see.
u32 floor_of(const location &l, const thread_clocks &t)
{
	u32 nr = 0;

	for (size_t i = 0; i < MAX_THREADS; i++)
		for (size_t k = l.seen[i].size(); k-- > 0;)
			if (l.seen[i][k].at <= t.vis[i]) {
				nr = std::max(nr, l.seen[i][k].nr);
				break;
			}
	return nr;
}

void saw(location &l, u32 nr)
{
	const auto me_ = static_cast<size_t>(me());
	auto &s = l.seen[me_];

	if (s.empty() || s.back().nr < nr)
		s.push_back({threads[me_].hb[me_], nr});
}

void take_over(thread_clocks &t, const record &r, order o)
{
	join(t.seen_hb, r.hb);
	join(t.seen_vis, r.vis);
	if (!acquires(o))
		return;
	join(t.hb, r.hb);
	join(t.vis, r.vis);
}

thread_clocks &tick()
{
	const auto me_ = static_cast<size_t>(me());
	thread_clocks &t = threads[me_];

	t.vis[me_] = ++t.hb[me_];
	return t;
}

// what: the store that a read-modify-write replaces, and whose release sequence it goes on with
void append(location &l, void *at, u64 value, const access &a, order o, bool goes_on)
{
	const auto me_ = static_cast<size_t>(me());
	const thread_clocks &t = threads[me_];
	record r{value, me(), t.hb[me_], releases(o) ? t.hb : t.released_hb, releases(o) ? t.vis : t.released_vis};

	if (goes_on) {
		join(r.hb, l.stores.back().hb);
		join(r.vis, l.stores.back().vis);
	}
	l.stores.push_back(r);
	if (o == order::seq_cst)
		l.last_sc = static_cast<u32>(l.stores.size() - 1);
	saw(l, static_cast<u32>(l.stores.size() - 1));
	set_raw(at, a.size, value);
	stored();
}

void show(const access &a, const void *at, u64 seen, u64 then, const char *how)
{
	if (!is_printing())
		return;
	const label &w = labels[word_number(at)];
	const char *file = std::strrchr(a.file, '/');
	note("T%d %s:%d %s %s[%u] %#llx", me(), file ? file + 1 : a.file, a.line, verb_name(a.what), w.name ? w.name : "?",
	     w.nr, static_cast<unsigned long long>(seen));
	if (a.what != verb::load && a.what != verb::store)
		note(" -> %#llx", static_cast<unsigned long long>(then));
	note("%s\n", how);
}

// ---- sites

bool is_same(const site &s, const access &a, const char *word)
{
	return s.line == a.line && s.what == a.what && (s.file == a.file || !std::strcmp(s.file, a.file)) &&
	       (s.word == word || !std::strcmp(s.word, word));
}

int site_of(const access &a, const void *at)
{
	const label &w = labels[word_number(at)];
	const char *name = w.name ? w.name : "?";

	if (a.on_success == order::relaxed && a.on_failure == order::relaxed)
		return -1;
	for (u64 i = static_cast<u64>(a.line) * 31 + static_cast<u64>(a.what);; i++) {
		site &s = sites[i % NR_SITES];
		if (!s.file) {
			s = {a.file, a.line, a.what, name, a.on_success, a.on_failure, 0};
			nr_known++;
		}
		if (is_same(s, a, name)) {
			s.times++;
			return static_cast<int>(i % NR_SITES);
		}
	}
}

void weaken(access &a, const access &said, weakening how)
{
	switch (how) {
	case weakening::none: break;
	case weakening::all: a.on_success = order::relaxed; break;
	case weakening::acquire: a.on_success = releases(said.on_success) ? order::release : order::relaxed; break;
	case weakening::release: a.on_success = acquires(said.on_success) ? order::acquire : order::relaxed; break;
	case weakening::on_failure: a.on_failure = order::relaxed; break;
	}
}

// The access as it is with the weakenings.
access weakened(const access &said, const void *at)
{
	const int site = site_of(said, at);
	access a = said;

	for (const auto &[which, how] : weak_sites)
		if (which == site)
			weaken(a, said, how);
	return a;
}

} // namespace

const char *verb_name(verb v) noexcept
{
	static const char *const names[] = {"load", "store", "exchange", "cas", "add", "sub", "and", "or", "xor"};

	return names[static_cast<int>(v)];
}

const char *order_name(order o) noexcept
{
	switch (o) {
	case order::acquire: return "acquire";
	case order::release: return "release";
	case order::acq_rel: return "acq_rel";
	case order::seq_cst: return "seq_cst";
	default: return "relaxed";
	}
}

int nr_sites() noexcept { return NR_SITES; }
const site &site_at(int i) noexcept { return sites[i]; }

void weaken(int site, weakening w) noexcept { weak_sites.emplace_back(site, w); }
std::vector<std::pair<int, weakening>> weaken_nothing() noexcept { return std::exchange(weak_sites, {}); }

u64 word_number(const void *at) noexcept
{
	if (!is_in_arena(at))
		std::abort(); // a shared word that lies nowhere
	return static_cast<u64>(static_cast<const u8 *>(at) - arena) / 4;
}

void name_words(const void *base, u64 nr, u64 step, const char *name) noexcept
{
	for (u64 i = 0; i < nr; i++)
		labels[word_number(static_cast<const u8 *>(base) + i * step)] = {name, static_cast<u32>(i)};
}

void forget_names() noexcept
{
	std::fill(labels, labels + NR_WORDS, label{});
}

void memory_begin() noexcept
{
	run++;
	fences = {};
	for (auto &t : threads)
		t = {};
}

thread_clocks &clocks_of(int thread) noexcept { return threads[thread]; }

void see_everything(int thread) noexcept
{
	for (size_t i = 0; i < MAX_THREADS; i++)
		threads[thread].vis[i] = threads[i].hb[i];
}

void barrier_everywhere() noexcept
{
	for (int i = 0; i < MAX_THREADS; i++)
		see_everything(i);
	for (size_t i = 0; i < MAX_THREADS; i++)
		fences[i] = threads[i].hb[i];
}

void inherit(int thread, int dead) noexcept
{
	join(threads[thread].hb, threads[dead].hb);
	join(threads[thread].vis, threads[dead].vis);
}

u64 last_value(const void *at, u64 size) noexcept
{
	return raw(at, size);
}

// ---- accesses

// Nobody else looks: before and after a run; and a word outside of the arena is one thread's.
static bool is_private(const void *at)
{
	return !is_running() || !is_in_arena(at);
}

u64 load(const void *at, const access &said) noexcept
{
	if (is_private(at))
		return raw(at, said.size);
	point();
	const access a = weakened(said, at);
	thread_clocks &t = tick();
	location &l = location_of(at, a.size);
	const u32 last = static_cast<u32>(l.stores.size() - 1);
	const u32 least = std::max(floor_of(l, t), a.on_success == order::seq_cst ? l.last_sc : 0);
	const int back = stale_left() > 0 ? choose(choice::value, static_cast<int>(last - least + 1)) : 0;
	const u32 nr = last - static_cast<u32>(back);
	const record &r = l.stores[nr];

	saw(l, nr);
	take_over(t, r, a.on_success);
	observe(word_number(at) << 32 | nr);
	show(a, at, r.value, 0, back ? " (old)" : "");
	return r.value;
}

void store(void *at, u64 value, const access &said) noexcept
{
	if (is_private(at))
		return set_raw(at, said.size, value);
	point();
	const access a = weakened(said, at);
	tick();
	location &l = location_of(at, a.size);
	append(l, at, value, a, a.on_success, false);
	observe(word_number(at) << 32 | (l.stores.size() - 1));
	show(a, at, value, 0, "");
}

static u64 outcome_of(verb v, u64 old, u64 operand, u64 size)
{
	const u64 mask = size == 8 ? ~u64{0} : 0xffffffff;

	switch (v) {
	case verb::add: return (old + operand) & mask;
	case verb::sub: return (old - operand) & mask;
	case verb::bit_and: return old & operand;
	case verb::bit_or: return old | operand;
	case verb::bit_xor: return old ^ operand;
	default: return operand;
	}
}

u64 change(void *at, u64 operand, const access &said) noexcept
{
	if (is_private(at)) {
		const u64 old = raw(at, said.size);
		set_raw(at, said.size, outcome_of(said.what, old, operand, said.size));
		return old;
	}
	point();
	const access a = weakened(said, at);
	thread_clocks &t = tick();
	location &l = location_of(at, a.size);
	const u64 old = l.stores.back().value, then = outcome_of(a.what, old, operand, a.size);
	take_over(t, l.stores.back(), a.on_success);
	append(l, at, then, a, a.on_success, true);
	observe(word_number(at) << 32 | (l.stores.size() - 1));
	show(a, at, old, then, "");
	return old;
}

// One that fails is a load, and may see an old value like another.
bool compare_exchange(void *at, u64 &expected, u64 desired, const access &said) noexcept
{
	if (is_private(at)) {
		const u64 old = raw(at, said.size);
		if (old == expected)
			set_raw(at, said.size, desired);
		return old == expected || (expected = old, false);
	}
	point();
	const access a = weakened(said, at);
	thread_clocks &t = tick();
	location &l = location_of(at, a.size);
	const u32 last = static_cast<u32>(l.stores.size() - 1);
	const u32 least = std::max(floor_of(l, t), a.on_failure == order::seq_cst ? l.last_sc : 0);
	u32 may_see[16];
	int n = 0;

	may_see[n++] = last;
	for (u32 nr = last; nr-- > least && n < 16 && stale_left() > 0;)
		if (l.stores[nr].value != expected)
			may_see[n++] = nr;
	const u32 nr = may_see[choose(choice::value, n)];
	const record r = l.stores[nr];
	const bool done = nr == last && r.value == expected;
	take_over(t, r, done ? a.on_success : a.on_failure);
	saw(l, nr);
	if (done)
		append(l, at, desired, a, a.on_success, true);
	observe(word_number(at) << 32 | nr);
	show(a, at, r.value, desired, done ? "" : nr == last ? " failed" : " failed (old)");
	expected = r.value;
	return done;
}

void traced_fence(order o) noexcept
{
	if (!is_running())
		return;
	point();
	thread_clocks &t = tick();
	if (acquires(o)) {
		join(t.hb, t.seen_hb);
		join(t.vis, t.seen_vis);
	}
	if (o == order::seq_cst) {
		join(t.vis, fences);
		join(fences, t.vis);
		for (u32 c : t.vis)
			observe(c);
	}
	if (releases(o)) {
		t.released_hb = t.hb;
		t.released_vis = t.vis;
	}
	observe(0xfe9ce);
	note("T%d fence %s\n", me(), order_name(o));
}

// ---- plain bytes

static void plain(const u8 *p, u64 len, bool is_write, const char *file, int line)
{
	const auto me_ = static_cast<size_t>(me());
	bool races = false;

	if (len == 0 || !is_in_arena(p))
		return;
	const thread_clocks &t = tick();
	for (u64 g = static_cast<u64>(p - arena) / 8; g <= (static_cast<u64>(p - arena) + len - 1) / 8; g++) {
		granule &x = granules[g];
		if (x.run != run)
			x = {run, -1, 0, {}};
		races |= x.writer >= 0 && x.written > t.hb[static_cast<size_t>(x.writer)];
		for (size_t i = 0; is_write && i < MAX_THREADS; i++)
			races |= x.read[i] > t.hb[i];
		if (is_write)
			x = {run, me(), t.hb[me_], {}};
		else
			x.read[me_] = t.hb[me_];
	}
	note("T%d %s:%d %s of plain bytes at %llu%s\n", me(), file, line, is_write ? "write" : "read",
	     static_cast<unsigned long long>(p - arena), races ? ": a race" : "");
	require(!races, "a race on plain bytes");
}

void *copy(void *to, const void *from, std::size_t len, const char *file, int line) noexcept
{
	if (is_running()) {
		plain(static_cast<const u8 *>(from), len, false, file, line);
		plain(static_cast<const u8 *>(to), len, true, file, line);
	}
	return __builtin_memcpy(to, from, len);
}

void fill(void *to, int byte, std::size_t len, const char *file, int line) noexcept
{
	if (is_running())
		plain(static_cast<const u8 *>(to), len, true, file, line);
	__builtin_memset(to, byte, len);
}

} // namespace ch::explore

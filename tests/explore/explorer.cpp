/* SPDX-License-Identifier: Apache-2.0 */
/* explorer.cpp - fibers, decisions and the search through them. */
#include "memory.h"
#include "peer.h"
#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <string>
#include <ucontext.h>
#include <vector>

namespace ch::core {
extern thread_local u32 event_calm; // event.cpp
}

namespace ch::explore {
namespace {

constexpr u32 STACK = 256 << 10;
constexpr u64 MAX_STEPS = 20000;
constexpr u64 MAX_SEEN = u64{1} << 24;
constexpr u32 CALM_SOON = 1023; // the second notification that meets nobody calms the event

enum class is : u8 { ready, asleep, paused, awaiting, done, dead };

struct fiber {
	ucontext_t at;
	is state;
	u64 hash;          // of all that it did and saw
	u64 own_stores;    // how many it made,
	u64 others_stores; // and how many others had made when it last looked
	const void *futex;
	bool is_timed, was_stale;
	u32 swept; // what await_death is not to return
	u32 calm;                 // thread-local variables of the real sources
	core::thread_notes notes;
	u32 priority; // of a random run
};

struct decision {
	u8 taken, nr;
};

enum class ending : u8 { whole, failed, known };

// States that were seen, and with which bounds left: whoever comes again with no more of any finds nothing new.
struct seen_state {
	u64 hash = 0;
	u64 left = 0; // bit of preemptions, stale reads, deaths left
};

struct search {
	const scenario *s;
	bounds within;
	std::vector<decision> trail;
	std::vector<seen_state> seen;
	u64 nr_seen;
	u64 random;
	// of the run
	fiber fibers[MAX_THREADS];
	ucontext_t home;
	int cur;
	int preemptions, stale, deaths;
	u64 depth, steps, usual_steps, stores, now_ns;
	u64 change_at[3]; // random runs: where priorities change
	ending how;
	const char *why;
	bool is_running, is_printing;
	std::string printed;
} x;

alignas(64) u8 stacks[MAX_THREADS][STACK];

u64 mix(u64 h, u64 v)
{
	h = (h ^ v) * 0x9fb21c651e98df25u;
	return h ^ h >> 32;
}

u64 draw()
{
	x.random ^= x.random << 13;
	x.random ^= x.random >> 7;
	x.random ^= x.random << 17;
	return x.random * 0x2545f4914f6cdd1du >> 16;
}

// ---- the search

u64 bit_of(int preemptions, int stale, int deaths)
{
	return u64{1} << (preemptions + 4 * (stale + 4 * deaths));
}

bool is_covered(u64 left)
{
	for (int d = x.deaths; d <= MOST; d++)
		for (int s = x.stale; s <= MOST; s++)
			for (int p = x.preemptions; p <= MOST; p++)
				if (left & bit_of(p, s, d))
					return true;
	return false;
}

void grow()
{
	std::vector<seen_state> old(x.seen.empty() ? 1 << 12 : x.seen.size() * 4);

	old.swap(x.seen);
	for (const seen_state &e : old) {
		u64 i = e.hash & (x.seen.size() - 1);
		while (x.seen[i].left)
			i = (i + 1) & (x.seen.size() - 1);
		if (e.left)
			x.seen[i] = e;
	}
}

// Whether this state was seen with no less left; remembers it.
bool is_known()
{
	u64 h = static_cast<u64>(x.cur) + 1;

	for (int i = 0; i < x.s->nr_threads; i++)
		h += mix(x.fibers[i].hash, 0x51ed27 + static_cast<u64>(i));
	if (x.nr_seen * 2 >= x.seen.size() && x.seen.size() < MAX_SEEN)
		grow();
	u64 i = h & (x.seen.size() - 1);
	while (x.seen[i].left && x.seen[i].hash != h)
		i = (i + 1) & (x.seen.size() - 1);
	if (is_covered(x.seen[i].left))
		return true;
	if (!x.seen[i].left && x.nr_seen * 8 > x.seen.size() * 7)
		return false; // no room to remember it
	x.nr_seen += !x.seen[i].left;
	x.seen[i].hash = h;
	x.seen[i].left |= bit_of(x.preemptions, x.stale, x.deaths);
	return false;
}

int decide(int n, int otherwise)
{
	if (x.depth < x.trail.size()) {
		if (x.trail[x.depth].nr != n)
			abort(); // a run is not what its decisions are: something was not made anew
		return x.trail[x.depth++].taken;
	}
	x.depth++;
	x.trail.push_back({static_cast<u8>(otherwise), static_cast<u8>(n)});
	return otherwise;
}

bool next_trail()
{
	while (!x.trail.empty() && ++x.trail.back().taken >= x.trail.back().nr)
		x.trail.pop_back();
	return !x.trail.empty();
}

// ---- fibers

[[noreturn]] void go_home(ending how, const char *why)
{
	x.how = how;
	x.why = why;
	x.is_running = false;
	setcontext(&x.home);
	abort();
}

void fold_all()
{
	for (int i = 0; i < x.s->nr_threads; i++)
		observe(i == x.cur ? 0 : x.fibers[i].hash);
}

bool is_over(const fiber &f)
{
	return f.state == is::done || f.state == is::dead;
}

int unswept(const fiber &f)
{
	for (int i = 0; i < x.s->nr_threads; i++)
		if (x.fibers[i].state == is::dead && !(f.swept >> i & 1))
			return i;
	return -1;
}

// Of several mortal ones that await deaths each awaits those before it.
bool may_go_on(const fiber &f)
{
	bool mortals_are_over = true;

	for (int i = 0; i < x.s->nr_threads && &x.fibers[i] != &f; i++)
		mortals_are_over &= !(x.s->mortal >> i & 1) || is_over(x.fibers[i]);
	return f.state == is::ready || (f.state == is::paused && x.stores - f.own_stores != f.others_stores) ||
	       (f.state == is::awaiting && (mortals_are_over || unswept(f) >= 0));
}

// When nobody can move, time passes: whoever sleeps for some time only wakes up.
bool let_time_pass()
{
	bool is_any = false;

	for (int i = 0; i < x.s->nr_threads; i++) {
		fiber &f = x.fibers[i];
		if (f.state != is::asleep || !f.is_timed)
			continue;
		f.state = is::ready;
		f.hash = mix(f.hash, 0x717e);
		is_any = true;
	}
	if (is_any)
		barrier_everywhere();
	x.now_ns += 1000000000;
	return is_any;
}

int by_priority(const int *ready, int n)
{
	int best = 0;

	for (u64 at : x.change_at)
		if (x.steps == at && x.cur >= 0)
			x.fibers[x.cur].priority = static_cast<u32>(draw() % 4);
	for (int i = 1; i < n; i++)
		if (x.fibers[ready[i]].priority > x.fibers[ready[best]].priority)
			best = i;
	return best;
}

// Who makes the next step. The first of ready is the running one, if it can go on.
int pick(const int *ready, int n)
{
	const bool can_stay = x.cur >= 0 && x.fibers[x.cur].state == is::ready;

	if (n == 1 || (can_stay && x.preemptions == 0))
		return ready[0];
	const int k = decide(n, x.within.seed ? by_priority(ready, n) : 0);
	x.preemptions -= can_stay && k > 0 && !x.within.seed;
	return ready[k];
}

void schedule()
{
	int ready[MAX_THREADS], n = 0;
	bool all_over = true;

	for (int k = 0; k < x.s->nr_threads; k++) {
		const int i = x.cur < 0 ? k : (x.cur + k) % x.s->nr_threads;
		all_over &= is_over(x.fibers[i]);
		if (may_go_on(x.fibers[i]))
			ready[n++] = i;
	}
	if (all_over)
		go_home(ending::whole, "");
	if (n == 0 && x.s->has_time && let_time_pass())
		return schedule();
	if (n == 0)
		go_home(ending::failed, "all asleep for ever");
	if (!x.within.seed && !x.is_printing && x.depth == x.trail.size() && is_known())
		go_home(ending::known, "");
	const int last = x.cur, next = pick(ready, n);
	if (next == last)
		return;
	if (last >= 0) {
		x.fibers[last].calm = core::event_calm;
		x.fibers[last].notes = core::own_notes;
	}
	core::event_calm = x.fibers[next].calm;
	core::own_notes = x.fibers[next].notes;
	x.cur = next;
	swapcontext(last < 0 ? &x.home : &x.fibers[last].at, &x.fibers[next].at);
}

void fiber_main()
{
	observe(0x57a7);
	x.s->run(x.cur);
	x.fibers[x.cur].state = is::done;
	observe(0xd07e);
	schedule();
	abort(); // it is never picked again
}

// Leaves the running thread to the others until it may go on.
void block(is how)
{
	x.fibers[x.cur].state = how;
	schedule();
	x.fibers[x.cur].state = is::ready;
	observe(0x60e5);
}

void make_fibers()
{
	for (int i = 0; i < x.s->nr_threads; i++) {
		fiber &f = x.fibers[i];
		f = {};
		f.calm = CALM_SOON;
		f.priority = x.within.seed ? 4 + static_cast<u32>(draw() % 1000) : 0;
		getcontext(&f.at);
		f.at.uc_stack.ss_sp = stacks[i];
		f.at.uc_stack.ss_size = STACK;
		f.at.uc_link = nullptr;
		makecontext(&f.at, fiber_main, 0);
	}
}

void run_once()
{
	core::event_calm = 0;
	core::own_notes = {};
	x.s->begin();
	memory_begin();
	make_fibers();
	x.cur = -1;
	x.preemptions = x.within.seed ? MOST : x.within.preemptions;
	x.stale = x.within.stale;
	x.deaths = x.within.deaths;
	x.depth = x.steps = x.stores = 0;
	x.now_ns = 1000000000;
	for (u64 &at : x.change_at)
		at = x.within.seed ? draw() % (x.usual_steps + 1) : 0;
	x.how = ending::whole;
	x.why = "";
	x.is_running = true;
	schedule(); // comes back by go_home
	x.usual_steps = x.steps;
	x.cur = -1;
	if (x.how == ending::whole)
		x.s->end();
}

} // namespace

outcome explore(const scenario &s, const bounds &within, bool is_traced)
{
	outcome o;

	x.s = &s;
	x.within = within;
	x.trail.clear();
	x.seen.clear();
	x.nr_seen = 0;
	x.random = within.seed * 0x9e3779b97f4a7c15u | 1;
	x.usual_steps = 200;
	x.is_printing = false;
	do {
		run_once();
		o.runs++;
		if (x.how == ending::failed)
			break;
		if (within.seed)
			x.trail.clear();
		else if (!next_trail()) {
			o.is_complete = true;
			break;
		}
	} while (o.runs != within.runs);
	o.failed = x.how == ending::failed;
	o.why = x.why;
	o.states = x.nr_seen;
	if (o.failed && is_traced) {
		x.is_printing = true;
		run_once();
		x.is_printing = false;
		o.trace.swap(x.printed);
		x.printed.clear();
		if (x.how != ending::failed)
			o.why = "failed, and held when it was made again";
	}
	return o;
}

// ---- for scenarios

void require(bool ok, const char *what) noexcept
{
	if (ok)
		return;
	if (x.is_running)
		go_home(ending::failed, what);
	if (x.how != ending::failed)
		x.why = what;
	x.how = ending::failed;
}

void pause() noexcept
{
	fiber &f = x.fibers[x.cur];

	if (!f.was_stale)
		block(is::paused);
	see_everything(x.cur);
	fold_all();
	f.was_stale = false;
	f.others_stores = x.stores - f.own_stores;
}

int await_death(u32 swept) noexcept
{
	x.fibers[x.cur].swept = swept;
	block(is::awaiting);
	const int dead = unswept(x.fibers[x.cur]);
	observe(static_cast<u64>(dead));
	if (dead >= 0) {
		inherit(x.cur, dead);
		observe(x.fibers[dead].hash);
	}
	return dead;
}

bool is_dead(int thread) noexcept { return x.fibers[thread].state == is::dead; }
int me() noexcept { return x.cur; }

// ---- for memory.cpp

bool is_running() noexcept { return x.is_running; }
int stale_left() noexcept { return x.within.seed ? INT_MAX : x.stale; }
bool is_printing() noexcept { return x.is_printing; }
void observe(u64 what) noexcept { x.fibers[x.cur].hash = mix(x.fibers[x.cur].hash, what + 1); }

void stored() noexcept
{
	x.stores++;
	x.fibers[x.cur].own_stores++;
}

void point() noexcept
{
	if (++x.steps > MAX_STEPS)
		go_home(ending::failed, "it does not end");
	schedule();
	if ((x.s->mortal >> x.cur & 1) && x.deaths > 0 && choose(choice::death, 2)) {
		note("T%d dies\n", x.cur);
		x.deaths--;
		x.fibers[x.cur].state = is::dead;
		observe(0xdead);
		schedule();
	}
}

int choose(choice kind, int n) noexcept
{
	int otherwise = 0;

	if (n <= 1)
		return 0;
	if (x.within.seed && kind == choice::death)
		otherwise = draw() % (x.usual_steps / 2 + 1) == 0;
	else if (x.within.seed && (kind == choice::wake || draw() % 4 == 0))
		otherwise = static_cast<int>(draw() % static_cast<u64>(n));
	const int k = decide(n, otherwise);
	if (kind == choice::value && k > 0) {
		x.stale -= !x.within.seed;
		x.fibers[x.cur].was_stale = true;
	}
	return k;
}

void note(const char *fmt, ...) noexcept
{
	va_list ap;

	if (!x.is_printing)
		return;
	char line[256];
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	x.printed += line;
}

// ---- the kernel

static long futex_wait(const void *at, u32 expected, bool is_timed)
{
	fiber &f = x.fibers[x.cur];
	const u32 now = static_cast<u32>(last_value(at, 4));

	observe(now != expected);
	note("T%d futex wait %s\n", x.cur, now == expected ? "sleeps" : "does not sleep");
	if (now != expected) {
		errno = EAGAIN;
		return -1;
	}
	f.futex = at;
	f.is_timed = is_timed;
	block(is::asleep);
	return 0;
}

static long futex_wake(const void *at, u64 count)
{
	long woken = 0;

	for (; static_cast<u64>(woken) < count; woken++) {
		int sleepers[MAX_THREADS], n = 0;
		for (int i = 0; i < x.s->nr_threads; i++)
			if (x.fibers[i].state == is::asleep && x.fibers[i].futex == at)
				sleepers[n++] = i;
		if (n == 0)
			break;
		fiber &f = x.fibers[sleepers[choose(choice::wake, n)]];
		f.state = is::ready;
		observe(static_cast<u64>(&f - x.fibers));
	}
	observe(static_cast<u64>(woken));
	note("T%d futex wake: %ld\n", x.cur, woken);
	return woken;
}

long kernel(long nr, const u64 (&arg)[6]) noexcept
{
	const void *at = reinterpret_cast<const void *>(arg[0]);

	if (!x.is_running)
		return 0;
	point();
	observe(static_cast<u64>(nr) << 32 ^ arg[0]);
	if (nr == SYS_futex && arg[1] == FUTEX_WAIT_BITSET)
		return futex_wait(at, static_cast<u32>(arg[2]), arg[3] != 0);
	if (nr == SYS_futex && arg[1] == FUTEX_WAKE)
		return futex_wake(at, arg[2]);
	if (nr == SYS_membarrier && !x.s->has_barrier)
		return -1;
	if (nr != SYS_membarrier)
		go_home(ending::failed, "a system call that the explorer does not know");
	fold_all();
	barrier_everywhere();
	note("T%d membarrier\n", x.cur);
	return 0;
}

// Whoever yields waits for another to do something.
int yield() noexcept
{
	if (x.is_running)
		pause();
	return 0;
}

int clock(clockid_t, timespec *out) noexcept
{
	out->tv_sec = static_cast<time_t>(x.now_ns / 1000000000);
	out->tv_nsec = static_cast<long>(x.now_ns % 1000000000);
	return 0;
}

} // namespace ch::explore

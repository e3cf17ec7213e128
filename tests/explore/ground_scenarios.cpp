/* SPDX-License-Identifier: Apache-2.0 */
/* ground_scenarios.cpp - event counts, runs of pages and the life of objects, each by itself. */
#include "evidence.h"
#include "scenarios.h"
#include <cerrno>

namespace ch::explore {
namespace {

// ---- events: a flag in the tail word, which nobody else uses here, and the event not_empty

shared<u64> &flag_of(process &p) { return p.ch.r.ends->tail; }
event &event_of(process &p) { return p.ch.r.h->not_empty; }

void begin_quiet()
{
	make_world({.nr_processes = 4});
	event_of(process_of(0)).v.store(0, relaxed); // not sleepy, as after a calm time
}

void begin_sleepy()
{
	make_world({.nr_processes = 4});
}

void begin_unsure()
{
	begin_quiet();
	event_always_fence = true;
}

void raise_flag()
{
	flag_of(self()).fetch_add(1, release);
	event_notify(event_of(self()), 1);
}

// Takes one from the flag.
bool take_flag()
{
	u64 v = flag_of(self()).load(relaxed);

	while (v > 0)
		if (flag_of(self()).compare_exchange_weak(v, v - 1, acquire, relaxed))
			return true;
	return false;
}

void await_flag()
{
	while (!take_flag()) {
		registration r = event_register(event_of(self()));
		if (take_flag())
			break;
		event_wait(event_of(self()), r, NEVER);
	}
	if (flag_of(self()).load(relaxed) > 0) // pass the baton
		event_wake(event_of(self()), 1);
}

void end_lowered()
{
	require(flag_of(process_of(0)).load(relaxed) == 0, "a wake-up without an end");
}

// One flag for all, raised by a plain store: the notifier's change may lie in its store buffer.
void raise_plain()
{
	flag_of(self()).store(1, release);
	event_notify(event_of(self()), EVERYBODY);
}

void await_plain()
{
	while (flag_of(self()).load(acquire) == 0) {
		registration r = event_register(event_of(self()));
		if (flag_of(self()).load(acquire) != 0)
			break;
		event_wait(event_of(self()), r, NEVER);
	}
}

// ---- memory

void begin_memory()
{
	make_world({.nr_processes = 4, .nr_pages = 4, .allocates = true});
}

void end_memory()
{
	require_free_pool(1);
}

block_place allocate(u64 len, i64 timeout_ns)
{
	block_place b{};
	const u64 mine = static_cast<u64>(me()) + 1;
	const int rc = pool_alloc(&self().seg.pool, len, timeout_ns == CH_TRY, NEVER, b);

	require(rc == 0 || (timeout_ns == CH_TRY && rc == -ENOSPC), "an allocation failed");
	if (rc < 0)
		return {};
	std::memcpy(b.addr, &mine, sizeof(mine)); // a race if another has it too
	return b;
}

void give_back(const block_place &b)
{
	u64 mine;

	if (!b.addr)
		return;
	std::memcpy(&mine, b.addr, sizeof(mine));
	require(mine == static_cast<u64>(me()) + 1, "another wrote to our block");
	pool_free(&self().seg.pool, b);
}

// ---- the life of a channel

descr descr_of(const ch_channel &ch)
{
	descr d{};

	d.offset = ch.block.index;
	d.generation = ch.tag;
	return d;
}

void begin_life()
{
	make_world({.nr_processes = 3, .nr_pages = 4, .allocates = true});
	forget_evidence();
}

void leave(process &p)
{
	object_leave(&p.ch);
}

// A second handle of this process, as a new process would open it; it sends one message and goes.
void visit()
{
	static ch_channel handles[MAX_THREADS];
	ch_channel &ch = handles[me()];

	ch.~ch_channel();
	new (&ch) ch_channel;
	const int rc = object_open(&ch, &self().seg.pool, channel_kind, descr_of(self().ch));
	require(rc == 0 || rc == -ESTALE, "neither attached nor stale");
	if (rc < 0)
		return;
	const int sent = send_block_of(&ch, CH_TRY);
	require(sent == 0 || sent == -ESTALE || sent == -ENOSPC, "a send failed");
	object_leave(&ch);
}

void destroy()
{
	object_mark_destroyed(&self().ch);
	leave(self());
}

void end_life()
{
	require_free_pool(0);
}

constexpr bounds usual{.preemptions = 2, .stale = 1};

const scenario list[] = {
	{"event, quiet: one raises, one waits", 2, {.preemptions = 3, .stale = 2}, begin_quiet,
	 [](int i) { i == 0 ? raise_plain() : await_plain(); }, [] {}},
	{"event, quiet: one raises, two wait", 3, usual, begin_quiet,
	 [](int i) { i == 0 ? raise_plain() : await_plain(); }, [] {}},
	{"event, sleepy: one raises, two wait", 3, usual, begin_sleepy,
	 [](int i) { i == 0 ? raise_plain() : await_plain(); }, [] {}},
	{"event, quiet: two raise, two wait for one each", 4, {.preemptions = 1, .stale = 1}, begin_quiet,
	 [](int i) { i < 2 ? raise_flag() : await_flag(); }, end_lowered},
	{"event, sleepy: two raise, two wait for one each", 4, {.preemptions = 1, .stale = 1}, begin_sleepy,
	 [](int i) { i < 2 ? raise_flag() : await_flag(); }, end_lowered},
	{"event, no membarrier: one raises, two wait", 3, usual, begin_unsure,
	 [](int i) { i == 0 ? raise_plain() : await_plain(); }, [] {}, 0, false, true},
	{"two allocate and free blocks of a page", 2, usual, begin_memory,
	 [](int) {
		 for (int k = 0; k < 2; k++)
			 give_back(allocate(PAGE, CH_TRY));
	 },
	 end_memory},
	{"blocks of one, two and three pages", 2, usual, begin_memory,
	 [](int i) {
		 give_back(allocate(i == 0 ? PAGE : 2 * PAGE, CH_TRY));
		 give_back(allocate(i == 0 ? 3 * PAGE : PAGE, CH_TRY));
	 },
	 end_memory},
	{"two wait for the same memory", 2, usual, begin_memory,
	 [](int) { give_back(allocate(3 * PAGE, CH_FOREVER)); }, end_memory},
	{"who allocates dies", 2, {.preemptions = 1, .stale = 1, .deaths = 1}, begin_memory,
	 [](int i) {
		 if (i == 0)
			 return give_back(allocate(2 * PAGE, CH_TRY));
		 give_back(allocate(PAGE, CH_TRY));
		 sweep_when_dead();
		 give_back(allocate(3 * PAGE, CH_TRY));
	 },
	 end_memory, 1},
	{"a channel is destroyed while others attach", 3, {.preemptions = 1, .stale = 1}, begin_life,
	 [](int i) {
		 if (i == 0)
			 return destroy();
		 visit();
		 leave(self());
	 },
	 end_life},
	{"all leave, then it is destroyed while one attaches", 2, usual,
	 [] {
		 begin_life();
		 for (int i = 1; i < 3; i++)
			 leave(process_of(i));
	 },
	 [](int i) { i == 0 ? destroy() : visit(); }, end_life},
};

} // namespace

std::vector<scenario> ground_scenarios()
{
	return {std::begin(list), std::end(list)};
}

} // namespace ch::explore

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory.h - the memory of a run: for each word the list of its stores, so that a load may see any of them that the C++
 * memory model lets it see.
 *
 * The method is that of relacy (Vyukov) and CDSChecker (Norris and Demsky, OOPSLA 2013), without promises: the order of
 * the stores to a word is the order in which they are run. A load sees no store that another one, which happens before the
 * load, has replaced, and none older than what is known to have been seen (coherence). Read-modify-writes see the last
 * one. Acquire and release join vector clocks; release sequences go on through read-modify-writes.
 *
 * Each thread has two clocks. hb says what happens before: by it plain accesses race or do not. vis says what can no
 * longer be overlooked: hb, and what fences and membarrier(2) made visible, which does not excuse a race.
 */
#pragma once
#include "explorer.h"
#include <array>
#include <utility>
#include <vector>

namespace ch::explore {

using clocks = std::array<u32, MAX_THREADS>;

struct thread_clocks {
	clocks hb{}, vis{};
	clocks released_hb{}, released_vis{}; // at the last release fence
	clocks seen_hb{}, seen_vis{};         // what an acquire fence would acquire
};

extern u8 arena[];
inline constexpr u64 ARENA = 1 << 16;

// Names a word for the trace and for the table of orders: base, and step bytes on the next one.
void name_words(const void *base, u64 nr, u64 step, const char *name) noexcept;
void forget_names() noexcept;

void memory_begin() noexcept; // a new run: what lies in the arena now is what everybody sees
thread_clocks &clocks_of(int thread) noexcept;
void see_everything(int thread) noexcept;          // time has passed: all that was stored is visible now
void barrier_everywhere() noexcept;                // membarrier(2)
void inherit(int thread, int dead) noexcept;       // the proof of death comes after all that the dead did
u64 last_value(const void *at, u64 size) noexcept; // as the kernel reads it
u64 word_number(const void *at) noexcept;

// ---- orders, and weakening them one at a time

enum class weakening : u8 { none, all, acquire, release, on_failure };

// A place in the source where a word is accessed with an order that is not relaxed.
struct site {
	const char *file;
	int line;
	verb what;
	const char *word;
	order on_success, on_failure;
	u64 times;
};

int nr_sites() noexcept;
const site &site_at(int i) noexcept;
void weaken(int site, weakening w) noexcept; // beside what is weakened already
std::vector<std::pair<int, weakening>> weaken_nothing() noexcept; // what was weakened
const char *verb_name(verb v) noexcept;
const char *order_name(order o) noexcept;

} // namespace ch::explore

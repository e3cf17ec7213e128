// SPDX-License-Identifier: Apache-2.0
// run.h - runs of pages, and blocks in them: where a pool's memory comes from.
//
// A run is a number of neighbouring pages that hold blocks of one size class: eight or more small ones, or one large
// one; where pages are short, a tight run of as few pages as hold one block. No list links them: a page word says what
// each page is, a block word says what each block is, and both are changed by one compare-and-swap that names who does
// it. Free blocks keep their run, so that the next allocation of the same class takes one compare-and-swap; runs whose
// blocks are all free are dissolved when pages are short.
#pragma once
#include "layout.h"
#include <cstring>

namespace ch::core {

inline constexpr u32 NR_CLASSES = 320;
inline constexpr u64 NO_BLOCK = ~u64{0};

// Classes: multiples of 64 from 128 to 1 KiB, then eight to each doubling.
constexpr u32 class_of(u64 len) noexcept
{
	if (len <= MIN_BLOCK)
		return 0;
	if (len <= 1024)
		return static_cast<u32>((len + 63) / 64 - 2);
	const u32 lg = 63 - static_cast<u32>(__builtin_clzll(len - 1)); // 2^lg < len <= 2^(lg+1), lg >= 10
	const u64 step = u64{1} << (lg - 3);
	return 14 + (lg - 10) * 8 + static_cast<u32>((len - (u64{1} << lg) + step - 1) / step);
}

constexpr u64 class_len(u32 cls) noexcept
{
	if (cls <= 14)
		return (u64{cls} + 2) * 64;
	const u32 lg = 10 + (cls - 15) / 8;
	return (u64{1} << lg) + ((cls - 15) % 8 + 1) * (u64{1} << (lg - 3));
}
static_assert(class_len(class_of(1025)) == 1152 && class_len(class_of(1024)) == 1024 && class_len(14) == 1024 &&
	      class_of(class_len(100)) == 100);

// A run's type is its size class, and whether it is tight.
inline constexpr u32 TIGHT = 0x400;
static_assert(NR_CLASSES < TIGHT);
constexpr u32 run_class(u32 type) noexcept { return type & (TIGHT - 1); }
constexpr bool is_run_type(u32 type) noexcept { return type < 2 * TIGHT && run_class(type) < NR_CLASSES; }

// From here on every run holds one block.
inline constexpr u64 LARGE = 32768;

constexpr u64 run_pages(u32 type) noexcept
{
	const u64 len = class_len(run_class(type)) * (class_len(run_class(type)) >= LARGE || type >= TIGHT ? 1 : 8);

	return (len + PAGE - 1) / PAGE;
}

constexpr u64 run_blocks(u32 type) noexcept
{
	const u64 len = class_len(run_class(type));

	return len >= LARGE ? 1 : run_pages(type) * PAGE / len;
}
static_assert(run_blocks(0) == WORDS_PER_PAGE, "a run never has more blocks than its head page has words");

// The same as a table, so that the common path divides nothing: block number = bytes into the run * inverse >> 40.
// inverse is 2^40 / len rounded up, which is exact for fewer than 2^18 bytes of blocks of under LARGE; the look-up
// multiplies back in any case, so that no damaged word leads to another block.
struct class_facts {
	u64 len, inverse;
	u64 nr_pages[2]; // of a run, of a tight run
	u32 nr_blocks[2];
};
struct class_table {
	class_facts of[NR_CLASSES];
};
extern const class_table classes;
inline u64 pages_of(u32 type) noexcept { return classes.of[run_class(type)].nr_pages[type >= TIGHT]; }
inline u32 blocks_of(u32 type) noexcept { return classes.of[run_class(type)].nr_blocks[type >= TIGHT]; }

inline constexpr u32 NR_RECENT = 16;

// The cache of this process (cache.h).
inline constexpr u32 NR_SHELVES = 4;
inline constexpr u32 SHELF_DEPTH = 15;
inline constexpr u32 NR_CACHED = class_of(LARGE); // classes under LARGE: larger blocks cost more to write than to find

struct alignas(LINE) shelf_row { // two lines
	std::atomic<u64> nr = 0; // all hints: torn and lost updates do no harm
	std::atomic<u64> index[SHELF_DEPTH] = {};
};
static_assert(sizeof(shelf_row) == 2 * LINE);

// This process's view of the page and block words; geometry checked by pool.cpp. The hints are private.
struct run_map {
	shared<u64> *pages = nullptr;
	shared<u64> *words = nullptr;
	u8 *data = nullptr;
	u64 max_pages = 0;                 // nr_pages never exceeds it
	shared<u64> *backed = nullptr;     // how many pages have memory, for everybody; NULL: nr_pages is all
	shared<u64> *in_runs = nullptr;    // and how many of them are in runs; NULL: not counted
	shared<u64> *peak = nullptr;
	mutable std::atomic<u64> nr_pages = 0; // *backed as seen last; never shrinks
	std::atomic<u64> next_page = 0;                      // where free pages were seen last
	std::atomic<u64> recent[NR_CLASSES][NR_RECENT] = {}; // head page + 1 of runs used last
	std::atomic<u32> turn[NR_CLASSES] = {};              // which of them to try first
	std::atomic<u64> next_run[NR_CLASSES] = {};          // where to look for others' runs
	shelf_row shelves[NR_SHELVES][NR_CACHED] = {};
};

// Looks how far the pool has grown; how many pages there are.
inline u64 map_refresh(const run_map &m) noexcept
{
	const u64 known = m.nr_pages.load(relaxed); // one thread may undo what another saw; a later look mends it
	u64 n = m.backed ? m.backed->load(acquire) : known; // [G4] pairs with [G3] in pool.cpp

	n = n < m.max_pages ? n : m.max_pages;
	if (n <= known)
		return known;
	m.nr_pages.store(n, relaxed);
	return n;
}

struct block_place {
	u64 index; // head page * WORDS_PER_PAGE + number in the run
	u64 len;
	u8 *addr;
	shared<u64> *word;
	u32 cls;
};

// Whether pages head...head + n - 1 are there; the pool may have grown since this process looked.
inline bool are_pages(const run_map &m, u64 head, u64 n) noexcept
{
	const u64 nr = m.nr_pages.load(relaxed); // refreshed by the next line where it matters

	return head + n <= nr || head + n <= map_refresh(m);
}

inline bool is_run_of(u64 w, u32 cls) noexcept
{
	return page_kind_of(w) == PG_HEAD && run_class(page_run_type(w)) == cls && is_run_type(page_run_type(w));
}

// Whether index is a block now; its run can't go away while the caller (or anybody) owns the block.
bool block_find(const run_map &m, u64 index, block_place &out) noexcept;
// Turns runs whose blocks are all free back into free pages. False if there is none.
bool dissolve_free_runs(run_map &m, u32 me) noexcept;
u64 block_alloc_slow(run_map &m, u32 cls, u32 me) noexcept; // block_alloc of cache.h, where nothing was cached
void block_remember(run_map &m, const block_place &b) noexcept;

// Undoes what a dead process had begun. Its blocks are the sweeper's business.
void run_sweep(run_map &m, u32 dead) noexcept;

// Calls fn(place, word value) for every block there is now.
template <class Fn> void for_each_block(const run_map &m, Fn fn) noexcept
{
	const u64 nr_pages = map_refresh(m);

	for (u64 p = 0; p < nr_pages;) {
		const u64 w = m.pages[p].load(acquire); // [G2] pairs with [G1] in run.cpp
		const u32 type = page_run_type(w);
		if (page_kind_of(w) != PG_HEAD || !is_run_type(type) || p + pages_of(type) > nr_pages) {
			p++;
			continue;
		}
		const u64 len = class_len(run_class(type));
		for (u64 k = 0, n = blocks_of(type); k < n; k++) {
			shared<u64> *word = &m.words[p * WORDS_PER_PAGE + k];
			fn(block_place{p * WORDS_PER_PAGE + k, len, m.data + p * PAGE + k * len, word, run_class(type)},
			   word->load(acquire)); // [B2] pairs with [B1] in run.cpp
		}
		p += pages_of(type);
	}
}

} // namespace ch::core

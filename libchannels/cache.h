// SPDX-License-Identifier: Apache-2.0
// cache.h - the common path of allocating and freeing a block: no division, one compare-and-swap, one store.
//
// The cache of this process: for each small class a short stack of blocks that it freed last, or saw free. These are
// hints. The blocks in it are FREE for everybody: whoever else needs one takes it by the same compare-and-swap, so
// that a cache never keeps memory from others, needs no flushing, and dies with its process without a trace.
// While there is memory enough nobody does: each process forms runs of its own, and so the words it
// writes at an allocation lie in lines that no other process writes. Threads are spread over a few shelves.
#pragma once
#include "crash.h"
#include "run.h"

namespace ch::core {

inline bool block_find_addr(const run_map &m, const void *addr, block_place &out) noexcept
{
	const u64 off = static_cast<u64>(static_cast<const u8 *>(addr) - m.data);
	u64 p = off / PAGE;

	if (!are_pages(m, p, 1)) // also for addr below data: off is huge then
		return false;
	u64 w = m.pages[p].load(acquire); // [G2] pairs with [G1]
	if (page_kind_of(w) == PG_TAIL) {
		if (tail_dist(w) > p)
			return false;
		p -= tail_dist(w);
		w = m.pages[p].load(acquire); // [G2] pairs with [G1]
	}
	const u32 type = page_run_type(w), cls = run_class(type);
	if (page_kind_of(w) != PG_HEAD || !is_run_type(type) || !are_pages(m, p, pages_of(type)))
		return false;
	const class_facts f = classes.of[cls];
	const u64 in = off - p * PAGE, k = in * f.inverse >> 40;
	if (k * f.len != in || k >= blocks_of(type))
		return false;
	out = {p * WORDS_PER_PAGE + k, f.len, m.data + off, &m.words[p * WORDS_PER_PAGE + k], cls};
	return true;
}

// Each thread has one of the shelves, so that threads seldom write the same line.
inline u32 my_shelf() noexcept
{
	static std::atomic<u32> nr_threads;
	static thread_local u32 mine __attribute__((tls_model("initial-exec"))) = NR_SHELVES;

	if (mine == NR_SHELVES) [[unlikely]]
		mine = nr_threads.fetch_add(1, relaxed) % NR_SHELVES; // spreads them, no more
	return mine;
}

inline shelf_row &shelf_of(run_map &m, u32 cls) noexcept
{
	return m.shelves[my_shelf()][cls];
}

// False if there is no room.
inline bool shelve(shelf_row &row, u64 index) noexcept
{
	const u64 n = row.nr.load(relaxed); // hints all, at most SHELF_DEPTH whoever wrote it

	if (n == SHELF_DEPTH)
		return false;
	row.index[n].store(index, relaxed);
	row.nr.store(n + 1, relaxed);
	return true;
}

// FREE -> OWNED(me) of a block of a run whose page word is this one, or NO_BLOCK if it is none now. The run is looked at
// between the look at the word and its CAS: a word that did not change meanwhile, tag and all, was FREE all the time,
// and no run with a FREE block in it is dissolved. So the run is still what it was.
inline u64 take_block(run_map &m, u64 index, u64 run, u32 me) noexcept
{
	shared<u64> &word = m.words[index];
	u64 old = word.load(acquire); // [B2] pairs with [B1]: before the run

	if (block_state_of(old) != B_FREE || m.pages[index / WORDS_PER_PAGE].load(acquire) != run) // [G2] pairs with [G1]
		return NO_BLOCK;
	// [B2] pairs with [B1]: what the last owner did to the bytes is over.
	if (!word.compare_exchange_strong(old, block_word((block_tag(old) | 1) + 1, B_OWNED, me), acquire, relaxed))
		return NO_BLOCK;
	CH_CRASH_POINT(block_allocated);
	return index;
}

inline u8 *block_addr(const run_map &m, u64 index, u64 len) noexcept
{
	return m.data + index / WORDS_PER_PAGE * PAGE + index % WORDS_PER_PAGE * len;
}

// The place of a block that the caller owns.
inline block_place block_at(const run_map &m, u64 index, u32 cls) noexcept
{
	return {index, classes.of[cls].len, block_addr(m, index, classes.of[cls].len), &m.words[index], cls};
}

// A block of class cls < NR_CACHED, or NO_BLOCK if none is on the shelf. It is OWNED(me).
inline u64 block_alloc_cached(run_map &m, u32 cls, u32 me) noexcept
{
	shelf_row &row = shelf_of(m, cls);
	for (u64 n; (n = row.nr.load(relaxed)) > 0;) { // hints all
		// A shelved block was within the bounds of a run of this class, tight or not. The longer kind has it too.
		const u64 index = row.index[n - 1].load(relaxed);
		row.nr.store(n - 1, relaxed);
		u64 b = take_block(m, index, page_word(PG_HEAD, cls, NOBODY), me);
		if (b == NO_BLOCK && index % WORDS_PER_PAGE < blocks_of(cls | TIGHT))
			b = take_block(m, index, page_word(PG_HEAD, cls | TIGHT, NOBODY), me);
		if (b != NO_BLOCK) [[likely]]
			return b;
	}
	return NO_BLOCK;
}

// A block of any class, wherever it comes from, or NO_BLOCK.
inline u64 block_alloc(run_map &m, u32 cls, u32 me) noexcept
{
	const u64 b = cls < NR_CACHED ? block_alloc_cached(m, cls, me) : NO_BLOCK;

	return b != NO_BLOCK ? b : block_alloc_slow(m, cls, me);
}

// OWNED(me) -> FREE. False if it is not.
inline bool block_free(run_map &m, const block_place &b, u32 me) noexcept
{
	const u64 old = b.word->load(relaxed); // ours, or refused

	if ((old & (block_word(1, B_NONE, NOBODY) - 1)) != block_word(0, B_OWNED, me))
		return false;
	CH_CRASH_POINT(block_freeing);
	// [B1] pairs with [B2]: what we did to the bytes is over. A store, for nobody else changes a word that is ours.
	b.word->store(block_word(block_tag(old), B_FREE, NOBODY), release);
	CH_CRASH_POINT(block_freed);
	if (b.cls >= NR_CACHED || !shelve(shelf_of(m, b.cls), b.index)) [[unlikely]]
		block_remember(m, b);
	return true;
}

} // namespace ch::core

// SPDX-License-Identifier: Apache-2.0
// run.cpp - forming and dissolving runs of pages; allocating and freeing blocks. See run.h and layout.h.
//
// Who may change what:
//   page FREE -> BUILD(me), FREE -> TAIL       anybody, by CAS; a TAIL is claimed only while its head is BUILD(me)
//   page BUILD(me) -> HEAD, -> FREE            me, or the sweeper of me
//   page HEAD -> BUILD(me)                     who owns all blocks of the run, so one process at most
//   page TAIL -> FREE                          who holds its head as BUILD
//   block NONE <-> FREE                        who holds the run's head as BUILD
//   block FREE -> OWNED(me)                    anybody, by CAS, with a new tag; it then looks at the head again, for
//                                              the run may be another by now, and gives the block back if so
// A process that dies in between leaves a head BUILD(dead): the sweeper sets the block words to NONE, then the tails
// FREE, then the head FREE, which is also what the process itself does when it gives up.
#include "config.h"
#include "run.h"
#include "cache.h"

namespace ch::core {

static constexpr class_table make_classes() noexcept
{
	class_table t{};

	for (u32 c = 0; c < NR_CLASSES; c++) {
		const u64 len = class_len(c);
		t.of[c] = {len, len >= LARGE ? 0 : ((u64{1} << 40) + len - 1) / len,
			   {run_pages(c), run_pages(c | TIGHT)},
			   {static_cast<u32>(run_blocks(c)), static_cast<u32>(run_blocks(c | TIGHT))}};
	}
	return t;
}
constinit const class_table classes = make_classes();

// ---- look-up

bool block_find(const run_map &m, u64 index, block_place &out) noexcept
{
	const u64 p = index / WORDS_PER_PAGE, k = index % WORDS_PER_PAGE;

	if (!are_pages(m, p, 1))
		return false;
	const u64 w = m.pages[p].load(acquire); // [G2] pairs with [G1]
	const u32 type = page_run_type(w);
	if (page_kind_of(w) != PG_HEAD || !is_run_type(type) || k >= blocks_of(type) || !are_pages(m, p, pages_of(type)))
		return false;
	const u64 len = class_len(run_class(type));
	out = {index, len, m.data + p * PAGE + k * len, &m.words[index], run_class(type)};
	return true;
}

// ---- runs

static void free_tails(run_map &m, u64 head, u64 upto) noexcept
{
	const u64 nr_pages = map_refresh(m);

	for (u64 d = 1; d < upto && head + d < nr_pages; d++) {
		u64 w = tail_word(d);
		m.pages[head + d].compare_exchange_strong(w, page_word(PG_FREE, 0, 0), release, relaxed); // [G1]
	}
}

// head is BUILD and nobody else may touch it. Block words first: nobody must find a block without pages.
static void undo_run(run_map &m, u64 head, u64 build) noexcept
{
	const u32 type = page_run_type(build);

	for (u64 k = 0; k < blocks_of(type); k++) {
		shared<u64> &w = m.words[head * WORDS_PER_PAGE + k];
		w.store(block_word(block_tag(w.load(relaxed)) + 1, B_NONE, NOBODY), release); // [B1] pairs with [B2]
	}
	CH_CRASH_POINT(run_undoing);
	free_tails(m, head, pages_of(type));
	m.pages[head].compare_exchange_strong(build, page_word(PG_FREE, 0, 0), release, relaxed); // [G1] pairs with [G2]
}

// For statistics, so relaxed; a process that dies next to it leaves the figure out by one run.
static void count_pages(run_map &m, u64 gone, u64 come) noexcept
{
	if (!m.in_runs)
		return;
	const u64 now = m.in_runs->fetch_add(come - gone, relaxed) + come - gone;
	u64 peak = m.peak->load(relaxed);
	while (now > peak && now <= m.max_pages && !m.peak->compare_exchange_weak(peak, now, relaxed, relaxed))
		;
}

// Claims the run that begins at head. Returns the number of pages it could get, all of them on success.
static u64 claim_pages(run_map &m, u64 head, u32 type, u32 me) noexcept
{
	const u64 build = page_word(PG_BUILD, type, me), n = pages_of(type);
	u64 w = page_word(PG_FREE, 0, 0);

	if (!m.pages[head].compare_exchange_strong(w, build, acquire, relaxed)) // [G2] pairs with [G1]: now it is ours
		return 0;
	CH_CRASH_POINT(run_begun);
	for (u64 d = 1; d < n; d++) {
		w = page_word(PG_FREE, 0, 0);
		if (m.pages[head + d].compare_exchange_strong(w, tail_word(d), acquire, relaxed)) { // [G2] pairs with [G1]
			CH_CRASH_POINT(run_tail_claimed);
			continue;
		}
		undo_run(m, head, build);
		return d;
	}
	return n;
}

static void publish_run(run_map &m, u64 head, u32 type) noexcept
{
	for (u64 k = 0; k < blocks_of(type); k++) {
		shared<u64> &w = m.words[head * WORDS_PER_PAGE + k];
		w.store(block_word(block_tag(w.load(relaxed)) + 1, B_FREE, NOBODY), release); // [B1] pairs with [B2]
	}
	CH_CRASH_POINT(run_words_set);
	// [G1] pairs with [G2]: the block words are set before the run can be found.
	m.pages[head].store(page_word(PG_HEAD, type, NOBODY), release);
	CH_CRASH_POINT(run_published);
	count_pages(m, 0, pages_of(type));
}

// Looks for free neighbouring pages, from where some were seen last, once around. Returns the head page or NO_BLOCK.
static u64 form_run(run_map &m, u32 type, u32 me) noexcept
{
	const u64 nr_pages = map_refresh(m), n = pages_of(type);
	const u64 start = m.next_page.load(relaxed) % nr_pages; // private hint
	u64 left = nr_pages + n, seen = 0;

	if (n > nr_pages)
		return NO_BLOCK;
	for (u64 p = start; left > 0; left--, p++) {
		if (p == nr_pages)
			p = seen = 0;
		if (m.pages[p].load(relaxed) != page_word(PG_FREE, 0, 0)) { // hint; the claim looks again
			seen = 0;
			continue;
		}
		if (++seen < n)
			continue;
		const u64 head = p + 1 - n;
		if (claim_pages(m, head, type, me) == n) {
			publish_run(m, head, type);
			m.next_page.store(p + 1, relaxed);
			return head;
		}
		seen = 0;
	}
	return NO_BLOCK;
}

// Turns a run whose blocks are all free back into free pages. False if one is not.
static bool dissolve_run(run_map &m, u64 head, u32 type, u32 me) noexcept
{
	const u64 n = blocks_of(type);
	shared<u64> *w = &m.words[head * WORDS_PER_PAGE];
	u64 got = 0, build = page_word(PG_HEAD, type, NOBODY);

	for (; got < n; got++) {
		u64 old = w[got].load(relaxed); // the CAS looks again
		if (block_state_of(old) != B_FREE ||
		    !w[got].compare_exchange_strong(old, block_word(block_tag(old) + 1, B_OWNED, me), acquire, relaxed))
			break; // the CAS: [B2] pairs with [B1]
	}
	CH_CRASH_POINT(run_dissolving);
	// With all blocks ours nobody else can; if the head is another by now, these are blocks of a later run.
	if (got == n && m.pages[head].compare_exchange_strong(build, page_word(PG_BUILD, type, me), acq_rel, relaxed)) {
		undo_run(m, head, page_word(PG_BUILD, type, me));
		count_pages(m, pages_of(type), 0);
		return true;
	}
	while (got-- > 0) {
		u64 old = w[got].load(relaxed); // ours, unless a builder died and its sweeper took the run back
		if (block_owner(old) == me)
			w[got].compare_exchange_strong(old, block_word(block_tag(old), B_FREE, NOBODY), release,
						       relaxed); // [B1] pairs with [B2]
	}
	return false;
}

bool dissolve_free_runs(run_map &m, u32 me) noexcept
{
	const u64 nr_pages = map_refresh(m);
	bool any = false;

	for (u64 p = 0; p < nr_pages; p++) {
		const u64 w = m.pages[p].load(acquire); // [G2] pairs with [G1]
		const u32 type = page_run_type(w);
		if (page_kind_of(w) == PG_HEAD && is_run_type(type) && p + pages_of(type) <= nr_pages)
			any |= dissolve_run(m, p, type, me);
	}
	return any;
}

void run_sweep(run_map &m, u32 dead) noexcept
{
	const u64 nr_pages = map_refresh(m);

	for (u64 p = 0; p < nr_pages; p++) {
		const u64 w = m.pages[p].load(acquire); // [G2] pairs with [G1]
		if (page_kind_of(w) == PG_BUILD && page_owner(w) == dead && is_run_type(page_run_type(w)))
			undo_run(m, p, w);
	}
}

// ---- blocks

// A free block of the run at head, or NO_BLOCK. Each shelf begins in another part of the run, whose words lie in another
// line if the run has many, and what else is free in that part goes on the shelf.
static u64 take_from_run(run_map &m, u64 head, u32 cls, u32 me) noexcept
{
	const u64 run = m.pages[head].load(acquire); // [G2] pairs with [G1]
	const bool is_sound = is_run_of(run, cls) && are_pages(m, head, pages_of(page_run_type(run)));
	const u64 n = is_sound ? blocks_of(page_run_type(run)) : 0, part = n < NR_SHELVES ? n : n / NR_SHELVES;
	u64 k = n < NR_SHELVES ? 0 : my_shelf() * part, got = NO_BLOCK;

	for (u64 seen = 0; seen < n && (got == NO_BLOCK || seen < part); seen++, k = k + 1 == n ? 0 : k + 1) {
		const u64 i = head * WORDS_PER_PAGE + k;
		if (block_state_of(m.words[i].load(relaxed)) != B_FREE) // the CAS looks again
			continue;
		if (got == NO_BLOCK)
			got = take_block(m, i, run, me);
		else if (cls >= NR_CACHED || !shelve(shelf_of(m, cls), i))
			break;
	}
	return got;
}

// Of large blocks only the one that was used last, which this process may have freed, and the one that was used longest ago,
// which another may have: the words of those between lie in others' caches, and to look at all of them takes longer than
// to find one elsewhere.
static u64 take_from_recent(run_map &m, u32 cls, u32 me) noexcept
{
	const u32 last = m.turn[cls].load(relaxed); // private hints, here and below
	u32 first = (last + 1) % NR_RECENT;

	if (cls >= NR_CACHED && m.recent[cls][first].load(relaxed) == 0)
		first = 0;
	for (u32 k = 0; k < (cls < NR_CACHED ? NR_RECENT : 2); k++) {
		const u32 i = cls >= NR_CACHED && k == 1 ? first : (last + NR_RECENT - k) % NR_RECENT;
		const u64 head = m.recent[cls][i].load(relaxed);
		const u64 b = head ? take_from_run(m, head - 1, cls, me) : NO_BLOCK;
		if (b == NO_BLOCK)
			continue;
		if (k)
			m.turn[cls].store(i, relaxed);
		return b;
	}
	return NO_BLOCK;
}

static void remember(run_map &m, u32 cls, u64 head) noexcept
{
	u32 i = 0; // private hints all

	while (i < NR_RECENT && m.recent[cls][i].load(relaxed) != head + 1)
		i++;
	if (i == NR_RECENT) { // into an empty place, or else that of the one that was used longest ago
		for (i = 0; i < NR_RECENT && m.recent[cls][i].load(relaxed) != 0;)
			i++;
		if (i == NR_RECENT)
			i = (m.turn[cls].load(relaxed) + 1) % NR_RECENT;
		m.recent[cls][i].store(head + 1, relaxed);
	}
	m.turn[cls].store(i, relaxed);
}

// Runs of this class that others formed, or that were forgotten. Looks at so many pages.
static u64 take_from_any(run_map &m, u32 cls, u64 upto, u32 me) noexcept
{
	const u64 nr_pages = map_refresh(m), n = upto < nr_pages ? upto : nr_pages;
	u64 p = m.next_run[cls].load(relaxed) % nr_pages; // private hint

	for (u64 k = 0; k < n; k++, p = p + 1 == nr_pages ? 0 : p + 1) {
		if (!is_run_of(m.pages[p].load(relaxed), cls)) // looked at again below
			continue;
		const u64 b = take_from_run(m, p, cls, me);
		if (b == NO_BLOCK)
			continue;
		m.next_run[cls].store(p, relaxed);
		remember(m, cls, p);
		return b;
	}
	return NO_BLOCK;
}

static constexpr u64 FEW_PAGES = 4096;

static u64 take_from_new_run(run_map &m, u32 type, u32 me) noexcept
{
	const u64 head = form_run(m, type, me);

	if (head == NO_BLOCK)
		return NO_BLOCK;
	remember(m, run_class(type), head);
	return take_from_run(m, head, run_class(type), me);
}

u64 block_alloc_slow(run_map &m, u32 cls, u32 me) noexcept
{
	const u64 nr_pages = map_refresh(m);
	u64 b = take_from_recent(m, cls, me);

	// A run of one block is as dear to form as to find, and found it does not make the working set larger.
	if (b == NO_BLOCK && class_len(cls) >= LARGE)
		b = take_from_any(m, cls, FEW_PAGES, me);
	for (int round = 0; b == NO_BLOCK && round < 2; round++) {
		if (pages_of(cls) <= nr_pages / 16) // a small pool has no room for eight where one is wanted
			b = take_from_new_run(m, cls, me);
		if (b == NO_BLOCK)
			b = take_from_any(m, cls, nr_pages, me);
		if (b == NO_BLOCK)
			b = take_from_new_run(m, cls | TIGHT, me);
		if (b == NO_BLOCK && !dissolve_free_runs(m, me))
			break;
	}
	return b;
}

// What has no room on the shelf is found again through its run.
void block_remember(run_map &m, const block_place &b) noexcept
{
	if (m.recent[b.cls][m.turn[b.cls].load(relaxed)].load(relaxed) != b.index / WORDS_PER_PAGE + 1) // private hints
		remember(m, b.cls, b.index / WORDS_PER_PAGE);
}

} // namespace ch::core

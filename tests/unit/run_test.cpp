/* SPDX-License-Identifier: Apache-2.0 */
/* run.cpp: size classes, and runs of pages in plain memory of this process. */
#include "cache.h"
#include <criterion/criterion.h>
#include <cstdlib>
#include <memory>
#include <vector>

using namespace ch::core;

namespace {

constexpr u32 ME = 5, OTHER = 6;

struct memory {
	std::vector<u64> page_words, block_words;
	u8 *data;
	std::unique_ptr<run_map> map = std::make_unique<run_map>();

	explicit memory(u64 nr_pages)
		: page_words(nr_pages), block_words(nr_pages * WORDS_PER_PAGE),
		  data(static_cast<u8 *>(std::aligned_alloc(PAGE, nr_pages * PAGE)))
	{
		map->pages = reinterpret_cast<shared<u64> *>(page_words.data());
		map->words = reinterpret_cast<shared<u64> *>(block_words.data());
		map->data = data;
		map->nr_pages = nr_pages;
	}
	~memory() { std::free(data); }
	memory(const memory &) = delete;
	memory &operator=(const memory &) = delete;
};

block_place find(const run_map &m, u64 index)
{
	block_place b{};

	cr_assert_neq(index, NO_BLOCK);
	cr_assert(block_find(m, index, b));
	return b;
}

} // namespace

Test(run, every_length_is_in_the_smallest_class_that_holds_it)
{
	for (u64 len = 1; len < 1 << 22; len += 1 + len / 97) {
		const u32 cls = class_of(len);

		cr_assert_geq(class_len(cls), len);
		cr_assert(cls == 0 || class_len(cls - 1) < len, "%llu", static_cast<unsigned long long>(len));
		cr_assert_eq(class_len(cls) % 64, 0);
	}
}

Test(run, classes_are_their_own_and_grow)
{
	for (u32 cls = 0; cls < 200; cls++) {
		cr_assert_eq(class_of(class_len(cls)), cls);
		cr_assert_eq(class_of(class_len(cls) + 1), cls + 1);
	}
}

Test(run, a_run_has_no_more_blocks_than_words_and_they_fit_its_pages)
{
	for (u32 cls = 0; cls < 200; cls++) {
		cr_assert_leq(run_blocks(cls), WORDS_PER_PAGE);
		cr_assert_geq(run_blocks(cls), 1);
		cr_assert_leq(run_blocks(cls) * class_len(cls), run_pages(cls) * PAGE);
	}
}

Test(run, a_block_is_owned_and_found_until_it_is_freed)
{
	memory mem(16);
	const block_place b = find(*mem.map, block_alloc(*mem.map, class_of(500), ME));
	block_place again;

	cr_assert_eq(b.len, 512);
	cr_assert_eq(block_state_of(b.word->load()), B_OWNED);
	cr_assert_eq(block_owner(b.word->load()), ME);
	cr_assert(block_find_addr(*mem.map, b.addr, again));
	cr_assert_eq(again.index, b.index);
	cr_assert_not(block_find_addr(*mem.map, b.addr + 64, again));
	cr_assert_not(block_free(*mem.map, b, OTHER), "not the other's to free");
	cr_assert(block_free(*mem.map, b, ME));
	cr_assert_not(block_free(*mem.map, b, ME), "twice");
}

Test(run, a_new_owner_has_a_new_tag)
{
	memory mem(16);
	const block_place first = find(*mem.map, block_alloc(*mem.map, 0, ME));
	const u64 tag = block_tag(first.word->load());

	cr_assert(block_free(*mem.map, first, ME));
	for (int i = 0; i < 100; i++) {
		const block_place b = find(*mem.map, block_alloc(*mem.map, 0, ME));

		if (b.index == first.index)
			cr_assert_neq(block_tag(b.word->load()), tag);
		cr_assert(block_free(*mem.map, b, ME));
	}
}

Test(run, wild_indices_and_addresses_are_no_blocks)
{
	memory mem(16);
	block_place b;
	const u64 wild[] = { 1, 31, 32, 16 * WORDS_PER_PAGE, 16 * WORDS_PER_PAGE - 1,
			     u64{ 1 } << 40, ~u64{ 0 }, ~u64{ 0 } / 32 };

	for (u64 index : wild)
		cr_assert_not(block_find(*mem.map, index, b));
	block_alloc(*mem.map, 0, ME);
	cr_assert_not(block_find_addr(*mem.map, mem.data - 1, b));
	cr_assert_not(block_find_addr(*mem.map, mem.data + 16 * PAGE, b));
	cr_assert_not(block_find_addr(*mem.map, nullptr, b));
}

/* Small runs give way to one large one, and the other way round. */
Test(run, empty_runs_are_dissolved_when_pages_are_short)
{
	memory mem(16);
	std::vector<u64> got;

	for (int round = 0; round < 5; round++) {
		for (u64 i; (i = block_alloc(*mem.map, class_of(64), ME)) != NO_BLOCK;)
			got.push_back(i);
		cr_assert_eq(got.size(), 16 * WORDS_PER_PAGE, "%zu", got.size());
		cr_assert_eq(block_alloc(*mem.map, class_of(16 * PAGE), ME), NO_BLOCK);
		for (u64 i : got)
			cr_assert(block_free(*mem.map, find(*mem.map, i), ME));
		got.clear();
		const block_place all = find(*mem.map, block_alloc(*mem.map, class_of(16 * PAGE), ME));
		cr_assert_eq(block_alloc(*mem.map, 0, ME), NO_BLOCK);
		cr_assert(block_free(*mem.map, all, ME));
	}
}

/* Whatever a page word or a block word says, looking for blocks stays in bounds and ends. */
Test(run, damaged_words_lead_nowhere)
{
	memory mem(16);
	u64 rs = 12345;

	for (int round = 0; round < 20000; round++) {
		rs = rs * 6364136223846793005u + 1442695040888963407u;
		const u64 value = rs >> 20 & 1 ? rs >> 8 : rs >> 50;
		if (rs >> 21 & 1)
			mem.map->pages[(rs >> 30) % 16].store(value);
		else
			mem.map->words[(rs >> 30) % (16 * WORDS_PER_PAGE)].store(value);
		const u64 index = block_alloc(*mem.map, static_cast<u32>(rs >> 40) % 60, ME);
		block_place b;
		if (index != NO_BLOCK && block_find(*mem.map, index, b)) {
			cr_assert(b.addr >= mem.data && b.addr + b.len <= mem.data + 16 * PAGE);
			if (rs >> 22 & 1)
				block_free(*mem.map, b, ME);
		}
		for_each_block(*mem.map, [&](const block_place &p, u64) {
			cr_assert(p.addr >= mem.data && p.addr + p.len <= mem.data + 16 * PAGE);
		});
		run_sweep(*mem.map, static_cast<u32>(rs >> 33) % 8);
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool_stress.cpp - many threads allocate and free, pass blocks to each other, and run the pool full. No block
 * overlaps another, and all of the memory is there again at the end.
 *
 * usage: pool_stress [--messages N] [--seed X] [--threads T]     N allocations in all
 */
#include "stress.h"
#include <memory>

namespace {

struct block {
	unsigned char *addr;
	size_t len;
	uint64_t who, seq;
};

void check_and_free(struct ch_pool *pool, block *b)
{
	CHECK(is_filled(b->addr, b->len, b->who, b->seq));
	CHECK(ch_pool_free(pool, b->addr) == 0);
	delete b;
}

/* A shelf of blocks that all threads swap with: who frees a block is seldom who allocated it. */
void work(struct ch_pool *pool, std::vector<std::atomic<block *>> &shelf, size_t longest, uint64_t who, uint64_t nr,
	  uint64_t rs)
{
	for (uint64_t seq = 0; seq < nr; seq++) {
		const int64_t timeouts[] = { CH_TRY, 50000, MS };
		const size_t len = 1 + rnd(&rs) % (rnd(&rs) % 8 ? 600 : longest);
		void *p = nullptr;
		const int err = ch_pool_alloc(pool, len, timeouts[rnd(&rs) % 3], &p);

		CHECK(err == 0 || err == -ENOSPC || err == -ETIMEDOUT);
		auto *mine = err ? nullptr : new block{ static_cast<unsigned char *>(p), len, who, seq };
		if (mine)
			fill(p, len, who, seq);
		if (block *old = shelf[rnd(&rs) % shelf.size()].exchange(mine))
			check_and_free(pool, old);
	}
}

void run(const stress::options &o, uint64_t pool_len, size_t nr_shelf, size_t longest)
{
	struct ch_pool *pool = pool_of(pool_len);
	std::vector<std::atomic<block *>> shelf(nr_shelf);
	struct ch_pool_stats before, st;
	std::atomic<bool> stop{ false };
	std::atomic<int> workers{ o.threads };

	CHECK(ch_pool_get_stats(pool, &before) == 0);
	stress::together(o.threads + 1, [&](int i) {
		if (i == o.threads) { /* one looks on: a picture of a moment is never absurd */
			while (!stop) {
				CHECK(ch_pool_get_stats(pool, &st) == 0 && st.used <= st.len && st.largest <= st.len);
				CHECK(ch_pool_sweep(pool) == 0);
			}
			return;
		}
		work(pool, shelf, longest, static_cast<uint64_t>(i), o.messages / static_cast<uint64_t>(o.threads),
		     o.seed * 37 + static_cast<uint64_t>(i) + 1);
		if (--workers == 0)
			stop = true;
	});
	for (auto &s : shelf)
		if (block *b = s.exchange(nullptr))
			check_and_free(pool, b);
	CHECK(pool_is_as_before(pool, &before));
	ch_pool_destroy(pool);
}

} // namespace

int main(int argc, char **argv)
{
	const stress::options o = stress::parse(argc, argv, 40000);

	run(o, 4 << 20, 64, 30000);
	run(o, 128 << 10, 256, 30000); /* full most of the time */
	return stress::verdict("pool", o);
}

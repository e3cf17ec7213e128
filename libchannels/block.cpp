// SPDX-License-Identifier: Apache-2.0
// block.cpp - blocks that bear a type, that are given away, and that are looked for.
//
//   OWNED(p) -> OFFERED(p)     p offers it; it is swept with p like any block of p's
//   OFFERED(p) -> OWNED(q)     q accepts it: one compare-and-swap, which one process wins
//   OFFERED(p) -> OWNED(p)     p withdraws it
// A type lies in the last eight bytes of its block, and the lowest bit of the block's tag says so.
#include "config.h"
#include "crash.h"
#include "error.h"
#include "event.h"
#include "pool.h"
#include <cerrno>
#include <channels/block.h>
#include <climits>

namespace ch::core {

static shared<u32> *type_of(const block_place &b) noexcept
{
	return reinterpret_cast<shared<u32> *>(b.addr + b.len - TYPE_LEN);
}

// The caller's block at addr, or -EINVAL, -EPERM, -ESTALE.
static int own_block(ch_pool *pool, const void *addr, block_place &b, u64 &word) noexcept
{
	const int rc = pool_check(pool), me = rc < 0 ? rc : pool_me(pool);

	if (me < 0)
		return me;
	if (!addr || !block_find_addr(pool->map, addr, b))
		return fail(-EINVAL, "pool %s: no block begins at %p", pool->seg->name, addr);
	word = b.word->load(relaxed); // ours, or refused
	if (block_state_of(word) != B_OWNED || block_owner(word) != static_cast<u32>(me))
		return fail(-EPERM, "pool %s: the block at %p is not this process's", pool->seg->name, addr);
	return me;
}

int pool_own_block(ch_pool *pool, const void *addr, block_place &b) noexcept
{
	u64 word;

	return own_block(pool, addr, b, word);
}

static u32 public_state(block_state st) noexcept
{
	switch (st) {
	case B_OWNED: return CH_BLOCK_OWNED;
	case B_OFFERED: return CH_BLOCK_OFFERED;
	case B_SHARED: return CH_BLOCK_SHARED;
	case B_SENDING:
	case B_INCHAN: return CH_BLOCK_MESSAGE;
	case B_OBJECT:
	case B_DYING:
	case B_FINAL: return CH_BLOCK_OBJECT;
	case B_NONE:
	case B_FREE: break;
	}
	return 0;
}

// False: free, or changed while it was looked at.
static bool describe(const ch_pool *pool, const block_place &b, u64 w, ch_block_info &out) noexcept
{
	const bool is_typed = block_tag(w) & 1;

	out = {b.addr, b.len - (is_typed ? TYPE_LEN : 0), 0, public_state(block_state_of(w)), {0}};
	if (is_typed)
		out.type = type_of(b)->load(acquire); // before the word again: that is then still what it was
	if (out.state == CH_BLOCK_OWNED || out.state == CH_BLOCK_OFFERED)
		out.owner.id = peer_of(pool->seg, block_owner(w));
	return out.state != 0 && b.word->load(relaxed) == w; // the tag says that it was this block all the time
}

} // namespace ch::core

using namespace ch::core;

int ch_pool_alloc_typed(struct ch_pool *pool, size_t len, uint32_t type, int64_t timeout_ns, void **out_addr)
{
	block_place b;
	int rc = pool_check(pool);

	if (rc == 0 && (len == 0 || type == 0 || !out_addr))
		rc = fail(-EINVAL, "pool: len 0, type 0 or out_addr NULL");
	if (rc == 0)
		rc = pool_alloc(pool, len + TYPE_LEN < len ? len : len + TYPE_LEN, timeout_ns == CH_TRY,
				timeout_ns == CH_TRY ? 0 : deadline_of(timeout_ns), b);
	if (rc < 0)
		return rc;
	const u64 w = b.word->load(relaxed); // ours
	type_of(b)->store(type, relaxed);    // published by the word
	CH_CRASH_POINT(block_typed);
	b.word->store(block_word(block_tag(w) + 1, B_OWNED, block_owner(w)), release); // [B1] pairs with [B2]
	*out_addr = b.addr;
	return 0;
}

int ch_pool_each_block(struct ch_pool *pool, uint32_t type, int (*fn)(const struct ch_block_info *info, void *arg),
		       void *arg)
{
	int rc = pool_check(pool), nr = 0;

	if (rc < 0)
		return rc;
	if (!fn)
		return fail(-EINVAL, "pool: fn is NULL");
	for_each_block(pool->map, [&](const block_place &b, u64 w) {
		ch_block_info info;
		if (rc != 0 || (type != 0 && !(block_tag(w) & 1)) || !describe(pool, b, w, info))
			return;
		if (type != 0 && info.type != type)
			return;
		rc = fn(&info, arg);
		nr += nr < INT_MAX;
	});
	return rc != 0 ? rc : nr;
}

int ch_pool_get_classes(struct ch_pool *pool, struct ch_pool_class *out_classes, size_t cap)
{
	const int rc = pool_check(pool);
	ch_pool_class all[NR_CLASSES] = {};
	size_t nr = 0;

	if (rc < 0)
		return rc;
	if (!out_classes && cap > 0)
		return fail(-EINVAL, "pool: out_classes is NULL");
	for_each_block(pool->map, [&](const block_place &b, u64 w) {
		all[b.cls].nr_used += public_state(block_state_of(w)) != 0;
		all[b.cls].nr_free += block_state_of(w) == B_FREE;
	});
	for (u32 c = 0; c < NR_CLASSES; c++) {
		all[c].len = classes.of[c].len;
		if (all[c].nr_used + all[c].nr_free == 0)
			continue;
		if (nr < cap)
			out_classes[nr] = all[c];
		nr++;
	}
	return static_cast<int>(nr);
}

int ch_block_offer(struct ch_pool *pool, void *addr, struct ch_descr *out_descr)
{
	block_place b;
	u64 w;
	const int me = own_block(pool, addr, b, w);

	if (me < 0)
		return me;
	if (!out_descr)
		return fail(-EINVAL, "block: out_descr is NULL");
	// [B1] pairs with [B2]: the bytes are whole before somebody accepts them.
	b.word->store(block_word(block_tag(w), B_OFFERED, static_cast<u32>(me)), release);
	CH_CRASH_POINT(block_offered);
	descr_seal(segment_descr(pool->seg, CH_DESCR_BLOCK, b.index, block_tag(w)), out_descr);
	return 0;
}

int ch_block_accept(struct ch_pool *pool, const struct ch_descr *descr, void **out_addr)
{
	ch::core::descr d;
	block_place b;
	int rc = pool_check(pool);

	rc = rc < 0 ? rc : descr_open(descr, d);
	if (rc < 0)
		return rc;
	if (!out_addr || d.kind != CH_DESCR_BLOCK || d.segment != pool->seg->id || d.birth != pool->seg->birth)
		return fail(-EINVAL, "block: the descriptor names no block of pool %s", pool->seg->name);
	if (d.nonce != pool->seg->nonce)
		return fail(-EACCES, "block: forged descriptor");
	const int me = pool_me(pool);
	if (me < 0)
		return me;
	if (!block_find(pool->map, d.offset, b))
		return fail(-ESTALE, "pool %s: the offered block is gone", pool->seg->name);
	u64 w = b.word->load(acquire); // [B2] pairs with [B1]
	if (block_tag(w) != d.generation || block_state_of(w) != B_OFFERED ||
	    !b.word->compare_exchange_strong(w, block_word(d.generation, B_OWNED, static_cast<u32>(me)), acq_rel, relaxed))
		return fail(-ESTALE, "pool %s: the offered block is gone", pool->seg->name); // the CAS: [B1] [B2]
	CH_CRASH_POINT(block_accepted);
	*out_addr = b.addr;
	return 0;
}

int ch_block_withdraw(struct ch_pool *pool, void *addr)
{
	const int rc = pool_check(pool), me = rc < 0 ? rc : pool_me(pool);
	block_place b;

	if (me < 0)
		return me;
	if (!addr || !block_find_addr(pool->map, addr, b))
		return fail(-EINVAL, "pool %s: no block begins at %p", pool->seg->name, addr);
	u64 w = b.word->load(relaxed); // the CAS looks again
	if (block_state_of(w) != B_OFFERED || block_owner(w) != static_cast<u32>(me) ||
	    !b.word->compare_exchange_strong(w, block_word(block_tag(w), B_OWNED, static_cast<u32>(me)), acquire, relaxed))
		return fail(-ESTALE, "pool %s: the block at %p was accepted", pool->seg->name, addr); // the CAS: [B2]
	return 0;
}

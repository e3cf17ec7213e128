// SPDX-License-Identifier: Apache-2.0
// pool.cpp - the public block pool: geometry, waiting for memory, statistics.
#include "config.h"
#include "pool.h"
#include "crash.h"
#include "object.h"
#include "error.h"
#include "event.h"
#include "keeper.h"
#include "sweep.h"
#include <cerrno>
#include <cstring>

namespace ch::core {

static constexpr u64 MIN_POOL = 64 << 10;
static constexpr i64 SLICE_NS = 100000000; // how often a waiter looks for dead peers when nobody watches them

struct geometry {
	u64 nr_pages, page_words_off, block_words_off, data_off;
};

static geometry geometry_of(u64 len) noexcept
{
	const u64 per_page = 8 + WORDS_PER_PAGE * 8 + PAGE;
	geometry g;

	for (g.nr_pages = len / per_page;; g.nr_pages--) { // once or twice
		g.page_words_off = sizeof(pool_header);
		g.block_words_off = round_up(g.page_words_off + g.nr_pages * 8, LINE);
		g.data_off = round_up(g.block_words_off + g.nr_pages * WORDS_PER_PAGE * 8, PAGE);
		if (g.nr_pages == 0 || g.data_off + g.nr_pages * PAGE <= len)
			return g;
	}
}

static void map_pool(ch_pool *pool, const geometry &g) noexcept
{
	u8 *base = pool->seg->base + pool->seg->user_off;

	pool->map.pages = reinterpret_cast<shared<u64> *>(base + g.page_words_off);
	pool->map.words = reinterpret_cast<shared<u64> *>(base + g.block_words_off);
	pool->map.data = base + g.data_off;
	pool->hdr = reinterpret_cast<pool_header *>(base);
	pool->map.backed = &pool->hdr->backed;
	pool->map.in_runs = &pool->hdr->in_runs;
	pool->map.peak = &pool->hdr->peak;
	pool->map.max_pages = g.nr_pages;
	map_refresh(pool->map);
}

// The pool in seg's user bytes, if there is one. Its words are checked against what the segment's size gives.
int pool_use(ch_segment *seg) noexcept
{
	ch_pool *pool = &seg->pool;
	const geometry g = geometry_of(seg->user_len);
	const pool_header *h = reinterpret_cast<const pool_header *>(seg->base + seg->user_off);

	if (pool->hdr)
		return 0;
	const u32 state = seg->user_len < MIN_POOL ? u32{POOL_NONE} : h->state.load(acquire); // [L2] pairs with [L1]
	if (state == POOL_NONE || state == POOL_FORMATTING)
		return -ENOENT;
	if (h->magic != POOL_MAGIC || h->nr_pages != g.nr_pages || h->page_words_off != g.page_words_off ||
	    h->block_words_off != g.block_words_off || h->data_off != g.data_off ||
	    h->backed.load(relaxed) == 0) // grows, after this one acquire
		return fail(-EPROTO, "segment %s: its pool is damaged", seg->name);
	pool->own_segment = h->own_segment != 0;
	map_pool(pool, g);
	return 0;
}

// ---- growth: memory first, then the word that says so. Two processes may reserve the same pages, which is one deed; a dead
// one leaves at most pages that have memory and are not told of, and the next to grow gets those.

static int reserve_pages(ch_segment *seg, u64 from, u64 to) noexcept
{
	const geometry g = geometry_of(seg->user_len);
	int rc = segment_reserve(seg, g.page_words_off + from * 8, (to - from) * 8);

	CH_CRASH_POINT(pool_reserving);
	if (rc == 0)
		rc = segment_reserve(seg, g.block_words_off + from * WORDS_PER_PAGE * 8, (to - from) * WORDS_PER_PAGE * 8);
	if (rc == 0)
		rc = segment_reserve(seg, g.data_off + from * PAGE, (to - from) * PAGE);
	CH_CRASH_POINT(pool_reserved);
	return rc;
}

// By half of what there is, at least what is asked for. False if there is no more to be had.
static bool grow(ch_pool *pool, u64 nr_wanted) noexcept
{
	static constexpr u64 STEP = 64;
	const u64 known = pool->map.nr_pages.load(relaxed), now = map_refresh(pool->map); // somebody else may have been quicker
	u64 backed = now, to = now + (nr_wanted > STEP ? nr_wanted : STEP);

	if (now > known)
		return true;
	if (now == pool->map.max_pages)
		return false;
	to = to > now + now / 2 ? to : now + now / 2;
	to = to < pool->map.max_pages ? to : pool->map.max_pages;
	if (reserve_pages(pool->seg, now, to) < 0)
		return false;
	// [G3] pairs with [G4]: what is backed can be used
	pool->hdr->backed.compare_exchange_strong(backed, to, release, relaxed);
	CH_CRASH_POINT(pool_grown);
	event_notify(pool->hdr->freed, EVERYBODY);
	return map_refresh(pool->map) > now;
}

static u64 alloc_or_grow(ch_pool *pool, u32 cls, u32 me) noexcept
{
	u64 index = block_alloc(pool->map, cls, me);

	while (index == NO_BLOCK && grow(pool, pages_of(cls | TIGHT)))
		index = block_alloc(pool->map, cls, me);
	return index;
}

// first_len: bytes of which the first pages are made, if not all.
static int format_pool(ch_segment *seg, bool own_segment, u64 first_len) noexcept
{
	const geometry g = geometry_of(seg->user_len);
	const u64 nr_first = seg->is_sparse ? geometry_of(first_len).nr_pages : g.nr_pages;
	pool_header *h = reinterpret_cast<pool_header *>(seg->base + seg->user_off);

	if (seg->user_len < MIN_POOL)
		return fail(-EINVAL, "segment %s: a pool needs %llu bytes", seg->name,
			    static_cast<unsigned long long>(MIN_POOL));
	u32 none = POOL_NONE;
	if (!h->state.compare_exchange_strong(none, POOL_FORMATTING, acquire, relaxed)) // [L2] pairs with [L1]
		return fail(-EEXIST, "segment %s has a pool", seg->name);
	if (seg->is_sparse) {
		const int rc = reserve_pages(seg, 0, nr_first); // zero as it is
		if (rc < 0)
			return rc;
	} else { // the user may have written there before; zero words say that all is free
		std::memset(static_cast<void *>(&h->in_runs), 0, g.data_off - offsetof(pool_header, in_runs));
	}
	h->freed.v.store(0, relaxed); // published by the state
	h->magic = POOL_MAGIC;
	h->nr_pages = g.nr_pages;
	h->page_words_off = g.page_words_off;
	h->block_words_off = g.block_words_off;
	h->data_off = g.data_off;
	h->backed.store(nr_first, release); // [G3] pairs with [G4]: what is backed can be used
	h->own_segment = own_segment;
	map_pool(&seg->pool, g);
	seg->pool.own_segment = own_segment;
	h->state.store(POOL_READY, release); // [L1] pairs with [L2]: the header is whole before it says so
	return 0;
}

int pool_attach(const descr &d, ch_pool **out, u32 flags) noexcept
{
	ch_segment *seg;
	int rc = segment_attach(d, flags, &seg);

	if (rc < 0)
		return rc;
	rc = pool_use(seg);
	if (rc == -ENOENT)
		rc = fail(-EPROTO, "segment %s holds no pool", seg->name);
	if (rc == 0 && pool_is_destroyed(&seg->pool))
		rc = fail(-ESTALE, "pool %s was destroyed", seg->name);
	if (rc < 0) {
		segment_unref(seg);
		return rc;
	}
	seg->pool.refs++;
	*out = &seg->pool;
	return 0;
}

void pool_unref(ch_pool *pool) noexcept
{
	pool->refs--;
	segment_unref(pool->seg);
}

static int create_segment(const ch_pool_attr &a, ch_segment_attr &wish, ch_segment **out) noexcept
{
	const ch_segment_attr asked = wish;
	const int rc = segment_read_attr(&asked, wish);

	if (rc < 0)
		return rc;
	if (a.max_len && a.max_len < wish.len)
		return fail(-EINVAL, "pool: max_len is under len");
	return segment_create(wish, a.max_len, out);
}

static int pool_create(const ch_pool_attr &a, ch_pool **out) noexcept
{
	ch_segment_attr wish = CH_SEGMENT_ATTR_INIT;
	ch_segment *seg = a.segment;
	int rc = 0;

	wish.len = a.len;
	wish.max_peers = a.max_peers;
	wish.flags = a.flags;
	if (seg && seg->hdr->state.load(relaxed) == SEGMENT_DESTROYED) // a flag
		return fail(-ESTALE, "segment %s was destroyed", seg->name);
	if (seg)
		seg->refs++;
	else
		rc = create_segment(a, wish, &seg);
	if (rc == 0)
		rc = segment_join(seg);
	if (rc >= 0)
		rc = format_pool(seg, !a.segment, wish.len);
	if (rc == 0) {
		seg->pool.refs++;
		*out = &seg->pool;
	} else if (a.segment) {
		seg->refs--;
	} else if (seg) {
		ch_segment_destroy(seg);
	}
	return rc < 0 ? rc : 0;
}

int pool_default(ch_pool **out) noexcept
{
	static ch_pool *pool;
	static u64 whose; // a forked child makes its own
	const ch_pool_attr a = CH_POOL_ATTR_INIT;

	if (!pool || whose != static_cast<u64>(getpid()) || pool_is_destroyed(pool)) {
		const int rc = pool_create(a, &pool);
		if (rc < 0) {
			pool = nullptr;
			return rc;
		}
		whose = static_cast<u64>(getpid());
		std::atexit([] {
			if (whose == static_cast<u64>(getpid()))
				ch_pool_destroy(pool);
		});
	}
	pool->refs++;
	pool->seg->refs++;
	*out = pool;
	return 0;
}

int pool_me_slow(ch_pool *pool) noexcept
{
	registry_lock lock;

	return segment_join(pool->seg);
}

int pool_check(ch_pool *pool) noexcept
{
	if (!pool || !pool->hdr)
		return fail(-EINVAL, "pool: NULL");
	return pool_is_destroyed(pool) ? fail(-ESTALE, "pool %s was destroyed", pool->seg->name) : 0;
}

// ---- allocation

static int wait_for_memory(ch_pool *pool, u32 cls, u32 me, i64 until_ns, u64 &index) noexcept
{
	for (;;) {
		registration r = event_register(pool->hdr->freed);
		if (pool_is_destroyed(pool))
			return fail(-ESTALE, "pool %s was destroyed", pool->seg->name);
		index = alloc_or_grow(pool, cls, me);
		if (index != NO_BLOCK)
			return 0;
		const i64 now = now_ns();
		if (now >= until_ns)
			return -ETIMEDOUT;
		const i64 slice = deaths_are_told(pool->seg) ? NEVER : now + SLICE_NS;
		event_wait(pool->hdr->freed, r, until_ns < slice ? until_ns : slice);
		if (!deaths_are_told(pool->seg))
			sweep_dead(pool->seg);
	}
}

static __attribute__((noinline)) int alloc_slow(ch_pool *pool, u64 len, u32 me, bool is_try, i64 until_ns,
						u64 &index) noexcept
{
	const u32 cls = len <= pool->map.max_pages * PAGE ? class_of(len) : NR_CLASSES;

	if (cls >= NR_CLASSES || pages_of(cls | TIGHT) > pool->map.max_pages)
		return fail(-EMSGSIZE, "pool %s: %llu bytes can never fit in %llu", pool->seg->name,
			    static_cast<unsigned long long>(len),
			    static_cast<unsigned long long>(pool->map.max_pages * PAGE));
	index = alloc_or_grow(pool, cls, me);
	if (index != NO_BLOCK)
		return 0;
	return is_try ? fail(-ENOSPC, "pool %s is full", pool->seg->name) : wait_for_memory(pool, cls, me, until_ns, index);
}

int pool_alloc(ch_pool *pool, u64 len, bool is_try, i64 until_ns, block_place &out) noexcept
{
	const int me = pool_me(pool);
	u64 index = NO_BLOCK;

	if (me < 0)
		return me;
	if (class_of(len) < NR_CACHED)
		index = block_alloc_cached(pool->map, class_of(len), static_cast<u32>(me));
	if (index == NO_BLOCK) [[unlikely]] {
		const int rc = alloc_slow(pool, len, static_cast<u32>(me), is_try, until_ns, index);
		if (rc < 0)
			return rc;
	}
	out = block_at(pool->map, index, class_of(len));
	return 0;
}

void pool_free(ch_pool *pool, const block_place &b) noexcept
{
	const int me = pool_me(pool);

	if (me > 0 && block_free(pool->map, b, static_cast<u32>(me)))
		event_notify(pool->hdr->freed, EVERYBODY); // what fits whom is not known here
}

} // namespace ch::core

using namespace ch::core;

int ch_pool_create(const struct ch_pool_attr *attr, struct ch_pool **out_pool)
{
	ch_pool_attr a;
	const int rc = read_attr(attr, &a, sizeof(a));

	if (rc < 0)
		return rc;
	if (!out_pool)
		return fail(-EINVAL, "pool: out_pool is NULL");
	if (a.segment && (a.len || a.max_len || a.max_peers || a.flags))
		return fail(-EINVAL, "pool: len, max_len, max_peers and flags are the segment's");
	if (a.reserved || (a.flags & CH_GROUP))
		return fail(-EINVAL, "pool: reserved is not 0, or CH_GROUP, which wants a segment of the caller's");
	if (!a.segment && a.len && a.len < MIN_POOL)
		return fail(-EINVAL, "pool: under %llu bytes", static_cast<unsigned long long>(MIN_POOL));
	registry_lock lock;
	registry_init_locked();
	return pool_create(a, out_pool);
}

int ch_pool_attach(const struct ch_descr *descr, struct ch_pool **out_pool)
{
	return ch_pool_attach_with(descr, 0, out_pool);
}

int ch_pool_attach_with(const struct ch_descr *descr, uint32_t flags, struct ch_pool **out_pool)
{
	ch::core::descr d;
	const int rc = descr_open(descr, d);

	if (rc < 0)
		return rc;
	if (!out_pool)
		return fail(-EINVAL, "pool: out_pool is NULL");
	registry_lock lock;
	return pool_attach(d, out_pool, flags);
}

void ch_pool_detach(struct ch_pool *pool)
{
	registry_lock lock;

	if (pool)
		pool_unref(pool);
}

void ch_pool_destroy(struct ch_pool *pool)
{
	registry_lock lock;

	if (!pool)
		return;
	pool_mark_destroyed(pool->seg);
	if (pool->own_segment)
		segment_remove_name(pool->seg);
	pool_unref(pool);
}

int ch_pool_get_descr(const struct ch_pool *pool, struct ch_descr *out_descr)
{
	if (!pool || !out_descr)
		return fail(-EINVAL, "pool: NULL");
	descr_seal(segment_descr(pool->seg, CH_DESCR_POOL, 0, 0), out_descr);
	return 0;
}

int ch_pool_alloc(struct ch_pool *pool, size_t len, int64_t timeout_ns, void **out_addr)
{
	block_place b;

	if (!pool || !pool->hdr || pool_is_destroyed(pool)) [[unlikely]]
		return pool_check(pool);
	if (len == 0 || !out_addr) [[unlikely]]
		return fail(-EINVAL, "pool: len 0 or out_addr NULL");
	const u32 me = pool->seg->me.load(relaxed), cls = class_of(len);
	const u64 index = cls < NR_CACHED && me != NOBODY ? block_alloc_cached(pool->map, cls, me) : NO_BLOCK;
	if (index != NO_BLOCK) [[likely]] {
		*out_addr = block_addr(pool->map, index, classes.of[cls].len);
		return 0;
	}
	const int rc = pool_alloc(pool, len, timeout_ns == CH_TRY, timeout_ns == CH_TRY ? 0 : deadline_of(timeout_ns), b);
	if (rc == 0)
		*out_addr = b.addr;
	return rc;
}

// Why a block could not be freed.
static int not_freed(ch_pool *pool, const block_place &b, void *addr)
{
	const block_state st = block_state_of(b.word->load(relaxed)); // for a message

	return st == B_FREE || st == B_NONE ?
		       fail(-EINVAL, "pool %s: the block at %p is free", pool->seg->name, addr) :
		       fail(-EPERM, "pool %s: the block at %p is not this process's", pool->seg->name, addr);
}

int ch_pool_free(struct ch_pool *pool, void *addr)
{
	block_place b;

	if (!pool || !pool->hdr)
		return fail(-EINVAL, "pool: NULL");
	if (!addr)
		return 0;
	if (!block_find_addr(pool->map, addr, b))
		return fail(-EINVAL, "pool %s: no block begins at %p", pool->seg->name, addr);
	const int me = pool_me(pool);
	if (me < 0)
		return me;
	if (!block_free(pool->map, b, static_cast<u32>(me)))
		return not_freed(pool, b, addr);
	event_notify(pool->hdr->freed, EVERYBODY); // what fits whom is not known here
	return 0;
}

ssize_t ch_pool_block_len(struct ch_pool *pool, const void *addr)
{
	block_place b;

	if (!pool || !pool->hdr || !addr || !block_find_addr(pool->map, addr, b))
		return fail(-EINVAL, "pool: no block begins at %p", addr);
	return static_cast<ssize_t>(b.len - (block_tag(b.word->load(relaxed)) & 1 ? TYPE_LEN : 0)); // the caller's
}

// The longest stretch of pages that are free or belong to runs whose blocks are all free.
static u64 largest_free(const run_map &m) noexcept
{
	u64 best = 0, cur = 0;

	for (u64 p = 0, nr_pages = map_refresh(m); p < nr_pages;) {
		const u64 w = m.pages[p].load(relaxed); // a picture of a moment
		const u32 type = page_run_type(w);
		u64 n = 1;
		bool is_free = page_kind_of(w) == PG_FREE;
		if (page_kind_of(w) == PG_HEAD && is_run_type(type)) {
			n = pages_of(type);
			is_free = true;
			for (u64 k = 0; k < blocks_of(type); k++)
				is_free &= block_state_of(m.words[p * WORDS_PER_PAGE + k].load(relaxed)) == B_FREE;
		}
		cur = is_free ? cur + n : 0;
		best = cur > best ? cur : best;
		p += n;
	}
	if (best == 0)
		return 0;
	u32 cls = class_of(best * PAGE); // the class that these pages can hold a run of
	while (cls > 0 && pages_of(cls | TIGHT) > best)
		cls--;
	return class_len(cls);
}

int ch_pool_get_stats(struct ch_pool *pool, struct ch_pool_stats *out_stats)
{
	ch_pool_stats s = {};
	const int rc = pool_check(pool);

	if (rc < 0)
		return rc;
	if (!out_stats)
		return fail(-EINVAL, "pool: out_stats is NULL");
	s.len = map_refresh(pool->map) * PAGE;
	s.max_len = pool->map.max_pages * PAGE;
	for_each_block(pool->map, [&s](const block_place &b, u64 w) {
		const block_state st = block_state_of(w);
		if (st == B_NONE || st == B_FREE)
			return;
		s.used += b.len;
		s.nr_used++;
		s.nr_channels += st == B_OBJECT && reinterpret_cast<const object_header *>(b.addr)->kind == CH_DESCR_CHANNEL;
	});
	s.largest = largest_free(pool->map);
	s.peak = pool->hdr->peak.load(relaxed) * PAGE; // statistics
	s.peak = s.peak < s.used ? s.used : s.peak > s.len ? s.len : s.peak;
	for_each_peer(pool->seg, [&](u32 i) { s.nr_peers += peer_of(pool->seg, i) != 0; });
	*out_stats = s;
	return 0;
}

int ch_pool_sweep(struct ch_pool *pool)
{
	const int rc = pool_check(pool);

	if (rc < 0)
		return rc;
	const int me = pool_me(pool);
	if (me < 0)
		return me;
	return sweep_all(pool->seg);
}

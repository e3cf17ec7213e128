// SPDX-License-Identifier: Apache-2.0
// channel.cpp - create, attach, detach, destroy, close: the life of a channel.
//
// A channel is a block of its pool. Block word: OWNED(creator) while it is formatted, CHANNEL while it lives, DYING
// when it was destroyed but somebody is still attached, FINAL(p) while the last one frees its messages, FREE. Who is
// attached is one bit per peer in the channel itself; sweep.h tells how its memory is kept from going early.
#include "config.h"
#include "channel.h"
#include "error.h"
#include "peer.h"
#include "sweep.h"
#include "wait.h"
#include <cerrno>
#include <new>

namespace ch::core {

static constexpr u32 DEFAULT_CAPACITY = 1024;
static constexpr u32 DEFAULT_INLINE = 48;
static constexpr u32 MAX_CAPACITY = 1u << 20;
static constexpr u32 MAX_INLINE = 4032;

static void set_bit(const ring &r, u32 i) noexcept
{
	ring_bits(r)[i / 64].fetch_or(u64{1} << (i % 64), acq_rel); // [K1] pairs with [K2] in sweep.cpp
}

static void clear_bit(const ring &r, u32 i) noexcept
{
	ring_bits(r)[i / 64].fetch_and(~(u64{1} << (i % 64)), acq_rel); // [K1] pairs with [K2] in sweep.cpp
}

// Puts this process's bit into the channel, if it is still the one that the handle means.
static int join(ch_channel *ch, u32 me) noexcept
{
	ch_segment *seg = ch->pool->seg;
	shared<u64> &hazard = seg->peers[me].hazard;
	int rc = 0;

	if (!hazard_set(hazard, ch->block, ch->tag, false))
		rc = fail(-ESTALE, "channel in pool %s was destroyed", seg->name);
	else if (!ring_open(ch->r, ch->block.addr, ch->block.len, seg->max_peers))
		rc = fail(-EPROTO, "channel in pool %s is damaged", seg->name);
	else
		set_bit(ch->r, me);
	CH_CRASH_POINT(channel_attached);
	hazard_clear(seg, hazard, ch->block);
	return rc;
}

// The first use of a handle in a forked child, or of a handle that is no good.
int channel_me_slow(ch_channel *ch) noexcept
{
	registry_lock lock;

	if (ch->me.load(relaxed) != NOBODY) // under the lock: another thread was quicker
		return static_cast<int>(ch->me.load(relaxed));
	if (ch->is_stale || pool_is_destroyed(ch->pool))
		return fail(-ESTALE, "channel in pool %s was destroyed", ch->pool->seg->name);
	const int me = segment_join(ch->pool->seg);
	const int rc = me < 0 ? me : join(ch, static_cast<u32>(me));
	if (rc == -ESTALE)
		ch->is_stale = true;
	if (rc < 0)
		return rc;
	ch->me.store(static_cast<u32>(me), relaxed);
	return me;
}

static void link_handle(ch_channel *ch) noexcept
{
	ch->next = ch->pool->seg->channels;
	ch->pool->seg->channels = ch;
}

// True if it was the last handle of this process on this channel.
static bool unlink_handle(ch_channel *ch) noexcept
{
	bool is_last = true;

	for (ch_channel **p = &ch->pool->seg->channels; *p;) {
		if (*p == ch) {
			*p = ch->next;
			continue;
		}
		is_last &= (*p)->block.index != ch->block.index || (*p)->tag != ch->tag;
		p = &(*p)->next;
	}
	return is_last;
}

static ch_channel *new_handle(ch_pool *pool, const block_place &b, u64 tag, u32 spin_ns) noexcept
{
	ch_channel *ch = new (std::nothrow) ch_channel;

	if (!ch)
		return nullptr;
	ch->pool = pool;
	ch->block = b;
	ch->tag = tag;
	ch->spin_ns.store(spin_ns, relaxed); // not given out yet
	ch->budget_ns.store(SPIN_MAX_NS / 2, relaxed);
	return ch;
}

static void leave(ch_channel *ch) noexcept
{
	registry_lock lock;
	ch_pool *pool = ch->pool;
	const u32 me = ch->me.load(relaxed); // under the lock
	const bool is_last = unlink_handle(ch);

	if (is_last && me != NOBODY) {
		ring_leave(ch->r, pool->map, me);
		clear_bit(ch->r, me);
		CH_CRASH_POINT(channel_detached);
		channel_finish(pool->seg, ch->block);
	}
	delete ch;
	pool_unref(pool);
}

// ---- create

static int read_channel_attr(const ch_channel_attr *attr, ch_channel_attr &a) noexcept
{
	const int rc = read_attr(attr, &a, sizeof(a));

	if (rc < 0)
		return rc;
	if (a.capacity == 0)
		a.capacity = DEFAULT_CAPACITY;
	if (a.inline_max == 0)
		a.inline_max = DEFAULT_INLINE;
	if (a.capacity > MAX_CAPACITY)
		return fail(-EINVAL, "channel: capacity %u is over %u", a.capacity, MAX_CAPACITY);
	if ((a.flags & ~CH_CHANNEL_ENDS_WITH_CREATOR) || a.reserved)
		return fail(-EINVAL, "channel: unknown flags %#x", a.flags);
	if (a.inline_max < 8 || a.inline_max > MAX_INLINE)
		return fail(-EINVAL, "channel: inline_max %u is not in 8...%u", a.inline_max, MAX_INLINE);
	return 0;
}

static u32 lg_of(u32 capacity) noexcept
{
	return capacity <= 2 ? 1 : 32 - static_cast<u32>(__builtin_clz(capacity - 1));
}

// The ring in a fresh block, which becomes a channel with the last store.
static int make(ch_pool *pool, const ch_channel_attr &a, ch_channel **out) noexcept
{
	const u32 lg = lg_of(a.capacity), peers = pool->seg->max_peers;
	const u32 stride = static_cast<u32>(round_up(SLOT_HEAD + a.inline_max, LINE));
	block_place b;
	const int me = pool_me(pool);
	int rc = me < 0 ? me : pool_alloc(pool, ring_bytes(lg, stride, peers), true, 0, b);

	if (rc < 0)
		return rc;
	const u64 tag = block_tag(b.word->load(relaxed)); // ours
	ch_channel *ch = new_handle(pool, b, tag, a.spin_ns);
	if (!ch) {
		pool_free(pool, b);
		return fail(-ENOMEM, "channel: no memory for the handle");
	}
	ring_format(ch->r, b.addr, lg, stride, peers);
	ch->r.h->creator = a.flags & CH_CHANNEL_ENDS_WITH_CREATOR ? static_cast<u32>(me) : NOBODY;
	set_bit(ch->r, static_cast<u32>(me));
	// [B1] pairs with [B2]: the channel is whole before it is one.
	b.word->store(block_word(tag, B_CHANNEL, NOBODY), release);
	CH_CRASH_POINT(channel_made);
	ch->me.store(static_cast<u32>(me), relaxed); // not given out yet
	link_handle(ch);
	*out = ch;
	return 0;
}

static int attach(ch_pool *pool, const descr &d, ch_channel **out) noexcept
{
	block_place b;

	if (!block_find(pool->map, d.offset, b))
		return fail(-ESTALE, "channel in pool %s was destroyed", pool->seg->name);
	ch_channel *ch = new_handle(pool, b, d.generation, 0);
	if (!ch)
		return fail(-ENOMEM, "channel: no memory for the handle");
	const int me = pool_me(pool);
	const int rc = me < 0 ? me : join(ch, static_cast<u32>(me));
	if (rc < 0) {
		delete ch;
		return rc;
	}
	ch->me.store(static_cast<u32>(me), relaxed); // not given out yet
	link_handle(ch);
	*out = ch;
	return 0;
}

// ---- destroy

static void mark_destroyed(const ring &r) noexcept
{
	r.h->state.fetch_or(CHANNEL_DESTROYED, acq_rel);
	event_wake(r.h->not_empty, EVERYBODY);
	event_wake(r.h->not_full, EVERYBODY);
}

void pool_mark_destroyed(ch_segment *seg) noexcept
{
	if (pool_use(seg) < 0 || segment_join(seg) < 0)
		return;
	shared<u64> &hazard = seg->peers[seg->me.load(relaxed)].hazard; // under the lock
	seg->pool.hdr->state.store(POOL_DESTROYED, release);
	for_each_block(seg->pool.map, [&](const block_place &b, u64 w) {
		ring r;
		if (block_state_of(w) != B_CHANNEL)
			return;
		if (hazard_set(hazard, b, block_tag(w), true) && ring_open(r, b.addr, b.len, seg->max_peers))
			mark_destroyed(r);
		hazard_clear(seg, hazard, b);
	});
	event_wake(seg->pool.hdr->freed, EVERYBODY);
}

} // namespace ch::core

using namespace ch::core;

int ch_channel_create(struct ch_pool *pool, const struct ch_channel_attr *attr, struct ch_channel **out_ch)
{
	ch_channel_attr a;
	int rc = read_channel_attr(attr, a);

	if (rc == 0 && !out_ch)
		rc = fail(-EINVAL, "channel: out_ch is NULL");
	if (rc < 0)
		return rc;
	registry_lock lock;
	if (pool) {
		rc = pool_check(pool);
		if (rc < 0)
			return rc;
		pool->refs++;
		pool->seg->refs++;
	} else {
		rc = pool_default(&pool);
	}
	rc = rc < 0 ? rc : make(pool, a, out_ch);
	if (rc < 0 && pool)
		pool_unref(pool);
	return rc;
}

int ch_channel_attach(const struct ch_descr *descr, struct ch_channel **out_ch)
{
	ch::core::descr d;
	ch_pool *pool;
	int rc = descr_open(descr, d);

	if (rc < 0)
		return rc;
	if (!out_ch || d.kind != CH_DESCR_CHANNEL)
		return fail(-EINVAL, out_ch ? "channel: the descriptor names no channel" : "channel: out_ch is NULL");
	registry_lock lock;
	rc = pool_attach(d, &pool);
	if (rc < 0)
		return rc;
	rc = attach(pool, d, out_ch);
	if (rc < 0)
		pool_unref(pool);
	return rc;
}

void ch_channel_detach(struct ch_channel *ch)
{
	if (ch)
		leave(ch);
}

void ch_channel_destroy(struct ch_channel *ch)
{
	if (!ch)
		return;
	registry_lock lock;
	if (channel_me(ch) > 0) {
		u64 w = block_word(ch->tag, B_CHANNEL, NOBODY);
		// Our bit keeps the memory while we mark it. seq_cst: see sweep.h.
		ch->block.word->compare_exchange_strong(w, block_word(ch->tag, B_DYING, NOBODY), seq_cst, relaxed);
		CH_CRASH_POINT(channel_dying);
		mark_destroyed(ch->r);
	}
	leave(ch);
}

static int usable(ch_channel *ch)
{
	if (!ch)
		return fail(-EINVAL, "channel: NULL");
	const int me = channel_me(ch);
	if (me < 0)
		return me;
	return ch->r.h->state.load(relaxed) & CHANNEL_DESTROYED ? // a flag
		       fail(-ESTALE, "channel in pool %s was destroyed", ch->pool->seg->name) :
		       0;
}

int ch_channel_close(struct ch_channel *ch)
{
	const int rc = usable(ch);

	if (rc < 0)
		return rc;
	ch->r.h->state.fetch_or(CHANNEL_CLOSING, acq_rel);
	event_wake(ch->r.h->not_empty, EVERYBODY);
	event_wake(ch->r.h->not_full, EVERYBODY);
	return 0;
}

int ch_channel_get_descr(const struct ch_channel *ch, struct ch_descr *out_descr)
{
	if (!ch || !out_descr)
		return fail(-EINVAL, "channel: NULL");
	descr_seal(segment_descr(ch->pool->seg, CH_DESCR_CHANNEL, ch->block.index, ch->tag), out_descr);
	return 0;
}

struct ch_pool *ch_channel_get_pool(const struct ch_channel *ch)
{
	return ch ? ch->pool : nullptr;
}

int ch_channel_set_spin(struct ch_channel *ch, uint32_t spin_ns)
{
	if (!ch)
		return fail(-EINVAL, "channel: NULL");
	ch->spin_ns.store(spin_ns, relaxed); // a setting
	return 0;
}

uint32_t ch_channel_get_capacity(const struct ch_channel *ch)
{
	return ch ? static_cast<uint32_t>(ch->r.mask + 1) : 0;
}

uint32_t ch_channel_get_inline_max(const struct ch_channel *ch)
{
	return ch ? ch->r.inline_max : 0;
}

ssize_t ch_channel_count(struct ch_channel *ch)
{
	const int rc = usable(ch);

	return rc < 0 ? rc : static_cast<ssize_t>(ring_count(ch->r));
}

// SPDX-License-Identifier: Apache-2.0
// object.cpp - create, attach, detach, destroy: the life of an object, whatever its kind.
#include "config.h"
#include "object.h"
#include "crash.h"
#include "event.h"
#include "peer.h"
#include "stream.h"
#include "sweep.h"
#include "sync.h"
#include "wait.h"
#include "watch.h"
#include <cerrno>
#include <cstdlib>

namespace ch::core {

static const object_kind *const kinds[] = {&channel_kind, &share_kind,     &poll_set_kind, &stream_kind,    &mutex_kind,
					   &rwlock_kind,  &semaphore_kind, &event_kind,    &condition_kind, &barrier_kind};

const object_kind *object_kind_of(const ch_segment *seg, const block_place &b) noexcept
{
	const object_header *h = reinterpret_cast<const object_header *>(b.addr);

	if (b.len < sizeof(*h) || h->magic != OBJECT_MAGIC || h->max_peers != seg->max_peers)
		return nullptr;
	const u32 id = *const_cast<const volatile u32 *>(&h->kind); // once
	for (const object_kind *k : kinds)
		if (k->id == id)
			return b.len >= k->header_len + object_bits_bytes(seg->max_peers) &&
					       k->is_sound(b.addr, b.len, seg->max_peers) ?
				       k :
				       nullptr;
	return nullptr;
}

int object_stale(const ch_object *o) noexcept
{
	return fail(-ESTALE, "%s in pool %s was destroyed", o->kind->name, o->pool->seg->name);
}

int object_get_descr(const ch_object *o, ch_descr *out) noexcept
{
	if (!o || !out)
		return fail(-EINVAL, "descriptor: NULL");
	descr_seal(segment_descr(o->pool->seg, static_cast<u8>(o->kind->id), o->block.index, o->tag), out);
	return 0;
}

// ---- attach

static void set_bit(const ch_object *o, u32 i) noexcept
{
	// [K1] pairs with [K2] in sweep.cpp
	object_bits(*o->kind, o->block.addr)[i / 64].fetch_or(u64{1} << (i % 64), acq_rel);
}

static void clear_bit(const ch_object *o, u32 i) noexcept
{
	// [K1] pairs with [K2] in sweep.cpp. seq_cst: who takes the last bit away, and who clears a hazard, each look for the
	// other's; one of them must see that nobody is left.
	object_bits(*o->kind, o->block.addr)[i / 64].fetch_and(~(u64{1} << (i % 64)), seq_cst);
}

// ---- this process's handles; under the registry lock

static void chain(handle_table &t, ch_object *o) noexcept
{
	ch_object *&first = t.chain_of(o->block.index);

	o->next = first;
	o->link = &first;
	if (first)
		first->link = &o->next;
	first = o;
}

// Chains stay short; without memory they get longer.
static void grow(handle_table &t) noexcept
{
	const u32 nr_old = 1u << t.lg;
	ch_object **const old = t.chains();
	ch_object **const bigger = static_cast<ch_object **>(std::calloc(size_t{4} * nr_old, sizeof(*bigger)));

	if (!bigger)
		return;
	handle_table to;
	to.many = bigger;
	to.lg = t.lg + 2;
	for (u32 i = 0; i < nr_old; i++)
		for (ch_object *o = old[i], *next; o; o = next) {
			next = o->next;
			chain(to, o);
		}
	std::free(t.many);
	t.many = bigger;
	t.lg = to.lg;
}

static void link_handle(ch_object *o) noexcept
{
	handle_table &t = o->pool->seg->objects;

	if (++t.nr > 1u << t.lg && t.lg < 30)
		grow(t);
	chain(t, o);
}

// True if it was the last handle of this process on this object.
static bool unlink_handle(ch_object *o) noexcept
{
	handle_table &t = o->pool->seg->objects;

	t.nr--;
	*o->link = o->next;
	if (o->next)
		o->next->link = o->link;
	for (const ch_object *p = t.chain_of(o->block.index); p; p = p->next)
		if (p->block.index == o->block.index && p->tag == o->tag)
			return false;
	return true;
}

// Puts this process's bit into the object, if it is still the one that the handle means.
static int join(ch_object *o, u32 me) noexcept
{
	ch_segment *seg = o->pool->seg;
	shared<u64> &hazard = seg->peers[me].hazard[0];
	int rc = 0;

	if (!hazard_set(hazard, o->block, o->tag, false))
		rc = object_stale(o);
	else if (object_kind_of(seg, o->block) != o->kind || !o->kind->open(o))
		rc = fail(-EPROTO, "%s in pool %s is damaged", o->kind->name, seg->name);
	else
		set_bit(o, me);
	CH_CRASH_POINT(object_attached);
	hazard_clear(seg, me, hazard, o->block);
	return rc;
}

// The first use of a handle in a forked child, or of a handle that is no good.
int object_me_slow(ch_object *o) noexcept
{
	registry_lock lock;

	if (o->me.load(relaxed) != NOBODY) // under the lock: another thread was quicker
		return static_cast<int>(o->me.load(relaxed));
	if (o->is_stale || pool_is_destroyed(o->pool))
		return object_stale(o);
	const int me = segment_join(o->pool->seg);
	const int rc = me < 0 ? me : join(o, static_cast<u32>(me));
	if (rc == -ESTALE)
		o->is_stale = true;
	if (rc < 0)
		return rc;
	o->me.store(static_cast<u32>(me), relaxed);
	return me;
}

int object_open(ch_object *o, ch_pool *pool, const object_kind &k, const descr &d) noexcept
{
	o->pool = pool;
	o->kind = &k;
	o->tag = d.generation;
	o->budget_ns.store(SPIN_MAX_NS / 2, relaxed); // not given out yet
	if (!block_find(pool->map, d.offset, o->block))
		return object_stale(o);
	const int me = pool_me(pool);
	const int rc = me < 0 ? me : join(o, static_cast<u32>(me));
	if (rc < 0)
		return rc;
	o->me.store(static_cast<u32>(me), relaxed); // not given out yet
	link_handle(o);
	return 0;
}

// Its bit keeps the object, whatever has become of that.
void object_clone(const ch_object *o, ch_object *copy) noexcept
{
	copy->pool = o->pool;
	copy->kind = o->kind;
	copy->tag = o->tag;
	copy->block = o->block;
	copy->me.store(o->me.load(relaxed), relaxed); // under the lock
	copy->pool->refs++;
	copy->pool->seg->refs++;
	link_handle(copy);
}

void object_leave(ch_object *o) noexcept
{
	const u32 me = o->me.load(relaxed); // under the lock
	const bool is_last = unlink_handle(o);

	if (!is_last || me == NOBODY)
		return;
	if (o->kind->leave)
		o->kind->leave(o, me);
	clear_bit(o, me);
	CH_CRASH_POINT(object_detached);
	object_end_if_left(o->pool->seg, *o->kind, o->block);
	object_finish(o->pool->seg, me, o->block);
}

// ---- create

int object_pool(ch_pool **pool) noexcept
{
	if (!*pool)
		return pool_default(pool);
	const int rc = pool_check(*pool);

	if (rc < 0)
		return rc;
	(*pool)->refs++;
	(*pool)->seg->refs++;
	return 0;
}

int object_alloc(ch_object *o, ch_pool *pool, const object_kind &k, u64 len) noexcept
{
	const int me = pool_me(pool);
	const int rc = me < 0 ? me : pool_alloc(pool, len, true, 0, o->block);

	if (rc < 0)
		return rc;
	o->pool = pool;
	o->kind = &k;
	o->tag = block_tag(o->block.word->load(relaxed)); // ours
	o->budget_ns.store(SPIN_MAX_NS / 2, relaxed);     // not given out yet
	o->me.store(static_cast<u32>(me), relaxed);
	std::memset(o->block.addr, 0, len); // no waiters, no hints, no flags, nobody attached
	return 0;
}

void object_publish(ch_object *o, bool ends_with_creator) noexcept
{
	object_header *h = reinterpret_cast<object_header *>(o->block.addr);
	const u32 me = o->me.load(relaxed); // ours

	h->magic = OBJECT_MAGIC;
	h->kind = o->kind->id;
	h->max_peers = o->pool->seg->max_peers;
	h->creator = ends_with_creator ? me : NOBODY;
	set_bit(o, me);
	// [B1] pairs with [B2]: the object is whole before it is one.
	o->block.word->store(block_word(o->tag, B_OBJECT, NOBODY), release);
	CH_CRASH_POINT(object_made);
	link_handle(o);
}

// ---- destroy

void object_mark_destroyed(ch_object *o) noexcept
{
	u64 w = block_word(o->tag, B_OBJECT, NOBODY);

	if (object_me(o) <= 0)
		return;
	// Our bit keeps the memory while we mark it. seq_cst: see sweep.h.
	o->block.word->compare_exchange_strong(w, block_word(o->tag, B_DYING, NOBODY), seq_cst, relaxed);
	CH_CRASH_POINT(object_dying);
	o->kind->end(o->pool->seg, o->me.load(relaxed), o->block); // ours
}

void pool_mark_destroyed(ch_segment *seg) noexcept
{
	if (pool_use(seg) < 0 || segment_join(seg) < 0)
		return;
	const u32 me = seg->me.load(relaxed); // under the lock
	shared<u64> &hazard = seg->peers[me].hazard[0];
	seg->pool.hdr->state.store(POOL_DESTROYED, release);
	for_each_block(seg->pool.map, [&](const block_place &b, u64 w) {
		if (block_state_of(w) != B_OBJECT)
			return;
		const object_kind *k = hazard_set(hazard, b, block_tag(w), true) ? object_kind_of(seg, b) : nullptr;
		if (k)
			k->end(seg, me, b);
		hazard_clear(seg, me, hazard, b);
	});
	event_wake(seg->pool.hdr->freed, EVERYBODY);
}

} // namespace ch::core

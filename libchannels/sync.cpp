// SPDX-License-Identifier: Apache-2.0
// sync.cpp - what the objects of sync.h do alike: geometry, end, wake-up, and a holder that does not let go.
#include "config.h"
#include "sync.h"

namespace ch::core {

// ---- the kind

bool sync_map(sync_view &v, u8 *at, u64 len, u32 max_peers) noexcept
{
	sync_header *h = reinterpret_cast<sync_header *>(at);

	if (len < sizeof(*h))
		return false;
	// Each is read once: a hostile peer may change it between a check and its use.
	v.nr = __atomic_load_n(&h->nr, __ATOMIC_RELAXED);
	v.flags = __atomic_load_n(&h->flags, __ATOMIC_RELAXED);
	v.limit = __atomic_load_n(&h->limit, __ATOMIC_RELAXED);
	v.spin_ns = __atomic_load_n(&h->spin_ns, __ATOMIC_RELAXED);
	v.h = h;
	v.table = reinterpret_cast<shared<u64> *>(at + sizeof(*h) + object_bits_bytes(max_peers));
	return sync_bytes(v.nr, max_peers) <= len;
}

bool sync_is_sound(u8 *at, u64 len, u32 max_peers) noexcept
{
	sync_view v;

	return sync_map(v, at, len, max_peers);
}

bool sync_open(ch_object *o) noexcept
{
	ch_sync *s = static_cast<ch_sync *>(o);
	const bool is_good = sync_map(s->v, o->block.addr, o->block.len, o->pool->seg->max_peers);

	o->spin_ns.store(s->v.spin_ns, relaxed); // a setting
	return is_good;
}

void sync_wake(ch_segment *seg, u32 as, const block_place &b) noexcept
{
	for (event &e : reinterpret_cast<sync_header *>(b.addr)->events)
		event_wake(e, EVERYBODY);
	watch_tell_all(seg, as, watch_table_of(b));
}

void sync_end(ch_segment *seg, u32 as, const block_place &b) noexcept
{
	reinterpret_cast<sync_header *>(b.addr)->is_destroyed.store(1, relaxed); // the wake-ups publish it
	sync_wake(seg, as, b);
}

void sync_leave(ch_object *o, u32 me) noexcept
{
	o->kind->sweep(o->pool->seg, o->block, me);
	sync_wake(o->pool->seg, me, o->block);
}

// ---- refusals

int sync_refuse(const ch_sync *o, int rc) noexcept
{
	const char *kind = o->kind->name, *pool = o->pool->seg->name;

	switch (rc) {
	case -EOWNERDEAD: return fail(rc, "%s in pool %s: a process died holding it", kind, pool);
	case -EDEADLK: return fail(rc, "%s in pool %s: this thread holds it already", kind, pool);
	case -EPERM: return fail(rc, "%s in pool %s: this thread does not hold it", kind, pool);
	case -EOVERFLOW: return fail(rc, "%s in pool %s: that would be too many", kind, pool);
	case -ECANCELED: return fail(rc, "%s in pool %s is broken; reset it", kind, pool);
	case -EPROTO: return fail(rc, "%s in pool %s: shared memory is damaged", kind, pool);
	case -ESTALE: return object_stale(o);
	}
	return rc; // 0, -EAGAIN, -ETIMEDOUT
}

// ---- holders

bool holder_is_nobody(const ch_sync *o, const shared<u64> &word, u64 w) noexcept
{
	return peer_of(o->pool->seg, holder_owner(w)) == 0 && word.load(relaxed) == w; // swept ones are out of the word first
}

bool holder_watch::is_gone(const ch_sync *o, u64 w) noexcept
{
	const i64 now = now_ns();

	if (w != seen) {
		seen = w;
		slice = BUSY_SLICE_NS;
		look_at = now + slice;
		return false;
	}
	if (now < look_at)
		return false;
	slice *= slice < NEVER / 4 ? 2 : 1;
	look_at = now + slice;
	const u64 id = peer_of(o->pool->seg, holder_owner(w));
	return id != 0 && !thread_is_alive(id, holder_tid(w));
}

} // namespace ch::core

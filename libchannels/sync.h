// SPDX-License-Identifier: Apache-2.0
// sync.h - what mutex, rwlock, semaphore, event, condition and barrier share.
//
// Each is one word of truth and an event to sleep on (event.h); a change of state is one compare-and-swap, or a store
// by the only thread that may make it, and whoever holds something is named in the same word. Where several hold at
// once, each is named in a word of a table. So the sweeper of a dead process finds what it held by looking, and no
// count can be left wrong. A notifier that died before its wake-up is made up for by its sweeper, who wakes everybody.
#pragma once
#include "crash.h"
#include "wait.h"
#include "watch.h"
#include <cerrno>
#include <channels/pollset.h>
#include <channels/sync.h>

namespace ch::core {

// A process's view of the words, checked once.
struct sync_view {
	sync_header *h = nullptr;
	shared<u64> *table = nullptr;
	u32 nr = 0, flags = 0, limit = 0, spin_ns = 0;
};

extern const poll_ops semaphore_ops, event_ops;

} // namespace ch::core

struct ch_sync : ch_object {
	using ch_object::ch_object;
	ch::core::sync_view v;
};
struct ch_mutex : ch_sync {};
struct ch_rwlock : ch_sync {};
struct ch_semaphore : ch_sync {
	ch_semaphore() noexcept : ch_sync(&ch::core::semaphore_ops) {}
};
struct ch_event : ch_sync {
	ch_event() noexcept : ch_sync(&ch::core::event_ops) {}
};
struct ch_condition : ch_sync {};
struct ch_barrier : ch_sync {};

namespace ch::core {

inline constexpr u64 sync_bytes(u32 nr, u32 max_peers) noexcept
{
	return sizeof(sync_header) + object_bits_bytes(max_peers) + u64{nr} * 8;
}

// ---- what struct object_kind asks, the same for all kinds
bool sync_map(sync_view &v, u8 *at, u64 len, u32 max_peers) noexcept;
bool sync_is_sound(u8 *at, u64 len, u32 max_peers) noexcept;
bool sync_open(ch_object *o) noexcept;
void sync_end(ch_segment *seg, u32 as, const block_place &b) noexcept;
void sync_wake(ch_segment *seg, u32 as, const block_place &b) noexcept;
void sync_leave(ch_object *o, u32 me) noexcept; // what its process holds goes as if it had died

constexpr object_kind sync_kind(u32 id, const char *name, void (*sweep)(ch_segment *, const block_place &, u32) noexcept,
				void (*leave)(ch_object *, u32) noexcept = sync_leave) noexcept
{
	object_kind k{};

	k.id = id;
	k.name = name;
	k.header_len = sizeof(sync_header);
	k.is_sound = sync_is_sound;
	k.open = sync_open;
	k.end = sync_end;
	k.wake = sync_wake;
	k.sweep = sweep;
	k.leave = sweep ? leave : nullptr;
	return k;
}

extern const object_kind mutex_kind, rwlock_kind, semaphore_kind, event_kind, condition_kind, barrier_kind;

// ---- create

struct sync_shape {
	u32 flags, limit, spin_ns;
	u64 word, extra; // extra[0]
	u32 max_watchers = 0;
};

// nr(max_peers) words of table.
template <class T, class Nr>
int sync_create(ch_pool *pool, const object_kind &k, const sync_shape &s, Nr nr, T **out) noexcept
{
	if (!out)
		return fail(-EINVAL, "%s: the place for the handle is NULL", k.name);
	return object_create(
		pool, k, s.flags & CH_SYNC_ENDS_WITH_CREATOR, out,
		[=](u32 max_peers) { return sync_bytes(nr(max_peers), max_peers) + watch_bytes(s.max_watchers); },
		[=](T &o) {
			sync_header *h = reinterpret_cast<sync_header *>(o.block.addr);

			h->object.nr_watches = s.max_watchers;
			h->flags = s.flags;
			h->nr = nr(o.pool->seg->max_peers);
			h->limit = s.limit;
			h->spin_ns = s.spin_ns;
			h->word.store(s.word, relaxed); // not published yet
			h->extra[0].store(s.extra, relaxed);
			for (event &e : h->events) // nobody has met them quiet yet, so the first sleeper needs no barrier
				e.v.store(EVENT_SLEEPY, relaxed);
			sync_open(&o);
		});
}

inline u32 no_table(u32) noexcept { return 0; }

// Attributes begin alike: size, flags, spin_ns.
template <class Attr> int sync_attr(const Attr *attr, Attr &a, u32 known_flags, const char *name) noexcept
{
	const int rc = read_attr(attr, &a, sizeof(a));

	if (rc < 0)
		return rc;
	return a.flags & ~(known_flags | CH_SYNC_ENDS_WITH_CREATOR) ? fail(-EINVAL, "%s: unknown flags %#x", name, a.flags) : 0;
}

// ---- use

// The owner index of this process, or a negative errno value.
inline int sync_me(ch_sync *o, const object_kind &k) noexcept
{
	return o ? object_me(o) : fail(-EINVAL, "%s: NULL", k.name);
}

inline bool sync_is_destroyed(const ch_sync *o) noexcept
{
	return o->v.h->is_destroyed.load(relaxed) != 0; // who sets it wakes everybody afterwards
}

int sync_refuse(const ch_sync *o, int rc) noexcept; // says why; rc

// The same, or -ESTALE.
inline int sync_usable(ch_sync *o, const object_kind &k) noexcept
{
	const int me = sync_me(o, k);

	return me < 0 ? me : sync_is_destroyed(o) ? sync_refuse(o, -ESTALE) : me;
}

// ---- as members of poll sets

inline watch_table sync_watchers(const ch_object *o) noexcept { return watch_table_of(o->block); }

// ---- a holder in the way (mutex, rwlock)

inline constexpr u64 HOLDER_DIED = HOLDER_FLAG;      // and nobody was told yet
inline constexpr u64 HOLDER_HOLDS = HOLDER_FLAG * 2; // rwlock: not only wants
inline constexpr u64 HOLDER_READS = HOLDER_FLAG * 4; // rwlock: a reader was told, and has not let go yet

// A word names a peer that there is. Not so: damaged. (False also when the word has changed meanwhile.)
bool holder_is_nobody(const ch_sync *o, const shared<u64> &word, u64 w) noexcept;

// Looks now and then, for a waiter, whether the thread that a word names still runs: its process does, or its sweeper
// sees to it.
class holder_watch {
	u64 seen = 0;
	i64 look_at = 0, slice = BUSY_SLICE_NS;

public:
	// True if the holder of w, which is what the caller read, ended without letting go.
	bool is_gone(const ch_sync *o, u64 w) noexcept;
};

// What is left of a timeout whose end is until_ns, for a second wait. Never CH_TRY.
inline i64 left_until(i64 until_ns) noexcept
{
	const i64 left = until_ns == NEVER ? CH_FOREVER : until_ns - now_ns();

	return until_ns != NEVER && left < 1 ? 1 : left;
}

} // namespace ch::core

#define SYNC_LIFE(name)                                                                                  \
	int ch_##name##_attach(const struct ch_descr *descr, struct ch_##name **out)                    \
	{                                                                                                \
		return ch::core::object_attach(descr, ch::core::name##_kind, out);                      \
	}                                                                                                \
	void ch_##name##_detach(struct ch_##name *o) { ch::core::object_detach(o); }                    \
	void ch_##name##_destroy(struct ch_##name *o) { ch::core::object_destroy(o); }                  \
	int ch_##name##_get_descr(const struct ch_##name *o, struct ch_descr *out_descr)                \
	{                                                                                                \
		return ch::core::object_get_descr(o, out_descr);                                        \
	}

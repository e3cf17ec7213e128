// SPDX-License-Identifier: Apache-2.0
// object.h - what lives in a block of a pool under a descriptor of its own: channels, and whatever else is shared.
//
// An object is a block of its pool. Block word: OWNED(creator) while it is formatted, OBJECT while it lives, DYING when
// it was destroyed but somebody is still attached, FINAL(p) while the last one empties it, FREE. It begins with struct
// object_header; who is attached is one bit per peer behind the header of its kind; sweep.h tells how its memory is
// kept from going early. Create, attach, detach, destroy and sweep are the same for all kinds; what differs is in
// struct object_kind.
#pragma once
#include "error.h"
#include "pool.h"
#include <new>

namespace ch::core {
struct object_kind;
struct poll_ops;
}
struct ch_pollable;
struct ch_pollset;

struct ch_object {
	explicit ch_object(const ch::core::poll_ops *p = nullptr) noexcept : poll(p) {}

	const ch::core::poll_ops *const poll; // NULL: cannot be a member of a poll set
	std::atomic<ch::core::u32> me = 0; // owner index; 0: ask object_me()
	std::atomic<ch::core::u32> spin_ns = 0;
	std::atomic<ch::core::i64> budget_ns = 0; // what adaptive spinning allows itself now
	std::atomic<ch::core::u32> nr_slept = 0;  // waits since a probe of it paid (wait.h)
	ch_pool *pool = nullptr;
	const ch::core::object_kind *kind = nullptr;
	ch::core::u64 tag = 0;
	ch::core::block_place block{};
	ch_object *next = nullptr, **link = nullptr; // in its chain of the segment's handle_table; who points at it
	bool is_stale = false;     // destroyed before this (forked) process could attach
};

namespace ch::core {

// One of an object's event words, and the CH_POLL_... bits that may become true when it is notified.
struct polled {
	event *e;
	u32 mask;
};
inline constexpr u32 MAX_POLLED = 3;

struct watch_table;
inline ch_pollable *pollable_of(ch_object *o) noexcept { return reinterpret_cast<ch_pollable *>(o); }
inline ch_object *object_of(ch_pollable *p) noexcept { return reinterpret_cast<ch_object *>(p); }
inline constexpr u32 POLL_FOR_ALL = 256; // what is so is meant for all threads that wait, one after the other

// What poll sets need of an object, or of a part of one.
struct poll_ops {
	watch_table (*watchers)(const ch_object *o) noexcept; // who may watch it
	// How many. Their masks are all that can be asked for.
	u32 (*events)(const ch_object *o, polled out[MAX_POLLED]) noexcept;
	// Which of these bits are true now, perhaps with POLL_FOR_ALL; and CH_POLL_CLOSED and CH_POLL_DESTROYED in any case.
	u32 (*look)(ch_object *o, u32 mask) noexcept;
	// What is to be the member: a handle of the set's own; with is_handle the handle itself, which leaves before it goes.
	int (*join)(ch_object *o, ch_pollset *s, ch_object **out) noexcept;
	void (*leave)(ch_object *o) noexcept;
	bool is_handle;
};

/*
 * What a kind of object can do. The functions get an object that is_sound() found sound and that is kept from going;
 * they may be called twice for the same death. leave, sweep and drain may be NULL: nothing to do.
 */
struct object_kind {
	u32 id; // enum ch_descr_kind
	const char *name;
	u64 header_len; // where the attached-peer bits begin
	// Whether len bytes at at are one, judged by its geometry.
	bool (*is_sound)(u8 *at, u64 len, u32 max_peers) noexcept;
	// Fills what a handle knows of its object. False: damaged.
	bool (*open)(ch_object *o) noexcept;
	// Destroyed: says so to everybody, and wakes everybody. as: the peer whose hazards may be used (watch.h).
	void (*end)(ch_segment *seg, u32 as, const block_place &b) noexcept;
	void (*wake)(ch_segment *seg, u32 as, const block_place &b) noexcept;
	// Gives back what a dead peer had claimed; by its elected sweeper only.
	void (*sweep)(ch_segment *seg, const block_place &b, u32 dead) noexcept;
	// The last handle of a living peer goes.
	void (*leave)(ch_object *o, u32 me) noexcept;
	// Frees what the object holds; by who has it as FINAL.
	void (*drain)(ch_segment *seg, const block_place &b, u32 me) noexcept;
	bool ends_with_last = false; // its last user is its end
};

extern const object_kind channel_kind, share_kind;

inline shared<u64> *object_bits(const object_kind &k, u8 *at) noexcept
{
	return reinterpret_cast<shared<u64> *>(at + k.header_len);
}
// The kind of the object in a block, or NULL if it is damaged.
const object_kind *object_kind_of(const ch_segment *seg, const block_place &b) noexcept;

// Ends the pool of a segment and all objects in it, for everybody. Under the registry lock.
void pool_mark_destroyed(ch_segment *seg) noexcept;

int object_me_slow(ch_object *o) noexcept;

// The owner index of this process, or a negative errno value.
inline int object_me(ch_object *o) noexcept
{
	const u32 me = o->me.load(relaxed); // set by this process before the handle was given out

	return me != NOBODY ? static_cast<int>(me) : object_me_slow(o);
}

int object_stale(const ch_object *o) noexcept; // says that it was destroyed; -ESTALE
int object_get_descr(const ch_object *o, ch_descr *out) noexcept;

// ---- the halves of the templates below; all under the registry lock

int object_pool(ch_pool **pool) noexcept; // NULL becomes the default pool; adds a reference
int object_alloc(ch_object *o, ch_pool *pool, const object_kind &k, u64 len) noexcept;
void object_publish(ch_object *o, bool ends_with_creator) noexcept;
int object_open(ch_object *o, ch_pool *pool, const object_kind &k, const descr &d) noexcept;
void object_clone(const ch_object *o, ch_object *copy) noexcept; // another handle of an attached process
void object_leave(ch_object *o) noexcept;
void object_mark_destroyed(ch_object *o) noexcept;

/*
 * object_create - an object of len(max_peers) bytes; format(handle) fills in what lies behind the object's header,
 * which is zero, and the handle's view of it.
 */
template <class T, class Len, class Format>
int object_create(ch_pool *pool, const object_kind &k, bool ends_with_creator, T **out, Len len, Format format) noexcept
{
	registry_lock lock;
	int rc = object_pool(&pool);

	if (rc < 0)
		return rc;
	T *o = new (std::nothrow) T;
	rc = o ? object_alloc(o, pool, k, len(pool->seg->max_peers)) : fail(-ENOMEM, "%s: no memory for the handle", k.name);
	if (rc < 0) {
		delete o;
		pool_unref(pool);
		return rc;
	}
	format(*o);
	object_publish(o, ends_with_creator);
	*out = o;
	return 0;
}

template <class T> int object_attach(const ch_descr *descr, const object_kind &k, T **out) noexcept
{
	ch::core::descr d;
	ch_pool *pool;
	int rc = descr_open(descr, d);

	if (rc < 0)
		return rc;
	if (!out || d.kind != k.id)
		return fail(-EINVAL, out ? "%s: the descriptor names none" : "%s: the place for the handle is NULL", k.name);
	registry_lock lock;
	rc = pool_attach(d, &pool);
	if (rc < 0)
		return rc;
	T *o = new (std::nothrow) T;
	rc = o ? object_open(o, pool, k, d) : fail(-ENOMEM, "%s: no memory for the handle", k.name);
	if (rc < 0) {
		delete o;
		pool_unref(pool);
		return rc;
	}
	*out = o;
	return 0;
}

template <class T> void object_detach(T *o) noexcept
{
	if (!o)
		return;
	registry_lock lock;
	ch_pool *pool = o->pool;

	object_leave(o);
	delete o;
	pool_unref(pool);
}

// For struct poll_ops.
template <class T> int object_join_set(ch_object *o, ch_pollset *, ch_object **out) noexcept
{
	ch_descr d;
	T *mine = nullptr;
	int rc = object_get_descr(o, &d);

	if (rc == 0)
		rc = object_attach(&d, *o->kind, &mine);
	if (rc == 0)
		*out = mine;
	return rc;
}

template <class T> void object_leave_set(ch_object *o) noexcept
{
	object_detach(static_cast<T *>(o));
}

template <class T> void object_destroy(T *o) noexcept
{
	if (!o)
		return;
	registry_lock lock;

	object_mark_destroyed(o);
	object_detach(o);
}

} // namespace ch::core

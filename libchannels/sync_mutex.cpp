// SPDX-License-Identifier: Apache-2.0
// sync_mutex.cpp - mutex and recursive mutex.
//
//   word      0: free; holder:40: held; DIED: free, and the next holder is to be told that one died
//   extra[0]  how often a recursive one was locked again; the holder's alone
//   event 0   it is free
//
// The holder of the word is the only one who changes it until its thread is proved dead.
#include "config.h"
#include "sync.h"
#include "sync_mutex.h"

namespace ch::core {

static void sweep(ch_segment *seg, const block_place &b, u32 dead) noexcept
{
	sync_view v;

	if (!sync_map(v, b.addr, b.len, seg->max_peers))
		return;
	u64 w = v.h->word.load(relaxed); // the dead one's: it does not change any more
	if (holder_owner(w) == dead && w != 0)
		v.h->word.compare_exchange_strong(w, HOLDER_DIED, release, relaxed); // [N1] pairs with [N2]
	CH_CRASH_POINT(sync_swept);
}

const object_kind mutex_kind = sync_kind(CH_DESCR_MUTEX, "mutex", sweep);

int mutex_attempt(ch_mutex *m, u64 mine) noexcept
{
	shared<u64> &word = m->v.h->word;
	u64 w = word.load(relaxed); // the CAS looks again

	if (sync_is_destroyed(m))
		return -ESTALE;
	if (holder_owner(w) == NOBODY) {
		// [N2] pairs with [N1]: what the last holder did is there.
		if (!word.compare_exchange_strong(w, mine, acquire, relaxed))
			return -EAGAIN; // somebody was quicker, and will let go
		CH_CRASH_POINT(mutex_locked);
		m->v.h->extra[0].store(0, relaxed); // ours
		return w & HOLDER_DIED ? -EOWNERDEAD : 0;
	}
	if (w != mine)
		return -EAGAIN;
	if (!(m->v.flags & CH_MUTEX_RECURSIVE))
		return -EDEADLK;
	const u64 depth = m->v.h->extra[0].load(relaxed); // ours
	if (depth >= UINT32_MAX)
		return -EOVERFLOW;
	m->v.h->extra[0].store(depth + 1, relaxed);
	return 0;
}

int mutex_wait(ch_mutex *m, u64 mine, i64 timeout_ns) noexcept
{
	shared<u64> &word = m->v.h->word;
	holder_watch watch;

	return wait_until(
		m, m->v.h->events[0], timeout_ns,
		[=, &word] {
			const int rc = mutex_attempt(m, mine);
			const u64 w = word.load(relaxed); // whoever it names is looked at
			return rc == -EAGAIN && holder_owner(w) && holder_is_nobody(m, word, w) ? -EPROTO : rc;
		},
		[=, &word] { return holder_owner(word.load(relaxed)) == NOBODY || sync_is_destroyed(m); }, // hints
		[=, &word, &watch] {
			u64 w = word.load(relaxed); // a guess whom to look at
			if (holder_owner(w) && watch.is_gone(m, w) &&
			    word.compare_exchange_strong(w, HOLDER_DIED, release, relaxed)) // [N1] pairs with [N2]
				event_wake(m->v.h->events[0], EVERYBODY); // ourselves too
			return holder_owner(w);
		});
}

void mutex_unlock(ch_mutex *m) noexcept
{
	m->v.h->word.store(0, release); // [N1] pairs with [N2]
	CH_CRASH_POINT(mutex_unlocked);
	event_notify(m->v.h->events[0], 1);
}

} // namespace ch::core

using namespace ch::core;

int ch_mutex_create(struct ch_pool *pool, const struct ch_mutex_attr *attr, struct ch_mutex **out_mutex)
{
	ch_mutex_attr a;
	const int rc = sync_attr(attr, a, CH_MUTEX_RECURSIVE, "mutex");

	return rc < 0 ? rc : sync_create(pool, mutex_kind, {a.flags, 0, a.spin_ns, 0, 0}, no_table, out_mutex);
}

SYNC_LIFE(mutex)

int ch_mutex_lock(struct ch_mutex *mutex, int64_t timeout_ns)
{
	const int me = sync_me(mutex, mutex_kind);

	if (me < 0) [[unlikely]]
		return me;
	const u64 mine = holder_word(static_cast<u32>(me), thread_self());
	int rc = mutex_attempt(mutex, mine);
	if (rc == 0) [[likely]]
		return 0;
	if (rc == -EAGAIN && timeout_ns != CH_TRY)
		rc = mutex_wait(mutex, mine, timeout_ns);
	return sync_refuse(mutex, rc);
}

int ch_mutex_unlock(struct ch_mutex *mutex)
{
	const int me = sync_me(mutex, mutex_kind);

	if (me < 0) [[unlikely]]
		return me;
	sync_header *h = mutex->v.h;
	if (h->word.load(relaxed) != holder_word(static_cast<u32>(me), thread_self())) [[unlikely]] // ours, or not
		return sync_refuse(mutex, -EPERM);
	const u64 depth = h->extra[0].load(relaxed); // ours
	if (depth > 0)
		h->extra[0].store(depth - 1, relaxed);
	else
		mutex_unlock(mutex);
	return 0;
}

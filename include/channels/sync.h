/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sync.h - mutex, read/write lock, semaphore, event, condition and barrier between threads of any processes.
 *
 * Each lives in a pool and is named by a descriptor, as a channel is. Any process may be killed at any instruction:
 * what it held is let go, whoever comes next is told by -EOWNERDEAD where that matters, and nobody waits for it.
 *
 * For all of them:
 *   create    pool NULL: the process's default pool. attr NULL: all defaults. Returns 0, or -EINVAL, -E2BIG, -ENOSPC,
 *             -EMSGSIZE, -ENOMEM, -ESTALE as ch_channel_create.
 *   attach    Returns 0, or all codes of ch_channel_attach; -EINVAL if descr names another kind of object.
 *   detach    gives the handle back. What its process holds of the object goes with the process's last handle on it,
 *             as if the process had died. NULL is a no-op. Never fails. Threads: no other call on this handle.
 *   destroy   detach, and end the object: whoever uses it or waits gets -ESTALE. NULL is a no-op. Never fails.
 *   get_descr Returns 0, or -EINVAL.
 * These do not block. Threads: safe.  Signals: unsafe.  Fork: each side keeps its own handle; what the parent holds
 * stays the parent's.
 *
 * For all calls that wait: timeout_ns is CH_TRY (then -EAGAIN instead of waiting), CH_FOREVER, or relative nanoseconds
 * (then -ETIMEDOUT). They also return -EINVAL (NULL), -ESTALE (destroyed), -EPROTO (shared memory is damaged) and, at
 * the first use in a forked child, the codes of ch_segment_attach. Threads: safe.  Signals: unsafe.
 */
#ifndef CHANNELS_SYNC_H
#define CHANNELS_SYNC_H
#include <channels/channel.h>

#ifdef __cplusplus
extern "C" {
#endif

/* flags of every attr: destroyed when the creating process ends or leaves the pool */
#define CH_SYNC_ENDS_WITH_CREATOR UINT32_C(1)

/* ---- mutex */

struct ch_mutex; /* process-local handle; opaque */

/* Every field: zero means the default. Start from CH_MUTEX_ATTR_INIT. */
struct ch_mutex_attr {
	uint32_t size;    /* sizeof(struct ch_mutex_attr) as the caller knew it */
	uint32_t flags;   /* CH_MUTEX_RECURSIVE, CH_SYNC_ENDS_WITH_CREATOR */
	uint32_t spin_ns; /* how long a handle busy-waits before it sleeps; default: adapts. CH_SPIN_NEVER, CH_SPIN_ALWAYS */
};
#define CH_MUTEX_ATTR_INIT { .size = sizeof(struct ch_mutex_attr), .flags = 0, .spin_ns = 0 }
#define CH_MUTEX_RECURSIVE UINT32_C(2) /* its holder may lock it again, and unlocks it as often */

CH_API int ch_mutex_create(struct ch_pool *pool, const struct ch_mutex_attr *attr, struct ch_mutex **out_mutex);
CH_API int ch_mutex_attach(const struct ch_descr *descr, struct ch_mutex **out_mutex);
CH_API void ch_mutex_detach(struct ch_mutex *mutex);
CH_API void ch_mutex_destroy(struct ch_mutex *mutex);
CH_API int ch_mutex_get_descr(const struct ch_mutex *mutex, struct ch_descr *out_descr);

/*
 * ch_mutex_lock - become the holder: this thread, and no other of this process or another.
 *
 * Returns 0, or -EOWNERDEAD: it is locked, and the last holder died or its thread ended without unlocking, so what the
 * mutex guards may be half done. That is told once; there is nothing else to repair. -EAGAIN, -ETIMEDOUT, -EDEADLK
 * (this thread holds it already, and it is not recursive), -EOVERFLOW (locked again 2^32 times), -EINVAL, -ESTALE,
 * -EPROTO.
 * A free mutex is taken without a system call. Not fair: who comes at the right moment is first.
 * Blocks: up to timeout_ns.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_mutex_lock(struct ch_mutex *mutex, int64_t timeout_ns);

/*
 * ch_mutex_unlock - let it go, and wake one waiter if there is one.
 *
 * Returns 0, or -EPERM (this thread does not hold it), -EINVAL, -ESTALE.
 * Blocks: no.  Threads: by the holder.  Signals: unsafe.
 */
CH_API int ch_mutex_unlock(struct ch_mutex *mutex);

/* ---- read/write lock */

struct ch_rwlock; /* process-local handle; opaque */

/* Every field: zero means the default. Start from CH_RWLOCK_ATTR_INIT. */
struct ch_rwlock_attr {
	uint32_t size;    /* sizeof(struct ch_rwlock_attr) as the caller knew it */
	uint32_t flags;   /* CH_SYNC_ENDS_WITH_CREATOR */
	uint32_t spin_ns; /* how long a handle busy-waits before it sleeps; default: adapts. CH_SPIN_NEVER, CH_SPIN_ALWAYS */
	uint32_t max_readers; /* how many threads can read at once, 1...65536; default 256 */
};
#define CH_RWLOCK_ATTR_INIT \
	{ .size = sizeof(struct ch_rwlock_attr), .flags = 0, .spin_ns = 0, .max_readers = 0 }

CH_API int ch_rwlock_create(struct ch_pool *pool, const struct ch_rwlock_attr *attr, struct ch_rwlock **out_rwlock);
CH_API int ch_rwlock_attach(const struct ch_descr *descr, struct ch_rwlock **out_rwlock);
CH_API void ch_rwlock_detach(struct ch_rwlock *rwlock);
CH_API void ch_rwlock_destroy(struct ch_rwlock *rwlock);
CH_API int ch_rwlock_get_descr(const struct ch_rwlock *rwlock, struct ch_descr *out_descr);

/*
 * ch_rwlock_lock - become the only holder. Readers that come later wait.
 *
 * Returns 0, or -EOWNERDEAD: it is locked, and the last writer died or its thread ended without unlocking; told once.
 * -EAGAIN, -ETIMEDOUT, -EDEADLK (this thread holds it already, for writing or reading), -EINVAL, -ESTALE, -EPROTO.
 * Blocks: up to timeout_ns.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_rwlock_lock(struct ch_rwlock *rwlock, int64_t timeout_ns);

/*
 * ch_rwlock_lock_shared - become one of its readers. A thread that reads already reads once more, even while a writer
 * waits.
 *
 * Returns 0, or -EOWNERDEAD: it is locked for reading, and the last writer died; told once. (A reader that cannot
 * repair what it reads unlocks and locks for writing.) -EAGAIN (also when max_readers read), -ETIMEDOUT, -EDEADLK
 * (this thread writes), -EOVERFLOW, -EINVAL, -ESTALE, -EPROTO. The death of a reader is repaired and not told.
 * Blocks: up to timeout_ns.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_rwlock_lock_shared(struct ch_rwlock *rwlock, int64_t timeout_ns);

/* ch_rwlock_unlock - let it go, as writer or as reader. Returns 0, or -EPERM (this thread does not hold it), -EINVAL,
 * -ESTALE.  Blocks: no.  Threads: by the holder.  Signals: unsafe. */
CH_API int ch_rwlock_unlock(struct ch_rwlock *rwlock);

/* ch_rwlock_downgrade - from writer to reader, with no other writer between. Returns 0, or -EPERM (this thread does not
 * write), -EAGAIN (no room for a reader at this moment; it still writes), -EINVAL, -ESTALE.  Blocks: no. */
CH_API int ch_rwlock_downgrade(struct ch_rwlock *rwlock);

/* ---- semaphore */

struct ch_semaphore; /* process-local handle; opaque */

/* Every field: zero means the default. Start from CH_SEMAPHORE_ATTR_INIT. */
struct ch_semaphore_attr {
	uint32_t size;    /* sizeof(struct ch_semaphore_attr) as the caller knew it */
	uint32_t flags;   /* CH_SEMAPHORE_UNDO, CH_SYNC_ENDS_WITH_CREATOR */
	uint32_t spin_ns; /* how long a handle busy-waits before it sleeps; default: adapts. CH_SPIN_NEVER, CH_SPIN_ALWAYS */
	uint32_t value; /* units at the beginning; default 0 */
	uint32_t limit; /* most units that may be free; default CH_SEMAPHORE_MAX */
	uint32_t max_watchers; /* poll sets it may be a member of at once, as in struct ch_channel_attr */
};
#define CH_SEMAPHORE_ATTR_INIT \
	{ .size = sizeof(struct ch_semaphore_attr), .flags = 0, .spin_ns = 0, .value = 0, .limit = 0, .max_watchers = 0 }
#define CH_SEMAPHORE_MAX  UINT32_C(16777215)
#define CH_SEMAPHORE_UNDO UINT32_C(2) /* units that a process acquired and did not release are released when it ends */

CH_API int ch_semaphore_create(struct ch_pool *pool, const struct ch_semaphore_attr *attr, struct ch_semaphore **out_semaphore);
CH_API int ch_semaphore_attach(const struct ch_descr *descr, struct ch_semaphore **out_semaphore);
CH_API void ch_semaphore_detach(struct ch_semaphore *semaphore);
CH_API void ch_semaphore_destroy(struct ch_semaphore *semaphore);
CH_API int ch_semaphore_get_descr(const struct ch_semaphore *semaphore, struct ch_descr *out_descr);

/*
 * ch_semaphore_acquire - take n units, all or none.
 *
 * With CH_SEMAPHORE_UNDO they are the process's until it releases them; at its end, however it ends, even in this
 * call, they are free again. Without, nobody holds them: what a dead process took stays taken.
 *
 * Returns 0, or -EAGAIN, -ETIMEDOUT, -EOVERFLOW (n is over the limit), -EINVAL (n is 0), -ESTALE, -EPROTO.
 * Who wants several may wait while others take single ones.
 * Blocks: up to timeout_ns.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_semaphore_acquire(struct ch_semaphore *semaphore, uint32_t n, int64_t timeout_ns);

/*
 * ch_semaphore_release - free n units, whoever took them. With CH_SEMAPHORE_UNDO first those that this process holds;
 * more are new ones.
 *
 * Returns 0, or -EOVERFLOW (more than the limit would be free; nothing is released), -EINVAL (n is 0), -ESTALE, -EPROTO.
 * Blocks: no.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_semaphore_release(struct ch_semaphore *semaphore, uint32_t n);

/*
 * ch_semaphore_wait_zero - wait until no unit is free. One that is 0 for a moment only may be missed.
 *
 * Returns 0, or -EAGAIN, -ETIMEDOUT, -EINVAL, -ESTALE.
 * Blocks: up to timeout_ns.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_semaphore_wait_zero(struct ch_semaphore *semaphore, int64_t timeout_ns);

/* ch_semaphore_get_value - how many units are free. Returns it, or -EINVAL, -ESTALE.  Blocks: no.  Threads: safe. */
CH_API int ch_semaphore_get_value(struct ch_semaphore *semaphore);

/* ---- event */

struct ch_event; /* process-local handle; opaque */

/* Every field: zero means the default. Start from CH_EVENT_ATTR_INIT. */
struct ch_event_attr {
	uint32_t size;    /* sizeof(struct ch_event_attr) as the caller knew it */
	uint32_t flags;   /* CH_EVENT_AUTO_RESET, CH_EVENT_IS_SET, CH_SYNC_ENDS_WITH_CREATOR */
	uint32_t spin_ns; /* how long a handle busy-waits before it sleeps; default: adapts. CH_SPIN_NEVER, CH_SPIN_ALWAYS */
	uint32_t max_watchers; /* poll sets it may be a member of at once, as in struct ch_channel_attr */
};
#define CH_EVENT_ATTR_INIT { .size = sizeof(struct ch_event_attr), .flags = 0, .spin_ns = 0, .max_watchers = 0 }
#define CH_EVENT_AUTO_RESET UINT32_C(2) /* one waiter goes for each set, and clears it */
#define CH_EVENT_IS_SET     UINT32_C(4) /* set at the beginning */

CH_API int ch_event_create(struct ch_pool *pool, const struct ch_event_attr *attr, struct ch_event **out_event);
CH_API int ch_event_attach(const struct ch_descr *descr, struct ch_event **out_event);
CH_API void ch_event_detach(struct ch_event *event);
CH_API void ch_event_destroy(struct ch_event *event);
CH_API int ch_event_get_descr(const struct ch_event *event, struct ch_descr *out_descr);

/*
 * ch_event_set - set it. All waiters go, now and until it is cleared; of an auto-reset event one goes. Setting a set
 * event is the same as once.
 * ch_event_clear - clear it.
 * ch_event_pulse - let everybody go who waits now, also at an auto-reset event, and leave it as it is.
 * ch_event_is_set - returns 1 or 0.
 *
 * They return 0, or -EINVAL, -ESTALE.
 * Blocks: no.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_event_set(struct ch_event *event);
CH_API int ch_event_clear(struct ch_event *event);
CH_API int ch_event_pulse(struct ch_event *event);
CH_API int ch_event_is_set(struct ch_event *event);

/*
 * ch_event_wait - wait until it is set, or until a pulse that comes after the call began.
 *
 * Returns 0, or -EAGAIN, -ETIMEDOUT, -EINVAL, -ESTALE.
 * Blocks: up to timeout_ns.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_event_wait(struct ch_event *event, int64_t timeout_ns);

/* ---- condition */

struct ch_condition; /* process-local handle; opaque */

/* Every field: zero means the default. Start from CH_CONDITION_ATTR_INIT. */
struct ch_condition_attr {
	uint32_t size;    /* sizeof(struct ch_condition_attr) as the caller knew it */
	uint32_t flags;   /* CH_SYNC_ENDS_WITH_CREATOR */
	uint32_t spin_ns; /* no meaning here: a waiter sleeps at once */
};
#define CH_CONDITION_ATTR_INIT \
	{ .size = sizeof(struct ch_condition_attr), .flags = 0, .spin_ns = 0 }

CH_API int ch_condition_create(struct ch_pool *pool, const struct ch_condition_attr *attr, struct ch_condition **out_condition);
CH_API int ch_condition_attach(const struct ch_descr *descr, struct ch_condition **out_condition);
CH_API void ch_condition_detach(struct ch_condition *condition);
CH_API void ch_condition_destroy(struct ch_condition *condition);
CH_API int ch_condition_get_descr(const struct ch_condition *condition, struct ch_descr *out_descr);

/*
 * ch_condition_wait - unlock a mutex that this thread holds, wait for a signal, lock it again. The two may lie in
 * different pools. A recursive mutex is unlocked all the way, and locked as often again. Spurious wake-ups happen:
 * look at what you wait for, again.
 *
 * Returns 0, or -ETIMEDOUT, -EOWNERDEAD (a holder of the mutex died meanwhile, as ch_mutex_lock): the mutex is locked.
 * -EAGAIN (CH_TRY), -EPERM (this thread does not hold the mutex): nothing was done. -ESTALE: one of the two was
 * destroyed; the mutex is locked unless it was itself. -EINVAL, -EPROTO.
 * A signal is never lost to a waiter that times out, or that dies.
 * Blocks: up to timeout_ns, and then for the mutex.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_condition_wait(struct ch_condition *condition, struct ch_mutex *mutex, int64_t timeout_ns);

/* ch_condition_signal - wake one waiter. ch_condition_broadcast - wake all. With or without the mutex.
 * They return 0, or -EINVAL, -ESTALE.  Blocks: no.  Threads: safe.  Signals: unsafe. */
CH_API int ch_condition_signal(struct ch_condition *condition);
CH_API int ch_condition_broadcast(struct ch_condition *condition);

/* ---- barrier */

struct ch_barrier; /* process-local handle; opaque */

/* Every field: zero means the default. Start from CH_BARRIER_ATTR_INIT. */
struct ch_barrier_attr {
	uint32_t size;    /* sizeof(struct ch_barrier_attr) as the caller knew it */
	uint32_t flags;   /* CH_BARRIER_MEMBERS, CH_SYNC_ENDS_WITH_CREATOR */
	uint32_t spin_ns; /* how long a handle busy-waits before it sleeps; default: adapts. CH_SPIN_NEVER, CH_SPIN_ALWAYS */
	uint32_t parties; /* how many have to arrive, 1...65536; no default */
};
#define CH_BARRIER_ATTR_INIT \
	{ .size = sizeof(struct ch_barrier_attr), .flags = 0, .spin_ns = 0, .parties = 0 }
#define CH_BARRIER_MEMBERS UINT32_C(2) /* the death of any process that has a handle breaks the barrier */

CH_API int ch_barrier_create(struct ch_pool *pool, const struct ch_barrier_attr *attr, struct ch_barrier **out_barrier);
CH_API int ch_barrier_attach(const struct ch_descr *descr, struct ch_barrier **out_barrier);
CH_API void ch_barrier_detach(struct ch_barrier *barrier);
CH_API void ch_barrier_destroy(struct ch_barrier *barrier);
CH_API int ch_barrier_get_descr(const struct ch_barrier *barrier, struct ch_descr *out_descr);

/*
 * ch_barrier_wait - arrive, and wait for the others. The last to arrive first runs action(arg), unless that is NULL;
 * then all go and the barrier is as new.
 *
 * A barrier breaks when a party dies in wait, when one's time is over, by ch_barrier_abort, and when an action returns
 * a negative number. Then everybody in wait returns at once, and so does every later wait until ch_barrier_reset.
 *
 * Returns the number of this arrival: 0 for the first, parties - 1 for the last. Or -EOWNERDEAD (a party died),
 * -ECANCELED (broken otherwise, or reset meanwhile), -ETIMEDOUT (this call's time is over; the barrier is broken),
 * what the action returned, -EAGAIN (CH_TRY, and others have still to come: nothing was done), -EINVAL, -ESTALE,
 * -EPROTO.
 * Blocks: up to timeout_ns.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_barrier_wait(struct ch_barrier *barrier, int (*action)(void *arg), void *arg, int64_t timeout_ns);

/*
 * ch_barrier_abort - break it.
 * ch_barrier_reset - as new; who waits gets -ECANCELED.
 * ch_barrier_is_broken - returns 1 or 0.
 * ch_barrier_count - how many have arrived; returns it.
 *
 * They return 0, or -EINVAL, -ESTALE.
 * Blocks: no.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_barrier_abort(struct ch_barrier *barrier);
CH_API int ch_barrier_reset(struct ch_barrier *barrier);
CH_API int ch_barrier_is_broken(struct ch_barrier *barrier);
CH_API int ch_barrier_count(struct ch_barrier *barrier);

/* ch_barrier_get_parties - how many have to arrive. */
CH_API uint32_t ch_barrier_get_parties(const struct ch_barrier *barrier);

#ifdef __cplusplus
}
#endif
#endif

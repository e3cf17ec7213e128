/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pollset.h - wait on thousands of channels at once, and on streams, semaphores and events beside them.
 *
 * A poll set belongs to the process that makes it; any of its threads may wait. Waiting costs the same however many of
 * the members are idle: senders and receivers tell the set which members are worth a look. Each event wakes one waiter.
 * No event is missed, whoever dies at whatever instruction. See ch_pollset(3).
 */
#ifndef CHANNELS_POLLSET_H
#define CHANNELS_POLLSET_H
#include <channels/channel.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ch_event;
struct ch_semaphore;
struct ch_stream;
struct ch_stream_port;

struct ch_pollset;  /* process-local handle; opaque */
struct ch_pollable; /* a handle that can be a member; as long as that */

/* What to wait for, and what is so. */
#define CH_POLL_IN        UINT32_C(1)  /* there is a message */
#define CH_POLL_OUT       UINT32_C(2)  /* there is room for one */
#define CH_POLL_EMPTY     UINT32_C(4)  /* there is no message */
#define CH_POLL_FULL      UINT32_C(8)  /* there is no room */
#define CH_POLL_CLOSED    UINT32_C(16) /* closed; always waited for */
#define CH_POLL_DESTROYED UINT32_C(32) /* destroyed: the handle is good for detach only; with CLOSED; always waited for */
#define CH_POLL_OUT_URGENT UINT32_C(128) /* there is room for an urgent one; only where the channel has that lane */
/* How. */
#define CH_POLL_EDGE      UINT32_C(0x10000) /* once for each change, and not again and again while it is so */
#define CH_POLL_ONESHOT   UINT32_C(0x20000) /* once, and then not before ch_pollset_modify */

struct ch_poll_event {
	uint64_t user_data; /* as it was given with the member */
	uint32_t events;    /* CH_POLL_IN ... CH_POLL_DESTROYED */
	uint32_t reserved;  /* 0 */
};

/* Every field: zero means the default. Start from CH_POLLSET_ATTR_INIT. */
struct ch_pollset_attr {
	uint32_t size;        /* sizeof(struct ch_pollset_attr) as the caller knew it */
	uint32_t max_members; /* 1...65536; default 4096. Costs a bit each in every pool that has members */
	uint32_t spin_ns;     /* how long a wait looks before it sleeps, as in struct ch_channel_attr */
	uint32_t reserved;    /* 0 */
};
#define CH_POLLSET_ATTR_INIT { .size = sizeof(struct ch_pollset_attr), .max_members = 0, .spin_ns = 0, .reserved = 0 }

/*
 * ch_pollset_create - make an empty poll set.
 *
 * attr      NULL for all defaults.
 *
 * Returns 0, or -EINVAL, -E2BIG, -ENOMEM.
 * Blocks: no.  Threads: safe.  Signals: unsafe.
 * Fork: the set stays the parent's. In the child it can be destroyed, and everything else is -EPERM: make another.
 */
CH_API int ch_pollset_create(const struct ch_pollset_attr *attr, struct ch_pollset **out_set);

/* ch_pollset_destroy - end it. Its members go on without it; threads that wait get -ECANCELED, and it returns when
 * they have left. No other call may begin. NULL is a no-op. Never fails.  Blocks: until waiters have woken. */
CH_API void ch_pollset_destroy(struct ch_pollset *set);

/*
 * ch_pollset_add - wait for events of a channel too.
 *
 * ch          stays the caller's: it may be detached while it is a member, for the set attaches for itself.
 * events      CH_POLL_IN, OUT, EMPTY, FULL in any combination, or 0 to hear of its end only; with CH_POLL_EDGE or
 *             CH_POLL_ONESHOT if wanted.
 * user_data   comes back with its events.
 *
 * What is so already is an event. The first member of a pool takes a small block of that pool.
 *
 * Returns 0, or -EINVAL, -EEXIST (a member already), -ENOSPC (the set has max_members, or as many sets watch the
 * channel as it was made for, or the pool is full), -ENOSYS (members from two pools need Linux 5.16), -ENOMEM, -ESTALE
 * (destroyed), -EPROTO, -EPERM (forked child).
 * Blocks: no.  Threads: safe, also while others wait.  Signals: unsafe.
 */
CH_API int ch_pollset_add(struct ch_pollset *set, struct ch_channel *ch, uint32_t events, uint64_t user_data);

/* ch_pollset_modify - other events, other user_data; a ONESHOT member that has fired waits again. Returns 0, or
 * -EINVAL, -ENOENT (no member), -EPERM.  Blocks, Threads, Signals: as ch_pollset_add. */
CH_API int ch_pollset_modify(struct ch_pollset *set, struct ch_channel *ch, uint32_t events, uint64_t user_data);

/* ch_pollset_remove - no more events of this channel; another thread may still be about to return one. Returns 0, or
 * -EINVAL, -ENOENT (no member), -EPERM.  Blocks, Threads, Signals: as ch_pollset_add. */
CH_API int ch_pollset_remove(struct ch_pollset *set, struct ch_channel *ch);

/*
 * ch_channel_get_pollable... - what ch_pollset_add_any and its like take of a handle; NULL of NULL. Nothing is to be given
 * back.  Blocks: no.  Threads: safe.  Signals: safe.
 */
CH_API struct ch_pollable *ch_channel_get_pollable(struct ch_channel *ch);
CH_API struct ch_pollable *ch_event_get_pollable(struct ch_event *event);
CH_API struct ch_pollable *ch_semaphore_get_pollable(struct ch_semaphore *semaphore);
CH_API struct ch_pollable *ch_stream_get_pollable(struct ch_stream *stream);
CH_API struct ch_pollable *ch_stream_port_get_pollable(struct ch_stream_port *port);

/*
 * ch_pollset_add_any, ch_pollset_modify_any, ch_pollset_remove_any - as ch_pollset_add, modify and remove, of anything
 * that can be waited for:
 *
 *   channel      as there
 *   stream       an end of a conversation: IN, OUT, EMPTY, FULL of chunks, a chunk that was read in part among them;
 *                CLOSED when it was ended, cancelled or left by either end, or one of them died
 *   stream port  IN: a conversation waits to be accepted. OUT: a stream is free
 *   semaphore    IN: a unit is free. EMPTY: none is
 *   event        IN: it is set. Without CH_EVENT_AUTO_RESET all threads that wait are told, one after the other
 *
 * A wait takes nothing: acquire, accept or wait with CH_TRY afterwards. A pulse of an event is not seen. Other events are
 * -EINVAL, and so is a buffered conversation's writer. A mutex, read/write lock, condition or barrier is no member.
 *
 * An end of a conversation can be in one set (-EEXIST, -ENOSPC). It is a member by its handle, and leaves the set when
 * that is closed; for the rule of one thread at a time these are calls of that end. -EPERM also: another process's.
 * Returns, Blocks, Threads, Signals: as there.
 */
CH_API int ch_pollset_add_any(struct ch_pollset *set, struct ch_pollable *pollable, uint32_t events,
			      uint64_t user_data);
CH_API int ch_pollset_modify_any(struct ch_pollset *set, struct ch_pollable *pollable, uint32_t events,
				 uint64_t user_data);
CH_API int ch_pollset_remove_any(struct ch_pollset *set, struct ch_pollable *pollable);

/*
 * ch_pollset_wait - wait until something is so.
 *
 * cap         events that out_events has room for, at least 1. What does not fit comes with the next call; members take
 *             turns.
 *
 * Returns how many events there are, or -EAGAIN (none, with CH_TRY), -ETIMEDOUT, -ECANCELED (the set was destroyed),
 * -EINVAL, -EPERM (forked child).
 * Blocks: up to timeout_ns.  Threads: safe; each event wakes one.  Signals: unsafe.
 */
CH_API int ch_pollset_wait(struct ch_pollset *set, struct ch_poll_event *out_events, uint32_t cap, int64_t timeout_ns);

/*
 * ch_pollset_fd - a file descriptor that is readable while the set may have events: for poll, epoll and io_uring.
 *
 * Do not read it. When it is readable, call ch_pollset_wait with CH_TRY until it returns -EAGAIN; then it is not
 * readable until the next event. Edge-triggered epoll works. The descriptor is the set's, and close-on-exec.
 * From the first call on the set has a thread, which is asleep.
 *
 * Returns the descriptor, or -EINVAL, -ENOMEM (no thread, no descriptor), -EPERM (forked child).
 * Blocks: no.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_pollset_fd(struct ch_pollset *set);

#ifdef __cplusplus
}
#endif
#endif

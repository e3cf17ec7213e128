/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel.h - bounded message channel for any number of senders and receivers in any processes.
 *
 * A channel carries whole messages, first in first out. Small ones travel in the ring, larger ones as a block
 * of the pool whose ownership moves. Any process may be killed at any instruction: what it had not finished to
 * send is as if it had not begun, what it had not finished to receive is delivered to somebody else, and nobody
 * waits for it. See channels(7) for the model and ch_channel(3) for the full contract.
 */
#ifndef CHANNELS_CHANNEL_H
#define CHANNELS_CHANNEL_H
#include <channels/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ch_channel; /* process-local handle; opaque */

/* Every field: zero means the default. Start from CH_CHANNEL_ATTR_INIT. */
struct ch_channel_attr {
	uint32_t size;       /* sizeof(struct ch_channel_attr) as the caller knew it */
	uint32_t capacity;   /* messages, 1...2^20, rounded up to a power of two of at least 2; default 1024 */
	uint32_t inline_max; /* longest message that travels in the ring, 8...4032 bytes, rounded up; default 48 */
	uint32_t spin_ns;    /* how long this handle busy-waits before it sleeps; default: adapts, and is none when
	                        the machine has one CPU. CH_SPIN_NEVER, CH_SPIN_ALWAYS */
	uint32_t flags;      /* CH_CHANNEL_ENDS_WITH_CREATOR: destroyed when the creating process ends or leaves the pool */
	uint32_t max_watchers; /* how many poll sets it may be a member of at once, up to 4096; default 8. Costs 24 bytes each */
};
#define CH_CHANNEL_ATTR_INIT \
	{ .size = sizeof(struct ch_channel_attr), .capacity = 0, .inline_max = 0, .spin_ns = 0, .flags = 0, .max_watchers = 0 }
#define CH_CHANNEL_ENDS_WITH_CREATOR UINT32_C(1)
#define CH_SPIN_NEVER  UINT32_C(0xfffffffe)
#define CH_SPIN_ALWAYS UINT32_C(0xffffffff)

/*
 * ch_channel_create - make a channel in a pool and attach to it.
 *
 * pool      NULL for the process's own default pool, made at first use with the defaults of ch_pool_create.
 * attr      NULL for all defaults.
 *
 * Returns 0, or -EINVAL, -E2BIG (attr has set bytes this library does not know), -ENOSPC (the pool has no room),
 * -EMSGSIZE (it can never have), -ENOMEM, -ESTALE (pool destroyed).
 * Blocks: no.  Threads: safe.  Signals: unsafe.  Fork: as ch_segment_attach.
 */
CH_API int ch_channel_create(struct ch_pool *pool, const struct ch_channel_attr *attr, struct ch_channel **out_ch);

/*
 * ch_channel_attach - use an existing channel. Attaches its pool too.
 *
 * Returns 0, or all codes of ch_pool_attach; -ESTALE also if the channel was destroyed, -EPROTO if its own
 * words are damaged, -EINVAL if descr names no channel.
 * Blocks: no.  Threads: safe.  Signals: unsafe.  Fork: as ch_segment_attach.
 */
CH_API int ch_channel_attach(const struct ch_descr *descr, struct ch_channel **out_ch);

/* ch_channel_detach - give the handle back. Messages in the channel stay. NULL is a no-op. Never fails.
 * Threads: no other call may use this handle. */
CH_API void ch_channel_detach(struct ch_channel *ch);

/* ch_channel_destroy - detach, and end the channel: messages in it are freed, every other user gets -ESTALE, now
 * or when it wakes. NULL is a no-op. Never fails. */
CH_API void ch_channel_destroy(struct ch_channel *ch);

/*
 * ch_channel_close - no more messages: senders get -EPIPE from now on, receivers get what was committed before
 * and then -EPIPE. Closing twice is the same as once.
 *
 * Returns 0, or -EINVAL, -ESTALE.
 * Blocks: no.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_channel_close(struct ch_channel *ch);

/* ch_channel_get_descr - its descriptor. Returns 0, or -EINVAL (NULL). */
CH_API int ch_channel_get_descr(const struct ch_channel *ch, struct ch_descr *out_descr);

/* ch_channel_get_pool - the pool it lives in; valid as long as the handle. */
CH_API struct ch_pool *ch_channel_get_pool(const struct ch_channel *ch);

/* ch_channel_set_spin - set spin_ns of this handle, as in struct ch_channel_attr. Returns 0 or -EINVAL. */
CH_API int ch_channel_set_spin(struct ch_channel *ch, uint32_t spin_ns);

/* ch_channel_get_capacity - most messages it can hold. */
CH_API uint32_t ch_channel_get_capacity(const struct ch_channel *ch);

/* ch_channel_get_inline_max - longest message, in bytes, that travels in the ring. */
CH_API uint32_t ch_channel_get_inline_max(const struct ch_channel *ch);

/* ch_channel_count - messages sent and not yet received, while others work an estimate. Returns it, or -EINVAL,
 * -ESTALE. Blocks: no.  Threads: safe. */
CH_API ssize_t ch_channel_count(struct ch_channel *ch);

/*
 * ch_channel_send - copy one message of len bytes into the channel.
 *
 * buf         may be NULL if len is 0; an empty message is a message.
 *
 * Returns 0, or -EAGAIN (full, with CH_TRY), -ETIMEDOUT, -EMSGSIZE (can never fit in the pool), -ENOSPC (the
 * pool is full, with CH_TRY), -EPIPE (closed), -ESTALE (destroyed), -EPROTO (shared memory is damaged), -EINVAL.
 * On failure nothing was sent.
 * Blocks: up to timeout_ns for room in the channel and memory in the pool together.  Threads: safe.
 * Signals: safe with CH_TRY, if no handler interrupts this thread in a call on the same pool.
 * Fork: each side keeps its own handle.
 */
CH_API int ch_channel_send(struct ch_channel *ch, const void *buf, size_t len, int64_t timeout_ns);

/*
 * ch_channel_recv - copy the oldest message out.
 *
 * cap         bytes of room in buf. A message longer than this stays.
 *
 * Returns its length in bytes, or -EAGAIN (empty, with CH_TRY), -ETIMEDOUT, -ENOBUFS (cap too small; the
 * message stays; ch_channel_take has no such limit), -EPIPE (closed and drained), -ESTALE, -EPROTO, -EINVAL.
 * Into buf are written the first len bytes of the message; if the process is killed in the call the message is
 * delivered to another receiver, whether or not buf was written.
 * Blocks, Threads, Signals, Fork: as ch_channel_send.
 */
CH_API ssize_t ch_channel_recv(struct ch_channel *ch, void *buf, size_t cap, int64_t timeout_ns);

/*
 * struct ch_message - a message that is written or read where it lies. Do not copy or move the struct: data may
 * point into it. After commit, abort or release it is empty (data is NULL).
 */
struct ch_message {
	void *data;      /* the bytes, aligned to 8 (64 if len is over the channel's inline_max) */
	size_t len;      /* how many */
	uint64_t priv[2];
	unsigned char small_[64];
};
#define CH_MESSAGE_INIT { .data = NULL, .len = 0, .priv = { 0, 0 }, .small_ = { 0 } }

/*
 * ch_channel_claim - get room for a message of up to len bytes, to be written in place.
 *
 * The room is the caller's until commit or abort, however long that takes; nobody else waits for it. It is not
 * cleared. out_msg->len is len; the room may be larger.
 *
 * Returns 0, or -ENOSPC (the pool is full, with CH_TRY), -ETIMEDOUT, -EMSGSIZE, -EPIPE, -ESTALE, -EPROTO, -EINVAL.
 * Blocks: up to timeout_ns.  Threads: safe.  Signals: unsafe.  Fork: the room stays the parent's.
 */
CH_API int ch_channel_claim(struct ch_channel *ch, size_t len, int64_t timeout_ns, struct ch_message *out_msg);

/*
 * ch_channel_commit - send what was written: msg->len bytes, which may be fewer than were claimed.
 *
 * A message that was taken from this channel, or from another in the same pool, may be committed too: it moves
 * on without a copy.
 *
 * Returns 0, or -EAGAIN (the channel is full, with CH_TRY), -ETIMEDOUT, -EMSGSIZE (len grew), -EPIPE, -ESTALE,
 * -EPROTO, -EINVAL. On failure the message is still the caller's: commit again, or abort.
 * Blocks: up to timeout_ns.  Threads: safe, one at a time for one msg.  Signals: unsafe.
 */
CH_API int ch_channel_commit(struct ch_channel *ch, struct ch_message *msg, int64_t timeout_ns);

/* ch_channel_abort - give the room back unsent. NULL or an empty msg is a no-op. Never fails. */
CH_API void ch_channel_abort(struct ch_channel *ch, struct ch_message *msg);

/*
 * ch_channel_take - receive the oldest message without copying it, to be read (or written) in place.
 *
 * It is delivered: if the process dies before the release, the message is gone and its memory returns.
 *
 * Returns 0, or -EAGAIN (empty, with CH_TRY), -ETIMEDOUT, -EPIPE, -ESTALE, -EPROTO, -EINVAL; -ENOSPC (the pool is
 * full; only for messages of over 64 bytes that travelled in the ring; the message stays).
 * Blocks: up to timeout_ns.  Threads: safe.  Signals: unsafe.  Fork: the message stays the parent's.
 */
CH_API int ch_channel_take(struct ch_channel *ch, int64_t timeout_ns, struct ch_message *out_msg);

/* ch_channel_release - done with a taken message; its memory returns. NULL or an empty msg is a no-op. Never
 * fails.  Threads: safe, any thread.  Blocks: no. */
CH_API void ch_channel_release(struct ch_channel *ch, struct ch_message *msg);

#ifdef __cplusplus
}
#endif
#endif

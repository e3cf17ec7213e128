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
	uint32_t capacity;   /* messages, 1...2^20, rounded up to a power of two; default 1024 */
	uint32_t inline_max; /* longest message that travels in the ring, 8...65520 bytes, rounded up; default 48 */
	uint32_t spin_ns;    /* how long this handle busy-waits before it sleeps; default: what wait says.
	                        CH_SPIN_NEVER, CH_SPIN_ALWAYS */
	uint32_t flags;      /* CH_CHANNEL_... */
	uint32_t max_watchers;    /* poll sets it may be a member of at once, up to 4096; default 8. 24 bytes each */
	uint32_t urgent_capacity; /* messages in the lane for urgent ones, rounded up as capacity; default 0: no lane */
	uint32_t wait;            /* how all handles wait that do not say otherwise by spin_ns: CH_WAIT_... */
};
#define CH_CHANNEL_ATTR_INIT                                                                                \
	{ .size = sizeof(struct ch_channel_attr), .capacity = 0, .inline_max = 0, .spin_ns = 0, .flags = 0, \
	  .max_watchers = 0, .urgent_capacity = 0, .wait = 0 }

/* Destroyed when the creating process ends or leaves the pool. */
#define CH_CHANNEL_ENDS_WITH_CREATOR UINT32_C(1)
/* One sender and one receiver at a time: faster. Who first sends or receives has that role, as this thread with this
 * handle, until ch_channel_unbind, detach or death; others get -EBUSY. No urgent lane, not acknowledged. */
#define CH_CHANNEL_SPSC UINT32_C(2)
/* Only with CH_CHANNEL_SPSC: when who has a role has gone, the other side gets, and a receiver only after it has drained the
 * channel, -EPIPE after a detach and -EOWNERDEAD after a death; nobody takes the role over. */
#define CH_CHANNEL_HANGS_UP UINT32_C(4)
/* A taken message stays in the channel until it is released; if its receiver dies or detaches before, it is delivered to
 * another, marked CH_MESSAGE_REDELIVERED. See ch_channel_take. */
#define CH_CHANNEL_ACKNOWLEDGED UINT32_C(8)

#define CH_WAIT_ADAPTIVE UINT32_C(0) /* spin as long as it pays, not at all when the machine has one CPU; then sleep */
#define CH_WAIT_SPIN     UINT32_C(1) /* as CH_SPIN_ALWAYS */
#define CH_WAIT_SLEEP    UINT32_C(2) /* as CH_SPIN_NEVER */
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

#define CH_ROLE_SENDER   UINT32_C(1)
#define CH_ROLE_RECEIVER UINT32_C(2)

/*
 * ch_channel_bind - take a role in a CH_CHANNEL_SPSC channel now, and not with the first send or receive.
 *
 * roles       one or both of CH_ROLE_SENDER, CH_ROLE_RECEIVER. The role is this thread's, with this handle.
 *
 * Returns 0, or -EBUSY (another process, thread or handle has it; then nothing was taken), -EPIPE, -EOWNERDEAD (the channel
 * hung up), -EINVAL (also: not such a channel), -ESTALE.
 * Blocks: no.  Threads: safe.  Signals: unsafe.  Fork: a child has no role.
 */
CH_API int ch_channel_bind(struct ch_channel *ch, uint32_t roles);

/*
 * ch_channel_unbind - give roles of this handle up, so that another thread, handle or process may take them. Called by the
 * thread that has the role, or by another when that one is in no call and will make none before it has the role again.
 *
 * Returns 0, or -EBUSY (this handle has not all of them; then none was given up), -EINVAL.
 * Blocks: no.  Signals: unsafe.
 */
CH_API int ch_channel_unbind(struct ch_channel *ch, uint32_t roles);

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
 * pool is full, with CH_TRY), -EPIPE (closed, or the receiver has gone), -EOWNERDEAD (the receiver died), -EBUSY (the
 * role of the sender is another's), -ESTALE (destroyed), -EPROTO (shared memory is damaged), -EINVAL. -EPIPE, -EOWNERDEAD
 * and -EBUSY for what is gone or another's: CH_CHANNEL_SPSC and CH_CHANNEL_HANGS_UP only. On failure nothing was sent.
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
 * message stays; ch_channel_take has no such limit), -EPIPE (closed and drained, or drained and the sender has gone),
 * -EOWNERDEAD (drained, and the sender died), -EBUSY (the role of the receiver is another's), -ESTALE, -EPROTO, -EINVAL.
 * Into buf are written the first len bytes of the message; if the process is killed in the call the message is
 * delivered to another receiver, whether or not buf was written.
 * Blocks, Threads, Signals, Fork: as ch_channel_send.
 */
CH_API ssize_t ch_channel_recv(struct ch_channel *ch, void *buf, size_t cap, int64_t timeout_ns);

/* What goes with a message beside its bytes. */
#define CH_MESSAGE_TAGGED      UINT32_C(1) /* it has a tag and a sender */
#define CH_MESSAGE_URGENT      UINT32_C(2) /* it goes, or came, by the urgent lane */
#define CH_MESSAGE_REDELIVERED UINT32_C(4) /* it was delivered before, to a receiver that did not finish with it */

/* What a sender may wait for. On one node a message is in its receiver's ring as soon as it is sent. */
#define CH_QUEUED    UINT32_C(0) /* it has left the sender's hands */
#define CH_DEPOSITED UINT32_C(1) /* it lies in the receiver's node */
#define CH_RECEIVED  UINT32_C(2) /* a receiver has it; in an acknowledged channel: has released it */

struct ch_send_attr {
	uint32_t size;       /* sizeof(struct ch_send_attr) as the caller knew it */
	uint32_t flags;      /* CH_MESSAGE_TAGGED, CH_MESSAGE_URGENT */
	uint32_t completion; /* CH_QUEUED, CH_DEPOSITED, CH_RECEIVED */
	uint32_t reserved;   /* 0 */
	uint64_t tag;        /* any value; only with CH_MESSAGE_TAGGED */
};
#define CH_SEND_ATTR_INIT { .size = sizeof(struct ch_send_attr), .flags = 0, .completion = 0, .reserved = 0, .tag = 0 }

struct ch_recv_info {
	uint32_t flags;        /* CH_MESSAGE_... */
	uint32_t reserved;     /* 0 */
	uint64_t tag;          /* 0 without CH_MESSAGE_TAGGED */
	struct ch_peer sender; /* nobody without CH_MESSAGE_TAGGED */
};

/*
 * ch_channel_send_attr - ch_channel_send with attributes.
 *
 * attr        NULL for none. With CH_MESSAGE_TAGGED the message carries attr->tag and the name of this process; 16 bytes
 *             less than inline_max then travel in the ring. With CH_MESSAGE_URGENT it goes by the urgent lane,
 *             which receivers look at first. With CH_RECEIVED the call waits until the message has been received.
 *
 * Returns 0, or all codes of ch_channel_send: nothing was sent. Or -EINPROGRESS: the message was sent, but no receipt came
 * within timeout_ns, or the channel ended before. -EINVAL also for urgent messages where there is no urgent lane.
 * Blocks, Threads, Signals, Fork: as ch_channel_send.
 */
CH_API int ch_channel_send_attr(struct ch_channel *ch, const void *buf, size_t len, const struct ch_send_attr *attr,
				int64_t timeout_ns);

/*
 * ch_channel_recv_info - ch_channel_recv, and what goes with the message.
 *
 * out_info    may be NULL.
 *
 * Returns, Blocks, Threads, Signals, Fork: as ch_channel_recv.
 */
CH_API ssize_t ch_channel_recv_info(struct ch_channel *ch, void *buf, size_t cap, int64_t timeout_ns,
				    struct ch_recv_info *out_info);

/*
 * ch_channel_peek - copy the message that would be received next, and leave it there.
 *
 * Another receiver may get the message at once; what was copied is whole in any case.
 *
 * Returns, Blocks, Threads, Signals, Fork: as ch_channel_recv_info. On -ENOBUFS some of buf may have been written. In a
 * CH_CHANNEL_SPSC channel anybody may peek, whoever has the role of the receiver.
 */
CH_API ssize_t ch_channel_peek(struct ch_channel *ch, void *buf, size_t cap, int64_t timeout_ns,
			       struct ch_recv_info *out_info);

/*
 * ch_channel_drain - receive and throw away all messages that are there now; not those that come meanwhile.
 *
 * Returns how many, or -ESTALE, -EBUSY, -EPROTO, -EINVAL.
 * Blocks: no.  Threads: safe.  Signals: unsafe.
 */
CH_API ssize_t ch_channel_drain(struct ch_channel *ch);

/* One message of a batch. */
struct ch_send_item {
	const void *buf; /* may be NULL if len is 0 */
	size_t len;
};
struct ch_recv_item {
	void *buf;
	size_t cap; /* bytes of room in buf */
	size_t len; /* of the message, when it was received */
};

/*
 * ch_channel_send_batch - send up to nr messages, cheaper than one by one.
 *
 * Each message is as if sent alone: other senders' messages may come between them, and if the process is killed in the
 * call the first so many have been sent. Waits for room until all are sent or the time is over.
 *
 * Returns how many were sent, the first ones; if none, what ch_channel_send would have returned. 0 if nr is 0.
 * Blocks, Threads, Signals, Fork: as ch_channel_send.
 */
CH_API ssize_t ch_channel_send_batch(struct ch_channel *ch, const struct ch_send_item *items, size_t nr, int64_t timeout_ns);

/*
 * ch_channel_recv_batch - receive up to nr messages: waits for the first, and takes along what else is there.
 *
 * Returns how many; the len of each is set. A message that is longer than its cap ends the batch before it and stays. If
 * none was received, what ch_channel_recv would have returned. 0 if nr is 0. If the process is killed in the call all or
 * some of the messages are delivered to others.
 * Blocks, Threads, Signals, Fork: as ch_channel_send.
 */
CH_API ssize_t ch_channel_recv_batch(struct ch_channel *ch, struct ch_recv_item *items, size_t nr, int64_t timeout_ns);

/*
 * struct ch_message - a message that is written or read where it lies. Do not copy or move the struct: data may
 * point into it. After commit, abort or release it is empty (data is NULL).
 */
struct ch_message {
	void *data;            /* the bytes, aligned to 8 (64 if len is over the channel's inline_max) */
	size_t len;            /* how many */
	uint64_t tag;          /* with CH_MESSAGE_TAGGED in flags; to be set before a commit */
	struct ch_peer sender; /* of a taken message, with CH_MESSAGE_TAGGED */
	uint32_t flags;        /* CH_MESSAGE_...; to be set before a commit */
	uint32_t reserved;
	uint64_t priv[2];
	unsigned char small_[64];
};
#define CH_MESSAGE_INIT                                                                                             \
	{ .data = NULL, .len = 0, .tag = 0, .sender = { 0 }, .flags = 0, .reserved = 0, .priv = { 0, 0 }, .small_ = { 0 } }

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
 * msg->flags and msg->tag are those of the message: CH_MESSAGE_TAGGED and CH_MESSAGE_URGENT as in ch_channel_send_attr.
 *
 * Returns 0, or -EAGAIN (the channel is full, with CH_TRY), -ETIMEDOUT, -EMSGSIZE (len grew), -EPIPE, -EOWNERDEAD, -EBUSY,
 * -ESTALE, -EPROTO, -EINVAL. On failure the message is still the caller's: commit again, or abort.
 * Blocks: up to timeout_ns.  Threads: safe, one at a time for one msg.  Signals: unsafe.
 */
CH_API int ch_channel_commit(struct ch_channel *ch, struct ch_message *msg, int64_t timeout_ns);

/* ch_channel_abort - give the room back unsent. NULL or an empty msg is a no-op. Never fails. */
CH_API void ch_channel_abort(struct ch_channel *ch, struct ch_message *msg);

/*
 * ch_channel_take - receive the oldest message without copying it, to be read (or written) in place.
 *
 * It is delivered: if the process dies before the release, the message is gone and its memory returns. In a channel
 * with CH_CHANNEL_ACKNOWLEDGED it is delivered by the release: until then it keeps its place in the channel, so that
 * senders that come round to it wait, and must only be read, not committed. If the process ends or detaches its last
 * handle before, or calls ch_channel_requeue, the message goes to another receiver, out of order and marked
 * CH_MESSAGE_REDELIVERED. So where such a channel was closed receivers wait until all messages are released, and get
 * -EPIPE then: release a message before you wait for the next.
 *
 * Returns 0, or -EAGAIN (empty, with CH_TRY), -ETIMEDOUT, -EPIPE, -EOWNERDEAD, -EBUSY, -ESTALE, -EPROTO, -EINVAL; -ENOSPC
 * (the pool is full; only for messages of over 64 bytes that travelled in the ring and are not to be acknowledged; the
 * message stays).
 * Blocks: up to timeout_ns.  Threads: safe.  Signals: unsafe.  Fork: the message stays the parent's.
 */
CH_API int ch_channel_take(struct ch_channel *ch, int64_t timeout_ns, struct ch_message *out_msg);

/* ch_channel_release - done with a taken message; its memory returns. NULL or an empty msg is a no-op. Never
 * fails.  Threads: safe, any thread.  Blocks: no. */
CH_API void ch_channel_release(struct ch_channel *ch, struct ch_message *msg);

/*
 * ch_channel_requeue - give a message taken from a CH_CHANNEL_ACKNOWLEDGED channel back, for another receiver or oneself.
 *
 * Returns 0, or -EINVAL (not such a message, or it is released already); then msg is as it was.
 * Blocks: no.  Threads: safe, any thread.  Signals: unsafe.
 */
CH_API int ch_channel_requeue(struct ch_channel *ch, struct ch_message *msg);

#ifdef __cplusplus
}
#endif
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream.h - streams: ordered conversations of any length between one writer and one reader.
 *
 * A conversation is a sequence of chunks with an explicit end. At a port any number of writers and readers meet: a
 * writer opens a conversation on one of the port's free streams, a reader accepts the next one that was opened. Two
 * processes that know each other use a stream without a port. Chunks are written and read where they lie, or copied
 * like the bytes of a file. Any process may be killed at any instruction: a reader gets what was committed and then
 * -EOWNERDEAD, never a silent short stream; a writer is told too; the stream becomes free again. ch_stream(3) has
 * the full contract.
 */
#ifndef CHANNELS_STREAM_H
#define CHANNELS_STREAM_H
#include <channels/channel.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ch_view;        /* block.h */
struct ch_stream_port; /* process-local handle; opaque */
struct ch_stream;      /* process-local handle on one end of a conversation; opaque */

/* Every field: zero means the default. Start from CH_STREAM_ATTR_INIT. */
struct ch_stream_attr {
	uint32_t size;       /* sizeof(struct ch_stream_attr) as the caller knew it */
	uint32_t nr_streams; /* conversations at a time, 1...4096; default 16. Of a port only */
	uint32_t capacity;   /* chunks on the way in each, 1...65536, rounded up to a power of two of at least 2; default 16 */
	uint32_t chunk_len;  /* bytes that ch_stream_write gathers to a chunk, 64...2^30; default 64 Ki */
	uint32_t spin_ns;    /* as in struct ch_channel_attr; also of the streams that are opened with this handle */
	uint32_t flags;      /* CH_STREAM_BUFFERED: every conversation is. Of a port only */
	uint32_t max_watchers; /* poll sets it may be a member of at once, as in struct ch_channel_attr. Of a port only */
};
#define CH_STREAM_ATTR_INIT \
	{ .size = sizeof(struct ch_stream_attr), .nr_streams = 0, .capacity = 0, .chunk_len = 0, .spin_ns = 0, .flags = 0, \
	  .max_watchers = 0 }

/* A buffered conversation is collected by its writer and shown to readers when it is complete, as one chunk. */
#define CH_STREAM_BUFFERED UINT32_C(1)

/*
 * ch_stream_port_create - make a port in a pool and attach to it.
 *
 * pool      NULL for the process's own default pool.
 * attr      NULL for all defaults.
 *
 * Returns 0, or -EINVAL, -E2BIG, -ENOSPC (the pool has no room), -EMSGSIZE (it can never have), -ENOMEM, -ESTALE.
 * Blocks: no.  Threads: safe.  Signals: unsafe.  Fork: as ch_segment_attach.
 */
CH_API int ch_stream_port_create(struct ch_pool *pool, const struct ch_stream_attr *attr,
				 struct ch_stream_port **out_port);

/*
 * ch_stream_port_attach - use an existing port. Attaches its pool too.
 *
 * Returns 0, or all codes of ch_channel_attach; -EINVAL if descr names no port.
 * Blocks: no.  Threads: safe.  Signals: unsafe.  Fork: as ch_segment_attach.
 */
CH_API int ch_stream_port_attach(const struct ch_descr *descr, struct ch_stream_port **out_port);

/* ch_stream_port_detach - give the handle back; this process's open streams go on. NULL is a no-op. Never fails. */
CH_API void ch_stream_port_detach(struct ch_stream_port *port);

/* ch_stream_port_destroy - detach, and end the port and all its conversations: everybody else gets -ESTALE, now or when
 * it wakes. NULL is a no-op. Never fails. */
CH_API void ch_stream_port_destroy(struct ch_stream_port *port);

/* ch_stream_port_get_descr - its descriptor. Returns 0, or -EINVAL (NULL). */
CH_API int ch_stream_port_get_descr(const struct ch_stream_port *port, struct ch_descr *out_descr);

/* struct ch_stream_port_stats - a picture of a moment. */
struct ch_stream_port_stats {
	uint32_t nr_streams; /* in all */
	uint32_t nr_free;    /* of no conversation */
	uint32_t nr_waiting; /* opened, and not yet accepted */
	uint32_t reserved;
};

/* ch_stream_port_get_stats - look at all streams. Returns 0, or -EINVAL, -ESTALE. Blocks: no.  Threads: safe. */
CH_API int ch_stream_port_get_stats(struct ch_stream_port *port, struct ch_stream_port_stats *out_stats);

/*
 * ch_stream_open - begin a conversation: take a free stream, and show it to readers.
 *
 * flags       0, or CH_STREAM_BUFFERED for this conversation alone: it takes a stream only when it ends.
 *
 * Returns 0, or -EAGAIN (all streams are in use, with CH_TRY), -ETIMEDOUT, -ENOMEM, -ESTALE, -EINVAL.
 * Blocks: up to timeout_ns for a free stream.  Threads: safe.  Signals: unsafe.  Fork: the stream stays the parent's.
 */
CH_API int ch_stream_open(struct ch_stream_port *port, uint32_t flags, int64_t timeout_ns,
			  struct ch_stream **out_stream);

/*
 * ch_stream_accept - become the reader of the conversation that was opened first and has none.
 *
 * A conversation that its writer cancelled or died in before it was accepted never comes; one that was complete does.
 *
 * Returns 0, or -EAGAIN (none waits, with CH_TRY), -ETIMEDOUT, -ENOMEM, -ESTALE, -EINVAL.
 * Blocks: up to timeout_ns.  Threads: safe.  Signals: unsafe.  Fork: the stream stays the parent's.
 */
CH_API int ch_stream_accept(struct ch_stream_port *port, int64_t timeout_ns, struct ch_stream **out_stream);

#define CH_STREAM_WRITER UINT32_C(0)
#define CH_STREAM_READER UINT32_C(1)

/*
 * ch_stream_create - make a stream without a port, and take one end of it.
 *
 * end       CH_STREAM_WRITER or CH_STREAM_READER. The other end is whoever attaches by the descriptor first.
 *
 * It ends by itself when both ends are closed. If the creator closes it, cancels it or dies before the other end is
 * taken it ends too, unless a writer had ended it in good order: then it waits for its reader.
 * Returns 0, or the codes of ch_stream_port_create.
 * Blocks: no.  Threads: safe.  Signals: unsafe.  Fork: the stream stays the parent's.
 */
CH_API int ch_stream_create(struct ch_pool *pool, const struct ch_stream_attr *attr, uint32_t end,
			    struct ch_stream **out_stream);

/*
 * ch_stream_attach - take the other end of a stream that ch_stream_create made.
 *
 * Returns 0, or all codes of ch_channel_attach; -EINVAL if descr names no stream, -EPERM if both ends are taken.
 * Blocks: no.  Threads: safe.  Signals: unsafe.  Fork: the stream stays the parent's.
 */
CH_API int ch_stream_attach(const struct ch_descr *descr, struct ch_stream **out_stream);

/* ch_stream_get_descr - for ch_stream_attach. Returns 0, or -EINVAL (NULL, or a stream of a port). */
CH_API int ch_stream_get_descr(const struct ch_stream *stream, struct ch_descr *out_descr);

/* ch_stream_get_pool - the pool it lives in; valid as long as the handle. */
CH_API struct ch_pool *ch_stream_get_pool(const struct ch_stream *stream);

/* ---- the writer
 *
 * All of these return -EPIPE (the reader closed or cancelled, or this end was ended), -EOWNERDEAD (the reader died),
 * -ECANCELED (this end was cancelled), -ESTALE (the port was destroyed), -EPERM (the stream is another process's, as in
 * a forked child), -EPROTO (shared memory is damaged) and -EINVAL, besides what is named at each.
 * Threads: one at a time for one stream, besides ch_stream_cancel.  Signals: unsafe.
 */

/*
 * ch_stream_write - copy len bytes into the stream. They are gathered to chunks of the port's chunk_len; what has not
 * filled one waits for more, for ch_stream_flush or ch_stream_end.
 *
 * arg         a number that the reader gets with the chunk. A change of it begins a new chunk.
 *
 * Returns how many bytes were taken, len or fewer if the time was over; or -EAGAIN (none: the lane is full, with CH_TRY),
 * -ENOSPC (none: the pool is full, with CH_TRY), -ETIMEDOUT (none), -EMSGSIZE (a chunk can never fit in the pool).
 * Blocks: up to timeout_ns for room.
 */
CH_API ssize_t ch_stream_write(struct ch_stream *stream, const void *buf, size_t len, uint64_t arg, int64_t timeout_ns);

/* ch_stream_flush - send what is gathered. Returns 0, or -EAGAIN, -ETIMEDOUT (it is still gathered). A buffered
 * conversation goes on collecting. Blocks: up to timeout_ns for room. */
CH_API int ch_stream_flush(struct ch_stream *stream, int64_t timeout_ns);

/*
 * ch_stream_claim - get room for a chunk of up to len bytes, to be written in place.
 *
 * Returns 0, or -ENOSPC (the pool is full, with CH_TRY), -ETIMEDOUT, -EMSGSIZE.
 * Blocks: up to timeout_ns for memory.  Fork: the room stays the parent's.
 */
CH_API int ch_stream_claim(struct ch_stream *stream, size_t len, int64_t timeout_ns, struct ch_message *out_msg);

/*
 * ch_stream_commit - send msg->len bytes of it as one chunk, after what was gathered before.
 *
 * msg         claimed here, or taken from this or another stream or channel of the pool: it moves on without a copy.
 * arg         the reader gets it with the chunk, which may be empty.
 *
 * Returns 0, or -EAGAIN (the lane is full, with CH_TRY), -ETIMEDOUT, -EMSGSIZE (len grew). On failure the message is
 * still the caller's.
 * Blocks: up to timeout_ns for room.
 */
CH_API int ch_stream_commit(struct ch_stream *stream, struct ch_message *msg, uint64_t arg, int64_t timeout_ns);

/* ch_stream_abort - give claimed room back unsent. NULL or an empty msg is a no-op. Never fails. */
CH_API void ch_stream_abort(struct ch_stream *stream, struct ch_message *msg);

/*
 * ch_stream_send_block - send a block of the pool as one chunk: it becomes the reader's.
 *
 * addr        what ch_pool_alloc gave. len   bytes of it.
 *
 * Returns 0, or -EAGAIN, -ETIMEDOUT, -EMSGSIZE (len is over the block's), -EPERM (the block is not this process's). On
 * failure the block is still the caller's.
 * Blocks: up to timeout_ns for room.
 */
CH_API int ch_stream_send_block(struct ch_stream *stream, void *addr, size_t len, uint64_t arg, int64_t timeout_ns);

/*
 * ch_stream_send_view - send the bytes of a view (ch_view_create) as one chunk, without a copy and without giving them
 * away: writer and reader read the same memory.
 *
 * The view stays the caller's, who keeps it until the reader has taken the chunk (ch_stream_drain). If nobody holds the
 * bytes any more when the reader comes to them it gets -EOWNERDEAD if the writer died, and -ESTALE otherwise. A buffered
 * conversation copies them.
 *
 * Returns 0, or -EAGAIN, -ETIMEDOUT; -EINVAL also if the view is of another pool.
 * Blocks: up to timeout_ns for room.
 */
CH_API int ch_stream_send_view(struct ch_stream *stream, struct ch_view *view, uint64_t arg, int64_t timeout_ns);

/* ch_stream_drain - flush, and wait until the reader has taken every chunk. Returns 0, or -EAGAIN (not yet, with CH_TRY),
 * -ETIMEDOUT; -EINVAL in a buffered conversation. Blocks: up to timeout_ns. */
CH_API int ch_stream_drain(struct ch_stream *stream, int64_t timeout_ns);

/*
 * ch_stream_end - flush, and end the conversation in good order: only after this the reader meets an end of stream.
 * Of a buffered conversation this is the moment when it is sent.
 *
 * Returns 0, also when it was ended before; or -EAGAIN, -ETIMEDOUT, -ENOSPC (it has not ended; call again).
 * Blocks: up to timeout_ns for room; of a buffered conversation for a free stream.
 */
CH_API int ch_stream_end(struct ch_stream *stream, int64_t timeout_ns);

/* ---- the reader
 *
 * All of these return, once all committed chunks are read, -EOWNERDEAD (the writer died before it ended the
 * conversation) or -ECANCELED (the writer cancelled it, or closed without an end); at once -ECANCELED (this end was
 * cancelled), -ESTALE, -EPERM, -EPROTO and -EINVAL as above.
 * Threads: one at a time for one stream, besides ch_stream_cancel.  Signals: unsafe.
 */

/*
 * ch_stream_read - copy bytes out, across the borders of chunks: as many as there are, at least one.
 *
 * out_arg     NULL, or where to put the arg of the bytes; then a read ends where it changes.
 *
 * Returns how many bytes; 0 at the end of the stream (or if cap is 0); or -EAGAIN (none yet, with CH_TRY), -ETIMEDOUT.
 * Blocks: up to timeout_ns for the first byte.
 */
CH_API ssize_t ch_stream_read(struct ch_stream *stream, void *buf, size_t cap, int64_t timeout_ns, uint64_t *out_arg);

/*
 * ch_stream_take - take the next chunk, or what a read left of it, to be read or written in place.
 *
 * out_arg     NULL, or where to put its arg.
 *
 * Returns 1, or 0 at the end of the stream; or -EAGAIN (none yet, with CH_TRY), -ETIMEDOUT. The chunk is the caller's
 * until the release, or until it is committed to a stream or channel of the pool. One that came from a view is to be
 * read only, and only to be released.
 * Blocks: up to timeout_ns.  Fork: the chunk stays the parent's.
 */
CH_API int ch_stream_take(struct ch_stream *stream, int64_t timeout_ns, struct ch_message *out_msg, uint64_t *out_arg);

/* ch_stream_release - done with a taken chunk; its memory returns. NULL or an empty msg is a no-op. Never fails.
 * Threads: safe, any thread. */
CH_API void ch_stream_release(struct ch_stream *stream, struct ch_message *msg);

/* ---- both
 *
 * ch_stream_poll - wait until a call would not have to: for the reader a chunk, the end or an error, for the writer room
 * for a chunk or an error.
 *
 * Returns 0, or -EAGAIN (with CH_TRY), -ETIMEDOUT, -EPERM, -EINVAL.
 * Blocks: up to timeout_ns.  Threads: as the calls of that end.  Signals: unsafe.
 */
CH_API int ch_stream_poll(struct ch_stream *stream, int64_t timeout_ns);

/* ch_stream_count - chunks on the way, while the other end works an estimate. Returns it, or -EINVAL, -EPERM. */
CH_API ssize_t ch_stream_count(struct ch_stream *stream);

/*
 * ch_stream_cancel - end the conversation early, from either end: the reader meets -ECANCELED after the chunks that were
 * committed, the writer -EPIPE at its next call or when it wakes, whoever uses this end -ECANCELED.
 *
 * Returns 0, also when the conversation is over; or -EPERM, -EINVAL.
 * Blocks: no.  Threads: safe, beside any call but the close.  Signals: unsafe.
 */
CH_API int ch_stream_cancel(struct ch_stream *stream);

/*
 * ch_stream_close - give this end back. A writer that has not ended the conversation cancels it, a reader that has not
 * come to the end stops the writer. In a forked child only the handle goes. NULL is a no-op. Never fails.
 * Blocks: no.  Threads: no other call may use this handle.
 */
CH_API void ch_stream_close(struct ch_stream *stream);

#ifdef __cplusplus
}
#endif
#endif

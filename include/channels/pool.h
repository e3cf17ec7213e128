/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.h - a pool of memory blocks in a segment, and the home of channels.
 *
 * Blocks come in size classes: multiples of 64 bytes from 128 to 1 KiB, then eight classes to each doubling. Every
 * block names its owner in the same word that says whether it is free, so that the blocks of a killed process
 * return to the pool. Blocks are aligned to 64 bytes and not cleared.
 *
 * A pool with a max_len grows when it is full: it reserves address space for max_len at once, which costs nothing, and gets
 * memory for more of it bit by bit. So no address changes, and every process sees the new memory without doing anything.
 */
#ifndef CHANNELS_POOL_H
#define CHANNELS_POOL_H
#include <channels/segment.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ch_pool; /* process-local handle; opaque */

/* Every field: zero means the default. Start from CH_POOL_ATTR_INIT. */
struct ch_pool_attr {
	uint32_t size;              /* sizeof(struct ch_pool_attr) as the caller knew it */
	uint32_t max_peers;         /* without segment: as in struct ch_segment_attr */
	uint64_t len;               /* without segment: bytes of the segment to make; default 16 MiB */
	struct ch_segment *segment; /* where to put the pool; default: a new segment that belongs to the pool */
	uint32_t flags;             /* without segment: as in struct ch_segment_attr, but CH_GROUP */
	uint32_t reserved;          /* 0 */
	uint64_t max_len;           /* without segment: bytes that it may grow to when it is full; default: it does not grow */
};
#define CH_POOL_ATTR_INIT                                                                                             \
	{ .size = sizeof(struct ch_pool_attr), .max_peers = 0, .len = 0, .segment = NULL, .flags = 0, .reserved = 0, \
	  .max_len = 0 }

/*
 * ch_pool_create - make a pool and attach to it.
 *
 * attr      NULL for all defaults.
 *
 * Returns 0, or -EINVAL (a segment of under 64 KiB; len, max_len, max_peers or flags together with segment; max_len
 * under len), -EEXIST (the segment has a pool), -E2BIG, -ENOMEM, and with a segment of its own all codes of ch_segment_create.
 * Blocks: no.  Threads: safe.  Signals: unsafe.  Fork: as ch_segment_attach.
 */
CH_API int ch_pool_create(const struct ch_pool_attr *attr, struct ch_pool **out_pool);

/*
 * ch_pool_attach - use an existing pool.
 *
 * descr     of the pool, or of a channel in it.
 *
 * Returns 0, or all codes of ch_segment_attach; -EPROTO also if the pool's own words are damaged.
 * Blocks: no.  Threads: safe.  Signals: unsafe.  Fork: as ch_segment_attach.
 */
CH_API int ch_pool_attach(const struct ch_descr *descr, struct ch_pool **out_pool);

/*
 * ch_pool_attach_with - the same with the flags of ch_segment_attach_with. Read-only: ch_pool_get_stats, ch_pool_get_classes
 * and ch_pool_each_block work; what changes something is -EPERM.
 *
 * Returns as ch_pool_attach and ch_segment_attach_with. Blocks, Threads, Signals, Fork: as ch_segment_attach.
 */
CH_API int ch_pool_attach_with(const struct ch_descr *descr, uint32_t flags, struct ch_pool **out_pool);

/* ch_pool_detach - give the handle back; with the last one the process leaves the segment. NULL is a no-op. */
CH_API void ch_pool_detach(struct ch_pool *pool);

/* ch_pool_destroy - detach, and end the pool: every call of others on it or its channels gives -ESTALE, and its
 * segment is destroyed if ch_pool_create made it. NULL is a no-op. Never fails. */
CH_API void ch_pool_destroy(struct ch_pool *pool);

/* ch_pool_get_descr - its descriptor. Returns 0, or -EINVAL (NULL). */
CH_API int ch_pool_get_descr(const struct ch_pool *pool, struct ch_descr *out_descr);

/*
 * ch_pool_alloc - get a block of at least len bytes.
 *
 * len         bytes, 1 or more.
 * timeout_ns  how long to wait for others to free memory.
 *
 * Returns 0, or -ENOSPC (full, with CH_TRY), -ETIMEDOUT (still full), -EMSGSIZE (len can never fit in this
 * pool), -EINVAL, -ESTALE (pool destroyed), -EPROTO (shared memory is damaged).
 * Blocks: up to timeout_ns.  Threads: safe.  Signals: unsafe.  Fork: the block stays the parent's.
 */
CH_API int ch_pool_alloc(struct ch_pool *pool, size_t len, int64_t timeout_ns, void **out_addr);

/*
 * ch_pool_free - give a block back.
 *
 * addr      what ch_pool_alloc gave; NULL is a no-op.
 *
 * Returns 0, or -EINVAL (no block begins here, or it is free already), -EPERM (it is somebody else's, or
 * belongs to a message).
 * Blocks: no.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_pool_free(struct ch_pool *pool, void *addr);

/* ch_pool_block_len - bytes of room in the block that begins at addr, or -EINVAL. Blocks: no.  Threads: safe. */
CH_API ssize_t ch_pool_block_len(struct ch_pool *pool, const void *addr);

/* struct ch_pool_stats - a picture of a moment; while others work it may be out by what they changed. */
struct ch_pool_stats {
	uint64_t len;       /* bytes that blocks can be made of; a pool that grows: so far */
	uint64_t used;      /* bytes in blocks that somebody owns, that lie in messages, or that hold channels */
	uint64_t largest;   /* bytes of the largest block that could be allocated now */
	uint64_t nr_used;   /* how many such blocks */
	uint32_t nr_peers;  /* processes attached, the caller among them */
	uint32_t nr_channels;
	uint64_t peak;      /* most bytes that were made into blocks at one time, used and free */
	uint64_t max_len;   /* bytes that len may grow to */
};

/* ch_pool_get_stats - look through the whole pool. Returns 0, -EINVAL, -ESTALE or -EPROTO. Blocks: no, but takes
 * a time proportional to the pool's size.  Threads: safe. */
CH_API int ch_pool_get_stats(struct ch_pool *pool, struct ch_pool_stats *out_stats);

/*
 * ch_pool_sweep - look for peers that died, and give back what they held: their blocks become free, messages
 * they had begun to send are dropped, messages they had begun to receive are delivered to others.
 *
 * Nobody needs to call this: each process watches its neighbour and blocking calls look too. It is for those
 * who just learnt of a death and want to go on with its traces gone: what another process has begun to give back,
 * that is waited for.
 *
 * Returns how many dead peers it swept; or -EINVAL, -ESTALE, -EPROTO, or -ETIMEDOUT: another process has not come to its
 * end with one, and is probably stopped.
 * Blocks: while others sweep, at most a second.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_pool_sweep(struct ch_pool *pool);

#ifdef __cplusplus
}
#endif
#endif

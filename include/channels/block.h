/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block.h - blocks of a pool beyond allocating and freeing them: given to another process, shared read-only by
 * several, marked with a type of the user's own, and found again.
 *
 * Whatever happens to a block is one change of its one word, so that a process may be killed at any instruction:
 * a block half given away is still the giver's and returns with it, or is already the taker's; a shared block returns
 * when the last process that holds it lets go or dies.
 */
#ifndef CHANNELS_BLOCK_H
#define CHANNELS_BLOCK_H
#include <channels/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * ch_pool_alloc_typed - ch_pool_alloc, and the block bears a type: any number of the user's but 0.
 *
 * The type takes eight bytes of the block, which ch_pool_block_len does not count.
 *
 * Returns as ch_pool_alloc; -EINVAL also if type is 0. Blocks, Threads, Signals, Fork: as ch_pool_alloc.
 */
CH_API int ch_pool_alloc_typed(struct ch_pool *pool, size_t len, uint32_t type, int64_t timeout_ns, void **out_addr);

enum ch_block_state {
	CH_BLOCK_OWNED = 1, /* by the process in owner */
	CH_BLOCK_OFFERED,   /* by the process in owner, and nobody has accepted it yet */
	CH_BLOCK_SHARED,    /* held by views */
	CH_BLOCK_MESSAGE,   /* lies in a channel */
	CH_BLOCK_OBJECT,    /* is a channel or another object */
};

/* struct ch_block_info - a block as it was a moment ago. */
struct ch_block_info {
	const void *addr;
	size_t len;           /* bytes of room */
	uint32_t type;        /* 0: it bears none */
	uint32_t state;       /* enum ch_block_state */
	struct ch_peer owner; /* owned and offered ones; 0 otherwise */
};

/*
 * ch_pool_each_block - call fn for each block in use that bears this type, of whichever process; 0: for each in use.
 *
 * fn        gets arg back; what it returns other than 0 ends the walk and is returned. It may free the block.
 *
 * Others go on meanwhile: a block that came or went during the walk may be missed.
 *
 * Returns how many fn was called for (at most INT_MAX), or what fn returned, or -EINVAL, -ESTALE.
 * Blocks: no, but takes a time proportional to the pool's size.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_pool_each_block(struct ch_pool *pool, uint32_t type,
			      int (*fn)(const struct ch_block_info *info, void *arg), void *arg);

/* struct ch_pool_class - the blocks of one size. */
struct ch_pool_class {
	uint64_t len;     /* bytes of room in each */
	uint64_t nr_used;
	uint64_t nr_free; /* made, and free for the next allocation of this size */
};

/*
 * ch_pool_get_classes - how many blocks there are of each size, smallest first; sizes without blocks are left out.
 *
 * cap       how many out_classes has room for; the rest is counted and not written.
 *
 * Returns how many sizes have blocks, or -EINVAL, -ESTALE. Blocks: as ch_pool_each_block.  Threads: safe.
 */
CH_API int ch_pool_get_classes(struct ch_pool *pool, struct ch_pool_class *out_classes, size_t cap);

/*
 * ch_block_offer - make a block ready to be taken over by whoever gets the descriptor first.
 *
 * It stays the caller's, and returns with its death, until somebody accepts it; it must not be written any more. To
 * give a block away and end, send it as a message instead (ch_channel_claim): a message outlives its sender.
 *
 * Returns 0, or -EINVAL (no block begins at addr), -EPERM (not the caller's), -ESTALE (pool destroyed).
 * Blocks: no.  Threads: safe.  Signals: unsafe.  Fork: the block stays the parent's.
 */
CH_API int ch_block_offer(struct ch_pool *pool, void *addr, struct ch_descr *out_descr);

/*
 * ch_block_accept - take over an offered block: it is the caller's as if it had allocated it.
 *
 * pool      a handle of the pool that the block lies in.
 *
 * Returns 0, or -ESTALE (accepted by another, withdrawn, or its owner died), -EINVAL (descr names no block of
 * this pool), -EPROTO (damaged descriptor), -EACCES (forged).
 * Blocks: no.  Threads: safe; exactly one accepts.  Signals: unsafe.
 */
CH_API int ch_block_accept(struct ch_pool *pool, const struct ch_descr *descr, void **out_addr);

/*
 * ch_block_withdraw - end an offer: the block is the caller's alone again.
 *
 * Returns 0, or -ESTALE (it was accepted), -EINVAL (no block begins at addr).
 * Blocks: no.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_block_withdraw(struct ch_pool *pool, void *addr);

struct ch_view; /* process-local handle on a shared block or a part of it; opaque */

/*
 * ch_view_create - share a block: from now on it is nobody's to write or to free, whoever holds a view may read it, and
 * it returns to the pool when no process holds one any more.
 *
 * addr      the block, the caller's own.
 * len       bytes to be seen, up to the block's room.
 *
 * Who holds a shared block is kept in a block of its own: about 64 bytes, and one bit for each of max_peers.
 *
 * Returns 0, or -EINVAL (no block begins at addr, or len), -EPERM (not the caller's), -ENOSPC (no room for the list of
 * holders), -ENOMEM, -ESTALE (pool destroyed). On failure the block is still the caller's.
 * Blocks: no.  Threads: safe.  Signals: unsafe.
 * Fork: the child's views are good if it uses them (ch_view_addr) before the parent lets go.
 */
CH_API int ch_view_create(struct ch_pool *pool, void *addr, size_t len, struct ch_view **out_view);

/*
 * ch_view_attach - hold a shared block by the descriptor of a view. Attaches its pool too. The view is of all that was
 * shared, whatever part the descriptor came from.
 *
 * Whoever hands a descriptor on keeps its own view until the other has attached: what nobody holds is gone.
 *
 * Returns 0, or all codes of ch_pool_attach; -ESTALE also if nobody holds it any more, -EINVAL if descr names no view.
 * Blocks: no.  Threads: safe.  Signals: unsafe.  Fork: as ch_view_create.
 */
CH_API int ch_view_attach(const struct ch_descr *descr, struct ch_view **out_view);

/*
 * ch_view_clone - another view of the same block: len bytes from byte off of this view on. It holds the block as well.
 *
 * Returns 0, or -EINVAL (the part is not within the view), -ENOMEM, -ESTALE (pool destroyed).
 * Blocks: no.  Threads: safe.  Signals: unsafe.  Fork: as ch_view_create.
 */
CH_API int ch_view_clone(struct ch_view *view, size_t off, size_t len, struct ch_view **out_view);

/* ch_view_detach - let go. With the last view of the last process the block returns to its pool. NULL is a no-op. */
CH_API void ch_view_detach(struct ch_view *view);

/* ch_view_addr - the bytes, which nobody writes while views are held; NULL in a forked child that came too late. */
CH_API const void *ch_view_addr(struct ch_view *view);

/* ch_view_len - how many bytes the view has. */
CH_API size_t ch_view_len(const struct ch_view *view);

/* ch_view_count - how many processes hold the block. Returns it, or -EINVAL, -ESTALE. */
CH_API int ch_view_count(struct ch_view *view);

/* ch_view_get_descr - a descriptor of all that was shared, also of a view that shows a part. Returns 0, or -EINVAL (NULL). */
CH_API int ch_view_get_descr(const struct ch_view *view, struct ch_descr *out_descr);

#ifdef __cplusplus
}
#endif
#endif

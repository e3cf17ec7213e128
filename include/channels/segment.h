/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment.h - named shared memory with a header that is checked, and a table of the processes that use it.
 *
 * A segment is a POSIX shared-memory object of mode 0600. All its memory is reserved and touched when it is
 * created, so that no later access can fail. A process attaches once however often it asks; handles are
 * counted. Which processes are attached is known exactly, and what a dead one held is given back (ch_pool(3)).
 */
#ifndef CHANNELS_SEGMENT_H
#define CHANNELS_SEGMENT_H
#include <channels/descr.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ch_segment; /* process-local handle; opaque */

/* Every field: zero means the default. Start from CH_SEGMENT_ATTR_INIT. */
struct ch_segment_attr {
	uint32_t size;      /* sizeof(struct ch_segment_attr) as the caller knew it */
	uint32_t max_peers; /* processes that may be attached at one time, 2...65536; default 1024 */
	uint64_t len;       /* bytes of memory for the user, rounded up to whole pages; default 16 MiB */
	const char *name;   /* letters, digits, '.', '_', '-', at most 200; default: made up and unique */
	uint32_t flags;     /* CH_ANONYMOUS: no name, so that nothing can stay behind; for forked children only */
	uint32_t reserved;  /* 0 */
};
#define CH_SEGMENT_ATTR_INIT \
	{ .size = sizeof(struct ch_segment_attr), .max_peers = 0, .len = 0, .name = NULL, .flags = 0, .reserved = 0 }
#define CH_ANONYMOUS UINT32_C(1)

/*
 * ch_segment_create - make a segment and attach to it. Its memory is zero.
 *
 * attr      NULL for all defaults.
 *
 * Returns 0, or -EINVAL (name or sizes), -E2BIG (attr has set bytes this library does not know), -EEXIST (a
 * segment has this name), -ENOSPC (no room in /dev/shm), -EACCES, -ENOMEM, or another code of shm_open(3).
 * Blocks: while the kernel clears the memory.  Threads: safe.  Signals: unsafe.  Fork: see ch_segment_attach.
 */
CH_API int ch_segment_create(const struct ch_segment_attr *attr, struct ch_segment **out_seg);

/*
 * ch_segment_attach - use an existing segment.
 *
 * descr     of the segment, or of any pool or channel in it.
 *
 * Returns 0, or -EPROTO (damaged descriptor, no segment, truncated, or of another layout version), -ESTALE
 * (destroyed, and perhaps made anew), -EACCES (forged descriptor, or no permission), -EHOSTUNREACH (it is on
 * another node), -ENOSPC (max_peers processes are attached), -EPERM (other pid namespace), -ENOMEM, -EINVAL.
 * Blocks: no.  Threads: safe.  Signals: unsafe.
 * Fork: the child's handles stay valid; at its first use of one the child becomes a peer of its own, and
 * memory that the parent holds stays the parent's.
 */
CH_API int ch_segment_attach(const struct ch_descr *descr, struct ch_segment **out_seg);

/*
 * ch_segment_attach_name - the same by the name it was created under. -ENOENT if there is none.
 */
CH_API int ch_segment_attach_name(const char *name, struct ch_segment **out_seg);

/*
 * ch_segment_detach - give the handle back. With the process's last handle its memory is unmapped and what the
 * process still held in it is freed. NULL is a no-op. Never fails.
 * Blocks: no.  Threads: no other call may use this handle.  Signals: unsafe.  Fork: each side detaches its own.
 */
CH_API void ch_segment_detach(struct ch_segment *seg);

/*
 * ch_segment_destroy - detach, and remove the segment's name. Others keep their mapping and get -ESTALE from
 * objects in it; the memory is gone with the last of them. NULL is a no-op. Never fails.
 */
CH_API void ch_segment_destroy(struct ch_segment *seg);

/* ch_segment_addr - where the user's bytes begin in this process, page-aligned. A pool made in the segment
 * takes all of them. */
CH_API void *ch_segment_addr(const struct ch_segment *seg);

/* ch_segment_len - how many bytes the user has. */
CH_API size_t ch_segment_len(const struct ch_segment *seg);

/* ch_segment_name - its name, without the leading slash; valid as long as the handle. */
CH_API const char *ch_segment_name(const struct ch_segment *seg);

/* ch_segment_get_descr - its descriptor. Returns 0, or -EINVAL (NULL). */
CH_API int ch_segment_get_descr(const struct ch_segment *seg, struct ch_descr *out_descr);

#ifdef __cplusplus
}
#endif
#endif

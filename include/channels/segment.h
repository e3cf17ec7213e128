/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment.h - named shared memory with a header that is checked, and a table of the processes that use it.
 *
 * A segment is a POSIX shared-memory object of mode 0600, or a file without a name. All its memory is reserved and, if
 * not asked otherwise, touched when it is created, so that no later access can fail. A process attaches once however
 * often it asks; handles are counted. Which processes are attached is known exactly, and what a dead one held is given
 * back (ch_pool(3)).
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
	uint32_t flags;     /* CH_ANONYMOUS, CH_HUGE_PAGES, CH_LOCKED, CH_GROUP, CH_NO_PREFAULT */
	uint32_t group;     /* with CH_GROUP: the id of a group whose members may attach too; mode 0660 */
};
#define CH_SEGMENT_ATTR_INIT \
	{ .size = sizeof(struct ch_segment_attr), .max_peers = 0, .len = 0, .name = NULL, .flags = 0, .group = 0 }
#define CH_ANONYMOUS   UINT32_C(1)  /* no name, so that nothing can stay behind: for forked children, and for processes that
				       are handed its file descriptor (ch_segment_get_fd) */
#define CH_HUGE_PAGES  UINT32_C(2)  /* huge pages if they can be had; ch_segment_get_info says what was got */
#define CH_LOCKED      UINT32_C(4)  /* locked in memory: never swapped out; a failure is an error */
#define CH_GROUP       UINT32_C(8)
#define CH_NO_PREFAULT UINT32_C(16) /* reserve the memory, but do not touch it now (attach: do not map its pages now) */
#define CH_READ_ONLY   UINT32_C(32) /* attach: look, and change nothing */
#define CH_PREFAULT    UINT32_C(64) /* attach: map all pages now; up to 64 MiB that is done anyway */

/*
 * ch_segment_create - make a segment and attach to it. Its memory is zero.
 *
 * attr      NULL for all defaults.
 *
 * Returns 0, or -EINVAL (name, sizes or flags), -E2BIG (attr has set bytes this library does not know), -EEXIST (a
 * segment has this name), -ENOSPC (no room in /dev/shm), -EACCES, -EPERM (not the caller's group; no right to lock memory),
 * -ENOMEM (also: beyond the limit of locked memory), or another code of shm_open(3), memfd_create(2) and mlock(2).
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
 * Blocks: where all places are taken and others sweep a dead one's, at most a second.  Threads: safe.  Signals: unsafe.
 * Fork: the child's handles stay valid; at its first use of one the child becomes a peer of its own, and
 * memory that the parent holds stays the parent's.
 */
CH_API int ch_segment_attach(const struct ch_descr *descr, struct ch_segment **out_seg);

/*
 * ch_segment_attach_name - the same by the name it was created under. -ENOENT if there is none.
 */
CH_API int ch_segment_attach_name(const char *name, struct ch_segment **out_seg);

/*
 * ch_segment_attach_with - the same with flags, by descriptor or by name; the other is NULL.
 *
 * flags     CH_READ_ONLY, CH_PREFAULT, CH_NO_PREFAULT, CH_LOCKED, CH_HUGE_PAGES. Read-only: the mapping cannot be written,
 *           the process takes no place among the peers, and so nobody waits for it, and what it looks at may change or
 *           be freed; every call that changes something is -EPERM. A process may have one of each kind.
 *
 * Returns as ch_segment_attach and ch_segment_attach_name, and the codes of mlock(2) with CH_LOCKED.
 * Blocks, Threads, Signals, Fork: as ch_segment_attach.
 */
CH_API int ch_segment_attach_with(const struct ch_descr *descr, const char *name, uint32_t flags,
				  struct ch_segment **out_seg);

/*
 * ch_segment_get_fd - a file descriptor of its memory, to be handed to another process (SCM_RIGHTS, or inherited), which
 * attaches by it: the only way for a process that is no child to reach a segment without a name.
 *
 * Returns the descriptor, which is the caller's to close and closes at exec, or -EINVAL, -ESTALE (its name was
 * removed), -EMFILE, -ENFILE.
 * Blocks: no.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_segment_get_fd(struct ch_segment *seg);

/*
 * ch_segment_attach_fd - use the segment that a file descriptor is of; the descriptor stays the caller's.
 *
 * flags     as in ch_segment_attach_with.
 *
 * Returns as ch_segment_attach; -EACCES also if the file could be truncated under our hands (neither sealed nor in
 * /dev/shm).
 * Blocks, Threads, Signals, Fork: as ch_segment_attach.
 */
CH_API int ch_segment_attach_fd(int fd, uint32_t flags, struct ch_segment **out_seg);

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

/* struct ch_segment_info - a segment as it was a moment ago. */
struct ch_segment_info {
	uint64_t len;        /* bytes for the user */
	uint64_t file_len;   /* bytes of the file, with its own tables */
	uint64_t backed_len; /* bytes that have memory */
	uint64_t huge_len;   /* bytes that huge pages map in this process (ch_segment_get_info) */
	struct ch_peer creator;
	uint32_t flags;      /* what was got: CH_ANONYMOUS, CH_HUGE_PAGES, CH_LOCKED, CH_GROUP, CH_READ_ONLY (get_info) */
	uint32_t max_peers;
	uint32_t nr_peers;   /* processes that attached and were not swept yet */
	uint32_t nr_alive;   /* and how many of them live */
	uint32_t is_creator_alive, is_destroyed;
	uint32_t uid, gid, mode; /* of the file */
	char name[208];
};

/* ch_segment_get_info - about a segment that is attached. Returns 0, or -EINVAL, -ESTALE, -EMFILE.
 * Blocks: no.  Threads: safe.  Signals: unsafe. */
CH_API int ch_segment_get_info(struct ch_segment *seg, struct ch_segment_info *out_info);

/*
 * ch_segment_holds - whether a process still holds all that it holds in a segment: it attached and has not detached, and
 * if it died, nobody has begun to give back what it held.
 *
 * For whoever reads memory that another process owns, without a claim on it: what was read before a call that answers yes
 * was not taken from a dead owner yet. What a living owner frees or overwrites is for the two of them to order.
 *
 * peer      the process.
 * hint      what an earlier call for this process returned, which spares a search; or 0.
 *
 * Returns the hint for the next call, which is 1 or more; or 0: no; or -EINVAL (NULL).
 * Blocks: no.  Threads: safe.  Signals: safe.  Fork: the child may call it at once.
 */
CH_API int ch_segment_holds(const struct ch_segment *seg, struct ch_peer peer, int hint);

/*
 * ch_segment_list - call fn for each named segment of this pid namespace that the caller may read.
 *
 * fn        gets arg back; what it returns other than 0 ends the walk and is returned.
 *
 * Returns how many fn was called for, or what it returned, or -EINVAL. Blocks: no.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_segment_list(int (*fn)(const struct ch_segment_info *info, void *arg), void *arg);

/*
 * ch_segment_reclaim - remove what dead jobs left: this named segment, or with NULL all, if its creator and every process that
 * was attached is dead. It never removes one that a process uses: who attaches at the same moment either keeps it
 * or gets -ESTALE. A forked child counts from its first use of a handle on.
 *
 * Returns how many it removed, or -EINVAL. Blocks: no.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_segment_reclaim(const char *name);

#ifdef __cplusplus
}
#endif
#endif

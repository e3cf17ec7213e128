/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base.h - what every public header shares: export mark, timeouts, error texts, peers.
 *
 * Every function of libchannels returns 0 or a non-negative count, or a negative errno value from the
 * table in channels(7). Outputs come last, are named out_..., and are written only on success.
 */
#ifndef CHANNELS_BASE_H
#define CHANNELS_BASE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CH_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/* Timeouts are relative nanoseconds on CLOCK_MONOTONIC. */
#define CH_TRY     ((int64_t)0)  /* never block */
#define CH_FOREVER ((int64_t)-1) /* block until done; any negative value means this */

/* ch_version - version string of the library that is loaded, e.g. "0.1.0". */
CH_API const char *ch_version(void);

/*
 * ch_errmsg - one line about the last call of this thread that failed with anything but -EAGAIN or
 * -ETIMEDOUT: which object, which peer, what to do. Never NULL; "" when nothing failed yet. Valid until the
 * thread's next failing call.
 *
 * Blocks: no.  Threads: each has its own text.  Signals: unsafe.  Fork: inherited.
 */
CH_API const char *ch_errmsg(void);

/*
 * struct ch_peer - a process, named so that a later process with the same pid is somebody else:
 * pid and start time in one word. 0 names nobody. May be stored in shared memory and sent in messages.
 */
struct ch_peer {
	uint64_t id;
};

/* ch_peer_self - the name of the calling process. Never fails. */
CH_API struct ch_peer ch_peer_self(void);

/* ch_peer_pid - the process id in a peer's name; 0 for nobody. */
CH_API pid_t ch_peer_pid(struct ch_peer peer);

/*
 * ch_peer_is_alive - whether that process still runs.
 *
 * Returns 1, or 0: every thread of it is gone for good (a zombie counts as gone).
 * Costs about ten microseconds: for slow paths. Blocks: no.  Threads: safe.  Signals: safe.  Fork: safe.
 */
CH_API int ch_peer_is_alive(struct ch_peer peer);

#ifdef __cplusplus
}
#endif
#endif

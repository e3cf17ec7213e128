/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spawn.h - child processes from a clean parent.
 *
 * A spawner is a small process, forked from the caller when the spawner is created, that forks again on request.
 * Children so begin with the memory the caller had at that moment and with one thread, however many threads
 * the caller starts later; no signal handler and no wait() of the application is involved. When the
 * process that created the spawner ends, however it ends, the spawner and all its children are killed. Segments that
 * a child or, if it was killed, the creator had made lose their names when it ends: nothing is left in /dev/shm. The
 * spawner and its children have a process group of their own, so that a signal to the creator's (^C, a batch system's
 * kill) reaches the creator only, and the others through its end.
 */
#ifndef CHANNELS_SPAWN_H
#define CHANNELS_SPAWN_H
#include <channels/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ch_spawner; /* process-local handle; opaque */

/* What a child runs: its return value is the exit status. arg points to a private copy of len bytes. */
typedef int (*ch_spawn_fn)(const void *arg, size_t len);

/* How a child ended. */
struct ch_exit {
	struct ch_peer peer; /* who */
	uint64_t cookie;     /* as given to ch_spawner_spawn */
	int status;          /* as waitpid(2) reports it: WIFEXITED(status), WTERMSIG(status)... */
};

/*
 * ch_spawner_create - fork the spawner process.
 *
 * Create it before the first thread where possible: the fork copies the caller as it is.
 *
 * Returns 0, or -EAGAIN, -ENOMEM, -EMFILE (as fork(2), socketpair(2), pidfd_open(2), signalfd(2)), -EINVAL.
 * Blocks: no.  Threads: safe.  Signals: unsafe.  Fork: the handle is the creator's alone; -EPERM in a child.
 */
CH_API int ch_spawner_create(struct ch_spawner **out_sp);

/*
 * ch_spawner_spawn - start a child that calls fn(arg, len) and exits with its result.
 *
 * fn        a function of the program or of a library that was loaded when the spawner was created.
 * len       at most 64 KiB.
 * cookie    the caller's own mark for the child, given back in struct ch_exit.
 *
 * Returns 0 and the child's name, or -EAGAIN, -ENOMEM (as fork(2)), -EMSGSIZE (len), -EPIPE (the spawner is
 * gone), -EINVAL, -EPERM.
 * Blocks: until the child is forked.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_spawner_spawn(struct ch_spawner *sp, ch_spawn_fn fn, const void *arg, size_t len, uint64_t cookie,
			    struct ch_peer *out_peer);

/*
 * ch_spawner_spawn_many - start nr children without waiting for each.
 *
 * args          nr arguments of len bytes each, one behind the other.
 * first_cookie  of the first child; the next has one more, and so on.
 * out_peers     room for nr names. Written in any case but -EINVAL, -EMSGSIZE, -EPERM and -EPIPE: one that was not
 *               started has the name 0. After the first that could not be started no more are asked for, but some
 *               behind it may have been started.
 *
 * Returns 0 if all were started, or why one was not, as ch_spawner_spawn.
 * Blocks: until all are forked.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_spawner_spawn_many(struct ch_spawner *sp, ch_spawn_fn fn, const void *args, size_t len,
				 uint64_t first_cookie, size_t nr, struct ch_peer *out_peers);

/*
 * ch_spawner_wait - learn of a child's end. Each is reported once.
 *
 * Returns 0, or -EAGAIN (none ended, with CH_TRY), -ETIMEDOUT, -EPIPE (the spawner was killed, and with it every
 * child), -ECANCELED (the spawner is being destroyed), -EINVAL, -EPERM.
 * Blocks: up to timeout_ns.  Threads: safe.  Signals: unsafe.
 */
CH_API int ch_spawner_wait(struct ch_spawner *sp, int64_t timeout_ns, struct ch_exit *out_exit);

/*
 * ch_spawner_cancel - make every ch_spawner_wait, now and later, return -ECANCELED. Never fails.
 */
CH_API void ch_spawner_cancel(struct ch_spawner *sp);

/*
 * ch_spawner_destroy - kill the children that still run (SIGKILL), wait until they are gone, end the spawner. NULL
 * is a no-op. Never fails.  Threads: no other call may use the handle.
 */
CH_API void ch_spawner_destroy(struct ch_spawner *sp);

#ifdef __cplusplus
}
#endif
#endif

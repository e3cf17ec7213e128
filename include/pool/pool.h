/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.h - pools of worker processes for C and other languages: tasks are functions by name, from bytes to bytes.
 *
 * A function is known by the name under which it was registered before the pool was made, or as "LIBRARY:SYMBOL": then each
 * worker loads that library with dlopen(3) when it first needs it, whenever it was built.
 */
#ifndef POOL_POOL_H
#define POOL_POOL_H
#include <channels/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct chp_pool; /* opaque */
struct chp_task;
struct chp_result;

/* Runs in a worker. Returns 0, or a positive errno value: the task failed. */
typedef int (*chp_fn)(const void *in, size_t len, struct chp_result *out);

/*
 * chp_result_space - memory for exactly len bytes of result, sent from where they lie; at most once a task. NULL: no memory.
 */
CH_API void *chp_result_space(struct chp_result *out, size_t len);

/* chp_register - name a function of this process, for pools that are made later. Returns 0, -EEXIST, -EINVAL, -ENOMEM. */
CH_API int chp_register(const char *name, chp_fn fn);

/*
 * chp_create - make a pool.
 *
 * workers     0: as many as CPUs that this process may use.
 *
 * Returns 0, or a negative errno value as ch_pool_create and ch_spawner_create do.
 */
CH_API int chp_create(unsigned workers, struct chp_pool **out_pool);

/* chp_destroy - end it now: what waits or runs fails with -ECANCELED. NULL is a no-op. */
CH_API void chp_destroy(struct chp_pool *pool);

/*
 * chp_submit - have a worker run a function.
 *
 * Returns 0 and the task, or -EINVAL, -EMSGSIZE (can never fit), -EPIPE (the pool gave up), -EPERM (of another process),
 * -ENOSPC, -ENOMEM.
 * Blocks: while too many tasks are under way.  Threads: safe.
 */
CH_API int chp_submit(struct chp_pool *pool, const char *name, const void *in, size_t len, struct chp_task **out_task);

/*
 * chp_wait - wait for a task.
 *
 * out_data, out_len   its result, valid until chp_release.
 *
 * Returns 0, or -ETIMEDOUT; or why it failed, with a text from chp_error: -ENOENT (no such function), -ECANCELED, -EPIPE,
 * -EOWNERDEAD (its worker died, as often as it was tried), what the function returned, negative; -EIO for anything else.
 * Threads: one at a time for a task.
 */
CH_API int chp_wait(struct chp_task *task, int64_t timeout_ns, const void **out_data, size_t *out_len);

/* chp_error - why chp_wait failed, in words; "" if it did not. Valid until chp_release. */
CH_API const char *chp_error(const struct chp_task *task);

/* chp_cancel - take it back. Returns 1 if it never runs, 0 if it was too late. */
CH_API int chp_cancel(struct chp_task *task);

/* chp_release - done with a task; if it is not over it runs on. NULL is a no-op. */
CH_API void chp_release(struct chp_task *task);

#ifdef __cplusplus
}
#endif
#endif

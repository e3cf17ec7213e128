/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ddict.h - the dictionary of libddict from C: create, attach, and every operation, on bytes.
 *
 * Every function returns 0 or a non-negative count, or a negative errno value; ch_ddict_errmsg() says what about the
 * thread's last failure. Outputs come last, are named out_..., and are written only on success. What the operations do
 * and promise is in libddict(7); what they return, in ch_ddict(3).
 *
 * All functions may be called by any number of threads at a time, also on one handle, but for those that say
 * otherwise; none from a signal handler. A handle that was inherited over fork(2) can be used by the child. Calls wait
 * as long as ch_ddict_set_timeout says: -ETIMEDOUT. Any call on a dictionary may return -EINVAL, -ENOMEM, -ESTALE (it was
 * destroyed), -EOWNERDEAD and -EHOSTUNREACH (a manager died), -EPROTO (shared memory is damaged), -ERANGE (the handle's
 * checkpoint has retired), and if it writes -EPERM (frozen or read only) and -ENOSPC (full).
 */
#ifndef DDICT_DDICT_H
#define DDICT_DDICT_H
#include <channels/descr.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ch_ddict;        /* a handle; opaque */
struct ch_ddict_view;   /* a value, where it lies; opaque */
struct ch_ddict_call;   /* a call under way; opaque */
struct ch_ddict_cursor; /* a walk; opaque */
struct ch_ddict_writer; /* a value that is written in pieces; opaque */
struct ch_ddict_visit;  /* what a function sees that runs next to the data; opaque */

enum { CH_DDICT_REFUSE = 0, CH_DDICT_WAIT = 1, CH_DDICT_EVICT = 2 }; /* what a put does when memory is full */

/* Where managers run, and their memory lies: wherever the creator may; each on a CPU, one NUMA node after the other; or
 * over as many nodes as there are, in turn. */
enum { CH_DDICT_ANYWHERE = 0, CH_DDICT_COMPACT = 1, CH_DDICT_SPREAD = 2 };

#define CH_DDICT_WAIT_FOR_KEYS    UINT32_C(1)
#define CH_DDICT_WAIT_FOR_WRITERS UINT32_C(2)
#define CH_DDICT_READ_ONLY        UINT32_C(4)
#define CH_DDICT_LOG              UINT32_C(8)  /* what is written goes to a log too, for ch_ddict_flush */
#define CH_DDICT_RESTORE          UINT32_C(16) /* begin with what restore_from says */
#define CH_DDICT_RESTART          UINT32_C(32) /* begin with what ch_ddict_destroy_for_restart kept under this name */

/* For restore_from, instead of a checkpoint's number. */
#define CH_DDICT_NEWEST   (UINT64_MAX - 1) /* the checkpoint that was persisted last */
#define CH_DDICT_FROM_LOG (UINT64_MAX - 2) /* what the log says */

/* Every field: zero means the default. Start from CH_DDICT_ATTR_INIT. */
struct ch_ddict_attr {
	uint32_t size;        /* sizeof(struct ch_ddict_attr) as the caller knew it */
	uint32_t managers;    /* processes that hold the data; default: half of the CPUs, 1 to 4 */
	uint64_t memory;      /* bytes for keys and values; default 32 MiB */
	const char *name;     /* as in ch_segment_create; default: made up */
	uint32_t max_clients; /* processes that use it at one time; default 128 */
	uint32_t when_full;   /* CH_DDICT_REFUSE... */
	uint64_t working_set; /* checkpoints held at a time; default 1 */
	uint32_t flags;       /* CH_DDICT_WAIT_FOR_KEYS... */
	uint32_t replicas;    /* 1 or 2; default 1 */
	uint64_t max_memory;  /* bytes that memory may grow to when it is full; default: it does not grow */
	const char *persist_path; /* a directory for its files and nothing else; default: none */
	uint64_t persist_freq;    /* checkpoints whose number it divides are persisted when they retire; default: none */
	uint64_t persist_count;   /* persisted checkpoints that are kept; default: all */
	uint64_t restore_from;    /* with CH_DDICT_RESTORE */
	const char *cpus;         /* "0-3,8;4-7": where the first manager runs, the second...; then again. Default: placement */
	uint32_t placement;       /* CH_DDICT_ANYWHERE... */
	uint32_t reserved;        /* 0 */
};
#define CH_DDICT_ATTR_INIT \
	{ .size = sizeof(struct ch_ddict_attr), .managers = 0, .memory = 0, .name = NULL, .max_clients = 0, \
	  .when_full = 0, .working_set = 0, .flags = 0, .replicas = 0, .max_memory = 0, \
	  .persist_path = NULL, .persist_freq = 0, .persist_count = 0, .restore_from = 0, .cpus = NULL, .placement = 0, \
	  .reserved = 0 }

/* How a value is put; NULL for all defaults. */
struct ch_ddict_put_attr {
	uint32_t size;
	uint32_t is_persistent; /* it need not be written again at each checkpoint */
	int64_t ttl_ns;         /* the key expires so long after it was put; 0: never */
};
#define CH_DDICT_PUT_ATTR_INIT { .size = sizeof(struct ch_ddict_put_attr), .is_persistent = 0, .ttl_ns = 0 }

/* ch_ddict_errmsg - one line about the last call of this thread that failed. Never NULL. */
CH_API const char *ch_ddict_errmsg(void);

/*
 * ch_ddict_create - bring a dictionary into the world: its managers are forked from this process.
 *
 * attr  NULL for all defaults.
 *
 * Returns 0, or -EINVAL, -E2BIG, -EEXIST (the name), -ENOSPC (no room in /dev/shm), -ENOMEM, -EAGAIN (as fork(2)),
 * -EMFILE, -EOWNERDEAD (a manager could not begin, and said why on stderr). Nothing is left then.
 * Blocks: until the managers run.
 */
CH_API int ch_ddict_create(const struct ch_ddict_attr *attr, struct ch_ddict **out_dict);
/* ch_ddict_attach - use an existing one, by descriptor. Returns 0, or as ch_segment_attach, -ENOSPC (max_clients). */
CH_API int ch_ddict_attach(const struct ch_descr *descr, struct ch_ddict **out_dict);
/* ch_ddict_attach_name - the same by name. -ENOENT if there is none. */
CH_API int ch_ddict_attach_name(const char *name, struct ch_ddict **out_dict);
/* ch_ddict_copy - another handle to the same dictionary, with settings of its own. */
CH_API int ch_ddict_copy(const struct ch_ddict *dict, struct ch_ddict **out_dict);
/* ch_ddict_detach - give the handle back. With the creator's last one the dictionary ends. NULL is a no-op. Never
 * fails.  Threads: no other call may use the handle. */
CH_API void ch_ddict_detach(struct ch_ddict *dict);
/* ch_ddict_destroy - detach, and end the dictionary if this process created it. NULL is a no-op. Never fails. */
CH_API void ch_ddict_destroy(struct ch_ddict *dict);
/*
 * ch_ddict_destroy_for_restart - the same, but what it holds stays in shared memory under its name, for a dictionary that
 * is created with CH_DDICT_RESTART, or until ch_ddict_drop_kept.
 *
 * Returns 0, and the handle is gone; or -EINVAL (not by its creator), -EEXIST (something is kept under this name),
 * -ENOSPC, -EOWNERDEAD, and dictionary and handle go on.  Blocks: until all is kept.  Threads: no other call may use it.
 */
CH_API int ch_ddict_destroy_for_restart(struct ch_ddict *dict);
/* ch_ddict_drop_kept - remove what was kept under this name. Returns 1, or 0 if nothing was. */
CH_API int ch_ddict_drop_kept(const char *name);
/* ch_ddict_get_descr - its descriptor. */
CH_API int ch_ddict_get_descr(const struct ch_ddict *dict, struct ch_descr *out_descr);
/* ch_ddict_count_managers - how many managers it has. */
CH_API int ch_ddict_count_managers(const struct ch_ddict *dict);
/* ch_ddict_which_manager - the number of a key's manager. */
CH_API int ch_ddict_which_manager(const struct ch_ddict *dict, const void *key, size_t klen);
/* ch_ddict_set_timeout - how long each later call through this handle may take. Threads: no other call may use it. */
CH_API int ch_ddict_set_timeout(struct ch_ddict *dict, int64_t timeout_ns);
/* ch_ddict_set_manager - ask this manager for everything, or with -1, each key's. Threads: as above. */
CH_API int ch_ddict_set_manager(struct ch_ddict *dict, int manager);

/* ch_ddict_put - set a key's value. */
CH_API int ch_ddict_put(struct ch_ddict *dict, const void *key, size_t klen, const void *value, size_t vlen,
			const struct ch_ddict_put_attr *attr);
/* ch_ddict_put_if_absent - returns 1 if it was put, 0 if the key was there. */
CH_API int ch_ddict_put_if_absent(struct ch_ddict *dict, const void *key, size_t klen, const void *value, size_t vlen,
				  const struct ch_ddict_put_attr *attr);
/* ch_ddict_compare_and_set - returns 1 if the expected value was there and the other was put, else 0. */
CH_API int ch_ddict_compare_and_set(struct ch_ddict *dict, const void *key, size_t klen, const void *expected,
				    size_t expected_len, const void *value, size_t vlen);
/* ch_ddict_get - copy the value out. Returns its length; -ENOENT (no such key), -ENOBUFS (longer than cap; nothing is
 * written). */
CH_API ssize_t ch_ddict_get(struct ch_ddict *dict, const void *key, size_t klen, void *buf, size_t cap);
/* ch_ddict_pop - as get, and erases the key. Of a value longer than cap, the first cap bytes are written. */
CH_API ssize_t ch_ddict_pop(struct ch_ddict *dict, const void *key, size_t klen, void *buf, size_t cap);
/* ch_ddict_pop_item - pop some key. Returns the length of its value, as ch_ddict_pop; -ENOENT if there is none, -ENOBUFS (the
 * key is longer than kcap: it stays). */
CH_API ssize_t ch_ddict_pop_item(struct ch_ddict *dict, void *key, size_t kcap, size_t *out_klen, void *buf, size_t cap);
/* ch_ddict_contains, ch_ddict_erase - return 1 if the key was there, else 0. */
CH_API int ch_ddict_contains(struct ch_ddict *dict, const void *key, size_t klen);
CH_API int ch_ddict_erase(struct ch_ddict *dict, const void *key, size_t klen);
/* ch_ddict_append - put more behind a value. Returns the new length. */
CH_API ssize_t ch_ddict_append(struct ch_ddict *dict, const void *key, size_t klen, const void *more, size_t len);
/* ch_ddict_fetch_add_i64, ch_ddict_fetch_add_f64 - add to a number of 8 bytes. -EINVAL if the value is none. */
CH_API int ch_ddict_fetch_add_i64(struct ch_ddict *dict, const void *key, size_t klen, int64_t delta, int64_t *out_old);
CH_API int ch_ddict_fetch_add_f64(struct ch_ddict *dict, const void *key, size_t klen, double delta, double *out_old);
/* ch_ddict_wait_for - wait until the key has this value, or with value NULL, any. */
CH_API int ch_ddict_wait_for(struct ch_ddict *dict, const void *key, size_t klen, const void *value, size_t vlen);
/* ch_ddict_put_everywhere, ch_ddict_get_anywhere - a copy with every manager; from one of them. */
CH_API int ch_ddict_put_everywhere(struct ch_ddict *dict, const void *key, size_t klen, const void *value, size_t vlen,
				   const struct ch_ddict_put_attr *attr);
CH_API ssize_t ch_ddict_get_anywhere(struct ch_ddict *dict, const void *key, size_t klen, void *buf, size_t cap);

/* ch_ddict_size, ch_ddict_clear - how many keys there are, or were. */
CH_API int64_t ch_ddict_size(struct ch_ddict *dict);
CH_API int64_t ch_ddict_clear(struct ch_ddict *dict);
/* ch_ddict_freeze, ch_ddict_unfreeze - whether writes are refused. Return whether it was frozen, 1 or 0. */
CH_API int ch_ddict_freeze(struct ch_ddict *dict);
CH_API int ch_ddict_unfreeze(struct ch_ddict *dict);
CH_API int ch_ddict_is_frozen(struct ch_ddict *dict);

/* ch_ddict_get_view - a value where it lies. -ENOENT. Its bytes stay until ch_ddict_view_release. */
CH_API int ch_ddict_get_view(struct ch_ddict *dict, const void *key, size_t klen, struct ch_ddict_view **out_view);
CH_API const void *ch_ddict_view_data(const struct ch_ddict_view *view);
CH_API size_t ch_ddict_view_len(const struct ch_ddict_view *view);
CH_API void ch_ddict_view_release(struct ch_ddict_view *view);

/* A key and a value of a batch; value is NULL and vlen 0 where a get found none. */
struct ch_ddict_item {
	const void *key;
	size_t klen;
	const void *value;
	size_t vlen;
};
/* ch_ddict_put_many - put all of them, many under way at a time. On failure some may have been put. */
CH_API int ch_ddict_put_many(struct ch_ddict *dict, const struct ch_ddict_item *items, size_t nr,
			     const struct ch_ddict_put_attr *attr);
/* ch_ddict_get_many - calls found(arg, i, value, vlen) for each of nr keys, in any order; value is NULL where there is
 * none, and is gone when found returns. A key whose value was changed, or whose manager died, while found looked at it is
 * found again, and the last time counts. The items' values are not looked at. */
CH_API int ch_ddict_get_many(struct ch_ddict *dict, const struct ch_ddict_item *items, size_t nr,
			     void (*found)(void *arg, size_t i, const void *value, size_t vlen), void *arg);

/* ch_ddict_start_... - begin a call and do not wait for its answer, which ch_ddict_call_wait gives. */
CH_API int ch_ddict_start_put(struct ch_ddict *dict, const void *key, size_t klen, const void *value, size_t vlen,
			      const struct ch_ddict_put_attr *attr, struct ch_ddict_call **out_call);
CH_API int ch_ddict_start_get(struct ch_ddict *dict, const void *key, size_t klen, struct ch_ddict_call **out_call);
CH_API int ch_ddict_start_erase(struct ch_ddict *dict, const void *key, size_t klen, struct ch_ddict_call **out_call);
CH_API int ch_ddict_start_fetch_add_i64(struct ch_ddict *dict, const void *key, size_t klen, int64_t delta,
					struct ch_ddict_call **out_call);
CH_API int ch_ddict_start_fetch_add_f64(struct ch_ddict *dict, const void *key, size_t klen, double delta,
					struct ch_ddict_call **out_call);
CH_API int ch_ddict_start_pop(struct ch_ddict *dict, const void *key, size_t klen, struct ch_ddict_call **out_call);
CH_API int ch_ddict_start_contains(struct ch_ddict *dict, const void *key, size_t klen, struct ch_ddict_call **out_call);
CH_API int ch_ddict_start_put_if_absent(struct ch_ddict *dict, const void *key, size_t klen, const void *value,
					size_t vlen, const struct ch_ddict_put_attr *attr,
					struct ch_ddict_call **out_call);
CH_API int ch_ddict_start_compare_and_set(struct ch_ddict *dict, const void *key, size_t klen, const void *expected,
					  size_t expected_len, const void *value, size_t vlen,
					  struct ch_ddict_call **out_call);
CH_API int ch_ddict_start_append(struct ch_ddict *dict, const void *key, size_t klen, const void *more, size_t len,
				 struct ch_ddict_call **out_call);
CH_API int ch_ddict_start_wait_for(struct ch_ddict *dict, const void *key, size_t klen, const void *value, size_t vlen,
				   struct ch_ddict_call **out_call);
/* ch_ddict_call_is_ready - 1 if ch_ddict_call_wait would not wait. Threads: one at a time for one call. */
CH_API int ch_ddict_call_is_ready(struct ch_ddict_call *call);
/* ch_ddict_call_wait - the answer, and the end of the call: of a put 0, of a get the length of the value, which is
 * copied to buf (-ENOENT, -ENOBUFS), of a pop as ch_ddict_pop, of an erase, contains, put_if_absent and
 * compare_and_set 1 or 0, of a fetch_add 8 and the old number in buf, of an append the new length, of a wait_for 1. */
CH_API ssize_t ch_ddict_call_wait(struct ch_ddict_call *call, void *buf, size_t cap);
/* ch_ddict_call_forget - end it without its answer; what it does takes place all the same. NULL is a no-op. */
CH_API void ch_ddict_call_forget(struct ch_ddict_call *call);

/* ch_ddict_cursor_open - walk through the keys that begin with a prefix. with_values: 1 or 0. */
CH_API int ch_ddict_cursor_open(struct ch_ddict *dict, const void *prefix, size_t plen, int with_values,
				struct ch_ddict_cursor **out_cursor);
/* Where a walk is; plain bytes, also for another process. All zero: at its beginning. */
struct ch_ddict_position {
	uint64_t manager, slot;
};
/* ch_ddict_cursor_open_at - the same, from where another walk was. */
CH_API int ch_ddict_cursor_open_at(struct ch_ddict *dict, const void *prefix, size_t plen, int with_values,
				   const struct ch_ddict_position *from, struct ch_ddict_cursor **out_cursor);
/* ch_ddict_cursor_get_position - where a new walk goes on: it may meet some keys again, and leaves none out. */
CH_API int ch_ddict_cursor_get_position(const struct ch_ddict_cursor *cursor, struct ch_ddict_position *out_position);
/* ch_ddict_cursor_next - the next one. Returns 1, or 0 at the end. What out_item names stays until the next call.
 * Threads: one at a time for one cursor. */
CH_API int ch_ddict_cursor_next(struct ch_ddict_cursor *cursor, struct ch_ddict_item *out_item);
CH_API void ch_ddict_cursor_close(struct ch_ddict_cursor *cursor);

/* ch_ddict_writer_open - write a value in pieces. expected_len: 0 if nobody knows. Threads: one at a time. */
CH_API int ch_ddict_writer_open(struct ch_ddict *dict, const void *key, size_t klen, size_t expected_len,
				struct ch_ddict_writer **out_writer);
CH_API int ch_ddict_writer_write(struct ch_ddict_writer *writer, const void *piece, size_t len);
/* ch_ddict_writer_commit - put what was written. The writer is closed, also on failure. */
CH_API int ch_ddict_writer_commit(struct ch_ddict_writer *writer, const struct ch_ddict_put_attr *attr);
/* ch_ddict_writer_close - without a commit: nothing was put. NULL is a no-op. */
CH_API void ch_ddict_writer_close(struct ch_ddict_writer *writer);

/* ch_ddict_checkpoint, ch_ddict_rollback - the handle goes on to the next checkpoint, or back to the last.
 * ch_ddict_sync_to_newest_checkpoint - to the newest that any manager holds. All return its number. */
CH_API int64_t ch_ddict_checkpoint(struct ch_ddict *dict);
CH_API int64_t ch_ddict_rollback(struct ch_ddict *dict);
CH_API int64_t ch_ddict_sync_to_newest_checkpoint(struct ch_ddict *dict);
CH_API int64_t ch_ddict_get_checkpoint(const struct ch_ddict *dict);
CH_API int ch_ddict_set_checkpoint(struct ch_ddict *dict, int64_t id);

/*
 * ch_ddict_persist - write the handle's checkpoint to files. Returns its number; or the errors of files, and -EINVAL if
 * there is no persist_path, -ERANGE if it has retired.  Blocks: until it is on disk.
 */
CH_API int64_t ch_ddict_persist(struct ch_ddict *dict);
/* ch_ddict_restore - what was persisted replaces what is here. -ENOENT, -EPROTO (a file is damaged), -ENOSPC, and nothing
 * was changed. */
CH_API int ch_ddict_restore(struct ch_ddict *dict, int64_t id);
/* ch_ddict_advance - restore the next checkpoint that was persisted. Returns its number; -ENOENT if there is none. */
CH_API int64_t ch_ddict_advance(struct ch_ddict *dict);
/* ch_ddict_get_persisted - the numbers of those that can be restored, in order. Returns how many there are; the first cap
 * of them are written. */
CH_API ssize_t ch_ddict_get_persisted(struct ch_ddict *dict, uint64_t *ids, size_t cap);
/* ch_ddict_flush - wait until all that was written by calls that have returned is in the log on disk. */
CH_API int ch_ddict_flush(struct ch_ddict *dict);

/* A manager's figures at its moment. */
struct ch_ddict_stats {
	uint64_t memory, used, largest;            /* bytes: all, in use, of the largest value that there is room for */
	uint64_t keys, clients, pinned, waiting;   /* pinned: values read in place; waiting: calls */
	uint64_t evicted, expired, oldest, newest; /* keys; checkpoints */
	uint64_t single;                           /* keys that are with no other manager, with 2 replicas */
	uint64_t deaths, lost;                     /* processes that were this manager; keys that went with them */
};
/* ch_ddict_get_stats - of one manager. */
CH_API int ch_ddict_get_stats(struct ch_ddict *dict, int manager, struct ch_ddict_stats *out_stats);

/* What one operation took in a manager, from its receiving to its answer: of one call in sixteen. */
#define CH_DDICT_BUCKETS 64
struct ch_ddict_bucket {
	uint64_t below_ns, count; /* calls that took less than so long, and no less than those of the bucket before */
};
struct ch_ddict_op_stats {
	uint64_t count; /* of all calls */
	uint64_t p50_ns, p99_ns, max_ns;
	uint64_t nr_buckets; /* that are not empty, shortest first: */
	struct ch_ddict_bucket buckets[CH_DDICT_BUCKETS];
};
/* ch_ddict_get_op_stats - of one manager and operation: "put", "get"... -ENOENT if it was not called. */
CH_API int ch_ddict_get_op_stats(struct ch_ddict *dict, int manager, const char *op, struct ch_ddict_op_stats *out_stats);

/* ch_ddict_reset_stats - what operations took is counted from here on. */
CH_API int ch_ddict_reset_stats(struct ch_ddict *dict);

/*
 * Called beside each manager, in a process of its own. Returns 0, or a negative errno value: the caller gets it.
 *
 * arg       a copy of what was given to ch_ddict_run, aligned to 8 bytes.
 */
typedef int (*ch_ddict_visitor)(struct ch_ddict_visit *visit, const void *arg, size_t len);
/*
 * ch_ddict_run - call a function next to the data, and wait for what the first manager's answers.
 *
 * fn          of the program that created the dictionary, or of a library that it had loaded then.
 * out_answer  to be read like a value, until ch_ddict_view_release.
 *
 * Returns 0, what fn returned, or -ENOENT (fn is not in the creator's program), -ECANCELED (it crashed), -ETIMEDOUT (it
 * was killed), -ENOSPC (no room for the answer, or memory was short and it was killed), -EAGAIN (as fork(2)).
 */
CH_API int ch_ddict_run(struct ch_ddict *dict, ch_ddict_visitor fn, const void *arg, size_t len,
			struct ch_ddict_view **out_answer);
/* ch_ddict_visit_next - the next pair of this manager. Returns 1, or 0 at the end. The pair stays until fn returns. */
CH_API int ch_ddict_visit_next(struct ch_ddict_visit *visit, struct ch_ddict_item *out_item);
/* ch_ddict_visit_next_part - the next answer of a manager below this one; it stays until the next call. Returns 1, or 0
 * at the end, or what went wrong there. */
CH_API int ch_ddict_visit_next_part(struct ch_ddict_visit *visit, const void **out_part, size_t *out_len);
/* ch_ddict_visit_answer - put more behind this one's answer. */
CH_API int ch_ddict_visit_answer(struct ch_ddict_visit *visit, const void *more, size_t len);

/* ch_ddict_clone - a new dictionary with the same content. Returns as ch_ddict_create and ch_ddict_copy_to. */
CH_API int ch_ddict_clone(struct ch_ddict *dict, const struct ch_ddict_attr *attr, struct ch_ddict **out_dict);
/* ch_ddict_copy_to - put all content into another one. Returns how many keys. */
CH_API int64_t ch_ddict_copy_to(struct ch_ddict *dict, struct ch_ddict *to);
/* ch_ddict_synchronise - give managers without keys those of the same manager of another one. Returns how many keys. */
CH_API int64_t ch_ddict_synchronise(struct ch_ddict *const *dicts, size_t nr);

#ifdef __cplusplus
}
#endif
#endif

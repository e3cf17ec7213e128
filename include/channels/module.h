/* SPDX-License-Identifier: Apache-2.0 */
/*
 * module.h - the program and its libraries by build-id, so that a function can be named in another process.
 *
 * A function is the same one in another process if it lies as far into a module with the same id: addresses differ from
 * process to process, and from build to build.
 */
#ifndef CHANNELS_MODULE_H
#define CHANNELS_MODULE_H
#include <channels/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The program or a library, as this process has it loaded. */
struct ch_module {
	unsigned char id[20]; /* build-id, or where the linker made none, a hash of its name and program headers */
	uint32_t id_len;      /* bytes of id that count; the others are zero */
	uint64_t base;        /* address that offsets count from */
	uint64_t code;        /* address of the first byte of code */
	uint64_t code_end;    /* and behind the last */
};

/*
 * ch_module_of - the module in which a function lies.
 *
 * Returns 0, or -ENOENT (it lies in none), -EINVAL (NULL).
 * Blocks: no.  Threads: safe.  Signals: unsafe.  Fork: safe.
 */
CH_API int ch_module_of(const void *fn, struct ch_module *out_module);

/*
 * ch_module_find - the module with this id.
 *
 * len       bytes of id, 1 to 20.
 *
 * Returns 0, or -ENOENT (none with this id is loaded here), -EINVAL (NULL, or len).
 * Blocks: no.  Threads: safe.  Signals: unsafe.  Fork: safe.
 */
CH_API int ch_module_find(const void *id, size_t len, struct ch_module *out_module);

#ifdef __cplusplus
}
#endif
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * descr.h - descriptors: 64 flat bytes that name a segment, pool or channel anywhere.
 *
 * A descriptor may be copied with memcpy, sent in a message, written to a file, or put in an argument or an
 * environment variable as text. It carries version, node, segment, offset, generation, a nonce of the segment
 * and a checksum; whoever attaches by it checks every field and trusts none.
 */
#ifndef CHANNELS_DESCR_H
#define CHANNELS_DESCR_H
#include <channels/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ch_descr {
	unsigned char bytes[64];
};

enum ch_descr_kind {
	CH_DESCR_SEGMENT = 1,
	CH_DESCR_POOL = 2,
	CH_DESCR_CHANNEL = 3,
	CH_DESCR_BLOCK = 4, /* an offered block */
	CH_DESCR_VIEW = 5,  /* a shared block */
	CH_DESCR_STREAM = 6,
	CH_DESCR_MUTEX = 7,
	CH_DESCR_RWLOCK = 8,
	CH_DESCR_SEMAPHORE = 9,
	CH_DESCR_EVENT = 10,
	CH_DESCR_CONDITION = 11,
	CH_DESCR_BARRIER = 12,
	CH_DESCR_KINDS
};

#define CH_DESCR_TEXT_CAP 136 /* bytes of room that any descriptor's text fits in, with its final NUL */

/*
 * ch_descr_kind - what a descriptor names: one of enum ch_descr_kind, under CH_DESCR_KINDS.
 *
 * Returns the kind, or -EPROTO (not a descriptor, damaged, or of another version), -EINVAL (NULL).
 * Blocks: no.  Threads: safe.  Signals: unsafe.  Fork: safe.
 */
CH_API int ch_descr_kind(const struct ch_descr *descr);

/*
 * ch_descr_from_bytes - take a descriptor out of len bytes that came from anywhere.
 *
 * Returns 0, or -EPROTO (not 64 bytes, damaged, or of another version), -EINVAL (NULL).
 * Blocks: no.  Threads: safe.  Signals: unsafe.  Fork: safe.
 */
CH_API int ch_descr_from_bytes(const void *bytes, size_t len, struct ch_descr *out_descr);

/*
 * ch_descr_to_text - write a descriptor as printable text without blanks: "ch:" and 128 hex digits.
 *
 * cap       bytes of room in out_text; CH_DESCR_TEXT_CAP always suffices.
 *
 * Returns the length without the NUL, or -ENOBUFS (cap too small), -EPROTO (not a descriptor), -EINVAL (NULL).
 * Blocks: no.  Threads: safe.  Signals: unsafe.  Fork: safe.
 */
CH_API int ch_descr_to_text(const struct ch_descr *descr, char *out_text, size_t cap);

/*
 * ch_descr_from_text - read what ch_descr_to_text wrote.
 *
 * Returns 0, or -EPROTO (not the text of a descriptor, damaged, or of another version), -EINVAL (NULL).
 * Blocks: no.  Threads: safe.  Signals: unsafe.  Fork: safe.
 */
CH_API int ch_descr_from_text(const char *text, struct ch_descr *out_descr);

#ifdef __cplusplus
}
#endif
#endif

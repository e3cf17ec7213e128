// SPDX-License-Identifier: Apache-2.0
// backing.h - where a segment's bytes come from: a file in /dev/shm, or one without a name; its pages, and its mapping.
#pragma once
#include "atomic.h"
#include <sys/types.h>

namespace ch::core {

// What is asked for with a new file: the CH_... flags of ch_segment_attr.
struct backing_wish {
	const char *path; // in /dev/shm; NULL: no name
	u64 len;          // of the file
	u64 reserved;     // how much of it has memory at once
	u32 flags;
	gid_t group;
};

struct backing {
	int fd = -1;
	u8 *base = nullptr;
	u64 page_len = 0; // of the pages that the kernel was asked for
};

// Returns 0, or a negative errno value; then nothing is left. A file with a name is locked (flock(2)) until fd is closed
// and the mapping gone, here and in children that inherit it: see reclaim.cpp. With CH_HUGE_PAGES and a len that is no
// multiple of huge pages the kernel's own page size is used.
int backing_create(const backing_wish &w, backing &out) noexcept;
// Memory for these bytes of the file: afterwards no access to them can fail.
int backing_reserve(int fd, u64 off, u64 len) noexcept;
// Maps len bytes; flags are those of ch_segment_attach_with. is_sparse: not all of it has memory.
int backing_map(int fd, u64 len, u32 flags, bool is_sparse, u8 **out) noexcept;
// Whether nobody can take memory away under a mapping of this file: sealed, or in /dev/shm, where permissions say who may.
bool backing_is_safe(int fd) noexcept;
u64 huge_page_len() noexcept; // of this machine; 0: none
// How many bytes of the mapping that begins at base are mapped by huge pages now.
u64 backing_huge_bytes(const u8 *base) noexcept;

} // namespace ch::core

// SPDX-License-Identifier: Apache-2.0
// descr.h - what the 64 bytes of a descriptor mean. The wire layout has its own version.
#pragma once
#include "atomic.h"
#include <channels/descr.h>

namespace ch::core {

inline constexpr u32 DESCR_MAGIC = 0xc4;
inline constexpr u32 DESCR_VERSION = 1;

struct descr {
	u8 magic;
	u8 version;
	u8 kind; // enum ch_descr_kind
	u8 zero;
	u32 node;       // which shared memory: node_id()
	u64 segment;    // its id
	u64 birth;      // and which of that id
	u64 nonce;      // proof that a descriptor of this segment was seen once
	u64 offset;     // of the object: for a channel the index of its block
	u64 generation; // tag of that block
	u64 reserved;   // 0
	u64 checksum;   // XXH3 of the 56 bytes before
};
static_assert(sizeof(descr) == sizeof(ch_descr), "wire format: bump DESCR_VERSION");

// Names the memory that this process's /dev/shm is: boot and tmpfs instance.
u32 node_id() noexcept;
void descr_seal(descr d, ch_descr *out) noexcept;
int descr_open(const ch_descr *in, descr &out) noexcept; // 0, -EINVAL, -EPROTO

} // namespace ch::core

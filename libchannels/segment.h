// SPDX-License-Identifier: Apache-2.0
// segment.h - this process's side of a segment: mapping, checked geometry, its own slot in the peer table.
#pragma once
#include "descr.h"
#include "layout.h"
#include "run.h"
#include <channels/channel.h>
#include <channels/segment.h>
#include <mutex>
#include <pthread.h>

struct ch_object; // object.h

// This process's handles on the objects of a segment, in chains by the object's block, so that making one and giving one
// back cost the same however many there are.
struct handle_table {
	static constexpr ch::core::u32 LG_FEW = 4;
	ch_object *few[1u << LG_FEW] = {};
	ch_object **many = nullptr; // in the place of few
	ch::core::u32 lg = LG_FEW, nr = 0;

	ch_object **chains() noexcept { return many ? many : few; }
	ch_object *&chain_of(ch::core::u64 block) noexcept { return chains()[block * 0x9e3779b97f4a7c15 >> (64 - lg)]; }
};

// One per segment and process, however many handles there are. All of it is guarded by the registry lock, except
// what the message path reads: geometry, which never changes, and the owner indices, which are atomic.
struct ch_pool {
	struct ch_segment *seg = nullptr;
	ch::core::pool_header *hdr = nullptr; // NULL: this process does not use the pool
	ch::core::run_map map;
	int refs = 0;
	bool own_segment = false;
};

struct ch_segment {
	ch_segment *next = nullptr;
	int refs = 0;
	ch::core::u8 *base = nullptr;
	ch::core::u64 map_len = 0, user_off = 0, user_len = 0;
	ch::core::u64 id = 0, birth = 0, nonce = 0;
	ch::core::u32 max_peers = 0;
	ch::core::segment_header *hdr = nullptr;
	ch::core::shared<ch::core::u64> *used = nullptr; // bits of them
	ch::core::peer_slot *peers = nullptr;            // peers[1...max_peers]
	int fd = -1;            // of one without a name
	bool is_read_only = false, is_locked = false, is_sparse = false;
	ch::core::u64 page_len = 0; // as asked of the kernel; 0: not known
	std::atomic<ch::core::u32> me = 0;    // 0: not a peer (yet, or again after a fork)
	std::atomic<ch::core::u32> telling = 0; // which of our hazards threads of ours use now (watch.cpp)
	int watch_fd = -1;                    // pidfd of the peer that our keeper watches
	bool is_destroyed = false;
	char name[208] = "";
	ch_pool pool;
	handle_table objects;
};

namespace ch::core {

// The lock of everything process-local that is not on the message path. Recursive: a sweep may run in an attach.
struct registry_lock {
	registry_lock() noexcept;
	~registry_lock() noexcept;
	registry_lock(const registry_lock &) = delete;
	registry_lock &operator=(const registry_lock &) = delete;
};

ch_segment *registry_first() noexcept; // under the lock
void registry_init() noexcept;         // counts forks from now on
u32 registry_forks() noexcept;         // tells a forked child from its parent

void registry_add(ch_segment *seg) noexcept; // under the lock
void registry_init_locked() noexcept;        // registry_init, under the lock

// Names and headers (attach.cpp). A made-up name is its id in hexadecimal; of any other the id is a hash.
int segment_check_name(const char *name) noexcept;
u64 segment_id_of(const char *name) noexcept;
void segment_path(u64 id, char *out, size_t cap) noexcept; // of the file in /dev/shm
u64 segment_header_len(u32 max_peers) noexcept;
int segment_check_header(const segment_header *h, u64 file_len, const char *what) noexcept;

// With CH_READ_ONLY the mapping is another than that of a process's other handles, and makes it no peer. Under the lock.
int segment_attach(const descr &d, u32 flags, ch_segment **out) noexcept; // adds a reference
int segment_read_attr(const ch_segment_attr *attr, ch_segment_attr &out) noexcept;
int segment_create(const ch_segment_attr &attr, u64 max_len, ch_segment **out) noexcept; // max_len > len: it can get more
int segment_reserve(ch_segment *seg, u64 off, u64 len) noexcept; // memory for a part of the user's bytes of a sparse one
void segment_unref(ch_segment *seg) noexcept;                  // under the lock
void segment_remove_name(ch_segment *seg) noexcept;
void segment_reclaim_of(u64 creator) noexcept; // removes the names of all segments that this dead process made
descr segment_descr(const ch_segment *seg, u8 kind, u64 offset, u64 generation) noexcept;

// Makes this process a peer of the segment if it is none: at attach, and at the first use in a forked child.
// Returns the owner index, or -ENOSPC, or -EPERM.
int segment_join(ch_segment *seg) noexcept; // under the lock

// Calls fn(slot) for each slot in use. seq_cst: whoever uses a hazard set its bit before; of "I look at the object" and
// "is anybody looking" one sees the other (sweep.h), and so this must not see older bits than hazards.
template <class Fn> void for_each_peer(const ch_segment *seg, Fn fn) noexcept
{
	for (u32 w = 0; w <= seg->max_peers / 64; w++)
		for (u64 bits = seg->used[w].load(seq_cst); bits; bits &= bits - 1) {
			const u32 i = w * 64 + static_cast<u32>(__builtin_ctzll(bits));
			if (i >= 1 && i <= seg->max_peers)
				fn(i);
		}
}

// The next slot in use after (before) slot, around the table; slot itself if there is no other.
u32 peer_after(const ch_segment *seg, u32 slot) noexcept;
u32 peer_before(const ch_segment *seg, u32 slot) noexcept;

// The word that says who may die: peers[owner].id, or 0 for an index out of range.
inline u64 peer_of(const ch_segment *seg, u32 owner) noexcept
{
	return owner == NOBODY || owner > seg->max_peers ? 0 : seg->peers[owner].id.load(acquire);
}

} // namespace ch::core

// SPDX-License-Identifier: Apache-2.0
// sweep.h - giving back what dead processes held: the order of it is the argument (sweep.cpp).
#pragma once
#include "segment.h"

namespace ch::core {

struct object_kind;

// Maps the pool of a segment, if there is one. Returns 0, -ENOENT or -EPROTO. (pool.cpp)
int pool_use(ch_segment *seg) noexcept;

// All under the registry lock, or taking it.
bool sweep_peer(ch_segment *seg, u32 slot) noexcept; // if it is dead; true if this call swept it
int sweep_dead(ch_segment *seg) noexcept;            // looks at every peer; how many it swept
int sweep_all(ch_segment *seg) noexcept;             // and waits for those that others have begun; or -ETIMEDOUT
void sweep_self(ch_segment *seg) noexcept;           // a clean leave: as if dead, without the proof
void sweep_wake_all(ch_segment *seg, u32 me) noexcept; // wakes everybody who sleeps on anything in the segment

/*
 * A process that looks into an object's memory must keep it from being freed meanwhile: by its bit among the
 * attached peers, or for a moment by a hazard. The freeing side first makes the block DYING, then looks for
 * hazards, then for bits; the looking side first sets the hazard, then looks whether the block is still what it
 * wants, then perhaps sets its bit, then clears the hazard.
 */
// Sets the hazard; true if the block is an object (or a dying one, with is_dying_ok) of this tag. tag 0: any.
bool hazard_set(shared<u64> &hazard, const block_place &b, u64 tag, bool is_dying_ok) noexcept;
// And frees what waited for it, in the name of peer as, whose hazard it is.
void hazard_clear(ch_segment *seg, u32 as, shared<u64> &hazard, const block_place &b) noexcept;
// An object that lives as long as somebody is attached becomes DYING if nobody is.
void object_end_if_left(ch_segment *seg, const object_kind &k, const block_place &b) noexcept;
// Frees a DYING object that nobody uses any more.
void object_finish(ch_segment *seg, u32 as, const block_place &b) noexcept;

} // namespace ch::core

// SPDX-License-Identifier: Apache-2.0
// keeper.h - each process watches one other per segment, so that no death goes unseen and nobody polls.
//
// The keeper is one thread per process, asleep in poll(2). Of each segment it watches by pidfd the peer in
// the next occupied slot after its own, round and round: every peer is watched by its predecessor, a death wakes
// exactly one process, and that one sweeps. Who comes or goes tells its predecessor by a datagram to its abstract
// Unix socket, whose name is the peer's and its pid namespace's; the predecessor then looks again whom to watch. If a
// predecessor is dead, whoever finds it so sweeps it and tells the one before.
#pragma once
#include "atomic.h"

struct ch_segment;

namespace ch::core {

// All under the registry lock.
void keeper_start() noexcept; // if it does not run yet
void keeper_announce(ch_segment *seg, u32 slot) noexcept;
void keeper_poke() noexcept; // our own: the set of segments changed
void keeper_forget() noexcept; // in a forked child: it has none

// Whether deaths among the peers of a segment are told to this process when it sleeps; if not (no thread or socket could
// be had here or there, or peers are in several network namespaces), blocking calls look in slices of time.
bool deaths_are_told(const ch_segment *seg) noexcept;

} // namespace ch::core

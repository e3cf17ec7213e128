// SPDX-License-Identifier: Apache-2.0
// peer.h - who a process is, and whether it still runs.
//
// A peer's name is one word: start time (clock ticks since boot, field 22 of /proc/<pid>/stat) << 22 | pid. Linux
// never gives a pid twice within a tick, so the name is never given twice. A peer is dead when no thread of it
// can run user code again: no such process, another start time, or a zombie whose other threads are gone. That is
// proof, not suspicion, and the ring rests on it: whoever is declared dead writes nothing any more.
#pragma once
#include "atomic.h"
#include <sys/types.h>

namespace ch::core {

inline constexpr u32 PID_BITS = 22; // pid_max of a 64-bit kernel is 2^22

inline pid_t peer_pid(u64 id) noexcept { return static_cast<pid_t>(id & ((u64{1} << PID_BITS) - 1)); }

u64 peer_self() noexcept;
u64 peer_id_of(pid_t pid) noexcept; // 0: no such process
bool peer_is_alive(u64 id) noexcept;
u64 peer_pid_namespace() noexcept; // inode number

} // namespace ch::core

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
bool peer_is_dying(u64 id) noexcept; // if it is alive: it runs no code of its own any more, and its descriptors may be closed
u64 peer_pid_namespace() noexcept; // inode number

// What each thread knows of itself. No constructor, so that reading it costs no call.
struct thread_notes {
	u32 tid;       // 0: not asked yet
	u32 nr_shared; // read locks that it holds, at most
	u32 slot;      // where it found room for the last one
};
extern __thread thread_notes own_notes [[gnu::tls_model("initial-exec")]];

u32 thread_ask_tid() noexcept;
void thread_forget() noexcept; // in a forked child

inline u32 thread_self() noexcept
{
	const u32 tid = own_notes.tid;

	return tid != 0 ? tid : thread_ask_tid();
}

// Whether that thread of a living process still runs. As good as the kernel tells: ids are given again.
bool thread_is_alive(u64 id, u32 tid) noexcept;

} // namespace ch::core

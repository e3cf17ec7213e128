// SPDX-License-Identifier: Apache-2.0
// spawner.h - between spawn.cpp (the creator's side) and spawner.cpp (the spawner process). Private.
#pragma once
#include <channels/spawn.h>

namespace ch::core::spawner {

inline constexpr size_t arg_max = 64 << 10;

// A request is this, and then len bytes of argument, in one packet.
struct request {
	ch_spawn_fn fn;
	uint64_t cookie;
	size_t len;
};

struct reply {
	uint64_t peer;
	int err; // positive errno value; 0: the child runs
};

// What the spawner process keeps of the creator's file descriptors for itself.
struct ends {
	int ctl;     // requests in, replies out
	int exits;   // struct ch_exit out
	int creator; // pidfd; readable when the creator is gone
	int sigfd;   // readable when a child ended
	uint64_t creator_id;
};

// The spawner process: never returns. Called with all signals blocked, in a process of one thread.
[[noreturn]] void serve(ends e);

} // namespace ch::core::spawner

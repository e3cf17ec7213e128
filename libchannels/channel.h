// SPDX-License-Identifier: Apache-2.0
// channel.h - this process's side of a channel.
#pragma once
#include "pool.h"
#include "ring.h"

struct ch_channel {
	ch::core::ring r;
	ch_pool *pool = nullptr;
	std::atomic<ch::core::u32> me = 0; // owner index; 0: ask channel_me()
	bool is_stale = false;             // destroyed before this (forked) process could attach
	std::atomic<ch::core::u32> spin_ns = 0;
	std::atomic<ch::core::i64> budget_ns; // what adaptive spinning allows itself now
	ch::core::u64 tag = 0;
	ch::core::block_place block{};
	ch_channel *next = nullptr; // of this process's handles in the segment
};

namespace ch::core {

// Ends the pool of a segment and all channels in it, for everybody. Under the registry lock.
void pool_mark_destroyed(ch_segment *seg) noexcept;

// How a message is received: where to, and what its slot said.
struct incoming {
	void *buf;                      // recv: where to copy to
	u64 cap;                        //       and how much room is there
	ch_message *msg;                // take: what to fill in; NULL for recv
	const block_place *scratch;     // take: for a message that travelled in the ring and is too long for msg
	u64 len;                        // as read from the slot, once
	bool is_block;
	int refused;                    // why it was left: -ENOBUFS, or -ENOSPC for "bring a scratch block"
	block_place block;              // if is_block
};

int channel_me_slow(ch_channel *ch) noexcept;

inline int channel_me(ch_channel *ch) noexcept
{
	const u32 me = ch->me.load(relaxed); // set by this process before the handle was given out

	return me != NOBODY ? static_cast<int>(me) : channel_me_slow(ch);
}

} // namespace ch::core

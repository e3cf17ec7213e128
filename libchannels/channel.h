// SPDX-License-Identifier: Apache-2.0
// channel.h - this process's side of a channel.
#pragma once
#include "object.h"
#include "ring.h"

struct ch_channel : ch_object {
	ch::core::ring r;
};

namespace ch::core {

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

inline int channel_me(ch_channel *ch) noexcept { return object_me(ch); }

} // namespace ch::core

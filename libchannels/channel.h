// SPDX-License-Identifier: Apache-2.0
// channel.h - this process's side of a channel, and the roles of a channel with one sender and one receiver.
//
// Who may send, and who may receive, on such a channel is said by a role word in shared memory (layout.h): 0, or the owner
// index of the process, by CAS; offered by a process that gives it up, so that its death still tells who had it last. In
// the process the role belongs to one handle and one thread, which compares itself with the handle's word at each
// message. A role ends with its handle, or by the sweep of its process.
#pragma once
#include "object.h"
#include "spsc.h"

namespace ch::core {
extern const poll_ops channel_ops;
}

struct ch_channel : ch_object {
	ch_channel() noexcept : ch_object(&ch::core::channel_ops) {}

	ch::core::u32 quick_send = 0, quick_recv = 0; // longest message of the common case; 0: there is none
	ch::core::u32 quick_spsc = 0;                 // the same with one sender and one receiver
	ch::core::u64 self = 0;                       // this process's name
	ch::core::u32 default_spin = 0;               // spin_ns that the channel says
	std::atomic<ch::core::u64> bound[2] = {};     // threads that have the roles of sender and receiver by this handle
	ch::core::ring r;
};

namespace ch::core {

enum role : u32 { SENDER, RECEIVER };

extern __thread char thread_mark __attribute__((tls_model("initial-exec")));
inline u64 this_thread() noexcept { return reinterpret_cast<u64>(&thread_mark); }

inline int channel_me(ch_channel *ch) noexcept { return object_me(ch); }

// 0, or -EBUSY, -EPIPE, -EOWNERDEAD: the role cannot be had.
int role_bind(ch_channel *ch, role which) noexcept;
// The handle goes.
void role_leave(ch_channel *ch) noexcept;

// Whether this thread has the role by this handle. In a forked child nobody has, until the handle is opened anew.
inline bool role_is_mine(const ch_channel *ch, role which) noexcept
{
	return ch->bound[which].load(relaxed) == this_thread() && // what we set ourselves; others find something else
	       ch->me.load(relaxed) != NOBODY;
}

// Before a send or a receive: 0, or why it may not be.
inline int role_check(ch_channel *ch, role which) noexcept
{
	return !ch->r.is_spsc || role_is_mine(ch, which) ? 0 : role_bind(ch, which);
}

} // namespace ch::core

// SPDX-License-Identifier: Apache-2.0
// message.h - what all ways to send and to receive have in common.
#pragma once
#include "channel.h"
#include "error.h"
#include "wait.h"

namespace ch::core {

#define INLINE_LAMBDA __attribute__((always_inline)) // both compilers take it here

inline constexpr u64 SMALL = sizeof(ch_message::small_);
inline constexpr u64 SHORT = 64; // messages of the common case

// memcpy of a few bytes, without the call: by words that may overlap.
[[gnu::always_inline]] inline void copy_short(void *to, const void *from, u64 len) noexcept
{
	u8 *d = static_cast<u8 *>(to);
	const u8 *s = static_cast<const u8 *>(from);

	if (len >= 8) {
		for (u64 k = 0; k + 8 < len; k += 8)
			std::memcpy(d + k, s + k, 8);
		std::memcpy(d + len - 8, s + len - 8, 8);
	} else if (len >= 4) {
		std::memcpy(d, s, 4);
		std::memcpy(d + len - 4, s + len - 4, 4);
	} else {
		for (u64 k = 0; k < len; k++)
			d[k] = s[k];
	}
}

void copy_long(void *to, const void *from, u64 len) noexcept;

[[gnu::always_inline]] inline void copy(void *to, const void *from, u64 len) noexcept
{
	if (len <= SHORT)
		copy_short(to, from, len);
	else
		copy_long(to, from, len);
}

// Pages of the caller's that are not there yet are fetched now and not between claim and commit.
inline void touch(const void *buf, u64 len) noexcept
{
	const volatile u8 *p = static_cast<const u8 *>(buf);

	if (len == 0)
		return;
	(void)p[0];
	(void)p[len - 1];
	for (u64 k = PAGE; k < len; k += PAGE)
		(void)p[k];
}

// A message to be sent.
struct outgoing {
	const void *buf = nullptr;
	u64 len = 0;
	u32 flags = 0; // CH_MESSAGE_...
	bool is_block = false;
	message_tag tag;   // with CH_MESSAGE_TAGGED
	block_place block; // if is_block: ours, and holds the bytes

	outgoing() noexcept {}

	u64 head() const noexcept { return flags & CH_MESSAGE_TAGGED ? sizeof(message_tag) : 0; }
};

// How a message is received: what the caller wants, and what its slot said.
struct incoming {
	void *buf = nullptr;                  // recv: where to copy to; NULL: it is thrown away
	u64 cap = 0;                          //       and how much room is there
	ch_message *msg = nullptr;            // take: what to fill in; NULL for recv
	const block_place *scratch = nullptr; // take: for a message that travelled in the ring and is too long for msg
	const u64 *end = nullptr;             // drain: no ticket from this one on; or NULL
	bool is_kept = false;                 // take: until it is acknowledged
	int refused = 0;                      // why it was left: -ENOBUFS, or -ENOSPC for "bring a scratch block"
	// Read from the slot, once. Not set before: this is the message path.
	bool is_block;
	u32 flags; // CH_MESSAGE_...
	u64 len;
	message_tag tag;
	block_place block; // if is_block
	const u8 *at;      // where it lies, if it is kept
	const lane *from;
	u64 ticket;

	incoming() noexcept {}
};

// What keeps a call from going on whatever the ring holds; who sets a flag wakes everybody afterwards.
inline constexpr u64 STOP_SEND = CHANNEL_CLOSING | CHANNEL_DESTROYED | CHANNEL_RECEIVER_LEFT | CHANNEL_RECEIVER_DIED;

inline int stopped(u64 state) noexcept
{
	return state & CHANNEL_DESTROYED ? -ESTALE : state & CHANNEL_CLOSING ? -EPIPE : state & CHANNEL_RECEIVER_LEFT ? -EPIPE :
	       -EOWNERDEAD;
}

[[gnu::always_inline]] inline bool may_not_send(const ch_channel *ch) noexcept
{
	return ch->r.h->state.load(relaxed) & STOP_SEND; // flags
}

// Says why; passes rc on.
int refuse(const ch_channel *ch, int rc) noexcept;

// Writes a message into its slot.
void fill_slot(slot &s, const outgoing &out, u32 me) noexcept;
// Sends it, waiting for room. 0, and its ticket; or -EAGAIN, -ETIMEDOUT, -EPIPE ...
int publish(ch_channel *ch, lane &l, const outgoing &out, i64 timeout_ns, u64 *out_ticket) noexcept;
// Copies it to where it must be, sends it, and waits for what completion says.
int send_whole(ch_channel *ch, outgoing &out, u32 completion, i64 timeout_ns) noexcept;
// Before memory is taken: whether there is any use.
int may_send(ch_channel *ch) noexcept;
inline lane &lane_of(ch_channel *ch, u32 flags) noexcept { return flags & CH_MESSAGE_URGENT ? ch->r.urgent : ch->r; }
// 0, or -EINVAL: what a user says of a message.
int check_flags(const ch_channel *ch, u32 flags) noexcept;

inline constexpr int LEFT = 1;
// What a slot says of its message, read once; and reading it, between claim and delivery.
verdict look_at(const lane &l, const slot &s, u64 ticket, incoming &in) noexcept;
int use_it(const ch_channel *ch, u32 me, const slot &s, incoming &in) noexcept;
// Returns 0, LEFT if the message was left (in.refused says why), or a negative errno value. is_try: -EAGAIN for none.
int receive(ch_channel *ch, i64 timeout_ns, incoming &in) noexcept;
int receive_once(ch_channel *ch, u32 me, incoming &in) noexcept;
// Its parts: a lane, and what readers left.
int receive_from(ch_channel *ch, lane &l, u32 me, bool is_closing, incoming &in) noexcept;
int receive_left(ch_channel *ch, u32 me, incoming &in) noexcept;
// Waits until attempt() finds something to receive.
template <class Attempt> inline int wait_for_message(ch_channel *ch, i64 timeout_ns, Attempt attempt) noexcept
{
	return wait_until(
		ch, ch->r.h->not_empty, timeout_ns, attempt,
		[ch] { return ring_may_consume(ch->r) || (ch->r.urgent.slots && ring_may_consume(ch->r.urgent)); },
		[ch] {
			const u32 who = ch->r.urgent.slots ? ring_blocker_of_recv(ch->r.urgent) : NOBODY;
			return who != NOBODY ? who : ring_blocker_of_recv(ch->r);
		});
}
// A receiver that leaves a message passes its wake-up on.
int leave_message(ch_channel *ch, int rc) noexcept;
void fill_info(ch_recv_info *info, const incoming &in) noexcept;

inline i64 rest_of(i64 timeout_ns, i64 until_ns) noexcept
{
	if (timeout_ns <= 0)
		return timeout_ns;
	const i64 now = now_ns();
	return until_ns == NEVER ? CH_FOREVER : until_ns > now ? until_ns - now : CH_TRY;
}

// -EAGAIN at the end of a rest that had become CH_TRY is the end of the call's time.
inline int timed(int rc, i64 timeout_ns) noexcept { return rc == -EAGAIN && timeout_ns != CH_TRY ? -ETIMEDOUT : rc; }

} // namespace ch::core

// SPDX-License-Identifier: Apache-2.0
// stream.h - streams: conversations of one writer and one reader, and the port where they find each other.
//
// A port is one object: a word for each of its streams, and for each a lane of chunks. The word of a stream (layout.h)
// names its writer and its reader, so that the lane needs no claims: who may write where in it is settled for as long
// as the conversation lasts, and when one of the two dies its sweeper says so in the same word. A stream between two
// processes without a port is a port with one stream, which ends with its conversation.
//
//   word     FREE -> writer -> writer, ANNOUNCED -> writer, reader, TAKEN -> one of them gone -> last one, DRAINING ->
//   FREE
//
// Each arrow is one compare-and-swap, by the party that it names or by the sweeper that acts for it. Who leaves last
// empties the lane. A conversation that no reader has taken is kept if its writer had ended it in good order, and is
// as if it had never begun if it had not.
#pragma once
#include "wait.h"
#include "watch.h"
#include <cerrno>
#include <channels/stream.h>

namespace ch::core {

// A view of a port; geometry is checked and copied when it is opened.
struct stream_view {
	stream_header *h = nullptr;
	shared<u64> *words = nullptr, *orders = nullptr;
	u8 *lanes = nullptr;
	u64 lane_len = 0;
	u32 nr = 0, capacity = 0, chunk_len = 0, flags = 0;
	bool is_pair = false; // made by ch_stream_create

	stream_lane &lane(u32 i) const noexcept { return *reinterpret_cast<stream_lane *>(lanes + i * lane_len); }
	stream_slot &slot(u32 i, u64 n) const noexcept
	{
		return reinterpret_cast<stream_slot *>(&lane(i) + 1)[n & (capacity - 1)];
	}
};

// Every handle on a port's object: the port's own, and one for each end of a conversation that this process has.
struct stream_object : ch_object {
	using ch_object::ch_object;
	stream_view v;
};

extern const poll_ops port_ops, stream_ops;

} // namespace ch::core

struct ch_stream_port : ch::core::stream_object {
	ch_stream_port() noexcept : stream_object(&ch::core::port_ops) {}

	std::atomic<ch::core::u32> free_at = 0; // where a free stream was seen last
};

struct ch_stream : ch::core::stream_object {
	ch_stream() noexcept : stream_object(&ch::core::stream_ops) {}

	ch::core::u32 index = 0, my = 0; // my: owner index at the beginning; me is 0 again in a forked child
	ch::core::u64 generation = 0;    // of the stream's word
	bool is_reader = false;
	bool is_over = false;                   // the writer has ended it
	bool is_collected = false;              // a buffered conversation: it has no stream until it is complete
	std::atomic<bool> is_held = false;      // the reader has a chunk here; poll sets look
	std::atomic<bool> is_cancelled = false; // of a collected one
	ch::core::u64 next = 0;                 // number of the next chunk
	ch::core::u64 taken = 0;                // writer: how many the reader had taken when we looked last
	// What the writer gathers or the reader has read in part: in a block of ours, or (no address) in small.
	ch::core::block_place in{};
	ch::core::u64 len = 0, at = 0, arg = 0; // at: how much of it was read
	ch_view *view = nullptr;                // or in what the writer shows, from shown on
	const ch::core::u8 *shown = nullptr;
	ch::core::u64 usual = 0;                // length of the last chunk that was gathered
	unsigned char small[sizeof(ch_message::small_)];
	ch_pollset *set = nullptr; // whose member this end is
};

namespace ch::core {

extern const object_kind stream_kind;

// The owner index, or -ESTALE...
int stream_use(stream_object *o) noexcept;

// Takes a party out of a stream's word and says why; the last one empties the lane. For a living party, and for a dead
// one by its sweeper; may be called twice. Whoever calls it wakes the other party.
enum stream_end : u32 { WRITER_END, READER_END };
// True if the stream is free by that.
bool stream_leave(ch_segment *seg, const block_place &b, const stream_view &v, u32 i, stream_end end, u32 who,
		  u64 why) noexcept;

// A free stream becomes s's (which waits for it on the event `freed`), and is shown to readers. has_ended: it is
// complete, and s is not its writer any more.
int stream_claim_free(ch_stream *s, std::atomic<u32> *free_at, i64 timeout_ns) noexcept;
void stream_announce(ch_stream *s, bool has_ended) noexcept;

// What keeps this end from going on: 0, or a negative errno value, in silence.
int stream_stop(const ch_stream *s) noexcept;
int stream_reader_gone(const ch_stream *s) noexcept;
// Passes rc on, and says what it means where somebody must be told.
int stream_tell(const ch_stream *s, int rc) noexcept;

// ---- poll sets (stream_poll.cpp); after a notification, as watch_tell

inline constexpr u32 LANE_WATCHES = 2;
void stream_passed(ch_stream *s, u32 mask, u32 more) noexcept; // a chunk
void stream_tell_port(stream_object *o, u32 mask, u32 more) noexcept;
void stream_tell_end(ch_stream *s) noexcept; // notifies too: this end has ended, cancelled or left the conversation

int stream_send_gathered(ch_stream *s, i64 timeout_ns) noexcept;
void stream_drop(ch_stream *s) noexcept; // what it gathers, or has read in part

// Whether the reader's next chunk is there; whether the writer's has room.
bool stream_has_chunk(const ch_stream *s) noexcept;
bool stream_has_room(const ch_stream *s) noexcept;
// What the reader meets where no chunk is: STREAM_END, -EAGAIN (more may come), or why none will.
inline constexpr int STREAM_END = 1;
int stream_verdict(const ch_stream *s) noexcept;

// Waits for attempt() to return something else than -EAGAIN.
template <class Attempt, class Ready>
int stream_wait(ch_object *o, event &e, i64 timeout_ns, Attempt attempt, Ready is_ready) noexcept
{
	const int rc = attempt();

	if (rc != -EAGAIN || timeout_ns == CH_TRY)
		return rc;
	// What we wait for is no claim: if who could do it dies, its sweeper changes the word and wakes us.
	return wait_until(o, e, timeout_ns, attempt, is_ready, [] { return u32{NOBODY}; });
}

// A timeout as it shrinks.
struct time_left {
	i64 given, until;

	explicit time_left(i64 timeout_ns) noexcept
	    : given(timeout_ns), until(timeout_ns == CH_TRY ? 0 : deadline_of(timeout_ns))
	{
	}
	i64 rest() const noexcept
	{
		const i64 now = given <= 0 || until == NEVER ? 0 : now_ns();
		return given <= 0 ? given : until == NEVER ? CH_FOREVER : until > now ? until - now : CH_TRY;
	}
	// -EAGAIN at the end of a rest that had become CH_TRY is the end of the call's time.
	int timed(int rc) const noexcept { return rc == -EAGAIN && given != CH_TRY ? -ETIMEDOUT : rc; }
};

} // namespace ch::core

// SPDX-License-Identifier: Apache-2.0
// board.h - what a pool's owner and its workers share, and how a task passes between them. Private.
//
// All of it lies in one segment without a name: the workers are forked and have it mapped already. A task has a slot,
// which only its owner writes while nobody has been told of it. Two channels tell:
//
//   tasks    ticket {slot, serial}                      owner -> any worker
//   results  result_head {slot, serial, kind}, bytes    worker -> owner; also that it is ready, or why it never will be
//
//   word           written by                                         read by
//   slot.state     owner: drafted(serial) while it writes the task,   worker, owner
//                  CAS -> queued(serial) before it sends the ticket;
//                  worker: CAS queued(serial) -> running(serial, me),
//                  CAS running -> ended before it sends the result;
//                  owner, after a death or to cancel: CAS -> 0, void;
//                  owner, to kill: CAS running -> condemned
//   slot.stop      owner: the serial of a task that may end early     the worker
//   slot, the rest owner, while no ticket of this serial is out       the worker that made it running
//   desk.ticket    its worker: ch_channel_recv copies there           owner, after the worker's death
//   desk.stage     its worker: how far it is                          owner
//   desk.begun_ns  its worker: when a task with a limit began, or 0   owner
//   levels         owner: bit n set before anything of priority n     workers
//   modules        owner, appended to                                 workers
//
// Each priority has a channel of tickets. An idle worker sleeps in that of normal ones; a ticket of another priority is
// followed by a nudge there, a ticket for nobody, which makes some worker look. A nudge that dies with its worker is
// made up for: who takes the worker's place looks before it sleeps.
//
// Why nothing is lost and nothing runs twice at a time, whenever a worker is killed:
//
//  1. A ticket is worth something only while slot.state is queued with its serial; whoever takes it must win the CAS.
//     Each queueing has a new serial. So a ticket too many does no harm: at most one of any number is ever run.
//  2. Where can a ticket be when its worker w died? ch_channel_recv copies it into the desk before the delivery is
//     final. Killed before that, the channel delivers it to another worker, and the desk may say the same, or
//     half of it; killed after, the desk says it for certain.
//  3. So the owner looks at w's desk. It names (slot, serial), and the state is
//       queued(serial)       w had not begun, and we cannot know whether the channel still has the ticket. The
//                            owner queues it again under a new serial; by 1. the old ticket, if it comes, is void.
//                            If a living worker has just got the old one, the owner's CAS fails, and all is well.
//       running(serial, w)   w had begun it, and has perhaps
//       ended(serial, w)     ended it, but no result was sent. It goes by on_death: queued again, or given up.
//       condemned(serial, w) the owner killed w for it: it ends as the owner has noted.
//       anything else        done, or another's: nothing to do. Half a ticket lands here, or does what
//                            queued(serial) does, which is harmless.
//  4. Is a result that w sent before it died taken for missing? No: its commit in the results channel is what ends the
//     task. Before the owner looks at the desk it sends a fence through that channel after w is dead; tickets of
//     the ring being in order, all that w committed comes out before the fence does.
//  5. A result that comes for a slot with another serial is dropped: it cannot be awaited any more.
//  6. Arguments stay the owner's until the result is there (in the slot, or in a block that the owner allocated),
//     so beginning anew needs nothing from the dead. Results travel as messages, whose memory returns by itself.
#pragma once
#include "modules.h"

#include <atomic>
#include <channels/channels.hpp>
#include <cstdint>
#include <memory>
#include <pool/options.hpp>

namespace ch::detail {

inline constexpr std::size_t line = 64;
inline constexpr int nr_priorities = 3;

struct ticket {
	std::uint32_t slot, serial;
};
static_assert(sizeof(ticket) == 8);

inline constexpr std::uint32_t nobody = UINT32_MAX;  // ticket.slot of a nudge
inline constexpr std::uint32_t go_home = UINT32_MAX - 1; // of a ticket that ends the worker that takes it

// serial:32, running:1, drafted:1, ended:1, condemned:1, worker:28. 0: void
inline constexpr std::uint64_t drafted(std::uint32_t serial) { return std::uint64_t{serial} << 32 | 1u << 30; }
inline constexpr std::uint64_t queued(std::uint32_t serial) { return std::uint64_t{serial} << 32; }
inline constexpr std::uint64_t running(std::uint32_t serial, std::uint32_t worker)
{
	return std::uint64_t{serial} << 32 | 1u << 31 | worker;
}
inline constexpr std::uint64_t ended(std::uint32_t serial, std::uint32_t worker)
{
	return std::uint64_t{serial} << 32 | 1u << 29 | worker;
}
inline constexpr std::uint64_t condemned(std::uint32_t serial, std::uint32_t worker)
{
	return std::uint64_t{serial} << 32 | 1u << 28 | worker;
}
// The worker that runs a task of this state and serial, if one does.
inline constexpr bool is_running(std::uint64_t state, std::uint32_t serial, std::uint32_t *out_worker)
{
	*out_worker = static_cast<std::uint32_t>(state) & ((1u << 28) - 1);
	return state == running(serial, *out_worker);
}

struct alignas(line) slot {
	static constexpr std::size_t inline_max = 208;

	std::atomic<std::uint64_t> state;
	std::uint64_t name;     // of the thunk
	std::uint64_t len;      // of its bytes
	std::int64_t block_off; // from the board; 0: the bytes are here
	std::int64_t limit_ns;  // 0: none
	std::atomic<std::uint32_t> stop;
	std::uint32_t attempt;
	std::byte bytes[inline_max];
};
static_assert(sizeof(slot) == 256);

enum class stage : std::uint32_t {
	unborn,
	initializing,
	ready,
	leaving, // will end in good order
	failed,  // cannot go on
};

struct alignas(line) desk {
	ticket at_hand;
	std::atomic<stage> at;
	std::uint32_t reserved;
	std::atomic<std::uint64_t> begun_ns;
};

enum class result_kind : std::uint32_t { value = 1, error, piece, fence, nothing, ready, init_failed };

struct result_head {
	std::uint32_t slot, serial;
	result_kind kind;
	std::uint32_t pad;
};
static_assert(sizeof(result_head) == 16);

// A result that found no memory in one piece comes in several, in order, after this.
struct piece_head {
	result_head head; // kind: piece
	result_kind kind; // of the whole
	std::uint32_t pad;
	std::uint64_t total, offset;
};

// Longest result that travels in the ring.
inline constexpr std::size_t small_message = 128;

struct alignas(line) board {
	std::uint32_t nr_slots, nr_desks;
	std::atomic<std::uint32_t> nr_modules;
	std::atomic<std::uint32_t> levels;
	fingerprint modules[max_modules];
};

// What another process needs to enter a room.
struct room_key {
	descriptor segment, pool, tasks[nr_priorities], results;
	std::int64_t board_off; // from the segment's beginning
	std::uint32_t nr_slots, nr_desks;
};

// The shared memory of one pool as one process sees it.
class room {
public:
	// Named: other processes than forked ones may enter. No option is 0.
	room(const pool_options &o, bool is_named);
	explicit room(const room_key &k); // enters another process's
	~room();
	room_key key() const;
	// Who made it is dead: its name is to go with us.
	void inherit() noexcept { is_orphan_ = true; }
	room(const room &) = delete;
	room &operator=(const room &) = delete;

	ch_pool *pool() const noexcept { return pool_; }
	ch_channel *tasks(priority p = priority::normal) const noexcept { return tasks_[static_cast<int>(p)]; }
	ch_channel *results() const noexcept { return results_; }
	board &head() const noexcept { return *board_; }
	desk &desk_of(std::uint32_t worker) const noexcept { return desks_[worker]; }
	slot &slot_at(std::uint32_t i) const noexcept { return slots_[i]; }
	std::uint32_t nr_slots() const noexcept { return nr_slots_; }
	std::uint32_t nr_desks() const noexcept { return nr_desks_; }
	std::int64_t offset_of(const void *p) const noexcept
	{
		return static_cast<const std::byte *>(p) - reinterpret_cast<const std::byte *>(board_);
	}
	std::byte *at(std::int64_t off) const noexcept { return reinterpret_cast<std::byte *>(board_) + off; }

private:
	void make(const pool_options &o, bool is_named);
	void make_pool(const pool_options &o, bool is_named);
	void enter(const room_key &k);
	void release() noexcept;

	pid_t creator_; // 0: entered
	ch_segment *segment_ = nullptr; // if it is named
	bool is_orphan_ = false;
	std::uint32_t nr_slots_, nr_desks_;
	ch_pool *pool_ = nullptr;
	ch_channel *tasks_[nr_priorities] = {}, *results_ = nullptr;
	board *board_ = nullptr;
	desk *desks_ = nullptr;
	slot *slots_ = nullptr;
};

} // namespace ch::detail

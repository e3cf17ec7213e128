// SPDX-License-Identifier: Apache-2.0
// room.cpp - making and leaving the shared memory of a pool.
#include "board.h"

#include <bit>
#include <new>
#include <unistd.h>

namespace ch::detail {
namespace {

ch_channel *make_channel(ch_pool *pool, std::uint32_t capacity, std::size_t inline_max, std::uint32_t spin_ns)
{
	ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	ch_channel *c = nullptr;

	attr.capacity = capacity;
	attr.inline_max = static_cast<std::uint32_t>(inline_max);
	attr.spin_ns = spin_ns;
	check(ch_channel_create(pool, &attr, &c));
	return c;
}

} // namespace

room::room(std::size_t memory, std::uint32_t nr_slots, std::uint32_t nr_desks, std::uint32_t spin_ns)
    : creator_(getpid()), nr_slots_(nr_slots), nr_desks_(nr_desks)
{
	try {
		make(memory, spin_ns);
	} catch (...) {
		release();
		throw;
	}
}

void room::make(std::size_t memory, std::uint32_t spin_ns)
{
	ch_pool_attr attr = CH_POOL_ATTR_INIT;
	void *p = nullptr;

	attr.len = memory;
	// The workers are forked and have it mapped. Without a name nothing is left however all of us end.
	attr.flags = CH_ANONYMOUS;
	// A dead worker's place is free again only when it is swept; its replacement may come before.
	attr.max_peers = 2 * nr_desks_ + 16;
	check(ch_pool_create(&attr, &pool_));
	// Void tickets (of what was taken back, or queued again) lie in the channel beside the live ones.
	// One that is full makes who submits wait, as being short of slots does: the other priorities' may be small.
	for (const priority l : {priority::normal, priority::high, priority::low}) {
		const std::uint32_t most = l == priority::normal ? 1u << 20 : 512;

		tasks_[static_cast<int>(l)] = make_channel(pool_, std::min(2 * nr_slots_, most), sizeof(ticket), spin_ns);
	}
	// Each worker says once that it is ready, whether or not anybody reads.
	results_ = make_channel(pool_, std::min(nr_slots_ + nr_desks_, 1u << 20), small_message, spin_ns);
	check(ch_pool_alloc(pool_, sizeof(board) + nr_desks_ * sizeof(desk) + nr_slots_ * sizeof(slot), CH_TRY, &p));
	board_ = new (p) board{nr_slots_, nr_desks_, 0, 0, {}};
	desks_ = new (board_ + 1) desk[nr_desks_]{};
	slots_ = reinterpret_cast<slot *>(desks_ + nr_desks_);
	for (std::uint32_t i = 0; i < nr_slots_; i++) {
		new (&slots_[i].state) std::atomic<std::uint64_t>(0);
		new (&slots_[i].stop) std::atomic<std::uint32_t>(0);
	}
}

room::~room()
{
	release();
}

void room::release() noexcept
{
	// In a process that was forked without the pool's knowledge the room is not ours to end.
	if (creator_ != getpid())
		return;
	for (ch_channel *c : tasks_)
		ch_channel_destroy(c);
	ch_channel_destroy(results_);
	ch_pool_destroy(pool_);
}

} // namespace ch::detail

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
	// Who is not killed with the creator learns of its end by theirs.
	ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	ch_channel *c = nullptr;

	attr.capacity = capacity;
	attr.inline_max = static_cast<std::uint32_t>(inline_max);
	attr.spin_ns = spin_ns;
	attr.flags = CH_CHANNEL_ENDS_WITH_CREATOR;
	check(ch_channel_create(pool, &attr, &c));
	return c;
}

} // namespace

room::room(const pool_options &o, bool is_named) : creator_(getpid()), nr_slots_(o.in_flight), nr_desks_(o.max_workers)
{
	try {
		make(o, is_named);
	} catch (...) {
		release();
		throw;
	}
}

room::room(const room_key &k) : creator_(0), nr_slots_(k.nr_slots), nr_desks_(k.nr_desks)
{
	try {
		enter(k);
	} catch (...) {
		release();
		throw;
	}
}

void room::enter(const room_key &k)
{
	check(ch_segment_attach(&k.segment, &segment_));
	check(ch_pool_attach(&k.pool, &pool_));
	for (int i = 0; i < nr_priorities; i++)
		check(ch_channel_attach(&k.tasks[i], &tasks_[i]));
	check(ch_channel_attach(&k.results, &results_));
	board_ = reinterpret_cast<board *>(static_cast<std::byte *>(ch_segment_addr(segment_)) + k.board_off);
	desks_ = reinterpret_cast<desk *>(board_ + 1);
	slots_ = reinterpret_cast<slot *>(desks_ + nr_desks_);
}

room_key room::key() const
{
	room_key k{};

	check(ch_segment_get_descr(segment_, &k.segment));
	check(ch_pool_get_descr(pool_, &k.pool));
	for (int i = 0; i < nr_priorities; i++)
		check(ch_channel_get_descr(tasks_[i], &k.tasks[i]));
	check(ch_channel_get_descr(results_, &k.results));
	k.board_off = reinterpret_cast<std::byte *>(board_) - static_cast<std::byte *>(ch_segment_addr(segment_));
	k.nr_slots = nr_slots_;
	k.nr_desks = nr_desks_;
	return k;
}

// Forked workers have it mapped, so it needs no name, and nothing is left however all of us end.
void room::make_pool(const pool_options &o, bool is_named)
{
	ch_pool_attr attr = CH_POOL_ATTR_INIT;
	descriptor d;

	attr.len = o.memory;
	attr.max_len = o.max_memory;
	attr.flags = is_named ? 0 : CH_ANONYMOUS;
	// A dead worker's place is free again only when it is swept; its replacement may come before.
	attr.max_peers = 2 * nr_desks_ + 16;
	check(ch_pool_create(&attr, &pool_));
	if (!is_named)
		return;
	check(ch_pool_get_descr(pool_, &d));
	check(ch_segment_attach(&d, &segment_));
}

void room::make(const pool_options &o, bool is_named)
{
	void *p = nullptr;

	make_pool(o, is_named);
	// Void tickets (of what was taken back, or queued again) lie in the channel beside the live ones.
	// One that is full makes who submits wait, as being short of slots does: the other priorities' may be small.
	for (const priority l : {priority::normal, priority::high, priority::low}) {
		const std::uint32_t most = l == priority::normal ? 1u << 20 : 512;

		tasks_[static_cast<int>(l)] = make_channel(pool_, std::min(2 * nr_slots_, most), sizeof(ticket), o.spin_ns);
	}
	// Each worker says once that it is ready, whether or not anybody reads.
	results_ = make_channel(pool_, std::min(nr_slots_ + nr_desks_, 1u << 20), small_message, o.spin_ns);
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
	if (!creator_) {
		for (ch_channel *c : tasks_)
			ch_channel_detach(c);
		ch_channel_detach(results_);
		ch_pool_detach(pool_);
		(is_orphan_ ? ch_segment_destroy : ch_segment_detach)(segment_);
		return;
	}
	// In a process that was forked without the pool's knowledge the room is not ours to end.
	if (creator_ != getpid())
		return;
	for (ch_channel *c : tasks_)
		ch_channel_destroy(c);
	ch_channel_destroy(results_);
	ch_pool_destroy(pool_); // and its segment
	ch_segment_detach(segment_);
}

} // namespace ch::detail

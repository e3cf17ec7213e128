// SPDX-License-Identifier: Apache-2.0
// core.cpp - tasks in the owner: a slot for each, from submission to completion.
#include "core.h"

#include <bit>
#include <cerrno>
#include <ctime>
#include <unistd.h>

namespace ch::detail {
namespace {

// A task's slot goes back when its result is there, so this bounds what is under way, not what is remembered.
std::uint32_t slots_for(const pool_options &o)
{
	if (o.in_flight)
		return std::min(std::max(o.in_flight, 2u), 1u << 19);
	return std::min(std::max(4096u, std::bit_ceil(4 * o.workers)), 1u << 19);
}

pool_options completed(pool_options o)
{
	if (!o.workers)
		o.workers = usable_cpus();
	if (o.workers > 65000)
		throw error(EINVAL, "pool: at most 65000 workers");
	o.max_attempts = std::max(1u, o.max_attempts);
	o.in_flight = slots_for(o);
	return o;
}

[[noreturn]] void refuse(bool is_broken)
{
	if (is_broken)
		throw error(EPIPE, "pool: its workers are gone and cannot be started");
	throw error(EPIPE, "pool: closed");
}

} // namespace

core::core(const pool_options &o)
    : opt_(completed(o)), creator_(getpid()),
      room_(std::make_shared<room>(opt_.memory, opt_.in_flight, opt_.workers, opt_.spin_ns)),
      block_budget_(opt_.memory / 8 * 5), held_budget_(opt_.memory / 8), recs_(opt_.in_flight), workers_(opt_.workers),
      held_(std::make_shared<std::atomic<std::size_t>>(0))
{
	free_.reserve(opt_.in_flight);
	for (std::uint32_t i = opt_.in_flight; i > 0; i--)
		free_.push_back(i - 1);
}

core::~core() = default;

void core::check_process() const
{
	if (creator_ != getpid())
		throw error(EPERM, "pool: it belongs to the process that made it; make another one here");
}

// What the names in a task stand for, before it is sent.
void core::publish_modules()
{
	board &b = room_->head();

	for (const std::uint32_t n = count_modules(); nr_modules_ < n; nr_modules_++) {
		b.modules[nr_modules_] = known_module(nr_modules_);
		// [B1] pairs with [B1] in worker.cpp: the fingerprint is whole before it counts.
		b.nr_modules.store(nr_modules_ + 1, std::memory_order_release);
	}
}

// False: the pool is closed or broken.
bool core::reserve(lock &l, std::size_t block_len, std::uint32_t *out_slot)
{
	const auto has_room = [&] { return !free_.empty() && (!block_len || blocks_ + block_len <= block_budget_); };

	if (!has_room())
		wait_until(l, [&] { return has_room() || !is_open_ || is_broken_; }, deadline(CH_FOREVER));
	if (!is_open_ || is_broken_)
		return false;
	*out_slot = free_.back();
	free_.pop_back();
	blocks_ += block_len;
	recs_[*out_slot].block_len = block_len;
	return true;
}

// Memory for long arguments. When it is short, waits for tasks to end; when none is under way, gives up.
std::byte *core::get_block(std::uint32_t i, std::size_t len)
{
	slot &s = room_->slot_at(i);
	void *p = nullptr;

	for (int tries = 0;; tries++) {
		const int rc = ch_pool_alloc(room_->pool(), len, CH_TRY, &p);

		if (rc == 0)
			break;
		if (rc != -ENOSPC)
			raise(rc);
		lock l(m_);
		const std::uint64_t done = stats_.done;
		if (stats_.in_flight == 0 && ((*held_ == 0 && blocks_ == len) || tries > 1000))
			throw error(ENOSPC, ("pool: no room for " + std::to_string(len) +
					     " bytes of arguments: raise pool_options.memory").c_str());
		// Results that wait in futures, and other threads' arguments, need no task to end: look again shortly.
		wait_until(l, [&] { return stats_.done != done || !is_open_ || is_broken_; },
			   deadline(stats_.in_flight ? CH_FOREVER : 1000000));
		if (is_broken_)
			refuse(true);
	}
	s.block_off = room_->offset_of(p);
	return static_cast<std::byte *>(p);
}

std::uint32_t core::begin_task(std::uint64_t name, std::size_t len, std::byte **out_room)
{
	const std::size_t block_len = len > slot::inline_max ? len : 0;
	std::uint32_t i = 0;

	check_process();
	if (block_len > block_budget_)
		throw error(EMSGSIZE, ("pool: " + std::to_string(len) + " bytes of arguments, at most 5/8 of the pool's " +
				       std::to_string(opt_.memory) + ": raise pool_options.memory").c_str());
	lock l(m_);
	if (!reserve(l, block_len, &i))
		refuse(is_broken_);
	l.unlock();
	slot &s = room_->slot_at(i);
	s.name = name;
	s.len = len;
	s.block_off = 0;
	try {
		*out_room = block_len ? get_block(i, len) : s.bytes;
	} catch (...) {
		abandon_task(i);
		throw;
	}
	return i;
}

void core::abandon_task(std::uint32_t i) noexcept
{
	const lock l(m_);

	free_slot(i);
	wake_done();
}

task *core::commit_task(std::uint32_t i)
{
	std::unique_ptr<task> t(new task);
	lock l(m_);

	if (is_stopping_ || is_broken_)
		refuse(is_broken_);
	publish_modules();
	record &r = recs_[i];
	r.serial += r.serial == UINT32_MAX ? 2 : 1; // never 0: state 0 is nobody's
	r.attempts = 0;
	r.t = t.get();
	t->owner = shared_from_this();
	t->slot = i;
	t->refs.store(2, std::memory_order_relaxed); // nobody else knows it yet
	stats_.submitted++;
	stats_.in_flight++;
	// Relaxed: the ticket's commit publishes it.
	room_->slot_at(i).state.store(queued(r.serial), std::memory_order_relaxed);
	const ticket tk{i, r.serial};
	l.unlock();
	send_ticket(tk);
	return t.release();
}

void core::send_ticket(ticket tk) noexcept
try {
	int rc = ch_channel_send(room_->tasks(), &tk, sizeof(tk), CH_TRY);

	// There is a place for every live ticket. If it is full of void ones the workers clear it, unless they wait
	// for somebody to read results.
	while (rc == -EAGAIN || rc == -ETIMEDOUT) {
		lock l(m_);
		while (!is_reading_ && read_one(l, CH_TRY))
			;
		l.unlock();
		rc = ch_channel_send(room_->tasks(), &tk, sizeof(tk), 20000000);
	}
	if (rc < 0 && rc != -EPIPE) // closed: it ends with everything that did not run
		give_up(std::strerror(-rc));
} catch (...) {
	give_up("out of memory");
}

// Gives slot and block back; the record keeps its serial.
void core::free_slot(std::uint32_t i) noexcept
{
	slot &s = room_->slot_at(i);
	record &r = recs_[i];

	if (s.block_off)
		ch_pool_free(room_->pool(), room_->at(s.block_off));
	s.block_off = 0;
	blocks_ -= r.block_len;
	r.block_len = 0;
	r.t = nullptr;
	free_.push_back(i);
}

// The task of a slot is over. Its result, if any, is in it already.
void core::complete(std::uint32_t i, outcome what) noexcept
{
	task *t = recs_[i].t;

	t->what = what;
	stats_.in_flight--;
	stats_.done += what == outcome::value || what == outcome::error;
	stats_.given_up += what == outcome::died;
	free_slot(i);
	// [T1] pairs with [T1] in future.hpp.
	t->is_ready.store(true, std::memory_order_release);
	unref(t);
}

void core::fail_all(outcome what) noexcept
{
	for (std::uint32_t i = 0; i < recs_.size(); i++)
		if (recs_[i].t) {
			room_->slot_at(i).state.store(0, std::memory_order_relaxed); // tickets are void; nobody needs to hurry
			complete(i, what);
		}
	wake_done();
	poke();
}

bool core::cancel(task &t) noexcept
{
	const lock l(m_);

	if (t.is_ready.load(std::memory_order_relaxed)) // set under m_
		return false;
	const std::uint32_t i = t.slot;
	std::uint64_t waiting = queued(recs_[i].serial);
	if (!room_->slot_at(i).state.compare_exchange_strong(waiting, 0, std::memory_order_acq_rel))
		return false;
	complete(i, outcome::cancelled);
	wake_done();
	poke();
	return true;
}

void core::close() noexcept
{
	const lock l(m_);

	is_open_ = false;
	wake_done();
	poke();
}

pool_stats core::stats()
{
	const lock l(m_);
	pool_stats s = stats_;

	for (const worker &w : workers_)
		s.workers += w.is_running;
	return s;
}

// ---- what the headers call

task::~task()
{
	if (is_held)
		delete static_cast<held_message *>(held);
	else if (data != small_)
		delete[] data;
}

void unref(task *t) noexcept
{
	// The last one must see what the others did to it.
	if (t->refs.fetch_sub(1, std::memory_order_acq_rel) == 1)
		delete t;
}

bool cancel(task &t) noexcept
{
	// [T1] pairs with [T1]. Not ready: the core is there.
	return !t.is_ready.load(std::memory_order_acquire) && t.owner->cancel(t);
}

void throw_outcome(const task &t)
{
	if (t.what == outcome::error)
		rethrow(archive::read<error_record>(t.bytes()));
	if (t.what == outcome::died)
		throw worker_died(t.pid, t.status, t.attempts);
	if (t.what == outcome::lost)
		refuse(true);
	if (t.what == outcome::no_memory)
		throw std::bad_alloc();
	throw error(ECANCELED, "task: the pool was ended before it was done");
}

draft::draft(core &c, std::uint64_t name, std::size_t len) : core_(c), len_(len)
{
	slot_ = c.begin_task(name, len, &data_);
	is_mine_ = true;
}

draft::~draft()
{
	if (is_mine_)
		core_.abandon_task(slot_);
}

task_ref draft::commit()
{
	task *t = core_.commit_task(slot_);

	is_mine_ = false;
	return task_ref(t);
}

unsigned worker_count(const core &c) noexcept
{
	return c.options().workers;
}

std::uint64_t now_ns() noexcept
{
	timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return static_cast<std::uint64_t>(ts.tv_sec) * 1000000000 + static_cast<std::uint64_t>(ts.tv_nsec);
}

} // namespace ch::detail

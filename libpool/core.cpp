// SPDX-License-Identifier: Apache-2.0
// core.cpp - tasks in the owner: a slot for each, from submission to completion.
#include "core.h"

#include <bit>
#include <cerrno>
#include <ctime>
#include <pthread.h>
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

// Room is left for growth that the machine could serve.
std::size_t growth_of(std::size_t memory)
{
	const std::size_t machine = static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE));

	return memory < machine / 8 ? 8 * memory : std::max(memory, machine);
}

pool_options completed(pool_options o)
{
	check_placement(o.placement);
	if (!o.workers)
		o.workers = o.placement.is_anywhere() ? usable_cpus() : static_cast<unsigned>(o.placement.all().size());
	if (o.workers > 65000)
		throw error(EINVAL, "pool: at most 65000 workers");
	o.max_attempts = std::max(1u, o.max_attempts);
	if (!o.max_workers)
		o.max_workers = std::min(std::max(64u, 4 * o.workers), 65000u);
	o.max_workers = std::max(o.max_workers, o.workers);
	if (o.max_workers > 65000)
		throw error(EINVAL, "pool: at most 65000 workers");
	o.in_flight = slots_for(o);
	o.max_memory = o.max_memory ? std::max(o.memory, o.max_memory) : growth_of(o.memory);
	return o;
}

} // namespace

[[noreturn]] static void refuse(const std::string &reason)
{
	throw error(EPIPE, (reason.empty() ? "pool: closed" : "pool: given up: " + reason).c_str());
}

// How many forks away from the first process this one is; getpid(2) costs a system call.
static unsigned generation;

static unsigned count_forks()
{
	static const int registered = pthread_atfork(nullptr, nullptr, [] { generation++; });

	(void)registered;
	return generation;
}

core::core(const pool_options &o, bool is_spmd)
    : opt_(completed(o)), creator_(getpid()), generation_(count_forks()),
      room_(std::make_shared<room>(opt_, is_spmd)),
      block_budget_(opt_.memory / 8 * 5), held_budget_(opt_.memory / 8), recs_(opt_.in_flight),
      workers_(opt_.max_workers), held_(std::make_shared<std::atomic<std::size_t>>(0)), target_(opt_.workers)
{
	free_.reserve(opt_.in_flight);
	for (std::uint32_t i = opt_.in_flight; i > 0; i--)
		free_.push_back(i - 1);
}

void core::check_process() const
{
	if (generation_ != generation)
		throw error(EPERM, "pool: it belongs to the process that made it; make another one here");
}

// What the names in a task stand for, before it is sent.
void core::publish_modules()
{
	board &b = room_->head();
	const lock l(m_);

	// Relaxed: changed under m_ only.
	for (std::uint32_t i = nr_modules_.load(std::memory_order_relaxed); i < count_modules(); i++) {
		b.modules[i] = known_module(i);
		// [B1] pairs with [B1] in worker.cpp: the fingerprint is whole before it counts.
		b.nr_modules.store(i + 1, std::memory_order_release);
		nr_modules_.store(i + 1, std::memory_order_relaxed);
	}
}

// A place for a task, and its record; then it may end as any other, terminate() included, while it is still written.
void core::fill_record(record &r, task &t, const task_options *o)
{
	static const task_options plain;

	if (!o)
		o = &plain;
	r.serial = next_serial(r.serial);
	r.attempts = 0;
	r.limit_ns = o->timeout.count() > 0 ? o->timeout.count() : opt_.timeout.count();
	r.max_attempts = o->max_attempts ? o->max_attempts : opt_.max_attempts;
	r.retries = o->retries;
	r.on_death = o->on_death.value_or(opt_.on_death);
	r.level = o->priority;
	if (!o->name.empty())
		t.name = std::make_unique<std::string>(o->name);
	if (r.limit_ns > 0)
		note_limit(r.limit_ns);
	// [B6] pairs with [B6] in worker.cpp: who is nudged looks at this level.
	if (r.level != priority::normal)
		room_->head().levels.fetch_or(1u << static_cast<int>(r.level), std::memory_order_release);
}

task *core::reserve(std::size_t block_len, const task_options *o)
{
	// What is longer than the budget goes alone, and has the memory grow.
	const auto has_room = [&] {
		return !free_.empty() && (!block_len || !blocks_ || blocks_ + block_len <= block_budget_);
	};
	std::unique_ptr<task> t(new task);
	lock l(m_);

	if (!has_room())
		wait_until(l, [&] { return has_room() || !is_open_ || is_broken_; }, deadline(CH_FOREVER));
	if (!is_open_ || is_broken_)
		refuse(reason_);
	const std::uint32_t i = free_.back();
	record &r = recs_[i];
	// [B3] pairs with [B3] in commit_task: the last writer of slot and record may have been another thread. The tickets
	// and results between us order that too, but through another process, where ThreadSanitizer does not look.
	(void)room_->slot_at(i).state.load(std::memory_order_acquire);
	fill_record(r, *t, o);
	r.t = t.get();
	r.block_len = block_len;
	t->owner = shared_from_this();
	t->slot = i;
	t->serial = r.serial;
	t->refs.store(2, std::memory_order_relaxed); // nobody else knows it yet
	free_.pop_back();
	blocks_ += block_len;
	stats_.submitted++;
	stats_.in_flight++;
	nr_limited_ += r.limit_ns > 0;
	// Relaxed: nobody has been told of it.
	room_->slot_at(i).state.store(drafted(r.serial), std::memory_order_relaxed);
	return t.release();
}

// Memory for long arguments. When it is short, waits for tasks to end; when none is under way, gives up.
std::byte *core::get_block(record &r, std::size_t len)
{
	void *p = nullptr;

	for (int tries = 0;; tries++) {
		const int rc = ch_pool_alloc(room_->pool(), len, CH_TRY, &p);

		if (rc < 0 && rc != -ENOSPC)
			raise(rc);
		lock l(m_);
		if (rc == 0) {
			r.block = p;
			return static_cast<std::byte *>(p);
		}
		const std::uint64_t done = stats_.done;
		const bool is_alone = stats_.in_flight == ++nr_short_; // all that is there waits for memory as we do
		if (is_alone && ((*held_ == 0 && blocks_ == len) || tries > 1000)) {
			nr_short_--;
			throw error(ENOSPC, ("pool: no room for " + std::to_string(len) +
					     " bytes of arguments: raise pool_options.max_memory").c_str());
		}
		// Results that wait in futures, and other threads' arguments, need no task to end: look again shortly.
		wait_until(l, [&] { return stats_.done != done || is_stopping_ || is_broken_; },
			   deadline(is_alone ? 1000000 : CH_FOREVER));
		nr_short_--;
		if (is_broken_ || is_stopping_)
			refuse(reason_);
	}
}

task *core::begin_task(std::uint64_t name, std::size_t len, std::byte **out_room, const task_options *o)
{
	const std::size_t block_len = len > slot::inline_max ? len : 0;

	check_process();
	if (block_len > opt_.max_memory / 8 * 5)
		throw error(EMSGSIZE, ("pool: " + std::to_string(len) + " bytes of arguments, at most 5/8 of the pool's " +
				       std::to_string(opt_.max_memory) + ": raise pool_options.max_memory").c_str());
	task *t = reserve(block_len, o);
	slot &s = room_->slot_at(t->slot);
	s.name = name;
	s.len = len;
	s.block_off = 0;
	s.limit_ns = recs_[t->slot].limit_ns;
	s.attempt = 1;
	*out_room = s.bytes;
	try {
		if (block_len) {
			*out_room = get_block(recs_[t->slot], len);
			s.block_off = room_->offset_of(*out_room);
		}
	} catch (...) {
		abandon_task(t);
		throw;
	}
	return t;
}

// Ends a task that was not sent.
void core::void_task(task *t) noexcept
{
	const lock l(m_);

	complete(t->slot, is_broken_ ? outcome::lost : outcome::cancelled);
	wake_done();
	poke();
}

void core::abandon_task(task *t) noexcept
{
	void_task(t);
	unref(t);
}

void core::commit_task(task *t) noexcept
{
	const ticket tk{t->slot, t->serial};
	const priority level = recs_[t->slot].level; // ours until it is queued, as the next
	const bool is_short = room_->slot_at(tk.slot).len <= slot::inline_max;
	std::uint64_t mine = drafted(t->serial);

	if (count_modules() > nr_modules_.load(std::memory_order_relaxed)) [[unlikely]] // read again in there
		publish_modules();
	nr_committing_.fetch_add(1, std::memory_order_relaxed); // published by the next line: who takes the task back sees it
	// [B3] pairs with [B3] in reserve. To workers the ticket's commit publishes it. If it fails, terminate() was faster.
	if (room_->slot_at(tk.slot).state.compare_exchange_strong(mine, queued(tk.serial), std::memory_order_release,
								  std::memory_order_relaxed)) {
		if (convoy_ && is_short && level == priority::normal && gather(tk))
			return; // it counts until it is sent
		send_ticket({tk, level});
	} else {
		void_task(t);
	}
	nr_committing_.fetch_sub(1, std::memory_order_release); // [B5] pairs with [B5] in monitor.cpp
}

void core::send_ticket(outgoing o) noexcept
try {
	ch_channel *to = room_->tasks(o.level);
	int rc = ch_channel_send(to, &o.t, sizeof(o.t), CH_TRY);

	// There is a place for every live ticket. If it is full of void ones the workers clear it, unless they wait
	// for somebody to read results.
	while (rc == -EAGAIN || rc == -ETIMEDOUT) {
		lock l(m_);
		while (!is_reading_ && read_some(l, CH_TRY))
			;
		l.unlock();
		rc = ch_channel_send(to, &o.t, sizeof(o.t), 20000000);
	}
	if (rc == 0 && o.level != priority::normal)
		nudge();
	if (rc < 0 && rc != -EPIPE) // closed: it ends with everything that did not run
		give_up(std::strerror(-rc));
} catch (...) {
	give_up("out of memory");
}

// ---- many at a time

constinit thread_local convoy *core::convoy_;

convoy::convoy(core &c) noexcept : core_(c), outer_(std::exchange(core::convoy_, this)) {}

convoy::~convoy()
{
	core_.send_gathered();
	core::convoy_ = outer_;
}

// False: it goes alone.
bool core::gather(ticket t) noexcept
{
	convoy &v = *convoy_;

	if (&v.core_ != this)
		return false;
	v.tickets_[v.nr_++] = {t.slot, t.serial};
	if (v.nr_ == convoy::most)
		send_gathered();
	return true;
}

void core::send_gathered() noexcept
{
	ch_send_item items[convoy::most];
	convoy &v = *convoy_;

	if (&v.core_ != this)
		return;
	const std::uint32_t nr = std::exchange(v.nr_, 0);
	for (std::uint32_t i = 0; i < nr; i++)
		items[i] = {&v.tickets_[i], sizeof(ticket)};
	for (std::uint32_t i = 0; i < nr;) {
		const ssize_t n = ch_channel_send_batch(room_->tasks(), items + i, nr - i, CH_TRY);

		if (n <= 0)
			send_ticket({{v.tickets_[i].slot, v.tickets_[i].serial}, priority::normal});
		i += n > 0 ? static_cast<std::uint32_t>(n) : 1;
	}
	if (nr)
		// [B5] pairs with [B5] in monitor.cpp
		nr_committing_.fetch_sub(static_cast<int>(nr), std::memory_order_release);
}

// Some idle worker looks at all priorities. If the channel is full, none is idle.
void core::nudge() noexcept
{
	const ticket t{nobody, 0};

	(void)ch_channel_send(room_->tasks(), &t, sizeof(t), CH_TRY);
}

// Gives slot and block back; the record keeps its serial.
void core::free_slot(std::uint32_t i) noexcept
{
	record &r = recs_[i];

	if (r.block)
		ch_pool_free(room_->pool(), r.block);
	r.block = nullptr;
	blocks_ -= r.block_len;
	r.block_len = 0;
	r.t = nullptr;
	free_.push_back(i);
	__builtin_prefetch(&room_->slot_at(i), 1); // the next task's, from the worker that had this one
}

// The task of a slot is over. Its result, if any, is in it already.
void core::complete(std::uint32_t i, outcome what) noexcept
{
	task *t = recs_[i].t;

	stats_.in_flight--;
	stats_.done += what == outcome::value || what == outcome::error;
	stats_.failed += what == outcome::error;
	stats_.given_up += what == outcome::died;
	stats_.timed_out += what == outcome::timeout;
	stats_.cancelled += what == outcome::cancelled;
	nr_limited_ -= recs_[i].limit_ns > 0;
	free_slot(i);
	finish(t, what);
}

// What is being written is left to who writes it, who will see that it is void.
void core::fail_all(outcome what) noexcept
{
	for (std::uint32_t i = 0; i < recs_.size(); i++) {
		if (!recs_[i].t)
			continue;
		std::atomic<std::uint64_t> &state = room_->slot_at(i).state;
		std::uint64_t draft = drafted(recs_[i].serial);

		// Relaxed: no worker will need to know, and who writes the draft asks with m_ held.
		if (state.compare_exchange_strong(draft, 0, std::memory_order_relaxed) || draft == 0)
			continue;
		state.store(0, std::memory_order_relaxed); // tickets are void; see above
		complete(i, what);
	}
	wake_done();
	poke();
}

// Makes a task's tickets void, if no worker has begun it.
bool core::take_back(std::uint32_t i) noexcept
{
	std::uint64_t waiting = queued(recs_[i].serial);

	// [B2] pairs with [B2] in worker.cpp.
	return room_->slot_at(i).state.compare_exchange_strong(waiting, 0, std::memory_order_acq_rel);
}

bool core::cancel(task &t) noexcept
{
	const lock l(m_);

	if (t.is_ready.load(std::memory_order_relaxed) || t.slot == task::no_slot) // set under m_
		return false;
	if (!take_back(t.slot))
		return false;
	complete(t.slot, outcome::cancelled);
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

	for (std::uint32_t i = 0; i < workers_.size(); i++)
		s.workers += workers_[i].is_running;
	for (std::uint32_t i = 0; i < recs_.size() && s.in_flight && room_; i++) {
		std::uint32_t w;

		// Relaxed: a picture of the moment.
		if (recs_[i].t)
			s.busy += is_running(room_->slot_at(i).state.load(std::memory_order_relaxed), recs_[i].serial, &w);
	}
	return s;
}

// ---- memory of tasks
//
// A thread keeps that of the last ones it threw away: a map gives dozens back and takes as many, which is more than malloc
// has at hand.

namespace {

struct {
	void *at[64];
	std::uint32_t nr;
	bool is_over; // the thread ends
} constinit thread_local spare_tasks{};

struct spare_tasks_end {
	~spare_tasks_end()
	{
		spare_tasks.is_over = true;
		while (spare_tasks.nr)
			::operator delete(spare_tasks.at[--spare_tasks.nr]);
	}
};

} // namespace

void *task::operator new(std::size_t len)
{
	return spare_tasks.nr ? spare_tasks.at[--spare_tasks.nr] : ::operator new(len);
}

void task::operator delete(void *p) noexcept
{
	static thread_local spare_tasks_end end;

	(void)end;
	if (spare_tasks.nr < std::size(spare_tasks.at) && !spare_tasks.is_over)
		spare_tasks.at[spare_tasks.nr++] = p;
	else
		::operator delete(p);
}

// ---- what the headers call

task::~task()
{
	clear();
}

void task::clear() noexcept
{
	if (is_held)
		delete static_cast<held_message *>(held);
	else if (data != small_)
		delete[] data;
	is_held = false;
	data = nullptr;
	len = 0;
}

void unref(task *t) noexcept
{
	// The last one must see what the others did to it; and nobody can join it.
	if (t->refs.load(std::memory_order_acquire) == 1 || t->refs.fetch_sub(1, std::memory_order_acq_rel) == 1)
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
	const std::string name = t.name ? *t.name : "";
	if (t.what == outcome::died)
		throw worker_died(t.pid, t.status, t.attempts, name);
	if (t.what == outcome::timeout)
		throw task_timeout(t.pid, name);
	if (t.what == outcome::lost)
		refuse(t.owner->reason());
	if (t.what == outcome::no_memory)
		throw std::bad_alloc();
	throw error(ECANCELED, ("task " + name + (name.empty() ? "" : ": ") + "cancelled, or its pool was ended").c_str());
}

std::exception_ptr exception_of(const task &t) noexcept
{
	try {
		throw_outcome(t);
	} catch (...) {
		return std::current_exception();
	}
}

draft::draft(core &c, std::uint64_t name, std::size_t len, const task_options *o) : core_(c), len_(len)
{
	task_ = c.begin_task(name, len, &data_, o);
}

draft::~draft()
{
	if (task_)
		core_.abandon_task(task_);
}

task_ref draft::commit() noexcept
{
	core_.commit_task(task_);
	return task_ref(std::exchange(task_, nullptr));
}

unsigned worker_count(core &c) noexcept
{
	return c.size();
}

void refuse_items()
{
	throw archive_error("map: a chunk's bytes are not those of its items");
}

std::uint64_t now_ns() noexcept
{
	timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return static_cast<std::uint64_t>(ts.tv_sec) * 1000000000 + static_cast<std::uint64_t>(ts.tv_nsec);
}

} // namespace ch::detail

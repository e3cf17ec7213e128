// SPDX-License-Identifier: Apache-2.0
// monitor.cpp - the workers of a pool: starting them, what their deaths mean, and the end.
//
// One thread sleeps in ch_spawner_wait. It is on no task's way: it wakes when a worker ends.
#include "core.h"
#include "launch.h"
#include "peer.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <sys/wait.h>
#include <unistd.h>

namespace ch::detail {

// How long workers get at the end to write out what they buffered.
static constexpr std::chrono::seconds end_patience{10};
static constexpr std::uint32_t early_max = 16;
static constexpr std::uint64_t hopeless_ns = 5000000000;
static constexpr unsigned replaced_max = 8;

// A place that is free is got ready: under the lock, or before anybody else knows of this pool.
void core::lay_desk(std::uint32_t i) noexcept
{
	desk &d = room_->desk_of(i);

	workers_[i].nr_starts++;
	workers_[i].peer = {};
	workers_[i].is_running = true;
	d.at_hand = ticket{0, 0}; // its last user is dead and dealt with
	d.at.store(stage::unborn, std::memory_order_relaxed);
	d.begun_ns.store(0, std::memory_order_relaxed);
}

// Its place is taken before it can run, so that its end is not missed; until its name is known that is 0. Nothing to do if
// another thread starts one there.
int core::start_worker(std::uint32_t i) noexcept
{
	ch_peer peer{};
	lock l(m_);
	worker &w = workers_[i];

	if (w.is_running)
		return 0;
	lay_desk(i);
	const unsigned start = w.nr_starts;
	ch_spawner *const from = spawner_;
	const worker_arg arg{this, i, !retired_.empty()};
	l.unlock();
	const int rc = ch_spawner_spawn(from, worker_main, &arg, sizeof(arg), i, &peer);
	l.lock();
	if (!w.is_running || w.nr_starts != start)
		return rc; // it has ended already
	if (rc == 0) {
		w.peer = peer;
		wake_done(); // it may have been ready before it had a name
		poke();
	} else if (rc != -EPIPE) { // the spawner's end is dealt with in replace_spawner(): it may have forked
		w.is_running = false;
	}
	return rc;
}

// The first ones, before anybody else knows of this pool.
void core::start_all()
{
	std::vector<worker_arg> args;
	std::vector<ch_peer> peers(opt_.workers);

	for (std::uint32_t i = 0; i < opt_.workers; i++) {
		lay_desk(i);
		args.push_back({this, i, false});
	}
	check(ch_spawner_spawn_many(spawner_, worker_main, args.data(), sizeof(args[0]), 0, args.size(), peers.data()));
	for (std::uint32_t i = 0; i < opt_.workers; i++)
		workers_[i].peer = peers[i];
}

void core::start()
{
	std::cout.flush();
	std::clog.flush();
	check(new_spawner(&spawner_));
	try {
		start_all();
		monitor_ = quiet_thread([this] { watch(); });
	} catch (...) {
		ch_spawner_destroy(spawner_);
		throw;
	}
}

void core::watch() noexcept
try {
	std::vector<ch_exit> dead;
	ch_exit e;
	int rc;

	for (;;) {
		// A timeout only while a worker could not be replaced.
		rc = ch_spawner_wait(spawner_, is_short() ? 200000000 : CH_FOREVER, &e);
		if (rc == -EPIPE && replace_spawner()) {
			refill();
			continue;
		}
		if (rc < 0 && rc != -ETIMEDOUT)
			break;
		dead.clear();
		while (rc == 0) {
			dead.push_back(e);
			rc = ch_spawner_wait(spawner_, CH_TRY, &e);
		}
		if (!dead.empty())
			bury(dead);
		refill();
	}
	if (rc != -ECANCELED)
		give_up(rc == -EPIPE ? "its spawner was killed" : std::strerror(-rc));
} catch (...) {
	give_up("out of memory");
}

// The spawner was killed, and its children with it: the kernel killed them before its pidfd told us, those too whose names we
// never learnt. What they had is begun anew as after any death.
void core::settle_children()
{
	std::vector<ch_exit> dead;
	lock l(m_);

	if (nr_replaced_++ == 0)
		replaced_since_ns_ = now_ns();
	for (std::uint32_t i = 0; i < workers_.size(); i++) {
		if (!workers_[i].is_running)
			continue;
		if (room_->desk_of(i).at.load(std::memory_order_relaxed) == stage::ready) // it is dead, or as good as
			nr_replaced_ = 0; // this spawner was of use
		dead.push_back({workers_[i].peer, i, SIGKILL});
	}
	l.unlock();
	for (const ch_exit &e : dead) {
		if (signal_peer(e.peer, SIGKILL) == 0) // one that had asked the kernel not to
			await_end(e.peer);
		// Relaxed: it is dead. How far it had got says nothing of why it ended.
		room_->desk_of(static_cast<std::uint32_t>(e.cookie)).at.store(stage::ready, std::memory_order_relaxed);
	}
	if (!dead.empty())
		bury(dead);
}

// Another spawner, forked from what this process is now. False: the end, or there is none that lives long enough to be of
// use.
bool core::replace_spawner()
{
	ch_spawner *fresh = nullptr;

	settle_children();
	if ((nr_replaced_ > replaced_max && now_ns() - replaced_since_ns_ > hopeless_ns) || new_spawner(&fresh) < 0)
		return false;
	const lock l(m_);
	if (is_stopping_ || is_broken_) {
		ch_spawner_destroy(fresh);
		return false;
	}
	for (worker &w : workers_)
		w.is_running = false; // taken since by who does not know yet that the old one is gone
	retired_.push_back(spawner_); // others may be at it
	spawner_ = fresh;
	return true;
}

bool core::is_short()
{
	const lock l(m_);

	return !is_stopping_ && !is_broken_ && nr_running() < target_;
}

unsigned core::nr_running() const noexcept
{
	return static_cast<unsigned>(
		std::count_if(workers_.begin(), workers_.end(), [](const worker &w) { return w.is_running; }));
}

// They died. First all that they finished must be known: see board.h, 3 and 4.
void core::bury(std::vector<ch_exit> &dead)
{
	std::vector<outgoing> again;

	ch_pool_sweep(room_->pool());
	pass_fence();
	lock l(m_);
	for (const ch_exit &e : dead)
		settle(e, again);
	if (opt_.initializer && early_deaths_ >= opt_.max_attempts)
		give_up_locked("its initializer kills the workers");
	if (is_hopeless())
		give_up_locked("its workers die as soon as they are started");
	wake_done();
	poke();
	gone_.notify_all();
	l.unlock();
	for (const outgoing &o : again)
		send_ticket(o);
}

// No worker has got as far as to take a task for a while, though many were started.
bool core::is_hopeless() const noexcept
{
	return early_deaths_ >= std::max(early_max, 2 * target_) && now_ns() - early_since_ns_ > hopeless_ns;
}

// Whether it went without being asked to.
bool core::count_death(std::uint32_t w) noexcept
{
	// Relaxed: it is dead.
	const stage at = room_->desk_of(w).at.load(std::memory_order_relaxed);

	if (at == stage::ready || at == stage::leaving)
		early_deaths_ = 0;
	else if (early_deaths_++ == 0)
		early_since_ns_ = now_ns();
	stats_.recycled += at == stage::leaving && !is_stopping_ && nr_running() < target_;
	return at != stage::leaving;
}

void core::settle(const ch_exit &e, std::vector<outgoing> &out)
{
	const auto w = static_cast<std::uint32_t>(e.cookie);

	// The name is 0 while start_worker() has not heard it.
	if (w >= workers_.size() || !workers_[w].is_running || (workers_[w].peer.id && workers_[w].peer.id != e.peer.id))
		return;
	workers_[w].is_running = false;
	const bool is_death = count_death(w) && !is_stopping_;
	const ticket t = room_->desk_of(w).at_hand;
	stats_.deaths += is_death;
	if (t.slot >= recs_.size() || !recs_[t.slot].t || recs_[t.slot].serial != t.serial)
		return;
	record &r = recs_[t.slot];
	std::atomic<std::uint64_t> &state = room_->slot_at(t.slot).state;
	std::uint64_t now = queued(t.serial);
	// [B2] pairs with [B2] in worker.cpp: a living worker has won it, or it is void from here on.
	if (state.compare_exchange_strong(now, 0, std::memory_order_acq_rel))
		return again(r, t.slot, false, out);
	r.t->pid = ch_peer_pid(e.peer);
	if (now == condemned(t.serial, w)) {
		stats_.deaths -= is_death; // we have killed it
		return complete(t.slot, r.verdict);
	}
	if (now != running(t.serial, w) && now != ended(t.serial, w))
		return;
	r.attempts++;
	if (r.on_death == on_death::requeue && r.attempts < r.max_attempts && !is_stopping_) {
		stats_.requeued++;
		return again(r, t.slot, true, out);
	}
	r.t->status = e.status;
	r.t->attempts = r.attempts;
	complete(t.slot, outcome::died);
}

// Queues a task anew: a new serial, so that whatever is still under way of the old one is void.
void core::again(record &r, std::uint32_t i, bool was_begun, std::vector<outgoing> &out) noexcept
{
	r.t->clear(); // an error, or a result that came in pieces, not all of them
	r.serial = next_serial(r.serial);
	room_->slot_at(i).attempt += was_begun;
	// Relaxed: the ticket's commit publishes it.
	room_->slot_at(i).state.store(queued(r.serial), std::memory_order_relaxed);
	out.push_back({ticket{i, r.serial}, r.level});
}

void core::refill()
{
	std::vector<std::uint32_t> missing;
	bool is_slow;
	{
		const lock l(m_);
		is_slow = early_deaths_ >= early_max;
		unsigned nr = is_stopping_ || is_broken_ ? target_ : nr_running();
		for (std::uint32_t i = 0; i < workers_.size() && nr < target_; i++)
			if (!workers_[i].is_running) {
				missing.push_back(i);
				nr++;
			}
	}
	if (is_slow)
		usleep(10000); // they die as soon as they are started: do not use up the machine
	for (const std::uint32_t i : missing)
		if (start_worker(i) < 0)
			return; // tried again shortly
}

// There is no going on: nobody waits for ever.
void core::give_up_locked(const char *why) noexcept
{
	if (is_broken_)
		return;
	is_broken_ = true;
	reason_ = why;
	if (!is_stopping_)
		std::fprintf(stderr, "pool %s: given up: %s\n", opt_.name.c_str(), why);
	fail_all(outcome::lost);
	gone_.notify_all();
}

void core::give_up(const char *why) noexcept
{
	const lock l(m_);

	give_up_locked(why);
}

void core::end_monitor() noexcept
{
	{
		const lock l(m_);
		ch_spawner_cancel(spawner_);
	}
	if (meeting_)
		end_ranks();
	if (monitor_.joinable())
		monitor_.join();
	end_limits();
	end_callbacks();
	ch_spawner_destroy(spawner_);
	spawner_ = nullptr;
	for (ch_spawner *old : retired_)
		ch_spawner_destroy(old);
	retired_.clear();
	lock l(m_);
	for (worker &w : workers_)
		w.is_running = false;
	// Every task is over, or will be when who writes it has done so. Whoever reads still is woken and sees that; then
	// nobody uses the shared memory, which futures that are kept longer than the pool need not hold.
	poke();
	wait_until(l, [this] { return stats_.in_flight == 0 && !is_reading_; }, deadline(CH_FOREVER));
	l.unlock();
	// [B5] pairs with [B5] in core.cpp: a cancelled task's committer may be at the channel still; nothing keeps it there.
	while (nr_committing_.load(std::memory_order_acquire) > 0)
		std::this_thread::yield();
	l.lock();
	room_.reset();
}

// The good end, after join(): workers see the channel closed and drained, and return.
void core::stop() noexcept
{
	const std::lock_guard<std::mutex> ending(ending_);
	lock l(m_);

	is_open_ = false;
	is_stopping_ = true;
	if (!spawner_ && !meeting_)
		return;
	l.unlock();
	for (const priority p : {priority::high, priority::low, priority::normal})
		(void)ch_channel_close(room_->tasks(p));
	l.lock();
	gone_.wait_for(l, end_patience, [this] { return is_broken_ || nr_running() == 0; });
	l.unlock();
	end_monitor();
}

void core::terminate(nanoseconds patience) noexcept
{
	const std::lock_guard<std::mutex> ending(ending_);
	lock l(m_);

	is_open_ = false;
	for (std::uint32_t i = 0; i < recs_.size(); i++) {
		if (recs_[i].t && take_back(i))
			complete(i, outcome::cancelled);
	}
	wake_done();
	poke();
	if (patience.count() > 0)
		wait_until(l, [this] { return stats_.in_flight == 0 || is_broken_; }, deadline(patience.count()));
	is_stopping_ = true;
	fail_all(outcome::cancelled);
	l.unlock();
	if (spawner_ || meeting_)
		end_monitor();
}

// More workers are started now; fewer are left as soon as those that are too many end their tasks.
void core::resize(unsigned workers)
{
	check_process();
	if (meeting_)
		throw error(EINVAL, "pool: its workers are the job's ranks, as many as there are");
	if (workers < 1 || workers > workers_.size())
		throw error(EINVAL, ("pool: from 1 to " + std::to_string(workers_.size()) +
				     " workers: raise pool_options.max_workers").c_str());
	lock l(m_);
	if (!is_open_ || is_broken_)
		throw error(EPIPE, "pool: closed");
	const unsigned now = std::max(target_, nr_running());
	target_ = workers;
	l.unlock();
	// [B6] pairs with [B6] in worker.cpp.
	room_->head().levels.fetch_or(1u << static_cast<int>(priority::high), std::memory_order_release);
	for (unsigned i = workers; i < now; i++)
		send_ticket({ticket{go_home, 0}, priority::high});
	refill();
}

unsigned core::size()
{
	const lock l(m_);

	return target_;
}

std::string core::reason()
{
	const lock l(m_);

	return reason_;
}

std::vector<pid_t> core::pids()
{
	const lock l(m_);
	std::vector<pid_t> v;

	for (const worker &w : workers_)
		if (w.is_running && w.peer.id)
			v.push_back(ch_peer_pid(w.peer));
	return v;
}

} // namespace ch::detail

// SPDX-License-Identifier: Apache-2.0
// monitor.cpp - the workers of a pool: starting them, what their deaths mean, and the end.
//
// One thread sleeps in ch_spawner_wait. It is on no task's way: it wakes when a worker ends.
#include "core.h"

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

int core::start_worker(std::uint32_t i) noexcept
{
	const worker_arg arg{this, i};
	desk &d = room_->desk_of(i);
	ch_peer peer;

	d.at_hand = ticket{0, 0}; // its last user is dead and dealt with
	d.is_ready.store(0, std::memory_order_relaxed);
	const int rc = ch_spawner_spawn(spawner_, worker_main, &arg, sizeof(arg), i, &peer);
	if (rc < 0)
		return rc;
	const lock l(m_);
	workers_[i] = worker{peer, true};
	return 0;
}

void core::start()
{
	std::cout.flush();
	std::clog.flush();
	{
		const auto frozen = freeze_modules();
		check(ch_spawner_create(&spawner_));
	}
	for (std::uint32_t i = 0; i < opt_.workers; i++)
		if (const int rc = start_worker(i); rc < 0) {
			ch_spawner_destroy(spawner_);
			raise(rc);
		}
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); // the application's signals are for its own threads
	try {
		monitor_ = std::thread([this] { watch(); });
	} catch (...) {
		pthread_sigmask(SIG_SETMASK, &old, nullptr);
		ch_spawner_destroy(spawner_);
		throw;
	}
	pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

void core::watch() noexcept
try {
	std::vector<ch_exit> dead;
	ch_exit e;
	int rc;

	for (;;) {
		// A timeout only while a worker could not be replaced.
		rc = ch_spawner_wait(spawner_, is_short() ? 200000000 : CH_FOREVER, &e);
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

bool core::is_short()
{
	const lock l(m_);

	return !is_stopping_ && !is_broken_ &&
	       std::any_of(workers_.begin(), workers_.end(), [](const worker &w) { return !w.is_running; });
}

// They died. First all that they finished must be known: see board.h, 3 and 4.
void core::bury(std::vector<ch_exit> &dead)
{
	std::vector<ticket> again;

	ch_pool_sweep(room_->pool());
	pass_fence();
	lock l(m_);
	for (const ch_exit &e : dead)
		settle(e, again);
	if (is_hopeless())
		give_up_locked("its workers die as soon as they are started");
	wake_done();
	poke();
	gone_.notify_all();
	l.unlock();
	for (const ticket t : again)
		send_ticket(t);
}

// No worker has got as far as to take a task for a while, though many were started.
bool core::is_hopeless() const noexcept
{
	return early_deaths_ >= std::max(early_max, 2 * opt_.workers) && now_ns() - early_since_ns_ > hopeless_ns;
}

void core::settle(const ch_exit &e, std::vector<ticket> &out)
{
	const auto w = static_cast<std::uint32_t>(e.cookie);

	if (w >= workers_.size() || workers_[w].peer.id != e.peer.id)
		return;
	workers_[w].is_running = false;
	stats_.deaths += !is_stopping_;
	const desk &d = room_->desk_of(w);
	if (d.is_ready.load(std::memory_order_relaxed)) // it is dead: no order needed
		early_deaths_ = 0;
	else if (early_deaths_++ == 0)
		early_since_ns_ = now_ns();
	const ticket t = d.at_hand;
	if (t.slot >= recs_.size() || !recs_[t.slot].t || recs_[t.slot].serial != t.serial)
		return;
	record &r = recs_[t.slot];
	std::atomic<std::uint64_t> &state = room_->slot_at(t.slot).state;
	std::uint64_t waiting = queued(t.serial);
	// [B2] pairs with [B2] in worker.cpp: a living worker has won it, or it is void from here on.
	if (state.compare_exchange_strong(waiting, 0, std::memory_order_acq_rel))
		return again(r, t.slot, out);
	if (waiting != running(t.serial, w))
		return;
	r.attempts++;
	if (opt_.on_death == on_death::requeue && r.attempts < opt_.max_attempts && !is_stopping_) {
		stats_.requeued++;
		return again(r, t.slot, out);
	}
	r.t->pid = ch_peer_pid(e.peer);
	r.t->status = e.status;
	r.t->attempts = r.attempts;
	complete(t.slot, outcome::died);
}

// Queues a task anew: a new serial, so that whatever is still under way of the old one is void.
void core::again(record &r, std::uint32_t i, std::vector<ticket> &out) noexcept
{
	if (r.t->data) { // a result that came in pieces, not all of them
		delete[] r.t->data;
		r.t->data = nullptr;
		r.t->len = 0;
	}
	r.serial = next_serial(r.serial);
	// Relaxed: the ticket's commit publishes it.
	room_->slot_at(i).state.store(queued(r.serial), std::memory_order_relaxed);
	out.push_back(ticket{i, r.serial});
}

void core::refill()
{
	std::vector<std::uint32_t> missing;
	bool is_slow;
	{
		const lock l(m_);
		is_slow = early_deaths_ >= early_max;
		for (std::uint32_t i = 0; i < workers_.size(); i++)
			if (!workers_[i].is_running && !is_stopping_ && !is_broken_)
				missing.push_back(i);
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
	ch_spawner_cancel(spawner_);
	if (monitor_.joinable())
		monitor_.join();
	ch_spawner_destroy(spawner_);
	spawner_ = nullptr;
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
	if (!spawner_)
		return;
	l.unlock();
	(void)ch_channel_close(room_->tasks());
	l.lock();
	gone_.wait_for(l, end_patience, [this] {
		return is_broken_ ||
		       std::none_of(workers_.begin(), workers_.end(), [](const worker &w) { return w.is_running; });
	});
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
	if (spawner_)
		end_monitor();
}

std::vector<pid_t> core::pids()
{
	const lock l(m_);
	std::vector<pid_t> v;

	for (const worker &w : workers_)
		if (w.is_running)
			v.push_back(ch_peer_pid(w.peer));
	return v;
}

} // namespace ch::detail

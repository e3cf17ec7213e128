// SPDX-License-Identifier: Apache-2.0
// limits.cpp - ending tasks that run: on request, and when their time is over.
//
// A worker is killed only while it runs the very task that is meant: its state goes from running to condemned in one
// compare-and-swap, after which the worker cannot end the task in good order. The limits thread sleeps until the
// first limit that can be over; without tasks that have one it does not exist, or sleeps.
#include "core.h"
#include "peer.h"

#include <csignal>
#include <pthread.h>

namespace ch::detail {

void core::request_stop(task &t) noexcept
{
	const lock l(m_);

	if (t.is_ready.load(std::memory_order_relaxed) || t.slot == task::no_slot) // set under m_
		return;
	// Relaxed: it says nothing but itself.
	room_->slot_at(t.slot).stop.store(recs_[t.slot].serial, std::memory_order_relaxed);
}

// Kills the worker that runs the task of slot i, if one does; the task ends as verdict says when the death is known.
bool core::condemn(std::uint32_t i, outcome verdict) noexcept
{
	std::atomic<std::uint64_t> &state = room_->slot_at(i).state;
	std::uint32_t w;
	// [B7] pairs with [B7] in worker.cpp.
	std::uint64_t now = state.load(std::memory_order_acquire);

	if (!is_running(now, recs_[i].serial, &w) || !workers_[w].peer.id || // it is being started still
	    !state.compare_exchange_strong(now, condemned(recs_[i].serial, w), std::memory_order_acq_rel))
		return false;
	recs_[i].verdict = verdict;
	signal_peer(workers_[w].peer, SIGKILL);
	return true;
}

bool core::kill(task &t) noexcept
{
	const lock l(m_);

	if (t.is_ready.load(std::memory_order_relaxed) || t.slot == task::no_slot) // set under m_
		return false;
	if (!take_back(t.slot))
		return condemn(t.slot, outcome::cancelled);
	complete(t.slot, outcome::cancelled);
	wake_done();
	poke();
	return true;
}

// A task that is about to be submitted has a limit.
void core::note_limit(std::int64_t limit_ns)
{
	const std::uint64_t first = now_ns() + static_cast<std::uint64_t>(limit_ns);

	if (!limits_.joinable())
		limits_ = quiet_thread([this] { watch_limits(); });
	if (next_limit_ns_ && first >= next_limit_ns_)
		return;
	next_limit_ns_ = first;
	limit_bell_.notify_one();
}

// Condemns what is over its limit. When to look again; 0: when there is a task with a limit.
std::uint64_t core::enforce_limits() noexcept
{
	const std::uint64_t now = now_ns();
	std::uint64_t next = 0;

	for (std::uint32_t i = 0; i < recs_.size() && nr_limited_ && room_; i++) {
		const auto limit = static_cast<std::uint64_t>(recs_[i].limit_ns);
		std::uint64_t end = now + limit;
		std::uint32_t w;

		if (!recs_[i].t || !limit)
			continue;
		// [B7] pairs with [B7] in worker.cpp: what begun_ns says is of this task, or of one after it.
		if (is_running(room_->slot_at(i).state.load(std::memory_order_acquire), recs_[i].serial, &w)) {
			// Relaxed: a later value is a later limit, and harmless.
			const std::uint64_t begun = room_->desk_of(w).begun_ns.load(std::memory_order_relaxed);

			end = begun ? begun + limit : end;
			if (end <= now && condemn(i, outcome::timeout))
				continue;
			end = std::max(end, now + 1000000);
		}
		next = next ? std::min(next, end) : end;
	}
	return next;
}

void core::watch_limits() noexcept
{
	lock l(m_);

	pthread_setname_np(pthread_self(), "pool-limits");
	while (!is_limit_end_) {
		next_limit_ns_ = enforce_limits();
		if (next_limit_ns_)
			limit_bell_.wait_until(l, std::chrono::steady_clock::time_point(nanoseconds(next_limit_ns_)));
		else
			limit_bell_.wait(l);
	}
}

void core::end_limits() noexcept
{
	lock l(m_);

	is_limit_end_ = true;
	limit_bell_.notify_one();
	l.unlock();
	if (limits_.joinable())
		limits_.join();
}

void request_stop(task &t) noexcept
{
	// [T1] pairs with [T1]. Not ready: the core is there.
	if (!t.is_ready.load(std::memory_order_acquire))
		t.owner->request_stop(t);
}

bool kill(task &t) noexcept
{
	// [T1] pairs with [T1], as above.
	return !t.is_ready.load(std::memory_order_acquire) && t.owner->kill(t);
}

} // namespace ch::detail

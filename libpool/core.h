// SPDX-License-Identifier: Apache-2.0
// core.h - the owner's side of a pool: its tasks, who waits for them, and its workers. Private.
//
//   core.cpp      slots, submitting, completing
//   drain.cpp     waiting: whoever waits reads the results channel
//   callback.cpp  what is to be done when a task is over: continuations, groups, promises
//   limits.cpp    ending what runs: time limits, kills
//   monitor.cpp   workers: starting, deaths, the end
//   worker.cpp    the other side
#pragma once
#include "board.h"

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <pool/pool.hpp>
#include <pool/wait.hpp>
#include <thread>
#include <vector>

namespace ch::detail {

// One absolute time per call.
class deadline {
public:
	explicit deadline(std::int64_t timeout_ns) noexcept
	    : is_never_(timeout_ns < 0), at_(is_never_ ? clock::time_point::max() : clock::now() + nanoseconds(timeout_ns))
	{
	}
	bool is_over() const noexcept { return !is_never_ && clock::now() >= at_; }
	std::int64_t left_ns() const noexcept
	{
		return is_never_ ? CH_FOREVER : std::max<std::int64_t>(0, nanoseconds(at_ - clock::now()).count());
	}
	void sleep(std::condition_variable &cv, std::unique_lock<std::mutex> &lock) const
	{
		if (is_never_)
			cv.wait(lock);
		else
			cv.wait_until(lock, at_);
	}

private:
	using clock = std::chrono::steady_clock;
	bool is_never_;
	clock::time_point at_;
};

// A thread that waits while another one reads. In a list under the core's lock.
struct waiter {
	bool (*is_done)(void *);
	void *arg;
	waiter *next = nullptr;
	std::condition_variable bell;
};

// A result that lies in shared memory until its future is asked.
struct held_message {
	std::shared_ptr<room> in;
	std::shared_ptr<std::atomic<std::size_t>> account;
	std::size_t counted = 0; // of it in the account
	ch_message m = CH_MESSAGE_INIT;

	held_message(std::shared_ptr<room> r, std::shared_ptr<std::atomic<std::size_t>> a)
	    : in(std::move(r)), account(std::move(a))
	{
	}
	~held_message();
	held_message(const held_message &) = delete;
	held_message &operator=(const held_message &) = delete;
};

struct meeting; // spmd.cpp

class core : public std::enable_shared_from_this<core> {
public:
	explicit core(const pool_options &o, bool is_spmd = false);
	~core(); // after stop() or terminate()
	core(const core &) = delete;
	core &operator=(const core &) = delete;

	// core.cpp
	task *begin_task(std::uint64_t name, std::size_t len, std::byte **out_room, const task_options *o);
	void commit_task(task *t) noexcept;
	void abandon_task(task *t) noexcept;
	bool cancel(task &t) noexcept;
	void close() noexcept;
	pool_stats stats();

	// drain.cpp
	bool wait(task &t, std::int64_t timeout_ns);
	void join();
	bool wait_ready(std::int64_t timeout_ns);
	bool wait_group(group &g, std::int64_t timeout_ns);

	// callback.cpp
	void when_over(task &t, std::unique_ptr<continuation> c);
	void settle(task &promise, outcome what) noexcept;
	void join_group(task &t, group &g, std::size_t place);
	void leave_group(task &t, const group &g) noexcept;
	void watch_task(task &t);

	// limits.cpp
	void request_stop(task &t) noexcept;
	bool kill(task &t) noexcept;

	// spmd.cpp
	void start_ranks(const rank &r);

	// monitor.cpp
	void start();
	void resize(unsigned workers);
	unsigned size();
	void terminate(nanoseconds patience) noexcept;
	void stop() noexcept;
	std::vector<pid_t> pids();
	std::string reason();

	const pool_options &options() const noexcept { return opt_; }
	pid_t creator() const noexcept { return creator_; }
	room &shared() const noexcept { return *room_; }
	void check_process() const;

private:
	using lock = std::unique_lock<std::mutex>;

	struct record { // of a slot; under m_
		task *t = nullptr;
		std::uint32_t serial = 0, attempts = 0;
		std::size_t block_len = 0; // of its arguments
		void *block = nullptr;     // where they are, if not in the slot
		std::int64_t limit_ns = 0; // as task_options have these
		unsigned max_attempts = 0, retries = 0;
		enum on_death on_death = on_death::requeue;
		priority level = priority::normal;
		outcome verdict = outcome::none; // why it was condemned
	};
	struct worker {
		ch_peer peer{};
		bool is_running = false;
		unsigned nr_starts = 0;
	};
	struct outgoing {
		ticket t;
		priority level;
	};

	// core.cpp
	void publish_modules();
	task *reserve(std::size_t block_len, const task_options *o);
	void fill_record(record &r, task &t, const task_options *o);
	void void_task(task *t) noexcept;
	std::byte *get_block(record &r, std::size_t len);
	void free_slot(std::uint32_t i) noexcept;
	void complete(std::uint32_t i, outcome what) noexcept;
	void fail_all(outcome what) noexcept;
	bool take_back(std::uint32_t i) noexcept;
	void send_ticket(outgoing o) noexcept;
	bool gather(ticket t) noexcept;
	void send_gathered() noexcept;
	void nudge() noexcept;

	// drain.cpp
	template <class Pred> bool wait_until(lock &l, Pred pred, const deadline &dl);
	ssize_t read_all();
	ssize_t read_next(lock &l, std::int64_t timeout_ns);
	bool read_some(lock &l, std::int64_t timeout_ns);
	void send_again(lock &l);
	bool hear(const result_head &h, const std::byte *m, std::size_t len);
	void end_one(const result_head &h, result_kind kind, bool has_memory);
	void apply(const std::byte *m, std::size_t len);
	void take_one();
	void apply_held(std::unique_ptr<held_message> h);
	void apply_piece(record &r, const std::byte *m, std::size_t len);
	bool give(record &r, const std::byte *data, std::size_t len) noexcept;
	record *awaited(const result_head &h) noexcept;
	void wake_done() noexcept;
	void poke() noexcept;
	void pass_fence();

	// callback.cpp
	void finish(task *t, outcome what) noexcept;
	void start_callbacks();
	void run_callbacks() noexcept;
	void call(lock &l, std::unique_ptr<continuation> c) noexcept;
	void end_callbacks() noexcept;

	// limits.cpp
	bool condemn(std::uint32_t i, outcome verdict) noexcept;
	void note_limit(std::int64_t limit_ns);
	std::uint64_t enforce_limits() noexcept;
	void watch_limits() noexcept;
	void end_limits() noexcept;

	// spmd.cpp
	void hear_ranks() noexcept;
	void watch_ranks() noexcept;
	void end_ranks() noexcept;

	// monitor.cpp
	void watch() noexcept;
	void settle_children();
	bool replace_spawner();
	void lay_desk(std::uint32_t i) noexcept;
	int start_worker(std::uint32_t i) noexcept;
	void start_all();
	void bury(std::vector<ch_exit> &dead);
	bool count_death(std::uint32_t w) noexcept;
	void settle(const ch_exit &e, std::vector<outgoing> &out);
	unsigned nr_running() const noexcept;
	bool is_hopeless() const noexcept;
	bool is_short();
	void refill();
	void give_up(const char *why) noexcept;
	void give_up_locked(const char *why) noexcept;
	void again(record &r, std::uint32_t i, bool was_begun, std::vector<outgoing> &out) noexcept;
	void end_monitor() noexcept;

	static constinit thread_local convoy *convoy_; // that this thread is in
	friend class convoy;

	const pool_options opt_;
	const pid_t creator_;
	const unsigned generation_; // of the creator
	std::shared_ptr<room> room_;
	ch_spawner *spawner_ = nullptr; // changed by the monitor, under m_
	std::shared_ptr<meeting> meeting_; // instead of a spawner, where the workers are the job's other ranks
	std::thread monitor_;
	const std::size_t block_budget_, held_budget_;

	std::mutex ending_; // one end at a time
	std::mutex m_;      // of all below
	std::condition_variable gone_; // a worker ended
	std::vector<record> recs_;
	std::vector<std::uint32_t> free_;
	std::vector<worker> workers_;
	waiter *waiters_ = nullptr;
	bool is_reading_ = false;  // some thread reads the results channel
	bool is_open_ = true;      // takes tasks
	bool is_stopping_ = false; // starts no more workers
	bool is_broken_ = false;   // no workers any more, and none can be started
	std::uint32_t fence_ = 0, fence_seen_ = 0;
	std::atomic<std::uint32_t> nr_modules_ = 0; // that the workers know of
	std::atomic<int> nr_committing_{0}; // threads in commit_task(): their task may be over before they are done with room_
	std::uint32_t nr_short_ = 0;     // tasks that wait for memory
	std::uint32_t early_deaths_ = 0; // in a row, of workers that never got ready
	std::uint64_t early_since_ns_ = 0; // the first of them
	unsigned nr_replaced_ = 0;       // spawners in a row of which no worker got ready
	std::uint64_t replaced_since_ns_ = 0; // the end of the first of them
	std::vector<ch_spawner *> retired_; // that were killed
	std::size_t blocks_ = 0;         // bytes of arguments in blocks
	std::shared_ptr<std::atomic<std::size_t>> held_; // bytes of results that lie in shared memory
	std::string reason_;             // why it is broken
	unsigned target_;                // workers that there shall be
	std::vector<outgoing> again_;    // to be sent when the lock is open
	pool_stats stats_;

	std::thread callbacks_; // made at first use, as the next
	std::thread limits_;
	std::condition_variable callback_bell_, limit_bell_;
	std::unique_ptr<continuation> over_; // to be run, oldest first
	continuation *over_last_ = nullptr;
	std::size_t nr_watched_ = 0;     // tasks that the callback thread waits for, once for each continuation
	std::size_t nr_limited_ = 0;     // tasks with a time limit
	std::uint64_t next_limit_ns_ = 0; // when limits_ looks next
	bool is_calling_ = false;        // a continuation runs
	bool is_callback_end_ = false, is_limit_end_ = false;
	bool is_ended_ = false;          // nothing runs continuations any more
};

inline std::uint32_t next_serial(std::uint32_t s)
{
	return s == UINT32_MAX ? 1 : s + 1; // never 0: that state is nobody's
}

// drain.cpp says why nobody is forgotten.
template <class Pred> bool core::wait_until(lock &l, Pred pred, const deadline &dl)
{
	bool is_done;

	if (convoy_ && convoy_->nr_) { // what it waits for may be in there
		l.unlock();
		send_gathered();
		l.lock();
	}
	while (!(is_done = pred())) {
		if (!is_reading_) {
			if (!read_some(l, dl.left_ns()) && dl.is_over())
				break;
			continue;
		}
		if (dl.is_over())
			break;
		waiter me{[](void *p) { return (*static_cast<Pred *>(p))(); }, &pred, waiters_, {}};
		waiters_ = &me;
		dl.sleep(me.bell, l);
		for (waiter **w = &waiters_; *w; w = &(*w)->next)
			if (*w == &me) {
				*w = me.next;
				break;
			}
	}
	if (!is_done)
		is_done = pred();
	if (!is_reading_ && waiters_)
		waiters_->bell.notify_one();
	return is_done;
}

// A thread that takes none of the application's signals.
template <class F> std::thread quiet_thread(F f)
{
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	try {
		std::thread t(std::move(f));
		pthread_sigmask(SIG_SETMASK, &old, nullptr);
		return t;
	} catch (...) {
		pthread_sigmask(SIG_SETMASK, &old, nullptr);
		throw;
	}
}

// cpus.cpp
void check_placement(const placement &p); // throws ch::error EINVAL
int run_on(const std::vector<unsigned> &cpus) noexcept; // this thread, and those that it makes; 0 or a negative errno

int worker_main(const void *arg, std::size_t len);
// As a worker, in a process that goes on afterwards.
void serve_room(room &r, const pool_options &o, std::uint32_t index);
void serve_as_rank(const rank &r, const pool_options &o);

struct worker_arg {
	core *c;
	std::uint32_t index;
	bool is_late; // forked from what the owner was later
};

} // namespace ch::detail

// SPDX-License-Identifier: Apache-2.0
// callback.cpp - what is to be done when a task is over: continuations, promises, groups.
//
// finish() is where every task ends, under the core's lock. Its continuations move to the list over_, which the callback
// thread works off, one at a time and without the lock. That thread waits as everybody does, and so reads results, as long
// as some continuation waits for its task (nr_watched_); otherwise it sleeps on a bell of its own and is in nobody's way.
#include "core.h"

#include <cerrno>
#include <pool/wait.hpp>
#include <pthread.h>
#include <unordered_map>

namespace ch::detail {

struct group::inside {
	mutable std::mutex m; // after the core's
	std::condition_variable bell;
	std::vector<std::size_t> over; // places, as they ended; there is room for all
	std::size_t given = 0;         // of over
	std::unordered_map<std::size_t, task_ref> tasks; // not yet given out, by place
	core *only = nullptr; // the one that all tasks are of
	bool is_mixed = false, is_watched = false;
};

// The end of a task. Takes the core's reference.
void core::finish(task *t, outcome what) noexcept
{
	t->what = what;
	// [T1] pairs with [T1] in future.hpp.
	t->is_ready.store(true, std::memory_order_release);
	if (group *g = std::exchange(t->in_group, nullptr))
		g->note(*t);
	nr_watched_ -= std::exchange(t->is_watched, false);
	while (t->after) {
		std::unique_ptr<continuation> c = std::move(t->after);

		t->after = std::move(c->next);
		t->refs.fetch_add(1, std::memory_order_relaxed); // beside ours
		c->of = t;
		nr_watched_--;
		continuation *last = c.get();
		(over_ ? over_last_->next : over_) = std::move(c);
		over_last_ = last;
		callback_bell_.notify_one();
	}
	unref(t);
}

// ---- the callback thread

void core::start_callbacks()
{
	if (!callbacks_.joinable())
		callbacks_ = quiet_thread([self = shared_from_this()] {
			pthread_setname_np(pthread_self(), "pool-callbacks");
			self->run_callbacks();
		});
}

void core::run_callbacks() noexcept
try {
	lock l(m_);

	for (;;) {
		if (over_) {
			std::unique_ptr<continuation> c = std::move(over_);

			over_ = std::move(c->next);
			call(l, std::move(c));
		} else if (nr_watched_) {
			wait_until(l, [this] { return over_ || !nr_watched_; }, deadline(CH_FOREVER));
		} else if (is_callback_end_) {
			return;
		} else {
			callback_bell_.wait(l);
		}
	}
} catch (...) {
	give_up("out of memory");
}

void core::call(lock &l, std::unique_ptr<continuation> c) noexcept
{
	task *t = c->of;

	is_calling_ = true;
	l.unlock();
	c->run(task_ref(t));
	c.reset(); // what it captured may be anything
	l.lock();
	is_calling_ = false;
	wake_done();
	poke();
}

// Every task is over: what is left to call is called.
void core::end_callbacks() noexcept
{
	lock l(m_);

	is_callback_end_ = true;
	callback_bell_.notify_one();
	std::thread t = std::move(callbacks_);
	l.unlock();
	if (t.joinable() && t.get_id() != std::this_thread::get_id())
		t.join();
	else if (t.joinable())
		t.detach(); // a continuation ends the pool: the thread follows when it returns
	l.lock();
	is_ended_ = true;
}

void core::when_over(task &t, std::unique_ptr<continuation> c)
{
	lock l(m_);

	if (is_ended_) {
		l.unlock();
		return c->run(task_ref::another(t));
	}
	start_callbacks();
	if (t.is_ready.load(std::memory_order_relaxed)) { // set under m_
		t.refs.fetch_add(1, std::memory_order_relaxed); // the caller has one
		c->of = &t;
		continuation *last = c.get();
		(over_ ? over_last_->next : over_) = std::move(c);
		over_last_ = last;
	} else {
		std::unique_ptr<continuation> *end = &t.after;

		while (*end)
			end = &(*end)->next;
		*end = std::move(c);
		nr_watched_++;
	}
	callback_bell_.notify_one();
	wake_done(); // it may wait as others do
	poke();
}

void core::settle(task &promise, outcome what) noexcept
{
	const lock l(m_);

	promise.refs.fetch_add(1, std::memory_order_relaxed); // for finish(); the caller has one
	finish(&promise, what);
	wake_done();
	poke();
}

void when_over(task &t, std::unique_ptr<continuation> c)
{
	t.owner->when_over(t, std::move(c));
}

task_ref make_promise(const task &t)
{
	auto p = std::make_unique<task>();

	p->owner = t.owner;
	if (t.name)
		p->name = std::make_unique<std::string>(*t.name);
	return task_ref(p.release());
}

void settle(task &promise, outcome what, std::span<const std::byte> bytes) noexcept
{
	promise.len = bytes.size();
	promise.data = bytes.size() <= task::small_max ? promise.small_ : new (std::nothrow) std::byte[bytes.size()];
	if (!promise.data)
		what = outcome::no_memory;
	else if (!bytes.empty())
		std::memcpy(promise.data, bytes.data(), bytes.size());
	promise.owner->settle(promise, what);
}

void settle_error(task &promise) noexcept
{
	try {
		settle(promise, outcome::error, archive::to_bytes(current_error()));
	} catch (...) {
		promise.owner->settle(promise, outcome::no_memory);
	}
}

void pass_on(const task &from, task &promise) noexcept
{
	promise.attempts = from.attempts;
	promise.status = from.status;
	promise.pid = from.pid;
	settle(promise, from.what, from.bytes());
}

void complain_of_callback(const task &t) noexcept
try {
	const error_record e = current_error();

	std::fprintf(stderr, "pool %s: callback%s%s: %s: %s\n", t.owner->options().name.c_str(), t.name ? " of " : "",
		     t.name ? t.name->c_str() : "", e.type.c_str(), e.what.c_str());
} catch (...) {
}

// ---- groups

void core::join_group(task &t, group &g, std::size_t place)
{
	const lock l(m_);

	if (t.in_group)
		throw error(EBUSY, "wait: a future is waited for twice at a time");
	t.place = place;
	if (t.is_ready.load(std::memory_order_relaxed)) // set under m_
		g.note(t);
	else
		t.in_group = &g;
}

void core::leave_group(task &t, const group &g) noexcept
{
	const lock l(m_);

	if (t.in_group == &g)
		t.in_group = nullptr;
	if (std::exchange(t.is_watched, false)) {
		nr_watched_--;
		wake_done();
		poke();
	}
}

// From here on its end comes about without the caller's help.
void core::watch_task(task &t)
{
	const lock l(m_);

	if (t.is_watched || t.is_ready.load(std::memory_order_relaxed)) // set under m_
		return;
	start_callbacks();
	t.is_watched = true;
	nr_watched_++;
	callback_bell_.notify_one();
}

group::group() noexcept : in_(new inside) {}

group::~group()
{
	for (auto &[place, t] : in_->tasks)
		t->owner->leave_group(*t, *this);
}

void group::add(task &t, std::size_t place)
{
	core *c = t.owner.get();
	{
		const std::lock_guard<std::mutex> l(in_->m);

		in_->is_mixed |= in_->only && in_->only != c;
		in_->only = c;
		in_->is_watched = false;
		if (in_->given == in_->over.size() || in_->given > 1024) {
			in_->over.erase(in_->over.begin(), in_->over.begin() + static_cast<std::ptrdiff_t>(in_->given));
			in_->given = 0;
		}
		// What is in over and not given is in tasks, too.
		if (in_->over.capacity() - in_->given <= in_->tasks.size())
			in_->over.reserve(2 * (in_->given + in_->tasks.size()) + 16);
		in_->tasks.emplace(place, task_ref::another(t));
	}
	try {
		c->join_group(t, *this, place);
	} catch (...) {
		in_->tasks.erase(place);
		throw;
	}
}

void group::note(const task &t) noexcept
{
	const std::lock_guard<std::mutex> l(in_->m);

	in_->over.push_back(t.place);
	in_->bell.notify_one();
}

bool group::has_next() const noexcept
{
	const std::lock_guard<std::mutex> l(in_->m);

	return in_->given < in_->over.size();
}

std::optional<std::size_t> group::next(std::int64_t timeout_ns)
{
	if (!left())
		return std::nullopt;
	if (in_->is_mixed) {
		for (auto &[place, t] : in_->tasks)
			if (!in_->is_watched)
				t->owner->watch_task(*t);
		in_->is_watched = true;
		const deadline until(timeout_ns);
		std::unique_lock<std::mutex> l(in_->m);
		while (in_->given == in_->over.size() && !until.is_over())
			until.sleep(in_->bell, l);
	} else if (!has_next()) {
		in_->only->wait_group(*this, timeout_ns);
	}
	const std::lock_guard<std::mutex> l(in_->m);
	if (in_->given == in_->over.size())
		return std::nullopt;
	const std::size_t place = in_->over[in_->given++];
	in_->tasks.erase(place);
	return place;
}

std::size_t group::left() const noexcept
{
	const std::lock_guard<std::mutex> l(in_->m);

	return in_->tasks.size();
}

countdown::countdown(std::int64_t timeout_ns) noexcept
    : end_ns_(timeout_ns < 0 ? 0 : now_ns() + static_cast<std::uint64_t>(timeout_ns))
{
}

std::int64_t countdown::left_ns() const noexcept
{
	const std::uint64_t now = now_ns();

	return !end_ns_ ? CH_FOREVER : now < end_ns_ ? static_cast<std::int64_t>(end_ns_ - now) : 0;
}

} // namespace ch::detail

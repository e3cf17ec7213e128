// SPDX-License-Identifier: Apache-2.0
// sync.hpp - owning C++20 handles over sync.h: ch::mutex, ch::recursive_mutex, ch::shared_mutex, ch::semaphore,
// ch::event, ch::condition, ch::barrier. Header only.
//
// The three mutexes have the names of the standard's, so that std::unique_lock, std::shared_lock, std::scoped_lock and
// std::lock work with them. That the last holder died is no failure of lock(): the lock is held. Ask owner_died() then.
#pragma once
#include <channels/channels.hpp>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>

namespace ch {

namespace detail {

template <class Duration> std::int64_t timeout_of(const Duration &d)
{
	const auto ns = std::chrono::ceil<nanoseconds>(d).count();

	return ns < 0 ? CH_TRY : ns; // a time that is over is over, as in the standard
}
template <class Clock, class Duration> std::int64_t timeout_until(const std::chrono::time_point<Clock, Duration> &t)
{
	return timeout_of(t - Clock::now());
}

// An owning handle with create, attach, detach, destroy and a descriptor.
template <class T, auto Attach, auto Detach, auto Destroy, auto GetDescr> class sync_object {
public:
	descriptor descr() const { return descr_of<T, GetDescr>(p_.get()); }
	void destroy() noexcept { Destroy(p_.release()); }
	explicit operator bool() const noexcept { return p_ != nullptr; }
	T *get() const noexcept { return p_.get(); }

protected:
	sync_object() = default;
	explicit sync_object(T *p) noexcept : p_(p) {}
	static T *attached(const descriptor &d)
	{
		T *p = nullptr;

		check(Attach(&d, &p));
		return p;
	}
	handle<T, Detach> p_;
};

// Remembers that a lock brought news of a death.
class death_note {
	mutable std::atomic<bool> died_{false};

public:
	death_note() = default;
	death_note(death_note &&o) noexcept : died_(o.died_.load()) {}
	death_note &operator=(death_note &&o) noexcept
	{
		died_ = o.died_.load();
		return *this;
	}
	// Locked, or not within the time.
	bool note(int rc) const
	{
		if (rc == -EOWNERDEAD)
			died_ = true;
		return rc == -EOWNERDEAD || check_wait(rc);
	}
	bool ask() const noexcept { return died_.exchange(false); }
};

template <class T, auto Create, class Attr> T *created(ch_pool *pool, const Attr &attr)
{
	T *p = nullptr;

	check(Create(pool, &attr, &p));
	return p;
}

using mutex_object = sync_object<ch_mutex, ch_mutex_attach, ch_mutex_detach, ch_mutex_destroy, ch_mutex_get_descr>;

} // namespace detail

template <std::uint32_t Flags> class basic_mutex : public detail::mutex_object {
public:
	basic_mutex() = default; // none
	static basic_mutex create(ch_pool *pool = nullptr)
	{
		ch_mutex_attr attr = CH_MUTEX_ATTR_INIT;

		attr.flags = Flags;
		return basic_mutex(detail::created<ch_mutex, ch_mutex_create>(pool, attr));
	}
	static basic_mutex create(const memory_pool &pool) { return create(pool.get()); }
	static basic_mutex attach(const descriptor &d) { return basic_mutex(attached(d)); }

	void lock() { note_.note(ch_mutex_lock(get(), CH_FOREVER)); }
	bool try_lock() { return note_.note(ch_mutex_lock(get(), CH_TRY)); }
	template <class R, class P> bool try_lock_for(const std::chrono::duration<R, P> &d)
	{
		return note_.note(ch_mutex_lock(get(), detail::timeout_of(d)));
	}
	template <class C, class D> bool try_lock_until(const std::chrono::time_point<C, D> &t)
	{
		return note_.note(ch_mutex_lock(get(), detail::timeout_until(t)));
	}
	void unlock() { check(ch_mutex_unlock(get())); }
	// For its holder: whether a holder died since this was last asked, so that what it guards may be half done.
	bool owner_died() const noexcept { return note_.ask(); }

private:
	friend class condition;
	explicit basic_mutex(ch_mutex *p) noexcept : detail::mutex_object(p) {}
	detail::death_note note_;
};
using mutex = basic_mutex<0>;
using recursive_mutex = basic_mutex<CH_MUTEX_RECURSIVE>;

class shared_mutex
	: public detail::sync_object<ch_rwlock, ch_rwlock_attach, ch_rwlock_detach, ch_rwlock_destroy, ch_rwlock_get_descr> {
public:
	shared_mutex() = default; // none
	static shared_mutex create(ch_pool *pool = nullptr, unsigned max_readers = 0)
	{
		ch_rwlock_attr attr = CH_RWLOCK_ATTR_INIT;

		attr.max_readers = max_readers;
		return shared_mutex(detail::created<ch_rwlock, ch_rwlock_create>(pool, attr));
	}
	static shared_mutex create(const memory_pool &pool, unsigned max_readers = 0)
	{
		return create(pool.get(), max_readers);
	}
	static shared_mutex attach(const descriptor &d) { return shared_mutex(attached(d)); }

	void lock() { note_.note(ch_rwlock_lock(get(), CH_FOREVER)); }
	bool try_lock() { return note_.note(ch_rwlock_lock(get(), CH_TRY)); }
	template <class R, class P> bool try_lock_for(const std::chrono::duration<R, P> &d)
	{
		return note_.note(ch_rwlock_lock(get(), detail::timeout_of(d)));
	}
	template <class C, class D> bool try_lock_until(const std::chrono::time_point<C, D> &t)
	{
		return note_.note(ch_rwlock_lock(get(), detail::timeout_until(t)));
	}
	void unlock() { check(ch_rwlock_unlock(get())); }

	void lock_shared() { note_.note(ch_rwlock_lock_shared(get(), CH_FOREVER)); }
	bool try_lock_shared() { return note_.note(ch_rwlock_lock_shared(get(), CH_TRY)); }
	template <class R, class P> bool try_lock_shared_for(const std::chrono::duration<R, P> &d)
	{
		return note_.note(ch_rwlock_lock_shared(get(), detail::timeout_of(d)));
	}
	template <class C, class D> bool try_lock_shared_until(const std::chrono::time_point<C, D> &t)
	{
		return note_.note(ch_rwlock_lock_shared(get(), detail::timeout_until(t)));
	}
	void unlock_shared() { check(ch_rwlock_unlock(get())); }
	// From writer to reader, with no other writer between. False if there is no room for a reader at this moment.
	bool downgrade() { return check_wait(ch_rwlock_downgrade(get())); }
	// For its holder: whether a writer died since this was last asked.
	bool owner_died() const noexcept { return note_.ask(); }

private:
	explicit shared_mutex(ch_rwlock *p) noexcept : sync_object(p) {}
	detail::death_note note_;
};

class semaphore : public detail::sync_object<ch_semaphore, ch_semaphore_attach, ch_semaphore_detach, ch_semaphore_destroy,
					     ch_semaphore_get_descr> {
public:
	struct options {
		unsigned value = 0;
		unsigned limit = 0;  // 0: CH_SEMAPHORE_MAX
		bool undo = false;   // at the end of a process what it holds is released
		unsigned max_watchers = 0; // poll sets it may be a member of; 0: 8
	};

	semaphore() = default; // none
	static semaphore create(ch_pool *pool, const options &o)
	{
		ch_semaphore_attr attr = CH_SEMAPHORE_ATTR_INIT;

		attr.value = o.value;
		attr.limit = o.limit;
		attr.flags = o.undo ? CH_SEMAPHORE_UNDO : 0;
		attr.max_watchers = o.max_watchers;
		return semaphore(detail::created<ch_semaphore, ch_semaphore_create>(pool, attr));
	}
	static semaphore create(const memory_pool &pool, const options &o) { return create(pool.get(), o); }
	static semaphore attach(const descriptor &d) { return semaphore(attached(d)); }

	void acquire(unsigned n = 1) { check(ch_semaphore_acquire(get(), n, CH_FOREVER)); }
	bool try_acquire(unsigned n = 1) { return check_wait(ch_semaphore_acquire(get(), n, CH_TRY)); }
	template <class R, class P> bool try_acquire_for(const std::chrono::duration<R, P> &d, unsigned n = 1)
	{
		return check_wait(ch_semaphore_acquire(get(), n, detail::timeout_of(d)));
	}
	void release(unsigned n = 1) { check(ch_semaphore_release(get(), n)); }
	void wait_zero() { check(ch_semaphore_wait_zero(get(), CH_FOREVER)); }
	template <class R, class P> bool wait_zero_for(const std::chrono::duration<R, P> &d)
	{
		return check_wait(ch_semaphore_wait_zero(get(), detail::timeout_of(d)));
	}
	unsigned value() const { return static_cast<unsigned>(check(ch_semaphore_get_value(get()))); }

private:
	explicit semaphore(ch_semaphore *p) noexcept : sync_object(p) {}
};

class event : public detail::sync_object<ch_event, ch_event_attach, ch_event_detach, ch_event_destroy, ch_event_get_descr> {
public:
	struct options {
		bool auto_reset = false;
		bool is_set = false;
		unsigned max_watchers = 0; // as of a semaphore
	};

	event() = default; // none
	static event create(ch_pool *pool, const options &o)
	{
		ch_event_attr attr = CH_EVENT_ATTR_INIT;

		attr.flags = (o.auto_reset ? CH_EVENT_AUTO_RESET : 0) | (o.is_set ? CH_EVENT_IS_SET : 0);
		attr.max_watchers = o.max_watchers;
		return event(detail::created<ch_event, ch_event_create>(pool, attr));
	}
	static event create(const memory_pool &pool, const options &o) { return create(pool.get(), o); }
	static event create(const memory_pool &pool) { return create(pool.get(), options{}); }
	static event attach(const descriptor &d) { return event(attached(d)); }

	void set() { check(ch_event_set(get())); }
	void clear() { check(ch_event_clear(get())); }
	void pulse() { check(ch_event_pulse(get())); }
	bool is_set() const { return check(ch_event_is_set(get())) != 0; }
	void wait() { check(ch_event_wait(get(), CH_FOREVER)); }
	bool try_wait() { return check_wait(ch_event_wait(get(), CH_TRY)); }
	template <class R, class P> bool wait_for(const std::chrono::duration<R, P> &d)
	{
		return check_wait(ch_event_wait(get(), detail::timeout_of(d)));
	}

private:
	explicit event(ch_event *p) noexcept : sync_object(p) {}
};

// As std::condition_variable, for ch::mutex and ch::recursive_mutex. If a holder died meanwhile, owner_died() of the
// mutex tells.
class condition : public detail::sync_object<ch_condition, ch_condition_attach, ch_condition_detach, ch_condition_destroy,
					     ch_condition_get_descr> {
public:
	condition() = default; // none
	static condition create(ch_pool *pool = nullptr)
	{
		const ch_condition_attr attr = CH_CONDITION_ATTR_INIT;

		return condition(detail::created<ch_condition, ch_condition_create>(pool, attr));
	}
	static condition create(const memory_pool &pool) { return create(pool.get()); }
	static condition attach(const descriptor &d) { return condition(attached(d)); }

	template <std::uint32_t F> void wait(std::unique_lock<basic_mutex<F>> &lock) { wait_ns(lock, CH_FOREVER); }
	template <std::uint32_t F, class Pred> void wait(std::unique_lock<basic_mutex<F>> &lock, Pred pred)
	{
		while (!pred())
			wait(lock);
	}
	template <std::uint32_t F, class C, class D>
	std::cv_status wait_until(std::unique_lock<basic_mutex<F>> &lock, const std::chrono::time_point<C, D> &t)
	{
		const std::int64_t ns = detail::timeout_until(t);

		return wait_ns(lock, ns == CH_TRY ? 1 : ns) ? std::cv_status::no_timeout : std::cv_status::timeout;
	}
	template <std::uint32_t F, class C, class D, class Pred>
	bool wait_until(std::unique_lock<basic_mutex<F>> &lock, const std::chrono::time_point<C, D> &t, Pred pred)
	{
		while (!pred())
			if (wait_until(lock, t) == std::cv_status::timeout)
				return pred();
		return true;
	}
	template <std::uint32_t F, class R, class P>
	std::cv_status wait_for(std::unique_lock<basic_mutex<F>> &lock, const std::chrono::duration<R, P> &d)
	{
		return wait_until(lock, std::chrono::steady_clock::now() + d);
	}
	template <std::uint32_t F, class R, class P, class Pred>
	bool wait_for(std::unique_lock<basic_mutex<F>> &lock, const std::chrono::duration<R, P> &d, Pred pred)
	{
		return wait_until(lock, std::chrono::steady_clock::now() + d, std::move(pred));
	}
	void notify_one() { check(ch_condition_signal(get())); }
	void notify_all() { check(ch_condition_broadcast(get())); }

private:
	explicit condition(ch_condition *p) noexcept : sync_object(p) {}
	template <std::uint32_t F> bool wait_ns(std::unique_lock<basic_mutex<F>> &lock, std::int64_t ns)
	{
		return lock.mutex()->note_.note(ch_condition_wait(get(), lock.mutex()->get(), ns));
	}
};

// A failed wait throws: EOWNERDEAD, ECANCELED; what the action threw comes out where it ran.
class barrier : public detail::sync_object<ch_barrier, ch_barrier_attach, ch_barrier_detach, ch_barrier_destroy,
					   ch_barrier_get_descr> {
public:
	barrier() = default; // none
	static barrier create(ch_pool *pool, unsigned parties, bool members = false)
	{
		ch_barrier_attr attr = CH_BARRIER_ATTR_INIT;

		attr.parties = parties;
		attr.flags = members ? CH_BARRIER_MEMBERS : 0;
		return barrier(detail::created<ch_barrier, ch_barrier_create>(pool, attr));
	}
	static barrier create(const memory_pool &pool, unsigned parties, bool members = false)
	{
		return create(pool.get(), parties, members);
	}
	static barrier attach(const descriptor &d) { return barrier(attached(d)); }

	// The number of this arrival.
	unsigned wait(std::function<void()> action = {}) { return *wait_ns(CH_FOREVER, action); }
	// Nothing if the others did not come in time; the barrier is then broken.
	template <class R, class P>
	std::optional<unsigned> wait_for(const std::chrono::duration<R, P> &d, std::function<void()> action = {})
	{
		const std::int64_t ns = detail::timeout_of(d);

		return wait_ns(ns == CH_TRY ? 1 : ns, action);
	}
	void abort() { check(ch_barrier_abort(get())); }
	void reset() { check(ch_barrier_reset(get())); }
	bool is_broken() const { return check(ch_barrier_is_broken(get())) != 0; }
	unsigned count() const { return static_cast<unsigned>(check(ch_barrier_count(get()))); }
	unsigned parties() const noexcept { return ch_barrier_get_parties(get()); }

private:
	struct call {
		std::function<void()> &action;
		std::exception_ptr thrown;
	};
	static int run(void *arg)
	{
		call &c = *static_cast<call *>(arg);

		try {
			c.action();
			return 0;
		} catch (...) { // C must not see it
			c.thrown = std::current_exception();
			return -ECANCELED;
		}
	}
	std::optional<unsigned> wait_ns(std::int64_t ns, std::function<void()> &action)
	{
		call c{action, nullptr};
		const int rc = ch_barrier_wait(get(), action ? run : nullptr, &c, ns);

		if (c.thrown)
			std::rethrow_exception(c.thrown);
		return check_wait(rc) ? std::optional<unsigned>(static_cast<unsigned>(rc)) : std::nullopt;
	}
	explicit barrier(ch_barrier *p) noexcept : sync_object(p) {}
};

} // namespace ch

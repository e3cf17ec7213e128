// SPDX-License-Identifier: Apache-2.0
// shared.hpp - a value or an array in shared memory, with a lock, for any number of processes. See libpool(7).
//
//	ch::value<long> total(0);
//	ch::array<double> grid(1000);
//	p.submit([](ch::value<long> t, ch::array<double> g) { ... }, total, grid);
//	p.map([t = ch::object_ref(total)](int i) { t.open().update([&](long &n) { n += i; }); }, items);
//
// Copies are the same memory. It ends with the last object of the process that made it: who has it attached may still look
// at what is there, but its lock is ESTALE. Mutex, condition, event, semaphore and barrier: <channels/sync.hpp>. They
// travel in the same ways.
#pragma once
#include <algorithm>
#include <atomic>
#include <channels/sync.hpp>
#include <memory>
#include <mutex>
#include <span>
#include <type_traits>

namespace ch {

namespace detail {

class shared_memory;

CH_API std::shared_ptr<shared_memory> make_shared_memory(std::size_t nr, std::size_t element_size);
CH_API std::shared_ptr<shared_memory> open_shared_memory(const descriptor &d, std::size_t element_size);
CH_API const descriptor &descr_of(const shared_memory &m) noexcept;
CH_API std::span<std::byte> bytes_of(const shared_memory &m) noexcept;
CH_API recursive_mutex &lock_of(shared_memory &m) noexcept;

} // namespace detail

// Lockable, by a thread as often as it likes: std::lock_guard, std::unique_lock and std::scoped_lock work with it. Access
// to the elements takes no lock of its own.
template <class T> class array {
	static_assert(std::is_trivially_copyable_v<T> && !std::is_pointer_v<T> && alignof(T) <= 64,
		      "what several processes use is trivially copyable, and no pointer");

public:
	using value_type = T;

	array() = default; // none
	// n elements, each a copy of v. Throws ch::error ENOSPC if there is no memory.
	explicit array(std::size_t n, const T &v = T()) : m_(detail::make_shared_memory(n, sizeof(T)))
	{
		std::uninitialized_fill_n(data(), n, v);
	}
	// Throws ch::error as ch_mutex_attach, and EPROTO if it is an array of something else.
	static array attach(const descriptor &d)
	{
		array a;

		a.m_ = detail::open_shared_memory(d, sizeof(T));
		return a;
	}
	descriptor descr() const { return detail::descr_of(some()); }
	explicit operator bool() const noexcept { return m_ != nullptr; }

	T *data() const { return reinterpret_cast<T *>(detail::bytes_of(some()).data()); }
	std::size_t size() const { return detail::bytes_of(some()).size() / sizeof(T); }
	T &operator[](std::size_t i) const { return data()[i]; }
	T *begin() const { return data(); }
	T *end() const { return data() + size(); }

	void lock() const { detail::lock_of(some()).lock(); }
	bool try_lock() const { return detail::lock_of(some()).try_lock(); }
	template <class R, class P> bool try_lock_for(const std::chrono::duration<R, P> &d) const
	{
		return detail::lock_of(some()).try_lock_for(d);
	}
	void unlock() const { detail::lock_of(some()).unlock(); }
	// For its holder: whether a holder died since this process last asked, so that the elements may be half changed.
	bool owner_died() const { return detail::lock_of(some()).owner_died(); }

private:
	detail::shared_memory &some() const
	{
		if (!m_)
			throw error(EINVAL, "shared memory: there is none (default constructed or moved from)");
		return *m_;
	}
	std::shared_ptr<detail::shared_memory> m_;
};

// One T.
template <class T> class value {
public:
	using value_type = T;

	value() = default; // none
	explicit value(const T &v) : a_(1, v) {}
	static value attach(const descriptor &d)
	{
		value v;

		v.a_ = array<T>::attach(d);
		return v;
	}
	descriptor descr() const { return a_.descr(); }
	explicit operator bool() const noexcept { return static_cast<bool>(a_); }

	// With the lock.
	T get() const
	{
		const std::lock_guard l(a_);

		return a_[0];
	}
	void set(const T &v) const
	{
		const std::lock_guard l(a_);

		a_[0] = v;
	}
	// What f(T &) returns, which may change it.
	template <class F> decltype(auto) update(F &&f) const
	{
		const std::lock_guard l(a_);

		return std::forward<F>(f)(a_[0]);
	}
	// Without it: for who holds the lock, or for numbers, by single instructions.
	T &operator*() const { return a_[0]; }
	T *operator->() const { return a_.data(); }
	std::atomic_ref<T> atomic() const
		requires std::atomic_ref<T>::is_always_lock_free
	{
		return std::atomic_ref<T>(a_[0]);
	}

	void lock() const { a_.lock(); }
	bool try_lock() const { return a_.try_lock(); }
	template <class R, class P> bool try_lock_for(const std::chrono::duration<R, P> &d) const { return a_.try_lock_for(d); }
	void unlock() const { a_.unlock(); }
	bool owner_died() const { return a_.owner_died(); }

private:
	array<T> a_;
};

} // namespace ch

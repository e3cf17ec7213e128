// SPDX-License-Identifier: Apache-2.0
// future.hpp - the result of a submitted task, when it is there.
//
// A thread that waits reads the results of all tasks from shared memory itself and hands those of others to
// their futures: no helper thread stands between a worker and whoever waits. So time passes for a pool's results only
// while somebody waits, submits or asks is_ready(); a future may be waited for by one thread at a time.
#pragma once
#include <atomic>
#include <chrono>
#include <memory>
#include <pool/task.hpp>
#include <utility>

namespace ch {

namespace detail {

class core;

enum class outcome : std::uint8_t { none, value, error, died, cancelled, lost, no_memory };

// What the owner's process keeps of one task, until the future has been asked or thrown away. Counted references: the
// future's, and the core's while the task is under way.
struct CH_API task {
	static constexpr std::size_t small_max = 112;

	std::atomic<std::uint32_t> refs{1};
	std::atomic<bool> is_ready{false}; // [T1] set last, under the core's lock; what follows is then final
	outcome what = outcome::none;
	bool is_held = false; // the bytes lie in shared memory still; held says how to let go
	std::uint32_t slot = 0, serial = 0; // as it was submitted
	std::uint32_t attempts = 0; // for died
	std::int32_t status = 0;
	pid_t pid = 0;
	std::shared_ptr<core> owner; // outlives the pool in futures that do
	std::size_t len = 0;
	std::byte *data = nullptr; // small, a new[], or a held message
	void *held = nullptr;
	std::byte small_[small_max];

	task() = default;
	task(const task &) = delete;
	task &operator=(const task &) = delete;
	~task();
	std::span<const std::byte> bytes() const noexcept { return {data, len}; }
};

CH_API void unref(task *t) noexcept;
// Waits; false: timeout. Reads results meanwhile.
CH_API bool wait(task &t, std::int64_t timeout_ns);
// Takes a task that no worker has begun back; false: too late.
CH_API bool cancel(task &t) noexcept;
// Throws what stands for a ready task without a value.
[[noreturn]] CH_API void throw_outcome(const task &t);

// Owner of one reference.
class task_ref {
public:
	task_ref() = default;
	explicit task_ref(task *t) noexcept : t_(t) {}
	task_ref(task_ref &&o) noexcept : t_(std::exchange(o.t_, nullptr)) {}
	task_ref &operator=(task_ref &&o) noexcept
	{
		std::swap(t_, o.t_);
		return *this;
	}
	~task_ref()
	{
		if (t_)
			unref(t_);
	}
	task *operator->() const noexcept { return t_; }
	task &operator*() const noexcept { return *t_; }
	explicit operator bool() const noexcept { return t_ != nullptr; }

private:
	task *t_ = nullptr;
};

inline bool is_ready(task &t, std::int64_t timeout_ns)
{
	// [T1] pairs with [T1]: whoever sees it ready sees the result.
	return t.is_ready.load(std::memory_order_acquire) || wait(t, timeout_ns);
}

} // namespace detail

class pool;

// Move-only. Dropping one that is not ready lets the task run on and forgets its result.
template <class R> class future {
public:
	future() = default; // not valid()

	bool valid() const noexcept { return static_cast<bool>(t_); }
	// Whether get() would return at once.
	bool is_ready() const { return detail::is_ready(some(), CH_TRY); }
	void wait() const { detail::is_ready(some(), CH_FOREVER); }
	// False: timeout.
	template <class Rep, class Period> bool wait_for(std::chrono::duration<Rep, Period> d) const
	{
		const auto ns = std::chrono::ceil<std::chrono::nanoseconds>(d).count();

		return detail::is_ready(some(), ns < 0 ? CH_TRY : ns);
	}
	template <class Clock, class Dur> bool wait_until(std::chrono::time_point<Clock, Dur> tp) const
	{
		return wait_for(tp - Clock::now());
	}
	// Waits, and gives the result, or throws what the task threw. Once: the future is not valid() afterwards.
	R get()
	{
		wait();
		const detail::task_ref t = std::move(t_);

		if (t->what != detail::outcome::value)
			detail::throw_outcome(*t);
		if constexpr (!std::is_void_v<R>)
			return archive::read<R>(t->bytes());
	}

private:
	friend class pool;
	explicit future(detail::task_ref t) noexcept : t_(std::move(t)) {}
	detail::task &some() const
	{
		if (!t_)
			throw std::logic_error("ch::future: nothing to wait for (moved from, or get() was called before)");
		return *t_;
	}

	detail::task_ref t_;
};

} // namespace ch

// SPDX-License-Identifier: Apache-2.0
// future.hpp - the result of a submitted task, when it is there.
//
// A thread that waits reads the results of all tasks from shared memory itself and hands those of others to
// their futures: no helper thread stands between a worker and whoever waits. So time passes for a pool's results only
// while somebody waits, submits or asks is_ready(); a future may be waited for by one thread at a time.
//
// then() and on_done() run their functions in one thread of the pool, the callback thread, one after another; it is
// made at their first use and reads results as long as some function waits for one. What they throw ends nothing: it
// goes to the next future, or, from on_done(), in one line to standard error.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdio>
#include <exception>
#include <memory>
#include <pool/options.hpp>
#include <pool/task.hpp>
#include <utility>

namespace ch {

template <class R> class future;

namespace detail {

class core;
class group;
class task_ref;
struct task;

enum class outcome : std::uint8_t { none, value, error, died, timeout, cancelled, lost, no_memory };

// What is to be done when a task is over.
class continuation {
public:
	virtual ~continuation() = default;
	virtual void run(task_ref t) noexcept = 0;
	std::unique_ptr<continuation> next;
	task *of = nullptr; // counted, once it is over
};

// What the owner's process keeps of one task, until the future has been asked or thrown away. Counted references: the
// future's, and the core's while the task is under way.
struct CH_API task {
	static constexpr std::size_t small_max = 112;
	static constexpr std::uint32_t no_slot = UINT32_MAX; // of what no worker runs

	std::atomic<std::uint32_t> refs{1};
	std::atomic<bool> is_ready{false}; // [T1] set last, under the core's lock; what follows is then final
	outcome what = outcome::none;
	bool is_held = false; // the bytes lie in shared memory still; held says how to let go
	std::uint32_t slot = no_slot, serial = 0; // as it was submitted
	std::uint32_t attempts = 0; // for died
	std::int32_t status = 0;
	pid_t pid = 0;
	std::shared_ptr<core> owner; // outlives the pool in futures that do
	std::size_t len = 0;
	std::byte *data = nullptr; // small, a new[], or a held message
	void *held = nullptr;
	std::unique_ptr<std::string> name;
	std::unique_ptr<continuation> after; // under the core's lock, as the next three
	group *in_group = nullptr;
	std::size_t place = 0;   // in the group
	bool is_watched = false; // the callback thread waits for it on behalf of the group
	std::byte small_[small_max];

	task() = default;
	static void *operator new(std::size_t len);
	static void operator delete(void *p) noexcept;
	task(const task &) = delete;
	task &operator=(const task &) = delete;
	~task();
	void clear() noexcept; // forgets the result
	std::span<const std::byte> bytes() const noexcept { return {data, len}; }
};

CH_API void unref(task *t) noexcept;
// Waits; false: timeout. Reads results meanwhile.
CH_API bool wait(task &t, std::int64_t timeout_ns);
// Takes a task that no worker has begun back; false: too late.
CH_API bool cancel(task &t) noexcept;
// Tells a running task that it may end.
CH_API void request_stop(task &t) noexcept;
// cancel(), or kills the worker that runs it; false: it is over.
CH_API bool kill(task &t) noexcept;
// Throws what stands for a ready task without a value.
[[noreturn]] CH_API void throw_outcome(const task &t);
CH_API std::exception_ptr exception_of(const task &t) noexcept;
// Has c run in the callback thread once t is over; at once if that is no more.
CH_API void when_over(task &t, std::unique_ptr<continuation> c);
// A task without a worker, of the same pool as t, to be settled by whoever made it.
CH_API task_ref make_promise(const task &t);
CH_API void settle(task &promise, outcome what, std::span<const std::byte> bytes) noexcept;
CH_API void settle_error(task &promise) noexcept; // with the exception that is being handled
CH_API void pass_on(const task &from, task &promise) noexcept;
CH_API void complain_of_callback(const task &t) noexcept; // the exception that is being handled

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
	static task_ref another(task &t) noexcept
	{
		t.refs.fetch_add(1, std::memory_order_relaxed); // the caller has one already
		return task_ref(&t);
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

template <class R> R value_of(task &t)
{
	if (t.what != outcome::value)
		throw_outcome(t);
	if constexpr (archive::borrows<R>) {
		R v = archive::read<R>(t.bytes());

		v.keep(std::make_shared<const task_ref>(task_ref::another(t)));
		return v;
	} else if constexpr (!std::is_void_v<R>) {
		return archive::read<R>(t.bytes());
	}
}

// What then(G) gives: G is called with the result, or, if it takes one, with the future itself.
template <class G, class R> struct then_result {
	static auto type()
	{
		if constexpr (std::is_invocable_v<G &, future<R>>)
			return std::type_identity<std::invoke_result_t<G &, future<R>>>{};
		else if constexpr (std::is_void_v<R>)
			return std::type_identity<std::invoke_result_t<G &>>{};
		else
			return std::type_identity<std::invoke_result_t<G &, R>>{};
	}
};
template <class G, class R> using then_raw = typename decltype(then_result<G, R>::type())::type;
template <class G, class R> using then_carried = archive::carrier_t<then_raw<G, R>>;

struct future_access; // makes futures of tasks

} // namespace detail

class pool;

// Move-only. Dropping one that is not ready lets the task run on and forgets its result.
template <class R> class future {
public:
	using result = R;

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

		return detail::value_of<R>(*t);
	}
	// Waits; what get() would throw, or null. The future stays.
	std::exception_ptr exception() const
	{
		wait();
		return some().what == detail::outcome::value ? nullptr : detail::exception_of(some());
	}

	// Takes a task back that no worker has begun, exactly: true means that it never runs, and get() throws ch::error
	// ECANCELED. One that runs is told (ch::this_task::is_cancelled()), and goes on.
	bool cancel() noexcept
	{
		if (!t_)
			return false;
		if (detail::cancel(*t_))
			return true;
		detail::request_stop(*t_);
		return false;
	}
	void request_stop() noexcept
	{
		if (t_)
			detail::request_stop(*t_);
	}
	// The same, but the worker of a running task is killed (and replaced). False: it was over.
	bool kill() noexcept { return t_ && detail::kill(*t_); }

	// Calls g in the callback thread with the result, or, if g takes a future<R>, with this, ready, however it ended.
	// A failure, of the task or of g, is the failure of the future that is returned. This one is not valid() afterwards.
	// g's result travels through the archive like a task's.
	template <class G> auto then(G g) -> future<detail::then_carried<G, R>>;

	// Calls f(result) or on_error(std::exception_ptr) in the callback thread. The future stays.
	template <class F, class E> void on_done(F f, E on_error);
	template <class F> void on_done(F f)
	{
		on_done(std::move(f), [](const std::exception_ptr &) {});
	}

private:
	friend struct detail::future_access;
	explicit future(detail::task_ref t) noexcept : t_(std::move(t)) {}
	detail::task &some() const
	{
		if (!t_)
			throw std::logic_error("ch::future: nothing to wait for (moved from, or get() was called before)");
		return *t_;
	}

	detail::task_ref t_;
};

namespace detail {

struct future_access {
	template <class R> static future<R> make(task_ref t) noexcept { return future<R>(std::move(t)); }
	template <class R> static task &of(const future<R> &f) { return f.some(); }
};

template <class G, class R> class then_step final : public continuation {
public:
	then_step(G g, task_ref promise) : g_(std::move(g)), promise_(std::move(promise)) {}
	void run(task_ref t) noexcept override
	{
		constexpr bool takes_future = std::is_invocable_v<G &, future<R>>;

		if (!takes_future && t->what != outcome::value)
			return pass_on(*t, *promise_);
		try {
			if constexpr (takes_future)
				finish([&]() -> decltype(auto) { return g_(future_access::make<R>(std::move(t))); });
			else if constexpr (std::is_void_v<R>)
				finish(g_);
			else
				finish([&]() -> decltype(auto) { return g_(value_of<R>(*t)); });
		} catch (...) {
			settle_error(*promise_);
		}
	}

private:
	template <class H> void finish(H &&h)
	{
		if constexpr (std::is_void_v<std::invoke_result_t<H &>>) {
			h();
			settle(*promise_, outcome::value, {});
		} else {
			settle(*promise_, outcome::value, archive::to_bytes(as_sent(h())));
		}
	}

	G g_;
	task_ref promise_;
};

template <class F, class E, class R> class callback final : public continuation {
public:
	callback(F f, E e) : f_(std::move(f)), e_(std::move(e)) {}
	void run(task_ref t) noexcept override
	{
		try {
			if (t->what != outcome::value)
				e_(exception_of(*t));
			else if constexpr (std::is_void_v<R>)
				f_();
			else
				f_(value_of<R>(*t));
		} catch (...) {
			complain_of_callback(*t);
		}
	}

private:
	F f_;
	E e_;
};

} // namespace detail

template <class R> template <class G> auto future<R>::then(G g) -> future<detail::then_carried<G, R>>
{
	detail::task_ref promise = detail::make_promise(some());
	detail::task_ref seen = detail::task_ref::another(*promise);

	detail::when_over(*t_, std::make_unique<detail::then_step<G, R>>(std::move(g), std::move(seen)));
	t_ = detail::task_ref();
	return detail::future_access::make<detail::then_carried<G, R>>(std::move(promise));
}

template <class R> template <class F, class E> void future<R>::on_done(F f, E on_error)
{
	detail::when_over(some(), std::make_unique<detail::callback<F, E, R>>(std::move(f), std::move(on_error)));
}

} // namespace ch

// SPDX-License-Identifier: Apache-2.0
// pool.hpp - a pool of worker processes. See libpool(7).
//
//	ch::pool p;                                                   // a worker for each CPU this process may use
//	ch::future<int> f = p.submit([](int a, int b) { return a + b; }, 1, 2);
//	int three = f.get();                                          // or throws what the task threw
//	for (const auto &n : p.map(count_words, paths))               // in order, lazily, in chunks
//		total += n;
//
// Workers are forked from a small process that is made with the pool: create pools early, before threads where
// possible. They have the memory of that moment; what a task needs of later comes by captures and arguments.
#pragma once
#include <pool/batch.hpp>
#include <pool/context.hpp>
#include <pool/future.hpp>
#include <pool/map.hpp>
#include <pool/options.hpp>
#include <pool/queue.hpp>
#include <pool/wait.hpp>
#include <string>
#include <vector>

namespace ch {

namespace detail {
struct raw_bytes; // named.hpp
CH_API future<raw_bytes> submit_named(pool &p, std::string_view name, std::span<const std::byte> in);
} // namespace detail

// One process of a job whose processes were started beforehand, all alike.
struct rank {
	unsigned index = 0, count = 1;
	std::string job{}; // the same in all of them, and no other's
};
// As the launcher says in the environment: CH_RANK, CH_SIZE and CH_JOB, or what PMIx, PMI, Open MPI or Slurm set. Without
// any: the only one.
CH_API rank launched_rank();

class CH_API pool {
public:
	pool() : pool(pool_options{}) {}
	explicit pool(unsigned workers) : pool(pool_options{.workers = workers}) {}
	explicit pool(const pool_options &o);
	// Each rank of a job constructs the pool, with the same options. Rank 0 goes on with it, and the others are its
	// workers: they return from here, with is_main() false, when the pool has ended. The only rank of a job gets a pool
	// of its own workers. Throws ch::error ETIMEDOUT if not all come within a minute.
	pool(const rank &r, const pool_options &o);
	// close(), join(). While an exception unwinds the stack: terminate(), so that an error is not held up by tasks.
	~pool();
	pool(pool &&) noexcept;
	pool &operator=(pool &&) noexcept;

	// Runs f(args...) in a worker. Strings and views are sent by value, and so is everything else.
	// Waits while in_flight tasks are under way or memory is short. Throws ch::error: EPIPE after close(), EPERM in
	// another process than the creator's, EMSGSIZE for arguments that can never fit.
	template <class F, class... A>
		requires(!std::is_same_v<std::decay_t<F>, task_options>)
	auto submit(F &&f, A &&...args)
	{
		return send(nullptr, std::forward<F>(f), std::forward<A>(args)...);
	}
	// The same, with options of this task's own.
	template <class F, class... A> auto submit(const task_options &o, F &&f, A &&...args)
	{
		return send(&o, std::forward<F>(f), std::forward<A>(args)...);
	}
	// Runs f(args...) in a worker and waits: submit(...).get().
	template <class... A> auto apply(A &&...args) { return submit(std::forward<A>(args)...).get(); }

	// submit(), under the name it has elsewhere; then(), on_done() of the future take callbacks.
	template <class... A> auto apply_async(A &&...args) { return submit(std::forward<A>(args)...); }

	// f(item) for each item of a range, in order: an input range of results, see map.hpp.
	template <class F, std::ranges::input_range Rg> auto map(F &&f, Rg &&range, map_options o = {})
	{
		return make_map<true>(std::forward<F>(f), std::forward<Rg>(range), o);
	}
	// As they come; the iterator's index() says whose a result is.
	template <class F, std::ranges::input_range Rg> auto map_unordered(F &&f, Rg &&range, map_options o = {})
	{
		return make_map<false>(std::forward<F>(f), std::forward<Rg>(range), o);
	}
	// The items are tuples or pairs: f(a, b, ...).
	template <class F, std::ranges::input_range Rg> auto starmap(F &&f, Rg &&range, map_options o = {})
	{
		return map(detail::spread<std::decay_t<F>>{f}, std::forward<Rg>(range), o);
	}
	template <class F, std::ranges::input_range Rg> auto starmap_unordered(F &&f, Rg &&range, map_options o = {})
	{
		return map_unordered(detail::spread<std::decay_t<F>>{f}, std::forward<Rg>(range), o);
	}
	// Submits everything now, and gives one handle for it: see batch.hpp. In chunks of about a quarter of each
	// worker's share, if o names none.
	template <class F, std::ranges::input_range Rg> auto map_async(F &&f, Rg &&range, map_options o = {})
	{
		return detail::send_batch<std::decay_t<F>>(core(), f, range, o);
	}
	template <class F, std::ranges::input_range Rg> auto starmap_async(F &&f, Rg &&range, map_options o = {})
	{
		return map_async(detail::spread<std::decay_t<F>>{f}, range, o);
	}

	// No more tasks; those that were submitted are done.
	void close() noexcept;
	// Waits until every submitted task is done.
	void join();
	// Ends now: tasks that wait or run fail with ch::error ECANCELED, workers are killed. Running tasks get patience
	// to end first.
	void terminate(nanoseconds patience = nanoseconds(0)) noexcept;
	void kill() noexcept { terminate(); }

	// Waits until every worker is there and has done its initializer; false: timeout. Throws ch::error EPIPE if that
	// failed.
	bool wait_ready(nanoseconds timeout = nanoseconds(CH_FOREVER));
	// Keeps so many workers from now on, from 1 to max_workers. Those that are too many end their tasks first.
	void resize(unsigned workers);

	bool is_main() const noexcept { return core_ != nullptr; }
	unsigned size() const noexcept;     // how many workers it keeps
	std::vector<pid_t> workers() const; // those that run now
	pool_stats stats() const;

private:
	friend future<detail::raw_bytes> detail::submit_named(pool &p, std::string_view name, std::span<const std::byte> in);

	template <class F, class... A> auto send(const task_options *o, F &&f, A &&...args)
	{
		using Fn = std::decay_t<F>;
		static_assert(detail::callable_with<Fn, A...>,
			      "the callable cannot be called with these arguments as they arrive: by value, C strings as "
			      "std::string, spans as std::vector");
		using R = detail::result_of<Fn, A...>;
		const detail::shipped<Fn> fn(f);
		const std::size_t len = archive::size(fn, detail::as_sent(args)...);
		detail::draft d(core(), detail::call_name<Fn, archive::carrier_t<A>...>(), len, o);

		archive::write(d.room(), fn, detail::as_sent(args)...);
		return detail::future_access::make<R>(d.commit());
	}

	template <bool IsOrdered, class F, class Rg> auto make_map(F &&f, Rg &&range, const map_options &o)
	{
		core(); // throws if there is none
		return mapped<std::decay_t<F>, Rg, IsOrdered>(core_, std::forward<F>(f), std::forward<Rg>(range), o);
	}

	detail::core &core() const;
	std::shared_ptr<detail::core> core_;
	int unwinding_ = 0; // exceptions on their way when it was made
};

// CPUs this process may use: its affinity, and its cgroup's quota rounded up.
CH_API unsigned usable_cpus();

} // namespace ch

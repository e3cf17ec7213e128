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
#include <pool/future.hpp>
#include <pool/map.hpp>
#include <string>
#include <vector>

namespace ch {

// What happens to the task that a worker held when it died.
enum class on_death {
	requeue, // another worker begins it anew, up to max_attempts in all; then ch::worker_died
	fail,    // ch::worker_died at once
};

struct pool_options {
	unsigned workers = 0;     // 0: the CPUs this process may use (affinity and cgroup quota)
	ch::on_death on_death = ch::on_death::requeue;
	unsigned max_attempts = 3;
	std::size_t memory = 32 << 20; // bytes of shared memory. The largest argument is 5/8 of it
	unsigned in_flight = 0;   // tasks submitted and not done, at most; submit() waits beyond. 0: 4096 or more
	unsigned spin_ns = 0;     // how long to busy-wait before sleeping, as in ch_channel_attr
	std::string name = "pool"; // workers appear under it in ps(1)
};

struct pool_stats {
	std::uint64_t submitted = 0; // tasks; a chunk of map is one
	std::uint64_t done = 0;      // results that came, errors among them
	std::uint64_t requeued = 0;  // begun anew after a death
	std::uint64_t given_up = 0;  // ended as ch::worker_died
	std::uint64_t deaths = 0;    // of workers
	std::uint64_t in_flight = 0;
	unsigned workers = 0;        // that run now
};

class CH_API pool {
public:
	pool() : pool(pool_options{}) {}
	explicit pool(unsigned workers) : pool(pool_options{.workers = workers}) {}
	explicit pool(const pool_options &o);
	// close(), join(). While an exception unwinds the stack: terminate(), so that an error is not held up by tasks.
	~pool();
	pool(pool &&) noexcept;
	pool &operator=(pool &&) noexcept;

	// Runs f(args...) in a worker. Strings and views are sent by value, and so is everything else.
	// Waits while in_flight tasks are under way or memory is short. Throws ch::error: EPIPE after close(), EPERM in
	// another process than the creator's, EMSGSIZE for arguments that can never fit.
	template <class F, class... A> auto submit(F &&f, A &&...args)
	{
		using Fn = std::decay_t<F>;
		static_assert(detail::callable_with<Fn, A...>,
			      "the callable cannot be called with these arguments as they arrive: by value, C strings as "
			      "std::string, spans as std::vector");
		using R = detail::result_of<Fn, A...>;
		const detail::shipped<Fn> fn(f);
		const std::size_t len = archive::size(fn, detail::as_sent(args)...);
		detail::draft d(core(), detail::call_name<Fn, archive::carrier_t<A>...>(), len);

		archive::write(d.room(), fn, detail::as_sent(args)...);
		return future<R>(d.commit());
	}

	// f(item) for each item of a range, in order: an input range of results, see map.hpp.
	template <class F, std::ranges::input_range Rg> auto map(F &&f, Rg &&range, map_options o = {})
	{
		core(); // throws if there is none
		return mapped<std::decay_t<F>, Rg>(core_, std::forward<F>(f), std::forward<Rg>(range), o);
	}

	// No more tasks; those that were submitted are done.
	void close() noexcept;
	// Waits until every submitted task is done.
	void join();
	// Ends now: tasks that wait or run fail with ch::error ECANCELED, workers are killed. Running tasks get patience
	// to end first.
	void terminate(nanoseconds patience = nanoseconds(0)) noexcept;
	void kill() noexcept { terminate(); }

	unsigned size() const noexcept;     // how many workers it keeps
	std::vector<pid_t> workers() const; // those that run now
	pool_stats stats() const;

private:
	detail::core &core() const;
	std::shared_ptr<detail::core> core_;
	int unwinding_ = 0; // exceptions on their way when it was made
};

// CPUs this process may use: its affinity, and its cgroup's quota rounded up.
CH_API unsigned usable_cpus();

} // namespace ch

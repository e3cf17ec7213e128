// SPDX-License-Identifier: Apache-2.0
// batch.hpp - many items that were submitted together, and one handle for all of them: pool.map_async().
#pragma once
#include <pool/chunk.hpp>
#include <pool/wait.hpp>

namespace ch {

namespace detail {

// What a batch and its callback share.
template <class R, bool IsFlat> struct batch_state {
	std::vector<task_ref> tasks;
	std::vector<std::size_t> sizes;
	std::atomic<std::size_t> left{0}; // chunks whose end the callback waits for

	// The results in the order of the items; throws what the first item that failed threw.
	std::vector<R> collect()
	{
		landing<R, IsFlat> here;
		std::vector<R> all;

		for (std::size_t i = 0; i < tasks.size(); i++) {
			if (tasks[i]->what != outcome::value)
				throw_outcome(*tasks[i]);
			here.take(task_ref::another(*tasks[i]), sizes[i]);
			for (std::size_t k = 0; k < sizes[i]; k++)
				all.push_back(std::move(here.at(k)));
		}
		return all;
	}
};

// After the last chunk.
template <class S, class F, class E> class batch_step final : public continuation {
public:
	batch_step(std::shared_ptr<S> s, std::shared_ptr<std::pair<F, E>> fs) : s_(std::move(s)), fs_(std::move(fs)) {}
	void run(task_ref t) noexcept override
	{
		// The callback thread alone counts.
		if (s_->left.fetch_sub(1, std::memory_order_relaxed) != 1)
			return;
		try {
			auto all = s_->collect();

			fs_->first(std::move(all));
		} catch (...) {
			fail(*t);
		}
	}

private:
	void fail(const task &t) noexcept
	{
		try {
			fs_->second(std::current_exception());
		} catch (...) {
			complain_of_callback(t);
		}
	}
	std::shared_ptr<S> s_;
	std::shared_ptr<std::pair<F, E>> fs_;
};

} // namespace detail

// Move-only. Dropping it lets the tasks run on.
template <class R, bool IsFlat> class batch {
	using state = detail::batch_state<R, IsFlat>;

public:
	explicit batch(std::shared_ptr<state> s) : s_(std::move(s)) {}
	batch(batch &&) noexcept = default;
	batch &operator=(batch &&) noexcept = default;

	std::size_t size() const noexcept // items
	{
		std::size_t n = 0;

		for (const std::size_t k : s_->sizes)
			n += k;
		return n;
	}
	std::size_t nr_tasks() const noexcept { return s_->tasks.size(); }
	std::size_t nr_done() const // of the tasks
	{
		std::size_t n = 0;

		for (const detail::task_ref &t : s_->tasks)
			n += detail::is_ready(*t, CH_TRY);
		return n;
	}
	bool is_ready() const { return wait_for(nanoseconds(0)); }
	void wait() const { wait_for(nanoseconds(CH_FOREVER)); }
	bool wait_for(nanoseconds timeout) const // false: timeout
	{
		const detail::countdown until(timeout.count());

		for (const detail::task_ref &t : s_->tasks)
			if (!detail::is_ready(*t, until.left_ns()))
				return false;
		return true;
	}
	// Waits; all results in the order of the items. Throws what the first item that failed threw.
	std::vector<R> get()
	{
		wait();
		return s_->collect();
	}
	// Takes back what has not begun; how many tasks that were.
	std::size_t cancel() noexcept
	{
		std::size_t n = 0;

		for (const detail::task_ref &t : s_->tasks)
			n += detail::cancel(*t);
		return n;
	}
	// Calls f(std::vector<R>) or on_error(std::exception_ptr) in the callback thread when all is done. Once.
	template <class F, class E> void on_done(F f, E on_error)
	{
		const auto fs = std::make_shared<std::pair<F, E>>(std::move(f), std::move(on_error));

		s_->left.store(s_->tasks.size(), std::memory_order_relaxed); // when_over() publishes it
		for (const detail::task_ref &t : s_->tasks)
			detail::when_over(*t, std::make_unique<detail::batch_step<state, F, E>>(s_, fs));
	}

private:
	std::shared_ptr<state> s_;
};

namespace detail {

CH_API std::size_t batch_chunk(core &c, map_options o, std::size_t items) noexcept;

template <class F, class Rg> auto send_batch(core &c, const F &f, Rg &&in, const map_options &o)
{
	using item = archive::carrier_t<std::ranges::range_value_t<Rg>>;
	using result = item_result<F, item>;
	static_assert(std::is_invocable_v<F &, item>, "the callable cannot be called with an item of the range, by value");
	constexpr bool is_flat = goes_flat<F, item>;
	auto s = std::make_shared<batch_state<result, is_flat>>();
	std::vector<item> all, some;

	for (auto &&i : in)
		all.push_back(as_carried(i));
	const std::size_t chunk = batch_chunk(c, o, all.size());
	for (std::size_t at = 0; at < all.size(); at += some.size()) {
		const std::size_t n = std::min(chunk, all.size() - at);

		some.assign(std::make_move_iterator(all.begin() + static_cast<std::ptrdiff_t>(at)),
			    std::make_move_iterator(all.begin() + static_cast<std::ptrdiff_t>(at + n)));
		s->tasks.push_back(send_chunk(c, f, some, o.task));
		s->sizes.push_back(n);
	}
	return batch<result, is_flat>(std::move(s));
}

} // namespace detail
} // namespace ch

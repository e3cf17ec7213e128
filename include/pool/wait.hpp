// SPDX-License-Identifier: Apache-2.0
// wait.hpp - waiting for several futures, of one pool or of several.
//
//	for (ch::future<int> &f : ch::as_completed(futures))     // in the order in which they end
//		use(f.get());
//	ch::wait(futures, ch::when::first, 2s);
#pragma once
#include <iterator>
#include <pool/future.hpp>
#include <ranges>
#include <vector>

namespace ch {

enum class when {
	all,       // every one is over
	first,     // some one is
	exception, // some one failed, or every one is over
};

namespace detail {

// Tasks that are waited for together. Each that is over is given out once, in the order in which they end.
class CH_API group {
public:
	group() noexcept;
	~group();
	group(const group &) = delete;
	group &operator=(const group &) = delete;
	// A task is in one group at a time. place comes back from next(). Throws ch::error EBUSY.
	void add(task &t, std::size_t place);
	// The place of one that is over; nothing: timeout, or none is left.
	std::optional<std::size_t> next(std::int64_t timeout_ns);
	bool has_next() const noexcept;    // next() would not wait
	std::size_t left() const noexcept; // not yet given out

private:
	friend class core;
	struct inside;
	void note(const task &t) noexcept; // by the core, under its lock
	std::unique_ptr<inside> in_;
};

// What is left of a time that began when this was made.
class CH_API countdown {
public:
	explicit countdown(std::int64_t timeout_ns) noexcept;
	std::int64_t left_ns() const noexcept;

private:
	std::uint64_t end_ns_; // 0: never
};

} // namespace detail

// False: timeout. The futures stay; ask each whether it is_ready().
template <std::ranges::forward_range Fs>
bool wait(Fs &&futures, when w = when::all, nanoseconds timeout = nanoseconds(CH_FOREVER))
{
	const detail::countdown until(timeout.count());
	detail::group g;
	std::vector<detail::task *> tasks;

	for (auto &f : futures) {
		tasks.push_back(&detail::future_access::of(f));
		g.add(*tasks.back(), tasks.size() - 1);
	}
	while (g.left()) {
		const auto i = g.next(until.left_ns());

		if (!i)
			return false;
		if (w == when::first || (w == when::exception && tasks[*i]->what != detail::outcome::value))
			return true;
	}
	return true;
}

// The futures of a range, which must stay, in the order in which they end. Throws ch::error ETIMEDOUT from the
// iterator when the time for all of them is over; those that are left are valid still.
template <std::ranges::forward_range Fs> class completed {
public:
	using value_type = std::ranges::range_value_t<Fs>;

	completed(Fs &futures, nanoseconds timeout) : until_(timeout.count())
	{
		for (auto &f : futures) {
			futures_.push_back(&f);
			group_.add(detail::future_access::of(f), futures_.size() - 1);
		}
	}
	class iterator {
	public:
		using value_type = completed::value_type;
		using difference_type = std::ptrdiff_t;

		iterator() = default;
		explicit iterator(completed *c) : c_(c) {}
		value_type &operator*() const noexcept { return *c_->now_; }
		iterator &operator++()
		{
			c_->advance();
			return *this;
		}
		void operator++(int) { c_->advance(); }
		friend bool operator==(const iterator &i, std::default_sentinel_t) { return i.is_at_end(); }

	private:
		bool is_at_end() const noexcept { return !c_->now_; }

		completed *c_ = nullptr;
	};
	iterator begin()
	{
		if (!now_)
			advance();
		return iterator(this);
	}
	std::default_sentinel_t end() const noexcept { return {}; }

private:
	void advance()
	{
		now_ = nullptr;
		if (!group_.left())
			return;
		const auto i = group_.next(until_.left_ns());
		if (!i)
			throw error(ETIMEDOUT, "as_completed: not all futures are ready");
		now_ = futures_[*i];
	}

	detail::countdown until_;
	detail::group group_;
	std::vector<value_type *> futures_;
	value_type *now_ = nullptr;
};

template <std::ranges::forward_range Fs> auto as_completed(Fs &futures, nanoseconds timeout = nanoseconds(CH_FOREVER))
{
	return completed<Fs>(futures, timeout);
}

} // namespace ch

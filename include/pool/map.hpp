// SPDX-License-Identifier: Apache-2.0
// map.hpp - pool.map() and its kin: results made as they are asked for, in order or as they come.
//
// The input is read only as far ahead as the workers can use, so it may be endless or expensive. Items travel in
// chunks. Dereferencing an iterator gives the result of its item, or throws what f threw for this item; the
// iterator may then be advanced to the next. Only one pass, as with any input range.
#pragma once
#include <deque>
#include <iterator>
#include <optional>
#include <pool/chunk.hpp>
#include <pool/options.hpp>
#include <pool/progress.hpp>
#include <pool/wait.hpp>
#include <ranges>
#include <vector>

namespace ch {

namespace detail {

// A range, or a reference to one. (As std::views::all, which clang 14 cannot compile with libstdc++.)
template <class Rg> class kept {
public:
	explicit kept(Rg &&r) : r_(std::move(r)) {}
	Rg &get() noexcept { return r_; }

private:
	Rg r_;
};
template <class Rg> class kept<Rg &> {
public:
	explicit kept(Rg &r) noexcept : r_(&r) {}
	Rg &get() const noexcept { return *r_; }

private:
	Rg *r_;
};

// What is under way, taken out in the order in which it was put in.
template <class B> class in_order {
public:
	std::size_t size() const noexcept { return q_.size(); }
	// Whether pop() has something at once, as far as is known here.
	bool has_next() const noexcept
	{
		return !q_.empty() && q_.front().task->is_ready.load(std::memory_order_acquire); // [T1] pairs with [T1]
	}
	void push(B b) { q_.push_back(std::move(b)); }
	void push_first(B b) { q_.push_front(std::move(b)); }
	B pop()
	{
		B b = std::move(q_.front());

		q_.pop_front();
		is_ready(*b.task, CH_FOREVER);
		return b;
	}
	template <class F> void each(F f)
	{
		for (B &b : q_)
			f(b);
	}

private:
	std::deque<B> q_;
};

// The same, as they end.
template <class B> class as_they_end {
public:
	std::size_t size() const noexcept { return at_.size() - free_.size(); }
	bool has_next() const noexcept { return false; }
	void push(B b)
	{
		if (free_.empty()) {
			free_.push_back(at_.size());
			at_.emplace_back();
		}
		const std::size_t i = free_.back();

		group_->add(*b.task, i);
		free_.pop_back();
		at_[i] = std::move(b);
	}
	void push_first(B b) { push(std::move(b)); }
	B pop()
	{
		const std::size_t i = group_->next(CH_FOREVER).value();

		free_.push_back(i);
		return std::move(at_[i]);
	}
	template <class F> void each(F f)
	{
		for (B &b : at_)
			if (b.task)
				f(b);
	}

private:
	std::vector<B> at_;
	std::vector<std::size_t> free_;
	std::unique_ptr<group> group_ = std::make_unique<group>();
};

// How many items the next chunk takes.
class CH_API chunker {
public:
	chunker(map_options o, unsigned workers) noexcept;
	std::size_t next(std::optional<std::size_t> left) const noexcept;
	void learn(std::size_t items, std::uint64_t elapsed_ns) noexcept;
	std::size_t window() const noexcept { return window_; }

private:
	std::size_t fixed_, window_, workers_, size_ = 1;
};

} // namespace detail

// Rg as std::forward deduces it: the range itself, which is kept, or a reference to one, which must stay.
template <class F, class Rg, bool IsOrdered> class mapped {
	using range = std::remove_reference_t<Rg>;
	using item = archive::carrier_t<std::ranges::range_value_t<range>>;
	static_assert(std::is_invocable_v<F &, item>, "the callable cannot be called with an item of the range, by value");

public:
	using result = detail::item_result<F, item>;

	mapped(std::shared_ptr<detail::core> c, F f, Rg &&in, map_options o)
	    : core_(std::move(c)), f_(std::move(f)), in_(std::forward<Rg>(in)), o_(o), name_(o.task.name),
	      chunker_(o, detail::worker_count(*core_))
	{
		o_.task.name = name_;
	}
	mapped(mapped &&) = default; // before begin() only
	// What has not begun is taken back; what runs is not waited for.
	~mapped()
	{
		flying_.each([](batch &b) {
			if (b.task)
				detail::cancel(*b.task);
		});
	}

	class iterator {
	public:
		using value_type = result;
		using difference_type = std::ptrdiff_t;

		iterator() = default;
		explicit iterator(mapped *m) : m_(m) {}
		result &operator*() const { return m_->here_.at(m_->at_); }
		// The place of its item in the input, from 0.
		std::size_t index() const noexcept { return m_->first_ + m_->at_; }
		iterator &operator++()
		{
			m_->advance();
			return *this;
		}
		void operator++(int) { m_->advance(); }
		friend bool operator==(const iterator &i, std::default_sentinel_t) { return i.is_at_end(); }

	private:
		bool is_at_end() const noexcept { return m_->at_ == m_->here_.size(); }

		mapped *m_ = nullptr;
	};

	iterator begin()
	{
		if (!it_) {
			it_.emplace(std::ranges::begin(in_.get()));
			if (o_.progress)
				bar_.emplace(o_.progress, left().value_or(0));
			fill();
			land();
		}
		return iterator(this);
	}
	std::default_sentinel_t end() const noexcept { return {}; }

	// All that is left, at once.
	std::vector<result> to_vector()
	{
		std::vector<result> v;

		for (auto &r : *this)
			v.push_back(std::move(r));
		return v;
	}

private:
	static constexpr bool is_flat = detail::goes_flat<F, item>;

	struct batch {
		detail::task_ref task;
		std::vector<item> items; // of several, until the result is there: to begin them singly if a worker dies
		std::size_t nr = 0, first = 0;
	};
	using flight = std::conditional_t<IsOrdered, detail::in_order<batch>, detail::as_they_end<batch>>;

	bool has_input() { return *it_ != std::ranges::end(in_.get()); }
	std::optional<std::size_t> left()
	{
		if constexpr (std::sized_sentinel_for<std::ranges::sentinel_t<range>, std::ranges::iterator_t<range>>)
			return static_cast<std::size_t>(std::ranges::end(in_.get()) - *it_);
		else
			return std::nullopt;
	}
	void read(std::vector<item> &to, std::size_t n)
	{
		if constexpr (std::ranges::random_access_range<range> &&
			      std::is_same_v<item, std::ranges::range_value_t<range>>) {
			const auto m = static_cast<std::ptrdiff_t>(std::min(n, left().value_or(n)));

			to.assign(*it_, *it_ + m);
			*it_ += m;
		} else {
			for (to.clear(); n && has_input(); n--, ++*it_)
				to.push_back(detail::as_carried(**it_));
		}
	}
	// Keeps the window full. Where reading items waits for nobody, in groups: as long as there are results, and
	// seven eighths of the window are under way.
	void fill()
	{
		if constexpr (std::ranges::contiguous_range<range>) {
			const std::size_t window = chunker_.window();

			if (flying_.size() + std::min<std::size_t>(window / 8, 32) > window && flying_.has_next())
				return;
			const detail::convoy together(*core_);
			fill_up();
		} else {
			fill_up();
		}
	}
	void fill_up()
	{
		while (flying_.size() < chunker_.window() && has_input()) {
			batch b;

			read(spare_, chunker_.next(left()));
			b.first = nr_read_;
			b.nr = spare_.size();
			nr_read_ += b.nr;
			b.task = detail::send_chunk(*core_, f_, spare_, o_.task);
			if (b.nr > 1)
				b.items = std::move(spare_);
			flying_.push(std::move(b));
		}
	}
	// Waits for the next chunk. Afterwards there is a current result, unless all is done.
	void land()
	{
		nr_given_ += here_.size();
		if (bar_)
			bar_->show(nr_given_);
		at_ = 0;
		here_.clear();
		while (here_.size() == 0 && flying_.size()) {
			batch b = flying_.pop();

			unpack(b);
			if (b.nr > 1)
				spare_ = std::move(b.items);
			fill();
		}
	}
	void unpack(batch &b)
	{
		const std::size_t n = b.nr;

		first_ = b.first;
		if (b.task->what == detail::outcome::value)
			chunker_.learn(n, here_.take(std::move(b.task), n));
		else if (b.task->what == detail::outcome::died && n > 1)
			one_by_one(b);
		else
			here_.take_failure(detail::exception_of(*b.task), n);
	}
	// Some item kills workers: the others of its chunk shall not go down with it.
	void one_by_one(batch &b)
	{
		while (!b.items.empty()) {
			batch single;
			std::vector<item> one;

			one.push_back(std::move(b.items.back()));
			b.items.pop_back();
			single.nr = 1;
			single.first = b.first + b.items.size();
			single.task = detail::send_chunk(*core_, f_, one, o_.task);
			flying_.push_first(std::move(single));
		}
	}
	void advance()
	{
		if (++at_ == here_.size())
			land();
	}

	std::shared_ptr<detail::core> core_;
	F f_;
	detail::kept<Rg> in_;
	map_options o_;
	std::string name_;
	detail::chunker chunker_;
	std::optional<std::ranges::iterator_t<range>> it_;
	flight flying_;
	std::vector<item> spare_; // where the next chunk is read: the memory of one that was dealt with is used again
	detail::landing<result, is_flat> here_;
	std::size_t at_ = 0, first_ = 0, nr_read_ = 0, nr_given_ = 0;
	std::optional<progress_bar> bar_;
};

} // namespace ch

// SPDX-License-Identifier: Apache-2.0
// map.hpp - pool.map(): results in order, made as they are asked for.
//
// The input is read only as far ahead as the workers can use, so it may be endless or expensive. Items travel in
// chunks. Dereferencing an iterator gives the result of its item, or throws what f threw for this item; the
// iterator may then be advanced to the next. Only one pass, as with any input range.
#pragma once
#include <deque>
#include <iterator>
#include <optional>
#include <pool/future.hpp>
#include <ranges>
#include <vector>

namespace ch {

namespace detail {

// Room for a task's bytes in shared memory, from the moment there is a place for it until it is sent.
class CH_API draft {
public:
	// Waits for a place.
	draft(core &c, std::uint64_t name, std::size_t len, const task_options *o = nullptr);
	~draft(); // gives the place back, unless committed
	draft(const draft &) = delete;
	draft &operator=(const draft &) = delete;
	std::span<std::byte> room() const noexcept { return {data_, len_}; }
	task_ref commit() noexcept;

private:
	core &core_;
	task *task_ = nullptr;
	std::size_t len_;
	std::byte *data_ = nullptr;
};

CH_API unsigned worker_count(const core &c) noexcept;

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
template <class F, class Rg> class mapped {
	using range = std::remove_reference_t<Rg>;
	using item = archive::carrier_t<std::ranges::range_value_t<range>>;
	static_assert(std::is_invocable_v<F &, item>, "the callable cannot be called with an item of the range, by value");

public:
	using result = detail::item_result<F, item>;

	mapped(std::shared_ptr<detail::core> c, F f, Rg &&in, map_options o)
	    : core_(std::move(c)), f_(std::move(f)), in_(std::forward<Rg>(in)), chunker_(o, detail::worker_count(*core_))
	{
	}
	mapped(mapped &&) = default; // before begin() only
	// What has not begun is taken back; what runs is not waited for.
	~mapped()
	{
		for (batch &b : flying_)
			if (b.task)
				detail::cancel(*b.task);
	}

	class iterator {
	public:
		using value_type = result;
		using difference_type = std::ptrdiff_t;

		iterator() = default;
		explicit iterator(mapped *m) : m_(m) {}
		result &operator*() const { return m_->current(); }
		iterator &operator++()
		{
			m_->advance();
			return *this;
		}
		void operator++(int) { m_->advance(); }
		friend bool operator==(const iterator &i, std::default_sentinel_t) { return i.is_at_end(); }

	private:
		bool is_at_end() const noexcept { return m_->is_done(); }

		mapped *m_ = nullptr;
	};

	iterator begin()
	{
		if (!it_) {
			it_.emplace(std::ranges::begin(in_.get()));
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
	struct batch {
		detail::task_ref task;
		std::vector<item> items; // kept until the result is there: to begin one by one what killed a worker together
	};
	using landed = std::variant<result, detail::error_record, std::exception_ptr>;

	bool has_input() { return *it_ != std::ranges::end(in_.get()); }
	std::optional<std::size_t> left()
	{
		if constexpr (std::sized_sentinel_for<std::ranges::sentinel_t<range>, std::ranges::iterator_t<range>>)
			return static_cast<std::size_t>(std::ranges::end(in_.get()) - *it_);
		else
			return std::nullopt;
	}
	detail::task_ref send(const std::vector<item> &items)
	{
		const detail::shipped<F> fn(f_);
		detail::draft d(*core_, detail::chunk_name<F, item>(), archive::size(fn, items));

		archive::write(d.room(), fn, items);
		return d.commit();
	}
	// Keeps the window full.
	void fill()
	{
		while (flying_.size() < chunker_.window() && has_input()) {
			batch b;

			for (std::size_t n = chunker_.next(left()); n && has_input(); n--, ++*it_)
				b.items.push_back(detail::as_carried(**it_));
			b.task = send(b.items);
			flying_.push_back(std::move(b));
		}
	}
	// Waits for the oldest chunk. Afterwards there is a current result, unless all is done.
	void land()
	{
		at_ = 0;
		here_.clear();
		while (here_.empty() && !flying_.empty()) {
			batch b = std::move(flying_.front());

			flying_.pop_front();
			detail::is_ready(*b.task, CH_FOREVER);
			unpack(b);
			fill();
		}
	}
	void unpack(batch &b)
	{
		if (b.task->what == detail::outcome::value) {
			auto r = archive::read<detail::chunk_result<result>>(b.task->bytes());

			chunker_.learn(r.items.size(), r.elapsed_ns);
			for (auto &i : r.items) {
				if (i.index() == 0)
					here_.emplace_back(std::in_place_index<0>, std::get<0>(std::move(i)));
				else
					here_.emplace_back(std::in_place_index<1>, std::get<1>(std::move(i)));
			}
		} else if (b.task->what == detail::outcome::died && b.items.size() > 1) {
			one_by_one(b);
		} else {
			for (std::size_t i = 0; i < b.items.size(); i++)
				here_.emplace_back(std::in_place_index<2>, why(*b.task));
		}
	}
	// Some item kills workers: the others of its chunk shall not go down with it.
	void one_by_one(batch &b)
	{
		while (!b.items.empty()) {
			batch single;

			single.items.push_back(std::move(b.items.back()));
			b.items.pop_back();
			single.task = send(single.items);
			flying_.push_front(std::move(single));
		}
	}
	static std::exception_ptr why(const detail::task &t)
	{
		try {
			detail::throw_outcome(t);
		} catch (...) {
			return std::current_exception();
		}
	}
	bool is_done() const noexcept { return at_ == here_.size(); }
	result &current()
	{
		landed &l = here_[at_];

		if (const auto *e = std::get_if<1>(&l))
			detail::rethrow(*e);
		if (const auto *e = std::get_if<2>(&l))
			std::rethrow_exception(*e);
		return std::get<0>(l);
	}
	void advance()
	{
		if (++at_ == here_.size())
			land();
	}

	std::shared_ptr<detail::core> core_;
	F f_;
	detail::kept<Rg> in_;
	detail::chunker chunker_;
	std::optional<std::ranges::iterator_t<range>> it_;
	std::deque<batch> flying_;
	std::vector<landed> here_;
	std::size_t at_ = 0;
};

} // namespace ch

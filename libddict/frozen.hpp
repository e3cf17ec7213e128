// SPDX-License-Identifier: Apache-2.0
// frozen.hpp - a store as it was at one moment, looked at bit by bit while it goes on changing.
//
// Every entry that was there is shown once: in its turn, or before its turn if it is about to change. A store tells
// those who look at it before it changes a slot; while nobody looks, that is one branch.
#pragma once
#include "store.hpp"
#include <functional>

namespace ch::dd {

class frozen {
public:
	using viewer = std::function<void(const entry &)>;
	frozen(store &s, viewer see) : store_(s), see_(std::move(see)), is_shown_(s.nr_slots())
	{
		s.watched_by_.push_back(this);
	}
	frozen(const frozen &) = delete;
	frozen &operator=(const frozen &) = delete;
	~frozen() { std::erase(store_.watched_by_, this); }

	// Shows the next one in turn. False at the end.
	bool step()
	{
		while (next_ < is_shown_.size() && is_shown_[next_])
			next_++;
		if (next_ == is_shown_.size())
			return false;
		show(static_cast<std::uint32_t>(next_));
		return true;
	}
	// Shows all that is left.
	void finish() noexcept
	{
		while (step())
			;
	}
	// Whether private memory was short, so that something was not shown.
	bool is_broken() const { return is_broken_; }
	// To be called before the slot changes; also before it is filled: what comes is no part of the view.
	void show(std::uint32_t slot) noexcept
	{
		if (slot >= is_shown_.size() || is_shown_[slot])
			return;
		is_shown_[slot] = true;
		try {
			if (const entry &e = store_.slots_[slot]; e.v.addr)
				see_(e);
		} catch (const std::bad_alloc &) {
			is_broken_ = true;
		}
	}

private:
	store &store_;
	viewer see_;
	std::vector<bool> is_shown_;
	std::uint64_t next_ = 0;
	bool is_broken_ = false;
};

} // namespace ch::dd

// SPDX-License-Identifier: Apache-2.0
// recent.h - what this process has attached by a descriptor: opening it again and again, for each task, costs a look here.
#pragma once
#include <algorithm>
#include <channels/channels.hpp>
#include <memory>
#include <mutex>
#include <unistd.h>
#include <vector>

namespace ch::detail {

template <class T> class recent {
public:
	template <class... A> std::shared_ptr<T> open(const descriptor &d, const A &...a)
	{
		const std::lock_guard<std::mutex> l(m_);

		if (owner_ != getpid()) { // what a forked process inherits is its parent's
			owner_ = getpid();
			all_.clear();
		}
		const auto it = std::find_if(all_.begin(), all_.end(), [&](const auto &t) {
			return std::memcmp(&t->descr(), &d, sizeof(ch_descr)) == 0;
		});
		if (it == all_.end()) {
			std::erase_if(all_, [](const auto &t) { return t->is_over(); }); // their memory is wanted elsewhere
			if (all_.size() == most)
				all_.erase(all_.begin());
			all_.push_back(std::make_shared<T>(d, a...));
		} else {
			std::rotate(it, it + 1, all_.end());
		}
		return all_.back();
	}

private:
	static constexpr std::size_t most = 16;

	std::mutex m_;
	std::vector<std::shared_ptr<T>> all_; // the most recently used last
	pid_t owner_ = 0;
};

} // namespace ch::detail

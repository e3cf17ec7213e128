// SPDX-License-Identifier: Apache-2.0
// power_history.hpp - what a process noted while it worked on a dictionary, and what therefore may be restored, and
// has to be, if the power is cut then.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace power {

using model = std::map<std::string, std::string>;
// Checkpoints in the order in which they were written, and what they hold.
using listing = std::vector<std::pair<std::uint64_t, model>>;
inline constexpr unsigned keep = 2; // checkpoints
inline constexpr const char *opening = "opening";

struct persisted {
	std::vector<model> may_be; // what it may hold; the last one was begun last
};

// All that may be restored if the power is cut now.
struct history {
	struct state {
		model m;
		unsigned managers; // among which its keys are
	};
	std::vector<state> states; // that were, one after the other
	std::size_t durable = 0;   // a shard is as in one of them, from this one on
	bool is_there = false;     // so it has to be there
	bool is_opening = false;   // all shards at one time; then perhaps already all of the next state
	std::map<std::uint64_t, persisted> checkpoints;
	std::vector<std::uint64_t> order; // in which they were persisted
	bool is_persisting = false;

	void go_on(std::string_view t);
	void list(const std::vector<std::string> &words);
	void list(const listing &l);
	std::string refuses(const model &found) const;
	bool has_to_be_there(std::uint64_t id) const;
};

} // namespace power

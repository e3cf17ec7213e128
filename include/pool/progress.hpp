// SPDX-License-Identifier: Apache-2.0
// progress.hpp - a bar on standard error while long work goes on; nothing at all where that is no terminal.
#pragma once
#include <channels/base.h>
#include <chrono>
#include <cstdint>
#include <string>

namespace ch {

class CH_API progress_bar {
public:
	// total 0: not known; then it counts.
	progress_bar(std::string what, std::uint64_t total);
	progress_bar(const progress_bar &) = delete;
	progress_bar &operator=(const progress_bar &) = delete;
	~progress_bar(); // takes the line back
	// At most twenty times a second.
	void show(std::uint64_t done);

private:
	void draw(std::uint64_t done) const;

	std::string what_;
	std::uint64_t total_;
	bool is_on_;
	std::chrono::steady_clock::time_point next_{};
};

} // namespace ch

// SPDX-License-Identifier: Apache-2.0
// progress.hpp - a bar on standard error while long work goes on; nothing at all where that is no terminal.
#pragma once
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <sys/ioctl.h>
#include <unistd.h>

class progress {
public:
	progress(std::string what, std::uint64_t total)
	    : what_(std::move(what)), total_(total ? total : 1), is_on_(isatty(STDERR_FILENO))
	{
	}
	progress(const progress &) = delete;
	progress &operator=(const progress &) = delete;
	~progress()
	{
		if (is_on_)
			std::fputs("\r\033[K", stderr);
	}
	// At most twenty times a second.
	void show(std::uint64_t done)
	{
		const auto now = clock::now();

		if (!is_on_ || (done < total_ && now < next_))
			return;
		next_ = now + std::chrono::milliseconds(50);
		winsize w{};
		const int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col : 80;
		const int width = columns - static_cast<int>(what_.size()) - 10;
		const int full = width > 0 ? static_cast<int>(done * static_cast<std::uint64_t>(width) / total_) : 0;

		std::fprintf(stderr, "\r%s ", what_.c_str());
		if (width > 0)
			std::fprintf(stderr, "[%s%s]", std::string(static_cast<std::size_t>(full), '#').c_str(),
				     std::string(static_cast<std::size_t>(width - full), ' ').c_str());
		std::fprintf(stderr, " %3d%%", static_cast<int>(done * 100 / total_));
		std::fflush(stderr);
	}

private:
	using clock = std::chrono::steady_clock;

	std::string what_;
	std::uint64_t total_;
	bool is_on_;
	clock::time_point next_{};
};

// SPDX-License-Identifier: Apache-2.0
// progress.cpp - the bar.
#include <pool/progress.hpp>

#include <algorithm>
#include <cstdio>
#include <sys/ioctl.h>
#include <unistd.h>

namespace ch {

progress_bar::progress_bar(std::string what, std::uint64_t total)
    : what_(std::move(what)), total_(total), is_on_(isatty(STDERR_FILENO))
{
}

progress_bar::~progress_bar()
{
	if (is_on_)
		std::fputs("\r\033[K", stderr);
}

void progress_bar::show(std::uint64_t done)
{
	const auto now = std::chrono::steady_clock::now();

	if (!is_on_ || (done != total_ && now < next_))
		return;
	next_ = now + std::chrono::milliseconds(50);
	draw(done);
}

void progress_bar::draw(std::uint64_t done) const
{
	winsize w{};
	const int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col : 80;
	const int width = columns - static_cast<int>(what_.size()) - 10;

	std::fprintf(stderr, "\r%s ", what_.c_str());
	if (!total_) {
		std::fprintf(stderr, "%llu", static_cast<unsigned long long>(done));
	} else {
		const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total_));
		const auto all = static_cast<std::size_t>(std::max(0, width));
		const auto full = static_cast<std::size_t>(share * static_cast<double>(all));

		if (width > 0)
			std::fprintf(stderr, "[%s%s]", std::string(full, '#').c_str(), std::string(all - full, ' ').c_str());
		std::fprintf(stderr, " %3d%%", static_cast<int>(share * 100));
	}
	std::fflush(stderr);
}

} // namespace ch

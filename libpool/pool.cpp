// SPDX-License-Identifier: Apache-2.0
// pool.cpp - the public class over detail::core, and the sizes of map's chunks.
#include "core.h"

#include <algorithm>
#include <exception>
#include <unistd.h>

namespace ch {
namespace {

// The core, the process it belongs to, and how many exceptions were on their way when it was made.
struct owned_core : detail::core {
	explicit owned_core(const pool_options &o) : core(o), unwinding(std::uncaught_exceptions()) {}
	const int unwinding;
	const pid_t creator = getpid();
};

void end(detail::core *p) noexcept
{
	auto *c = static_cast<owned_core *>(p);

	// In a forked child (a worker that calls exit(), say) it is another process's pool: leave it alone.
	if (c->creator != getpid())
		return;
	try {
		if (std::uncaught_exceptions() > c->unwinding)
			c->terminate(nanoseconds(0));
		c->close();
		c->join();
		c->stop();
	} catch (...) {
		c->terminate(nanoseconds(0));
	}
	delete c;
}

} // namespace

pool::pool(const pool_options &o) : core_(nullptr, end)
{
	auto c = std::make_unique<owned_core>(o);

	c->start();
	core_.reset(c.release());
}

pool::~pool() = default;
pool::pool(pool &&) noexcept = default;
pool &pool::operator=(pool &&) noexcept = default;

detail::core &pool::core() const
{
	if (!core_)
		throw error(EINVAL, "pool: moved from");
	return *core_;
}

void pool::close() noexcept
{
	if (core_)
		core_->close();
}

void pool::join()
{
	core().join();
}

void pool::terminate(nanoseconds patience) noexcept
{
	if (core_)
		core_->terminate(patience);
}

unsigned pool::size() const noexcept
{
	return core_ ? core_->options().workers : 0;
}

std::vector<pid_t> pool::workers() const
{
	return core().pids();
}

pool_stats pool::stats() const
{
	return core().stats();
}

namespace detail {

// A chunk should take long against the cost of sending it, and short against the whole.
static constexpr std::uint64_t chunk_goal_ns = 1000000;
static constexpr std::size_t chunk_max = 65536;

chunker::chunker(map_options o, unsigned workers) noexcept
    : fixed_(o.chunk), window_(o.in_flight ? o.in_flight : 2 * workers + 1), workers_(workers)
{
}

std::size_t chunker::next(std::optional<std::size_t> left) const noexcept
{
	if (fixed_)
		return fixed_;
	// Towards the end they become smaller, so that all workers end together.
	return left ? std::clamp<std::size_t>(*left / (2 * workers_), 1, size_) : size_;
}

void chunker::learn(std::size_t items, std::uint64_t elapsed_ns) noexcept
{
	const std::size_t ideal = items * chunk_goal_ns / std::max<std::uint64_t>(1, elapsed_ns);

	size_ = std::clamp<std::size_t>(ideal, 1, std::min(chunk_max, 4 * std::max<std::size_t>(size_, items)));
}

} // namespace detail
} // namespace ch

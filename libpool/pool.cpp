// SPDX-License-Identifier: Apache-2.0
// pool.cpp - the public class over detail::core, and the sizes of map's chunks.
#include "core.h"

#include <algorithm>
#include <exception>
#include <unistd.h>

namespace ch {
namespace {

void end(std::shared_ptr<detail::core> &c, int unwinding) noexcept
{
	if (!c)
		return;
	// In a forked child (a worker that calls exit(), say) it is another process's pool: leave it as it is, threads
	// and locks and all, and never destroy it.
	if (c->creator() != getpid()) {
		new std::shared_ptr<detail::core>(std::move(c));
		return;
	}
	try {
		if (std::uncaught_exceptions() > unwinding)
			c->terminate(nanoseconds(0));
		c->close();
		c->join();
		c->stop();
	} catch (...) {
		c->terminate(nanoseconds(0));
	}
	c.reset();
}

} // namespace

pool::pool(const pool_options &o) : core_(std::make_shared<detail::core>(o)), unwinding_(std::uncaught_exceptions())
{
	core_->start();
}

pool::pool(const rank &r, const pool_options &o) : unwinding_(std::uncaught_exceptions())
{
	if (r.index >= r.count)
		throw error(EINVAL, "pool: a rank beyond the job's size");
	if (r.index) {
		detail::serve_as_rank(r, o);
		return;
	}
	pool_options mine = o;
	if (r.count > 1)
		mine.workers = mine.max_workers = r.count - 1;
	core_ = std::make_shared<detail::core>(mine, r.count > 1);
	if (r.count > 1)
		core_->start_ranks(r);
	else
		core_->start();
}

pool::~pool()
{
	end(core_, unwinding_);
}

pool::pool(pool &&o) noexcept : core_(std::move(o.core_)), unwinding_(o.unwinding_) {}

pool &pool::operator=(pool &&o) noexcept
{
	if (this != &o) {
		end(core_, unwinding_);
		core_ = std::move(o.core_);
		unwinding_ = o.unwinding_;
	}
	return *this;
}

detail::core &pool::core() const
{
	if (!core_)
		throw error(EINVAL, "pool: moved from, or of a rank that was a worker");
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

bool pool::wait_ready(nanoseconds timeout)
{
	return core().wait_ready(timeout.count());
}

void pool::resize(unsigned workers)
{
	core().resize(workers);
}

void pool::terminate(nanoseconds patience) noexcept
{
	if (core_)
		core_->terminate(patience);
}

unsigned pool::size() const noexcept
{
	return core_ ? core_->size() : 0;
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

std::size_t batch_chunk(core &c, map_options o, std::size_t items) noexcept
{
	return o.chunk ? o.chunk : items / (4 * worker_count(c)) + 1;
}

void chunker::learn(std::size_t items, std::uint64_t elapsed_ns) noexcept
{
	const std::size_t ideal = items * chunk_goal_ns / std::max<std::uint64_t>(1, elapsed_ns);

	size_ = std::clamp<std::size_t>(ideal, 1, std::min(chunk_max, 4 * std::max<std::size_t>(size_, items)));
}

} // namespace detail
} // namespace ch

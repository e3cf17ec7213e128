// SPDX-License-Identifier: Apache-2.0
// cache.cpp - the connections of this process, one to each dictionary, so that ten thousand tasks attach once.
//
// A forked child starts with none: its parent's connections go to a list that is never looked at again, since their
// reply channels are the parent's.
#include "connection.hpp"
#include <algorithm>
#include <pthread.h>

namespace ch::dd {

namespace {

constexpr std::size_t idle_max = 16; // connections kept that no handle uses

struct cached {
	descriptor descr;
	std::shared_ptr<connection> conn;
};

struct cache {
	std::mutex lock;
	std::vector<cached> all; // most recently used last
	std::vector<cached> parents;
};

std::atomic<std::uint64_t> generation{1};

// Never destroyed: threads may still use it while the process ends.
cache &the_cache()
{
	static cache *const c = new cache;

	return *c;
}

void after_fork_in_child()
{
	cache &c = the_cache();

	generation.fetch_add(1, std::memory_order_relaxed); // the child has one thread
	std::move(c.all.begin(), c.all.end(), std::back_inserter(c.parents));
	c.all.clear();
	c.lock.unlock();
}

// When the library is loaded: no fork may go uncounted.
[[maybe_unused]] const int registered =
	pthread_atfork([] { the_cache().lock.lock(); }, [] { the_cache().lock.unlock(); }, after_fork_in_child);

bool same(const descriptor &a, const descriptor &b)
{
	return std::memcmp(a.bytes, b.bytes, sizeof(a.bytes)) == 0;
}

// Out of the list what has ended, and of what nobody uses all but the youngest.
std::vector<cached> take_useless(std::vector<cached> &all)
{
	std::size_t idle = 0;
	std::vector<cached> out;

	for (const cached &c : all)
		idle += c.conn.use_count() == 1;
	std::erase_if(all, [&](cached &c) {
		const bool is_idle = c.conn.use_count() == 1;

		if (!c.conn->is_stale() && !(is_idle && idle > idle_max))
			return false;
		idle -= is_idle;
		out.push_back(std::move(c));
		return true;
	});
	return out;
}

} // namespace

std::uint64_t fork_generation()
{
	return generation.load(std::memory_order_relaxed); // changes only while the process has one thread
}

// The one there is, if it is of any use, made the youngest. With the lock held.
static std::shared_ptr<connection> find(std::vector<cached> &all, const descriptor &d)
{
	const auto it = std::find_if(all.begin(), all.end(),
				     [&](const cached &e) { return same(e.descr, d) && !e.conn->is_stale(); });

	if (it == all.end())
		return nullptr;
	std::rotate(it, it + 1, all.end());
	return all.back().conn;
}

std::shared_ptr<connection> connect(const descriptor &d)
{
	cache &c = the_cache();
	std::vector<cached> useless; // ended when the lock is free again

	{
		std::lock_guard<std::mutex> lock(c.lock);

		if (std::shared_ptr<connection> there = find(c.all, d))
			return there;
		useless = take_useless(c.all);
	}
	auto made = std::make_shared<connection>(d);
	std::lock_guard<std::mutex> lock(c.lock);

	if (std::shared_ptr<connection> there = find(c.all, d)) {
		useless.push_back({d, std::move(made)}); // another thread was faster
		return there;
	}
	c.all.push_back({d, made});
	return made;
}

void disconnect(const descriptor &d) noexcept
{
	cache &c = the_cache();
	std::shared_ptr<connection> gone;
	std::lock_guard<std::mutex> lock(c.lock);
	const auto it = std::find_if(c.all.begin(), c.all.end(), [&](const cached &e) { return same(e.descr, d); });

	if (it != c.all.end()) {
		gone = std::move(it->conn);
		c.all.erase(it);
	}
}

} // namespace ch::dd

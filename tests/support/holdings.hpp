// SPDX-License-Identifier: Apache-2.0
// holdings.hpp - what the pools of an empty dictionary hold, to be compared. Sees libddict's directory.
#pragma once
#include "support.h"
#include "directory.hpp"
#include <ddict/core.hpp>

namespace ch::dd {

struct holdings {
	std::vector<ch_pool_stats> stats;

	// A new client's hello makes every manager look for the dead first.
	explicit holdings(const descriptor &d)
	{
		const directory dir = directory_attach(d);
		const pid_t newcomer = child_start(
			[](void *arg) { return ddict_core::attach(*static_cast<const descriptor *>(arg)).size() ? 1 : 0; },
			const_cast<descriptor *>(&d));

		if (child_end(newcomer) != 0)
			fprintf(stderr, "a newcomer found the dictionary not empty\n");
		for (const manager_info &m : dir.managers)
			look(memory_pool::attach(m.requests));
		look(memory_pool::attach(dir.control)); // with the newcomer's channel
	}
	// Whether the dictionary holds the same again, or will soon: another process may be about to sweep the dead, who are
	// then left to it.
	bool are_again(const descriptor &d) const
	{
		for (int tries = 0; tries < 500; tries++) {
			if (holdings(d) == *this)
				return true;
			longer_nap(tries);
		}
		return false;
	}

private:
	bool operator==(const holdings &o) const
	{
		for (std::size_t i = 0; i < stats.size(); i++)
			if (stats[i].used != o.stats[i].used || stats[i].nr_used != o.stats[i].nr_used ||
			    stats[i].nr_channels != o.stats[i].nr_channels)
				return false;
		return true;
	}

	void look(memory_pool pool)
	{
		pool.sweep();
		stats.push_back(pool.stats());
		fprintf(stderr, "%llu bytes in %llu blocks, %u channels\n", (unsigned long long)stats.back().used,
			(unsigned long long)stats.back().nr_used, stats.back().nr_channels);
	}
};

} // namespace ch::dd

// SPDX-License-Identifier: Apache-2.0
// statistics.cpp - what the managers say about themselves.
#include "connection.hpp"
#include <ddict/ddict.h>

namespace ch {

using dd::op;

static const char *name_of(unsigned what)
{
	static const char *const names[] = {"",
					    "hello",
					    "bye",
					    "put",
					    "get",
					    "erase",
					    "contains",
					    "pop",
					    "fetch_add",
					    "append",
					    "compare_and_set",
					    "wait_for",
					    "size",
					    "clear",
					    "scan",
					    "release",
					    "put_many",
					    "get_many",
					    "reap",
					    "make_room",
					    "freeze",
					    "is_frozen",
					    "checkpoints",
					    "stats",
					    "visit",
					    "persist",
					    "persisted",
					    "restore",
					    "flush",
					    "put_everywhere",
					    "keep"};
	static_assert(sizeof(names) / sizeof(*names) == static_cast<std::size_t>(op::mirror_begin));

	return names[what];
}

// The upper edge of the bucket in which that share of the calls ends.
static std::uint64_t quantile(const dd::op_stats &s, double share)
{
	std::uint64_t all = 0, seen = 0;

	for (const std::uint64_t n : s.timed)
		all += n;
	const auto wanted = static_cast<std::uint64_t>(static_cast<double>(all) * share);

	for (unsigned b = 0; b < dd::nr_buckets; b++) {
		seen += s.timed[b];
		if (s.timed[b] && seen >= wanted)
			return dd::floor_of(b + 1);
	}
	return 0;
}

static ddict_stats readable(const dd::manager_stats &m)
{
	static_assert(dd::nr_buckets == CH_DDICT_BUCKETS);
	ddict_stats s{m.memory,  m.used,   m.largest, m.keys,   m.clients, m.pinned, m.waiting, m.evicted,
		      m.expired, m.oldest, m.newest,  m.single, 0,         0,        {}};

	for (unsigned o = 1; o < static_cast<unsigned>(op::mirror_begin); o++) {
		const dd::op_stats &of = m.ops[o];

		if (!of.count)
			continue;
		s.ops.push_back({name_of(o), of.count, quantile(of, 0.5), quantile(of, 0.99), quantile(of, 1), {}});
		for (unsigned b = 0; b < dd::nr_buckets; b++)
			if (of.timed[b])
				s.ops.back().buckets.push_back({dd::floor_of(b + 1), of.timed[b]});
	}
	return s;
}

std::vector<ddict_stats> ddict_core::stats() const
{
	dd::connection &co = conn();
	std::vector<ddict_stats> out;

	for (unsigned m = 0; m < co.managers(); m++) {
		if (is_directed() && m != static_cast<unsigned>(directed_))
			continue;
		dd::call c;
		const int status = co.run(c, m, fitted({.what = op::stats})).status;

		if (status < 0 || c.body().size() != sizeof(dd::manager_stats))
			co.fail(m, status < 0 ? status : -EPROTO);
		out.push_back(readable(dd::load<dd::manager_stats>(c.body().data())));
		out.back().deaths = co.dir().words[m].incarnation.load(std::memory_order_relaxed) - 1; // figures
		out.back().lost = co.dir().words[m].lost.load(std::memory_order_relaxed);
	}
	return out;
}

void ddict_core::reset_stats() const
{
	ask_all({.what = op::stats, .flags = dd::stats_reset});
}

} // namespace ch

// SPDX-License-Identifier: Apache-2.0
// cpus.cpp - placement of managers: what the options name, or one CPU for each by what the kernel says of NUMA nodes.
#include "cpus.hpp"
#include "directory.hpp"
#include <algorithm>
#include <charconv>
#include <cstring>
#include <fstream>
#include <sched.h>

namespace ch::dd {

static_assert(cpus_max == CPU_SETSIZE && sizeof(cpu_mask) == sizeof(cpu_set_t));

static unsigned number_at(std::string_view &text)
{
	unsigned n = 0;
	const auto [behind, bad] = std::from_chars(text.data(), text.data() + text.size(), n);

	if (bad != std::errc() || n >= cpus_max)
		refuse(EINVAL, "ddict: a list of CPUs is like 0-3,8, each under 1024");
	text.remove_prefix(static_cast<std::size_t>(behind - text.data()));
	return n;
}

cpu_list parse_cpus(std::string_view text)
{
	cpu_list all;

	for (bool goes_on = true; goes_on;) {
		const unsigned first = number_at(text);
		unsigned last = first;

		if (text.starts_with('-')) {
			text.remove_prefix(1);
			last = number_at(text);
		}
		goes_on = text.starts_with(',');
		if (last < first || (!goes_on && !text.empty()))
			refuse(EINVAL, "ddict: a list of CPUs is like 0-3,8");
		if (goes_on)
			text.remove_prefix(1);
		for (unsigned n = first; n <= last; n++)
			all.push_back(n);
	}
	return all;
}

cpu_list usable_cpus()
{
	cpu_list all;
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		for (unsigned n = 0; n < cpus_max; n++)
			if (CPU_ISSET(n, &set))
				all.push_back(n);
	return all;
}

static std::optional<cpu_list> list_in(const std::string &path)
{
	std::ifstream in(path);
	std::string text;

	try {
		if (in >> text)
			return parse_cpus(text);
	} catch (const error &) {
		// Of another form than is known here: nothing is known.
	}
	return std::nullopt;
}

std::vector<cpu_list> numa_nodes(const std::string &dir)
{
	std::vector<cpu_list> nodes;

	for (const unsigned n : list_in(dir + "/online").value_or(cpu_list()))
		if (std::optional<cpu_list> cpus = list_in(dir + "/node" + std::to_string(n) + "/cpulist"))
			nodes.push_back(std::move(*cpus)); // a node of memory only has an empty list, and no place here
	return nodes;
}

// Only usable ones, and those of no known node as one more node.
static std::vector<cpu_list> usable_by_node(cpu_list usable, const std::vector<cpu_list> &nodes)
{
	std::vector<cpu_list> out;

	for (const cpu_list &node : nodes) {
		cpu_list here;

		for (const unsigned n : node)
			if (std::erase(usable, n))
				here.push_back(n);
		if (!here.empty())
			out.push_back(std::move(here));
	}
	if (!usable.empty())
		out.push_back(std::move(usable));
	return out;
}

// compact: one CPU after another, one node after another. spread: one node after another, and on each node as far from
// each other as the numbers of its CPUs go.
std::vector<cpu_list> place_managers(ddict_placement policy, unsigned nr, const cpu_list &usable,
				     const std::vector<cpu_list> &nodes)
{
	const std::vector<cpu_list> by_node = usable_by_node(usable, nodes);
	std::vector<cpu_list> places(nr);
	cpu_list in_order;

	if (policy == ddict_placement::anywhere || usable.empty())
		return places;
	for (const cpu_list &node : by_node)
		in_order.insert(in_order.end(), node.begin(), node.end());
	for (std::size_t m = 0; m < nr; m++) {
		if (policy == ddict_placement::compact) {
			places[m] = {in_order[m % in_order.size()]};
			continue;
		}
		const std::size_t first = m % by_node.size(), turn = m / by_node.size();
		const std::size_t here = (nr - first + by_node.size() - 1) / by_node.size(); // managers on this node
		const cpu_list &node = by_node[first];

		places[m] = {node[turn * node.size() / here]};
	}
	return places;
}

cpu_mask mask_of(const cpu_list &cpus)
{
	cpu_mask m{};

	for (const unsigned n : cpus)
		m.words[n / 64] |= std::uint64_t{1} << n % 64;
	return m;
}

int run_on(const cpu_mask &where) noexcept
{
	cpu_set_t set;

	std::memcpy(&set, &where, sizeof(set));
	return CPU_COUNT(&set) == 0 || sched_setaffinity(0, sizeof(set), &set) == 0 ? 0 : -errno;
}

} // namespace ch::dd

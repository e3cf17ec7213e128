// SPDX-License-Identifier: Apache-2.0
// cpus.hpp - on which CPUs the managers run, and so on which NUMA node their memory lies.
#pragma once
#include <ddict/core.hpp>

namespace ch::dd {

using cpu_list = std::vector<unsigned>; // empty: wherever the creator may run

// Passed to managers as bytes.
struct cpu_mask {
	std::uint64_t words[16];
};
inline constexpr unsigned cpus_max = sizeof(cpu_mask) * 8;

// "0-3,8", also as the kernel writes it. Throws EINVAL.
cpu_list parse_cpus(std::string_view text);
// What this thread may use.
cpu_list usable_cpus();
// The CPUs of each NUMA node, in the order of their numbers; none where nobody says so.
std::vector<cpu_list> numa_nodes(const std::string &dir = "/sys/devices/system/node");
// One for each of nr managers, of the usable CPUs.
std::vector<cpu_list> place_managers(ddict_placement policy, unsigned nr, const cpu_list &usable,
				     const std::vector<cpu_list> &nodes);

cpu_mask mask_of(const cpu_list &cpus);
// From now on this thread runs there. 0 or a negative errno; an empty mask is no wish.
int run_on(const cpu_mask &where) noexcept;

} // namespace ch::dd

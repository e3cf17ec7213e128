// SPDX-License-Identifier: Apache-2.0
// cpus.cpp - how many CPUs this process may use.
#include <pool/pool.hpp>

#include <algorithm>
#include <fstream>
#include <sched.h>
#include <thread>

namespace ch {
namespace {

unsigned by_affinity()
{
	// The kernel's mask may be larger than cpu_set_t: grow until it fits.
	for (int cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
		const std::size_t len = CPU_ALLOC_SIZE(cpus);
		std::vector<unsigned char> mask(len);
		auto *set = reinterpret_cast<cpu_set_t *>(mask.data());

		if (sched_getaffinity(0, len, set) == 0)
			return static_cast<unsigned>(CPU_COUNT_S(len, set));
	}
	return std::thread::hardware_concurrency();
}

// cpu.max of one control group: "quota period" or "max period". 0: no limit.
unsigned quota_of(const std::string &dir)
{
	std::ifstream in(dir + "/cpu.max");
	double quota = 0, period = 0;

	if (!(in >> quota >> period) || quota <= 0 || period <= 0)
		return 0;
	return std::max(1u, static_cast<unsigned>(quota / period + 0.999));
}

// The tightest limit from this process's group up to the root (cgroup v2).
unsigned by_quota()
{
	std::ifstream in("/proc/self/cgroup");
	unsigned least = 0;

	for (std::string line; std::getline(in, line);) {
		if (!line.starts_with("0::/"))
			continue;
		for (std::string path = line.substr(3);; path.erase(path.rfind('/'))) {
			const unsigned q = quota_of("/sys/fs/cgroup" + path);

			if (q && (!least || q < least))
				least = q;
			if (path.find('/') == std::string::npos)
				break;
		}
	}
	return least;
}

} // namespace

unsigned usable_cpus()
{
	const unsigned n = std::max(1u, by_affinity()), q = by_quota();

	return q ? std::min(n, q) : n;
}

} // namespace ch

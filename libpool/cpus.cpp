// SPDX-License-Identifier: Apache-2.0
// cpus.cpp - how many CPUs this process may use, and on which of them others shall run.
#include "core.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
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

// ---- placement

static constexpr unsigned max_cpus = 1 << 16;

placement placement::list(std::string_view text)
{
	const char *at = text.data(), *const end = at + text.size();
	std::vector<unsigned> all;
	const auto number = [&] {
		unsigned n = 0;
		const auto [behind, bad] = std::from_chars(at, end, n);

		if (bad != std::errc() || n >= max_cpus)
			throw error(EINVAL, ("placement: \"" + std::string(text) + "\" is no list as 0-3,8").c_str());
		at = behind;
		return n;
	};

	for (;;) {
		const unsigned first = number();
		const unsigned last = at != end && *at == '-' ? (at++, number()) : first;

		for (unsigned n = first; n <= last; n++)
			all.push_back(n);
		if (at == end && first <= last)
			return cpus(std::move(all));
		if (at == end || *at != ',' || first > last)
			at = end; // and no number there
		else
			at++;
	}
}

namespace detail {

int run_on(const std::vector<unsigned> &cpus) noexcept
{
	const std::size_t len = CPU_ALLOC_SIZE(max_cpus);
	cpu_set_t *const set = CPU_ALLOC(max_cpus);

	if (!set)
		return -ENOMEM;
	CPU_ZERO_S(len, set);
	for (const unsigned n : cpus)
		CPU_SET_S(n, len, set);
	const int rc = cpus.empty() || sched_setaffinity(0, len, set) == 0 ? 0 : -errno;
	CPU_FREE(set);
	return rc;
}

// Of a set the kernel takes those that there are, and says nothing of the others: so one by one, in a thread that is for
// nothing else.
void check_placement(const placement &p)
{
	std::vector<unsigned> bad;

	if (p.is_anywhere())
		return;
	quiet_thread([&] {
		for (const unsigned n : p.all())
			if (n >= max_cpus || run_on({n}) < 0)
				bad.push_back(n);
	}).join();
	if (!bad.empty())
		throw error(EINVAL, ("placement: there is no CPU " + std::to_string(bad[0]) +
				     ", or this process's cpuset has it not").c_str());
}

} // namespace detail

} // namespace ch

// SPDX-License-Identifier: Apache-2.0
// directory.hpp - the segment that a dictionary's descriptor names: who its managers are and where to reach them.
//
// Written once by the creator before anybody else can know the descriptor; whoever attaches copies it, checks it, and
// never reads it again.
#pragma once
#include <channels/channels.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace ch::dd {

struct manager_info {
	descriptor requests; // its request channel, in its own pool
	ch_peer peer;        // the process that serves it
	std::uint64_t memory;
};

// How a dictionary behaves, as its creator said. Lies in shared memory and is passed to managers as bytes.
struct manager_rules {
	std::uint64_t working_set;
	std::uint32_t when_full; // enum ddict_full
	std::uint8_t wait_for_keys, wait_for_writers, read_only, has_spare_cpus;
};

struct directory {
	std::string name;   // of the segment; what people see in messages
	descriptor control; // pool of the reply channels
	manager_rules rules;
	std::vector<manager_info> managers;
};

using segment = detail::handle<ch_segment, ch_segment_detach>;

inline constexpr unsigned managers_max = 4096;

[[noreturn]] inline void refuse(int errnum, const std::string &why)
{
	throw error(errnum, why.c_str());
}

// An empty directory for nr managers and so many processes; it cannot be attached before it is published.
segment directory_create(unsigned nr, unsigned max_peers, const std::string &name);
void directory_publish(ch_segment *seg, const directory &d);
// Throws ch::error: the codes of ch_segment_attach, and EPROTO if it is no directory.
directory directory_attach(const descriptor &d);

} // namespace ch::dd

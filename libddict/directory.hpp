// SPDX-License-Identifier: Apache-2.0
// directory.hpp - the segment that a dictionary's descriptor names: who its managers are and where to reach them.
//
// Written once by the creator before anybody else can know the descriptor; whoever attaches copies it, checks it, and
// never reads it again.
#pragma once
#include "window.hpp"
#include <channels/channels.hpp>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace ch::dd {

struct manager_info {
	descriptor requests; // its request channel, in its own pool; the same for whoever serves it
	std::uint64_t memory;
};

/*
 * Shared memory, one for each manager: what changes while the dictionary lives.
 * | word        | written by                        | read by          | order                                       |
 * | incarnation | creator, when a process is there  | clients          | release/acquire: peer and lost belong to it |
 * | peer        | creator, before incarnation       | clients          | with incarnation                            |
 * | lost        | creator, before incarnation       | clients          | with incarnation                            |
 * | is_crowded  | the manager                       | the one before it | none: see manager::next_has_room    |
 * | creator     | creator, always the same           | clients          | none: see above                             |
 * | keys        | the manager                       | creator, when it is dead | none: it is dead                    |
 */
struct manager_words {
	std::atomic<std::uint64_t> incarnation; // 1 for the first process
	std::atomic<std::uint64_t> peer;        // the process that serves it
	std::atomic<std::uint64_t> lost;        // keys that went with its predecessors
	std::atomic<std::uint64_t> creator;     // of the dictionary
	std::atomic<std::uint64_t> is_crowded; // copies lie in its private memory, because its pool is full
	std::uint64_t pad1[3];
	std::atomic<std::uint64_t> keys; // in a line of its own: changes with every request
	std::uint64_t pad2[7];
};
static_assert(sizeof(manager_words) == 128);

// How a dictionary behaves, as its creator said. Lies in shared memory and is passed to managers as bytes.
struct manager_rules {
	std::uint64_t working_set;
	std::uint32_t when_full; // enum ddict_full
	std::uint8_t wait_for_keys, wait_for_writers, read_only, has_spare_cpus;
	std::uint32_t replicas, has_log;
};

struct directory {
	std::string name;   // of the segment; what people see in messages
	descriptor control; // pool of the reply channels
	manager_rules rules;
	std::vector<manager_info> managers;
	std::shared_ptr<ch_segment> seg; // what the words lie in
	manager_words *words = nullptr;  // one for each manager
	window_size windows{};           // of each manager

	ch_peer peer_of(unsigned m) const;
};

using segment = detail::handle<ch_segment, ch_segment_detach>;

inline constexpr unsigned managers_max = 4096;

[[noreturn]] inline void refuse(int errnum, const std::string &why)
{
	throw error(errnum, why.c_str());
}

// An empty directory for nr managers and so many processes; it cannot be attached before it is published.
segment directory_create(unsigned nr, unsigned max_peers, window_size windows, const std::string &name);
// Its words, before it is published; they are zero.
manager_words *directory_words(ch_segment *seg, unsigned nr);
// The memory of a manager's window.
void *directory_window(ch_segment *seg, unsigned nr, window_size windows, unsigned m);
void directory_publish(ch_segment *seg, const directory &d);
// Throws ch::error: the codes of ch_segment_attach, and EPROTO if it is no directory.
directory directory_attach(const descriptor &d);

} // namespace ch::dd

// SPDX-License-Identifier: Apache-2.0
// visit.hpp - what a function that runs next to the data sees: behind ddict_visit.
#pragma once
#include "connection.hpp"
#include "store.hpp"

namespace ch {

namespace dd {
// The name of a function, and its address in this process: 0 if it is not here, and a text that says so.
visit_head name_of(std::uintptr_t fn);
std::uintptr_t address_of(const visit_head &h, const char *&why);
} // namespace dd

inline constexpr std::uint32_t visit_fan = 4; // parts that are asked for by one manager's child

struct ddict_visit::state {
	dd::store &from;
	std::uint64_t at; // checkpoint
	std::uint64_t newest; // checkpoint of this manager
	unsigned manager, managers;
	std::uint64_t slot = 0;
	const dd::entry *entry = nullptr;
	const dd::version *version = nullptr;
	std::vector<ddict_call> parts; // asked for, and not yet looked at from next_part on
	std::size_t nr_parts = 0;
	ddict_view part;
	std::vector<std::byte> answer;

	// Asks the managers from first to end, through this handle.
	void ask(const ddict_core &core, const dd::visit_head &head, bytes arg);
};

} // namespace ch

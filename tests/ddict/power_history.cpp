// SPDX-License-Identifier: Apache-2.0
// power_history.cpp - reading the notes, and judging by them what was found.
#include "power_history.hpp"
#include "place.hpp"
#include <algorithm>

namespace power {

static std::vector<std::string> words_of(std::string_view t)
{
	std::vector<std::string> w;

	for (; !t.empty(); t.remove_prefix(t.find('\0') + 1))
		w.emplace_back(t.substr(0, t.find('\0')));
	return w;
}

void history::go_on(std::string_view t)
{
	const std::vector<std::string> w = words_of(t);
	state next = states.empty() ? state{{}, 1} : states.back();

	is_opening = w[0] == opening;
	if (w[0] == opening)
		return;
	if (w[0] == "listing")
		return list(w);
	if (w[0] == "flushed") {
		durable = states.size() - 1;
		return;
	}
	if (w[0] == "persist" || w[0] == "persisted") {
		const std::uint64_t id = std::stoull(w[1]);
		persisted &p = checkpoints[id];

		is_persisting = w[0] == "persist";
		if (is_persisting) {
			p.may_be.push_back(next.m);
		} else {
			p.may_be = {p.may_be.back()};
			std::erase(order, id);
			order.push_back(id);
		}
		return;
	}
	if (w[0] == "put") {
		next.m[w[1]] = w[2];
	} else if (w[0] == "erase") {
		next.m.erase(w[1]);
	} else {
		next.m.clear();
		for (std::size_t i = 2; i + 1 < w.size(); i += 2)
			next.m[w[i]] = w[i + 1];
		next.managers = w.size() > 1 ? static_cast<unsigned>(std::stoul(w[1])) : next.managers;
	}
	states.push_back(std::move(next));
	if (w[0] == "opened") {
		is_there = true;
		durable = states.size() - 1;
	}
}

void history::list(const listing &l)
{
	checkpoints.clear();
	order.clear();
	is_persisting = false;
	for (const auto &[id, m] : l) {
		checkpoints[id].may_be = {m};
		order.push_back(id);
	}
}

void history::list(const std::vector<std::string> &w)
{
	listing l;

	for (std::size_t i = 1; i + 1 < w.size();) {
		model &m = l.emplace_back(std::stoull(w[i]), model()).second;
		const std::size_t end = i + 2 + 2 * std::stoul(w[i + 1]);

		for (i += 2; i < end; i += 2)
			m[w[i]] = w[i + 1];
	}
	list(l);
}

// What is with manager m of nr.
static model part_of(const model &all, unsigned m, unsigned nr)
{
	model part;

	for (const auto &[k, v] : all)
		if (ch::dd::place(ch::dd::key_hash(std::as_bytes(std::span(k))), nr) == m)
			part[k] = v;
	return part;
}

std::string history::refuses(const model &found) const
{
	const unsigned nr = states[durable].managers;

	for (unsigned m = 0; m < nr; m++) {
		const model part = part_of(found, m, nr);
		bool is_known = false;

		for (std::size_t i = durable; i < states.size() && !is_known; i++)
			is_known = states[i].managers == nr && part_of(states[i].m, m, nr) == part;
		if (!is_known)
			return "the log holds for manager " + std::to_string(m) + " of " + std::to_string(nr) +
			       " what never was, or is older than what was flushed";
	}
	return "";
}

// The newest ones; one less while one is being written that may already have taken another's place.
bool history::has_to_be_there(std::uint64_t id) const
{
	const std::size_t nr = std::min<std::size_t>(order.size(), keep - is_persisting);

	return std::find(order.end() - static_cast<std::ptrdiff_t>(nr), order.end(), id) != order.end();
}

} // namespace power

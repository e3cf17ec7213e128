// SPDX-License-Identifier: Apache-2.0
// everywhere.cpp - values of which every manager has a copy: put by the client itself, or handed on down a tree of
// managers, see spread.cpp.
#include "pending.hpp"

namespace ch {

// On one node the client is as near to every manager as they are to each other: see perf/README.md.
static constexpr unsigned tree_from = 16;               // managers
static constexpr std::size_t tree_from_len = 64 * 1024; // bytes

// Where this process begins a tree, and which copy it gets: processes differ, and each always asks the same.
static unsigned manager_of_process(unsigned nr)
{
	return static_cast<unsigned>(ch_peer_pid(ch_peer_self())) % nr;
}

// To those at positions from first to end, many under way at a time. Whoever cannot be given the value stops nobody else
// from getting it; the first such failure is thrown.
void ddict_core::put_to_each(unsigned root, unsigned first, unsigned end, bytes key, std::size_t len, value_writer write,
			     const ddict_put &how) const
{
	std::vector<ddict_call> calls;
	std::exception_ptr failure;
	const auto attempt = [&](auto &&f) {
		try {
			f();
		} catch (const error &) {
			failure = failure ? failure : std::current_exception();
		}
	};

	for (unsigned at = first; at < end; at++)
		attempt([&] { calls.push_back(directed((root + at) % managers()).start_put(key, len, write, how)); });
	for (ddict_call &c : calls)
		attempt([&] { c.done(); });
	if (failure)
		std::rethrow_exception(failure);
}

void ddict_core::put_everywhere(bytes key, std::size_t len, value_writer write, const ddict_put &how) const
{
	const bool is_small = managers() < tree_from || len < tree_from_len;

	// A tree does not say who the writer is.
	if (is_small || conn().dir().rules.wait_for_writers)
		put_to_each(0, 0, managers(), key, len, write, how);
	else
		put_down_tree(key, len, write, how);
}

void ddict_core::put_down_tree(bytes key, std::size_t len, value_writer write, const ddict_put &how) const
{
	dd::connection &co = conn();
	const unsigned nr = managers(), root = manager_of_process(nr);
	const dd::spread_tail tail{root, 0, nr, root, 0};
	const auto both = [&](std::span<std::byte> to) {
		write(to.first(len));
		std::memcpy(to.data() + len, &tail, sizeof(tail));
	};
	const value_writer w = both;
	dd::outgoing out = fitted(dd::put_of(how));
	dd::call c;

	out.what = dd::op::spread;
	out.key = key;
	out.vlen = len + sizeof(tail);
	out.write = &w;
	try {
		co.start(c, root, out);
		if (const int status = co.wait(c, out.until).status; status < 0)
			co.fail(root, status);
	} catch (const error &e) {
		if (e.code().value() == ETIMEDOUT || e.code().value() == ESTALE)
			throw;
		return put_to_each(root, 0, nr, key, len, write, how); // it is full or died, and may have handed nothing on
	}
	std::exception_ptr failure;

	for (bytes left = c.body(); left.size() >= sizeof(dd::spread_failure);
	     left = left.subspan(sizeof(dd::spread_failure))) {
		const auto f = dd::load<dd::spread_failure>(left.data());

		try {
			put_to_each(root, f.first, std::min(f.end, nr), key, len, write, how);
		} catch (const error &) {
			failure = failure ? failure : std::current_exception();
		}
	}
	if (failure)
		std::rethrow_exception(failure);
}

bool ddict_core::get_anywhere(bytes key, value_reader read) const
{
	return directed(is_directed() ? static_cast<unsigned>(directed_) : manager_of_process(managers())).get(key, read);
}

} // namespace ch

// SPDX-License-Identifier: Apache-2.0
// durable.cpp - what a client asks of managers about files: persist, restore, advance, flush.
#include "connection.hpp"
#include "vault.hpp"
#include <deque>

namespace ch {

using dd::call;
using dd::op;
using dd::outgoing;

// Every manager at a time, also those behind one that fails; then what the first of them that failed said.
void ddict_core::ask_for_files(const outgoing &what) const
{
	dd::connection &co = conn();
	const outgoing out = fitted(what);
	std::deque<call> calls(std::min(co.managers(), dd::credits / 2));
	std::exception_ptr first;
	const auto guarded = [&](auto &&f) {
		try {
			f();
		} catch (...) {
			if (!first)
				first = std::current_exception();
		}
	};

	for (unsigned i = 0; i < co.managers() + calls.size(); i++) {
		call &c = calls[i % calls.size()];

		if (i >= calls.size() && c.is_under_way())
			guarded([&] {
				const int status = co.wait(c, out.until).status;
				const dd::bytes text = c.body();

				if (status < 0 && !text.empty())
					dd::refuse(-status,
						   "dictionary " + co.dir().name + ": manager " +
							   std::to_string(c.manager()) + ": " +
							   std::string(reinterpret_cast<const char *>(text.data()),
								       text.size()));
				if (status < 0)
					co.fail(c.manager(), status);
			});
		if (i < co.managers())
			guarded([&] { co.start(c, i, out); });
	}
	if (first)
		std::rethrow_exception(first);
}

std::uint64_t ddict_core::persist() const
{
	const std::uint64_t serial = dd::realtime_ns();

	try {
		ask_for_files({.what = op::persist, .arg = serial});
	} catch (...) {
		try {
			ask_for_files({.what = op::persist, .arg = serial, .flags = dd::persist_drop});
		} catch (const error &) {
			// What is left is removed when the next dictionary is created there.
		}
		throw;
	}
	return checkpoint_id();
}

std::vector<std::uint64_t> ddict_core::persisted_ids() const
{
	dd::connection &co = conn();
	std::vector<std::uint64_t> ids;

	for (std::uint64_t from = 0; from != dd::scan_end;) {
		call c;
		const dd::reply &r = co.run(c, 0, fitted({.what = op::persisted, .arg = from}));
		const dd::bytes body = c.body();

		if (r.status < 0)
			dd::refuse(-r.status,
				   "dictionary " + co.dir().name + ": " +
					   std::string(reinterpret_cast<const char *>(body.data()), body.size()));
		for (std::size_t i = 0; i + sizeof(from) <= body.size(); i += sizeof(from))
			ids.push_back(dd::load<std::uint64_t>(body.data() + i));
		from = r.arg;
	}
	return ids;
}

void ddict_core::restore(std::uint64_t id) const
{
	try {
		ask_for_files({.what = op::restore, .arg = id});
	} catch (...) {
		try {
			ask_for_files({.what = op::restore, .flags = dd::restore_drop});
		} catch (const error &) {
			// A manager that died has nothing to drop.
		}
		throw;
	}
	ask_for_files({.what = op::restore, .flags = dd::restore_commit});
	sync_to_newest_checkpoint();
}

std::optional<std::uint64_t> ddict_core::advance() const
{
	const std::uint64_t here = newest_checkpoint();

	for (const std::uint64_t id : persisted_ids())
		if (id > here) {
			restore(id);
			return id;
		}
	return std::nullopt;
}

void ddict_core::flush() const
{
	ask_for_files({.what = op::flush});
}

} // namespace ch

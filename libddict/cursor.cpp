// SPDX-License-Identifier: Apache-2.0
// cursor.cpp - walking through a dictionary, page by page and manager by manager.
#include "connection.hpp"

namespace ch {

struct ddict_core::cursor::state {
	ddict_core core;
	bool with_values;
	std::vector<std::byte> prefix;
	unsigned manager;
	std::uint64_t at;       // where to go on in this manager
	ddict_position page_at; // of the page that is being read
	dd::call page;
	dd::unpacker left{{}};
	bytes key, value;
	std::vector<std::byte> large; // a value that was too long for the page

	state(const ddict_core &d, bool values, bytes beginning, ddict_position from)
	    : core(d), with_values(values), prefix(beginning.begin(), beginning.end()),
	      manager(static_cast<unsigned>(from.manager)), at(from.slot)
	{
		if (core.is_directed() && from.manager == 0 && from.slot == 0)
			manager = static_cast<unsigned>(core.directed_);
	}
	bool fetch();
	bool record();
};

// The next page that has a record; false at the end.
bool ddict_core::cursor::state::fetch()
{
	dd::connection &co = core.conn();

	while (left.empty()) {
		if (at == dd::scan_end) {
			manager = core.is_directed() ? co.managers() : manager + 1;
			at = 0;
		}
		if (manager >= co.managers())
			return false;
		page_at = {manager, at};
		const dd::reply &r = co.run(page, manager,
					    core.fitted({.what = dd::op::scan,
							 .key = prefix,
							 .arg = at,
							 .flags = with_values ? dd::scan_values : 0}));

		if (r.status == -ENOSPC)
			dd::refuse(ENOSPC,
				   "ddict: no memory for a page of long keys; try again when fewer clients work");
		if (r.status < 0)
			co.fail(manager, r.status);
		at = r.arg;
		left = dd::unpacker(page.body());
	}
	return true;
}

// Takes one record off the page; false if its key was erased before its long value could be read.
bool ddict_core::cursor::state::record()
{
	std::uint32_t klen = 0, vlen = 0;

	if (!left.u32(klen) || (with_values && !left.u32(vlen)) || !left.raw(klen, key) ||
	    (vlen < dd::len_large && !left.raw(vlen, value)))
		core.conn().fail(manager, -EPROTO);
	if (vlen != dd::len_large)
		return true;
	const bool found = core.directed(manager).get(key, [&](bytes b) { large.assign(b.begin(), b.end()); });

	value = large;
	return found;
}

ddict_core::cursor::cursor(const ddict_core &d, bool with_values, bytes prefix, ddict_position from)
    : s_(std::make_unique<state>(d, with_values, prefix, from))
{
}

ddict_position ddict_core::cursor::position() const noexcept
{
	return s_->left.empty() ? ddict_position{s_->manager, s_->at} : s_->page_at;
}
ddict_core::cursor::cursor(cursor &&) noexcept = default;
ddict_core::cursor &ddict_core::cursor::operator=(cursor &&) noexcept = default;
ddict_core::cursor::~cursor() = default;

bool ddict_core::cursor::next()
{
	while (s_->fetch())
		if (s_->record())
			return true;
	return false;
}

ddict_core::bytes ddict_core::cursor::key() const noexcept
{
	return s_->key;
}

ddict_core::bytes ddict_core::cursor::value() const noexcept
{
	return s_->value;
}

} // namespace ch

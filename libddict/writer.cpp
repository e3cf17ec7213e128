// SPDX-License-Identifier: Apache-2.0
// writer.cpp - values that are written in pieces, straight into a block that becomes the value.
#include "pending.hpp"
#include <algorithm>

namespace ch {

constexpr std::size_t first_cap = 64 * 1024;

struct ddict_core::writer::state {
	ddict_core core;
	std::vector<std::byte> key;
	dd::connection::claimed room;
	std::size_t len = 0, cap = 0;
	unsigned manager;

	state(const ddict_core &d, bytes k) : core(d), key(k.begin(), k.end()), manager(d.manager_for(k)) {}
	dd::outgoing out(const ddict_put &how = {}) const
	{
		dd::outgoing o = core.fitted(dd::put_of(how));

		o.key = key;
		o.vlen = len;
		return o;
	}
	void reserve(std::size_t more);
};

// A block that is twice as large, or, where memory is short, just large enough.
void ddict_core::writer::state::reserve(std::size_t least)
{
	dd::connection &co = core.conn();
	const dd::outgoing o = out();
	std::size_t want = std::max(least, 2 * cap);
	dd::connection::claimed bigger;

	try {
		bigger = co.claim_for(manager, o, want);
	} catch (const error &e) {
		if (want == least || (e.code().value() != ENOSPC && e.code().value() != EMSGSIZE))
			throw;
		bigger = co.claim_for(manager, o, want = least);
	}
	if (len)
		std::memcpy(bigger.value().data(), room.value().data(), len);
	room = std::move(bigger);
	cap = want;
}

ddict_core::writer::writer(const ddict_core &d, bytes key, std::size_t expected_len)
    : s_(std::make_unique<state>(d, key))
{
	s_->reserve(expected_len ? expected_len : first_cap);
}
ddict_core::writer::writer(writer &&) noexcept = default;
ddict_core::writer &ddict_core::writer::operator=(writer &&) noexcept = default;
ddict_core::writer::~writer() = default;

void ddict_core::writer::write(bytes piece)
{
	if (!s_)
		dd::refuse(EINVAL, "ddict: this value was committed");
	if (piece.size() > s_->cap - s_->len)
		s_->reserve(s_->len + piece.size());
	if (!piece.empty())
		std::memcpy(s_->room.value().data() + s_->len, piece.data(), piece.size());
	s_->len += piece.size();
}

std::size_t ddict_core::writer::size() const noexcept
{
	return s_ ? s_->len : 0;
}

void ddict_core::writer::commit(const ddict_put &how)
{
	if (!s_)
		dd::refuse(EINVAL, "ddict: this value was committed");
	const std::unique_ptr<state> s = std::move(s_);
	dd::connection &co = s->core.conn();
	const dd::outgoing out = s->out(how);
	dd::call c;

	co.start_claimed(c, s->manager, out, s->room);
	dd::is_good(co, s->manager, co.wait(c, out.until).status);
}

} // namespace ch

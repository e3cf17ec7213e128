// SPDX-License-Identifier: Apache-2.0
// async.cpp - calls under way, views of values, and values written in pieces.
#include "pending.hpp"

namespace ch {

ddict_call::ddict_call() noexcept = default;
ddict_call::ddict_call(std::unique_ptr<dd::pending> p) noexcept : p_(std::move(p)) {}
ddict_call::ddict_call(ddict_call &&) noexcept = default;
ddict_call &ddict_call::operator=(ddict_call &&) noexcept = default;
ddict_call::~ddict_call() = default;

bool ddict_call::is_ready() const
{
	return !p_ || p_->is_done || p_->call.is_done();
}

bool ddict_call::done()
{
	if (!p_)
		dd::refuse(EINVAL, "ddict: no call is under way here");
	if (p_->seen || p_->is_promised)
		return true;
	if (!p_->is_done) {
		p_->status = p_->conn->wait(p_->call, p_->until).status;
		p_->is_done = true;
	}
	return dd::is_good(*p_->conn, p_->call.manager(), p_->status);
}

std::uint64_t ddict_call::arg() const noexcept
{
	return p_->call.head().arg;
}

bool ddict_call::read(value_reader sink)
{
	if (!done())
		return false;
	const std::unique_ptr<dd::pending> p = std::move(p_);

	if (p->seen) {
		if (!dd::read_seen(*p->conn, p->seen, sink))
			p->conn->fail(p->seen.manager(), -EOWNERDEAD);
		return true;
	}
	p->is_done = false; // it is given back here
	if (!dd::read_value(*p->conn, p->call, p->until, sink))
		p->conn->fail(p->call.manager(), -EOWNERDEAD);
	return true;
}

ddict_view::ddict_view() noexcept = default;
ddict_view::ddict_view(ddict_view &&) noexcept = default;
ddict_view &ddict_view::operator=(ddict_view &&) noexcept = default;
ddict_view::~ddict_view() = default;

ddict_view::bytes ddict_view::data() const noexcept
{
	if (!p_)
		return {};
	if (p_->seen)
		return p_->seen.value();
	if (p_->call.head().how == static_cast<std::uint32_t>(dd::form::pinned))
		return p_->conn->pinned(p_->call);
	return p_->call.body();
}

void ddict_view::reset() noexcept
{
	p_.reset();
}

} // namespace ch

// SPDX-License-Identifier: Apache-2.0
// calls.cpp - the operations on one key: each is begun, and most are waited for at once.
#include "pending.hpp"
#include "place.hpp"

namespace ch {

using dd::connection;
using dd::op;
using dd::outgoing;
using dd::pending;

ddict_call ddict_core::begin(const outgoing &out) const
{
	auto p = std::make_unique_for_overwrite<pending>();

	p->conn = share();
	p->until = out.until;
	p->conn->start(p->call, manager_for(out.key), out);
	return ddict_call(std::move(p));
}

// Begun and waited for, without memory of its own. True, or false for "no such key" and the like.
static bool run(connection &conn, dd::call &c, unsigned m, const outgoing &out)
{
	return dd::is_good(conn, m, conn.run(c, m, out).status);
}

static outgoing put_of(std::span<const std::byte> key, std::size_t len, const ddict_core::value_writer &write,
		       const ddict_put &how, std::uint32_t flags = 0)
{
	outgoing out = dd::put_of(how);

	out.key = key;
	out.flags |= flags;
	out.vlen = len;
	out.write = &write;
	return out;
}

// Writes the value and promises the put: true. Or calls ask(how) for a small value and ask_with(room) for another.
template <class Ask, class AskWith>
static bool put_promised(connection &conn, unsigned m, std::uint64_t hash, outgoing &out, Ask &&ask, AskWith &&ask_with)
{
	if (!conn.may_promise(m, out))
		return ask(), false;
	if (sizeof(dd::request) + out.key.size() + out.vlen <= dd::inline_max) {
		std::byte value[dd::inline_max];

		(*out.write)({value, out.vlen}); // once, whatever comes
		const dd::copied again{{value, out.vlen}};
		const ddict_core::value_writer w = again;

		out.write = &w;
		return conn.promise(m, hash, out, nullptr) || (ask(), false);
	}
	connection::claimed room = conn.claim_for(m, out, out.vlen);

	(*out.write)(room.value());
	return conn.promise(m, hash, out, &room) || (ask_with(room), false);
}

void ddict_core::put(bytes key, std::size_t len, value_writer write, const ddict_put &how) const
{
	connection &co = conn();
	const std::uint64_t hash = dd::key_hash(key);
	const unsigned m = manager_for(hash);
	outgoing out = fitted(put_of(key, len, write, how));

	const auto ask = [&] {
		dd::call c;

		run(co, c, m, out);
	};
	const auto ask_with = [&](connection::claimed &room) {
		dd::call c;

		co.start_claimed(c, m, out, room);
		dd::is_good(co, m, co.wait(c, out.until).status);
	};
	put_promised(co, m, hash, out, ask, ask_with);
}

ddict_call ddict_core::start_put(bytes key, std::size_t len, value_writer write, const ddict_put &how) const
{
	auto p = std::make_unique_for_overwrite<pending>();
	const std::uint64_t hash = dd::key_hash(key);
	const unsigned m = manager_for(hash);
	outgoing out = fitted(put_of(key, len, write, how));

	p->conn = share();
	p->until = out.until;
	p->is_done = put_promised(
		*p->conn, m, hash, out, [&] { p->conn->start(p->call, m, out); },
		[&](connection::claimed &room) { p->conn->start_claimed(p->call, m, out, room); });
	p->is_promised = p->is_done;
	return ddict_call(std::move(p));
}

ddict_call ddict_core::start_put_if_absent(bytes key, std::size_t len, value_writer write, const ddict_put &how) const
{
	return begin(fitted(put_of(key, len, write, how, dd::put_if_absent)));
}

bool ddict_core::put_if_absent(bytes key, std::size_t len, value_writer write, const ddict_put &how) const
{
	dd::call c;

	return run(conn(), c, manager_for(key), fitted(put_of(key, len, write, how, dd::put_if_absent)));
}

namespace {

// The new value and behind it the expected one.
struct both_values {
	std::size_t len;
	const ddict_core::value_writer &write;
	ddict_core::bytes expected;
	void operator()(std::span<std::byte> to) const
	{
		write(to.first(len));
		dd::copied{expected}(to.subspan(len));
	}
};

outgoing cas_of(ddict_core::bytes key, ddict_core::bytes expected, std::size_t len,
		const ddict_core::value_writer &write)
{
	return {.what = op::compare_and_set,
		.key = key,
		.arg = expected.size(),
		.vlen = len + expected.size(),
		.write = &write};
}

} // namespace

ddict_call ddict_core::start_compare_and_set(bytes key, bytes expected, std::size_t len, value_writer write) const
{
	const both_values both{len, write, expected};
	const value_writer w = both;

	return begin(fitted(cas_of(key, expected, len, w)));
}

bool ddict_core::compare_and_set(bytes key, bytes expected, std::size_t len, value_writer write) const
{
	const both_values both{len, write, expected};
	const value_writer w = both;
	dd::call c;

	return run(conn(), c, manager_for(key), fitted(cas_of(key, expected, len, w)));
}

ddict_call ddict_core::start_get(bytes key) const
{
	auto p = std::make_unique_for_overwrite<pending>();
	const std::uint64_t hash = dd::key_hash(key);

	p->conn = share();
	if (p->conn->look(manager_for(hash), hash, key, checkpoint_id(), p->seen) && p->conn->is_whole(p->seen)) {
		p->is_done = true;
		return ddict_call(std::move(p));
	}
	return begin(fitted({.what = op::get, .key = key}));
}

// True: the manager lives after the value was read, so the bytes were the value's. A dead one's memory may be used by
// others; what was read of that, and what became of it, counts for nothing.
static bool read_pinned(connection &conn, dd::call &c, std::int64_t until, ddict_core::value_reader read)
{
	const std::uint64_t pin = c.head().arg;
	std::exception_ptr failure;
	dd::call r;

	try {
		read(conn.pinned(c));
	} catch (...) {
		failure = std::current_exception();
	}
	if (conn.was_held(c))
		conn.unpin(c);
	else if (conn.run(r, c.manager(), {.what = op::release, .arg = pin, .until = until}).status < 0)
		return false; // a successor, which knows nothing of it
	if (failure)
		std::rethrow_exception(failure);
	return true;
}

bool dd::read_value(connection &conn, dd::call &c, std::int64_t until, ddict_core::value_reader read)
{
	if (c.head().how == static_cast<std::uint32_t>(dd::form::pinned))
		return read_pinned(conn, c, until, read);
	read(c.body());
	return true;
}

bool dd::read_seen(connection &conn, const dd::sight &s, ddict_core::value_reader read)
{
	std::exception_ptr failure;

	try {
		read(s.value());
	} catch (...) {
		failure = std::current_exception();
	}
	if (!conn.is_whole(s))
		return false;
	if (failure)
		std::rethrow_exception(failure);
	return true;
}

bool ddict_core::look(bytes key, value_reader read) const
{
	connection &co = conn();
	const std::uint64_t hash = dd::key_hash(key);
	dd::sight s;

	return co.look(manager_for(hash), hash, key, checkpoint_id(), s) && dd::read_seen(co, s, read);
}

bool ddict_core::get(bytes key, value_reader read) const
{
	if (look(key, read))
		return true;
	connection &co = conn();
	const outgoing out = fitted({.what = op::get, .key = key});

	for (;;) {
		dd::call c;

		if (!run(co, c, manager_for(key), out))
			return false;
		if (dd::read_value(co, c, out.until, read))
			return true;
	}
}

bool ddict_core::pop(bytes key, value_reader read) const
{
	connection &co = conn();
	const outgoing out = fitted({.what = op::pop, .key = key});
	dd::call c;

	if (!run(co, c, manager_for(key), out))
		return false;
	if (!dd::read_value(co, c, out.until, read))
		co.fail(c.manager(), -EOWNERDEAD); // it was done, and the value is gone with the manager
	return true;
}

ddict_call ddict_core::start_pop(bytes key) const
{
	return begin(fitted({.what = op::pop, .key = key}));
}

std::optional<ddict_view> ddict_core::view(bytes key) const
{
	ddict_call c = start_get(key);

	if (!c.done())
		return std::nullopt;
	return view_of(std::move(c.p_));
}

ddict_view ddict_core::view_of(std::unique_ptr<pending> p)
{
	ddict_view v;

	v.p_ = std::move(p);
	return v;
}

ddict_call ddict_core::start_contains(bytes key) const
{
	return begin(fitted({.what = op::contains, .key = key}));
}

bool ddict_core::contains(bytes key) const
{
	dd::call c;

	return run(conn(), c, manager_for(key), fitted({.what = op::contains, .key = key}));
}

ddict_call ddict_core::start_erase(bytes key) const
{
	return begin(fitted({.what = op::erase, .key = key}));
}

bool ddict_core::erase(bytes key) const
{
	dd::call c;

	return run(conn(), c, manager_for(key), fitted({.what = op::erase, .key = key}));
}

ddict_call ddict_core::start_fetch_add(bytes key, ddict_number kind, std::uint64_t delta_bits) const
{
	return begin(fitted(
		{.what = op::fetch_add, .key = key, .arg = delta_bits, .flags = static_cast<std::uint32_t>(kind)}));
}

std::uint64_t ddict_core::fetch_add(bytes key, ddict_number kind, std::uint64_t delta_bits) const
{
	dd::call c;

	run(conn(), c, manager_for(key),
	    fitted({.what = op::fetch_add, .key = key, .arg = delta_bits, .flags = static_cast<std::uint32_t>(kind)}));
	return c.head().arg;
}

ddict_call ddict_core::start_append(bytes key, bytes more) const
{
	const dd::copied copy{more};
	const value_writer w = copy;

	return begin(fitted({.what = op::append, .key = key, .vlen = more.size(), .write = &w}));
}

std::uint64_t ddict_core::append(bytes key, bytes more) const
{
	const dd::copied copy{more};
	const value_writer w = copy;
	dd::call c;

	run(conn(), c, manager_for(key), fitted({.what = op::append, .key = key, .vlen = more.size(), .write = &w}));
	return c.head().arg;
}

ddict_call ddict_core::start_wait_for(bytes key, bytes value) const
{
	const dd::copied copy{value};
	const value_writer w = copy;

	return begin(fitted({.what = op::wait_for, .key = key, .vlen = value.size(), .write = &w}));
}

void ddict_core::wait_for(bytes key, bytes value) const
{
	const dd::copied copy{value};
	const value_writer w = copy;
	dd::call c;

	run(conn(), c, manager_for(key), fitted({.what = op::wait_for, .key = key, .vlen = value.size(), .write = &w}));
}

void ddict_core::wait_for(bytes key) const
{
	dd::call c;

	run(conn(), c, manager_for(key), fitted({.what = op::wait_for, .key = key, .flags = dd::wait_any}));
}

} // namespace ch

// SPDX-License-Identifier: Apache-2.0
// core.cpp - ddict_core: handles, and the operations on one key or on all.
#include "connection.hpp"
#include "owner.hpp"
#include <deque>

namespace ch {

using dd::call;
using dd::connection;
using dd::op;
using dd::reply;

ddict_core::ddict_core() noexcept = default;
ddict_core::~ddict_core() = default;

ddict_core::ddict_core(const descriptor &d) noexcept : descr_(d), is_set_(ch_descr_kind(&d) >= 0) {}

// The copy finds the connection by itself.
ddict_core::ddict_core(const ddict_core &o) noexcept : descr_(o.descr_), is_set_(o.is_set_), owner_(o.owner_) {}

ddict_core &ddict_core::operator=(const ddict_core &o) noexcept
{
	descr_ = o.descr_;
	is_set_ = o.is_set_;
	owner_ = o.owner_;
	conn_.store(nullptr, std::memory_order_relaxed); // nobody else may use a handle that is assigned to
	keep_.reset();
	return *this;
}

ddict_core ddict_core::create(const ddict_options &o)
{
	auto owner = std::make_shared<dd::owner>();

	owner->create(o);
	ddict_core core(owner->descr());

	core.owner_ = std::move(owner);
	return core;
}

ddict_core ddict_core::attach(const descriptor &d)
{
	ddict_core core(d);

	core.conn();
	return core;
}

void ddict_core::destroy() noexcept
{
	conn_.store(nullptr, std::memory_order_relaxed); // as in assignment
	keep_.reset();
	if (owner_)
		owner_->destroy();
	owner_.reset();
	is_set_ = false;
}

connection &ddict_core::conn() const
{
	// [K1] pairs with [K2]: the connection is whole. Of another generation: this process was forked since.
	connection *c = conn_.load(std::memory_order_acquire);

	return c && c->generation() == dd::fork_generation() ? *c : resolve();
}

connection &ddict_core::resolve() const
{
	static std::mutex one_at_a_time;

	if (!is_set_)
		dd::refuse(EINVAL, "ddict: this handle names no dictionary");
	std::shared_ptr<connection> found = dd::connect(descr_);
	std::lock_guard<std::mutex> lock(one_at_a_time);
	connection *c = conn_.load(std::memory_order_relaxed); // under the lock

	if (!c || c->generation() != dd::fork_generation()) {
		keep_ = std::move(found);
		c = keep_.get();
		// [K2] pairs with [K1]: made before it is seen.
		conn_.store(c, std::memory_order_release);
	}
	return *c;
}

std::string ddict_core::name() const
{
	return conn().dir().name;
}

unsigned ddict_core::managers() const
{
	return conn().managers();
}

ch_peer ddict_core::manager_peer(unsigned m) const
{
	return conn().dir().managers.at(m).peer;
}

unsigned ddict_core::which_manager(bytes key) const
{
	return conn().manager_for(key);
}

// One call to the key's manager; its status is 0, or -ENOENT, or it throws.
static int run(connection &conn, call &c, const dd::outgoing &out)
{
	const unsigned m = conn.manager_for(out.key);
	const int status = conn.run(c, m, out).status;

	if (status < 0 && status != -ENOENT)
		conn.fail(m, status);
	return status;
}

void ddict_core::put(bytes key, std::size_t len, value_writer write) const
{
	call c;

	run(conn(), c, {.what = op::put, .key = key, .vlen = len, .write = &write});
}

// The manager answers the release, so it was alive, and the bytes were the value's, as long as they were read.
static void release(connection &conn, const call &c)
{
	call r;
	const int status = conn.run(r, c.manager(), {.what = op::release, .arg = c.head().arg}).status;

	if (status < 0)
		conn.fail(c.manager(), status);
}

bool ddict_core::get(bytes key, value_reader read) const
{
	connection &co = conn();
	call c;

	if (run(co, c, {.what = op::get, .key = key}) == -ENOENT)
		return false;
	if (c.head().how != static_cast<std::uint32_t>(dd::form::pinned)) {
		read(c.body());
		return true;
	}
	try {
		read(co.pinned(c));
	} catch (...) {
		try {
			release(co, c);
		} catch (const error &) {
			// What the reader threw is of more interest than that the manager died as well.
		}
		throw;
	}
	release(co, c);
	return true;
}

bool ddict_core::contains(bytes key) const
{
	call c;

	return run(conn(), c, {.what = op::contains, .key = key}) == 0;
}

bool ddict_core::erase(bytes key) const
{
	call c;

	return run(conn(), c, {.what = op::erase, .key = key}) == 0;
}

std::uint64_t ddict_core::fetch_add(bytes key, ddict_number kind, std::uint64_t delta_bits) const
{
	call c;

	run(conn(), c,
	    {.what = op::fetch_add, .key = key, .arg = delta_bits, .flags = static_cast<std::uint32_t>(kind)});
	return c.head().arg;
}

// The same request to every manager at a time; the sum of what they answer.
static std::uint64_t ask_all(connection &conn, op what)
{
	std::deque<call> calls(conn.managers());
	std::uint64_t sum = 0;

	for (unsigned m = 0; m < conn.managers(); m++)
		conn.start(calls[m], m, {.what = what});
	for (unsigned m = 0; m < conn.managers(); m++) {
		const reply &r = conn.wait(calls[m]);

		if (r.status < 0)
			conn.fail(m, r.status);
		sum += r.arg;
	}
	return sum;
}

std::uint64_t ddict_core::size() const
{
	return ask_all(conn(), op::size);
}

std::uint64_t ddict_core::clear() const
{
	return ask_all(conn(), op::clear);
}

} // namespace ch

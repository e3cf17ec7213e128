// SPDX-License-Identifier: Apache-2.0
// core.cpp - ddict_core: handles, and the operations on one key or on all.
#include "connection.hpp"
#include "owner.hpp"
#include "place.hpp"
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
ddict_core::ddict_core(const ddict_core &o) noexcept
    : descr_(o.descr_), is_set_(o.is_set_), directed_(o.directed_), timeout_ns_(o.timeout_ns_),
      checkpoint_(o.checkpoint_id()), owner_(o.owner_)
{
}

ddict_core &ddict_core::operator=(const ddict_core &o) noexcept
{
	descr_ = o.descr_;
	is_set_ = o.is_set_;
	directed_ = o.directed_;
	timeout_ns_ = o.timeout_ns_;
	set_checkpoint(o.checkpoint_id());
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

	if (!owner->kept().empty())
		core.begin_with_kept(owner->kept());
	if (owner->restores() != ddict_nothing)
		core.restore(owner->restores());
	if (owner->logs()) {
		core.flush(); // begins them
		owner->publish_log();
	}
	core.owner_ = std::move(owner);
	core.timeout_ns_ = o.timeout.count();
	return core;
}

ddict_core ddict_core::attach(const descriptor &d)
{
	ddict_core core(d);

	core.conn();
	return core;
}

ddict_core ddict_core::attach(const std::string &name)
{
	ch_segment *seg = nullptr;

	check(ch_segment_attach_name(name.c_str(), &seg));
	const dd::segment guard(seg);

	return attach(detail::descr_of<ch_segment, ch_segment_get_descr>(seg));
}

ddict_core ddict_core::within(nanoseconds timeout) const
{
	ddict_core c(*this);

	c.timeout_ns_ = timeout.count();
	return c;
}

ddict_core ddict_core::directed(unsigned manager) const
{
	ddict_core c(*this);

	if (manager >= managers())
		dd::refuse(EINVAL, "dictionary " + name() + " has no manager " + std::to_string(manager));
	c.directed_ = static_cast<int>(manager);
	return c;
}

ddict_core ddict_core::undirected() const
{
	ddict_core c(*this);

	c.directed_ = -1;
	return c;
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

std::shared_ptr<connection> ddict_core::share() const
{
	conn();
	return keep_;
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
	const dd::directory &d = conn().dir();

	if (m >= d.managers.size())
		dd::refuse(EINVAL, "dictionary " + d.name + " has no manager " + std::to_string(m));
	return d.peer_of(m);
}

unsigned ddict_core::which_manager(bytes key) const
{
	return conn().manager_for(key);
}

unsigned ddict_core::manager_for(bytes key) const
{
	return directed_ >= 0 ? static_cast<unsigned>(directed_) : conn().manager_for(key);
}

unsigned ddict_core::manager_for(std::uint64_t hash) const
{
	return directed_ >= 0 ? static_cast<unsigned>(directed_) : dd::place(hash, conn().managers());
}

// With this handle's checkpoint and deadline.
dd::outgoing ddict_core::fitted(dd::outgoing out) const
{
	out.at = checkpoint_id();
	out.until = dd::deadline_of(timeout_ns_);
	return out;
}

std::uint64_t ddict_core::checkpoint() const noexcept
{
	return checkpoint_.fetch_add(1, std::memory_order_relaxed) +
	       1; // a number of its own; the calls are ordered elsewhere
}

std::uint64_t ddict_core::rollback() const noexcept
{
	std::uint64_t id = checkpoint_id();

	while (id > 0 &&
	       !checkpoint_.compare_exchange_weak(id, id - 1, std::memory_order_relaxed)) // as in checkpoint()
		;
	return checkpoint_id();
}

std::uint64_t ddict_core::newest_checkpoint() const
{
	return ask_all({.what = op::checkpoints}, [](std::uint64_t a, std::uint64_t b) { return std::max(a, b); });
}

std::uint64_t ddict_core::sync_to_newest_checkpoint() const
{
	const std::uint64_t newest = newest_checkpoint();

	set_checkpoint(newest);
	return newest;
}

// The same request to every manager at a time, or to the one this handle is directed at; what they answer, folded.
std::uint64_t ddict_core::ask_all(dd::outgoing out, std::uint64_t (*fold)(std::uint64_t, std::uint64_t)) const
{
	connection &co = conn();
	const unsigned first = is_directed() ? static_cast<unsigned>(directed_) : 0;
	const unsigned nr = is_directed() ? 1 : co.managers();
	std::deque<call> calls(std::min(nr, dd::credits / 2));
	std::uint64_t sum = 0;

	const auto take = [&](const call &c, const reply &r) {
		if (r.status < 0)
			co.fail(c.manager(), r.status);
		sum = fold(sum, r.arg);
	};

	out = fitted(out);
	if (co.dir().rules.replicas > 1) { // one after the other: calls are repeated with successors
		for (unsigned i = 0; i < nr; i++)
			take(calls[0], co.run(calls[0], first + i, out));
		return sum;
	}
	for (unsigned i = 0; i < nr + calls.size(); i++) {
		call &c = calls[i % calls.size()];

		if (i >= calls.size())
			take(c, co.wait(c, out.until));
		if (i < nr)
			co.start(c, first + i, out);
	}
	return sum;
}

std::uint64_t ddict_core::ask_all(const dd::outgoing &out) const
{
	return ask_all(out, [](std::uint64_t a, std::uint64_t b) { return a + b; });
}

std::uint64_t ddict_core::size() const
{
	return ask_all({.what = op::size});
}

std::uint64_t ddict_core::clear() const
{
	return ask_all({.what = op::clear});
}

bool ddict_core::freeze(bool is_frozen) const
{
	return ask_all({.what = op::set_frozen, .arg = is_frozen}) != 0;
}

bool ddict_core::is_frozen() const
{
	return ask_all({.what = op::is_frozen}) != 0;
}

} // namespace ch

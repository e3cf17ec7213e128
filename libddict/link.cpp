// SPDX-License-Identifier: Apache-2.0
// link.cpp - the other half of a connection: reaching the managers, and sending to them.
#include "connection.hpp"
#include <ctime>

namespace ch::dd {

namespace {

constexpr std::int64_t ms = 1000000;
constexpr std::int64_t slice = 100 * ms;
constexpr std::int64_t patience = 50 * ms;         // for memory that others are about to free
constexpr std::int64_t hello_timeout = 30000 * ms; // a manager cannot say that it has no room for us
constexpr std::int64_t successor_timeout = 10000 * ms;
constexpr int reap_tries = 100;              // of 20 ms each
constexpr unsigned reply_capacity = credits; // each call under way has one reply
constexpr std::size_t reply_channel_len = 64 * 1024;
constexpr std::size_t promised_len_max = 2 * 1024 * 1024;
constexpr std::size_t promised_bytes_max = 256 * 1024; // of values like this one, in one line of a client's open promises

// How long one try may wait.
std::int64_t slice_until(std::int64_t until)
{
	return until < 0 ? slice : std::clamp<std::int64_t>(until - monotonic_ns(), 0, slice);
}

} // namespace

std::size_t control_len(unsigned max_clients)
{
	return max_clients * reply_channel_len + 2 * 1024 * 1024;
}

connection::connection(const descriptor &d)
    : dir_(directory_attach(d)), generation_(dd::fork_generation()), links_(new link[dir_.managers.size()])
{
	replies_ = make_replies();
}

// Takes back what belongs to us; managers that hear the farewell do the same at once, others when they look.
connection::~connection()
{
	const request bye{static_cast<std::uint32_t>(op::bye), 0, 0, 0, 0, sizeof(request), 0, 0, -1, 0};

	if (generation_ != dd::fork_generation())
		return;
	for (unsigned m = 0; m < managers(); m++) {
		request mine = bye;

		if (const acquaintance *a = links_[m].with.load(std::memory_order_relaxed)) { // no other thread is here
			mine.client = a->client;
			ch_channel_send(links_[m].requests.get(), &mine, sizeof(mine), CH_TRY);
		}
		if (links_[m].row != window::none)
			links_[m].win.leave(links_[m].row);
	}
	replies_.destroy();
}

// Sized so that no manager ever finds it full; gone with this process, however that ends.
static ch::channel create_replies(const memory_pool &control)
{
	ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	ch_channel *made = nullptr;

	attr.capacity = reply_capacity;
	attr.inline_max = inline_max;
	attr.flags = CH_CHANNEL_ENDS_WITH_CREATOR;
	check(ch_channel_create(control.get(), &attr, &made));
	const detail::handle<ch_channel, ch_channel_detach> guard(made);

	return ch::channel::attach(detail::descr_of<ch_channel, ch_channel_get_descr>(made));
}

// If the pool is full, channels of clients that just died may lie in it: the managers look.
ch::channel connection::make_replies()
{
	const memory_pool control = memory_pool::attach(dir_.control);
	const request reap{static_cast<std::uint32_t>(op::reap), 0, 0, 0, 0, sizeof(request), 0, 0, -1, 0};

	for (int i = 0;; i++) {
		try {
			return create_replies(control);
		} catch (const error &e) {
			if (e.code().value() != ENOSPC)
				throw;
			if (i == reap_tries)
				refuse(ENOSPC, "dictionary " + dir_.name +
						       ": no room for one more client process; "
						       "create it with more (ddict_options::max_clients)");
		}
		for (const manager_info &m : dir_.managers)
			ch_channel_send(ch::channel::attach(m.requests).get(), &reap, sizeof(reap), CH_TRY);
		const timespec nap{0, 20 * ms};

		nanosleep(&nap, nullptr);
	}
}

// Makes the acquaintance of the process that serves this manager, whenever it is another one.
acquaintance &connection::up(unsigned m, std::int64_t until)
{
	link &l = links_[m];
	// [H1] pairs with [H2]: the acquaintance is whole, channel and segment are there. [I1] pairs with [I2]: peer and lost
	// belong to the incarnation.
	acquaintance *a = l.with.load(std::memory_order_acquire);

	if (a && a->incarnation >= dir_.words[m].incarnation.load(std::memory_order_acquire)) [[likely]] {
		if (!a->is_dead.load(std::memory_order_relaxed)) [[likely]] // a hint; the wait finds out
			return *a;
		await_successor(m, a->incarnation, until);
	}
	std::lock_guard<std::mutex> lock(hello_lock_);
	const std::uint64_t now = dir_.words[m].incarnation.load(std::memory_order_acquire);

	a = l.with.load(std::memory_order_relaxed); // under the lock
	if (a && a->incarnation >= now)
		return *a;
	acquaintance &fresh = say_hello(m, now);
	if (a && dir_.rules.replicas < 2)
		raise_lost(m);
	return fresh;
}

acquaintance &connection::say_hello(unsigned m, std::uint64_t incarnation)
{
	link &l = links_[m];
	const manager_info &info = dir_.managers[m];
	hello_body body;
	const request head{static_cast<std::uint32_t>(op::hello), 0, 0, 0, 0, sizeof(request), 0, 0, -1, 0};
	acquaintance &a = *l.all.emplace_back(new acquaintance);
	call c;

	a.manager = m;
	a.incarnation = incarnation;
	a.peer = dir_.peer_of(m).id;
	if (!l.requests) {
		ch_segment *seg = nullptr;

		check(ch_segment_attach_with(&info.requests, nullptr, attach_flags_, &seg));
		l.seg.reset(seg);
		l.requests = ch::channel::attach(info.requests);
		l.win = window(directory_window(dir_.seg.get(), managers(), dir_.windows, m), dir_.windows);
	}
	std::memcpy(body.channel, replies_.descr().bytes, sizeof(body.channel));
	body.peer = ch_peer_self().id;
	const std::int64_t until = deadline_of(hello_timeout);
	const auto copy = [&](std::span<std::byte> to) { std::memcpy(to.data(), &body, to.size()); };
	const ddict_core::value_writer write = copy;

	send_small(c, a, head, {.what = op::hello, .vlen = sizeof(body), .write = &write, .until = until});
	const reply &r = wait(c, until);
	const bytes peer = c.body();

	if (peer.size() != sizeof(a.peer))
		refuse(EPROTO, "ddict: a manager's answer makes no sense");
	// Who answered may be the successor of whom we meant, and not yet made known.
	a.client = r.arg;
	a.incarnation = r.off;
	a.peer = load<std::uint64_t>(peer.data());
	a.is_dead.store(false, std::memory_order_relaxed); // which the other may have been seen
	a.place = ch_segment_holds(l.seg.get(), {a.peer}, 0);
	// Before anybody can look. Rows of the dead are free now. With wait_for_keys the manager says when a value may be read.
	if (!l.with.load(std::memory_order_relaxed) && l.row == window::none && !dir_.rules.wait_for_keys) // under the lock
		l.row = l.win.enter(ch_peer_self().id);
	l.with.store(&a, std::memory_order_release); // [H2] pairs with [H1]
	return a;
}

// Until a later process serves this manager.
void connection::await_successor(unsigned m, std::uint64_t incarnation, std::int64_t until)
{
	const std::int64_t late = deadline_of(successor_timeout);

	while (dir_.words[m].incarnation.load(std::memory_order_acquire) <= incarnation) { // [I1] pairs with [I2]
		if (until >= 0 && monotonic_ns() >= until)
			raise_late(m);
		if (!ch_peer_is_alive({dir_.words[m].creator.load(std::memory_order_relaxed)}))
			raise_ended();
		if (monotonic_ns() >= late)
			raise_dead(m, EHOSTUNREACH);
		const timespec nap{0, ms};

		nanosleep(&nap, nullptr);
	}
}

// Where a value begins in a message: behind header and key, and if it is long, at a place good for copying.
static std::size_t place_of(const outgoing &out, std::size_t cap)
{
	const std::size_t at = sizeof(request) + out.key.size();

	return cap >= aligned_from ? round_up(at, value_align) : at;
}

static request head_of(const outgoing &out, std::uint64_t client, std::size_t voff)
{
	return {static_cast<std::uint32_t>(out.what),
		static_cast<std::uint32_t>(out.key.size()),
		client,
		0,
		out.arg,
		static_cast<std::uint32_t>(voff),
		out.flags,
		out.at,
		out.until,
		out.retry_of};
}

void connection::start(call &c, unsigned m, const outgoing &out)
{
	acquaintance &a = up(m, out.until);
	const std::size_t voff = place_of(out, 0);

	if (out.key.size() > key_max)
		refuse(EMSGSIZE, "ddict: a key is longer than 64 KiB");
	if (voff + out.vlen <= inline_max)
		return send_small(c, a, head_of(out, a.client, voff), out);
	claimed room = claim_for(m, out, out.vlen);

	if (out.write)
		(*out.write)(room.value());
	start_claimed(c, m, out, room);
}

// Room for a value of so many bytes in a message of its own.
connection::claimed connection::claim_for(unsigned m, const outgoing &out, std::size_t cap)
{
	acquaintance &a = up(m, out.until);

	if (out.key.size() > key_max)
		refuse(EMSGSIZE, "ddict: a key is longer than 64 KiB");
	const std::size_t voff = place_of(out, cap);

	return {claim(a, voff + cap, out), voff};
}

// The value is written, and out.vlen bytes of it count. Memory came first: whoever waits for it holds no credit.
void connection::start_claimed(call &c, unsigned m, const outgoing &out, claimed &room)
{
	acquaintance &a = up(m, out.until);
	request head = head_of(out, a.client, room.voff);
	ch::message &msg = room.message;

	msg.shrink(head.voff + out.vlen);
	claim_credit(c, a, out.until);
	head.id = c.id_;
	std::memcpy(msg.data(), &head, sizeof(head));
	if (!out.key.empty())
		std::memcpy(msg.data() + sizeof(head), out.key.data(), out.key.size());
	try {
		commit(a, msg, out.until);
	} catch (...) {
		unsent(c);
		throw;
	}
}

// It has a credit, and no answer will come.
void connection::unsent(call &c) noexcept
{
	std::lock_guard<std::mutex> lock(lock_);

	finish(static_cast<unsigned>(c.id_ & 0xff), -ECANCELED);
	c.conn_ = nullptr;
}

void connection::send_small(call &c, acquaintance &a, request head, const outgoing &out)
{
	std::byte buf[inline_max];

	if (!out.key.empty())
		std::memcpy(buf + sizeof(head), out.key.data(), out.key.size());
	if (out.write)
		(*out.write)({buf + head.voff, out.vlen});
	claim_credit(c, a, out.until);
	head.id = c.id_;
	std::memcpy(buf, &head, sizeof(head));
	try {
		send_bytes(a, {buf, head.voff + out.vlen}, out.until);
	} catch (...) {
		unsent(c);
		throw;
	}
}

void connection::send_bytes(acquaintance &a, bytes msg, std::int64_t until)
{
	int rc;

	while ((rc = ch_channel_send(links_[a.manager].requests.get(), msg.data(), msg.size(), slice_until(until))) ==
		       -ETIMEDOUT ||
	       rc == -EAGAIN)
		still_there(a, until);
	if (rc == -ESTALE || rc == -EPIPE)
		raise_ended();
	check(rc);
}

// How many in a line. Promised values keep memory that others could have, and that would still be in somebody's cache: of
// long ones there is one at a time, and what is longer still is waited for, which takes next to nothing beside the copy.
static unsigned promises_for(std::size_t vlen)
{
	const std::size_t nr = promised_bytes_max / std::max<std::size_t>(vlen, 1);

	return static_cast<unsigned>(std::min<std::size_t>(nr, promises_of_line));
}

bool connection::may_promise(unsigned m, const outgoing &out) const noexcept
{
	const link &l = links_[m];
	const acquaintance *a = l.with.load(std::memory_order_acquire); // [H1] pairs with [H2]

	return a && l.row != window::none && is_current(*a) && !a->is_dead.load(std::memory_order_relaxed) && // a hint
	       out.vlen <= promised_len_max && l.win.may_promise(out.at);
}

bool connection::promise(unsigned m, std::uint64_t hash, const outgoing &out, claimed *room)
{
	link &l = links_[m];
	acquaintance &a = *l.with.load(std::memory_order_acquire); // [H1] pairs with [H2]
	request head = head_of(out, a.client, room ? room->voff : place_of(out, 0));
	std::byte buf[inline_max], *msg = room ? room->message.data() : buf;

	head.flags |= put_promised;
	head.id = a.incarnation;
	if (room)
		room->message.shrink(head.voff + out.vlen);
	else
		(*out.write)({buf + head.voff, out.vlen});
	if (!out.key.empty())
		std::memcpy(msg + sizeof(head), out.key.data(), out.key.size());
	unsigned place = l.nr_promises.load(std::memory_order_relaxed); // a hint
	if (!l.win.promise(l.row, a.incarnation, out.at, hash, place, promises_for(out.vlen)))
		return false;
	l.nr_promises.store(place + 1, std::memory_order_relaxed); // as above
	head.retry_of = promise_at(l.row, place);
	std::memcpy(msg, &head, sizeof(head));
	try {
		if (room)
			commit(a, room->message, out.until);
		else
			send_bytes(a, {buf, head.voff + out.vlen}, out.until);
	} catch (...) {
		l.win.withdraw(l.row, a.incarnation, place);
		throw;
	}
	return true;
}

// Throws if the manager died or the deadline has passed; for after every slice of waiting.
void connection::still_there(acquaintance &a, std::int64_t until)
{
	if (died(a))
		raise_dead(a.manager, EOWNERDEAD);
	if (until >= 0 && monotonic_ns() >= until)
		raise_late(a.manager);
}

// What can be done for memory that is short, after so many tries. False: nothing any more.
bool connection::make_room(acquaintance &a, std::size_t len, const outgoing &out, int tries)
{
	const auto when_full = static_cast<ddict_full>(dir_.rules.when_full);
	call c;

	if (!out.is_patient || (when_full != ddict_full::wait && tries > (when_full == ddict_full::evict ? 100 : 1)))
		return false;
	if (when_full == ddict_full::wait && tries > 0) {
		still_there(a, out.until);
		return true;
	}
	if (when_full != ddict_full::evict)
		run(c, a.manager, {.what = op::reap, .until = out.until});
	else if (run(c, a.manager, {.what = op::make_room, .arg = len, .until = out.until}).status == -ENOSPC)
		return false;
	return true;
}

ch::message connection::claim(acquaintance &a, std::size_t len, const outgoing &out)
{
	for (int tries = 0;; tries++) {
		try {
			return links_[a.manager].requests.claim(
				len, nanoseconds(tries == 0 ? CH_TRY : std::min(patience, slice_until(out.until))));
		} catch (const error &e) {
			const int errnum = e.code().value();

			if (errnum == ESTALE || errnum == EPIPE)
				raise_ended();
			if (errnum == EMSGSIZE)
				refuse(EMSGSIZE, "dictionary " + dir_.name + ": " + std::to_string(len) +
							 " bytes can never fit in one manager's memory");
			if (errnum != ENOSPC && errnum != ETIMEDOUT && errnum != EAGAIN)
				throw;
		}
		if (!make_room(a, len, out, tries))
			raise_full(a.manager);
	}
}

void connection::commit(acquaintance &a, ch::message &msg, std::int64_t until)
{
	try {
		while (!links_[a.manager].requests.commit_for(msg, nanoseconds(slice_until(until))))
			still_there(a, until);
	} catch (const error &e) {
		if (e.code().value() == ESTALE || e.code().value() == EPIPE)
			raise_ended();
		throw;
	}
}

} // namespace ch::dd

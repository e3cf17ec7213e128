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
constexpr int reap_tries = 100;                    // of 20 ms each
constexpr unsigned reply_capacity = 64;            // twice the credits
constexpr std::size_t reply_channel_len = 64 * 1024;

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
	const request bye{static_cast<std::uint32_t>(op::bye), 0, 0, 0, 0, sizeof(request), 0};

	if (generation_ != dd::fork_generation())
		return;
	for (unsigned m = 0; m < managers(); m++) {
		request mine = bye;

		mine.client = links_[m].client;
		if (links_[m].is_up.load(std::memory_order_relaxed)) // no other thread is here any more
			ch_channel_send(links_[m].requests.get(), &mine, sizeof(mine), CH_TRY);
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
	const request reap{static_cast<std::uint32_t>(op::reap), 0, 0, 0, 0, sizeof(request), 0};

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

connection::link &connection::up(unsigned m)
{
	link &l = links_[m];

	// [H1] pairs with [H2]: channel, segment and id are there.
	if (!l.is_up.load(std::memory_order_acquire)) {
		std::lock_guard<std::mutex> lock(hello_lock_);

		if (!l.is_up.load(std::memory_order_relaxed)) // under the lock
			say_hello(m, l);
	}
	if (l.is_dead.load(std::memory_order_relaxed)) // a hint; the wait would find out too
		raise_dead(m, EHOSTUNREACH);
	return l;
}

void connection::say_hello(unsigned m, link &l)
{
	const manager_info &info = dir_.managers[m];
	ch_segment *seg = nullptr;
	hello_body body;
	request head{static_cast<std::uint32_t>(op::hello), 0, 0, 0, 0, sizeof(request), 0};
	call c;

	if (l.is_dead.load(std::memory_order_relaxed) || manager_died(m)) // as in up
		raise_dead(m, EHOSTUNREACH);
	l.requests = ch::channel::attach(info.requests);
	check(ch_segment_attach(&info.requests, &seg));
	l.seg.reset(seg);
	std::memcpy(body.channel, replies_.descr().bytes, sizeof(body.channel));
	body.peer = ch_peer_self().id;
	claim_credit(c, m);
	head.id = c.id_;
	const auto copy = [&](std::span<std::byte> to) { std::memcpy(to.data(), &body, to.size()); };
	const ddict_core::value_writer write = copy;

	send_small(m, l, head, {.what = op::hello, .vlen = sizeof(body), .write = &write});
	l.client = wait(c, hello_timeout).arg;
	// [H2] pairs with [H1]: the link is whole before it is up.
	l.is_up.store(true, std::memory_order_release);
}

void connection::start(call &c, unsigned m, const outgoing &out)
{
	link &l = up(m);
	request head{static_cast<std::uint32_t>(out.what),
		     static_cast<std::uint32_t>(out.key.size()),
		     l.client,
		     0,
		     out.arg,
		     static_cast<std::uint32_t>(sizeof(request) + out.key.size()),
		     out.flags};

	if (out.key.size() > key_max)
		refuse(EMSGSIZE, "ddict: a key is longer than 64 KiB");
	if (head.voff + out.vlen <= inline_max) {
		claim_credit(c, m);
		head.id = c.id_;
		return send_small(m, l, head, out);
	}
	head.voff = static_cast<std::uint32_t>(round_up(head.voff, value_align));
	// Memory first: whoever waits for it must not hold a credit.
	ch::message msg = claim(m, l, head.voff + out.vlen, out.is_patient);

	claim_credit(c, m);
	head.id = c.id_;
	std::memcpy(msg.data(), &head, sizeof(head));
	if (!out.key.empty())
		std::memcpy(msg.data() + sizeof(head), out.key.data(), out.key.size());
	if (out.write)
		(*out.write)({msg.data() + head.voff, out.vlen});
	commit(m, l, msg);
}

void connection::send_small(unsigned m, link &l, const request &head, const outgoing &out)
{
	std::byte buf[inline_max];
	const std::size_t len = head.voff + out.vlen;
	int rc;

	std::memcpy(buf, &head, sizeof(head));
	if (!out.key.empty())
		std::memcpy(buf + sizeof(head), out.key.data(), out.key.size());
	if (out.write)
		(*out.write)({buf + head.voff, out.vlen});
	while ((rc = ch_channel_send(l.requests.get(), buf, len, slice)) == -ETIMEDOUT)
		still_there(m);
	if (rc == -ESTALE || rc == -EPIPE)
		raise_ended();
	check(rc);
}

// Throws if the manager died; for after every slice of waiting.
void connection::still_there(unsigned m)
{
	if (manager_died(m))
		raise_dead(m, EOWNERDEAD);
}

void connection::ask_to_reap(unsigned m)
{
	call c;

	run(c, m, {.what = op::reap});
}

ch::message connection::claim(unsigned m, link &l, std::size_t len, bool is_patient)
{
	for (int i = 0;; i++) {
		try {
			return l.requests.claim(len, nanoseconds(i == 0 ? CH_TRY : patience));
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
		if (i > 0 || !is_patient)
			raise_full(m);
		ask_to_reap(m);
	}
}

void connection::commit(unsigned m, link &l, ch::message &msg)
{
	try {
		while (!l.requests.commit_for(msg, nanoseconds(slice)))
			still_there(m);
	} catch (const error &e) {
		if (e.code().value() == ESTALE || e.code().value() == EPIPE)
			raise_ended();
		throw;
	}
}

} // namespace ch::dd

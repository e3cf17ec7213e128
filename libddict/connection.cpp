// SPDX-License-Identifier: Apache-2.0
// connection.cpp - calls: credits, replies, and the wait for them.
#include "connection.hpp"
#include "place.hpp"
#include <algorithm>

namespace ch::dd {

namespace {

constexpr std::int64_t ms = 1000000;
constexpr std::int64_t first_slice = 20 * ms, longest_slice = 500 * ms;

constexpr std::int64_t unpin_patience = 10 * ms;

std::string who(const directory &d, unsigned m)
{
	return "dictionary " + d.name + ": manager " + std::to_string(m) + " of " + std::to_string(d.managers.size()) +
	       " (process " + std::to_string(ch_peer_pid(d.peer_of(m))) + ")";
}

} // namespace

unsigned connection::manager_for(bytes key) const
{
	return place(key_hash(key), managers());
}

std::int64_t deadline_of(std::int64_t timeout_ns)
{
	if (timeout_ns < 0)
		return -1;
	const std::int64_t now = monotonic_ns();

	return timeout_ns > INT64_MAX - now ? -1 : now + timeout_ns;
}

call::~call()
{
	if (conn_)
		conn_->abandon(*this);
}

bool call::is_done() const
{
	if (!conn_)
		return true;
	conn_->poll();
	std::lock_guard<std::mutex> lock(conn_->lock_);

	return done_;
}

// Nobody waits for it any more.
void connection::abandon(call &c) noexcept
{
	std::lock_guard<std::mutex> lock(lock_);
	const auto slot = static_cast<unsigned>(c.id_ & 0xff);

	c.conn_ = nullptr;
	if (!c.done_) {
		under_way_[slot] = nullptr;
		forgotten_[slot] = {c.id_, c.with_};
	} else if (c.failure_ == 0 && c.head_.status == 0 && c.head_.how == static_cast<std::uint32_t>(form::pinned)) {
		unpin(c);
	}
}

// Ends the call in this slot; its credit is free again.
void connection::finish(unsigned slot, int failure) noexcept
{
	call *c = under_way_[slot];

	under_way_[slot] = nullptr;
	forgotten_[slot] = {};
	taken_ &= ~(std::uint64_t{1} << slot);
	if (!c)
		return;
	c->failure_ = failure;
	c->done_ = true;
}

void connection::claim_credit(call &c, acquaintance &a, std::int64_t until)
{
	std::unique_lock<std::mutex> lock(lock_);

	if (!lead_until(lock, until, [&] { return ~taken_ != 0; }))
		raise_late(a.manager);
	const auto slot = static_cast<unsigned>(std::countr_one(taken_));

	taken_ |= std::uint64_t{1} << slot;
	c.id_ = next_id_++ << 8 | slot;
	c.with_ = &a;
	c.done_ = false;
	c.failure_ = 0;
	c.conn_ = this;
	c.big_.reset();
	under_way_[slot] = &c;
}

// Waits with the lock given up, until done() holds: true; or the deadline has passed. Whoever finds the post of the
// leader free takes it.
template <class Done> bool connection::lead_until(std::unique_lock<std::mutex> &lock, std::int64_t until, Done &&done)
{
	std::int64_t slice = first_slice;

	while (!done()) {
		std::int64_t left = longest_slice;

		if (until >= 0 && (left = until - monotonic_ns()) <= 0)
			return false;
		if (has_leader_) {
			followers_++;
			if (until < 0)
				changed_.wait(lock);
			else
				changed_.wait_for(lock, nanoseconds(left));
			followers_--;
			continue;
		}
		slice = take_one(lock, std::min(slice, left)) ? first_slice : std::min(slice * 2, longest_slice);
	}
	return true;
}

// As the leader. False if nothing came.
bool connection::take_one(std::unique_lock<std::mutex> &lock, std::int64_t slice_ns)
{
	ch::message big;

	has_leader_ = true;
	lock.unlock();
	const ssize_t n = receive(slice_ns, big);

	lock.lock();
	has_leader_ = false;
	if (n >= 0) {
		deliver({big ? big.data() : inbox_, static_cast<std::size_t>(n)}, std::move(big));
	} else if (n == -ETIMEDOUT || n == -EAGAIN) {
		if (slice_ns > 0)
			look_for_deaths(lock);
	} else {
		stale_.store(true, std::memory_order_relaxed); // a hint, see is_stale
		for (unsigned slot = 0; slot < credits; slot++)
			finish(slot, static_cast<int>(n));
	}
	if (followers_)
		changed_.notify_all();
	return n >= 0;
}

void connection::poll() noexcept
{
	std::unique_lock<std::mutex> lock(lock_);

	while (!has_leader_ && take_one(lock, CH_TRY))
		;
}

// One message: into the inbox, or if it has a block of its own, into big.
ssize_t connection::receive(std::int64_t slice_ns, ch::message &big) noexcept
{
	const ssize_t n = ch_channel_recv(replies_.get(), inbox_, sizeof(inbox_), slice_ns);

	if (n != -ENOBUFS)
		return n;
	try {
		std::optional<ch::message> m = replies_.try_take();

		if (!m)
			return -EAGAIN;
		big = std::move(*m);
		return static_cast<ssize_t>(big.size());
	} catch (const error &e) {
		return -e.code().value();
	}
}

// A reply that no call waits for, or that makes no sense, is dropped.
void connection::deliver(bytes msg, ch::message &&big)
{
	if (msg.size() < sizeof(reply))
		return;
	const reply head = load<reply>(msg.data());
	const unsigned slot = static_cast<unsigned>(head.id & 0xff);

	if (slot >= credits)
		return;
	if (forgotten_[slot].id && forgotten_[slot].id == head.id) {
		if (head.status == 0 && head.how == static_cast<std::uint32_t>(form::pinned))
			unpin(*forgotten_[slot].with, head.arg);
		finish(slot, 0);
		return;
	}
	if (!under_way_[slot] || under_way_[slot]->id_ != head.id)
		return;
	call &c = *under_way_[slot];

	c.head_ = head;
	if (big) {
		c.big_ = std::move(big);
	} else {
		c.small_len_ = msg.size() - sizeof(reply);
		std::memcpy(c.small_, msg.data() + sizeof(reply), c.small_len_);
	}
	finish(slot, 0);
}

bool connection::died(acquaintance &a) noexcept
{
	if (a.is_dead.load(std::memory_order_relaxed)) // a hint that saves a look; who it is is asked of the kernel
		return true;
	if (ch_peer_is_alive({a.peer}))
		return false;
	links_[a.manager].dead.store(a.incarnation, std::memory_order_relaxed); // as above
	a.is_dead.store(true, std::memory_order_relaxed);                // as above
	return true;
}

// The id of the call in a slot, if its manager died; or 0.
std::uint64_t connection::orphan(unsigned slot) noexcept
{
	if (const call *c = under_way_[slot])
		return died(*c->with_) ? c->id_ : 0;
	return forgotten_[slot].id && died(*forgotten_[slot].with) ? forgotten_[slot].id : 0;
}

// What the dead have answered is taken first: a call that has an answer is not to be repeated.
void connection::look_for_deaths(std::unique_lock<std::mutex> &lock)
{
	std::array<std::uint64_t, credits> orphans;
	bool is_one = false;

	for (unsigned slot = 0; slot < credits; slot++)
		is_one |= (orphans[slot] = orphan(slot)) != 0;
	while (is_one && take_one(lock, CH_TRY))
		;
	for (unsigned slot = 0; slot < credits && is_one; slot++)
		if (orphans[slot] && orphans[slot] == orphan(slot))
			finish(slot, -EOWNERDEAD);
}

const reply &connection::run(call &c, unsigned m, outgoing out)
{
	for (;;) {
		try {
			start(c, m, out);
			return wait(c, out.until);
		} catch (const error &e) {
			if (e.code().value() != EOWNERDEAD || dir_.rules.replicas < 2)
				throw;
		}
		if (!out.retry_of)
			out.retry_of = c.id_;
		await_successor(m, links_[m].dead.load(std::memory_order_relaxed),
				out.until); // found out by this thread
	}
}

const reply &connection::wait(call &c, std::int64_t until)
{
	bool in_time;

	{
		std::unique_lock<std::mutex> lock(lock_);

		in_time = lead_until(lock, until, [&] { return c.done_; });
	}
	if (!in_time) {
		abandon(c);
		raise_late(c.manager());
	}
	c.conn_ = nullptr;
	if (c.failure_ == -EOWNERDEAD)
		raise_dead(c.manager(), EOWNERDEAD);
	if (c.failure_)
		raise_ended();
	return c.head_;
}

void connection::unpin(const acquaintance &a, std::uint64_t pin) noexcept
{
	const request r{static_cast<std::uint32_t>(op::release),
			0,
			a.client, // a successor does not know it
			0,
			pin,
			sizeof(request),
			release_silently,
			0,
			-1,
			0};

	if (generation_ != fork_generation())
		return; // it is the parent's
	// Never waits for long: a manager takes requests as long as it lives. One that was stopped keeps the pin until
	// this process ends.
	ch_channel_send(links_[a.manager].requests.get(), &r, sizeof(r), unpin_patience);
}

void connection::settle(call &c) noexcept
{
	try {
		if (c.is_under_way())
			wait(c);
	} catch (const error &) {
		// Its manager died, or the dictionary ended.
	}
}

bytes connection::pinned(const call &c) const
{
	const link &l = links_[c.manager()];
	const reply &r = c.head();

	if (r.off > ch_segment_len(l.seg.get()) || r.len > ch_segment_len(l.seg.get()) - r.off)
		refuse(EPROTO, "ddict: a manager named a value outside its memory");
	return {static_cast<const std::byte *>(ch_segment_addr(l.seg.get())) + r.off, r.len};
}

void connection::raise_full(unsigned m) const
{
	refuse(ENOSPC, who(dir_, m) + " is full: it has " + std::to_string(dir_.managers[m].memory >> 10) +
			       " KiB; erase keys, or create the dictionary with more memory (ddict_options::memory)");
}

void connection::raise_late(unsigned m) const
{
	refuse(ETIMEDOUT, who(dir_, m) + " has not answered in time");
}

void connection::raise_dead(unsigned m, int errnum) const
{
	refuse(errnum, who(dir_, m) + " died; what its last calls did is not known");
}

void connection::raise_lost(unsigned m) const
{
	if (dir_.rules.has_log)
		refuse(EOWNERDEAD, who(dir_, m) + " is new: its predecessor died; it has what that one's log holds");
	refuse(EOWNERDEAD,
	       who(dir_, m) + " is new: its predecessor died, and " +
		       std::to_string(dir_.words[m].lost.load(std::memory_order_relaxed)) + // with the incarnation
		       " keys were lost with it and those before; the others go on");
}

void connection::raise_ended()
{
	stale_.store(true, std::memory_order_relaxed); // a hint, see is_stale
	refuse(ESTALE, "dictionary " + dir_.name + " was destroyed, or its creator died");
}

void connection::fail_visit(const call &c) const
{
	const std::string why(reinterpret_cast<const char *>(c.body().data()), c.body().size());

	if (why.empty())
		fail(c.manager(), c.head().status);
	refuse(-c.head().status, c.head().arg ? why : who(dir_, c.manager()) + ": " + why);
}

void connection::fail(unsigned m, int status) const
{
	switch (status) {
	case -ENOSPC:
		raise_full(m);
	case -ETIMEDOUT:
		refuse(ETIMEDOUT, "dictionary " + dir_.name + ": what the call waited for has not come in time");
	case -EPERM:
		refuse(EPERM, "dictionary " + dir_.name + " is frozen, or was opened to be read only");
	case -ERANGE:
		refuse(ERANGE, "dictionary " + dir_.name + ": that checkpoint has retired from the working set");
	case -EOWNERDEAD:
		raise_dead(m, EOWNERDEAD);
	case -EINVAL:
		refuse(EINVAL, "dictionary " + dir_.name + ": the value there is not a number of this kind");
	default:
		refuse(-status, who(dir_, m) + " refused the request");
	}
}

} // namespace ch::dd

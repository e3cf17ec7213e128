// SPDX-License-Identifier: Apache-2.0
// drain.cpp - waiting for results: whoever waits reads them.
//
// At most one thread reads the results channel at a time (is_reading_). The others that wait stand in a list and sleep,
// each on its own bell. The reader, after each message, rings for those whose wait is over; when its own is over, it
// leaves and rings for the first in the list, who then reads. No wake-up is lost, because
//  - whoever sleeps was put in the list under the lock, having seen that its wait is not over and that
//    somebody reads;
//  - every change that may end a wait is made under the lock and followed by wake_done();
//  - every thread that leaves wait_until() rings for the first in the list if nobody reads then, so that
//    a reader's place that was offered to a thread which left for another reason is offered on;
//  - the reader itself sleeps in the channel: a change made by another thread is followed by poke(), an empty message.
#include "core.h"

#include <cerrno>

namespace ch::detail {

void core::wake_done() noexcept
{
	for (waiter *w = waiters_; w; w = w->next)
		if (w->is_done(w->arg))
			w->bell.notify_one();
}

void core::poke() noexcept
{
	const result_head h{0, 0, result_kind::nothing, 0};

	// If it is full, the reader does not sleep.
	if (is_reading_)
		(void)ch_channel_send(room_->results(), &h, sizeof(h), CH_TRY);
}

bool core::wait(task &t, std::int64_t timeout_ns)
{
	lock l(m_);

	// Relaxed: set under m_.
	return wait_until(l, [&] { return t.is_ready.load(std::memory_order_relaxed); }, deadline(timeout_ns));
}

bool wait(task &t, std::int64_t timeout_ns)
{
	// [T1] pairs with [T1]: ready may have come since the caller looked, and with it the end of the core.
	return t.is_ready.load(std::memory_order_acquire) || t.owner->wait(t, timeout_ns);
}

void core::join()
{
	check_process();
	lock l(m_);

	// What a continuation waits for cannot be its own end.
	const bool is_inside = callbacks_.get_id() == std::this_thread::get_id();
	const auto is_done = [&] { return free_.size() == recs_.size() && (is_inside || (!over_ && !is_calling_)); };

	wait_until(l, [&] { return is_done() || is_broken_; }, deadline(CH_FOREVER));
}

bool core::wait_ready(std::int64_t timeout_ns)
{
	check_process();
	lock l(m_);
	const auto is_there = [&](std::uint32_t i) {
		// Relaxed: it has said so in the results channel, too.
		return workers_[i].is_running && workers_[i].peer.id &&
			room_->desk_of(i).at.load(std::memory_order_relaxed) == stage::ready;
	};
	const auto is_done = [&] {
		unsigned n = 0;

		for (std::uint32_t i = 0; i < workers_.size(); i++)
			n += is_there(i);
		return n >= target_;
	};

	const bool rc = wait_until(l, [&] { return is_broken_ || !is_open_ || is_done(); }, deadline(timeout_ns));
	if (is_broken_ || !is_open_)
		throw error(EPIPE, ("pool: " + (is_broken_ ? reason_ : "closed")).c_str());
	return rc;
}

bool core::wait_group(group &g, std::int64_t timeout_ns)
{
	lock l(m_);

	return wait_until(l, [&] { return g.has_next(); }, deadline(timeout_ns));
}

static outcome outcome_of(result_kind k, bool has_memory)
{
	return !has_memory ? outcome::no_memory : k == result_kind::value ? outcome::value : outcome::error;
}

// What is there. How many messages, or a negative errno.
ssize_t core::read_all()
{
	constexpr std::size_t batch = 32;
	alignas(8) std::byte buf[batch][small_message];
	ch_recv_item items[batch];

	for (std::size_t i = 0; i < batch; i++)
		items[i] = {buf[i], small_message, 0};
	const ssize_t n = ch_channel_recv_batch(room_->results(), items, batch, CH_TRY);
	for (ssize_t i = 0; i < n; i++)
		apply(buf[i], items[i].len);
	return n;
}

// Waits for one, with the lock open: a single message goes a shorter way than many.
ssize_t core::read_next(lock &l, std::int64_t timeout_ns)
{
	alignas(8) std::byte buf[small_message];

	is_reading_ = true;
	l.unlock();
	const ssize_t n = ch_channel_recv(room_->results(), buf, sizeof(buf), timeout_ns);
	l.lock();
	is_reading_ = false;
	if (n >= 0)
		apply(buf, static_cast<std::size_t>(n));
	return n;
}

// Reads what is there, or what comes next, and acts on it. False: nothing came in time.
bool core::read_some(lock &l, std::int64_t timeout_ns)
{
	ssize_t n = read_all();

	if (n == -EAGAIN && timeout_ns != CH_TRY)
		n = read_next(l, timeout_ns);
	if (n == -EAGAIN || n == -ETIMEDOUT)
		return false;
	if (n == -ENOBUFS)
		take_one();
	else if (n < 0)
		give_up_locked(std::strerror(static_cast<int>(-n)));
	wake_done();
	if (!again_.empty())
		send_again(l);
	return true;
}

// Tasks that threw and may try once more.
void core::send_again(lock &l)
{
	std::vector<outgoing> out;

	out.swap(again_);
	l.unlock();
	for (const outgoing &o : out)
		send_ticket(o);
	l.lock();
}

// A result that is in its task, all of it.
void core::end_one(const result_head &h, result_kind kind, bool has_memory)
{
	record &r = recs_[h.slot];

	if (kind == result_kind::error && r.retries && !is_stopping_) {
		r.retries--;
		stats_.retried++;
		return again(r, h.slot, true, again_);
	}
	complete(h.slot, outcome_of(kind, has_memory));
}

// A message that lies in a block. Only one thread reads, so it is still the oldest.
void core::take_one()
{
	auto h = std::make_unique<held_message>(room_, held_);
	const int rc = ch_channel_take(room_->results(), CH_TRY, &h->m);

	if (rc == 0)
		apply_held(std::move(h));
	else if (rc != -EAGAIN && rc != -ENOSPC)
		give_up_locked(std::strerror(-rc));
}

// The task a result is for, if anybody still wants it.
core::record *core::awaited(const result_head &h) noexcept
{
	if (h.slot >= recs_.size() || !recs_[h.slot].t || recs_[h.slot].serial != h.serial)
		return nullptr;
	return &recs_[h.slot];
}

// False: no memory.
bool core::give(record &r, const std::byte *data, std::size_t len) noexcept
{
	task &t = *r.t;

	t.data = len <= task::small_max ? t.small_ : new (std::nothrow) std::byte[len];
	if (!t.data)
		return false;
	t.len = len;
	archive::copy_bytes(t.data, data, len);
	return true;
}

// What is no task's result; false: it is.
bool core::hear(const result_head &h, const std::byte *m, std::size_t len)
{
	if (h.kind == result_kind::fence && static_cast<std::int32_t>(h.serial - fence_seen_) > 0)
		fence_seen_ = h.serial;
	else if (h.kind == result_kind::init_failed) // a mistake, which would be made again
		give_up_locked(("its initializer failed: " +
				std::string(reinterpret_cast<const char *>(m) + sizeof(h), len - sizeof(h))).c_str());
	return h.kind >= result_kind::fence;
}

void core::apply(const std::byte *m, std::size_t len)
{
	result_head h;

	if (len < sizeof(h))
		return;
	std::memcpy(&h, m, sizeof(h));
	record *r = hear(h, m, len) ? nullptr : awaited(h);
	if (!r)
		return;
	if (h.kind == result_kind::piece) // a last, short one
		apply_piece(*r, m, len);
	else if (h.kind == result_kind::value || h.kind == result_kind::error)
		end_one(h, h.kind, give(*r, m + sizeof(h), len - sizeof(h)));
}

void core::apply_held(std::unique_ptr<held_message> held)
{
	const auto *m = static_cast<const std::byte *>(held->m.data);
	const std::size_t len = held->m.len;
	result_head h{};

	if (len >= sizeof(h))
		std::memcpy(&h, m, sizeof(h));
	record *r = hear(h, m, len) ? nullptr : awaited(h);
	if (!r)
		return;
	if (h.kind == result_kind::piece)
		return apply_piece(*r, m, len);
	if (h.kind != result_kind::value && h.kind != result_kind::error)
		return;
	// In shared memory as long as there is plenty; then get() reads it there. Otherwise out of the way.
	bool has_memory = true;
	if (*held_ + len <= held_budget_) {
		*held_ += held->counted = len;
		r->t->data = static_cast<std::byte *>(held->m.data) + sizeof(h);
		r->t->len = len - sizeof(h);
		r->t->is_held = true;
		r->t->held = held.release();
	} else {
		has_memory = give(*r, m + sizeof(h), len - sizeof(h));
	}
	end_one(h, h.kind, has_memory);
}

void core::apply_piece(record &r, const std::byte *m, std::size_t len)
{
	piece_head p;
	task &t = *r.t;

	if (len < sizeof(p))
		return;
	std::memcpy(&p, m, sizeof(p));
	len -= sizeof(p);
	if (!t.data) { // the first
		t.data = new (std::nothrow) std::byte[p.total];
		t.len = p.total;
		if (!t.data)
			return complete(p.head.slot, outcome::no_memory);
	}
	if (t.len != p.total || p.offset > p.total || len > p.total - p.offset)
		return;
	archive::copy_bytes(t.data + p.offset, m + sizeof(p), len);
	if (p.offset + len == p.total)
		end_one(p.head, p.kind, true);
}

// Waits until everything that is in the results channel now has been acted upon (board.h, 4).
void core::pass_fence()
{
	lock l(m_);
	const result_head h{0, ++fence_, result_kind::fence, 0};

	for (;;) {
		l.unlock();
		const int rc = ch_channel_send(room_->results(), &h, sizeof(h), 10000000);
		l.lock();
		if (rc != -ETIMEDOUT)
			break;
		while (!is_reading_ && read_some(l, CH_TRY))
			;
	}
	wait_until(l, [&] { return static_cast<std::int32_t>(fence_seen_ - h.serial) >= 0 || is_broken_; },
		   deadline(CH_FOREVER));
}

held_message::~held_message()
{
	*account -= counted;
	ch_channel_release(in->results(), &m);
}

} // namespace ch::detail

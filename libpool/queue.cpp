// SPDX-License-Identifier: Apache-2.0
// queue.cpp - a queue's life, and one process's use of it. queue.h says what lies in shared memory.
#include "queue.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <pool/chunk.hpp>
#include <pool/wait.hpp>
#include <unistd.h>

namespace ch::detail {
namespace {

descriptor descr_of(const channel_handle &c)
{
	return detail::descr_of<ch_channel, ch_channel_get_descr>(c.get());
}

channel_handle make_channel(ch_pool *pool, const queue_options &o, std::size_t capacity)
{
	ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	ch_channel *c = nullptr;

	attr.capacity = static_cast<std::uint32_t>(capacity);
	attr.inline_max = std::max(o.inline_max, 32u); // a nudge, too, travels in the ring
	attr.spin_ns = o.spin_ns;
	attr.flags = o.acknowledged ? CH_CHANNEL_ACKNOWLEDGED : 0;
	check(ch_channel_create(pool, &attr, &c));
	return channel_handle(c);
}

channel_handle attach_channel(const descriptor &d)
{
	ch_channel *c = nullptr;

	check(ch_channel_attach(&d, &c));
	return channel_handle(c);
}

ch_pool *make_pool(std::size_t len)
{
	ch_pool_attr attr = CH_POOL_ATTR_INIT;
	ch_pool *p = nullptr;

	attr.len = len;
	check(ch_pool_create(&attr, &p));
	return p;
}

bool has_ended(long rc)
{
	return rc == -EPIPE || rc == -ESTALE;
}

} // namespace

queue_page::~queue_page()
{
	if (!memory)
		return;
	ch.reset();
	ch_pool_destroy(memory);
}

// ---- life

queue_core::queue_core(const queue_options &o) : creator_(getpid())
{
	if (o.levels < 1 || o.levels > queue_head::max_levels || (!o.capacity && o.levels > 1) || o.capacity > 1u << 20)
		throw error(EINVAL, "queue: 1 to 8 levels, only one without a limit, and a capacity of at most 2^20");
	try {
		make(o);
	} catch (...) {
		release();
		throw;
	}
}

queue_core::queue_core(const descriptor &d)
{
	try {
		attach(d);
	} catch (...) {
		release();
		throw;
	}
}

void queue_core::make(const queue_options &o)
{
	ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;

	attr.len = o.capacity ? offsetof(queue_head, table) : sizeof(queue_head);
	check(ch_segment_create(&attr, &segment_));
	check(ch_segment_get_descr(segment_, &descr_));
	head_ = static_cast<queue_head *>(ch_segment_addr(segment_)); // all zero
	head_->levels = o.levels;
	head_->is_acknowledged = o.acknowledged;
	head_->is_joinable = o.joinable;
	head_->is_unlimited = !o.capacity;
	head_->capacity = o.capacity;
	make_channels(o);
	// [Q1] pairs with [Q1] in attach(): all of the head is there.
	head_->magic.store(queue_head::magic_value, std::memory_order_release);
}

void queue_core::make_channels(const queue_options &o)
{
	queue_options small;

	small.inline_max = sizeof(page_request);
	memory_ = make_pool(o.capacity ? std::max<std::size_t>(o.memory, 1 << 20) : 1 << 20);
	bell_ = make_channel(memory_, small, 64);
	head_->bell = descr_of(bell_);
	if (o.capacity) {
		for (unsigned i = 0; i < o.levels; i++) {
			base_.push_back(make_channel(memory_, o, o.capacity));
			head_->base[i] = descr_of(base_.back());
		}
		return;
	}
	requests_ = make_channel(memory_, small, 256);
	head_->requests = descr_of(requests_);
	page_ref first = make_page(0, o);
	// The creator's other signals are for its own threads.
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	service_ = std::thread([this, o, first = std::move(first)] { serve(o, first); });
	pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

void queue_core::attach(const descriptor &d)
{
	descr_ = d;
	check(ch_segment_attach(&d, &segment_));
	head_ = static_cast<queue_head *>(ch_segment_addr(segment_));
	// [Q1] pairs with [Q1] in make().
	if (ch_segment_len(segment_) < offsetof(queue_head, table) ||
	    head_->magic.load(std::memory_order_acquire) != queue_head::magic_value ||
	    head_->levels > queue_head::max_levels ||
	    (head_->is_unlimited && ch_segment_len(segment_) < sizeof(queue_head)))
		throw error(EPROTO, "queue: the descriptor names something else");
	bell_ = attach_channel(head_->bell);
	if (head_->is_unlimited)
		requests_ = attach_channel(head_->requests);
	for (unsigned i = 0; i < head_->levels && !head_->is_unlimited; i++)
		base_.push_back(attach_channel(head_->base[i]));
}

bool queue_core::is_creator() const noexcept
{
	return creator_ && creator_ == getpid();
}

queue_core::~queue_core()
{
	release();
}

// The creator ends the queue; others leave it. A forked copy of the creator has handles, and threads only in name.
void queue_core::release() noexcept
{
	if (is_creator()) {
		if (service_.joinable()) {
			(void)ch_channel_close(requests_.get());
			service_.join();
		}
	} else if (service_.joinable()) {
		new std::thread(std::move(service_)); // of another process: never to be joined or destroyed
	}
	first_.reset();
	last_.reset();
	base_.clear();
	bell_.reset();
	requests_.reset();
	if (is_creator()) {
		ch_pool_destroy(memory_);
		ch_segment_destroy(segment_);
	} else {
		ch_segment_detach(segment_);
	}
}

// ---- pages

queue_core::page_ref queue_core::make_page(std::uint64_t number, const queue_options &o)
{
	auto p = std::make_shared<queue_page>();

	p->number = number;
	p->memory = make_pool(std::max<std::size_t>(o.memory, 1 << 20));
	// A sixth of the memory for the ring at most, so that neither it nor the memory is full long before the other.
	p->ch = make_channel(p->memory, o, std::clamp<std::size_t>(o.memory / 6 / (o.inline_max + 64), 16, 1 << 20));
	head_->table[number % queue_head::max_pages] = descr_of(p->ch);
	return p;
}

void queue_core::extend(std::uint64_t number, const queue_options &o, std::deque<page_ref> &mine)
{
	// Relaxed: this thread alone changes it.
	if (number != head_->tail.load(std::memory_order_relaxed) || mine.size() == queue_head::max_pages ||
	    head_->is_closed.load(std::memory_order_acquire)) // [Q3] pairs with [Q3]
		return;
	mine.push_back(make_page(number + 1, o));
	// [Q2] pairs with [Q2]; seq_cst, as is_closed: of this and close(), one sees the other.
	head_->tail.store(number + 1);
	(void)ch_channel_close((*(mine.rbegin() + 1))->ch.get());
	if (head_->is_closed.load())
		(void)ch_channel_close(mine.back()->ch.get());
}

// The creator's thread, which alone makes and ends pages.
void queue_core::serve(const queue_options &o, page_ref first) noexcept
{
	std::deque<page_ref> mine{std::move(first)};
	page_request rq;

	while (ch_channel_recv(requests_.get(), &rq, sizeof(rq), CH_FOREVER) == sizeof(rq)) {
		try {
			if (!rq.is_drained)
				extend(rq.number, o, mine);
			while (rq.is_drained && mine.size() > 1 && mine.front()->number <= rq.number) {
				mine.pop_front();
				// Relaxed: a hint; a page that is gone already says so.
				head_->head.store(mine.front()->number, std::memory_order_relaxed);
			}
		} catch (const std::exception &) {
			// No memory now: who waits for the page waits on, until there is room or somebody asks again.
		}
	}
}

void queue_core::request(std::uint64_t number, bool is_drained) noexcept
{
	const page_request rq{number, is_drained};

	(void)ch_channel_send(requests_.get(), &rq, sizeof(rq), CH_TRY); // full: others have asked
}

queue_core::page_ref queue_core::open_page(std::uint64_t number)
{
	auto p = std::make_shared<queue_page>();

	p->number = number;
	p->ch = attach_channel(head_->table[number % queue_head::max_pages]);
	return p;
}

// The first from page n on that has not ended: what is left is in there. The newest never ends while the queue lives.
queue_core::page_ref queue_core::open_from(std::uint64_t n)
{
	for (;; n++) {
		try {
			return open_page(n);
		} catch (const error &) {
			if (n >= head_->tail.load(std::memory_order_acquire)) // [Q2] pairs with [Q2] in extend()
				throw;
		}
	}
}

queue_core::page_ref queue_core::sending()
{
	// [Q2] pairs with [Q2] in extend(), a seq_cst store: the page's descriptor is there.
	const std::uint64_t tail = head_->tail.load(std::memory_order_acquire);
	const std::lock_guard<std::mutex> l(m_);

	if (!last_ || last_->number < tail)
		last_ = first_ && first_->number == tail ? first_ : open_from(tail);
	return last_;
}

queue_core::page_ref queue_core::receiving()
{
	const std::lock_guard<std::mutex> l(m_);

	if (!first_) {
		const std::uint64_t head = head_->head.load(std::memory_order_relaxed); // a hint

		first_ = last_ && last_->number == head ? last_ : open_from(head);
	}
	return first_;
}

// Page p is closed and drained; there is another.
void queue_core::move_on(const page_ref &p)
{
	request(p->number, true);
	const std::lock_guard<std::mutex> l(m_);
	if (first_ != p)
		return;
	first_ = last_ && last_->number == p->number + 1 ? last_ : open_from(p->number + 1);
}

// ---- values

long queue_core::send(ch_channel *c, std::size_t len, fill_fn fill, const void *value, std::int64_t timeout_ns)
{
	constexpr std::size_t most = 1024;
	alignas(64) std::byte small[most];
	ch_message m = CH_MESSAGE_INIT;

	if (len <= most && len <= ch_channel_get_inline_max(c)) {
		fill(value, {small, len});
		return ch_channel_send(c, small, len, timeout_ns);
	}
	const std::uint64_t begin = now_ns();
	long rc = ch_channel_claim(c, len, timeout_ns, &m);
	if (rc < 0)
		return rc;
	try {
		fill(value, {static_cast<std::byte *>(m.data), len});
	} catch (...) {
		ch_channel_abort(c, &m);
		throw;
	}
	if (timeout_ns > 0)
		timeout_ns = std::max<std::int64_t>(0, timeout_ns - static_cast<std::int64_t>(now_ns() - begin));
	rc = ch_channel_commit(c, &m, timeout_ns);
	if (rc < 0)
		ch_channel_abort(c, &m);
	return rc;
}

long queue_core::put_paged(std::size_t len, fill_fn fill, const void *value, std::int64_t timeout_ns)
{
	const countdown until(timeout_ns);

	for (;;) {
		const page_ref p = sending();
		long rc = send(p->ch.get(), len, fill, value, CH_TRY);

		if (rc == -EAGAIN || rc == -ENOSPC) {
			request(p->number, false);
			// Room may come before the page does; and asking may have met a full channel, or no memory.
			const std::int64_t left = until.left_ns();
			rc = send(p->ch.get(), len, fill, value, left < 0 ? 10000000 : std::min<std::int64_t>(left, 10000000));
			if ((rc == -ETIMEDOUT || rc == -EAGAIN || rc == -ENOSPC) && until.left_ns() != 0)
				continue;
		}
		// [Q2] pairs with [Q2] in extend(): what closed the page was its successor.
		if (has_ended(rc) && head_->tail.load(std::memory_order_acquire) != p->number)
			continue;
		return rc;
	}
}

// Whoever sleeps at the lowest level looks at all. If it is full, nobody sleeps.
void queue_core::nudge() noexcept
{
	ch_send_attr attr = CH_SEND_ATTR_INIT;

	attr.flags = CH_MESSAGE_TAGGED;
	(void)ch_channel_send_attr(base_[0].get(), nullptr, 0, &attr, CH_TRY);
}

bool queue_core::put(unsigned level, std::size_t len, fill_fn fill, const void *value, std::int64_t timeout_ns)
{
	if (level >= head_->levels)
		throw error(EINVAL, "queue: it has no such level");
	if (head_->is_joinable)
		head_->unfinished.fetch_add(1, std::memory_order_relaxed); // the send publishes it
	try {
		const long rc = head_->is_unlimited ? put_paged(len, fill, value, timeout_ns)
						    : send(base_[level].get(), len, fill, value, timeout_ns);
		if (rc == 0 && level)
			nudge();
		if (rc < 0 && head_->is_joinable)
			count_done();
		return rc == -ENOSPC && timeout_ns >= 0 ? false : check_wait(rc);
	} catch (const archive_error &) {
		if (head_->is_joinable)
			count_done();
		throw;
	}
}

// Who sends and is killed before it nudges has told nobody: so a sleeper of several levels looks once in a second.
long queue_core::take_any(std::int64_t timeout_ns, ch_message &m, ch_channel *&from)
{
	constexpr std::int64_t look_ns = 1000000000;
	const bool has_levels = base_.size() > 1;
	const countdown until(timeout_ns);

	for (;;) {
		const std::int64_t left = has_levels ? until.left_ns() : timeout_ns;
		const bool looks = has_levels && (left < 0 || left > look_ns);
		long rc = -EAGAIN;

		for (std::size_t i = base_.size(); i > 1 && (rc == -EAGAIN || rc == -EPIPE); i--)
			rc = ch_channel_take(from = base_[i - 1].get(), CH_TRY, &m);
		if (rc == -EAGAIN || rc == -EPIPE)
			rc = ch_channel_take(from = base_[0].get(), looks ? look_ns : left, &m);
		if (rc == -ETIMEDOUT && looks)
			continue;
		if (rc < 0 || !(m.flags & CH_MESSAGE_TAGGED))
			return rc;
		ch_channel_release(from, &m); // a nudge
	}
}

long queue_core::take_paged(std::int64_t timeout_ns, ch_message &m, page_ref &from)
{
	const countdown until(timeout_ns);

	for (;;) {
		from = receiving();
		const long rc = ch_channel_take(from->ch.get(), until.left_ns(), &m);

		// [Q2] pairs with [Q2] in extend(): what closed the page was its successor.
		if (!has_ended(rc) || head_->tail.load(std::memory_order_acquire) == from->number)
			return rc;
		move_on(from);
	}
}

taken queue_core::take(std::int64_t timeout_ns)
{
	auto in = std::make_unique<taken::inside>();
	long rc;

	if (head_->is_unlimited) {
		rc = take_paged(timeout_ns, in->m, in->page);
		in->ch = in->page->ch.get();
	} else {
		rc = take_any(timeout_ns, in->m, in->ch);
	}
	taken t;
	if (!check_wait(rc))
		return t;
	in->q = shared_from_this();
	t.in_ = std::move(in);
	return t;
}

void queue_core::close()
{
	if (!head_->is_unlimited) {
		for (const channel_handle &c : base_)
			check(ch_channel_close(c.get()));
	} else {
		head_->is_closed.store(1); // seq_cst: see extend(). [Q3] pairs with [Q3]
		for (std::uint64_t n = UINT64_MAX; n != head_->tail.load();) {
			const page_ref p = sending();
			const int rc = ch_channel_close(p->ch.get());

			n = p->number;
			if (!has_ended(rc) || n == head_->tail.load()) // else it was drained before we came to it
				check(rc);
		}
	}
}

std::size_t queue_core::count()
{
	std::size_t n = 0;

	for (const channel_handle &c : base_)
		n += static_cast<std::size_t>(check(ch_channel_count(c.get())));
	if (!head_->is_unlimited)
		return n;
	// [Q2] pairs with [Q2] in extend().
	const std::uint64_t last = head_->tail.load(std::memory_order_acquire);
	for (std::uint64_t i = receiving()->number; i <= last; i++) {
		try {
			const page_ref p = i == last ? sending() : open_page(i);

			n += static_cast<std::size_t>(std::max<ssize_t>(0, ch_channel_count(p->ch.get())));
		} catch (const error &) {
			// ended meanwhile: empty
		}
	}
	return n;
}

// ---- joining

void queue_core::count_done()
{
	const std::uint8_t ring = 0;

	// seq_cst, here and in join(): either the last one sees who joins, or that one sees 0.
	if (head_->unfinished.fetch_sub(1) == 1)
		for (std::uint32_t n = head_->joiners.load(); n; n--)
			(void)ch_channel_send(bell_.get(), &ring, 1, CH_TRY);
}

void queue_core::task_done()
{
	if (!head_->is_joinable)
		throw error(EINVAL, "queue: it was not made joinable");
	count_done();
}

bool queue_core::join(std::int64_t timeout_ns)
{
	const countdown until(timeout_ns);
	std::uint8_t ring;
	long rc = 0;

	if (!head_->is_joinable)
		throw error(EINVAL, "queue: it was not made joinable");
	head_->joiners.fetch_add(1);
	// A ring too many, for one who has left, makes this look once more.
	while (head_->unfinished.load() > 0 && rc != -ETIMEDOUT && rc != -EAGAIN && !has_ended(rc))
		rc = ch_channel_recv(bell_.get(), &ring, 1, until.left_ns());
	head_->joiners.fetch_sub(1);
	if (has_ended(rc))
		raise(rc);
	return head_->unfinished.load() <= 0;
}

} // namespace ch::detail

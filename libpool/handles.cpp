// SPDX-License-Identifier: Apache-2.0
// handles.cpp - what queue.hpp calls: values that were taken, and the queues that this process has attached.
#include "queue.h"

#include <cerrno>

namespace ch::detail {

// ---- what was taken

taken::taken(taken &&o) noexcept = default;

taken &taken::operator=(taken &&o) noexcept
{
	std::swap(in_, o.in_);
	return *this;
}

taken::~taken()
{
	if (in_ && in_->q->is_acknowledged() && in_->m.data)
		(void)ch_channel_requeue(in_->ch, &in_->m);
	if (in_)
		ch_channel_release(in_->ch, &in_->m);
}

std::span<const std::byte> taken::bytes() const noexcept
{
	return {static_cast<const std::byte *>(in_->m.data), in_->m.len};
}

bool taken::is_redelivered() const noexcept
{
	return in_->m.flags & CH_MESSAGE_REDELIVERED;
}

void taken::done() noexcept
{
	if (in_)
		ch_channel_release(in_->ch, &in_->m);
}

void taken::again()
{
	if (!in_ || ch_channel_requeue(in_->ch, &in_->m) < 0)
		throw error(EINVAL, "queue: only what an acknowledged queue gave, and is not done, goes back");
}

// ---- what the header calls

std::shared_ptr<queue_core> make_queue(const queue_options &o)
{
	return std::make_shared<queue_core>(o);
}

std::shared_ptr<queue_core> open_queue(const descriptor &d)
{
	return recent<queue_core>::open(d);
}

const descriptor &descr_of(const queue_core &q) noexcept
{
	return q.descr();
}

bool put(queue_core &q, unsigned level, std::size_t len, fill_fn fill, const void *value, std::int64_t timeout_ns)
{
	return q.put(level, len, fill, value, timeout_ns);
}

taken take(queue_core &q, std::int64_t timeout_ns)
{
	return q.take(timeout_ns);
}

void close_queue(queue_core &q)
{
	q.close();
}

std::size_t count(queue_core &q)
{
	return q.count();
}

std::size_t capacity_of(const queue_core &q) noexcept
{
	return q.capacity();
}

void task_done(queue_core &q)
{
	q.task_done();
}

bool join(queue_core &q, std::int64_t timeout_ns)
{
	return q.join(timeout_ns);
}

} // namespace ch::detail

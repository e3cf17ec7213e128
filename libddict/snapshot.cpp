// SPDX-License-Identifier: Apache-2.0
// snapshot.cpp - two threads and a queue between them.
#include "snapshot.hpp"
#include "directory.hpp"
#include "shard.hpp"
#include <csignal>
#include <pthread.h>
#include <unistd.h>

namespace ch::dd {

constexpr std::size_t batch_len = 256 << 10; // handed over at a time
constexpr std::size_t queue_len = 16 << 20;  // that may wait to be written
constexpr std::size_t copied_below = 4096;   // bytes of a value; longer ones are held on to

std::int64_t monotonic_ns();

std::thread quiet_thread(std::function<void()> run)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	std::thread t(std::move(run));

	pthread_sigmask(SIG_SETMASK, &before, nullptr);
	return t;
}

std::int64_t to_realtime(std::int64_t monotonic)
{
	return monotonic ? monotonic - monotonic_ns() + static_cast<std::int64_t>(realtime_ns()) : 0;
}

std::int64_t to_monotonic(std::int64_t realtime)
{
	return realtime
		       ? std::max<std::int64_t>(realtime - static_cast<std::int64_t>(realtime_ns()) + monotonic_ns(), 1)
		       : 0;
}

snapshot::snapshot(store &s, plan p, std::function<void()> poke) : plan_(std::move(p)), poke_(std::move(poke))
{
	view_.emplace(s, [this](const entry &e) { see(e); });
	writer_ = quiet_thread([this] { run(); });
}

snapshot::~snapshot()
{
	{
		std::lock_guard<std::mutex> lock(lock_);

		is_cancelled_ = true;
	}
	changed_.notify_all();
	writer_.join();
}

bool snapshot::can_go_on() const
{
	std::lock_guard<std::mutex> lock(lock_);

	return !is_at_end_ && queued_ < queue_len;
}

bool snapshot::is_written() const
{
	std::lock_guard<std::mutex> lock(lock_);

	return is_written_;
}

bool snapshot::is_done() const
{
	std::lock_guard<std::mutex> lock(lock_);

	return is_done_;
}

void snapshot::see(const entry &e)
{
	const version *v = store::seen(e, plan_.checkpoint);

	if (!v)
		return;
	const record r{e.klen, v->is_persistent ? record_persistent : 0, v->vlen, plan_.checkpoint,
		       to_realtime(e.expires)};

	next_.text.raw(&r, sizeof(r));
	next_.text.raw(e.v.addr, e.klen);
	if (v->storage && v->vlen >= copied_below)
		next_.pieces.push_back({next_.text.size(), v->storage, v->val()});
	else
		next_.text.raw(v->value, v->vlen);
	next_.len += sizeof(r) + e.klen + v->vlen;
	next_.keys++;
	if (next_.len >= batch_len)
		hand_over();
}

void snapshot::hand_over()
{
	{
		std::lock_guard<std::mutex> lock(lock_);

		queued_ += next_.len;
		queue_.push_back(std::move(next_));
	}
	next_ = batch();
	changed_.notify_all();
}

void snapshot::step()
{
	bool is_more = true;

	for (std::size_t before = next_.len, n = 0; is_more && next_.len >= before && n < batch_len / 64; n++) {
		before = next_.len;
		is_more = view_->step();
	}
	if (is_more)
		return;
	hand_over();
	{
		std::lock_guard<std::mutex> lock(lock_);

		is_whole_ = is_at_end_ = true;
		is_broken_ = view_->is_broken();
	}
	changed_.notify_all();
	view_.reset();
}

// Once: who waits for it may know.
void snapshot::end(int status, const char *text)
{
	{
		std::lock_guard<std::mutex> lock(lock_);

		if (is_written_)
			return;
		status_ = status;
		text_ = text;
		is_written_ = is_at_end_ = true;
		queue_.clear();
	}
	poke_();
}

void snapshot::run() noexcept
{
	try {
		write_all();
		publish();
	} catch (const error &e) {
		end(-e.code().value(), e.what());
	} catch (const std::exception &e) {
		end(-ENOMEM, e.what());
	}
	{
		std::lock_guard<std::mutex> lock(lock_);

		is_done_ = true;
	}
	poke_();
}

// Nobody waits for what is only removed.
void snapshot::publish()
{
	std::optional<manifest> old;
	const bool is_whole = plan_.where.publish(plan_.checkpoint, plan_.serial, plan_.nr_managers, old);

	end(0, "");
	if (old)
		plan_.where.remove(*old);
	if (is_whole)
		plan_.where.keep(plan_.keep, plan_.checkpoint);
}

void snapshot::write(shard_writer &to, batch &b)
{
	std::size_t at = 0;

	for (const piece &p : b.pieces) {
		to.append(b.text.data() + at, p.text_end - at);
		to.append(p.value.data(), p.value.size());
		at = p.text_end;
	}
	to.append(b.text.data() + at, b.text.size() - at);
	to.count_keys(b.keys);
}

void snapshot::write_all()
{
	const std::string name = plan_.where.shard_name(plan_.checkpoint, plan_.serial, plan_.m), half = name + ".tmp";
	const std::string path = plan_.where.dir() + "/" + half;

	try {
		shard_writer to(path, {plan_.serial, plan_.checkpoint, 0, std::vector<shard_sum>(plan_.nr_managers)},
				plan_.m);
		std::unique_lock<std::mutex> lock(lock_);

		for (;;) {
			changed_.wait(lock, [this] { return !queue_.empty() || is_whole_ || is_cancelled_; });
			if (is_cancelled_ || is_broken_)
				refuse(is_broken_ ? ENOMEM : ECANCELED, path + ": was given up");
			if (queue_.empty())
				break;
			batch b = std::move(queue_.front());

			queue_.pop_front();
			lock.unlock();
			write(to, b);
			lock.lock();
			const bool was_full = queued_ >= queue_len;

			queued_ -= b.len;
			if (was_full && queued_ < queue_len)
				poke_();
		}
		lock.unlock();
		to.finish();
		rename_in(plan_.where.dir(), half, name);
	} catch (...) {
		unlink(path.c_str());
		throw;
	}
}

} // namespace ch::dd

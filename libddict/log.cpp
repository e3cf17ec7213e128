// SPDX-License-Identifier: Apache-2.0
// log.cpp - writing a log, and reading it back up to where it ends.
#include "log.hpp"
#include "directory.hpp"
#include "place.hpp"
#include "snapshot.hpp"
#include <fcntl.h>
#include <tuple>
#include <unistd.h>

namespace ch::dd {

namespace {

constexpr std::uint64_t log_magic = UINT64_C(0x73676f6c64646331); // "1cddlogs"
constexpr std::uint32_t frame_magic = 0x6d726664;                 // "dfrm"
constexpr std::size_t frame_align = 8;
constexpr std::size_t write_from = 256 << 10; // bytes that are written without being asked for
constexpr std::size_t busy_from = 4 << 20;
constexpr std::size_t pending_max = 64 << 20;
constexpr std::size_t ahead_len = 1 << 20;
constexpr off_t reserve = 1 << 20; // bytes at a time

struct log_head {
	file_mark mark;
	log_id id;
	std::uint64_t checksum; // of what is before
};
struct frame {
	std::uint32_t magic, pad;
	std::uint64_t checksum; // of what comes behind it in the frame, and of the log's head: see sum_of
	std::uint64_t number;
	record r;
};
constexpr std::size_t unsummed = offsetof(frame, number);

std::uint64_t sum_of(const log_head &h)
{
	return key_hash(std::as_bytes(std::span(&h, 1)).first(offsetof(log_head, checksum)));
}

// A frame belongs to one log: after a power cut, a file may have at its end what a file before it had at that place.
std::uint64_t sum_of(bytes whole_frame, std::uint64_t sum_of_head)
{
	return key_hash(whole_frame.subspan(unsummed)) ^ sum_of_head;
}

} // namespace

change_log::change_log(const vault &v, const log_id &id, std::function<void()> poke)
    : appended_(sizeof(log_head)), dir_(v.dir()),
      file_(v.dir() + "/" + v.log_name(id.epoch, id.manager, id.number), O_WRONLY | O_CREAT | O_EXCL),
      poke_(std::move(poke)), written_(sizeof(log_head)), reserved_(sizeof(log_head))
{
	log_head h{{log_magic, file_version, byte_order}, id, 0};

	h.checksum = sum_of_head_ = sum_of(h);
	file_.write(std::as_bytes(std::span(&h, 1)), 0);
	file_.sync();
	sync_directory(dir_);
	writer_ = quiet_thread([this] { run(); });
}

change_log::~change_log()
{
	append({0, record_ended, 0, 0, 0}, {}, {});
	{
		std::lock_guard<std::mutex> lock(lock_);

		is_ending_ = true;
		wanted_ = appended_;
	}
	changed_.notify_all();
	writer_.join();
}

// With the lock held.
void change_log::add(const record &r, bytes key, bytes value)
{
	const std::size_t len = round_up(sizeof(frame) + key.size() + value.size(), frame_align);
	frame f{frame_magic, 0, 0, number_++, r};
	const std::size_t at = pending_.size();

	pending_.resize(at + len); // the padding is zero
	std::byte *to = pending_.data() + at;

	std::memcpy(to, &f, sizeof(f));
	if (!key.empty())
		std::memcpy(to + sizeof(f), key.data(), key.size());
	if (!value.empty())
		std::memcpy(to + sizeof(f) + key.size(), value.data(), value.size());
	f.checksum = sum_of({to, len}, sum_of_head_);
	std::memcpy(to, &f, sizeof(f));
	appended_ += len;
	if (at < write_from && pending_.size() >= write_from)
		changed_.notify_all();
}

void change_log::append(const record &r, bytes key, bytes value)
{
	std::unique_lock<std::mutex> lock(lock_);

	changed_.wait(lock, [this] { return pending_.size() < pending_max || status_ < 0; });
	if (status_ < 0)
		return;
	if (durable_ > noted_)
		add({0, record_synced, 0, noted_ = durable_, 0}, {}, {});
	add(r, key, value);
}

bool change_log::is_busy() const
{
	std::lock_guard<std::mutex> lock(lock_);

	return pending_.size() >= busy_from;
}

std::uint64_t change_log::sync()
{
	std::lock_guard<std::mutex> lock(lock_);

	wanted_ = appended_;
	changed_.notify_all();
	return wanted_;
}

bool change_log::is_durable(std::uint64_t upto) const
{
	std::lock_guard<std::mutex> lock(lock_);

	return durable_ >= upto;
}

int change_log::status() const
{
	std::lock_guard<std::mutex> lock(lock_);

	return status_;
}

std::string change_log::text() const
{
	std::lock_guard<std::mutex> lock(lock_);

	return text_;
}

void change_log::end()
{
	append({0, record_ended, 0, 0, 0}, {}, {});
	const std::uint64_t upto = sync();
	std::unique_lock<std::mutex> lock(lock_);

	changed_.wait(lock, [&] { return durable_ >= upto || status_ < 0; });
	if (status_ < 0)
		refuse(-status_, text_);
}

// Room ahead: a sync of what makes the file longer takes half as long again, as the file's length has to be durable
// too. Where there is no such room, it grows as it is written.
void change_log::reserve_up_to(std::uint64_t end)
{
	if (end <= reserved_)
		return;
	const auto more = static_cast<off_t>(end - reserved_) + reserve;

	reserved_ = fallocate(file_.fd(), 0, static_cast<off_t>(reserved_), more) == 0
			    ? reserved_ + static_cast<std::uint64_t>(more)
			    : end;
}

// One round: writes what is there, and syncs if somebody waits for it.
void change_log::work(std::unique_lock<std::mutex> &lock)
{
	const std::vector<std::byte> now = std::exchange(pending_, {});
	const std::uint64_t at = written_;
	const bool has_to_sync = wanted_ > durable_;

	lock.unlock();
	reserve_up_to(at + now.size());
	file_.write(now, at);
	if (has_to_sync)
		file_.sync();
	lock.lock();
	written_ = at + now.size();
	if (has_to_sync)
		durable_ = written_;
}

void change_log::run() noexcept
{
	std::unique_lock<std::mutex> lock(lock_);

	for (;;) {
		changed_.wait(lock,
			      [this] { return is_ending_ || wanted_ > durable_ || pending_.size() >= write_from; });
		const bool is_last = is_ending_, was_busy = pending_.size() >= busy_from;
		const std::uint64_t before = durable_;

		try {
			work(lock);
		} catch (const std::exception &e) {
			const auto *why = dynamic_cast<const error *>(&e);

			if (!lock.owns_lock())
				lock.lock();
			status_ = why ? -why->code().value() : -ENOMEM;
			text_ = e.what();
			pending_.clear();
		}
		changed_.notify_all();
		if (durable_ > before || was_busy || status_ < 0) {
			lock.unlock();
			poke_();
			lock.lock();
		}
		if (is_last || status_ < 0)
			break;
	}
	if (reserved_ > written_)
		std::ignore = ftruncate(file_.fd(), static_cast<off_t>(written_)); // else zeros stay behind it
}

// Its head is durable before anything comes behind it.
bool log_has_frames(const vault &v, const log_id &id)
{
	return file(v.dir() + "/" + v.log_name(id.epoch, id.manager, id.number), O_RDONLY).size() > sizeof(log_head);
}

log_reader::log_reader(const vault &v, const log_id &id)
    : file_(v.dir() + "/" + v.log_name(id.epoch, id.manager, id.number), O_RDONLY), size_(file_.size()),
      at_(sizeof(log_head))
{
	log_head h;

	if (file_.read_some(std::as_writable_bytes(std::span(&h, 1)), 0) != sizeof(h))
		refuse(EPROTO, path() + ": is truncated: it has no head");
	check_mark(path(), h.mark, log_magic);
	if (h.checksum != sum_of(h))
		refuse(EPROTO, path() + ": is damaged: the checksum of its head does not fit");
	if (h.id.epoch != id.epoch || h.id.number != id.number || h.id.manager != id.manager ||
	    h.id.nr_managers != id.nr_managers || h.id.stands_alone > 1)
		refuse(EPROTO, path() + ": belongs to another log than its name says");
	stands_alone_ = h.id.stands_alone;
	sum_of_head_ = h.checksum;
	posix_fadvise(file_.fd(), 0, 0, POSIX_FADV_SEQUENTIAL);
}

// Whether so many bytes from at_ on are there; then they are in the buffer.
bool log_reader::need(std::size_t len)
{
	if (len > size_ - at_)
		return false;
	if (at_ + len <= window_at_ + window_len_)
		return true;
	const std::size_t want = std::min<std::uint64_t>(std::max(len, ahead_len), size_ - at_);

	if (window_.size() < want)
		window_.resize(want);
	window_at_ = at_;
	window_len_ = file_.read_some(std::span(window_).first(want), at_);
	return window_len_ >= len;
}

bool log_reader::next(record &r, bytes &key, bytes &value)
{
	for (;;) {
		if (is_ended_ || !need(sizeof(frame)))
			break;
		const auto f = load<frame>(window_.data() + (at_ - window_at_));
		const std::uint64_t left = size_ - at_;

		if (f.magic != frame_magic || f.number != number_ || f.r.klen > key_max || f.r.vlen > left)
			break;
		const std::size_t len = round_up(sizeof(f) + f.r.klen + f.r.vlen, frame_align);

		if (!need(len))
			break;
		const bytes whole(window_.data() + (at_ - window_at_), len);

		if (sum_of(whole, sum_of_head_) != f.checksum)
			break;
		at_ += len;
		number_++;
		is_ended_ = f.r.flags & record_ended;
		if (f.r.flags & (record_synced | record_ended))
			continue;
		r = f.r;
		key = whole.subspan(sizeof(f), f.r.klen);
		value = whole.subspan(sizeof(f) + f.r.klen, f.r.vlen);
		return true;
	}
	if (!is_ended_)
		refuse_damage();
	return false;
}

// The log ends here. If a frame further on says that a sync reached beyond this place, it was damaged since.
void log_reader::refuse_damage()
{
	const std::uint64_t end = at_;

	while (need(sizeof(frame))) {
		const bytes there(window_.data() + (at_ - window_at_), window_at_ + window_len_ - at_);
		std::size_t i = 0;

		for (; i + sizeof(frame) <= there.size(); i += frame_align) {
			const auto f = load<frame>(there.data() + i);

			if (f.magic == frame_magic && f.r.flags == record_synced && f.r.at > end && !f.r.klen &&
			    !f.r.vlen && sum_of(there.subspan(i, sizeof(f)), sum_of_head_) == f.checksum)
				refuse(EPROTO, path() + ": is damaged at byte " + std::to_string(end) +
						       ": what lies behind it was acknowledged");
		}
		at_ += i;
	}
	at_ = end;
}

} // namespace ch::dd

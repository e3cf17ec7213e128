// SPDX-License-Identifier: Apache-2.0
// shard.cpp - writing and reading shard files.
#include "shard.hpp"
#include "directory.hpp"
#include "place.hpp"
#include <fcntl.h>

namespace ch::dd {

namespace {

constexpr std::uint64_t head_magic = UINT64_C(0x6472687364646331); // "1cddshrd"
constexpr std::uint64_t tail_magic = UINT64_C(0x6c69617464646331); // "1cddtail"

struct shard_head {
	file_mark mark;
	std::uint64_t serial, checkpoint;
	std::uint32_t manager, nr_managers;
	std::uint64_t checksum; // of what is before
};
struct block_head {
	std::uint64_t checksum; // of the rest of the block that is in use
	std::uint64_t serial;
	std::uint32_t number, len; // len: with this head
};
struct shard_tail {
	file_mark mark;
	std::uint64_t serial, nr_blocks;
	shard_sum sum;
	std::uint64_t checksum; // of what is before
};

template <class T> std::uint64_t sum_of(const T &t)
{
	return key_hash(std::as_bytes(std::span(&t, 1)).first(offsetof(T, checksum)));
}

std::uint64_t add(std::uint64_t sum, std::uint64_t more)
{
	const std::uint64_t both[] = {sum, more};

	return key_hash(std::as_bytes(std::span(both)));
}

shard_tail read_tail(const file &f)
{
	const std::uint64_t size = f.size();
	shard_tail t;

	if (size < 2 * io_align || size % io_align)
		refuse(EPROTO, f.path() + ": is truncated: it has " + std::to_string(size) + " bytes");
	if (f.read_some(std::as_writable_bytes(std::span(&t, 1)), size - io_align) != sizeof(t) ||
	    t.mark.magic != tail_magic)
		refuse(EPROTO, f.path() + ": is truncated or damaged: its tail is not there");
	check_mark(f.path(), t.mark, tail_magic);
	if (t.checksum != sum_of(t) || t.sum.size != size)
		refuse(EPROTO, f.path() + ": is damaged: the checksum of its tail does not fit");
	return t;
}

} // namespace

shard_sum read_sum(const std::string &path)
{
	return read_tail(file(path, O_RDONLY)).sum;
}

shard_writer::shard_writer(const std::string &path, const manifest &of, unsigned m) : file_(path), serial_(of.serial)
{
	shard_head h{{head_magic, file_version, byte_order},       of.serial, of.checkpoint, m,
		     static_cast<std::uint32_t>(of.shards.size()), 0};

	h.checksum = sum_of(h);
	std::memcpy(file_.room(), &h, sizeof(h));
	file_.write(sizeof(h));
}

void shard_writer::begin_block()
{
	block_ = file_.room();
	len_ = sizeof(block_head);
}

void shard_writer::end_block()
{
	block_head h{0, serial_, number_++, static_cast<std::uint32_t>(len_)};

	std::memcpy(block_, &h, sizeof(h));
	h.checksum = key_hash({block_ + sizeof(h.checksum), len_ - sizeof(h.checksum)});
	std::memcpy(block_, &h, sizeof(h));
	sum_.checksum = add(sum_.checksum, h.checksum);
	file_.write(len_);
	block_ = nullptr;
}

void shard_writer::append(const void *from, std::size_t len)
{
	const auto *at = static_cast<const std::byte *>(from);

	while (len) {
		if (!block_)
			begin_block();
		const std::size_t n = std::min(len, io_block - len_);

		std::memcpy(block_ + len_, at, n);
		len_ += n;
		at += n;
		len -= n;
		if (len_ == io_block)
			end_block();
	}
}

void shard_writer::finish()
{
	if (block_)
		end_block();
	shard_tail t{{tail_magic, file_version, byte_order}, serial_, number_, sum_, 0};

	t.sum.size = file_.size() + io_align;
	t.checksum = sum_of(t);
	std::memcpy(file_.room(), &t, sizeof(t));
	file_.write(sizeof(t));
	file_.finish();
}

shard_reader::shard_reader(const vault &v, const manifest &of, unsigned m)
    : file_(v.shard_path(of, m), O_RDONLY), serial_(of.serial), left_(0), wanted_(of.shards[m]), block_(io_block)
{
	const std::uint64_t size = file_.size();
	shard_head h;

	if (size != wanted_.size)
		refuse(EPROTO, file_.path() + ": is truncated or not the one that belongs here: it has " +
				       std::to_string(size) + " bytes, not " + std::to_string(wanted_.size));
	if (file_.read_some(std::as_writable_bytes(std::span(&h, 1)), 0) != sizeof(h))
		refuse(EPROTO, file_.path() + ": is truncated");
	check_mark(file_.path(), h.mark, head_magic);
	if (h.checksum != sum_of(h))
		refuse(EPROTO, file_.path() + ": is damaged: the checksum of its head does not fit");
	const shard_tail t = read_tail(file_);

	if (h.serial != of.serial || t.serial != of.serial || h.checkpoint != of.checkpoint || h.manager != m ||
	    h.nr_managers != of.shards.size() || t.sum.checksum != wanted_.checksum || t.sum.keys != wanted_.keys)
		refuse(EPROTO, file_.path() + ": belongs to another checkpoint than its name says");
	left_ = size - 2 * io_align;
	for (unsigned i = 0; i < io_depth; i++)
		read_ahead(i * io_block);
}

void shard_reader::damaged(const char *what) const
{
	refuse(EPROTO, file_.path() + ": block " + std::to_string(number_) + " at byte " + std::to_string(at_) +
			       " is damaged: " + what);
}

// The disk reads while what it has read is put into the store. A block at a time: the kernel cuts longer wishes short.
void shard_reader::read_ahead(std::uint64_t by) const
{
	if (by < left_)
		posix_fadvise(file_.fd(), static_cast<off_t>(at_ + by), io_block, POSIX_FADV_WILLNEED);
}

// False at the end.
bool shard_reader::load_block()
{
	const std::size_t want = std::min<std::uint64_t>(io_block, left_);

	if (!want)
		return false;
	read_ahead(io_depth * io_block);
	if (file_.read_some(std::span(block_).first(want), at_) != want)
		damaged("it ends too early");
	const auto h = load<block_head>(block_.data());

	if (h.len < sizeof(h) || round_up(h.len, io_align) != want || h.number != number_ || h.serial != serial_)
		damaged("its head makes no sense");
	if (h.checksum != key_hash({block_.data() + sizeof(h.checksum), h.len - sizeof(h.checksum)}))
		damaged("its checksum does not fit");
	sum_ = add(sum_, h.checksum);
	rest_ = bytes(block_).subspan(sizeof(h), h.len - sizeof(h));
	at_ += want;
	left_ -= want;
	number_++;
	return true;
}

bool shard_reader::next(record &r, std::vector<std::byte> &key)
{
	if (rest_.empty() && !load_block()) {
		if (sum_ != wanted_.checksum || keys_ != wanted_.keys)
			damaged("the blocks are not those that were written");
		return false;
	}
	read(reinterpret_cast<std::byte *>(&r), sizeof(r));
	if (r.klen > key_max)
		damaged("it has a key that is too long");
	key.resize(r.klen);
	read(key.data(), r.klen);
	keys_++;
	return true;
}

void shard_reader::read(std::byte *to, std::size_t len)
{
	while (len) {
		if (rest_.empty() && !load_block())
			damaged("it ends within a record");
		const std::size_t n = std::min(len, rest_.size());

		if (to) {
			std::memcpy(to, rest_.data(), n);
			to += n;
		}
		rest_ = rest_.subspan(n);
		len -= n;
	}
}

void shard_reader::skip(std::size_t len)
{
	read(nullptr, len);
}

} // namespace ch::dd

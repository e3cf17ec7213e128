// SPDX-License-Identifier: Apache-2.0
/*
 * shard.hpp - the file of one manager in a persisted checkpoint: a head, blocks of a stream of records, a tail.
 *
 * | part  | bytes                     | holds                                                                        |
 * | head  | io_align                  | mark, serial, checkpoint, manager and how many there are, checksum           |
 * | block | io_block, the last fewer  | checksum of the rest, serial, number, length; then as much of the stream     |
 * | tail  | io_align                  | mark, serial, blocks, keys, size of the file, checksum of checksums, checksum |
 *
 * The stream is records: head, key, value. Nothing of a block is looked at before its checksum was found right; what
 * the tail says has to be what the manifest says. Checksums are XXH3, 64 bits.
 */
#pragma once
#include "vault.hpp"

namespace ch::dd {

// Before each key and value, in shards and in logs.
struct record {
	std::uint32_t klen, flags; // record_...
	std::uint64_t vlen;
	std::uint64_t at;     // checkpoint
	std::int64_t expires; // CLOCK_REALTIME, ns; 0: never
};
static_assert(sizeof(record) == 32, "the format of files: bump file_version");
inline constexpr std::uint32_t record_deleted = 1, record_persistent = 2;

class shard_writer {
public:
	shard_writer(const std::string &path, const manifest &of, unsigned m);
	void append(const void *from, std::size_t len);
	void count_keys(std::uint64_t nr) { sum_.keys += nr; }
	// Durable; its name is still the caller's affair.
	void finish();

private:
	void begin_block();
	void end_block();

	sequential_file file_;
	std::uint64_t serial_;
	shard_sum sum_{};
	std::byte *block_ = nullptr;
	std::size_t len_ = 0; // of what is in the block
	std::uint32_t number_ = 0;
};

class shard_reader {
public:
	// Checks head and tail; throws.
	shard_reader(const vault &v, const manifest &of, unsigned m);
	// False at the end. After it, the value has to be read or skipped.
	bool next(record &r, std::vector<std::byte> &key);
	void read(std::byte *to, std::size_t len);
	void skip(std::size_t len);

private:
	bool load_block();
	void read_ahead(std::uint64_t by) const;
	[[noreturn]] void damaged(const char *what) const;

	file file_;
	std::uint64_t serial_, left_; // bytes of blocks
	std::uint64_t at_ = io_align;
	shard_sum wanted_;
	std::uint64_t sum_ = 0, keys_ = 0;
	std::vector<std::byte> block_;
	bytes rest_; // of the block
	std::uint32_t number_ = 0;
};

// What a shard's tail says; throws if it is not whole.
shard_sum read_sum(const std::string &path);

} // namespace ch::dd

// SPDX-License-Identifier: Apache-2.0
// vault.hpp - the directory of a dictionary's files: what they are called, which of them belong together, and which
// are kept.
//
// A persisted checkpoint is one shard file from each manager and a manifest, which comes last, in one step: without it
// the shards are nothing. Writing a checkpoint again makes shards of another serial and then replaces the manifest, so
// whatever instant everything stops at, what was persisted before is whole.
#pragma once
#include "io.hpp"
#include <optional>
#include <vector>

namespace ch::dd {

// Pure data; whatever is on disk begins with magic, version and byte order, and ends with a checksum of the rest.
inline constexpr std::uint32_t file_version = 2, byte_order = 0x01020304;

struct file_mark {
	std::uint64_t magic;
	std::uint32_t version, order;
};

// What a manifest says of one shard, and what the shard's last block says itself.
struct shard_sum {
	std::uint64_t size, keys;
	std::uint64_t checksum; // of the checksums of its blocks
};

struct manifest {
	std::uint64_t serial, checkpoint;
	std::uint64_t when; // CLOCK_REALTIME, ns: the order in which they were written
	std::vector<shard_sum> shards;
};

// What a log's manifest says: whose logs count.
struct log_manifest {
	std::uint64_t epoch;
	std::uint32_t nr_managers, pad;
};

std::uint64_t realtime_ns();

// Throws EPROTO with the file's name and what is wrong if it is not one of ours.
void check_mark(const std::string &path, const file_mark &mark, std::uint64_t magic);

class vault {
public:
	explicit vault(std::string dir) : dir_(std::move(dir)) {}
	const std::string &dir() const { return dir_; }

	std::string shard_name(std::uint64_t checkpoint, std::uint64_t serial, unsigned m) const;
	std::string shard_path(const manifest &of, unsigned m) const
	{
		return dir_ + "/" + shard_name(of.checkpoint, of.serial, m);
	}
	std::string manifest_path(std::uint64_t checkpoint) const;

	// The checkpoints that have a manifest, in order.
	std::vector<std::uint64_t> ids() const;
	// The one that was written last; throws ENOENT.
	std::uint64_t newest() const;
	manifest read(std::uint64_t checkpoint) const;
	// If all shards are there, makes them a checkpoint; whether it did, and the one of the same number that it
	// replaced.
	bool publish(std::uint64_t checkpoint, std::uint64_t serial, unsigned nr,
		     std::optional<manifest> &out_old) const;
	// Removes shards that no manifest names any more.
	void remove(const manifest &of) const;
	// Removes all but so many checkpoints (0: all are kept), and this one.
	void keep(unsigned nr, std::uint64_t just_written) const;
	void remove(std::uint64_t checkpoint, std::uint64_t serial, unsigned m) const;
	// What an earlier run left half done. Nobody else may use the directory.
	void clean() const;

	std::string log_name(std::uint64_t epoch, unsigned m, std::uint64_t number) const;
	// The numbers of a manager's logs, in order.
	std::vector<std::uint64_t> logs(std::uint64_t epoch, unsigned m) const;
	bool has_log() const;
	log_manifest read_log() const; // throws ENOENT
	// From now on these logs count, and no others; those are removed.
	void publish_log(const log_manifest &of) const;

private:
	std::vector<std::string> names() const;
	std::vector<manifest> all() const; // that can be read

	std::string dir_;
};

} // namespace ch::dd

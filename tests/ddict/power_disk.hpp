// SPDX-License-Identifier: Apache-2.0
// power_disk.hpp - a disk whose power may be cut: what was asked of it, in order, and what may be on it afterwards.
//
// What is taken as promised is what fsync(2), fdatasync(2), rename(2) and the file systems' manuals have in common, and
// nothing that one of them does beyond that:
//   - what was written to a file before its last fdatasync, and its length then, is there;
//   - the entries of a directory are as they were at its last fsync, and each later creation, renaming and removal is
//     there or not, whatever became of the others, of the data, and of the directory's own entry;
//   - a renaming is there or not; or the new name is, and the old one still;
//   - a sector of 512 bytes is the old one or the new one.
// So of what was written since, each sector may be there or not, in any order, also where the file's new length is
// there; and where a sector is not, there may be zeros, noise, or what another file had at that place.
#pragma once
#include "../support/support.h"
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace power {

enum class did : std::uint32_t { create, write, set_size, sync_file, sync_dir, rename, remove, make_dir, note };

// One of them. In a record, text is what was written, the name (of a renaming, both, with a zero between), or the note.
struct step {
	did what;
	pid_t who; // thread
	std::uint64_t node, at, len, text;
};

// Shared by all processes that use the disk; in this order everything was done.
struct record {
	pthread_mutex_t lock; // held over each call and its note here
	char root[128];       // only what is below it
	std::uint64_t nr_steps, used;
	step steps[1 << 16];
	char text[std::size_t{192} << 20];

	std::string_view text_of(const step &s) const { return {text + s.text, s.len}; }
	void add(did what, std::uint64_t node, std::uint64_t at, std::string_view t);
	void note(std::string_view t); // takes the lock itself
};
extern record *recorded; // nullptr: nothing is

class content {
public:
	void write(std::uint64_t at, std::string_view bytes);
	void set_size(std::uint64_t size);
	std::uint64_t size() const { return size_; }
	std::string sector(std::uint64_t i) const; // zeros where there is none
	void save(const std::string &path) const;
	bool is_in(const std::string &path) const;
	static constexpr std::uint64_t sector_len = 512;

private:
	std::uint64_t size_ = 0;
	std::map<std::uint64_t, std::array<char, sector_len>> sectors_;
};

// The one directory with its files; without is_there, not even that.
struct tree {
	bool is_there = false;
	std::map<std::string, content> files;

	void save(const std::string &dir) const; // in place of what is there
	std::string differs_from(const std::string &dir) const;
};

class disk {
public:
	// Whether a sync does nothing, by its kind ("log", "log entry", "manifest name"...): a disk that promises less.
	using ignores = std::function<bool(const std::string &kind)>;

	explicit disk(const record &r, const tree &from = {}, ignores i = {});
	// False if it was a sync that does nothing.
	bool go_on(const step &s);
	tree now() const;
	// The power is cut.
	tree cut(std::uint64_t &seed) const;

private:
	struct node {
		content synced;
		std::vector<const step *> later;
		bool was_synced = false;
	};
	using file = std::shared_ptr<node>;
	using entries = std::map<std::string, file>;
	struct change { // of a directory
		did what;
		std::string name, other;
		file of;
		const step *by;
	};
	struct luck; // what becomes of a change that nothing made durable
	static void apply(entries &to, const change &c, bool keeps_old_name = false);
	content survivor(const node &n, luck &l) const;
	void write_some(content &to, const step &s, luck &l) const;
	std::string kind_of_sync(const step &s) const;
	bool sync(const step &s);

	const record &record_;
	ignores ignores_;
	entries synced_, now_;
	std::vector<change> later_;
	std::map<std::uint64_t, file> nodes_;
	std::map<pid_t, std::string> last_change_; // of the directory, by each thread
	bool was_made_ = false, is_made_ = false;  // durably, and at all
};

} // namespace power

// SPDX-License-Identifier: Apache-2.0
// io.hpp - files as persistence needs them: written in order, with several blocks under way, and durable when they say
// so; put in place under their name in one step. The only room that knows liburing.
#pragma once
#include "wire.hpp"
#include <memory>
#include <string>
#include <utility>

namespace ch::dd {

inline constexpr std::size_t io_align = 4096;    // of what is written past the page cache: place and length
inline constexpr std::size_t io_block = 1 << 20; // written at a time
inline constexpr unsigned io_depth = 8;          // blocks under way

// Throws ch::error with the code in errno, and a text that names the file: "PATH: what: why".
[[noreturn]] void refuse_file(const std::string &path, const char *what, int errnum);

class file {
public:
	file() = default;
	// Throws.
	file(const std::string &path, int flags);
	file(file &&o) noexcept : fd_(std::exchange(o.fd_, -1)), path_(std::move(o.path_)) {}
	file &operator=(file &&o) noexcept
	{
		std::swap(fd_, o.fd_);
		path_.swap(o.path_);
		return *this;
	}
	~file();
	int fd() const { return fd_; }
	const std::string &path() const { return path_; }
	std::uint64_t size() const;
	// All of them, or it throws; read_some gives less at the end of the file.
	void write(bytes b, std::uint64_t at) const;
	std::size_t read_some(std::span<std::byte> to, std::uint64_t at) const;
	void sync() const; // data, and what is needed to find it

private:
	int fd_ = -1;
	std::string path_;
};

// A new file, from its beginning to its end. Goes past the page cache where the file system can; uses io_uring, and
// where that is forbidden or was left out of the build, one plain write at a time.
class sequential_file {
public:
	explicit sequential_file(const std::string &path);
	sequential_file(const sequential_file &) = delete;
	sequential_file &operator=(const sequential_file &) = delete;
	~sequential_file();
	// io_block bytes for what comes next; waits until one of the blocks under way is written.
	std::byte *room();
	// So many of them, rounded up to io_align; the rest is zero.
	void write(std::size_t len);
	// Until everything is on the disk.
	void finish();
	std::uint64_t size() const { return at_; }

private:
	struct ring;
	struct block {
		std::size_t len = 0; // under way
		std::uint64_t at = 0;
	};
	void reap();
	void complete(unsigned b, int result);

	file file_;
	std::unique_ptr<ring> ring_; // none: plain writes
	struct free_aligned {
		void operator()(std::byte *p) const;
	};
	std::unique_ptr<std::byte[], free_aligned> memory_;
	block blocks_[io_depth];
	unsigned next_ = 0, under_way_ = 0;
	std::uint64_t at_ = 0, reserved_ = 0; // bytes of the file
};

// The directory's entries are durable.
void sync_directory(const std::string &dir);
// A small file, whole or not at all: written under another name, synced, renamed, and the directory synced.
void write_whole(const std::string &dir, const std::string &name, bytes b);
// Gives it its name; durably when the directory is synced.
void rename_in(const std::string &dir, const std::string &from, const std::string &to);

} // namespace ch::dd

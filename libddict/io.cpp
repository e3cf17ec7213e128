// SPDX-License-Identifier: Apache-2.0
// io.cpp - writing files, and making them durable.
#include "io.hpp"
#include "directory.hpp"
#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef HAVE_LIBURING
#include <liburing.h>
#endif

namespace ch::dd {

constexpr off_t reserve = 64 << 20; // bytes at a time

void refuse_file(const std::string &path, const char *what, int errnum)
{
	refuse(errnum, path + ": " + what + ": " + std::generic_category().message(errnum));
}

file::file(const std::string &path, int flags) : fd_(open(path.c_str(), flags | O_CLOEXEC, 0600)), path_(path)
{
	if (fd_ < 0)
		refuse_file(path, "cannot be opened", errno);
}

file::~file()
{
	if (fd_ >= 0)
		close(fd_);
}

std::uint64_t file::size() const
{
	struct stat st;

	if (fstat(fd_, &st) < 0)
		refuse_file(path_, "stat", errno);
	return static_cast<std::uint64_t>(st.st_size);
}

void file::write(bytes b, std::uint64_t at) const
{
	while (!b.empty()) {
		const ssize_t n = pwrite(fd_, b.data(), b.size(), static_cast<off_t>(at));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			refuse_file(path_, "cannot be written", n < 0 ? errno : EIO);
		b = b.subspan(static_cast<std::size_t>(n));
		at += static_cast<std::uint64_t>(n);
	}
}

std::size_t file::read_some(std::span<std::byte> to, std::uint64_t at) const
{
	std::size_t got = 0;

	while (got < to.size()) {
		const ssize_t n = pread(fd_, to.data() + got, to.size() - got, static_cast<off_t>(at + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			refuse_file(path_, "cannot be read", errno);
		if (n == 0)
			break;
		got += static_cast<std::size_t>(n);
	}
	return got;
}

void file::sync() const
{
	if (fdatasync(fd_) < 0)
		refuse_file(path_, "cannot be made durable", errno);
}

#ifdef HAVE_LIBURING
struct sequential_file::ring {
	io_uring u;

	static std::unique_ptr<ring> make()
	{
		auto r = std::make_unique<ring>();

		r->is_there = io_uring_queue_init(io_depth, &r->u, 0) == 0;
		return r->is_there ? std::move(r) : nullptr;
	}
	~ring()
	{
		if (is_there)
			io_uring_queue_exit(&u);
	}
	void submit(int fd, unsigned b, const std::byte *from, std::size_t len, std::uint64_t at)
	{
		io_uring_sqe *sqe = io_uring_get_sqe(&u); // there is one for each block

		io_uring_prep_write(sqe, fd, from, static_cast<unsigned>(len), at);
		io_uring_sqe_set_data64(sqe, b);
		while (io_uring_submit(&u) == -EINTR)
			;
	}
	// The next one that is done, and its result.
	unsigned await(int &result)
	{
		io_uring_cqe *cqe = nullptr;
		int err;

		while ((err = io_uring_wait_cqe(&u, &cqe)) == -EINTR)
			;
		check(err);
		const auto b = static_cast<unsigned>(io_uring_cqe_get_data64(cqe));

		result = cqe->res;
		io_uring_cqe_seen(&u, cqe);
		return b;
	}

private:
	bool is_there = false;
};
#else
struct sequential_file::ring {
	static std::unique_ptr<ring> make() { return nullptr; }
	void submit(int, unsigned, const std::byte *, std::size_t, std::uint64_t) {}
	unsigned await(int &result) { return result = 0; }
};
#endif

void sequential_file::free_aligned::operator()(std::byte *p) const
{
	std::free(p);
}

static file open_new(const std::string &path)
{
	constexpr int flags = O_WRONLY | O_CREAT | O_TRUNC;

	try {
		return file(path, flags | O_DIRECT);
	} catch (const error &e) {
		if (e.code().value() != EINVAL)
			throw;
		return file(path, flags); // a file system without it, tmpfs for one
	}
}

sequential_file::sequential_file(const std::string &path)
    : file_(open_new(path)), ring_(ring::make()),
      memory_(static_cast<std::byte *>(std::aligned_alloc(io_align, io_depth * io_block)))
{
	if (!memory_)
		throw std::bad_alloc();
}

// Nothing may be under way when the memory goes.
sequential_file::~sequential_file()
{
	while (under_way_) {
		int result;

		try {
			blocks_[ring_->await(result)].len = 0;
		} catch (const error &) {
			(void)memory_.release(); // the kernel may still read it
			return;
		}
		under_way_--;
	}
}

// What the kernel left undone, the plain way, which also says why.
void sequential_file::complete(unsigned b, int result)
{
	block &done = blocks_[b];
	const std::size_t written = result > 0 ? static_cast<std::size_t>(result) : 0;
	const bytes left(memory_.get() + b * io_block + written, std::exchange(done.len, 0) - written);

	// A file system that takes the flag and then no write with it.
	if (result == -EINVAL || written % io_align)
		fcntl(file_.fd(), F_SETFL, fcntl(file_.fd(), F_GETFL) & ~O_DIRECT);
	file_.write(left, done.at + written);
}

void sequential_file::reap()
{
	int result = 0;
	const unsigned b = ring_->await(result);

	under_way_--;
	complete(b, result);
}

std::byte *sequential_file::room()
{
	while (blocks_[next_].len)
		reap();
	return memory_.get() + next_ * io_block;
}

void sequential_file::write(std::size_t len)
{
	block &b = blocks_[next_];
	std::byte *from = memory_.get() + next_ * io_block;
	const std::size_t whole = round_up(len, io_align);

	std::memset(from + len, 0, whole - len);
	// Room ahead, so that writes under way need not take turns at making the file longer; where that cannot be had,
	// they do.
	if (at_ + whole > reserved_ && fallocate(file_.fd(), 0, static_cast<off_t>(at_), reserve) == 0)
		reserved_ = at_ + reserve;
	b = {whole, at_};
	if (ring_) {
		ring_->submit(file_.fd(), next_, from, whole, at_);
		under_way_++;
	} else {
		const ssize_t n = pwrite(file_.fd(), from, whole, static_cast<off_t>(at_));

		complete(next_, n < 0 ? -errno : static_cast<int>(n));
	}
	at_ += whole;
	next_ = (next_ + 1) % io_depth;
}

void sequential_file::finish()
{
	while (under_way_)
		reap();
	if (reserved_ > at_ && ftruncate(file_.fd(), static_cast<off_t>(at_)) < 0)
		refuse_file(file_.path(), "cannot be cut to its length", errno);
	file_.sync();
}

void sync_directory(const std::string &dir)
{
	const file d(dir, O_RDONLY | O_DIRECTORY);

	if (fsync(d.fd()) < 0)
		refuse_file(dir, "cannot be made durable", errno);
}

void rename_in(const std::string &dir, const std::string &from, const std::string &to)
{
	if (rename((dir + "/" + from).c_str(), (dir + "/" + to).c_str()) < 0)
		refuse_file(dir + "/" + from, "cannot be renamed", errno);
}

void write_whole(const std::string &dir, const std::string &name, bytes b)
{
	const std::string other = name + "." + std::to_string(getpid()) + ".tmp";
	const file f(dir + "/" + other, O_WRONLY | O_CREAT | O_TRUNC);

	f.write(b, 0);
	f.sync();
	rename_in(dir, other, name);
	sync_directory(dir);
}

} // namespace ch::dd

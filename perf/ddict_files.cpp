// SPDX-License-Identifier: Apache-2.0
// ddict_files.cpp - checkpoints to files and back, beside one plain write or read after the other of as many bytes,
// past the page cache, in the same directory; and flushes of the log beside plain appends, each synced.
#include "ddict_baseline.h"
#include <cstdlib>
#include <ddict/ddict.hpp>
#include <fcntl.h>
#include <filesystem>
#include <memory>
#include <unistd.h>

namespace bench {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t total = std::size_t{192} << 20, block = 1 << 20;

// Gone with the program.
class scratch {
public:
	scratch()
	{
		const char *tmp = std::getenv("TMPDIR");
		std::string name = std::string(tmp ? tmp : "/var/tmp") + "/ddict-bench-" + std::string(6, 'X');

		if (mkdtemp(name.data()))
			path = name;
	}
	~scratch()
	{
		if (!path.empty())
			fs::remove_all(path);
	}
	scratch(const scratch &) = delete;
	scratch &operator=(const scratch &) = delete;
	std::string path;
};

struct aligned {
	std::unique_ptr<char, void (*)(void *)> p{static_cast<char *>(std::aligned_alloc(4096, block)), std::free};
	aligned() { std::memset(p.get(), 7, block); }
};

class descriptor {
public:
	descriptor(const std::string &path, int flags) : fd(open(path.c_str(), flags | O_DIRECT | O_CLOEXEC, 0600))
	{
		if (fd < 0) // a file system without it
			fd = open(path.c_str(), flags | O_CLOEXEC, 0600);
		if (fd < 0)
			throw std::system_error(errno, std::generic_category(), path);
	}
	~descriptor() { close(fd); }
	descriptor(const descriptor &) = delete;
	descriptor &operator=(const descriptor &) = delete;
	int fd;
};

template <class F> sample bytes_a_second(std::size_t len, F &&f)
{
	const std::uint64_t start = now_ns();
	sample s;

	f();
	s.value = static_cast<double>(len) * 1e9 / static_cast<double>(now_ns() - start);
	return s;
}

sample plain_write(const std::string &path, std::size_t len)
{
	const aligned from;

	fs::remove(path);
	return bytes_a_second(len, [&] {
		const descriptor to(path, O_WRONLY | O_CREAT | O_EXCL);

		for (std::size_t at = 0; at < len; at += block)
			if (pwrite(to.fd, from.p.get(), block, static_cast<off_t>(at)) != block)
				throw std::runtime_error("a plain write failed");
		fdatasync(to.fd);
	});
}

sample plain_read(const std::string &path, std::size_t len)
{
	const aligned to;

	return bytes_a_second(len, [&] {
		const descriptor from(path, O_RDONLY);

		for (std::size_t at = 0; at < len; at += block)
			if (pread(from.fd, to.p.get(), block, static_cast<off_t>(at)) != block)
				throw std::runtime_error("a plain read failed");
	});
}

// A dictionary of 192 MiB in values of one length, and the directory of its files.
class stock {
public:
	stock(std::size_t len, unsigned managers) : nr(total / (len + sizeof(key_text)))
	{
		const std::vector<std::byte> value(len, std::byte{3});

		dict = ch::ddict_core::create({.managers = managers,
					       .memory = 3 * total,
					       .name = {},
					       .persist_path = dir.path + "/files",
					       .persist_count = 1});
		ch::ddict_core::put_batch batch(dict);

		for (std::size_t k = 0; k < nr; k++) {
			const key_text key = key_of(1, k);

			batch.add(std::as_bytes(std::span(key)), len,
				  [&](std::span<std::byte> to) { std::memcpy(to.data(), value.data(), to.size()); });
		}
		batch.finish();
	}
	std::string plain() const { return dir.path + "/plain"; }
	// So that what is read comes from the disk.
	void forget() const
	{
		for (const auto &e : fs::recursive_directory_iterator(dir.path))
			if (e.is_regular_file()) {
				const int fd = open(e.path().c_str(), O_RDONLY | O_CLOEXEC);

				posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
				close(fd);
			}
	}
	const scratch dir;
	std::size_t nr;
	ch::ddict_core dict;
};

void add_file_rows(std::size_t len, unsigned managers)
{
	// Made when the first of its rows is measured, gone with the last.
	const auto there = std::make_shared<std::unique_ptr<stock>>();
	const auto get = [=]() -> stock & {
		if (!*there)
			*there = std::make_unique<stock>(len, managers);
		return **there;
	};
	const std::string which = std::to_string(managers) + "_managers/" + std::to_string(len);

	add_row({"ddict/persist_" + which, "bytes/s; baseline: one plain O_DIRECT write after the other, and a sync",
		 [=] { return guarded([&] { return bytes_a_second(total, [&] { get().dict.persist(); }); }); },
		 [=] { return guarded([&] { return plain_write(get().plain(), total); }); }});
	add_row({"ddict/restore_" + which, "bytes/s; baseline: one plain O_DIRECT read after the other",
		 [=] {
			 return guarded([&] {
				 stock &s = get();

				 if (s.dict.persisted_ids().empty())
					 s.dict.persist();
				 s.forget();
				 return bytes_a_second(total, [&] { s.dict.restore(0); });
			 });
		 },
		 [=] {
			 return guarded([&] {
				 if (!fs::exists(get().plain()))
					 plain_write(get().plain(), total);
				 return plain_read(get().plain(), total);
			 });
		 }});
}

// Calls f until the time is over.
template <class F> sample times_a_second(F &&f)
{
	const counted c = run_timed([&](std::size_t) { return f(), std::size_t{1}; });
	sample s;

	s.value = static_cast<double>(c.done) * 1e9 / static_cast<double>(c.ns);
	return s;
}

sample flushes()
{
	const scratch dir;
	const auto d = ch::ddict<int, std::string>(
		{.managers = 1, .name = {}, .persist_path = dir.path + "/files", .persist_log = true});
	const std::string value(64, 'x');
	int k = 0;

	return times_a_second([&] {
		d.put(k++ % 100, value);
		d.flush();
	});
}

sample synced_appends()
{
	const scratch dir;
	const int fd = open((dir.path + "/plain").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	const std::string record(128, 'x');
	const sample s = times_a_second([&] {
		if (write(fd, record.data(), record.size()) < 0 || fdatasync(fd) < 0)
			throw std::runtime_error("a plain append failed");
	});

	close(fd);
	return s;
}

} // namespace

void add_files_rows()
{
	add_file_rows(64 << 10, 1);
	add_file_rows(64 << 10, 2);
	add_file_rows(1024, 2);
	add_row({"ddict/flush/64", "puts with a flush each/s; baseline: plain appends with a sync each",
		 [] { return guarded(flushes); }, [] { return guarded(synced_appends); }});
}

} // namespace bench

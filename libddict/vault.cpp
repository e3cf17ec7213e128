// SPDX-License-Identifier: Apache-2.0
// vault.cpp - names in a dictionary's directory, manifests, and what is removed when.
#include "vault.hpp"
#include "directory.hpp"
#include "place.hpp"
#include "shard.hpp"
#include <cinttypes>
#include <cstdio>
#include <ctime>
#include <dirent.h>
#include <fcntl.h>
#include <set>
#include <unistd.h>

namespace ch::dd {

namespace {

constexpr std::uint64_t manifest_magic = UINT64_C(0x666e616d64646331); // "1cddmanf"
constexpr std::uint64_t log_magic = UINT64_C(0x676f6c6d64646331);      // "1cddmlog"
constexpr const char *log_manifest_name = "log.manifest";

struct manifest_head {
	file_mark mark;
	std::uint64_t serial, checkpoint, when;
	std::uint32_t nr, pad;
};
struct log_manifest_file {
	file_mark mark;
	log_manifest of;
	std::uint64_t checksum;
};

// Formats a name; all of ours are short.
template <class... A> std::string name_of(const char *format, A... a)
{
	char text[128];

	std::snprintf(text, sizeof(text), format, a...);
	return text;
}

std::string read_whole(const std::string &path)
{
	const file f(path, O_RDONLY);
	std::string s(std::min<std::uint64_t>(f.size(), 1 << 20), '\0');

	s.resize(f.read_some(std::as_writable_bytes(std::span(s)), 0));
	return s;
}

bytes as_bytes(const std::string &s)
{
	return std::as_bytes(std::span(s));
}

// Appends the checksum of what is there.
void seal(std::string &s)
{
	const std::uint64_t sum = key_hash(as_bytes(s));

	s.append(reinterpret_cast<const char *>(&sum), sizeof(sum));
}

bool is_sealed(const std::string &s)
{
	const std::size_t len = s.size() - sizeof(std::uint64_t);

	return s.size() >= sizeof(std::uint64_t) &&
	       key_hash(as_bytes(s).first(len)) == load<std::uint64_t>(s.data() + len);
}

} // namespace

std::uint64_t realtime_ns()
{
	timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return static_cast<std::uint64_t>(t.tv_sec) * 1000000000 + static_cast<std::uint64_t>(t.tv_nsec);
}

void check_mark(const std::string &path, const file_mark &mark, std::uint64_t magic)
{
	if (mark.magic != magic)
		refuse(EPROTO, path + ": is not such a file of a dictionary");
	if (mark.order != byte_order)
		refuse(EPROTO, path + ": was written by a machine with another byte order");
	if (mark.version != file_version)
		refuse(EPROTO, path + ": has format version " + std::to_string(mark.version) + ", not " +
				       std::to_string(file_version));
}

std::string vault::shard_name(std::uint64_t checkpoint, std::uint64_t serial, unsigned m) const
{
	return name_of("checkpoint-%020" PRIu64 ".%016" PRIx64 ".%u", checkpoint, serial, m);
}

std::string vault::manifest_path(std::uint64_t checkpoint) const
{
	return dir_ + name_of("/checkpoint-%020" PRIu64 ".manifest", checkpoint);
}

std::vector<std::string> vault::names() const
{
	const std::unique_ptr<DIR, int (*)(DIR *)> d(opendir(dir_.c_str()), closedir);
	std::vector<std::string> all;

	if (!d)
		refuse_file(dir_, "cannot be opened", errno);
	while (const dirent *e = readdir(d.get()))
		all.emplace_back(e->d_name);
	return all;
}

std::vector<std::uint64_t> vault::ids() const
{
	std::vector<std::uint64_t> found;

	for (const std::string &name : names()) {
		std::uint64_t id;

		if (std::sscanf(name.c_str(), "checkpoint-%20" SCNu64 ".manifest", &id) == 1 &&
		    dir_ + "/" + name == manifest_path(id))
			found.push_back(id);
	}
	std::sort(found.begin(), found.end());
	return found;
}

manifest vault::read(std::uint64_t checkpoint) const
{
	const std::string path = manifest_path(checkpoint);

	if (access(path.c_str(), F_OK) < 0 && errno == ENOENT)
		refuse(ENOENT, dir_ + ": checkpoint " + std::to_string(checkpoint) + " was not persisted here");
	const std::string s = read_whole(path);

	if (s.size() < sizeof(manifest_head) + sizeof(std::uint64_t))
		refuse(EPROTO, path + ": is truncated");
	const auto h = load<manifest_head>(s.data());

	check_mark(path, h.mark, manifest_magic);
	if (s.size() != sizeof(h) + h.nr * sizeof(shard_sum) + sizeof(std::uint64_t) || !is_sealed(s) || !h.nr)
		refuse(EPROTO, path + ": is damaged: its checksum or length does not fit");
	manifest m{h.serial, h.checkpoint, h.when, std::vector<shard_sum>(h.nr)};

	std::memcpy(m.shards.data(), s.data() + sizeof(h), h.nr * sizeof(shard_sum));
	return m;
}

std::vector<manifest> vault::all() const
{
	std::vector<manifest> found;

	for (const std::uint64_t id : ids()) {
		try {
			found.push_back(read(id));
		} catch (const error &) {
			// Says so when it is restored; here it is none.
		}
	}
	std::sort(found.begin(), found.end(), [](const manifest &a, const manifest &b) { return a.when < b.when; });
	return found;
}

std::uint64_t vault::newest() const
{
	const std::vector<manifest> found = all();

	if (found.empty())
		refuse(ENOENT, dir_ + ": no checkpoint was persisted here");
	return found.back().checkpoint;
}

bool vault::publish(std::uint64_t checkpoint, std::uint64_t serial, unsigned nr, std::optional<manifest> &out_old) const
{
	const manifest_head h{{manifest_magic, file_version, byte_order}, serial, checkpoint, realtime_ns(), nr, 0};
	std::string s(reinterpret_cast<const char *>(&h), sizeof(h));

	for (unsigned m = 0; m < nr; m++) {
		const std::string path = dir_ + "/" + shard_name(checkpoint, serial, m);

		if (access(path.c_str(), F_OK) < 0)
			return false; // the last one who comes does it
		const shard_sum sum = read_sum(path);

		s.append(reinterpret_cast<const char *>(&sum), sizeof(sum));
	}
	seal(s);
	sync_directory(dir_); // all shards' names, whoever gave them: a manifest that is replaced cannot be had back
	try {
		if (manifest old = read(checkpoint); old.serial != serial)
			out_old = std::move(old);
	} catch (const error &) {
		// There is none.
	}
	write_whole(dir_, manifest_path(checkpoint).substr(dir_.size() + 1), as_bytes(s));
	return true;
}

void vault::remove(std::uint64_t checkpoint, std::uint64_t serial, unsigned m) const
{
	unlink((dir_ + "/" + shard_name(checkpoint, serial, m)).c_str());
}

void vault::remove(const manifest &of) const
{
	for (unsigned m = 0; m < of.shards.size(); m++)
		remove(of.checkpoint, of.serial, m);
}

// A manifest goes durably before its shards: what has a manifest is whole.
void vault::keep(unsigned nr, std::uint64_t just_written) const
{
	const std::vector<manifest> found = nr ? all() : std::vector<manifest>();

	for (std::size_t i = 0; i + nr < found.size(); i++) {
		if (found[i].checkpoint == just_written)
			continue;
		unlink(manifest_path(found[i].checkpoint).c_str());
		sync_directory(dir_);
		remove(found[i]);
	}
}

void vault::clean() const
{
	std::set<std::string> wanted;

	// What its last user renamed and removed before he was killed need not be durable; what is removed here would be.
	sync_directory(dir_);
	for (const std::uint64_t id : ids()) {
		const std::string prefix = shard_name(id, 0, 0).substr(0, sizeof("checkpoint-") - 1 + 20);

		try {
			const manifest of = read(id);

			for (unsigned m = 0; m < of.shards.size(); m++)
				wanted.insert(shard_name(id, of.serial, m));
		} catch (const error &) {
			for (const std::string &name : names()) // a damaged manifest: somebody may want to look
				if (name.compare(0, prefix.size(), prefix) == 0)
					wanted.insert(name);
		}
	}
	for (const std::string &name : names()) {
		std::uint64_t id, serial;
		unsigned m;
		const bool is_shard =
			std::sscanf(name.c_str(), "checkpoint-%20" SCNu64 ".%16" SCNx64 ".%u", &id, &serial, &m) == 3;
		const bool is_half = name.size() > 4 && name.compare(name.size() - 4, 4, ".tmp") == 0 &&
				     (name.compare(0, 11, "checkpoint-") == 0 || name.compare(0, 4, "log.") == 0);

		if (is_half || (is_shard && !wanted.count(name)))
			unlink((dir_ + "/" + name).c_str());
	}
}

std::string vault::log_name(std::uint64_t epoch, unsigned m, std::uint64_t number) const
{
	return name_of("log.%016" PRIx64 ".%u.%" PRIu64, epoch, m, number);
}

std::vector<std::uint64_t> vault::logs(std::uint64_t epoch, unsigned m) const
{
	std::vector<std::uint64_t> found;

	for (const std::string &name : names()) {
		std::uint64_t of, number;
		unsigned who;

		if (std::sscanf(name.c_str(), "log.%16" SCNx64 ".%u.%" SCNu64, &of, &who, &number) == 3 &&
		    name == log_name(epoch, m, number))
			found.push_back(number);
	}
	std::sort(found.begin(), found.end());
	return found;
}

bool vault::has_log() const
{
	return access((dir_ + "/" + log_manifest_name).c_str(), F_OK) == 0;
}

log_manifest vault::read_log() const
{
	const std::string path = dir_ + "/" + log_manifest_name;

	if (!has_log())
		refuse(ENOENT, dir_ + ": there is no log");
	const std::string s = read_whole(path);

	if (s.size() != sizeof(log_manifest_file))
		refuse(EPROTO, path + ": is truncated, or something else");
	const auto f = load<log_manifest_file>(s.data());

	check_mark(path, f.mark, log_magic);
	if (!is_sealed(s) || !f.of.nr_managers || f.of.nr_managers > managers_max)
		refuse(EPROTO, path + ": is damaged: its checksum does not fit");
	return f.of;
}

void vault::publish_log(const log_manifest &of) const
{
	struct {
		file_mark mark;
		log_manifest of;
	} f{{log_magic, file_version, byte_order}, of};
	std::string s(reinterpret_cast<const char *>(&f), sizeof(f));

	seal(s);
	write_whole(dir_, log_manifest_name, as_bytes(s));
	for (const std::string &name : names()) {
		std::uint64_t epoch, number;
		unsigned m;

		if (std::sscanf(name.c_str(), "log.%16" SCNx64 ".%u.%" SCNu64, &epoch, &m, &number) == 3 &&
		    epoch != of.epoch)
			unlink((dir_ + "/" + name).c_str());
	}
}

} // namespace ch::dd

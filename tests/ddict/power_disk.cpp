// SPDX-License-Identifier: Apache-2.0
// power_disk.cpp - the calls that change files, wrapped at the link and recorded; and what a power cut leaves of them.
#include "power_disk.hpp"
#include <algorithm>
#include <cstdarg>
#include <filesystem>
#include <pthread.h>
#include <utility>

namespace power {

record *recorded;

void record::add(did what, std::uint64_t n, std::uint64_t at, std::string_view t)
{
	if (nr_steps == std::size(steps) || used + t.size() > sizeof(text))
		abort(); // more than any of the tests does
	t.copy(text + used, t.size());
	steps[nr_steps++] = {what, static_cast<pid_t>(syscall(SYS_gettid)), n, at, t.size(), used};
	used += t.size();
}

void record::note(std::string_view t)
{
	pthread_mutex_lock(&lock);
	add(did::note, 0, 0, t);
	pthread_mutex_unlock(&lock);
}

namespace {

// Holds the record's lock over a call, sometimes a little later than it could.
class turn {
public:
	turn()
	{
		static thread_local std::uint64_t seed = static_cast<std::uint64_t>(syscall(SYS_gettid));

		if (rnd(&seed) % 4 == 0)
			short_nap();
		pthread_mutex_lock(&recorded->lock);
	}
	turn(const turn &) = delete;
	turn &operator=(const turn &) = delete;
	~turn()
	{
		const int err = errno;

		pthread_mutex_unlock(&recorded->lock);
		errno = err;
	}
};

bool is_ours(const char *path)
{
	return recorded && std::string_view(path).starts_with(recorded->root);
}

std::string path_of(int fd)
{
	char path[512];
	const ssize_t n = readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), path, sizeof(path) - 1);

	path[n > 0 ? n : 0] = '\0';
	return path;
}

struct stat stat_of(int fd)
{
	struct stat st {};

	fstat(fd, &st);
	return st;
}

std::string name_in(std::string_view path)
{
	return std::string(path.substr(path.rfind('/') + 1));
}

} // namespace
} // namespace power

using power::did;
using power::recorded;

extern "C" {
int __real_open(const char *path, int flags, ...);
ssize_t __real_pwrite(int fd, const void *buf, size_t len, off_t at);
int __real_fsync(int fd);
int __real_fdatasync(int fd);
int __real_ftruncate(int fd, off_t len);
int __real_fallocate(int fd, int mode, off_t at, off_t len);
int __real_rename(const char *from, const char *to);
int __real_unlink(const char *path);
int __real_mkdir(const char *path, mode_t mode);

int __wrap_open(const char *path, int flags, ...)
{
	va_list ap;

	va_start(ap, flags);
	const int mode = flags & O_CREAT ? va_arg(ap, int) : 0;
	va_end(ap);
	if (!power::is_ours(path) || !(flags & (O_CREAT | O_TRUNC)))
		return __real_open(path, flags, mode);
	const power::turn t;
	const bool was_there = access(path, F_OK) == 0;
	const int fd = __real_open(path, flags, mode);

	if (fd >= 0 && !was_there)
		recorded->add(did::create, power::stat_of(fd).st_ino, 0, power::name_in(path));
	else if (fd >= 0 && flags & O_TRUNC)
		recorded->add(did::set_size, power::stat_of(fd).st_ino, 0, "");
	return fd;
}
ssize_t __wrap_pwrite(int fd, const void *buf, size_t len, off_t at)
{
	if (!recorded || !power::is_ours(power::path_of(fd).c_str()))
		return __real_pwrite(fd, buf, len, at);
	const power::turn t;
	const ssize_t n = __real_pwrite(fd, buf, len, at);

	if (n > 0)
		recorded->add(did::write, power::stat_of(fd).st_ino, static_cast<std::uint64_t>(at),
			      {static_cast<const char *>(buf), static_cast<std::size_t>(n)});
	return n;
}
static int synced(int fd, int (*real)(int))
{
	const std::string path = recorded ? power::path_of(fd) : "";

	if (!power::is_ours(path.c_str()))
		return real(fd);
	const power::turn t;
	const struct stat st = power::stat_of(fd);
	const int rc = real(fd);

	if (rc == 0)
		recorded->add(S_ISDIR(st.st_mode) ? did::sync_dir : did::sync_file, st.st_ino, 0,
			      path == recorded->root ? "" : power::name_in(path));
	return rc;
}
int __wrap_fsync(int fd)
{
	return synced(fd, __real_fsync);
}
int __wrap_fdatasync(int fd)
{
	return synced(fd, __real_fdatasync);
}
static int sized(int fd, std::uint64_t size, const std::function<int()> &real)
{
	if (!recorded || !power::is_ours(power::path_of(fd).c_str()))
		return real();
	const power::turn t;
	const int rc = real();

	if (rc == 0)
		recorded->add(did::set_size, power::stat_of(fd).st_ino, size, "");
	return rc;
}
int __wrap_ftruncate(int fd, off_t len)
{
	return sized(fd, static_cast<std::uint64_t>(len), [=] { return __real_ftruncate(fd, len); });
}
int __wrap_fallocate(int fd, int mode, off_t at, off_t len)
{
	const std::uint64_t size = std::max<std::uint64_t>(static_cast<std::uint64_t>(power::stat_of(fd).st_size),
							   static_cast<std::uint64_t>(at + len));

	// In memory, which is where the tests' files are, room ahead would have to be filled with zeros.
	if (recorded && power::is_ours(power::path_of(fd).c_str()))
		return sized(fd, size, [=] { return __real_ftruncate(fd, static_cast<off_t>(size)); });
	return __real_fallocate(fd, mode, at, len);
}
int __wrap_rename(const char *from, const char *to)
{
	if (!power::is_ours(from))
		return __real_rename(from, to);
	const power::turn t;
	const int rc = __real_rename(from, to);

	if (rc == 0)
		recorded->add(did::rename, 0, 0, power::name_in(from) + std::string(1, '\0') + power::name_in(to));
	return rc;
}
int __wrap_unlink(const char *path)
{
	if (!power::is_ours(path))
		return __real_unlink(path);
	const power::turn t;
	const int rc = __real_unlink(path);

	if (rc == 0)
		recorded->add(did::remove, 0, 0, power::name_in(path));
	return rc;
}
int __wrap_mkdir(const char *path, mode_t mode)
{
	if (!power::is_ours(path))
		return __real_mkdir(path, mode);
	const power::turn t;
	const int rc = __real_mkdir(path, mode);

	if (rc == 0)
		recorded->add(did::make_dir, 0, 0, power::name_in(path));
	return rc;
}
// No calls that nobody sees: writes that are under way at one time are reaped before anything that has an order
// (sequential_file::finish), so what they may leave is what plain writes may.
int __wrap_io_uring_queue_init(unsigned, void *, unsigned)
{
	return -EPERM;
}
}

namespace power {

// ---- contents

void content::write(std::uint64_t at, std::string_view b)
{
	size_ = std::max(size_, at + b.size());
	while (!b.empty()) {
		const std::uint64_t off = at % sector_len;
		const std::size_t n = std::min<std::size_t>(b.size(), sector_len - off);

		b.copy(sectors_[at / sector_len].data() + off, n);
		b.remove_prefix(n);
		at += n;
	}
}

void content::set_size(std::uint64_t size)
{
	if (size < size_) {
		sectors_.erase(sectors_.lower_bound((size + sector_len - 1) / sector_len), sectors_.end());
		if (const auto last = sectors_.find(size / sector_len); last != sectors_.end())
			std::fill(last->second.begin() + size % sector_len, last->second.end(), '\0');
	}
	size_ = size;
}

std::string content::sector(std::uint64_t i) const
{
	const auto found = sectors_.find(i);

	return found == sectors_.end() ? std::string(sector_len, '\0')
				       : std::string(found->second.data(), found->second.size());
}

void content::save(const std::string &path) const
{
	const int fd = __real_open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	for (const auto &[i, bytes] : sectors_)
		if (__real_pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(i * sector_len)) < 0)
			abort();
	if (__real_ftruncate(fd, static_cast<off_t>(size_)) < 0)
		abort();
	close(fd);
}

bool content::is_in(const std::string &path) const
{
	std::FILE *f = std::fopen(path.c_str(), "re");
	std::string there(size_ + 1, '\1');

	if (!f)
		return false;
	bool is_same = std::fread(there.data(), 1, there.size(), f) == size_;

	std::fclose(f);
	for (std::uint64_t at = 0; is_same && at < size_; at += sector_len) {
		const std::size_t n = std::min(sector_len, size_ - at);

		is_same = there.compare(at, n, sector(at / sector_len), 0, n) == 0;
	}
	return is_same;
}

void tree::save(const std::string &dir) const
{
	std::filesystem::remove_all(dir);
	if (!is_there)
		return;
	std::filesystem::create_directory(dir);
	for (const auto &[name, c] : files)
		c.save(dir + "/" + name);
}

std::string tree::differs_from(const std::string &dir) const
{
	std::size_t nr = 0;

	if (is_there != std::filesystem::exists(dir))
		return dir;
	for (const auto &e : std::filesystem::directory_iterator(dir)) {
		const auto f = files.find(e.path().filename().string());

		nr++;
		if (f == files.end() || !f->second.is_in(e.path().string()))
			return e.path().string();
	}
	return nr == files.size() ? "" : dir;
}

// ---- what is durable

disk::disk(const record &r, const tree &from, ignores i)
    : record_(r), ignores_(std::move(i)), was_made_(from.is_there), is_made_(from.is_there)
{
	for (const auto &[name, c] : from.files) {
		synced_[name] = std::make_shared<node>();
		synced_[name]->synced = c;
		synced_[name]->was_synced = true;
	}
	now_ = synced_;
}

static std::string kind_of(const std::string &name)
{
	const bool is_log = name.starts_with("log."), is_manifest = name.find("manifest") != std::string::npos;

	return is_log ? (is_manifest ? "log manifest" : "log") : is_manifest ? "manifest" : "shard";
}

// Of a file, and of the directory: by what its caller did to it last.
std::string disk::kind_of_sync(const step &s) const
{
	const std::string name(record_.text_of(s));

	if (s.what == did::sync_file)
		return kind_of(name) == "log" && !nodes_.at(s.node)->was_synced ? "log head" : kind_of(name);
	const auto last = last_change_.find(s.who);

	return name.empty() ? "directory" : last == last_change_.end() ? "what was there" : last->second;
}

void disk::apply(entries &to, const change &c, bool keeps_old_name)
{
	if (c.what == did::remove || (c.what == did::rename && !keeps_old_name))
		to.erase(c.name);
	if (c.what == did::create)
		to[c.name] = c.of;
	if (c.what == did::rename)
		to[c.other] = c.of;
}

bool disk::sync(const step &s)
{
	const std::string kind = kind_of_sync(s);

	if (s.what == did::sync_file)
		nodes_.at(s.node)->was_synced = true;
	if (ignores_ && ignores_(kind))
		return false;
	if (s.what == did::sync_file) {
		node &n = *nodes_.at(s.node);

		for (const step *w : std::exchange(n.later, {}))
			if (w->what == did::write)
				n.synced.write(w->at, record_.text_of(*w));
			else
				n.synced.set_size(w->at);
	} else if (record_.text_of(s).empty()) {
		was_made_ = is_made_;
	} else {
		for (const change &c : std::exchange(later_, {}))
			apply(synced_, c);
	}
	return true;
}

bool disk::go_on(const step &s)
{
	const std::string_view text = record_.text_of(s);
	change c{s.what, std::string(text.substr(0, text.find('\0'))), "", nullptr, &s};

	switch (s.what) {
	case did::note:
		return true;
	case did::sync_file:
	case did::sync_dir:
		return sync(s);
	case did::write:
	case did::set_size:
		nodes_.at(s.node)->later.push_back(&s);
		return true;
	case did::make_dir:
		is_made_ = true;
		return true;
	case did::create:
		c.of = nodes_[s.node] = std::make_shared<node>();
		last_change_[s.who] = kind_of(c.name) + " entry";
		break;
	case did::rename:
		c.other = text.substr(text.find('\0') + 1);
		c.of = now_.at(c.name);
		last_change_[s.who] = kind_of(c.other) + " name";
		break;
	case did::remove:
		last_change_[s.who] = kind_of(c.name) + " removal";
		break;
	}
	apply(now_, c);
	later_.push_back(std::move(c));
	return true;
}

tree disk::now() const
{
	tree t{is_made_, {}};

	for (const auto &[name, n] : now_) {
		content &c = t.files[name] = n->synced;

		for (const step *w : n->later)
			if (w->what == did::write)
				c.write(w->at, record_.text_of(*w));
			else
				c.set_size(w->at);
	}
	return t;
}

// ---- a cut

struct disk::luck {
	std::uint64_t &seed;
	enum { none, all, some, before, but_one, only_one } policy;
	std::uint64_t chance; // of 8
	const step *which;    // for the last three
	std::uint64_t unit;   // sectors that share their fate
	unsigned filler;      // of what is missing behind the old end: zeros, noise, or what this file has there:
	const node *other;
	bool has_new_size;

	bool toss(std::uint64_t of_8) const { return rnd(&seed) % 8 < of_8; }
	// Whether it is there, and in part if it is data.
	bool takes(const step *s) const
	{
		switch (policy) {
		case none:
			return false;
		case all:
			return true;
		case some:
			return toss(chance);
		case before:
			return s < which || (s == which && toss(4));
		case but_one:
			return s != which;
		default:
			return s == which;
		}
	}
	bool is_torn(const step *s) const
	{
		return policy == some || ((policy == before || policy == but_one) && s == which);
	}
};

void disk::write_some(content &to, const step &s, luck &l) const
{
	const bool is_torn = l.is_torn(&s), is_whole = !is_torn && l.takes(&s);
	const std::uint64_t unit = content::sector_len * l.unit, old_end = to.size(), end = s.at + s.len;
	const std::string_view text = record_.text_of(s);

	for (std::uint64_t at = s.at; at < end; at += unit - at % unit) {
		const std::uint64_t n = std::min(end, at + unit - at % unit) - at;

		if (is_whole || (is_torn && l.toss(l.chance)))
			to.write(at, text.substr(at - s.at, n));
	}
	// The length came without the data.
	if (!is_whole && l.has_new_size && end > to.size())
		to.set_size(end);
	for (std::uint64_t i = old_end / content::sector_len + 1;
	     l.filler && (i + 1) * content::sector_len <= to.size(); i++) {
		std::string noise = l.other ? l.other->synced.sector(i) : std::string(content::sector_len, '\0');

		if (l.filler == 1)
			for (char &c : noise)
				c = static_cast<char>(rnd(&l.seed));
		if (to.sector(i) == std::string(content::sector_len, '\0'))
			to.write(i * content::sector_len, noise);
	}
}

content disk::survivor(const node &n, luck &l) const
{
	content c = n.synced;

	for (const step *w : n.later)
		if (w->what == did::write)
			write_some(c, *w, l);
		else if (l.takes(w))
			c.set_size(w->at);
	return c;
}

tree disk::cut(std::uint64_t &seed) const
{
	std::vector<const step *> loose;
	std::vector<const node *> all;

	for (const auto &[name, n] : now_) {
		loose.insert(loose.end(), n->later.begin(), n->later.end());
		all.push_back(n.get());
	}
	for (const change &c : later_)
		loose.push_back(c.by);
	luck l{seed,
	       static_cast<decltype(luck::policy)>(rnd(&seed) % 6),
	       1 + rnd(&seed) % 7,
	       loose.empty() ? nullptr : loose[rnd(&seed) % loose.size()],
	       rnd(&seed) % 2 ? 1u : 8u,
	       static_cast<unsigned>(rnd(&seed) % 3),
	       all.empty() ? nullptr : all[rnd(&seed) % all.size()],
	       rnd(&seed) % 2 == 0};
	tree t{was_made_ || (is_made_ && l.toss(4)), {}};
	entries there = synced_;

	for (const change &c : later_)
		if (l.takes(c.by))
			apply(there, c, l.toss(1));
	for (const auto &[name, n] : there)
		if (t.is_there)
			t.files[name] = survivor(*n, l);
	return t;
}

} // namespace power

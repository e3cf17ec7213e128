// SPDX-License-Identifier: Apache-2.0
// attach.cpp - segments are made and attached: names, headers and what in them is checked, before a byte is believed.
#include "config.h"
#include "backing.h"
#include "clock.h"
#include "crash.h"
#include "error.h"
#include "peer.h"
#include "segment.h"
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <new>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

namespace ch::core {

static constexpr u64 DEFAULT_LEN = u64{16} << 20;
static constexpr u32 DEFAULT_PEERS = 1024;
static constexpr size_t NAME_MAX_LEN = 200;

// ---- names and geometry

static u64 random_word() noexcept
{
	u64 r = 0;

	while (r == 0)
		if (getrandom(&r, sizeof(r), 0) != sizeof(r))
			r = static_cast<u64>(now_ns()) * 0x9e3779b97f4a7c15 ^ peer_self();
	return r;
}

int segment_check_name(const char *name) noexcept
{
	const size_t len = std::strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

	if (len == 0 || name[len] != '\0' || len > NAME_MAX_LEN)
		return fail(-EINVAL, "segment name: 1 to %zu letters, digits, '.', '_', '-'", NAME_MAX_LEN);
	return 0;
}

// A made-up name is its id in hexadecimal; of any other the id is a hash.
u64 segment_id_of(const char *name) noexcept
{
	if (std::strlen(name) == 16 && std::strspn(name, "0123456789abcdef") == 16)
		return std::strtoull(name, nullptr, 16);
	return XXH3_64bits(name, std::strlen(name));
}

void segment_path(u64 id, char *out, size_t cap) noexcept
{
	std::snprintf(out, cap, "/ch-%016llx", static_cast<unsigned long long>(id));
}

u64 segment_header_len(u32 max_peers) noexcept
{
	const u64 len = sizeof(segment_header) + used_bytes(max_peers) + (u64{max_peers} + 1) * sizeof(peer_slot);

	return round_up(len, PAGE);
}

// Everything a hostile or foreign file could get wrong, before a byte of it is used.
int segment_check_header(const segment_header *h, u64 file_len, const char *what) noexcept
{
	if (h->magic != SEGMENT_MAGIC)
		return fail(-EPROTO, "segment %s: this is none", what);
	if (h->version != LAYOUT_VERSION)
		return fail(-EPROTO, "segment %s has layout version %u, this library has %u", what, h->version, LAYOUT_VERSION);
	if (h->max_peers < 2 || h->max_peers > MAX_PEERS || h->user_off != segment_header_len(h->max_peers) ||
	    h->total_len != file_len || h->user_len % PAGE != 0 || h->user_len == 0 || h->user_len > file_len ||
	    h->user_off + h->user_len != file_len)
		return fail(-EPROTO, "segment %s is truncated or damaged (%llu bytes)", what,
			    static_cast<unsigned long long>(file_len));
	return 0;
}

// h is a private copy of the header at base, checked.
static ch_segment *segment_new(u8 *base, const segment_header &h) noexcept
{
	ch_segment *s = new (std::nothrow) ch_segment;

	if (!s)
		return nullptr;
	s->hdr = reinterpret_cast<segment_header *>(base);
	s->base = base;
	s->map_len = h.total_len;
	s->max_peers = h.max_peers;
	s->user_off = h.user_off;
	s->user_len = h.user_len;
	s->id = h.id;
	s->birth = h.birth;
	s->nonce = h.nonce;
	s->used = reinterpret_cast<shared<u64> *>(base + sizeof(segment_header));
	s->peers = reinterpret_cast<peer_slot *>(base + sizeof(segment_header) + used_bytes(h.max_peers));
	s->is_sparse = h.flags & SEGMENT_SPARSE;
	std::memcpy(s->name, h.name, sizeof(s->name));
	s->name[sizeof(s->name) - 1] = '\0';
	s->pool.seg = s;
	return s;
}

// ---- create

static void write_header(u8 *base, const ch_segment_attr &a, u64 id, u64 total, bool is_sparse) noexcept
{
	segment_header *h = reinterpret_cast<segment_header *>(base);

	h->magic = SEGMENT_MAGIC;
	h->version = LAYOUT_VERSION;
	h->max_peers = a.max_peers;
	h->id = id;
	h->birth = random_word();
	h->nonce = random_word();
	h->total_len = total;
	h->user_off = segment_header_len(a.max_peers);
	h->user_len = total - h->user_off;
	h->flags = (is_sparse ? SEGMENT_SPARSE : 0u) | (a.flags & CH_ANONYMOUS ? SEGMENT_NAMELESS : 0u);
	h->pid_ns = peer_pid_namespace();
	h->creator = peer_self();
	if (a.name)
		std::strcpy(h->name, a.name); // at most NAME_MAX_LEN
	else
		std::snprintf(h->name, sizeof(h->name), "%016llx", static_cast<unsigned long long>(id));
	CH_CRASH_POINT(segment_written);
	// [S1] pairs with [S2]: the header is whole before it says so.
	h->state.store(SEGMENT_READY, release);
}

int segment_read_attr(const ch_segment_attr *attr, ch_segment_attr &a) noexcept
{
	const int rc = read_attr(attr, &a, sizeof(a));

	if (rc < 0)
		return rc;
	if (a.max_peers == 0)
		a.max_peers = DEFAULT_PEERS;
	if (a.len == 0)
		a.len = DEFAULT_LEN;
	if (a.max_peers < 2 || a.max_peers > MAX_PEERS)
		return fail(-EINVAL, "segment: max_peers %u is not in 2...%u", a.max_peers, MAX_PEERS);
	if (a.len > u64{1} << 46)
		return fail(-EINVAL, "segment: %llu bytes is beyond any memory", static_cast<unsigned long long>(a.len));
	if (a.flags & ~(CH_ANONYMOUS | CH_HUGE_PAGES | CH_LOCKED | CH_GROUP | CH_NO_PREFAULT))
		return fail(-EINVAL, "segment: unknown flags %#x", a.flags);
	if (((a.flags & CH_ANONYMOUS) && a.name) || (a.group && !(a.flags & CH_GROUP)))
		return fail(-EINVAL, "segment: both a name and CH_ANONYMOUS, or a group without CH_GROUP");
	a.len = round_up(a.len, PAGE);
	return a.name ? segment_check_name(a.name) : 0;
}

// The process's side of a file that is mapped at base; takes over fd if it is to be kept. The caller adds it to the registry.
static int adopt(u8 *base, const segment_header &h, u32 flags, int fd, ch_segment **out) noexcept
{
	ch_segment *s = segment_new(base, h);

	if (!s) {
		munmap(base, h.total_len);
		return fail(-ENOMEM, "segment: no memory for the handle");
	}
	s->is_read_only = flags & CH_READ_ONLY;
	s->is_locked = flags & CH_LOCKED;
	if (h.flags & SEGMENT_NAMELESS) {
		s->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		if (s->fd < 0) {
			munmap(base, h.total_len);
			delete s;
			return fail(-errno, "segment: no descriptor for the file");
		}
	}
	*out = s;
	return 0;
}

// The length of the file: with huge pages a multiple of theirs.
static u64 file_len(const ch_segment_attr &a, u64 max_len) noexcept
{
	const u64 len = segment_header_len(a.max_peers) + (max_len > a.len ? round_up(max_len, PAGE) : a.len);
	const u64 huge = a.flags & CH_HUGE_PAGES ? huge_page_len() : 0;

	return huge ? round_up(len, huge) : len;
}

int segment_create(const ch_segment_attr &a, u64 max_len, ch_segment **out) noexcept
{
	const u64 id = a.name ? segment_id_of(a.name) : random_word(), len = file_len(a, max_len);
	const bool is_sparse = max_len > a.len;
	ch_segment *s = nullptr;
	char path[32];
	backing b;

	segment_path(id, path, sizeof(path));
	int rc = backing_create({a.flags & CH_ANONYMOUS ? nullptr : path, len,
				 is_sparse ? segment_header_len(a.max_peers) + PAGE : len, a.flags, a.group}, b);
	if (rc < 0)
		return rc == -EEXIST ? fail(-EEXIST, "segment %s: a segment has this name", a.name ? a.name : path) : rc;
	write_header(b.base, a, id, len, is_sparse);
	rc = adopt(b.base, *reinterpret_cast<segment_header *>(b.base), a.flags, b.fd, &s); // nobody else knows it yet
	close(b.fd); // from here on it is whose header says so
	if (rc == 0) {
		s->page_len = b.page_len;
		s->refs = 1;
		registry_add(s);
		rc = segment_join(s);
		if (rc >= 0) {
			*out = s;
			return 0;
		}
		segment_unref(s);
	}
	if (!(a.flags & CH_ANONYMOUS))
		shm_unlink(path);
	return rc;
}

// The file of a named segment again, or the kept one of a nameless one; a descriptor of the caller's own.
static int reopen(const ch_segment *seg, int mode) noexcept
{
	segment_header h;
	char path[32];

	if (seg->fd >= 0)
		return fcntl(seg->fd, F_DUPFD_CLOEXEC, 0);
	segment_path(seg->id, path, sizeof(path));
	const int fd = shm_open(path, mode | O_CLOEXEC, 0);
	if (fd >= 0 && (pread(fd, &h, sizeof(h), 0) != sizeof(h) || h.birth != seg->birth)) {
		close(fd);
		errno = ENOENT; // it is another of this name
		return -1;
	}
	return fd;
}

int segment_reserve(ch_segment *seg, u64 off, u64 len) noexcept
{
	const int fd = reopen(seg, O_RDWR);
	const int rc = fd < 0 ? fail(errno == ENOENT ? -ESTALE : -errno, "segment %s: cannot open its file", seg->name) :
				backing_reserve(fd, seg->user_off + off, len);

	if (fd >= 0)
		close(fd);
	return rc;
}

// ---- attach

// Reads and checks the header of an open file.
static int read_header(int fd, const char *what, segment_header &h) noexcept
{
	struct stat st;
	int rc = fstat(fd, &st) < 0 ? -errno : 0;

	if (rc == 0 && (!S_ISREG(st.st_mode) || pread(fd, &h, sizeof(h), 0) != sizeof(h)))
		rc = fail(-EPROTO, "segment %s is truncated", what);
	// [S2] pairs with [S1]. A creator that died half-way leaves a file without magic or not READY.
	if (rc == 0)
		rc = segment_check_header(&h, static_cast<u64>(st.st_size), what);
	const u32 state = h.state.load(acquire) & 0xff;
	if (rc == 0 && state != SEGMENT_READY && state != SEGMENT_RECLAIMING)
		rc = fail(state == SEGMENT_NEW ? -EPROTO : -ESTALE, "segment %s is not ready", what);
	return rc;
}

static int map_file(int fd, const segment_header &h, u32 flags, ch_segment **out) noexcept
{
	u8 *base = nullptr;
	const int rc = backing_map(fd, h.total_len, flags, h.flags & SEGMENT_SPARSE, &base);

	return rc < 0 ? rc : adopt(base, h, flags, fd, out);
}

// Maps an existing object after checking it. name is what the user called it, or NULL.
static int map_existing(u64 id, const char *name, u32 flags, ch_segment **out) noexcept
{
	char path[32];
	segment_header h;

	segment_path(id, path, sizeof(path));
	const char *what = name ? name : path + 1;
	const int fd = shm_open(path, (flags & CH_READ_ONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC, 0);
	if (fd < 0)
		return errno == ENOENT ? fail(name ? -ENOENT : -ESTALE, "segment %s: there is none", what) :
		       errno == EACCES ? fail(-EACCES, "segment %s: no permission", what) :
					 fail(-errno, "segment %s: cannot open", what);
	int rc = read_header(fd, what, h);
	if (rc == 0 && h.id != id)
		rc = fail(-EPROTO, "segment %s is damaged", what);
	rc = rc < 0 ? rc : map_file(fd, h, flags, out);
	close(fd);
	return rc;
}

static ch_segment *find(u64 id, u64 birth, bool is_read_only) noexcept
{
	for (ch_segment *s = registry_first(); s; s = s->next)
		if (s->id == id && s->is_read_only == is_read_only &&
		    (birth ? s->birth == birth : s->hdr->state.load(relaxed) != SEGMENT_DESTROYED))
			return s; // relaxed: a hint which of two to take, checked by the caller
	return nullptr;
}

// Of one that this process has, another reference; of a new one, the first. With rc < 0 a new one goes again.
static int finish_attach(ch_segment *s, bool is_new, int rc, ch_segment **out) noexcept
{
	if (is_new) {
		s->refs = 1;
		registry_add(s);
	}
	if (rc == 0 && !s->is_read_only)
		rc = segment_join(s);
	if (rc >= 0 && is_new && s->hdr->state.load(acquire) == SEGMENT_DESTROYED) // by a reclaimer: reclaim.cpp
		rc = fail(-ESTALE, "segment %s was destroyed", s->name);
	if (rc < 0 && is_new)
		segment_unref(s);
	if (rc < 0)
		return rc;
	s->refs += !is_new;
	*out = s;
	return 0;
}

static int attach_id(u64 id, u64 birth, u64 nonce, const char *name, u32 flags, ch_segment **out) noexcept
{
	ch_segment *s = find(id, birth, flags & CH_READ_ONLY);
	const bool is_new = !s;
	int rc = is_new ? map_existing(id, name, flags, &s) : 0;

	if (rc < 0)
		return rc;
	if (birth != 0 && s->birth != birth)
		rc = fail(-ESTALE, "segment %s was destroyed and made anew", s->name);
	else if (birth != 0 && s->nonce != nonce)
		rc = fail(-EACCES, "segment %s: forged descriptor", s->name);
	else if (s->hdr->state.load(relaxed) == SEGMENT_DESTROYED) // [S2] was done when it was mapped
		rc = fail(-ESTALE, "segment %s was destroyed", s->name);
	return finish_attach(s, is_new, rc, out);
}

static int attach_fd(int fd, u32 flags, ch_segment **out) noexcept
{
	segment_header h;
	int rc = backing_is_safe(fd) ? read_header(fd, "of a file descriptor", h) :
				       fail(-EACCES, "segment: the file can shrink; it must be sealed, or lie in /dev/shm");

	if (rc < 0)
		return rc;
	ch_segment *s = find(h.id, h.birth, flags & CH_READ_ONLY);
	const bool is_new = !s;
	rc = is_new ? map_file(fd, h, flags, &s) : 0;
	return rc < 0 ? rc : finish_attach(s, is_new, rc, out);
}

static int check_attach_flags(u32 flags) noexcept
{
	return flags & ~(CH_READ_ONLY | CH_LOCKED | CH_HUGE_PAGES | CH_NO_PREFAULT | CH_PREFAULT) ?
		       fail(-EINVAL, "segment: unknown flags %#x", flags) :
		       0;
}

int segment_attach(const descr &d, u32 flags, ch_segment **out) noexcept
{
	const int rc = check_attach_flags(flags);

	if (rc < 0)
		return rc;
	if (d.node != node_id())
		return fail(-EHOSTUNREACH, "descriptor: its segment is on another node");
	registry_init_locked();
	return attach_id(d.segment, d.birth, d.nonce, nullptr, flags, out);
}

} // namespace ch::core

using namespace ch::core;

int ch_segment_create(const struct ch_segment_attr *attr, struct ch_segment **out_seg)
{
	ch_segment_attr a;
	int rc = segment_read_attr(attr, a);

	if (rc == 0 && !out_seg)
		rc = fail(-EINVAL, "segment: out_seg is NULL");
	if (rc < 0)
		return rc;
	registry_lock lock;
	registry_init_locked();
	return segment_create(a, 0, out_seg);
}

int ch_segment_attach(const struct ch_descr *descr, struct ch_segment **out_seg)
{
	return ch_segment_attach_with(descr, nullptr, 0, out_seg);
}

int ch_segment_attach_name(const char *name, struct ch_segment **out_seg)
{
	return ch_segment_attach_with(nullptr, name, 0, out_seg);
}

int ch_segment_attach_with(const struct ch_descr *descr, const char *name, uint32_t flags, struct ch_segment **out_seg)
{
	ch::core::descr d;
	int rc = check_attach_flags(flags);

	if (rc == 0 && (!descr == !name || !out_seg))
		rc = fail(-EINVAL, "segment: NULL, or both a descriptor and a name");
	if (rc == 0)
		rc = name ? segment_check_name(name) : descr_open(descr, d);
	if (rc < 0)
		return rc;
	registry_lock lock;
	registry_init_locked();
	return name ? attach_id(segment_id_of(name), 0, 0, name, flags, out_seg) : segment_attach(d, flags, out_seg);
}

int ch_segment_attach_fd(int fd, uint32_t flags, struct ch_segment **out_seg)
{
	const int rc = check_attach_flags(flags);

	if (rc < 0)
		return rc;
	if (fd < 0 || !out_seg)
		return fail(-EINVAL, "segment: fd %d, or out_seg is NULL", fd);
	registry_lock lock;
	registry_init_locked();
	return attach_fd(fd, flags, out_seg);
}

int ch_segment_get_fd(struct ch_segment *seg)
{
	if (!seg)
		return fail(-EINVAL, "segment: NULL");
	registry_lock lock;
	const int fd = reopen(seg, seg->is_read_only ? O_RDONLY : O_RDWR);
	return fd >= 0 ? fd : fail(errno == ENOENT ? -ESTALE : -errno, "segment %s: cannot open its file", seg->name);
}

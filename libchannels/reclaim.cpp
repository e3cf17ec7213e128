// SPDX-License-Identifier: Apache-2.0
// reclaim.cpp - segments of all processes: listed, looked at, and removed when nobody lives who uses them.
//
// A segment is removed only if neither its creator nor any peer lives, and nobody can become a peer meanwhile:
//   reclaimer   state READY -> RECLAIMING(its pid), then looks at all peers; if none lives, state -> DESTROYED, unlink
//   attacher    claims its slot, then looks at the state, and takes a RECLAIMING away (segment.cpp)
// All of these are sequentially consistent: either the reclaimer sees the slot, or the attacher sees RECLAIMING and takes it
// away, so that the reclaimer's second step fails; or that step came first, and the attacher gets -ESTALE. The pid in the word
// keeps one reclaimer from finishing on another's question. A reclaimer that dies leaves a question without
// an answer, which the next attacher or reclaimer takes over. Unlinking is done under a lock of the file (flock(2), which ends
// with its holder) after a look whether the name still means this file, so that of two reclaimers none hits a newer one.
// The creator holds that lock from the first moment on, and as long as the file is mapped by it or by a child that
// inherited the mapping: so a file without a finished header and without the lock has no creator any more.
#include "config.h"
#include "backing.h"
#include "crash.h"
#include "error.h"
#include "peer.h"
#include "segment.h"
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace ch::core {

// Calls fn(name) for each file of ours. For the spawner too, which may not allocate: it was forked while other
// threads ran. So not opendir(3).
template <class Fn> static void for_each_file(Fn fn) noexcept
{
	alignas(8) char buf[4096];
	const int fd = open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	long n;

	while (fd >= 0 && (n = syscall(SYS_getdents64, fd, buf, sizeof(buf))) > 0)
		for (long at = 0; at < n;) {
			const auto *e = reinterpret_cast<const dirent64 *>(buf + at);
			at += e->d_reclen;
			if (std::strncmp(e->d_name, "ch-", 3) == 0)
				fn(e->d_name);
		}
	if (fd >= 0)
		close(fd);
}

static void reclaim_if_of(const char *name, u64 creator) noexcept
{
	segment_header h;
	const int fd = shm_open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);

	if (fd < 0)
		return;
	if (pread(fd, &h, sizeof(h), 0) == sizeof(h) && h.magic == SEGMENT_MAGIC && h.creator == creator &&
	    h.pid_ns == peer_pid_namespace())
		shm_unlink(name);
	close(fd);
}

void segment_reclaim_of(u64 creator) noexcept
{
	for_each_file([=](const char *name) { reclaim_if_of(name, creator); });
}

// ---- one file, mapped as far as its table of peers goes

struct table {
	segment_header *hdr = nullptr;
	const shared<u64> *used = nullptr;
	const peer_slot *peers = nullptr;
	u64 len = 0;
};

// 0, or a negative errno value: no segment of this layout.
static int map_table(int fd, const char *name, bool is_for_writing, table &t) noexcept
{
	segment_header h;
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || pread(fd, &h, sizeof(h), 0) != sizeof(h))
		return -EPROTO;
	const int rc = segment_check_header(&h, static_cast<u64>(st.st_size), name);
	if (rc < 0)
		return rc;
	t.len = segment_header_len(h.max_peers);
	void *p = mmap(nullptr, t.len, is_for_writing ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	u8 *base = static_cast<u8 *>(p);
	t.hdr = reinterpret_cast<segment_header *>(p);
	t.used = reinterpret_cast<const shared<u64> *>(base + sizeof(segment_header));
	t.peers = reinterpret_cast<const peer_slot *>(base + sizeof(segment_header) + used_bytes(h.max_peers));
	return 0;
}

static void count_peers(const table &t, u32 max_peers, u32 &nr, u32 &nr_alive) noexcept
{
	nr = nr_alive = 0;
	for (u32 w = 0; w <= max_peers / 64; w++)
		for (u64 bits = t.used[w].load(seq_cst); bits; bits &= bits - 1) { // seq_cst: see above
			const u32 i = w * 64 + static_cast<u32>(__builtin_ctzll(bits));
			const u64 id = i >= 1 && i <= max_peers ? t.peers[i].id.load(seq_cst) : 0;
			nr += id != 0;
			nr_alive += id != 0 && peer_is_alive(id);
		}
}

static void describe(const segment_header &h, const struct stat &st, ch_segment_info &out) noexcept
{
	out.len = h.user_len;
	out.file_len = static_cast<u64>(st.st_size);
	out.backed_len = static_cast<u64>(st.st_blocks) * 512;
	out.max_peers = h.max_peers;
	out.creator.id = h.creator;
	out.is_creator_alive = peer_is_alive(h.creator);
	out.is_destroyed = (h.state.load(relaxed) & 0xff) == SEGMENT_DESTROYED; // a picture of a moment
	out.uid = st.st_uid;
	out.gid = st.st_gid;
	out.mode = st.st_mode & 0777;
	std::memcpy(out.name, h.name, sizeof(out.name));
	out.name[sizeof(out.name) - 1] = '\0';
}

// What others have made: false if it is none of ours, or gone.
static bool describe_file(const char *name, ch_segment_info &out) noexcept
{
	const int fd = shm_open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
	struct stat st;
	table t;

	if (fd < 0)
		return false;
	const bool is_ours = fstat(fd, &st) == 0 && map_table(fd, name, false, t) == 0 && t.hdr->pid_ns == peer_pid_namespace();
	close(fd);
	if (is_ours) {
		out = {};
		describe(*t.hdr, st, out);
		count_peers(t, out.max_peers, out.nr_peers, out.nr_alive);
	}
	if (t.hdr)
		munmap(t.hdr, t.len);
	return is_ours;
}

// ---- removing

// Under the lock of fd. True if the name meant this file, and means nothing now.
static bool unlink_this(int fd, const char *name) noexcept
{
	struct stat mine, named;
	const int other = shm_open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);

	if (other < 0)
		return false;
	const bool is_same = fstat(fd, &mine) == 0 && fstat(other, &named) == 0 && mine.st_ino == named.st_ino &&
			     mine.st_dev == named.st_dev;
	close(other);
	return is_same && shm_unlink(name) == 0;
}

// Whether nobody who lives uses it, and from now on nobody can.
static bool end_unused(const table &t) noexcept
{
	const u32 asking = SEGMENT_RECLAIMING | static_cast<u32>(getpid()) << 8;
	u32 nr, nr_alive, st = t.hdr->state.load(seq_cst), max_peers = t.hdr->max_peers; // seq_cst, here and below: see above

	if (t.hdr->pid_ns != peer_pid_namespace() || peer_is_alive(t.hdr->creator))
		return false;
	if (t.len != segment_header_len(max_peers))
		return false;
	if ((st & 0xff) == SEGMENT_DESTROYED) { // by one who died before it removed the name, or is just about to
		count_peers(t, max_peers, nr, nr_alive);
		return nr_alive == 0;
	}
	if (!t.hdr->state.compare_exchange_strong(st, asking, seq_cst, relaxed))
		return false;
	CH_CRASH_POINT(reclaim_asked);
	count_peers(t, max_peers, nr, nr_alive);
	st = asking;
	const u32 answer = nr_alive ? u32{SEGMENT_READY} : u32{SEGMENT_DESTROYED};
	// seq_cst: the attacher's look comes before or after this (see above).
	const bool is_answered = t.hdr->state.compare_exchange_strong(st, answer, seq_cst, relaxed);
	CH_CRASH_POINT(reclaim_answered);
	return is_answered && nr_alive == 0;
}

static bool reclaim_file(const char *name) noexcept
{
	const int fd = shm_open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
	segment_header h;
	table t;
	bool is_gone = false;

	if (fd < 0)
		return false;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
		const ssize_t n = pread(fd, &h, sizeof(h), 0);
		const bool is_unborn = n >= 0 && (n < static_cast<ssize_t>(sizeof(h)) || h.state.load(acquire) == SEGMENT_NEW);
		if (is_unborn || (map_table(fd, name, true, t) == 0 && end_unused(t))) // [S2] pairs with [S1]: the state
			is_gone = unlink_this(fd, name);
	}
	if (t.hdr)
		munmap(t.hdr, t.len);
	close(fd);
	return is_gone;
}

} // namespace ch::core

using namespace ch::core;

int ch_segment_list(int (*fn)(const struct ch_segment_info *info, void *arg), void *arg)
{
	int rc = 0, nr = 0;

	if (!fn)
		return fail(-EINVAL, "segment: fn is NULL");
	for_each_file([&](const char *name) {
		ch_segment_info info;
		if (rc != 0 || !describe_file(name, info))
			return;
		rc = fn(&info, arg);
		nr += nr < INT_MAX;
	});
	return rc != 0 ? rc : nr;
}

int ch_segment_reclaim(const char *name)
{
	int rc = name ? segment_check_name(name) : 0, nr = 0;
	char path[32];

	if (rc < 0)
		return rc;
	if (!name) {
		for_each_file([&](const char *file) { nr += reclaim_file(file); });
		return nr;
	}
	segment_path(segment_id_of(name), path, sizeof(path));
	return reclaim_file(path + 1);
}

int ch_segment_get_info(struct ch_segment *seg, struct ch_segment_info *out_info)
{
	struct stat st;

	if (!seg || !out_info)
		return fail(-EINVAL, "segment: NULL");
	const int fd = ch_segment_get_fd(seg);
	if (fd < 0)
		return fd;
	const int rc = fstat(fd, &st) < 0 ? -errno : 0;
	close(fd);
	if (rc < 0)
		return rc;
	*out_info = {};
	describe(*seg->hdr, st, *out_info);
	out_info->max_peers = seg->max_peers;
	for_each_peer(seg, [&](u32 i) {
		const u64 id = peer_of(seg, i);
		out_info->nr_peers += id != 0;
		out_info->nr_alive += id != 0 && peer_is_alive(id);
	});
	out_info->huge_len = backing_huge_bytes(seg->base);
	out_info->flags = (seg->is_read_only ? CH_READ_ONLY : 0) | (seg->is_locked ? CH_LOCKED : 0) |
			  (seg->fd >= 0 ? CH_ANONYMOUS : 0) | (out_info->huge_len ? CH_HUGE_PAGES : 0) |
			  (out_info->mode & 060 ? CH_GROUP : 0);
	return 0;
}

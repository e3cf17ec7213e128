// SPDX-License-Identifier: Apache-2.0
// segment.cpp - create, attach, check and leave segments; the registry of this process's mappings.
#include "config.h"
#include "segment.h"
#include "object.h"
#include "crash.h"
#include "error.h"
#include "event.h"
#include "keeper.h"
#include "peer.h"
#include "sweep.h"
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <new>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xxhash.h>

namespace ch::core {

static constexpr u64 DEFAULT_LEN = u64{16} << 20;
static constexpr u32 DEFAULT_PEERS = 1024;
static constexpr size_t NAME_MAX_LEN = 200;
static constexpr u64 POPULATE_MAX = u64{64} << 20; // map all pages at attach up to here; larger ones as they are used

// ---- registry

static pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static ch_segment *segments;
static std::atomic<u32> nr_forks;

registry_lock::registry_lock() noexcept
{
	pthread_mutex_lock(&mutex);
}

registry_lock::~registry_lock() noexcept
{
	pthread_mutex_unlock(&mutex);
}

ch_segment *registry_first() noexcept
{
	return segments;
}

static void fork_prepare() noexcept
{
	pthread_mutex_lock(&mutex);
}

static void fork_parent() noexcept
{
	pthread_mutex_unlock(&mutex);
}

// The child holds nothing: it is another process than the one whose index stands in the claims. It becomes a
// peer of its own at its first use.
static void fork_child() noexcept
{
	mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
	keeper_forget();
	nr_forks.fetch_add(1, relaxed); // one thread: nobody looks
	thread_forget();
	for (ch_segment *s = segments; s; s = s->next) {
		s->me.store(NOBODY, relaxed); // one thread: nobody looks
		s->telling.store(0, relaxed);
		if (s->watch_fd >= 0)
			close(s->watch_fd);
		s->watch_fd = -1;
		for (ch_object *c = s->objects; c; c = c->next)
			c->me.store(NOBODY, relaxed); // one thread: nobody looks
	}
}

static void process_init() noexcept
{
	static bool is_done;

	if (is_done)
		return;
	is_done = true;
	pthread_atfork(fork_prepare, fork_parent, fork_child);
}

void registry_init() noexcept
{
	registry_lock lock;

	process_init();
}

u32 registry_forks() noexcept
{
	return nr_forks.load(relaxed); // changes only in a child with one thread
}

// ---- names and geometry

static u64 random_word() noexcept
{
	u64 r = 0;

	while (r == 0)
		if (getrandom(&r, sizeof(r), 0) != sizeof(r))
			r = static_cast<u64>(now_ns()) * 0x9e3779b97f4a7c15 ^ peer_self();
	return r;
}

static int check_name(const char *name) noexcept
{
	const size_t len = std::strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

	if (len == 0 || name[len] != '\0' || len > NAME_MAX_LEN)
		return fail(-EINVAL, "segment name: 1 to %zu letters, digits, '.', '_', '-'", NAME_MAX_LEN);
	return 0;
}

// A made-up name is its id in hexadecimal; of any other the id is a hash.
static u64 id_of_name(const char *name) noexcept
{
	if (std::strlen(name) == 16 && std::strspn(name, "0123456789abcdef") == 16)
		return std::strtoull(name, nullptr, 16);
	return XXH3_64bits(name, std::strlen(name));
}

static void object_name(u64 id, char *out, size_t cap) noexcept
{
	std::snprintf(out, cap, "/ch-%016llx", static_cast<unsigned long long>(id));
}

static u64 header_len(u32 max_peers) noexcept
{
	const u64 len = sizeof(segment_header) + (u64{max_peers} + 1) * sizeof(peer_slot);

	return round_up(len, PAGE);
}

// Everything a hostile or foreign file could get wrong, before a byte of it is used.
static int check_header(const segment_header *h, u64 file_len, const char *what) noexcept
{
	if (h->magic != SEGMENT_MAGIC)
		return fail(-EPROTO, "segment %s: this is none", what);
	if (h->version != LAYOUT_VERSION)
		return fail(-EPROTO, "segment %s has layout version %u, this library has %u", what, h->version, LAYOUT_VERSION);
	if (h->max_peers < 2 || h->max_peers > MAX_PEERS || h->user_off != header_len(h->max_peers) ||
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
	s->peers = reinterpret_cast<peer_slot *>(base + sizeof(segment_header));
	std::memcpy(s->name, h.name, sizeof(s->name));
	s->name[sizeof(s->name) - 1] = '\0';
	s->pool.seg = s;
	return s;
}

// ---- this process as a peer

static int claim_slot(ch_segment *seg) noexcept
{
	const u64 self = peer_self();
	const u32 start = seg->hdr->rotor.fetch_add(1, relaxed); // hint

	for (u32 k = 0; k < seg->max_peers; k++) {
		const u32 i = 1 + (start + k) % seg->max_peers;
		u64 zero = 0;
		// [P1] pairs with [P2]: whoever sees the name sees a slot without leftovers of its last tenant.
		if (seg->peers[i].id.load(relaxed) == 0 &&
		    seg->peers[i].id.compare_exchange_strong(zero, self, acq_rel, relaxed))
			return static_cast<int>(i);
	}
	return -ENOSPC;
}

int segment_join(ch_segment *seg) noexcept
{
	int i = static_cast<int>(seg->me.load(relaxed)); // under the lock

	if (i != NOBODY)
		return i;
	if (seg->hdr->pid_ns != peer_pid_namespace())
		return fail(-EPERM, "segment %s belongs to another pid namespace: share that namespace", seg->name);
	event_process_init(); // a forked child too
	keeper_start();
	for (int again = 0; (i = claim_slot(seg)) == -ENOSPC; again++)
		if (again || sweep_dead(seg) == 0)
			return fail(-ENOSPC, "segment %s: all %u peers are attached", seg->name, seg->max_peers);
	CH_CRASH_POINT(peer_claimed);
	seg->me.store(static_cast<u32>(i), relaxed);
	keeper_announce(seg, static_cast<u32>(i));
	CH_CRASH_POINT(peer_announced);
	return i;
}

static void segment_leave(ch_segment *seg) noexcept
{
	const u32 me = seg->me.load(relaxed); // under the lock

	if (me == NOBODY)
		return;
	sweep_self(seg);
	CH_CRASH_POINT(peer_leaving);
	seg->me.store(NOBODY, relaxed);
	keeper_announce(seg, me); // my neighbour must watch mine
}

void segment_unref(ch_segment *seg) noexcept
{
	if (--seg->refs > 0)
		return;
	segment_leave(seg);
	for (ch_segment **p = &segments; *p; p = &(*p)->next)
		if (*p == seg) {
			*p = seg->next;
			break;
		}
	if (seg->watch_fd >= 0)
		close(seg->watch_fd);
	keeper_poke();
	munmap(seg->base, seg->map_len);
	delete seg;
}

// ---- create

static int map_new(int fd, u64 len, u8 **out) noexcept
{
	// fallocate gives tmpfs pages now, so that running out of memory is an error here and no signal later.
	int rc;

	do
		rc = posix_fallocate(fd, 0, static_cast<off_t>(len));
	while (rc == EINTR);

	if (rc != 0)
		return fail(rc == EFBIG ? -ENOSPC : -rc, "segment: no room for %llu bytes in /dev/shm",
			    static_cast<unsigned long long>(len));
	void *p = mmap(nullptr, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (p == MAP_FAILED)
		return fail(-errno, "segment: cannot map %llu bytes", static_cast<unsigned long long>(len));
	*out = static_cast<u8 *>(p);
	return 0;
}

static void write_header(u8 *base, const ch_segment_attr &a, u64 id, u64 total) noexcept
{
	segment_header *h = reinterpret_cast<segment_header *>(base);

	h->magic = SEGMENT_MAGIC;
	h->version = LAYOUT_VERSION;
	h->max_peers = a.max_peers;
	h->id = id;
	h->birth = random_word();
	h->nonce = random_word();
	h->total_len = total;
	h->user_off = header_len(a.max_peers);
	h->user_len = a.len;
	h->pid_ns = peer_pid_namespace();
	h->creator = peer_self();
	if (a.name)
		std::strcpy(h->name, a.name); // at most NAME_MAX_LEN
	else
		std::snprintf(h->name, sizeof(h->name), "%016llx", static_cast<unsigned long long>(id));
	// [S1] pairs with [S2]: the header is whole before it says so.
	h->state.store(SEGMENT_READY, release);
}

static int create_object(const ch_segment_attr &a, u64 id, u8 **out_base, u64 *out_len) noexcept
{
	const u64 total = header_len(a.max_peers) + a.len;
	char path[32];

	object_name(id, path, sizeof(path));
	const int fd = shm_open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno == EEXIST ? fail(-EEXIST, "segment %s: a segment has this name", a.name ? a.name : path) :
					 fail(-errno, "segment: cannot create %s in /dev/shm", path);
	if (a.flags & CH_ANONYMOUS)
		shm_unlink(path);
	const int rc = map_new(fd, total, out_base);
	close(fd);
	if (rc < 0 && !(a.flags & CH_ANONYMOUS))
		shm_unlink(path);
	*out_len = total;
	return rc;
}

static int read_segment_attr(const ch_segment_attr *attr, ch_segment_attr &a) noexcept
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
	if ((a.flags & ~CH_ANONYMOUS) || a.reserved || (a.flags && a.name))
		return fail(-EINVAL, "segment: unknown flags %#x, or both a name and CH_ANONYMOUS", a.flags);
	a.len = round_up(a.len, PAGE);
	return a.name ? check_name(a.name) : 0;
}

static int segment_create(const ch_segment_attr &a, ch_segment **out) noexcept
{
	const u64 id = a.name ? id_of_name(a.name) : random_word();
	u8 *base = nullptr;
	u64 len = 0;
	int rc = create_object(a, id, &base, &len);

	if (rc < 0)
		return rc;
	write_header(base, a, id, len);
	ch_segment *s = segment_new(base, *reinterpret_cast<segment_header *>(base)); // nobody else knows it yet
	if (!s) {
		munmap(base, len);
		rc = fail(-ENOMEM, "segment: no memory for the handle");
	} else {
		s->refs = 1;
		s->next = segments;
		segments = s;
		rc = segment_join(s);
		if (rc >= 0) {
			*out = s;
			return 0;
		}
		segment_unref(s);
	}
	char path[32];
	object_name(id, path, sizeof(path));
	shm_unlink(path);
	return rc;
}

// ---- attach

// Maps an existing object after checking it. name is what the user called it, or NULL.
static int map_existing(u64 id, const char *name, ch_segment **out) noexcept
{
	char path[32];
	struct stat st;
	segment_header h;

	object_name(id, path, sizeof(path));
	const char *what = name ? name : path + 1;
	const int fd = shm_open(path, O_RDWR | O_CLOEXEC, 0);
	if (fd < 0)
		return errno == ENOENT ? fail(name ? -ENOENT : -ESTALE, "segment %s: there is none", what) :
		       errno == EACCES ? fail(-EACCES, "segment %s: no permission", what) :
					 fail(-errno, "segment %s: cannot open", what);
	int rc = fstat(fd, &st) < 0 ? -errno : 0;
	if (rc == 0 && pread(fd, &h, sizeof(h), 0) != sizeof(h))
		rc = fail(-EPROTO, "segment %s is truncated", what);
	// [S2] pairs with [S1]. A creator that died half-way leaves a file without magic or not READY.
	if (rc == 0)
		rc = check_header(&h, static_cast<u64>(st.st_size), what);
	if (rc == 0 && h.id != id)
		rc = fail(-EPROTO, "segment %s is damaged", what);
	if (rc == 0 && h.state.load(acquire) != SEGMENT_READY)
		rc = fail(h.state.load(relaxed) == SEGMENT_NEW ? -EPROTO : -ESTALE, "segment %s is not ready", what);
	void *p = rc < 0 ? MAP_FAILED :
			   mmap(nullptr, h.total_len, PROT_READ | PROT_WRITE,
				MAP_SHARED | (h.total_len <= POPULATE_MAX ? MAP_POPULATE : 0), fd, 0);
	close(fd);
	if (rc < 0)
		return rc;
	if (p == MAP_FAILED)
		return fail(-ENOMEM, "segment %s: cannot map %llu bytes", what, static_cast<unsigned long long>(h.total_len));
	ch_segment *s = segment_new(static_cast<u8 *>(p), h);
	if (!s) {
		munmap(p, h.total_len);
		return fail(-ENOMEM, "segment: no memory for the handle");
	}
	*out = s;
	return 0;
}

static ch_segment *find(u64 id, u64 birth) noexcept
{
	for (ch_segment *s = segments; s; s = s->next)
		if (s->id == id && (birth ? s->birth == birth : s->hdr->state.load(relaxed) != SEGMENT_DESTROYED))
			return s; // relaxed: a hint which of two to take, checked by the caller
	return nullptr;
}

static int attach_id(u64 id, u64 birth, u64 nonce, const char *name, ch_segment **out) noexcept
{
	ch_segment *s = find(id, birth);
	const bool is_new = !s;
	int rc = is_new ? map_existing(id, name, &s) : 0;

	if (rc < 0)
		return rc;
	if (birth != 0 && s->birth != birth)
		rc = fail(-ESTALE, "segment %s was destroyed and made anew", s->name);
	else if (birth != 0 && s->nonce != nonce)
		rc = fail(-EACCES, "segment %s: forged descriptor", s->name);
	else if (s->hdr->state.load(relaxed) == SEGMENT_DESTROYED) // [S2] was done when it was mapped
		rc = fail(-ESTALE, "segment %s was destroyed", s->name);
	if (is_new && rc == 0) {
		s->next = segments;
		segments = s;
		s->refs = 1;
		rc = segment_join(s);
		if (rc < 0)
			segment_unref(s);
	} else if (is_new) {
		munmap(s->base, s->map_len);
		delete s;
	} else if (rc == 0) {
		rc = segment_join(s);
		s->refs += rc >= 0;
	}
	if (rc < 0)
		return rc;
	*out = s;
	return 0;
}

int segment_attach(const descr &d, ch_segment **out) noexcept
{
	if (d.node != node_id())
		return fail(-EHOSTUNREACH, "descriptor: its segment is on another node");
	process_init();
	return attach_id(d.segment, d.birth, d.nonce, nullptr, out);
}

void segment_remove_name(ch_segment *seg) noexcept
{
	char path[32];
	u32 ready = SEGMENT_READY;

	if (!seg->hdr->state.compare_exchange_strong(ready, SEGMENT_DESTROYED, acq_rel, relaxed))
		return; // somebody else did; the name may be a new segment's by now
	object_name(seg->id, path, sizeof(path));
	shm_unlink(path);
}

static void reclaim_if_of(const char *name, u64 creator) noexcept
{
	segment_header h;
	const int fd = std::strncmp(name, "ch-", 3) == 0 ? shm_open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0) : -1;

	if (fd < 0)
		return;
	if (pread(fd, &h, sizeof(h), 0) == sizeof(h) && h.magic == SEGMENT_MAGIC && h.creator == creator &&
	    h.pid_ns == peer_pid_namespace())
		shm_unlink(name);
	close(fd);
}

// For the spawner, which outlives its creator by a moment, and may not allocate: it was forked while other threads
// ran. So not opendir(3).
void segment_reclaim_of(u64 creator) noexcept
{
	alignas(8) char buf[4096];
	const int fd = open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	long n;

	while (fd >= 0 && (n = syscall(SYS_getdents64, fd, buf, sizeof(buf))) > 0)
		for (long at = 0; at < n;) {
			const auto *e = reinterpret_cast<const dirent64 *>(buf + at);
			at += e->d_reclen;
			reclaim_if_of(e->d_name, creator);
		}
	if (fd >= 0)
		close(fd);
}

descr segment_descr(const ch_segment *seg, u8 kind, u64 offset, u64 generation) noexcept
{
	descr d{};

	d.kind = kind;
	d.segment = seg->id;
	d.birth = seg->birth;
	d.nonce = seg->nonce;
	d.offset = offset;
	d.generation = generation;
	return d;
}

} // namespace ch::core

using namespace ch::core;

int ch_segment_create(const struct ch_segment_attr *attr, struct ch_segment **out_seg)
{
	ch_segment_attr a;
	int rc = read_segment_attr(attr, a);

	if (rc == 0 && !out_seg)
		rc = fail(-EINVAL, "segment: out_seg is NULL");
	if (rc < 0)
		return rc;
	registry_lock lock;
	process_init();
	return segment_create(a, out_seg);
}

int ch_segment_attach(const struct ch_descr *descr, struct ch_segment **out_seg)
{
	ch::core::descr d;
	const int rc = descr_open(descr, d);

	if (rc < 0)
		return rc;
	if (!out_seg)
		return fail(-EINVAL, "segment: out_seg is NULL");
	registry_lock lock;
	return segment_attach(d, out_seg);
}

int ch_segment_attach_name(const char *name, struct ch_segment **out_seg)
{
	if (!name || !out_seg)
		return fail(-EINVAL, "segment: NULL");
	const int rc = check_name(name);
	if (rc < 0)
		return rc;
	registry_lock lock;
	process_init();
	return attach_id(id_of_name(name), 0, 0, name, out_seg);
}

void ch_segment_detach(struct ch_segment *seg)
{
	registry_lock lock;

	if (seg)
		segment_unref(seg);
}

void ch_segment_destroy(struct ch_segment *seg)
{
	registry_lock lock;

	if (!seg)
		return;
	pool_mark_destroyed(seg);
	segment_remove_name(seg);
	segment_unref(seg);
}

void *ch_segment_addr(const struct ch_segment *seg)
{
	return seg ? seg->base + seg->user_off : nullptr;
}

size_t ch_segment_len(const struct ch_segment *seg)
{
	return seg ? seg->user_len : 0;
}

const char *ch_segment_name(const struct ch_segment *seg)
{
	return seg ? seg->name : "";
}

int ch_segment_get_descr(const struct ch_segment *seg, struct ch_descr *out_descr)
{
	if (!seg || !out_descr)
		return fail(-EINVAL, "segment: NULL");
	descr_seal(segment_descr(seg, CH_DESCR_SEGMENT, 0, 0), out_descr);
	return 0;
}

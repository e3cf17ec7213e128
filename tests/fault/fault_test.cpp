/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fault_test.cpp - every resource the library asks the system for is refused once, wherever it is asked for.
 *
 * The calls that can fail are wrapped when this program is linked (ld --wrap; the list is in local.mk). A script
 * uses segments, pools and channels; it is run again and again, each time in a fresh process, with the first call of
 * one kind failing, then the second, until none is left to fail. Then nothing is left in /dev/shm, no descriptor is open
 * that was not before, what was there before is as it was, and every call said something documented.
 *
 * The scripts:  life  the first use of the library in a process, from making segments to their end
 *               work  in a pool and a channel that are there already
 *
 * usage: fault_test [KIND [SCRIPT [N]]]     one of them, and the N-th call only
 */
#include "../support/support.h"
#include <atomic>
#include <cstdarg>
#include <dirent.h>
#include <initializer_list>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <new>
#include <pthread.h>
#include <sys/file.h>
#include <sys/socket.h>

// ---- the wrapped calls

namespace {

enum kind : int {
	K_MMAP, K_FTRUNCATE, K_FALLOCATE, K_SHM_OPEN, K_MEMFD, K_MLOCK, K_OPEN, K_FCNTL, K_FLOCK, K_SOCKET, K_THREAD, K_NEW,
	K_FUTEX, K_MEMBARRIER, NR_KINDS
};
const char *const names[NR_KINDS] = { "mmap", "ftruncate", "fallocate", "shm_open", "memfd_create", "mlock", "open",
				      "fcntl", "flock", "socket", "pthread_create", "new", "futex", "membarrier" };

/* Of the thread that runs the script alone: what the keeper's thread asks for at its own times would move the count. */
thread_local int armed = -1, left;
std::atomic<bool> has_struck;

bool strikes(int k, int err)
{
	if (k != armed || --left != 0)
		return false;
	has_struck = true;
	errno = err;
	return true;
}

} // namespace

extern "C" {
void *__real_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);
int __real_ftruncate(int fd, off_t len);
int __real_posix_fallocate(int fd, off_t off, off_t len);
int __real_shm_open(const char *name, int flags, mode_t mode);
int __real_memfd_create(const char *name, unsigned flags);
int __real_mlock2(const void *addr, size_t len, unsigned flags);
int __real_open(const char *path, int flags, ...);
int __real_fcntl(int fd, int cmd, ...);
int __real_flock(int fd, int op);
int __real_socket(int domain, int type, int protocol);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
long __real_syscall(long nr, ...);
void *__real__ZnwmRKSt9nothrow_t(size_t len, const std::nothrow_t &tag);

void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	return strikes(K_MMAP, ENOMEM) ? MAP_FAILED : __real_mmap(addr, len, prot, flags, fd, off);
}
int __wrap_ftruncate(int fd, off_t len)
{
	return strikes(K_FTRUNCATE, ENOSPC) ? -1 : __real_ftruncate(fd, len);
}
int __wrap_posix_fallocate(int fd, off_t off, off_t len)
{
	return strikes(K_FALLOCATE, 0) ? ENOSPC : __real_posix_fallocate(fd, off, len);
}
int __wrap_shm_open(const char *name, int flags, mode_t mode)
{
	return strikes(K_SHM_OPEN, EMFILE) ? -1 : __real_shm_open(name, flags, mode);
}
int __wrap_memfd_create(const char *name, unsigned flags)
{
	return strikes(K_MEMFD, EMFILE) ? -1 : __real_memfd_create(name, flags);
}
int __wrap_mlock2(const void *addr, size_t len, unsigned flags)
{
	return strikes(K_MLOCK, ENOMEM) ? -1 : __real_mlock2(addr, len, flags);
}
int __wrap_open(const char *path, int flags, ...)
{
	va_list ap;

	va_start(ap, flags);
	const int mode = flags & O_CREAT ? va_arg(ap, int) : 0;
	va_end(ap);
	return strikes(K_OPEN, EMFILE) ? -1 : __real_open(path, flags, mode);
}
int __wrap_fcntl(int fd, int cmd, ...)
{
	va_list ap;

	va_start(ap, cmd);
	const long arg = va_arg(ap, long);
	va_end(ap);
	return strikes(K_FCNTL, EMFILE) ? -1 : __real_fcntl(fd, cmd, arg);
}
int __wrap_flock(int fd, int op)
{
	return strikes(K_FLOCK, ENOLCK) ? -1 : __real_flock(fd, op);
}
int __wrap_socket(int domain, int type, int protocol)
{
	return strikes(K_SOCKET, EMFILE) ? -1 : __real_socket(domain, type, protocol);
}
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	return strikes(K_THREAD, 0) ? EAGAIN : __real_pthread_create(thread, attr, fn, arg);
}
void *__wrap__ZnwmRKSt9nothrow_t(size_t len, const std::nothrow_t &tag)
{
	return strikes(K_NEW, ENOMEM) ? nullptr : __real__ZnwmRKSt9nothrow_t(len, tag);
}
long __wrap_syscall(long nr, ...)
{
	long a[6];
	va_list ap;

	va_start(ap, nr);
	for (long &x : a)
		x = va_arg(ap, long);
	va_end(ap);
	if ((nr == SYS_futex && strikes(K_FUTEX, EINTR)) || (nr == SYS_membarrier && strikes(K_MEMBARRIER, EPERM)))
		return -1;
	return __real_syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}
}

// ---- the scripts

namespace {

/* What any of these calls may say when the system has run out of something. */
bool is_documented(long rc)
{
	if (rc >= 0)
		return true;
	for (int err : { EMFILE, ENOMEM, ENOSPC, EACCES, ETIMEDOUT, EAGAIN, ENOLCK, EMSGSIZE, EPERM, ESTALE })
		if (rc == -err)
			return true;
	return false;
}

template <class T> T said(T rc, const char *what)
{
	if (!is_documented(rc)) {
		fprintf(stderr, "%s said %ld: %s\n", what, static_cast<long>(rc), ch_errmsg());
		_exit(2);
	}
	return rc;
}
#define SAID(call) said(call, #call)

int count_one(const struct ch_segment_info *, void *)
{
	return 0;
}

void use_view(struct ch_pool *pool, void *p)
{
	struct ch_view *v = nullptr, *part = nullptr, *same = nullptr;
	struct ch_descr d;

	if (SAID(ch_view_create(pool, p, 100, &v)) < 0) {
		EXPECT(ch_pool_free(pool, p) == 0); /* it is still the caller's */
		return;
	}
	SAID(ch_view_clone(v, 10, 20, &part));
	EXPECT(ch_view_get_descr(v, &d) == 0);
	SAID(ch_view_attach(&d, &same));
	ch_view_detach(v);
	ch_view_detach(part);
	ch_view_detach(same);
}

void use_channel(struct ch_pool *pool)
{
	struct ch_channel *ch = nullptr, *again = nullptr;
	struct ch_message msg = CH_MESSAGE_INIT;
	static char bytes[100000];
	struct ch_descr d;

	if (SAID(ch_channel_create(pool, nullptr, &ch)) < 0)
		return;
	EXPECT(ch_channel_get_descr(ch, &d) == 0);
	SAID(ch_channel_attach(&d, &again));
	SAID(ch_channel_send(ch, bytes, 40, CH_TRY));
	SAID(ch_channel_send(ch, bytes, sizeof(bytes), 10 * MS));
	SAID(ch_channel_recv(ch, bytes, sizeof(bytes), CH_TRY));
	if (SAID(ch_channel_take(ch, 5 * MS, &msg)) == 0)
		ch_channel_release(ch, &msg);
	SAID(ch_channel_recv(ch, bytes, sizeof(bytes), 2 * MS)); /* sleeps */
	if (SAID(ch_channel_claim(ch, 3000, CH_TRY, &msg)) == 0)
		ch_channel_abort(ch, &msg);
	ch_channel_detach(again);
	ch_channel_destroy(ch);
}

/* Leaves the pool as it was. */
void use_pool(struct ch_pool *pool)
{
	void *p[40];
	struct ch_descr d;
	int n = 0;

	for (; n < 40 && SAID(ch_pool_alloc(pool, 30000, CH_TRY, &p[n])) == 0; n++) /* it grows */
		memset(p[n], n, 30000);
	while (n > 0)
		EXPECT(ch_pool_free(pool, p[--n]) == 0);
	if (SAID(ch_pool_alloc_typed(pool, 500, 9, MS, &p[0])) == 0) {
		EXPECT(ch_block_offer(pool, p[0], &d) == 0);
		EXPECT(ch_block_accept(pool, &d, &p[1]) == 0);
		use_view(pool, p[1]);
	}
	use_channel(pool);
	SAID(ch_pool_sweep(pool));
}

void use_segment(uint32_t flags)
{
	struct ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
	struct ch_segment *seg = nullptr, *again = nullptr, *ro = nullptr;
	struct ch_segment_info info;
	struct ch_descr d;

	attr.flags = flags;
	attr.len = 256 << 10;
	attr.max_peers = 16;
	if (SAID(ch_segment_create(&attr, &seg)) < 0)
		return;
	const int fd = SAID(ch_segment_get_fd(seg));
	if (fd >= 0) {
		SAID(ch_segment_attach_fd(fd, 0, &again));
		SAID(ch_segment_attach_fd(fd, CH_READ_ONLY, &ro));
		close(fd);
	}
	ch_segment_detach(ro);
	ro = nullptr;
	EXPECT(ch_segment_get_descr(seg, &d) == 0);
	if (!(flags & CH_ANONYMOUS))
		SAID(ch_segment_attach_with(&d, nullptr, CH_READ_ONLY | CH_LOCKED, &ro));
	SAID(ch_segment_get_info(seg, &info));
	ch_segment_detach(ro);
	ch_segment_detach(again);
	ch_segment_destroy(seg);
}

struct ch_pool *new_pool(uint32_t flags)
{
	struct ch_pool_attr attr = CH_POOL_ATTR_INIT;
	struct ch_pool *pool = nullptr;

	attr.len = 256 << 10;
	attr.max_len = 4 << 20;
	attr.max_peers = 16;
	attr.flags = flags;
	return SAID(ch_pool_create(&attr, &pool)) == 0 ? pool : nullptr;
}

void life()
{
	use_segment(CH_LOCKED);
	use_segment(CH_ANONYMOUS | CH_HUGE_PAGES);
	SAID(ch_segment_list(count_one, nullptr));
	SAID(ch_segment_reclaim(nullptr));
	for (uint32_t flags : { 0u, CH_ANONYMOUS })
		if (struct ch_pool *pool = new_pool(flags)) {
			use_pool(pool);
			ch_pool_destroy(pool);
		}
}

// ---- before and after

int nr_entries(const char *path)
{
	DIR *dir = opendir(path);
	int n = 0;

	while (dir && readdir(dir))
		n++;
	closedir(dir);
	return n;
}

bool is_gone(const char *what, int before, int after)
{
	if (after > before)
		fprintf(stderr, "%s: %d before, %d after\n", what, before, after);
	return after <= before;
}

/* The keeper's thread, its socket and its look at a neighbour come with the first use and stay. */
bool run_life(int k, int n)
{
	const int fds = nr_entries("/proc/self/fd"), files = nr_entries("/dev/shm");

	armed = k;
	left = n;
	life();
	armed = -1;
	return is_gone("descriptors", fds + 1, nr_entries("/proc/self/fd")) &&
	       is_gone("files", files, nr_entries("/dev/shm"));
}

bool run_work(int k, int n)
{
	struct ch_pool *pool = new_pool(0);
	struct ch_pool_stats before;

	EXPECT(pool && ch_pool_get_stats(pool, &before) == 0);
	const int fds = nr_entries("/proc/self/fd"), files = nr_entries("/dev/shm");
	armed = k;
	left = n;
	use_pool(pool);
	armed = -1;
	const struct ch_pool_stats was = before;
	EXPECT(ch_pool_get_stats(pool, &before) == 0);
	const bool ok = before.used == was.used && before.nr_used == was.nr_used && before.nr_channels == was.nr_channels &&
			before.nr_peers == 1 && is_gone("descriptors", fds, nr_entries("/proc/self/fd")) &&
			is_gone("files", files, nr_entries("/dev/shm"));
	if (before.used != was.used)
		fprintf(stderr, "used: %llu before, %llu after\n", (unsigned long long)was.used,
			(unsigned long long)before.used);
	use_pool(pool); /* and it works */
	ch_pool_destroy(pool);
	return ok;
}

enum { STRUCK = 0, NOT_STRUCK = 3 };

struct job {
	int k, n;
	bool is_life;
};

int in_child(void *arg)
{
	const job &j = *static_cast<job *>(arg);

	if (!(j.is_life ? run_life(j.k, j.n) : run_work(j.k, j.n)))
		return 1;
	return has_struck ? STRUCK : NOT_STRUCK;
}

/* How many calls of this kind were made to fail; -1: one of them went wrong. */
int fail_each(int k, bool is_life, int only)
{
	for (int n = only ? only : 1; n < 2000; n++) {
		job j = { k, n, is_life };
		const int status = child_end(child_start(in_child, &j));

		if (status == NOT_STRUCK || only)
			return n - 1;
		if (status != STRUCK) {
			fprintf(stderr, "FAIL: %s number %d of %s: status %d\n", names[k], n, is_life ? "life" : "work",
				status);
			return -1;
		}
	}
	fprintf(stderr, "FAIL: %s: no end\n", names[k]);
	return -1;
}

} // namespace

int main(int argc, char **argv)
{
	bool ok = true;
	int sum = 0;

	for (int k = 0; k < NR_KINDS; k++)
		for (int is_life = 1; is_life >= 0; is_life--) {
			if ((argc > 1 && strcmp(argv[1], names[k])) || (argc > 2 && is_life != !strcmp(argv[2], "life")))
				continue;
			const int n = fail_each(k, is_life, argc > 3 ? atoi(argv[3]) : 0);
			ok &= n >= 0;
			sum += n > 0 ? n : 0;
			printf("%-14s %s: %d calls failed\n", names[k], is_life ? "life" : "work", n);
		}
	printf("%s: %d failures\n", ok && (sum || argc > 1) ? "PASS" : "FAIL", sum);
	return ok && (sum || argc > 1) ? 0 : 1;
}

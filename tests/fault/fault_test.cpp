/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fault_test.cpp - every resource the library asks the system for is refused once, wherever it is asked for.
 *
 * The calls that can fail are wrapped when this program is linked (ld --wrap; the list is in local.mk). A script
 * uses what the libraries offer; it is run again and again, each time in a fresh process, with the first call of one
 * kind failing, then the second, until none is left to fail: in this process, or in one that a spawner has forked. Then
 * nothing is left in /dev/shm, no process and no descriptor that was not there before, what was there before is as it
 * was, and every call said something documented.
 *
 * The scripts:  life   the first use of the library in a process, from making segments to their end
 *               work   in a pool and a channel that are there already
 *               spawn  a spawner and its children
 *               tasks  a pool of libpool, made and used
 *               dict   a dictionary, made and used
 *
 * usage: fault_test [KIND [SCRIPT [N]]]     one of them, and the N-th call only
 */
#include "../support/support.h"
#include <atomic>
#include <channels/spawn.h>
#include <cstdarg>
#include <ddict/ddict.hpp>
#include <dirent.h>
#include <initializer_list>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <new>
#include <pool/pool.hpp>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

// ---- the wrapped calls

namespace {

enum kind : int {
	K_MMAP, K_FTRUNCATE, K_FALLOCATE, K_SHM_OPEN, K_MEMFD, K_MLOCK, K_OPEN, K_FCNTL, K_FLOCK, K_SOCKET, K_THREAD, K_NEW,
	K_FUTEX, K_MEMBARRIER, K_PIDFD, K_EVENTFD, K_SIGNALFD, K_SOCKETPAIR, K_FORK, NR_KINDS
};
const char *const names[NR_KINDS] = { "mmap", "ftruncate", "fallocate", "shm_open", "memfd_create", "mlock", "open",
				      "fcntl", "flock", "socket", "pthread_create", "new", "futex", "membarrier",
				      "pidfd_open", "eventfd", "signalfd", "socketpair", "fork" };

/*
 * Of the thread that runs the script, and of what is forked from it: what the keeper's thread asks for at its own times
 * would move the count. The count is of all these processes.
 */
thread_local int armed = -1;
struct counts {
	std::atomic<int> left;
	std::atomic<bool> has_struck;
} *count;

bool strikes(int k, int err)
{
	if (k != armed || --count->left != 0)
		return false;
	count->has_struck = true;
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
int __real_eventfd(unsigned value, int flags);
int __real_signalfd(int fd, const sigset_t *mask, int flags);
int __real_socketpair(int domain, int type, int protocol, int fds[2]);
pid_t __real_fork(void);
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
int __wrap_eventfd(unsigned value, int flags)
{
	return strikes(K_EVENTFD, EMFILE) ? -1 : __real_eventfd(value, flags);
}
int __wrap_signalfd(int fd, const sigset_t *mask, int flags)
{
	return strikes(K_SIGNALFD, EMFILE) ? -1 : __real_signalfd(fd, mask, flags);
}
int __wrap_socketpair(int domain, int type, int protocol, int fds[2])
{
	return strikes(K_SOCKETPAIR, EMFILE) ? -1 : __real_socketpair(domain, type, protocol, fds);
}
pid_t __wrap_fork(void)
{
	return strikes(K_FORK, EAGAIN) ? -1 : __real_fork();
}
void *__wrap__ZnwmRKSt9nothrow_t(size_t len, const std::nothrow_t &tag)
{
	return strikes(K_NEW, ENOMEM) ? nullptr : __real__ZnwmRKSt9nothrow_t(len, tag);
}
/* Six words are taken however many were given, as the kernel does; the address sanitizer would ask whose the others are. */
__attribute__((no_sanitize_address)) long __wrap_syscall(long nr, ...)
{
	long a[6];
	va_list ap;

	va_start(ap, nr);
	for (long &x : a)
		x = va_arg(ap, long);
	va_end(ap);
	/*
	 * Only those that wait. The kernel knows no wake that is interrupted: futex(2) lists EINTR for waits alone, a wake
	 * sleeps nowhere but for a page of the word, which a fatal signal alone cuts short. To refuse one here is to lose it:
	 * whoever it was meant for may sleep on, which says nothing about the library.
	 */
	const long op = a[1] & FUTEX_CMD_MASK;
	if ((nr == SYS_futex && (op == FUTEX_WAIT || op == FUTEX_WAIT_BITSET) && strikes(K_FUTEX, EINTR)) ||
	    (nr == SYS_membarrier && strikes(K_MEMBARRIER, EPERM)) || (nr == SYS_pidfd_open && strikes(K_PIDFD, EMFILE)))
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

void use_pollset(struct ch_pool *pool)
{
	struct ch_channel *ch = nullptr;
	struct ch_pollset *set = nullptr;
	struct ch_poll_event ready[2];

	if (SAID(ch_channel_create(pool, nullptr, &ch)) < 0)
		return;
	if (SAID(ch_pollset_create(nullptr, &set)) == 0) {
		const bool is_in = SAID(ch_pollset_add(set, ch, CH_POLL_IN, 7)) == 0;
		const int fd = SAID(ch_pollset_fd(set)); /* the set's own */
		SAID(ch_pollset_wait(set, ready, 2, MS));
		if (SAID(ch_channel_send(ch, "a", 1, CH_TRY)) == 0 && is_in)
			EXPECT(ch_pollset_wait(set, ready, 2, CH_FOREVER) == 1 && ready[0].user_data == 7);
		(void)fd;
		ch_pollset_destroy(set);
	}
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
	use_pollset(pool);
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

int works(const void *arg, size_t)
{
	use_segment(0);
	return *static_cast<const int *>(arg);
}

/* A spawner that had no descriptor for its signals is gone: -EPIPE. */
void spawn()
{
	struct ch_spawner *sp = nullptr;
	struct ch_peer peer;
	struct ch_exit e;
	int nr = 0;

	if (SAID(ch_spawner_create(&sp)) < 0)
		return;
	for (int i = 0; i < 2; i++) {
		const int rc = ch_spawner_spawn(sp, works, &i, sizeof(i), static_cast<uint64_t>(i), &peer);
		if (rc != -EPIPE)
			said(rc, "ch_spawner_spawn");
		EXPECT(rc < 0 || peer.id != 0);
		nr += rc == 0;
	}
	for (; nr > 0; nr--) {
		EXPECT(ch_spawner_wait(sp, CH_FOREVER, &e) == 0);
		EXPECT(e.peer.id != 0 && WIFEXITED(e.status) && WEXITSTATUS(e.status) == static_cast<int>(e.cookie));
	}
	ch_spawner_destroy(sp);
}

/* What they throw is documented, too. */
template <class F> void tried(F f, const char *what)
{
	try {
		f();
	} catch (const ch::error &e) {
		if (!is_documented(-e.code().value()) && e.code().value() != EOWNERDEAD) { /* a manager that could not begin */
			fprintf(stderr, "%s said %d: %s\n", what, e.code().value(), e.what());
			_exit(2);
		}
	}
}

void tasks()
{
	tried(
		[] {
			ch::pool pool(ch::pool_options{.workers = 1, .memory = 1 << 20});

			EXPECT(pool.submit([](int a) { return a + 1; }, 4).get() == 5);
		},
		"a pool");
}

void dict()
{
	tried(
		[] {
			ch::ddict<std::string, int> d({.managers = 1, .memory = 1 << 20});

			d.put("a", 3);
			EXPECT(d.get("a") == 3);
		},
		"a dictionary");
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

void arm(int k, int n)
{
	count->left = n;
	armed = k;
}

/* Orphans come to this process, a subreaper, and have all the time they need to end. */
bool no_process_is_left()
{
	const int64_t from = now_ns();
	pid_t pid = 0;

	while (now_ns() - from < 10000 * MS && (pid = waitpid(-1, nullptr, WNOHANG)) >= 0)
		usleep(200);
	return is_gone("processes", 0, pid >= 0);
}

/* The keeper's thread, its socket and its look at a neighbour come with the first use and stay. */
bool run_fresh(void (*script)(), int k, int n)
{
	const int fds = nr_entries("/proc/self/fd"), files = nr_entries("/dev/shm");

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	arm(k, n);
	script();
	armed = -1;
	return no_process_is_left() && is_gone("descriptors", fds + 1, nr_entries("/proc/self/fd")) &&
	       is_gone("files", files, nr_entries("/dev/shm"));
}

bool run_work(int k, int n)
{
	struct ch_pool *pool = new_pool(0);
	struct ch_pool_stats before;

	EXPECT(pool && ch_pool_get_stats(pool, &before) == 0);
	const int fds = nr_entries("/proc/self/fd"), files = nr_entries("/dev/shm");
	arm(k, n);
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

const struct script {
	const char *name;
	void (*run)(); /* NULL: in a pool that is there already */
} scripts[] = { { "life", life }, { "work", nullptr }, { "spawn", spawn }, { "tasks", tasks }, { "dict", dict } };

struct job {
	int k, n;
	const script *s;
};

int in_child(void *arg)
{
	const job &j = *static_cast<job *>(arg);

	if (!(j.s->run ? run_fresh(j.s->run, j.k, j.n) : run_work(j.k, j.n)))
		return 1;
	return count->has_struck ? STRUCK : NOT_STRUCK;
}

/* How many calls of this kind were made to fail; -1: one of them went wrong. */
int fail_each(int k, const script &s, int only)
{
	for (int n = only ? only : 1; n < 2000; n++) {
		job j = { k, n, &s };
		count->has_struck = false;
		const int status = child_end(child_start(in_child, &j));

		if (status == NOT_STRUCK || only)
			return n - 1;
		if (status != STRUCK) {
			fprintf(stderr, "FAIL: %s number %d of %s: status %d\n", names[k], n, s.name, status);
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
	void *p = mmap(nullptr, sizeof(counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	EXPECT(p != MAP_FAILED);
	count = new (p) counts{};
	for (int k = 0; k < NR_KINDS; k++)
		for (const script &s : scripts) {
			if ((argc > 1 && strcmp(argv[1], names[k])) || (argc > 2 && strcmp(argv[2], s.name)))
				continue;
			const int n = fail_each(k, s, argc > 3 ? atoi(argv[3]) : 0);
			ok &= n >= 0;
			sum += n > 0 ? n : 0;
			printf("%-14s %-5s: %d calls failed\n", names[k], s.name, n);
			fflush(stdout);
		}
	printf("%s: %d failures\n", ok && (sum || argc > 1) ? "PASS" : "FAIL", sum);
	return ok && (sum || argc > 1) ? 0 : 1;
}

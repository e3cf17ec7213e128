/* SPDX-License-Identifier: Apache-2.0 */
/*
 * support.h - what the process tests share: children with a watchdog, a board in shared memory to meet at, seeds,
 * and a check that a pool is as it was. C11 and C++20. Public API only.
 */
#ifndef TESTS_SUPPORT_H
#define TESTS_SUPPORT_H
#include <channels/channels.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MS ((int64_t)1000000)
/*
 * gcc 12's address sanitizer does not guard its allocator across fork: a child may find a lock of it taken for ever if
 * a thread of the parent is in it at that moment. Seen with gdb: the sanitizer itself asks for memory when a thread begins,
 * here the child's keeper, and waits for the lock of a size class. Tests that fork beside threads on purpose are left out.
 */
#ifdef __SANITIZE_ADDRESS__
#define NOT_UNDER_ASAN true
#define WATCHDOG_S 60
#else
#define NOT_UNDER_ASAN false
#define WATCHDOG_S 120 /* no test needs a tenth of it; a child that hangs is killed by SIGALRM */
#endif
#define SUPPORT __attribute__((unused)) static

/* In a child: say where, and leave with status 1. */
#define EXPECT(cond)                                                                                          \
	do {                                                                                                  \
		if (!(cond)) {                                                                                \
			fprintf(stderr, "%s:%d: child %d: %s is not so (%s)\n", __FILE__, __LINE__, getpid(), \
				#cond, ch_errmsg());                                                          \
			_exit(1);                                                                             \
		}                                                                                             \
	} while (0)

/* Look again until it is so; the watchdog of the test bounds it. */
#define AWAIT(cond)                                     \
	do {                                            \
		for (int tries_ = 0; !(cond); tries_++) \
			longer_nap(tries_);             \
	} while (0)

/* From 50 us to 3.2 ms: dozens of processes that wait so leave the processors to the others. */
SUPPORT void longer_nap(int tries)
{
	const struct timespec nap = { 0, 50000L << (tries / 16 < 6 ? tries / 16 : 6) };

	nanosleep(&nap, NULL);
}

SUPPORT void short_nap(void)
{
	longer_nap(0);
}

SUPPORT int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* The seed of a random test: CH_TEST_SEED, or the clock's. Printed, so that a failure can be run again. */
SUPPORT uint64_t test_seed(void)
{
	const char *given = getenv("CH_TEST_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)now_ns();

	fprintf(stderr, "CH_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

/* xorshift64*, Vigna 2014. */
SUPPORT uint64_t rnd(uint64_t *state)
{
	uint64_t x = *state ? *state : 88172645463325252u;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * UINT64_C(0x2545F4914F6CDD1D) >> 16;
}

/* Byte i of message number seq of sender who: every byte depends on all three. */
SUPPORT unsigned char pattern(uint64_t who, uint64_t seq, size_t i)
{
	return (unsigned char)(who * 31 + seq * 7 + i * 13 + (i >> 8) + 5);
}

SUPPORT void fill(void *buf, size_t len, uint64_t who, uint64_t seq)
{
	unsigned char *p = (unsigned char *)buf;

	for (size_t i = 0; i < len; i++)
		p[i] = pattern(who, seq, i);
}

SUPPORT int is_filled(const void *buf, size_t len, uint64_t who, uint64_t seq)
{
	const unsigned char *p = (const unsigned char *)buf;

	for (size_t i = 0; i < len; i++)
		if (p[i] != pattern(who, seq, i))
			return 0;
	return 1;
}

/* Children: they die with their parent and of SIGALRM if they hang. */
SUPPORT pid_t child_start(int (*fn)(void *arg), void *arg)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(WATCHDOG_S);
		_exit(fn(arg));
	}
	return pid;
}

/* Its exit status, or minus the signal that ended it. */
SUPPORT int child_end(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1000;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

SUPPORT int child_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	return child_end(pid);
}

/* Whether this child is over already; child_end still has to be called. */
SUPPORT int has_ended(pid_t pid)
{
	siginfo_t info;

	memset(&info, 0, sizeof(info));
	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == pid;
}

/* Reads a small file of /proc; its length, or less than 1. */
SUPPORT ssize_t read_proc(pid_t pid, const char *name, char *text, size_t cap)
{
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, cap - 1);
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	return n;
}

/* Waits until the main thread of pid is blocked in the kernel: in a futex call where that can be seen. */
SUPPORT void await_asleep(pid_t pid)
{
	char text[512], state;
	long call;

	for (int tries = 0;; longer_nap(tries++)) {
		if (read_proc(pid, "stat", text, sizeof(text)) < 1 || sscanf(text, "%*d %*s %c", &state) != 1 || state == 'Z') {
			fprintf(stderr, "process %d was to sleep, but it has ended\n", (int)pid);
			abort();
		}
		if (read_proc(pid, "syscall", text, sizeof(text)) < 1) {
			if (state == 'S')
				return;
		} else if (sscanf(text, "%ld", &call) == 1 && (call == SYS_futex || call == 449)) {
			return;
		}
	}
}

/* A board in anonymous shared memory where parent and children meet. Words are used with the functions below. */
struct board {
	int step[16];
	int64_t value[16];
	struct ch_descr descr;
	char text[256];
};

SUPPORT struct board *board_new(void)
{
	void *p = mmap(NULL, sizeof(struct board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : (struct board *)p;
}

SUPPORT void post(struct board *b, int which)
{
	__atomic_add_fetch(&b->step[which], 1, __ATOMIC_SEQ_CST);
}

SUPPORT int posted(struct board *b, int which)
{
	return __atomic_load_n(&b->step[which], __ATOMIC_SEQ_CST);
}

SUPPORT void await_post(struct board *b, int which)
{
	AWAIT(posted(b, which) > 0);
}

/* Blocks until the parent kills this child. */
SUPPORT int wait_to_be_killed(void)
{
	for (;;)
		pause();
	return 0;
}

/*
 * Whether a pool holds exactly what it held before, or will soon: another process may be about to sweep the dead, who are
 * then left to it. Says what differs.
 */
SUPPORT int pool_is_as_before(struct ch_pool *pool, const struct ch_pool_stats *before)
{
	struct ch_pool_stats now;
	int err;

	for (int tries = 0; tries < 500; longer_nap(tries++)) {
		while ((err = ch_pool_sweep(pool)) > 0)
			;
		if (err < 0 || (err = ch_pool_get_stats(pool, &now)) < 0) {
			fprintf(stderr, "pool: %s\n", strerror(-err));
			return 0;
		}
		if (now.used == before->used && now.nr_used == before->nr_used && now.largest == before->largest &&
		    now.len == before->len && now.nr_channels == before->nr_channels)
			return 1;
	}
	fprintf(stderr, "pool: used %llu in %llu blocks, largest %llu, %u channels; was %llu in %llu, %llu, %u\n",
		(unsigned long long)now.used, (unsigned long long)now.nr_used, (unsigned long long)now.largest,
		now.nr_channels, (unsigned long long)before->used, (unsigned long long)before->nr_used,
		(unsigned long long)before->largest, before->nr_channels);
	return 0;
}

/* The file in /dev/shm that a segment is, found by where it is mapped. */
SUPPORT void segment_path(const struct ch_segment *seg, char *out, size_t cap)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	uintptr_t addr = (uintptr_t)ch_segment_addr(seg), begin, end;
	char line[600], *slash;

	out[0] = '\0';
	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx", &begin, &end) == 2 && begin <= addr && addr < end &&
		    (slash = strchr(line, '/')) != NULL) {
			slash[strcspn(slash, " \n")] = '\0';
			snprintf(out, cap, "%s", slash);
		}
	if (maps)
		fclose(maps);
}

/* Small pool of its own for one test. */
SUPPORT struct ch_pool *pool_of(uint64_t len)
{
	struct ch_pool_attr attr = CH_POOL_ATTR_INIT;
	struct ch_pool *pool = NULL;
	int err;

	attr.len = len;
	attr.max_peers = 128;
	err = ch_pool_create(&attr, &pool);
	if (err < 0)
		fprintf(stderr, "pool of %llu bytes: %s: %s\n", (unsigned long long)len, strerror(-err), ch_errmsg());
	return pool;
}

#endif

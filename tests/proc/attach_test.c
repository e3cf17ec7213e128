/* SPDX-License-Identifier: Apache-2.0 */
/* Thousands of processes attached to one segment: all are known, the table is as long as it says, and deaths are all swept. */
#include "../support/support.h"
#include <criterion/criterion.h>
#include <sys/resource.h>

#ifdef __SANITIZE_ADDRESS__ /* each process is ten times as large, and slower */
#define USUAL 200
#else
#define USUAL 1000
#endif

static struct ch_pool *crowd_pool(uint32_t max_peers)
{
	struct ch_pool_attr attr = CH_POOL_ATTR_INIT;
	struct ch_pool *pool = NULL;

	attr.len = max_peers > 1000 ? 4 << 20 : 1 << 20;
	attr.max_peers = max_peers;
	cr_assert_eq(ch_pool_create(&attr, &pool), 0, "%s", ch_errmsg());
	return pool;
}

/* How many more processes this user and this machine allow, each with the one thread that comes with an attachment. */
static uint32_t room_for(uint32_t nr)
{
	struct rlimit limit;
	unsigned long pids = 32768, threads = 32768, mem_kib = 0;
	char line[128];
	FILE *f;

	if ((f = fopen("/proc/sys/kernel/pid_max", "re")) != NULL) {
		if (fscanf(f, "%lu", &pids) != 1)
			pids = 32768;
		fclose(f);
	}
	if ((f = fopen("/proc/sys/kernel/threads-max", "re")) != NULL) {
		if (fscanf(f, "%lu", &threads) != 1)
			threads = 32768;
		fclose(f);
	}
	if (getrlimit(RLIMIT_NPROC, &limit) == 0 && geteuid() != 0 && limit.rlim_cur < threads)
		threads = limit.rlim_cur;
	if ((f = fopen("/proc/meminfo", "re")) != NULL) {
		while (fgets(line, sizeof(line), f) && sscanf(line, "MemAvailable: %lu kB", &mem_kib) != 1)
			;
		fclose(f);
	}
	pids = pids < threads ? pids : threads;
	pids = pids / 3 < mem_kib / 1024 ? pids / 3 : mem_kib / 1024; /* a MiB each, and half of it for others */
	return pids < nr ? (uint32_t)pids : nr;
}

/* What this thread has used of processors. */
static int64_t used_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Grandchildren attach by using an inherited handle, tell, and wait to be killed. Without a pool there is no attaching. */
static int brings_many(void *arg)
{
	struct board *b = arg;
	struct ch_pool *pool = (struct ch_pool *)(uintptr_t)b->value[0];
	int64_t from;
	void *p;

	for (int64_t i = 0; i < b->value[1]; i++) {
		const pid_t pid = fork();

		if (pid < 0)
			break;
		if (pid > 0)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		from = used_ns();
		if (!pool || ch_pool_alloc(pool, 100, CH_TRY, &p) == 0) {
			__atomic_add_fetch(&b->value[2], used_ns() - from, __ATOMIC_SEQ_CST);
			post(b, 0);
		} else {
			post(b, 1);
		}
		return wait_to_be_killed();
	}
	return wait_to_be_killed();
}

/* Starts nr of them and says what one of the first took, of the next, and of the last. */
static pid_t bring(struct board *b, struct ch_pool *pool, uint32_t nr)
{
	const int64_t begin = now_ns();
	pid_t pid;

	b->value[0] = (int64_t)(uintptr_t)pool;
	b->value[1] = nr;
	pid = child_start(brings_many, b);
	for (uint32_t n = nr < 100 ? nr : 100, last = 0; last < nr; last = n, n = n * 10 < nr ? n * 10 : nr) {
		const int64_t from = now_ns(), used = __atomic_load_n(&b->value[2], __ATOMIC_SEQ_CST);

		AWAIT(posted(b, 0) + posted(b, 1) >= (int)n || has_ended(pid));
		fprintf(stderr, "%u to %u: %.0f us for a process to be forked%s, %.0f us of a processor in the call\n",
			last, n, (double)(now_ns() - from) / 1e3 / (n - last), pool ? " and to attach" : "",
			(double)(__atomic_load_n(&b->value[2], __ATOMIC_SEQ_CST) - used) / 1e3 / (n - last));
	}
	fprintf(stderr, "%u %s after %.1f s\n", nr, pool ? "attached" : "forked", (double)(now_ns() - begin) / 1e9);
	return pid;
}

Test(attach, thousands_attach_and_die_and_leave_nothing, .timeout = 100)
{
	const uint32_t nr = room_for(getenv("CH_MANY") ? 10000 : USUAL);
	struct ch_pool *pool = crowd_pool(nr + 16);
	struct board *b = board_new();
	struct ch_pool_stats st;
	const int64_t begin = now_ns();
	uint32_t seen;
	pid_t pid;

	cr_assert_geq(nr, 10);
	if (getenv("CH_MANY")) { /* what as many cost that do not attach, and are gone before the others come */
		prctl(PR_SET_CHILD_SUBREAPER, 1);
		child_kill(bring(board_new(), NULL, nr));
		while (wait(NULL) > 0)
			;
		prctl(PR_SET_CHILD_SUBREAPER, 0);
	}
	pid = bring(b, pool, nr);
	cr_assert_eq(posted(b, 1), 0, "an attachment was refused");
	cr_assert_eq(ch_pool_get_stats(pool, &st), 0);
	seen = st.nr_peers;
	cr_assert_eq(st.nr_used, nr);
	child_kill(pid); /* and all it brought with it */
	do {
		ch_pool_sweep(pool);
		cr_assert_eq(ch_pool_get_stats(pool, &st), 0);
	} while (st.nr_peers > 1);
	cr_assert_eq(st.nr_used, 0);
	fprintf(stderr, "all swept after %.1f s\n", (double)(now_ns() - begin) / 1e9);
	cr_assert_eq(seen, nr + 1);
	ch_pool_destroy(pool);
}

static int uses_it(void *arg)
{
	void *p;

	return ch_pool_alloc(arg, 100, CH_TRY, &p) == -ENOSPC ? 7 : 0;
}

static int holds_it(void *arg)
{
	struct board *b = arg;
	void *p;

	EXPECT(ch_pool_alloc((struct ch_pool *)(uintptr_t)b->value[0], 100, CH_TRY, &p) == 0);
	post(b, 0);
	return wait_to_be_killed();
}

/* At 63, 64 and 65 the bits of the table fill a word, and one more. */
Test(attach, the_last_place_is_found_and_the_one_after_it_refused)
{
	const uint32_t sizes[] = { 2, 3, 63, 64, 65, 128 };

	for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
		struct ch_pool *pool = crowd_pool(sizes[k]);
		struct board *b = board_new();
		struct ch_pool_stats st;
		pid_t pid[128];

		b->value[0] = (int64_t)(uintptr_t)pool;
		for (uint32_t i = 1; i < sizes[k]; i++)
			pid[i] = child_start(holds_it, b);
		AWAIT(posted(b, 0) == (int)sizes[k] - 1);
		cr_assert_eq(ch_pool_get_stats(pool, &st), 0);
		cr_assert_eq(st.nr_peers, sizes[k]);
		cr_assert_eq(child_end(child_start(uses_it, pool)), 7, "%u places", sizes[k]);
		child_kill(pid[1]);
		cr_assert_eq(child_end(child_start(uses_it, pool)), 0, "a dead one's place is free");
		for (uint32_t i = 2; i < sizes[k]; i++)
			child_kill(pid[i]);
		ch_pool_sweep(pool);
		ch_pool_destroy(pool);
		munmap(b, sizeof(*b));
	}
}

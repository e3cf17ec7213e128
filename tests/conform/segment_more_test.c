/* SPDX-License-Identifier: Apache-2.0 */
/* Segments: handed over by descriptor, read-only, locked, huge, for a group; and what dead jobs left. */
#define _GNU_SOURCE
#include "../support/support.h"
#include <criterion/criterion.h>
#include <grp.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>

static struct ch_segment *segment_of(const struct ch_segment_attr *attr)
{
	struct ch_segment *seg = NULL;

	cr_assert_eq(ch_segment_create(attr, &seg), 0, "%s", ch_errmsg());
	return seg;
}

static struct ch_segment_info info_of(struct ch_segment *seg)
{
	struct ch_segment_info info;

	cr_assert_eq(ch_segment_get_info(seg, &info), 0, "%s", ch_errmsg());
	return info;
}

/* ---- by file descriptor */

static void send_fd(int sock, int fd)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec byte = { "x", 1 };
	struct msghdr m = { .msg_iov = &byte, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	cr_assert_eq(sendmsg(sock, &m, 0), 1);
}

static int recv_fd(int sock)
{
	char data, control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct iovec byte = { &data, 1 };
	struct msghdr m = { .msg_iov = &byte, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	int fd;

	EXPECT(recvmsg(sock, &m, 0) == 1 && CMSG_FIRSTHDR(&m));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
	return fd;
}

static int attaches_what_it_is_handed(void *arg)
{
	const int sock = *(int *)arg, fd = recv_fd(sock);
	struct ch_segment *seg = NULL, *again = NULL;
	struct ch_pool_attr attr = CH_POOL_ATTR_INIT;
	struct ch_pool *pool = NULL;
	struct ch_descr d;

	EXPECT(ch_segment_attach_fd(fd, 0, &seg) == 0);
	close(fd);
	EXPECT(is_filled(ch_segment_addr(seg), 1000, 1, 2));
	EXPECT(ch_segment_get_descr(seg, &d) == 0 && ch_segment_attach(&d, &again) == 0 && again == seg);
	memset(ch_segment_addr(seg), 0, 1000);
	attr.segment = seg;
	EXPECT(ch_pool_create(&attr, &pool) == 0);
	ch_pool_detach(pool);
	ch_segment_detach(again);
	ch_segment_detach(seg);
	return 0;
}

/* The child is forked before there is a segment: it is a stranger. */
Test(segment_more, a_nameless_one_is_attached_by_descriptor)
{
	struct ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
	struct ch_pool *pool = NULL;
	struct ch_segment *seg;
	struct ch_descr d;
	int sock[2], fd;
	pid_t pid;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock), 0);
	pid = child_start(attaches_what_it_is_handed, &sock[1]);
	attr.flags = CH_ANONYMOUS;
	attr.len = 1 << 20;
	seg = segment_of(&attr);
	cr_assert_eq(info_of(seg).flags & CH_ANONYMOUS, CH_ANONYMOUS);
	fill(ch_segment_addr(seg), 1000, 1, 2);
	fd = ch_segment_get_fd(seg);
	cr_assert_geq(fd, 0);
	cr_assert_lt(ftruncate(fd, 4096), 0, "it is sealed");
	send_fd(sock[0], fd);
	close(fd);
	cr_assert_eq(child_end(pid), 0);
	ch_segment_get_descr(seg, &d);
	cr_assert_eq(ch_pool_attach(&d, &pool), 0, "the child made one: %s", ch_errmsg());
	ch_pool_detach(pool);
	ch_segment_destroy(seg);
}

Test(segment_more, a_file_that_can_shrink_is_refused)
{
	struct ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
	struct ch_segment *seg = segment_of(&attr), *other = NULL;
	const int named = ch_segment_get_fd(seg), open = memfd_create("x", MFD_CLOEXEC);
	char page[4096];

	cr_assert_geq(named, 0);
	cr_assert_eq(pread(named, page, sizeof(page), 0), (ssize_t)sizeof(page));
	cr_assert_eq(pwrite(open, page, sizeof(page), 0), (ssize_t)sizeof(page));
	cr_assert_eq(ch_segment_attach_fd(open, 0, &other), -EACCES);
	cr_assert_eq(ch_segment_attach_fd(0, 0, &other), -EACCES);
	cr_assert_eq(ch_segment_attach_fd(-1, 0, &other), -EINVAL);
	cr_assert_eq(ch_segment_attach_fd(named, 1 << 30, &other), -EINVAL);
	cr_assert_eq(ch_segment_attach_fd(named, 0, &other), 0);
	cr_assert_eq(other, seg, "it has it already");
	ch_segment_detach(other);
	ch_segment_destroy(seg);
	cr_assert_eq(ch_segment_attach_fd(named, 0, &other), -ESTALE);
	close(named);
	close(open);
}

/* ---- read-only */

Test(segment_more, a_read_only_attachment_looks_and_changes_nothing)
{
	struct ch_pool *pool = pool_of(1 << 20), *ro = NULL;
	struct ch_segment *seg = NULL;
	struct ch_channel *ch = NULL, *bad = NULL;
	struct ch_pool_stats st, st_ro;
	struct ch_descr d, dch;
	void *p, *q;

	cr_assert_eq(ch_pool_alloc(pool, 100, CH_TRY, &p), 0);
	fill(p, 100, 3, 4);
	cr_assert_eq(ch_channel_create(pool, NULL, &ch), 0);
	ch_channel_get_descr(ch, &dch);
	ch_pool_get_descr(pool, &d);
	cr_assert_eq(ch_pool_attach_with(&d, CH_READ_ONLY, &ro), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_segment_attach_with(&d, NULL, CH_READ_ONLY, &seg), 0);
	cr_assert_neq(ch_segment_addr(seg), NULL);
	cr_assert_eq(info_of(seg).flags & CH_READ_ONLY, CH_READ_ONLY);
	cr_assert_eq(ch_pool_get_stats(pool, &st), 0);
	cr_assert_eq(ch_pool_get_stats(ro, &st_ro), 0);
	cr_assert_eq(memcmp(&st, &st_ro, sizeof(st)), 0);
	cr_assert_eq(st_ro.nr_peers, 1, "it takes no place");
	cr_assert_eq(ch_pool_alloc(ro, 100, CH_TRY, &q), -EPERM);
	cr_assert_eq(ch_pool_alloc(ro, 100, CH_FOREVER, &q), -EPERM);
	cr_assert_eq(ch_pool_sweep(ro), -EPERM);
	cr_assert_eq(ch_channel_create(ro, NULL, &bad), -EPERM);
	ch_pool_destroy(ro);
	ch_segment_destroy(seg);
	cr_assert_eq(ch_pool_get_stats(pool, &st), 0, "what is read-only destroys nothing: %s", ch_errmsg());
	cr_assert_eq(ch_pool_free(pool, p), 0);
	ch_channel_destroy(ch);
	ch_pool_destroy(pool);
}

/* ---- locked, huge, not touched */

Test(segment_more, locking_that_fails_is_an_error_and_leaves_nothing)
{
	struct ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
	const struct rlimit small = { 1 << 20, 1 << 20 };
	struct ch_segment *seg = NULL;
	int err;

	attr.flags = CH_LOCKED;
	attr.len = 512 << 10;
	err = ch_segment_create(&attr, &seg);
	if (err == 0) {
		cr_assert_eq(info_of(seg).flags & CH_LOCKED, CH_LOCKED);
		ch_segment_destroy(seg);
	}
	if (geteuid() == 0) { /* whom the limit does not bind */
		cr_assert_eq(setgroups(0, NULL), 0);
		cr_assert_eq(setresuid(65534, 65534, 65534), 0);
	}
	cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &small), 0);
	attr.len = 8 << 20;
	seg = NULL;
	err = ch_segment_create(&attr, &seg);
	cr_assert(err == -ENOMEM || err == -EAGAIN || err == -EPERM, "%d: %s", err, ch_errmsg());
	cr_assert_null(seg);
}

Test(segment_more, huge_pages_are_a_wish_and_the_outcome_can_be_read)
{
	for (uint32_t nameless = 0; nameless < 2; nameless++) {
		struct ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
		struct ch_segment_info info;
		struct ch_segment *seg;

		attr.flags = CH_HUGE_PAGES | (nameless ? CH_ANONYMOUS : 0);
		attr.len = 6 << 20;
		seg = segment_of(&attr);
		memset(ch_segment_addr(seg), 1, ch_segment_len(seg));
		info = info_of(seg);
		cr_assert_geq(info.len, attr.len);
		cr_assert_leq(info.huge_len, info.file_len);
		cr_assert_eq(!!(info.flags & CH_HUGE_PAGES), info.huge_len != 0);
		fprintf(stderr, "%zu of %zu KiB in huge pages\n", (size_t)info.huge_len >> 10, (size_t)info.file_len >> 10);
		ch_segment_destroy(seg);
	}
}

/* The number of huge pages that the machine sets aside; a new one if n >= 0. -1: it can't be said. */
static long huge_pages(long n)
{
	FILE *f = fopen("/proc/sys/vm/nr_hugepages", n < 0 ? "re" : "we");
	long got = -1;

	if (f && (n < 0 ? fscanf(f, "%ld", &got) : fprintf(f, "%ld", n)) < 1)
		got = -1;
	if (f && fclose(f) != 0)
		got = -1;
	return got;
}

static int uses_it_too(void *arg)
{
	volatile char *p = ch_segment_addr(arg);

	EXPECT(p && p[0] == 1 && p[(6 << 20) - 1] == 1);
	p[1] = 2;
	return 0;
}

/* 7: somebody else has them. */
static int lives_in_huge_pages(void *arg)
{
	struct ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
	struct ch_segment_info info;
	struct ch_segment *seg = NULL, *more = NULL;

	(void)arg;
	attr.flags = CH_HUGE_PAGES | CH_ANONYMOUS;
	attr.len = 7 << 20;
	EXPECT(ch_segment_create(&attr, &seg) == 0 && ch_segment_get_info(seg, &info) == 0);
	if (info.huge_len != info.file_len)
		return 7;
	EXPECT(info.flags & CH_HUGE_PAGES);
	EXPECT(info.file_len % (2 << 20) == 0 && (uintptr_t)ch_segment_addr(seg) != 0);
	memset(ch_segment_addr(seg), 1, attr.len);
	EXPECT(child_end(child_start(uses_it_too, seg)) == 0);
	EXPECT(((volatile char *)ch_segment_addr(seg))[1] == 2);
	attr.len = 64 << 20; /* more than there are: it comes in other pages */
	EXPECT(ch_segment_create(&attr, &more) == 0);
	memset(ch_segment_addr(more), 1, attr.len);
	ch_segment_destroy(more);
	ch_segment_destroy(seg);
	return 0;
}

/* Where the machine lets us set some aside. They are the machine's, so a child uses them and its death changes nothing. */
Test(segment_more, huge_pages_that_were_set_aside_are_used)
{
	const long before = huge_pages(-1);
	int rc = 7;

	if (before >= 0) {
		huge_pages(before + 8);
		if (huge_pages(-1) >= before + 8)
			rc = child_end(child_start(lives_in_huge_pages, NULL));
		huge_pages(before);
	}
	if (rc == 7)
		cr_skip_test("no huge pages can be set aside here");
	cr_assert_eq(rc, 0);
}

static size_t resident_kib(const void *addr)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long begin, end;
	size_t kib = 0, sum = 0;
	int is_ours = 0;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &begin, &end) == 2)
			is_ours = begin <= (uintptr_t)addr && (uintptr_t)addr < end;
		else if (is_ours && sscanf(line, "Rss: %zu kB", &kib) == 1)
			sum += kib;
	}
	fclose(f);
	return sum;
}

Test(segment_more, touching_the_memory_beforehand_is_a_choice)
{
	struct ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
	struct ch_segment *seg;

	attr.len = 4 << 20;
	seg = segment_of(&attr);
	cr_assert_geq(resident_kib(ch_segment_addr(seg)), 4096);
	ch_segment_destroy(seg);
	attr.flags = CH_NO_PREFAULT;
	seg = segment_of(&attr);
	cr_assert_lt(resident_kib(ch_segment_addr(seg)), 4096);
	cr_assert_geq(info_of(seg).backed_len, 4 << 20, "it is reserved nonetheless");
	ch_segment_destroy(seg);
}

/* ---- other users */

static int another_user_attaches(void *arg)
{
	struct board *b = arg;
	struct ch_pool *pool = NULL;
	void *p;
	gid_t group = 4242;

	await_post(b, 0);
	EXPECT(setgroups(1, &group) == 0 && setresuid(65534, 65534, 65534) == 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	EXPECT(ch_pool_attach(&b->descr, &pool) == 0);
	EXPECT(ch_pool_alloc(pool, 1000, CH_TRY, &p) == 0);
	post(b, 1);
	return wait_to_be_killed();
}

static int a_stranger_is_refused(void *arg)
{
	struct board *b = arg;
	struct ch_segment *seg = NULL;

	await_post(b, 0);
	EXPECT(setgroups(0, NULL) == 0 && setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
	EXPECT(ch_segment_attach(&b->descr, &seg) == -EACCES);
	return 0;
}

Test(segment_more, a_group_may_be_let_in_and_its_deaths_are_noticed)
{
	struct ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
	struct ch_pool_attr pattr = CH_POOL_ATTR_INIT;
	struct board *b = board_new();
	struct ch_pool *pool = NULL;
	struct ch_pool_stats st;
	struct ch_segment *seg;
	pid_t pid, stranger;

	if (geteuid() != 0)
		cr_skip_test("only root can become another user");
	if (setgroups(0, NULL) < 0)
		cr_skip_test("no other users here");
	pid = child_start(another_user_attaches, b);
	stranger = child_start(a_stranger_is_refused, b);
	attr.flags = CH_GROUP;
	attr.group = 4242;
	attr.len = 1 << 20;
	seg = segment_of(&attr);
	cr_assert_eq(info_of(seg).mode, 0660);
	cr_assert_eq(info_of(seg).gid, 4242);
	pattr.segment = seg;
	cr_assert_eq(ch_pool_create(&pattr, &pool), 0);
	ch_pool_get_descr(pool, &b->descr);
	post(b, 0);
	cr_assert_eq(child_end(stranger), 0);
	await_post(b, 1);
	child_kill(pid);
	ch_pool_sweep(pool);
	cr_assert_eq(ch_pool_get_stats(pool, &st), 0);
	cr_assert_eq(st.nr_used, 0);
	cr_assert_eq(st.nr_peers, 1);
	ch_pool_detach(pool);
	ch_segment_destroy(seg);
}

/* ---- listed and reclaimed */

/* Criterion runs tests side by side, and these reclaim what another of them means to find. Ends with the process. */
static void one_at_a_time(void)
{
	cr_assert_eq(flock(open("/proc/self/exe", O_RDONLY | O_CLOEXEC), LOCK_EX), 0);
}

struct found {
	const char *name;
	struct ch_segment_info info;
	int nr;
};

static int find(const struct ch_segment_info *info, void *arg)
{
	struct found *f = arg;

	if (strcmp(info->name, f->name) != 0)
		return 0;
	f->info = *info;
	f->nr++;
	return 0;
}

static int leaves_a_segment(void *arg)
{
	struct board *b = arg;
	struct ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
	struct ch_segment *seg = NULL;

	attr.name = b->text;
	attr.len = 100 << 10;
	EXPECT(ch_segment_create(&attr, &seg) == 0);
	post(b, 0);
	return wait_to_be_killed();
}

static struct board *left_behind(const char *name)
{
	struct board *b = board_new();
	pid_t pid;

	snprintf(b->text, sizeof(b->text), "%s", name);
	pid = child_start(leaves_a_segment, b);
	await_post(b, 0);
	cr_assert_eq(ch_segment_reclaim(name), 0, "its creator lives");
	child_kill(pid);
	return b;
}

Test(segment_more, what_a_dead_job_left_is_listed_and_reclaimed, .init = one_at_a_time)
{
	struct found f = { "test-left", { 0 }, 0 };
	struct ch_segment *seg = NULL;

	left_behind(f.name);
	cr_assert_geq(ch_segment_list(find, &f), 1);
	cr_assert_eq(f.nr, 1);
	cr_assert_eq(f.info.len, 100 << 10);
	cr_assert_eq(f.info.nr_peers, 1);
	cr_assert_eq(f.info.nr_alive, 0);
	cr_assert_eq(f.info.is_creator_alive, 0);
	cr_assert_eq(ch_segment_reclaim(f.name), 1);
	cr_assert_eq(ch_segment_reclaim(f.name), 0);
	cr_assert_eq(ch_segment_attach_name(f.name, &seg), -ENOENT);
	cr_assert_eq(ch_segment_reclaim("no/name"), -EINVAL);
	cr_assert_eq(ch_segment_list(NULL, NULL), -EINVAL);
}

Test(segment_more, what_somebody_still_uses_is_not_reclaimed, .init = one_at_a_time)
{
	struct ch_segment *seg = NULL;

	left_behind("test-used");
	cr_assert_eq(ch_segment_attach_name("test-used", &seg), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_segment_reclaim("test-used"), 0);
	cr_assert_eq(ch_segment_reclaim(NULL), 0);
	cr_assert_eq(ch_segment_get_fd(seg) >= 0, 1);
	ch_segment_detach(seg);
	cr_assert_eq(ch_segment_reclaim(NULL), 1);
}

Test(segment_more, a_segment_half_made_is_reclaimed, .init = one_at_a_time)
{
	const char *path = "/dev/shm/ch-00000000000000aa";
	const int fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0);
	close(fd);
	cr_assert_eq(ch_segment_reclaim("00000000000000aa"), 1);
	cr_assert_lt(access(path, F_OK), 0);
}

static int reclaims(void *arg)
{
	struct board *b = arg;
	int nr = 0;

	await_post(b, 1);
	while (!posted(b, 2))
		nr += ch_segment_reclaim(b->text);
	b->value[0] = nr;
	return 0;
}

/* Attachers against a reclaimer: whoever gets in has a segment with a name, and everybody else is told that it is gone. */
Test(segment_more, nobody_is_left_with_a_segment_that_was_reclaimed, .init = one_at_a_time)
{
	int nr_kept = 0, nr_gone = 0;

	for (int round = 0; round < 30; round++) {
		struct ch_segment *seg = NULL, *again = NULL;
		struct board *b = left_behind("test-race");
		pid_t pid = child_start(reclaims, b);
		int err;

		post(b, 1);
		for (int i = round % 7 * 300; i > 0; i--)
			sched_yield();
		err = ch_segment_attach_name("test-race", &seg);
		cr_assert(err == 0 || err == -ENOENT || err == -ESTALE, "%s", ch_errmsg());
		short_nap();
		if (err == 0) {
			struct ch_segment_info info;
			cr_assert_eq(ch_segment_get_info(seg, &info), 0, "it has lost its name: %s", ch_errmsg());
			cr_assert_eq(info.is_destroyed, 0);
			cr_assert_eq(ch_segment_attach_name("test-race", &again), 0);
			ch_segment_detach(again);
			ch_segment_detach(seg);
			nr_kept++;
		} else {
			nr_gone++;
		}
		post(b, 2);
		cr_assert_eq(child_end(pid), 0);
		cr_assert_eq(b->value[0] + ch_segment_reclaim("test-race"), 1, "once and for all");
		munmap(b, sizeof(*b));
	}
	fprintf(stderr, "kept %d, gone %d\n", nr_kept, nr_gone);
}

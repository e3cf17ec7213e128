/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment.h: files in /dev/shm that are no segment, or no longer a whole one, and processes that may not attach.
 * Each test works on a file that a child left behind, because a process that is attached already is not asked to
 * look at the file again. A segment begins with its magic (8 bytes) and its layout version (4 bytes).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* unshare */
#endif
#include "../support/support.h"
#include <criterion/criterion.h>
#include <sched.h>
#include <sys/mount.h>

TestSuite(segment_bad, .timeout = WATCHDOG_S);

static char name[64]; /* of the segment of this test */
static char path[256]; /* and its file */

static int make_and_leave(void *arg)
{
	struct board *b = arg;
	struct ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
	struct ch_segment *seg;

	attr.name = name;
	attr.len = 1 << 16;
	EXPECT(ch_segment_create(&attr, &seg) == 0);
	EXPECT(ch_segment_get_descr(seg, &b->descr) == 0);
	segment_path(seg, b->text, sizeof(b->text));
	return 0; /* without destroy or detach */
}

/* Leaves the file of a good segment, and gives its descriptor. */
static struct ch_descr leave_segment(void)
{
	struct board *b = board_new();

	snprintf(name, sizeof(name), "test-bad-%d", (int)getpid());
	cr_assert_eq(child_end(child_start(make_and_leave, b)), 0);
	strcpy(path, b->text);
	return b->descr;
}

static void overwrite(off_t at, const void *bytes, size_t len)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	cr_assert_geq(fd, 0);
	cr_assert_eq(pwrite(fd, bytes, len, at), (ssize_t)len);
	close(fd);
}

static void assert_attach(const struct ch_descr *d, int err)
{
	struct ch_segment *seg = NULL;
	struct ch_pool *pool = NULL;

	cr_expect_eq(ch_segment_attach_name(name, &seg), err, "%s", ch_errmsg());
	if (d)
		cr_expect_eq(ch_segment_attach(d, &seg), err, "%s", ch_errmsg());
	if (d && err)
		cr_expect_eq(ch_pool_attach(d, &pool), err, "%s", ch_errmsg());
	cr_expect_eq(seg == NULL, err != 0);
	if (err)
		cr_expect_str_neq(ch_errmsg(), "", "an error says what it is about");
	ch_segment_detach(seg);
}

Test(segment_bad, a_segment_whose_creator_died_can_be_attached)
{
	struct ch_descr d = leave_segment();
	struct ch_segment *seg = NULL;

	cr_assert_eq(ch_segment_attach(&d, &seg), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_segment_len(seg), 1 << 16);
	ch_segment_destroy(seg);
	cr_assert_eq(access(path, F_OK), -1);
}

Test(segment_bad, other_files_are_no_segments)
{
	const size_t len[] = { 0, 1, 7, 8, 63, 64, 4095, 4096, 1 << 16, 1 << 20 };
	uint64_t seed = test_seed();

	leave_segment();
	unlink(path);
	for (size_t i = 0; i < sizeof(len) / sizeof(*len); i++) {
		unsigned char *noise = malloc(len[i] + 1);
		int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

		cr_assert_geq(fd, 0);
		cr_assert_eq(ftruncate(fd, (off_t)len[i]), 0);
		assert_attach(NULL, -EPROTO); /* all zero */
		for (size_t k = 0; k < len[i]; k++)
			noise[k] = (unsigned char)rnd(&seed);
		cr_assert_eq(pwrite(fd, noise, len[i], 0), (ssize_t)len[i]);
		assert_attach(NULL, -EPROTO);
		free(noise);
		close(fd);
		unlink(path);
	}
}

Test(segment_bad, truncated_segment_is_refused)
{
	const off_t len[] = { 1 << 16, (1 << 16) - 1, 4096, 4095, 64, 12, 8, 1, 0 };
	struct ch_descr d = leave_segment();

	for (size_t i = 0; i < sizeof(len) / sizeof(*len); i++) {
		cr_assert_eq(truncate(path, len[i]), 0);
		assert_attach(&d, -EPROTO);
	}
	unlink(path);
}

Test(segment_bad, other_magic_is_refused)
{
	struct ch_descr d = leave_segment();

	overwrite(0, "NOTCHSEG", 8);
	assert_attach(&d, -EPROTO);
	unlink(path);
}

Test(segment_bad, other_layout_version_is_refused)
{
	struct ch_descr d = leave_segment();
	const uint32_t bad[] = { 0, 99, UINT32_MAX };

	for (size_t i = 0; i < 3; i++) {
		overwrite(8, &bad[i], sizeof(bad[i]));
		assert_attach(&d, -EPROTO);
	}
	unlink(path);
}

/* Whatever a byte of the header becomes, attach says yes or gives a documented code; and the process lives. */
Test(segment_bad, any_damaged_header_byte_is_survived)
{
	struct ch_descr d = leave_segment();
	unsigned char good[512], bad;
	int fd = open(path, O_RDWR | O_CLOEXEC), refused = 0;

	cr_assert_eq(pread(fd, good, sizeof(good), 0), (ssize_t)sizeof(good));
	for (size_t i = 0; i < sizeof(good) * 3; i++) {
		struct ch_segment *seg = NULL;
		int err;

		bad = (unsigned char)(good[i / 3] ^ (i % 3 == 0 ? 0x01 : i % 3 == 1 ? 0x80 : 0xff));
		cr_assert_eq(pwrite(fd, &bad, 1, (off_t)(i / 3)), 1);
		err = ch_segment_attach(&d, &seg);
		cr_assert(err == 0 || err == -EPROTO || err == -ESTALE || err == -EACCES || err == -EPERM ||
			  err == -ENOSPC || err == -EHOSTUNREACH, "byte %zu: %d", i / 3, err);
		if (err == 0)
			memset(ch_segment_addr(seg), 0, ch_segment_len(seg));
		refused += err < 0;
		ch_segment_detach(seg);
		cr_assert_eq(pwrite(fd, good, sizeof(good), 0), (ssize_t)sizeof(good));
	}
	cr_assert_gt(refused, 3 * 12, "magic and version at least");
	close(fd);
	unlink(path);
}

Test(segment_bad, a_directory_or_link_of_that_name_is_refused)
{
	struct ch_segment *seg = NULL;

	leave_segment();
	unlink(path);
	cr_assert_eq(mkdir(path, 0700), 0);
	cr_assert_lt(ch_segment_attach_name(name, &seg), 0);
	rmdir(path);
	cr_assert_eq(symlink("/etc/passwd", path), 0);
	cr_assert_lt(ch_segment_attach_name(name, &seg), 0);
	unlink(path);
	cr_assert_null(seg);
}

static int attach_as_nobody(void *arg)
{
	struct board *b = arg;
	struct ch_segment *seg;
	struct ch_channel *ch;

	if (getuid() == 0)
		EXPECT(setgid(65534) == 0 && setuid(65534) == 0);
	EXPECT(ch_segment_attach_name(name, &seg) == -EACCES);
	EXPECT(strstr(ch_errmsg(), name) != NULL); /* the message names the object */
	EXPECT(ch_segment_attach(&b->descr, &seg) == -EACCES);
	EXPECT(ch_channel_attach(&b->descr, &ch) < 0);
	return 0;
}

/* Root is let in everywhere: then the child becomes nobody, if it is a root that can. */
static int root_in_name_only(void)
{
	char map[64] = "";
	int fd = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
	unsigned long in = 0, out = 0, count = 0;

	if (fd >= 0 && read(fd, map, sizeof(map) - 1) > 0)
		sscanf(map, "%lu %lu %lu", &in, &out, &count);
	if (fd >= 0)
		close(fd);
	return getuid() == 0 && count < 65535;
}

Test(segment_bad, no_permission_is_said)
{
	struct board *b = board_new();

	if (root_in_name_only())
		cr_skip_test("the only user of this namespace is root");
	b->descr = leave_segment();
	cr_assert_eq(chmod(path, 0), 0);
	cr_assert_eq(child_end(child_start(attach_as_nobody, b)), 0);
	unlink(path);
}

static int attach_gives_eperm(void *arg)
{
	struct board *b = arg;
	struct ch_segment *seg = NULL;

	EXPECT(ch_segment_attach(&b->descr, &seg) == -EPERM);
	return 0;
}

static int attach_from_another_pid_namespace(void *arg)
{
	if (unshare(CLONE_NEWPID) < 0)
		return 77;
	return child_end(child_start(attach_gives_eperm, arg));
}

Test(segment_bad, another_pid_namespace_is_not_permitted)
{
	struct board *b = board_new();
	int status;

	b->descr = leave_segment();
	status = child_end(child_start(attach_from_another_pid_namespace, b));
	unlink(path);
	if (status == 77)
		cr_skip_test("may not make a pid namespace here");
	cr_assert_eq(status, 0);
}

/* Forked before the library looked at /dev/shm for the first time. */
static int attach_from_another_dev_shm(void *arg)
{
	struct board *b = arg;
	struct ch_segment *seg = NULL;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", "/dev/shm", "tmpfs", 0, NULL) < 0) {
		post(b, 1);
		return 77;
	}
	post(b, 1);
	await_post(b, 0);
	EXPECT(ch_segment_attach(&b->descr, &seg) == -EHOSTUNREACH);
	return 0;
}

Test(segment_bad, another_dev_shm_is_another_node)
{
	struct board *b = board_new();
	pid_t pid = child_start(attach_from_another_dev_shm, b);
	int status;

	await_post(b, 1);
	b->descr = leave_segment();
	post(b, 0);
	status = child_end(pid);
	unlink(path);
	if (status == 77)
		cr_skip_test("may not mount here");
	cr_assert_eq(status, 0);
}

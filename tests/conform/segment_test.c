/* SPDX-License-Identifier: Apache-2.0 */
/* segment.h: making, finding and leaving named shared memory. Bad files are in segment_bad_test.c. */
#include "../support/support.h"
#include <criterion/criterion.h>
#include <dirent.h>

TestSuite(segment, .timeout = WATCHDOG_S);

static struct ch_segment *create(uint64_t len, const char *name, uint32_t max_peers)
{
	struct ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
	struct ch_segment *seg = NULL;

	attr.len = len;
	attr.name = name;
	attr.max_peers = max_peers;
	cr_assert_eq(ch_segment_create(&attr, &seg), 0, "%s", ch_errmsg());
	return seg;
}

static int create_result(uint64_t len, const char *name, uint32_t max_peers)
{
	struct ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
	struct ch_segment *seg = NULL;
	int err;

	attr.len = len;
	attr.name = name;
	attr.max_peers = max_peers;
	err = ch_segment_create(&attr, &seg);
	cr_assert_eq(seg == NULL, err < 0, "the output is written on success and only then");
	ch_segment_destroy(seg);
	return err;
}

Test(segment, defaults_are_16_mib_of_zero_bytes)
{
	struct ch_segment *seg = NULL;
	const unsigned char *p;

	cr_assert_eq(ch_segment_create(NULL, &seg), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_segment_len(seg), 16u << 20);
	p = ch_segment_addr(seg);
	cr_assert_eq((uintptr_t)p % (size_t)sysconf(_SC_PAGESIZE), 0);
	for (size_t i = 0; i < ch_segment_len(seg); i++)
		if (p[i])
			cr_assert_fail("byte %zu is %d", i, p[i]);
	ch_segment_destroy(seg);
}

Test(segment, length_is_rounded_up_to_whole_pages)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	const uint64_t len[] = { 1, page - 1, page, page + 1, 1 << 20, (1 << 20) + 1 };

	for (size_t i = 0; i < sizeof(len) / sizeof(*len); i++) {
		struct ch_segment *seg = create(len[i], NULL, 0);

		cr_assert_eq(ch_segment_len(seg), (len[i] + page - 1) / page * page);
		memset(ch_segment_addr(seg), 0xff, ch_segment_len(seg));
		ch_segment_destroy(seg);
	}
}

Test(segment, file_is_private_to_the_user_and_goes_with_destroy)
{
	struct ch_segment *seg = create(4096, "test.Segment_name-1", 0);
	char path[256];
	struct stat st;

	cr_assert_str_eq(ch_segment_name(seg), "test.Segment_name-1");
	segment_path(seg, path, sizeof(path));
	cr_assert_eq(stat(path, &st), 0, "%s", path);
	cr_assert_eq(st.st_mode & 07777, 0600);
	ch_segment_destroy(seg);
	cr_assert_eq(stat(path, &st), -1);
}

Test(segment, made_up_names_are_unique_and_legal)
{
	struct ch_segment *a = create(4096, NULL, 0), *b = create(4096, NULL, 0);
	const char *legal = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

	cr_assert_str_neq(ch_segment_name(a), ch_segment_name(b));
	cr_assert_str_neq(ch_segment_name(a), "");
	cr_assert_eq(strspn(ch_segment_name(a), legal), strlen(ch_segment_name(a)));
	ch_segment_destroy(a);
	ch_segment_destroy(b);
}

Test(segment, a_made_up_name_leads_to_the_segment_too)
{
	struct ch_segment *seg = create(4096, NULL, 0), *out = NULL;
	int err = ch_segment_attach_name(ch_segment_name(seg), &out);

	ch_segment_detach(out);
	ch_segment_destroy(seg);
	cr_assert_eq(err, 0, "%s", ch_errmsg());
}

Test(segment, bad_names_are_invalid)
{
	char longest[202];
	const char *bad[] = { "", "/x", "a/b", "a b", "a\n", "\xc3\xa4", "../x", longest };
	struct ch_segment *seg = NULL;

	memset(longest, 'n', 201);
	longest[201] = '\0';
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		cr_assert_eq(create_result(4096, bad[i], 0), -EINVAL, "'%s'", bad[i]);
		cr_assert_eq(ch_segment_attach_name(bad[i], &seg), -EINVAL, "'%s'", bad[i]);
	}
	longest[200] = '\0';
	cr_assert_eq(create_result(4096, longest, 0), 0, "200 characters are allowed");
	cr_assert_null(seg);
}

Test(segment, second_of_the_same_name_exists_already)
{
	struct ch_segment *seg = create(4096, "test-twice", 0);
	struct ch_segment *again = NULL;

	memset(ch_segment_addr(seg), 'x', 4096);
	cr_assert_eq(create_result(4096, "test-twice", 0), -EEXIST);
	cr_assert_eq(ch_segment_attach_name("test-twice", &again), 0, "the first one is undisturbed");
	cr_assert_eq(*(char *)ch_segment_addr(again), 'x');
	ch_segment_detach(again);
	ch_segment_destroy(seg);
}

Test(segment, unknown_name_is_not_there)
{
	struct ch_segment *seg = NULL;

	cr_assert_eq(ch_segment_attach_name("test-no-such-segment", &seg), -ENOENT);
	cr_assert_null(seg);
}

Test(segment, max_peers_is_2_to_65536)
{
	cr_assert_eq(create_result(4096, NULL, 1), -EINVAL);
	cr_assert_eq(create_result(4096, NULL, 2), 0);
	cr_assert_eq(create_result(4096, NULL, 65536), 0);
	cr_assert_eq(create_result(4096, NULL, 65537), -EINVAL);
	cr_assert_eq(create_result(4096, NULL, UINT32_MAX), -EINVAL);
}

static int nr_files(void)
{
	DIR *dir = opendir("/dev/shm");
	int n = 0;

	while (dir && readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* Files of other tests come and go; the same name can be had again, so no file of this one is left. */
Test(segment, more_than_dev_shm_holds_is_no_space_and_leaves_no_file)
{
	int err, left = nr_files();

	cr_assert_eq(create_result(UINT64_C(1) << 42, "test-too-big", 0), -ENOSPC);
	for (int shift = 0; shift < 16; shift++) {
		err = create_result(UINT64_MAX >> shift, "test-too-big", 0);
		cr_assert(err == -ENOSPC || err == -EINVAL, "%d", err);
		cr_assert_eq(create_result(4096, "test-too-big", 0), 0);
		create_result(UINT64_MAX >> shift, NULL, 0);
	}
	cr_assert_lt(nr_files(), left + 16);
}

Test(segment, unknown_set_bytes_of_attr_are_refused)
{
	struct {
		struct ch_segment_attr known;
		uint64_t future;
	} attr = { CH_SEGMENT_ATTR_INIT, 1 };
	struct ch_segment *seg = NULL;

	attr.known.size = sizeof(attr);
	attr.known.len = 4096;
	cr_assert_eq(ch_segment_create(&attr.known, &seg), -E2BIG);
	cr_assert_null(seg);
	attr.future = 0;
	cr_assert_eq(ch_segment_create(&attr.known, &seg), 0, "%s", ch_errmsg());
	ch_segment_destroy(seg);
}

Test(segment, shorter_attr_of_an_older_caller_is_accepted)
{
	struct ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
	struct ch_segment *seg = NULL;

	attr.size = offsetof(struct ch_segment_attr, len);
	attr.len = UINT64_MAX;
	attr.name = "not/looked at";
	cr_assert_eq(ch_segment_create(&attr, &seg), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_segment_len(seg), 16u << 20, "what it did not know has its default");
	ch_segment_destroy(seg);
	attr.size = 0;
	seg = NULL;
	cr_assert_eq(ch_segment_create(&attr, &seg), -EINVAL);
	attr.size = 3;
	cr_assert_eq(ch_segment_create(&attr, &seg), -EINVAL);
}

Test(segment, null_is_invalid)
{
	struct ch_descr d;
	struct ch_segment *seg = create(4096, NULL, 0), *out = NULL;

	cr_assert_eq(ch_segment_create(NULL, NULL), -EINVAL);
	cr_assert_eq(ch_segment_attach(NULL, &out), -EINVAL);
	cr_assert_eq(ch_segment_get_descr(seg, &d), 0);
	cr_assert_eq(ch_segment_attach(&d, NULL), -EINVAL);
	cr_assert_eq(ch_segment_attach_name(NULL, &out), -EINVAL);
	cr_assert_eq(ch_segment_attach_name(ch_segment_name(seg), NULL), -EINVAL);
	ch_segment_detach(NULL);
	ch_segment_destroy(NULL);
	ch_segment_destroy(seg);
}

Test(segment, attaching_twice_maps_once_and_counts_handles)
{
	struct ch_segment *seg = create(8192, "test-handles", 0), *by_descr = NULL, *by_name = NULL;
	struct ch_descr d;

	cr_assert_eq(ch_segment_get_descr(seg, &d), 0);
	cr_assert_eq(ch_segment_attach(&d, &by_descr), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_segment_attach_name(ch_segment_name(seg), &by_name), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_segment_addr(by_descr), ch_segment_addr(seg));
	cr_assert_eq(ch_segment_addr(by_name), ch_segment_addr(seg));
	ch_segment_detach(by_descr);
	ch_segment_detach(by_name);
	memset(ch_segment_addr(seg), 1, 8192);
	ch_segment_destroy(seg);
}

Test(segment, any_descriptor_inside_leads_to_the_segment)
{
	struct ch_segment *seg = create(1 << 20, NULL, 0), *out = NULL;
	struct ch_pool_attr pattr = CH_POOL_ATTR_INIT;
	struct ch_pool *pool = NULL;
	struct ch_channel *ch = NULL;
	struct ch_descr d[2];

	pattr.segment = seg;
	cr_assert_eq(ch_pool_create(&pattr, &pool), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_create(pool, NULL, &ch), 0, "%s", ch_errmsg());
	ch_pool_get_descr(pool, &d[0]);
	ch_channel_get_descr(ch, &d[1]);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(ch_segment_attach(&d[i], &out), 0, "%s", ch_errmsg());
		cr_assert_str_eq(ch_segment_name(out), ch_segment_name(seg));
		ch_segment_detach(out);
	}
	ch_channel_destroy(ch);
	ch_pool_destroy(pool);
	ch_segment_destroy(seg);
}

/* Another process: forked before the segment was made, so that it has to find its own way in. */
static int reader(void *arg)
{
	struct board *b = arg;
	struct ch_segment *by_descr = NULL, *by_name = NULL;

	await_post(b, 0);
	EXPECT(ch_segment_attach(&b->descr, &by_descr) == 0);
	EXPECT(ch_segment_attach_name(b->text, &by_name) == 0);
	EXPECT(is_filled(ch_segment_addr(by_descr), ch_segment_len(by_descr), 1, 2));
	fill(ch_segment_addr(by_name), ch_segment_len(by_name), 3, 4);
	post(b, 1);
	await_post(b, 2); /* the creator has destroyed it: the memory stays mapped here */
	EXPECT(is_filled(ch_segment_addr(by_descr), ch_segment_len(by_descr), 3, 4));
	ch_segment_detach(by_name);
	EXPECT(ch_segment_attach_name(b->text, &by_name) == -ENOENT);
	ch_segment_detach(by_descr);
	EXPECT(ch_segment_attach(&b->descr, &by_descr) == -ESTALE);
	return 0;
}

Test(segment, two_processes_see_the_same_bytes_and_keep_them_after_destroy)
{
	struct board *b = board_new();
	pid_t pid = child_start(reader, b);
	struct ch_segment *seg = create(1 << 16, "test-two", 0);

	fill(ch_segment_addr(seg), ch_segment_len(seg), 1, 2);
	cr_assert_eq(ch_segment_get_descr(seg, &b->descr), 0);
	strcpy(b->text, ch_segment_name(seg));
	post(b, 0);
	AWAIT(posted(b, 1) || has_ended(pid));
	cr_assert(is_filled(ch_segment_addr(seg), ch_segment_len(seg), 3, 4));
	ch_segment_destroy(seg);
	post(b, 2);
	cr_assert_eq(child_end(pid), 0);
}

static int attach_and_stay(void *arg)
{
	struct board *b = arg;
	struct ch_segment *seg;

	await_post(b, 0);
	b->value[0] = ch_segment_attach(&b->descr, &seg);
	post(b, 1);
	return wait_to_be_killed();
}

static int64_t attach_in(pid_t pid, struct board *b)
{
	(void)pid;
	post(b, 0);
	await_post(b, 1);
	return b->value[0];
}

Test(segment, no_more_than_max_peers_attach_until_one_is_gone)
{
	struct board *b[3];
	struct ch_segment *seg;
	pid_t pid[3];

	for (int i = 0; i < 3; i++) {
		b[i] = board_new();
		pid[i] = child_start(attach_and_stay, b[i]);
	}
	seg = create(4096, NULL, 2);
	for (int i = 0; i < 3; i++)
		ch_segment_get_descr(seg, &b[i]->descr);
	cr_assert_eq(attach_in(pid[0], b[0]), 0);
	cr_assert_eq(attach_in(pid[1], b[1]), -ENOSPC);
	cr_assert_eq(child_kill(pid[0]), -SIGKILL);
	cr_assert_eq(attach_in(pid[2], b[2]), 0, "a killed peer makes room");
	child_kill(pid[1]);
	child_kill(pid[2]);
	ch_segment_destroy(seg);
}

Test(segment, destroyed_and_made_anew_is_stale)
{
	struct ch_segment *seg = create(4096, "test-anew", 0), *out = NULL;
	struct ch_descr old, new;

	ch_segment_get_descr(seg, &old);
	ch_segment_destroy(seg);
	cr_assert_eq(ch_segment_attach(&old, &out), -ESTALE);
	seg = create(4096, "test-anew", 0);
	ch_segment_get_descr(seg, &new);
	cr_assert(memcmp(&old, &new, sizeof(old)) != 0);
	cr_assert_eq(ch_segment_attach(&old, &out), -ESTALE);
	cr_assert_null(out);
	ch_segment_destroy(seg);
}

static int writes_into_it(void *arg)
{
	memset(arg, 7, 8192);
	return 0;
}

Test(segment, an_anonymous_one_has_no_file_and_is_shared_with_children)
{
	struct ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
	struct ch_segment *seg = NULL;
	struct stat st;
	char path[256];

	attr.len = 8192;
	attr.flags = CH_ANONYMOUS;
	cr_assert_eq(ch_segment_create(&attr, &seg), 0, "%s", ch_errmsg());
	segment_path(seg, path, sizeof(path));
	cr_assert_eq(stat(path, &st), -1, "%s", path);
	cr_assert_eq(child_end(child_start(writes_into_it, ch_segment_addr(seg))), 0);
	cr_assert_eq(*((char *)ch_segment_addr(seg) + 8191), 7);
	ch_segment_destroy(seg);
}

Test(segment, unknown_flags_and_a_named_anonymous_one_are_invalid)
{
	struct ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
	struct ch_segment *seg = NULL;

	attr.flags = UINT32_C(1) << 31;
	cr_assert_eq(ch_segment_create(&attr, &seg), -EINVAL);
	attr.flags = CH_ANONYMOUS;
	attr.name = "test-anonymous";
	cr_assert_eq(ch_segment_create(&attr, &seg), -EINVAL);
	attr.flags = 0;
	attr.group = 1;
	cr_assert_eq(ch_segment_create(&attr, &seg), -EINVAL);
	cr_assert_null(seg);
}

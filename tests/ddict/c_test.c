/* SPDX-License-Identifier: Apache-2.0 */
/* c_test.c - the dictionary from a C program. */
#include "../support/support.h"
#include <criterion/criterion.h>
#include <ddict/ddict.h>

TestSuite(ddict_c, .timeout = WATCHDOG_S);

static struct ch_ddict *make(uint32_t managers, uint64_t working_set)
{
	struct ch_ddict_attr attr = CH_DDICT_ATTR_INIT;
	struct ch_ddict *d = NULL;
	int rc;

	attr.managers = managers;
	attr.working_set = working_set;
	rc = ch_ddict_create(&attr, &d);
	cr_assert_eq(rc, 0, "%s", ch_ddict_errmsg());
	return d;
}

Test(ddict_c, put_get_and_their_like)
{
	struct ch_ddict *d = make(2, 1);
	char buf[64];

	cr_assert_eq(ch_ddict_put(d, "one", 3, "eins", 4, NULL), 0);
	cr_assert_eq(ch_ddict_get(d, "one", 3, buf, sizeof(buf)), 4);
	cr_assert_eq(memcmp(buf, "eins", 4), 0);
	cr_assert_eq(ch_ddict_get(d, "one", 3, buf, 3), -ENOBUFS);
	cr_assert_eq(ch_ddict_get(d, "two", 3, buf, sizeof(buf)), -ENOENT);
	cr_assert_eq(ch_ddict_put_if_absent(d, "one", 3, "x", 1, NULL), 0);
	cr_assert_eq(ch_ddict_put_if_absent(d, "two", 3, "zwei", 4, NULL), 1);
	cr_assert_eq(ch_ddict_compare_and_set(d, "two", 3, "drei", 4, "vier", 4), 0);
	cr_assert_eq(ch_ddict_compare_and_set(d, "two", 3, "zwei", 4, "vier", 4), 1);
	cr_assert_eq(ch_ddict_append(d, "two", 3, "zig", 3), 7);
	cr_assert_eq(ch_ddict_pop(d, "two", 3, buf, 4), 7);
	cr_assert_eq(memcmp(buf, "vier", 4), 0);
	cr_assert_eq(ch_ddict_contains(d, "one", 3), 1);
	cr_assert_eq(ch_ddict_contains(d, "two", 3), 0);
	cr_assert_eq(ch_ddict_size(d), 1);
	cr_assert_eq(ch_ddict_erase(d, "one", 3), 1);
	cr_assert_eq(ch_ddict_erase(d, "one", 3), 0);
	cr_assert_eq(ch_ddict_put(d, "", 0, NULL, 0, NULL), 0);
	cr_assert_eq(ch_ddict_get(d, NULL, 0, NULL, 0), 0);
	cr_assert_eq(ch_ddict_clear(d), 1);
	ch_ddict_destroy(d);
}

Test(ddict_c, numbers)
{
	struct ch_ddict *d = make(1, 1);
	int64_t i = -1;
	double f = -1;

	cr_assert_eq(ch_ddict_fetch_add_i64(d, "i", 1, 5, &i), 0);
	cr_assert_eq(i, 0);
	cr_assert_eq(ch_ddict_fetch_add_i64(d, "i", 1, -7, &i), 0);
	cr_assert_eq(i, 5);
	cr_assert_eq(ch_ddict_fetch_add_f64(d, "f", 1, 0.5, &f), 0);
	cr_assert_eq(ch_ddict_fetch_add_f64(d, "f", 1, 0.5, &f), 0);
	cr_assert_eq(f, 0.5);
	ch_ddict_put(d, "s", 1, "abc", 3, NULL);
	cr_assert_eq(ch_ddict_fetch_add_i64(d, "s", 1, 1, &i), -EINVAL);
	cr_assert_neq(ch_ddict_errmsg()[0], 0);
	ch_ddict_destroy(d);
}

Test(ddict_c, views_and_values_in_pieces)
{
	static char big[1000000];
	struct ch_ddict *d = make(1, 1);
	struct ch_ddict_view *v = NULL;
	struct ch_ddict_writer *w = NULL;

	fill(big, sizeof(big), 3, sizeof(big));
	cr_assert_eq(ch_ddict_writer_open(d, "big", 3, 0, &w), 0);
	for (size_t at = 0; at < sizeof(big); at += 100000)
		cr_assert_eq(ch_ddict_writer_write(w, big + at, 100000), 0);
	cr_assert_eq(ch_ddict_contains(d, "big", 3), 0);
	cr_assert_eq(ch_ddict_writer_commit(w, NULL), 0);
	cr_assert_eq(ch_ddict_get_view(d, "big", 3, &v), 0);
	ch_ddict_erase(d, "big", 3);
	cr_assert_eq(ch_ddict_view_len(v), sizeof(big));
	cr_assert_eq(memcmp(ch_ddict_view_data(v), big, sizeof(big)), 0);
	ch_ddict_view_release(v);
	cr_assert_eq(ch_ddict_get_view(d, "big", 3, &v), -ENOENT);
	cr_assert_eq(ch_ddict_writer_open(d, "big", 3, 10, &w), 0);
	ch_ddict_writer_close(w);
	ch_ddict_destroy(d);
}

Test(ddict_c, calls_under_way)
{
	struct ch_ddict *d = make(2, 1);
	struct ch_ddict_call *put, *get, *add, *erase;
	int64_t old = -1;
	char buf[8];

	cr_assert_eq(ch_ddict_start_put(d, "k", 1, "v", 1, NULL, &put), 0);
	cr_assert_eq(ch_ddict_call_wait(put, NULL, 0), 0);
	cr_assert_eq(ch_ddict_start_get(d, "k", 1, &get), 0);
	cr_assert_eq(ch_ddict_start_fetch_add_i64(d, "n", 1, 4, &add), 0);
	while (ch_ddict_call_is_ready(add) == 0)
		;
	cr_assert_eq(ch_ddict_call_wait(add, &old, sizeof(old)), 8);
	cr_assert_eq(old, 0);
	cr_assert_eq(ch_ddict_call_wait(get, buf, sizeof(buf)), 1);
	cr_assert_eq(buf[0], 'v');
	cr_assert_eq(ch_ddict_start_erase(d, "k", 1, &erase), 0);
	cr_assert_eq(ch_ddict_call_wait(erase, NULL, 0), 1);
	cr_assert_eq(ch_ddict_start_get(d, "k", 1, &get), 0);
	cr_assert_eq(ch_ddict_call_wait(get, buf, sizeof(buf)), -ENOENT);
	cr_assert_eq(ch_ddict_start_get(d, "k", 1, &get), 0);
	ch_ddict_call_forget(get);
	ch_ddict_destroy(d);
}

static void count_found(void *arg, size_t i, const void *value, size_t vlen)
{
	int *sums = arg;

	sums[value ? 0 : 1] += (int)i;
	cr_assert(!value || vlen == 1 + i % 2 * 1000);
}

Test(ddict_c, many_keys_and_walks)
{
	static char value[1001];
	struct ch_ddict *d = make(2, 1);
	struct ch_ddict_item items[100], met;
	struct ch_ddict_cursor *c;
	char keys[100][4];
	int sums[2] = {0, 0}, n = 0;

	for (size_t i = 0; i < 100; i++) {
		snprintf(keys[i], sizeof(keys[i]), "%c%02u", "ab"[i / 50], (unsigned)(i % 100));
		items[i] = (struct ch_ddict_item){keys[i], 3, value, 1 + i % 2 * 1000};
	}
	cr_assert_eq(ch_ddict_put_many(d, items, 90, NULL), 0);
	cr_assert_eq(ch_ddict_get_many(d, items, 100, count_found, sums), 0);
	cr_assert_eq(sums[0], 89 * 90 / 2);
	cr_assert_eq(sums[1], 99 * 100 / 2 - 89 * 90 / 2);
	cr_assert_eq(ch_ddict_cursor_open(d, "b", 1, 1, &c), 0);
	for (; ch_ddict_cursor_next(c, &met) == 1; n++)
		cr_assert(((const char *)met.key)[0] == 'b' && met.klen == 3 && (met.vlen == 1 || met.vlen == 1001));
	ch_ddict_cursor_close(c);
	cr_assert_eq(n, 40);
	ch_ddict_destroy(d);
}

Test(ddict_c, handles)
{
	struct ch_ddict *d = make(2, 3), *copy, *other;
	struct ch_ddict_stats stats;
	struct ch_descr descr;
	int m;

	cr_assert_eq(ch_ddict_count_managers(d), 2);
	cr_assert_eq(ch_ddict_get_descr(d, &descr), 0);
	cr_assert_eq(ch_ddict_attach(&descr, &other), 0);
	cr_assert_eq(ch_ddict_copy(d, &copy), 0);
	cr_assert_eq(ch_ddict_put(d, "k", 1, "v", 1, NULL), 0);
	m = ch_ddict_which_manager(d, "k", 1);
	cr_assert_eq(ch_ddict_set_manager(copy, 1 - m), 0);
	cr_assert_eq(ch_ddict_contains(copy, "k", 1), 0);
	cr_assert_eq(ch_ddict_set_manager(copy, -1), 0);
	cr_assert_eq(ch_ddict_contains(copy, "k", 1), 1);
	cr_assert_eq(ch_ddict_set_manager(copy, 7), -EINVAL);
	cr_assert_eq(ch_ddict_set_timeout(copy, 20000000), 0);
	cr_assert_eq(ch_ddict_wait_for(copy, "k", 1, "never", 5), -ETIMEDOUT);
	cr_assert_eq(ch_ddict_wait_for(copy, "k", 1, NULL, 0), 0);
	cr_assert_eq(ch_ddict_freeze(d), 0);
	cr_assert_eq(ch_ddict_is_frozen(other), 1);
	cr_assert_eq(ch_ddict_put(other, "k", 1, "w", 1, NULL), -EPERM);
	cr_assert_eq(ch_ddict_unfreeze(d), 1);
	cr_assert_eq(ch_ddict_get_stats(d, m, &stats), 0);
	cr_assert_eq(stats.keys, 1u);
	cr_assert_eq(ch_ddict_checkpoint(d), 1);
	cr_assert_eq(ch_ddict_put(d, "k", 1, "new", 3, NULL), 0);
	cr_assert_eq(ch_ddict_rollback(d), 0);
	char buf[8];
	cr_assert_eq(ch_ddict_get(d, "k", 1, buf, 8), 1);
	cr_assert_eq(ch_ddict_sync_to_newest_checkpoint(d), 1);
	cr_assert_eq(ch_ddict_get_checkpoint(d), 1);
	cr_assert_eq(ch_ddict_get(d, "k", 1, buf, 8), 3);
	cr_assert_eq(ch_ddict_set_checkpoint(d, -1), -EINVAL);
	cr_assert_eq(ch_ddict_put_everywhere(d, "e", 1, "x", 1, NULL), 0);
	cr_assert_eq(ch_ddict_get_anywhere(d, "e", 1, buf, 8), 1);
	ch_ddict_detach(copy);
	ch_ddict_destroy(d);
	cr_assert_eq(ch_ddict_put(other, "k", 1, "w", 1, NULL), -ESTALE);
	ch_ddict_detach(other);
}

Test(ddict_c, checkpoints_in_files)
{
	struct ch_ddict_attr attr = CH_DDICT_ATTR_INIT;
	char dir[] = "/var/tmp/ddict-c-\0\0\0\0\0\0", command[64], buf[8];
	struct ch_ddict *d = NULL;
	uint64_t ids[2] = { 9, 9 };

	memset(dir + strlen(dir), 'X', 6);
	cr_assert_not_null(mkdtemp(dir));
	attr.managers = 2;
	attr.persist_path = dir;
	attr.flags = CH_DDICT_LOG;
	cr_assert_eq(ch_ddict_create(&attr, &d), 0, "%s", ch_ddict_errmsg());
	for (int c = 0; c < 3; c++) {
		cr_assert_eq(ch_ddict_put(d, "k", 1, c ? "new" : "old", 3, NULL), 0);
		cr_assert_eq(ch_ddict_persist(d), c, "%s", ch_ddict_errmsg());
		cr_assert_eq(ch_ddict_checkpoint(d), c + 1);
	}
	cr_assert_eq(ch_ddict_get_persisted(d, ids, 2), 3);
	cr_assert_eq(ids[1], 1u);
	cr_assert_eq(ch_ddict_get_persisted(d, NULL, 0), 3);
	cr_assert_eq(ch_ddict_restore(d, 0), 0, "%s", ch_ddict_errmsg());
	cr_assert_eq(ch_ddict_get(d, "k", 1, buf, 8), 3);
	cr_assert_eq(memcmp(buf, "old", 3), 0);
	cr_assert_eq(ch_ddict_restore(d, 7), -ENOENT);
	cr_assert_not_null(strstr(ch_ddict_errmsg(), dir));
	cr_assert_eq(ch_ddict_flush(d), 0);
	ch_ddict_destroy(d);

	attr.flags = CH_DDICT_RESTORE | CH_DDICT_READ_ONLY;
	attr.restore_from = 1;
	cr_assert_eq(ch_ddict_create(&attr, &d), 0, "%s", ch_ddict_errmsg());
	cr_assert_eq(ch_ddict_advance(d), 2);
	cr_assert_eq(ch_ddict_advance(d), -ENOENT);
	cr_assert_eq(ch_ddict_put(d, "k", 1, "x", 1, NULL), -EPERM);
	ch_ddict_destroy(d);
	attr.flags = CH_DDICT_RESTORE | CH_DDICT_LOG;
	attr.restore_from = CH_DDICT_FROM_LOG;
	cr_assert_eq(ch_ddict_create(&attr, &d), 0, "%s", ch_ddict_errmsg());
	cr_assert_eq(ch_ddict_get(d, "k", 1, buf, 8), 3);
	ch_ddict_destroy(d);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	cr_assert_eq(system(command), 0);
}

Test(ddict_c, arguments_that_cannot_be)
{
	struct ch_ddict_attr attr = CH_DDICT_ATTR_INIT;
	struct ch_ddict *d;

	cr_assert_eq(ch_ddict_create(NULL, NULL), -EINVAL);
	cr_assert_eq(ch_ddict_put(NULL, "k", 1, "v", 1, NULL), -EINVAL);
	attr.size = 0;
	cr_assert_eq(ch_ddict_create(&attr, &d), -EINVAL);
	attr.size = sizeof(attr);
	attr.flags = 0x80;
	cr_assert_eq(ch_ddict_create(&attr, &d), -EINVAL);
	cr_assert_eq(ch_ddict_attach_name("no-such-dictionary", &d), -ENOENT);
	ch_ddict_detach(NULL);
	ch_ddict_destroy(NULL);
	ch_ddict_call_forget(NULL);
	ch_ddict_view_release(NULL);
	d = make(1, 1);
	cr_assert_eq(ch_ddict_put(d, NULL, 3, "v", 1, NULL), -EINVAL);
	cr_assert_eq(ch_ddict_get(d, "k", 1, NULL, 8), -EINVAL);
	ch_ddict_destroy(d);
}

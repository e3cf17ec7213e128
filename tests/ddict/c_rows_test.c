/* SPDX-License-Identifier: Apache-2.0 */
/* c_rows_test.c - what c_test.c leaves out, so that each row of the table in libddict(7) has been called from C: all kinds
 * of calls under way, positions of walks, functions next to the data, copies, lives, memory, and the figures. */
#define _GNU_SOURCE
#include "../support/support.h"
#include <criterion/criterion.h>
#include <ddict/ddict.h>
#include <sched.h>
#include <signal.h>

TestSuite(ddict_c_rows, .timeout = WATCHDOG_S);

static struct ch_ddict *make(uint32_t managers)
{
	struct ch_ddict_attr attr = CH_DDICT_ATTR_INIT;
	struct ch_ddict *d = NULL;

	attr.managers = managers;
	attr.memory = 8 << 20;
	cr_assert_eq(ch_ddict_create(&attr, &d), 0, "%s", ch_ddict_errmsg());
	return d;
}

static void fill_with(struct ch_ddict *d, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		cr_assert_eq(ch_ddict_put(d, &i, sizeof(i), &i, sizeof(i), NULL), 0);
}

Test(ddict_c_rows, every_call_may_be_under_way)
{
	struct ch_ddict *d = make(2);
	struct ch_ddict_call *c[8];
	char buf[8] = "";
	double old = -1;

	cr_assert_eq(ch_ddict_start_wait_for(d, "k", 1, "two", 3, &c[0]), 0);
	cr_assert_eq(ch_ddict_start_put_if_absent(d, "k", 1, "one", 3, NULL, &c[1]), 0);
	cr_assert_eq(ch_ddict_call_wait(c[1], NULL, 0), 1);
	cr_assert_eq(ch_ddict_start_put_if_absent(d, "k", 1, "one", 3, NULL, &c[1]), 0);
	cr_assert_eq(ch_ddict_call_wait(c[1], NULL, 0), 0);
	cr_assert_eq(ch_ddict_start_contains(d, "k", 1, &c[2]), 0);
	cr_assert_eq(ch_ddict_call_wait(c[2], NULL, 0), 1);
	cr_assert_eq(ch_ddict_call_is_ready(c[0]), 0);
	cr_assert_eq(ch_ddict_start_compare_and_set(d, "k", 1, "one", 3, "two", 3, &c[3]), 0);
	cr_assert_eq(ch_ddict_call_wait(c[3], NULL, 0), 1);
	cr_assert_eq(ch_ddict_call_wait(c[0], NULL, 0), 1);
	cr_assert_eq(ch_ddict_start_append(d, "k", 1, "more", 4, &c[4]), 0);
	cr_assert_eq(ch_ddict_call_wait(c[4], NULL, 0), 7);
	cr_assert_eq(ch_ddict_start_pop(d, "k", 1, &c[5]), 0);
	cr_assert_eq(ch_ddict_call_wait(c[5], buf, 4), 7, "the whole length, as ch_ddict_pop");
	cr_assert_eq(memcmp(buf, "twom\0", 5), 0);
	cr_assert_eq(ch_ddict_start_pop(d, "k", 1, &c[6]), 0);
	cr_assert_eq(ch_ddict_call_wait(c[6], buf, 4), -ENOENT);
	cr_assert_eq(ch_ddict_start_fetch_add_f64(d, "f", 1, 2.5, &c[7]), 0);
	cr_assert_eq(ch_ddict_call_wait(c[7], &old, sizeof(old)), 8);
	cr_assert_eq(old, 0);
	cr_assert_eq(ch_ddict_start_pop(NULL, "k", 1, &c[0]), -EINVAL);
	ch_ddict_destroy(d);
}

Test(ddict_c_rows, a_walk_goes_on_elsewhere)
{
	struct ch_ddict *d = make(2);
	struct ch_ddict_position at = {0, 0};
	struct ch_ddict_cursor *c;
	struct ch_ddict_item item;
	static unsigned char met[5000];
	uint32_t key;
	int nr = 0;

	fill_with(d, 5000);
	for (int stop = 0; !stop;) {
		cr_assert_eq(ch_ddict_cursor_open_at(d, NULL, 0, 1, &at, &c), 0);
		for (int i = 0; i < 3000 && !(stop = ch_ddict_cursor_next(c, &item) == 0); i++) {
			memcpy(&key, item.key, sizeof(key));
			cr_assert_eq(memcmp(item.value, &key, sizeof(key)), 0);
			met[key] = 1;
		}
		cr_assert_eq(ch_ddict_cursor_get_position(c, &at), 0);
		ch_ddict_cursor_close(c);
	}
	for (int i = 0; i < 5000; i++)
		nr += met[i];
	cr_assert_eq(nr, 5000);
	ch_ddict_destroy(d);
}

/* The sum of the keys that are divisible by the argument. */
static int sum_of_multiples(struct ch_ddict_visit *visit, const void *arg, size_t len)
{
	struct ch_ddict_item item;
	const void *part;
	uint64_t sum = 0, other;
	uint32_t by, key;
	size_t plen;
	int rc;

	if (len != sizeof(by))
		return -EINVAL;
	memcpy(&by, arg, sizeof(by));
	while (ch_ddict_visit_next(visit, &item) == 1) {
		memcpy(&key, item.key, sizeof(key));
		sum += key % by ? 0 : key;
	}
	while ((rc = ch_ddict_visit_next_part(visit, &part, &plen)) == 1) {
		memcpy(&other, part, sizeof(other));
		sum += other;
	}
	return rc < 0 ? rc : ch_ddict_visit_answer(visit, &sum, sizeof(sum));
}

static int crash(struct ch_ddict_visit *visit, const void *arg, size_t len)
{
	(void)visit, (void)arg, (void)len;
	return raise(SIGKILL);
}

Test(ddict_c_rows, functions_run_next_to_the_data)
{
	struct ch_ddict *d = make(3);
	struct ch_ddict_view *answer = NULL;
	const uint32_t by = 7;
	uint64_t sum;

	fill_with(d, 1000);
	cr_assert_eq(ch_ddict_run(d, sum_of_multiples, &by, sizeof(by), &answer), 0, "%s", ch_ddict_errmsg());
	cr_assert_eq(ch_ddict_view_len(answer), sizeof(sum));
	memcpy(&sum, ch_ddict_view_data(answer), sizeof(sum));
	cr_assert_eq(sum, 7u * 142 * 143 / 2);
	ch_ddict_view_release(answer);
	cr_assert_eq(ch_ddict_run(d, sum_of_multiples, NULL, 0, &answer), -EINVAL);
	cr_assert_eq(ch_ddict_run(d, crash, NULL, 0, &answer), -ECANCELED);
	cr_assert(strstr(ch_ddict_errmsg(), "signal 9"), "%s", ch_ddict_errmsg());
	cr_assert_eq(ch_ddict_size(d), 1000);
	ch_ddict_destroy(d);
}

Test(ddict_c_rows, copies)
{
	struct ch_ddict *d = make(2), *other = make(3), *third = NULL;
	struct ch_ddict_attr attr = CH_DDICT_ATTR_INIT;
	struct ch_ddict *both[2] = {d, NULL};

	fill_with(d, 300);
	attr.managers = 2;
	cr_assert_eq(ch_ddict_clone(d, &attr, &third), 0, "%s", ch_ddict_errmsg());
	cr_assert_eq(ch_ddict_size(third), 300);
	cr_assert_eq(ch_ddict_copy_to(d, other), 300);
	cr_assert_eq(ch_ddict_size(other), 300);
	both[1] = third;
	cr_assert_eq(ch_ddict_synchronise(both, 2), 0);
	cr_assert_eq(ch_ddict_set_manager(third, 1), 0);
	const int64_t had = ch_ddict_clear(third);
	cr_assert_gt(had, 0);
	cr_assert_eq(ch_ddict_set_manager(third, -1), 0);
	cr_assert_eq(ch_ddict_synchronise(both, 2), had);
	cr_assert_eq(ch_ddict_size(third), 300);
	both[1] = other;
	cr_assert_eq(ch_ddict_synchronise(both, 2), -EINVAL, "another number of managers");
	ch_ddict_destroy(third);
	ch_ddict_destroy(other);
	ch_ddict_destroy(d);
}

Test(ddict_c_rows, lives_memory_and_figures)
{
	static char value[3000];
	struct ch_ddict_attr attr = CH_DDICT_ATTR_INIT;
	struct ch_ddict_put_attr how = CH_DDICT_PUT_ATTR_INIT;
	struct ch_ddict_op_stats op;
	struct ch_ddict_stats s;
	struct ch_ddict *d;
	uint32_t n = 0;

	attr.managers = 1;
	attr.memory = 1 << 20;
	attr.max_memory = 4 << 20;
	cr_assert_eq(ch_ddict_create(&attr, &d), 0, "%s", ch_ddict_errmsg());
	how.ttl_ns = 20000000;
	cr_assert_eq(ch_ddict_put(d, "k", 1, "v", 1, &how), 0);
	while (ch_ddict_contains(d, "k", 1) == 1)
		;
	while (ch_ddict_put(d, &n, sizeof(n), value, sizeof(value), NULL) == 0)
		n++;
	cr_assert_geq(n * sizeof(value), 4u * 1000 * 900);
	cr_assert_eq(ch_ddict_get_stats(d, 0, &s), 0);
	cr_assert_geq(s.memory, attr.max_memory);
	cr_assert(s.expired == 1 && s.deaths == 0 && s.lost == 0 && s.keys == n);
	cr_assert_eq(ch_ddict_get_op_stats(d, 0, "contains", &op), 0);
	cr_assert(op.count > 0 && op.p50_ns <= op.p99_ns && op.p99_ns <= op.max_ns);
	cr_assert(op.nr_buckets > 0 && op.buckets[op.nr_buckets - 1].below_ns == op.max_ns);
	cr_assert_eq(ch_ddict_get_op_stats(d, 0, "append", &op), -ENOENT);
	attr.max_memory = 1 << 19;
	cr_assert_eq(ch_ddict_create(&attr, &d), -EINVAL);
	ch_ddict_destroy(d);
}

Test(ddict_c_rows, checkpoints_persist_when_they_retire)
{
	struct ch_ddict_attr attr = CH_DDICT_ATTR_INIT;
	char dir[] = "/var/tmp/ddict-rows-\0\0\0\0\0\0", command[64], buf[8];
	struct ch_ddict *d = NULL;
	uint64_t ids[4];

	memset(dir + strlen(dir), 'X', 6);
	cr_assert_not_null(mkdtemp(dir));
	attr.managers = 2;
	attr.persist_path = dir;
	attr.persist_freq = 2;
	attr.persist_count = 1;
	cr_assert_eq(ch_ddict_create(&attr, &d), 0, "%s", ch_ddict_errmsg());
	for (int64_t c = 0; c < 6; c++) {
		for (uint32_t key = 0; key < 40; key++)
			cr_assert_eq(ch_ddict_put(d, &key, sizeof(key), &c, sizeof(c), NULL), 0, "%s", ch_ddict_errmsg());
		cr_assert_eq(ch_ddict_checkpoint(d), c + 1);
	}
	while (ch_ddict_get_persisted(d, ids, 4) != 1 || ids[0] != 4)
		;
	ch_ddict_destroy(d);
	attr = (struct ch_ddict_attr)CH_DDICT_ATTR_INIT;
	attr.managers = 3;
	attr.persist_path = dir;
	attr.flags = CH_DDICT_RESTORE;
	attr.restore_from = CH_DDICT_NEWEST;
	cr_assert_eq(ch_ddict_create(&attr, &d), 0, "%s", ch_ddict_errmsg());
	cr_assert_eq(ch_ddict_size(d), 40);
	cr_assert_eq(ch_ddict_get(d, (uint32_t[]){ 39 }, 4, buf, sizeof(buf)), 8);
	cr_assert_eq(buf[0], 4);
	ch_ddict_destroy(d);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	cr_assert_eq(system(command), 0);
}

static int where_it_runs(struct ch_ddict_visit *visit, const void *arg, size_t len)
{
	cpu_set_t set;

	(void)arg, (void)len;
	sched_getaffinity(0, sizeof(set), &set);
	return ch_ddict_visit_answer(visit, &set, sizeof(set));
}

Test(ddict_c_rows, managers_are_placed)
{
	struct ch_ddict_attr attr = CH_DDICT_ATTR_INIT;
	struct ch_ddict_view *view;
	struct ch_ddict *d;
	char list[32];
	cpu_set_t set;
	int first = 0;

	sched_getaffinity(0, sizeof(set), &set);
	while (!CPU_ISSET(first, &set))
		first++;
	snprintf(list, sizeof(list), "0-1023;%d", first);
	attr.managers = 2;
	attr.cpus = list;
	cr_assert_eq(ch_ddict_create(&attr, &d), -EINVAL, "so many CPUs there are not");
	attr.cpus = list + strlen("0-1023;");
	cr_assert_eq(ch_ddict_create(&attr, &d), 0, "%s", ch_ddict_errmsg());
	cr_assert_eq(ch_ddict_set_manager(d, 1), 0);
	cr_assert_eq(ch_ddict_run(d, where_it_runs, NULL, 0, &view), 0, "%s", ch_ddict_errmsg());
	CPU_ZERO(&set);
	CPU_SET(first, &set);
	cr_assert_eq(ch_ddict_view_len(view), sizeof(set));
	cr_assert_eq(memcmp(ch_ddict_view_data(view), &set, sizeof(set)), 0);
	ch_ddict_view_release(view);
	ch_ddict_destroy(d);
	attr.placement = CH_DDICT_SPREAD;
	cr_assert_eq(ch_ddict_create(&attr, &d), -EINVAL, "both");
	attr.cpus = NULL;
	cr_assert_eq(ch_ddict_create(&attr, &d), 0, "%s", ch_ddict_errmsg());
	ch_ddict_destroy(d);
	attr.placement = 3;
	cr_assert_eq(ch_ddict_create(&attr, &d), -EINVAL);
}

Test(ddict_c_rows, a_dictionary_begins_with_what_was_kept)
{
	struct ch_ddict_attr attr = CH_DDICT_ATTR_INIT;
	struct ch_ddict_op_stats op;
	char name[32], key[8], buf[8];
	struct ch_ddict *d, *other;
	struct ch_descr descr;
	size_t klen;

	snprintf(name, sizeof(name), "rows-%d", getpid());
	attr.name = name;
	attr.managers = 2;
	cr_assert_eq(ch_ddict_create(&attr, &d), 0, "%s", ch_ddict_errmsg());
	cr_assert_eq(ch_ddict_put(d, "key", 3, "value", 5, NULL), 0);
	cr_assert_eq(ch_ddict_get_descr(d, &descr), 0);
	cr_assert_eq(ch_ddict_attach(&descr, &other), 0);
	cr_assert_eq(ch_ddict_destroy_for_restart(other), -EINVAL);
	ch_ddict_detach(other);
	cr_assert_eq(ch_ddict_destroy_for_restart(d), 0, "%s", ch_ddict_errmsg());
	attr.flags = CH_DDICT_RESTART;
	cr_assert_eq(ch_ddict_create(&attr, &d), 0, "%s", ch_ddict_errmsg());
	cr_assert_eq(ch_ddict_create(&attr, &other), -ENOENT, "%s", ch_ddict_errmsg());
	cr_assert_eq(ch_ddict_drop_kept(name), 0);

	cr_assert_eq(ch_ddict_pop_item(d, key, 2, &klen, buf, sizeof(buf)), -ENOBUFS);
	cr_assert_eq(ch_ddict_pop_item(d, key, sizeof(key), &klen, buf, sizeof(buf)), 5);
	cr_assert(klen == 3 && memcmp(key, "key", 3) == 0 && memcmp(buf, "value", 5) == 0);
	cr_assert_eq(ch_ddict_pop_item(d, key, sizeof(key), &klen, buf, sizeof(buf)), -ENOENT);

	const int m = ch_ddict_which_manager(d, "key", 3);
	cr_assert_eq(ch_ddict_get_op_stats(d, m, "pop", &op), 0);
	cr_assert_eq(op.count, 1);
	cr_assert_eq(ch_ddict_reset_stats(d), 0);
	cr_assert_eq(ch_ddict_get_op_stats(d, m, "pop", &op), -ENOENT);
	ch_ddict_destroy(d);
}

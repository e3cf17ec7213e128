/* SPDX-License-Identifier: Apache-2.0 */
/* pool.h: blocks within one process. Several processes are in pool_peers_test.c. */
#include "../support/support.h"
#include <criterion/criterion.h>

TestSuite(pool, .timeout = WATCHDOG_S);

static void *alloc(struct ch_pool *pool, size_t len)
{
	void *p = NULL;

	cr_assert_eq(ch_pool_alloc(pool, len, CH_TRY, &p), 0, "%zu bytes: %s", len, ch_errmsg());
	return p;
}

static struct ch_pool_stats stats_of(struct ch_pool *pool)
{
	struct ch_pool_stats st;

	cr_assert_eq(ch_pool_get_stats(pool, &st), 0, "%s", ch_errmsg());
	return st;
}

Test(pool, defaults_are_16_mib)
{
	struct ch_pool *pool = NULL;
	struct ch_pool_stats st;

	cr_assert_eq(ch_pool_create(NULL, &pool), 0, "%s", ch_errmsg());
	st = stats_of(pool);
	cr_assert_leq(st.len, 16u << 20);
	cr_assert_geq(st.len, 15u << 20, "overhead of at most a sixteenth");
	cr_assert_eq(st.nr_peers, 1);
	cr_assert_eq(st.nr_channels, 0);
	ch_pool_destroy(pool);
}

Test(pool, blocks_are_aligned_writable_and_waste_at_most_an_eighth)
{
	struct ch_pool *pool = pool_of(8 << 20);
	struct ch_pool_stats before = stats_of(pool);

	for (size_t len = 1; len <= 3 << 20; len += 1 + len / 37) {
		unsigned char *p = alloc(pool, len);
		ssize_t room = ch_pool_block_len(pool, p);

		cr_assert_eq((uintptr_t)p % 64, 0, "%zu", len);
		cr_assert_geq(room, (ssize_t)len);
		if (len <= 1024)
			cr_assert_eq(room, (ssize_t)(len <= 128 ? 128 : (len + 63) / 64 * 64), "%zu: %zd", len, room);
		else
			cr_assert_leq(room - (ssize_t)len, (ssize_t)(len / 8), "%zu: %zd", len, room);
		memset(p, 0xa5, (size_t)room);
		cr_assert_eq(ch_pool_free(pool, p), 0);
	}
	cr_assert(pool_is_as_before(pool, &before));
	ch_pool_destroy(pool);
}

/* The smallest length of each size class wastes most of it; the largest wastes nothing, and one byte more is the next. */
Test(pool, no_length_at_the_border_of_a_size_class_wastes_more_than_an_eighth)
{
	struct ch_pool *pool = pool_of(48 << 20);
	int nr_classes = 0;

	for (size_t len = 1025, room; len <= 40 << 20; len = room + 1, nr_classes++) {
		void *p = alloc(pool, len), *q;

		room = (size_t)ch_pool_block_len(pool, p);
		cr_assert_leq((room - len) * 8, len, "%zu bytes in %zu", len, room);
		cr_assert_eq(ch_pool_free(pool, p), 0);
		for (size_t k = room - 1; k <= room && room <= 40 << 20; k++) {
			q = alloc(pool, k);
			cr_assert_eq(ch_pool_block_len(pool, q), (ssize_t)room, "%zu", k);
			cr_assert_eq(ch_pool_free(pool, q), 0);
		}
	}
	cr_assert_geq(nr_classes, 8 * 15, "eight classes between a length and twice that");
	ch_pool_destroy(pool);
}

/* Random sizes, kept and freed at random; each block carries its own pattern, so that an overlap shows. */
Test(pool, blocks_never_overlap_and_all_return)
{
	enum { NR = 256 };
	struct ch_pool *pool = pool_of(4 << 20);
	struct ch_pool_stats before = stats_of(pool);
	unsigned char *addr[NR] = { NULL };
	size_t len[NR] = { 0 };
	uint64_t seed = test_seed();

	for (int i = 0; i < 20000; i++) {
		size_t k = rnd(&seed) % NR;
		void *p;

		if (addr[k]) {
			cr_assert(is_filled(addr[k], len[k], k, 7), "block %zu was overwritten", k);
			cr_assert_eq(ch_pool_free(pool, addr[k]), 0);
			addr[k] = NULL;
			continue;
		}
		len[k] = 1 + rnd(&seed) % (rnd(&seed) % 16 ? 2000 : 100000);
		if (ch_pool_alloc(pool, len[k], CH_TRY, &p) < 0)
			continue;
		addr[k] = p;
		fill(p, len[k], k, 7);
	}
	for (int k = 0; k < NR; k++)
		cr_assert_eq(ch_pool_free(pool, addr[k]), 0);
	cr_assert(pool_is_as_before(pool, &before));
	ch_pool_destroy(pool);
}

Test(pool, length_nought_is_invalid_and_too_long_can_never_fit)
{
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_pool_stats st = stats_of(pool);
	const size_t big[] = { (size_t)st.largest + 1, (size_t)st.len + 1, 1 << 20,
			       SIZE_MAX, SIZE_MAX - 63, SIZE_MAX / 2 };
	void *p = NULL;

	cr_assert_eq(ch_pool_alloc(pool, 0, CH_TRY, &p), -EINVAL);
	for (size_t i = 0; i < sizeof(big) / sizeof(*big); i++) {
		cr_assert_eq(ch_pool_alloc(pool, big[i], CH_TRY, &p), -EMSGSIZE, "%zu", big[i]);
		cr_assert_eq(ch_pool_alloc(pool, big[i], CH_FOREVER, &p), -EMSGSIZE, "%zu", big[i]);
	}
	cr_assert_null(p);
	ch_pool_destroy(pool);
}

Test(pool, largest_in_stats_can_be_allocated)
{
	struct ch_pool *pool = pool_of(1 << 20);

	for (int i = 0; i < 8; i++) {
		struct ch_pool_stats st = stats_of(pool);

		cr_assert_gt(st.largest, 0);
		alloc(pool, (size_t)st.largest);
		if (stats_of(pool).largest == 0)
			break;
	}
	ch_pool_destroy(pool);
}

Test(pool, every_size_up_to_the_largest_fits_an_empty_pool)
{
	const uint64_t len[] = { 64 << 10, 128 << 10, 1 << 20 };

	for (int i = 0; i < 3; i++) {
		struct ch_pool *pool = pool_of(len[i]);
		struct ch_pool_stats before = stats_of(pool);

		for (size_t want = 1; want <= before.largest; want += 1 + want / 23)
			cr_assert_eq(ch_pool_free(pool, alloc(pool, want)), 0);
		cr_assert(pool_is_as_before(pool, &before));
		ch_pool_destroy(pool);
	}
}

Test(pool, small_blocks_fill_it_and_the_largest_fits_again_when_they_are_freed)
{
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_pool_stats before = stats_of(pool), full;
	const size_t size[] = { 64, 192, 1000, 5000 };
	void **addr = calloc(1 << 15, sizeof(*addr));
	uint64_t seed = test_seed();

	for (size_t s = 0; s < sizeof(size) / sizeof(*size); s++) {
		size_t n = 0;

		while (ch_pool_alloc(pool, size[s], CH_TRY, &addr[n]) == 0)
			n++;
		full = stats_of(pool);
		cr_assert_geq(full.used, before.len * 3 / 4, "%zu: %zu blocks", size[s], n);
		cr_assert_eq(full.nr_used, before.nr_used + n);
		for (size_t i = n; i > 0; i--) { /* in random order */
			size_t k = rnd(&seed) % i;
			void *p = addr[k];

			addr[k] = addr[i - 1];
			cr_assert_eq(ch_pool_free(pool, p), 0);
		}
		cr_assert(pool_is_as_before(pool, &before));
		addr[0] = alloc(pool, (size_t)before.largest);
		cr_assert_eq(ch_pool_free(pool, addr[0]), 0);
	}
	free(addr);
	ch_pool_destroy(pool);
}

Test(pool, full_says_so_at_once_or_when_the_time_is_over)
{
	struct ch_pool *pool = pool_of(1 << 20);
	void *p;
	int64_t t;

	while (ch_pool_alloc(pool, 4096, CH_TRY, &p) == 0)
		;
	cr_assert_eq(ch_pool_alloc(pool, 4096, CH_TRY, &p), -ENOSPC);
	t = now_ns();
	cr_assert_eq(ch_pool_alloc(pool, 4096, 30 * MS, &p), -ETIMEDOUT);
	cr_assert_geq(now_ns() - t, 30 * MS);
	ch_pool_destroy(pool);
}

Test(pool, free_of_what_is_no_block_is_invalid)
{
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_pool *other = pool_of(1 << 20);
	char *p = alloc(pool, 1000), *far = alloc(other, 64), local;

	cr_assert_eq(ch_pool_free(pool, NULL), 0, "NULL is a no-op");
	cr_assert_eq(ch_pool_free(pool, &local), -EINVAL);
	cr_assert_eq(ch_pool_free(pool, far), -EINVAL, "a block of another pool");
	for (int off = 1; off < 1000; off += off < 70 ? 1 : 64)
		cr_assert_eq(ch_pool_free(pool, p + off), -EINVAL, "offset %d", off);
	cr_assert_eq(ch_pool_free(pool, p - 64), -EINVAL);
	cr_assert_eq(ch_pool_free(pool, (void *)8), -EINVAL);
	cr_assert_eq(ch_pool_free(pool, (void *)UINTPTR_MAX), -EINVAL);
	cr_assert_eq(ch_pool_block_len(pool, &local), -EINVAL);
	cr_assert_eq(ch_pool_block_len(pool, p + 64), -EINVAL);
	cr_assert_eq(ch_pool_block_len(pool, NULL), -EINVAL);
	cr_assert_eq(ch_pool_free(pool, p), 0);
	cr_assert_eq(ch_pool_free(pool, p), -EINVAL, "it is free already");
	ch_pool_destroy(other);
	ch_pool_destroy(pool);
}

Test(pool, block_of_a_message_cannot_be_freed)
{
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_channel *ch = NULL;
	struct ch_message msg = CH_MESSAGE_INIT;
	void *addr;

	cr_assert_eq(ch_channel_create(pool, NULL, &ch), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_claim(ch, 10000, CH_TRY, &msg), 0, "%s", ch_errmsg());
	fill(msg.data, 10000, 1, 1);
	addr = msg.data;
	cr_assert_eq(ch_channel_commit(ch, &msg, CH_TRY), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_pool_free(pool, addr), -EPERM);
	cr_assert_eq(ch_channel_take(ch, CH_TRY, &msg), 0, "%s", ch_errmsg());
	cr_assert(is_filled(msg.data, msg.len, 1, 1));
	ch_channel_release(ch, &msg);
	ch_pool_destroy(pool);
}

Test(pool, stats_count_what_is_used)
{
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_pool_stats a = stats_of(pool), b;
	struct ch_channel *ch = NULL;
	void *p = alloc(pool, 100), *q = alloc(pool, 50000);

	b = stats_of(pool);
	cr_assert_eq(b.nr_used, a.nr_used + 2);
	cr_assert_eq(b.used, a.used + (uint64_t)(ch_pool_block_len(pool, p) + ch_pool_block_len(pool, q)));
	cr_assert_eq(b.len, a.len);
	ch_pool_free(pool, p);
	ch_pool_free(pool, q);
	cr_assert_eq(ch_channel_create(pool, NULL, &ch), 0, "%s", ch_errmsg());
	b = stats_of(pool);
	cr_assert_eq(b.nr_channels, 1);
	cr_assert_gt(b.used, a.used);
	ch_channel_destroy(ch);
	cr_assert(pool_is_as_before(pool, &a));
	ch_pool_destroy(pool);
}

Test(pool, lives_in_a_segment_that_outlives_it)
{
	struct ch_segment_attr sattr = CH_SEGMENT_ATTR_INIT;
	struct ch_pool_attr attr = CH_POOL_ATTR_INIT;
	struct ch_segment *seg = NULL, *again = NULL;
	struct ch_pool *pool = NULL, *second = NULL;
	char *p;

	sattr.len = 1 << 20;
	sattr.name = "test-outlives";
	cr_assert_eq(ch_segment_create(&sattr, &seg), 0, "%s", ch_errmsg());
	attr.segment = seg;
	attr.len = 1 << 20;
	cr_assert_eq(ch_pool_create(&attr, &pool), -EINVAL, "len together with segment");
	attr.len = 0;
	attr.max_peers = 8;
	cr_assert_eq(ch_pool_create(&attr, &pool), -EINVAL, "max_peers together with segment");
	attr.max_peers = 0;
	attr.flags = CH_ANONYMOUS;
	cr_assert_eq(ch_pool_create(&attr, &pool), -EINVAL, "flags together with segment");
	attr.flags = 0;
	cr_assert_eq(ch_pool_create(&attr, &pool), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_pool_create(&attr, &second), -EEXIST);
	p = alloc(pool, 1000);
	cr_assert_geq(p, (char *)ch_segment_addr(seg));
	cr_assert_leq(p + 1000, (char *)ch_segment_addr(seg) + ch_segment_len(seg));
	ch_pool_destroy(pool);
	cr_assert_eq(ch_segment_attach_name(ch_segment_name(seg), &again), 0, "%s", ch_errmsg());
	ch_segment_detach(again);
	ch_segment_destroy(seg);
}

Test(pool, too_small_a_segment_is_invalid)
{
	struct ch_segment_attr sattr = CH_SEGMENT_ATTR_INIT;
	struct ch_pool_attr attr = CH_POOL_ATTR_INIT;
	struct ch_segment *seg = NULL;
	struct ch_pool *pool = NULL;

	sattr.len = 60 << 10;
	cr_assert_eq(ch_segment_create(&sattr, &seg), 0, "%s", ch_errmsg());
	attr.segment = seg;
	cr_assert_eq(ch_pool_create(&attr, &pool), -EINVAL);
	ch_segment_destroy(seg);
	attr.segment = NULL;
	attr.len = 60 << 10;
	cr_assert_eq(ch_pool_create(&attr, &pool), -EINVAL);
	attr.len = 64 << 10;
	cr_assert_eq(ch_pool_create(&attr, &pool), 0, "%s", ch_errmsg());
	alloc(pool, 64);
	ch_pool_destroy(pool);
}

Test(pool, attr_rules)
{
	struct {
		struct ch_pool_attr known;
		uint64_t future;
	} attr = { CH_POOL_ATTR_INIT, 1 };
	struct ch_pool *pool = NULL;

	attr.known.size = sizeof(attr);
	cr_assert_eq(ch_pool_create(&attr.known, &pool), -E2BIG);
	attr.future = 0;
	cr_assert_eq(ch_pool_create(&attr.known, &pool), 0, "%s", ch_errmsg());
	ch_pool_destroy(pool);
	pool = NULL;
	attr.known.size = offsetof(struct ch_pool_attr, len);
	attr.known.len = UINT64_MAX;
	cr_assert_eq(ch_pool_create(&attr.known, &pool), 0, "a shorter one of an older caller: %s", ch_errmsg());
	ch_pool_destroy(pool);
	pool = NULL;
	attr.known.size = 0;
	cr_assert_eq(ch_pool_create(&attr.known, &pool), -EINVAL);
	attr.known.size = sizeof(attr.known);
	cr_assert_eq(ch_pool_create(&attr.known, &pool), -EINVAL);
	attr.known.len = UINT64_C(1) << 42;
	cr_assert_eq(ch_pool_create(&attr.known, &pool), -ENOSPC, "more than /dev/shm holds");
	attr.known.len = 0;
	attr.known.max_peers = 1;
	cr_assert_eq(ch_pool_create(&attr.known, &pool), -EINVAL);
	cr_assert_null(pool);
}

Test(pool, null_is_invalid)
{
	struct ch_pool *pool = pool_of(1 << 20), *out = NULL;
	struct ch_pool_stats st;
	struct ch_descr d;
	void *p;

	cr_assert_eq(ch_pool_create(NULL, NULL), -EINVAL);
	cr_assert_eq(ch_pool_get_descr(pool, &d), 0);
	cr_assert_eq(ch_pool_attach(NULL, &out), -EINVAL);
	cr_assert_eq(ch_pool_attach(&d, NULL), -EINVAL);
	cr_assert_eq(ch_pool_alloc(NULL, 1, CH_TRY, &p), -EINVAL);
	cr_assert_eq(ch_pool_alloc(pool, 1, CH_TRY, NULL), -EINVAL);
	cr_assert_eq(ch_pool_free(NULL, &d), -EINVAL);
	cr_assert_eq(ch_pool_block_len(NULL, &d), -EINVAL);
	cr_assert_eq(ch_pool_get_stats(NULL, &st), -EINVAL);
	cr_assert_eq(ch_pool_get_stats(pool, NULL), -EINVAL);
	cr_assert_eq(ch_pool_sweep(NULL), -EINVAL);
	cr_assert_eq(ch_pool_sweep(pool), 0, "nobody died");
	ch_pool_detach(NULL);
	ch_pool_destroy(NULL);
	ch_pool_destroy(pool);
}

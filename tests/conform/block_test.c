/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks with a type, blocks given away, blocks shared: block.h, in one process and in several. */
#include "../support/support.h"
#include <criterion/criterion.h>

static struct ch_pool *attach(const struct ch_descr *d)
{
	struct ch_pool *pool = NULL;

	EXPECT(ch_pool_attach(d, &pool) == 0);
	return pool;
}

static struct ch_pool_stats stats_of(struct ch_pool *pool)
{
	struct ch_pool_stats st;

	cr_assert_eq(ch_pool_get_stats(pool, &st), 0);
	return st;
}

/* ---- types */

struct seen {
	int nr;
	uint32_t state;
	size_t len;
	struct ch_peer owner;
	struct ch_pool *frees;
};

static int look(const struct ch_block_info *info, void *arg)
{
	struct seen *s = arg;

	s->nr++;
	s->state = info->state;
	s->len = info->len;
	s->owner = info->owner;
	if (s->frees)
		cr_assert_eq(ch_pool_free(s->frees, (void *)(uintptr_t)info->addr), 0);
	return 0;
}

static int stop_at_two(const struct ch_block_info *info, void *arg)
{
	int *n = arg;

	(void)info;
	return ++*n == 2 ? 77 : 0;
}

Test(block, typed_blocks_are_found_by_their_type)
{
	struct ch_pool *pool = pool_of(1 << 20);
	struct seen s = { 0 };
	int n = 0;
	void *p;

	for (int i = 0; i < 30; i++)
		cr_assert_eq(ch_pool_alloc_typed(pool, 50 + 10 * (size_t)i, 1 + (uint32_t)i % 3, CH_TRY, &p), 0);
	cr_assert_eq(ch_pool_alloc(pool, 50, CH_TRY, &p), 0);
	cr_assert_eq(ch_pool_each_block(pool, 2, look, &s), 10);
	cr_assert_eq(s.nr, 10);
	cr_assert_eq(s.state, CH_BLOCK_OWNED);
	cr_assert_eq(s.owner.id, ch_peer_self().id);
	cr_assert_eq(ch_pool_each_block(pool, 0, look, &s), 31);
	cr_assert_eq(ch_pool_each_block(pool, 9, look, &s), 0);
	cr_assert_eq(ch_pool_each_block(pool, 0, stop_at_two, &n), 77);
	cr_assert_eq(n, 2);
	s.frees = pool;
	for (uint32_t type = 1; type <= 3; type++)
		cr_assert_eq(ch_pool_each_block(pool, type, look, &s), 10);
	cr_assert_eq(ch_pool_each_block(pool, 0, look, &s), 1);
	cr_assert_eq(stats_of(pool).nr_used, 0);
	ch_pool_destroy(pool);
}

Test(block, a_type_takes_no_byte_of_what_was_asked_for)
{
	struct ch_pool *pool = pool_of(4 << 20);
	struct seen s = { 0 };
	void *p;

	for (size_t len = 1; len < 70000; len += 1 + len / 9) {
		cr_assert_eq(ch_pool_alloc_typed(pool, len, 0xfffffff0, CH_TRY, &p), 0);
		cr_assert_geq(ch_pool_block_len(pool, p), (ssize_t)len);
		memset(p, 255, (size_t)ch_pool_block_len(pool, p));
		cr_assert_eq(ch_pool_each_block(pool, 0xfffffff0, look, &s), 1, "the type is overwritten");
		cr_assert_eq(s.len, (size_t)ch_pool_block_len(pool, p));
		cr_assert_eq(ch_pool_free(pool, p), 0);
		cr_assert_eq(ch_pool_alloc(pool, len, CH_TRY, &p), 0);
		cr_assert_eq(ch_pool_each_block(pool, 0xfffffff0, look, &s), 0, "a new owner's block bears no type");
		cr_assert_eq(ch_pool_free(pool, p), 0);
	}
	cr_assert_eq(ch_pool_alloc_typed(pool, 10, 0, CH_TRY, &p), -EINVAL);
	cr_assert_eq(ch_pool_alloc_typed(pool, SIZE_MAX, 1, CH_TRY, &p), -EMSGSIZE);
	ch_pool_destroy(pool);
}

Test(block, classes_count_what_is_there)
{
	struct ch_pool *pool = pool_of(4 << 20);
	struct ch_pool_class c[400];
	struct ch_pool_stats st;
	void *p[6];
	uint64_t used = 0, nr = 0;
	int n;

	cr_assert_eq(ch_pool_get_classes(pool, c, 400), 0);
	for (int i = 0; i < 6; i++)
		cr_assert_eq(ch_pool_alloc(pool, i < 4 ? 300 : 5000, CH_TRY, &p[i]), 0);
	cr_assert_eq(ch_pool_free(pool, p[0]), 0);
	n = ch_pool_get_classes(pool, c, 400);
	cr_assert_eq(n, 2);
	cr_assert_eq(c[0].len, 320);
	cr_assert_eq(c[0].nr_used, 3);
	cr_assert_geq(c[0].nr_free, 1);
	cr_assert_eq(c[1].len, 5120);
	cr_assert_eq(c[1].nr_used, 2);
	for (int i = 0; i < n; i++) {
		used += c[i].len * c[i].nr_used;
		nr += c[i].nr_used;
	}
	st = stats_of(pool);
	cr_assert_eq(st.used, used);
	cr_assert_eq(st.nr_used, nr);
	cr_assert_geq(st.peak, st.used);
	cr_assert_leq(st.peak, st.len);
	cr_assert_eq(ch_pool_get_classes(pool, c, 1), 2, "what does not fit is counted");
	cr_assert_eq(ch_pool_get_classes(pool, NULL, 1), -EINVAL);
	ch_pool_destroy(pool);
}

/* ---- giving away */

Test(block, an_offered_block_is_accepted_once)
{
	struct ch_pool *pool = pool_of(1 << 20), *other = pool_of(1 << 20);
	struct ch_descr d;
	void *p, *q = NULL;

	cr_assert_eq(ch_pool_alloc(pool, 100, CH_TRY, &p), 0);
	cr_assert_eq(ch_block_offer(pool, p, &d), 0);
	cr_assert_eq(ch_descr_kind(&d), CH_DESCR_BLOCK);
	cr_assert_eq(ch_block_offer(pool, p, &d), -EPERM, "twice");
	cr_assert_eq(ch_pool_free(pool, p), -EPERM, "offered blocks are withdrawn first");
	cr_assert_eq(ch_block_accept(other, &d, &q), -EINVAL, "another pool's");
	cr_assert_eq(ch_block_accept(pool, &d, &q), 0);
	cr_assert_eq(q, p);
	cr_assert_eq(ch_block_accept(pool, &d, &q), -ESTALE);
	cr_assert_eq(ch_block_withdraw(pool, p), -ESTALE);
	cr_assert_eq(ch_pool_free(pool, p), 0);
	cr_assert_eq(ch_block_accept(pool, &d, &q), -ESTALE);
	cr_assert_eq(ch_block_offer(pool, p, &d), -EPERM);
	cr_assert_eq(ch_block_offer(pool, (char *)p + 64, &d), -EINVAL);
	cr_assert_eq(ch_block_offer(pool, NULL, &d), -EINVAL);
	ch_pool_get_descr(pool, &d);
	cr_assert_eq(ch_block_accept(pool, &d, &q), -EINVAL);
	ch_pool_destroy(pool);
	ch_pool_destroy(other);
}

Test(block, a_withdrawn_offer_is_over)
{
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_descr d;
	void *p, *q;

	cr_assert_eq(ch_pool_alloc(pool, 100, CH_TRY, &p), 0);
	cr_assert_eq(ch_block_offer(pool, p, &d), 0);
	cr_assert_eq(ch_block_withdraw(pool, p), 0);
	cr_assert_eq(ch_block_accept(pool, &d, &q), -ESTALE);
	cr_assert_eq(ch_pool_free(pool, p), 0);
	ch_pool_destroy(pool);
}

static int accepts_and_waits(void *arg)
{
	struct board *b = arg;
	struct ch_descr pool_descr;
	void *p;

	await_post(b, 0);
	EXPECT(ch_descr_from_text(b->text, &pool_descr) == 0);
	EXPECT(ch_block_accept(attach(&pool_descr), &b->descr, &p) == 0);
	EXPECT(is_filled(p, 1000, 1, 2));
	post(b, 1);
	return wait_to_be_killed();
}

Test(block, a_block_given_away_returns_with_the_death_of_its_new_owner)
{
	struct board *b = board_new();
	pid_t pid = child_start(accepts_and_waits, b);
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_pool_stats before = stats_of(pool);
	struct ch_descr d;
	void *p;

	ch_pool_get_descr(pool, &d);
	ch_descr_to_text(&d, b->text, sizeof(b->text));
	cr_assert_eq(ch_pool_alloc(pool, 1000, CH_TRY, &p), 0);
	fill(p, 1000, 1, 2);
	cr_assert_eq(ch_block_offer(pool, p, &b->descr), 0);
	post(b, 0);
	await_post(b, 1);
	cr_assert_eq(ch_pool_free(pool, p), -EPERM);
	cr_assert_eq(ch_block_withdraw(pool, p), -ESTALE);
	child_kill(pid);
	cr_assert(pool_is_as_before(pool, &before) || stats_of(pool).nr_used == 0);
	ch_pool_destroy(pool);
}

/* ---- sharing */

Test(block, a_shared_block_is_held_until_the_last_view_goes)
{
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_view *v = NULL, *part = NULL, *again = NULL, *bad = NULL;
	struct ch_descr d;
	void *p;

	cr_assert_eq(ch_pool_alloc(pool, 1000, CH_TRY, &p), 0);
	fill(p, 1000, 3, 4);
	cr_assert_eq(ch_view_create(pool, p, 5000, &v), -EINVAL);
	cr_assert_eq(ch_view_create(pool, p, 0, &v), -EINVAL);
	cr_assert_eq(ch_view_create(pool, p, 1000, &v), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_view_create(pool, p, 1000, &bad), -EPERM, "it is not the caller's any more");
	cr_assert_eq(ch_pool_free(pool, p), -EPERM);
	cr_assert_eq(ch_view_addr(v), p);
	cr_assert_eq(ch_view_len(v), 1000);
	cr_assert_eq(ch_view_clone(v, 100, 50, &part), 0);
	cr_assert_eq(ch_view_addr(part), (char *)p + 100);
	cr_assert_eq(ch_view_len(part), 50);
	cr_assert_eq(ch_view_clone(part, 10, 41, &bad), -EINVAL, "beyond the part");
	cr_assert_eq(ch_view_clone(part, SIZE_MAX, 2, &bad), -EINVAL);
	cr_assert_eq(ch_view_get_descr(part, &d), 0);
	cr_assert_eq(ch_descr_kind(&d), CH_DESCR_VIEW);
	cr_assert_eq(ch_view_attach(&d, &again), 0);
	cr_assert_eq(ch_view_len(again), 1000);
	cr_assert_eq(ch_view_count(again), 1, "one process, whatever it has");
	ch_view_detach(v);
	ch_view_detach(again);
	cr_assert_eq(stats_of(pool).nr_used, 2, "the block, and the list of its holders");
	cr_assert(is_filled(p, 1000, 3, 4));
	ch_view_detach(part);
	cr_assert_eq(stats_of(pool).nr_used, 0);
	cr_assert_eq(ch_view_attach(&d, &again), -ESTALE);
	ch_view_detach(NULL);
	ch_pool_destroy(pool);
}

static int holds_a_view(void *arg)
{
	struct board *b = arg;
	struct ch_view *v = NULL;

	await_post(b, 0);
	EXPECT(ch_view_attach(&b->descr, &v) == 0);
	EXPECT(is_filled(ch_view_addr(v), ch_view_len(v), 5, 6));
	post(b, 1);
	await_post(b, 2);
	EXPECT(is_filled(ch_view_addr(v), ch_view_len(v), 5, 6));
	post(b, 3);
	return wait_to_be_killed();
}

Test(block, the_creator_may_go_and_the_last_holder_may_be_killed)
{
	struct board *b = board_new();
	pid_t pid[2] = { child_start(holds_a_view, b), child_start(holds_a_view, b) };
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_view *v;
	void *p;

	cr_assert_eq(ch_pool_alloc(pool, 3000, CH_TRY, &p), 0);
	fill(p, 3000, 5, 6);
	cr_assert_eq(ch_view_create(pool, p, 3000, &v), 0);
	cr_assert_eq(ch_view_get_descr(v, &b->descr), 0);
	post(b, 0);
	AWAIT(posted(b, 1) == 2);
	cr_assert_eq(ch_view_count(v), 3);
	ch_view_detach(v);
	cr_assert_eq(stats_of(pool).nr_used, 2);
	post(b, 2);
	AWAIT(posted(b, 3) == 2);
	child_kill(pid[0]);
	ch_pool_sweep(pool);
	cr_assert_eq(stats_of(pool).nr_used, 2, "one still holds it");
	child_kill(pid[1]);
	ch_pool_sweep(pool);
	cr_assert_eq(stats_of(pool).nr_used, 0);
	ch_pool_destroy(pool);
}

static int views_the_parents(void *arg)
{
	struct ch_view *v = arg;

	EXPECT(is_filled(ch_view_addr(v), ch_view_len(v), 7, 8));
	EXPECT(ch_view_count(v) == 2);
	ch_view_detach(v);
	return 0;
}

Test(block, a_forked_child_holds_the_view_for_itself)
{
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_view *v;
	void *p;

	cr_assert_eq(ch_pool_alloc(pool, 300, CH_TRY, &p), 0);
	fill(p, 300, 7, 8);
	cr_assert_eq(ch_view_create(pool, p, 300, &v), 0);
	cr_assert_eq(child_end(child_start(views_the_parents, v)), 0);
	cr_assert(is_filled(ch_view_addr(v), 300, 7, 8));
	ch_view_detach(v);
	ch_pool_sweep(pool);
	cr_assert_eq(stats_of(pool).nr_used, 0);
	ch_pool_destroy(pool);
}

Test(block, sharing_in_a_full_pool_leaves_the_block_the_callers)
{
	struct ch_pool *pool = pool_of(128 << 10);
	struct ch_view *v = NULL;
	void *p, *q;

	cr_assert_eq(ch_pool_alloc(pool, 1000, CH_TRY, &p), 0);
	for (size_t len = 32768; len >= 64; len /= 2)
		while (ch_pool_alloc(pool, len, CH_TRY, &q) == 0)
			;
	cr_assert_eq(ch_view_create(pool, p, 1000, &v), -ENOSPC);
	cr_assert_eq(ch_pool_free(pool, p), 0);
	ch_pool_destroy(pool);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* segment.cpp, attach.cpp, reclaim.cpp: the table of peers and its bits, what a header is checked for, and the state word. */
#include "peer.h"
#include "pool.h"
#include "segment.h"
#include "../support/support.h"
#include <criterion/criterion.h>
#include <string>
#include <utility>

using namespace ch::core;

namespace {

struct ch_segment *segment_of(u32 max_peers, const char *name = nullptr)
{
	struct ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
	struct ch_segment *seg = nullptr;

	attr.len = 64 << 10;
	attr.max_peers = max_peers;
	attr.name = name;
	cr_assert_eq(ch_segment_create(&attr, &seg), 0, "%s", ch_errmsg());
	return seg;
}

u64 name_of_a_dead_one()
{
	const pid_t pid = child_start([](void *) { return wait_to_be_killed(); }, nullptr);
	const u64 id = peer_id_of(pid);

	child_kill(pid);
	return id;
}

void use(ch_segment *seg, u32 i)
{
	seg->used[i / 64].fetch_or(u64{ 1 } << (i % 64), relaxed);
}

std::string all_peers(const ch_segment *seg)
{
	std::string s;

	for_each_peer(seg, [&](u32 i) { s += std::to_string(i) + " "; });
	return s;
}

/* What joining does, as another process would. */
int joins(void *arg)
{
	registry_lock lock;
	const int i = segment_join(static_cast<ch_segment *>(arg));

	return i < 0 ? 100 : i;
}

int joins_and_is_held(void *arg)
{
	const int i = joins(arg);

	EXPECT(ch_segment_holds(static_cast<ch_segment *>(arg), { peer_self() }, 0) == i);
	return i;
}

} // namespace

Test(segment_unit, neighbours_are_found_around_the_table)
{
	ch_segment *seg = segment_of(200);
	const u32 me = seg->me.load(), far[] = { 63, 64, 65, 127, 128, 200 };

	cr_assert_eq(peer_after(seg, me), me, "alone");
	cr_assert_eq(peer_before(seg, me), me);
	for (u32 i : far)
		use(seg, i);
	cr_assert(all_peers(seg) == std::to_string(me) + " 63 64 65 127 128 200 ");
	for (u32 k = 0; k < 5; k++) {
		cr_assert_eq(peer_after(seg, far[k]), far[k + 1]);
		cr_assert_eq(peer_before(seg, far[k + 1]), far[k]);
	}
	cr_assert_eq(peer_after(seg, 200), me);
	cr_assert_eq(peer_before(seg, me), 200);
	cr_assert_eq(peer_after(seg, 66), 127, "from a place that is not in use");
	for (u32 i : far)
		seg->used[i / 64].fetch_and(~(u64{ 1 } << (i % 64)), relaxed);
	ch_segment_destroy(seg);
}

Test(segment_unit, bits_beyond_the_table_are_nobody)
{
	ch_segment *seg = segment_of(70);
	const u32 me = seg->me.load();

	use(seg, 0);
	use(seg, 71);
	use(seg, 127);
	cr_assert(all_peers(seg) == std::to_string(me) + " ");
	cr_assert_leq(peer_after(seg, me), 70);
	cr_assert_leq(peer_before(seg, me), 70);
	ch_segment_destroy(seg);
}

Test(segment_unit, a_slot_that_was_taken_and_never_marked_is_found_by_who_needs_it)
{
	ch_segment *seg = segment_of(2);
	const u32 other = 3 - seg->me.load();

	seg->peers[other].id.store(name_of_a_dead_one());
	cr_assert_eq(child_end(child_start(joins, seg)), static_cast<int>(other));
	ch_segment_destroy(seg);
}

Test(segment_unit, a_marked_slot_that_nobody_has_is_skipped)
{
	ch_segment *seg = segment_of(4);
	struct ch_segment_info info;

	for (u32 i = 1; i <= 4; i++)
		use(seg, i);
	cr_assert_eq(ch_segment_get_info(seg, &info), 0);
	cr_assert_eq(info.nr_peers, 1);
	ch_segment_destroy(seg);
}

Test(segment_unit, all_dead_ones_are_swept_before_it_is_full)
{
	ch_segment *seg = segment_of(8);
	const u64 dead = name_of_a_dead_one();

	for (u32 i = 1; i <= 8; i++)
		if (i != seg->me.load()) {
			seg->peers[i].id.store(dead);
			use(seg, i);
		}
	cr_assert_lt(child_end(child_start(joins, seg)), 100);
	for (u32 i = 1, n = 0; i <= 8; i++) {
		n += seg->peers[i].id.load() != 0;
		cr_assert_leq(n, 2);
	}
	ch_segment_destroy(seg);
}

/* The one before it dies just when the next one tells of itself: that is no reason for everybody to look from now on. */
Test(segment_unit, a_dying_neighbour_need_not_be_told)
{
	ch_segment *seg = segment_of(30);
	struct board *b = board_new();
	uint64_t seed = test_seed();
	pid_t before = 0;
	const auto stays = [](void *arg) {
		auto *const p = static_cast<std::pair<ch_segment *, struct board *> *>(arg);
		const int i = joins(p->first);

		post(p->second, 0);
		return i < 100 ? wait_to_be_killed() : 1;
	};
	std::pair<ch_segment *, struct board *> arg(seg, b);

	cr_assert_neq(joins(seg), 100);
	for (int i = 0; i < 500; i++) {
		const pid_t pid = child_start(stays, &arg);
		const timespec nap{0, static_cast<long>(rnd(&seed) % 1000000)};

		nanosleep(&nap, nullptr);
		if (before)
			child_kill(before);
		AWAIT(posted(b, 0) == i + 1);
		before = pid;
	}
	child_kill(before);
	cr_assert_eq(seg->hdr->unwatched.load(relaxed), 0u);
	ch_segment_destroy(seg);
}

Test(segment_unit, each_field_of_a_header_is_checked)
{
	ch_segment *seg = segment_of(16);
	segment_header *h = seg->hdr;
	const u64 len = h->total_len;

	cr_assert_eq(segment_check_header(h, len, "x"), 0);
	cr_assert_eq(segment_check_header(h, len - 1, "x"), -EPROTO);
	cr_assert_eq(segment_check_header(h, len + PAGE, "x"), -EPROTO);
	const auto damaged = [&](auto &field, auto value) {
		const auto was = field;
		field = value;
		cr_assert_eq(segment_check_header(h, len, "x"), -EPROTO);
		field = was;
		cr_assert_eq(segment_check_header(h, len, "x"), 0);
	};
	damaged(h->magic, u64{ 0 });
	damaged(h->version, LAYOUT_VERSION + 1);
	damaged(h->max_peers, u32{ 1 });
	damaged(h->max_peers, MAX_PEERS + 1);
	damaged(h->max_peers, u32{ 4000 });
	damaged(h->total_len, len + PAGE);
	damaged(h->user_off, h->user_off + PAGE);
	damaged(h->user_len, u64{ 0 });
	damaged(h->user_len, h->user_len + 1);
	damaged(h->user_len, ~u64{ 0 } - PAGE + 1);
	ch_segment_destroy(seg);
}

Test(segment_unit, a_made_up_name_is_its_own_id)
{
	cr_assert_eq(segment_id_of("00000000deadbeef"), 0xdeadbeef);
	cr_assert_neq(segment_id_of("00000000deadbeeg"), segment_id_of("00000000deadbeef"));
	cr_assert_neq(segment_id_of("a"), segment_id_of("b"));
	cr_assert_eq(segment_check_name(""), -EINVAL);
	cr_assert_eq(segment_check_name("a/b"), -EINVAL);
	cr_assert_eq(segment_check_name(std::string(200, 'x').c_str()), 0);
	cr_assert_eq(segment_check_name(std::string(201, 'x').c_str()), -EINVAL);
}

namespace {

int attaches_by_name(void *arg)
{
	struct board *b = static_cast<struct board *>(arg);
	struct ch_segment *s = nullptr;

	await_post(b, 0);
	EXPECT(ch_segment_attach_name(b->text, &s) == 0);
	EXPECT(s->hdr->state.load() == SEGMENT_READY);
	ch_segment_detach(s);
	return 0;
}

int makes_one(void *arg)
{
	struct board *b = static_cast<struct board *>(arg);
	struct ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
	struct ch_segment *s = nullptr;

	attr.name = b->text;
	attr.len = 64 << 10;
	EXPECT(ch_segment_create(&attr, &s) == 0);
	post(b, 1);
	return wait_to_be_killed();
}

/* Another process, in the middle of a sweep. */
int ends_its_sweep(void *arg)
{
	const std::pair<ch_segment *, u32> &what = *static_cast<std::pair<ch_segment *, u32> *>(arg);
	peer_slot &slot = what.first->peers[what.second];

	AWAIT(slot.sweeper.load() == peer_self());
	usleep(50000);
	what.first->used[0].fetch_and(~(u64{ 1 } << what.second));
	slot.id.store(0);
	slot.sweeper.store(0);
	return 0;
}

} // namespace

Test(segment_unit, a_place_that_is_being_swept_is_waited_for)
{
	std::pair<ch_segment *, u32> what = { segment_of(2), 0 };
	ch_segment *seg = what.first;
	const u32 other = what.second = 3 - seg->me.load();
	const pid_t sweeper = child_start(ends_its_sweep, &what);

	use(seg, other);
	seg->peers[other].id.store(name_of_a_dead_one());
	seg->peers[other].sweeper.store(peer_id_of(sweeper));
	cr_assert_eq(child_end(child_start(joins, seg)), static_cast<int>(other));
	cr_assert_eq(child_end(sweeper), 0);
	ch_segment_destroy(seg);
}

/* A sweeper that died after its last but one store. */
Test(segment_unit, a_tenant_is_held_though_a_dead_sweeper_left_its_name)
{
	ch_segment *seg = segment_of(2);
	const u32 other = 3 - seg->me.load();

	seg->peers[other].sweeper.store(name_of_a_dead_one());
	cr_assert_eq(child_end(child_start(joins_and_is_held, seg)), static_cast<int>(other));
	ch_segment_destroy(seg);
}

/* A reclaimer that died between its question and its answer. */
Test(segment_unit, an_attacher_takes_a_question_away)
{
	struct board *b = board_new();
	const pid_t stranger = child_start(attaches_by_name, b);

	strcpy(b->text, "unit-asked");
	ch_segment *seg = segment_of(4, b->text);
	seg->hdr->state.store(SEGMENT_RECLAIMING | 4711u << 8);
	post(b, 0);
	cr_assert_eq(child_end(stranger), 0);
	seg->hdr->state.store(SEGMENT_RECLAIMING | 4711u << 8);
	cr_assert_lt(child_end(child_start(joins, seg)), 100, "a forked child takes it away as well");
	cr_assert_eq(seg->hdr->state.load(), SEGMENT_READY);
	ch_segment_destroy(seg);
}

Test(segment_unit, a_reclaimer_takes_over_a_question_and_answers_it)
{
	struct board *b = board_new();
	struct ch_segment *seg = nullptr;

	strcpy(b->text, "unit-taken");
	const pid_t creator = child_start(makes_one, b);
	await_post(b, 1);
	cr_assert_eq(ch_segment_attach_name(b->text, &seg), 0);
	child_kill(creator);
	seg->hdr->state.store(SEGMENT_RECLAIMING | 4711u << 8);
	cr_assert_eq(ch_segment_reclaim(b->text), 0, "we use it");
	cr_assert_eq(seg->hdr->state.load(), SEGMENT_READY);
	ch_segment_detach(seg);
	cr_assert_eq(ch_segment_reclaim(b->text), 1);
}

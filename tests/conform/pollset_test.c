/* SPDX-License-Identifier: Apache-2.0 */
/* pollset.h: members and what is reported of them. One thread; see pollset_wait_test.c for waiting. */
#include "../support/support.h"
#include <criterion/criterion.h>

TestSuite(pollset, .timeout = WATCHDOG_S);

static struct ch_pool *pool;
static struct ch_pollset *set;
static struct ch_channel *ch;

static struct ch_channel *create_in(struct ch_pool *in, uint32_t capacity, uint32_t max_watchers)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_channel *out = NULL;

	attr.capacity = capacity;
	attr.max_watchers = max_watchers;
	cr_assert_eq(ch_channel_create(in, &attr, &out), 0, "%s", ch_errmsg());
	return out;
}

static struct ch_pollset *set_of(uint32_t max_members)
{
	struct ch_pollset_attr attr = CH_POLLSET_ATTR_INIT;
	struct ch_pollset *out = NULL;

	attr.max_members = max_members;
	cr_assert_eq(ch_pollset_create(&attr, &out), 0, "%s", ch_errmsg());
	return out;
}

static void setup(void)
{
	pool = pool_of(4 << 20);
	set = set_of(0);
	ch = create_in(pool, 4, 0);
}

static void teardown(void)
{
	ch_pollset_destroy(set);
	ch_pool_destroy(pool);
}

static void add(uint32_t events)
{
	cr_assert_eq(ch_pollset_add(set, ch, events, 77), 0, "%s", ch_errmsg());
}

/* The events of the only member, or 0 for none. */
static uint32_t events_now(void)
{
	struct ch_poll_event ev[4];
	const int n = ch_pollset_wait(set, ev, 4, CH_TRY);

	if (n == -EAGAIN)
		return 0;
	cr_assert_eq(n, 1, "%d", n);
	cr_assert_eq(ev[0].user_data, 77);
	return ev[0].events;
}

static void send1(void)
{
	cr_assert_eq(ch_channel_send(ch, "x", 1, CH_TRY), 0);
}

static void recv1(void)
{
	char c;

	cr_assert_eq(ch_channel_recv(ch, &c, 1, CH_TRY), 1);
}

static void fill_up(void)
{
	while (ch_channel_send(ch, "x", 1, CH_TRY) == 0)
		;
}

Test(pollset, level_in_is_reported_as_long_as_there_is_a_message, .init = setup, .fini = teardown)
{
	add(CH_POLL_IN);
	for (int round = 0; round < 3; round++) {
		cr_assert_eq(events_now(), 0);
		send1();
		send1();
		for (int k = 0; k < 3; k++)
			cr_assert_eq(events_now(), CH_POLL_IN);
		recv1();
		cr_assert_eq(events_now(), CH_POLL_IN);
		recv1();
		cr_assert_eq(events_now(), 0);
	}
}

Test(pollset, level_out_is_reported_as_long_as_there_is_room, .init = setup, .fini = teardown)
{
	add(CH_POLL_OUT);
	for (int round = 0; round < 3; round++) {
		cr_assert_eq(events_now(), CH_POLL_OUT);
		fill_up();
		cr_assert_eq(events_now(), 0);
		recv1();
		cr_assert_eq(events_now(), CH_POLL_OUT);
		send1();
		cr_assert_eq(events_now(), 0);
		recv1();
	}
}

Test(pollset, room_for_urgent_messages_is_reported_apart, .init = setup, .fini = teardown)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_send_attr urgent = CH_SEND_ATTR_INIT;
	const uint32_t how[] = { 0, CH_POLL_EDGE };

	cr_assert_eq(ch_pollset_add(set, ch, CH_POLL_OUT_URGENT, 77), -EINVAL, "it has no such lane");
	attr.capacity = 4;
	attr.urgent_capacity = 2;
	urgent.flags = CH_MESSAGE_URGENT;
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(ch_channel_create(pool, &attr, &ch), 0, "%s", ch_errmsg());
		cr_assert_eq(ch_pollset_add(set, ch, CH_POLL_OUT_URGENT | how[i], 77), 0, "%s", ch_errmsg());
		cr_assert_eq(events_now(), CH_POLL_OUT_URGENT);
		while (ch_channel_send_attr(ch, "x", 1, &urgent, CH_TRY) == 0)
			;
		cr_assert_eq(events_now(), 0);
		send1();
		recv1(); /* an urgent one */
		cr_assert_eq(events_now(), CH_POLL_OUT_URGENT);
		fill_up();
		cr_assert_eq(events_now(), how[i] ? 0 : CH_POLL_OUT_URGENT, "whether or not there is other room");
		cr_assert_eq(ch_channel_send_attr(ch, "x", 1, &urgent, CH_TRY), 0);
		cr_assert_eq(events_now(), 0);
		cr_assert_eq(ch_pollset_modify(set, ch, CH_POLL_IN | CH_POLL_OUT, 77), 0);
		cr_assert_eq(events_now(), CH_POLL_IN, "no room but for urgent ones");
		cr_assert_eq(ch_pollset_remove(set, ch), 0);
		ch_channel_destroy(ch);
	}
}

Test(pollset, level_empty_and_full, .init = setup, .fini = teardown)
{
	add(CH_POLL_EMPTY | CH_POLL_FULL);
	for (int round = 0; round < 3; round++) {
		cr_assert_eq(events_now(), CH_POLL_EMPTY);
		send1();
		cr_assert_eq(events_now(), 0);
		send1();
		cr_assert_eq(events_now(), 0);
		fill_up();
		cr_assert_eq(events_now(), CH_POLL_FULL);
		cr_assert_eq(events_now(), CH_POLL_FULL);
		for (int k = 0; k < 3; k++) {
			recv1();
			cr_assert_eq(events_now(), 0);
		}
		recv1();
		cr_assert_eq(events_now(), CH_POLL_EMPTY);
	}
}

Test(pollset, several_events_come_together, .init = setup, .fini = teardown)
{
	add(CH_POLL_IN | CH_POLL_OUT | CH_POLL_EMPTY | CH_POLL_FULL);
	cr_assert_eq(events_now(), CH_POLL_OUT | CH_POLL_EMPTY);
	send1();
	cr_assert_eq(events_now(), CH_POLL_IN | CH_POLL_OUT);
	fill_up();
	cr_assert_eq(events_now(), CH_POLL_IN | CH_POLL_FULL);
}

Test(pollset, an_edge_is_reported_once_for_each_change, .init = setup, .fini = teardown)
{
	add(CH_POLL_IN | CH_POLL_EDGE);
	cr_assert_eq(events_now(), 0);
	for (int round = 0; round < 3; round++) {
		send1();
		cr_assert_eq(events_now(), CH_POLL_IN);
		cr_assert_eq(events_now(), 0);
		send1();
		cr_assert_eq(events_now(), CH_POLL_IN);
		recv1(); /* a message is left, but that is no change */
		cr_assert_eq(events_now(), 0);
		recv1();
		cr_assert_eq(events_now(), 0);
	}
}

Test(pollset, edges_of_room_empty_and_full, .init = setup, .fini = teardown)
{
	add(CH_POLL_OUT | CH_POLL_EDGE);
	cr_assert_eq(events_now(), CH_POLL_OUT); /* so already when it was added */
	cr_assert_eq(events_now(), 0);
	fill_up();
	cr_assert_eq(events_now(), 0);
	recv1();
	cr_assert_eq(events_now(), CH_POLL_OUT);
	cr_assert_eq(events_now(), 0);
	cr_assert_eq(ch_pollset_modify(set, ch, CH_POLL_FULL | CH_POLL_EDGE, 77), 0);
	cr_assert_eq(events_now(), 0);
	send1();
	cr_assert_eq(events_now(), CH_POLL_FULL);
	cr_assert_eq(events_now(), 0);
	cr_assert_eq(ch_pollset_modify(set, ch, CH_POLL_EMPTY | CH_POLL_EDGE, 77), 0);
	cr_assert_eq(events_now(), 0);
	for (int k = 0; k < 4; k++) {
		cr_assert_eq(events_now(), 0);
		recv1();
	}
	cr_assert_eq(events_now(), CH_POLL_EMPTY);
	cr_assert_eq(events_now(), 0);
}

Test(pollset, what_is_so_when_an_edge_is_added_is_an_event, .init = setup, .fini = teardown)
{
	send1();
	add(CH_POLL_IN | CH_POLL_EDGE);
	cr_assert_eq(events_now(), CH_POLL_IN);
	cr_assert_eq(events_now(), 0);
}

Test(pollset, oneshot_fires_once_until_it_is_modified, .init = setup, .fini = teardown)
{
	add(CH_POLL_IN | CH_POLL_ONESHOT);
	send1();
	cr_assert_eq(events_now(), CH_POLL_IN);
	send1();
	cr_assert_eq(events_now(), 0);
	cr_assert_eq(ch_pollset_modify(set, ch, CH_POLL_IN | CH_POLL_ONESHOT, 77), 0);
	cr_assert_eq(events_now(), CH_POLL_IN);
	cr_assert_eq(events_now(), 0);
	recv1();
	recv1();
	cr_assert_eq(ch_pollset_modify(set, ch, CH_POLL_IN | CH_POLL_ONESHOT, 77), 0);
	cr_assert_eq(events_now(), 0);
	send1();
	cr_assert_eq(events_now(), CH_POLL_IN);
}

Test(pollset, modify_changes_events_and_user_data, .init = setup, .fini = teardown)
{
	struct ch_poll_event ev;

	send1();
	add(CH_POLL_FULL);
	cr_assert_eq(events_now(), 0);
	cr_assert_eq(ch_pollset_modify(set, ch, CH_POLL_IN, 78), 0);
	cr_assert_eq(ch_pollset_wait(set, &ev, 1, CH_TRY), 1);
	cr_assert_eq(ev.events, CH_POLL_IN);
	cr_assert_eq(ev.user_data, 78);
	cr_assert_eq(ev.reserved, 0);
	cr_assert_eq(ch_pollset_modify(set, ch, 0, 77), 0);
	cr_assert_eq(events_now(), 0);
}

Test(pollset, closed_is_reported_unasked, .init = setup, .fini = teardown)
{
	add(0);
	send1();
	cr_assert_eq(events_now(), 0);
	cr_assert_eq(ch_channel_close(ch), 0);
	cr_assert_eq(events_now(), CH_POLL_CLOSED);
	cr_assert_eq(events_now(), CH_POLL_CLOSED);
	cr_assert_eq(ch_pollset_modify(set, ch, CH_POLL_IN | CH_POLL_OUT, 77), 0);
	cr_assert_eq(events_now(), CH_POLL_CLOSED | CH_POLL_IN);
	recv1();
	cr_assert_eq(events_now(), CH_POLL_CLOSED);
	cr_assert_eq(ch_pollset_modify(set, ch, CH_POLL_EDGE, 77), 0);
	cr_assert_eq(events_now(), CH_POLL_CLOSED);
	cr_assert_eq(events_now(), 0);
}

Test(pollset, a_destroyed_member_is_reported_and_can_be_removed, .init = setup, .fini = teardown)
{
	struct ch_descr descr;
	struct ch_channel *other;

	cr_assert_eq(ch_channel_get_descr(ch, &descr), 0);
	cr_assert_eq(ch_channel_attach(&descr, &other), 0);
	add(CH_POLL_IN);
	cr_assert_eq(events_now(), 0);
	ch_channel_destroy(other);
	cr_assert_eq(events_now(), CH_POLL_CLOSED | CH_POLL_DESTROYED);
	cr_assert_eq(ch_pollset_remove(set, ch), 0);
	cr_assert_eq(events_now(), 0);
	cr_assert_eq(ch_pollset_add(set, ch, CH_POLL_IN, 0), -ESTALE);
	ch_channel_detach(ch);
}

Test(pollset, members_of_a_destroyed_pool_are_destroyed, .init = setup, .fini = teardown)
{
	struct ch_pool *other = pool_of(1 << 20);
	struct ch_descr descr;

	ch = create_in(other, 4, 0);
	cr_assert_eq(ch_pool_get_descr(other, &descr), 0);
	add(CH_POLL_IN);
	cr_assert_eq(events_now(), 0);
	ch_pool_destroy(other);
	cr_assert_eq(events_now(), CH_POLL_CLOSED | CH_POLL_DESTROYED);
	cr_assert_eq(ch_pollset_remove(set, ch), 0);
	ch_channel_detach(ch);
}

Test(pollset, a_detached_channel_stays_a_member, .init = setup, .fini = teardown)
{
	struct ch_descr descr;

	add(CH_POLL_IN);
	cr_assert_eq(ch_channel_get_descr(ch, &descr), 0);
	ch_channel_detach(ch);
	cr_assert_eq(ch_channel_attach(&descr, &ch), 0);
	send1();
	cr_assert_eq(events_now(), CH_POLL_IN);
	cr_assert_eq(ch_pollset_remove(set, ch), 0);
	cr_assert_eq(events_now(), 0);
}

Test(pollset, thousands_of_members_each_reported_once_and_none_forgotten, .init = setup, .fini = teardown)
{
	enum { N = 3000, STEP = 7 };
	struct ch_pool *large = pool_of(32 << 20);
	static struct ch_channel *all[N];
	static int seen[N];
	struct ch_poll_event ev[64];
	int n, total = 0;

	for (int i = 0; i < N; i++) {
		all[i] = create_in(large, 2, 1);
		cr_assert_eq(ch_pollset_add(set, all[i], CH_POLL_IN | CH_POLL_EDGE, (uint64_t)i), 0, "%s", ch_errmsg());
	}
	cr_assert_eq(ch_pollset_wait(set, ev, 64, CH_TRY), -EAGAIN);
	for (int i = 0; i < N; i += STEP)
		cr_assert_eq(ch_channel_send(all[i], &i, sizeof(i), CH_TRY), 0);
	while ((n = ch_pollset_wait(set, ev, 64, CH_TRY)) > 0)
		for (int k = 0; k < n; k++) {
			cr_assert_lt(ev[k].user_data, N);
			seen[ev[k].user_data]++;
			total++;
		}
	cr_assert_eq(n, -EAGAIN);
	for (int i = 0; i < N; i++)
		cr_assert_eq(seen[i], i % STEP == 0, "%d: %d", i, seen[i]);
	cr_assert_eq(total, (N + STEP - 1) / STEP);
	for (int i = 0; i < N; i += 2)
		cr_assert_eq(ch_pollset_remove(set, all[i]), 0);
	for (int i = 0; i < N; i++)
		cr_assert_eq(ch_channel_send(all[i], &i, sizeof(i), CH_TRY), 0);
	for (total = 0; (n = ch_pollset_wait(set, ev, 64, CH_TRY)) > 0; total += n)
		for (int k = 0; k < n; k++)
			cr_assert_eq(ev[k].user_data % 2, 1);
	cr_assert_eq(total, N / 2);
	ch_pollset_destroy(set);
	set = NULL;
	for (int i = 0; i < N; i++)
		ch_channel_destroy(all[i]);
	ch_pool_destroy(large);
}

Test(pollset, ready_members_take_turns, .init = setup, .fini = teardown)
{
	enum { N = 5 };
	struct ch_channel *all[N];
	struct ch_poll_event ev[2];
	int seen[N] = { 0 };

	for (int i = 0; i < N; i++) {
		all[i] = create_in(pool, 2, 0);
		cr_assert_eq(ch_pollset_add(set, all[i], CH_POLL_OUT, (uint64_t)i), 0);
	}
	for (int round = 0; round < 10 * N; round++) {
		const uint32_t cap = 1 + (uint32_t)round % 2;
		const int n = ch_pollset_wait(set, ev, cap, CH_TRY);

		cr_assert_eq(n, (int)cap);
		for (int k = 0; k < n; k++)
			seen[ev[k].user_data]++;
	}
	for (int i = 0; i < N; i++)
		cr_assert_eq(seen[i], 15, "%d: %d", i, seen[i]);
}

Test(pollset, every_number_of_members_has_its_mark)
{
	static const uint32_t maxima[] = { 1, 2, 63, 64, 65, 4096, 4097, 65536 };
	struct ch_poll_event ev[4];

	pool = pool_of(4 << 20);
	ch = create_in(pool, 4, 0);
	for (size_t m = 0; m < sizeof(maxima) / sizeof(*maxima); m++) {
		struct ch_channel *two[2] = { ch, create_in(pool, 4, 0) };
		const int nr = maxima[m] > 1 ? 2 : 1;

		set = set_of(maxima[m]);
		for (int i = 0; i < nr; i++)
			cr_assert_eq(ch_pollset_add(set, two[i], CH_POLL_IN | CH_POLL_EDGE, (uint64_t)i), 0);
		cr_assert_eq(ch_pollset_add(set, create_in(pool, 4, 0), CH_POLL_IN, 0), nr == 2 && maxima[m] > 2 ? 0 : -ENOSPC);
		cr_assert_eq(ch_pollset_wait(set, ev, 4, CH_TRY), -EAGAIN);
		send1();
		cr_assert_eq(ch_pollset_wait(set, ev, 4, CH_TRY), 1);
		cr_assert_eq(ev[0].user_data, 0);
		recv1();
		ch_pollset_destroy(set);
		ch_channel_destroy(two[1]);
	}
	ch_pool_destroy(pool);
}

Test(pollset, a_channel_has_as_many_watchers_as_it_was_made_for, .init = setup, .fini = teardown)
{
	struct ch_channel *two = create_in(pool, 4, 2);
	struct ch_pollset *other[3] = { set_of(4), set_of(4), set_of(4) };
	struct ch_poll_event ev;

	cr_assert_eq(ch_pollset_add(other[0], two, CH_POLL_IN, 0), 0);
	cr_assert_eq(ch_pollset_add(other[1], two, CH_POLL_IN, 1), 0);
	cr_assert_eq(ch_pollset_add(other[2], two, CH_POLL_IN, 2), -ENOSPC);
	cr_assert_eq(ch_channel_send(two, "x", 1, CH_TRY), 0);
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(ch_pollset_wait(other[i], &ev, 1, CH_TRY), 1);
		cr_assert_eq(ev.user_data, i);
	}
	ch_pollset_destroy(other[0]);
	cr_assert_eq(ch_pollset_add(other[2], two, CH_POLL_IN, 2), 0);
	cr_assert_eq(ch_pollset_wait(other[2], &ev, 1, CH_TRY), 1);
	ch_pollset_destroy(other[1]);
	ch_pollset_destroy(other[2]);
}

Test(pollset, members_of_several_pools, .init = setup, .fini = teardown)
{
	struct ch_pool *other = pool_of(1 << 20);
	struct ch_channel *far = create_in(other, 4, 0);
	struct ch_poll_event ev[4];

	add(CH_POLL_IN);
	cr_assert_eq(ch_pollset_add(set, far, CH_POLL_IN, 78), 0, "%s", ch_errmsg());
	cr_assert_eq(events_now(), 0);
	cr_assert_eq(ch_channel_send(far, "x", 1, CH_TRY), 0);
	cr_assert_eq(ch_pollset_wait(set, ev, 4, CH_TRY), 1);
	cr_assert_eq(ev[0].user_data, 78);
	send1();
	cr_assert_eq(ch_pollset_wait(set, ev, 4, CH_TRY), 2);
	ch_pollset_destroy(set);
	set = NULL;
	ch_pool_destroy(other);
}

Test(pollset, a_set_leaves_nothing_in_the_pool, .init = setup, .fini = teardown)
{
	struct ch_pool_stats before;
	struct ch_pollset *other = set_of(65536);

	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
	cr_assert_eq(ch_pollset_add(other, ch, CH_POLL_IN, 0), 0);
	cr_assert_eq(ch_pollset_remove(other, ch), 0);
	cr_assert_eq(ch_pollset_add(other, ch, CH_POLL_IN, 0), 0);
	ch_pollset_destroy(other);
	cr_assert(pool_is_as_before(pool, &before));
}

Test(pollset, errors, .init = setup, .fini = teardown)
{
	struct ch_pollset_attr attr = CH_POLLSET_ATTR_INIT;
	struct ch_pollset *out = NULL;
	struct ch_poll_event ev;

	cr_assert_eq(ch_pollset_create(NULL, NULL), -EINVAL);
	attr.max_members = 65537;
	cr_assert_eq(ch_pollset_create(&attr, &out), -EINVAL);
	attr.max_members = 0;
	attr.reserved = 1;
	cr_assert_eq(ch_pollset_create(&attr, &out), -EINVAL);
	cr_assert_null(out);
	cr_assert_eq(ch_pollset_add(NULL, ch, CH_POLL_IN, 0), -EINVAL);
	cr_assert_eq(ch_pollset_add(set, NULL, CH_POLL_IN, 0), -EINVAL);
	cr_assert_eq(ch_pollset_add(set, ch, 1u << 31, 0), -EINVAL);
	cr_assert_eq(ch_pollset_remove(set, ch), -ENOENT);
	cr_assert_eq(ch_pollset_modify(set, ch, CH_POLL_IN, 0), -ENOENT);
	add(CH_POLL_IN);
	cr_assert_eq(ch_pollset_add(set, ch, CH_POLL_IN, 0), -EEXIST);
	cr_assert_eq(ch_pollset_modify(set, ch, 1u << 31, 0), -EINVAL);
	cr_assert_eq(ch_pollset_modify(set, NULL, CH_POLL_IN, 0), -EINVAL);
	cr_assert_eq(ch_pollset_remove(set, NULL), -EINVAL);
	cr_assert_eq(ch_pollset_remove(set, ch), 0);
	cr_assert_eq(ch_pollset_remove(set, ch), -ENOENT);
	cr_assert_eq(ch_pollset_wait(NULL, &ev, 1, CH_TRY), -EINVAL);
	cr_assert_eq(ch_pollset_wait(set, NULL, 1, CH_TRY), -EINVAL);
	cr_assert_eq(ch_pollset_wait(set, &ev, 0, CH_TRY), -EINVAL);
	cr_assert_eq(ch_pollset_fd(NULL), -EINVAL);
	ch_pollset_destroy(NULL);
}

Test(pollset, a_full_pool_has_no_room_for_a_set, .init = setup, .fini = teardown)
{
	struct ch_pool *small = pool_of(64 << 10);
	struct ch_channel *one = create_in(small, 2, 0);
	struct ch_poll_event ev;
	void *addr;

	while (ch_pool_alloc(small, 128, CH_TRY, &addr) == 0)
		;
	cr_assert_eq(ch_pollset_add(set, one, CH_POLL_IN, 0), -ENOSPC);
	cr_assert_eq(ch_pollset_wait(set, &ev, 1, CH_TRY), -EAGAIN);
	ch_pool_destroy(small);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* pollset.h: ports, streams, semaphores and events as members; level, edge, one-shot. */
#include "pollset_kinds.h"

TestSuite(pollkinds, .timeout = WATCHDOG_S, .init = setup, .fini = teardown);

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

static void write_chunk(struct ch_stream *s)
{
	cr_assert_eq(ch_stream_write(s, "chunk", 5, 0, CH_TRY), 5, "%s", ch_errmsg());
	cr_assert_eq(ch_stream_flush(s, CH_TRY), 0, "%s", ch_errmsg());
}

/* ---- semaphores */

static void use_semaphore(uint32_t flags)
{
	struct ch_semaphore *s = semaphore_of(0, flags);

	make_set();
	add(ch_semaphore_get_pollable(s), CH_POLL_IN);
	for (int round = 0; round < 3; round++) {
		cr_assert_eq(events_now(), 0);
		cr_assert_eq(ch_semaphore_release(s, 2), 0);
		cr_assert_eq(events_now(), CH_POLL_IN);
		cr_assert_eq(ch_semaphore_acquire(s, 1, CH_TRY), 0);
		cr_assert_eq(events_now(), CH_POLL_IN);
		cr_assert_eq(ch_semaphore_acquire(s, 1, CH_TRY), 0);
	}
	cr_assert_eq(ch_pollset_modify_any(set, ch_semaphore_get_pollable(s), CH_POLL_EMPTY | CH_POLL_EDGE, 77), 0);
	cr_assert_eq(events_now(), CH_POLL_EMPTY);
	cr_assert_eq(events_now(), 0);
	cr_assert_eq(ch_semaphore_release(s, 2), 0);
	cr_assert_eq(ch_semaphore_acquire(s, 1, CH_TRY), 0);
	cr_assert_eq(events_now(), 0);
	cr_assert_eq(ch_semaphore_acquire(s, 1, CH_TRY), 0);
	cr_assert_eq(events_now(), CH_POLL_EMPTY);
	cr_assert_eq(ch_pollset_modify_any(set, ch_semaphore_get_pollable(s), CH_POLL_IN | CH_POLL_ONESHOT, 77), 0);
	cr_assert_eq(ch_semaphore_release(s, 1), 0);
	cr_assert_eq(events_now(), CH_POLL_IN);
	cr_assert_eq(ch_semaphore_release(s, 1), 0);
	cr_assert_eq(events_now(), 0);
	cr_assert_eq(ch_pollset_remove_any(set, ch_semaphore_get_pollable(s)), 0);
	cr_assert_eq(ch_pollset_remove_any(set, ch_semaphore_get_pollable(s)), -ENOENT);
	ch_pollset_destroy(set);
	ch_semaphore_destroy(s);
	cr_assert(pool_is_as_before(pool, &empty));
}

Test(pollkinds, a_semaphore_is_in_while_a_unit_is_free_and_empty_while_none_is)
{
	use_semaphore(0);
	use_semaphore(CH_SEMAPHORE_UNDO);
}

/* ---- events */

Test(pollkinds, an_event_is_in_while_it_is_set)
{
	for (uint32_t flags = 0; flags <= CH_EVENT_AUTO_RESET; flags += CH_EVENT_AUTO_RESET) {
		struct ch_event *e = event_of(flags);

		make_set();
		add(ch_event_get_pollable(e), CH_POLL_IN);
		for (int round = 0; round < 3; round++) {
			cr_assert_eq(events_now(), 0);
			cr_assert_eq(ch_event_pulse(e), 0);
			cr_assert_eq(events_now(), 0);
			cr_assert_eq(ch_event_set(e), 0);
			cr_assert_eq(events_now(), CH_POLL_IN);
			cr_assert_eq(events_now(), CH_POLL_IN);
			cr_assert_eq(ch_event_wait(e, CH_TRY), 0);
			cr_assert_eq(events_now(), flags ? 0 : CH_POLL_IN);
			cr_assert_eq(ch_event_clear(e), 0);
		}
		cr_assert_eq(ch_pollset_modify_any(set, ch_event_get_pollable(e), CH_POLL_IN | CH_POLL_EDGE, 77), 0);
		cr_assert_eq(ch_event_set(e), 0);
		cr_assert_eq(events_now(), CH_POLL_IN);
		cr_assert_eq(events_now(), 0);
		cr_assert_eq(ch_event_set(e), 0);
		cr_assert_eq(events_now(), CH_POLL_IN);
		ch_event_destroy(e);
		cr_assert_eq(events_now(), CH_POLL_CLOSED | CH_POLL_DESTROYED);
		ch_pollset_destroy(set);
	}
	cr_assert(pool_is_as_before(pool, &empty));
}

/* ---- ports */

Test(pollkinds, a_port_is_in_while_a_conversation_waits_and_out_while_a_stream_is_free)
{
	struct ch_stream_port *port = port_of(2);
	struct ch_stream *w[2], *r[2];

	make_set();
	add(ch_stream_port_get_pollable(port), CH_POLL_IN | CH_POLL_OUT);
	for (int round = 0; round < 3; round++) {
		cr_assert_eq(events_now(), CH_POLL_OUT);
		w[0] = open_at(port);
		cr_assert_eq(events_now(), CH_POLL_IN | CH_POLL_OUT);
		w[1] = open_at(port);
		cr_assert_eq(events_now(), CH_POLL_IN);
		r[0] = accept_at(port);
		cr_assert_eq(events_now(), CH_POLL_IN);
		r[1] = accept_at(port);
		cr_assert_eq(events_now(), 0);
		ch_stream_close(w[0]);
		cr_assert_eq(events_now(), 0);
		ch_stream_close(r[0]);
		cr_assert_eq(events_now(), CH_POLL_OUT);
		ch_stream_close(w[1]);
		ch_stream_close(r[1]);
	}
	cr_assert_eq(ch_pollset_modify_any(set, ch_stream_port_get_pollable(port), CH_POLL_FULL, 77), -EINVAL);
	cr_assert_eq(ch_pollset_modify_any(set, ch_stream_port_get_pollable(port), CH_POLL_IN | CH_POLL_EDGE, 77), 0);
	cr_assert_eq(events_now(), 0);
	w[0] = open_at(port);
	cr_assert_eq(events_now(), CH_POLL_IN);
	cr_assert_eq(events_now(), 0);
	ch_stream_close(w[0]); /* cancelled before anybody came */
	cr_assert_eq(ch_stream_open(port, CH_STREAM_BUFFERED, CH_TRY, &w[0]), 0);
	cr_assert_eq(events_now(), 0);
	cr_assert_eq(ch_stream_end(w[0], CH_TRY), 0);
	cr_assert_eq(events_now(), CH_POLL_IN);
	ch_stream_close(w[0]);
	ch_stream_port_destroy(port);
	cr_assert_eq(events_now(), CH_POLL_CLOSED | CH_POLL_DESTROYED);
	ch_pollset_destroy(set);
	cr_assert(pool_is_as_before(pool, &empty));
}

/* ---- streams */

Test(pollkinds, a_reader_is_in_while_there_is_a_chunk_or_a_part_of_one)
{
	struct ch_stream_port *port = port_of(2);
	struct ch_stream *w = open_at(port), *r = accept_at(port);

	make_set();
	add(ch_stream_get_pollable(r), CH_POLL_IN);
	for (int round = 0; round < 3; round++) {
		cr_assert_eq(events_now(), 0);
		write_chunk(w);
		cr_assert_eq(events_now(), CH_POLL_IN);
		cr_assert_eq(read_some(r, 2), 2);
		cr_assert_eq(events_now(), CH_POLL_IN);
		cr_assert_eq(read_some(r, 9), 3);
	}
	cr_assert_eq(ch_pollset_modify_any(set, ch_stream_get_pollable(r), CH_POLL_IN | CH_POLL_EDGE, 77), 0);
	cr_assert_eq(events_now(), 0);
	write_chunk(w);
	cr_assert_eq(events_now(), CH_POLL_IN);
	write_chunk(w);
	cr_assert_eq(events_now(), CH_POLL_IN);
	cr_assert_eq(events_now(), 0);
	cr_assert_eq(read_some(r, 9), 9);
	cr_assert_eq(ch_stream_end(w, CH_TRY), 0);
	cr_assert_eq(events_now(), CH_POLL_CLOSED | CH_POLL_IN, "%x", events_now());
	cr_assert_eq(read_some(r, 9), 1);
	cr_assert_eq(read_some(r, 9), 0);
	ch_stream_close(r);
	cr_assert_eq(events_now(), 0, "a closed end is no member");
	ch_stream_close(w);
	ch_pollset_destroy(set);
	ch_stream_port_destroy(port);
	cr_assert(pool_is_as_before(pool, &empty));
}

Test(pollkinds, a_writer_is_out_while_there_is_room_and_empty_when_all_was_taken)
{
	struct ch_stream_port *port = port_of(2);
	struct ch_stream *w = open_at(port), *r = accept_at(port);

	make_set();
	add(ch_stream_get_pollable(w), CH_POLL_OUT);
	for (int round = 0; round < 3; round++) {
		cr_assert_eq(events_now(), CH_POLL_OUT);
		write_chunk(w);
		cr_assert_eq(events_now(), CH_POLL_OUT);
		write_chunk(w);
		cr_assert_eq(events_now(), 0);
		cr_assert_eq(read_some(r, 5), 5);
		cr_assert_eq(events_now(), CH_POLL_OUT);
		cr_assert_eq(read_some(r, 5), 5);
	}
	cr_assert_eq(ch_pollset_modify_any(set, ch_stream_get_pollable(w), CH_POLL_EMPTY | CH_POLL_FULL, 77), 0);
	cr_assert_eq(events_now(), CH_POLL_EMPTY);
	write_chunk(w);
	cr_assert_eq(events_now(), 0);
	write_chunk(w);
	cr_assert_eq(events_now(), CH_POLL_FULL);
	cr_assert_eq(read_some(r, 5), 5);
	cr_assert_eq(events_now(), 0);
	cr_assert_eq(read_some(r, 1), 1);
	cr_assert_eq(events_now(), CH_POLL_EMPTY);
	cr_assert_eq(ch_pollset_modify_any(set, ch_stream_get_pollable(w), 0, 77), 0);
	cr_assert_eq(events_now(), 0);
	ch_stream_close(r);
	cr_assert_eq(events_now(), CH_POLL_CLOSED);
	ch_stream_close(w);
	ch_pollset_destroy(set);
	ch_stream_port_destroy(port);
	cr_assert(pool_is_as_before(pool, &empty));
}

Test(pollkinds, every_end_of_a_conversation_is_told_to_the_other)
{
	for (int how = 0; how < 6; how++) {
		struct ch_stream_port *port = port_of(1);
		struct ch_stream *w = open_at(port), *r = accept_at(port), *of = how < 3 ? r : w, *to = how < 3 ? w : r;

		make_set();
		add(ch_stream_get_pollable(of), how % 2 ? CH_POLL_EDGE : 0);
		cr_assert_eq(events_now(), 0);
		if (how == 0)
			cr_assert_eq(ch_stream_end(w, CH_TRY), 0);
		else if (how == 5)
			ch_stream_port_destroy(port);
		else if (how % 3 == 1)
			cr_assert_eq(ch_stream_cancel(to), 0);
		else
			ch_stream_close(to);
		cr_assert_eq(events_now(), how == 5 ? CH_POLL_CLOSED | CH_POLL_DESTROYED : CH_POLL_CLOSED, "%d", how);
		cr_assert_eq(events_now(), how % 2 ? 0 : CH_POLL_CLOSED, "%d", how);
		ch_stream_close(of);
		if (how < 2 || how > 3)
			ch_stream_close(how == 2 ? NULL : to);
		ch_pollset_destroy(set);
		if (how != 5)
			ch_stream_port_destroy(port);
		cr_assert(pool_is_as_before(pool, &empty), "%d", how);
	}
}

Test(pollkinds, the_next_conversation_on_a_stream_can_be_a_member_too)
{
	struct ch_stream_port *port = port_of(1);

	make_set();
	for (int round = 0; round < 5; round++) {
		struct ch_stream *w = open_at(port), *r = accept_at(port);

		add(ch_stream_get_pollable(r), CH_POLL_IN);
		cr_assert_eq(ch_pollset_add_any(set, ch_stream_get_pollable(w), CH_POLL_OUT | CH_POLL_ONESHOT, 77), 0);
		cr_assert_eq(ch_pollset_add_any(set, ch_stream_get_pollable(w), CH_POLL_OUT, 77), -EEXIST);
		cr_assert_eq(events_now(), CH_POLL_OUT);
		cr_assert_eq(events_now(), 0);
		write_chunk(w);
		cr_assert_eq(events_now(), CH_POLL_IN);
		if (round % 2)
			cr_assert_eq(ch_pollset_remove_any(set, ch_stream_get_pollable(w)), 0);
		ch_stream_close(w);
		cr_assert_eq(events_now(), CH_POLL_IN | CH_POLL_CLOSED);
		ch_stream_close(r);
		cr_assert_eq(events_now(), 0);
	}
	ch_pollset_destroy(set);
}

Test(pollkinds, what_cannot_be_a_member_is_refused)
{
	struct ch_stream_port *port = port_of(2);
	struct ch_stream *w = open_at(port), *buffered = NULL;
	struct ch_semaphore *s = semaphore_of(1, 0);
	struct ch_event *e = event_of(0);
	struct ch_pollset *other = NULL;

	make_set();
	cr_assert_eq(ch_pollset_create(NULL, &other), 0);
	cr_assert_eq(ch_stream_open(port, CH_STREAM_BUFFERED, CH_TRY, &buffered), 0);
	cr_assert_null(ch_semaphore_get_pollable(NULL));
	cr_assert_eq(ch_pollset_add_any(set, NULL, CH_POLL_IN, 0), -EINVAL);
	cr_assert_eq(ch_pollset_add_any(NULL, ch_event_get_pollable(e), CH_POLL_IN, 0), -EINVAL);
	cr_assert_eq(ch_pollset_add_any(set, ch_event_get_pollable(e), CH_POLL_OUT, 0), -EINVAL);
	cr_assert_eq(ch_pollset_add_any(set, ch_semaphore_get_pollable(s), CH_POLL_FULL, 0), -EINVAL);
	cr_assert_eq(ch_pollset_add_any(set, ch_stream_get_pollable(buffered), CH_POLL_OUT, 0), -EINVAL);
	cr_assert_eq(ch_pollset_modify_any(set, ch_stream_get_pollable(w), CH_POLL_OUT, 0), -ENOENT);
	add(ch_stream_get_pollable(w), CH_POLL_OUT);
	cr_assert_eq(ch_pollset_add_any(other, ch_stream_get_pollable(w), CH_POLL_OUT, 0), -ENOSPC);
	cr_assert_eq(ch_pollset_remove_any(other, ch_stream_get_pollable(w)), -ENOENT);
	cr_assert_eq(ch_pollset_add_any(other, ch_semaphore_get_pollable(s), CH_POLL_IN, 0), 0);
	cr_assert_eq(ch_pollset_add_any(other, ch_semaphore_get_pollable(s), CH_POLL_IN, 0), -EEXIST);
	ch_pollset_destroy(set);
	ch_pollset_destroy(other);
	ch_stream_close(buffered);
	ch_stream_close(w);
}

Test(pollkinds, as_many_sets_watch_a_thing_as_it_was_made_for)
{
	struct ch_semaphore_attr attr = CH_SEMAPHORE_ATTR_INIT;
	struct ch_stream_attr of_port = CH_STREAM_ATTR_INIT;
	struct ch_semaphore *s = NULL;
	struct ch_stream_port *port = NULL;
	struct ch_pollset *sets[4];

	attr.max_watchers = 3;
	of_port.max_watchers = 3;
	cr_assert_eq(ch_semaphore_create(pool, &attr, &s), 0);
	cr_assert_eq(ch_stream_port_create(pool, &of_port, &port), 0);
	for (int i = 0; i < 4; i++) {
		cr_assert_eq(ch_pollset_create(NULL, &sets[i]), 0);
		cr_assert_eq(ch_pollset_add_any(sets[i], ch_semaphore_get_pollable(s), 0, 0), i < 3 ? 0 : -ENOSPC);
		cr_assert_eq(ch_pollset_add_any(sets[i], ch_stream_port_get_pollable(port), 0, 0), i < 3 ? 0 : -ENOSPC);
	}
	for (int i = 0; i < 4; i++)
		ch_pollset_destroy(sets[i]);
	attr.max_watchers = of_port.max_watchers = 4097;
	cr_assert_eq(ch_semaphore_create(pool, &attr, &s), -EINVAL);
	cr_assert_eq(ch_stream_port_create(pool, &of_port, &port), -EINVAL);
}

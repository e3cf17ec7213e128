/* SPDX-License-Identifier: Apache-2.0 */
/* pollset_kinds.h - a set, and what can be its members besides channels. */
#ifndef TESTS_POLLSET_KINDS_H
#define TESTS_POLLSET_KINDS_H
#include "sync_support.h"

static struct ch_pollset *set;

SUPPORT void make_set(void)
{
	cr_assert_eq(ch_pollset_create(NULL, &set), 0);
}

SUPPORT void add(struct ch_pollable *what, uint32_t events)
{
	cr_assert_eq(ch_pollset_add_any(set, what, events, 77), 0, "%s", ch_errmsg());
}

SUPPORT struct ch_semaphore *semaphore_of(uint32_t value, uint32_t flags)
{
	struct ch_semaphore_attr attr = CH_SEMAPHORE_ATTR_INIT;
	struct ch_semaphore *out = NULL;

	attr.value = value;
	attr.flags = flags;
	cr_assert_eq(ch_semaphore_create(pool, &attr, &out), 0, "%s", ch_errmsg());
	return out;
}

SUPPORT struct ch_event *event_of(uint32_t flags)
{
	struct ch_event_attr attr = CH_EVENT_ATTR_INIT;
	struct ch_event *out = NULL;

	attr.flags = flags;
	cr_assert_eq(ch_event_create(pool, &attr, &out), 0, "%s", ch_errmsg());
	return out;
}

SUPPORT struct ch_stream_port *port_of(uint32_t nr_streams)
{
	struct ch_stream_attr attr = CH_STREAM_ATTR_INIT;
	struct ch_stream_port *out = NULL;

	attr.nr_streams = nr_streams;
	attr.capacity = 2;
	attr.chunk_len = 64;
	cr_assert_eq(ch_stream_port_create(pool, &attr, &out), 0, "%s", ch_errmsg());
	return out;
}

SUPPORT struct ch_stream *open_at(struct ch_stream_port *port)
{
	struct ch_stream *s = NULL;

	cr_assert_eq(ch_stream_open(port, 0, CH_TRY, &s), 0, "%s", ch_errmsg());
	return s;
}

SUPPORT struct ch_stream *accept_at(struct ch_stream_port *port)
{
	struct ch_stream *s = NULL;

	cr_assert_eq(ch_stream_accept(port, CH_TRY, &s), 0, "%s", ch_errmsg());
	return s;
}

SUPPORT ssize_t read_some(struct ch_stream *s, size_t cap)
{
	char buf[64];

	return ch_stream_read(s, buf, cap, CH_TRY, NULL);
}
#endif

// SPDX-License-Identifier: Apache-2.0
// stream_poll.cpp - ports and the ends of conversations as members of poll sets.
//
// The last entries of a port's table of watchers are two for each stream, so that an end can be in one set, and who
// writes or reads a chunk tells nobody but those that wait for this stream. What a member asks is read from the lane
// alone, whichever end asks; only what a reader has read in part is its own process's.
#include "config.h"
#include "stream.h"
#include <channels/pollset.h>

namespace ch::core {

static const stream_view &view_of(const ch_object *o) noexcept { return static_cast<const stream_object *>(o)->v; }
static bool is_destroyed(const stream_view &v) noexcept
{
	return v.h->state.load(relaxed) == STREAM_DESTROYED; // a flag; who sets it tells everybody
}

// ---- a port: IN where a conversation waits for a reader, OUT where a stream is free

static watch_table port_watchers(const ch_object *o) noexcept
{
	const watch_table t = watch_table_of(o->block);
	const u32 lanes = LANE_WATCHES * view_of(o).nr;

	return t.slice(0, t.nr < lanes ? 0 : t.nr - lanes);
}

static u32 port_events(const ch_object *o, polled out[MAX_POLLED]) noexcept
{
	stream_header *h = view_of(o).h;

	out[0] = {&h->announced, CH_POLL_IN};
	out[1] = {&h->freed, CH_POLL_OUT};
	return 2;
}

static u32 port_look(ch_object *o, u32 mask) noexcept
{
	const stream_view &v = view_of(o);
	u32 is = 0;

	if (is_destroyed(v))
		return CH_POLL_CLOSED | CH_POLL_DESTROYED;
	for (u32 i = 0; i < v.nr && (is & mask) != mask; i++) {
		const u64 w = v.words[i].load(relaxed); // who changes it tells afterwards
		is |= stream_waits(w) ? CH_POLL_IN : stream_is_free(w) ? CH_POLL_OUT : 0;
	}
	return is & mask;
}

const poll_ops port_ops = {
	.watchers = port_watchers,
	.events = port_events,
	.look = port_look,
	.join = object_join_set<ch_stream_port>,
	.leave = object_leave_set<ch_stream_port>,
	.is_handle = false,
};

// ---- an end of a conversation

static watch_table end_watchers(const ch_object *o) noexcept
{
	const watch_table t = watch_table_of(o->block);
	const u32 lanes = LANE_WATCHES * view_of(o).nr;

	if (t.nr < lanes)
		return {};
	return t.slice(t.nr - lanes + LANE_WATCHES * static_cast<const ch_stream *>(o)->index, LANE_WATCHES);
}

static u32 end_events(const ch_object *o, polled out[MAX_POLLED]) noexcept
{
	stream_lane &lane = view_of(o).lane(static_cast<const ch_stream *>(o)->index);

	out[0] = {&lane.not_empty, CH_POLL_IN | CH_POLL_FULL};
	out[1] = {&lane.not_full, CH_POLL_OUT | CH_POLL_EMPTY};
	return 2;
}

static u32 end_look(ch_object *o, u32 mask) noexcept
{
	const ch_stream *s = static_cast<const ch_stream *>(o);
	const stream_view &v = s->v;

	if (is_destroyed(v))
		return CH_POLL_CLOSED | CH_POLL_DESTROYED;
	const u64 w = v.words[s->index].load(acquire), // [Z2] pairs with [Z1]: what was committed before the end is seen
		over = STREAM_ENDED | STREAM_CANCELLED | STREAM_STOPPED | STREAM_WRITER_DIED | STREAM_READER_DIED;
	const u64 head = v.lane(s->index).head.load(acquire), // [N4] pairs with [N3]: who sees a chunk gone sees it held
		last = head + v.capacity;
	const bool is_any = v.slot(s->index, head).seq.load(relaxed) == head + 1 || // who commits tells afterwards
			    (s->is_reader && s->is_held.load(relaxed));
	u32 is = is_any ? CH_POLL_IN : CH_POLL_EMPTY;
	if (stream_flags(w) & over)
		return (is & mask) | CH_POLL_CLOSED;
	is |= v.slot(s->index, last - 1).seq.load(relaxed) == last ? CH_POLL_FULL : CH_POLL_OUT; // likewise
	return is & mask;
}

static int end_join(ch_object *o, ch_pollset *set, ch_object **out) noexcept
{
	ch_stream *s = static_cast<ch_stream *>(o);

	if (s->me.load(relaxed) != s->my) // ours; 0 in a forked child
		return stream_tell(s, -EPERM);
	if (s->is_collected)
		return fail(-EINVAL, "poll set: a buffered conversation has no stream to wait for until it ends");
	if (s->set)
		return s->set == set ? fail(-EEXIST, "poll set: the stream is a member already") :
				       fail(-ENOSPC, "poll set: the stream is in another set, and can be in one");
	s->set = set;
	*out = o;
	return 0;
}

static void end_leave(ch_object *o) noexcept
{
	static_cast<ch_stream *>(o)->set = nullptr;
}

const poll_ops stream_ops = {
	.watchers = end_watchers,
	.events = end_events,
	.look = end_look,
	.join = end_join,
	.leave = end_leave,
	.is_handle = true,
};

// ---- telling

void stream_passed(ch_stream *s, u32 mask, u32 more) noexcept
{
	const stream_lane &lane = s->v.lane(s->index);

	if (is_polled(lane.not_empty) || is_polled(lane.not_full)) [[unlikely]]
		watch_tell(s, mask, more);
}

void stream_tell_port(stream_object *o, u32 mask, u32 more) noexcept
{
	if (is_polled(o->v.h->announced) || is_polled(o->v.h->freed)) [[unlikely]]
		watch_tell(o, port_ops, mask, more);
}

void stream_tell_end(ch_stream *s) noexcept
{
	stream_lane &lane = s->v.lane(s->index);

	// Without a look whether they are quiet: who wants to hear of the end only is in one order with the first of them.
	event_notify_slow(lane.not_empty, EVERYBODY);
	event_notify_slow(lane.not_full, EVERYBODY);
	watch_tell_all(s->pool->seg, s->my, end_watchers(s));
}

} // namespace ch::core

using namespace ch::core;

struct ch_pollable *ch_stream_port_get_pollable(struct ch_stream_port *port)
{
	return pollable_of(port);
}

struct ch_pollable *ch_stream_get_pollable(struct ch_stream *stream)
{
	return pollable_of(stream);
}

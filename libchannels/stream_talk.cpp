// SPDX-License-Identifier: Apache-2.0
// stream_talk.cpp - the course of a conversation: open, accept, end, cancel, close. Each is one change of its word.
#include "config.h"
#include "stream.h"
#include "crash.h"
#include <channels/pollset.h>

namespace ch::core {

// ---- what each end may do

int stream_stop(const ch_stream *s) noexcept
{
	if (s->v.h->state.load(relaxed) == STREAM_DESTROYED) [[unlikely]] // a flag; who sets it wakes us
		return -ESTALE;
	if (s->me.load(relaxed) != s->my) [[unlikely]] // ours; 0 in a forked child
		return -EPERM;
	if (s->is_collected)
		return s->is_cancelled.load(relaxed) ? -ECANCELED : s->is_over ? -EPIPE : 0; // a flag
	const u64 w = s->v.words[s->index].load(acquire), flags = stream_flags(w);           // [Z2] pairs with [Z1]
	const u32 mine = s->is_reader ? stream_reader(w) : stream_writer(w);
	if (mine != s->my || stream_generation(w) != s->generation) [[unlikely]]
		return -EPROTO;
	if (s->is_reader)
		return flags & STREAM_STOPPED ? -ECANCELED : 0;
	if (!(flags & (STREAM_CANCELLED | STREAM_READER_DIED | STREAM_STOPPED | STREAM_ENDED))) [[likely]]
		return 0;
	return flags & STREAM_CANCELLED ? -ECANCELED : flags & STREAM_READER_DIED ? -EOWNERDEAD : -EPIPE;
}

// Also of a writer that has ended the conversation.
int stream_reader_gone(const ch_stream *s) noexcept
{
	const int stop = stream_stop(s);

	if (stop != -EPIPE)
		return stop;
	const u64 flags = stream_flags(s->v.words[s->index].load(acquire)); // [Z2] pairs with [Z1]
	return flags & STREAM_STOPPED ? -EPIPE : 0;
}

int stream_verdict(const ch_stream *s) noexcept
{
	const u64 flags = stream_flags(s->v.words[s->index].load(acquire)); // [Z2] pairs with [Z1]

	if (flags & STREAM_ENDED)
		return STREAM_END;
	return flags & STREAM_CANCELLED ? -ECANCELED : flags & STREAM_WRITER_DIED ? -EOWNERDEAD : -EAGAIN;
}

int stream_tell(const ch_stream *s, int rc) noexcept
{
	const char *name = s->pool->seg->name, *who = s->is_reader ? "writer" : "reader";

	switch (rc) {
	case -ESTALE:
		return fail(rc, "stream in pool %s was destroyed", name);
	case -EPERM:
		return fail(rc, "stream in pool %s is another process's, or not for this end", name);
	case -EPIPE:
		return fail(rc, "stream in pool %s: %s", name,
			    s->is_over ? "it was ended" : "the reader wants no more");
	case -EOWNERDEAD:
		return fail(rc, "stream in pool %s: the %s died", name, who);
	case -ECANCELED:
		return fail(rc, "stream in pool %s was cancelled", name);
	case -EPROTO:
		return fail(rc, "stream in pool %s: shared memory is damaged", name);
	default:
		return rc;
	}
}

// ---- opening

static int try_claim_free(ch_stream *s, std::atomic<u32> *free_at, u32 me) noexcept
{
	const u32 from = free_at ? free_at->load(relaxed) : 0; // a hint

	if (s->v.h->state.load(relaxed) == STREAM_DESTROYED) // a flag; who sets it wakes us
		return -ESTALE;
	if (s->is_cancelled.load(relaxed)) // a flag; who sets it wakes us
		return -ECANCELED;
	for (u32 k = 0; k < s->v.nr; k++) {
		const u32 i = (from + k) % s->v.nr;
		u64 w = s->v.words[i].load(relaxed); // a guess; the exchange decides
		if (!stream_is_free(w) ||
		    !s->v.words[i].compare_exchange_strong(w, w | me, acq_rel, relaxed)) // [Z1] [Z2]: the lane is empty
			continue;
		CH_CRASH_POINT(stream_claimed);
		s->index = i;
		s->my = me;
		s->generation = stream_generation(w);
		if (free_at)
			free_at->store(i + 1, relaxed); // a hint
		return 0;
	}
	return -EAGAIN;
}

int stream_claim_free(ch_stream *s, std::atomic<u32> *free_at, i64 timeout_ns) noexcept
{
	const u32 me = s->me.load(relaxed); // ours

	return stream_wait(
		s, s->v.h->freed, timeout_ns, [=] { return try_claim_free(s, free_at, me); }, [] { return true; });
}

void stream_announce(ch_stream *s, bool has_ended) noexcept
{
	const u64 flags = has_ended ? STREAM_ANNOUNCED | STREAM_ENDED : u64{STREAM_ANNOUNCED};

	s->v.orders[s->index].store(s->v.h->order.fetch_add(1, relaxed), relaxed); // published by the word
	// Only we, or our sweeper, change the word before it is announced. [Z1] pairs with [Z2]
	s->v.words[s->index].store(stream_word(s->generation, flags, NOBODY, has_ended ? NOBODY : s->my), release);
	CH_CRASH_POINT(stream_announced);
	event_notify(s->v.h->announced, 1);
	stream_tell_port(s, CH_POLL_IN, 0);
}

// One more handle on the object, for an end of a conversation.
static int new_handle(ch_stream_port *port, ch_stream **out) noexcept
{
	registry_lock lock;
	descr d = {};
	ch_stream *s = new (std::nothrow) ch_stream;

	if (!s)
		return fail(-ENOMEM, "stream: no memory for the handle");
	d.offset = port->block.index;
	d.generation = port->tag;
	port->pool->refs++;
	port->pool->seg->refs++;
	const int rc = object_open(s, port->pool, stream_kind, d);
	if (rc < 0) {
		delete s;
		pool_unref(port->pool);
		return rc;
	}
	s->spin_ns.store(port->spin_ns.load(relaxed), relaxed); // a setting
	s->my = s->me.load(relaxed);                            // ours
	*out = s;
	return 0;
}

// ---- accepting

// The waiting conversation that was opened first. Looks until two rounds find the same: then none that was open before
// it was overlooked. Returns its index or NO_STREAM.
static constexpr u32 NO_STREAM = ~0u;

static u32 find_waiting(const stream_view &v, u64 &word) noexcept
{
	for (u32 before = NO_STREAM;;) {
		u32 best = NO_STREAM;
		u64 first = 0;
		for (u32 i = 0; i < v.nr; i++) {
			const u64 w = v.words[i].load(acquire); // [Z2] pairs with [Z1]
			if (!stream_waits(w))
				continue;
			const u64 order = v.orders[i].load(relaxed); // published by the word
			if (best != NO_STREAM && static_cast<i64>(order - first) >= 0)
				continue;
			best = i;
			first = order;
			word = w;
		}
		if (best == before)
			return best;
		before = best;
	}
}

static int try_accept(ch_stream *s, u32 me) noexcept
{
	u64 w = 0;

	if (s->v.h->state.load(relaxed) == STREAM_DESTROYED) // a flag; who sets it wakes us
		return -ESTALE;
	for (u32 i; (i = find_waiting(s->v, w)) != NO_STREAM;) {
		const u64 to = stream_word(stream_generation(w), stream_flags(w) | STREAM_TAKEN, me, stream_writer(w));
		if (!s->v.words[i].compare_exchange_strong(w, to, acq_rel, relaxed)) // [Z1] pairs with [Z2]
			continue;
		CH_CRASH_POINT(stream_accepted);
		s->index = i;
		s->generation = stream_generation(w);
		return 0;
	}
	return -EAGAIN;
}

// ---- leaving

// True if the word was changed: adds a flag that this end says.
static bool say(ch_stream *s, u64 flag) noexcept
{
	u64 w = s->v.words[s->index].load(acquire); // [Z2] pairs with [Z1]

	do {
		const u32 mine = s->is_reader ? stream_reader(w) : stream_writer(w);
		if (mine != s->my || stream_generation(w) != s->generation || (stream_flags(w) & STREAM_DRAINING))
			return false;
		if (flag == STREAM_CANCELLED && (stream_flags(w) & STREAM_ENDED))
			return false;
	} while (!s->v.words[s->index].compare_exchange_weak(w, w | flag << 36, acq_rel,
							     acquire)); // [Z1] pairs with [Z2]
	return true;
}

// Its part in the conversation, and in the poll set that it is a member of.
static void leave_talk(ch_stream *s) noexcept
{
	if (s->set)
		(void)ch_pollset_remove_any(s->set, ch_stream_get_pollable(s));
	stream_drop(s);
	if (s->is_collected)
		return;
	const bool is_free = stream_leave(s->pool->seg, s->block, s->v, s->index, s->is_reader ? READER_END : WRITER_END,
					  s->my, s->is_reader ? STREAM_STOPPED : STREAM_CANCELLED);
	stream_tell_end(s);
	if (is_free)
		stream_tell_port(s, CH_POLL_OUT, 0);
}

// An ended conversation of the collected kind: it takes a stream for the one chunk that it is.
static int end_collected(ch_stream *s, i64 timeout_ns) noexcept
{
	int rc = stream_stop(s);

	if (rc == 0)
		rc = stream_claim_free(s, nullptr, timeout_ns);
	if (rc == -ECANCELED)
		event_wake(s->v.h->freed, 1); // we may have been woken instead of another
	if (rc < 0)
		return rc;
	s->is_collected = false;
	s->next = s->taken = 0;
	rc = s->is_held.load(relaxed) ? stream_send_gathered(s, CH_TRY) : 0; // the lane is empty and ours
	if (rc == 0)
		stream_announce(s, true);
	else if (stream_leave(s->pool->seg, s->block, s->v, s->index, WRITER_END, s->my, STREAM_CANCELLED))
		stream_tell_port(s, CH_POLL_OUT, 0);
	s->is_collected = true; // and without a stream again
	return rc;
}

} // namespace ch::core

using namespace ch::core;

int ch_stream_open(struct ch_stream_port *port, uint32_t flags, int64_t timeout_ns, struct ch_stream **out_stream)
{
	ch_stream *s;

	if (!port || !out_stream || (flags & ~CH_STREAM_BUFFERED))
		return fail(-EINVAL, "stream: NULL, or unknown flags %#x", flags);
	int rc = stream_use(port);
	if (rc >= 0)
		rc = new_handle(port, &s);
	if (rc < 0)
		return rc;
	s->is_collected = (flags | port->v.flags) & CH_STREAM_BUFFERED;
	rc = s->is_collected ? 0 : stream_claim_free(s, &port->free_at, timeout_ns);
	if (rc < 0) {
		object_detach(s);
		return rc == -ESTALE ? object_stale(port) : rc;
	}
	if (!s->is_collected)
		stream_announce(s, false);
	*out_stream = s;
	stream_tell_port(port, 0, CH_POLL_OUT);
	return 0;
}

int ch_stream_accept(struct ch_stream_port *port, int64_t timeout_ns, struct ch_stream **out_stream)
{
	ch_stream *s;

	if (!port || !out_stream)
		return fail(-EINVAL, "stream: NULL");
	int rc = stream_use(port);
	if (rc >= 0)
		rc = new_handle(port, &s);
	if (rc < 0)
		return rc;
	s->is_reader = true;
	rc = stream_wait(
		s, s->v.h->announced, timeout_ns, [s] { return try_accept(s, s->my); }, [] { return true; });
	if (rc < 0) {
		object_detach(s);
		return rc == -ESTALE ? object_stale(port) : rc;
	}
	*out_stream = s;
	stream_tell_port(port, 0, CH_POLL_IN);
	return 0;
}

int ch_stream_end(struct ch_stream *stream, int64_t timeout_ns)
{
	if (!stream || stream->is_reader)
		return fail(-EINVAL, "stream: %s", stream ? "the reader can't end it" : "NULL");
	if (stream->is_over)
		return 0;
	int rc = stream->is_collected ? end_collected(stream, timeout_ns) : stream_stop(stream);
	if (rc == 0 && !stream->is_collected)
		rc = stream->len > 0 ? stream_send_gathered(stream, timeout_ns) : 0;
	if (rc == 0 && !stream->is_collected) {
		rc = say(stream, STREAM_ENDED) ? 0 : -EPROTO;
		CH_CRASH_POINT(stream_ended);
		stream_tell_end(stream);
	}
	stream->is_over = rc == 0;
	return stream_tell(stream, rc);
}

int ch_stream_cancel(struct ch_stream *stream)
{
	if (!stream)
		return fail(-EINVAL, "stream: NULL");
	if (stream->me.load(relaxed) != stream->my) // ours; 0 in a forked child
		return stream_tell(stream, -EPERM);
	if (stream->is_collected) {
		stream->is_cancelled.store(true, relaxed); // a flag
		event_wake(stream->v.h->freed, EVERYBODY);
		return 0;
	}
	if (say(stream, stream->is_reader ? STREAM_STOPPED : STREAM_CANCELLED))
		stream_tell_end(stream);
	return 0;
}

void ch_stream_close(struct ch_stream *stream)
{
	if (!stream)
		return;
	if (stream->me.load(relaxed) == stream->my) // ours; 0 in a forked child
		leave_talk(stream);
	object_detach(stream);
}

int ch_stream_poll(struct ch_stream *stream, int64_t timeout_ns)
{
	ch_stream *s = stream;

	if (!s)
		return fail(-EINVAL, "stream: NULL");
	if (s->me.load(relaxed) != s->my) // ours; 0 in a forked child
		return stream_tell(s, -EPERM);
	if (s->is_collected || s->is_held.load(relaxed))
		return 0;
	stream_lane &lane = s->v.lane(s->index);
	auto is_ready = [s] {
		return stream_stop(s) != 0 ||
		       (s->is_reader ? stream_has_chunk(s) || stream_verdict(s) != -EAGAIN : stream_has_room(s));
	};
	return stream_wait(
		s, s->is_reader ? lane.not_empty : lane.not_full, timeout_ns, [=] { return is_ready() ? 0 : -EAGAIN; },
		is_ready);
}

ssize_t ch_stream_count(struct ch_stream *stream)
{
	if (!stream)
		return fail(-EINVAL, "stream: NULL");
	if (stream->me.load(relaxed) != stream->my) // ours; 0 in a forked child
		return stream_tell(stream, -EPERM);
	if (stream->is_collected)
		return 0;
	const stream_view &v = stream->v;
	const u64 head = v.lane(stream->index).head.load(relaxed); // an estimate
	ssize_t n = 0;
	for (u32 k = 0; k < v.capacity; k++)
		n += v.slot(stream->index, k).seq.load(relaxed) - head - 1 < v.capacity; // an estimate
	return n;
}

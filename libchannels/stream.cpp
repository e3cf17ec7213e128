// SPDX-License-Identifier: Apache-2.0
// stream.cpp - the object behind ports and streams: geometry, what a death leaves behind, create, attach, destroy.
#include "config.h"
#include "stream.h"
#include "crash.h"
#include "event.h"
#include "ring.h"

namespace ch::core {

static constexpr u32 MAX_STREAMS = 4096;
static constexpr u32 MAX_CAPACITY = 65536;
static constexpr u32 MIN_CHUNK = 64;
static constexpr u32 MAX_CHUNK = 1u << 30;

// ---- geometry: header | attached-peer bits | words | orders | lanes

static u64 words_bytes(u32 nr) noexcept
{
	return round_up(u64{nr} * 8, LINE);
}
static u64 lane_bytes(u32 capacity) noexcept
{
	return sizeof(stream_lane) + u64{capacity} * sizeof(stream_slot);
}

static u32 nr_watches(const ch_stream_attr &a) noexcept
{
	return a.max_watchers + LANE_WATCHES * a.nr_streams;
}

static u64 stream_bytes(u32 nr, u32 capacity, u32 max_peers) noexcept
{
	return sizeof(stream_header) + object_bits_bytes(max_peers) + 2 * words_bytes(nr) + nr * lane_bytes(capacity);
}

static u64 object_bytes(const ch_stream_attr &a, u32 max_peers) noexcept
{
	return stream_bytes(a.nr_streams, a.capacity, max_peers) + watch_bytes(nr_watches(a));
}

static void map(stream_view &v, u8 *at, u32 max_peers) noexcept
{
	u8 *p = at + sizeof(stream_header) + object_bits_bytes(max_peers);

	v.h = reinterpret_cast<stream_header *>(at);
	v.words = reinterpret_cast<shared<u64> *>(p);
	v.orders = reinterpret_cast<shared<u64> *>(p + words_bytes(v.nr));
	v.lanes = p + 2 * words_bytes(v.nr);
	v.lane_len = lane_bytes(v.capacity);
}

static bool view_open(stream_view &v, u8 *at, u64 len, u32 max_peers) noexcept
{
	const stream_header *h = reinterpret_cast<const stream_header *>(at);

	if (len < sizeof(*h))
		return false;
	// Each is read once: a hostile peer may change it between a check and its use.
	v.nr = __atomic_load_n(&h->nr_streams, __ATOMIC_RELAXED);
	v.capacity = __atomic_load_n(&h->capacity, __ATOMIC_RELAXED);
	v.chunk_len = __atomic_load_n(&h->chunk_len, __ATOMIC_RELAXED);
	v.flags = __atomic_load_n(&h->flags, __ATOMIC_RELAXED);
	v.is_pair = __atomic_load_n(&h->is_pair, __ATOMIC_RELAXED) != 0;
	if (v.nr < 1 || v.nr > MAX_STREAMS || v.capacity < 2 || v.capacity > MAX_CAPACITY ||
	    (v.capacity & (v.capacity - 1)) || v.chunk_len < MIN_CHUNK || v.chunk_len > MAX_CHUNK ||
	    (v.is_pair && v.nr != 1) || stream_bytes(v.nr, v.capacity, max_peers) > len)
		return false;
	map(v, at, max_peers);
	return true;
}

static void view_format(ch_object &o, stream_view &v, const ch_stream_attr &a, bool is_pair) noexcept
{
	v.nr = a.nr_streams;
	v.capacity = a.capacity;
	v.chunk_len = a.chunk_len;
	v.flags = a.flags;
	v.is_pair = is_pair;
	o.spin_ns.store(a.spin_ns, relaxed); // not given out yet
	map(v, o.block.addr, o.pool->seg->max_peers);
	v.h->object.nr_watches = nr_watches(a);
	v.h->nr_streams = v.nr;
	v.h->capacity = v.capacity;
	v.h->chunk_len = v.chunk_len;
	v.h->flags = v.flags;
	v.h->is_pair = v.is_pair;
	// Nobody has met them quiet yet, so the first sleeper needs no barrier.
	v.h->announced.v.store(EVENT_SLEEPY, relaxed);
	v.h->freed.v.store(EVENT_SLEEPY, relaxed);
	for (u32 i = 0; i < v.nr; i++) {
		v.lane(i).not_empty.v.store(EVENT_SLEEPY, relaxed);
		v.lane(i).not_full.v.store(EVENT_SLEEPY, relaxed);
	}
}

// ---- lanes

static bool ref_of(const stream_slot &s, block_ref &out) noexcept
{
	if (!(s.what.load(relaxed) & IN_BLOCK)) // published by seq
		return false;
	std::memcpy(&out, s.data, sizeof(out));
	return true;
}

// Chunks that were committed and that no reader has taken: fn(slot) for each.
template <class Fn> static void for_each_chunk(const stream_view &v, u32 i, Fn fn) noexcept
{
	const u64 head = v.lane(i).head.load(acquire); // [N4] pairs with [N3] in stream_chunk.cpp

	for (u32 k = 0; k < v.capacity; k++) {
		stream_slot &s = v.slot(i, k);
		// [N2] pairs with [N1] in stream_chunk.cpp: a committed chunk is whole
		if (s.seq.load(acquire) - head - 1 < v.capacity)
			fn(s);
	}
}

// Blocks that a peer sent and nobody has taken yet lose their owner but stay in their chunks.
static void keep_sent(const run_map &m, const stream_view &v, u32 i, u32 sender) noexcept
{
	for_each_chunk(v, i, [&](const stream_slot &s) {
		block_ref ref;
		block_place b;
		if (!ref_of(s, ref) || !block_find(m, ref.index, b))
			return;
		u64 old = block_word(ref.tag, B_SENDING, sender);
		b.word->compare_exchange_strong(old, block_word(ref.tag, B_INCHAN, NOBODY), acq_rel,
						relaxed); // [B1] [B2]
	});
}

// Frees what nobody took, in the name of who.
static void drain_lane(run_map &m, const stream_view &v, u32 i, u32 who) noexcept
{
	for_each_chunk(v, i, [&](const stream_slot &s) {
		block_ref ref;
		block_place b;
		if (ref_of(s, ref) && block_take(m, ref, who, b))
			block_free(m, b, who);
	});
}

// ---- leaving

// Nobody but who, or the sweeper that acts for it, can reach the lane now. May be done twice.
static bool finish_drain(ch_segment *seg, const block_place &b, const stream_view &v, u32 i, u32 who, u64 w) noexcept
{
	CH_CRASH_POINT(stream_draining);
	drain_lane(seg->pool.map, v, i, who);
	CH_CRASH_POINT(stream_drained);
	for (u32 k = 0; k < v.capacity; k++)
		v.slot(i, k).seq.store(0, relaxed); // published by the word
	v.lane(i).head.store(0, relaxed);           // likewise
	if (v.is_pair) {                            // it ends with its conversation
		u64 block = b.word->load(seq_cst);
		if (block_state_of(block) == B_OBJECT) // seq_cst: see sweep.h
			b.word->compare_exchange_strong(block, block_word(block_tag(block), B_DYING, NOBODY), seq_cst,
							relaxed);
		return false;
	}
	const u64 to = stream_word((stream_generation(w) + 1) % STREAM_GENERATIONS, 0, NOBODY, NOBODY);
	v.words[i].compare_exchange_strong(w, to, acq_rel, relaxed); // [Z1] pairs with [Z2]
	CH_CRASH_POINT(stream_freed);
	event_notify(v.h->freed, 1);
	event_notify(seg->pool.hdr->freed, EVERYBODY);
	return true;
}

bool stream_leave(ch_segment *seg, const block_place &b, const stream_view &v, u32 i, stream_end end, u32 who,
		  u64 why) noexcept
{
	u64 w = v.words[i].load(acquire), to; // [Z2] pairs with [Z1]

	do {
		const bool is_complete = end == WRITER_END && (stream_flags(w) & STREAM_ENDED);
		const u64 flags = stream_flags(w) | (is_complete ? 0 : why);
		const u32 writer = end == WRITER_END ? NOBODY : stream_writer(w);
		const u32 reader = end == READER_END ? NOBODY : stream_reader(w);
		if (flags & STREAM_DRAINING || (end == WRITER_END ? stream_writer(w) : stream_reader(w)) != who)
			return false;
		const bool waits =
			(flags & (STREAM_ENDED | STREAM_TAKEN)) == STREAM_ENDED; // complete, for a reader to come
		const bool is_last = writer == NOBODY && reader == NOBODY && !waits;
		to = stream_word(stream_generation(w), is_last ? flags | STREAM_DRAINING : flags, reader,
				 is_last ? who : writer);
	} while (!v.words[i].compare_exchange_weak(w, to, acq_rel, acquire)); // [Z1] pairs with [Z2]
	CH_CRASH_POINT(stream_left);
	return stream_flags(to) & STREAM_DRAINING && finish_drain(seg, b, v, i, who, to);
}

// ---- the kind

static bool is_sound(u8 *at, u64 len, u32 max_peers) noexcept
{
	stream_view v;

	return view_open(v, at, len, max_peers);
}

static bool open(ch_object *o) noexcept
{
	return view_open(static_cast<stream_object *>(o)->v, o->block.addr, o->block.len, o->pool->seg->max_peers);
}

static void wake(ch_segment *seg, u32 as, const block_place &b) noexcept
{
	stream_view v;

	if (!view_open(v, b.addr, b.len, seg->max_peers))
		return;
	event_wake(v.h->announced, EVERYBODY);
	event_wake(v.h->freed, EVERYBODY);
	for (u32 i = 0; i < v.nr; i++)
		if (!stream_is_free(v.words[i].load(relaxed))) { // who has a part in it saw its word before it slept
			event_wake(v.lane(i).not_empty, EVERYBODY);
			event_wake(v.lane(i).not_full, EVERYBODY);
		}
	watch_tell_all(seg, as, watch_table_of(b));
}

static void end(ch_segment *seg, u32 as, const block_place &b) noexcept
{
	// A flag; who waits is woken next.
	reinterpret_cast<stream_header *>(b.addr)->state.store(STREAM_DESTROYED, release);
	wake(seg, as, b);
}

static void sweep_stream(ch_segment *seg, const block_place &b, const stream_view &v, u32 i, u32 dead) noexcept
{
	u64 w = v.words[i].load(acquire); // [Z2] pairs with [Z1]

	if (stream_is_free(w))
		return;
	keep_sent(seg->pool.map, v, i, dead);
	if (stream_flags(w) & STREAM_DRAINING) {
		if (stream_writer(w) == dead)
			finish_drain(seg, b, v, i, dead, w);
		return;
	}
	stream_leave(seg, b, v, i, WRITER_END, dead, STREAM_WRITER_DIED);
	stream_leave(seg, b, v, i, READER_END, dead, STREAM_READER_DIED);
}

static void sweep(ch_segment *seg, const block_place &b, u32 dead) noexcept
{
	stream_view v;

	watch_sweep(watch_table_of(b), dead); // first: the next conversation's ends want the entries
	if (view_open(v, b.addr, b.len, seg->max_peers))
		for (u32 i = 0; i < v.nr; i++)
			sweep_stream(seg, b, v, i, dead);
}

static void leave(ch_object *o, u32 me) noexcept
{
	const stream_view &v = static_cast<stream_object *>(o)->v;

	for (u32 i = 0; i < v.nr; i++)
		keep_sent(o->pool->map, v, i, me);
}

static void drain(ch_segment *seg, const block_place &b, u32 me) noexcept
{
	stream_view v;

	if (view_open(v, b.addr, b.len, seg->max_peers))
		for (u32 i = 0; i < v.nr; i++)
			drain_lane(seg->pool.map, v, i, me);
}

const object_kind stream_kind = {
	.id = CH_DESCR_STREAM,
	.name = "stream",
	.header_len = sizeof(stream_header),
	.is_sound = is_sound,
	.open = open,
	.end = end,
	.wake = wake,
	.sweep = sweep,
	.leave = leave,
	.drain = drain,
};

// ---- create, attach

int stream_use(stream_object *o) noexcept
{
	const int me = object_me(o);

	return me >= 0 && o->v.h->state.load(relaxed) == STREAM_DESTROYED ? object_stale(o) : me; // a flag
}

static int read_stream_attr(const ch_stream_attr *attr, bool is_pair, ch_stream_attr &a) noexcept
{
	const int rc = read_attr(attr, &a, sizeof(a));

	if (rc < 0)
		return rc;
	if (is_pair && (a.nr_streams || a.flags || a.max_watchers))
		return fail(-EINVAL, "stream: nr_streams, flags and max_watchers are a port's");
	a.nr_streams = is_pair ? 1 : a.nr_streams ? a.nr_streams : 16;
	a.capacity = a.capacity ? a.capacity : 16;
	a.chunk_len = a.chunk_len ? a.chunk_len : 64 << 10;
	if (a.nr_streams > MAX_STREAMS)
		return fail(-EINVAL, "stream: %u streams are over %u", a.nr_streams, MAX_STREAMS);
	if (a.capacity > MAX_CAPACITY)
		return fail(-EINVAL, "stream: capacity %u is over %u", a.capacity, MAX_CAPACITY);
	if (a.chunk_len < MIN_CHUNK || a.chunk_len > MAX_CHUNK)
		return fail(-EINVAL, "stream: chunk_len %u is not in %u...%u", a.chunk_len, MIN_CHUNK, MAX_CHUNK);
	if (a.flags & ~CH_STREAM_BUFFERED)
		return fail(-EINVAL, "stream: unknown flags %#x", a.flags);
	if (!is_pair && watch_attr(a.max_watchers, "stream") < 0)
		return -EINVAL;
	a.capacity = a.capacity <= 2 ? 2 : 1u << (32 - __builtin_clz(a.capacity - 1));
	return 0;
}

} // namespace ch::core

using namespace ch::core;

int ch_stream_port_create(struct ch_pool *pool, const struct ch_stream_attr *attr, struct ch_stream_port **out_port)
{
	ch_stream_attr a;
	int rc = read_stream_attr(attr, false, a);

	if (rc == 0 && !out_port)
		rc = fail(-EINVAL, "stream: out_port is NULL");
	if (rc < 0)
		return rc;
	return object_create(
		pool, stream_kind, false, out_port,
		[&a](u32 max_peers) { return object_bytes(a, max_peers); },
		[&a](ch_stream_port &p) { view_format(p, p.v, a, false); });
}

int ch_stream_port_attach(const struct ch_descr *descr, struct ch_stream_port **out_port)
{
	ch_stream_port *port;
	const int rc = object_attach(descr, stream_kind, out_port ? &port : nullptr);

	if (rc < 0)
		return rc;
	if (port->v.is_pair) {
		object_detach(port);
		return fail(-EINVAL, "stream: the descriptor names a stream without a port");
	}
	*out_port = port;
	return 0;
}

void ch_stream_port_detach(struct ch_stream_port *port)
{
	object_detach(port);
}

void ch_stream_port_destroy(struct ch_stream_port *port)
{
	object_destroy(port);
}

int ch_stream_port_get_descr(const struct ch_stream_port *port, struct ch_descr *out_descr)
{
	return object_get_descr(port, out_descr);
}

int ch_stream_port_get_stats(struct ch_stream_port *port, struct ch_stream_port_stats *out_stats)
{
	if (!port || !out_stats)
		return fail(-EINVAL, "stream: NULL");
	const int me = stream_use(port);
	if (me < 0)
		return me;
	ch_stream_port_stats s = {};
	s.nr_streams = port->v.nr;
	for (u32 i = 0; i < port->v.nr; i++) {
		const u64 w = port->v.words[i].load(relaxed); // a picture of a moment
		s.nr_free += stream_is_free(w);
		s.nr_waiting += stream_waits(w);
	}
	*out_stats = s;
	return 0;
}

int ch_stream_create(struct ch_pool *pool, const struct ch_stream_attr *attr, uint32_t end,
		     struct ch_stream **out_stream)
{
	ch_stream_attr a;
	int rc = read_stream_attr(attr, true, a);

	if (rc == 0 && (!out_stream || end > CH_STREAM_READER))
		rc = fail(-EINVAL, out_stream ? "stream: no such end" : "stream: out_stream is NULL");
	if (rc < 0)
		return rc;
	return object_create(
		pool, stream_kind, false, out_stream,
		[&a](u32 max_peers) { return object_bytes(a, max_peers); },
		[&a, end](ch_stream &s) {
			const u32 me = s.me.load(relaxed); // ours
			view_format(s, s.v, a, true);
			s.my = me;
			s.is_reader = end == CH_STREAM_READER;
			s.v.words[0].store(end == CH_STREAM_READER ? stream_word(0, STREAM_TAKEN, me, NOBODY)
								   : stream_word(0, STREAM_ANNOUNCED, NOBODY, me),
					   relaxed); // published with the object
		});
}

// Takes the end that is left.
static int take_end(ch_stream *s, u32 me) noexcept
{
	const u64 gone = STREAM_ANNOUNCED | STREAM_ENDED | STREAM_CANCELLED | STREAM_WRITER_DIED;
	u64 w = s->v.words[0].load(acquire), to; // [Z2] pairs with [Z1]

	do {
		const u64 flags = stream_flags(w);
		if (flags & STREAM_DRAINING)
			return object_stale(s);
		s->is_reader = !(flags & STREAM_TAKEN);
		if (s->is_reader)
			to = stream_word(stream_generation(w), flags | STREAM_TAKEN, me, stream_writer(w));
		else if (!(flags & gone) && stream_writer(w) == NOBODY)
			to = stream_word(stream_generation(w), flags | STREAM_ANNOUNCED, stream_reader(w), me);
		else
			return fail(-EPERM, "stream in pool %s: both ends are taken", s->pool->seg->name);
	} while (!s->v.words[0].compare_exchange_weak(w, to, acq_rel, acquire)); // [Z1] pairs with [Z2]
	CH_CRASH_POINT(stream_end_taken);
	s->my = me;
	return 0;
}

int ch_stream_attach(const struct ch_descr *descr, struct ch_stream **out_stream)
{
	ch_stream *s;
	int rc = object_attach(descr, stream_kind, out_stream ? &s : nullptr);

	if (rc < 0)
		return rc;
	rc = s->v.is_pair ? take_end(s, s->me.load(relaxed)) : // ours
		     fail(-EINVAL, "stream: the descriptor names a port");
	if (rc < 0) {
		object_detach(s);
		return rc;
	}
	*out_stream = s;
	return 0;
}

int ch_stream_get_descr(const struct ch_stream *stream, struct ch_descr *out_descr)
{
	if (stream && !stream->v.is_pair)
		return fail(-EINVAL, "stream: it has no descriptor of its own: the port's are enough");
	return object_get_descr(stream, out_descr);
}

struct ch_pool *ch_stream_get_pool(const struct ch_stream *stream)
{
	return stream ? stream->pool : nullptr;
}

// SPDX-License-Identifier: Apache-2.0
// stream_chunk.cpp - the path of a chunk: gather or claim, put into the lane, take out, read.
//
// A lane has one writer and one reader, so a chunk costs one store on either side. A block that travels is SENDING from
// before its slot is filled until its reader owns it, so that whoever dies, it is either in a committed chunk or free.
#include "config.h"
#include "stream.h"
#include "crash.h"
#include "ring.h"
#include <channels/block.h>
#include <channels/pollset.h>

namespace ch::core {

static constexpr u64 SMALL = sizeof(ch_stream::small);
static constexpr u64 FIRST_BLOCK = 512;
static constexpr u64 OF_VIEW = 4;         // in a message's priv[1], beside the address of its struct ch_view
static constexpr i64 SLICE_NS = 10000000; // how often a writer that waits for memory looks whether it is still wanted

// What goes into a lane: the block, or the view, or len bytes at small.
struct parcel {
	const block_place *b;
	const void *small;
	u64 len, arg;
	const view_ref *view = nullptr;
};

// ---- the lane

bool stream_has_chunk(const ch_stream *s) noexcept
{
	// [N2] pairs with [N1]: a committed chunk is whole
	return s->v.slot(s->index, s->next).seq.load(acquire) == s->next + 1;
}

bool stream_has_room(const ch_stream *s) noexcept
{
	// [N4] pairs with [N3]: the reader is done with the slot
	return s->next - s->v.lane(s->index).head.load(acquire) < s->v.capacity;
}

static void fill(const ch_stream *s, stream_slot &slot, const parcel &p) noexcept
{
	slot.what.store(p.len | (p.b ? IN_BLOCK : p.view ? IN_VIEW : 0), relaxed); // published by seq
	slot.arg = p.arg;
	if (!p.b) {
		std::memcpy(slot.data, p.view ? p.view : p.small, p.view ? sizeof(*p.view) : p.len);
		return;
	}
	const block_ref ref{p.b->index, block_tag(p.b->word->load(relaxed))}; // ours
	// If we die before the commit, SENDING says that the block is free.
	p.b->word->store(block_word(ref.tag, B_SENDING, s->my), release); // [B1] pairs with [B2]
	CH_CRASH_POINT(stream_block_marked);
	std::memcpy(slot.data, &ref, sizeof(ref));
}

static int try_put(ch_stream *s, const parcel &p) noexcept
{
	const int stop = stream_stop(s);
	stream_lane &lane = s->v.lane(s->index);

	if (stop < 0) [[unlikely]]
		return stop;
	if (s->next - s->taken >= s->v.capacity) {
		s->taken = lane.head.load(acquire); // [N4] pairs with [N3]: the reader is done with the slot
		if (s->next - s->taken >= s->v.capacity)
			return s->next - s->taken > s->v.capacity ? -EPROTO : -EAGAIN;
	}
	stream_slot &slot = s->v.slot(s->index, s->next);
	fill(s, slot, p);
	CH_CRASH_POINT(stream_filled);
	// [N1] pairs with [N2]: the chunk is whole before its slot says so. This is the commit.
	slot.seq.store(++s->next, release);
	CH_CRASH_POINT(stream_committed);
	event_notify(lane.not_empty, 1);
	stream_passed(s, stream_has_room(s) ? CH_POLL_IN : CH_POLL_IN | CH_POLL_FULL, CH_POLL_OUT);
	return 0;
}

static int put(ch_stream *s, const parcel &p, i64 timeout_ns) noexcept
{
	return stream_wait(
		s, s->v.lane(s->index).not_full, timeout_ns, [s, &p] { return try_put(s, p); },
		[s] { return stream_has_room(s) || stream_stop(s) != 0; });
}

// Holds the bytes that a writer shows: it keeps its own view until we do.
static int attach_view(ch_stream *s, const view_ref &ref, u64 len) noexcept
{
	ch_descr d;

	descr_seal(segment_descr(s->pool->seg, CH_DESCR_VIEW, ref.index, ref.tag), &d);
	const int rc = ch_view_attach(&d, &s->view);
	if (rc < 0)
		return rc != -ESTALE ? rc : stream_verdict(s) == -EOWNERDEAD ? -EOWNERDEAD : rc;
	s->shown = static_cast<const u8 *>(ch_view_addr(s->view));
	const u64 at = static_cast<u64>(s->shown - s->pool->map.data), whole = ch_view_len(s->view);
	if (ref.at < at || ref.at - at > whole || len > whole - (ref.at - at))
		return -EPROTO;
	s->shown += ref.at - at;
	return 0;
}

// Takes what the slot of the next chunk holds; a hostile writer may still change it.
static int take_slot(ch_stream *s, stream_lane &lane, const stream_slot &slot) noexcept
{
	const u64 what = slot.what.load(relaxed), len = what & ~(IN_BLOCK | IN_VIEW); // published by seq
	view_ref view;
	block_ref ref;
	int rc = 0;

	s->in = {};
	if (what & IN_BLOCK) {
		std::memcpy(&ref, slot.data, sizeof(ref));
		if (!block_take(s->pool->map, ref, s->my, s->in))
			rc = -EPROTO;
		else if (len > s->in.len) // the block is ours now; who sent it lied
			rc = -EPROTO;
	} else if (what & IN_VIEW) {
		std::memcpy(&view, slot.data, sizeof(view));
		rc = attach_view(s, view, len);
	} else if (len <= SMALL) {
		std::memcpy(s->small, slot.data, len);
	} else {
		rc = -EPROTO;
	}
	CH_CRASH_POINT(stream_chunk_taken);
	s->len = len;
	s->at = 0;
	s->arg = slot.arg;
	if (rc < 0) { // it stays, so that no later call passes it over in silence
		stream_drop(s);
		return rc;
	}
	s->is_held.store(true, relaxed); // published by head
	lane.head.store(++s->next, release); // [N3] pairs with [N4]: we are done with the slot
	CH_CRASH_POINT(stream_delivered);
	event_notify(lane.not_full, 1);
	stream_passed(s, stream_has_chunk(s) ? CH_POLL_OUT : CH_POLL_OUT | CH_POLL_EMPTY, 0);
	return 0;
}

// What a read or a take has left.
static void left(ch_stream *s) noexcept
{
	stream_passed(s, s->is_held.load(relaxed) || stream_has_chunk(s) ? 0 : CH_POLL_EMPTY, CH_POLL_IN);
}

// 0, STREAM_END, -EAGAIN, or why there will be no more.
static int try_get(ch_stream *s) noexcept
{
	stream_lane &lane = s->v.lane(s->index);
	const int stop = stream_stop(s);

	if (stop < 0) [[unlikely]]
		return stop;
	if (!stream_has_chunk(s)) {
		const int verdict = stream_verdict(s);
		if (verdict == -EAGAIN || !stream_has_chunk(s)) // what was committed before the end comes first
			return verdict;
	}
	return take_slot(s, lane, s->v.slot(s->index, s->next));
}

// Makes the next chunk the one that is held.
static int get(ch_stream *s, i64 timeout_ns) noexcept
{
	return stream_wait(
		s, s->v.lane(s->index).not_empty, timeout_ns, [s] { return try_get(s); },
		[s] { return stream_has_chunk(s) || stream_verdict(s) != -EAGAIN || stream_stop(s) != 0; });
}

// ---- memory

// While the conversation is wanted.
static int alloc(ch_stream *s, u64 len, const time_left &t, block_place &out) noexcept
{
	for (;;) {
		int rc = stream_stop(s);
		if (rc < 0)
			return rc;
		const i64 slice = t.given == CH_TRY ? 0 : now_ns() + SLICE_NS;
		rc = pool_alloc(s->pool, len, t.given == CH_TRY, slice < t.until ? slice : t.until, out);
		if (rc != -ETIMEDOUT || now_ns() >= t.until)
			return rc;
	}
}

void stream_drop(ch_stream *s) noexcept
{
	if (s->in.addr)
		pool_free(s->pool, s->in);
	ch_view_detach(s->view);
	s->in = {};
	s->view = nullptr;
	s->len = s->at = 0;
	s->is_held.store(false, relaxed); // ours
}

static u8 *bytes_of(ch_stream *s) noexcept
{
	return s->in.addr ? s->in.addr : s->small;
}
static u64 room_of(const ch_stream *s) noexcept
{
	const u64 room = s->in.addr ? s->in.len : SMALL;

	return s->is_collected || room < s->v.chunk_len ? room : s->v.chunk_len;
}

// Room to gather need bytes in all, or, in a stream, as many as a chunk has.
static int grow(ch_stream *s, u64 need, const time_left &t) noexcept
{
	const u64 room = room_of(s);
	block_place b;
	u64 want = room * 8 < FIRST_BLOCK ? FIRST_BLOCK : room * 8;

	if (s->is_collected) // as a vector grows
		want = room < s->v.chunk_len ? want : room * 2;
	want = want < s->usual ? s->usual : want;
	want = want < need ? need : want;
	if (!s->is_collected && want > s->v.chunk_len)
		want = s->v.chunk_len;
	const int rc = alloc(s, want, t, b);
	if (rc < 0)
		return rc;
	std::memcpy(b.addr, bytes_of(s), s->len);
	if (s->in.addr)
		pool_free(s->pool, s->in);
	s->in = b;
	return 0;
}

// ---- gathering

int stream_send_gathered(ch_stream *s, i64 timeout_ns) noexcept
{
	const parcel p{s->in.addr ? &s->in : nullptr, s->small, s->len, s->arg};
	const int rc = put(s, p, timeout_ns);

	if (rc < 0)
		return rc;
	s->usual = s->len;
	s->in = {};
	s->len = 0;
	return 0;
}

// What is gathered goes first. A collected conversation is never sent before its end.
static int flush(ch_stream *s, const time_left &t) noexcept
{
	const int rc = s->is_collected || s->len == 0 ? stream_stop(s) : stream_send_gathered(s, t.rest());

	return t.timed(rc);
}

// One step of a write: some bytes more are gathered, full chunks are sent. Returns how many, or why none.
static i64 gather(ch_stream *s, const u8 *from, u64 len, u64 arg, const time_left &t) noexcept
{
	const bool is_full = s->len >= s->v.chunk_len, is_other = s->len > 0 && s->arg != arg;
	int rc = stream_stop(s);

	if (rc == 0 && !s->is_collected && (is_full || is_other))
		rc = flush(s, t);
	if (rc == 0 && s->len + len > room_of(s) && (s->is_collected || room_of(s) < s->v.chunk_len))
		rc = grow(s, s->len + len, t);
	if (rc < 0)
		return rc;
	const u64 room = room_of(s) - s->len, n = len < room ? len : room;
	std::memcpy(bytes_of(s) + s->len, from, n);
	if (!s->is_held.load(relaxed) || !s->is_collected) // a collected conversation has the arg of its beginning
		s->arg = arg;
	s->is_held.store(s->is_collected, relaxed); // ours
	s->len += n;
	if (!s->is_collected && s->len == s->v.chunk_len)
		(void)stream_send_gathered(s, CH_TRY); // the next call insists
	return static_cast<i64>(n);
}

static ssize_t write_bytes(ch_stream *s, const void *buf, u64 len, u64 arg, const time_left &t) noexcept
{
	const u8 *from = static_cast<const u8 *>(buf);
	u64 done = 0;

	do {
		const i64 n = gather(s, from + done, len - done, arg, t);
		if (n < 0)
			return done > 0 ? static_cast<ssize_t>(done) : n;
		done += static_cast<u64>(n);
	} while (done < len);
	return static_cast<ssize_t>(done);
}

// ---- chunks in place

// The block of a message that this process owns.
static bool own_block(const ch_stream *s, const ch_message *msg, block_place &b) noexcept
{
	if (s->me.load(relaxed) != s->my || !block_find(s->pool->map, msg->priv[0] - 1, b)) // ours; 0 in a forked child
		return false;
	const u64 w = b.word->load(relaxed); // ours, or refused
	return block_state_of(w) == B_OWNED && block_owner(w) == s->my;
}

// A message of channels (message.cpp) that is to be read or written here: what lies in b from at on, or in small_.
static void fill_message(ch_message *msg, const block_place *b, u64 at, u64 len, u64 arg) noexcept
{
	msg->data = b ? static_cast<void *>(b->addr + at) : msg->small_;
	msg->len = len;
	msg->tag = arg;
	msg->sender.id = 0;
	msg->flags = 0;
	msg->priv[0] = b ? b->index + 1 : 0;
	msg->priv[1] = 0;
}

static void clear(ch_message *msg) noexcept
{
	msg->data = nullptr;
	msg->len = 0;
	msg->priv[0] = msg->priv[1] = 0;
}

// A block of ours becomes a chunk, or (part of) a collected conversation.
static int send_owned(ch_stream *s, const block_place &b, u64 len, u64 arg, const time_left &t) noexcept
{
	int rc = flush(s, t);

	if (rc < 0)
		return rc;
	if (!s->is_collected)
		return t.timed(put(s, {&b, nullptr, len, arg}, t.rest()));
	if (s->is_held.load(relaxed)) {
		const ssize_t n = write_bytes(s, b.addr, len, arg, t); // one block holds all: all or nothing
		rc = n < 0 ? static_cast<int>(n) : 0;
		if (rc == 0)
			pool_free(s->pool, b);
		return rc;
	}
	s->in = b;
	s->len = len;
	s->arg = arg;
	s->is_held.store(true, relaxed); // ours
	return 0;
}

static int commit(ch_stream *s, const ch_message *msg, u64 arg, const time_left &t) noexcept
{
	block_place b;
	int rc;

	if (msg->priv[1] != 0)
		return fail(-EINVAL,
			    "stream: the message is shared, or its channel's until it is released: it can't move on");
	if (msg->priv[0] != 0) {
		if (!own_block(s, msg, b) || b.addr != msg->data)
			return fail(-EINVAL,
				    "stream: the message is not this process's, read in part, or of another pool");
		if (msg->len > b.len)
			return fail(-EMSGSIZE, "stream: the message grew to %zu bytes", msg->len);
		return send_owned(s, b, msg->len, arg, t);
	}
	if (msg->len > SMALL)
		return fail(-EMSGSIZE, "stream: the message grew to %zu bytes", msg->len);
	if (s->is_collected) {
		const i64 n = gather(s, static_cast<const u8 *>(msg->data), msg->len, arg, t);
		return n < 0 ? static_cast<int>(n) : 0;
	}
	rc = flush(s, t);
	return rc < 0 ? rc : t.timed(put(s, {nullptr, msg->data, msg->len, arg}, t.rest()));
}

static int try_drain(const ch_stream *s) noexcept
{
	const int gone = stream_reader_gone(s);

	if (s->v.lane(s->index).head.load(acquire) == s->next) // [N4] pairs with [N3]
		return 0;
	return gone < 0 ? gone : -EAGAIN;
}

static int not_a(const ch_stream *s, bool reader, const void *arg) noexcept
{
	if (s && arg && s->is_reader == reader)
		return 0;
	return fail(-EINVAL, s && arg ? "stream: it is the %s's end" : "stream: NULL", reader ? "writer" : "reader");
}

} // namespace ch::core

using namespace ch::core;

ssize_t ch_stream_write(struct ch_stream *stream, const void *buf, size_t len, uint64_t arg, int64_t timeout_ns)
{
	const int rc = not_a(stream, false, buf ? buf : len ? nullptr : "");

	if (rc < 0)
		return rc;
	if (len == 0)
		return stream_tell(stream, stream_stop(stream));
	const ssize_t n = write_bytes(stream, buf, len, arg, time_left(timeout_ns));
	return n < 0 ? stream_tell(stream, static_cast<int>(n)) : n;
}

int ch_stream_flush(struct ch_stream *stream, int64_t timeout_ns)
{
	const int rc = not_a(stream, false, "");

	return rc < 0 ? rc : stream_tell(stream, flush(stream, time_left(timeout_ns)));
}

int ch_stream_claim(struct ch_stream *stream, size_t len, int64_t timeout_ns, struct ch_message *out_msg)
{
	block_place b;
	int rc = not_a(stream, false, out_msg);

	if (rc < 0)
		return rc;
	if (len <= SMALL)
		rc = stream_stop(stream);
	else
		rc = alloc(stream, len, time_left(timeout_ns), b);
	if (rc < 0)
		return stream_tell(stream, rc);
	fill_message(out_msg, len <= SMALL ? nullptr : &b, 0, len, 0);
	return 0;
}

int ch_stream_commit(struct ch_stream *stream, struct ch_message *msg, uint64_t arg, int64_t timeout_ns)
{
	int rc = not_a(stream, false, msg ? msg->data : nullptr);

	if (rc < 0)
		return rc;
	rc = commit(stream, msg, arg, time_left(timeout_ns));
	if (rc == 0)
		clear(msg);
	return stream_tell(stream, rc);
}

void ch_stream_abort(struct ch_stream *stream, struct ch_message *msg)
{
	ch_stream_release(stream, msg);
}

int ch_stream_send_block(struct ch_stream *stream, void *addr, size_t len, uint64_t arg, int64_t timeout_ns)
{
	block_place b;
	int rc = not_a(stream, false, addr);

	if (rc < 0)
		return rc;
	if (!block_find_addr(stream->pool->map, addr, b))
		return fail(-EINVAL, "stream: no block of its pool begins at %p", addr);
	const u64 w = b.word->load(relaxed);                                            // ours, or refused
	if (block_state_of(w) != B_OWNED || block_owner(w) != stream->me.load(relaxed)) // ours
		return fail(-EPERM, "stream: the block at %p is not this process's", addr);
	if (len > b.len)
		return fail(-EMSGSIZE, "stream: %zu bytes are not in a block of %llu", len,
			    static_cast<unsigned long long>(b.len));
	return stream_tell(stream, send_owned(stream, b, len, arg, time_left(timeout_ns)));
}

int ch_stream_send_view(struct ch_stream *stream, struct ch_view *view, uint64_t arg, int64_t timeout_ns)
{
	const time_left t(timeout_ns);
	ch_descr sealed;
	descr d;
	int rc = not_a(stream, false, view);

	if (rc == 0)
		rc = ch_view_get_descr(view, &sealed);
	if (rc == 0)
		rc = descr_open(&sealed, d);
	if (rc < 0)
		return rc;
	const u8 *at = static_cast<const u8 *>(ch_view_addr(view));
	const ch_segment *seg = stream->pool->seg;
	if (!at || d.segment != seg->id || d.birth != seg->birth)
		return fail(-EINVAL, "stream: the view is of another pool, or not this process's");
	if (stream->is_collected) {
		const ssize_t n = write_bytes(stream, at, ch_view_len(view), arg, t);
		return n < 0 ? stream_tell(stream, static_cast<int>(n)) : 0;
	}
	const view_ref ref{d.offset, d.generation, static_cast<u64>(at - stream->pool->map.data)};
	rc = flush(stream, t);
	if (rc == 0)
		rc = t.timed(put(stream, {nullptr, nullptr, ch_view_len(view), arg, &ref}, t.rest()));
	return stream_tell(stream, rc);
}

int ch_stream_drain(struct ch_stream *stream, int64_t timeout_ns)
{
	const time_left t(timeout_ns);
	ch_stream *s = stream;
	int rc = not_a(s, false, "");

	if (rc == 0 && s->is_collected)
		rc = fail(-EINVAL, "stream: a buffered conversation is on its way when it ends");
	if (rc < 0)
		return rc;
	rc = s->is_over ? 0 : flush(s, t);
	if (rc == 0)
		rc = stream_wait(
			s, s->v.lane(s->index).not_full, t.rest(), [s] { return try_drain(s); },
			[s] { return try_drain(s) != -EAGAIN; });
	return stream_tell(s, t.timed(rc));
}

ssize_t ch_stream_read(struct ch_stream *stream, void *buf, size_t cap, int64_t timeout_ns, uint64_t *out_arg)
{
	ch_stream *s = stream;
	const time_left t(timeout_ns);
	u64 done = 0, arg = 0;
	int rc = not_a(s, true, buf ? buf : cap ? nullptr : "");

	if (rc < 0)
		return rc;
	while (done < cap && rc == 0) {
		if (!s->is_held.load(relaxed))
			rc = get(s, done > 0 ? CH_TRY : t.rest());
		if (rc != 0 || (out_arg && done > 0 && s->len > 0 && s->arg != arg))
			break;
		const u64 left = s->len - s->at, n = left < cap - done ? left : cap - done;
		std::memcpy(static_cast<u8 *>(buf) + done, (s->view ? s->shown : bytes_of(s)) + s->at, n);
		arg = s->arg;
		done += n;
		s->at += n;
		if (s->at == s->len)
			stream_drop(s);
	}
	if (done > 0 && out_arg)
		*out_arg = arg;
	if (done > 0)
		left(s);
	return done > 0 || rc == STREAM_END ? static_cast<ssize_t>(done) : stream_tell(s, t.timed(rc));
}

int ch_stream_take(struct ch_stream *stream, int64_t timeout_ns, struct ch_message *out_msg, uint64_t *out_arg)
{
	ch_stream *s = stream;
	int rc = not_a(s, true, out_msg);

	if (rc < 0)
		return rc;
	if (!s->is_held.load(relaxed))
		rc = get(s, timeout_ns);
	if (rc != 0)
		return rc == STREAM_END ? 0 : stream_tell(s, rc);
	fill_message(out_msg, s->in.addr ? &s->in : nullptr, s->at, s->len - s->at, s->arg);
	if (s->view) {
		out_msg->data = const_cast<u8 *>(s->shown) + s->at;
		out_msg->priv[1] = reinterpret_cast<uintptr_t>(s->view) | OF_VIEW;
	} else if (!s->in.addr) {
		std::memcpy(out_msg->small_, s->small + s->at, s->len - s->at);
	}
	if (out_arg)
		*out_arg = s->arg;
	s->in = {}; // it is the caller's
	s->view = nullptr;
	s->is_held.store(false, relaxed);
	left(s);
	return 1;
}

void ch_stream_release(struct ch_stream *stream, struct ch_message *msg)
{
	block_place b;

	if (!stream || !msg || !msg->data)
		return;
	if (msg->priv[1] & OF_VIEW)
		ch_view_detach(reinterpret_cast<ch_view *>(msg->priv[1] & ~OF_VIEW));
	else if (msg->priv[1] != 0) // of a channel that waits for its release there
		return;
	if (msg->priv[0] != 0 && own_block(stream, msg, b))
		pool_free(stream->pool, b);
	clear(msg);
}

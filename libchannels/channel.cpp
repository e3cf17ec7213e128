// SPDX-License-Identifier: Apache-2.0
// channel.cpp - what is particular to channels in an object's life (object.h), and what is asked of them.
#include "config.h"
#include "channel.h"
#include "message.h"
#include "watch.h"
#include <channels/pollset.h>
#include <cerrno>

namespace ch::core {

static constexpr u32 DEFAULT_CAPACITY = 1024;
static constexpr u32 DEFAULT_INLINE = 48;
static constexpr u32 MAX_INLINE = MAX_STRIDE - SLOT_HEAD;

// ---- the kind

static bool is_sound(u8 *at, u64 len, u32 max_peers) noexcept
{
	ring r;

	return ring_open(r, at, len, max_peers);
}

static constexpr u32 SPINS[] = {0, CH_SPIN_ALWAYS, CH_SPIN_NEVER}; // CH_WAIT_...

// What the handle knows of its channel; nobody uses it yet, or again after a fork.
static void set_up(ch_channel *ch) noexcept
{
	const u32 wait = __atomic_load_n(&ch->r.h->wait, __ATOMIC_RELAXED); // once, as in ring_open
	const u32 most = ch->r.inline_max < SHORT ? ch->r.inline_max : static_cast<u32>(SHORT);

	ch->quick_send = ch->r.is_spsc ? 0 : most;
	ch->quick_recv = ch->r.is_spsc || ch->r.urgent.slots ? 0 : most;
	ch->quick_spsc = ch->r.is_spsc ? most : 0;
	ch->default_spin = wait <= CH_WAIT_SLEEP ? SPINS[wait] : 0;
	ch->self = peer_self();
	for (auto &bound : ch->bound)
		bound.store(0, relaxed);
}

static bool open(ch_object *o) noexcept
{
	ch_channel *ch = static_cast<ch_channel *>(o);

	ch->r.o = ch->r.urgent.o = o;
	if (!ring_open(ch->r, o->block.addr, o->block.len, o->pool->seg->max_peers))
		return false;
	set_up(ch);
	if (o->spin_ns.load(relaxed) == 0) // a setting
		o->spin_ns.store(ch->default_spin, relaxed);
	return true;
}

static void wake(ch_segment *seg, u32 as, const block_place &b) noexcept
{
	ring_wake_all(reinterpret_cast<channel_header *>(b.addr));
	watch_tell_all(seg, as, watch_table_of(b));
}

static void end(ch_segment *seg, u32 as, const block_place &b) noexcept
{
	reinterpret_cast<channel_header *>(b.addr)->state.fetch_or(CHANNEL_DESTROYED, acq_rel);
	wake(seg, as, b);
}

static void sweep(ch_segment *seg, const block_place &b, u32 dead) noexcept
{
	ring r;

	if (ring_open(r, b.addr, b.len, seg->max_peers))
		ring_sweep(r, seg->pool.map, dead);
	watch_sweep(watch_table_of(b), dead);
}

static void leave(ch_object *o, u32 me) noexcept
{
	const ring &r = static_cast<ch_channel *>(o)->r;

	ring_leave(r, o->pool->map, me);
	if (needs_a_look(r.h->state.load(relaxed))) // what it left there is to be seen
		wake(o->pool->seg, me, o->block);
}

static void drain(ch_segment *seg, const block_place &b, u32 me) noexcept
{
	ring r;

	if (ring_open(r, b.addr, b.len, seg->max_peers))
		ring_drain(r, seg->pool.map, me);
}

// ---- as a member of poll sets

static watch_table poll_watchers(const ch_object *o) noexcept
{
	return watch_table_of(o->block);
}

static u32 poll_events(const ch_object *o, polled out[MAX_POLLED]) noexcept
{
	const ring &r = static_cast<const ch_channel *>(o)->r;

	out[0] = {&r.h->not_empty, CH_POLL_IN | CH_POLL_FULL};
	out[1] = {&r.h->not_full, CH_POLL_OUT | CH_POLL_EMPTY | (r.urgent.slots ? CH_POLL_OUT_URGENT : 0)};
	return 2;
}

static u32 poll_look(ch_object *o, u32 mask) noexcept
{
	ring &r = static_cast<ch_channel *>(o)->r;
	const u64 state = r.h->state.load(relaxed); // who sets a flag tells us afterwards
	u32 is = 0;

	if (state & CHANNEL_DESTROYED)
		return CH_POLL_CLOSED | CH_POLL_DESTROYED;
	if (mask & (CH_POLL_IN | CH_POLL_EMPTY))
		is |= ring_has_message(r) ? CH_POLL_IN : CH_POLL_EMPTY;
	if (state & CHANNEL_ENDING)
		return (is & mask) | CH_POLL_CLOSED;
	if (mask & (CH_POLL_OUT | CH_POLL_FULL))
		is |= ring_has_room(r) ? CH_POLL_OUT : CH_POLL_FULL;
	if ((mask & CH_POLL_OUT_URGENT) && ring_has_room(r.urgent))
		is |= CH_POLL_OUT_URGENT;
	return is & mask;
}

const poll_ops channel_ops = {
	.watchers = poll_watchers,
	.events = poll_events,
	.look = poll_look,
	.join = object_join_set<ch_channel>,
	.leave = object_leave_set<ch_channel>,
	.is_handle = false,
};

const object_kind channel_kind = {
	.id = CH_DESCR_CHANNEL,
	.name = "channel",
	.header_len = sizeof(channel_header),
	.is_sound = is_sound,
	.open = open,
	.end = end,
	.wake = wake,
	.sweep = sweep,
	.leave = leave,
	.drain = drain,
};

// ---- create

static int read_channel_attr(const ch_channel_attr *attr, ch_channel_attr &a) noexcept
{
	const int rc = read_attr(attr, &a, sizeof(a));

	if (rc < 0)
		return rc;
	if (a.capacity == 0)
		a.capacity = DEFAULT_CAPACITY;
	if (a.inline_max == 0)
		a.inline_max = DEFAULT_INLINE;
	if (watch_attr(a.max_watchers, "channel") < 0)
		return -EINVAL;
	if (a.capacity > MAX_SLOTS || a.urgent_capacity > MAX_SLOTS)
		return fail(-EINVAL, "channel: capacity %u or %u is over %u", a.capacity, a.urgent_capacity, MAX_SLOTS);
	if ((a.flags & ~ALL_CHANNEL_FLAGS) || a.wait > CH_WAIT_SLEEP)
		return fail(-EINVAL, "channel: unknown flags %#x, or wait %u", a.flags, a.wait);
	if (a.inline_max < 8 || a.inline_max > MAX_INLINE)
		return fail(-EINVAL, "channel: inline_max %u is not in 8...%u", a.inline_max, MAX_INLINE);
	if ((a.flags & CH_CHANNEL_SPSC) && (a.urgent_capacity || (a.flags & CH_CHANNEL_ACKNOWLEDGED)))
		return fail(-EINVAL,
			    "channel: one with one sender and one receiver has no urgent lane and no acknowledgements");
	if ((a.flags & CH_CHANNEL_HANGS_UP) && !(a.flags & CH_CHANNEL_SPSC))
		return fail(-EINVAL, "channel: only one with one sender and one receiver can hang up");
	return 0;
}

static u32 power_of_two(u32 n) noexcept
{
	return n <= 1 ? n : 1u << (32 - __builtin_clz(n - 1));
}

} // namespace ch::core

using namespace ch::core;

int ch_channel_create(struct ch_pool *pool, const struct ch_channel_attr *attr, struct ch_channel **out_ch)
{
	ch_channel_attr a;
	int rc = read_channel_attr(attr, a);

	if (rc == 0 && !out_ch)
		rc = fail(-EINVAL, "channel: out_ch is NULL");
	if (rc < 0)
		return rc;
	const ring_shape shape{power_of_two(a.capacity), static_cast<u32>(round_up(SLOT_HEAD + a.inline_max, LINE)),
			       power_of_two(a.urgent_capacity), a.flags};
	return object_create(
		pool, channel_kind, a.flags & CH_CHANNEL_ENDS_WITH_CREATOR, out_ch,
		[=](u32 max_peers) { return ring_bytes(shape, max_peers) + watch_bytes(a.max_watchers); },
		[=](ch_channel &ch) {
			ch.r.o = ch.r.urgent.o = &ch;
			ring_format(ch.r, ch.block.addr, shape, ch.pool->seg->max_peers);
			ch.r.h->wait = a.wait;
			ch.r.h->object.nr_watches = a.max_watchers;
			set_up(&ch);
			ch.spin_ns.store(a.spin_ns ? a.spin_ns : ch.default_spin, relaxed); // not given out yet
		});
}

int ch_channel_attach(const struct ch_descr *descr, struct ch_channel **out_ch)
{
	return object_attach(descr, channel_kind, out_ch);
}

void ch_channel_detach(struct ch_channel *ch)
{
	if (ch)
		role_leave(ch);
	object_detach(ch);
}

void ch_channel_destroy(struct ch_channel *ch)
{
	object_destroy(ch);
}

static int usable(ch_channel *ch)
{
	if (!ch)
		return fail(-EINVAL, "channel: NULL");
	const int me = channel_me(ch);
	if (me < 0)
		return me;
	return ch->r.h->state.load(relaxed) & CHANNEL_DESTROYED ? object_stale(ch) : 0; // a flag
}

int ch_channel_close(struct ch_channel *ch)
{
	const int rc = usable(ch);

	if (rc < 0)
		return rc;
	ch->r.h->state.fetch_or(CHANNEL_CLOSING, acq_rel);
	wake(ch->pool->seg, static_cast<u32>(channel_me(ch)), ch->block);
	return 0;
}

int ch_channel_get_descr(const struct ch_channel *ch, struct ch_descr *out_descr)
{
	return object_get_descr(ch, out_descr);
}

struct ch_pollable *ch_channel_get_pollable(struct ch_channel *ch)
{
	return pollable_of(ch);
}

struct ch_pool *ch_channel_get_pool(const struct ch_channel *ch)
{
	return ch ? ch->pool : nullptr;
}

int ch_channel_set_spin(struct ch_channel *ch, uint32_t spin_ns)
{
	if (!ch)
		return fail(-EINVAL, "channel: NULL");
	ch->spin_ns.store(spin_ns ? spin_ns : ch->default_spin, relaxed); // a setting
	return 0;
}

uint32_t ch_channel_get_capacity(const struct ch_channel *ch)
{
	return ch ? static_cast<uint32_t>(ch->r.mask + 1) : 0;
}

uint32_t ch_channel_get_inline_max(const struct ch_channel *ch)
{
	return ch ? ch->r.inline_max : 0;
}

ssize_t ch_channel_count(struct ch_channel *ch)
{
	const int rc = usable(ch);

	return rc < 0 ? rc
		      : static_cast<ssize_t>(ring_count(ch->r) + (ch->r.urgent.slots ? ring_count(ch->r.urgent) : 0));
}

// SPDX-License-Identifier: Apache-2.0
// pollset.cpp - poll sets and their members: create, add, modify, remove, destroy.
#include "config.h"
#include "pollset.h"
#include "channel.h"
#include "crash.h"
#include <cerrno>
#include <cstdlib>

namespace ch::core {

static constexpr u32 DEFAULT_MEMBERS = 4096;
static constexpr u32 FLAGS = CH_POLL_EDGE | CH_POLL_ONESHOT;

void pollset_queue(ch_pollset *s, u32 i) noexcept
{
	const u32 n = s->nr_queued.load(relaxed); // under the lock, except for spinners' looks

	if (i >= s->nr_used || s->members[i].is_queued)
		return;
	s->members[i].is_queued = true;
	s->queue[(s->head + n) % s->max] = i;
	s->nr_queued.store(n + 1, relaxed);
}

void pollset_nudge(ch_pollset *s, int count) noexcept
{
	const u32 n = s->nr_parts.load(acquire); // [Y6] pairs with [Y7]

	if (n == 0 || count == EVERYBODY)
		event_wake(s->begin, count);
	for (u32 i = 0; i < n && (i == 0 || count == EVERYBODY); i++)
		event_wake(s->parts[i]->m.h->ready, count);
}

// ---- parts

static int make_part(ch_pollset *s, ch_pool *pool) noexcept
{
	const u32 n = s->nr_parts.load(relaxed), max = s->max; // under the lock
	set_part *part;

	if (n == MAX_EVENTS)
		return fail(-ENOSPC, "poll set: members from more than %u pools", MAX_EVENTS);
	if (n > 0 && !event_can_wait_any())
		return fail(-ENOSYS, "poll set: members from two pools need futex_waitv(2), Linux 5.16; make a set for each");
	const int rc = object_create(
		pool, poll_set_kind, true, &part, [max](u32 max_peers) { return marks_bytes(max, max_peers); },
		[max](set_part &p) {
			poll_set_header *h = reinterpret_cast<poll_set_header *>(p.block.addr);
			h->nr_members = max;
			h->ready.v.store(EVENT_SLEEPY, relaxed); // nobody has met it quiet yet
		});
	if (rc < 0)
		return rc;
	part->spin_ns.store(s->spin_ns, relaxed);
	marks_open(part->m, part->block.addr, part->block.len, pool->seg->max_peers);
	s->parts[n] = part;
	s->nr_parts.store(n + 1, release); // [Y7] pairs with [Y6]: spinners and wakers look without the lock
	if (n > 0)
		event_wake(s->parts[0]->m.h->ready, EVERYBODY); // those asleep must come back to sleep on this one too
	event_wake(s->begin, EVERYBODY);
	return static_cast<int>(n);
}

static int part_of(ch_pollset *s, const ch_pool *pool) noexcept
{
	for (u32 i = 0; i < s->nr_parts.load(relaxed); i++) // under the lock
		if (s->parts[i]->pool == pool)
			return static_cast<int>(i);
	return -ENOENT;
}

// ---- members

static int take_number(ch_pollset *s) noexcept
{
	if (s->free == 0)
		return s->nr_used < s->max ? static_cast<int>(s->nr_used++) : -ENOSPC;
	const u32 i = s->free - 1;

	s->free = s->members[i].next;
	return static_cast<int>(i);
}

static void give_number(ch_pollset *s, u32 i) noexcept
{
	s->members[i].o = nullptr; // what is left of it in the queue is skipped
	s->members[i].next = s->free;
	s->free = i + 1;
}

static bool is_it(const ch_pollset *s, u32 i, const ch_object *o) noexcept
{
	const ch_object *have = i < s->nr_used ? s->members[i].o : nullptr;

	if (!have || have == o || have->poll != o->poll || o->poll->is_handle)
		return have && have == o;
	return have->pool == o->pool && have->block.index == o->block.index && have->tag == o->tag;
}

// The number of a member, or -ENOENT. Found by the table of watchers, unless shared memory is damaged: then one that is here
// by its own handle, which is about to go, must be found all the same.
static int find(const ch_pollset *s, const ch_object *o, int part) noexcept
{
	const watch_table t = o->poll->watchers(o);
	const ch_object *set = part < 0 ? nullptr : s->parts[part];
	bool is_any = o->poll->is_handle;
	int e = -1;

	while (set && (e = watch_find(t, static_cast<u32>(e + 1), set->me.load(relaxed), set)) >= 0) { // ours
		const u32 i = watch_member(t.words[e].load(relaxed)); // ours
		is_any = true;
		if (is_it(s, i, o))
			return static_cast<int>(i);
	}
	for (u32 i = 0; is_any && i < s->nr_used; i++)
		if (is_it(s, i, o))
			return static_cast<int>(i);
	return -ENOENT;
}

static int enter(ch_pollset *s, ch_object *o, u32 events, u64 user_data) noexcept
{
	int part = part_of(s, o->pool);

	if (!o->poll->is_handle && find(s, o, part) >= 0) // who has a handle of its own knows
		return fail(-EEXIST, "poll set: the %s is a member already", o->kind->name);
	part = part < 0 ? make_part(s, o->pool) : part;
	if (part < 0)
		return part;
	const int i = take_number(s);
	if (i < 0)
		return fail(i, "poll set: it has its %u members", s->max);
	const int entry = watch_claim(o->poll->watchers(o), s->parts[part]->me.load(relaxed), s->parts[part], // ours
				      static_cast<u32>(i));
	if (entry < 0) {
		give_number(s, static_cast<u32>(i));
		return fail(entry, "poll set: as many sets watch this %s as it was made for", o->kind->name);
	}
	poll_member &m = s->members[i];
	m.o = o;
	m.user_data = user_data;
	m.events = events;
	m.part = static_cast<u32>(part);
	m.entry = static_cast<u32>(entry);
	m.has_fired = false;
	CH_CRASH_POINT(pollset_added);
	pollset_queue(s, static_cast<u32>(i)); // whoever waits next looks, and arms it
	return 0;
}

static void leave(ch_pollset *s, u32 i) noexcept
{
	poll_member &m = s->members[i];

	watch_free(m.o->poll->watchers(m.o), m.entry, s->parts[m.part]->me.load(relaxed)); // ours
	CH_CRASH_POINT(pollset_removing);
	give_number(s, i);
}

// All that may be asked of it.
static int check_events(const ch_object *o, u32 events) noexcept
{
	polled p[MAX_POLLED];
	u32 known = FLAGS;

	for (u32 k = 0, n = o->poll->events(o, p); k < n; k++)
		known |= p[k].mask;
	return events & ~known ? fail(-EINVAL, "poll set: a %s has no events %#x", o->kind->name, events & ~known) : 0;
}

static int usable(const ch_pollset *s, const ch_object *o) noexcept
{
	if (!s || !o)
		return fail(-EINVAL, "poll set: NULL, or nothing that could be a member");
	return s->forks == registry_forks() ? 0 : fail(-EPERM, "poll set: it is the parent's; a forked child makes its own");
}

} // namespace ch::core

using namespace ch::core;

int ch_pollset_create(const struct ch_pollset_attr *attr, struct ch_pollset **out_set)
{
	ch_pollset_attr a;
	int rc = read_attr(attr, &a, sizeof(a));

	if (rc == 0 && !out_set)
		rc = fail(-EINVAL, "poll set: out_set is NULL");
	if (rc < 0)
		return rc;
	a.max_members = a.max_members ? a.max_members : DEFAULT_MEMBERS;
	if (a.max_members > MAX_MEMBERS || a.reserved)
		return fail(-EINVAL, "poll set: max_members %u is over %u", a.max_members, MAX_MEMBERS);
	ch_pollset *s = new (std::nothrow) ch_pollset;
	if (s) {
		s->max = a.max_members;
		s->spin_ns = a.spin_ns;
		s->members = static_cast<poll_member *>(std::calloc(s->max, sizeof(*s->members)));
		s->queue = static_cast<u32 *>(std::calloc(s->max, sizeof(*s->queue)));
	}
	if (!s || !s->members || !s->queue) {
		if (s) {
			std::free(s->members);
			std::free(s->queue);
		}
		delete s;
		return fail(-ENOMEM, "poll set: no memory for %u members", a.max_members);
	}
	registry_init();
	s->forks = registry_forks();
	*out_set = s;
	return 0;
}

void ch_pollset_destroy(struct ch_pollset *s)
{
	if (!s)
		return;
	const bool is_ours = s->forks == registry_forks();
	if (is_ours) {
		s->is_ending.store(true, seq_cst); // every waiter looks after it has registered, and wakes for this
		pollset_nudge(s, EVERYBODY);
		while (s->inside.load(acquire) > 0) { // [Y8] pairs with [Y8]: they are done with the set
			sched_yield();
			pollset_nudge(s, EVERYBODY);
		}
		pollset_fd_end(s);
	}
	for (u32 i = 0; i < s->nr_used; i++) {
		ch_object *o = s->members[i].o;
		if (o && is_ours)
			leave(s, i);
		if (o)
			o->poll->leave(o);
	}
	for (u32 i = 0; i < s->nr_parts.load(relaxed); i++) // nobody else is here
		is_ours ? object_destroy(s->parts[i]) : object_detach(s->parts[i]);
	if (s->fd >= 0)
		close(s->fd);
	std::free(s->members);
	std::free(s->queue);
	delete s;
}

int ch_pollset_add_any(struct ch_pollset *s, struct ch_pollable *pollable, uint32_t events, uint64_t user_data)
{
	ch_object *o = object_of(pollable), *mine;
	int rc = usable(s, o);

	if (rc == 0)
		rc = check_events(o, events);
	if (rc == 0)
		rc = o->poll->join(o, s, &mine);
	if (rc < 0)
		return rc;
	{
		set_lock lock(s);
		rc = enter(s, mine, events, user_data);
		if (rc == 0 && s->nr_asleep > 0)
			pollset_nudge(s, 1);
	}
	if (rc < 0)
		mine->poll->leave(mine);
	return rc;
}

int ch_pollset_modify_any(struct ch_pollset *s, struct ch_pollable *pollable, uint32_t events, uint64_t user_data)
{
	const ch_object *o = object_of(pollable);
	int rc = usable(s, o);

	if (rc == 0)
		rc = check_events(o, events);
	if (rc < 0)
		return rc;
	set_lock lock(s);
	const int i = find(s, o, part_of(s, o->pool));
	if (i < 0)
		return fail(i, "poll set: the %s is no member", o->kind->name);
	s->members[i].events = events;
	s->members[i].user_data = user_data;
	s->members[i].has_fired = false;
	pollset_queue(s, static_cast<u32>(i));
	if (s->nr_asleep > 0)
		pollset_nudge(s, 1);
	return 0;
}

int ch_pollset_remove_any(struct ch_pollset *s, struct ch_pollable *pollable)
{
	ch_object *o = object_of(pollable);
	const int rc = usable(s, o);

	if (rc < 0)
		return rc;
	{
		set_lock lock(s);
		const int i = find(s, o, part_of(s, o->pool));
		if (i < 0)
			return fail(i, "poll set: the %s is no member", o->kind->name);
		o = s->members[i].o;
		leave(s, static_cast<u32>(i));
	}
	o->poll->leave(o); // under the registry lock, which is never taken before a set's
	return 0;
}

int ch_pollset_add(struct ch_pollset *s, struct ch_channel *ch, uint32_t events, uint64_t user_data)
{
	return ch_pollset_add_any(s, ch_channel_get_pollable(ch), events, user_data);
}

int ch_pollset_modify(struct ch_pollset *s, struct ch_channel *ch, uint32_t events, uint64_t user_data)
{
	return ch_pollset_modify_any(s, ch_channel_get_pollable(ch), events, user_data);
}

int ch_pollset_remove(struct ch_pollset *s, struct ch_channel *ch)
{
	return ch_pollset_remove_any(s, ch_channel_get_pollable(ch));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* world.cpp - a segment, a pool and processes without any of the kernel's. */
#include "world.h"
#include "error.h"
#include "keeper.h"
#include "peer.h"
#include <cerrno>
#include <cstdlib>

// ---- stand-ins for segment.cpp, peer.cpp, keeper.cpp, descr.cpp and error.cpp

namespace ch::core {

registry_lock::registry_lock() noexcept = default; // each thread is a process of its own
registry_lock::~registry_lock() noexcept {}        // NOLINT: not trivial, as the real one is not

static constexpr u64 FIRST_NAME = 100;

static int acting; // before a run
static int here() { return explore::me() < 0 ? acting : explore::me(); }
u64 peer_self() noexcept { return FIRST_NAME + static_cast<u64>(here()); }
// The proof of a death comes after all that the dead one did.
bool peer_is_alive(u64 id) noexcept
{
	const int thread = static_cast<int>(id - FIRST_NAME);

	if (explore::me() >= 0 && explore::is_dead(thread))
		explore::inherit(explore::me(), thread);
	return !explore::is_dead(thread);
}
__thread thread_notes own_notes __attribute__((tls_model("initial-exec")));
u32 thread_ask_tid() noexcept { return own_notes.tid = 1; } // of each process its one thread
bool thread_is_alive(u64 id, u32) noexcept { return peer_is_alive(id); }
bool deaths_are_told(const ch_segment *) noexcept { return true; }
int segment_join(ch_segment *seg) noexcept { return static_cast<int>(seg->me.load(relaxed)); }
u32 registry_forks() noexcept { return 0; }
void registry_init() noexcept {}
void registry_init_locked() noexcept {}
void segment_unref(ch_segment *) noexcept {}
int segment_read_attr(const ch_segment_attr *, ch_segment_attr &) noexcept { return -ENOSYS; }
int segment_create(const ch_segment_attr &, u64, ch_segment **) noexcept { return -ENOSYS; }
int segment_reserve(ch_segment *, u64, u64) noexcept { return 0; } // the arena is all there
void segment_remove_name(ch_segment *) noexcept {}
descr segment_descr(const ch_segment *, u8 kind, u64 offset, u64 generation) noexcept
{
	descr d{};

	d.kind = kind;
	d.offset = offset;
	d.generation = generation;
	return d;
}
void descr_seal(descr d, ch_descr *out) noexcept { __builtin_memcpy(out, &d, sizeof(d)); }
int descr_open(const ch_descr *in, descr &out) noexcept
{
	__builtin_memcpy(&out, in, sizeof(out));
	return 0;
}
int segment_attach(const descr &, u32, ch_segment **out) noexcept
{
	*out = &explore::process_of(here()).seg;
	return 0;
}
int read_attr(const void *in, void *out, u32 known) noexcept
{
	if (in)
		__builtin_memcpy(out, in, known);
	else
		__builtin_memset(out, 0, known);
	return 0;
}
int fail(int rc, const char *, ...) noexcept { return rc; }

} // namespace ch::core

using namespace ch::core;

int ch_segment_create(const struct ch_segment_attr *, struct ch_segment **) { return -ENOSYS; }
void ch_segment_destroy(struct ch_segment *) {}

namespace ch::explore {
namespace {

constexpr u32 MAX_PEERS_HERE = MAX_THREADS;
process processes[MAX_THREADS];
shape made{};
u8 image[ARENA];
u64 used;
struct place {
	u64 index, tag;
} channel, other, units;

// The arena: peer slots, pool header, page words, block words, pages.
struct geometry {
	peer_slot *peers;
	shared<u64> *used; // one word: which of them
	pool_header *pool;
	shared<u64> *pages, *words;
	u8 *data;
};

geometry lay_out(u32 nr_pages)
{
	geometry g;

	g.peers = reinterpret_cast<peer_slot *>(arena);
	g.used = reinterpret_cast<shared<u64> *>(g.peers + MAX_PEERS_HERE + 1);
	g.pool = reinterpret_cast<pool_header *>(reinterpret_cast<u8 *>(g.used) + LINE);
	g.pages = reinterpret_cast<shared<u64> *>(g.pool + 1);
	g.words = reinterpret_cast<shared<u64> *>(g.pages + nr_pages);
	const u64 end = static_cast<u64>(reinterpret_cast<u8 *>(g.words + nr_pages * WORDS_PER_PAGE) - arena);
	g.data = arena + round_up(end, PAGE);
	if (g.data + nr_pages * PAGE > plain_bytes())
		abort();
	return g;
}

void name_all(const geometry &g, u32 nr_pages)
{
	forget_names();
	name_words(&g.peers[0].id, MAX_PEERS_HERE + 1, sizeof(peer_slot), "peer");
	name_words(&g.peers[0].sweeper, MAX_PEERS_HERE + 1, sizeof(peer_slot), "sweeper");
	for (auto &h : g.peers[0].hazard)
		name_words(&h, MAX_PEERS_HERE + 1, sizeof(peer_slot), "hazard");
	name_words(g.used, 1, 8, "used");
	name_words(&g.pool->freed, 1, 8, "freed");
	name_words(&g.pool->state, 1, 8, "pool");
	name_words(&g.pool->backed, 1, 8, "backed");
	name_words(g.pages, nr_pages, 8, "page");
	name_words(g.words, nr_pages * WORDS_PER_PAGE, 8, "block");
}

void name_lane(const lane &l)
{
	name_words(&l.ends->tail, 1, 8, "tail");
	name_words(&l.ends->head, 1, 8, "head");
	name_words(l.p, l.mask + 1, 8, "p");
	name_words(l.q, l.mask + 1, 8, "q");
	name_words(&l.at(0).w, l.mask + 1, l.stride, "slot");
	name_words(&l.at(0).what, l.mask + 1, l.stride, "what");
}

void name_ring(const ring &r)
{
	name_words(object_bits(channel_kind, reinterpret_cast<u8 *>(r.h)), 1, 8, "bits");
	name_words(&r.h->not_empty, 1, 8, "not_empty");
	name_words(&r.h->not_full, 1, 8, "not_full");
	name_words(&r.h->state, 1, 8, "state");
	name_words(&r.h->sender, 1, 8, "sender");
	name_words(&r.h->receiver, 1, 8, "receiver");
	name_words(&r.h->received, 1, 8, "received");
	name_words(&r.h->urgent_not_full, 1, 8, "not_full");
	name_lane(r);
	if (r.urgent.slots)
		name_lane(r.urgent);
}

void set_up(process &p, const geometry &g, const shape &s, int i)
{
	const u32 nr_pages = s.nr_pages, nr_first = s.first_pages ? s.first_pages : nr_pages;

	p.seg.max_peers = MAX_PEERS_HERE;
	p.seg.peers = g.peers;
	p.seg.used = g.used;
	p.seg.me.store(static_cast<u32>(i) + 1, relaxed);
	p.seg.objects = {};
	p.seg.telling.store(0, relaxed); // the last run may have been cut off
	p.seg.pool.seg = &p.seg;
	p.seg.pool.hdr = g.pool;
	run_map &m = p.seg.pool.map;
	if (s.allocates) { // else there are no hints to forget
		m.~run_map();
		new (&m) run_map;
	}
	m.pages = g.pages;
	m.words = g.words;
	m.data = g.data;
	m.max_pages = nr_pages;
	m.nr_pages.store(nr_first, relaxed);
	m.backed = s.first_pages ? &g.pool->backed : nullptr;
}

template <class T> void open_handle(process &p, T &o, const object_kind &kind, const place &at)
{
	descr d{};

	o.~T();
	new (&o) T;
	d.offset = at.index;
	d.generation = at.tag;
	if (object_open(&o, &p.seg.pool, kind, d) < 0)
		abort();
	o.spin_ns.store(CH_SPIN_NEVER, relaxed);
}

place make_channel(const shape &s)
{
	ch_channel_attr a = CH_CHANNEL_ATTR_INIT;
	ch_channel *ch;

	a.capacity = s.capacity;
	a.inline_max = s.inline_max;
	a.flags = s.channel_flags;
	a.urgent_capacity = s.urgent_capacity;
	if (ch_channel_create(&processes[0].seg.pool, &a, &ch) < 0)
		abort();
	const place at{ch->block.index, ch->tag};
	name_ring(ch->r);
	processes[0].seg.objects = {};
	delete ch;
	return at;
}

place make_units()
{
	ch_semaphore *s;

	if (ch_semaphore_create(&processes[0].seg.pool, nullptr, &s) < 0)
		abort();
	const place at{s->block.index, s->tag};
	name_words(&s->v.h->word, 1, 8, "word");
	name_words(s->v.h->events, 3, 8, "event");
	processes[0].seg.objects = {};
	delete s;
	return at;
}

void make_first(shape s)
{
	const geometry g = lay_out(s.nr_pages);

	s.allocates = true; // hints of another shape are none
	__builtin_memset(arena, 0, ARENA);
	name_all(g, s.nr_pages);
	g.pool->magic = POOL_MAGIC;
	g.pool->state.store(POOL_READY, relaxed);
	g.pool->freed.v.store(0, relaxed);
	g.pool->backed.store(s.first_pages, relaxed);
	g.used->store((u64{2} << s.nr_processes) - 2, relaxed); // bits 1...nr_processes
	for (int i = 0; i < s.nr_processes; i++) {
		set_up(processes[i], g, s, i);
		g.peers[i + 1].id.store(FIRST_NAME + static_cast<u64>(i), relaxed);
	}
	channel = make_channel(s);
	if (s.has_other)
		other = make_channel(s);
	if (s.has_units)
		units = make_units();
	used = static_cast<u64>(g.data - arena) + (1 + u64{s.has_other} + s.has_units) * PAGE;
	__builtin_memcpy(image, arena, ARENA);
}

bool is_same(const shape &a, const shape &b)
{
	return !std::memcmp(&a, &b, sizeof(a));
}

} // namespace

process &process_of(int i) { return processes[i]; }
u8 *plain_bytes() { return arena + ARENA - 64; }
void act_as(int process) { acting = process; }

void make_world(const shape &s)
{
	event_always_fence = false;
	if (!is_same(s, made)) {
		__builtin_memcpy(&made, &s, sizeof(s));
		make_first(s);
	}
	__builtin_memcpy(arena, image, used);
	__builtin_memset(plain_bytes(), 0, 64);
	for (int i = 0; i < s.nr_processes; i++) {
		process &p = processes[i];
		set_up(p, lay_out(s.nr_pages), s, i);
		open_handle(p, p.ch, channel_kind, channel);
		if (s.has_other)
			open_handle(p, p.other, channel_kind, other);
		if (s.has_units)
			open_handle(p, p.units, semaphore_kind, units);
	}
}

void sweep_when_dead()
{
	u32 swept = 0;

	for (int dead; (dead = await_death(swept)) >= 0; swept |= 1u << dead)
		sweep_peer(&self().seg, static_cast<u32>(dead) + 1);
}

void require_empty_ring(const ring &r)
{
	for (u64 i = 0; i <= r.mask; i++) {
		const u64 w = r.at(i).w.load(relaxed), t = word_ticket(w), p = r.p[i].load(relaxed);
		require(slot_state_of(w) == S_EMPTY, "a slot is not empty at the end");
		require(word_ticket(r.q[i].load(relaxed)) == t, "a receive claim does not fit its slot at the end");
		require(word_ticket(p) == t || claim_owner(p) == CLOSER, "a send claim does not fit its slot at the end");
	}
	require(r.h->state.load(relaxed) < CHANNEL_RECOV_ONCE * 64, "the state word is out of its mind");
}

void require_free_pool(u64 nr_objects)
{
	const run_map &m = processes[0].seg.pool.map;
	u64 objects = 0;

	for (u64 p = 0; p < m.max_pages; p++) {
		const u64 w = m.pages[p].load(relaxed);
		require(page_kind_of(w) != PG_BUILD, "a run is half built at the end");
		if (page_kind_of(w) == PG_TAIL) {
			const u64 head = tail_dist(w) <= p ? m.pages[p - tail_dist(w)].load(relaxed) : 0;
			require(page_kind_of(head) == PG_HEAD, "a tail without a head");
		}
	}
	for_each_block(m, [&](const block_place &, u64 w) {
		const block_state st = block_state_of(w);
		objects += st == B_OBJECT;
		require(st == B_FREE || st == B_OBJECT, "a block is not free at the end");
	});
	require(objects == nr_objects, "an object too many or too few at the end");
}

} // namespace ch::explore

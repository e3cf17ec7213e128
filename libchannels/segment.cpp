// SPDX-License-Identifier: Apache-2.0
// segment.cpp - the registry of this process's mappings, and its place among the peers of each.
#include "config.h"
#include "segment.h"
#include "object.h"
#include "crash.h"
#include "error.h"
#include "event.h"
#include "keeper.h"
#include "peer.h"
#include "sweep.h"
#include <cerrno>
#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>

namespace ch::core {

// ---- registry

static pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static ch_segment *segments;
static std::atomic<u32> nr_forks;

registry_lock::registry_lock() noexcept
{
	pthread_mutex_lock(&mutex);
}

registry_lock::~registry_lock() noexcept
{
	pthread_mutex_unlock(&mutex);
}

void registry_add(ch_segment *seg) noexcept
{
	seg->next = segments;
	segments = seg;
}

ch_segment *registry_first() noexcept
{
	return segments;
}

static void fork_prepare() noexcept
{
	pthread_mutex_lock(&mutex);
}

static void fork_parent() noexcept
{
	pthread_mutex_unlock(&mutex);
}

// The child holds nothing: it is another process than the one whose index stands in the claims. It becomes a
// peer of its own at its first use.
static void fork_child() noexcept
{
	mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
	keeper_forget();
	nr_forks.fetch_add(1, relaxed); // one thread: nobody looks
	thread_forget();
	for (ch_segment *s = segments; s; s = s->next) {
		s->me.store(NOBODY, relaxed); // one thread: nobody looks
		s->telling.store(0, relaxed);
		if (s->watch_fd >= 0)
			close(s->watch_fd);
		s->watch_fd = -1;
		for (u32 i = 0; i < 1u << s->objects.lg; i++)
			for (ch_object *c = s->objects.chains()[i]; c; c = c->next)
				c->me.store(NOBODY, relaxed); // one thread: nobody looks
	}
}

void registry_init_locked() noexcept
{
	static bool is_done;

	if (is_done)
		return;
	is_done = true;
	pthread_atfork(fork_prepare, fork_parent, fork_child);
}

void registry_init() noexcept
{
	registry_lock lock;

	registry_init_locked();
}

u32 registry_forks() noexcept
{
	return nr_forks.load(relaxed); // changes only in a child with one thread
}

// ---- this process as a peer

u32 peer_after(const ch_segment *seg, u32 slot) noexcept
{
	const u32 nr = seg->max_peers / 64 + 1;
	u64 bits = seg->used[slot / 64].load(relaxed) & (~u64{0} << (slot % 64) << 1); // a picture of a moment

	for (u32 k = 0; k <= nr; k++, bits = seg->used[(slot / 64 + k) % nr].load(relaxed)) {
		const u32 i = (slot / 64 + k) % nr * 64 + static_cast<u32>(bits ? __builtin_ctzll(bits) : 0);
		if (bits && i <= seg->max_peers)
			return i;
	}
	return slot;
}

u32 peer_before(const ch_segment *seg, u32 slot) noexcept
{
	const u32 nr = seg->max_peers / 64 + 1;
	u64 bits = seg->used[slot / 64].load(relaxed) & ((u64{1} << (slot % 64)) - 1); // a picture of a moment

	for (u32 k = 0; k <= nr; k++, bits = seg->used[(slot / 64 + nr - k % nr) % nr].load(relaxed)) {
		const u32 i = (slot / 64 + nr - k % nr) % nr * 64 + 63 - static_cast<u32>(bits ? __builtin_clzll(bits) : 0);
		if (bits && i <= seg->max_peers)
			return i;
	}
	return slot;
}

static bool take_slot(ch_segment *seg, u32 i) noexcept
{
	u64 zero = 0;

	// [P1] pairs with [P2]: whoever sees the name sees a slot without leftovers of its last tenant.
	// seq_cst: see reclaim.cpp.
	if (!seg->peers[i].id.compare_exchange_strong(zero, peer_self(), seq_cst, relaxed)) {
		if (!peer_is_alive(zero))
			sweep_peer(seg, i); // it died before it set its bit, or its sweeper after taking that away
		return false;
	}
	CH_CRASH_POINT(peer_slot_taken);
	u64 by = seg->peers[i].sweeper.load(relaxed); // who swept the last tenant, and died before it took its name away
	if (by != 0 && !peer_is_alive(by))                // with it nothing of ours would ever be held: is_held
		seg->peers[i].sweeper.compare_exchange_strong(by, 0, acq_rel, relaxed); // [W1] pairs with [W2]
	seg->used[i / 64].fetch_or(u64{1} << (i % 64), seq_cst); // before we use a hazard: see for_each_peer
	return true;
}

// Begins where the last one was claimed, so that it is found at once unless nearly all are in use.
static int claim_slot(ch_segment *seg) noexcept
{
	const u32 nr = seg->max_peers / 64 + 1, start = seg->hdr->rotor.fetch_add(1, relaxed) % seg->max_peers + 1; // hint
	u64 bits = ~seg->used[start / 64].load(relaxed) & ~u64{0} << (start % 64); // the CAS decides

	for (u32 k = 0; k <= nr; k++, bits = ~seg->used[(start / 64 + k) % nr].load(relaxed))
		for (; bits; bits &= bits - 1) {
			const u32 i = (start / 64 + k) % nr * 64 + static_cast<u32>(__builtin_ctzll(bits));
			if (i >= 1 && i <= seg->max_peers && take_slot(seg, i))
				return static_cast<int>(i);
		}
	return -ENOSPC;
}

// A reclaimer that saw no living peer before we had our slot asks with RECLAIMING, and means to go on if it still
// stands there. We take it away, or are too late. seq_cst: of our slot and its RECLAIMING one sees the other.
static void answer_reclaimer(ch_segment *seg) noexcept
{
	u32 st = seg->hdr->state.load(seq_cst);

	while ((st & 0xff) == SEGMENT_RECLAIMING && !seg->hdr->state.compare_exchange_weak(st, SEGMENT_READY, seq_cst, seq_cst))
		;
}

int segment_join(ch_segment *seg) noexcept
{
	int i = static_cast<int>(seg->me.load(relaxed)); // under the lock

	if (i != NOBODY)
		return i;
	if (seg->is_read_only)
		return fail(-EPERM, "segment %s is attached read-only", seg->name);
	if (seg->hdr->pid_ns != peer_pid_namespace())
		return fail(-EPERM, "segment %s belongs to another pid namespace: share that namespace", seg->name);
	event_process_init(); // a forked child too
	keeper_start();
	i = claim_slot(seg);
	if (i == -ENOSPC) { // a dead one's place may be on its way to be free
		sweep_all(seg);
		i = claim_slot(seg);
	}
	if (i < 0)
		return fail(-ENOSPC, "segment %s: all %u peers are attached", seg->name, seg->max_peers);
	CH_CRASH_POINT(peer_claimed);
	answer_reclaimer(seg);
	seg->me.store(static_cast<u32>(i), relaxed);
	keeper_announce(seg, static_cast<u32>(i));
	CH_CRASH_POINT(peer_announced);
	return i;
}

static void segment_leave(ch_segment *seg) noexcept
{
	const u32 me = seg->me.load(relaxed); // under the lock

	if (me == NOBODY)
		return;
	sweep_self(seg);
	CH_CRASH_POINT(peer_leaving);
	seg->me.store(NOBODY, relaxed);
	keeper_announce(seg, me); // my neighbour must watch mine
}

void segment_unref(ch_segment *seg) noexcept
{
	if (--seg->refs > 0)
		return;
	segment_leave(seg);
	for (ch_segment **p = &segments; *p; p = &(*p)->next)
		if (*p == seg) {
			*p = seg->next;
			break;
		}
	if (seg->watch_fd >= 0)
		close(seg->watch_fd);
	if (seg->fd >= 0)
		close(seg->fd);
	keeper_poke();
	munmap(seg->base, seg->map_len);
	std::free(seg->objects.many);
	delete seg;
}

void segment_remove_name(ch_segment *seg) noexcept
{
	char path[32];
	u32 ready = SEGMENT_READY;

	if (seg->is_read_only)
		return;
	while (!seg->hdr->state.compare_exchange_strong(ready, SEGMENT_DESTROYED, acq_rel, relaxed))
		if ((ready & 0xff) != SEGMENT_READY && (ready & 0xff) != SEGMENT_RECLAIMING)
			return; // somebody else did; the name may be a new segment's by now
	CH_CRASH_POINT(segment_destroyed);
	segment_path(seg->id, path, sizeof(path));
	if (seg->fd < 0)
		shm_unlink(path);
}

descr segment_descr(const ch_segment *seg, u8 kind, u64 offset, u64 generation) noexcept
{
	descr d{};

	d.kind = kind;
	d.segment = seg->id;
	d.birth = seg->birth;
	d.nonce = seg->nonce;
	d.offset = offset;
	d.generation = generation;
	return d;
}

// The caller has read what may be the peer's, and asks whether it was. A sweeper writes its name before it frees anything,
// and takes it away after the peer's. So: no sweeper, and then still the peer's name: it had not begun.
static bool is_held(const peer_slot &slot, u64 id) noexcept
{
	std::atomic_thread_fence(acquire); // the caller's reads come first; whoever wrote what it read saw the sweeper's free
	return slot.sweeper.load(acquire) == 0 && slot.id.load(acquire) == id; // [W2] pairs with [W1]; [P2] with [P1]
}

} // namespace ch::core

using namespace ch::core;

void ch_segment_detach(struct ch_segment *seg)
{
	registry_lock lock;

	if (seg)
		segment_unref(seg);
}

void ch_segment_destroy(struct ch_segment *seg)
{
	registry_lock lock;

	if (!seg)
		return;
	pool_mark_destroyed(seg);
	segment_remove_name(seg);
	segment_unref(seg);
}

void *ch_segment_addr(const struct ch_segment *seg)
{
	return seg ? seg->base + seg->user_off : nullptr;
}

size_t ch_segment_len(const struct ch_segment *seg)
{
	return seg ? seg->user_len : 0;
}

int ch_segment_holds(const struct ch_segment *seg, struct ch_peer peer, int hint)
{
	if (!seg)
		return fail(-EINVAL, "segment: NULL");
	if (peer.id == 0)
		return 0;
	if (hint >= 1 && static_cast<u32>(hint) <= seg->max_peers && is_held(seg->peers[hint], peer.id))
		return hint;
	for (u32 i = 1; i <= seg->max_peers; i++)
		if (seg->peers[i].id.load(relaxed) == peer.id && is_held(seg->peers[i], peer.id)) // a look; is_held knows
			return static_cast<int>(i);
	return 0;
}

const char *ch_segment_name(const struct ch_segment *seg)
{
	return seg ? seg->name : "";
}

int ch_segment_get_descr(const struct ch_segment *seg, struct ch_descr *out_descr)
{
	if (!seg || !out_descr)
		return fail(-EINVAL, "segment: NULL");
	descr_seal(segment_descr(seg, CH_DESCR_SEGMENT, 0, 0), out_descr);
	return 0;
}

// SPDX-License-Identifier: Apache-2.0
// sync_barrier.cpp - barrier.
//
//   word      generation:32, and two bits for each of the last 16 generations, the current one's lowest: RELEASED (or,
//             of the current one, filling), CANCELED, DIED. So a late waiter learns what became of its own generation
//   table     arrivals, a word for each party: generation:32, owner:18
//   extra[0]  a hint: generation:32, how many of it have arrived:18, perhaps a few less
//   event 0   the generation is over, or broken
//
// To arrive is to put one's name into the first word that does not belong to this generation. So arrivals are counted
// and named in one step, and whoever has the last word is the last to arrive. Releasing, breaking and resetting are one
// compare-and-swap of the word; of two at a time the first counts.
#include "config.h"
#include "sync.h"

namespace ch::core {

enum outcome : u64 { RELEASED = 0, CANCELED = 1, DIED = 2, OUTCOME = 3 };

static constexpr u32 MAX_PARTIES = 65536;
static constexpr u32 GENERATIONS = 1 << 20; // that a call looks at: damaged words must not keep it for ever
static constexpr int OVER = -EALREADY; // this generation; no caller sees it

static u32 generation_of(u64 w) noexcept { return static_cast<u32>(w >> 32); }
static u64 arrival(u32 generation, u32 owner) noexcept { return u64{generation} << 32 | owner; }

static u64 next_generation(u64 w) noexcept
{
	return u64{generation_of(w) + 1} << 32 | static_cast<u32>(w << 2);
}

static int code_of(u64 w) noexcept
{
	return (w & OUTCOME) == RELEASED ? 0 : (w & OUTCOME) == DIED ? -EOWNERDEAD : -ECANCELED;
}

// What became of a generation: 0 released, -EAGAIN not yet, or how it was broken.
static int outcome_of(u64 w, u32 generation) noexcept
{
	const u32 ago = generation_of(w) - generation;

	if (ago == 0)
		return code_of(w) == 0 ? -EAGAIN : code_of(w);
	return ago < 16 ? code_of(static_cast<u32>(w) >> (2 * ago)) : 0;
}

// Breaks this generation, if it is filling. True if it did.
static bool break_it(const sync_view &v, u32 generation, outcome how) noexcept
{
	u64 w = v.h->word.load(relaxed); // the CAS looks again

	while (generation_of(w) == generation && code_of(w) == 0)
		if (v.h->word.compare_exchange_weak(w, w | how, acq_rel, relaxed)) { // [U1] pairs with [U2]
			CH_CRASH_POINT(barrier_broken);
			event_wake(v.h->events[0], EVERYBODY);
			return true;
		}
	return false;
}

static void break_for(const sync_view &v, u32 peer) noexcept
{
	const u32 generation = generation_of(v.h->word.load(acquire)); // [U2] pairs with [U1]
	const u64 its = arrival(generation, peer);

	for (u32 i = 0; i < v.nr; i++)
		if (v.table[i].load(relaxed) == its) // the dead one's do not change any more
			break_it(v, generation, DIED);
}

static void sweep(ch_segment *seg, const block_place &b, u32 dead) noexcept
{
	sync_view v;

	if (!sync_map(v, b.addr, b.len, seg->max_peers))
		return;
	if (v.flags & CH_BARRIER_MEMBERS)
		break_it(v, generation_of(v.h->word.load(acquire)), DIED); // [U2] pairs with [U1]
	else
		break_for(v, dead);
	CH_CRASH_POINT(sync_swept);
}

static void leave(ch_object *o, u32 me) noexcept
{
	break_for(static_cast<ch_barrier *>(o)->v, me);
}

const object_kind barrier_kind = sync_kind(CH_DESCR_BARRIER, "barrier", sweep, leave);

// ---- arriving

// Number of the arrival, or OVER, -EAGAIN if all have arrived and their release is under way. most: refuse to arrive
// as one that would have to wait.
static i64 arrive(const sync_view &v, u32 generation, u32 me, bool only_last) noexcept
{
	const u64 hint = v.h->extra[0].load(acquire); // [U4] pairs with [U3]: who sees the hint sees the arrivals
	u32 k = generation_of(hint) == generation ? static_cast<u32>(hint) : 0;

	for (u32 tries = 0; k < v.nr && tries < 2 * MAX_PARTIES; tries++) { // damaged words must not keep us for ever
		u64 w = v.table[k].load(acquire); // [U4] pairs with [U3]
		if (generation_of(w) == generation) {
			k++;
			continue;
		}
		if (generation_of(v.h->word.load(acquire)) != generation) // [U2] pairs with [U1]
			return OVER;
		if (only_last && k + 1 != v.nr)
			return -EAGAIN;
		if (!v.table[k].compare_exchange_strong(w, arrival(generation, me), acq_rel, relaxed)) // [U3], [U4]
			continue; // another was quicker: look again
		CH_CRASH_POINT(barrier_arrived);
		v.h->extra[0].store(u64{generation} << 32 | (k + 1), release); // [U3] pairs with [U4]
		return k;
	}
	return -EAGAIN;
}

static int wait_for_end(ch_barrier *b, u32 generation, i64 timeout_ns) noexcept
{
	const sync_view &v = b->v;
	auto attempt = [b, generation] {
		const int rc = outcome_of(b->v.h->word.load(acquire), generation); // [U2] pairs with [U1]
		return rc < 0 && sync_is_destroyed(b) ? -ESTALE : rc; // also if one that found so has left it since
	};

	return wait_until(
		b, v.h->events[0], timeout_ns, attempt, [=] { return attempt() != -EAGAIN; }, [] { return NOBODY; });
}

// The last to arrive: runs the action, lets the others go.
static int complete(ch_barrier *b, u32 generation, int (*action)(void *), void *arg) noexcept
{
	const sync_view &v = b->v;
	const int rc = action ? action(arg) : 0;

	if (rc < 0) {
		break_it(v, generation, CANCELED);
		return rc;
	}
	u64 w = v.h->word.load(relaxed); // the CAS looks again
	while (generation_of(w) == generation && code_of(w) == 0)
		if (v.h->word.compare_exchange_weak(w, next_generation(w), acq_rel, relaxed)) { // [U1] pairs with [U2]
			CH_CRASH_POINT(barrier_released);
			event_notify(v.h->events[0], EVERYBODY);
			return 0;
		}
	const int why = outcome_of(w, generation);
	return why == 0 || why == -EAGAIN ? -EPROTO : why;
}

// One try at one generation: OVER to try the next.
static int meet(ch_barrier *b, u32 me, int (*action)(void *), void *arg, i64 timeout_ns) noexcept
{
	const sync_view &v = b->v;
	const u64 w = v.h->word.load(acquire); // [U2] pairs with [U1]
	const u32 generation = generation_of(w);

	if (sync_is_destroyed(b))
		return -ESTALE;
	if (code_of(w) < 0)
		return code_of(w);
	const i64 k = arrive(v, generation, me, timeout_ns == CH_TRY);
	if (k == OVER || (k == -EAGAIN && timeout_ns == CH_TRY))
		return static_cast<int>(k);
	if (k == -EAGAIN) { // more than there are parties: the next generation's
		const int rc = wait_for_end(b, generation, timeout_ns);
		return rc == 0 ? OVER : rc;
	}
	int rc = k + 1 == v.nr ? complete(b, generation, action, arg) : wait_for_end(b, generation, timeout_ns);
	if (rc == -ETIMEDOUT && !break_it(v, generation, CANCELED)) {
		rc = outcome_of(v.h->word.load(acquire), generation); // [U2] it was over a moment before
		rc = rc == -EAGAIN ? -ETIMEDOUT : rc;
	}
	return rc == 0 ? static_cast<int>(k) : rc;
}

} // namespace ch::core

using namespace ch::core;

int ch_barrier_create(struct ch_pool *pool, const struct ch_barrier_attr *attr, struct ch_barrier **out_barrier)
{
	ch_barrier_attr a;
	const int rc = sync_attr(attr, a, CH_BARRIER_MEMBERS, "barrier");

	if (rc < 0)
		return rc;
	if (a.parties < 1 || a.parties > MAX_PARTIES)
		return fail(-EINVAL, "barrier: %u parties are not 1...%u", a.parties, MAX_PARTIES);
	// Generation 1, so that the zero words of the table are none of it.
	return sync_create(
		pool, barrier_kind, {a.flags, 0, a.spin_ns, u64{1} << 32, 0}, [=](u32) { return a.parties; }, out_barrier);
}

SYNC_LIFE(barrier)

int ch_barrier_wait(struct ch_barrier *barrier, int (*action)(void *arg), void *arg, int64_t timeout_ns)
{
	const int me = sync_me(barrier, barrier_kind);

	if (me < 0)
		return me;
	const i64 until_ns = timeout_ns == CH_TRY ? 0 : deadline_of(timeout_ns);
	int rc = OVER;
	for (u32 tries = 0; rc == OVER && tries < GENERATIONS; tries++)
		rc = meet(barrier, static_cast<u32>(me), action, arg, timeout_ns == CH_TRY ? CH_TRY : left_until(until_ns));
	rc = rc == OVER ? -EPROTO : rc;
	return rc >= 0 ? rc : sync_refuse(barrier, rc);
}

int ch_barrier_abort(struct ch_barrier *barrier)
{
	const int me = sync_usable(barrier, barrier_kind);

	if (me < 0)
		return me;
	break_it(barrier->v, generation_of(barrier->v.h->word.load(acquire)), CANCELED); // [U2] pairs with [U1]
	return 0;
}

int ch_barrier_reset(struct ch_barrier *barrier)
{
	const int me = sync_usable(barrier, barrier_kind);

	if (me < 0)
		return me;
	const sync_view &v = barrier->v;
	u64 w = v.h->word.load(acquire); // [U2] pairs with [U1]
	const u32 generation = generation_of(w);
	while (generation_of(w) == generation) { // who waits in it gets -ECANCELED, or as it was broken before
		const u64 to = next_generation(code_of(w) ? w : w | CANCELED);
		if (v.h->word.compare_exchange_weak(w, to, acq_rel, acquire)) { // [U1] pairs with [U2]
			CH_CRASH_POINT(barrier_released);
			event_wake(v.h->events[0], EVERYBODY);
			break;
		}
	}
	return 0;
}

int ch_barrier_is_broken(struct ch_barrier *barrier)
{
	const int me = sync_usable(barrier, barrier_kind);

	return me < 0 ? me : code_of(barrier->v.h->word.load(acquire)) < 0; // [U2] pairs with [U1]
}

int ch_barrier_count(struct ch_barrier *barrier)
{
	const int me = sync_usable(barrier, barrier_kind);

	if (me < 0)
		return me;
	const sync_view &v = barrier->v;
	const u64 w = v.h->word.load(acquire); // [U2] pairs with [U1]
	u32 n = 0;
	while (code_of(w) == 0 && n < v.nr && generation_of(v.table[n].load(relaxed)) == generation_of(w)) // of a moment
		n++;
	return static_cast<int>(n);
}

uint32_t ch_barrier_get_parties(const struct ch_barrier *barrier)
{
	return barrier ? barrier->v.nr : 0;
}

// SPDX-License-Identifier: Apache-2.0
// ring.h, spsc.h, batch.h, recover.cpp: what no public call can bring about by itself.
#include "../support/support.h"
#include "batch.h"
#include "spsc.h"
#include <criterion/criterion.h>
#include <memory>

using namespace ch::core;

TestSuite(ring, .timeout = WATCHDOG_S);

static constexpr u32 PEERS = 64;

// A ring in memory of its own.
struct image {
	std::unique_ptr<u8[]> bytes;
	u8 *at;
	u64 len;
	ring r;

	image(u32 nr_slots, u32 flags, u32 nr_urgent = 0)
	{
		const ring_shape shape{nr_slots, 64, nr_urgent, flags};

		len = ring_bytes(shape, PEERS);
		bytes = std::make_unique<u8[]>(len + LINE);
		at = reinterpret_cast<u8 *>(round_up(reinterpret_cast<u64>(bytes.get()), LINE));
		ring_format(r, at, shape, PEERS);
	}
};

static auto writer(u64 &next)
{
	return [&next](slot &s, u64, u64 = 0) {
		s.what.store(8, relaxed);
		std::memcpy(s.data, &next, 8);
		next++;
	};
}

static auto reader(u64 &got)
{
	return [&got](const slot &s, u64, u64 = 0) {
		std::memcpy(&got, s.data, 8);
		return i64{0};
	};
}

static verdict take_all(const slot &, u64, u64 = 0)
{
	return verdict::take;
}

// The next message that peer 1 receives; -1: none.
static i64 receive(image &i)
{
	u64 got = 0;
	i64 rc = ring_consume_recovered(
		i.r, 1, -1, [](const slot &s, u64 t) { return take_all(s, t); }, reader(got));

	if (rc == -EAGAIN)
		rc = ring_consume(
			i.r, 1, -1, [](const slot &s, u64 t) { return take_all(s, t); }, reader(got));
	return rc == 0 ? static_cast<i64>(got) : -1;
}

Test(ring, a_role_is_taken_over_where_it_was_left)
{
	u64 seed = test_seed();

	for (u32 n : {1u, 4u, 16u}) {
		image i(n, CH_CHANNEL_SPSC);
		u64 next = 0, got = 0, expected = 0;
		i64 rc = 0;

		for (int round = 0; round < 500; round++) {
			ring other;

			spsc_push(i.r, rnd(&seed) % (n + 2), writer(next));
			expected += spsc_pop(i.r, rnd(&seed) % (n + 2), &rc, take_all, reader(got));
			cr_assert(ring_open(other, i.at, i.len, PEERS));
			spsc_begin_sending(other);
			spsc_begin_receiving(other);
			cr_assert_eq(other.send_at.load(), i.r.send_at.load());
			cr_assert_eq(other.recv_at.load(), i.r.recv_at.load());
			cr_assert_eq(ring_count(other), next - expected);
			cr_assert_eq(ring_has_room(other), next - expected < n);
			cr_assert_eq(ring_has_message(other), next > expected);
			cr_assert(expected == 0 || got == expected - 1);
		}
	}
}

Test(ring, claims_of_a_dead_sender_of_a_batch_become_tombstones)
{
	image i(8, 0);
	const run_map none;
	u64 first = 0, next = 0;

	cr_assert_eq(ring_claim_sends(i.r, 7, 5, &first), 5);
	for (u64 t : {first, first + TICKET}) {
		writer(next)(i.r.of(t), t);
		i.r.of(t).w.store(t | S_FULL, release);
	}
	i.r.send_at.store(first + 5 * TICKET);
	next = 10;
	cr_assert_eq(ring_publish_many(i.r, 2, 3, writer(next)), 3);
	cr_assert_eq(receive(i), 0);
	cr_assert_eq(receive(i), 1);
	cr_assert_eq(receive(i), -1, "a claim is in the way");
	cr_assert_eq(ring_blocker_of_recv(i.r), 7);
	ring_sweep(i.r, none, 7);
	for (int k = 10; k < 13; k++)
		cr_assert_eq(receive(i), k);
	cr_assert_eq(receive(i), -1);
}

Test(ring, the_place_of_a_dead_sender_is_no_message)
{
	image i(8, 0);
	const run_map none;
	u64 first = 0, next = 0;

	cr_assert_eq(ring_publish_many(i.r, 2, 1, writer(next)), 1);
	cr_assert_eq(ring_claim_sends(i.r, 7, 3, &first), 3);
	ring_sweep(i.r, none, 7);
	cr_assert_eq(receive(i), 0);
	cr_assert(!ring_has_message(i.r));
	cr_assert_eq(ring_count(i.r), 0, "nobody has stepped over them yet");
	cr_assert_eq(receive(i), -1);
	cr_assert_eq(ring_count(i.r), 0);
}

Test(ring, claims_of_a_dead_receiver_of_a_batch_are_offered_again)
{
	image i(8, 0);
	const run_map none;
	u64 first = 0, next = 0;

	cr_assert_eq(ring_publish_many(i.r, 2, 6, writer(next)), 6);
	cr_assert_eq(ring_claim_receives(i.r, 7, 4, &first, take_all), 4);
	i.r.of(first).w.store((first + i.r.lap) | S_EMPTY, release);
	i.r.recv_at.store(first + 4 * TICKET);
	cr_assert_eq(receive(i), 4);
	ring_sweep(i.r, none, 7);
	for (int k : {1, 2, 3, 5})
		cr_assert_eq(receive(i), k, "the left ones first");
	cr_assert_eq(receive(i), -1);
	cr_assert(!needs_a_look(i.r.h->state.load()));
}

Test(ring, what_a_dead_one_offered_is_announced_by_its_sweeper)
{
	image i(4, CH_CHANNEL_ACKNOWLEDGED);
	const run_map none;
	u64 first = 0, next = 0;

	cr_assert_eq(ring_publish_many(i.r, 2, 1, writer(next)), 1);
	cr_assert_eq(ring_claim_receives(i.r, 7, 1, &first, take_all), 1);
	// As ring_requeue does, up to its death.
	i.r.of(first).w.store(first | S_RECOV, release);
	i.r.q[0].store((first + i.r.lap) | NOBODY, release);
	i.r.recv_at.store(first + TICKET);
	cr_assert(!needs_a_look(i.r.h->state.load()));
	ring_sweep(i.r, none, 7);
	cr_assert(i.r.h->state.load() & CHANNEL_RECOV);
	cr_assert_eq(receive(i), 0);
}

Test(ring, the_mark_goes_while_a_left_message_is_held)
{
	image i(4, CH_CHANNEL_ACKNOWLEDGED);
	u64 first = 0, next = 0, t;
	lane *l;

	cr_assert_eq(ring_publish_many(i.r, 2, 1, writer(next)), 1);
	cr_assert_eq(ring_claim_receives(i.r, 7, 1, &first, take_all), 1);
	ring_requeue(i.r, first);
	cr_assert(ring_find_recovered(i.r, l, t));
	cr_assert(ring_claim_recovered(*l, t, 7));
	cr_assert(!ring_find_recovered(i.r, l, t));
	cr_assert(!needs_a_look(i.r.h->state.load()), "others need not look for it");
	cr_assert(ring_has_unreleased(i.r));
	ring_requeue(i.r, first);
	cr_assert_eq(receive(i), 0);
	cr_assert(!ring_has_unreleased(i.r));
}

Test(ring, the_end_of_an_spsc_channel_is_decided_once)
{
	for (int first = 0; first < 2; first++) {
		image i(4, CH_CHANNEL_SPSC);
		u64 next = 0, got = 0;
		i64 rc = 0;

		cr_assert_eq(spsc_push(i.r, 1, writer(next)), 1);
		cr_assert_eq(spsc_pop(i.r, 1, &rc, take_all, reader(got)), 1);
		i.r.h->state.fetch_or(CHANNEL_CLOSING);
		if (first == 0) { // the receiver finds nothing; a sender that was on its way comes too late
			cr_assert_eq(spsc_seal(i.r, i.r.recv_at.load()), -EPIPE);
			cr_assert_eq(spsc_push(i.r, 2, writer(next)), -EPIPE);
			cr_assert_eq(slot_state_of(i.r.of(TICKET).w.load()), S_EMPTY);
		} else { // the sender's message is the last
			cr_assert_eq(spsc_push(i.r, 2, writer(next)), 2);
			cr_assert_eq(spsc_seal(i.r, i.r.recv_at.load()), RING_AGAIN);
			cr_assert_eq(spsc_pop(i.r, 4, &rc, take_all, reader(got)), 2);
			cr_assert_eq(spsc_seal(i.r, i.r.recv_at.load()), -EPIPE);
		}
		cr_assert_eq(ring_count(i.r), 0);
	}
}

Test(ring, unsound_shapes_are_refused)
{
	image good(4, 0, 2);
	ring r;

	cr_assert(ring_open(r, good.at, good.len, PEERS));
	cr_assert(!ring_open(r, good.at, good.len - 1, PEERS));
	for (u32 flags : {u32{CH_CHANNEL_SPSC}, u32{CH_CHANNEL_HANGS_UP}, 1u << 20}) {
		good.r.h->flags = flags;
		cr_assert(!ring_open(r, good.at, good.len, PEERS), "%#x, with an urgent lane", flags);
	}
	good.r.h->flags = 0;
	good.r.h->nr_urgent = 3;
	cr_assert(!ring_open(r, good.at, good.len, PEERS));
	good.r.h->nr_urgent = 2;
	good.r.h->stride = 96;
	cr_assert(!ring_open(r, good.at, good.len, PEERS));
}

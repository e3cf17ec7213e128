/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kinds_scenarios.cpp - channels with one sender and one receiver, acknowledged ones, batches, poll sets, and peers whose
 * index was another's.
 */
#include "evidence.h"
#include "peer.h"
#include "scenarios.h"
#include <cerrno>
#include <channels/pollset.h>


namespace ch::explore {
namespace {

void begin_polled()
{
	make_world({.nr_processes = 3, .capacity = 2, .nr_pages = 4, .allocates = true});
	forget_evidence();
}

void begin_units()
{
	make_world({.nr_processes = 3, .capacity = 2, .nr_pages = 5, .allocates = true, .has_units = true});
	forget_evidence();
}

void end_units()
{
	require(ch_semaphore_get_value(&process_of(0).units) == 0, "a unit is left");
	require_free_pool(2);
}

void until_closed(step what)
{
	int rc;

	while ((rc = what(&self().ch, CH_FOREVER)) == 0)
		;
	require(rc == -EPIPE, "a call failed");
}

void some_or_closed(step what, int n)
{
	for (int i = 0, rc = 0; i < n && rc == 0; i++) {
		rc = what(&self().ch, CH_FOREVER);
		require(rc == 0 || rc == -EPIPE, "a call failed");
	}
}

// Takes a role that another may still have.
void bind(u32 role)
{
	int rc;

	while ((rc = ch_channel_bind(&self().ch, role)) == -EBUSY)
		pause();
	require(rc == 0, "no role");
}

ch_pollset *poll_set_of(u32 events)
{
	ch_pollset_attr attr = CH_POLLSET_ATTR_INIT;
	ch_pollset *set = nullptr;

	attr.max_members = 1;
	attr.spin_ns = CH_SPIN_NEVER;
	require(ch_pollset_create(&attr, &set) == 0 && ch_pollset_add(set, &self().ch, events, 1) == 0, "no poll set");
	return set;
}

// Receives n messages, told of each by a poll set.
void poll_in(int n, u32 events)
{
	ch_pollset *set = poll_set_of(events);
	ch_poll_event e;

	while (n > 0) {
		require(ch_pollset_wait(set, &e, 1, CH_FOREVER) == 1 && (e.events & CH_POLL_IN), "a wait failed");
		int rc = 0;
		for (; n > 0 && (rc = receive_one(&self().ch, CH_TRY)) == 0; n--)
			;
		require(rc == 0 || rc == -EAGAIN, "a receive failed");
	}
	ch_pollset_destroy(set);
}

void give_units(int n)
{
	while (n-- > 0)
		require(ch_semaphore_release(&self().units, 1) == 0, "a release failed");
}

// Takes n units, told of each by a poll set.
void poll_units(int n, u32 events)
{
	ch_pollset_attr attr = CH_POLLSET_ATTR_INIT;
	ch_pollset *set = nullptr;
	ch_poll_event e;

	attr.max_members = 1;
	attr.spin_ns = CH_SPIN_NEVER;
	require(ch_pollset_create(&attr, &set) == 0 &&
			ch_pollset_add_any(set, ch_semaphore_get_pollable(&self().units), events, 1) == 0,
		"no poll set");
	while (n > 0) {
		require(ch_pollset_wait(set, &e, 1, CH_FOREVER) == 1 && e.events == CH_POLL_IN, "a wait failed");
		for (; n > 0 && ch_semaphore_acquire(&self().units, 1, CH_TRY) == 0; n--)
			;
	}
	ch_pollset_destroy(set);
}

void poll_out(int n)
{
	ch_pollset *set = poll_set_of(CH_POLL_OUT);
	ch_poll_event e;

	while (n > 0) {
		require(ch_pollset_wait(set, &e, 1, CH_FOREVER) == 1 && (e.events & CH_POLL_OUT), "a wait failed");
		n -= send_one(&self().ch, CH_TRY) == 0;
	}
	ch_pollset_destroy(set);
}

// A newcomer that gets the index of the dead process 0, as segment_join does it, and attaches.
void take_index_of_the_dead()
{
	shared<u64> &id = self().seg.peers[1].id;

	for (u64 zero = 0; !id.compare_exchange_strong(zero, peer_self(), acq_rel, relaxed); zero = 0)
		pause();
	self().seg.used[0].fetch_or(2, seq_cst);
	self().seg.me.store(1, relaxed);
	descr d{};
	d.offset = self().ch.block.index;
	d.generation = self().ch.tag;
	require(object_open(&self().ch, &self().seg.pool, channel_kind, d) == 0, "cannot attach");
	self().ch.spin_ns.store(CH_SPIN_NEVER, relaxed);
}

constexpr bounds usual{.preemptions = 2, .stale = 1}, one{.preemptions = 1, .stale = 1, .deaths = 1};
constexpr u32 SPSC = CH_CHANNEL_SPSC, ACK = CH_CHANNEL_ACKNOWLEDGED;

const scenario list[] = {
	{"SPSC: two laps", 2, usual, begin<SPSC>, [](int i) { some(i == 0 ? send_one : receive_one, 5); }, end_drained},
	{"SPSC: one slot", 2, usual, begin<SPSC, 1>, [](int i) { some(i == 0 ? send_one : receive_one, 3); }, end_drained},
	{"SPSC: blocks", 2, usual, begin<SPSC>, [](int i) { some(i == 0 ? send_block_of : receive_block_of, 3); },
	 end_drained},
	{"SPSC: batches", 2, usual, begin<SPSC>, [](int i) { i == 0 ? batch_out(4) : batch_in(4); }, end_drained},
	{"SPSC: close behind the last message", 2, usual, begin<SPSC>,
	 [](int i) {
		 if (i == 1)
			 return until_closed(receive_one);
		 some(send_one, 2);
		 close_it();
	 },
	 end_drained},
	{"SPSC: close against send and receive", 3, usual, begin<SPSC>,
	 [](int i) {
		 if (i == 2)
			 return close_it();
		 i == 0 ? some_or_closed(send_one, 3) : until_closed(receive_one);
	 },
	 end_drained},
	{"SPSC: the sender hands its role over", 3, usual, begin<SPSC>,
	 [](int i) {
		 if (i == 2)
			 return some(receive_one, 3);
		 bind(CH_ROLE_SENDER);
		 some(send_one, i + 1);
		 require(ch_channel_unbind(&self().ch, CH_ROLE_SENDER) == 0, "cannot give the role up");
	 },
	 end_drained},
	{"SPSC: the receiver hands its role over", 3, usual, begin<SPSC>,
	 [](int i) {
		 if (i == 2)
			 return some(send_one, 3);
		 bind(CH_ROLE_RECEIVER);
		 some(receive_one, i + 1);
		 require(ch_channel_unbind(&self().ch, CH_ROLE_RECEIVER) == 0, "cannot give the role up");
	 },
	 end_drained},
	{"SPSC: the sender dies, another follows", 3, one, begin<SPSC>,
	 [](int i) {
		 if (i == 0)
			 return some(send_block_of, 2);
		 if (i == 1)
			 return until_closed(receive_block_of);
		 sweep_when_dead();
		 if (is_dead(0))
			 some(send_block_of, 1);
		 close_it();
	 },
	 end_drained, 1},
	{"SPSC: the receiver dies, another follows", 3, one, begin<SPSC>,
	 [](int i) {
		 if (i == 0)
			 return until_closed(receive_block_of);
		 if (i == 1) {
			 some(send_block_of, 2);
			 return close_it();
		 }
		 sweep_when_dead();
		 if (is_dead(0))
			 until_closed(receive_block_of);
	 },
	 end_drained, 1},
	{"acknowledged: two receivers", 3, usual, begin<ACK>,
	 [](int i) { i == 0 ? some(send_block_of, 2) : some(receive_block_of, 1); }, end_drained},
	{"acknowledged: a receiver dies, another gets it", 3, one, begin<ACK>,
	 [](int i) {
		 if (i == 0)
			 return until_closed(receive_block_of);
		 if (i == 1)
			 return until_closed(receive_block_of);
		 some(send_block_of, 1);
		 close_it();
		 sweep_when_dead();
		 until_closed(receive_block_of);
	 },
	 end_drained, 1},
	{"batches, one sender, two receivers", 3, usual, begin<0>,
	 [](int i) { i == 0 ? batch_out(3) : batch_in(i); }, end_drained},
	{"poll set: told of messages", 2, usual, begin_polled,
	 [](int i) { i == 0 ? some(send_one, 3) : poll_in(3, CH_POLL_IN); },
	 end_drained},
	{"poll set: told of changes", 2, usual, begin_polled,
	 [](int i) { i == 0 ? some(send_one, 3) : poll_in(3, CH_POLL_IN | CH_POLL_EDGE); }, end_drained},
	{"poll set: told of room", 2, usual, begin_polled, [](int i) { i == 0 ? poll_out(4) : some(receive_one, 4); },
	 end_drained},
	{"poll set: told of units", 2, usual, begin_units, [](int i) { i == 0 ? give_units(3) : poll_units(3, CH_POLL_IN); },
	 end_units},
	{"poll set: told of units by edges, by two", 3, usual, begin_units,
	 [](int i) { i < 2 ? give_units(i + 1) : poll_units(3, CH_POLL_IN | CH_POLL_EDGE); }, end_units},
	{"poll sets at both ends", 2, usual, begin_polled, [](int i) { i == 0 ? poll_out(3) : poll_in(3, CH_POLL_IN); },
	 end_drained},
	{"the index of a dead process has a new tenant", 4, one, begin<0>,
	 [](int i) {
		 if (i == 0)
			 return some(send_one, 1);
		 if (i < 3)
			 return sweep_when_dead();
		 if (await_death(0) < 0)
			 return;
		 take_index_of_the_dead();
		 some(send_one, 1);
		 while (got_from(3) < 1)
			 some(receive_one, 1);
	 },
	 end_delivered, 1},
	{"one slot, two senders, many laps", 3, usual, begin<0, 1>,
	 [](int i) { i == 2 ? some(receive_one, 4) : some(send_one, i == 0 ? 3 : 1); }, end_drained},
	{"one slot, two receivers, many laps", 3, usual, begin<0, 1>,
	 [](int i) { i == 2 ? some(send_one, 4) : some(receive_one, i == 0 ? 3 : 1); }, end_drained},
	{"one slot, a receiver dies, many laps", 4, one, begin<0, 1>,
	 [](int i) {
		 if (i < 2)
			 return until_closed(receive_one);
		 if (i == 3)
			 return sweep_when_dead();
		 some(send_one, 3);
		 close_it();
		 sweep_when_dead();
		 until_closed(receive_one);
	 },
	 end_drained, 1},
};

} // namespace

std::vector<scenario> kinds_scenarios()
{
	return {std::begin(list), std::end(list)};
}

} // namespace ch::explore

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * death_scenarios.cpp - a process that ends for ever before any of its steps, and others who go on, one of whom sweeps it.
 * Whoever is not to wait for ever for a message that never comes is ended by a close, which the sweeper makes.
 */
#include "evidence.h"
#include "scenarios.h"
#include <cerrno>

namespace ch::explore {
namespace {

void begin()
{
	make_world({.nr_processes = 4});
	forget_evidence();
}

void begin_blocks()
{
	make_world({.nr_processes = 4, .nr_pages = 4, .allocates = true});
	forget_evidence();
}

void begin_ending()
{
	make_world({.nr_processes = 4, .channel_flags = CH_CHANNEL_ENDS_WITH_CREATOR});
	forget_evidence();
}

// Nobody was left to receive: what lies in the channel may stay there.
void end_swept()
{
	require_delivery(false);
	for (int i = 0; i < MAX_THREADS; i++)
		if (is_dead(i))
			require(process_of(0).seg.peers[i + 1].id.load(relaxed) == 0, "a dead process was not swept");
	for_each_block(process_of(0).seg.pool.map, [](const block_place &, u64 w) {
		for (u32 i = 0; i < MAX_THREADS; i++)
			require(!is_dead(static_cast<int>(i)) || block_owner(w) != i + 1, "a block is still a dead process's");
	});
}

void sweep_then_close()
{
	sweep_when_dead();
	require(ch_channel_close(&self().ch) == 0, "close failed");
}

void close_then_sweep()
{
	require(ch_channel_close(&self().ch) == 0, "close failed");
	sweep_when_dead();
}

void die_or_live()
{
	self().ch.r.h->state.load(relaxed);
}

void some_or_closed(step what, int n)
{
	for (int i = 0, rc = 0; i < n && rc == 0; i++) {
		rc = what(&self().ch, CH_FOREVER);
		require(rc == 0 || rc == -EPIPE, "a call failed");
	}
}

void until_closed(step what)
{
	int rc;

	while ((rc = what(&self().ch, CH_FOREVER)) == 0)
		;
	require(rc == -EPIPE, "a call failed");
}

constexpr bounds one{.preemptions = 1, .stale = 1, .deaths = 1};

const scenario list[] = {
	{"a sender dies", 3, one, begin,
	 [](int i) {
		 if (i == 0)
			 return some(send_one, 2);
		 i == 1 ? until_closed(receive_one) : sweep_then_close();
	 },
	 end_drained, 1},
	{"a sender dies, another goes on", 4, one, begin,
	 [](int i) {
		 if (i == 0)
			 return some(send_one, 1);
		 if (i == 1)
			 return some(send_one, 2);
		 if (i == 3)
			 return sweep_when_dead();
		 while (got_from(1) < 2)
			 some(receive_one, 1);
		 sweep_then_close();
		 until_closed(receive_one);
	 },
	 end_drained, 1},
	{"a sender of blocks dies", 3, one, begin_blocks,
	 [](int i) {
		 if (i == 0)
			 return some(send_block_of, 2);
		 i == 1 ? until_closed(receive_block_of) : sweep_then_close();
	 },
	 end_drained, 1},
	{"a receiver dies", 3, one, begin,
	 [](int i) {
		 if (i < 2)
			 return until_closed(receive_one);
		 some(send_one, 2);
		 close_then_sweep();
		 until_closed(receive_one);
	 },
	 end_drained, 1},
	{"a receiver of blocks dies", 3, one, begin_blocks,
	 [](int i) {
		 if (i < 2)
			 return until_closed(receive_block_of);
		 some(send_block_of, 2);
		 close_then_sweep();
		 until_closed(receive_block_of);
	 },
	 end_drained, 1},
	{"the only receiver dies, another comes", 3, one, begin,
	 [](int i) {
		 if (i == 0)
			 return some(receive_one, 2);
		 if (i == 1)
			 return some_or_closed(send_one, 2);
		 sweep_then_close();
		 until_closed(receive_one);
	 },
	 end_drained, 1},
	{"two sweep one dead sender", 3, one, begin_blocks,
	 [](int i) { i == 0 ? some(send_block_of, 2) : sweep_when_dead(); }, end_swept, 1},
	{"two sweep one dead receiver", 3, one,
	 [] {
		 begin_blocks();
		 const u64 m = 1;
		 seen.tried[0] = seen.sent[0] = 1;
		 ch_channel_send(&process_of(0).ch, &m, sizeof(m), CH_TRY);
	 },
	 [](int i) {
		 if (i > 0)
			 return sweep_when_dead();
		 require(receive_one(&self().ch, CH_TRY) <= 0, "a receive failed");
	 },
	 end_swept, 1},
	{"a sweeper dies too", 3, {.preemptions = 0, .stale = 1, .deaths = 2}, begin_blocks,
	 [](int i) { i == 0 ? some(send_block_of, 1) : sweep_when_dead(); }, end_swept, 3},
	{"a sweeper dies at any step", 3, {.preemptions = 1, .stale = 0, .deaths = 2}, begin,
	 [](int i) { i == 0 ? die_or_live() : sweep_when_dead(); }, end_swept, 3},
	{"two sweepers die at any step", 4, {.preemptions = 1, .stale = 0, .deaths = 3}, begin,
	 [](int i) { i == 0 ? die_or_live() : sweep_when_dead(); }, end_swept, 7},
	{"a channel ends with its creator", 3, one, begin_ending,
	 [](int i) {
		 if (i == 2)
			 return sweep_when_dead();
		 for (int k = 0, rc = 0; k < 2 && rc == 0; k++) {
			 rc = i == 0 ? send_one(&self().ch, CH_FOREVER) : receive_one(&self().ch, CH_FOREVER);
			 require(rc == 0 || rc == -ESTALE, "a call failed");
		 }
	 },
	 end_swept, 1},
	{"who waits behind a dead claim sweeps it", 2, {.preemptions = 1, .stale = 1, .deaths = 1}, begin,
	 [](int i) {
		 if (i == 0)
			 return some(send_one, 1);
		 sweep_peer(&self().seg, 1); // or not: it lives, or dies later
		 until_closed([](ch_channel *ch, i64) {
			 const int rc = receive_one(ch, 1000000);
			 if (rc == -ETIMEDOUT && is_dead(0))
				 ch_channel_close(ch);
			 return rc == -ETIMEDOUT ? (is_dead(0) || seen.nr_got[1] ? -EPIPE : 0) : rc ? rc : -EPIPE;
		 });
		 sweep_when_dead();
	 },
	 end_swept, 1, true, true},
};

} // namespace

std::vector<scenario> death_scenarios()
{
	return {std::begin(list), std::end(list)};
}

} // namespace ch::explore

/* SPDX-License-Identifier: Apache-2.0 */
/* evidence.h - who sent what and who got what in a run, and what must hold of it. */
#pragma once
#include "world.h"

namespace ch::explore {

// A message is sender * 16 + its number, from 1 on.
constexpr int MAX_MESSAGES = 8;

struct evidence {
	int sent[MAX_THREADS];                  // sends that returned 0
	int tried[MAX_THREADS];                 // and that were begun
	u64 got[MAX_THREADS][2 * MAX_MESSAGES]; // what each thread received, in order
	int nr_got[MAX_THREADS];
	u64 in_hand[MAX_THREADS]; // what a receive may have brought when the thread died
};
extern evidence seen;

void forget_evidence();
int send_one(ch_channel *ch, i64 timeout_ns);        // returns what ch_channel_send returns
int send_with(ch_channel *ch, const ch_send_attr &a, i64 timeout_ns);
int send_block_of(ch_channel *ch, i64 timeout_ns);   // the same with claim and commit
int receive_one(ch_channel *ch, i64 timeout_ns);     // 0 or what ch_channel_recv returns
int receive_block_of(ch_channel *ch, i64 timeout_ns); // with take and release
void received(u64 m);                                 // for other ways: what in_hand was is got

using step = int (*)(ch_channel *, i64);
void some(step what, int n); // n times, of which none may fail
void close_it();
void batch_out(u32 n); // n messages in as few batches as there is room for
void batch_in(int n);

int got_from(int sender); // how many messages of it this thread has received

// Nothing twice, nothing that nobody sent, in order for each sender and receiver; nothing lost but what a dead receiver had
// in hand. With is_drained: what was sent was received.
void require_delivery(bool is_drained);

// How scenarios of a channel begin and end.
template <u32 flags, u32 capacity = 2, u32 urgent = 0> void begin()
{
	make_world({.nr_processes = 4, .capacity = capacity, .nr_pages = 4, .allocates = true, .channel_flags = flags,
		    .urgent_capacity = urgent});
	forget_evidence();
}
void end_drained();   // all was received, and nothing is held
void end_delivered(); // what was received is right, and the rest may lie in the channel

} // namespace ch::explore

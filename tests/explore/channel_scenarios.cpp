/* SPDX-License-Identifier: Apache-2.0 */
/* channel_scenarios.cpp - senders and receivers of one channel that all live. */
#include "evidence.h"
#include "scenarios.h"
#include <cerrno>

namespace ch::explore {
namespace {

void begin()
{
	make_world({.nr_processes = 3});
	forget_evidence();
}

void begin_blocks()
{
	make_world({.nr_processes = 2, .allocates = true});
	forget_evidence();
}

void send_some(int n)
{
	for (int i = 0; i < n; i++)
		require(send_one(&self().ch, CH_FOREVER) == 0, "a send failed");
}

void send_blocks(int n)
{
	for (int i = 0; i < n; i++)
		require(send_block_of(&self().ch, CH_FOREVER) == 0, "a send failed");
}

void receive_some(int n)
{
	for (int i = 0; i < n; i++)
		require(receive_one(&self().ch, CH_FOREVER) == 0, "a receive failed");
}

void receive_blocks(int n)
{
	for (int i = 0; i < n; i++)
		require(receive_block_of(&self().ch, CH_FOREVER) == 0, "a receive failed");
}

void close_channel()
{
	require(ch_channel_close(&self().ch) == 0, "close failed");
}

void receive_until_closed()
{
	int rc;

	while ((rc = receive_one(&self().ch, CH_FOREVER)) == 0)
		;
	require(rc == -EPIPE, "a receive failed");
}

const scenario list[] = {
	{"one sender, one receiver, three laps", 2, {.preemptions = 2, .stale = 1}, begin,
	 [](int i) { i == 0 ? send_some(5) : receive_some(5); }, end_drained},
	{"blocks, one sender, one receiver", 2, {.preemptions = 2, .stale = 1}, begin_blocks,
	 [](int i) { i == 0 ? send_blocks(3) : receive_blocks(3); }, end_drained},
	{"two senders, one receiver", 3, {.preemptions = 2, .stale = 1}, begin,
	 [](int i) { i < 2 ? send_some(i + 1) : receive_some(3); }, end_drained},
	{"one sender, two receivers", 3, {.preemptions = 2, .stale = 1}, begin,
	 [](int i) { i == 0 ? send_some(3) : receive_some(i); }, end_drained},
	{"close behind the last message, two receivers", 3, {.preemptions = 2, .stale = 1}, begin,
	 [](int i) {
		 if (i > 0)
			 return receive_until_closed();
		 send_some(2);
		 close_channel();
	 },
	 end_drained},
	{"close against send and receive", 3, {.preemptions = 2, .stale = 1}, begin,
	 [](int i) {
		 if (i == 0)
			 return close_channel();
		 if (i == 1)
			 return receive_until_closed();
		 for (int k = 0, rc = 0; k < 3 && rc == 0; k++) {
			 rc = send_one(&self().ch, CH_FOREVER);
			 require(rc == 0 || rc == -EPIPE, "a send failed");
		 }
	 },
	 end_drained},
	{"try to send, try to receive", 2, {.preemptions = 3, .stale = 2}, begin,
	 [](int i) {
		 for (int k = 0, rc; k < 4; k += rc == 0) {
			 rc = i == 0 ? send_one(&self().ch, CH_TRY) : receive_one(&self().ch, CH_TRY);
			 require(rc == 0 || rc == -EAGAIN, "neither done nor to be tried again");
			 if (rc < 0)
				 pause();
		 }
	 },
	 end_drained},
};

} // namespace

std::vector<scenario> channel_scenarios()
{
	return {std::begin(list), std::end(list)};
}

} // namespace ch::explore

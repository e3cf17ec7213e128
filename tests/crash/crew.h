/* SPDX-License-Identifier: Apache-2.0 */
/* crew.h - what the parts of a child of the kill test share. */
#ifndef TESTS_CREW_H
#define TESTS_CREW_H
#include "evidence.h"
#include "poller.h"

namespace torture {

extern stage_set the;
extern child *self;
extern uint64_t rs;
extern const char *in_call; /* for fail() */

inline constexpr int64_t PATIENCE = 10000 * MS; /* a call that takes longer hangs: progress never stops that long */

/* What was sent and what was received counts from here on. */
void begin_receiving(int stage);
void account(message_id id, const void *data, size_t len, uint32_t flags, stage then = IDLE);

/* Whether this incarnation of a producer sends urgent messages, and no others. */
inline bool is_urgent(uint32_t who)
{
	return the.ev->what == kind::mixed && who % 3 == 0;
}

/* The ways of each kind of channel (ways.cpp). Sends messages from id on, at most nr; how many, or an error. */
int send_some(struct ch_channel *ch, message_id id, uint32_t nr, poller &by_set);
/* Receives one or more. 0 or an error. */
int receive_some(struct ch_channel *ch, int64_t timeout);

} // namespace torture
#endif

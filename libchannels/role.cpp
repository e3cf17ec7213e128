// SPDX-License-Identifier: Apache-2.0
// role.cpp - the roles of a channel with one sender and one receiver: taking them, giving them up. See channel.h.
#include "config.h"
#include "channel.h"
#include "error.h"
#include "peer.h"
#include "sweep.h"
#include <cerrno>
#include <ctime>

namespace ch::core {

__thread char thread_mark __attribute__((tls_model("initial-exec")));

static constexpr u64 LEFT_FLAGS[] = {CHANNEL_SENDER_LEFT, CHANNEL_RECEIVER_LEFT};
static constexpr u64 DIED_FLAGS[] = {CHANNEL_SENDER_DIED, CHANNEL_RECEIVER_DIED};
static constexpr const char *NAMES[] = {"sender", "receiver"};

static shared<u64> &role_word(const ch_channel *ch, u32 which) noexcept
{
	return which == SENDER ? ch->r.h->sender : ch->r.h->receiver;
}

static constexpr int PATIENCE = 50; // looks at a dead one's role while another process sweeps it, 0.1 ms apart

// True if it may be free soon: who has it is dead.
static bool is_widowed(ch_channel *ch, u32 owner, int n) noexcept
{
	ch_segment *seg = ch->pool->seg;
	const u64 id = peer_of(seg, owner);
	const timespec nap{0, 100000};

	if (n == PATIENCE || (id != 0 && peer_is_alive(id)))
		return false;
	if (n > 0)
		nanosleep(&nap, nullptr);
	sweep_peer(seg, owner);
	return true;
}

static int take_word(ch_channel *ch, role which, u32 me) noexcept
{
	shared<u64> &word = role_word(ch, which);
	u64 x = word.load(acquire); // [T2] pairs with [T1]: here, below, and in recover.cpp

	for (int n = 0;; n++) {
		// [T1] pairs with [T2]: we see what the last one to have the role did.
		while (x == 0 || (x & ROLE_OFFERED))
			if (word.compare_exchange_weak(x, me, acq_rel, acquire))
				return 0;
		if (x == me || !is_widowed(ch, static_cast<u32>(x), n))
			return fail(-EBUSY, "channel: the role of the %s is another %s's", NAMES[which],
				    x == me ? "thread's or handle" : "process");
		x = word.load(acquire); // [T2]
	}
}

int role_bind(ch_channel *ch, role which) noexcept
{
	const int me = channel_me(ch);

	if (me < 0)
		return me;
	if (role_is_mine(ch, which))
		return 0;
	int rc = take_word(ch, which, static_cast<u32>(me));
	if (rc < 0)
		return rc;
	CH_CRASH_POINT(role_taken);
	const u64 gone = ch->r.h->state.load(acquire) & (LEFT_FLAGS[which] | DIED_FLAGS[which]); // [V2] pairs with [V1]
	if (gone) {                                     // the role was ended before it was given up
		role_word(ch, which).store(0, release); // [T1] pairs with [T2]
		return fail(gone & LEFT_FLAGS[which] ? -EPIPE : -EOWNERDEAD, "channel: its %s has gone", NAMES[which]);
	}
	if (which == SENDER)
		spsc_begin_sending(ch->r);
	else
		spsc_begin_receiving(ch->r);
	ch->bound[which].store(this_thread(), relaxed); // read by this thread
	return 0;
}

// Without a word to the other side, which is told when the process goes.
static void offer(ch_channel *ch, u32 which) noexcept
{
	shared<u64> &word = role_word(ch, which);

	ch->bound[which].store(0, relaxed); // ours, or of a thread that is in no call
	word.store(word.load(relaxed) | ROLE_OFFERED,
		   release); // [T1] pairs with [T2]: nobody else changes it while it is ours
	CH_CRASH_POINT(role_offered);
}

void role_leave(ch_channel *ch) noexcept
{
	const u32 me = ch->me.load(relaxed); // nobody uses the handle any more

	if (!ch->r.is_spsc || me == NOBODY)
		return;
	for (u32 which : {SENDER, RECEIVER}) {
		if (ch->bound[which].load(relaxed) == 0) // likewise
			continue;
		ring_leave_role(ch->r, role_word(ch, which), LEFT_FLAGS[which], me);
		if (ch->r.flags & CH_CHANNEL_HANGS_UP)
			ch->kind->wake(ch->pool->seg, me, ch->block);
	}
}

static int check_roles(const ch_channel *ch, u32 roles) noexcept
{
	if (!ch || roles == 0 || (roles & ~(CH_ROLE_SENDER | CH_ROLE_RECEIVER)))
		return fail(-EINVAL, ch ? "channel: unknown roles %#x" : "channel: NULL", roles);
	return ch->r.is_spsc ? 0 : fail(-EINVAL, "channel: only CH_CHANNEL_SPSC has roles");
}

} // namespace ch::core

using namespace ch::core;

int ch_channel_bind(struct ch_channel *ch, uint32_t roles)
{
	int rc = check_roles(ch, roles);

	if (rc < 0)
		return rc;
	const bool had_sender = role_is_mine(ch, SENDER);
	if (roles & CH_ROLE_SENDER)
		rc = role_bind(ch, SENDER);
	if (rc == 0 && (roles & CH_ROLE_RECEIVER))
		rc = role_bind(ch, RECEIVER);
	if (rc < 0 && !had_sender && role_is_mine(ch, SENDER))
		offer(ch, SENDER);
	return rc;
}

int ch_channel_unbind(struct ch_channel *ch, uint32_t roles)
{
	const int rc = check_roles(ch, roles);

	if (rc < 0)
		return rc;
	for (u32 which : {SENDER, RECEIVER})
		if ((roles & 1u << which) &&
		    (ch->bound[which].load(relaxed) == 0 || ch->me.load(relaxed) == NOBODY)) // ours
			return fail(-EBUSY, "channel: this handle has not the role of the %s", NAMES[which]);
	for (u32 which : {SENDER, RECEIVER})
		if (roles & 1u << which)
			offer(ch, which);
	return 0;
}

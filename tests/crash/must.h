/* SPDX-License-Identifier: Apache-2.0 */
/*
 * must.h - what the players of the kill tests share: what must be so, and how one dies at its crash point. Their evidence ev
 * counts what was bad, and the deaths at each point.
 */
#ifndef TESTS_MUST_H
#define TESTS_MUST_H
#include "../support/support.h"
#include "crash.h"

#define MUST(cond)                                                                                             \
	do {                                                                                                   \
		if (!(cond)) {                                                                                 \
			fprintf(stderr, "%s:%d: %d: %s is not so (%s)\n", __FILE__, __LINE__, getpid(), #cond, \
				ch_errmsg());                                                                  \
			ev->bad++;                                                                             \
			_exit(1);                                                                              \
		}                                                                                              \
	} while (0)

namespace torture {

/* self: NULL in who directs, or the player with its point and countdown. */
template <class Player, class Evidence> void die_at(Player *self, Evidence *ev, int id)
{
	if (!self || id != self->point || --self->countdown > 0)
		return;
	ev->hits[id]++;
	kill(getpid(), SIGKILL);
}

/* Forks a member of the crew, which plays and never returns; with crash points mostly to die at one, after at most so many
 * passes of it. */
template <class Member, class Play> void hire(Member &m, uint64_t &seeds, [[maybe_unused]] int most_passes, Play play)
{
	m.seed = rnd(&seeds) | 1;
	m.nr_done = 0;
	m.point = -1;
#ifdef CH_CRASH_POINTS
	if (rnd(&seeds) % 4) {
		m.point = static_cast<int>(rnd(&seeds) % ch::core::CH_NR_CRASH_POINTS);
		m.countdown = 1 + static_cast<int>(rnd(&seeds) % static_cast<uint64_t>(most_passes));
	}
#endif
	const pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(WATCHDOG_S);
		play(m);
	}
	m.pid = pid;
}

/* Kills it after fewer naps than these, unless a crash point did. False: it has hardly begun, and lives. */
template <class Member> bool strike(Member &m, uint64_t &seeds, uint64_t naps)
{
	if (has_ended(m.pid))
		return true;
	for (uint64_t n = rnd(&seeds) % naps; n > 0; n--)
		short_nap();
	if (m.nr_done == 0 && rnd(&seeds) % 8)
		return false;
	kill(m.pid, SIGKILL);
	return true;
}

} // namespace torture
#endif

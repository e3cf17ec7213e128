/* SPDX-License-Identifier: Apache-2.0 */
/*
 * must.h - what the players of the kill tests share: what must be so, and how one dies at its crash point. Their evidence ev
 * counts what was bad, and the deaths at each point.
 */
#ifndef TESTS_MUST_H
#define TESTS_MUST_H
#include "../support/support.h"

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

} // namespace torture
#endif

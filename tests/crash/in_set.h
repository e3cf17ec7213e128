/* SPDX-License-Identifier: Apache-2.0 */
/* in_set.h - calls of the kill tests that wait in a poll set: a missed event is a call that hangs. */
#ifndef TESTS_IN_SET_H
#define TESTS_IN_SET_H
#include "../support/support.h"

namespace torture {

/*
 * A call, with the time that it has. With a set it waits there, for one event of what, as long as it finds nothing. The
 * watchers and blocks of the dead may be missing until they are swept.
 */
template <class Call>
int call_when(struct ch_pollset *set, struct ch_pollable *what, uint32_t events, int64_t timeout_ns, Call call)
{
	struct ch_poll_event e;
	int rc;

	if (!set || timeout_ns == CH_TRY)
		return call(timeout_ns);
	while ((rc = call(CH_TRY)) == -EAGAIN) {
		rc = ch_pollset_modify_any(set, what, events | CH_POLL_ONESHOT, 0);
		rc = rc == -ENOENT ? ch_pollset_add_any(set, what, events | CH_POLL_ONESHOT, 0) : rc;
		if (rc == -ENOSPC)
			short_nap();
		else if (rc < 0 || (rc = ch_pollset_wait(set, &e, 1, timeout_ns)) < 0)
			return rc;
	}
	return rc;
}

} // namespace torture
#endif

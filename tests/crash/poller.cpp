/* SPDX-License-Identifier: Apache-2.0 */
/* poller.cpp - see poller.h. */
#include "poller.h"

namespace torture {

poller::poller(struct ch_channel *ch, uint32_t events, uint64_t *seed) : ch_(ch), events_(events), seed_(seed)
{
	if (rnd(seed) % 2)
		return;
	if (rnd(seed) % 2)
		events_ |= CH_POLL_EDGE;
	if (ch_pollset_create(nullptr, &set_) < 0)
		set_ = nullptr;
	else if (rnd(seed) % 4 == 0)
		ch_pollset_fd(set_); /* a thread more that can be killed somewhere */
}

/* No room among the watchers or in the pool is no fault: dead ones are there until they are swept. */
int poller::join()
{
	const int err = is_member_ ? 0 : ch_pollset_add(set_, ch_, events_, 1);

	is_member_ = err == 0;
	return err == -ENOSPC ? -EAGAIN : err;
}

int poller::wait(int64_t timeout_ns)
{
	struct ch_poll_event ev;
	const int err = join();

	if (err < 0) {
		short_nap();
		return err == -EAGAIN ? 0 : err;
	}
	const int n = ch_pollset_wait(set_, &ev, 1, timeout_ns);
	if (n > 0 && ev.user_data != 1)
		return -EPROTO;
	if (n > 0 && rnd(seed_) % 64 == 0 && ch_pollset_remove(set_, ch_) == 0)
		is_member_ = false;
	return n > 0 ? 0 : n;
}

} // namespace torture

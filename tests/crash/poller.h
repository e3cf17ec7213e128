/* SPDX-License-Identifier: Apache-2.0 */
/* poller.h - half of the incarnations wait for the channel in a poll set: a missed event is a call that hangs. */
#ifndef TESTS_POLLER_H
#define TESTS_POLLER_H
#include "../support/support.h"

namespace torture {

class poller {
public:
	/* By seed: none, level-triggered, edge-triggered; and some come and go. events: what this role waits for. */
	poller(struct ch_channel *ch, uint32_t events, uint64_t *seed);
	~poller() { ch_pollset_destroy(set_); }
	poller(const poller &) = delete;
	poller &operator=(const poller &) = delete;

	explicit operator bool() const { return set_ != nullptr; }
	/* After a call that would have had to wait. Returns 0, or what ch_pollset_wait does. */
	int wait(int64_t timeout_ns);

private:
	int join();

	struct ch_channel *ch_;
	uint32_t events_;
	uint64_t *seed_;
	struct ch_pollset *set_ = nullptr;
	bool is_member_ = false;
};

} // namespace torture
#endif

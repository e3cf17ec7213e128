// SPDX-License-Identifier: Apache-2.0
// promise.cpp - puts that nobody waits for, in the manager: what was promised is kept, or the manager is dead. When and why
// that is as good as an answer: window.hpp.
#include "manager.hpp"

namespace ch::dd {

// With two replicas, a log, or writers that are waited for, an answer says more than that the put has its turn.
static bool may_promise(const manager_rules &r)
{
	return r.replicas < 2 && !r.has_log && !r.read_only && !r.wait_for_keys && !r.wait_for_writers;
}

// As things are now. Values in private memory are bounded by the promises that are open when the first one is there.
void manager::offer_promises()
{
	store_.shop_window()->let_promise(may_promise(rules_) && !is_frozen_ && crowd_.empty());
}

// True: none is open, and none will be until offer_promises().
bool manager::has_no_promises()
{
	store_.shop_window()->let_promise(false);
	return store_.shop_window()->is_quiet();
}

void manager::go_on_to(std::uint64_t checkpoint)
{
	newest_ = checkpoint;
	store_.shop_window()->set_newest(checkpoint);
}

// Others may have gone on to another checkpoint since; then the put comes before that.
void manager::keep_promise(call &c)
{
	const std::uint64_t at = std::clamp(c.head.at, store_.oldest(), newest_);
	const entry *e = at > c.head.at ? store_.newest(c.key) : nullptr;
	op_stats &s = stats_.ops[static_cast<unsigned>(op::put)];
	const std::int64_t start = s.count++ % 16 == 0 ? monotonic_ns() : 0;

	if (is_frozen_ || !may_promise(rules_))
		return; // it was not promised by us
	if (!e || e->v.at <= c.head.at) {
		const manner how{at, expiry_of(c), (c.head.flags & put_persistent) != 0};
		const int err = with_room([&] { return put_or_adopt(c, c.value, how); });

		if (err == -ENOSPC)
			crowd(store_, c.key, c.value, how);
		else if (err < 0)
			raise(err);
		changed(c.key, at, &c);
	}
	store_.shop_window()->keep(c.head.retry_of >> 8, c.head.id, c.head.retry_of & 0xff);
	if (start)
		s.timed[bucket_of(static_cast<std::uint64_t>(monotonic_ns() - start))]++;
}

void manager::reap_rows()
{
	has_dead_rows_ = false;
	store_.shop_window()->reap([this](std::uint32_t row, std::uint64_t owner) {
		has_dead_rows_ = true; // until it is settled
		const request r{static_cast<std::uint32_t>(op::settle), 0, 0, owner, row, sizeof(request), 0, 0, -1, 0};

		ch_channel_send(requests_.get(), &r, sizeof(r), CH_TRY); // full: the next time
	});
}

} // namespace ch::dd

// SPDX-License-Identifier: Apache-2.0
// waiting.cpp - calls that a manager set aside, and when they are tried again.
#include "manager.hpp"
#include "place.hpp"
#include <algorithm>
#include <ctime>

namespace ch::dd {

// Memory that clients free by themselves (views, claims) and their deaths announce themselves to nobody: who waits for
// either looks so often.
constexpr std::int64_t look_again = 10000000;
constexpr std::int64_t look_for_room = 1000000; // in a neighbour's channel
constexpr unsigned reap_every = 16;             // looks

std::int64_t monotonic_ns()
{
	timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return std::int64_t{t.tv_sec} * 1000000000 + t.tv_nsec;
}

void manager::park(const call &c, bytes msg, ch::message *owner, outcome why)
{
	parked &p = parked_.emplace_back();

	if (owner)
		p.owned = std::move(*owner);
	else
		p.copy.assign(msg.begin(), msg.end());
	p.until = c.head.until;
	p.key = key_hash(c.key);
	p.asked = asked_;
	p.is_for_any = why == outcome::on_any;
}

// To be called for each key that was written or erased at a checkpoint: by a call that answers result.
void manager::changed(bytes key, std::uint64_t at, const call *c, std::uint64_t result)
{
	if (rules_.replicas > 1)
		mirror(key, at, c, result);
	if (persister_ && persister_->has_log())
		persister_->changed(key, at, c ? c->value : bytes(),
				    c && c->head.what == static_cast<std::uint32_t>(op::append));
	if (!parked_.empty())
		written_.push_back(key_hash(key));
}

// How long to wait for the next request; negative: for ever.
std::int64_t manager::patience() const
{
	if (!outbox_.empty() || is_filling_)
		return look_for_room;
	std::int64_t until = store_.next_expiry() ? store_.next_expiry() : -1;

	for (const parked &p : parked_) {
		if (p.is_for_any)
			return written_.empty() ? look_again : 0;
		if (p.until >= 0 && (until < 0 || p.until < until))
			until = p.until;
	}
	const std::int64_t most = !owed_.empty() || !jobs_.empty() || !spreads_.empty() ? look_again : CH_FOREVER;

	return until < 0 ? most : std::clamp<std::int64_t>(until - monotonic_ns(), 0, most < 0 ? INT64_MAX : most);
}

// Tries each once. What one of them writes may let another go on, so that goes on until nothing was written.
void manager::try_parked()
{
	const std::int64_t now = monotonic_ns();

	is_retrying_ = true;
	if (looks_++ % reap_every == reap_every - 1)
		reap();
	do {
		const std::vector<std::uint64_t> written = std::exchange(written_, {});
		std::list<parked> all;

		all.swap(parked_);
		for (parked &p : all) {
			const bool is_late = p.until >= 0 && p.until <= now;

			if (!is_late && !p.is_for_any &&
			    std::find(written.begin(), written.end(), p.key) == written.end()) {
				parked_.push_back(std::move(p));
				continue;
			}
			asked_ = p.asked;
			handle(p.owned ? bytes(p.owned.bytes()) : bytes(p.copy), p.owned ? &p.owned : nullptr);
		}
	} while (!written_.empty() && !parked_.empty());
	is_retrying_ = false;
}

} // namespace ch::dd

// SPDX-License-Identifier: Apache-2.0
// copies.cpp - two replicas: room for the copy comes before the write.
//
// A value whose copy travels as a block is written only when that block was claimed in the next manager's pool; the
// next manager keeps the copy in it, so it cannot fail to. A copy that travels in the ring is small: where the next
// manager's pool has no room for it, it lies in that process's private memory until it has. While any does, the next
// manager is crowded, and writes that need more room than they had are not begun; those that were under way when it
// said so bound what lies there.
//
// A write that finds no room at the next manager is set aside, as one that waits for memory, and the next manager is
// asked for some; its answer decides as if it were the owner's own memory that is short. So managers never wait for
// each other: what waits is a call, in a list.
//
// The next manager may drop copies to make room, where keys make room for others: then it says so, and the owner drops
// the key, or sends the copy again if the key was asked for meanwhile. A successor that has less room than its
// predecessor found is owed copies, which are tried again until it has them.
#include "manager.hpp"

namespace ch::dd {

constexpr std::int64_t copy_patience = 50000000; // with a successor that has no room
constexpr std::int64_t ask_again = 100000000;    // the next manager may have died with the question

// A hint: it bounds what lies in private memory, and nothing else rests on it.
bool manager::next_has_room() const
{
	return !words_[(index_ + 1) % nr_managers_].is_crowded.load(std::memory_order_relaxed); // see above
}

// Room for the copy of such a key and value: in room_, if it needs a block.
int manager::claim_copy(std::size_t klen, std::size_t vlen)
{
	const std::size_t len = letter_len(klen, vlen);

	room_.reset();
	if (len <= inline_max)
		return next_has_room() ? 0 : -ENOSPC;
	try {
		room_ = next_.claim(len, nanoseconds(CH_TRY));
		return 0;
	} catch (const error &e) {
		const int err = -e.code().value();

		return err == -ENOSPC || err == -EMSGSIZE ? err : 0; // the dictionary ends
	}
}

// Before a key is written: 0; -EINPROGRESS, the next manager was asked for room and the call is to be tried again;
// -ENOSPC, it has none; -EMSGSIZE, it can never have it.
int manager::reserve(bytes key, std::size_t vlen, std::uint64_t at)
{
	const bool waits = rules_.when_full == static_cast<std::uint32_t>(ddict_full::wait);
	const std::size_t len = letter_len(key.size(), vlen);
	const int err = claim_copy(key.size(), vlen);

	if (err != -ENOSPC)
		return err;
	if (len <= inline_max)
		if (const entry *e = store_.newest(key); e && e->v.at == at && !e->v.is_deleted && e->v.vlen >= vlen)
			return 0; // in the room that it has
	const bool was_asked = is_retrying_ && asked_;

	if (was_asked && answered_ >= asked_ && answered_err_ == ENOSPC && answered_len_ <= len && !waits)
		return -ENOSPC;
	if (!was_asked || answered_ >= asked_ || monotonic_ns() - asked_when_ > ask_again)
		ask_for_room(next_, len, 0);
	if (!was_asked || answered_ >= asked_)
		asked_ = answered_ + 1;
	return -EINPROGRESS;
}

void manager::ask_for_room(ch::channel &whom, std::size_t len, std::uint32_t flags)
{
	const mirror_head extra{len, 0, 0};
	constexpr std::uint32_t behind = sizeof(request) + sizeof(extra);
	const request ask{static_cast<std::uint32_t>(op::mirror_room), 0, 0, 0, 0, behind, flags, 0, -1, 0};
	std::byte msg[sizeof(ask) + sizeof(extra)];

	std::memcpy(msg, &ask, sizeof(ask));
	std::memcpy(msg + sizeof(ask), &extra, sizeof(extra));
	ch_channel_send(whom.get(), msg, sizeof(msg), CH_TRY); // full: it is asked again
	asked_when_ = monotonic_ns();
}

// A neighbour asks for it. Keys go before copies: those can be sent again.
void manager::give_room(std::size_t len, bool is_for_keys)
{
	if (is_for_keys) {
		while (is_filling_ && make_room(len) == -ENOSPC && mirror_.size())
			drop_copy();
		return;
	}
	const int err = move_in() ? make_room(len) : -ENOSPC;

	post(&previous_, op::mirror_room_is, {}, nullptr, 0, nullptr, {len, static_cast<std::uint64_t>(-err), 0});
}

void manager::room_is(const mirror_head &said)
{
	answered_++;
	answered_len_ = said.result;
	answered_err_ = static_cast<int>(said.oldest);
}

// A copy that makes room: the one that was not put for longest, or any. Its owner is told.
void manager::drop_copy()
{
	std::uint64_t first = 0;
	const entry *e = mirror_.coldest() ? mirror_.coldest() : mirror_.next(first);
	const std::vector<std::byte> key(e->key().begin(), e->key().end());

	mirror_.forget(key);
	post(&previous_, op::mirror_dropped, key, nullptr, 0, nullptr, 0);
}

void manager::copy_was_dropped(bytes key)
{
	const entry *e = store_.newest(key);

	if (!e)
		return;
	if (!evicts()) {
		owed_.emplace_back(key.begin(), key.end());
		return;
	}
	if (store_.take_use(*e) && copy_entry(*e))
		return;
	store_.evict(key);
	post(&next_, op::mirror_forget, key, nullptr, 0, nullptr, 0); // it may have been written meanwhile
}

// All versions of a key, to the next manager. False if there is no room for it now; then it has none of them.
bool manager::copy_entry(const entry &e)
{
	const std::vector<std::byte> key(e.key().begin(), e.key().end());

	for (const version *v : versions_of(e)) {
		if (claim_copy(key.size(), v->vlen) < 0) {
			post(&next_, op::mirror_forget, key, nullptr, 0, nullptr, 0);
			return false;
		}
		post(&next_, op::mirror_put, key, v, e.expires, nullptr, 0);
	}
	return true;
}

void manager::copy_owed()
{
	while (!owed_.empty() && outbox_.empty()) {
		const entry *e = store_.newest(owed_.front());

		if (e && !copy_entry(*e))
			return;
		owed_.pop_front();
	}
}

// What a successor has no room for: its keys are waited for, copies are owed. True: the letter is to be tried again.
bool manager::awaits_room(letter &l)
{
	const std::int64_t now = monotonic_ns();
	const bool is_for_keys = l.to == &previous_;

	if (!late_)
		late_ = now + copy_patience;
	if (is_for_keys || now < late_) {
		if (now - asked_when_ > copy_patience / 4)
			ask_for_room(*l.to, l.head.voff + l.value.size(), is_for_keys ? room_for_keys : 0);
		return true;
	}
	owed_.push_back(l.key);
	l.head.what = static_cast<std::uint32_t>(op::mirror_forget);
	l.head.voff = static_cast<std::uint32_t>(sizeof(request) + l.key.size() + sizeof(mirror_head));
	l.value = {};
	return true;
}

// No room in the pool, and it must be kept.
void manager::crowd(store &in, bytes key, bytes value, const manner &how)
{
	in.put_privately(key, value, how);
	crowd_.push_back({&in, {key.begin(), key.end()}, how.at});
	words_[index_].is_crowded.store(1, std::memory_order_relaxed); // see next_has_room
	offer_promises();
}

// What lies in private memory goes where there is room now. True if all of it did.
bool manager::move_in()
{
	if (crowd_.empty())
		return true;
	while (!crowd_.empty()) {
		const crowded &x = crowd_.front();

		if (with_room([&] { return x.in->move_in(x.key, x.at); }) < 0)
			return false;
		crowd_.pop_front();
	}
	words_[index_].is_crowded.store(0, std::memory_order_relaxed); // see next_has_room
	offer_promises();
	return true;
}

// Keys that are with no other manager: all, until the successor of a dead neighbour was sent them.
std::uint64_t manager::nr_single() const
{
	const manager_words &next = words_[(index_ + 1) % nr_managers_];

	if (rules_.replicas < 2)
		return 0;
	// Figures: who needs to know more asks again.
	if (next.incarnation.load(std::memory_order_relaxed) != copied_to_ ||
	    !ch_peer_is_alive({next.peer.load(std::memory_order_relaxed)}))
		return store_.size();
	return owed_.size();
}

} // namespace ch::dd

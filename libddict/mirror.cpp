// SPDX-License-Identifier: Apache-2.0
// mirror.cpp - two replicas: each manager sends what it changed to the next one, which keeps a copy for the case that
// it dies.
//
// What lies in a channel outlives its sender. So a change is safe from the death of one process when its letter is in
// the next manager's channel, and only then is the client answered, and is anything else done: whoever saw the change
// saw one that is safe. A letter holds the key's new state, not the operation, and the id of the client's call, so that
// a call that is repeated because its answer was lost is not done twice.
//
// A manager that begins in a dead one's place asks the next manager for the copies, and the previous one for all its
// keys, of which the dead one had the copies. Until it has its own keys it only listens.
#include "manager.hpp"

namespace ch::dd {

constexpr std::int64_t copy_patience = 50000000; // with a neighbour that is full

void manager::begin_as_successor()
{
	is_filling_ = true;
	post(&previous_, op::mirror_me, {}, nullptr, 0, nullptr, 0);
	ask_for_keys();
}

// Also again, should the next manager be replaced meanwhile: then the copies are gone, and it answers with none.
void manager::ask_for_keys()
{
	const std::uint64_t there =
		words_[(index_ + 1) % nr_managers_].incarnation.load(std::memory_order_relaxed); // a guess

	if (filled_by_ == there)
		return;
	filled_by_ = there;
	post(&next_, op::refill_me, {}, nullptr, 0, nullptr, incarnation_);
}

bool manager::is_from_manager(const call &c) const
{
	return rules_.replicas > 1 && c.head.client == 0 &&
	       c.head.what >= static_cast<std::uint32_t>(op::mirror_begin) &&
	       c.head.what < static_cast<std::uint32_t>(op::last_op) &&
	       c.head.voff >= sizeof(request) + c.head.klen + sizeof(mirror_head);
}

void manager::post(ch::channel *to, op what, bytes key, const version *v, std::int64_t expires, const call *c,
		   std::uint64_t result)
{
	post(to, what, key, v, expires, c, {result, store_.oldest(), newest_});
}

void manager::post(ch::channel *to, op what, bytes key, const version *v, std::int64_t expires, const call *c,
		   const mirror_head &extra)
{
	letter &l = outbox_.emplace_back();

	l.to = to;
	l.key.assign(key.begin(), key.end());
	if (v && v->storage) {
		l.storage = v->storage;
		l.value = v->val();
	} else if (v) {
		l.small.assign(v->val().begin(), v->val().end());
		l.value = l.small;
	}
	l.extra = extra;
	const std::size_t head = sizeof(request) + key.size() + sizeof(mirror_head);
	const bool is_large = head + l.value.size() > inline_max;

	l.head = {static_cast<std::uint32_t>(what),
		  static_cast<std::uint32_t>(key.size()),
		  0,
		  c ? (c->head.retry_of ? c->head.retry_of : c->head.id) : 0,
		  v && v->is_deleted,
		  static_cast<std::uint32_t>(is_large ? round_up(head, value_align) : head),
		  v && v->is_persistent ? put_persistent : 0,
		  v ? v->at : (c ? c->head.at : 0),
		  expires,
		  c ? c->from->peer.id : 0};
	flush();
}

// The new state of a key, at the checkpoint at which it changed.
void manager::mirror(bytes key, std::uint64_t at, const call *c, std::uint64_t result)
{
	const entry *e = store_.newest(key);
	const version *v = e ? store::seen(*e, at) : nullptr;

	post(&next_, v ? op::mirror_put : op::mirror_erase, key, v, e ? e->expires : 0, c, result);
}

int manager::deliver(letter &l)
{
	std::byte buf[inline_max];
	const std::size_t len = l.head.voff + l.value.size();
	const auto write = [&](std::byte *to) {
		std::memcpy(to, &l.head, sizeof(l.head));
		if (!l.key.empty())
			std::memcpy(to + sizeof(l.head), l.key.data(), l.key.size());
		std::memcpy(to + sizeof(l.head) + l.key.size(), &l.extra, sizeof(l.extra));
		if (!l.value.empty())
			std::memcpy(to + l.head.voff, l.value.data(), l.value.size());
	};

	if (len <= inline_max) {
		write(buf);
		return ch_channel_send(l.to->get(), buf, len, CH_TRY);
	}
	ch_message m;

	if (const int err = ch_channel_claim(l.to->get(), len, CH_TRY, &m); err < 0)
		return err;
	write(static_cast<std::byte *>(m.data));
	const int err = ch_channel_commit(l.to->get(), &m, CH_TRY);

	if (err < 0)
		ch_channel_abort(l.to->get(), &m);
	return err;
}

// A neighbour that has no room for a value is asked to make some, where keys make room for others, and gets a moment.
// Then it is to have no copy rather than an old one. True: it is to be tried again.
bool manager::awaits_room(letter &l)
{
	const std::int64_t now = monotonic_ns();
	const std::size_t need = l.head.voff + l.value.size();
	std::byte msg[sizeof(request) + sizeof(mirror_head)];
	const request ask{static_cast<std::uint32_t>(op::mirror_room), 0, 0, 0, 0, sizeof(msg), 0, 0, -1, 0};
	const mirror_head extra{need, 0, 0};

	if (!l.late)
		l.late = now + copy_patience;
	if (now < l.late) {
		std::memcpy(msg, &ask, sizeof(ask));
		std::memcpy(msg + sizeof(ask), &extra, sizeof(extra));
		if (evicts())
			ch_channel_send(l.to->get(), msg, sizeof(msg), CH_TRY); // full: it is busy making room
		return true;
	}
	stats_.single++;
	if (l.head.what == static_cast<std::uint32_t>(op::mirror_put)) {
		l.head.what = static_cast<std::uint32_t>(op::mirror_forget);
		l.head.voff = static_cast<std::uint32_t>(sizeof(request) + l.key.size() + sizeof(mirror_head));
		l.value = {};
		return true;
	}
	return false;
}

// True if all letters are under way. Then what was held back on their account goes on.
bool manager::flush()
{
	while (!outbox_.empty()) {
		const int err = deliver(outbox_.front());

		if (err == -EAGAIN || err == -ETIMEDOUT || (err == -ENOSPC && awaits_room(outbox_.front())))
			return false;
		outbox_.pop_front(); // delivered; or the dictionary ends
	}
	while (!answers_.empty()) {
		const held h = std::move(answers_.front());

		answers_.pop_front();
		if (client *to = find_client(h.client))
			if (!send(*to, h.message.data(), h.message.size()))
				drop(*to);
	}
	return true;
}

void manager::work_through_early()
{
	while (!early_.empty() && !is_filling_ && outbox_.empty()) {
		early e = std::move(early_.front());

		early_.pop_front();
		handle(e.owned ? bytes(e.owned.bytes()) : bytes(e.copy), e.owned ? &e.owned : nullptr);
	}
}

void manager::from_manager(call &c)
{
	const mirror_head extra = load<mirror_head>(c.key.data() + c.key.size());

	switch (static_cast<op>(c.head.what)) {
	case op::mirror_begin:
		mirror_.clear();
		mirrored_calls_.clear();
		break;
	case op::mirror_put:
	case op::mirror_erase:
	case op::mirror_clear:
	case op::mirror_forget:
		mirror_oldest_ = extra.oldest;
		mirror_newest_ = extra.newest;
		mirror_.retire_before(extra.oldest);
		take_copy(c, mirror_);
		if (c.head.retry_of)
			mirrored_calls_[c.head.retry_of][c.head.id & 0xff & (credits - 1)] = {c.head.id, extra.result};
		break;
	case op::mirror_room:
		make_room(extra.result);
		break;
	case op::mirror_me:
		post(&next_, op::mirror_begin, {}, nullptr, 0, nullptr, 0);
		mirror_all(&next_, store_, op::mirror_put, store_.oldest(), newest_);
		break;
	case op::refill_me:
		refill(c);
		break;
	case op::refill_put:
		if (is_filling_)
			take_copy(c, store_);
		break;
	case op::refill_done:
		repeated_[c.head.retry_of][c.head.id & 0xff & (credits - 1)] = {c.head.id, extra.result};
		break;
	case op::refill_end:
		if (!is_filling_ || extra.result != incarnation_)
			break;
		store_.retire_before(extra.oldest);
		newest_ = extra.newest;
		is_filling_ = false;
		break;
	default:
		break;
	}
	if (flush())
		work_through_early();
}

// What there is no room for is counted: these keys have one replica only. No copy is better than an old one.
void manager::take_copy(call &c, store &into)
{
	const manner how{c.head.at, c.head.until, (c.head.flags & put_persistent) != 0};
	int err = 0;

	if (c.head.what == static_cast<std::uint32_t>(op::mirror_clear))
		return into.clear();
	if (c.head.what == static_cast<std::uint32_t>(op::mirror_forget))
		return into.forget(c.key);
	if (c.head.what == static_cast<std::uint32_t>(op::mirror_erase) || c.head.arg)
		err = into.erase(c.key, c.head.at);
	else if (c.owner)
		into.adopt(c.key, c.value, std::move(*c.owner), how);
	else
		err = with_room([&] { return into.put(c.key, c.value, how); });
	if (err != -ENOSPC)
		return;
	into.forget(c.key);
	stats_.single++;
}

// All versions of all keys, older ones first.
void manager::mirror_all(ch::channel *to, store &from, op what, std::uint64_t oldest, std::uint64_t newest)
{
	for (std::uint64_t at = 0; const entry *e = from.next(at);)
		for (const version *v : versions_of(*e))
			post(to, what, e->key(), v, e->expires, nullptr, {0, oldest, newest});
}

void manager::refill(const call &c)
{
	const std::uint64_t asked_by = load<mirror_head>(c.key.data() + c.key.size()).result;

	mirror_all(&previous_, mirror_, op::refill_put, mirror_oldest_, mirror_newest_);
	for (const auto &[peer, calls] : mirrored_calls_)
		for (const finished &f : calls)
			if (f.id) {
				call done{};
				client from;

				from.peer = {peer};
				done.head.id = f.id;
				done.from = &from;
				post(&previous_, op::refill_done, {}, nullptr, 0, &done, f.result);
			}
	post(&previous_, op::refill_end, {}, nullptr, 0, nullptr, {asked_by, mirror_oldest_, mirror_newest_});
}

// A call that the predecessor did, and whose answer may have been lost.
bool manager::is_repeated(const call &c)
{
	const auto calls = repeated_.find(c.from->peer.id);

	if (calls == repeated_.end())
		return false;
	const finished &f = calls->second[c.head.retry_of & 0xff & (credits - 1)];

	if (f.id != c.head.retry_of)
		return false;
	// What a pop took is not there any more.
	answer(c, c.head.what == static_cast<std::uint32_t>(op::pop) ? -EOWNERDEAD : 0, f.result);
	return true;
}

} // namespace ch::dd

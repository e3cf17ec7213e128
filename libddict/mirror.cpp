// SPDX-License-Identifier: Apache-2.0
// mirror.cpp - two replicas: each manager sends what it changed to the next one, which keeps a copy for the case that
// it dies.
//
// What lies in a channel outlives its sender. So a change is safe from the death of one process when its letter is in
// the next manager's channel, and only then is the client answered, and is anything else done: whoever saw the change
// saw one that is safe. There is room for it before the change is made: see copies.cpp. A letter holds the key's new
// state, not the operation, and the id of the client's call, so that a call that is repeated because its answer was lost
// is not done twice.
//
// A manager that begins in a dead one's place asks the next manager for the copies, and the previous one for all its
// keys, of which the dead one had the copies. Until it has its own keys it only listens.
#include "manager.hpp"

namespace ch::dd {

void manager::begin_as_successor()
{
	is_filling_ = true;
	post(&previous_, op::mirror_me, {}, nullptr, 0, nullptr, incarnation_);
	ask_for_keys();
}

// Also again, should the next manager be replaced meanwhile: then the copies are gone, and it answers with none.
void manager::ask_for_keys()
{
	const std::uint64_t there =
		words_[(index_ + 1) % nr_managers_].incarnation.load(std::memory_order_relaxed); // a guess

	if (filled_by_ == there)
		return;
	copied_to_ = filled_by_ = there;
	post(&next_, op::refill_me, {}, nullptr, 0, nullptr, incarnation_);
}

bool manager::is_from_manager(const call &c) const
{
	return rules_.replicas > 1 && c.head.client == 0 &&
	       c.head.what >= static_cast<std::uint32_t>(op::mirror_begin) &&
	       c.head.what < static_cast<std::uint32_t>(op::spread_on) &&
	       c.head.voff >= sizeof(request) + c.head.klen + sizeof(mirror_head);
}

std::size_t letter_len(std::size_t klen, std::size_t vlen)
{
	const std::size_t head = sizeof(request) + klen + sizeof(mirror_head);

	return head + vlen > inline_max ? round_up(head, value_align) + vlen : head + vlen;
}

static bool is_about_key_only(std::uint32_t what)
{
	return what == static_cast<std::uint32_t>(op::mirror_erase) ||
	       what == static_cast<std::uint32_t>(op::mirror_forget) ||
	       what == static_cast<std::uint32_t>(op::mirror_dropped);
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
	const bool is_long = letter_len(key.size(), l.value.size()) > inline_max;

	l.head = {static_cast<std::uint32_t>(what),
		  static_cast<std::uint32_t>(key.size()),
		  0,
		  c ? (c->head.retry_of ? c->head.retry_of : c->head.id) : 0,
		  v && v->is_deleted,
		  static_cast<std::uint32_t>(is_long ? round_up(head, value_align) : head),
		  (v && v->is_persistent ? put_persistent : 0) | (to == &previous_ ? key_from_next : 0),
		  v ? v->at : (c ? c->head.at : 0),
		  expires,
		  c ? c->from->peer.id : 0};
	if (is_long && to == &next_ && v && room_) {
		l.room = std::move(room_);
		l.write(l.room.data());
	}
	flush();
}

// The new state of a key, at the checkpoint at which it changed.
void manager::mirror(bytes key, std::uint64_t at, const call *c, std::uint64_t result)
{
	const entry *e = store_.newest(key);
	const version *v = e ? store::seen(*e, at) : nullptr;

	post(&next_, v ? op::mirror_put : op::mirror_erase, key, v, e ? e->expires : 0, c, result);
}

void manager::letter::write(std::byte *place) const
{
	std::memcpy(place, &head, sizeof(head));
	if (!key.empty())
		std::memcpy(place + sizeof(head), key.data(), key.size());
	std::memcpy(place + sizeof(head) + key.size(), &extra, sizeof(extra));
	if (!value.empty())
		std::memcpy(place + head.voff, value.data(), value.size());
}

int manager::deliver(letter &l)
{
	const std::size_t len = l.head.voff + l.value.size();
	std::byte buf[inline_max];

	if (len <= inline_max) {
		l.write(buf);
		return ch_channel_send(l.to->get(), buf, len, CH_TRY);
	}
	if (is_about_key_only(l.head.what))
		return deliver_key(l);
	try {
		if (!l.room) {
			l.room = l.to->claim(len, nanoseconds(CH_TRY));
			l.write(l.room.data());
		}
		return l.to->commit_for(l.room, nanoseconds(CH_TRY)) ? 0 : -EAGAIN;
	} catch (const error &e) {
		return -e.code().value();
	}
}

// What makes room must need none: a long key goes ahead in pieces, and the letter without it.
int manager::deliver_key(letter &l)
{
	std::byte buf[inline_max];
	letter part;

	part.extra = l.extra;
	part.head = l.head;
	for (bool is_all = false; !is_all;) {
		const std::size_t n = std::min(l.key.size() - l.key_sent, inline_max - sizeof(request) - sizeof(mirror_head));
		const auto from = l.key.begin() + static_cast<std::ptrdiff_t>(l.key_sent);

		is_all = n == 0;
		part.key.assign(from, from + static_cast<std::ptrdiff_t>(n));
		part.head.klen = static_cast<std::uint32_t>(n);
		part.head.voff = static_cast<std::uint32_t>(sizeof(request) + n + sizeof(mirror_head));
		part.head.what = is_all ? l.head.what : static_cast<std::uint32_t>(op::mirror_key);
		part.head.flags = l.head.flags | (is_all ? key_was_sent : 0);
		part.write(buf);
		if (const int err = ch_channel_send(l.to->get(), buf, part.head.voff, CH_TRY); err < 0)
			return err;
		l.key_sent += n;
	}
	return 0;
}

// True if all letters are under way. Then what was held back on their account goes on.
bool manager::flush()
{
	while (!outbox_.empty()) {
		const int err = deliver(outbox_.front());

		if (err == -EAGAIN || err == -ETIMEDOUT || (err == -ENOSPC && awaits_room(outbox_.front())))
			return false;
		if (outbox_.size() == 1)
			late_ = 0;
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

	std::vector<std::byte> &long_key = long_key_[(c.head.flags & key_from_next) != 0];

	if (c.head.what == static_cast<std::uint32_t>(op::mirror_key)) {
		if (long_key.size() + c.key.size() <= key_max)
			long_key.insert(long_key.end(), c.key.begin(), c.key.end());
		return;
	}
	const std::vector<std::byte> whole_key = std::exchange(long_key, {}); // or what a dead one began with

	if (c.head.flags & key_was_sent)
		c.key = whole_key;
	do_as_told(c, extra);
	if (flush())
		work_through_early();
}

// A client's calls have rising numbers; the last one of each slot is the only one that may come again.
void manager::note_done(known_calls &known, const call &c, std::uint64_t result)
{
	finished &f = known[c.head.retry_of][c.head.id & 0xff & (credits - 1)];

	if (f.id < c.head.id)
		f = {c.head.id, result};
}

void manager::do_as_told(call &c, const mirror_head &extra)
{
	switch (static_cast<op>(c.head.what)) {
	case op::mirror_begin:
		mirror_.clear(); // not the calls: what was done stays done
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
			note_done(mirrored_calls_, c, extra.result);
		break;
	case op::mirror_room:
		give_room(extra.result, c.head.flags & room_for_keys);
		break;
	case op::mirror_room_is:
		room_is(extra);
		break;
	case op::mirror_dropped:
		copy_was_dropped(c.key);
		break;
	case op::mirror_me:
		copied_to_ = extra.result;
		owed_.clear();
		post(&next_, op::mirror_begin, {}, nullptr, 0, nullptr, 0);
		mirror_all(&next_, store_, op::mirror_put, store_.oldest(), newest_);
		post_calls(&next_, repeated_);
		break;
	case op::refill_me:
		refill(c);
		break;
	case op::refill_put:
		if (is_filling_)
			take_copy(c, store_);
		break;
	case op::refill_done:
		note_done(c.head.flags & key_from_next ? repeated_ : mirrored_calls_, c, extra.result);
		break;
	case op::refill_end:
		if (!is_filling_ || extra.result != incarnation_)
			break;
		store_.retire_before(extra.oldest);
		go_on_to(extra.newest);
		is_filling_ = false;
		break;
	default:
		break;
	}
}

// A copy is taken whatever happens: its sender has answered for it. What it was sent in is its room, or it travelled in
// the ring and is small.
void manager::take_copy(call &c, store &into)
{
	const manner how{c.head.at, c.head.until, (c.head.flags & put_persistent) != 0};

	if (c.head.what == static_cast<std::uint32_t>(op::mirror_clear))
		into.clear();
	else if (c.head.what == static_cast<std::uint32_t>(op::mirror_forget))
		into.forget(c.key);
	else if (c.head.what == static_cast<std::uint32_t>(op::mirror_erase) || c.head.arg)
		into.erase_privately(c.key, c.head.at);
	else if (c.owner)
		into.adopt(c.key, c.value, std::move(*c.owner), how);
	else if (with_room([&] { return into.put(c.key, c.value, how); }) < 0)
		crowd(into, c.key, c.value, how);
}

// All versions of all keys, older ones first.
void manager::mirror_all(ch::channel *to, store &from, op what, std::uint64_t oldest, std::uint64_t newest)
{
	for (std::uint64_t at = 0; const entry *e = from.next(at);)
		for (const version *v : versions_of(*e))
			post(to, what, e->key(), v, e->expires, nullptr, {0, oldest, newest});
}

// Which calls were done, for whoever may be asked for them again.
void manager::post_calls(ch::channel *to, const known_calls &known)
{
	for (const auto &[peer, calls] : known)
		for (const finished &f : calls)
			if (f.id) {
				call done{};
				client from;

				from.peer = {peer};
				done.head.id = f.id;
				done.from = &from;
				post(to, op::refill_done, {}, nullptr, 0, &done, f.result);
			}
}

void manager::refill(const call &c)
{
	const std::uint64_t asked_by = load<mirror_head>(c.key.data() + c.key.size()).result;

	mirror_all(&previous_, mirror_, op::refill_put, mirror_oldest_, mirror_newest_);
	post_calls(&previous_, mirrored_calls_);
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

// SPDX-License-Identifier: Apache-2.0
// operations.cpp - what a manager does for each request that changes something.
#include "manager.hpp"
#include "number.hpp"

namespace ch::dd {

manager::outcome manager::dispatch(call &c)
{
	switch (static_cast<op>(c.head.what)) {
	case op::bye:
		drop(*c.from);
		return outcome::answered;
	case op::get:
		return get(c, false);
	case op::wait_for:
		return wait_for(c);
	case op::contains:
		contains(c);
		break;
	case op::size:
		size(c);
		break;
	case op::scan:
		scan(c);
		break;
	case op::release:
		release(c);
		break;
	case op::get_many:
		get_many(c);
		break;
	case op::make_room:
		answer(c, make_room(c.head.arg));
		break;
	case op::stats:
		statistics(c);
		break;
	case op::set_frozen:
		return freeze(c);
	case op::is_frozen:
		answer(c, 0, is_frozen_);
		break;
	case op::checkpoints:
		answer(c, 0, newest_, store_.oldest());
		break;
	case op::visit:
		return visit(c);
	case op::reap:
		end_jobs();
		reap();
		answer(c, 0);
		break;
	default:
		return dispatch_files(c);
	}
	return outcome::answered;
}

manager::outcome manager::dispatch_files(call &c)
{
	switch (static_cast<op>(c.head.what)) {
	case op::persist:
		return persist(c);
	case op::persisted:
		persisted(c);
		break;
	case op::restore:
		restore(c);
		break;
	case op::flush:
		flush_log(c);
		break;
	case op::keep:
		return keep(c);
	default:
		return dispatch_write(c);
	}
	return outcome::answered;
}

manager::outcome manager::dispatch_write(call &c)
{
	const op what = static_cast<op>(c.head.what);
	bool has_to_wait = false;

	if (!is_retrying_)
		asked_ = 0;
	if (what < op::put || what >= op::mirror_begin) {
		answer(c, -EPROTO);
		return outcome::answered;
	}
	if (int err = enter(c, has_to_wait); err < 0) {
		answer(c, err);
		return outcome::answered;
	}
	if (has_to_wait)
		return outcome::on_any;
	const outcome o = write(c);

	room_.reset();
	return o;
}

manager::outcome manager::write(call &c)
{
	switch (static_cast<op>(c.head.what)) {
	case op::put:
		return put(c);
	case op::erase:
		return erase(c);
	case op::pop:
		return get(c, true);
	case op::fetch_add:
		return fetch_add(c);
	case op::append:
		return append(c);
	case op::compare_and_set:
		return compare_and_set(c);
	case op::put_many:
		return put_many(c);
	case op::spread:
		return spread(c);
	case op::clear:
		clear(c);
		return outcome::answered;
	default:
		answer(c, -EPROTO);
		return outcome::answered;
	}
}

std::int64_t manager::expiry_of(const call &c)
{
	if (c.head.arg == 0)
		return 0;
	const std::int64_t now = monotonic_ns();
	const auto ttl = static_cast<std::int64_t>(std::min<std::uint64_t>(c.head.arg, INT64_MAX / 2));

	return now + ttl;
}

manner manager::manner_of(const call &c) const
{
	return {c.head.at, expiry_of(c), (c.head.flags & put_persistent) != 0};
}

// Of one's own keys and the copies of a neighbour's, those give way that are more: neither crowds the other out.
bool manager::evict_one()
{
	if (!evicts())
		return false;
	const bool is_copy = mirror_.size() > store_.size() && mirror_.coldest();
	const entry *e = store_.coldest();

	if (is_copy) {
		drop_copy();
		return true;
	}
	if (!e)
		return false;
	const std::vector<std::byte> key(e->key().begin(), e->key().end());

	store_.evict();
	if (rules_.replicas > 1)
		post(&next_, op::mirror_forget, key, nullptr, 0, nullptr, 0);
	return true;
}

// Ends a call that wrote. In a dictionary that waits, one that found no room does; so does one that has asked the next
// manager for some.
manager::outcome manager::answer_or_wait(const call &c, int err, std::uint64_t arg)
{
	if (err == -EINPROGRESS)
		return outcome::on_any;
	if (err == -ENOSPC && rules_.when_full == static_cast<std::uint32_t>(ddict_full::wait) &&
	    c.key.size() + c.value.size() <= inline_max)
		return outcome::on_any;
	if (err == 0)
		changed(c.key, c.head.at, &c, arg);
	answer(c, err, arg);
	return outcome::answered;
}

int manager::put_or_adopt(call &c, bytes value, const manner &how)
{
	if (!c.owner)
		return store_.put(c.key, value, how);
	store_.adopt(c.key, value, std::move(*c.owner), how);
	return 0;
}

manager::outcome manager::put(call &c)
{
	if ((c.head.flags & put_if_absent) && store_.find(c.key, c.head.at)) {
		answer(c, -EEXIST);
		return outcome::answered;
	}
	const manner how = manner_of(c);

	const auto put = [&] { return put_or_adopt(c, c.value, how); };
	return answer_or_wait(c, with_both_rooms(c.key, c.head.at, c.value.size(), put));
}

manager::outcome manager::compare_and_set(call &c)
{
	const version *v = store_.find(c.key, c.head.at);

	if (c.head.arg > c.value.size()) {
		answer(c, -EPROTO);
		return outcome::answered;
	}
	const bytes desired = c.value.first(c.value.size() - c.head.arg), expected = c.value.last(c.head.arg);

	if (!v || v->vlen != expected.size() ||
	    (!expected.empty() && std::memcmp(v->value, expected.data(), expected.size()) != 0)) {
		answer(c, v ? -EAGAIN : -ENOENT);
		return outcome::answered;
	}
	const entry *e = store_.newest(c.key);
	const manner how{c.head.at, e->expires, v->is_persistent};

	const auto put = [&] { return put_or_adopt(c, desired, how); };
	return answer_or_wait(c, with_both_rooms(c.key, c.head.at, desired.size(), put));
}

manager::outcome manager::erase(const call &c)
{
	return answer_or_wait(c, store_.erase(c.key, c.head.at));
}

manager::outcome manager::fetch_add(const call &c)
{
	const number kind{c.head.flags};
	const version *v = store_.find(c.key, c.head.at);
	std::byte value[8] = {};

	if (!kind.is_valid() || (v && v->vlen != kind.width())) {
		answer(c, -EINVAL);
		return outcome::answered;
	}
	if (v)
		std::memcpy(value, v->value, kind.width());
	const std::uint64_t old = load<std::uint64_t>(value);
	const manner how{c.head.at, v ? store_.newest(c.key)->expires : 0, v && v->is_persistent};

	kind.add(value, c.head.arg);
	const auto put = [&] { return store_.put(c.key, {value, kind.width()}, how); };
	return answer_or_wait(c, with_both_rooms(c.key, c.head.at, kind.width(), put), old);
}

manager::outcome manager::append(const call &c)
{
	const version *v = store_.find(c.key, c.head.at);
	const manner how{c.head.at, v ? store_.newest(c.key)->expires : 0, v && v->is_persistent};
	std::size_t len = 0;

	const std::size_t whole = (v ? v->vlen : 0) + c.value.size();
	const int err = with_both_rooms(c.key, c.head.at, whole, [&] { return store_.append(c.key, c.value, how, len); });
	return answer_or_wait(c, err, len);
}

void manager::clear(const call &c)
{
	const std::uint64_t nr = store_.size_at(c.head.at);

	if (c.head.at == store_.oldest() && c.head.at == newest_) {
		store_.clear();
		if (persister_ && persister_->has_log())
			persister_->cleared();
		if (rules_.replicas > 1)
			post(&next_, op::mirror_clear, {}, nullptr, 0, &c, nr);
		if (!parked_.empty())
			written_.push_back(0); // calls that wait for memory; nobody waits for a key to go
		return answer(c, 0, nr);
	}
	for (std::uint64_t at = 0; const entry *e = store_.next(at);) {
		if (!store::seen(*e, c.head.at))
			continue;
		const std::vector<std::byte> key(e->key().begin(), e->key().end());

		if (const int err = store_.erase(key, c.head.at); err < 0)
			return answer(c, err);
		changed(key, c.head.at, &c, nr);
	}
	answer(c, 0, nr);
}

// Records: klen, vlen, key, value. Those before the first that fails are put.
manager::outcome manager::put_many(const call &c)
{
	const manner how = manner_of(c);
	unpacker u(c.value);
	std::uint64_t done = 0;
	int err = 0;

	for (; !u.empty(); done++) {
		std::uint32_t klen, vlen;
		bytes key, value;

		if (!u.u32(klen) || !u.u32(vlen) || !u.raw(klen, key) || !u.raw(vlen, value) ||
		    sizeof(request) + std::size_t{klen} + vlen > inline_max)
			err = -EPROTO;
		else
			err = with_both_rooms(key, how.at, vlen, [&] { return store_.put(key, value, how); });
		if (err < 0)
			break;
		changed(key, how.at);
	}
	if (err == -EINPROGRESS ||
	    (err == -ENOSPC && rules_.when_full == static_cast<std::uint32_t>(ddict_full::wait)))
		return outcome::on_any; // those that are in are put once more then
	answer(c, err, done);
	return outcome::answered;
}

// Puts that were promised come first.
manager::outcome manager::freeze(const call &c)
{
	if (c.head.arg && !has_no_promises())
		return outcome::on_any;
	const bool was_frozen = std::exchange(is_frozen_, c.head.arg != 0);

	offer_promises();
	answer(c, 0, was_frozen);
	return outcome::answered;
}

// Until a block of so many bytes can be had.
int manager::make_room(std::size_t len)
{
	ch_pool *pool = ch_channel_get_pool(requests_.get());

	return with_room([&] {
		void *addr = nullptr;
		const int err = ch_pool_alloc(pool, std::max<std::size_t>(len, 1), CH_TRY, &addr);

		if (err == 0)
			ch_pool_free(pool, addr);
		return err;
	});
}

} // namespace ch::dd

// SPDX-License-Identifier: Apache-2.0
// operations.cpp - what a manager does for each request.
#include "manager.hpp"
#include "number.hpp"

namespace ch::dd {

// Values that one client may have pinned at a time: one for each of its threads that is reading.
constexpr std::size_t pins_max = 4096;

void manager::dispatch(call &c, ch::message *owner)
{
	switch (static_cast<op>(c.head.what)) {
	case op::bye:
		return drop(*c.from);
	case op::put:
		return put(c, owner);
	case op::get:
		return get(c);
	case op::erase:
		return answer(c, store_.erase(c.key) ? 0 : -ENOENT);
	case op::contains:
		return answer(c, store_.find(c.key) ? 0 : -ENOENT);
	case op::fetch_add:
		return fetch_add(c);
	case op::size:
		return answer(c, 0, store_.size());
	case op::clear:
		return clear(c);
	case op::scan:
		return scan(c);
	case op::release:
		return answer(c, c.from->pins.erase(c.head.arg) ? 0 : -ENOENT);
	case op::put_many:
		return put_many(c);
	case op::get_many:
		return get_many(c);
	case op::reap:
		reap();
		return answer(c, 0);
	case op::hello:
		break;
	}
	answer(c, -EPROTO);
}

// Memory that a dead client still holds is found before the dictionary calls itself full.
int manager::put_one(bytes key, bytes value)
{
	int err = store_.put(key, value);

	if (err == -ENOSPC) {
		reap();
		err = store_.put(key, value);
	}
	return err;
}

void manager::put(const call &c, ch::message *owner)
{
	int err = 0;

	if (owner)
		store_.adopt(c.key, c.value, std::move(*owner));
	else
		err = put_one(c.key, c.value);
	answer(c, err);
}

void manager::get(const call &c)
{
	const entry *e = store_.find(c.key);

	if (!e)
		return answer(c, -ENOENT);
	if (sizeof(reply) + e->vlen <= inline_max)
		return answer(*c.from, {c.head.id, 0, 0, 0, 0, e->vlen}, e->val());
	if (c.from->pins.size() >= pins_max)
		return answer(c, -ENOMEM);
	const auto *base = static_cast<const std::byte *>(ch_segment_addr(seg_.get()));
	const std::uint64_t pin = next_pin_++;

	c.from->pins.emplace(pin, e->message);
	answer(*c.from,
	       {c.head.id, 0, static_cast<std::uint32_t>(form::pinned), pin,
		static_cast<std::uint64_t>(e->value - base), e->vlen},
	       {});
}

void manager::fetch_add(const call &c)
{
	const number kind{c.head.flags};
	const entry *e = store_.find(c.key);
	std::byte value[8] = {};

	if (!kind.is_valid() || (e && e->vlen != kind.width()))
		return answer(c, -EINVAL);
	if (e)
		std::memcpy(value, e->value, kind.width());
	const std::uint64_t old = load<std::uint64_t>(value);

	kind.add(value, c.head.arg);
	answer(c, put_one(c.key, {value, kind.width()}), old);
}

void manager::clear(const call &c)
{
	const std::uint64_t nr = store_.size();

	store_.clear();
	answer(c, 0, nr);
}

// Tries a page of full length, and if there is no memory for one, what travels in the ring. fill(packer, limit, status)
// returns the reply's arg.
template <class Fill> void manager::answer_page(const call &c, Fill &&fill)
{
	for (const std::size_t limit : {page_max, std::size_t{inline_max}}) {
		packer p(sizeof(reply));
		reply head{c.head.id, 0, 0, 0, 0, 0};

		head.arg = fill(p, limit, head.status);
		head.len = p.size() - sizeof(reply);
		std::memcpy(p.data(), &head, sizeof(head));
		if (send(*c.from, p.data(), p.size()))
			return;
	}
	drop(*c.from); // cannot be: the second one travels in the ring
}

static bool is_small(const entry &e)
{
	return sizeof(reply) + e.vlen <= inline_max;
}

static void pack_entry(packer &p, const entry &e, bool with_value)
{
	p.u32(e.klen);
	if (with_value)
		p.u32(is_small(e) ? static_cast<std::uint32_t>(e.vlen) : len_large);
	p.raw(e.addr, e.klen);
	if (with_value && is_small(e))
		p.raw(e.value, e.vlen);
}

// One page of keys, or of keys and values. A page has at least one record, however long: keys are at most key_max.
void manager::scan(const call &c)
{
	const bool with_values = c.head.flags & scan_values;

	answer_page(c, [&](packer &p, std::size_t limit, std::int32_t &status) -> std::uint64_t {
		std::uint64_t at = c.head.arg;

		for (bool first = true;; first = false) {
			const std::uint64_t here = at;
			const std::size_t before = p.size();
			const entry *e = store_.next(at);

			if (!e)
				return scan_end;
			pack_entry(p, *e, with_values);
			if (p.size() <= limit || (first && limit > inline_max))
				continue;
			p.truncate(before);
			if (first)
				status = -ENOSPC;
			return here;
		}
	});
}

// Records: klen, vlen, key, value. Those before the first that fails are put.
void manager::put_many(const call &c)
{
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
			err = put_one(key, value);
		if (err < 0)
			break;
	}
	answer(c, err, done);
}

// Records: klen, key; answered by records vlen, value in the same order, as many as there is room for.
void manager::get_many(const call &c)
{
	answer_page(c, [&](packer &p, std::size_t limit, std::int32_t &status) -> std::uint64_t {
		unpacker u(c.value);
		std::uint64_t done = 0;

		for (; !u.empty(); done++) {
			std::uint32_t klen;
			bytes key;

			if (!u.u32(klen) || !u.raw(klen, key)) {
				status = -EPROTO;
				break;
			}
			const entry *e = store_.find(key);
			const bool fits = e && sizeof(reply) + sizeof(klen) + e->vlen <= inline_max;

			if (p.size() + sizeof(klen) + (fits ? e->vlen : 0) > limit)
				break;
			p.u32(!e ? len_missing : fits ? static_cast<std::uint32_t>(e->vlen) : len_large);
			if (fits)
				p.raw(e->value, e->vlen);
		}
		return done;
	});
}

} // namespace ch::dd

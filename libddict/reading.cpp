// SPDX-License-Identifier: Apache-2.0
// reading.cpp - what a manager does for each request that reads.
#include "manager.hpp"

namespace ch::dd {

// Values that one client may have pinned at a time: one for each of its threads that is reading, and its views.
constexpr std::size_t pins_max = 65536;
// Slots that a page of a scan looks at: others are served in between.
constexpr std::uint64_t looked_at_max = 65536;

void manager::send_value(const call &c, const version &v)
{
	if (v.vlen <= inline_value_max)
		return answer(*c.from, {c.head.id, 0, 0, 0, 0, v.vlen}, v.val());
	if (c.from->pins.size() >= pins_max)
		return answer(c, -ENOMEM);
	const auto *base = static_cast<const std::byte *>(ch_segment_addr(seg_.get()));
	const std::uint64_t pin = next_pin_++;

	c.from->pins.emplace(pin, v.storage);
	answer(*c.from,
	       {c.head.id, 0, static_cast<std::uint32_t>(form::pinned), pin, static_cast<std::uint64_t>(v.value - base),
		v.vlen},
	       {});
}

manager::outcome manager::get(const call &c, bool and_erase)
{
	bool has_to_wait = false;

	if (c.head.at < store_.oldest()) {
		answer(c, -ERANGE);
		return outcome::answered;
	}
	const version *v = readable(c, c.key, has_to_wait);

	if (has_to_wait)
		return outcome::on_key;
	if (!v) {
		answer(c, -ENOENT);
		return outcome::answered;
	}
	if (!and_erase) {
		send_value(c, *v);
		store_.show_found();
		return outcome::answered;
	}
	std::byte small[inline_value_max]; // of a block that the erasure frees
	const version was = {nullptr, v->storage ? v->value : small, v->vlen, 0, 0, v->storage, nullptr, false, false};

	if (!v->storage && v->vlen)
		std::memcpy(small, v->value, v->vlen);
	if (const int err = store_.erase(c.key, c.head.at); err < 0)
		return answer_or_wait(c, err);
	changed(c.key, c.head.at, &c);
	send_value(c, was);
	return outcome::answered;
}

void manager::contains(const call &c)
{
	bool has_to_wait = false;

	if (c.head.at < store_.oldest())
		return answer(c, -ERANGE);
	answer(c, readable(c, c.key, has_to_wait) ? 0 : -ENOENT);
}

manager::outcome manager::wait_for(const call &c)
{
	const version *v = store_.find(c.key, c.head.at);

	if (!v || (!(c.head.flags & wait_any) &&
		   (v->vlen != c.value.size() || (v->vlen && std::memcmp(v->value, c.value.data(), v->vlen) != 0))))
		return outcome::on_key;
	answer(c, 0);
	return outcome::answered;
}

void manager::size(const call &c)
{
	answer(c, 0, c.head.at >= newest_ ? store_.size() : store_.size_at(c.head.at));
}

void manager::release(const call &c)
{
	const bool was_there = c.from->pins.erase(c.head.arg) != 0;

	if (!(c.head.flags & release_silently))
		answer(c, was_there ? 0 : -ENOENT);
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

static void pack_entry(packer &p, const entry &e, const version &v, bool with_value)
{
	const bool is_small = v.vlen <= inline_value_max;

	p.u32(e.klen);
	if (with_value)
		p.u32(is_small ? static_cast<std::uint32_t>(v.vlen) : len_large);
	p.raw(e.v.addr, e.klen);
	if (with_value && is_small)
		p.raw(v.value, v.vlen);
}

static bool begins_with(bytes key, bytes prefix)
{
	return prefix.empty() ||
	       (key.size() >= prefix.size() && std::memcmp(key.data(), prefix.data(), prefix.size()) == 0);
}

// One page of keys, or of keys and values. A page may be empty, and says where to go on.
void manager::scan(const call &c)
{
	const bool with_values = c.head.flags & scan_values;

	if (c.head.at < store_.oldest())
		return answer(c, -ERANGE);
	answer_page(c, [&](packer &p, std::size_t limit, std::int32_t &status) -> std::uint64_t {
		std::uint64_t at = c.head.arg;
		const std::uint64_t stop = at + std::min(looked_at_max, scan_end - at);
		bool first = true;

		while (at < stop) {
			const std::uint64_t here = at;
			const std::size_t before = p.size();
			const entry *e = store_.next(at);

			if (!e)
				return scan_end;
			const version *v = begins_with(e->key(), c.key) ? store::seen(*e, c.head.at) : nullptr;

			if (!v)
				continue;
			pack_entry(p, *e, *v, with_values);
			if (p.size() > limit && (!first || limit <= inline_max)) {
				p.truncate(before);
				if (first)
					status = -ENOSPC;
				return here;
			}
			first = false;
		}
		return at >= store_.nr_slots() ? scan_end : at;
	});
}

// Records: klen, key; answered by records vlen, value in the same order, as many as there is room for.
void manager::get_many(const call &c)
{
	if (c.head.at < store_.oldest())
		return answer(c, -ERANGE);
	answer_page(c, [&](packer &p, std::size_t limit, std::int32_t &status) -> std::uint64_t {
		unpacker u(c.value);
		std::uint64_t done = 0;

		for (; !u.empty(); done++) {
			std::uint32_t klen;
			bytes key;
			bool has_to_wait = false;

			if (!u.u32(klen) || !u.raw(klen, key)) {
				status = -EPROTO;
				break;
			}
			const version *v = readable(c, key, has_to_wait);
			if (v)
				store_.show_found();
			const bool fits = v && sizeof(reply) + sizeof(klen) + v->vlen <= inline_max;

			if (p.size() + sizeof(klen) + (fits ? v->vlen : 0) > limit)
				break;
			// One that is waited for is asked for by itself, as a large one is.
			p.u32(has_to_wait ? len_large
			      : !v        ? len_missing
			      : fits      ? static_cast<std::uint32_t>(v->vlen)
					  : len_large);
			if (fits)
				p.raw(v->value, v->vlen);
		}
		return done;
	});
}

void manager::persisted(const call &c)
{
	if (!persister_)
		return answer_text(c, -EINVAL, no_files);
	try {
		const std::vector<std::uint64_t> ids = persister_->ids();

		answer_page(c, [&](packer &p, std::size_t limit, std::int32_t &) -> std::uint64_t {
			for (const std::uint64_t id : ids) {
				if (id < c.head.arg)
					continue;
				if (p.size() + sizeof(id) > limit)
					return id;
				p.raw(&id, sizeof(id));
			}
			return scan_end;
		});
	} catch (const error &e) {
		answer_text(c, -e.code().value(), e.what());
	}
}

void manager::statistics(const call &c)
{
	if (c.head.flags & stats_reset) {
		for (op_stats &s : stats_.ops)
			s = {};
		shown_before_ = store_.shop_window()->nr_gets();
		return answer(c, 0);
	}
	ch_pool_stats pool;
	packer p(sizeof(reply));
	reply head{c.head.id, 0, 0, 0, 0, sizeof(stats_)};

	check(ch_pool_get_stats(ch_channel_get_pool(requests_.get()), &pool));
	stats_.memory = pool.len;
	stats_.used = pool.used;
	stats_.largest = pool.largest;
	stats_.keys = store_.size();
	store_.let_go();
	stats_.clients = 0;
	stats_.pinned = store_.shop_window()->nr_hooked();
	for (const client &cl : clients_) {
		stats_.clients += cl.id != 0;
		stats_.pinned += cl.pins.size();
	}
	stats_.waiting = parked_.size();
	stats_.single = nr_single();
	stats_.evicted = store_.nr_evicted();
	stats_.expired = store_.nr_expired();
	stats_.oldest = store_.oldest();
	stats_.newest = newest_;
	std::memcpy(p.data(), &head, sizeof(head));
	manager_stats all = stats_;

	all.ops[static_cast<unsigned>(op::get)].count += store_.shop_window()->nr_gets() - shown_before_;
	p.raw(&all, sizeof(all));
	if (!send(*c.from, p.data(), p.size()))
		answer(c, -ENOSPC);
}

} // namespace ch::dd

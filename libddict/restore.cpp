// SPDX-License-Identifier: Apache-2.0
// restore.cpp - reading checkpoints and logs into a store.
#include "restore.hpp"
#include "directory.hpp"
#include "place.hpp"
#include "snapshot.hpp"

namespace ch::dd {

namespace {

manner manner_of(const record &r)
{
	return {r.at, to_monotonic(r.expires), (r.flags & record_persistent) != 0};
}

bool has_expired(const record &r)
{
	return r.expires && r.expires <= static_cast<std::int64_t>(realtime_ns());
}

} // namespace

// Of a file of manager `from` of nr.
bool restorer::is_wanted(bytes key, take what, unsigned from, unsigned nr)
{
	if (what == take::all)
		return true;
	const std::uint64_t hash = key_hash(key);
	const bool is_stray = place(hash, nr) != from;

	has_strays_ |= is_stray;
	return is_stray == (what == take::strays) && place(hash, nr_) == m_;
}

template <class Try> void restorer::with_room(store &to, Try &&attempt) const
{
	int err = attempt();

	while (err == -ENOSPC && may_evict_ && to.coldest()) {
		to.evict();
		err = attempt();
	}
	if (err == -ENOSPC)
		refuse(ENOSPC, "ddict: manager " + std::to_string(m_) + " of " + std::to_string(nr_) +
				       " has no room for its keys in " + vault_.dir() +
				       "; create the dictionary with more memory");
	if (err < 0 && err != -ENOENT)
		refuse(-err, vault_.dir() + ": a record cannot be restored");
}

// fill(to) writes the value.
template <class Fill> void restorer::put(store &to, const record &r, bytes key, Fill &&fill) const
{
	const manner how = manner_of(r);
	std::byte small[inline_value_max], *at = nullptr;

	if (r.vlen > sizeof(small)) {
		with_room(to, [&] { return to.put_block(key, r.vlen, how, at); });
		fill(at);
		return;
	}
	fill(small);
	with_room(to, [&] { return to.put(key, {small, r.vlen}, how); });
}

void restorer::read_shard(const manifest &of, unsigned from, take what)
{
	shard_reader in(vault_, of, from);
	std::vector<std::byte> key;
	record r;

	while (in.next(r, key)) {
		const bool is_there = what == take::strays && into_.newest(key);

		if (has_expired(r) || !is_wanted(key, what, from, static_cast<unsigned>(of.shards.size())) || is_there)
			in.skip(r.vlen);
		else
			put(into_, r, key, [&](std::byte *to) { in.read(to, r.vlen); });
	}
}

void restorer::read_checkpoint(std::uint64_t id)
{
	const manifest of = vault_.read(id);
	const auto nr = static_cast<unsigned>(of.shards.size());

	newest_ = of.checkpoint;
	into_.retire_before(newest_);
	if (nr == nr_)
		return read_shard(of, m_, take::all);
	for (const take what : {take::own, take::strays})
		for (unsigned from = 0; (what == take::own || has_strays_) && from < nr; from++)
			read_shard(of, from, what);
}

// The last log with a whole base; what is before it has been overtaken.
std::size_t restorer::first_log(const log_manifest &of, unsigned from, const std::vector<std::uint64_t> &numbers) const
{
	for (std::size_t i = numbers.size(); i-- > 0;) {
		log_reader in(vault_, {of.epoch, numbers[i], from, of.nr_managers, 0, 0});
		record r;
		bytes key, value;

		while (in.next(r, key, value))
			if (r.flags & record_based)
				return i;
	}
	refuse(EPROTO, vault_.dir() + ": manager " + std::to_string(from) + " of " + std::to_string(of.nr_managers) +
			       " has no whole log there");
}

void restorer::read_logs(const log_manifest &of, unsigned from, take what, store &to)
{
	std::vector<std::uint64_t> numbers = vault_.logs(of.epoch, from);

	last_log_ = numbers.empty() ? 0 : numbers.back();
	if (!numbers.empty() && !log_has_frames(vault_, {of.epoch, last_log_, from, of.nr_managers, 0, 0}))
		numbers.pop_back();
	const std::size_t first = first_log(of, from, numbers);

	for (std::size_t i = first; i < numbers.size(); i++) {
		log_reader in(vault_, {of.epoch, numbers[i], from, of.nr_managers, 0, 0});
		record r;
		bytes key, value;

		if (i > first && in.stands_alone())
			break;
		while (in.next(r, key, value))
			if (r.flags & record_clear)
				clear(to, from, what == take::own ? of.nr_managers : 0);
			else if (!(r.flags & record_based) && is_wanted(key, what, from, of.nr_managers))
				replay(to, r, key, value);
		if (!in.ended_well())
			break;
	}
}

void restorer::replay(store &to, const record &r, bytes key, bytes value)
{
	const manner how = manner_of(r);
	std::size_t len = 0;

	if (r.at > newest_) {
		newest_ = r.at;
		to.retire_before(newest_ >= working_set_ ? newest_ - working_set_ + 1 : 0);
	}
	if (r.flags & record_deleted)
		with_room(to, [&] { return to.erase(key, std::max(r.at, to.oldest())); });
	else if (r.flags & record_append)
		with_room(to, [&] { return to.append(key, value, how, len); });
	else
		put(to, r, key, [&](std::byte *at) {
			if (!value.empty())
				std::memcpy(at, value.data(), value.size());
		});
}

// Everything, or with nr, the keys that belonged to this manager of nr.
void restorer::clear(store &to, unsigned from, unsigned nr)
{
	if (!nr)
		return to.clear();
	for (std::uint64_t at = 0; const entry *e = to.next(at);) {
		const std::vector<std::byte> key(e->key().begin(), e->key().end());

		if (place(e->hash, nr) == from)
			to.erase(key, std::max(newest_, to.oldest()));
	}
}

// Keys that are nowhere else: their newest values.
void restorer::merge(store &strays)
{
	for (std::uint64_t at = 0; const entry *e = strays.next(at);) {
		if (e->v.is_deleted || into_.newest(e->key()))
			continue;
		const record r{e->klen, e->v.is_persistent ? record_persistent : 0, e->v.vlen,
			       std::max(e->v.at, into_.oldest()), to_realtime(e->expires)};

		put(into_, r, e->key(), [&](std::byte *to) {
			if (e->v.vlen)
				std::memcpy(to, e->v.value, e->v.vlen);
		});
	}
}

void restorer::read_log(std::uint64_t working_set)
{
	const log_manifest of = vault_.read_log();

	working_set_ = working_set;
	if (of.nr_managers == nr_) {
		read_logs(of, m_, take::all, into_);
	} else {
		for (unsigned from = 0; from < of.nr_managers; from++)
			read_logs(of, from, take::own, into_);
		for (unsigned from = 0; has_strays_ && from < of.nr_managers; from++) {
			store strays(into_.pool());

			read_logs(of, from, take::strays, strays);
			merge(strays);
		}
	}
	into_.expire(to_monotonic(static_cast<std::int64_t>(realtime_ns())));
}

} // namespace ch::dd

// SPDX-License-Identifier: Apache-2.0
// clone.cpp - all that a dictionary holds put into another one, by functions that run next to the data: with all
// checkpoints, lives and persistence, every manager's keys at the same time.
#include "visit.hpp"
#include <algorithm>
#include <deque>

namespace ch {

namespace {

struct copy_order {
	descriptor to;
	std::uint64_t newest; // checkpoint of any manager
};

// Puts the keys of one manager into another dictionary.
class copier {
public:
	copier(const copy_order &order, dd::store &from, unsigned manager, std::uint64_t newest, unsigned managers)
	    : to_(ddict_core::attach(order.to)), from_(from)
	{
		const std::uint64_t set = to_.working_set();
		const bool is_same_place = to_.managers() == managers;
		const std::uint64_t last = is_same_place ? newest : order.newest;

		if (is_same_place)
			to_ = to_.directed(manager);
		oldest_ = std::max(from.oldest(), last >= set ? last - set + 1 : 0);
		to_.set_checkpoint(oldest_);
		batch_.emplace(to_);
	}
	std::uint64_t copy_all();

private:
	void copy(const dd::entry &e);

	ddict_core to_;
	dd::store &from_;
	std::uint64_t oldest_; // checkpoint that there is in the copy
	std::optional<ddict_core::put_batch> batch_;
};

std::uint64_t copier::copy_all()
{
	std::uint64_t nr = 0;

	for (std::uint64_t slot = 0; const dd::entry *e = from_.next(slot); nr++)
		copy(*e);
	batch_->finish();
	return nr;
}

// What any checkpoint from the oldest on sees of this key, older versions first.
void copier::copy(const dd::entry &e)
{
	std::vector<const dd::version *> all;

	for (const dd::version *v = &e.v; v && v->addr; v = v->older.get()) {
		all.push_back(v);
		if (v->at <= oldest_)
			break;
	}
	for (; !all.empty(); all.pop_back()) {
		const dd::version &v = *all.back();
		const dd::copied write{v.val()};
		ddict_put how{.persistent = v.is_persistent};

		if (e.expires)
			how.ttl = nanoseconds(std::max<std::int64_t>(e.expires - dd::monotonic_ns(), 1));
		to_.set_checkpoint(std::max(v.at, oldest_));
		if (v.is_deleted)
			to_.erase(e.key());
		else if (all.size() == 1 && v.at <= oldest_ && !e.expires && !v.is_persistent)
			batch_->add(e.key(), v.vlen, write);
		else
			to_.put(e.key(), v.vlen, write, how);
	}
}

} // namespace

void ddict_visit::copy(ddict_visit &v, bytes arg)
{
	const auto order = dd::load<copy_order>(arg.data());
	std::uint64_t nr = copier(order, v.s_.from, v.s_.manager, v.s_.newest, v.s_.managers).copy_all();

	while (v.next_part())
		nr += dd::load<std::uint64_t>(v.part().data());
	v.answer(std::as_bytes(std::span(&nr, 1)));
}

std::uint64_t ddict_core::working_set() const
{
	return conn().dir().rules.working_set;
}

std::uint64_t ddict_core::copy_to(const ddict_core &to) const
{
	const copy_order order{to.descr_, newest_checkpoint()};
	ddict_core all(*this);

	all.set_checkpoint(order.newest); // held by every manager, whatever this handle's is
	return dd::load<std::uint64_t>(
		all.visit(ddict_visit::copy, std::as_bytes(std::span(&order, 1))).data().data());
}

ddict_core ddict_core::clone(const ddict_options &o) const
{
	ddict_core to = create(o);

	copy_to(to);
	to.set_checkpoint(checkpoint_id());
	return to;
}

// How many keys a manager has. A successor says first that its predecessor's keys were lost, once.
static std::uint64_t keys_of(const ddict_core &d, unsigned m)
{
	for (int tries = 0;; tries++) {
		try {
			return d.directed(m).stats().at(0).keys;
		} catch (const error &e) {
			if (e.code().value() != EOWNERDEAD || tries == 3)
				throw;
		}
	}
}

// From that of the same manager's which has most.
static std::uint64_t fill(std::span<const ddict_core> all, std::size_t which, unsigned m)
{
	const ddict_core *best = nullptr;
	std::uint64_t most = 0;

	for (std::size_t i = 0; i < all.size(); i++)
		if (const std::uint64_t keys = i == which ? 0 : keys_of(all[i], m); keys > most) {
			most = keys;
			best = &all[i];
		}
	return best ? best->directed(m).copy_to(all[which]) : 0;
}

std::uint64_t ddict_core::synchronise(std::span<const ddict_core> all)
{
	std::uint64_t nr = 0;

	for (const ddict_core &d : all)
		if (d.managers() != all[0].managers())
			dd::refuse(EINVAL, "ddict: dictionaries that are synchronised have the same number of managers");
	for (std::size_t i = 0; i < all.size(); i++)
		for (unsigned m = 0; m < all[i].managers(); m++)
			if (keys_of(all[i], m) == 0)
				nr += fill(all, i, m);
	return nr;
}

} // namespace ch

// SPDX-License-Identifier: Apache-2.0
// versions.cpp - the other half of a store: versions of a key and the checkpoints that see them, expiry, and the order
// of use.
#include "store.hpp"
#include <algorithm>

namespace ch::dd {

std::vector<const version *> versions_of(const entry &e)
{
	std::vector<const version *> all;

	for (const version *v = &e.v; v && v->addr; v = v->older.get())
		all.push_back(v);
	std::reverse(all.begin(), all.end());
	return all;
}

const version *store::seen(const entry &e, std::uint64_t at)
{
	for (const version *v = &e.v; v && v->addr; v = v->older.get())
		if (v->at <= at)
			return v->is_deleted ? nullptr : v;
	return nullptr;
}

// The version that a value written at this checkpoint replaces, or nullptr: then it is one more. At the oldest
// checkpoint nobody sees what was before.
version *store::target(entry &e, std::uint64_t at) const
{
	for (version *v = &e.v; v && v->addr; v = v->older.get())
		if (v->at <= at)
			return v->at == at || at <= oldest_ ? v : nullptr;
	return nullptr;
}

// The private memory that make() will need, so that it cannot fail; also room in the list of layered slots.
std::unique_ptr<version> store::spare_for(std::uint32_t slot, std::uint64_t at) const
{
	auto &self = const_cast<store &>(*this);

	if (slot == index::none || target(self.slots_[slot], at))
		return nullptr;
	if (layered_.size() == layered_.capacity())
		self.layered_.reserve(2 * layered_.size() + 64);
	return std::make_unique<version>();
}

// Empty room for the version of this checkpoint; what it replaces is dropped.
version &store::make(std::uint32_t slot, std::uint64_t at, std::unique_ptr<version> spare)
{
	entry &e = slots_[slot];

	if (!e.v.addr) {
		live_++;
		return e.v;
	}
	if (version *v = target(e, at)) {
		if (v == &e.v && v->is_deleted)
			live_++;
		v->is_deleted = false;
		drop_block(*v);
		if (at <= oldest_ && v->older)
			drop_all(*std::exchange(v->older, nullptr));
		return *v;
	}
	layered_.push_back(slot);
	if (at > e.v.at) {
		live_ += e.v.is_deleted;
		*spare = std::move(e.v);
		e.v = version();
		e.v.older = std::move(spare);
		return e.v;
	}
	version *newer = &e.v;

	while (newer->older && newer->older->at > at)
		newer = newer->older.get();
	spare->older = std::move(newer->older);
	newer->older = std::move(spare);
	return *newer->older;
}

// True if the slot still has more than one version, or a deletion.
bool store::prune(std::uint32_t slot) noexcept
{
	entry &e = slots_[slot];
	version *v = &e.v, *newer = nullptr;

	if (!v->addr)
		return false;
	about_to_change(slot);
	for (; v && v->at > oldest_; v = v->older.get())
		newer = v;
	if (v && v->older)
		drop_all(*std::exchange(v->older, nullptr));
	if (v && v->is_deleted) {
		if (!newer) {
			remove(slot);
			return false;
		}
		drop_block(*v);
		newer->older.reset();
	}
	return e.v.older || e.v.is_deleted;
}

void store::retire_before(std::uint64_t oldest)
{
	if (oldest <= oldest_)
		return;
	oldest_ = oldest;
	if (window_)
		window_->set_oldest(oldest);
	std::sort(layered_.begin(), layered_.end());
	layered_.erase(std::unique(layered_.begin(), layered_.end()), layered_.end());
	std::erase_if(layered_, [this](std::uint32_t slot) { return !prune(slot); });
}

// An expiry that was replaced stays in the queue until its time has come, or until such are many.
void store::expire_at(std::uint32_t slot, std::int64_t when)
{
	slots_[slot].expires = when;
	if (!when)
		return;
	if (expiries_.size() > 2 * index_.size() + 1024) {
		expiries_ = {};
		for (std::uint32_t s = 0; s < slots_.size(); s++)
			if (slots_[s].v.addr && slots_[s].expires)
				expiries_.push({slots_[s].expires, s});
	} else {
		expiries_.push({when, slot});
	}
}

void store::expire(std::int64_t now)
{
	while (!expiries_.empty() && expiries_.top().when <= now) {
		const expiry x = expiries_.top();

		expiries_.pop();
		if (x.slot >= slots_.size() || !slots_[x.slot].v.addr || slots_[x.slot].expires != x.when)
			continue;
		remove(x.slot);
		nr_expired_++;
	}
}

void store::unlink(std::uint32_t slot) noexcept
{
	entry &e = slots_[slot];

	if (e.colder != index::none)
		slots_[e.colder].hotter = e.hotter;
	else if (coldest_ == slot)
		coldest_ = e.hotter;
	if (e.hotter != index::none)
		slots_[e.hotter].colder = e.colder;
	else if (hottest_ == slot)
		hottest_ = e.colder;
	e.colder = e.hotter = index::none;
}

void store::touch(std::uint32_t slot) noexcept
{
	if (hottest_ == slot)
		return;
	unlink(slot);
	slots_[slot].colder = hottest_;
	if (hottest_ != index::none)
		slots_[hottest_].hotter = slot;
	else
		coldest_ = slot;
	hottest_ = slot;
}

// One that clients have seen in the window since it was last looked at here was used; each is passed over once.
const entry *store::coldest()
{
	for (std::size_t n = index_.size(); n > 0 && coldest_ != index::none; n--) {
		entry &e = slots_[coldest_];

		if (e.shown_in == window::none || !window_->take_use(e.shown_in))
			break;
		e.is_used = true;
		touch(coldest_);
	}
	return coldest_ == index::none ? nullptr : &slots_[coldest_];
}

bool store::take_use(const entry &e) noexcept
{
	const bool was_seen = e.shown_in != window::none && window_->take_use(e.shown_in);

	return std::exchange(const_cast<entry &>(e).is_used, false) || was_seen;
}

void store::show_in(std::unique_ptr<own_window> w, const std::byte *base)
{
	read_.reserve(w->nr_hooks_at_most());
	window_ = std::move(w);
	base_ = base;
	window_->set_oldest(oldest_);
}

// Of the newest value. What lies in private memory cannot be shown, and a deletion need not be.
void store::show(entry &e) noexcept
{
	version &v = e.v;

	if (!v.addr || v.is_deleted || (v.storage && v.storage->own))
		return;
	if (e.shown_in == window::none)
		e.shown_in = window_->take(e.hash, &e);
	v.was_shown = true;
	const auto key = static_cast<std::uint64_t>(v.addr - base_), value = static_cast<std::uint64_t>(v.value - base_);

	window_->show(e.shown_in, {e.hash, key, value, v.vlen, v.at, e.klen, e.expires});
}

void store::show_found() noexcept
{
	if (window_ && found_)
		show(*found_);
}

void store::let_go() noexcept
{
	std::erase_if(read_, [this](const read_value &r) { return !window_->is_hooked(r.place); });
}

void store::evict()
{
	remove(coldest_);
	nr_evicted_++;
}

void store::evict(bytes key)
{
	nr_evicted_ += newest(key) != nullptr;
	forget(key);
}

} // namespace ch::dd

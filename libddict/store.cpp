// SPDX-License-Identifier: Apache-2.0
// store.cpp - the shard of one manager: keys, and their values.
#include "frozen.hpp"
#include "place.hpp"
#include <algorithm>

namespace ch::dd {

std::uint32_t store::slot_of(std::uint64_t hash, bytes key) const
{
	return index_.find(hash, [&](std::uint32_t slot) {
		const bytes k = slots_[slot].key();

		return k.size() == key.size() && (k.empty() || std::memcmp(k.data(), key.data(), k.size()) == 0);
	});
}

version *store::find(bytes key, std::uint64_t at)
{
	const std::uint32_t slot = slot_of(key_hash(key), key);

	found_ = nullptr;
	if (slot == index::none)
		return nullptr;
	if (is_ordered_) {
		touch(slot);
		slots_[slot].is_used = true;
	}
	found_ = &slots_[slot];
	return const_cast<version *>(seen(slots_[slot], at));
}

const entry *store::newest(bytes key)
{
	const std::uint32_t slot = slot_of(key_hash(key), key);

	return slot == index::none ? nullptr : &slots_[slot];
}

// A free slot, already in the index. Whoever calls fills it at once; everything that can fail for want of private
// memory comes before the index is touched.
std::uint32_t store::fresh(std::uint64_t hash, std::size_t klen)
{
	std::uint32_t slot;

	index_.reserve_one([this](std::uint32_t s) { return slots_[s].hash; });
	if (free_.empty()) {
		if (free_.capacity() <= slots_.size())
			free_.reserve(slots_.size() * 2 + 64);
		slots_.emplace_back();
		slot = static_cast<std::uint32_t>(slots_.size() - 1);
	} else {
		slot = free_.back();
		free_.pop_back();
	}
	slots_[slot].hash = hash;
	slots_[slot].klen = static_cast<std::uint32_t>(klen);
	index_.insert(hash, slot);
	return slot;
}

void store::drop_block(version &v) noexcept
{
	if (v.was_shown && v.storage && window_->is_hooked(static_cast<std::uint64_t>(v.value - base_))) {
		if (read_.size() % 8 == 7 || read_.size() == read_.capacity())
			let_go(); // then there is room: it has as much as there are hooks
		read_.push_back({static_cast<std::uint64_t>(v.value - base_), v.storage});
	}
	v.was_shown = false;
	if (v.addr && is_read(v)) {
		try {
			held_back_.push_back({v.storage ? nullptr : v.addr, v.storage});
			v.storage.reset();
			v.addr = nullptr;
			return;
		} catch (const std::bad_alloc &) {
			is_torn_ = true;
		}
	}
	if (v.storage)
		v.storage.reset();
	else if (v.addr)
		ch_pool_free(pool_, v.addr);
	v.addr = nullptr;
}

void store::end_reading() noexcept
{
	if (--readers_)
		return;
	for (const held_block &h : held_back_)
		if (h.addr)
			ch_pool_free(pool_, h.addr);
	held_back_ = {};
	is_torn_ = false;
}

// A version and all older ones. Not by recursion: a working set may be long.
void store::drop_all(version &v) noexcept
{
	drop_block(v);
	for (std::unique_ptr<version> o = std::move(v.older); o; o = std::move(o->older))
		drop_block(*o);
}

int store::allocate(std::size_t len, void *&addr, std::size_t &room) const
{
	if (int err = ch_pool_alloc(pool_, std::max<std::size_t>(len, 1), CH_TRY, &addr); err < 0)
		return err == -EMSGSIZE ? -ENOSPC : err;
	const ssize_t got = ch_pool_block_len(pool_, addr);

	room = got < 0 ? len : static_cast<std::size_t>(got);
	return 0;
}

static version filled(std::byte *addr, std::size_t room, bytes key, bytes value)
{
	version v;

	if (!key.empty())
		std::memcpy(addr, key.data(), key.size());
	if (!value.empty())
		std::memcpy(addr + key.size(), value.data(), value.size());
	v.addr = addr;
	v.value = addr + key.size();
	v.vlen = value.size();
	v.room = room - key.size();
	return v;
}

int store::put(bytes key, bytes value, const manner &how)
{
	const std::uint64_t hash = key_hash(key);
	std::uint32_t slot = slot_of(hash, key);
	void *addr = nullptr;
	std::size_t room = 0;

	if (slot != index::none) {
		version *v = target(slots_[slot], how.at);

		if (v && v == &slots_[slot].v && v->is_writable() && !v->is_deleted && v->room >= value.size() &&
		    (v->storage || !is_read(*v))) { // a child has private memory of its own
			about_to_change(slot);
			if (!value.empty())
				std::memcpy(v->value, value.data(), value.size());
			v->vlen = value.size();
			settle(slot, *v, how);
			return 0;
		}
	}
	if (int err = allocate(key.size() + value.size(), addr, room); err < 0)
		return err;
	try {
		std::unique_ptr<version> spare = spare_for(slot, how.at);

		if (slot == index::none)
			slot = fresh(hash, key.size());
		place(slot, filled(static_cast<std::byte *>(addr), room, key, value), std::move(spare), how);
	} catch (...) {
		ch_pool_free(pool_, addr);
		throw;
	}
	return 0;
}

void store::adopt(bytes key, bytes value, ch::message &&m, const manner &how)
{
	kept storage = std::make_shared<block>();

	storage->message = std::move(m);
	adopt(key, value, std::move(storage), how);
}

static kept copy_privately(bytes key, bytes value, bytes &out_key, bytes &out_value)
{
	kept storage = std::make_shared<block>();

	storage->own = std::make_unique_for_overwrite<std::byte[]>(std::max<std::size_t>(key.size() + value.size(), 1));
	const std::span<std::byte> to(storage->own.get(), key.size() + value.size());
	copied{key}(to);
	copied{value}(to.subspan(key.size()));
	out_key = to.first(key.size());
	out_value = to.subspan(key.size());
	return storage;
}

void store::put_privately(bytes key, bytes value, const manner &how)
{
	bytes k, v;
	kept storage = copy_privately(key, value, k, v);

	adopt(k, v, std::move(storage), how, value.size());
}

int store::move_in(bytes key, std::uint64_t at)
{
	const std::uint32_t slot = slot_of(key_hash(key), key);
	version *v = slot == index::none ? nullptr : &slots_[slot].v;

	while (v && v->at != at)
		v = v->older.get();
	if (!v || !v->storage || !v->storage->own || v->is_deleted)
		return 0; // it has another value, or none
	const kept stays = v->storage;                        // while it is copied
	const std::size_t room = std::exchange(v->room, 0); // it is not to be put where it is
	const int err = put(key, v->val(), {at, slots_[slot].expires, v->is_persistent});

	if (err < 0)
		v->room = room;
	return err;
}

// The storage stays where it is when it is moved; key and value lie in it.
void store::adopt(bytes key, bytes value, kept storage, const manner &how, std::size_t room)
{
	const std::uint64_t hash = key_hash(key);
	std::uint32_t slot = slot_of(hash, key);
	std::unique_ptr<version> spare = spare_for(slot, how.at);
	version v;

	if (slot == index::none)
		slot = fresh(hash, key.size());
	v.addr = const_cast<std::byte *>(key.data());
	v.value = const_cast<std::byte *>(value.data());
	v.vlen = value.size();
	v.room = room;
	v.storage = std::move(storage);
	place(slot, std::move(v), std::move(spare), how);
}

// Readers in place see the bytes that were there when they came, which stay; so what is added may lie behind them in
// the same block. Room is doubled, so that many small additions cost no more than a few copies of all.
int store::append(bytes key, bytes more, const manner &how, std::size_t &out_len)
{
	const std::uint64_t hash = key_hash(key);
	std::uint32_t slot = slot_of(hash, key);
	const version *old = slot == index::none ? nullptr : seen(slots_[slot], how.at);
	const bytes was = old ? old->val() : bytes();
	void *addr = nullptr;
	std::size_t room = 0;

	out_len = was.size() + more.size();
	if (old && old == &slots_[slot].v && old == target(slots_[slot], how.at) && old->room >= out_len &&
	    (old->storage || out_len <= inline_value_max)) {
		version &v = slots_[slot].v;

		about_to_change(slot);
		if (!more.empty())
			std::memcpy(v.value + was.size(), more.data(), more.size());
		v.vlen = out_len;
		settle(slot, v, how);
		return 0;
	}
	const std::size_t least = key.size() + out_len;

	if (allocate(was.empty() ? least : least + out_len, addr, room) < 0)
		if (int err = allocate(least, addr, room); err < 0)
			return err;
	try {
		std::unique_ptr<version> spare = spare_for(slot, how.at);
		kept storage = std::make_shared<block>();

		if (slot == index::none)
			slot = fresh(hash, key.size());
		version v = filled(static_cast<std::byte *>(addr), room, key, was);

		if (!more.empty())
			std::memcpy(v.value + was.size(), more.data(), more.size());
		v.vlen = out_len;
		storage->pool = pool_;
		storage->addr = addr;
		v.storage = std::move(storage);
		place(slot, std::move(v), std::move(spare), how);
	} catch (...) {
		ch_pool_free(pool_, addr);
		throw;
	}
	return 0;
}

int store::put_block(bytes key, std::size_t len, const manner &how, std::byte *&out_value)
{
	const std::uint64_t hash = key_hash(key);
	const std::size_t voff = round_up(key.size(), value_align);
	std::uint32_t slot = slot_of(hash, key);
	kept storage = std::make_shared<block>();
	std::size_t room = 0;

	if (const int err = allocate(voff + len, storage->addr, room); err < 0)
		return err;
	storage->pool = pool_;
	std::unique_ptr<version> spare = spare_for(slot, how.at);

	if (slot == index::none)
		slot = fresh(hash, key.size());
	version v = filled(static_cast<std::byte *>(storage->addr), room, key, {});

	out_value = v.value = v.addr + voff;
	v.vlen = len;
	v.room = room - voff;
	v.storage = std::move(storage);
	place(slot, std::move(v), std::move(spare), how);
	return 0;
}

// A new version takes its place among those of its key.
void store::place(std::uint32_t slot, version &&fresh_one, std::unique_ptr<version> spare, const manner &how)
{
	about_to_change(slot);
	version &v = make(slot, how.at, std::move(spare));
	std::unique_ptr<version> older = std::move(v.older);

	v = std::move(fresh_one);
	v.older = std::move(older);
	v.at = how.at;
	v.born = now_;
	settle(slot, v, how);
}

// What follows from a value that was put.
void store::settle(std::uint32_t slot, version &v, const manner &how)
{
	entry &e = slots_[slot];

	v.at = how.at;
	v.is_persistent = how.is_persistent;
	if (e.expires != how.expires)
		expire_at(slot, how.expires);
	if (is_ordered_) {
		touch(slot);
		take_use(e);
	}
}

int store::erase(bytes key, std::uint64_t at)
{
	const std::uint32_t slot = slot_of(key_hash(key), key);

	if (slot == index::none || !seen(slots_[slot], at))
		return -ENOENT;
	entry &e = slots_[slot];

	if (at == oldest_ && e.v.at <= at) {
		remove(slot);
		return 0;
	}
	// Older checkpoints still see it. The deletion needs the key, in a block of its own.
	void *addr = nullptr;
	std::size_t room = 0;

	if (int err = allocate(e.klen, addr, room); err < 0)
		return err;
	try {
		std::unique_ptr<version> spare = spare_for(slot, at);
		place_deletion(slot, filled(static_cast<std::byte *>(addr), room, key, {}), at, std::move(spare));
	} catch (...) {
		ch_pool_free(pool_, addr);
		throw;
	}
	return 0;
}

int store::erase_privately(bytes key, std::uint64_t at)
{
	const int err = erase(key, at);

	if (err != -ENOSPC)
		return err;
	const std::uint32_t slot = slot_of(key_hash(key), key);
	bytes k, none;
	version v;

	v.storage = copy_privately(key, {}, k, none);
	v.addr = v.value = const_cast<std::byte *>(k.data());
	place_deletion(slot, std::move(v), at, spare_for(slot, at));
	return 0;
}

void store::place_deletion(std::uint32_t slot, version &&v, std::uint64_t at, std::unique_ptr<version> spare)
{
	const entry &e = slots_[slot];

	v.is_deleted = true;
	place(slot, std::move(v), std::move(spare), {at, e.expires, false});
	live_ -= e.v.at == at;
}

void store::remove(std::uint32_t slot) noexcept
{
	entry &e = slots_[slot];

	about_to_change(slot);
	live_ -= !e.v.is_deleted;
	if (is_ordered_)
		unlink(slot);
	index_.erase(e.hash, slot, [this](std::uint32_t s) { return slots_[s].hash; });
	if (e.shown_in != window::none)
		window_->give_back(e.shown_in);
	drop_all(e.v);
	e = entry();
	free_.push_back(slot); // room was reserved when the slot was made
}

void store::forget(bytes key) noexcept
{
	if (const std::uint32_t slot = slot_of(key_hash(key), key); slot != index::none)
		remove(slot);
}

void store::clear()
{
	for (frozen *f : watched_by_)
		f->finish();
	for (entry &e : slots_) {
		if (e.shown_in != window::none)
			window_->give_back(e.shown_in);
		if (e.v.addr)
			drop_all(e.v);
	}
	slots_.clear();
	found_ = nullptr;
	free_.clear();
	layered_.clear();
	expiries_ = {};
	index_.clear();
	live_ = 0;
	coldest_ = hottest_ = index::none;
}

void store::take(store &o)
{
	clear();
	std::swap(index_, o.index_);
	slots_.swap(o.slots_);
	free_.swap(o.free_);
	layered_.swap(o.layered_);
	std::swap(expiries_, o.expiries_);
	std::swap(live_, o.live_);
	std::swap(coldest_, o.coldest_);
	std::swap(hottest_, o.hottest_);
	oldest_ = o.oldest_;
}

void store::show_before_change(std::uint32_t slot) noexcept
{
	for (frozen *f : watched_by_)
		f->show(slot);
}

std::size_t store::size_at(std::uint64_t at)
{
	return static_cast<std::size_t>(
		std::count_if(slots_.begin(), slots_.end(), [&](const entry &e) { return seen(e, at); }));
}

entry *store::next(std::uint64_t &from)
{
	while (from < slots_.size()) {
		entry &e = slots_[from++];

		if (e.v.addr)
			return &e;
	}
	return nullptr;
}

} // namespace ch::dd

// SPDX-License-Identifier: Apache-2.0
// store.cpp - the shard of one manager.
#include "store.hpp"
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

entry *store::find(bytes key)
{
	const std::uint32_t slot = slot_of(key_hash(key), key);

	return slot == index::none ? nullptr : &slots_[slot];
}

// A free slot, already in the index. Whoever calls fills it at once; everything that can fail for want of private
// memory comes before the index is touched.
entry &store::fresh(std::uint64_t hash)
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
	index_.insert(hash, slot);
	return slots_[slot];
}

void store::drop_block(entry &e) noexcept
{
	if (e.message)
		e.message.reset();
	else
		ch_pool_free(pool_, e.addr);
	e.addr = nullptr;
}

static void fill(entry &e, std::byte *addr, std::size_t room, bytes key, bytes value)
{
	if (!key.empty())
		std::memcpy(addr, key.data(), key.size());
	if (!value.empty())
		std::memcpy(addr + key.size(), value.data(), value.size());
	e.addr = addr;
	e.klen = static_cast<std::uint32_t>(key.size());
	e.value = addr + key.size();
	e.vlen = value.size();
	e.room = static_cast<std::uint32_t>(room);
}

int store::put(bytes key, bytes value)
{
	const std::uint64_t hash = key_hash(key);
	const std::uint32_t slot = slot_of(hash, key);
	void *addr = nullptr;

	if (slot != index::none && slots_[slot].room >= value.size() && slots_[slot].room > 0) {
		if (!value.empty())
			std::memcpy(slots_[slot].value, value.data(), value.size());
		slots_[slot].vlen = value.size();
		return 0;
	}
	if (int err = ch_pool_alloc(pool_, std::max<std::size_t>(key.size() + value.size(), 1), CH_TRY, &addr); err < 0)
		return err == -EMSGSIZE ? -ENOSPC : err;
	const ssize_t len = ch_pool_block_len(pool_, addr);
	const std::size_t room = len < 0 ? value.size() : static_cast<std::size_t>(len) - key.size();

	try {
		entry &e = slot == index::none ? fresh(hash) : slots_[slot];

		if (slot != index::none)
			drop_block(e);
		fill(e, static_cast<std::byte *>(addr), room, key, value);
	} catch (...) {
		ch_pool_free(pool_, addr);
		throw;
	}
	return 0;
}

void store::adopt(bytes key, bytes value, ch::message &&m)
{
	const std::uint64_t hash = key_hash(key);
	const std::uint32_t slot = slot_of(hash, key);
	kept k = std::make_shared<ch::message>(std::move(m));
	entry &e = slot == index::none ? fresh(hash) : slots_[slot];

	if (slot != index::none)
		drop_block(e);
	e.addr = const_cast<std::byte *>(key.data());
	e.klen = static_cast<std::uint32_t>(key.size());
	e.value = const_cast<std::byte *>(value.data());
	e.vlen = value.size();
	e.room = 0;
	e.message = std::move(k);
}

bool store::erase(bytes key)
{
	const std::uint64_t hash = key_hash(key);
	const std::uint32_t slot = slot_of(hash, key);

	if (slot == index::none)
		return false;
	index_.erase(hash, slot, [this](std::uint32_t s) { return slots_[s].hash; });
	drop_block(slots_[slot]);
	free_.push_back(slot); // room was reserved when the slot was made
	return true;
}

void store::clear()
{
	for (entry &e : slots_)
		if (e.addr)
			drop_block(e);
	slots_.clear();
	free_.clear();
	index_.clear();
}

entry *store::next(std::uint64_t &from)
{
	while (from < slots_.size()) {
		entry &e = slots_[from++];

		if (e.addr)
			return &e;
	}
	return nullptr;
}

} // namespace ch::dd

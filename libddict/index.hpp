// SPDX-License-Identifier: Apache-2.0
// index.hpp - hash index of a shard: from a key's hash to the number of its slot. Open addressing with linear probing
// and backward-shift erasure (Knuth 6.4 R), eight bytes a cell, at most three quarters full. Private memory.
#pragma once
#include <cstdint>
#include <vector>

namespace ch::dd {

class index {
public:
	static constexpr std::uint32_t none = ~std::uint32_t{0};

	// The slot for which same(slot) holds among those with this hash, or none.
	template <class Same> std::uint32_t find(std::uint64_t hash, Same &&same) const
	{
		if (cells_.empty())
			return none;
		for (std::size_t i = home(hash);; i = next(i)) {
			const cell &c = cells_[i];

			if (c.slot == none)
				return none;
			if (c.tag == tag_of(hash) && same(c.slot))
				return c.slot;
		}
	}
	// Room for one more, so that the next insert cannot fail. hash_of(slot) as for erase.
	template <class HashOf> void reserve_one(HashOf &&hash_of)
	{
		if ((used_ + 1) * 4 > cells_.size() * 3)
			rehash(cells_.empty() ? 64 : cells_.size() * 2, hash_of);
	}
	void insert(std::uint64_t hash, std::uint32_t slot) noexcept
	{
		std::size_t i = home(hash);

		while (cells_[i].slot != none)
			i = next(i);
		cells_[i] = {tag_of(hash), slot};
		used_++;
	}
	template <class HashOf> void erase(std::uint64_t hash, std::uint32_t slot, HashOf &&hash_of) noexcept
	{
		std::size_t hole = home(hash);

		while (cells_[hole].slot != slot)
			hole = next(hole);
		for (std::size_t i = next(hole); cells_[i].slot != none; i = next(i)) {
			// A cell may move back into the hole unless its home lies behind the hole.
			const std::size_t h = home(hash_of(cells_[i].slot));

			if (((i - h) & mask()) >= ((i - hole) & mask())) {
				cells_[hole] = cells_[i];
				hole = i;
			}
		}
		cells_[hole] = {0, none};
		used_--;
	}
	void clear()
	{
		cells_ = {};
		used_ = 0;
	}
	std::size_t size() const { return used_; }

private:
	struct cell {
		std::uint32_t tag;
		std::uint32_t slot;
	};
	static std::uint32_t tag_of(std::uint64_t hash) { return static_cast<std::uint32_t>(hash >> 32); }
	std::size_t mask() const { return cells_.size() - 1; }
	std::size_t home(std::uint64_t hash) const { return hash & mask(); }
	std::size_t next(std::size_t i) const { return (i + 1) & mask(); }
	template <class HashOf> void rehash(std::size_t nr, HashOf &&hash_of)
	{
		std::vector<cell> old(nr, cell{0, none});

		old.swap(cells_);
		used_ = 0;
		for (const cell &c : old)
			if (c.slot != none)
				insert(hash_of(c.slot), c.slot);
	}

	std::vector<cell> cells_;
	std::size_t used_ = 0;
};

} // namespace ch::dd

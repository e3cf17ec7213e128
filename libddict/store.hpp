// SPDX-License-Identifier: Apache-2.0
// store.hpp - the shard of one manager: keys and values in blocks of its pool, found through a private index.
//
// An entry keeps its slot as long as its key lives, so a scan that walks the slots by number meets every key that is
// present throughout exactly once, whatever is put and erased meanwhile. Lengths and places are private to the
// manager; what lies in the shared blocks is only ever copied and compared.
#pragma once
#include "index.hpp"
#include "wire.hpp"
#include <channels/channels.hpp>
#include <deque>
#include <memory>

namespace ch::dd {

// A message that was taken and kept: its block is the value's storage. Pinned while a client reads it, also after its
// key is erased or has another value. Views and checkpoints will hold it the same way.
using kept = std::shared_ptr<ch::message>;

struct entry {
	std::uint64_t hash;
	std::byte *addr; // key, or nullptr for a free slot
	std::byte *value;
	std::size_t vlen;
	std::uint32_t klen;
	std::uint32_t room; // bytes of a small entry's block behind the key; 0 for a kept message
	kept message;       // set if the value came in a block of its own

	bytes key() const { return {addr, klen}; }
	bytes val() const { return {value, vlen}; }
};

class store {
public:
	explicit store(ch_pool *pool) : pool_(pool) {}
	store(const store &) = delete;
	store &operator=(const store &) = delete;
	~store() { clear(); }

	entry *find(bytes key);
	// Copies key and value into the entry's block. 0, or -ENOSPC and the old value is as it was.
	int put(bytes key, bytes value);
	// Keeps the message's block. key and value lie in it.
	void adopt(bytes key, bytes value, ch::message &&m);
	bool erase(bytes key);
	void clear();
	std::size_t size() const { return index_.size(); }
	// The first entry in slot number `from` or behind it; from becomes the slot after it. nullptr at the end.
	entry *next(std::uint64_t &from);

private:
	std::uint32_t slot_of(std::uint64_t hash, bytes key) const;
	entry &fresh(std::uint64_t hash);
	void drop_block(entry &e) noexcept;

	ch_pool *pool_;
	index index_;
	std::deque<entry> slots_;
	std::vector<std::uint32_t> free_;
};

} // namespace ch::dd

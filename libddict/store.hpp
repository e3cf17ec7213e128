// SPDX-License-Identifier: Apache-2.0
// store.hpp - the shard of one manager: keys and values in blocks of its pool, found through a private index.
//
// An entry keeps its slot as long as its key lives, so a scan that walks the slots by number meets every key that is
// present throughout exactly once, whatever is put and erased meanwhile. Lengths and places are private to the
// manager; what lies in the shared blocks is only ever copied and compared.
//
// A key has one version for each checkpoint of the working set in which it was written, newest first; who reads at a
// checkpoint sees the newest version that is not newer than it. A working set of one has one version of each key.
#pragma once
#include "index.hpp"
#include "window.hpp"
#include "wire.hpp"
#include <channels/channels.hpp>
#include <deque>
#include <memory>
#include <queue>

namespace ch::dd {

// The storage of a value that clients may read in place: a message that was taken and kept, or a block of the manager's
// own. It lives as long as somebody reads it, also after its key is erased or has another value.
struct block {
	ch::message message;
	ch_pool *pool = nullptr;
	void *addr = nullptr; // of a block of the manager's own
	std::unique_ptr<std::byte[]> own; // private memory, see store::put_privately

	block() = default;
	block(const block &) = delete;
	block &operator=(const block &) = delete;
	~block()
	{
		if (addr)
			ch_pool_free(pool, addr);
	}
};
using kept = std::shared_ptr<block>;

struct version {
	std::byte *addr = nullptr; // key, or nullptr for none
	std::byte *value = nullptr;
	std::size_t vlen = 0;
	std::size_t room = 0; // bytes from value on that may be written; 0 for a message
	std::uint64_t at = 0; // checkpoint
	kept storage;         // set if clients may read it in place; else the block at addr is its own
	std::unique_ptr<version> older;
	bool is_deleted = false, is_persistent = false;
	bool was_shown = false; // in the window, where it lies now
	std::uint32_t born = 0; // see store::begin_reading

	bytes val() const { return {value, vlen}; }
	bool is_writable() const { return !storage || storage->own; } // nobody reads it in place
};

struct entry {
	std::uint64_t hash = 0;
	std::int64_t expires = 0; // CLOCK_MONOTONIC, ns; 0: never
	std::uint32_t klen = 0;
	std::uint32_t shown_in = window::none; // pane of the window, which may be hidden
	std::uint32_t colder = index::none, hotter = index::none; // neighbours in the order of use
	bool is_used = false; // since it was put, if there is such an order
	version v;                                                // the newest

	bytes key() const { return {v.addr, klen}; }
};

// All versions of a key, the oldest first.
std::vector<const version *> versions_of(const entry &e);

// What a put says beside key and value.
struct manner {
	std::uint64_t at = 0;
	std::int64_t expires = 0;
	bool is_persistent = false;
};

class frozen;

class store {
public:
	explicit store(ch_pool *pool) : pool_(pool) {}
	store(const store &) = delete;
	store &operator=(const store &) = delete;
	~store() { clear(); }

	// The value at a checkpoint, or nullptr.
	version *find(bytes key, std::uint64_t at);
	// From now on clients may see values of this store without asking: those that were found and shown, until they change.
	// Places are counted from base.
	void show_in(std::unique_ptr<own_window> w, const std::byte *base);
	own_window *shop_window() const { return window_.get(); }
	// What find() found last.
	void show_found() noexcept;
	// Values that were replaced or erased while clients read them are freed, if nobody does any more.
	void let_go() noexcept;
	// The newest version of a key, deleted or not.
	const entry *newest(bytes key);
	// Copies key and value into a block. 0, or -ENOSPC and the old value is as it was.
	int put(bytes key, bytes value, const manner &how);
	// Keeps the message's block. key and value lie in it.
	void adopt(bytes key, bytes value, ch::message &&m, const manner &how);
	// Where the pool has no room and the value must be kept all the same: in memory of this process, until move_in(),
	// which is 0, or -ENOSPC and it stays where it is. Only for values that travel in messages.
	void put_privately(bytes key, bytes value, const manner &how);
	int move_in(bytes key, std::uint64_t at);
	// As erase(), but a deletion that older checkpoints see past lies in private memory.
	int erase_privately(bytes key, std::uint64_t at);
	// Puts more behind the value there, in its own room where it has some.
	int append(bytes key, bytes more, const manner &how, std::size_t &out_len);
	// Room for a value in a block of its own, which clients may read in place; out_value is to be filled.
	int put_block(bytes key, std::size_t len, const manner &how, std::byte *&out_value);
	// 0, -ENOENT, or -ENOSPC: the deletion itself needs room if older checkpoints see the key.
	int erase(bytes key, std::uint64_t at);
	// All versions of it.
	void forget(bytes key) noexcept;
	void clear();
	// What the other one holds, instead of what was here. The other one is empty then.
	void take(store &o);
	// Keys that are there at the newest checkpoint.
	std::size_t size() const { return live_; }
	std::size_t size_at(std::uint64_t at);
	// The first entry in slot number `from` or behind it that has a value; from becomes the slot after it.
	entry *next(std::uint64_t &from);
	std::uint64_t nr_slots() const { return slots_.size(); }
	static const version *seen(const entry &e, std::uint64_t at);

	// Drops what only checkpoints before this one could see.
	void retire_before(std::uint64_t oldest);
	std::uint64_t oldest() const { return oldest_; }
	ch_pool *pool() const { return pool_; }

	void expire(std::int64_t now);
	std::int64_t next_expiry() const { return expiries_.empty() ? 0 : expiries_.top().when; }
	std::uint64_t nr_expired() const { return nr_expired_; }

	void keep_order_of_use() { is_ordered_ = true; }
	// The key that was not used for longest, or nullptr; and drops it.
	const entry *coldest();
	void evict();
	void evict(bytes key);
	// Whether it was asked for since it was put; from now on it was not.
	bool take_use(const entry &e) noexcept;
	std::uint64_t nr_evicted() const { return nr_evicted_; }

	// A child that is forked now reads what is here now: until end_reading(), what it can see is neither overwritten nor
	// freed. Each version is held back once at most, those that are put meanwhile are not.
	void begin_reading() { readers_++, now_++; }
	void end_reading() noexcept;
	bool has_held_back() const { return !held_back_.empty(); }
	// Whether something was freed all the same, for want of private memory to keep it in mind.
	bool is_torn() const { return is_torn_; }

private:
	friend class frozen;
	struct held_block {
		void *addr; // or
		kept storage;
	};
	bool is_read(const version &v) const { return readers_ && v.born != now_; }
	struct expiry {
		std::int64_t when;
		std::uint32_t slot;
		bool operator<(const expiry &o) const { return when > o.when; } // the queue's top is the earliest
	};
	std::uint32_t slot_of(std::uint64_t hash, bytes key) const;
	std::uint32_t fresh(std::uint64_t hash, std::size_t klen);
	version *target(entry &e, std::uint64_t at) const;
	version &make(std::uint32_t slot, std::uint64_t at, std::unique_ptr<version> spare);
	std::unique_ptr<version> spare_for(std::uint32_t slot, std::uint64_t at) const;
	void place_deletion(std::uint32_t slot, version &&v, std::uint64_t at, std::unique_ptr<version> spare);
	void adopt(bytes key, bytes value, kept storage, const manner &how, std::size_t room = 0);
	void place(std::uint32_t slot, version &&v, std::unique_ptr<version> spare, const manner &how);
	void settle(std::uint32_t slot, version &v, const manner &how);
	void drop_block(version &v) noexcept;
	void drop_all(version &v) noexcept;
	void remove(std::uint32_t slot) noexcept;
	bool prune(std::uint32_t slot) noexcept;
	void expire_at(std::uint32_t slot, std::int64_t when);
	int allocate(std::size_t len, void *&addr, std::size_t &room) const;
	void show_before_change(std::uint32_t slot) noexcept;
	void about_to_change(std::uint32_t slot) noexcept
	{
		if (slots_[slot].shown_in != window::none)
			window_->hide(slots_[slot].shown_in);
		if (!watched_by_.empty()) [[unlikely]]
			show_before_change(slot);
	}
	void show(entry &e) noexcept;
	void touch(std::uint32_t slot) noexcept;
	void unlink(std::uint32_t slot) noexcept;

	ch_pool *pool_;
	std::unique_ptr<own_window> window_;
	const std::byte *base_ = nullptr; // of places in the window
	entry *found_ = nullptr; // by find()
	struct read_value {
		std::uint64_t place;
		kept storage;
	};
	std::vector<read_value> read_; // by clients, that have seen it in the window
	index index_;
	std::deque<entry> slots_;
	std::vector<std::uint32_t> free_;
	std::vector<std::uint32_t>
		layered_; // slots with older versions or a deletion that a checkpoint still has to see
	std::priority_queue<expiry> expiries_; // of entries whose expires is still that
	std::size_t live_ = 0;
	std::uint64_t oldest_ = 0;
	std::uint64_t nr_expired_ = 0, nr_evicted_ = 0;
	std::uint32_t coldest_ = index::none, hottest_ = index::none;
	bool is_ordered_ = false;
	std::vector<frozen *> watched_by_;

	unsigned readers_ = 0;
	std::uint32_t now_ = 0; // counts begin_reading()
	std::vector<held_block> held_back_;
	bool is_torn_ = false;
};

} // namespace ch::dd

// SPDX-License-Identifier: Apache-2.0
// wire.hpp - what clients and managers say to each other, as bytes. Pure: no channel, no memory of others.
//
// A request is a `request` header, the key, and from voff on the value, in one message. A reply is a `reply` header and
// what follows it. Batches and pages are records behind one header. Whoever reads copies the header out first, and
// checks every length against the message it came in: the other side may be damaged or hostile.
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace ch::dd {

using bytes = std::span<const std::byte>;

enum class op : std::uint32_t {
	hello = 1, // body: reply channel's descriptor, client's peer; reply arg: the client's id with this manager
	bye,       // no reply
	put,       // flags: put_..., arg: time to live in ns or 0
	get,       // flags: get_...
	erase,
	contains,
	pop,             // as get, and erases
	fetch_add,       // arg: delta's bits, flags: kind of number; reply arg: the old value's bits
	append,          // reply arg: the new length
	compare_and_set, // value: the new one and behind it the expected one, which has arg bytes; -EAGAIN: another is
			 // there
	wait_for,        // flags: wait_any or 0; value: what to wait for
	size,            // reply arg: keys
	clear,           // reply arg: keys erased
	scan,       // key: prefix, arg: where to go on, flags: scan_values or 0; reply arg: where to go on, or scan_end
	release,    // arg: pin; no reply if its flag is set
	put_many,   // value: records, flags and arg as put; reply arg: how many were done
	get_many,   // value: records; reply arg: how many were answered
	reap,       // look for clients that died, now
	make_room,  // arg: bytes; evicts until a value of so many can be had, or -ENOSPC
	set_frozen, // arg: 1 or 0; reply arg: what it was
	is_frozen,  // reply arg
	checkpoints, // reply arg: the newest, off: the oldest of the working set
	stats,       // reply: struct manager_stats
	visit,       // value: visit_head, and what the function is given; replied to when it has ended, as get, or with a
		     // text if it failed: arg is 1 if that says who
	persist,   // arg: serial; flags: persist_drop or 0: removes what a persist with this serial has written
	persisted, // arg: where to begin; reply: numbers of checkpoints that were persisted, as many as there is room for
	restore,   // arg: a checkpoint, or ddict_log; flags: restore_...; reply arg of a commit: the newest checkpoint
	flush,     // answered when all that was written so far is on disk
	spread,    // as put, for this manager and those behind it; behind the value: spread_tail; answered with records of
		   // spread_failure
	keep,      // arg: epoch; value: a directory: all that is here is written there, as a log begins, and from now on
		   // nothing can be written; empty: that was all
	// From manager to manager; client is 0.
	mirror_begin, // what comes next is all that there is
	mirror_put,
	mirror_erase,
	mirror_clear,
	mirror_forget, // all versions of the key
	mirror_room,    // result: bytes that a letter needs there; flags: room_for_keys or 0
	mirror_room_is, // the answer. result: these bytes; oldest: 0, or the errno value why there is no such room
	mirror_key,     // a piece of a key that is too long for one message; the next letter with key_was_sent has it
	mirror_dropped, // the copy of this key had to go
	mirror_me, // asks the manager before this one for all its keys; result: the incarnation that asks
	refill_me, // asks the manager behind this one for the copies of this one's keys
	refill_put,
	refill_done, // a call that was answered, or nearly
	refill_end,  // arg: the incarnation that asked
	// From any manager; client is 0.
	spread_on,   // as spread; id: what spread_done is to say
	spread_done, // arg: the first position; value: as the answer of spread
	// From a manager to itself; client is 0.
	settle, // id: a dead client, arg: its row of the window
	// From a manager's own child; client is 0.
	visited, // id: the visit's secret, arg: status, flags: as the reply's arg; value: the answer, or a text
	last_op
};

// A function: so far into that module, see ch_module_find. It is called by this manager's child, and by those of the
// managers from first to end, which are asked by it.
struct visit_head {
	unsigned char module[20];
	std::uint32_t module_len;
	std::uint64_t offset;
	std::uint32_t first, end;
};

// Behind a value that is handed on. Positions: 0 is the manager numbered root, 1 the next one...
struct spread_tail {
	std::uint32_t root, first, end; // whoever gets this has position first, and those behind it are to get it too
	std::uint32_t parent;           // the number of the manager that gave it
	std::uint64_t to;               // the incarnation that it is for; 0: any
};
// Positions that did not get it.
struct spread_failure {
	std::uint32_t first, end;
	std::int32_t err;
};

// Between key and value of what one manager tells another.
struct mirror_head {
	std::uint64_t result;         // the call's
	std::uint64_t oldest, newest; // of the working set
};

inline constexpr std::uint32_t put_if_absent = 1, put_persistent = 2;
// Nobody waits for an answer, and none is sent; see window.hpp. id: the incarnation that it was promised to, retry_of: row
// and place in it, as promise_at.
inline constexpr std::uint32_t put_promised = 16;
constexpr std::uint64_t promise_at(std::uint64_t row, std::uint64_t place)
{
	return row << 8 | place;
}
inline constexpr std::uint32_t key_was_sent = 4, key_from_next = 8; // of letters
inline constexpr std::uint32_t room_for_keys = 1;                   // that are a manager's own, not copies
inline constexpr std::uint32_t get_fresh = 1; // whatever the dictionary waits for, do not wait
inline constexpr std::uint32_t persist_drop = 1;
inline constexpr std::uint32_t restore_commit = 1, restore_drop = 2; // after reading, which is 0
inline constexpr std::uint32_t restore_kept = 4; // from the directory that is the value
inline constexpr std::uint32_t stats_reset = 1;
inline constexpr std::uint32_t wait_any = 1;  // wait for the key, whatever its value
inline constexpr std::uint32_t release_silently = 1;

// A value that is longer than a reply carries is pinned, and read where it lies: form pinned, off and len in the
// manager's segment, arg the pin.
enum class form : std::uint32_t { inline_bytes = 0, pinned = 1 };

struct request {
	std::uint32_t what; // enum op
	std::uint32_t klen;
	std::uint64_t client;
	std::uint64_t id; // the client's name for this call, given back in the reply
	std::uint64_t arg;
	std::uint32_t voff; // where in the message the value begins
	std::uint32_t flags;
	std::uint64_t at; // checkpoint
	std::int64_t
		until; // CLOCK_MONOTONIC, ns: a call that has to wait is answered with -ETIMEDOUT then; negative: never
	std::uint64_t
		retry_of; // the id of a call that this one repeats, its manager having died; from managers: the client
};

struct reply {
	std::uint64_t id;
	std::int32_t status; // 0 or a negative errno value
	std::uint32_t how;   // enum form
	std::uint64_t arg;
	std::uint64_t off;
	std::uint64_t len;
};

// So that a value that came in the ring can go back in the ring.
static_assert(sizeof(request) == 64 && sizeof(reply) == 40, "the dictionary's wire format: bump wire_version");

struct hello_body {
	unsigned char channel[64];
	std::uint64_t peer;
};

// Latencies of one operation: bucket b counts those from floor_of(b) to floor_of(b + 1) ns, two to each doubling.
inline constexpr unsigned nr_buckets = 64;

constexpr unsigned bucket_of(std::uint64_t ns)
{
	if (ns < 32)
		return 0;
	const unsigned e = static_cast<unsigned>(std::bit_width(ns)) - 1;

	return std::min(nr_buckets - 1, 2 * (e - 5) + static_cast<unsigned>(ns >> (e - 1) & 1));
}
constexpr std::uint64_t floor_of(unsigned bucket)
{
	return (std::uint64_t{2} | (bucket & 1)) << (bucket / 2 + 4);
}

struct op_stats {
	std::uint64_t count;
	std::uint64_t timed[nr_buckets]; // of one call in sixteen
};
struct manager_stats {
	std::uint64_t memory, used, largest; // bytes of its pool, of blocks in use, of the largest free one
	std::uint64_t keys, clients, pinned, waiting, evicted, expired, oldest, newest;
	std::uint64_t single; // keys that are with no other manager, with two replicas
	op_stats ops[static_cast<unsigned>(op::mirror_begin)];
};

inline constexpr std::uint32_t wire_version = 6;
inline constexpr std::uint32_t inline_max = 512;                            // of request and reply channels
inline constexpr std::size_t inline_value_max = inline_max - sizeof(reply); // that a reply carries
inline constexpr std::size_t page_max = 16 * 1024; // a batch or a page, when there is memory for it
inline constexpr std::size_t key_max = 64 * 1024;  // bytes of a key
inline constexpr std::size_t value_align = 64;     // of a value that has a block of its own
inline constexpr std::size_t aligned_from = 4096;  // bytes; shorter ones lie right behind the key
inline constexpr std::size_t spread_failures_max = 32;
inline constexpr std::uint64_t scan_end = ~std::uint64_t{0};
inline constexpr std::uint32_t scan_values = 1;
inline constexpr std::uint32_t len_missing = ~std::uint32_t{0}; // instead of a length in a record: no such key
inline constexpr std::uint32_t len_large = len_missing - 1;     // ask for this value by itself

constexpr std::size_t round_up(std::size_t n, std::size_t to)
{
	return (n + to - 1) / to * to;
}

template <class T> T load(const void *from)
{
	T v;

	std::memcpy(&v, from, sizeof(v));
	return v;
}

// Writes bytes that are there already.
struct copied {
	bytes from;
	void operator()(std::span<std::byte> to) const
	{
		if (!from.empty())
			std::memcpy(to.data(), from.data(), from.size());
	}
};

// Appends records to a message. Keeps its memory when it is cut short.
class packer {
public:
	explicit packer(std::size_t header) { room(header); }
	std::size_t size() const { return len_; }
	std::byte *data() { return buf_.data(); }
	void truncate(std::size_t len) { len_ = len; }
	void u32(std::uint32_t v) { raw(&v, sizeof(v)); }
	void raw(const void *from, std::size_t len)
	{
		if (len)
			std::memcpy(room(len), from, len);
	}
	std::byte *room(std::size_t len)
	{
		if (len > buf_.size() - len_)
			buf_.resize(std::max(len_ + len, 2 * buf_.size()));
		len_ += len;
		return buf_.data() + len_ - len;
	}

private:
	std::vector<std::byte> buf_;
	std::size_t len_ = 0;
};

// Reads records; false when the message is shorter than it says.
class unpacker {
public:
	explicit unpacker(bytes b) : left_(b) {}
	bool empty() const { return left_.empty(); }
	bytes rest() const { return left_; }
	bool u32(std::uint32_t &out)
	{
		if (left_.size() < sizeof(out))
			return false;
		out = load<std::uint32_t>(left_.data());
		left_ = left_.subspan(sizeof(out));
		return true;
	}
	bool raw(std::size_t len, bytes &out)
	{
		if (left_.size() < len)
			return false;
		out = left_.first(len);
		left_ = left_.subspan(len);
		return true;
	}

private:
	bytes left_;
};

} // namespace ch::dd

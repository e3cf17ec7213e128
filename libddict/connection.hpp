// SPDX-License-Identifier: Apache-2.0
// connection.hpp - one process's way to one dictionary: a request channel to each manager, one reply channel from all.
//
// Every call has an id that its reply repeats. Of the threads that wait, one receives (the leader) and hands replies to
// the calls they belong to; when its own is answered it gives the post to another. A call under way holds a credit, so
// that the reply channel always has room and no manager ever waits for us. A call whose deadline passed, or that nobody
// wants any more, keeps its credit until its manager answered it after all.
//
// A manager's death is found by looking, whenever a slice of time passed without a message. Its calls end with
// -EOWNERDEAD; those to other managers go on. Its creator starts another process in its place, with which this one
// makes acquaintance again; where keys have replicas, calls are then repeated, else the first call says what was lost.
// Each call remembers the process that it was meant for: while one thread still waits for the dead one, another may
// know the successor already.
#pragma once
#include "directory.hpp"
#include "wire.hpp"
#include <ddict/core.hpp>
#include <condition_variable>
#include <mutex>
#include <optional>

namespace ch::dd {

std::int64_t monotonic_ns();

inline constexpr unsigned credits = 64; // calls of one process under way: bits of a word

// A process that serves a manager, from the moment it is greeted.
struct acquaintance {
	unsigned manager = 0;
	std::uint64_t incarnation = 0;
	std::uint64_t peer = 0;
	std::uint64_t client = 0; // our id with it; 0 while it is greeted
	int place = 0;            // among the peers of its segment, see ch_segment_holds
	std::atomic<bool> is_dead{false}; // it was seen dead; a hint that saves a look
};

// A value that was read in a manager's window, or is to be read where it lies.
class sight {
public:
	sight() = default;
	sight(const sight &) = delete;
	sight &operator=(const sight &) = delete;
	~sight();
	explicit operator bool() const { return conn_; }
	bytes value() const { return value_; }
	unsigned manager() const { return with_->manager; }

private:
	friend class connection;

	class connection *conn_ = nullptr;
	const acquaintance *with_ = nullptr;
	unsigned hook_ = nr_hooks; // nr_hooks: it is in small_
	bytes value_;
	std::byte small_[inline_max];
};

// A request under way. Stays where it is until it is done or forgotten.
class call {
public:
	call() = default;
	call(const call &) = delete;
	call &operator=(const call &) = delete;
	~call();

	std::uint64_t id() const { return id_; }
	const reply &head() const { return head_; }
	// What follows the reply's header.
	bytes body() const
	{
		return big_ ? bytes(big_.data() + sizeof(reply), big_.size() - sizeof(reply))
			    : bytes(small_, small_len_);
	}
	unsigned manager() const { return with_->manager; }
	bool is_under_way() const { return conn_; }
	// Whether wait would return at once.
	bool is_done() const;

private:
	friend class connection;

	class connection *conn_ = nullptr; // set from start to wait
	std::uint64_t id_ = 0;
	acquaintance *with_ = nullptr; // set by start; lives as long as the connection
	bool done_ = false;
	int failure_ = 0; // no reply came and none will
	reply head_{};
	ch::message big_;
	std::size_t small_len_ = 0;
	std::byte small_[inline_max - sizeof(reply)];
};

struct outgoing {
	op what;
	bytes key{};
	std::uint64_t arg = 0;
	std::uint32_t flags = 0;
	std::size_t vlen = 0;
	const ddict_core::value_writer *write = nullptr; // writes vlen bytes
	std::uint64_t at = 0;                            // checkpoint
	std::int64_t until = -1;                         // deadline, CLOCK_MONOTONIC, ns; negative: none
	std::uint64_t retry_of = 0;                      // id of the call that this one repeats
	bool is_patient = true;                          // looks for memory that the dead still hold before ENOSPC
};

// A put of this kind, without its key and value.
inline outgoing put_of(const ddict_put &how)
{
	return {.what = op::put,
		.arg = how.ttl.count() > 0 ? static_cast<std::uint64_t>(how.ttl.count()) : 0,
		.flags = how.persistent ? put_persistent : 0};
}

class connection {
public:
	explicit connection(const descriptor &d);
	connection(const connection &) = delete;
	connection &operator=(const connection &) = delete;
	~connection();

	const directory &dir() const { return dir_; }
	unsigned managers() const { return static_cast<unsigned>(dir_.managers.size()); }
	unsigned manager_for(bytes key) const;
	// Whether the dictionary has ended; then this connection is of no more use.
	bool is_stale() const
	{
		return stale_.load(std::memory_order_relaxed);
	} // a hint: the calls find out themselves
	std::uint64_t generation() const { return generation_; }
	// From now on managers' memory is mapped where it is touched and no further: for few calls.
	void map_lazily() { attach_flags_ = CH_NO_PREFAULT; }

	// Sends a request. Throws if the manager is dead, or has no memory (ENOSPC); the call is not under way then.
	void start(call &c, unsigned m, const outgoing &out);
	// The same in steps: room for a value of up to cap bytes in a message of its own, which is written in place,
	// and then sent.
	struct claimed {
		ch::message message;
		std::size_t voff = 0;
		std::span<std::byte> value() const { return message.bytes().subspan(voff); }
	};
	claimed claim_for(unsigned m, const outgoing &out, std::size_t cap);
	void start_claimed(call &c, unsigned m, const outgoing &out, claimed &room);
	// Whether a put at this checkpoint may be promised, see window.hpp: then promise() tries. The value of a small one is
	// at out.write, of another one in room; both as in start and start_claimed. False: nothing was sent, now ask.
	bool may_promise(unsigned m, const outgoing &out) const noexcept;
	bool promise(unsigned m, std::uint64_t hash, const outgoing &out, claimed *room);
	// Until its reply is there; throws if none will come, or with ETIMEDOUT: then it is forgotten.
	const reply &wait(call &c, std::int64_t until = -1);
	// What the manager's threads of control have sent so far is handed to its calls, without waiting.
	void poll() noexcept;
	// Waits for what is under way, and does not care how it ends.
	void settle(call &c) noexcept;
	// start and wait; and again, if the manager died and has a successor with all its keys.
	const reply &run(call &c, unsigned m, outgoing out);
	// Where a pinned value lies. Checked.
	bytes pinned(const call &c) const;
	// Lets go of the value that a call's answer pinned, without waiting for an answer.
	void unpin(const call &c) noexcept { unpin(*c.with_, c.head_.arg); }
	// Whether what was read of a pinned value was the value: the process that answered still held it. Comes behind it.
	bool was_held(const call &c) const noexcept { return holds(*c.with_); }
	// Whether the key's value at a checkpoint is to be seen without asking; false also if there is none. What is longer
	// than a reply carries is not copied: what was read of it counts if is_whole() holds afterwards.
	bool look(unsigned m, std::uint64_t hash, bytes key, std::uint64_t at, sight &s) noexcept;
	bool is_whole(const sight &s) const noexcept
	{
		return s.hook_ == nr_hooks || (holds(*s.with_) && is_current(*s.with_));
	}
	// Throws what a manager's status says.
	[[noreturn]] void fail(unsigned m, int status) const;
	// The same of a visit, whose answer says why.
	[[noreturn]] void fail_visit(const call &c) const;
	// Throws if keys were lost with this manager since it was asked for the last time.
	void meet(unsigned m, std::int64_t until) { up(m, until); }

private:
	struct link {
		std::atomic<acquaintance *> with{nullptr};  // the last one that greeted us too
		std::atomic<std::uint64_t> dead{0};         // incarnation of the last process that was seen dead
		std::vector<std::unique_ptr<acquaintance>> all; // calls may still remember them; under hello_lock_
		ch::channel requests;
		segment seg;
		window win;
		std::uint32_t row = window::none;
		std::atomic<std::uint32_t> hooks{0}; // of the row that are taken, a bit for each
		std::atomic<std::uint32_t> nr_promises{0}; // a hint where there is room for the next
	};
	friend class call;
	friend class sight;
	bool holds(const acquaintance &a) const noexcept
	{
		return ch_segment_holds(links_[a.manager].seg.get(), {a.peer}, a.place) > 0;
	}
	// Whether that process serves the manager still, as far as the creator knows: no other has answered anybody.
	bool is_current(const acquaintance &a) const noexcept
	{
		return dir_.words[a.manager].incarnation.load(std::memory_order_relaxed) == a.incarnation; // see look()
	}
	bool look_at(link &l, std::uint32_t p, std::uint64_t number, const pane &what, bytes key, sight &s) const noexcept;
	bool hang(link &l, std::uint32_t p, std::uint64_t number, const pane &what, bytes key, sight &s) noexcept;
	void take_off(sight &s) noexcept;

	acquaintance &up(unsigned m, std::int64_t until);
	acquaintance &say_hello(unsigned m, std::uint64_t incarnation);
	void await_successor(unsigned m, std::uint64_t incarnation, std::int64_t until);
	ch::channel make_replies();
	void claim_credit(call &c, acquaintance &a, std::int64_t until);
	void send_small(call &c, acquaintance &a, request head, const outgoing &out);
	void send_bytes(acquaintance &a, bytes msg, std::int64_t until);
	ch::message claim(acquaintance &a, std::size_t len, const outgoing &out);
	bool make_room(acquaintance &a, std::size_t len, const outgoing &out, int tries);
	void commit(acquaintance &a, ch::message &msg, std::int64_t until);
	void unpin(const acquaintance &a, std::uint64_t pin) noexcept;
	void abandon(call &c) noexcept;
	[[noreturn]] void raise_late(unsigned m) const;
	void unsent(call &c) noexcept;
	void still_there(acquaintance &a, std::int64_t until);
	[[noreturn]] void raise_full(unsigned m) const;
	[[noreturn]] void raise_ended();
	[[noreturn]] void raise_dead(unsigned m, int errnum) const;
	[[noreturn]] void raise_lost(unsigned m) const;

	// With lock_ held.
	template <class Done> bool lead_until(std::unique_lock<std::mutex> &lock, std::int64_t until, Done &&done);
	bool take_one(std::unique_lock<std::mutex> &lock, std::int64_t slice_ns);
	ssize_t receive(std::int64_t slice_ns, ch::message &big) noexcept;
	void deliver(bytes msg, ch::message &&big);
	void finish(unsigned slot, int failure) noexcept;
	void look_for_deaths(std::unique_lock<std::mutex> &lock);
	bool died(acquaintance &a) noexcept;
	std::uint64_t orphan(unsigned slot) noexcept;

	directory dir_;
	std::uint64_t generation_;
	ch::channel replies_;
	std::unique_ptr<link[]> links_;
	std::mutex hello_lock_;
	std::uint32_t attach_flags_ = 0; // of managers' segments
	std::atomic<bool> stale_{false};

	std::mutex lock_; // over all below
	std::condition_variable changed_;
	bool has_leader_ = false;
	unsigned followers_ = 0;
	std::uint64_t next_id_ = static_cast<std::uint64_t>(monotonic_ns()); // above those of an earlier connection of ours
	std::byte inbox_[inline_max]; // the leader's
	std::uint64_t taken_ = 0; // a bit for each credit
	call *under_way_[credits] = {};
	struct forgotten {
		std::uint64_t id = 0; // 0: none
		acquaintance *with = nullptr;
	};
	forgotten forgotten_[credits] = {}; // calls that hold their credit and have nobody who waits
};

// The deadline of a call that may take so long; negative: none.
std::int64_t deadline_of(std::int64_t timeout_ns);

// Bytes of the control pool for so many clients.
std::size_t control_len(unsigned max_clients);

// The process's connection to that dictionary: one, however many handles there are.
std::shared_ptr<connection> connect(const descriptor &d);
// Forgets it; for when the dictionary is destroyed by this process.
void disconnect(const descriptor &d) noexcept;
// Counts the forks that led to this process: connections of another generation are the parent's.
std::uint64_t fork_generation();

} // namespace ch::dd

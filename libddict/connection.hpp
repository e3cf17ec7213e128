// SPDX-License-Identifier: Apache-2.0
// connection.hpp - one process's way to one dictionary: a request channel to each manager, one reply channel from all.
//
// Every call has an id that its reply repeats. Of the threads that wait, one receives (the leader) and hands replies to
// the calls they belong to; when its own is answered it gives the post to another. A call under way holds a credit, so
// that the reply channel always has room and no manager ever waits for us.
//
// A manager's death is found by looking, whenever a slice of time passed without a message. Its calls end with
// -EOWNERDEAD, later ones with -EHOSTUNREACH; those to other managers go on.
#pragma once
#include "directory.hpp"
#include "wire.hpp"
#include <ddict/core.hpp>
#include <condition_variable>
#include <mutex>
#include <optional>

namespace ch::dd {

// A request under way. Stays where it is until it is done or forgotten.
class call {
public:
	call() = default;
	call(const call &) = delete;
	call &operator=(const call &) = delete;
	~call();

	const reply &head() const { return head_; }
	// What follows the reply's header.
	bytes body() const
	{
		return big_ ? bytes(big_.data() + sizeof(reply), big_.size() - sizeof(reply))
			    : bytes(small_, small_len_);
	}
	unsigned manager() const { return manager_; }
	bool is_under_way() const { return conn_; }

private:
	friend class connection;

	class connection *conn_ = nullptr; // set from start to wait
	std::uint64_t id_ = 0;
	unsigned manager_ = 0;
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
	bool is_patient = true;                          // looks for memory that the dead still hold before ENOSPC
};

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

	// Sends a request. Throws if the manager is dead, or has no memory (ENOSPC); the call is not under way then.
	void start(call &c, unsigned m, const outgoing &out);
	// Until its reply is there; throws if none will come, or with ETIMEDOUT.
	const reply &wait(call &c, std::int64_t within_ns = CH_FOREVER);
	// Waits for what is under way, and does not care how it ends.
	void settle(call &c) noexcept;
	// start and wait.
	const reply &run(call &c, unsigned m, const outgoing &out)
	{
		start(c, m, out);
		return wait(c);
	}
	// Where a pinned value lies. Checked.
	bytes pinned(const call &c) const;
	// Throws what a manager's status says.
	[[noreturn]] void fail(unsigned m, int status) const;

private:
	struct link {
		std::atomic<bool> is_up{false};
		std::atomic<bool> is_dead{false};
		ch::channel requests;
		segment seg;
		std::uint64_t client = 0; // our id with this manager
	};
	friend class call;

	link &up(unsigned m);
	void say_hello(unsigned m, link &l);
	ch::channel make_replies();
	void claim_credit(call &c, unsigned m);
	void send_small(unsigned m, link &l, const request &head, const outgoing &out);
	ch::message claim(unsigned m, link &l, std::size_t len, bool is_patient);
	void commit(unsigned m, link &l, ch::message &msg);
	void still_there(unsigned m);
	void ask_to_reap(unsigned m);
	[[noreturn]] void raise_full(unsigned m) const;
	[[noreturn]] void raise_ended();
	[[noreturn]] void raise_dead(unsigned m, int errnum) const;

	// With lock_ held.
	template <class Done> void lead_until(std::unique_lock<std::mutex> &lock, Done &&done);
	ssize_t receive(std::int64_t slice_ns, ch::message &big) noexcept;
	void deliver(bytes msg, ch::message &&big);
	void finish(unsigned slot, int failure) noexcept;
	void look_for_deaths() noexcept;
	bool manager_died(unsigned m) noexcept;

	static constexpr unsigned credits = 32; // calls under way

	directory dir_;
	std::uint64_t generation_;
	ch::channel replies_;
	std::unique_ptr<link[]> links_;
	std::mutex hello_lock_;
	std::atomic<bool> stale_{false};

	std::mutex lock_; // over all below
	std::condition_variable changed_;
	bool has_leader_ = false;
	unsigned followers_ = 0;
	std::uint64_t next_id_ = 1;
	std::byte inbox_[inline_max]; // the leader's
	call *under_way_[credits] = {};
};

// Bytes of the control pool for so many clients.
std::size_t control_len(unsigned max_clients);

// The process's connection to that dictionary: one, however many handles there are.
std::shared_ptr<connection> connect(const descriptor &d);
// Forgets it; for when the dictionary is destroyed by this process.
void disconnect(const descriptor &d) noexcept;
// Counts the forks that led to this process: connections of another generation are the parent's.
std::uint64_t fork_generation();

} // namespace ch::dd

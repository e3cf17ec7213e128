// SPDX-License-Identifier: Apache-2.0
// snapshot.hpp - a manager's part of a checkpoint on its way to a file, while the manager goes on serving.
//
// The manager's thread walks a frozen view of the store, a little between two requests, and hands over what it sees:
// small values as copies, large ones by holding on to their blocks, which nobody changes. A thread of the snapshot
// copies, sums and writes. What is handed over and not yet written is bounded, but for entries that change before
// their turn.
#pragma once
#include "frozen.hpp"
#include "vault.hpp"
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

namespace ch::dd {

// A thread that no signal of the application meets.
std::thread quiet_thread(std::function<void()> run);
// CLOCK_MONOTONIC to CLOCK_REALTIME, and back: 0 stays 0, and what has passed stays so.
std::int64_t to_realtime(std::int64_t monotonic);
std::int64_t to_monotonic(std::int64_t realtime);

class snapshot {
public:
	struct plan {
		vault where;
		std::uint64_t checkpoint, serial;
		unsigned m, nr_managers, keep;
	};
	// poke: the manager should look again; called from the other thread.
	snapshot(store &s, plan p, std::function<void()> poke);
	snapshot(const snapshot &) = delete;
	snapshot &operator=(const snapshot &) = delete;
	~snapshot(); // gives up, if it is not done

	// Whether step() would get on.
	bool can_go_on() const;
	void step();
	// It is on disk, or failed; what it replaced may still have to be removed.
	bool is_written() const;
	bool is_done() const;
	// When it is written: 0, or a negative errno and a text.
	int status() const { return status_; }
	const std::string &text() const { return text_; }

private:
	struct piece {
		std::size_t text_end; // it comes behind so much of the text
		kept storage;
		bytes value;
	};
	struct batch {
		packer text{0};
		std::vector<piece> pieces;
		std::size_t len = 0, keys = 0;
	};
	void see(const entry &e);
	void hand_over();
	void run() noexcept;
	void write_all();
	void publish();
	void end(int status, const char *text);
	static void write(class shard_writer &to, batch &b);

	plan plan_;
	std::function<void()> poke_;
	batch next_; // being filled
	bool is_at_end_ = false;

	mutable std::mutex lock_; // over all below
	std::condition_variable changed_;
	std::deque<batch> queue_;
	std::size_t queued_ = 0; // bytes
	bool is_whole_ = false, is_broken_ = false, is_cancelled_ = false, is_written_ = false, is_done_ = false;
	int status_ = 0;
	std::string text_;

	std::optional<frozen> view_;
	std::thread writer_;
};

} // namespace ch::dd

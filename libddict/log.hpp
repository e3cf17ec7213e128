// SPDX-License-Identifier: Apache-2.0
// log.hpp - what one manager changed, in order, on disk as soon as somebody insists.
//
// A log is a head and frames; a frame is a record with its key and value, a number that goes up by one, and a checksum
// that no other log's frame has. It ends where the first frame is not whole; the file may be longer, with zeros behind.
// A log begins with what the store held when it began (its base), mixed with the changes since then, each key's base
// before its first change; a frame says when the base is whole. So a log with a whole base stands by itself, and one
// without stands on the log before it, which was ended in good order.
//
// A thread writes and syncs; the manager appends to memory and goes on. What one sync covers is acknowledged together.
// What may have been lost is what no sync covered: a frame says how far the last sync reached, so that a file that is
// damaged before that place is not taken for one that ends early.
#pragma once
#include "shard.hpp"
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace ch::dd {

// Of records in logs only. The last three have neither key nor value.
inline constexpr std::uint32_t record_append = 4, record_clear = 8, record_based = 16, record_ended = 32,
			       record_synced = 64; // at: bytes of the file

struct log_id {
	std::uint64_t epoch, number;
	std::uint32_t manager, nr_managers;
	std::uint32_t stands_alone, pad; // 1: without its base it is nothing, whatever is before it
};

class change_log {
public:
	// A new file. poke: what was asked for is durable, or cannot be; called from the other thread.
	change_log(const vault &v, const log_id &id, std::function<void()> poke);
	change_log(const change_log &) = delete;
	change_log &operator=(const change_log &) = delete;
	~change_log(); // ends it, as well as it can

	// Whether as much waits to be written as should; poke follows when it is less.
	bool is_busy() const;
	// Waits only while very much is not yet written.
	void append(const record &r, bytes key, bytes value);
	std::uint64_t size() const { return appended_; }
	// Asks for everything appended so far; is_durable(what it returned) tells.
	std::uint64_t sync();
	bool is_durable(std::uint64_t upto) const;
	// Ends it in good order: everything is durable. Throws.
	void end();
	// A negative errno and a text once something went wrong: nothing later is durable.
	int status() const;
	std::string text() const;

private:
	void add(const record &r, bytes key, bytes value);
	void run() noexcept;
	void work(std::unique_lock<std::mutex> &lock);
	void reserve_up_to(std::uint64_t end);

	std::uint64_t appended_; // bytes of the file, when all is written
	std::uint64_t number_ = 0, sum_of_head_ = 0;
	std::string dir_;
	file file_;
	std::function<void()> poke_;

	mutable std::mutex lock_; // over all below
	std::condition_variable changed_;
	std::vector<std::byte> pending_;
	std::uint64_t wanted_ = 0, durable_ = 0; // bytes of the file
	std::uint64_t written_ = 0, noted_ = 0;  // noted_: what a frame says is durable
	std::uint64_t reserved_;                 // the file's length; the writer's alone
	bool is_ending_ = false;
	int status_ = 0;
	std::string text_;
	std::thread writer_;
};

// Whether a log holds anything: one that was just begun when everything stopped may not even have its head.
bool log_has_frames(const vault &v, const log_id &id);

class log_reader {
public:
	// Throws if it is none, or another one.
	log_reader(const vault &v, const log_id &id);
	// False at the end. What key and value name stays until the next call.
	bool next(record &r, bytes &key, bytes &value);
	bool ended_well() const { return is_ended_; }
	bool stands_alone() const { return stands_alone_; }
	const std::string &path() const { return file_.path(); }

private:
	bool need(std::size_t len);
	void refuse_damage();

	file file_;
	std::uint64_t size_, at_; // of the next frame
	std::uint64_t number_ = 0, sum_of_head_ = 0;
	std::vector<std::byte> window_;
	std::uint64_t window_at_ = 0; // of its first byte in the file
	std::size_t window_len_ = 0;
	bool is_ended_ = false, stands_alone_ = false;
};

} // namespace ch::dd

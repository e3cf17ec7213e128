// SPDX-License-Identifier: Apache-2.0
// persister.hpp - everything of a manager that has to do with files: snapshots under way, the log, what is restored.
//
// The manager asks can_go_on() in its loop and calls work() now and then; calls that wait for the disk are answered
// through what work() returns. None of this waits for the disk but the end of a log that another one follows, and
// restoring.
#pragma once
#include "restore.hpp"
#include "snapshot.hpp"
#include <ddict/core.hpp>

namespace ch::dd {

// What a manager process is told.
struct persist_rules {
	char dir[1024]; // empty: no files
	std::uint64_t epoch, freq;
	std::uint32_t keep;
	std::uint8_t has_log, is_reader; // is_reader: somebody else may write there
};

inline constexpr const char *lock_name = "lock";
// Bytes of changes before a log is begun anew, and twice its base. Tests make it less.
inline std::uint64_t log_slack = 64 << 20;

class persister {
public:
	struct answer {
		std::uint64_t client, id; // of the call; client 0: of nobody
		int status;
		std::string text;
	};
	persister(const persist_rules &r, store &s, unsigned index, unsigned nr_managers, std::function<void()> poke);
	~persister();

	bool can_go_on() const;
	std::vector<answer> work();

	// Whether a checkpoint is to be persisted when it retires.
	bool is_due(std::uint64_t checkpoint) const { return rules_.freq && checkpoint % rules_.freq == 0; }
	std::uint64_t serial_of(std::uint64_t checkpoint) const;
	// False: another one is under way.
	bool begin(std::uint64_t checkpoint, std::uint64_t serial, std::uint64_t client, std::uint64_t id);
	void forget(std::uint64_t checkpoint, std::uint64_t serial) { vault_.remove(checkpoint, serial, index_); }
	std::vector<std::uint64_t> ids() const { return vault_.ids(); }

	// Reads a checkpoint, or the log, into memory of its own; throws. Then it takes the place of what the store
	// held.
	void load(std::uint64_t id, std::uint64_t working_set, bool may_evict);
	std::uint64_t commit() noexcept; // its newest checkpoint
	// To be called after it: the log has to begin anew. Throws; nothing is durable then until a flush succeeds.
	void follow_commit();
	void drop() { loaded_.reset(); }
	bool is_loaded() const { return loaded_.has_value(); }
	// What a dead predecessor had logged, straight into the store; its newest checkpoint.
	std::uint64_t succeed(std::uint64_t working_set);

	bool has_log() const { return log_ != nullptr; }
	// A key's state at this checkpoint changed; or by these bytes behind its value.
	void changed(bytes key, std::uint64_t at, bytes appended, bool is_append);
	void cleared();
	// Answered when all that changed so far is durable.
	void flush(std::uint64_t client, std::uint64_t id);
	bool logs() const { return rules_.has_log; }
	// The predecessor's log cannot be read: it stays as it is, and nothing is durable any more.
	void give_up(const std::string &why) { given_up_ = why; }

private:
	void hold_directory();
	struct waiting {
		std::uint64_t client, id, upto;
	};
	void begin_log(bool stands_alone);
	void show_base(const entry &e);
	void append(bytes key, const entry &e, const version &v);
	void step_base();
	void end_base();
	void work_log(std::vector<answer> &out);
	void drop_older_logs() const;

	persist_rules rules_;
	vault vault_;
	store &store_;
	unsigned index_, nr_managers_;
	std::function<void()> poke_;
	file lock_; // while it is held, nobody else makes a dictionary in this directory

	std::optional<snapshot> snapshot_;
	bool is_answered_ = false; // who asked for it
	std::uint64_t snapshot_client_ = 0, snapshot_id_ = 0;
	std::uint64_t nr_restored_ = 0; // so that a checkpoint that is reached again is another one

	struct loaded {
		store data;
		std::uint64_t newest = 0;
		explicit loaded(ch_pool *pool) : data(pool) {}
	};
	std::optional<loaded> loaded_;

	std::unique_ptr<change_log> log_;
	std::uint64_t number_ = 0;    // of the log
	bool has_to_stand_ = false;   // what is before it is of no use: nothing is durable before its base
	std::optional<frozen> base_;  // that is being logged
	std::uint64_t base_upto_ = 0; // what has to be durable for older logs to be of no use; 0: they are gone
	std::uint64_t base_len_ = 0;
	std::deque<waiting> waiting_;
	std::string given_up_;
};

} // namespace ch::dd

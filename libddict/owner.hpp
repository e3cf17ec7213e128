// SPDX-License-Identifier: Apache-2.0
// owner.hpp - what the creator of a dictionary holds: the manager processes, their pools, the directory; and the thread
// that learns of a manager's death, has its traces removed, and starts another process in its place.
#pragma once
#include "cpus.hpp"
#include "directory.hpp"
#include "persister.hpp"
#include <ddict/core.hpp>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace ch::dd {

std::uint64_t fork_generation();
// Where what was kept under this name lies; throws if there is none, or not all of it.
std::string place_of_kept(const std::string &name);

class owner {
public:
	owner() = default;
	owner(const owner &) = delete;
	owner &operator=(const owner &) = delete;
	~owner() { destroy(); }

	// Throws, and leaves nothing behind. Once.
	void create(const ddict_options &o);
	// Ends managers, pools and directory. In a forked child, which does not own them, a no-op.
	void destroy() noexcept;
	const descriptor &descr() const { return descr_; }
	// What restore_from says that managers are to be asked for; ddict_nothing: nothing.
	std::uint64_t restores() const { return restores_; }
	// The directory of what it is to begin with; empty: nothing was kept for it.
	const std::string &kept() const { return kept_; }
	// Not in a forked child.
	bool is_mine() const { return generation_ == fork_generation(); }
	bool logs() const { return files_.has_log; }
	// Its managers have begun their logs: from now on these count.
	void publish_log() const;

private:
	struct shard {
		memory_pool pool;
		ch::channel requests;
	};
	void make_shards(unsigned nr, std::size_t memory, std::size_t max_memory, unsigned max_peers);
	void prepare_files(const ddict_options &o);
	void start_managers();
	void start_manager(unsigned m);
	void watch() noexcept;
	void sweep_up(const memory_pool &pool);
	void replace(unsigned m) noexcept;
	void end_managers() noexcept;

	persist_rules files_{};
	file files_lock_; // of the directory
	std::uint64_t restores_ = ddict_nothing;
	std::string kept_;
	detail::handle<ch_spawner, ch_spawner_destroy> spawner_;
	std::vector<shard> shards_;
	std::vector<cpu_list> places_; // of managers
	std::optional<memory_pool> control_;
	segment dir_;
	directory known_;
	descriptor descr_{};
	std::uint64_t generation_ = 0;
	std::unique_ptr<std::thread> watcher_;
	std::mutex lock_; // over all below
	std::condition_variable ended_;
	unsigned running_ = 0;
	bool is_watching_ = false, is_ending_ = false;
};

} // namespace ch::dd

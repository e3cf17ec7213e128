// SPDX-License-Identifier: Apache-2.0
// restore.hpp - what files hold, back into the store of one manager.
//
// If there are as many managers as there were, each reads its predecessor's file and takes all of it. Else each reads
// all files and takes the keys that are its own now: first those that were where they belong, then those that were put
// through a directed handle and are nowhere else.
#pragma once
#include "log.hpp"
#include "store.hpp"

namespace ch::dd {

class restorer {
public:
	restorer(const vault &v, store &into, unsigned m, unsigned nr_managers)
	    : vault_(v), into_(into), m_(m), nr_(nr_managers)
	{
	}
	void may_evict() { may_evict_ = true; }
	// All of them throw ch::error, which names the file or the manager; what is in the store then is of no use.
	void read_checkpoint(std::uint64_t id);
	void read_log(std::uint64_t working_set);
	std::uint64_t newest() const { return newest_; } // checkpoint
	// The number of this manager's last log.
	std::uint64_t last_log() const { return last_log_; }

private:
	enum class take { all, own, strays };
	bool is_wanted(bytes key, take what, unsigned from, unsigned nr);
	void read_shard(const manifest &of, unsigned from, take what);
	void read_logs(const log_manifest &of, unsigned from, take what, store &to);
	std::size_t first_log(const log_manifest &of, unsigned from, const std::vector<std::uint64_t> &numbers) const;
	void replay(store &to, const record &r, bytes key, bytes value);
	void clear(store &to, unsigned from, unsigned nr);
	void merge(store &strays);
	template <class Try> void with_room(store &to, Try &&attempt) const;
	template <class Fill> void put(store &to, const record &r, bytes key, Fill &&fill) const;

	const vault &vault_;
	store &into_;
	unsigned m_, nr_;
	std::uint64_t newest_ = 0, last_log_ = 0, working_set_ = 1;
	bool has_strays_ = false, may_evict_ = false;
};

} // namespace ch::dd

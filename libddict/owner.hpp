// SPDX-License-Identifier: Apache-2.0
// owner.hpp - what the creator of a dictionary holds: the manager processes, their pools, the directory.
#pragma once
#include "directory.hpp"
#include <ddict/core.hpp>

namespace ch::dd {

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

private:
	struct shard {
		memory_pool pool;
		ch::channel requests;
	};
	void make_shards(unsigned nr, std::size_t memory, unsigned max_peers);
	void start_managers(directory &d);
	void await_exits() noexcept;

	detail::handle<ch_spawner, ch_spawner_destroy> spawner_;
	std::vector<shard> shards_;
	std::optional<memory_pool> control_;
	segment dir_;
	descriptor descr_{};
	std::uint64_t generation_ = 0;
	unsigned running_ = 0;
};

} // namespace ch::dd

// SPDX-License-Identifier: Apache-2.0
// owner.cpp - bringing a dictionary into the world, and ending it.
#include "owner.hpp"
#include "connection.hpp"
#include "manager.hpp"
#include <algorithm>
#include <sched.h>
#include <sys/wait.h>

namespace ch::dd {

namespace {

constexpr unsigned request_capacity = 256;
constexpr std::size_t request_channel_len = 256 * 1024;
constexpr std::size_t default_memory = 32 << 20, least_memory = 64 << 10;
constexpr unsigned default_clients = 128, clients_max = 32768;
constexpr std::uint64_t working_set_max = 65536;
constexpr std::int64_t exit_timeout = 2000000000; // then they are killed

unsigned usable_cpus()
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 ? static_cast<unsigned>(CPU_COUNT(&set)) : 1;
}

manager_rules rules_of(const ddict_options &o, unsigned managers)
{
	if (o.working_set > working_set_max)
		refuse(EINVAL, "ddict: a working set has at most 65536 checkpoints");
	if ((o.wait_for_keys || o.wait_for_writers) && o.working_set < 2)
		refuse(EINVAL, "ddict: wait_for_keys and wait_for_writers need a working set of 2 checkpoints or more");
	return {std::max<std::uint64_t>(o.working_set, 1),
		static_cast<std::uint32_t>(o.when_full),
		o.wait_for_keys,
		o.wait_for_writers,
		o.read_only,
		usable_cpus() > managers};
}

} // namespace

void owner::create(const ddict_options &o)
{
	const unsigned nr = o.managers ? o.managers : std::clamp(usable_cpus() / 2, 1u, 4u);
	const unsigned clients = o.max_clients ? o.max_clients : default_clients;
	const std::size_t memory = o.memory ? o.memory : default_memory;

	if (nr > managers_max)
		refuse(EINVAL, "ddict: at most 4096 managers");
	if (clients > clients_max)
		refuse(EINVAL, "ddict: at most 32768 clients");
	generation_ = fork_generation();
	ch_spawner *sp = nullptr;

	check(ch_spawner_create(&sp)); // first: what comes later is not copied into every manager
	spawner_.reset(sp);
	make_shards(nr, memory, clients + 64);
	control_ = memory_pool::create(control_len(clients), clients + nr + 64);
	dir_ = directory_create(nr, clients + nr + 64, o.name);
	directory d{ch_segment_name(dir_.get()), control_->descr(), rules_of(o, nr), {}};

	start_managers(d);
	directory_publish(dir_.get(), d);
	descr_ = detail::descr_of<ch_segment, ch_segment_get_descr>(dir_.get());
}

void owner::make_shards(unsigned nr, std::size_t memory, unsigned max_peers)
{
	const std::size_t each = std::max(memory / nr, least_memory);

	// A sixth on top: blocks have sizes, and what a value falls short of its block, somebody has to pay for.
	for (unsigned m = 0; m < nr; m++) {
		memory_pool pool = memory_pool::create(each + each / 6 + request_channel_len, max_peers);

		shards_.push_back({std::move(pool), {}});
		shards_.back().requests = ch::channel::create(shards_.back().pool,
							      {.capacity = request_capacity, .inline_max = inline_max});
	}
}

void owner::start_managers(directory &d)
{
	for (unsigned m = 0; m < shards_.size(); m++) {
		const descriptor requests = shards_[m].requests.descr();
		manager_arg arg{};
		ch_peer peer{};

		std::memcpy(arg.requests, requests.bytes, sizeof(arg.requests));
		std::memcpy(arg.control, d.control.bytes, sizeof(arg.control));
		arg.index = m;
		arg.rules = d.rules;
		check(ch_spawner_spawn(spawner_.get(), manager_main, &arg, sizeof(arg), m, &peer));
		running_++;
		d.managers.push_back({requests, peer, shards_[m].pool.stats().len});
	}
}

void owner::await_exits() noexcept
{
	using std::chrono::steady_clock;
	const auto until = steady_clock::now() + nanoseconds(exit_timeout);
	ch_exit end;

	while (running_ > 0) {
		const auto left = std::max(nanoseconds(0), nanoseconds(until - steady_clock::now()));

		if (ch_spawner_wait(spawner_.get(), left.count(), &end) < 0)
			return;
		running_--;
	}
}

void owner::destroy() noexcept
{
	if (generation_ != fork_generation()) {
		(void)spawner_.release(); // the parent's
		return;
	}
	disconnect(descr_);
	for (shard &s : shards_)
		if (s.requests)
			ch_channel_close(s.requests.get());
	await_exits();
	spawner_.reset();
	for (shard &s : shards_) {
		s.requests = {};
		s.pool.destroy();
	}
	shards_.clear();
	if (control_)
		control_->destroy();
	control_.reset();
	ch_segment_destroy(dir_.release());
}

} // namespace ch::dd

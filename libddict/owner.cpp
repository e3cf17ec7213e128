// SPDX-License-Identifier: Apache-2.0
// owner.cpp - bringing a dictionary into the world, and ending it.
#include "owner.hpp"
#include "connection.hpp"
#include "manager.hpp"
#include <algorithm>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

namespace ch::dd {

namespace {

constexpr unsigned request_capacity = 256;
constexpr std::size_t request_channel_len = 256 * 1024;
constexpr std::size_t default_memory = 32 << 20, least_memory = 64 << 10;
constexpr unsigned default_clients = 128, clients_max = 32768;
constexpr std::uint64_t working_set_max = 65536;
constexpr std::int64_t lock_timeout = 20000000000; // or the dictionary's own, if that is shorter
constexpr std::int64_t exit_timeout = 2000000000;  // then they are killed

unsigned count_cpus()
{
	return std::max(1u, static_cast<unsigned>(usable_cpus().size()));
}

manager_rules rules_of(const ddict_options &o, unsigned managers)
{
	if (o.working_set > working_set_max)
		refuse(EINVAL, "ddict: a working set has at most 65536 checkpoints");
	if ((o.wait_for_keys || o.wait_for_writers) && o.working_set < 2)
		refuse(EINVAL, "ddict: wait_for_keys and wait_for_writers need a working set of 2 checkpoints or more");
	if (o.replicas > 2 || (o.replicas == 2 && managers < 2))
		refuse(EINVAL, "ddict: 1 or 2 replicas; 2 need two managers");
	return {std::max<std::uint64_t>(o.working_set, 1),
		static_cast<std::uint32_t>(o.when_full),
		o.wait_for_keys,
		o.wait_for_writers,
		o.read_only,
		count_cpus() > managers,
		std::max(o.replicas, 1u),
		o.persist_log};
}

} // namespace

// Of a set the kernel takes those that there are; so each by itself, in a thread that is for nothing else.
static void check_cpus(const cpu_list &cpus)
{
	std::string bad;

	quiet_thread([&] {
		for (const unsigned n : cpus)
			if (bad.empty() && run_on(mask_of({n})) < 0)
				bad = std::to_string(n);
	}).join();
	if (!bad.empty())
		refuse(EINVAL, "ddict: there is no CPU " + bad + ", or this process's cpuset has it not");
}

// As the options say.
static std::vector<cpu_list> places_of(const ddict_options &o, unsigned nr)
{
	if (o.placement > ddict_placement::spread || (o.placement != ddict_placement::anywhere && !o.cpus.empty()))
		refuse(EINVAL, "ddict: placement is a policy, or lists of CPUs");
	if (o.cpus.empty())
		return place_managers(o.placement, nr, usable_cpus(), numa_nodes());
	std::vector<cpu_list> places;

	for (unsigned m = 0; m < nr; m++)
		places.push_back(m < o.cpus.size() ? parse_cpus(o.cpus[m]) : places[m % o.cpus.size()]);
	for (std::size_t i = 0; i < std::min<std::size_t>(nr, o.cpus.size()); i++)
		check_cpus(places[i]);
	return places;
}

void owner::create(const ddict_options &o)
{
	const unsigned nr = o.managers ? o.managers : std::clamp(count_cpus() / 2, 1u, 4u);
	const unsigned clients = o.max_clients ? o.max_clients : default_clients;
	const std::size_t memory = o.memory ? o.memory : default_memory;

	if (nr > managers_max)
		refuse(EINVAL, "ddict: at most 4096 managers");
	if (clients > clients_max)
		refuse(EINVAL, "ddict: at most 32768 clients");
	generation_ = fork_generation();
	if (o.restart && (o.restore_from != ddict_nothing || o.read_only))
		refuse(EINVAL, "ddict: restart begins with what was kept, and with nothing else, and not read only");
	kept_ = o.restart ? place_of_kept(o.name) : std::string();
	places_ = places_of(o, nr);
	prepare_files(o);
	ch_spawner *sp = nullptr;

	check(ch_spawner_create(&sp)); // first: what comes later is not copied into every manager
	spawner_.reset(sp);
	const unsigned copies = std::clamp(o.replicas, 1u, 2u);

	if (o.max_memory && o.max_memory < memory)
		refuse(EINVAL, "ddict: max_memory is under memory");
	make_shards(nr, memory * copies, o.max_memory * copies, clients + 64);
	control_ = memory_pool::create(control_len(clients), clients + nr + 64);
	known_.windows = window_size::of(std::max(memory, o.max_memory) * copies / nr, clients);
	dir_ = directory_create(nr, clients + nr + 64, known_.windows, o.name);
	known_.name = ch_segment_name(dir_.get());
	known_.control = control_->descr();
	known_.rules = rules_of(o, nr);
	known_.words = directory_words(dir_.get(), nr);
	descr_ = detail::descr_of<ch_segment, ch_segment_get_descr>(dir_.get());
	for (const shard &s : shards_)
		known_.managers.push_back({s.requests.descr(), s.pool.stats().max_len});
	start_managers();
	directory_publish(dir_.get(), known_);
}

static void check_files(const ddict_options &o)
{
	if (o.persist_path.empty() &&
	    (o.persist_freq || o.persist_count || o.persist_log || o.restore_from != ddict_nothing))
		refuse(EINVAL, "ddict: persist_freq, persist_count, persist_log and restore_from need persist_path");
	if (o.persist_path.size() >= sizeof(persist_rules::dir))
		refuse(EINVAL, "ddict: persist_path is too long");
	if (o.persist_log && (o.replicas > 1 || o.read_only))
		refuse(EINVAL, "ddict: a log needs a dictionary with one replica that can be written");
}

// Alone in the directory, for which it waits as long as managers of a killed predecessor may need to end.
static file lock_directory(const std::string &dir, std::int64_t timeout_ns)
{
	file f(dir + "/" + lock_name, O_RDWR | O_CREAT);
	const std::int64_t late = monotonic_ns() + (timeout_ns < 0 ? lock_timeout : std::min(timeout_ns, lock_timeout));

	while (flock(f.fd(), LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			refuse_file(f.path(), "cannot be locked", errno);
		if (monotonic_ns() >= late)
			refuse(EEXIST, dir + ": another dictionary writes its files there");
		const timespec nap{0, 10000000};

		nanosleep(&nap, nullptr);
	}
	return f;
}

// Durably: also if whoever made it was killed before he saw to that.
static void make_directory(const std::string &path)
{
	const bool is_new = mkdir(path.c_str(), 0700) == 0;

	if (!is_new && errno != EEXIST)
		refuse_file(path, "cannot be made", errno);
	try {
		sync_directory(path + "/..");
	} catch (const error &) {
		if (is_new)
			throw; // else its parent may be one that this user cannot even read
	}
}

void owner::prepare_files(const ddict_options &o)
{
	check_files(o);
	if (o.persist_path.empty())
		return;
	const vault v(o.persist_path);

	if (!o.read_only)
		make_directory(o.persist_path);
	std::memcpy(files_.dir, o.persist_path.c_str(), o.persist_path.size() + 1);
	files_.epoch = realtime_ns();
	files_.freq = o.persist_freq;
	files_.keep = o.persist_count;
	files_.has_log = o.persist_log;
	files_.is_reader = o.read_only;
	if (!o.read_only) {
		files_lock_ = lock_directory(o.persist_path, o.timeout.count());
		v.clean();
	}
	if (o.persist_log && o.restore_from == ddict_nothing && v.has_log())
		refuse(EEXIST, o.persist_path + ": there is a log already; restore from it, or remove its files");
	restores_ = o.restore_from == ddict_newest ? v.newest() : o.restore_from;
	if (restores_ == ddict_log)
		v.read_log(); // before anything is started
	else if (restores_ != ddict_nothing)
		v.read(restores_);
	// Managers hold it too, from now on.
	if (!o.read_only && flock(files_lock_.fd(), LOCK_SH | LOCK_NB) < 0)
		refuse(EEXIST, o.persist_path + ": another dictionary writes its files there");
}

void owner::publish_log() const
{
	vault(files_.dir).publish_log({files_.epoch, static_cast<std::uint32_t>(shards_.size()), 0});
}

// A sixth on top: blocks have sizes, and what a value falls short of its block, somebody has to pay for.
static std::size_t pool_len(std::size_t memory, unsigned nr)
{
	const std::size_t each = std::max(memory / nr, least_memory);

	return each + each / 6 + request_channel_len;
}

// Memory lies on the node of whoever takes it first: of a thread that runs where the manager will.
template <class F> static void run_there(const cpu_list &where, F &&f)
{
	std::exception_ptr failure;

	if (where.empty())
		return f();
	quiet_thread([&] {
		try {
			run_on(mask_of(where));
			f();
		} catch (...) {
			failure = std::current_exception();
		}
	}).join();
	if (failure)
		std::rethrow_exception(failure);
}

void owner::make_shards(unsigned nr, std::size_t memory, std::size_t max_memory, unsigned max_peers)
{
	for (unsigned m = 0; m < nr; m++) {
		std::optional<memory_pool> pool;
		const auto make = [&] {
			pool = memory_pool::create({.len = pool_len(memory, nr),
						    .max_len = max_memory ? pool_len(max_memory, nr) : 0,
						    .max_peers = max_peers});
		};

		run_there(places_[m], make);
		shards_.push_back({std::move(*pool), {}});
		shards_.back().requests = ch::channel::create(shards_.back().pool,
							      {.capacity = request_capacity, .inline_max = inline_max});
	}
}

void owner::start_managers()
{
	for (unsigned m = 0; m < shards_.size(); m++)
		start_manager(m);
	watcher_ = std::make_unique<std::thread>(quiet_thread([this] { watch(); }));
	// Until it has begun: a child forked while a thread begins may find locks of the allocator taken for ever.
	std::unique_lock<std::mutex> lock(lock_);

	ended_.wait(lock, [this] { return is_watching_; });
}

void owner::start_manager(unsigned m)
{
	const auto nr = static_cast<unsigned>(shards_.size());
	manager_words &w = known_.words[m];
	manager_arg arg{};
	ch_peer peer{};

	std::memcpy(arg.requests, known_.managers[m].requests.bytes, sizeof(arg.requests));
	std::memcpy(arg.next, known_.managers[(m + 1) % nr].requests.bytes, sizeof(arg.next));
	std::memcpy(arg.previous, known_.managers[(m + nr - 1) % nr].requests.bytes, sizeof(arg.previous));
	std::memcpy(arg.control, known_.control.bytes, sizeof(arg.control));
	std::memcpy(arg.directory, descr_.bytes, sizeof(arg.directory));
	arg.index = m;
	arg.nr_managers = nr;
	arg.windows = known_.windows;
	arg.incarnation = w.incarnation.load(std::memory_order_relaxed) + 1; // this thread alone writes it
	arg.rules = known_.rules;
	arg.files = files_;
	arg.cpus = mask_of(places_[m]);
	check(ch_spawner_spawn(spawner_.get(), manager_main, &arg, sizeof(arg), m, &peer));
	{
		std::lock_guard<std::mutex> lock(lock_);

		running_++;
	}
	w.creator.store(ch_peer_self().id, std::memory_order_relaxed); // see below
	w.peer.store(peer.id, std::memory_order_relaxed);              // see below
	// [I2] pairs with [I1]: peer and lost are there.
	w.incarnation.store(arg.incarnation, std::memory_order_release);
}

void owner::watch() noexcept
{
	ch_exit end;

	{
		std::lock_guard<std::mutex> lock(lock_);

		is_watching_ = true;
	}
	ended_.notify_all();
	while (ch_spawner_wait(spawner_.get(), CH_FOREVER, &end) >= 0) {
		bool is_ending;

		{
			std::lock_guard<std::mutex> lock(lock_);

			running_--;
			is_ending = is_ending_;
		}
		ended_.notify_all();
		if (!is_ending)
			replace(static_cast<unsigned>(end.cookie));
	}
}

// Whoever was at it first may still be at it. What the dead one had taken and not done must lie in its channel before the
// successor looks there, or it would come behind what was sent later.
void owner::sweep_up(const memory_pool &pool)
{
	for (bool is_ending = false; !is_ending;) {
		if (ch_pool_sweep(pool.get()) != -ETIMEDOUT) // of a process that is stopped
			break;
		std::lock_guard<std::mutex> lock(lock_);
		is_ending = is_ending_;
	}
}

// What it held is given back first: its successor begins with an empty pool, and the requests that nobody has taken.
void owner::replace(unsigned m) noexcept
{
	manager_words &w = known_.words[m];

	try {
		sweep_up(shards_[m].pool);
		sweep_up(*control_);
		if (known_.rules.replicas < 2 && !files_.has_log)
			w.lost.fetch_add(w.keys.exchange(0, std::memory_order_relaxed), // its writer is dead
					 std::memory_order_relaxed);                    // see [I2]
		start_manager(m);
	} catch (const std::exception &e) {
		std::fprintf(stderr, "ddict: manager %u died and cannot be replaced: %s\n", m, e.what());
	}
}

void owner::end_managers() noexcept
{
	for (shard &s : shards_)
		if (s.requests)
			ch_channel_close(s.requests.get());
	if (watcher_) {
		std::unique_lock<std::mutex> lock(lock_);

		is_ending_ = true;
		ended_.wait_for(lock, nanoseconds(exit_timeout), [this] { return running_ == 0; });
	}
	if (spawner_)
		ch_spawner_cancel(spawner_.get());
	if (watcher_)
		watcher_->join();
	watcher_.reset();
	spawner_.reset(); // kills those that are left
}

void owner::destroy() noexcept
{
	if (generation_ != fork_generation()) {
		(void)spawner_.release(); // the parent's, as is the thread
		(void)watcher_.release();
		return;
	}
	disconnect(descr_);
	end_managers();
	for (shard &s : shards_) {
		s.requests = {};
		s.pool.destroy();
	}
	shards_.clear();
	if (control_)
		control_->destroy();
	control_.reset();
	ch_segment_destroy(dir_.release());
	if (files_lock_.fd() >= 0)
		flock(files_lock_.fd(), LOCK_UN); // forked processes share it
	files_lock_ = {};
}

} // namespace ch::dd

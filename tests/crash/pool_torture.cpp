// SPDX-License-Identifier: Apache-2.0
// pool_torture.cpp - the kill test of libpool's pools. Owners are killed at work first: all that they had started must be
// gone. Then one pool maps and submits without a pause while its workers are killed with SIGKILL: by another thread at
// random instants, within tasks, and (in builds with --enable-crash-points) at chosen steps of the message path.
//
// What must hold, whoever dies where: each result comes, once, for its own item, and in order where that was asked for; a
// task that is to be begun once is never begun twice; no task is begun anew but after a counted death; dead workers are
// replaced; nobody hangs; nothing that a dead worker held stays taken: at the end its memory is there in one
// piece. tests/support/alone.sh looks for files and processes left behind.
//
// usage: pool_torture [--kills N] [--owners N] [--seed X] [--workers W]
#include "crash.h"
#include "must.h"
#include "../support/support.h"
#include <algorithm>
#include <atomic>
#include <numeric>
#include <poll.h>
#include <pool/pool.hpp>
#include <thread>

namespace {

constexpr std::size_t nr_tasks = 256; // of a round
constexpr std::size_t memory = 8 << 20, most = 3 << 20; // of a pool; of it, in one piece for arguments

// In shared memory of its own, so that it outlives the killed.
struct evidence {
	std::atomic<std::uint32_t> bad;
	std::atomic<bool> is_over; // nobody is killed any more
	std::atomic<std::uint64_t> seeds, in_tasks;
	std::atomic<std::uint64_t> hits[ch::core::CH_NR_CRASH_POINTS];
	std::atomic<std::uint32_t> begun[nr_tasks], ended[nr_tasks];
};

evidence *ev;

// How this process is to die. What a fork copies of it is not meant for the child.
struct {
	std::atomic<pid_t> pid = 0;
	int point = -1;
	std::atomic<long> points_left, tasks_left;
} fate;

void die(std::atomic<std::uint64_t> &of)
{
	if (ev->is_over)
		return;
	of++;
	kill(getpid(), SIGKILL);
}

#ifdef CH_CRASH_POINTS
void on_crash_point(int id)
{
	if (id == fate.point && fate.pid == getpid() && --fate.points_left == 0)
		die(ev->hits[id]);
}
#endif

// Many get none, so that a chunk of any length comes through.
void draw_fate()
{
	std::uint64_t seed = ev->seeds.fetch_add(2) * 2654435761 + 1;

	for (int i = 0; i < 8; i++)
		rnd(&seed);
	fate.point = static_cast<int>(rnd(&seed) % ch::core::CH_NR_CRASH_POINTS);
	fate.points_left = 1 + static_cast<long>(rnd(&seed) % 100);
	fate.tasks_left = rnd(&seed) % 4 ? 0 : 1 + static_cast<long>(rnd(&seed) % 1000);
	fate.pid = getpid();
}

// What each task does first and last.
void maybe_die()
{
	if (fate.pid == getpid() && --fate.tasks_left == 0)
		die(ev->in_tasks);
}

// ---- what is asked of the pool, and what must come of it

class endless {
public:
	class iterator {
	public:
		using value_type = long;
		using difference_type = std::ptrdiff_t;
		long operator*() const { return at_; }
		iterator &operator++()
		{
			at_++;
			return *this;
		}
		void operator++(int) { at_++; }

	private:
		long at_ = 0;
	};
	iterator begin() const { return {}; }
	std::unreachable_sentinel_t end() const { return {}; }
};

long triple(long x)
{
	maybe_die();
	return 3 * x;
}

void map_in_order(ch::pool &p, std::size_t chunk, long nr)
{
	long i = 0;

	for (const long r : p.map(triple, endless(), {.chunk = chunk})) {
		MUST(r == 3 * i);
		if (++i == nr)
			break;
	}
}

void map_as_they_come(ch::pool &p, std::size_t chunk)
{
	std::vector<long> in(5 * nr_tasks), came(in.size());
	std::iota(in.begin(), in.end(), 0);
	auto results = p.map_unordered(triple, in, {.chunk = chunk});

	for (auto i = results.begin(); i != results.end(); ++i) {
		MUST(*i == 3 * static_cast<long>(i.index()));
		came.at(i.index())++;
	}
	MUST(std::all_of(came.begin(), came.end(), [](long n) { return n == 1; }));
}

std::uint64_t noted(std::size_t i)
{
	ev->begun[i]++;
	maybe_die();
	ev->ended[i]++;
	return i;
}

void forget_notes()
{
	for (std::size_t i = 0; i < nr_tasks; i++)
		ev->begun[i] = ev->ended[i] = 0;
}

// Begun at most once each, and over in one way.
void submit_once(ch::pool &p)
{
	const ch::task_options once{.on_death = ch::on_death::fail};
	std::vector<ch::future<std::uint64_t>> fs;

	forget_notes();
	for (std::size_t i = 0; i < nr_tasks; i++)
		fs.push_back(p.submit(once, noted, i));
	for (std::size_t i = 0; i < nr_tasks; i++) {
		try {
			MUST(fs[i].get() == i);
			MUST(ev->ended[i] == 1);
		} catch (const ch::worker_died &) {
		}
		MUST(ev->begun[i] <= 1);
	}
}

// Returns how often one was begun anew.
std::uint64_t submit_again(ch::pool &p)
{
	std::vector<ch::future<std::uint64_t>> fs;
	std::uint64_t begun = 0;

	forget_notes();
	for (std::size_t i = 0; i < nr_tasks; i++)
		fs.push_back(p.submit(noted, i));
	for (std::size_t i = 0; i < nr_tasks; i++) {
		MUST(fs[i].get() == i);
		MUST(ev->ended[i] >= 1);
	}
	for (const auto &n : ev->begun)
		begun += n;
	return begun - nr_tasks;
}

void submit_large(ch::pool &p, std::uint64_t &seed)
{
	std::vector<std::pair<ch::future<std::string>, std::string>> fs;

	for (int i = 0; i < 40; i++) {
		const std::string s(rnd(&seed) % (i % 4 ? 3000 : 300000), static_cast<char>('a' + i % 26));

		fs.emplace_back(p.submit([](const std::string &a) {
			maybe_die();
			return a + "!";
		}, s), s + "!");
	}
	for (auto &[f, expected] : fs)
		MUST(f.get() == expected);
}

// ---- workers

struct options {
	std::uint64_t kills = 200, owners = 0, seed = 0;
	unsigned workers = 4;
};

void kill_some(ch::pool &p, std::uint64_t seed)
{
	while (!ev->is_over) {
		const std::vector<pid_t> pids = p.workers();

		if (!pids.empty())
			kill(pids[rnd(&seed) % pids.size()], SIGKILL);
		usleep(static_cast<useconds_t>(rnd(&seed) % 3000));
	}
}

void use_in_turn(ch::pool &p, std::uint64_t kills, std::uint64_t &anew)
{
	while (p.stats().deaths < kills) {
		submit_once(p);
		anew += submit_again(p);
		map_as_they_come(p, 1);
		map_as_they_come(p, 17);
	}
}

ch::pool make_pool(unsigned workers)
{
	return ch::pool({.workers = workers, .max_attempts = 1000000000, .memory = memory, .initializer = draw_fate});
}

// One thread maps without a pause, a second does all the rest, a third kills.
void torture_workers(const options &o)
{
	std::uint64_t seed = o.seed + 1, anew = 0, nr = 0;
	ch::pool p = make_pool(o.workers);
	std::thread killer(kill_some, std::ref(p), seed + 1);
	std::thread other(use_in_turn, std::ref(p), o.kills, std::ref(anew));

	for (; p.stats().deaths < o.kills; nr++) {
		alarm(WATCHDOG_S);
		map_in_order(p, std::array{1, 0, 9}[nr % 3], 500);
		submit_large(p, seed);
	}
	other.join();
	ev->is_over = true;
	killer.join();
	p.wait_ready();
	map_in_order(p, 1, 2000);
	MUST(p.apply([](const std::string &s) { return s.size(); }, std::string(most, 'm')) == most);
	p.join();
	AWAIT(p.stats().workers == o.workers); // the last to be killed may not have been missed yet
	const ch::pool_stats s = p.stats();
	MUST(s.in_flight == 0 && anew <= s.requeued);
	printf("%llu workers died, %llu of them in tasks, %llu at crash points; %llu tasks, %llu begun anew\n",
	       static_cast<unsigned long long>(s.deaths), static_cast<unsigned long long>(ev->in_tasks.load()),
	       static_cast<unsigned long long>(std::accumulate(std::begin(ev->hits), std::end(ev->hits), std::uint64_t{0})),
	       static_cast<unsigned long long>(s.submitted), static_cast<unsigned long long>(s.requeued));
}

// ---- owners

long map_below(long depth)
{
	ch::pool p = make_pool(2);

	if (depth > 0)
		p.submit(map_below, depth - 1).get();
	for (const long r : p.map(triple, endless(), {.chunk = 1}))
		MUST(r % 3 == 0);
	return 0;
}

[[noreturn]] void be_owner()
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(WATCHDOG_S);
	draw_fate();
	map_below(static_cast<long>(ev->seeds / 2 % 3));
	_exit(1);
}

// Kills an owner; returns how long its workers outlived it. All of them hold the pipe's other end.
std::int64_t kill_owner(std::uint64_t &seed)
{
	int ends[2];

	MUST(pipe(ends) == 0);
	const pid_t pid = fork();
	if (pid == 0)
		be_owner();
	close(ends[1]);
	usleep(static_cast<useconds_t>(rnd(&seed) % (rnd(&seed) % 4 ? 100000 : 5000)));
	MUST(child_kill(pid) == -SIGKILL);
	const std::int64_t begin = now_ns();
	pollfd fd = {ends[0], POLLIN, 0};
	MUST(poll(&fd, 1, WATCHDOG_S * 1000) == 1 && fd.revents == POLLHUP);
	close(ends[0]);
	return now_ns() - begin;
}

void torture_owners(const options &o)
{
	std::uint64_t seed = o.seed + 1;
	std::vector<std::int64_t> ns;

	for (std::uint64_t i = 0; i < o.owners; i++) {
		alarm(2 * WATCHDOG_S);
		ns.push_back(kill_owner(seed));
	}
	std::sort(ns.begin(), ns.end());
	if (!ns.empty())
		printf("%zu owners died; their last process went %.1f ms later, at most %.1f ms\n", ns.size(),
		       static_cast<double>(ns[ns.size() / 2]) / 1e6, static_cast<double>(ns.back()) / 1e6);
}

options parse(int argc, char **argv)
{
	options o;

	for (int i = 1; i + 1 < argc; i += 2) {
		const std::uint64_t n = strtoull(argv[i + 1], nullptr, 0);

		if (!strcmp(argv[i], "--kills"))
			o.kills = n;
		else if (!strcmp(argv[i], "--owners"))
			o.owners = n + 1;
		else if (!strcmp(argv[i], "--seed"))
			o.seed = n;
		else if (!strcmp(argv[i], "--workers"))
			o.workers = static_cast<unsigned>(n);
		else
			exit(2);
	}
	o.owners = o.owners ? o.owners - 1 : o.kills / 20;
	if (!o.seed)
		o.seed = test_seed();
	return o;
}

} // namespace

int main(int argc, char **argv)
{
	const options o = parse(argc, argv);

	ev = static_cast<evidence *>(mmap(nullptr, sizeof(*ev), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	ev->seeds = o.seed;
#ifdef CH_CRASH_POINTS
	ch::core::ch_crash_hook = on_crash_point;
#endif
	torture_owners(o);
	torture_workers(o);
	printf("%s; CH_TEST_SEED=%llu\n", ev->bad ? "FAIL" : "PASS", static_cast<unsigned long long>(o.seed));
	return ev->bad ? 1 : 0;
}

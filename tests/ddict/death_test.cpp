// SPDX-License-Identifier: Apache-2.0
// death_test.cpp - clients, managers and creators that are killed. Sees libddict's directory, to look into the pools.
#include "ddict_support.hpp"
#include "../support/holdings.hpp"
#include <atomic>

TestSuite(ddict_death, .timeout = 10 * WATCHDOG_S);

constexpr int nr_keys = 8;
using text_dict = ddict<int, std::string>;

// Puts for ever: a value of key k begins with k's number and is whole.
static bool put_for_ever(const text_dict &d, std::uint64_t seed, struct board *b)
{
	for (std::uint64_t n = 0;; n++) {
		const std::size_t len = rnd(&seed) % 4 ? rnd(&seed) % 500 : 1000 + rnd(&seed) % 200000;
		const int k = static_cast<int>(rnd(&seed) % nr_keys);

		if (n % 5 == 4)
			d.get(k);
		else
			d.put(k, whole_value(static_cast<std::uint64_t>(k), len));
		if (n == 3)
			post(b, 0);
	}
}

// How many kills: CH_TEST_KILLS, or a short run.
static int nr_kills(int few)
{
	const char *given = getenv("CH_TEST_KILLS");

	return given ? atoi(given) : few;
}

static void nap_us(std::uint64_t us)
{
	const timespec t = {0, static_cast<long>(us) * 1000};

	nanosleep(&t, nullptr);
}

Test(ddict_death, a_client_killed_while_it_puts_leaves_the_old_or_the_new_value_and_no_leak)
{
	std::uint64_t seed = test_seed();
	text_dict d({.managers = 2, .memory = 16 << 20, .max_clients = 8});
	d.clear();
	const ch::dd::holdings before(d.descr());

	for (int k = 0; k < nr_keys; k++)
		d.put(k, whole_value(static_cast<std::uint64_t>(k), 10));
	for (int round = 0; round < nr_kills(150); round++) {
		struct board *b = board_new();
		const std::uint64_t s = rnd(&seed);
		const pid_t child = start_child([&] { return put_for_ever(d, s, b); });

		await_post(b, 0);
		nap_us(rnd(&seed) % 2000);
		cr_assert_eq(child_kill(child), -SIGKILL);
		for (int k = 0; k < nr_keys; k++)
			cr_assert(is_whole(d.get(k), static_cast<std::uint64_t>(k)), "round %d key %d", round, k);
		munmap(b, sizeof(*b));
	}
	d.clear();
	cr_assert(before.are_again(d.descr()));
}

Test(ddict_death, a_client_killed_while_it_reads_large_values_pins_nothing)
{
	std::uint64_t seed = test_seed();
	text_dict d({.managers = 1, .memory = 8 << 20, .max_clients = 8});
	d.clear();
	const ch::dd::holdings before(d.descr());

	for (int round = 0; round < nr_kills(40); round++) {
		struct board *b = board_new();

		d.put(0, std::string(1 << 20, 'a'));
		const pid_t child = start_child([&] {
			for (;;) {
				d.get(0);
				post(b, 0);
			}
			return true;
		});
		await_post(b, 0);
		nap_us(rnd(&seed) % 2000);
		child_kill(child);
		munmap(b, sizeof(*b));
	}
	d.clear();
	cr_assert(before.are_again(d.descr()));
}

Test(ddict_death, a_client_killed_while_it_attaches_leaves_nothing)
{
	std::uint64_t seed = test_seed();
	text_dict d({.managers = 2, .max_clients = 8});

	d.clear();
	const ch::dd::holdings before(d.descr());

	for (int round = 0; round < nr_kills(150); round++) {
		const pid_t child = start_child([&] {
			d.put(1, "one");
			wait_to_be_killed();
			return true;
		});

		nap_us(rnd(&seed) % 3000);
		child_kill(child);
		d.put(2, "two");
	}
	d.clear();
	cr_assert(before.are_again(d.descr()));
}

Test(ddict_death, dead_clients_make_room_for_others)
{
	ddict<int, int> d({.managers = 2, .max_clients = 4});

	for (int i = 0; i < 200; i++) {
		struct board *b = board_new();
		const pid_t child = start_child([&] {
			d.put(i, i);
			post(b, 0);
			wait_to_be_killed();
			return true;
		});

		await_post(b, 0);
		child_kill(child);
		munmap(b, sizeof(*b));
	}
	cr_assert_eq(d.size(), 200u);
}

// A key for each manager.
static std::vector<int> keys_of_managers(const ddict<int, int> &d)
{
	std::vector<int> keys(d.managers(), -1);

	for (int k = 0; k < 1000; k++)
		keys[d.which_manager(k)] = k;
	return keys;
}

static void kill_manager(const ddict<int, int> &d, unsigned m)
{
	const ch_peer peer = d.core().manager_peer(m);

	kill(ch_peer_pid(peer), SIGKILL);
	AWAIT(!ch_peer_is_alive(peer));
}

// Calls until the manager's successor answers; the errors on the way.
static std::vector<std::string> errors_until_good(const ddict<int, int> &d, int key)
{
	std::vector<std::string> errors;

	for (int i = 0; i < 10; i++) {
		const std::string why = text_of([&] { d.contains(key); });

		if (why.empty())
			break;
		errors.push_back(why);
	}
	return errors;
}

Test(ddict_death, a_dead_manager_is_reported_with_what_was_lost_and_replaced)
{
	ddict<int, int> d({.managers = 3});
	const std::vector<int> keys = keys_of_managers(d);

	for (int k = 0; k < 1000; k++)
		d.put(k, k);
	const std::size_t lost = d.manager(1).size();
	kill_manager(d, 1);
	for (const unsigned m : {0u, 2u}) {
		cr_assert_eq(d.get(keys[m]), keys[m]);
		d.put(keys[m], -1);
		cr_assert_eq(d.get(keys[m]), -1);
	}
	const std::vector<std::string> errors = errors_until_good(d, keys[1]);
	cr_assert(!errors.empty() && errors.size() <= 2);
	const std::string &why = errors.back();
	for (const std::string &part :
	     std::vector<std::string>{"manager 1 of 3", "predecessor died", std::to_string(lost) + " keys"})
		cr_assert(why.find(part) != std::string::npos, "\"%s\" lacks \"%s\"", why.c_str(), part.c_str());
	cr_assert_eq(d.size(), 1000 - lost);
	const ch::ddict_stats stats = d.stats()[1];
	cr_assert_eq(stats.deaths, 1u);
	cr_assert_eq(stats.lost, lost);
	for (int k = 0; k < 1000; k++)
		d.put(k, k + 1);
	for (int k = 0; k < 1000; k++)
		cr_assert_eq(d.get(k), k + 1);
	const auto other = ddict<int, int>::attach(d.descr()); // in this process: it knows already
	cr_assert_eq(other.get(keys[1]), keys[1] + 1);
}

// Each client learns of it once.
Test(ddict_death, every_client_learns_what_was_lost)
{
	ddict<int, int> d({.managers = 1});
	struct board *b = board_new();
	std::vector<pid_t> children;

	d.put(1, 1);
	for (int i = 0; i < 3; i++)
		children.push_back(start_child([&] {
			if (d.get(1) != 1)
				return false;
			post(b, 0);
			await_post(b, 1);
			int err;

			AWAIT((err = error_of([&] { d.get(1); })) != 0); // until it is known, its value is seen
			if (err != EOWNERDEAD)
				return false;
			errors_until_good(d, 1);
			return !d.contains(1);
		}));
	AWAIT(posted(b, 0) == 3);
	kill_manager(d, 0);
	post(b, 1);
	for (const pid_t c : children)
		cr_assert_eq(child_end(c), 0);
	munmap(b, sizeof(*b));
}

// Threads that wait for the manager to answer key, which it does not: it is stopped. They end with what err says.
static std::vector<std::jthread> waiters_for(const ddict<int, int> &d, int key, std::span<std::atomic<int>> err)
{
	std::vector<std::jthread> waiting;
	const auto tid = std::make_shared<std::atomic<pid_t>>();

	for (auto &e : err) {
		*tid = 0;
		waiting.emplace_back([&d, &e, key, tid] {
			*tid = gettid();
			e = error_of([&] { d.get(key); });
		});
		AWAIT(*tid != 0);
		await_asleep(*tid);
	}
	return waiting;
}

Test(ddict_death, who_waits_for_a_manager_that_dies_learns_of_it)
{
	ddict<int, int> d({.managers = 2});
	const std::vector<int> keys = keys_of_managers(d);
	const pid_t manager = ch_peer_pid(d.core().manager_peer(0));
	std::atomic<int> err[4] = {-1, -1, -1, -1};

	d.put(keys[0], 1);
	d.put(keys[1], 1);
	kill(manager, SIGSTOP);
	std::vector<std::jthread> waiting = waiters_for(d, keys[0], err);
	for (int i = 0; i < 100; i++) // others answer meanwhile
		cr_assert_eq(d.get(keys[1]), 1);
	kill(manager, SIGKILL);
	waiting.clear();
	for (const auto &e : err)
		cr_assert_eq(e, EOWNERDEAD, "%s", strerror(e));
	cr_assert_eq(d.get(keys[1]), 1);
}

// They look for deaths only now and then; until then another thread has made the successor's acquaintance.
Test(ddict_death, who_waits_learns_of_it_although_another_thread_knows_the_successor)
{
	ddict<int, int> d({.managers = 1});
	const pid_t manager = ch_peer_pid(d.core().manager_peer(0));
	std::atomic<int> err[2] = {-1, -1};

	d.put(1, 1);
	kill(manager, SIGSTOP);
	std::vector<std::jthread> waiting = waiters_for(d, 1, err);
	nap_us(700000); // now and then has become half a second
	kill(manager, SIGKILL);
	AWAIT(ch_peer_pid(d.core().manager_peer(0)) != manager);
	AWAIT(error_of([&] { d.put(2, 2); }) == 0);
	waiting.clear();
	for (const auto &e : err)
		cr_assert_eq(e, EOWNERDEAD, "%s", strerror(e));
	cr_assert_eq(d.get(2), 2);
}

// A request channel full of what nobody will ever take.
Test(ddict_death, senders_to_a_dead_manager_do_not_wait_for_ever)
{
	ddict<int, int> d({.managers = 1});
	const pid_t manager = ch_peer_pid(d.core().manager_peer(0));
	struct board *b = board_new();
	std::vector<pid_t> children;

	d.put(1, 1);
	kill(manager, SIGSTOP);
	for (int c = 0; c < 12; c++)
		children.push_back(start_child([&] {
			std::vector<std::jthread> threads;
			std::atomic<int> good{0};

			post(b, 0);
			for (int t = 0; t < 30; t++)
				threads.emplace_back([&] {
					const int err = error_of([&] { d.contains(1); });

					good += err == EOWNERDEAD || err == 0; // by its successor
				});
			threads.clear();
			return good == 30;
		}));
	AWAIT(posted(b, 0) == 12);
	nap_us(100000);
	kill(manager, SIGKILL);
	for (const pid_t c : children)
		cr_assert_eq(child_end(c), 0);
}

Test(ddict_death, a_dictionary_whose_managers_are_dead_can_be_destroyed)
{
	std::set<std::string> files;

	{
		ddict<int, int> d({.managers = 2});

		d.put(1, 1);
		kill_manager(d, 0);
		kill_manager(d, 1);
		files = mapped_segments();
	}
	cr_assert(exist_no_more(files));
}

Test(ddict_death, a_batch_and_a_walk_over_a_dead_manager_are_errors)
{
	ddict<int, int> d({.managers = 2});
	std::vector<std::pair<int, int>> much;
	std::vector<int> keys;

	for (int i = 0; i < 3000; i++) {
		much.emplace_back(i, i);
		keys.push_back(i);
	}
	d.put_many(much);
	kill_manager(d, 1);
	const auto is_death = [](int err) { return err == EOWNERDEAD || err == EHOSTUNREACH; };
	cr_assert(is_death(error_of([&] { d.put_many(much); })));
	for (int i = 0; i < 3; i++)
		error_of([&] { d.get_many(keys); });
	d.put_many(much); // it was replaced
	cr_assert_eq(d.size(), much.size());
	const pid_t manager = ch_peer_pid(d.core().manager_peer(1));
	kill(manager, SIGSTOP);
	std::jthread walks([&] {
		cr_expect(is_death(error_of([&] {
			for ([[maybe_unused]] const auto &[k, v] : d)
				;
		})));
	});
	nap_us(20000);
	kill(manager, SIGKILL);
	walks.join();
}

Test(ddict_death, the_creators_death_is_an_error_for_the_others_and_leaves_nothing)
{
	struct board *b = board_new();
	const pid_t creator = start_child([&] {
		ddict<int, int> d({.managers = 2});

		d.put(1, 1);
		b->descr = d.descr();
		post(b, 0);
		wait_to_be_killed();
		return true;
	});

	await_post(b, 0);
	const ch::descriptor there{b->descr};
	const auto d = ddict<int, int>::attach(there);
	cr_assert_eq(d.get(1), 1);
	const std::set<std::string> files = mapped_segments();
	child_kill(creator);
	int err = 0;
	AWAIT((err = error_of([&] { d.get(1); })) != 0);
	cr_assert(err == EOWNERDEAD || err == EHOSTUNREACH || err == ESTALE, "%s", strerror(err));
	AWAIT(exist_no_more(files));
}

// Stopped with requests that are answered meanwhile. Not just anywhere: within the writing of a request it would hold up.
Test(ddict_death, a_client_that_stops_holds_up_nobody)
{
	ddict<int, int> d({.managers = 1});
	const pid_t manager = ch_peer_pid(d.core().manager_peer(0));
	struct board *b = board_new();
	const pid_t child = start_child([&] {
		std::vector<ch::ddict_future<void>> calls;

		d.put(0, 0);
		post(b, 0);
		await_post(b, 1);
		for (int i = 0; i < 20; i++)
			calls.push_back(d.put_async(i, i));
		d.put(20, 20);
		for (auto &c : calls)
			c.get();
		return true;
	});

	await_post(b, 0);
	kill(manager, SIGSTOP);
	post(b, 1);
	await_asleep(child);
	kill(child, SIGSTOP);
	kill(manager, SIGCONT);
	for (int i = 100; i < 1000; i++) {
		d.put(i, i);
		cr_assert_eq(d.get(i), i);
	}
	cr_assert_eq(d.get(20), 20);
	kill(child, SIGCONT);
	cr_assert_eq(child_end(child), 0);
	munmap(b, sizeof(*b));
}

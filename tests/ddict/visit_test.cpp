// SPDX-License-Identifier: Apache-2.0
// visit_test.cpp - functions that run next to the data: what they see, how their answers come together, and what
// becomes of the dictionary when one of them crashes, throws, or does not end.
#include "ddict_support.hpp"
#include <atomic>
#include <csignal>
#include <numeric>

using namespace std::chrono_literals;
using number_dict = ddict<int, long>;
using text_dict = ddict<std::string, std::string>;

TestSuite(ddict_visit, .timeout = WATCHDOG_S);

static number_dict numbers(unsigned managers, int n)
{
	number_dict d({.managers = managers, .memory = 16 << 20});
	std::vector<std::pair<int, long>> all;

	for (int i = 0; i < n; i++)
		all.emplace_back(i, i);
	d.put_many(all);
	return d;
}

static long sum_of(const number_dict &d)
{
	return d.reduce(
		0L, [](long s, int, long v) { return s + v; }, [](long a, long b) { return a + b; });
}

// A tree of one, of two levels, and of three.
Test(ddict_visit, every_pair_is_met_once_by_every_number_of_managers)
{
	for (const unsigned managers : {1u, 2u, 5u, 9u}) {
		const auto d = numbers(managers, 3000);

		cr_assert_eq(sum_of(d), 2999L * 3000 / 2);
		cr_assert_eq(sum_of(d.manager(0)), [&] {
			long s = 0;

			for (const auto &[k, v] : d.manager(0))
				s += v;
			return s;
		}());
	}
}

Test(ddict_visit, filter_gives_the_pairs_that_are_wanted)
{
	const auto d = numbers(3, 2000);
	int least = 1500;
	auto found = d.filter([least](int k, long v) { return k >= least && v % 2 == 0; });

	cr_assert_eq(found.size(), 250u);
	std::sort(found.begin(), found.end());
	for (std::size_t i = 0; i < found.size(); i++) {
		cr_assert_eq(found[i].first, 1500 + 2 * static_cast<int>(i));
		cr_assert_eq(found[i].second, found[i].first);
	}
	cr_assert_eq(d.filter([](int, long) { return false; }).size(), 0u);
}

Test(ddict_visit, map_gives_what_the_function_makes_of_each)
{
	const auto d = numbers(2, 100);
	const std::vector<std::pair<int, std::string>> all =
		d.map([](int k, long v) { return std::to_string(k) + "=" + std::to_string(v); });
	std::set<std::string> texts;

	for (const auto &[k, text] : all)
		texts.insert(text);
	cr_assert_eq(texts.size(), 100u);
	cr_assert(texts.contains("42=42"));
}

Test(ddict_visit, best_gives_the_first_in_order)
{
	const auto d = numbers(5, 3000);
	const auto top = d.best(10, [](const auto &a, const auto &b) { return a.second > b.second; });

	cr_assert_eq(top.size(), 10u);
	for (int i = 0; i < 10; i++)
		cr_assert_eq(top[static_cast<std::size_t>(i)].first, 2999 - i);
	cr_assert_eq(d.best(5000, [](const auto &a, const auto &b) { return a < b; }).size(), 3000u);
}

namespace {
struct begins_with {
	std::string prefix;

	template <class A> void serialize(A &ar) { ar(prefix); }
	bool operator()(const std::string &k, const std::string &) const { return k.starts_with(prefix); }
};
} // namespace

Test(ddict_visit, what_a_callable_holds_travels_and_large_answers_come_back)
{
	text_dict d({.managers = 2, .memory = 16 << 20});

	for (int i = 0; i < 20; i++)
		d.put((i % 2 ? "odd/" : "even/") + std::to_string(i), whole_value(static_cast<std::uint64_t>(i), 100000));
	for (const std::string &prefix : {std::string("odd/"), std::string(1000, 'x')}) {
		const auto found = d.filter(begins_with{prefix});

		cr_assert_eq(found.size(), prefix == "odd/" ? 10u : 0u);
		for (const auto &[k, v] : found)
			cr_assert(is_whole(v, std::stoul(k.substr(4))));
	}
}

// Each writer keeps all of its keys at one number, and all of them change while functions read: what one function sees of
// one manager is never older in a key that was written earlier.
Test(ddict_visit, a_function_sees_one_moment_while_others_write)
{
	for (const std::size_t len : {100, 20000}) {
		text_dict d({.managers = 1, .memory = 16 << 20});
		std::atomic<bool> stop{false};

		for (int k = 0; k < 50; k++)
			d.put(std::to_string(100 + k), whole_value(1, len));
		std::jthread writer([&] {
			for (std::uint64_t round = 2; !stop; round++)
				for (int k = 0; k < 50; k++)
					d.put(std::to_string(100 + k), whole_value(round, len + round % 3));
		});

		for (int i = 0; i < 20; i++) {
			auto all = d.filter([](const auto &, const auto &) {
				sched_yield(); // the writer goes on meanwhile
				return true;
			});
			std::uint64_t last = ~std::uint64_t{0};

			cr_assert_eq(all.size(), 50u);
			std::sort(all.begin(), all.end());
			const std::uint64_t newest = [&] {
				std::uint64_t n = 1;

				while (!is_whole(all[0].second, n))
					n++;
				return n;
			}();
			for (const auto &[k, v] : all) {
				const std::uint64_t n = is_whole(v, newest) ? newest : newest - 1;

				cr_assert(is_whole(v, n), "%s in round %d", k.c_str(), i);
				cr_assert_leq(n, last);
				last = n;
			}
		}
		stop = true;
	}
}

Test(ddict_visit, a_function_that_crashes_harms_nobody)
{
	const auto d = numbers(3, 300);
	const auto crash = [](int, long) -> bool { raise(SIGKILL); return true; };
	const auto leave = [](int, long) -> bool { _exit(7); };

	for (int i = 0; i < 3; i++) {
		cr_assert_eq(error_of([&] { d.filter(crash); }), ECANCELED);
		cr_assert_eq(sum_of(d), 299L * 300 / 2);
	}
	const std::string why = text_of([&] { d.filter(crash); });
	cr_assert(why.find("signal 9") != std::string::npos && why.find("manager") != std::string::npos, "%s", why.c_str());
	cr_assert(text_of([&] { d.filter(leave); }).find("status 7") != std::string::npos);
	for (const auto &s : d.stats())
		cr_assert_eq(s.deaths, 0u);
}

Test(ddict_visit, what_a_function_throws_arrives)
{
	const auto d = numbers(3, 300);
	const auto f = [](int k, long) -> bool {
		if (k == 222)
			throw std::runtime_error("no such luck");
		return true;
	};

	cr_assert_eq(error_of([&] { d.filter(f); }), ECANCELED);
	const std::string why = text_of([&] { d.filter(f); });
	cr_assert(why.find("std::runtime_error: no such luck") != std::string::npos, "%s", why.c_str());
	const std::string where = "manager " + std::to_string(d.which_manager(222)) + " of 3";
	cr_assert(why.find(where) != std::string::npos, "%s: %s", where.c_str(), why.c_str());
	cr_assert_eq(sum_of(d), 299L * 300 / 2);
}

Test(ddict_visit, a_function_that_does_not_end_is_killed_in_time)
{
	const auto d = numbers(2, 300);
	const auto never = [](int, long) -> bool { for (;;) pause(); };

	cr_assert_eq(error_of([&] { d.within(50ms).filter(never); }), ETIMEDOUT);
	d.put(1, 7);
	cr_assert_eq(d.get(1), 7);
	cr_assert_eq(sum_of(d), 299L * 300 / 2 + 6);
}

// Writes and a full memory go before functions: what they hold back is given free.
Test(ddict_visit, a_function_gives_way_when_memory_is_short)
{
	text_dict d({.managers = 1, .memory = 1 << 20});
	std::atomic<int> err = 0;
	int n = 0;

	while (!error_of([&] { d.put(std::to_string(n), whole_value(1, 10000)); }))
		n++;
	for (int k = n / 2; k < n; k++)
		d.erase(std::to_string(k));
	std::jthread visitor([&] {
		err = error_of([&] {
			d.filter([](const auto &, const auto &) -> bool { for (;;) pause(); });
		});
	});
	while (d.stats()[0].keys != static_cast<std::uint64_t>(n / 2)) // the manager is there
		;
	for (int round = 0; round < 8; round++)
		for (int k = 0; k < n / 2; k++)
			d.put(std::to_string(k), whole_value(2, 10000));
	// Perhaps it began only now: then nothing was held back on its account before.
	for (int k = 0; !err; k = (k + 1) % (n / 2))
		d.put(std::to_string(k), whole_value(2, 10000));
	visitor.join();
	cr_assert_eq(err.load(), ENOSPC);
	cr_assert_eq(d.size(), static_cast<std::size_t>(n / 2));
}

Test(ddict_visit, a_client_that_dies_takes_its_functions_with_it)
{
	const auto d = numbers(2, 100);
	const pid_t child = start_child([d] {
		d.filter([](int, long) -> bool { for (;;) pause(); });
		return false;
	});

	nanosleep(&(const timespec &)timespec{0, 50000000}, nullptr); // whenever it comes, the same holds
	kill(child, SIGKILL);
	waitpid(child, nullptr, 0);
	cr_assert_eq(sum_of(d), 99L * 100 / 2);
}

Test(ddict_visit, many_at_a_time)
{
	const auto d = numbers(3, 500);
	std::vector<std::jthread> threads;
	std::atomic<int> right{0};

	for (int t = 0; t < 6; t++)
		threads.emplace_back([&] {
			for (int i = 0; i < 10; i++)
				right += sum_of(d) == 499L * 500 / 2;
		});
	threads.clear();
	cr_assert_eq(right, 60);
}

Test(ddict_visit, checkpoints_are_seen_as_they_were)
{
	number_dict d({.managers = 2, .working_set = 3});

	for (int k = 0; k < 100; k++)
		d.put(k, 1);
	d.checkpoint();
	for (int k = 0; k < 100; k += 2)
		d.put(k, 3);
	cr_assert_eq(sum_of(d), 200);
	d.rollback();
	cr_assert_eq(sum_of(d), 100);
	d.set_checkpoint(9);
	d.put(0, 1);
	d.set_checkpoint(0);
	cr_assert_eq(error_of([&] { sum_of(d); }), ERANGE);
}

// The keys of a manager that died are not silently missing.
Test(ddict_visit, a_dead_manager_is_noticed)
{
	const auto d = numbers(2, 200);

	cr_assert_eq(sum_of(d), 199L * 200 / 2);
	kill(ch_peer_pid(d.core().manager_peer(1)), SIGKILL);
	cr_assert_eq(error_of([&] { sum_of(d); }), EOWNERDEAD);
	long sum = 0;
	while (error_of([&] { sum = sum_of(d); }) == EOWNERDEAD)
		;
	cr_assert_lt(sum, 199L * 200 / 2);
}

Test(ddict_visit, a_function_that_is_not_there_is_refused)
{
	const auto d = numbers(1, 10);
	int on_stack = 0;

	cr_assert_eq(error_of([&] { d.core().visit(reinterpret_cast<ch::ddict_visitor>(&on_stack), {}); }), ENOENT);
}

// SPDX-License-Identifier: Apache-2.0
// map_test.cpp - ordered, lazy results of a range.
#include "pool_support.hpp"
#include <algorithm>
#include <iterator>
#include <list>
#include <sstream>

TestSuite(pool_map, .timeout = WATCHDOG_S);

// A range that can be read only once.
struct word_range {
	std::istringstream in;
	auto begin() { return std::istream_iterator<std::string>(in); }
	auto end() { return std::istream_iterator<std::string>(); }
};

static long square(long x)
{
	return x * x;
}

Test(pool_map, results_come_in_the_order_of_the_input)
{
	ch::pool p(3);

	for (const std::size_t chunk : {0, 1, 7, 1000}) {
		long i = 0;

		for (const long r : p.map(square, numbers(0, 5000), {.chunk = chunk})) {
			cr_assert_eq(r, i * i);
			i++;
		}
		cr_assert_eq(i, 5000);
	}
}

Test(pool_map, any_input_range_will_do)
{
	ch::pool p(2);
	std::vector<std::string> v = {"a", "bb", "ccc"};
	word_range words{std::istringstream("one two three")};
	std::size_t sum = 0;

	for (const std::size_t n : p.map([](const std::string &s) { return s.size(); }, v))
		sum += n;
	for (const std::size_t n : p.map([](const std::string &s) { return s.size(); }, std::list<std::string>{"dddd"}))
		sum += n;
	for (const std::size_t n : p.map([](const std::string &s) { return s.size(); },
					 words))
		sum += n;
	for (const int n : p.map([](bool b) { return b ? 100 : 0; }, std::vector<bool>{true, false, true}))
		sum += static_cast<std::size_t>(n);
	cr_assert_eq(sum, 6u + 4 + 11 + 200);
}

Test(pool_map, an_empty_range_has_no_results)
{
	ch::pool p(1);

	for (const long r : p.map(square, std::vector<long>{}))
		cr_assert_fail("%ld", r);
}

Test(pool_map, an_endless_range_is_read_only_as_far_ahead_as_asked_for)
{
	ch::pool p(2);
	numbers endless(0);
	long seen = 0;

	for (const long r : p.map(square, endless, {.chunk = 3, .in_flight = 4})) {
		cr_assert_eq(r, seen * seen);
		seen++;
		cr_assert_leq(endless.nr_read, seen + 3 * (4 + 1));
		if (seen == 1000)
			break;
	}
}

Test(pool_map, an_endless_range_with_chunks_of_its_own_choice_stays_bounded)
{
	ch::pool p(2);
	long seen = 0;

	for (const long r : p.map(square, numbers(0))) {
		cr_assert_eq(r, seen * seen);
		if (++seen == 200000)
			break;
	}
}

Test(pool_map, an_error_is_thrown_where_its_item_is_and_the_others_are_there)
{
	ch::pool p(2);

	for (const std::size_t chunk : {1, 10}) {
		auto m = p.map([](int i) { return i % 7 == 3 ? throw std::out_of_range(std::to_string(i)) : i; },
			       numbers(0, 100), {.chunk = chunk});
		int i = 0;

		for (auto it = m.begin(); it != m.end(); ++it, i++) {
			if (i % 7 == 3)
				cr_assert(throws<std::out_of_range>([&] { (void)*it; }));
			else
				cr_assert_eq(*it, i);
		}
		cr_assert_eq(i, 100);
	}
}

Test(pool_map, an_item_that_kills_workers_takes_no_other_with_it)
{
	ch::pool p({.workers = 2, .max_attempts = 2});
	auto m = p.map([](int i) { return i == 13 ? raise(SIGKILL) : i; }, numbers(0, 40), {.chunk = 8});
	int i = 0;

	for (auto it = m.begin(); it != m.end(); ++it, i++) {
		if (i == 13)
			cr_assert(throws<ch::worker_died>([&] { (void)*it; }));
		else
			cr_assert_eq(*it, i);
	}
	cr_assert_eq(i, 40);
}

Test(pool_map, a_function_without_a_result_may_be_mapped)
{
	shared_numbers *s = share_numbers();
	ch::pool p(2);

	cr_assert_eq(p.map([s](int i) { s->n[0] += i; }, numbers(0, 101)).to_vector().size(), 101u);
	cr_assert_eq(s->n[0].load(), 5050);
}

Test(pool_map, to_vector_gives_all)
{
	ch::pool p(2);
	const std::vector<long> v = p.map(square, numbers(0, 100)).to_vector();

	cr_assert_eq(v.size(), 100u);
	cr_assert_eq(v[99], 9801);
}

Test(pool_map, a_map_left_half_way_takes_back_what_has_not_begun)
{
	shared_numbers *s = share_numbers();
	ch::pool p(1);
	{
		auto m = p.map([s](int i) { s->n[0]++; return i; }, numbers(0, 1000000), {.chunk = 1, .in_flight = 500});

		cr_assert_eq(*m.begin(), 0);
	}
	p.close();
	p.join();
	cr_assert_leq(s->n[0].load(), 501);
}

Test(pool_map, two_maps_may_go_on_at_the_same_time)
{
	ch::pool p(2);
	auto a = p.map(square, numbers(0, 1000));
	auto b = p.map([](int n) { return -n; }, numbers(0, 1000));
	auto i = a.begin();
	auto j = b.begin();

	for (int n = 0; n < 1000; n++, ++i, ++j) {
		cr_assert_eq(*i, static_cast<long>(n) * n);
		cr_assert_eq(*j, -n);
	}
}

Test(pool_map, a_map_is_an_input_range)
{
	ch::pool p(2);
	long sum = 0;

	auto m = p.map(square, numbers(0, 4));

	static_assert(std::ranges::input_range<decltype(m)>);
	std::ranges::for_each(m, [&](long r) { sum += r; });
	cr_assert_eq(sum, 0 + 1 + 4 + 9);
}

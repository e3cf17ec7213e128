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

Test(pool_map, unordered_results_come_as_they_are_ready_and_tell_whose_they_are)
{
	shared_numbers *s = share_numbers();
	ch::pool p(2);
	const auto f = [s](int i) {
		while (i == 0 && s->n[0] < 5)
			usleep(200);
		s->n[0]++;
		return 10 * i;
	};
	auto results = p.map_unordered(f, numbers(0, 20), {.chunk = 1});
	std::vector<int> seen(20);
	bool was_first = true;

	for (auto it = results.begin(); it != results.end(); ++it) {
		cr_assert_eq(*it, static_cast<int>(10 * it.index()));
		cr_assert(!was_first || it.index() != 0);
		was_first = false;
		seen[it.index()]++;
	}
	cr_assert(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
}

Test(pool_map, an_unordered_map_of_an_endless_range_stays_bounded)
{
	ch::pool p(2);
	numbers in(0);
	auto results = p.map_unordered([](long i) { return std::to_string(i); }, in, {.chunk = 3, .in_flight = 4});
	long nr = 0;

	for (const std::string &r : results) {
		cr_assert(!r.empty());
		if (++nr == 3000)
			break;
		cr_assert_leq(in.nr_read, nr + 3 * 5);
	}
}

Test(pool_map, unordered_items_that_kill_workers_take_no_other_with_them)
{
	ch::pool p({.workers = 2, .max_attempts = 1});
	auto results = p.map_unordered([](int i) { return i == 7 ? (abort(), 0) : i; }, numbers(0, 20), {.chunk = 5});
	int nr = 0, nr_died = 0;

	for (auto it = results.begin(); it != results.end(); ++it, ++nr) {
		try {
			cr_assert_eq(*it, static_cast<int>(it.index()));
		} catch (const ch::worker_died &) {
			cr_assert_eq(it.index(), 7u);
			nr_died++;
		}
	}
	cr_assert_eq(nr, 20);
	cr_assert_eq(nr_died, 1);
}

Test(pool_map, starmap_calls_with_the_parts_of_each_item)
{
	ch::pool p(2);
	std::vector<std::pair<int, int>> pairs;
	std::vector<std::tuple<std::string, int, char>> tuples;

	for (int i = 0; i < 100; i++) {
		pairs.emplace_back(i, 2);
		tuples.emplace_back(std::string(3, 'a'), i, 'z');
	}
	int i = 0;
	for (const int r : p.starmap([](int a, int b) { return a * b; }, pairs))
		cr_assert_eq(r, 2 * i++);
	i = 0;
	for (const std::string &r : p.starmap([](const std::string &a, int b, char c) { return a + std::to_string(b) + c; },
					      tuples))
		cr_assert_eq(r, "aaa" + std::to_string(i++) + "z");
	int sum = 0;
	for (const int r : p.starmap_unordered([](int a, int b) { return a * b; }, pairs))
		sum += r;
	cr_assert_eq(sum, 9900);
}

Test(pool_map, flat_items_that_throw_are_told_from_those_that_do_not)
{
	ch::pool p(2);
	const auto f = [](int i) { return i % 7 == 3 ? throw std::range_error(std::string(300, 'e')) : 2.5 * i; };
	auto results = p.map(f, numbers(0, 1000), {.chunk = 50});
	int i = 0;

	for (auto it = results.begin(); it != results.end(); ++it, ++i) {
		if (i % 7 == 3)
			cr_assert(throws<std::range_error>([&] { (void)*it; }));
		else
			cr_assert_eq(*it, 2.5 * i);
	}
	cr_assert_eq(i, 1000);
}

Test(pool_map, chunks_of_every_size_arrive_whole)
{
	ch::pool p(2);
	std::vector<int> in(70000);

	for (std::size_t i = 0; i < in.size(); i++)
		in[i] = static_cast<int>(i);
	for (const std::size_t chunk : {1, 3, 23, 24, 25, 100, 1000, 65536, 100000}) {
		int i = 0;

		for (const int r : p.map([](int x) { return -x; }, in, {.chunk = chunk})) {
			cr_assert_eq(r, -i);
			if (++i == 2000 && chunk < 10)
				break;
		}
		cr_assert(i == 2000 || i == 70000);
	}
}

struct counter {
	int n = 0;
	int plus(int x) const { return n + x; }
	virtual int times(int x) { return n * x; }
	counter() = default;
	explicit counter(int i) : n(i) {}
	virtual ~counter() = default;
	template <class A> void serialize(A &ar) { ar(n); }
};

Test(pool_map, member_functions_are_called_on_what_was_sent)
{
	ch::pool p(1);

	cr_assert_eq(p.submit(&counter::plus, counter(40), 2).get(), 42);
	cr_assert_eq(p.submit(&counter::times, counter(6), 7).get(), 42);
	cr_assert_eq(p.submit(&counter::n, counter(5)).get(), 5);
}

Test(pool_map, a_batch_is_one_handle_for_all)
{
	shared_numbers *s = share_numbers();
	ch::pool p(2);
	auto b = p.map_async(
		[s](int i) {
			while (!s->n[0])
				usleep(200);
			return i + 1;
		},
		numbers(0, 100));

	cr_assert_eq(b.size(), 100u);
	cr_assert_not(b.is_ready());
	cr_assert_not(b.wait_for(std::chrono::milliseconds(1)));
	s->n[0] = 1;
	const auto all = b.get();
	cr_assert_eq(b.nr_done(), b.nr_tasks());
	for (std::size_t i = 0; i < 100; i++)
		cr_assert_eq(all[i], static_cast<int>(i + 1));
	cr_assert(throws<std::out_of_range>([&] {
		p.map_async([](int i) -> std::string { throw std::out_of_range(std::to_string(i)); }, numbers(0, 10)).get();
	}));
	std::vector<std::pair<int, int>> pairs(10, {3, 4});
	cr_assert_eq(p.starmap_async([](int a, int c) { return a * c; }, pairs).get().at(9), 12);
	cr_assert(p.map_async([](int) {}, std::vector<int>()).get().empty());
}

Test(pool_map, a_batch_calls_back_once_when_all_is_done)
{
	ch::pool p(2);
	std::atomic<int> nr = 0, nr_errors = 0;
	std::atomic<std::size_t> size = 0;

	p.map_async([](int i) { return std::to_string(i); }, numbers(0, 100), {.chunk = 3})
		.on_done(
			[&](const std::vector<std::string> &v) {
				size = v.size();
				nr++;
			},
			[](const std::exception_ptr &) {});
	p.map_async([](int i) { return i == 50 ? throw std::runtime_error("50") : i; }, numbers(0, 100), {.chunk = 3})
		.on_done([](const std::vector<int> &) {}, [&](const std::exception_ptr &) { nr_errors++; });
	p.join();
	cr_assert_eq(nr.load(), 1);
	cr_assert_eq(nr_errors.load(), 1);
	cr_assert_eq(size.load(), 100u);
}

Test(pool_map, a_cancelled_batch_runs_no_more)
{
	shared_numbers *s = share_numbers();
	ch::pool p(1);
	auto gate = p.submit([s] {
		while (!s->n[0])
			usleep(200);
	});
	auto b = p.map_async([s](int i) { return s->n[1]++, i; }, numbers(0, 100), {.chunk = 10});

	cr_assert_geq(b.cancel(), 9u);
	s->n[0] = 1;
	gate.get();
	cr_assert_eq(error_of([&] { b.get(); }), ECANCELED);
	cr_assert_leq(s->n[1].load(), 10);
}

Test(pool_map, options_of_tasks_hold_for_chunks_and_a_bar_shows_on_no_file)
{
	ch::pool p(2);
	auto results = p.map([](int i) { return i == 5 ? (pause(), 0) : i; }, numbers(0, 10),
			     {.chunk = 1, .task = {.timeout = std::chrono::milliseconds(30)}, .progress = "numbers"});
	int i = 0;

	for (auto it = results.begin(); it != results.end(); ++it, ++i) {
		if (i == 5)
			cr_assert(throws<ch::task_timeout>([&] { (void)*it; }));
		else
			cr_assert_eq(*it, i);
	}
}

Test(pool_map, a_bar_shows_on_a_terminal_and_goes_when_all_is_done)
{
	const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
	std::string shown;
	char buf[4096];
	ssize_t n;

	if (terminal < 0)
		cr_skip_test("no terminals here");
	cr_assert(grantpt(terminal) == 0 && unlockpt(terminal) == 0);
	const int our_side = open(ptsname(terminal), O_RDWR | O_NOCTTY);
	const pid_t pid = fork();
	if (pid == 0) {
		dup2(our_side, STDERR_FILENO);
		ch::pool p(2);
		const ch::map_options o{.chunk = 1, .progress = "sums"};
		long sum = 0;

		for (const long i : p.map([](long i) { return i; }, std::vector<long>{1, 2, 3, 4}, o))
			sum += i;
		_exit(sum == 10 ? 0 : 1);
	}
	close(our_side);
	while ((n = read(terminal, buf, sizeof(buf))) > 0) // an error: no process has the other side any more
		shown.append(buf, static_cast<std::size_t>(n));
	close(terminal);
	int status;
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	cr_assert(shown.find("sums [") != std::string::npos && shown.find("100%") != std::string::npos, "%s", shown.c_str());
	cr_assert(shown.ends_with("\r\033[K"), "%s", shown.c_str());
}

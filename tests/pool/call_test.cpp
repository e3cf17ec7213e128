// SPDX-License-Identifier: Apache-2.0
// call_test.cpp - what can be submitted, and what comes back.
#include "pool_support.hpp"
#include <chrono>
#include <dlfcn.h>
#include <filesystem>
#include <map>
#include <optional>
#include <variant>

TestSuite(pool_call, .timeout = WATCHDOG_S);

static int twice(int x)
{
	return 2 * x;
}

struct adder {
	int n;
	int operator()(int x) const { return n + x; }
};

struct prefixer {
	std::string prefix;
	std::string operator()(const std::string &s) const { return prefix + s; }
	template <class A> void serialize(A &ar) { ar(prefix); }
};

struct measurement {
	std::string name;
	std::vector<double> values;
	template <class A> void serialize(A &ar) { ar(name, values); }
	bool operator==(const measurement &) const = default;
};

Test(pool_call, a_captureless_lambda_runs_in_another_process)
{
	ch::pool p(1);

	cr_assert_neq(p.submit([] { return getpid(); }).get(), getpid());
	cr_assert_eq(p.submit([](int a, int b) { return a - b; }, 5, 3).get(), 2);
}

Test(pool_call, a_plain_function_needs_no_registration)
{
	ch::pool p(1);

	cr_assert_eq(p.submit(twice, 21).get(), 42);
	cr_assert_eq(p.submit(&twice, 4).get(), 8);
}

Test(pool_call, captured_values_travel_by_memcpy)
{
	ch::pool p(1);
	int factor = 7;
	double offset = 0.5;

	cr_assert_eq(p.submit([factor, offset](int x) { return factor * x + offset; }, 6).get(), 42.5);
	cr_assert_eq(p.submit(adder{40}, 2).get(), 42);
}

Test(pool_call, a_callable_with_serialize_may_capture_anything)
{
	ch::pool p(1);

	cr_assert_eq(p.submit(prefixer{std::string(1000, 'a')}, "b").get(), std::string(1000, 'a') + "b");
}

Test(pool_call, nothing_comes_back_of_a_void_task_but_its_end)
{
	shared_numbers *s = share_numbers();
	ch::pool p(1);

	p.submit([s] { s->n[0] = 1; }).get();
	cr_assert_eq(s->n[0].load(), 1);
}

Test(pool_call, strings_and_views_are_sent_as_their_characters)
{
	ch::pool p(1);
	const std::string s = "string";
	const char *c = "c string";

	cr_assert_eq(p.submit([](std::string_view v) { return v.size(); }, s).get(), 6u);
	cr_assert_eq(p.submit([](std::string v) { return v + "!"; }, c).get(), "c string!");
	cr_assert_eq(p.submit([](const std::string &v) { return v + "!"; }, std::string_view(s)).get(), "string!");
	cr_assert_eq(p.submit([](const std::string &v) { return v.size(); }, "literal").get(), 7u);
	cr_assert_eq(p.submit([] { return "returned"; }).get(), "returned");
}

Test(pool_call, containers_and_own_types_go_both_ways)
{
	using table = std::map<std::string, std::vector<int>>;
	ch::pool p(1);
	const measurement m{"m", {1, 2, 3}};

	cr_assert_eq(p.submit([](table t) { return t["b"].size() + t.size(); }, table{{"a", {1}}, {"b", {1, 2}}}).get(),
		     4u);
	cr_assert(p.submit([](measurement x) { return x; }, m).get() == m);
	cr_assert(p.submit([](std::optional<int> o) { return !o; }, std::optional<int>()).get());
	cr_assert_eq(p.submit([](std::variant<int, std::string> v) { return v.index(); },
			      std::variant<int, std::string>("x")).get(), 1u);
	cr_assert_eq(p.submit([](std::filesystem::path f) { return f.filename(); }, std::filesystem::path("/a/b")).get(),
		     "b");
	const int array[] = {3, 4};
	cr_assert_eq(p.submit([](std::vector<int> v) { return v[1]; }, std::span<const int>(array)).get(), 4);
	cr_assert(p.submit([](std::chrono::seconds s) { return s; }, std::chrono::seconds(3)).get() ==
		  std::chrono::seconds(3));
}

Test(pool_call, an_argument_may_be_moved_from_in_the_task)
{
	ch::pool p(1);

	cr_assert_eq(p.submit([](std::vector<int> &&v) { return std::move(v); }, std::vector<int>{1, 2}).get().size(), 2u);
}

static std::vector<unsigned char> filled(std::size_t len)
{
	std::vector<unsigned char> v(len);

	fill(v.data(), len, 1, len);
	return v;
}

Test(pool_call, arguments_and_results_of_every_size_arrive_whole)
{
	// Around what fits into a slot, a result message, a page, a piece; and large ones.
	const std::size_t lens[] = {0,	 1,    100,  103,	104,	 111,	 112,	    113,     200,   214,
				    215, 216,  223,  224,	225,	 256,	 4032,	    4096,    65536, 262144,
				    300000,    1 << 20, 5 << 20, 16 << 20};
	ch::pool p(2);

	for (const std::size_t len : lens) {
		const auto v = filled(len);

		cr_assert(p.submit([](std::vector<unsigned char> x) { return x; }, v).get() == v, "%zu bytes", len);
	}
}

Test(pool_call, a_result_larger_than_the_memory_of_the_pool_comes_in_pieces)
{
	ch::pool p({.workers = 1, .memory = 8 << 20, .max_memory = 8 << 20});
	const auto v = p.submit([] { return filled(40 << 20); }).get();

	cr_assert(v == filled(40 << 20));
}

Test(pool_call, many_large_arguments_share_little_memory)
{
	ch::pool p({.workers = 2, .memory = 16 << 20});
	std::vector<ch::future<std::size_t>> fs;

	for (std::size_t i = 0; i < 50; i++)
		fs.push_back(p.submit([](const std::vector<char> &v) { return v.size(); }, std::vector<char>((3 << 20) + i)));
	for (std::size_t i = 0; i < 50; i++)
		cr_assert_eq(fs[i].get(), (3u << 20) + i);
}

Test(pool_call, large_results_that_nobody_asks_for_yet_hold_nothing_up)
{
	ch::pool p({.workers = 2, .memory = 16 << 20});
	std::vector<ch::future<std::vector<char>>> fs;

	for (int i = 0; i < 40; i++)
		fs.push_back(p.submit([](int k) { return std::vector<char>(2 << 20, static_cast<char>(k)); }, i));
	for (int i = 39; i >= 0; i--)
		cr_assert_eq(fs[static_cast<std::size_t>(i)].get()[1000], static_cast<char>(i));
}

Test(pool_call, memory_grows_for_long_arguments_and_results_up_to_its_limit)
{
	ch::pool p({.workers = 2, .memory = 4 << 20, .max_memory = 96 << 20});
	std::vector<ch::future<std::vector<unsigned char>>> fs;

	for (std::size_t i = 0; i < 6; i++)
		fs.push_back(p.submit([](std::vector<unsigned char> x) { return x; }, filled((i % 2 ? 1 : 20) * 1000000 + i)));
	for (std::size_t i = 0; i < 6; i++)
		cr_assert(fs[i].get() == filled((i % 2 ? 1 : 20) * 1000000 + i));
	cr_assert_eq(error_of([&] { p.submit([](std::vector<char>) {}, std::vector<char>(61 << 20)); }), EMSGSIZE);
}

Test(pool_call, results_that_nobody_reads_wait_in_pieces_when_the_memory_is_at_its_limit)
{
	ch::pool p({.workers = 2, .memory = 4 << 20, .max_memory = 16 << 20});
	std::vector<ch::future<std::vector<unsigned char>>> fs;

	for (std::size_t i = 0; i < 30; i++)
		fs.push_back(p.submit([](std::size_t n) { return filled(n); }, 5000000 + i));
	for (std::size_t i = 30; i-- > 0;)
		cr_assert(fs[i].get() == filled(5000000 + i));
	cr_assert_eq(p.submit(twice, 2).get(), 4);
}

Test(pool_call, an_argument_that_can_never_fit_is_an_error)
{
	ch::pool p({.workers = 1, .memory = 8 << 20, .max_memory = 16 << 20});

	cr_assert_eq(error_of([&] { p.submit([](std::vector<char>) {}, std::vector<char>(15 << 20)); }), EMSGSIZE);
	cr_assert_eq(p.submit(twice, 2).get(), 4);
}

Test(pool_call, a_function_of_a_library_that_the_workers_do_not_have_is_a_clear_error)
{
	ch::pool p(1);
	const char *name = "libmvec.so.1"; // of glibc; any will do that is not loaded yet
	const bool is_loaded = dlopen(name, RTLD_NOW | RTLD_NOLOAD);
	void *lib = dlopen(name, RTLD_NOW);
	void *sym = lib ? dlsym(lib, "_ZGVbN2v_cos") : nullptr;

	if (is_loaded || !sym)
		cr_skip_test("no library to load late");
	auto f = p.submit(reinterpret_cast<int (*)(int)>(sym), 1);
	try {
		f.get();
		cr_assert_fail("it was called");
	} catch (const ch::error &e) {
		cr_assert_eq(e.code().value(), ENOENT);
		cr_assert(std::string(e.what()).find("build-id") != std::string::npos, "%s", e.what());
	}
	cr_assert_eq(p.submit(twice, 2).get(), 4);
}

Test(pool_call, what_is_no_function_is_refused_at_once)
{
	ch::pool p(1);

	cr_assert_eq(error_of([&] { p.submit(static_cast<int (*)(int)>(nullptr), 1); }), EINVAL);
	cr_assert_eq(p.submit(twice, 2).get(), 4);
	p.close();
	p.join(); // the place that was taken for it is free again
}

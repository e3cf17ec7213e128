// SPDX-License-Identifier: Apache-2.0
// lent_test.cpp - long arguments and results that are seen where they lie.
#include "pool_support.hpp"
#include <csignal>
#include <numeric>
#include <pool/lent.hpp>

TestSuite(pool_lent, .timeout = WATCHDOG_S);

static void count_up(std::span<double> to)
{
	std::iota(to.begin(), to.end(), 0.0);
}

static double sum(ch::lent<double> v)
{
	return std::accumulate(v.begin(), v.end(), 0.0);
}

static double sum_to(std::size_t n)
{
	return static_cast<double>(n) * (static_cast<double>(n) - 1) / 2;
}

Test(pool_lent, arguments_and_results_of_every_size_arrive_whole)
{
	ch::pool p(2);

	for (const std::size_t n : {0, 1, 5, 12, 13, 26, 27, 100, 5000, 200000}) {
		std::vector<double> v(n);

		count_up(v);
		cr_assert_eq(p.submit(sum, ch::lent<double>(v)).get(), sum_to(n), "%zu", n);
		cr_assert_eq(p.submit(sum, ch::fill<double>(n, count_up)).get(), sum_to(n), "%zu", n);
		const auto made = p.submit([](std::size_t k) { return ch::fill<double>(k, count_up); }, n).get();
		cr_assert_eq(made.size(), n);
		cr_assert_eq(sum(made), sum_to(n));
		const auto echo = p.submit([](int, ch::lent<double> x) { return x; }, 3, ch::lent<double>(v)).get();
		cr_assert(std::equal(echo.begin(), echo.end(), v.begin(), v.end()));
		cr_assert_eq(reinterpret_cast<std::uintptr_t>(echo.data()) % alignof(double), 0u);
	}
}

Test(pool_lent, an_argument_is_seen_where_the_owner_wrote_it)
{
	ch::pool p(1);
	std::uint64_t *written = nullptr;
	auto f = p.submit(
		[](ch::lent<std::uint64_t> v) {
			const std::uint64_t first = v[0];

			usleep(1);
			return std::pair(first, reinterpret_cast<std::uintptr_t>(v.data()));
		},
		ch::fill<std::uint64_t>(100000, [&](std::span<std::uint64_t> to) {
			std::fill(to.begin(), to.end(), 7);
			written = to.data();
		}));
	const auto [first, where] = f.get();

	cr_assert_eq(first, 7u);
	cr_assert_eq(where, reinterpret_cast<std::uintptr_t>(written)); // forked: the same address
}

Test(pool_lent, a_result_lives_as_long_as_its_copies_and_longer_than_the_pool)
{
	ch::lent<int> kept;
	{
		ch::pool p(1);
		auto f = p.submit([] {
			return ch::fill<int>(1 << 18, [](std::span<int> to) { std::iota(to.begin(), to.end(), 0); });
		});

		kept = f.get();
		for (int i = 0; i < 100; i++) // memory that was free would be used again
			(void)p.submit([] { return std::vector<int>(1 << 18, -1); }).get();
	}
	const ch::lent<int> copy = kept;
	kept = {};
	for (int i = 0; i < 1 << 18; i++)
		cr_assert_eq(copy[static_cast<std::size_t>(i)], i);
}

Test(pool_lent, a_task_whose_worker_dies_sees_its_arguments_again)
{
	shared_numbers *s = share_numbers();
	ch::pool p(1);
	const auto f = [s](ch::lent<double> v) {
		if (s->n[0]++ < 2)
			raise(SIGKILL);
		return sum(v);
	};

	cr_assert_eq(p.submit(f, ch::fill<double>(100000, count_up)).get(), sum_to(100000));
}

Test(pool_lent, results_may_be_passed_on)
{
	ch::pool p(2);
	auto f = p.submit([] { return ch::fill<double>(50000, count_up); }).then([](ch::lent<double> v) { return sum(v); });

	cr_assert_eq(f.get(), sum_to(50000));
}

// SPDX-License-Identifier: Apache-2.0
// full_test.cpp - memory that ends, and is found again.
#include "ddict_support.hpp"

TestSuite(ddict_full, .timeout = WATCHDOG_S);

// Puts values of len until one is refused; how many went in. Keys from first on.
static int fill_up(const ddict<int, std::string> &d, int first, std::size_t len)
{
	const std::string value = whole_value(1, len);

	for (int n = 0;; n++) {
		const int err = error_of([&] { d.put(first + n, value); });

		if (err) {
			cr_assert_eq(err, ENOSPC);
			return n;
		}
	}
}

Test(ddict_full, a_full_dictionary_says_so_and_what_to_do)
{
	ddict<int, std::string> d({.managers = 1, .memory = 4 << 20, .name = "fulltest-" + std::to_string(getpid())});
	const int n = fill_up(d, 0, 100000);

	cr_assert_geq(n, 35); // of 40 that four million bytes would hold
	const std::string why = text_of([&] { d.put(n, std::string(100000, 'x')); });
	for (const char *part : {"fulltest-", "manager 0 of 1", "full", "KiB", "erase", "ddict_options::memory"})
		cr_assert(why.find(part) != std::string::npos, "\"%s\" lacks \"%s\"", why.c_str(), part);
}

Test(ddict_full, everything_but_put_works_in_a_full_dictionary)
{
	ddict<int, std::string> d({.managers = 1, .memory = 2 << 20});
	const ddict<int, std::int64_t> numbers{d.core()};

	numbers.put(-1, 5);
	const int large = fill_up(d, 0, 50000);
	const int small = fill_up(d, 1000000, 40);

	cr_assert_gt(large, 0);
	cr_assert_gt(small, 0);
	for (int i = 0; i < large; i++)
		cr_assert(is_whole(d.get(i), 1));
	cr_assert(is_whole(d.get(1000000), 1));
	cr_assert_eq(d.size(), static_cast<std::size_t>(large + small + 1));
	cr_assert_eq(numbers.fetch_add(-1, 1), 5);
	int met = 0;
	for ([[maybe_unused]] const int k : d.keys())
		met++;
	cr_assert_eq(met, large + small + 1);
	cr_assert_eq(error_of([&] { d.get_many(std::vector<int>{0, 1, 1000000, 12345}); }), 0);
	d.put(1000000, whole_value(2, 40)); // in the room that it has
	cr_assert(is_whole(d.get(1000000), 2));
}

Test(ddict_full, room_is_found_again_after_erase)
{
	ddict<int, std::string> d({.managers = 1, .memory = 4 << 20});
	int first = 0;

	for (int round = 0; round < 10; round++) {
		const int n = fill_up(d, 0, 100000);

		if (round == 0)
			first = n;
		cr_assert_eq(n, first, "round %d: %d values, at first %d", round, n, first);
		for (int i = 0; i < n; i++)
			cr_assert(d.erase(i));
	}
	fill_up(d, 0, 30);
	d.clear();
	cr_assert_eq(fill_up(d, 0, 100000), first);
}

Test(ddict_full, a_refused_put_leaves_the_old_value)
{
	ddict<int, std::string> d({.managers = 1, .memory = 2 << 20});

	d.put(7, whole_value(7, 100));
	fill_up(d, 100, 10000);
	fill_up(d, 100000, 30);
	cr_assert_eq(error_of([&] { d.put(7, whole_value(8, 1000000)); }), ENOSPC);
	cr_assert_eq(error_of([&] { d.put(7, whole_value(8, 300)); }), ENOSPC);
	cr_assert_eq(d.get(7), whole_value(7, 100));
}

Test(ddict_full, a_batch_into_a_full_dictionary_is_an_error_too)
{
	ddict<int, std::string> d({.managers = 2, .memory = 1 << 20});
	std::vector<std::pair<int, std::string>> much;

	for (int i = 0; i < 20000; i++)
		much.emplace_back(i, whole_value(static_cast<std::uint64_t>(i), 200));
	cr_assert_eq(error_of([&] { d.put_many(much); }), ENOSPC);
	for (const auto &[k, v] : d)
		cr_assert(is_whole(v, static_cast<std::uint64_t>(k)));
	d.clear();
	much.resize(1000);
	d.put_many(much);
	cr_assert_eq(d.size(), 1000u);
}

// With no block free a batch still travels in the ring, and into the room that its keys have.
Test(ddict_full, a_batch_of_replacements_fits_into_a_full_dictionary)
{
	ddict<int, std::string> d({.managers = 1, .memory = 1 << 20});
	const int n = fill_up(d, 0, 100);
	std::vector<std::pair<int, std::string>> again;

	fill_up(d, 1000000, 10);
	for (int i = 0; i < n; i++)
		again.emplace_back(i, whole_value(2, 100));
	d.put_many(again);
	for (int i = 0; i < n; i++)
		cr_assert(is_whole(d.get(i), 2));
}

Test(ddict_full, a_value_that_can_never_fit_is_told_apart)
{
	ddict<int, std::string> d({.managers = 1, .memory = 1 << 20});

	cr_assert_eq(error_of([&] { d.put(1, std::string(64 << 20, 'x')); }), EMSGSIZE);
	d.put(1, "small");
	cr_assert_eq(d.get(1), "small");
}

Test(ddict_full, values_of_changing_sizes_find_room_again)
{
	ddict<int, std::string> d({.managers = 1, .memory = 8 << 20});

	for (const std::size_t len : {1000000, 3000, 200, 70000, 500, 2000000, 30, 9000}) {
		const int n = fill_up(d, 0, len);

		fprintf(stderr, "%d values of %zu bytes: %.1f MB\n", n, len,
			static_cast<double>(n) * static_cast<double>(len) / 1e6);
		cr_assert_gt(n, 0);
		d.clear();
	}
}

Test(ddict_full, one_client_too_many_is_told_so)
{
	ddict<int, int> d({.managers = 1, .max_clients = 2});
	struct board *b = board_new();
	std::vector<pid_t> children;
	int refused = 0;

	d.put(-1, -1);
	for (int i = 0; i < 64; i++)
		children.push_back(start_child([&, i] {
			const int err = error_of([&] { d.put(i, i); });

			post(b, err ? 1 : 0);
			if (err && err != ENOSPC)
				return false;
			await_post(b, 2);
			return true;
		}));
	AWAIT(posted(b, 0) + posted(b, 1) == 64);
	refused = posted(b, 1);
	cr_assert_eq(d.size(), static_cast<std::size_t>(posted(b, 0) + 1));
	post(b, 2);
	for (const pid_t c : children)
		cr_assert_eq(child_end(c), 0);
	cr_assert_gt(refused, 0);
}

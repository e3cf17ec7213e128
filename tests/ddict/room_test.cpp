// SPDX-License-Identifier: Apache-2.0
// room_test.cpp - full memory by choice: waiting for room, keys that make room for others, and how much of the nominal
// memory values of changing sizes can use.
#include "ddict_support.hpp"

using namespace std::chrono_literals;
using text_dict = ddict<int, std::string>;

TestSuite(ddict_room, .timeout = WATCHDOG_S);

Test(ddict_room, a_put_waits_until_another_client_erases)
{
	for (const std::size_t len : {200, 100000}) {
		text_dict d({.managers = 1, .memory = 2 << 20, .when_full = ch::ddict_full::wait});
		const auto hurried = d.within(20ms);
		int n = 0;

		for (int refused = 0; refused < 5;) // one alone may be a manager that had no processor
			if (error_of([&] { hurried.put(n, whole_value(1, len)); }) == 0)
				n++, refused = 0;
			else
				refused++;
		cr_assert_gt(n, 5);
		cr_assert_eq(error_of([&] { hurried.put(n, whole_value(1, len)); }), ETIMEDOUT);
		std::jthread waits([&] { d.put(-1, whole_value(2, len)); });
		nanosleep(&(const timespec &)timespec{0, 20000000}, nullptr);
		for (int k = 0; k < 3; k++)
			d.erase(k);
		waits.join();
		cr_assert_eq(d.get(-1), whole_value(2, len));
	}
}

Test(ddict_room, a_batch_waits_too)
{
	text_dict d({.managers = 1, .memory = 1 << 20, .when_full = ch::ddict_full::wait});
	std::vector<std::pair<int, std::string>> much;

	for (int i = 0; i < 10000; i++)
		much.emplace_back(i, whole_value(static_cast<std::uint64_t>(i), 200));
	std::jthread puts([&] { d.put_many(much); });
	for (int erased = 0; erased < 10000;) {
		if (d.erase(erased))
			erased++;
	}
	puts.join();
	cr_assert_eq(d.size(), 0u);
}

Test(ddict_room, keys_that_were_not_used_for_longest_make_room)
{
	for (const std::size_t len : {100, 440, 3000, 100000, 700000}) {
		const std::size_t memory = len < 10000 ? 1 << 20 : 4 << 20;
		text_dict d({.managers = 1, .memory = memory, .when_full = ch::ddict_full::evict});
		const int stride = static_cast<int>(2000 / len) + 1; // figures cost more than a put
		int n = 0;

		d.put(-1, "precious");
		for (; n % stride || d.stats()[0].evicted == 0; n++) {
			d.put(n, whole_value(1, len));
			cr_assert_eq(d.get(-1), "precious"); // used all the time
		}
		const std::size_t fit = d.size();

		for (int i = 0; i < n; i++) {
			d.put(n + i, whole_value(2, len));
			cr_assert_eq(d.get(-1), "precious");
		}
		cr_assert(is_whole(d.get(2 * n - 1), 2));
		cr_assert_not(d.contains(0));
		cr_assert_geq(d.size(), fit * 8 / 10);
	}
}

Test(ddict_room, a_batch_makes_room_too)
{
	text_dict d({.managers = 2, .memory = 1 << 20, .when_full = ch::ddict_full::evict});
	std::vector<std::pair<int, std::string>> much;

	for (int i = 0; i < 20000; i++)
		much.emplace_back(i, whole_value(static_cast<std::uint64_t>(i), 200));
	d.put_many(much);
	cr_assert_gt(d.size(), 2000u);
	cr_assert_lt(d.size(), 10000u);
	for (const auto &[k, v] : d)
		cr_assert(is_whole(v, static_cast<std::uint64_t>(k)));
}

// A view holds its memory; eviction goes on to others, and ends with ENOSPC when there is nothing left.
Test(ddict_room, views_are_not_evicted)
{
	text_dict d({.managers = 1, .memory = 4 << 20, .when_full = ch::ddict_full::evict});
	std::vector<ch::ddict_view> views;
	int err = 0;

	for (int k = 0; k < 100 && !err; k++) {
		err = error_of([&] { d.put(k, whole_value(static_cast<std::uint64_t>(k), 300000)); });
		if (!err)
			views.push_back(*d.view(k));
	}
	cr_assert_eq(err, ENOSPC);
	for (std::size_t k = 0; k < views.size(); k++)
		cr_assert_eq(views[k].text(), whole_value(k, 300000));
	views.clear();
	d.put(1000, whole_value(1, 300000));
}

// Fill, erase in random order, fill again with other sizes: each time at least nine tenths of the nominal memory hold
// keys and values.
Test(ddict_room, values_of_changing_sizes_use_nine_tenths)
{
	constexpr std::size_t memory = 16 << 20;
	std::uint64_t seed = test_seed();
	text_dict d({.managers = 1, .memory = memory});

	for (const std::size_t most : {2000, 60000, 500, 20000, 300000, 5000}) {
		std::vector<int> keys;
		std::size_t bytes = 0;

		for (int k = 0;; k++) {
			const std::size_t len = most / 4 + rnd(&seed) % (most * 3 / 4);

			if (error_of([&] { d.put(k, whole_value(1, len)); }))
				break;
			keys.push_back(k);
			bytes += len + sizeof(int);
		}
		fprintf(stderr, "up to %zu bytes: %.1f %%\n", most, 100.0 * static_cast<double>(bytes) / memory);
		cr_expect_geq(bytes, memory / 10 * 9, "up to %zu bytes", most);
		while (!keys.empty()) {
			std::swap(keys[rnd(&seed) % keys.size()], keys.back());
			cr_assert(d.erase(keys.back()));
			keys.pop_back();
		}
	}
}

// Half of the keys go, at random, and others of half the length come into the holes. Blocks of one size share runs of
// pages that serve other sizes only when all of their blocks are free, so not every hole can be used.
Test(ddict_room, holes_are_used)
{
	constexpr std::size_t memory = 16 << 20;
	std::uint64_t seed = test_seed();
	text_dict d({.managers = 1, .memory = memory});
	int n = 0;
	std::size_t bytes = 0;

	for (const std::size_t len : {40000, 20000, 10000, 5000}) {
		for (; error_of([&] { d.put(n, whole_value(1, len)); }) == 0; n++)
			bytes += len;
		cr_expect_geq(bytes, memory / 100 * 60, "%zu: %zu", len, bytes);
		for (int k = 0; k < n; k++)
			if (rnd(&seed) % 2)
				if (const auto v = d.pop(k))
					bytes -= v->size();
	}
}

// Grows while it is filled, to nine tenths of what it may, and is as full as one that was so large from the start.
Test(ddict_room, memory_grows_up_to_its_limit)
{
	constexpr std::size_t begin = 2 << 20, most = 16 << 20;
	text_dict d({.managers = 2, .memory = begin, .max_memory = most});
	std::size_t bytes = 0;
	int n = 0;
	const auto memory = [&] { return d.stats()[0].memory + d.stats()[1].memory; };

	cr_assert_leq(memory(), begin * 2);
	for (; error_of([&] { d.put(n, whole_value(static_cast<std::uint64_t>(n), 3000)); }) == 0; n++)
		bytes += 3000 + sizeof(int);
	cr_assert_geq(bytes, most / 10 * 9);
	cr_assert_geq(memory(), most);
	cr_assert_leq(memory(), most + most / 4 + (1 << 20));
	for (int k = 0; k < n; k++)
		cr_assert(is_whole(d.get(k), static_cast<std::uint64_t>(k)));
	const std::string why = text_of([&] { d.put(-1, whole_value(1, 4 << 20)); });
	cr_assert_neq(why.find("9"), std::string::npos, "the memory it may grow to: %s", why.c_str());
	d.clear();
	d.put(-1, whole_value(1, 7 << 20));
	cr_assert_eq(error_of([] { text_dict({.memory = 2 << 20, .max_memory = 1 << 20}); }), EINVAL);
}

Test(ddict_room, a_dictionary_that_evicts_or_waits_grows_first)
{
	for (const auto when : {ch::ddict_full::evict, ch::ddict_full::wait}) {
		text_dict d({.managers = 1, .memory = 1 << 20, .max_memory = 8 << 20, .when_full = when});

		for (int k = 0; k < 600; k++)
			d.put(k, whole_value(1, 12000));
		cr_assert_eq(d.size(), 600u);
		cr_assert_eq(d.stats()[0].evicted, 0u);
	}
}

Test(ddict_room, a_value_of_most_of_the_memory)
{
	text_dict d({.managers = 1, .memory = 8 << 20});
	const std::string big = whole_value(1, 7 << 20);

	for (int i = 0; i < 5; i++) {
		d.put(1, big);
		cr_assert_eq(d.get(1), big);
		cr_assert_eq(error_of([&] { d.put(2, big); }), ENOSPC);
		cr_assert_eq(error_of([&] { d.put(1, big); }), ENOSPC); // room for both is needed for a moment
		cr_assert(d.erase(1));
	}
}

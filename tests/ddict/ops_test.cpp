// SPDX-License-Identifier: Apache-2.0
// ops_test.cpp - the operations of one client.
#include "ddict_support.hpp"
#include <algorithm>
#include <limits>
#include <map>

TestSuite(ddict_ops, .timeout = WATCHDOG_S);

Test(ddict_ops, put_then_get_gives_the_value)
{
	ddict<std::string, int> d({.managers = 2});

	d.put("one", 1);
	cr_assert_eq(d.get("one"), 1);
	d.put("one", 11);
	cr_assert_eq(d.get("one"), 11);
	cr_assert_eq(d.size(), 1u);
}

Test(ddict_ops, a_missing_key_is_out_of_range_or_nothing)
{
	ddict<std::string, int> d({.managers = 1});
	bool caught = false;

	try {
		d.get("none");
	} catch (const std::out_of_range &) {
		caught = true;
	}
	cr_assert(caught);
	cr_assert(!d.try_get("none"));
	cr_assert_eq(d.get_or("none", 7), 7);
	cr_assert(!d.contains("none"));
	cr_assert(!d.erase("none"));
}

Test(ddict_ops, erase_says_whether_the_key_was_there)
{
	ddict<std::string, std::string> d({.managers = 2});

	d.put("k", "v");
	cr_assert(d.contains("k"));
	cr_assert(d.erase("k"));
	cr_assert(!d.erase("k"));
	cr_assert(!d.contains("k"));
	cr_assert_eq(d.size(), 0u);
	cr_assert(d.empty());
}

Test(ddict_ops, values_of_every_length_come_back_whole)
{
	ddict<int, std::string> d({.managers = 2, .memory = 128 << 20});
	std::vector<std::size_t> lens = {0, 1, 7, 8, 63, 64, 65, 4096, 16383, 16384, 65537, 1 << 20, 16 << 20};

	for (std::size_t n = 400; n < 540; n++) // around what travels in the ring
		lens.push_back(n);
	for (std::size_t i = 0; i < lens.size(); i++)
		d.put(static_cast<int>(i), whole_value(i, lens[i]));
	for (std::size_t i = 0; i < lens.size(); i++) {
		const std::string s = d.get(static_cast<int>(i));

		cr_assert_eq(s.size(), lens[i]);
		cr_assert(is_whole(s, i), "length %zu", lens[i]);
	}
}

Test(ddict_ops, a_value_may_be_replaced_by_one_of_any_other_length)
{
	ddict<std::string, std::string> d({.managers = 1, .memory = 16 << 20});
	const std::size_t lens[] = {0, 10, 100, 1000, 1 << 20, 400, 5, 300000, 0, 64, 460, 461};

	for (const std::size_t from : lens)
		for (const std::size_t to : lens) {
			d.put("k", whole_value(1, from));
			d.put("k", whole_value(2, to));
			const std::string s = d.get("k");

			cr_assert_eq(s.size(), to);
			cr_assert(is_whole(s, 2), "%zu to %zu", from, to);
		}
	cr_assert_eq(d.size(), 1u);
}

Test(ddict_ops, empty_and_long_keys_are_keys)
{
	ddict<std::string, std::string> d({.managers = 3, .memory = 16 << 20});
	std::vector<std::string> keys = {"",
					 std::string(1, '\0'),
					 std::string(400, 'a'),
					 std::string(511, 'b'),
					 std::string(5000, 'c'),
					 std::string(65536, 'd')};

	for (const std::string &k : keys)
		d.put(k, "value of " + std::to_string(k.size()));
	for (const std::string &k : keys)
		cr_assert_eq(d.get(k), "value of " + std::to_string(k.size()));
	std::set<std::string> met;
	for (const std::string &k : d.keys())
		cr_assert(met.insert(k).second);
	cr_assert_eq(met, std::set<std::string>(keys.begin(), keys.end()));
	for (const auto &v : d.get_many(keys))
		cr_assert(v.has_value());
	for (const std::string &k : keys)
		cr_assert(d.erase(k));
	cr_assert_eq(error_of([&] { d.put(std::string(65537, 'e'), "x"); }), EMSGSIZE);
}

struct point {
	int x = 0, y = 0;
	std::string name;

	template <class A> void serialize(A &ar) { ar(x, y, name); }
};

Test(ddict_ops, keys_and_values_may_be_any_type_of_the_archive)
{
	ddict<std::pair<int, std::string>, std::map<std::string, point>> d({.managers = 2});
	std::map<std::string, point> m;

	m["a"] = {1, 2, "first"};
	m["b"] = {3, 4, std::string(1000, 'b')};
	d.put({7, "seven"}, m);
	const auto got = d.get({7, "seven"});
	cr_assert_eq(got.size(), 2u);
	cr_assert_eq(got.at("b").name.size(), 1000u);
	cr_assert_eq(got.at("a").y, 2);
}

// As "#rrggbb", for whoever reads it in another language.
struct colour {
	unsigned rgb;
	bool operator==(const colour &) const = default;
};
template <> struct ch::ddict_codec<colour> {
	static std::size_t size(const colour &) { return 7; }
	static void write(std::span<std::byte> to, const colour &c)
	{
		char text[16];

		snprintf(text, sizeof(text), "#%06x", c.rgb & 0xffffff);
		memcpy(to.data(), text, to.size());
	}
	static colour read(std::span<const std::byte> from)
	{
		const std::string text(reinterpret_cast<const char *>(from.data()), from.size());

		return {static_cast<unsigned>(std::stoul(text.substr(1), nullptr, 16))};
	}
};

Test(ddict_ops, one_dictionary_holds_several_types_and_codecs_of_ones_own)
{
	const ddict<std::string, std::string> texts({.managers = 2});
	const ddict<std::string, colour> colours(texts.core());
	const ddict<colour, double> weights(texts.core());
	const ddict<std::string, long> numbers(texts.core());

	colours.put("sky", {0x87ceeb});
	weights.put({0xff}, 0.5);
	cr_assert_eq(numbers.fetch_add("n", 3), 0);
	cr_assert_eq(texts.size(), 3u);
	cr_assert_eq(texts.get("sky"), "#87ceeb");
	cr_assert(texts.contains("#0000ff"));
	cr_assert(colours.get("sky") == colour{0x87ceeb});
	cr_assert_eq(weights.get({0xff}), 0.5);
	cr_assert_eq(numbers.get("n"), 3);
	cr_assert_throw(numbers.get("sky"), ch::archive_error);
}

Test(ddict_ops, fetch_add_gives_the_number_from_before)
{
	ddict<std::string, std::int64_t> d({.managers = 2});

	cr_assert_eq(d.fetch_add("n", 5), 0);
	cr_assert_eq(d.fetch_add("n", -7), 5);
	cr_assert_eq(d.get("n"), -2);
	d.put("n", 100);
	cr_assert_eq(d.fetch_add("n", 1), 100);
}

Test(ddict_ops, fetch_add_knows_every_kind_of_number)
{
	ddict<int, std::uint8_t> bytes({.managers = 1});
	ddict<int, short> shorts({.managers = 1});
	ddict<int, float> floats({.managers = 1});
	ddict<int, double> doubles({.managers = 1});
	ddict<int, int> ints({.managers = 1});

	bytes.put(0, 250);
	cr_assert_eq(bytes.fetch_add(0, 10), 250);
	cr_assert_eq(bytes.get(0), 4);
	cr_assert_eq(shorts.fetch_add(0, -3), 0);
	cr_assert_eq(shorts.get(0), -3);
	cr_assert_eq(floats.fetch_add(0, 0.5f), 0.0f);
	cr_assert_eq(floats.fetch_add(0, 0.25f), 0.5f);
	cr_assert_eq(doubles.fetch_add(0, 1e300), 0.0);
	cr_assert_eq(doubles.get(0), 1e300);
	ints.put(1, std::numeric_limits<int>::max());
	cr_assert_eq(ints.fetch_add(1, 1), std::numeric_limits<int>::max());
	cr_assert_eq(ints.get(1), std::numeric_limits<int>::min());
}

Test(ddict_ops, fetch_add_to_what_is_no_such_number_is_refused)
{
	ddict<std::string, std::string> text({.managers = 1});
	const ddict<std::string, std::int64_t> numbers{text.core()};

	text.put("k", "not eight bytes");
	cr_assert_eq(error_of([&] { numbers.fetch_add("k", 1); }), EINVAL);
	cr_assert_eq(text.get("k"), "not eight bytes");
}

Test(ddict_ops, size_and_clear_reach_every_manager)
{
	ddict<int, int> d({.managers = 4});

	for (int i = 0; i < 1000; i++)
		d.put(i, i);
	std::set<unsigned> managers;
	for (int i = 0; i < 1000; i++)
		managers.insert(d.which_manager(i));
	cr_assert_eq(managers.size(), 4u);
	cr_assert_eq(d.size(), 1000u);
	cr_assert_eq(d.clear(), 1000u);
	cr_assert_eq(d.size(), 0u);
	cr_assert(!d.contains(5));
	d.put(5, 6);
	cr_assert_eq(d.get(5), 6);
}

Test(ddict_ops, batches_do_what_single_operations_do)
{
	ddict<std::string, std::string> d({.managers = 3, .memory = 64 << 20});
	std::map<std::string, std::string> all;
	std::vector<std::string> keys;

	for (unsigned i = 0; i < 5000; i++) // lengths in and out of the ring, and beyond a page
		all["key" + std::to_string(i)] = whole_value(i, i % 100 == 0  ? 20000 + i
								: i % 10 == 0 ? 440 + i % 60
									      : i % 50);
	d.put_many(all);
	cr_assert_eq(d.size(), all.size());
	for (const auto &[k, v] : all) {
		keys.push_back(k);
		keys.push_back("no " + k);
	}
	const auto got = d.get_many(keys);
	cr_assert_eq(got.size(), keys.size());
	for (std::size_t i = 0; i < keys.size(); i++) {
		cr_assert_eq(got[i].has_value(), i % 2 == 0);
		if (got[i])
			cr_assert_eq(*got[i], all[keys[i]]);
	}
	cr_assert(d.get_many(std::vector<std::string>{}).empty());
	d.put_many(std::vector<std::pair<std::string, std::string>>{});
}

Test(ddict_ops, in_a_batch_the_last_value_of_a_key_stays)
{
	ddict<std::string, std::string> d({.managers = 2, .memory = 16 << 20});
	std::vector<std::pair<std::string, std::string>> v;

	for (unsigned i = 0; i < 200; i++)
		v.emplace_back("k" + std::to_string(i % 3), whole_value(i, i % 7 == 0 ? 5000 : 20));
	d.put_many(v);
	for (unsigned i = 197; i < 200; i++)
		cr_assert_eq(d.get("k" + std::to_string(i % 3)), v[i].second);
}

Test(ddict_ops, a_walk_meets_every_key_once)
{
	ddict<int, std::string> d({.managers = 3, .memory = 32 << 20});
	std::set<int> met;
	std::map<int, std::size_t> lens;

	for (const int k : d.keys())
		cr_assert_fail("empty, but there is %d", k);
	for (int i = 0; i < 3000; i++) {
		lens[i] = i % 500 == 0 ? 30000 : static_cast<std::size_t>(i % 40);
		d.put(i, whole_value(static_cast<std::uint64_t>(i), lens[i]));
	}
	for (int i = 0; i < 3000; i += 3)
		d.erase(i);
	for (const int k : d.keys())
		cr_assert(met.insert(k).second, "%d met twice", k);
	cr_assert_eq(met.size(), 2000u);
	met.clear();
	for (const auto &[k, v] : d) {
		cr_assert(met.insert(k).second, "%d met twice", k);
		cr_assert_eq(v.size(), lens[k]);
		cr_assert(is_whole(v, static_cast<std::uint64_t>(k)));
	}
	cr_assert_eq(met.size(), 2000u);
	cr_assert_eq(std::ranges::count_if(d.items(), [](const auto &p) { return p.first % 3 == 1; }), 1000);
}

Test(ddict_ops, bytes_may_be_used_without_types)
{
	ch::ddict_core d = ch::ddict_core::create({.managers = 1, .name = "by-hand-" + std::to_string(getpid())});
	const std::byte key[3] = {std::byte{1}, std::byte{2}, std::byte{3}};
	std::size_t seen = 0;

	cr_assert_eq(d.name(), "by-hand-" + std::to_string(getpid()));
	d.put(key, 100000, [](std::span<std::byte> to) { memset(to.data(), 7, to.size()); });
	cr_assert(d.get(key, [&](ch::ddict_core::bytes b) {
		seen = static_cast<std::size_t>(std::count(b.begin(), b.end(), std::byte{7}));
	}));
	cr_assert_eq(seen, 100000u);
}

Test(ddict_ops, a_reader_that_throws_leaves_the_value)
{
	ddict<int, std::string> text({.managers = 1, .memory = 4 << 20});
	const ddict<int, std::vector<std::string>> other{text.core()};

	text.put(1, std::string(100000, '\xff'));
	for (int i = 0; i < 100; i++) { // no pin is left behind, or the memory would end
		bool caught = false;

		try {
			other.get(1);
		} catch (const ch::archive_error &) {
			caught = true;
		}
		cr_assert(caught);
		text.put(1, std::string(100000, '\xff'));
	}
	cr_assert_eq(text.get(1).size(), 100000u);
}

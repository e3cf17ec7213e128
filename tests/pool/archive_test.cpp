// SPDX-License-Identifier: Apache-2.0
// archive_test.cpp - channels/archive.hpp: every type there and back, and nothing believed of damaged bytes.
#include "../support/support.h"
#include <channels/archive.hpp>
#include <chrono>
#include <complex>
#include <criterion/criterion.h>
#include <deque>
#include <filesystem>
#include <list>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>

TestSuite(archive, .timeout = WATCHDOG_S);

namespace a = ch::archive;

struct point {
	int x, y;
	bool operator==(const point &) const = default;
};

struct member {
	std::string s;
	std::vector<point> v;
	template <class A> void serialize(A &ar) { ar(s, v); }
	bool operator==(const member &) const = default;
};

namespace other {
struct free_one {
	std::string s;
	int i;
	bool operator==(const free_one &) const = default;
};
template <class A> void serialize(A &ar, free_one &f)
{
	ar(f.s) & f.i;
}
struct split {
	int i;
	bool operator==(const split &) const = default;
};
template <class A> void save(A &ar, const split &s)
{
	ar(s.i);
}
template <class A> void load(A &ar, split &s)
{
	ar(s.i);
}
} // namespace other

class secret {
public:
	explicit secret(int i = 0) : i_(i) {}
	bool operator==(const secret &) const = default;

private:
	friend struct ch::archive::access;
	template <class A> void save(A &ar) const { ar(i_); }
	template <class A> void load(A &ar) { ar(i_); }
	int i_;
};

enum class color : short { red, green };

// There and back; every shorter input is refused; damaged input is refused or gives some value, and never crashes.
template <class T> static void check(const T &v)
{
	const auto b = a::to_bytes(v);
	std::uint64_t seed = b.size() + 1;

	cr_assert_eq(b.size(), a::size(v));
	cr_assert(a::read<T>(b) == v);
	for (std::size_t n = 0; n < b.size(); n++) {
		bool is_refused = false;

		try {
			(void)a::read<T>(std::span(b).first(n));
		} catch (const ch::archive_error &) {
			is_refused = true;
		}
		cr_assert(is_refused, "%zu of %zu bytes", n, b.size());
	}
	for (int i = 0; i < 1000 && !b.empty(); i++) {
		auto c = b;

		c[rnd(&seed) % c.size()] = static_cast<std::byte>(rnd(&seed));
		try {
			(void)a::read<T>(c);
		} catch (const ch::archive_error &) {
		}
	}
}

Test(archive, plain_values)
{
	check(1);
	check(2.5);
	check(true);
	check(color::green);
	check(point{1, 2});
	check(std::complex<double>(1, 2));
	check(std::chrono::milliseconds(5));
	check(std::monostate{});
	check(std::tuple<>{});
}

Test(archive, strings_and_sequences)
{
	check(std::string());
	check(std::string("abc"));
	check(std::string(254, 'x'));
	check(std::string(255, 'x'));
	check(std::string(1000, 'x'));
	check(std::u16string(u"hi"));
	check(std::vector<int>{1, 2, 3});
	check(std::vector<bool>{true, false, true});
	check(std::vector<std::string>{"a", "", "b"});
	check(std::array<int, 3>{1, 2, 3});
	check(std::array<std::string, 2>{"q", "r"});
	check(std::deque<int>{1, 2});
	check(std::list<std::string>{"l"});
	check(std::filesystem::path("/a/b"));
}

Test(archive, maps_and_sets)
{
	check(std::map<std::string, int>{{"a", 1}, {"b", 2}});
	check(std::multimap<int, int>{{1, 2}, {1, 3}});
	check(std::unordered_map<int, std::string>{{1, "x"}});
	check(std::set<int>{3, 1});
	check(std::unordered_set<std::string>{"p"});
}

Test(archive, sums_and_products)
{
	check(std::pair(1, std::string("x")));
	check(std::tuple(1, 2.0, std::string("z")));
	check(std::optional<std::string>("w"));
	check(std::optional<int>());
	check(std::variant<std::monostate, int, std::string>("s"));
	check(std::variant<std::monostate, int, std::string>());
	const auto p = a::read<std::unique_ptr<int>>(a::to_bytes(std::make_unique<int>(5)));
	cr_assert_eq(*p, 5);
	cr_assert_null(a::read<std::unique_ptr<int>>(a::to_bytes(std::unique_ptr<int>())));
}

Test(archive, own_types_in_each_of_cereals_ways)
{
	check(member{"m", {{1, 2}, {3, 4}}});
	check(other::free_one{"f", 2});
	check(other::split{4});
	check(secret(9));
	check(std::vector<member>{{"m", {{1, 2}}}, {}});
}

Test(archive, views_are_written_and_owners_read)
{
	const int array[] = {1, 2, 3};

	cr_assert_eq(a::read<std::string>(a::to_bytes(std::string_view("sv"))), "sv");
	cr_assert_eq(a::read<std::vector<int>>(a::to_bytes(std::span<const int>(array))).size(), 3u);
}

Test(archive, several_values_are_a_tuple)
{
	const auto [i, s] = a::read<int, std::string>(a::to_bytes(1, std::string("yy")));
	int back[2] = {};

	cr_assert_eq(i, 1);
	cr_assert_eq(s, "yy");
	a::read_into(a::to_bytes(std::array<int, 2>{7, 8}), back);
	cr_assert_eq(back[1], 8);
}

Test(archive, bytes_left_over_are_refused)
{
	bool is_refused = false;

	try {
		(void)a::read<int>(a::to_bytes(1, 2));
	} catch (const ch::archive_error &) {
		is_refused = true;
	}
	cr_assert(is_refused);
}

Test(archive, a_huge_count_asks_for_no_memory)
{
	// 255 announces eight bytes of count.
	std::vector<std::byte> b(9, static_cast<std::byte>(255));
	int nr_refused = 0;

	try {
		(void)a::read<std::vector<double>>(b);
	} catch (const ch::archive_error &) {
		nr_refused++;
	}
	try {
		(void)a::read<std::list<std::string>>(b);
	} catch (const ch::archive_error &) {
		nr_refused++;
	}
	cr_assert_eq(nr_refused, 2);
}

Test(archive, writing_into_too_little_room_is_refused)
{
	std::byte small[3];
	bool is_refused = false;

	try {
		a::write(small, 1);
	} catch (const ch::archive_error &) {
		is_refused = true;
	}
	cr_assert(is_refused);
}

static_assert(a::is_flat<point> && a::is_flat<double> && a::is_flat<std::array<int, 2>>);
static_assert(!a::is_flat<member> && !a::is_flat<int *> && !a::is_flat<bool> && !a::is_flat<std::optional<int>>);
static_assert(std::is_same_v<a::carrier_t<const char (&)[4]>, std::string>);
static_assert(std::is_same_v<a::carrier_t<std::span<const int>>, std::vector<int>>);

// Sizes about those in which copies are cut.
Test(archive, long_runs_arrive_whole)
{
	using large = std::array<unsigned short, 1500>;

	for (const std::size_t n : {0, 1, 249, 250, 251, 1999, 2000, 2001, 4000, 4001, 65536, 100003, (8 << 20) + 1}) {
		std::string text(n, 0);
		std::vector<double> few(n / 8 + n % 8);
		std::vector<large> larger(n / 4000);

		for (std::size_t i = 0; i < n; i++)
			text[i] = static_cast<char>(i * 7 + i / 256);
		for (std::size_t i = 0; i < few.size(); i++)
			few[i] = static_cast<double>(i) + 0.5;
		for (std::size_t i = 0; i < larger.size(); i++)
			larger[i].fill(static_cast<unsigned short>(i + 1));
		const auto bytes = ch::archive::to_bytes(text, few, larger);
		std::string text2 = "what was there";
		std::vector<double> few2(3);
		std::vector<large> larger2(1);
		ch::archive::read_into(bytes, text2, few2, larger2);
		cr_assert(text2 == text && few2 == few && larger2 == larger, "%zu", n);
	}
}

// SPDX-License-Identifier: Apache-2.0
// clone_test.cpp - dictionaries that are made from others, and that are filled again from others.
#include "ddict_support.hpp"
#include <csignal>
#include <map>

using namespace std::chrono_literals;
using text_dict = ddict<std::string, std::string>;
using contents = std::map<std::string, std::string>;

TestSuite(ddict_clone, .timeout = WATCHDOG_S);

static contents contents_of(const text_dict &d)
{
	contents all;

	for (const auto &[k, v] : d)
		cr_assert(all.emplace(k, v).second, "%s is there twice", k.c_str());
	return all;
}

static text_dict filled(const ch::ddict_options &o)
{
	text_dict d(o);

	for (int k = 0; k < 500; k++)
		d.put(std::to_string(k), whole_value(static_cast<std::uint64_t>(k), k % 10 ? 30 : 20000));
	return d;
}

Test(ddict_clone, a_clone_has_all_and_is_another_dictionary)
{
	const auto d = filled({.managers = 3, .memory = 16 << 20});
	const contents before = contents_of(d);

	for (const unsigned managers : {3u, 1u, 5u}) {
		const auto c = d.clone({.managers = managers, .memory = 16 << 20});

		cr_assert(contents_of(c) == before);
		for (int k = 0; k < 500; k += 50)
			cr_assert(is_whole(c.get(std::to_string(k)), static_cast<std::uint64_t>(k)));
		c.put("new", "x");
		c.erase("17");
		cr_assert(contents_of(d) == before);
	}
}

Test(ddict_clone, checkpoints_lives_and_persistence_are_cloned)
{
	text_dict d({.managers = 2, .working_set = 3});

	for (int c = 0; c < 5; c++, d.checkpoint()) {
		d.put("each", std::to_string(c));
		if (c == 2)
			d.put_persistent("once", "2");
		if (c == 3)
			d.erase("gone");
		if (c < 3)
			d.put("gone", "soon");
	}
	d.set_checkpoint(4);
	d.put("short", "lived", {.ttl = 50ms});
	d.put("long", "lived", {.ttl = 1h});
	for (const unsigned managers : {2u, 3u}) {
		const auto c = d.clone({.managers = managers, .working_set = 3});

		cr_assert_eq(c.checkpoint_id(), 4u);
		for (std::uint64_t at = 2; at < 5; at++) {
			c.set_checkpoint(at);
			cr_assert_eq(c.get("each"), std::to_string(at));
			cr_assert_eq(c.contains("gone"), at < 3);
			cr_assert_eq(c.get("once"), "2");
		}
		while (c.contains("short"))
			;
		cr_assert_eq(c.get("long"), "lived");
		cr_assert_eq(c.newest_checkpoint(), 4u);
	}
	const auto narrow = d.clone({.managers = 1, .working_set = 1});
	cr_assert_eq(narrow.get("each"), "4");
	narrow.set_checkpoint(3);
	cr_assert_eq(error_of([&] { narrow.try_get("each"); }), ERANGE);
}

Test(ddict_clone, a_clone_that_is_too_small_is_refused)
{
	const auto d = filled({.managers = 2, .memory = 16 << 20});
	const std::string why = text_of([&] { d.clone({.managers = 1, .memory = 256 << 10}); });

	cr_assert_neq(why.find("is full"), std::string::npos, "%s", why.c_str());
}

Test(ddict_clone, keys_that_were_put_through_one_manager_stay_there)
{
	text_dict d({.managers = 2});

	d.put_everywhere("all", "x");
	const auto c = d.clone({.managers = 2});
	cr_assert_eq(c.manager(0).get("all"), "x");
	cr_assert_eq(c.manager(1).get("all"), "x");
}

Test(ddict_clone, a_manager_that_lost_its_keys_gets_them_from_another_dictionary)
{
	const auto a = filled({.managers = 3, .memory = 16 << 20}), b = a.clone({.managers = 3, .memory = 16 << 20});
	const contents before = contents_of(a);

	cr_assert_eq(text_dict::synchronise({a, b}), 0u);
	for (const auto &[dict, m] : {std::pair(a, 1u), std::pair(b, 2u)}) {
		const auto shard = dict.manager(m);

		kill(ch_peer_pid(dict.core().manager_peer(m)), SIGKILL);
		// Once because a call was under way perhaps, and once for the keys.
		while (text_of([&] { shard.size(); }).find("lost") == std::string::npos)
			;
	}
	cr_assert_lt(a.size(), before.size());
	const std::size_t missing = 2 * before.size() - a.size() - b.size();
	cr_assert_eq(text_dict::synchronise({a, b}), missing);
	cr_assert(contents_of(a) == before);
	cr_assert(contents_of(b) == before);
	cr_assert_eq(error_of([&] { text_dict::synchronise({a, filled({.managers = 2, .memory = 16 << 20})}); }), EINVAL);
}

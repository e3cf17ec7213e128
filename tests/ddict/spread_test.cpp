// SPDX-License-Identifier: Apache-2.0
// spread_test.cpp - values that every manager is to have, where they are many and long: they go down a tree of managers,
// of which some are full, or are killed, as is the client.
#include "ddict_support.hpp"
#include <algorithm>

TestSuite(ddict_spread, .timeout = 10 * WATCHDOG_S);

constexpr unsigned nr = 21; // the root, four parts of five
constexpr std::size_t len = 70000;

using dict = ddict<int, std::string>;

static dict many(ch::ddict_full when_full = ch::ddict_full::refuse, unsigned replicas = 1)
{
	return dict({.managers = nr, .memory = nr * (600u << 10), .when_full = when_full, .replicas = replicas});
}

// How many managers a client asked to hand a value on.
static std::uint64_t nr_roots(const dict &d)
{
	std::uint64_t sum = 0;

	for (const ch::ddict_stats &s : d.stats())
		for (const ch::ddict_op_stats &o : s.ops)
			sum += std::string_view(o.name) == "put_everywhere" ? o.count : 0;
	return sum;
}

static void everywhere_is(const dict &d, int key, std::uint64_t n)
{
	for (unsigned m = 0; m < nr; m++)
		cr_assert_eq(d.manager(m).get(key), whole_value(n, len), "manager %u", m);
}

Test(ddict_spread, a_value_reaches_every_manager_through_one)
{
	const dict d = many();

	for (std::uint64_t n = 0; n < 5; n++) {
		d.put_everywhere(1, whole_value(n, len));
		everywhere_is(d, 1, n);
	}
	cr_assert_eq(nr_roots(d), 5u);
	d.freeze();
	cr_assert_eq(error_of([&] { d.put_everywhere(1, whole_value(9, len)); }), EPERM);
	d.unfreeze();
	everywhere_is(d, 1, 4);
	const dict two = many(ch::ddict_full::refuse, 2);
	two.put_everywhere(1, whole_value(7, len));
	everywhere_is(two, 1, 7);
}

// Who is full is told of, by name; all others have the value. Where keys make room for others, it reaches all.
Test(ddict_spread, a_full_manager_is_named)
{
	for (const auto when_full : {ch::ddict_full::refuse, ch::ddict_full::evict}) {
		const dict d = many(when_full);
		const bool evicts = when_full == ch::ddict_full::evict;
		const unsigned root = static_cast<unsigned>(getpid()) % nr; // where this process's values begin
		std::set<std::string> names;

		for (const unsigned full : {root, (root + 1) % nr, (root + 9) % nr}) {
			names.insert("manager " + std::to_string(full) + " of 21");
			for (int k = 100; k < 150 && !error_of([&] { d.manager(full).put(k, std::string(30000, 'f')); }); k++)
				;
		}
		const std::string text = text_of([&] { d.put_everywhere(1, whole_value(3, len)); });
		unsigned have_it = 0;

		cr_assert_eq(text.empty(), evicts, "%s", text.c_str());
		const auto is_in_text = [&](const std::string &name) { return text.find(name) != text.npos; };
		cr_assert(evicts || std::any_of(names.begin(), names.end(), is_in_text), "%s", text.c_str());
		for (unsigned m = 0; m < nr; m++)
			have_it += d.manager(m).try_get(1) == whole_value(3, len);
		cr_assert_eq(have_it, evicts ? nr : nr - 3, "%u", have_it);
	}
}

// What returned is everywhere; a call that a death is told through may be repeated.
Test(ddict_spread, managers_may_die_on_the_way)
{
	std::uint64_t seed = test_seed();
	const dict d = many();

	for (std::uint64_t n = 0; n < 12; n++) {
		const auto dead = static_cast<unsigned>(rnd(&seed) % nr);
		const ch_peer victim = d.core().manager_peer(dead);
		const auto delay = static_cast<long>(rnd(&seed) % 1000000);
		std::thread killer([&] {
			const timespec nap = {0, delay};

			nanosleep(&nap, nullptr);
			kill(ch_peer_pid(victim), SIGKILL);
		});
		int err, other = 0;

		while ((err = error_of([&] { d.put_everywhere(1, whole_value(n, len)); })) != 0)
			other = err == EOWNERDEAD ? other : err;
		killer.join();
		cr_assert_eq(other, 0, "%d", other);
		AWAIT(!ch_peer_is_alive(victim));
		for (unsigned m = 0; m < nr; m++) {
			while (error_of([&] { d.manager(m).size(); })) // tells of the death
				;
			const auto got = d.manager(m).try_get(1);

			cr_assert(got == whole_value(n, len) || (!got && m == dead), "manager %u, not %u", m, dead);
			d.manager(m).put(1, whole_value(n, len));
		}
	}
}

// It leaves old values and new ones, all whole, and nothing that waits.
Test(ddict_spread, a_client_that_dies_leaves_whole_values)
{
	std::uint64_t seed = test_seed();
	const dict d = many();

	d.put_everywhere(1, whole_value(0, len));
	for (std::uint64_t round = 1; round <= 12; round++) {
		const pid_t client = start_child([&] {
			for (std::uint64_t n = 0;; n++)
				d.put_everywhere(1, whole_value(round * 1000 + n % 1000, len));
			return true;
		});
		const timespec nap = {0, static_cast<long>(rnd(&seed) % 20000000)};

		nanosleep(&nap, nullptr);
		kill(client, SIGKILL);
		child_end(client);
		for (unsigned m = 0; m < nr; m++) {
			const std::string got = d.manager(m).get(1);
			bool is_one = is_whole(got, 0);

			for (std::uint64_t n = 1000; n < round * 1000 + 1000 && !is_one; n++)
				is_one = is_whole(got, n);
			cr_assert(is_one, "manager %u", m);
		}
		// What the dead one had under way may still come, and overtake another's.
		AWAIT([&] {
			d.put_everywhere(1, whole_value(0, len));
			for (unsigned m = 0; m < nr; m++)
				if (d.manager(m).get(1) != whole_value(0, len))
					return false;
			return true;
		}());
	}
}

// SPDX-License-Identifier: Apache-2.0
// more_ops_test.cpp - conditional and atomic operations, waiting, views, calls under way, walks, expiry, freezing,
// statistics: what a dictionary does beyond put and get.
#include "ddict_support.hpp"
#include <atomic>
#include <map>

using namespace std::chrono_literals;
using text_dict = ddict<std::string, std::string>;

TestSuite(ddict_more, .timeout = WATCHDOG_S);

static const std::size_t lengths[] = {0, 1, 64, 400, 500, 5000, 300000};

Test(ddict_more, put_if_absent_puts_once)
{
	text_dict d({.managers = 2});

	for (const std::size_t len : lengths) {
		const std::string k = "k" + std::to_string(len);

		cr_assert(d.put_if_absent(k, whole_value(1, len)));
		cr_assert_not(d.put_if_absent(k, whole_value(2, len + 1)));
		cr_assert_eq(d.get(k), whole_value(1, len));
		d.erase(k);
		cr_assert(d.put_if_absent(k, "again"));
	}
}

Test(ddict_more, one_of_many_puts_if_absent)
{
	ddict<int, int> d({.managers = 2});
	std::atomic<int> nr{0};
	std::vector<std::jthread> threads;

	for (int t = 0; t < 4; t++)
		threads.emplace_back([&, t] {
			for (int k = 0; k < 200; k++)
				nr += d.put_if_absent(k, t);
		});
	threads.clear();
	cr_assert_eq(nr, 200);
}

Test(ddict_more, compare_and_set_sets_only_what_was_expected)
{
	text_dict d({.managers = 2});

	cr_assert_not(d.compare_and_set("none", "", "x"));
	cr_assert_not(d.contains("none"));
	for (const std::size_t len : lengths) {
		d.put("k", whole_value(1, len));
		cr_assert_not(d.compare_and_set("k", whole_value(1, len) + "x", "other"));
		cr_assert_eq(d.get("k"), whole_value(1, len));
		for (const std::size_t to : lengths) {
			cr_assert(d.compare_and_set("k", d.get("k"), whole_value(2, to)), "%zu to %zu", len, to);
			cr_assert_eq(d.get("k"), whole_value(2, to));
		}
	}
}

Test(ddict_more, a_counter_by_compare_and_set_loses_nothing)
{
	ddict<int, long> d({.managers = 1});
	std::vector<std::jthread> threads;

	d.put(1, 0);
	for (int t = 0; t < 4; t++)
		threads.emplace_back([&] {
			for (int i = 0; i < 300; i++)
				for (long n = d.get(1); !d.compare_and_set(1, n, n + 1);)
					n = d.get(1);
		});
	threads.clear();
	cr_assert_eq(d.get(1), 1200);
}

Test(ddict_more, pop_gives_the_value_and_takes_the_key)
{
	text_dict d({.managers = 2});

	cr_assert_not(d.pop("none"));
	for (const std::size_t len : lengths) {
		d.put("k", whole_value(3, len));
		cr_assert_eq(d.pop("k").value(), whole_value(3, len));
		cr_assert_not(d.contains("k"));
		cr_assert_not(d.pop("k"));
	}
	cr_assert_eq(d.size(), 0u);
}

Test(ddict_more, pop_item_takes_each_pair_once)
{
	ddict<int, std::string> d({.managers = 3});
	std::vector<std::pair<int, std::string>> here, there;
	std::set<int> keys;
	const auto take_all = [&](auto &to) {
		while (auto one = d.pop_item())
			to.push_back(std::move(*one));
	};

	cr_assert(!d.pop_item());
	for (int i = 0; i < 300; i++)
		d.put(i, std::to_string(i));
	std::thread other([&] { take_all(there); });

	take_all(here);
	other.join();
	cr_assert_eq(here.size() + there.size(), 300u);
	for (const auto *some : {&here, &there})
		for (const auto &[k, v] : *some) {
			cr_assert_eq(v, std::to_string(k));
			cr_assert(keys.insert(k).second);
		}
	cr_assert_eq(d.size(), 0u);
}

Test(ddict_more, append_grows_a_value_piece_by_piece)
{
	text_dict d({.managers = 1});
	std::uint64_t seed = test_seed();
	std::string model;

	while (model.size() < 200000) {
		const std::string piece = whole_value(model.size(), rnd(&seed) % 3000);

		model += piece;
		cr_assert_eq(d.append("k", piece), model.size());
		if (rnd(&seed) % 8 == 0)
			cr_assert_eq(d.get("k"), model);
	}
	cr_assert_eq(d.get("k"), model);
	d.put("k", "short");
	d.append("k", "er");
	cr_assert_eq(d.get("k"), "shorter");
	d.put("small", std::string(440, 'a'));
	for (int i = 0; i < 100; i++)
		d.append("small", "b");
	cr_assert_eq(d.get("small"), std::string(440, 'a') + std::string(100, 'b'));
}

Test(ddict_more, a_view_stays_as_it_was)
{
	text_dict d({.managers = 1});

	for (const std::size_t len : lengths) {
		d.put("k", whole_value(1, len));
		const std::optional<ch::ddict_view> v = d.view("k");

		cr_assert(v);
		cr_assert_eq(v->text(), whole_value(1, len));
		d.append("k", "more");
		cr_assert_eq(v->text(), whole_value(1, len));
		d.put("k", "other");
		d.erase("k");
		cr_assert_eq(v->text(), whole_value(1, len));
	}
	cr_assert_not(d.view("none"));
	AWAIT(d.stats()[0].pinned == 0);
}

Test(ddict_more, wait_for_waits_for_the_value_or_the_key)
{
	ddict<std::string, int> d({.managers = 2});

	d.put("ready", 1);
	d.wait_for("ready", 1);
	std::jthread waits([&] {
		d.wait_for("flag", 3);
		d.put("seen", 1);
	});
	d.put("flag", 1);
	d.put("flag", 2);
	cr_assert_not(d.contains("seen"));
	d.put("flag", 3);
	d.wait_for("seen");
	cr_assert_eq(d.get("seen"), 1);
	const auto hurried = d.within(20ms);
	cr_assert_eq(error_of([&] { hurried.wait_for("never"); }), ETIMEDOUT);
	cr_assert_eq(error_of([&] { hurried.wait_for("flag", 77); }), ETIMEDOUT);
	cr_assert_eq(d.get("flag"), 3);
}

Test(ddict_more, calls_end_in_time_when_a_manager_is_stopped)
{
	ddict<int, int> d({.managers = 1});
	const auto hurried = d.within(30ms);
	const pid_t manager = ch_peer_pid(d.core().manager_peer(0));

	d.put(1, 1);
	kill(manager, SIGSTOP);
	for (int i = 0; i < 10; i++)
		cr_assert_eq(error_of([&] { hurried.get(1); }), ETIMEDOUT);
	std::vector<ch::ddict_future<std::optional<int>>> many;
	for (int i = 0; i < 5; i++)
		many.push_back(hurried.get_async(1));
	many.clear();
	kill(manager, SIGCONT);
	for (int i = 0; i < 300; i++)
		cr_assert_eq(d.get(1), 1);
}

Test(ddict_more, calls_under_way_are_answered_in_any_order)
{
	text_dict d({.managers = 2});
	std::vector<ch::ddict_future<void>> puts;
	std::vector<ch::ddict_future<std::optional<std::string>>> gets;

	for (int i = 0; i < 50; i++)
		puts.push_back(d.put_async("k" + std::to_string(i), whole_value(i, lengths[i % 7])));
	for (auto &p : puts)
		p.get();
	for (int i = 0; i < 60; i++)
		gets.push_back(d.get_async("k" + std::to_string(i)));
	while (!gets[30].is_ready())
		;
	for (int i = 59; i >= 0; i--) {
		const std::optional<std::string> v = gets[i].get();

		cr_assert_eq(v.has_value(), i < 50);
		if (v)
			cr_assert_eq(*v, whole_value(i, lengths[i % 7]));
	}
	cr_assert(d.put_if_absent_async("new", "v").get());
	cr_assert(d.contains_async("new").get());
	cr_assert(d.compare_and_set_async("new", "v", "w").get());
	cr_assert_eq(d.pop_async("new").get().value(), "w");
	cr_assert_not(d.erase_async("new").get());
	const ddict<std::string, long> n{d.core()};
	cr_assert_eq(n.fetch_add_async("n", 5).get(), 0);
	cr_assert_eq(n.fetch_add_async("n", 5).get(), 5);
}

// More than a connection has credits, of which none is waited for before all are begun.
Test(ddict_more, a_thousand_calls_may_be_begun_before_one_is_waited_for)
{
	ddict<int, int> d({.managers = 2});
	std::vector<ch::ddict_future<void>> puts;

	for (int i = 0; i < 1000; i++)
		puts.push_back(d.put_async(i, i));
	for (auto &p : puts)
		p.get();
	cr_assert_eq(d.size(), 1000u);
}

Test(ddict_more, calls_that_nobody_waits_for_leave_nothing)
{
	text_dict d({.managers = 1});

	d.put("k", whole_value(1, 100000));
	for (int i = 0; i < 500; i++)
		d.get_async("k");
	cr_assert_eq(d.get("k"), whole_value(1, 100000));
	AWAIT(d.stats()[0].pinned == 0);
}

Test(ddict_more, a_scan_finds_the_keys_with_its_prefix)
{
	text_dict d({.managers = 3});
	std::map<std::string, std::string> found;

	for (int i = 0; i < 3000; i++)
		d.put("ab"[i % 2] + std::to_string(i), std::to_string(i));
	for (const auto &[k, v] : d.scan("b1"))
		cr_assert(found.emplace(k, v).second);
	std::size_t wanted = 0;
	for (int i = 1; i < 3000; i += 2)
		wanted += std::to_string(i)[0] == '1';
	cr_assert_eq(found.size(), wanted);
	for (const auto &[k, v] : found)
		cr_assert_eq(k, "b" + v);
	cr_assert(d.scan("c").begin() == std::default_sentinel);
	std::size_t n = 0;
	for ([[maybe_unused]] const std::string &v : d.values())
		n++;
	cr_assert_eq(n, 3000u);
}

Test(ddict_more, a_walk_goes_on_where_another_one_was)
{
	ddict<int, int> d({.managers = 2});
	std::set<int> met;
	ch::ddict_position at;

	for (int i = 0; i < 20000; i++)
		d.put_async(i, i);
	while (d.size() != 20000)
		;
	for (int rounds = 0;; rounds++) {
		auto walk = d.keys(at);
		int n = 0;

		for (auto i = walk.begin(); i != walk.end() && n < 3000; ++i, n++)
			met.insert(*i);
		if (n < 3000)
			break;
		at = walk.position();
		cr_assert_lt(rounds, 1000);
	}
	cr_assert_eq(met.size(), 20000u);
}

Test(ddict_more, keys_expire)
{
	text_dict d({.managers = 2});

	d.put("stays", "s");
	d.put("goes", "g", {.ttl = 30ms});
	d.put("renewed", "r", {.ttl = 30ms});
	d.put("renewed", "r");
	d.put("large", whole_value(1, 100000), {.ttl = 30ms});
	std::vector<std::pair<std::string, std::string>> many;
	for (int i = 0; i < 100; i++)
		many.emplace_back("m" + std::to_string(i), "x");
	d.put_many(many, {.ttl = 30ms});
	AWAIT(d.size() == 2);
	cr_assert_not(d.contains("goes"));
	cr_assert_not(d.contains("large"));
	cr_assert_eq(d.get("renewed"), "r");
	std::uint64_t expired = 0;
	for (const auto &s : d.stats())
		expired += s.expired;
	cr_assert_eq(expired, 102u);
}

Test(ddict_more, a_frozen_dictionary_is_only_read)
{
	text_dict d({.managers = 2});

	d.put("k", "v");
	cr_assert_not(d.freeze());
	cr_assert(d.is_frozen());
	cr_assert_eq(d.get("k"), "v");
	cr_assert_eq(error_of([&] { d.put("k", "w"); }), EPERM);
	cr_assert_eq(error_of([&] { d.put("large", std::string(100000, 'x')); }), EPERM);
	cr_assert_eq(error_of([&] { d.erase("k"); }), EPERM);
	cr_assert_eq(error_of([&] { d.pop("k"); }), EPERM);
	cr_assert_eq(error_of([&] { d.clear(); }), EPERM);
	cr_assert_eq(error_of([&] { d.append("k", "x"); }), EPERM);
	cr_assert_eq(error_of([&] { d.put_many(std::map<std::string, std::string>{{"a", "b"}}); }), EPERM);
	cr_assert(d.unfreeze());
	d.put("k", "w");
	cr_assert_eq(d.get("k"), "w");
}

Test(ddict_more, a_directed_handle_asks_its_manager_only)
{
	ddict<int, int> d({.managers = 3});
	std::size_t sum = 0;

	for (int i = 0; i < 300; i++)
		d.put(i, i);
	for (unsigned m = 0; m < 3; m++) {
		const auto one = d.manager(m);
		std::size_t n = 0;

		for (const int k : one.keys()) {
			cr_assert_eq(d.which_manager(k), m);
			n++;
		}
		cr_assert_eq(n, one.size());
		sum += n;
		one.put(1000, static_cast<int>(m));
		cr_assert_eq(one.get(1000), static_cast<int>(m));
	}
	cr_assert_eq(sum, 300u);
	cr_assert_eq(error_of([&] { d.manager(3); }), EINVAL);
}

Test(ddict_more, what_is_put_everywhere_is_with_every_manager)
{
	text_dict d({.managers = 3});

	d.put_everywhere("k", whole_value(1, 50000));
	for (unsigned m = 0; m < 3; m++)
		cr_assert_eq(d.manager(m).get("k"), whole_value(1, 50000));
	cr_assert_eq(d.get_anywhere("k").value(), whole_value(1, 50000));
	cr_assert_eq(d.get("k"), whole_value(1, 50000));
}

Test(ddict_more, statistics_count_what_was_done)
{
	ddict<int, std::string> d({.managers = 2, .memory = 8 << 20});
	std::uint64_t puts = 0, keys = 0, shorter = 0, timed = 0;

	for (int i = 0; i < 500; i++)
		d.put(i, std::string(1000, 'x'));
	for (const ch::ddict_stats &s : d.stats()) {
		cr_assert_geq(s.memory, 4u << 20);
		cr_assert(s.used > s.keys * 1000 && s.used < s.memory);
		cr_assert_geq(s.largest, 1u << 20);
		cr_assert_eq(s.clients, 1u);
		keys += s.keys;
		for (const ch::ddict_op_stats &o : s.ops)
			if (!strcmp(o.name, "put")) {
				puts += o.count;
				cr_assert(o.p50_ns > 0 && o.p50_ns <= o.p99_ns && o.p99_ns <= o.max_ns);
				cr_assert_eq(o.buckets.back().below_ns, o.max_ns);
				for (const ch::ddict_bucket &b : o.buckets) {
					cr_assert(b.count > 0 && b.below_ns > shorter);
					shorter = b.below_ns;
					timed += b.count;
				}
				cr_assert_eq(std::exchange(timed, 0), (o.count + 15) / 16);
				shorter = 0;
			}
	}
	cr_assert_eq(puts, 500u);
	cr_assert_eq(keys, 500u);
}

Test(ddict_more, a_dictionary_is_found_by_its_name)
{
	const std::string name = "found-" + std::to_string(getpid());
	ddict<int, int> d({.managers = 1, .name = name});

	d.put(1, 2);
	cr_assert_eq((ddict<int, int>::attach(name).get(1)), 2);
	cr_assert_eq(error_of([&] { ddict<int, int>::attach("not-" + name); }), ENOENT);
}

Test(ddict_more, a_value_is_written_in_pieces)
{
	text_dict d({.managers = 1, .memory = 32 << 20});
	const std::string k = "k";
	const auto key = std::as_bytes(std::span(k));
	const std::string all = whole_value(7, 3000000);

	for (const std::size_t expected : {std::size_t{0}, all.size()}) {
		ch::ddict_core::writer w(d.core(), key, expected);

		for (std::size_t at = 0; at < all.size(); at += 70000)
			w.write(std::as_bytes(
				std::span(all).subspan(at, std::min<std::size_t>(70000, all.size() - at))));
		cr_assert_eq(w.size(), all.size());
		cr_assert_not(d.contains(k));
		w.commit();
		cr_assert_eq(d.get(k), all);
		d.erase(k);
	}
	const std::uint64_t used = d.stats()[0].used;
	{
		ch::ddict_core::writer w(d.core(), key);
		w.write(std::as_bytes(std::span(all)));
	}
	cr_assert_not(d.contains(k));
	AWAIT(d.stats()[0].used == used);
}

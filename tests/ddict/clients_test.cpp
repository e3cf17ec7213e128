// SPDX-License-Identifier: Apache-2.0
// clients_test.cpp - several processes and threads at a time.
#include "ddict_support.hpp"
#include <atomic>

TestSuite(ddict_clients, .timeout = WATCHDOG_S);

Test(ddict_clients, fetch_adds_of_many_processes_sum_up_exactly)
{
	constexpr unsigned nr = 4, times = 5000, keys = 7;
	ddict<unsigned, std::uint64_t> d({.managers = 2});
	std::vector<pid_t> children;

	for (unsigned c = 0; c < nr; c++)
		children.push_back(start_child([&] {
			for (unsigned i = 0; i < times; i++)
				d.fetch_add(i % keys, i);
			return true;
		}));
	for (const pid_t c : children)
		cr_assert_eq(child_end(c), 0);
	std::uint64_t sum = 0;
	for (unsigned k = 0; k < keys; k++)
		sum += d.get(k);
	cr_assert_eq(sum, std::uint64_t{nr} * times * (times - 1) / 2);
}

Test(ddict_clients, threads_share_one_handle)
{
	constexpr unsigned nr = 8, times = 1000;
	ddict<std::string, std::string> d({.managers = 2, .memory = 64 << 20});
	const ddict<std::string, std::uint64_t> numbers{d.core()};
	std::atomic<unsigned> wrong{0};
	std::vector<std::jthread> threads;

	for (unsigned t = 0; t < nr; t++)
		threads.emplace_back([&, t] {
			for (unsigned i = 0; i < times; i++) {
				const std::string key = "t" + std::to_string(t);
				const std::string value = whole_value(t, i % 10 == 0 ? 10000 + i : i % 300);

				d.put(key, value);
				wrong += d.get(key) != value;
				numbers.fetch_add("all", 1);
			}
		});
	threads.clear();
	cr_assert_eq(wrong.load(), 0u);
	cr_assert_eq(numbers.get("all"), nr * times);
}

// More threads and calls than there are credits, batches among them.
Test(ddict_clients, more_calls_than_a_reply_channel_holds_wait_their_turn)
{
	constexpr unsigned nr = 48;
	ddict<std::string, std::string> d({.managers = 3, .memory = 64 << 20});
	std::atomic<unsigned> wrong{0};
	std::vector<std::jthread> threads;

	for (unsigned t = 0; t < nr; t++)
		threads.emplace_back([&, t] {
			std::vector<std::pair<std::string, std::string>> v;
			std::vector<std::string> keys;

			for (unsigned i = 0; i < 200; i++) {
				keys.push_back(std::to_string(t) + "/" + std::to_string(i));
				v.emplace_back(keys.back(), whole_value(i, i % 20 == 0 ? 2000 : 30));
			}
			d.put_many(v);
			const auto got = d.get_many(keys);
			for (unsigned i = 0; i < 200; i++)
				wrong += got[i] != v[i].second;
		});
	threads.clear();
	cr_assert_eq(wrong.load(), 0u);
	cr_assert_eq(d.size(), nr * 200);
}

Test(ddict_clients, a_value_is_never_seen_half_written)
{
	ddict<std::string, std::string> d({.managers = 1, .memory = 64 << 20});
	struct board *b = board_new();

	d.put("k", whole_value(0, 100));
	const pid_t writer = start_child([&] {
		for (std::uint64_t n = 1; posted(b, 0) == 0; n++)
			d.put("k", whole_value(n % 50, n % 3 ? 100 : 200000));
		return true;
	});
	for (int i = 0; i < 2000; i++) {
		const std::string s = d.get("k");
		bool whole = false;

		for (std::uint64_t n = 0; n < 50 && !whole; n++)
			whole = is_whole(s, n);
		cr_assert(whole, "read %d is mixed", i);
	}
	post(b, 0);
	cr_assert_eq(child_end(writer), 0);
}

Test(ddict_clients, a_walk_meets_what_stays_once_while_others_come_and_go)
{
	constexpr int stay = 2000;
	ddict<int, int> d({.managers = 2, .memory = 32 << 20});
	struct board *b = board_new();

	for (int i = 0; i < stay; i++)
		d.put(i, i);
	const pid_t churn = start_child([&] {
		for (int n = 0; posted(b, 0) == 0; n = (n + 1) % 5000) {
			d.put(stay + n, n);
			d.put(n % stay, n);
			if (n % 2)
				d.erase(stay + n);
			if (n == 100)
				post(b, 1);
		}
		return true;
	});
	await_post(b, 1);
	for (int round = 0; round < 20; round++) {
		std::vector<int> met(stay);

		for (const int k : d.keys())
			if (k < stay)
				met[static_cast<std::size_t>(k)]++;
		for (int i = 0; i < stay; i++)
			cr_assert_eq(met[static_cast<std::size_t>(i)], 1, "%d met %d times", i,
				     met[static_cast<std::size_t>(i)]);
	}
	post(b, 0);
	cr_assert_eq(child_end(churn), 0);
}

Test(ddict_clients, clear_while_others_put_leaves_a_dictionary_that_works)
{
	ddict<int, std::string> d({.managers = 2, .memory = 32 << 20});
	struct board *b = board_new();

	const pid_t writer = start_child([&] {
		for (int n = 0; posted(b, 0) == 0; n++)
			d.put(n % 100, whole_value(static_cast<std::uint64_t>(n % 100), n % 5 ? 20 : 3000));
		return true;
	});
	for (int i = 0; i < 200; i++) {
		d.clear();
		for (const auto &[k, v] : d)
			cr_assert(is_whole(v, static_cast<std::uint64_t>(k)));
	}
	post(b, 0);
	cr_assert_eq(child_end(writer), 0);
	d.clear();
	cr_assert_eq(d.size(), 0u);
}

Test(ddict_clients, managers_sleep_while_nobody_asks)
{
	ddict<int, int> d({.managers = 2});

	d.put(1, 1);
	cr_assert_eq(d.size(), 1u);
	for (unsigned m = 0; m < 2; m++)
		await_asleep(ch_peer_pid(d.core().manager_peer(m)));
	cr_assert_eq(d.get(1), 1);
}

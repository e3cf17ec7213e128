// SPDX-License-Identifier: Apache-2.0
// restart_test.cpp - dictionaries that end and leave what they held for the next one of their name.
#include "ddict_support.hpp"
#include <filesystem>
#include <map>

TestSuite(ddict_restart, .timeout = WATCHDOG_S);

using dict = ddict<std::string, std::string>;

static std::string fresh_name()
{
	return "restart-" + std::to_string(getpid());
}

static std::string place()
{
	return "/dev/shm/ddict-kept-" + fresh_name();
}

static std::map<std::string, std::string> some()
{
	std::map<std::string, std::string> all;

	for (std::size_t k = 0; k < 300; k++)
		all["key" + std::to_string(k)] = whole_value(k, k % 10 ? k : 5000 + k * 100);
	return all;
}

static void keep_some()
{
	dict d({.managers = 2, .name = fresh_name()});

	d.put_many(some());
	d.destroy_for_restart();
}

Test(ddict_restart, a_dictionary_begins_with_what_the_last_one_held)
{
	const auto model = some();

	for (const unsigned managers : {2u, 1u, 3u}) {
		keep_some();
		cr_assert_eq(error_of([] { dict::attach(fresh_name()); }), ENOENT);
		dict d({.managers = managers, .name = fresh_name(), .replicas = managers > 1 ? 2u : 1u, .restart = true});

		cr_assert_eq(d.size(), model.size());
		for (const auto &[k, v] : model)
			cr_assert_eq(d.get(k), v);
		d.put("key1", "changed");
		d.put("more", "x");
		cr_assert_not(std::filesystem::exists(place()));
	}
	cr_assert_eq(error_of([] { dict({.name = fresh_name(), .restart = true}); }), ENOENT, "it was begun with already");
}

Test(ddict_restart, another_process_may_begin_with_it)
{
	const pid_t one = start_child([] {
		keep_some();
		return true;
	});
	// Its name has the parent's number in it; a child keeps under its own.
	cr_assert_eq(child_end(one), 0);
	const std::string name = "restart-" + std::to_string(one);
	const dict d({.managers = 2, .name = name, .restart = true});

	cr_assert_eq(d.size(), some().size());
}

Test(ddict_restart, all_checkpoints_lives_and_what_is_persistent_are_kept)
{
	{
		dict d({.managers = 2, .name = fresh_name(), .working_set = 3});

		d.put("a", "0");
		d.put("gone", "0");
		d.checkpoint();
		d.put("a", "1");
		d.put("short", "x", {.ttl = std::chrono::hours(1)});
		d.checkpoint();
		d.put("a", "2");
		d.erase("gone");
		d.destroy_for_restart();
	}
	const dict d({.managers = 3, .name = fresh_name(), .working_set = 3, .restart = true});

	cr_assert_eq(d.checkpoint_id(), 2u);
	cr_assert_eq(d.get("a"), "2");
	cr_assert_not(d.contains("gone"));
	cr_assert_eq(d.get("short"), "x");
	d.rollback();
	cr_assert_eq(d.get("a"), "1");
	d.rollback();
	cr_assert_eq(d.get("a"), "0");
	cr_assert_eq(d.get("gone"), "0");
}

static std::vector<std::filesystem::path> logs()
{
	std::vector<std::filesystem::path> all;

	for (const auto &f : std::filesystem::directory_iterator(place()))
		if (f.file_size() > 1000)
			all.push_back(f.path());
	return all;
}

Test(ddict_restart, what_is_damaged_or_missing_is_said)
{
	const auto begin = [] { dict({.managers = 2, .name = fresh_name(), .restart = true}); };

	cr_assert_eq(error_of(begin), ENOENT);
	cr_assert(text_of(begin).find(fresh_name()) != std::string::npos, "%s", text_of(begin).c_str());
	cr_assert_not(dict::drop_kept(fresh_name()));
	keep_some();
	cr_assert_not(logs().empty());
	for (const auto &f : logs()) {
		std::fstream file(f, std::ios::in | std::ios::out | std::ios::binary);

		file.seekp(static_cast<std::streamoff>(std::filesystem::file_size(f) / 2));
		file << "damage";
	}
	const std::string text = text_of(begin);
	cr_assert_eq(error_of(begin), EPROTO, "%s", text.c_str());
	cr_assert(text.find(place()) != std::string::npos, "%s", text.c_str());
	cr_assert_eq(error_of([] { dict::attach(fresh_name()); }), ENOENT);
	cr_assert(std::filesystem::exists(place()), "it stays");
	{
		dict d({.managers = 2, .name = fresh_name()}); // another one of this name

		d.put("k", "v");
		cr_assert_eq(error_of([&] { d.destroy_for_restart(); }), EEXIST);
		d.put("k", "w"); // it goes on
		cr_assert(dict::drop_kept(fresh_name()));
		cr_assert_eq(error_of([&] { dict::attach(d.core().descr()).destroy_for_restart(); }), EINVAL);
		d.destroy_for_restart();
	}
	cr_assert(dict::drop_kept(fresh_name()));
	cr_assert_not(std::filesystem::exists(place()));
}

// Either it was kept, or it goes on with what it lost.
Test(ddict_restart, a_manager_may_die_while_it_is_kept)
{
	const auto model = some();
	std::uint64_t seed = test_seed();

	for (int round = 0; round < 8; round++) {
		dict d({.managers = 2, .name = fresh_name()});
		const ch_peer victim = d.core().manager_peer(1);
		const auto delay = static_cast<long>(rnd(&seed) % 2000000);

		d.put_many(model);
		std::thread killer([&] {
			const timespec nap = {0, delay};

			nanosleep(&nap, nullptr);
			kill(ch_peer_pid(victim), SIGKILL);
		});
		const int err = error_of([&] { d.destroy_for_restart(); });

		killer.join();
		if (err == 0) {
			cr_assert_eq(dict({.name = fresh_name(), .restart = true}).size(), model.size());
			continue;
		}
		cr_assert_eq(err, EOWNERDEAD);
		cr_assert_not(std::filesystem::exists(place()));
		while (error_of([&] { d.put_many(model); }))
			;
		cr_assert_eq(d.size(), model.size());
	}
}

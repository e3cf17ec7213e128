// SPDX-License-Identifier: Apache-2.0
// handle_test.cpp - creating, attaching, copying, shipping, destroying.
#include "ddict_support.hpp"
#include <sched.h>
#include <filesystem>

TestSuite(ddict_handle, .timeout = WATCHDOG_S);

Test(ddict_handle, a_handle_of_nothing_is_refused)
{
	const ddict<int, int> none;

	cr_assert(!none);
	cr_assert_eq(error_of([&] { none.put(1, 1); }), EINVAL);
	cr_assert_eq(error_of([&] { none.size(); }), EINVAL);
}

Test(ddict_handle, attaching_by_descriptor_reaches_the_same_dictionary)
{
	ddict<std::string, int> d({.managers = 2});
	const ch::descriptor there = ch::descriptor::from_text(d.descr().text());

	d.put("k", 1);
	auto e = ddict<std::string, int>::attach(there);
	cr_assert_eq(e.get("k"), 1);
	e.put("k", 2);
	cr_assert_eq(d.get("k"), 2);
	cr_assert_eq(e.managers(), 2u);
}

Test(ddict_handle, descriptors_of_something_else_are_refused)
{
	ch::memory_pool pool = ch::memory_pool::create(1 << 20);
	ch::channel channel = ch::channel::create(pool);
	ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
	ch_segment *seg = nullptr;
	ch::descriptor d{};

	cr_assert_eq(error_of([&] { ch::ddict_core::attach(pool.descr()); }), EPROTO);
	cr_assert_eq(error_of([&] { ch::ddict_core::attach(channel.descr()); }), EPROTO);
	cr_assert_eq(error_of([&] { ch::ddict_core::attach(d); }), EINVAL);
	attr.len = 4096;
	cr_assert_eq(ch_segment_create(&attr, &seg), 0);
	ch_segment_get_descr(seg, &d);
	cr_assert_eq(error_of([&] { ch::ddict_core::attach(d); }), EPROTO);
	memset(ch_segment_addr(seg), 0xff, ch_segment_len(seg));
	cr_assert_eq(error_of([&] { ch::ddict_core::attach(d); }), EPROTO);
	ch_segment_destroy(seg);
	channel.destroy();
	pool.destroy();
}

Test(ddict_handle, impossible_options_are_refused)
{
	using dict = ddict<int, int>;

	cr_assert_eq(error_of([] { dict d({.managers = 5000}); }), EINVAL);
	cr_assert_eq(error_of([] { dict d({.managers = 1, .max_clients = 1000000}); }), EINVAL);
	cr_assert_eq(error_of([] { dict d({.managers = 1, .name = "not/a/name"}); }), EINVAL);
	cr_assert_neq(error_of([] { dict d({.managers = 1, .memory = std::size_t{1} << 46}); }), 0);
}

// "0-3,8", as the kernel says it of a process.
static std::string cpus_of(pid_t pid)
{
	std::ifstream in("/proc/" + std::to_string(pid) + "/status");

	for (std::string line; std::getline(in, line);)
		if (line.starts_with("Cpus_allowed_list:"))
			return line.substr(line.find_first_not_of("\t ", line.find(':') + 1));
	return "";
}

static std::vector<std::string> cpus_of_managers(const ch::ddict_core &d)
{
	std::vector<std::string> all;

	for (unsigned m = 0; m < d.managers(); m++) {
		d.directed(m).size(); // it runs where it is to
		all.push_back(cpus_of(ch_peer_pid(d.manager_peer(m))));
	}
	return all;
}

static std::vector<std::string> my_cpus()
{
	std::vector<std::string> all;
	cpu_set_t set;

	sched_getaffinity(0, sizeof(set), &set);
	for (unsigned n = 0; n < CPU_SETSIZE; n++)
		if (CPU_ISSET(n, &set))
			all.push_back(std::to_string(n));
	return all;
}

Test(ddict_handle, managers_run_where_they_are_placed)
{
	const std::vector<std::string> cpus = my_cpus();
	const std::string first = cpus.front(), last = cpus.back(), mine = cpus_of(getpid());

	for (const auto policy : {ch::ddict_placement::compact, ch::ddict_placement::spread}) {
		const ddict<int, int> d({.managers = static_cast<unsigned>(cpus.size()), .placement = policy});
		const std::vector<std::string> got = cpus_of_managers(d.core());

		cr_assert_eq(std::set<std::string>(got.begin(), got.end()), std::set<std::string>(cpus.begin(), cpus.end()));
	}
	const ddict<int, int> d({.managers = 3, .cpus = {first, last}});
	cr_assert_eq(cpus_of_managers(d.core()), (std::vector<std::string>{first, last, first}));
	const ch_peer dead = d.core().manager_peer(1);
	kill(ch_peer_pid(dead), SIGKILL);
	AWAIT(d.core().manager_peer(1).id != dead.id);
	cr_assert_eq(error_of([&] { d.manager(1).size(); }), EOWNERDEAD);
	cr_assert_eq(cpus_of_managers(d.core()), (std::vector<std::string>{first, last, first}));
	cr_assert_eq(cpus_of_managers(ddict<int, int>({.managers = 2}).core()), (std::vector<std::string>{mine, mine}));
	cr_assert_eq(cpus_of(getpid()), mine);
}

Test(ddict_handle, places_that_cannot_be)
{
	for (const char *bad : {"", "x", "1-", "3-1", "0,", "0 1", "1024", "-1", "1023"})
		cr_assert_eq(error_of([&] { ddict<int, int>({.managers = 1, .cpus = {bad}}); }), EINVAL, "%s", bad);
	cr_assert_eq(error_of([] { ddict<int, int>({.placement = ch::ddict_placement::spread, .cpus = {my_cpus()[0]}}); }),
		     EINVAL);
}

Test(ddict_handle, a_dictionary_ends_with_the_last_copy_of_its_creators_handle)
{
	std::set<std::string> files;
	ch::descriptor there;

	{
		ddict<int, int> copy;
		{
			ddict<int, int> d({.managers = 2});
			there = d.descr();
			copy = d;
			d.put(1, 1);
		}
		cr_assert_eq(copy.get(1), 1);
		files = mapped_segments();
		cr_assert_geq(files.size(), 4u); // directory, control, one of each manager
	}
	cr_assert(exist_no_more(files));
	cr_assert_neq(error_of([&] { ch::ddict_core::attach(there); }), 0);
}

Test(ddict_handle, users_of_a_destroyed_dictionary_get_an_error)
{
	ddict<int, int> d({.managers = 2});
	auto other = ddict<int, int>::attach(d.descr());

	other.put(1, 1);
	d.destroy();
	cr_assert_eq(error_of([&] { other.get(1); }), ESTALE);
	cr_assert_neq(error_of([&] { other.get(1); }), 0); // attaches anew, and finds nothing
	cr_assert_eq(error_of([&] { d.get(1); }), EINVAL);
}

Test(ddict_handle, managers_end_with_their_dictionary)
{
	std::vector<ch_peer> peers;

	{
		ddict<int, int> d({.managers = 3});

		for (unsigned m = 0; m < 3; m++) {
			peers.push_back(d.core().manager_peer(m));
			cr_assert(ch_peer_is_alive(peers.back()));
		}
	}
	for (const ch_peer &p : peers)
		cr_assert(!ch_peer_is_alive(p));
}

Test(ddict_handle, two_dictionaries_do_not_meet)
{
	ddict<std::string, int> a({.managers = 2}), b({.managers = 1});

	for (int i = 0; i < 100; i++) {
		a.put(std::to_string(i), i);
		b.put(std::to_string(i), -i);
	}
	cr_assert_eq(a.get("77"), 77);
	cr_assert_eq(b.get("77"), -77);
	cr_assert_eq(a.clear(), 100u);
	cr_assert_eq(b.size(), 100u);
}

Test(ddict_handle, many_dictionaries_one_after_another_leave_nothing)
{
	const std::set<std::string> before = mapped_segments();

	for (int i = 0; i < 50; i++) {
		ddict<int, int> d({.managers = 1, .memory = 1 << 20, .max_clients = 4});

		d.put(i, i);
		cr_assert_eq(d.get(i), i);
	}
	cr_assert_eq(mapped_segments(), before);
}

Test(ddict_handle, a_shipped_handle_attaches_once_for_ten_thousand_tasks)
{
	ddict<std::string, std::uint64_t> d({.managers = 2});
	const std::vector<std::byte> shipped = ch::archive::to_bytes(d);

	const pid_t child = start_child([&] {
		std::set<std::string> first;

		for (int i = 0; i < 10000; i++) {
			const auto mine = ch::archive::read<ddict<std::string, std::uint64_t>>(shipped);

			mine.fetch_add("tasks", 1);
			if (i == 0)
				first = mapped_segments();
		}
		return mapped_segments() == first;
	});
	cr_assert_eq(child_end(child), 0);
	cr_assert_eq(d.get("tasks"), 10000u);
}

Test(ddict_handle, a_handle_may_be_an_argument_among_others)
{
	ddict<int, std::string> d({.managers = 1});
	const auto bytes = ch::archive::to_bytes(std::string("before"), d, 42);
	const auto [text, e, n] = ch::archive::read<std::string, ddict<int, std::string>, int>(bytes);

	e.put(n, text);
	cr_assert_eq(d.get(42), "before");
}

Test(ddict_handle, a_fork_of_the_creator_does_not_end_the_dictionary)
{
	auto *d = new ddict<int, int>({.managers = 2});

	d->put(1, 1);
	const pid_t child = start_child([&] {
		d->put(2, 2);
		delete d; // the child's copy of the owning handle
		return true;
	});
	cr_assert_eq(child_end(child), 0);
	cr_assert_eq(d->get(1), 1);
	cr_assert_eq(d->get(2), 2);
	delete d;
}

Test(ddict_handle, a_fork_before_the_first_use_does_not_end_it_either)
{
	auto *d = new ddict<int, int>({.managers = 1});
	const pid_t child = start_child([&] {
		delete d;
		return true;
	});

	cr_assert_eq(child_end(child), 0);
	d->put(1, 1);
	cr_assert_eq(d->get(1), 1);
	delete d;
}

Test(ddict_handle, grandchildren_use_an_inherited_handle)
{
	ddict<int, int> d({.managers = 2});

	d.put(0, 1);
	const pid_t child = start_child([&] {
		d.put(1, d.get(0) + 1);
		const pid_t grandchild = start_child([&] {
			d.put(2, d.get(1) + 1);
			return true;
		});
		return child_end(grandchild) == 0 && d.get(2) == 3;
	});
	cr_assert_eq(child_end(child), 0);
	cr_assert_eq(d.get(2), 3);
}

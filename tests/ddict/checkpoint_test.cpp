// SPDX-License-Identifier: Apache-2.0
// checkpoint_test.cpp - the working set, by a table of cases: what each read sees at each checkpoint, what retires
// when, and which writes wait. The rules are in libddict(7), CHECKPOINTS.
#include "ddict_support.hpp"

using namespace std::chrono_literals;

TestSuite(ddict_checkpoint, .timeout = WATCHDOG_S);

namespace {

// "put a 1 @2" a=1 at checkpoint 2, "pput" persistent, "erase a @2", "get a @2 1" reads 1; instead of a value:
// none, retired, late (it waits: nothing came in time). "size @2 3", "has a @2 yes", "set @2 1...4": oldest and newest.
struct scenario {
	const char *name;
	ch::ddict_options options;
	std::vector<std::string> steps;
};

ch::ddict_options plain(std::uint64_t working_set)
{
	return {.managers = 1, .memory = 1 << 20, .working_set = working_set};
}
ch::ddict_options keys_of(std::uint64_t working_set)
{
	return {.managers = 1, .memory = 1 << 20, .working_set = working_set, .wait_for_keys = true};
}

const std::vector<scenario> scenarios = {
	{"a working set of one holds one checkpoint",
	 plain(1),
	 {"put a 1 @0", "get a @0 1", "put a 2 @1", "get a @1 2", "get a @0 retired", "put a 3 @0 retired",
	  "set @1 1...1"}},
	{"keys move on to the next checkpoint",
	 plain(1),
	 {"put a 1 @0", "put b 2 @1", "get a @1 1", "size @1 2", "put c 3 @7", "get a @7 1", "get b @7 2",
	  "size @7 3"}},
	{"a read looks backwards",
	 plain(4),
	 {"put a 0 @0", "put a 2 @2", "get a @0 0", "get a @1 0", "get a @2 2", "get a @3 2", "set @0 0...2"}},
	{"a read beyond the newest sees the newest",
	 plain(2),
	 {"put a 0 @0", "get a @9 0", "set @0 0...0", "get b @9 none"}},
	{"a key is not there before it was put",
	 plain(4),
	 {"put a 0 @0", "put b 1 @1", "get b @0 none", "get b @1 1", "size @0 1", "size @1 2", "has b @0 no",
	  "has b @1 yes"}},
	{"an old checkpoint can be written as long as it is held",
	 plain(3),
	 {"put a 0 @0", "put a 2 @2", "put a 1 @1", "get a @0 0", "get a @1 1", "get a @2 2", "put b 0 @0",
	  "get b @2 0"}},
	{"the oldest retires when one more comes",
	 plain(3),
	 {"put a 0 @0", "put a 1 @1", "put a 2 @2", "get a @0 0", "put b 3 @3", "get a @0 retired", "get a @1 1",
	  "set @3 1...3"}},
	{"a jump retires all that are too old",
	 plain(3),
	 {"put a 0 @0", "put a 1 @1", "put b 9 @9", "get a @1 retired", "get a @6 retired", "get a @7 1",
	  "set @9 7...9"}},
	{"an erased key stays at older checkpoints",
	 plain(3),
	 {"put a 0 @0", "erase a @1 yes", "get a @0 0", "get a @1 none", "get a @2 none", "size @0 1", "size @1 0",
	  "erase a @1 no", "put a 2 @2", "get a @1 none", "get a @2 2", "put b 3 @3", "get a @1 none", "put b 4 @4",
	  "get a @2 2"}},
	{"an erased key is gone when its last checkpoint retires",
	 plain(2),
	 {"put a 0 @0", "erase a @1 yes", "put b 2 @2", "put b 3 @3", "get a @3 none", "size @3 1", "put a 9 @3",
	  "get a @2 none"}},
	{"a deletion at the oldest checkpoint leaves newer values",
	 plain(3),
	 {"put a 0 @0", "put a 1 @1", "erase a @0 yes", "get a @0 none", "get a @1 1", "size @0 0", "size @1 1"}},
	{"roll back and write again",
	 plain(3),
	 {"put a 0 @0", "put a 1 @1", "put a 8 @0", "get a @0 8", "get a @1 1", "put a 9 @1", "get a @1 9",
	  "get a @2 9"}},
	{"values of every length have versions",
	 plain(3),
	 {"put a L0 @0", "put a L1 @1", "put a 2 @2", "get a @0 L0", "get a @1 L1", "get a @2 2", "put a L3 @3",
	  "get a @1 L1", "get a @3 L3", "put a L4 @2", "get a @2 L4"}},
	{"keys that are waited for hold back their checkpoint",
	 keys_of(2),
	 {"put a 0 @0", "put b 0 @0", "put a 1 @1", "put a 2 @2 late", "set @0 0...1", "put b 1 @1", "put a 2 @2",
	  "set @0 1...2"}},
	{"persistent keys are not waited for",
	 keys_of(2),
	 {"pput p 5 @0", "put a 0 @0", "put a 1 @1", "put a 2 @2", "get p @2 5", "get p @1 5", "set @0 1...2"}},
	{"an erased key is not waited for",
	 keys_of(2),
	 {"put a 0 @0", "put b 0 @0", "put a 1 @1", "erase b @1 yes", "put a 2 @2", "set @0 1...2"}},
	{"a read waits for its own checkpoint's value",
	 keys_of(3),
	 {"put a 0 @0", "get a @1 late", "has a @1 no", "put a 1 @1", "get a @1 1", "get z @0 late", "pput p 5 @0",
	  "get p @2 5"}},
	{"what cannot wait: both need two checkpoints", plain(2), {"put a 0 @0"}},
};

std::string value_of(const std::string &word)
{
	return word[0] == 'L' ? whole_value(static_cast<std::uint64_t>(word[1]), 100000) : word;
}

std::vector<std::string> words_of(const std::string &step)
{
	std::vector<std::string> words;

	for (std::size_t at = 0; at < step.size();) {
		const std::size_t end = std::min(step.find(' ', at), step.size());

		words.push_back(step.substr(at, end - at));
		at = end + 1;
	}
	return words;
}

// What the step did, in the words of the table.
std::string outcome_of(const ddict<std::string, std::string> &d, std::vector<std::string> w)
{
	const auto at = std::find_if(w.begin(), w.end(), [](const std::string &s) { return s[0] == '@'; });

	d.set_checkpoint(std::stoull(at->substr(1)));
	try {
		if (w[0] == "put" || w[0] == "pput") {
			d.put(w[1], value_of(w[2]), {.ttl = {}, .persistent = w[0] == "pput"});
			return "";
		}
		if (w[0] == "get") {
			const auto v = d.try_get(w[1]);

			return !v                 ? "none"
			       : v->size() > 1000 ? "L" + std::string(1, is_whole(*v, '0')   ? '0'
									 : is_whole(*v, '1') ? '1'
									 : is_whole(*v, '3') ? '3'
											     : '4')
						  : *v;
		}
		if (w[0] == "erase")
			return d.erase(w[1]) ? "yes" : "no";
		if (w[0] == "has")
			return d.contains(w[1]) ? "yes" : "no";
		if (w[0] == "size")
			return std::to_string(d.size());
		const ch::ddict_stats s = d.stats()[0];
		return std::to_string(s.oldest) + "..." + std::to_string(s.newest);
	} catch (const ch::error &e) {
		return e.code().value() == ERANGE ? "retired" : e.code().value() == ETIMEDOUT ? "late" : e.what();
	}
}

} // namespace

Test(ddict_checkpoint, every_case_of_the_table)
{
	for (const scenario &s : scenarios) {
		const ddict<std::string, std::string> owner(s.options);
		const auto hurried = owner.within(30ms);

		for (const std::string &step : s.steps) {
			const std::vector<std::string> w = words_of(step);
			const std::string wanted = w.back()[0] == '@' ? "" : w.back();
			const std::string got = outcome_of(wanted == "late" ? hurried : owner, w);

			cr_expect_eq(got, wanted, "%s: \"%s\" gave \"%s\"", s.name, step.c_str(), got.c_str());
		}
	}
}

Test(ddict_checkpoint, a_put_that_waits_for_keys_goes_on_when_they_are_there)
{
	ddict<std::string, int> d(keys_of(2));

	d.put("a", 0);
	d.put("b", 0);
	d.checkpoint();
	d.put("a", 1);
	ddict<std::string, int> ahead = d;
	ahead.checkpoint();
	std::jthread waits([&] { ahead.put("a", 2); });
	AWAIT(d.stats()[0].waiting == 1);
	d.put("b", 1);
	waits.join();
	cr_assert_eq(ahead.get("a"), 2);
	cr_assert_eq(d.get("b"), 1);
}

// Each client writes at each checkpoint; the fastest waits for the slowest.
Test(ddict_checkpoint, writers_are_waited_for)
{
	ddict<std::string, int> d({.managers = 1, .working_set = 2, .wait_for_writers = true});
	struct board *b = board_new();
	const pid_t slow = start_child([&] {
		for (int i = 0; i < 3; i++) {
			d.put("slow", i);
			post(b, 0);
			await_post(b, 1 + i);
			d.checkpoint();
		}
		d.put("slow", 3);
		post(b, 0);
		wait_to_be_killed();
		return true;
	});

	await_post(b, 0);
	d.put("fast", 0);
	d.checkpoint();
	d.put("fast", 1);
	d.checkpoint();
	cr_assert_eq(error_of([&] { d.within(30ms).put("fast", 2); }), ETIMEDOUT);
	post(b, 1);
	AWAIT(posted(b, 0) == 2);
	d.put("fast", 2);
	post(b, 2);
	post(b, 3);
	AWAIT(posted(b, 0) == 4);
	d.set_checkpoint(5);
	cr_assert_eq(error_of([&] { d.within(30ms).put("fast", 5); }), ETIMEDOUT);
	child_kill(slow);
	d.put("fast", 5); // nobody waits for the dead
	munmap(b, sizeof(*b));
}

Test(ddict_checkpoint, a_newcomer_finds_the_newest)
{
	ddict<int, int> d({.managers = 3, .working_set = 2});

	for (int i = 0; i < 10; i++) {
		d.put(i, i);
		d.checkpoint();
	}
	const auto other = ddict<int, int>::attach(d.descr());
	cr_assert_eq(other.checkpoint_id(), 0u);
	cr_assert_eq(other.sync_to_newest_checkpoint(), 9u);
	for (int i = 0; i < 10; i++)
		cr_assert_eq(other.get(i), i);
	cr_assert_eq(other.rollback(), 8u);
	cr_assert_eq(other.checkpoint(), 9u);
}

Test(ddict_checkpoint, retired_values_leave_no_memory_behind)
{
	ddict<int, std::string> d({.managers = 1, .memory = 16 << 20, .working_set = 3});
	const auto used = [&] { return d.stats()[0].used; };

	d.put(-1, "x");
	d.checkpoint();
	d.put(-1, "x"); // both are held
	const std::uint64_t before = used();
	for (int c = 0; c < 50; c++) {
		for (int k = 0; k < 20; k++)
			if ((c + k) % 3)
				d.put(k, whole_value(1, k % 2 ? 50 : 50000));
			else
				d.erase(k);
		d.checkpoint();
	}
	for (int k = 0; k < 20; k++)
		d.erase(k);
	d.set_checkpoint(100);
	d.put(-1, "x");
	cr_assert_eq(d.size(), 1u);
	cr_assert_eq(used(), before);
}

Test(ddict_checkpoint, options_that_cannot_be)
{
	cr_assert_eq(error_of([] { ddict<int, int>({.managers = 1, .working_set = 1, .wait_for_keys = true}); }),
		     EINVAL);
	cr_assert_eq(error_of([] { ddict<int, int>({.managers = 1, .wait_for_writers = true}); }), EINVAL);
	cr_assert_eq(error_of([] { ddict<int, int>({.managers = 1, .working_set = 1000000}); }), EINVAL);
}

Test(ddict_checkpoint, a_read_only_dictionary_refuses_writes)
{
	ddict<int, int> d({.managers = 1, .read_only = true});

	cr_assert_eq(error_of([&] { d.put(1, 1); }), EPERM);
	cr_assert_eq(d.size(), 0u);
}

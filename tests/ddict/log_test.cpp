// SPDX-License-Identifier: Apache-2.0
// log_test.cpp - the log: what was flushed is there after everybody was killed at any instant, after every cut of the
// last record, and after a manager's death; damage is told from an end. CH_TEST_KILLS=500 for the long run.
#include "persist_support.hpp"
#include <map>

TestSuite(ddict_log, .timeout = WATCHDOG_S);

namespace {

ch::ddict_options logged(const scratch &s, unsigned managers, std::uint64_t from = ch::ddict_nothing)
{
	ch::ddict_options o = with(s, managers, from);

	o.persist_log = true;
	return o;
}

using model = std::map<std::string, std::string>;

model contents(const text_dict &d)
{
	model m;

	for (const auto &[k, v] : d)
		m[k] = v;
	return m;
}

// Some of every kind of change, in the dictionary and in the model.
void change(const text_dict &d, model &m, std::uint64_t &seed)
{
	const std::string key = "key" + std::to_string(rnd(&seed) % 60);
	const std::string value = whole_value(rnd(&seed), rnd(&seed) % 20 ? rnd(&seed) % 100 : 30000);

	switch (rnd(&seed) % 8) {
	case 0:
		d.erase(key);
		m.erase(key);
		break;
	case 1:
		d.append(key, value);
		m[key] += value;
		break;
	case 2:
		d.pop(key);
		m.erase(key);
		break;
	case 3:
		d.put_many(model{{key, value}, {key + "b", "batch"}});
		m[key] = value;
		m[key + "b"] = "batch";
		break;
	case 4:
		if (rnd(&seed) % 20 == 0) {
			d.clear();
			m.clear();
		}
		break;
	default:
		d.put(key, value);
		m[key] = value;
	}
}

} // namespace

Test(ddict_log, what_was_written_is_there_again_with_any_number_of_managers)
{
	const scratch s;
	std::uint64_t seed = test_seed();
	model m;
	std::uint64_t from = ch::ddict_nothing;

	for (const unsigned managers : {2u, 2u, 3u, 1u}) {
		const text_dict d(logged(s, managers, from));

		cr_assert(contents(d) == m, "%u managers", managers);
		for (int i = 0; i < 300; i++)
			change(d, m, seed);
		d.flush();
		from = ch::ddict_log;
		cr_assert_eq(files_of(s, "log.").size(), managers + 1);
	}
}

Test(ddict_log, a_log_is_not_overwritten_unasked)
{
	const scratch s;

	{
		const text_dict d(logged(s, 1));

		d.put("a", "b");
	}
	cr_assert_eq(error_of([&] { text_dict d(logged(s, 1)); }), EEXIST);
	const text_dict d(logged(s, 1, ch::ddict_log)); // ended in good order: all is there
	cr_assert_eq(d.get("a"), "b");
}

Test(ddict_log, versions_of_a_working_set_come_back)
{
	const scratch s;
	const auto made = [&](std::uint64_t from) {
		ch::ddict_options o = logged(s, 2, from);

		o.working_set = 3;
		return text_dict(o);
	};
	const auto is_right = [](const text_dict &d) {
		const char *const a[] = {"1", "2", "2"};

		for (std::uint64_t c = 1; c <= 3; c++) {
			d.set_checkpoint(c);
			if (d.get_or("a", "none") != a[c - 1] || d.contains("b") != (c < 3))
				return false;
		}
		d.set_checkpoint(0);
		return error_of([&] { d.get("a"); }) == ERANGE;
	};
	{
		const text_dict d = made(ch::ddict_nothing);

		for (const char *v : {"0", "1", "2"}) {
			d.put("a", v);
			d.put("b", v);
			d.checkpoint();
		}
		d.erase("b");
		for (unsigned m = 0; m < 2; m++)
			d.manager(m).put("c", "x"); // both are at 3
		cr_assert(is_right(d));
		d.flush();
	}
	for (int i = 0; i < 2; i++)
		cr_assert(is_right(made(ch::ddict_log)));
}

Test(ddict_log, restoring_a_checkpoint_is_logged)
{
	const scratch s;

	{
		const text_dict d(logged(s, 2));

		d.put("a", "old");
		d.put("x", "old");
		d.persist();
		d.put("a", "new");
		d.erase("x");
		d.put("y", "new");
		d.flush();
		d.restore(0);
		d.put("z", "later");
		d.flush();
	}
	const text_dict d(logged(s, 2, ch::ddict_log));
	cr_assert(contents(d) == (model{{"a", "old"}, {"x", "old"}, {"z", "later"}}));
}

namespace {

std::string value_in(std::uint64_t round)
{
	return round ? std::to_string(round) + whole_value(round, 300) : "none";
}

// Rounds of puts, the board's first value is the last one that was flushed.
bool write_rounds(const ch::ddict_options &o, std::uint64_t from, struct board *b)
{
	const text_dict d(o);

	b->value[0] = static_cast<std::int64_t>(from);
	post(b, 0);
	for (std::uint64_t round = from + 1;; round++) {
		for (int k = 0; k < 50; k++)
			d.put("key" + std::to_string(k), value_in(round));
		d.append("rounds", "x");
		d.flush();
		__atomic_store_n(&b->value[0], static_cast<std::int64_t>(round), __ATOMIC_SEQ_CST);
	}
}

} // namespace

// A process with its managers, killed at any instant while it writes. The round that was under way may be there in
// part, and where: each manager has its own log. What was found then is what the next one begins with.
Test(ddict_log, what_was_flushed_survives_the_death_of_everybody, .timeout = 10 * WATCHDOG_S)
{
	const char *given = getenv("CH_TEST_KILLS");
	std::uint64_t seed = test_seed();
	const scratch s;
	std::uint64_t rounds = 0, found[50] = {}; // of each key

	for (int i = 0; i < (given ? atoi(given) : 4); i++) {
		struct board *b = board_new();
		const std::uint64_t from = i ? ch::ddict_log : ch::ddict_nothing;
		const unsigned managers = 1 + static_cast<unsigned>(rnd(&seed) % 3);
		const pid_t child = start_child([&] { return write_rounds(logged(s, managers, from), rounds, b); });

		AWAIT(posted(b, 0) > 0 || has_ended(child));
		const std::int64_t later = now_ns() + static_cast<std::int64_t>(rnd(&seed) % 30) * MS;

		AWAIT(now_ns() > later);
		cr_assert_eq(child_kill(child), -SIGKILL);
		const auto flushed = static_cast<std::uint64_t>(__atomic_load_n(&b->value[0], __ATOMIC_SEQ_CST));

		munmap(b, sizeof(*b));
		const text_dict d(logged(s, 1 + static_cast<unsigned>(rnd(&seed) % 3), ch::ddict_log));
		for (int k = 0; k < 50; k++) {
			const std::string v = d.get_or("key" + std::to_string(k), "none");
			const std::uint64_t least = flushed > rounds ? flushed : found[k];

			cr_assert(v == value_in(least) || v == value_in(flushed + 1), "key %d, kill %d", k, i);
			found[k] = v == value_in(least) ? least : flushed + 1;
		}
		rounds = d.get_or("rounds", "").size();
		cr_assert(rounds == flushed || rounds == flushed + 1, "%zu of %zu", static_cast<std::size_t>(rounds),
			  static_cast<std::size_t>(flushed));
	}
}

Test(ddict_log, a_manager_that_is_killed_comes_back_with_what_was_flushed)
{
	std::uint64_t seed = test_seed();
	const scratch s;
	const text_dict d(logged(s, 2));
	model m;

	for (int round = 0; round < 3; round++) {
		const unsigned victim = static_cast<unsigned>(rnd(&seed) % 2);

		for (int i = 0; i < 100; i++)
			change(d, m, seed);
		d.flush();
		const ch_peer peer = d.core().manager_peer(victim);
		kill(ch_peer_pid(peer), SIGKILL);
		AWAIT(!ch_peer_is_alive(peer));
		while (error_of([&] { d.manager(victim).size(); }))
			;
		cr_assert(contents(d) == m, "round %d", round);
	}
	d.flush();
}

// Where the records end: behind them there may be zeros, and the last one ends with a letter.
static std::uintmax_t end_of(const std::string &log)
{
	std::ifstream in(log, std::ios::binary);
	const std::string all(std::istreambuf_iterator<char>(in), {});

	return (all.find_last_not_of('\0') + 8) / 8 * 8;
}

// The last record cut at each of its bytes: everything before it is there. And a flip in what a later sync covers is
// damage, not an end.
Test(ddict_log, a_log_ends_before_its_first_record_that_is_not_whole)
{
	const scratch s;
	std::string log;
	std::uintmax_t before = 0, after = 0;

	{
		const text_dict d(logged(s, 1));

		log = s.dir() + "/" + files_of(s, ".0.")[0];
		d.put("first", "1");
		d.flush();
		d.put("second", "2"); // and that the first one is durable
		d.flush();
		before = end_of(log);
		d.put("last", "3");
		d.flush();
		after = end_of(log);
		fs::copy(s.dir(), s.path + "/kept", fs::copy_options::recursive);
	}
	log = s.dir() + "/" + fs::path(log).filename().string();
	const auto again = [&] {
		fs::remove_all(s.dir());
		fs::copy(s.path + "/kept", s.dir(), fs::copy_options::recursive);
	};
	cr_assert(after - before < 400);
	const text_dict d({.managers = 1, .read_only = true, .persist_path = s.dir()});
	for (std::uintmax_t len = before; len <= after; len++) {
		again();
		fs::resize_file(log, len);
		d.restore(ch::ddict_log);
		cr_assert_eq(d.get("second"), "2");
		cr_assert_eq(d.contains("last"), len == after, "%ju of %ju to %ju", len, before, after);
	}
	again();
	std::fstream io(log, std::ios::in | std::ios::out | std::ios::binary);
	std::string all(std::istreambuf_iterator<char>(io), {});
	io.seekp(static_cast<std::streamoff>(all.find("first")));
	io.put('F');
	io.close();
	const std::string why = text_of([&] { d.restore(ch::ddict_log); });
	cr_assert(why.find(log) != std::string::npos && why.find("damaged") != std::string::npos, "%s", why.c_str());
}

Test(ddict_log, a_log_that_cannot_be_written_is_begun_anew)
{
	const scratch s;

	{
		const text_dict d(logged(s, 1));

		forbid_large_files(d.core(), 1 << 20);
		d.put("a", "b");
		d.flush();
		d.put("big", std::string(2 << 20, 'x'));
		const std::string why = text_of([&] { d.flush(); });
		cr_assert(why.find(s.dir() + "/log.") != std::string::npos, "%s", why.c_str());
		cr_assert_neq(error_of([&] { d.flush(); }), 0);
		d.erase("big");
		d.put("c", "d");
		d.flush();
	}
	const text_dict d(logged(s, 1, ch::ddict_log));
	cr_assert(contents(d) == (model{{"a", "b"}, {"c", "d"}}));
}

// Grown to twice its base and 64 MiB, a log is begun anew while writes go on; what was flushed is there.
Test(ddict_log, a_long_log_is_begun_anew)
{
	const scratch s;
	const std::string value = whole_value(7, 1 << 20);

	{
		const text_dict d(logged(s, 1));

		for (int i = 0; i < 100; i++) {
			d.put("big" + std::to_string(i % 3), value);
			d.put("small" + std::to_string(i), std::to_string(i));
		}
		d.flush();
		AWAIT((d.put("x", "x"), d.flush(),
		       files_of(s, ".0.").size() == 1 &&
			       fs::file_size(s.dir() + "/" + files_of(s, ".0.")[0]) < 64 << 20));
	}
	const text_dict d(logged(s, 1, ch::ddict_log));
	cr_assert_eq(d.size(), 104u);
	cr_assert_eq(d.get("big2"), value);
	cr_assert_eq(d.get("small99"), "99");
}

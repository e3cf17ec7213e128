// SPDX-License-Identifier: Apache-2.0
// replica_test.cpp - keys that are with two managers, of which one is killed at any instant: no acknowledged write is
// lost, and nothing is done twice. CH_TEST_KILLS=500 for the long run.
#include "ddict_support.hpp"
#include <atomic>
#include <map>

TestSuite(ddict_replica, .timeout = 10 * WATCHDOG_S);

static void kill_manager(const ch::ddict_core &d, unsigned m)
{
	const ch_peer peer = d.manager_peer(m);

	kill(ch_peer_pid(peer), SIGKILL);
	AWAIT(!ch_peer_is_alive(peer));
}

namespace {

// Text that does something when it is read.
struct touchy {
	std::string text;
	static inline std::function<void()> when_read;
};

} // namespace

template <> struct ch::ddict_codec<touchy> {
	static std::size_t size(const touchy &t) { return t.text.size(); }
	static void write(std::span<std::byte> to, const touchy &t) { memcpy(to.data(), t.text.data(), to.size()); }
	static touchy read(std::span<const std::byte> from)
	{
		const touchy t{{reinterpret_cast<const char *>(from.data()), from.size()}};

		if (const auto f = std::exchange(touchy::when_read, nullptr))
			f();
		return t;
	}
};

// What is read of a manager that dies meanwhile counts for nothing: the key is gone when the successor is asked.
Test(ddict_replica, a_value_that_went_while_it_was_read)
{
	const std::string large(30000, 'x');

	for (const bool was_shown : {false, true}) {
		const ddict<int, touchy> d({.managers = 2, .replicas = 2});
		const auto kill_and_erase = [&](int k) {
			return [&d, k] {
				const unsigned m = d.which_manager(k);
				const ch_peer dead = d.core().manager_peer(m);

				kill_manager(d.core(), m);
				AWAIT(d.core().manager_peer(m).id != dead.id);
				d.erase(k);
			};
		};

		for (int k = 0; k < 4; k++) {
			d.put(k, {large});
			if (was_shown)
				cr_assert_eq(d.get(k).text, large);
		}
		touchy::when_read = kill_and_erase(0);
		cr_assert(!d.try_get(0));
		touchy::when_read = kill_and_erase(1);
		cr_assert_eq(d.get_or(1, {"none"}).text, "none");
		touchy::when_read = kill_and_erase(2);
		const auto many = d.get_many(std::vector<int>{2});
		cr_assert(!many[0]);
		auto later = d.get_async(3);
		later.wait();
		touchy::when_read = kill_and_erase(3);
		cr_assert_eq(error_of([&] { later.get(); }), EOWNERDEAD);
		cr_assert_eq(d.size(), 0u);
	}
}

// Until it serves and, having been asked for something behind them, has sent its own and got its neighbour's copies.
static void await_health(const ddict<int, std::string> &d)
{
	d.size();
	for (unsigned m = 0; m < d.managers(); m++)
		d.manager(m).put_if_absent(-1000, "x");
	for (unsigned m = 0; m < d.managers(); m++)
		d.manager(m).contains(-1000);
}

Test(ddict_replica, a_manager_that_died_comes_back_with_its_keys)
{
	for (const unsigned managers : {2u, 3u}) {
		ddict<int, std::string> d({.managers = managers, .memory = 64 << 20, .replicas = 2});
		std::map<int, std::string> model;

		for (int k = 0; k < 500; k++)
			d.put(k, model[k] = whole_value(static_cast<std::uint64_t>(k), k % 50 ? k : 30000 + k));
		for (int round = 0; round < 6; round++) {
			kill_manager(d.core(), static_cast<unsigned>(round) % managers);
			for (const auto &[k, v] : model)
				cr_assert_eq(d.get(k), v, "round %d key %d", round, k);
			cr_assert_eq(d.size(), model.size());
			for (int k = round; k < 500; k += 7)
				d.put(k, model[k] = whole_value(static_cast<std::uint64_t>(round), 100));
			d.erase(round + 100);
			model.erase(round + 100);
		}
		for (const ch::ddict_stats &s : d.stats())
			cr_assert_eq(s.lost, 0u);
	}
}

Test(ddict_replica, every_kind_of_write_is_with_both)
{
	ddict<std::string, std::string> d({.managers = 2, .working_set = 3, .replicas = 2});
	const ddict<std::string, long> n{d.core()};

	d.put("put", "v");
	d.put("large", whole_value(1, 50000));
	d.put("gone", "x");
	d.erase("gone");
	d.put("popped", "x");
	d.pop("popped");
	d.put_if_absent("absent", "a");
	d.put("cas", "1");
	d.compare_and_set("cas", "1", "2");
	d.append("app", "ab");
	d.append("app", "cd");
	n.fetch_add("n", 5);
	n.fetch_add("n", 5);
	std::map<std::string, std::string> many;
	for (int i = 0; i < 100; i++)
		many["m" + std::to_string(i)] = std::to_string(i);
	d.put_many(many);
	d.checkpoint();
	d.put("put", "w");
	d.erase("cas");
	for (unsigned m = 0; m < 2; m++) {
		kill_manager(d.core(), m);
		cr_assert_eq(d.checkpoint_id(), 1u);
		cr_assert_eq(d.get("put"), "w");
		cr_assert_not(d.contains("cas"));
		d.rollback();
		cr_assert_eq(d.get("put"), "v");
		cr_assert_eq(d.get("cas"), "2");
		cr_assert_eq(d.get("large"), whole_value(1, 50000));
		cr_assert_not(d.contains("gone"));
		cr_assert_not(d.contains("popped"));
		cr_assert_eq(d.get("absent"), "a");
		cr_assert_eq(d.get("app"), "abcd");
		cr_assert_eq((ddict<std::string, long>{d.core()}.get("n")), 10);
		for (const auto &[k, v] : many)
			cr_assert_eq(d.get(k), v);
		d.checkpoint();
		// Its neighbour's copies come back too, before the neighbour dies.
		for (int i = 0; i < 3; i++)
			d.size();
		const timespec nap = {0, 50000000};
		nanosleep(&nap, nullptr);
	}
	d.clear();
	kill_manager(d.core(), 0);
	cr_assert_eq(d.size(), 0u);
}

// Counters: each addition that was acknowledged is there, and none is there twice. One process adds and another puts
// growing numbers, while managers are killed, one after the other has its copies again.
Test(ddict_replica, no_acknowledged_write_is_lost_when_managers_are_killed)
{
	const char *given = getenv("CH_TEST_KILLS");
	const int kills = given ? atoi(given) : 25;
	constexpr int nr = 16;
	std::uint64_t seed = test_seed();
	ddict<int, std::int64_t> d({.managers = 3, .memory = 16 << 20, .replicas = 2});
	struct board *b = board_new();
	const auto work = [&](int first) {
		std::int64_t mine[nr] = {};

		for (int i = 0; posted(b, 1) == 0; i++) {
			const int k = first + i % nr;
			const std::int64_t old = d.fetch_add(k, 1);

			if (old != mine[i % nr]++) {
				fprintf(stderr, "key %d had %lld, not %lld\n", k, (long long)old,
					(long long)mine[i % nr] - 1);
				return false;
			}
			d.put(1000 + k, mine[i % nr]);
			if (i == 10)
				post(b, 0);
		}
		for (int i = 0; i < nr; i++)
			if (d.get_or(first + i, 0) != mine[i] || d.get_or(1000 + first + i, 0) != mine[i]) {
				fprintf(stderr, "key %d: %lld and %lld of %lld\n", first + i,
					(long long)d.get_or(first + i, 0), (long long)d.get_or(1000 + first + i, 0),
					(long long)mine[i]);
				return false;
			}
		return true;
	};
	const pid_t one = start_child([&] { return work(0); }), two = start_child([&] { return work(100); });

	AWAIT(posted(b, 0) == 2);
	for (int i = 0; i < kills; i++) {
		const unsigned m = static_cast<unsigned>(rnd(&seed) % 3);
		const timespec nap = {0, static_cast<long>(rnd(&seed) % 3000000)};

		nanosleep(&nap, nullptr);
		kill_manager(d.core(), m);
		await_health(ddict<int, std::string>{d.core()});
	}
	post(b, 1);
	cr_expect_eq(child_end(one), 0);
	cr_expect_eq(child_end(two), 0);
	munmap(b, sizeof(*b));
}

static std::uint64_t nr_single(const ddict<int, std::string> &d)
{
	std::uint64_t sum = 0;

	for (const ch::ddict_stats &s : d.stats())
		sum += s.single;
	return sum;
}

// A key whose copy has no room is not put, as if its own manager were full; and what was acknowledged has two replicas.
// Manager 0 and its neighbour 1, which has keys of its own, are filled in turn; then one after the other is killed.
Test(ddict_replica, a_full_neighbour_is_as_a_full_owner)
{
	std::uint64_t seed = test_seed();

	for (const std::size_t len : {100, 40000}) {
		ddict<int, std::string> d({.managers = 3, .memory = 600 << 10, .replicas = 2});
		std::map<int, std::string> model;
		int refused[2] = {};

		for (int k = 0; refused[0] < 5 || refused[1] < 5; k++) {
			const int m = static_cast<int>(rnd(&seed) % 3 == 0);
			const bool is_new = model.empty() || rnd(&seed) % 4;
			const int key = is_new ? 2 * k + m : model.begin()->first;
			const std::string v = whole_value(static_cast<std::uint64_t>(k), len + k % 7);
			const int err = error_of([&] { d.manager(static_cast<unsigned>(key % 2)).put(key, v); });

			cr_assert(err == 0 || err == ENOSPC, "%d", err);
			if (err == 0)
				model[key] = v;
			else
				refused[key % 2]++;
		}
		cr_assert_eq(nr_single(d), 0u);
		for (const unsigned dead : {0u, 1u}) {
			kill_manager(d.core(), dead);
			for (const auto &[k, v] : model)
				cr_assert_eq(d.manager(static_cast<unsigned>(k % 2)).get(k), v, "%d of %zu", k, len);
			AWAIT(nr_single(d) == 0);
		}
	}
}

// Which manager waits for which other does not matter: all put, all are full, one erases.
Test(ddict_replica, puts_wait_for_room_at_a_neighbour)
{
	for (const std::size_t len : {300, 20000}) {
		ddict<int, std::string> d(
			{.managers = 2, .memory = 400 << 10, .when_full = ch::ddict_full::wait, .replicas = 2});
		struct board *b = board_new();
		const auto work = [&](unsigned m) {
			const auto mine = d.manager(m);

			for (int k = 0; k < 200; k++) {
				mine.put(static_cast<int>(m) + 2 * k, whole_value(static_cast<std::uint64_t>(k), len));
				post(b, static_cast<int>(m));
				if (k >= 5 && mine.erase(static_cast<int>(m) + 2 * (k - 5)) != 1)
					return false;
			}
			return true;
		};
		std::set<int> there;

		const auto hasty = d.within(std::chrono::milliseconds(20));

		// Full is not who is slow for once; and what came too late may be there all the same.
		for (int k = 10000, full = 0; full < 5; k++) {
			full = error_of([&] { hasty.put(k, whole_value(1, len)); }) ? full + 1 : 0;
			there.insert(k);
		}
		const pid_t one = start_child([&] { return work(0); }), two = start_child([&] { return work(1); });

		for (const int k : there) // they go on as this goes on
			d.erase(k);
		cr_expect_eq(child_end(one), 0);
		cr_expect_eq(child_end(two), 0);
		for (const int k : there)
			d.erase(k);
		cr_expect_eq(d.size(), 10u);
		munmap(b, sizeof(*b));
	}
}

// Long keys are told to a neighbour that has no room for a message that could hold them.
Test(ddict_replica, long_keys_can_be_erased_when_a_neighbour_is_full)
{
	ddict<std::string, std::string> d({.managers = 2, .memory = 600 << 10, .replicas = 2});
	const auto mine = d.manager(0), other = d.manager(1);
	const auto key = [](int k) { return std::to_string(k) + std::string(5000, 'k'); };

	for (int k = 0; k < 20; k++)
		mine.put(key(k), "v");
	for (int k = 0; error_of([&] { other.put(std::to_string(k), std::string(2000, 'f')); }) == 0; k++)
		;
	for (int k = 0; error_of([&] { other.put(std::to_string(k), std::string(100, 'f')); }) == 0; k++)
		;
	for (int k = 10; k < 20; k++)
		cr_assert(mine.erase(key(k)));
	kill_manager(d.core(), 0);
	cr_assert_eq(mine.size(), 10u);
	for (int k = 0; k < 10; k++)
		cr_assert_eq(mine.get(key(k)), "v");
}

Test(ddict_replica, keys_make_room_for_others_and_for_copies)
{
	ddict<int, std::string> d({.managers = 3, .memory = 3 << 20, .when_full = ch::ddict_full::evict, .replicas = 2});
	std::uint64_t seed = test_seed();
	std::size_t there = 0;

	for (int k = 0; k < 2000; k++)
		d.put(k, whole_value(static_cast<std::uint64_t>(k), rnd(&seed) % 8 ? 1000 : 30000));
	kill_manager(d.core(), 0);
	for (int k = 0; k < 2000; k++)
		if (const auto v = d.try_get(k)) {
			there++;
			cr_assert(is_whole(*v, static_cast<std::uint64_t>(k)));
		}
	cr_assert_gt(there, 200u);
	cr_assert(d.contains(1999));
}

// Keys that make room go from both, and what is left is with both.
Test(ddict_replica, what_was_not_evicted_is_with_both)
{
	for (const std::size_t len : {200, 3000}) {
		ddict<int, std::string> d(
			{.managers = 2, .memory = 1 << 20, .when_full = ch::ddict_full::evict, .replicas = 2});
		std::uint64_t seed = test_seed();
		std::set<int> before;

		for (int k = 0; k < (len < 1000 ? 7000 : 1000); k++) {
			d.manager(rnd(&seed) % 3 == 0).put(k, whole_value(static_cast<std::uint64_t>(k), len));
			if (k % 4 == 0)
				d.manager(0).try_get(0);
		}
		AWAIT(nr_single(d) == 0);
		d.manager(0).freeze();
		for (const int k : d.manager(0).keys())
			before.insert(k);
		kill_manager(d.core(), 0);
		std::size_t missing = 0;
		for (const int k : before) {
			const auto v = d.manager(0).try_get(k);

			missing += !v;
			cr_assert(!v || *v == whole_value(static_cast<std::uint64_t>(k), len));
		}
		// The successor's memory is packed in another order, so that some have to make room.
		cr_expect_leq(missing, d.manager(0).stats()[0].evicted);
		cr_expect_leq(missing, before.size() / 4, "%zu of %zu", missing, before.size());
	}
}

Test(ddict_replica, options_that_cannot_be)
{
	cr_assert_eq(error_of([] { ddict<int, int>({.managers = 1, .replicas = 2}); }), EINVAL);
	cr_assert_eq(error_of([] { ddict<int, int>({.managers = 3, .replicas = 3}); }), EINVAL);
}

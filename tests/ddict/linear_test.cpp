// SPDX-License-Identifier: Apache-2.0
// linear_test.cpp - operations on one key take place one after another: histories of concurrent clients are recorded,
// and for each key an order is searched that explains every answer and agrees with real time (Wing and Gong 1993, with
// the states that were met remembered, after Lowe 2017).
#include "ddict_support.hpp"
#include <ctime>
#include <optional>
#include <unordered_set>

TestSuite(ddict_linear, .timeout = 4 * WATCHDOG_S);

namespace {

enum class kind { put, get, add, erase, cas, absent };

// One call of a client: what it asked, what it was told, and when. Values are numbers; -1 is "no such key".
struct event {
	kind what;
	std::int64_t arg, expected, answer;
	std::int64_t begin, end;
};

constexpr int nr_clients = 4, nr_keys = 3, nr_calls = 45;

struct history {
	event calls[nr_clients][nr_keys][nr_calls];
	int nr[nr_clients][nr_keys];
};

std::int64_t now()
{
	timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return std::int64_t{t.tv_sec} * 1000000000 + t.tv_nsec;
}

// The state after the event if it takes place in this state, or nothing if its answer would be another one.
std::optional<std::int64_t> after(std::int64_t state, const event &e)
{
	const bool is_there = state != -1;

	switch (e.what) {
	case kind::put:
		return e.arg;
	case kind::get:
		return e.answer == state ? std::optional(state) : std::nullopt;
	case kind::add:
		if (e.answer != (is_there ? state : 0))
			return std::nullopt;
		return e.answer + e.arg;
	case kind::erase:
		return e.answer == is_there ? std::optional<std::int64_t>(-1) : std::nullopt;
	case kind::cas:
		if (e.answer != (state == e.expected))
			return std::nullopt;
		return e.answer ? e.arg : state;
	case kind::absent:
		if (e.answer != !is_there)
			return std::nullopt;
		return is_there ? state : e.arg;
	}
	return std::nullopt;
}

// Looks for an order of all events. Of each client the events are in its order, so how far each one is, and the state,
// is all there is to know.
class search {
public:
	explicit search(std::vector<std::vector<event>> h) : all_(std::move(h)), at_(all_.size(), 0) {}
	bool is_linearizable() { return go(-1); }

private:
	bool go(std::int64_t state)
	{
		std::int64_t first_end = INT64_MAX;
		bool is_done = true;

		for (std::size_t c = 0; c < all_.size(); c++)
			if (at_[c] < all_[c].size()) {
				is_done = false;
				first_end = std::min(first_end, all_[c][at_[c]].end);
			}
		if (is_done || !met_.insert(name(state)).second)
			return is_done;
		for (std::size_t c = 0; c < all_.size(); c++) {
			if (at_[c] == all_[c].size() || all_[c][at_[c]].begin > first_end)
				continue; // another one had ended before it began
			const std::optional<std::int64_t> next = after(state, all_[c][at_[c]]);

			if (!next)
				continue;
			at_[c]++;
			if (go(*next))
				return true;
			at_[c]--;
		}
		return false;
	}
	std::string name(std::int64_t state) const
	{
		std::string s = std::to_string(state);

		for (const std::size_t a : at_)
			s += ' ' + std::to_string(a);
		return s;
	}
	std::vector<std::vector<event>> all_;
	std::vector<std::size_t> at_;
	std::unordered_set<std::string> met_;
};

event call(const ddict<int, std::int64_t> &d, int key, std::uint64_t *seed)
{
	event e{static_cast<kind>(rnd(seed) % 6),
		static_cast<std::int64_t>(rnd(seed) % 5),
		static_cast<std::int64_t>(rnd(seed) % 5),
		0,
		now(),
		0};

	switch (e.what) {
	case kind::put:
		d.put(key, e.arg);
		break;
	case kind::get:
		e.answer = d.get_or(key, -1);
		break;
	case kind::add:
		e.answer = d.fetch_add(key, e.arg);
		break;
	case kind::erase:
		e.answer = d.erase(key);
		break;
	case kind::cas:
		e.answer = d.compare_and_set(key, e.expected, e.arg);
		break;
	case kind::absent:
		e.answer = d.put_if_absent(key, e.arg);
		break;
	}
	e.end = now();
	return e;
}

std::vector<std::vector<event>> of_key(const history &h, int key)
{
	std::vector<std::vector<event>> out;

	for (int c = 0; c < nr_clients; c++)
		out.emplace_back(h.calls[c][key], h.calls[c][key] + h.nr[c][key]);
	return out;
}

void check_rounds(const ch::ddict_options &options, int rounds, bool with_kills)
{
	std::uint64_t seed = test_seed();

	for (int r = 0; r < rounds; r++) {
		const ddict<int, std::int64_t> d(options);
		auto *h = static_cast<history *>(
			mmap(nullptr, sizeof(history), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
		struct board *b = board_new();
		std::vector<pid_t> clients;

		for (int c = 0; c < nr_clients; c++) {
			std::uint64_t mine = rnd(&seed);

			clients.push_back(start_child([&, c, mine]() mutable {
				d.size();
				post(b, 0);
				await_post(b, 1);
				for (int i = 0; i < nr_calls; i++) {
					const int k = static_cast<int>(rnd(&mine) % nr_keys);

					h->calls[c][k][h->nr[c][k]] = call(d, k, &mine);
					h->nr[c][k]++;
				}
				return true;
			}));
		}
		AWAIT(posted(b, 0) == nr_clients);
		post(b, 1);
		if (with_kills)
			kill(ch_peer_pid(d.core().manager_peer(static_cast<unsigned>(rnd(&seed) % d.managers()))),
			     SIGKILL);
		for (const pid_t c : clients)
			cr_assert_eq(child_end(c), 0);
		for (int k = 0; k < nr_keys; k++)
			cr_assert(search(of_key(*h, k)).is_linearizable(), "round %d, key %d", r, k);
		munmap(h, sizeof(*h));
		munmap(b, sizeof(*b));
	}
}

} // namespace

Test(ddict_linear, the_checker_refuses_what_no_order_explains)
{
	// A read of the old value that began after a read of the new one had ended.
	const event put{kind::put, 1, 0, 0, 0, 100};
	const std::vector<std::vector<event>> stale = {{put},
						       {{kind::get, 0, 0, 1, 10, 20}},
						       {{kind::get, 0, 0, -1, 30, 40}}};
	const std::vector<std::vector<event>> good = {{put},
						      {{kind::get, 0, 0, -1, 10, 20}},
						      {{kind::get, 0, 0, 1, 30, 40}}};
	// Two additions that were both told the same.
	const std::vector<std::vector<event>> lost = {{{kind::add, 1, 0, 0, 0, 10}}, {{kind::add, 1, 0, 0, 0, 10}}};

	cr_assert_not(search(stale).is_linearizable());
	cr_assert(search(good).is_linearizable());
	cr_assert_not(search(lost).is_linearizable());
}

Test(ddict_linear, every_key_is_linearizable)
{
	check_rounds({.managers = 2}, 15, false);
}

Test(ddict_linear, with_two_replicas_also_when_a_manager_is_killed)
{
	check_rounds({.managers = 2, .replicas = 2}, 15, true);
}

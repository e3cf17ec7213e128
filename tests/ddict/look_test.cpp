// SPDX-License-Identifier: Apache-2.0
// look_test.cpp - gets that nobody is asked for, and puts that nobody waits for: what they promise all the same.
#include "ddict_support.hpp"
#include <sys/mman.h>

TestSuite(ddict_look, .timeout = WATCHDOG_S);

using text_dict = ddict<int, std::string>;

namespace {

// Stopped, a manager answers nobody.
class stopped {
public:
	template <class D> explicit stopped(const D &d, unsigned m = 0) : pid_(ch_peer_pid(d.core().manager_peer(m)))
	{
		kill(pid_, SIGSTOP);
	}
	stopped(const stopped &) = delete;
	stopped &operator=(const stopped &) = delete;
	~stopped() { kill(pid_, SIGCONT); }

private:
	pid_t pid_;
};

constexpr std::chrono::milliseconds soon{200};

} // namespace

Test(ddict_look, what_was_asked_for_once_is_seen_without_asking)
{
	const text_dict d({.managers = 1});
	const text_dict patient = d.within(soon);

	for (const int len : {0, 1, 100, 472, 473, 5000, 300000}) {
		d.put(len, whole_value(static_cast<std::uint64_t>(len), static_cast<std::size_t>(len)));
		cr_assert_eq(d.get(len).size(), static_cast<std::size_t>(len));
	}
	d.put(-1, "never asked for");
	d.size(); // that was done
	const stopped s(d);

	for (const int len : {0, 1, 100, 472, 473, 5000, 300000}) {
		cr_assert(is_whole(patient.get(len), static_cast<std::uint64_t>(len)), "%d", len);
		auto later = patient.get_async(len);
		cr_assert(later.is_ready());
		cr_assert(is_whole(*later.get(), static_cast<std::uint64_t>(len)), "%d", len);
		const std::optional<ch::ddict_view> v = patient.view(len);
		cr_assert(v && v->size() == static_cast<std::size_t>(len));
	}
	for (const std::optional<std::string> &v : patient.get_many(std::vector<int>{1, 473, 300000}))
		cr_assert(v && is_whole(*v, v->size()));
	cr_assert_eq(error_of([&] { patient.get(-1); }), ETIMEDOUT);
}

// The value is written once for each put, also for the one that waits after all.
Test(ddict_look, a_few_puts_do_not_wait_for_the_manager)
{
	const text_dict d({.managers = 1});
	const ch::ddict_core patient = d.within(soon).core();
	int nr = 0, written = 0, err = 0;

	d.put(0, "");
	d.size(); // that was done
	{
		const stopped s(d);

		for (; !err && nr < 1000; nr++) {
			const std::string value = whole_value(static_cast<std::uint64_t>(nr), nr % 2 ? 10000 : 10);

			err = error_of([&] {
				patient.put(ch::ddict_detail::encoded<int>(nr), value.size(), [&](std::span<std::byte> to) {
					written++;
					std::memcpy(to.data(), value.data(), to.size());
				});
			});
		}
		cr_assert_eq(err, ETIMEDOUT);
		cr_assert(nr > 1 && nr < 100, "%d", nr);
		cr_assert_eq(written, nr);
	}
	for (int k = 0; k < nr; k++) // the one that was given up was sent
		cr_assert(is_whole(d.get(k), static_cast<std::uint64_t>(k)), "%d", k);
}

namespace {

// What a writer has put, for readers to hold it to.
struct shared_count {
	std::atomic<std::uint64_t> done{0};
	std::atomic<bool> is_over{false};
};

std::uint64_t number_in(const std::string &s)
{
	std::uint64_t n = 0;

	std::memcpy(&n, s.data(), std::min(s.size(), sizeof(n)));
	return n;
}

std::string numbered(std::uint64_t n, std::size_t len)
{
	std::string s(len, static_cast<char>(n));

	std::memcpy(s.data(), &n, sizeof(n));
	return s;
}

bool is_of_one_piece(const std::string &s)
{
	const auto fill = static_cast<char>(number_in(s));

	return std::all_of(s.begin() + 8, s.end(), [&](char c) { return c == fill; });
}

bool read_on(const text_dict &d, shared_count &c)
{
	std::uint64_t last = 0;

	while (!c.is_over) {
		const std::uint64_t least = std::max(last, c.done.load());
		const std::string s = d.get(1);

		last = number_in(s);
		if (last < least || !is_of_one_piece(s)) {
			fprintf(stderr, "%llu of %zu bytes, not %llu or later\n", (unsigned long long)last, s.size(),
				(unsigned long long)least);
			return false;
		}
	}
	return true;
}

} // namespace

// With pauses, in which the value is shown, and without.
Test(ddict_look, nobody_sees_a_value_that_was_replaced)
{
	const text_dict d({.managers = 1});
	void *at = mmap(nullptr, sizeof(shared_count), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	shared_count &c = *new (at) shared_count;
	std::uint64_t seed = test_seed();
	std::vector<pid_t> readers;

	d.put(1, numbered(0, 64));
	for (int i = 0; i < 2; i++)
		readers.push_back(start_child([&] { return read_on(d, c); }));
	for (std::uint64_t n = 1; n <= 20000; n++) {
		const std::size_t lens[] = {8, 64, 400, 5000, 70000};

		d.put(1, numbered(n, lens[rnd(&seed) % 5]));
		c.done = n;
		if (rnd(&seed) % 4 == 0)
			for (auto looks = rnd(&seed) % 4; looks-- > 0;)
				cr_assert_eq(number_in(d.get(1)), n);
	}
	c.is_over = true;
	for (const pid_t r : readers)
		cr_assert_eq(child_end(r), 0);
	munmap(at, sizeof(shared_count));
}

static bool put_until_over(const text_dict &d, int first, shared_count &c)
{
	for (std::uint64_t n = 0; !c.is_over; n++) {
		const int key = first + static_cast<int>(n % 8);
		const int err = error_of([&] { d.put(key, numbered(n, n % 3 ? 16 : 2000)); });

		if ((err != 0 && err != EPERM) || (err == 0 && n % 2 && number_in(d.get(key)) != n))
			return false; // it says more than it did
	}
	return true;
}

Test(ddict_look, what_is_frozen_changes_no_more)
{
	const text_dict d({.managers = 2});
	void *at = mmap(nullptr, sizeof(shared_count), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	shared_count &c = *new (at) shared_count;
	std::vector<pid_t> writers;
	std::vector<int> keys;

	for (int k = 0; k < 24; k++) {
		d.put(k, numbered(0, 16));
		keys.push_back(k);
	}
	for (int w = 0; w < 3; w++)
		writers.push_back(start_child([&] { return put_until_over(d, 8 * w, c); }));
	for (int i = 0; i < 100; i++) {
		d.core().freeze(true);
		const auto before = d.get_many(keys);

		for (int again = 0; again < 3; again++)
			cr_assert(d.get_many(keys) == before, "round %d", i);
		d.core().freeze(false);
		const timespec nap{0, 200000};
		nanosleep(&nap, nullptr);
	}
	c.is_over = true;
	for (const pid_t w : writers)
		cr_assert_eq(child_end(w), 0);
	munmap(at, sizeof(shared_count));
}

Test(ddict_look, what_is_only_looked_at_is_in_use)
{
	const text_dict d({.managers = 1, .memory = 1 << 20, .when_full = ch::ddict_full::evict});

	d.put(-1, "hot");
	d.put(-2, "cold");
	d.get(-1);
	for (int k = 0; k < 20000; k++) {
		d.put(k, whole_value(static_cast<std::uint64_t>(k), 200));
		cr_assert(d.try_get(-1) == "hot");
	}
	cr_assert(d.core().stats()[0].evicted > 1000);
	cr_assert_not(d.contains(-2));
}

Test(ddict_look, an_expired_value_is_not_seen)
{
	const text_dict d({.managers = 1});

	d.put(1, "short", {.ttl = std::chrono::milliseconds(50)});
	while (d.contains(1))
		cr_assert(!d.try_get(1) || d.try_get(1).value_or("short") == "short");
	cr_assert_not(d.try_get(1));
}

Test(ddict_look, gets_count_wherever_they_are_answered)
{
	const text_dict d({.managers = 1});
	const auto gets = [&] {
		const ch::ddict_stats stats = d.core().stats()[0];

		for (const ch::ddict_op_stats &o : stats.ops)
			if (o.name == std::string("get"))
				return o.count;
		return std::uint64_t{0};
	};

	d.put(1, "one");
	for (int i = 0; i < 10; i++)
		d.get(1);
	cr_assert_eq(gets(), 10u);
	d.core().reset_stats();
	cr_assert_eq(gets(), 0u);
	d.get(1);
	cr_assert_eq(gets(), 1u);
}

// More than can be seen at a time without asking; and what they hold is free when they are gone.
Test(ddict_look, views_hold_what_they_see)
{
	constexpr int nr = 40;
	const text_dict d({.managers = 1, .memory = 8 << 20});
	std::vector<ch::ddict_view> views;
	const auto used = [&] { return d.core().stats()[0].used; };

	for (int round = 0; round < 3; round++) {
		const std::uint64_t before = used();

		for (int k = 0; k < nr; k++) {
			d.put(k, whole_value(static_cast<std::uint64_t>(k), 50000));
			d.get(k);
			views.push_back(std::move(*d.view(k)));
		}
		cr_assert_eq(d.core().stats()[0].pinned, static_cast<unsigned>(nr));
		for (int k = 0; k < nr; k++) {
			k % 2 ? d.put(k, "another") : void(d.erase(k));
			d.put(1000 + k, whole_value(9, 50000)); // into what would be free
		}
		for (std::size_t k = 0; k < nr; k++)
			cr_assert(is_whole(std::string(views[k].text()), k));
		views.clear();
		d.clear();
		AWAIT(d.core().stats()[0].pinned == 0);
		cr_assert_leq(used(), before + 4096);
	}
}

Test(ddict_look, who_dies_looking_holds_nothing)
{
	const text_dict d({.managers = 1, .memory = 8 << 20});
	struct board *b = board_new();

	d.put(1, whole_value(1, 4000000));
	d.get(1);
	for (int i = 0; i < 20; i++) {
		const pid_t child = start_child([&] {
			d.get(1);
			const std::optional<ch::ddict_view> v = d.view(1);

			for (post(b, 0);; pause())
				;
			return v.has_value();
		});

		AWAIT(posted(b, 0) == i + 1);
		cr_assert_eq(child_kill(child), -SIGKILL);
	}
	d.erase(1);
	for (int k = 0; k < 2; k++) // there is no room for a third one
		d.put(k, whole_value(2, 4000000));
	cr_assert_eq(d.core().stats()[0].pinned, 0u);
	munmap(b, sizeof(*b));
}

// What they had promised came or came not; values are shown again.
Test(ddict_look, who_dies_putting_is_not_waited_for)
{
	const text_dict d({.managers = 1});
	const text_dict patient = d.within(soon);
	std::uint64_t seed = test_seed();

	d.put(0, "here");
	for (int i = 0; i < 50; i++) {
		const pid_t child = start_child([&] {
			for (std::uint64_t n = 0;; n++)
				d.put(1 + static_cast<int>(n % 4), numbered(n, n % 2 ? 16 : 3000));
			return true;
		});
		const timespec nap{0, static_cast<long>(rnd(&seed) % 10000000)};

		nanosleep(&nap, nullptr);
		cr_assert_eq(child_kill(child), -SIGKILL);
	}
	int tries = 0;

	for (bool is_seen = false; !is_seen; tries++) {
		cr_assert_lt(tries, 50);
		// A newcomer makes the manager look for the dead.
		cr_assert_eq(child_end(start_child([&] { return d.get(0) == "here"; })), 0);
		d.get(0);
		const stopped s(d);
		is_seen = error_of([&] { patient.get(0); }) == 0;
	}
	cr_assert_not(d.core().freeze(true));
	cr_assert(d.core().freeze(false));
}

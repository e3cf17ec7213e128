// SPDX-License-Identifier: Apache-2.0
// shared_test.cpp - values, arrays and synchronisation objects that tasks are given.
#include "pool_support.hpp"
#include <cerrno>
#include <csignal>
#include <numeric>
#include <pool/process.hpp>
#include <pool/shared.hpp>
#include <shared_mutex>

TestSuite(pool_shared, .timeout = WATCHDOG_S);

using namespace std::chrono_literals;

Test(pool_shared, a_value_is_counted_up_by_all_workers_and_no_step_is_lost)
{
	ch::pool p(4);
	ch::value<long> total(5);
	std::vector<ch::future<void>> fs;

	for (int i = 0; i < 8; i++)
		fs.push_back(p.submit(
			[](ch::value<long> t) {
				for (int k = 0; k < 500; k++) {
					t.update([](long &n) { n++; });
					t.atomic().fetch_add(0); // does no harm beside it
				}
			},
			total));
	for (auto &f : fs)
		f.get();
	cr_assert_eq(total.get(), 5 + 8 * 500);
	total.set(7);
	cr_assert_eq(*total, 7);
}

Test(pool_shared, a_value_may_be_a_structure_and_be_captured)
{
	struct range {
		int low, high;
	};
	ch::pool p(2);
	ch::value<range> seen({100, 0});

	for (const int i : p.map(
		     [r = ch::object_ref(seen)](long i) {
			     r.open().update([&](range &s) {
				     s.low = std::min(s.low, static_cast<int>(i));
				     s.high = std::max(s.high, static_cast<int>(i));
			     });
			     return static_cast<int>(i);
		     },
		     numbers(3, 60), {.chunk = 5}))
		(void)i;
	cr_assert_eq(seen->low, 3);
	cr_assert_eq(seen->high, 59);
}

Test(pool_shared, an_array_of_any_size_is_written_where_it_lies)
{
	ch::pool p(3);

	for (const std::size_t n : {std::size_t{1}, std::size_t{100}, std::size_t{100000}, std::size_t{3} << 20}) {
		ch::array<int> a(n, -1);

		cr_assert_eq(a.size(), n);
		cr_assert_eq(a[n - 1], -1);
		std::vector<ch::future<void>> fs;
		for (std::size_t part = 0; part < 3; part++)
			fs.push_back(p.submit(
				[](ch::array<int> mine, std::size_t from) {
					for (std::size_t i = from; i < mine.size(); i += 3)
						mine[i] = static_cast<int>(i);
				},
				a, part));
		for (auto &f : fs)
			f.get();
		for (std::size_t i = 0; i < n; i++)
			cr_assert_eq(a[i], static_cast<int>(i));
	}
	cr_assert_eq(ch::array<char>(0).size(), 0u);
}

Test(pool_shared, its_lock_is_recursive_and_keeps_others_out)
{
	ch::pool p(1);
	ch::array<long> a(2);
	const auto tries = [](ch::array<long> mine) { return mine.try_lock() ? (mine.unlock(), true) : false; };
	{
		const std::scoped_lock l(a);
		const std::lock_guard again(a);

		cr_assert(!p.submit(tries, a).get());
	}
	cr_assert(p.submit(tries, a).get());
	cr_assert_eq(error_of([&] { a.unlock(); }), EPERM);
}

Test(pool_shared, the_death_of_a_holder_is_told_once_and_hangs_nobody)
{
	ch::pool p({.workers = 2, .on_death = ch::on_death::fail});
	ch::value<int> v(1);
	ch::mutex m = ch::mutex::create();

	cr_assert(throws<ch::worker_died>([&] {
		p.submit(
			 [](ch::value<int> mine, ch::mutex other) {
				 mine.lock();
				 other.lock();
				 *mine = 2;
				 raise(SIGKILL);
			 },
			 v, m)
			.get();
	}));
	m.lock();
	cr_assert(m.owner_died());
	m.unlock();
	m.lock();
	cr_assert(!m.owner_died());
	m.unlock();
	cr_assert_eq(v.get(), 2);
	cr_assert(v.owner_died());
	cr_assert_eq(p.submit([](ch::value<int> mine) { return mine.get() + mine.owner_died(); }, v).get(), 2);
}

Test(pool_shared, every_synchronisation_object_is_an_argument)
{
	ch::memory_pool mem = ch::memory_pool::create(1 << 20);
	ch::pool p(3);
	ch::mutex m = ch::mutex::create(mem);
	ch::shared_mutex rw = ch::shared_mutex::create(mem);
	ch::semaphore sem = ch::semaphore::create(mem, {.value = 0});
	ch::event go = ch::event::create(mem);
	ch::condition cond = ch::condition::create(mem);
	ch::barrier all = ch::barrier::create(mem, 3);
	ch::value<int> stage(0);
	std::vector<ch::future<unsigned>> fs;

	for (int i = 0; i < 3; i++)
		fs.push_back(p.submit(
			[](ch::mutex lock, ch::shared_mutex reads, ch::semaphore up, ch::event start, ch::condition c,
			   ch::barrier together, ch::value<int> s) {
				start.wait();
				together.wait();
				{
					const std::shared_lock<ch::shared_mutex> r(reads);
					up.release();
				}
				std::unique_lock<ch::mutex> l(lock);
				c.wait(l, [&] { return *s == 1; });
				return together.parties();
			},
			m, rw, sem, go, cond, all, stage));
	go.set();
	sem.acquire(3);
	{
		const std::lock_guard<ch::mutex> l(m);
		*stage = 1;
	}
	cond.notify_all();
	for (auto &f : fs)
		cr_assert_eq(f.get(), 3u);
	mem.destroy();
}

Test(pool_shared, they_travel_in_queues_captures_results_and_to_processes)
{
	ch::pool p(1);
	ch::queue<ch::value<int>> q({.capacity = 2});
	ch::event e = ch::event::create(nullptr, {});
	ch::value<int> v(1);

	q.put(v);
	p.submit([](ch::queue<ch::value<int>> in) { *in.get() += 1; }, q).get();
	cr_assert_eq(v.get(), 2);
	p.submit([r = ch::object_ref(e)] { r.open().set(); }).get();
	e.wait();
	const ch::value<int> same = p.submit([](ch::value<int> mine) { return mine; }, v).get();
	same.set(3);
	cr_assert_eq(v.get(), 3);
	ch::process child({}, [](ch::value<int> mine, ch::event done) {
		mine.set(4);
		done.clear();
	}, v, e);
	cr_assert(child.wait().is_success());
	cr_assert_eq(v.get(), 4);
	cr_assert(!e.is_set());
}

Test(pool_shared, what_is_of_another_type_or_gone_is_a_clear_error)
{
	ch::pool p(1);
	ch::descriptor gone;

	cr_assert_eq(error_of([] { ch::value<int>().get(); }), EINVAL);
	cr_assert_eq(error_of([] { ch::mutex().descr(); }), EINVAL);
	{
		ch::value<int> v(1);
		gone = v.descr();
		cr_assert_eq(error_of([&] { ch::value<long>::attach(gone); }), EPROTO);
		cr_assert_eq(p.submit([](ch::value<int> mine) { return mine.get(); }, v).get(), 1);
		cr_assert_eq(error_of([&] { ch::value<int>::attach(ch::mutex::create().descr()); }), ESTALE);
	}
	// Also where it has been used before.
	const auto look = [](ch::descriptor d) { ch::value<int>::attach(d).get(); };
	cr_assert_eq(error_of([&] { p.submit(look, gone).get(); }), ESTALE);
	volatile std::size_t most = SIZE_MAX / sizeof(double);
	cr_assert_eq(error_of([&] { ch::array<double> a(most); }), ENOSPC);
}

// Something whose attaching takes as long as the test likes.
struct slow_thing {
	static inline std::atomic<bool> is_slow{true}, is_under_way{false};

	explicit slow_thing(const ch::descriptor &d) : d_(d)
	{
		is_under_way = true;
		while (is_slow)
			usleep(1000);
	}
	const ch::descriptor &descr() const noexcept { return d_; }
	bool is_over() const noexcept { return false; }
	ch::descriptor d_;
};

Test(pool_shared, who_is_forked_while_another_thread_attaches_may_attach_too)
{
	const ch::descriptor d{};
	std::thread other([&] { ch::detail::recent<slow_thing>::open(d); });

	AWAIT(slow_thing::is_under_way);
	const pid_t pid = fork();
	if (pid == 0) {
		alarm(WATCHDOG_S / 4);
		slow_thing::is_slow = false;
		const auto a = ch::detail::recent<slow_thing>::open(d), b = ch::detail::recent<slow_thing>::open(d);
		_exit(a == b ? 0 : 1);
	}
	int status;
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	slow_thing::is_slow = false;
	other.join();
	cr_assert_eq(status, 0);
}

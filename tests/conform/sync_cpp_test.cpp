/* SPDX-License-Identifier: Apache-2.0 */
/* sync.hpp: the C++ handles, with the standard's locks and conditions of use. */
#include "../support/support.h"
#include <channels/sync.hpp>
#include <criterion/criterion.h>
#include <shared_mutex>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

TestSuite(cpp, .timeout = WATCHDOG_S);

namespace {

ch::memory_pool new_pool()
{
	return ch::memory_pool::create(1 << 20, 16);
}

template <class Fn> void in_child(Fn fn)
{
	const pid_t pid = fork();

	if (pid == 0) {
		alarm(WATCHDOG_S);
		fn();
		_exit(0);
	}
	cr_assert_eq(child_end(pid), 0);
}

template <class M> void check_lockable(M &m)
{
	{
		std::unique_lock lock(m);
		std::thread([&] {
			cr_assert(!m.try_lock());
			cr_assert(!m.try_lock_for(1ms));
			cr_assert(!m.try_lock_until(std::chrono::steady_clock::now() - 1s));
		}).join();
	}
	std::unique_lock tried(m, std::try_to_lock);
	cr_assert(tried.owns_lock());
	tried.unlock();
	std::unique_lock timed(m, 1s);
	cr_assert(timed.owns_lock());
}

} // namespace

Test(cpp, mutexes_are_lockable)
{
	auto pool = new_pool();
	auto a = ch::mutex::create(pool), b = ch::mutex::attach(a.descr()), c = ch::mutex::create(pool);
	auto r = ch::recursive_mutex::create(pool);
	auto s = ch::shared_mutex::create(pool);

	check_lockable(a);
	check_lockable(r);
	check_lockable(s);
	{
		std::scoped_lock both(a, c);
		cr_assert_throw(b.lock(), ch::error); /* the same mutex: EDEADLK */
		ch::mutex moved = std::move(c);
		cr_assert(moved && !c);
		c = std::move(moved);
	}
	std::scoped_lock twice(r);
	std::scoped_lock again(r);
	cr_assert_throw(a.unlock(), ch::error);
	pool.destroy();
}

Test(cpp, readers_share)
{
	auto pool = new_pool();
	auto s = ch::shared_mutex::create(pool, 8);
	{
		std::shared_lock mine(s);
		std::thread([&] {
			std::shared_lock other(s);
			cr_assert(other.owns_lock() && s.try_lock_shared_for(1ms));
			s.unlock_shared();
		}).join();
		std::thread([&] { cr_assert(!s.try_lock()); }).join();
	}
	s.lock();
	cr_assert(s.downgrade());
	std::thread([&] {
		std::shared_lock other(s, std::try_to_lock);
		cr_assert(other.owns_lock());
	}).join();
	s.unlock_shared();
	pool.destroy();
}

Test(cpp, the_death_of_a_holder_is_asked_for)
{
	auto pool = new_pool();
	auto m = ch::mutex::create(pool);
	auto s = ch::shared_mutex::create(pool);

	in_child([&] {
		m.lock();
		s.lock();
	});
	std::scoped_lock both(m, s);
	cr_assert(m.owner_died() && s.owner_died());
	cr_assert(!m.owner_died() && !s.owner_died());
	pool.destroy();
}

Test(cpp, semaphores_and_events_answer_instead_of_waiting)
{
	auto pool = new_pool();
	auto s = ch::semaphore::create(pool, {.value = 2, .limit = 2, .undo = true});
	auto e = ch::event::create(pool, {.auto_reset = true, .is_set = true});

	in_child([&] { s.acquire(2); });
	s.acquire();
	cr_assert(s.try_acquire() && !s.try_acquire() && !s.try_acquire_for(1ms));
	cr_assert(s.wait_zero_for(0ms));
	s.release(2);
	cr_assert_eq(s.value(), 2);
	cr_assert_throw(s.release(), ch::error);
	e.wait();
	cr_assert(!e.try_wait() && !e.wait_for(1ms) && !e.is_set());
	e.set();
	cr_assert(e.is_set() && e.try_wait());
	pool.destroy();
}

Test(cpp, conditions_wait_with_a_predicate)
{
	auto pool = new_pool();
	auto m = ch::mutex::create(pool);
	auto c = ch::condition::create(pool);
	int n = 0;
	std::unique_lock lock(m);

	cr_assert(c.wait_for(lock, 1ms) == std::cv_status::timeout);
	cr_assert(!c.wait_for(lock, 1ms, [&] { return n > 0; }));
	std::thread t([&] {
		std::scoped_lock other(m);
		n = 1;
		c.notify_one();
	});
	c.wait(lock, [&] { return n > 0; });
	t.join();
	cr_assert(c.wait_for(lock, 1ms, [&] { return n > 0; }));
	pool.destroy();
}

Test(cpp, barriers_run_an_action_and_carry_its_exception)
{
	auto pool = new_pool();
	auto b = ch::barrier::create(pool, 3);
	std::atomic<unsigned> sum{ 0 }, actions{ 0 }, broken{ 0 };
	std::vector<std::thread> all;

	for (int i = 0; i < 3; i++)
		all.emplace_back([&] { sum += b.wait([&] { actions++; }); });
	for (auto &t : all)
		t.join();
	cr_assert(sum == 3 && actions == 1 && b.parties() == 3);
	all.clear();
	for (int i = 0; i < 3; i++)
		all.emplace_back([&] {
			try {
				b.wait([] { throw std::runtime_error("no"); });
			} catch (const ch::error &) {
				broken++;
			} catch (const std::runtime_error &) {
				broken += 10;
			}
		});
	for (auto &t : all)
		t.join();
	cr_assert_eq(broken.load(), 12);
	cr_assert(b.is_broken());
	b.reset();
	cr_assert(!b.wait_for(1ms));
	pool.destroy();
}

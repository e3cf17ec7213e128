/* SPDX-License-Identifier: Apache-2.0 */
/* event.cpp: no wake-up is lost, a quiet event costs its notifier nothing, and a wait ends in time. */
#include "event.h"
#include "../support/support.h"
#include <criterion/criterion.h>
#include <thread>
#include <vector>

using namespace ch::core;

TestSuite(event, .timeout = WATCHDOG_S, .init = event_process_init);

Test(event, nobody_registered_is_quiet_and_stays_so)
{
	event e{};

	cr_assert(event_is_quiet(e) || event_always_fence);
	for (int i = 0; i < 1000; i++)
		event_notify(e, 1);
	cr_assert(event_is_quiet(e) || event_always_fence);
}

Test(event, a_registration_is_seen_until_it_was_notified)
{
	event e{};

	event_register(e);
	cr_assert_not(event_is_quiet(e));
	while (!event_is_quiet(e) && !event_always_fence) /* a dead waiter's mark wears off */
		event_notify(e, 1);
}

Test(event, a_wait_without_a_notification_lasts_until_its_time)
{
	event e{};
	const i64 until = ch::core::now_ns() + 20 * MS;

	while (ch::core::now_ns() < until) {
		registration r = event_register(e);

		event_wait(e, r, until);
	}
	cr_assert_geq(ch::core::now_ns(), until);
}

Test(event, a_notification_after_the_registration_ends_the_wait)
{
	event e{};
	registration r = event_register(e);

	event_notify(e, 1);
	event_wait(e, r, ch::core::now_ns() + 3600 * 1000 * MS); /* the watchdog sees it if it sleeps */
}

/* Two sides hand a number back and forth; each sleeps for the other's step. A lost wake-up hangs. */
Test(event, no_wake_up_is_lost_between_two_threads)
{
	event e[2] = {};
	std::atomic<int> step{ 0 };
	auto play = [&](int side) {
		for (int mine = side; mine < 40000; mine += 2) {
			while (step.load(std::memory_order_acquire) != mine) {
				registration r = event_register(e[side]);

				if (step.load(std::memory_order_acquire) != mine)
					event_wait(e[side], r, ch::core::now_ns() + 3600 * 1000 * MS);
			}
			step.store(mine + 1, std::memory_order_release);
			event_notify(e[1 - side], 1);
		}
	};
	std::thread other(play, 1);

	play(0);
	other.join();
	cr_assert_eq(step, 40000);
}

Test(event, everybody_is_woken)
{
	event e{};
	std::atomic<bool> go{ false };
	std::atomic<int> ready{ 0 };
	std::vector<std::thread> threads;

	for (int i = 0; i < 8; i++)
		threads.emplace_back([&] {
			ready++;
			while (!go) {
				registration r = event_register(e);

				if (!go)
					event_wait(e, r, ch::core::now_ns() + 3600 * 1000 * MS);
			}
		});
	while (ready < 8)
		std::this_thread::yield();
	go = true;
	event_notify(e, EVERYBODY);
	for (auto &t : threads)
		t.join();
}

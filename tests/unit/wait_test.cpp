/* SPDX-License-Identifier: Apache-2.0 */
/* wait.h: how long a handle spins follows what its waits were like. */
#include "wait.h"
#include "../support/support.h"
#include <criterion/criterion.h>

using namespace ch::core;

TestSuite(wait, .timeout = WATCHDOG_S);

static i64 begin(ch_object &o)
{
	if (nr_cpus() == 1)
		cr_skip_test("one processor: nobody spins");
	o.budget_ns = SPIN_MAX_NS / 2;
	return spin_budget(&o);
}

Test(wait, long_sleeps_end_spinning_and_short_ones_bring_it_back)
{
	ch_object o;

	cr_assert_eq(begin(o), SPIN_MAX_NS / 2);
	for (int i = 0; i < 10; i++)
		adapt(&o, 1000 * SPIN_MAX_NS, true);
	cr_assert_eq(spin_budget(&o), SPIN_MIN_NS);
	for (int i = 0; i < 10; i++)
		adapt(&o, SPIN_MAX_NS, true);
	cr_assert_eq(spin_budget(&o), SPIN_MAX_NS);
}

Test(wait, what_comes_while_one_spins_brings_it_back_too)
{
	ch_object o;

	begin(o);
	for (int i = 0; i < 10; i++)
		adapt(&o, 1000 * SPIN_MAX_NS, true);
	for (int i = 0; i < 10; i++)
		adapt(&o, 0, false);
	cr_assert_eq(spin_budget(&o), SPIN_MAX_NS);
}

Test(wait, every_so_many_sleeps_one_probes)
{
	ch_object o;
	u32 probes = 0;

	begin(o);
	for (u32 i = 0; i < 10 * PROBE_EACH; i++) {
		adapt(&o, 2 * SPIN_MAX_NS, true);
		probes += spin_budget(&o) == PROBE_NS;
	}
	cr_assert_eq(probes, 10u);
	cr_assert_eq(spin_budget(&o), PROBE_NS);
	adapt(&o, 0, false); /* and this one pays */
	cr_assert_eq(spin_budget(&o), SPIN_MAX_NS);
	adapt(&o, 2 * SPIN_MAX_NS, true);
	cr_assert_eq(spin_budget(&o), SPIN_MAX_NS / 2);
}

Test(wait, what_was_set_is_not_changed)
{
	ch_object o;

	begin(o);
	o.spin_ns = 12345;
	for (u32 i = 0; i <= 2 * PROBE_EACH; i++) {
		cr_assert_eq(spin_budget(&o), 12345);
		adapt(&o, 2 * SPIN_MAX_NS, true);
	}
	o.spin_ns = CH_SPIN_NEVER;
	cr_assert_eq(spin_budget(&o), 0);
	o.spin_ns = CH_SPIN_ALWAYS;
	cr_assert_eq(spin_budget(&o), NEVER);
}

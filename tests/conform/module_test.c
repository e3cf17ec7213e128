/* SPDX-License-Identifier: Apache-2.0 */
/* module.h: functions named by module and offset. */
#include "../support/support.h"
#include <channels/channels.h>
#include <criterion/criterion.h>

TestSuite(module, .timeout = WATCHDOG_S);

static const void *address(int (*fn)(void *))
{
	return (const void *)(uintptr_t)fn;
}

static int answer(void *arg)
{
	(void)arg;
	return 42;
}

Test(module, a_function_is_found_again_by_id_and_offset)
{
	struct ch_module here, again;

	cr_assert_eq(ch_module_of(address(answer), &here), 0, "%s", ch_errmsg());
	cr_assert(here.id_len > 0 && here.id_len <= 20);
	cr_assert((uintptr_t)answer >= here.code && (uintptr_t)answer < here.code_end);
	cr_assert_eq(ch_module_find(here.id, here.id_len, &again), 0, "%s", ch_errmsg());
	cr_assert_eq(memcmp(&here, &again, sizeof(here)), 0);
}

Test(module, a_library_is_another_module)
{
	struct ch_module here, there;

	cr_assert_eq(ch_module_of(address(answer), &here), 0);
	cr_assert_eq(ch_module_of((const void *)(uintptr_t)ch_module_of, &there), 0);
	cr_assert(here.id_len != there.id_len || memcmp(here.id, there.id, here.id_len) != 0);
	cr_assert_neq(here.base, there.base);
}

Test(module, what_is_not_there_is_said_to_be_missing)
{
	struct ch_module m = { .id_len = 77 };
	int on_stack = 0;

	cr_assert_eq(ch_module_of(&on_stack, &m), -ENOENT);
	cr_assert_eq(ch_module_find("\x01\x02\xff", 3, &m), -ENOENT);
	cr_assert(strstr(ch_errmsg(), "0102ff"), "%s", ch_errmsg());
	cr_assert_eq(ch_module_find("", 0, &m), -EINVAL);
	cr_assert_eq(ch_module_find("123456789012345678901", 21, &m), -EINVAL);
	cr_assert_eq(ch_module_find(NULL, 3, &m), -EINVAL);
	cr_assert_eq(ch_module_of(NULL, &m), -EINVAL);
	cr_assert_eq(m.id_len, 77, "outputs are written only on success");
}

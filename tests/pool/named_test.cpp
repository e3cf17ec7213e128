// SPDX-License-Identifier: Apache-2.0
// named_test.cpp - functions by name: registered, of plug-ins, through the C interface.
#include "pool_support.hpp"
#include <csignal>
#include <cstring>
#include <pool/named.hpp>

TestSuite(pool_named, .timeout = WATCHDOG_S);

static int twice(const void *in, size_t len, chp_result *out)
{
	void *to = chp_result_space(out, 2 * len);

	std::memcpy(to, in, len);
	std::memcpy(static_cast<char *>(to) + len, in, len);
	return 0;
}

static int fails(const void *, size_t, chp_result *)
{
	return EDOM;
}

static int nothing(const void *, size_t, chp_result *)
{
	return 0;
}

static int dies(const void *, size_t, chp_result *)
{
	return raise(SIGKILL);
}

static std::string result_of(chp_pool *p, const char *name, const std::string &in, int expected = 0)
{
	chp_task *t = nullptr;
	const void *data = nullptr;
	size_t len = 0;

	cr_assert_eq(chp_submit(p, name, in.data(), in.size(), &t), 0);
	cr_assert_eq(chp_wait(t, CH_FOREVER, &data, &len), expected, "%s: %s", name, chp_error(t));
	const std::string s = expected ? chp_error(t) : std::string(static_cast<const char *>(data), len);
	chp_release(t);
	return s;
}

Test(pool_named, registered_functions_run_by_name_and_tell_how_they_fail)
{
	chp_pool *p = nullptr;

	cr_assert_eq(chp_register("twice", twice), 0);
	cr_assert_eq(chp_register("twice", twice), -EEXIST);
	cr_assert_eq(chp_register("", twice), -EINVAL);
	cr_assert_eq(chp_register("fails", fails), 0);
	cr_assert_eq(chp_register("nothing", nothing), 0);
	cr_assert_eq(chp_register("dies", dies), 0);
	cr_assert_eq(chp_create(2, &p), 0);
	cr_assert_eq(result_of(p, "twice", "ab"), "abab");
	cr_assert_eq(result_of(p, "twice", std::string(300000, 'x')).size(), 600000u);
	cr_assert_eq(result_of(p, "nothing", "ab"), "");
	cr_assert(result_of(p, "fails", "", -EDOM).find("fails failed") != std::string::npos);
	cr_assert(result_of(p, "unknown", "", -ENOENT).find("unknown") != std::string::npos);
	cr_assert(result_of(p, "dies", "", -EOWNERDEAD).find("signal 9") != std::string::npos);
	cr_assert_eq(result_of(p, "twice", "c"), "cc");
	cr_assert_eq(chp_submit(p, nullptr, nullptr, 0, nullptr), -EINVAL);
	chp_destroy(p);
}

Test(pool_named, a_plug_in_is_loaded_by_whoever_needs_it)
{
	const char *dir = getenv("builddir");
	const std::string lib = std::string(dir ? dir : ".") + "/tests/pool/.libs/plugin.so";
	chp_pool *p = nullptr;

	cr_assert_eq(chp_create(2, &p), 0);
	for (int i = 0; i < 20; i++)
		cr_assert_eq(result_of(p, (lib + ":plugin_reverse").c_str(), "abc"), "cba");
	cr_assert(result_of(p, (lib + ":no_such").c_str(), "", -ENOENT).find("no_such") != std::string::npos);
	result_of(p, "/no/such.so:f", "", -ENOENT);
	chp_destroy(p);
}

Test(pool_named, tasks_can_be_waited_for_with_a_timeout_and_cancelled)
{
	chp_pool *p = nullptr;
	chp_task *busy = nullptr, *waiting = nullptr;

	cr_assert_eq(chp_register("pause", [](const void *, size_t, chp_result *) { return pause(); }), 0);
	cr_assert_eq(chp_create(1, &p), 0);
	cr_assert_eq(chp_submit(p, "pause", nullptr, 0, &busy), 0);
	cr_assert_eq(chp_wait(busy, 1000000, nullptr, nullptr), -ETIMEDOUT);
	cr_assert_eq(chp_submit(p, "pause", nullptr, 0, &waiting), 0);
	cr_assert_eq(chp_cancel(waiting), 1);
	cr_assert_eq(chp_wait(waiting, CH_FOREVER, nullptr, nullptr), -ECANCELED);
	chp_destroy(p);
	cr_assert_eq(chp_wait(busy, CH_FOREVER, nullptr, nullptr), -ECANCELED);
	chp_release(busy);
	chp_release(waiting);
}

// SPDX-License-Identifier: Apache-2.0
// error_test.cpp - exceptions that a task throws.
#include "pool_support.hpp"
#include <new>
#include <stdexcept>

TestSuite(pool_error, .timeout = WATCHDOG_S);

namespace my {
struct parse_error : std::invalid_argument {
	using std::invalid_argument::invalid_argument;
};
struct odd {};
} // namespace my

template <class E> static void expect_same(ch::pool &p)
{
	try {
		p.submit([] { throw E("the message"); }).get();
		cr_assert_fail("nothing was thrown");
	} catch (const E &e) {
		cr_expect_str_eq(e.what(), "the message");
		const auto *f = dynamic_cast<const ch::task_failure *>(&e);
		cr_assert_not_null(f);
		cr_expect_eq(f->message(), "the message");
		cr_expect_eq(f->worker(), p.workers().at(0));
	}
}

Test(pool_error, a_standard_exception_arrives_as_its_own_type_with_its_message)
{
	ch::pool p(1);

	expect_same<std::runtime_error>(p);
	expect_same<std::range_error>(p);
	expect_same<std::overflow_error>(p);
	expect_same<std::underflow_error>(p);
	expect_same<std::logic_error>(p);
	expect_same<std::invalid_argument>(p);
	expect_same<std::domain_error>(p);
	expect_same<std::length_error>(p);
	expect_same<std::out_of_range>(p);
	expect_same<ch::archive_error>(p);
	cr_assert(throws<std::bad_alloc>([&] { p.submit([] { throw std::bad_alloc(); }).get(); }));
}

Test(pool_error, an_error_code_arrives)
{
	ch::pool p(1);

	try {
		p.submit([] { throw std::system_error(ENOENT, std::generic_category(), "file"); }).get();
		cr_assert_fail();
	} catch (const std::system_error &e) {
		cr_assert(e.code() == std::errc::no_such_file_or_directory);
		cr_assert_null(dynamic_cast<const ch::error *>(&e));
	}
	try {
		p.submit([] { throw ch::error(ESTALE, "gone"); }).get();
		cr_assert_fail();
	} catch (const ch::error &e) {
		cr_assert_eq(e.code().value(), ESTALE);
		cr_assert(std::string(e.what()).starts_with("gone"));
	}
}

Test(pool_error, an_exception_of_ones_own_arrives_as_its_nearest_standard_base_and_tells_its_name)
{
	ch::pool p(1);

	try {
		p.submit([] { throw my::parse_error("line 3"); }).get();
		cr_assert_fail();
	} catch (const std::invalid_argument &e) {
		cr_assert_str_eq(e.what(), "line 3");
		cr_assert_eq(dynamic_cast<const ch::task_failure &>(e).type_name(), "my::parse_error");
	}
}

Test(pool_error, what_is_no_exception_class_arrives_as_task_error_with_its_type)
{
	ch::pool p(1);

	try {
		p.submit([] { throw my::odd(); }).get();
		cr_assert_fail();
	} catch (const ch::task_error &e) {
		cr_assert_eq(e.type_name(), "my::odd");
	}
	cr_assert(throws<ch::task_failure>([&] { p.submit([] { throw 5; }).get(); }));
}

Test(pool_error, the_pool_works_on_after_errors)
{
	ch::pool p(2);

	for (int i = 0; i < 500; i++)
		cr_assert(throws<std::logic_error>([&] { p.submit([] { throw std::logic_error("x"); }).get(); }));
	cr_assert_eq(p.submit([] { return 1; }).get(), 1);
	cr_assert_eq(p.stats().deaths, 0u);
}

Test(pool_error, a_long_message_arrives_whole)
{
	ch::pool p(1);

	try {
		p.submit([] { throw std::runtime_error(std::string(100000, 'm')); }).get();
		cr_assert_fail();
	} catch (const std::runtime_error &e) {
		cr_assert_eq(std::string(e.what()), std::string(100000, 'm'));
	}
}

Test(pool_error, an_exception_of_a_task_in_a_nested_pool_keeps_its_first_name)
{
	ch::pool p(1);

	try {
		p.submit([] {
			 ch::pool q(1);

			 q.submit([] { throw my::parse_error("deep"); }).get();
		 }).get();
		cr_assert_fail();
	} catch (const std::invalid_argument &e) {
		cr_assert_eq(dynamic_cast<const ch::task_failure &>(e).type_name(), "my::parse_error");
	}
}

Test(pool_error, get_is_for_once)
{
	ch::pool p(1);
	auto f = p.submit([] { return 1; });

	f.get();
	cr_assert_not(f.valid());
	cr_assert(throws<std::logic_error>([&] { f.get(); }));
	cr_assert(throws<std::logic_error>([&] { ch::future<int>().wait(); }));
}

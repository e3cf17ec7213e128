/* SPDX-License-Identifier: Apache-2.0 */
/* memory.hpp and memory_pool: owners that let go by themselves, parts of views, pools that grow, what throws. */
#include <channels/memory.hpp>
#include <criterion/criterion.h>
#include <unistd.h>

Test(memory_hpp, a_segment_is_attached_by_descriptor_name_and_fd)
{
	ch::segment s = ch::segment::create({ .len = 1 << 20, .max_peers = 8, .name = "test-hpp" });
	ch::segment by_name = ch::segment::attach("test-hpp"), by_descr = ch::segment::attach(s.descr(), CH_READ_ONLY);
	const int fd = s.fd();
	ch::segment by_fd = ch::segment::attach_fd(fd);

	close(fd);
	s.bytes()[5] = std::byte{ 7 };
	cr_assert(by_name.bytes()[5] == std::byte{ 7 });
	cr_assert(by_descr.bytes()[5] == std::byte{ 7 });
	cr_assert_eq(by_fd.get(), s.get());
	cr_assert_eq(by_descr.info().flags & CH_READ_ONLY, CH_READ_ONLY);
	bool is_listed = false;
	for (const ch_segment_info &info : ch::segment::list())
		is_listed |= std::string(info.name) == s.name();
	cr_assert(is_listed);
	s.destroy();
	try {
		ch::segment::attach("test-hpp");
		cr_assert_fail("it is gone");
	} catch (const ch::error &e) {
		cr_assert_eq(e.code().value(), ENOENT);
	}
}

Test(memory_hpp, a_view_holds_its_block_as_long_as_it_lives)
{
	ch::memory_pool pool = ch::memory_pool::create(1 << 20, 8);
	char *p = static_cast<char *>(pool.alloc(100));

	std::memcpy(p, "hello, world", 12);
	{
		std::optional<ch::view> part;
		ch::descriptor d{};
		{
			const ch::view v = ch::view::create(pool, p, 12);
			d = v.descr();
			part = v.part(7, 5);
			cr_assert_eq(v.clone().count(), 1);
		}
		cr_assert_eq(std::string_view(reinterpret_cast<const char *>(part->bytes().data()), 5), "world");
		cr_assert_eq(ch::view::attach(d).bytes().size(), 12);
		cr_assert_eq(pool.stats().nr_used, 2);
	}
	cr_assert_eq(pool.stats().nr_used, 0);
	pool.destroy();
}

Test(memory_hpp, a_block_is_accepted_once)
{
	ch::memory_pool pool = ch::memory_pool::create({ .len = 1 << 20, .max_peers = 8, .flags = CH_ANONYMOUS });
	void *p = pool.alloc(100);
	const ch::descriptor d = ch::offer(pool, p);

	cr_assert_eq(ch::accept(pool, d), p);
	cr_assert_null(ch::accept(pool, d));
	pool.free(p);
	pool.destroy();
}

Test(memory_hpp, blocks_are_found_by_type_and_exceptions_come_through)
{
	ch::memory_pool pool = ch::memory_pool::create({ .len = 128 << 10, .max_len = 8 << 20, .max_peers = 8 });
	std::size_t sum = 0;

	for (int i = 0; i < 20; i++)
		pool.alloc_typed(100000, i % 2 ? 3 : 4);
	cr_assert_gt(pool.stats().len, 128 << 10, "it grew");
	cr_assert_eq(ch::for_each_block(pool, 3, [&](const ch_block_info &info) { sum += info.len >= 100000; }), 10);
	cr_assert_eq(sum, 10);
	try {
		ch::for_each_block(pool, 3, [](const ch_block_info &) { throw 42; });
		cr_assert_fail("it did not come through");
	} catch (int n) {
		cr_assert_eq(n, 42);
	}
	pool.destroy();
}

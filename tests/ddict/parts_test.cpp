// SPDX-License-Identifier: Apache-2.0
// parts_test.cpp - the pure parts of libddict: index, placement, numbers, records.
#include "ddict_support.hpp"
#include "cpus.hpp"
#include "index.hpp"
#include "number.hpp"
#include "place.hpp"
#include "wire.hpp"
#include <cmath>
#include <sys/stat.h>
#include <map>

using namespace ch::dd;

// Against a map, with hashes that collide a lot.
Test(ddict_parts, the_index_finds_what_was_inserted_and_not_erased)
{
	std::uint64_t seed = test_seed();
	ch::dd::index x;
	std::map<std::uint32_t, std::uint64_t> model; // slot: hash
	std::vector<std::uint64_t> hash(4000);
	const auto hash_of = [&](std::uint32_t s) { return hash[s]; };

	for (std::uint64_t &h : hash)
		h = (rnd(&seed) % 200) * UINT64_C(0x100000001) * (rnd(&seed) % 2 ? 1 : UINT64_C(0x40000000));
	for (int i = 0; i < 100000; i++) {
		const auto slot = static_cast<std::uint32_t>(rnd(&seed) % hash.size());

		if (model.erase(slot)) {
			x.erase(hash[slot], slot, hash_of);
		} else {
			x.reserve_one(hash_of);
			x.insert(hash[slot], slot);
			model[slot] = hash[slot];
		}
		const auto probe = static_cast<std::uint32_t>(rnd(&seed) % hash.size());
		const bool found = x.find(hash[probe], [&](std::uint32_t s) { return s == probe; }) == probe;

		cr_assert_eq(found, model.count(probe) == 1);
		cr_assert_eq(x.size(), model.size());
	}
}

static unsigned place_of(unsigned i, unsigned nr)
{
	const std::string key = "key " + std::to_string(i);

	return place(key_hash(std::as_bytes(std::span(key))), nr);
}

Test(ddict_parts, keys_are_spread_evenly)
{
	constexpr unsigned nr = 8, keys = 80000;
	unsigned count[nr] = {};

	for (unsigned i = 0; i < keys; i++)
		count[place_of(i, nr)]++;
	for (const unsigned n : count)
		cr_assert(std::abs(static_cast<double>(n) - keys / nr) < 6 * std::sqrt(keys / nr), "%u", n);
}

Test(ddict_parts, one_more_manager_takes_its_share_and_moves_nothing_else)
{
	constexpr unsigned keys = 20000;
	unsigned moved = 0;

	for (unsigned i = 0; i < keys; i++) {
		const unsigned before = place_of(i, 7), after = place_of(i, 8);

		cr_assert(after == before || after == 7);
		moved += after != before;
	}
	cr_assert(moved > keys / 10 && moved < keys / 6, "%u", moved);
}

Test(ddict_parts, numbers_add_in_their_own_width)
{
	std::byte v[8] = {};
	const std::uint8_t big = 255;
	const double d = 1.5;
	std::uint64_t bits;

	memcpy(v, &big, 1);
	number{1}.add(v, 2);
	cr_assert_eq(static_cast<int>(v[0]), 1);
	memcpy(v, &d, 8);
	memcpy(&bits, &d, 8);
	number{0x108}.add(v, bits);
	cr_assert_eq(load<double>(v), 3.0);
	for (const std::uint32_t bad : {0u, 3u, 5u, 7u, 9u, 16u, 0x101u, 0x102u, 0x110u, 0x208u, 0xffffffffu})
		cr_assert(!number{bad}.is_valid(), "%x", bad);
	for (const std::uint32_t good : {1u, 2u, 4u, 8u, 0x104u, 0x108u})
		cr_assert(number{good}.is_valid(), "%x", good);
}

Test(ddict_parts, records_end_where_their_message_ends)
{
	packer p(0);
	bytes b;
	std::uint32_t n = 0;

	p.u32(3);
	p.raw("abc", 3);
	for (std::size_t len = 0; len < p.size(); len++) {
		unpacker u({p.data(), len});

		cr_assert(!(u.u32(n) && u.raw(n, b)), "%zu bytes are enough", len);
	}
	unpacker u({p.data(), p.size()});
	cr_assert(u.u32(n) && u.raw(n, b) && u.empty() && b.size() == 3);
}

Test(ddict_parts, managers_are_placed_by_nodes)
{
	using lists = std::vector<cpu_list>;
	const cpu_list all = parse_cpus("0-7");
	const lists nodes = {parse_cpus("0-1,4-5"), {}, parse_cpus("2-3,6-7")};
	const auto place = [&](ch::ddict_placement p, unsigned nr) { return place_managers(p, nr, all, nodes); };

	cr_assert_eq(place(ch::ddict_placement::anywhere, 2), (lists{{}, {}}));
	cr_assert_eq(place(ch::ddict_placement::compact, 5), (lists{{0}, {1}, {4}, {5}, {2}}));
	cr_assert_eq(place(ch::ddict_placement::spread, 2), (lists{{0}, {2}}));
	cr_assert_eq(place(ch::ddict_placement::spread, 4), (lists{{0}, {2}, {4}, {6}}));
	cr_assert_eq(place(ch::ddict_placement::spread, 3), (lists{{0}, {2}, {4}}));
	// More managers than CPUs; CPUs of no known node; one node of which a part may be used.
	cr_assert_eq(place_managers(ch::ddict_placement::compact, 3, {1, 9}, nodes), (lists{{1}, {9}, {1}}));
	cr_assert_eq(place_managers(ch::ddict_placement::spread, 4, {1, 9}, nodes), (lists{{1}, {9}, {1}, {9}}));
	cr_assert_eq(place_managers(ch::ddict_placement::spread, 2, {4, 5}, {}), (lists{{4}, {5}}));
}

Test(ddict_parts, nodes_are_read_from_what_the_kernel_says)
{
	char dir[] = "/tmp/nodes.\0\0\0\0\0\0";
	const auto write = [&](const std::string &name, const char *text) {
		std::ofstream(std::string(dir) + "/" + name) << text << '\n';
	};

	memset(dir + strlen(dir), 'X', 6);
	cr_assert(mkdtemp(dir));
	cr_assert(numa_nodes(dir).empty());
	write("online", "0,2");
	for (const char *node : {"node0", "node2"})
		cr_assert_eq(mkdir((std::string(dir) + "/" + node).c_str(), 0700), 0);
	write("node0/cpulist", "0-2");
	write("node2/cpulist", "");
	cr_assert_eq(numa_nodes(dir), (std::vector<cpu_list>{{0, 1, 2}})); // one of memory only
	for (const char *file : {"/node0/cpulist", "/node2/cpulist", "/node0", "/node2", "/online", ""})
		cr_assert_eq(remove((dir + std::string(file)).c_str()), 0);
}

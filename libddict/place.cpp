// SPDX-License-Identifier: Apache-2.0
// place.cpp - the only file that knows libxxhash.
#include "place.hpp"
#include <xxhash.h>

namespace ch::dd {

std::uint64_t key_hash(std::span<const std::byte> key)
{
	return XXH3_64bits(key.data(), key.size());
}

// The finaliser of splitmix64 (Steele, Lea, Flood 2014) over hash and manager.
static std::uint64_t weight(std::uint64_t hash, std::uint64_t manager)
{
	std::uint64_t x = hash + (manager + 1) * UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

unsigned place(std::uint64_t hash, unsigned nr)
{
	unsigned best = 0;
	std::uint64_t most = weight(hash, 0);

	for (unsigned m = 1; m < nr; m++) {
		const std::uint64_t w = weight(hash, m);

		if (w > most) {
			most = w;
			best = m;
		}
	}
	return best;
}

} // namespace ch::dd

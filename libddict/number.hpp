// SPDX-License-Identifier: Apache-2.0
// number.hpp - numbers in values, for fetch_add: width in bytes, and whether the machine's floating point.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace ch::dd {

static_assert(std::endian::native == std::endian::little, "a narrow integer is the first bytes of a wide one");

struct number {
	std::uint32_t code; // ch::ddict_number: width, plus 0x100 for floating point

	std::size_t width() const { return code & 0xff; }
	bool is_float() const { return code & 0x100; }
	bool is_valid() const
	{
		const std::size_t w = width();

		return code < 0x200 && (w == 4 || w == 8 || (!is_float() && (w == 1 || w == 2)));
	}
	// Integers, signed or not, add modulo 2 to the number of their bits: the low bytes of the sum are the sum's.
	void add(std::byte (&value)[8], std::uint64_t delta) const
	{
		if (!is_float())
			sum<std::uint64_t>(value, delta);
		else if (width() == 4)
			sum<float>(value, delta);
		else
			sum<double>(value, delta);
	}

private:
	template <class T> static void sum(std::byte (&value)[8], std::uint64_t delta)
	{
		T a, b;

		std::memcpy(&a, value, sizeof(a));
		std::memcpy(&b, &delta, sizeof(b));
		a += b;
		std::memcpy(value, &a, sizeof(a));
	}
};

} // namespace ch::dd

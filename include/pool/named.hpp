// SPDX-License-Identifier: Apache-2.0
// named.hpp - functions by name instead of by build-id: for plug-ins, and for other languages (pool/pool.h).
#pragma once
#include <pool/pool.h>
#include <pool/pool.hpp>

namespace ch {

namespace detail {

// What a function by name gave, as it is.
struct raw_bytes {
	std::vector<std::byte> bytes;

	template <class A> void save(A &ar) const { ar.put(bytes.data(), bytes.size()); }
	template <class A> void load(A &ar)
	{
		bytes.resize(ar.left());
		if (!bytes.empty())
			ar.get(bytes.data(), bytes.size());
	}
};

} // namespace detail

// As chp_submit: name is registered, or "LIBRARY:SYMBOL".
inline future<detail::raw_bytes> submit_named(pool &p, std::string_view name, std::span<const std::byte> in)
{
	return detail::submit_named(p, name, in);
}

} // namespace ch

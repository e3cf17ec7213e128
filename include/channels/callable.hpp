// SPDX-License-Identifier: Apache-2.0
// callable.hpp - what a callable captured, as bytes, for one whose code is found in another process by other means
// (channels/module.h). A captureless lambda has no bytes, captures that are trivially copyable go by memcpy, and a type
// with a serialize() goes through the archive.
#pragma once
#include <channels/archive.hpp>
#include <new>
#include <type_traits>

namespace ch::archive {

// Trivially copyable, told from what a copy needs: gcc 12 says of some lambdas with captures, whose assignment is
// deleted, that they are not.
template <class F>
inline constexpr bool goes_by_memcpy = std::is_trivially_copyable_v<F> ||
	(std::is_trivially_copy_constructible_v<F> && std::is_trivially_destructible_v<F>);

// An argument for the archives that save.
template <class F> class sent_callable {
	static_assert(is_custom<F> || (goes_by_memcpy<F> && !detail::is_address<F>),
		      "this callable is sent to another process: what it captures must be trivially copyable, or it "
		      "needs a serialize(Archive &); a function goes as a lambda that calls it");

public:
	explicit sent_callable(const F &f) : f_(f) {}
	template <class A> void save(A &ar) const
	{
		if constexpr (is_custom<F>)
			ar(f_);
		else if constexpr (!std::is_empty_v<F>)
			ar.put(std::addressof(f_), sizeof(F));
	}

private:
	const F &f_;
};

// The other side: a callable taken out of bytes.
template <class F> class arrived_callable {
public:
	explicit arrived_callable(reader &ar) { ar(f_); }
	F &get() noexcept { return f_; }

private:
	F f_{};
};

template <class F>
	requires(!is_custom<F>)
class arrived_callable<F> {
public:
	explicit arrived_callable(reader &ar)
	{
		if constexpr (!std::is_empty_v<F>)
			ar.get(bytes_, sizeof(F));
	}
	// Trivially copyable: its bytes are the object.
	F &get() noexcept { return *std::launder(reinterpret_cast<F *>(bytes_)); }

private:
	alignas(F) std::byte bytes_[sizeof(F)];
};

} // namespace ch::archive

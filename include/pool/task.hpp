// SPDX-License-Identifier: Apache-2.0
// task.hpp - how a call travels: the name of a function that knows the types, and bytes.
//
// For each kind of call submit() instantiates one function, the thunk, that reads the callable and its arguments from
// bytes, calls, and writes the result. What is sent is the thunk's name (which module, by build-id, and how far
// into it) and those bytes. A captureless lambda has no bytes; captures that are trivially copyable go by memcpy; a
// callable with serialize() goes through the archive; a plain function is itself sent by name.
#pragma once
#include <channels/callable.hpp>
#include <cstring>
#include <cxxabi.h>
#include <functional>
#include <pool/error.hpp>
#include <new>
#include <span>
#include <variant>

namespace ch::detail {

// Where a task's result goes; in the worker.
class CH_API result_sink {
public:
	// Memory for exactly n bytes of result, where they will be sent from if possible.
	std::span<std::byte> space(std::size_t n);
	template <class T> void put(const T &v) { archive::write(space(archive::size(v)), v); }

protected:
	result_sink() = default;
	~result_sink() = default;
	result_sink(const result_sink &) = delete;
	result_sink &operator=(const result_sink &) = delete;
};

using thunk = void (*)(std::span<const std::byte> in, result_sink &out);

// The name under which a worker finds fn: module << 48 | offset. Throws ch::error if fn lies in no module.
CH_API std::uint64_t name_of(const void *fn);
// Back again, in the worker. Throws ch::error if the module is not loaded there, or is another build.
CH_API const void *address_of(std::uint64_t name);

template <class F> const void *code_address(F *fn) { return reinterpret_cast<const void *>(fn); }

template <class F> inline constexpr bool is_function_pointer = std::is_pointer_v<F> &&
	std::is_function_v<std::remove_pointer_t<F>>;

// A callable of several arguments as one of a tuple (starmap).
template <class F> struct spread {
	F f;

	template <class T>
	auto operator()(T &&t) -> decltype(std::apply(std::declval<F &>(), std::forward<T>(t)))
	{
		return std::apply(f, std::forward<T>(t));
	}
};
template <class F> inline constexpr bool is_spread = false;
template <class F> inline constexpr bool is_spread<spread<F>> = true;

// A pointer to a member function is two words (Itanium C++ ABI): the function's address or, for a virtual one, its
// place in the table, and what is added to this. Only the address differs from process to process.
struct member_words {
	std::uintptr_t fn;
	std::ptrdiff_t adjust;

	bool is_virtual() const noexcept
	{
#if defined(__aarch64__) || defined(__arm__)
		return adjust & 1;
#else
		return fn & 1;
#endif
	}
};

// A callable as bytes. The archive's calls are the same for all ways.
template <class F> class shipped {
	static_assert(is_function_pointer<F> || archive::is_custom<F> || archive::goes_by_memcpy<F>,
		      "a task's callable is sent to another process: what it captures must be trivially copyable (pass "
		      "strings, containers and the like as arguments instead), or it needs a serialize(Archive &)");

public:
	explicit shipped(const F &f) : f_(f) {}
	template <class A> void save(A &ar) const
	{
		if constexpr (is_function_pointer<F>)
			ar(std::is_same_v<A, archive::sizer> ? std::uint64_t{0} : name_of(code_address(f_)));
		else if constexpr (archive::is_custom<F>)
			ar(f_);
		else if constexpr (!std::is_empty_v<F>)
			ar.put(std::addressof(f_), sizeof(F));
	}

private:
	std::conditional_t<is_function_pointer<F>, F, const F &> f_;
};

// The other side: a callable taken out of bytes.
template <class F> class unshipped : public archive::arrived_callable<F> {
public:
	using archive::arrived_callable<F>::arrived_callable;
};

template <class F>
	requires(is_function_pointer<F>)
class unshipped<F> {
public:
	explicit unshipped(archive::reader &ar)
	    : f_(reinterpret_cast<F>(const_cast<void *>(address_of(ar.next<std::uint64_t>()))))
	{
	}
	F &get() noexcept { return f_; }

private:
	F f_;
};

template <class F>
	requires(std::is_member_function_pointer_v<F>)
class shipped<F> {
public:
	explicit shipped(const F &f) { std::memcpy(&w_, &f, sizeof(w_)); }
	template <class A> void save(A &ar) const
	{
		static_assert(sizeof(F) == sizeof(member_words));
		std::uint64_t fn = w_.fn;

		if constexpr (!std::is_same_v<A, archive::sizer>)
			fn = w_.is_virtual() ? w_.fn : name_of(reinterpret_cast<const void *>(w_.fn));
		ar(w_.is_virtual(), fn, w_.adjust);
	}

private:
	member_words w_;
};

template <class F>
	requires(std::is_member_function_pointer_v<F>)
class unshipped<F> {
public:
	explicit unshipped(archive::reader &ar)
	{
		const bool is_virtual = ar.next<bool>();
		const auto fn = ar.next<std::uint64_t>();
		const member_words w{is_virtual ? static_cast<std::uintptr_t>(fn)
						: reinterpret_cast<std::uintptr_t>(address_of(fn)),
				     ar.next<std::ptrdiff_t>()};

		std::memcpy(&f_, &w, sizeof(w));
	}
	F &get() noexcept { return f_; }

private:
	F f_{};
};

template <class F> class shipped<spread<F>> : public shipped<F> {
public:
	explicit shipped(const spread<F> &s) : shipped<F>(s.f) {}
};
template <class F> class unshipped<spread<F>> {
public:
	explicit unshipped(archive::reader &ar) : whole_{unshipped<F>(ar).get()} {}
	spread<F> &get() noexcept { return whole_; }

private:
	spread<F> whole_;
};

template <class F, class... A>
using result_of = archive::carrier_t<std::invoke_result_t<F &, archive::carrier_t<A>...>>;
template <class F, class... A>
concept callable_with = std::is_invocable_v<F &, archive::carrier_t<A>...>;

// A value as it is written: a C string as its characters, all else as it is.
template <class T> decltype(auto) as_sent(const T &v)
{
	using D = std::decay_t<const T>;

	if constexpr (std::is_same_v<D, const char *> || std::is_same_v<D, char *>)
		return std::string_view(v);
	else
		return (v);
}

// A value as it arrives.
template <class T> archive::carrier_t<T> as_carried(T &&v)
{
	if constexpr (archive::detail::is_span<std::remove_cvref_t<T>>)
		return archive::carrier_t<T>(v.begin(), v.end());
	else
		return archive::carrier_t<T>(std::forward<T>(v));
}

// Calls F with the arguments that were sent, which are its own: it may move from them.
template <class F, class... A> void call(std::span<const std::byte> in, result_sink &out)
{
	using R = std::invoke_result_t<F &, A...>;
	archive::reader ar(in);
	unshipped<F> f(ar);
	std::tuple<A...> args;

	std::apply([&](A &...a) { ar(a...); }, args);
	if (ar.left())
		throw archive_error("task: bytes left over after its arguments");
	if constexpr (std::is_void_v<R>) {
		std::apply([&](A &...a) { std::invoke(f.get(), std::move(a)...); }, args);
		out.space(0);
	} else {
		out.put(as_sent(std::apply([&](A &...a) -> R { return std::invoke(f.get(), std::move(a)...); }, args)));
	}
}

// The name of a call of F with A..., looked up once.
template <class F, class... A> std::uint64_t call_name()
{
	static const std::uint64_t name = name_of(code_address(&call<F, A...>));

	return name;
}

} // namespace ch::detail

// SPDX-License-Identifier: Apache-2.0
// task.hpp - how a call travels: the name of a function that knows the types, and bytes.
//
// For each kind of call submit() instantiates one function, the thunk, that reads the callable and its arguments from
// bytes, calls, and writes the result. What is sent is the thunk's name (which module, by build-id, and how far
// into it) and those bytes. A captureless lambda has no bytes; captures that are trivially copyable go by memcpy; a
// callable with serialize() goes through the archive; a plain function is itself sent by name.
#pragma once
#include <channels/archive.hpp>
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

// Trivially copyable, told from what a copy needs: gcc 12 says of some lambdas with captures, whose assignment is
// deleted, that they are not.
template <class F>
inline constexpr bool goes_by_memcpy = std::is_trivially_copyable_v<F> ||
	(std::is_trivially_copy_constructible_v<F> && std::is_trivially_destructible_v<F>);

// A callable as bytes. Three ways; the archive's calls are the same for all.
template <class F> class shipped {
	static_assert(!std::is_member_pointer_v<F>, "a member function: wrap it in a lambda");
	static_assert(is_function_pointer<F> || archive::is_custom<F> || goes_by_memcpy<F>,
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
template <class F> class unshipped {
public:
	explicit unshipped(archive::reader &ar)
	{
		if constexpr (is_function_pointer<F>)
			f_ = reinterpret_cast<F>(const_cast<void *>(address_of(ar.next<std::uint64_t>())));
		else
			ar(f_);
	}
	F &get() noexcept { return f_; }

private:
	F f_{};
};

template <class F>
	requires(!is_function_pointer<F> && !archive::is_custom<F>)
class unshipped<F> {
public:
	explicit unshipped(archive::reader &ar)
	{
		if constexpr (!std::is_empty_v<F>)
			ar.get(bytes_, sizeof(F));
	}
	// Trivially copyable: its bytes are the object.
	F &get() noexcept { return *std::launder(reinterpret_cast<F *>(bytes_)); }

private:
	alignas(F) std::byte bytes_[sizeof(F)];
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

// A chunk of map: one result or one error for each item.
template <class R> struct chunk_result {
	std::uint64_t elapsed_ns = 0;
	std::vector<std::variant<R, error_record>> items;

	template <class A> void serialize(A &ar) { ar(elapsed_ns, items); }
};

CH_API std::uint64_t now_ns() noexcept;

// std::monostate where F returns nothing.
template <class F, class A>
using item_result = std::conditional_t<std::is_void_v<std::invoke_result_t<F &, A>>, std::monostate,
				       archive::carrier_t<std::invoke_result_t<F &, A>>>;

template <class F, class A> void run_item(F &f, A &item, std::variant<item_result<F, A>, error_record> &out)
{
	try {
		if constexpr (std::is_void_v<std::invoke_result_t<F &, A>>)
			std::invoke(f, std::move(item));
		else
			out.template emplace<0>(as_carried(std::invoke(f, std::move(item))));
	} catch (const abi::__forced_unwind &) { // the thread is being ended: not ours to stop
		throw;
	} catch (...) {
		out.template emplace<1>(current_error());
	}
}

template <class F, class A> void call_chunk(std::span<const std::byte> in, result_sink &out)
{
	archive::reader ar(in);
	unshipped<F> f(ar);
	std::vector<A> items;
	chunk_result<item_result<F, A>> r;

	ar(items);
	r.items.resize(items.size());
	const std::uint64_t begin = now_ns();
	for (std::size_t i = 0; i < items.size(); i++) {
		A item(std::move(items[i]));

		run_item(f.get(), item, r.items[i]);
	}
	r.elapsed_ns = now_ns() - begin;
	out.put(r);
}

template <class F, class A> std::uint64_t chunk_name()
{
	static const std::uint64_t name = name_of(code_address(&call_chunk<F, A>));

	return name;
}

} // namespace ch::detail

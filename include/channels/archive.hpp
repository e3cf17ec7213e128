// SPDX-License-Identifier: Apache-2.0
// archive.hpp - C++ values to bytes and back, written straight into a message. Header only.
//
//	std::vector<std::byte> b = ch::archive::to_bytes(name, numbers, table);
//	auto [n, v, t] = ch::archive::read<std::string, std::vector<double>, std::map<std::string, int>>(b);
//
//	ch::message m = channel.claim(ch::archive::size(name, numbers));  // the exact size, from a first pass
//	ch::archive::write(m.bytes(), name, numbers);
//
//	int i = ch::archive::read<int>(bytes);                            // one type: the value itself
//	ch::archive::read_into(bytes, name, numbers);                     // into what is there already
//
// What it knows: numbers, enums, bool; std::string, vector, array, pair, tuple, optional, variant, unique_ptr,
// the ordered and unordered maps and sets, deque, list, filesystem::path, chrono times; string_view and span (to write:
// they are read as string and vector). Any other trivially copyable type goes by memcpy; pointers are refused.
//
// Types of your own follow cereal's convention, so what cereal can do works here unchanged:
//
//	struct point { int x, y; template <class A> void serialize(A &ar) { ar(x, y); } };
//	template <class A> void serialize(A &ar, point &p) { ar(p.x, p.y); }          // or outside, found by its argument
//	template <class A> void save(A &ar) const; template <class A> void load(A &ar);  // or split, inside or outside
//
// private ones after `friend struct ch::archive::access;`. To be read, a type needs a default constructor.
//
// The bytes are the machine's own order and sizes: for the same program (or one built alike) on the same kind of
// machine. Reading trusts nothing: input that is too short, too long or nonsense throws ch::archive_error, and no
// count in it makes more memory be asked for than a small multiple of its own length.
#pragma once
#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace ch {

// Bytes that are not what was asked for.
class archive_error : public std::runtime_error {
public:
	using std::runtime_error::runtime_error;
};

namespace archive {

// Befriend this to keep serialize, save and load private.
struct access {
	template <class A, class T> static auto serialize(A &ar, T &v) -> decltype(v.serialize(ar))
	{
		return v.serialize(ar);
	}
	template <class A, class T> static auto save(A &ar, const T &v) -> decltype(v.save(ar)) { return v.save(ar); }
	template <class A, class T> static auto load(A &ar, T &v) -> decltype(v.load(ar)) { return v.load(ar); }
};

namespace detail {

template <class T, template <class...> class Of> inline constexpr bool is_a = false;
template <template <class...> class Of, class... Args> inline constexpr bool is_a<Of<Args...>, Of> = true;

template <class T> inline constexpr bool is_std_array = false;
template <class T, std::size_t N> inline constexpr bool is_std_array<std::array<T, N>> = true;
template <class T> inline constexpr bool is_span = false;
template <class T, std::size_t N> inline constexpr bool is_span<std::span<T, N>> = true;
template <class T> inline constexpr bool is_view = is_span<T> || is_a<T, std::basic_string_view>;

template <class T>
inline constexpr bool is_address = std::is_pointer_v<T> || std::is_member_pointer_v<T> || std::is_null_pointer_v<T> ||
	is_a<T, std::reference_wrapper> || is_a<T, std::initializer_list>;

// How a type of the user's says how it is written, in the order they are tried.
template <class A, class T> concept member_serialize = requires(A &a, T &v) { access::serialize(a, v); };
template <class A, class T> concept free_serialize = requires(A &a, T &v) { serialize(a, v); };
template <class A, class T> concept member_save = requires(A &a, const T &v) { access::save(a, v); };
template <class A, class T> concept free_save = requires(A &a, const T &v) { save(a, v); };
template <class A, class T> concept member_load = requires(A &a, T &v) { access::load(a, v); };
template <class A, class T> concept free_load = requires(A &a, T &v) { load(a, v); };

} // namespace detail

class sizer;

// Whether T has a serialize, or save and load, of its own.
template <class T>
concept is_custom = detail::member_serialize<sizer, T> || detail::free_serialize<sizer, T> ||
	detail::member_save<sizer, T> || detail::free_save<sizer, T>;

namespace detail {

template <class T> constexpr bool flat()
{
	if constexpr (is_custom<T> || is_address<T> || is_view<T> || std::is_same_v<T, bool> || is_a<T, std::optional> ||
		      is_a<T, std::variant> || is_a<T, std::pair> || is_a<T, std::tuple>)
		return false;
	else if constexpr (std::is_array_v<T>)
		return flat<std::remove_extent_t<T>>();
	else if constexpr (is_std_array<T>)
		return flat<typename T::value_type>() && std::tuple_size_v<T> != 0;
	else
		return std::is_trivially_copyable_v<T> && !std::is_empty_v<T>;
}

// Any container that knows its size and can be filled, at its end or wherever it likes.
template <class T>
concept container = requires(T c, const T &cc) {
	typename T::value_type;
	{ cc.size() } -> std::convertible_to<std::size_t>;
	cc.begin();
	cc.end();
	c.clear();
};
template <class T>
concept fills_at_end = container<T> && requires(T c, typename T::value_type v) { c.push_back(std::move(v)); };
template <class T>
concept path_like = requires(const T &p) {
	typename T::string_type;
	{ p.native() } -> std::same_as<const typename T::string_type &>;
};

// What an element of a container is read as: a map's key is const in place.
template <class T> struct element { using type = T; };
template <class K, class V> struct element<std::pair<const K, V>> { using type = std::pair<K, V>; };

template <class> inline constexpr bool never = false;

} // namespace detail

// memcpy by pieces that it does not give to rep movsb, which is 20 times slower on some processors (Zen 3) where the target
// lies up to 31 bytes beyond the source, modulo a page: so do blocks of shared memory and long buffers of malloc.
inline void copy_bytes(void *to, const void *from, std::size_t n)
{
	constexpr std::size_t most = 2000, very_long = 8 << 20; // past the caches memcpy knows better
	auto *t = static_cast<std::byte *>(to);
	const auto *f = static_cast<const std::byte *>(from);

	for (std::size_t now; n > most && n < very_long; n -= now, t += now, f += now) {
		now = std::min(n, most);
		std::memcpy(t, f, now);
	}
	if (n)
		std::memcpy(t, f, n);
}

// Flat elements into a vector or string. What resize() makes is filled before it is copied to: so little by little, in the
// cache. A byte is aligned wherever it lies, and needs no filling.
template <class T> void assign_bytes(T &v, std::span<const std::byte> in)
{
	using E = typename T::value_type;
	constexpr std::size_t most = std::max<std::size_t>(1, 2000 / sizeof(E));
	const std::size_t n = in.size() / sizeof(E);

	v.clear();
	v.reserve(n);
	for (std::size_t i = 0; i < n;) {
		const std::size_t now = std::min(n - i, most);

		if constexpr (sizeof(E) == 1 && std::is_scalar_v<E>) {
			const E *at = reinterpret_cast<const E *>(in.data()) + i;

			v.insert(v.end(), at, at + now);
		} else {
			v.resize(i + now);
			copy_bytes(v.data() + i, in.data() + i * sizeof(E), now * sizeof(E));
		}
		i += now;
	}
}

// Whether values of T travel by memcpy, in sizeof(T) bytes.
template <class T> inline constexpr bool is_flat = detail::flat<std::remove_cv_t<T>>();

// The type that carries a T: what it is read as. Views and C strings are carried as owners.
template <class T> struct carrier { using type = T; };
template <class C, class Tr> struct carrier<std::basic_string_view<C, Tr>> { using type = std::basic_string<C, Tr>; };
template <class T, std::size_t N> struct carrier<std::span<T, N>> { using type = std::vector<std::remove_cv_t<T>>; };
template <> struct carrier<const char *> { using type = std::string; };
template <> struct carrier<char *> { using type = std::string; };
template <class T> using carrier_t = typename carrier<std::decay_t<T>>::type;

// What the three archives share: ar(a, b, c), and which way it goes.
template <class Self, bool Saving> class base {
public:
	using is_saving = std::bool_constant<Saving>;
	using is_loading = std::bool_constant<!Saving>;

	template <class... T> Self &operator()(T &&...v)
	{
		(self().one(v), ...);
		return self();
	}
	template <class T> Self &operator&(T &&v) { return (*this)(v); }

private:
	Self &self() noexcept { return static_cast<Self &>(*this); }
};

// What the two that save share. Derived gives put(const void *, size_t).
template <class Self> class saver : public base<Self, true> {
	friend class base<Self, true>;

	Self &self() noexcept { return static_cast<Self &>(*this); }
	void count(std::size_t n)
	{
		const unsigned char small = n < 255 ? static_cast<unsigned char>(n) : 255;
		const std::uint64_t big = n;

		self().put(&small, 1);
		if (small == 255)
			self().put(&big, sizeof(big));
	}
	template <class T> void run(const T *p, std::size_t n)
	{
		count(n);
		if (n)
			self().put(p, n * sizeof(T));
	}
	template <class T> void custom(const T &v)
	{
		// As in cereal, one serialize does both ways and is therefore not const; saving does not change the value.
		T &m = const_cast<T &>(v);

		if constexpr (detail::member_serialize<Self, T>)
			access::serialize(self(), m);
		else if constexpr (detail::free_serialize<Self, T>)
			serialize(self(), m);
		else if constexpr (detail::member_save<Self, T>)
			access::save(self(), v);
		else
			save(self(), v);
	}
	template <class T> void each(const T &c)
	{
		count(c.size());
		for (const auto &e : c)
			one(static_cast<const typename T::value_type &>(e));
	}
	template <class T> void choice(const T &v)
	{
		if (v.valueless_by_exception())
			throw archive_error("archive: a variant without a value");
		count(v.index());
		std::visit([this](const auto &x) { this->one(x); }, v);
	}
	template <class T> void one(const T &v)
	{
		using U = std::remove_cv_t<T>;

		if constexpr (is_custom<U>) {
			custom(v);
		} else if constexpr (is_flat<U>) {
			self().put(std::addressof(v), sizeof(v));
		} else if constexpr (std::is_same_v<U, bool>) {
			const unsigned char b = v;
			self().put(&b, 1);
		} else if constexpr (detail::is_a<U, std::basic_string> || detail::is_a<U, std::basic_string_view>) {
			run(v.data(), v.size());
		} else if constexpr (detail::path_like<U>) {
			one(v.native());
		} else if constexpr (detail::is_a<U, std::vector> || detail::is_span<U>) {
			if constexpr (is_flat<typename U::value_type>)
				run(v.data(), v.size());
			else
				each(v);
		} else if constexpr (detail::is_std_array<U> || std::is_array_v<U>) {
			for (const auto &e : v)
				one(e);
		} else if constexpr (detail::is_a<U, std::pair> || detail::is_a<U, std::tuple>) {
			std::apply([this](const auto &...e) { (this->one(e), ...); }, v);
		} else if constexpr (detail::is_a<U, std::optional> || detail::is_a<U, std::unique_ptr>) {
			one(static_cast<bool>(v));
			if (v)
				one(*v);
		} else if constexpr (detail::is_a<U, std::variant>) {
			choice(v);
		} else if constexpr (detail::container<U>) {
			each(v);
		} else if constexpr (!(std::is_empty_v<U> && std::is_trivially_copyable_v<U>)) {
			static_assert(!detail::is_address<U>, "a pointer or reference means nothing in another process");
			static_assert(detail::is_address<U>, "this type needs a serialize(Archive &) or save and load");
		}
	}
};

// First pass: how many bytes.
class sizer : public saver<sizer> {
public:
	void put(const void *, std::size_t n) noexcept { size_ += n; }
	std::size_t size() const noexcept { return size_; }

private:
	std::size_t size_ = 0;
};

// Second pass: into memory that is there.
class writer : public saver<writer> {
public:
	explicit writer(std::span<std::byte> out) noexcept : at_(out.data()), left_(out.size()), cap_(out.size()) {}
	void put(const void *p, std::size_t n)
	{
		if (n > left_)
			throw archive_error("archive: value is longer than the room for it");
		copy_bytes(at_, p, n);
		at_ += n;
		left_ -= n;
	}
	std::size_t size() const noexcept { return cap_ - left_; }
	// The next n bytes, to be written by the caller.
	std::span<std::byte> room(std::size_t n)
	{
		if (n > left_)
			throw archive_error("archive: value is longer than the room for it");
		at_ += n;
		left_ -= n;
		return {at_ - n, n};
	}

private:
	std::byte *at_;
	std::size_t left_, cap_;
};

class reader : public base<reader, false> {
public:
	explicit reader(std::span<const std::byte> in) noexcept : in_(in) {}
	void get(void *p, std::size_t n)
	{
		copy_bytes(p, take(n).data(), n);
	}
	std::size_t left() const noexcept { return in_.size(); }
	// The next n bytes, where they lie.
	std::span<const std::byte> take(std::size_t n)
	{
		need(n);
		const std::span<const std::byte> b = in_.first(n);
		in_ = in_.subspan(n);
		return b;
	}
	// The bytes that are left, where they lie.
	std::span<const std::byte> rest() const noexcept { return in_; }
	// The next value by value.
	template <class T> T next()
	{
		static_assert(std::is_default_constructible_v<T>, "a type that is read needs a default constructor");
		T v{};

		one(v);
		return v;
	}

private:
	friend class base<reader, false>;

	void need(std::size_t n) const
	{
		if (n > in_.size())
			throw archive_error("archive: message ends in the middle of a value");
	}
	// How many of something; each takes at least per bytes.
	std::size_t count(std::size_t per)
	{
		unsigned char small;
		std::uint64_t n;

		get(&small, 1);
		n = small;
		if (small == 255)
			get(&n, sizeof(n));
		if (per && n > in_.size() / per)
			throw archive_error("archive: message ends in the middle of a value");
		return static_cast<std::size_t>(n);
	}
	template <class T> void run(T &v)
	{
		using E = typename T::value_type;
		const std::size_t n = count(sizeof(E));

		archive::assign_bytes(v, take(n * sizeof(E)));
	}
	template <class T> void custom(T &v)
	{
		if constexpr (detail::member_serialize<reader, T>)
			access::serialize(*this, v);
		else if constexpr (detail::free_serialize<reader, T>)
			serialize(*this, v);
		else if constexpr (detail::member_load<reader, T>)
			access::load(*this, v);
		else
			load(*this, v);
	}
	template <class T> void each(T &c)
	{
		using E = typename detail::element<typename T::value_type>::type;

		c.clear();
		for (std::size_t n = count(1); n; n--) {
			if constexpr (detail::fills_at_end<T>)
				c.push_back(next<E>());
			else
				c.insert(c.end(), next<E>());
		}
	}
	template <class T, std::size_t I = 0> void choice(T &v, std::size_t index)
	{
		if constexpr (I == std::variant_size_v<T>) {
			throw archive_error("archive: a variant has no such alternative");
		} else {
			if (index == I)
				one(v.template emplace<I>());
			else
				choice<T, I + 1>(v, index);
		}
	}
	template <class T> void maybe(T &v)
	{
		if (!next<bool>()) {
			v.reset();
			return;
		}
		if constexpr (detail::is_a<T, std::optional>)
			v.emplace(next<typename T::value_type>());
		else
			v = T(new typename T::element_type(next<typename T::element_type>()));
	}
	template <class T> void one(T &v)
	{
		if constexpr (is_custom<T>) {
			custom(v);
		} else if constexpr (is_flat<T>) {
			get(std::addressof(v), sizeof(v));
		} else if constexpr (std::is_same_v<T, bool>) {
			v = next<unsigned char>() != 0;
		} else if constexpr (detail::is_a<T, std::basic_string>) {
			run(v);
		} else if constexpr (detail::path_like<T>) {
			v = next<typename T::string_type>();
		} else if constexpr (detail::is_a<T, std::vector>) {
			if constexpr (is_flat<typename T::value_type>)
				run(v);
			else
				each(v);
		} else if constexpr (detail::is_std_array<T> || std::is_array_v<T>) {
			for (auto &e : v)
				one(e);
		} else if constexpr (detail::is_a<T, std::pair> || detail::is_a<T, std::tuple>) {
			std::apply([this](auto &...e) { (this->one(e), ...); }, v);
		} else if constexpr (detail::is_a<T, std::optional> || detail::is_a<T, std::unique_ptr>) {
			maybe(v);
		} else if constexpr (detail::is_a<T, std::variant>) {
			choice(v, count(0));
		} else if constexpr (detail::container<T>) {
			each(v);
		} else if constexpr (!(std::is_empty_v<T> && std::is_trivially_copyable_v<T>)) {
			static_assert(!detail::is_address<T> && !detail::is_view<T>,
				      "pointers and views cannot be read: use string or vector");
			static_assert(detail::is_address<T> || detail::is_view<T>,
				      "this type needs a serialize(Archive &) or save and load");
		}
	}

	std::span<const std::byte> in_;
};

// len bytes, at a multiple of eight from the beginning, that f(std::span<std::byte>) writes where they go.
template <class A, class F> void put_aligned(A &ar, std::size_t len, const F &f)
{
	static constexpr std::byte zeros[8] = {};

	ar(std::uint64_t{len});
	const auto pad = static_cast<unsigned char>(7 - ar.size() % 8); // after the byte that says so
	ar(pad);
	ar.put(zeros, pad);
	if constexpr (std::is_same_v<A, sizer>)
		ar.put(nullptr, len);
	else
		f(ar.room(len));
}
inline std::span<const std::byte> get_aligned(reader &ar)
{
	const auto len = ar.next<std::uint64_t>();

	ar.take(ar.next<unsigned char>());
	return ar.take(len);
}

// Whose values look into the bytes that they were read from.
template <class T>
concept borrows = requires(T v, std::shared_ptr<const void> p) { v.keep(p); };

// How many bytes the values take.
template <class... T> std::size_t size(const T &...v)
{
	if constexpr ((is_flat<T> && ...)) {
		return (sizeof(T) + ... + 0);
	} else {
		sizer s;

		s(v...);
		return s.size();
	}
}

// Writes the values; how many bytes they took. out must have room for size(v...).
template <class... T> std::size_t write(std::span<std::byte> out, const T &...v)
{
	writer w(out);

	w(v...);
	return w.size();
}

template <class... T> std::vector<std::byte> to_bytes(const T &...v)
{
	std::vector<std::byte> b(archive::size(v...));

	archive::write(b, v...);
	return b;
}

// Reads exactly these values, into v....
template <class... T> void read_into(std::span<const std::byte> in, T &...v)
{
	reader r(in);

	r(v...);
	if (r.left())
		throw archive_error("archive: bytes left over: not the types that were written");
}

// Reads exactly these: T itself if there is one, otherwise std::tuple<T...>.
template <class... T> auto read(std::span<const std::byte> in)
{
	std::tuple<T...> t;

	std::apply([&](auto &...v) { archive::read_into(in, v...); }, t);
	if constexpr (sizeof...(T) == 1)
		return std::get<0>(std::move(t));
	else
		return t;
}

} // namespace archive
} // namespace ch

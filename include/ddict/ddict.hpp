// SPDX-License-Identifier: Apache-2.0
// ddict.hpp - a dictionary that any number of processes share, ch::ddict<K, V>.
//
//	ch::ddict<std::string, int> d({.managers = 2, .memory = 64 << 20});
//	d.put("one", 1);
//	int n = d.get("one");                      // throws std::out_of_range if there is no such key
//	d.fetch_add("hits", 1);
//	pool.submit([](ch::ddict<std::string, int> dict) { dict.put("two", 2); }, d);
//	for (auto [key, value] : d) ...
//
// Keys and values are strings, numbers, trivially copyable types, and whatever channels/archive.hpp can write. See
// libddict(7) for what each operation promises.
#pragma once
#include <channels/archive.hpp>
#include <ddict/core.hpp>
#include <array>
#include <iterator>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <utility>
#include <vector>

namespace ch {

// How a type becomes bytes and is made of them again. Specialise it for a codec of your own. Strings are their
// characters and flat types their memory, so that programs in other languages can read them; the rest goes through the
// archive.
template <class T> struct ddict_codec {
	using bytes = std::span<const std::byte>;

	static std::size_t size(const T &v)
	{
		if constexpr (std::is_same_v<T, std::string>)
			return v.size();
		else
			return archive::size(v);
	}
	static void write(std::span<std::byte> to, const T &v)
	{
		if constexpr (std::is_same_v<T, std::string>) {
			if (!v.empty())
				std::memcpy(to.data(), v.data(), v.size());
		} else {
			archive::write(to, v);
		}
	}
	static T read(bytes from)
	{
		if constexpr (std::is_same_v<T, std::string>)
			return std::string(reinterpret_cast<const char *>(from.data()), from.size());
		else
			return archive::read<T>(from);
	}
};

namespace ddict_detail {

using bytes = std::span<const std::byte>;

// A key as bytes: in place where it is bytes already, else written to a small buffer or, if it is long, to memory.
template <class K> class encoded {
public:
	explicit encoded(const K &k)
	{
		if constexpr (std::is_same_v<K, std::string>) {
			b_ = std::as_bytes(std::span(k.data(), k.size()));
		} else {
			const std::size_t n = ddict_codec<K>::size(k);
			std::byte *to = small_.data();

			if (n > small_.size()) {
				large_.resize(n);
				to = large_.data();
			}
			ddict_codec<K>::write({to, n}, k);
			b_ = {to, n};
		}
	}
	encoded(const encoded &) = delete;
	encoded &operator=(const encoded &) = delete;
	operator bytes() const noexcept { return b_; } // NOLINT: implicit on purpose

private:
	std::array<std::byte, 64> small_;
	std::vector<std::byte> large_;
	bytes b_;
};

} // namespace ddict_detail

template <class K, class V> class ddict {
public:
	using key_type = K;
	using mapped_type = V;
	using value_type = std::pair<K, V>;
	using options = ddict_options;

	ddict() = default; // none
	explicit ddict(const options &o) : core_(ddict_core::create(o)) {}
	static ddict attach(const descriptor &d) { return ddict(ddict_core::attach(d)); }
	explicit ddict(ddict_core core) noexcept : core_(std::move(core)) {}

	explicit operator bool() const noexcept { return static_cast<bool>(core_); }
	const descriptor &descr() const noexcept { return core_.descr(); }
	const ddict_core &core() const noexcept { return core_; }
	unsigned managers() const { return core_.managers(); }
	unsigned which_manager(const K &key) const { return core_.which_manager(encoded(key)); }
	void destroy() noexcept { core_.destroy(); }

	void put(const K &key, const V &value) const
	{
		core_.put(encoded(key), ddict_codec<V>::size(value),
			  [&](std::span<std::byte> to) { ddict_codec<V>::write(to, value); });
	}
	std::optional<V> try_get(const K &key) const
	{
		std::optional<V> v;

		core_.get(encoded(key), [&](bytes b) { v.emplace(ddict_codec<V>::read(b)); });
		return v;
	}
	V get(const K &key) const
	{
		if (std::optional<V> v = try_get(key))
			return *std::move(v);
		throw std::out_of_range("ch::ddict::get: no such key");
	}
	V get_or(const K &key, V otherwise) const
	{
		std::optional<V> v = try_get(key);

		return v ? *std::move(v) : std::move(otherwise);
	}
	bool contains(const K &key) const { return core_.contains(encoded(key)); }
	// Whether the key was there.
	bool erase(const K &key) const { return core_.erase(encoded(key)); }
	std::size_t size() const { return core_.size(); }
	bool empty() const { return size() == 0; }
	// How many keys it erased.
	std::size_t clear() const { return core_.clear(); }

	// Adds to the number at the key, which is 0 if there is none, and gives the number from before. Integers wrap
	// around.
	V fetch_add(const K &key, std::type_identity_t<V> delta) const
		requires(std::is_arithmetic_v<V> && !std::is_same_v<V, bool> && sizeof(V) <= 8)
	{
		std::uint64_t bits = 0;
		V old;

		std::memcpy(&bits, &delta, sizeof(delta));
		bits = core_.fetch_add(encoded(key), ddict_number_of<V>, bits);
		std::memcpy(&old, &bits, sizeof(old));
		return old;
	}

	// Puts every pair of a range, with many requests under way at a time. Throws at the first that fails; others
	// may or may not be in the dictionary then.
	template <std::ranges::input_range R> void put_many(R &&pairs) const
	{
		ddict_core::put_batch batch(core_);

		for (auto &&[key, value] : pairs) {
			const K &k = key;
			const V &v = value;

			batch.add(encoded(k), ddict_codec<V>::size(v),
				  [&](std::span<std::byte> to) { ddict_codec<V>::write(to, v); });
		}
		batch.finish();
	}
	// The values of a range of keys, in their order.
	template <std::ranges::input_range R> std::vector<std::optional<V>> get_many(R &&keys) const
	{
		std::vector<std::byte> text;
		std::vector<std::size_t> ends;
		std::vector<bytes> spans;

		for (const K &k : keys) {
			const encoded e(k);
			const bytes b = e;

			text.insert(text.end(), b.begin(), b.end());
			ends.push_back(text.size());
		}
		for (std::size_t i = 0; i < ends.size(); i++) {
			const std::size_t from = i ? ends[i - 1] : 0;

			spans.emplace_back(text.data() + from, ends[i] - from);
		}
		std::vector<std::optional<V>> out(spans.size());

		core_.get_many(spans, [&](std::size_t i, const bytes *b) {
			if (b)
				out[i].emplace(ddict_codec<V>::read(*b));
		});
		return out;
	}

	// Input ranges over keys and over pairs. A key that is present during the whole walk is met exactly once.
	template <bool Values> class walk {
	public:
		using item = std::conditional_t<Values, std::pair<K, V>, K>;

		class iterator {
		public:
			using iterator_concept = std::input_iterator_tag;
			using iterator_category = std::input_iterator_tag;
			using value_type = item;
			using difference_type = std::ptrdiff_t;
			using pointer = const item *;
			using reference = const item &;

			iterator() = default;
			explicit iterator(walk *w) : w_(w) { ++*this; }
			reference operator*() const { return *w_->item_; }
			pointer operator->() const { return &*w_->item_; }
			iterator &operator++()
			{
				if (!w_->advance())
					w_ = nullptr;
				return *this;
			}
			void operator++(int) { ++*this; }
			bool operator==(std::default_sentinel_t) const { return !w_; }

		private:
			walk *w_ = nullptr;
		};

		explicit walk(const ddict_core &core) : cursor_(core, Values) {}
		iterator begin() { return iterator(this); }
		std::default_sentinel_t end() const { return {}; }

	private:
		bool advance()
		{
			item_.reset();
			if (!cursor_.next())
				return false;
			if constexpr (Values)
				item_.emplace(ddict_codec<K>::read(cursor_.key()),
					      ddict_codec<V>::read(cursor_.value()));
			else
				item_.emplace(ddict_codec<K>::read(cursor_.key()));
			return true;
		}
		ddict_core::cursor cursor_;
		std::optional<item> item_;
	};
	walk<false> keys() const { return walk<false>(core_); }
	walk<true> items() const { return walk<true>(core_); }

	// for (const auto &[key, value] : d)
	class iterator {
	public:
		using inner = typename walk<true>::iterator;
		using iterator_concept = std::input_iterator_tag;
		using iterator_category = std::input_iterator_tag;
		using value_type = std::pair<K, V>;
		using difference_type = std::ptrdiff_t;
		using pointer = const value_type *;
		using reference = const value_type &;

		iterator() = default;
		explicit iterator(const ddict_core &core) : w_(std::make_shared<walk<true>>(core)), at_(w_->begin()) {}
		reference operator*() const { return *at_; }
		pointer operator->() const { return &*at_; }
		iterator &operator++()
		{
			++at_;
			return *this;
		}
		void operator++(int) { ++at_; }
		bool operator==(std::default_sentinel_t s) const { return at_ == s; }

	private:
		std::shared_ptr<walk<true>> w_;
		inner at_;
	};
	iterator begin() const { return iterator(core_); }
	std::default_sentinel_t end() const { return {}; }

	// Travels as its descriptor; the process that receives it attaches at the first use, once for all handles.
	template <class A> void serialize(A &ar)
	{
		descriptor d = core_.descr();

		ar(d.bytes);
		if constexpr (A::is_loading::value)
			core_ = ddict_core(d);
	}

private:
	using bytes = ddict_detail::bytes;
	using encoded = ddict_detail::encoded<K>;

	ddict_core core_;
};

} // namespace ch

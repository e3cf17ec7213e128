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
#include <ddict/visitors.hpp>
#include <iterator>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <utility>
#include <vector>

namespace ch {

// A call under way, and its answer: T is a value, bool, or void.
template <class T> class ddict_future {
public:
	ddict_future() = default;
	explicit ddict_future(ddict_call c) noexcept : c_(std::move(c)) {}
	explicit operator bool() const noexcept { return static_cast<bool>(c_); }
	bool is_ready() const { return c_.is_ready(); }
	void wait() { c_.done(); }
	// Once; throws what the call would have thrown.
	T get()
	{
		if constexpr (std::is_void_v<T> || std::is_same_v<T, bool>) {
			return static_cast<T>(c_.done());
		} else if constexpr (std::is_arithmetic_v<T>) {
			const std::uint64_t bits = c_.number();
			T v;

			std::memcpy(&v, &bits, sizeof(v));
			return v;
		} else {
			T v;

			c_.read([&](std::span<const std::byte> b) {
				v.emplace(ddict_codec<typename T::value_type>::read(b));
			});
			return v;
		}
	}

private:
	ddict_call c_;
};

template <class K, class V> class ddict {
public:
	using key_type = K;
	using mapped_type = V;
	using value_type = std::pair<K, V>;
	using options = ddict_options;

	ddict() = default; // none
	explicit ddict(const options &o) : core_(ddict_core::create(o)) {}
	static ddict attach(const descriptor &d) { return ddict(ddict_core::attach(d)); }
	static ddict attach(const std::string &name) { return ddict(ddict_core::attach(name)); }
	explicit ddict(ddict_core core) noexcept : core_(std::move(core)) {}

	explicit operator bool() const noexcept { return static_cast<bool>(core_); }
	const descriptor &descr() const noexcept { return core_.descr(); }
	const ddict_core &core() const noexcept { return core_; }
	unsigned managers() const { return core_.managers(); }
	unsigned which_manager(const K &key) const { return core_.which_manager(encoded(key)); }
	void destroy() noexcept { core_.destroy(); }
	// The same, and what it holds stays under its name, for ddict_options::restart or drop_kept. Throws, and goes on.
	void destroy_for_restart() { core_.destroy_for_restart(); }
	static bool drop_kept(const std::string &name) { return ddict_core::drop_kept(name); }

	// The same dictionary, through a handle whose calls end after a time (ETIMEDOUT), or that asks one manager
	// only.
	ddict within(nanoseconds timeout) const { return ddict(core_.within(timeout)); }
	ddict manager(unsigned m) const { return ddict(core_.directed(m)); }

	void put(const K &key, const V &value, const ddict_put &how = {}) const
	{
		const writing w(value);

		core_.put(encoded(key), w.len, w, how);
	}
	// It stays at all later checkpoints without being written again.
	void put_persistent(const K &key, const V &value) const { put(key, value, {.ttl = {}, .persistent = true}); }
	// Whether it was put: the key was not there.
	bool put_if_absent(const K &key, const V &value, const ddict_put &how = {}) const
	{
		const writing w(value);

		return core_.put_if_absent(encoded(key), w.len, w, how);
	}
	// Puts desired where expected is. False if there is another value, or none.
	bool compare_and_set(const K &key, const V &expected, const V &desired) const
	{
		const writing w(desired);

		return core_.compare_and_set(encoded(key), ddict_detail::encoded<V>(expected), w.len, w);
	}
	std::optional<V> pop(const K &key) const
	{
		std::optional<V> v;

		if (!core_.pop(encoded(key), [&](bytes b) { v.emplace(ddict_codec<V>::read(b)); }))
			v.reset();
		return v;
	}
	// Removes some key and gives it with its value; nothing if there is none.
	std::optional<value_type> pop_item() const
	{
		for (const K &key : keys())
			if (std::optional<V> v = pop(key))
				return value_type(key, std::move(*v));
		return std::nullopt;
	}
	// The value where it lies, as bytes.
	std::optional<ddict_view> view(const K &key) const { return core_.view(encoded(key)); }
	// Puts more behind the string there; its new length.
	std::size_t append(const K &key, std::string_view more) const requires(std::is_same_v<V, std::string>)
	{
		return core_.append(encoded(key), std::as_bytes(std::span(more.data(), more.size())));
	}
	// Until the key has this value, or any. ETIMEDOUT if the handle's calls end before: see within().
	void wait_for(const K &key, const V &value) const
	{
		core_.wait_for(encoded(key), ddict_detail::encoded<V>(value));
	}
	void wait_for(const K &key) const { core_.wait_for(encoded(key)); }
	// A copy with every manager, so that readers are spread over them.
	void put_everywhere(const K &key, const V &value, const ddict_put &how = {}) const
	{
		const writing w(value);

		core_.put_everywhere(encoded(key), w.len, w, how);
	}
	std::optional<V> get_anywhere(const K &key) const
	{
		std::optional<V> v;

		if (!core_.get_anywhere(encoded(key), [&](bytes b) { v.emplace(ddict_codec<V>::read(b)); }))
			v.reset(); // as in try_get
		return v;
	}

	// The same without waiting for the answer.
	ddict_future<void> put_async(const K &key, const V &value, const ddict_put &how = {}) const
	{
		const writing w(value);

		return ddict_future<void>(core_.start_put(encoded(key), w.len, w, how));
	}
	ddict_future<std::optional<V>> get_async(const K &key) const
	{
		return ddict_future<std::optional<V>>(core_.start_get(encoded(key)));
	}
	ddict_future<std::optional<V>> pop_async(const K &key) const
	{
		return ddict_future<std::optional<V>>(core_.start_pop(encoded(key)));
	}
	ddict_future<bool> contains_async(const K &key) const
	{
		return ddict_future<bool>(core_.start_contains(encoded(key)));
	}
	ddict_future<bool> erase_async(const K &key) const
	{
		return ddict_future<bool>(core_.start_erase(encoded(key)));
	}
	ddict_future<bool> put_if_absent_async(const K &key, const V &value, const ddict_put &how = {}) const
	{
		const writing w(value);

		return ddict_future<bool>(core_.start_put_if_absent(encoded(key), w.len, w, how));
	}
	ddict_future<bool> compare_and_set_async(const K &key, const V &expected, const V &desired) const
	{
		const writing w(desired);

		return ddict_future<bool>(
			core_.start_compare_and_set(encoded(key), ddict_detail::encoded<V>(expected), w.len, w));
	}
	ddict_future<bool> wait_for_async(const K &key, const V &value) const
	{
		return ddict_future<bool>(core_.start_wait_for(encoded(key), ddict_detail::encoded<V>(value)));
	}
	ddict_future<V> fetch_add_async(const K &key, std::type_identity_t<V> delta) const
		requires(std::is_arithmetic_v<V> && !std::is_same_v<V, bool> && sizeof(V) <= 8)
	{
		std::uint64_t bits = 0;

		std::memcpy(&bits, &delta, sizeof(delta));
		return ddict_future<V>(core_.start_fetch_add(encoded(key), ddict_number_of<V>, bits));
	}

	// Nobody may write until unfreeze(). Whether it was frozen.
	bool freeze() const { return core_.freeze(true); }
	bool unfreeze() const { return core_.freeze(false); }
	bool is_frozen() const { return core_.is_frozen(); }
	std::vector<ddict_stats> stats() const { return core_.stats(); } // of each manager
	void reset_stats() const { core_.reset_stats(); } // what operations took is counted from here on

	// Checkpoints: the handle's number; see libddict(7).
	std::uint64_t checkpoint_id() const noexcept { return core_.checkpoint_id(); }
	void set_checkpoint(std::uint64_t id) const noexcept { core_.set_checkpoint(id); }
	std::uint64_t checkpoint() const noexcept { return core_.checkpoint(); }
	std::uint64_t rollback() const noexcept { return core_.rollback(); }
	std::uint64_t newest_checkpoint() const { return core_.newest_checkpoint(); }
	std::uint64_t sync_to_newest_checkpoint() const { return core_.sync_to_newest_checkpoint(); }

	// Files; see libddict(7).
	std::uint64_t persist() const { return core_.persist(); }
	std::vector<std::uint64_t> persisted_ids() const { return core_.persisted_ids(); }
	void restore(std::uint64_t id) const { core_.restore(id); }
	std::optional<std::uint64_t> advance() const { return core_.advance(); }
	void flush() const { core_.flush(); }

	std::optional<V> try_get(const K &key) const
	{
		std::optional<V> v;

		if (!core_.get(encoded(key), [&](bytes b) { v.emplace(ddict_codec<V>::read(b)); }))
			v.reset(); // what was read does not count
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
	template <std::ranges::input_range R> void put_many(R &&pairs, const ddict_put &how = {}) const
	{
		ddict_core::put_batch batch(core_, how);

		for (auto &&[key, value] : pairs) {
			const K &k = key;
			const V &v = value;

			batch.add(encoded(k), ddict_codec<V>::size(v),
				  [&](std::span<std::byte> to) { ddict_codec<V>::write(to, v); });
		}
		batch.finish();
	}
	template <std::ranges::input_range R> void update(R &&pairs) const { put_many(std::forward<R>(pairs)); }
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
			out[i].reset();
			if (b)
				out[i].emplace(ddict_codec<V>::read(*b));
		});
		return out;
	}

	// See the same of ddict_core.
	ddict clone(const options &o) const { return ddict(core_.clone(o)); }
	std::uint64_t copy_to(const ddict &to) const { return core_.copy_to(to.core_); }
	static std::uint64_t synchronise(std::initializer_list<ddict> all)
	{
		std::vector<ddict_core> cores;

		for (const ddict &d : all)
			cores.push_back(d.core_);
		return ddict_core::synchronise(cores);
	}

	// Functions that run next to the data, in processes of their own: see "Functions next to the data" in libddict(7).
	// The pairs for which is_wanted(key, value) is true.
	template <class F> std::vector<value_type> filter(const F &is_wanted) const
	{
		return pairs<V>(core_.visit(ddict_detail::filter<K, V, F>, ddict_detail::sent(is_wanted)));
	}
	// The first `most` pairs, in the order in which comes_first(pair, pair) puts them.
	template <class F> std::vector<value_type> best(std::uint64_t most, const F &comes_first) const
	{
		const auto arg = archive::to_bytes(most, archive::sent_callable<F>(comes_first));

		return pairs<V>(core_.visit(ddict_detail::best<K, V, F>, arg));
	}
	// f(key, value) with each key.
	template <class F> auto map(const F &f) const
	{
		using R = std::decay_t<std::invoke_result_t<const F &, K, V>>;

		return pairs<R>(core_.visit(ddict_detail::map<K, V, R, F>, ddict_detail::sent(f)));
	}
	// Each manager begins with none, which changes nothing when it is combined, and goes on with fold(so_far, key,
	// value); what they have is combined two by two, with combine(one, other). In any order.
	template <class R, class F, class C> R reduce(const R &none, const F &fold, const C &combine) const
	{
		std::vector<std::byte> arg = ddict_detail::sent(fold, combine);
		const ddict_detail::encoded<R> begin(none);
		const bytes b = begin;

		arg.insert(arg.end(), b.begin(), b.end());
		return ddict_codec<R>::read(core_.visit(ddict_detail::reduce<K, V, R, F, C>, arg).data());
	}

	// Input ranges over keys, values, and pairs. A key that is present during the whole walk is met exactly once.
	enum class part { keys, values, pairs };
	template <part P> class walk {
	public:
		using item = std::conditional_t<P == part::keys, K,
						std::conditional_t<P == part::values, V, std::pair<K, V>>>;

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

		explicit walk(const ddict_core &core, ddict_core::bytes prefix = {}, ddict_position from = {})
		    : cursor_(core, P != part::keys, prefix, from)
		{
		}
		ddict_position position() const noexcept { return cursor_.position(); }
		iterator begin() { return iterator(this); }
		std::default_sentinel_t end() const { return {}; }

	private:
		bool advance()
		{
			item_.reset();
			if (!cursor_.next())
				return false;
			if constexpr (P == part::values)
				item_.emplace(ddict_codec<V>::read(cursor_.value()));
			else if constexpr (P == part::pairs)
				item_.emplace(ddict_codec<K>::read(cursor_.key()),
					      ddict_codec<V>::read(cursor_.value()));
			else
				item_.emplace(ddict_codec<K>::read(cursor_.key()));
			return true;
		}
		ddict_core::cursor cursor_;
		std::optional<item> item_;
	};
	walk<part::keys> keys(ddict_position from = {}) const { return walk<part::keys>(core_, {}, from); }
	walk<part::values> values() const { return walk<part::values>(core_); }
	walk<part::pairs> items(ddict_position from = {}) const { return walk<part::pairs>(core_, {}, from); }
	// Those whose keys begin with these characters.
	walk<part::pairs> scan(std::string_view prefix, ddict_position from = {}) const
		requires(std::is_same_v<K, std::string>)
	{
		return walk<part::pairs>(core_, std::as_bytes(std::span(prefix.data(), prefix.size())), from);
	}

	// for (const auto &[key, value] : d)
	class iterator {
	public:
		using inner = typename walk<part::pairs>::iterator;
		using iterator_concept = std::input_iterator_tag;
		using iterator_category = std::input_iterator_tag;
		using value_type = std::pair<K, V>;
		using difference_type = std::ptrdiff_t;
		using pointer = const value_type *;
		using reference = const value_type &;

		iterator() = default;
		explicit iterator(const ddict_core &core)
		    : w_(std::make_shared<walk<part::pairs>>(core)), at_(w_->begin())
		{
		}
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
		std::shared_ptr<walk<part::pairs>> w_;
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
	template <class R> static std::vector<std::pair<K, R>> pairs(const ddict_view &answer)
	{
		std::vector<std::pair<K, R>> out;

		for (bytes left = answer.data(); !left.empty();)
			out.push_back(ddict_detail::next_pair<K, R>(left));
		return out;
	}
	// A value to be written, and how long it is.
	struct writing {
		const V &value;
		std::size_t len;
		explicit writing(const V &v) : value(v), len(ddict_codec<V>::size(v)) {}
		void operator()(std::span<std::byte> to) const { ddict_codec<V>::write(to, value); }
	};

	ddict_core core_;
};

} // namespace ch

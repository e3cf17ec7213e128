// SPDX-License-Identifier: Apache-2.0
// core.hpp - the dictionary on bytes: what ch::ddict<K, V> (ddict.hpp) is a thin typed layer over.
//
// Use it directly when keys and values are bytes anyway, or to write another typed layer. See libddict(7).
#pragma once
#include <channels/channels.hpp>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>

namespace ch {

struct ddict_options {
	unsigned managers = 0;    // processes that hold the data; 0: half of the CPUs this process may use, 1 to 4
	std::size_t memory = 0;   // bytes for keys and values, over all managers; 0: 32 MiB
	unsigned max_clients = 0; // processes that use it at one time; 0: 128
	std::string name{};       // of its directory in shared memory, and in messages; empty: made up
};

namespace ddict_detail {
// A callable that lives as long as the call it is passed to.
template <class Sig> class function_ref;
template <class R, class... A> class function_ref<R(A...)> {
public:
	template <class F>
	requires(!std::is_same_v<std::remove_cvref_t<F>, function_ref>) function_ref(F &&f)
	noexcept // NOLINT: implicit on purpose
	    : obj_(const_cast<void *>(static_cast<const void *>(std::addressof(f)))), call_([](void *obj, A... a) -> R {
		      return (*static_cast<std::remove_reference_t<F> *>(obj))(static_cast<A>(a)...);
	      })
	{
	}
	R operator()(A... a) const { return call_(obj_, static_cast<A>(a)...); }

private:
	void *obj_;
	R (*call_)(void *, A...);
};
} // namespace ddict_detail

namespace dd {
class connection;
class owner;
class batch;
} // namespace dd

// The kind of number that fetch_add adds to: sizeof, plus 0x100 for floating point.
enum class ddict_number : std::uint32_t {};
template <class T>
requires(std::is_arithmetic_v<T> && !std::is_same_v<T, bool> &&
	 sizeof(T) <= 8) inline constexpr ddict_number ddict_number_of{sizeof(T) |
								       (std::is_floating_point_v<T> ? 0x100u : 0u)};

// A handle to a dictionary. Copies are cheap and name the same dictionary; the copies of the handle that create() gave
// own it: the dictionary ends with the last of them in the creating process. Any number of threads may use one handle.
class CH_API ddict_core {
public:
	using bytes = std::span<const std::byte>;
	// Writes a value of exactly the length that was announced, at the place it will stay.
	using value_writer = ddict_detail::function_ref<void(std::span<std::byte>)>;
	// Sees a value where it lies; the bytes are gone when it returns.
	using value_reader = ddict_detail::function_ref<void(bytes)>;

	ddict_core() noexcept;
	explicit ddict_core(const descriptor &d) noexcept; // attaches at the first use
	ddict_core(const ddict_core &o) noexcept;
	ddict_core &operator=(const ddict_core &o) noexcept;
	~ddict_core();
	static ddict_core create(const ddict_options &o);
	static ddict_core attach(const descriptor &d); // now

	explicit operator bool() const noexcept { return is_set_; }
	const descriptor &descr() const noexcept { return descr_; }
	std::string name() const;
	unsigned managers() const;
	ch_peer manager_peer(unsigned m) const;
	unsigned which_manager(bytes key) const;
	// Ends the dictionary for everybody, if this handle owns it.
	void destroy() noexcept;

	void put(bytes key, std::size_t len, value_writer write) const;
	bool get(bytes key, value_reader read) const;
	bool contains(bytes key) const;
	bool erase(bytes key) const;
	std::uint64_t fetch_add(bytes key, ddict_number kind, std::uint64_t delta_bits) const;
	std::uint64_t size() const;
	std::uint64_t clear() const;

	// Many puts under way at a time. What was added is in the dictionary when finish() has returned.
	class CH_API put_batch {
	public:
		explicit put_batch(const ddict_core &d);
		put_batch(const put_batch &) = delete;
		put_batch &operator=(const put_batch &) = delete;
		~put_batch();
		void add(bytes key, std::size_t len, value_writer write);
		void finish();

	private:
		std::unique_ptr<dd::batch> b_;
	};
	// sink(i, value) once for each key, in any order, value NULL where there is none.
	void get_many(std::span<const bytes> keys,
		      ddict_detail::function_ref<void(std::size_t, const bytes *)> sink) const;

	// Walks through all keys, manager by manager.
	class CH_API cursor {
	public:
		cursor(const ddict_core &d, bool with_values);
		cursor(cursor &&) noexcept;
		cursor &operator=(cursor &&) noexcept;
		~cursor();
		bool next(); // false at the end
		bytes key() const noexcept;
		bytes value() const noexcept;

	private:
		struct state;
		std::unique_ptr<state> s_;
	};

private:
	friend class put_batch;
	friend class cursor;
	dd::connection &conn() const;
	dd::connection &resolve() const;

	descriptor descr_{};
	bool is_set_ = false;
	std::shared_ptr<dd::owner> owner_;
	// The process's connection, found at the first use in this process; keep_ changes under a lock only.
	mutable std::shared_ptr<dd::connection> keep_;
	mutable std::atomic<dd::connection *> conn_{nullptr};
};

} // namespace ch

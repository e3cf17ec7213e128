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
#include <optional>
#include <type_traits>
#include <vector>

namespace ch {

// What a put does in a dictionary whose memory is full.
enum class ddict_full : std::uint32_t {
	refuse, // it throws ENOSPC
	wait,   // it waits for memory, as long as its handle waits for anything
	evict,  // keys that were not used for longest make room
};

// On which of the CPUs that its creator may use a dictionary's managers run; their memory lies there too.
enum class ddict_placement : std::uint32_t {
	anywhere,
	compact, // each on a CPU, one NUMA node after the other
	spread,  // each on a CPU, over as many NUMA nodes as there are, in turn
};

// What a dictionary begins with, instead of the number of a checkpoint: nothing, the checkpoint that was persisted last, or
// what the log in its directory says.
inline constexpr std::uint64_t ddict_nothing = ~std::uint64_t{0}, ddict_newest = ddict_nothing - 1,
			       ddict_log = ddict_nothing - 2;

struct ddict_options {
	unsigned managers = 0;    // processes that hold the data; 0: half of the CPUs this process may use, 1 to 4
	std::size_t memory = 0;   // bytes for keys and values, over all managers; 0: 32 MiB
	std::size_t max_memory = 0; // what it may grow to when it is full; 0: it does not grow
	unsigned max_clients = 0; // processes that use it at one time; 0: 128
	std::string name{};       // of its directory in shared memory, and in messages; empty: made up
	ddict_full when_full = ddict_full::refuse;
	std::uint64_t working_set = 1; // checkpoints that are held at a time, 1...65536
	bool wait_for_keys = false;    // see "Checkpoints" in libddict(7); both need a working set of 2 or more
	bool wait_for_writers = false;
	bool read_only = false;        // nobody may write
	unsigned replicas = 1;         // 2: each key is also with another manager, and outlives the death of one
	ddict_placement placement = ddict_placement::anywhere;
	std::vector<std::string> cpus{}; // or lists of CPUs, as "0-3,8": of the first manager, the second...; then again
	bool restart = false; // begin with what was kept under this name, see ddict_core::destroy_for_restart
	nanoseconds timeout = forever; // of every call through the handle that created it, and its copies
	// Files; see "Files" in libddict(7).
	std::string persist_path{};     // a directory for this dictionary's files and nothing else; empty: it has none
	std::uint64_t persist_freq = 0; // each checkpoint whose number it divides is persisted when it retires; 0: none
	unsigned persist_count = 0;     // persisted checkpoints that are kept, the newest; 0: all
	bool persist_log = false;       // all that is written goes to a log too, for flush()
	std::uint64_t restore_from = ddict_nothing;
};

// How a value is put.
struct ddict_put {
	nanoseconds ttl{0};      // the key expires so long after it was put; 0: never
	bool persistent = false; // it need not be written again at each checkpoint
};

// Where a walk is; plain bytes, to go on with another one later.
struct ddict_position {
	std::uint64_t manager = 0, slot = 0;
};

// Calls that took less than so long, and no less than those of the bucket before.
struct ddict_bucket {
	std::uint64_t below_ns, count;
};

// What one operation took in a manager, from its receiving to its answer: of one call in sixteen.
struct ddict_op_stats {
	const char *name;    // "put", "get"...
	std::uint64_t count; // of all calls
	std::uint64_t p50_ns, p99_ns, max_ns;
	std::vector<ddict_bucket> buckets; // that are not empty, shortest first; at most 64
};

// One manager's, at its moment.
struct ddict_stats {
	std::uint64_t memory;  // bytes for keys and values
	std::uint64_t used;    // bytes in use
	std::uint64_t largest; // bytes of the largest value that there is room for
	std::uint64_t keys, clients;
	std::uint64_t pinned;  // values that clients are reading in place
	std::uint64_t waiting; // calls that wait for a value, memory, or a checkpoint
	std::uint64_t evicted, expired;
	std::uint64_t oldest, newest; // checkpoints
	std::uint64_t single;         // keys that are with no other manager, in a dictionary with two replicas
	std::uint64_t deaths, lost;   // of processes that were this manager, and the keys that went with them
	std::vector<ddict_op_stats> ops;
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
class manager;
struct outgoing;
struct pending;
struct visit_head;
} // namespace dd

// The kind of number that fetch_add adds to: sizeof, plus 0x100 for floating point.
enum class ddict_number : std::uint32_t {};
template <class T>
requires(std::is_arithmetic_v<T> && !std::is_same_v<T, bool> &&
	 sizeof(T) <= 8) inline constexpr ddict_number ddict_number_of{sizeof(T) |
								       (std::is_floating_point_v<T> ? 0x100u : 0u)};

// A value where it lies in the manager's memory. It stays as it is, whatever becomes of its key, until the view is
// destroyed or reset. Move-only.
class CH_API ddict_view {
public:
	using bytes = std::span<const std::byte>;

	ddict_view() noexcept;
	ddict_view(ddict_view &&) noexcept;
	ddict_view &operator=(ddict_view &&) noexcept;
	~ddict_view();
	bytes data() const noexcept;
	std::size_t size() const noexcept { return data().size(); }
	std::string_view text() const noexcept
	{
		return {reinterpret_cast<const char *>(data().data()), data().size()};
	}
	void reset() noexcept;

private:
	friend class ddict_core;
	friend class ddict_call;
	std::unique_ptr<dd::pending> p_;
};

// What a function sees that runs next to the data, in a process of its own beside each manager: the keys and values of
// that manager as they were at one moment, where they lie, and the answers of the functions below it in the tree. What
// it answers goes to the one above it, and from the last to the caller.
class CH_API ddict_visit {
public:
	using bytes = std::span<const std::byte>;

	ddict_visit(const ddict_visit &) = delete;
	ddict_visit &operator=(const ddict_visit &) = delete;
	bool next(); // goes on to the next pair; false at the end
	bytes key() const noexcept;
	bytes value() const noexcept;
	bool next_part(); // waits for the next answer from below; false if all were there
	bytes part() const noexcept;
	void answer(bytes more); // puts more behind the answer
	unsigned manager() const noexcept;

private:
	friend class ddict_core;
	friend class dd::manager;
	struct state;
	explicit ddict_visit(state &s) noexcept : s_(s) {}
	static void copy(ddict_visit &v, bytes arg); // see ddict_core::copy_to
	state &s_;
};
// A function of the program that created the dictionary, or of a library that it had loaded then.
using ddict_visitor = void (*)(ddict_visit &v, std::span<const std::byte> arg);

// A call under way. Destroying it forgets the answer, not the call. Move-only; one thread at a time.
class CH_API ddict_call {
public:
	using value_reader = ddict_detail::function_ref<void(std::span<const std::byte>)>;

	ddict_call() noexcept;
	ddict_call(ddict_call &&) noexcept;
	ddict_call &operator=(ddict_call &&) noexcept;
	~ddict_call();
	explicit operator bool() const noexcept { return p_ != nullptr; }
	// Whether done() would not wait.
	bool is_ready() const;
	// Waits for the answer. False if there was no such key, or another value than was expected; throws what the
	// call would have thrown.
	bool done();
	std::uint64_t number() { return done(), arg(); } // what fetch_add and append answer
	// The value that get and pop answer. False if there was none.
	bool read(value_reader sink);

private:
	friend class ddict_core;
	explicit ddict_call(std::unique_ptr<dd::pending> p) noexcept;
	std::uint64_t arg() const noexcept;
	std::unique_ptr<dd::pending> p_;
};

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
	static ddict_core attach(const std::string &name);

	explicit operator bool() const noexcept { return is_set_; }
	const descriptor &descr() const noexcept { return descr_; }
	std::string name() const;
	unsigned managers() const;
	ch_peer manager_peer(unsigned m) const;
	unsigned which_manager(bytes key) const;
	// Ends the dictionary for everybody, if this handle owns it.
	void destroy() noexcept;
	// The same, and what it holds stays in shared memory under its name, until a dictionary of this name is created
	// with ddict_options::restart, or drop_kept() removes it. If it throws, the dictionary goes on.
	void destroy_for_restart();
	static bool drop_kept(const std::string &name); // whether there was something

	// The same dictionary through another handle: one whose calls end after a time (ETIMEDOUT), one that asks only
	// this manager whosever the key is, and back.
	ddict_core within(nanoseconds timeout) const;
	ddict_core directed(unsigned manager) const;
	ddict_core undirected() const;
	bool is_directed() const noexcept { return directed_ >= 0; }
	nanoseconds timeout() const noexcept { return nanoseconds(timeout_ns_); }

	void put(bytes key, std::size_t len, value_writer write, const ddict_put &how = {}) const;
	bool put_if_absent(bytes key, std::size_t len, value_writer write, const ddict_put &how = {}) const;
	bool compare_and_set(bytes key, bytes expected, std::size_t len, value_writer write) const;
	// read is called again if the value was changed or its manager died while it read: what it was given last counts, and
	// nothing if get returns false.
	bool get(bytes key, value_reader read) const;
	std::optional<ddict_view> view(bytes key) const;
	bool pop(bytes key, value_reader read) const;
	bool contains(bytes key) const;
	bool erase(bytes key) const;
	std::uint64_t fetch_add(bytes key, ddict_number kind, std::uint64_t delta_bits) const;
	std::uint64_t append(bytes key, bytes more) const; // the new length
	void wait_for(bytes key, bytes value) const;
	void wait_for(bytes key) const;
	std::uint64_t size() const;
	std::uint64_t clear() const;
	bool freeze(bool is_frozen) const; // whether it was
	bool is_frozen() const;
	std::vector<ddict_stats> stats() const;
	void reset_stats() const; // what operations took is counted from here on
	// Calls fn(v, arg) beside each manager; what the first of them answers.
	ddict_view visit(ddict_visitor fn, bytes arg) const;

	// Puts all that is here, at all checkpoints, into another dictionary, and into a new one that is made as o says.
	// How many keys.
	std::uint64_t copy_to(const ddict_core &to) const;
	ddict_core clone(const ddict_options &o) const;
	// Of dictionaries that are to hold the same, each manager without keys is given those that the same manager of
	// another one has. How many keys.
	static std::uint64_t synchronise(std::span<const ddict_core> all);

	// Every manager holds a copy of a value that was put everywhere; who gets it asks one manager, always the same
	// for one process. Several such puts of one key at a time may leave different copies. If it throws, all managers have
	// it but those that could not be given it.
	void put_everywhere(bytes key, std::size_t len, value_writer write, const ddict_put &how = {}) const;
	bool get_anywhere(bytes key, value_reader read) const;

	// The same calls without waiting for the answer; many may be under way, and calls under way have no order.
	ddict_call start_put(bytes key, std::size_t len, value_writer write, const ddict_put &how = {}) const;
	ddict_call start_put_if_absent(bytes key, std::size_t len, value_writer write, const ddict_put &how = {}) const;
	ddict_call start_compare_and_set(bytes key, bytes expected, std::size_t len, value_writer write) const;
	ddict_call start_get(bytes key) const;
	ddict_call start_pop(bytes key) const;
	ddict_call start_contains(bytes key) const;
	ddict_call start_erase(bytes key) const;
	ddict_call start_fetch_add(bytes key, ddict_number kind, std::uint64_t delta_bits) const;
	ddict_call start_append(bytes key, bytes more) const;
	ddict_call start_wait_for(bytes key, bytes value) const;

	// Checkpoints: the handle's own number, which its copies begin with.
	std::uint64_t checkpoint_id() const noexcept { return checkpoint_.load(std::memory_order_relaxed); }
	void set_checkpoint(std::uint64_t id) const noexcept { checkpoint_.store(id, std::memory_order_relaxed); }
	std::uint64_t checkpoint() const noexcept; // goes on to the next; its number
	std::uint64_t rollback() const noexcept;   // goes back to the last
	std::uint64_t newest_checkpoint() const; // that any manager holds
	std::uint64_t sync_to_newest_checkpoint() const;
	std::uint64_t working_set() const; // how many are held at a time

	// Files. Errors name the file and what is wrong with it.
	// Writes this handle's checkpoint to files; its number. It can be restored when this returns, whatever happens.
	std::uint64_t persist() const;
	// The checkpoints that can be restored, in order.
	std::vector<std::uint64_t> persisted_ids() const;
	// What was persisted replaces what is here, for everybody; this handle goes on at that checkpoint.
	void restore(std::uint64_t id) const;
	// Restores the next checkpoint that was persisted after the one that is here; its number, or none.
	std::optional<std::uint64_t> advance() const;
	// Until all that was written by calls that have returned is in the log on disk.
	void flush() const;

	// Many puts under way at a time. What was added is in the dictionary when finish() has returned.
	class CH_API put_batch {
	public:
		explicit put_batch(const ddict_core &d, const ddict_put &how = {});
		put_batch(const put_batch &) = delete;
		put_batch &operator=(const put_batch &) = delete;
		~put_batch();
		void add(bytes key, std::size_t len, value_writer write);
		void finish();

	private:
		std::unique_ptr<dd::batch> b_;
	};
	// sink(i, value) for each key, in any order, value NULL where there is none. Again for one whose value was changed, or
	// whose manager died, while it read: the last time counts.
	void get_many(std::span<const bytes> keys,
		      ddict_detail::function_ref<void(std::size_t, const bytes *)> sink) const;

	// A value that is written in pieces, of a length that nobody knows before. Nobody sees it before commit();
	// without that it is gone.
	class CH_API writer {
	public:
		writer(const ddict_core &d, bytes key, std::size_t expected_len = 0);
		writer(writer &&) noexcept;
		writer &operator=(writer &&) noexcept;
		~writer();
		void write(bytes piece);
		std::size_t size() const noexcept;
		void commit(const ddict_put &how = {});

	private:
		struct state;
		std::unique_ptr<state> s_;
	};

	// Walks through all keys that begin with a prefix, manager by manager.
	class CH_API cursor {
	public:
		cursor(const ddict_core &d, bool with_values, bytes prefix = {}, ddict_position from = {});
		cursor(cursor &&) noexcept;
		cursor &operator=(cursor &&) noexcept;
		~cursor();
		bool next(); // false at the end
		bytes key() const noexcept;
		bytes value() const noexcept;
		// Where a new cursor goes on behind this one's last page: keys of that page may be met again, none is
		// left out.
		ddict_position position() const noexcept;

	private:
		struct state;
		std::unique_ptr<state> s_;
	};

private:
	friend class put_batch;
	friend class cursor;
	friend class writer;
	friend class ddict_visit;
	dd::connection &conn() const;
	dd::connection &resolve() const;
	std::shared_ptr<dd::connection> share() const;
	dd::outgoing fitted(dd::outgoing out) const;
	unsigned manager_for(bytes key) const;
	unsigned manager_for(std::uint64_t hash) const; // of a key
	ddict_call begin(const dd::outgoing &out) const;
	bool look(bytes key, value_reader read) const;
	void put_to_each(unsigned root, unsigned first, unsigned end, bytes key, std::size_t len, value_writer write,
			 const ddict_put &how) const;
	void put_down_tree(bytes key, std::size_t len, value_writer write, const ddict_put &how) const;
	ddict_call start_visit(const dd::visit_head &head, bytes arg) const;
	static ddict_view visited(ddict_call &&c);
	static ddict_view view_of(std::unique_ptr<dd::pending> p);
	std::uint64_t ask_all(const dd::outgoing &out) const;
	void ask_for_files(const dd::outgoing &out) const;
	void begin_with_kept(const std::string &dir) const;
	std::uint64_t ask_all(dd::outgoing out, std::uint64_t (*fold)(std::uint64_t, std::uint64_t)) const;

	descriptor descr_{};
	bool is_set_ = false;
	int directed_ = -1;
	std::int64_t timeout_ns_ = CH_FOREVER;
	mutable std::atomic<std::uint64_t> checkpoint_{0};
	std::shared_ptr<dd::owner> owner_;
	// The process's connection, found at the first use in this process; keep_ changes under a lock only.
	mutable std::shared_ptr<dd::connection> keep_;
	mutable std::atomic<dd::connection *> conn_{nullptr};
};

} // namespace ch

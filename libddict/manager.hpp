// SPDX-License-Identifier: Apache-2.0
// manager.hpp - the process that serves one shard: one thread, one loop, no waiting for anybody but the next request.
//
// A client is known by an id that the manager gave it, and has a reply channel in the dictionary's control pool. It
// never has more calls under way than that channel holds replies; one that does is dropped, its channel destroyed. What
// belongs to a client that died (its channel, the values it had pinned) is found when another client says hello, when
// memory runs out, and when a client asks.
//
// A call that cannot be answered yet (a value that is waited for, a full dictionary, a checkpoint that others have not
// reached) is set aside with its deadline and tried again when something changed that it may depend on.
#pragma once
#include "connection.hpp"
#include "cpus.hpp"
#include "persister.hpp"
#include "store.hpp"
#include <ddict/core.hpp>
#include <array>
#include <list>
#include <map>
#include <set>
#include <unordered_map>

namespace ch::dd {

// What a manager process is told; passed through ch_spawner_spawn.
struct manager_arg {
	unsigned char requests[64];           // its request channel
	unsigned char next[64], previous[64]; // its neighbours'
	unsigned char control[64];
	unsigned char directory[64]; // the segment, for its words
	unsigned index, nr_managers;
	window_size windows;
	std::uint64_t incarnation;
	manager_rules rules;
	persist_rules files;
	cpu_mask cpus;
};

// Runs in the manager process; its exit status.
int manager_main(const void *arg, std::size_t len);

// Bytes of what tells a neighbour of a key with a value.
std::size_t letter_len(std::size_t klen, std::size_t vlen);

inline constexpr const char *no_files = "the dictionary was created without persist_path";

class manager {
public:
	explicit manager(const manager_arg &arg);
	// Until the request channel is closed or destroyed.
	void serve();

private:
	struct client {
		std::uint64_t id = 0; // 0: free
		ch_peer peer{};
		ch::channel replies;
		std::unordered_map<std::uint64_t, kept> pins;
	};
	// A request that was checked. key and value lie in the message.
	struct call {
		request head;
		bytes key, value;
		client *from;
		ch::message *owner; // of the message, if it has a block of its own
	};
	// A call that waits: its message, and for what.
	struct parked {
		std::vector<std::byte> copy;
		ch::message owned;
		std::int64_t until;
		std::uint64_t key; // its hash; the call may go on when this key was written
		std::uint64_t asked; // see reserve()
		bool is_for_any;   // or when anything was
	};
	enum class outcome { answered, on_key, on_any }; // the latter two: it has to wait

	void look_around(bool is_idle);
	void ask_for_keys();
	void take_large();
	void handle(bytes msg, ch::message *owner);
	outcome dispatch(call &c);
	outcome dispatch_files(call &c);
	outcome dispatch_write(call &c);
	outcome write(call &c);
	static bool parse(bytes msg, call &out);
	outcome timed(call &c);

	void hello(const call &c);
	outcome get(const call &c, bool and_erase);
	outcome put(call &c);
	int put_or_adopt(call &c, bytes value, const manner &how);
	outcome erase(const call &c);
	outcome fetch_add(const call &c);
	outcome append(const call &c);
	outcome compare_and_set(call &c);
	outcome wait_for(const call &c);
	outcome put_many(const call &c);
	void contains(const call &c);
	void size(const call &c);
	void clear(const call &c);
	void scan(const call &c);
	outcome freeze(const call &c);
	void get_many(const call &c);
	int make_room(std::size_t len);
	void statistics(const call &c);
	void release(const call &c);
	void send_value(const call &c, const version &v);
	template <class Try> int with_room(Try &&attempt);
	bool evicts() const { return rules_.when_full == static_cast<std::uint32_t>(ddict_full::evict); }
	bool evict_one();
	outcome answer_or_wait(const call &c, int err, std::uint64_t arg = 0);
	manner manner_of(const call &c) const;
	static std::int64_t expiry_of(const call &c);

	// promise.cpp
	void keep_promise(call &c);
	void offer_promises();
	bool has_no_promises();
	void go_on_to(std::uint64_t checkpoint);
	void reap_rows();

	// checkpoint.cpp
	int enter(const call &c, bool &has_to_wait);
	bool may_retire(std::uint64_t checkpoint, std::uint64_t for_whom);
	bool keys_are_complete(std::uint64_t checkpoint);
	bool writers_have_gone_on(std::uint64_t checkpoint, std::uint64_t for_whom) const;
	const version *readable(const call &c, bytes key, bool &has_to_wait);

	// visit.cpp
	struct job {
		std::uint64_t client = 0, call = 0; // who asked, and the name of the call
		std::uint64_t secret = 0;           // that the child answers with
		std::int64_t until = -1;
		ch::message arg;   // the request, if it has a block of its own
		pid_t pid = 0;     // 0: it is gone, and
		int status = 0;    // this is how, as waitpid reports it
		unsigned looks = 0; // since then
		bool is_answered = false;
	};
	outcome visit(call &c);
	[[noreturn]] void run_visit(std::uint64_t secret, pid_t parent, ddict_visitor fn, const visit_head &h,
				    const call &c) noexcept;
	void send_visited(request &head, bytes answer) noexcept;
	void visited(call &c);
	void fail_job(job &j, int status, std::string_view why);
	void look_at_jobs(bool is_idle);
	bool end_jobs();

	// mirror.cpp
	struct letter {
		ch::channel *to;
		request head;
		mirror_head extra;
		std::vector<std::byte> key, small;
		kept storage; // of a value that is not small
		bytes value;
		ch::message room;         // where it is written, if it is long and there is room
		std::size_t key_sent = 0; // bytes, of a key that goes in pieces
		void write(std::byte *to) const;
	};
	struct finished { // a call of a client, and what it answered
		std::uint64_t id = 0;
		std::uint64_t result = 0;
	};
	using calls_of = std::array<finished, credits>;
	using known_calls = std::unordered_map<std::uint64_t, calls_of>;
	void begin_as_successor();
	void mirror(bytes key, std::uint64_t at, const call *c, std::uint64_t result);
	void mirror_all(ch::channel *to, store &from, op what, std::uint64_t oldest, std::uint64_t newest);
	void post(ch::channel *to, op what, bytes key, const version *v, std::int64_t expires, const call *c,
		  std::uint64_t result);
	void post(ch::channel *to, op what, bytes key, const version *v, std::int64_t expires, const call *c,
		  const mirror_head &extra);
	bool flush();
	static int deliver(letter &l);
	static int deliver_key(letter &l);
	bool is_from_manager(const call &c) const;
	void from_manager(call &c);
	void do_as_told(call &c, const mirror_head &extra);
	void take_copy(call &c, store &into);
	static void note_done(known_calls &known, const call &c, std::uint64_t result);
	void post_calls(ch::channel *to, const known_calls &known);
	void refill(const call &c);
	bool is_repeated(const call &c);
	void work_through_early();

	// spread.cpp
	struct branch {
		std::uint32_t first, end; // positions
		unsigned child;
		std::uint64_t incarnation; // the child's, when it was given the value
	};
	struct spreading {
		std::uint64_t id, client; // client: 0 if a manager is to be told
		std::uint64_t call;       // what they call it
		unsigned parent;          // that manager
		std::vector<branch> open; // that have not told yet
		std::vector<spread_failure> failed;
		std::uint32_t first = 0; // this manager's position
	};
	outcome spread(call &c);
	void spread_on(call &c);
	void spread_done(const call &c);
	void hand_on(call &c, const spread_tail &t, spreading &&what, int err);
	int keep_here(call &c);
	int give(const call &c, const spread_tail &t, std::uint64_t id, unsigned child);
	bool tell(spreading &s);
	void look_at_spreads(bool is_idle);
	ch::channel &way_to(unsigned m);

	// copies.cpp
	int claim_copy(std::size_t klen, std::size_t vlen);
	int reserve(bytes key, std::size_t vlen, std::uint64_t at);
	template <class Try> int with_both_rooms(bytes key, std::uint64_t at, std::size_t vlen, Try &&attempt);
	bool next_has_room() const;
	void ask_for_room(ch::channel &whom, std::size_t len, std::uint32_t flags);
	void give_room(std::size_t len, bool is_for_keys);
	void room_is(const mirror_head &said);
	bool awaits_room(letter &l);
	bool copy_entry(const entry &e);
	void copy_owed();
	void drop_copy();
	void copy_was_dropped(bytes key);
	void crowd(store &in, bytes key, bytes value, const manner &how);
	bool move_in();
	std::uint64_t nr_single() const;

	// persist.cpp
	void begin_files(const persist_rules &files);
	void keep_files();
	outcome persist(const call &c);
	void persisted(const call &c);
	void restore(const call &c);
	void commit_restored(const call &c, std::unique_ptr<persister> &from);
	std::unique_ptr<persister> kept_in(const call &c, bool is_reader);
	outcome keep(const call &c);
	void work_on_files(persister &p);
	void flush_log(const call &c);

	// waiting.cpp
	void park(const call &c, bytes msg, ch::message *owner, outcome why);
	void changed(bytes key, std::uint64_t at, const call *c = nullptr, std::uint64_t result = 0);
	void try_parked();
	std::int64_t patience() const;

	void answer(const call &c, int status, std::uint64_t arg = 0, std::uint64_t off = 0);
	void answer(client &to, reply head, bytes body);
	// text says why. is_whole: it names the manager already.
	void answer_text(client &to, std::uint64_t id, int status, std::string_view text, bool is_whole = false);
	void answer_text(const call &c, int status, std::string_view text)
	{
		answer_text(*c.from, c.head.id, status, text);
	}
	bool send(client &to, const void *msg, std::size_t len);
	template <class Fill> void answer_page(const call &c, Fill &&fill);
	client *find_client(std::uint64_t id);
	client &fresh_client();
	void drop(client &c) noexcept;
	void reap();

	ch::channel requests_;
	memory_pool control_;
	segment seg_; // of the pool, for places in it
	store store_;
	std::deque<client> clients_;
	std::uint64_t next_pin_ = 1;
	unsigned index_;
	manager_rules rules_;
	bool is_frozen_ = false;

	std::uint64_t newest_ = 0;                                        // checkpoint of the working set
	std::map<std::uint64_t, std::set<std::uint64_t>> writers_;        // clients that wrote at each
	std::uint64_t unchecked_ = 0, unchecked_for_ = ~std::uint64_t{0}; // see keys_are_complete

	std::list<parked> parked_;
	std::vector<std::uint64_t> written_; // hashes of keys, while calls wait
	bool is_retrying_ = false;
	unsigned looks_ = 0;
	std::list<job> jobs_; // functions that run next to the data
	std::list<spreading> spreads_; // values on their way to other managers
	std::uint64_t nr_spreads_ = 0;
	std::unique_ptr<directory> known_; // once another manager than a neighbour is needed
	std::vector<ch::channel> ways_;    // to the others' requests, those that were needed
	descriptor dir_;      // of the dictionary
	manager_stats stats_{};
	unsigned nr_served_ = 0;
	bool has_dead_rows_ = true; // in the window, as far as is known: a predecessor's clients may have died
	std::uint64_t shown_before_ = 0; // gets that clients answered themselves, before these statistics began

	// Two replicas: this manager's keys are also with the next one, and the previous one's in mirror_.
	ch::channel next_, previous_;
	segment dir_seg_;
	manager_words *words_ = nullptr; // of all managers
	unsigned nr_managers_;
	std::uint64_t incarnation_;
	store mirror_;
	std::uint64_t mirror_oldest_ = 0, mirror_newest_ = 0;
	known_calls mirrored_calls_; // of the previous one's clients
	known_calls repeated_;       // of the predecessor's clients
	std::deque<letter> outbox_;                                  // what a neighbour had no room for yet
	struct held {
		std::uint64_t client;
		std::vector<std::byte> message;
	};
	std::deque<held> answers_; // that wait until the outbox is empty
	struct early {
		std::vector<std::byte> copy;
		ch::message owned;
	};
	std::deque<early> early_; // requests that wait for the same, or for this manager to have its keys
	std::unique_ptr<persister> persister_; // if the dictionary has a directory for files
	std::unique_ptr<persister> kept_;      // for one that ends, or begins, see kept.cpp
	bool was_frozen_ = false;              // before it was to be kept
	// Room for copies, see copies.cpp.
	ch::message room_; // for the copy of the write that is being done
	std::uint64_t asked_ = 0, answered_ = 0; // by the next manager, when the call at hand asked, and by now
	std::uint64_t answered_len_ = 0;
	int answered_err_ = 0;
	std::int64_t asked_when_ = 0;
	std::int64_t late_ = 0; // when a successor is owed the copies that it has no room for
	std::deque<std::vector<std::byte>> owed_; // keys that the next manager has no copy of, and is to have
	struct crowded {
		store *in;
		std::vector<std::byte> key;
		std::uint64_t at;
	};
	std::deque<crowded> crowd_; // values that lie in private memory
	std::vector<std::byte> long_key_[2]; // that comes in pieces, from the previous manager and from the next
	std::uint64_t copied_to_ = 1; // the next manager's incarnation that was sent all keys

	bool is_filling_ = false;
	std::uint64_t filled_by_ = 0; // the next manager's incarnation that is asked
};

// Memory that a dead client still holds is found before the dictionary calls itself full; then others make room, if
// that is how this dictionary was made.
template <class Try> int manager::with_room(Try &&attempt)
{
	int err = attempt();

	if (err != -ENOSPC)
		return err;
	if (end_jobs() || !is_retrying_)
		reap();
	err = attempt();
	while (err == -ENOSPC && evict_one())
		err = attempt();
	return err;
}

// A write needs room here and, for the copy of the value of vlen bytes, with the next manager.
template <class Try> int manager::with_both_rooms(bytes key, std::uint64_t at, std::size_t vlen, Try &&attempt)
{
	const int err = rules_.replicas > 1 ? reserve(key, vlen, at) : 0;

	return err < 0 ? err : with_room(attempt);
}

} // namespace ch::dd

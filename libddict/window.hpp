// SPDX-License-Identifier: Apache-2.0
// window.hpp - what a manager shows of its shard, so that clients read it without asking: a cache of places of values. And
// how clients put without waiting for an answer.
//
// A manager that has answered a get puts the place of key and value into one of the window's panes, and takes it away
// before it changes either. Which pane: one of a few that the key's hash names; another key's gives way. Who finds no pane
// asks the manager, so a window may be empty, and what it does not say is not known from it.
//
// The manager alone fills panes; each is a sequence lock (Boehm, "Can seqlocks get along with programming language
// memory models?", 2012): odd while shown, and never the same number again. A short value is copied out, and counts
// if the number is still the same afterwards. A long one is read in place: the reader names it in one of its hooks first, a
// hazard pointer (Michael 2004), and looks at the number again; of "it is hooked" and "it is hidden" one sees the
// other, for both are followed by a full fence. The manager frees no value that it has shown while it hangs on a hook.
//
// A client that dies leaves its hooks; whoever finds the owner of a row dead empties the row. A manager that dies shows on
// what it had, and what it had is freed by a sweeper: so a reader asks at last whether it is held (ch_segment_holds), and
// whether the manager is still this manager's process, and only then its copy counts. A successor hides all first.
//
// A promised put is over when its message is in the manager's channel, for whoever asks the manager later stands behind it
// there. Whoever looks into the window does not, so the client notes the key's hash in its row first, and then takes what
// is shown of the key away; and the manager shows no key that is noted: it fills the pane, looks at all rows, and shows it if
// nobody has changed the number since. Of "it is noted" and "it is filled" one sees the other: each is followed by a
// full fence before it looks. So nothing is shown that a put that has returned has replaced. What the manager would
// refuse it says before, in may_promise: it is taken away and all rows are waited for where puts are to end, and a short
// value for which there is no memory is kept in the manager's own. A row of a client that died with a promise open is
// settled when a message that the manager has sent to itself since comes back: what was sent before has come by then.
#pragma once
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace ch::dd {

struct entry;

/*
 * Shared memory.
 * | word         | written by       | read by | order                                                       |
 * | pane.number  | the manager; clients, to hide | both | [N1] release when shown, [N2] acquire; [N3] fences when hidden |
 * | pane, others | the manager, between hidden and shown | clients | relaxed: within the number's        |
 * | pane.is_used | both             | manager | relaxed: a hint for eviction                                |
 * | row.owner    | its client; the manager if that is dead | both | acq_rel: the row is its                |
 * | row.promises | its client to open, the manager to keep | both | [P1] a fence when noted; [P2] a fence |
 * | row.gets     | its client       | manager | relaxed: statistics                                         |
 * | row.hooks    | its client       | manager | [G1] a fence when set, release when cleared; [G2] a fence, acquire |
 * | nr_rows      | clients, upwards | manager | relaxed: with the hooks' fences                             |
 * | oldest, newest | the manager    | clients | relaxed: a call that overlaps its change may see either     |
 * | may_promise  | the manager      | clients | [P1] [P2]: with promises                                    |
 */
struct shown {
	std::atomic<std::uint64_t> number;
	std::atomic<std::uint64_t> hash;
	std::atomic<std::uint64_t> key, value; // places in the manager's segment
	std::atomic<std::uint64_t> vlen;
	std::atomic<std::uint32_t> klen;
	std::atomic<std::uint32_t> is_used;  // since the manager looked
	std::atomic<std::uint64_t> at;       // checkpoint
	std::atomic<std::int64_t> expires;   // CLOCK_MONOTONIC, ns; 0: never
};
static_assert(sizeof(shown) == 64);

inline constexpr unsigned nr_hooks = 14;
// Open ones of one client, for those who ask stand behind them; of keys whose hashes say the same line, so that the manager
// looks at one line of each client.
inline constexpr unsigned promise_lines = 4, promises_of_line = 8, promises_max = promise_lines * promises_of_line;

struct window_row {
	std::atomic<std::uint64_t> owner; // a peer; 0: free
	std::atomic<std::uint64_t> gets;  // that it answered itself
	std::atomic<std::uint64_t> hooks[nr_hooks]; // places of values, plus 1; 0: none
	std::atomic<std::uint64_t> promises[promises_max]; // struct note
};
static_assert(sizeof(window_row) == 384);

// A key with an open promise, and to which process that serves the manager it was made: so much of both as tells them
// apart. One to a predecessor binds nobody.
struct note {
	std::uint64_t word = 0; // 0: none

	note() = default;
	explicit note(std::uint64_t w) : word(w) {}
	note(std::uint64_t hash, std::uint64_t incarnation) : word((hash & ~mask) | (incarnation << 1 & mask) | 1) {}
	bool is_of(std::uint64_t hash) const { return ((word ^ hash) & ~mask) == 0; }
	// Made to that process: 0; to an earlier one: negative; or positive.
	int age(std::uint64_t incarnation) const
	{
		return static_cast<std::int16_t>((word & mask & ~std::uint64_t{1}) - (incarnation << 1 & mask));
	}
	bool binds(std::uint64_t incarnation) const { return word && age(incarnation) == 0; }

private:
	static constexpr std::uint64_t mask = 0xffff;
};

struct window_head {
	std::atomic<std::uint64_t> oldest, newest; // checkpoints that are held
	std::atomic<std::uint32_t> nr_rows; // the first so many were in use
	std::atomic<std::uint32_t> may_promise;
	std::uint32_t pad[26];
};
static_assert(sizeof(window_head) == 128);

// A pane as it was read, or is to be shown.
struct pane {
	std::uint64_t hash = 0, key = 0, value = 0, vlen = 0, at = 0;
	std::uint32_t klen = 0;
	std::int64_t expires = 0;
};

// How large the windows of a dictionary are.
struct window_size {
	std::uint32_t panes = 0; // a power of two
	std::uint32_t rows = 0;

	static window_size of(std::uint64_t memory, unsigned clients); // of one manager
	bool is_sound() const { return std::has_single_bit(panes) && panes >= 4 && rows <= 1u << 17; }
	std::size_t bytes() const
	{
		return sizeof(window_head) + rows * sizeof(window_row) + panes * sizeof(shown);
	}
};

// One manager's, as everybody sees it.
class window {
public:
	static constexpr std::uint32_t none = ~std::uint32_t{0};
	static constexpr unsigned ways = 4;

	window() = default;
	window(void *memory, window_size size);
	explicit operator bool() const { return head_; }

	// Clients. The row of this process, or none if all are taken.
	std::uint32_t enter(std::uint64_t self) const;
	void leave(std::uint32_t row) const;
	// The next pane that shows this hash: nr is 0 at first, and counts on; none if there is no more. number: see is_still.
	std::uint32_t find(std::uint64_t hash, unsigned &nr, pane &out, std::uint64_t &number) const;
	// Whether what was read of the pane, and where it points to, was read while it showed that. Comes behind the reads.
	bool is_still(std::uint32_t p, std::uint64_t number) const
	{
		std::atomic_thread_fence(std::memory_order_acquire); // [N4] pairs with [N3]: what came behind it was not read
		return panes_[p].number.load(std::memory_order_relaxed) == number; // behind the fence
	}
	// From now on the value is not freed, if the pane still shows it: true. The hook is its caller's alone.
	bool hook(std::uint32_t row, unsigned i, std::uint64_t place, std::uint32_t p, std::uint64_t number) const
	{
		rows_[row].hooks[i].store(place + 1, std::memory_order_relaxed); // before the fence
		std::atomic_thread_fence(std::memory_order_seq_cst);            // [G1] pairs with [G2]
		return panes_[p].number.load(std::memory_order_relaxed) == number; // behind the fence
	}
	void unhook(std::uint32_t row, unsigned i) const
	{
		rows_[row].hooks[i].store(0, std::memory_order_release); // [G1] pairs with [G2]: it was read before
	}
	void count_get(std::uint32_t row) const { rows_[row].gets.fetch_add(1, std::memory_order_relaxed); } // statistics
	void use(std::uint32_t p) const
	{
		if (!panes_[p].is_used.load(std::memory_order_relaxed))     // a hint
			panes_[p].is_used.store(1, std::memory_order_relaxed); // as above
	}
	std::uint64_t oldest() const { return head_->oldest.load(std::memory_order_relaxed); } // see the table
	// Whether puts at this checkpoint may be promised; promise() looks again.
	bool may_promise(std::uint64_t at) const
	{
		return head_->may_promise.load(std::memory_order_relaxed) && // a look
		       head_->newest.load(std::memory_order_relaxed) == at;   // see the table
	}
	// Opens a promise to that process: from now on until the manager has kept it the key is not shown. False: not now, or
	// `most` are open in its line; most of 0: or any is. It is kept by its message, which says the place in the row, or
	// withdrawn. place: where to look first.
	bool promise(std::uint32_t row, std::uint64_t incarnation, std::uint64_t at, std::uint64_t hash, unsigned &place,
		     unsigned most = promises_of_line) const;
	void withdraw(std::uint32_t row, std::uint64_t incarnation, unsigned place) const;

protected:
	std::uint32_t rows_in_use() const;
	static unsigned line_of(std::uint64_t hash) { return (hash >> 32) % promise_lines * promises_of_line; }
	bool note_down(window_row &row, std::uint64_t hash, std::uint64_t incarnation, unsigned &place, unsigned most) const;
	static bool is_quiet(const window_row &row, std::uint64_t incarnation);

	window_head *head_ = nullptr;
	window_row *rows_ = nullptr;
	shown *panes_ = nullptr;
	window_size size_{};
};

// The same with what its manager knows of it.
class own_window : public window {
public:
	// Hides all that a predecessor has shown.
	own_window(void *memory, window_size size, std::uint64_t incarnation);

	// A pane for the key, which shows nothing yet. The entry that it was taken from has none then.
	std::uint32_t take(std::uint64_t hash, entry *tenant) noexcept;
	void show(std::uint32_t p, const pane &what) noexcept; // unless a promise is open for the key
	void hide(std::uint32_t p) noexcept;
	void give_back(std::uint32_t p) noexcept; // and hides it
	bool take_use(std::uint32_t p) noexcept
	{
		return panes_[p].is_used.exchange(0, std::memory_order_relaxed); // a hint
	}
	// Whether somebody reads the value at this place, whose pane is hidden.
	bool is_hooked(std::uint64_t place) const noexcept;
	unsigned nr_hooked() const noexcept;
	std::uint64_t nr_gets() const noexcept; // also of clients that are gone
	unsigned nr_hooks_at_most() const { return size_.rows * nr_hooks; }
	void set_oldest(std::uint64_t at) noexcept { head_->oldest.store(at, std::memory_order_relaxed); } // see the table
	void set_newest(std::uint64_t at) noexcept { head_->newest.store(at, std::memory_order_relaxed); } // see the table

	void let_promise(bool may) noexcept { head_->may_promise.store(may, std::memory_order_relaxed); } // see is_quiet
	// Whether no promise is open; comes behind what is to be seen by those who promise.
	bool is_quiet() const noexcept;
	// A promise to that process has been kept.
	void keep(std::uint64_t row, std::uint64_t incarnation, std::uint64_t place) noexcept;
	// Empties rows of the dead. ask(row, owner) for one with an open promise: settle() when all has come that was sent.
	template <class Ask> void reap(Ask &&ask);
	void settle(std::uint64_t row, std::uint64_t owner) noexcept;

private:
	bool is_noted(std::uint64_t hash) const noexcept;
	bool has_died(std::uint32_t row, std::uint64_t &owner) noexcept;

	std::uint64_t incarnation_;
	std::unique_ptr<entry *[]> tenants_;
	std::uint32_t turn_ = 0;
};

template <class Ask> void own_window::reap(Ask &&ask)
{
	const std::uint32_t nr = rows_in_use();

	for (std::uint32_t i = 0; i < nr; i++) {
		std::uint64_t owner;

		if (!has_died(i, owner))
			continue;
		if (window::is_quiet(rows_[i], incarnation_))
			settle(i, owner);
		else
			ask(i, owner);
	}
}

} // namespace ch::dd

// SPDX-License-Identifier: Apache-2.0
// window.cpp - panes and rows: the manager's side of a window, and the client's search in it.
#include "window.hpp"
#include "store.hpp"
#include <algorithm>
#include <channels/channels.hpp>
#include <sched.h>

namespace ch::dd {

namespace {

constexpr std::uint64_t bytes_a_pane = 1024; // of the manager's memory
constexpr std::uint32_t panes_min = 64, panes_max = 1u << 20;

// Looks for a promise to be kept, before its client rather asks. A manager keeps sixteen in some microseconds, if it runs; so
// now and then it is given the processor that it may be waiting for.
constexpr unsigned looks_max = 512, yield_each = 32;

constexpr auto relaxed = std::memory_order_relaxed;

void pause(unsigned nr)
{
	if (nr % yield_each == yield_each - 1)
		sched_yield();
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

// The panes of a hash in the order in which they are tried.
std::uint32_t way(std::uint64_t hash, unsigned i, std::uint32_t panes)
{
	const auto set = static_cast<std::uint32_t>(hash) & (panes / window::ways - 1);

	return set * window::ways + ((static_cast<unsigned>(hash >> 62) + i) % window::ways);
}

} // namespace

window_size window_size::of(std::uint64_t memory, unsigned clients)
{
	const std::uint64_t panes = std::clamp<std::uint64_t>(memory / bytes_a_pane, panes_min, panes_max);

	return {static_cast<std::uint32_t>(std::bit_floor(panes)), clients};
}

window::window(void *memory, window_size size)
    : head_(static_cast<window_head *>(memory)), rows_(reinterpret_cast<window_row *>(head_ + 1)),
      panes_(reinterpret_cast<shown *>(rows_ + size.rows)), size_(size)
{
}

std::uint32_t window::rows_in_use() const
{
	return std::min(head_->nr_rows.load(relaxed), size_.rows); // see the table
}

std::uint32_t window::enter(std::uint64_t self) const
{
	for (std::uint32_t i = 0; i < size_.rows; i++) {
		std::uint64_t owner = 0;

		if (!rows_[i].owner.compare_exchange_strong(owner, self, std::memory_order_acq_rel, relaxed))
			continue;
		std::uint32_t nr = head_->nr_rows.load(relaxed); // see the table
		while (nr <= i && !head_->nr_rows.compare_exchange_weak(nr, i + 1, relaxed, relaxed)) // as above
			;
		return i;
	}
	return none;
}

void window::leave(std::uint32_t row) const
{
	rows_[row].owner.store(0, std::memory_order_release); // pairs with the exchange in enter()
}

std::uint32_t window::find(std::uint64_t hash, unsigned &nr, pane &out, std::uint64_t &number) const
{
	while (nr < ways) {
		const std::uint32_t p = way(hash, nr++, size_.panes);
		const shown &s = panes_[p];

		number = s.number.load(std::memory_order_acquire);          // [N2] pairs with [N1]
		if (!(number & 1) || s.hash.load(relaxed) != hash) // all that is read here counts if is_still()
			continue;
		out.hash = hash;
		out.key = s.key.load(relaxed);
		out.value = s.value.load(relaxed);
		out.vlen = s.vlen.load(relaxed);
		out.klen = s.klen.load(relaxed);
		out.at = s.at.load(relaxed);
		out.expires = s.expires.load(relaxed);
		return p;
	}
	return none;
}

// Into a place that is free, or has what was promised to a predecessor.
bool window::note_down(window_row &row, std::uint64_t hash, std::uint64_t incarnation, unsigned &place, unsigned most) const
{
	const note mine(hash, incarnation);

	if (most == 0 && !is_quiet(row, incarnation))
		return false;
	for (unsigned i = 0; i < std::max(most, 1u); i++) {
		const unsigned at = line_of(hash) + (place + i) % std::max(most, 1u);
		auto &p = row.promises[at];
		note there(p.load(relaxed)); // the exchange knows

		if (there.word && there.age(incarnation) > 0)
			return false; // another thread knows a successor
		if (there.binds(incarnation))
			continue;
		if (!p.compare_exchange_strong(there.word, mine.word, relaxed, relaxed)) // before the fence
			continue;
		place = at;
		return true;
	}
	return false;
}

bool window::is_quiet(const window_row &row, std::uint64_t incarnation)
{
	return std::none_of(std::begin(row.promises), std::end(row.promises), [&](const std::atomic<std::uint64_t> &p) {
		return note(p.load(relaxed)).binds(incarnation); // the manager's look is behind a fence; its client's is a hint
	});
}

bool window::promise(std::uint32_t row, std::uint64_t incarnation, std::uint64_t at, std::uint64_t hash, unsigned &place,
		     unsigned most) const
{
	for (unsigned looks = 0; !note_down(rows_[row], hash, incarnation, place, most); looks++) {
		if (looks == looks_max)
			return false;
		pause(looks);
	}
	std::atomic_thread_fence(std::memory_order_seq_cst); // [P1] pairs with [P2]
	if (!may_promise(at)) {
		withdraw(row, incarnation, place);
		return false;
	}
	for (unsigned i = 0; i < ways; i++) {
		shown &s = panes_[way(hash, i, size_.panes)];

		if (s.hash.load(relaxed) != hash) // behind the fence
			continue;
		std::uint64_t number = s.number.load(relaxed); // the exchange knows
		// Also one that is hidden, for it may be about to be shown. The message's release is behind it.
		while (!s.number.compare_exchange_weak(number, (number | 1) + 1, relaxed, relaxed))
			;
	}
	return true;
}

// Nothing was sent. If the place has another's note by now, this one was made to a predecessor.
void window::withdraw(std::uint32_t row, std::uint64_t incarnation, unsigned place) const
{
	note there(rows_[row].promises[place].load(relaxed)); // the exchange knows

	if (there.binds(incarnation))
		rows_[row].promises[place].compare_exchange_strong(there.word, 0, relaxed, relaxed); // as above
}

own_window::own_window(void *memory, window_size size, std::uint64_t incarnation)
    : window(memory, size), incarnation_(incarnation), tenants_(std::make_unique<entry *[]>(size.panes))
{
	let_promise(false);
	for (std::uint32_t p = 0; p < size_.panes; p++)
		hide(p);
}

bool own_window::is_quiet() const noexcept
{
	std::atomic_thread_fence(std::memory_order_seq_cst); // [P2] pairs with [P1]
	const std::uint32_t nr = rows_in_use();

	return std::all_of(rows_, rows_ + nr, [this](const window_row &r) { return window::is_quiet(r, incarnation_); });
}

bool own_window::is_noted(std::uint64_t hash) const noexcept
{
	std::atomic_thread_fence(std::memory_order_seq_cst); // [P2] pairs with [P1]
	const std::uint32_t nr = rows_in_use();

	for (std::uint32_t i = 0; i < nr; i++)
		for (unsigned k = 0; k < promises_of_line; k++) {
			const note n(rows_[i].promises[line_of(hash) + k].load(relaxed)); // behind the fence

			if (n.is_of(hash) && n.binds(incarnation_))
				return true;
		}
	return false;
}

void own_window::keep(std::uint64_t row, std::uint64_t incarnation, std::uint64_t place) noexcept
{
	if (row < size_.rows && place < promises_max)
		withdraw(static_cast<std::uint32_t>(row), incarnation, static_cast<unsigned>(place));
}

bool own_window::has_died(std::uint32_t row, std::uint64_t &owner) noexcept
{
	owner = rows_[row].owner.load(std::memory_order_acquire); // its client's exchange
	if (owner == 0 || ch_peer_is_alive({owner}))
		return false;
	for (auto &h : rows_[row].hooks)
		h.store(0, std::memory_order_release); // [G1] pairs with [G2]
	return true;
}

void own_window::settle(std::uint64_t row, std::uint64_t owner) noexcept
{
	if (row >= size_.rows || owner == 0 || rows_[row].owner.load(std::memory_order_acquire) != owner) // as in has_died
		return;
	for (auto &p : rows_[row].promises)
		p.store(0, relaxed); // its writer is dead, and leave() releases
	leave(static_cast<std::uint32_t>(row));
}

std::uint32_t own_window::take(std::uint64_t hash, entry *tenant) noexcept
{
	std::uint32_t p = none;

	for (unsigned i = 0; i < ways && p == none; i++)
		if (const std::uint32_t w = way(hash, i, size_.panes); !tenants_[w])
			p = w;
	if (p == none) {
		p = way(hash, static_cast<unsigned>(turn_++ % ways), size_.panes);
		tenants_[p]->shown_in = none;
		give_back(p);
	}
	tenants_[p] = tenant;
	return p;
}

void own_window::show(std::uint32_t p, const pane &what) noexcept
{
	shown &s = panes_[p];
	std::uint64_t number = s.number.load(relaxed); // a client may hide it, and the exchange knows

	if (number & 1)
		return; // that is what it shows
	s.hash.store(what.hash, relaxed); // it is hidden; see the number
	s.key.store(what.key, relaxed);
	s.value.store(what.value, relaxed);
	s.vlen.store(what.vlen, relaxed);
	s.klen.store(what.klen, relaxed);
	s.at.store(what.at, relaxed);
	s.expires.store(what.expires, relaxed);
	if (!is_noted(what.hash))
		// [N1] pairs with [N2]
		s.number.compare_exchange_strong(number, number + 1, std::memory_order_release, relaxed);
}

void own_window::hide(std::uint32_t p) noexcept
{
	auto &at = panes_[p].number;
	std::uint64_t number = at.load(relaxed); // the exchange knows

	while ((number & 1) && !at.compare_exchange_weak(number, number + 1, relaxed, relaxed)) // before the fence
		;
	// [N3] pairs with [N4]: who reads what changes from here on, sees this number or a later one.
	std::atomic_thread_fence(std::memory_order_release);
}

void own_window::give_back(std::uint32_t p) noexcept
{
	hide(p);
	tenants_[p] = nullptr;
}

bool own_window::is_hooked(std::uint64_t place) const noexcept
{
	std::atomic_thread_fence(std::memory_order_seq_cst); // [G2] pairs with [G1]: hidden before, hooks are read behind it
	const std::uint32_t nr = rows_in_use(); // behind the fence

	for (std::uint32_t i = 0; i < nr; i++)
		for (const auto &h : rows_[i].hooks)
			if (h.load(std::memory_order_acquire) == place + 1) // [G2] pairs with [G1]: it has been read
				return true;
	return false;
}

unsigned own_window::nr_hooked() const noexcept
{
	const std::uint32_t nr = rows_in_use(); // statistics
	unsigned n = 0;

	for (std::uint32_t i = 0; i < nr; i++)
		for (const auto &h : rows_[i].hooks)
			n += h.load(relaxed) != 0; // as above
	return n;
}

std::uint64_t own_window::nr_gets() const noexcept
{
	const std::uint32_t nr = rows_in_use(); // statistics
	std::uint64_t n = 0;

	for (std::uint32_t i = 0; i < nr; i++)
		n += rows_[i].gets.load(relaxed); // as above
	return n;
}

} // namespace ch::dd

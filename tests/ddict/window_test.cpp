// SPDX-License-Identifier: Apache-2.0
// window_test.cpp - a manager's window by itself: panes that are shown and hidden, hooks, promises, rows of the dead.
#include "ddict_support.hpp"
#include "store.hpp"
#include "window.hpp"

using namespace ch::dd;

TestSuite(ddict_window, .timeout = WATCHDOG_S);

namespace {

constexpr window_size size{64, 3};
constexpr std::uint64_t me = 1; // an incarnation

struct pair {
	std::vector<std::uint64_t> memory = std::vector<std::uint64_t>(size.bytes() / 8 + 16);
	void *at = reinterpret_cast<void *>((reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64);
	own_window manager{at, size, me};
	window client{at, size};
	std::uint32_t row = client.enter(ch_peer_self().id);

	pair() { manager.let_promise(true); }
};

pane pane_of(std::uint64_t hash)
{
	return {hash, 1000 + hash, 2000 + hash, 10, 0, 5, 0};
}

// Whether somebody who looks for this hash finds it, and what.
bool sees(const window &w, std::uint64_t hash, pane *out = nullptr)
{
	unsigned nr = 0;
	std::uint64_t number;
	pane p;

	if (w.find(hash, nr, p, number) == window::none)
		return false;
	if (out)
		*out = p;
	return true;
}

} // namespace

Test(ddict_window, what_is_shown_is_found_until_it_is_hidden)
{
	pair w;
	entry e;
	pane p;
	std::uint64_t number;
	unsigned nr = 0;

	cr_assert_not(sees(w.client, 7));
	e.shown_in = w.manager.take(7, &e);
	cr_assert_not(sees(w.client, 7), "nothing is in it yet");
	w.manager.show(e.shown_in, pane_of(7));
	cr_assert_eq(w.client.find(7, nr, p, number), e.shown_in);
	cr_assert(p.hash == 7 && p.key == 1007 && p.value == 2007 && p.vlen == 10 && p.klen == 5);
	cr_assert(w.client.is_still(e.shown_in, number));
	w.manager.hide(e.shown_in);
	cr_assert_not(w.client.is_still(e.shown_in, number));
	cr_assert_not(sees(w.client, 7));
	w.manager.show(e.shown_in, pane_of(7));
	cr_assert_not(w.client.is_still(e.shown_in, number), "the same, but shown anew");
	cr_assert(sees(w.client, 7));
}

// All hashes are of one set: five do not fit into four panes.
Test(ddict_window, who_comes_last_has_a_pane_and_who_lost_one_knows)
{
	pair w;
	entry e[5];
	const auto hash = [](unsigned i) { return std::uint64_t{i} << 32 | 3; };

	for (unsigned i = 0; i < 5; i++) {
		e[i].shown_in = w.manager.take(hash(i), &e[i]);
		w.manager.show(e[i].shown_in, pane_of(hash(i)));
		cr_assert(sees(w.client, hash(i)));
	}
	const auto lost = std::count_if(std::begin(e), std::end(e), [](const entry &x) { return x.shown_in == window::none; });

	cr_assert_eq(lost, 1);
	for (unsigned i = 0; i < 5; i++)
		cr_assert_eq(sees(w.client, hash(i)), e[i].shown_in != window::none);
}

Test(ddict_window, keys_of_one_hash_have_a_pane_each)
{
	pair w;
	entry a, b;
	unsigned nr = 0;
	std::uint64_t number;
	pane p;
	std::set<std::uint32_t> found;

	for (entry *e : {&a, &b}) {
		e->shown_in = w.manager.take(9, e);
		w.manager.show(e->shown_in, pane_of(9));
	}
	for (std::uint32_t at; (at = w.client.find(9, nr, p, number)) != window::none;)
		found.insert(at);
	cr_assert(found == (std::set{a.shown_in, b.shown_in}));
}

Test(ddict_window, a_hook_holds_what_is_shown_and_nothing_else)
{
	pair w;
	entry e;
	pane p;
	std::uint64_t number;
	unsigned nr = 0;

	e.shown_in = w.manager.take(7, &e);
	w.manager.show(e.shown_in, pane_of(7));
	w.client.find(7, nr, p, number);
	cr_assert(w.client.hook(w.row, 2, p.value, e.shown_in, number));
	w.manager.hide(e.shown_in);
	cr_assert(w.manager.is_hooked(p.value));
	cr_assert_not(w.manager.is_hooked(p.value + 64));
	cr_assert_eq(w.manager.nr_hooked(), 1u);
	cr_assert_not(w.client.hook(w.row, 3, p.value, e.shown_in, number), "it is hidden by now");
	w.client.unhook(w.row, 3);
	cr_assert(w.manager.is_hooked(p.value));
	w.client.unhook(w.row, 2);
	cr_assert_not(w.manager.is_hooked(p.value));
}

Test(ddict_window, a_promise_hides_its_key_until_it_is_kept)
{
	pair w;
	entry a, b;
	unsigned at = 0;

	for (auto [e, hash] : {std::pair(&a, 7 << 16), std::pair(&b, 8 << 16)}) {
		e->shown_in = w.manager.take(static_cast<std::uint64_t>(hash), e);
		w.manager.show(e->shown_in, pane_of(static_cast<std::uint64_t>(hash)));
	}
	cr_assert(w.client.promise(w.row, me, 0, 7 << 16, at));
	cr_assert_not(sees(w.client, 7 << 16));
	cr_assert(sees(w.client, 8 << 16), "another key's value is what it was");
	cr_assert_not(w.manager.is_quiet());
	w.manager.show(a.shown_in, pane_of(7 << 16));
	cr_assert_not(sees(w.client, 7 << 16));
	w.manager.hide(b.shown_in);
	w.manager.show(b.shown_in, pane_of(8 << 16));
	cr_assert(sees(w.client, 8 << 16), "nor is it in the other's way");
	w.manager.keep(w.row, me, at);
	cr_assert(w.manager.is_quiet());
	w.manager.show(a.shown_in, pane_of(7 << 16));
	cr_assert(sees(w.client, 7 << 16));
	cr_assert(w.client.promise(w.row, me, 0, 8 << 16, at));
	w.client.withdraw(w.row, me, at);
	cr_assert(w.manager.is_quiet());
	cr_assert_not(sees(w.client, 8 << 16), "withdrawn or not, it was hidden");
}

Test(ddict_window, promises_are_few_and_made_to_one_who_lets_them)
{
	pair w;
	std::set<unsigned> places;
	unsigned at = 3;

	for (unsigned i = 0; i < promises_max; i++) {
		cr_assert(w.client.promise(w.row, me, 0, std::uint64_t{i} << 32, at));
		places.insert(at);
	}
	cr_assert(places.size() == promises_max && *places.rbegin() == promises_max - 1);
	cr_assert_not(w.client.promise(w.row, me, 0, 99 << 16, at), "too many are open");
	w.manager.keep(w.row, me, 31);
	cr_assert_not(w.client.promise(w.row, me, 0, 99 << 16, at), "of its line");
	cr_assert(w.client.promise(w.row, me, 0, std::uint64_t{3} << 32, at) && at == 31);
	w.manager.keep(w.row, me, 5);
	cr_assert(w.client.promise(w.row, me, 0, 99 << 16, at) && at == 5);
	for (unsigned i = 0; i < promises_max; i++)
		w.manager.keep(w.row, me, i);
	cr_assert(w.manager.is_quiet());
	cr_assert_not(w.client.promise(w.row, me, 1, 1, at), "a checkpoint that is not the newest");
	w.manager.let_promise(false);
	cr_assert_not(w.client.promise(w.row, me, 0, 1, at));
	cr_assert(w.manager.is_quiet(), "it counts for nothing");
	w.manager.keep(size.rows, me, 0);
	w.manager.keep(0, me, promises_max); // from who says what cannot be
}

Test(ddict_window, what_was_promised_to_a_predecessor_binds_nobody)
{
	pair w;
	entry e;
	unsigned old = 0, late = 0, fresh = 0;

	e.shown_in = w.manager.take(7 << 16, &e);
	w.manager.show(e.shown_in, pane_of(7 << 16));
	cr_assert(w.client.promise(w.row, me, 0, 1 << 16, old));
	own_window successor(w.at, size, me + 1);
	successor.let_promise(true);
	cr_assert(successor.is_quiet());
	cr_assert_not(sees(w.client, 7 << 16), "it hides all first");
	cr_assert(w.client.promise(w.row, me, 0, 1 << 16, late), "by who knows nothing of it yet");
	cr_assert(successor.is_quiet());
	fresh = old;
	cr_assert(w.client.promise(w.row, me + 1, 0, 1 << 16, fresh));
	cr_assert_eq(fresh, old, "the place is nobody's any more");
	cr_assert_not(successor.is_quiet());
	successor.keep(w.row, me, old); // that message comes to the successor
	cr_assert_not(successor.is_quiet());
	w.client.withdraw(w.row, me, old);
	cr_assert_not(successor.is_quiet());
	cr_assert_not(w.client.promise(w.row, me, 0, 1 << 16, old), "another thread knows better");
	successor.keep(w.row, me + 1, fresh);
	cr_assert(successor.is_quiet());
}

static int enter_and_stay(void *arg)
{
	const window w(arg, size);
	const std::uint32_t row = w.enter(ch_peer_self().id);
	unsigned place = 0;

	return row == 1 && w.promise(row, me, 0, 1, place) && (w.hook(row, 0, 500, 0, 0), true) ? 0 : 1;
}

Test(ddict_window, a_dead_ones_row_is_emptied_and_then_settled)
{
	void *at = mmap(nullptr, size.bytes(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	own_window manager(at, size, me);
	const window client(at, size);
	std::uint32_t asked = window::none;
	std::uint64_t owner = 0;
	const auto ask = [&](std::uint32_t row, std::uint64_t of) {
		asked = row;
		owner = of;
	};

	manager.let_promise(true);
	cr_assert_eq(client.enter(ch_peer_self().id), 0u);
	manager.reap(ask);
	cr_assert_eq(asked, window::none, "we live");
	cr_assert_eq(child_end(child_start(enter_and_stay, at)), 0);
	cr_assert(manager.is_hooked(500));
	manager.reap(ask);
	cr_assert_eq(asked, 1u);
	cr_assert_not(manager.is_hooked(500));
	cr_assert_not(manager.is_quiet(), "its message may still be on its way");
	cr_assert_eq(client.enter(ch_peer_self().id), 2u, "so the row has no other owner yet");
	cr_assert_eq(client.enter(ch_peer_self().id), window::none);
	manager.settle(asked, owner + 1);
	cr_assert_not(manager.is_quiet(), "somebody else's");
	manager.settle(asked, owner);
	cr_assert(manager.is_quiet());
	cr_assert_eq(client.enter(ch_peer_self().id), 1u);
	manager.settle(asked, owner);
	cr_assert_eq(client.enter(ch_peer_self().id), window::none, "it is not its any more");
	munmap(at, size.bytes());
}

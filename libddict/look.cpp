// SPDX-License-Identifier: Apache-2.0
// look.cpp - gets that nobody is asked for: the client's way through a manager's window, see window.hpp.
//
// What was read counts if, in this order behind it: the pane still showed it, or the value hung on a hook and the pane
// showed it then; nobody had begun to give back what the manager held; and the manager was still this process. So a value
// that is seen was the key's value between call and return: what the manager does later it hides first, what others do after
// its death is behind the last two. An answer to a later write cannot have come before, for the manager hides before it
// answers, and a successor answers nobody before its incarnation is there.
#include "connection.hpp"

namespace ch::dd {

namespace {

bool lies_in(const segment &seg, std::uint64_t place, std::uint64_t len)
{
	const std::uint64_t all = ch_segment_len(seg.get());

	return place <= all && len <= all - place;
}

bool same(const std::byte *there, bytes key)
{
	return key.empty() || std::memcmp(there, key.data(), key.size()) == 0;
}

} // namespace

sight::~sight()
{
	if (hook_ != nr_hooks)
		conn_->take_off(*this);
}

bool connection::look(unsigned m, std::uint64_t hash, bytes key, std::uint64_t at, sight &s) noexcept
{
	link &l = links_[m];
	const acquaintance *a = l.with.load(std::memory_order_acquire); // [H1] pairs with [H2]
	unsigned nr = 0;
	pane what;
	std::uint64_t number;

	if (!a || l.row == window::none || !is_current(*a))
		return false;
	s.with_ = a;
	for (std::uint32_t p; (p = l.win.find(hash, nr, what, number)) != window::none;) {
		if (what.klen != key.size())
			continue;
		if (what.at > at || at < l.win.oldest() || (what.expires && what.expires <= monotonic_ns()))
			return false;
		// Of a pane that changes meanwhile, or of damaged memory, anything may have been read.
		if (!lies_in(l.seg, what.key, what.klen) || !lies_in(l.seg, what.value, what.vlen))
			return false;
		const bool is_short = what.vlen <= inline_value_max;
		if (!(is_short ? look_at(l, p, number, what, key, s) : hang(l, p, number, what, key, s)))
			continue;
		if (dir_.rules.when_full == static_cast<std::uint32_t>(ddict_full::evict))
			l.win.use(p);
		l.win.count_get(l.row);
		return true;
	}
	return false;
}

// A short value is copied, then looked at again.
bool connection::look_at(link &l, std::uint32_t p, std::uint64_t number, const pane &what, bytes key, sight &s) const noexcept
{
	const auto *base = static_cast<const std::byte *>(ch_segment_addr(l.seg.get()));

	if (!same(base + what.key, key))
		return false;
	std::memcpy(s.small_, base + what.value, what.vlen);
	if (!l.win.is_still(p, number) || !holds(*s.with_) || !is_current(*s.with_))
		return false;
	s.value_ = {s.small_, what.vlen};
	s.conn_ = const_cast<connection *>(this);
	return true;
}

// A long one is kept from being freed, and read in place.
bool connection::hang(link &l, std::uint32_t p, std::uint64_t number, const pane &what, bytes key, sight &s) noexcept
{
	const auto *base = static_cast<const std::byte *>(ch_segment_addr(l.seg.get()));
	std::uint32_t taken = l.hooks.load(std::memory_order_relaxed);

	do {
		if (std::countr_one(taken) >= static_cast<int>(nr_hooks))
			return false;
	} while (!l.hooks.compare_exchange_weak(taken, taken | (taken + 1), std::memory_order_acquire, // [L1] pairs with [L2]
						std::memory_order_relaxed));
	s.hook_ = static_cast<unsigned>(std::countr_one(taken));
	s.conn_ = this;
	if (!l.win.hook(l.row, s.hook_, what.value, p, number) || !same(base + what.key, key)) {
		take_off(s);
		return false;
	}
	s.value_ = {base + what.value, what.vlen};
	return true;
}

void connection::take_off(sight &s) noexcept
{
	link &l = links_[s.with_->manager];

	if (generation_ != fork_generation())
		return; // it is the parent's
	l.win.unhook(l.row, s.hook_);
	// [L2] pairs with [L1]: the hook is empty before another thread has it.
	l.hooks.fetch_and(~(std::uint32_t{1} << s.hook_), std::memory_order_release);
	s.hook_ = nr_hooks;
	s.conn_ = nullptr;
}

} // namespace ch::dd

// SPDX-License-Identifier: Apache-2.0
// spread.cpp - a value that every manager is to have, handed on from manager to manager down a tree.
//
// Positions in the tree are counted from its root. A manager hands the value on to the first of each part of the
// positions behind its own, keeps it, and tells whoever gave it to it which positions did not get it, when all parts
// have told it the same. It waits for nobody: whom it cannot give the value at once, because memory or a channel is
// full, has not got it, nor has, as far as it knows, whoever dies before it has told; what remains of that is a line in
// a list. The client puts the value to those by itself, as to any manager, and so learns of each what is wrong with it.
//
// A client that dies meanwhile changes nothing but that: those whom the tree did not reach are not reached. Of a manager
// that dies with the value in its channel, the successor lets it lie: it has been given up, and what it handed on now
// could overtake what is put later.
#include "manager.hpp"
#include "visit.hpp"

namespace ch::dd {

// A part's first manager has its way to the others from the directory, which it reads when it needs it for the first time.
ch::channel &manager::way_to(unsigned m)
{
	if (!known_) {
		known_ = std::make_unique<directory>(directory_attach(dir_));
		ways_.resize(nr_managers_);
	}
	if (!ways_[m])
		ways_[m] = ch::channel::attach(known_->managers[m].requests);
	return ways_[m];
}

static bool split(bytes &value, spread_tail &t, unsigned nr)
{
	if (value.size() < sizeof(t))
		return false;
	t = load<spread_tail>(value.last(sizeof(t)).data());
	value = value.first(value.size() - sizeof(t));
	return t.first < t.end && t.end <= nr && t.root < nr && t.parent < nr;
}

manager::outcome manager::spread(call &c)
{
	spread_tail t;

	if (!split(c.value, t, nr_managers_)) {
		answer(c, -EPROTO);
		return outcome::answered;
	}
	hand_on(c, t, {0, c.from->id, c.head.id, 0, {}, {}}, 0);
	return outcome::answered;
}

// From the manager above this one.
void manager::spread_on(call &c)
{
	spread_tail t;
	bool has_to_wait = false;

	if (!split(c.value, t, nr_managers_) || t.to != incarnation_)
		return;
	const int err = enter(c, has_to_wait);

	hand_on(c, t, {0, 0, c.head.id, t.parent, {}, {}}, has_to_wait ? -EAGAIN : err);
}

// err: why it is not kept here.
void manager::hand_on(call &c, const spread_tail &t, spreading &&what, int err)
{
	spreading &s = spreads_.emplace_back(std::move(what));
	const std::uint32_t behind = t.first + 1, nr = t.end - behind, parts = std::min(nr, visit_fan);

	s.id = incarnation_ << 32 | ++nr_spreads_;
	s.first = t.first;
	for (std::uint32_t i = 0; i < parts; i++) {
		const std::uint32_t first = behind + nr * i / parts, child = (t.root + first) % nr_managers_;
		// A guess: should it be wrong, that manager takes nothing.
		const std::uint64_t there = words_[child].incarnation.load(std::memory_order_relaxed);
		const spread_tail part{t.root, first, behind + nr * (i + 1) / parts, index_, there};

		if (const int failure = give(c, part, s.id, child); failure < 0)
			s.failed.push_back({part.first, part.end, failure});
		else
			s.open.push_back({part.first, part.end, child, there});
	}
	if (err == 0)
		err = keep_here(c);
	if (err < 0)
		s.failed.push_back({t.first, t.first + 1, err});
	if (s.open.empty() && tell(s))
		spreads_.pop_back();
}

int manager::keep_here(call &c)
{
	const manner how = manner_of(c);
	const bytes key = c.key; // also when the message is the store's
	const int err = with_both_rooms(key, how.at, c.value.size(), [&] { return put_or_adopt(c, c.value, how); });

	room_.reset();
	if (err == 0)
		changed(key, how.at);
	return err;
}

// 0: it is in that manager's channel.
int manager::give(const call &c, const spread_tail &t, std::uint64_t id, unsigned child)
{
	const std::size_t head_len = sizeof(request) + c.key.size(), more = c.value.size() + sizeof(t);
	const std::size_t voff = head_len + more > inline_max ? round_up(head_len, value_align) : head_len;
	request head = c.head;
	const auto write = [&](std::byte *to) {
		std::memcpy(to, &head, sizeof(head));
		copied{c.key}({to + sizeof(head), c.key.size()});
		copied{c.value}({to + voff, c.value.size()});
		std::memcpy(to + voff + c.value.size(), &t, sizeof(t));
	};

	head.what = static_cast<std::uint32_t>(op::spread_on);
	head.client = head.retry_of = 0;
	head.id = id;
	head.voff = static_cast<std::uint32_t>(voff);
	try {
		ch::channel &to = way_to(child);

		if (voff + more <= inline_max) {
			std::byte buf[inline_max];

			write(buf);
			return std::min<int>(0, static_cast<int>(ch_channel_send(to.get(), buf, voff + more, CH_TRY)));
		}
		ch::message m = to.claim(voff + more, nanoseconds(CH_TRY));

		write(m.data());
		return to.commit_for(m, nanoseconds(CH_TRY)) ? 0 : -EAGAIN;
	} catch (const error &e) {
		return -e.code().value();
	}
}

// A part has told.
void manager::spread_done(const call &c)
{
	const auto s = std::find_if(spreads_.begin(), spreads_.end(), [&](const spreading &x) { return x.id == c.head.id; });

	if (s == spreads_.end() || !std::erase_if(s->open, [&](const branch &b) { return b.first == c.head.arg; }))
		return; // it was taken for dead
	for (bytes left = c.value; left.size() >= sizeof(spread_failure); left = left.subspan(sizeof(spread_failure)))
		s->failed.push_back(load<spread_failure>(left.data()));
	if (s->open.empty() && tell(*s))
		spreads_.erase(s);
}

// What all this led to, to the manager above or to the client. False: it is to be tried again.
bool manager::tell(spreading &s)
{
	std::vector<spread_failure> &f = s.failed;

	if (f.size() > spread_failures_max) { // to put it once more does no harm
		for (const spread_failure &x : f)
			f[0] = {std::min(f[0].first, x.first), std::max(f[0].end, x.end), f[0].err};
		f.resize(1);
	}
	const bytes body = std::as_bytes(std::span(f));

	if (s.client) {
		if (client *to = find_client(s.client))
			answer(*to, {s.call, 0, 0, 0, 0, body.size()}, body);
		return true;
	}
	std::byte msg[inline_max];
	const request head{static_cast<std::uint32_t>(op::spread_done), 0, 0, s.call, s.first, sizeof(head), 0, 0, -1, 0};

	std::memcpy(msg, &head, sizeof(head));
	copied{body}({msg + sizeof(head), body.size()});
	try {
		return ch_channel_send(way_to(s.parent).get(), msg, sizeof(head) + body.size(), CH_TRY) != -EAGAIN;
	} catch (const error &) {
		return true; // the dictionary ends
	}
}

// Parts whose first manager died are not waited for.
void manager::look_at_spreads(bool is_idle)
{
	for (auto s = spreads_.begin(); s != spreads_.end();) {
		std::erase_if(s->open, [&](const branch &b) {
			const manager_words &w = words_[b.child];

			// Guesses: who is wrong waits a moment more.
			if (w.incarnation.load(std::memory_order_relaxed) == b.incarnation &&
			    (!is_idle || ch_peer_is_alive({w.peer.load(std::memory_order_relaxed)})))
				return false;
			s->failed.push_back({b.first, b.end, -EOWNERDEAD});
			return true;
		});
		if (s->open.empty() && tell(*s))
			s = spreads_.erase(s);
		else
			++s;
	}
}

} // namespace ch::dd

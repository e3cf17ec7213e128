// SPDX-License-Identifier: Apache-2.0
// batch.cpp - many puts or gets in few messages, several messages under way.
//
// Small records are packed by manager, and go as a block when the manager's pool has one, else in pieces that travel in
// the ring: a batch needs no memory of its own in a full dictionary.
#include "connection.hpp"
#include <deque>

namespace ch {

namespace dd {

namespace {

constexpr std::size_t flights_max = 16; // messages of one batch under way
constexpr std::size_t ring_room = inline_max - sizeof(request);
constexpr std::size_t record_head = 2 * sizeof(std::uint32_t);
constexpr std::size_t ask_first = 64, ask_max = 1024; // keys in one request

// Sends packed records in one message. False if there is no block for them.
bool start_pack(connection &conn, call &c, unsigned m, outgoing out, bytes records)
{
	const copied copy{records};
	const ddict_core::value_writer write = copy;

	try {
		out.vlen = records.size();
		out.write = &write;
		out.is_patient = false;
		conn.start(c, m, out);
		return true;
	} catch (const error &e) {
		if (e.code().value() != ENOSPC && e.code().value() != EMSGSIZE)
			throw;
		return false;
	}
}

} // namespace

class batch {
public:
	// how: put, with checkpoint, deadline and flags; which(key) is the key's manager.
	batch(connection &conn, const outgoing &how, int directed)
	    : conn_(conn), how_(how), directed_(directed), lanes_(conn.managers(), packer(0))
	{
	}
	batch(const batch &) = delete;
	batch &operator=(const batch &) = delete;
	~batch()
	{
		for (call &c : flights_)
			conn_.settle(c);
	}
	void add(bytes key, std::size_t len, const ddict_core::value_writer &write);
	void finish();

private:
	template <class Start> bool fly(Start &&start);
	void settle_oldest();
	void flush(unsigned m);
	void send_in_pieces(unsigned m, bytes records);
	bool fly_pack(unsigned m, bytes records)
	{
		outgoing out = how_;

		out.what = op::put_many;
		return fly([&](call &c) { return start_pack(conn_, c, m, out, records); });
	}

	connection &conn_;
	outgoing how_;
	int directed_;              // the manager for all keys, or -1
	std::vector<packer> lanes_; // records for each manager, not yet sent
	std::deque<call> flights_;
};

void batch::add(bytes key, std::size_t len, const ddict_core::value_writer &write)
{
	const unsigned m = directed_ >= 0 ? static_cast<unsigned>(directed_) : conn_.manager_for(key);
	packer &lane = lanes_[m];

	if (record_head + key.size() + len > ring_room) {
		flush(m); // an earlier put of the same key stays the earlier one
		fly([&](call &c) {
			outgoing out = how_;

			out.key = key;
			out.vlen = len;
			out.write = &write;
			conn_.start(c, m, out);
			return true;
		});
		return;
	}
	if (lane.size() + record_head + key.size() + len > page_max - value_align)
		flush(m);
	lane.u32(static_cast<std::uint32_t>(key.size()));
	lane.u32(static_cast<std::uint32_t>(len));
	lane.raw(key.data(), key.size());
	write({lane.room(len), len});
}

// One more call under way, when start(call) says that it is.
template <class Start> bool batch::fly(Start &&start)
{
	bool is_under_way = false;

	if (flights_.size() >= flights_max)
		settle_oldest();
	flights_.emplace_back();
	try {
		is_under_way = start(flights_.back());
	} catch (...) {
		flights_.pop_back();
		throw;
	}
	if (!is_under_way)
		flights_.pop_back();
	return is_under_way;
}

void batch::settle_oldest()
{
	call &c = flights_.front();
	const int status = conn_.wait(c, how_.until).status;
	const unsigned m = c.manager();

	flights_.pop_front();
	if (status < 0)
		conn_.fail(m, status);
}

void batch::flush(unsigned m)
{
	const bytes records(lanes_[m].data(), lanes_[m].size());

	if (records.empty())
		return;
	if (records.size() <= ring_room || !fly_pack(m, records))
		send_in_pieces(m, records);
	lanes_[m].truncate(0);
}

void batch::send_in_pieces(unsigned m, bytes records)
{
	unpacker u(records);
	bytes left = records;
	std::size_t piece = 0;

	while (!u.empty()) {
		std::uint32_t klen = 0, vlen = 0;
		bytes skipped;

		u.u32(klen);
		u.u32(vlen);
		u.raw(std::size_t{klen} + vlen, skipped);
		const std::size_t len = record_head + klen + vlen;

		if (piece + len > ring_room) {
			fly_pack(m, left.first(piece));
			left = left.subspan(piece);
			piece = 0;
		}
		piece += len;
	}
	fly_pack(m, left);
}

void batch::finish()
{
	for (unsigned m = 0; m < lanes_.size(); m++)
		flush(m);
	while (!flights_.empty())
		settle_oldest();
}

namespace {

using sink_ref = ddict_detail::function_ref<void(std::size_t, const bytes *)>;

// The keys of one manager: one request under way, the next one as long as the last answer was.
class asker {
public:
	asker(const ddict_core &core, connection &conn, const outgoing &how, unsigned m, std::span<const bytes> keys)
	    : core_(core), conn_(conn), how_(how), keys_(keys), m_(m)
	{
	}
	asker(const asker &) = delete;
	asker &operator=(const asker &) = delete;
	~asker() { conn_.settle(call_); }
	std::vector<std::size_t> wanted; // places in keys

	// False if all are answered.
	bool start()
	{
		if (at_ == wanted.size())
			return false;
		while (!start_pack(conn_, call_, m_, how_, pack()))
			limit_ = ring_room;
		return true;
	}
	void settle(const sink_ref &sink);

private:
	bytes pack();
	void alone(std::size_t i, const sink_ref &sink) const;

	const ddict_core &core_;
	connection &conn_;
	outgoing how_;
	std::span<const bytes> keys_;
	unsigned m_;
	std::size_t at_ = 0, ask_ = ask_first, limit_ = page_max - value_align;
	packer pack_{0};
	call call_;
};

bytes asker::pack()
{
	pack_.truncate(0);
	for (std::size_t i = at_; i < wanted.size() && i - at_ < ask_; i++) {
		const bytes key = keys_[wanted[i]];

		if (pack_.size() + sizeof(std::uint32_t) + key.size() > limit_)
			break;
		pack_.u32(static_cast<std::uint32_t>(key.size()));
		pack_.raw(key.data(), key.size());
	}
	return {pack_.data(), pack_.size()};
}

void asker::alone(std::size_t i, const sink_ref &sink) const
{
	if (!core_.get(keys_[i], [&](bytes b) { sink(i, &b); }))
		sink(i, nullptr);
}

void asker::settle(const sink_ref &sink)
{
	const reply &r = conn_.wait(call_, how_.until);
	unpacker u(call_.body());
	std::vector<std::size_t> large;

	if (r.status < 0 || r.arg == 0 || r.arg > wanted.size() - at_)
		conn_.fail(m_, r.status < 0 ? r.status : -EPROTO);
	for (std::uint64_t n = 0; n < r.arg; n++) {
		const std::size_t i = wanted[at_++];
		std::uint32_t vlen = 0;
		bytes value;

		if (!u.u32(vlen) || (vlen < len_large && !u.raw(vlen, value)))
			conn_.fail(m_, -EPROTO);
		if (vlen == len_large)
			large.push_back(i);
		else
			sink(i, vlen == len_missing ? nullptr : &value);
	}
	ask_ = std::min(ask_max, 2 * r.arg);
	for (const std::size_t i : large)
		alone(i, sink);
}

} // namespace

} // namespace dd

ddict_core::put_batch::put_batch(const ddict_core &d, const ddict_put &how)
    : b_(std::make_unique<dd::batch>(d.conn(), d.fitted(dd::put_of(how)), d.directed_))
{
}
ddict_core::put_batch::~put_batch() = default;

void ddict_core::put_batch::add(bytes key, std::size_t len, value_writer write)
{
	b_->add(key, len, write);
}

void ddict_core::put_batch::finish()
{
	b_->finish();
}

void ddict_core::get_many(std::span<const bytes> keys,
			  ddict_detail::function_ref<void(std::size_t, const bytes *)> sink) const
{
	dd::connection &co = conn();
	std::deque<dd::asker> askers;

	for (unsigned m = 0; m < co.managers(); m++)
		askers.emplace_back(*this, co, fitted({.what = dd::op::get_many}), m, keys);
	for (std::size_t i = 0; i < keys.size(); i++) {
		if (look(keys[i], [&](bytes b) { sink(i, &b); }))
			continue;
		if (sizeof(std::uint32_t) + keys[i].size() <= dd::ring_room)
			askers[manager_for(keys[i])].wanted.push_back(i);
		else if (!get(keys[i], [&](bytes b) { sink(i, &b); }))
			sink(i, nullptr);
	}
	std::deque<dd::asker *> under_way;

	for (dd::asker &a : askers)
		if (a.start())
			under_way.push_back(&a);
	for (; !under_way.empty(); under_way.pop_front()) {
		dd::asker *a = under_way.front();

		a->settle(sink);
		if (a->start())
			under_way.push_back(a);
	}
}

} // namespace ch

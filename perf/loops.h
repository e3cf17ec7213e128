// SPDX-License-Identifier: Apache-2.0
// loops.h - the timed loops, each written once and run over the subject and over its baseline.
//
// Every loop checks what arrives: a stamp in the first and last word of each message, and counts and sums at the end.
// The first tenth of a measurement is not counted: pages are touched, caches and branch predictors learn.
#ifndef PERF_LOOPS_H
#define PERF_LOOPS_H
#include "bench.h"
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

namespace bench {

inline constexpr std::uint64_t last_stamp = ~std::uint64_t{0}; // of the message that ends a measurement

// A private buffer of the caller, and the stamp in it. Sizes are multiples of 8. Cache-line aligned: a copy between a
// page-aligned buffer and one at 16 bytes beyond is 25 times slower on some processors (rep movsb on Zen 3).
class message {
	struct deleter {
		void operator()(std::uint64_t *p) const { std::free(p); }
	};
	std::size_t nr;
	std::unique_ptr<std::uint64_t[], deleter> words;

public:
	explicit message(std::size_t len)
	    : nr(len / 8), words(static_cast<std::uint64_t *>(std::aligned_alloc(64, (len + 63) / 64 * 64)))
	{
		if (!words)
			throw std::bad_alloc();
		std::memset(data(), 0, len);
	}
	std::uint64_t *data() { return words.get(); }
	std::size_t len() const { return nr * 8; }
	std::uint64_t stamp() const { return words[0]; }
	bool is_whole() const { return words[0] == words[nr - 1]; }
	void set_stamp(std::uint64_t value) { words[0] = words[nr - 1] = value; }
};

struct deadlines {
	std::uint64_t warm, end; // in ticks
	deadlines()
	{
		double run = static_cast<double>(conf().run_ns) * ticks_per_ns();
		std::uint64_t now = ticks();
		warm = now + static_cast<std::uint64_t>(run / 10);
		end = now + static_cast<std::uint64_t>(run);
	}
};

// ---- ping-pong: two processes, one message on its way
//
// open(side) runs in the process and gives an endpoint with send(buf, len) and recv(buf, len), which wait and
// return 0 or a negative errno.

template <class End> void send_or_fail(member &me, End &end, message &m)
{
	int rc = end.send(m.data(), m.len());

	if (rc < 0) [[unlikely]]
		me.fail("send", rc);
}

template <class End> void recv_or_fail(member &me, End &end, message &m)
{
	int rc = end.recv(m.data(), m.len());

	if (rc < 0) [[unlikely]]
		me.fail("recv", rc);
}

template <class End> void drive_ping_pong(member &me, End &end, std::size_t len, histogram &round_trips)
{
	message out(len), in(len);
	deadlines until;
	std::uint64_t start = ticks();

	for (std::uint64_t seq = 1, stamp = 0; stamp != last_stamp; seq++) {
		stamp = start < until.end ? seq : last_stamp;
		out.set_stamp(stamp);
		send_or_fail(me, end, out);
		recv_or_fail(me, end, in);
		if (in.stamp() != stamp || !in.is_whole()) [[unlikely]]
			me.fail("the answer is not what was sent");
		std::uint64_t now = ticks();
		if (start > until.warm)
			round_trips.add(now - start);
		start = now;
	}
}

template <class End> void answer_ping_pong(member &me, End &end, std::size_t len)
{
	message m(len);

	for (std::uint64_t seq = 1; m.stamp() != last_stamp; seq++) {
		recv_or_fail(me, end, m);
		if ((m.stamp() != seq && m.stamp() != last_stamp) || !m.is_whole()) [[unlikely]]
			me.fail("the message is not the next one");
		send_or_fail(me, end, m);
	}
}

template <class Open> sample ping_pong(std::size_t len, Open open)
{
	shared<histogram> round_trips;

	std::string error = run_team(2, 1, [&](member &me) {
		auto &&end = open(me.index);
		me.start();
		if (me.index == 0)
			drive_ping_pong(me, end, len, *round_trips);
		else
			answer_ping_pong(me, end, len);
	});
	return latency_sample(*round_trips, error);
}

// ---- flow: messages as fast as they go, from n senders to n receivers
//
// open() gives a port with try_send(buf, len) and try_recv(buf, len): 0, -EAGAIN, or another negative errno.

struct alignas(128) tally {
	std::uint64_t nr = 0, sum = 0;                     // all messages, and their stamps added up
	std::uint64_t start_ns = 0, end_ns = 0, timed = 0; // receivers: the measured part
};

struct flow {
	int pairs;
	std::size_t len;
};

inline constexpr int max_pairs = 16, stamp_bits = 40; // the sender's number stands above its count
using tallies = std::array<tally, 2 * max_pairs>;

// How many messages between two looks at the clock.
inline std::uint64_t clock_stride(std::size_t len)
{
	return len > 1024 ? 1 : 64;
}

// A port of batches has room for messages of its own: place() is where the next one to be sent is written, and
// try_next(out_at, len) gives the next one received where it lies. Others get and fill the caller's buffer.
template <class Port> std::uint64_t *place_of(Port &port, message &own)
{
	if constexpr (requires { port.place(); })
		return port.place();
	else
		return own.data();
}

template <class Port> int try_next(Port &port, message &own, const std::uint64_t *&out_at)
{
	if constexpr (requires { port.try_next(out_at, own.len()); }) {
		return port.try_next(out_at, own.len());
	} else {
		out_at = own.data();
		return port.try_recv(own.data(), own.len());
	}
}

template <class Port> void put(member &me, Port &port, message &own, std::uint64_t stamp)
{
	std::uint64_t *m = place_of(port, own);
	backoff wait;
	int rc;

	m[0] = m[own.len() / 8 - 1] = stamp;
	while ((rc = port.try_send(m, own.len())) == -EAGAIN)
		wait.pause();
	if (rc < 0) [[unlikely]]
		me.fail("send", rc);
}

template <class Port> void produce(member &me, Port &port, const flow &f, tally &mine)
{
	const std::uint64_t stride = clock_stride(f.len), name = static_cast<std::uint64_t>(me.index) << stamp_bits;
	message m(f.len);
	deadlines until;

	do {
		for (std::uint64_t i = 0; i < stride; i++) {
			const std::uint64_t stamp = name + ++mine.nr;
			put(me, port, m, stamp);
			mine.sum += stamp;
		}
	} while (ticks() < until.end);
	put(me, port, m, last_stamp);
}

// A receiver's view of the senders: every stamp must be above the one before it of the same sender, and with one
// receiver it must be the next.
class order {
	std::array<std::uint64_t, max_pairs> seen{};
	bool is_alone;

public:
	explicit order(bool alone) : is_alone(alone) {}
	bool accepts(std::uint64_t stamp)
	{
		std::uint64_t sender = stamp >> stamp_bits, nr = stamp & ((std::uint64_t{1} << stamp_bits) - 1);

		if (sender >= max_pairs || nr <= seen[sender] || (is_alone && nr != seen[sender] + 1))
			return false;
		seen[sender] = nr;
		return true;
	}
};

// Receive until the clock passes `until` (false) or the sender's last message came (true).
template <class Port>
bool consume_until(member &me, Port &port, message &m, order &in_order, tally &mine, std::uint64_t until)
{
	const std::uint64_t stride = clock_stride(m.len());

	do {
		for (std::uint64_t i = 0; i < stride; i++) {
			const std::uint64_t *at = nullptr;
			backoff wait;
			int rc;
			while ((rc = try_next(port, m, at)) == -EAGAIN)
				wait.pause();
			if (rc < 0) [[unlikely]]
				me.fail("recv", rc);
			const std::uint64_t stamp = at[0];
			if (stamp == last_stamp) [[unlikely]]
				return true;
			if (!in_order.accepts(stamp) || at[m.len() / 8 - 1] != stamp) [[unlikely]]
				me.fail("a message was lost, doubled, damaged or out of order");
			mine.nr++;
			mine.sum += stamp;
		}
	} while (ticks() < until);
	return false;
}

template <class Port> void consume(member &me, Port &port, const flow &f, tally &mine)
{
	message m(f.len);
	order in_order(f.pairs == 1);
	deadlines until;

	bool is_over = consume_until(me, port, m, in_order, mine, until.warm);
	std::uint64_t before = mine.nr;
	mine.start_ns = now_ns();
	if (!is_over)
		consume_until(me, port, m, in_order, mine, ~std::uint64_t{0});
	mine.end_ns = now_ns();
	mine.timed = mine.nr - before;
}

// Messages per second of all receivers; fails if not every message sent was received once.
sample flow_sample(const tallies &all, int pairs, const std::string &error);

template <class Open> sample run_flow(const flow &f, Open open)
{
	shared<tallies> all;

	std::string error = run_team(2 * f.pairs, f.pairs, [&](member &me) {
		auto &&port = open();
		tally &mine = (*all)[static_cast<std::size_t>(me.index)];
		me.start();
		if (me.index < f.pairs)
			produce(me, port, f, mine);
		else
			consume(me, port, f, mine);
	});
	return flow_sample(*all, f.pairs, error);
}

// ---- in place: the sender writes every byte where the receiver reads every byte
//
// open() gives a port with claim(len), commit(), take() and release(), which wait. claim and take give the address;
// each fails the member itself if it cannot.

// Not inline: subject and baseline run the same instructions at the same address.
void write_all(void *to, std::size_t len, std::uint64_t stamp);
bool read_all(const void *from, std::size_t len, std::uint64_t *out_stamp); // whether the bytes fit the stamp

template <class Port> void write_in_place(member &me, Port &port, std::size_t len)
{
	deadlines until;
	std::uint64_t nr = 0;

	for (bool is_last = false; !is_last;) {
		is_last = ticks() >= until.end;
		write_all(port.claim(me, len), len, is_last ? last_stamp : ++nr);
		port.commit(me);
	}
}

template <class Port> void read_in_place(member &me, Port &port, std::size_t len, tally &mine)
{
	deadlines until;

	for (std::uint64_t stamp = 0, nr = 1;; nr++) {
		if (!read_all(port.take(me, len), len, &stamp)) [[unlikely]]
			me.fail("the bytes are not those that were written");
		port.release(me);
		if (stamp == last_stamp)
			break;
		if (stamp != nr) [[unlikely]]
			me.fail("a message was lost, doubled or out of order");
		mine.nr++;
		if (mine.start_ns)
			mine.timed++;
		else if (ticks() > until.warm)
			mine.start_ns = now_ns();
	}
	mine.end_ns = now_ns();
}

template <class Open> sample run_in_place(std::size_t len, Open open)
{
	shared<tallies> all;

	std::string error = run_team(2, 1, [&](member &me) {
		auto &&port = open();
		me.start();
		if (me.index == 0)
			write_in_place(me, port, len);
		else
			read_in_place(me, port, len, (*all)[1]);
	});
	(*all)[0].nr = (*all)[1].nr; // the receiver checked the order, so it missed none
	sample s = flow_sample(*all, 1, error);
	s.value *= static_cast<double>(len);
	return s;
}

} // namespace bench
#endif

// SPDX-License-Identifier: Apache-2.0
// baseline.h - what the subjects are measured against: bare rings in shared memory without crash tolerance and without
// sleeping, a raw cache line, a raw futex, pipes and sockets.
#ifndef PERF_BASELINE_H
#define PERF_BASELINE_H
#include "bench.h"
#include "loops.h"

namespace bench {

// A ring's memory and its geometry; the object itself is private to each process after the fork.
class ring_memory {
protected:
	using word = std::atomic<std::uint64_t>;

	static constexpr std::size_t line = 128; // two cache lines: some processors fetch them in pairs
	std::size_t nr_slots, stride;
	region memory;

	// head_len bytes of each slot lie before its data; slots begin after two lines of counters.
	ring_memory(std::size_t slots, std::size_t head_len, std::size_t len)
	    : nr_slots(slots), stride((head_len + len + 63) / 64 * 64), memory(2 * line + slots * stride)
	{
	}
	word &counter(std::size_t which) const
	{
		return *reinterpret_cast<word *>(static_cast<char *>(memory.data()) + which * line);
	}
	char *slot(std::uint64_t ticket) const
	{
		return static_cast<char *>(memory.data()) + 2 * line + (ticket & (nr_slots - 1)) * stride;
	}
	word &slot_word(std::uint64_t ticket) const { return *reinterpret_cast<word *>(slot(ticket)); }
	static void copy(void *to, const void *from, std::size_t len)
	{
		if (len == 8)
			std::memcpy(to, from, 8);
		else
			std::memcpy(to, from, len);
	}
};

/*
 * Dmitry Vyukov's bounded MPMC queue (1024cores.net): many senders, many receivers. A process that dies between its
 * claim and its store of seq stalls it for ever.
 *
 * word     written by             read by    order
 * tail     sender, CAS            senders    relaxed: nothing hangs on it, seq decides
 * head     receiver, CAS          receivers  relaxed: likewise
 * seq      sender, then receiver  both       [V1] release with acquire: the data is whole, or has been read
 */
class vyukov_ring : ring_memory {
	word &tail() const { return counter(0); }
	word &head() const { return counter(1); }

public:
	vyukov_ring(std::size_t slots, std::size_t len);

	int try_send(const void *from, std::size_t len)
	{
		std::uint64_t t = tail().load(std::memory_order_relaxed);

		for (;;) {
			word &seq = slot_word(t);
			auto ahead = static_cast<std::int64_t>(seq.load(std::memory_order_acquire) - t); // [V1]
			if (ahead < 0)
				return -EAGAIN;
			if (ahead > 0) {
				t = tail().load(std::memory_order_relaxed);
			} else if (tail().compare_exchange_weak(t, t + 1, std::memory_order_relaxed)) {
				copy(slot(t) + 8, from, len);
				seq.store(t + 1, std::memory_order_release); // [V1]
				return 0;
			}
		}
	}

	int try_recv(void *to, std::size_t len)
	{
		std::uint64_t h = head().load(std::memory_order_relaxed);

		for (;;) {
			word &seq = slot_word(h);
			auto ahead = static_cast<std::int64_t>(seq.load(std::memory_order_acquire) - (h + 1)); // [V1]
			if (ahead < 0)
				return -EAGAIN;
			if (ahead > 0) {
				h = head().load(std::memory_order_relaxed);
			} else if (head().compare_exchange_weak(h, h + 1, std::memory_order_relaxed)) {
				copy(to, slot(h) + 8, len);
				seq.store(h + nr_slots, std::memory_order_release); // [V1]
				return 0;
			}
		}
	}

	// As many of nr messages as there is room for, or as are there, with one claim. How many, or -EAGAIN.
	template <class Fill> std::int64_t try_send_many(std::size_t nr, Fill fill)
	{
		std::uint64_t t = tail().load(std::memory_order_relaxed);
		const std::size_t n = claim_many(tail(), t, t, nr);

		for (std::size_t k = 0; k < n; k++) {
			fill(slot(t + k) + 8, k);
			slot_word(t + k).store(t + k + 1, std::memory_order_release); // [V1]
		}
		return n ? static_cast<std::int64_t>(n) : -EAGAIN;
	}
	template <class Use> std::int64_t try_recv_many(std::size_t nr, Use use)
	{
		std::uint64_t h = head().load(std::memory_order_relaxed);
		const std::size_t n = claim_many(head(), h, h + 1, nr);

		for (std::size_t k = 0; k < n; k++) {
			use(slot(h + k) + 8, k);
			slot_word(h + k).store(h + k + nr_slots, std::memory_order_release); // [V1]
		}
		return n ? static_cast<std::int64_t>(n) : -EAGAIN;
	}

private:
	// Claims the slots from ticket t on whose words count up from seq. How many; 0: none, or somebody else was faster.
	std::size_t claim_many(word &counter, std::uint64_t t, std::uint64_t seq, std::size_t nr) const
	{
		std::size_t n = 0;

		while (n < nr && slot_word(t + n).load(std::memory_order_acquire) == seq + n) // [V1]
			n++;
		return n && counter.compare_exchange_strong(t, t + n, std::memory_order_relaxed) ? n : 0;
	}
};

/*
 * Lamport's ring for one sender and one receiver, each with a private copy of the other's counter.
 *
 * word     written by   read by     order
 * tail     sender       receiver    [P1] release with acquire: the data is whole
 * head     receiver     sender      [P2] release with acquire: the data has been read
 */
class spsc_ring : ring_memory {
	word &tail() const { return counter(0); }
	word &head() const { return counter(1); }
	std::uint64_t mine = 0, other = 0; // own counter, and the last seen of the other side

public:
	spsc_ring(std::size_t slots, std::size_t len) : ring_memory(slots, 0, len) {}

	int try_send(const void *from, std::size_t len)
	{
		if (mine - other >= nr_slots) {
			other = head().load(std::memory_order_acquire); // [P2]
			if (mine - other >= nr_slots)
				return -EAGAIN;
		}
		copy(slot(mine), from, len);
		tail().store(++mine, std::memory_order_release); // [P1]
		return 0;
	}

	int try_recv(void *to, std::size_t len)
	{
		if (mine == other) {
			other = tail().load(std::memory_order_acquire); // [P1]
			if (mine == other)
				return -EAGAIN;
		}
		copy(to, slot(mine), len);
		head().store(++mine, std::memory_order_release); // [P2]
		return 0;
	}
};

/*
 * A few large slots between one sender and one receiver, each with a word that says whose turn it is: even is the
 * sender's, odd the receiver's. Copying, or in place.
 *
 * word     written by             read by    order
 * turn     sender, then receiver  the other  [S1] release with acquire: the bytes are written, or have been read
 */
class slot_ring : ring_memory {
	std::uint64_t mine = 0;

	std::uint64_t round() const { return 2 * (mine / nr_slots); }
	bool is_turn(std::uint64_t turn) const
	{
		return slot_word(mine).load(std::memory_order_acquire) == turn; // [S1]
	}
	void wait_turn(std::uint64_t turn) const
	{
		backoff wait;

		while (!is_turn(turn))
			wait.pause();
	}
	char *data() const { return slot(mine) + 64; }
	void pass(std::uint64_t turn)
	{
		slot_word(mine++).store(turn, std::memory_order_release); // [S1]
	}

public:
	slot_ring(std::size_t slots, std::size_t len) : ring_memory(slots, 64, len) {}

	void *claim(member &, std::size_t) const
	{
		wait_turn(round());
		return data();
	}
	void commit(member &) { pass(round() + 1); }
	const void *take(member &, std::size_t) const
	{
		wait_turn(round() + 1);
		return data();
	}
	void release(member &) { pass(round() + 2); }

	int try_send(const void *from, std::size_t len)
	{
		if (!is_turn(round()))
			return -EAGAIN;
		copy(data(), from, len);
		pass(round() + 1);
		return 0;
	}
	int try_recv(void *to, std::size_t len)
	{
		if (!is_turn(round() + 1))
			return -EAGAIN;
		copy(to, data(), len);
		pass(round() + 2);
		return 0;
	}
};

// One way, or half a round trip, between two processes.
sample raw_latency(std::size_t len); // 8: one cache line; more: copy in, raw exchange, copy out
sample futex_latency();              // 8 bytes and a futex each way; both sides always sleep
sample pipe_latency(std::size_t len);
sample unix_latency(std::size_t len);

// Messages per second.
sample vyukov_rate(const flow &f, std::size_t capacity);
sample spsc_rate(std::size_t len, std::size_t capacity);

// Bytes per second.
inline constexpr std::size_t nr_large = 4; // slots that a large message's ring has
sample slots_copy(std::size_t len);
sample slots_in_place(std::size_t len);
sample memcpy_bandwidth(std::size_t len);
sample pipe_bandwidth(std::size_t len);
sample unix_bandwidth(std::size_t len);

void add_baseline_rows();

} // namespace bench
#endif

// SPDX-License-Identifier: Apache-2.0
// baseline.cpp - measurements of what the subjects are measured against, and their own rows.
#include "baseline.h"
#include <climits>
#include <new>
#include <linux/futex.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bench {

vyukov_ring::vyukov_ring(std::size_t slots, std::size_t len) : ring_memory(slots, 8, len)
{
	for (std::uint64_t i = 0; i < slots; i++)
		slot_word(i).store(i, std::memory_order_relaxed); // before the fork
}

// ---- latency

/*
 * What one side says to the other; one in each direction.
 *
 * word     written by    read by     order
 * value    sender        receiver    [L1] release with acquire: data is whole
 * bell     sender        receiver    [L2] release with acquire: value is set; the futex of the blocking exchange
 */
struct alignas(128) line {
	std::atomic<std::uint64_t> value{0};
	std::atomic<std::uint32_t> bell{0};
};
using lines = std::array<line, 2>;

// Two atomic words. Which way to wait is the faster depends on the processor: a pause takes long on some, on others a
// reader that never pauses gets in the writer's way.
struct line_end {
	line &to, &from;
	bool is_pausing;
	std::uint64_t seen = 0;

	int send(const void *buf, std::size_t)
	{
		std::uint64_t value;

		std::memcpy(&value, buf, 8);
		to.value.store(value, std::memory_order_release); // [L1]
		return 0;
	}
	int recv(void *buf, std::size_t)
	{
		std::uint64_t value;

		while ((value = from.value.load(std::memory_order_acquire)) == seen) // [L1]
			if (is_pausing)
				relax();
		seen = value;
		std::memcpy(buf, &value, 8);
		return 0;
	}
};

// The same with a buffer in shared memory that is filled before and emptied after. One for both directions: the answer
// goes into the memory that the question came in, as it does in a pool that gives out first what was freed last.
struct mail_end {
	line_end lines;
	void *bytes;

	int send(const void *buf, std::size_t len)
	{
		std::memcpy(bytes, buf, len);
		return lines.send(buf, len);
	}
	int recv(void *buf, std::size_t len)
	{
		std::uint64_t value;

		lines.recv(&value, 8);
		std::memcpy(buf, bytes, len);
		return 0;
	}
};

struct futex_end {
	line &to, &from;
	std::uint32_t seen = 0;

	int send(const void *buf, std::size_t)
	{
		std::uint64_t value;

		std::memcpy(&value, buf, 8);
		to.value.store(value, std::memory_order_relaxed); // nobody looks before the bell
		to.bell.fetch_add(1, std::memory_order_release);  // [L2]
		syscall(SYS_futex, &to.bell, FUTEX_WAKE, 1, nullptr, nullptr, 0);
		return 0;
	}
	int recv(void *buf, std::size_t)
	{
		while (from.bell.load(std::memory_order_acquire) == seen) // [L2]
			syscall(SYS_futex, &from.bell, FUTEX_WAIT, seen, nullptr, nullptr, 0);
		seen++;
		std::uint64_t value = from.value.load(std::memory_order_relaxed); // after the bell
		std::memcpy(buf, &value, 8);
		return 0;
	}
};

static sample raw_latency(std::size_t len, bool is_pausing)
{
	shared<lines> both;
	lines &l = *both;
	region bytes(len);
	auto one = [&l, is_pausing](int side) {
		std::size_t i = static_cast<std::size_t>(side);
		return line_end{l[i], l[1 - i], is_pausing};
	};

	if (len == 8)
		return ping_pong(len, one);
	return ping_pong(len, [&](int side) { return mail_end{one(side), bytes.data()}; });
}

sample raw_latency(std::size_t len)
{
	sample a = raw_latency(len, true), b = raw_latency(len, false);

	return b.error.empty() && (b.is_starved || a.value < b.value) ? a : b;
}

sample futex_latency()
{
	shared<lines> both;

	return ping_pong(8, [&](int side) {
		std::size_t i = static_cast<std::size_t>(side);
		return futex_end{(*both)[i], (*both)[1 - i]};
	});
}

// ---- pipes and sockets

static int write_whole(int fd, const char *buf, std::size_t len)
{
	while (len) {
		ssize_t n = write(fd, buf, len);
		if (n < 0)
			return -errno;
		buf += n;
		len -= static_cast<std::size_t>(n);
	}
	return 0;
}

static int read_whole(int fd, char *buf, std::size_t len)
{
	while (len) {
		ssize_t n = read(fd, buf, len);
		if (n <= 0)
			return n ? -errno : -EPIPE;
		buf += n;
		len -= static_cast<std::size_t>(n);
	}
	return 0;
}

struct fd_end {
	int to, from;

	int send(const void *buf, std::size_t len) { return write_whole(to, static_cast<const char *>(buf), len); }
	int recv(void *buf, std::size_t len) { return read_whole(from, static_cast<char *>(buf), len); }
	int try_send(const void *buf, std::size_t len) { return send(buf, len); }
	int try_recv(void *buf, std::size_t len) { return recv(buf, len); }
};

// Two ends that are connected in both directions.
class fd_pair {
	std::array<int, 4> fds{-1, -1, -1, -1};

public:
	enum kind { pipes, sockets };

	explicit fd_pair(kind k)
	{
		int rc = k == sockets ? socketpair(AF_UNIX, SOCK_STREAM, 0, fds.data())
				      : std::min(pipe(fds.data()), pipe(fds.data() + 2));
		if (rc < 0)
			throw std::bad_alloc();
	}
	~fd_pair()
	{
		for (int fd : fds)
			if (fd >= 0)
				close(fd);
	}
	fd_pair(const fd_pair &) = delete;
	fd_pair &operator=(const fd_pair &) = delete;

	fd_end side(int which) const
	{
		if (fds[2] < 0)
			return {fds[which ? 1 : 0], fds[which ? 1 : 0]};
		return which ? fd_end{fds[3], fds[0]} : fd_end{fds[1], fds[2]};
	}
};

static sample fd_latency(fd_pair::kind kind, std::size_t len)
{
	fd_pair pair(kind);

	return ping_pong(len, [&](int side) { return pair.side(side); });
}

sample pipe_latency(std::size_t len)
{
	return fd_latency(fd_pair::pipes, len);
}

sample unix_latency(std::size_t len)
{
	return fd_latency(fd_pair::sockets, len);
}

static sample in_bytes(sample s, std::size_t len)
{
	s.value *= static_cast<double>(len);
	return s;
}

static sample fd_bandwidth(fd_pair::kind kind, std::size_t len)
{
	fd_pair pair(kind);

	return in_bytes(run_flow({1, len}, [&] { return fd_end{pair.side(0).to, pair.side(1).from}; }), len);
}

sample pipe_bandwidth(std::size_t len)
{
	return fd_bandwidth(fd_pair::pipes, len);
}

sample unix_bandwidth(std::size_t len)
{
	return fd_bandwidth(fd_pair::sockets, len);
}

// ---- rates and bandwidths through shared memory

sample vyukov_rate(const flow &f, std::size_t capacity)
{
	vyukov_ring ring(capacity, f.len);

	return run_flow(f, [&]() -> vyukov_ring & { return ring; });
}

sample spsc_rate(std::size_t len, std::size_t capacity)
{
	spsc_ring ring(capacity, len);

	return run_flow({1, len}, [&]() -> spsc_ring & { return ring; });
}

sample slots_copy(std::size_t len)
{
	slot_ring ring(nr_large, len);

	return in_bytes(run_flow({1, len}, [&]() -> slot_ring & { return ring; }), len);
}

sample slots_in_place(std::size_t len)
{
	slot_ring ring(nr_large, len);

	return run_in_place(len, [&]() -> slot_ring & { return ring; });
}

sample memcpy_bandwidth(std::size_t len)
{
	shared<double> rate;
	sample s;

	s.error = run_team(1, 1, [&](member &me) {
		std::vector<char> from(len, 1), to(len, 2);
		me.start();
		deadlines until;
		std::uint64_t nr = 0, start = now_ns();
		for (; ticks() < until.end; nr++) {
			std::memcpy(to.data(), from.data(), len);
			asm volatile("" ::"r"(to.data()) : "memory"); // or the copy is dropped
		}
		*rate = static_cast<double>(nr * len) * 1e9 / static_cast<double>(now_ns() - start);
	});
	s.value = *rate;
	return s;
}

// ---- rows

static void add(const std::string &name, std::size_t len, const char *note, const measurement &m)
{
	add_row({"baseline/" + name + "/" + std::to_string(len), note, m, {}});
}

void add_baseline_rows()
{
	const char *one_way = "ns one way, busy", *blocking = "ns one way, blocking";
	const char *rate = "messages/s", *bandwidth = "bytes/s";

	add("cacheline_pingpong", 8, one_way, [] { return raw_latency(8); });
	add("futex_pingpong", 8, blocking, futex_latency);
	add("pipe_latency", 8, blocking, [] { return pipe_latency(8); });
	add("unix_latency", 8, blocking, [] { return unix_latency(8); });
	add("spsc_1to1", 8, rate, [] { return spsc_rate(8, 1024); });
	for (int n : {1, 2, 4}) {
		std::string pairs = std::to_string(n) + "to" + std::to_string(n);
		add("vyukov_" + pairs, 8, rate, [n] { return vyukov_rate({n, 8}, 1024); });
	}
	add("memcpy", 1048576, bandwidth, [] { return memcpy_bandwidth(1048576); });
	for (std::size_t len : {4096, 65536, 1048576}) {
		add("pipe_bw", len, bandwidth, [len] { return pipe_bandwidth(len); });
		add("unix_bw", len, bandwidth, [len] { return unix_bandwidth(len); });
	}
}

} // namespace bench

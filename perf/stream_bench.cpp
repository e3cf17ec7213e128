// SPDX-License-Identifier: Apache-2.0
// stream_bench.cpp - streams between two processes: bytes gathered to chunks, chunks in place, whole conversations, each
// beside its baseline. See perf/README.md.
#include "baseline.h"
#include <memory>
#include <stdexcept>
#include <channels/channels.h>

using namespace bench;

namespace {

constexpr std::uint32_t streams = 16;

[[noreturn]] void raise(const char *what, int rc)
{
	throw std::runtime_error(std::string(what) + ": " + strerror(-rc) + " (" + ch_errmsg() + ")");
}

struct pool_owner {
	void operator()(ch_pool *pool) const { ch_pool_destroy(pool); }
};
struct port_user {
	void operator()(ch_stream_port *port) const { ch_stream_port_detach(port); }
};
struct stream_user {
	void operator()(ch_stream *s) const { ch_stream_close(s); }
};
using port_handle = std::unique_ptr<ch_stream_port, port_user>;
using stream_handle = std::unique_ptr<ch_stream, stream_user>;

// What the parent makes: a pool of its own and two ports in it, gone at the end of the measurement.
class port_set {
	std::unique_ptr<ch_pool, pool_owner> pool;
	port_handle ports[2];

public:
	port_set(std::size_t chunk_len, std::uint32_t capacity, std::uint32_t spin_ns)
	{
		ch_pool_attr attr = CH_POOL_ATTR_INIT;
		ch_stream_attr how = CH_STREAM_ATTR_INIT;
		ch_pool *made;

		attr.len = (std::size_t{16} << 20) + 2 * (capacity + 8) * chunk_len;
		if (int rc = ch_pool_create(&attr, &made); rc < 0)
			raise("ch_pool_create", rc);
		pool.reset(made);
		how.nr_streams = streams;
		how.capacity = capacity;
		how.chunk_len = static_cast<std::uint32_t>(chunk_len);
		how.spin_ns = spin_ns;
		for (int i = 0; i < 2; i++) {
			ch_stream_port *port;
			if (int rc = ch_stream_port_create(made, &how, &port); rc < 0)
				raise("ch_stream_port_create", rc);
			ports[i].reset(port);
		}
	}
	// In a process of the measurement, where the parent's handle becomes the child's own at its first use.
	ch_stream_port *at(int i) const { return ports[i].get(); }
	~port_set()
	{
		for (auto &p : ports)
			ch_stream_port_destroy(p.release());
	}
};

// One end, opened at its first use: the measurement says by what it calls which one it is.
class end_of {
	ch_stream_port *port;
	stream_handle s;

public:
	explicit end_of(ch_stream_port *p) : port(p) {}
	ch_stream *writer()
	{
		ch_stream *made;
		if (!s && ch_stream_open(port, 0, CH_FOREVER, &made) == 0)
			s.reset(made);
		return s.get();
	}
	ch_stream *reader()
	{
		ch_stream *made;
		if (!s && ch_stream_accept(port, CH_FOREVER, &made) == 0)
			s.reset(made);
		return s.get();
	}
};

// ---- bytes

int read_whole(ch_stream *s, void *buf, std::size_t len, std::int64_t timeout_ns)
{
	ssize_t n = ch_stream_read(s, buf, len, timeout_ns, nullptr);

	if (n <= 0)
		return n == 0 ? -EPIPE : static_cast<int>(n);
	for (std::size_t got = static_cast<std::size_t>(n); got < len; got += static_cast<std::size_t>(n))
		if ((n = ch_stream_read(s, static_cast<char *>(buf) + got, len - got, CH_FOREVER, nullptr)) <= 0)
			return n == 0 ? -EPIPE : static_cast<int>(n);
	return 0;
}

int write_whole(ch_stream *s, const void *buf, std::size_t len)
{
	const ssize_t n = ch_stream_write(s, buf, len, 0, CH_FOREVER);

	return n < 0 ? static_cast<int>(n) : 0;
}

// Writes that are gathered; the last one of a measurement is flushed.
struct gathering_port {
	end_of e;

	int try_send(const void *buf, std::size_t len)
	{
		int rc = write_whole(e.writer(), buf, len);
		if (rc == 0 && *static_cast<const std::uint64_t *>(buf) == last_stamp)
			rc = ch_stream_end(e.writer(), CH_FOREVER);
		return rc;
	}
	int try_recv(void *buf, std::size_t len) { return read_whole(e.reader(), buf, len, CH_FOREVER); }
};

sample gathered(std::size_t len, std::size_t chunk_len)
{
	return guarded([=] {
		port_set set(chunk_len, 16, 0);
		return run_flow({1, len}, [&] { return gathering_port{end_of(set.at(0))}; });
	});
}

sample copied(std::size_t len)
{
	return guarded([=] {
		port_set set(len, nr_large - 2, 0);
		sample s = run_flow({1, len}, [&] { return gathering_port{end_of(set.at(0))}; });
		s.value *= static_cast<double>(len);
		return s;
	});
}

struct flushing_end {
	end_of to, from;

	int send(const void *buf, std::size_t len)
	{
		const int rc = write_whole(to.writer(), buf, len);
		return rc < 0 ? rc : ch_stream_flush(to.writer(), CH_FOREVER);
	}
	int recv(void *buf, std::size_t len) { return read_whole(from.reader(), buf, len, CH_FOREVER); }
};

sample latency(std::size_t len, std::uint32_t spin_ns)
{
	return guarded([=] {
		port_set set(len < 64 ? 64 : len, 4, spin_ns);
		return ping_pong(len, [&](int side) {
			return flushing_end{end_of(set.at(side)), end_of(set.at(1 - side))};
		});
	});
}

// ---- chunks in place

class in_place_port {
	end_of e;
	ch_message msg = CH_MESSAGE_INIT;

public:
	explicit in_place_port(ch_stream_port *p) : e(p) {}
	void *claim(member &me, std::size_t len)
	{
		if (int rc = ch_stream_claim(e.writer(), len, CH_FOREVER, &msg); rc < 0)
			me.fail("ch_stream_claim", rc);
		return msg.data;
	}
	void commit(member &me)
	{
		if (int rc = ch_stream_commit(e.writer(), &msg, 0, CH_FOREVER); rc < 0)
			me.fail("ch_stream_commit", rc);
	}
	const void *take(member &me, std::size_t len)
	{
		if (int rc = ch_stream_take(e.reader(), CH_FOREVER, &msg, nullptr); rc < 1)
			me.fail("ch_stream_take", rc);
		if (msg.len != len)
			me.fail("ch_stream_take: wrong length");
		return msg.data;
	}
	void release(member &) { ch_stream_release(e.reader(), &msg); }
};

sample in_place(std::size_t len)
{
	return guarded([=] {
		port_set set(len, nr_large - 2, busy());
		return run_in_place(len, [&] { return in_place_port(set.at(0)); });
	});
}

// ---- conversations

// Every message is a conversation of its own.
template <std::uint32_t Flags> struct talking_port {
	ch_stream_port *port;

	int try_send(const void *buf, std::size_t len)
	{
		ch_stream *s;
		int rc = ch_stream_open(port, Flags, CH_FOREVER, &s);

		if (rc < 0)
			return rc;
		rc = write_whole(s, buf, len);
		rc = rc < 0 ? rc : ch_stream_end(s, CH_FOREVER);
		ch_stream_close(s);
		return rc;
	}
	int try_recv(void *buf, std::size_t len)
	{
		ch_stream *s;
		char more;
		int rc = ch_stream_accept(port, CH_FOREVER, &s);

		if (rc < 0)
			return rc;
		rc = read_whole(s, buf, len, CH_FOREVER);
		if (rc == 0 && ch_stream_read(s, &more, 1, CH_FOREVER, nullptr) != 0)
			rc = -EPROTO;
		ch_stream_close(s);
		return rc;
	}
};

template <std::uint32_t Flags> sample conversations(int pairs)
{
	return guarded([=] {
		port_set set(4096, 4, 0);
		return run_flow({pairs, 8}, [&] { return talking_port<Flags>{set.at(0)}; });
	});
}

void add_rows()
{
	auto named = [](const char *name, std::size_t len) { return std::string(name) + "/" + std::to_string(len); };

	add_row({"stream/latency_spin/8", "ns one way, write, flush and read; baseline: raw cache line",
		 [] { return latency(8, CH_SPIN_ALWAYS); }, [] { return raw_latency(8); }});
	for (std::size_t len : {8, 64, 512})
		add_row({named("stream/gathered", len), "writes/s, in chunks of 64 Ki; baseline: Lamport's ring",
			 [=] { return gathered(len, 64 << 10); }, [=] { return spsc_rate(len, 1024); }});
	for (std::size_t len : {4096, 65536, 1048576})
		add_row({named("stream/copy_bw", len), "bytes/s; baseline: copy in and out of 4 plain slots",
			 [=] { return copied(len); }, [=] { return slots_copy(len); }});
	for (std::size_t len : {4096, 65536, 1048576})
		add_row({named("stream/inplace_bw", len), "bytes/s; baseline: write and read 4 plain slots in place",
			 [=] { return in_place(len); }, [=] { return slots_in_place(len); }});
	add_row({"stream/talk_1to1/8", "conversations/s, opened, written, ended; baseline: Lamport's ring, which has none",
		 [] { return conversations<0>(1); }, [] { return spsc_rate(8, 1024); }});
	add_row({"stream/buffered_talk_1to1/8", "conversations/s, buffered; baseline: streaming",
		 [] { return conversations<CH_STREAM_BUFFERED>(1); }, [] { return conversations<0>(1); }});
}

} // namespace

int main(int argc, char **argv)
{
	add_rows();
	return run_rows(argc, argv, {{"libchannels", ch_version()}, {"spin_mode", "latency_spin, inplace_bw: CH_SPIN_ALWAYS"}});
}

// SPDX-License-Identifier: Apache-2.0
// channel_bench.cpp - latency, message rate, bandwidth and wake-up of channels, and the pool's blocks, through the
// public C interface and between processes, each beside its baseline. See perf/README.md.
#include "baseline.h"
#include <array>
#include <memory>
#include <sched.h>
#include <stdexcept>
#include <channels/channels.h>

using namespace bench;

namespace {

constexpr std::size_t inline_most = 4096; // larger messages go as blocks here
constexpr std::uint32_t rate_capacity = 1024;

[[noreturn]] void raise(const char *what, int rc)
{
	throw std::runtime_error(std::string(what) + ": " + strerror(-rc) + " (" + ch_errmsg() + ")");
}

struct plan {
	std::size_t len;
	std::uint32_t capacity;
	std::uint32_t spin_ns;
	int channels = 1;
	std::uint32_t flags = 0;
	std::uint32_t urgent = 0;
};

struct pool_owner {
	void operator()(ch_pool *pool) const { ch_pool_destroy(pool); }
};
struct channel_owner {
	void operator()(ch_channel *ch) const { ch_channel_destroy(ch); }
};
struct channel_user {
	void operator()(ch_channel *ch) const { ch_channel_detach(ch); }
};
using attached = std::unique_ptr<ch_channel, channel_user>;

// What the parent makes: a pool of its own and channels in it, gone at the end of the measurement.
class channel_set {
	std::unique_ptr<ch_pool, pool_owner> pool;
	std::vector<std::unique_ptr<ch_channel, channel_owner>> channels; // ended before the pool
	std::vector<ch_descr> descrs;

	void add_channel(const plan &p)
	{
		ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
		ch_channel *ch;
		ch_descr descr;

		attr.capacity = p.capacity;
		attr.inline_max = static_cast<std::uint32_t>(p.len <= inline_most ? p.len : 0);
		attr.spin_ns = p.spin_ns;
		attr.flags = p.flags;
		attr.urgent_capacity = p.urgent;
		if (int rc = ch_channel_create(pool.get(), &attr, &ch); rc < 0)
			raise("ch_channel_create", rc);
		channels.emplace_back(ch);
		if (int rc = ch_channel_get_descr(ch, &descr); rc < 0)
			raise("ch_channel_get_descr", rc);
		descrs.push_back(descr);
	}

public:
	explicit channel_set(const plan &p)
	{
		ch_pool_attr attr = CH_POOL_ATTR_INIT;
		ch_pool *made;

		// Twice what can be on its way, and room for the channel's own words.
		attr.len = (std::size_t{8} << 20) + 2 * (p.capacity + 8) * (p.len + 256);
		if (int rc = ch_pool_create(&attr, &made); rc < 0)
			raise("ch_pool_create", rc);
		pool.reset(made);
		for (int i = 0; i < p.channels; i++)
			add_channel(p);
	}

	// In a process of the measurement: by descriptor, as any other program would.
	attached attach(int which, std::uint32_t spin_ns) const
	{
		ch_channel *ch;

		if (int rc = ch_channel_attach(&descrs[static_cast<std::size_t>(which)], &ch); rc < 0)
			raise("ch_channel_attach", rc);
		attached result(ch);
		if (int rc = ch_channel_set_spin(ch, spin_ns); rc < 0)
			raise("ch_channel_set_spin", rc);
		return result;
	}
};

int whole(ssize_t got, std::size_t len)
{
	if (got < 0)
		return static_cast<int>(got);
	return static_cast<std::size_t>(got) == len ? 0 : -EPROTO;
}

// ---- latency

struct blocking_end {
	attached to, from;

	int send(const void *buf, std::size_t len) { return ch_channel_send(to.get(), buf, len, CH_FOREVER); }
	int recv(void *buf, std::size_t len) { return whole(ch_channel_recv(from.get(), buf, len, CH_FOREVER), len); }
};

sample latency(std::size_t len, std::uint32_t spin_ns, std::uint32_t flags = 0)
{
	return guarded([=] {
		channel_set set({len, 4, spin_ns, 2, flags});
		return ping_pong(len, [&](int side) {
			return blocking_end{set.attach(side, spin_ns), set.attach(1 - side, spin_ns)};
		});
	});
}

// Written and read in place, of which the first and the last word: what the bytes between cost is not the channel's.
struct in_place_end {
	attached to, from;

	int send(const void *buf, std::size_t len)
	{
		ch_message msg = CH_MESSAGE_INIT;
		const char *first = static_cast<const char *>(buf);

		if (int rc = ch_channel_claim(to.get(), len, CH_FOREVER, &msg); rc < 0)
			return rc;
		std::memcpy(msg.data, first, 8);
		std::memcpy(static_cast<char *>(msg.data) + len - 8, first + len - 8, 8);
		return ch_channel_commit(to.get(), &msg, CH_FOREVER);
	}
	int recv(void *buf, std::size_t len)
	{
		ch_message msg = CH_MESSAGE_INIT;
		char *first = static_cast<char *>(buf);

		if (int rc = ch_channel_take(from.get(), CH_FOREVER, &msg); rc < 0)
			return rc;
		const int rc = whole(static_cast<ssize_t>(msg.len), len);
		std::memcpy(first, msg.data, 8);
		std::memcpy(first + len - 8, static_cast<char *>(msg.data) + len - 8, 8);
		ch_channel_release(from.get(), &msg);
		return rc;
	}
};

sample in_place_latency(std::size_t len)
{
	return guarded([=] {
		channel_set set({len, 4, busy(), 2});
		return ping_pong(len, [&](int side) {
			return in_place_end{set.attach(side, busy()), set.attach(1 - side, busy())};
		});
	});
}

// ---- rate and bandwidth, copying

// Tries, and the loop waits as it does for the baseline.
struct trying_port {
	attached ch;

	int try_send(const void *buf, std::size_t len) { return ch_channel_send(ch.get(), buf, len, CH_TRY); }
	int try_recv(void *buf, std::size_t len) { return whole(ch_channel_recv(ch.get(), buf, len, CH_TRY), len); }
};

// Waits in the call, as programs do.
struct waiting_port {
	attached ch;

	int try_send(const void *buf, std::size_t len) { return ch_channel_send(ch.get(), buf, len, CH_FOREVER); }
	int try_recv(void *buf, std::size_t len) { return whole(ch_channel_recv(ch.get(), buf, len, CH_FOREVER), len); }
};

struct channel_of_many {
	attached ch;

	ssize_t send(const ch_send_item *items, std::size_t nr)
	{
		return ch_channel_send_batch(ch.get(), items, nr, CH_TRY);
	}
	ssize_t recv(ch_recv_item *items, std::size_t nr) { return ch_channel_recv_batch(ch.get(), items, nr, CH_TRY); }
};

// The plain ring's claims of many at a time are the least that a batch can cost where a message has a slot of its own.
struct plain_of_many {
	vyukov_ring &ring;

	ssize_t send(const ch_send_item *items, std::size_t nr)
	{
		return ring.try_send_many(
			nr, [=](char *slot, std::size_t k) { std::memcpy(slot, items[k].buf, sizeof(std::uint64_t)); });
	}
	ssize_t recv(ch_recv_item *items, std::size_t nr)
	{
		return ring.try_recv_many(nr, [=](const char *slot, std::size_t k) {
			std::memcpy(items[k].buf, slot, items[k].len = sizeof(std::uint64_t));
		});
	}
};

// 32 in one call, written and read where the caller's items are. The last message of a sender waits for no more.
template <class Many> class batching_port {
	static constexpr std::size_t most = 32;
	Many many;
	std::size_t words; // of a message
	std::vector<std::uint64_t> bytes;
	std::array<ch_send_item, most> out{};
	std::array<ch_recv_item, most> in{};
	std::size_t nr = 0, next = 0; // messages in bytes; the first that is not sent, or not handed out

public:
	batching_port(Many m, std::size_t len) : many(std::move(m)), words(len / 8), bytes(most * words)
	{
		for (std::size_t i = 0; i < most; i++) {
			out[i] = {&bytes[i * words], len};
			in[i] = {&bytes[i * words], len, 0};
		}
	}

	std::uint64_t *place() { return bytes.data() + nr * words; }
	int try_send(const std::uint64_t *m, std::size_t)
	{
		if (m == place()) // otherwise it was, and had to wait
			nr++;
		if (nr < most && *m != last_stamp)
			return 0;
		const ssize_t n = many.send(out.data() + next, nr - next);
		if (n < 0)
			return static_cast<int>(n);
		next += static_cast<std::size_t>(n);
		if (next < nr)
			return -EAGAIN;
		nr = next = 0;
		return 0;
	}
	int try_next(const std::uint64_t *&out_at, std::size_t len)
	{
		if (next == nr) {
			const ssize_t n = many.recv(in.data(), most);
			if (n < 0)
				return static_cast<int>(n);
			nr = static_cast<std::size_t>(n);
			next = 0;
		}
		out_at = &bytes[next * words];
		return whole(static_cast<ssize_t>(in[next++].len), len);
	}
};

// With a tag, or by the urgent lane.
template <std::uint32_t Flags> struct attributed_port {
	attached ch;

	int try_send(const void *buf, std::size_t len)
	{
		ch_send_attr attr = CH_SEND_ATTR_INIT;

		attr.flags = Flags;
		attr.tag = 1;
		return ch_channel_send_attr(ch.get(), buf, len, &attr, CH_TRY);
	}
	int try_recv(void *buf, std::size_t len)
	{
		ch_recv_info info;

		return whole(ch_channel_recv_info(ch.get(), buf, len, CH_TRY, &info), len);
	}
};

// Taken, and done with at the release.
struct acknowledging_port {
	attached ch;

	int try_send(const void *buf, std::size_t len) { return ch_channel_send(ch.get(), buf, len, CH_TRY); }
	int try_recv(void *buf, std::size_t len)
	{
		ch_message msg = CH_MESSAGE_INIT;

		if (int rc = ch_channel_take(ch.get(), CH_TRY, &msg); rc < 0)
			return rc;
		const int rc = whole(static_cast<ssize_t>(msg.len), len);
		std::memcpy(buf, msg.data, len);
		ch_channel_release(ch.get(), &msg);
		return rc;
	}
};

template <class Port>
sample rate(const flow &f, std::uint32_t capacity, std::uint32_t flags = 0, std::uint32_t urgent = 0)
{
	return guarded([=] {
		channel_set set({f.len, capacity, 0, 1, flags, urgent});
		return run_flow(f, [&] { return Port{set.attach(0, 0)}; });
	});
}

sample batch_rate(const flow &f, std::uint32_t flags = 0)
{
	return guarded([=] {
		channel_set set({f.len, rate_capacity, 0, 1, flags});
		return run_flow(f, [&] { return batching_port<channel_of_many>({set.attach(0, 0)}, f.len); });
	});
}

sample plain_batch_rate()
{
	vyukov_ring ring(rate_capacity, 8);

	return run_flow({1, 8}, [&] { return batching_port<plain_of_many>({ring}, 8); });
}

// ---- bandwidth in place

// A capacity of two, one being written and one being read: four blocks are in use, as many as the baseline has slots.
constexpr std::uint32_t large_capacity = nr_large - 2;

class in_place_port {
	attached ch;
	ch_message msg = CH_MESSAGE_INIT;

public:
	explicit in_place_port(attached a) : ch(std::move(a)) {}

	void *claim(member &me, std::size_t len)
	{
		if (int rc = ch_channel_claim(ch.get(), len, CH_FOREVER, &msg); rc < 0)
			me.fail("ch_channel_claim", rc);
		return msg.data;
	}
	void commit(member &me)
	{
		if (int rc = ch_channel_commit(ch.get(), &msg, CH_FOREVER); rc < 0)
			me.fail("ch_channel_commit", rc);
	}
	const void *take(member &me, std::size_t len)
	{
		if (int rc = ch_channel_take(ch.get(), CH_FOREVER, &msg); rc < 0)
			me.fail("ch_channel_take", rc);
		if (msg.len != len)
			me.fail("ch_channel_take: wrong length");
		return msg.data;
	}
	void release(member &) { ch_channel_release(ch.get(), &msg); }
};

sample in_place(std::size_t len)
{
	return guarded([=] {
		channel_set set({len, large_capacity, busy()});
		return run_in_place(len, [&] { return in_place_port(set.attach(0, busy())); });
	});
}

sample bandwidth(std::size_t len, std::uint32_t capacity = 64)
{
	sample s = rate<trying_port>({1, len}, capacity);

	s.value *= static_cast<double>(len);
	return s;
}

// ---- the pool's blocks

// Returns 0 if the process was kept waiting until the time was over.
double alloc_free_ns(member &me, ch_pool *pool, std::size_t len)
{
	deadlines until;
	std::uint64_t nr = 0, start = 0, now;

	while ((now = ticks()) < until.end) {
		if (!start && now > until.warm) {
			start = now;
			nr = 0;
		}
		for (int i = 0; i < 64; i++, nr++) {
			void *block;
			if (int rc = ch_pool_alloc(pool, len, CH_TRY, &block); rc < 0)
				me.fail("ch_pool_alloc", rc);
			*static_cast<volatile char *>(block) = 1;
			if (int rc = ch_pool_free(pool, block); rc < 0)
				me.fail("ch_pool_free", rc);
		}
	}
	return start ? static_cast<double>(now - start) / ticks_per_ns() / static_cast<double>(nr) : 0;
}

sample alloc_free(std::size_t len)
{
	return guarded([=] {
		channel_set set({len, 16, 0});
		shared<double> ns;
		sample s;
		s.error = run_team(1, 1, [&](member &me) {
			attached ch = set.attach(0, 0);
			me.start();
			*ns = alloc_free_ns(me, ch_channel_get_pool(ch.get()), len);
		});
		s.value = *ns;
		s.is_starved = s.value <= 0;
		return s;
	});
}

// ---- rows

std::string named(const std::string &name, std::size_t len)
{
	return name + "/" + std::to_string(len);
}

constexpr std::size_t sizes[] = {8, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576};

// Peers that cannot be run here, by the ratio that they had to the same baseline where they were measured (README.md).
struct measured_peer {
	const char *row, *peer;
	double ratio;
};
constexpr measured_peer peers[] = {
	{"channel/latency_spin/8", "Aeron IPC, 80 ns, raw 60", 80.0 / 60},
	{"channel/latency_spsc/8", "Aeron IPC, 80 ns, raw 60", 80.0 / 60},
	{"channel/latency_spin/64", "libfabric shm, 560 ns, raw at most 200", 560.0 / 200},
	{"channel/latency_spin/65536", "libfabric shm, 20 us, memcpy in and out 13.1", 20 / 13.1},
	{"channel/latency_adaptive/8", "DragonHPC, blocking, 3 us, raw at most 200 ns", 3000.0 / 200},
	{"channel/latency_inplace/1048576", "iceoryx, 1.2 us, raw at most 200 ns", 1200.0 / 200},
	{"channel/rate_1to1/8", "Aeron IPC, 7 M/s, plain MPMC ring 45", 7.0 / 45},
	{"channel/rate_2to2/8", "DPDK rte_ring, 6 M/s, plain MPMC ring 50", 6.0 / 50},
	{"channel/copy_bw/1048576", "DragonHPC, 14 GB/s, 4 plain slots 16", 14.0 / 16},
};

void add_channel_row(row r)
{
	for (const measured_peer &p : peers)
		if (r.name == p.row) {
			r.peer_ratio = p.ratio;
			r.peer = p.peer;
		}
	add_row(std::move(r));
}

void add_latency_rows()
{
	for (std::size_t len : sizes)
		add_channel_row({named("channel/latency_spin", len),
				 len == 8 ? "ns one way, busy; baseline: raw cache line"
					  : "ns one way, busy; baseline: copy in, raw exchange, copy out",
				 [=] { return latency(len, CH_SPIN_ALWAYS); }, [=] { return raw_latency(len); }});
	add_channel_row({"channel/latency_spsc/8", "ns one way, busy, one sender, one receiver; baseline: raw cache line",
			 [] { return latency(8, CH_SPIN_ALWAYS, CH_CHANNEL_SPSC); }, [] { return raw_latency(8); }});
	add_channel_row({"channel/latency_adaptive/8", "ns one way, default spin; baseline: raw cache line",
			 [] { return latency(8, 0); }, [] { return raw_latency(8); }});
	for (std::size_t len : {65536, 1048576})
		add_channel_row({named("channel/latency_inplace", len),
				 "ns one way, busy, first and last word in place; baseline: raw cache line",
				 [=] { return in_place_latency(len); }, [] { return raw_latency(8); }});
	add_channel_row({"channel/wakeup/8", "ns one way, blocking; baseline: raw futex",
			 [] { return latency(8, CH_SPIN_NEVER); }, futex_latency});
}

// Peers that every machine has, themselves.
void add_peer_rows()
{
	for (std::size_t len : sizes) {
		add_row({named("peer/pipe_latency", len), "ns one way, default spin; baseline: pipe",
			 [=] { return latency(len, 0); }, [=] { return pipe_latency(len); }});
		add_row({named("peer/unix_latency", len), "ns one way, default spin; baseline: Unix stream socket",
			 [=] { return latency(len, 0); }, [=] { return unix_latency(len); }});
		add_row({named("peer/pipe_bw", len), "bytes/s; baseline: pipe", [=] { return bandwidth(len); },
			 [=] { return pipe_bandwidth(len); }});
		add_row({named("peer/unix_bw", len), "bytes/s; baseline: Unix stream socket", [=] { return bandwidth(len); },
			 [=] { return unix_bandwidth(len); }});
	}
}

template <class Port> void add_rate_row(const std::string &name, flow f)
{
	add_channel_row({named("channel/" + name, f.len), "messages/s; baseline: plain bounded MPMC ring",
			 [=] { return rate<Port>(f, rate_capacity); }, [=] { return vyukov_rate(f, rate_capacity); }});
}

void add_rate_rows()
{
	for (std::size_t len : {8, 64, 512, 4096})
		add_rate_row<trying_port>("rate_1to1", {1, len});
	add_rate_row<trying_port>("rate_2to2", {2, 8});
	add_rate_row<trying_port>("rate_4to4", {4, 8});
	add_rate_row<waiting_port>("rate_wait_1to1", {1, 8});
}

// The ways to send that a channel has beside the plain one.
void add_variant_rows()
{
	const flow one{1, 8};
	auto single = [one] { return rate<trying_port>(one, rate_capacity); };

	add_row({"channel/spsc_1to1/8", "messages/s, one sender, one receiver; baseline: Lamport's ring",
		 [one] { return rate<trying_port>(one, rate_capacity, CH_CHANNEL_SPSC); },
		 [] { return spsc_rate(8, rate_capacity); }});
	add_row({"channel/batch_1to1/8", "messages/s, 32 in a call; baseline: one in a call",
		 [one] { return batch_rate(one); }, single});
	add_row({"channel/batch_bound_1to1/8", "messages/s, plain bounded MPMC ring, 32 in a call; baseline: one in a call",
		 plain_batch_rate, [one] { return vyukov_rate(one, rate_capacity); }});
	add_row({"channel/batch_spsc_1to1/8", "messages/s, 32 in a call, one sender, one receiver; baseline: Lamport's ring",
		 [one] { return batch_rate(one, CH_CHANNEL_SPSC); },
		 [] { return spsc_rate(8, rate_capacity); }});
	add_row({"channel/tagged_1to1/8", "messages/s, with tag and sender; baseline: without",
		 [one] { return rate<attributed_port<CH_MESSAGE_TAGGED>>(one, rate_capacity); }, single});
	add_row({"channel/urgent_1to1/8", "messages/s, by the urgent lane; baseline: a channel that has none",
		 [one] { return rate<attributed_port<CH_MESSAGE_URGENT>>(one, rate_capacity, 0, rate_capacity); }, single});
	add_row({"channel/acknowledged_1to1/8", "messages/s, take and release; baseline: send and recv",
		 [one] { return rate<acknowledging_port>(one, rate_capacity, CH_CHANNEL_ACKNOWLEDGED); }, single});
}

void add_bandwidth_rows()
{
	for (std::size_t len : {4096, 16384, 65536, 262144, 1048576})
		add_channel_row({named("channel/copy_bw", len), "bytes/s; baseline: copy in and out of 4 plain slots",
				 [=] { return bandwidth(len, large_capacity); }, [=] { return slots_copy(len); }});
	for (std::size_t len : {4096, 65536, 1048576})
		add_row({named("channel/inplace_bw", len), "bytes/s; baseline: write and read 4 plain slots in place",
			 [=] { return in_place(len); }, [=] { return slots_in_place(len); }});
	for (std::size_t len : {64, 1024, 65536, 1048576})
		add_row({named("pool/alloc_free", len), "ns for both", [=] { return alloc_free(len); }, {}});
}

} // namespace

int main(int argc, char **argv)
{
	add_latency_rows();
	add_rate_rows();
	add_variant_rows();
	add_bandwidth_rows();
	add_peer_rows();
	add_baseline_rows();
	return run_rows(argc, argv,
			{{"libchannels", ch_version()},
			 {"spin_mode", "latency_spin, inplace_bw: CH_SPIN_ALWAYS; wakeup: CH_SPIN_NEVER; "
				       "latency_adaptive, rate_wait: default; rate, copy_bw: CH_TRY, pause, and "
				       "sched_yield every 256 tries, as the baselines"}});
}

// SPDX-License-Identifier: Apache-2.0
// ddict_bench.cpp - the dictionary between processes: keys of 128 bytes, values of 64 bytes to 64 MiB, put, get, views,
// batches and calls under way, by one client and by several, beside a minimal manager and beside memcpy. See
// perf/README.md.
#include "ddict_baseline.h"
#include <ddict/ddict.hpp>
#include <deque>
#include <sched.h>
#include <stdexcept>

using namespace bench;

namespace {

constexpr std::size_t in_flight = 64;

struct plan {
	std::size_t len;
	int clients = 1;
	unsigned managers = 1;
};

// How many keys a client has: as many as 4 MiB hold, but 2 to 128, shared by all clients. So values of up to 1 MiB stay in
// the caches, for many clients as for one, and for the dictionary as for memcpy.
std::size_t nr_keys(std::size_t len, int clients = 1)
{
	return std::clamp<std::size_t>((std::size_t{4} << 20) / len / static_cast<std::size_t>(clients), 2, 128);
}

ch::ddict_core make(const plan &p)
{
	const std::size_t each = nr_keys(p.len, p.clients) * (p.len + 1024) * static_cast<std::size_t>(p.clients);

	// A value is written before the old one goes; and keys are not spread evenly.
	return ch::ddict_core::create(
		{.managers = p.managers, .memory = (std::size_t{4} << 20) * p.managers + 3 * each + 4 * p.len});
}

// A client's own handle, keys, and value.
class client {
public:
	client(const ch::descriptor &d, const plan &p, int who)
	    : dict(ch::ddict_core::attach(d)), value(p.len), got(p.len), keys(nr_keys(p.len, p.clients), key_text{})
	{
		for (std::size_t k = 0; k < keys.size(); k++)
			keys[k] = key_of(static_cast<std::uint64_t>(who), k);
		for (std::size_t k = 0; k < keys.size(); k++)
			put(k);
	}
	ch::ddict_core::bytes key(std::size_t k) const { return std::as_bytes(std::span(keys[k % keys.size()])); }
	void put(std::size_t k)
	{
		value.set_stamp(k % keys.size());
		dict.put(key(k), value.len(),
			 [&](std::span<std::byte> to) { std::memcpy(to.data(), value.data(), to.size()); });
	}
	bool get(std::size_t k)
	{
		return dict.get(key(k), [&](ch::ddict_core::bytes b) {
			std::memcpy(got.data(), b.data(), b.size());
		}) && got.stamp() == k % keys.size();
	}
	bool put_get(std::size_t k)
	{
		put(k);
		return get(k);
	}
	bool view(std::size_t k)
	{
		const std::optional<ch::ddict_view> v = dict.view(key(k));
		std::uint64_t stamp;

		if (!v)
			return false;
		std::memcpy(&stamp, v->data().data(), sizeof(stamp));
		return stamp == k % keys.size();
	}
	std::size_t put_batch(std::size_t k)
	{
		ch::ddict_core::put_batch batch(dict);

		for (std::size_t i = 0; i < in_flight; i++) {
			value.set_stamp((k + i) % keys.size());
			batch.add(key(k + i), value.len(),
				  [&](std::span<std::byte> to) { std::memcpy(to.data(), value.data(), to.size()); });
		}
		batch.finish();
		return in_flight;
	}
	std::size_t get_batch(std::size_t k)
	{
		std::vector<ch::ddict_core::bytes> wanted;
		std::size_t good = 0;

		for (std::size_t i = 0; i < in_flight; i++)
			wanted.push_back(key(k + i));
		dict.get_many(wanted, [&](std::size_t i, const ch::ddict_core::bytes *b) {
			if (b)
				std::memcpy(got.data(), b->data(), b->size());
			good += b && got.stamp() == (k + i) % keys.size();
		});
		return good == in_flight ? good : 0;
	}
	// Many under way: the oldest is waited for when one more is begun.
	bool get_ahead(std::size_t k)
	{
		if (calls.size() == ahead()) {
			const bool good = calls.front().read(
				[&](ch::ddict_core::bytes b) { std::memcpy(got.data(), b.data(), b.size()); });

			calls.pop_front();
			if (!good)
				return false;
		}
		calls.push_back(dict.start_get(key(k)));
		return true;
	}
	bool put_ahead(std::size_t k)
	{
		if (calls.size() == ahead()) {
			if (!calls.front().done())
				return false;
			calls.pop_front();
		}
		value.set_stamp(k % keys.size());
		calls.push_back(dict.start_put(key(k), value.len(), [&](std::span<std::byte> to) {
			std::memcpy(to.data(), value.data(), to.size());
		}));
		return true;
	}

private:
	ch::ddict_core dict;
	message value, got;
	std::vector<key_text> keys;
	std::deque<ch::ddict_call> calls;
	std::size_t ahead() const { return value.len() > 4096 ? 4 : in_flight; }
};

// As subject and baseline elsewhere: clients on the first half of the cpus, managers on the second.
void pin(pid_t who, int index, const plan &p)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(static_cast<unsigned>(cpu_of(index, p.clients, p.clients + static_cast<int>(p.managers))), &cpus);
	if (sched_setaffinity(who, sizeof(cpus), &cpus) < 0)
		throw std::runtime_error("a process cannot be pinned");
}

// Calls one of the client's operations until the time is over; f(client, k) gives how many it did, 0 for a failure.
template <class F> sample rate(const plan &p, F f)
{
	try {
		const ch::ddict_core d = make(p);

		for (unsigned m = 0; m < p.managers; m++)
			pin(ch_peer_pid(d.manager_peer(m)), p.clients + static_cast<int>(m), p);
		return count_clients(p.clients, [&](member &me, const std::function<void()> &ready) {
			pin(0, me.index, p);
			client c(d.descr(), p, me.index);

			ready();
			return run_timed([&](std::size_t k) {
				const std::size_t done = f(c, k);

				if (!done)
					me.fail("a value is not what was put");
				return done;
			});
		});
	} catch (const std::exception &e) {
		sample s;

		s.error = e.what();
		return s;
	}
}

sample one_put(const plan &p)
{
	return rate(p, [](client &c, std::size_t k) { return c.put(k), std::size_t{1}; });
}
sample one_get(const plan &p)
{
	return rate(p, [](client &c, std::size_t k) { return std::size_t{c.get(k)}; });
}
sample put_get(const plan &p)
{
	return rate(p, [](client &c, std::size_t k) { return c.put_get(k) ? std::size_t{2} : 0; });
}
sample one_view(const plan &p)
{
	return rate(p, [](client &c, std::size_t k) { return std::size_t{c.view(k)}; });
}
sample batch_put(const plan &p)
{
	return rate(p, [](client &c, std::size_t k) { return c.put_batch(k); });
}
sample batch_get(const plan &p)
{
	return rate(p, [](client &c, std::size_t k) { return c.get_batch(k); });
}
sample ahead_get(const plan &p)
{
	return rate(p, [](client &c, std::size_t k) { return std::size_t{c.get_ahead(k)}; });
}

sample ahead_put(const plan &p)
{
	return rate(p, [](client &c, std::size_t k) { return std::size_t{c.put_ahead(k)}; });
}

// 1 KiB gets of one client while another puts: the median, and the 99th percentile as a multiple of it.
sample get_under_puts(std::size_t len)
{
	const plan p{.len = len, .clients = 2};
	shared<histogram> times;
	sample s;

	try {
		const ch::ddict_core d = make(p);

		s = count_clients(2, [&](member &me, const std::function<void()> &ready) {
			client c(d.descr(), p, me.index);

			ready();
			return run_timed([&](std::size_t k) {
				const std::uint64_t start = ticks();

				if (me.index == 1)
					return c.put(k), std::size_t{1};
				if (!c.get(k))
					me.fail("a value is not what was put");
				times->add(ticks() - start);
				return std::size_t{1};
			});
		});
	} catch (const std::exception &e) {
		s.error = e.what();
	}
	s.p50 = times->quantile(0.5) / ticks_per_ns();
	s.p99 = times->quantile(0.99) / ticks_per_ns();
	s.p999 = times->quantile(0.999) / ticks_per_ns();
	s.value = s.p99;
	return s;
}

// The same measurement gives both: value is p99, baseline p50.
void add_tail_row()
{
	static sample last;

	add_row({"ddict/get_under_puts/1024", "ns, p99; baseline: p50 of the same calls",
		 [] { return last = get_under_puts(1024); },
		 [] {
			 sample s = get_under_puts(1024);

			 s.value = s.p50;
			 return s;
		 }});
}

std::string name(const char *what, std::size_t len)
{
	return std::string("ddict/") + what + "/" + std::to_string(len);
}

void add_small_rows()
{
	for (const std::size_t len : {std::size_t{64}, std::size_t{256}}) {
		const auto bound = [len] { return minimal_manager(len); };
		const auto bound_ahead = [len] { return minimal_manager(len, in_flight); };

		add_row({name("put", len), "puts/s; baseline: a minimal manager behind a spinning ring",
			 [len] { return one_put({len}); }, bound});
		add_row({name("get", len), "gets/s; baseline: the same minimal manager",
			 [len] { return one_get({len}); }, bound});
		add_row({name("put_get", len), "calls/s: a put, and a get of its key; baseline: the same minimal manager",
			 [len] { return put_get({len}); }, bound});
		add_row({name("put_batch", len), "puts/s, 64 in a batch; baseline: the same, 64 under way",
			 [len] { return batch_put({len}); }, bound_ahead});
		add_row({name("get_batch", len), "gets/s, 64 in a batch; baseline: the same, 64 under way",
			 [len] { return batch_get({len}); }, bound_ahead});
		add_row({name("get_ahead", len), "gets/s, 64 under way; baseline: the same, 64 under way",
			 [len] { return ahead_get({len}); }, bound_ahead});
		add_row({name("put_ahead", len), "puts/s, 64 under way; baseline: the same, 64 under way",
			 [len] { return ahead_put({len}); }, bound_ahead});
	}
}

// Beside other people's servers, one at a time and 64 in one write.
void add_peer_rows()
{
	for (const peer p : {peer::redis, peer::memcached}) {
		const char *who = p == peer::redis ? "redis" : "memcached";

		if (!is_installed(p))
			continue;
		for (const std::size_t len : {std::size_t{64}, std::size_t{65536}}) {
			const auto add = [&](const char *what, bool is_get, std::size_t ahead, auto subject) {
				add_row({name((std::string(what) + "_beside_" + who).c_str(), len),
					 std::string("operations/s; baseline: ") + who + (ahead > 1 ? ", 64 in one write" : ""),
					 [=] { return subject(plan{len}); }, [=] { return ask_peer(p, is_get, len, ahead); }});
			};

			add("put", false, 1, one_put);
			add("get", true, 1, one_get);
			if (len > 4096)
				continue;
			add("put_batch", false, in_flight, batch_put);
			add("get_batch", true, in_flight, batch_get);
		}
	}
}

void add_large_rows()
{
	for (std::size_t len = 64 << 10; len <= std::size_t{64} << 20; len *= 4) {
		add_row({name("put", len), "puts/s; baseline: memcpy into shared memory",
			 [len] { return one_put({len}); }, [len] { return memcpy_in(len, nr_keys(len) + 1); }});
		add_row({name("get", len), "gets/s; baseline: memcpy out of shared memory",
			 [len] { return one_get({len}); }, [len] { return memcpy_out(len, nr_keys(len)); }});
		add_row({name("put_ahead", len), "puts/s, 4 under way; baseline: memcpy into shared memory",
			 [len] { return ahead_put({len}); }, [len] { return memcpy_in(len, nr_keys(len) + 4); }});
		add_row({name("get_ahead", len), "gets/s, 4 under way; baseline: memcpy out of shared memory",
			 [len] { return ahead_get({len}); }, [len] { return memcpy_out(len, nr_keys(len)); }});
		if (len <= 256 << 10) {
			add_row({name("put_bound", len), "copies/s, each with a call of a minimal manager; baseline: memcpy",
				 [len] { return minimal_manager_in(len, nr_keys(len) + 1); },
				 [len] { return memcpy_in(len, nr_keys(len) + 1); }});
			add_row({name("get_bound", len), "copies/s, each with a call of a minimal manager; baseline: memcpy",
				 [len] { return minimal_manager_out(len, nr_keys(len)); },
				 [len] { return memcpy_out(len, nr_keys(len)); }});
		}
		add_row({name("view", len), "views/s; baseline: memcpy out of shared memory",
			 [len] { return one_view({len}); }, [len] { return memcpy_out(len, nr_keys(len)); }});
	}
}

void add_many_rows()
{
	for (const std::size_t len : {std::size_t{64}, std::size_t{65536}}) {
		for (const int clients : {2, 4, 8}) {
			const std::string who = std::to_string(clients) + "_clients";

			add_row({name(("put_" + who).c_str(), len),
				 "puts/s, 2 managers; baseline: one client, one manager",
				 [=] {
					 return one_put({len, clients, 2});
				 },
				 [=] { return one_put({len}); }});
			add_row({name(("get_" + who).c_str(), len),
				 "gets/s, 2 managers; baseline: one client, one manager",
				 [=] {
					 return one_get({len, clients, 2});
				 },
				 [=] { return one_get({len}); }});
		}
	}
}

} // namespace

int main(int argc, char **argv)
{
	add_small_rows();
	add_peer_rows();
	add_large_rows();
	add_many_rows();
	add_tail_row();
	add_files_rows();
	return run_rows(argc, argv, {{"keys", "128 bytes"}, {"in_flight", std::to_string(in_flight)}});
}

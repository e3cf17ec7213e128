// SPDX-License-Identifier: Apache-2.0
// ddict_baseline.cpp - a minimal manager, and memcpy.
#include "ddict_baseline.h"
#include <functional>
#include <optional>
#include <stdexcept>
#include <string_view>

namespace bench {

key_text key_of(std::uint64_t who, std::uint64_t k)
{
	key_text t{};
	std::uint64_t x = who << 32 | k;

	for (std::size_t at = 0; at < t.size(); at += 8) {
		x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9) + at;
		std::memcpy(t.data() + at, &x, 8);
	}
	return t;
}

sample count_clients(int nr, const std::function<counted(member &, const std::function<void()> &)> &work)
{
	shared<std::array<counted, 64>> all;
	sample s;

	s.error = run_team(nr, nr, [&](member &me) {
		try {
			(*all)[static_cast<std::size_t>(me.index)] = work(me, [&] { me.start(); });
		} catch (const std::exception &e) {
			me.fail(e.what());
		}
	});
	for (int i = 0; i < nr; i++) {
		const counted &c = (*all)[static_cast<std::size_t>(i)];

		s.value += c.ns ? static_cast<double>(c.done) * 1e9 / static_cast<double>(c.ns) : 0;
		s.is_starved = s.is_starved || c.done < 2;
	}
	return s;
}

namespace {

// What goes over the ring: an operation, a key, a value. The answer is the same bytes.
struct request_head {
	std::uint64_t what; // 0: put, 1: get, 2: end
	key_text key;
};

class table {
public:
	explicit table(std::size_t value_len) : len(value_len), keys(nr), values(nr * value_len) {}
	char *value_of(const key_text &key)
	{
		std::size_t i = std::hash<std::string_view>()({key.data(), key.size()}) % nr;

		while (keys[i] != key) {
			if (keys[i] == key_text{}) {
				keys[i] = key;
				break;
			}
			i = (i + 1) % nr;
		}
		return values.data() + i * len;
	}

private:
	static constexpr std::size_t nr = 4096;
	std::size_t len;
	std::vector<key_text> keys;
	std::vector<char> values;
};

void serve(spsc_ring &in, spsc_ring &out, std::size_t len)
{
	message m(sizeof(request_head) + len);
	table t(len);
	backoff wait;

	for (;;) {
		while (in.try_recv(m.data(), m.len()) < 0)
			wait.pause();
		request_head head;

		std::memcpy(&head, m.data(), sizeof(head));
		if (head.what == 2)
			return;
		char *body = reinterpret_cast<char *>(m.data()) + sizeof(head);
		char *value = t.value_of(head.key);

		if (head.what == 0)
			std::memcpy(value, body, len);
		else
			std::memcpy(body, value, len);
		while (out.try_send(m.data(), m.len()) < 0)
			wait.pause();
	}
}

} // namespace

// The client's side: requests in turn, answers in their order.
class asker {
public:
	asker(spsc_ring &to, spsc_ring &from, std::size_t len) : to_(to), from_(from), m_(len) {}
	void send(std::uint64_t what, const key_text &key)
	{
		const request_head head{what, key};

		std::memcpy(m_.data(), &head, sizeof(head));
		while (to_.try_send(m_.data(), m_.len()) < 0)
			wait_.pause();
	}
	// At least so many answers, and those that are there.
	std::size_t receive(std::size_t least)
	{
		for (std::size_t nr = 0;;) {
			if (from_.try_recv(m_.data(), m_.len()) >= 0)
				nr++;
			else if (nr >= least)
				return nr;
			else
				wait_.pause();
		}
	}

private:
	spsc_ring &to_, &from_;
	message m_;
	backoff wait_;
};

// with_each(n): what the client does before it sends request n.
static sample ask_manager(std::size_t len, std::size_t ahead, const std::function<void(std::size_t)> &with_each)
{
	const std::size_t all = sizeof(request_head) + len;
	spsc_ring to(64, all), from(64, all);
	shared<counted> result;
	sample s;

	s.error = run_team(2, 1, [&](member &me) {
		me.start();
		if (me.index == 1)
			return serve(to, from, len);
		asker a(to, from, all);
		std::vector<key_text> keys;
		std::size_t nr = 0, under_way = 0;

		for (std::uint64_t k = 0; k < 128; k++)
			keys.push_back(key_of(0, k));
		*result = run_timed([&](std::size_t) {
			for (; under_way < ahead; under_way++, nr++) {
				if (with_each)
					with_each(nr);
				a.send(nr % 2, keys[nr / 2 % keys.size()]);
			}
			const std::size_t done = a.receive(1);

			under_way -= done;
			return done;
		});
		a.receive(under_way);
		a.send(2, keys[0]);
	});
	s.value = result->ns ? static_cast<double>(result->done) * 1e9 / static_cast<double>(result->ns) : 0;
	return s;
}

sample minimal_manager(std::size_t len, std::size_t ahead)
{
	return ask_manager(len, ahead, {});
}

// Copies between a private buffer and nr places in shared memory in turn.
class copier {
public:
	copier(std::size_t len, std::size_t nr, bool is_in) : len_(len), nr_(nr), is_in_(is_in), memory_(len * nr), m_(len)
	{
		for (std::size_t i = 0; i < nr; i++)
			std::memcpy(place(i), m_.data(), len);
	}
	void copy(std::size_t k)
	{
		if (is_in_)
			std::memcpy(place(k), m_.data(), len_);
		else
			std::memcpy(m_.data(), place(k), len_);
		asm volatile("" ::"r"(m_.data()), "r"(place(k)) : "memory");
	}

private:
	std::size_t len_, nr_;
	bool is_in_;
	region memory_;
	message m_;
	char *place(std::size_t k) const { return static_cast<char *>(memory_.data()) + k % nr_ * len_; }
};

static sample ask_and_copy(std::size_t len, std::size_t nr, bool is_in)
{
	std::optional<copier> c; // in the client, whose page tables it is to be in

	return ask_manager(8, 1, [&](std::size_t k) {
		if (!c)
			c.emplace(len, nr, is_in);
		c->copy(k);
	});
}

sample minimal_manager_in(std::size_t len, std::size_t nr)
{
	return ask_and_copy(len, nr, true);
}

sample minimal_manager_out(std::size_t len, std::size_t nr)
{
	return ask_and_copy(len, nr, false);
}

static sample copies(std::size_t len, std::size_t nr, bool is_in)
{
	return count_clients(1, [&](member &, const std::function<void()> &ready) {
		copier c(len, nr, is_in);

		ready();
		return run_timed([&](std::size_t k) { return c.copy(k), std::size_t{1}; });
	});
}

sample memcpy_in(std::size_t len, std::size_t nr)
{
	return copies(len, nr, true);
}

sample memcpy_out(std::size_t len, std::size_t nr)
{
	return copies(len, nr, false);
}

} // namespace bench

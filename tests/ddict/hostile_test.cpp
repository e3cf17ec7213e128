// SPDX-License-Identifier: Apache-2.0
// hostile_test.cpp - requests that no client of ours would send. Sees the wire format of libddict.
#include "ddict_support.hpp"
#include "directory.hpp"
#include "wire.hpp"

using namespace ch::dd;

TestSuite(ddict_hostile, .timeout = WATCHDOG_S);

namespace {

// A client that speaks the wire format by hand.
struct raw_client {
	ddict<std::string, std::string> d{ch::ddict_options{.managers = 1, .memory = 4 << 20}};
	directory dir = directory_attach(d.descr());
	ch::channel requests = ch::channel::attach(dir.managers[0].requests);
	ch::memory_pool control = ch::memory_pool::attach(dir.control);
	ch::channel replies = ch::channel::create(control, {.capacity = 16, .inline_max = inline_max});
	std::uint64_t id = 0;

	raw_client() { d.put("good", "value"); }
	~raw_client()
	{
		cr_assert_eq(d.get("good"), "value");
		cr_assert(ch_peer_is_alive(dir.peer_of(0)));
	}
	void send(const std::vector<std::byte> &bytes) { requests.send(bytes); }
	void send(request r, const void *rest = nullptr, std::size_t len = 0)
	{
		packer p(sizeof(r));

		memcpy(p.data(), &r, sizeof(r));
		p.raw(rest, len);
		requests.send({p.data(), p.size()});
	}
	reply answer()
	{
		std::byte buf[sizeof(reply)];
		ch::message m = replies.take();

		memcpy(buf, m.data(), sizeof(reply));
		return load<reply>(buf);
	}
	void hello()
	{
		hello_body body;

		memcpy(body.channel, replies.descr().bytes, sizeof(body.channel));
		body.peer = ch_peer_self().id;
		send({static_cast<std::uint32_t>(op::hello), 0, 0, 77, 0, sizeof(request), 0, 0, -1, 0}, &body,
		     sizeof(body));
		const reply r = answer();
		cr_assert_eq(r.id, 77u);
		cr_assert_neq(r.arg, 0u);
		id = r.arg;
	}
	request with(op what, std::uint32_t klen = 0, std::uint32_t voff = sizeof(request))
	{
		return {static_cast<std::uint32_t>(what), klen, id, 1, 0, voff, 0, 0, 0, 0};
	}
};

} // namespace

Test(ddict_hostile, noise_of_any_length_is_dropped)
{
	raw_client c;
	std::uint64_t seed = test_seed();

	for (int i = 0; i < 3000; i++) {
		std::vector<std::byte> noise(rnd(&seed) % (i % 10 ? 600 : 20000));

		for (std::byte &b : noise)
			b = static_cast<std::byte>(rnd(&seed));
		c.send(noise);
	}
	cr_assert_eq(c.d.size(), 1u);
}

Test(ddict_hostile, noise_behind_a_good_header_is_refused_or_harmless)
{
	raw_client c;
	std::uint64_t seed = test_seed();

	c.hello();
	for (int i = 0; i < 10000; i++) {
		std::byte rest[400];
		request r{static_cast<std::uint32_t>(rnd(&seed) % (static_cast<std::uint32_t>(op::last_op) + 2)),
			  static_cast<std::uint32_t>(rnd(&seed) % 64),
			  c.id,
			  rnd(&seed),
			  rnd(&seed),
			  static_cast<std::uint32_t>(rnd(&seed) % 128),
			  static_cast<std::uint32_t>(rnd(&seed) % 4),
			  0,
			  0, // nothing waits: see below
			  0};
		const op what = static_cast<op>(r.what);

		// These would end the test, or what it looks for at the end.
		if (what == op::bye || what == op::clear || what == op::set_frozen)
			continue;
		for (std::byte &b : rest)
			b = static_cast<std::byte>(rnd(&seed) % 8);
		c.send(r, rest, rnd(&seed) % sizeof(rest));
		// A question that is answered for certain: no more answers are under way than the channel holds.
		request last = c.with(op::size);

		last.id = ~std::uint64_t{0};
		c.send(last);
		while (c.answer().id != last.id)
			;
	}
}

Test(ddict_hostile, lengths_that_do_not_fit_the_message_are_dropped)
{
	raw_client c;

	c.hello();
	for (const std::uint32_t klen : {1u, 65u, 65537u, 0x7fffffffu, 0xffffffffu})
		c.send(c.with(op::get, klen));
	for (const std::uint32_t voff : {0u, 63u, 65u, 0x7fffffffu, 0xffffffffu})
		c.send(c.with(op::put, 0, voff));
	c.send(c.with(op::size));
	cr_assert_eq(c.answer().arg, 1u); // the first that is answered is the good one
}

Test(ddict_hostile, an_unknown_operation_is_refused)
{
	raw_client c;

	c.hello();
	c.send(c.with(static_cast<op>(999)));
	cr_assert_eq(c.answer().status, -EPROTO);
}

Test(ddict_hostile, a_forged_client_gets_no_answer_and_does_no_harm)
{
	raw_client c;

	c.hello();
	for (const std::uint64_t forged :
	     {std::uint64_t{0}, c.id ^ (std::uint64_t{1} << 40), c.id + 1, ~std::uint64_t{0}}) {
		request r = c.with(op::clear);

		r.client = forged;
		c.send(r);
	}
	c.send(c.with(op::size));
	cr_assert_eq(c.answer().arg, 1u);
}

Test(ddict_hostile, broken_batches_are_refused)
{
	raw_client c;
	const std::uint32_t broken[] = {5, 1000000, 0x41414141};
	const std::uint32_t huge[] = {0xffffffff, 0xffffffff};

	c.hello();
	c.send(c.with(op::put_many), broken, sizeof(broken));
	cr_assert_eq(c.answer().status, -EPROTO);
	c.send(c.with(op::put_many), huge, sizeof(huge));
	cr_assert_eq(c.answer().status, -EPROTO);
	c.send(c.with(op::get_many), huge, sizeof(huge));
	cr_assert_eq(c.answer().status, -EPROTO);
	c.send(c.with(op::get_many), broken, 3);
	cr_assert_eq(c.answer().status, -EPROTO);
}

Test(ddict_hostile, pins_that_are_not_there_are_refused)
{
	raw_client c;
	request r;

	c.hello();
	r = c.with(op::release);
	r.arg = 12345;
	c.send(r);
	cr_assert_eq(c.answer().status, -ENOENT);
}

Test(ddict_hostile, a_scan_from_anywhere_ends)
{
	raw_client c;
	request r;

	c.hello();
	for (const std::uint64_t from :
	     {std::uint64_t{1}, std::uint64_t{1} << 40, ~std::uint64_t{0} - 1, ~std::uint64_t{0}}) {
		r = c.with(op::scan);
		r.arg = from;
		c.send(r);
		cr_assert_eq(c.answer().arg, scan_end);
	}
}

Test(ddict_hostile, hellos_with_channels_that_are_none_are_dropped)
{
	raw_client c;
	hello_body body;
	request r = c.with(op::hello);

	memset(&body, 0x5a, sizeof(body));
	c.send(r, &body, sizeof(body));
	memcpy(body.channel, c.control.descr().bytes, sizeof(body.channel)); // a pool
	c.send(r, &body, sizeof(body));
	c.send(r, &body, 10);
	c.hello();
}

// It loses its channel; nobody waits for it.
Test(ddict_hostile, a_client_with_more_calls_than_its_channel_holds_is_dropped)
{
	raw_client c;

	c.hello();
	for (int i = 0; i < 100; i++)
		c.send(c.with(op::size));
	cr_assert_eq(c.d.get("good"), "value");
	std::byte buf[inline_max];
	int err = 0;
	AWAIT((err = error_of([&] { c.replies.recv(buf); })) != 0);
	cr_assert_eq(err, ESTALE);
}

// Whatever lies in the window: who looks reads no memory but the manager's, and the manager believes none of it.
Test(ddict_hostile, a_window_with_anything_in_it_breaks_nothing)
{
	std::uint64_t seed = test_seed();
	raw_client c;
	auto *const bytes = static_cast<unsigned char *>(directory_window(c.dir.seg.get(), 1, c.dir.windows, 0));
	const std::size_t head = sizeof(window_head) + c.dir.windows.rows * sizeof(window_row);
	shown *const panes = reinterpret_cast<shown *>(bytes + head);
	std::vector<int> got(3);

	for (int k = 0; k < 200; k++)
		c.d.put(std::to_string(k), whole_value(static_cast<std::uint64_t>(k), k % 3 ? 20 : 2000));
	for (int round = 0; round < 3000; round++) {
		const std::string key = std::to_string(rnd(&seed) % 200);

		for (std::uint32_t p = 0; p < c.dir.windows.panes; p++)
			if (shown &s = panes[p]; s.number & 1 && rnd(&seed) % 3 == 0) {
				std::atomic<std::uint64_t> *const words[] = {&s.key, &s.value, &s.vlen, &s.at};

				*words[rnd(&seed) % 4] = rnd(&seed) >> rnd(&seed) % 64;
				s.klen = rnd(&seed) % 2 ? static_cast<std::uint32_t>(key.size()) : 70000;
			}
		try {
			got[c.d.try_get(key) ? 0 : 1]++;
		} catch (const ch::error &) {
			got[2]++;
		}
		if (round % 10 == 0)
			c.d.put(key, "fresh");
	}
	cr_assert_gt(got[0], 0);
	for (std::size_t i = 0; i < head / 8; i++) // rows and all: who promises, who reads
		if (rnd(&seed) % 4 == 0)
			reinterpret_cast<std::uint64_t *>(bytes)[i] = rnd(&seed);
	for (int k = 0; k < 200; k++) {
		const ddict<std::string, std::string> patient = c.d.within(std::chrono::seconds(10));

		patient.put(std::to_string(k), "last");
		patient.erase(std::to_string(k));
	}
}

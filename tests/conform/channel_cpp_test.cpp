// SPDX-License-Identifier: Apache-2.0
// channels.hpp: what ch::channel makes of the ways to send and to receive.
#include "../support/support.h"
#include <array>
#include <channels/channels.hpp>
#include <criterion/criterion.h>

TestSuite(cpp, .timeout = WATCHDOG_S);

using ch::channel;

static constexpr std::chrono::milliseconds soon{2};

static std::span<const std::byte> bytes_of(const std::uint64_t &v)
{
	return std::as_bytes(std::span(&v, 1));
}

Test(cpp, attributes_and_receipts)
{
	ch::memory_pool pool = ch::memory_pool::create(1 << 20);
	channel::options o;
	std::uint64_t in = 0;
	ch_recv_info info;

	o.capacity = 2;
	o.urgent_capacity = 2;
	o.wait = CH_WAIT_SLEEP;
	channel c = channel::create(pool, o);
	c.send(bytes_of(1));
	c.send(bytes_of(2), {.tag = 7, .is_urgent = true});
	cr_assert(c.send_for(bytes_of(3), {.completion = CH_RECEIVED}, soon) == channel::sent::unconfirmed);
	cr_assert(c.send_for(bytes_of(4), {.completion = CH_RECEIVED}, soon) == channel::sent::no, "full");
	cr_assert_eq(c.try_peek(std::as_writable_bytes(std::span(&in, 1))).value(), 8);
	cr_assert_eq(in, 2, "the urgent one");
	cr_assert_eq(c.recv(std::as_writable_bytes(std::span(&in, 1)), info), 8);
	cr_assert(info.tag == 7 && info.sender.id == ch_peer_self().id);
	cr_assert_eq(info.flags, CH_MESSAGE_TAGGED | CH_MESSAGE_URGENT);
	cr_assert_eq(c.drain(), 2);
	cr_assert(!c.recv_for(std::as_writable_bytes(std::span(&in, 1)), info, soon));
	cr_assert(!c.try_peek(std::as_writable_bytes(std::span(&in, 1))));
	pool.destroy();
}

Test(cpp, batches)
{
	ch::memory_pool pool = ch::memory_pool::create(1 << 20);
	channel::options o;
	const char text[] = "abc";
	char in[2][4];

	o.capacity = 2;
	channel c = channel::create(pool, o);
	const std::array<ch_send_item, 3> out{{{text, 1}, {text, 2}, {text, 3}}};
	std::array<ch_recv_item, 2> items{{{in[0], 4, 0}, {in[1], 4, 0}}};
	cr_assert_eq(c.send_batch(out, soon), 2, "there is room for no more");
	cr_assert_eq(c.send_batch(out, soon), 0);
	cr_assert_eq(c.recv_batch(items), 2);
	cr_assert_eq(items[1].len, 2);
	cr_assert_eq(c.recv_batch(items, soon), 0);
	pool.destroy();
}

Test(cpp, messages_in_place_have_attributes_and_can_be_given_back)
{
	ch::memory_pool pool = ch::memory_pool::create(1 << 20);
	channel::options o;

	o.flags = CH_CHANNEL_ACKNOWLEDGED;
	channel c = channel::create(pool, o);
	ch::message m = c.claim(100);
	m.set_tag(5);
	c.commit(m);
	m = c.take();
	cr_assert(m.tag() == 5u && !m.is_redelivered() && m.size() == 100);
	c.requeue(m);
	cr_assert(!m);
	m = c.take();
	cr_assert(m.is_redelivered());
	m.reset();
	cr_assert(!c.try_take());
	pool.destroy();
}

Test(cpp, roles)
{
	ch::memory_pool pool = ch::memory_pool::create(1 << 20);
	channel::options o;

	o.flags = CH_CHANNEL_SPSC;
	channel c = channel::create(pool, o), other = channel::attach(c.descr());
	c.bind(CH_ROLE_SENDER);
	try {
		other.try_send(bytes_of(1));
		cr_assert_fail("it has not the role");
	} catch (const ch::error &e) {
		cr_assert_eq(e.code().value(), EBUSY);
	}
	c.unbind(CH_ROLE_SENDER);
	cr_assert(other.try_send(bytes_of(1)));
	pool.destroy();
}

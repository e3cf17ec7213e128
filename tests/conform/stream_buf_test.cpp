// SPDX-License-Identifier: Apache-2.0
// stream.hpp: owning handles, and std::iostreams on streams.
#include "../support/support.h"
#include <channels/stream.hpp>
#include <criterion/criterion.h>
#include <algorithm>
#include <sstream>
#include <thread>
#include <vector>

TestSuite(stream_buf, .timeout = WATCHDOG_S);

namespace {

struct scene {
	ch::memory_pool pool = ch::memory_pool::create(8 << 20, 16);
	ch::stream_port port = ch::stream_port::create(pool, {.nr_streams = 4, .capacity = 8, .chunk_len = 4096});
	ch_pool_stats before = pool.stats();

	~scene() { pool.destroy(); }
	void assert_clean() { cr_assert(pool_is_as_before(pool.get(), &before)); }
};

// The error number of what f throws, 0 if it throws nothing.
template <class F> int thrown_by(F f)
{
	try {
		f();
	} catch (const ch::error &e) {
		return e.code().value();
	}
	return 0;
}

} // namespace

Test(stream_buf, lines_and_numbers_come_through)
{
	scene s;
	{
		ch::ostream out(s.port.open());
		ch::istream in(s.port.accept());
		std::string line;
		int a = 0;
		double b = 0;

		out << "first line\n" << 42 << ' ' << 2.5 << "\n\nlast" << std::flush;
		cr_assert(std::getline(in, line) && line == "first line");
		cr_assert(in >> a >> b && a == 42 && b == 2.5);
		std::getline(in, line);
		cr_assert(std::getline(in, line) && line.empty());
		out.close();
		cr_assert(std::getline(in, line) && line == "last");
		cr_assert(!std::getline(in, line) && in.eof() && !in.bad());
	}
	s.assert_clean();
}

Test(stream_buf, large_data_comes_through_small_chunks)
{
	scene s;
	std::string text;

	for (int i = 0; text.size() < 3000000; i++)
		text += std::to_string(i) + (i % 7 ? " " : "\n");
	std::thread writer([&] {
		ch::ostream out(s.port.open(), 5000);
		out << text.substr(0, 1000000);
		for (std::size_t i = 1000000; i < text.size(); i += 333)
			out.write(text.data() + i, static_cast<std::streamsize>(std::min<std::size_t>(333, text.size() - i)));
		out.close();
	});
	{
		ch::istream in(s.port.accept());
		std::ostringstream got;
		got << in.rdbuf();
		cr_assert(!in.bad());
		cr_assert(got.str() == text);
	}
	writer.join();
	s.assert_clean();
}

Test(stream_buf, characters_can_be_put_and_got_one_by_one)
{
	scene s;
	{
		ch::ostream out(s.port.open(), 100);
		ch::istream in(s.port.accept());

		for (int i = 0; i < 700; i++)
			out.put(static_cast<char>(i));
		out.close();
		for (int i = 0; i < 700; i++)
			cr_assert_eq(in.get(), i & 255);
		cr_assert_eq(in.get(), std::char_traits<char>::eof());
	}
	s.assert_clean();
}

Test(stream_buf, what_is_there_can_be_asked_for)
{
	scene s;
	{
		ch::ostream out(s.port.open());
		ch::istream in(s.port.accept());

		cr_assert_eq(in.rdbuf()->in_avail(), 0);
		out << "abc" << std::flush;
		cr_assert_eq(in.rdbuf()->in_avail(), 3);
		cr_assert_eq(in.get(), 'a');
		cr_assert_eq(in.rdbuf()->in_avail(), 2);
		cr_assert(in.get() == 'b' && in.get() == 'c');
		out.close();
		cr_assert_eq(in.rdbuf()->in_avail(), -1);
	}
	s.assert_clean();
}

Test(stream_buf, an_ostream_that_is_not_closed_is_no_end)
{
	scene s;
	{
		ch::istream in{ch::stream{}};
		{
			ch::ostream out(s.port.open());
			in.~istream();
			new (&in) ch::istream(s.port.accept());
			out << "half a " << std::flush << "truth";
		}
		std::string word, rest;
		cr_assert(in >> word >> word && word == "a");
		cr_assert(!(in >> word) && in.bad(), "a part is never taken for the whole");
	}
	s.assert_clean();
}

Test(stream_buf, exceptions_carry_the_reason)
{
	scene s;
	{
		ch::ostream out(s.port.open());
		auto reader = std::make_optional<ch::istream>(s.port.accept());

		reader.reset();
		out.exceptions(std::ios::badbit);
		cr_assert_eq(thrown_by([&] { out << "nobody listens" << std::flush; }), EPIPE);
		cr_assert(out.bad());
		bool refused = false;
		try {
			out.close();
		} catch (const std::ios_base::failure &) {
			refused = true;
		}
		cr_assert(refused);
	}
	{
		auto out = std::make_optional<ch::ostream>(s.port.open());
		ch::istream in(s.port.accept());

		in.exceptions(std::ios::badbit);
		out.reset();
		std::string word;
		cr_assert_eq(thrown_by([&] { in >> word; }), ECANCELED);
	}
	s.assert_clean();
}

Test(stream_buf, handles_own_and_move)
{
	scene s;
	{
		ch::stream w = ch::stream::create(s.pool, ch::stream_end::writer), r = ch::stream::attach(w.descr());
		const std::string text(5000, 'x');

		cr_assert(!r.take_for(ch::nanoseconds(0)));
		cr_assert(!r.poll_for(ch::nanoseconds(1000)));
		w.write(std::as_bytes(std::span(text)), 3);
		w.flush();
		ch::chunk c = w.claim(100), d;
		std::memset(c.data(), 'y', 100);
		c.shrink(50);
		d = std::move(c);
		cr_assert(!c && d);
		w.commit(d, 4);
		cr_assert(!d);
		w.end();
		cr_assert(r.poll_for(ch::nanoseconds(0)));
		ch::chunk got = r.take();
		cr_assert(got.view() == text && got.arg() == 3);
		ch::chunk small = r.take();
		got = std::move(small);
		cr_assert(got.size() == 50 && got.view()[49] == 'y' && got.arg() == 4);
		cr_assert(!r.take());
		cr_assert(!r.take_for(ch::forever).value());
		got.reset();
		ch::stream moved = std::move(r);
		cr_assert(moved && !r);
		std::byte b;
		cr_assert_eq(moved.read({&b, 1}), 0);
		cr_assert_eq(w.count(), 0);
	}
	s.assert_clean();
	{
		std::vector<ch::stream> all;
		while (auto w = s.port.open_for(ch::nanoseconds(0)))
			all.push_back(std::move(*w));
		cr_assert_eq(all.size(), 4);
		cr_assert_eq(s.port.stats().nr_waiting, 4);
		all[0].cancel();
		cr_assert_eq(thrown_by([&] { all[0].end(); }), ECANCELED);
		cr_assert_eq(s.port.stats().nr_waiting, 3, "it never comes");
	}
	cr_assert(!s.port.accept_for(ch::nanoseconds(1000)));
	s.assert_clean();
}

// SPDX-License-Identifier: Apache-2.0
// stream.hpp - streams for C++: owning handles, and a std::streambuf whose get and put areas are the chunks themselves.
//
//   ch::ostream out(port.open());               ch::istream in(port.accept());
//   out << "total " << 42 << '\n';               std::string line;
//   out.close();                                while (std::getline(in, line)) ...
//                                               if (in.bad()) ...   // the writer died or cancelled: not a whole stream
//
// Only close() ends a stream in good order. An ostream that is destroyed before it, for instance by an exception that
// passes by, cancels the conversation, so that its reader never takes a part for the whole. What goes wrong is a
// ch::error thrown by the buffer; as always with iostreams that sets badbit, and is rethrown if
// exceptions(std::ios::badbit) is on.
#pragma once
#include <channels/channels.hpp>
#include <channels/stream.h>
#include <cstdint>
#include <istream>
#include <ostream>
#include <streambuf>

namespace ch {

// A chunk being written or read in place: given back when it goes out of scope. It must not outlive its stream's
// handle.
class chunk {
public:
	chunk() = default;
	chunk(chunk &&o) noexcept { swap(o); }
	chunk &operator=(chunk &&o) noexcept
	{
		chunk tmp(std::move(o));

		swap(tmp);
		return *this;
	}
	~chunk() { reset(); }

	std::byte *data() const noexcept { return static_cast<std::byte *>(m_.data); }
	std::size_t size() const noexcept { return m_.len; }
	std::span<std::byte> bytes() const noexcept { return {data(), size()}; }
	std::string_view view() const noexcept { return {reinterpret_cast<const char *>(data()), size()}; }
	std::uint64_t arg() const noexcept { return arg_; }
	explicit operator bool() const noexcept { return m_.data != nullptr; }
	// Send fewer bytes than were claimed.
	void shrink(std::size_t len) noexcept { m_.len = len < m_.len ? len : m_.len; }
	void reset() noexcept
	{
		if (s_)
			ch_stream_release(s_, &m_);
		s_ = nullptr;
	}

private:
	friend class stream;
	void swap(chunk &o) noexcept
	{
		const bool in = m_.data == m_.small_, oin = o.m_.data == o.m_.small_;

		std::swap(s_, o.s_);
		std::swap(m_, o.m_);
		std::swap(arg_, o.arg_);
		if (in)
			o.m_.data = o.m_.small_;
		if (oin)
			m_.data = m_.small_;
	}
	ch_stream *s_ = nullptr;
	ch_message m_ = CH_MESSAGE_INIT;
	std::uint64_t arg_ = 0;
};

enum class stream_end : std::uint32_t { writer = CH_STREAM_WRITER, reader = CH_STREAM_READER };

struct stream_options {
	unsigned nr_streams = 0;  // of a port; 0: 16
	unsigned capacity = 0;    // chunks on the way; 0: 16
	unsigned chunk_len = 0;   // bytes; 0: 64 Ki
	unsigned spin_ns = 0;     // 0: adapts
	bool is_buffered = false; // of a port: every conversation is
	unsigned max_watchers = 0; // of a port: poll sets it may be a member of; 0: 8
	ch_stream_attr attr() const noexcept
	{
		ch_stream_attr a = CH_STREAM_ATTR_INIT;

		a.nr_streams = nr_streams;
		a.capacity = capacity;
		a.chunk_len = chunk_len;
		a.spin_ns = spin_ns;
		a.flags = is_buffered ? CH_STREAM_BUFFERED : 0;
		a.max_watchers = max_watchers;
		return a;
	}
};

// One end of a conversation (ch_stream in C). Destroying the object closes it: a writer that has not ended it cancels
// it, a reader stops its writer.
class stream {
public:
	stream() = default; // none
	explicit stream(ch_stream *s) noexcept : s_(s) {}
	// Without a port. Whoever attaches first has the other end.
	static stream create(const memory_pool &pool, stream_end end, const stream_options &o = {})
	{
		const ch_stream_attr a = o.attr();
		ch_stream *s = nullptr;

		check(ch_stream_create(pool.get(), &a, static_cast<std::uint32_t>(end), &s));
		return stream(s);
	}
	static stream attach(const descriptor &d)
	{
		ch_stream *s = nullptr;

		check(ch_stream_attach(&d, &s));
		return stream(s);
	}
	descriptor descr() const { return detail::descr_of<ch_stream, ch_stream_get_descr>(s_.get()); }
	explicit operator bool() const noexcept { return s_ != nullptr; }
	ch_stream *get() const noexcept { return s_.get(); }
	void close() noexcept { s_.reset(); }
	void cancel() { check(ch_stream_cancel(s_.get())); }
	std::size_t count() const { return static_cast<std::size_t>(check(ch_stream_count(s_.get()))); }
	// False if a call would still have to wait.
	bool poll_for(nanoseconds timeout) const { return check_wait(ch_stream_poll(s_.get(), timeout.count())); }

	void write(std::span<const std::byte> b, std::uint64_t arg = 0)
	{
		for (std::size_t n = 0; n < b.size();)
			n += static_cast<std::size_t>(
				check(ch_stream_write(s_.get(), b.data() + n, b.size() - n, arg, CH_FOREVER)));
	}
	// How many bytes could be written within the timeout.
	std::size_t write_for(std::span<const std::byte> b, nanoseconds timeout, std::uint64_t arg = 0)
	{
		const ssize_t n = ch_stream_write(s_.get(), b.data(), b.size(), arg, timeout.count());

		return n != -ENOSPC && check_wait(n) ? static_cast<std::size_t>(n) : 0;
	}
	void flush() { check(ch_stream_flush(s_.get(), CH_FOREVER)); }
	void drain() { check(ch_stream_drain(s_.get(), CH_FOREVER)); }
	void end() { check(ch_stream_end(s_.get(), CH_FOREVER)); }
	bool end_for(nanoseconds timeout) { return check_wait(ch_stream_end(s_.get(), timeout.count())); }
	chunk claim(std::size_t len, nanoseconds timeout = forever)
	{
		chunk c;

		check(ch_stream_claim(s_.get(), len, timeout.count(), &c.m_));
		c.s_ = s_.get();
		return c;
	}
	// Of this stream, or taken from another of the pool.
	void commit(chunk &c, std::uint64_t arg = 0)
	{
		check(ch_stream_commit(s_.get(), &c.m_, arg, CH_FOREVER));
		c.s_ = nullptr;
	}
	// False if there stayed no room; the chunk is then still the caller's.
	bool commit_for(chunk &c, nanoseconds timeout, std::uint64_t arg = 0)
	{
		if (!check_wait(ch_stream_commit(s_.get(), &c.m_, arg, timeout.count())))
			return false;
		c.s_ = nullptr;
		return true;
	}

	// 0 is the end of the stream.
	std::size_t read(std::span<std::byte> b, std::uint64_t *arg = nullptr)
	{
		return static_cast<std::size_t>(check(ch_stream_read(s_.get(), b.data(), b.size(), CH_FOREVER, arg)));
	}
	std::optional<std::size_t> read_for(std::span<std::byte> b, nanoseconds timeout, std::uint64_t *arg = nullptr)
	{
		const ssize_t n = ch_stream_read(s_.get(), b.data(), b.size(), timeout.count(), arg);

		return check_wait(n) ? std::optional<std::size_t>(static_cast<std::size_t>(n)) : std::nullopt;
	}
	// An empty handle (false) is the end of the stream.
	chunk take()
	{
		chunk c;

		if (check(ch_stream_take(s_.get(), CH_FOREVER, &c.m_, &c.arg_)) > 0)
			c.s_ = s_.get();
		return c;
	}
	std::optional<chunk> take_for(nanoseconds timeout)
	{
		std::optional<chunk> c(std::in_place);
		const int rc = ch_stream_take(s_.get(), timeout.count(), &c->m_, &c->arg_);

		if (!check_wait(rc))
			return std::nullopt;
		c->s_ = rc > 0 ? s_.get() : nullptr;
		return c;
	}

private:
	detail::handle<ch_stream, ch_stream_close> s_;
};

// Where writers and readers meet (ch_stream_port in C). Destroying the object detaches; destroy() ends the port.
class stream_port {
public:
	stream_port() = default; // none
	static stream_port create(const memory_pool &pool, const stream_options &o = {})
	{
		return create(pool.get(), o);
	}
	static stream_port create(ch_pool *pool, const stream_options &o = {})
	{
		const ch_stream_attr a = o.attr();
		ch_stream_port *p = nullptr;

		check(ch_stream_port_create(pool, &a, &p));
		return stream_port(p);
	}
	static stream_port attach(const descriptor &d)
	{
		ch_stream_port *p = nullptr;

		check(ch_stream_port_attach(&d, &p));
		return stream_port(p);
	}
	void destroy() noexcept { ch_stream_port_destroy(p_.release()); }
	descriptor descr() const { return detail::descr_of<ch_stream_port, ch_stream_port_get_descr>(p_.get()); }
	explicit operator bool() const noexcept { return p_ != nullptr; }
	ch_stream_port *get() const noexcept { return p_.get(); }
	ch_stream_port_stats stats() const
	{
		ch_stream_port_stats s;

		check(ch_stream_port_get_stats(p_.get(), &s));
		return s;
	}

	stream open(bool is_buffered = false)
	{
		ch_stream *s = nullptr;

		check(ch_stream_open(p_.get(), is_buffered ? CH_STREAM_BUFFERED : 0, CH_FOREVER, &s));
		return stream(s);
	}
	std::optional<stream> open_for(nanoseconds timeout, bool is_buffered = false)
	{
		ch_stream *s = nullptr;

		if (!check_wait(ch_stream_open(p_.get(), is_buffered ? CH_STREAM_BUFFERED : 0, timeout.count(), &s)))
			return std::nullopt;
		return stream(s);
	}
	stream accept()
	{
		ch_stream *s = nullptr;

		check(ch_stream_accept(p_.get(), CH_FOREVER, &s));
		return stream(s);
	}
	std::optional<stream> accept_for(nanoseconds timeout)
	{
		ch_stream *s = nullptr;

		if (!check_wait(ch_stream_accept(p_.get(), timeout.count(), &s)))
			return std::nullopt;
		return stream(s);
	}

private:
	explicit stream_port(ch_stream_port *p) noexcept : p_(p) {}
	detail::handle<ch_stream_port, ch_stream_port_detach> p_;
};

// A stream buffer on one end of a conversation. Reading, its get area is the chunk as it lies in shared memory;
// writing, its put area is the claimed chunk.
class stream_buf : public std::streambuf {
public:
	// chunk_len: bytes of room that are claimed at a time when writing.
	explicit stream_buf(stream s, std::size_t chunk_len = 64 << 10) : s_(std::move(s)), chunk_len_(chunk_len) {}
	stream_buf(const stream_buf &) = delete;
	stream_buf &operator=(const stream_buf &) = delete;

	// Sends what is left, and ends the conversation in good order. Throws ch::error.
	void end()
	{
		send();
		s_.end();
	}
	stream &base() noexcept { return s_; }

protected:
	int_type underflow() override
	{
		while (gptr() == egptr()) {
			c_.reset();
			setg(nullptr, nullptr, nullptr);
			c_ = s_.take();
			if (!c_)
				return traits_type::eof();
			char *p = reinterpret_cast<char *>(c_.data());
			setg(p, p, p + c_.size());
		}
		return traits_type::to_int_type(*gptr());
	}
	std::streamsize showmanyc() override
	{
		auto next = s_.poll_for(nanoseconds(CH_TRY)) ? s_.take_for(nanoseconds(CH_TRY)) : std::nullopt;

		if (!next)
			return 0;
		if (!*next)
			return -1;
		c_ = std::move(*next);
		char *p = reinterpret_cast<char *>(c_.data());
		setg(p, p, p + c_.size());
		return static_cast<std::streamsize>(c_.size());
	}
	int_type overflow(int_type ch) override
	{
		if (pptr() == epptr()) {
			send();
			c_ = s_.claim(chunk_len_);
			char *p = reinterpret_cast<char *>(c_.data());
			setp(p, p + c_.size());
		}
		if (!traits_type::eq_int_type(ch, traits_type::eof())) {
			*pptr() = traits_type::to_char_type(ch);
			pbump(1);
		}
		return traits_type::not_eof(ch);
	}
	std::streamsize xsputn(const char *from, std::streamsize len) override
	{
		for (std::streamsize left = len; left > 0;) {
			if (pptr() == epptr())
				overflow(traits_type::eof());
			const std::streamsize room = epptr() - pptr(), n = left < room ? left : room;
			std::memcpy(pptr(), from, static_cast<std::size_t>(n));
			pbump(static_cast<int>(n));
			from += n;
			left -= n;
		}
		return len;
	}
	int sync() override
	{
		send();
		return 0;
	}

private:
	void send()
	{
		if (pptr() != pbase()) {
			c_.shrink(static_cast<std::size_t>(pptr() - pbase()));
			s_.commit(c_);
			setp(nullptr, nullptr);
		}
	}
	stream s_;
	chunk c_; // after s_: it goes first
	std::size_t chunk_len_;
};

class istream : public std::istream {
public:
	explicit istream(stream s) : std::istream(nullptr), buf_(std::move(s)) { rdbuf(&buf_); }
	stream &base() noexcept { return buf_.base(); }

private:
	stream_buf buf_;
};

class ostream : public std::ostream {
public:
	explicit ostream(stream s, std::size_t chunk_len = 64 << 10)
	    : std::ostream(nullptr), buf_(std::move(s), chunk_len)
	{
		rdbuf(&buf_);
	}
	// Ends the stream in good order; without it the reader meets an error. Throws ch::error if that fails, and
	// std::ios_base::failure if an earlier write did.
	void close()
	{
		if (bad())
			throw std::ios_base::failure("ch::ostream: an earlier write failed");
		buf_.end();
	}
	stream &base() noexcept { return buf_.base(); }

private:
	stream_buf buf_;
};

} // namespace ch

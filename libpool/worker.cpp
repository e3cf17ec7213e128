// SPDX-License-Identifier: Apache-2.0
// worker.cpp - a worker process: takes a ticket, runs the task, sends the result. board.h says what a death leaves.
#include "core.h"

#include <cerrno>
#include <csignal>
#include <cxxabi.h>
#include <fcntl.h>
#include <iostream>
#include <sys/prctl.h>
#include <unistd.h>

namespace ch::detail {
namespace {

board *the_board; // of the pool that this process works for

fingerprint module_of_owner(std::uint32_t index)
{
	// [B1] pairs with [B1] in core.cpp.
	return index < the_board->nr_modules.load(std::memory_order_acquire) ? the_board->modules[index] : fingerprint{};
}

// The pool is no more: nobody wants what this process does.
class pool_ended {};

// Where a result is written: small ones here, long ones straight into the message's block; if memory is short for
// that, into private memory, to be sent in pieces.
class sink : public result_sink {
public:
	explicit sink(room &r) : room_(r) {}
	~sink() { ch_channel_abort(room_.results(), &m_); }
	std::span<std::byte> make_room(std::size_t n);
	void send(ticket t, result_kind kind);

private:
	static constexpr std::size_t piece_max = 256 << 10, piece_min = 4 << 10;

	void send_pieces(result_head h);
	std::size_t send_piece(piece_head p);
	static void check_end(long rc)
	{
		if (rc == -EPIPE || rc == -ESTALE)
			throw pool_ended();
		check(rc);
	}

	room &room_;
	std::size_t len_ = 0;
	ch_message m_ = CH_MESSAGE_INIT;
	std::vector<std::byte> private_;
	alignas(8) std::byte small_[small_message];
};

std::span<std::byte> sink::make_room(std::size_t n)
{
	ch_channel_abort(room_.results(), &m_); // of what was begun and then failed
	private_.clear();
	len_ = sizeof(result_head) + n;
	if (len_ <= sizeof(small_))
		return {small_ + sizeof(result_head), n};
	const int rc = ch_channel_claim(room_.results(), len_, CH_TRY, &m_);
	if (rc == 0)
		return {static_cast<std::byte *>(m_.data) + sizeof(result_head), n};
	if (rc != -ENOSPC && rc != -EMSGSIZE && rc != -EAGAIN)
		check_end(rc);
	private_.resize(n);
	return private_;
}

void sink::send(ticket t, result_kind kind)
{
	const result_head h{t.slot, t.serial, kind, 0};

	if (!private_.empty()) {
		send_pieces(h);
	} else if (m_.data) {
		std::memcpy(m_.data, &h, sizeof(h));
		check_end(ch_channel_commit(room_.results(), &m_, CH_FOREVER));
	} else {
		std::memcpy(small_, &h, sizeof(h));
		check_end(ch_channel_send(room_.results(), small_, len_, CH_FOREVER));
	}
}

void sink::send_pieces(result_head h)
{
	piece_head p{h, h.kind, 0, private_.size(), 0};

	p.head.kind = result_kind::piece;
	while (p.offset < p.total)
		p.offset += send_piece(p);
	private_ = {};
}

// As much as there is memory for now; it waits for little.
std::size_t sink::send_piece(piece_head p)
{
	std::size_t n = std::min<std::size_t>(p.total - p.offset, piece_max);
	int rc;

	for (;;) {
		rc = ch_channel_claim(room_.results(), sizeof(p) + n, n > piece_min ? CH_TRY : CH_FOREVER, &m_);
		if ((rc != -ENOSPC && rc != -EMSGSIZE && rc != -EAGAIN) || n <= piece_min)
			break;
		n = std::max(n / 2, piece_min);
	}
	check_end(rc);
	auto *at = static_cast<std::byte *>(m_.data);
	std::memcpy(at, &p, sizeof(p));
	std::memcpy(at + sizeof(p), private_.data() + p.offset, n);
	check_end(ch_channel_commit(room_.results(), &m_, CH_FOREVER));
	return n;
}

class worker {
public:
	worker(room &r, std::uint32_t me) : room_(r), desk_(r.desk_of(me)), me_(me), sink_(r) {}
	void serve();

private:
	void run(ticket t);
	void call(const slot &s);

	room &room_;
	desk &desk_;
	const std::uint32_t me_;
	sink sink_;
};

void worker::serve()
{
	desk_.is_ready.store(1, std::memory_order_relaxed); // read after our death
	for (;;) {
		const ssize_t n = ch_channel_recv(room_.tasks(), &desk_.at_hand, sizeof(desk_.at_hand), CH_FOREVER);

		if (n == -EPIPE || n == -ESTALE)
			return;
		check(n);
		run(desk_.at_hand);
	}
}

void worker::run(ticket t)
{
	if (t.slot >= room_.nr_slots())
		throw error(EPROTO, "pool: damaged ticket");
	slot &s = room_.slot_at(t.slot);
	std::uint64_t waiting = queued(t.serial);
	// [B2] pairs with [B2] in monitor.cpp: one of us has this serial. Losing means that the ticket is void.
	if (!s.state.compare_exchange_strong(waiting, running(t.serial, me_), std::memory_order_acq_rel))
		return;
	result_kind kind = result_kind::value;
	try {
		call(s);
	} catch (const abi::__forced_unwind &) {
		throw;
	} catch (const pool_ended &) {
		throw;
	} catch (...) {
		kind = result_kind::error;
		sink_.put(current_error());
	}
	sink_.send(t, kind);
}

void worker::call(const slot &s)
{
	const std::byte *in = s.block_off ? room_.at(s.block_off) : s.bytes;

	if (!s.block_off && s.len > slot::inline_max)
		throw error(EPROTO, "pool: damaged task");
	reinterpret_cast<thunk>(const_cast<void *>(address_of(s.name)))({in, s.len}, sink_);
}

void settle_in(const core &c, std::uint32_t index)
{
	const std::string name = (c.options().name + "/" + std::to_string(index)).substr(0, 15);
	const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	// ^C goes to the whole foreground group: what it means is for the owner to say. Its end is ours.
	std::signal(SIGINT, SIG_IGN);
	prctl(PR_SET_NAME, name.c_str());
	// Standard input stays the owner's.
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		close(null);
	}
	the_board = &c.shared().head();
	become_worker(module_of_owner);
}

} // namespace

std::span<std::byte> result_sink::space(std::size_t n)
{
	return static_cast<sink &>(*this).make_room(n);
}

int worker_main(const void *arg, std::size_t)
{
	const auto *a = static_cast<const worker_arg *>(arg);
	int status = 0;

	settle_in(*a->c, a->index);
	try {
		worker(a->c->shared(), a->index).serve();
	} catch (const pool_ended &) {
	} catch (const error &e) {
		std::fprintf(stderr, "pool %s: worker %d: %s\n", a->c->options().name.c_str(), getpid(), e.what());
		a->c->shared().desk_of(a->index).is_ready.store(0, std::memory_order_relaxed); // read after our death
		status = 1;
	}
	std::cout.flush();
	std::clog.flush();
	return status;
}

} // namespace ch::detail

// SPDX-License-Identifier: Apache-2.0
// worker.cpp - a worker process: takes a ticket, runs the task, sends the result. board.h says what a death leaves.
#include "core.h"

#include <cerrno>
#include <csignal>
#include <cxxabi.h>
#include <fcntl.h>
#include <iostream>
#include <pool/context.hpp>
#include <sys/prctl.h>
#include <unistd.h>

namespace ch::detail {
namespace {

board *the_board; // of the pool that this process works for

// What the task of this process can ask.
struct {
	bool exists = false;
	std::uint32_t worker = 0, attempt = 0, serial = 0;
	std::atomic<std::uint32_t> *stop = nullptr;
} context;

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
	archive::copy_bytes(at + sizeof(p), private_.data() + p.offset, n);
	check_end(ch_channel_commit(room_.results(), &m_, CH_FOREVER));
	return n;
}

class worker {
public:
	worker(room &r, const pool_options &o, std::uint32_t me)
	    : opt_(o), room_(r), desk_(r.desk_of(me)), me_(me), sink_(r)
	{
	}
	void serve();

private:
	void initialize();
	void tell(result_kind kind, const std::string &text);
	ssize_t next();
	void run(ticket t);
	void call(const slot &s);
	bool end(slot &s, ticket t);

	const pool_options &opt_;
	room &room_;
	desk &desk_;
	const std::uint32_t me_;
	sink sink_;
	unsigned nr_run_ = 0;
};

// Relaxed, here and below: what the desk says is read after our death, or as a picture of the moment.
void worker::initialize()
{
	desk_.at.store(stage::initializing, std::memory_order_relaxed);
	context.exists = true;
	context.worker = me_;
	try {
		if (opt_.initializer)
			opt_.initializer();
	} catch (const abi::__forced_unwind &) {
		throw;
	} catch (...) {
		const error_record e = current_error();

		tell(result_kind::init_failed, e.type + ": " + e.what);
		throw error(ECANCELED, "its initializer failed");
	}
	desk_.at.store(stage::ready, std::memory_order_relaxed);
	tell(result_kind::ready, {});
}

// Something that is no task's result.
void worker::tell(result_kind kind, const std::string &text)
{
	const result_head h{me_, 0, kind, 0};
	std::string m(reinterpret_cast<const char *>(&h), sizeof(h));

	m += text;
	const int rc = ch_channel_send(room_.results(), m.data(), m.size(), CH_FOREVER);
	if (rc == -EPIPE || rc == -ESTALE)
		throw pool_ended();
	check(rc);
}

// The next ticket on the desk: of the highest priority there is.
ssize_t worker::next()
{
	const auto recv = [&](priority p, std::int64_t timeout_ns) {
		return ch_channel_recv(room_.tasks(p), &desk_.at_hand, sizeof(desk_.at_hand), timeout_ns);
	};

	// [B6] pairs with [B6] in core.cpp.
	if (room_.head().levels.load(std::memory_order_acquire))
		for (const priority p : {priority::high, priority::normal, priority::low})
			if (const ssize_t n = recv(p, CH_TRY); n >= 0 || (n != -EAGAIN && n != -EPIPE))
				return n;
	return recv(priority::normal, CH_FOREVER);
}

void worker::serve()
{
	const unsigned most = opt_.max_tasks;

	initialize();
	while (!most || nr_run_ < most) {
		const ssize_t n = next();

		if (n == -EPIPE || n == -ESTALE)
			break;
		check(n);
		if (desk_.at_hand.slot == go_home)
			break;
		if (desk_.at_hand.slot != nobody)
			run(desk_.at_hand);
	}
	desk_.at.store(stage::leaving, std::memory_order_relaxed);
}

// The task is done, and not condemned: its result may be sent.
bool worker::end(slot &s, ticket t)
{
	std::uint64_t mine = running(t.serial, me_);

	if (s.limit_ns)
		desk_.begun_ns.store(0, std::memory_order_relaxed);
	// [B7] pairs with [B7] in limits.cpp.
	return s.state.compare_exchange_strong(mine, ended(t.serial, me_), std::memory_order_acq_rel);
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
	if (s.limit_ns)
		desk_.begun_ns.store(now_ns(), std::memory_order_relaxed);
	context.attempt = s.attempt;
	context.serial = t.serial;
	context.stop = &s.stop;
	nr_run_++;
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
	if (!end(s, t))
		std::raise(SIGKILL); // condemned: the owner waits for this death
	sink_.send(t, kind);
}

void worker::call(const slot &s)
{
	const std::byte *in = s.block_off ? room_.at(s.block_off) : s.bytes;

	if (!s.block_off && s.len > slot::inline_max)
		throw error(EPROTO, "pool: damaged task");
	reinterpret_cast<thunk>(const_cast<void *>(address_of(s.name)))({in, s.len}, sink_);
}

// What the owner had not written out yet is its to write.
void forget_buffered(std::ostream &o, int fd, int null)
{
	const int kept = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (kept < 0 || dup2(null, fd) < 0)
		return;
	o.flush();
	dup2(kept, fd);
	close(kept);
}

void settle_in(const core &c, std::uint32_t index, bool is_late)
{
	const std::string name = (c.options().name + "/" + std::to_string(index)).substr(0, 15);
	const int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)run_on(c.options().placement.cpus_of(index)); // a CPU that has gone since binds nobody
	// ^C goes to the whole foreground group: what it means is for the owner to say. Its end is ours.
	std::signal(SIGINT, SIG_IGN);
	prctl(PR_SET_NAME, name.c_str());
	// Standard input stays the owner's.
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		if (is_late) {
			forget_buffered(std::cout, STDOUT_FILENO, null);
			forget_buffered(std::clog, STDERR_FILENO, null);
		}
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

} // namespace ch::detail

namespace ch::this_task {

bool exists() noexcept
{
	return detail::context.exists;
}

unsigned worker() noexcept
{
	return detail::context.worker;
}

unsigned attempt() noexcept
{
	return detail::context.attempt;
}

bool is_cancelled() noexcept
{
	// Relaxed: it says nothing but itself.
	return detail::context.stop && detail::context.stop->load(std::memory_order_relaxed) == detail::context.serial;
}

} // namespace ch::this_task

namespace ch::detail {

void add_errors(result_sink &out, std::span<const std::byte> results, const std::vector<flat_error> &errors)
{
	const std::vector<std::byte> kept(results.begin(), results.end());
	const std::span<std::byte> room = out.space(kept.size() + archive::size(errors));

	std::memcpy(room.data(), kept.data(), kept.size());
	archive::write(room.subspan(kept.size()), errors);
}

void serve_room(room &r, const pool_options &o, std::uint32_t index)
{
	the_board = &r.head();
	become_worker(module_of_owner);
	try {
		worker(r, o, index).serve();
	} catch (const pool_ended &) {
	}
	context = {};
	become_worker(nullptr);
	the_board = nullptr;
}

int worker_main(const void *arg, std::size_t)
{
	const auto *a = static_cast<const worker_arg *>(arg);
	int status = 0;

	settle_in(*a->c, a->index, a->is_late);
	try {
		worker(a->c->shared(), a->c->options(), a->index).serve();
	} catch (const pool_ended &) {
	} catch (const error &e) {
		std::fprintf(stderr, "pool %s: worker %d: %s\n", a->c->options().name.c_str(), getpid(), e.what());
		a->c->shared().desk_of(a->index).at.store(stage::failed, std::memory_order_relaxed); // read after our death
		status = 1;
	}
	std::cout.flush();
	std::clog.flush();
	return status;
}

} // namespace ch::detail

// SPDX-License-Identifier: Apache-2.0
// manager.cpp - the loop of a manager, its clients, and how it answers. What the operations do is in operations.cpp.
#include "manager.hpp"
#include <csignal>
#include <cstdio>
#include <sys/prctl.h>
#include <sys/random.h>

namespace ch::dd {

namespace {

constexpr unsigned spin_ns = 200000;
constexpr unsigned let_go_each = 64; // messages

descriptor from_bytes(const unsigned char (&b)[64])
{
	descriptor d{};

	check(ch_descr_from_bytes(b, sizeof(b), &d));
	return d;
}

ch_segment *attach_segment(const descriptor &d)
{
	ch_segment *seg = nullptr;

	check(ch_segment_attach(&d, &seg));
	return seg;
}

} // namespace

manager::manager(const manager_arg &arg)
    : requests_(ch::channel::attach(from_bytes(arg.requests))), control_(memory_pool::attach(from_bytes(arg.control))),
      seg_(attach_segment(from_bytes(arg.requests))), store_(ch_channel_get_pool(requests_.get())), index_(arg.index),
      rules_(arg.rules), dir_seg_(attach_segment(from_bytes(arg.directory))),
      words_(directory_words(dir_seg_.get(), arg.nr_managers)), nr_managers_(arg.nr_managers),
      incarnation_(arg.incarnation), mirror_(ch_channel_get_pool(requests_.get()))
{
	if (evicts()) {
		store_.keep_order_of_use();
		mirror_.keep_order_of_use();
	}
	// As long as a client copies a large value, between two requests: to be woken takes it as long.
	if (rules_.has_spare_cpus)
		requests_.set_spin(spin_ns);
	next_pin_ = incarnation_ << 40 | 1; // none is a predecessor's
	dir_ = from_bytes(arg.directory);
	words_[index_].is_crowded.store(0, std::memory_order_relaxed); // see next_has_room
	store_.show_in(
		std::make_unique<own_window>(directory_window(dir_seg_.get(), nr_managers_, arg.windows, index_),
					     arg.windows, incarnation_),
		static_cast<const std::byte *>(ch_segment_addr(seg_.get())));
	if (rules_.replicas > 1) {
		next_ = ch::channel::attach(from_bytes(arg.next));
		previous_ = ch::channel::attach(from_bytes(arg.previous));
		if (incarnation_ > 1)
			begin_as_successor();
	}
	if (arg.files.dir[0])
		begin_files(arg.files);
	go_on_to(newest_);
	offer_promises();
}

int manager_main(const void *arg, std::size_t len)
{
	manager_arg a;
	char name[16];

	if (len != sizeof(a))
		return 2;
	std::memcpy(&a, arg, sizeof(a));
	std::snprintf(name, sizeof(name), "ddict-%u", a.index);
	prctl(PR_SET_NAME, name);
	// A ^C at the terminal is for the application; when that ends, its spawner ends this process.
	std::signal(SIGINT, SIG_IGN);
	std::signal(SIGHUP, SIG_IGN);
	std::signal(SIGCHLD, SIG_DFL); // its children are waited for
	std::signal(SIGXFSZ, SIG_IGN); // a file that may not be so long is an error
	run_on(a.cpus); // before it touches memory, which then lies there. It was possible when the dictionary was created
	try {
		manager(a).serve();
		return 0;
	} catch (const std::exception &e) {
		std::fprintf(stderr, "ddict: manager %u: %s\n", a.index, e.what());
		return 1;
	}
}

void manager::serve()
{
	alignas(64) std::byte buf[inline_max];

	for (;;) {
		const bool has_dates = !parked_.empty() || store_.next_expiry() || !outbox_.empty() || is_filling_ ||
				       !jobs_.empty() || !owed_.empty() || !crowd_.empty() || !spreads_.empty();
		const bool is_writing = (persister_ && persister_->can_go_on()) || (kept_ && kept_->can_go_on());
		const ssize_t n = ch_channel_recv(requests_.get(), buf, sizeof(buf),
						  is_writing  ? CH_TRY
						  : has_dates ? patience()
							      : CH_FOREVER);

		if (has_dates)
			look_around(n == -ETIMEDOUT || n == -EAGAIN);
		if (n >= 0)
			handle({buf, static_cast<std::size_t>(n)}, nullptr);
		else if (n == -ENOBUFS)
			take_large();
		else if (n == -EPIPE || n == -ESTALE)
			return;
		else if (n != -ETIMEDOUT && n != -EAGAIN)
			raise(n);
		if (persister_ || kept_)
			keep_files();
		if (++nr_served_ % let_go_each == 0)
			store_.let_go();
		if (!parked_.empty() && outbox_.empty())
			try_parked();
		words_[index_].keys.store(store_.size(), std::memory_order_relaxed); // read when this process is dead
	}
}

// What time alone may have changed.
void manager::look_around(bool is_idle)
{
	if (!jobs_.empty())
		look_at_jobs(is_idle);
	if (!spreads_.empty())
		look_at_spreads(is_idle);
	store_.expire(monotonic_ns());
	mirror_.expire(monotonic_ns());
	move_in();
	if (flush()) {
		copy_owed();
		work_through_early();
	}
	if (is_filling_)
		ask_for_keys();
}

// A message that has a block of its own: a large value, which stays where it is, or a batch.
void manager::take_large()
{
	std::optional<ch::message> m = requests_.try_take();

	if (m)
		handle(m->bytes(), &*m);
}

// Copies the header out before it looks at it: the block may still be written by a hostile sender.
bool manager::parse(bytes msg, call &out)
{
	if (msg.size() < sizeof(request))
		return false;
	out.head = load<request>(msg.data());
	const std::size_t klen = out.head.klen, voff = out.head.voff;

	if (klen > key_max || voff > msg.size() || sizeof(request) + klen > voff)
		return false;
	out.key = msg.subspan(sizeof(request), klen);
	out.value = msg.subspan(voff);
	return true;
}

void manager::handle(bytes msg, ch::message *owner)
{
	call c{};

	if (!parse(msg, c))
		return; // nobody to answer to
	c.owner = owner;
	if (is_from_manager(c))
		return from_manager(c);
	if (c.head.client == 0 && c.head.what == static_cast<std::uint32_t>(op::visited))
		return visited(c);
	if (c.head.client == 0 && c.head.what == static_cast<std::uint32_t>(op::spread_done))
		return spread_done(c);
	if (c.head.client == 0 && c.head.what == static_cast<std::uint32_t>(op::settle))
		return store_.shop_window()->settle(c.head.arg, c.head.id);
	if (c.head.what == static_cast<std::uint32_t>(op::put) && (c.head.flags & put_promised))
		return keep_promise(c);
	if (is_filling_ || !outbox_.empty()) {
		// Later, in the order in which they came.
		early &e = early_.emplace_back();

		if (owner)
			e.owned = std::move(*owner);
		else
			e.copy.assign(msg.begin(), msg.end());
		return;
	}
	if (c.head.client == 0 && c.head.what == static_cast<std::uint32_t>(op::spread_on))
		return spread_on(c);
	if (c.head.what == static_cast<std::uint32_t>(op::hello)) {
		hello(c);
		return;
	}
	c.from = find_client(c.head.client);
	if (!c.from) {
		if (is_retrying_)
			offer_promises(); // it may have waited for those that are open
		// From one who found no room for a reply channel.
		if (c.head.what == static_cast<std::uint32_t>(op::reap))
			reap();
		return;
	}
	if (c.head.retry_of && is_repeated(c))
		return;
	try {
		const outcome o = timed(c);

		if (o == outcome::answered)
			return;
		if (c.head.until >= 0 && c.head.until <= monotonic_ns()) {
			offer_promises();
			answer(c, -ETIMEDOUT);
		} else {
			park(c, msg, owner, o);
		}
	} catch (const std::bad_alloc &) {
		answer(c, -ENOMEM);
	}
}

// One call in sixteen is timed: looking at the clock twice costs a tenth of a small one.
manager::outcome manager::timed(call &c)
{
	const std::uint32_t what = c.head.what < static_cast<std::uint32_t>(op::mirror_begin) ? c.head.what : 0;
	op_stats &s = stats_.ops[what];

	if (is_retrying_)
		return dispatch(c);
	if (s.count++ % 16 != 0)
		return dispatch(c);
	const std::int64_t start = monotonic_ns();
	const outcome o = dispatch(c);

	s.timed[bucket_of(static_cast<std::uint64_t>(monotonic_ns() - start))]++;
	return o;
}

manager::client *manager::find_client(std::uint64_t id)
{
	const std::size_t i = id & 0xffff;

	return id && i < clients_.size() && clients_[i].id == id ? &clients_[i] : nullptr;
}

manager::client &manager::fresh_client()
{
	std::uint64_t nonce = 0;
	std::size_t i = 0;

	while (i < clients_.size() && clients_[i].id)
		i++;
	if (i == clients_.size()) {
		if (i == 0xffff)
			throw std::bad_alloc();
		clients_.emplace_back();
	}
	while (nonce >> 16 == 0)
		if (getrandom(&nonce, sizeof(nonce), 0) != sizeof(nonce))
			nonce = (next_pin_ += 0x10000) << 16;
	clients_[i].id = (nonce & ~std::uint64_t{0xffff}) | i;
	return clients_[i];
}

void manager::hello(const call &c)
{
	if (c.value.size() != sizeof(hello_body))
		return;
	const hello_body body = load<hello_body>(c.value.data());

	try {
		reap();
		ch::channel replies = ch::channel::attach(from_bytes(body.channel));
		client &to = fresh_client();

		to.peer = {body.peer};
		to.replies = std::move(replies);
		const std::uint64_t self = ch_peer_self().id;

		answer(to, {c.head.id, 0, 0, to.id, incarnation_, sizeof(self)}, std::as_bytes(std::span(&self, 1)));
	} catch (const std::exception &) {
		// A channel that is not there (the client has gone already), or no memory: no way to say so. The
		// client's hello has a deadline.
	}
}

// Its channel goes with it: whoever waits there learns that it ended.
void manager::drop(client &c) noexcept
{
	c.replies.destroy();
	c.pins.clear();
	has_dead_rows_ = true; // perhaps
	c.peer = {};
	c.id = 0;
}

void manager::reap()
{
	for (client &c : clients_)
		if (c.id && !ch_peer_is_alive(c.peer))
			drop(c);
	if (has_dead_rows_)
		reap_rows();
	store_.let_go();
	for (auto *calls : {&mirrored_calls_, &repeated_})
		std::erase_if(*calls, [](const auto &of) { return !ch_peer_is_alive({of.first}); });
	ch_pool_sweep(ch_channel_get_pool(requests_.get()));
	ch_pool_sweep(control_.get());
}

// False if there is no memory for a long message; nothing was sent then.
bool manager::send(client &to, const void *msg, std::size_t len)
{
	if (!outbox_.empty()) {
		const auto *from = static_cast<const std::byte *>(msg);

		answers_.push_back({to.id, {from, from + len}});
		return true;
	}
	const int rc = ch_channel_send(to.replies.get(), msg, len, CH_TRY);

	if (rc == -ENOSPC || rc == -EMSGSIZE)
		return false;
	if (rc < 0)
		drop(to); // gone, or it had more calls under way than it has room for answers
	return true;
}

void manager::answer(client &to, reply head, bytes body)
{
	std::byte msg[inline_max];

	std::memcpy(msg, &head, sizeof(head));
	if (!body.empty())
		std::memcpy(msg + sizeof(head), body.data(), body.size());
	if (!send(to, msg, sizeof(head) + body.size()))
		drop(to); // cannot be: it travels in the ring
}

void manager::answer_text(client &to, std::uint64_t id, int status, std::string_view text, bool is_whole)
{
	text = text.substr(0, inline_value_max);
	answer(to, {id, status, 0, is_whole, 0, text.size()}, std::as_bytes(std::span(text.data(), text.size())));
}

void manager::answer(const call &c, int status, std::uint64_t arg, std::uint64_t off)
{
	answer(*c.from, {c.head.id, status, 0, arg, off, 0}, {});
}

} // namespace ch::dd

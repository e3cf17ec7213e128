// SPDX-License-Identifier: Apache-2.0
// process.cpp - the public classes: a process, and a group of them.
#include "core.h"
#include "launch.h"
#include "peer.h"

#include <algorithm>
#include <cerrno>
#include <sys/wait.h>
#include <unistd.h>

namespace ch {

int exit_status::signal() const noexcept
{
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

int exit_status::exit_code() const noexcept
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

namespace {

const detail::process_ref &some(const detail::process_ref &s)
{
	if (!s)
		throw error(EINVAL, "process: there is none (default constructed, moved from, or let go)");
	return s;
}

void end(const detail::process_ref &s) noexcept
{
	if (!s || s->is_detached)
		return;
	detail::signal_peer(s->peer, SIGKILL);
	detail::wait_process(s, CH_FOREVER);
}

exit_status status_of(const detail::process_state &s)
{
	return {s.status, s.is_timed_out};
}

} // namespace

process::process(const process_options &o, const detail::process_call &c) : s_(detail::launch(o, c)) {}

process &process::operator=(process &&o) noexcept
{
	std::swap(s_, o.s_);
	return *this;
}

process::~process()
{
	end(s_);
}

pid_t process::pid() const noexcept
{
	return s_ ? s_->pid : 0;
}

ch_peer process::peer() const noexcept
{
	return s_ ? s_->peer : ch_peer{};
}

bool process::is_running() const
{
	return !detail::is_over(some(s_));
}

exit_status process::wait() const
{
	return *wait_for(nanoseconds(CH_FOREVER));
}

std::optional<exit_status> process::wait_for(nanoseconds timeout) const
{
	if (some(s_)->is_detached)
		throw error(EINVAL, "process: the end of one that is detached is not seen");
	if (!detail::wait_process(s_, timeout.count()))
		return std::nullopt;
	return status_of(*s_);
}

bool process::signal(int sig) const
{
	const int rc = some(s_)->is_detached ? (::kill(s_->pid, sig) < 0 ? -errno : 0) : detail::signal_peer(s_->peer, sig);

	if (rc < 0 && rc != -ESRCH)
		throw error(-rc, "process: signal");
	return rc == 0;
}

bool process::kill() const
{
	return signal(SIGKILL);
}

exit_status process::terminate(nanoseconds patience) const
{
	signal(SIGTERM);
	if (!wait_for(patience))
		signal(SIGKILL);
	return wait();
}

int process::in() const noexcept
{
	return s_ ? s_->fds[0] : -1;
}

int process::out() const noexcept
{
	return s_ ? s_->fds[1] : -1;
}

int process::err() const noexcept
{
	return s_ ? s_->fds[2] : -1;
}

void process::close_in() noexcept
{
	if (s_)
		s_->close(0);
}

// ---- groups
//
// The end of a member is heard in the launcher's thread, which hands it to the group's own: that one restarts, after the
// backoff, and nobody else's process has to wait for it.

struct process_group::inside {
	struct member {
		process_options what;
		detail::process_call call;
		detail::process_ref now; // null: it shall not run
		std::optional<exit_status> last;
		unsigned nr_restarts = 0;
		std::uint64_t start_ns = 0; // when it is to be started; 0: not
	};
	// What an exit may come to after the group has gone.
	struct mailbox {
		std::mutex m;
		std::condition_variable bell; // an end, a start, the end of all
	};

	const group_options opt;
	std::shared_ptr<mailbox> box = std::make_shared<mailbox>();
	std::vector<member> members; // under box->m, as the next
	std::size_t nr_restarts = 0;
	bool is_ending = false;
	std::thread thread;

	explicit inside(const group_options &o) : opt(o) {}
	void run() noexcept;
	bool see_to(std::size_t i, std::unique_lock<std::mutex> &l);
	void start(std::size_t i, std::unique_lock<std::mutex> &l);
	void note_end(member &m);
	bool is_quiet() const
	{
		return std::none_of(members.begin(), members.end(), [](const member &m) { return m.now || m.start_ns; });
	}
};

// A member has ended: whether and when it starts again.
void process_group::inside::note_end(member &m)
{
	const bool is_wanted = opt.restart == restart::always ||
		(opt.restart == restart::on_failure && !m.last->is_success());

	if (is_ending || !is_wanted || m.nr_restarts >= opt.max_restarts)
		return;
	const auto pause = static_cast<std::uint64_t>(opt.backoff.count()) << std::min(m.nr_restarts, 10u);
	m.start_ns = detail::now_ns() + pause;
	m.nr_restarts++;
	nr_restarts++;
}

void process_group::inside::start(std::size_t i, std::unique_lock<std::mutex> &l)
{
	const process_options what = members[i].what;
	const detail::process_call call = members[i].call;

	l.unlock(); // start_ns still says that it is not over
	detail::process_ref s;
	std::optional<exit_status> failure;
	try {
		s = detail::launch(what, call, [b = box] {
			const std::lock_guard<std::mutex> g(b->m);
			b->bell.notify_all();
		});
	} catch (const std::exception &) {
		failure = exit_status{127 << 8, false}; // as if it could not be executed
	}
	l.lock();
	members[i].start_ns = 0;
	members[i].now = s;
	if (failure) {
		members[i].last = failure;
		note_end(members[i]);
	}
	if (s && is_ending)
		detail::signal_peer(s->peer, SIGKILL);
	box->bell.notify_all();
}

// Whether something was done.
bool process_group::inside::see_to(std::size_t i, std::unique_lock<std::mutex> &l)
{
	member &m = members[i];

	if (m.now && detail::is_over(m.now)) {
		m.last = status_of(*m.now);
		m.now.reset();
		note_end(m);
		box->bell.notify_all();
		return true;
	}
	if (!m.start_ns || m.start_ns > detail::now_ns() || is_ending)
		return false;
	start(i, l);
	return true;
}

void process_group::inside::run() noexcept
{
	std::unique_lock<std::mutex> l(box->m);

	while (!is_ending || !is_quiet()) {
		std::uint64_t next = 0;
		bool is_busy = false;

		for (std::size_t i = 0; i < members.size(); i++) {
			is_busy |= see_to(i, l);
			if (is_ending)
				members[i].start_ns = 0;
			if (members[i].start_ns)
				next = next ? std::min(next, members[i].start_ns) : members[i].start_ns;
		}
		if (is_busy || (is_ending && is_quiet()))
			continue;
		if (next)
			box->bell.wait_until(l, std::chrono::steady_clock::time_point(nanoseconds(next)));
		else
			box->bell.wait(l);
	}
}

process_group::process_group(const group_options &o) : in_(new inside(o))
{
	in_->thread = detail::quiet_thread([in = in_.get()] { in->run(); });
}

process_group::~process_group()
{
	terminate(nanoseconds(0));
	in_->thread.join();
}

std::size_t process_group::add(const process_options &o, const detail::process_call &c)
{
	process_options what = o;

	what.detached = false;
	detail::process_ref s = detail::launch(what, c, [b = in_->box] {
		const std::lock_guard<std::mutex> g(b->m);
		b->bell.notify_all();
	});
	const std::lock_guard<std::mutex> l(in_->box->m);
	in_->members.push_back({std::move(what), c, std::move(s), {}, 0, 0});
	in_->box->bell.notify_all(); // it may have ended already
	return in_->members.size() - 1;
}

std::size_t process_group::add(const process_options &o)
{
	return add(o, detail::process_call{});
}

std::size_t process_group::size() const
{
	const std::lock_guard<std::mutex> l(in_->box->m);

	return in_->members.size();
}

std::size_t process_group::nr_running() const
{
	const std::lock_guard<std::mutex> l(in_->box->m);

	return static_cast<std::size_t>(std::count_if(in_->members.begin(), in_->members.end(),
						      [](const inside::member &m) { return m.now != nullptr; }));
}

std::size_t process_group::nr_restarts() const
{
	const std::lock_guard<std::mutex> l(in_->box->m);

	return in_->nr_restarts;
}

pid_t process_group::pid(std::size_t i) const
{
	const std::lock_guard<std::mutex> l(in_->box->m);

	return in_->members.at(i).now ? in_->members[i].now->pid : 0;
}

std::optional<exit_status> process_group::last_exit(std::size_t i) const
{
	const std::lock_guard<std::mutex> l(in_->box->m);

	return in_->members.at(i).last;
}

void process_group::signal(int sig)
{
	const std::lock_guard<std::mutex> l(in_->box->m);

	for (const inside::member &m : in_->members)
		if (m.now)
			detail::signal_peer(m.now->peer, sig);
}

bool process_group::join(nanoseconds timeout)
{
	std::unique_lock<std::mutex> l(in_->box->m);
	const detail::deadline until(timeout.count());

	while (!in_->is_quiet() && !until.is_over())
		until.sleep(in_->box->bell, l);
	return in_->is_quiet();
}

void process_group::terminate(nanoseconds patience)
{
	{
		const std::lock_guard<std::mutex> l(in_->box->m);

		in_->is_ending = true;
		in_->box->bell.notify_all();
	}
	if (patience.count() > 0)
		signal(SIGTERM);
	if (patience.count() <= 0 || !join(patience))
		signal(SIGKILL);
	join(nanoseconds(CH_FOREVER));
}

} // namespace ch

// SPDX-License-Identifier: Apache-2.0
// launch.cpp - this side of starting processes: one spawner for all, made at the first use; a thread that learns of their
// ends, and one that ends those whose time is over.
#include "core.h"
#include "launch.h"
#include "peer.h"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <unordered_map>
#include <unistd.h>

namespace ch::detail {

// Lives as long as the process: its threads sleep, and its children end with it.
struct launcher {
	std::mutex m;
	std::condition_variable ended, limit;
	pid_t owner = getpid();
	ch_spawner *spawner = nullptr;
	std::unordered_map<std::uint64_t, process_ref> running; // by cookie
	std::uint64_t next_cookie = 1;
	std::atomic<bool> is_over{false}; // its spawner was killed

	launcher() { check(new_spawner(&spawner)); }
	void watch() noexcept;
	void keep_time() noexcept;
};

namespace {

launcher &the_launcher()
{
	static std::mutex m;
	static launcher *it = nullptr;
	const std::lock_guard<std::mutex> l(m);

	// A forked process has the parent's, and cannot use it.
	if (!it || it->owner != getpid() || it->is_over) {
		it = new launcher;
		quiet_thread([p = it] { p->watch(); }).detach();
		quiet_thread([p = it] { p->keep_time(); }).detach();
	}
	return *it;
}

// That of a process which was started: not the one that has taken its place since. In a forked process, which cannot use it,
// its own.
launcher &launcher_of(const process_state &s)
{
	return s.by->owner == getpid() ? *s.by : the_launcher();
}

} // namespace

void launcher::watch() noexcept
{
	ch_exit e;

	while (ch_spawner_wait(spawner, CH_FOREVER, &e) == 0) {
		std::unique_lock<std::mutex> l(m);
		const auto it = running.find(e.cookie);

		if (it == running.end())
			continue;
		const process_ref s = it->second;
		running.erase(it);
		s->status = e.status;
		s->is_over = true;
		ended.notify_all();
		l.unlock();
		if (s->on_exit)
			s->on_exit();
	}
	// The spawner was killed, and its children with it.
	std::unique_lock<std::mutex> l(m);
	const auto killed = std::exchange(running, {});

	is_over = true;
	for (const auto &[cookie, s] : killed) {
		if (signal_peer(s->peer, SIGKILL) == 0) // one that had given that up
			await_end(s->peer);
		s->status = SIGKILL;
		s->is_over = true;
	}
	ended.notify_all();
	l.unlock();
	for (const auto &[cookie, s] : killed)
		if (s->on_exit)
			s->on_exit();
}

void launcher::keep_time() noexcept
{
	std::unique_lock<std::mutex> l(m);

	for (;;) {
		const std::uint64_t now = now_ns();
		std::uint64_t next = 0;

		for (auto &[cookie, s] : running) {
			if (!s->limit_ns || s->is_timed_out)
				continue;
			if (s->limit_ns <= now) {
				s->is_timed_out = signal_peer(s->peer, SIGKILL) == 0;
				continue;
			}
			next = next ? std::min(next, s->limit_ns) : s->limit_ns;
		}
		if (next)
			limit.wait_until(l, std::chrono::steady_clock::time_point(nanoseconds(next)));
		else
			limit.wait(l);
	}
}

namespace {

// The descriptors that a spawner must not have.
std::mutex private_mutex;
std::vector<int> private_fds;
thread_local bool is_spawning = false; // this thread, which has the mutex, makes one

void close_private(int fd) noexcept
{
	const std::lock_guard<std::mutex> l(private_mutex);

	std::erase(private_fds, fd);
	::close(fd);
}

class fd_pair {
public:
	fd_pair()
	{
		const std::lock_guard<std::mutex> l(private_mutex);

		private_fds.reserve(private_fds.size() + 2);
		if (pipe2(fds_, O_CLOEXEC) < 0)
			throw error(errno, "process: pipe");
		private_fds.insert(private_fds.end(), fds_, fds_ + 2);
	}
	~fd_pair()
	{
		for (int which = 0; which < 2; which++)
			reset(which);
	}
	fd_pair(const fd_pair &) = delete;
	fd_pair &operator=(const fd_pair &) = delete;
	int operator[](int which) const noexcept { return fds_[which]; }
	int take(int which) noexcept { return std::exchange(fds_[which], -1); }
	void reset(int which) noexcept
	{
		if (fds_[which] >= 0)
			close_private(std::exchange(fds_[which], -1));
	}

private:
	int fds_[2];
};

// The child's next report. False: end of file, or it ended.
bool read_report(int fd, int pidfd, launch_report &r)
{
	pollfd fds[2] = {{fd, POLLIN, 0}, {pidfd, POLLIN, 0}};

	for (;;) {
		if (poll(fds, pidfd >= 0 ? 2 : 1, -1) < 0 && errno != EINTR)
			throw error(errno, "process: poll");
		if (fds[0].revents & (POLLIN | POLLHUP))
			return read(fd, &r, sizeof(r)) == sizeof(r);
		if (pidfd >= 0 && fds[1].revents)
			return false;
	}
}

launch_request request_of(const process_options &o, const process_call &c)
{
	launch_request rq;

	rq.creator = getpid();
	rq.program = o.program;
	rq.directory = o.directory;
	rq.arguments = o.arguments;
	rq.is_detached = o.detached;
	rq.has_environment = o.environment.has_value() || !o.add_environment.empty();
	rq.call = c;
	rq.cpus = o.placement.cpus_of(0);
	for (std::uint32_t i = 0; i < count_modules(); i++)
		rq.modules.push_back(known_module(i));
	if (o.environment)
		rq.environment = *o.environment;
	else if (rq.has_environment)
		for (char **e = environ; *e; e++)
			rq.environment.emplace_back(*e);
	for (const std::string &s : o.add_environment) {
		const std::string name = s.substr(0, s.find('=') + 1);

		std::erase_if(rq.environment, [&](const std::string &e) { return e.starts_with(name); });
		rq.environment.push_back(s);
	}
	return rq;
}

[[noreturn]] void fail(const launch_report &r)
{
	throw error(r.err, (std::string("process: ") + r.where).c_str());
}

// Waits until the child is set up, and a program runs. False: it ended before.
bool hear(fd_pair &pipe, process_state &s)
{
	const int pidfd = pidfd_of(s.peer);
	launch_report r{};
	bool is_there;

	try {
		is_there = read_report(pipe[0], s.is_detached ? -1 : pidfd, r);
		pipe.reset(1); // from here on the child alone can write
		if (is_there && r.err == 0) {
			launch_report later{};

			s.pid = r.pid;
			if (read_report(pipe[0], -1, later))
				r = later;
		}
	} catch (...) {
		::close(pidfd);
		throw;
	}
	if (pidfd >= 0)
		::close(pidfd);
	if (is_there && r.err)
		fail(r);
	return is_there;
}

} // namespace

process_state::~process_state()
{
	for (int which = 0; which < 3; which++)
		close(which);
}

void process_state::close(int which) noexcept
{
	if (fds[which] >= 0)
		close_private(std::exchange(fds[which], -1));
}

int new_spawner(ch_spawner **out) noexcept
{
	// In the child of this thread's fork, and only there; it has the lock, too.
	static const int registered = pthread_atfork(nullptr, nullptr, [] {
		if (!std::exchange(is_spawning, false))
			return;
		for (const int fd : private_fds)
			::close(fd);
		private_fds.clear();
		private_mutex.unlock();
	});
	const auto frozen = freeze_modules();
	const std::lock_guard<std::mutex> l(private_mutex);

	(void)registered;
	is_spawning = true;
	const int rc = ch_spawner_create(out);
	is_spawning = false;
	return rc;
}

// Forks the child. If the spawner was killed there will be another.
static launcher &spawn(const std::vector<std::byte> &arg, const process_options &o, const process_ref &s)
{
	for (int tries = 0;; tries++) {
		launcher &l = the_launcher();
		std::unique_lock<std::mutex> lock(l.m);
		const std::uint64_t cookie = l.next_cookie++;
		const int rc = ch_spawner_spawn(l.spawner, launch_child, arg.data(), arg.size(), cookie, &s->peer);

		if (rc == -EPIPE && tries < 3) {
			l.ended.wait(lock, [&] { return l.is_over.load(); });
			continue;
		}
		check(rc);
		s->by = &l;
		s->pid = ch_peer_pid(s->peer);
		s->limit_ns = o.walltime.count() > 0 ? now_ns() + static_cast<std::uint64_t>(o.walltime.count()) : 0;
		if (!o.detached)
			l.running.emplace(cookie, s);
		if (s->limit_ns)
			l.limit.notify_one();
		return l;
	}
}

process_ref launch(const process_options &o, const process_call &c, std::function<void()> on_exit)
{
	if (o.program.empty() == !c.name)
		throw error(EINVAL, "process: a program, or a function");
	if (o.detached && o.walltime.count() > 0)
		throw error(EINVAL, "process: one that is detached has no walltime, for nobody stays to see that it is over");
	check_placement(o.placement);
	launch_request rq = request_of(o, c);
	fd_pair report, pipes[3];
	auto s = std::make_shared<process_state>();
	const stdio *streams[] = {&o.in, &o.out, &o.err};

	rq.report = report[1];
	for (int i = 0; i < 3; i++) {
		rq.streams[i] = *streams[i];
		if (streams[i]->what() == stdio::kind::pipe)
			process_state::set_fd(rq.streams[i], pipes[i][i ? 1 : 0]);
	}
	const std::vector<std::byte> arg = archive::to_bytes(rq);
	s->on_exit = std::move(on_exit);
	s->is_detached = o.detached;
	launcher &l = spawn(arg, o, s);
	try {
		const bool is_set_up = hear(report, *s);
		const std::lock_guard<std::mutex> again(l.m);

		if (!is_set_up && !s->is_timed_out) // a walltime may be shorter than that
			throw error(ECHILD, "process: it ended before it was set up (is /proc there?)");
	} catch (...) {
		const std::lock_guard<std::mutex> again(l.m);
		s->on_exit = nullptr;
		throw;
	}
	for (int i = 0; i < 3; i++)
		if (streams[i]->what() == stdio::kind::pipe)
			s->fds[i] = pipes[i].take(i ? 0 : 1);
	return s;
}

bool wait_process(const process_ref &s, std::int64_t timeout_ns)
{
	launcher &l = launcher_of(*s);
	std::unique_lock<std::mutex> lock(l.m);
	const deadline until(timeout_ns);

	while (!s->is_over && !until.is_over())
		until.sleep(l.ended, lock);
	return s->is_over;
}

bool is_over(const process_ref &s)
{
	const std::lock_guard<std::mutex> l(launcher_of(*s).m);

	return s->is_over;
}

} // namespace ch::detail

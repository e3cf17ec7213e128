// SPDX-License-Identifier: Apache-2.0
// spawner.cpp - the spawner process: forks on request, reaps, reports. See spawn.cpp for who watches whom.
//
// One thread, one poll loop, no timer: idle it uses no CPU. A report that the creator does not fetch waits in a list
// here, never in a blocked send, so that a creator that starts many and looks at none is served all the same.
#include "spawner.h"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <poll.h>
#include <stdio_ext.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "peer.h"
#include "segment.h"

namespace ch::core::spawner {
namespace {

// A growing array of plain structs, without exceptions.
template <class T> struct list {
	T *at = nullptr;
	size_t nr = 0, cap = 0;

	bool reserve(size_t n)
	{
		if (n <= cap)
			return true;
		T *p = static_cast<T *>(realloc(static_cast<void *>(at), (2 * n + 64) * sizeof(T)));
		if (!p)
			return false;
		at = p;
		cap = 2 * n + 64;
		return true;
	}
	void push(const T &v) { at[nr++] = v; }
	void drop_first(size_t n)
	{
		for (size_t i = n; i < nr; i++)
			at[i - n] = at[i];
		nr -= n;
	}
};

struct child {
	pid_t pid;
	uint64_t peer, cookie;
};

struct alignas(64) packet {
	request rq;
	alignas(64) unsigned char arg[arg_max];
};

struct server {
	ends e;
	pid_t pid;
	list<child> children;
	list<ch_exit> reports; // not yet sent
};

// In static memory: it lives as long as the process, and every child has its own copy.
packet the_packet;
server sv;

void reset_signals()
{
	struct sigaction dfl {};

	dfl.sa_handler = SIG_DFL;
	for (int sig = 1; sig < NSIG; sig++)
		sigaction(sig, &dfl, nullptr);
}

[[noreturn]] void be_child(const request &rq)
{
	sigset_t none;

	// The spawner may have died between the fork and the prctl: then the signal will never come.
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != sv.pid)
		_exit(127);
	close(sv.e.ctl);
	close(sv.e.exits);
	close(sv.e.creator);
	close(sv.e.sigfd);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, nullptr);
	const int status = rq.fn(the_packet.arg, rq.len);
	fflush(stdout);
	fflush(stderr);
	_exit(status);
}

reply start_child(const request &rq)
{
	// Room in both lists first: a child that runs must be known, and there must be room to report its end.
	if (!sv.children.reserve(sv.children.nr + 1) || !sv.reports.reserve(sv.reports.nr + sv.children.nr + 1))
		return {0, ENOMEM};
	const pid_t pid = fork();
	if (pid == 0)
		be_child(rq);
	if (pid < 0)
		return {0, errno};
	// Not reaped yet, so the name cannot be anybody else's. One that cannot be read is the pid alone, as in peer_self().
	const uint64_t known = ch::core::peer_id_of(pid), id = known ? known : static_cast<uint64_t>(pid);
	sv.children.push({pid, id, rq.cookie});
	return {id, 0};
}

// False when the creator asked for the end.
bool serve_request()
{
	iovec iov[2] = {{&the_packet.rq, sizeof(the_packet.rq)}, {the_packet.arg, sizeof(the_packet.arg)}};
	msghdr m{};

	m.msg_iov = iov;
	m.msg_iovlen = 2;
	const ssize_t n = recvmsg(sv.e.ctl, &m, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0) { // the creator is ending; its pidfd says when it has ended
		close(sv.e.ctl);
		sv.e.ctl = -1;
		return true;
	}
	if (n < static_cast<ssize_t>(sizeof(request)) || !the_packet.rq.fn)
		return false;
	const reply rp = start_child(the_packet.rq);
	(void)!send(sv.e.ctl, &rp, sizeof(rp), MSG_NOSIGNAL);
	return true;
}

void report(pid_t pid, int status)
{
	for (size_t i = 0; i < sv.children.nr; i++) {
		child &c = sv.children.at[i];

		if (c.pid != pid)
			continue;
		ch::core::segment_reclaim_of(c.peer); // what it made and could not destroy any more
		sv.reports.push({{c.peer}, c.cookie, status});
		c = sv.children.at[--sv.children.nr];
		return;
	}
	// Not one of ours: a child's child that was orphaned and came here (PR_SET_CHILD_SUBREAPER). Nothing to say.
}

void reap()
{
	signalfd_siginfo si;
	int status;
	pid_t pid;

	while (read(sv.e.sigfd, &si, sizeof(si)) > 0)
		;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		report(pid, status);
}

void send_reports()
{
	size_t n = 0;

	while (n < sv.reports.nr &&
	       send(sv.e.exits, &sv.reports.at[n], sizeof(ch_exit), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		n++;
	sv.reports.drop_first(n);
}

[[noreturn]] void end()
{
	const bool is_orphan = !ch::core::peer_is_alive(sv.e.creator_id);

	for (size_t i = 0; i < sv.children.nr; i++)
		kill(sv.children.at[i].pid, SIGKILL);
	for (size_t i = 0; i < sv.children.nr; i++)
		while (waitpid(sv.children.at[i].pid, nullptr, 0) < 0 && errno == EINTR)
			;
	for (size_t i = 0; i < sv.children.nr; i++)
		ch::core::segment_reclaim_of(sv.children.at[i].peer);
	if (is_orphan)
		ch::core::segment_reclaim_of(sv.e.creator_id);
	_exit(0);
}

void settle(ends e)
{
	sv.e = e;
	sv.pid = getpid();
	reset_signals();
	setsid(); // a signal to the creator's process group is not for us: we are to see its end, and clean up
	__fpurge(stdout);
	__fpurge(stderr);
	prctl(PR_SET_NAME, "ch-spawner");
	// So that what a dead child leaves running is reaped here, and a nested spawner shows below this one.
	prctl(PR_SET_CHILD_SUBREAPER, 1);
}

} // namespace

void serve(ends e)
{
	settle(e);
	for (;;) {
		const short out = sv.reports.nr ? POLLOUT : 0;
		pollfd fds[4] = {{sv.e.creator, POLLIN, 0}, {sv.e.ctl, POLLIN, 0}, {sv.e.sigfd, POLLIN, 0},
				 {sv.reports.nr ? sv.e.exits : -1, out, 0}};

		if (poll(fds, 4, -1) < 0 && errno != EINTR)
			end();
		if (fds[0].revents)
			end();
		if (fds[2].revents)
			reap();
		if (fds[1].revents && !serve_request())
			end();
		send_reports();
	}
}

} // namespace ch::core::spawner

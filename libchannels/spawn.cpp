// SPDX-License-Identifier: Apache-2.0
// spawn.cpp - the spawner: a small process that forks children on request and reports how they end.
//
// Three processes take part when one is made:
//
//   creator --fork--> go-between --fork--> spawner --fork--> child, child, ...
//
// The go-between ends at once, so that the spawner is nobody's child: the application's wait() never sees it and no
// SIGCHLD comes from it later. What each side knows of the others:
//
//   who          watches       how                     and then
//   spawner      creator       pidfd opened before     kills its children, ends. Not PR_SET_PDEATHSIG: that fires
//                              the fork                when the creating THREAD ends
//   creator      spawner       pidfd from go-between   every call answers -EPIPE
//   child        spawner       PR_SET_PDEATHSIG        is killed; the spawner has one thread, so here it is right
//   spawner      child         signalfd, waitpid       reports {peer, cookie, status}
//
// No end of file is relied on for a death: any process forked meanwhile by another thread may hold a copy of
// either socket.
//
// Standard output and standard error are flushed before the fork if no other thread is using them, and emptied
// in the spawner in any case, so that nothing is written twice. Other streams are left alone: fflush(NULL) waits
// for the lock of every stream, and a thread that sits in getchar() would never give it. A child flushes
// these two when fn returns, and ends with _exit: atexit handlers and static destructors belong to the creator.
#include <channels/spawn.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <mutex>
#include <new>
#include <poll.h>
#include <stdio_ext.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

#include "error.h"
#include "spawner.h"

struct ch_spawner {
	pid_t creator;     // whose handle this is
	pid_t pid;         // of the spawner
	int ctl;           // requests out, replies in
	int exits;         // exit reports in
	int alive;         // pidfd of the spawner; readable when it is gone
	int cancel;        // eventfd; readable for ever once cancelled
	std::mutex asking; // one request at a time
};

namespace {

using namespace ch::core::spawner;
using ch::core::fail;

void close_fd(int &fd)
{
	if (fd >= 0)
		close(fd);
	fd = -1;
}

int pidfd_of(pid_t pid)
{
	return static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
}

// Writes out what stdout and stderr hold, unless another thread is at it.
void flush_own(FILE *f)
{
	if (ftrylockfile(f) != 0)
		return;
	fflush_unlocked(f);
	funlockfile(f);
}

// What creation opens; what is left in here is closed on the way out.
struct plumbing {
	int self = -1;                     // pidfd of the creator
	uint64_t creator_id = 0;
	int ctl[2] = {-1, -1};             // [0] the creator's end, [1] the spawner's
	int exits[2] = {-1, -1};
	int cancel = -1;
	int sigfd = -1;                    // tells whoever reads it of its own children: the spawner

	plumbing() = default;
	plumbing(const plumbing &) = delete;
	plumbing &operator=(const plumbing &) = delete;
	~plumbing()
	{
		close_fd(self);
		for (int i = 0; i < 2; i++) {
			close_fd(ctl[i]);
			close_fd(exits[i]);
		}
		close_fd(cancel);
		close_fd(sigfd);
	}
	bool open()
	{
		const int type = SOCK_SEQPACKET | SOCK_CLOEXEC;
		sigset_t chld;

		sigemptyset(&chld);
		sigaddset(&chld, SIGCHLD);
		sigfd = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
		if (sigfd < 0)
			return false;
		self = pidfd_of(getpid());
		creator_id = ch_peer_self().id;
		cancel = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		return self >= 0 && cancel >= 0 && socketpair(AF_UNIX, type, 0, ctl) == 0 &&
		       socketpair(AF_UNIX, type, 0, exits) == 0;
	}
};

// The first message on the control socket, from the go-between: the spawner's pid, or why there is none; and its
// pidfd, which only its parent can open without a race against a reused pid.
struct birth {
	pid_t pid;
	int err;
};

union fd_carrier {
	cmsghdr align;
	char buf[CMSG_SPACE(sizeof(int))];
};

void send_birth(int sock, birth b, int pidfd)
{
	fd_carrier carrier{};
	iovec iov{&b, sizeof(b)};
	msghdr m{};

	m.msg_iov = &iov;
	m.msg_iovlen = 1;
	if (pidfd >= 0) {
		m.msg_control = carrier.buf;
		m.msg_controllen = sizeof(carrier.buf);
		cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &pidfd, sizeof(int));
	}
	(void)!sendmsg(sock, &m, MSG_NOSIGNAL);
}

// Returns 0 or a positive errno value. The go-between is gone when this is called: what it said is here.
int recv_birth(int sock, birth *out, int *out_pidfd)
{
	fd_carrier carrier{};
	iovec iov{out, sizeof(*out)};
	msghdr m{};

	m.msg_iov = &iov;
	m.msg_iovlen = 1;
	m.msg_control = carrier.buf;
	m.msg_controllen = sizeof(carrier.buf);
	if (recvmsg(sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != static_cast<ssize_t>(sizeof(*out)))
		return EAGAIN;
	const cmsghdr *c = CMSG_FIRSTHDR(&m);
	if (out->err || !c)
		return out->err ? out->err : EMFILE;
	memcpy(out_pidfd, CMSG_DATA(c), sizeof(int));
	return 0;
}

[[noreturn]] void go_between(plumbing &p)
{
	const pid_t pid = fork();

	if (pid == 0) {
		close_fd(p.ctl[0]);
		close_fd(p.exits[0]);
		close_fd(p.cancel);
		serve(ends{p.ctl[1], p.exits[1], p.self, p.sigfd, p.creator_id});
	}
	const int pidfd = pid < 0 ? -1 : pidfd_of(pid);
	const int err = pidfd < 0 ? errno : 0;
	if (pid > 0 && pidfd < 0) { // nobody would have a hold on it
		kill(pid, SIGKILL);
		waitpid(pid, nullptr, 0);
	}
	send_birth(p.ctl[1], birth{pid, err}, pidfd);
	_exit(0);
}

// Forks with every signal blocked, so that no handler of the application runs in the new process.
pid_t fork_quietly(plumbing &p)
{
	sigset_t all, old;

	flush_own(stdout);
	flush_own(stderr);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	const pid_t pid = fork();
	const int err = errno;
	if (pid == 0)
		go_between(p);
	pthread_sigmask(SIG_SETMASK, &old, nullptr);
	errno = err;
	return pid;
}

// Returns 0 or a positive errno value.
int start(plumbing &p, birth *out, int *out_pidfd)
{
	const pid_t pid = fork_quietly(p);

	if (pid < 0)
		return errno;
	// -1 with ECHILD is fine: another thread's wait() took it, or SIGCHLD is ignored; it is gone either way.
	while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR)
		;
	return recv_birth(p.ctl[0], out, out_pidfd);
}

int64_t now_ns()
{
	timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return static_cast<int64_t>(ts.tv_sec) * 1000000000 + ts.tv_nsec;
}

// One absolute deadline per call.
struct deadline {
	int64_t at; // negative: never

	static deadline in(int64_t timeout_ns) { return {timeout_ns < 0 ? -1 : now_ns() + timeout_ns}; }
	// Null for "never".
	const timespec *left(timespec *ts) const
	{
		if (at < 0)
			return nullptr;
		const int64_t ns = at - now_ns() > 0 ? at - now_ns() : 0;
		ts->tv_sec = ns / 1000000000;
		ts->tv_nsec = ns % 1000000000;
		return ts;
	}
};

int check(const ch_spawner *sp)
{
	if (!sp)
		return fail(-EINVAL, "ch_spawner: handle is NULL");
	if (sp->creator != getpid())
		return fail(-EPERM, "ch_spawner: made by process %d, this is %d: create one here", sp->creator, getpid());
	return 0;
}

// Waits for the answer to one request. The spawner may die first.
int await_reply(ch_spawner *sp, reply *out)
{
	pollfd fds[2] = {{sp->ctl, POLLIN, 0}, {sp->alive, POLLIN, 0}};

	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return fail(-errno, "ch_spawner_spawn: poll: %s", strerror(errno));
		if (recv(sp->ctl, out, sizeof(*out), MSG_DONTWAIT) == static_cast<ssize_t>(sizeof(*out)))
			return 0;
		if (fds[1].revents)
			return fail(-EPIPE, "ch_spawner_spawn: spawner %d is gone", sp->pid);
	}
}

int ask(ch_spawner *sp, const request &rq, const void *arg)
{
	iovec iov[2] = {{const_cast<request *>(&rq), sizeof(rq)}, {const_cast<void *>(arg), rq.len}};
	msghdr m{};
	ssize_t n;

	m.msg_iov = iov;
	m.msg_iovlen = 2;
	do
		n = sendmsg(sp->ctl, &m, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return fail(errno == ECONNRESET ? -EPIPE : -errno, "ch_spawner_spawn: spawner %d: %s", sp->pid,
			    strerror(errno));
	return 0;
}

int check_call(const ch_spawner *sp, ch_spawn_fn fn, const void *arg, size_t len, const void *out)
{
	if (const int rc = check(sp))
		return rc;
	if (!fn || !out || (!arg && len))
		return fail(-EINVAL, "ch_spawner_spawn: a NULL argument");
	if (len > arg_max)
		return fail(-EMSGSIZE, "ch_spawner_spawn: %zu bytes of argument, at most %zu", len, arg_max);
	return 0;
}

// What the reply says, or why there is none.
int hear(ch_spawner *sp, ch_peer *out)
{
	reply rp;

	if (const int rc = await_reply(sp, &rp))
		return rc;
	if (rp.err)
		return fail(-rp.err, "ch_spawner_spawn: fork in spawner %d: %s", sp->pid, strerror(rp.err));
	out->id = rp.peer;
	return 0;
}

} // namespace

CH_API int ch_spawner_create(struct ch_spawner **out_sp)
{
	plumbing p;
	birth b{};
	int pidfd = -1;

	if (!out_sp)
		return fail(-EINVAL, "ch_spawner_create: out_sp is NULL");
	if (!p.open())
		return fail(-errno, "ch_spawner_create: %s", strerror(errno));
	ch_spawner *sp = new (std::nothrow) ch_spawner();
	if (!sp)
		return fail(-ENOMEM, "ch_spawner_create: no memory");
	if (const int err = start(p, &b, &pidfd)) {
		delete sp;
		return fail(-err, "ch_spawner_create: cannot start the spawner: %s", strerror(err));
	}
	sp->creator = getpid();
	sp->pid = b.pid;
	sp->alive = pidfd;
	std::swap(sp->ctl = -1, p.ctl[0]);
	std::swap(sp->exits = -1, p.exits[0]);
	std::swap(sp->cancel = -1, p.cancel);
	*out_sp = sp;
	return 0;
}

CH_API int ch_spawner_spawn(struct ch_spawner *sp, ch_spawn_fn fn, const void *arg, size_t len, uint64_t cookie,
			    struct ch_peer *out_peer)
{
	if (const int rc = check_call(sp, fn, arg, len, out_peer))
		return rc;
	const std::lock_guard<std::mutex> lock(sp->asking);
	if (const int rc = ask(sp, request{fn, cookie, len}, arg))
		return rc;
	return hear(sp, out_peer);
}

CH_API int ch_spawner_spawn_many(struct ch_spawner *sp, ch_spawn_fn fn, const void *args, size_t len,
				 uint64_t first_cookie, size_t nr, struct ch_peer *out_peers)
{
	constexpr size_t ahead = 8; // requests: the spawner does not wait for us between two
	size_t asked = 0, heard = 0;
	int rc = check_call(sp, fn, args, len, out_peers), rc_ask = 0;

	if (rc)
		return rc;
	const std::lock_guard<std::mutex> lock(sp->asking);
	for (;;) {
		for (; asked < nr && asked < heard + ahead && !rc && !rc_ask; asked++)
			if ((rc_ask = ask(sp, request{fn, first_cookie + asked, len},
					  static_cast<const char *>(args) + asked * len)) != 0)
				break;
		if (heard == asked)
			break;
		// Every answer is fetched, also after one that failed: the next call's comes behind them.
		out_peers[heard].id = 0;
		const int rc_one = hear(sp, &out_peers[heard]);
		if (rc_one == -EPIPE)
			return rc_one;
		rc = rc ? rc : rc_one;
		heard++;
	}
	for (size_t i = heard; i < nr; i++)
		out_peers[i].id = 0;
	return rc ? rc : rc_ask;
}

CH_API int ch_spawner_wait(struct ch_spawner *sp, int64_t timeout_ns, struct ch_exit *out_exit)
{
	const deadline dl = deadline::in(timeout_ns);
	timespec ts;

	if (const int rc = check(sp))
		return rc;
	if (!out_exit)
		return fail(-EINVAL, "ch_spawner_wait: out_exit is NULL");
	for (;;) {
		pollfd fds[3] = {{sp->cancel, POLLIN, 0}, {sp->exits, POLLIN, 0}, {sp->alive, POLLIN, 0}};
		const int n = ppoll(fds, 3, dl.left(&ts), nullptr);

		if (n < 0 && errno != EINTR)
			return fail(-errno, "ch_spawner_wait: poll: %s", strerror(errno));
		if (n == 0)
			return timeout_ns == CH_TRY ? -EAGAIN : -ETIMEDOUT;
		if (n > 0 && fds[0].revents)
			return fail(-ECANCELED, "ch_spawner_wait: cancelled");
		ch_exit e;
		if (recv(sp->exits, &e, sizeof(e), MSG_DONTWAIT) == static_cast<ssize_t>(sizeof(e))) {
			*out_exit = e;
			return 0;
		}
		if (n > 0 && fds[2].revents)
			return fail(-EPIPE, "ch_spawner_wait: spawner %d is gone, and its children with it", sp->pid);
	}
}

CH_API void ch_spawner_cancel(struct ch_spawner *sp)
{
	const uint64_t one = 1;

	if (sp)
		(void)!write(sp->cancel, &one, sizeof(one));
}

CH_API void ch_spawner_destroy(struct ch_spawner *sp)
{
	if (!sp)
		return;
	if (sp->creator == getpid()) {
		const ch::core::spawner::request goodbye{};
		pollfd fd = {sp->alive, POLLIN, 0};

		(void)!send(sp->ctl, &goodbye, sizeof(goodbye), MSG_NOSIGNAL); // fails if it is gone already
		while (poll(&fd, 1, -1) < 0 && errno == EINTR)
			;
		// Only if orphans come to this process (it is pid 1, or a subreaper) is there anything to collect.
		(void)waitpid(sp->pid, nullptr, WNOHANG);
	}
	close_fd(sp->ctl);
	close_fd(sp->exits);
	close_fd(sp->alive);
	close_fd(sp->cancel);
	delete sp;
}

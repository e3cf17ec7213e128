// SPDX-License-Identifier: Apache-2.0
// peer.cpp - process names and liveness out of /proc.
#include "config.h"
#include "peer.h"
#include <cerrno>
#include <channels/base.h>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace ch::core {

struct proc_stat {
	char state;
	unsigned long flags; // PF_... of the kernel's linux/sched.h
	long nr_threads;
	u64 start;
};

// Where the n-th field after this one begins, as proc(5) counts them. By hand: sscanf costs as much as the kernel's part.
static const char *after_fields(const char *p, int n) noexcept
{
	for (; p && n > 0; n--)
		if ((p = std::strchr(p, ' ')))
			p++;
	return p;
}

// Reads /proc/<pid>/stat or a thread's. Returns 0, or a negative errno value.
static int read_stat(const char *path, proc_stat &out) noexcept
{
	char buf[1024];
	const int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	const ssize_t n = read(fd, buf, sizeof(buf) - 1);
	const int err = errno;
	close(fd);
	if (n <= 0)
		return n < 0 ? -err : -ESRCH;
	buf[n] = '\0';
	const char *p = std::strrchr(buf, ')'); // the name, field 2, may hold anything

	if (!(p = after_fields(p, 1)))
		return -EPROTO;
	out.state = *p;
	if (!(p = after_fields(p, 6)))
		return -EPROTO;
	out.flags = std::strtoul(p, nullptr, 10);
	if (!(p = after_fields(p, 11)))
		return -EPROTO;
	out.nr_threads = std::strtol(p, nullptr, 10);
	if (!(p = after_fields(p, 2)))
		return -EPROTO;
	out.start = std::strtoull(p, nullptr, 10);
	return 0;
}

static int read_stat(pid_t pid, proc_stat &out) noexcept
{
	char path[32];

	std::snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	return read_stat(path, out);
}

u64 peer_id_of(pid_t pid) noexcept
{
	proc_stat st;

	return read_stat(pid, st) == 0 ? st.start << PID_BITS | static_cast<u64>(pid) : 0;
}

// The pid is checked each time: a child made by a raw clone(2) runs no fork handler.
u64 peer_self() noexcept
{
	static std::atomic<u64> self;
	const pid_t pid = getpid();
	u64 id = self.load(relaxed); // nobody looks: the value is the same whoever computes it

	if (peer_pid(id) != pid) {
		id = peer_id_of(pid);
		if (id == 0)
			id = static_cast<u64>(pid); // no /proc: the pid alone
		self.store(id, relaxed);
	}
	return id;
}

bool peer_is_alive(u64 id) noexcept
{
	const int saved = errno;
	proc_stat st;
	int rc = read_stat(peer_pid(id), st);

	if (rc == 0) {
		const bool same = st.start == id >> PID_BITS || id >> PID_BITS == 0;
		const bool gone = (st.state == 'Z' || st.state == 'X') && st.nr_threads <= 1;
		errno = saved;
		return same && !gone;
	}
	// No /proc, or it hides other users' processes: then only the kernel's word that the pid is free is proof.
	rc = kill(peer_pid(id), 0) == 0 || errno != ESRCH;
	errno = saved;
	return rc;
}

bool peer_is_dying(u64 id) noexcept
{
	constexpr unsigned long pf_exiting = 4;
	const int saved = errno;
	proc_stat st;
	const bool is_known = read_stat(peer_pid(id), st) == 0;

	errno = saved;
	return is_known ? st.flags & pf_exiting : !peer_is_alive(id);
}

__thread thread_notes own_notes;

u32 thread_ask_tid() noexcept
{
	return own_notes.tid = static_cast<u32>(syscall(SYS_gettid));
}

void thread_forget() noexcept
{
	own_notes = {};
}

bool thread_is_alive(u64 id, u32 tid) noexcept
{
	const int saved = errno;
	char path[48];
	proc_stat st;

	std::snprintf(path, sizeof(path), "/proc/%d/task/%u/stat", peer_pid(id), tid);
	const int rc = read_stat(path, st);
	const bool is_gone = rc == 0 ? st.state == 'Z' || st.state == 'X' :
				       (rc == -ENOENT || rc == -ESRCH) && syscall(SYS_tgkill, peer_pid(id), tid, 0) < 0 &&
						errno == ESRCH;
	errno = saved;
	return !is_gone;
}

u64 peer_pid_namespace() noexcept
{
	struct stat st;

	return stat("/proc/self/ns/pid", &st) == 0 ? st.st_ino : 0;
}

} // namespace ch::core

struct ch_peer ch_peer_self(void)
{
	return {ch::core::peer_self()};
}

pid_t ch_peer_pid(struct ch_peer peer)
{
	return ch::core::peer_pid(peer.id);
}

int ch_peer_is_alive(struct ch_peer peer)
{
	return peer.id != 0 && ch::core::peer_is_alive(peer.id);
}

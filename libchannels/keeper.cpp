// SPDX-License-Identifier: Apache-2.0
// keeper.cpp - the thread that watches a neighbour. See keeper.h.
#include "config.h"
#include "keeper.h"
#include "peer.h"
#include "segment.h"
#include "sweep.h"
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

namespace ch::core {

static int sock = -1;
static std::atomic<bool> runs, has_begun;
static constexpr int UNWATCHED_MS = 1000; // where a newcomer could not tell its predecessor
static constexpr int RETRY_MS = 10;       // no pidfd could be had

static socklen_t address_of(u64 id, sockaddr_un *a) noexcept
{
	std::memset(a, 0, sizeof(*a));
	a->sun_family = AF_UNIX; // sun_path[0] stays 0: abstract, gone with the process
	// A peer's name means one process in one pid namespace; socket names are common to all that share a network.
	const int n = std::snprintf(a->sun_path + 1, sizeof(a->sun_path) - 1, "ch-keeper-%016llx-%llx",
				    static_cast<unsigned long long>(id),
				    static_cast<unsigned long long>(peer_pid_namespace()));
	return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + static_cast<size_t>(n));
}

static bool poke(u64 id) noexcept
{
	sockaddr_un a;
	const socklen_t len = address_of(id, &a);

	// A full queue is as good: it will look.
	return sock >= 0 && (sendto(sock, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL, reinterpret_cast<sockaddr *>(&a), len) == 1 ||
			     errno == EAGAIN || errno == ENOBUFS);
}

void keeper_poke() noexcept
{
	if (runs.load(relaxed)) // set under the registry lock, which is held
		poke(peer_self());
}

bool deaths_are_told(const ch_segment *seg) noexcept
{
	return runs.load(relaxed) && !seg->hdr->unwatched.load(relaxed); // a matter of how long to sleep
}

void keeper_forget() noexcept
{
	if (sock >= 0)
		close(sock);
	sock = -1;
	runs.store(false, relaxed); // one thread: nobody looks
	has_begun.store(false, relaxed);
}

// A keeper that may sleep for ever cannot be told: it has no socket, we have none, or its network is another. From now on
// whoever waits looks for the dead itself; those who sleep already are woken to hear of it.
static void break_ring(ch_segment *seg) noexcept
{
	const u32 me = seg->me.load(relaxed); // under the lock

	seg->hdr->unwatched.store(1, relaxed); // published by the wake-ups
	if (me != NOBODY) // who leaves has said so when it came
		sweep_wake_all(seg, me);
}

// The slot before this one tells us apart from the one who must hear of us.
void keeper_announce(ch_segment *seg, u32 slot) noexcept
{
	keeper_poke();
	for (u32 i = slot, n = 0; (i = peer_before(seg, i)) != slot && n < seg->max_peers; n++) {
		const u64 id = seg->peers[i].id.load(acquire); // [P2] pairs with [P1] in segment.cpp
		if (id == 0 || id == peer_self())
			continue;
		if (poke(id))
			return;
		if (peer_is_alive(id)) {
			if (!peer_is_dying(id)) // if it is, who watches it finds us behind it
				break_ring(seg);
			return;
		}
		sweep_peer(seg, i);
	}
}

// The next peer after us: sweeps it if it is dead and goes on to the next. -1: nobody to watch.
static int pidfd_of_neighbour(ch_segment *seg, int *timeout_ms) noexcept
{
	const u32 me = seg->me.load(relaxed); // under the lock

	for (u32 i = me, n = 0; me != NOBODY && (i = peer_after(seg, i)) != me && n < seg->max_peers; n++) {
		const u64 id = seg->peers[i].id.load(acquire); // [P2] pairs with [P1] in segment.cpp
		if (id == 0 || id == peer_self())
			continue;
		const int fd = static_cast<int>(syscall(SYS_pidfd_open, peer_pid(id), 0));
		if (peer_is_alive(id)) { // asked after the open: the pidfd is of this process and no later one
			if (fd < 0)
				*timeout_ms = RETRY_MS;
			return fd;
		}
		if (fd >= 0)
			close(fd);
		sweep_peer(seg, i);
	}
	return -1;
}

static pollfd *fds;
static size_t nr_fds, room;

static void watch(int fd) noexcept
{
	if (nr_fds == room) {
		void *p = std::realloc(fds, (room + 16) * sizeof(*fds));
		if (!p)
			return;
		fds = static_cast<pollfd *>(p);
		room += 16;
	}
	fds[nr_fds++] = {fd, POLLIN, 0};
}

static int look_around() noexcept
{
	int timeout_ms = -1;
	registry_lock lock;

	nr_fds = 0;
	watch(sock);
	for (ch_segment *s = registry_first(); s; s = s->next) {
		if (s->watch_fd >= 0)
			close(s->watch_fd);
		s->watch_fd = pidfd_of_neighbour(s, &timeout_ms);
		if (s->watch_fd >= 0)
			watch(s->watch_fd);
		if (!s->is_read_only && s->hdr->unwatched.load(relaxed) && timeout_ms < 0) // hint
			timeout_ms = UNWATCHED_MS;
	}
	return timeout_ms;
}

static void *keeper_main(void *) noexcept
{
	char junk[64];

	has_begun.store(true, relaxed); // orders nothing: see keeper_start
	for (;;) {
		const int timeout_ms = look_around();

		poll(fds, nr_fds, timeout_ms);
		while (recv(sock, junk, sizeof(junk), MSG_DONTWAIT) > 0)
			;
	}
	return nullptr;
}

static int open_socket() noexcept
{
	sockaddr_un a;
	const socklen_t len = address_of(peer_self(), &a);
	const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd >= 0 && bind(fd, reinterpret_cast<sockaddr *>(&a), len) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

void keeper_start() noexcept
{
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all, old;

	if (runs.load(relaxed)) // under the lock
		return;
	sock = open_socket();
	if (sock < 0)
		return;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 128 << 10);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	const int rc = pthread_create(&thread, &attr, keeper_main, nullptr);
	pthread_sigmask(SIG_SETMASK, &old, nullptr);
	pthread_attr_destroy(&attr);
	runs.store(rc == 0, relaxed); // under the lock
	// A fork must not meet the thread while libc and sanitizers set it up, in locks that the child would find taken.
	while (rc == 0 && !has_begun.load(relaxed))
		sched_yield();
	if (rc != 0) {
		close(sock);
		sock = -1;
	}
}

} // namespace ch::core

// SPDX-License-Identifier: Apache-2.0
// pollfd.cpp - a poll set as a file descriptor: an eventfd, and a thread that makes it readable.
//
// Senders can be in any process and know nothing of our descriptors, so somebody of ours has to sleep on the set's
// event. The thread makes the descriptor readable when there is something in the queue, and then sleeps until a wait has
// found nothing and has made it unreadable again: all members are armed by then.
#include "config.h"
#include "pollset.h"
#include <cerrno>
#include <csignal>
#include <linux/futex.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace ch::core {

static void set_readable(ch_pollset *s) noexcept
{
	const u64 one = 1;

	s->is_readable.store(1, relaxed); // under the lock
	while (write(s->fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void wake_keeper(ch_pollset *s) noexcept
{
	s->is_readable.store(0, relaxed); // the futex call orders it
	syscall(SYS_futex, &s->is_readable, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

void pollset_fd_drained(ch_pollset *s) noexcept
{
	u64 n;

	if (s->fd < 0 || s->is_readable.load(relaxed) == 0) // under the lock
		return;
	while (read(s->fd, &n, sizeof(n)) < 0 && errno == EINTR)
		;
	wake_keeper(s);
}

// One round. False: the set ends.
static bool keep(ch_pollset *s) noexcept
{
	sleeper z;

	pollset_lie_down(s, z);
	{
		set_lock lock(s);
		const bool is_ending = s->is_ending.load(seq_cst); // as in collect()
		const bool is_any = !is_ending && pollset_take(s);
		if (is_any)
			set_readable(s);
		if (is_any || is_ending || !pollset_is_whole(s, z)) {
			s->nr_asleep--;
			return !is_ending;
		}
	}
	pollset_sleep(s, z, NEVER);
	set_lock lock(s);
	s->nr_asleep--;
	if (s->nr_asleep > 0)
		pollset_nudge(s, 1); // the wake-up may have been meant for a thread that waits
	return true;
}

static void *keeper_main(void *arg) noexcept
{
	ch_pollset *s = static_cast<ch_pollset *>(arg);

	s->has_begun.store(true, relaxed); // orders nothing: see start()
	while (keep(s))
		while (s->is_readable.load(relaxed) && !s->is_ending.load(relaxed)) // the futex call orders them
			syscall(SYS_futex, &s->is_readable, FUTEX_WAIT_PRIVATE, 1, nullptr, nullptr, 0);
	return nullptr;
}

static int start(ch_pollset *s) noexcept
{
	pthread_attr_t attr;
	sigset_t all, old;

	s->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->fd < 0)
		return fail(-ENOMEM, "poll set: no eventfd: too many open files");
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 128 << 10);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	const int rc = pthread_create(&s->keeper, &attr, keeper_main, s);
	pthread_sigmask(SIG_SETMASK, &old, nullptr);
	pthread_attr_destroy(&attr);
	if (rc != 0) {
		close(s->fd);
		s->fd = -1;
		return fail(-ENOMEM, "poll set: no thread for its descriptor");
	}
	// A fork must not meet the thread while libc and sanitizers set it up, in locks that the child would find taken.
	while (!s->has_begun.load(relaxed))
		sched_yield();
	return s->fd;
}

void pollset_fd_end(ch_pollset *s) noexcept
{
	if (s->fd < 0)
		return;
	{
		set_lock lock(s); // the keeper makes nothing readable from now on
		wake_keeper(s);
	}
	pollset_nudge(s, EVERYBODY);
	pthread_join(s->keeper, nullptr);
}

} // namespace ch::core

using namespace ch::core;

int ch_pollset_fd(struct ch_pollset *s)
{
	if (!s)
		return fail(-EINVAL, "poll set: NULL");
	if (s->forks != registry_forks())
		return fail(-EPERM, "poll set: it is the parent's; a forked child makes its own");
	set_lock lock(s);
	return s->fd >= 0 ? s->fd : start(s);
}

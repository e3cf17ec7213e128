// SPDX-License-Identifier: Apache-2.0
// peer.cpp - signals by pidfd.
#include "peer.h"

#include <cerrno>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace ch::detail {

int pidfd_of(ch_peer peer) noexcept
{
	const int fd = static_cast<int>(syscall(SYS_pidfd_open, ch_peer_pid(peer), 0));

	if (fd < 0)
		return -errno;
	// Its pid was its own when the descriptor was made, if it is alive afterwards.
	if (ch_peer_is_alive(peer) > 0)
		return fd;
	close(fd);
	return -ESRCH;
}

void await_end(ch_peer peer) noexcept
{
	pollfd fd{pidfd_of(peer), POLLIN, 0};

	if (fd.fd < 0)
		return;
	while (poll(&fd, 1, -1) < 0 && errno == EINTR)
		;
	close(fd.fd);
}

int signal_peer(ch_peer peer, int sig) noexcept
{
	const int fd = pidfd_of(peer);

	if (fd < 0)
		return fd;
	const int rc = syscall(SYS_pidfd_send_signal, fd, sig, nullptr, 0) < 0 ? -errno : 0;
	close(fd);
	return rc;
}

} // namespace ch::detail

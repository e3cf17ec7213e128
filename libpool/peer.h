// SPDX-License-Identifier: Apache-2.0
// peer.h - signals to a process that cannot be mistaken for another one. Private.
#pragma once
#include <channels/base.h>

namespace ch::detail {

// 0, or a negative errno; -ESRCH: it is gone.
int signal_peer(ch_peer peer, int sig) noexcept;
// A file descriptor of it (close on exec), or a negative errno; -ESRCH: it is gone.
int pidfd_of(ch_peer peer) noexcept;
// Returns when it is gone.
void await_end(ch_peer peer) noexcept;

} // namespace ch::detail

// SPDX-License-Identifier: Apache-2.0
// sync_mutex.h - a mutex as the condition needs it (sync_mutex.cpp).
#pragma once
#include "sync.h"

namespace ch::core {

int mutex_attempt(ch_mutex *m, u64 mine) noexcept;                // 0, -EOWNERDEAD (locked), -EAGAIN, -EDEADLK, ...
int mutex_wait(ch_mutex *m, u64 mine, i64 timeout_ns) noexcept;   // the same, never -EAGAIN
void mutex_unlock(ch_mutex *m) noexcept;                          // by its holder, all the way

} // namespace ch::core

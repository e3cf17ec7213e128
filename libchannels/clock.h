// SPDX-License-Identifier: Apache-2.0
// clock.h - CLOCK_MONOTONIC nanoseconds, and the one deadline that a public call makes of its timeout.
#pragma once
#include "atomic.h"
#include <ctime>

namespace ch::core {

inline constexpr i64 NEVER = INT64_MAX;

inline i64 now_ns() noexcept
{
	timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return i64{t.tv_sec} * 1000000000 + t.tv_nsec;
}

// Absolute time at which a call with this timeout gives up.
inline i64 deadline_of(i64 timeout_ns) noexcept
{
	const i64 now = timeout_ns < 0 ? 0 : now_ns();

	return timeout_ns < 0 || timeout_ns > NEVER - now ? NEVER : now + timeout_ns;
}

} // namespace ch::core

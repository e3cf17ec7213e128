// SPDX-License-Identifier: Apache-2.0
// atomic.h - the atomic layer: every word that two processes share is a shared<T>, and every access names its order.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace ch::core {

using u8 = std::uint8_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i64 = std::int64_t;

#ifdef CH_EXPLORE // tests/explore sees every access and tries every order of them
template <class T> using shared = explore::word<T>;
#else
template <class T> using shared = std::atomic<T>;
#endif
static_assert(shared<u64>::is_always_lock_free && sizeof(shared<u64>) == 8, "shared words must be plain words");

inline constexpr auto relaxed = std::memory_order_relaxed;
inline constexpr auto acquire = std::memory_order_acquire;
inline constexpr auto release = std::memory_order_release;
inline constexpr auto acq_rel = std::memory_order_acq_rel;
inline constexpr auto seq_cst = std::memory_order_seq_cst;

inline constexpr std::size_t LINE = 64;

constexpr u64 round_up(u64 n, u64 to) noexcept { return (n + to - 1) / to * to; }

inline void cpu_relax() noexcept
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("isb");
#endif
}

} // namespace ch::core

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * word.h - what the real sources see instead of std::atomic, memcpy and the kernel when they are compiled for the
 * explorer (-DCH_EXPLORE -include word.h): every access to a shared word, every copy of plain bytes and every system
 * call is a step that the explorer orders and judges (memory.h, explorer.h).
 */
#pragma once
#include <atomic>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <sched.h>
#include <sys/syscall.h>
#include <type_traits>
#include <unistd.h>

namespace ch::explore {

using u8 = std::uint8_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using order = std::memory_order;

enum class verb : u8 { load, store, exchange, cas, add, sub, bit_and, bit_or, bit_xor };

// An access as its source line says it.
struct access {
	verb what;
	u8 size;
	order on_success, on_failure;
	const char *file;
	int line;
};

u64 load(const void *at, const access &a) noexcept;
void store(void *at, u64 value, const access &a) noexcept;
u64 change(void *at, u64 operand, const access &a) noexcept; // returns what was there
bool compare_exchange(void *at, u64 &expected, u64 desired, const access &a) noexcept;

#define CH_WHERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

template <class T> class word {
	static_assert(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
	T raw;

	static constexpr access of(verb v, order ok, order no, const char *file, int line)
	{
		return {v, sizeof(T), ok, no, file, line};
	}
	static constexpr order without_release(order o)
	{
		return o == order::acq_rel ? order::acquire : o == order::release ? order::relaxed : o;
	}
	T change(verb v, T operand, order o, const char *file, int line) noexcept
	{
		return static_cast<T>(explore::change(this, static_cast<u64>(operand), of(v, o, o, file, line)));
	}

public:
	static constexpr bool is_always_lock_free = true;

	word() noexcept = default;
	constexpr word(T v) noexcept : raw(v) {}
	word(const word &) = delete;
	word &operator=(const word &) = delete;

	T load(order o, CH_WHERE) const noexcept
	{
		return static_cast<T>(explore::load(this, of(verb::load, o, o, file, line)));
	}
	void store(T v, order o, CH_WHERE) noexcept
	{
		explore::store(this, static_cast<u64>(v), of(verb::store, o, o, file, line));
	}
	bool compare_exchange_strong(T &expected, T desired, order ok, order no, CH_WHERE) noexcept
	{
		u64 old = static_cast<u64>(expected);
		const bool done = compare_exchange(this, old, static_cast<u64>(desired), of(verb::cas, ok, no, file, line));

		expected = static_cast<T>(old);
		return done;
	}
	bool compare_exchange_strong(T &expected, T desired, order o, CH_WHERE) noexcept
	{
		return compare_exchange_strong(expected, desired, o, without_release(o), file, line);
	}
	bool compare_exchange_weak(T &expected, T desired, order ok, order no, CH_WHERE) noexcept
	{
		return compare_exchange_strong(expected, desired, ok, no, file, line);
	}
	bool compare_exchange_weak(T &expected, T desired, order o, CH_WHERE) noexcept
	{
		return compare_exchange_strong(expected, desired, o, file, line);
	}
	T exchange(T v, order o, CH_WHERE) noexcept { return change(verb::exchange, v, o, file, line); }
	T fetch_add(T v, order o, CH_WHERE) noexcept { return change(verb::add, v, o, file, line); }
	T fetch_sub(T v, order o, CH_WHERE) noexcept { return change(verb::sub, v, o, file, line); }
	T fetch_and(T v, order o, CH_WHERE) noexcept { return change(verb::bit_and, v, o, file, line); }
	T fetch_or(T v, order o, CH_WHERE) noexcept { return change(verb::bit_or, v, o, file, line); }
	T fetch_xor(T v, order o, CH_WHERE) noexcept { return change(verb::bit_xor, v, o, file, line); }
};

// Plain bytes: races are found by vector clocks, whatever the copy then brings.
void *copy(void *to, const void *from, std::size_t len, const char *file, int line) noexcept;
inline void *traced_memcpy(void *to, const void *from, std::size_t len, CH_WHERE) noexcept
{
	return copy(to, from, len, file, line);
}

void fill(void *to, int byte, std::size_t len, const char *file, int line) noexcept;
inline void *traced_memset(void *to, int byte, std::size_t len, CH_WHERE) noexcept
{
	fill(to, byte, len, file, line);
	return to;
}

// A fence between threads.
void traced_fence(order o) noexcept;

long kernel(long nr, const u64 (&arg)[6]) noexcept;

template <class T> u64 as_u64(T v) noexcept
{
	if constexpr (std::is_pointer_v<T>)
		return reinterpret_cast<u64>(v);
	else if constexpr (std::is_null_pointer_v<T>)
		return 0;
	else
		return static_cast<u64>(v);
}

template <class... A> long system_call(long nr, A... a) noexcept
{
	const u64 arg[6] = {as_u64(a)...};

	return kernel(nr, arg);
}

int clock(clockid_t which, timespec *out) noexcept;
int yield() noexcept;

} // namespace ch::explore

namespace std {
using ch::explore::traced_fence;
using ch::explore::traced_memcpy;
using ch::explore::traced_memset;
}
using ch::explore::traced_memcpy;
using ch::explore::traced_memset;

#define atomic_thread_fence traced_fence
#define memcpy traced_memcpy
#define memset traced_memset
#define syscall ::ch::explore::system_call
#define clock_gettime ::ch::explore::clock
#define sched_yield ::ch::explore::yield

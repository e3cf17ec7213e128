// SPDX-License-Identifier: Apache-2.0
// pool.h - what the channel and the sweeper need of a pool beyond its public interface.
#pragma once
#include "cache.h"
#include "segment.h"

namespace ch::core {

int pool_attach(const descr &d, ch_pool **out, u32 flags = 0) noexcept; // under the registry lock; adds a reference
void pool_unref(ch_pool *pool) noexcept;                 // under the registry lock
int pool_default(ch_pool **out) noexcept;                // under the registry lock; adds a reference

// The owner index of this process, made at the first use in a forked child. Or a negative errno value.
int pool_me_slow(ch_pool *pool) noexcept;
inline int pool_me(ch_pool *pool) noexcept
{
	const u32 me = pool->seg->me.load(relaxed); // set before this handle was given out, or by the call

	return me != NOBODY ? static_cast<int>(me) : pool_me_slow(pool);
}
int pool_check(ch_pool *pool) noexcept; // 0, -EINVAL, -ESTALE

// 0, or -ENOSPC, -ETIMEDOUT, -EMSGSIZE, -ESTALE. until_ns is absolute; with is_try it is not looked at.
int pool_alloc(ch_pool *pool, u64 len, bool is_try, i64 until_ns, block_place &out) noexcept;
int pool_own_block(ch_pool *pool, const void *addr, block_place &out) noexcept; // owner index, -EINVAL, -EPERM, -ESTALE
void pool_free(ch_pool *pool, const block_place &b) noexcept; // owned by this process

inline bool pool_is_destroyed(const ch_pool *pool) noexcept
{
	return pool->hdr->state.load(relaxed) == POOL_DESTROYED; // a flag; what it guards is guarded otherwise
}

} // namespace ch::core

// SPDX-License-Identifier: Apache-2.0
// modules.cpp - functions to names (module, offset) and back.
//
// A process knows modules by index, in the order in which it first named a function of each. The owner of a pool
// tells its workers which fingerprint stands behind an index; a worker looks for the module with that
// fingerprint among its own, once per index, and checks that the offset lies in its code. So neither address-space
// randomisation nor a library that was loaded after the workers were forked, nor another build of it, can make a
// worker jump to a wrong place: it says what is missing instead.
#include "modules.h"

#include <atomic>
#include <channels/module.h>
#include <cstring>
#include <mutex>
#include <pool/task.hpp>
#include <sys/auxv.h>
#include <vector>

namespace ch::detail {
namespace {

using module = ch_module;

fingerprint id_of(const module &m)
{
	fingerprint f;

	static_assert(sizeof(m.id) == sizeof(f.bytes));
	std::memcpy(f.bytes.data(), m.id, sizeof(m.id));
	f.len = m.id_len;
	return f;
}

std::mutex mutex; // of the next
std::vector<module> known;
std::atomic<std::uint32_t> nr_known; // how many, to be asked without the lock

// The program itself, which is never unloaded, so that its functions are named without looking for it again.
struct {
	std::atomic<std::uintptr_t> code_end; // 0: no function of it has been named yet
	std::uintptr_t base, code;
	std::uint64_t index;
} program;

void remember_program(const module &m, std::uint64_t index)
{
	const std::uintptr_t entry = getauxval(AT_ENTRY);

	// Relaxed: changed with the lock held.
	if (entry < m.code || entry >= m.code_end || program.code_end.load(std::memory_order_relaxed))
		return;
	program.base = m.base;
	program.code = m.code;
	program.index = index;
	// [B8] pairs with [B8] in name_of: all of it is there.
	program.code_end.store(m.code_end, std::memory_order_release);
}

// Of a worker, whose one thread alone uses them.
std::vector<module> resolved; // by the owner's index; code_end 0: not looked for yet
fingerprint (*source)(std::uint32_t) = nullptr;

module resolve(std::uint32_t index)
{
	module m{};
	const fingerprint id = source ? source(index) : fingerprint{};

	if (!id.len)
		throw error(EPROTO, "task: its module is unknown to this worker");
	if (ch_module_find(id.bytes.data(), id.len, &m) < 0)
		throw error(ENOENT, ("task: this worker has no module with build-id " + id.text() +
				     ": load it before the pool is created").c_str());
	return m;
}

} // namespace

std::string fingerprint::text() const
{
	std::string s;

	for (std::uint32_t i = 0; i < len; i++) {
		s += "0123456789abcdef"[bytes[i] >> 4];
		s += "0123456789abcdef"[bytes[i] & 15];
	}
	return s;
}

std::uint32_t count_modules() noexcept
{
	return nr_known.load(std::memory_order_relaxed); // see name_of
}

fingerprint known_module(std::uint32_t index)
{
	const std::lock_guard<std::mutex> lock(mutex);

	return index < known.size() ? id_of(known[index]) : fingerprint{};
}

std::unique_lock<std::mutex> freeze_modules()
{
	return std::unique_lock<std::mutex>(mutex);
}

void become_worker(fingerprint (*s)(std::uint32_t))
{
	// Locked by the thread that forked, which is not here.
	new (&mutex) std::mutex;
	source = s;
	resolved.clear();
}

std::uint64_t name_of(const void *fn)
{
	const auto at = reinterpret_cast<std::uintptr_t>(fn);
	module m{};

	// [B8] pairs with [B8] in remember_program.
	if (at < program.code_end.load(std::memory_order_acquire) && at >= program.code)
		return program.index << 48 | (at - program.base);
	if (ch_module_of(fn, &m) < 0)
		throw error(EINVAL, "task: the callable is no function of the program or a library");
	const std::lock_guard<std::mutex> lock(mutex);
	std::size_t i = 0;
	while (i < known.size() && id_of(known[i]) != id_of(m))
		i++;
	if (i == known.size()) {
		if (i == max_modules)
			throw error(ENOSPC, "task: functions of too many libraries");
		known.push_back(m);
		// Relaxed: who asks has named its function itself, or was given the name by who did.
		nr_known.store(static_cast<std::uint32_t>(known.size()), std::memory_order_relaxed);
	}
	remember_program(m, i);
	return std::uint64_t{i} << 48 | (at - m.base);
}

const void *address_of(std::uint64_t name)
{
	const std::uint32_t index = module_of(name);

	if (index >= max_modules)
		throw error(EPROTO, "task: damaged name of a function");
	if (index >= resolved.size())
		resolved.resize(index + 1);
	module &m = resolved[index];
	if (!m.code_end) [[unlikely]]
		m = resolve(index);
	const std::uintptr_t at = m.base + offset_of(name);
	if (at < m.code || at >= m.code_end)
		throw error(EPROTO, "task: damaged name of a function");
	return reinterpret_cast<const void *>(at);
}

} // namespace ch::detail

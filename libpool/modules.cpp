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
#include <cstring>
#include <elf.h>
#include <link.h>
#include <mutex>
#include <pool/task.hpp>
#include <sys/auxv.h>
#include <vector>

namespace ch::detail {
namespace {

struct module {
	fingerprint id;
	std::uintptr_t base = 0, code = 0, code_end = 0;
	std::string path;
};

std::uint64_t fnv(const void *p, std::size_t n, std::uint64_t h = 0xcbf29ce484222325)
{
	for (std::size_t i = 0; i < n; i++)
		h = (h ^ static_cast<const unsigned char *>(p)[i]) * 0x100000001b3;
	return h;
}

bool build_id(const dl_phdr_info *info, fingerprint &out)
{
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) &ph = info->dlpi_phdr[i];

		if (ph.p_type != PT_NOTE)
			continue;
		const auto *at = reinterpret_cast<const unsigned char *>(info->dlpi_addr + ph.p_vaddr);
		for (const auto *end = at + ph.p_memsz; at + sizeof(ElfW(Nhdr)) <= end;) {
			ElfW(Nhdr) n;
			std::memcpy(&n, at, sizeof(n));
			const unsigned char *name = at + sizeof(n), *desc = name + (n.n_namesz + 3) / 4 * 4;
			if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 && std::memcmp(name, "GNU", 4) == 0) {
				out.len = std::min<std::uint32_t>(n.n_descsz, 20);
				std::memcpy(out.bytes.data(), desc, out.len);
				return out.len != 0;
			}
			at = desc + (n.n_descsz + 3) / 4 * 4;
		}
	}
	return false;
}

// Without a build-id: the name and the program headers, which hold every size and place.
void other_id(const dl_phdr_info *info, fingerprint &out)
{
	const std::uint64_t h[2] = {fnv(info->dlpi_name, std::strlen(info->dlpi_name)),
				    fnv(info->dlpi_phdr, info->dlpi_phnum * sizeof(*info->dlpi_phdr))};

	out.len = sizeof(h);
	std::memcpy(out.bytes.data(), h, sizeof(h));
}

module describe(const dl_phdr_info *info)
{
	module m;

	m.base = info->dlpi_addr;
	m.path = info->dlpi_name[0] ? info->dlpi_name : "the program";
	if (!build_id(info, m.id))
		other_id(info, m.id);
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) &ph = info->dlpi_phdr[i];

		if (ph.p_type != PT_LOAD || !(ph.p_flags & PF_X))
			continue;
		if (!m.code_end || m.base + ph.p_vaddr < m.code)
			m.code = m.base + ph.p_vaddr;
		m.code_end = std::max<std::uintptr_t>(m.code_end, m.base + ph.p_vaddr + ph.p_memsz);
	}
	return m;
}

template <class Pred> bool find(Pred pred, module &out)
{
	struct search {
		Pred &pred;
		module &out;
		bool is_found;
	} s{pred, out, false};

	dl_iterate_phdr(
		[](dl_phdr_info *info, std::size_t, void *arg) {
			auto *q = static_cast<search *>(arg);
			module m = describe(info);

			if (!q->pred(m))
				return 0;
			q->out = std::move(m);
			q->is_found = true;
			return 1;
		},
		&s);
	return s.is_found;
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
	module m;
	const fingerprint id = source ? source(index) : fingerprint{};

	if (!id.len)
		throw error(EPROTO, "task: its module is unknown to this worker");
	if (!find([&](const module &x) { return x.id == id; }, m))
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

	return index < known.size() ? known[index].id : fingerprint{};
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
	const auto holds = [at](const module &m) { return at >= m.code && at < m.code_end; };
	module m;

	// [B8] pairs with [B8] in remember_program.
	if (at < program.code_end.load(std::memory_order_acquire) && at >= program.code)
		return program.index << 48 | (at - program.base);
	if (!find(holds, m))
		throw error(EINVAL, "task: the callable is no function of the program or a library");
	const std::lock_guard<std::mutex> lock(mutex);
	std::size_t i = 0;
	while (i < known.size() && known[i].id != m.id)
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

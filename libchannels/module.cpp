// SPDX-License-Identifier: Apache-2.0
// module.cpp - the program and its libraries by build-id.
#include "config.h"
#include "error.h"
#include <algorithm>
#include <cerrno>
#include <channels/module.h>
#include <cstdio>
#include <cstring>
#include <elf.h>
#include <link.h>
#include <xxhash.h>

namespace ch::core {

static bool build_id(const dl_phdr_info *info, ch_module &out)
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
				out.id_len = std::min<uint32_t>(n.n_descsz, sizeof(out.id));
				std::memcpy(out.id, desc, out.id_len);
				return out.id_len != 0;
			}
			at = desc + (n.n_descsz + 3) / 4 * 4;
		}
	}
	return false;
}

// Without a build-id: the name and the program headers, which hold every size and place.
static void other_id(const dl_phdr_info *info, ch_module &out)
{
	const uint64_t h[2] = {XXH3_64bits(info->dlpi_name, std::strlen(info->dlpi_name)),
			       XXH3_64bits(info->dlpi_phdr, info->dlpi_phnum * sizeof(*info->dlpi_phdr))};

	out.id_len = sizeof(h);
	std::memcpy(out.id, h, sizeof(h));
}

static ch_module describe(const dl_phdr_info *info)
{
	ch_module m{};

	m.base = info->dlpi_addr;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) &ph = info->dlpi_phdr[i];

		if (ph.p_type != PT_LOAD || !(ph.p_flags & PF_X))
			continue;
		if (!m.code_end || m.base + ph.p_vaddr < m.code)
			m.code = m.base + ph.p_vaddr;
		m.code_end = std::max<uint64_t>(m.code_end, m.base + ph.p_vaddr + ph.p_memsz);
	}
	if (!build_id(info, m))
		other_id(info, m);
	return m;
}

template <class Pred> static int find(Pred pred, ch_module *out)
{
	struct search {
		Pred &pred;
		ch_module *out;
	} s{pred, out};

	const int found = dl_iterate_phdr(
		[](dl_phdr_info *info, std::size_t, void *arg) {
			auto *q = static_cast<search *>(arg);
			const ch_module m = describe(info);

			if (!q->pred(m))
				return 0;
			*q->out = m;
			return 1;
		},
		&s);
	return found ? 0 : -ENOENT;
}

} // namespace ch::core

using namespace ch::core;

int ch_module_of(const void *fn, struct ch_module *out_module)
{
	const auto at = reinterpret_cast<uint64_t>(fn);

	if (!fn || !out_module)
		return fail(-EINVAL, "module: NULL");
	if (find([at](const ch_module &m) { return at >= m.code && at < m.code_end; }, out_module) == 0)
		return 0;
	return fail(-ENOENT, "module: %p is no function of the program or a library", fn);
}

int ch_module_find(const void *id, size_t len, struct ch_module *out_module)
{
	char text[41] = "";

	if (!id || !out_module || len == 0 || len > sizeof(out_module->id))
		return fail(-EINVAL, "module: NULL, or an id of %zu bytes", len);
	if (find([=](const ch_module &m) { return m.id_len == len && std::memcmp(m.id, id, len) == 0; }, out_module) == 0)
		return 0;
	for (size_t i = 0; i < len; i++)
		std::snprintf(text + 2 * i, 3, "%02x", static_cast<const unsigned char *>(id)[i]);
	return fail(-ENOENT, "module: none with build-id %s is loaded in this process", text);
}

// SPDX-License-Identifier: Apache-2.0
// descr.cpp - descriptors: seal, check, text.
#include "config.h"
#include "descr.h"
#include "error.h"
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <sys/stat.h>
#include <xxhash.h>

namespace ch::core {

u32 node_id() noexcept
{
	static std::atomic<u32> cached;
	u32 id = cached.load(relaxed); // nobody looks: the value is the same whoever computes it
	char boot[64] = "";
	struct stat st;

	if (id != 0)
		return id;
	if (FILE *f = std::fopen("/proc/sys/kernel/random/boot_id", "re")) {
		if (!std::fgets(boot, sizeof(boot), f))
			boot[0] = '\0';
		std::fclose(f);
	}
	const u64 dev = stat("/dev/shm", &st) == 0 ? st.st_dev : 0;
	id = static_cast<u32>(XXH3_64bits_withSeed(boot, std::strlen(boot), dev)) | 1;
	cached.store(id, relaxed);
	return id;
}

static u64 checksum_of(const descr &d) noexcept
{
	return XXH3_64bits(&d, offsetof(descr, checksum));
}

void descr_seal(descr d, ch_descr *out) noexcept
{
	d.magic = DESCR_MAGIC;
	d.version = DESCR_VERSION;
	d.zero = 0;
	d.node = node_id();
	d.reserved = 0;
	d.checksum = checksum_of(d);
	std::memcpy(out->bytes, &d, sizeof(d));
}

int descr_open(const ch_descr *in, descr &out) noexcept
{
	if (!in)
		return fail(-EINVAL, "descriptor: NULL");
	std::memcpy(&out, in->bytes, sizeof(out));
	if (out.magic != DESCR_MAGIC)
		return fail(-EPROTO, "descriptor: these 64 bytes are none");
	if (out.version != DESCR_VERSION)
		return fail(-EPROTO, "descriptor: version %u, this library speaks %u", out.version, DESCR_VERSION);
	if (out.checksum != checksum_of(out) || out.kind < CH_DESCR_SEGMENT || out.kind >= CH_DESCR_KINDS)
		return fail(-EPROTO, "descriptor: damaged");
	return 0;
}

} // namespace ch::core

using namespace ch::core;

int ch_descr_kind(const struct ch_descr *descr)
{
	ch::core::descr d;
	const int rc = descr_open(descr, d);

	return rc < 0 ? rc : d.kind;
}

int ch_descr_from_bytes(const void *bytes, size_t len, struct ch_descr *out_descr)
{
	ch_descr in;
	ch::core::descr d;

	if (!bytes || !out_descr)
		return fail(-EINVAL, "descriptor: NULL");
	if (len != sizeof(in))
		return fail(-EPROTO, "descriptor: %zu bytes, not %zu", len, sizeof(in));
	std::memcpy(&in, bytes, sizeof(in));
	const int rc = descr_open(&in, d);
	if (rc == 0)
		*out_descr = in;
	return rc;
}

int ch_descr_to_text(const struct ch_descr *descr, char *out_text, size_t cap)
{
	static constexpr size_t LEN = 3 + 2 * sizeof(ch_descr);
	ch::core::descr d;
	const int rc = descr_open(descr, d);

	if (rc < 0)
		return rc;
	if (!out_text)
		return fail(-EINVAL, "descriptor: NULL");
	if (cap <= LEN)
		return fail(-ENOBUFS, "descriptor: its text needs %zu bytes of room", LEN + 1);
	std::memcpy(out_text, "ch:", 3);
	for (size_t i = 0; i < sizeof(ch_descr); i++) {
		static const char hex[] = "0123456789abcdef";
		out_text[3 + 2 * i] = hex[descr->bytes[i] >> 4];
		out_text[4 + 2 * i] = hex[descr->bytes[i] & 15];
	}
	out_text[LEN] = '\0';
	return static_cast<int>(LEN);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int ch_descr_from_text(const char *text, struct ch_descr *out_descr)
{
	ch_descr in;

	if (!text || !out_descr)
		return fail(-EINVAL, "descriptor: NULL");
	if (std::strncmp(text, "ch:", 3) != 0 || std::strlen(text) != 3 + 2 * sizeof(in))
		return fail(-EPROTO, "descriptor: text is not \"ch:\" and %zu hex digits", 2 * sizeof(in));
	for (size_t i = 0; i < sizeof(in); i++) {
		const int hi = hex_digit(text[3 + 2 * i]), lo = hex_digit(text[4 + 2 * i]);
		if (hi < 0 || lo < 0)
			return fail(-EPROTO, "descriptor: text has a character that is no hex digit");
		in.bytes[i] = static_cast<unsigned char>(hi << 4 | lo);
	}
	return ch_descr_from_bytes(in.bytes, sizeof(in), out_descr);
}

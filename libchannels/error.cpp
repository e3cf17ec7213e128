// SPDX-License-Identifier: Apache-2.0
// error.cpp - error texts, attribute structs, version.
#include "config.h"
#include "crash.h"
#include "error.h"
#include <cerrno>
#include <channels/channels.h>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace ch::core {

#ifdef CH_CRASH_POINTS
void (*ch_crash_hook)(int id);
#endif

static thread_local char text[256];

int fail(int rc, const char *fmt, ...) noexcept
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (std::getenv("CH_LOG"))
		std::fprintf(stderr, "channels[%d]: %s: %s\n", ch_peer_pid(ch_peer_self()), text, strerror(-rc));
	return rc;
}

int read_attr(const void *in, void *out, u32 known) noexcept
{
	const u8 *p = static_cast<const u8 *>(in);
	u32 size;

	std::memset(out, 0, known);
	if (!in)
		return 0;
	std::memcpy(&size, in, sizeof(size));
	if (size < sizeof(size))
		return fail(-EINVAL, "attribute struct: size %u is not set; start from the _INIT macro", size);
	for (u32 i = known; i < size; i++)
		if (p[i] != 0)
			return fail(-E2BIG, "attribute struct: byte %u is set, but this library knows only %u", i, known);
	std::memcpy(out, in, size < known ? size : known);
	return 0;
}

} // namespace ch::core

const char *ch_errmsg(void)
{
	return ch::core::text;
}

const char *ch_version(void)
{
	return CH_VERSION_STRING;
}

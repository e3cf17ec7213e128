// SPDX-License-Identifier: Apache-2.0
// error.h - who decides on an error code says why, once, in words; callers pass the code on.
#pragma once
#include "atomic.h"

namespace ch::core {

// Keeps the text for ch_errmsg(3), prints it to standard error if CH_LOG is set in the environment. Returns rc.
int fail(int rc, const char *fmt, ...) noexcept __attribute__((format(printf, 2, 3), cold));

// Copies a versioned attribute struct: shorter is older, longer is newer, unknown set bytes are refused.
// Returns 0, -EINVAL or -E2BIG. known is sizeof(*out); in may be NULL.
int read_attr(const void *in, void *out, u32 known) noexcept;

} // namespace ch::core

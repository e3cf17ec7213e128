// SPDX-License-Identifier: Apache-2.0
// cabi.hpp - what the files of the C functions share.
#pragma once
#include "directory.hpp"
#include "wire.hpp"
#include <ddict/core.hpp>
#include <ddict/ddict.h>
#include <cstdio>
#include <new>

struct ch_ddict {
	ch::ddict_core core;
};

struct ch_ddict_view {
	ch::ddict_view view;
};

namespace ch::dd {

// Keeps the text for ch_ddict_errmsg; the code.
int failed(int errnum, const char *why) noexcept;
ddict_put put_of(const ch_ddict_put_attr *attr);
ddict_options options_of(const ch_ddict_attr *attr);

inline std::span<const std::byte> span(const void *from, std::size_t len)
{
	if (len && !from)
		refuse(EINVAL, "ddict: a length without bytes");
	return {static_cast<const std::byte *>(from), len};
}

// What f returns, or the code of what it throws.
template <class F> auto guarded(bool is_possible, F &&f) noexcept -> decltype(f())
{
	if (!is_possible)
		return failed(EINVAL, "ddict: an argument is NULL or negative");
	try {
		return f();
	} catch (const error &e) {
		return failed(e.code().value(), e.what());
	} catch (const std::bad_alloc &) {
		return failed(ENOMEM, "ddict: no memory");
	} catch (const std::exception &e) {
		return failed(EINVAL, e.what());
	}
}

// Takes a value into a caller's buffer.
struct into {
	void *buf;
	std::size_t cap;
	std::size_t len = 0;
	void operator()(std::span<const std::byte> v)
	{
		len = v.size();
		if (buf && std::min(len, cap))
			std::memcpy(buf, v.data(), std::min(len, cap));
	}
};

inline ssize_t fitting(bool is_there, const into &to)
{
	if (!is_there)
		return failed(ENOENT, "ddict: no such key");
	if (to.len > to.cap)
		return failed(ENOBUFS, "ddict: the value is longer than the buffer");
	return static_cast<ssize_t>(to.len);
}

} // namespace ch::dd

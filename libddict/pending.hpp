// SPDX-License-Identifier: Apache-2.0
// pending.hpp - a call that outlives the function that began it: behind ddict_call and ddict_view.
#pragma once
#include "connection.hpp"

namespace ch::dd {

struct pending {
	std::shared_ptr<connection> conn;
	dd::call call;
	sight seen; // if the answer was to be seen, and nobody asked
	std::int64_t until = -1;
	bool is_done = false, is_promised = false;
	int status = 0;

	pending() = default;
	pending(const pending &) = delete;
	pending &operator=(const pending &) = delete;
	~pending()
	{
		const bool was_asked = is_done && !seen && !is_promised;

		if (was_asked && status == 0 && call.head().how == static_cast<std::uint32_t>(form::pinned))
			conn->unpin(call);
	}
};

// What an operation on one key answers: true, or false for "no such key", "there already", "another value".
inline bool is_good(const connection &conn, unsigned m, int status)
{
	if (status == -ENOENT || status == -EEXIST || status == -EAGAIN)
		return false;
	if (status < 0)
		conn.fail(m, status);
	return true;
}

// Gives the value of an answer to read. False: its manager died, and what was read counts for nothing. Else a value in the
// manager's memory is given back.
bool read_value(connection &conn, call &c, std::int64_t until, ddict_core::value_reader read);
// The same of what is seen without asking. False: it is not to be seen any more, or what was read is not it.
bool read_seen(connection &conn, const sight &s, ddict_core::value_reader read);

} // namespace ch::dd

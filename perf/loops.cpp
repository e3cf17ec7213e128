// SPDX-License-Identifier: Apache-2.0
// loops.cpp - the parts of the timed loops that are no templates.
#include "loops.h"
#include <algorithm>

namespace bench {

sample flow_sample(const tallies &all, int pairs, const std::string &error)
{
	std::uint64_t start = ~std::uint64_t{0}, end = 0, timed = 0;
	tally sent, received;
	sample s;

	for (int i = 0; i < 2 * pairs; i++) {
		const tally &t = all[static_cast<std::size_t>(i)];
		tally &side = i < pairs ? sent : received;
		side.nr += t.nr;
		side.sum += t.sum;
		if (i < pairs)
			continue;
		start = std::min(start, t.start_ns);
		end = std::max(end, t.end_ns);
		timed += t.timed;
	}
	s.error = error;
	if (!s.error.empty())
		return s;
	if (sent.nr != received.nr || sent.sum != received.sum)
		s.error = "sent " + std::to_string(sent.nr) + " messages, received " + std::to_string(received.nr);
	else if (!timed || end <= start)
		s.is_starved = true;
	else
		s.value = static_cast<double>(timed) * 1e9 / static_cast<double>(end - start);
	return s;
}

// Plain stores, not memset: its rep stosb is three times slower on lines that another core has.
void write_all(void *to, std::size_t len, std::uint64_t stamp)
{
	typedef std::uint64_t vector __attribute__((vector_size(16), may_alias));
	const std::uint64_t each = (stamp & 0xff) * 0x0101010101010101;
	const vector v = {each, each};
	vector *at = static_cast<vector *>(to), *end = at + len / sizeof(vector);

	for (; at < end; at += 4) // whole cache lines
		at[0] = at[1] = at[2] = at[3] = v;
	std::memcpy(to, &stamp, sizeof stamp);
}

bool read_all(const void *from, std::size_t len, std::uint64_t *out_stamp)
{
	const std::uint64_t *w = static_cast<const std::uint64_t *>(from), *end = w + len / 8;
	const std::uint64_t stamp = *w, each = (stamp & 0xff) * 0x0101010101010101;
	std::uint64_t a = 0, b = 0, c = 0, d = 0;

	for (; w < end; w += 8) { // whole cache lines; four sums, so that no addition waits for the one before
		a += w[0] + w[4];
		b += w[1] + w[5];
		c += w[2] + w[6];
		d += w[3] + w[7];
	}
	*out_stamp = stamp;
	return a + b + c + d == stamp + each * (len / 8 - 1);
}

} // namespace bench

/* SPDX-License-Identifier: Apache-2.0 */
/* evidence.cpp - the ledger of the kill test and its judgement. */
#include "evidence.h"
#include <algorithm>

namespace torture {

template <class T> static T *shared_array(size_t n)
{
	void *p = mmap(nullptr, n * sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(99);
	}
	return static_cast<T *>(p);
}

ledger::ledger(uint32_t nr_who)
	: nr_who_(nr_who), committed_(shared_array<std::atomic<uint32_t>>(nr_who)),
	  died_(shared_array<std::atomic<bool>>(nr_who)), counts_(shared_array<std::atomic<uint8_t>>(size_t{ nr_who } * NR_SEQ))
{
}

static uint64_t key(message_id id)
{
	return uint64_t{ id.who } << 32 | id.seq;
}

ledger::verdict ledger::judge(uint32_t up_to, std::vector<message_id> tentative,
			      uint64_t may_be_unseen, uint32_t in_flight) const
{
	verdict v = {};
	std::vector<message_id> missing;
	int shown = 0;
	auto before = [](message_id a, message_id b) { return key(a) < key(b); };

	std::sort(tentative.begin(), tentative.end(), before);
	for (uint32_t who = 0; who < up_to; who++) {
		const uint32_t nr = committed_[who];

		v.committed += nr;
		for (uint32_t seq = 0; seq < NR_SEQ; seq++) {
			const message_id id = { who, seq };
			const int n = counts_[size_t{ who } * NR_SEQ + seq];

			if (n > 1)
				v.duplicated++;
			if (n > 1 && shown++ < 5)
				fprintf(stderr, "%u/%u was received %d times\n", who, seq, n);
			if (seq < nr && n == 0) {
				const bool known = std::binary_search(tentative.begin(), tentative.end(), id, before);

				(known ? v.ambiguous : v.unseen)++;
				if (!known)
					missing.push_back(id);
			}
			if (seq >= nr && n > 0)
				(died_[who] && seq < nr + in_flight ? v.unacknowledged : v.ghosts)++;
		}
	}
	for (size_t i = 0; v.unseen > may_be_unseen && i < std::min<size_t>(missing.size(), 20); i++)
		fprintf(stderr, "%u/%u of %u is missing\n", missing[i].who, missing[i].seq, committed_[missing[i].who].load());
	return v;
}

size_t length_of(message_id id)
{
	uint64_t s = key(id) * UINT64_C(0x9E3779B97F4A7C15) + 1;
	const uint64_t x = rnd(&s), y = rnd(&s);

	if (x % 4 < 2)
		return 8;
	if (x % 4 == 2)
		return 9 + y % 40;
	return 49 + y % (x % 64 == 3 ? LONGEST - 48 : 4000);
}

void write_message(void *data, message_id id)
{
	const size_t len = length_of(id);
	auto *p = static_cast<unsigned char *>(data);

	memcpy(p, &id, sizeof(id));
	for (size_t i = sizeof(id); i < len; i++)
		p[i] = pattern(id.who, id.seq, i);
}

bool is_whole(const void *data, size_t len, message_id id)
{
	auto *p = static_cast<const unsigned char *>(data);

	if (len != length_of(id))
		return false;
	for (size_t i = sizeof(id); i < len; i++)
		if (p[i] != pattern(id.who, id.seq, i))
			return false;
	return true;
}

} // namespace torture

/* SPDX-License-Identifier: Apache-2.0 */
/* director.h - one run of the kill test: who plays, for how long, and what came of it. */
#ifndef TESTS_DIRECTOR_H
#define TESTS_DIRECTOR_H
#include "evidence.h"
#include <algorithm>

namespace torture {

struct plan {
	uint64_t seed = 1;
	uint64_t kills = 1000;
	double seconds = 1e9;
	uint32_t capacity = 8;
	kind what = kind::plain;
	int crew[NR_ROLES] = { 3, 3, 2, 1 };
	bool at_random = true, at_points = false;
	bool verbose = false; /* say of each kill where it was */
	bool resident = true; /* the parent stays attached; otherwise every peer is mortal */
};

struct result {
	ledger::verdict verdict = {};
	uint64_t kills = 0, kills_at_points = 0, in_hand = 0, received = 0, late = 0, corrupt = 0, errors = 0, timeouts = 0;
	uint64_t lost = 0;      /* missing, and no kill explains it */
	uint64_t reordered = 0; /* late, and no kill explains it */
	uint64_t longest_ns = 0;
	std::vector<uint64_t> hits; /* kills at each crash point */
	double seconds = 0;
	bool leaked = false, hung = false, broken = false;

	bool passed() const
	{
		return !lost && !verdict.duplicated && !verdict.ghosts && !reordered && !corrupt && !errors && !timeouts &&
		       !leaked && !hung && !broken;
	}
};

result run(const plan &p);
result run_couples(const plan &p); /* of kind hangs_up */

} // namespace torture
#endif

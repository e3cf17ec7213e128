/* SPDX-License-Identifier: Apache-2.0 */
/* orders.h - each memory order weakened by itself: which scenario notices? */
#pragma once
#include "scenarios.h"

namespace ch::explore {

// What orders.txt says is noticed. Some seconds.
bool weaken_listed(const std::vector<scenario> &all);

// Every site whose "file:line" holds text. Prints a table. False if an order can be weakened, nobody notices, and orders.txt
// has no reason. Many minutes.
bool weaken_each(const std::vector<scenario> &all, const char *text);

} // namespace ch::explore

/* SPDX-License-Identifier: Apache-2.0 */
/* scenarios.h - the list of all scenarios, which are in one file for each part of the library. */
#pragma once
#include "explorer.h"
#include <vector>

namespace ch::explore {

std::vector<scenario> channel_scenarios();
std::vector<scenario> death_scenarios();
std::vector<scenario> kinds_scenarios(); // of channels; poll sets
std::vector<scenario> ground_scenarios(); // events, runs, the life of objects
std::vector<scenario> sync_scenarios();
std::vector<scenario> stream_scenarios();
std::vector<scenario> ways_scenarios(); // of using channels and blocks

} // namespace ch::explore

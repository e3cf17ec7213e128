// SPDX-License-Identifier: Apache-2.0
// place.hpp - which manager a key belongs to: rendezvous hashing (Thaler, Ravishankar 1998), so that with another
// number of managers only the keys of the manager that came or went move.
#pragma once
#include <cstdint>
#include <span>

namespace ch::dd {

// XXH3 of the key; stable across processes and machines.
std::uint64_t key_hash(std::span<const std::byte> key);

// The manager among nr with the highest weight for this key.
unsigned place(std::uint64_t hash, unsigned nr);

} // namespace ch::dd

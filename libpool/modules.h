// SPDX-License-Identifier: Apache-2.0
// modules.h - the program and its libraries by build-id, so that a function can be named in another process. Private.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>

namespace ch::detail {

// Build-id (up to 20 bytes), or, where the linker made none, what else tells builds apart.
struct fingerprint {
	std::array<unsigned char, 20> bytes{};
	std::uint32_t len = 0; // 0: nobody

	bool operator==(const fingerprint &) const = default;
	std::string text() const;
};

inline constexpr std::uint32_t max_modules = 256;

inline constexpr std::uint32_t module_of(std::uint64_t name) { return static_cast<std::uint32_t>(name >> 48); }
inline constexpr std::uint64_t offset_of(std::uint64_t name) { return name & ((std::uint64_t{1} << 48) - 1); }

// The owner's side: modules it has named functions of, in the order of first use. Never shrinks.
std::uint32_t count_modules() noexcept;
fingerprint known_module(std::uint32_t index);

// Held over a fork: the child then finds both lists whole, and begins with become_worker().
std::unique_lock<std::mutex> freeze_modules();

// The worker's side, once, before anything else: where to ask what the owner's indices stand for.
void become_worker(fingerprint (*source)(std::uint32_t index));

} // namespace ch::detail

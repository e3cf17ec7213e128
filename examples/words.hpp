// SPDX-License-Identifier: Apache-2.0
// words.hpp - what a word is, and counting the words of pieces of files.
//
// A word is a run of ASCII letters and of bytes from 0x80 on, so that words in any encoding stay whole; ASCII letters
// are made small. Of a longer word the first 100 bytes count. A file with a NUL among its first 8 KiB is not text.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

// Part of a file: the words that begin at from or behind it, and before to.
struct piece {
	std::string path;
	std::uint64_t from = 0, to = 0;

	template <class A> void serialize(A &ar) { ar(path, from, to); }
};

struct by_text {
	using is_transparent = void;
	std::size_t operator()(std::string_view s) const noexcept { return std::hash<std::string_view>{}(s); }
};
using counts = std::unordered_map<std::string, std::uint64_t, by_text, std::equal_to<>>;

// What came of some pieces. Files are counted with their first piece.
struct outcome {
	std::uint64_t files = 0, binary = 0, bytes = 0, words = 0;
	std::vector<std::string> unreadable; // path: why

	template <class A> void serialize(A &ar) { ar(files, binary, bytes, words, unreadable); }
	outcome &operator+=(const outcome &o);
};

// Adds a piece's words to table.
void count_piece(const piece &p, counts &table, outcome &out);

// Everything that is a regular file under the paths, each once, cut into pieces of about a MiB. Symbolic links in a
// directory are not followed. What cannot be looked into is added to out.unreadable.
std::vector<piece> find_files(const std::vector<std::string> &paths, outcome &out);

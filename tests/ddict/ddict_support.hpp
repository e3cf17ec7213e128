// SPDX-License-Identifier: Apache-2.0
// ddict_support.hpp - what the tests of libddict share.
#pragma once
#include "../support/support.h"
#include <criterion/criterion.h>
#include <ddict/ddict.hpp>
#include <fstream>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <vector>

using ch::ddict;

// The code of the ch::error that f throws; 0 if it throws none.
inline int error_of(const std::function<void()> &f)
{
	try {
		f();
		return 0;
	} catch (const ch::error &e) {
		return e.code().value();
	}
}

inline std::string text_of(const std::function<void()> &f)
{
	try {
		f();
		return "";
	} catch (const ch::error &e) {
		return e.what();
	}
}

// The shared-memory files that this process has mapped.
inline std::set<std::string> mapped_segments()
{
	std::set<std::string> names;
	std::ifstream maps("/proc/self/maps");

	for (std::string line; std::getline(maps, line);)
		if (const std::size_t at = line.find("/dev/shm/"); at != std::string::npos)
			names.insert(line.substr(at, line.find(' ', at) - at));
	return names;
}

inline bool exist_no_more(const std::set<std::string> &files)
{
	bool ok = true;

	for (const std::string &f : files)
		if (access(f.c_str(), F_OK) == 0) {
			fprintf(stderr, "%s is still there\n", f.c_str());
			ok = false;
		}
	return ok;
}

// Runs f in a child; 0 if it returned true. Exceptions are printed.
inline pid_t start_child(const std::function<bool()> &f)
{
	return child_start(
		[](void *arg) {
			try {
				return (*static_cast<const std::function<bool()> *>(arg))() ? 0 : 1;
			} catch (const std::exception &e) {
				fprintf(stderr, "child %d: %s\n", getpid(), e.what());
				return 2;
			}
		},
		const_cast<std::function<bool()> *>(&f));
}

// A value that shows whether it is whole: its length and every byte follow from n.
inline std::string whole_value(std::uint64_t n, std::size_t len)
{
	std::string s(len, '\0');

	fill(s.data(), len, n, len);
	return s;
}
inline bool is_whole(const std::string &s, std::uint64_t n)
{
	return is_filled(s.data(), s.size(), n, s.size());
}

// SPDX-License-Identifier: Apache-2.0
// persist_support.hpp - a directory for a dictionary's files, for the tests that look into them.
#pragma once
#include "ddict_support.hpp"
#include <algorithm>
#include <filesystem>
#include <sys/resource.h>

namespace fs = std::filesystem;
using text_dict = ddict<std::string, std::string>;

// A directory that is gone at the end.
class scratch {
public:
	explicit scratch(const char *in = "/var/tmp")
	{
		std::string name = std::string(in) + "/ddict-persist-" + std::string(6, 'X');

		path = mkdtemp(name.data()) ? name : "";
	}
	~scratch() { fs::remove_all(path); }
	// A file that only the test makes; the dictionary makes its directory itself.
	std::string dir() const { return path + "/files"; }
	std::string path;
};

inline std::vector<std::string> files_of(const scratch &s, const std::string &like)
{
	std::vector<std::string> found;

	for (const auto &e : fs::directory_iterator(s.dir()))
		if (e.path().filename().string().find(like) != std::string::npos)
			found.push_back(e.path().filename().string());
	std::sort(found.begin(), found.end());
	return found;
}

inline ch::ddict_options with(const scratch &s, unsigned managers, std::uint64_t from = ch::ddict_nothing)
{
	return {.managers = managers, .memory = 64 << 20, .persist_path = s.dir(), .restore_from = from};
}

// For a dictionary's managers longer files are an error from now on, as on a full disk.
inline void forbid_large_files(const ch::ddict_core &d, std::size_t len)
{
	const rlimit limit{len, len};

	for (unsigned m = 0; m < d.managers(); m++)
		cr_assert_eq(prlimit(ch_peer_pid(d.manager_peer(m)), RLIMIT_FSIZE, &limit, nullptr), 0);
}

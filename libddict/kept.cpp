// SPDX-License-Identifier: Apache-2.0
// kept.cpp - a dictionary that ends and leaves what it held in shared memory, under its name, for one that begins with it.
//
// What is kept is what a log begins with, all keys at all checkpoints that are held: files in a directory of /dev/shm,
// written by all managers at a time, with checksums, and whole when their manifest is there. So it is checked when it is
// read, by any number of managers, and a dictionary that could not be ended this way goes on.
#include "connection.hpp"
#include "owner.hpp"
#include <filesystem>
#include <sys/stat.h>

namespace ch {

using dd::op;
using dd::refuse;

static const std::string place = "/dev/shm/ddict-kept-";

static std::string place_of(const std::string &name)
{
	if (name.empty() || name.find('/') != name.npos)
		refuse(EINVAL, "ddict: what is kept has the name of a dictionary");
	return place + name;
}

namespace dd {

std::string place_of_kept(const std::string &name)
{
	struct stat st;
	const std::string dir = place_of(name);

	if (stat(dir.c_str(), &st) < 0)
		refuse(ENOENT, "ddict: nothing was kept of a dictionary " + name +
				       ": it was not ended with destroy_for_restart, or another one began with it");
	vault(dir).read_log(); // throws, if it was not kept to the end
	return dir;
}

} // namespace dd

bool ddict_core::drop_kept(const std::string &name)
{
	std::error_code failure;
	const std::uintmax_t nr = std::filesystem::remove_all(place_of(name), failure);

	if (failure)
		refuse(failure.value(), "ddict: what was kept of " + name + " cannot be removed");
	return nr != 0;
}

static dd::outgoing about(op what, const ddict_core::value_writer &w, const std::string &dir, std::uint64_t arg)
{
	return {.what = what, .arg = arg, .flags = dd::restore_kept, .vlen = dir.size(), .write = &w};
}

void ddict_core::destroy_for_restart()
{
	if (!owner_ || !owner_->is_mine())
		refuse(EINVAL, "ddict: a dictionary is ended by the process that created it");
	const std::string kept = name(), dir = place_of(kept);
	const dd::copied copy{std::as_bytes(std::span(dir))};
	const value_writer w = copy;
	const std::uint64_t epoch = dd::realtime_ns();

	if (mkdir(dir.c_str(), 0700) < 0)
		refuse(errno, errno != EEXIST ? dir + " cannot be made"
					      : "ddict: something is kept already of a dictionary " + kept +
							": begin with it, or drop_kept it");
	try {
		ask_for_files(about(op::keep, w, dir, epoch));
		dd::vault(dir).publish_log({epoch, managers(), 0});
	} catch (...) {
		try {
			ask_for_files({.what = op::keep});
		} catch (const error &) {
			// A manager that died keeps nothing.
		}
		drop_kept(kept);
		throw;
	}
	destroy();
}

// What is kept goes when every manager has its part.
void ddict_core::begin_with_kept(const std::string &dir) const
{
	const dd::copied copy{std::as_bytes(std::span(dir))};
	const value_writer w = copy;

	ask_for_files(about(op::restore, w, dir, ddict_log));
	ask_for_files({.what = op::restore, .flags = dd::restore_kept | dd::restore_commit});
	std::error_code ignored;
	std::filesystem::remove_all(dir, ignored);
	sync_to_newest_checkpoint();
}

} // namespace ch

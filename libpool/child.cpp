// SPDX-License-Identifier: Apache-2.0
// child.cpp - the child, from the fork to the program or function. launch.h says what it is told.
#include "core.h"
#include "launch.h"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <cxxabi.h>
#include <fcntl.h>
#include <pool/error.hpp>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace ch::detail {
namespace {

launch_request rq; // this process's; one thread
int report_fd = -1;

fingerprint module_of_creator(std::uint32_t i)
{
	return i < rq.modules.size() ? rq.modules[i] : fingerprint{};
}

void report(int err, const std::string &where)
{
	launch_report r{getpid(), err, {}};

	std::snprintf(r.where, sizeof(r.where), "%s", where.c_str());
	(void)!write(report_fd, &r, sizeof(r));
}

[[noreturn]] void fail(const std::string &where)
{
	report(errno, where);
	_exit(127);
}

int open_creators(int fd, int flags)
{
	const std::string path = "/proc/" + std::to_string(rq.creator) + "/fd/" + std::to_string(fd);

	return open(path.c_str(), flags | O_CLOEXEC);
}

int open_stream(const stdio &s, int which)
{
	const int way = which == STDIN_FILENO ? O_RDONLY : O_WRONLY;
	const char *path = s.path().c_str();

	switch (s.what()) {
	case stdio::kind::null:
		return open("/dev/null", way | O_CLOEXEC);
	case stdio::kind::pipe:
		return open_creators(s.fd(), way);
	case stdio::kind::append:
		return open(path, way | (which ? O_CREAT | O_APPEND : 0) | O_CLOEXEC, 0666);
	default:
		return open(path, way | (which ? O_CREAT | O_TRUNC : 0) | O_CLOEXEC, 0666);
	}
}

void redirect()
{
	for (int which = 0; which < 3; which++) {
		const stdio &s = rq.streams[which];

		if (s.what() == stdio::kind::inherit)
			continue;
		const int fd = open_stream(s, which);
		if (fd < 0 || dup2(fd, which) < 0)
			fail(s.path().empty() ? "standard stream " + std::to_string(which) : s.path());
		if (fd != which)
			close(fd);
	}
}

// Away from the spawner, which kills only its own children, and out of its sight.
void leave()
{
	prctl(PR_SET_PDEATHSIG, 0);
	setsid();
	const pid_t pid = fork();
	if (pid < 0)
		fail("fork");
	if (pid > 0)
		_exit(0);
}

std::vector<char *> pointers(std::vector<std::string> &v)
{
	std::vector<char *> p;

	for (std::string &s : v)
		p.push_back(s.data());
	p.push_back(nullptr);
	return p;
}

[[noreturn]] void execute()
{
	rq.arguments.insert(rq.arguments.begin(), rq.program);
	const std::vector<char *> argv = pointers(rq.arguments), env = pointers(rq.environment);

	report(0, "");
	if (rq.has_environment)
		environ = const_cast<char **>(env.data()); // whose PATH counts, too
	execvp(rq.program.c_str(), argv.data());
	fail(rq.program);
}

int run()
{
	if (rq.has_environment) {
		clearenv();
		for (std::string &s : rq.environment)
			putenv(s.data());
	}
	report(0, "");
	close(report_fd);
	become_worker(module_of_creator);
	try {
		using fn = int (*)(std::span<const std::byte>);

		return reinterpret_cast<fn>(const_cast<void *>(address_of(rq.call.name)))(rq.call.bytes);
	} catch (const abi::__forced_unwind &) {
		throw;
	} catch (...) {
		const error_record e = current_error();

		std::fprintf(stderr, "process %d: %s: %s\n", getpid(), e.type.c_str(), e.what.c_str());
		return 1;
	}
}

} // namespace

int launch_child(const void *arg, std::size_t len)
{
	rq = archive::read<launch_request>({static_cast<const std::byte *>(arg), len});
	report_fd = open_creators(rq.report, O_WRONLY);
	if (report_fd < 0)
		_exit(127);
	setpgid(0, 0);
	if ((errno = -run_on(rq.cpus)))
		fail("placement");
	redirect();
	if (!rq.directory.empty() && chdir(rq.directory.c_str()) < 0)
		fail(rq.directory);
	if (rq.is_detached)
		leave();
	if (!rq.program.empty())
		execute();
	return run();
}

} // namespace ch::detail

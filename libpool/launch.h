// SPDX-License-Identifier: Apache-2.0
// launch.h - how a process is started: what goes to the child, and what this process keeps. Private.
//
//   launch.cpp    this side: the spawner, who waits for whom, time limits
//   child.cpp     the child, from the fork to the program or function
//   process.cpp   the public classes
//
// The child is forked from the spawner, which knows no file descriptor that was made later. So it opens this process's
// ends by name, /proc/PID/fd/N: those of pipes, and that of the report pipe, in which it says that all is set up, or what
// could not be. The report pipe is closed by exec(2): end of file means that the program runs.
#pragma once
#include "modules.h"

#include <channels/spawn.h>
#include <condition_variable>
#include <mutex>
#include <pool/process.hpp>

namespace ch::detail {

struct launch_request {
	pid_t creator = 0;
	int report = -1; // the creator's fd
	bool has_environment = false, is_detached = false;
	std::string program, directory;
	std::vector<std::string> arguments, environment;
	stdio streams[3];
	process_call call;
	std::vector<fingerprint> modules;
	std::vector<unsigned> cpus;

	template <class A> void serialize(A &ar)
	{
		ar(creator, report, has_environment, is_detached, program, directory, arguments, environment, streams, call);
		ar(modules, cpus);
	}
};

struct launch_report {
	pid_t pid;        // of the process, where it is not the spawner's child
	int err;          // a positive errno value; 0: all is set up
	char where[240];  // the error is about this
};

// ch_spawner_create. No spawner of this process has ends of the pipes of its processes: whoever waits for the end of one would
// wait for the spawner's.
int new_spawner(ch_spawner **out) noexcept;

int launch_child(const void *arg, std::size_t len);

struct launcher; // launch.cpp

// One process that was started. Locked by its launcher's mutex.
struct process_state {
	launcher *by = nullptr;
	pid_t pid = 0;
	ch_peer peer{};
	bool is_detached = false, is_over = false, is_timed_out = false;
	int status = 0;
	int fds[3] = {-1, -1, -1};
	std::uint64_t limit_ns = 0; // CLOCK_MONOTONIC; 0: none
	std::function<void()> on_exit; // in the launcher's thread, with the lock open
	~process_state();
	void close(int which) noexcept; // of fds
	static void set_fd(stdio &s, int fd) noexcept { s.fd_ = fd; }
};

using process_ref = std::shared_ptr<process_state>;

process_ref launch(const process_options &o, const process_call &c, std::function<void()> on_exit = {});
bool wait_process(const process_ref &s, std::int64_t timeout_ns);
bool is_over(const process_ref &s);

} // namespace ch::detail

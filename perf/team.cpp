// SPDX-License-Identifier: Apache-2.0
// team.cpp - processes of one measurement: forked together, pinned, watched, and reaped whatever happens.
#include "bench.h"
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bench {

static const std::uint64_t grace_ns = 20'000'000'000; // beyond the measurement; then the team counts as hung
static int stopped_by = 0;                            // the signal that asked the program to end

std::vector<int> allowed_cpus()
{
	static const std::vector<int> once = [] {
		std::vector<int> list;
		cpu_set_t set;

		CPU_ZERO(&set);
		sched_getaffinity(0, sizeof set, &set);
		for (int i = 0; i < CPU_SETSIZE; i++)
			if (CPU_ISSET(i, &set))
				list.push_back(i);
		return list;
	}();
	return once;
}

int cpu_of(int index, int nr_left, int nr)
{
	std::vector<int> cpus = allowed_cpus();
	std::size_t half = cpus.size() / 2, i = static_cast<std::size_t>(index);

	if (cpus.size() < 2 || nr < 2)
		return cpus.empty() ? 0 : cpus.back();
	if (index < nr_left)
		return cpus[i % half];
	return cpus[half + (i - static_cast<std::size_t>(nr_left)) % (cpus.size() - half)];
}

void member::start()
{
	backoff wait;

	shared_words.nr_ready.fetch_add(1);
	while (shared_words.nr_ready.load() < nr)
		wait.pause();
}

void member::fail(const char *what, int code)
{
	if (!shared_words.failed.exchange(1))
		snprintf(shared_words.text, sizeof shared_words.text, "process %d: %s%s%s", index, what,
			 code ? ": " : "", code ? strerror(-code) : "");
	_exit(1);
}

static void watched_signals(sigset_t *set)
{
	sigemptyset(set);
	for (int s : {SIGCHLD, SIGINT, SIGTERM, SIGHUP})
		sigaddset(set, s);
}

// In the child. Never returns: neither the output buffers nor the destructors of the parent may run here.
[[noreturn]] static void be_member(member me, int cpu, pid_t parent, const std::function<void(member &)> &body)
{
	cpu_set_t cpus;
	sigset_t set;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	watched_signals(&set);
	sigprocmask(SIG_UNBLOCK, &set, nullptr);
	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof cpus, &cpus) < 0)
		me.fail("cannot be pinned", -errno);
	try {
		body(me);
	} catch (const std::exception &e) {
		me.fail(e.what());
	}
	_exit(0);
}

class team {
	shared<control> words;
	std::vector<pid_t> alive;
	std::string error;

	void kill_all()
	{
		for (pid_t pid : alive)
			kill(pid, SIGKILL);
	}

	void blame(const std::string &text)
	{
		if (error.empty())
			error = text;
		kill_all();
	}

	void note_end(pid_t pid, int status)
	{
		std::erase(alive, pid);
		if (!error.empty() || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
			return;
		if (WIFSIGNALED(status))
			blame("a process was killed by signal " + std::to_string(WTERMSIG(status)));
		else
			blame(words->failed.load() ? words->text : "a process failed");
	}

	void reap()
	{
		for (pid_t pid : std::vector<pid_t>(alive)) {
			int status;
			if (waitpid(pid, &status, WNOHANG) == pid)
				note_end(pid, status);
		}
	}

public:
	~team()
	{
		kill_all();
		for (pid_t pid : alive)
			waitpid(pid, nullptr, 0);
	}

	bool fork_member(int index, int nr, int nr_left, const std::function<void(member &)> &body)
	{
		pid_t parent = getpid(), pid = fork();

		if (pid == 0)
			be_member(member(*words, nr, index), cpu_of(index, nr_left, nr), parent, body);
		if (pid < 0) {
			blame(std::string("fork: ") + strerror(errno));
			return false;
		}
		alive.push_back(pid);
		return true;
	}

	std::string wait_all(std::uint64_t deadline)
	{
		sigset_t set;

		watched_signals(&set);
		for (reap(); !alive.empty(); reap()) {
			std::uint64_t now = now_ns(), left = now < deadline ? deadline - now : 0;
			timespec t = {static_cast<time_t>(left / 1'000'000'000),
				      static_cast<long>(left % 1'000'000'000)};
			int signo = sigtimedwait(&set, nullptr, &t);
			if (signo < 0 && errno == EAGAIN) {
				blame("timed out");
				deadline = now_ns() + grace_ns;
			} else if (signo > 0 && signo != SIGCHLD) {
				stopped_by = signo;
				blame("interrupted");
			}
		}
		return error;
	}
};

int stop_signal()
{
	return stopped_by;
}

std::string run_team(int nr, int nr_left, const std::function<void(member &)> &body)
{
	team t;

	if (stopped_by)
		return "interrupted";
	for (int i = 0; i < nr; i++)
		if (!t.fork_member(i, nr, nr_left, body))
			break;
	return t.wait_all(now_ns() + conf().run_ns + grace_ns);
}

} // namespace bench

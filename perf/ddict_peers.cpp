// SPDX-License-Identifier: Apache-2.0
// ddict_peers.cpp - Redis and memcached behind a Unix socket, each in its plain text protocol.
#include "ddict_baseline.h"
#include <csignal>
#include <filesystem>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bench {

namespace {

const char *program_of(peer p)
{
	return p == peer::redis ? "redis-server" : "memcached";
}

[[noreturn]] void raise(const char *what)
{
	throw std::runtime_error(what);
}

// The server process and its directory: both end with this object, the process also with ours.
class server {
public:
	explicit server(peer p)
	{
		dir_ = "/tmp/ddict-bench-" + std::string(6, 'X');
		if (!mkdtemp(dir_.data()))
			raise("no directory for the server");
		if ((pid_ = fork()) == 0)
			become(p);
	}
	server(const server &) = delete;
	server &operator=(const server &) = delete;
	~server()
	{
		std::error_code ignored;

		if (pid_ > 0) {
			kill(pid_, SIGKILL);
			waitpid(pid_, nullptr, 0);
		}
		std::filesystem::remove_all(dir_, ignored);
	}
	// Connects as soon as it listens.
	int connect() const
	{
		const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		sockaddr_un a{};

		a.sun_family = AF_UNIX;
		socket_path().copy(a.sun_path, sizeof(a.sun_path) - 1);
		for (int tries = 0; ::connect(fd, reinterpret_cast<sockaddr *>(&a), sizeof(a)) < 0; tries++) {
			if (tries == 5000 || waitpid(pid_, nullptr, WNOHANG) == pid_)
				raise("the server does not answer");
			usleep(1000);
		}
		return fd;
	}

private:
	std::string socket_path() const { return dir_ + "/socket"; }
	// Anywhere but where the client is pinned; it writes nothing to disk.
	[[noreturn]] void become(peer p) const
	{
		const int nowhere = open("/dev/null", O_RDWR);
		const std::string at = socket_path();
		cpu_set_t cpus;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		CPU_ZERO(&cpus);
		for (const int c : allowed_cpus())
			if (c != cpu_of(0, 1, 2))
				CPU_SET(c, &cpus);
		sched_setaffinity(0, sizeof(cpus), &cpus); // with one cpu: an empty set, refused
		for (int fd = 0; fd < 3; fd++)
			dup2(nowhere, fd);
		if (p == peer::redis)
			execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", at.c_str(), "--save", "",
			       "--appendonly", "no", "--dir", dir_.c_str(), nullptr);
		else
			execlp("memcached", "memcached", "-s", at.c_str(), "-t", "1", "-m", "256", "-I", "64m", "-u", "root",
			       nullptr);
		_exit(127);
	}
	std::string dir_;
	pid_t pid_ = -1;
};

// Requests and answers as text. The length of every answer is known beforehand.
class text_client {
public:
	text_client(peer p, int fd, std::size_t len) : peer_(p), fd_(fd), len_(len), value_(len) {}
	text_client(const text_client &) = delete;
	text_client &operator=(const text_client &) = delete;
	~text_client() { close(fd_); }
	void add_put(std::size_t k)
	{
		value_.set_stamp(k);
		const std::string_view value(reinterpret_cast<const char *>(value_.data()), len_);
		const std::string key = key_text_of(k), len = std::to_string(len_);

		if (peer_ == peer::redis)
			out_ += "*3\r\n$3\r\nSET\r\n$128\r\n" + key + "\r\n$" + len + "\r\n";
		else
			out_ += "set " + key + " 0 0 " + len + "\r\n";
		out_ += value;
		out_ += "\r\n";
		expected_.push_back({peer_ == peer::redis ? "+OK\r\n" : "STORED\r\n", 0, k});
	}
	void add_get(std::size_t k)
	{
		const std::string key = key_text_of(k), len = std::to_string(len_);

		out_ += peer_ == peer::redis ? "*2\r\n$3\r\nGET\r\n$128\r\n" + key + "\r\n" : "get " + key + "\r\n";
		expected_.push_back({peer_ == peer::redis ? "$" + len + "\r\n" : "VALUE " + key + " 0 " + len + "\r\n",
				     len_ + (peer_ == peer::redis ? 2 : 7), k});
	}
	// All that was added in one write; then the answers, looked at one by one. False: one was wrong.
	bool ask()
	{
		bool good = true;

		for (std::size_t at = 0; at < out_.size();) {
			// A server that cannot write an answer does not read on.
			const ssize_t n = send(fd_, out_.data() + at, out_.size() - at, MSG_DONTWAIT | MSG_NOSIGNAL);

			at += n > 0 ? static_cast<std::size_t>(n) : 0;
			if (at < out_.size())
				read_some(MSG_DONTWAIT);
		}
		for (const answer &a : expected_) {
			while (in_.size() - read_ < a.head.size() + a.rest)
				read_some(0);
			std::uint64_t stamp = a.k;

			good = good && in_.compare(read_, a.head.size(), a.head) == 0;
			if (a.rest)
				std::memcpy(&stamp, in_.data() + read_ + a.head.size(), sizeof(stamp));
			good = good && stamp == a.k;
			read_ += a.head.size() + a.rest;
		}
		in_.clear();
		out_.clear();
		expected_.clear();
		read_ = 0;
		return good;
	}

private:
	struct answer {
		std::string head;
		std::size_t rest; // bytes behind it
		std::size_t k;
	};
	// 128 letters.
	static std::string key_text_of(std::size_t k)
	{
		std::string s;

		for (const char c : key_of(0, k))
			s += static_cast<char>('a' + (static_cast<unsigned char>(c) & 15));
		return s;
	}
	void read_some(int flags)
	{
		char buf[65536];
		const ssize_t n = recv(fd_, buf, sizeof(buf), flags);

		if (n == 0 || (n < 0 && flags == 0))
			raise("the server hung up");
		if (n > 0)
			in_.append(buf, static_cast<std::size_t>(n));
	}
	peer peer_;
	int fd_;
	std::size_t len_;
	message value_;
	std::string out_, in_;
	std::size_t read_ = 0;
	std::vector<answer> expected_;
};

} // namespace

bool is_installed(peer p)
{
	const char *path = getenv("PATH");
	std::istringstream dirs(path ? path : "");

	for (std::string dir; std::getline(dirs, dir, ':');)
		if (access((dir + "/" + program_of(p)).c_str(), X_OK) == 0)
			return true;
	return false;
}

sample ask_peer(peer p, bool is_get, std::size_t len, std::size_t ahead)
{
	constexpr std::size_t nr_keys = 128;

	return guarded([&] {
		return count_clients(1, [&](member &me, const std::function<void()> &ready) {
			const server s(p);
			text_client c(p, s.connect(), len);

			for (std::size_t k = 0; k < nr_keys; k++)
				c.add_put(k);
			if (!c.ask())
				raise("the server refuses values");
			ready();
			return run_timed([&](std::size_t k) {
				for (std::size_t i = 0; i < ahead; i++)
					is_get ? c.add_get((k + i) % nr_keys) : c.add_put((k + i) % nr_keys);
				if (!c.ask())
					me.fail("an answer is not what it should be");
				return ahead;
			});
		});
	});
}

} // namespace bench

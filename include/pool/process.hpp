// SPDX-License-Identifier: Apache-2.0
// process.hpp - one process, and groups of processes that are restarted. See libpool(7).
//
//	ch::process p({.program = "sort", .arguments = {"-n"}, .in = ch::stdio::pipe(), .out = ch::stdio::file("sorted")});
//	write(p.in(), ...); p.close_in();
//	ch::exit_status s = p.wait();
//
//	ch::process q({}, [](int x) { return x; }, 3);                // a function; what it returns is the exit code
//
// They are forked from a small process that is made at the first use and that reaps them: no SIGCHLD comes from them, and
// no wait() of the application sees them. They end when the process that started them ends, unless they are detached.
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <pool/options.hpp>
#include <pool/task.hpp>
#include <string>
#include <vector>

namespace ch {

namespace detail {
struct process_state;
}

// Where a standard stream goes.
class stdio {
public:
	enum class kind : std::uint8_t { inherit, null, pipe, file, append };

	stdio() = default; // as the process that starts it has it
	static stdio null() { return stdio(kind::null, {}); }
	static stdio pipe() { return stdio(kind::pipe, {}); } // the other end: process::in(), out(), err()
	static stdio file(std::string path) { return stdio(kind::file, std::move(path)); } // read, or written anew
	static stdio append(std::string path) { return stdio(kind::append, std::move(path)); }

	kind what() const noexcept { return kind_; }
	template <class A> void serialize(A &ar) { ar(kind_, path_, fd_); }

	const std::string &path() const noexcept { return path_; }
	int fd() const noexcept { return fd_; }

private:
	friend class process;
	friend struct detail::process_state;
	stdio(kind k, std::string path) : kind_(k), path_(std::move(path)) {}

	kind kind_ = kind::inherit;
	std::string path_;
	int fd_ = -1; // of the creator's end that the child is to open
};

struct process_options {
	std::string program{};                     // a path, or a name that is looked up in PATH; none with a function
	std::vector<std::string> arguments{};      // after the program's name
	std::optional<std::vector<std::string>> environment{}; // NAME=value, all of it; otherwise the starting process's
	std::vector<std::string> add_environment{};            // beside it, or in its place
	std::string directory{};                   // to work in
	stdio in{}, out{}, err{};                  // paths are seen from the starting process's directory
	ch::placement placement{};                 // the CPUs that it may use
	nanoseconds walltime{0};                   // killed when it is over; 0: none
	bool detached = false;                     // lives on; its end is not seen here, and it has no walltime
};

struct CH_API exit_status {
	int status = 0;            // as waitpid(2) reports it
	bool is_timed_out = false; // its walltime was over

	int signal() const noexcept;    // that killed it; 0: it exited
	int exit_code() const noexcept; // -1: it was killed
	bool is_success() const noexcept { return status == 0; }
};

namespace detail {

struct process_call { // a function and its arguments
	std::uint64_t name = 0;
	std::vector<std::byte> bytes;

	template <class A> void serialize(A &ar) { ar(name, bytes); }
};

// In the child: what the function returns is the exit code.
template <class F, class... A> int run_process(std::span<const std::byte> in)
{
	using R = std::invoke_result_t<F &, A...>;
	static_assert(std::is_void_v<R> || std::is_integral_v<R>, "what a process's function returns is its exit code");
	archive::reader ar(in);
	unshipped<F> f(ar);
	std::tuple<A...> args;

	std::apply([&](A &...a) { ar(a...); }, args);
	if constexpr (std::is_void_v<R>) {
		std::apply([&](A &...a) { std::invoke(f.get(), std::move(a)...); }, args);
		return 0;
	} else {
		return static_cast<int>(
			std::apply([&](A &...a) -> R { return std::invoke(f.get(), std::move(a)...); }, args));
	}
}

} // namespace detail

// Move-only. Destroying it kills the process and waits for its end, unless it is detached.
class CH_API process {
public:
	process() = default; // none
	// Throws ch::error with why it could not be started: ENOENT (no such program, file or directory), EACCES...
	explicit process(const process_options &o) : process(o, detail::process_call{}) {}
	template <class F, class... A>
		requires(!std::is_same_v<std::decay_t<F>, detail::process_call>)
	process(const process_options &o, F &&f, A &&...args) : process(o, pack(f, args...))
	{
	}
	process(process &&) noexcept = default;
	process &operator=(process &&o) noexcept;
	~process();

	pid_t pid() const noexcept;
	ch_peer peer() const noexcept;
	bool is_running() const;
	exit_status wait() const;
	std::optional<exit_status> wait_for(nanoseconds timeout) const; // nothing: timeout
	// It cannot be mistaken for a later process with its pid. False: it is gone.
	bool signal(int sig) const;
	bool kill() const;
	// SIGTERM, and after patience SIGKILL; waits for the end.
	exit_status terminate(nanoseconds patience) const;
	// Lets it live without being seen: its end is not waited for.
	void detach() noexcept { s_.reset(); }

	// This side of a pipe, or -1.
	int in() const noexcept;
	int out() const noexcept;
	int err() const noexcept;
	void close_in() noexcept; // it sees the end of its input

private:
	friend class process_group;
	process(const process_options &o, const detail::process_call &c);
	template <class F, class... A> static detail::process_call pack(const F &f, const A &...args)
	{
		using Fn = std::decay_t<F>;
		const detail::shipped<Fn> fn(f);

		return {detail::name_of(detail::code_address(&detail::run_process<Fn, archive::carrier_t<A>...>)),
			archive::to_bytes(fn, detail::as_sent(args)...)};
	}

	std::shared_ptr<detail::process_state> s_;
};

enum class restart {
	never,
	on_failure, // if it did not exit with 0
	always,
};

struct group_options {
	ch::restart restart = ch::restart::on_failure;
	unsigned max_restarts = 3;   // of each; then it stays ended
	nanoseconds backoff{10000000}; // before the first restart of each; doubled for each further one
};

// Processes that are looked after together. All members work in any thread.
class CH_API process_group {
public:
	explicit process_group(const group_options &o = {});
	~process_group(); // kills all
	process_group(const process_group &) = delete;
	process_group &operator=(const process_group &) = delete;

	// Starts one; its number, from 0.
	std::size_t add(const process_options &o);
	template <class F, class... A> std::size_t add(const process_options &o, const F &f, const A &...args)
	{
		return add(o, process::pack(f, args...));
	}
	std::size_t size() const;
	std::size_t nr_running() const;
	std::size_t nr_restarts() const;
	pid_t pid(std::size_t i) const;                        // 0: it is not running
	std::optional<exit_status> last_exit(std::size_t i) const; // nothing: it has not ended yet
	void signal(int sig);
	// Waits until all have ended and none is to be restarted; false: timeout.
	bool join(nanoseconds timeout = nanoseconds(CH_FOREVER));
	// No more restarts; SIGTERM, and after patience SIGKILL. Waits for the end of all.
	void terminate(nanoseconds patience);

private:
	std::size_t add(const process_options &o, const detail::process_call &c);
	struct inside;
	std::unique_ptr<inside> in_;
};

} // namespace ch

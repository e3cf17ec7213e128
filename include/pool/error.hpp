// SPDX-License-Identifier: Apache-2.0
// error.hpp - what future.get() throws when a task did not return: the task's own exception, as far as types allow.
//
// A task's std::runtime_error, logic_error, invalid_argument, domain_error, length_error, out_of_range, range_error,
// overflow_error, underflow_error, bad_alloc, system_error, ch::error or ch::archive_error, or what derives from one
// of these, arrives as that type. All else arrives as ch::task_error. Every one of them is a ch::task_failure as
// well, which tells the type it really had, its message, and the worker.
#pragma once
#include <channels/archive.hpp>
#include <channels/channels.hpp>
#include <cstdint>
#include <string>
#include <sys/types.h>

namespace ch {

namespace detail {

// An exception on its way from a worker.
struct error_record {
	std::uint8_t kind = 0; // enum in errors.cpp
	std::int32_t code = 0;
	pid_t pid = 0;
	std::string category, type, what;

	template <class A> void serialize(A &ar) { ar(kind, code, pid, category, type, what); }
};

// The exception that is being handled, and the calling process.
CH_API error_record current_error();
[[noreturn]] CH_API void rethrow(const error_record &e);

} // namespace detail

// Where and as what a task failed. A base beside the exception's own type:
//	try { f.get(); } catch (const std::invalid_argument &e) { ... }
//	try { f.get(); } catch (const ch::task_failure &e) { log(e.type_name(), e.message(), e.worker()); }
class CH_API task_failure {
public:
	explicit task_failure(detail::error_record e) : e_(std::move(e)) {}
	task_failure(const task_failure &) = default;
	task_failure &operator=(const task_failure &) = default;
	virtual ~task_failure();
	// As the compiler spells it: "std::runtime_error", "my::parse_error".
	const std::string &type_name() const noexcept { return e_.type; }
	const std::string &message() const noexcept { return e_.what; }
	// The process it happened in. It may have gone since.
	pid_t worker() const noexcept { return e_.pid; }

private:
	detail::error_record e_;
};

// A task threw something that is none of the types above; what() is "type: message".
class CH_API task_error : public std::runtime_error, public task_failure {
public:
	explicit task_error(const detail::error_record &e);
	~task_error() override;
};

// The worker died while it ran the task, as often as the pool allows (pool_options.max_attempts, on_death).
class CH_API worker_died : public std::runtime_error {
public:
	worker_died(pid_t pid, int status, unsigned attempts, const std::string &task = {});
	~worker_died() override;
	pid_t pid() const noexcept { return pid_; }           // the last one that died of it
	int status() const noexcept { return status_; }       // as waitpid(2) reports it
	int signal() const noexcept;                          // that killed it; 0: it exited
	int exit_code() const noexcept;                       // -1: it was killed
	unsigned attempts() const noexcept { return attempts_; }

private:
	pid_t pid_;
	int status_;
	unsigned attempts_;
};

// The task ran longer than it may (task_options.timeout); its worker was killed and is replaced.
class CH_API task_timeout : public std::runtime_error {
public:
	explicit task_timeout(pid_t pid, const std::string &task = {});
	~task_timeout() override;
	pid_t pid() const noexcept { return pid_; }

private:
	pid_t pid_;
};

} // namespace ch

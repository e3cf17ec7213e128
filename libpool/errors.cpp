// SPDX-License-Identifier: Apache-2.0
// errors.cpp - exceptions to records, and records to exceptions of the same type.
#include <pool/error.hpp>

#include <cstdlib>
#include <cxxabi.h>
#include <new>
#include <sys/wait.h>
#include <unistd.h>

namespace ch {
namespace detail {
namespace {

// A type that survives the journey, with what names the place it happened in beside it.
template <class E> class remote : public E, public task_failure {
public:
	template <class... A>
	explicit remote(const error_record &e, A &&...a) : E(std::forward<A>(a)...), task_failure(e)
	{
	}
	const char *what() const noexcept override { return message().c_str(); }
};

template <class E> [[noreturn]] void throw_plain(const error_record &e)
{
	if constexpr (std::is_constructible_v<E, const std::string &>)
		throw remote<E>(e, e.what);
	else
		throw remote<E>(e);
}

[[noreturn]] void throw_system(const error_record &e)
{
	const auto &cat = e.category == "system" ? std::system_category() : std::generic_category();

	throw remote<std::system_error>(e, std::error_code(e.code, cat));
}

[[noreturn]] void throw_ch(const error_record &e)
{
	throw remote<ch::error>(e, e.code, "");
}

// The code of a system_error, if it means the same everywhere.
bool has_code(const std::exception &x, error_record &e)
{
	const auto *s = dynamic_cast<const std::system_error *>(&x);

	if (!s)
		return false;
	e.code = s->code().value();
	e.category = s->code().category().name();
	return e.category == "generic" || e.category == "system";
}

template <class E> bool is(const std::exception &x, error_record &)
{
	return dynamic_cast<const E *>(&x);
}

bool is_ch(const std::exception &x, error_record &e)
{
	return has_code(x, e) && dynamic_cast<const ch::error *>(&x);
}

// Derived before base: the first that fits is taken. An exception's kind is its place here, from 1.
constexpr struct {
	bool (*fits)(const std::exception &, error_record &);
	void (*raise)(const error_record &);
} kinds[] = {
	{is_ch, throw_ch},
	{has_code, throw_system},
	{is<archive_error>, throw_plain<archive_error>},
	{is<std::range_error>, throw_plain<std::range_error>},
	{is<std::overflow_error>, throw_plain<std::overflow_error>},
	{is<std::underflow_error>, throw_plain<std::underflow_error>},
	{is<std::runtime_error>, throw_plain<std::runtime_error>},
	{is<std::invalid_argument>, throw_plain<std::invalid_argument>},
	{is<std::domain_error>, throw_plain<std::domain_error>},
	{is<std::length_error>, throw_plain<std::length_error>},
	{is<std::out_of_range>, throw_plain<std::out_of_range>},
	{is<std::logic_error>, throw_plain<std::logic_error>},
	{is<std::bad_alloc>, throw_plain<std::bad_alloc>},
};
constexpr std::size_t nr_kinds = sizeof(kinds) / sizeof(kinds[0]);

std::string current_type()
{
	const std::type_info *t = abi::__cxa_current_exception_type();
	int status = 0;

	if (!t)
		return "unknown";
	const std::unique_ptr<char, void (*)(void *)> name(abi::__cxa_demangle(t->name(), nullptr, nullptr, &status),
							   std::free);
	return name ? name.get() : t->name();
}

} // namespace

error_record current_error()
{
	error_record e;

	e.pid = getpid();
	e.type = current_type();
	try {
		throw;
	} catch (const std::exception &x) {
		e.what = x.what();
		// What is itself a task's failure in a nested pool keeps its first name and place.
		if (const auto *f = dynamic_cast<const task_failure *>(&x)) {
			e.type = f->type_name();
			e.pid = f->worker();
		}
		for (std::size_t i = 0; i < nr_kinds && !e.kind; i++)
			if (kinds[i].fits(x, e))
				e.kind = static_cast<std::uint8_t>(i + 1);
	} catch (...) {
		e.what = "not a std::exception";
	}
	return e;
}

void rethrow(const error_record &e)
{
	if (e.kind && e.kind <= nr_kinds)
		kinds[e.kind - 1].raise(e);
	throw task_error(e);
}

} // namespace detail

namespace {

std::string prefix(const std::string &task)
{
	return task.empty() ? "" : "task " + task + ": ";
}

std::string describe(pid_t pid, int status, unsigned attempts, const std::string &task)
{
	std::string s = prefix(task) + "worker " + std::to_string(pid);

	if (WIFSIGNALED(status))
		s += " was killed by signal " + std::to_string(WTERMSIG(status)) + " (" + strsignal(WTERMSIG(status)) + ")";
	else
		s += " exited with status " + std::to_string(WEXITSTATUS(status));
	return s + " while it ran the task (attempt " + std::to_string(attempts) + ")";
}

} // namespace

task_failure::~task_failure() = default;

task_error::task_error(const detail::error_record &e) : std::runtime_error(e.type + ": " + e.what), task_failure(e) {}

task_error::~task_error() = default;

task_timeout::task_timeout(pid_t pid, const std::string &task)
    : std::runtime_error(prefix(task) + "it ran longer than it may, and worker " + std::to_string(pid) + " was killed for it"),
      pid_(pid)
{
}

task_timeout::~task_timeout() = default;

worker_died::worker_died(pid_t pid, int status, unsigned attempts, const std::string &task)
    : std::runtime_error(describe(pid, status, attempts, task)), pid_(pid), status_(status), attempts_(attempts)
{
}

worker_died::~worker_died() = default;

int worker_died::signal() const noexcept
{
	return WIFSIGNALED(status_) ? WTERMSIG(status_) : 0;
}

int worker_died::exit_code() const noexcept
{
	return WIFEXITED(status_) ? WEXITSTATUS(status_) : -1;
}

} // namespace ch

// SPDX-License-Identifier: Apache-2.0
// named.cpp - functions by name, and the C interface.
#include <pool/named.hpp>

#include <cerrno>
#include <dlfcn.h>
#include <map>
#include <mutex>
#include <unistd.h>

struct chp_pool {
	ch::pool p;
};

struct chp_task {
	ch::future<ch::detail::raw_bytes> f;
	int rc = 1; // not known yet
	std::vector<std::byte> bytes{};
	std::string error{};
};

// Only ever a result_sink, seen from C.
struct chp_result {};

namespace {

using ch::detail::result_sink;

std::map<std::string, chp_fn, std::less<>> &functions()
{
	static std::map<std::string, chp_fn, std::less<>> f;

	return f;
}

std::mutex &functions_mutex()
{
	static std::mutex m;

	return m;
}

// In the worker, which has one thread, and what was registered before it was forked.
chp_fn find(const std::string &name)
{
	const auto it = functions().find(name);
	const std::size_t colon = name.rfind(':');

	if (it != functions().end())
		return it->second;
	if (colon == std::string::npos)
		throw ch::error(ENOENT, ("pool: no function is registered as " + name).c_str());
	void *lib = dlopen(name.substr(0, colon).c_str(), RTLD_NOW | RTLD_LOCAL);
	void *fn = lib ? dlsym(lib, name.c_str() + colon + 1) : nullptr;
	if (!fn)
		throw ch::error(ENOENT, (std::string("pool: ") + dlerror()).c_str());
	const auto f = reinterpret_cast<chp_fn>(fn);
	functions().emplace(name, f); // it stays loaded
	return f;
}

// A function that asks for no space has an empty result.
void call_by_name(std::span<const std::byte> in, result_sink &out)
{
	ch::archive::reader ar(in);
	const auto name = ar.next<std::string>();
	const std::span<const std::byte> rest = ar.rest();
	const chp_fn fn = find(name);

	out.space(0);
	if (const int err = fn(rest.data(), rest.size(), reinterpret_cast<chp_result *>(&out)))
		throw ch::error(err, (name + " failed").c_str());
}

// What f throws as a negative errno value.
template <class F> int guarded(std::string *text, F f) noexcept
{
	const auto say = [&](const std::exception &e) {
		try {
			if (text)
				*text = e.what();
		} catch (...) {
		}
	};

	try {
		return f();
	} catch (const std::system_error &e) {
		say(e);
		return e.code().value() > 0 ? -e.code().value() : -EIO;
	} catch (const ch::worker_died &e) {
		say(e);
		return -EOWNERDEAD;
	} catch (const std::bad_alloc &e) {
		say(e);
		return -ENOMEM;
	} catch (const std::exception &e) {
		say(e);
		return -EIO;
	}
}

} // namespace

namespace ch::detail {

future<raw_bytes> submit_named(pool &p, std::string_view name, std::span<const std::byte> in)
{
	static const std::uint64_t thunk_name = name_of(code_address(&call_by_name));
	draft d(p.core(), thunk_name, archive::size(name) + in.size());
	const std::size_t at = archive::write(d.room(), name);

	if (!in.empty())
		std::memcpy(d.room().data() + at, in.data(), in.size());
	return future_access::make<raw_bytes>(d.commit());
}

} // namespace ch::detail

void *chp_result_space(chp_result *out, size_t len)
{
	try {
		return reinterpret_cast<result_sink *>(out)->space(len).data();
	} catch (...) {
		return nullptr;
	}
}

int chp_register(const char *name, chp_fn fn)
{
	if (!name || !*name || !fn)
		return -EINVAL;
	return guarded(nullptr, [&] {
		const std::lock_guard<std::mutex> l(functions_mutex());

		return functions().emplace(name, fn).second ? 0 : -EEXIST;
	});
}

int chp_create(unsigned workers, chp_pool **out_pool)
{
	if (!out_pool)
		return -EINVAL;
	return guarded(nullptr, [&] {
		const std::lock_guard<std::mutex> l(functions_mutex()); // the workers find the map whole
		*out_pool = new chp_pool{ch::pool(workers)};
		return 0;
	});
}

void chp_destroy(chp_pool *pool)
{
	if (pool)
		pool->p.terminate();
	delete pool;
}

int chp_submit(chp_pool *pool, const char *name, const void *in, size_t len, chp_task **out_task)
{
	if (!pool || !name || (!in && len) || !out_task)
		return -EINVAL;
	return guarded(nullptr, [&] {
		*out_task = new chp_task{ch::submit_named(pool->p, name, {static_cast<const std::byte *>(in), len})};
		return 0;
	});
}

int chp_wait(chp_task *task, int64_t timeout_ns, const void **out_data, size_t *out_len)
{
	if (!task)
		return -EINVAL;
	if (task->rc > 0) {
		if (!(timeout_ns < 0 ? (task->f.wait(), true) : task->f.wait_for(std::chrono::nanoseconds(timeout_ns))))
			return -ETIMEDOUT;
		task->rc = guarded(&task->error, [&] {
			task->bytes = task->f.get().bytes;
			return 0;
		});
	}
	if (task->rc == 0 && out_data)
		*out_data = task->bytes.data();
	if (task->rc == 0 && out_len)
		*out_len = task->bytes.size();
	return task->rc;
}

const char *chp_error(const chp_task *task)
{
	return task ? task->error.c_str() : "";
}

int chp_cancel(chp_task *task)
{
	return task && task->f.cancel();
}

void chp_release(chp_task *task)
{
	delete task;
}

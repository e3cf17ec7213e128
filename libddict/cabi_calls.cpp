// SPDX-License-Identifier: Apache-2.0
// cabi_calls.cpp - the C functions of calls under way.
#include "cabi.hpp"
#include <bit>

using namespace ch::dd;
using ch::ddict_core;

enum class answer { nothing, value, taken, yes_or_no, number, length };

struct ch_ddict_call {
	ch::ddict_call call;
	answer is;
};

// start(core) begins it.
template <class Start> static int begin(ch_ddict *dict, ch_ddict_call **out_call, answer is, Start &&start)
{
	return guarded(dict && out_call, [&] {
		*out_call = new ch_ddict_call{start(dict->core), is};
		return 0;
	});
}

int ch_ddict_start_put(ch_ddict *dict, const void *key, size_t klen, const void *value, size_t vlen,
		       const ch_ddict_put_attr *attr, struct ch_ddict_call **out_call)
{
	return begin(dict, out_call, answer::nothing, [&](const ddict_core &core) {
		const copied from{span(value, vlen)};

		return core.start_put(span(key, klen), vlen, from, put_of(attr));
	});
}

int ch_ddict_start_put_if_absent(ch_ddict *dict, const void *key, size_t klen, const void *value, size_t vlen,
				 const ch_ddict_put_attr *attr, struct ch_ddict_call **out_call)
{
	return begin(dict, out_call, answer::yes_or_no, [&](const ddict_core &core) {
		const copied from{span(value, vlen)};

		return core.start_put_if_absent(span(key, klen), vlen, from, put_of(attr));
	});
}

int ch_ddict_start_compare_and_set(ch_ddict *dict, const void *key, size_t klen, const void *expected,
				   size_t expected_len, const void *value, size_t vlen, struct ch_ddict_call **out_call)
{
	return begin(dict, out_call, answer::yes_or_no, [&](const ddict_core &core) {
		const copied from{span(value, vlen)};

		return core.start_compare_and_set(span(key, klen), span(expected, expected_len), vlen, from);
	});
}

int ch_ddict_start_get(ch_ddict *dict, const void *key, size_t klen, struct ch_ddict_call **out_call)
{
	return begin(dict, out_call, answer::value,
		     [&](const ddict_core &core) { return core.start_get(span(key, klen)); });
}

int ch_ddict_start_pop(ch_ddict *dict, const void *key, size_t klen, struct ch_ddict_call **out_call)
{
	return begin(dict, out_call, answer::taken,
		     [&](const ddict_core &core) { return core.start_pop(span(key, klen)); });
}

int ch_ddict_start_contains(ch_ddict *dict, const void *key, size_t klen, struct ch_ddict_call **out_call)
{
	return begin(dict, out_call, answer::yes_or_no,
		     [&](const ddict_core &core) { return core.start_contains(span(key, klen)); });
}

int ch_ddict_start_erase(ch_ddict *dict, const void *key, size_t klen, struct ch_ddict_call **out_call)
{
	return begin(dict, out_call, answer::yes_or_no,
		     [&](const ddict_core &core) { return core.start_erase(span(key, klen)); });
}

int ch_ddict_start_append(ch_ddict *dict, const void *key, size_t klen, const void *more, size_t len,
			  struct ch_ddict_call **out_call)
{
	return begin(dict, out_call, answer::length,
		     [&](const ddict_core &core) { return core.start_append(span(key, klen), span(more, len)); });
}

int ch_ddict_start_wait_for(ch_ddict *dict, const void *key, size_t klen, const void *value, size_t vlen,
			    struct ch_ddict_call **out_call)
{
	return begin(dict, out_call, answer::yes_or_no,
		     [&](const ddict_core &core) { return core.start_wait_for(span(key, klen), span(value, vlen)); });
}

template <class T>
static int start_fetch_add(ch_ddict *dict, const void *key, size_t klen, T delta, struct ch_ddict_call **out_call)
{
	return begin(dict, out_call, answer::number, [&](const ddict_core &core) {
		return core.start_fetch_add(span(key, klen), ch::ddict_number_of<T>,
					    std::bit_cast<std::uint64_t>(delta));
	});
}

int ch_ddict_start_fetch_add_i64(ch_ddict *dict, const void *key, size_t klen, int64_t delta,
				 struct ch_ddict_call **out_call)
{
	return start_fetch_add(dict, key, klen, delta, out_call);
}

int ch_ddict_start_fetch_add_f64(ch_ddict *dict, const void *key, size_t klen, double delta,
				 struct ch_ddict_call **out_call)
{
	return start_fetch_add(dict, key, klen, delta, out_call);
}

int ch_ddict_call_is_ready(struct ch_ddict_call *call)
{
	return guarded(call, [&] { return static_cast<int>(call->call.is_ready()); });
}

ssize_t ch_ddict_call_wait(struct ch_ddict_call *call, void *buf, size_t cap)
{
	return guarded(call && (buf || !cap), [&]() -> ssize_t {
		const std::unique_ptr<struct ch_ddict_call> end(call);
		into to{buf, cap};

		switch (call->is) {
		case answer::nothing:
			call->call.done();
			return 0;
		case answer::yes_or_no:
			return call->call.done();
		case answer::value:
			return fitting(call->call.read(to), to);
		case answer::taken:
			return call->call.read(to) ? static_cast<ssize_t>(to.len) : failed(ENOENT, "ddict: no such key");
		case answer::length:
			return static_cast<ssize_t>(call->call.number());
		case answer::number:
			break;
		}
		const std::uint64_t bits = call->call.number();

		to(std::as_bytes(std::span(&bits, 1)));
		return fitting(true, to);
	});
}

void ch_ddict_call_forget(struct ch_ddict_call *call)
{
	delete call;
}

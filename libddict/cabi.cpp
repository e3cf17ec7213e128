// SPDX-License-Identifier: Apache-2.0
// cabi.cpp - the C functions of ddict.h over ddict_core: exceptions become codes, and their texts ch_ddict_errmsg.
#include "cabi.hpp"
#include <algorithm>
#include <cerrno>

namespace ch::dd {

// Of this thread. A fixed buffer: there is nothing to free when the thread ends.
static thread_local char message[512];

int failed(int errnum, const char *why) noexcept
{
	std::snprintf(message, sizeof(message), "%s", why);
	return -errnum;
}

ddict_put put_of(const ch_ddict_put_attr *attr)
{
	if (!attr)
		return {};
	if (attr->size < sizeof(*attr))
		refuse(EINVAL, "ddict: struct ch_ddict_put_attr: its size is not set");
	return {.ttl = nanoseconds(attr->ttl_ns), .persistent = attr->is_persistent != 0};
}

// The fields that a caller with an older header does not know are their defaults.
ddict_options options_of(const ch_ddict_attr *attr)
{
	ch_ddict_attr a = CH_DDICT_ATTR_INIT;
	ddict_options o;

	if (attr) {
		if (attr->size < offsetof(ch_ddict_attr, managers) + sizeof(attr->managers))
			refuse(EINVAL, "ddict: struct ch_ddict_attr: its size is not set");
		for (std::size_t i = sizeof(a); i < attr->size; i++)
			if (reinterpret_cast<const unsigned char *>(attr)[i])
				refuse(E2BIG, "ddict: struct ch_ddict_attr has fields that this library does not know");
		std::memcpy(&a, attr, std::min<std::size_t>(attr->size, sizeof(a)));
	}
	if (a.when_full > CH_DDICT_EVICT ||
	    (a.flags & ~(CH_DDICT_WAIT_FOR_KEYS | CH_DDICT_WAIT_FOR_WRITERS | CH_DDICT_READ_ONLY | CH_DDICT_LOG |
		      CH_DDICT_RESTORE | CH_DDICT_RESTART)) ||
	    a.persist_count > UINT32_MAX || a.placement > CH_DDICT_SPREAD || a.reserved)
		refuse(EINVAL, "ddict: struct ch_ddict_attr has values that mean nothing");
	o.managers = a.managers;
	o.memory = a.memory;
	o.max_memory = a.max_memory;
	o.name = a.name ? a.name : "";
	o.max_clients = a.max_clients;
	o.when_full = static_cast<ddict_full>(a.when_full);
	o.working_set = a.working_set;
	o.wait_for_keys = a.flags & CH_DDICT_WAIT_FOR_KEYS;
	o.wait_for_writers = a.flags & CH_DDICT_WAIT_FOR_WRITERS;
	o.read_only = a.flags & CH_DDICT_READ_ONLY;
	o.replicas = std::max(a.replicas, 1u);
	o.persist_path = a.persist_path ? a.persist_path : "";
	o.persist_freq = a.persist_freq;
	o.persist_count = static_cast<unsigned>(a.persist_count);
	o.persist_log = a.flags & CH_DDICT_LOG;
	o.placement = static_cast<ddict_placement>(a.placement);
	for (std::string_view left = a.cpus ? a.cpus : ""; !left.empty();) {
		const std::size_t end = std::min(left.find(';'), left.size());

		o.cpus.emplace_back(left.substr(0, end));
		left.remove_prefix(std::min(end + 1, left.size()));
	}
	o.restart = a.flags & CH_DDICT_RESTART;
	if (a.flags & CH_DDICT_RESTORE)
		o.restore_from = a.restore_from;
	return o;
}

} // namespace ch::dd

using namespace ch::dd;
using ch::ddict_core;

const char *ch_ddict_errmsg(void)
{
	return message;
}

int ch_ddict_create(const ch_ddict_attr *attr, ch_ddict **out_dict)
{
	return guarded(out_dict, [&] {
		*out_dict = new ch_ddict{ddict_core::create(options_of(attr))};
		return 0;
	});
}

int ch_ddict_attach(const ch_descr *descr, ch_ddict **out_dict)
{
	return guarded(descr && out_dict, [&] {
		ch::descriptor d{};

		std::memcpy(d.bytes, descr->bytes, sizeof(d.bytes));
		*out_dict = new ch_ddict{ddict_core::attach(d)};
		return 0;
	});
}

int ch_ddict_attach_name(const char *name, ch_ddict **out_dict)
{
	return guarded(name && out_dict, [&] {
		*out_dict = new ch_ddict{ddict_core::attach(std::string(name))};
		return 0;
	});
}

int ch_ddict_copy(const ch_ddict *dict, ch_ddict **out_dict)
{
	return guarded(dict && out_dict, [&] {
		*out_dict = new ch_ddict{dict->core};
		return 0;
	});
}

void ch_ddict_detach(ch_ddict *dict)
{
	delete dict;
}

int ch_ddict_destroy_for_restart(ch_ddict *dict)
{
	return guarded(dict, [&] {
		dict->core.destroy_for_restart();
		delete dict;
		return 0;
	});
}

int ch_ddict_drop_kept(const char *name)
{
	return guarded(name, [&] { return static_cast<int>(ddict_core::drop_kept(name)); });
}

void ch_ddict_destroy(ch_ddict *dict)
{
	if (dict)
		dict->core.destroy();
	delete dict;
}

int ch_ddict_get_descr(const ch_ddict *dict, ch_descr *out_descr)
{
	return guarded(dict && out_descr, [&] {
		*out_descr = dict->core.descr();
		return 0;
	});
}

int ch_ddict_count_managers(const ch_ddict *dict)
{
	return guarded(dict, [&] { return static_cast<int>(dict->core.managers()); });
}

int ch_ddict_which_manager(const ch_ddict *dict, const void *key, size_t klen)
{
	return guarded(dict, [&] { return static_cast<int>(dict->core.which_manager(span(key, klen))); });
}

int ch_ddict_set_timeout(ch_ddict *dict, int64_t timeout_ns)
{
	return guarded(dict, [&] {
		dict->core = dict->core.within(ch::nanoseconds(timeout_ns));
		return 0;
	});
}

int ch_ddict_set_manager(ch_ddict *dict, int manager)
{
	return guarded(dict, [&] {
		dict->core =
			manager < 0 ? dict->core.undirected() : dict->core.directed(static_cast<unsigned>(manager));
		return 0;
	});
}

int64_t ch_ddict_checkpoint(ch_ddict *dict)
{
	return guarded(dict, [&] { return static_cast<int64_t>(dict->core.checkpoint()); });
}

int64_t ch_ddict_rollback(ch_ddict *dict)
{
	return guarded(dict, [&] { return static_cast<int64_t>(dict->core.rollback()); });
}

int64_t ch_ddict_sync_to_newest_checkpoint(ch_ddict *dict)
{
	return guarded(dict, [&] { return static_cast<int64_t>(dict->core.sync_to_newest_checkpoint()); });
}

int64_t ch_ddict_get_checkpoint(const ch_ddict *dict)
{
	return guarded(dict, [&] { return static_cast<int64_t>(dict->core.checkpoint_id()); });
}

int ch_ddict_set_checkpoint(ch_ddict *dict, int64_t id)
{
	return guarded(dict && id >= 0, [&] {
		dict->core.set_checkpoint(static_cast<std::uint64_t>(id));
		return 0;
	});
}

int64_t ch_ddict_persist(ch_ddict *dict)
{
	return guarded(dict, [&] { return static_cast<int64_t>(dict->core.persist()); });
}

int ch_ddict_restore(ch_ddict *dict, int64_t id)
{
	return guarded(dict && id >= 0, [&] {
		dict->core.restore(static_cast<std::uint64_t>(id));
		return 0;
	});
}

int64_t ch_ddict_advance(ch_ddict *dict)
{
	return guarded(dict, [&]() -> int64_t {
		const std::optional<std::uint64_t> id = dict->core.advance();

		if (!id)
			refuse(ENOENT, "ddict: no later checkpoint was persisted");
		return static_cast<int64_t>(*id);
	});
}

ssize_t ch_ddict_get_persisted(ch_ddict *dict, uint64_t *ids, size_t cap)
{
	return guarded(dict && (ids || !cap), [&] {
		const std::vector<std::uint64_t> all = dict->core.persisted_ids();

		std::copy_n(all.begin(), std::min(cap, all.size()), ids);
		return static_cast<ssize_t>(all.size());
	});
}

int ch_ddict_flush(ch_ddict *dict)
{
	return guarded(dict, [&] {
		dict->core.flush();
		return 0;
	});
}

int64_t ch_ddict_size(ch_ddict *dict)
{
	return guarded(dict, [&] { return static_cast<int64_t>(dict->core.size()); });
}

int64_t ch_ddict_clear(ch_ddict *dict)
{
	return guarded(dict, [&] { return static_cast<int64_t>(dict->core.clear()); });
}

int ch_ddict_freeze(ch_ddict *dict)
{
	return guarded(dict, [&] { return static_cast<int>(dict->core.freeze(true)); });
}

int ch_ddict_unfreeze(ch_ddict *dict)
{
	return guarded(dict, [&] { return static_cast<int>(dict->core.freeze(false)); });
}

int ch_ddict_is_frozen(ch_ddict *dict)
{
	return guarded(dict, [&] { return static_cast<int>(dict->core.is_frozen()); });
}

int ch_ddict_get_stats(ch_ddict *dict, int manager, ch_ddict_stats *out_stats)
{
	return guarded(dict && manager >= 0 && out_stats, [&] {
		const ch::ddict_stats s = dict->core.directed(static_cast<unsigned>(manager)).stats().at(0);

		*out_stats = {s.memory,  s.used,    s.largest, s.keys,   s.clients, s.pinned,
			      s.waiting, s.evicted, s.expired, s.oldest, s.newest, s.single, s.deaths, s.lost};
		return 0;
	});
}

int ch_ddict_get_op_stats(ch_ddict *dict, int manager, const char *op, ch_ddict_op_stats *out_stats)
{
	return guarded(dict && manager >= 0 && op && out_stats, [&] {
		const std::vector<ch::ddict_stats> all = dict->core.directed(static_cast<unsigned>(manager)).stats();

		for (const ch::ddict_op_stats &o : all.at(0).ops)
			if (std::strcmp(o.name, op) == 0) {
				*out_stats = {o.count, o.p50_ns, o.p99_ns, o.max_ns, o.buckets.size(), {}};
				for (std::size_t b = 0; b < o.buckets.size(); b++)
					out_stats->buckets[b] = {o.buckets[b].below_ns, o.buckets[b].count};
				return 0;
			}
		return failed(ENOENT, "ddict: this operation was not called");
	});
}

// SPDX-License-Identifier: Apache-2.0
// cabi_visit.cpp - the C functions that work on whole dictionaries: functions next to the data, and copies.
#include "cabi.hpp"
#include "visit.hpp"

using namespace ch::dd;
using ch::ddict_core;

struct ch_ddict_visit {
	ch::ddict_visit &visit;
};

// The name of the C function stands in front of what it is given.
static void call_c(ch::ddict_visit &v, ddict_core::bytes arg)
{
	const char *why = "damaged name of a function";
	const auto fn = arg.size() < sizeof(visit_head) ? 0 : address_of(load<visit_head>(arg.data()), why);
	ch_ddict_visit visit{v};

	if (!fn)
		refuse(ENOENT, "ddict: " + std::string(why));
	const bytes rest = arg.subspan(sizeof(visit_head));
	const int rc = reinterpret_cast<ch_ddict_visitor>(fn)(&visit, rest.data(), rest.size());

	if (rc < 0)
		refuse(-rc, "ddict: the function that ran next to the data with manager " +
				    std::to_string(v.manager()) + " returned " + std::to_string(rc));
}

int ch_ddict_run(ch_ddict *dict, ch_ddict_visitor fn, const void *arg, size_t len, struct ch_ddict_view **out_answer)
{
	return guarded(dict && fn && out_answer, [&] {
		const visit_head f = name_of(reinterpret_cast<std::uintptr_t>(fn));
		const ddict_core::bytes name = std::as_bytes(std::span(&f, 1)), more = span(arg, len);
		std::vector<std::byte> whole(name.begin(), name.end());

		whole.insert(whole.end(), more.begin(), more.end());
		*out_answer = new ch_ddict_view{dict->core.visit(call_c, whole)};
		return 0;
	});
}

int ch_ddict_visit_next(struct ch_ddict_visit *visit, ch_ddict_item *out_item)
{
	return guarded(visit && out_item, [&] {
		if (!visit->visit.next())
			return 0;
		const ddict_core::bytes k = visit->visit.key(), v = visit->visit.value();

		*out_item = {k.data(), k.size(), v.data(), v.size()};
		return 1;
	});
}

int ch_ddict_visit_next_part(struct ch_ddict_visit *visit, const void **out_part, size_t *out_len)
{
	return guarded(visit && out_part && out_len, [&] {
		if (!visit->visit.next_part())
			return 0;
		*out_part = visit->visit.part().data();
		*out_len = visit->visit.part().size();
		return 1;
	});
}

int ch_ddict_visit_answer(struct ch_ddict_visit *visit, const void *more, size_t len)
{
	return guarded(visit, [&] {
		visit->visit.answer(span(more, len));
		return 0;
	});
}

int ch_ddict_clone(ch_ddict *dict, const ch_ddict_attr *attr, ch_ddict **out_dict)
{
	return guarded(dict && out_dict, [&] {
		*out_dict = new ch_ddict{dict->core.clone(options_of(attr))};
		return 0;
	});
}

int64_t ch_ddict_copy_to(ch_ddict *dict, ch_ddict *to)
{
	return guarded(dict && to, [&] { return static_cast<int64_t>(dict->core.copy_to(to->core)); });
}

int64_t ch_ddict_synchronise(ch_ddict *const *dicts, size_t nr)
{
	return guarded(dicts || !nr, [&] {
		std::vector<ddict_core> all;

		for (size_t i = 0; i < nr; i++) {
			if (!dicts[i])
				refuse(EINVAL, "ddict: a dictionary is NULL");
			all.push_back(dicts[i]->core);
		}
		return static_cast<int64_t>(ddict_core::synchronise(all));
	});
}

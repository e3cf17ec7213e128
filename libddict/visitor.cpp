// SPDX-License-Identifier: Apache-2.0
// visitor.cpp - the two ends of a visit: who asks for it, and what the function that runs next to the data is given.
#include "visit.hpp"
#include "pending.hpp"
#include <algorithm>
#include <channels/module.h>

namespace ch {

// ---- the function's

bool ddict_visit::next()
{
	while ((s_.entry = s_.from.next(s_.slot)))
		if ((s_.version = dd::store::seen(*s_.entry, s_.at)))
			return true;
	return false;
}

ddict_visit::bytes ddict_visit::key() const noexcept
{
	return s_.entry ? s_.entry->key() : bytes();
}

ddict_visit::bytes ddict_visit::value() const noexcept
{
	return s_.entry ? s_.version->val() : bytes();
}

unsigned ddict_visit::manager() const noexcept
{
	return s_.manager;
}

bool ddict_visit::next_part()
{
	s_.part.reset();
	if (s_.nr_parts == s_.parts.size())
		return false;
	s_.part = ddict_core::visited(std::move(s_.parts[s_.nr_parts++]));
	return true;
}

ddict_visit::bytes ddict_visit::part() const noexcept
{
	return s_.part.data();
}

void ddict_visit::answer(bytes more)
{
	s_.answer.insert(s_.answer.end(), more.begin(), more.end());
}

// ---- asking

namespace dd {

visit_head name_of(std::uintptr_t fn)
{
	visit_head h{};
	ch_module m;

	check(ch_module_of(reinterpret_cast<const void *>(fn), &m));
	std::memcpy(h.module, m.id, sizeof(h.module));
	h.module_len = m.id_len;
	h.offset = fn - m.base;
	return h;
}

std::uintptr_t address_of(const visit_head &h, const char *&why)
{
	ch_module m;

	if (h.module_len > sizeof(h.module) || ch_module_find(h.module, h.module_len, &m) < 0) {
		why = "the function lies in no part of the program that created the dictionary, nor in a library that "
		      "it had loaded then, or in another build of it";
		return 0;
	}
	if (h.offset >= m.code_end - m.base || m.base + h.offset < m.code) {
		why = "damaged name of a function";
		return 0;
	}
	return m.base + h.offset;
}

} // namespace dd

ddict_call ddict_core::start_visit(const dd::visit_head &head, bytes arg) const
{
	const auto copy = [&](std::span<std::byte> to) {
		std::memcpy(to.data(), &head, sizeof(head));
		dd::copied{arg}(to.subspan(sizeof(head)));
	};
	const value_writer w = copy;

	return directed(head.first)
		.begin(fitted({.what = dd::op::visit, .vlen = sizeof(head) + arg.size(), .write = &w}));
}

// The answer, in place if it is long.
ddict_view ddict_core::visited(ddict_call &&c)
{
	std::unique_ptr<dd::pending> p = std::move(c.p_);

	p->status = p->conn->wait(p->call, p->until).status;
	p->is_done = true;
	if (p->status < 0)
		p->conn->fail_visit(p->call);
	return view_of(std::move(p));
}

// Also once more behind it: should a manager have died meanwhile, its keys are missing.
ddict_view ddict_core::visit(ddict_visitor fn, bytes arg) const
{
	dd::connection &co = conn();
	dd::visit_head h = dd::name_of(reinterpret_cast<std::uintptr_t>(fn));
	const std::int64_t until = dd::deadline_of(timeout_ns_);

	h.first = is_directed() ? static_cast<std::uint32_t>(directed_) : 0;
	h.end = is_directed() ? h.first + 1 : co.managers();
	for (unsigned m = h.first; m < h.end; m++)
		co.meet(m, until);
	ddict_view v = visited(start_visit(h, arg));

	for (unsigned m = h.first; m < h.end; m++)
		co.meet(m, until);
	return v;
}

// In parts of one size, as far as possible: each is given to its first manager, which asks the others of it.
void ddict_visit::state::ask(const ddict_core &core, const dd::visit_head &head, bytes arg)
{
	const std::uint32_t first = manager + 1, nr = std::min(head.end, core.managers()) - std::min(head.end, first);
	const std::uint32_t wanted = std::min(nr, visit_fan);

	for (std::uint32_t i = 0; i < wanted; i++) {
		dd::visit_head h = head;

		h.first = first + nr * i / wanted;
		h.end = first + nr * (i + 1) / wanted;
		parts.push_back(core.start_visit(h, arg));
	}
}

} // namespace ch

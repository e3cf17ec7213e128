// SPDX-License-Identifier: Apache-2.0
// checkpoint.cpp - the working set of a manager: which checkpoints it holds, when the oldest retires, and what is read
// at each. The rules are the table in libddict(7).
#include "manager.hpp"
#include <algorithm>

namespace ch::dd {

// Whether a write at the call's checkpoint may go on: 0, or a negative errno, or has_to_wait. Moves the working set.
int manager::enter(const call &c, bool &has_to_wait)
{
	const std::uint64_t at = c.head.at;

	if (is_frozen_ || rules_.read_only)
		return -EPERM;
	if (at < store_.oldest())
		return -ERANGE;
	if (at > newest_) {
		const std::uint64_t oldest = at >= rules_.working_set ? at - rules_.working_set + 1 : 0;

		for (std::uint64_t r = store_.oldest(); r < std::min(oldest, newest_ + 1); r++) {
			if (!may_retire(r, c.head.client)) {
				has_to_wait = true;
				return 0;
			}
			if (persister_ && persister_->is_due(r) && !persister_->begin(r, persister_->serial_of(r), 0, 0)) {
				has_to_wait = true; // for the last one to be written
				return 0;
			}
			store_.retire_before(r + 1);
			writers_.erase(r);
		}
		store_.retire_before(oldest);
		go_on_to(at);
	}
	if (rules_.wait_for_writers)
		writers_[at].insert(c.head.client);
	return 0;
}

bool manager::may_retire(std::uint64_t checkpoint, std::uint64_t for_whom)
{
	return (!rules_.wait_for_keys || keys_are_complete(checkpoint)) &&
	       (!rules_.wait_for_writers || writers_have_gone_on(checkpoint, for_whom));
}

static bool is_written_at(const entry &e, std::uint64_t at)
{
	for (const version *v = &e.v; v; v = v->older.get())
		if (v->at == at)
			return true;
	return false;
}

static bool needs_next(const entry &e, std::uint64_t at)
{
	for (const version *v = &e.v; v; v = v->older.get())
		if (v->at == at)
			return !v->is_deleted && !v->is_persistent && !is_written_at(e, at + 1);
	return false;
}

// Whether each key of this checkpoint that is not persistent was written, or erased, at the next one. Asked again and
// again while calls wait; keys that were complete stay so, and are not looked at again.
bool manager::keys_are_complete(std::uint64_t checkpoint)
{
	if (unchecked_for_ != checkpoint) {
		unchecked_for_ = checkpoint;
		unchecked_ = 0;
	}
	for (std::uint64_t at = unchecked_; const entry *e = store_.next(at);) {
		if (needs_next(*e, checkpoint))
			return false;
		unchecked_ = at;
	}
	return true;
}

// Who asks has gone on by asking; clients that have gone altogether are waited for by nobody.
bool manager::writers_have_gone_on(std::uint64_t checkpoint, std::uint64_t for_whom) const
{
	const auto of = writers_.find(checkpoint);

	if (of == writers_.end())
		return true;
	return std::all_of(of->second.begin(), of->second.end(), [&](std::uint64_t id) {
		const std::size_t i = id & 0xffff;

		if (i >= clients_.size() || clients_[i].id != id || id == for_whom)
			return true;
		return std::any_of(std::next(of), writers_.end(),
				   [&](const auto &later) { return later.second.count(id) != 0; });
	});
}

// What a read at the call's checkpoint sees. With wait_for_keys, a key that is not persistent is read exactly at that
// checkpoint, and waited for.
const version *manager::readable(const call &c, bytes key, bool &has_to_wait)
{
	const version *v = store_.find(key, c.head.at);

	if (!rules_.wait_for_keys || (v && (v->is_persistent || v->at == c.head.at)))
		return v;
	if (const entry *e = store_.newest(key); e && is_written_at(*e, c.head.at))
		return nullptr; // erased there
	has_to_wait = !(c.head.flags & get_fresh);
	return nullptr;
}

} // namespace ch::dd

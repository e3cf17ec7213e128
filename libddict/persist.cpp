// SPDX-License-Identifier: Apache-2.0
// persist.cpp - what a manager does for requests that have to do with files.
#include "manager.hpp"
#include <cstdio>

namespace ch::dd {

// Wakes the manager: a request of nobody, which is dropped. If the channel is full, it is awake.
static void poke(ch_channel *requests)
{
	const request nothing{0, 0, 0, 0, 0, sizeof(request), 0, 0, -1, 0};

	ch_channel_send(requests, &nothing, sizeof(nothing), CH_TRY);
}

void manager::begin_files(const persist_rules &files)
{
	persister_ = std::make_unique<persister>(files, store_, index_, nr_managers_,
						 [requests = requests_.get()] { poke(requests); });
	if (incarnation_ == 1 || !files.has_log)
		return;
	try {
		go_on_to(persister_->succeed(rules_.working_set));
	} catch (const error &e) {
		std::fprintf(stderr, "ddict: manager %u: its predecessor's log cannot be read: %s\n", index_, e.what());
		persister_->give_up(e.what());
		store_.clear();
	}
}

void manager::keep_files()
{
	for (persister *p : {persister_.get(), kept_.get()})
		if (p)
			work_on_files(*p);
}

void manager::work_on_files(persister &p)
{
	for (const persister::answer &a : p.work()) {
		if (client *to = find_client(a.client))
			answer_text(*to, a.id, a.status, a.text);
		else if (a.status < 0)
			std::fprintf(stderr, "ddict: manager %u: %s\n", index_, a.text.c_str());
	}
}

manager::outcome manager::persist(const call &c)
{
	if (!persister_) {
		answer_text(c, -EINVAL, no_files);
	} else if (c.head.flags & persist_drop) {
		persister_->forget(c.head.at, c.head.arg);
		answer(c, 0);
	} else if (c.head.at < store_.oldest()) {
		answer_text(c, -ERANGE, "the checkpoint that is to be persisted has retired");
	} else if (!persister_->begin(c.head.at, c.head.arg, c.from->id, c.head.id)) {
		return outcome::on_any;
	}
	return outcome::answered;
}

// The directory that a request names.
std::unique_ptr<persister> manager::kept_in(const call &c, bool is_reader)
{
	persist_rules rules{};

	if (c.value.empty() || c.value.size() >= sizeof(rules.dir))
		refuse(EINVAL, "no directory");
	std::memcpy(rules.dir, c.value.data(), c.value.size());
	rules.epoch = c.head.arg;
	rules.has_log = !is_reader;
	rules.is_reader = is_reader;
	return std::make_unique<persister>(rules, store_, index_, nr_managers_,
					   [requests = requests_.get()] { poke(requests); });
}

// Answered when all of it is there.
manager::outcome manager::keep(const call &c)
{
	if (c.value.empty()) {
		is_frozen_ = kept_ ? was_frozen_ : is_frozen_;
		kept_.reset();
		offer_promises();
		return answer(c, 0), outcome::answered;
	}
	if (kept_)
		return answer_text(c, -EBUSY, "it is being kept already"), outcome::answered;
	if (!has_no_promises())
		return outcome::on_any;
	try {
		kept_ = kept_in(c, false);
		was_frozen_ = std::exchange(is_frozen_, true);
		kept_->flush(c.from->id, c.head.id);
	} catch (const error &e) {
		offer_promises();
		answer_text(c, -e.code().value(), e.what());
	}
	return outcome::answered;
}

// Reads while nobody else is served: what was there stays until the commit.
void manager::restore(const call &c)
{
	const bool is_kept = c.head.flags & restore_kept;

	if (c.head.flags & restore_commit)
		return commit_restored(c, is_kept ? kept_ : persister_);
	if (!persister_ && !is_kept)
		return answer_text(c, -EINVAL, no_files);
	try {
		if (is_kept)
			kept_ = kept_in(c, true);
		persister &from = is_kept ? *kept_ : *persister_;

		if (c.head.flags & restore_drop)
			from.drop();
		else if (is_frozen_)
			return answer_text(c, -EPERM, "the dictionary is frozen");
		else
			from.load(c.head.arg, rules_.working_set,
					 rules_.when_full == static_cast<std::uint32_t>(ddict_full::evict));
		answer(c, 0);
	} catch (const error &e) {
		answer_text(c, -e.code().value(), e.what());
	}
}

void manager::commit_restored(const call &c, std::unique_ptr<persister> &from)
{
	if (!from || !from->is_loaded())
		return answer_text(c, -EINVAL, "nothing was read that could be restored");
	int status = 0;
	std::string text;

	go_on_to(from->commit());
	try {
		if (persister_)
			persister_->follow_commit();
	} catch (const error &e) {
		status = -e.code().value();
		text = e.what();
	}
	kept_.reset();
	writers_.clear();
	unchecked_for_ = ~std::uint64_t{0};
	for (parked &p : parked_)
		p.is_for_any = true; // every key may have changed
	if (rules_.replicas > 1) {
		post(&next_, op::mirror_begin, {}, nullptr, 0, nullptr, 0);
		mirror_all(&next_, store_, op::mirror_put, store_.oldest(), newest_);
	}
	if (status < 0)
		return answer_text(c, status, text);
	answer(c, 0, newest_);
}

void manager::flush_log(const call &c)
{
	if (!persister_ || !persister_->logs())
		return answer_text(c, -EINVAL, "the dictionary was created without persist_log");
	try {
		persister_->flush(c.from->id, c.head.id);
	} catch (const error &e) {
		answer_text(c, -e.code().value(), e.what());
	}
}

} // namespace ch::dd

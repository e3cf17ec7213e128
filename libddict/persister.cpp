// SPDX-License-Identifier: Apache-2.0
// persister.cpp - snapshots, restoring, and the log of one manager.
#include "persister.hpp"
#include "directory.hpp"
#include "place.hpp"
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

namespace ch::dd {

constexpr std::uint64_t never = ~std::uint64_t{0};
constexpr unsigned base_step = 256;           // entries

persister::persister(const persist_rules &r, store &s, unsigned index, unsigned nr_managers, std::function<void()> poke)
    : rules_(r), vault_(r.dir), store_(s), index_(index), nr_managers_(nr_managers), poke_(std::move(poke))
{
	if (!rules_.is_reader)
		hold_directory();
}

persister::~persister() = default;

// Until this process ends. Its creator holds it too, and asked for it alone before.
void persister::hold_directory()
{
	lock_ = file(vault_.dir() + "/" + lock_name, O_RDWR | O_CREAT);
	if (flock(lock_.fd(), LOCK_SH) < 0)
		refuse_file(lock_.path(), "cannot be locked", errno);
}

bool persister::can_go_on() const
{
	return (snapshot_ && (snapshot_->can_go_on() || snapshot_->is_done())) || (base_ && !log_->is_busy());
}

// The same for all managers, and for nothing else that was ever persisted here.
std::uint64_t persister::serial_of(std::uint64_t checkpoint) const
{
	const std::uint64_t all[] = {rules_.epoch, nr_restored_, checkpoint};

	return key_hash(std::as_bytes(std::span(all)));
}

bool persister::begin(std::uint64_t checkpoint, std::uint64_t serial, std::uint64_t client, std::uint64_t id)
{
	if (snapshot_)
		return false;
	snapshot_.emplace(store_, snapshot::plan{vault_, checkpoint, serial, index_, nr_managers_, rules_.keep}, poke_);
	is_answered_ = false;
	snapshot_client_ = client;
	snapshot_id_ = id;
	return true;
}

std::vector<persister::answer> persister::work()
{
	std::vector<answer> out;

	if (snapshot_ && snapshot_->can_go_on())
		snapshot_->step();
	if (snapshot_ && !is_answered_ && snapshot_->is_written()) {
		out.push_back({snapshot_client_, snapshot_id_, snapshot_->status(), snapshot_->text()});
		is_answered_ = true;
	}
	if (snapshot_ && snapshot_->is_done())
		snapshot_.reset();
	try {
		if (log_ && (base_ || base_upto_ || !waiting_.empty() || log_->size() > 2 * base_len_ + log_slack))
			work_log(out);
	} catch (const error &e) {
		for (const waiting &w : std::exchange(waiting_, {}))
			out.push_back({w.client, w.id, -e.code().value(), e.what()});
	}
	return out;
}

void persister::load(std::uint64_t id, std::uint64_t working_set, bool may_evict)
{
	loaded_.reset();
	loaded_.emplace(store_.pool());
	try {
		restorer from(vault_, loaded_->data, index_, nr_managers_);

		if (may_evict) {
			loaded_->data.keep_order_of_use();
			from.may_evict();
		}
		if (id == ddict_log)
			from.read_log(working_set);
		else
			from.read_checkpoint(id);
		loaded_->newest = from.newest();
	} catch (...) {
		loaded_.reset();
		throw;
	}
}

std::uint64_t persister::commit() noexcept
{
	const std::uint64_t newest = loaded_->newest;

	base_.reset(); // of what is not any more
	store_.take(loaded_->data);
	loaded_.reset();
	nr_restored_++;
	return newest;
}

// The contents are its base; the log before holds nothing of them.
void persister::follow_commit()
{
	if (log_)
		begin_log(true);
}

std::uint64_t persister::succeed(std::uint64_t working_set)
{
	if (!vault_.has_log() || vault_.read_log().epoch != rules_.epoch)
		return 0;
	restorer from(vault_, store_, index_, nr_managers_);

	from.may_evict();
	from.read_log(working_set);
	number_ = from.last_log();
	begin_log(true);
	return from.newest();
}

void persister::begin_log(bool stands_alone)
{
	base_.reset();
	has_to_stand_ = true; // if this throws
	log_.reset();
	log_ = std::make_unique<change_log>(vault_,
					    log_id{rules_.epoch, ++number_, index_, nr_managers_, stands_alone, 0},
					    poke_);
	has_to_stand_ = stands_alone;
	for (waiting &w : waiting_)
		w.upto = never;
	base_upto_ = never;
	base_.emplace(store_, [this](const entry &e) { show_base(e); });
}

void persister::append(bytes key, const entry &e, const version &v)
{
	const std::uint32_t flags = (v.is_persistent ? record_persistent : 0) | (v.is_deleted ? record_deleted : 0);

	log_->append({e.klen, flags, v.is_deleted ? 0 : v.vlen, v.at, to_realtime(e.expires)}, key,
		     v.is_deleted ? bytes() : v.val());
}

// All its versions, the oldest first.
void persister::show_base(const entry &e)
{
	for (const version *v : versions_of(e))
		append(e.key(), e, *v);
}

void persister::step_base()
{
	for (unsigned n = 0; n < base_step && !log_->is_busy(); n++)
		if (!base_->step())
			return end_base();
}

void persister::end_base()
{
	if (base_->is_broken())
		return begin_log(has_to_stand_);
	base_.reset();
	log_->append({0, record_based, 0, 0, 0}, {}, {});
	base_upto_ = log_->sync();
	base_len_ = log_->size();
	has_to_stand_ = false;
	for (waiting &w : waiting_)
		w.upto = std::min(w.upto, base_upto_);
}

void persister::work_log(std::vector<answer> &out)
{
	if (base_)
		step_base();
	if (!base_ && base_upto_ && log_->is_durable(base_upto_)) {
		base_upto_ = 0;
		drop_older_logs();
	}
	const int status = log_->status();

	while (!waiting_.empty() && (status < 0 || log_->is_durable(waiting_.front().upto))) {
		out.push_back({waiting_.front().client, waiting_.front().id, status, status < 0 ? log_->text() : ""});
		waiting_.pop_front();
	}
	if (status == 0 && !base_ && !base_upto_ && waiting_.empty() && log_->size() > 2 * base_len_ + log_slack) {
		log_->end();
		begin_log(false);
	}
}

void persister::drop_older_logs() const
{
	for (const std::uint64_t n : vault_.logs(rules_.epoch, index_))
		if (n < number_)
			unlink((vault_.dir() + "/" + vault_.log_name(rules_.epoch, index_, n)).c_str());
}

void persister::changed(bytes key, std::uint64_t at, bytes appended, bool is_append)
{
	const entry *e = store_.newest(key);
	const version *v = e ? store::seen(*e, at) : nullptr;
	const auto klen = static_cast<std::uint32_t>(key.size());

	if (!v)
		log_->append({klen, record_deleted, 0, at, 0}, key, {});
	else if (is_append)
		log_->append({klen, record_append | (v->is_persistent ? record_persistent : 0), appended.size(), v->at,
			      to_realtime(e->expires)},
			     key, appended);
	else
		append(key, *e, *v);
}

void persister::cleared()
{
	log_->append({0, record_clear, 0, 0, 0}, {}, {});
}

// A log that could not be written is begun anew: perhaps it can be now.
void persister::flush(std::uint64_t client, std::uint64_t id)
{
	if (!given_up_.empty())
		refuse(EPROTO, given_up_);
	if (!log_ || log_->status() < 0)
		begin_log(true);
	waiting_.push_back({client, id, has_to_stand_ ? never : log_->sync()});
}

} // namespace ch::dd

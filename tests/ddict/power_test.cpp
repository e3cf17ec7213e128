// SPDX-License-Identifier: Apache-2.0
// power_test.cpp - the power is cut at any instant: every flush and checkpoint that was acknowledged is there, nothing
// is that was never written, and nobody fails over what the disk made of the rest.
//
// A process with its managers works on a recorded disk (power_disk.hpp) and notes what it begins and what was
// acknowledged (power_history.hpp); now and then all of them are killed and others go on, with what the page cache
// holds and the disk does not. Then the record is cut at many places, and from what may be on the disk there, a
// dictionary is restored. The last such disk is what the next process begins with. CH_TEST_CUTS=100000 for the long
// run.
#include "persist_support.hpp"
#include "persister.hpp"
#include "power_disk.hpp"
#include "power_history.hpp"
#include <optional>
#include <set>
#include <sys/mman.h>

TestSuite(ddict_power, .timeout = 20 * WATCHDOG_S);

namespace {

using power::did;
using power::history;
using power::listing;
using power::model;
using power::recorded;

// ---- the process that writes

// What it notes: a word, and what belongs to it with zeros between.
void note(std::initializer_list<std::string> words)
{
	std::string all;

	for (const std::string &w : words)
		(all += w) += '\0';
	recorded->note(all);
}

void note_contents(const char *word, unsigned managers, const model &m)
{
	std::string all = word;

	(all += '\0') += std::to_string(managers);
	all += '\0';
	for (const auto &[k, v] : m)
		((all += k) += '\0') += v + '\0';
	recorded->note(all);
}

model contents(const text_dict &d)
{
	model m;

	for (const auto &[k, v] : d)
		m[k] = v;
	return m;
}

listing list(const std::string &dir)
{
	const text_dict d({.managers = 1, .memory = 4 << 20, .read_only = true, .persist_path = dir});
	const ch::dd::vault v(dir);
	std::map<std::uint64_t, std::uint64_t> by_time;
	listing l;

	for (const std::uint64_t id : v.ids())
		by_time[v.read(id).when] = id;
	for (const auto &[when, id] : by_time) {
		d.restore(id);
		l.emplace_back(id, contents(d));
	}
	return l;
}

void note_listing(const listing &l)
{
	std::string all = "listing" + std::string(1, '\0');

	for (const auto &[id, m] : l) {
		((all += std::to_string(id)) += '\0') += std::to_string(m.size()) + '\0';
		for (const auto &[k, v] : m)
			((all += k) += '\0') += v + '\0';
	}
	recorded->note(all);
}

// Letters, so that zeros can end it.
std::string some_value(std::uint64_t &seed)
{
	std::string v(rnd(&seed) % 8 ? rnd(&seed) % 120 : rnd(&seed) % 6000, 'a');

	for (char &c : v)
		c = static_cast<char>('a' + rnd(&seed) % 26);
	return v;
}

struct writer {
	const text_dict &d;
	std::uint64_t &seed;
	model m = contents(d); // as it should be

	void set(const std::string &key, const std::string &value)
	{
		m[key] = value;
		note({"put", key, value});
	}
	void change()
	{
		const std::string key = "key" + std::to_string(rnd(&seed) % 30), value = some_value(seed);

		switch (rnd(&seed) % 8) {
		case 0:
			m.erase(key);
			note({"erase", key});
			d.erase(key);
			break;
		case 1:
			set(key, m[key] + value);
			d.append(key, value);
			break;
		case 2:
			set(key, value);
			set(key + "b", "batch");
			d.put_many(model{{key, value}, {key + "b", "batch"}});
			break;
		default:
			set(key, value);
			d.put(key, value);
		}
	}
	void persist()
	{
		if (rnd(&seed) % 2)
			d.checkpoint();
		note({"persist", std::to_string(d.checkpoint_id())});
		d.persist();
		note({"persisted", std::to_string(d.checkpoint_id())});
	}
	void replace_all(const model &by) { note_contents("all", d.core().managers(), m = by); }
	void restore()
	{
		const std::vector<std::uint64_t> ids = d.persisted_ids();

		if (ids.empty())
			return;
		const text_dict other({.managers = 1,
				       .read_only = true,
				       .persist_path = std::string(recorded->root) + "/files",
				       .restore_from = ids.back()});
		replace_all(contents(other));
		d.restore(ids.back());
	}
	// Nobody is killed who holds the record's lock. What the manager had not written is gone.
	void kill_manager()
	{
		const unsigned victim = static_cast<unsigned>(rnd(&seed)) % d.core().managers();
		const ch_peer peer = d.core().manager_peer(victim);

		pthread_mutex_lock(&recorded->lock);
		kill(ch_peer_pid(peer), SIGKILL);
		AWAIT(!ch_peer_is_alive(peer));
		pthread_mutex_unlock(&recorded->lock);
		while (error_of([&] { d.manager(victim).size(); }))
			;
		replace_all(contents(d));
	}
	void step()
	{
		const std::uint64_t n = rnd(&seed) % 100;

		if (n < 25) {
			d.flush();
			note({"flushed"});
		} else if (n < 32) {
			persist();
		} else if (n < 34) {
			restore();
		} else if (n < 35) {
			kill_manager();
		} else if (n < 36) {
			note({"clear"});
			m.clear();
			d.clear();
		} else {
			change();
		}
	}
};

ch::ddict_options options_of(const std::string &dir, unsigned managers, bool is_new)
{
	return {.managers = managers,
		.memory = 4 << 20,
		.persist_path = dir,
		.persist_count = power::keep,
		.persist_log = true,
		.restore_from = is_new ? ch::ddict_nothing : ch::ddict_log};
}

bool work(unsigned managers, bool is_new, std::uint64_t seed, struct board *b)
{
	ch::dd::log_slack = 20000; // begun anew often
	note({power::opening});
	const text_dict d(options_of(std::string(recorded->root) + "/files", managers, is_new));
	writer w{d, seed};

	note_contents("opened", managers, w.m);
	note_listing(list(std::string(recorded->root) + "/files"));
	for (int i = 0; i < 90; i++)
		w.step();
	post(b, 0);
	for (;;)
		w.step();
}

// ---- who looks at what is left

struct looker {
	explicit looker(std::string where) : dir(std::move(where)) {}
	const std::string dir;
	const text_dict one{{.managers = 1, .memory = 4 << 20, .read_only = true, .persist_path = dir}};
	const text_dict three{{.managers = 3, .memory = 8 << 20, .read_only = true, .persist_path = dir}};

	// Empty if all is as it should be. later: what a dictionary held in the end that was
	// being opened at the cut.
	std::string look(const history &h, const std::optional<model> &later, const text_dict &d) const
	{
		model found;
		std::string why = text_of([&] { d.restore(ch::ddict_log); });
		const int code = why.empty() ? 0 : error_of([&] { d.restore(ch::ddict_log); });

		if (code && (h.is_there || code != ENOENT))
			return why;
		if (!code && (found = contents(d), !later || found != *later))
			why = h.states.empty() ? "there is a log already" : h.refuses(found);
		else
			why.clear();
		return why.empty() ? look_at_checkpoints(h, d) : why;
	}
	std::string look_at_checkpoints(const history &h, const text_dict &d) const
	{
		std::set<std::uint64_t> ids;

		if (h.is_there || fs::exists(dir))
			for (const std::uint64_t id : d.persisted_ids())
				ids.insert(id);
		for (const std::uint64_t id : ids) {
			const auto p = h.checkpoints.find(id);
			const std::string why = text_of([&] { d.restore(id); });

			if (!why.empty())
				return why;
			if (p == h.checkpoints.end() || std::find(p->second.may_be.begin(), p->second.may_be.end(),
								  contents(d)) == p->second.may_be.end())
				return "checkpoint " + std::to_string(id) + " holds what it never did";
		}
		for (const auto &[id, p] : h.checkpoints)
			if (!ids.count(id) && h.has_to_be_there(id))
				return "checkpoint " + std::to_string(id) + " is gone";
		return "";
	}
};

// ---- one life of the disk

class life {
public:
	explicit life(std::uint64_t seed) : seed_(seed) {}
	// Some processes one after the other, each but the first going on with what the page cache held.
	void live(const power::tree &from, const history &known);
	// So many cuts, at any place; what was wrong with one, or empty.
	std::string cut(unsigned nr, const power::disk::ignores &ignores = {});
	power::tree last_tree; // and what was known of it
	history last_known;

private:
	void run(bool is_new);
	std::set<std::uint64_t> places_behind(unsigned nr, const power::disk::ignores &ignores);
	std::optional<model> opened_after(std::uint64_t i) const;

	std::uint64_t seed_;
	scratch scratch_{"/dev/shm"}, left_{"/dev/shm"}; // where they work; what a cut has left
	std::optional<looker> eyes_;
	power::tree from_;
	history known_;
};

// A manifest has just got its name, or lost it: the worst that can be left to a successor.
bool is_half_done()
{
	const power::step &s = recorded->steps[recorded->nr_steps - 1];

	return (s.what == did::rename || s.what == did::remove) &&
	       recorded->text_of(s).find("manifest") != std::string::npos;
}

void life::run(bool is_new)
{
	struct board *b = board_new();
	const unsigned managers = 1 + static_cast<unsigned>(rnd(&seed_) % 3);
	const std::uint64_t seed = rnd(&seed_);
	const pid_t child = start_child([&] { return work(managers, is_new, seed, b); });

	AWAIT(posted(b, 0) > 0 || has_ended(child));
	pthread_mutex_lock(&recorded->lock); // nobody is between a call and its note
	for (int tries = 0; !is_half_done() && tries < 2000; tries++) {
		pthread_mutex_unlock(&recorded->lock);
		short_nap();
		pthread_mutex_lock(&recorded->lock);
	}
	cr_assert_eq(child_kill(child), -SIGKILL);
	while (waitpid(-1, nullptr, 0) > 0) // its spawner and managers are this process's now, and are being killed
		;
	pthread_mutex_unlock(&recorded->lock);
	cr_assert_geq(ch_segment_reclaim(nullptr), 0); // what was only being made, nobody else sees to
	munmap(b, sizeof(*b));
}

void life::live(const power::tree &from, const history &known)
{
	const std::string files = scratch_.path + "/files";

	from_ = from;
	known_ = known;
	recorded->nr_steps = recorded->used = 0;
	snprintf(recorded->root, sizeof(recorded->root), "%s", scratch_.path.c_str());
	from.save(files);
	for (int i = 0; i < 2; i++)
		run(i == 0 && !from.files.count("log.manifest"));
	power::disk d(*recorded, from);
	for (std::uint64_t i = 0; i < recorded->nr_steps; i++)
		d.go_on(recorded->steps[i]);
	const std::string other = d.now().differs_from(files);
	cr_assert(other.empty(), "something was done to %s that is not in the record", other.c_str());
	eyes_.emplace(left_.dir());
}

// What the dictionary held that was being opened here, in the end.
std::optional<model> life::opened_after(std::uint64_t i) const
{
	for (history h; i < recorded->nr_steps; i++)
		if (const std::string_view t = recorded->text_of(recorded->steps[i]);
		    recorded->steps[i].what == did::note && t.starts_with("opened")) {
			h.go_on(t);
			return h.states.back().m;
		}
	return std::nullopt;
}

// A third of them right behind an acknowledgement, a third right before a sync.
std::set<std::uint64_t> some_places(std::uint64_t nr, std::uint64_t &seed)
{
	std::vector<std::uint64_t> acknowledged{0}, before_sync{0};
	std::set<std::uint64_t> places;

	for (std::uint64_t i = 1; i < recorded->nr_steps; i++) {
		const power::step &s = recorded->steps[i];
		const std::string_view t = recorded->text_of(s);

		if (s.what == did::note && t.substr(0, t.find('\0')).ends_with("ed"))
			acknowledged.push_back(i);
		if (s.what == did::sync_file || s.what == did::sync_dir)
			before_sync.push_back(i - 1);
	}
	for (std::uint64_t i = 0; i < nr; i++) {
		const std::uint64_t n = rnd(&seed), kind = rnd(&seed) % 3;

		places.insert(kind == 0   ? acknowledged[n % acknowledged.size()]
			      : kind == 1 ? before_sync[n % before_sync.size()]
					  : n % recorded->nr_steps);
	}
	return places;
}

// The last steps before a cut, for whoever looks for the reason.
void print_steps(std::uint64_t last, const power::tree &left)
{
	static const char *const names[] = {"create", "write",  "size",  "sync file", "sync directory",
					    "rename", "remove", "mkdir", "note"};

	for (std::uint64_t i = last - std::min<std::uint64_t>(last, 40); i <= last; i++) {
		const power::step &s = recorded->steps[i];
		std::string t(s.what == did::write ? "" : recorded->text_of(s).substr(0, 100));

		std::replace(t.begin(), t.end(), '\0', ' ');
		fprintf(stderr, "%6ju thread %d: %s %s, file %ju at %ju, %ju bytes\n", static_cast<std::uintmax_t>(i),
			s.who, names[static_cast<int>(s.what)], t.c_str(), static_cast<std::uintmax_t>(s.node),
			static_cast<std::uintmax_t>(s.at), static_cast<std::uintmax_t>(s.len));
	}
	for (const auto &[name, c] : left.files)
		fprintf(stderr, "left: %s, %ju bytes\n", name.c_str(), static_cast<std::uintmax_t>(c.size()));
}

// Of the places right behind such a sync.
std::set<std::uint64_t> life::places_behind(unsigned nr, const power::disk::ignores &ignores)
{
	power::disk d(*recorded, from_, ignores);
	std::vector<std::uint64_t> all;
	std::set<std::uint64_t> places;

	for (std::uint64_t i = 0; i < recorded->nr_steps; i++)
		if (!d.go_on(recorded->steps[i]))
			for (std::uint64_t n = i; n < std::min(i + 8, recorded->nr_steps); n++)
				all.push_back(n);
	for (unsigned i = 0; i < nr && !all.empty(); i++)
		places.insert(all[rnd(&seed_) % all.size()]);
	return places;
}

std::string life::cut(unsigned nr, const power::disk::ignores &ignores)
{
	const std::set<std::uint64_t> places = ignores ? places_behind(nr, ignores) : some_places(nr, seed_);
	power::disk d(*recorded, from_, ignores);
	history h = known_;

	for (std::uint64_t i = 0; !places.empty() && i <= *places.rbegin(); i++) {
		const power::step &s = recorded->steps[i];

		d.go_on(s);
		if (s.what == did::note)
			h.go_on(recorded->text_of(s));
		if (!places.count(i))
			continue;
		const std::uint64_t seed = seed_;

		last_tree = d.cut(seed_);
		last_tree.save(left_.dir());
		const std::string why = eyes_->look(h, h.is_opening ? opened_after(i) : std::nullopt,
						    rnd(&seed_) % 2 ? eyes_->one : eyes_->three);
		if (!why.empty() && !ignores)
			print_steps(i, last_tree);
		if (!why.empty())
			return "after step " + std::to_string(i) + ", cut " + std::to_string(seed) + ": " + why;
	}
	if (ignores) // nobody goes on with what such a disk has left
		return "";
	last_known = {};
	if (last_tree.files.count("log.manifest")) {
		eyes_->one.restore(ch::ddict_log);
		last_known.states.push_back({contents(eyes_->one), 1});
		last_known.is_there = true;
	}
	if (last_tree.is_there)
		last_known.list(list(left_.dir()));
	return "";
}

void begin()
{
	void *p = mmap(nullptr, sizeof(power::record), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	pthread_mutexattr_t shared;

	cr_assert_neq(p, MAP_FAILED);
	recorded = static_cast<power::record *>(p);
	pthread_mutexattr_init(&shared);
	pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(&recorded->lock, &shared);
	cr_assert_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
}

unsigned nr_cuts(unsigned few)
{
	const char *given = getenv("CH_TEST_CUTS");

	return given ? static_cast<unsigned>(atoi(given)) : few;
}

} // namespace

Test(ddict_power, what_was_acknowledged_is_there_after_any_cut, .init = begin)
{
	const unsigned each = 80;
	std::uint64_t seed = test_seed();
	power::tree from;
	history known;

	for (unsigned done = 0; done < nr_cuts(3 * each); done += each) {
		life l(rnd(&seed));

		l.live(from, known);
		const std::string why = l.cut(each);
		cr_assert(why.empty(), "after %u cuts: %s", done, why.c_str());
		from = l.last_tree;
		known = l.last_known;
	}
}

// A disk on which one kind of sync does nothing loses something, and the test above would see it.
Test(ddict_power, no_sync_is_in_vain, .init = begin)
{
	std::set<std::string> left = {"directory",         "log",           "log head",   "log entry", "log manifest",
				      "log manifest name", "shard",         "shard name", "manifest",  "manifest name",
				      "manifest removal",  "what was there"};
	std::uint64_t seed = test_seed();
	power::tree from;
	history known;

	for (int i = 0; i < 40 && !left.empty(); i++) {
		life l(rnd(&seed));

		l.live(from, known);
		for (const std::string &kind : std::set<std::string>(left))
			if (const std::string why = l.cut(25, [&](const std::string &k) { return k == kind; });
			    !why.empty()) {
				fprintf(stderr, "without %s: %s\n", kind.c_str(), why.c_str());
				left.erase(kind);
			}
		cr_assert(l.cut(10).empty());
		if (left.count("directory")) // which only a new dictionary syncs
			continue;
		from = l.last_tree;
		known = l.last_known;
	}
	for (const std::string &kind : left)
		fprintf(stderr, "nothing was lost without the sync of: %s\n", kind.c_str());
	cr_assert(left.empty());
}

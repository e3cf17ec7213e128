/* SPDX-License-Identifier: Apache-2.0 */
/* director.cpp - the parent of the kill test: starts, kills and replaces the crew, and takes stock at the end. */
#include "director.h"

namespace torture {

namespace {

class director {
public:
	explicit director(const plan &p);
	result run();

private:
	void make_pool();
	void make_side_channel();
	void start(child &c);
	int pick_point(role what);
	void bury(child &c, int status);
	void judge_consumer(const child &c);
	void collect(bool replace);
	void kill_the_old();
	bool is_stuck();
	bool finish();
	bool leave_stage(int from, int to);
	void take_stock();
	void count_rest();
	void use_again();
	void dump();

	plan p_;
	result r_;
	evidence *ev_;
	ledger book_;
	uint64_t rs_;
	int nr_crew_ = 0;
	uint32_t nr_who_ = 0;
	struct ch_pool *pool_ = nullptr;
	struct ch_channel *ch_ = nullptr, *side_ = nullptr;
	struct ch_pool_stats before_ = {};
	std::vector<message_id> tentative_;
	uint64_t may_be_unseen_ = 0; /* kills that may each have taken an unnamed message with them */
	uint64_t last_progress_ = 0;
	int64_t last_progress_at_ = 0;
};

evidence *new_evidence()
{
	void *p = mmap(nullptr, sizeof(evidence), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(99);
	}
	return static_cast<evidence *>(p);
}

director::director(const plan &p)
	: p_(p), ev_(new_evidence()), book_(static_cast<uint32_t>(p.kills * 2 + 20000)), rs_(p.seed * 2654435761u + 1)
{
	for (int what = 0; what < NR_ROLES; what++)
		for (int i = 0; i < p.crew[what] && nr_crew_ < MAX_CHILDREN; i++)
			ev_->crew[nr_crew_++].what = static_cast<role>(what);
}

void must(int err, const char *what)
{
	if (err >= 0)
		return;
	fprintf(stderr, "torture: %s: %s: %s\n", what, strerror(-err), ch_errmsg());
	exit(99);
}

void director::make_pool()
{
	struct ch_pool_attr pattr = CH_POOL_ATTR_INIT;
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;

	pattr.len = 512 << 10; /* small: to be full now and then */
	pattr.max_peers = 64;
	must(ch_pool_create(&pattr, &pool_), "pool");
	must(ch_pool_get_stats(pool_, &before_), "stats");
	attr.capacity = p_.capacity;
	attr.flags = p_.what == kind::spsc ? CH_CHANNEL_SPSC : p_.what == kind::acknowledged ? CH_CHANNEL_ACKNOWLEDGED : 0;
	attr.urgent_capacity = p_.what == kind::mixed ? 4 : 0;
	ev_->what = p_.what;
	must(ch_channel_create(pool_, &attr, &ch_), "channel");
	must(ch_channel_get_descr(ch_, &ev_->channel), "descr");
	make_side_channel();
	if (p_.resident)
		return;
	ch_channel_detach(side_);
	ch_channel_detach(ch_);
	ch_pool_detach(pool_);
	side_ = ch_ = nullptr;
	pool_ = nullptr;
}

/* Anew when an ender has destroyed it. While the pool is full there is none. */
void director::make_side_channel()
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;

	if (side_ && ch_channel_count(side_) != -ESTALE)
		return;
	ch_channel_detach(side_);
	side_ = nullptr;
	attr.capacity = 4;
	if (int err = ch_channel_create(pool_, &attr, &side_); err < 0) {
		if (err != -ENOSPC)
			must(err, "side channel");
		return;
	}
	ev_->side_version++;
	must(ch_channel_get_descr(side_, &ev_->side), "descr");
	ev_->side_version++;
}

/* Mostly one that somebody of this role has passed before, so that the kill comes. */
int director::pick_point(role what)
{
	const auto &passes = ev_->passes[static_cast<int>(what)];
	const int nr = nr_crash_points();
	std::vector<int> passed;

	if (!p_.at_points || (p_.at_random && rnd(&rs_) % 3 == 0))
		return -1;
	for (int i = 0; i < nr; i++)
		if (passes[i])
			passed.push_back(i);
	if (passed.empty() || rnd(&rs_) % 8 == 0)
		return static_cast<int>(rnd(&rs_) % static_cast<uint64_t>(nr));
	return passed[rnd(&rs_) % passed.size()];
}

void director::start(child &c)
{
	const uint64_t life_us = p_.at_random ? 100 + rnd(&rs_) % 6000 : 30000;

	if (c.what == role::producer && nr_who_ == book_.nr_who())
		return;
	if (c.what == role::producer)
		c.who = nr_who_++;
	c.seed = rnd(&rs_) | 1;
	c.kill_point = ev_->stop ? -1 : pick_point(c.what);
	c.countdown = 1 + static_cast<int>(rnd(&rs_) % 2 ? rnd(&rs_) % 3 : rnd(&rs_) % 30);
	c.inherits = p_.resident && c.what != role::ender && rnd(&rs_) % 2;
	c.killed = c.found = c.delivered = false;
	c.stage = IDLE;
	c.died_at = 0;
	c.kill_at = now_ns() + static_cast<int64_t>((c.kill_point < 0 ? life_us : 30000 + life_us) * 1000);
	const pid_t pid = fork(); /* c is shared: only the parent writes its pid */
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		play({ ev_, &book_, ch_ }, c);
	}
	if (pid < 0)
		perror("fork");
	c.pid = pid > 0 ? pid : 0;
}

void director::judge_consumer(const child &c)
{
	const bool hooked = nr_crash_points() > 0, at_point = c.died_at != 0 && c.is_exact;
	const bool in_hand = c.stage != IDLE && c.stage != IN_KEEP && (c.found || !hooked);

	r_.in_hand += !in_hand ? 0 : c.stage == IN_BATCH ? MAX_BATCH : 1;
	if (!in_hand || (at_point && !c.delivered))
		return; /* nothing in hand, or it must come to somebody else */
	if (c.stage == IN_TAKE || c.stage == IN_BATCH)
		may_be_unseen_ += c.stage == IN_BATCH ? MAX_BATCH : 1;
	else if (!book_.is_id(c.buf.id))
		return; /* the copy was not done, so neither was the delivery */
	else if (at_point)
		book_.received(c.buf.id);
	else
		tentative_.push_back(c.buf.id);
}

void director::bury(child &c, int status)
{
	if (WIFEXITED(status)) {
		c.pid = 0;
		if (WEXITSTATUS(status) != 0)
			r_.broken = true;
		return;
	}
	if (WTERMSIG(status) != SIGKILL) {
		fprintf(stderr, "%s died of signal %d\n", role_names[static_cast<int>(c.what)], WTERMSIG(status));
		r_.broken = true;
	}
	if (p_.verbose)
		fprintf(stderr, "%s %d killed %s\n", role_names[static_cast<int>(c.what)], c.pid,
			c.died_at ? crash_point_name(c.died_at - 1) : "at random");
	c.pid = 0;
	r_.kills++;
	r_.kills_at_points += c.died_at != 0;
	if (c.what == role::producer)
		book_.died(c.who);
	if (c.what == role::consumer)
		judge_consumer(c);
}

void director::collect(bool replace)
{
	int status;

	for (int i = 0; i < nr_crew_; i++) {
		child &c = ev_->crew[i];

		if (c.pid && waitpid(c.pid, &status, WNOHANG) == c.pid)
			bury(c, status);
		if (!c.pid && !r_.broken && (replace || (c.what == role::consumer && !ev_->drain)))
			start(c);
	}
}

void director::kill_the_old()
{
	const int64_t now = now_ns();

	for (int i = 0; i < nr_crew_; i++) {
		child &c = ev_->crew[i];

		if (c.pid && !c.killed && now > c.kill_at) {
			kill(c.pid, SIGKILL);
			c.killed = true;
		}
	}
}

bool director::is_stuck()
{
	const uint64_t progress = ev_->sent + ev_->received;
	const int64_t now = now_ns();

	if (progress != last_progress_ || !last_progress_at_) {
		last_progress_ = progress;
		last_progress_at_ = now;
	}
	return now - last_progress_at_ > HANG_NS;
}

/* Waits until the crew of these roles has gone; nobody is killed any more. */
bool director::leave_stage(int from, int to)
{
	for (const int64_t until = now_ns() + HANG_NS; now_ns() < until; short_nap()) {
		bool gone = true;

		collect(false);
		for (int i = 0; i < nr_crew_; i++) {
			const int what = static_cast<int>(ev_->crew[i].what);

			if (what >= from && what <= to && ev_->crew[i].pid)
				gone = false;
		}
		if (gone)
			return true;
	}
	return false;
}

/* Producers finish, the channel is closed, the others take what is left and go. */
bool director::finish()
{
	ev_->stop = true;
	if (!leave_stage(0, 0))
		return false;
	if (!ch_) {
		must(ch_channel_attach(&ev_->channel, &ch_), "attach at the end");
		must(ch_pool_attach(&ev_->channel, &pool_), "attach at the end");
	}
	ev_->drain = true;
	must(ch_channel_close(ch_), "close");
	return leave_stage(1, NR_ROLES - 1);
}

void director::count_rest()
{
	struct ch_message msg = CH_MESSAGE_INIT;
	message_id id;
	int err;

	while ((err = ch_channel_take(ch_, CH_TRY, &msg)) == 0) {
		memcpy(&id, msg.data, sizeof(id));
		if (book_.is_id(id) && is_whole(msg.data, msg.len, id))
			book_.received(id);
		else
			r_.corrupt++;
		ch_channel_release(ch_, &msg);
		r_.received++;
	}
	if (err != -EPIPE) {
		fprintf(stderr, "torture: the closed channel ends with %s\n", strerror(-err));
		r_.broken = true;
	}
}

/* The pool is as good as new: whole, and of use. */
void director::use_again()
{
	struct ch_channel *again = nullptr;
	struct ch_pool_stats st = {};
	char bytes[3000] = {};
	void *all = nullptr;

	must(ch_pool_get_stats(pool_, &st), "stats");
	r_.leaked = !pool_is_as_before(pool_, &before_) || st.nr_peers != 1;
	if (st.nr_peers != 1)
		fprintf(stderr, "torture: %u peers are left\n", st.nr_peers);
	if (ch_pool_alloc(pool_, static_cast<size_t>(before_.largest), CH_TRY, &all) < 0 || ch_pool_free(pool_, all) < 0)
		r_.broken = true;
	must(ch_channel_create(pool_, nullptr, &again), "another channel");
	for (int i = 0; i < 3000; i++)
		if (ch_channel_send(again, bytes, static_cast<size_t>(i), CH_TRY) != 0 ||
		    ch_channel_recv(again, bytes, sizeof(bytes), CH_TRY) != i)
			r_.broken = true;
	ch_channel_destroy(again);
}

void director::take_stock()
{
	struct ch_channel *side = nullptr;

	for (int i = 0; i < 3; i++)
		must(ch_pool_sweep(pool_), "sweep");
	count_rest();
	ch_channel_destroy(ch_);
	if (!side_ && ch_channel_attach(&ev_->side, &side) == 0)
		side_ = side;
	ch_channel_destroy(side_);
	must(ch_pool_sweep(pool_), "sweep");
	use_again();
	r_.received += ev_->received;
	r_.late = ev_->late;
	r_.corrupt += ev_->corrupt;
	r_.errors = ev_->errors;
	r_.timeouts = ev_->timeouts;
	r_.longest_ns = ev_->longest_ns;
	r_.verdict = book_.judge(nr_who_, tentative_, may_be_unseen_,
				 p_.what == kind::spsc || p_.what == kind::mixed ? MAX_BATCH : 1);
	r_.lost = r_.verdict.unseen - std::min(r_.verdict.unseen, may_be_unseen_);
	r_.reordered = r_.late - std::min(r_.late, r_.in_hand);
}

/* What everybody is doing: for a human who has to find out why it hangs. */
void director::dump()
{
	struct ch_pool_stats st = {};

	fprintf(stderr, "torture: HUNG. sent %llu received %llu\n", (unsigned long long)ev_->sent,
		(unsigned long long)ev_->received);
	if (ch_ && ch_pool_get_stats(pool_, &st) == 0)
		fprintf(stderr, "channel holds %zd; pool: %llu of %llu used, largest %llu, %u peers\n", ch_channel_count(ch_),
			(unsigned long long)st.used, (unsigned long long)st.len, (unsigned long long)st.largest, st.nr_peers);
	for (int i = 0; i < nr_crew_; i++) {
		const child &c = ev_->crew[i];
		char path[64], where[256] = "";

		snprintf(path, sizeof(path), "/proc/%d/syscall", c.pid);
		if (int fd = c.pid ? open(path, O_RDONLY | O_CLOEXEC) : -1; fd >= 0) {
			if (read(fd, where, sizeof(where) - 1) < 0)
				where[0] = 0;
			close(fd);
		}
		fprintf(stderr, "%s %d stage %d done %llu killed %d: %s%s", role_names[static_cast<int>(c.what)], c.pid,
			c.stage.load(), (unsigned long long)c.nr_done, c.killed, where, *where ? "" : "\n");
	}
	if (getenv("CH_TEST_STOP_WHEN_HUNG")) {
		fprintf(stderr, "torture: waiting for a debugger; press ^C to go on\n");
		pause();
	}
}

/* The parent calls the library too. Its children die with it. */
void on_alarm(int)
{
	static const char text[] = "torture: HUNG in a call of the parent\n";

	_exit(write(STDERR_FILENO, text, sizeof(text) - 1) < 0 ? 2 : 1);
}

result director::run()
{
	const int64_t begin = now_ns();

	signal(SIGALRM, on_alarm);
	alarm(120);
	make_pool();
	arm_crash_points(ev_);
	for (int i = 0; i < nr_crew_; i++)
		start(ev_->crew[i]);
	while (r_.kills < p_.kills && !r_.broken && nr_who_ < book_.nr_who() &&
	       static_cast<double>(now_ns() - begin) < p_.seconds * 1e9) {
		collect(true);
		kill_the_old();
		alarm(120);
		if (p_.resident)
			make_side_channel();
		if ((r_.hung = is_stuck()))
			break;
		short_nap();
	}
	if (!r_.hung)
		r_.hung = !finish();
	if (r_.hung)
		dump();
	for (int i = 0; i < nr_crew_; i++)
		if (ev_->crew[i].pid)
			child_kill(ev_->crew[i].pid);
	if (!r_.hung)
		take_stock();
	if (!pool_ && ch_pool_attach(&ev_->channel, &pool_) < 0)
		pool_ = nullptr;
	ch_pool_destroy(pool_);
	for (int i = 0; i < nr_crash_points(); i++)
		r_.hits.push_back(ev_->hits[i]);
	alarm(0);
	r_.seconds = static_cast<double>(now_ns() - begin) / 1e9;
	return r_;
}

} // namespace

result run(const plan &p)
{
	return director(p).run();
}

} // namespace torture

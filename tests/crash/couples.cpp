/* SPDX-License-Identifier: Apache-2.0 */
/*
 * couples.cpp - the kill test of channels that hang up. A sender and a receiver each time, one of which is killed, or leaves
 * early, or neither. The other one must hear of it, and how: -EOWNERDEAD or -EPIPE; and a receiver first gets every message
 * whose send returned, in order and whole, and of the others at most those of the call that the sender died in.
 */
#include "crew.h"
#include "director.h"

namespace torture {

namespace {

/* What one of the two has come to; in shared memory, for the other and the parent to judge. */
struct half {
	std::atomic<uint32_t> is_bound, nr; /* nr: messages of calls that returned */
	std::atomic<uint32_t> is_done;      /* leaves in good order */
	std::atomic<uint32_t> left_early;
	std::atomic<int> end; /* what the last call returned: 0 if all was sent, or it left early */
};

struct couple {
	half sender, receiver;
};

void send_all(struct ch_channel *ch, half &me)
{
	static unsigned char bytes[MAX_BATCH][LONGEST];
	struct ch_send_item items[MAX_BATCH];
	const uint32_t nr = static_cast<uint32_t>(rnd(&rs) % NR_SEQ);

	for (uint32_t seq = 0; seq < nr;) {
		const uint32_t most = nr - seq < MAX_BATCH ? nr - seq : MAX_BATCH;
		const uint32_t n = rnd(&rs) % 2 ? 1 : 1 + static_cast<uint32_t>(rnd(&rs) % most);
		for (uint32_t i = 0; i < n; i++) {
			const message_id id = { self->who, seq + i };
			write_message(bytes[i], id);
			items[i] = { bytes[i], length_of(id) };
		}
		in_call = n > 1 ? "send_batch" : "send";
		const ssize_t rc = n > 1 ? ch_channel_send_batch(ch, items, n, CH_FOREVER) :
					   ch_channel_send(ch, bytes[0], items[0].len, CH_FOREVER);
		if (rc < 0) {
			me.end = static_cast<int>(rc);
			return;
		}
		seq += n > 1 ? static_cast<uint32_t>(rc) : 1;
		me.nr = seq;
	}
}

void check(const void *data, size_t len, half &me)
{
	message_id id;

	memcpy(&id, data, sizeof(id));
	if (id.who != self->who || id.seq != me.nr || !is_whole(data, len, id)) {
		fprintf(stderr, "couple %u: %u/%u instead of the %uth\n", self->who, id.who, id.seq, me.nr.load());
		the.ev->corrupt++;
		_exit(4);
	}
	me.nr++;
}

void receive_all(struct ch_channel *ch, half &me)
{
	static unsigned char bytes[MAX_BATCH][LONGEST];
	struct ch_recv_item items[MAX_BATCH];
	struct ch_message msg = CH_MESSAGE_INIT;
	const uint32_t enough = rnd(&rs) % 8 ? NR_SEQ + 1 : static_cast<uint32_t>(rnd(&rs) % NR_SEQ);

	for (uint32_t i = 0; i < MAX_BATCH; i++)
		items[i] = { bytes[i], LONGEST, 0 };
	while (me.nr < enough) {
		ssize_t rc;
		if (rnd(&rs) % 2) {
			rc = ch_channel_recv_batch(ch, items, MAX_BATCH, CH_FOREVER);
			for (ssize_t i = 0; i < rc; i++)
				check(bytes[i], items[i].len, me);
		} else if ((rc = ch_channel_take(ch, CH_FOREVER, &msg)) == 0) {
			check(msg.data, msg.len, me);
			ch_channel_release(ch, &msg);
		}
		if (rc < 0) {
			me.end = static_cast<int>(rc);
			return;
		}
	}
	me.left_early = 1;
}

[[noreturn]] void play_half(const stage_set &set, child &c, half &me)
{
	struct ch_channel *ch = nullptr;
	const bool sends = c.what == role::producer;

	the = set;
	rs = c.seed;
	self = &c;
	if (ch_channel_attach(&set.ev->channel, &ch) < 0 || ch_channel_bind(ch, sends ? CH_ROLE_SENDER : CH_ROLE_RECEIVER) < 0)
		_exit(5);
	me.is_bound = 1;
	sends ? send_all(ch, me) : receive_all(ch, me);
	me.is_done = 1;
	ch_channel_detach(ch);
	_exit(0);
}

/* Whether it was told right. Who was killed may have left before; without a role the channel was closed for it. */
bool has_heard(const half &me, const half &other, bool was_killed)
{
	if (me.end == -EOWNERDEAD)
		return was_killed;
	return me.end == -EPIPE && (!was_killed || other.is_done || !other.is_bound);
}

bool is_right(const couple &c, int killed)
{
	const uint32_t sent = c.sender.nr, got = c.receiver.nr;

	if (killed != 1 && !c.receiver.left_early && !has_heard(c.receiver, c.sender, killed == 0))
		return false;
	if (killed != 0 && c.sender.end != 0 && !has_heard(c.sender, c.receiver, killed == 1))
		return false;
	if (killed == 1 || c.receiver.left_early)
		return got <= sent + MAX_BATCH; /* nobody takes what is left */
	return killed == 0 ? got >= sent && got <= sent + MAX_BATCH : got == sent;
}

class matchmaker {
public:
	explicit matchmaker(const plan &p);
	result run();

private:
	void start(int which, bool may_die);
	bool meet();

	plan p_;
	result r_;
	evidence *ev_;
	couple *both_;
	uint64_t rs_;
	uint32_t round_ = 0;
	struct ch_pool *pool_ = nullptr;
	struct ch_channel *ch_ = nullptr;
};

matchmaker::matchmaker(const plan &p) : p_(p), rs_(p.seed * 2654435761u + 1)
{
	void *at = mmap(nullptr, sizeof(evidence) + sizeof(couple), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED) {
		perror("mmap");
		exit(99);
	}
	ev_ = static_cast<evidence *>(at);
	both_ = reinterpret_cast<couple *>(ev_ + 1);
}

void matchmaker::start(int which, bool may_die)
{
	child &c = ev_->crew[which];

	c.what = which == 0 ? role::producer : role::consumer;
	c.who = round_;
	c.seed = rnd(&rs_) | 1;
	c.kill_point = -1;
	if (may_die && p_.at_points && rnd(&rs_) % 2)
		for (int tries = 200; tries > 0 && (c.kill_point < 0 || !ev_->passes[which][c.kill_point]); tries--)
			c.kill_point = static_cast<int>(rnd(&rs_) % static_cast<uint64_t>(nr_crash_points()));
	c.countdown = 1 + static_cast<int>(rnd(&rs_) % 30);
	c.died_at = 0;
	const pid_t pid = fork(); /* c is shared: only the parent writes its pid */
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(WATCHDOG_S);
		play_half({ ev_, nullptr, nullptr }, c, which == 0 ? both_->sender : both_->receiver);
	}
	if (pid < 0) {
		perror("fork");
		exit(99);
	}
	c.pid = pid;
}

/* One couple from the beginning to the end. */
bool matchmaker::meet()
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	int killed = -1;

	memset(static_cast<void *>(both_), 0, sizeof(*both_));
	attr.capacity = p_.capacity;
	attr.flags = CH_CHANNEL_SPSC | CH_CHANNEL_HANGS_UP;
	if (ch_channel_create(pool_, &attr, &ch_) < 0 || ch_channel_get_descr(ch_, &ev_->channel) < 0)
		return false;
	const int victim = static_cast<int>(rnd(&rs_) % 3); /* 2: nobody */
	start(0, victim == 0);
	start(1, victim == 1);
	for (uint64_t naps = rnd(&rs_) % 8; naps > 0 && victim < 2; naps--)
		short_nap();
	if (victim < 2 && ev_->crew[victim].kill_point < 0)
		kill(ev_->crew[victim].pid, SIGKILL);
	bool ok = true;
	const int first = victim == 2 ? 0 : victim;
	for (int which : { first, 1 - first }) {
		const int status = child_end(ev_->crew[which].pid);
		ok = ok && (status == 0 || status == -SIGKILL);
		if (status != -SIGKILL)
			continue;
		killed = which;
		r_.kills++;
		r_.kills_at_points += ev_->crew[which].died_at != 0;
		if (!(which == 0 ? both_->sender : both_->receiver).is_bound)
			ch_channel_close(ch_); /* perhaps it never had the role, and the other would wait for ever */
	}
	ch_channel_destroy(ch_);
	r_.received += both_->receiver.nr;
	r_.verdict.committed += both_->sender.nr;
	if (ok && is_right(*both_, killed))
		return true;
	fprintf(stderr, "couple %u, killed %d: the sender %d after %u, the receiver %d after %u\n", round_, killed,
		both_->sender.end.load(), both_->sender.nr.load(), both_->receiver.end.load(), both_->receiver.nr.load());
	return false;
}

result matchmaker::run()
{
	struct ch_pool_attr attr = CH_POOL_ATTR_INIT;
	struct ch_pool_stats before;
	const int64_t begin = now_ns();

	attr.len = 4 << 20;
	attr.max_peers = 64;
	if (ch_pool_create(&attr, &pool_) < 0 || ch_pool_get_stats(pool_, &before) < 0)
		exit(99);
	arm_crash_points(ev_);
	while (r_.kills < p_.kills && !r_.broken && static_cast<double>(now_ns() - begin) < p_.seconds * 1e9) {
		r_.broken = !meet();
		round_++;
	}
	for (int i = 0; i < 3; i++)
		ch_pool_sweep(pool_);
	r_.leaked = !pool_is_as_before(pool_, &before);
	ch_pool_destroy(pool_);
	r_.corrupt = ev_->corrupt;
	for (int i = 0; i < nr_crash_points(); i++)
		r_.hits.push_back(ev_->hits[i]);
	r_.seconds = static_cast<double>(now_ns() - begin) / 1e9;
	return r_;
}

} // namespace

result run_couples(const plan &p)
{
	return matchmaker(p).run();
}

} // namespace torture

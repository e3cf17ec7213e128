/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_torture.cpp - the kill test of pools. A crew allocates, frees, gives away, shares and grows a pool at random, tells of
 * offered and shared blocks through a channel of the same pool, and is killed with SIGKILL, at random instants and (in
 * builds with --enable-crash-points) at chosen steps, and replaced. Some look for dead segments meanwhile.
 *
 * What must hold, whoever dies where: a block has one owner, so that nobody ever finds in it what another wrote; a view
 * shows what was shared for as long as it is held; every call answers one of its documented codes; nobody hangs; and when
 * all are dead and swept, everything is free but the channel.
 *
 * usage: block_torture [--kills N] [--seconds S] [--seed X] [--crew C]
 */
#include "crash.h"
#include "must.h"
#include "../support/support.h"
#include <algorithm>
#include <atomic>
#include <vector>

namespace {

constexpr int MAX_CREW = 16;
constexpr size_t NR_HELD = 24;
constexpr size_t POOL_LEN = 256 << 10, POOL_MAX = 4 << 20;

struct member {
	pid_t pid;
	uint64_t seed;
	int point, countdown; /* crash point to die at; -1: none */
	std::atomic<uint64_t> nr_done;
};

/* In shared memory of its own, so that it outlives the killed. */
struct evidence {
	std::atomic<uint32_t> bad;
	std::atomic<uint64_t> seq, accepted, viewed;
	std::atomic<uint64_t> hits[ch::core::CH_NR_CRASH_POINTS];
	struct ch_descr channel;
	member crew[MAX_CREW];
};

evidence *ev;
member *self;
uint64_t rs;

struct mark { /* how each block begins */
	uint64_t seq, len;
};

void write_block(void *p, size_t len)
{
	const mark m = { ev->seq++, len };

	memcpy(p, &m, sizeof(m));
	fill(static_cast<char *>(p) + sizeof(m), len - sizeof(m), m.seq, len);
}

bool is_whole(const void *p, size_t room)
{
	mark m;

	memcpy(&m, p, sizeof(m));
	return m.len >= sizeof(m) && m.len <= room &&
	       is_filled(static_cast<const char *>(p) + sizeof(m), m.len - sizeof(m), m.seq, m.len);
}

#ifdef CH_CRASH_POINTS
void on_crash_point(int id)
{
	torture::die_at(self, ev, id);
}
#endif

// ---- a member of the crew: what it holds, and what it does next

struct hand {
	struct ch_pool *pool;
	struct ch_channel *ch;
	std::vector<void *> own;
	std::vector<struct ch_view *> views;
};

template <class T> T pick(std::vector<T> &v)
{
	const size_t i = rnd(&rs) % v.size();
	const T x = v[i];

	v[i] = v.back();
	v.pop_back();
	return x;
}

void get(hand &h)
{
	const size_t len = sizeof(mark) + rnd(&rs) % (rnd(&rs) % 6 ? 700 : 60000);
	const bool is_typed = rnd(&rs) % 4 == 0;
	void *p = nullptr;
	const int rc = is_typed ? ch_pool_alloc_typed(h.pool, len, 7, CH_TRY, &p) : ch_pool_alloc(h.pool, len, CH_TRY, &p);

	MUST(rc == 0 || rc == -ENOSPC);
	if (rc < 0)
		return;
	write_block(p, len);
	h.own.push_back(p);
}

void put(hand &h)
{
	void *p = pick(h.own);

	MUST(is_whole(p, static_cast<size_t>(ch_pool_block_len(h.pool, p))));
	MUST(ch_pool_free(h.pool, p) == 0);
}

void tell(hand &h, const struct ch_descr &d)
{
	const int rc = ch_channel_send(h.ch, &d, sizeof(d), CH_TRY);

	MUST(rc == 0 || rc == -EAGAIN);
}

void offer(hand &h)
{
	void *p = pick(h.own);
	struct ch_descr d;

	MUST(ch_block_offer(h.pool, p, &d) == 0);
	tell(h, d);
	if (rnd(&rs) % 2)
		sched_yield();
	const int rc = ch_block_withdraw(h.pool, p); /* an offer does not last for ever */
	MUST(rc == 0 || rc == -ESTALE || rc == -EINVAL);
	if (rc == 0)
		h.own.push_back(p);
}

void share(hand &h)
{
	void *p = pick(h.own);
	struct ch_view *v = nullptr;
	struct ch_descr d;
	const int rc = ch_view_create(h.pool, p, static_cast<size_t>(ch_pool_block_len(h.pool, p)), &v);

	MUST(rc == 0 || rc == -ENOSPC);
	if (rc < 0) {
		h.own.push_back(p);
		return;
	}
	MUST(ch_view_get_descr(v, &d) == 0);
	tell(h, d);
	h.views.push_back(v);
}

void hear(hand &h)
{
	struct ch_descr d;
	struct ch_view *v = nullptr;
	void *p = nullptr;
	const ssize_t n = ch_channel_recv(h.ch, &d, sizeof(d), CH_TRY);

	MUST(n == -EAGAIN || n == static_cast<ssize_t>(sizeof(d)));
	if (n < 0)
		return;
	if (ch_descr_kind(&d) == CH_DESCR_BLOCK) {
		const int rc = ch_block_accept(h.pool, &d, &p);
		MUST(rc == 0 || rc == -ESTALE);
		if (rc < 0)
			return;
		MUST(is_whole(p, static_cast<size_t>(ch_pool_block_len(h.pool, p))));
		h.own.push_back(p);
		ev->accepted++;
		return;
	}
	const int rc = ch_view_attach(&d, &v);
	MUST(rc == 0 || rc == -ESTALE);
	if (rc < 0)
		return;
	h.views.push_back(v);
	ev->viewed++;
}

void look(hand &h)
{
	struct ch_view *v = pick(h.views), *part = nullptr;

	MUST(is_whole(ch_view_addr(v), ch_view_len(v)));
	if (rnd(&rs) % 2) { /* a part keeps it too */
		MUST(ch_view_clone(v, 0, ch_view_len(v), &part) == 0);
		ch_view_detach(v);
		v = part;
	}
	MUST(is_whole(ch_view_addr(v), ch_view_len(v)));
	if (rnd(&rs) % 2)
		h.views.push_back(v);
	else
		ch_view_detach(v);
}

int count_one(const struct ch_block_info *info, void *)
{
	return info->type == 7 ? 0 : 1;
}

void rare(hand &h)
{
	struct ch_pool_stats st;

	MUST(ch_pool_each_block(h.pool, 7, count_one, nullptr) >= 0);
	MUST(ch_pool_get_stats(h.pool, &st) == 0 && st.used <= st.len && st.len <= st.max_len);
	MUST(ch_segment_reclaim(nullptr) >= 0); /* ours is in use; of other jobs there may be any */
}

[[noreturn]] void play(member &m)
{
	hand h{};

	self = &m;
	rs = m.seed;
	MUST(ch_channel_attach(&ev->channel, &h.ch) == 0);
	h.pool = ch_channel_get_pool(h.ch);
	for (;; m.nr_done++) {
		const uint64_t what = rnd(&rs) % 100;

		if (h.own.size() < NR_HELD && what < 40)
			get(h);
		else if (!h.own.empty() && what < 65)
			put(h);
		else if (!h.own.empty() && what < 72)
			offer(h);
		else if (!h.own.empty() && h.views.size() < NR_HELD && what < 78)
			share(h);
		else if (what < 88)
			hear(h);
		else if (!h.views.empty() && what < 99)
			look(h);
		else if (rnd(&rs) % 16 == 0)
			rare(h);
	}
}

// ---- the director

struct options {
	uint64_t kills = 1000, seed = 0;
	double seconds = 1e9;
	int crew = 6;
};

options parse(int argc, char **argv)
{
	options o;
	bool seeded = false;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--kills"))
			o.kills = strtoull(argv[i + 1], nullptr, 0);
		else if (!strcmp(argv[i], "--seed"))
			o.seed = strtoull(argv[i + 1], nullptr, 0), seeded = true;
		else if (!strcmp(argv[i], "--seconds"))
			o.seconds = atof(argv[i + 1]);
		else if (!strcmp(argv[i], "--crew"))
			o.crew = std::clamp(atoi(argv[i + 1]), 1, MAX_CREW);
		else
			exit(2);
	}
	if (!seeded)
		o.seed = test_seed();
	return o;
}

/* Kills one of them after a while, or finds one that died of a crash point. True if one was replaced. */
bool kill_one(const options &o, uint64_t &seeds)
{
	member &m = ev->crew[rnd(&seeds) % static_cast<uint64_t>(o.crew)];

	if (!torture::strike(m, seeds, 4))
		return false;
	const int status = child_end(m.pid);
	if (status != -SIGKILL) {
		fprintf(stderr, "a member ended with %d\n", status);
		ev->bad++;
	}
	torture::hire(m, seeds, 20, play);
	return true;
}

bool is_all_free(struct ch_pool *pool, struct ch_channel *ch)
{
	struct ch_descr d;
	struct ch_pool_stats st;

	while (ch_pool_sweep(pool) > 0)
		;
	while (ch_channel_recv(ch, &d, sizeof(d), CH_TRY) > 0)
		;
	if (ch_pool_get_stats(pool, &st) < 0 || st.nr_used != 1 || st.nr_peers != 1) {
		fprintf(stderr, "left: %llu blocks, %u peers\n", (unsigned long long)st.nr_used, st.nr_peers);
		return false;
	}
	return true;
}

} // namespace

int main(int argc, char **argv)
{
	const options o = parse(argc, argv);
	const int64_t begin = now_ns();
	struct ch_pool_attr pattr = CH_POOL_ATTR_INIT;
	struct ch_channel_attr cattr = CH_CHANNEL_ATTR_INIT;
	struct ch_pool *pool = nullptr;
	struct ch_channel *ch = nullptr;
	uint64_t seeds = o.seed * 2 + 1, nr = 0;

	ev = static_cast<evidence *>(
		mmap(nullptr, sizeof(*ev), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
#ifdef CH_CRASH_POINTS
	ch::core::ch_crash_hook = on_crash_point;
#endif
	alarm(static_cast<unsigned>(std::min(o.seconds, 3600.0)) + WATCHDOG_S);
	pattr.len = POOL_LEN;
	pattr.max_len = POOL_MAX;
	pattr.max_peers = 64;
	cattr.inline_max = sizeof(struct ch_descr);
	cattr.capacity = 16;
	if (ch_pool_create(&pattr, &pool) < 0 || ch_channel_create(pool, &cattr, &ch) < 0)
		return 1;
	ch_channel_get_descr(ch, &ev->channel);
	for (int i = 0; i < o.crew; i++)
		torture::hire(ev->crew[i], seeds, 20, play);
	while (nr < o.kills && ev->bad == 0 && static_cast<double>(now_ns() - begin) < o.seconds * 1e9)
		nr += kill_one(o, seeds);
	for (int i = 0; i < o.crew; i++)
		child_kill(ev->crew[i].pid);
	const bool ok = is_all_free(pool, ch) && ev->bad == 0;
	ch_channel_destroy(ch);
	ch_pool_destroy(pool);
	printf("%s: %llu kills, %llu blocks written, %llu accepted, %llu viewed; CH_TEST_SEED=%llu\n", ok ? "PASS" : "FAIL",
	       (unsigned long long)nr, (unsigned long long)ev->seq.load(), (unsigned long long)ev->accepted.load(),
	       (unsigned long long)ev->viewed.load(), (unsigned long long)o.seed);
	return ok ? 0 : 1;
}

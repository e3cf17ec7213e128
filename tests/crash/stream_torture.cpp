/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream_torture.cpp - the kill test of streams. Writers and readers hold conversations over one port, and are killed
 * with SIGKILL, at random instants and (in builds with --enable-crash-points) at chosen steps, and replaced.
 *
 * What must hold, whoever dies where: a reader meets a conversation's chunks in order and whole; it meets an end of
 * stream only if the writer had begun to end the conversation and all chunks came; it meets -EOWNERDEAD only from a
 * writer that was killed, -ECANCELED only from one that cancelled; a writer meets -EPIPE only from a reader that closed
 * early, -EOWNERDEAD only if a reader was killed. No conversation is accepted twice. One whose end was confirmed comes
 * to a reader, unless a reader was killed before it could write down that it had it. Nobody hangs. At the end all
 * streams are free and the pool is as before.
 *
 * usage: stream_torture [--kills N] [--seconds S] [--seed X] [--writers W] [--readers R]
 */
#include "crash.h"
#include "in_set.h"
#include "must.h"
#include "../support/support.h"
#include <algorithm>
#include <atomic>
#include <vector>

namespace {

constexpr uint32_t MAX_TALKS = 1 << 20;
constexpr int MAX_CREW = 32;
constexpr int64_t HANG_NS = 30000 * MS;

enum mark : uint16_t {
	END_BEGUN = 1,
	END_DONE = 2,
	CANCEL_BEGUN = 4,
	WRITER_KILLED = 8,
	STOP_BEGUN = 16,
	ACCEPTED = 32,
	HAS_CHUNKS = 64 /* without one a reader cannot tell whose conversation it was */
};

struct member {
	pid_t pid;
	bool writes;
	uint64_t seed;
	int point, countdown; /* crash point to die at, -1: none */
	std::atomic<uint32_t> talk; /* writer: its present conversation + 1 */
};

/* In shared memory of its own, so that it outlives the killed. */
struct evidence {
	std::atomic<bool> stop, drain;
	std::atomic<uint32_t> next, bad;
	std::atomic<uint64_t> whole, ended_early, died_on, cancelled;
	std::atomic<uint64_t> hits[ch::core::CH_NR_CRASH_POINTS];
	struct ch_descr port;
	member crew[MAX_CREW];
	std::atomic<uint16_t> marks[MAX_TALKS];
};

evidence *ev;
member *self;
ch_pollset *set; /* in half of the incarnations */

struct chunk_head {
	uint32_t talk, seq, total;
};

size_t length_of(const chunk_head &h)
{
	const uint32_t x = h.talk * 2654435761u + h.seq * 40503u;

	return sizeof(h) + (x % 3 ? x / 3 % 50 : x / 3 % 4000);
}

void write_chunk(void *to, const chunk_head &h)
{
	memcpy(to, &h, sizeof(h));
	fill(static_cast<unsigned char *>(to) + sizeof(h), length_of(h) - sizeof(h), h.talk, h.seq);
}

bool is_chunk(const void *at, size_t len, chunk_head &h)
{
	if (len < sizeof(h))
		return false;
	memcpy(&h, at, sizeof(h));
	return len == length_of(h) &&
	       is_filled(static_cast<const unsigned char *>(at) + sizeof(h), len - sizeof(h), h.talk, h.seq);
}

#ifdef CH_CRASH_POINTS
void on_crash_point(int id)
{
	torture::die_at(self, ev, id);
}
#endif

// ---- the writer

int put_chunk(struct ch_stream *s, struct ch_pool *pool, const chunk_head &h, uint64_t &rs)
{
	struct ch_message msg = CH_MESSAGE_INIT;
	unsigned char buf[5000];
	const size_t len = length_of(h);
	void *block = nullptr;
	int rc;

	switch (rnd(&rs) % 3) {
	case 0: /* a chunk of its own: nobody else writes this arg */
		write_chunk(buf, h);
		rc = static_cast<int>(ch_stream_write(s, buf, len, h.seq + 1, HANG_NS));
		MUST(rc < 0 || rc == static_cast<int>(len));
		return rc < 0 ? rc : ch_stream_flush(s, HANG_NS);
	case 1:
		rc = ch_stream_claim(s, len, HANG_NS, &msg);
		if (rc < 0)
			return rc;
		write_chunk(msg.data, h);
		rc = torture::call_when(set, ch_stream_get_pollable(s), CH_POLL_OUT, HANG_NS,
			       [&](int64_t t) { return ch_stream_commit(s, &msg, h.seq + 1, t); });
		ch_stream_abort(s, &msg);
		return rc;
	default:
		rc = ch_pool_alloc(pool, len, HANG_NS, &block);
		MUST(rc == 0);
		write_chunk(block, h);
		rc = ch_stream_send_block(s, block, len, h.seq + 1, HANG_NS);
		if (rc < 0)
			MUST(ch_pool_free(pool, block) == 0);
		return rc;
	}
}

void check_writer(uint32_t talk, int rc)
{
	if (rc == 0)
		return;
	MUST(rc == -EPIPE || rc == -EOWNERDEAD);
	if (rc == -EPIPE)
		MUST(ev->marks[talk] & STOP_BEGUN);
}

void talk_once(struct ch_stream_port *port, struct ch_pool *pool, uint64_t &rs)
{
	const uint32_t talk = ev->next++, total = rnd(&rs) % 12;
	const bool is_buffered = rnd(&rs) % 5 == 0, cancels = rnd(&rs) % 8 == 0;
	struct ch_stream *s = nullptr;
	int rc = 0;

	if (talk >= MAX_TALKS)
		_exit(0);
	self->talk = talk + 1;
	MUST(torture::call_when(set, ch_stream_port_get_pollable(port), CH_POLL_OUT, HANG_NS, [&](int64_t t) {
		     return ch_stream_open(port, is_buffered ? CH_STREAM_BUFFERED : 0, t, &s);
	     }) == 0);
	for (uint32_t seq = 0; seq < total && rc == 0 && !is_buffered; seq++)
		rc = put_chunk(s, pool, { talk, seq, total }, rs);
	if (is_buffered)
		rc = put_chunk(s, pool, { talk, 0, 1 }, rs);
	check_writer(talk, rc);
	if (rc == 0 && cancels) {
		ev->marks[talk] |= CANCEL_BEGUN;
		if (rnd(&rs) % 2)
			MUST(ch_stream_cancel(s) == 0);
	} else if (rc == 0) {
		ev->marks[talk] |= END_BEGUN;
		rc = ch_stream_end(s, HANG_NS);
		check_writer(talk, rc);
		if (rc == 0)
			ev->marks[talk] |= END_DONE | (total || is_buffered ? HAS_CHUNKS : 0);
	}
	ev->marks[talk] |= CANCEL_BEGUN; /* by the close, if it was not ended */
	ch_stream_close(s);
	self->talk = 0;
}

// ---- the reader

// True at the end of what can be read.
bool read_chunk(struct ch_stream *s, int64_t &talk, uint32_t &seq, uint32_t &total, int &rc)
{
	struct ch_message msg = CH_MESSAGE_INIT;
	uint64_t arg = 0;
	chunk_head h;

	rc = torture::call_when(set, ch_stream_get_pollable(s), CH_POLL_IN, HANG_NS,
		       [&](int64_t t) { return ch_stream_take(s, t, &msg, &arg); });
	if (rc <= 0)
		return true;
	MUST(is_chunk(msg.data, msg.len, h));
	MUST(talk < 0 || h.talk == talk);
	MUST(h.seq == seq && arg == seq + 1 && h.talk < ev->next);
	if (talk < 0 && (ev->marks[h.talk].fetch_or(ACCEPTED) & ACCEPTED))
		MUST(!"accepted only once");
	talk = h.talk;
	total = h.total;
	seq++;
	ch_stream_release(s, &msg);
	return false;
}

void listen_once(struct ch_stream *s, uint64_t &rs)
{
	const uint32_t most = rnd(&rs) % 6 == 0 ? rnd(&rs) % 6 : UINT32_MAX;
	uint32_t seq = 0, total = 0;
	int64_t talk = -1;
	int rc = 1;

	while (seq < most && !read_chunk(s, talk, seq, total, rc))
		;
	if (rc > 0 || seq >= most) {
		if (talk < 0) /* whose it is cannot be said: hear one chunk */
			(void)read_chunk(s, talk, seq, total, rc);
		if (talk >= 0)
			ev->marks[talk] |= STOP_BEGUN;
		ev->ended_early++;
	} else if (rc == 0) {
		MUST(seq == total && (talk < 0 || (ev->marks[talk] & END_BEGUN)));
		ev->whole++;
	} else {
		MUST(rc == -EOWNERDEAD || rc == -ECANCELED);
		if (rc == -ECANCELED)
			MUST(talk < 0 || (ev->marks[talk] & CANCEL_BEGUN));
		(rc == -EOWNERDEAD ? ev->died_on : ev->cancelled)++;
	}
	ch_stream_close(s);
}

[[noreturn]] void play(member &me)
{
	struct ch_stream_port *port = nullptr;
	struct ch_stream *s = nullptr;
	uint64_t rs = me.seed;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(WATCHDOG_S);
	self = &me;
#ifdef CH_CRASH_POINTS
	ch::core::ch_crash_hook = on_crash_point;
#endif
	MUST(ch_stream_port_attach(&ev->port, &port) == 0);
	struct ch_pool *pool = nullptr;
	MUST(ch_pool_attach(&ev->port, &pool) == 0);
	if (rnd(&rs) % 2)
		MUST(ch_pollset_create(nullptr, &set) == 0);
	if (me.writes) {
		while (!ev->stop)
			talk_once(port, pool, rs);
	} else {
		auto accept = [&](int64_t t) { return ch_stream_accept(port, t, &s); };
		ch_pollable *const door = ch_stream_port_get_pollable(port);
		for (int rc; (rc = torture::call_when(set, door, CH_POLL_IN, 20 * MS, accept)) == 0 || !ev->drain;) {
			MUST(rc == 0 || rc == -ETIMEDOUT);
			if (rc == 0)
				listen_once(s, rs);
		}
	}
	ch_pollset_destroy(set);
	ch_stream_port_detach(port);
	ch_pool_detach(pool);
	_exit(0);
}

// ---- the director

struct request {
	uint64_t kills = 400, seed = 0;
	double seconds = 1e9;
	int writers = 4, readers = 3;
};

struct director {
	request req;
	uint64_t rs, kills = 0, reader_kills = 0;
	int broken = 0;

	void start(member &m)
	{
		m.seed = rnd(&rs) + 1;
		m.talk = 0;
		m.point = ch::core::CH_NR_CRASH_POINTS;
#ifdef CH_CRASH_POINTS
		if (rnd(&rs) % 2) {
			const int first = ch::core::CP_stream_claimed, last = ch::core::CP_stream_freed;
			m.point = rnd(&rs) % 4 ? first + static_cast<int>(rnd(&rs) % static_cast<uint64_t>(last - first + 1)) :
						 static_cast<int>(rnd(&rs) % ch::core::CH_NR_CRASH_POINTS);
			m.countdown = 1 + static_cast<int>(rnd(&rs) % 20);
		}
#endif
		const pid_t pid = fork();
		if (pid == 0)
			play(m);
		m.pid = pid;
	}
	void bury(member &m, int status)
	{
		m.pid = 0;
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
			kills++;
			reader_kills += !m.writes;
			if (m.writes && m.talk)
				ev->marks[m.talk - 1] |= WRITER_KILLED;
		} else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
			fprintf(stderr, "a child ended with status %#x\n", status);
			broken++;
		}
	}
	member *of(pid_t pid)
	{
		for (member &m : ev->crew)
			if (m.pid == pid)
				return &m;
		return nullptr;
	}
	void reap(bool again)
	{
		int status;

		for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
			if (member *m = of(pid)) {
				bury(*m, status);
				if (again)
					start(*m);
			}
	}
	void act()
	{
		const int n = req.writers + req.readers;
		const int64_t until = now_ns() + static_cast<int64_t>(std::min(req.seconds, 1e6) * 1e9);

		for (int i = 0; i < n; i++) {
			ev->crew[i].writes = i < req.writers;
			start(ev->crew[i]);
		}
		while (kills < req.kills && now_ns() < until && !broken && !ev->bad) {
			const struct timespec nap = { 0, static_cast<long>(100000 + rnd(&rs) % 2500000) };
			nanosleep(&nap, nullptr);
			member &m = ev->crew[rnd(&rs) % static_cast<uint64_t>(n)];
			if (m.pid > 0 && (m.point == ch::core::CH_NR_CRASH_POINTS || rnd(&rs) % 8 == 0))
				kill(m.pid, SIGKILL);
			reap(true);
		}
		wind_up(n);
	}
	// Writers finish, then readers hear what is left.
	void wind_up(int n)
	{
		for (int writers = 1; writers >= 0; writers--) {
			(writers ? ev->stop : ev->drain) = true;
			for (int i = 0; i < n; i++)
				while (ev->crew[i].pid && ev->crew[i].writes == (writers == 1)) {
					reap(false);
					short_nap();
				}
			if (writers && kills) /* readers may all have been killed: one more hears the rest */
				for (int i = 0; i < n; i++)
					if (!ev->crew[i].pid && !ev->crew[i].writes) {
						start(ev->crew[i]);
						ev->crew[i].point = ch::core::CH_NR_CRASH_POINTS;
					}
		}
	}
	uint64_t lost() const
	{
		uint64_t n = 0;

		for (uint32_t t = 0; t < std::min<uint32_t>(ev->next, MAX_TALKS); t++)
			n += (ev->marks[t] & (END_DONE | HAS_CHUNKS | ACCEPTED)) == (END_DONE | HAS_CHUNKS);
		return n;
	}
};

request parse(int argc, char **argv)
{
	request r;

	for (int i = 1; i + 1 < argc; i += 2) {
		const uint64_t v = strtoull(argv[i + 1], nullptr, 0);
		if (!strcmp(argv[i], "--kills"))
			r.kills = v;
		else if (!strcmp(argv[i], "--seconds"))
			r.seconds = atof(argv[i + 1]);
		else if (!strcmp(argv[i], "--seed"))
			r.seed = v;
		else if (!strcmp(argv[i], "--writers"))
			r.writers = static_cast<int>(v);
		else if (!strcmp(argv[i], "--readers"))
			r.readers = static_cast<int>(v);
		else
			exit(2);
	}
	if (!r.seed)
		r.seed = test_seed();
	if (r.writers < 1 || r.readers < 1 || r.writers + r.readers > MAX_CREW)
		exit(2);
	return r;
}

} // namespace

int main(int argc, char **argv)
{
	director d{ parse(argc, argv), 0 };
	struct ch_stream_attr attr = CH_STREAM_ATTR_INIT;
	struct ch_stream_port *port = nullptr;
	struct ch_pool_stats before;
	struct ch_stream_port_stats st;

	d.rs = d.req.seed;
	alarm(WATCHDOG_S * 4);
	ev = static_cast<evidence *>(
		mmap(nullptr, sizeof(*ev), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	struct ch_pool *pool = pool_of(4 << 20);
	attr.nr_streams = 4;
	attr.capacity = 4;
	attr.chunk_len = 4096;
	if (ev == MAP_FAILED || !pool || ch_stream_port_create(pool, &attr, &port) < 0 ||
	    ch_stream_port_get_descr(port, &ev->port) < 0 || ch_pool_get_stats(pool, &before) < 0)
		return 1;
	d.act();
	const bool is_clean = pool_is_as_before(pool, &before) && ch_stream_port_get_stats(port, &st) == 0 &&
			      st.nr_free == st.nr_streams;
	const uint64_t lost = d.lost();
	const bool ok = is_clean && lost <= d.reader_kills && !d.broken && !ev->bad;
	printf("%s: stream_torture kills=%llu (readers %llu) conversations=%u whole=%llu stopped=%llu died=%llu "
	       "cancelled=%llu unseen=%llu clean=%d broken=%d; CH_TEST_SEED=%llu\n",
	       ok ? "PASS" : "FAIL", (unsigned long long)d.kills, (unsigned long long)d.reader_kills, ev->next.load(),
	       (unsigned long long)ev->whole, (unsigned long long)ev->ended_early, (unsigned long long)ev->died_on,
	       (unsigned long long)ev->cancelled, (unsigned long long)lost, is_clean, d.broken,
	       (unsigned long long)d.req.seed);
	for (int i = 0; i < ch::core::CH_NR_CRASH_POINTS; i++)
		if (ev->hits[i])
			printf(" point %d:%llu", i, (unsigned long long)ev->hits[i]);
	printf("\n");
	ch_pool_destroy(pool);
	return ok ? 0 : 1;
}

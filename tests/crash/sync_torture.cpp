/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sync_torture.cpp - the kill test of the synchronisation objects. Processes use a mutex, a read/write lock, a semaphore
 * with undo, a condition, an event and a barrier, are killed with SIGKILL at random instants and (in builds with
 * --enable-crash-points) at chosen steps, and replaced.
 *
 * Each guarded place says who is in it. Nobody may ever meet a living process where it must be alone, nor what a dead
 * one left half done without having been told; no call may take longer than its patience; at the end all objects work,
 * no unit is missing, and the pool is as it was.
 *
 * usage: sync_torture [--kills N] [--seconds S] [--seed X]
 */
#include "../support/support.h"
#include "crash.h"
#include "in_set.h"
#include <atomic>
#include <cstdint>
#include <thread>

namespace {

constexpr int CREW = 8;
constexpr int NR_UNITS = 3;
constexpr int64_t PATIENCE = 20000 * MS;
constexpr int MAX_POINTS = 512;
constexpr int LEFT = CREW + 1;

/* One place in the crew; its tenants come and go. */
struct child {
	pid_t pid;
	uint64_t seed;
	int64_t kill_at;
	int kill_point, countdown;
	std::atomic<bool> is_dead; /* set before it is killed */
};

/* A guarded place: who is in it, and two words that are equal whenever nobody is amid a change. */
struct place {
	std::atomic<int> inside; /* child + 1; LEFT: one that is dead */
	uint64_t a, b;
};

struct evidence {
	std::atomic<bool> stop;
	std::atomic<uint64_t> told, rounds, met, released, failed;
	std::atomic<uint64_t> units; /* four bits for each child: how many it holds */
	std::atomic<uint64_t> hits[MAX_POINTS], passes[MAX_POINTS];
	place alone, shared_place;
	std::atomic<bool> half_done; /* a reader was told, and repairs nothing */
	uint64_t nr_queued;
	struct ch_descr mutex, rwlock, semaphore, queue_mutex, condition, event, barrier;
	child crew[CREW];
};

struct objects {
	struct ch_mutex *m, *queue_m;
	struct ch_rwlock *l;
	struct ch_semaphore *s;
	struct ch_condition *c;
	struct ch_event *e;
	struct ch_barrier *b;
};

evidence *ev;
objects the;
ch_pollset *set; /* in half of the incarnations: they wait there for a unit and for the event */
int self = -1;
uint64_t rs;

#ifdef CH_CRASH_POINTS
void on_crash_point(int point)
{
	if (self < 0)
		return;
	child &me = ev->crew[self];
	ev->passes[point]++;
	if (point == me.kill_point && !ev->stop && --me.countdown <= 0) {
		me.is_dead = true;
		ev->hits[point]++;
		kill(getpid(), SIGKILL);
	}
	if (rnd(&rs) % 64 == 0) /* let somebody else in between two steps */
		rnd(&rs) % 4 ? (void)sched_yield() : short_nap();
}
#endif

void complain(const char *what, int code)
{
	fprintf(stderr, "sync_torture: child %d: %s: %s (%s)\n", self, what, code ? strerror(-code) : "", ch_errmsg());
	ev->failed++;
	_exit(4);
}

/* Whether the call did what it was to do; counts the deaths it was told of. */
bool is_done(int rc, const char *what, bool may_time_out)
{
	if (rc == -EOWNERDEAD)
		ev->told++;
	if (rc >= 0 || rc == -EOWNERDEAD)
		return true;
	if (!may_time_out || (rc != -EAGAIN && rc != -ETIMEDOUT))
		complain(what, rc);
	return false;
}

bool is_dead(int who)
{
	return who == LEFT || ev->crew[who - 1].is_dead;
}

void enter_alone(place &p, bool was_told)
{
	const int who = p.inside.exchange(self + 1);

	if (who != 0 && !is_dead(who))
		complain("two where one must be alone", 0);
	if ((who != 0 || p.a != p.b) && !was_told)
		complain("a death that nobody was told of", 0);
	p.b = p.a;
	p.a++;
	if (rnd(&rs) % 16 == 0)
		sched_yield();
	p.b++;
	p.inside = 0;
}

int64_t some_patience(bool &may_time_out)
{
	const int64_t timeouts[] = { CH_TRY, 100000, 2 * MS, PATIENCE, PATIENCE };
	const int64_t t = timeouts[rnd(&rs) % 5];

	may_time_out = t != PATIENCE;
	return t;
}

void use_mutex()
{
	bool may;
	const int64_t t = some_patience(may);
	const int rc = ch_mutex_lock(the.m, t);

	if (!is_done(rc, "mutex", may))
		return;
	enter_alone(ev->alone, rc < 0);
	if (int err = ch_mutex_unlock(the.m); err < 0)
		complain("unlock", err);
}

void use_rwlock()
{
	bool may;
	const bool writes = rnd(&rs) % 2;
	const int64_t t = some_patience(may);
	int rc = writes ? ch_rwlock_lock(the.l, t) : ch_rwlock_lock_shared(the.l, t);

	if (!is_done(rc, "rwlock", may))
		return;
	if (writes) {
		const bool was_told = ev->half_done.exchange(false) || rc < 0;
		enter_alone(ev->shared_place, was_told);
		if (rnd(&rs) % 4 == 0 && (rc = ch_rwlock_downgrade(the.l)) < 0 && rc != -EAGAIN)
			complain("downgrade", rc);
	} else {
		const int who = ev->shared_place.inside;
		if (who != 0 && !is_dead(who))
			complain("a writer among readers", 0);
		if (rc < 0)
			ev->half_done = true;
	}
	if (rc = ch_rwlock_unlock(the.l); rc < 0)
		complain("rwlock: unlock", rc);
}

void count_units(uint64_t units)
{
	uint64_t sum = 0;

	for (int i = 0; i < CREW; i++)
		sum += ev->crew[i].is_dead ? 0 : units >> (4 * i) & 15;
	if (sum > NR_UNITS)
		complain("more units than there are", 0);
}

void use_semaphore()
{
	bool may;
	const uint64_t n = 1 + rnd(&rs) % 2;
	const int64_t t = some_patience(may);

	auto acquire = [=](int64_t left) { return ch_semaphore_acquire(the.s, static_cast<uint32_t>(n), left); };
	const int rc = torture::call_when(n == 1 ? set : nullptr, ch_semaphore_get_pollable(the.s), CH_POLL_IN, t, acquire);
	if (!is_done(rc, "semaphore", may))
		return;
	count_units(ev->units += n << (4 * self));
	ev->units -= n << (4 * self);
	if (int err = ch_semaphore_release(the.s, static_cast<uint32_t>(n)); err < 0)
		complain("release", err);
}

void use_condition()
{
	if (!is_done(ch_mutex_lock(the.queue_m, PATIENCE), "queue mutex", false))
		return;
	for (int i = 0; i < 3 && ev->nr_queued == 0; i++)
		is_done(ch_condition_wait(the.c, the.queue_m, rnd(&rs) % 2 ? 200000 : 2 * MS), "condition", true);
	ev->nr_queued = ev->nr_queued ? ev->nr_queued - 1 : 2;
	if (int err = rnd(&rs) % 2 ? ch_condition_signal(the.c) : ch_condition_broadcast(the.c); err < 0)
		complain("signal", err);
	if (int err = ch_mutex_unlock(the.queue_m); err < 0)
		complain("queue mutex: unlock", err);
}

void use_event()
{
	auto wait = [](int64_t left) { return ch_event_wait(the.e, left); };

	switch (rnd(&rs) % 4) {
	case 0: is_done(ch_event_pulse(the.e), "pulse", false); break;
	case 1:
		is_done(torture::call_when(set, ch_event_get_pollable(the.e), CH_POLL_IN, MS, wait), "event", true);
		break;
	default: is_done(ch_event_set(the.e), "set", false);
	}
}

int count_meeting(void *)
{
	ev->met++;
	return 0;
}

void use_barrier()
{
	const int rc = ch_barrier_wait(the.b, count_meeting, nullptr, rnd(&rs) % 4 ? 20 * MS : PATIENCE);

	if (rc >= 0)
		ev->released++;
	else if (rc != -EOWNERDEAD && rc != -ECANCELED && rc != -ETIMEDOUT)
		complain("barrier", rc);
	else if (int err = ch_barrier_reset(the.b); err < 0)
		complain("reset", err);
}

template <class T> void attach(int (*fn)(const struct ch_descr *, T **), const struct ch_descr &d, T *&out)
{
	if (int err = fn(&d, &out); err < 0)
		complain("attach", err);
}

[[noreturn]] void play(int i)
{
	self = i;
	rs = ev->crew[i].seed;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(WATCHDOG_S);
	if (rnd(&rs) % 2) { /* handles of its own, instead of its parent's */
		attach(ch_mutex_attach, ev->mutex, the.m);
		attach(ch_mutex_attach, ev->queue_mutex, the.queue_m);
		attach(ch_rwlock_attach, ev->rwlock, the.l);
		attach(ch_semaphore_attach, ev->semaphore, the.s);
		attach(ch_condition_attach, ev->condition, the.c);
		attach(ch_event_attach, ev->event, the.e);
		attach(ch_barrier_attach, ev->barrier, the.b);
	}
	if (rnd(&rs) % 2 && ch_pollset_create(nullptr, &set) < 0)
		complain("poll set", 0);
	void (*const uses[])() = { use_mutex, use_rwlock, use_semaphore, use_condition, use_event, use_barrier };
	while (!ev->stop) {
		uses[rnd(&rs) % 6]();
		ev->rounds++;
	}
	ch_pollset_destroy(set);
	_exit(0);
}

void must(int err, const char *what)
{
	if (err >= 0)
		return;
	fprintf(stderr, "sync_torture: %s: %s: %s\n", what, strerror(-err), ch_errmsg());
	exit(99);
}

void create(struct ch_pool *pool)
{
	struct ch_semaphore_attr sattr = CH_SEMAPHORE_ATTR_INIT;
	struct ch_rwlock_attr lattr = CH_RWLOCK_ATTR_INIT;
	struct ch_event_attr eattr = CH_EVENT_ATTR_INIT;
	struct ch_barrier_attr battr = CH_BARRIER_ATTR_INIT;

	sattr.value = sattr.limit = NR_UNITS;
	sattr.flags = CH_SEMAPHORE_UNDO;
	lattr.max_readers = 8;
	eattr.flags = CH_EVENT_AUTO_RESET;
	battr.parties = 2;
	must(ch_mutex_create(pool, nullptr, &the.m), "mutex");
	must(ch_mutex_create(pool, nullptr, &the.queue_m), "mutex");
	must(ch_rwlock_create(pool, &lattr, &the.l), "rwlock");
	must(ch_semaphore_create(pool, &sattr, &the.s), "semaphore");
	must(ch_condition_create(pool, nullptr, &the.c), "condition");
	must(ch_event_create(pool, &eattr, &the.e), "event");
	must(ch_barrier_create(pool, &battr, &the.b), "barrier");
	must(ch_mutex_get_descr(the.m, &ev->mutex), "descr");
	must(ch_mutex_get_descr(the.queue_m, &ev->queue_mutex), "descr");
	must(ch_rwlock_get_descr(the.l, &ev->rwlock), "descr");
	must(ch_semaphore_get_descr(the.s, &ev->semaphore), "descr");
	must(ch_condition_get_descr(the.c, &ev->condition), "descr");
	must(ch_event_get_descr(the.e, &ev->event), "descr");
	must(ch_barrier_get_descr(the.b, &ev->barrier), "descr");
}

/* Mostly a point that somebody has passed before, so that the kill comes. */
int pick_point(uint64_t &seed)
{
#ifdef CH_CRASH_POINTS
	for (int i = 0; i < 50 && rnd(&seed) % 4; i++) {
		const int point = static_cast<int>(rnd(&seed) % ch::core::CH_NR_CRASH_POINTS);
		if (ev->passes[point])
			return point;
	}
#endif
	(void)seed;
	return -1;
}

void start(int i, uint64_t &seed)
{
	child &c = ev->crew[i];

	c.seed = rnd(&seed) | 1;
	c.kill_point = pick_point(seed);
	c.countdown = 1 + static_cast<int>(rnd(&seed) % (c.kill_point >= 0 && ev->passes[c.kill_point] < 3000 ? 1 : 20));
	c.kill_at = now_ns() + static_cast<int64_t>(100 + rnd(&seed) % (c.kill_point < 0 ? 8000 : 60000)) * 1000;
	ev->units &= ~(UINT64_C(15) << (4 * i));
	for (place *p : { &ev->alone, &ev->shared_place })
		if (int who = i + 1; p->inside.compare_exchange_strong(who, LEFT))
			continue; /* before its place in the crew is a living one's */
	c.is_dead = false;
	const pid_t pid = fork();
	if (pid == 0)
		play(i);
	c.pid = pid;
}

/* Buries who is dead, kills who is old enough. Returns how many were killed. */
uint64_t tend(bool replace, uint64_t &seed)
{
	uint64_t killed = 0;
	int status;

	for (int i = 0; i < CREW; i++) {
		child &c = ev->crew[i];

		if (c.pid > 0 && waitpid(c.pid, &status, WNOHANG) == c.pid) {
			killed += WIFSIGNALED(status);
			if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL) {
				fprintf(stderr, "sync_torture: child %d died of signal %d\n", i, WTERMSIG(status));
				ev->failed++;
			}
			c.is_dead = true;
			c.pid = 0;
		}
		if (c.pid == 0 && replace)
			start(i, seed);
		if (c.pid > 0 && replace && now_ns() > c.kill_at) {
			c.is_dead = true;
			kill(c.pid, SIGKILL);
			c.kill_at = INT64_MAX;
		}
	}
	return killed;
}

bool all_gone()
{
	for (const child &c : ev->crew)
		if (c.pid > 0)
			return false;
	return true;
}

void last_locks()
{
	if (int rc = ch_mutex_lock(the.m, PATIENCE); rc < 0 && rc != -EOWNERDEAD)
		must(rc, "the mutex at the end");
	must(ch_mutex_unlock(the.m), "the mutex at the end");
	must(ch_mutex_lock(the.m, CH_TRY), "a mutex that tells twice");
	if (int rc = ch_rwlock_lock(the.l, PATIENCE); rc < 0 && rc != -EOWNERDEAD)
		must(rc, "the rwlock at the end");
	must(ch_rwlock_unlock(the.l), "the rwlock at the end");
	must(ch_rwlock_lock_shared(the.l, CH_TRY), "an rwlock that tells twice");
}

void take_stock(struct ch_pool *pool, const struct ch_pool_stats &before)
{
	while (ch_pool_sweep(pool) > 0)
		;
	last_locks();
	must(ch_semaphore_acquire(the.s, NR_UNITS, PATIENCE), "units are missing");
	if (ch_semaphore_get_value(the.s) != 0)
		must(-EPROTO, "units too many");
	must(ch_barrier_reset(the.b), "the barrier at the end");
	std::thread other([] { must(ch_barrier_wait(the.b, nullptr, nullptr, PATIENCE), "the barrier at the end"); });
	must(ch_barrier_wait(the.b, nullptr, nullptr, PATIENCE), "the barrier at the end");
	other.join();
	if (ev->released > 2 * ev->met)
		must(-EPROTO, "barriers let more go than met");
	ch_mutex_destroy(the.m);
	ch_mutex_destroy(the.queue_m);
	ch_rwlock_destroy(the.l);
	ch_semaphore_destroy(the.s);
	ch_condition_destroy(the.c);
	ch_event_destroy(the.e);
	ch_barrier_destroy(the.b);
	if (!pool_is_as_before(pool, &before))
		ev->failed++;
}

void print_points()
{
#ifdef CH_CRASH_POINTS
	static const char *const names[] = {
#define X(name) #name,
		CH_CRASH_POINTS_LIST(X)
#undef X
	};
	printf("kills at points:");
	for (int i = 0; i < ch::core::CH_NR_CRASH_POINTS; i++)
		if (ev->passes[i])
			printf(" %s:%llu", names[i], (unsigned long long)ev->hits[i]);
	printf("\n");
#endif
}

struct options {
	uint64_t kills = 300, seed = 0;
	double seconds = 1e9;
};

options parse(int argc, char **argv)
{
	options o;

	for (int i = 1; i + 1 < argc; i += 2)
		if (!strcmp(argv[i], "--kills"))
			o.kills = strtoull(argv[i + 1], nullptr, 0);
		else if (!strcmp(argv[i], "--seconds"))
			o.seconds = atof(argv[i + 1]);
		else if (!strcmp(argv[i], "--seed"))
			o.seed = strtoull(argv[i + 1], nullptr, 0);
		else
			exit(2);
	o.seed = o.seed ? o.seed : test_seed();
	return o;
}

/* Until enough are killed, the time is over, or nothing moves any more. Returns how many were killed. */
uint64_t kill_and_replace(const options &o)
{
	const int64_t end = o.seconds < 1e6 ? now_ns() + static_cast<int64_t>(o.seconds * 1e9) : INT64_MAX;
	int64_t moved_at = now_ns();
	uint64_t killed = 0, seed = o.seed;

	for (uint64_t seen = 0; killed < o.kills && !ev->failed && now_ns() < end; short_nap()) {
		killed += tend(true, seed);
		moved_at = ev->rounds != seen ? now_ns() : moved_at;
		seen = ev->rounds;
		if (now_ns() - moved_at > 2 * PATIENCE)
			break;
		alarm(WATCHDOG_S);
	}
	ev->stop = true;
	for (const int64_t until = now_ns() + 2 * PATIENCE; !all_gone() && now_ns() < until; short_nap()) {
		must(ch_barrier_abort(the.b), "abort"); /* who waits for one that does not come any more */
		killed += tend(false, seed);
	}
	return killed;
}

} // namespace

int main(int argc, char **argv)
{
	const options o = parse(argc, argv);
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_pool_stats before;
	const int64_t begin = now_ns();

	ev = static_cast<evidence *>(mmap(nullptr, sizeof(*ev), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	must(ev == MAP_FAILED ? -ENOMEM : ch_pool_get_stats(pool, &before), "stats");
	create(pool);
#ifdef CH_CRASH_POINTS
	static_assert(ch::core::CH_NR_CRASH_POINTS <= MAX_POINTS);
	ch::core::ch_crash_hook = on_crash_point;
#endif
	const uint64_t killed = kill_and_replace(o);
	const bool hung = !all_gone();
	if (!hung && !ev->failed)
		take_stock(pool, before);
	for (child &c : ev->crew)
		if (c.pid > 0)
			child_kill(c.pid);
	ch_pool_destroy(pool);
	print_points();
	const bool ok = !hung && !ev->failed && ev->told <= killed;
	printf("%s: %llu kills, %llu deaths told, %llu rounds, %llu meetings, %.1f s%s; CH_TEST_SEED=%llu\n",
	       ok ? "PASS" : "FAIL", (unsigned long long)killed, (unsigned long long)ev->told, (unsigned long long)ev->rounds,
	       (unsigned long long)ev->met, static_cast<double>(now_ns() - begin) / 1e9, hung ? ", HUNG" : "",
	       (unsigned long long)o.seed);
	return ok ? 0 : 1;
}

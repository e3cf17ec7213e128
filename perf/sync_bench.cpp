// SPDX-License-Identifier: Apache-2.0
// sync_bench.cpp - the synchronisation objects between processes, each beside what POSIX has for it in shared memory. See
// perf/README.md.
#include "loops.h"
#include <channels/channels.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdexcept>

using namespace bench;

namespace {

void must(int rc, const char *what)
{
	if (rc != 0)
		throw std::runtime_error(std::string(what) + ": " + strerror(rc < 0 ? -rc : rc));
}

// ---- the objects, ours and POSIX's, made before the fork and used by every process

struct ours {
	ch_pool *pool = nullptr;
	ch_mutex *mutex = nullptr;
	ch_rwlock *rwlock = nullptr;
	ch_semaphore *semaphore = nullptr, *undo = nullptr;
	ch_condition *condition = nullptr;
	ch_barrier *barrier = nullptr;

	explicit ours(int parties)
	{
		ch_pool_attr pattr = CH_POOL_ATTR_INIT;
		ch_semaphore_attr sattr = CH_SEMAPHORE_ATTR_INIT;
		ch_barrier_attr battr = CH_BARRIER_ATTR_INIT;

		pattr.len = 1 << 20;
		must(ch_pool_create(&pattr, &pool), "ch_pool_create");
		must(ch_mutex_create(pool, nullptr, &mutex), "ch_mutex_create");
		must(ch_rwlock_create(pool, nullptr, &rwlock), "ch_rwlock_create");
		sattr.value = 1;
		must(ch_semaphore_create(pool, &sattr, &semaphore), "ch_semaphore_create");
		sattr.flags = CH_SEMAPHORE_UNDO;
		must(ch_semaphore_create(pool, &sattr, &undo), "ch_semaphore_create");
		must(ch_condition_create(pool, nullptr, &condition), "ch_condition_create");
		battr.parties = static_cast<std::uint32_t>(parties);
		must(ch_barrier_create(pool, &battr, &barrier), "ch_barrier_create");
	}
	ours(const ours &) = delete;
	ours &operator=(const ours &) = delete;
	~ours() { ch_pool_destroy(pool); } // the handles go with the process
};

struct posix_words {
	pthread_mutex_t mutex;
	pthread_rwlock_t rwlock;
	sem_t semaphore;
	pthread_cond_t condition;
	pthread_barrier_t barrier;
};

struct posix {
	shared<posix_words> w;

	explicit posix(int parties)
	{
		pthread_mutexattr_t m;
		pthread_rwlockattr_t l;
		pthread_condattr_t c;
		pthread_barrierattr_t b;

		pthread_mutexattr_init(&m);
		pthread_mutexattr_setpshared(&m, PTHREAD_PROCESS_SHARED);
		pthread_mutexattr_setrobust(&m, PTHREAD_MUTEX_ROBUST);
		must(pthread_mutex_init(&w->mutex, &m), "pthread_mutex_init");
		pthread_rwlockattr_init(&l);
		pthread_rwlockattr_setpshared(&l, PTHREAD_PROCESS_SHARED);
		must(pthread_rwlock_init(&w->rwlock, &l), "pthread_rwlock_init");
		must(sem_init(&w->semaphore, 1, 1), "sem_init");
		pthread_condattr_init(&c);
		pthread_condattr_setpshared(&c, PTHREAD_PROCESS_SHARED);
		must(pthread_cond_init(&w->condition, &c), "pthread_cond_init");
		pthread_barrierattr_init(&b);
		pthread_barrierattr_setpshared(&b, PTHREAD_PROCESS_SHARED);
		must(pthread_barrier_init(&w->barrier, &b, static_cast<unsigned>(parties)), "pthread_barrier_init");
	}
};

// ---- what is measured: one turn of each, the same for both. word is plain shared memory that the lock guards.

template <auto Lock, auto Unlock> struct lock_turn {
	template <class Objects> void operator()(member &me, Objects &o, std::uint64_t &word, int) const
	{
		if (Lock(o) != 0)
			me.fail("lock");
		word++;
		if (Unlock(o) != 0)
			me.fail("unlock");
	}
};

constexpr auto ch_mutex_turn = lock_turn<[](ours &o) { return ch_mutex_lock(o.mutex, CH_FOREVER); },
					 [](ours &o) { return ch_mutex_unlock(o.mutex); }>{};
constexpr auto px_mutex_turn = lock_turn<[](posix &o) { return pthread_mutex_lock(&o.w->mutex); },
					 [](posix &o) { return pthread_mutex_unlock(&o.w->mutex); }>{};
constexpr auto ch_write_turn = lock_turn<[](ours &o) { return ch_rwlock_lock(o.rwlock, CH_FOREVER); },
					 [](ours &o) { return ch_rwlock_unlock(o.rwlock); }>{};
constexpr auto px_write_turn = lock_turn<[](posix &o) { return pthread_rwlock_wrlock(&o.w->rwlock); },
					 [](posix &o) { return pthread_rwlock_unlock(&o.w->rwlock); }>{};
constexpr auto ch_semaphore_turn = lock_turn<[](ours &o) { return ch_semaphore_acquire(o.semaphore, 1, CH_FOREVER); },
					     [](ours &o) { return ch_semaphore_release(o.semaphore, 1); }>{};
constexpr auto ch_undo_turn = lock_turn<[](ours &o) { return ch_semaphore_acquire(o.undo, 1, CH_FOREVER); },
					[](ours &o) { return ch_semaphore_release(o.undo, 1); }>{};
constexpr auto px_semaphore_turn = lock_turn<[](posix &o) { return sem_wait(&o.w->semaphore); },
					     [](posix &o) { return sem_post(&o.w->semaphore); }>{};

template <auto Lock, auto Unlock> struct read_turn {
	template <class Objects> void operator()(member &me, Objects &o, std::uint64_t &word, int) const
	{
		if (Lock(o) != 0 || const_cast<volatile std::uint64_t &>(word) > 1 || Unlock(o) != 0)
			me.fail("read lock");
	}
};

constexpr auto ch_read_turn = read_turn<[](ours &o) { return ch_rwlock_lock_shared(o.rwlock, CH_FOREVER); },
					[](ours &o) { return ch_rwlock_unlock(o.rwlock); }>{};
constexpr auto px_read_turn = read_turn<[](posix &o) { return pthread_rwlock_rdlock(&o.w->rwlock); },
					[](posix &o) { return pthread_rwlock_unlock(&o.w->rwlock); }>{};

// Two processes take turns: each waits until the word has its parity, changes it, and signals.
struct ch_condition_turn {
	void operator()(member &me, ours &o, std::uint64_t &word, int index) const
	{
		if (ch_mutex_lock(o.mutex, CH_FOREVER) != 0)
			me.fail("lock");
		while (word % 2 != static_cast<std::uint64_t>(index))
			if (ch_condition_wait(o.condition, o.mutex, CH_FOREVER) != 0)
				me.fail("wait");
		word++;
		ch_condition_signal(o.condition);
		ch_mutex_unlock(o.mutex);
	}
};
struct px_condition_turn {
	void operator()(member &me, posix &o, std::uint64_t &word, int index) const
	{
		if (pthread_mutex_lock(&o.w->mutex) != 0)
			me.fail("lock");
		while (word % 2 != static_cast<std::uint64_t>(index))
			if (pthread_cond_wait(&o.w->condition, &o.w->mutex) != 0)
				me.fail("wait");
		word++;
		pthread_cond_signal(&o.w->condition);
		pthread_mutex_unlock(&o.w->mutex);
	}
};

struct ch_barrier_turn {
	void operator()(member &me, ours &o, std::uint64_t &, int) const
	{
		if (ch_barrier_wait(o.barrier, nullptr, nullptr, CH_FOREVER) < 0)
			me.fail("barrier");
	}
};
struct px_barrier_turn {
	void operator()(member &, posix &o, std::uint64_t &, int) const { pthread_barrier_wait(&o.w->barrier); }
};

// ---- the loops

struct tally {
	alignas(64) std::uint64_t word = 0;
	alignas(64) std::atomic<std::uint64_t> turns{0}, stop_at{~std::uint64_t{0}};
	std::atomic<std::uint64_t> elapsed{0}; // of the process that took longest, in ticks
};

void add_turns(tally &t, std::uint64_t nr, std::uint64_t ticks_taken)
{
	std::uint64_t most = t.elapsed.load();

	t.turns += nr;
	while (ticks_taken > most && !t.elapsed.compare_exchange_weak(most, ticks_taken))
		;
}

// Independent turns until the time is over.
template <class Objects, class Turn> void run_free(member &me, Objects &o, tally &t, Turn turn)
{
	deadlines until;
	std::uint64_t nr = 0, now, start = 0;

	while ((now = ticks()) < until.end) {
		if (!start && now > until.warm) {
			start = now;
			nr = 0;
		}
		for (int i = 0; i < 16; i++, nr++)
			turn(me, o, t.word, me.index);
	}
	add_turns(t, start ? nr : 0, start ? now - start : 0);
}

// Turns that everybody takes alike: the first process says after which one all stop.
template <class Objects, class Turn> void run_in_step(member &me, Objects &o, tally &t, Turn turn)
{
	deadlines until;
	std::uint64_t nr = 0, start = ticks();

	while (nr < t.stop_at.load()) {
		if (me.index == 0 && nr % 64 == 0 && ticks() > until.end)
			t.stop_at = nr + 1; // all see it after this turn at the latest, and it ends them all there
		turn(me, o, t.word, me.index);
		nr++;
	}
	add_turns(t, me.index == 0 ? nr : 0, ticks() - start);
}

// ns for each turn, of all processes together.
template <class Objects, class Turn> sample measure(int nr, bool in_step, Turn turn)
{
	sample s;

	try {
		Objects o(nr);
		shared<tally> t;
		s.error = run_team(nr, nr / 2, [&](member &me) {
			me.start();
			if (in_step)
				run_in_step(me, o, *t, turn);
			else
				run_free(me, o, *t, turn);
		});
		const auto turns = static_cast<double>(t->turns.load());
		s.value = turns > 0 ? static_cast<double>(t->elapsed.load()) / ticks_per_ns() / turns : 0;
		s.is_starved = turns < 200;
	} catch (const std::exception &e) {
		s.error = e.what();
	}
	return s;
}

template <class Ours, class Posix> void add(const std::string &name, int nr, bool in_step, const char *against, Ours a, Posix b)
{
	add_row({"sync/" + name + (nr > 1 ? "_" + std::to_string(nr) : ""), std::string("ns a turn; baseline: ") + against,
		 [=] { return measure<ours>(nr, in_step, a); }, [=] { return measure<posix>(nr, in_step, b); }});
}

} // namespace

int main(int argc, char **argv)
{
	for (int nr : {1, 2, 4}) {
		add("mutex", nr, false, "robust pthread mutex", ch_mutex_turn, px_mutex_turn);
		add("semaphore", nr, false, "sem_t", ch_semaphore_turn, px_semaphore_turn);
		add("semaphore_undo", nr, false, "sem_t", ch_undo_turn, px_semaphore_turn);
		add("rwlock_read", nr, false, "pthread rwlock", ch_read_turn, px_read_turn);
		add("rwlock_write", nr, false, "pthread rwlock", ch_write_turn, px_write_turn);
	}
	add("condition", 2, true, "pthread condition", ch_condition_turn{}, px_condition_turn{});
	for (int nr : {2, 4})
		add("barrier", nr, true, "pthread barrier", ch_barrier_turn{}, px_barrier_turn{});
	return run_rows(argc, argv, {{"libchannels", ch_version()}});
}

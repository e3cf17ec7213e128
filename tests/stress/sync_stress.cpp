/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sync_stress.cpp - many threads at each of the synchronisation objects, which guard plain memory. What ThreadSanitizer
 * says of that memory is what the objects order; the sums at the end say that nobody was let in too early or forgotten.
 *
 * usage: sync_stress [--messages N] [--seed X] [--threads T]     N critical sections at each object
 */
#include "stress.h"

namespace {

/* What the locks guard. Two plain words that are equal whenever nobody is amid a change. */
struct guarded {
	uint64_t a = 0, b = 0;

	void change()
	{
		a++;
		b++;
	}
	bool is_whole() const { return a == b; }
};

uint64_t share(const stress::options &o)
{
	return o.messages / static_cast<uint64_t>(o.threads);
}

uint64_t seed_of(const stress::options &o, int i)
{
	return o.seed * 37 + static_cast<uint64_t>(i) + 1;
}

int64_t some_timeout(uint64_t &rs)
{
	const int64_t timeouts[] = { CH_TRY, 20000, MS, CH_FOREVER };

	return timeouts[rnd(&rs) % 4];
}

bool is_no(int rc)
{
	CHECK(rc == 0 || rc == -EAGAIN || rc == -ETIMEDOUT);
	return rc != 0;
}

void lock_mutexes(const stress::options &o, struct ch_pool *pool)
{
	struct ch_mutex_attr attr = CH_MUTEX_ATTR_INIT;
	struct ch_mutex *m = nullptr;
	std::atomic<uint64_t> done{ 0 };
	guarded g;

	attr.flags = CH_MUTEX_RECURSIVE;
	CHECK(ch_mutex_create(pool, &attr, &m) == 0);
	stress::together(o.threads, [&](int i) {
		for (uint64_t n = share(o), rs = seed_of(o, i); n > 0; n--) {
			if (is_no(ch_mutex_lock(m, some_timeout(rs))))
				continue;
			const bool twice = rnd(&rs) % 4 == 0;
			CHECK(!twice || ch_mutex_lock(m, CH_TRY) == 0);
			CHECK(g.is_whole());
			g.change();
			done++;
			CHECK(!twice || ch_mutex_unlock(m) == 0);
			CHECK(ch_mutex_unlock(m) == 0);
		}
	});
	CHECK(g.a == done);
	ch_mutex_destroy(m);
}

void lock_rwlocks(const stress::options &o, struct ch_pool *pool, uint32_t max_readers)
{
	struct ch_rwlock_attr attr = CH_RWLOCK_ATTR_INIT;
	struct ch_rwlock *l = nullptr;
	std::atomic<uint64_t> done{ 0 };
	guarded g;

	attr.max_readers = max_readers;
	CHECK(ch_rwlock_create(pool, &attr, &l) == 0);
	stress::together(o.threads, [&](int i) {
		for (uint64_t n = share(o), rs = seed_of(o, i); n > 0; n--) {
			const bool writes = rnd(&rs) % 4 == 0;

			if (is_no(writes ? ch_rwlock_lock(l, some_timeout(rs)) : ch_rwlock_lock_shared(l, some_timeout(rs))))
				continue;
			CHECK(g.is_whole());
			if (writes) {
				g.change();
				done++;
				if (rnd(&rs) % 2)
					is_no(ch_rwlock_downgrade(l));
				CHECK(g.is_whole());
			} else if (rnd(&rs) % 8 == 0) {
				CHECK(ch_rwlock_lock_shared(l, CH_FOREVER) == 0);
				CHECK(ch_rwlock_unlock(l) == 0);
			}
			CHECK(ch_rwlock_unlock(l) == 0);
		}
	});
	CHECK(g.a == done);
	ch_rwlock_destroy(l);
}

/* As a lock where there is one unit, and as a gate where there are more. */
void pass_semaphores(const stress::options &o, struct ch_pool *pool, uint32_t units, uint32_t flags)
{
	struct ch_semaphore_attr attr = CH_SEMAPHORE_ATTR_INIT;
	struct ch_semaphore *s = nullptr;
	std::atomic<uint32_t> inside{ 0 };
	guarded g;

	attr.value = attr.limit = units;
	attr.flags = flags;
	CHECK(ch_semaphore_create(pool, &attr, &s) == 0);
	stress::together(o.threads, [&](int i) {
		for (uint64_t n = share(o), rs = seed_of(o, i); n > 0; n--) {
			const auto some = static_cast<uint32_t>(1 + rnd(&rs) % units);

			if (is_no(ch_semaphore_acquire(s, some, some_timeout(rs))))
				continue;
			CHECK((inside += some) <= units);
			if (units == 1)
				g.change();
			inside -= some;
			CHECK(ch_semaphore_release(s, some) == 0);
		}
	});
	CHECK(g.is_whole());
	CHECK(ch_semaphore_get_value(s) == static_cast<int>(units));
	ch_semaphore_destroy(s);
}

/* A queue of at most three plain numbers between two halves of the threads. */
void wait_for_conditions(const stress::options &o, struct ch_pool *pool)
{
	struct ch_mutex *m = nullptr;
	struct ch_condition *c[2] = {};
	uint64_t nr = 0, sum[2] = {};

	CHECK(ch_mutex_create(pool, nullptr, &m) == 0);
	CHECK(ch_condition_create(pool, nullptr, &c[0]) == 0 && ch_condition_create(pool, nullptr, &c[1]) == 0);
	stress::together(o.threads / 2 * 2, [&](int i) {
		const bool takes = i % 2;

		for (uint64_t n = share(o) / 2, rs = seed_of(o, i); n > 0; n--) {
			CHECK(ch_mutex_lock(m, CH_FOREVER) == 0);
			while (takes ? nr == 0 : nr == 3)
				is_no(ch_condition_wait(c[takes], m, some_timeout(rs)));
			takes ? nr-- : nr++;
			sum[takes]++;
			CHECK(ch_condition_signal(c[!takes]) == 0);
			CHECK(ch_mutex_unlock(m) == 0);
		}
	});
	CHECK(nr == 0 && sum[0] == sum[1]);
	for (auto *each : c)
		ch_condition_destroy(each);
	ch_mutex_destroy(m);
}

int count_round(void *arg)
{
	static_cast<guarded *>(arg)->change();
	return 0;
}

/* Everybody writes a plain word of its own before the barrier and reads all the others' after it. */
void meet_at_barriers(const stress::options &o, struct ch_pool *pool)
{
	struct ch_barrier_attr attr = CH_BARRIER_ATTR_INIT;
	struct ch_barrier *b = nullptr;
	std::vector<uint64_t> at(static_cast<size_t>(o.threads));
	guarded rounds;

	attr.parties = static_cast<uint32_t>(o.threads);
	CHECK(ch_barrier_create(pool, &attr, &b) == 0);
	const uint64_t nr = share(o) / 4;
	stress::together(o.threads, [&](int i) {
		for (uint64_t n = 1; n <= nr; n++) {
			at[static_cast<size_t>(i)] = n;
			CHECK(ch_barrier_wait(b, count_round, &rounds, CH_FOREVER) >= 0);
			for (uint64_t other : at)
				CHECK(other == n);
			CHECK(rounds.a == 2 * n - 1);
			CHECK(ch_barrier_wait(b, count_round, &rounds, CH_FOREVER) >= 0);
		}
	});
	ch_barrier_destroy(b);
}

/* A baton goes round from event to event. */
void pass_events(const stress::options &o, struct ch_pool *pool)
{
	struct ch_event_attr attr = CH_EVENT_ATTR_INIT;
	std::vector<struct ch_event *> e(static_cast<size_t>(o.threads));
	guarded g;

	attr.flags = CH_EVENT_AUTO_RESET;
	for (auto &each : e)
		CHECK(ch_event_create(pool, &attr, &each) == 0);
	CHECK(ch_event_set(e[0]) == 0);
	stress::together(o.threads, [&](int i) {
		const auto me = static_cast<size_t>(i);

		for (uint64_t n = share(o) / 4; n > 0; n--) {
			CHECK(ch_event_wait(e[me], CH_FOREVER) == 0);
			g.change();
			CHECK(ch_event_set(e[(me + 1) % e.size()]) == 0);
		}
	});
	CHECK(g.a == share(o) / 4 * static_cast<uint64_t>(o.threads));
	for (auto *each : e)
		ch_event_destroy(each);
}

} // namespace

int main(int argc, char **argv)
{
	const stress::options o = stress::parse(argc, argv, 20000);
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_pool_stats before;

	CHECK(ch_pool_get_stats(pool, &before) == 0);
	lock_mutexes(o, pool);
	lock_rwlocks(o, pool, 0);
	lock_rwlocks(o, pool, 1); /* eight slots: contention for them too, where there are more threads */
	for (uint32_t flags : { UINT32_C(0), CH_SEMAPHORE_UNDO }) {
		pass_semaphores(o, pool, 1, flags);
		pass_semaphores(o, pool, 3, flags);
	}
	wait_for_conditions(o, pool);
	meet_at_barriers(o, pool);
	pass_events(o, pool);
	CHECK(pool_is_as_before(pool, &before));
	ch_pool_destroy(pool);
	return stress::verdict("sync", o);
}

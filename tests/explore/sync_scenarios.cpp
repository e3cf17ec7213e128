/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sync_scenarios.cpp - mutex, rwlock, semaphore, event, condition and barrier. What they are to keep apart is done to plain
 * bytes, where any two accesses that nothing orders are a race, which the explorer finds.
 */
#include "scenarios.h"
#include "sync.h"
#include "world.h"
#include <cerrno>

namespace ch::explore {
namespace {

for_all<ch_mutex> mutex;
for_all<ch_rwlock> rwlock;
for_all<ch_semaphore> semaphore;
for_all<ch_event> event_;
for_all<ch_condition> condition;
for_all<ch_barrier> barrier;
int nr_told; // of a death

template <class T> void name_sync(const for_all<T> &o)
{
	sync_header *h = o.of(0)->v.h;

	name_words(&h->word, 1, 8, "word");
	name_words(h->events, 3, 8, "event");
	name_words(h->extra, 3, 8, "extra");
	name_words(o.of(0)->v.table, o.of(0)->v.nr, 8, "table");
	name_words(object_bits(mutex_kind, reinterpret_cast<u8 *>(h)), 1, 8, "bits");
}

void begin()
{
	make_world({.nr_processes = 4, .nr_pages = 2, .allocates = true});
	nr_told = 0;
}

template <class Attr> Attr attr_of(u32 flags = 0)
{
	Attr a{};

	a.size = sizeof(a);
	a.flags = flags;
	a.spin_ns = CH_SPIN_NEVER;
	return a;
}

#define MAKE(name, object, attr)                                                                                    \
	do {                                                                                                        \
		object.make(4, attr, ch_##name##_create, ch_##name##_get_descr, ch_##name##_attach);                \
		name_sync(object);                                                                                  \
	} while (0)

void begin_mutex()
{
	begin();
	MAKE(mutex, mutex, attr_of<ch_mutex_attr>());
}

void begin_rwlock()
{
	auto a = attr_of<ch_rwlock_attr>();

	begin();
	a.max_readers = 2;
	MAKE(rwlock, rwlock, a);
}

template <u32 value = 0, u32 flags = 0> void begin_semaphore()
{
	auto a = attr_of<ch_semaphore_attr>(flags);

	begin();
	a.value = value;
	MAKE(semaphore, semaphore, a);
}

template <u32 flags = 0> void begin_event()
{
	begin();
	MAKE(event, event_, attr_of<ch_event_attr>(flags));
}

void begin_condition()
{
	begin_mutex();
	MAKE(condition, condition, attr_of<ch_condition_attr>());
}

template <u32 flags = 0> void begin_barrier()
{
	auto a = attr_of<ch_barrier_attr>(flags);

	begin();
	a.parties = 2;
	MAKE(barrier, barrier, a);
}

// ---- plain bytes

u64 read(u64 at)
{
	u64 n;

	std::memcpy(&n, plain_bytes() + at * 8, sizeof(n));
	return n;
}

void write(u64 at, u64 n)
{
	std::memcpy(plain_bytes() + at * 8, &n, sizeof(n));
}

void add(u64 at, i64 n)
{
	write(at, read(at) + static_cast<u64>(n));
}

bool is_any_dead()
{
	return is_dead(0) || is_dead(1);
}

template <u64 n> void end_counted()
{
	require(is_any_dead() || read(0) == n, "counted wrong");
	require(nr_told <= 1 && (nr_told == 0 || is_any_dead()), "told of a death too often");
}

void told(int rc)
{
	require(rc == 0 || rc == -EOWNERDEAD, "a call failed");
	nr_told += rc == -EOWNERDEAD;
}

// ---- what threads do

void count_in_mutex(int times)
{
	for (int k = 0; k < times; k++) {
		told(ch_mutex_lock(mutex.mine(), CH_FOREVER));
		add(0, 1);
		require(ch_mutex_unlock(mutex.mine()) == 0, "unlock failed");
	}
}

void write_locked()
{
	told(ch_rwlock_lock(rwlock.mine(), CH_FOREVER));
	add(0, 1);
	write(1, read(0));
	require(ch_rwlock_unlock(rwlock.mine()) == 0, "unlock failed");
}

void read_locked()
{
	const int rc = ch_rwlock_lock_shared(rwlock.mine(), CH_FOREVER);

	told(rc);
	require(rc < 0 || read(0) == read(1), "read what was half written");
	require(ch_rwlock_unlock(rwlock.mine()) == 0, "unlock failed");
}

void write_then_read()
{
	told(ch_rwlock_lock(rwlock.mine(), CH_FOREVER));
	add(0, 1);
	write(1, read(0));
	require(ch_rwlock_downgrade(rwlock.mine()) == 0, "downgrade failed");
	require(read(0) == read(1), "read what was half written");
	require(ch_rwlock_unlock(rwlock.mine()) == 0, "unlock failed");
}

void acquire_units(u32 n)
{
	require(ch_semaphore_acquire(semaphore.mine(), n, CH_FOREVER) == 0, "acquire failed");
}

void release_units(u32 n)
{
	require(ch_semaphore_release(semaphore.mine(), n) == 0, "release failed");
}

void await_event()
{
	require(ch_event_wait(event_.mine(), CH_FOREVER) == 0, "a wait failed");
}

void set_event()
{
	require(ch_event_set(event_.mine()) == 0, "set failed");
}

void put_item()
{
	told(ch_mutex_lock(mutex.mine(), CH_FOREVER));
	add(0, 1);
	require(ch_mutex_unlock(mutex.mine()) == 0 && ch_condition_signal(condition.mine()) == 0, "no signal");
}

void get_item()
{
	told(ch_mutex_lock(mutex.mine(), CH_FOREVER));
	while (read(0) == 0)
		told(ch_condition_wait(condition.mine(), mutex.mine(), CH_FOREVER));
	add(0, -1);
	require(ch_mutex_unlock(mutex.mine()) == 0, "unlock failed");
}

// Each writes its own bytes before, and reads the other's after.
void meet(int times)
{
	const u64 mine = static_cast<u64>(me()), other = 1 - mine;

	for (u64 k = 1; k <= static_cast<u64>(times); k++) {
		write(mine, k);
		require(ch_barrier_wait(barrier.mine(), nullptr, nullptr, CH_FOREVER) >= 0, "a wait failed");
		require(read(other) == k, "met somebody who was not there");
		require(ch_barrier_wait(barrier.mine(), nullptr, nullptr, CH_FOREVER) >= 0, "a wait failed");
	}
}

void meet_or_hear()
{
	const int rc = ch_barrier_wait(barrier.mine(), nullptr, nullptr, CH_FOREVER);

	require(rc >= 0 || ((rc == -EOWNERDEAD || rc == -ECANCELED) && is_any_dead()), "a wait failed");
}

constexpr bounds usual{.preemptions = 2, .stale = 1}, one{.preemptions = 1, .stale = 1, .deaths = 1};

const scenario list[] = {
	{"mutex: two count", 2, usual, begin_mutex, [](int) { count_in_mutex(2); }, end_counted<4>},
	{"mutex: three count", 3, usual, begin_mutex, [](int) { count_in_mutex(1); }, end_counted<3>},
	{"mutex: a holder dies", 3, one, begin_mutex,
	 [](int i) { i == 2 ? sweep_when_dead() : count_in_mutex(1); }, end_counted<2>, 1},
	{"rwlock: two write", 2, usual, begin_rwlock,
	 [](int) {
		 write_locked();
		 write_locked();
	 },
	 end_counted<4>},
	{"rwlock: one writes, two read", 3, usual, begin_rwlock, [](int i) { i == 0 ? write_locked() : read_locked(); },
	 end_counted<1>},
	{"rwlock: a writer reads on", 2, usual, begin_rwlock,
	 [](int i) {
		 i == 0 ? write_then_read() : read_locked();
		 i == 0 ? read_locked() : write_locked();
	 },
	 end_counted<2>},
	{"rwlock: a writer dies", 3, one, begin_rwlock,
	 [](int i) { i == 2 ? sweep_when_dead() : i == 0 ? write_locked() : read_locked(); }, [] {}, 1},
	{"rwlock: a writer dies, another writes", 3, one, begin_rwlock,
	 [](int i) { i == 2 ? sweep_when_dead() : write_locked(); }, end_counted<2>, 1},
	{"rwlock: a reader dies", 3, one, begin_rwlock,
	 [](int i) { i == 2 ? sweep_when_dead() : i == 0 ? read_locked() : write_locked(); }, [] {}, 1},
	{"semaphore: handed over", 2, usual, begin_semaphore<>,
	 [](int i) {
		 for (u64 k = 1; k <= 2; k++) {
			 if (i == 0) {
				 write(k, k);
				 release_units(1);
			 } else {
				 acquire_units(1);
				 require(read(k) == k, "not what was handed over");
			 }
		 }
	 },
	 [] {}},
	{"semaphore: one wants two", 3, usual, begin_semaphore<>,
	 [](int i) {
		 if (i == 2)
			 return acquire_units(2);
		 release_units(2);
		 acquire_units(1);
	 },
	 [] {}},
	{"semaphore: until none is left", 3, usual, begin_semaphore<2>,
	 [](int i) {
		 if (i < 2) {
			 write(static_cast<u64>(i), 1);
			 return acquire_units(1);
		 }
		 require(ch_semaphore_wait_zero(semaphore.mine(), CH_FOREVER) == 0, "a wait failed");
	 },
	 [] {}},
	{"semaphore: who holds a unit dies", 3, one, begin_semaphore<1, CH_SEMAPHORE_UNDO>,
	 [](int i) {
		 if (i == 2)
			 return sweep_when_dead();
		 acquire_units(1);
		 add(0, 1);
		 release_units(1);
	 },
	 end_counted<2>, 1},
	{"event: one sets, two wait", 3, usual, begin_event<>,
	 [](int i) {
		 if (i == 0) {
			 write(0, 1);
			 return set_event();
		 }
		 await_event();
		 require(read(0) == 1, "woken too early");
	 },
	 [] {}},
	{"event: pulse", 2, usual, begin_event<>,
	 [](int i) {
		 if (i == 1)
			 return await_event();
		 require(ch_event_pulse(event_.mine()) == 0, "pulse failed");
		 set_event();
	 },
	 [] {}},
	{"event: set, cleared, set", 2, usual, begin_event<>,
	 [](int i) {
		 if (i == 1) {
			 await_event();
			 require(read(0) == 1, "woken too early");
			 return;
		 }
		 write(0, 1);
		 set_event();
		 require(ch_event_clear(event_.mine()) == 0, "clear failed");
		 set_event();
	 },
	 [] {}},
	{"event: one goes for each set", 3, usual, begin_event<CH_EVENT_AUTO_RESET>,
	 [](int i) {
		 if (i > 0) {
			 await_event();
			 add(0, 1);
			 return set_event();
		 }
		 write(0, 1);
		 set_event();
	 },
	 end_counted<3>},
	{"condition: two put, one takes", 3, usual, begin_condition,
	 [](int i) {
		 if (i < 2)
			 return put_item();
		 get_item();
		 get_item();
	 },
	 end_counted<0>},
	{"condition: one puts two, two take", 3, usual, begin_condition,
	 [](int i) {
		 if (i > 0)
			 return get_item();
		 put_item();
		 put_item();
	 },
	 end_counted<0>},
	{"barrier: two meet twice", 2, usual, begin_barrier<>, [](int) { meet(2); }, [] {}},
	{"barrier: a party dies", 3, one, begin_barrier<CH_BARRIER_MEMBERS>,
	 [](int i) { i == 2 ? sweep_when_dead() : meet_or_hear(); }, [] {}, 1},
	{"barrier: given up and begun anew", 3, usual, begin_barrier<>,
	 [](int i) {
		 if (i < 2) {
			 write(static_cast<u64>(i), 1);
			 const int rc = ch_barrier_wait(barrier.mine(), nullptr, nullptr, CH_FOREVER);
			 require(rc >= 0 || rc == -ECANCELED, "a wait failed");
			 if (rc >= 0)
				 require(read(1 - static_cast<u64>(i)) == 1, "met somebody who was not there");
			 return;
		 }
		 require(ch_barrier_abort(barrier.mine()) == 0, "abort failed");
	 },
	 [] {}},
};

} // namespace

std::vector<scenario> sync_scenarios()
{
	return {std::begin(list), std::end(list)};
}

} // namespace ch::explore

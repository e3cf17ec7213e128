/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sync.pml - a mutex and a condition whose users die, as in libchannels/sync_mutex.cpp and sync_condition.cpp.
 *
 * NP producers put one item each under the mutex and signal once. NC consumers wait on the condition for an item and take
 * one; NT times one of them finds its time over while it sleeps, and leaves without an item if it was not signalled. NK
 * times somebody is killed, at any step; its sweeper then takes its name out of the mutex and wakes everybody. The
 * event count is taken as event.pml has shown it to be: registering, looking and sleeping are steps of their own, a
 * wake-up changes the sequence and wakes one or all. The kernel may wake any sleeper.
 *
 * Checked: nobody is in the mutex beside another, but after a dead one, and then it was told; every death in the mutex is
 * told to exactly one holder, or is still to be; when nothing can move any more, nobody alive waits for the mutex, and
 * none for an item that there is.
 *
 * Step of the model and its source line (tests/lint/models.sh looks whether it is still there):
 *   take      sync_mutex.cpp      "if (!word.compare_exchange_strong(w, mine, acquire, relaxed))"
 *   let go    sync_mutex.cpp      "m->v.h->word.store(0, release);"
 *   ring      sync_mutex.cpp      "event_notify(m->v.h->events[0], 1);"
 *   enlist    sync_condition.cpp  "registration r = event_register(c->v.h->events[0]);"
 *   sleep     sync_condition.cpp  "wait_sleep(c, e, r, NOBODY, until_ns, slice)"
 *   bury      sync_mutex.cpp      "v.h->word.compare_exchange_strong(w, HOLDER_DIED, release, relaxed);"
 *   wake all  sync.cpp            "event_wake(e, EVERYBODY);"
 * mreg is the mutex's registration, creg the condition's.
 *
 * Seeded bugs, each of which must be found: -DNONEWS (the sweeper frees the mutex and says nothing), -DNOWAKE (it wakes
 * nobody), -DLATE (a consumer registers after it let the mutex go), -DBLIND (who waits for the mutex sleeps without
 * another look), -DTIMEFIRST (a consumer whose time is over leaves though it was signalled).
 */
#ifndef NC
#define NC 2
#endif
#ifndef NP
#define NP 2
#endif
#ifndef NK
#define NK 1
#endif
#ifndef NT
#define NT 1
#endif
#define N (NC + NP)
#define FREE 0
#define DIED 255

byte word;                       /* FREE, DIED, or the holder + 1 */
byte inside;                     /* who is in the guarded place + 1; a dead one stays there */
byte mseq, cseq;                 /* the sequences of the two events */
bool masleep[N], casleep[N];
bool dead[N], buried[N], done[N];
byte items, told, died_inside, killed, timeouts;

#if N > 3
#define OTHERS(asleep) :: asleep[2] -> asleep[2] = false :: asleep[3] -> asleep[3] = false
#else
#define OTHERS(asleep) :: asleep[2] -> asleep[2] = false
#endif
#define RING(i, asleep, seq) atomic { LIVE(i) seq++ }; atomic { LIVE(i) \
	if :: asleep[0] -> asleep[0] = false :: asleep[1] -> asleep[1] = false OTHERS(asleep) :: else fi }
#define WAKE_ALL(asleep, seq) seq++; do :: k < N -> asleep[k] = false; k++ :: else -> break od; k = 0

/* Every step is one that a living process takes; a dead one stays where it is. */
#define LIVE(i) !dead[i] ->

inline take(i) {
	if
	:: word == FREE -> assert(inside == 0); word = i + 1; inside = i + 1; got = true
	:: word == DIED -> assert(dead[inside - 1]); told++; word = i + 1; inside = i + 1; got = true
	:: else -> got = false
	fi
}

inline lock(i) {
	got = false;
	do
	:: got -> break
	:: else ->
		atomic { LIVE(i) take(i) };                                             /* take */
		if
		:: got
		:: else ->
			atomic { LIVE(i) mreg = mseq };                                 /* enlist */
#ifndef BLIND
			atomic { LIVE(i) take(i) };                                     /* take */
#endif
			if
			:: got
			:: else ->
				atomic { LIVE(i) if :: mreg == mseq -> masleep[i] = true :: else fi };  /* sleep */
				atomic { !dead[i] && !masleep[i] -> mreg = 0 }
			fi
		fi
	od;
	mreg = 0
}

inline unlock(i) {
	atomic { LIVE(i) assert(word == i + 1); word = FREE; inside = 0 };              /* let go */
	RING(i, masleep, mseq)                                      /* ring */
}

proctype consumer(byte i) {
	byte mreg, creg;
	bool got, late;

	lock(i);
	do
	:: atomic { !dead[i] && items > 0 -> items-- }; break
	:: atomic { !dead[i] && items == 0 -> skip };
#ifndef LATE
		atomic { LIVE(i) creg = cseq };                                         /* enlist */
		unlock(i);
#else
		unlock(i);
		atomic { LIVE(i) creg = cseq };
#endif
asleep:		atomic { LIVE(i) if :: creg == cseq -> casleep[i] = true :: else fi };  /* sleep */
		if
		:: atomic { !dead[i] && !casleep[i] -> late = false }
		:: atomic { !dead[i] && casleep[i] && timeouts < NT -> timeouts++; casleep[i] = false; late = true }
#ifdef TIMEFIRST
		:: atomic { !dead[i] && !casleep[i] && timeouts < NT -> timeouts++; late = true }
#endif
		fi;
#ifndef TIMEFIRST
		atomic { LIVE(i) late = late && creg == cseq };
#endif
		if :: atomic { !dead[i] && !late && creg == cseq -> goto asleep } :: else fi;    /* not for it: sleep on */
		lock(i);
		if :: late -> break :: else fi
	od;
	unlock(i);
	done[i] = true
}

proctype producer(byte i) {
	byte mreg;
	bool got;

	lock(i);
	atomic { LIVE(i) items++ };
	unlock(i);
	RING(i, casleep, cseq);                                     /* ring */
	done[i] = true
}

inline kill_one(i) { killed++; dead[i] = true; masleep[i] = false; casleep[i] = false }

#define MAY_DIE(i) killed < NK && !dead[i] && !done[i]

proctype killer() {
	do
	:: atomic { MAY_DIE(0) -> kill_one(0) }
	:: atomic { MAY_DIE(1) -> kill_one(1) }
	:: atomic { MAY_DIE(2) -> kill_one(2) }
#if N > 3
	:: atomic { MAY_DIE(3) -> kill_one(3) }
#endif
	:: break
	od
}

inline bury(i) {
	buried[i] = true;
	if
	:: word == i + 1 ->
#ifndef NONEWS
		word = DIED;
#else
		word = FREE;
#endif
		died_inside++
	:: else
	fi
}

proctype sweeper() {
	byte k;

	do
	:: atomic { dead[0] && !buried[0] -> bury(0) }; goto wake
	:: atomic { dead[1] && !buried[1] -> bury(1) }; goto wake
	:: atomic { dead[2] && !buried[2] -> bury(2) }; goto wake
#if N > 3
	:: atomic { dead[3] && !buried[3] -> bury(3) }; goto wake
#endif
wake:
#ifndef NOWAKE
		atomic { WAKE_ALL(masleep, mseq) };
		atomic { WAKE_ALL(casleep, cseq) }
#else
		skip
#endif
	od
}

init {
	byte i;

	atomic {
		do :: i < NC -> run consumer(i); i++ :: else -> break od;
		do :: i < N -> run producer(i); i++ :: else -> break od;
		run killer();
		run sweeper();
		i = 0
	};
	timeout;
	assert(word == FREE || word == DIED);
	assert(told + (word == DIED -> 1 : 0) == died_inside);
	do
	:: i < N -> assert(done[i] || dead[i] || (i < NC && casleep[i] && items == 0)); i++
	:: else -> break
	od
}

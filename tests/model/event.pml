/* SPDX-License-Identifier: Apache-2.0 */
/*
 * event.pml - the event count of libchannels/event.h, with the store buffers of the notifiers.
 *
 * NN notifiers commit one message each and notify, NW waiters want one message each. A commit is a plain store: it
 * lies in its notifier's store buffer until that drains, which happens by itself at any time, at a locked instruction of
 * the notifier, or at a waiter's barrier (membarrier(2)). Checked: when nothing can move any more, every waiter has
 * its message.
 *
 * Step of the model and its source line (tests/lint/models.sh looks whether it is still there):
 *   commit     ring.h     "s.w.store(t | S_FULL, release)"
 *   look       event.h    "return !(e.v.load(relaxed) & EVENT_LOUD)"
 *   ask        event.cpp  "u64 w = e.v.fetch_add(0, acq_rel)"
 *   bump       event.cpp  "bumped = (old & ~u64{UINT32_MAX}) | static_cast<u32>(old + 1)"
 *   wake       event.cpp  "FUTEX_WAKE, count"
 *   disarm     event.cpp  "compare_exchange_strong(bumped, bumped & ~EVENT_ARMED, relaxed, relaxed)"
 *   calm       event.cpp  "compare_exchange_strong(w, w & ~EVENT_SLEEPY, relaxed, relaxed)"
 *   register   event.cpp  "while (!e.v.compare_exchange_weak(old, mine, acq_rel, relaxed))"
 *   barrier    event.cpp  "MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) != 0)"
 *   doze       event.h    "compare_exchange_strong(seen, seen | EVENT_SLEEPY, relaxed, relaxed)"
 *   sleep      event.cpp  "FUTEX_WAIT_BITSET, static_cast<u32>(r.seen)"
 *   baton      ring.cpp   "event_wake(r.h->not_empty, 1); // pass the baton"
 * Poll sets' POLLED is no part of it: it makes an event loud, as SLEEPY does.
 *
 * Seeded bugs, each of which must be found: -DNOBARRIER, -DBLINDDOZE (SLEEPY without comparing), -DNOASK (a plain load
 * instead of the locked one), -DBLINDDISARM (disarm without comparing), -DNOLOOK (a waiter sleeps without looking again).
 */
#ifndef NN
#define NN 2
#endif
#ifndef NW
#define NW 2
#endif

byte visible;          /* messages that anybody can see */
bool buffered[NN];     /* the commit is still in this notifier's store buffer */
byte seq, stamp;       /* the event word ... */
bool armed, sleepy;    /* ... all of it */
bool asleep[NW];
byte got, quiets;

inline drain(i) { if :: buffered[i] -> buffered[i] = false; visible++ :: else fi }

inline drain_all() {
	k = 0;
	do :: k < NN -> drain(k); k++ :: else -> break od;
	k = 0
}

/* event_wake(e, 1); sq, st: scratch */
inline wake_one() {
	atomic {                                                        /* bump */
		if :: armed -> seq++; sq = seq; st = stamp; w = 1 :: else -> w = 0 fi
	};
	if
	:: w == 0
	:: else ->
		atomic {                                                /* wake */
			w = 0;
			if
			:: asleep[0] -> asleep[0] = false; w = 1
#if NW > 1
			:: asleep[1] -> asleep[1] = false; w = 1
#endif
#if NW > 2
			:: asleep[2] -> asleep[2] = false; w = 1
#endif
			:: else
			fi
		};
		if
		:: w == 1
		:: else -> atomic {                                     /* disarm */
#ifndef BLINDDISARM
			if :: seq == sq && stamp == st -> armed = false :: else fi
#else
			armed = false
#endif
		}
		fi
	fi;
	w = 0; sq = 0; st = 0
}

proctype notifier(byte i) {
	byte w, sq, st;
	bool a, s;

	buffered[i] = true;                                             /* commit */
	atomic { a = armed; s = sleepy };                               /* look */
	if
	:: !a && !s
	:: else ->
#ifdef NOASK
		atomic { a = armed; s = sleepy; sq = seq; st = stamp };
#else
		atomic { drain(i); a = armed; s = sleepy; sq = seq; st = stamp };  /* ask */
#endif
		if
		:: a -> wake_one()
		:: !a && s ->
			atomic {                                        /* calm, after many or one */
				if
				:: quiets > 0 && armed == a && sleepy == s && seq == sq && stamp == st -> sleepy = false; quiets--
				:: true
				fi
			}
		:: else
		fi
	fi
}

proctype buffers() {
	do
#if NN > 0
	:: atomic { buffered[0] -> drain(0) }
#endif
#if NN > 1
	:: atomic { buffered[1] -> drain(1) }
#endif
#if NN > 2
	:: atomic { buffered[2] -> drain(2) }
#endif
	od
}

proctype waiter(byte i) {
	byte k, w, sq, st, mine_seq, mine_stamp;
	bool s;

again:
	if
	:: atomic { visible > 0 -> visible-- }; goto done
	:: visible == 0
	fi;
	atomic { s = sleepy; armed = true; stamp++; mine_seq = seq; mine_stamp = stamp };    /* register */
	if
	:: s
	:: else ->
#ifndef NOBARRIER
		atomic { drain_all() };                                 /* barrier */
#endif
		atomic {                                                /* doze */
#ifdef BLINDDOZE
			sleepy = true
#else
			if :: seq == mine_seq && stamp == mine_stamp && armed && !sleepy -> sleepy = true :: else fi
#endif
		}
	fi;
#ifndef NOLOOK
	if                                                              /* look again */
	:: atomic { visible > 0 -> visible-- }; goto done
	:: visible == 0
	fi;
#endif
	atomic { if :: seq == mine_seq -> asleep[i] = true :: else fi };     /* sleep */
	!asleep[i];
	goto again;
done:
	atomic { got++; s = (armed || sleepy) && visible > 0 };         /* the baton, on a hint */
	if :: s -> wake_one() :: else fi
}

init {
	byte i;

	atomic {
		quiets = 2;
		do :: i < NN -> run notifier(i); i++ :: else -> break od;
		i = 0;
		do :: i < NW -> run waiter(i); i++ :: else -> break od;
		run buffers()
	};
	timeout;
	assert(got == (NN < NW -> NN : NW))
}

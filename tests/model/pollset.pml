/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pollset.pml - a poll set of libchannels/watch.h and pollwait.cpp, with the store buffers of the senders, and deaths.
 *
 * NN senders commit one message each, into NM channels that are level-triggered members of one set, and tell the set. NW
 * threads wait in the set; each takes WANT messages and goes on to other work for good. CR senders die after their
 * commit, at any step, and are swept. Checked: when nothing can move any more, no message is left while a thread waits.
 * That a thread sleeps on the set's own event without a lost wake-up is event.pml's; here it is one step.
 *
 * Step of the model and its source line (tests/lint/models.sh looks whether it is still there):
 *   commit    ring.h           "s.w.store(t | S_FULL, release);"
 *   look      event.h          "return !(e.v.load(relaxed) & EVENT_LOUD)"
 *   ask       event.cpp        "u64 w = e.v.fetch_add(0, acq_rel)"
 *   ask too   watch.cpp        "seen[k] = p[k].e->v.load(acquire);"
 *   disarm    watch.cpp        "compare_exchange_weak(w, w & ~ARMS, acq_rel, acquire)"
 *   leaf      watch.cpp        "m.leaf[i].fetch_or("
 *   top       watch.cpp        "m.h->top.fetch_or("
 *   nudge     watch.cpp        "event_notify(m.h->ready, 1);"
 *   calm      watch.cpp        "compare_exchange_strong(seen, seen & ~EVENT_POLLED, relaxed, relaxed)"
 *   take      watch.h          "word.exchange(0, acq_rel)"
 *   arm       watch.cpp        "compare_exchange_weak(w, w | u64{mask} << OWNER_BITS, acq_rel, relaxed)"
 *   poll      pollwait.cpp     "const registration r = event_poll(*p[k].e);"
 *   barrier   pollwait.cpp     "event_barrier();"
 *   sure      pollwait.cpp     "event_sure(*a.unsure[k].e, a.unsure[k].seen);"
 *   baton     ring.cpp         "watch_tell(r.o, is_more ? out_of(r) : out_of(r) | CH_POLL_EMPTY, CH_POLL_IN);"
 *   sweep     channel.cpp      "watch_tell_all("
 *
 * Seeded bugs, each of which must be found: -DNOBARRIER, -DNOASK (a plain load instead of the locked one), -DBLINDCALM
 * (POLLED goes without comparing), -DNOSECOND (no look after arming), -DNOMORE (what is reported while others sleep is not
 * armed), -DNOSWEEP (a death tells nobody), -DTOPFIRST (top before leaf).
 */
#ifndef NN
#define NN 2
#endif
#ifndef NW
#define NW 2
#endif
#ifndef NM
#define NM 1
#endif
#ifndef CR
#define CR 0
#endif
#ifndef WANT
#define WANT 1
#endif

byte visible[NM];                  /* messages that anybody can see */
bool buffered[NN];                 /* the commit is still in this sender's store buffer */
bool polled[NM], sleepy[NM];       /* the channel's event word ... */
byte stamp[NM];                    /* ... all of it that matters */
bool armed[NM], more[NM];          /* the watch word */
bool leaf[NM], top;
byte rseq;                         /* of the set's event */
bool asleep[NW];
bool queued[NM];
byte nr_asleep, got, crashes, calms = 1;
bool lock;

#define CHANNEL(i) ((i) % NM)

inline drain(i) { if :: buffered[i] -> buffered[i] = false; visible[CHANNEL(i)]++ :: else fi }

inline nudge() {
	rseq++;
	if
	:: asleep[0] -> asleep[0] = false
#if NW > 1
	:: asleep[1] -> asleep[1] = false
#endif
#if NW > 2
	:: asleep[2] -> asleep[2] = false
#endif
	:: else
	fi
}

#define OR_DIE :: atomic { crashes > 0 -> crashes--; goto dead }

proctype sender(byte i) {
	bool p, was;
	byte st, m;

	atomic { m = CHANNEL(i); buffered[i] = true };                          /* commit */
	if                                                                      /* look */
	:: atomic { !polled[m] && !sleepy[m] -> goto done }
	:: atomic { polled[m] || sleepy[m] }
	OR_DIE
	fi;
	if                                                                      /* ask */
	:: atomic {
#ifndef NOASK
		drain(i);
#endif
		p = polled[m]; st = stamp[m] }
	OR_DIE
	fi;
	if
	:: !p -> atomic {
		if :: calms > 0 && stamp[m] == st && !polled[m] -> sleepy[m] = false; calms-- :: true fi;
		goto done }
	:: p && armed[m]
	:: atomic { p && !armed[m] -> goto scanned }
	fi;
	if                                                                      /* disarm */
	:: atomic { was = armed[m]; armed[m] = false; more[m] = false; if :: !was -> goto scanned :: else fi }
	OR_DIE
	fi;
#ifdef TOPFIRST
	if :: top = true OR_DIE fi;
	if :: leaf[m] = true OR_DIE fi;
#else
	if :: leaf[m] = true OR_DIE fi;                                         /* leaf */
	if :: top = true OR_DIE fi;                                             /* top */
#endif
	if :: atomic { nudge() } OR_DIE fi;                                     /* nudge */
scanned:
	if
	:: armed[m] || !p
	:: atomic { !armed[m] && p -> p = false };
		if
		:: atomic {                                                     /* calm */
#ifndef BLINDCALM
			if :: stamp[m] == st && polled[m] -> polled[m] = false :: else fi
#else
			polled[m] = false
#endif
		}
		OR_DIE
		fi
	fi;
	goto done;
dead:
	atomic { drain(i); p = false; st = 0; was = false };
#ifndef NOSWEEP
	leaf[m] = true;                                                         /* sweep */
	top = true;
	atomic { nudge() };
#endif
done:
	skip
}

proctype buffers() {
	do
	:: atomic { buffered[0] -> drain(0) }
#if NN > 1
	:: atomic { buffered[1] -> drain(1) }
#endif
#if NN > 2
	:: atomic { buffered[2] -> drain(2) }
#endif
	od
}

inline arm(m, is_more) {
	atomic { armed[m] = true; if :: is_more -> more[m] = true :: else fi };  /* arm */
	atomic { s = sleepy[m]; polled[m] = true; stamp[m]++; st = stamp[m] };   /* poll */
	if
	:: atomic { s -> s = false; st = 0 }
	:: atomic { !s ->                                                        /* barrier */
#ifndef NOBARRIER
		k = 0; do :: k < NN -> drain(k); k++ :: else -> break od; k = 0
#endif
		};
		atomic { if :: stamp[m] == st && polled[m] && !sleepy[m] -> sleepy[m] = true :: else fi; st = 0 }
	fi
}

/* Under the lock. Stops at the first event. */
inline collect() {
	atomic { t = top; top = false; m = 0 };                                 /* take */
	atomic {
		do
		:: m < NM && t && leaf[m] -> leaf[m] = false; queued[m] = true; m++
		:: m < NM && !(t && leaf[m]) -> m++
		:: else -> break
		od;
		m = 0; t = false
	};
	do
	:: m < NM && !found ->
		atomic {                                                        /* first look */
			if
			:: queued[m] && visible[m] > 0 -> found = true; which = m
			:: queued[m] && visible[m] == 0 && nr_asleep > 0 -> queued[m] = false; t = true
			:: else                                                 /* not there, or kept warm */
			fi
		};
		if
		:: t ->
			arm(m, false);
			atomic {                                                /* second look */
				t = false;
#ifndef NOSECOND
				if :: visible[m] > 0 -> found = true; which = m; queued[m] = true :: else fi
#endif
			}
		:: else
		fi;
#ifndef NOMORE
		if :: found && nr_asleep > 0 -> arm(m, true) :: else fi;
#endif
		m++
	:: else -> break
	od;
	m = 0
}

proctype waiter(byte i) {
	byte k, m, st, reg, which, mine;
	bool s, t, found;

again:
	atomic { !lock -> lock = true };
	collect();
	atomic { lock = false; if :: found -> goto recv :: else fi };
	atomic { !lock -> lock = true; nr_asleep++; reg = rseq };                /* lie down */
	collect();
	atomic { lock = false; if :: found -> nr_asleep--; reg = 0; goto recv :: else fi };
	atomic { if :: rseq == reg -> asleep[i] = true :: else fi; reg = 0 };    /* sleep */
	atomic { !asleep[i] && !lock -> nr_asleep-- };
	goto again;
recv:
	if
	:: atomic { visible[which] == 0 -> found = false; which = 0; goto again } /* another was quicker */
	:: atomic { visible[which] > 0 -> visible[which]--; found = false }
	fi;
	if                                                                       /* baton */
	:: atomic { polled[which] && armed[which] && more[which] && visible[which] > 0 ->
		armed[which] = false; more[which] = false };
		leaf[which] = true;
		top = true;
		atomic { nudge() }
	:: else
	fi;
	atomic { got++; which = 0; mine++; if :: mine < WANT -> goto again :: else fi }
}

init {
	byte i;

	atomic {
		crashes = CR;
		do
		:: i < NM -> queued[i] = true; if :: sleepy[i] = true :: true fi; i++
		:: else -> break
		od;
		i = 0;
		do :: i < NN -> run sender(i); i++ :: else -> break od;
		i = 0;
		do :: i < NW -> run waiter(i); i++ :: else -> break od;
		run buffers()
	};
	timeout;
	assert(got == (NN < NW * WANT -> NN : NW * WANT))
}

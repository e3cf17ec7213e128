/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.pml - the ring of libchannels/ring.h with a death at every shared step, and the sweep of it.
 *
 * NP producers send M messages each, as blocks with -DBLK; NC consumers receive; NS sweepers wait for deaths. CR
 * processes may die, each between any two steps. With REUSE the index of a swept consumer gets a new tenant. With ACK
 * messages are acknowledged, and given back so many times: between claim and delivery lies as much time as one likes. There
 * are no time slices here: whoever sleeps is woken or stays asleep. Checked, when nothing can move any more and a
 * consumer and a sweeper live: every death was swept, every live producer is done, every committed message was
 * delivered once and no other, every slot is EMPTY, every block is free; and on the way: FIFO per producer, and that
 * each plain store of a slot word meets the word that its owner believes in.
 *
 * Step of the model, its source line (tests/lint/models.sh looks whether it is still there):
 *   send claim        ring.h       "if (!r.p[i].compare_exchange_strong(x, (t + r.lap) | me, acq_rel, relaxed))"
 *   commit            ring.h       "s.w.store(t | S_FULL, release);"
 *   receive claim     ring.h       "if (!r.q[i].compare_exchange_strong(x, (t + r.lap) | me, acq_rel, relaxed))"
 *   take the block    recover.cpp  "block_word(ref.tag, B_OWNED, me), acq_rel, acquire)"
 *   deliver           ring.h       "s.w.store((t + r.lap) | S_EMPTY, release);"
 *   step over         ring.cpp     "r.at(i).w.store((t + r.lap) | S_EMPTY, release);"
 *   find left ones    recover.cpp  "if (slot_state_of(w) != S_RECOV ||"
 *   unmark            recover.cpp  "compare_exchange_strong(mark, mark & ~u64{CHANNEL_RECOV}"
 *   claim left ones   recover.cpp  "compare_exchange_strong(x, (ticket + r.lap) | me, acq_rel, relaxed)"
 *   bury              recover.cpp  "r.at(i).w.compare_exchange_strong(w, t | S_TOMB"
 *   give back         recover.cpp  "give_to_message(r, m, i, B_OWNED, claim_owner(x));"
 *   mark              recover.cpp  "s.w.compare_exchange_strong(w, t | S_RECOV"
 *   offer             recover.cpp  "r.q[i].compare_exchange_strong(x, word_ticket(x) | NOBODY"
 *   announce          recover.cpp  "(old | CHANNEL_RECOV) + CHANNEL_RECOV_ONCE"
 *   requeue           recover.cpp  "r.of(ticket).w.store(ticket | S_RECOV, release);"
 *   keep sent blocks  recover.cpp  "give_to_message(r, m, i, B_SENDING, sender);"
 *   sweep blocks      sweep.cpp    "sweep_block(seg, b, w, dead);"
 *   wake all          sweep.cpp    "k->wake(seg, dead, b);"
 *   free the slot     sweep.cpp    "slot.id.compare_exchange_strong(id, 0"
 *   baton             ring.cpp     "event_wake(*r.not_full, 1); // pass the baton"
 * Words: claim words Pc, Po and Qc, Qo (lap, owner); slot words Sc, Ss (lap, state); block words bst, bow (state, owner);
 * recov, the mark in the state word, and times, how often it was set. Register, sleep and notify are event.pml's; here its
 * fences are taken for granted.
 *
 * Seeded bugs, each of which must be found: -DNOSWAKE (the sweep wakes nobody), -DLATEBLK (blocks before slots), -DNOGIVE
 * (a dead reader's block is not given back), -DNOKEEP (sent blocks are not kept), -DOWNONLY (a sweeper announces what it
 * offered itself, and not what its dead one had offered), -DNOTIMES (a mark does not say how often it was set).
 */
#ifndef N
#define N 2
#endif
#ifndef ACK
#define ACK 0
#endif
#ifndef NP
#define NP 2
#endif
#ifndef NC
#define NC 1
#endif
#ifndef NS
#define NS 1
#endif
#ifndef M
#define M 1
#endif
#ifndef CR
#define CR 1
#endif
#ifndef REUSE
#define REUSE 0
#endif
#define NM (NP * M)
#define NID (1 + NP + NC + NS)
#define CON0 (1 + NP)
#define SWE0 (1 + NP + NC)
#define EMPTY 0
#define FULL 1
#define TOMB 2
#define RECOV 3
#define OWNED 1
#define SENDING 2
#define INCHAN 3
#define FREED 4
#define NE 1
#define NF 2

byte Pc[N], Po[N], Qc[N], Qo[N], Sc[N], Ss[N];  /* claim and slot words */
byte Sd[N];                                     /* the message in the slot */
byte bst[NM], bow[NM];                          /* one block per message */
byte recov, times, neseq, nereg, nfseq, nfreg;
byte budget = CR, reuse = REUSE, requeues = ACK;
bool dead[NID], swept[NID];
byte sweeper_of[NID], asleep[NID];              /* asleep: 0, NE, NF */
byte committed[NM], delivered[NM], sentok[NM], last[NP];

#ifdef NOTIMES
#define MARK recov = 1
#else
#define MARK recov = 1; times++
#endif
#define CRASH if :: (budget > 0) -> budget--; dead[me] = 1; goto crashed :: true fi

inline wake_one(which) {
	if
	:: (NID > 1 && asleep[1] == which) -> asleep[1] = 0; r = 1
	:: (NID > 2 && asleep[2 % NID] == which) -> asleep[2 % NID] = 0; r = 1
	:: (NID > 3 && asleep[3 % NID] == which) -> asleep[3 % NID] = 0; r = 1
	:: (NID > 4 && asleep[4 % NID] == which) -> asleep[4 % NID] = 0; r = 1
	:: else -> r = 0
	fi
}

inline notify(reg, seq, which) {
	atomic { CRASH; r = reg };
	if
	:: r == 0
	:: else ->
		atomic { CRASH; if :: reg == 0 -> kr = 0 :: else -> seq++; kr = reg; ks = seq fi };
		if
		:: kr == 0
		:: else ->
			atomic { CRASH; wake_one(which) };
			if
			:: r == 0 -> atomic { CRASH; if :: reg == kr && seq == ks -> reg = 0 :: else fi }
			:: else
			fi
		fi;
		kr = 0; ks = 0
	fi;
	r = 0
}

/* Sleeps if seq is still key; may die in its sleep. */
inline doze(seq, which) {
	atomic { CRASH; if :: seq == key -> asleep[me] = which :: else fi };
	if
	:: atomic { asleep[me] == 0 -> armed = 0; key = 0 }
	:: atomic { (asleep[me] && budget > 0) -> asleep[me] = 0; budget--; dead[me] = 1; goto crashed }
	fi
}

proctype producer(byte me) {
	byte t, k, pc, po, sc, ss, key, r, kr, ks, m;
	bit armed;

next:
	if :: k == M -> goto crashed :: else fi;
	m = (me - 1) * M + k;
#ifdef BLK
	atomic { bst[m] = OWNED; bow[m] = me };
#endif
scan:
	atomic { CRASH; pc = Pc[t % N]; po = Po[t % N] };
	if :: pc > t / N -> t++; goto scan :: else fi;
	atomic { CRASH; assert(pc == t / N); sc = Sc[t % N]; ss = Ss[t % N] };
	if
	:: sc == t / N && ss == EMPTY
	:: sc < t / N ->                                                /* full */
		if
		:: !armed -> atomic { CRASH; nfreg = ((nfreg + 2) & 127) | 1; key = nfseq; armed = 1 }
		:: else -> doze(nfseq, NF)
		fi;
		goto scan
	:: else -> goto scan                                            /* a stale claim word */
	fi;
	atomic {                                                        /* claim */
		CRASH;
		if
		:: Pc[t % N] == pc && Po[t % N] == po ->
			Pc[t % N] = pc + 1; Po[t % N] = me; Sd[t % N] = m; armed = 0
		:: else -> goto scan
		fi;
		assert(Sc[t % N] == t / N && Ss[t % N] == EMPTY);
		pc = 0; po = 0; sc = 0; ss = 0; key = 0
	};
#ifdef BLK
	atomic { CRASH; bst[m] = SENDING };
#endif
	atomic {                                                        /* commit: a plain store */
		CRASH;
		assert(Sc[t % N] == t / N && Ss[t % N] == EMPTY);
		Ss[t % N] = FULL; committed[m] = 1
	};
	t++;
	notify(nereg, neseq, NE);
	atomic { CRASH; r = (nfreg != 0 && Sc[t % N] == t / N && Ss[t % N] == EMPTY) };     /* the baton */
	if :: r -> notify(nfreg, nfseq, NF) :: else fi;
	sentok[m] = 1; k++;
	goto next;
crashed:
	skip
}

proctype consumer(byte me) {
	byte h, rt, qc, qo, sc, ss, key, r, kr, ks, m, x, c, i;
	bit armed;

again:
	atomic { CRASH; r = recov; rt = times };
	if
	:: r == 0 -> rt = 0; goto scan
	:: else
	fi;
	atomic {                                                        /* find left ones */
		CRASH;
		x = 255; i = 0; c = 0;
		do
		:: i < N ->
			if
			:: Ss[i] == RECOV ->
				if
				:: Qo[i] == 0 && Qc[i] == Sc[i] + 1 &&
				   (x == 255 || Sc[i] < Sc[x % N] || (Sc[i] == Sc[x % N] && i < x)) -> x = i
				:: else
				fi
			:: else
			fi;
			i++
		:: else -> break
		od;
		i = 0; r = 0;
		if :: x != 255 -> c = Sc[x]; rt = 0 :: else fi
	};
	if
	:: x == 255 ->
		atomic { CRASH; if :: times == rt -> recov = 0 :: else fi; rt = 0 };        /* unmark */
		goto scan
	:: else
	fi;
	atomic {                                                        /* claim a left one */
		CRASH;
		if :: Qc[x] == c + 1 && Qo[x] == 0 -> Qo[x] = me; ss = RECOV; m = Sd[x] :: else -> goto again fi
	};
	goto finish;
scan:
	x = h % N; c = h / N; ss = 0;
	atomic { CRASH; qc = Qc[x]; qo = Qo[x] };
	if :: qc > c -> h++; goto scan :: else fi;
	atomic { CRASH; assert(qc == c); sc = Sc[x]; ss = Ss[x] };
	if
	:: sc == c && (ss == FULL || ss == TOMB)
	:: (sc == c && ss == EMPTY) || sc < c ->        /* empty, or being written, or its previous reader is not done */
		atomic { qc = 0; qo = 0; sc = 0; ss = 0 };
		if
		:: !armed -> atomic { CRASH; nereg = ((nereg + 2) & 127) | 1; key = neseq; armed = 1 }
		:: else -> doze(neseq, NE)
		fi;
		goto again
	:: else -> goto scan
	fi;
	atomic {                                                        /* claim */
		CRASH;
		if
		:: Qc[x] == qc && Qo[x] == qo ->
			Qc[x] = qc + 1; Qo[x] = me; h++; armed = 0; m = Sd[x];
			if :: ss == FULL -> assert(last[m / M] <= m % M); last[m / M] = m % M + 1 :: else fi    /* FIFO */
		:: else -> goto scan
		fi;
		assert(Sc[x] == c && Ss[x] == ss);
		qc = 0; qo = 0
	};
	if
	:: ss == TOMB ->
		atomic { CRASH; assert(Sc[x] == c && Ss[x] == TOMB); Sc[x] = c + 1; Ss[x] = EMPTY; m = 0 };
		notify(nfreg, nfseq, NF);
		goto scan
	:: else
	fi;
finish:
	atomic { armed = 0; sc = 0; key = 0 };
	if
	:: requeues > 0 ->                                              /* requeue */
		atomic { CRASH; requeues--; Ss[x] = RECOV };
		atomic { CRASH; assert(Qo[x] == me && Qc[x] == c + 1); Qo[x] = 0 };
		atomic { CRASH; MARK };
		notify(nereg, neseq, NE);
		atomic { r = 0; m = 0; x = 0; c = 0; ss = 0 };
		goto again
	:: true
	fi;
#ifdef BLK
	atomic { CRASH; assert(bst[m] == SENDING || bst[m] == INCHAN); bst[m] = OWNED; bow[m] = me };     /* take the block */
#endif
	atomic {                                                        /* deliver: a plain store */
		CRASH;
		assert(Sc[x] == c && Ss[x] == ss && Qo[x] == me);
		Sc[x] = c + 1; Ss[x] = EMPTY; ss = 0;
		delivered[m]++; assert(delivered[m] == 1)
	};
	notify(nfreg, nfseq, NF);
	atomic { CRASH; r = (nereg != 0 && Sc[(x + 1) % N] == (c * N + x + 1) / N && Ss[(x + 1) % N] == FULL) };  /* the baton */
	if :: r -> notify(nereg, neseq, NE) :: else fi;
#ifdef BLK
	atomic { CRASH; assert(bst[m] == OWNED && bow[m] == me); bst[m] = FREED; bow[m] = 0 };
#endif
	atomic { r = 0; m = 0; x = 0; c = 0 };
	goto again;
crashed:
	skip
}

#define ELECT(k)                                                                                                         \
	(k < NID && k != me && dead[(k) % NID] && !swept[(k) % NID] &&                                                   \
	 (sweeper_of[(k) % NID] == 0 || dead[sweeper_of[(k) % NID]])) -> d = k; sweeper_of[(k) % NID] = me

inline wake_all(seq, which) {
	atomic { CRASH; seq++ };
	atomic {
		CRASH;
		i = 0;
		do :: i < NID -> if :: asleep[i] == which -> asleep[i] = 0 :: else fi; i++ :: else -> break od;
		i = 0
	}
}

inline sweep_blocks() {
#ifdef BLK
	m = 0;
	do
	:: m < NM ->
		atomic {
			CRASH;
			if
			:: bow[m] == d && (bst[m] == SENDING || bst[m] == OWNED) -> bst[m] = FREED; bow[m] = 0
			:: else
			fi
		};
		m++
	:: else -> break
	od;
	m = 0
#else
	skip
#endif
}

#ifdef OWNONLY
#define ANNOUNCES own
#else
#define ANNOUNCES true
#endif

inline sweep_claims() {
	j = 0;
	do
	:: j < N ->
		atomic { CRASH; r = 0; if :: Po[j] == d && Pc[j] > 0 -> t = Pc[j] - 1; r = 1 :: else fi };
		if
		:: r -> atomic { CRASH; if :: Sc[j] == t && Ss[j] == EMPTY -> Ss[j] = TOMB :: else fi }   /* bury */
		:: else
		fi;
		atomic { CRASH; r = 0; if :: Qo[j] == d && Qc[j] > 0 && Sc[j] == Qc[j] - 1 -> t = Qc[j] - 1; r = Ss[j] :: else fi };
		if
		:: r == TOMB -> atomic { CRASH; Sc[j] = t + 1; Ss[j] = EMPTY }
		:: r == FULL || r == RECOV ->
#if defined(BLK) && !defined(NOGIVE)
			atomic { CRASH; m = Sd[j]; if :: bst[m] == OWNED && bow[m] == d -> bst[m] = INCHAN; bow[m] = 0 :: else fi; m = 0 };
#endif
			atomic { CRASH; assert(Sc[j] == t && (Ss[j] == FULL || Ss[j] == RECOV)); Ss[j] = RECOV };
			atomic { CRASH; assert(Qo[j] == d && Qc[j] == t + 1); Qo[j] = 0; own = 1 }
		:: else
		fi;
		atomic { j++; r = 0; t = 0 }
	:: else -> break
	od;
	atomic {                                                        /* announce */
		CRASH;
		j = 0;
		do
		:: j < N -> if :: Ss[j] == RECOV && Qo[j] == 0 && Qc[j] == Sc[j] + 1 && ANNOUNCES -> r = 1 :: else fi; j++
		:: else -> break
		od;
		if :: r -> MARK :: else fi;
		r = 0; j = 0; own = 0
	}
}

inline keep_blocks() {
#if defined(BLK) && !defined(NOKEEP)
	j = 0;
	do
	:: j < N ->
		atomic {
			CRASH;
			m = Sd[j];
			if
			:: (Ss[j] == FULL || Ss[j] == RECOV) && bst[m] == SENDING && bow[m] == d -> bst[m] = INCHAN; bow[m] = 0
			:: else
			fi;
			m = 0
		};
		j++
	:: else -> break
	od;
	j = 0
#else
	skip
#endif
}

proctype sweeper(byte me) {
	byte d, i, j, r, m, t;
	bit own;

loop:
	atomic { if :: ELECT(1) :: ELECT(2) :: ELECT(3) :: ELECT(4) :: ELECT(5) :: ELECT(6) fi };
#ifdef LATEBLK
	sweep_blocks();
#endif
	sweep_claims();
	keep_blocks();
#ifndef LATEBLK
	sweep_blocks();
#endif
#ifndef NOSWAKE
	wake_all(neseq, NE);
	wake_all(nfseq, NF);
#endif
	atomic {                                                        /* free the slot */
		CRASH;
		swept[d] = 1; sweeper_of[d] = 0;
		if
		:: (reuse > 0 && d >= CON0 && d < SWE0) -> reuse--; dead[d] = 0; swept[d] = 0; run consumer(d)
		:: else
		fi;
		d = 0
	};
	goto loop;
crashed:
	skip
}

init {
	byte i;
	bit live_consumer, live_sweeper;

	atomic {
		if :: budget = 0 :: CR >= 1 -> budget = 1 :: CR >= 2 -> budget = 2 fi;
		do :: i < NP -> run producer(1 + i); i++ :: else -> break od;
		i = 0;
		do :: i < NC -> run consumer(CON0 + i); i++ :: else -> break od;
		i = 0;
		do :: i < NS -> run sweeper(SWE0 + i); i++ :: else -> break od
	};
	timeout;
	atomic {
		i = CON0;
		do :: i < SWE0 -> if :: !dead[i] -> live_consumer = 1 :: else fi; i++ :: else -> break od;
		i = SWE0;
		do :: i < NID -> if :: !dead[i] -> live_sweeper = 1 :: else fi; i++ :: else -> break od;
		if
		:: live_consumer && live_sweeper ->
			i = 1;
			do :: i < NID -> assert(!dead[i] || swept[i]); i++ :: else -> break od;
			i = 0;
			do
			:: i < NM ->
				assert(dead[1 + i / M] || sentok[i]);
				assert(!committed[i] || delivered[i] == 1);
				assert(committed[i] || delivered[i] == 0);
#ifdef BLK
				assert(bst[i] == 0 || bst[i] == FREED);
#endif
				i++
			:: else -> break
			od;
			i = 0;
			do :: i < N -> assert(Ss[i] == EMPTY); i++ :: else -> break od
		:: else
		fi
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spsc.pml - the ring of libchannels/spsc.h: roles, deaths at every shared step, a close at any moment.
 *
 * NP senders of M messages each, as blocks, and NC receivers compete for the two roles; a sweeper; CR of all but the
 * sweeper may die; somebody closes the channel at any time. The sender's commit is a plain store that its processor may
 * keep to itself for a while (pend), until it does a locked instruction, dies, or passes the barrier that the receiver
 * makes everybody pass. Checked at the end, if a receiver lives: a message whose send returned 0 was delivered once, no
 * message was delivered that a live sender was told is not sent, and every block is free.
 *
 * Step of the model, its source line (tests/lint/models.sh looks whether it is still there):
 *   take a role       role.cpp         "if (word.compare_exchange_weak(x, me, acq_rel, acquire))"
 *   begin             ring.cpp         "r.recv_at.store(word_ticket(r.ends->head.load(acquire)), relaxed);"
 *   mark the block    message.cpp      "store(block_word(ref.tag, B_SENDING, me), release);"
 *   commit            spsc.h           "s.w.store(t | S_FULL, release);"
 *   look for a close  spsc.h           "return spsc_is_loud(r) ? spsc_sent("
 *   sender seals      ring.cpp         "compare_exchange_strong(end, (t + TICKET) | SPSC_SEALED"
 *   receiver seals    ring.cpp         "compare_exchange_strong(end, t | SPSC_SEALED"
 *   barrier           ring.cpp         "make_all_pass_a_barrier();"
 *   take the block    recover.cpp      "block_word(ref.tag, B_OWNED, me), acq_rel, acquire)"
 *   deliver           spsc.h           "r.ends->head.store(t, release);"
 *   sweep             recover.cpp      "sweep_spsc(r, m, dead);"
 *   sweep the role    recover.cpp      "role.compare_exchange_strong(x, 0"
 *   drain             recover.cpp      "block_take(m, ref, me, b))"
 * Words: snd, rcv, the roles; bst, bow (state, owner) of a block; F, of a slot 1 + ticket; closing; seal, 1 + the first
 * ticket past the end; head.
 *
 * Seeded bugs, each of which must be found: -DNOBARRIER (the receiver seals without it), -DNOSEAL (the sender does not look
 * for a close after its commit), -DNOGIVE (a dead receiver's block is not given back), -DNOKEEP (sent blocks are not kept),
 * -DROLEFIRST (the role is free before the sweep gave back).
 */
#define N 2
#ifndef NP
#define NP 1
#endif
#ifndef NC
#define NC 2
#endif
#ifndef M
#define M 2
#endif
#ifndef CR
#define CR 1
#endif
#define NM (NP * M)
#define CON0 (1 + NP)
#define SWE (1 + NP + NC)
#define OWNED 1
#define SENDING 2
#define INCHAN 3
#define FREED 4

byte F[N], Fm[N], head, seal, snd, rcv;
byte pend, pendm;                               /* a commit that only the sender's processor knows of */
bool closing, dead[SWE], swept[SWE], done[SWE];
byte bst[NM], bow[NM], delivered[NM];
bool sentok[NM], refused[NM];
byte budget = CR;

#define FLUSH if :: pend -> F[(pend - 1) % N] = pend; Fm[(pend - 1) % N] = pendm; pend = 0; pendm = 0 :: else fi
#define CRASH if :: (budget > 0) -> budget--; dead[me] = 1; FLUSH; goto crashed :: true fi
#define THERE(t) (F[(t) % N] == (t) + 1 && !(seal && (t) >= seal - 1))

proctype sender(byte me) {
	byte t, k, m, c;

	atomic { snd == 0 || closing -> if :: snd == 0 -> snd = me :: else -> goto over fi };
	atomic {                                                        /* begin: the last ticket sent is in its slot */
		CRASH;
		t = head;
		if :: F[0] > t -> t = F[0] :: else fi;
		if :: F[1] > t -> t = F[1] :: else fi
	};
next:
	if :: k == M -> goto leave :: else fi;
	m = (me - 1) * M + k;
	atomic { CRASH; if :: closing -> goto leave :: else fi };
	atomic { (t - head < N && pend == 0) || closing -> if :: t - head >= N -> goto leave :: else fi };
	(pend == 0);                                                    /* stores stay in order */
	atomic { CRASH; bst[m] = OWNED; bow[m] = me };
	atomic { CRASH; bst[m] = SENDING };
	atomic { CRASH; pend = t + 1; pendm = m };                      /* commit */
#ifdef NOSEAL
	c = 0;
#else
	atomic { CRASH; c = closing };
#endif
	if
	:: !c -> sentok[m] = 1
	:: else ->
		atomic {                                                /* a locked instruction */
			CRASH;
			FLUSH;
			if
			:: seal == 0 -> seal = t + 2; sentok[m] = 1
			:: seal && t < seal - 1 -> sentok[m] = 1
			:: else -> refused[m] = 1; F[t % N] = 0; bst[m] = FREED; bow[m] = 0
			fi
		}
	fi;
	atomic { t++; k++ };
	goto next;
leave:
	atomic { CRASH; FLUSH; snd = 0 };
over:
	done[me] = 1;
crashed:
	skip
}

/* The processor gives the commit away at some time. */
active proctype memory() {
end:
	do :: atomic { pend -> FLUSH } od
}

active proctype closer() {
	closing = 1
}

proctype receiver(byte me) {
	byte h, m;
	bit c;

	atomic { rcv == 0 -> rcv = me };
	atomic { CRASH; h = head };
again:
	atomic { CRASH; (THERE(h) || closing); c = closing };           /* asleep until woken: event.pml */
	if
	:: atomic { THERE(h) -> m = Fm[h % N] };
		atomic { CRASH; assert(bst[m] == SENDING || bst[m] == INCHAN); bst[m] = OWNED; bow[m] = me };
		atomic { CRASH; head = h + 1; delivered[m]++; assert(delivered[m] == 1) };
		atomic { CRASH; assert(bow[m] == me); bst[m] = FREED; bow[m] = 0; h++; m = 0 };
		goto again
	:: atomic { !THERE(h) && c -> skip }
	fi;
#ifndef NOBARRIER
	atomic { CRASH; if :: seal == 0 -> FLUSH :: else fi };          /* barrier */
#endif
	atomic { if :: THERE(h) -> goto again :: else fi };
	atomic { CRASH; if :: seal == 0 -> seal = h + 1 :: else fi };
	if :: atomic { h >= seal - 1 -> skip } :: atomic { h < seal - 1 -> goto again } fi;
	atomic { CRASH; rcv = 0; done[me] = 1 };
crashed:
	skip
}

#define ELECT(k) (k < SWE && dead[(k) % SWE] && !swept[(k) % SWE]) -> d = k

inline give(as) {
	i = 0;
	do
	:: i < N ->
		atomic {
			if
			:: F[i] > head && F[i] - head <= N && THERE(F[i] - 1) && bst[Fm[i]] == as && bow[Fm[i]] == d ->
				bst[Fm[i]] = INCHAN; bow[Fm[i]] = 0
			:: else
			fi;
			i++
		}
	:: else -> break
	od;
	i = 0
}

active proctype sweeper() {
	byte d, i;

end:
	do
	:: atomic { if :: ELECT(1) :: ELECT(2) :: ELECT(3) :: ELECT(4) fi };
#ifdef ROLEFIRST
		atomic { if :: snd == d -> snd = 0 :: else fi; if :: rcv == d -> rcv = 0 :: else fi };
#endif
#ifndef NOGIVE
		give(OWNED);
#endif
#ifndef NOKEEP
		give(SENDING);
#endif
#ifndef ROLEFIRST
		atomic { if :: snd == d -> snd = 0 :: else fi; if :: rcv == d -> rcv = 0 :: else fi };
#endif
		do
		:: i < NM ->
			atomic {
				if
				:: bow[i] == d && (bst[i] == OWNED || bst[i] == SENDING) -> bst[i] = FREED; bow[i] = 0
				:: else
				fi;
				i++
			}
		:: else -> break
		od;
		atomic { swept[d] = 1; d = 0; i = 0 }
	od
}

init {
	byte i;
	bool live;

	atomic {
		do :: i < NP -> run sender(1 + i); i++ :: else -> break od;
		i = 0;
		do :: i < NC -> run receiver(CON0 + i); i++ :: else -> break od;
		i = 0
	};
	timeout;
	atomic {                                                        /* drain_lane, when all have gone */
		do
		:: i < N -> if :: F[i] > head && bst[Fm[i]] == INCHAN -> bst[Fm[i]] = FREED :: else fi; i++
		:: else -> break
		od;
		i = CON0;
		do :: i < SWE -> if :: !dead[i] -> live = 1 :: else fi; i++ :: else -> break od;
		i = 0;
		do
		:: live && i < NM ->
			assert(!sentok[i] || delivered[i] == 1);
			assert(!refused[i] || delivered[i] == 0);
			assert(bst[i] == 0 || bst[i] == FREED);
			i++
		:: else -> break
		od;
		i = 1;
		do :: i < SWE -> assert(dead[i] || done[i] || !live); i++ :: else -> break od
	}
}

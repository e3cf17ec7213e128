/* SPDX-License-Identifier: Apache-2.0 */
/*
 * window.pml - a pane of libddict/window.hpp: one manager, one who puts with promises, one who looks, one key.
 *
 * The manager serves its channel in order. Values are numbered in the order in which they are put. Checked: who looks
 * never gets a value that a put had replaced that had returned before he began, nor one of two pieces (-DSHORT, a value
 * that is overwritten where it lies), nor reads one that was freed (otherwise: a value in a block of its own). With -DASKED
 * puts are not promised, but answered.
 * Stores that a fence is to make visible lie in a buffer until that fence, or until they drain by themselves.
 *
 * Step of the model and its source line (tests/lint/models.sh looks whether it is still there):
 *   note       window.cpp  "(!p.compare_exchange_strong(there.word, mine.word, relaxed, relaxed)) // before the fence"
 *   fence P1   window.cpp  "std::atomic_thread_fence(std::memory_order_seq_cst); // [P1] pairs with [P2]"
 *   cover      window.cpp  "compare_exchange_weak(number, (number | 1) + 1, relaxed, relaxed)"
 *   fill       window.cpp  "s.hash.store(what.hash, relaxed); // it is hidden; see the number"
 *   fence P2   window.cpp  "std::atomic_thread_fence(std::memory_order_seq_cst); // [P2] pairs with [P1]"
 *   show       window.cpp  "s.number.compare_exchange_strong(number, number + 1, std::memory_order_release, relaxed);"
 *   hide       window.cpp  "!at.compare_exchange_weak(number, number + 1, relaxed, relaxed)) // before the fence"
 *   release    window.cpp  "std::atomic_thread_fence(std::memory_order_release);"
 *   fence G2   window.cpp  "std::atomic_thread_fence(std::memory_order_seq_cst); // [G2] pairs with [G1]"
 *   keep       promise.cpp "store_.shop_window()->keep(c.head.retry_of >> 8"
 *   find       window.cpp  "number = s.number.load(std::memory_order_acquire);"
 *   hook       window.hpp  "rows_[row].hooks[i].store(place + 1, std::memory_order_relaxed); // before the fence"
 *   fence G1   window.hpp  "std::atomic_thread_fence(std::memory_order_seq_cst);            // [G1] pairs with [G2]"
 *   still      window.hpp  "return panes_[p].number.load(std::memory_order_relaxed) == number; // behind the fence"
 *
 * Seeded bugs, each of which must be found: -DNONOTEFENCE, -DNOFILLFENCE, -DCOVERFIRST (before the note), -DNOCOVER,
 * -DSHOWNONLY (what is hidden is not covered), -DBLINDSHOW (without comparing), -DASKFIRST (for notes, before it fills);
 * -DNOHOOKFENCE; with -DASKED -DNOHIDEFENCE; with both -DASKED and -DSHORT -DNORELEASE.
 */
#define PUTS  2
#define LOOKS 2

mtype = { PUT, GET };
chan ring = [4] of { mtype, byte };
chan answer = [1] of { byte };
chan was_put = [1] of { bool };

byte number;            /* odd: shown */
bool filled;            /* its hash is there ... */
byte value;             /* ... and which value it shows */
byte memory[2];         /* SHORT: the two pieces that lie there, seen through the pane */
byte notes, hook, done; /* hook: value + 1 */
bool freed[PUTS + 1];
bool b_note, b_fill, b_hide; /* in a store buffer */
byte b_hook, b_value;

inline drain_note() { if :: b_note -> b_note = false; notes++ :: else fi }
inline drain_fill() { if :: b_fill -> b_fill = false; filled = true; value = b_value :: else fi }
inline drain_hide() { if :: b_hide -> b_hide = false; if :: number & 1 -> number++ :: else fi :: else fi }
inline drain_hook() { if :: b_hook -> hook = b_hook; b_hook = 0 :: else fi }

active proctype buffers()
{
end:
	do
	:: atomic { b_note -> drain_note() }
	:: atomic { b_fill -> drain_fill() }
	:: atomic { b_hide -> drain_hide() }
	:: atomic { b_hook -> drain_hook() }
	od
}

active proctype manager()
{
	byte v, n, now, old;
	bool was_shown;

end:
	do
	:: ring ? PUT(v) ->
		atomic { if :: number & 1 -> b_hide = true :: else fi };    /* hide */
#if defined(SHORT) && !defined(NORELEASE)
		atomic { drain_hide() };                                    /* release */
#endif
		old = now;
		now = v;
#ifdef SHORT
		memory[0] = v;
		memory[1] = v;
#else
#ifndef NOHIDEFENCE
		atomic { drain_fill(); drain_hide() };                      /* fence G2 */
#endif
		if
		:: was_shown && hook == old + 1                             /* it lingers */
		:: else -> freed[old] = true
		fi;
#endif
		was_shown = false;
		atomic { drain_fill(); drain_hide() };                      /* what ends a message releases */
#ifdef ASKED
		was_put ! true
#else
		notes--                                                     /* keep */
#endif
	:: ring ? GET(v) ->
		answer ! now;
		if
		:: number & 1 || b_hide
		:: else ->
			n = number;
#ifdef ASKFIRST
			if
			:: notes
			:: else ->
				atomic { b_value = now; b_fill = true };
				atomic { drain_fill() };
				atomic { if :: number == n -> number++; was_shown = true :: else fi }
			fi
#else
			atomic { b_value = now; b_fill = true };            /* fill */
#ifndef NOFILLFENCE
			atomic { drain_fill() };                            /* fence P2 */
#endif
			if
			:: notes
			:: else -> atomic {                                 /* show; it releases */
				drain_fill();
#ifdef BLINDSHOW
				number = n + 1; was_shown = true
#else
				if :: number == n -> number++; was_shown = true :: else fi
#endif
			}
			fi
#endif
		fi
	od
}

inline cover() {
	atomic {
#ifdef SHOWNONLY
		if :: filled && number & 1 -> number++ :: else fi
#else
		if :: filled -> number = (number | 1) + 1 :: else fi
#endif
	}
}

active proctype putter()
{
	byte v = 1;

	do
	:: v > PUTS -> break
	:: else ->
#ifdef ASKED
		ring ! PUT(v);
		was_put ? _;
#else
#ifdef COVERFIRST
		cover();
#endif
		b_note = true;                                              /* note */
#ifndef NONOTEFENCE
		atomic { drain_note() };                                    /* fence P1 */
#endif
#if !defined(NOCOVER) && !defined(COVERFIRST)
		cover();
#endif
		atomic { drain_note() };                                    /* a message's commit releases */
		ring ! PUT(v);
#endif
		done = v;
		v++
	od
}

active proctype looker()
{
	byte least, n, got, seen, looks;
	bool is_seen;

	do
	:: looks == LOOKS -> break
	:: else ->
		looks++;
		is_seen = false;
		least = done;
		n = number;                                                 /* find */
		if
		:: n & 1 ->
			got = value;
#ifdef SHORT
			got = memory[0];
			seen = memory[1];
			if
			:: number == n -> assert(got == seen); is_seen = true /* still */
			:: else
			fi
#else
			b_hook = got + 1;                                   /* hook */
#ifndef NOHOOKFENCE
			atomic { drain_hook() };                            /* fence G1 */
#endif
			if
			:: number == n ->
				assert(!freed[got]);
				seen = got;
				assert(!freed[got]);
				is_seen = true
			:: else
			fi;
			atomic { drain_hook(); hook = 0 }
#endif
		:: else
		fi;
		if
		:: is_seen
		:: else -> ring ! GET(0); answer ? got
		fi;
		assert(got >= least)
	od
}

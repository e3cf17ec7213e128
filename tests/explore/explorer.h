/* SPDX-License-Identifier: Apache-2.0 */
/*
 * explorer.h - runs the threads of a scenario in every order, and lets them read every value, that the C++ memory model
 * allows within bounds.
 *
 * Threads are fibers of one thread. Each access to a shared word is a step; before each step the explorer decides who
 * makes the next one, whether the thread dies there for ever, and for a load which of the stores it may see it does see.
 * A run is the list of these decisions. All lists are tried, the deepest decision changed first (stateless search, as in
 * Godefroid's VeriSoft), within a bound on preemptions (CHESS: Musuvathi and Qadeer, PLDI 2007), on stale reads and on
 * deaths. Where two runs meet again the second one ends: what a thread did and saw is hashed, and threads of equal hashes
 * are in equal states whatever the order in which the steps came (happens-before caching, also of CHESS). Larger
 * configurations are run by random priorities that change at a few random steps (PCT: Burckhardt and others, ASPLOS 2010).
 */
#pragma once
#include "word.h"
#include <string>

namespace ch::explore {

inline constexpr int MAX_THREADS = 4;
inline constexpr int MOST = 3; // of each bound

struct bounds {
	int preemptions = 2; // steps before which another thread goes on though this one could
	int stale = 1;       // loads that see an old value though a newer one is there
	int deaths = 0;
	u64 runs = 0;        // 0: until all is done
	u64 seed = 0;        // not 0: random runs
};

struct scenario {
	const char *name;
	int nr_threads;
	bounds within;
	void (*begin)(); // makes the state anew
	void (*run)(int me);
	void (*end)(); // what must hold when all threads are done or dead
	u32 mortal = 0; // bit i: thread i may die
	bool has_barrier = true; // membarrier(2) works
	bool has_time = false;   // when all sleep, those who sleep for some time only wake up; else that is a failure
};

struct outcome {
	bool failed = false, is_complete = false;
	const char *why = "";
	u64 runs = 0, states = 0;
	std::string trace;
};

// Explores until a failure or the bounds. is_traced: a failing run is made once more and each of its steps written down.
outcome explore(const scenario &s, const bounds &within, bool is_traced);

// ---- for scenarios

void require(bool ok, const char *what) noexcept; // in threads and in end()
void pause() noexcept;                            // sleep until another thread has stored something
// Until a mortal thread is dead that is not in swept, which is returned, or until all mortal ones before us are done: -1.
int await_death(u32 swept) noexcept;
bool is_dead(int thread) noexcept;
int me() noexcept; // the running thread, -1 outside of a run

// ---- for memory.cpp

enum class choice : u8 { schedule, value, death, wake };

bool is_running() noexcept;
void point() noexcept;           // before each step
int choose(choice kind, int n) noexcept; // 0 is the usual one
int stale_left() noexcept;
void observe(u64 what) noexcept; // what the running thread saw, which decides what it does
void stored() noexcept;
bool is_printing() noexcept;
void note(const char *fmt, ...) noexcept __attribute__((format(printf, 1, 2)));

} // namespace ch::explore

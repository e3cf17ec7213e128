// SPDX-License-Identifier: Apache-2.0
// ddict_crew.h - what the clients of ddict_torture note, and a client. See ddict_torture.cpp.
#ifndef TESTS_CRASH_DDICT_CREW_H
#define TESTS_CRASH_DDICT_CREW_H
#include "../support/support.h"
#include "must.h"
#include <atomic>
#include <ddict/ddict.hpp>

namespace dict_torture {

constexpr int MAX_CREW = 8;
constexpr unsigned NR_KEYS = 6, NR_COUNTERS = 2, FIRST_COUNTER = 50; // of each client
constexpr uint64_t LAST_KEY = 100 * MAX_CREW;                        // the director's
constexpr std::size_t NR_VIEWS = 4;

// Which values a key may have: number n is gone, or n's bytes; each put of a key has the next number.
constexpr bool is_gone(uint64_t n)
{
	return n % 8 == 0;
}

struct record {
	std::atomic<uint64_t> begun, acked;
};

struct member {
	pid_t pid;
	uint64_t seed;
	int point, countdown; // crash point to die at; -1: none
	std::atomic<uint64_t> nr_done;
	record keys[NR_KEYS], counters[NR_COUNTERS];
};

enum class killer : int { nobody, itself, director };

// In shared memory of its own, so that it outlives the killed.
struct evidence {
	std::atomic<uint32_t> bad;
	std::atomic<bool> is_over, is_made;
	std::atomic<uint64_t> told; // of losses, clients
	std::atomic<int> manager_point, manager_countdown;
	std::atomic<killer> who_kills;
	struct ch_descr descr;
	member crew[MAX_CREW];
};

// One dictionary and what is done to it.
struct round_of {
	const char *name;
	ch::ddict_options how;
	bool kills_managers;
	bool may_evict; // then a key may be gone
	// Then every key is there nearly all the time, so that what is lost can be counted.
	bool loses() const { return kills_managers && how.replicas < 2; }
	bool counts() const { return !loses() && !may_evict; }
};

using text_dict = ch::ddict<uint64_t, std::string>;
using number_dict = ch::ddict<uint64_t, uint64_t>;

extern evidence *ev;
extern member *self; // this process; NULL in the director and others

inline uint64_t key_of(const member &m, unsigned k)
{
	return static_cast<uint64_t>(&m - ev->crew) * 100 + k;
}

// Value number n: 8 bytes that say which it is, and some that follow from them.
std::string value_of(uint64_t n);

// Settles what its keys have when it is made: those of a predecessor that was killed at any instant.
class client {
public:
	client(member &me, const round_of &r);
	void step();

private:
	uint64_t begin(unsigned k);
	void done(unsigned k) { me_.keys[k].acked = me_.keys[k].begun.load(); }
	void settle(unsigned k);
	void settle_counter(unsigned c);
	template <class F> bool on(uint64_t key, F &&f);
	bool is_over(uint64_t key, const ch::error &e);
	void change(unsigned k);
	void remove(unsigned k);
	void write_in_pieces(unsigned k, uint64_t n);
	void change_many();
	void change_ahead();
	void count(unsigned c);
	void look_at_others();
	void look_in_place();
	void walk();

	member &me_;
	const round_of &round_;
	text_dict d_;
	number_dict numbers_;
	std::vector<ch::ddict_view> views_;
	bool is_lost_[NR_KEYS] = {}; // a manager's death was told, and the key may have gone with it
};

// The rest of a client process.
[[noreturn]] void play(member &m, const round_of &r);

} // namespace dict_torture
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * evidence.h - what the kill test writes down in shared memory of its own, so that it outlives the killed, and how
 * it is judged.
 *
 * Every message names its sender's incarnation and its number. A producer notes each send that returned, a consumer
 * each message that arrived. What a process had in hand when it was killed is judged as follows.
 *
 *   producer   The message it was sending may have arrived or not; later ones must not have.
 *   consumer   Killed at a crash point by its working thread: the hook saw whether the delivery was done, so the
 *              message counts as received, or must come to somebody else. Killed at any other instant in recv:
 *              the buffer, which lies in the evidence, names the message; if nobody else received it, its
 *              delivery cannot be decided (ambiguous).
 *              Killed so in take: nothing names the message, so one that is missing may be explained by
 *              each such kill (unseen); in a batch, MAX_BATCH of them.
 *              In an acknowledged channel a taken message must come to somebody else until its release begins.
 *
 * A message that a killed consumer had claimed is delivered late: order per producer holds apart from as many
 * messages as consumers were killed with one in hand.
 */
#ifndef TESTS_EVIDENCE_H
#define TESTS_EVIDENCE_H
#include "../support/support.h"
#include <atomic>
#include <cstdint>
#include <vector>

namespace torture {

enum class role : int { producer, consumer, reaper, ender };
inline constexpr int NR_ROLES = 4;
inline constexpr const char *role_names[NR_ROLES] = { "producer", "consumer", "reaper", "ender" };

inline constexpr uint32_t NR_SEQ = 256; /* messages of one incarnation */
inline constexpr int MAX_CHILDREN = 64;
inline constexpr int MAX_POINTS = 256;
inline constexpr size_t LONGEST = 20000; /* bytes of a message */
inline constexpr int64_t HANG_NS = 20000 * MS;

struct message_id {
	uint32_t who;
	uint32_t seq;
};

/* IN_KEEP: takes a message that is not delivered by that. IN_BATCH: receives up to MAX_BATCH. */
enum stage : int { IDLE, IN_RECV, IN_TAKE, IN_SEND, IN_KEEP, IN_BATCH };

/* The channel, and so what can be done with it (ways.cpp). */
enum class kind : int { plain, spsc, acknowledged, mixed, hangs_up };
inline constexpr int NR_KINDS = 5;
inline constexpr const char *kind_names[NR_KINDS] = { "plain", "spsc", "acknowledged", "mixed", "hangs_up" };
inline constexpr uint32_t MAX_BATCH = 8;

/* One place in the crew; its tenants come and go. Written by the tenant, read by the parent when it is dead. */
struct child {
	pid_t pid;
	role what;
	uint32_t who; /* of a producer */
	uint64_t seed;
	int64_t kill_at;
	int kill_point; /* -1: none */
	int countdown;
	bool inherits; /* uses the parent's handle instead of attaching itself */
	bool killed;   /* by the parent */
	std::atomic<int> stage;
	std::atomic<int> died_at;     /* crash point + 1 */
	std::atomic<bool> is_exact;   /* the thread that works was at that point, not the library's own */
	std::atomic<bool> found;      /* recv or take has looked at a message */
	std::atomic<bool> delivered;
	std::atomic<uint64_t> nr_done;
	union {
		message_id id;
		unsigned char bytes[LONGEST + 64];
	} buf;
};

struct evidence {
	std::atomic<bool> stop;  /* producers: finish */
	std::atomic<bool> drain; /* the others too, when nothing is left */
	std::atomic<uint64_t> sent, received, late, corrupt, timeouts, errors, longest_ns;
	std::atomic<int> last_error;
	std::atomic<uint64_t> passes[NR_ROLES][MAX_POINTS], hits[MAX_POINTS];
	kind what;
	struct ch_descr channel, side;
	std::atomic<uint32_t> side_version; /* odd while it changes */
	child crew[MAX_CHILDREN];
};

/* Counts per incarnation and message, with room for nr_who incarnations. */
class ledger {
public:
	explicit ledger(uint32_t nr_who);
	uint32_t nr_who() const { return nr_who_; }
	bool is_id(message_id id) const { return id.who < nr_who_ && id.seq < NR_SEQ; }
	void committed(message_id id) { committed_[id.who].store(id.seq + 1); }
	void received(message_id id) { counts_[size_t{ id.who } * NR_SEQ + id.seq]++; }
	void died(uint32_t who) { died_[who].store(true); }

	struct verdict {
		uint64_t committed, lost, duplicated, ghosts, ambiguous, unseen, unacknowledged;
	};
	/*
	 * Shows the first that are missing if they are more than the kills that may have taken one along. in_flight: how
	 * many messages a killed producer may have sent that it did not note any more.
	 */
	verdict judge(uint32_t up_to, std::vector<message_id> tentative, uint64_t may_be_unseen, uint32_t in_flight) const;

private:
	uint32_t nr_who_;
	std::atomic<uint32_t> *committed_; /* number of sends that returned */
	std::atomic<bool> *died_;
	std::atomic<uint8_t> *counts_;
};

size_t length_of(message_id id); /* every receiver can tell how long a message must be */
void write_message(void *data, message_id id);
bool is_whole(const void *data, size_t len, message_id id);

/* The parts that children play; each ends by _exit, or is killed. */
struct stage_set {
	evidence *ev;
	ledger *book;
	struct ch_channel *inherited; /* of the parent; nullptr if it has none */
};
[[noreturn]] void play(const stage_set &set, child &me);
void arm_crash_points(evidence *ev);
int nr_crash_points(); /* 0: not compiled in */
const char *crash_point_name(int point);

} // namespace torture
#endif

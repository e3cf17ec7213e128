// SPDX-License-Identifier: Apache-2.0
// layout.h - every byte that lies in shared memory.
//
// Truth lives in single 64-bit words; every change of state is one compare-and-swap or one store by the only
// process that may make it; every claim names its owner in the same word. All else is a hint. Offsets, never
// pointers. Geometry is checked and copied when a process attaches and never read again.
//
//   segment:  header | bits of used slots | peer slots | user bytes
//   pool:     header | page words | block words | pages          (in the user bytes of a segment)
//   object:   header | attached-peer bits | what its kind needs           (in one block of a pool)
//   channel:  ... P words | Q words | slots, and for an urgent lane again its ends | P words | Q words | slots; with
//             one sender and one receiver no P and Q words; at the end watch words | watch references
//   poll set: ... marks of members
#pragma once
#include "atomic.h"

namespace ch::core {

inline constexpr u64 SEGMENT_MAGIC = 0x31544e474553'4843; // "CHSEGNT1"
inline constexpr u64 POOL_MAGIC = 0x314c4f4f50'2d4843;
inline constexpr u64 OBJECT_MAGIC = 0x314a424f'2d4843;
inline constexpr u32 LAYOUT_VERSION = 3;

inline constexpr u32 OWNER_BITS = 18;
inline constexpr u32 NOBODY = 0;
inline constexpr u32 CLOSER = (1u << OWNER_BITS) - 1; // owner of the claim that seals a closed channel
inline constexpr u32 MAX_PEERS = 65536;

// ---- event: futex sequence in the low half, who waits in the high half (event.h)
struct event {
	shared<u64> v;
};

// ---- segment
// The low byte of the state word. RECLAIMING bears above it the pid of who looks whether anybody lives (reclaim.cpp).
enum segment_state : u32 { SEGMENT_NEW = 0, SEGMENT_READY = 1, SEGMENT_DESTROYED = 2, SEGMENT_RECLAIMING = 3 };
enum segment_flag : u32 { SEGMENT_SPARSE = 1, SEGMENT_NAMELESS = 2 }; // not all of it has memory; it is a memfd

/*
 * word           written by                 read by            order
 * state          creator, destroyer,        attachers          release / acquire; seq_cst against reclaimers
 *                reclaimers
 * rotor          attachers                  attachers          relaxed: where to look for a free slot first
 * unwatched      attachers                  keepers, waiters   relaxed: a keeper could not be told of a newcomer
 * the rest       creator, before READY      attachers, copied
 */
struct segment_header {
	u64 magic;
	u32 version;
	u32 max_peers;
	u64 id;    // its name is "/ch-" and this in hexadecimal
	u64 birth; // tells it from an earlier one of the same name
	u64 nonce; // what a descriptor must know
	u64 total_len;
	u64 user_off;
	u64 user_len;
	alignas(LINE) shared<u32> state;
	shared<u32> rotor;
	shared<u32> unwatched;
	u32 flags;   // enum segment_flag
	u64 pid_ns;  // inode of the pid namespace that peer names are meant in
	u64 creator; // peer name
	char name[208];
};
static_assert(offsetof(segment_header, state) == 64 && sizeof(segment_header) == 320, "shared layout: bump LAYOUT_VERSION");

// Which slots are in use: bit i is set after slot i was claimed and cleared before it is given up, by whoever does it, so
// that nobody looks through all slots. A process that dies in between leaves a slot without a bit, which holds
// nothing; who wants that slot finds it out.
constexpr u64 used_bytes(u32 max_peers) noexcept { return round_up(u64{max_peers} / 64 * 8 + 8, LINE); }

inline constexpr u32 NR_HAZARDS = 6;

/*
 * id       CAS 0 -> name of the process (peer.h) by itself; back to 0 by its elected sweeper or at a clean detach
 * sweeper  CAS 0 -> name of the one process that sweeps this slot; taken over from a dead one by CAS
 * hazard   block index + 1 of an object that its process looks at unattached (sweep.h): the first by who has the
 *          registry lock, or by its sweeper; the others by its threads that tell poll sets
 */
struct alignas(LINE) peer_slot {
	shared<u64> id;
	shared<u64> sweeper;
	shared<u64> hazard[NR_HAZARDS];
};
static_assert(sizeof(peer_slot) == 64, "shared layout: bump LAYOUT_VERSION");

// ---- pool
inline constexpr u64 PAGE = 4096;
inline constexpr u64 MIN_BLOCK = 128;
inline constexpr u64 WORDS_PER_PAGE = PAGE / MIN_BLOCK;

enum pool_state : u32 { POOL_NONE = 0, POOL_READY = 1, POOL_DESTROYED = 2, POOL_FORMATTING = 3 };

/*
 * word           written by                 read by            order
 * freed          who frees, who waits       both               event.h
 * state          creator, destroyer         all                release / acquire
 * backed         whoever grows the pool     all                release / acquire: pages before it have memory
 * in_runs, peak  who forms runs             statistics         relaxed: pages in runs, and the most there were
 * the rest       creator, before READY      attachers, copied
 */
struct pool_header {
	u64 magic;
	u64 nr_pages;       // what the pool may grow to
	u64 page_words_off; // all offsets from this header
	u64 block_words_off;
	u64 data_off;
	u64 own_segment; // the segment goes with the pool
	alignas(LINE) event freed;
	shared<u32> state;
	u32 pad;
	shared<u64> backed; // how many pages have memory; grows
	alignas(LINE) shared<u64> in_runs;
	shared<u64> peak;
};
static_assert(offsetof(pool_header, freed) == 64 && offsetof(pool_header, in_runs) == 128 && sizeof(pool_header) == 192,
	      "shared layout: bump LAYOUT_VERSION");

// Page word: kind:3 (low), then for BUILD and HEAD run type:11 (run.h) and owner:18, for TAIL the distance to the head.
//   FREE -> BUILD(me) -> HEAD            a run of pages becomes blocks of one class; its other pages FREE -> TAIL
//   HEAD -> BUILD(me) -> FREE            and back, when all its blocks are free (run.cpp)
enum page_kind : u32 { PG_FREE = 0, PG_BUILD = 1, PG_HEAD = 2, PG_TAIL = 3 };

inline constexpr u64 page_word(page_kind k, u32 type, u32 owner) { return k | u64{type} << 3 | u64{owner} << 14; }
inline constexpr u64 tail_word(u64 dist) { return PG_TAIL | dist << 3; }
inline constexpr page_kind page_kind_of(u64 w) { return static_cast<page_kind>(w & 7); }
inline constexpr u32 page_run_type(u64 w) { return static_cast<u32>(w >> 3 & 0x7ff); }
inline constexpr u32 page_owner(u64 w) { return static_cast<u32>(w >> 14 & CLOSER); }
inline constexpr u64 tail_dist(u64 w) { return w >> 3; }

// Block word: tag:42 (new at every allocation; odd if the block's last bytes hold a type of the user's), state:4, owner:18.
//   FREE -> OWNED(p) -> SENDING(p) -> OWNED(q) -> FREE                    the life of a message
//   SENDING(dead) -> INCHAN -> OWNED(q)                                   its sender died after the commit
//   OWNED(p) -> OBJECT -> DYING -> FINAL(p) -> FREE                       the life of a channel or another object
//   OWNED(p) -> OFFERED(p) -> OWNED(q)                                    given away (block.cpp)
//   OWNED(p) -> SHARED -> FREE                                            held by a share, which is an object (share.cpp)
enum block_state : u32 { B_NONE, B_FREE, B_OWNED, B_SENDING, B_INCHAN, B_OBJECT, B_DYING, B_FINAL, B_OFFERED, B_SHARED };

inline constexpr u64 block_word(u64 tag, block_state s, u32 owner) { return tag << 22 | u64{s} << 18 | owner; }
inline constexpr u64 block_tag(u64 w) { return w >> 22; }
inline constexpr block_state block_state_of(u64 w) { return static_cast<block_state>(w >> 18 & 15); }
inline constexpr u32 block_owner(u64 w) { return static_cast<u32>(w & CLOSER); }

inline constexpr u64 TYPE_LEN = 8; // of a block with an odd tag: u32 type, and 4 unused

// ---- object
// How every object begins (object.h). It does not change while the object lives.
struct object_header {
	u64 magic;
	u32 kind; // enum ch_descr_kind
	u32 max_peers;
	u32 creator; // owner index with whose end the object ends, or NOBODY
	u32 nr_watches; // poll sets that may watch it: its block ends with a table of so many (watch.h)
};
static_assert(sizeof(object_header) == 24, "shared layout: bump LAYOUT_VERSION");

// A share: an object that holds a block for whoever is attached (share.cpp). Does not change while it lives.
struct share_header {
	object_header object;
	u64 index; // of the block
	u64 tag;
	u64 len;   // bytes to be seen
	u64 pad[2];
};
static_assert(sizeof(share_header) == LINE, "shared layout: bump LAYOUT_VERSION");

constexpr u64 object_bits_bytes(u32 max_peers) noexcept { return round_up((u64{max_peers} + 1 + 63) / 64 * 8, LINE); }

// ---- watchers and poll sets (watch.h)
// Watch word: gen:22 (new at every claim), member:16, armed:8, owner:18. 0 owner: free. The owner claims, arms and frees
// it; who tells its poll set takes armed off.
struct watch_ref { // the block of the poll set; written by the owner before it arms
	shared<u64> index;
	shared<u64> tag;
};

// No descriptor names one.
inline constexpr u32 POLL_SET_KIND = 128;
inline constexpr u32 MAX_MEMBERS = 65536;

/*
 * word        written by                          read by          order
 * ready       who told it of something; waiters   waiters          event.h
 * top         fetch_or by tellers after the       waiters,         a bit of it says that one of 64 words below
 *             words below, exchange by waiters    by exchange      has bits
 */
struct poll_set_header {
	object_header object;
	u32 nr_members;
	u32 pad;
	alignas(LINE) event ready;
	shared<u64> top;
};
static_assert(offsetof(poll_set_header, ready) == 64 && sizeof(poll_set_header) == 128, "shared layout: bump LAYOUT_VERSION");

// ---- channel
// State word of a channel. Low half: flags, and the mark that messages may be there which a reader left that died, or
// gave them back; it is 0 as long as nothing is the matter. High half: how often the mark was set. Who finds no such
// message takes the mark away if the whole word is what it was before the look: with the mark alone another could have
// taken it away meanwhile, and a third set it anew for what the look did not see.
enum channel_state : u64 {
	CHANNEL_CLOSING = 1,
	CHANNEL_DESTROYED = 2,
	CHANNEL_SENDER_LEFT = 4, // of a channel that hangs up: in good order, or by death
	CHANNEL_SENDER_DIED = 8,
	CHANNEL_RECEIVER_LEFT = 16,
	CHANNEL_RECEIVER_DIED = 32,
	CHANNEL_ENDING = CHANNEL_CLOSING | 60, // closed, or one side has gone
	CHANNEL_RECOV = 256,
	CHANNEL_RECOV_ONCE = u64{1} << 32
};
// On the way of every message: half the word, for a half is compared as fast as the whole.
constexpr bool needs_a_look(u64 state) noexcept { return static_cast<u32>(state) != 0; }

// The ends of a lane. With many senders and receivers both are hints, at most some tickets behind. With one of each
// head is the truth: tickets before it have been delivered; and tail is 0, or after a close 1 + the ticket before which
// the channel ends.
struct lane_ends {
	alignas(LINE) shared<u64> tail;
	alignas(LINE) u8 apart[LINE]; // two lines between them: processors fetch lines in pairs
	alignas(LINE) shared<u64> head;
};

// Role word of a channel with one sender and one receiver: owner:18 of who has the role, offered:1. 0: nobody.
inline constexpr u64 ROLE_OFFERED = u64{1} << OWNER_BITS;

struct channel_header {
	object_header object;
	u32 lg_slots;
	u32 stride;    // bytes from slot to slot
	u32 flags;     // CH_CHANNEL_...
	u32 nr_urgent; // slots of the urgent lane: 0, or a power of two
	u32 wait;      // CH_WAIT_...
	u32 pad;
	shared<u64> sender; // roles (channel.h): taken by CAS, given up by a store, or by the sweeper's CAS
	shared<u64> receiver;
	// One line that both sides read at every message and nobody writes while nobody sleeps.
	alignas(LINE) event not_empty;
	event not_full;
	shared<u64> state;
	event urgent_not_full;
	event received; // senders that wait for the receipt of their message
	lane_ends ends;
};
static_assert(offsetof(channel_header, sender) == 48 && offsetof(channel_header, not_empty) == 64 &&
		      offsetof(channel_header, ends) == 128 && sizeof(lane_ends) == 192 && sizeof(channel_header) == 320,
	      "shared layout: bump LAYOUT_VERSION");

// Slot words and claim words carry a ticket in their upper 46 bits, so that the ring computes with tickets where
// they stand: TICKET is one, tickets wrap around with the word, and are only compared by difference.
//   slot word    ticket:46, state:18    which ticket the slot is for
//   claim word   ticket:46, owner:18    the first ticket of the slot that is not claimed, and who claimed the one before
inline constexpr u64 TICKET = u64{1} << OWNER_BITS;

enum slot_state : u32 { S_EMPTY, S_FULL, S_TOMB, S_RECOV };

// What a slot holds: the length of the message, whether it lies in a block, and whether its attributes are there. Read
// before the claim, when a sender of the next ticket may be at it already; the claim then fails. So it is a shared word
// like the others.
inline constexpr u64 IN_BLOCK = u64{1} << 63;
inline constexpr u64 WITH_TAG = u64{1} << 62;
inline constexpr u64 LEN_MASK = WITH_TAG - 1;

struct slot {
	shared<u64> w;
	shared<u64> what; // length, IN_BLOCK, WITH_TAG
	u8 data[48];      // or more: stride - 16 bytes
};
static_assert(sizeof(slot) == 64, "shared layout: bump LAYOUT_VERSION");
inline constexpr u32 SLOT_HEAD = 16;

// In data: block_ref with IN_BLOCK, then message_tag with WITH_TAG, then the bytes of a message that is in no block.
struct block_ref {
	u64 index;
	u64 tag;
};

struct message_tag {
	u64 tag;
	u64 sender; // peer name
};

inline constexpr u64 word_ticket(u64 w) { return w & ~(TICKET - 1); }
inline constexpr slot_state slot_state_of(u64 w) { return static_cast<slot_state>(w & (TICKET - 1)); }
inline constexpr u32 claim_owner(u64 w) { return static_cast<u32>(w & (TICKET - 1)); }

// ---- stream
// Word of a stream: writer:18, reader:18 (owner indices), flags:8, generation:20 (new with every conversation).
enum stream_flag : u64 {
	STREAM_ANNOUNCED = 1, // a reader may take it
	STREAM_TAKEN = 2,     // a reader has
	STREAM_ENDED = 4,     // by its writer in good order, and complete
	STREAM_CANCELLED = 8, // by its writer
	STREAM_STOPPED = 16,  // by its reader
	STREAM_WRITER_DIED = 32,
	STREAM_READER_DIED = 64,
	STREAM_DRAINING = 128, // everybody has left, and the writer (now whoever was last) empties the lane
	STREAM_FLAGS = 255
};

inline constexpr u64 stream_word(u64 generation, u64 flags, u32 reader, u32 writer)
{
	return generation << 44 | flags << 36 | u64{reader} << 18 | writer;
}
inline constexpr u32 stream_writer(u64 w) { return static_cast<u32>(w & CLOSER); }
inline constexpr u32 stream_reader(u64 w) { return static_cast<u32>(w >> 18 & CLOSER); }
inline constexpr u64 stream_flags(u64 w) { return w >> 36 & STREAM_FLAGS; }
inline constexpr u64 stream_generation(u64 w) { return w >> 44; }
inline constexpr u64 STREAM_GENERATIONS = u64{1} << 20;
inline constexpr bool stream_is_free(u64 w) { return w << 20 == 0; }
// For a reader to take it.
inline constexpr bool stream_waits(u64 w)
{
	return (stream_flags(w) & (STREAM_ANNOUNCED | STREAM_TAKEN | STREAM_DRAINING | STREAM_CANCELLED)) == STREAM_ANNOUNCED;
}

enum stream_state : u32 { STREAM_DESTROYED = 1 };

/*
 * word        written by                                     read by
 * announced   event: a conversation waits for a reader
 * freed       event: a stream is free
 * state       destroyer                                      everybody
 * order       writers: the number of the next conversation   writers
 */
struct stream_header {
	object_header object;
	u32 nr_streams;
	u32 capacity; // chunks in a lane: a power of two
	u32 chunk_len;
	u32 flags; // CH_STREAM_...
	u32 is_pair;
	u32 pad;
	alignas(LINE) event announced;
	event freed;
	shared<u32> state;
	u32 pad2;
	alignas(LINE) shared<u64> order;
};
static_assert(offsetof(stream_header, announced) == 64 && sizeof(stream_header) == 192,
	      "shared layout: bump LAYOUT_VERSION");

// A lane: chunk n lies in slot n mod capacity. Its slot's seq is n + 1 from the commit on, written by the writer; head
// is how many chunks were taken, written by the reader. After it come the slots.
struct stream_lane {
	// One line that both sides read at every chunk and nobody writes while nobody sleeps.
	alignas(LINE) event not_empty;
	event not_full;
	alignas(LINE) shared<u64> head;
};
static_assert(sizeof(stream_lane) == 128, "shared layout: bump LAYOUT_VERSION");

// A chunk that its writer shows, and does not give away: its share (share.cpp), and where in the pool it begins.
inline constexpr u64 IN_VIEW = u64{1} << 62;
struct view_ref {
	u64 index;
	u64 tag;
	u64 at;
};

struct alignas(LINE) stream_slot {
	shared<u64> seq;
	shared<u64> what; // length, IN_BLOCK, IN_VIEW
	u64 arg;
	u8 data[64]; // or block_ref with IN_BLOCK, view_ref with IN_VIEW
	u8 pad[40];
};
static_assert(sizeof(stream_slot) == 128, "shared layout: bump LAYOUT_VERSION");

// ---- mutex, rwlock, semaphore, event, condition, barrier
/*
 * One shape for all six; what word, events, extra and table mean stands at the head of each sync_*.cpp. The table of
 * nr words lies behind the attached-peer bits.
 *
 * word                   written by                     read by              order
 * flags, nr, limit,      creator, before the object     who opens a handle,
 * spin_ns                is published                   copied
 * the rest               as its kind says
 * is_destroyed           destroyer                      all                  relaxed: everybody is woken afterwards
 */
struct sync_header {
	object_header object;
	u32 flags;
	u32 nr;
	u32 limit;
	u32 spin_ns;
	alignas(LINE) shared<u64> word;
	event events[3];
	shared<u64> extra[3];
	shared<u32> is_destroyed;
	u32 pad;
};
static_assert(offsetof(sync_header, word) == 64 && sizeof(sync_header) == 128, "shared layout: bump LAYOUT_VERSION");

// Holder word of mutex and rwlock: flags, thread id:22, owner:18. A reader's slot: how often:24, thread id:22, owner:18.
inline constexpr u32 TID_BITS = 22;
inline constexpr u64 HOLDER_FLAG = u64{1} << (OWNER_BITS + TID_BITS);
inline constexpr u64 HOLDER_MASK = HOLDER_FLAG - 1;

inline constexpr u64 holder_word(u32 owner, u32 tid) { return u64{tid} << OWNER_BITS | owner; }
inline constexpr u32 holder_owner(u64 w) { return static_cast<u32>(w & CLOSER); }
inline constexpr u32 holder_tid(u64 w) { return static_cast<u32>((w & HOLDER_MASK) >> OWNER_BITS); }

} // namespace ch::core

// SPDX-License-Identifier: Apache-2.0
// watch.h - who wants to hear of an object: the table of watchers, and how its poll sets are told.
//
// The last bytes of an object's block are a table of watchers (layout.h). A watcher is one poll set: its owner claims
// an entry, names the block of its set's shared part there, and arms it with what it wants to hear of. Who makes
// one of that true takes the arms off, marks the member in the set's block, and notifies the set's event.
//
//   waiter:    arm; RMW of the event word that sets POLLED; look at the object; sleep on the set's event
//   notifier:  make it true; RMW of the event word, or a look that finds it quiet; look at the arms; disarm, mark, notify
//
// So [E1]...[E4] of event.h hold with "somebody is armed" in the place of "somebody sleeps". Who is told once is not told
// again before it has looked: a set that is busy costs its senders nothing but a look, and when nobody is armed any
// more POLLED goes too, and the object is as quiet as if nobody polled. CLOSED and DESTROYED are told to everybody, armed
// or not, and so is all when a process died that was attached: it may have been on its way between disarm and mark.
//
// A notifier is not attached to the sets that it tells. It keeps their memory by a hazard (sweep.h).
#pragma once
#include "event.h"
#include "object.h"

namespace ch::core {

struct ring;

inline constexpr u32 WATCH_MORE = 64; // also of what is left after a receive, of room left after a send
inline constexpr u32 WATCH_ARMS = 0xff;

struct watch_table {
	shared<u64> *words = nullptr;
	watch_ref *refs = nullptr;
	u32 nr = 0;

	watch_table slice(u32 from, u32 n) const noexcept // none where there are not so many
	{
		return from > nr || n > nr - from ? watch_table{} : watch_table{words + from, refs + from, n};
	}
};

constexpr u64 watch_bytes(u32 nr) noexcept { return nr ? round_up(u64{nr} * (8 + sizeof(watch_ref)), LINE) : 0; }
inline constexpr u32 MAX_WATCHES = 4096;
inline constexpr u32 DEFAULT_WATCHES = 8;

// What an attribute max_watchers says: 0 becomes the default. 0 or -EINVAL.
int watch_attr(u32 &max_watchers, const char *what) noexcept;
watch_table watch_table_of(const block_place &b) noexcept;

inline u32 watch_owner(u64 w) noexcept { return static_cast<u32>(w & CLOSER); }
inline u32 watch_arms(u64 w) noexcept { return static_cast<u32>(w >> OWNER_BITS & WATCH_ARMS); }
inline u32 watch_member(u64 w) noexcept { return static_cast<u32>(w >> 26 & 0xffff); }

// ---- the owner's side; what is found in shared memory need not be what was put there

// An entry for a set's member, unarmed. -ENOSPC: all are taken.
int watch_claim(const watch_table &t, u32 me, const ch_object *set, u32 member) noexcept;
// The first entry of a set from one on, or -ENOENT.
int watch_find(const watch_table &t, u32 from, u32 me, const ch_object *set) noexcept;
void watch_free(const watch_table &t, u32 entry, u32 me) noexcept;
void watch_arm(const watch_table &t, u32 entry, u32 me, u32 mask) noexcept;

// ---- the notifiers' side

// Something of mask has become true; and whoever wants to hear of what is left is told if something of more is. After a
// notification, which is a look that found the event quiet or a read-modify-write, and only if an event was POLLED then.
void watch_tell(ch_object *o, const poll_ops &ops, u32 mask, u32 more) noexcept;
inline void watch_tell(ch_object *o, u32 mask, u32 more) noexcept { watch_tell(o, *o->poll, mask, more); }
inline bool is_polled(const event &e) noexcept { return e.v.load(relaxed) & EVENT_POLLED; } // after a notification
// Whatever it is, everybody looks. as: the peer whose hazards may be used: our own, or the one that we sweep.
void watch_tell_all(ch_segment *seg, u32 as, const watch_table &t) noexcept;
// A dead peer's entries.
void watch_sweep(const watch_table &t, u32 dead) noexcept;

// ---- the marks of a set's shared part

struct watch_marks {
	poll_set_header *h = nullptr;
	shared<u64> *mid = nullptr;  // a bit for each word of leaf; NULL up to 4096 members: h->top has them
	shared<u64> *leaf = nullptr; // a bit for each member
	u32 nr_leaf = 0;
};

extern const object_kind poll_set_kind;

u64 marks_bytes(u32 nr_members, u32 max_peers) noexcept;
bool marks_open(watch_marks &m, u8 *at, u64 len, u32 max_peers) noexcept;
void marks_set(const watch_marks &m, u32 member) noexcept; // and notifies

// Takes all marks, calls fn(member) for each. Whoever marks later, or has not come up to top yet, is met next time.
template <class Fn> void marks_take(const watch_marks &m, Fn fn) noexcept
{
	auto bits = [](shared<u64> &word, auto each) {
		// [Y2] pairs with [Y1] in watch.cpp: who sees a bit sees the bits below it
		for (u64 w = word.load(relaxed) ? word.exchange(0, acq_rel) : 0; w; w &= w - 1)
			each(static_cast<u32>(__builtin_ctzll(w)));
	};
	auto leaf = [&](u32 i) {
		if (i < m.nr_leaf)
			bits(m.leaf[i], [&](u32 k) { fn(i * 64 + k); });
	};
	bits(m.h->top, [&](u32 i) {
		if (!m.mid)
			leaf(i);
		else if (i < (m.nr_leaf + 63) / 64)
			bits(m.mid[i], [&](u32 k) { leaf(i * 64 + k); });
	});
}

} // namespace ch::core

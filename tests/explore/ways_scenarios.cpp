/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ways_scenarios.cpp - channels used in other ways: urgent messages, receipts, looks at messages, hanging up, batches over
 * many laps; blocks that are offered and shown; small blocks, and pools that grow.
 */
#include "evidence.h"
#include "scenarios.h"
#include <cerrno>
#include <channels/block.h>

namespace ch::explore {
namespace {

// Its process 0 has the role of the sender: one that dies before it has a role leaves nothing to hang up.
void begin_bound()
{
	begin<CH_CHANNEL_SPSC | CH_CHANNEL_HANGS_UP>();
	require(ch_channel_bind(&process_of(0).ch, CH_ROLE_SENDER) == 0, "no role");
}

void begin_growing()
{
	make_world({.nr_processes = 3, .nr_pages = 4, .allocates = true, .first_pages = 1});
}

void begin_memory()
{
	make_world({.nr_processes = 3, .nr_pages = 4, .allocates = true});
}

void end_memory()
{
	require_free_pool(1);
}

void until_over(step what)
{
	int rc;

	while ((rc = what(&self().ch, CH_FOREVER)) == 0)
		;
	require(rc == -EPIPE || (rc == -EOWNERDEAD && is_dead(0)), "a call failed");
}

template <u32 flags, u32 completion> int send_as(ch_channel *ch, i64 timeout_ns)
{
	ch_send_attr a = CH_SEND_ATTR_INIT;

	a.flags = flags;
	a.completion = completion;
	return send_with(ch, a, timeout_ns);
}

constexpr step send_urgent = send_as<CH_MESSAGE_URGENT, CH_QUEUED>, send_receipt = send_as<0, CH_RECEIVED>;

int peek_then_receive(ch_channel *ch, i64 timeout_ns)
{
	u64 m = 0;
	const ssize_t n = ch_channel_peek(ch, &m, sizeof(m), timeout_ns, nullptr);

	require(n == sizeof(m) || n == -EPIPE, "a peek failed");
	require(n < 0 || (m / 16 < MAX_THREADS && m % 16 > 0), "saw a message that nobody sent");
	return receive_one(ch, timeout_ns);
}

int receive_as_batch(ch_channel *ch, i64 timeout_ns)
{
	ch_recv_item item{&seen.in_hand[me()], sizeof(u64), 0};
	const ssize_t n = ch_channel_recv_batch(ch, &item, 1, timeout_ns);

	require(n < 0 || n == 1, "a batch of another length");
	if (n == 1)
		received(seen.in_hand[me()]);
	return n < 0 ? static_cast<int>(n) : 0;
}

// ---- a message that whoever takes it gives back

void take_and_give_back(ch_channel *ch)
{
	ch_message msg = CH_MESSAGE_INIT;
	const int rc = ch_channel_take(ch, CH_TRY, &msg);

	require(rc == 0 || rc == -EAGAIN, "a call failed");
	if (rc == 0)
		require(ch_channel_requeue(ch, &msg) == 0, "a call failed");
}

void begin_given_back()
{
	u64 m = 1;

	begin<CH_CHANNEL_ACKNOWLEDGED>();
	act_as(0);
	require(ch_channel_send(&process_of(0).ch, &m, sizeof(m), CH_TRY) == 0, "a call failed");
	take_and_give_back(&process_of(0).ch);
}

void end_given_back()
{
	ring &r = process_of(0).ch.r;
	lane *l;
	u64 t;

	require(ring_find_recovered(r, l, t), "a message was lost");
	require(r.h->state.load(relaxed) & CHANNEL_RECOV, "a message that nobody will look for");
}

// The last handle of this process on the channel.
void leave()
{
	ch_channel &ch = self().ch;

	object_leave(&ch);
}

// ---- memory

void *allocate(u64 len, i64 timeout_ns)
{
	const u64 mine = static_cast<u64>(me()) + 1;
	void *p = nullptr;
	const int rc = ch_pool_alloc(&self().seg.pool, len, timeout_ns, &p);

	require(rc == 0 || (timeout_ns == CH_TRY && rc == -ENOSPC), "an allocation failed");
	if (rc == 0)
		std::memcpy(p, &mine, sizeof(mine)); // a race if another has it too
	return rc == 0 ? p : nullptr;
}

void give_back(void *p)
{
	u64 mine;

	if (!p)
		return;
	std::memcpy(&mine, p, sizeof(mine));
	require(mine == static_cast<u64>(me()) + 1, "another wrote to our block");
	require(ch_pool_free(&self().seg.pool, p) == 0, "not ours to free");
}

// Two words that say which block is meant, and order nothing.
void tell_of(const ch_descr &sealed)
{
	descr d;
	shared<u64> *word = reinterpret_cast<shared<u64> *>(plain_bytes());

	require(descr_open(&sealed, d) == 0, "no descriptor");
	word[0].store(d.offset, relaxed);
	word[1].store(d.generation, relaxed);
}

ch_descr told_of(u8 kind)
{
	const shared<u64> *word = reinterpret_cast<shared<u64> *>(plain_bytes());
	const u64 offset = word[0].load(relaxed), generation = word[1].load(relaxed);
	ch_descr d;

	descr_seal(segment_descr(&self().seg, kind, offset, generation), &d);
	return d;
}

void offer_block()
{
	ch_descr d;
	void *p = allocate(PAGE, CH_FOREVER);

	require(ch_block_offer(&self().seg.pool, p, &d) == 0, "no offer");
	tell_of(d);
}

void accept_block()
{
	void *p = nullptr;
	u64 from;

	for (;;) {
		const ch_descr d = told_of(CH_DESCR_BLOCK);
		if (ch_block_accept(&self().seg.pool, &d, &p) == 0)
			break;
		pause();
	}
	std::memcpy(&from, p, sizeof(from));
	require(from == 1, "not what was offered");
	require(ch_pool_free(&self().seg.pool, p) == 0, "not ours to free");
}

void show_block()
{
	ch_descr d;
	ch_view *v = nullptr;
	void *p = allocate(PAGE, CH_FOREVER);

	require(ch_view_create(&self().seg.pool, p, 8, &v) == 0 && ch_view_get_descr(v, &d) == 0, "no view");
	tell_of(d);
	ch_view_detach(v);
}

void look_at_block()
{
	ch_view *v = nullptr;
	u64 from;
	const ch_descr d = told_of(CH_DESCR_VIEW);

	if (ch_view_attach(&d, &v) < 0)
		return; // not yet, or not any more
	std::memcpy(&from, ch_view_addr(v), sizeof(from));
	require(from == 1, "not what was shown");
	ch_view_detach(v);
}

constexpr bounds usual{.preemptions = 2, .stale = 1}, one{.preemptions = 1, .stale = 1, .deaths = 1};
constexpr u32 HANGS_UP = CH_CHANNEL_SPSC | CH_CHANNEL_HANGS_UP, ACK = CH_CHANNEL_ACKNOWLEDGED;

const scenario list[] = {
	{"urgent: one sends them, another does not", 3, usual, begin<0, 2, 1>,
	 [](int i) {
		 if (i == 2)
			 return some(receive_one, 4);
		 i == 0 ? some(send_urgent, 2) : some(send_one, 2);
	 },
	 end_drained},
	{"urgent: closed behind the last", 2, usual, begin<0, 1, 1>,
	 [](int i) {
		 if (i == 1)
			 return until_over(receive_one);
		 some(send_urgent, 2);
		 close_it();
	 },
	 end_drained},
	{"urgent: a receiver dies", 4, one, begin<0, 1, 1>,
	 [](int i) {
		 if (i < 2)
			 return until_over(receive_one);
		 if (i == 3)
			 return sweep_when_dead();
		 some(send_urgent, 2);
		 close_it();
		 sweep_when_dead();
		 until_over(receive_one);
	 },
	 end_drained, 1},
	{"receipts", 2, usual, begin<0>, [](int i) { some(i == 0 ? send_receipt : receive_one, 2); }, end_drained},
	{"receipts, two senders", 3, usual, begin<0>,
	 [](int i) { i == 2 ? some(receive_one, 2) : some(send_receipt, 1); }, end_drained},
	{"receipts, SPSC", 2, usual, begin<CH_CHANNEL_SPSC>, [](int i) { some(i == 0 ? send_receipt : receive_one, 2); },
	 end_drained},
	{"looks before it receives", 2, usual, begin<0>, [](int i) { some(i == 0 ? send_one : peek_then_receive, 3); },
	 end_drained},
	{"looks before it receives, SPSC", 2, usual, begin<CH_CHANNEL_SPSC>,
	 [](int i) { some(i == 0 ? send_one : peek_then_receive, 3); }, end_drained},
	{"hangs up: the sender leaves", 2, usual, begin<HANGS_UP>,
	 [](int i) {
		 if (i == 1)
			 return until_over(receive_one);
		 some(send_one, 2);
		 leave();
	 },
	 end_drained},
	{"hangs up: the sender dies", 3, one, begin_bound,
	 [](int i) {
		 if (i == 2)
			 return sweep_when_dead();
		 if (i == 1)
			 return until_over(receive_one);
		 some(send_one, 2);
		 leave();
	 },
	 end_delivered, 1},
	{"hangs up: the receiver leaves", 2, usual, begin<HANGS_UP>,
	 [](int i) {
		 if (i == 0) {
			 some(receive_one, 1);
			 return leave();
		 }
		 for (int k = 0, rc = 0; k < 4 && rc == 0; k++) {
			 rc = send_one(&self().ch, CH_FOREVER);
			 require(rc == 0 || rc == -EPIPE, "a send failed");
		 }
	 },
	 end_delivered},
	{"one slot, batches of two senders", 3, usual, begin<0, 1>,
	 [](int i) { i == 2 ? some(receive_one, 4) : batch_out(i == 0 ? 3 : 1); }, end_drained},
	{"one slot, batches of two receivers", 3, usual, begin<0, 1>,
	 [](int i) { i == 2 ? some(send_one, 4) : batch_in(i == 0 ? 3 : 1); }, end_drained},
	{"two slots, batches at both ends", 3, usual, begin<0>, [](int i) { i == 2 ? batch_in(5) : batch_out(i == 0 ? 3 : 2); },
	 end_drained},
	{"acknowledged: given back", 2, usual, begin<ACK>,
	 [](int i) {
		 if (i == 0) {
			 some(send_block_of, 1);
			 return close_it();
		 }
		 ch_message msg = CH_MESSAGE_INIT;
		 if (ch_channel_take(&self().ch, CH_TRY, &msg) == 0)
			 ch_channel_requeue(&self().ch, &msg);
		 until_over(receive_block_of);
	 },
	 end_drained},
	{"acknowledged: changed and given back", 3, usual, begin<ACK>,
	 [](int i) {
		 if (i == 0) {
			 some(send_block_of, 1);
			 return close_it();
		 }
		 ch_message msg = CH_MESSAGE_INIT;
		 if (i == 1 && ch_channel_take(&self().ch, CH_TRY, &msg) == 0) {
			 u64 m;
			 std::memcpy(&m, msg.data, sizeof(m));
			 std::memcpy(msg.data, &m, sizeof(m));
			 ch_channel_requeue(&self().ch, &msg);
		 }
		 if (i == 2)
			 until_over(receive_block_of);
	 },
	 end_drained},
	{"acknowledged: three take it and give it back", 3, usual, begin_given_back,
	 [](int) { take_and_give_back(&self().ch); }, end_given_back},
	{"one slot, a receiver of batches dies, many laps", 4, one, begin<0, 1>,
	 [](int i) {
		 if (i < 2)
			 return until_over(receive_as_batch);
		 if (i == 3)
			 return sweep_when_dead();
		 some(send_one, 3);
		 close_it();
		 sweep_when_dead();
		 until_over(receive_as_batch);
	 },
	 end_drained, 1},
	{"a block is offered", 2, usual, begin_memory, [](int i) { i == 0 ? offer_block() : accept_block(); }, end_memory},
	{"a block is shown", 2, usual, begin_memory, [](int i) { i == 0 ? show_block() : look_at_block(); }, end_memory},
	{"small blocks of one run", 2, usual, begin_memory,
	 [](int) {
		 void *a = allocate(3000, CH_TRY);
		 give_back(a);
		 give_back(allocate(3000, CH_TRY));
	 },
	 end_memory},
	{"three wait for the same memory", 3, {.preemptions = 1, .stale = 1}, begin_memory,
	 [](int) {
		 give_back(allocate(3 * PAGE, CH_FOREVER));
		 give_back(allocate(3 * PAGE, CH_FOREVER));
	 },
	 end_memory},
	{"a pool that grows", 2, usual, begin_growing,
	 [](int) {
		 void *a = allocate(PAGE, CH_TRY);
		 give_back(allocate(PAGE, CH_TRY));
		 give_back(a);
	 },
	 end_memory},
};

} // namespace

std::vector<scenario> ways_scenarios()
{
	return {std::begin(list), std::end(list)};
}

} // namespace ch::explore

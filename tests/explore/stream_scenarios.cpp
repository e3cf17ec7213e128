/* SPDX-License-Identifier: Apache-2.0 */
/* stream_scenarios.cpp - conversations over a port of one stream of two chunks: buffered or not, cancelled, deaths. */
#include "scenarios.h"
#include "stream.h"
#include "world.h"
#include <cerrno>

namespace ch::explore {
namespace {

for_all<ch_stream_port> port;

void begin()
{
	ch_stream_attr a{};

	make_world({.nr_processes = 3, .nr_pages = 5, .allocates = true});
	a.size = sizeof(a);
	a.nr_streams = 1;
	a.capacity = 2;
	a.chunk_len = 64;
	a.spin_ns = CH_SPIN_NEVER;
	port.make(3, a, ch_stream_port_create, ch_stream_port_get_descr, ch_stream_port_attach);
	for (int i = 0; i < 3; i++)
		port.of(i)->spin_ns.store(CH_SPIN_NEVER, relaxed); // a setting of each handle
	const stream_view &v = port.of(0)->v;
	name_words(&v.h->announced, 1, 8, "announced");
	name_words(&v.h->freed, 1, 8, "stream_freed");
	name_words(&v.h->state, 1, 8, "stream_state");
	name_words(&v.h->order, 1, 8, "order");
	name_words(v.words, 1, 8, "talk");
	name_words(v.orders, 1, 8, "order");
	name_words(&v.lane(0).not_empty, 1, 8, "not_empty");
	name_words(&v.lane(0).not_full, 1, 8, "not_full");
	name_words(&v.lane(0).head, 1, 8, "lane_head");
	name_words(&v.slot(0, 0).seq, 2, sizeof(stream_slot), "chunk");
	name_words(&v.slot(0, 0).what, 2, sizeof(stream_slot), "chunk_what");
	name_words(object_bits(stream_kind, reinterpret_cast<u8 *>(v.h)), 1, 8, "bits");
}

bool is_any_dead()
{
	return is_dead(0) || is_dead(1);
}

// Of a port whose conversations are over: the stream is free, and so is every block but the channel's and the port's.
void end()
{
	if (!is_any_dead())
		require(stream_is_free(port.of(0)->v.words[0].load(relaxed)), "a conversation is left over");
	require_free_pool(2);
}

bool is_end_of_a_talk(ssize_t rc)
{
	return rc == -EPIPE || rc == -ECANCELED || (rc == -EOWNERDEAD && is_any_dead());
}

ch_stream *open_stream(u32 flags = 0)
{
	ch_stream *s = nullptr;

	require(ch_stream_open(port.mine(), flags, CH_FOREVER, &s) == 0, "open failed");
	return s;
}

void write_chunks(ch_stream *s, u64 n)
{
	for (u64 k = 1; k <= n; k++) {
		ssize_t rc = ch_stream_write(s, &k, sizeof(k), k, CH_FOREVER);
		rc = rc < 0 ? rc : ch_stream_flush(s, CH_FOREVER);
		require(rc >= 0 || is_end_of_a_talk(rc), "a write failed");
		if (rc < 0)
			return;
	}
}

void write_blocks(ch_stream *s, u64 n)
{
	for (u64 k = 1; k <= n; k++) {
		ch_message msg = CH_MESSAGE_INIT;
		int rc = ch_stream_claim(s, PAGE, CH_FOREVER, &msg);
		if (rc == 0) {
			std::memcpy(msg.data, &k, sizeof(k));
			rc = ch_stream_commit(s, &msg, k, CH_FOREVER);
			ch_stream_abort(s, &msg);
		}
		require(rc >= 0 || is_end_of_a_talk(rc), "a commit failed");
		if (rc < 0)
			return;
	}
}

// One conversation of n chunks, ended.
void talk(u64 n, u32 flags = 0)
{
	ch_stream *s = open_stream(flags);

	write_chunks(s, n);
	const int rc = ch_stream_end(s, CH_FOREVER);
	require(rc == 0 || is_end_of_a_talk(rc), "end failed");
	ch_stream_close(s);
}

void talk_in_blocks(u64 n)
{
	ch_stream *s = open_stream();

	write_blocks(s, n);
	const int rc = ch_stream_end(s, CH_FOREVER);
	require(rc == 0 || is_end_of_a_talk(rc), "end failed");
	ch_stream_close(s);
}

// Takes chunks until the end. Returns how many, negative if it was not the writer that ended it in good order.
int take_chunks(ch_stream *s, int most)
{
	for (int n = 0; n < most; n++) {
		ch_message msg = CH_MESSAGE_INIT;
		u64 k = 0;
		const int rc = ch_stream_take(s, CH_FOREVER, &msg, nullptr);
		if (rc == 0)
			return n;
		require(rc == 1 || is_end_of_a_talk(rc), "a take failed");
		if (rc < 0)
			return -1;
		std::memcpy(&k, msg.data, sizeof(k));
		require(k == static_cast<u64>(n) + 1, "another chunk than was sent");
		ch_stream_release(s, &msg);
	}
	return most;
}

int listen(int most = 100)
{
	ch_stream *s = nullptr;
	const int rc = ch_stream_accept(port.mine(), CH_FOREVER, &s);

	require(rc == 0, "accept failed");
	const int n = take_chunks(s, most);
	ch_stream_close(s);
	return n;
}

void hear(int n)
{
	require(listen() == n, "not all chunks came");
}

constexpr bounds usual{.preemptions = 2, .stale = 1}, one{.preemptions = 1, .stale = 1, .deaths = 1};

const scenario list[] = {
	{"stream: three chunks", 2, usual, begin, [](int i) { i == 0 ? talk(3) : hear(3); }, end},
	{"stream: blocks", 2, usual, begin, [](int i) { i == 0 ? talk_in_blocks(3) : hear(3); }, end},
	{"stream: buffered", 2, usual, begin, [](int i) { i == 0 ? talk(1, CH_STREAM_BUFFERED) : hear(1); }, end},
	{"stream: two writers, one after the other", 3, usual, begin,
	 [](int i) {
		 if (i < 2)
			 return talk(1);
		 hear(1);
		 hear(1);
	 },
	 end},
	{"stream: two readers", 3, usual, begin,
	 [](int i) {
		 if (i > 0)
			 return hear(1);
		 talk(1);
		 talk(1);
	 },
	 end},
	{"stream: the reader has heard enough", 2, usual, begin,
	 [](int i) {
		 if (i == 0)
			 return talk(4);
		 listen(1);
	 },
	 end},
	{"stream: the reader has seen enough blocks", 2, usual, begin,
	 [](int i) {
		 if (i == 0)
			 return talk_in_blocks(3);
		 listen(1);
	 },
	 end},
	{"stream: cancelled", 2, usual, begin,
	 [](int i) {
		 if (i == 1) {
			 while (listen() < 0) // which need not have been seen at all
				 ;
			 return;
		 }
		 ch_stream *s = open_stream();
		 write_blocks(s, 1);
		 require(ch_stream_cancel(s) == 0, "cancel failed");
		 ch_stream_close(s);
		 talk(1);
	 },
	 end},
	{"stream: its writer dies", 3, one, begin,
	 [](int i) {
		 if (i == 0)
			 return talk_in_blocks(2);
		 if (i == 2)
			 return sweep_when_dead();
		 ch_stream *s = nullptr;
		 if (ch_stream_accept(port.mine(), CH_TRY, &s) < 0)
			 return;
		 take_chunks(s, 100);
		 ch_stream_close(s);
	 },
	 [] {}, 1},
	{"stream: its reader dies", 3, one, begin,
	 [](int i) {
		 if (i == 0) {
			 ch_stream *s = nullptr;
			 if (ch_stream_accept(port.mine(), CH_TRY, &s) < 0)
				 return;
			 take_chunks(s, 1);
			 return ch_stream_close(s);
		 }
		 if (i == 2)
			 return sweep_when_dead();
		 ch_stream *s = open_stream();
		 write_blocks(s, 2); // which have room; that there is a reader is not sure
		 ch_stream_close(s);
	 },
	 [] {}, 1},
};

} // namespace

std::vector<scenario> stream_scenarios()
{
	return {std::begin(list), std::end(list)};
}

} // namespace ch::explore

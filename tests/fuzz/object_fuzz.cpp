/* SPDX-License-Identifier: Apache-2.0 */
/*
 * object_fuzz.cpp - hostile shared memory under streams, poll sets, mutexes and the other synchronisation objects, under
 * acknowledged and urgent messages, and under blocks that have a type, are offered or are shown: as shm_fuzz.cpp, with single
 * words changed between the calls and by a thread during the calls.
 *
 * Each byte of the input is a step; what else it needs is derived from all of them.
 */
#include "hostile.h"

namespace {

struct arena {
	struct ch_segment *seg;
	struct ch_pool *pool;
	struct ch_channel *ch, *one_way, *careful;
	struct ch_mutex *mutex;
	struct ch_rwlock *rwlock;
	struct ch_semaphore *semaphore;
	struct ch_event *event;
	struct ch_condition *condition;
	struct ch_barrier *barrier;
	struct ch_stream_port *port;
	struct ch_stream *ends[2];
	struct ch_pollset *set;
	void *block; /* ours, or NULL */
	bool is_offered;
	struct ch_descr offer;
	struct ch_view *view;
	mirror m;
	std::vector<size_t> lively;
	uint64_t rs;
};

int64_t short_timeout(arena &a)
{
	return rnd(&a.rs) % 2 ? CH_TRY : 20000;
}

void use_locks(arena &a)
{
	allowed(ch_mutex_lock(a.mutex, short_timeout(a)), "mutex lock");
	if (rnd(&a.rs) % 4 == 0)
		allowed(ch_condition_wait(a.condition, a.mutex, short_timeout(a)), "condition wait");
	allowed(ch_mutex_unlock(a.mutex), "mutex unlock");
	if (rnd(&a.rs) % 2) {
		allowed(ch_rwlock_lock(a.rwlock, short_timeout(a)), "rwlock lock");
		if (rnd(&a.rs) % 2)
			allowed(ch_rwlock_downgrade(a.rwlock), "rwlock downgrade");
	} else {
		allowed(ch_rwlock_lock_shared(a.rwlock, short_timeout(a)), "rwlock lock shared");
	}
	allowed(ch_rwlock_unlock(a.rwlock), "rwlock unlock");
}

void use_signals(arena &a)
{
	switch (rnd(&a.rs) % 10) {
	case 0: allowed(ch_semaphore_acquire(a.semaphore, rnd(&a.rs) % 3, short_timeout(a)), "acquire"); break;
	case 1: allowed(ch_semaphore_release(a.semaphore, rnd(&a.rs) % 3), "release"); break;
	case 2: allowed(ch_semaphore_wait_zero(a.semaphore, short_timeout(a)), "wait zero"); break;
	case 3: allowed(ch_event_set(a.event), "set"); break;
	case 4: allowed(ch_event_wait(a.event, short_timeout(a)), "wait"); break;
	case 5: allowed(ch_event_pulse(a.event), "pulse"); break;
	case 6: allowed(ch_condition_broadcast(a.condition), "broadcast"); break;
	case 7: allowed(ch_barrier_wait(a.barrier, nullptr, nullptr, short_timeout(a)), "barrier wait"); break;
	case 8: allowed(ch_barrier_reset(a.barrier), "reset"); break;
	default: allowed(ch_barrier_count(a.barrier), "count");
	}
}

/* Bytes that may be another's to write: in the segment or in the message itself, and readable to their end. */
void read_through(const struct ch_segment *seg, const void *data, size_t len, const struct ch_message *msg)
{
	const auto *p = static_cast<const volatile unsigned char *>(data);
	const auto *user = static_cast<const unsigned char *>(ch_segment_addr(seg));
	const size_t all = ch_segment_len(seg);
	const bool inside = p >= user && len <= all && p + len <= user + all;
	const bool own = msg && p >= reinterpret_cast<const unsigned char *>(msg) &&
			 p + len <= reinterpret_cast<const unsigned char *>(msg + 1);
	unsigned char sum = 0;

	require(inside || own, "bytes outside of the segment");
	for (size_t i = 0; i < len; i += 61)
		sum = static_cast<unsigned char>(sum + p[i]);
	(void)sum;
}

void *block_of(arena &a, size_t len)
{
	void *p = nullptr;
	const int err = ch_pool_alloc_typed(a.pool, len, static_cast<uint32_t>(1 + rnd(&a.rs) % 2), short_timeout(a), &p);

	allowed(err, "typed alloc");
	if (err < 0)
		return nullptr;
	read_through(a.seg, p, len, nullptr);
	memset(p, 1, len);
	return p;
}

int see_block(const struct ch_block_info *info, void *arg)
{
	auto *a = static_cast<arena *>(arg);

	read_through(a->seg, info->addr, info->len, nullptr);
	return rnd(&a->rs) % 32 == 0;
}

void drop_block(arena &a)
{
	if (a.is_offered)
		allowed(ch_block_withdraw(a.pool, a.block), "withdraw");
	if (a.block)
		allowed(ch_pool_free(a.pool, a.block), "free");
	a.block = nullptr;
	a.is_offered = false;
}

void use_blocks(arena &a)
{
	struct ch_pool_class classes[4];
	void *p = nullptr;

	switch (rnd(&a.rs) % 6) {
	case 0:
		drop_block(a);
		a.block = block_of(a, 1 + rnd(&a.rs) % 6000);
		break;
	case 1:
		if (!a.block || a.is_offered)
			break;
		a.is_offered = ch_block_offer(a.pool, a.block, &a.offer) == 0;
		break;
	case 2:
		if (!a.is_offered)
			break;
		allowed(ch_block_accept(a.pool, &a.offer, &p), "accept");
		if (!p)
			break;
		read_through(a.seg, p, 1, nullptr);
		a.block = p;
		a.is_offered = false;
		break;
	case 3: allowed(ch_pool_each_block(a.pool, static_cast<uint32_t>(rnd(&a.rs) % 2), see_block, &a), "each block"); break;
	case 4: allowed(ch_pool_get_classes(a.pool, classes, 4), "classes"); break;
	default: drop_block(a);
	}
}

void look_at(arena &a, struct ch_view *view)
{
	const void *p = view ? ch_view_addr(view) : nullptr;

	if (p)
		read_through(a.seg, p, ch_view_len(view), nullptr);
	if (view)
		allowed(ch_view_count(view), "view count");
}

void use_views(arena &a)
{
	struct ch_view *other = nullptr;
	struct ch_descr d;
	const size_t len = 1 + rnd(&a.rs) % 6000;

	if (!a.view) {
		void *p = block_of(a, len);
		const int err = p ? ch_view_create(a.pool, p, len, &a.view) : -ENOMEM;
		allowed(err, "view create");
		if (p && err < 0)
			allowed(ch_pool_free(a.pool, p), "free");
		return;
	}
	switch (rnd(&a.rs) % 4) {
	case 0:
		require(ch_view_get_descr(a.view, &d) == 0, "no descriptor");
		allowed(ch_view_attach(&d, &other), "view attach");
		break;
	case 1: allowed(ch_view_clone(a.view, len / 2, len / 3, &other), "view clone"); break;
	case 2:
		if (a.ends[0])
			allowed(ch_stream_send_view(a.ends[0], a.view, 1, short_timeout(a)), "send view");
		break;
	default:
		look_at(a, a.view);
		ch_view_detach(a.view);
		a.view = nullptr;
	}
	look_at(a, other);
	ch_view_detach(other);
}

/* Messages that stay until they are released, are given back, urgent ones, and such as want a receipt. */
void use_carefully(arena &a)
{
	struct ch_send_attr attr = CH_SEND_ATTR_INIT;
	struct ch_message msg = CH_MESSAGE_INIT;
	unsigned char buf[200] = {};

	if (rnd(&a.rs) % 2) {
		attr.flags = static_cast<uint32_t>(rnd(&a.rs) % 4);
		attr.completion = static_cast<uint32_t>(rnd(&a.rs) % 3);
		attr.tag = attr.flags & CH_MESSAGE_TAGGED ? 7 : 0;
		allowed(ch_channel_send_attr(a.careful, buf, rnd(&a.rs) % sizeof(buf), &attr, short_timeout(a)), "send attr");
		return;
	}
	const int err = ch_channel_take(a.careful, short_timeout(a), &msg);
	allowed(err, "take");
	if (err < 0)
		return;
	touch(a.seg, msg);
	if (rnd(&a.rs) % 3 == 0)
		allowed(ch_channel_requeue(a.careful, &msg), "requeue");
	ch_channel_release(a.careful, &msg);
}

template <class T>
void attach_again(T *o, int (*get_descr)(const T *, struct ch_descr *), int (*attach)(const struct ch_descr *, T **),
		  void (*detach)(T *))
{
	struct ch_descr d;
	T *again = nullptr;

	require(get_descr(o, &d) == 0, "no descriptor");
	allowed(attach(&d, &again), "attach");
	detach(again);
}

#define ATTACH_AGAIN(kind, handle) attach_again(handle, ch_##kind##_get_descr, ch_##kind##_attach, ch_##kind##_detach)

void attach_one(arena &a)
{
	struct ch_stream_port_stats st;

	switch (rnd(&a.rs) % 8) {
	case 0: ATTACH_AGAIN(mutex, a.mutex); break;
	case 1: ATTACH_AGAIN(rwlock, a.rwlock); break;
	case 2: ATTACH_AGAIN(semaphore, a.semaphore); break;
	case 3: ATTACH_AGAIN(event, a.event); break;
	case 4: ATTACH_AGAIN(condition, a.condition); break;
	case 5: ATTACH_AGAIN(barrier, a.barrier); break;
	case 6: ATTACH_AGAIN(stream_port, a.port); break;
	default: allowed(ch_stream_port_get_stats(a.port, &st), "port stats");
	}
}

void open_streams(arena &a)
{
	if (!a.ends[0])
		allowed(ch_stream_open(a.port, 0, short_timeout(a), &a.ends[0]), "stream open");
	if (!a.ends[1])
		allowed(ch_stream_accept(a.port, short_timeout(a), &a.ends[1]), "stream accept");
	for (ch_stream *s : a.ends)
		if (s && rnd(&a.rs) % 2)
			allowed(ch_pollset_add_any(a.set, ch_stream_get_pollable(s), CH_POLL_IN | CH_POLL_OUT, 6),
				"poll set add");
}

void write_in_place(arena &a)
{
	struct ch_message msg = CH_MESSAGE_INIT;
	int err = ch_stream_claim(a.ends[0], rnd(&a.rs) % 5000, short_timeout(a), &msg);

	allowed(err, "stream claim");
	if (err < 0)
		return;
	touch(a.seg, msg);
	allowed(ch_stream_commit(a.ends[0], &msg, 1, short_timeout(a)), "stream commit");
	ch_stream_abort(a.ends[0], &msg);
}

void write_stream(arena &a)
{
	std::vector<unsigned char> buf(rnd(&a.rs) % 4 ? rnd(&a.rs) % 64 : rnd(&a.rs) % 5000);

	if (!a.ends[0])
		return;
	if (rnd(&a.rs) % 4 == 0)
		return write_in_place(a);
	allowed(ch_stream_write(a.ends[0], buf.data(), buf.size(), rnd(&a.rs), short_timeout(a)), "stream write");
	allowed(ch_stream_flush(a.ends[0], short_timeout(a)), "stream flush");
	allowed(ch_stream_count(a.ends[0]), "stream count");
	if (rnd(&a.rs) % 8)
		return;
	if (rnd(&a.rs) % 4 == 0)
		allowed(ch_stream_cancel(a.ends[0]), "stream cancel");
	allowed(ch_stream_end(a.ends[0], short_timeout(a)), "stream end");
	ch_stream_close(a.ends[0]);
	a.ends[0] = nullptr;
}

void read_stream(arena &a)
{
	std::vector<unsigned char> buf(rnd(&a.rs) % 3000);
	struct ch_message msg = CH_MESSAGE_INIT;
	uint64_t arg;

	if (!a.ends[1])
		return;
	if (rnd(&a.rs) % 2) {
		allowed(ch_stream_read(a.ends[1], buf.data(), buf.size(), short_timeout(a), &arg), "stream read");
	} else {
		const int err = ch_stream_take(a.ends[1], short_timeout(a), &msg, &arg);
		allowed(err, "stream take");
		if (err == 1 && msg.data)
			read_through(a.seg, msg.data, msg.len, &msg);
		ch_stream_release(a.ends[1], &msg);
	}
	if (rnd(&a.rs) % 8)
		return;
	ch_stream_close(a.ends[1]);
	a.ends[1] = nullptr;
}

void use_set(arena &a)
{
	struct ch_poll_event e[2];
	const int n = ch_pollset_wait(a.set, e, 2, short_timeout(a));

	allowed(n, "poll set wait");
	for (int i = 0; i < n; i++)
		require(e[i].user_data >= 1 && e[i].user_data <= 6, "an event that nobody asked for");
	if (rnd(&a.rs) % 8 == 0) {
		allowed(ch_pollset_remove(a.set, a.ch), "poll set remove");
		allowed(ch_pollset_add(a.set, a.ch, CH_POLL_IN | CH_POLL_OUT, 1), "poll set add");
		allowed(ch_pollset_remove_any(a.set, ch_semaphore_get_pollable(a.semaphore)), "poll set remove");
		allowed(ch_pollset_add_any(a.set, ch_semaphore_get_pollable(a.semaphore), CH_POLL_IN, 3), "poll set add");
	}
}

void use_channel(arena &a, struct ch_channel *ch)
{
	unsigned char buf[64] = {};
	struct ch_recv_item in[3] = { { buf, 20, 0 }, { buf + 20, 20, 0 }, { buf + 40, 20, 0 } };
	struct ch_send_item out[3] = { { buf, 20 }, { buf, 8 }, { buf, 0 } };
	struct ch_recv_info info;

	switch (rnd(&a.rs) % 5) {
	case 0: allowed(ch_channel_send_batch(ch, out, 3, short_timeout(a)), "send batch"); break;
	case 1: allowed(ch_channel_recv_batch(ch, in, 3, short_timeout(a)), "recv batch"); break;
	case 2: allowed(ch_channel_peek(ch, buf, sizeof(buf), short_timeout(a), &info), "peek"); break;
	case 3: allowed(ch_channel_recv_info(ch, buf, sizeof(buf), short_timeout(a), &info), "recv info"); break;
	default: allowed(ch_channel_drain(ch), "drain");
	}
}

void step(arena &a, unsigned what)
{
	switch (what % 20) {
	case 0: case 1: use_locks(a); break;
	case 2: case 3: use_signals(a); break;
	case 4: open_streams(a); break;
	case 5: case 6: write_stream(a); break;
	case 7: case 8: read_stream(a); break;
	case 9: use_set(a); break;
	case 10: use_channel(a, a.ch); break;
	case 11: use_channel(a, a.one_way); break;
	case 12: use_blocks(a); break;
	case 13: use_views(a); break;
	case 14: use_carefully(a); break;
	case 15: attach_one(a); break;
	default: damage(a.m, a.lively, a.rs);
	}
}

bool make_objects(arena &a)
{
	struct ch_channel_attr cattr = CH_CHANNEL_ATTR_INIT;
	struct ch_semaphore_attr sattr = CH_SEMAPHORE_ATTR_INIT;
	struct ch_barrier_attr battr = CH_BARRIER_ATTR_INIT;
	struct ch_stream_attr tattr = CH_STREAM_ATTR_INIT;
	struct ch_pollset_attr pattr = CH_POLLSET_ATTR_INIT;

	cattr.capacity = 4;
	cattr.urgent_capacity = 2;
	sattr.value = 1;
	battr.parties = 1;
	tattr.nr_streams = 2;
	tattr.capacity = 2;
	tattr.chunk_len = 1024;
	pattr.max_members = 8;
	if (ch_channel_create(a.pool, &cattr, &a.ch) < 0)
		return false;
	cattr.flags = CH_CHANNEL_ACKNOWLEDGED;
	if (ch_channel_create(a.pool, &cattr, &a.careful) < 0)
		return false;
	cattr.urgent_capacity = 0;
	cattr.flags = CH_CHANNEL_SPSC;
	return ch_channel_create(a.pool, &cattr, &a.one_way) == 0 && ch_mutex_create(a.pool, nullptr, &a.mutex) == 0 &&
	       ch_rwlock_create(a.pool, nullptr, &a.rwlock) == 0 && ch_event_create(a.pool, nullptr, &a.event) == 0 &&
	       ch_semaphore_create(a.pool, &sattr, &a.semaphore) == 0 &&
	       ch_condition_create(a.pool, nullptr, &a.condition) == 0 &&
	       ch_barrier_create(a.pool, &battr, &a.barrier) == 0 && ch_stream_port_create(a.pool, &tattr, &a.port) == 0 &&
	       ch_pollset_create(&pattr, &a.set) == 0 && ch_pollset_add(a.set, a.ch, CH_POLL_IN | CH_POLL_OUT, 1) == 0 &&
	       ch_pollset_add(a.set, a.one_way, CH_POLL_IN, 2) == 0 &&
	       ch_pollset_add_any(a.set, ch_semaphore_get_pollable(a.semaphore), CH_POLL_IN, 3) == 0 &&
	       ch_pollset_add_any(a.set, ch_event_get_pollable(a.event), CH_POLL_IN, 4) == 0 &&
	       ch_pollset_add_any(a.set, ch_stream_port_get_pollable(a.port), CH_POLL_IN | CH_POLL_OUT, 5) == 0;
}

arena make(uint64_t seed)
{
	struct ch_segment_attr sattr = CH_SEGMENT_ATTR_INIT;
	struct ch_pool_attr pattr = CH_POOL_ATTR_INIT;
	arena a = {};

	sattr.len = 256 << 10;
	sattr.max_peers = 4;
	require(ch_segment_create(&sattr, &a.seg) == 0, "no segment");
	pattr.segment = a.seg;
	require(ch_pool_create(&pattr, &a.pool) == 0, "no pool");
	require(make_objects(a), "no objects");
	a.rs = seed;
	a.m = map_again(a.seg);
	for (unsigned i = 0; i < 64; i++)
		step(a, i % 16); /* so that every kind of word is in use */
	for (size_t i = 0; i < a.m.len / 8; i++)
		if (reinterpret_cast<uint64_t *>(a.m.bytes)[i])
			a.lively.push_back(i);
	return a;
}

void end(arena &a)
{
	const bool ends = rnd(&a.rs) % 2;

	ch_pollset_destroy(a.set);
	for (struct ch_stream *s : a.ends)
		ch_stream_close(s);
	ch_view_detach(a.view);
	ends ? ch_stream_port_destroy(a.port) : ch_stream_port_detach(a.port);
	ends ? ch_mutex_destroy(a.mutex) : ch_mutex_detach(a.mutex);
	ends ? ch_rwlock_destroy(a.rwlock) : ch_rwlock_detach(a.rwlock);
	ends ? ch_semaphore_destroy(a.semaphore) : ch_semaphore_detach(a.semaphore);
	ends ? ch_event_destroy(a.event) : ch_event_detach(a.event);
	ends ? ch_condition_destroy(a.condition) : ch_condition_detach(a.condition);
	ends ? ch_barrier_destroy(a.barrier) : ch_barrier_detach(a.barrier);
	for (struct ch_channel *ch : { a.ch, a.one_way, a.careful })
		ends ? ch_channel_destroy(ch) : ch_channel_detach(ch);
	ch_pool_destroy(a.pool);
	ch_segment_destroy(a.seg);
	munmap(a.m.bytes, a.m.len);
	unlink(a.m.path);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint64_t seed = seed_of(data, size);
	arena a = make(seed);
	std::optional<vandal> beside;

	if (size && data[0] % 4 == 1)
		beside.emplace(a.m, a.lively, ~seed);
	for (size_t i = 0; i < size; i++)
		step(a, data[i]);
	beside.reset();
	end(a);
	return 0;
}

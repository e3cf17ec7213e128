/* SPDX-License-Identifier: Apache-2.0 */
/*
 * object_fuzz.cpp - hostile shared memory under streams, poll sets, mutexes and the other synchronisation objects: as
 * shm_fuzz.cpp, with single words changed between the calls and by a thread during the calls.
 *
 * Each byte of the input is a step; what else it needs is derived from all of them.
 */
#include "hostile.h"

namespace {

struct arena {
	struct ch_segment *seg;
	struct ch_pool *pool;
	struct ch_channel *ch, *one_way;
	struct ch_mutex *mutex;
	struct ch_rwlock *rwlock;
	struct ch_semaphore *semaphore;
	struct ch_event *event;
	struct ch_condition *condition;
	struct ch_barrier *barrier;
	struct ch_stream_port *port;
	struct ch_stream *ends[2];
	struct ch_pollset *set;
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

void write_stream(arena &a)
{
	std::vector<unsigned char> buf(rnd(&a.rs) % 4 ? rnd(&a.rs) % 64 : rnd(&a.rs) % 5000);

	if (!a.ends[0])
		return;
	allowed(ch_stream_write(a.ends[0], buf.data(), buf.size(), rnd(&a.rs), short_timeout(a)), "stream write");
	allowed(ch_stream_flush(a.ends[0], short_timeout(a)), "stream flush");
	if (rnd(&a.rs) % 8)
		return;
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
		if (err == 0 && msg.data)
			touch(a.seg, msg);
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
	switch (what % 16) {
	case 0: case 1: use_locks(a); break;
	case 2: case 3: use_signals(a); break;
	case 4: open_streams(a); break;
	case 5: case 6: write_stream(a); break;
	case 7: case 8: read_stream(a); break;
	case 9: use_set(a); break;
	case 10: use_channel(a, a.ch); break;
	case 11: use_channel(a, a.one_way); break;
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
	for (unsigned i = 0; i < 48; i++)
		step(a, i % 12); /* so that every kind of word is in use */
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
	ends ? ch_stream_port_destroy(a.port) : ch_stream_port_detach(a.port);
	ends ? ch_mutex_destroy(a.mutex) : ch_mutex_detach(a.mutex);
	ends ? ch_rwlock_destroy(a.rwlock) : ch_rwlock_detach(a.rwlock);
	ends ? ch_semaphore_destroy(a.semaphore) : ch_semaphore_detach(a.semaphore);
	ends ? ch_event_destroy(a.event) : ch_event_detach(a.event);
	ends ? ch_condition_destroy(a.condition) : ch_condition_detach(a.condition);
	ends ? ch_barrier_destroy(a.barrier) : ch_barrier_detach(a.barrier);
	for (struct ch_channel *ch : { a.ch, a.one_way })
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

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shm_fuzz.cpp - hostile shared memory. While a pool and its channels are in use, words of their segment change under
 * them: by single flips between the calls, by a thread during the calls, with a second process that does the same and
 * is killed. Every call returns, success or a documented code; what it hands out lies in the segment.
 *
 * The input is a program: each step takes some bytes of it, and the rest is derived from them.
 */
#include "hostile.h"

namespace {

struct arena {
	struct ch_segment *seg;
	struct ch_pool *pool;
	struct ch_channel *ch[2];
	mirror m;
	std::vector<size_t> lively; /* words that were not zero at the beginning: most of what matters */
	uint64_t rs;
	void *block;
};

int64_t short_timeout(arena &a)
{
	return rnd(&a.rs) % 2 ? CH_TRY : 20000;
}

void copy_messages(arena &a, struct ch_channel *ch)
{
	std::vector<unsigned char> buf(rnd(&a.rs) % 4 ? rnd(&a.rs) % 64 : rnd(&a.rs) % 9000); /* ASan knows its end */

	if (rnd(&a.rs) % 2)
		allowed(ch_channel_send(ch, buf.data(), buf.size(), short_timeout(a)), "send");
	else
		allowed(ch_channel_recv(ch, buf.data(), buf.size(), short_timeout(a)), "recv");
}

void write_in_place(arena &a, struct ch_channel *ch)
{
	struct ch_message msg = CH_MESSAGE_INIT;
	const size_t len = rnd(&a.rs) % 2 ? rnd(&a.rs) % 64 : rnd(&a.rs) % 9000;
	int err = ch_channel_claim(ch, len, short_timeout(a), &msg);

	allowed(err, "claim");
	if (err < 0)
		return;
	touch(a.seg, msg);
	if (rnd(&a.rs) % 4)
		allowed(err = ch_channel_commit(ch, &msg, short_timeout(a)), "commit");
	ch_channel_abort(ch, &msg);
}

void read_in_place(arena &a, struct ch_channel *ch)
{
	struct ch_message msg = CH_MESSAGE_INIT;
	const int err = ch_channel_take(ch, short_timeout(a), &msg);

	allowed(err, "take");
	if (err < 0)
		return;
	touch(a.seg, msg);
	if (rnd(&a.rs) % 4 == 0)
		allowed(ch_channel_commit(a.ch[rnd(&a.rs) % 2], &msg, short_timeout(a)), "commit");
	ch_channel_release(ch, &msg);
}

void use_pool(arena &a)
{
	struct ch_pool_stats st;
	void *p = nullptr;
	const size_t len = 1 + rnd(&a.rs) % 9000;

	switch (rnd(&a.rs) % 4) {
	case 0: allowed(ch_pool_sweep(a.pool), "sweep"); break;
	case 1: allowed(ch_pool_get_stats(a.pool, &st), "stats"); break;
	default:
		allowed(ch_pool_free(a.pool, a.block), "free");
		a.block = nullptr;
		const int err = ch_pool_alloc(a.pool, len, short_timeout(a), &p);
		allowed(err, "alloc");
		if (err < 0)
			break;
		auto *user = static_cast<unsigned char *>(ch_segment_addr(a.seg));
		require(p >= user && static_cast<unsigned char *>(p) + len <= user + ch_segment_len(a.seg), "a block outside");
		memset(p, 0, len);
		a.block = p;
	}
}

void attach_again(arena &a, struct ch_channel *ch)
{
	struct ch_channel *again = nullptr;
	struct ch_descr d;

	require(ch_channel_get_descr(ch, &d) == 0, "no descriptor");
	allowed(ch_channel_attach(&d, &again), "attach");
	if (again)
		copy_messages(a, again);
	ch_channel_detach(again);
	if (rnd(&a.rs) % 4)
		return;
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	attr.capacity = 4;
	again = nullptr;
	allowed(ch_channel_create(a.pool, &attr, &again), "create");
	ch_channel_destroy(again);
}

void step(arena &a, unsigned what)
{
	struct ch_channel *ch = a.ch[rnd(&a.rs) % 2];

	switch (what % 16) {
	case 0: case 1: case 2: case 3: copy_messages(a, ch); break;
	case 4: case 5: write_in_place(a, ch); break;
	case 6: case 7: read_in_place(a, ch); break;
	case 8: use_pool(a); break;
	case 9: allowed(ch_channel_count(ch), "count"); break;
	case 10: attach_again(a, ch); break;
	case 11:
		if (what == 11)
			allowed(ch_channel_close(ch), "close");
		break;
	default: damage(a.m, a.lively, a.rs);
	}
}

arena make(uint64_t seed)
{
	struct ch_segment_attr sattr = CH_SEGMENT_ATTR_INIT;
	struct ch_pool_attr pattr = CH_POOL_ATTR_INIT;
	struct ch_channel_attr cattr = CH_CHANNEL_ATTR_INIT;
	arena a = {};

	sattr.len = 128 << 10;
	sattr.max_peers = 4;
	require(ch_segment_create(&sattr, &a.seg) == 0, "no segment");
	pattr.segment = a.seg;
	require(ch_pool_create(&pattr, &a.pool) == 0, "no pool");
	cattr.capacity = 4;
	for (auto &ch : a.ch)
		require(ch_channel_create(a.pool, &cattr, &ch) == 0, "no channel");
	a.rs = seed;
	a.m = map_again(a.seg);
	for (int i = 0; i < 40; i++)
		step(a, static_cast<unsigned>(i % 9)); /* so that every kind of word is in use */
	for (size_t i = 0; i < a.m.len / 8; i++)
		if (reinterpret_cast<uint64_t *>(a.m.bytes)[i])
			a.lively.push_back(i);
	return a;
}

[[noreturn]] void second_process(arena &a, const uint8_t *data, size_t size)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(60);
	a.rs ^= 0x5555;
	for (;;)
		for (size_t i = size; i > 0; i--)
			step(a, data[i - 1]);
}

void end_second_process(pid_t pid)
{
	if (pid <= 0)
		return;
	const int how = child_kill(pid);
	require(how == -SIGKILL, "the second process ended by itself");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint64_t seed = seed_of(data, size);
	arena a = make(seed);
	std::optional<vandal> beside;
	const pid_t pid = size && data[0] % 8 == 0 ? fork() : 0;

	if (pid == 0 && size && data[0] % 8 == 0)
		second_process(a, data, size);
	if (size && data[0] % 4 == 1)
		beside.emplace(a.m, a.lively, ~seed);
	for (size_t i = 0; i < size; i++)
		step(a, data[i]);
	beside.reset();
	end_second_process(pid);
	for (auto *ch : a.ch)
		rnd(&a.rs) % 2 ? ch_channel_destroy(ch) : ch_channel_detach(ch);
	ch_pool_destroy(a.pool);
	ch_segment_destroy(a.seg);
	munmap(a.m.bytes, a.m.len);
	unlink(a.m.path); /* destroy leaves the name alone where the damage says that somebody else destroyed it */
	return 0;
}

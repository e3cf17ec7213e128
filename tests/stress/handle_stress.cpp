/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handle_stress.cpp - threads attach, use, detach, destroy and make anew the same few channels at the same time.
 * Each call gives success or a documented code; nothing of it is left in the pool.
 *
 * usage: handle_stress [--messages N] [--seed X] [--threads T]     N rounds in all
 */
#include "stress.h"

namespace {

constexpr size_t NR_PLACES = 3;

/* Descriptor of the channel that was last made for each place. */
struct place {
	std::atomic<uint64_t> words[8];
	std::atomic<uint64_t> version{ 0 }; /* odd while it changes */
};

struct arena {
	struct ch_pool *pool;
	struct ch_descr descr; /* of the pool */
	place places[NR_PLACES];
};

/* Whether there is a descriptor; the version is for write_place. */
bool read_place(place &p, struct ch_descr *out, uint64_t *out_version)
{
	const uint64_t version = p.version;
	uint64_t words[8];

	for (int i = 0; i < 8; i++)
		words[i] = p.words[i];
	memcpy(out->bytes, words, sizeof(words));
	*out_version = version;
	return version % 2 == 0 && version > 0 && p.version == version;
}

/* Only if nobody wrote since: a descriptor that is overwritten unseen would leak its channel. */
bool write_place(place &p, const struct ch_descr &d, uint64_t version)
{
	uint64_t words[8];

	memcpy(words, d.bytes, sizeof(words));
	if (version % 2 || !p.version.compare_exchange_strong(version, version + 1))
		return false;
	for (int i = 0; i < 8; i++)
		p.words[i] = words[i];
	p.version++;
	return true;
}

/* The place keeps the new channel, unless another thread was faster. */
void make(arena &a, place &p, uint64_t version)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_channel *ch = nullptr;
	struct ch_descr d;

	attr.capacity = 4;
	const int err = ch_channel_create(a.pool, &attr, &ch);
	CHECK(err == 0 || err == -ENOSPC);
	if (err < 0)
		return;
	CHECK(ch_channel_get_descr(ch, &d) == 0);
	write_place(p, d, version) ? ch_channel_detach(ch) : ch_channel_destroy(ch);
}

bool is_expected(ssize_t n)
{
	return n >= 0 || n == -EAGAIN || n == -ETIMEDOUT || n == -ESTALE || n == -EPIPE || n == -ENOSPC;
}

void use(struct ch_channel *ch, uint64_t &rs)
{
	char buf[3000] = {};

	CHECK(is_expected(ch_channel_send(ch, buf, rnd(&rs) % sizeof(buf), rnd(&rs) % 2 ? CH_TRY : 20000)));
	CHECK(is_expected(ch_channel_recv(ch, buf, sizeof(buf), rnd(&rs) % 2 ? CH_TRY : 20000)));
	CHECK(is_expected(ch_channel_count(ch)));
	if (rnd(&rs) % 32 == 0)
		CHECK(is_expected(ch_channel_close(ch)));
}

void work(arena &a, uint64_t nr, uint64_t rs)
{
	for (uint64_t i = 0; i < nr; i++) {
		place &p = a.places[rnd(&rs) % NR_PLACES];
		struct ch_channel *ch = nullptr;
		struct ch_pool *pool = nullptr;
		struct ch_descr d;
		uint64_t version;

		CHECK(ch_pool_attach(&a.descr, &pool) == 0);
		const int err = read_place(p, &d, &version) ? ch_channel_attach(&d, &ch) : -ESTALE;
		CHECK(err == 0 || err == -ESTALE);
		if (err < 0)
			make(a, p, version);
		for (uint64_t k = rnd(&rs) % 4; ch && k > 0; k--)
			use(ch, rs);
		rnd(&rs) % 4 ? ch_channel_detach(ch) : ch_channel_destroy(ch);
		ch_pool_detach(pool);
	}
}

} // namespace

int main(int argc, char **argv)
{
	const stress::options o = stress::parse(argc, argv, 20000);
	struct ch_pool_stats before;
	arena a;

	a.pool = pool_of(1 << 20);
	CHECK(ch_pool_get_descr(a.pool, &a.descr) == 0);
	CHECK(ch_pool_get_stats(a.pool, &before) == 0);
	stress::together(o.threads, [&](int i) {
		work(a, o.messages / static_cast<uint64_t>(o.threads), o.seed * 41 + static_cast<uint64_t>(i) + 1);
	});
	for (auto &p : a.places) {
		struct ch_channel *ch = nullptr;
		struct ch_descr d;
		uint64_t version;

		if (read_place(p, &d, &version) && ch_channel_attach(&d, &ch) == 0)
			ch_channel_destroy(ch);
	}
	CHECK(pool_is_as_before(a.pool, &before));
	ch_pool_destroy(a.pool);
	return stress::verdict("handle", o);
}

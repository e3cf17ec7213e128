/* SPDX-License-Identifier: Apache-2.0 */
/* descr.cpp: descriptors with a good checksum that nobody gave out. Only who knows the layout can make them. */
#include "descr.h"
#include "../support/support.h"
#include <criterion/criterion.h>

using ch::core::descr;
using ch::core::descr_open;
using ch::core::descr_seal;

namespace {

struct objects {
	struct ch_pool *pool = nullptr;
	struct ch_channel *ch = nullptr;
	descr good = {}; /* of the channel */
};

objects make()
{
	objects o;
	struct ch_descr d;

	o.pool = pool_of(1 << 20);
	cr_assert_eq(ch_channel_create(o.pool, nullptr, &o.ch), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_get_descr(o.ch, &d), 0);
	cr_assert_eq(descr_open(&d, o.good), 0);
	return o;
}

struct forged {
	descr d;
	int want;
};

/* A process that knows the segment only by the descriptor. */
int attaches(void *arg)
{
	const forged &f = *static_cast<forged *>(arg);
	struct ch_channel *ch = nullptr;
	struct ch_descr d;

	descr_seal(f.d, &d);
	const int err = ch_channel_attach(&d, &ch);
	if (err != f.want)
		fprintf(stderr, "%s instead of %s\n", strerror(-err), strerror(-f.want));
	return err == f.want && !ch ? 0 : 1;
}

/* Both in a process that is attached already and in one that is not. */
void assert_refused(const descr &d, int want)
{
	static forged *f = static_cast<forged *>(
		mmap(nullptr, sizeof(forged), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));

	*f = { d, want };
	cr_expect_eq(attaches(f), 0, "in a process that is attached");
	cr_expect_eq(child_end(child_start(attaches, f)), 0, "in its child");
}

} // namespace

Test(descr_unit, wrong_nonce_is_forged, .timeout = WATCHDOG_S)
{
	objects o = make();

	o.good.nonce ^= 1;
	assert_refused(o.good, -EACCES);
	o.good.nonce = 0;
	assert_refused(o.good, -EACCES);
	ch_pool_destroy(o.pool);
}

Test(descr_unit, other_birth_or_generation_is_stale, .timeout = WATCHDOG_S)
{
	objects o = make();
	descr d = o.good;

	d.birth ^= 2;
	assert_refused(d, -ESTALE);
	d = o.good;
	d.generation += 1;
	assert_refused(d, -ESTALE);
	d.generation = UINT64_MAX;
	assert_refused(d, -ESTALE);
	ch_pool_destroy(o.pool);
}

Test(descr_unit, place_of_no_channel_is_stale, .timeout = WATCHDOG_S)
{
	objects o = make();
	void *block = nullptr;

	cr_assert_eq(ch_pool_alloc(o.pool, 100, CH_TRY, &block), 0);
	for (uint64_t offset : { o.good.offset + 1, uint64_t{ 0 }, uint64_t{ 1 } << 20, UINT64_MAX, UINT64_MAX / 32 }) {
		descr d = o.good;

		d.offset = offset;
		if (offset != o.good.offset)
			assert_refused(d, -ESTALE);
	}
	ch_pool_destroy(o.pool);
}

Test(descr_unit, unknown_segment_is_stale, .timeout = WATCHDOG_S)
{
	objects o = make();

	o.good.segment ^= 4;
	assert_refused(o.good, -ESTALE);
	ch_pool_destroy(o.pool);
}

Test(descr_unit, unknown_kinds_are_refused_whatever_the_checksum, .timeout = WATCHDOG_S)
{
	objects o = make();

	for (uint8_t kind : std::initializer_list<uint8_t>{ 0, CH_DESCR_KINDS, 255 }) {
		o.good.kind = kind;
		assert_refused(o.good, -EPROTO);
	}
	ch_pool_destroy(o.pool);
}

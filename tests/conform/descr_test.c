/* SPDX-License-Identifier: Apache-2.0 */
/* descr.h: descriptors to and from bytes and text; a damaged one is never believed. */
#include "../support/support.h"
#include <criterion/criterion.h>

TestSuite(descr, .timeout = WATCHDOG_S);

/* One channel in a pool in a segment, and the descriptors of all three. */
static struct ch_segment *seg;
static struct ch_pool *pool;
static struct ch_channel *ch;
static struct ch_descr descr[3];
static const int kind[3] = { CH_DESCR_SEGMENT, CH_DESCR_POOL, CH_DESCR_CHANNEL };

static void setup(void)
{
	struct ch_segment_attr sattr = CH_SEGMENT_ATTR_INIT;
	struct ch_pool_attr pattr = CH_POOL_ATTR_INIT;
	struct ch_channel_attr cattr = CH_CHANNEL_ATTR_INIT;

	sattr.len = 1 << 20;
	cattr.capacity = 4;
	cr_assert_eq(ch_segment_create(&sattr, &seg), 0, "%s", ch_errmsg());
	pattr.segment = seg;
	cr_assert_eq(ch_pool_create(&pattr, &pool), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_channel_create(pool, &cattr, &ch), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_segment_get_descr(seg, &descr[0]), 0);
	cr_assert_eq(ch_pool_get_descr(pool, &descr[1]), 0);
	cr_assert_eq(ch_channel_get_descr(ch, &descr[2]), 0);
}

static void teardown(void)
{
	ch_channel_destroy(ch);
	ch_pool_destroy(pool);
	ch_segment_destroy(seg);
}

/* What every function that takes a descriptor must say of this one. */
static void assert_refused(const struct ch_descr *d, const char *what, int where)
{
	struct ch_descr out;
	struct ch_segment *s = NULL;
	struct ch_pool *p = NULL;
	struct ch_channel *c = NULL;
	char text[CH_DESCR_TEXT_CAP];

	cr_assert_eq(ch_descr_kind(d), -EPROTO, "%s %d", what, where);
	cr_assert_eq(ch_descr_from_bytes(d->bytes, sizeof(d->bytes), &out), -EPROTO, "%s %d", what, where);
	cr_assert_eq(ch_descr_to_text(d, text, sizeof(text)), -EPROTO, "%s %d", what, where);
	cr_assert_eq(ch_segment_attach(d, &s), -EPROTO, "%s %d", what, where);
	cr_assert_eq(ch_pool_attach(d, &p), -EPROTO, "%s %d", what, where);
	cr_assert_eq(ch_channel_attach(d, &c), -EPROTO, "%s %d", what, where);
	cr_assert(s == NULL && p == NULL && c == NULL, "outputs are written only on success");
}

Test(descr, segment_pool_and_channel_say_their_kind, .init = setup, .fini = teardown)
{
	for (int i = 0; i < 3; i++)
		cr_assert_eq(ch_descr_kind(&descr[i]), kind[i]);
}

Test(descr, the_same_object_has_the_same_descriptor, .init = setup, .fini = teardown)
{
	struct ch_descr again;

	cr_assert_eq(ch_channel_get_descr(ch, &again), 0);
	cr_assert_arr_eq(again.bytes, descr[2].bytes, sizeof(again.bytes));
}

Test(descr, bytes_come_back_as_they_were, .init = setup, .fini = teardown)
{
	for (int i = 0; i < 3; i++) {
		unsigned char odd[65];
		struct ch_descr out;

		memcpy(odd + 1, descr[i].bytes, 64); /* from an unaligned place */
		cr_assert_eq(ch_descr_from_bytes(odd + 1, 64, &out), 0);
		cr_assert_arr_eq(out.bytes, descr[i].bytes, 64);
	}
}

Test(descr, text_comes_back_as_it_was, .init = setup, .fini = teardown)
{
	for (int i = 0; i < 3; i++) {
		char text[CH_DESCR_TEXT_CAP];
		struct ch_descr out;

		cr_assert_eq(ch_descr_to_text(&descr[i], text, sizeof(text)), 3 + 128);
		cr_assert_eq(strlen(text), 3 + 128);
		cr_assert_eq(strncmp(text, "ch:", 3), 0);
		cr_assert_eq(strspn(text + 3, "0123456789abcdefABCDEF"), 128);
		cr_assert_eq(ch_descr_from_text(text, &out), 0);
		cr_assert_arr_eq(out.bytes, descr[i].bytes, 64);
	}
}

Test(descr, every_flipped_bit_is_refused, .init = setup, .fini = teardown)
{
	for (int i = 0; i < 3; i++)
		for (int bit = 0; bit < 512; bit++) {
			struct ch_descr d = descr[i];

			d.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
			assert_refused(&d, "bit", bit);
		}
}

Test(descr, every_changed_byte_is_refused, .init = setup, .fini = teardown)
{
	for (int at = 0; at < 64; at++)
		for (int by = 1; by < 256; by++) {
			struct ch_descr d = descr[2];

			d.bytes[at] = (unsigned char)(d.bytes[at] + by);
			cr_assert_eq(ch_descr_kind(&d), -EPROTO, "byte %d", at);
		}
}

Test(descr, noise_is_refused, .init = setup, .fini = teardown)
{
	uint64_t seed = test_seed();
	struct ch_descr d;

	memset(&d, 0, sizeof(d));
	assert_refused(&d, "all zero", 0);
	memset(&d, 0xff, sizeof(d));
	assert_refused(&d, "all ones", 0);
	for (int i = 0; i < 1000; i++) {
		for (int k = 0; k < 64; k++)
			d.bytes[k] = (unsigned char)rnd(&seed);
		assert_refused(&d, "noise", i);
	}
}

Test(descr, wrong_number_of_bytes_is_refused, .init = setup, .fini = teardown)
{
	unsigned char bytes[128] = { 0 };
	struct ch_descr out;

	memcpy(bytes, descr[2].bytes, 64);
	for (size_t len = 0; len <= sizeof(bytes); len++)
		cr_assert_eq(ch_descr_from_bytes(bytes, len, &out), len == 64 ? 0 : -EPROTO, "%zu bytes", len);
}

Test(descr, every_changed_character_is_refused, .init = setup, .fini = teardown)
{
	char good[CH_DESCR_TEXT_CAP], bad[CH_DESCR_TEXT_CAP];
	struct ch_descr out;

	cr_assert_gt(ch_descr_to_text(&descr[2], good, sizeof(good)), 0);
	for (size_t i = 0; i < strlen(good); i++)
		for (const char *c = "0f gG:\n-"; *c; c++) {
			memcpy(bad, good, sizeof(bad));
			bad[i] = *c;
			if (good[i] != *c)
				cr_assert_eq(ch_descr_from_text(bad, &out), -EPROTO, "%s", bad);
		}
}

Test(descr, shorter_and_longer_text_is_refused, .init = setup, .fini = teardown)
{
	char text[CH_DESCR_TEXT_CAP + 8];
	struct ch_descr out;
	int len = ch_descr_to_text(&descr[2], text, sizeof(text));

	cr_assert_gt(len, 0);
	text[len] = '0';
	text[len + 1] = '\0';
	cr_assert_eq(ch_descr_from_text(text, &out), -EPROTO);
	text[len] = '\n';
	cr_assert_eq(ch_descr_from_text(text, &out), -EPROTO);
	for (int n = len - 1; n >= 0; n--) {
		text[n] = '\0';
		cr_assert_eq(ch_descr_from_text(text, &out), -EPROTO, "%d characters", n);
	}
}

Test(descr, text_needs_room_for_its_end, .init = setup, .fini = teardown)
{
	char text[CH_DESCR_TEXT_CAP];

	for (size_t cap = 0; cap < 132; cap++) {
		memset(text, 'x', sizeof(text));
		cr_assert_eq(ch_descr_to_text(&descr[2], text, cap), -ENOBUFS, "cap %zu", cap);
		for (size_t i = 0; i < sizeof(text); i++)
			cr_assert_eq(text[i], 'x', "written to with cap %zu", cap);
	}
	cr_assert_eq(ch_descr_to_text(&descr[2], text, 132), 131);
}

Test(descr, outputs_are_written_only_on_success)
{
	struct ch_descr out;
	unsigned char bytes[64] = { 0 };

	memset(&out, 'x', sizeof(out));
	cr_assert_eq(ch_descr_from_bytes(bytes, 64, &out), -EPROTO);
	cr_assert_eq(ch_descr_from_text("ch:00", &out), -EPROTO);
	for (size_t i = 0; i < sizeof(out); i++)
		cr_assert_eq(out.bytes[i], 'x');
}

Test(descr, null_is_invalid, .init = setup, .fini = teardown)
{
	char text[CH_DESCR_TEXT_CAP];
	struct ch_descr out;

	cr_assert_eq(ch_descr_kind(NULL), -EINVAL);
	cr_assert_eq(ch_descr_from_bytes(NULL, 64, &out), -EINVAL);
	cr_assert_eq(ch_descr_from_bytes(descr[0].bytes, 64, NULL), -EINVAL);
	cr_assert_eq(ch_descr_to_text(NULL, text, sizeof(text)), -EINVAL);
	cr_assert_eq(ch_descr_to_text(&descr[0], NULL, sizeof(text)), -EINVAL);
	cr_assert_eq(ch_descr_from_text(NULL, &out), -EINVAL);
	cr_assert_eq(ch_descr_from_text("ch:", NULL), -EINVAL);
	cr_assert_eq(ch_segment_get_descr(NULL, &out), -EINVAL);
	cr_assert_eq(ch_segment_get_descr(seg, NULL), -EINVAL);
	cr_assert_eq(ch_pool_get_descr(NULL, &out), -EINVAL);
	cr_assert_eq(ch_pool_get_descr(pool, NULL), -EINVAL);
	cr_assert_eq(ch_channel_get_descr(NULL, &out), -EINVAL);
	cr_assert_eq(ch_channel_get_descr(ch, NULL), -EINVAL);
}

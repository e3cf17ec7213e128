/* SPDX-License-Identifier: Apache-2.0 */
/*
 * descr_fuzz.cpp - descriptors from anybody: as bytes, as text, damaged, spliced of two good ones. None may be believed
 * that was not given out, none may crash, and what is accepted must survive the way to text and back.
 */
#include "../support/support.h"

namespace {

struct objects {
	struct ch_pool *pool;
	struct ch_channel *ch;
	struct ch_descr descr[2];
};

void require(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "descr_fuzz: %s\n", what);
	abort();
}

objects make()
{
	objects o = {};

	o.pool = pool_of(256 << 10);
	require(o.pool && ch_channel_create(o.pool, nullptr, &o.ch) == 0, "no channel");
	ch_pool_get_descr(o.pool, &o.descr[0]);
	ch_channel_get_descr(o.ch, &o.descr[1]);
	return o;
}

bool is_known(const objects &o, const struct ch_descr &d)
{
	return !memcmp(&d, &o.descr[0], sizeof(d)) || !memcmp(&d, &o.descr[1], sizeof(d));
}

void try_text(const char *text)
{
	struct ch_descr d, again;
	char out[CH_DESCR_TEXT_CAP];

	if (ch_descr_from_text(text, &d) < 0)
		return;
	require(ch_descr_kind(&d) > 0, "text was accepted, its kind is not");
	require(ch_descr_to_text(&d, out, sizeof(out)) > 0, "no way back to text");
	require(ch_descr_from_text(out, &again) == 0 && !memcmp(&d, &again, sizeof(d)), "text changed on the way");
}

void try_attach(const objects &o, const struct ch_descr &d)
{
	struct ch_segment *seg = nullptr;
	struct ch_pool *pool = nullptr;
	struct ch_channel *ch = nullptr;
	const bool known = is_known(o, d);

	require(ch_segment_attach(&d, &seg) < 0 || known, "a segment by a descriptor that nobody gave out");
	require(ch_pool_attach(&d, &pool) < 0 || known, "a pool by a descriptor that nobody gave out");
	require(ch_channel_attach(&d, &ch) < 0 || known, "a channel by a descriptor that nobody gave out");
	ch_channel_detach(ch);
	ch_pool_detach(pool);
	ch_segment_detach(seg);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const objects o = make();
	static const int at_exit = atexit([] { ch_pool_destroy(o.pool); });
	char text[1025] = {};
	struct ch_descr d;

	(void)at_exit;
	if (size) /* without, there may be no data */
		memcpy(text, data, size < 1024 ? size : 1024);
	try_text(text);
	memcpy(text, "ch:", 3);
	try_text(text);
	require(ch_descr_from_bytes(data, size, &d) < 0 || size == 64, "not 64 bytes");
	for (size_t i = 0; i + 1 < size; i += 2) { /* each pair of bytes damages good ones in one more place */
		if (i % 16 == 0)
			d = o.descr[i / 16 % 2];
		if (data[i] % 5 == 0) /* a field of the other */
			memcpy(d.bytes + data[i] % 8 * 8, o.descr[data[i + 1] % 2].bytes + data[i] % 8 * 8, 8);
		else
			d.bytes[data[i] % 64] ^= data[i + 1];
		try_attach(o, d);
	}
	return 0;
}

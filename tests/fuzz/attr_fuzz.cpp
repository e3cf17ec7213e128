/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attr_fuzz.cpp - attribute structs of every size with any bytes in them. A create function takes one or refuses it with a
 * documented code, reads no byte beyond its size, and writes its output only on success.
 *
 * Input: which struct, its size in two bytes, its bytes. Pointers in them point to something.
 */
#include "hostile.h"
#include <cstdlib>

namespace {

struct input {
	const uint8_t *bytes;
	size_t left;

	uint8_t byte()
	{
		return left ? left--, *bytes++ : 0;
	}
};

/* A struct of exactly that many bytes, so that the address sanitizer knows its end. */
struct attr_bytes {
	uint8_t *at;
	size_t len;

	attr_bytes(input &in, size_t known)
	{
		const size_t say = in.byte() | static_cast<size_t>(in.byte() % 3) << 8;
		const uint32_t size = static_cast<uint32_t>(say % 2 ? say / 2 : known);

		len = size < 4 ? 4 : size;
		at = static_cast<uint8_t *>(calloc(1, len));
		memcpy(at, &size, 4);
		for (size_t i = 4; i < len && in.left; i++)
			at[i] = in.byte();
	}
	~attr_bytes() { free(at); }
	attr_bytes(const attr_bytes &) = delete;
	attr_bytes &operator=(const attr_bytes &) = delete;

	/* Puts value at off, if the struct is so long and has something else than 0 there. A part of a pointer is none. */
	template <class T> void replace(size_t off, T value)
	{
		T zero{}, old{};

		if (off + sizeof(T) > len) {
			if (off < len)
				memset(at + off, 0, len - off);
			return;
		}
		memcpy(&old, at + off, sizeof(T));
		if (memcmp(&old, &zero, sizeof(T)))
			memcpy(at + off, &value, sizeof(T));
	}
	/* Memory is made, or refused because it is far too much; nothing between. */
	void limit(size_t off)
	{
		uint64_t v = 0;

		if (off + sizeof(v) > len)
			return;
		memcpy(&v, at + off, sizeof(v));
		v = v % 2 ? v | uint64_t{ 1 } << 50 : v % (1 << 20);
		memcpy(at + off, &v, sizeof(v));
	}
};

struct ch_pool *pool()
{
	static struct ch_pool *p = pool_of(1 << 20);
	static const int at_exit = atexit([] { ch_pool_destroy(p); });

	(void)at_exit;
	require(p, "no pool");
	return p;
}

template <class Attr, class T>
void in_pool(input &in, int (*create)(struct ch_pool *, const Attr *, T **), void (*destroy)(T *))
{
	const attr_bytes a(in, sizeof(Attr));
	T *out = nullptr;
	const int err = create(pool(), reinterpret_cast<const Attr *>(a.at), &out);

	allowed(err, "create");
	require((err == 0) == (out != nullptr), "an output without success");
	destroy(out);
}

void segments(input &in)
{
	static const char *const names[] = { "fuzz", "", "a/b", "..", "fuzz.2", "x y" };
	attr_bytes a(in, sizeof(struct ch_segment_attr));
	struct ch_segment *seg = nullptr;

	a.limit(offsetof(struct ch_segment_attr, len));
	a.replace(offsetof(struct ch_segment_attr, name), names[in.byte() % 6]);
	const int err = ch_segment_create(reinterpret_cast<const struct ch_segment_attr *>(a.at), &seg);
	allowed(err, "segment create");
	require((err == 0) == (seg != nullptr), "an output without success");
	ch_segment_destroy(seg);
}

void pools(input &in)
{
	attr_bytes a(in, sizeof(struct ch_pool_attr));
	struct ch_segment *seg = nullptr;
	struct ch_pool *p = nullptr;

	a.limit(offsetof(struct ch_pool_attr, len));
	a.limit(offsetof(struct ch_pool_attr, max_len));
	if (in.byte() % 2) {
		struct ch_segment_attr sattr = CH_SEGMENT_ATTR_INIT;
		sattr.len = 128 << 10;
		require(ch_segment_create(&sattr, &seg) == 0, "no segment");
	}
	a.replace(offsetof(struct ch_pool_attr, segment), seg);
	const int err = ch_pool_create(reinterpret_cast<const struct ch_pool_attr *>(a.at), &p);
	allowed(err, "pool create");
	require((err == 0) == (p != nullptr), "an output without success");
	ch_pool_destroy(p);
	ch_segment_destroy(seg);
}

void sends(input &in)
{
	static struct ch_channel *ch;
	const attr_bytes a(in, sizeof(struct ch_send_attr));

	if (!ch)
		require(ch_channel_create(pool(), nullptr, &ch) == 0, "no channel");
	allowed(ch_channel_send_attr(ch, "", 1, reinterpret_cast<const struct ch_send_attr *>(a.at), CH_TRY), "send attr");
	allowed(ch_channel_drain(ch), "drain");
}

void sets(input &in)
{
	const attr_bytes a(in, sizeof(struct ch_pollset_attr));
	struct ch_pollset *set = nullptr;
	const int err = ch_pollset_create(reinterpret_cast<const struct ch_pollset_attr *>(a.at), &set);

	allowed(err, "poll set create");
	require((err == 0) == (set != nullptr), "an output without success");
	ch_pollset_destroy(set);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	input in{ data, size };

	switch (in.byte() % 12) {
	case 0: segments(in); break;
	case 1: pools(in); break;
	case 2: sends(in); break;
	case 3: sets(in); break;
	case 4: in_pool(in, ch_stream_port_create, ch_stream_port_destroy); break;
	case 5: in_pool(in, ch_mutex_create, ch_mutex_destroy); break;
	case 6: in_pool(in, ch_rwlock_create, ch_rwlock_destroy); break;
	case 7: in_pool(in, ch_semaphore_create, ch_semaphore_destroy); break;
	case 8: in_pool(in, ch_event_create, ch_event_destroy); break;
	case 9: in_pool(in, ch_condition_create, ch_condition_destroy); break;
	case 10: in_pool(in, ch_barrier_create, ch_barrier_destroy); break;
	default: in_pool(in, ch_channel_create, ch_channel_destroy);
	}
	return 0;
}

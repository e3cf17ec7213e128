// SPDX-License-Identifier: Apache-2.0
// share.cpp - blocks that several processes hold to read.
//
// A share is an object (object.h) that names a block of the pool. Who holds the block is who is attached to the object:
// one bit for each process, which its sweeper takes away if it dies; how many views a process has is its own business.
// So no count in shared memory can be leaked. A share ends with the last process that is attached, and its
// last deed is to free the block:
//   1. the object is made, and its creator attached                 block OWNED(creator)
//   2. OWNED(creator) -> SHARED                                      now the object alone frees it
//   3. nobody is attached: OBJECT -> DYING -> FINAL(p)               by whoever sees it, a sweeper included
//   4. SHARED -> FREE, if it is still this block, tag and all        by p, or by who takes over from a dead p
// A creator that dies between 1 and 2 leaves both to its sweeper: the block is its own still and is freed; the
// object then finds another tag or state, and frees only itself.
#include "config.h"
#include "crash.h"
#include "event.h"
#include "object.h"
#include <cerrno>
#include <channels/block.h>

struct ch_view : ch_object {
	ch::core::block_place shown{};
	ch::core::u64 off = 0, len = 0;
};

namespace ch::core {

static const share_header *header_of(const block_place &b) noexcept
{
	return reinterpret_cast<const share_header *>(b.addr);
}

static bool is_sound(u8 *, u64 len, u32 max_peers) noexcept
{
	return len >= sizeof(share_header) + object_bits_bytes(max_peers);
}

static bool open_view(ch_object *o) noexcept
{
	ch_view *v = static_cast<ch_view *>(o);
	const share_header h = *header_of(o->block); // once

	if (!block_find(o->pool->map, h.index, v->shown) || h.len > v->shown.len)
		return false;
	const u64 w = v->shown.word->load(acquire); // [B2] pairs with [B1]
	if (block_tag(w) != h.tag || block_state_of(w) != B_SHARED)
		return false;
	if (v->len == 0)
		v->len = h.len;
	return true;
}

static void free_shown(ch_segment *seg, const block_place &b, u32) noexcept
{
	const share_header h = *header_of(b); // once
	block_place shown;
	u64 w = block_word(h.tag, B_SHARED, NOBODY);

	if (!block_find(seg->pool.map, h.index, shown))
		return;
	shown.word->compare_exchange_strong(w, block_word(h.tag, B_FREE, NOBODY), release, relaxed); // [B1] pairs with [B2]
	CH_CRASH_POINT(share_freed);
	event_notify(seg->pool.hdr->freed, EVERYBODY);
}

static void nothing(ch_segment *, u32, const block_place &) noexcept {} // nobody waits for a share

const object_kind share_kind = {
	.id = CH_DESCR_VIEW,
	.name = "view",
	.header_len = sizeof(share_header),
	.is_sound = is_sound,
	.open = open_view,
	.end = nothing,
	.wake = nothing,
	.sweep = nullptr,
	.leave = nullptr,
	.drain = free_shown,
	.ends_with_last = true,
};

} // namespace ch::core

using namespace ch::core;

int ch_view_create(struct ch_pool *pool, void *addr, size_t len, struct ch_view **out_view)
{
	ch_view *v = nullptr;
	block_place b;
	const int me = pool_own_block(pool, addr, b);

	if (me < 0)
		return me;
	if (!out_view || len == 0 || len > b.len)
		return fail(-EINVAL, "view: %zu bytes are not within the block", len);
	const u64 tag = block_tag(b.word->load(relaxed)); // ours
	const int rc = object_create(
		pool, share_kind, false, &v,
		[](u32 max_peers) { return sizeof(share_header) + object_bits_bytes(max_peers); },
		[&](ch_view &view) {
			share_header *h = reinterpret_cast<share_header *>(view.block.addr);
			h->index = b.index;
			h->tag = tag;
			h->len = len;
			view.shown = b;
			view.len = len;
		});
	if (rc < 0)
		return rc;
	b.word->store(block_word(tag, B_SHARED, NOBODY), release); // [B1] pairs with [B2]: the bytes are whole
	CH_CRASH_POINT(share_made);
	*out_view = v;
	return 0;
}

int ch_view_attach(const struct ch_descr *descr, struct ch_view **out_view)
{
	return object_attach(descr, share_kind, out_view);
}

int ch_view_clone(struct ch_view *view, size_t off, size_t len, struct ch_view **out_view)
{
	registry_lock lock;
	const int rc = view ? object_me(view) : fail(-EINVAL, "view: NULL");

	if (rc < 0)
		return rc;
	if (!out_view || len == 0 || off > view->len || len > view->len - off)
		return fail(-EINVAL, "view: bytes %zu to %zu are not within %llu", off, off + len,
			    static_cast<unsigned long long>(view->len));
	ch_view *v = new (std::nothrow) ch_view;
	if (!v)
		return fail(-ENOMEM, "view: no memory for the handle");
	object_clone(view, v);
	v->shown = view->shown;
	v->off = view->off + off;
	v->len = len;
	*out_view = v;
	return 0;
}

void ch_view_detach(struct ch_view *view)
{
	object_detach(view);
}

const void *ch_view_addr(struct ch_view *view)
{
	return view && object_me(view) > 0 ? view->shown.addr + view->off : nullptr;
}

size_t ch_view_len(const struct ch_view *view)
{
	return view ? view->len : 0;
}

int ch_view_count(struct ch_view *view)
{
	const int rc = view ? object_me(view) : fail(-EINVAL, "view: NULL");
	int n = 0;

	if (rc < 0)
		return rc;
	for (u32 i = 0; i <= view->pool->seg->max_peers / 64; i++) // a picture of a moment
		n += __builtin_popcountll(object_bits(share_kind, view->block.addr)[i].load(relaxed));
	return n;
}

int ch_view_get_descr(const struct ch_view *view, struct ch_descr *out_descr)
{
	return object_get_descr(view, out_descr);
}

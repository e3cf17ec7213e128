// SPDX-License-Identifier: Apache-2.0
// cabi_keys.cpp - the C functions that work on keys and values.
#include "cabi.hpp"

using namespace ch::dd;
using ch::ddict_core;

struct ch_ddict_cursor {
	ddict_core::cursor cursor;
	bool with_values;
};

struct ch_ddict_writer {
	ddict_core::writer writer;
};

int ch_ddict_put(ch_ddict *dict, const void *key, size_t klen, const void *value, size_t vlen,
		 const ch_ddict_put_attr *attr)
{
	return guarded(dict, [&] {
		const copied from{span(value, vlen)};

		dict->core.put(span(key, klen), vlen, from, put_of(attr));
		return 0;
	});
}

int ch_ddict_put_if_absent(ch_ddict *dict, const void *key, size_t klen, const void *value, size_t vlen,
			   const ch_ddict_put_attr *attr)
{
	return guarded(dict, [&] {
		const copied from{span(value, vlen)};

		return static_cast<int>(dict->core.put_if_absent(span(key, klen), vlen, from, put_of(attr)));
	});
}

int ch_ddict_compare_and_set(ch_ddict *dict, const void *key, size_t klen, const void *expected, size_t expected_len,
			     const void *value, size_t vlen)
{
	return guarded(dict, [&] {
		const copied from{span(value, vlen)};

		return static_cast<int>(
			dict->core.compare_and_set(span(key, klen), span(expected, expected_len), vlen, from));
	});
}

// A value that is too long is not written at all: the caller asks again.
static ssize_t get_with(ch_ddict *dict, void *buf, size_t cap,
			bool (ddict_core::*get)(ddict_core::bytes, ddict_core::value_reader) const, const void *key,
			size_t klen)
{
	return guarded(dict && (buf || !cap), [&] {
		into to{buf, cap};
		const auto sink = [&](ddict_core::bytes v) {
			if (v.size() > cap)
				to.len = v.size();
			else
				to(v);
		};

		return fitting((dict->core.*get)(span(key, klen), sink), to);
	});
}

ssize_t ch_ddict_get(ch_ddict *dict, const void *key, size_t klen, void *buf, size_t cap)
{
	return get_with(dict, buf, cap, &ddict_core::get, key, klen);
}

ssize_t ch_ddict_get_anywhere(ch_ddict *dict, const void *key, size_t klen, void *buf, size_t cap)
{
	return get_with(dict, buf, cap, &ddict_core::get_anywhere, key, klen);
}

ssize_t ch_ddict_pop(ch_ddict *dict, const void *key, size_t klen, void *buf, size_t cap)
{
	return guarded(dict && (buf || !cap), [&]() -> ssize_t {
		into to{buf, cap};

		if (!dict->core.pop(span(key, klen), to))
			return failed(ENOENT, "ddict: no such key");
		return static_cast<ssize_t>(to.len);
	});
}

ssize_t ch_ddict_pop_item(ch_ddict *dict, void *key, size_t kcap, size_t *out_klen, void *buf, size_t cap)
{
	return guarded(dict && (key || !kcap) && out_klen && (buf || !cap), [&]() -> ssize_t {
		ddict_core::cursor all(dict->core, false);

		while (all.next()) {
			into to{buf, cap};

			if (all.key().size() > kcap)
				return failed(ENOBUFS, "ddict: the key is longer than its buffer");
			if (!dict->core.pop(all.key(), to))
				continue; // somebody else had it
			*out_klen = all.key().size();
			copied{all.key()}({static_cast<std::byte *>(key), kcap});
			return static_cast<ssize_t>(to.len);
		}
		return failed(ENOENT, "ddict: there is no key");
	});
}

int ch_ddict_reset_stats(ch_ddict *dict)
{
	return guarded(dict, [&] {
		dict->core.reset_stats();
		return 0;
	});
}

int ch_ddict_contains(ch_ddict *dict, const void *key, size_t klen)
{
	return guarded(dict, [&] { return static_cast<int>(dict->core.contains(span(key, klen))); });
}

int ch_ddict_erase(ch_ddict *dict, const void *key, size_t klen)
{
	return guarded(dict, [&] { return static_cast<int>(dict->core.erase(span(key, klen))); });
}

ssize_t ch_ddict_append(ch_ddict *dict, const void *key, size_t klen, const void *more, size_t len)
{
	return guarded(dict, [&] { return static_cast<ssize_t>(dict->core.append(span(key, klen), span(more, len))); });
}

template <class T> static int fetch_add(ch_ddict *dict, const void *key, size_t klen, T delta, T *out_old)
{
	return guarded(dict && out_old, [&] {
		std::uint64_t bits;

		std::memcpy(&bits, &delta, sizeof(bits));
		bits = dict->core.fetch_add(span(key, klen), ch::ddict_number_of<T>, bits);
		std::memcpy(out_old, &bits, sizeof(bits));
		return 0;
	});
}

int ch_ddict_fetch_add_i64(ch_ddict *dict, const void *key, size_t klen, int64_t delta, int64_t *out_old)
{
	return fetch_add(dict, key, klen, delta, out_old);
}

int ch_ddict_fetch_add_f64(ch_ddict *dict, const void *key, size_t klen, double delta, double *out_old)
{
	return fetch_add(dict, key, klen, delta, out_old);
}

int ch_ddict_wait_for(ch_ddict *dict, const void *key, size_t klen, const void *value, size_t vlen)
{
	return guarded(dict, [&] {
		if (value)
			dict->core.wait_for(span(key, klen), span(value, vlen));
		else
			dict->core.wait_for(span(key, klen));
		return 0;
	});
}

int ch_ddict_put_everywhere(ch_ddict *dict, const void *key, size_t klen, const void *value, size_t vlen,
			    const ch_ddict_put_attr *attr)
{
	return guarded(dict, [&] {
		const copied from{span(value, vlen)};

		dict->core.put_everywhere(span(key, klen), vlen, from, put_of(attr));
		return 0;
	});
}

int ch_ddict_get_view(ch_ddict *dict, const void *key, size_t klen, struct ch_ddict_view **out_view)
{
	return guarded(dict && out_view, [&] {
		std::optional<ch::ddict_view> v = dict->core.view(span(key, klen));

		if (!v)
			return failed(ENOENT, "ddict: no such key");
		*out_view = new ch_ddict_view{std::move(*v)};
		return 0;
	});
}

const void *ch_ddict_view_data(const struct ch_ddict_view *view)
{
	return view ? view->view.data().data() : nullptr;
}

size_t ch_ddict_view_len(const struct ch_ddict_view *view)
{
	return view ? view->view.size() : 0;
}

void ch_ddict_view_release(struct ch_ddict_view *view)
{
	delete view;
}

int ch_ddict_put_many(ch_ddict *dict, const ch_ddict_item *items, size_t nr, const ch_ddict_put_attr *attr)
{
	return guarded(dict && (items || !nr), [&] {
		ddict_core::put_batch batch(dict->core, put_of(attr));

		for (size_t i = 0; i < nr; i++) {
			const copied from{span(items[i].value, items[i].vlen)};

			batch.add(span(items[i].key, items[i].klen), items[i].vlen, from);
		}
		batch.finish();
		return 0;
	});
}

int ch_ddict_get_many(ch_ddict *dict, const ch_ddict_item *items, size_t nr,
		      void (*found)(void *arg, size_t i, const void *value, size_t vlen), void *arg)
{
	return guarded(dict && (items || !nr) && found, [&] {
		std::vector<ddict_core::bytes> keys;
		const auto sink = [&](std::size_t i, const ddict_core::bytes *v) {
			static const char empty = 0; // an empty value is not NULL

			found(arg, i,
			      !v          ? nullptr
			      : v->data() ? static_cast<const void *>(v->data())
					  : &empty,
			      v ? v->size() : 0);
		};

		for (size_t i = 0; i < nr; i++)
			keys.push_back(span(items[i].key, items[i].klen));
		dict->core.get_many(keys, sink);
		return 0;
	});
}

int ch_ddict_cursor_open(ch_ddict *dict, const void *prefix, size_t plen, int with_values, ch_ddict_cursor **out_cursor)
{
	const ch_ddict_position begin{};

	return ch_ddict_cursor_open_at(dict, prefix, plen, with_values, &begin, out_cursor);
}

int ch_ddict_cursor_open_at(ch_ddict *dict, const void *prefix, size_t plen, int with_values,
			    const ch_ddict_position *from, ch_ddict_cursor **out_cursor)
{
	return guarded(dict && from && out_cursor, [&] {
		*out_cursor = new ch_ddict_cursor{ddict_core::cursor(dict->core, with_values != 0, span(prefix, plen),
								     {from->manager, from->slot}),
						  with_values != 0};
		return 0;
	});
}

int ch_ddict_cursor_get_position(const ch_ddict_cursor *cursor, ch_ddict_position *out_position)
{
	return guarded(cursor && out_position, [&] {
		const ch::ddict_position p = cursor->cursor.position();

		*out_position = {p.manager, p.slot};
		return 0;
	});
}

int ch_ddict_cursor_next(ch_ddict_cursor *cursor, ch_ddict_item *out_item)
{
	return guarded(cursor && out_item, [&] {
		if (!cursor->cursor.next())
			return 0;
		const ddict_core::bytes k = cursor->cursor.key();
		const ddict_core::bytes v = cursor->with_values ? cursor->cursor.value() : ddict_core::bytes();

		*out_item = {k.data(), k.size(), v.data(), v.size()};
		return 1;
	});
}

void ch_ddict_cursor_close(ch_ddict_cursor *cursor)
{
	delete cursor;
}

int ch_ddict_writer_open(ch_ddict *dict, const void *key, size_t klen, size_t expected_len,
			 ch_ddict_writer **out_writer)
{
	return guarded(dict && out_writer, [&] {
		*out_writer = new ch_ddict_writer{ddict_core::writer(dict->core, span(key, klen), expected_len)};
		return 0;
	});
}

int ch_ddict_writer_write(ch_ddict_writer *writer, const void *piece, size_t len)
{
	return guarded(writer, [&] {
		writer->writer.write(span(piece, len));
		return 0;
	});
}

int ch_ddict_writer_commit(ch_ddict_writer *writer, const ch_ddict_put_attr *attr)
{
	return guarded(writer, [&] {
		const std::unique_ptr<ch_ddict_writer> end(writer);

		writer->writer.commit(put_of(attr));
		return 0;
	});
}

void ch_ddict_writer_close(ch_ddict_writer *writer)
{
	delete writer;
}

// SPDX-License-Identifier: Apache-2.0
// visitors.hpp - the functions that ch::ddict runs next to the data, for filter, best, map and reduce.
//
// Each is instantiated for its callables, whose captures are its argument. Answers are records: how long, and bytes.
#pragma once
#include <channels/callable.hpp>
#include <ddict/codec.hpp>
#include <ddict/core.hpp>
#include <algorithm>
#include <utility>
#include <vector>

namespace ch::ddict_detail {

template <class... F> std::vector<std::byte> sent(const F &...f)
{
	return archive::to_bytes(archive::sent_callable<F>(f)...);
}

inline void put_record(ddict_visit &v, bytes b)
{
	const std::uint64_t len = b.size();

	v.answer(std::as_bytes(std::span(&len, 1)));
	v.answer(b);
}
inline bytes next_record(bytes &left)
{
	archive::reader r(left);
	const auto len = r.next<std::uint64_t>();

	if (len > r.left())
		throw archive_error("ddict: damaged answer");
	const bytes b = r.rest().first(len);

	left = r.rest().subspan(len);
	return b;
}
template <class A, class B> std::pair<A, B> next_pair(bytes &left)
{
	A a = ddict_codec<A>::read(next_record(left));

	return {std::move(a), ddict_codec<B>::read(next_record(left))};
}
template <class T> void put_value(ddict_visit &v, const T &t)
{
	put_record(v, encoded<T>(t));
}

inline void pass_on(ddict_visit &v)
{
	while (v.next_part())
		v.answer(v.part());
}

template <class K, class V, class F> void filter(ddict_visit &v, bytes arg)
{
	archive::reader r(arg);
	archive::arrived_callable<F> is_wanted(r);

	while (v.next())
		if (is_wanted.get()(ddict_codec<K>::read(v.key()), ddict_codec<V>::read(v.value()))) {
			put_record(v, v.key());
			put_record(v, v.value());
		}
	pass_on(v);
}

template <class K, class V, class R, class F> void map(ddict_visit &v, bytes arg)
{
	archive::reader r(arg);
	archive::arrived_callable<F> f(r);

	while (v.next()) {
		const R to = f.get()(ddict_codec<K>::read(v.key()), ddict_codec<V>::read(v.value()));

		put_record(v, v.key());
		put_value(v, to);
	}
	pass_on(v);
}

// Keeps those that come first of all that are added.
template <class Pair, class F> class shortlist {
public:
	shortlist(std::size_t most, F &comes_first) : most_(most), comes_first_(comes_first) {}
	void add(Pair &&p)
	{
		all_.push_back(std::move(p));
		if (all_.size() >= 2 * most_ + 64)
			cut();
	}
	const std::vector<Pair> &sorted()
	{
		cut();
		std::sort(all_.begin(), all_.end(), comes_first_);
		return all_;
	}

private:
	void cut()
	{
		if (all_.size() <= most_)
			return;
		const auto end = all_.begin() + static_cast<std::ptrdiff_t>(most_);

		std::nth_element(all_.begin(), end, all_.end(), comes_first_);
		all_.erase(end, all_.end());
	}
	std::size_t most_;
	F &comes_first_;
	std::vector<Pair> all_;
};

template <class K, class V, class F> void best(ddict_visit &v, bytes arg)
{
	archive::reader r(arg);
	const auto most = r.next<std::uint64_t>();
	archive::arrived_callable<F> f(r);
	shortlist<std::pair<K, V>, F> list(most, f.get());

	while (v.next())
		list.add({ddict_codec<K>::read(v.key()), ddict_codec<V>::read(v.value())});
	while (v.next_part())
		for (bytes left = v.part(); !left.empty();)
			list.add(next_pair<K, V>(left));
	for (const auto &[key, value] : list.sorted()) {
		put_value(v, key);
		put_value(v, value);
	}
}

template <class K, class V, class R, class F, class C> void reduce(ddict_visit &v, bytes arg)
{
	archive::reader r(arg);
	archive::arrived_callable<F> fold(r);
	archive::arrived_callable<C> combine(r);
	R so_far = ddict_codec<R>::read(r.rest());

	while (v.next())
		so_far = fold.get()(std::move(so_far), ddict_codec<K>::read(v.key()), ddict_codec<V>::read(v.value()));
	while (v.next_part())
		so_far = combine.get()(std::move(so_far), ddict_codec<R>::read(v.part()));
	v.answer(encoded<R>(so_far));
}

} // namespace ch::ddict_detail

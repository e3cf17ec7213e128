// SPDX-License-Identifier: Apache-2.0
// ddict_crew.cpp - a client of ddict_torture: what it does, and what it must find.
#include "ddict_crew.h"
#include <algorithm>

namespace dict_torture {

evidence *ev;
member *self;

namespace {

uint64_t rs;

std::size_t length_of(uint64_t n)
{
	const uint64_t x = n * 2654435761u >> 7;

	return sizeof(n) + (x % 3 ? x / 3 % 400 : x / 3 % (x % 2 ? 3000 : 150000));
}

} // namespace

std::string value_of(uint64_t n)
{
	std::string s(length_of(n), '\0');

	memcpy(s.data(), &n, sizeof(n));
	fill(s.data() + sizeof(n), s.size() - sizeof(n), n, s.size());
	return s;
}

static uint64_t number_of(std::string_view s)
{
	uint64_t n;

	MUST(s.size() >= sizeof(n));
	memcpy(&n, s.data(), sizeof(n));
	MUST(s.size() == length_of(n) && is_filled(s.data() + sizeof(n), s.size() - sizeof(n), n, s.size()));
	return n;
}

client::client(member &me, const round_of &r)
    : me_(me), round_(r), d_(text_dict::attach(ch::descriptor{ev->descr})), numbers_(d_.core())
{
	std::fill_n(is_lost_, NR_KEYS, r.loses()); // a predecessor was told
	for (unsigned k = 0; k < NR_KEYS; k++)
		settle(k);
	for (unsigned c = 0; c < NR_COUNTERS && r.counts(); c++)
		settle_counter(c);
}

// Whether this error ends the operation on this key; else it is tried again.
bool client::is_over(uint64_t key, const ch::error &e)
{
	const int err = e.code().value();

	if (err == ENOSPC && round_.may_evict)
		return true;
	if (err != EOWNERDEAD || !round_.loses())
		fprintf(stderr, "client %d: key %llu: %s\n", getpid(), (unsigned long long)key, e.what());
	MUST(err == EOWNERDEAD && round_.loses());
	ev->told++;
	for (unsigned i = 0; i < NR_KEYS; i++)
		is_lost_[i] = is_lost_[i] || d_.which_manager(key_of(me_, i)) == d_.which_manager(key);
	return false;
}

// Runs f, an operation on this key. False if there was no room.
template <class F> bool client::on(uint64_t key, F &&f)
{
	for (;;) {
		try {
			f();
			return true;
		} catch (const ch::error &e) {
			if (is_over(key, e))
				return false;
		}
	}
}

// The next value's number, noted.
uint64_t client::begin(unsigned k)
{
	const uint64_t n = me_.keys[k].acked + 1;

	return me_.keys[k].begun = round_.loses() && is_gone(n) ? n + 1 : n;
}

// Reads an own key: it has what was acknowledged, or what was begun and had no answer. From then on that is its value.
void client::settle(unsigned k)
{
	record &r = me_.keys[k];
	const uint64_t key = key_of(me_, k), a = r.acked, b = r.begun;
	std::optional<std::string> v;

	on(key, [&] { v = d_.try_get(key); });
	if (v) {
		const uint64_t n = number_of(*v);

		if (n != a && n != b)
			fprintf(stderr, "key %llu has %llu, not %llu or %llu\n", (unsigned long long)key,
				(unsigned long long)n, (unsigned long long)a, (unsigned long long)b);
		MUST(n == a || n == b);
		r.begun = n;
		r.acked = n;
		return;
	}
	if (!is_gone(a) && !is_gone(b) && !round_.may_evict && !is_lost_[k])
		fprintf(stderr, "key %llu is gone, it had %llu or %llu\n", (unsigned long long)key,
			(unsigned long long)a, (unsigned long long)b);
	MUST(is_gone(a) || is_gone(b) || round_.may_evict || is_lost_[k]);
	r.begun = r.acked = is_gone(a) && !round_.may_evict ? a : b;
	if (round_.loses()) // every key is there nearly always
		change(k);
}

void client::settle_counter(unsigned c)
{
	record &r = me_.counters[c];
	const uint64_t n = numbers_.get_or(key_of(me_, FIRST_COUNTER + c), 0);

	MUST(n == r.acked || n == r.begun);
	r.begun = n;
	r.acked = n;
}

// Each addition counts once, also if a manager died and the call was repeated.
void client::count(unsigned c)
{
	record &r = me_.counters[c];

	r.begun = r.acked + 1;
	MUST(numbers_.fetch_add(key_of(me_, FIRST_COUNTER + c), 1) == r.acked);
	r.acked = r.begun.load();
}

void client::remove(unsigned k)
{
	const uint64_t key = key_of(me_, k);

	if (rnd(&rs) % 2)
		return void(d_.erase(key));
	try {
		d_.pop(key);
	} catch (const ch::error &e) {
		// With replicas: it was done, and what it took is gone with the manager.
		if (e.code().value() != EOWNERDEAD || round_.how.replicas < 2)
			throw;
	}
}

void client::write_in_pieces(unsigned k, uint64_t n)
{
	const uint64_t key = key_of(me_, k);
	const std::string v = value_of(n);
	ch::ddict_core::writer w(d_.core(), std::as_bytes(std::span(&key, 1)), rnd(&rs) % 2 ? v.size() : 0);

	for (std::size_t at = 0, len; at < v.size(); at += len) {
		len = std::min<std::size_t>(v.size() - at, 1 + rnd(&rs) % 40000);
		w.write(std::as_bytes(std::span(v.data() + at, len)));
	}
	w.commit();
}

// The key's next value.
void client::change(unsigned k)
{
	const uint64_t key = key_of(me_, k), n = begin(k);
	const bool is_done = on(key, [&] {
		if (is_gone(n))
			remove(k);
		else if (rnd(&rs) % 8 == 0 && !round_.kills_managers)
			write_in_pieces(k, n);
		else
			d_.put(key, value_of(n));
	});

	if (!is_done)
		return settle(k);
	is_lost_[k] = is_lost_[k] && is_gone(n);
	done(k);
}

void client::change_many()
{
	std::vector<std::pair<uint64_t, std::string>> many;
	std::vector<uint64_t> keys;

	for (unsigned k = 0; k < NR_KEYS; k++) {
		keys.push_back(key_of(me_, k));
		if (rnd(&rs) % 2 && !is_gone(me_.keys[k].acked + 1))
			many.emplace_back(keys[k], value_of(begin(k)));
	}
	d_.put_many(many);
	for (unsigned k = 0; k < NR_KEYS; k++)
		done(k);
	const auto got = d_.get_many(keys);

	for (unsigned k = 0; k < NR_KEYS; k++)
		MUST(got[k] ? number_of(*got[k]) == me_.keys[k].acked : is_gone(me_.keys[k].acked));
}

void client::change_ahead()
{
	std::vector<ch::ddict_future<void>> puts;
	std::vector<ch::ddict_future<bool>> erasures;

	for (unsigned k = 0; k < NR_KEYS; k++) {
		const uint64_t n = begin(k);

		if (is_gone(n))
			erasures.push_back(d_.erase_async(key_of(me_, k)));
		else
			puts.push_back(d_.put_async(key_of(me_, k), value_of(n)));
	}
	for (auto &p : puts)
		p.get();
	for (auto &e : erasures)
		e.get();
	for (unsigned k = 0; k < NR_KEYS; k++)
		done(k);
}

// Somebody's key: what it had when the call began, or anything it was given since.
void client::look_at_others()
{
	const member &who = ev->crew[rnd(&rs) % MAX_CREW];
	const auto k = static_cast<unsigned>(rnd(&rs) % NR_KEYS);
	const uint64_t key = key_of(who, k), first = who.keys[k].acked;
	std::optional<std::string> v;

	on(key, [&] { v = d_.try_get(key); });
	const uint64_t last = who.keys[k].begun, n = v ? number_of(*v) : last / 8 * 8;

	// A number may have been taken back by a successor, which found that it had not been put.
	MUST((n >= first && n <= last + 2) || round_.may_evict || (!v && round_.loses()));
}

void client::look_in_place()
{
	const member &who = ev->crew[rnd(&rs) % MAX_CREW];

	for (const ch::ddict_view &v : views_)
		number_of(v.text());
	if (views_.size() == NR_VIEWS)
		views_.erase(views_.begin());
	if (auto v = d_.view(key_of(who, static_cast<unsigned>(rnd(&rs) % NR_KEYS))))
		views_.push_back(std::move(*v));
}

void client::walk()
{
	for (const auto &[key, value] : d_)
		if (key % 100 < FIRST_COUNTER)
			number_of(value);
	MUST(d_.stats().size() == d_.managers());
}

// What a manager's death ends with an error, or a dead manager's memory shows, is done where none is killed.
void client::step()
{
	const auto k = static_cast<unsigned>(rnd(&rs) % NR_KEYS);
	const uint64_t what = rnd(&rs) % 100;

	me_.nr_done++;
	if (what < 10)
		return look_at_others();
	if (what < 20 && round_.counts())
		return count(k % NR_COUNTERS);
	if (what < 50 || round_.kills_managers) {
		settle(k);
		return change(k);
	}
	if (what < 65)
		return change_ahead();
	if (what < 80)
		return change_many();
	if (what < 98)
		return look_in_place();
	walk();
}

[[noreturn]] void play(member &m, const round_of &r)
{
	self = &m;
	rs = m.seed;
	try {
		for (client c(m, r);;)
			c.step();
	} catch (const std::exception &e) {
		fprintf(stderr, "client %d: %s\n", getpid(), e.what());
	}
	ev->bad++;
	_exit(1);
}

} // namespace dict_torture

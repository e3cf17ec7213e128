// SPDX-License-Identifier: Apache-2.0
// directory.cpp - layout of the directory segment, and its checks.
#include "directory.hpp"
#include "wire.hpp"
#include <algorithm>
#include <atomic>

namespace ch::dd {

namespace {

constexpr std::uint64_t magic = UINT64_C(0x7463696464686331); // "1chddict"

// Shared memory. state is the only word that is written while others may look:
// | word  | written by              | read by           | order           |
// | state | creator, once, the last | whoever attaches  | release/acquire |
struct shared_manager {
	unsigned char requests[64];
	std::uint64_t memory;
	std::uint64_t pad;
};
struct shared_directory {
	std::uint64_t magic;
	std::uint32_t version;
	std::uint32_t nr_managers;
	unsigned char control[64];
	manager_rules rules;
	std::atomic<std::uint32_t> state; // 1: whole
	window_size windows;
	std::uint32_t pad;
	shared_manager managers[];
};
static_assert(sizeof(shared_manager) == 80 && offsetof(shared_directory, managers) == 120,
	      "the directory's layout: bump wire_version");

std::size_t size_for(unsigned nr)
{
	return (sizeof(shared_directory) + nr * sizeof(shared_manager) + 63) / 64 * 64;
}

// The words lie behind the rest, and the windows behind them.
std::size_t whole_size_for(unsigned nr, window_size windows)
{
	return size_for(nr) + nr * (sizeof(manager_words) + windows.bytes());
}

shared_directory *body(ch_segment *seg)
{
	return static_cast<shared_directory *>(ch_segment_addr(seg));
}

descriptor checked(const unsigned char (&from)[64])
{
	descriptor d{};

	check(ch_descr_from_bytes(from, sizeof(from), &d));
	return d;
}

[[noreturn]] void no_directory(const char *why)
{
	refuse(EPROTO, std::string("ddict: this descriptor does not name a dictionary: ") + why);
}

} // namespace

segment directory_create(unsigned nr, unsigned max_peers, window_size windows, const std::string &name)
{
	ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
	ch_segment *seg = nullptr;

	attr.len = whole_size_for(nr, windows);
	attr.max_peers = max_peers;
	attr.flags = CH_NO_PREFAULT;
	attr.name = name.empty() ? nullptr : name.c_str();
	check(ch_segment_create(&attr, &seg));
	return segment(seg);
}

void directory_publish(ch_segment *seg, const directory &d)
{
	shared_directory *s = body(seg);

	s->magic = magic;
	s->version = wire_version;
	s->nr_managers = static_cast<std::uint32_t>(d.managers.size());
	s->rules = d.rules;
	s->windows = d.windows;
	std::memcpy(s->control, d.control.bytes, sizeof(s->control));
	for (std::size_t m = 0; m < d.managers.size(); m++) {
		shared_manager &to = s->managers[m];

		std::memcpy(to.requests, d.managers[m].requests.bytes, sizeof(to.requests));
		to.memory = d.managers[m].memory;
	}
	// [D1] pairs with [D2]: the directory is whole before its state says so.
	s->state.store(1, std::memory_order_release);
}

directory directory_attach(const descriptor &descr)
{
	ch_segment *raw = nullptr;

	if (const int kind = ch_descr_kind(&descr); kind >= 0 && kind != CH_DESCR_SEGMENT)
		no_directory("it names a pool or a channel");
	check(ch_segment_attach(&descr, &raw));
	const std::shared_ptr<ch_segment> seg(raw, ch_segment_detach);
	const shared_directory *s = body(raw);

	if (ch_segment_len(raw) < sizeof(*s) || s->magic != magic)
		no_directory("the segment holds something else");
	// [D2] pairs with [D1]: what is copied below was written before.
	if (s->version != wire_version || s->state.load(std::memory_order_acquire) != 1)
		no_directory("it is of another version, or its creator has not finished");
	const std::uint32_t nr = s->nr_managers;

	const window_size windows = s->windows;

	if (nr == 0 || nr > managers_max || !windows.is_sound() || whole_size_for(nr, windows) > ch_segment_len(raw))
		no_directory("its number of managers cannot be");
	directory d{ch_segment_name(raw), checked(s->control), s->rules, {}, nullptr, nullptr, windows};

	for (std::uint32_t m = 0; m < nr; m++) {
		const shared_manager &from = s->managers[m];

		d.managers.push_back({checked(from.requests), from.memory});
	}
	d.words = directory_words(raw, nr);
	d.seg = seg;
	return d;
}

manager_words *directory_words(ch_segment *seg, unsigned nr)
{
	return reinterpret_cast<manager_words *>(static_cast<std::byte *>(ch_segment_addr(seg)) + size_for(nr));
}

void *directory_window(ch_segment *seg, unsigned nr, window_size windows, unsigned m)
{
	return reinterpret_cast<std::byte *>(directory_words(seg, nr) + nr) + m * windows.bytes();
}

ch_peer directory::peer_of(unsigned m) const
{
	return {words[m].peer.load(std::memory_order_relaxed)}; // whoever has to know asks again: see connection::up
}

} // namespace ch::dd

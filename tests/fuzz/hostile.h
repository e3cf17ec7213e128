/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hostile.h - shared memory that somebody else scribbles in, and what must hold all the same: each call returns, success
 * or a documented code, and what it hands out lies in the segment.
 */
#pragma once
#include "../support/support.h"
#include <atomic>
#include <optional>
#include <thread>
#include <vector>

namespace {

inline void require(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "%s\n", what);
	abort();
}

/* The whole file, header and all, mapped once more: through this the memory is damaged. */
struct mirror {
	unsigned char *bytes;
	size_t len;
	char path[256];
};

inline mirror map_again(const struct ch_segment *seg)
{
	struct stat st;
	mirror m = {};

	segment_path(seg, m.path, sizeof(m.path));
	const int fd = open(m.path, O_RDWR | O_CLOEXEC);
	require(fd >= 0 && fstat(fd, &st) == 0, "no file");
	void *p = mmap(nullptr, static_cast<size_t>(st.st_size), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	require(p != MAP_FAILED, "no second mapping");
	close(fd);
	m.bytes = static_cast<unsigned char *>(p);
	m.len = static_cast<size_t>(st.st_size);
	return m;
}

inline void damage(const mirror &m, const std::vector<size_t> &lively, uint64_t &rs)
{
	const size_t nr_words = m.len / 8;
	const size_t at = rnd(&rs) % 4 && !lively.empty() ? lively[rnd(&rs) % lively.size()] : rnd(&rs) % nr_words;
	auto *word = reinterpret_cast<uint64_t *>(m.bytes) + at;
	const uint64_t old = __atomic_load_n(word, __ATOMIC_RELAXED);
	uint64_t other;

	switch (rnd(&rs) % 7) {
	case 0: other = rnd(&rs) << 32 ^ rnd(&rs); break;
	case 1: other = rnd(&rs) % 64; break;
	case 2: other = ~old; break;
	case 3: other = old + rnd(&rs) % 5 - 2; break;
	case 4: other = __atomic_load_n(reinterpret_cast<uint64_t *>(m.bytes) + rnd(&rs) % nr_words, __ATOMIC_RELAXED); break;
	default: other = old ^ uint64_t{ 1 } << rnd(&rs) % 64;
	}
	__atomic_store_n(word, other, __ATOMIC_RELAXED);
}

/* Damages one word after the other beside the calls, as long as it lives. */
class vandal {
	std::atomic<bool> goes_on{ true };
	std::thread thread;

public:
	vandal(const mirror &m, const std::vector<size_t> &lively, uint64_t rs)
		: thread([this, &m, &lively, rs]() mutable {
			  while (goes_on)
				  damage(m, lively, rs);
		  })
	{
	}
	~vandal()
	{
		goes_on = false;
		thread.join();
	}
};

inline void allowed(ssize_t n, const char *call)
{
	static const int codes[] = { EAGAIN, ETIMEDOUT, EMSGSIZE, ENOBUFS, ENOSPC, EPIPE, ESTALE, EPROTO,
				     EACCES, EINVAL, ENOMEM, EPERM, EHOSTUNREACH, EEXIST,
				     EBUSY, EOWNERDEAD, EDEADLK, ECANCELED, EOVERFLOW, ENOENT, E2BIG, EINPROGRESS };

	if (n >= 0)
		return;
	for (int code : codes)
		if (n == -code)
			return;
	fprintf(stderr, "%s: %s\n", call, strerror(static_cast<int>(-n)));
	require(false, "a code that is not documented");
}

/* Data lies in the segment or in the message itself, and can be read and written to its end. */
inline void touch(const struct ch_segment *seg, const struct ch_message &msg)
{
	auto *p = static_cast<volatile unsigned char *>(msg.data);
	auto *user = static_cast<unsigned char *>(ch_segment_addr(seg));
	const bool inside = p >= user && p + msg.len <= user + ch_segment_len(seg) && msg.len <= ch_segment_len(seg);
	const bool own = p >= (unsigned char *)&msg && p + msg.len <= (unsigned char *)(&msg + 1);

	require(p && (inside || own), "a message outside of the segment");
	for (size_t i = 0; i < msg.len; i += 61)
		p[i] = static_cast<unsigned char>(p[i] + 1);
	if (msg.len)
		p[msg.len - 1] = 1;
}

inline uint64_t seed_of(const uint8_t *data, size_t size)
{
	uint64_t seed = 1;

	for (size_t i = 0; i < size; i++)
		seed = seed * 1099511628211u + data[i];
	return seed | 1;
}

} // namespace

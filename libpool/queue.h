// SPDX-License-Identifier: Apache-2.0
// queue.h - what the processes that use a queue share, and one process's view of it. Private.
//
// One segment holds the head below; the values travel in channels, which it names. A queue with a limit has one page, with
// a channel for each level. One without has a row of pages, each a channel in memory of its own:
//
//   page h        page h+1 ...       page t
//   closed, being drained  ->  ...  ->  open, being filled
//
// A sender that finds page t full asks the creator's service thread for another, and goes on trying: the thread makes
// page t+1, says so, and closes page t, at which the senders that wait there move on. A receiver that finds a page closed and
// drained tells the thread, which ends it, and moves on. Order is kept: nothing is sent to t+1 before t is closed. Only
// the creator makes pages, so that no process's end takes values with it but the creator's, with which the queue ends.
//
//   word        written by                              read by
//   tail        the creator, after table[tail]          all: the newest page
//   head        the creator                             who attaches: the oldest page that may have values
//   is_closed   any, before it closes page tail         the creator, before and after it makes a page
//   unfinished  any                                     who joins
//   joiners     who joins, before it looks              who takes unfinished to 0
#pragma once
#include <atomic>
#include <cerrno>
#include <deque>
#include <channels/channels.hpp>
#include <memory>
#include <mutex>
#include <pool/queue.hpp>
#include <thread>

namespace ch::detail {

struct queue_head {
	static constexpr std::uint64_t magic_value = 0x6368717565756531;
	static constexpr std::size_t max_levels = 8, max_pages = 4096;

	std::atomic<std::uint64_t> magic;
	std::uint32_t levels, is_acknowledged, is_joinable, is_unlimited;
	std::uint64_t capacity;
	descriptor base[max_levels]; // with a limit: the levels' channels. A nudge is a tagged message in base[0]
	descriptor bell;             // wakes who joins
	descriptor requests;         // to the creator: a page is full, or drained
	alignas(64) std::atomic<std::uint64_t> tail;
	std::atomic<std::uint64_t> head;
	std::atomic<std::uint32_t> is_closed;
	alignas(64) std::atomic<std::int64_t> unfinished;
	std::atomic<std::uint32_t> joiners;
	alignas(64) descriptor table[max_pages]; // page n at n mod max_pages
};

struct page_request {
	std::uint64_t number;
	std::uint64_t is_drained;
};

using channel_handle = handle<ch_channel, ch_channel_detach>;

// One page in this process.
struct queue_page {
	std::uint64_t number = 0;
	channel_handle ch;
	ch_pool *memory = nullptr; // in the creator, which ends it
	queue_page() = default;
	queue_page(const queue_page &) = delete;
	queue_page &operator=(const queue_page &) = delete;
	~queue_page();
};

class queue_core : public std::enable_shared_from_this<queue_core> {
public:
	explicit queue_core(const queue_options &o);
	explicit queue_core(const descriptor &d);
	~queue_core();
	queue_core(const queue_core &) = delete;
	queue_core &operator=(const queue_core &) = delete;

	bool put(unsigned level, std::size_t len, fill_fn fill, const void *value, std::int64_t timeout_ns);
	taken take(std::int64_t timeout_ns);
	void close();
	std::size_t count();
	void task_done();
	bool join(std::int64_t timeout_ns);
	const descriptor &descr() const noexcept { return descr_; }
	std::size_t capacity() const noexcept { return head_->is_unlimited ? 0 : head_->capacity; }
	bool is_over() const noexcept { return ch_channel_count(bell_.get()) == -ESTALE; }
	bool is_acknowledged() const noexcept { return head_->is_acknowledged; }
	bool is_joinable() const noexcept { return head_->is_joinable; }

private:
	using page_ref = std::shared_ptr<queue_page>;

	void make(const queue_options &o);
	void make_channels(const queue_options &o);
	void attach(const descriptor &d);
	void release() noexcept;
	bool is_creator() const noexcept;
	page_ref make_page(std::uint64_t number, const queue_options &o);
	page_ref open_page(std::uint64_t number);
	page_ref open_from(std::uint64_t number);
	page_ref sending();
	page_ref receiving();
	void move_on(const page_ref &p);
	void serve(const queue_options &o, page_ref first) noexcept;
	void extend(std::uint64_t number, const queue_options &o, std::deque<page_ref> &mine);
	void request(std::uint64_t number, bool is_drained) noexcept;
	void nudge() noexcept;
	static long send(ch_channel *ch, std::size_t len, fill_fn fill, const void *value, std::int64_t timeout_ns);
	long put_paged(std::size_t len, fill_fn fill, const void *value, std::int64_t timeout_ns);
	long take_any(std::int64_t timeout_ns, ch_message &m, ch_channel *&from);
	long take_paged(std::int64_t timeout_ns, ch_message &m, page_ref &from);
	void count_done();

	pid_t creator_ = 0; // 0: attached
	ch_segment *segment_ = nullptr;
	queue_head *head_ = nullptr;
	descriptor descr_{};
	ch_pool *memory_ = nullptr; // in the creator
	std::vector<channel_handle> base_;
	channel_handle bell_, requests_;
	std::mutex m_; // of the next two
	page_ref first_, last_; // where this process receives, and sends
	std::thread service_;
};

struct taken::inside {
	std::shared_ptr<queue_core> q;
	std::shared_ptr<queue_page> page; // keeps ch
	ch_channel *ch = nullptr;
	ch_message m = CH_MESSAGE_INIT;
};

} // namespace ch::detail

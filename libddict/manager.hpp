// SPDX-License-Identifier: Apache-2.0
// manager.hpp - the process that serves one shard: one thread, one loop, no waiting for anybody but the next request.
//
// A client is known by an id that the manager gave it, and has a reply channel in the dictionary's control pool. It
// never has more calls under way than that channel holds replies; one that does is dropped, its channel destroyed. What
// belongs to a client that died (its channel, the values it had pinned) is found when another client says hello, when
// memory runs out, and when a client asks.
#pragma once
#include "directory.hpp"
#include "store.hpp"
#include <unordered_map>

namespace ch::dd {

// What a manager process is told; passed through ch_spawner_spawn.
struct manager_arg {
	unsigned char requests[64]; // its request channel
	unsigned char control[64];
	unsigned index;
};

// Runs in the manager process; its exit status.
int manager_main(const void *arg, std::size_t len);

class manager {
public:
	explicit manager(const manager_arg &arg);
	// Until the request channel is closed or destroyed.
	void serve();

private:
	struct client {
		std::uint64_t id = 0; // 0: free
		ch_peer peer{};
		ch::channel replies;
		std::unordered_map<std::uint64_t, kept> pins;
	};
	// A request that was checked. key and value lie in the message.
	struct call {
		request head;
		bytes key, value;
		client *from;
	};

	void take_large();
	void handle(bytes msg, ch::message *owner);
	void dispatch(call &c, ch::message *owner);
	static bool parse(bytes msg, call &out);

	void hello(const call &c);
	void put(const call &c, ch::message *owner);
	void get(const call &c);
	void fetch_add(const call &c);
	void clear(const call &c);
	void scan(const call &c);
	void put_many(const call &c);
	void get_many(const call &c);
	int put_one(bytes key, bytes value);

	void answer(const call &c, int status, std::uint64_t arg = 0);
	void answer(client &to, reply head, bytes body);
	bool send(client &to, const void *msg, std::size_t len);
	template <class Fill> void answer_page(const call &c, Fill &&fill);
	client *find_client(std::uint64_t id);
	client &fresh_client();
	void drop(client &c) noexcept;
	void reap();

	ch::channel requests_;
	memory_pool control_;
	segment seg_; // of the pool, for places in it
	store store_;
	std::deque<client> clients_;
	std::uint64_t next_pin_ = 1;
	unsigned index_;
};

} // namespace ch::dd

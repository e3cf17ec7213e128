// SPDX-License-Identifier: Apache-2.0
// shared.cpp - the memory of ch::value and ch::array: a pool of its own with two things in it, a mutex, whose descriptor
// names all, and one block that bears a type by which it is found.
#include <cerrno>
#include <channels/memory.hpp>
#include <limits>
#include <pool/shared.hpp>
#include <unistd.h>

namespace ch::detail {

class shared_memory {
public:
	shared_memory(std::size_t nr, std::size_t element_size);
	explicit shared_memory(const descriptor &d);
	shared_memory(const shared_memory &) = delete;
	shared_memory &operator=(const shared_memory &) = delete;

	const descriptor &descr() const noexcept { return descr_; }
	std::span<std::byte> bytes() const noexcept { return bytes_; }
	std::size_t element_size() const noexcept { return element_size_; }
	recursive_mutex &lock() noexcept { return lock_; }
	bool is_over() const noexcept { return ch_pool_sweep(home_.pool.get()) == -ESTALE; }

private:
	struct alignas(64) head {
		std::uint64_t nr, element_size;
	};
	static constexpr std::uint32_t block_type = 0x73686172;
	static constexpr std::size_t most = std::size_t{1} << 46;

	static memory_pool make(std::size_t nr, std::size_t element_size)
	{
		if (nr > most / element_size)
			throw error(ENOSPC, "shared memory: so much there is nowhere");
		// A block's size is rounded up by an eighth at most; tables of the pool and the mutex's bits take the rest.
		return memory_pool::create({.len = nr * element_size / 4 * 5 + (64 << 10), .flags = CH_NO_PREFAULT});
	}

	struct home {
		memory_pool pool;
		pid_t creator; // 0: attached

		~home()
		{
			if (creator == getpid())
				pool.destroy();
		}
	} home_;
	recursive_mutex lock_;
	descriptor descr_;
	std::span<std::byte> bytes_;
	std::size_t element_size_ = 0;
};

shared_memory::shared_memory(std::size_t nr, std::size_t element_size)
    : home_{make(nr, element_size), getpid()},
      lock_(recursive_mutex::create(home_.pool)), descr_(lock_.descr())
{
	const std::size_t len = nr * element_size;
	void *p = home_.pool.alloc_typed(sizeof(head) + len, block_type, nanoseconds(CH_TRY));

	bytes_ = {static_cast<std::byte *>(p) + sizeof(head), len};
	element_size_ = element_size;
	new (p) head{nr, element_size};
}

shared_memory::shared_memory(const descriptor &d)
    : home_{memory_pool::attach(d), 0}, lock_(recursive_mutex::attach(d)), descr_(d)
{
	for_each_block(home_.pool, block_type, [&](const ch_block_info &b) {
		auto *at = static_cast<std::byte *>(const_cast<void *>(b.addr));
		head h{};

		if (b.len >= sizeof(h))
			std::memcpy(&h, at, sizeof(h)); // once: others can write there
		if (!h.element_size || h.nr > (b.len - sizeof(h)) / h.element_size)
			throw error(EPROTO, "shared memory: damaged");
		bytes_ = {at + sizeof(h), h.nr * h.element_size};
		element_size_ = h.element_size;
	});
	if (!bytes_.data())
		throw error(ESTALE, "shared memory: who made it has ended");
}

std::shared_ptr<shared_memory> make_shared_memory(std::size_t nr, std::size_t element_size)
{
	return std::make_shared<shared_memory>(nr, element_size);
}

std::shared_ptr<shared_memory> open_shared_memory(const descriptor &d, std::size_t element_size)
{
	auto m = recent<shared_memory>::open(d);

	if (m->element_size() != element_size)
		throw error(EPROTO, "shared memory: its elements are of another type");
	return m;
}

const descriptor &descr_of(const shared_memory &m) noexcept
{
	return m.descr();
}

std::span<std::byte> bytes_of(const shared_memory &m) noexcept
{
	return m.bytes();
}

recursive_mutex &lock_of(shared_memory &m) noexcept
{
	return m.lock();
}

} // namespace ch::detail

// SPDX-License-Identifier: Apache-2.0
// lent.hpp - long arguments and results that are written and read where they lie in shared memory. See libpool(7).
//
//	p.submit([](ch::lent<double> v) { return norm(v); }, ch::fill<double>(n, [&](std::span<double> to) { ... }));
//	ch::lent<float> image = p.submit([](int w, int h) { return ch::fill<float>(w * h, draw); }, 640, 480).get();
//
// As an argument it is there until the task ends, as a result until its last copy is gone. A result that is kept keeps the
// pool's memory busy.
#pragma once
#include <channels/archive.hpp>
#include <memory>
#include <span>

namespace ch {

// Elements that are only looked at.
template <class E> class lent {
	static_assert(archive::is_flat<E> && alignof(E) <= 8, "what is lent is trivially copyable");

public:
	using value_type = E;

	lent() = default;
	explicit lent(std::span<const E> v) noexcept : v_(v) {} // of memory that stays
	const E *data() const noexcept { return v_.data(); }
	std::size_t size() const noexcept { return v_.size(); }
	bool empty() const noexcept { return v_.empty(); }
	const E &operator[](std::size_t i) const noexcept { return v_[i]; }
	const E *begin() const noexcept { return v_.data(); }
	const E *end() const noexcept { return v_.data() + v_.size(); }

	// What keeps the memory.
	void keep(std::shared_ptr<const void> k) noexcept
	{
		if (!where_)
			where_ = std::move(k);
	}
	template <class A> void save(A &ar) const
	{
		archive::put_aligned(ar, v_.size_bytes(), [this](std::span<std::byte> to) {
			archive::copy_bytes(to.data(), v_.data(), to.size());
		});
	}
	template <class A> void load(A &ar)
	{
		const std::span<const std::byte> b = archive::get_aligned(ar);

		if (b.size() % sizeof(E))
			throw archive_error("lent: not so many elements");
		const auto *at = reinterpret_cast<const E *>(b.data());
		if (reinterpret_cast<std::uintptr_t>(at) % alignof(E)) { // a short one, in memory of another alignment
			const std::shared_ptr<E[]> copy(new E[b.size() / sizeof(E)]);

			archive::copy_bytes(copy.get(), b.data(), b.size());
			at = copy.get();
			where_ = copy;
		}
		v_ = {at, b.size() / sizeof(E)};
	}

private:
	std::span<const E> v_;
	std::shared_ptr<const void> where_;
};

// n elements, which f(std::span<E>) writes where they are sent from. They arrive as lent<E>.
template <class E, class F> struct filling {
	std::size_t n;
	F f;

	template <class A> void save(A &ar) const
	{
		archive::put_aligned(ar, n * sizeof(E), [this](std::span<std::byte> to) {
			f(std::span<E>(reinterpret_cast<E *>(to.data()), n));
		});
	}
};
template <class E, class F> filling<E, F> fill(std::size_t n, F f)
{
	return {n, std::move(f)};
}
template <class E, class F> struct archive::carrier<filling<E, F>> {
	using type = lent<E>;
};

} // namespace ch

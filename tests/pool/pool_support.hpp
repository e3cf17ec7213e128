// SPDX-License-Identifier: Apache-2.0
// pool_support.hpp - what the tests of libpool share.
#pragma once
#include "../support/support.h"
#include <atomic>
#include <climits>
#include <criterion/criterion.h>
#include <functional>
#include <memory>
#include <pool/pool.hpp>
#include <string>
#include <thread>
#include <vector>

// The code of the ch::error that f throws; 0 if it throws none.
inline int error_of(const std::function<void()> &f)
{
	try {
		f();
		return 0;
	} catch (const ch::error &e) {
		return e.code().value();
	}
}

template <class E, class F> bool throws(F &&f)
{
	try {
		f();
	} catch (const E &) {
		return true;
	}
	return false;
}

// first, first + 1, ... before last; as std::views::iota, which clang 14 cannot compile with libstdc++.
class numbers {
public:
	explicit numbers(long first, long last = LONG_MAX) : first_(first), last_(last) {}
	class iterator {
	public:
		using value_type = long;
		using difference_type = std::ptrdiff_t;
		iterator() = default;
		iterator(numbers *r, long at) : r_(r), at_(at) {}
		long operator*() const
		{
			r_->nr_read++;
			return at_;
		}
		iterator &operator++()
		{
			at_++;
			return *this;
		}
		iterator operator++(int)
		{
			iterator i = *this;

			at_++;
			return i;
		}
		bool operator==(const iterator &o) const { return at_ == o.at_; }

	private:
		numbers *r_ = nullptr;
		long at_ = 0;
	};
	iterator begin() { return {this, first_}; }
	iterator end() { return {this, last_}; }
	long nr_read = 0;

private:
	long first_, last_;
};

// Numbers that all processes forked later share; tasks capture the pointer.
struct shared_numbers {
	std::atomic<long> n[16];
};

inline shared_numbers *share_numbers()
{
	void *p = mmap(nullptr, sizeof(shared_numbers), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(p, MAP_FAILED);
	return new (p) shared_numbers{};
}

inline bool is_gone(pid_t pid)
{
	char path[64], state = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	FILE *f = fopen(path, "re");
	if (!f)
		return true;
	const bool is_zombie = fscanf(f, "%*d (%*[^)]) %c", &state) == 1 && state == 'Z';
	fclose(f);
	return is_zombie;
}

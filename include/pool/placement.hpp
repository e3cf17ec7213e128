// SPDX-License-Identifier: Apache-2.0
// placement.hpp - on which CPUs processes and workers run.
//
//	ch::pool p({.placement = ch::placement::list("0-3,8").one_each()});
//	ch::process q({.program = "make", .placement = ch::placement::cpus({4, 5})});
#pragma once
#include <channels/base.h>
#include <string_view>
#include <vector>

namespace ch {

class placement {
public:
	placement() = default; // wherever who starts them may run
	// Any of these.
	static placement cpus(std::vector<unsigned> numbers)
	{
		placement p;

		p.cpus_ = std::move(numbers);
		return p;
	}
	// The same as text, as taskset(1) and the kernel have it: "0-3,8". Throws ch::error EINVAL.
	CH_API static placement list(std::string_view text);
	// One for each: worker n of a pool is bound to the n-th of them, and behind the last begins with the first again.
	placement one_each() const
	{
		placement p = *this;

		p.is_one_each_ = true;
		return p;
	}

	bool is_anywhere() const noexcept { return cpus_.empty(); }
	std::vector<unsigned> cpus_of(std::size_t worker) const
	{
		return is_one_each_ && !cpus_.empty() ? std::vector<unsigned>{cpus_[worker % cpus_.size()]} : cpus_;
	}
	const std::vector<unsigned> &all() const noexcept { return cpus_; }
	template <class A> void serialize(A &ar) { ar(cpus_, is_one_each_); }

private:
	std::vector<unsigned> cpus_;
	bool is_one_each_ = false;
};

} // namespace ch

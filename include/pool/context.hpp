// SPDX-License-Identifier: Apache-2.0
// context.hpp - what a task can ask about itself.
//
//	p.submit([] {
//		while (!ch::this_task::is_cancelled())
//			a_little_more();
//	});
#pragma once
#include <channels/base.h>

namespace ch::this_task {

// Whether the caller runs in a worker of a pool; otherwise the others answer 0 and false.
CH_API bool exists() noexcept;
// Which worker of its pool this is, from 0. A worker that took a dead one's place has its number.
CH_API unsigned worker() noexcept;
// How often the task was begun, this time included.
CH_API unsigned attempt() noexcept;
// Whether cancel() or request_stop() was called on the future while the task ran: it may end early, and need not.
CH_API bool is_cancelled() noexcept;

} // namespace ch::this_task

/* SPDX-License-Identifier: Apache-2.0 */
/* peer.cpp: names of processes, and who of them still runs. */
#include "peer.h"
#include "../support/support.h"
#include <criterion/criterion.h>
#include <pthread.h>

using namespace ch::core;

namespace {

int waits(void *)
{
	return wait_to_be_killed();
}

int ends(void *)
{
	return 0;
}

/* Its first thread is a zombie, and another runs on. */
int leaves_a_thread(void *arg)
{
	pthread_t thread;

	if (pthread_create(&thread, nullptr, [](void *b) -> void * {
		    AWAIT(posted(static_cast<struct board *>(b), 1) > 0);
		    _exit(0);
	    }, arg) != 0)
		return 1;
	post(static_cast<struct board *>(arg), 0);
	for (;;) /* this thread alone */
		syscall(SYS_exit, 0);
}

char state_of(pid_t pid)
{
	char path[64], state = '?';

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (FILE *f = fopen(path, "re")) {
		if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
			state = '?';
		fclose(f);
	}
	return state;
}

} // namespace

Test(peer, a_name_holds_the_pid_and_the_start)
{
	const u64 me = peer_self();

	cr_assert_eq(peer_pid(me), getpid());
	cr_assert_eq(peer_id_of(getpid()), me);
	cr_assert_gt(me >> PID_BITS, 0);
	cr_assert(peer_is_alive(me));
	cr_assert_gt(peer_pid_namespace(), 0);
}

Test(peer, a_child_has_another_name)
{
	const u64 parent = peer_self();
	const pid_t pid = fork();

	if (pid == 0)
		_exit(peer_self() == parent || peer_pid(peer_self()) != getpid());
	cr_assert_eq(child_end(pid), 0);
}

Test(peer, another_start_is_another_process)
{
	const pid_t pid = child_start(waits, nullptr);
	const u64 id = peer_id_of(pid);

	cr_assert(peer_is_alive(id));
	cr_assert_not(peer_is_alive(id + (u64{ 1 } << PID_BITS)));
	cr_assert_not(peer_is_alive(id - (u64{ 1 } << PID_BITS)));
	child_kill(pid);
	cr_assert_not(peer_is_alive(id));
	cr_assert_eq(peer_id_of(pid), 0);
}

Test(peer, a_zombie_is_dead)
{
	const pid_t pid = child_start(ends, nullptr);
	const u64 id = peer_id_of(pid);

	AWAIT(has_ended(pid));
	cr_assert_eq(state_of(pid), 'Z');
	cr_assert_not(peer_is_alive(id));
	cr_assert_eq(child_end(pid), 0);
}

Test(peer, a_zombie_with_a_thread_that_runs_is_not)
{
	struct board *b = board_new();
	const pid_t pid = child_start(leaves_a_thread, b);
	const u64 id = peer_id_of(pid);

	await_post(b, 0);
	AWAIT(state_of(pid) == 'Z');
	cr_assert(peer_is_alive(id));
	post(b, 1);
	cr_assert_eq(child_end(pid), 0);
	cr_assert_not(peer_is_alive(id));
}

Test(peer, the_look_leaves_errno_alone)
{
	errno = 4711;
	cr_assert_not(peer_is_alive(u64{ 5 } << PID_BITS | 4194303));
	cr_assert_eq(errno, 4711);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* base.h: names of processes, error texts, version. */
#include "../support/support.h"
#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(peer, .timeout = WATCHDOG_S);

Test(peer, self_is_this_process_and_alive)
{
	struct ch_peer me = ch_peer_self();

	cr_assert_neq(me.id, 0);
	cr_assert_eq(ch_peer_self().id, me.id, "always the same");
	cr_assert_eq(ch_peer_pid(me), getpid());
	cr_assert_eq(ch_peer_is_alive(me), 1);
}

Test(peer, nobody_has_no_pid_and_is_not_alive)
{
	struct ch_peer nobody = { 0 };

	cr_assert_eq(ch_peer_pid(nobody), 0);
	cr_assert_eq(ch_peer_is_alive(nobody), 0);
}

static int tell_and_stay(void *arg)
{
	struct board *b = arg;

	b->value[0] = (int64_t)ch_peer_self().id;
	post(b, 0);
	return wait_to_be_killed();
}

static int tell_and_go(void *arg)
{
	struct board *b = arg;

	b->value[0] = (int64_t)ch_peer_self().id;
	return 0;
}

Test(peer, forked_child_is_somebody_else)
{
	struct board *b = board_new();
	struct ch_peer me = ch_peer_self();
	pid_t pid = child_start(tell_and_stay, b);
	struct ch_peer child;

	await_post(b, 0);
	child.id = (uint64_t)b->value[0];
	cr_assert_neq(child.id, me.id);
	cr_assert_eq(ch_peer_pid(child), pid);
	cr_assert_eq(ch_peer_is_alive(child), 1);
	child_kill(pid);
}

Test(peer, zombie_and_reaped_are_gone)
{
	struct board *b = board_new();
	pid_t pid = child_start(tell_and_go, b);
	struct ch_peer child;
	siginfo_t info;

	cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0); /* it is a zombie now, and stays one */
	child.id = (uint64_t)b->value[0];
	cr_assert_eq(ch_peer_is_alive(child), 0);
	cr_assert_eq(child_end(pid), 0);
	cr_assert_eq(ch_peer_is_alive(child), 0);
}

Test(peer, stopped_process_is_alive)
{
	struct board *b = board_new();
	pid_t pid = child_start(tell_and_stay, b);
	struct ch_peer child;
	int status;

	await_post(b, 0);
	child.id = (uint64_t)b->value[0];
	kill(pid, SIGSTOP);
	cr_assert_eq(waitpid(pid, &status, WUNTRACED), pid);
	cr_assert(WIFSTOPPED(status));
	cr_assert_eq(ch_peer_is_alive(child), 1);
	child_kill(pid);
	cr_assert_eq(ch_peer_is_alive(child), 0);
}

static void *stay(void *arg)
{
	wait_to_be_killed();
	return arg;
}

/* The main thread ends, another goes on: the process lives. */
static int main_thread_ends(void *arg)
{
	struct board *b = arg;
	pthread_t t;

	b->value[0] = (int64_t)ch_peer_self().id;
	pthread_create(&t, NULL, stay, NULL);
	post(b, 0);
	pthread_exit(NULL);
}

static int main_thread_is_zombie(pid_t pid)
{
	char path[64], text[256] = "", state = 0;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (read(fd, text, sizeof(text) - 1) > 0 && strrchr(text, ')'))
		state = strrchr(text, ')')[2];
	close(fd);
	return state == 'Z';
}

Test(peer, process_lives_as_long_as_any_thread)
{
	struct board *b = board_new();
	pid_t pid = child_start(main_thread_ends, b);
	struct ch_peer child;

	await_post(b, 0);
	AWAIT(main_thread_is_zombie(pid));
	child.id = (uint64_t)b->value[0];
	cr_assert_eq(ch_peer_is_alive(child), 1);
	child_kill(pid);
	cr_assert_eq(ch_peer_is_alive(child), 0);
}

static void *fail_in_a_thread(void *arg)
{
	struct ch_segment *seg;

	cr_assert_str_eq(ch_errmsg(), "", "a thread begins with no message");
	cr_assert_eq(ch_segment_attach_name("test-other-thread", &seg), -ENOENT);
	cr_assert_not_null(strstr(ch_errmsg(), "test-other-thread"));
	return arg;
}

Test(errmsg, each_thread_has_its_own_and_it_names_the_object, .timeout = WATCHDOG_S)
{
	struct ch_segment *seg;
	pthread_t t;

	cr_assert_str_eq(ch_errmsg(), "");
	cr_assert_eq(ch_segment_attach_name("test-main-thread", &seg), -ENOENT);
	cr_assert_not_null(strstr(ch_errmsg(), "test-main-thread"));
	cr_assert_eq(pthread_create(&t, NULL, fail_in_a_thread, NULL), 0);
	pthread_join(t, NULL);
	cr_assert_not_null(strstr(ch_errmsg(), "test-main-thread"));
	cr_assert_null(strchr(ch_errmsg(), '\n'), "one line");
}

Test(errmsg, would_block_leaves_the_text_alone, .timeout = WATCHDOG_S)
{
	struct ch_channel *ch = NULL;
	struct ch_segment *seg;
	char before[512], c;

	cr_assert_eq(ch_channel_create(NULL, NULL, &ch), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_segment_attach_name("test-none", &seg), -ENOENT);
	snprintf(before, sizeof(before), "%s", ch_errmsg());
	cr_assert_eq(ch_channel_recv(ch, &c, 1, CH_TRY), -EAGAIN);
	cr_assert_eq(ch_channel_recv(ch, &c, 1, MS), -ETIMEDOUT);
	cr_assert_str_eq(ch_errmsg(), before);
	ch_pool_destroy(ch_channel_get_pool(ch));
}

Test(version, loaded_library_is_the_one_of_the_headers)
{
	cr_assert_str_eq(ch_version(), CH_VERSION_STRING);
}

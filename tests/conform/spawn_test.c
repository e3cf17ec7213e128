/* SPDX-License-Identifier: Apache-2.0 */
/* spawn.h: children of a clean parent. Children talk to the test through a board that was there before the fork. */
#include "../support/support.h"
#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(spawn, .timeout = WATCHDOG_S);

static struct board *b;
static struct ch_spawner *sp;

static void setup(void)
{
	b = board_new();
	cr_assert_eq(ch_spawner_create(&sp), 0, "%s", ch_errmsg());
}

static void teardown(void)
{
	ch_spawner_destroy(sp);
}

static struct ch_peer spawn(ch_spawn_fn fn, const void *arg, size_t len, uint64_t cookie)
{
	struct ch_peer peer = { 0 };

	cr_assert_eq(ch_spawner_spawn(sp, fn, arg, len, cookie, &peer), 0, "%s", ch_errmsg());
	cr_assert_neq(peer.id, 0);
	return peer;
}

static struct ch_exit wait_one(void)
{
	struct ch_exit e;

	cr_assert_eq(ch_spawner_wait(sp, CH_FOREVER, &e), 0, "%s", ch_errmsg());
	return e;
}

static int returns_its_arg(const void *arg, size_t len)
{
	return len == 1 ? *(const unsigned char *)arg : 255;
}

static int stays(const void *arg, size_t len)
{
	(void)arg;
	(void)len;
	b->value[0] = getpid();
	b->value[1] = (int64_t)ch_peer_self().id;
	post(b, 0);
	return wait_to_be_killed();
}

static int checks_64k(const void *arg, size_t len)
{
	return !(len == 65536 && is_filled(arg, len, 5, 6));
}

static int checks_nothing(const void *arg, size_t len)
{
	(void)arg;
	return len == 0 ? 17 : 18;
}

Test(spawn, exit_status_comes_with_cookie_and_name, .init = setup, .fini = teardown)
{
	const unsigned char want[] = { 0, 1, 42, 254 };

	for (size_t i = 0; i < sizeof(want); i++) {
		struct ch_peer peer = spawn(returns_its_arg, &want[i], 1, 1000 + i);
		struct ch_exit e = wait_one();

		cr_assert_eq(e.cookie, 1000 + i);
		cr_assert_eq(e.peer.id, peer.id);
		cr_assert(WIFEXITED(e.status) && WEXITSTATUS(e.status) == want[i]);
		cr_assert_eq(ch_peer_is_alive(peer), 0);
	}
}

Test(spawn, signal_is_reported, .init = setup, .fini = teardown)
{
	struct ch_peer peer = spawn(stays, NULL, 0, UINT64_MAX);
	struct ch_exit e;

	await_post(b, 0);
	cr_assert_eq(b->value[0], ch_peer_pid(peer), "the name is that of the child");
	cr_assert_eq((uint64_t)b->value[1], peer.id);
	cr_assert_eq(ch_peer_is_alive(peer), 1);
	cr_assert_eq(kill(ch_peer_pid(peer), SIGUSR2), 0);
	e = wait_one();
	cr_assert_eq(e.peer.id, peer.id);
	cr_assert_eq(e.cookie, UINT64_MAX);
	cr_assert(WIFSIGNALED(e.status) && WTERMSIG(e.status) == SIGUSR2);
}

Test(spawn, children_end_in_any_order_and_each_is_reported_once, .init = setup, .fini = teardown)
{
	enum { NR = 40 };
	struct ch_peer peer[NR];
	int seen[NR] = { 0 };
	struct ch_exit e;

	for (unsigned char i = 0; i < NR; i++)
		peer[i] = spawn(returns_its_arg, &i, 1, i);
	for (int i = 0; i < NR; i++) {
		e = wait_one();
		cr_assert_lt(e.cookie, NR);
		cr_assert_eq(seen[e.cookie]++, 0);
		cr_assert_eq(e.peer.id, peer[e.cookie].id);
		cr_assert(WIFEXITED(e.status) && WEXITSTATUS(e.status) == (int)e.cookie);
	}
	cr_assert_eq(ch_spawner_wait(sp, CH_TRY, &e), -EAGAIN);
}

Test(spawn, wait_tries_or_waits_at_least_what_was_asked, .init = setup, .fini = teardown)
{
	struct ch_exit e;
	int64_t t = now_ns();

	cr_assert_eq(ch_spawner_wait(sp, CH_TRY, &e), -EAGAIN);
	cr_assert_eq(ch_spawner_wait(sp, 20 * MS, &e), -ETIMEDOUT);
	cr_assert_geq(now_ns() - t, 20 * MS);
	spawn(stays, NULL, 0, 1);
	cr_assert_eq(ch_spawner_wait(sp, CH_TRY, &e), -EAGAIN);
}

Test(spawn, argument_is_copied_up_to_64_kib, .init = setup, .fini = teardown)
{
	unsigned char *arg = malloc(65537);
	struct ch_peer peer = { 0 };
	struct ch_exit e;

	fill(arg, 65536, 5, 6);
	spawn(checks_64k, arg, 65536, 1);
	memset(arg, 0, 65536);
	e = wait_one();
	cr_assert(WIFEXITED(e.status) && WEXITSTATUS(e.status) == 0);
	cr_assert_eq(ch_spawner_spawn(sp, checks_64k, arg, 65537, 2, &peer), -EMSGSIZE);
	cr_assert_eq(ch_spawner_spawn(sp, checks_64k, arg, SIZE_MAX, 2, &peer), -EMSGSIZE);
	cr_assert_eq(peer.id, 0);
	spawn(checks_nothing, NULL, 0, 3);
	e = wait_one();
	cr_assert_eq(e.cookie, 3);
	cr_assert(WIFEXITED(e.status) && WEXITSTATUS(e.status) == 17);
	free(arg);
}

static int destroyed_count;

static int sees_memory_of_creation(const void *arg, size_t len)
{
	(void)arg;
	(void)len;
	return destroyed_count; /* 0, whatever the parent made of it later */
}

Test(spawn, children_begin_with_the_memory_of_creation, .init = setup, .fini = teardown)
{
	struct ch_exit e;

	destroyed_count = 9;
	spawn(sees_memory_of_creation, NULL, 0, 1);
	e = wait_one();
	cr_assert(WIFEXITED(e.status) && WEXITSTATUS(e.status) == 0);
}

Test(spawn, a_killed_spawner_is_a_broken_pipe_and_takes_its_children_along, .init = setup, .fini = teardown)
{
	struct ch_peer child = spawn(stays, NULL, 0, 1);
	char path[64], text[256] = "";
	struct ch_peer out = { 0 };
	struct ch_exit e;
	int parent = 0, fd;
	ssize_t err;

	await_post(b, 0);
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)ch_peer_pid(child));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert_gt(read(fd, text, sizeof(text) - 1), 0);
	close(fd);
	cr_assert_eq(sscanf(strrchr(text, ')'), ") %*c %d", &parent), 1);
	cr_assert_neq(parent, getpid(), "the spawner stands between");
	cr_assert_eq(kill(parent, SIGKILL), 0);
	while ((err = ch_spawner_wait(sp, CH_FOREVER, &e)) == 0)
		;
	cr_assert_eq(err, -EPIPE);
	AWAIT(!ch_peer_is_alive(child));
	cr_assert_eq(ch_spawner_spawn(sp, stays, NULL, 0, 2, &out), -EPIPE);
	cr_assert_eq(ch_spawner_wait(sp, CH_TRY, &e), -EPIPE);
}

/* The creator is a child of the test. */
static int creator(void *arg)
{
	struct ch_spawner *own;
	struct ch_peer p[3];

	(void)arg;
	EXPECT(ch_spawner_create(&own) == 0);
	for (int i = 0; i < 3; i++) {
		EXPECT(ch_spawner_spawn(own, stays, NULL, 0, (uint64_t)i, &p[i]) == 0);
		b->value[4 + i] = (int64_t)p[i].id;
	}
	AWAIT(posted(b, 0) == 3);
	post(b, 1);
	return b->value[3] ? wait_to_be_killed() : 0; /* or ends without destroy */
}

Test(spawn, many_are_started_in_one_call_each_with_its_argument_and_cookie, .init = setup, .fini = teardown)
{
	unsigned char args[50];
	struct ch_peer p[50];
	bool seen[50] = { false };

	for (int i = 0; i < 50; i++)
		args[i] = (unsigned char)i;
	cr_assert_eq(ch_spawner_spawn_many(sp, returns_its_arg, args, 1, 1000, 50, p), 0, "%s", ch_errmsg());
	for (int i = 0; i < 50; i++) {
		const struct ch_exit e = wait_one();
		const uint64_t k = e.cookie - 1000;

		cr_assert(k < 50 && !seen[k]);
		cr_assert_eq(e.peer.id, p[k].id);
		cr_assert_eq(WEXITSTATUS(e.status), k);
		seen[k] = true;
	}
	cr_assert_eq(ch_spawner_spawn_many(sp, returns_its_arg, NULL, 0, 0, 0, p), 0, "none is not an error");
	cr_assert_eq(ch_spawner_spawn_many(sp, returns_its_arg, NULL, 1, 0, 1, p), -EINVAL);
	cr_assert_eq(ch_spawner_spawn_many(sp, returns_its_arg, args, 65537, 0, 1, p), -EMSGSIZE);
	/* The answers do not get mixed up with the next call's. */
	const struct ch_peer last = spawn(returns_its_arg, args, 1, 7);
	cr_assert_eq(wait_one().peer.id, last.id);
}

Test(spawn, children_are_gone_when_the_creator_is_killed_or_exits)
{
	for (int killed = 0; killed < 2; killed++) {
		pid_t pid;

		b = board_new();
		b->value[3] = killed;
		pid = child_start(creator, NULL);
		await_post(b, 1);
		if (killed)
			child_kill(pid);
		else
			cr_assert_eq(child_end(pid), 0);
		for (int i = 0; i < 3; i++)
			AWAIT(!ch_peer_is_alive((struct ch_peer){ (uint64_t)b->value[4 + i] }));
	}
}

Test(spawn, destroy_kills_what_still_runs, .init = setup)
{
	struct ch_peer peer[3];

	for (int i = 0; i < 3; i++)
		peer[i] = spawn(stays, NULL, 0, 1);
	AWAIT(posted(b, 0) == 3);
	ch_spawner_destroy(sp);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(ch_peer_is_alive(peer[i]), 0, "gone when destroy returns");
	cr_assert_eq(waitpid(-1, NULL, WNOHANG), -1);
	cr_assert_eq(errno, ECHILD, "the spawner itself is reaped");
	ch_spawner_destroy(NULL);
}

static void *waits(void *arg)
{
	struct ch_exit e;

	post(b, 2);
	*(int *)arg = ch_spawner_wait(sp, CH_FOREVER, &e);
	return arg;
}

Test(spawn, cancel_ends_every_wait_now_and_later, .init = setup, .fini = teardown)
{
	pthread_t t[3];
	struct ch_exit e;
	int err[3] = { 0 };

	for (int i = 0; i < 3; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, waits, &err[i]), 0);
	AWAIT(posted(b, 2) == 3);
	ch_spawner_cancel(sp);
	for (int i = 0; i < 3; i++) {
		pthread_join(t[i], NULL);
		cr_assert_eq(err[i], -ECANCELED);
	}
	cr_assert_eq(ch_spawner_wait(sp, CH_FOREVER, &e), -ECANCELED);
}

static void *spawns(void *arg)
{
	unsigned char c = 1;

	for (int i = 0; i < 25; i++) {
		struct ch_peer peer;

		if (ch_spawner_spawn(sp, returns_its_arg, &c, 1, 1, &peer) < 0)
			return NULL;
	}
	return arg;
}

Test(spawn, threads_may_share_a_spawner, .init = setup, .fini = teardown)
{
	pthread_t t[4];
	void *ok;

	for (int i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, spawns, &ok), 0);
	for (int i = 0; i < 100; i++)
		cr_assert_eq(WEXITSTATUS(wait_one().status), 1);
	for (int i = 0; i < 4; i++) {
		pthread_join(t[i], &ok);
		cr_assert_eq(ok, &ok);
	}
}

static int uses_the_parents_spawner(void *arg)
{
	struct ch_peer peer;
	struct ch_exit e;

	(void)arg;
	EXPECT(ch_spawner_spawn(sp, stays, NULL, 0, 1, &peer) == -EPERM);
	EXPECT(ch_spawner_wait(sp, CH_TRY, &e) == -EPERM);
	return 0;
}

Test(spawn, the_handle_is_the_creators_alone, .init = setup, .fini = teardown)
{
	unsigned char c = 3;

	cr_assert_eq(child_end(child_start(uses_the_parents_spawner, NULL)), 0);
	spawn(returns_its_arg, &c, 1, 1);
	cr_assert_eq(WEXITSTATUS(wait_one().status), 3, "the child left it undisturbed");
}

static int uses_a_channel(const void *arg, size_t len)
{
	struct ch_channel *ch = NULL;
	struct ch_descr d;

	EXPECT(ch_descr_from_bytes(arg, len, &d) == 0);
	EXPECT(ch_channel_attach(&d, &ch) == 0);
	EXPECT(ch_channel_send(ch, "hello", 5, CH_FOREVER) == 0);
	ch_channel_detach(ch);
	return 0;
}

Test(spawn, children_attach_what_was_made_later, .init = setup, .fini = teardown)
{
	struct ch_pool *pool = pool_of(1 << 20);
	struct ch_channel *ch = NULL;
	struct ch_descr d;
	char buf[8];

	cr_assert_eq(ch_channel_create(pool, NULL, &ch), 0, "%s", ch_errmsg());
	ch_channel_get_descr(ch, &d);
	spawn(uses_a_channel, d.bytes, sizeof(d.bytes), 1);
	cr_assert_eq(ch_channel_recv(ch, buf, sizeof(buf), CH_FOREVER), 5);
	cr_assert_eq(wait_one().status, 0);
	ch_pool_destroy(pool);
}

Test(spawn, null_is_invalid, .init = setup, .fini = teardown)
{
	struct ch_peer peer;
	struct ch_exit e;

	cr_assert_eq(ch_spawner_create(NULL), -EINVAL);
	cr_assert_eq(ch_spawner_spawn(NULL, stays, NULL, 0, 1, &peer), -EINVAL);
	cr_assert_eq(ch_spawner_spawn(sp, NULL, NULL, 0, 1, &peer), -EINVAL);
	cr_assert_eq(ch_spawner_spawn(sp, stays, NULL, 8, 1, &peer), -EINVAL);
	cr_assert_eq(ch_spawner_spawn(sp, stays, NULL, 0, 1, NULL), -EINVAL);
	cr_assert_eq(ch_spawner_wait(NULL, CH_TRY, &e), -EINVAL);
	cr_assert_eq(ch_spawner_wait(sp, CH_TRY, NULL), -EINVAL);
}

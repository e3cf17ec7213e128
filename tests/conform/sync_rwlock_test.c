/* SPDX-License-Identifier: Apache-2.0 */
/* sync.h: read/write lock. */
#include "sync_support.h"

TestSuite(rwlock, .timeout = WATCHDOG_S);

static struct ch_rwlock *l;

static void setup_rwlock(void)
{
	setup();
	cr_assert_eq(ch_rwlock_create(pool, NULL, &l), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_rwlock_get_descr(l, &b->descr), 0);
}

static struct ch_rwlock *with_room_for(uint32_t readers)
{
	struct ch_rwlock_attr attr = CH_RWLOCK_ATTR_INIT;
	struct ch_rwlock *out = NULL;

	attr.max_readers = readers;
	cr_assert_eq(ch_rwlock_create(pool, &attr, &out), 0, "%s", ch_errmsg());
	return out;
}

Test(rwlock, is_locked_both_ways, .init = setup_rwlock, .fini = teardown)
{
	const int64_t timeouts[] = { CH_TRY, CH_FOREVER, MS };

	for (int i = 0; i < 3; i++) {
		cr_assert_eq(ch_rwlock_lock(l, timeouts[i]), 0);
		cr_assert_eq(ch_rwlock_unlock(l), 0);
		cr_assert_eq(ch_rwlock_lock_shared(l, timeouts[i]), 0);
		cr_assert_eq(ch_rwlock_unlock(l), 0);
	}
	cr_assert_eq(ch_rwlock_unlock(l), -EPERM);
}

Test(rwlock, arguments_are_checked, .init = setup_rwlock, .fini = teardown)
{
	struct ch_rwlock_attr attr = CH_RWLOCK_ATTR_INIT;
	struct ch_rwlock *out = NULL;

	attr.max_readers = 65537;
	cr_assert_eq(ch_rwlock_create(pool, &attr, &out), -EINVAL);
	attr.max_readers = 0;
	attr.flags = 2;
	cr_assert_eq(ch_rwlock_create(pool, &attr, &out), -EINVAL);
	cr_assert_eq(ch_rwlock_create(pool, NULL, NULL), -EINVAL);
	cr_assert_eq(ch_rwlock_lock(NULL, CH_TRY), -EINVAL);
	cr_assert_eq(ch_rwlock_lock_shared(NULL, CH_TRY), -EINVAL);
	cr_assert_eq(ch_rwlock_unlock(NULL), -EINVAL);
	cr_assert_eq(ch_rwlock_downgrade(NULL), -EINVAL);
	cr_assert_eq(ch_descr_kind(&b->descr), CH_DESCR_RWLOCK);
}

Test(rwlock, a_thread_that_would_wait_for_itself_is_refused, .init = setup_rwlock, .fini = teardown)
{
	cr_assert_eq(ch_rwlock_lock(l, CH_TRY), 0);
	cr_assert_eq(ch_rwlock_lock(l, CH_FOREVER), -EDEADLK);
	cr_assert_eq(ch_rwlock_lock_shared(l, CH_FOREVER), -EDEADLK);
	cr_assert_eq(ch_rwlock_unlock(l), 0);
	cr_assert_eq(ch_rwlock_lock_shared(l, CH_TRY), 0);
	cr_assert_eq(ch_rwlock_lock(l, CH_FOREVER), -EDEADLK);
	cr_assert_eq(ch_rwlock_downgrade(l), -EPERM);
	cr_assert_eq(ch_rwlock_unlock(l), 0);
	cr_assert_eq(ch_rwlock_unlock(l), -EPERM);
}

static int refused_to_write(void *arg)
{
	(void)arg;
	EXPECT(ch_rwlock_lock(l, CH_TRY) == -EAGAIN);
	EXPECT(ch_rwlock_lock(l, 5 * MS) == -ETIMEDOUT);
	EXPECT(ch_rwlock_unlock(l) == -EPERM);
	return 0;
}

static int refused_to_read(void *arg)
{
	refused_to_write(arg);
	EXPECT(ch_rwlock_lock_shared(l, CH_TRY) == -EAGAIN);
	EXPECT(ch_rwlock_lock_shared(l, 5 * MS) == -ETIMEDOUT);
	return 0;
}

static int reads(void *arg)
{
	EXPECT(ch_rwlock_lock_shared(arg ? (struct ch_rwlock *)arg : l, CH_TRY) == 0);
	EXPECT(ch_rwlock_unlock(arg ? (struct ch_rwlock *)arg : l) == 0);
	return 0;
}

Test(rwlock, readers_share_and_writers_do_not, .init = setup_rwlock, .fini = teardown)
{
	cr_assert_eq(ch_rwlock_lock_shared(l, CH_TRY), 0);
	in_child(reads, NULL);
	in_child(refused_to_write, NULL);
	cr_assert_eq(ch_rwlock_unlock(l), 0);
	cr_assert_eq(ch_rwlock_lock(l, CH_TRY), 0);
	in_child(refused_to_read, NULL);
	cr_assert_eq(ch_rwlock_downgrade(l), 0);
	in_child(reads, NULL);
	in_child(refused_to_write, NULL);
	cr_assert_eq(ch_rwlock_unlock(l), 0);
	cr_assert_eq(ch_rwlock_lock(l, CH_TRY), 0, "a writer that gave up leaves nothing behind");
}

static int writes_when_it_can(void *arg)
{
	(void)arg;
	post(b, 0);
	EXPECT(ch_rwlock_lock(l, CH_FOREVER) == 0);
	b->value[0] = 1;
	EXPECT(ch_rwlock_unlock(l) == 0);
	return 0;
}

Test(rwlock, a_waiting_writer_keeps_new_readers_out_but_not_those_who_read, .init = setup_rwlock, .fini = teardown)
{
	pid_t writer;

	cr_assert_eq(ch_rwlock_lock_shared(l, CH_TRY), 0);
	writer = child_start(writes_when_it_can, NULL);
	await_post(b, 0);
	await_asleep(writer);
	in_child(refused_to_read, NULL);
	cr_assert_eq(ch_rwlock_lock_shared(l, CH_FOREVER), 0, "a reader reads again");
	cr_assert_eq(ch_rwlock_unlock(l), 0);
	cr_assert_eq(b->value[0], 0);
	cr_assert_eq(ch_rwlock_unlock(l), 0);
	cr_assert_eq(child_end(writer), 0);
	cr_assert_eq(ch_rwlock_lock_shared(l, CH_TRY), 0);
	cr_assert_eq(b->value[0], 1);
}

static int reads_when_it_can(void *arg)
{
	(void)arg;
	post(b, 0);
	EXPECT(ch_rwlock_lock_shared(l, CH_FOREVER) == 0);
	post(b, 1);
	AWAIT(posted(b, 1) == 5); /* all at once */
	EXPECT(ch_rwlock_unlock(l) == 0);
	return 0;
}

Test(rwlock, a_writer_that_goes_lets_all_readers_in, .init = setup_rwlock, .fini = teardown)
{
	pid_t pid[5];

	cr_assert_eq(ch_rwlock_lock(l, CH_TRY), 0);
	for (int i = 0; i < 5; i++)
		pid[i] = child_start(reads_when_it_can, NULL);
	AWAIT(posted(b, 0) == 5);
	for (int i = 0; i < 5; i++)
		await_asleep(pid[i]);
	cr_assert_eq(ch_rwlock_unlock(l), 0);
	for (int i = 0; i < 5; i++)
		cr_assert_eq(child_end(pid[i]), 0);
}

static void *holds_for_reading(void *arg)
{
	cr_assert_eq(ch_rwlock_lock_shared(arg, CH_TRY), 0);
	post(b, 0);
	await_post(b, 1);
	cr_assert_eq(ch_rwlock_unlock(arg), 0);
	return NULL;
}

static int sleeps_for_a_slot(void *arg)
{
	post(b, 2);
	EXPECT(ch_rwlock_lock_shared(arg, CH_FOREVER) == 0);
	EXPECT(ch_rwlock_unlock(arg) == 0);
	return 0;
}

Test(rwlock, more_readers_than_there_is_room_for_wait, .init = setup_rwlock, .fini = teardown)
{
	struct ch_rwlock *small = with_room_for(8);
	pthread_t t[8];
	pid_t pid;

	for (int i = 0; i < 8; i++) {
		t[i] = thread_start(holds_for_reading, small);
		AWAIT(posted(b, 0) == i + 1);
	}
	cr_assert_eq(ch_rwlock_lock_shared(small, CH_TRY), -EAGAIN);
	cr_assert_eq(ch_rwlock_lock_shared(small, 5 * MS), -ETIMEDOUT);
	pid = child_start(sleeps_for_a_slot, small);
	await_post(b, 2);
	await_asleep(pid);
	go(1);
	cr_assert_eq(child_end(pid), 0);
	for (int i = 0; i < 8; i++)
		pthread_join(t[i], NULL);
	cr_assert_eq(ch_rwlock_lock(small, CH_TRY), 0);
}

static int writes_and_dies(void *arg)
{
	(void)arg;
	EXPECT(ch_rwlock_lock(l, CH_FOREVER) >= -EOWNERDEAD);
	post(b, 3);
	return wait_to_be_killed();
}

static void kill_a_writer(void)
{
	pid_t pid;

	b->step[3] = 0;
	pid = child_start(writes_and_dies, NULL);
	await_post(b, 3);
	child_kill(pid);
}

Test(rwlock, the_death_of_a_writer_is_told_once_to_whoever_comes_next, .init = setup_rwlock, .fini = teardown)
{
	kill_a_writer();
	cr_assert_eq(ch_rwlock_lock(l, CH_FOREVER), -EOWNERDEAD, "%s", ch_errmsg());
	cr_assert_eq(ch_rwlock_unlock(l), 0);
	cr_assert_eq(ch_rwlock_lock_shared(l, CH_TRY), 0);
	cr_assert_eq(ch_rwlock_unlock(l), 0);
	kill_a_writer();
	cr_assert_eq(ch_rwlock_lock_shared(l, CH_FOREVER), -EOWNERDEAD);
	in_child(reads, NULL);
	in_child(refused_to_write, NULL);
	cr_assert_eq(ch_rwlock_unlock(l), 0);
	cr_assert_eq(ch_rwlock_lock(l, CH_TRY), 0, "once");
}

static int is_told_and_dies(void *arg)
{
	(void)arg;
	EXPECT(ch_rwlock_lock_shared(l, CH_FOREVER) == -EOWNERDEAD);
	post(b, 4);
	return wait_to_be_killed();
}

Test(rwlock, a_reader_that_was_told_and_dies_before_it_lets_go_tells_the_next, .init = setup_rwlock, .fini = teardown)
{
	pid_t pid;

	kill_a_writer();
	pid = child_start(is_told_and_dies, NULL);
	await_post(b, 4);
	child_kill(pid);
	cr_assert_eq(ch_rwlock_lock(l, CH_FOREVER), -EOWNERDEAD);
	cr_assert_eq(ch_rwlock_unlock(l), 0);
	cr_assert_eq(ch_rwlock_lock(l, CH_TRY), 0);
}

static int reads_and_dies(void *arg)
{
	(void)arg;
	EXPECT(ch_rwlock_lock_shared(l, CH_FOREVER) == 0);
	EXPECT(ch_rwlock_lock_shared(l, CH_FOREVER) == 0);
	post(b, 3);
	return wait_to_be_killed();
}

Test(rwlock, the_death_of_a_reader_is_repaired_in_silence, .init = setup_rwlock, .fini = teardown)
{
	pid_t pid[3], writer;

	for (int i = 0; i < 3; i++)
		pid[i] = child_start(reads_and_dies, NULL);
	AWAIT(posted(b, 3) == 3);
	writer = child_start(writes_when_it_can, NULL);
	await_post(b, 0);
	await_asleep(writer);
	for (int i = 0; i < 3; i++)
		child_kill(pid[i]);
	cr_assert_eq(child_end(writer), 0);
}

static int wants_to_write(void *arg)
{
	(void)arg;
	post(b, 4);
	EXPECT(ch_rwlock_lock(l, CH_FOREVER) == 0);
	return 0;
}

Test(rwlock, a_writer_that_dies_waiting_is_no_news, .init = setup_rwlock, .fini = teardown)
{
	pid_t pid;

	cr_assert_eq(ch_rwlock_lock_shared(l, CH_TRY), 0);
	pid = child_start(wants_to_write, NULL);
	await_post(b, 4);
	await_asleep(pid);
	child_kill(pid);
	AWAIT(child_end(child_start(reads, NULL)) == 0);
	cr_assert_eq(ch_rwlock_unlock(l), 0);
	cr_assert_eq(ch_rwlock_lock(l, CH_FOREVER), 0);
}

static void *ends_holding(void *arg)
{
	cr_assert_eq(arg ? ch_rwlock_lock(l, CH_FOREVER) : ch_rwlock_lock_shared(l, CH_FOREVER), 0);
	return NULL;
}

Test(rwlock, the_end_of_a_thread_is_as_a_death, .init = setup_rwlock, .fini = teardown)
{
	pthread_join(thread_start(ends_holding, l), NULL);
	cr_assert_eq(ch_rwlock_lock(l, CH_FOREVER), -EOWNERDEAD);
	cr_assert_eq(ch_rwlock_unlock(l), 0);
	pthread_join(thread_start(ends_holding, NULL), NULL);
	cr_assert_eq(ch_rwlock_lock(l, CH_FOREVER), 0);
}

static int mixes(void *arg)
{
	uint64_t rs = (uint64_t)(uintptr_t)arg;

	for (int i = 0; i < 5000; i++)
		if (rnd(&rs) % 4) {
			EXPECT(ch_rwlock_lock_shared(l, CH_FOREVER) == 0);
			EXPECT(b->value[0] == b->value[1]);
			EXPECT(ch_rwlock_unlock(l) == 0);
		} else {
			EXPECT(ch_rwlock_lock(l, CH_FOREVER) == 0);
			b->value[0]++;
			b->value[1]++;
			if (rnd(&rs) % 2)
				EXPECT(ch_rwlock_downgrade(l) == 0);
			EXPECT(b->value[0] == b->value[1]);
			EXPECT(ch_rwlock_unlock(l) == 0);
		}
	return 0;
}

Test(rwlock, guards_plain_memory_between_processes, .init = setup_rwlock, .fini = teardown)
{
	pid_t pid[4];

	for (uintptr_t i = 0; i < 4; i++)
		pid[i] = child_start(mixes, (void *)(i * 77 + 1)); /* NOLINT: a number that travels as a pointer */
	for (int i = 0; i < 4; i++)
		cr_assert_eq(child_end(pid[i]), 0);
}

static int until_destroyed(void *arg)
{
	post(b, 0);
	EXPECT((arg ? ch_rwlock_lock(l, CH_FOREVER) : ch_rwlock_lock_shared(l, CH_FOREVER)) == -ESTALE);
	return 0;
}

Test(rwlock, destroyed_it_is_stale_for_sleepers, .init = setup_rwlock, .fini = teardown)
{
	pid_t reader, writer;

	cr_assert_eq(ch_rwlock_lock(l, CH_TRY), 0);
	reader = child_start(until_destroyed, NULL);
	writer = child_start(until_destroyed, l);
	AWAIT(posted(b, 0) == 2);
	await_asleep(reader);
	await_asleep(writer);
	ch_rwlock_destroy(l);
	cr_assert_eq(child_end(reader), 0);
	cr_assert_eq(child_end(writer), 0);
	cr_assert(pool_is_as_before(pool, &empty));
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deaths in a quiet system. Where messages keep flowing, the next one heals a wake-up that a killed process took with
 * it; here none follows. Each round ends only when every live sender is done and every message that was sent by one is
 * received, and the watchdog of the test bounds that.
 */
#include "../support/support.h"
#include <criterion/criterion.h>

TestSuite(quiet, .timeout = WATCHDOG_S);

#define NR_ROUNDS 150

static struct ch_pool *pool;
static struct ch_channel *ch;
static struct ch_pool_stats before;

/* Shared: how many messages of live senders were sent and received. A victim's messages carry 0. */
struct score {
	int sent, received;
};
static struct score *score;

static void setup(void)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;

	score = mmap(NULL, sizeof(*score), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pool = pool_of(512 << 10);
	attr.capacity = 2;
	cr_assert_eq(ch_channel_create(pool, &attr, &ch), 0, "%s", ch_errmsg());
	cr_assert_eq(ch_pool_get_stats(pool, &before), 0);
}

static void teardown(void)
{
	cr_assert(pool_is_as_before(pool, &before));
	ch_pool_destroy(pool);
}

/* arg: how many to send; negative: as a victim, without end. */
static int sends(void *arg)
{
	int nr = (int)(intptr_t)arg;
	unsigned char buf[600] = { nr > 0 };

	for (int i = 0; nr < 0 || i < nr; i++) {
		EXPECT(ch_channel_send(ch, buf, i % 2 ? 600 : 8, CH_FOREVER) == 0);
		if (nr > 0)
			__atomic_add_fetch(&score->sent, 1, __ATOMIC_SEQ_CST);
	}
	return 0;
}

static int receives(void *arg)
{
	unsigned char buf[600];
	ssize_t n;

	(void)arg;
	while ((n = ch_channel_recv(ch, buf, sizeof(buf), CH_FOREVER)) > 0)
		__atomic_add_fetch(&score->received, buf[0], __ATOMIC_SEQ_CST);
	EXPECT(n == -EPIPE);
	return 0;
}

/* Receives one message and then nothing more, so that its loss shows: it is killed before or after. */
static int dawdles(void *arg)
{
	unsigned char buf[600];

	(void)arg;
	ch_channel_recv(ch, buf, sizeof(buf), 0);
	for (;;)
		if (ch_channel_recv(ch, buf, 0, CH_FOREVER) == -EPIPE) /* never fits: looks, and leaves it there */
			return 0;
}

static void spin_for(uint64_t ns)
{
	for (int64_t until = now_ns() + (int64_t)ns; now_ns() < until;)
		;
}

Test(quiet, killed_senders_hang_nobody, .init = setup, .fini = teardown)
{
	uint64_t seed = test_seed();
	pid_t receiver[2];

	for (int i = 0; i < 2; i++)
		receiver[i] = child_start(receives, NULL);
	for (int round = 0; round < NR_ROUNDS; round++) {
		pid_t victim = child_start(sends, (void *)(intptr_t)-1);
		pid_t sender = child_start(sends, (void *)(intptr_t)(1 + rnd(&seed) % 3));

		spin_for(rnd(&seed) % 1500000);
		child_kill(victim);
		cr_assert_eq(child_end(sender), 0);
		AWAIT(__atomic_load_n(&score->received, __ATOMIC_SEQ_CST) >= score->sent);
		cr_assert_eq(score->received, score->sent);
	}
	cr_assert_eq(ch_channel_close(ch), 0);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(child_end(receiver[i]), 0);
}

Test(quiet, killed_receivers_that_only_looked_lose_nothing, .init = setup, .fini = teardown)
{
	uint64_t seed = test_seed();
	pid_t receiver = child_start(receives, NULL);

	for (int round = 0; round < NR_ROUNDS; round++) {
		pid_t victim[2], sender;

		for (int i = 0; i < 2; i++)
			victim[i] = child_start(dawdles, NULL);
		sender = child_start(sends, (void *)(intptr_t)(1 + rnd(&seed) % 3));
		spin_for(rnd(&seed) % 1500000);
		child_kill(victim[0]);
		child_kill(victim[1]);
		cr_assert_eq(child_end(sender), 0);
		/* A victim's first, trying call may have had one message each. */
		AWAIT(__atomic_load_n(&score->received, __ATOMIC_SEQ_CST) >= score->sent - 2 && ch_channel_count(ch) == 0);
		score->sent = score->received = 0;
	}
	cr_assert_eq(ch_channel_close(ch), 0);
	cr_assert_eq(child_end(receiver), 0);
}

static int sleeps_in_recv(void *arg)
{
	unsigned char buf[600];

	(void)arg;
	ch_channel_recv(ch, buf, sizeof(buf), CH_FOREVER);
	return 0;
}

/* The victim may be killed in its sleep, while it is being woken, or holding the message. */
Test(quiet, a_message_for_two_sleepers_reaches_the_one_that_lives, .init = setup, .fini = teardown)
{
	uint64_t seed = test_seed();

	for (int round = 0; round < NR_ROUNDS; round++) {
		pid_t victim = child_start(sleeps_in_recv, NULL);
		pid_t other = child_start(sleeps_in_recv, NULL);

		await_asleep(victim);
		await_asleep(other);
		cr_assert_eq(ch_channel_send(ch, "12345678", rnd(&seed) % 2 ? 8 : 1, CH_TRY), 0);
		spin_for(rnd(&seed) % 60000);
		child_kill(victim);
		AWAIT(ch_channel_count(ch) == 0); /* the victim had it, or the other has it now; it lies nowhere */
		ch_channel_send(ch, "x", 1, CH_FOREVER); /* one for the other, if it went empty-handed */
		cr_assert_eq(child_end(other), 0);
		while (ch_pool_sweep(pool) > 0)
			; /* what the victim held is offered again now, not to a sleeper of the next round */
		while (ch_channel_recv(ch, (char[8]){ 0 }, 8, CH_TRY) >= 0)
			;
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/* crew.cpp - what the children of the kill test do until they are killed. Public API only, but for the hook. */
#include "crash.h"
#include "crew.h"
#include <unordered_map>

namespace torture {

stage_set the;
child *self;
uint64_t rs;
const char *in_call = "attach";

#ifdef CH_CRASH_POINTS
static void on_crash_point(int point)
{
	if (!self)
		return;
	the.ev->passes[static_cast<int>(self->what)][point]++;
	if (point == ch::core::CP_recv_found || point == ch::core::CP_recover_found || point == ch::core::CP_spsc_read)
		self->found = true;
	if (point == ch::core::CP_recv_delivered || point == ch::core::CP_spsc_delivered)
		self->delivered = true;
	if (point == self->kill_point && !the.ev->stop && --self->countdown <= 0) {
		self->is_exact = gettid() == getpid();
		self->died_at = point + 1;
		the.ev->hits[point]++;
		kill(getpid(), SIGKILL);
	}
	if (rnd(&rs) % 256 == 0) /* let somebody else in between two steps */
		rnd(&rs) % 4 ? (void)sched_yield() : short_nap();
}

void arm_crash_points(evidence *ev)
{
	the.ev = ev;
	ch::core::ch_crash_hook = on_crash_point;
}

int nr_crash_points()
{
	return ch::core::CH_NR_CRASH_POINTS;
}

const char *crash_point_name(int point)
{
	static const char *const names[] = {
#define X(name) #name,
		CH_CRASH_POINTS_LIST(X)
#undef X
	};
	return names[point];
}
#else
void arm_crash_points(evidence *)
{
}

int nr_crash_points()
{
	return 0;
}

const char *crash_point_name(int)
{
	return "";
}
#endif

/* Says what went wrong and in which state the pool was. */
[[noreturn]] static void fail(struct ch_channel *ch, int err)
{
	struct ch_pool_stats st = {};
	const char *text = err == -ETIMEDOUT ? "" : ch_errmsg();

	fprintf(stderr, "%s %d: %s: %s %s\n", role_names[static_cast<int>(self->what)], getpid(), in_call, strerror(-err),
		text);
	if (ch && ch_pool_get_stats(ch_channel_get_pool(ch), &st) == 0)
		fprintf(stderr, "  the channel holds %zd; the pool: %llu of %llu used in %llu blocks, largest %llu, %u peers\n",
			ch_channel_count(ch), (unsigned long long)st.used, (unsigned long long)st.len,
			(unsigned long long)st.nr_used, (unsigned long long)st.largest, st.nr_peers);
	the.ev->last_error = err;
	(err == -ETIMEDOUT ? the.ev->timeouts : the.ev->errors)++;
	_exit(4);
}

static void note_duration(int64_t begin)
{
	const auto took = static_cast<uint64_t>(now_ns() - begin);
	uint64_t longest = the.ev->longest_ns;

	while (took > longest && !the.ev->longest_ns.compare_exchange_weak(longest, took))
		;
}

static struct ch_channel *enter()
{
	struct ch_channel *ch = nullptr;

	if (self->inherits)
		return the.inherited;
	if (int err = ch_channel_attach(&the.ev->channel, &ch); err < 0)
		fail(nullptr, err);
	return ch;
}

/* In good order, or as a program that forgot. */
[[noreturn]] static void leave(struct ch_channel *ch)
{
	if (rnd(&rs) % 4)
		ch_channel_detach(ch);
	_exit(0);
}

/* A block of its own now and then, kept for a while. */
static void use_memory(struct ch_channel *ch)
{
	static void *kept;
	struct ch_pool *pool = ch_channel_get_pool(ch);
	void *p = nullptr;

	if (rnd(&rs) % 4)
		return;
	in_call = "alloc and free";
	if (int err = ch_pool_alloc(pool, 1 + rnd(&rs) % 3000, CH_TRY, &p); err < 0 && err != -ENOSPC)
		fail(ch, err);
	if (int err = ch_pool_free(pool, kept); err < 0)
		fail(ch, err);
	kept = p;
}

[[noreturn]] static void produce()
{
	struct ch_channel *ch = enter();
	poller by_set(ch, is_urgent(self->who) ? CH_POLL_OUT_URGENT : CH_POLL_OUT, &rs);
	const uint32_t nr = rnd(&rs) % 8 ? NR_SEQ : 1 + static_cast<uint32_t>(rnd(&rs) % NR_SEQ);

	for (uint32_t seq = 0; seq < nr && !the.ev->stop;) {
		const message_id id = { self->who, seq };
		const int64_t begin = now_ns();

		use_memory(ch);
		self->stage = IN_SEND;
		const int n = send_some(ch, id, nr - seq, by_set);
		if (n < 0)
			fail(ch, n);
		if (n > 0)
			the.book->committed({ self->who, seq + static_cast<uint32_t>(n) - 1 });
		self->stage = IDLE;
		self->nr_done += static_cast<uint64_t>(n);
		the.ev->sent += static_cast<uint64_t>(n);
		seq += static_cast<uint32_t>(n);
		note_duration(begin);
	}
	leave(ch);
}

/*
 * The message in the buffer counts from here on; its order and its bytes are looked at afterwards. then: IN_BATCH while
 * others of its batch are still in hand, without an instant between in which a kill would not be known to take them along.
 */
void account(message_id id, const void *data, size_t len, uint32_t flags, stage then)
{
	static std::unordered_map<uint32_t, uint32_t> next; /* of each sender, one more than the highest seen here */

	if (!the.book->is_id(id)) {
		the.ev->corrupt++;
		return;
	}
	the.book->received(id);
	self->stage = then;
	self->nr_done++;
	the.ev->received++;
	uint32_t &expected = next[id.who];
	if (flags & CH_MESSAGE_REDELIVERED)
		; /* in no order */
	else if (id.seq < expected)
		the.ev->late++;
	else
		expected = id.seq + 1;
	if (!is_whole(data, len, id))
		the.ev->corrupt++;
}

void begin_receiving(int stage)
{
	self->buf.id = { UINT32_MAX, UINT32_MAX };
	self->found = false;
	self->delivered = false;
	self->stage = stage;
}

[[noreturn]] static void consume()
{
	struct ch_channel *ch = enter();
	poller by_set(ch, CH_POLL_IN, &rs);
	const uint64_t enough = rnd(&rs) % 8 ? UINT64_MAX : rnd(&rs) % 500;

	for (uint64_t i = 0; i < enough; i++) {
		const int64_t timeouts[] = { CH_TRY, 20 * MS, 1 * MS, PATIENCE, CH_FOREVER, CH_FOREVER };
		const int64_t timeout = by_set ? CH_TRY : the.ev->drain ? 20 * MS : timeouts[rnd(&rs) % 6];
		int err = receive_some(ch, timeout);

		self->stage = IDLE;
		if (by_set && err == -EAGAIN) {
			in_call = "wait for a message in a poll set";
			err = by_set.wait(the.ev->drain ? 20 * MS : PATIENCE);
			if (err == -ETIMEDOUT && !the.ev->drain)
				fail(ch, err);
		}
		if (err == -EBUSY && the.ev->what == kind::spsc) {
			if (the.ev->drain)
				break; /* who has the role drains */
			short_nap();
			continue;
		}
		if (err == -EPIPE)
			break;
		if ((err < 0 && err != -EAGAIN && err != -ETIMEDOUT) || (err == -ETIMEDOUT && timeout == PATIENCE))
			fail(ch, err);
	}
	leave(ch);
}

[[noreturn]] static void reap()
{
	struct ch_channel *ch = enter();

	while (!the.ev->drain) {
		in_call = "sweep";
		if (int n = ch_pool_sweep(ch_channel_get_pool(ch)); n < 0)
			fail(ch, n);
		use_memory(ch);
		self->nr_done++;
		short_nap();
	}
	leave(ch);
}

/* A channel of its own, that ends with it whether it is killed or forgets. */
static void make_a_channel(struct ch_channel *ch, const char *bytes)
{
	struct ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	struct ch_channel *own = nullptr;

	attr.capacity = 4;
	attr.flags = CH_CHANNEL_ENDS_WITH_CREATOR;
	in_call = "create";
	if (int err = ch_channel_create(ch_channel_get_pool(ch), &attr, &own); err < 0) {
		if (err != -ENOSPC)
			fail(ch, err);
		return;
	}
	ch_channel_send(own, bytes, rnd(&rs) % 5000, CH_TRY);
	if (rnd(&rs) % 8)
		ch_channel_destroy(own);
}

/* Attaches the side channel, leaves messages in it, and most times destroys it. */
[[noreturn]] static void end_channels()
{
	struct ch_channel *ch = nullptr;
	static char bytes[5000];

	while (!the.ev->drain) {
		const uint32_t version = the.ev->side_version;
		const struct ch_descr d = the.ev->side;

		if (version % 2 || version != the.ev->side_version) {
			short_nap();
			continue;
		}
		if (int err = ch_channel_attach(&d, &ch); err < 0) {
			if (err != -ESTALE)
				fail(nullptr, err);
			short_nap();
			continue;
		}
		for (uint64_t i = rnd(&rs) % 6; i > 0; i--) {
			ch_channel_send(ch, bytes, rnd(&rs) % sizeof(bytes), CH_TRY);
			if (rnd(&rs) % 2)
				ch_channel_recv(ch, bytes, sizeof(bytes), CH_TRY);
		}
		make_a_channel(ch, bytes);
		self->nr_done++;
		rnd(&rs) % 2 ? ch_channel_destroy(ch) : ch_channel_detach(ch);
	}
	_exit(0);
}

void play(const stage_set &set, child &me)
{
	the = set;
	rs = me.seed;
	self = &me;
	switch (me.what) {
	case role::producer: produce();
	case role::consumer: consume();
	case role::reaper: reap();
	case role::ender: break;
	}
	end_channels();
}

} // namespace torture

// SPDX-License-Identifier: Apache-2.0
// spmd.cpp - pools whose workers are the other ranks of a job: processes that were started beforehand, all alike.
//
// They meet in a segment whose name is made of the job's: rank 0 makes it and writes there how to enter the pool's room. Who
// comes earlier looks again now and then; if the segment is what a dead job has left, it waits for the new one. In the
// arrivals channel a rank says that it is there, and that it leaves. Rank 0 watches the others by pidfd: they are not its
// children. They learn of its end by that of the room's channels, which go with their creator.
#include "core.h"
#include "peer.h"

#include <cerrno>
#include <cstdlib>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace ch::detail {
namespace {

constexpr std::chrono::seconds patience{60};

struct place {
	static constexpr std::uint64_t magic_value = 0x6368706c61636532;

	std::atomic<std::uint64_t> magic; // [S1] last
	std::atomic<std::uint64_t> main;  // rank 0, first
	room_key key;
	descriptor arrivals;
};

struct arrival {
	std::uint32_t index;
	std::uint32_t is_leaving;
	ch_peer who;
};

// All ranks make their pools in the same order.
std::string next_name(const rank &r)
{
	static std::atomic<unsigned> nr = 0;
	std::string s = "pool." + std::to_string(getuid()) + "." + (r.job.empty() ? "job" : r.job) + ".";

	s += std::to_string(nr.fetch_add(1, std::memory_order_relaxed)); // a counter
	for (char &c : s)
		if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '-')
			c = '_';
	return s.substr(s.size() > 180 ? s.size() - 180 : 0);
}

class segment_handle {
public:
	segment_handle() = default;
	explicit segment_handle(ch_segment *s) noexcept : s_(s) {}
	segment_handle(segment_handle &&o) noexcept : s_(std::exchange(o.s_, nullptr)) {}
	segment_handle &operator=(segment_handle &&o) noexcept
	{
		std::swap(s_, o.s_);
		return *this;
	}
	~segment_handle() { ch_segment_detach(s_); }
	place &operator*() const noexcept { return *static_cast<place *>(ch_segment_addr(s_)); }
	explicit operator bool() const noexcept { return s_; }
	void destroy() noexcept { ch_segment_destroy(std::exchange(s_, nullptr)); }

private:
	ch_segment *s_ = nullptr;
};

segment_handle find(const std::string &name)
{
	ch_segment *s = nullptr;
	const int rc = ch_segment_attach_name(name.c_str(), &s);

	if (rc < 0 && rc != -ENOENT && rc != -ESTALE && rc != -EPROTO) // being made, or being ended
		raise(rc);
	return segment_handle(rc < 0 ? nullptr : s);
}

bool is_stale(const place &p)
{
	const ch_peer main{p.main.load(std::memory_order_relaxed)}; // says nothing but itself

	return main.id && ch_peer_is_alive(main) == 0;
}

// What a dead rank 0 has left, the names of its room and of its meeting place.
void clear_away(segment_handle &old) noexcept
{
	ch_segment *room = nullptr;

	// [S1] pairs with [S1] in start_ranks().
	if ((*old).magic.load(std::memory_order_acquire) == place::magic_value &&
	    ch_segment_attach(&(*old).key.segment, &room) == 0)
		ch_segment_destroy(room);
	old.destroy();
}

segment_handle create(const std::string &name)
{
	ch_segment_attr attr = CH_SEGMENT_ATTR_INIT;
	ch_segment *s = nullptr;

	attr.len = sizeof(place);
	attr.name = name.c_str();
	attr.max_peers = 65536;
	int rc = ch_segment_create(&attr, &s);
	if (rc == -EEXIST) {
		segment_handle old = find(name);

		if (old && is_stale(*old))
			clear_away(old);
		rc = ch_segment_create(&attr, &s);
	}
	check(rc);
	segment_handle made(s);
	(*made).main.store(ch_peer_self().id, std::memory_order_relaxed);
	return made;
}

// The meeting place, made by a rank 0 that lives.
segment_handle await(const std::string &name)
{
	const deadline until(nanoseconds(patience).count());

	for (useconds_t pause = 100;; pause = std::min<useconds_t>(2 * pause, 20000)) {
		segment_handle s = find(name);

		// [S1] pairs with [S1] in start_ranks().
		if (s && (*s).magic.load(std::memory_order_acquire) == place::magic_value && !is_stale(*s))
			return s;
		if (until.is_over())
			throw error(ETIMEDOUT, "pool: rank 0 of the job does not make it");
		usleep(pause);
	}
}

} // namespace

struct meeting {
	segment_handle at;
	handle<ch_channel, ch_channel_destroy> arrivals;
	std::thread hearing;
	std::size_t nr_came = 0; // under the core's lock
	int bell = -1; // eventfd: somebody came, or the end
	std::atomic<bool> is_ending{false};

	~meeting()
	{
		if (bell >= 0)
			close(bell);
		at.destroy();
	}
	void ring() const noexcept
	{
		const std::uint64_t one = 1;

		(void)!write(bell, &one, sizeof(one));
	}
};

core::~core() = default;

void core::start_ranks(const rank &r)
{
	ch_channel_attr attr = CH_CHANNEL_ATTR_INIT;
	ch_channel *c = nullptr;
	auto m = std::make_shared<meeting>();

	m->at = create(next_name(r));
	m->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->bell < 0)
		throw error(errno, "pool: eventfd");
	attr.inline_max = sizeof(arrival);
	attr.flags = CH_CHANNEL_ENDS_WITH_CREATOR;
	check(ch_channel_create(room_->pool(), &attr, &c));
	m->arrivals.reset(c);
	place &p = *m->at;
	p.key = room_->key();
	check(ch_channel_get_descr(c, &p.arrivals));
	publish_modules();
	p.magic.store(place::magic_value, std::memory_order_release); // [S1] pairs with [S1]: all else is there
	meeting_ = std::move(m);
	meeting_->hearing = quiet_thread([this] { hear_ranks(); });
	monitor_ = quiet_thread([this] { watch_ranks(); });
	// A short job might be over before the last one comes, who would then wait for what has been.
	lock l(m_);
	const bool are_there = gone_.wait_for(l, patience, [this] { return meeting_->nr_came == workers_.size(); });
	is_stopping_ = !are_there;
	l.unlock();
	if (are_there)
		return;
	end_monitor();
	throw error(ETIMEDOUT, "pool: not all ranks of the job make it");
}

// Who comes, and who leaves in good order.
void core::hear_ranks() noexcept
{
	arrival a;

	while (ch_channel_recv(meeting_->arrivals.get(), &a, sizeof(a), CH_FOREVER) == sizeof(a)) {
		const lock l(m_);

		if (a.index >= workers_.size())
			continue;
		workers_[a.index] = worker{a.who, !a.is_leaving};
		meeting_->nr_came += !a.is_leaving;
		gone_.notify_all();
		wake_done();
		poke();
		meeting_->ring();
	}
}

void core::watch_ranks() noexcept
try {
	std::vector<pollfd> fds;
	std::vector<ch_exit> watched, dead;
	std::size_t nr_gone = 0;

	// Relaxed: the bell orders it.
	while (!meeting_->is_ending.load(std::memory_order_relaxed)) {
		fds.assign(1, {meeting_->bell, POLLIN, 0});
		watched.clear();
		dead.clear();
		{
			const lock l(m_);
			for (std::uint32_t i = 0; i < workers_.size(); i++) {
				const ch_exit e{workers_[i].peer, i, SIGKILL}; // how it really ended its parent knows
				const int fd = workers_[i].is_running ? pidfd_of(e.peer) : -1;

				if (fd >= 0) {
					fds.push_back({fd, POLLIN, 0});
					watched.push_back(e);
				} else if (workers_[i].is_running && fd == -ESRCH) {
					dead.push_back(e);
				}
			}
		}
		if (dead.empty())
			poll(fds.data(), fds.size(), -1);
		std::uint64_t n;
		(void)!read(meeting_->bell, &n, sizeof(n));
		for (std::size_t i = 1; i < fds.size(); i++) {
			if (fds[i].revents)
				dead.push_back(watched[i - 1]);
			::close(fds[i].fd);
		}
		if (dead.empty() || meeting_->is_ending.load(std::memory_order_relaxed))
			continue;
		bury(dead);
		const lock l(m_);
		nr_gone += dead.size();
		if (nr_gone == workers_.size())
			give_up_locked("all other ranks are gone");
	}
} catch (...) {
	give_up("out of memory");
}

void core::end_ranks() noexcept
{
	(void)ch_channel_close(meeting_->arrivals.get());
	meeting_->hearing.join();
	meeting_->is_ending.store(true, std::memory_order_relaxed); // the bell orders it
	meeting_->ring();
	monitor_.join();
	meeting_.reset();
}

void serve_as_rank(const rank &r, const pool_options &o)
{
	segment_handle at = await(next_name(r));
	const place &p = *at;
	room here(p.key);
	ch_channel *c = nullptr;

	check(ch_channel_attach(&p.arrivals, &c));
	const handle<ch_channel, ch_channel_detach> arrivals(c);
	arrival a{r.index - 1, 0, ch_peer_self()};
	if (a.index >= p.key.nr_desks)
		throw error(EINVAL, "pool: rank 0 was told of fewer ranks");
	check(ch_channel_send(c, &a, sizeof(a), CH_FOREVER));
	serve_room(here, o, a.index);
	a.is_leaving = 1;
	(void)ch_channel_send(c, &a, sizeof(a), 1'000'000'000); // rank 0 may be gone
	if (is_stale(p)) {
		here.inherit();
		at.destroy();
	}
}

} // namespace ch::detail

namespace ch {
namespace {

bool number(const char *name, unsigned &out)
{
	const char *s = std::getenv(name);
	char *end = nullptr;

	if (!s || !*s)
		return false;
	out = static_cast<unsigned>(std::strtoul(s, &end, 10));
	return !*end;
}

std::string text(std::initializer_list<const char *> names)
{
	for (const char *name : names)
		if (const char *s = std::getenv(name); s && *s)
			return s;
	return "";
}

} // namespace

rank launched_rank()
{
	static constexpr const char *names[][2] = {{"CH_RANK", "CH_SIZE"},
						   {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
						   {"PMI_RANK", "PMI_SIZE"},
						   {"SLURM_PROCID", "SLURM_NTASKS"}};
	rank r;

	for (const auto &[index, count] : names)
		if (number(index, r.index) && number(count, r.count) && r.index < r.count) {
			r.job = text({"CH_JOB", "PMIX_NAMESPACE", "PMI_JOBID", "SLURM_JOB_ID"});
			// A step of a Slurm job is a job of its own.
			if (const std::string step = text({"SLURM_STEP_ID"}); !step.empty())
				r.job += "." + step;
			return r;
		}
	return {};
}

} // namespace ch

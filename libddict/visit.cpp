// SPDX-License-Identifier: Apache-2.0
// visit.cpp - functions that run next to the data, in children of the managers.
//
// The manager forks for each visit. The child has the index as it is then, copied by the kernel page by page where the
// manager goes on to change it, and reads keys and values where they lie; the store holds back what it can see (see
// store::begin_reading). So a visit sees one moment of a shard and stops nobody, and one that crashes, loops or writes
// where it should not is a child that is reported and killed.
//
// The child asks those of other managers that are below it in the tree, as any client would, and sends its answer to
// its manager, which passes it on: in place, if it is long.
#include "visit.hpp"
#include "manager.hpp"
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cxxabi.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

namespace ch::dd {

constexpr std::size_t jobs_max = 16; // at a time; others wait
// What a child sent before it ended has been met when the channel was empty, or so many came, after its end.
constexpr unsigned messages_max = 1024;

manager::outcome manager::visit(call &c)
{
	const char *why = nullptr;

	if (c.head.at < store_.oldest())
		return answer(c, -ERANGE), outcome::answered;
	if (c.value.size() < sizeof(visit_head))
		return answer(c, -EPROTO), outcome::answered;
	const visit_head h = load<visit_head>(c.value.data());
	const auto fn = reinterpret_cast<ddict_visitor>(address_of(h, why));

	if (!fn)
		return answer_text(c, -ENOENT, why), outcome::answered;
	if (jobs_.size() >= jobs_max)
		return outcome::on_any;
	job &j = jobs_.emplace_back();

	j.client = c.from->id;
	j.call = c.head.id;
	j.until = c.head.until;
	if (c.owner)
		j.arg = std::move(*c.owner); // its bytes stay where they are
	while (!j.secret)
		if (getrandom(&j.secret, sizeof(j.secret), 0) != sizeof(j.secret))
			j.secret = 0;
	const pid_t parent = getpid();

	store_.begin_reading();
	j.pid = fork();
	if (j.pid == 0)
		run_visit(j.secret, parent, fn, h, c);
	if (j.pid < 0) {
		store_.end_reading();
		jobs_.pop_back();
		answer_text(c, -EAGAIN, "no process can be forked to run the function");
	}
	return outcome::answered;
}

static std::string type_of(const std::exception &e)
{
	int status = 0;
	char *const text = abi::__cxa_demangle(typeid(e).name(), nullptr, nullptr, &status);
	const std::string name = text ? text : typeid(e).name();

	std::free(text);
	return name;
}

// Of what the function threw. Its own text says who it is of, if it is one of ours.
static void note_failure(request &out, std::vector<std::byte> &text)
{
	std::string why = "the function threw something that is no std::exception";

	out.arg = static_cast<std::uint64_t>(-ECANCELED);
	try {
		throw;
	} catch (const error &e) {
		out.arg = static_cast<std::uint64_t>(-std::int64_t{e.code().value()});
		out.flags = 1;
		why = e.what();
	} catch (const std::exception &e) {
		why = "the function threw " + type_of(e) + ": " + e.what();
	} catch (...) {
	}
	const auto *b = reinterpret_cast<const std::byte *>(why.data());

	text.assign(b, b + std::min(why.size(), inline_value_max));
}

// In the child: this process's memory is its own, what is shared is only read. Ends it.
void manager::run_visit(std::uint64_t secret, pid_t parent, ddict_visitor fn, const visit_head &h, const call &c) noexcept
{
	request out{static_cast<std::uint32_t>(op::visited), 0, 0, secret, 0, sizeof(request), 0, 0, -1, 0};
	std::vector<std::byte> answer;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "ddict-visit");
	if (getppid() != parent)
		_exit(1);
	try {
		const bytes arg = c.value.subspan(sizeof(h));
		const std::int64_t left = c.head.until < 0 ? CH_FOREVER : c.head.until - monotonic_ns();
		const ddict_core core = ddict_core(dir_).within(nanoseconds(left < 0 && c.head.until >= 0 ? 0 : left));
		ddict_visit::state s{store_, c.head.at, newest_, index_, nr_managers_, 0, nullptr, nullptr, {}, 0, {}, {}};
		ddict_visit v(s);

		if (h.end > h.first + 1)
			connect(dir_)->map_lazily(); // others are asked one thing
		core.set_checkpoint(c.head.at);
		s.ask(core, h, arg);
		fn(v, arg);
		answer = std::move(s.answer);
	} catch (...) {
		note_failure(out, answer);
	}
	disconnect(dir_);
	send_visited(out, answer);
	_exit(0);
}

// A long answer becomes a block of the manager's pool, which the client reads in place.
void manager::send_visited(request &head, bytes answer) noexcept
{
	std::byte small[inline_max];
	ch_message m;
	const std::size_t long_head = round_up(sizeof(head), value_align);

	if (sizeof(head) + answer.size() > inline_max &&
	    ch_channel_claim(requests_.get(), long_head + answer.size(), CH_TRY, &m) == 0) {
		head.voff = long_head;
		std::memcpy(m.data, &head, sizeof(head));
		std::memcpy(static_cast<std::byte *>(m.data) + long_head, answer.data(), answer.size());
		ch_channel_commit(requests_.get(), &m, CH_FOREVER);
		return;
	}
	if (sizeof(head) + answer.size() > inline_max) {
		static const char why[] = "there is no room for what the function answers";

		head.arg = static_cast<std::uint64_t>(-ENOSPC);
		answer = std::as_bytes(std::span(why, sizeof(why) - 1));
	}
	std::memcpy(small, &head, sizeof(head));
	if (!answer.empty())
		std::memcpy(small + sizeof(head), answer.data(), answer.size());
	ch_channel_send(requests_.get(), small, sizeof(head) + answer.size(), CH_FOREVER);
}

// A child has done what it was for. It ends by itself, and is looked for later.
void manager::visited(call &c)
{
	const auto j = std::find_if(jobs_.begin(), jobs_.end(),
				    [&](const job &x) { return !x.is_answered && x.secret == c.head.id; });
	const auto status = static_cast<std::int64_t>(c.head.arg);

	if (j == jobs_.end())
		return;
	j->is_answered = true;
	c.from = find_client(j->client);
	c.head.id = j->call;
	if (!c.from)
		return;
	if (status < 0) {
		return answer_text(*c.from, j->call, static_cast<int>(std::max<std::int64_t>(status, -4095)),
				   {reinterpret_cast<const char *>(c.value.data()), c.value.size()}, c.head.flags != 0);
	}
	if (store_.is_torn())
		return answer(c, -ENOMEM);
	version v;

	v.value = const_cast<std::byte *>(c.value.data());
	v.vlen = c.value.size();
	if (c.owner) {
		v.storage = std::make_shared<block>();
		v.storage->message = std::move(*c.owner);
	}
	send_value(c, v);
}

// Ends a job whose child is to be killed, or is dead.
void manager::fail_job(job &j, int status, std::string_view why)
{
	if (j.is_answered)
		return;
	j.is_answered = true;
	if (client *to = find_client(j.client))
		answer_text(*to, j.call, status, why);
}

static std::string end_of(int status)
{
	if (WIFSIGNALED(status))
		return "the function was killed by signal " + std::to_string(WTERMSIG(status)) + " (" +
		       strsignal(WTERMSIG(status)) + "); nothing else was harmed";
	return "the function ended its process with status " + std::to_string(WEXITSTATUS(status));
}

// is_idle: no message was there.
void manager::look_at_jobs(bool is_idle)
{
	const std::int64_t now = monotonic_ns();

	for (auto j = jobs_.begin(); j != jobs_.end();) {
		client *const to = find_client(j->client);

		if (j->pid && j->until >= 0 && j->until <= now) {
			fail_job(*j, -ETIMEDOUT, "the function has not ended in time and was killed");
			kill(j->pid, SIGKILL);
		} else if (j->pid && !j->is_answered && (!to || !ch_peer_is_alive(to->peer))) {
			j->is_answered = true;
			kill(j->pid, SIGKILL);
		}
		if (!j->pid) {
			j->looks = is_idle ? messages_max : j->looks + 1;
		} else if (waitpid(j->pid, &j->status, WNOHANG) != 0) {
			j->pid = 0; // what it sent is in the channel by now
			store_.end_reading();
		}
		if (j->looks >= messages_max)
			fail_job(*j, -ECANCELED, end_of(j->status));
		if (!j->pid && j->is_answered)
			j = jobs_.erase(j);
		else
			++j;
	}
}

// Data comes first: what visits hold back is given free when memory is short. True if that was something.
bool manager::end_jobs()
{
	if (!store_.has_held_back())
		return false;
	for (job &j : jobs_) {
		if (!j.pid)
			continue;
		kill(j.pid, SIGKILL);
		waitpid(j.pid, &j.status, 0);
		j.pid = 0;
		store_.end_reading();
		fail_job(j, -ENOSPC, "memory was short while the function ran, and it was killed to free what it kept");
	}
	return true;
}

} // namespace ch::dd

// SPDX-License-Identifier: Apache-2.0
// memory_bench.cpp - blocks and segments: allocating beside malloc, in one thread and in several; sharing and giving away;
// attaching to a segment that many processes are attached to. BENCH_PEERS (1000) is the largest number of these.
#include "bench.h"
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <signal.h>
#include <stdexcept>
#include <thread>
#include <unistd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <channels/channels.h>

using namespace bench;

namespace {

void must(int rc, const char *what)
{
	if (rc < 0)
		throw std::runtime_error(std::string(what) + ": " + strerror(-rc) + " (" + ch_errmsg() + ")");
}

struct own_pool {
	ch_pool *pool = nullptr;

	explicit own_pool(std::size_t len, std::uint32_t max_peers = 0)
	{
		ch_pool_attr attr = CH_POOL_ATTR_INIT;

		attr.len = len;
		attr.max_peers = max_peers;
		must(ch_pool_create(&attr, &pool), "ch_pool_create");
	}
	~own_pool() { ch_pool_destroy(pool); }
	own_pool(const own_pool &) = delete;
	own_pool &operator=(const own_pool &) = delete;
};

// Nanoseconds of one call of once, called again and again for as long as a measurement takes; the first tenth is not counted.
template <class Fn> double each_ns(Fn once)
{
	const auto run = static_cast<std::uint64_t>(static_cast<double>(conf().run_ns) * ticks_per_ns());
	const std::uint64_t begin = ticks();
	std::uint64_t start = 0, now, nr = 0;

	while ((now = ticks()) - begin < run) {
		if (!start && now - begin > run / 10) {
			start = now;
			nr = 0;
		}
		for (int i = 0; i < 64; i++, nr++)
			once();
	}
	return start ? static_cast<double>(now - start) / ticks_per_ns() / static_cast<double>(nr) : 0;
}

template <class Fn> sample measured(Fn fn)
{
	sample s;

	try {
		s.value = fn();
		s.is_starved = s.value <= 0;
	} catch (const std::exception &e) {
		s.error = e.what();
	}
	return s;
}

// ---- blocks

void alloc_free(ch_pool *pool, std::size_t len)
{
	void *p;

	must(ch_pool_alloc(pool, len, CH_TRY, &p), "ch_pool_alloc");
	*static_cast<volatile char *>(p) = 1;
	must(ch_pool_free(pool, p), "ch_pool_free");
}

void malloc_free(std::size_t len)
{
	void *volatile p = std::malloc(len);

	*static_cast<volatile char *>(p) = 1;
	std::free(p);
}

// Many at a time: allocated all, and then freed in the order in which they came.
constexpr std::size_t nr_many = 64;

template <class Alloc, class Free> double many_ns(Alloc alloc, Free release)
{
	void *p[nr_many];

	return each_ns([&] {
		for (void *&x : p)
			x = alloc();
		for (void *x : p)
			release(x);
	}) / nr_many;
}

// Threads that do the same at once: the time of one of them for one.
template <class Fn> double threads_ns(int nr, Fn once)
{
	std::vector<double> ns(static_cast<std::size_t>(nr));
	std::vector<std::thread> threads;
	double sum = 0;

	for (double &x : ns)
		threads.emplace_back([&x, once] { x = each_ns(once); });
	for (std::thread &t : threads)
		t.join();
	for (double x : ns)
		sum += x / nr;
	return sum;
}

void add_block_rows()
{
	for (std::size_t len : {64, 128, 1024, 4096, 16384, 65536})
		add_row({"pool/alloc_free/" + std::to_string(len), "ns for both; baseline: malloc and free",
			 [=] {
				 return measured([=] {
					 own_pool o(16 << 20);
					 return each_ns([&] { alloc_free(o.pool, len); });
				 });
			 },
			 [=] { return measured([=] { return each_ns([=] { malloc_free(len); }); }); }});
	for (std::size_t len : {128, 4096})
		add_row({"pool/alloc_free_64/" + std::to_string(len), "ns for both, 64 at a time; baseline: malloc and free",
			 [=] {
				 return measured([=] {
					 own_pool o(16 << 20);
					 return many_ns(
						 [&] {
							 void *p;
							 must(ch_pool_alloc(o.pool, len, CH_TRY, &p), "ch_pool_alloc");
							 return p;
						 },
						 [&](void *p) { must(ch_pool_free(o.pool, p), "ch_pool_free"); });
				 });
			 },
			 [=] {
				 return measured([=] {
					 return many_ns([=] { return std::malloc(len); }, [](void *p) { std::free(p); });
				 });
			 }});
	add_row({"pool/alloc_free_4threads/128", "ns for both, of each of 4 threads; baseline: malloc and free",
		 [] { return measured([] { own_pool o(16 << 20); return threads_ns(4, [&] { alloc_free(o.pool, 128); }); }); },
		 [] { return measured([] { return threads_ns(4, [] { malloc_free(128); }); }); }});
}

void give_and_take(ch_pool *pool, void *&p)
{
	ch_descr d;

	must(ch_block_offer(pool, p, &d), "ch_block_offer");
	must(ch_block_accept(pool, &d, &p), "ch_block_accept");
}

void share_and_drop(ch_pool *pool)
{
	ch_view *v;
	void *p;

	must(ch_pool_alloc(pool, 1024, CH_TRY, &p), "ch_pool_alloc");
	must(ch_view_create(pool, p, 1024, &v), "ch_view_create");
	ch_view_detach(v);
}

void add_sharing_rows()
{
	add_row({"block/offer_accept/1024", "ns for both", [] {
			 return measured([] {
				 own_pool o(1 << 20);
				 void *p;
				 must(ch_pool_alloc(o.pool, 1024, CH_TRY, &p), "ch_pool_alloc");
				 return each_ns([&] { give_and_take(o.pool, p); });
			 });
		 }, {}});
	add_row({"view/create_detach/1024", "ns for a block, its view, and the end of both", [] {
			 return measured([] { own_pool o(1 << 20); return each_ns([&] { share_and_drop(o.pool); }); });
		 }, {}});
	add_row({"view/clone_detach/1024", "ns for both", [] {
			 return measured([] {
				 own_pool o(1 << 20);
				 ch_view *v, *part;
				 void *p;
				 must(ch_pool_alloc(o.pool, 1024, CH_TRY, &p), "ch_pool_alloc");
				 must(ch_view_create(o.pool, p, 1024, &v), "ch_view_create");
				 const double ns = each_ns([&] {
					 must(ch_view_clone(v, 1, 10, &part), "ch_view_clone");
					 ch_view_detach(part);
				 });
				 ch_view_detach(v);
				 return ns;
			 });
		 }, {}});
}

// ---- attaching

// Processes that attach by using an inherited handle and then sleep; gone with the object.
class crowd {
	pid_t leader;

	static void grow(ch_pool *pool, int nr, int pipe_in)
	{
		void *p;

		for (int i = 0; i < nr; i++)
			if (fork() == 0) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				const char c = ch_pool_alloc(pool, 64, CH_TRY, &p) == 0;
				if (write(pipe_in, &c, 1) == 1)
					pause();
				_exit(1);
			}
		pause();
	}

public:
	crowd(ch_pool *pool, int nr)
	{
		int ends[2], nr_in = 0;

		if (pipe(ends) < 0 || (leader = fork()) < 0)
			throw std::runtime_error("cannot fork");
		if (leader == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			grow(pool, nr, ends[1]);
			_exit(1);
		}
		close(ends[1]);
		for (char c; nr_in < nr && read(ends[0], &c, 1) == 1 && c; )
			nr_in++;
		close(ends[0]);
		if (nr_in < nr)
			throw std::runtime_error("only " + std::to_string(nr_in) + " processes could attach");
	}
	~crowd()
	{
		kill(leader, SIGKILL);
		waitpid(leader, nullptr, 0);
	}
	crowd(const crowd &) = delete;
	crowd &operator=(const crowd &) = delete;
};

// A process that is no peer attaches to the segment and leaves it, over and over.
double attach_ns(int nr)
{
	own_pool o(4 << 20, static_cast<std::uint32_t>(nr) + 16);
	shared<double> ns;
	ch_descr d;
	int status;

	must(ch_pool_get_descr(o.pool, &d), "ch_pool_get_descr");
	crowd others(o.pool, nr);
	const pid_t pid = fork();
	if (pid == 0) {
		ch_segment *seg;
		ch_pool_detach(o.pool); // the inherited handle
		*ns = each_ns([&] {
			if (ch_segment_attach(&d, &seg) < 0)
				_exit(1);
			ch_segment_detach(seg);
		});
		_exit(0);
	}
	if (waitpid(pid, &status, 0) < 0 || status != 0)
		throw std::runtime_error("the attaching process failed");
	return *ns;
}

void add_attach_rows()
{
	const char *most = std::getenv("BENCH_PEERS");

	for (int nr = 10; nr <= (most ? std::atoi(most) : 1000); nr *= 10)
		add_row({"segment/attach_detach/" + std::to_string(nr), "ns for both beside so many; baseline: beside 10",
			 [=] { return measured([=] { return attach_ns(nr); }); },
			 [] { return measured([] { return attach_ns(10); }); }});
}

} // namespace

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	add_block_rows();
	add_sharing_rows();
	add_attach_rows();
	return run_rows(argc, argv, {{"libchannels", ch_version()}});
}

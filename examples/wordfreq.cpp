// SPDX-License-Identifier: Apache-2.0
// wordfreq.cpp - counts the words of a tree of text files, with a process pool and two shared dictionaries.
//
// MapReduce in two steps, each of which may be done twice without harm, so that a worker that is killed (try --chaos)
// changes nothing in the result:
//   1. a task for each group of files counts its words and puts one table for each part of the words: (part, group);
//   2. a task for each part adds its tables up and puts the totals, word by word.
#include "words.hpp"
#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <csignal>
#include <condition_variable>
#include <ddict/ddict.hpp>
#include <mutex>
#include <numeric>
#include <pool/pool.hpp>
#include <random>
#include <thread>

namespace {

using part_group = std::pair<std::uint32_t, std::uint32_t>;
using table = std::vector<std::pair<std::string, std::uint32_t>>;
using table_dict = ch::ddict<part_group, table>;
using total_dict = ch::ddict<std::string, std::uint64_t>;

struct options {
	unsigned workers = 0, managers = 0, top = 10;
	std::size_t memory = 0;
	bool verify = false, chaos = false;
	std::vector<std::string> paths;
};

// Every worker and this process use a dictionary; one that was killed keeps its place until the next one comes.
unsigned clients(const options &o)
{
	return 2 * o.workers + 8;
}

struct group {
	std::uint32_t number = 0;
	std::vector<piece> pieces;

	template <class A> void serialize(A &ar) { ar(number, pieces); }
};

std::atomic<bool> is_interrupted{false};

// Step 1.
struct count_group {
	table_dict tables;
	std::uint32_t parts = 1;

	template <class A> void serialize(A &ar) { ar(tables, parts); }
	outcome operator()(const group &g) const
	{
		counts words;
		outcome out;
		std::vector<std::pair<part_group, table>> cut(parts);

		for (const piece &p : g.pieces)
			count_piece(p, words, out);
		for (const auto &[word, n] : words)
			cut[by_text{}(word) % parts].second.emplace_back(word, static_cast<std::uint32_t>(n));
		for (std::uint32_t i = 0; i < parts; i++)
			cut[i].first = {i, g.number};
		tables.put_many(cut);
		return out;
	}
};

counts add_up(const table_dict &tables, std::uint32_t part, std::uint32_t groups)
{
	constexpr std::uint32_t at_a_time = 64;
	counts sums;

	for (std::uint32_t from = 0; from < groups; from += at_a_time) {
		std::vector<part_group> keys;

		for (std::uint32_t g = from; g < std::min(groups, from + at_a_time); g++)
			keys.emplace_back(part, g);
		for (const std::optional<table> &t : tables.get_many(keys))
			for (const auto &[word, n] : t.value())
				sums[word] += n;
	}
	return sums;
}

// How many different words a part has.
struct measure_part {
	table_dict tables;
	std::uint32_t groups = 0;

	template <class A> void serialize(A &ar) { ar(tables, groups); }
	std::uint64_t operator()(std::uint32_t part) const { return add_up(tables, part, groups).size(); }
};

// Step 2.
struct sum_part {
	table_dict tables;
	total_dict totals;
	std::uint32_t groups = 0;

	template <class A> void serialize(A &ar) { ar(tables, totals, groups); }
	std::uint64_t operator()(std::uint32_t part) const
	{
		const counts sums = add_up(tables, part, groups);

		totals.put_many(sums);
		return sums.size();
	}
};

// Kills a worker at random every 100 ms.
class monkey {
public:
	explicit monkey(const ch::pool &pool) : thread_([this, &pool](std::stop_token stop) { run(pool, stop); }) {}
	unsigned stop()
	{
		thread_.request_stop();
		thread_.join();
		return killed_;
	}

private:
	void run(const ch::pool &pool, const std::stop_token &stop)
	{
		std::mt19937_64 random{std::random_device{}()};
		std::mutex m;
		std::unique_lock<std::mutex> lock(m);

		while (!stop.stop_requested()) {
			const std::vector<pid_t> pids = pool.workers();

			if (!pids.empty() && kill(pids[random() % pids.size()], SIGKILL) == 0)
				killed_++;
			wake_.wait_for(lock, stop, std::chrono::milliseconds(100), [] { return false; });
		}
	}

	unsigned killed_ = 0;
	std::condition_variable_any wake_;
	std::jthread thread_;
};

std::vector<group> make_groups(std::vector<piece> &pieces)
{
	constexpr std::uint64_t bytes_max = 256 << 10;
	constexpr std::size_t pieces_max = 256;
	std::vector<group> groups;
	std::uint64_t bytes = 0;

	for (piece &p : pieces) {
		const std::uint64_t len = p.to - p.from;

		if (groups.empty() || bytes + len > bytes_max || groups.back().pieces.size() == pieces_max) {
			groups.push_back({static_cast<std::uint32_t>(groups.size()), {}});
			bytes = 0;
		}
		groups.back().pieces.push_back(std::move(p));
		bytes += len;
	}
	return groups;
}

// A table has each word of its group once: more than the text for a little text, much less for much.
std::size_t table_memory(std::uint64_t bytes, std::size_t tables)
{
	constexpr std::uint64_t little = 32 << 20;

	return (2 << 20) + 2 * std::min(bytes, little) + (bytes > little ? bytes - little : 0) + tables * 512;
}

struct result {
	outcome sum;
	std::uint64_t different = 0;
	double seconds = 0;
	unsigned killed = 0;
	total_dict totals;
};

void stop_if_interrupted()
{
	if (is_interrupted)
		throw std::runtime_error("interrupted");
}

outcome count_all(ch::pool &pool, const table_dict &tables, std::uint32_t parts, const std::vector<group> &groups)
{
	ch::progress_bar bar("counting", groups.size());
	std::uint64_t done = 0;
	outcome sum;

	for (const outcome &o : pool.map(count_group{tables, parts}, groups)) {
		stop_if_interrupted();
		sum += o;
		bar.show(++done);
	}
	return sum;
}

// The words are spread evenly over the parts, so that one part tells how many there will be.
total_dict make_totals(ch::pool &pool, const options &o, const table_dict &tables, std::uint32_t parts,
		       std::uint32_t groups)
{
	const std::uint64_t words = pool.submit(measure_part{tables, groups}, 0u).get();

	return total_dict({.managers = o.managers,
			   .memory = o.memory ? o.memory : (2 << 20) + (words + words / 4 + 64) * parts * 128,
			   .max_clients = clients(o)});
}

result run_job(const options &o, const std::vector<group> &groups, std::uint64_t bytes)
{
	const auto begin = std::chrono::steady_clock::now();
	const auto parts = static_cast<std::uint32_t>(
		std::clamp<std::uint64_t>(bytes >> 20, 2 * o.workers, std::max(2 * o.workers, 64u)));
	const auto nr = static_cast<std::uint32_t>(groups.size());
	const table_dict tables({.managers = o.managers,
				 .memory = o.memory ? o.memory : table_memory(bytes, groups.size() * parts),
				 .max_clients = clients(o)});
	ch::pool pool({.workers = o.workers, .max_attempts = o.chaos ? 1000000u : 3u, .name = "wordfreq"});
	std::optional<monkey> chaos;
	result r;

	if (o.chaos)
		chaos.emplace(pool);
	r.sum = count_all(pool, tables, parts, groups);
	r.totals = make_totals(pool, o, tables, parts, nr);
	ch::progress_bar bar("adding up", parts);
	std::uint64_t done = 0;
	std::vector<std::uint32_t> all_parts(parts);

	std::iota(all_parts.begin(), all_parts.end(), 0u);
	for (const std::uint64_t n : pool.map(sum_part{tables, r.totals, nr}, all_parts)) {
		stop_if_interrupted();
		r.different += n;
		bar.show(++done);
	}
	if (chaos)
		r.killed = chaos->stop();
	r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
	return r;
}

void print_top(const total_dict &totals, unsigned top)
{
	std::vector<std::pair<std::uint64_t, std::string>> best;
	const auto more = [](const auto &a, const auto &b) {
		return a.first != b.first ? a.first > b.first : a.second < b.second;
	};

	for (const auto &[word, n] : totals) {
		best.emplace_back(n, word);
		if (best.size() >= 2 * top + 1000) {
			std::nth_element(best.begin(), best.begin() + top, best.end(), more);
			best.resize(top);
		}
	}
	std::sort(best.begin(), best.end(), more);
	best.resize(std::min<std::size_t>(best.size(), top));
	for (const auto &[n, word] : best)
		std::printf("%12llu  %s\n", static_cast<unsigned long long>(n), word.c_str());
}

// Counts everything once more in this process alone. How many words differ.
std::uint64_t verify(const std::vector<group> &groups, const result &r)
{
	ch::progress_bar bar("verifying", groups.size());
	counts alone;
	outcome sum;
	std::uint64_t differences = 0;

	for (const group &g : groups) {
		for (const piece &p : g.pieces)
			count_piece(p, alone, sum);
		bar.show(g.number + 1);
	}
	for (const auto &[word, n] : r.totals) {
		const auto it = alone.find(word);

		if (it == alone.end() || it->second != n) {
			std::fprintf(stderr, "wordfreq: \"%s\" counted %llu times, but it is there %llu times\n",
				     word.c_str(), static_cast<unsigned long long>(n),
				     static_cast<unsigned long long>(it == alone.end() ? 0 : it->second));
			differences++;
		}
		if (it != alone.end())
			alone.erase(it);
	}
	for (const auto &[word, n] : alone)
		std::fprintf(stderr, "wordfreq: \"%s\" not counted, but it is there %llu times\n", word.c_str(),
			     static_cast<unsigned long long>(n));
	return differences + alone.size() + (sum.words != r.sum.words) + (sum.files != r.sum.files);
}

void report(const options &o, const result &r)
{
	constexpr std::size_t complaints = 5;
	const double mb = static_cast<double>(r.sum.bytes) / 1e6;

	for (std::size_t i = 0; i < std::min(complaints, r.sum.unreadable.size()); i++)
		std::fprintf(stderr, "wordfreq: %s\n", r.sum.unreadable[i].c_str());
	if (r.sum.unreadable.size() > complaints)
		std::fprintf(stderr, "wordfreq: and %zu more could not be read\n",
			     r.sum.unreadable.size() - complaints);
	print_top(r.totals, o.top);
	std::printf("%llu files, %.1f MB, %llu words, %llu different; %llu binary files skipped\n",
		    static_cast<unsigned long long>(r.sum.files), mb, static_cast<unsigned long long>(r.sum.words),
		    static_cast<unsigned long long>(r.different), static_cast<unsigned long long>(r.sum.binary));
	std::printf("%.2f s: %.0f files/s, %.1f MB/s, with %u workers and %u managers\n", r.seconds,
		    static_cast<double>(r.sum.files) / r.seconds, mb / r.seconds, o.workers, r.totals.managers());
	if (o.chaos)
		std::printf("chaos: %u workers killed on the way\n", r.killed);
}

int run(const options &o)
{
	outcome found;
	std::vector<piece> pieces = find_files(o.paths, found);
	std::uint64_t bytes = 0;

	for (const piece &p : pieces)
		bytes += p.to - p.from;
	for (const std::string &why : found.unreadable)
		std::fprintf(stderr, "wordfreq: %s\n", why.c_str());
	if (pieces.empty()) {
		std::fprintf(stderr, "wordfreq: no files there\n");
		return 2;
	}
	const std::vector<group> groups = make_groups(pieces);
	result r = run_job(o, groups, bytes);

	report(o, r);
	if (!o.verify)
		return 0;
	if (const std::uint64_t n = verify(groups, r)) {
		std::fprintf(stderr, "wordfreq: NOT verified: %llu differences\n", static_cast<unsigned long long>(n));
		return 1;
	}
	std::printf("verified: %llu words, %llu files\n", static_cast<unsigned long long>(r.different),
		    static_cast<unsigned long long>(r.sum.files));
	return 0;
}

} // namespace

int main(int argc, char **argv)
{
	CLI::App app("Count the words of a tree of text files, with a pool of processes and a shared dictionary.");
	options o;

	app.add_option("--workers", o.workers, "Worker processes (default: the CPUs this process may use)");
	app.add_option("--managers", o.managers,
		       "Manager processes of each dictionary (default: half of the CPUs, 1 to 4)");
	app.add_option("--top", o.top, "How many of the most frequent words to print (default 10)");
	app.add_option("--memory", o.memory, "MiB for each dictionary (default: from the size of the files)");
	app.add_flag("--verify", o.verify, "Count again in one process, and compare every word");
	app.add_flag("--chaos", o.chaos, "Kill a worker at random every 100 ms while the job runs");
	app.add_option("DIR", o.paths, "Directories or files")->required();
	CLI11_PARSE(app, argc, argv);
	o.memory <<= 20;
	o.workers = o.workers ? o.workers : ch::usable_cpus();
	std::signal(SIGINT, [](int) { is_interrupted = true; });
	std::signal(SIGTERM, [](int) { is_interrupted = true; });
	try {
		return run(o);
	} catch (const std::exception &e) {
		std::fprintf(stderr, "wordfreq: %s\n", e.what());
		return is_interrupted ? 130 : 1;
	}
}

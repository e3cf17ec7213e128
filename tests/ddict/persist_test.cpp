// SPDX-License-Identifier: Apache-2.0
// persist_test.cpp - checkpoints in files: written and restored, with as many managers and with others; damaged ones,
// and what a full disk, a missing io_uring and a file system without O_DIRECT leave.
#include "persist_support.hpp"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

TestSuite(ddict_persist, .timeout = WATCHDOG_S);

namespace {

std::string value_of(int k)
{
	return whole_value(static_cast<std::uint64_t>(k), k % 40 ? static_cast<std::size_t>(k % 300) : 100000u + k);
}

void put_all(const text_dict &d, int nr, int step = 1)
{
	for (int k = 0; k < nr; k += step)
		d.put("key" + std::to_string(k), value_of(k));
}

bool has_all(const text_dict &d, int nr)
{
	for (int k = 0; k < nr; k++)
		if (d.get_or("key" + std::to_string(k), "none") != value_of(k)) {
			fprintf(stderr, "key %d is not what it was\n", k);
			return false;
		}
	return d.size() == static_cast<std::size_t>(nr);
}

} // namespace

Test(ddict_persist, what_was_persisted_comes_back_with_any_number_of_managers)
{
	const scratch s;

	{
		const text_dict d(with(s, 3));

		put_all(d, 500);
		d.put_persistent("stays", "here");
		cr_assert_eq(d.persist(), 0u);
		d.clear();
	}
	for (const unsigned managers : {3u, 1u, 2u, 4u}) {
		const text_dict d(with(s, managers, 0));

		cr_assert_eq(d.get("stays"), "here");
		d.erase("stays");
		cr_assert(has_all(d, 500), "%u managers", managers);
	}
}

Test(ddict_persist, writes_go_on_while_a_checkpoint_is_written_and_are_no_part_of_it)
{
	const scratch s;
	std::uint64_t seed = test_seed();

	{
		const text_dict d(with(s, 2));

		put_all(d, 1000);
		std::atomic<bool> is_over{false};
		std::jthread writes([&] {
			while (!is_over) {
				const int k = static_cast<int>(rnd(&seed) % 1200);
				const std::string key = "key" + std::to_string(k);

				switch (rnd(&seed) % 4) {
				case 0:
					d.put(key, "changed");
					break;
				case 1:
					d.erase(key);
					break;
				case 2:
					d.append(key, "more");
					break;
				default:
					d.put("new" + std::to_string(k), value_of(k));
				}
			}
		});
		// The first ones are as they were at one moment: nothing was changed yet that is older than the last.
		for (std::uint64_t c = 0; c < 5; c++) {
			d.set_checkpoint(0);
			d.persist();
		}
		is_over = true;
		writes.join();
		d.clear();
		put_all(d, 1000);
		d.persist();
	}
	const text_dict d(with(s, 2, ch::ddict_newest));
	cr_assert(has_all(d, 1000));
}

// A frozen view: a value that is put after persist() began is not in it. One manager, whose walk takes a while.
Test(ddict_persist, a_checkpoint_is_as_the_store_was_at_one_moment)
{
	const scratch s;
	const int nr = 20000;

	{
		const ddict<int, std::int64_t> d(with(s, 1));

		for (int k = 0; k < nr; k++)
			d.put(k, 0);
		std::atomic<std::int64_t> round{0};
		std::atomic<bool> is_over{false};
		std::jthread writes([&] { // key after key, one higher each round: a moment is a round and a place
			while (!is_over) {
				round++;
				for (int k = 0; k < nr; k++)
					d.put(k, round);
			}
		});
		AWAIT(round > 1);
		d.persist();
		is_over = true;
	}
	const ddict<int, std::int64_t> d(with(s, 1, 0));
	const std::int64_t first = d.get(0);
	int k = 0;
	while (k < nr && d.get(k) == first)
		k++;
	for (; k < nr; k++)
		cr_assert_eq(d.get(k), first - 1, "key %d", k);
}

Test(ddict_persist, the_newest_ones_are_kept_and_listed)
{
	const scratch s;
	ch::ddict_options o = with(s, 2);

	o.persist_count = 3;
	const text_dict d(o);
	for (int i = 0; i < 6; i++) {
		d.put("k", std::to_string(i));
		d.persist();
		d.checkpoint();
	}
	AWAIT(files_of(s, "checkpoint-").size() == 9); // nobody waits for what is removed
	cr_assert(d.persisted_ids() == (std::vector<std::uint64_t>{3, 4, 5}));
	d.restore(4);
	cr_assert_eq(d.get("k"), "4");
	cr_assert_eq(d.checkpoint_id(), 4u);
	d.put("k", "again");
	d.persist(); // in place of the one that was there
	AWAIT(files_of(s, "checkpoint-").size() == 9);
	d.restore(5);
	cr_assert_eq(d.get("k"), "5");
	d.restore(4);
	cr_assert_eq(d.get("k"), "again");
	cr_assert_eq(error_of([&] { d.restore(1); }), ENOENT);
	cr_assert_eq(d.get("k"), "again");
}

Test(ddict_persist, checkpoints_are_persisted_when_they_retire)
{
	const scratch s;
	ch::ddict_options o = with(s, 2);

	o.working_set = 2;
	o.persist_freq = 3;
	{
		const ddict<int, int> d(o);

		for (int c = 0; c < 12; c++) {
			for (int k = 0; k < 50; k++)
				d.put(k, c * 1000 + k);
			d.checkpoint();
		}
		AWAIT(d.persisted_ids().size() == 4);
		cr_assert(d.persisted_ids() == (std::vector<std::uint64_t>{0, 3, 6, 9}));
	}
	const ddict<int, int> d({.managers = 1, .read_only = true, .persist_path = s.dir(), .restore_from = 0});
	const std::string listed = s.dir();
	for (int c = 0; c < 12; c += 3) {
		cr_assert_eq(d.checkpoint_id(), static_cast<std::uint64_t>(c));
		for (int k = 0; k < 50; k++)
			cr_assert_eq(d.get(k), c * 1000 + k);
		cr_assert_eq(error_of([&] { d.put(1, 1); }), EPERM);
		cr_assert_eq(d.advance().value_or(99), c == 9 ? 99u : static_cast<std::uint64_t>(c + 3));
	}
}

Test(ddict_persist, lives_and_what_is_persistent_are_kept)
{
	const scratch s;

	{
		const text_dict d(with(s, 1));

		d.put("short", "x", {.ttl = std::chrono::milliseconds(1)});
		d.put("long", "x", {.ttl = std::chrono::hours(1)});
		d.put("gone", "x");
		d.erase("gone");
		d.put("", "empty key");
		d.put("empty value", "");
		d.persist();
	}
	const std::int64_t later = now_ns() + 2 * MS;

	AWAIT(now_ns() > later);
	const text_dict d(with(s, 2, 0));
	cr_assert_not(d.contains("short"));
	cr_assert_not(d.contains("gone"));
	cr_assert_eq(d.get("long"), "x");
	cr_assert_eq(d.get(""), "empty key");
	cr_assert_eq(d.get("empty value"), "");
}

Test(ddict_persist, keys_of_a_directed_handle_are_not_lost)
{
	const scratch s;

	{
		const text_dict d(with(s, 3));

		d.put_everywhere("all", "x");
		for (unsigned m = 0; m < 3; m++)
			d.manager(m).put("m" + std::to_string(m), "y");
		d.persist();
	}
	{
		const text_dict d(with(s, 3, 0));

		for (unsigned m = 0; m < 3; m++) {
			cr_assert_eq(d.manager(m).get("all"), "x");
			cr_assert_eq(d.manager(m).get("m" + std::to_string(m)), "y");
		}
	}
	const text_dict d(with(s, 2, 0));
	cr_assert_eq(d.size(), 4u);
	for (const char *k : {"m0", "m1", "m2"})
		cr_assert_eq(d.get(k), "y");
	cr_assert_eq(d.get("all"), "x");
}

// Flips, cuts and swaps; every one names the file, and the dictionary that is there stays as it is.
Test(ddict_persist, damaged_files_are_refused_by_name)
{
	const scratch s;
	std::uint64_t seed = test_seed();
	const text_dict d(with(s, 2));

	put_all(d, 200);
	d.persist();
	d.put("only", "here");
	const std::vector<std::string> files = files_of(s, "checkpoint-");
	cr_assert_eq(files.size(), 3u);
	for (const std::string &f : files) {
		const std::string path = s.dir() + "/" + f;
		const auto size = fs::file_size(path);

		fs::copy_file(path, s.path + "/good");
		for (int i = 0; i < 24; i++) {
			const auto at = static_cast<std::streamoff>(rnd(&seed) % size);
			std::string why;

			if (i % 3 == 0) {
				fs::resize_file(path, static_cast<std::uintmax_t>(at));
			} else {
				std::fstream io(path, std::ios::in | std::ios::out | std::ios::binary);

				io.seekg(at);
				const char c = static_cast<char>(io.get() ^ (1 << rnd(&seed) % 8));
				io.seekp(at);
				io.put(c);
			}
			why = text_of([&] { d.restore(0); });
			// Padding behind a head or a tail is nobody's.
			cr_assert(why.find(f) != std::string::npos || (why.empty() && i % 3), "%s at %lld: \"%s\"",
				  f.c_str(), static_cast<long long>(at), why.c_str());
			if (!why.empty())
				cr_assert_eq(d.get("only"), "here");
			else
				d.put("only", "here");
			fs::copy_file(s.path + "/good", path, fs::copy_options::overwrite_existing);
		}
		fs::remove(s.path + "/good");
	}
	fs::rename(s.dir() + "/" + files[0], s.path + "/x");
	fs::rename(s.dir() + "/" + files[1], s.dir() + "/" + files[0]);
	fs::rename(s.path + "/x", s.dir() + "/" + files[1]);
	cr_assert(text_of([&] { d.restore(0); }).find(s.dir()) != std::string::npos);
	cr_assert_eq(d.get("only"), "here");
	cr_assert_eq(d.size(), 201u);
}

// This process, and the managers that it makes, may not use io_uring.
static void forbid_io_uring()
{
	sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const sock_fprog prog{sizeof(code) / sizeof(*code), code};

	cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0), 0);
	cr_assert_eq(syscall(SYS_io_uring_setup, 1, nullptr), -1);
	cr_assert_eq(errno, EPERM);
}

static void write_and_read(const scratch &s)
{
	{
		const text_dict d(with(s, 2));

		put_all(d, 500);
		d.persist();
	}
	cr_assert(has_all(text_dict(with(s, 2, 0)), 500));
}

Test(ddict_persist, io_uring_may_be_forbidden)
{
	forbid_io_uring();
	write_and_read(scratch());
}

Test(ddict_persist, the_file_system_may_be_in_memory)
{
	write_and_read(scratch("/dev/shm"));
}

Test(ddict_persist, a_checkpoint_that_cannot_be_written_leaves_the_last_one)
{
	const scratch s;

	const text_dict d(with(s, 2));

	forbid_large_files(d.core(), 512 << 10);
	d.put("k", "v");
	d.persist();
	for (int k = 0; k < 50; k++)
		d.put(std::to_string(k), std::string(100000, 'x'));
	const std::string why = text_of([&] { d.persist(); });
	cr_assert(why.find(s.dir() + "/checkpoint-") != std::string::npos, "%s", why.c_str());
	cr_assert_eq(files_of(s, "checkpoint-").size(), 3u);
	d.restore(0);
	cr_assert_eq(d.size(), 1u);
	d.persist();
}

// Everybody killed at any instant: what is listed is whole, and nothing that was acknowledged is missing.
Test(ddict_persist, whoever_is_killed_leaves_whole_checkpoints, .timeout = 10 * WATCHDOG_S)
{
	const char *given = getenv("CH_TEST_KILLS");
	std::uint64_t seed = test_seed();
	const scratch s;

	for (int i = 0; i < (given ? atoi(given) : 4); i++) {
		struct board *b = board_new();
		const pid_t child = start_child([&] {
			ch::ddict_options o = with(s, 2);

			o.persist_count = 2;
			const ddict<int, std::string> d(o);
			for (int round = 1;; round++) {
				for (int k = 0; k < 40; k++)
					d.put(k, whole_value(static_cast<std::uint64_t>(round), 20000));
				d.set_checkpoint(static_cast<std::uint64_t>(1000 * i + round));
				d.persist();
				__atomic_store_n(&b->value[0], 1000 * i + round, __ATOMIC_SEQ_CST);
				post(b, 0);
			}
			return true;
		});

		await_post(b, 0);
		const std::int64_t later = now_ns() + static_cast<std::int64_t>(rnd(&seed) % 40) * MS;

		AWAIT(now_ns() > later);
		cr_assert_eq(child_kill(child), -SIGKILL);
		const ddict<int, std::string> d({.managers = 3,
						 .memory = 64 << 20,
						 .read_only = true,
						 .persist_path = s.dir(),
						 .restore_from = ch::ddict_newest});
		cr_assert_geq(d.checkpoint_id(), static_cast<std::uint64_t>(b->value[0]));
		for (const std::uint64_t id : d.persisted_ids()) {
			if (id < static_cast<std::uint64_t>(1000 * i))
				continue;
			d.restore(id);
			cr_assert_eq(d.size(), 40u);
			for (int k = 0; k < 40; k++)
				cr_assert(is_whole(d.get(k), id - static_cast<std::uint64_t>(1000 * i)), "key %d", k);
		}
		munmap(b, sizeof(*b));
	}
}

Test(ddict_persist, what_does_not_fit_is_refused_whole)
{
	const scratch s;

	{
		const text_dict d(with(s, 2));

		for (int k = 0; k < 100; k++)
			d.put(std::to_string(k), std::string(200000, 'x'));
		d.persist();
	}
	ch::ddict_options small = with(s, 1, 0);
	small.memory = 4 << 20;
	cr_assert_eq(error_of([&] { text_dict d(small); }), ENOSPC);
	small.restore_from = ch::ddict_nothing;
	const text_dict d(small);
	d.put("a", "b");
	const std::string why = text_of([&] { d.restore(0); });
	cr_assert(why.find("no room") != std::string::npos, "%s", why.c_str());
	cr_assert_eq(d.get("a"), "b");
	cr_assert_eq(d.size(), 1u);
	d.put("big", std::string(3 << 20, 'x')); // the memory is free again
}

Test(ddict_persist, one_dictionary_writes_in_a_directory)
{
	const scratch s;
	const text_dict d(with(s, 1));

	ch::ddict_options o = with(s, 1);

	o.timeout = std::chrono::milliseconds(20);
	cr_assert_eq(error_of([&] { text_dict other(o); }), EEXIST);
	d.persist();
	const text_dict reader({.managers = 1, .read_only = true, .persist_path = s.dir(), .restore_from = 0});
	cr_assert_eq(reader.size(), 0u);
}

Test(ddict_persist, what_cannot_be)
{
	const scratch s;
	const text_dict d({.managers = 1});

	cr_assert_eq(error_of([&] { d.persist(); }), EINVAL);
	cr_assert_eq(error_of([&] { d.persisted_ids(); }), EINVAL);
	cr_assert_eq(error_of([&] { d.flush(); }), EINVAL);
	cr_assert_eq(error_of([] { text_dict x({.managers = 1, .persist_freq = 1}); }), EINVAL);
	cr_assert_eq(error_of([&] { text_dict x(with(s, 1, 7)); }), ENOENT);
	cr_assert_eq(error_of([&] { text_dict x(with(s, 1, ch::ddict_newest)); }), ENOENT);
	cr_assert_eq(error_of([&] { text_dict x(with(s, 1, ch::ddict_log)); }), ENOENT);
	ch::ddict_options o = with(s, 1);
	o.persist_path = s.path + "/not/there";
	cr_assert_eq(error_of([&] { text_dict x(o); }), ENOENT);
}

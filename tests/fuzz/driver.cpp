/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver.cpp - main() for the fuzz targets where libFuzzer is not: what lies in the target's corpus, then random inputs
 * from a printed seed for some seconds; or the files that are named.
 *
 * usage: NAME_fuzz [--seconds S] [--seed X] [FILE...]
 *
 * A build with --enable-sanitizers=fuzzer-no-link,address by clang has libFuzzer's main() instead: tests/fuzz/run.
 */
#include "../support/support.h"
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

namespace {

std::vector<uint8_t> read_file(const char *path)
{
	std::vector<uint8_t> bytes;
	FILE *f = fopen(path, "rb");

	if (!f) {
		perror(path);
		exit(2);
	}
	for (int c; (c = getc(f)) != EOF;)
		bytes.push_back(static_cast<uint8_t>(c));
	fclose(f);
	return bytes;
}

void run_one(const std::vector<uint8_t> &input)
{
	alarm(60); /* one input takes milliseconds: SIGALRM means that it hangs */
	LLVMFuzzerTestOneInput(input.data(), input.size());
	alarm(0);
}

/* What to do when an input kills the process: it is in this file, to be run again. */
void remember(const char *path, const std::vector<uint8_t> &input)
{
	if (FILE *f = path ? fopen(path, "wb") : nullptr) {
		fwrite(input.data(), 1, input.size(), f);
		fclose(f);
	}
}

/* The corpus of a target whose program is called NAME_fuzz, perhaps by libtool lt-NAME_fuzz. */
void run_corpus(const char *program)
{
	const char *srcdir = getenv("srcdir"), *slash = strrchr(program, '/');
	std::string name = slash ? slash + 1 : program;

	if (name.rfind("lt-", 0) == 0)
		name.erase(0, 3);
	name.resize(name.size() > 5 ? name.size() - 5 : 0);
	const std::filesystem::path dir = std::string(srcdir ? srcdir : ".") + "/tests/fuzz/corpus/" + name;
	if (!std::filesystem::is_directory(dir)) {
		printf("no corpus at %s\n", dir.c_str());
		return;
	}
	for (const auto &file : std::filesystem::directory_iterator(dir))
		run_one(read_file(file.path().c_str()));
}

} // namespace

int main(int argc, char **argv)
{
	double seconds = 2;
	uint64_t seed = 0, nr = 0;
	int first_file = 1;

	for (; first_file + 1 < argc && !strncmp(argv[first_file], "--", 2); first_file += 2) {
		if (!strcmp(argv[first_file], "--seconds"))
			seconds = atof(argv[first_file + 1]);
		else if (!strcmp(argv[first_file], "--seed"))
			seed = strtoull(argv[first_file + 1], nullptr, 0);
		else
			return 2;
	}
	for (int i = first_file; i < argc; i++)
		run_one(read_file(argv[i]));
	if (first_file < argc)
		return 0;
	run_corpus(argv[0]);
	if (!seed)
		seed = test_seed();
	uint64_t rs = seed;
	for (const int64_t begin = now_ns(); static_cast<double>(now_ns() - begin) < seconds * 1e9; nr++) {
		std::vector<uint8_t> input(rnd(&rs) % 1024);

		for (auto &byte : input)
			byte = static_cast<uint8_t>(rnd(&rs));
		remember(getenv("CH_FUZZ_INPUT"), input);
		run_one(input);
	}
	printf("PASS: %llu inputs, seed=%llu\n", (unsigned long long)nr, (unsigned long long)seed);
	return 0;
}

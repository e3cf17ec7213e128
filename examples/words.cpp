// SPDX-License-Identifier: Apache-2.0
// words.cpp - finding text files, and counting their words.
#include "words.hpp"
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <system_error>
#include <unistd.h>

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t piece_len = 1 << 20;
constexpr std::size_t word_max = 100;
constexpr std::size_t probe_len = 8192;

// For each byte the byte it counts as, 0 for what separates words.
constexpr std::array<unsigned char, 256> letters = [] {
	std::array<unsigned char, 256> t{};

	for (unsigned c = 0; c < 256; c++)
		if (c >= 0x80 || (c >= 'a' && c <= 'z'))
			t[c] = static_cast<unsigned char>(c);
		else if (c >= 'A' && c <= 'Z')
			t[c] = static_cast<unsigned char>(c + ('a' - 'A'));
	return t;
}();

class file {
public:
	explicit file(const std::string &path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY))
	{
	}
	file(const file &) = delete;
	file &operator=(const file &) = delete;
	~file()
	{
		if (fd_ >= 0)
			close(fd_);
	}
	// Up to len bytes at offset; false on an error, see errno.
	bool read(std::uint64_t offset, std::size_t len, std::string &out) const
	{
		std::size_t got = 0;

		out.resize(len);
		while (got < len) {
			const ssize_t n =
				fd_ < 0 ? -1
					: pread(fd_, out.data() + got, len - got, static_cast<off_t>(offset + got));

			if (n < 0)
				return false;
			if (n == 0)
				break;
			got += static_cast<std::size_t>(n);
		}
		out.resize(got);
		return true;
	}

private:
	int fd_;
};

bool is_letter(char c)
{
	return letters[static_cast<unsigned char>(c)] != 0;
}

// Counts the words that begin in text[begin, end); they may go on behind end. The text is turned into letters and
// zeros.
std::uint64_t count_text(std::string &text, std::size_t begin, std::size_t end, counts &table)
{
	std::uint64_t words = 0;

	for (char &c : text)
		c = static_cast<char>(letters[static_cast<unsigned char>(c)]);
	for (std::size_t i = begin; i < end; words++) {
		while (i < end && !text[i])
			i++;
		if (i == end)
			break;
		const std::size_t from = i;

		while (i < text.size() && text[i])
			i++;
		const std::string_view word(text.data() + from, std::min(i - from, word_max));

		if (const auto it = table.find(word); it != table.end())
			it->second++;
		else
			table.emplace(word, 1);
	}
	return words;
}

void complain(const std::string &path, const std::error_code &why, outcome &out)
{
	out.unreadable.push_back(path + ": " + why.message());
}

void add_file(const fs::path &path, std::uint64_t size, std::vector<piece> &pieces)
{
	for (std::uint64_t from = 0; from == 0 || from < size; from += piece_len)
		pieces.push_back({path.string(), from, std::min(size, from + piece_len)});
}

void add_tree(const fs::path &root, std::vector<piece> &pieces, outcome &out)
{
	std::error_code err;
	std::vector<fs::path> dirs{root};

	while (!dirs.empty()) {
		const fs::path dir = std::move(dirs.back());

		dirs.pop_back();
		for (fs::directory_iterator it(dir, err), end; !err && it != end; it.increment(err)) {
			std::error_code odd; // vanished, or no permission: the entry is passed over

			if (it->is_symlink(odd) || odd)
				continue;
			if (it->is_directory(odd))
				dirs.push_back(it->path());
			else if (it->is_regular_file(odd))
				add_file(it->path(), it->file_size(odd), pieces);
		}
		if (err)
			complain(dir.string(), err, out);
		err.clear();
	}
}

} // namespace

outcome &outcome::operator+=(const outcome &o)
{
	files += o.files;
	binary += o.binary;
	bytes += o.bytes;
	words += o.words;
	unreadable.insert(unreadable.end(), o.unreadable.begin(), o.unreadable.end());
	return *this;
}

void count_piece(const piece &p, counts &table, outcome &out)
{
	const file f(p.path);
	std::string text;

	if (!f.read(0, probe_len, text)) {
		if (p.from == 0)
			complain(p.path, {errno, std::generic_category()}, out);
		return;
	}
	if (text.find('\0') != std::string::npos) {
		out.binary += p.from == 0;
		return;
	}
	// One byte before, to see whether a word goes on; and as much behind as a word may be long, and more if it is
	// longer.
	const std::uint64_t first = p.from ? p.from - 1 : 0;

	if (!f.read(first, static_cast<std::size_t>(p.to - first) + word_max, text)) {
		complain(p.path, {errno, std::generic_category()}, out);
		return;
	}
	std::size_t begin = static_cast<std::size_t>(p.from - first);
	const std::size_t end = std::min(text.size(), static_cast<std::size_t>(p.to - first));

	if (begin && !text.empty() && is_letter(text[0]))
		while (begin < end && is_letter(text[begin]))
			begin++;
	out.words += count_text(text, begin, end, table);
	out.bytes += end > p.from - first ? end - (p.from - first) : 0;
	out.files += p.from == 0;
}

std::vector<piece> find_files(const std::vector<std::string> &paths, outcome &out)
{
	std::vector<piece> pieces;

	for (const std::string &path : paths) {
		std::error_code err;
		const fs::file_status what = fs::status(path, err);

		if (fs::is_directory(what))
			add_tree(path, pieces, out);
		else if (fs::is_regular_file(what))
			add_file(path, fs::file_size(path, err), pieces);
		else
			complain(path, err ? err : std::make_error_code(std::errc::invalid_argument), out);
	}
	std::sort(pieces.begin(), pieces.end(),
		  [](const piece &a, const piece &b) { return a.path != b.path ? a.path < b.path : a.from < b.from; });
	// The same file by two arguments.
	pieces.erase(std::unique(pieces.begin(), pieces.end(),
				 [](const piece &a, const piece &b) { return a.path == b.path && a.from == b.from; }),
		     pieces.end());
	return pieces;
}

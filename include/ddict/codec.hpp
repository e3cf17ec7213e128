// SPDX-License-Identifier: Apache-2.0
// codec.hpp - keys and values as bytes.
#pragma once
#include <channels/archive.hpp>
#include <array>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace ch {

// How a type becomes bytes and is made of them again. Specialise it for a codec of your own. Strings are their
// characters and flat types their memory, so that programs in other languages can read them; the rest goes through the
// archive.
template <class T> struct ddict_codec {
	using bytes = std::span<const std::byte>;

	static std::size_t size(const T &v)
	{
		if constexpr (std::is_same_v<T, std::string>)
			return v.size();
		else
			return archive::size(v);
	}
	static void write(std::span<std::byte> to, const T &v)
	{
		if constexpr (std::is_same_v<T, std::string>) {
			if (!v.empty())
				std::memcpy(to.data(), v.data(), v.size());
		} else {
			archive::write(to, v);
		}
	}
	static T read(bytes from)
	{
		if constexpr (std::is_same_v<T, std::string>)
			return std::string(reinterpret_cast<const char *>(from.data()), from.size());
		else
			return archive::read<T>(from);
	}
};

namespace ddict_detail {

using bytes = std::span<const std::byte>;

// A key as bytes: in place where it is bytes already, else written to a small buffer or, if it is long, to memory.
template <class K> class encoded {
public:
	explicit encoded(const K &k)
	{
		if constexpr (std::is_same_v<K, std::string>) {
			b_ = std::as_bytes(std::span(k.data(), k.size()));
		} else {
			const std::size_t n = ddict_codec<K>::size(k);
			std::byte *to = small_.data();

			if (n > small_.size()) {
				large_.resize(n);
				to = large_.data();
			}
			ddict_codec<K>::write({to, n}, k);
			b_ = {to, n};
		}
	}
	encoded(const encoded &) = delete;
	encoded &operator=(const encoded &) = delete;
	operator bytes() const noexcept { return b_; } // NOLINT: implicit on purpose

private:
	std::array<std::byte, 64> small_;
	std::vector<std::byte> large_;
	bytes b_;
};

} // namespace ddict_detail

} // namespace ch

#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make installcheck: with what was installed and pkg-config alone, the README's first program and a C program build and
# run. PKG_CONFIG_PATH and LD_LIBRARY_PATH lead to the installation.
set -e
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
sed -n '/^```cpp$/,/^```$/p' "$srcdir/README.md" | sed '/^```/d' >"$dir/first.cpp"
cat >"$dir/first.c" <<'END'
#include <channels/channels.h>
#include <stdio.h>

int main(void)
{
	struct ch_channel *ch;
	char buf[16];

	if (ch_channel_create(NULL, NULL, &ch) < 0 || ch_channel_send(ch, "hello, parent", 14, CH_TRY) < 0 ||
	    ch_channel_recv(ch, buf, sizeof(buf), CH_TRY) != 14)
		return puts(ch_errmsg()), 1;
	puts(buf);
	ch_channel_destroy(ch);
	return 0;
}
END
flags=$(pkg-config --cflags --libs channels)
# shellcheck disable=SC2086 # several flags in one word
for cc in "${CC:-cc} -std=c11 $dir/first.c" "${CXX:-c++} -std=c++20 $dir/first.cpp"; do
	$cc -Wall -Wextra -Werror -o "$dir/first" $flags
	[ "$("$dir/first")" = 'hello, parent' ]
done
for lib in pool ddict; do
	[ "$(pkg-config --modversion $lib)" = "$(pkg-config --modversion channels)" ]
	case $(pkg-config --libs $lib) in *-lchannels*) ;; *) echo "$lib.pc does not bring libchannels"; exit 1 ;; esac
done

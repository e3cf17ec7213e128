#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# libchannels.so exports exactly the names in its map, and the map holds exactly what the public headers declare;
# the C++ libraries define nothing outside namespace ch and the ch_ prefix.
map=$srcdir/libchannels/libchannels.map
rc=0
want=$(sed -n 's/^[[:space:]]*\(ch_[a-z0-9_]*\);$/\1/p' "$map" | LC_ALL=C sort)
same() { # WHAT NAMES: these are the names of the map
	[ "$2" = "$want" ] && return
	echo "$1 and $map differ:"; rc=1
	printf '%s\n' "$want" "$2" | LC_ALL=C sort | uniq -u | sed 's/^/	/'
}
same 'include/channels' "$(sed -n 's/^CH_API [^(]*[ *]\(ch_[a-z0-9_]*\)(.*/\1/p' "$srcdir"/include/channels/*.h | LC_ALL=C sort)"
defined() { ${NM:-nm} -D --defined-only "$1" | awk '$2 ~ /[TDBR]/ { sub(/@.*/, "", $3); print $3 }' | LC_ALL=C sort; }
if [ -e "$builddir/.libs/libchannels.so" ]; then
	same libchannels.so "$(defined "$builddir/.libs/libchannels.so")"
fi
for lib in pool ddict; do
	[ -e "$builddir/.libs/lib$lib.so" ] || continue
	strange=$(${NM:-nm} -DC --defined-only "$builddir/.libs/lib$lib.so" | sed -n 's/^[0-9a-f]* [TDBR] //p' |
		grep -vE '^chp?_|(^|[^A-Za-z0-9_])ch::')
	[ -z "$strange" ] || { echo "lib$lib.so exports:"; echo "$strange"; rc=1; }
done
[ -e "$builddir/.libs/libchannels.so" ] || [ $rc -ne 0 ] || exit 77
exit $rc

#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The examples of libddict run, and what they compute is right: the same on every run, however the processes take turns.
prog=${builddir:-.}/examples/pi
rc=0
for n in 1 3; do
	out=$(timeout 60 "$prog" "$n" 4) || { echo "pi $n 4: status $?"; rc=1; }
	[ "$(printf '%s\n' "$out" | grep -c '^round [1-4]: 3\.14')" = 4 ] || { echo "pi $n 4 printed:"; echo "$out"; rc=1; }
done
exit $rc

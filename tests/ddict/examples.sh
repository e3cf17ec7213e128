#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The examples of libddict run, and what they compute is right: the same on every run, however the processes take turns.
dir=${builddir:-.}/examples
rc=0
run() { # LINES PATTERN PROGRAM ARGUMENT...: it prints so many lines, all like that
	lines=$1 want=$2
	shift 2
	out=$(timeout 100 "$dir/$@") || { echo "$*: status $?"; rc=1; }
	right=$(printf '%s\n' "$out" | grep -cE "^$want\$")
	[ "$(printf '%s\n' "$out" | wc -l)" = "$lines" ] && [ "$right" = "$lines" ] || { echo "$* printed:"; echo "$out"; rc=1; }
}
run 4 'round [1-4]: 3\.14[0-9]*' pi 1 4
run 4 'round [1-4]: 3\.14[0-9]*' pi 3 4
run 1 '64 samples, 64 loaded, 128 found, all right' loader 1 3
run 1 '64 samples, [0-9]+ loaded, [0-9]+ found, all right' loader 3 3
run 1 '64 samples, [0-9]+ loaded, [0-9]+ found, all right' loader 2 3 2
run 1 'after 200 rounds: y = 2\.0000 a \+ -3\.0000 b \+ 0\.5000' exchange 1
run 1 'after 200 rounds: y = 2\.0000 a \+ -3\.0000 b \+ 0\.5000' exchange 3
exit $rc

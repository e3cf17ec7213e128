#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# wordfreq counts right: with and without workers being killed, with one of each and with several, and on odd trees.
set -u
prog=${builddir:-.}/examples/wordfreq
tmp=$(mktemp -d) || exit 99
trap 'chmod -R u+rwx "$tmp" 2>/dev/null; rm -rf "$tmp"' EXIT
failed=0

fail() {
	echo "FAIL: $*" >&2
	sed 's/^/  | /' "$tmp/out" "$tmp/err" >&2
	failed=1
}
# run STATUS PATTERN ARGS...: exit status and a line of the output
run() {
	want=$1 pattern=$2
	shift 2
	timeout 300 "$prog" "$@" >"$tmp/out" 2>"$tmp/err"
	got=$?
	[ $got -eq "$want" ] || fail "wordfreq $*: exit status $got, not $want"
	cat "$tmp/out" "$tmp/err" | grep -q "$pattern" || fail "wordfreq $*: no line \"$pattern\""
}

tree=$tmp/tree
mkdir -p "$tree/deep/er/still" "$tree/none"
# Text of many words: awk's numbers as letters. One file is longer than a piece.
awk -v dir="$tree/deep" 'BEGIN { srand(7); for (f = 0; f < 60; f++) for (i = 0; i < 400; i++) {
	w = ""; for (n = int(rand() * rand() * 5000); n > 0; n = int(n / 26)) w = w sprintf("%c", 97 + n % 26);
	printf("%s%s", w, (i % 9 ? " " : ".\n")) > (dir "/f" f ".txt") } }'
awk 'BEGIN { srand(8); for (i = 0; i < 500000; i++) printf("Long%d%s ", i % 977, (i % 3 ? "a" : "b")) }' >"$tree/long"
printf 'caf\303\251 CAF\303\211 na\357ve \377\376 end' >"$tree/odd bytes"
printf 'text\0with a nul' >"$tree/binary"
: >"$tree/empty"
awk 'BEGIN { for (i = 0; i < 300000; i++) printf "x" }' >"$tree/one word"
ln -s . "$tree/loop"
ln -s ../deep "$tree/deep/er/loop"
ln -s nowhere "$tree/dangling"
mkfifo "$tree/pipe"

run 0 '^verified: [0-9]* words, 64 files$' --verify "$tree"
grep -q '; 1 binary files skipped' "$tmp/out" || fail "the binary file is not said to be skipped"
grep -q '^ *[0-9]*  long$' "$tmp/out" || fail "the most frequent word is not shown"
[ ! -s "$tmp/err" ] || fail "something on standard error"
run 0 '^verified: ' --verify --workers 1 --managers 1 "$tree"
run 0 '^verified: ' --verify --workers 3 --managers 3 --top 3 "$tree" "$tree/deep" "$tree/long"
run 0 '^verified: ' --verify --chaos --workers 4 --managers 2 "$tree"
run 0 '^chaos: [1-9][0-9]* workers killed' --verify --chaos --workers 1 --managers 1 "$tree"
run 0 '^verified: 5 words, 1 files$' --verify "$tree/binary" "$tree/odd bytes"
run 2 'no files there' "$tree/none"
run 2 'No such file' "$tree/nothing"
mkdir "$tmp/rich"
awk 'BEGIN { for (i = 1; i < 200000; i++) { w = ""; for (n = i * 7919; n > 0; n = int(n / 26)) w = w sprintf("%c", 97 + n % 26)
	print w "qqqqqqqq" } }' >"$tmp/rich/words"
run 1 'is full.*more memory' --memory 1 --managers 1 "$tmp/rich"
run 0 '^verified: 199999 words, 1 files' --verify "$tmp/rich"
if [ "$(id -u)" -ne 0 ]; then
	chmod 0 "$tree/deep/f1.txt"
	run 0 'f1.txt: Permission denied' --verify "$tree"
fi
exit $failed

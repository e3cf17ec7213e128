#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every file that has comments names its licence in its first three lines; licence and formatting rules are there.
. "$(dirname "$0")/files"
rc=0
for f in $(ours); do
	case $f in *.md | */NEWS | *.pc.in | *.txt | *.supp) continue ;; esac
	head -n 1 "$f" | grep -q '^\.so ' && continue
	head -n 3 "$f" | grep -q 'SPDX-License-Identifier: Apache-2\.0' || { echo "$f: no SPDX line"; rc=1; }
done
for f in LICENSE .clang-format; do [ -s "$srcdir/$f" ] || { echo "no $f"; rc=1; }; done
exit $rc

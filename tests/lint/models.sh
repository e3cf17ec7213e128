#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Models say which source line each of their steps is: * step file "text". The text still stands in that file of
# libchannels or libddict.
rc=0
for model in "$srcdir"/tests/model/*.pml; do
	[ -e "$model" ] || continue
	steps=$(sed -n 's/^ \*   *[a-z ,-]*  *\([a-z_]*\.[a-z]*\)  *"\(.*\)"$/\1 \2/p' "$model")
	[ -n "$steps" ] || { echo "${model#"$srcdir"/}: says of none of its steps what line it is"; rc=1; continue; }
	while read -r file text; do
		grep -qsF -- "$text" "$srcdir/libchannels/$file" "$srcdir/libddict/$file" && continue
		echo "${model#"$srcdir"/}: $file has no more: $text"
		rc=1
	done <<END
$steps
END
done
exit $rc

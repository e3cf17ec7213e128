#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# No function over 60 lines, no file over 600. Whoever needs more says why in a line of this list: file:line count.
. "$(dirname "$0")/files"
allow=''
rc=0
long=$(sources $rooms | xargs awk '
	FNR == 1 { head = "" }
	FNR == 601 { print FILENAME ": over 600 lines" }
	/^\t*\{$/ && head !~ /^\t*(class|struct|union|enum|namespace|extern) / {
		if (!(FILENAME in open) || open[FILENAME] == 0) { indent = length($0) - 1; open[FILENAME] = FNR; next } }
	/^\t*\}/ && open[FILENAME] { match($0, /^\t*/); if (RLENGTH == indent) {
		if (FNR - open[FILENAME] > 61) print FILENAME ":" open[FILENAME] ": " FNR - open[FILENAME] - 1 " lines in one function"
		open[FILENAME] = 0 } }
	{ head = $0 }' | sed "s|^$srcdir/||")
IFS='
'
for l in $long; do
	for a in $allow; do [ "${l%%:*}" = "${a%%:*}" ] && continue 2; done
	echo "$l"; rc=1
done
exit $rc

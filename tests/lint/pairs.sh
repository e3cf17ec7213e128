#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Memory orders. Where a comment says "[R1] pairs with [A1]", "[A1] pairs with [R1]" stands somewhere in the same room; a
# pair whose sides share one tag stands there twice; no comment begins with a tag that has no pair. In libchannels every
# atomic access names its order, and seq_cst has its argument within the six lines above it.
. "$(dirname "$0")/files"
rc=0
for room in libchannels 'libpool include/pool' 'libddict include/ddict'; do
	# shellcheck disable=SC2086 # a room may have two folders
	files=$(sources $room)
	[ -n "$files" ] || continue
	lone=$(awk '
		match($0, /(\/\/|\/\*|^[ \t]*\*)[ \t]*\[[A-Z][0-9]+\]/) {
			tag = substr($0, RSTART, RLENGTH)
			sub(/^[^[]*/, "", tag)
			used[tag] = FILENAME ":" FNR
		}
		{
			s = $0
			while (match(s, /\[[A-Z][0-9]+\] pairs with \[[A-Z][0-9]+\]/)) {
				split(substr(s, RSTART, RLENGTH), w, / pairs with /)
				times[w[1] " " w[2]]++
				seen[w[1] " " w[2]] = FILENAME ":" FNR
				paired[w[1]] = 1
				s = substr(s, RSTART + RLENGTH)
			}
		}
		END {
			for (t in used) if (!(t in paired)) print used[t] ": " t " pairs with nothing"
			for (k in seen) { split(k, w, " "); if (!((w[2] " " w[1]) in seen)) print seen[k] ": " w[1] " has no partner " w[2]
				if (w[1] == w[2] && times[k] < 2) print seen[k] ": " w[1] " is alone" }
		}' $files)
	[ -z "$lone" ] || { echo "$lone"; rc=1; }
done
files=$(sources libchannels)
[ -n "$files" ] || exit $rc
bare=$(awk '
	FNR == 1 { call = ""; comment = -9 }
	/\/\/|\*/ { comment = FNR }
	/seq_cst/ && FILENAME !~ /atomic\.h$/ && FNR - comment > 6 { print FILENAME ":" FNR ": seq_cst without an argument" }
	{ line = $0; sub(/\/\/.*/, "", line) }
	call == "" && line ~ /(\.|->)(load|store|exchange|compare_exchange_(weak|strong)|fetch_(add|sub|or|and|xor))\(/ { at = FNR; call = " " }
	call != "" {
		call = call line
		if (line ~ /[;{}]/) {
			if (call !~ /relaxed|acquire|release|acq_rel|seq_cst|order/) print FILENAME ":" at ": an access without an order"
			call = ""
		}
	}' $files)
[ -z "$bare" ] || { echo "$bare"; rc=1; }
exit $rc

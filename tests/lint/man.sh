#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every exported function has a page that names it and is installed; every page is clean.
rc=0
man=$srcdir/man
refuse() { echo "$1: $2"; rc=1; }
for f in $(sed -n 's/^[[:space:]]*\(ch_[a-z0-9_]*\);$/\1/p' "$srcdir/libchannels/libchannels.map"
	sed -n 's/^CH_API.*[ *]\(chp_[a-z0-9_]*\)(.*/\1/p' "$srcdir/include/pool/pool.h" 2>/dev/null); do
	page=$man/man3/$f.3
	[ -e "$page" ] || { refuse "$f" 'no page in man/man3'; continue; }
	to=$(sed -n 's/^\.so //p' "$page")
	[ -z "$to" ] || page=$man/$to
	grep -q "^\.Nm $f\( ,\)\{0,1\}$" "$page" || refuse "$f" "not in the NAME section of $page"
	grep -q "^\.Fn $f " "$page" || grep -q "^\.Fo $f$" "$page" || refuse "$f" "not in the SYNOPSIS of $page"
done
for page in "$man"/man*/*.[0-9]; do
	[ -e "$page" ] || continue
	grep -q "man/${page#"$man"/}\( \|$\)" "$man/local.mk" || refuse "$page" 'not in man/local.mk'
	to=$(sed -n 's/^\.so //p' "$page")
	[ -z "$to" ] || { [ -e "$man/$to" ] || refuse "$page" "no $to"; continue; }
	command -v mandoc >/dev/null || continue
	mandoc -Tlint -Wwarning "$page" || rc=1
done
command -v mandoc >/dev/null || [ $rc -ne 0 ] || exit 77
exit $rc

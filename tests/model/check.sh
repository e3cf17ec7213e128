#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check.sh - the models, exhaustively on small configurations: the right ones hold, each seeded bug is found.
#
# usage: check.sh                          all of them, as many at a time as there are processors
#        check.sh holds|finds MODEL -D...  one, in the current directory
# CH_MODEL_LARGE=1 adds the larger ones (some minutes and 8 GiB each), one after the other.
command -v spin >/dev/null || { echo "no spin(1)"; exit 77; }
models=$(cd "${srcdir:-.}/tests/model" && pwd) || exit 1

# verdict model flags...: prints "errors: N", and leaves in out how many states there were.
verdict()
{
	model=$1
	shift
	${CC:-cc} -E -P -x c "$@" "$models/$model.pml" >m.pml && spin -a m.pml >/dev/null &&
		${CC:-cc} "${optimise:--Og}" -w -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 -o pan pan.c || { echo "cannot build $model"; exit 1; }
	./pan -E -m3000000 >out
	grep -q 'max search depth too small\|out of memory\|Search not completed' out && ! grep -q 'errors: [1-9]' out &&
		echo "incomplete:" && return
	grep -o 'errors: [0-9]*' out
}

case ${1:-} in
holds)
	shift
	optimise=${CH_MODEL_LARGE:+-O2} # more would cost more than it saves
	v=$(verdict "$@")
	echo "$*: $v, $(grep -o '[0-9]* states, stored' out)"
	test "$v" = 'errors: 0'
	exit ;;
finds)
	shift
	optimise=-O0
	v=$(verdict "$@")
	echo "$*: $v, as it must be"
	test "$v" = 'errors: 1'
	exit ;;
esac

# The longest first.
list()
{
	if test -n "${CH_MODEL_LARGE:-}"; then
		echo "holds pollset -DNN=2 -DNW=2
holds pollset -DNN=2 -DNW=2 -DNM=2
holds event -DNN=2 -DNW=3
holds ring -DNP=2 -DNC=1 -DM=1 -DCR=1 -DBLK
holds ring -DNP=2 -DNC=2 -DM=1 -DCR=0
holds ring -DNP=1 -DNC=2 -DNS=1 -DM=1 -DCR=1 -DACK=1 -DBLK"
	fi
	echo "holds ring -DNP=1 -DNC=1 -DNS=2 -DM=1 -DCR=2 -DREUSE=1 -DBLK
holds ring -DNP=1 -DNC=2 -DNS=1 -DM=1 -DCR=1 -DBLK
holds ring -DNP=1 -DNC=1 -DNS=1 -DM=1 -DCR=1 -DREUSE=1 -DACK=2 -DBLK
holds ring -DN=1 -DNP=1 -DNC=1 -DNS=1 -DM=2 -DCR=1 -DREUSE=1
holds pollset -DNN=2 -DNW=1 -DWANT=2 -DCR=1
holds event -DNN=2 -DNW=2
holds sync -DNC=2 -DNP=1
holds window
holds window -DSHORT
holds window -DASKED
holds window -DASKED -DSHORT
finds window -DASKED -DNOHIDEFENCE
finds window -DASKED -DSHORT -DNORELEASE
holds spsc -DNP=1 -DNC=2
holds spsc -DNP=2 -DNC=2 -DM=1 -DCR=2
finds ring -DNP=1 -DNC=2 -DNS=1 -DM=1 -DCR=1 -DACK=1 -DOWNONLY
finds ring -DN=1 -DNP=1 -DNC=3 -DNS=1 -DM=1 -DCR=0 -DACK=2 -DNOTIMES
finds ring -DNP=2 -DNC=1 -DCR=1 -DBLK -DNOKEEP
finds ring -DNP=2 -DNC=1 -DCR=1 -DBLK -DLATEBLK
finds ring -DNP=1 -DNC=2 -DCR=1 -DBLK -DNOGIVE
finds ring -DNP=1 -DNC=2 -DCR=1 -DNOSWAKE
finds pollset -DNN=2 -DNW=2 -DNOMORE
finds spsc -DNP=1 -DNC=2 -DNOBARRIER
finds spsc -DNP=1 -DNC=1 -DNOSEAL
finds spsc -DNP=1 -DNC=2 -DNOGIVE
finds spsc -DNP=2 -DNC=1 -DM=1 -DNOKEEP
finds spsc -DNP=1 -DNC=2 -DROLEFIRST"
	for bug in NOBARRIER BLINDDOZE NOASK BLINDDISARM NOLOOK; do
		echo "finds event -DNN=2 -DNW=2 -D$bug"
	done
	for bug in NOBARRIER NOASK BLINDCALM NOSECOND NOSWEEP TOPFIRST; do
		echo "finds pollset -DNN=2 -DNW=1 -DWANT=2 -DCR=1 -D$bug"
	done
	for bug in NONOTEFENCE NOFILLFENCE COVERFIRST NOCOVER SHOWNONLY BLINDSHOW ASKFIRST NOHOOKFENCE; do
		echo "finds window -D$bug"
	done
	for bug in NONEWS NOWAKE LATE BLIND TIMEFIRST; do
		echo "finds sync -DNC=2 -DNP=1 -D$bug"
	done
}

dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
at_once=$(test -n "${CH_MODEL_LARGE:-}" && echo 1 || getconf _NPROCESSORS_ONLN)
export srcdir="$models/../.."
cd "$dir" || exit 1
# shellcheck disable=SC2016 # expanded there, where $1 is several words
list | xargs -P "$at_once" -I '{}' \
	sh -c 'd=$(mktemp -d -p .) && cd "$d" && sh "$0" $1 && rm -rf "$d"' "$models/check.sh" '{}'

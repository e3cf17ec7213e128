#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# check.sh - the models, exhaustively on small configurations: the right ones hold, each seeded bug is found.
# CH_MODEL_LARGE=1 adds the larger ones (some minutes and 8 GiB each).
command -v spin >/dev/null || { echo "no spin(1)"; exit 77; }
models=$(cd "${srcdir:-.}/tests/model" && pwd) || exit 1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
rc=0

# verdict model flags...: prints "errors: N" and how many states there were
verdict()
{
	model=$1
	shift
	${CC:-cc} -E -P -x c "$@" "$models/$model.pml" >m.pml && spin -a m.pml >/dev/null &&
		${CC:-cc} -O2 -w -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 -o pan pan.c || { echo "cannot build $model"; exit 1; }
	./pan -E -m3000000 >out
	grep -q 'max search depth too small\|out of memory\|Search not completed' out && ! grep -q 'errors: [1-9]' out &&
		echo "incomplete:" && return
	grep -o 'errors: [0-9]*' out
}

holds()
{
	v=$(verdict "$@")
	echo "$*: $v, $(grep -o '[0-9]* states, stored' out)"
	test "$v" = 'errors: 0' || rc=1
}

finds()
{
	v=$(verdict "$@")
	echo "$*: $v, as it must be"
	test "$v" = 'errors: 1' || rc=1
}

holds event -DNN=2 -DNW=2
for bug in NOBARRIER BLINDDOZE NOASK BLINDDISARM NOLOOK; do
	finds event -DNN=3 -DNW=2 -D$bug
done
holds ring -DNP=1 -DNC=1 -DNS=2 -DM=1 -DCR=2 -DREUSE=1 -DBLK
holds ring -DNP=1 -DNC=2 -DNS=1 -DM=1 -DCR=1 -DBLK
holds ring -DNP=1 -DNC=1 -DNS=1 -DM=1 -DCR=1 -DREUSE=1 -DACK=2 -DBLK
holds ring -DN=1 -DNP=1 -DNC=1 -DNS=1 -DM=2 -DCR=1 -DREUSE=1
finds ring -DNP=1 -DNC=2 -DNS=1 -DM=1 -DCR=1 -DACK=1 -DOWNONLY
finds ring -DNP=2 -DNC=1 -DCR=1 -DBLK -DNOKEEP
finds ring -DNP=2 -DNC=1 -DCR=1 -DBLK -DLATEBLK
finds ring -DNP=1 -DNC=2 -DCR=1 -DBLK -DNOGIVE
finds ring -DNP=1 -DNC=2 -DCR=1 -DNOSWAKE
holds pollset -DNN=2 -DNW=1 -DWANT=2 -DCR=1
for bug in NOBARRIER NOASK BLINDCALM NOSECOND NOSWEEP TOPFIRST; do
	finds pollset -DNN=2 -DNW=1 -DWANT=2 -DCR=1 -D$bug
done
finds pollset -DNN=2 -DNW=2 -DNOMORE
holds sync -DNC=2 -DNP=1
for bug in NONEWS NOWAKE LATE BLIND TIMEFIRST; do
	finds sync -DNC=2 -DNP=1 -D$bug
done
holds spsc -DNP=1 -DNC=2
holds spsc -DNP=2 -DNC=2 -DM=1 -DCR=2
finds spsc -DNP=1 -DNC=2 -DNOBARRIER
finds spsc -DNP=1 -DNC=1 -DNOSEAL
finds spsc -DNP=1 -DNC=2 -DNOGIVE
finds spsc -DNP=2 -DNC=1 -DM=1 -DNOKEEP
finds spsc -DNP=1 -DNC=2 -DROLEFIRST
if test -n "${CH_MODEL_LARGE:-}"; then
	holds pollset -DNN=2 -DNW=2
	holds pollset -DNN=2 -DNW=2 -DNM=2
	holds event -DNN=2 -DNW=3
	holds ring -DNP=2 -DNC=1 -DM=1 -DCR=1 -DBLK
	holds ring -DNP=2 -DNC=2 -DM=1 -DCR=0
	holds ring -DNP=1 -DNC=2 -DNS=1 -DM=1 -DCR=1 -DACK=1 -DBLK
fi
exit $rc

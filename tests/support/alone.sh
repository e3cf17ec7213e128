#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs one test program in a /dev/shm and a process namespace of its own, and fails it if it left anything in
# either: a file in shared memory or a process. Where namespaces are forbidden the test runs bare, and says so.
#
# The program keeps a process id that is unique outside too: Criterion names its socket in /tmp after it.
export LSAN_OPTIONS="suppressions=${0%/*}/lsan.supp:print_suppressions=0"
prepare='mount -t proc proc /proc && mount -t tmpfs tmpfs /dev/shm && echo $CH_TEST_PID >/proc/sys/kernel/ns_last_pid'
if [ "$CH_TEST_ALONE" = 1 ]; then
	export CH_TEST_ALONE=2
	eval "$prepare" || exit 99
	"$@"
	status=$?
	for f in /dev/shm/* /dev/shm/.[!.]*; do
		[ -e "$f" ] || continue
		echo "left behind: $f" >&2
		[ $status -ne 0 ] || status=1
	done
	# Orphans that are being killed get five seconds. Only this shell, process 1, and sleep itself come and go.
	for try in 0 1 2 3 4 5 6 7 8 9; do
		others=
		for p in /proc/[0-9]*; do
			[ "$p" = "/proc/$$" ] || others="$others $p"
		done
		[ -n "$others" ] || break
		sleep 0.5
	done
	for p in $others; do
		echo "process left behind: $p $(tr '\0' ' ' <"$p/cmdline")" >&2
		[ $status -ne 0 ] || status=1
	done
	exit $status
fi
export CH_TEST_PID=$$
user=
[ "$(id -u)" -eq 0 ] || user=-r
if unshare $user -m -p -f sh -c "$prepare" 2>/dev/null; then
	CH_TEST_ALONE=1 exec unshare $user -m -p -f --kill-child -- "$0" "$@"
fi
echo "no namespaces here: what the test leaves behind is not looked at" >&2
exec "$@"

#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Arrows point down only. "..." names a file of one's own room; libpool and libddict know neither libchannels' inside
# nor each other; each foreign library lives in one room.
. "$(dirname "$0")/files"
rc=0
refuse() { echo "$1: $2"; rc=1; }

for f in $(sources include libchannels libpool libddict examples tests perf); do
	name=${f#"$srcdir"/}
	room=${name%%/*}
	for inc in $(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*\([<"][^>"]*[>"]\).*/\1/p' "$f"); do
		what=${inc#?} what=${what%?}
		case $inc in
		\"*)
			case $room in
			include) refuse "$name" "a public header includes $inc" ;;
			tests) ;; # may see everything
			*) [ -e "$(dirname "$f")/$what" ] || [ "$room/$what" = libchannels/config.h ] ||
				refuse "$name" "$inc is not of this room" ;;
			esac
			;;
		esac
		case $what in
		../support/*) [ "$room" = tests ] || refuse "$name" "$inc reaches into a room" ;;
		*libchannels/* | *libpool/* | *libddict/* | *../*) refuse "$name" "$inc reaches into a room" ;;
		esac
		case $name:$what in
		libpool/*:ddict/* | include/pool/*:ddict/* | libddict/*:pool/* | include/ddict/*:pool/*)
			refuse "$name" "$inc: these two rooms do not know each other" ;;
		libchannels/*:pool/* | libchannels/*:ddict/* | include/channels/*:pool/* | include/channels/*:ddict/*)
			refuse "$name" "$inc is above this room" ;;
		esac
		case $what:$name in
		criterion/*:tests/* | benchmark/*:perf/* | CLI/*:examples/* | xxhash.h:libchannels/* | xxhash.h:libddict/* | \
			rdma/*:libchannels/fabric* | liburing.h:libchannels/loop* | liburing.h:libddict/io* | hwloc*:libchannels/place* | pmix*:libchannels/bootstrap*) ;;
		criterion/* | benchmark/* | CLI/* | xxhash.h | rdma/* | liburing.h | hwloc* | pmix*)
			refuse "$name" "$inc belongs to another room" ;;
		esac
	done
done
exit $rc

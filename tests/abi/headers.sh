#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Each public header stands alone without a warning: .h as pedantic C11 and as C++20, .hpp as C++20.
rc=0
flags="-Wall -Wextra -Wshadow -pedantic -Werror -fsyntax-only -I$srcdir/include -I$builddir/include"
for h in "$srcdir"/include/*/*.h "$builddir"/include/channels/version.h "$srcdir"/include/*/*.hpp; do
	[ -e "$h" ] || continue
	name=$(basename "$(dirname "$h")")/$(basename "$h")
	case $name in
	*.h) printf '#include <%s>\nint in_c_;\n' "$name" | ${CC:-cc} -std=c11 $flags -xc - || { echo "$name: as C11"; rc=1; } ;;
	esac
	printf '#include <%s>\nint in_cxx_;\n' "$name" | ${CXX:-c++} -std=c++20 $flags -xc++ - || { echo "$name: as C++20"; rc=1; }
done
exit $rc

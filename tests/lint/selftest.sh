#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Each lint passes a small good tree and refuses that tree with one thing wrong in it.
lints=$(cd "$(dirname "$0")/.." && pwd)
good=$(mktemp -d) bad=$(mktemp -d)
trap 'rm -rf "$good" "$bad"' EXIT
spdx='// SPDX-License-Identifier: Apache-2.0'
rc=0 nr=0

put() { mkdir -p "$(dirname "$1")" && cat >"$1"; }
cd "$good" || exit
touch LICENSE && echo x | tee LICENSE >.clang-format
put include/channels/a.h <<END
/* ${spdx#// } */
#define CH_API __attribute__((visibility("default")))
#ifdef __cplusplus
extern "C"
#endif
CH_API int ch_a(void);
END
put include/channels/version.h <<END
/* ${spdx#// } */
END
printf '%s\n' "/* ${spdx#// } */" 'X {' 'global:' '	ch_a;' '};' | put libchannels/libchannels.map
put libchannels/a.cpp <<END
$spdx
#include "a.h"
int f(std::atomic<int> &w)
{
	w.store(1, release); // [R1] pairs with [A1]
	return w.load(acquire); // [A1] pairs with [R1]
}
END
echo "$spdx" | put libchannels/a.h
printf '%s\n' "/* ${spdx#// }" ' *   publish   a.cpp   "w.store(1, release)"' '*/' | put tests/model/a.pml
{ echo "$spdx"; echo '#include <channels/a.h>'; } | put libpool/a.cpp
{ echo "$spdx"; echo '#include <channels/a.h>'; } | put libddict/a.cpp
echo "# ${spdx#// }: man/man3/ch_a.3" | put man/local.mk
put man/man3/ch_a.3 <<END
.\\" ${spdx#// }
.Dd November 21, 2026
.Dt CH_A 3
.Os
.Sh NAME
.Nm ch_a
.Nd nothing
.Sh SYNOPSIS
.Ft int
.Fn ch_a void
.Sh DESCRIPTION
Nothing.
END
mkdir .libs && echo 'int ch_a(void); int ch_a(void) { return 0; }' | ${CC:-cc} -shared -fPIC -xc - -o .libs/libchannels.so

verdict() { srcdir=$PWD builddir=$PWD "$lints/$1" >out 2>&1; }
for l in abi/exports abi/headers lint/layers lint/man lint/models lint/pairs lint/sizes lint/spdx lint/words; do
	nr=$((nr + 1))
	verdict $l.sh || [ $? -eq 77 ] || { echo "$l refuses a good tree:"; cat out; rc=1; }
	rm -f out
done

# refuses LINT WHAT COMMAND: run COMMAND in a fresh copy of the good tree, and expect LINT to fail.
refuses() {
	nr=$((nr + 1))
	rm -rf "$bad" && cp -R "$good" "$bad" && cd "$bad" && eval "$3"
	verdict "$1.sh"
	[ $? -eq 1 ] || { echo "$1 does not see: $2"; cat out; rc=1; }
}
refuses abi/exports 'a name that the map lacks' 'echo "int ch_b(void);int ch_b(void){return 0;}int ch_a(void);int ch_a(void){return 0;}" |
	${CC:-cc} -shared -fPIC -xc - -o .libs/libchannels.so'
refuses abi/exports 'a name that the library lacks' 'sed "s/ch_a/ch_b/" -i libchannels/libchannels.map include/channels/a.h'
refuses abi/exports 'a name that no header declares' 'sed /ch_a/d -i include/channels/a.h'
refuses abi/exports 'a C++ library that exports a stranger' 'echo "int stray(void);int stray(void){return 0;}" |
	${CC:-cc} -shared -fPIC -xc - -o .libs/libpool.so'
refuses abi/headers 'a C header that needs another' 'echo "size_t n(void);" >>include/channels/a.h'
refuses abi/headers 'a C header that is C++' 'echo "namespace x { }" >>include/channels/a.h'
refuses abi/headers 'a C++ header that needs another' 'mkdir include/pool; echo "std::string n();" >include/pool/a.hpp'
refuses lint/layers 'a public header with a private one' 'echo "#include \"a.h\"" >>include/channels/a.h'
refuses lint/layers 'libpool reaching into libchannels' 'echo "#include \"b.h\"" >>libpool/a.cpp; touch libchannels/b.h'
refuses lint/layers 'the same by path' 'echo "#include \"../libchannels/a.h\"" >>libpool/a.cpp'
refuses lint/layers 'libpool using libddict' 'echo "#include <ddict/ddict.hpp>" >>libpool/a.cpp'
refuses lint/layers 'libddict using libpool' 'echo "#include <pool/pool.hpp>" >>libddict/a.cpp'
refuses lint/layers 'libchannels using libpool' 'echo "#include <pool/pool.hpp>" >>libchannels/a.cpp'
refuses lint/layers 'a foreign header in the wrong room' 'echo "#include <hwloc.h>" >>libchannels/a.cpp'
refuses lint/man 'a function without a page' 'rm man/man3/ch_a.3'
refuses lint/man 'a page without the function' 'sed "s/ch_a/ch_b/" -i man/man3/ch_a.3'
refuses lint/man 'a page that is not installed' 'sed "s/ch_a//" -i man/local.mk'
refuses lint/man 'a stub that leads nowhere' 'echo ".so man3/gone.3" >man/man3/ch_a.3'
command -v mandoc >/dev/null && refuses lint/man 'a page with an unknown macro' 'echo .Zz >>man/man3/ch_a.3'
refuses lint/models 'a step whose line is another now' 'sed "s/store(1/store(2/" -i libchannels/a.cpp'
refuses lint/models 'a model that names no lines' 'sed "/publish/d" -i tests/model/a.pml'
refuses lint/pairs 'a release without its acquire' 'sed "s/\[A1\] pairs.*//" -i libchannels/a.cpp'
refuses lint/pairs 'a shared tag that stands once' 'echo "// [B1] pairs with [B1]: x" >>libpool/a.cpp'
refuses lint/pairs 'a tag of no pair' 'echo "// [R7] the record is whole" >>libchannels/a.cpp'
refuses lint/pairs 'a load without an order' 'sed "s/load(acquire)/load()/" -i libchannels/a.cpp'
refuses lint/pairs 'a store without an order, over two lines' 'printf "void g()\n{\n\tw->store(\n\t\t1);\n}\n" >>libchannels/a.cpp'
refuses lint/pairs 'seq_cst without an argument' 'printf "\n\n\n\n\n\n\nint g()\n{\n\treturn w.load(seq_cst);\n}\n" >>libchannels/a.cpp'
refuses lint/sizes 'a function of 61 lines' '{ echo "void g()"; echo "{"; yes "	f();" | head -n 61; echo "}"; } >>libpool/a.cpp'
refuses lint/sizes 'a member function of 61 lines' '{ echo "struct s {"; echo "	void g()"; echo "	{"; yes "		f();" | head -n 61
	echo "	}"; echo "};"; } >>libpool/a.cpp'
refuses lint/sizes 'a file of 601 lines' 'yes "int i;" | head -n 600 >>libddict/a.cpp'
refuses lint/spdx 'a source without a licence line' 'echo >libpool/a.cpp'
refuses lint/spdx 'no licence' 'rm LICENSE'
refuses lint/words 'something left for later' 'echo "// TO""DO: more" >>libpool/a.cpp'
refuses lint/words 'a path of one workplace' 'echo "// see /wo""rk/x" >>libpool/a.cpp'
refuses lint/words 'a line of 129 columns' 'printf "//%0127d\n" 0 >>libpool/a.cpp'
echo "$nr verdicts"
exit $rc

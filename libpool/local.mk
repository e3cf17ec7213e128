# SPDX-License-Identifier: Apache-2.0
# libpool: C++20, exceptions on. Sees include/ only, never libchannels/ and never libddict. Keep the list
# alphabetical, and the public headers in include/local.mk. All objects are compiled once, into libpool_internal.la, which
# tests/crash links with libchannels_internal.la.
noinst_LTLIBRARIES += libpool_internal.la
libpool_internal_la_SOURCES = \
	libpool/board.h \
	libpool/callback.cpp \
	libpool/child.cpp \
	libpool/core.cpp libpool/core.h \
	libpool/cpus.cpp \
	libpool/drain.cpp \
	libpool/errors.cpp \
	libpool/handles.cpp \
	libpool/launch.cpp libpool/launch.h \
	libpool/limits.cpp \
	libpool/modules.cpp libpool/modules.h \
	libpool/monitor.cpp \
	libpool/named.cpp \
	libpool/peer.cpp libpool/peer.h \
	libpool/pool.cpp \
	libpool/process.cpp \
	libpool/progress.cpp \
	libpool/queue.cpp libpool/queue.h \
	libpool/room.cpp \
	libpool/shared.cpp \
	libpool/spmd.cpp \
	libpool/worker.cpp
lib_LTLIBRARIES += libpool.la
libpool_la_SOURCES =
nodist_EXTRA_libpool_la_SOURCES = libpool/none.cpp # never exists: says that the linker is C++
libpool_la_LIBADD  = libpool_internal.la libchannels.la
libpool_la_LDFLAGS = $(AM_LDFLAGS) -version-info $(POOL_LT_VERSION) -no-undefined -Wl,-z,now
pkgconfig_DATA += libpool/pool.pc

# SPDX-License-Identifier: Apache-2.0
# libchannels: C11 interface, C++20 inside, no exceptions and no RTTI. Keep the list alphabetical.
#
# All objects are compiled once, into libchannels_internal.la. libchannels.la is those objects behind the symbol
# map; tests of internals link libchannels_internal.la instead (never both, and so never libpool.la with it).
noinst_LTLIBRARIES += libchannels_internal.la
libchannels_internal_la_SOURCES = \
	libchannels/atomic.h \
	libchannels/attach.cpp \
	libchannels/backing.cpp \
	libchannels/backing.h \
	libchannels/block.cpp \
	libchannels/cache.h \
	libchannels/batch.cpp \
	libchannels/batch.h \
	libchannels/channel.cpp \
	libchannels/channel.h \
	libchannels/clock.h \
	libchannels/crash.h \
	libchannels/descr.cpp \
	libchannels/descr.h \
	libchannels/error.cpp \
	libchannels/error.h \
	libchannels/event.cpp \
	libchannels/event.h \
	libchannels/keeper.cpp \
	libchannels/keeper.h \
	libchannels/layout.h \
	libchannels/look.cpp \
	libchannels/message.cpp \
	libchannels/message.h \
	libchannels/module.cpp \
	libchannels/object.cpp \
	libchannels/object.h \
	libchannels/peer.cpp \
	libchannels/peer.h \
	libchannels/pollfd.cpp \
	libchannels/pollset.cpp \
	libchannels/pollset.h \
	libchannels/pollwait.cpp \
	libchannels/place.cpp \
	libchannels/pool.cpp \
	libchannels/pool.h \
	libchannels/recover.cpp \
	libchannels/reclaim.cpp \
	libchannels/ring.cpp \
	libchannels/ring.h \
	libchannels/role.cpp \
	libchannels/run.cpp \
	libchannels/run.h \
	libchannels/segment.cpp \
	libchannels/segment.h \
	libchannels/share.cpp \
	libchannels/spawn.cpp \
	libchannels/spawner.cpp \
	libchannels/spawner.h \
	libchannels/spsc.h \
	libchannels/stream.cpp \
	libchannels/stream.h \
	libchannels/stream_chunk.cpp \
	libchannels/stream_poll.cpp \
	libchannels/stream_talk.cpp \
	libchannels/sweep.cpp \
	libchannels/sweep.h \
	libchannels/sync.cpp \
	libchannels/sync.h \
	libchannels/sync_barrier.cpp \
	libchannels/sync_condition.cpp \
	libchannels/sync_event.cpp \
	libchannels/sync_mutex.cpp \
	libchannels/sync_mutex.h \
	libchannels/sync_rwlock.cpp \
	libchannels/sync_semaphore.cpp \
	libchannels/wait.cpp \
	libchannels/wait.h \
	libchannels/watch.cpp \
	libchannels/watch.h
libchannels_internal_la_CPPFLAGS = $(AM_CPPFLAGS) $(INTERNAL) $(XXHASH_CFLAGS)
libchannels_internal_la_CXXFLAGS = $(AM_CXXFLAGS) -fno-exceptions -fno-rtti
libchannels_internal_la_LIBADD   = $(XXHASH_LIBS)

lib_LTLIBRARIES += libchannels.la
libchannels_la_SOURCES =
nodist_EXTRA_libchannels_la_SOURCES = libchannels/none.cpp # never exists: says that the linker is C++
libchannels_la_LIBADD  = libchannels_internal.la
# -z now: a function is found once, and not by each forked child for itself.
libchannels_la_LDFLAGS = $(AM_LDFLAGS) -version-info $(CHANNELS_LT_VERSION) -no-undefined \
	-Wl,-z,nodelete -Wl,-z,now -Wl,--version-script=$(top_srcdir)/libchannels/libchannels.map
EXTRA_libchannels_la_DEPENDENCIES = $(top_srcdir)/libchannels/libchannels.map
EXTRA_DIST += libchannels/libchannels.map
pkgconfig_DATA += libchannels/channels.pc

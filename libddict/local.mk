# SPDX-License-Identifier: Apache-2.0
# libddict: C++20, exceptions on. Sees include/ only, never libchannels/ and never libpool. Keep the list alphabetical.
pkgconfig_DATA += libddict/ddict.pc
lib_LTLIBRARIES += libddict.la
# All objects, also for the kill test, which links them with libchannels' own (libchannels/local.mk).
noinst_LTLIBRARIES += libddict_internal.la
libddict_internal_la_SOURCES = \
	libddict/async.cpp \
	libddict/batch.cpp \
	libddict/cabi.cpp libddict/cabi.hpp libddict/cabi_calls.cpp libddict/cabi_keys.cpp libddict/cabi_visit.cpp \
	libddict/cache.cpp \
	libddict/calls.cpp \
	libddict/checkpoint.cpp \
	libddict/clone.cpp \
	libddict/connection.cpp libddict/connection.hpp \
	libddict/copies.cpp \
	libddict/core.cpp \
	libddict/cpus.cpp libddict/cpus.hpp \
	libddict/cursor.cpp \
	libddict/directory.cpp libddict/directory.hpp \
	libddict/durable.cpp \
	libddict/everywhere.cpp \
	libddict/frozen.hpp \
	libddict/index.hpp \
	libddict/io.cpp libddict/io.hpp \
	libddict/kept.cpp \
	libddict/link.cpp \
	libddict/log.cpp libddict/log.hpp \
	libddict/manager.cpp libddict/manager.hpp \
	libddict/mirror.cpp \
	libddict/number.hpp \
	libddict/operations.cpp \
	libddict/owner.cpp libddict/owner.hpp \
	libddict/pending.hpp \
	libddict/persist.cpp \
	libddict/persister.cpp libddict/persister.hpp \
	libddict/look.cpp \
	libddict/place.cpp libddict/place.hpp \
	libddict/promise.cpp \
	libddict/reading.cpp \
	libddict/restore.cpp libddict/restore.hpp \
	libddict/shard.cpp libddict/shard.hpp \
	libddict/snapshot.cpp libddict/snapshot.hpp \
	libddict/spread.cpp \
	libddict/statistics.cpp \
	libddict/store.cpp libddict/store.hpp \
	libddict/vault.cpp libddict/vault.hpp \
	libddict/versions.cpp \
	libddict/visit.cpp libddict/visit.hpp \
	libddict/visitor.cpp \
	libddict/waiting.cpp \
	libddict/window.cpp libddict/window.hpp \
	libddict/wire.hpp \
	libddict/writer.cpp
libddict_internal_la_CPPFLAGS = $(AM_CPPFLAGS) $(XXHASH_CFLAGS) $(LIBURING_CFLAGS)
libddict_internal_la_LIBADD   = $(XXHASH_LIBS) $(LIBURING_LIBS)
libddict_la_SOURCES =
nodist_EXTRA_libddict_la_SOURCES = libddict/none.cpp # see libchannels/local.mk
libddict_la_LIBADD   = libddict_internal.la libchannels.la
libddict_la_LDFLAGS  = $(AM_LDFLAGS) -version-info $(DDICT_LT_VERSION) -no-undefined \
	-Wl,-z,nodelete -Wl,--version-script=$(top_srcdir)/libddict/libddict.map
EXTRA_libddict_la_DEPENDENCIES = $(top_srcdir)/libddict/libddict.map
EXTRA_DIST += libddict/libddict.map

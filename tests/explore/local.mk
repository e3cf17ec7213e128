# SPDX-License-Identifier: Apache-2.0
# The schedule explorer: the real sources, compiled for it (tests/explore/word.h), in an archive, of which the linker takes
# what world.cpp has no stand-ins for. Not under sanitizers, which know no fibers.
EXPLORE_CPPFLAGS = -DCH_EXPLORE -include $(top_srcdir)/tests/explore/word.h $(AM_CPPFLAGS) $(INTERNAL) $(XXHASH_CFLAGS)
EXPLORE_CXXFLAGS = $(AM_CXXFLAGS) -fno-exceptions -fno-rtti
if !SANITIZERS
check_LIBRARIES = tests/explore/libexplored.a
check_PROGRAMS += tests/explore/explore
endif
tests_explore_libexplored_a_SOURCES  = $(libchannels_internal_la_SOURCES)
tests_explore_libexplored_a_CPPFLAGS = $(EXPLORE_CPPFLAGS)
tests_explore_libexplored_a_CXXFLAGS = $(EXPLORE_CXXFLAGS)
tests_explore_explore_SOURCES = \
	tests/explore/channel_scenarios.cpp \
	tests/explore/death_scenarios.cpp \
	tests/explore/evidence.cpp \
	tests/explore/evidence.h \
	tests/explore/explorer.cpp \
	tests/explore/explorer.h \
	tests/explore/ground_scenarios.cpp \
	tests/explore/kinds_scenarios.cpp \
	tests/explore/main.cpp \
	tests/explore/memory.cpp \
	tests/explore/memory.h \
	tests/explore/orders.cpp \
	tests/explore/orders.h \
	tests/explore/scenarios.h \
	tests/explore/stream_scenarios.cpp \
	tests/explore/sync_scenarios.cpp \
	tests/explore/ways_scenarios.cpp \
	tests/explore/word.h \
	tests/explore/world.cpp \
	tests/explore/world.h
tests_explore_explore_CPPFLAGS = $(EXPLORE_CPPFLAGS)
tests_explore_explore_CXXFLAGS = $(EXPLORE_CXXFLAGS)
# What an object file brings along that world.cpp stands in for is not used: the first definition is.
tests_explore_explore_LDFLAGS  = $(AM_LDFLAGS) -Wl,-z,muldefs
tests_explore_explore_LDADD    = tests/explore/libexplored.a $(XXHASH_LIBS)
EXTRA_DIST += tests/explore/orders.txt

# SPDX-License-Identifier: Apache-2.0
# Tests of libpool and of channels/archive.hpp: Criterion, public API only. CH_TEST_SECONDS=N lengthens the chaos.
POOL_TEST_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
POOL_TEST_LDADD    = libpool.la libchannels.la $(CRITERION_LIBS)
EXTRA_DIST += tests/pool/pool_support.hpp
if HAVE_CRITERION
check_PROGRAMS += \
	tests/pool/archive_test \
	tests/pool/call_test \
	tests/pool/death_test \
	tests/pool/error_test \
	tests/pool/future_test \
	tests/pool/lent_test \
	tests/pool/life_test \
	tests/pool/map_test \
	tests/pool/named_test \
	tests/pool/option_test \
	tests/pool/process_test \
	tests/pool/queue_test \
	tests/pool/shared_test \
	tests/pool/spmd_test \
	tests/pool/wait_test
check_LTLIBRARIES = tests/pool/plugin.la
endif
STRESS += tests/pool/threads_stress
tests_pool_threads_stress_SOURCES = tests/pool/threads_stress.cpp
tests_pool_threads_stress_LDADD   = libpool.la libchannels.la
tests_pool_archive_test_SOURCES  = tests/pool/archive_test.cpp
tests_pool_archive_test_CPPFLAGS = $(POOL_TEST_CPPFLAGS)
tests_pool_archive_test_LDADD    = libchannels.la $(CRITERION_LIBS)
tests_pool_call_test_SOURCES     = tests/pool/call_test.cpp
tests_pool_call_test_CPPFLAGS    = $(POOL_TEST_CPPFLAGS)
tests_pool_call_test_LDADD       = $(POOL_TEST_LDADD)
tests_pool_death_test_SOURCES    = tests/pool/death_test.cpp
tests_pool_death_test_CPPFLAGS   = $(POOL_TEST_CPPFLAGS)
tests_pool_death_test_LDADD      = $(POOL_TEST_LDADD)
tests_pool_error_test_SOURCES    = tests/pool/error_test.cpp
tests_pool_error_test_CPPFLAGS   = $(POOL_TEST_CPPFLAGS)
tests_pool_error_test_LDADD      = $(POOL_TEST_LDADD)
tests_pool_lent_test_SOURCES     = tests/pool/lent_test.cpp
tests_pool_lent_test_CPPFLAGS    = $(POOL_TEST_CPPFLAGS)
tests_pool_lent_test_LDADD       = $(POOL_TEST_LDADD)
tests_pool_life_test_SOURCES     = tests/pool/life_test.cpp
tests_pool_life_test_CPPFLAGS    = $(POOL_TEST_CPPFLAGS)
tests_pool_life_test_LDADD       = $(POOL_TEST_LDADD)
tests_pool_map_test_SOURCES      = tests/pool/map_test.cpp
tests_pool_map_test_CPPFLAGS     = $(POOL_TEST_CPPFLAGS)
tests_pool_map_test_LDADD        = $(POOL_TEST_LDADD)
tests_pool_wait_test_SOURCES     = tests/pool/wait_test.cpp
tests_pool_wait_test_CPPFLAGS    = $(POOL_TEST_CPPFLAGS)
tests_pool_wait_test_LDADD       = $(POOL_TEST_LDADD)
tests_pool_future_test_SOURCES = tests/pool/future_test.cpp
tests_pool_future_test_CPPFLAGS = $(POOL_TEST_CPPFLAGS)
tests_pool_future_test_LDADD = $(POOL_TEST_LDADD)
tests_pool_option_test_SOURCES = tests/pool/option_test.cpp
tests_pool_option_test_CPPFLAGS = $(POOL_TEST_CPPFLAGS)
tests_pool_option_test_LDADD = $(POOL_TEST_LDADD)
tests_pool_queue_test_SOURCES = tests/pool/queue_test.cpp
tests_pool_queue_test_CPPFLAGS = $(POOL_TEST_CPPFLAGS)
tests_pool_queue_test_LDADD = $(POOL_TEST_LDADD)
tests_pool_shared_test_SOURCES = tests/pool/shared_test.cpp
tests_pool_shared_test_CPPFLAGS = $(POOL_TEST_CPPFLAGS)
tests_pool_shared_test_LDADD = $(POOL_TEST_LDADD)
tests_pool_process_test_SOURCES = tests/pool/process_test.cpp
tests_pool_process_test_CPPFLAGS = $(POOL_TEST_CPPFLAGS)
tests_pool_process_test_LDADD = $(POOL_TEST_LDADD)
tests_pool_spmd_test_SOURCES = tests/pool/spmd_test.cpp
tests_pool_spmd_test_CPPFLAGS = $(POOL_TEST_CPPFLAGS)
tests_pool_spmd_test_LDADD = $(POOL_TEST_LDADD)
tests_pool_named_test_SOURCES = tests/pool/named_test.cpp
tests_pool_named_test_CPPFLAGS = $(POOL_TEST_CPPFLAGS)
tests_pool_named_test_LDADD = $(POOL_TEST_LDADD)
# A plug-in: -rpath makes libtool build it shared; it is not installed.
tests_pool_plugin_la_SOURCES = tests/pool/plugin.c
tests_pool_plugin_la_LIBADD  = libpool.la
tests_pool_plugin_la_LDFLAGS = $(AM_LDFLAGS) -module -avoid-version -shared -rpath /nowhere

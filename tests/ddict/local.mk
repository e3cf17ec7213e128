# SPDX-License-Identifier: Apache-2.0
# Tests of libddict: Criterion, public API only, but for death_test, hostile_test, parts_test, power_test and window_test,
# which see libddict's own headers.
DDICT_TEST_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
DDICT_TEST_LDADD    = libddict.la libchannels.la $(CRITERION_LIBS)
EXTRA_DIST += tests/ddict/ddict_support.hpp tests/ddict/persist_support.hpp
EXTRA_DIST += tests/ddict/power_disk.hpp tests/ddict/power_history.hpp
STRESS += tests/ddict/ddict_stress
tests_ddict_ddict_stress_SOURCES = tests/ddict/ddict_stress.cpp
tests_ddict_ddict_stress_LDADD   = libddict.la libchannels.la

if HAVE_CRITERION
check_PROGRAMS += \
	tests/ddict/c_rows_test \
	tests/ddict/c_test \
	tests/ddict/checkpoint_test \
	tests/ddict/clients_test \
	tests/ddict/clone_test \
	tests/ddict/death_test \
	tests/ddict/full_test \
	tests/ddict/handle_test \
	tests/ddict/hostile_test \
	tests/ddict/linear_test \
	tests/ddict/log_test \
	tests/ddict/look_test \
	tests/ddict/more_ops_test \
	tests/ddict/ops_test \
	tests/ddict/parts_test \
	tests/ddict/persist_test \
	tests/ddict/power_test \
	tests/ddict/replica_test \
	tests/ddict/restart_test \
	tests/ddict/room_test \
	tests/ddict/spread_test \
	tests/ddict/visit_test \
	tests/ddict/window_test
endif
tests_ddict_c_rows_test_SOURCES    = tests/ddict/c_rows_test.c
tests_ddict_c_rows_test_CPPFLAGS   = $(DDICT_TEST_CPPFLAGS)
tests_ddict_c_rows_test_LDADD      = $(DDICT_TEST_LDADD)
tests_ddict_c_test_SOURCES         = tests/ddict/c_test.c
tests_ddict_c_test_CPPFLAGS        = $(DDICT_TEST_CPPFLAGS)
tests_ddict_c_test_LDADD           = $(DDICT_TEST_LDADD)
tests_ddict_checkpoint_test_SOURCES  = tests/ddict/checkpoint_test.cpp
tests_ddict_checkpoint_test_CPPFLAGS = $(DDICT_TEST_CPPFLAGS)
tests_ddict_checkpoint_test_LDADD    = $(DDICT_TEST_LDADD)
tests_ddict_clients_test_SOURCES   = tests/ddict/clients_test.cpp
tests_ddict_clients_test_CPPFLAGS  = $(DDICT_TEST_CPPFLAGS)
tests_ddict_clients_test_LDADD     = $(DDICT_TEST_LDADD)
tests_ddict_clone_test_SOURCES     = tests/ddict/clone_test.cpp
tests_ddict_clone_test_CPPFLAGS    = $(DDICT_TEST_CPPFLAGS)
tests_ddict_clone_test_LDADD       = $(DDICT_TEST_LDADD)
tests_ddict_death_test_SOURCES     = tests/ddict/death_test.cpp tests/support/holdings.hpp libddict/directory.cpp
tests_ddict_death_test_CPPFLAGS    = $(DDICT_TEST_CPPFLAGS) -iquote $(top_srcdir)/libddict
tests_ddict_death_test_LDADD       = $(DDICT_TEST_LDADD)
tests_ddict_full_test_SOURCES      = tests/ddict/full_test.cpp
tests_ddict_full_test_CPPFLAGS     = $(DDICT_TEST_CPPFLAGS)
tests_ddict_full_test_LDADD        = $(DDICT_TEST_LDADD)
tests_ddict_handle_test_SOURCES    = tests/ddict/handle_test.cpp
tests_ddict_handle_test_CPPFLAGS   = $(DDICT_TEST_CPPFLAGS)
tests_ddict_handle_test_LDADD      = $(DDICT_TEST_LDADD)
tests_ddict_hostile_test_SOURCES   = tests/ddict/hostile_test.cpp libddict/directory.cpp libddict/window.cpp
tests_ddict_hostile_test_CPPFLAGS  = $(DDICT_TEST_CPPFLAGS) -iquote $(top_srcdir)/libddict
tests_ddict_hostile_test_LDADD     = $(DDICT_TEST_LDADD)
tests_ddict_linear_test_SOURCES    = tests/ddict/linear_test.cpp
tests_ddict_linear_test_CPPFLAGS   = $(DDICT_TEST_CPPFLAGS)
tests_ddict_linear_test_LDADD      = $(DDICT_TEST_LDADD)
tests_ddict_log_test_SOURCES       = tests/ddict/log_test.cpp
tests_ddict_log_test_CPPFLAGS      = $(DDICT_TEST_CPPFLAGS)
tests_ddict_log_test_LDADD         = $(DDICT_TEST_LDADD)
tests_ddict_look_test_SOURCES      = tests/ddict/look_test.cpp
tests_ddict_look_test_CPPFLAGS     = $(DDICT_TEST_CPPFLAGS)
tests_ddict_look_test_LDADD        = $(DDICT_TEST_LDADD)
tests_ddict_more_ops_test_SOURCES  = tests/ddict/more_ops_test.cpp
tests_ddict_more_ops_test_CPPFLAGS = $(DDICT_TEST_CPPFLAGS)
tests_ddict_more_ops_test_LDADD    = $(DDICT_TEST_LDADD)
tests_ddict_ops_test_SOURCES       = tests/ddict/ops_test.cpp
tests_ddict_ops_test_CPPFLAGS      = $(DDICT_TEST_CPPFLAGS)
tests_ddict_ops_test_LDADD         = $(DDICT_TEST_LDADD)
tests_ddict_parts_test_SOURCES     = tests/ddict/parts_test.cpp libddict/cpus.cpp libddict/place.cpp
tests_ddict_parts_test_CPPFLAGS    = $(DDICT_TEST_CPPFLAGS) $(XXHASH_CFLAGS) -iquote $(top_srcdir)/libddict
tests_ddict_parts_test_LDADD       = $(DDICT_TEST_LDADD) $(XXHASH_LIBS)
tests_ddict_persist_test_SOURCES   = tests/ddict/persist_test.cpp
tests_ddict_persist_test_CPPFLAGS  = $(DDICT_TEST_CPPFLAGS)
tests_ddict_persist_test_LDADD     = $(DDICT_TEST_LDADD)
# What changes files is wrapped at the link.
tests_ddict_power_test_SOURCES     = tests/ddict/power_disk.cpp tests/ddict/power_history.cpp \
	tests/ddict/power_test.cpp
tests_ddict_power_test_CPPFLAGS    = $(DDICT_TEST_CPPFLAGS) -iquote $(top_srcdir)/libddict
tests_ddict_power_test_LDADD       = libddict_internal.la libchannels_internal.la $(CRITERION_LIBS)
tests_ddict_power_test_LDFLAGS     = $(AM_LDFLAGS) -Wl,--wrap=fallocate -Wl,--wrap=fdatasync -Wl,--wrap=fsync \
	-Wl,--wrap=ftruncate -Wl,--wrap=io_uring_queue_init -Wl,--wrap=mkdir -Wl,--wrap=open -Wl,--wrap=pwrite \
	-Wl,--wrap=rename -Wl,--wrap=unlink
tests_ddict_replica_test_SOURCES   = tests/ddict/replica_test.cpp
tests_ddict_replica_test_CPPFLAGS  = $(DDICT_TEST_CPPFLAGS)
tests_ddict_replica_test_LDADD     = $(DDICT_TEST_LDADD)
tests_ddict_restart_test_SOURCES   = tests/ddict/restart_test.cpp
tests_ddict_restart_test_CPPFLAGS  = $(DDICT_TEST_CPPFLAGS)
tests_ddict_restart_test_LDADD     = $(DDICT_TEST_LDADD)
tests_ddict_room_test_SOURCES      = tests/ddict/room_test.cpp
tests_ddict_room_test_CPPFLAGS     = $(DDICT_TEST_CPPFLAGS)
tests_ddict_room_test_LDADD        = $(DDICT_TEST_LDADD)
tests_ddict_spread_test_SOURCES    = tests/ddict/spread_test.cpp
tests_ddict_spread_test_CPPFLAGS   = $(DDICT_TEST_CPPFLAGS)
tests_ddict_spread_test_LDADD      = $(DDICT_TEST_LDADD)
tests_ddict_visit_test_SOURCES     = tests/ddict/visit_test.cpp
tests_ddict_visit_test_CPPFLAGS    = $(DDICT_TEST_CPPFLAGS)
tests_ddict_visit_test_LDADD       = $(DDICT_TEST_LDADD)
tests_ddict_window_test_SOURCES    = tests/ddict/window_test.cpp libddict/window.cpp
tests_ddict_window_test_CPPFLAGS   = $(DDICT_TEST_CPPFLAGS) -iquote $(top_srcdir)/libddict
tests_ddict_window_test_LDADD      = $(DDICT_TEST_LDADD)

if HAVE_CLI11
dist_check_SCRIPTS += tests/ddict/wordfreq.sh
else
EXTRA_DIST += tests/ddict/wordfreq.sh
endif
dist_check_SCRIPTS += tests/ddict/examples.sh

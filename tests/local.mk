# SPDX-License-Identifier: Apache-2.0
# Tests of libchannels. Keep each block alphabetical.
#
# tests/unit     Criterion, one program per source file, may see internals (libchannels_internal.la)
# tests/conform  Criterion, one suite per interface, public API only
# tests/proc     Criterion, several processes, public API only
# tests/stress   plain main(), so that ThreadSanitizer can run them; a short run by default
# tests/crash    plain main(): torture --kills N --seed S
# tests/explore  plain main(): the real sources under every schedule and every value that the memory model allows
# tests/fuzz     libFuzzer targets; with driver.cpp a short random run of each
# tests/lint, tests/abi, tests/model   scripts
# Exit 77 means skipped. Each program runs in a /dev/shm and a process namespace of its own and must leave nothing in
# either; CH_TEST_SEED=N repeats a random run.
LOG_COMPILER = $(top_srcdir)/tests/support/alone.sh
EXTRA_DIST += tests/support/alone.sh tests/support/lsan.supp

CHANNELS_TEST_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
CHANNELS_TEST_LIBS     = libchannels.la $(CRITERION_LIBS)
UNIT_TEST_CPPFLAGS     = $(AM_CPPFLAGS) $(INTERNAL) $(CRITERION_CFLAGS)
UNIT_TEST_LIBS         = libchannels_internal.la $(CRITERION_LIBS)

if HAVE_CRITERION
check_PROGRAMS += \
	tests/conform/block_test \
	tests/conform/channel_ack_test \
	tests/conform/channel_attr_test \
	tests/conform/channel_batch_test \
	tests/conform/channel_cpp_test \
	tests/conform/channel_end_test \
	tests/conform/channel_place_test \
	tests/conform/channel_spsc_test \
	tests/conform/channel_test \
	tests/conform/channel_wait_test \
	tests/conform/descr_test \
	tests/conform/memory_hpp_test \
	tests/conform/module_test \
	tests/conform/peer_test \
	tests/conform/pollset_cpp_test \
	tests/conform/pollset_kinds_test \
	tests/conform/pollset_kinds_wait_test \
	tests/conform/pollset_test \
	tests/conform/pollset_wait_test \
	tests/conform/pool_grow_test \
	tests/conform/pool_peers_test \
	tests/conform/pool_test \
	tests/conform/segment_bad_test \
	tests/conform/segment_more_test \
	tests/conform/segment_test \
	tests/conform/spawn_test \
	tests/conform/stream_buf_test \
	tests/conform/stream_end_test \
	tests/conform/stream_test \
	tests/conform/sync_barrier_test \
	tests/conform/sync_condition_test \
	tests/conform/sync_cpp_test \
	tests/conform/sync_event_test \
	tests/conform/sync_mutex_test \
	tests/conform/sync_rwlock_test \
	tests/conform/sync_semaphore_test \
	tests/proc/attach_test \
	tests/proc/fork_test \
	tests/proc/holds_test \
	tests/proc/many_test \
	tests/proc/pollset_test \
	tests/proc/quiet_test \
	tests/proc/stream_test \
	tests/proc/untold_test \
	tests/unit/descr_test \
	tests/unit/event_test \
	tests/unit/ring_test \
	tests/unit/peer_test \
	tests/unit/run_test \
	tests/unit/segment_test \
	tests/unit/wait_test
endif
tests_conform_block_test_SOURCES  = tests/conform/block_test.c tests/support/support.h
tests_conform_block_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_block_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_channel_ack_test_SOURCES  = tests/conform/channel_ack_test.c tests/support/support.h
tests_conform_channel_ack_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_channel_ack_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_channel_attr_test_SOURCES  = tests/conform/channel_attr_test.c tests/support/support.h
tests_conform_channel_attr_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_channel_attr_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_channel_batch_test_SOURCES  = tests/conform/channel_batch_test.c tests/support/support.h
tests_conform_channel_batch_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_channel_batch_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_channel_cpp_test_SOURCES  = tests/conform/channel_cpp_test.cpp tests/support/support.h
tests_conform_channel_cpp_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_channel_cpp_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_channel_end_test_SOURCES  = tests/conform/channel_end_test.c tests/support/support.h
tests_conform_channel_end_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_channel_end_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_channel_place_test_SOURCES  = tests/conform/channel_place_test.c tests/support/support.h
tests_conform_channel_place_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_channel_place_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_channel_spsc_test_SOURCES  = tests/conform/channel_spsc_test.c tests/support/support.h
tests_conform_channel_spsc_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_channel_spsc_test_LDADD    = $(CHANNELS_TEST_LIBS) -lpthread
tests_conform_channel_test_SOURCES  = tests/conform/channel_test.c tests/support/support.h
tests_conform_channel_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_channel_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_channel_wait_test_SOURCES  = tests/conform/channel_wait_test.c tests/support/support.h
tests_conform_channel_wait_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_channel_wait_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_descr_test_SOURCES  = tests/conform/descr_test.c tests/support/support.h
tests_conform_descr_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_descr_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_memory_hpp_test_SOURCES  = tests/conform/memory_hpp_test.cpp
tests_conform_memory_hpp_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_memory_hpp_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_module_test_SOURCES  = tests/conform/module_test.c tests/support/support.h
tests_conform_module_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_module_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_peer_test_SOURCES  = tests/conform/peer_test.c tests/support/support.h
tests_conform_peer_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_peer_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_pollset_cpp_test_SOURCES  = tests/conform/pollset_cpp_test.cpp tests/support/support.h
tests_conform_pollset_cpp_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_pollset_cpp_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_pollset_kinds_test_SOURCES  = \
	tests/conform/pollset_kinds_test.c tests/conform/pollset_kinds.h \
	tests/conform/sync_support.h tests/support/support.h
tests_conform_pollset_kinds_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_pollset_kinds_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_pollset_kinds_wait_test_SOURCES  = \
	tests/conform/pollset_kinds_wait_test.c tests/conform/pollset_kinds.h \
	tests/conform/sync_support.h tests/support/support.h
tests_conform_pollset_kinds_wait_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_pollset_kinds_wait_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_pollset_test_SOURCES  = tests/conform/pollset_test.c tests/support/support.h
tests_conform_pollset_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_pollset_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_pollset_wait_test_SOURCES  = tests/conform/pollset_wait_test.c tests/support/support.h
tests_conform_pollset_wait_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_pollset_wait_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_pool_peers_test_SOURCES  = tests/conform/pool_peers_test.c tests/support/support.h
tests_conform_pool_peers_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_pool_peers_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_pool_test_SOURCES  = tests/conform/pool_test.c tests/support/support.h
tests_conform_pool_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_pool_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_segment_bad_test_SOURCES  = tests/conform/segment_bad_test.c tests/support/support.h
tests_conform_segment_bad_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_segment_bad_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_segment_more_test_SOURCES  = tests/conform/segment_more_test.c tests/support/support.h
tests_conform_segment_more_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_segment_more_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_pool_grow_test_SOURCES  = tests/conform/pool_grow_test.c tests/support/support.h
tests_conform_pool_grow_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_pool_grow_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_segment_test_SOURCES  = tests/conform/segment_test.c tests/support/support.h
tests_conform_segment_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_segment_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_spawn_test_SOURCES  = tests/conform/spawn_test.c tests/support/support.h
tests_conform_spawn_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_spawn_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_stream_buf_test_SOURCES  = tests/conform/stream_buf_test.cpp tests/support/support.h
tests_conform_stream_buf_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_stream_buf_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_stream_end_test_SOURCES  = tests/conform/stream_end_test.c tests/support/support.h
tests_conform_stream_end_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_stream_end_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_stream_test_SOURCES  = tests/conform/stream_test.c tests/support/support.h
tests_conform_stream_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_stream_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_sync_barrier_test_SOURCES  = \
	tests/conform/sync_barrier_test.c tests/conform/sync_support.h tests/support/support.h
tests_conform_sync_barrier_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_sync_barrier_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_sync_condition_test_SOURCES  = \
	tests/conform/sync_condition_test.c tests/conform/sync_support.h tests/support/support.h
tests_conform_sync_condition_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_sync_condition_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_sync_cpp_test_SOURCES  = tests/conform/sync_cpp_test.cpp tests/support/support.h
tests_conform_sync_cpp_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_sync_cpp_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_sync_event_test_SOURCES  = \
	tests/conform/sync_event_test.c tests/conform/sync_support.h tests/support/support.h
tests_conform_sync_event_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_sync_event_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_sync_mutex_test_SOURCES  = \
	tests/conform/sync_mutex_test.c tests/conform/sync_support.h tests/support/support.h
tests_conform_sync_mutex_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_sync_mutex_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_sync_rwlock_test_SOURCES  = \
	tests/conform/sync_rwlock_test.c tests/conform/sync_support.h tests/support/support.h
tests_conform_sync_rwlock_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_sync_rwlock_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_conform_sync_semaphore_test_SOURCES  = \
	tests/conform/sync_semaphore_test.c tests/conform/sync_support.h tests/support/support.h
tests_conform_sync_semaphore_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_conform_sync_semaphore_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_proc_attach_test_SOURCES  = tests/proc/attach_test.c tests/support/support.h
tests_proc_attach_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_proc_attach_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_proc_fork_test_SOURCES  = tests/proc/fork_test.c tests/support/support.h
tests_proc_fork_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_proc_fork_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_proc_holds_test_SOURCES   = tests/proc/holds_test.c tests/support/support.h
tests_proc_holds_test_CPPFLAGS  = $(CHANNELS_TEST_CPPFLAGS)
tests_proc_holds_test_LDADD     = $(CHANNELS_TEST_LIBS)
tests_proc_many_test_SOURCES  = tests/proc/many_test.c tests/support/support.h
tests_proc_many_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_proc_many_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_proc_pollset_test_SOURCES  = tests/proc/pollset_test.c tests/support/support.h
tests_proc_pollset_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_proc_pollset_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_proc_quiet_test_SOURCES  = tests/proc/quiet_test.c tests/support/support.h
tests_proc_quiet_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_proc_quiet_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_proc_stream_test_SOURCES  = tests/proc/stream_test.c tests/support/support.h
tests_proc_stream_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_proc_stream_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_proc_untold_test_SOURCES  = tests/proc/untold_test.c tests/support/support.h
tests_proc_untold_test_CPPFLAGS = $(CHANNELS_TEST_CPPFLAGS)
tests_proc_untold_test_LDADD    = $(CHANNELS_TEST_LIBS)
tests_unit_descr_test_SOURCES  = tests/unit/descr_test.cpp tests/support/support.h
tests_unit_descr_test_CPPFLAGS = $(UNIT_TEST_CPPFLAGS)
tests_unit_descr_test_LDADD    = $(UNIT_TEST_LIBS)
tests_unit_event_test_SOURCES  = tests/unit/event_test.cpp tests/support/support.h
tests_unit_event_test_CPPFLAGS = $(UNIT_TEST_CPPFLAGS)
tests_unit_event_test_LDADD    = $(UNIT_TEST_LIBS)
tests_unit_ring_test_SOURCES  = tests/unit/ring_test.cpp tests/support/support.h
tests_unit_ring_test_CPPFLAGS = $(UNIT_TEST_CPPFLAGS)
tests_unit_ring_test_LDADD    = $(UNIT_TEST_LIBS)
tests_unit_peer_test_SOURCES  = tests/unit/peer_test.cpp tests/support/support.h
tests_unit_peer_test_CPPFLAGS = $(UNIT_TEST_CPPFLAGS)
tests_unit_peer_test_LDADD    = $(UNIT_TEST_LIBS)
tests_unit_segment_test_SOURCES  = tests/unit/segment_test.cpp tests/support/support.h
tests_unit_segment_test_CPPFLAGS = $(UNIT_TEST_CPPFLAGS)
tests_unit_segment_test_LDADD    = $(UNIT_TEST_LIBS)
tests_unit_wait_test_SOURCES  = tests/unit/wait_test.cpp tests/support/support.h
tests_unit_wait_test_CPPFLAGS = $(UNIT_TEST_CPPFLAGS)
tests_unit_wait_test_LDADD    = $(UNIT_TEST_LIBS)
tests_unit_run_test_SOURCES  = tests/unit/run_test.cpp tests/support/support.h
tests_unit_run_test_CPPFLAGS = $(UNIT_TEST_CPPFLAGS)
tests_unit_run_test_LDADD    = $(UNIT_TEST_LIBS)

# One list of the programs that ThreadSanitizer runs: make check TESTS='$(STRESS)'.
STRESS = \
	tests/stress/channel_stress \
	tests/stress/handle_stress \
	tests/stress/pollset_stress \
	tests/stress/pool_stress \
	tests/stress/stream_stress \
	tests/stress/sync_stress \
	tests/stress/ways_stress
check_PROGRAMS += $(STRESS)
tests_stress_channel_stress_SOURCES = tests/stress/channel_stress.cpp tests/stress/stress.h tests/support/support.h
tests_stress_channel_stress_LDADD   = libchannels.la
tests_stress_handle_stress_SOURCES = tests/stress/handle_stress.cpp tests/stress/stress.h tests/support/support.h
tests_stress_handle_stress_LDADD   = libchannels.la
tests_stress_pollset_stress_SOURCES = tests/stress/pollset_stress.cpp tests/stress/stress.h tests/support/support.h
tests_stress_pollset_stress_LDADD   = libchannels.la
tests_stress_pool_stress_SOURCES = tests/stress/pool_stress.cpp tests/stress/stress.h tests/support/support.h
tests_stress_pool_stress_LDADD   = libchannels.la
tests_stress_stream_stress_SOURCES = tests/stress/stream_stress.cpp tests/stress/stress.h tests/support/support.h
tests_stress_stream_stress_LDADD   = libchannels.la
tests_stress_sync_stress_SOURCES = tests/stress/stress.h tests/stress/sync_stress.cpp tests/support/support.h
tests_stress_sync_stress_LDADD   = libchannels.la

check_PROGRAMS += tests/crash/block_torture
tests_crash_block_torture_SOURCES  = tests/crash/block_torture.cpp tests/crash/must.h tests/support/support.h
tests_crash_block_torture_CPPFLAGS = $(AM_CPPFLAGS) $(INTERNAL)
tests_crash_block_torture_LDADD    = libchannels_internal.la
check_PROGRAMS += tests/crash/ddict_torture
tests_crash_ddict_torture_SOURCES  = \
	tests/crash/ddict_crew.cpp tests/crash/ddict_crew.h tests/crash/ddict_torture.cpp tests/crash/must.h \
	tests/support/holdings.hpp tests/support/support.h
tests_crash_ddict_torture_CPPFLAGS = $(AM_CPPFLAGS) $(INTERNAL) -iquote $(top_srcdir)/libddict
tests_crash_ddict_torture_LDADD    = libddict_internal.la libchannels_internal.la
check_PROGRAMS += tests/crash/pool_torture
tests_crash_pool_torture_SOURCES  = tests/crash/must.h tests/crash/pool_torture.cpp tests/support/support.h
tests_crash_pool_torture_CPPFLAGS = $(AM_CPPFLAGS) $(INTERNAL)
tests_crash_pool_torture_LDADD    = libpool_internal.la libchannels_internal.la
check_PROGRAMS += tests/crash/sync_torture
tests_crash_sync_torture_SOURCES  = tests/crash/in_set.h tests/crash/sync_torture.cpp tests/support/support.h
tests_crash_sync_torture_CPPFLAGS = $(AM_CPPFLAGS) $(INTERNAL)
tests_crash_sync_torture_LDADD    = libchannels_internal.la
tests_stress_ways_stress_SOURCES = tests/stress/ways_stress.cpp tests/stress/stress.h tests/support/support.h
tests_stress_ways_stress_LDADD   = libchannels.la

check_PROGRAMS += tests/crash/torture
tests_crash_torture_SOURCES = \
	tests/crash/crew.cpp \
	tests/crash/crew.h \
	tests/crash/couples.cpp tests/crash/director.cpp \
	tests/crash/director.h \
	tests/crash/evidence.cpp \
	tests/crash/evidence.h \
	tests/crash/poller.cpp \
	tests/crash/poller.h \
	tests/crash/torture.cpp \
	tests/crash/ways.cpp \
	tests/support/support.h
tests_crash_torture_CPPFLAGS = $(AM_CPPFLAGS) $(INTERNAL)
tests_crash_torture_LDADD    = libchannels_internal.la

check_PROGRAMS += tests/crash/stream_torture
tests_crash_stream_torture_SOURCES  = \
	tests/crash/in_set.h tests/crash/must.h tests/crash/stream_torture.cpp tests/support/support.h
tests_crash_stream_torture_CPPFLAGS = $(AM_CPPFLAGS) $(INTERNAL)
tests_crash_stream_torture_LDADD    = libchannels_internal.la

include $(top_srcdir)/tests/ddict/local.mk
include $(top_srcdir)/tests/fault/local.mk
include $(top_srcdir)/tests/explore/local.mk
include $(top_srcdir)/tests/fuzz/local.mk
include $(top_srcdir)/tests/model/local.mk
include $(top_srcdir)/tests/pool/local.mk

# SPDX-License-Identifier: Apache-2.0
# Keep each block alphabetical; uncomment and add as tests land.
#
# tests/unit     Criterion, one program per source file, may see internals (libchannels_internal.la)
# tests/conform  Criterion, one suite per interface, public API only
# tests/proc     Criterion, several processes, public API only
# tests/stress   plain main(), so that ThreadSanitizer can run them; a short run by default
# tests/crash    plain main(): torture --kills N --seed S
# tests/lint, tests/abi   scripts
# Exit 77 means skipped.

if HAVE_CRITERION
#check_PROGRAMS += \
#	tests/unit/ring_test
endif
#tests_unit_ring_test_SOURCES  = tests/unit/ring_test.cpp
#tests_unit_ring_test_CPPFLAGS = $(AM_CPPFLAGS) $(INTERNAL) $(CRITERION_CFLAGS)
#tests_unit_ring_test_LDADD    = libchannels_internal.la $(CRITERION_LIBS)

# One list of the programs that ThreadSanitizer runs: make check TESTS='$(STRESS)'.
STRESS =
#STRESS += tests/stress/ring_stress
check_PROGRAMS += $(STRESS)
#tests_stress_ring_stress_SOURCES  = tests/stress/ring_stress.cpp
#tests_stress_ring_stress_CPPFLAGS = $(AM_CPPFLAGS) $(INTERNAL)
#tests_stress_ring_stress_LDADD    = libchannels_internal.la

#check_PROGRAMS += tests/crash/torture
#tests_crash_torture_SOURCES = tests/crash/torture.cpp
#tests_crash_torture_LDADD   = libchannels.la

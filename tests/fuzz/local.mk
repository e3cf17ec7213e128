# SPDX-License-Identifier: Apache-2.0
# Fuzz targets, each with its corpus. With --enable-sanitizers=fuzzer-no-link,... they are libFuzzer's; else driver.cpp
# tries the corpus and random inputs for a second or two.
if LIBFUZZER
FUZZ_DRIVER =
FUZZ_LINK = $(AM_LDFLAGS) -fsanitize=fuzzer
else
FUZZ_DRIVER = tests/fuzz/driver.cpp
FUZZ_LINK = $(AM_LDFLAGS)
endif
check_PROGRAMS += \
	tests/fuzz/attr_fuzz \
	tests/fuzz/descr_fuzz \
	tests/fuzz/object_fuzz \
	tests/fuzz/shm_fuzz
tests_fuzz_attr_fuzz_SOURCES   = tests/fuzz/attr_fuzz.cpp tests/fuzz/hostile.h tests/support/support.h $(FUZZ_DRIVER)
tests_fuzz_attr_fuzz_LDADD     = libchannels.la
tests_fuzz_attr_fuzz_LDFLAGS   = $(FUZZ_LINK)
tests_fuzz_descr_fuzz_SOURCES  = tests/fuzz/descr_fuzz.cpp tests/support/support.h $(FUZZ_DRIVER)
tests_fuzz_descr_fuzz_LDADD    = libchannels.la
tests_fuzz_descr_fuzz_LDFLAGS  = $(FUZZ_LINK)
tests_fuzz_object_fuzz_SOURCES = tests/fuzz/hostile.h tests/fuzz/object_fuzz.cpp tests/support/support.h $(FUZZ_DRIVER)
tests_fuzz_object_fuzz_LDADD   = libchannels.la
tests_fuzz_object_fuzz_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_shm_fuzz_SOURCES    = tests/fuzz/hostile.h tests/fuzz/shm_fuzz.cpp tests/support/support.h $(FUZZ_DRIVER)
tests_fuzz_shm_fuzz_LDADD      = libchannels.la
tests_fuzz_shm_fuzz_LDFLAGS    = $(FUZZ_LINK)
EXTRA_DIST += tests/fuzz/corpus tests/fuzz/driver.cpp tests/fuzz/run

# SPDX-License-Identifier: Apache-2.0
# Every resource is refused once. The calls of the library are wrapped at the link, which needs no preloading and no rights.
check_PROGRAMS += tests/fault/fault_test
FAULT_WRAP = -Wl,--wrap=_ZnwmRKSt9nothrow_t -Wl,--wrap=eventfd -Wl,--wrap=fcntl -Wl,--wrap=flock -Wl,--wrap=fork \
	-Wl,--wrap=ftruncate -Wl,--wrap=memfd_create -Wl,--wrap=mlock2 -Wl,--wrap=mmap -Wl,--wrap=open \
	-Wl,--wrap=posix_fallocate -Wl,--wrap=pthread_create -Wl,--wrap=shm_open -Wl,--wrap=signalfd -Wl,--wrap=socket \
	-Wl,--wrap=socketpair -Wl,--wrap=syscall
tests_fault_fault_test_SOURCES = tests/fault/fault_test.cpp tests/support/support.h
tests_fault_fault_test_LDADD   = libpool_internal.la libddict_internal.la libchannels_internal.la
tests_fault_fault_test_LDFLAGS = $(AM_LDFLAGS) $(FAULT_WRAP)

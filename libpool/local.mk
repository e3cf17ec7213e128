# SPDX-License-Identifier: Apache-2.0
# libpool: C++20, exceptions on. Sees include/ only, never libchannels/ and never libddict. Keep the list
# alphabetical; uncomment when the first source lands, and add the public headers to include/local.mk.
pkgconfig_DATA += libpool/pool.pc
#lib_LTLIBRARIES += libpool.la
#libpool_la_SOURCES = \
#	libpool/pool.cpp
#libpool_la_LIBADD  = libchannels.la
#libpool_la_LDFLAGS = $(AM_LDFLAGS) -version-info $(POOL_LT_VERSION) -no-undefined

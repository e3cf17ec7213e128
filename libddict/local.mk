# SPDX-License-Identifier: Apache-2.0
# libddict: C++20, exceptions on. Sees include/ only, never libchannels/ and never libpool. Keep the list
# alphabetical; uncomment when the first source lands, and add the public headers to include/local.mk.
pkgconfig_DATA += libddict/ddict.pc
#lib_LTLIBRARIES += libddict.la
#libddict_la_SOURCES = \
#	libddict/ddict.cpp
#libddict_la_LIBADD  = libchannels.la
#libddict_la_LDFLAGS = $(AM_LDFLAGS) -version-info $(DDICT_LT_VERSION) -no-undefined

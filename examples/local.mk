# SPDX-License-Identifier: Apache-2.0
# Examples use public headers only, like any application. Built with `make`, not installed. Uncomment as they land.
if HAVE_CLI11
#noinst_PROGRAMS += examples/wordfreq
endif
#examples_wordfreq_SOURCES = examples/wordfreq.cpp
#examples_wordfreq_LDADD   = libpool.la libddict.la libchannels.la

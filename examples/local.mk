# SPDX-License-Identifier: Apache-2.0
# Examples use public headers only, like any application. Built with `make`, not installed.
if HAVE_CLI11
noinst_PROGRAMS += examples/wordfreq
endif
examples_wordfreq_SOURCES = examples/wordfreq.cpp examples/words.cpp examples/words.hpp
examples_wordfreq_LDADD   = libpool.la libddict.la libchannels.la
noinst_PROGRAMS += examples/pi
examples_pi_SOURCES = examples/pi.cpp
examples_pi_LDADD   = libddict.la libchannels.la
noinst_PROGRAMS += examples/exchange
examples_exchange_SOURCES = examples/exchange.cpp
examples_exchange_LDADD   = libddict.la libchannels.la
noinst_PROGRAMS += examples/loader
examples_loader_SOURCES = examples/loader.cpp
examples_loader_LDADD   = libddict.la libchannels.la

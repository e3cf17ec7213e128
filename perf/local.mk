# SPDX-License-Identifier: Apache-2.0
# Benchmarks: every perf/*_bench is a Google Benchmark program over the public API. `make perf` runs them.
BENCHES =
if HAVE_BENCHMARK
BENCHES += perf/channel_bench perf/ddict_bench perf/memory_bench perf/pool_bench perf/pollset_bench perf/stream_bench \
	perf/sync_bench
endif
noinst_PROGRAMS += $(BENCHES)

BENCH_HARNESS  = perf/bench.cpp perf/bench.h perf/team.cpp
BENCH_CPPFLAGS = $(AM_CPPFLAGS) $(BENCHMARK_CFLAGS) -DBENCH_FLAGS='"$(CXXFLAGS)"'

perf_channel_bench_SOURCES  = $(BENCH_HARNESS) \
	perf/baseline.cpp perf/baseline.h perf/channel_bench.cpp perf/loops.cpp perf/loops.h
perf_channel_bench_CPPFLAGS = $(BENCH_CPPFLAGS)
perf_channel_bench_LDADD    = libchannels.la $(BENCHMARK_LIBS)
perf_pool_bench_SOURCES     = $(BENCH_HARNESS) \
	perf/baseline.cpp perf/baseline.h perf/loops.cpp perf/loops.h perf/pool_bench.cpp
perf_pool_bench_CPPFLAGS    = $(BENCH_CPPFLAGS) -DBENCH_DIR='"$(abs_top_srcdir)/perf"'
perf_pool_bench_LDADD       = libpool.la libchannels.la $(BENCHMARK_LIBS)
perf_ddict_bench_SOURCES  = $(BENCH_HARNESS) perf/baseline.cpp perf/baseline.h \
	perf/ddict_baseline.cpp perf/ddict_baseline.h perf/ddict_bench.cpp perf/ddict_files.cpp \
	perf/ddict_peers.cpp perf/loops.cpp perf/loops.h
perf_ddict_bench_CPPFLAGS = $(BENCH_CPPFLAGS)
perf_ddict_bench_LDADD    = libddict.la libchannels.la $(BENCHMARK_LIBS)
perf_memory_bench_SOURCES  = $(BENCH_HARNESS) perf/memory_bench.cpp
perf_memory_bench_CPPFLAGS = $(BENCH_CPPFLAGS)
perf_memory_bench_LDADD    = libchannels.la $(BENCHMARK_LIBS)
perf_pollset_bench_SOURCES  = $(BENCH_HARNESS) perf/loops.cpp perf/loops.h perf/pollset_bench.cpp
perf_pollset_bench_CPPFLAGS = $(BENCH_CPPFLAGS)
perf_pollset_bench_LDADD    = libchannels.la $(BENCHMARK_LIBS)
perf_stream_bench_SOURCES  = $(BENCH_HARNESS) \
	perf/baseline.cpp perf/baseline.h perf/loops.cpp perf/loops.h perf/stream_bench.cpp
perf_stream_bench_CPPFLAGS = $(BENCH_CPPFLAGS)
perf_stream_bench_LDADD    = libchannels.la $(BENCHMARK_LIBS)
perf_sync_bench_SOURCES  = $(BENCH_HARNESS) perf/loops.cpp perf/loops.h perf/sync_bench.cpp
perf_sync_bench_CPPFLAGS = $(BENCH_CPPFLAGS)
perf_sync_bench_LDADD    = libchannels.la $(BENCHMARK_LIBS)
EXTRA_DIST += perf/README.md perf/pool_peers.py

.PHONY: perf
perf: $(BENCHES)
	@for b in $(BENCHES); do ./$$b || exit; done

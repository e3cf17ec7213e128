# SPDX-License-Identifier: Apache-2.0
# Benchmarks: every perf/*_bench is a Google Benchmark program over the public API. `make perf` runs them.
# Uncomment as they land.
BENCHES =
if HAVE_BENCHMARK
#BENCHES += perf/channel_bench
endif
noinst_PROGRAMS += $(BENCHES)
#perf_channel_bench_SOURCES  = perf/channel_bench.cpp
#perf_channel_bench_CPPFLAGS = $(AM_CPPFLAGS) $(BENCHMARK_CFLAGS)
#perf_channel_bench_LDADD    = libchannels.la $(BENCHMARK_LIBS)
.PHONY: perf
perf: $(BENCHES)
	@for b in $(BENCHES); do ./$$b --benchmark_repetitions=5 --benchmark_report_aggregates_only=true || exit; done

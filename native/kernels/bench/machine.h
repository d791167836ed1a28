// What this machine can do at most, measured: the two numbers that every other row of the benchmark is held against.
#pragma once
#include "native/base/cpu.h"
#include "native/base/thread_pool.h"

namespace moestro::bench {

// Bytes read from DRAM in GB/s (1e9) by all threads of the pool: a buffer far beyond the caches on 2 MiB pages, plain
// loads of the widest vectors of `isa`, read as 1, 2, 4 and 8 streams a thread, and with prefetches; each way several
// times, of which the median; of the ways the best. 0 where the buffer cannot be had.
double dram_read_gbps(ThreadPool& pool, Isa isa, bool quick);

// Int8 multiply-adds in registers alone, in GOP/s (two operations each), by all threads of the pool: vpdpbusd for
// avx512 and amx, whose tiles can do more, vpmaddubsw + vpmaddwd + vpaddd for avx2, sdot for neon; the best of several
// runs. 0 for scalar.
double int8_peak_gops(ThreadPool& pool, Isa isa);

// Seconds on a clock that never goes back.
double now_s();

// The middle value; `values` is sorted on return.
double median(double* values, int count);

}  // namespace moestro::bench

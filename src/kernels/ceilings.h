#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/buffer.h"
#include "base/cpu.h"
#include "base/thread_pool.h"

namespace pare::kernels {

// What this machine can do at most, measured: claims of speed are ratios to these. All move from minute to minute
// (other tenants, clock), so measure them interleaved with what is compared and quote ratios of medians.

/// Memory that is read again and again, and the rate of reading it: the best of several access patterns (streams,
/// software prefetch, with huge pages), since no single one is the fastest on every machine.
class ReadCeiling {
 public:
  /// `bytes` of memory; to measure memory and not caches, several times the last-level cache that one core may use.
  ReadCeiling(ThreadPool& pool, size_t bytes);
  /// Reads the memory twice in each of 20 patterns, or of a large one as much as takes no longer, where the last ended.
  void sample();
  /// Bytes a second of the best pattern, the median of its samples (see median_of_best): comparable with the median of
  /// what ran between them. At least one sample() must have been taken.
  double rate() const;
  /// The largest median of any pattern, which luck has a part in: what reads faster than that was not reading memory.
  double most() const;

 private:
  ThreadPool& pool_;
  Buffer<std::byte> memory_;
  int64_t next_ = 0;                        // where reading goes on
  std::vector<std::vector<double>> rates_;  // [patterns][samples]
};

/// Float32 fused multiply-adds a second of all threads together, on the widest vectors the features allow.
double measure_fma_rate(ThreadPool& pool, CpuFeatures features = cpu_features());
/// Multiply-accumulates of int8 a second of all threads together, by the best instructions the features allow.
double measure_int8_rate(ThreadPool& pool, CpuFeatures features = cpu_features());

/// The loops behind them, one set per instruction set.
struct FloatLoops {
  /// Reads `bytes` as `streams` parts side by side, prefetching `ahead` bytes; returns something that depends on it
  /// all.
  float (*read)(const std::byte* from, int64_t bytes, int streams, int64_t ahead);
  float (*multiply_add)(int64_t rounds);
  int64_t multiply_adds;  // a round
};
struct Int8Loops {
  int32_t (*multiply)(int64_t rounds);
  int64_t multiplies;  // a round
};

}  // namespace pare::kernels

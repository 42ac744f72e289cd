#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/matmul.h"

namespace pare {

/// What decoding with one layout of ternary weights took.
struct KernelTime {
  const kernels::Packing* packing;
  double weights_per_second;  // of all threads together
};

/// Which of the layouts that this machine can run serves a matrix of ternary weights. All give the same bits; which is
/// the fastest depends on the machine, on how many threads share its memory and on whether the weights fit its caches.
/// So each is timed on weights like those to be packed, once for a length of rows, and the times are remembered in the
/// user's cache folder (XDG_CACHE_HOME or ~/.cache, pare/kernels.json), by processor and number of threads.
class KernelChoice {
 public:
  /// `forced`: the layout to take ("i2"); empty = the fastest. Throws Error naming those there are if it is none.
  KernelChoice(ThreadPool& pool, const std::string& forced);
  /// How many ternary weights there will be, so that timing reads as many bytes as a token will (bounded).
  void expect(int64_t weights);
  const kernels::Packing& ternary(int64_t rows, int64_t columns);
  /// Every layout timed for rows of so many columns, the fastest first.
  std::vector<KernelTime> times(int64_t columns);
  /// Whether those were read from the cache folder, not measured.
  bool remembered(int64_t columns) const { return !measured_.contains(columns); }
  /// Where they are remembered; empty if the environment names no folder.
  static std::filesystem::path cache_path();

 private:
  std::string key(int64_t columns) const;
  double measure(const kernels::Packing& packing, int64_t columns);

  ThreadPool& pool_;
  std::vector<const kernels::Packing*> candidates_;
  int64_t weights_ = int64_t{1} << 26;
  std::map<int64_t, std::vector<KernelTime>> times_;
  std::set<int64_t> measured_;  // columns
};

}  // namespace pare

#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/head.h"
#include "kernels/matmul.h"

namespace pare {

/// A packing, and how it reads weights for a single activation row.
struct Kernel {
  const kernels::Packing* packing = nullptr;
  bool one_stream = false;

  void multiply(const kernels::MultiplyArgs& args) const {
    (one_stream && args.input_rows == 1 ? packing->multiply_one_stream : packing->multiply)(args);
  }
  /// HeadBounds::bound, of a packing in two parts.
  void bound(const kernels::BoundArgs& args) const {
    (one_stream ? packing->bounds->bound_one_stream : packing->bounds->bound)(args);
  }
  /// "t3.avx512vbmi", "t3.avx512vbmi in one stream"
  std::string name() const { return packing->name() + (one_stream ? " in one stream" : ""); }
  bool operator==(const Kernel&) const = default;
};

/// What decoding with a kernel took.
struct KernelTime {
  Kernel kernel;
  double weights_per_second;  // of all threads together
};

/// Which kernel serves a matrix: of ternary weights, which of the layouts that this machine can run; of any, whether
/// single rows read weights as one stream. All give the same bits; which is the fastest depends on the machine, on how
/// many threads share its memory and on whether the weights fit its caches. So each is timed on weights like those to
/// be packed, once for a length of rows, and the times are remembered in the user's cache folder (XDG_CACHE_HOME or
/// ~/.cache, pare/kernels.json), by processor, number of threads and program.
class KernelChoice {
 public:
  /// So many times as fast must a kernel be to be taken before one that the tables list first.
  static constexpr double kClearly = 1.02;

  /// `forced`: the layout of ternary weights to take ("i2"); empty = the fastest. Throws Error naming those there are
  /// if it is none.
  KernelChoice(ThreadPool& pool, const std::string& forced);
  /// How many weights a token will read, so that timing reads about as many (bounded).
  void expect(int64_t weights);
  Kernel ternary(int64_t rows, int64_t columns);
  /// For weights that only one packing serves here.
  Kernel of(const kernels::Packing& packing);
  struct Times {
    std::vector<KernelTime> by_speed;  // the fastest first
    int64_t columns = 0;               // of the rows that were timed
    bool remembered = true;            // read from the cache folder, not measured
  };
  /// Every layout of ternary weights timed for rows of so many columns.
  const Times& times(int64_t columns) { return times(candidates_, columns); }
  /// Both ways in which a packing reads weights; of none if it has one only.
  Times times(const kernels::Packing& packing);
  /// Where they are remembered; empty if the environment names no folder.
  static std::filesystem::path cache_path();

 private:
  const Times& times(const std::vector<Kernel>& candidates, int64_t columns);
  Kernel fastest(const std::vector<Kernel>& candidates, int64_t columns);
  std::string key(int64_t columns) const;
  struct Trial;
  std::vector<KernelTime> measure(std::span<const Kernel> kernels, int64_t columns);

  ThreadPool& pool_;
  std::vector<Kernel> candidates_;  // for ternary weights
  int64_t weights_ = int64_t{1} << 26;
  std::map<std::pair<const kernels::Packing*, int64_t>, Times> times_;  // by the first candidate and columns
};

}  // namespace pare

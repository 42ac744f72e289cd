#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "base/thread_pool.h"
#include "model/weight_store.h"

namespace pare {

/// A weight with its bias, if it has one.
struct Linear {
  std::shared_ptr<const PackedWeight> weight;
  std::vector<float> bias;  // [rows] or empty

  int64_t outputs() const { return weight->rows; }
};

/// How the rows of a group are dealt out to threads (linear.cc), in units of whole register tiles of its packings. Many
/// activation rows are cut into parts, and all units come once for each.
struct Deal {
  int64_t input_rows = 0;  // that it is for; 0: for none yet
  int threads = 0;
  bool in_panels = false;
  int64_t unit = 16;  // weight rows
  int64_t units = 0, parts = 1, ranges = 0;
  int64_t work = 0;                                           // multiply-adds
  kernels::InputFormat input = kernels::InputFormat::kFloat;  // of its first weights
  unsigned inputs = 0;                                        // of all: bit i is format i
  int64_t columns = 0;
};

/// Weights that read the same activations and are multiplied in one loop.
struct LinearGroup {
  std::vector<Linear> linears;  // of the same number of columns
  /// A slice of the loop takes the same rows of all of them (they have as many), so that what is made of their outputs
  /// can follow at once; otherwise one is taken after the other.
  bool side_by_side = false;
  std::span<const float> gain = {};   // of the norm before it, if there is one
  const LinearGroup* next = nullptr;  // what is multiplied after it: that norm's gain and its first weights are asked
                                      // for in time
  mutable Deal deal = {};  // the last: most of it would be the same again, and comes from memory that is far away
};

/// Rows of activations that one or more Linear read, prepared once in the form that their packing wants and kept until
/// the rows change.
class LinearInput {
 public:
  explicit LinearInput(int threads) : normed_(static_cast<size_t>(threads)) {}
  /// New rows: values [rows, columns], which must stay until the products are done.
  void set(const float* values, int64_t rows, int64_t columns);
  /// New rows: the RMS norm of those at `from` ([rows, gain.size()]), which must stay until the products are done. Each
  /// row is normalised right before it is prepared; all are written to `normed` (may be `from`) only where the rows
  /// themselves are asked for.
  void set_normed(const float* from, const std::vector<float>& gain, float epsilon, float* normed, int64_t rows);
  int64_t rows() const { return rows_; }
  /// The rows themselves: [rows, columns].
  const float* values(ThreadPool& pool);
  struct View {
    const std::byte* data;
    int64_t stride;  // bytes a row
  };
  /// The rows in a format; prepares them in parallel the first time, so not for the first time in a parallel loop.
  View prepared(kernels::InputFormat format, ThreadPool& pool);
  /// Memory that the next rows of so many columns will be prepared in, as many as there are now, and what a worker of
  /// `pool` will write of it as a rule.
  struct Next {
    std::byte* data = nullptr;
    int64_t rows = 0, stride = 0;
    Lines of(int worker, int workers) const;
  };
  Next next(kernels::InputFormat format, int64_t columns);

 private:
  const float* row(int64_t row, int worker);

  const float* values_ = nullptr;
  int64_t rows_ = 0, columns_ = 0;
  struct Norm {
    const float *from = nullptr, *gain = nullptr;  // null: nothing is left to do
    float epsilon = 0;
    float* to = nullptr;
  } norm_;
  // In two places in turn: while all threads read one, each may have the other to itself.
  struct Prepared {
    bool ready = false;
    int now = 0;
    Buffer<std::byte> storage[2];
  };
  std::array<Prepared, kernels::kInputFormats> prepared_;  // by format
  std::vector<Buffer<float>> normed_;                      // [threads] a row of each
};

/// A part of a group's outputs, in memory of the thread that computed it.
struct Products {
  int64_t begin, end;   // columns
  int64_t first, last;  // rows
  const float* values;  // [linears, rows, columns]: of one linear, or of all if the group is side by side

  int64_t stride() const { return end - begin; }
  const float* of(int64_t linear) const { return values + linear * (last - first) * stride(); }
};

/// Runs groups one after the other, each as one parallel loop.
class Multiplier {
 public:
  explicit Multiplier(ThreadPool& pool) : pool_(pool), workers_(static_cast<size_t>(pool.size())) {}

  /// outputs[i] [input rows, outputs of linear i] = input * weight^T + bias.
  void run(const LinearGroup& group, LinearInput& input, std::span<float* const> outputs);
  /// The same, but each part of the outputs is handed to `finish` as soon as it is there, and kept nowhere else: of a
  /// group that is side by side or of one linear. finish writes what it makes of them to the same place of `to` [input
  /// rows, outputs].
  void run(const LinearGroup& group, LinearInput& input, float* to, FunctionRef<void(const Products&)> finish);
  /// Instead of the outputs of a matrix in two parts for a single row, most[g]: what the largest of 16 of them can be
  /// (kernels/head.h).
  void bound(const LinearGroup& group, LinearInput& input, const kernels::UnitBounds* units, float* most);

 private:
  /// Where outputs go: to memory, or in the worker's own to `finish`, which writes to `to`; or only their bounds, to
  /// `most`.
  struct Target {
    std::span<float* const> outputs = {};
    float* to = nullptr;
    FunctionRef<void(const Products&)> finish = nullptr;
    const kernels::UnitBounds* units = nullptr;
    float* most = nullptr;
  };
  struct alignas(64) Worker {
    const std::byte* expected = nullptr;  // weights that it has asked for already
    Lines writes;                         // what it will write when the next input is prepared
    std::span<const std::byte> gain;      // what it will read then
    int64_t loop = 0;                     // of which those are
    Buffer<float> products;               // [linears, rows, columns] of a part
  };
  void run_to(const LinearGroup& group, LinearInput& input, const Target& target);

  ThreadPool& pool_;
  std::vector<Worker> workers_;  // [threads]
  int64_t loop_ = 0;
};

/// ThreadPool::parallel_for, but on this thread alone where `work` (values touched in all) is not worth sharing.
void for_tasks(ThreadPool& pool, int64_t count, int64_t work,
               FunctionRef<void(int64_t begin, int64_t end, int worker)> body, int64_t part = ThreadPool::kEvenPart,
               std::span<const std::byte> results = {});

/// Calls body(begin, end) over `count` rows of `work` values in all, in parallel where that pays.
void for_rows(ThreadPool& pool, int64_t count, int64_t work, FunctionRef<void(int64_t begin, int64_t end)> body);

}  // namespace pare

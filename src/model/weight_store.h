#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/thread_pool.h"
#include "kernels/matmul.h"
#include "model/kernel_choice.h"
#include "model/weights.h"

namespace pare {

/// A matrix ready for products: used in place where its bytes are, or packed for this machine; never both.
struct PackedWeight {
  Kernel kernel;
  DType type = DType::kF32;
  int64_t rows = 0, columns = 0;
  float scale = 1;  // values are those that are packed times this
  const std::byte* data = nullptr;
  std::shared_ptr<std::byte> packed;  // what data points to, if it was packed
  std::vector<std::byte> made;        // what data points to, if it was made and is used in place
  std::shared_ptr<const void> owner;  // keeps a mapping that data points into

  const kernels::Packing& packing() const { return *kernel.packing; }
  int64_t bytes() const { return packing().packed_bytes(rows, columns); }
  /// Where reading from `row` on begins, a multiple of the packing's row group.
  const std::byte* at(int64_t row) const {
    const kernels::HeadBounds* bounds = packing().bounds;
    return data + (bounds ? bounds->leading_bytes(row, columns) : packing().packed_bytes(row, columns));
  }
  bool mapped() const { return owner != nullptr; }
  /// Row as float32: [columns].
  void unpack_row(int64_t row, float* to) const;
};

/// Makes weights ready, in parallel, and remembers them by key as long as somebody uses them, so that variants of one
/// model share what they have in common.
class WeightStore {
 public:
  /// `kernel`: the layout of ternary weights ("i2", "t3"); by default the fastest here (kernel_choice.h).
  explicit WeightStore(ThreadPool& pool, const std::string& kernel = {});
  /// A matrix for products as `linear` means them. Throws Error naming the tensor for ternary weights that are none:
  /// other codes, block scales that differ, a scale that is no positive number.
  std::shared_ptr<const PackedWeight> matrix(const WeightTensor& tensor, const LinearConfig& linear = {}) {
    return matrix(tensor, linear, false);
  }
  /// The matrix that logits are made with: in two parts if its type has such a packing (kernels/head.h).
  std::shared_ptr<const PackedWeight> output(const WeightTensor& tensor) { return matrix(tensor, {}, true); }
  /// How many weights a token will read, for the choice of kernels.
  void expect(int64_t weights) { choice_.expect(weights); }
  /// A norm's gain or a bias, as float32.
  std::vector<float> vector(const WeightTensor& tensor);
  /// Random normal values of standard deviation 1 / sqrt(columns), for benchmarks; a few rows over and over.
  std::shared_ptr<const PackedWeight> random(int64_t rows, int64_t columns, DType type, uint64_t seed,
                                             const LinearConfig& linear = {});
  /// The same as an output matrix. In two parts its rows differ, each of blocks chosen from a few, since it matters
  /// which exclude which.
  std::shared_ptr<const PackedWeight> random_output(int64_t rows, int64_t columns, DType type, uint64_t seed);

 private:
  std::shared_ptr<const PackedWeight> matrix(const WeightTensor& tensor, const LinearConfig& linear, bool output);
  std::shared_ptr<PackedWeight> empty_random(const Kernel& kernel, int64_t rows, int64_t columns, DType type);
  std::shared_ptr<const PackedWeight> ternary(const WeightTensor& tensor);
  /// Memory for a packed matrix and the slack behind it.
  std::shared_ptr<std::byte> take(int64_t bytes);

  ThreadPool& pool_;
  KernelChoice choice_;
  SlabAllocator slabs_;
  std::map<std::string, std::weak_ptr<const PackedWeight>> known_;
};

}  // namespace pare

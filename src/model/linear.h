#pragma once
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

/// Rows of activations that one or more Linear read, prepared once in the form that their packing wants and kept until
/// the rows change.
class LinearInput {
 public:
  /// New rows: values [rows, columns], which must stay until the products are done.
  void set(const float* values, int64_t rows, int64_t columns);
  int64_t rows() const { return rows_; }
  struct View {
    const std::byte* data;
    int64_t stride;  // bytes a row
  };
  /// The rows in a format; prepares them in parallel the first time.
  View prepared(kernels::InputFormat format, ThreadPool& pool);

 private:
  const float* values_ = nullptr;
  int64_t rows_ = 0, columns_ = 0;
  bool ready_ = false;  // the one format that needs preparing
  kernels::InputFormat format_ = kernels::InputFormat::kFloat;
  Buffer<std::byte> storage_;
};

/// One product: output [rows, output_stride] = input * weight^T + bias.
struct Product {
  const Linear* linear;
  float* output;
  int64_t output_stride;
};

/// Runs products that share an input as one parallel loop over slices of their rows.
void multiply(ThreadPool& pool, LinearInput& input, std::span<const Product> products);

/// ThreadPool::parallel_for, but on this thread alone where `work` (values touched in all) is not worth sharing.
void for_tasks(ThreadPool& pool, int64_t count, int64_t work,
               FunctionRef<void(int64_t begin, int64_t end, int worker)> body);

/// Calls body(begin, end) over `count` rows of `work` values in all, in parallel where that pays.
void for_rows(ThreadPool& pool, int64_t count, int64_t work, FunctionRef<void(int64_t begin, int64_t end)> body);

}  // namespace pare

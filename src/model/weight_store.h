#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/buffer.h"
#include "base/thread_pool.h"
#include "kernels/matmul.h"
#include "model/weights.h"

namespace pare {

/// A matrix ready for products: used in place in its mapped file, or packed for this machine; never both.
struct PackedWeight {
  const kernels::Packing* packing = nullptr;
  DType type = DType::kF32;
  int64_t rows = 0, columns = 0;
  const std::byte* data = nullptr;
  Buffer<std::byte> packed;           // empty if mapped or made
  std::vector<std::byte> made;        // bytes used in place that no file holds
  std::shared_ptr<const void> owner;  // keeps a mapping alive

  int64_t bytes() const { return packing->packed_bytes(rows, columns); }
};

/// Makes weights ready, in parallel, and remembers them by key, so that variants of one model share what they have in
/// common.
class WeightStore {
 public:
  explicit WeightStore(ThreadPool& pool) : pool_(pool) {}
  std::shared_ptr<const PackedWeight> matrix(const WeightTensor& tensor);
  /// A norm's gain or a bias, as float32.
  std::vector<float> vector(const WeightTensor& tensor);

 private:
  ThreadPool& pool_;
  std::map<std::string, std::weak_ptr<const PackedWeight>> known_;
};

}  // namespace pare

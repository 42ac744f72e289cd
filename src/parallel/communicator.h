#pragma once
#include <cstdint>
#include <memory>

namespace pare {

/// How ranks of a tensor-parallel run talk. One process alone is rank 0 of 1 and its all_reduce does nothing.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const { return 0; }
  virtual int size() const { return 1; }
  /// values [count] becomes the sum over all ranks, added in rank order.
  virtual void all_reduce(float* values, int64_t count) { (void)values, (void)count; }
};

}  // namespace pare

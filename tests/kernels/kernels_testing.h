#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/cpu.h"
#include "base/random.h"
#include "kernels/matmul.h"
#include "tensor/dtype.h"

namespace pare::kernels {

/// Another seed each run; printed, and set by PARE_TEST_SEED to repeat one.
uint64_t fresh_seed();

/// Every packing in two parts of a type that this machine can run, the generic one last.
std::vector<const Packing*> split_packings_here(DType type);
/// Every packing of a type that this machine can run, the generic one last.
std::vector<const Packing*> packings_here(DType type);
/// Feature masks that select every path this machine has, generic (none) first.
std::vector<CpuFeatures> paths_here();

/// NaN equals NaN whatever its bits; anything else must be equal bit for bit (so -0 differs from 0).
bool same_bits(float a, float b);
/// Fails the test naming the first difference.
void expect_same(const std::vector<float>& got, const std::vector<float>& expected, const std::string& what);

std::vector<float> normal_values(Random& random, int64_t count, double deviation = 1);

/// A length that suits a type and is near `columns`.
int64_t fitting(DType type, int64_t columns);

/// Bytes at an address that is odd by `offset`, as in a mapped file.
class Misaligned {
 public:
  Misaligned(const std::vector<std::byte>& bytes, int offset);
  std::byte* data() { return buffer_.data() + offset_; }
  std::span<const std::byte> span() const { return {buffer_.data() + offset_, size_}; }

 private:
  Buffer<std::byte> buffer_;
  int offset_;
  size_t size_;
};

/// `values` in storage type `type`.
std::vector<std::byte> encoded(DType type, const std::vector<float>& values);
std::vector<float> decoded(DType type, std::span<const std::byte> bytes);

/// A matrix ready for a packing (in place at an odd address, or packed), and its products with prepared rows.
class Product {
 public:
  Product(const Packing& packing, DType type, const std::vector<std::byte>& bytes, int64_t rows, int64_t columns);
  /// input: [input_rows, columns] -> [input_rows, rows]. Checks that nothing else is written.
  std::vector<float> multiply(const std::vector<float>& input, int64_t input_rows);
  std::vector<float> multiply_part(const std::vector<float>& input, int64_t input_rows, int64_t row_begin,
                                   int64_t row_end);
  /// HeadBounds::bound for a single row, checked to be the same in one stream: [groups of 16 rows].
  std::vector<float> bounds(const std::vector<float>& input);
  std::vector<float> unpack_row(int64_t row) const;

 private:
  const Packing& packing_;
  int64_t rows_, columns_;
  Misaligned stored_;
  Buffer<std::byte> packed_;
  const std::byte* weights_;
};

/// max|a - b| / max|b|.
double relative_error(const std::vector<float>& a, const std::vector<double>& b);

}  // namespace pare::kernels

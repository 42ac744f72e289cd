#include "tensor/tensor.h"

#include <algorithm>

#include "base/error.h"

namespace pare {

std::optional<int64_t> checked_count(std::span<const int64_t> dims) {
  int64_t product = 1;
  for (const int64_t dim : dims) {
    if (dim < 0 || __builtin_mul_overflow(product, dim, &product)) return {};
  }
  return product;
}

Shape::Shape(std::initializer_list<int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}

Shape::Shape(std::span<const int64_t> dims) {
  if (dims.size() > kMaxRank) fail("a tensor of {} dimensions, expected at most {}", dims.size(), kMaxRank);
  std::copy(dims.begin(), dims.end(), dims_.begin());
  rank_ = static_cast<int>(dims.size());
  if (!checked_count(dims)) fail("shape {}: a negative dimension, or more than 2^63 values", to_string());
}

int64_t Shape::count() const {
  int64_t product = 1;
  for (int i = 0; i < rank_; ++i) product *= (*this)[i];
  return product;
}

int64_t Shape::rows() const {
  int64_t product = 1;
  for (int i = 0; i + 1 < rank_; ++i) product *= (*this)[i];
  return product;
}

bool Shape::operator==(const Shape& other) const { return rank_ == other.rank_ && dims_ == other.dims_; }

std::string Shape::to_string() const {
  std::string text = "[";
  for (int i = 0; i < rank_; ++i) text += (i ? ", " : "") + std::to_string((*this)[i]);
  return text + "]";
}

std::optional<int64_t> checked_bytes(DType type, std::span<const int64_t> dims) {
  const DTypeInfo& row = info(type);
  const std::optional<int64_t> count = checked_count(dims);
  const int64_t columns = dims.empty() ? 1 : dims.back();
  int64_t bytes = 0;
  if (!count || columns % row.block_size != 0) return {};
  if (__builtin_mul_overflow(*count / row.block_size, int64_t{row.block_bytes}, &bytes)) return {};
  return bytes;
}

}  // namespace pare

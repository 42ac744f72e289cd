#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>

#include "tensor/dtype.h"

namespace pare {

/// Up to 5 dimensions (the 3D patch embedding of a vision tower has them; GGUF allows 4), outermost first as NumPy
/// prints them ([rows, columns]; GGUF stores them reversed). Throws Error for more, negative ones, or 2^63 values and
/// more.
class Shape {
 public:
  static constexpr int kMaxRank = 5;
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);
  explicit Shape(std::span<const int64_t> dims);

  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[static_cast<size_t>(i)]; }
  /// Product of all dimensions (1 for rank 0).
  int64_t count() const;
  /// Length of a row: the innermost dimension (1 for rank 0).
  int64_t columns() const { return rank_ == 0 ? 1 : dims_[static_cast<size_t>(rank_ - 1)]; }
  /// Product of all dimensions but the innermost.
  int64_t rows() const;
  bool operator==(const Shape& other) const;
  /// "[4096, 11008]"
  std::string to_string() const;

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

/// Product of dimensions, which come from an untrusted header, if none is negative and it fits 63 bits.
std::optional<int64_t> checked_count(std::span<const int64_t> dims);
/// Bytes of a tensor of these dimensions if they and dtype's bytes fit 63 bits and rows are whole blocks; nothing
/// otherwise. For headers.
std::optional<int64_t> checked_bytes(DType type, std::span<const int64_t> dims);

/// A tensor in memory that someone else owns.
struct TensorView {
  DType type = DType::kF32;
  Shape shape;
  std::span<const std::byte> bytes;

  int64_t row_bytes() const { return info(type).bytes(shape.columns()); }
  const std::byte* row(int64_t i) const { return bytes.data() + i * row_bytes(); }
};

}  // namespace pare

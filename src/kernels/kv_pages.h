#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/attention.h"
#include "tensor/dtype.h"

// Pages of the KV cache (see attention.h), the same for every instruction set.

namespace pare::kernels {

/// Rows of values are padded to whole vectors of 16, with zeros.
constexpr int64_t padded_value_dim(int dim) { return (static_cast<int64_t>(dim) + 15) / 16 * 16; }

/// What attention carries for a query from page to page, in floats: the maximum and sum of its softmax in one line,
/// then [padded_value_dim] of output.
inline constexpr int64_t kAttendStateHead = 16;
constexpr int64_t attend_state_floats(int value_dim) { return kAttendStateHead + padded_value_dim(value_dim); }

struct PagesF32 {
  static constexpr DType kType = DType::kF32;
  static constexpr int kBytes = 4;
  static int64_t key_page_bytes(int head_dim);
  static int64_t value_page_bytes(int value_dim);
  static void store_key(const float* key, int head_dim, std::byte* page, int slot);
  static void store_value(const float* value, int value_dim, std::byte* page, int slot);
};

struct PagesF16 {
  static constexpr DType kType = DType::kF16;
  static constexpr int kBytes = 2;
  static int64_t key_page_bytes(int head_dim);
  static int64_t value_page_bytes(int value_dim);
};

/// Codes of 8 bits: Q8_0's, of blocks of 32 components of a token. A page begins with the scales, f16
/// [blocks, kKvPageTokens], followed by keys [head_dim, kKvPageTokens] or values [kKvPageTokens, value_dim]; the last
/// block of a head may be shorter.
struct PagesQ8_0 {
  static constexpr DType kType = DType::kQ8_0;
  static constexpr int kBytes = 1;
  static constexpr int kBlock = 32, kScaleBytes = 2;
  static constexpr int kScaleRow = kKvPageTokens * kScaleBytes;
  static constexpr int64_t scales_bytes(int dim) { return int64_t{(dim + kBlock - 1) / kBlock} * kScaleRow; }
  static int64_t key_page_bytes(int head_dim);
  static int64_t value_page_bytes(int value_dim);
  static void store_key(const float* key, int head_dim, std::byte* page, int slot);
  static void store_value(const float* value, int value_dim, std::byte* page, int slot);
};

}  // namespace pare::kernels

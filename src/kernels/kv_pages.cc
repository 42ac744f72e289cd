#include "kernels/kv_pages.h"

#include <algorithm>
#include <cstring>

namespace pare::kernels {
namespace {

/// Stores a vector's blocks: each scale in its row of scales, and codes one by one through put(component, code).
template <class Put>
void store_q8_0(const float* vector, int dim, std::byte* page, int slot, Put put) {
  constexpr int kBlock = PagesQ8_0::kBlock, kScaleBytes = PagesQ8_0::kScaleBytes;
  const DTypeInfo& type = info(DType::kQ8_0);
  for (int first = 0; first < dim; first += kBlock) {
    const int count = std::min(kBlock, dim - first);
    float values[kBlock] = {};
    std::copy_n(vector + first, count, values);
    std::byte block[kScaleBytes + kBlock];
    type.encode(values, block, kBlock);
    std::memcpy(page + first / kBlock * PagesQ8_0::kScaleRow + slot * kScaleBytes, block, kScaleBytes);
    for (int i = 0; i < count; ++i) put(first + i, block[kScaleBytes + i]);
  }
}

}  // namespace

int64_t PagesF32::key_page_bytes(int head_dim) { return int64_t{kKvPageTokens} * head_dim * kBytes; }
int64_t PagesF32::value_page_bytes(int value_dim) { return kKvPageTokens * padded_value_dim(value_dim) * kBytes; }
void PagesF32::store_key(const float* key, int head_dim, std::byte* page, int slot) {
  for (int64_t d = 0; d < head_dim; ++d)
    std::memcpy(page + (d * kKvPageTokens + slot) * kBytes, key + d, sizeof(float));
}
void PagesF32::store_value(const float* value, int value_dim, std::byte* page, int slot) {
  const int64_t padded = padded_value_dim(value_dim);
  std::byte* row = page + slot * padded * kBytes;
  std::memcpy(row, value, static_cast<size_t>(value_dim) * sizeof(float));
  std::memset(row + value_dim * kBytes, 0, static_cast<size_t>(padded - value_dim) * sizeof(float));
}

int64_t PagesF16::key_page_bytes(int head_dim) { return int64_t{kKvPageTokens} * head_dim * kBytes; }
int64_t PagesF16::value_page_bytes(int value_dim) { return kKvPageTokens * padded_value_dim(value_dim) * kBytes; }
int64_t PagesQ8_0::key_page_bytes(int head_dim) { return scales_bytes(head_dim) + int64_t{kKvPageTokens} * head_dim; }
int64_t PagesQ8_0::value_page_bytes(int value_dim) {
  return scales_bytes(value_dim) + kKvPageTokens * padded_value_dim(value_dim);
}
void PagesQ8_0::store_key(const float* key, int head_dim, std::byte* page, int slot) {
  std::byte* codes = page + scales_bytes(head_dim) + slot;
  store_q8_0(key, head_dim, page, slot, [&](int64_t d, std::byte code) { codes[d * kKvPageTokens] = code; });
}
void PagesQ8_0::store_value(const float* value, int value_dim, std::byte* page, int slot) {
  const int64_t padded = padded_value_dim(value_dim);
  std::byte* row = page + scales_bytes(value_dim) + slot * padded;
  std::fill(row + value_dim, row + padded, std::byte{0});
  store_q8_0(value, value_dim, page, slot, [&](int64_t d, std::byte code) { row[d] = code; });
}

}  // namespace pare::kernels

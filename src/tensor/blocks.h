#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace pare {

// To an encoder, a block type is a struct with the layout of its blocks in a file and `kValues`, how many values a
// block holds. Blocks are written through copies, since the bytes need no alignment. block_parts.h is the reverse.

constexpr int kSuperBlock = 256;  // values of a block whose groups have small scales of their own (ggml's QK_K)

template <class Block>
void encode_blocks(const float* from, std::byte* to, int64_t count, Block (*encode)(const float*)) {
  for (int64_t i = 0; i < count / Block::kValues; ++i, from += Block::kValues, to += sizeof(Block)) {
    const Block block = encode(from);
    std::memcpy(to, &block, sizeof block);
  }
}

// What the encoders share. Casts of floats are undefined for what does not fit, and x86 and ARM differ on it: what is
// not finite becomes 0, which is what ggml's casts give on x86. It comes of infinities and NaN in the input, and of
// 1/d, which overflows in blocks of subnormal numbers (they decode to zeros either way).

/// The bits of the largest magnitude; above 0x7f800000 if there is a NaN. Magnitudes compare like their bits, and
/// integer maxima vectorise where float ones must care about NaN.
inline int32_t largest_magnitude(const float* from, int count) {
  int32_t largest = 0;
  for (int i = 0; i < count; ++i) largest = std::max(largest, std::bit_cast<int32_t>(from[i]) & 0x7fffffff);
  return largest;
}

/// The value of largest magnitude, the first if several.
inline float furthest_from_zero(const float* from, int count) {
  const int32_t largest = largest_magnitude(from, count);
  while ((std::bit_cast<int32_t>(*from) & 0x7fffffff) != largest) ++from;
  return *from;
}

/// 1 / d, or 0 for 0.
inline float reciprocal(float d) { return d == 0 ? 0.0f : 1.0f / d; }

/// Cut to an integer, at most `largest`.
inline int32_t cut(float scaled, int32_t largest) {
  const int32_t bits = std::bit_cast<int32_t>(scaled);
  const int32_t finite = -static_cast<int32_t>((bits & 0x7fffffff) < 0x7f800000);  // a mask
  return std::min(static_cast<int32_t>(std::bit_cast<float>(bits & finite)), largest);
}

/// Rounded half away from zero, without branches so that it vectorises.
inline int32_t round_half_away(float scaled) {
  const int32_t bits = std::bit_cast<int32_t>(scaled);
  const int32_t magnitude = bits & 0x7fffffff;
  const float safe = std::bit_cast<float>(magnitude & -static_cast<int32_t>(magnitude < 0x7f800000));
  const auto whole = static_cast<int32_t>(safe);
  const int32_t rounded = whole + static_cast<int32_t>(safe - static_cast<float>(whole) >= 0.5f);
  const int32_t sign = bits >> 31;  // 0 or -1
  return (rounded ^ sign) - sign;
}

struct Range {
  float min, max;
};

/// Least and largest value. NaN is passed over.
inline Range range_of(const float* from, int count) {
  Range range{from[0], from[0]};
  for (int i = 1; i < count; ++i) {
    range.min = from[i] < range.min ? from[i] : range.min;
    range.max = from[i] > range.max ? from[i] : range.max;
  }
  return range;
}

}  // namespace pare

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/half.h"
#include "tensor/codecs.h"

namespace pare {
namespace {

// Blocks of 32 values: a scale d (f16), then 32 signed bytes q; value = d * q.
constexpr int kValues = 32;
constexpr int kBytes = 34;

/// Round half away from zero, without branches so that it vectorises. A magnitude that is not finite becomes 0, which
/// is what ggml's cast gives on x86 when 1/d overflows (blocks of subnormal numbers, which decode to zeros either way).
int32_t quantize(float scaled) {
  const int32_t bits = std::bit_cast<int32_t>(scaled);
  const int32_t magnitude = bits & 0x7fffffff;
  const float safe = std::bit_cast<float>(magnitude & -static_cast<int32_t>(magnitude < 0x7f800000));
  const auto whole = static_cast<int32_t>(safe);
  const int32_t rounded = whole + static_cast<int32_t>(safe - static_cast<float>(whole) >= 0.5f);
  const int32_t sign = bits >> 31;  // 0 or -1
  return (rounded ^ sign) - sign;
}

void encode_block(const float* __restrict from, std::byte* __restrict to) {
  // Magnitudes compare like their bits, and integer maxima vectorise where float ones must care about NaN.
  int32_t largest = 0;
  for (int i = 0; i < kValues; ++i) largest = std::max(largest, std::bit_cast<int32_t>(from[i]) & 0x7fffffff);
  const float d = std::bit_cast<float>(largest) / 127.0f;
  const float inverse = d == 0 ? 0.0f : 1.0f / d;
  int8_t q[kValues];
  for (int i = 0; i < kValues; ++i) q[i] = static_cast<int8_t>(quantize(from[i] * inverse));
  const uint16_t scale = float_to_f16(d);
  std::memcpy(to, &scale, sizeof scale);
  std::memcpy(to + sizeof scale, q, sizeof q);
}

}  // namespace

void encode_q8_0(const float* from, std::byte* to, int64_t count) {
  for (int64_t block = 0; block < count / kValues; ++block) encode_block(from + block * kValues, to + block * kBytes);
}

void decode_q8_0(const std::byte* __restrict from, float* __restrict to, int64_t count) {
  for (int64_t block = 0; block < count / kValues; ++block, from += kBytes, to += kValues) {
    uint16_t scale;
    std::memcpy(&scale, from, sizeof scale);
    const float d = f16_to_float(scale);
    int8_t q[kValues];
    std::memcpy(q, from + sizeof scale, sizeof q);
    for (int i = 0; i < kValues; ++i) to[i] = d * static_cast<float>(q[i]);
  }
}

}  // namespace pare

#include <bit>
#include <cstring>

#include "tensor/codecs.h"

namespace pare {
namespace {

// The same conversions as base/half.h, without branches: every case is computed and one selected, which compilers turn
// into vectors. Comparisons are of signed numbers because SSE has no others; magnitudes have no sign bit.

float widen_f16(uint16_t half) {
  const int32_t magnitude = half & 0x7fff;
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t shifted = static_cast<uint32_t>(magnitude) << 13;
  // 0.5 + magnitude * 2^-24 has exactly the magnitude as its fraction bits; subtracting 0.5 leaves a subnormal's value.
  const float subnormal = std::bit_cast<float>(0x3f000000u | static_cast<uint32_t>(magnitude)) - 0.5f;
  const uint32_t finite = magnitude >= 0x0400 ? shifted + 0x38000000u : std::bit_cast<uint32_t>(subnormal);
  return std::bit_cast<float>(sign | (magnitude >= 0x7c00 ? shifted | 0x7f800000u : finite));
}

uint16_t narrow_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto magnitude = static_cast<int32_t>(bits & 0x7fffffffu);
  const auto unsigned_magnitude = static_cast<uint32_t>(magnitude);
  const uint32_t odd = unsigned_magnitude >> 13 & 1u;
  const uint32_t normal = (unsigned_magnitude - 0x38000000u + 0xfffu + odd) >> 13;
  // Adding 0.5 aligns the fraction to 2^-24, the step of subnormals, and rounds it to even.
  const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t finite = magnitude < 0x38800000 ? subnormal : normal;
  const uint32_t special = magnitude > 0x7f800000 ? 0x7e00u : 0x7c00u;
  const uint32_t sign = bits >> 16 & 0x8000u;
  return static_cast<uint16_t>(sign |
                               (magnitude >= 0x477ff000 ? special : finite));  // 65520 and more rounds to infinity
}

uint16_t narrow_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const bool nan = static_cast<int32_t>(bits & 0x7fffffffu) > 0x7f800000;
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return static_cast<uint16_t>(nan ? bits >> 16 | 0x40u : rounded);
}

}  // namespace

void decode_f32(const std::byte* from, float* to, int64_t count) {
  if (count > 0) std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

void encode_f32(const float* from, std::byte* to, int64_t count) {
  if (count > 0) std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

void decode_f16(const std::byte* __restrict from, float* __restrict to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    uint16_t half;
    std::memcpy(&half, from + 2 * i, sizeof half);
    to[i] = widen_f16(half);
  }
}

void encode_f16(const float* __restrict from, std::byte* __restrict to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t half = narrow_f16(from[i]);
    std::memcpy(to + 2 * i, &half, sizeof half);
  }
}

void decode_bf16(const std::byte* __restrict from, float* __restrict to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    uint16_t half;
    std::memcpy(&half, from + 2 * i, sizeof half);
    to[i] = std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
  }
}

void encode_bf16(const float* __restrict from, std::byte* __restrict to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t half = narrow_bf16(from[i]);
    std::memcpy(to + 2 * i, &half, sizeof half);
  }
}

}  // namespace pare

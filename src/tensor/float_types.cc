#include <bit>
#include <cstring>

#include "tensor/codecs.h"

namespace pare {
namespace {

// The same conversions as base/half.h, but without branches and in chunks of fixed length, which even a compiler that
// adds no checks at run time (g++ -O2) turns into vectors. Comparisons are of signed numbers because SSE has no others;
// magnitudes have no sign bit.
constexpr int64_t kChunk = 16;  // values
// "inline" because g++ -O2 otherwise finds two calls of narrow_f16 too large to expand.

inline uint32_t select(bool first, uint32_t a, uint32_t b) {
  const uint32_t mask = 0u - static_cast<uint32_t>(first);
  return (a & mask) | (b & ~mask);
}

inline float widen_f16(uint16_t half) {
  const int32_t magnitude = half & 0x7fff;
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t shifted = static_cast<uint32_t>(magnitude) << 13;
  // 0.5 + magnitude * 2^-24 has exactly the magnitude as its fraction bits; subtracting 0.5 leaves a subnormal's value.
  const float subnormal = std::bit_cast<float>(0x3f000000u | static_cast<uint32_t>(magnitude)) - 0.5f;
  const uint32_t finite = select(magnitude >= 0x0400, shifted + 0x38000000u, std::bit_cast<uint32_t>(subnormal));
  return std::bit_cast<float>(sign | select(magnitude >= 0x7c00, shifted | 0x7f800000u, finite));
}

inline float widen_bf16(uint16_t half) { return std::bit_cast<float>(static_cast<uint32_t>(half) << 16); }

inline uint16_t narrow_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const auto compared = static_cast<int32_t>(magnitude);
  const uint32_t odd = magnitude >> 13 & 1u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + odd) >> 13;
  // Adding 0.5 aligns the fraction to 2^-24, the step of subnormals, and rounds it to even.
  const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t finite = select(compared < 0x38800000, subnormal, normal);
  const uint32_t special = select(compared > 0x7f800000, 0x7e00u, 0x7c00u);
  const uint32_t sign = bits >> 16 & 0x8000u;
  return static_cast<uint16_t>(sign | select(compared >= 0x477ff000, special, finite));  // 65520 rounds to infinity
}

inline uint16_t narrow_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const bool nan = static_cast<int32_t>(bits & 0x7fffffffu) > 0x7f800000;
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return static_cast<uint16_t>(select(nan, bits >> 16 | 0x40u, rounded));
}

template <float (*kWiden)(uint16_t)>
void decode(const std::byte* from, float* to, int64_t count) {
  uint16_t halves[kChunk];
  for (; count >= kChunk; count -= kChunk, from += sizeof halves, to += kChunk) {
    std::memcpy(halves, from, sizeof halves);
    for (int64_t i = 0; i < kChunk; ++i) to[i] = kWiden(halves[i]);
  }
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(halves, from + 2 * i, sizeof halves[0]);
    to[i] = kWiden(halves[0]);
  }
}

template <uint16_t (*kNarrow)(float)>
void encode(const float* from, std::byte* to, int64_t count) {
  uint16_t halves[kChunk];
  for (; count >= kChunk; count -= kChunk, from += kChunk, to += sizeof halves) {
    for (int64_t i = 0; i < kChunk; ++i) halves[i] = kNarrow(from[i]);
    std::memcpy(to, halves, sizeof halves);
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t half = kNarrow(from[i]);
    std::memcpy(to + 2 * i, &half, sizeof half);
  }
}

}  // namespace

void decode_f32(const std::byte* from, float* to, int64_t count) {
  if (count > 0) std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

void encode_f32(const float* from, std::byte* to, int64_t count) {
  if (count > 0) std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

void decode_f16(const std::byte* from, float* to, int64_t count) { decode<widen_f16>(from, to, count); }
void encode_f16(const float* from, std::byte* to, int64_t count) { encode<narrow_f16>(from, to, count); }
void decode_bf16(const std::byte* from, float* to, int64_t count) { decode<widen_bf16>(from, to, count); }
void encode_bf16(const float* from, std::byte* to, int64_t count) { encode<narrow_bf16>(from, to, count); }

}  // namespace pare

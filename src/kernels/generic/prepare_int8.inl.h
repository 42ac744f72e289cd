#pragma once
#include "kernels/packing.h"

namespace pare::kernels {
namespace {

/// InputFormat::kInt8Block of one row. Plain loops: the compiler makes vectors of them, and nothing here rounds
/// differently for it. A few blocks take each step together, since a step of one would wait for the one before.
template <class P>
void prepare_int8(const float* __restrict row, int64_t columns, std::byte* __restrict to) {
  constexpr int kTogether = 16, kHalf = kBlock / 2;
  constexpr int32_t kInfinity = 0x7f800000, kLeast = __builtin_bit_cast(int32_t, 0x1p-100f);
  auto* block = reinterpret_cast<Int8Block*>(to);
  for (int64_t k = 0; k < columns; k += kTogether * kBlock) {
    const int64_t left = (columns - k) / kBlock;
    const int blocks = left < kTogether ? static_cast<int>(left) : kTogether;
    int32_t largest[kTogether] = {};
    for (int b = 0; b < blocks; ++b) {
      // Magnitudes order as their bits do, NaN above infinity.
      int32_t most = 0;
      for (int i = 0; i < kBlock; ++i) {
        const int32_t magnitude = __builtin_bit_cast(int32_t, row[k + b * kBlock + i]) & 0x7fffffff;
        most = magnitude > most ? magnitude : most;
      }
      largest[b] = most;
    }
    float inverse[kTogether], scale[kTogether];
    for (int b = 0; b < kTogether; ++b) {
      const float absmax = __builtin_bit_cast(float, largest[b] < kLeast ? kLeast : largest[b]);
      inverse[b] = 127.0f / absmax;
      scale[b] = absmax / 127.0f;
    }
    for (int b = 0; b < blocks; ++b, ++block) {
      if (largest[b] >= kInfinity || largest[b] < kLeast) {
        *block = {};
        if (largest[b] >= kInfinity) {
          const float nan = __builtin_nanf("");
          block->scale = block->weighted_sum = block->weighted_half_sum[0] = block->weighted_half_sum[1] = nan;
        }
        continue;
      }
      int32_t sums[2];
      for (int half = 0; half < 2; ++half) {
        int32_t sum = 0;
        for (int i = half * kHalf; i < (half + 1) * kHalf; ++i) {
          // Adding 1.5 * 2^23 rounds to an integer, half to even, in the low bits.
          const float shifted = row[k + b * kBlock + i] * inverse[b] + 0x1.8p23f;
          const int32_t code = __builtin_bit_cast(int32_t, shifted) - 0x4b400000;
          block->codes[i] = static_cast<int8_t>(code);
          sum += code;
        }
        sums[half] = sum;
      }
      block->scale = scale[b];
      block->minus_sum = -(sums[0] + sums[1]);
      block->weighted_sum = scale[b] * static_cast<float>(block->minus_sum);
      for (int half = 0; half < 2; ++half) {
        block->minus_half_sum[half] = -sums[half];
        block->weighted_half_sum[half] = scale[b] * static_cast<float>(-sums[half]);
      }
    }
  }
}

}  // namespace
}  // namespace pare::kernels

#pragma once
#include <cstring>

#include "kernels/generic/read_ahead.inl.h"
#include "kernels/matmul.h"
#include "kernels/packing.h"

// Products of block types (see packing.h for the layout) with int8 activations: each block of 32 columns is summed
// exactly in int32, |sum| <= 32 * 128 * 127 < 2^24, so its float is exact too; then one fused multiply-add a block,
// ascending.

namespace pare::kernels {
namespace {

/// G groups of 16 weight rows x C activation rows; `lanes` rows of the last group are stored. `next`, if given, is
/// what is read after this tile and those before it: they are asked for in order while this one is computed.
template <class T, int G, int C>
void block_tile(const std::byte* weights, const std::byte* next, int64_t group_bytes, const std::byte* input,
                int64_t input_stride, int64_t blocks, float* output, int64_t output_stride, int lanes) {
  using P = typename T::P;
  using V = typename P::V;
  V total[G][C];
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g)
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) total[g][c] = P::zero();
  for (int64_t b = 0; b < blocks; ++b) {
    const auto activations = [&](int c) -> const Int8Block& {
      return *reinterpret_cast<const Int8Block*>(input + c * input_stride +
                                                 b * static_cast<int64_t>(sizeof(Int8Block)));
    };
    typename T::Acc acc[G][C];
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) acc[g][c] = T::begin(activations(c));
    const std::byte* block = weights + b * T::kBlockBytes;
    if (next) {
#pragma GCC unroll 20
      for (int i = 0; i < G * T::kBlockBytes; i += 64)
        __builtin_prefetch(next + b * G * T::kBlockBytes + i, 0, kSecondLevel);
    }
#pragma GCC unroll 8
    for (int step = 0; step < T::kSteps; ++step) {
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) {
        const typename T::Weights w = T::load(block + g * group_bytes + 2 * kInterleavedRows, step);
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) T::step(acc[g][c], w, activations(c).codes, step);
      }
    }
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
      const V scale = P::load_f16(block + g * group_bytes);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c)
        total[g][c] = P::fma(T::finish(acc[g][c]), P::mul(scale, P::set1(activations(c).scale)), total[g][c]);
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c)
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
      float* to = output + c * output_stride + g * kInterleavedRows;
      if (g < G - 1 || lanes == kInterleavedRows) {
        P::store(to, total[g][c]);
      } else {
        alignas(64) float last[kInterleavedRows];
        P::store(last, total[g][c]);
        std::memcpy(to, last, static_cast<size_t>(lanes) * 4);
      }
    }
}

template <class T, int G, int C>
PARE_INLINE void block_tile_of(int count, const std::byte* weights, const std::byte* next, int64_t group_bytes,
                               const std::byte* input, int64_t input_stride, int64_t blocks, float* output,
                               int64_t output_stride, int lanes) {
  if constexpr (C > 1) {
    if (count < C) {
      return block_tile_of<T, G, C - 1>(count, weights, next, group_bytes, input, input_stride, blocks, output,
                                        output_stride, lanes);
    }
  }
  block_tile<T, G, C>(weights, next, group_bytes, input, input_stride, blocks, output, output_stride, lanes);
}

template <class T, int G>
void multiply_groups(const MultiplyArgs& a, int64_t row, int64_t ahead, const Stream& stream) {
  constexpr int kInputs = T::P::kBlockInputs;
  const int64_t blocks = a.columns / kBlock, group_bytes = blocks * T::kBlockBytes;
  const int64_t last = a.row_end - row - (G - 1) * kInterleavedRows;
  const int lanes = static_cast<int>(last < kInterleavedRows ? last : kInterleavedRows);
  for (int64_t i = 0; i < a.input_rows; i += kInputs) {
    const auto count = static_cast<int>(a.input_rows - i < kInputs ? a.input_rows - i : kInputs);
    const std::byte* weights = a.weights + row / kInterleavedRows * group_bytes;
    const std::byte* next = i == 0 ? stream.at(weights + ahead * group_bytes) : nullptr;
    block_tile_of<T, G, kInputs>(count, weights, next, group_bytes, a.input + i * a.input_stride, a.input_stride,
                                 blocks, a.output + i * a.output_stride + row, a.output_stride, lanes);
  }
}

template <class T>
void multiply_blocks(const MultiplyArgs& a) {
  constexpr int kGroups = T::P::kBlockGroups;
  const int64_t group_bytes = a.columns / kBlock * T::kBlockBytes;
  const int64_t ahead = tiles_ahead(kGroups * group_bytes) * kGroups;  // groups
  int64_t row = a.row_begin;
  const int64_t groups = (a.row_end - row + kInterleavedRows - 1) / kInterleavedRows;
  const Stream stream(a.weights + row / kInterleavedRows * group_bytes, groups * group_bytes, a.then, a.expected);
  for (; row + (kGroups - 1) * kInterleavedRows < a.row_end; row += kGroups * kInterleavedRows)
    multiply_groups<T, kGroups>(a, row, ahead, stream);
  for (; row < a.row_end; row += kInterleavedRows) multiply_groups<T, 1>(a, row, ahead, stream);
}

/// InputFormat::kInt8Block of one row. Plain loops: the compiler makes vectors of them, and nothing here rounds
/// differently for it.
template <class P>
void prepare_int8(const float* row, int64_t columns, std::byte* to) {
  auto* block = reinterpret_cast<Int8Block*>(to);
  for (int64_t k = 0; k < columns; k += kBlock, ++block) {
    int32_t bits[kBlock], largest = 0;
    std::memcpy(bits, row + k, sizeof bits);
    // Magnitudes order as their bits do, NaN above infinity.
    for (int i = 0; i < kBlock; ++i) {
      const int32_t magnitude = bits[i] & 0x7fffffff;
      largest = magnitude > largest ? magnitude : largest;
    }
    const float absmax = __builtin_bit_cast(float, largest);
    if (largest >= 0x7f800000 || absmax < 0x1p-100f) {
      *block = {};
      if (largest >= 0x7f800000) block->scale = __builtin_nanf("");
      continue;
    }
    const float inverse = 127.0f / absmax;
    int32_t sum = 0;
    for (int i = 0; i < kBlock; ++i) {
      // Adding 1.5 * 2^23 rounds to an integer, half to even, in the low bits.
      const float shifted = row[k + i] * inverse + 0x1.8p23f;
      const int32_t code = __builtin_bit_cast(int32_t, shifted) - 0x4b400000;
      block->codes[i] = static_cast<int8_t>(code);
      sum += code;
    }
    block->scale = absmax / 127.0f;
    block->sum = sum;
    block->minus_8_sum = -8 * sum;
    block->minus_128_sum = -128 * sum;
  }
}

template <class T>
constexpr Packing block_packing(const char* name, int64_t (*bytes)(int64_t, int64_t),
                                void (*pack)(const TensorView&, int64_t, int64_t, std::byte*),
                                void (*unpack)(const std::byte*, int64_t, int64_t, float*)) {
  return {name, false, kInterleavedRows, InputFormat::kInt8Block, bytes, pack, unpack, multiply_blocks<T>};
}

}  // namespace
}  // namespace pare::kernels

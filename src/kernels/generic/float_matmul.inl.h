#pragma once
#include <cstring>

#include "kernels/matmul.h"
#include "kernels/packing.h"

// Products with float weights in place, row-major: 16 lanes over k, fused multiply-adds in ascending k, lanes folded
// 8-4-2-1. A tile of weight rows x activation rows keeps its accumulators in registers, so that each vector loaded (and
// converted) serves several products.

namespace pare::kernels {
namespace {

struct WeightF32 {
  static constexpr int kBytes = 4;
  template <class P>
  static PARE_INLINE typename P::V load(const std::byte* p) {
    return P::load(reinterpret_cast<const float*>(p));
  }
};
struct WeightF16 {
  static constexpr int kBytes = 2;
  template <class P>
  static PARE_INLINE typename P::V load(const std::byte* p) {
    return P::load_f16(p);
  }
};
struct WeightBF16 {
  static constexpr int kBytes = 2;
  template <class P>
  static PARE_INLINE typename P::V load(const std::byte* p) {
    return P::load_bf16(p);
  }
};

/// Weight rows where the file has them.
template <class P, class W>
struct RowsInPlace {
  const std::byte* base;
  int64_t stride;  // bytes
  PARE_INLINE typename P::V at(int r, int64_t step) const {
    return W::template load<P>(base + r * stride + step * 16 * W::kBytes);
  }
  /// The last `lanes` values of a row, zeros after them.
  PARE_INLINE typename P::V tail(int r, int64_t step, int lanes) const {
    alignas(64) std::byte padded[16 * W::kBytes] = {};
    std::memcpy(padded, base + r * stride + step * 16 * W::kBytes, static_cast<size_t>(lanes * W::kBytes));
    return W::template load<P>(padded);
  }
};

/// Weight rows converted and interleaved: [step][R][16].
template <class P, int R>
struct RowsInPanel {
  const float* base;
  PARE_INLINE typename P::V at(int r, int64_t step) const { return P::load(base + (step * R + r) * 16); }
  PARE_INLINE typename P::V tail(int r, int64_t step, int) const { return at(r, step); }
};

/// acc[c][r] += the products of `columns` values of R weight rows and C activation rows.
template <class P, int R, int C, class Rows>
PARE_INLINE void accumulate_tile(const Rows& rows, const float* x, int64_t x_stride, int64_t columns,
                                 typename P::V (&acc)[C][R]) {
  using V = typename P::V;
  const int64_t steps = columns / 16;
  for (int64_t step = 0; step < steps; ++step) {
    V w[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) w[r] = rows.at(r, step);
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      const V value = P::load(x + c * x_stride + step * 16);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) acc[c][r] = P::fma(w[r], value, acc[c][r]);
    }
  }
  const int tail = static_cast<int>(columns % 16);
  if (tail == 0) return;
  // The missing lanes multiply zeros.
  for (int c = 0; c < C; ++c) {
    alignas(64) float padded[16] = {};
    std::memcpy(padded, x + c * x_stride + steps * 16, static_cast<size_t>(tail) * 4);
    const V value = P::load(padded);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) acc[c][r] = P::fma(rows.tail(r, steps, tail), value, acc[c][r]);
  }
}

/// output[c][r] = folded acc[c][r], four at a time.
template <class P, int R, int C>
PARE_INLINE void fold_tile(const typename P::V (&acc)[C][R], float* output, int64_t output_stride) {
  constexpr int kCount = C * R;
  float folded[kCount];
#pragma GCC unroll 8
  for (int i = 0; i + 4 <= kCount; i += 4)
    P::fold_add4(acc[i / R][i % R], acc[(i + 1) / R][(i + 1) % R], acc[(i + 2) / R][(i + 2) % R],
                 acc[(i + 3) / R][(i + 3) % R], folded + i);
#pragma GCC unroll 4
  for (int i = kCount / 4 * 4; i < kCount; ++i) folded[i] = P::fold_add(acc[i / R][i % R]);
  for (int c = 0; c < C; ++c) std::memcpy(output + c * output_stride, folded + c * R, R * sizeof(float));
}

template <class P, int R, int C, class Rows>
void whole_tile(const Rows& rows, const float* x, int64_t x_stride, int64_t columns, float* output,
                int64_t output_stride) {
  typename P::V acc[C][R];
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c)
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) acc[c][r] = P::zero();
  accumulate_tile<P, R, C>(rows, x, x_stride, columns, acc);
  fold_tile<P, R, C>(acc, output, output_stride);
}

/// whole_tile for a number of activation rows from 1 to C.
template <class P, int R, int C, class Rows>
PARE_INLINE void whole_tile_of(int count, const Rows& rows, const float* x, int64_t x_stride, int64_t columns,
                               float* output, int64_t output_stride) {
  if constexpr (C > 1) {
    if (count < C) {
      return whole_tile_of<P, R, C - 1>(count, rows, x, x_stride, columns, output, output_stride);
    }
  }
  whole_tile<P, R, C>(rows, x, x_stride, columns, output, output_stride);
}

/// Few activation rows: weights are read (and converted) once per tile of activation rows, straight from their place;
/// the second and later tiles find them in the cache.
template <class P, class W, int R>
void multiply_rows_in_place(const MultiplyArgs& a, int64_t row) {
  const RowsInPlace<P, W> rows{a.weights + row * a.columns * W::kBytes, a.columns * W::kBytes};
  for (int64_t i = 0; i < a.input_rows; i += P::kTileInputs) {
    const auto count = static_cast<int>(a.input_rows - i < P::kTileInputs ? a.input_rows - i : P::kTileInputs);
    whole_tile_of<P, R, P::kTileInputs>(count, rows, reinterpret_cast<const float*>(a.input + i * a.input_stride),
                                        a.input_stride / 4, a.columns, a.output + i * a.output_stride + row,
                                        a.output_stride);
  }
}

template <class P, class W>
void multiply_float(const MultiplyArgs& a) {
  int64_t row = a.row_begin;
  for (; row + P::kTileRows <= a.row_end; row += P::kTileRows) multiply_rows_in_place<P, W, P::kTileRows>(a, row);
  for (; row < a.row_end; ++row) multiply_rows_in_place<P, W, 1>(a, row);
}

/// What every instruction set's float packing shares.
template <class P, class W>
constexpr Packing float_packing(const char* name, int64_t (*bytes)(int64_t, int64_t),
                                void (*unpack)(const std::byte*, int64_t, int64_t, float*)) {
  return {name, true, P::kTileRows, InputFormat::kFloat, bytes, nullptr, unpack, multiply_float<P, W>};
}

}  // namespace
}  // namespace pare::kernels

#pragma once
#include <cstring>
#include <type_traits>

#include "kernels/generic/read_ahead.inl.h"
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

/// Weight rows that come from memory.
template <class P, class W, class Ahead>
struct RowsFromMemory : RowsInPlace<P, W> {
  Ahead later;
  PARE_INLINE void ahead(int64_t step) const {
    // A cache line holds several steps.
    constexpr int kSteps = 64 / (16 * W::kBytes);
    if (step % kSteps == 0) later.template ask<64>(step * 16 * W::kBytes);
  }
};

/// Weight rows converted and interleaved: [step][R][16].
template <class P, int R>
struct RowsInPanel {
  const float* base;
  PARE_INLINE void ahead(int64_t) const {}
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
    rows.ahead(step);
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
#pragma GCC unroll 8
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
PARE_INLINE void whole_tile(const Rows& rows, const float* x, int64_t x_stride, int64_t columns, float* output,
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

/// Tiles of R weight rows from `row` on, straight from their place, for few activation rows: weights are read (and
/// converted) once per tile of at most C activation rows; the second and later tiles find them in the cache.
template <class P, class W, int R, int C, template <int> class Ahead = TileAhead>
void multiply_rows_in_place(const MultiplyArgs& a, int64_t row) {
  const int64_t stride = a.columns * W::kBytes;
  for_tiles<R, C, Ahead>(a, row, 1, stride, [&](int64_t at, int64_t i, int count, const auto& ahead) {
    using Here = std::decay_t<decltype(ahead)>;
    constexpr int kRows = Here::kCount;
    const RowsFromMemory<P, W, Here> rows{{a.weights + at * stride, stride}, ahead};
    whole_tile_of<P, kRows, C>(count, rows, reinterpret_cast<const float*>(a.input + i * a.input_stride),
                               a.input_stride / 4, a.columns, a.output + i * a.output_stride + at, a.output_stride);
  });
}

/// Weight rows in place, stored as RowsInPanel on the way: the first tile of activations makes the panel of the others,
/// and its multiplications hide the time of it.
template <class P, class W, int R>
struct RowsToPanel {
  RowsInPlace<P, W> rows;
  float* panel;
  PARE_INLINE void ahead(int64_t) const {}
  PARE_INLINE typename P::V keep(int r, int64_t step, typename P::V v) const {
    P::store(panel + (step * R + r) * 16, v);
    return v;
  }
  PARE_INLINE typename P::V at(int r, int64_t step) const { return keep(r, step, rows.at(r, step)); }
  PARE_INLINE typename P::V tail(int r, int64_t step, int lanes) const {
    return keep(r, step, rows.tail(r, step, lanes));
  }
};

/// Where a tile's sums stand between blocks of columns.
struct Block {
  bool first, last;
};

/// One tile over one block of columns; sums wait in `saved`, [C][R][16], for the next block.
template <class P, int R, int C, class Rows>
void panel_tile(const Rows& rows, const float* x, int64_t x_stride, int64_t columns, Block block, float* saved,
                float* output, int64_t output_stride) {
  typename P::V acc[C][R];
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c)
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) acc[c][r] = block.first ? P::zero() : P::load(saved + (c * R + r) * 16);
  accumulate_tile<P, R, C>(rows, x, x_stride, columns, acc);
  if (block.last) return fold_tile<P, R, C>(acc, output, output_stride);
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c)
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) P::store(saved + (c * R + r) * 16, acc[c][r]);
}

template <class P, int R, int C, class Rows>
PARE_INLINE void panel_tile_of(int count, const Rows& rows, const float* x, int64_t x_stride, int64_t columns,
                               Block block, float* saved, float* output, int64_t output_stride) {
  if constexpr (C > 1) {
    if (count < C)
      return panel_tile_of<P, R, C - 1>(count, rows, x, x_stride, columns, block, saved, output, output_stride);
  }
  panel_tile<P, R, C>(rows, x, x_stride, columns, block, saved, output, output_stride);
}

/// Many activation rows. A panel of weights is converted once for all of them and stays in the second-level cache,
/// while tile after tile of activations stays in the first: a block of columns is as long as that allows, and sums wait
/// in memory between blocks.
template <class P, class W>
void multiply_panels(const MultiplyArgs& a, int64_t row_end) {
  constexpr int R = P::kTileRows, C = P::kTileInputs;
  constexpr int64_t kRows = P::kPanelRows, kInputs = P::kPanelInputRows;
  const int64_t blocks = (a.columns + P::kPanelColumns - 1) / P::kPanelColumns;
  const int64_t block_columns = ((a.columns + blocks - 1) / blocks + 15) / 16 * 16;
  auto* panel = static_cast<float*>(thread_scratch((kRows * block_columns + kInputs * kRows * 16) * 4));
  float* saved = panel + kRows * block_columns;
  const int64_t stride = a.columns * W::kBytes;
  const int64_t input_blocks = (a.input_rows + kInputs - 1) / kInputs;
  const int64_t block_inputs = (a.input_rows + input_blocks - 1) / input_blocks;
  for (int64_t input = 0; input < a.input_rows; input += block_inputs) {
    const int64_t inputs = a.input_rows - input < block_inputs ? a.input_rows - input : block_inputs;
    for (int64_t row = a.row_begin; row < row_end; row += kRows) {
      const int64_t rows = row_end - row < kRows ? row_end - row : kRows;
      for (int64_t k = 0; k < a.columns; k += block_columns) {
        const int64_t columns = a.columns - k < block_columns ? a.columns - k : block_columns;
        const Block block{k == 0, k + columns == a.columns};
        const int64_t padded = (columns + 15) / 16 * 16;
        const std::byte* piece = a.weights + row * stride + k * W::kBytes;
        for (int64_t i = 0; i < inputs;) {
          const int64_t tiles = (inputs - i + C - 1) / C;
          const auto count = static_cast<int>((inputs - i + tiles - 1) / tiles);
          const std::byte* x = a.input + (input + i) * a.input_stride + k * 4;
          // What the next panel is made of, a part with each tile of this one.
          const bool more = k + columns < a.columns || row + kRows < row_end;
          const std::byte* next =
              k + columns < a.columns ? piece + columns * W::kBytes : a.weights + (row + kRows) * stride;
          const int64_t share = i > 0 && more ? (columns * W::kBytes * C / inputs + 63) / 64 * 64 : 0;
          for (int64_t r = 0; r < rows; r += R) {
            for (int64_t at = r; at < r + R; ++at) ask_for(next + at * stride + (i / C - 1) * share, share);
            const auto* from = reinterpret_cast<const float*>(x);
            float* tile = panel + r * padded;
            float* sums = saved + (i * kRows + r * count) * 16;
            float* output = a.output + (input + i) * a.output_stride + row + r;
            if (i == 0)
              panel_tile_of<P, R, C>(count, RowsToPanel<P, W, R>{{piece + r * stride, stride}, tile}, from,
                                     a.input_stride / 4, columns, block, sums, output, a.output_stride);
            else
              panel_tile_of<P, R, C>(count, RowsInPanel<P, R>{tile}, from, a.input_stride / 4, columns, block, sums,
                                     output, a.output_stride);
          }
          i += count;
        }
      }
    }
  }
}

template <class P, class W>
void multiply_float(const MultiplyArgs& a) {
  constexpr int R = P::kTileRows, C = P::kTileInputs;
  int64_t row = a.row_begin;
  if (a.input_rows >= P::kPanelInputs) {
    row += (a.row_end - row) / R * R;
    multiply_panels<P, W>(a, row);
  }
  // A single activation row leaves registers to read more streams side by side.
  if (a.input_rows == 1) return multiply_rows_in_place<P, W, P::kTileRowsOfOne, 1>(a, row);
  multiply_rows_in_place<P, W, R, C>(a, row);
}

/// Rows side by side that are read as one stream: one alone would wait for its sum.
constexpr int kStreamRows = 2;

template <class P, class W>
void multiply_float_one_stream(const MultiplyArgs& a) {
  multiply_rows_in_place<P, W, kStreamRows, 1, TileInOneStream>(a, a.row_begin);
}

/// A packing of each float type.
struct FloatPackings {
  Packing all[3];
};
template <class P>
constexpr FloatPackings float_packings(const char* isa) {
  const auto packing = [&](DType type, auto packed_bytes, auto unpack_row, auto weight) {
    using W = decltype(weight);
    return Packing{.source = type,
                   .isa = isa,
                   .in_place = true,
                   .row_group = P::kTileRows,
                   .input = InputFormat::kFloat,
                   .packed_bytes = packed_bytes,
                   .unpack_row = unpack_row,
                   .multiply = multiply_float<P, W>,
                   .multiply_one_stream = P::kTileRowsOfOne > kStreamRows ? multiply_float_one_stream<P, W> : nullptr,
                   .panel_inputs = P::kPanelInputs,
                   .panel_rows = P::kPanelRows};
  };
  return {{packing(DType::kF32, packed_bytes_f32, unpack_row_f32, WeightF32{}),
           packing(DType::kF16, packed_bytes_16bit, unpack_row_f16, WeightF16{}),
           packing(DType::kBF16, packed_bytes_16bit, unpack_row_bf16, WeightBF16{})}};
}

}  // namespace
}  // namespace pare::kernels

#pragma once
#include <cstring>
#include <iterator>
#include <utility>

#include "kernels/generic/read_ahead.inl.h"
#include "kernels/matmul.h"
#include "kernels/packing.h"

// Products of block types (see packing.h for the layout) with int8 activations. A unit of 16 or 32 columns that share a
// scale is summed exactly in int32, |sum| <= 32 * 255 * 127 < 2^24, so its float is exact too; then one fused
// multiply-add a unit, ascending, and one more for its min.
//
// What an engine E holds (each instruction set defines its own):
//   P, the float primitives; Bytes, 64 unsigned codes: 4 columns of each of 16 rows
//   kSigned: codes of all 8 bits are multiplied as int8; otherwise as uint8, 128 above their values
//   Bytes load(p); field<shift, mask>(v): v >> shift (left if negative) & mask; either(a, b): a | b
//   Bytes full(v): codes stored 128 above their values, as kSigned says; Bytes table(v): kIq4Values at v, likewise
//   Sum<kFull, kLargest, kSteps>: 16 int32 sums. begin<kShift>(start): *start << kShift in each lane;
//     add<step>(w, x): the products of 4 columns, codes at most kLargest (kFull: those of full or table); floats()

namespace pare::kernels {
namespace {

template <class F, int... kIndex>
PARE_INLINE void unrolled(F f, std::integer_sequence<int, kIndex...>) {
  (f(std::integral_constant<int, kIndex>()), ...);
}
/// f(0), f(1), ... as compile-time constants.
template <int kCount, class F>
PARE_INLINE void unrolled(F f) {
  unrolled(f, std::make_integer_sequence<int, kCount>());
}

constexpr int log2_of(int power) { return power <= 1 ? 0 : 1 + log2_of(power / 2); }

template <class E, DType kType>
struct BlockKernel {
  using P = typename E::P;
  using V = typename P::V;
  using Bytes = typename E::Bytes;
  static constexpr BlockForm kForm = block_form(kType);
  static constexpr BlockLayout kLayout = layout_of(kForm);
  static constexpr bool kFull = kForm.table || kForm.code_bits == 8;
  static constexpr int kUnitSteps = kForm.unit / kStepColumns;
  static constexpr int kChunks = kForm.columns / kBlock, kChunkUnits = kBlock / kForm.unit;
  static constexpr int kOffset = !kFull ? kForm.offset : E::kSigned ? 0 : 128;
  using Sum = typename E::template Sum<kFull, (1 << kForm.code_bits) - 1, kUnitSteps>;

  /// Codes of step kStep of a chunk.
  template <int kStep>
  static PARE_INLINE Bytes codes(const std::byte* block, int chunk) {
    constexpr int kLow = kLayout.low_bits, kHigh = kLayout.high_bits, kTogether = 8 / kLow;
    const Bytes low = E::load(block + kLayout.low_offset() + (chunk * kLow + kStep / kTogether) * kStepBytes);
    if constexpr (kForm.code_bits == 8) return E::full(low);
    Bytes code = E::template field<kStep % kTogether * kLow, (1 << kLow) - 1>(low);
    if constexpr (kHigh > 0) {
      constexpr int kMany = 8 / kHigh;
      const Bytes high = E::load(block + kLayout.high_offset() + (chunk * kHigh + kStep / kMany) * kStepBytes);
      code = E::either(code, E::template field<kStep % kMany * kHigh - kLow, ((1 << kHigh) - 1) << kLow>(high));
    }
    if constexpr (kForm.table) return E::table(code);
    return code;
  }

  /// Scales and mins of 16 rows of a block.
  struct Scales {
    V d, m;
    PARE_INLINE void load(const std::byte* block) {
      d = P::load_f16(block);
      if constexpr (kLayout.has_min) m = P::load_f16(block + 2 * kInterleavedRows);
    }
    PARE_INLINE V scale(const std::byte* block, int unit) const {
      if constexpr (kLayout.scale_bytes == 0) return d;
      const std::byte* at = block + kLayout.scales_offset() + unit * kInterleavedRows;
      return P::mul(d, kLayout.nibble_scales ? P::load_low_nibbles(at) : P::load_int8(at));
    }
    PARE_INLINE V min(const std::byte* block, int unit) const {
      if constexpr (kLayout.scale_bytes == 0) return m;
      const std::byte* at =
          block + (kLayout.nibble_scales ? kLayout.scales_offset() : kLayout.mins_offset()) + unit * kInterleavedRows;
      return P::mul(m, kLayout.nibble_scales ? P::load_high_nibbles(at) : P::load_int8(at));
    }
  };

  /// Part `part` of a chunk of 32 columns: a unit.
  template <int kPart, int G, int C, class Activations>
  static PARE_INLINE void unit(const std::byte* block, int64_t group_bytes, const Scales (&scales)[G], int chunk,
                               const Activations& activations, V (&total)[G][C]) {
    constexpr bool kWhole = kChunkUnits == 1;
    Sum sum[G][C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      const Int8Block& x = activations(c);
      if constexpr (kOffset == 0) {
#pragma GCC unroll 8
        for (int g = 0; g < G; ++g) sum[g][c].clear();
      } else {
        sum[0][c].template begin<log2_of(kOffset)>(kWhole ? x.minus_sum : x.minus_half_sum[kPart]);
#pragma GCC unroll 8
        for (int g = 1; g < G; ++g) sum[g][c] = sum[0][c];
      }
    }
    unrolled<kUnitSteps>([&](auto step) __attribute__((always_inline)) {
      constexpr int kStep = kPart * kUnitSteps + decltype(step)::value;
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) {
        const Bytes w = codes<kStep>(block + g * group_bytes, chunk);
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c)
          sum[g][c].template add<decltype(step)::value>(w, activations(c).codes + kStepColumns * kStep);
      }
    });
    const int unit = chunk * kChunkUnits + kPart;
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
      const V scale = scales[g].scale(block + g * group_bytes, unit);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c)
        total[g][c] = P::fma(sum[g][c].floats(), P::mul(scale, P::set1(activations(c).scale)), total[g][c]);
      if constexpr (kLayout.has_min) {
        const V min = scales[g].min(block + g * group_bytes, unit);
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
          const Int8Block& x = activations(c);
          total[g][c] = P::fma(min, P::set1(kWhole ? x.weighted_sum : x.weighted_half_sum[kPart]), total[g][c]);
        }
      }
    }
  }

  /// G groups of 16 weight rows x C activation rows; `lanes` rows of the last group are stored. `next`, if given, is
  /// what is read after this tile and those before it: it is asked for in order while this one is computed.
  template <int G, int C>
  static void tile(const std::byte* weights, const std::byte* next, int64_t group_bytes, const std::byte* input,
                   int64_t input_stride, int64_t blocks, float* output, int64_t output_stride, int lanes) {
    V total[G][C];
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) total[g][c] = P::zero();
    for (int64_t b = 0; b < blocks; ++b) {
      const std::byte* block = weights + b * kLayout.bytes();
      Scales scales[G];
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) scales[g].load(block + g * group_bytes);
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        const std::byte* x = input + (b * kChunks + chunk) * static_cast<int64_t>(sizeof(Int8Block));
        const auto activations = [&](int c) __attribute__((always_inline))->const Int8Block& {
          return *reinterpret_cast<const Int8Block*>(x + c * input_stride);
        };
        if (next) {
          constexpr int kBytes = G * kLayout.bytes() / kChunks;
#pragma GCC unroll 20
          for (int i = 0; i < kBytes; i += 64)
            __builtin_prefetch(next + (b * kChunks + chunk) * kBytes + i, 0, kSecondLevel);
        }
        unrolled<kChunkUnits>([&](auto part) __attribute__((always_inline)) {
          unit<decltype(part)::value>(block, group_bytes, scales, chunk, activations, total);
        });
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

  /// tile for a number of activation rows from 1 to C.
  template <int G, int C>
  static PARE_INLINE void tile_of(int count, const std::byte* weights, const std::byte* next, int64_t group_bytes,
                                  const std::byte* input, int64_t input_stride, int64_t blocks, float* output,
                                  int64_t output_stride, int lanes) {
    if constexpr (C > 1) {
      if (count < C)
        return tile_of<G, C - 1>(count, weights, next, group_bytes, input, input_stride, blocks, output, output_stride,
                                 lanes);
    }
    tile<G, C>(weights, next, group_bytes, input, input_stride, blocks, output, output_stride, lanes);
  }

  template <int G>
  static void multiply_groups(const MultiplyArgs& a, int64_t row, int64_t ahead, const Stream& stream) {
    constexpr int kInputs = P::kBlockInputs;
    const int64_t blocks = a.columns / kForm.columns, group_bytes = blocks * kLayout.bytes();
    const int64_t last = a.row_end - row - (G - 1) * kInterleavedRows;
    const int lanes = static_cast<int>(last < kInterleavedRows ? last : kInterleavedRows);
    for (int64_t i = 0; i < a.input_rows; i += kInputs) {
      const auto count = static_cast<int>(a.input_rows - i < kInputs ? a.input_rows - i : kInputs);
      const std::byte* weights = a.weights + row / kInterleavedRows * group_bytes;
      const std::byte* next = i == 0 ? stream.at(weights + ahead * group_bytes) : nullptr;
      tile_of<G, kInputs>(count, weights, next, group_bytes, a.input + i * a.input_stride, a.input_stride, blocks,
                          a.output + i * a.output_stride + row, a.output_stride, lanes);
    }
  }

  static void multiply(const MultiplyArgs& a) {
    constexpr int kGroups = P::kBlockGroups;
    const int64_t group_bytes = a.columns / kForm.columns * kLayout.bytes();
    const int64_t ahead = tiles_ahead(kGroups * group_bytes) * kGroups;  // groups
    int64_t row = a.row_begin;
    const int64_t groups = (a.row_end - row + kInterleavedRows - 1) / kInterleavedRows;
    const Stream stream(a.weights + row / kInterleavedRows * group_bytes, groups * group_bytes, a.then, a.expected);
    for (; row + (kGroups - 1) * kInterleavedRows < a.row_end; row += kGroups * kInterleavedRows)
      multiply_groups<kGroups>(a, row, ahead, stream);
    for (; row < a.row_end; row += kInterleavedRows) multiply_groups<1>(a, row, ahead, stream);
  }

  static int64_t packed_bytes(int64_t rows, int64_t columns) { return packed_bytes_blocks(kForm, rows, columns); }
  static void unpack_row(const std::byte* packed, int64_t columns, int64_t row, float* to) {
    unpack_row_blocks(kForm, packed, columns, row, to);
  }
  static constexpr Packing packing(const char* isa) {
    return {kType,        isa,         false,      kInterleavedRows, InputFormat::kInt8Block,
            packed_bytes, pack_blocks, unpack_row, multiply};
  }
};

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
      if (largest >= 0x7f800000) {
        const float nan = __builtin_nanf("");
        block->scale = block->weighted_sum = block->weighted_half_sum[0] = block->weighted_half_sum[1] = nan;
      }
      continue;
    }
    const float inverse = 127.0f / absmax;
    int32_t sums[2] = {0, 0};
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < kBlock / 2; ++i) {
        // Adding 1.5 * 2^23 rounds to an integer, half to even, in the low bits.
        const float shifted = row[k + half * (kBlock / 2) + i] * inverse + 0x1.8p23f;
        const int32_t code = __builtin_bit_cast(int32_t, shifted) - 0x4b400000;
        block->codes[half * (kBlock / 2) + i] = static_cast<int8_t>(code);
        sums[half] += code;
      }
      block->minus_half_sum[half] = -sums[half];
    }
    const float scale = absmax / 127.0f;
    block->scale = scale;
    block->minus_sum = -(sums[0] + sums[1]);
    block->weighted_sum = scale * static_cast<float>(block->minus_sum);
    for (int half = 0; half < 2; ++half)
      block->weighted_half_sum[half] = scale * static_cast<float>(block->minus_half_sum[half]);
  }
}

/// A packing of each block type, in the order of block_forms().
struct BlockPackings {
  Packing all[block_forms().size()];
};
template <class E, int... kIndex>
constexpr BlockPackings block_packings(const char* isa, std::integer_sequence<int, kIndex...>) {
  return {{BlockKernel<E, block_forms()[kIndex].type>::packing(isa)...}};
}
template <class E>
constexpr BlockPackings block_packings(const char* isa) {
  return block_packings<E>(isa, std::make_integer_sequence<int, block_forms().size()>());
}

}  // namespace
}  // namespace pare::kernels

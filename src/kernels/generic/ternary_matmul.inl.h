#pragma once
#include <cstring>
#include <type_traits>

#include "base/cache_lines.h"
#include "kernels/generic/elementwise.inl.h"
#include "kernels/generic/read_ahead.inl.h"
#include "kernels/generic/unrolled.inl.h"
#include "kernels/matmul.h"
#include "kernels/packing.h"
#include "kernels/ternary.h"

// Products of ternary weights (see ternary.h). An engine E is that of block types (block_matmul.inl.h) with
//   Bytes t3_indices<vector>(strip): its indices of 5 bits (more bits may be set above them), and
//   Bytes t3_code<step>(indices), where it takes that layout; Sum::restore(p), save(p): the 16 sums as they lie in
//   memory, in the order of rows; kTernaryRowSums: see RowSums. Where that is more than 1, Sum::add takes any unsigned
//   codes, and Sum::merge<kShift>(other) adds other / 2^kShift.
//
// Few activation rows: weights are unpacked in registers as they come from memory. Many: a panel of weight rows is
// unpacked once, as bytes, into a near cache, and its products are summed up in memory from one panel of
// columns to the next.

namespace pare::kernels {
namespace {

/// Activations that all weights of a thread's share meet, in bytes: beside these they have room in a second-level cache
/// of 1 MB, or in a thread's half of a larger one.
constexpr int64_t kTernaryPartBytes = 700 << 10;

/// Vectors of a strip, and the codes of their steps.
template <class E, class Layout>
struct Codes;

template <class E>
struct Codes<E, TernaryI2> {
  using Vector = typename E::Bytes;
  template <int kVector>
  static PARE_INLINE Vector load(const std::byte* strip) {
    return E::load(strip + kVector * kStepBytes);
  }
  template <int kStep>
  static PARE_INLINE typename E::Bytes step(const Vector& v) {
    return E::template field<2 * kStep, 3>(v);
  }
};

template <class E>
struct Codes<E, TernaryT3> {
  using Vector = typename E::Bytes;
  template <int kVector>
  static PARE_INLINE Vector load(const std::byte* strip) {
    return E::template t3_indices<kVector>(strip);
  }
  template <int kStep>
  static PARE_INLINE typename E::Bytes step(const Vector& v) {
    return E::template t3_code<kStep>(v);
  }
};

template <class E>
struct Codes<E, TernaryBytes> {
  using Vector = typename E::Bytes;
  template <int kVector>
  static PARE_INLINE Vector load(const std::byte* strip) {
    return E::load(strip + kVector * kStepBytes);
  }
  template <int kStep>
  static PARE_INLINE typename E::Bytes step(const Vector& v) {
    return v;
  }
};

/// i2 without shifts: the codes of step s are 4^s times too large.
struct TernaryI2InPlace : TernaryI2 {};

template <class E>
struct Codes<E, TernaryI2InPlace> : Codes<E, TernaryI2> {
  template <int kStep>
  static PARE_INLINE typename E::Bytes step(const typename E::Bytes& v) {
    return E::template field<0, 3 << 2 * kStep>(v);
  }
};

/// Sums of all of a strip's steps: at most 2 * 128 * 4 a step and lane.
template <class E, class Layout>
using TernarySum = typename E::template Sum<false, 2, strip_steps<Layout>()>;

/// Sums of a group for a single activation row: several in turn, so that one addition need not wait for another where
/// weights are read as one stream, and so that codes in place are added to others like them.
template <class E, class Layout>
struct RowSums {
  static constexpr int kSteps = strip_steps<Layout>();
  static constexpr int kCount = E::kTernaryRowSums < kSteps ? E::kTernaryRowSums : kSteps;
  static constexpr bool kInPlace = std::is_same_v<Layout, TernaryI2InPlace>;
  static_assert(!kInPlace || kCount % Layout::kVectorSteps == 0);
  typename E::template Sum<false, 2, kSteps> part[kCount];

  template <int kShift>
  PARE_INLINE void begin(const int32_t& start) {
    part[0].template begin<kShift>(start);
#pragma GCC unroll 8
    for (int i = 1; i < kCount; ++i) part[i].clear();
  }
  template <int kStep>
  PARE_INLINE void add(const typename E::Bytes& w, const int8_t* x) {
    part[kStep % kCount].template add<kStep>(w, x);
  }
  PARE_INLINE auto floats() const {
    auto all = part[0];
    unrolled<kCount - 1>([&](auto i) __attribute__((always_inline)) {
      constexpr int kPart = decltype(i)::value + 1;
      all.template merge<kInPlace ? 2 * (kPart % Layout::kVectorSteps) : 0>(part[kPart]);
    });
    return all.floats();
  }
};

/// The sum of each group and activation row of a tile, and the layout that its codes are taken as. A tile of one group
/// and one row has registers for several sums.
template <class E, class Layout, int G, int C>
struct TileSum {
  using Type = TernarySum<E, Layout>;
  using Stored = Layout;
};
template <class E, class Layout>
  requires(E::kTernaryRowSums > 1)
struct TileSum<E, Layout, 1, 1> {
  using Stored = std::conditional_t<std::is_same_v<Layout, TernaryI2>, TernaryI2InPlace, Layout>;
  using Type = RowSums<E, Stored>;
};

/// Adds to sum[g][c] the products of `strips` strips of G groups, `stride` bytes apart, with C rows of codes.
template <class E, class Layout, int G, int C, class Sum>
PARE_INLINE void add_strips(const std::byte* weights, int64_t stride, const TileAhead<G>& ahead, const int8_t* input,
                            int64_t input_stride, int64_t strips, Sum (&sum)[G][C]) {
  using Step = Codes<E, Layout>;
  constexpr int kSteps = Layout::kVectorSteps;
  for (int64_t strip = 0; strip < strips; ++strip) {
    unrolled<Layout::kStripVectors>([&](auto vector) __attribute__((always_inline)) {
      constexpr int kVector = decltype(vector)::value;
      // A block at a time: streams end within strips, and a core can wait for a dozen lines at once.
      constexpr auto blocks_until = [](int v) { return v * Layout::kStripBlocks / Layout::kStripVectors; };
      if constexpr (blocks_until(kVector) < blocks_until(kVector + 1))
        ahead.template ask<kStepBytes>(strip * strip_bytes<Layout>() + blocks_until(kVector) * kStepBytes);
      typename Step::Vector v[G];
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g)
        v[g] = Step::template load<kVector>(weights + g * stride + strip * strip_bytes<Layout>());
      unrolled<kSteps>([&](auto step) __attribute__((always_inline)) {
        constexpr int kStep = kVector * kSteps + decltype(step)::value;
        const int8_t* x = input + strip * strip_columns<Layout>() + kStep * kStepColumns;
        // Activations outside: each is broadcast once for all groups.
        typename E::Bytes w[G];
#pragma GCC unroll 8
        for (int g = 0; g < G; ++g) w[g] = Step::template step<decltype(step)::value>(v[g]);
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c)
#pragma GCC unroll 8
          for (int g = 0; g < G; ++g) sum[g][c].template add<kStep>(w[g], x + c * input_stride);
      });
    });
  }
}

/// The products of a panel by tiles of registers.
template <class E>
struct RegisterTiles {
  using P = typename E::P;
  using Sum = TernarySum<E, TernaryBytes>;
  static constexpr int kGroups = E::kTernaryGroups, kInputs = E::kTernaryInputs;
  /// Groups of 16 weight rows in a panel, its columns, and the rows of activations that it is used for.
  static constexpr int kPanelGroups = 4;
  static constexpr int64_t kColumns = E::kTernaryPanelColumns, kInputRows = 192;

  template <int G, int C>
  static void tile(const std::byte* panel, int64_t stride, const int8_t* input, int64_t input_stride, int64_t strips,
                   int32_t* sums, int64_t sums_stride) {
    Sum sum[G][C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c)
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) sum[g][c].restore(sums + c * sums_stride + g * kInterleavedRows);
    add_strips<E, TernaryBytes, G, C>(panel, stride, {}, input, input_stride, strips, sum);
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c)
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) sum[g][c].save(sums + c * sums_stride + g * kInterleavedRows);
  }
  template <int G, int C>
  static PARE_INLINE void tile_of(int count, const std::byte* panel, int64_t stride, const int8_t* input,
                                  int64_t input_stride, int64_t strips, int32_t* sums, int64_t sums_stride) {
    if constexpr (C > 1) {
      if (count < C) return tile_of<G, C - 1>(count, panel, stride, input, input_stride, strips, sums, sums_stride);
    }
    tile<G, C>(panel, stride, input, input_stride, strips, sums, sums_stride);
  }
  /// sums: [inputs, sums_stride], of `groups` groups of 16 weight rows in a panel, `stride` bytes apart. Of `rows`,
  /// begin(i, end) is called before the sums of these activation rows are read, will_write(i) before each row is done,
  /// and done(i, end) when they are.
  template <class Rows>
  static void multiply(const std::byte* panel, int64_t stride, int groups, const int8_t* input, int64_t input_stride,
                       int64_t inputs, int64_t strips, int32_t* sums, int64_t sums_stride, const Rows& rows) {
    const int64_t tiles = (inputs + kInputs - 1) / kInputs;
    for (int64_t t = 0; t < tiles; ++t) {
      // Tiles of nearly the same size: a small last one would cost as much as a whole one.
      const int64_t i = inputs * t / tiles;
      const auto count = static_cast<int>(inputs * (t + 1) / tiles - i);
      rows.begin(i, i + count);
      for (int c = 0; c < count; ++c) rows.will_write(i + c);
      int g = 0;
      for (; g + kGroups <= groups; g += kGroups)
        tile_of<kGroups, kInputs>(count, panel + g * stride, stride, input + i * input_stride, input_stride, strips,
                                  sums + i * sums_stride + g * kInterleavedRows, sums_stride);
      for (; g < groups; ++g)
        tile_of<1, kInputs>(count, panel + g * stride, stride, input + i * input_stride, input_stride, strips,
                            sums + i * sums_stride + g * kInterleavedRows, sums_stride);
      rows.done(i, i + count);
    }
  }
};

template <class E, class Layout>
struct TernaryKernel {
  using Panels = RegisterTiles<E>;
  using P = typename E::P;
  static constexpr int kGroups = E::kTernaryGroups, kInputs = E::kTernaryInputs;
  static constexpr int kPanelGroups = Panels::kPanelGroups;

  static PARE_INLINE const Int8RowHeader& header(const MultiplyArgs& a, int64_t i) {
    return *reinterpret_cast<const Int8RowHeader*>(a.input + i * a.input_stride);
  }
  static PARE_INLINE const int8_t* codes(const MultiplyArgs& a, int64_t i) {
    return reinterpret_cast<const int8_t*>(a.input + i * a.input_stride + sizeof(Int8RowHeader));
  }

  /// 16 sums of activation row i times the scales, to output columns `row` on.
  template <class S>
  static PARE_INLINE void finish(const MultiplyArgs& a, int64_t i, int64_t row, const S& sum) {
    const typename P::V out = P::mul(sum.floats(), P::set1(a.scale * header(a, i).inverse));
    float* to = a.output + i * a.output_stride + row;
    if (row + kInterleavedRows <= a.row_end) {
      P::store(to, out);
    } else {
      alignas(64) float last[kInterleavedRows];
      P::store(last, out);
      std::memcpy(to, last, static_cast<size_t>(a.row_end - row) * 4);
    }
  }

  template <int G, int C>
  static void packed_tile(const MultiplyArgs& a, int64_t row, int64_t i, const TileAhead<G>& ahead) {
    const int64_t strips = strips_of<Layout>(a.columns), stride = group_bytes<Layout>(a.columns);
    using Tile = TileSum<E, Layout, G, C>;
    typename Tile::Type sum[G][C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c)
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) sum[g][c].template begin<0>(header(a, i + c).minus_sum);
    add_strips<E, typename Tile::Stored, G, C>(a.weights + row / kInterleavedRows * stride, stride, ahead, codes(a, i),
                                               a.input_stride, strips, sum);
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c)
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) finish(a, i + c, row + g * kInterleavedRows, sum[g][c]);
  }
  template <int G, int C>
  static PARE_INLINE void packed_tile_of(int count, const MultiplyArgs& a, int64_t row, int64_t i,
                                         const TileAhead<G>& ahead) {
    if constexpr (C > 1) {
      if (count < C) return packed_tile_of<G, C - 1>(count, a, row, i, ahead);
    }
    packed_tile<G, C>(a, row, i, ahead);
  }

  template <int G, int C>
  static void packed_tiles(const MultiplyArgs& a) {
    const int64_t stride = group_bytes<Layout>(a.columns);
    for_tiles<G, C>(a, a.row_begin, kInterleavedRows, stride,
                    [&](int64_t row, int64_t i, int count, const auto& ahead) {
                      packed_tile_of<std::decay_t<decltype(ahead)>::kCount, C>(count, a, row, i, ahead);
                    });
  }
  static void multiply_one_stream(const MultiplyArgs& a) { packed_tiles<1, 1>(a); }
  /// A single activation row leaves registers for more groups.
  static void multiply_packed(const MultiplyArgs& a) {
    a.input_rows == 1 ? packed_tiles<E::kTernaryRowGroups, 1>(a) : packed_tiles<kGroups, kInputs>(a);
  }

  /// Unpacks columns [k, k + count) of a group, k a multiple of Panels::kColumns, and fills the last strip with zeros.
  /// Memory is asked for as much from `next` on: what is unpacked next in this place.
  static PARE_INLINE void expand(const std::byte* group, int64_t k, int64_t count, std::byte* panel,
                                 const std::byte* next) {
    constexpr int kSteps = strip_steps<Layout>();
    constexpr int64_t kColumns = strip_columns<Layout>(), kBytes = strip_bytes<Layout>();
    static_assert(Panels::kColumns % kColumns == 0);
    const std::byte* from = group + k / kColumns * kBytes;
    const int64_t strips = strips_of<Layout>(count);
    for (int64_t s = 0; s < strips; ++s) {
      ask_for(next + s * kBytes, kBytes);
      unrolled<Layout::kStripVectors>([&](auto v) __attribute__((always_inline)) {
        constexpr int kVector = decltype(v)::value;
        const auto vector = Codes<E, Layout>::template load<kVector>(from + s * kBytes);
        unrolled<Layout::kVectorSteps>([&](auto step) __attribute__((always_inline)) {
          constexpr int kStep = decltype(step)::value;
          E::store(panel + (s * kSteps + kVector * Layout::kVectorSteps + kStep) * kStepBytes,
                   Codes<E, Layout>::template step<kStep>(vector));
        });
      });
    }
    const int64_t filled = strips * kSteps * kStepBytes,
                  whole = strips_of<TernaryBytes>(count) * strip_bytes<TernaryBytes>();
    if (filled < whole) std::memset(panel + filled, 0, static_cast<size_t>(whole - filled));
  }

  /// The sums of a panel's activation rows, [inputs, kRows] at `sums`, from one panel of columns to the next: they
  /// begin with the first and become outputs with the last.
  struct PanelSums {
    static constexpr int64_t kRows = kPanelGroups * kInterleavedRows;
    const MultiplyArgs& a;
    int64_t input, row;
    int groups;
    bool first, last;
    int32_t* sums;

    PARE_INLINE void begin(int64_t i, int64_t end) const {
      for (; first && i < end; ++i)
        for (int64_t r = 0; r < kRows; ++r) sums[i * kRows + r] = header(a, input + i).minus_sum;
    }
    PARE_INLINE void will_write(int64_t i) const {
      auto* to = reinterpret_cast<std::byte*>(a.written + (input + i) * a.written_stride + row);
      const int64_t rows = a.row_end - row < kRows ? a.row_end - row : kRows;
      for (int64_t at = 0; last && a.written && at < rows * 4; at += kCacheLine) ask_to_write(to + at);
    }
    PARE_INLINE void done(int64_t i, int64_t end) const {
      for (; last && i < end; ++i)
        for (int g = 0; g < groups; ++g) {
          TernarySum<E, TernaryBytes> sum;
          sum.restore(sums + i * kRows + g * kInterleavedRows);
          finish(a, input + i, row + g * kInterleavedRows, sum);
        }
    }
  };

  /// expand_groups(row, groups, k, columns, panel, stride) unpacks these columns of `groups` groups of 16 rows from
  /// `row` on, as TernaryBytes, to panels `stride` bytes apart.
  template <class Expand>
  static void multiply_panels(const MultiplyArgs& a, Expand expand_groups) {
    constexpr int64_t kRows = PanelSums::kRows;
    // Unpacking whole strips may write past the last of the panel's.
    constexpr int64_t kPanelBytes = (Panels::kColumns + strip_columns<Layout>()) * kInterleavedRows;
    auto* panel = static_cast<std::byte*>(thread_scratch(kPanelGroups * kPanelBytes + Panels::kInputRows * kRows * 4));
    auto* sums = reinterpret_cast<int32_t*>(panel + kPanelGroups * kPanelBytes);
    for (int64_t row = a.row_begin; row < a.row_end; row += kRows) {
      const int64_t rows = a.row_end - row < kRows ? a.row_end - row : kRows;
      const auto groups = static_cast<int>((rows + kInterleavedRows - 1) / kInterleavedRows);
      for (int64_t input = 0; input < a.input_rows; input += Panels::kInputRows) {
        const int64_t left = a.input_rows - input, inputs = left < Panels::kInputRows ? left : Panels::kInputRows;
        for (int64_t k = 0; k < a.columns; k += Panels::kColumns) {
          const int64_t columns = a.columns - k < Panels::kColumns ? a.columns - k : Panels::kColumns;
          expand_groups(row, groups, k, columns, panel, kPanelBytes);
          Panels::multiply(panel, kPanelBytes, groups, codes(a, input) + k, a.input_stride, inputs,
                           strips_of<TernaryBytes>(columns), sums, kRows,
                           PanelSums{a, input, row, groups, k == 0, k + columns == a.columns, sums});
        }
      }
    }
  }

  static void multiply(const MultiplyArgs& a) {
    if (a.input_rows < E::kTernaryPanelInputs) return multiply_packed(a);
    const int64_t stride = group_bytes<Layout>(a.columns);
    multiply_panels(
        a, [&](int64_t row, int groups, int64_t k, int64_t columns, std::byte* panel, int64_t panel_stride) {
          for (int g = 0; g < groups; ++g) {
            const std::byte* group = a.weights + (row / kInterleavedRows + g) * stride;
            const std::byte* next = k + columns < a.columns
                                        ? group + (k + columns) / strip_columns<Layout>() * strip_bytes<Layout>()
                                        : group + kPanelGroups * stride;
            expand(group, k, columns, panel + g * panel_stride, next);
          }
        });
  }

  static constexpr Packing packing(const char* layout, const char* isa) {
    return {.source = DType::kTQ2_0,
            .isa = isa,
            .row_group = kInterleavedRows,
            .input = InputFormat::kInt8Row,
            .packed_bytes = packed_bytes_ternary<Layout>,
            .unpack_row = unpack_row_ternary<Layout>,
            .multiply = multiply,
            .multiply_one_stream = E::kTernaryRowSums > 1 ? multiply_one_stream : nullptr,
            .layout = layout,
            .pack_codes = pack_ternary<Layout>,
            .panel_inputs = E::kTernaryPanelInputs,
            .panel_rows = kPanelGroups * kInterleavedRows,
            .panel_input_rows = Panels::kInputRows,
            .panel_input_bytes = kTernaryPartBytes,
            .applies_scale = true};
  }
};

template <class E, class Layout>
constexpr Packing ternary_packing(const char* layout, const char* isa) {
  return TernaryKernel<E, Layout>::packing(layout, isa);
}

/// InputFormat::kInt8Row of the row of value(k). Plain loops: the compiler makes vectors of them, and nothing here
/// rounds differently for it.
template <class Value>
PARE_INLINE void prepare_int8_values(const Value& value, int64_t columns, std::byte* to) {
  auto* header = reinterpret_cast<Int8RowHeader*>(to);
  auto* codes = reinterpret_cast<int8_t*>(to + sizeof(Int8RowHeader));
  const int64_t padded = input_row_bytes_int8_row(columns) - static_cast<int64_t>(sizeof(Int8RowHeader));
  int32_t largest = 0;
  for (int64_t k = 0; k < columns; ++k) {
    // Magnitudes order as their bits do, NaN above infinity.
    const int32_t magnitude = __builtin_bit_cast(int32_t, value(k)) & 0x7fffffff;
    largest = magnitude > largest ? magnitude : largest;
  }
  *header = {};
  if (largest >= 0x7f800000) {
    header->inverse = __builtin_nanf("");
    std::memset(codes, 0, static_cast<size_t>(padded));
    return;
  }
  const float absmax = __builtin_bit_cast(float, largest);
  const float s = 127.0f / (absmax > 1e-5f ? absmax : 1e-5f);
  int32_t sum = 0;
  for (int64_t k = 0; k < columns; ++k) {
    // Adding 1.5 * 2^23 rounds to an integer, half to even, in the low bits; |x * s| is at most 127 and a rounding.
    const float shifted = value(k) * s + 0x1.8p23f;
    const int32_t code = __builtin_bit_cast(int32_t, shifted) - 0x4b400000;
    codes[k] = static_cast<int8_t>(code);
    sum += code;
  }
  std::memset(codes + columns, 0, static_cast<size_t>(padded - columns));
  header->inverse = 1.0f / s;
  header->minus_sum = -sum;
}

template <class P>
void prepare_int8_row(const float* row, int64_t columns, std::byte* to) {
  prepare_int8_values(
      [&](int64_t k) __attribute__((always_inline)) { return row[k]; }, columns, to);
}

/// Normalises twice instead of keeping the row: that would have to come from a far cache, which weights pass through.
template <class P>
void prepare_int8_row_normed(const float* x, const float* gain, float eps, int64_t columns, std::byte* to) {
  const float inverse = rms_inverse<P>(x, eps, columns);
  prepare_int8_values(
      [&](int64_t k) __attribute__((always_inline)) { return x[k] * inverse * gain[k]; }, columns, to);
}

template <class P>
constexpr InputFormatInfo int8_row_format() {
  return {InputFormat::kInt8Row, "int8_row", input_row_bytes_int8_row, prepare_int8_row<P>, prepare_int8_row_normed<P>};
}

}  // namespace
}  // namespace pare::kernels

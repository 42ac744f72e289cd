#pragma once
#include <cstring>
#include <iterator>
#include <type_traits>

#include "kernels/generic/read_ahead.inl.h"
#include "kernels/generic/unrolled.inl.h"
#include "kernels/matmul.h"
#include "kernels/packing.h"

// Products of block types (see packing.h for the layout) with int8 activations. A unit of 16 or 32 columns that share a
// scale is summed exactly in int32, |sum| <= 32 * 255 * 127 < 2^24, so its float is exact too; then one fused
// multiply-add a unit, ascending, and one more for its min.
//
// What an engine E holds (each instruction set defines its own):
//   P, the float primitives; Bytes, 64 unsigned codes: 4 columns of each of 16 rows
//   kSigned: codes of all 8 bits are multiplied as int8; otherwise as uint8, 128 above their values
//   Bytes load(p), and keep(v): v, loaded once for all that is made of it; store(p, v);
//   field<shift, mask>(v): v >> shift (left if negative) & mask; with_field<shift, mask>(code, v): code | that field
//   Bytes full(v): codes stored 128 above their values, as kSigned says; Bytes table(v): kIq4Values at v, likewise
//   Sum<kFull, kLargest, kSteps>: 16 int32 sums. begin<kShift>(start): *start << kShift in each lane;
//     add<step>(w, x): the products of 4 columns, codes at most kLargest (kFull: those of full or table); floats()

namespace pare::kernels {
namespace {

constexpr int log2_of(int power) { return power <= 1 ? 0 : 1 + log2_of(power / 2); }

/// kRest: of codes that are split (see head.h), the bits that lie apart.
template <class E, DType kType, int kRest = 0>
struct BlockKernel {
  using P = typename E::P;
  using V = typename P::V;
  using Bytes = typename E::Bytes;
  static constexpr BlockForm kForm = block_form(kType);
  static constexpr BlockLayout kLayout = layout_of(kForm, kRest);
  static constexpr bool kFull = kForm.table || kForm.code_bits == 8;
  static constexpr int kUnitSteps = kForm.unit / kStepColumns;
  static constexpr int kChunks = kForm.columns / kBlock, kChunkUnits = kBlock / kForm.unit;
  static constexpr int kChunkBytes = (kLayout.factor_bytes() + kLayout.bytes()) / kChunks;
  static constexpr int kOffset = !kFull ? kForm.offset : E::kSigned ? 0 : 128;
  using Sum = typename E::template Sum<kFull, (1 << kForm.code_bits) - 1, kUnitSteps>;

  /// Steps whose low bits lie in one vector.
  static constexpr int kVectorSteps = 8 / kLayout.low_bits;
  /// A vector of each plane: what codes of kVectorSteps steps are made of.
  struct Vectors {
    Bytes low, high, rest;
  };
  /// The vector of a plane of kBits that holds step kStep of a chunk, and how far up.
  template <int kStep, int kBits>
  static PARE_INLINE Bytes load_plane(const std::byte* plane, int chunk) {
    return E::keep(E::load(plane + (chunk * kBits + kStep / (8 / kBits)) * kStepBytes));
  }
  template <int kStep, int kBits>
  static constexpr int kPlace = kStep % (8 / kBits) * kBits;

  template <int kStep, bool kWithRest>
  static PARE_INLINE Vectors load(const std::byte* block, const std::byte* rest, int chunk) {
    Vectors v;
    v.low = load_plane<kStep, kLayout.low_bits>(block + kLayout.low_offset(), chunk);
    if constexpr (kLayout.high_bits > 0)
      v.high = load_plane<kStep, kLayout.high_bits>(block + kLayout.high_offset(), chunk);
    if constexpr (kWithRest && kRest > 0) v.rest = load_plane<kStep, kRest>(rest, chunk);
    return v;
  }
  /// Codes of step kStep of a chunk, but for the rest, kTo above the lowest bit.
  template <int kStep, int kTo>
  static PARE_INLINE Bytes leading(const Vectors& v) {
    constexpr int kLow = kLayout.low_bits, kHigh = kLayout.high_bits, kHighTo = kTo + kLow;
    Bytes code = E::template field<kPlace<kStep, kLow> - kTo, ((1 << kLow) - 1) << kTo>(v.low);
    if constexpr (kHigh > 0)
      code = E::template with_field<kPlace<kStep, kHigh> - kHighTo, ((1 << kHigh) - 1) << kHighTo>(code, v.high);
    return code;
  }
  template <int kStep>
  static PARE_INLINE Bytes codes(const Vectors& v) {
    if constexpr (kLayout.low_bits == 8) {
      return E::full(v.low);
    } else {
      Bytes code = leading<kStep, kRest>(v);
      if constexpr (kRest > 0) code = E::template with_field<kPlace<kStep, kRest>, (1 << kRest) - 1>(code, v.rest);
      if constexpr (kForm.table) return E::table(code);
      if constexpr (kForm.code_bits == 8) return E::full(code);
      return code;
    }
  }

  /// Units of G groups of 16 weight rows where they are packed.
  template <int G>
  struct Packed {
    using Sum = typename BlockKernel::Sum;
    static constexpr int kOffset = BlockKernel::kOffset;
    const std::byte *factors, *blocks, *rests;  // of the first group, of the first block that is read
    int64_t group_bytes, rest_bytes;            // from one group to the next
    const std::byte *block, *rest;
    V d[G], m[G];

    /// From block `first` on of groups of `count` blocks each, the first of which holds `row`.
    PARE_INLINE Packed(const MultiplyArgs& a, int64_t row, int64_t count, int64_t first = 0)
        : group_bytes(kLayout.group_bytes(count)) {
      const int64_t group = row / kInterleavedRows, all = (a.weight_rows + kInterleavedRows - 1) / kInterleavedRows;
      factors = a.weights + group * group_bytes + first * kLayout.factor_bytes();
      block = blocks = a.weights + group * group_bytes + kLayout.blocks_offset(count) + first * kLayout.bytes();
      rest_bytes = count * kLayout.rest_bytes();
      rest = rests = a.weights + all * group_bytes + group * rest_bytes + first * kLayout.rest_bytes();
    }
    PARE_INLINE void enter(int64_t b) {
      block = blocks + b * kLayout.bytes();
      if constexpr (kRest > 0) rest = rests + b * kLayout.rest_bytes();
      const std::byte* from = factors + b * kLayout.factor_bytes();
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) {
        d[g] = P::load_f16(from + g * group_bytes);
        if constexpr (kLayout.has_min) m[g] = P::load_f16(from + g * group_bytes + 2 * kInterleavedRows);
      }
    }
    template <int kStep>
    PARE_INLINE Vectors load(int g, int chunk) const {
      return BlockKernel::load<kStep, true>(block + g * group_bytes, rest + g * rest_bytes, chunk);
    }
    template <int kStep>
    static PARE_INLINE Bytes codes(const Vectors& v) {
      return BlockKernel::codes<kStep>(v);
    }
    /// What d is multiplied with, where there is such a thing.
    PARE_INLINE V unit_scale(int g, int unit) const {
      const std::byte* at = block + g * group_bytes + unit * kInterleavedRows;
      return kLayout.nibble_scales ? P::load_low_nibbles(at) : P::load_int8(at);
    }
    PARE_INLINE V scale(int g, int unit) const {
      if constexpr (kLayout.scale_bytes == 0) return d[g];
      return P::mul(d[g], unit_scale(g, unit));
    }
    PARE_INLINE V min(int g, int unit) const {
      if constexpr (kLayout.scale_bytes == 0) return m[g];
      const std::byte* at =
          block + g * group_bytes + unit * kInterleavedRows + (kLayout.nibble_scales ? 0 : kLayout.mins_offset());
      return P::mul(m[g], kLayout.nibble_scales ? P::load_high_nibbles(at) : P::load_int8(at));
    }
  };

  /// The same units unpacked for many activation rows, each as [16] scales, [16] mins if the type has them, and a
  /// vector of codes for each step.
  static constexpr int kMinBytes = kLayout.has_min ? 4 * kInterleavedRows : 0;
  static constexpr int kCodesOffset = 4 * kInterleavedRows + kMinBytes;
  static constexpr int kUnitBytes = kCodesOffset + kUnitSteps * kStepBytes;
  static constexpr int kBlockUnits = kForm.columns / kForm.unit;
  template <int G>
  struct Panel {
    using Sum = typename BlockKernel::Sum;
    static constexpr int kOffset = BlockKernel::kOffset;
    const std::byte* units;
    int64_t group_bytes;
    const std::byte* block;

    PARE_INLINE void enter(int64_t b) { block = units + b * (kBlockUnits * kUnitBytes); }
    PARE_INLINE const std::byte* unit_at(int g, int unit) const { return block + g * group_bytes + unit * kUnitBytes; }
    /// Codes as they lie there.
    struct Codes {
      const std::byte* at;
    };
    template <int kStep>
    PARE_INLINE Codes load(int g, int chunk) const {
      return {unit_at(g, chunk * kChunkUnits + kStep / kUnitSteps) + kCodesOffset};
    }
    template <int kStep>
    static PARE_INLINE Bytes codes(const Codes& v) {
      return E::load(v.at + kStep % kUnitSteps * kStepBytes);
    }
    PARE_INLINE V scale(int g, int unit) const { return P::load(reinterpret_cast<const float*>(unit_at(g, unit))); }
    PARE_INLINE V min(int g, int unit) const {
      return P::load(reinterpret_cast<const float*>(unit_at(g, unit)) + kInterleavedRows);
    }
  };

  /// Unpacks `blocks` blocks for Panels (see multiply_panels).
  template <class Panels>
  static void expand(Packed<1> packed, int64_t blocks, std::byte* to) {
    for (int64_t b = 0; b < blocks; ++b) {
      packed.enter(b);
      for (int chunk = 0; chunk < kChunks; ++chunk, to += kChunkUnits * kUnitBytes) {
#pragma GCC unroll 2
        for (int part = 0; part < kChunkUnits; ++part) {
          auto* scales = reinterpret_cast<float*>(to + part * kUnitBytes);
          P::store(scales, packed.scale(0, chunk * kChunkUnits + part));
          if constexpr (kLayout.has_min) P::store(scales + kInterleavedRows, packed.min(0, chunk * kChunkUnits + part));
        }
        unrolled<kBlock / kStepColumns / kVectorSteps>([&](auto vector) __attribute__((always_inline)) {
          constexpr int kFirst = decltype(vector)::value * kVectorSteps;
          const Vectors v = packed.template load<kFirst>(0, chunk);
          unrolled<kVectorSteps>([&](auto step) __attribute__((always_inline)) {
            constexpr int kStep = kFirst + decltype(step)::value;
            E::store(to + kStep / kUnitSteps * kUnitBytes + kCodesOffset + kStep % kUnitSteps * kStepBytes,
                     Panels::stored(codes<kStep>(v)));
          });
        });
      }
    }
  }

  /// Sums of part kPart of a chunk of 32 columns: of a unit.
  template <int kPart, int G, int C, class Units, class Activations>
  static PARE_INLINE void sum_unit(const Units& units, int chunk, const Activations& activations,
                                   typename Units::Sum (&sum)[G][C]) {
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      if constexpr (Units::kOffset == 0) {
#pragma GCC unroll 8
        for (int g = 0; g < G; ++g) sum[g][c].clear();
      } else {
        const Int8Block& x = activations(c);
        sum[0][c].template begin<log2_of(Units::kOffset)>(kChunkUnits == 1 ? x.minus_sum : x.minus_half_sum[kPart]);
#pragma GCC unroll 8
        for (int g = 1; g < G; ++g) sum[g][c] = sum[0][c];
      }
    }
    unrolled<kUnitSteps / kVectorSteps>([&](auto vector) __attribute__((always_inline)) {
      constexpr int kFirst = decltype(vector)::value * kVectorSteps;
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) {
        const auto v = units.template load<kPart * kUnitSteps + kFirst>(g, chunk);
        unrolled<kVectorSteps>([&](auto step) __attribute__((always_inline)) {
          constexpr int kUnitStep = kFirst + decltype(step)::value, kStep = kPart * kUnitSteps + kUnitStep;
          const Bytes w = Units::template codes<kStep>(v);
#pragma GCC unroll 8
          for (int c = 0; c < C; ++c) sum[g][c].template add<kUnitStep>(w, activations(c).codes + kStepColumns * kStep);
        });
      }
    });
  }

  /// Part kPart of a chunk of 32 columns: a unit.
  template <int kPart, int G, int C, class Units, class Activations>
  static PARE_INLINE void unit(const Units& units, int chunk, const Activations& activations, V (&total)[G][C]) {
    constexpr bool kWhole = kChunkUnits == 1;
    typename Units::Sum sum[G][C];
    sum_unit<kPart>(units, chunk, activations, sum);
    const int unit = chunk * kChunkUnits + kPart;
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
      const V scale = units.scale(g, unit);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c)
        total[g][c] = P::fma(sum[g][c].floats(), P::mul(scale, P::set1(activations(c).scale)), total[g][c]);
      if constexpr (kLayout.has_min) {
        const V min = units.min(g, unit);
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
          const Int8Block& x = activations(c);
          total[g][c] = P::fma(min, P::set1(kWhole ? x.weighted_sum : x.weighted_half_sum[kPart]), total[g][c]);
        }
      }
    }
  }

  /// Where a tile's sums go: 16 of each group at output[c][g * 16], of the last group `lanes`. Unless this is the
  /// first part of the columns, they go on from what stands there.
  struct Sums {
    float* output;
    int64_t stride;  // floats
    int lanes;
    bool first;

    /// Those of an activation row.
    PARE_INLINE Sums row(int c) const { return {output + c * stride, stride, lanes, first}; }
    template <int G, int C>
    PARE_INLINE void load(V (&total)[G][C]) const {
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c)
#pragma GCC unroll 8
        for (int g = 0; g < G; ++g) {
          const float* from = output + c * stride + g * kInterleavedRows;
          if (first) {
            total[g][c] = P::zero();
          } else if (g < G - 1 || lanes == kInterleavedRows) {
            total[g][c] = P::load(from);
          } else {
            alignas(64) float last[kInterleavedRows] = {};
            std::memcpy(last, from, static_cast<size_t>(lanes) * 4);
            total[g][c] = P::load(last);
          }
        }
    }
    template <int G, int C>
    PARE_INLINE void store(const V (&total)[G][C]) const {
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c)
#pragma GCC unroll 8
        for (int g = 0; g < G; ++g) {
          float* to = output + c * stride + g * kInterleavedRows;
          if (g < G - 1 || lanes == kInterleavedRows) {
            P::store(to, total[g][c]);
          } else {
            alignas(64) float last[kInterleavedRows];
            P::store(last, total[g][c]);
            std::memcpy(to, last, static_cast<size_t>(lanes) * 4);
          }
        }
    }
  };

  /// G groups of 16 weight rows x C activation rows, `blocks` blocks of them.
  template <int G, int C, class Units, class Ahead>
  static void tile(Units units, const Ahead& ahead, const std::byte* input, int64_t input_stride, int64_t blocks,
                   const Sums& sums) {
    V total[G][C];
    sums.load(total);
    for (int64_t b = 0; b < blocks; ++b) {
      units.enter(b);
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        const std::byte* x = input + (b * kChunks + chunk) * static_cast<int64_t>(sizeof(Int8Block));
        const auto activations = [&](int c) __attribute__((always_inline))->const Int8Block& {
          return *reinterpret_cast<const Int8Block*>(x + c * input_stride);
        };
        ahead.template ask<kChunkBytes>((b * kChunks + chunk) * kChunkBytes);
        unrolled<kChunkUnits>([&](auto part) __attribute__((always_inline)) {
          unit<decltype(part)::value>(units, chunk, activations, total);
        });
      }
    }
    sums.store(total);
  }

  /// tile for a number of activation rows from 1 to C.
  template <int G, int C, class Units, class Ahead>
  static PARE_INLINE void tile_of(int count, const Units& units, const Ahead& ahead, const std::byte* input,
                                  int64_t input_stride, int64_t blocks, const Sums& sums) {
    if constexpr (C > 1) {
      if (count < C) return tile_of<G, C - 1>(count, units, ahead, input, input_stride, blocks, sums);
    }
    tile<G, C>(units, ahead, input, input_stride, blocks, sums);
  }

  /// Of the rows [row, row_end): 16, or what is left in the last of G groups.
  static int lanes_of(int64_t rows, int groups) {
    const int64_t last = rows - (groups - 1) * kInterleavedRows;
    return static_cast<int>(last < kInterleavedRows ? last : kInterleavedRows);
  }

  template <int G, int C>
  static void packed_tiles(const MultiplyArgs& a) {
    const int64_t blocks = a.columns / kForm.columns, group_bytes = kLayout.group_bytes(blocks);
    for_tiles<G, C>(
        a, a.row_begin, kInterleavedRows, group_bytes, [&](int64_t row, int64_t i, int count, const auto& ahead) {
          constexpr int kGroups = std::decay_t<decltype(ahead)>::kCount;
          const Packed<kGroups> units(a, row, blocks);
          tile_of<kGroups, C>(
              count, units, ahead, a.input + i * a.input_stride, a.input_stride, blocks,
              {a.output + i * a.output_stride + row, a.output_stride, lanes_of(a.row_end - row, kGroups), true});
        });
  }
  static void multiply_one_stream(const MultiplyArgs& a) { packed_tiles<1, 1>(a); }
  /// Few activation rows: weights are unpacked for each tile of them, as they come from memory. A single one leaves
  /// registers for more groups.
  static void multiply_packed(const MultiplyArgs& a) {
    a.input_rows == 1 ? packed_tiles<P::kBlockRowGroups, 1>(a) : packed_tiles<P::kBlockGroups, P::kBlockInputs>(a);
  }

  /// A part of the product whose activations stay in the second-level cache.
  struct Part {
    int64_t block, blocks;  // of the weights' columns
    int64_t input, inputs;  // activation rows

    /// From the part's first column on.
    const std::byte* activations(const MultiplyArgs& a, int64_t i) const {
      return a.input + (input + i) * a.input_stride + block * kChunks * static_cast<int64_t>(sizeof(Int8Block));
    }
    Sums sums(const MultiplyArgs& a, int64_t i, int64_t row, int groups) const {
      return {a.output + (input + i) * a.output_stride + row, a.output_stride, lanes_of(a.row_end - row, groups),
              block == 0};
    }
  };

  /// Groups of 16 rows from `row` on, unpacked `bytes` apart, and what the next panel is unpacked from, if any.
  struct PanelGroups {
    int64_t row;
    int groups;
    const std::byte* panel;
    int64_t bytes;
    const std::byte* next;
    int64_t group_bytes;
  };

  /// Panels whose products are summed in vector registers.
  struct RegisterPanels {
    static constexpr int kGroups = P::kBlockGroups;
    static constexpr int64_t kColumns = P::kBlockPanelColumns, kInputs = P::kBlockPanelInputRows;
    static PARE_INLINE Bytes stored(Bytes codes) { return codes; }
    template <int G>
    static void multiply(const MultiplyArgs& a, const Part& part, const PanelGroups& p) {
      constexpr int kTileInputs = P::kBlockInputs;
      const int64_t tiles = (part.inputs + kTileInputs - 1) / kTileInputs;
      for (int64_t t = 0; t < tiles; ++t) {
        // Tiles of nearly the same size: a small last one would cost as much as a whole one.
        const int64_t i = part.inputs * t / tiles;
        const auto count = static_cast<int>(part.inputs * (t + 1) / tiles - i);
        const auto ahead =
            PanelAhead<G>::template of<kChunkBytes>(p.next, p.group_bytes, part.blocks * kChunks, t, tiles);
        tile_of<G, kTileInputs>(count, Panel<G>{p.panel, p.bytes, nullptr}, ahead, part.activations(a, i),
                                a.input_stride, part.blocks, part.sums(a, i, p.row, G));
      }
    }
    static void multiply(const MultiplyArgs& a, const Part& part, const PanelGroups& p) {
      if (p.groups == kGroups) return multiply<kGroups>(a, part, p);
      for (int g = 0; g < p.groups; ++g)
        multiply<1>(a, part, {p.row + g * kInterleavedRows, 1, p.panel + g * p.bytes, p.bytes, nullptr, 0});
    }
    static void end() {}
  };

  /// Many activation rows: a panel of weights is unpacked once for all of a part. Panels holds the most groups of 16
  /// rows in a panel, kGroups, and the most of a part, kColumns and kInputs; stored(codes), how a panel holds them;
  /// multiply(a, part, panel); and end(), called after the last.
  template <class Panels>
  static void multiply_panels(const MultiplyArgs& a) {
    constexpr int kGroups = Panels::kGroups;
    constexpr int64_t kMostBlocks = Panels::kColumns / kForm.columns, kMostInputs = Panels::kInputs;
    const int64_t all_blocks = a.columns / kForm.columns, group_bytes = kLayout.group_bytes(all_blocks);
    const int64_t panel_bytes = kMostBlocks * kBlockUnits * kUnitBytes;
    auto* panel = static_cast<std::byte*>(thread_scratch(kGroups * panel_bytes));
    for (int64_t block = 0; block < all_blocks; block += kMostBlocks) {
      const int64_t blocks = all_blocks - block < kMostBlocks ? all_blocks - block : kMostBlocks;
      for (int64_t input = 0; input < a.input_rows; input += kMostInputs) {
        const int64_t inputs = a.input_rows - input < kMostInputs ? a.input_rows - input : kMostInputs;
        for (int64_t row = a.row_begin; row < a.row_end; row += kGroups * kInterleavedRows) {
          const int64_t left = (a.row_end - row + kInterleavedRows - 1) / kInterleavedRows;
          const auto groups = static_cast<int>(left < kGroups ? left : kGroups);
          const Packed<1> packed(a, row, all_blocks, block);
          const std::byte* next = left >= 2 * kGroups ? packed.block + kGroups * group_bytes : nullptr;
          for (int g = 0; g < groups; ++g)
            expand<Panels>(Packed<1>(a, row + g * kInterleavedRows, all_blocks, block), blocks,
                           panel + g * panel_bytes);
          Panels::multiply(a, {block, blocks, input, inputs}, {row, groups, panel, panel_bytes, next, group_bytes});
        }
      }
    }
    Panels::end();
  }

  static void multiply(const MultiplyArgs& a) {
    if (a.input_rows < P::kBlockPanelInputs)
      multiply_packed(a);
    else
      multiply_panels<RegisterPanels>(a);
  }

  static int64_t packed_bytes(int64_t rows, int64_t columns) { return packed_bytes_blocks(kLayout, rows, columns); }
  static void pack(const TensorView& from, int64_t row_begin, int64_t row_end, std::byte* packed) {
    pack_blocks(kLayout, from, row_begin, row_end, packed);
  }
  static void unpack_row(const std::byte* packed, int64_t rows, int64_t columns, int64_t row, float* to) {
    unpack_row_blocks(kForm, kLayout, packed, rows, columns, row, to);
  }
  static constexpr Packing packing(const char* isa) {
    return {.source = kType,
            .isa = isa,
            .row_group = kInterleavedRows,
            .input = InputFormat::kInt8Block,
            .packed_bytes = packed_bytes,
            .pack = pack,
            .unpack_row = unpack_row,
            .multiply = multiply,
            .multiply_one_stream = P::kBlockRowGroups > 1 ? multiply_one_stream : nullptr,
            .panel_inputs = P::kBlockPanelInputs,
            .panel_rows = RegisterPanels::kGroups * kInterleavedRows,
            .panel_input_rows = RegisterPanels::kInputs};
  }
};

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

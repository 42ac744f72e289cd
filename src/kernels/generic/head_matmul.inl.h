#pragma once
#include "kernels/generic/block_matmul.inl.h"
#include "kernels/head.h"

// Bounds of logits by the leading bits of an output matrix's codes (see head.h), beside its products.

namespace pare::kernels {
namespace {

template <class E, DType kType, int kRest>
struct HeadKernel : BlockKernel<E, kType, kRest> {
  using Block = BlockKernel<E, kType, kRest>;
  using P = typename Block::P;
  using V = typename Block::V;
  using Bytes = typename Block::Bytes;
  using Vectors = typename Block::Vectors;
  using Block::kBlockUnits, Block::kChunks, Block::kChunkBytes, Block::kChunkUnits, Block::kForm, Block::kLayout,
      Block::kUnitSteps;
  template <int G>
  using Packed = typename Block::template Packed<G>;

  /// The units of Packed by the leading bits of their codes alone.
  template <int G>
  struct Leading : Packed<G> {
    static constexpr int kLargest = (1 << (kForm.code_bits - kRest)) - 1, kOffset = kForm.offset >> kRest;
    using Sum = typename E::template Sum<false, kLargest, kUnitSteps>;
    using Packed<G>::Packed;
    template <int kStep>
    PARE_INLINE Vectors load(int g, int chunk) const {
      return Block::template load<kStep, false>(this->block + g * this->group_bytes, nullptr, chunk);
    }
    template <int kStep>
    static PARE_INLINE Bytes codes(const Vectors& v) {
      return Block::template leading<kStep, 0>(v);
    }
  };

  /// The middle of what logits of a lane's row can be, and how far from it.
  struct Range {
    V middle, radius;

    /// Adds `scale` times a range, whose radius is positive.
    PARE_INLINE void add(V scale, V more_middle, V more_radius) {
      middle = P::fma(scale, more_middle, middle);
      radius = P::fma(P::magnitude(scale), more_radius, radius);
    }
  };

  /// The most that logits of rows in G groups can be: [G * 16] at `to`.
  template <int G, class Ahead>
  static void bound_tile(Leading<G> units, const Ahead& ahead, const std::byte* input, const UnitBounds* bounds,
                         int64_t blocks, V slack, float* to) {
    constexpr bool kUnitScales = kLayout.scale_bytes > 0;
    Range total[G];
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) total[g] = {P::zero(), P::zero()};
    for (int64_t b = 0; b < blocks; ++b) {
      units.enter(b);
      Range of_block[G];
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) of_block[g] = {P::zero(), P::zero()};
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        const std::byte* x = input + (b * kChunks + chunk) * static_cast<int64_t>(sizeof(Int8Block));
        const auto activations = [&](int) __attribute__((always_inline))->const Int8Block& {
          return *reinterpret_cast<const Int8Block*>(x);
        };
        ahead.template ask<kChunkBytes>((b * kChunks + chunk) * kChunkBytes);
        unrolled<kChunkUnits>([&](auto part) __attribute__((always_inline)) {
          constexpr int kPart = decltype(part)::value;
          typename Leading<G>::Sum sum[G][1];
          Block::template sum_unit<kPart>(units, chunk, activations, sum);
          const int unit = chunk * kChunkUnits + kPart;
          const UnitBounds& bound = bounds[b * kBlockUnits + unit];
          const V scale = P::set1(bound.scale), middle = P::set1(bound.middle), radius = P::set1(bound.radius);
#pragma GCC unroll 8
          for (int g = 0; g < G; ++g) {
            const V here = P::fma(sum[g][0].floats(), scale, middle);
            if constexpr (kUnitScales) {
              of_block[g].add(units.unit_scale(g, unit), here, radius);
            } else {
              total[g].add(units.d[g], here, radius);
            }
          }
        });
      }
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g)
        if constexpr (kUnitScales) total[g].add(units.d[g], of_block[g].middle, of_block[g].radius);
    }
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
      const V most = P::add(P::fma(total[g].radius, slack, total[g].middle), P::set1(kLeastSlack));
      // What is no number bounds nothing, nor does what overflowed: either becomes a NaN here, and that infinity.
      P::store(to + g * kInterleavedRows, P::min(P::add(most, P::sub(most, most)), P::set1(__builtin_inff())));
    }
  }

  template <int G>
  static void bound_tiles(const BoundArgs& a) {
    const int64_t blocks = a.of.columns / kForm.columns;
    const V slack = P::set1(bound_slack(kForm, kRest, a.of.columns));
    for_tiles<G, 1>(a.of, a.of.row_begin, kInterleavedRows, kLayout.group_bytes(blocks),
                    [&](int64_t row, int64_t, int, const auto& ahead) {
                      constexpr int kGroups = std::decay_t<decltype(ahead)>::kCount;
                      float most[kGroups * kInterleavedRows];
                      bound_tile(Leading<kGroups>(a.of, row, blocks), ahead, a.of.input, a.units, blocks, slack, most);
                      for (int g = 0; g < kGroups; ++g)
                        a.most[row / kInterleavedRows + g] = P::fold_max(P::load(most + g * kInterleavedRows));
                    });
  }
  static void bound(const BoundArgs& a) { bound_tiles<P::kBlockRowGroups>(a); }
  static void bound_one_stream(const BoundArgs& a) { bound_tiles<1>(a); }
  static void bound_units(const std::byte* input, int64_t columns, UnitBounds* to) {
    prepare_unit_bounds(kForm, kRest, input, columns, to);
  }
  static int64_t leading_bytes(int64_t rows, int64_t columns) {
    const int64_t groups = (rows + kInterleavedRows - 1) / kInterleavedRows;
    return groups * kLayout.group_bytes(columns / kForm.columns);
  }
  static constexpr HeadBounds kBounds{leading_bytes, bound_units, bound, bound_one_stream};
};

/// A packing of each type whose codes can be split, in the order of split_codes().
struct HeadPackings {
  Packing all[split_codes().size()];
};
template <class E, int... kIndex>
constexpr HeadPackings head_packings(const char* isa, std::integer_sequence<int, kIndex...>) {
  return {{[&] {
    constexpr SplitCode kSplit = split_codes()[kIndex];
    using Kernel = HeadKernel<E, kSplit.type, kSplit.rest_bits>;
    Packing packing = Kernel::packing(isa);
    packing.layout = kSplit.layout;
    packing.bounds = &Kernel::kBounds;
    return packing;
  }()...}};
}
template <class E>
constexpr HeadPackings head_packings(const char* isa) {
  return head_packings<E>(isa, std::make_integer_sequence<int, split_codes().size()>());
}

}  // namespace
}  // namespace pare::kernels

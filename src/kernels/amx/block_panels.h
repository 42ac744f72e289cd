#pragma once
#include <cstddef>

#include "kernels/amx/tiles.h"
#include "kernels/generic/block_matmul.inl.h"

namespace pare::kernels {
namespace {

/// Panels of a block type whose units are summed by AMX tiles: 16 activation rows of a unit's columns, as they lie in
/// their blocks, times the unit as it lies in a panel (a row of that tile is a step: 4 columns of each of 16 weight
/// rows), both signed. Vector registers scale the sums of one unit while tiles sum the next ones.
template <class Kernel>
struct AmxBlockPanels {
  using P = typename Kernel::P;
  using V = typename Kernel::V;
  using Sums = typename Kernel::Sums;
  static constexpr int kGroups = 4;
  static constexpr int64_t kColumns = 2048, kInputs = 256;
  static constexpr int kRows = 16, kSumBytes = 64, kUnitSums = kRows * kInterleavedRows;
  static_assert(Kernel::kForm.unit == kBlock, "a tile of half as many columns takes as long");
  /// Sums under way, each with tiles and memory of its own.
  static constexpr int kSlots = 4, kAhead = 2;

  static PARE_INLINE __m512i stored(__m512i codes) {
    return _mm512_sub_epi8(codes, _mm512_set1_epi8(static_cast<char>(Kernel::kOffset)));
  }
  static void end() { _tile_release(); }

  // Tiles 0 to 3: sums; 4 and 5: activations; 6 and 7: weights.
  static void begin(int rows) {
    TileConfig config;
    for (int t = 0; t < kSlots; ++t) config.set(t, rows, kSumBytes);
    for (int t = 0; t < 2; ++t) {
      config.set(4 + t, rows, kBlock);
      config.set(6 + t, kBlock / kStepColumns, kStepBytes);
    }
    use(config);
  }

  /// Sums of a unit, by the tiles of a slot; tiles are named by literals.
  template <int kSlot>
  static PARE_INLINE void sum_unit(const std::byte* codes, size_t stride, const std::byte* weights, int32_t* sums) {
#define PARE_SUM_UNIT(sum, input, weight)   \
  _tile_zero(sum);                          \
  _tile_loadd(weight, weights, kStepBytes); \
  _tile_loadd(input, codes, stride);        \
  _tile_dpbssd(sum, input, weight);         \
  _tile_stored(sum, sums, kSumBytes)
    if constexpr (kSlot == 0) {
      PARE_SUM_UNIT(0, 4, 6);
    } else if constexpr (kSlot == 1) {
      PARE_SUM_UNIT(1, 5, 7);
    } else if constexpr (kSlot == 2) {
      PARE_SUM_UNIT(2, 4, 6);
    } else {
      PARE_SUM_UNIT(3, 5, 7);
    }
#undef PARE_SUM_UNIT
  }

  /// Where activation rows lie: all 16, or fewer, of which the last stands for those that are not there.
  struct WholeRows {
    const std::byte* quarters[4];
    int64_t stride;
    PARE_INLINE WholeRows(const std::byte* x, int64_t x_stride, int) : stride(x_stride) {
      for (int q = 0; q < 4; ++q) quarters[q] = x + q * 4 * stride;
    }
    PARE_INLINE const Int8Block& at(int c, int64_t offset) const {
      return *reinterpret_cast<const Int8Block*>(quarters[c / 4] + offset + c % 4 * stride);
    }
  };
  struct SomeRows {
    const std::byte* rows[kRows];
    PARE_INLINE SomeRows(const std::byte* x, int64_t x_stride, int count) {
      for (int c = 0; c < kRows; ++c) rows[c] = x + (c < count ? c : count - 1) * x_stride;
    }
    PARE_INLINE const Int8Block& at(int c, int64_t offset) const {
      return *reinterpret_cast<const Int8Block*>(rows[c] + offset);
    }
  };

  /// `count` units of a group and the activation rows that they are multiplied with; and the units that come after
  /// them, of the next group, which are begun before these are done.
  template <class Rows>
  struct Units {
    const std::byte *units, *after;
    int64_t count;
    const std::byte* x;
    int64_t stride;
    Rows rows;
    int32_t (&sums)[kSlots][kUnitSums];

    static PARE_INLINE int64_t offset(int64_t u) { return u * static_cast<int64_t>(sizeof(Int8Block)); }
    template <int kSlot>
    PARE_INLINE void begin(int64_t u) const {
      const std::byte* unit = units + u * Kernel::kUnitBytes;
      if (u >= count) {
        if (!after) return;
        u -= count;
        unit = after + u * Kernel::kUnitBytes;
      }
      sum_unit<kSlot>(x + offset(u), static_cast<size_t>(stride), unit + Kernel::kCodesOffset, sums[kSlot]);
    }
    /// total[c] += the scaled sums of a unit.
    template <int kSlot>
    PARE_INLINE void add(int64_t u, V (&total)[kRows]) const {
      const auto* scales = reinterpret_cast<const float*>(units + u * Kernel::kUnitBytes);
      const V scale = P::load(scales);
#pragma GCC unroll 16
      for (int c = 0; c < kRows; ++c) {
        const V sum = _mm512_cvtepi32_ps(_mm512_load_si512(sums[kSlot] + c * kInterleavedRows));
        const Int8Block& block = rows.at(c, offset(u));
        total[c] = P::fma(sum, P::mul(scale, P::set1(block.scale)), total[c]);
        if constexpr (Kernel::kLayout.has_min)
          total[c] = P::fma(P::load(scales + kInterleavedRows), P::set1(block.weighted_sum), total[c]);
      }
    }
    /// Unit u, of whose kSlots units this is number kSlot; those after it are under way.
    template <int kSlot>
    PARE_INLINE void step(int64_t u, V (&total)[kRows]) const {
      begin<(kSlot + kAhead) % kSlots>(u + kAhead);
      add<kSlot>(u, total);
    }
  };

  template <class Rows>
  static PARE_INLINE void tile(const Units<Rows>& all, int rows, const Sums& sums) {
    constexpr bool kWhole = std::is_same_v<Rows, WholeRows>;
    V total[kRows];
#pragma GCC unroll 16
    for (int c = 0; c < kRows; ++c) {
      V one[1][1] = {{P::zero()}};
      if (kWhole || c < rows) sums.row(c).load(one);
      total[c] = one[0][0];
    }
    int64_t u = 0;
    for (; u + kSlots <= all.count; u += kSlots) {
      all.template step<0>(u, total);
      all.template step<1>(u + 1, total);
      all.template step<2>(u + 2, total);
      all.template step<3>(u + 3, total);
    }
    if (u < all.count) all.template step<0>(u, total);
    if (u + 1 < all.count) all.template step<1>(u + 1, total);
    if (u + 2 < all.count) all.template step<2>(u + 2, total);
#pragma GCC unroll 16
    for (int c = 0; c < kRows; ++c) {
      const V one[1][1] = {{total[c]}};
      if (kWhole || c < rows) sums.row(c).store(one);
    }
  }

  /// `count` units of each group of a panel with `rows` activation rows from `i` on.
  template <class Rows>
  static void tiles(const MultiplyArgs& a, const typename Kernel::Part& part, int64_t i, int rows, int64_t count,
                    const typename Kernel::PanelGroups& p) {
    const std::byte* x = part.activations(a, i);
    alignas(64) int32_t buffers[kSlots][kUnitSums];
    for (int g = 0; g < p.groups; ++g) {
      // Slots go on from group to group where they come out even.
      const bool even = count % kSlots == 0;
      const std::byte* units = p.panel + g * p.bytes;
      const std::byte* after = even && g + 1 < p.groups ? units + p.bytes : nullptr;
      const Units<Rows> all{units, after, count, x, a.input_stride, Rows(x, a.input_stride, rows), buffers};
      if (g == 0 || !even) {
        all.template begin<0>(0);
        all.template begin<1>(1);
      }
      if (p.next) {
        const int64_t share = part.blocks * Kernel::kLayout.bytes() * kRows / part.inputs;
        ask_for(p.next + g * p.group_bytes + i / kRows * share, share);
      }
      tile(all, rows, part.sums(a, i, p.row + g * kInterleavedRows, 1));
    }
  }

  static void multiply(const MultiplyArgs& a, const typename Kernel::Part& part,
                       const typename Kernel::PanelGroups& p) {
    tiles_see_memory();
    const int64_t units = part.blocks * Kernel::kBlockUnits;
    int configured = 0;
    for (int64_t i = 0; i < part.inputs; i += kRows) {
      const int rows = part.inputs - i < kRows ? static_cast<int>(part.inputs - i) : kRows;
      if (rows != configured) begin(configured = rows);
      rows == kRows ? tiles<WholeRows>(a, part, i, rows, units, p) : tiles<SomeRows>(a, part, i, rows, units, p);
    }
  }
};

}  // namespace
}  // namespace pare::kernels

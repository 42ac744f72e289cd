#pragma once
#include <cstring>

#include "kernels/generic/ternary_matmul.inl.h"
#include "kernels/lut.h"

// Products of ternary weights by table lookups (see lut.h). An engine L of lookups has
//   Rows: a signed byte for each of 32 weight rows; load(p), low(v), high(v): the indices in either half of each byte;
//   Table table(p): 16 bytes at p; find(table, indices); set1(x), add(a, b), store(p, v);
//   twice(v); add_signed(sum, v, sign): sum + v, or sum - v where the sign's top bit is set; no byte of sign is zero;
//   Sums: int16 sums of 32 rows; clear(), add(high, low): 32 * high + low of each; add_to(int32_t* totals);
//   kGroups: groups of 32 rows that share what is loaded of the tables.
// An engine E of products (ternary_matmul.inl.h) serves many activation rows.

namespace pare::kernels {
namespace {

/// Calls visit(index of the lookup, Rows index[G], Rows sign[G]) for the lookups of one unit of a strip of G groups.
template <class L, class Layout, int kUnit, int G, class Visit>
PARE_INLINE void each_lookup(const std::byte* strip, int64_t stride, Visit visit) {
  using Rows = typename L::Rows;
  constexpr int kLookups = Layout::kUnitLookups;
  Rows sign[G], pair[G], index[G];
  if constexpr (Layout::kSigned) {
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) sign[g] = L::load(strip + g * stride + (kLookups + kUnit) * kLookupRows);
  }
  unrolled<kLookups>([&](auto lookup) __attribute__((always_inline)) {
    constexpr int kLookup = decltype(lookup)::value, kOfStrip = kUnit * kLookups + kLookup;
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
      if constexpr (kLookup == 0 || kOfStrip % 2 == 0)
        pair[g] = L::load(strip + g * stride + kOfStrip / 2 * kLookupRows);
      index[g] = kOfStrip % 2 == 0 ? L::low(pair[g]) : L::high(pair[g]);
      if constexpr (Layout::kSigned && kLookup > 0) sign[g] = L::twice(sign[g]);
    }
    visit(lookup, index, sign);
  });
}

/// Adds a unit's lookups to sum[g].
template <class L, class Layout, int kUnit, int G>
PARE_INLINE void add_unit(const std::byte* strip, int64_t stride, const std::byte* tables, typename L::Sums (&sum)[G]) {
  using Rows = typename L::Rows;
  Rows high[G], low[G];
  each_lookup<L, Layout, kUnit, G>(
      strip, stride, [&](auto lookup, const Rows(&index)[G], const Rows(&sign)[G]) __attribute__((always_inline)) {
        constexpr int kLookup = decltype(lookup)::value;
        const std::byte* entries = tables + (kUnit * Layout::kUnitLookups + kLookup) * 2 * kLookupEntries;
        const auto high_table = L::table(entries), low_table = L::table(entries + kLookupEntries);
#pragma GCC unroll 8
        for (int g = 0; g < G; ++g) {
          const Rows h = L::find(high_table, index[g]), l = L::find(low_table, index[g]);
          if constexpr (Layout::kSigned) {
            high[g] = L::add_signed(kLookup == 0 ? L::set1(0) : high[g], h, sign[g]);
            low[g] = L::add_signed(kLookup == 0 ? L::set1(0) : low[g], l, sign[g]);
          } else {
            high[g] = kLookup == 0 ? h : L::add(high[g], h);
            low[g] = kLookup == 0 ? l : L::add(low[g], l);
          }
        }
      });
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g) sum[g].add(high[g], low[g]);
}

template <class L, class E, class Layout>
struct LutKernel {
  using Panels = RegisterTiles<E>;
  using Bytes = TernaryKernel<E, TernaryBytes>;
  static constexpr int kGroups = L::kGroups;
  /// Activation rows from which a panel pays, though its weights take longer to unpack than those of i2.
  static constexpr int64_t kPanelInputs = 12;
  static constexpr LookupWeights kWeights = lookup_weights<Layout>();
  static constexpr int64_t kStripTables = int64_t{kLutStripLookups<Layout>} * 2 * kLookupEntries;
  /// Strips whose lookups add up in int16.
  static constexpr int64_t kRoom = 32767 / (127 * kLutStripColumns<Layout>);

  static PARE_INLINE int64_t stride(const MultiplyArgs& a) {
    return lut_strips<Layout>(a.columns) * kLutStripBytes<Layout>;
  }

  /// G groups from `row` on times activation row i.
  template <int G>
  static void tile(const MultiplyArgs& a, int64_t row, int64_t i, const TileAhead<G>& ahead) {
    const int64_t strips = lut_strips<Layout>(a.columns), between = stride(a);
    const std::byte* weights = a.weights + row / kLookupRows * between;
    const std::byte* tables = a.input + i * a.input_stride + input_row_bytes_int8_row(a.columns);
    alignas(64) int32_t totals[G][kLookupRows] = {};
    for (int64_t first = 0; first < strips; first += kRoom) {
      typename L::Sums sum[G];
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) sum[g].clear();
      const int64_t end = first + kRoom < strips ? first + kRoom : strips;
      for (int64_t strip = first; strip < end; ++strip) {
        ahead.template ask<kLutStripBytes<Layout>>(strip * kLutStripBytes<Layout>);
        const std::byte* at = weights + strip * kLutStripBytes<Layout>;
        add_unit<L, Layout, 0, G>(at, between, tables + strip * kStripTables, sum);
        add_unit<L, Layout, 1, G>(at, between, tables + strip * kStripTables, sum);
      }
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) sum[g].add_to(totals[g]);
    }
    for (int half = 0; half < 2 * G; ++half) {
      const int64_t to = row + half * kInterleavedRows;
      if (to >= a.row_end) return;
      TernarySum<E, TernaryBytes> sum;
      sum.restore(totals[0] + half * kInterleavedRows);
      Bytes::finish(a, i, to, sum);
    }
  }

  static void multiply_lookups(const MultiplyArgs& a) {
    for_tiles<kGroups, 1>(a, a.row_begin, kLookupRows, stride(a),
                          [&](int64_t row, int64_t i, int, const auto& ahead) { tile(a, row, i, ahead); });
  }

  /// Codes w + 1 of one unit of a strip, [kUnitLookups * kColumns][32].
  template <int kUnit>
  static PARE_INLINE void decode_unit(const std::byte* strip, std::byte* codes) {
    using Rows = typename L::Rows;
    each_lookup<L, Layout, kUnit, 1>(
        strip, 0, [&](auto, const Rows(&index)[1], const Rows(&sign)[1]) __attribute__((always_inline)) {
          for (int c = 0; c < Layout::kColumns; ++c, codes += kLookupRows) {
            const Rows w = L::find(L::table(reinterpret_cast<const std::byte*>(kWeights.weight[c])), index[0]);
            if constexpr (Layout::kSigned)
              L::store(codes, L::add_signed(L::set1(1), w, sign[0]));
            else
              L::store(codes, L::add(L::set1(1), w));
          }
        });
  }

  /// What TernaryKernel::multiply_panels wants of expand_groups.
  static void expand(const MultiplyArgs& a, int64_t row, int groups, int64_t k, int64_t columns, std::byte* panel,
                     int64_t panel_stride) {
    constexpr int kColumns = kLutStripColumns<Layout>;
    // From the beginning of the strip that holds column k, and to the end of a step that may be filled up.
    constexpr int64_t kMost = Panels::kColumns + 2 * kColumns + strip_columns<TernaryBytes>();
    alignas(64) std::byte codes[kMost * kLookupRows];
    const int64_t first = k / kColumns, strips = (k + columns + kColumns - 1) / kColumns - first;
    const int64_t steps = strips_of<TernaryBytes>(columns) * TernaryBytes::kStripVectors;
    const std::byte* from = codes + (k - first * kColumns) * kLookupRows;
    for (int g = 0; g < groups; g += 2) {
      const std::byte* strip =
          a.weights + (row + g * kInterleavedRows) / kLookupRows * stride(a) + first * kLutStripBytes<Layout>;
      std::byte* to = codes;
      for (int64_t s = 0; s < strips; ++s, strip += kLutStripBytes<Layout>, to += kColumns * kLookupRows) {
        decode_unit<0>(strip, to);
        decode_unit<1>(strip, to + kColumns / 2 * kLookupRows);
      }
      if (to < from + steps * kStepColumns * kLookupRows)
        std::memset(to, 0, static_cast<size_t>(from + steps * kStepColumns * kLookupRows - to));
      for (int half = 0; half < 2; ++half)
        for (int64_t s = 0; s < steps; ++s) {
          const std::byte* column = from + s * kStepColumns * kLookupRows + half * kInterleavedRows;
          std::byte* bytes = panel + (g + half) * panel_stride + s * kStepBytes;
          for (int r = 0; r < kInterleavedRows; ++r)
            for (int c = 0; c < kStepColumns; ++c) bytes[r * kStepColumns + c] = column[c * kLookupRows + r];
        }
    }
  }

  static void multiply(const MultiplyArgs& a) {
    if (a.input_rows < kPanelInputs) return multiply_lookups(a);
    Bytes::multiply_panels(a, [&](int64_t row, int groups, int64_t k, int64_t columns, std::byte* panel,
                                  int64_t panel_stride) { expand(a, row, groups, k, columns, panel, panel_stride); });
  }
};

template <class L, class E, class Layout>
constexpr Packing lut_packing(const char* layout, const char* isa) {
  return {.source = DType::kTQ2_0,
          .isa = isa,
          .row_group = kLookupRows,
          .input = Layout::kInput,
          .packed_bytes = packed_bytes_lut<Layout>,
          .unpack_row = unpack_row_lut<Layout>,
          .multiply = LutKernel<L, E, Layout>::multiply,
          .layout = layout,
          .pack_codes = pack_lut<Layout>,
          .panel_inputs = LutKernel<L, E, Layout>::kPanelInputs,
          .panel_rows = RegisterTiles<E>::kPanelGroups * kInterleavedRows,
          .panel_input_rows = RegisterTiles<E>::kInputRows,
          .applies_scale = true,
          // Unpacked once for all of them; and their tables would take ten times what their codes do.
          .many_rows = LutKernel<L, E, Layout>::kPanelInputs,
          .many_input = InputFormat::kInt8Row};
}

/// Layout::kInput of one row. Plain loops, as prepare_int8_row.
template <class P, class Layout>
void prepare_lut(const float* row, int64_t columns, std::byte* to) {
  static constexpr LookupWeights kWeights = lookup_weights<Layout>();
  prepare_int8_row<P>(row, columns, to);
  const auto* codes = reinterpret_cast<const int8_t*>(to + sizeof(Int8RowHeader));
  auto* table = reinterpret_cast<int8_t*>(to + input_row_bytes_int8_row(columns));
  const int64_t lookups = lut_strips<Layout>(columns) * kLutStripLookups<Layout>;
  for (int64_t l = 0; l < lookups; ++l, codes += Layout::kColumns, table += 2 * kLookupEntries) {
    int16_t sums[kLookupEntries] = {};
    for (int c = 0; c < Layout::kColumns; ++c) {
      const int16_t code = codes[c];
      for (int i = 0; i < kLookupEntries; ++i)
        sums[i] = static_cast<int16_t>(sums[i] + static_cast<int16_t>(code * kWeights.weight[c][i]));
    }
    for (int i = 0; i < kLookupEntries; ++i) {
      const auto high = static_cast<int16_t>((sums[i] + 16) >> 5);
      table[i] = static_cast<int8_t>(high);
      table[kLookupEntries + i] = static_cast<int8_t>(sums[i] - 32 * high);
    }
  }
}

template <class P, class Layout>
constexpr InputFormatInfo lut_format(const char* name) {
  return {Layout::kInput, name, input_row_bytes_lut<Layout>, prepare_lut<P, Layout>};
}

}  // namespace
}  // namespace pare::kernels

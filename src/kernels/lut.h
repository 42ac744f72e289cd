#pragma once
#include "kernels/ternary.h"

// Ternary weights multiplied by table lookups, as in bitnet.cpp's TL1 and TL2 (arXiv 2502.11880, section 3), for any
// shape and with exact sums: what 2 or 3 neighbouring activation codes add up to under every choice of weights is
// tabulated once a row of activations; a group of weights is an index of 4 bits into its table.
//
// An entry v (|v| <= 3 * 127) is 9 bits and a sign, but a lookup finds bytes. Two bytes of an int16 would have to be
// put together after every lookup. Instead v = 32 * high + low, with low in [-16, 15] and |high| <= 12: so small that
// 7 or 8 of each add up in 8 bits, which only then become int16.

namespace pare::kernels {

/// Weights lie in groups of 32 rows, which a step looks up at once, and in strips of two units of lookups:
///   [kUnitLookups][32] bytes: of each row, the index of lookup 2 v in the low bits, that of lookup 2 v + 1 in the
///   high; [2][32] bytes with kSigned: bit 7 - j is set where the weights of lookup j of a unit are the negated ones of
///   the index; bit 0 is 1, so that the byte is not zero however far it is shifted (vpsignb clears where it is).
/// An index is c0 + 3 c1 + 9 c2 - kZero of its codes, without its sign.
inline constexpr int kLookupRows = 32, kLookupEntries = 16;

/// tl1: 2 columns a lookup, 9 entries: 2 bits a weight. Sums of a unit: high within 8 * 8, low within -8 * 16 .. 8
/// * 15.
struct TernaryTl1 {
  static constexpr int kColumns = 2, kUnitLookups = 8, kZero = 0, kEntries = 9;
  static constexpr bool kSigned = false;
  static constexpr InputFormat kInput = InputFormat::kInt8Pairs;
};
/// tl2: 3 columns a lookup, 27 entries, of which 14 are kept: 1.71 bits a weight. Sums of a unit: high within 7 * 12,
/// low within 7 * 16.
struct TernaryTl2 {
  static constexpr int kColumns = 3, kUnitLookups = 7, kZero = 13, kEntries = 14;
  static constexpr bool kSigned = true;
  static constexpr InputFormat kInput = InputFormat::kInt8Triples;
};

template <class Layout>
inline constexpr int kLutStripLookups = 2 * Layout::kUnitLookups;
template <class Layout>
inline constexpr int kLutStripColumns = kLutStripLookups<Layout> * Layout::kColumns;
template <class Layout>
inline constexpr int kLutStripBytes = (Layout::kUnitLookups + (Layout::kSigned ? 2 : 0)) * kLookupRows;

template <class Layout>
constexpr int64_t lut_strips(int64_t columns) {
  return (columns + kLutStripColumns<Layout> - 1) / kLutStripColumns<Layout>;
}

/// The weights of an index, one array a column.
struct LookupWeights {
  int8_t weight[3][kLookupEntries];
};
template <class Layout>
constexpr LookupWeights lookup_weights() {
  LookupWeights found{};
  for (int i = 0; i < Layout::kEntries; ++i)
    for (int c = 0, rest = i + Layout::kZero; c < Layout::kColumns; ++c, rest /= 3)
      found.weight[c][i] = static_cast<int8_t>(rest % 3 - 1);
  return found;
}

/// InputFormat::kInt8Pairs and kInt8Triples: a row in kInt8Row, then for each lookup of whole strips
/// [kLookupEntries] high and [kLookupEntries] low bytes.
template <class Layout>
int64_t input_row_bytes_lut(int64_t columns);

template <class Layout>
int64_t packed_bytes_lut(int64_t rows, int64_t columns);
template <class Layout>
void pack_lut(const uint8_t* codes, int64_t columns, int64_t row_begin, int64_t row_end, std::byte* packed);
template <class Layout>
void unpack_row_lut(const std::byte* packed, int64_t rows, int64_t columns, int64_t row, float* to);

}  // namespace pare::kernels

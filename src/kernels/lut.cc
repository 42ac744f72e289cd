#include "kernels/lut.h"

#include <algorithm>
#include <cstring>

namespace pare::kernels {
namespace {

template <class Layout>
int64_t lookup_group_bytes(int64_t columns) {
  return lut_strips<Layout>(columns) * kLutStripBytes<Layout>;
}

/// Codes of a strip of one row, to the row's bytes of the strip: `to` and every kLookupRows on.
template <class Layout>
void pack_strip(const uint8_t* codes, uint8_t* to) {
  constexpr int kUnit = Layout::kUnitLookups;
  uint8_t indices[2 * kUnit], signs[2] = {1, 1};
  for (int l = 0; l < 2 * kUnit; ++l) {
    int value = -Layout::kZero;
    for (int c = 0, power = 1; c < Layout::kColumns; ++c, power *= 3) value += power * codes[l * Layout::kColumns + c];
    if (value < 0) signs[l / kUnit] = static_cast<uint8_t>(signs[l / kUnit] | 0x80 >> l % kUnit);
    indices[l] = static_cast<uint8_t>(value < 0 ? -value : value);
  }
  for (int v = 0; v < kUnit; ++v)
    to[v * kLookupRows] = static_cast<uint8_t>((indices[2 * v] & 15) | indices[2 * v + 1] << 4);
  if constexpr (Layout::kSigned)
    for (int u = 0; u < 2; ++u) to[(kUnit + u) * kLookupRows] = signs[u];
}

}  // namespace

template <class Layout>
int64_t input_row_bytes_lut(int64_t columns) {
  return input_row_bytes_int8_row(columns) +
         lut_strips<Layout>(columns) * kLutStripLookups<Layout> * (2 * kLookupEntries);
}

template <class Layout>
int64_t packed_bytes_lut(int64_t rows, int64_t columns) {
  return (rows + kLookupRows - 1) / kLookupRows * lookup_group_bytes<Layout>(columns);
}

template <class Layout>
void pack_lut(const uint8_t* codes, int64_t columns, int64_t row_begin, int64_t row_end, std::byte* packed) {
  constexpr int kColumns = kLutStripColumns<Layout>;
  uint8_t padded[kColumns];
  for (int64_t group = row_begin / kLookupRows; group * kLookupRows < row_end; ++group) {
    std::byte* const to = packed + group * lookup_group_bytes<Layout>(columns);
    for (int r = 0; r < kLookupRows; ++r) {
      const int64_t row = group * kLookupRows + r;
      auto* bytes = reinterpret_cast<uint8_t*>(to) + r;
      for (int64_t k = 0; k < columns; k += kColumns, bytes += kLutStripBytes<Layout>) {
        const int64_t count = row < row_end ? std::min<int64_t>(kColumns, columns - k) : 0;
        const uint8_t* from = codes + (row - row_begin) * columns + k;
        if (count < kColumns) {
          // Zero weights.
          std::memset(padded, 1, sizeof padded);
          if (count > 0) std::memcpy(padded, from, static_cast<size_t>(count));
          from = padded;
        }
        pack_strip<Layout>(from, bytes);
      }
    }
  }
}

template <class Layout>
void unpack_row_lut(const std::byte* packed, int64_t, int64_t columns, int64_t row, float* to) {
  constexpr LookupWeights kWeights = lookup_weights<Layout>();
  constexpr int kUnit = Layout::kUnitLookups;
  const auto* bytes =
      reinterpret_cast<const uint8_t*>(packed + row / kLookupRows * lookup_group_bytes<Layout>(columns)) +
      row % kLookupRows;
  for (int64_t k = 0; k < columns; ++k) {
    const uint8_t* strip = bytes + k / kLutStripColumns<Layout> * kLutStripBytes<Layout>;
    const auto lookup = static_cast<int>(k % kLutStripColumns<Layout> / Layout::kColumns);
    const int index = strip[lookup / 2 * kLookupRows] >> lookup % 2 * 4 & 15;
    const int weight = kWeights.weight[k % Layout::kColumns][index];
    const bool negated =
        Layout::kSigned && (strip[(kUnit + lookup / kUnit) * kLookupRows] << lookup % kUnit & 0x80) != 0;
    to[k] = static_cast<float>(negated ? -weight : weight);
  }
}

#define PARE_LUT_LAYOUT(Layout)                                                          \
  template int64_t input_row_bytes_lut<Layout>(int64_t);                                 \
  template int64_t packed_bytes_lut<Layout>(int64_t, int64_t);                           \
  template void pack_lut<Layout>(const uint8_t*, int64_t, int64_t, int64_t, std::byte*); \
  template void unpack_row_lut<Layout>(const std::byte*, int64_t, int64_t, int64_t, float*);
PARE_LUT_LAYOUT(TernaryTl1)
PARE_LUT_LAYOUT(TernaryTl2)
#undef PARE_LUT_LAYOUT

}  // namespace pare::kernels

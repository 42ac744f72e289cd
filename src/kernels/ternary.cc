#include "kernels/ternary.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/half.h"
#include "kernels/family.h"
#include "kernels/packing.h"

namespace pare::kernels {
namespace {

int64_t groups_of(int64_t rows) { return (rows + kInterleavedRows - 1) / kInterleavedRows; }

/// Four codes of a row, one a byte.
using Four = uint32_t;

// The steps of a strip of 16 rows, [step][row], to its blocks.
void put(TernaryI2, const Four (*steps)[kInterleavedRows], std::byte* to) {
  Four out[TernaryI2::kStripBlocks][kInterleavedRows];
  for (auto& vector : out) {
    for (int r = 0; r < kInterleavedRows; ++r)
      vector[r] = steps[0][r] | steps[1][r] << 2 | steps[2][r] << 4 | steps[3][r] << 6;
    steps += TernaryI2::kVectorSteps;
  }
  std::memcpy(to, out, sizeof out);
}

void put(TernaryT3, const Four (*steps)[kInterleavedRows], std::byte* to) {
  // Codes are at most 2 and indices at most 26: no byte carries into the next.
  Four index[TernaryT3::kStripVectors][kInterleavedRows], out[TernaryT3::kStripBlocks][kInterleavedRows];
  const auto three_times = [](Four four) { return four + (four << 1); };
  for (auto& vector : index) {
    for (int r = 0; r < kInterleavedRows; ++r)
      vector[r] = steps[0][r] + three_times(steps[1][r] + three_times(steps[2][r]));
    steps += TernaryT3::kVectorSteps;
  }
  const auto bits = [](Four four, int first, int count) { return four >> first & 0x01010101U * ((1U << count) - 1); };
  for (int r = 0; r < kInterleavedRows; ++r) {
    const Four first = index[2][r], second = index[5][r], third = index[7][r];
    out[0][r] = index[0][r] | bits(first, 0, 3) << 5;
    out[1][r] = index[1][r] | bits(third, 3, 1) << 5 | bits(first, 3, 2) << 6;
    out[2][r] = index[3][r] | bits(second, 0, 3) << 5;
    out[3][r] = index[4][r] | bits(third, 4, 1) << 5 | bits(second, 3, 2) << 6;
    out[4][r] = index[6][r] | bits(third, 0, 3) << 5;
  }
  std::memcpy(to, out, sizeof out);
}

uint8_t code_at(TernaryI2, const std::byte* strip, int64_t row, int64_t column) {
  const std::byte four =
      strip[column / vector_columns<TernaryI2>() * kStepBytes + row * kStepColumns + column % kStepColumns];
  const int64_t step = column / kStepColumns % TernaryI2::kVectorSteps;
  return static_cast<uint8_t>(static_cast<uint8_t>(four) >> step * 2 & 3);
}

uint8_t code_at(TernaryT3, const std::byte* strip, int64_t row, int64_t column) {
  const int index = t3_index(strip, static_cast<int>(column / vector_columns<TernaryT3>()),
                             static_cast<int>(row * kStepColumns + column % kStepColumns));
  constexpr int kPowers[] = {1, 3, 9};
  return static_cast<uint8_t>(index / kPowers[column / kStepColumns % TernaryT3::kVectorSteps] % 3);
}

/// The scale of a block taken apart. Where it is 0, codes become 1, which is zero under any.
float take_scale(const BlockForm& form, BlockParts& parts) {
  const float d = f16_to_float(parts.d);
  if (d == 0) std::memset(parts.codes, 1, static_cast<size_t>(form.columns));
  return d;
}

}  // namespace

int64_t input_row_bytes_int8_row(int64_t columns) {
  // Every layout's last strip lies within.
  return static_cast<int64_t>(sizeof(Int8RowHeader)) + (columns + 63) / 64 * 64 + 64;
}

bool is_ternary(DType type) {
  const BlockForm* form = find_block_form(type);
  return form && form->code_bits == 2 && form->scale_bits == 0 && !form->has_min;
}

void split_ternary(const BlockForm& form, const std::byte* block, BlockParts& parts) {
  form.split(block, parts);
  take_scale(form, parts);
}

uint8_t largest_code(const uint8_t* codes, int64_t count) {
  uint8_t largest = 0;
  for (int64_t k = 0; k < count; ++k) largest = codes[k] > largest ? codes[k] : largest;
  return largest;
}

float ternary_block_scale(const TensorView& from, int64_t first_row) {
  const BlockForm& form = *find_block_form(from.type);
  const int64_t bytes = info(from.type).block_bytes;
  BlockParts parts;
  for (int64_t at = first_row * from.row_bytes(); at < static_cast<int64_t>(from.bytes.size()); at += bytes) {
    form.split(from.bytes.data() + at, parts);
    if (const float d = f16_to_float(parts.d); d != 0) return d;
  }
  return 1;
}

float ternary_codes(const TensorView& from, int64_t row, float scale, uint8_t* codes) {
  const BlockForm& form = *find_block_form(from.type);
  const int64_t bytes = info(from.type).block_bytes, columns = from.shape.columns();
  const std::byte* block = from.row(row);
  float found = scale;
  BlockParts parts;
  std::optional<uint16_t> known;  // to be of this scale: as a rule, all are
  for (int64_t k = 0; k < columns; k += form.columns, block += bytes) {
    form.split(block, parts);
    if (parts.d != known) {
      const float d = take_scale(form, parts);
      if (d != 0 && d == scale)
        known = parts.d;
      else if (d != 0 && found == scale)
        found = d;
    }
    std::memcpy(codes + k, parts.codes, static_cast<size_t>(form.columns));
  }
  return found;
}

std::vector<const Packing*> ternary_packings(CpuFeatures features) {
  std::vector<const Packing*> found;
  for (const ProductsRow& row : family_tables().ternary) {
    if ((features & row.required) != row.required) continue;
    // The portable twins are far behind any others.
    if (row.required == kCpuNone && !found.empty()) break;
    for (const Packing& packing : *row.packings) {
      const bool known = std::any_of(found.begin(), found.end(),
                                     [&](const Packing* p) { return std::strcmp(p->layout, packing.layout) == 0; });
      if (!known) found.push_back(&packing);
    }
  }
  return found;
}

template <class Layout>
int64_t packed_bytes_ternary(int64_t rows, int64_t columns) {
  return groups_of(rows) * group_bytes<Layout>(columns);
}

template <class Layout>
void pack_ternary(const uint8_t* codes, int64_t columns, int64_t row_begin, int64_t row_end, std::byte* packed) {
  constexpr int kSteps = strip_steps<Layout>();
  constexpr int64_t kColumns = strip_columns<Layout>(), kBytes = strip_bytes<Layout>();
  Four steps[kSteps][kInterleavedRows];
  uint8_t padded[kInterleavedRows][kColumns];
  std::byte last[kBytes];
  for (int64_t group = row_begin / kInterleavedRows; group * kInterleavedRows < row_end; ++group) {
    std::byte* to = packed + group * group_bytes<Layout>(columns);
    std::byte* const end = to + group_bytes<Layout>(columns);
    const int64_t first = group * kInterleavedRows, rows = std::min<int64_t>(kInterleavedRows, row_end - first);
    for (int64_t k = 0; k < columns; k += kColumns, to += kBytes) {
      const int64_t count = std::min<int64_t>(columns - k, kColumns);
      const uint8_t* from = codes + (first - row_begin) * columns + k;
      if (rows == kInterleavedRows && count == kColumns) {
        interleave_rows(from, columns, kSteps, steps);
      } else {
        std::memset(padded, 0, sizeof padded);
        for (int64_t r = 0; r < rows; ++r) std::memcpy(padded[r], from + r * columns, static_cast<size_t>(count));
        interleave_rows(padded[0], kColumns, kSteps, steps);
      }
      if (end - to >= kBytes) {
        put(Layout{}, steps, to);
      } else {
        put(Layout{}, steps, last);
        std::memcpy(to, last, static_cast<size_t>(end - to));
      }
    }
  }
}

template <class Layout>
void unpack_row_ternary(const std::byte* packed, int64_t, int64_t columns, int64_t row, float* to) {
  constexpr int64_t kColumns = strip_columns<Layout>();
  const std::byte* group = packed + row / kInterleavedRows * group_bytes<Layout>(columns);
  for (int64_t k = 0; k < columns; ++k) {
    const std::byte* strip = group + k / kColumns * strip_bytes<Layout>();
    to[k] = static_cast<float>(code_at(Layout{}, strip, row % kInterleavedRows, k % kColumns)) - 1;
  }
}

template int64_t packed_bytes_ternary<TernaryI2>(int64_t, int64_t);
template int64_t packed_bytes_ternary<TernaryT3>(int64_t, int64_t);
template void pack_ternary<TernaryI2>(const uint8_t*, int64_t, int64_t, int64_t, std::byte*);
template void pack_ternary<TernaryT3>(const uint8_t*, int64_t, int64_t, int64_t, std::byte*);
template void unpack_row_ternary<TernaryI2>(const std::byte*, int64_t, int64_t, int64_t, float*);
template void unpack_row_ternary<TernaryT3>(const std::byte*, int64_t, int64_t, int64_t, float*);

}  // namespace pare::kernels

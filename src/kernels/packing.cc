#include "kernels/packing.h"

#include <bit>
#include <cstring>

#include "base/buffer.h"
#include "base/half.h"

namespace pare::kernels {
namespace {

int64_t groups(int64_t rows) { return (rows + kInterleavedRows - 1) / kInterleavedRows; }

/// Codes of a step of 16 rows, a byte each: four columns of a row a lane.
using Step = uint32_t[kInterleavedRows];

/// Bits [first, first + kBits) of every code, as a plane.
template <int kBits>
void pack_plane(const Step* steps, int count, int first, std::byte* plane) {
  constexpr int kTogether = 8 / kBits;
  constexpr uint32_t kMask = 0x01010101u * ((1u << kBits) - 1);
  for (int s = 0; s < count; s += kTogether, plane += kStepBytes) {
    Step out{};
    for (int i = 0; i < kTogether; ++i)
      for (int r = 0; r < kInterleavedRows; ++r) out[r] |= (steps[s + i][r] >> first & kMask) << i * kBits;
    std::memcpy(plane, out, sizeof out);
  }
}

void pack_plane(const Step* steps, int count, int first, int bits, std::byte* plane) {
  switch (bits) {
    case 1:
      return pack_plane<1>(steps, count, first, plane);
    case 2:
      return pack_plane<2>(steps, count, first, plane);
    case 4:
      return pack_plane<4>(steps, count, first, plane);
    default:
      std::memcpy(plane, steps, static_cast<size_t>(count) * sizeof(Step));
  }
}

void unpack_plane(const std::byte* plane, int columns, int first, int bits, int64_t row, uint8_t* codes) {
  const int together = 8 / bits;
  const auto mask = static_cast<uint8_t>((1 << bits) - 1);
  for (int k = 0; k < columns; ++k) {
    const int step = k / kStepColumns;
    const auto byte = static_cast<uint8_t>(plane[step / together * kStepBytes + row * kStepColumns + k % kStepColumns]);
    codes[k] = static_cast<uint8_t>(codes[k] | (byte >> step % together * bits & mask) << first);
  }
}

/// Puts what one row's block has beside its codes in its lane.
void pack_scales(const BlockLayout& layout, const BlockParts& parts, int64_t r, std::byte* factors, std::byte* block) {
  std::memcpy(factors + 2 * r, &parts.d, 2);
  if (layout.has_min) std::memcpy(factors + 2 * (kInterleavedRows + r), &parts.m, 2);
  if (layout.scale_bytes == 0) return;
  for (int unit = 0; unit < layout.units(); ++unit) {
    const int64_t at = unit * kInterleavedRows + r;
    const auto scale = static_cast<uint8_t>(parts.scales[unit]);
    const int both = layout.nibble_scales ? scale | parts.mins[unit] << 4 : scale;
    block[at] = static_cast<std::byte>(both);
    if (layout.scale_bytes == 2) block[layout.mins_offset() + at] = static_cast<std::byte>(parts.mins[unit]);
  }
}

}  // namespace

int64_t packed_bytes_f32(int64_t rows, int64_t columns) { return rows * columns * 4; }
int64_t packed_bytes_16bit(int64_t rows, int64_t columns) { return rows * columns * 2; }
int64_t packed_bytes_blocks(const BlockLayout& layout, int64_t rows, int64_t columns) {
  const int64_t blocks = columns / layout.columns;
  return groups(rows) * (layout.group_bytes(blocks) + blocks * layout.rest_bytes());
}

void pack_blocks(const BlockLayout& layout, const TensorView& from, int64_t row_begin, int64_t row_end,
                 std::byte* packed) {
  const BlockForm& form = *find_block_form(from.type);
  const int64_t blocks = from.shape.columns() / form.columns, file_bytes = info(from.type).block_bytes;
  constexpr int kMostSteps = BlockParts::kMostColumns / kStepColumns;
  const int steps = form.columns / kStepColumns;
  std::byte* const rests = packed + groups(from.shape.rows()) * layout.group_bytes(blocks);
  Step codes[kMostSteps];
  BlockParts parts[kInterleavedRows];
  for (int64_t group = row_begin / kInterleavedRows; group * kInterleavedRows < row_end; ++group) {
    std::byte* const whole = packed + group * layout.group_bytes(blocks);
    for (int64_t b = 0; b < blocks; ++b) {
      std::byte *factors = whole + b * layout.factor_bytes(),
                *to = whole + layout.blocks_offset(blocks) + b * layout.bytes();
      for (int64_t r = 0; r < kInterleavedRows; ++r) {
        const int64_t row = group * kInterleavedRows + r;
        if (row < from.shape.rows())
          form.split(from.row(row) + b * file_bytes, parts[r]);
        else
          parts[r] = {};
        pack_scales(layout, parts[r], r, factors, to);
      }
      interleave_rows(parts[0].codes, sizeof(BlockParts), steps, codes);
      const int low = layout.rest_bits, high = low + layout.low_bits;
      pack_plane(codes, steps, low, layout.low_bits, to + layout.low_offset());
      if (layout.high_bits) pack_plane(codes, steps, high, layout.high_bits, to + layout.high_offset());
      if (!layout.rest_bits) continue;
      pack_plane(codes, steps, 0, layout.rest_bits, rests + (group * blocks + b) * layout.rest_bytes());
    }
  }
}

void unpack_row_blocks(const BlockForm& form, const BlockLayout& layout, const std::byte* packed, int64_t rows,
                       int64_t columns, int64_t row, float* to) {
  const int64_t blocks = columns / form.columns, r = row % kInterleavedRows;
  const std::byte* const group = packed + row / kInterleavedRows * layout.group_bytes(blocks);
  for (int64_t b = 0; b < blocks; ++b) {
    const std::byte *factors = group + b * layout.factor_bytes(),
                    *block = group + layout.blocks_offset(blocks) + b * layout.bytes();
    BlockParts parts{};
    std::memcpy(&parts.d, factors + 2 * r, 2);
    if (layout.has_min) std::memcpy(&parts.m, factors + 2 * (kInterleavedRows + r), 2);
    for (int unit = 0; unit < layout.units() && layout.scale_bytes > 0; ++unit) {
      const int64_t at = unit * kInterleavedRows + r;
      const auto both = static_cast<uint8_t>(block[at]);
      parts.scales[unit] = static_cast<int8_t>(layout.nibble_scales ? both & 15 : both);
      if (layout.nibble_scales) parts.mins[unit] = both >> 4;
      if (layout.scale_bytes == 2) parts.mins[unit] = static_cast<uint8_t>(block[layout.mins_offset() + at]);
    }
    const int low = layout.rest_bits, high = low + layout.low_bits;
    unpack_plane(block + layout.low_offset(), form.columns, low, layout.low_bits, r, parts.codes);
    if (layout.high_bits)
      unpack_plane(block + layout.high_offset(), form.columns, high, layout.high_bits, r, parts.codes);
    if (layout.rest_bits) {
      const std::byte* const rests = packed + groups(rows) * layout.group_bytes(blocks);
      unpack_plane(rests + (row / kInterleavedRows * blocks + b) * layout.rest_bytes(), form.columns, 0,
                   layout.rest_bits, r, parts.codes);
    }
    join(form, parts, to + b * form.columns);
  }
}

void unpack_row_f32(const std::byte* packed, int64_t, int64_t columns, int64_t row, float* to) {
  info(DType::kF32).decode(packed + row * columns * 4, to, columns);
}
void unpack_row_f16(const std::byte* packed, int64_t, int64_t columns, int64_t row, float* to) {
  info(DType::kF16).decode(packed + row * columns * 2, to, columns);
}
void unpack_row_bf16(const std::byte* packed, int64_t, int64_t columns, int64_t row, float* to) {
  info(DType::kBF16).decode(packed + row * columns * 2, to, columns);
}

int64_t input_row_bytes_float(int64_t columns) { return (columns * 4 + 63) / 64 * 64; }
int64_t input_row_bytes_int8(int64_t columns) {
  return (columns / kBlock * static_cast<int64_t>(sizeof(Int8Block)) + 63) / 64 * 64;
}

void interleave_rows(const uint8_t* rows, int64_t stride, int quads, uint32_t (*to)[kInterleavedRows]) {
  // Four rows of four lanes at once, as both compilers spell a vector of any machine.
  using Lanes = uint32_t __attribute__((vector_size(16)));
  for (int q = 0; q < quads; q += 4) {
    for (int r = 0; r < kInterleavedRows; r += 4) {
      Lanes row[4];
      for (int i = 0; i < 4; ++i)
        std::memcpy(&row[i], rows + (r + i) * stride + int64_t{q} * kStepColumns, sizeof row[i]);
      const Lanes low01 = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5),
                  low23 = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5),
                  high01 = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7),
                  high23 = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
      const Lanes lanes[] = {
          __builtin_shufflevector(low01, low23, 0, 1, 4, 5), __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
          __builtin_shufflevector(high01, high23, 0, 1, 4, 5), __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
      for (int i = 0; i < 4; ++i) std::memcpy(to[q + i] + r, &lanes[i], sizeof lanes[i]);
    }
  }
}

void* thread_scratch(int64_t bytes) {
  thread_local Buffer<std::byte> scratch;
  scratch.reserve(static_cast<size_t>(bytes));
  return scratch.data();
}

double portable_log(double x) {
  // x = 2^e * m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s), s = (m - 1) / (m + 1), |s| <= 0.1716: the series'
  // first neglected term is below 2^-58 of the first.
  if (!(x > 0)) return x == 0 ? -__builtin_inf() : __builtin_nan("");
  if (x == __builtin_inf()) return x;
  int exponent = 0;
  if (x < 0x1p-1022) x *= 0x1p54, exponent = -54;
  uint64_t bits = std::bit_cast<uint64_t>(x);
  exponent += static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xfffffffffffffull) | 0x3ff0000000000000ull);
  if (m > 1.4142135623730951) m *= 0.5, ++exponent;
  const double s = (m - 1) / (m + 1), z = s * s;
  double tail = 1.0 / 23;
  for (int k = 21; k >= 3; k -= 2) tail = tail * z + 1.0 / k;
  // ln 2 in two parts, the first with trailing zeros, so that exponent * kLn2High is exact.
  constexpr double kLn2High = 0x1.62e42fefa38p-1, kLn2Low = 0x1.ef35793c7673p-45;
  return exponent * kLn2High + (2 * s + (2 * s * (z * tail) + exponent * kLn2Low));
}

}  // namespace pare::kernels

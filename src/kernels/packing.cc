#include "kernels/packing.h"

#include <bit>
#include <cstring>

#include "base/buffer.h"
#include "base/half.h"

namespace pare::kernels {
namespace {

int64_t groups(int64_t rows) { return (rows + kInterleavedRows - 1) / kInterleavedRows; }

struct FileBlock {
  int bytes;       // of one row's block in the file: a float16 scale, then codes
  uint32_t flip;   // xor of 4 codes at a time
  uint32_t empty;  // 4 codes of a missing row
};
constexpr FileBlock kQ8File{34, 0x80808080u, 0x80808080u};  // signed -> code + 128
constexpr FileBlock kQ4File{18, 0, 0x88888888u};

void pack_interleaved(const FileBlock& block, const TensorView& from, int64_t row_begin, int64_t row_end,
                      std::byte* packed) {
  const int64_t blocks = from.shape.columns() / kBlock;
  const int words = (block.bytes - 2) / 4;
  for (int64_t group = row_begin / kInterleavedRows; group * kInterleavedRows < row_end; ++group) {
    std::byte* to = packed + group * blocks * kInterleavedRows * block.bytes;
    for (int64_t b = 0; b < blocks; ++b, to += kInterleavedRows * block.bytes) {
      for (int r = 0; r < kInterleavedRows; ++r) {
        const int64_t row = group * kInterleavedRows + r;
        const bool present = row < from.shape.rows();
        const std::byte* source = present ? from.row(row) + b * block.bytes : nullptr;
        uint16_t scale = 0;
        if (present) std::memcpy(&scale, source, 2);
        std::memcpy(to + 2 * r, &scale, 2);
        for (int w = 0; w < words; ++w) {
          uint32_t codes = block.empty;
          if (present) {
            std::memcpy(&codes, source + 2 + 4 * w, 4);
            codes ^= block.flip;
          }
          std::memcpy(to + 2 * kInterleavedRows + (w * kInterleavedRows + r) * 4, &codes, 4);
        }
      }
    }
  }
}

/// One row's block back in file order.
void unpack_interleaved(const FileBlock& block, const std::byte* packed, int64_t blocks, int64_t row, int64_t b,
                        std::byte* to) {
  const int64_t group = row / kInterleavedRows, r = row % kInterleavedRows;
  const std::byte* from = packed + (group * blocks + b) * kInterleavedRows * block.bytes;
  std::memcpy(to, from + 2 * r, 2);
  for (int w = 0; w < (block.bytes - 2) / 4; ++w) {
    uint32_t codes;
    std::memcpy(&codes, from + 2 * kInterleavedRows + (w * kInterleavedRows + r) * 4, 4);
    codes ^= block.flip;
    std::memcpy(to + 2 + 4 * w, &codes, 4);
  }
}

void unpack_row_interleaved(DType type, const FileBlock& block, const std::byte* packed, int64_t columns, int64_t row,
                            float* to) {
  const auto decode = info(type).decode;
  for (int64_t b = 0; b < columns / kBlock; ++b) {
    std::byte file[kQ8File.bytes];
    unpack_interleaved(block, packed, columns / kBlock, row, b, file);
    decode(file, to + b * kBlock, kBlock);
  }
}

}  // namespace

int64_t packed_bytes_f32(int64_t rows, int64_t columns) { return rows * columns * 4; }
int64_t packed_bytes_16bit(int64_t rows, int64_t columns) { return rows * columns * 2; }
int64_t packed_bytes_q8_0(int64_t rows, int64_t columns) { return groups(rows) * (columns / kBlock) * kQ8BlockBytes; }
int64_t packed_bytes_q4_0(int64_t rows, int64_t columns) { return groups(rows) * (columns / kBlock) * kQ4BlockBytes; }

void pack_q8_0(const TensorView& from, int64_t row_begin, int64_t row_end, std::byte* packed) {
  pack_interleaved(kQ8File, from, row_begin, row_end, packed);
}
void pack_q4_0(const TensorView& from, int64_t row_begin, int64_t row_end, std::byte* packed) {
  pack_interleaved(kQ4File, from, row_begin, row_end, packed);
}

void unpack_row_f32(const std::byte* packed, int64_t columns, int64_t row, float* to) {
  info(DType::kF32).decode(packed + row * columns * 4, to, columns);
}
void unpack_row_f16(const std::byte* packed, int64_t columns, int64_t row, float* to) {
  info(DType::kF16).decode(packed + row * columns * 2, to, columns);
}
void unpack_row_bf16(const std::byte* packed, int64_t columns, int64_t row, float* to) {
  info(DType::kBF16).decode(packed + row * columns * 2, to, columns);
}
void unpack_row_q8_0(const std::byte* packed, int64_t columns, int64_t row, float* to) {
  unpack_row_interleaved(DType::kQ8_0, kQ8File, packed, columns, row, to);
}
void unpack_row_q4_0(const std::byte* packed, int64_t columns, int64_t row, float* to) {
  unpack_row_interleaved(DType::kQ4_0, kQ4File, packed, columns, row, to);
}

int64_t input_row_bytes_float(int64_t columns) { return (columns * 4 + 63) / 64 * 64; }
int64_t input_row_bytes_int8(int64_t columns) {
  return (columns / kBlock * static_cast<int64_t>(sizeof(Int8Block)) + 63) / 64 * 64;
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

#pragma once
#include <cstddef>
#include <cstdint>

#include "tensor/block_parts.h"
#include "tensor/tensor.h"

// Layouts shared by every instruction set, and the code that makes them: compiled for the oldest machine.

namespace pare::kernels {

/// Rows packed together by block types: one 32-bit lane of the widest vector each.
inline constexpr int kInterleavedRows = 16;
/// Values of a block of quantized activations; kernels take so many columns of weights at a time.
inline constexpr int kBlock = 32;
/// Columns that one instruction multiplies in a lane.
inline constexpr int kStepColumns = 4, kStepBytes = kInterleavedRows * kStepColumns;

/// One block of activations in InputFormat::kInt8Block. A block holding a NaN or an infinity has zero codes and a NaN
/// scale: whatever reads it is NaN. Blocks whose largest magnitude is below 2^-100 are zero.
struct alignas(64) Int8Block {
  int8_t codes[kBlock];  // -127 .. 127
  float scale;           // absmax / 127
  // Negated sums of the codes, of all and of either half: where an exact sum starts, times what stored weight codes are
  // above their values.
  int32_t minus_sum, minus_half_sum[2];
  // scale times those: what a min of the weights is multiplied with.
  float weighted_sum, weighted_half_sum[2];
};
static_assert(sizeof(Int8Block) == 64);

/// How a block type lies in memory for products: 16 rows together, lane r of every vector row r's. First, so that all
/// else begins at multiples of 64 bytes, for each block of the rows
///   [16] float16 d, and [16] float16 m where the type has mins;
/// then for each block
///   [units][16] scales and then [units][16] mins of 8 bits, or [units][16] of both in 4 bits (scale low);
///   planes of bits of the codes: first the low ones, then the high ones. A plane of b bits holds, in vector v of 64
///   bytes (4 columns of each row), the steps of 4 columns 8 / b * v and on, each b bits higher than the one before;
/// Where codes are split (see head.h) these are planes of their leading bits, and behind all rows follow, again for 16
/// rows and each block, planes of the rest. Rows past the last are zeros with d = m = 0.
struct BlockLayout {
  int columns, unit;
  int scale_bytes;  // for each unit and row: 0, 1, or 2 with mins
  bool has_min, nibble_scales;
  int low_bits, high_bits;  // of the planes
  int rest_bits;            // the lowest of codes that are split; 0 of others

  constexpr int units() const { return columns / unit; }
  /// Of 16 rows of a block: d and m; scales and planes; the rest of their codes.
  constexpr int factor_bytes() const { return (has_min ? 2 : 1) * 2 * kInterleavedRows; }
  constexpr int bytes() const { return high_offset() + plane_bytes(high_bits); }
  constexpr int rest_bytes() const { return plane_bytes(rest_bits); }
  /// Where in a block's scales and planes.
  constexpr int mins_offset() const { return units() * kInterleavedRows; }
  constexpr int low_offset() const { return units() * scale_bytes * kInterleavedRows; }
  constexpr int high_offset() const { return low_offset() + plane_bytes(low_bits); }
  /// Where 16 rows of so many blocks have the first, and how far they reach, without the rest.
  constexpr int64_t blocks_offset(int64_t blocks) const { return (blocks * factor_bytes() + 63) / 64 * 64; }
  constexpr int64_t group_bytes(int64_t blocks) const { return blocks_offset(blocks) + blocks * bytes(); }

 private:
  constexpr int plane_bytes(int bits) const { return columns * kInterleavedRows * bits / 8; }
};

constexpr BlockLayout layout_of(const BlockForm& form, int rest_bits = 0) {
  const bool nibbles = form.scale_bits == 4;
  const int bytes = form.scale_bits == 0 ? 0 : form.has_min && !nibbles ? 2 : 1, leading = form.code_bits - rest_bits;
  const int low = leading == 8 ? 8 : leading >= 4 ? 4 : 2;
  return {form.columns, form.unit, bytes, form.has_min, nibbles, low, leading - low, rest_bits};
}

int64_t packed_bytes_f32(int64_t rows, int64_t columns);
int64_t packed_bytes_16bit(int64_t rows, int64_t columns);
void unpack_row_f32(const std::byte* packed, int64_t rows, int64_t columns, int64_t row, float* to);
void unpack_row_f16(const std::byte* packed, int64_t rows, int64_t columns, int64_t row, float* to);
void unpack_row_bf16(const std::byte* packed, int64_t rows, int64_t columns, int64_t row, float* to);

int64_t packed_bytes_blocks(const BlockLayout& layout, int64_t rows, int64_t columns);
/// Of any block type.
void pack_blocks(const BlockLayout& layout, const TensorView& from, int64_t row_begin, int64_t row_end,
                 std::byte* packed);
void unpack_row_blocks(const BlockForm& form, const BlockLayout& layout, const std::byte* packed, int64_t rows,
                       int64_t columns, int64_t row, float* to);

/// Bytes of a prepared row: columns floats, or columns / 32 Int8Blocks, rounded up to 64.
int64_t input_row_bytes_float(int64_t columns);
int64_t input_row_bytes_int8(int64_t columns);

/// Lanes of 4 columns: to[q][r] holds bytes 4 q to 4 q + 3 of row r of 16, `stride` bytes apart; quads is a multiple
/// of 4.
void interleave_rows(const uint8_t* rows, int64_t stride, int quads, uint32_t (*to)[kInterleavedRows]);

/// Memory of this thread that stays until its next call: aligned to 64 bytes, of any content.
void* thread_scratch(int64_t bytes);
/// Natural logarithm in a fixed sequence of IEEE operations, within 2 ulp of float64: the same bits on every machine,
/// which no libm promises.
double portable_log(double x);

}  // namespace pare::kernels

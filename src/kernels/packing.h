#pragma once
#include <cstddef>
#include <cstdint>

#include "tensor/tensor.h"

// Layouts shared by every instruction set, and the code that makes them: compiled for the oldest machine.

namespace pare::kernels {

/// Rows packed together by block types: one 32-bit lane of the widest vector each.
inline constexpr int kInterleavedRows = 16;
/// Values of a block of Q8_0, Q4_0 and of quantized activations.
inline constexpr int kBlock = 32;

/// One block of activations in InputFormat::kInt8Block. A block holding a NaN or an infinity has zero codes and a NaN
/// scale: whatever reads it is NaN. Blocks whose largest magnitude is below 2^-100 are zero.
struct Int8Block {
  int8_t codes[kBlock];  // -127 .. 127
  float scale;           // absmax / 127
  int32_t sum;           // of codes
  // Negated sums of codes times what stored weight codes are above their values (8 in Q4_0, 128 in Q8_0): where an
  // exact sum starts that is to come out right with codes as they are stored. Ready-made, they cost the products
  // nothing.
  int32_t minus_8_sum, minus_128_sum;
};
static_assert(sizeof(Int8Block) == 48);

/// Packed Q8_0, a group of 16 rows after the other; in it, for each block of 32 columns:
///   [16] float16 scales, then [8][16][4] codes + 128 as uint8: 4 consecutive columns of each row, 8 times.
/// Rows past the last have zero scales. The same bytes as the file (34 a block and row), in another order.
inline constexpr int kQ8BlockBytes = kInterleavedRows * 34;
/// Packed Q4_0: [16] float16 scales, then [4][16][4] bytes as the file has them: byte i of a row's 16 holds columns i
/// (low nibble) and i + 16 (high nibble), each 8 above its value.
inline constexpr int kQ4BlockBytes = kInterleavedRows * 18;

int64_t packed_bytes_f32(int64_t rows, int64_t columns);
int64_t packed_bytes_16bit(int64_t rows, int64_t columns);
int64_t packed_bytes_q8_0(int64_t rows, int64_t columns);
int64_t packed_bytes_q4_0(int64_t rows, int64_t columns);
void pack_q8_0(const TensorView& from, int64_t row_begin, int64_t row_end, std::byte* packed);
void pack_q4_0(const TensorView& from, int64_t row_begin, int64_t row_end, std::byte* packed);
void unpack_row_f32(const std::byte* packed, int64_t columns, int64_t row, float* to);
void unpack_row_f16(const std::byte* packed, int64_t columns, int64_t row, float* to);
void unpack_row_bf16(const std::byte* packed, int64_t columns, int64_t row, float* to);
void unpack_row_q8_0(const std::byte* packed, int64_t columns, int64_t row, float* to);
void unpack_row_q4_0(const std::byte* packed, int64_t columns, int64_t row, float* to);

/// Bytes of a prepared row: columns floats, or columns / 32 Int8Blocks, rounded up to 64.
int64_t input_row_bytes_float(int64_t columns);
int64_t input_row_bytes_int8(int64_t columns);

/// Memory of this thread that stays until its next call: aligned to 64 bytes, of any content.
void* thread_scratch(int64_t bytes);
/// Natural logarithm in a fixed sequence of IEEE operations, within 2 ulp of float64: the same bits on every machine,
/// which no libm promises.
double portable_log(double x);

}  // namespace pare::kernels

#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/matmul.h"
#include "kernels/packing.h"
#include "tensor/block_parts.h"

// Ternary weights (-1, 0, 1) against activations of one int8 scale a token, as BitNet b1.58 defines a linear layer
// (arXiv 2402.17764; transformers' integrations/bitnet.py):
//
//   out[i][r] = (sum over k of code[i][k] * w[r][k]) * (weight scale * (1 / s[i])),  code = round(x * s)
//
// The sum is exact in int32 for up to kMostTernaryColumns, so every packing on every instruction set gives the same
// bits.

namespace pare::kernels {

/// Where codes are summed as they lie, up to 64 times too large, in four sums in turn: 2^19 / 4 * 128 * 128 = 2^31.
inline constexpr int64_t kMostTernaryColumns = (int64_t{1} << 19) - 1;

/// One row of activations in InputFormat::kInt8Row: this, then int8 codes, [columns] and zeros up to
/// input_row_bytes_int8_row. s = 127 / max(absmax, 1e-5); codes round half to even and lie in [-128, 127]. A row
/// holding a NaN or an infinity has zero codes and a NaN inverse: whatever reads it is NaN.
struct alignas(64) Int8RowHeader {
  float inverse;      // 1 / s
  int32_t minus_sum;  // negated sum of the codes: weights are stored as w + 1
};
static_assert(sizeof(Int8RowHeader) == 64);

int64_t input_row_bytes_int8_row(int64_t columns);

/// Whether a storage type holds ternary weights: every value of a block is one scale times -1, 0 or 1.
bool is_ternary(DType type);

/// One block of a ternary type taken apart. A block whose scale is 0 holds zeros whatever its codes are (ggml's
/// quantizers make such blocks of nothing but zeros, and of values too small for a float16 scale): they come as 1,
/// which is zero under any scale.
void split_ternary(const BlockForm& form, const std::byte* block, BlockParts& parts);

/// w + 1 of a row of a ternary type, codes: [columns]. Returns the first block scale that differs from `scale`, blocks
/// of scale 0 aside, or `scale` if none does; a code of 3 comes back as it is stored.
float ternary_codes(const TensorView& from, int64_t row, float scale, uint8_t* codes);
uint8_t largest_code(const uint8_t* codes, int64_t count);
/// The scale of the first block from a row on whose scale is not 0; 1 if there is none, since any will do for zeros.
float ternary_block_scale(const TensorView& from, int64_t first_row);

/// Packings of ternary weights that the given features serve, one of each layout, the one to try first in front; the
/// portable ones only where there is no other. They have pack_codes instead of pack.
std::vector<const Packing*> ternary_packings(CpuFeatures features);

/// Layouts: 16 rows together as in packing.h, 4 columns of each a step. A vector is 64 bytes in a register and holds a
/// few steps; vectors lie in blocks of as many bytes, a strip of them at a time.
///
/// i2: step s of 4 in bits 2 s of each byte: 2 bits a weight.
struct TernaryI2 {
  static constexpr int kVectorSteps = 4, kStripVectors = 4, kStripBlocks = 4;
};
/// t3: 64 indices of 5 bits, c0 + 3 c1 + 9 c2 of 3 steps: 1.67 bits a weight. Bits 0 to 4 of a strip's 5 blocks are 5
/// of its vectors, so that they need no unpacking; the other 3 lie in the bits above these (see t3_index).
struct TernaryT3 {
  static constexpr int kVectorSteps = 3, kStripVectors = 8, kStripBlocks = 5;
  /// The block of each vector that has one; -1: it lies above. A vector lies in no block later than those after it.
  static constexpr int kBlock[kStripVectors] = {0, 1, -1, 2, 3, -1, 4, -1};
};
/// A panel of unpacked codes, a byte each: what products of many activation rows read.
struct TernaryBytes {
  static constexpr int kVectorSteps = 1, kStripVectors = 16, kStripBlocks = 16;
};

/// Index `at` of 64 of a vector of a strip of t3: its low bits lie in one block's bits 5 and on, its high in another's.
inline int t3_index(const std::byte* strip, int vector, int at) {
  const auto bits = [&](int block, int first, int count) {
    return static_cast<uint8_t>(strip[block * kStepBytes + at]) >> first & ((1 << count) - 1);
  };
  switch (vector) {
    case 2:
      return bits(0, 5, 3) | bits(1, 6, 2) << 3;
    case 5:
      return bits(2, 5, 3) | bits(3, 6, 2) << 3;
    case 7:
      return bits(4, 5, 3) | bits(1, 5, 1) << 3 | bits(3, 5, 1) << 4;
    default:
      return bits(TernaryT3::kBlock[vector], 0, 5);
  }
}

/// Columns that a vector of a layout holds, and steps and columns that a strip does: activations are filled up to whole
/// strips.
template <class Layout>
constexpr int64_t vector_columns() {
  return Layout::kVectorSteps * kStepColumns;
}
template <class Layout>
constexpr int strip_steps() {
  return Layout::kVectorSteps * Layout::kStripVectors;
}
template <class Layout>
constexpr int64_t strip_columns() {
  return strip_steps<Layout>() * kStepColumns;
}
template <class Layout>
constexpr int64_t strip_bytes() {
  return Layout::kStripBlocks * kStepBytes;
}
template <class Layout>
constexpr int64_t strips_of(int64_t columns) {
  return (columns + strip_columns<Layout>() - 1) / strip_columns<Layout>();
}
/// Of 16 packed rows. The last strip ends with the block of its last column: what is read past that meets activations
/// of 0, and at the end of a matrix lies in kPackedSlack.
template <class Layout>
constexpr int64_t group_bytes(int64_t columns) {
  const int64_t vectors = (columns + vector_columns<Layout>() - 1) / vector_columns<Layout>();
  return (vectors * Layout::kStripBlocks + Layout::kStripVectors - 1) / Layout::kStripVectors * kStepBytes;
}

template <class Layout>
int64_t packed_bytes_ternary(int64_t rows, int64_t columns);
template <class Layout>
void pack_ternary(const uint8_t* codes, int64_t columns, int64_t row_begin, int64_t row_end, std::byte* packed);
template <class Layout>
void unpack_row_ternary(const std::byte* packed, int64_t rows, int64_t columns, int64_t row, float* to);

}  // namespace pare::kernels

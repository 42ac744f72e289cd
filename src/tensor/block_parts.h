#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace pare {

/// A block of a storage type taken apart: what all of them are made of, in whatever order their bytes have it.
///
///   value k = d * scale[k / unit] * (code[k] - offset) - m * min[k / unit]
///
/// A type without scales of its own in a block has ones there; with a table, table[code[k]] stands for code[k] -
/// offset.
struct BlockParts {
  static constexpr int kMostColumns = 256, kMostUnits = 16;
  uint16_t d = 0, m = 0;        // float16; Q4_1 and Q5_1 add what they store: m is its negative
  int8_t scales[kMostUnits];    // [columns / unit]
  uint8_t mins[kMostUnits];     // [columns / unit]
  uint8_t codes[kMostColumns];  // [columns]
};

/// What a type's blocks have of that. Layouts: ggml's ggml-common.h; values: gguf-py's quants.py.
struct BlockForm {
  DType type;
  int columns;     // of a block
  int unit;        // columns that share a scale (16 or 32) or a part of them that kernels take at a time
  int scale_bits;  // of scales, and of mins: 0 (none of their own), 4, 6 or 8
  bool has_min;
  int code_bits;  // 2, 3, 4, 5, 6 or 8
  int offset;     // 0 or a power of two
  bool table;     // codes index kIq4Values
  void (*split)(const std::byte* block, BlockParts& parts);
};

/// Values of the IQ4 types' codes.
inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

void split_q8_0(const std::byte* block, BlockParts& parts);
void split_q4_0(const std::byte* block, BlockParts& parts);
void split_q4_1(const std::byte* block, BlockParts& parts);
void split_q5_0(const std::byte* block, BlockParts& parts);
void split_q5_1(const std::byte* block, BlockParts& parts);
void split_q2_k(const std::byte* block, BlockParts& parts);
void split_q3_k(const std::byte* block, BlockParts& parts);
void split_q4_k(const std::byte* block, BlockParts& parts);
void split_q5_k(const std::byte* block, BlockParts& parts);
void split_q6_k(const std::byte* block, BlockParts& parts);
void split_iq4_nl(const std::byte* block, BlockParts& parts);
void split_iq4_xs(const std::byte* block, BlockParts& parts);
void split_tq1_0(const std::byte* block, BlockParts& parts);
void split_tq2_0(const std::byte* block, BlockParts& parts);
void split_q2_0(const std::byte* block, BlockParts& parts);

/// One row for each type that is made of blocks. Evaluated while compiling only, so that code for one instruction set
/// leaves no copy of it behind that others would use.
consteval auto block_forms() {
  // clang-format off
  return std::to_array<BlockForm>({
      // type, columns, unit, scale bits, min, code bits, offset, table
      {DType::kQ8_0,    32, 32, 0, false, 8, 128, false, split_q8_0},
      {DType::kQ4_0,    32, 32, 0, false, 4,   8, false, split_q4_0},
      {DType::kQ4_1,    32, 32, 0, true,  4,   0, false, split_q4_1},
      {DType::kQ5_0,    32, 32, 0, false, 5,  16, false, split_q5_0},
      {DType::kQ5_1,    32, 32, 0, true,  5,   0, false, split_q5_1},
      {DType::kQ2_K,   256, 16, 4, true,  2,   0, false, split_q2_k},
      {DType::kQ3_K,   256, 16, 6, false, 3,   4, false, split_q3_k},
      {DType::kQ4_K,   256, 32, 6, true,  4,   0, false, split_q4_k},
      {DType::kQ5_K,   256, 32, 6, true,  5,   0, false, split_q5_k},
      {DType::kQ6_K,   256, 16, 8, false, 6,  32, false, split_q6_k},
      {DType::kIQ4_NL,  32, 32, 0, false, 4,   0, true,  split_iq4_nl},
      {DType::kIQ4_XS, 256, 32, 6, false, 4,   0, true,  split_iq4_xs},
      {DType::kTQ1_0,  256, 32, 0, false, 2,   1, false, split_tq1_0},
      {DType::kTQ2_0,  256, 32, 0, false, 2,   1, false, split_tq2_0},
      {DType::kQ2_0,    64, 32, 0, false, 2,   1, false, split_q2_0},
  });
  // clang-format on
}

/// The form of a type that is made of blocks.
consteval BlockForm block_form(DType type) {
  for (const BlockForm& form : block_forms())
    if (form.type == type) return form;
  throw "not a type of blocks";
}

/// Null for types that are not made of blocks.
const BlockForm* find_block_form(DType type);

/// Values of a block, [columns], each step rounded to float32 as gguf-py does.
void join(const BlockForm& form, const BlockParts& parts, float* to);

/// DTypeInfo::decode of a type that is made of blocks.
template <DType kType>
void decode_blocks(const std::byte* from, float* to, int64_t count);

}  // namespace pare

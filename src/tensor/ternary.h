#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "tensor/dtype.h"

namespace pare {

// Ternary weights w of -1, 0 or 1 as codes w + 1, one byte each, to and from what files hold.

inline constexpr uint16_t kUnitScale = 0x3c00;  // 1 as float16

/// Blocks of TQ1_0, TQ2_0 or Q2_0 that all have one scale, float16 bits. `count` is a multiple of the type's block;
/// codes are 0, 1 or 2. Throws Error for another type.
void encode_ternary_codes(DType type, const uint8_t* codes, uint16_t scale, std::byte* to, int64_t count);

/// The two layouts of bitnet.cpp's I2_S (ggml type 36), two bits a weight: which one a file has depends on the machine
/// that made it, and the file does not say (microsoft/BitNet, src/ggml-bitnet-mad.cpp, quantize_i2_s).
enum class I2sLayout : uint8_t {
  kX86,  // 128 weights in 32 bytes: byte p holds w[p], w[32 + p], w[64 + p], w[96 + p], the first in its highest bits
  kArm   // 64 weights in 16 bytes, in the same way
};
/// "x86", "arm".
const char* i2s_layout_name(I2sLayout layout);
/// Nothing if unknown.
std::optional<I2sLayout> find_i2s_layout(std::string_view name);
/// Weights of a block.
int64_t i2s_block_columns(I2sLayout layout);
/// `count`, a multiple of the block, codes of 0 to 3; a sound file has no 3.
void unpack_i2s(I2sLayout layout, const std::byte* from, uint8_t* codes, int64_t count);

}  // namespace pare

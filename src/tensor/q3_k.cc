#include "base/half.h"
#include "tensor/blocks.h"
#include "tensor/codecs.h"

namespace pare {
namespace {

// 16 groups of 16 values: value = d * (scale - 32) * (q - 4), six bits a scale and three bits a q. The low two bits of
// q lie as in Q2_K: each 32 bytes hold 128 values, value i in bits 2 * (i / 32) of byte i % 32. The third bit of value
// i of the block is bit i / 32 of high[i % 32].
struct Block {
  static constexpr int kValues = kSuperBlock;
  uint8_t high[32];
  uint8_t low[64];
  uint8_t scales[12];
  uint16_t d;  // f16
};
static_assert(sizeof(Block) == 110);

/// Of group g, 0 to 63: the low four bits are a half of byte g % 8, the high two bits a quarter of byte 8 + g % 4.
int unpack_scale(const uint8_t* scales, int group) {
  const int low = scales[group % 8] >> (group / 8 * 4) & 15;
  const int high = scales[8 + group % 4] >> (group / 4 * 2) & 3;
  return low | high << 4;
}

void decode_block(const Block& block, float* __restrict to) {
  const float d = f16_to_float(block.d);
  for (int group = 0; group < 16; ++group) {
    const float scale = d * static_cast<float>(unpack_scale(block.scales, group) - 32);
    const uint8_t* low = block.low + group / 8 * 32 + group % 2 * 16;
    const uint8_t* high = block.high + group % 2 * 16;
    const int shift = group % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i) {
      const int q = (low[i] >> shift & 3) | (high[i] >> (group / 2) & 1) << 2;
      to[group * 16 + i] = scale * static_cast<float>(q - 4);
    }
  }
}

}  // namespace

void decode_q3_k(const std::byte* from, float* to, int64_t count) { decode_blocks(from, to, count, decode_block); }

}  // namespace pare

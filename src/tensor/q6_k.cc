#include "base/half.h"
#include "tensor/blocks.h"
#include "tensor/codecs.h"

namespace pare {
namespace {

// 16 groups of 16 values: value = d * scale * (q - 32), six bits a q. Each half of 128 values has 64 bytes of `low`,
// value i in half i / 64 of byte i % 64, and 32 bytes of `high`, value i in bits 2 * (i / 32) of byte i % 32.
struct Block {
  static constexpr int kValues = kSuperBlock;
  uint8_t low[128];
  uint8_t high[64];
  int8_t scales[16];
  uint16_t d;  // f16
};
static_assert(sizeof(Block) == 210);

void decode_block(const Block& block, float* __restrict to) {
  const float d = f16_to_float(block.d);
  for (int group = 0; group < 16; ++group) {
    const float scale = d * static_cast<float>(block.scales[group]);
    const uint8_t* low = block.low + group / 8 * 64 + group % 4 * 16;
    const uint8_t* high = block.high + group / 8 * 32 + group % 2 * 16;
    const int low_shift = group % 8 / 4 * 4;
    const int high_shift = group % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i) {
      const int q = (low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4;
      to[group * 16 + i] = scale * static_cast<float>(q - 32);
    }
  }
}

}  // namespace

void decode_q6_k(const std::byte* from, float* to, int64_t count) { decode_blocks(from, to, count, decode_block); }

}  // namespace pare

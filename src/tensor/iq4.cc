#include "base/half.h"
#include "tensor/blocks.h"
#include "tensor/codecs.h"

namespace pare {
namespace {

// What the four bits stand for: steps that are small near zero, where most weights are.
constexpr int8_t kLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// IQ4_NL: value = d * kLevels[q], byte i holding values i and i + 16.
struct BlockNl {
  static constexpr int kValues = 32;
  uint16_t d;  // f16
  uint8_t q[16];
};
static_assert(sizeof(BlockNl) == 18);

// IQ4_XS: 8 groups of 32 values: value = d * (scale - 32) * kLevels[q], six bits a scale. The low four bits of the
// scale of group g are half g % 2 of scales_low[g / 2], the high two are bits 2 * g of scales_high. Each 16 bytes of q
// hold a group as IQ4_NL does.
struct BlockXs {
  static constexpr int kValues = kSuperBlock;
  uint16_t d;  // f16
  uint16_t scales_high;
  uint8_t scales_low[4];
  uint8_t q[128];
};
static_assert(sizeof(BlockXs) == 136);

void decode_32(const uint8_t* q, float d, float* __restrict to) {
  for (int i = 0; i < 16; ++i) to[i] = d * static_cast<float>(kLevels[q[i] & 15]);
  for (int i = 0; i < 16; ++i) to[i + 16] = d * static_cast<float>(kLevels[q[i] >> 4]);
}

void decode_nl_block(const BlockNl& block, float* to) { decode_32(block.q, f16_to_float(block.d), to); }

void decode_xs_block(const BlockXs& block, float* to) {
  const float d = f16_to_float(block.d);
  for (int group = 0; group < 8; ++group) {
    const int low = block.scales_low[group / 2] >> (group % 2 * 4) & 15;
    const int high = block.scales_high >> (group * 2) & 3;
    decode_32(block.q + group * 16, d * static_cast<float>((low | high << 4) - 32), to + group * 32);
  }
}

}  // namespace

void decode_iq4_nl(const std::byte* from, float* to, int64_t count) { decode_blocks(from, to, count, decode_nl_block); }
void decode_iq4_xs(const std::byte* from, float* to, int64_t count) { decode_blocks(from, to, count, decode_xs_block); }

}  // namespace pare

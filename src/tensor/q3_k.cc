#include "base/half.h"
#include "tensor/blocks.h"
#include "tensor/codecs.h"
#include "tensor/fit.h"

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
void pack_scale(int scale, int group, uint8_t* scales) {
  scales[group % 8] = static_cast<uint8_t>(scales[group % 8] | (scale & 15) << (group / 8 * 4));
  scales[8 + group % 4] = static_cast<uint8_t>(scales[8 + group % 4] | scale >> 4 << (group / 4 * 2));
}

// More tries lower the error of Gaussian rows by less than 1 percent.
constexpr Search kSearch{4, 0.3f, 1};

Block encode_block(const float* from) {
  ScaledGroups<16, 16> groups;
  fit_scaled_groups<Steps<-4, 3>, Steps<-32, 31>>(from, kSearch, groups);
  Block block{};
  block.d = groups.d;
  for (int g = 0; g < 16; ++g) pack_scale(static_cast<int>(groups.multiple[g]) + 32, g, block.scales);
  uint8_t q[kSuperBlock];
  for (int i = 0; i < kSuperBlock; ++i) q[i] = static_cast<uint8_t>(static_cast<int>(groups.q[i]) + 4);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* run = q + half * 128;
    for (int i = 0; i < 32; ++i) {
      block.low[half * 32 + i] =
          static_cast<uint8_t>((run[i] & 3) | (run[i + 32] & 3) << 2 | (run[i + 64] & 3) << 4 | (run[i + 96] & 3) << 6);
    }
  }
  for (int run = 0; run < 8; ++run) {
    for (int i = 0; i < 32; ++i) {
      block.high[i] = static_cast<uint8_t>(block.high[i] | q[run * 32 + i] >> 2 << run);
    }
  }
  return block;
}

}  // namespace

void encode_q3_k(const float* from, std::byte* to, int64_t count) { encode_blocks(from, to, count, encode_block); }

}  // namespace pare
